//! `get_related`: what belongs to grants, methods or spaces, in one answer.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{Answer, Answers, Call, Request, Tenant, one};
use crate::{
    cloud::{
        api::{
            answers,
            params::{Args, IDS, Kind, TEXTS, optional, required},
            problem::Problem,
        },
        store::{DeviceFilter, Entrance, EntranceFilter, Grant, GrantName, Page, SpaceName},
    },
    grants::{Refused, Resource},
    model::{AccessGrantId, AccessMethodId, SpaceId, WorkspaceId},
    store::StoreError,
};

const OF_GRANTS: &[&str] = &[
    "spaces",
    "devices",
    "acs_entrances",
    "connected_accounts",
    "acs_systems",
    "user_identities",
    "acs_access_groups",
    "access_methods",
];
const OF_METHODS: &[&str] = &[
    "spaces",
    "devices",
    "acs_entrances",
    "access_grants",
    "access_methods",
    "instant_keys",
    "client_sessions",
    "acs_credentials",
];
const OF_SPACES: &[&str] =
    &["spaces", "devices", "acs_entrances", "connected_accounts", "acs_systems", "access_methods"];

pub(super) const CALLS: &[Call] = &[
    Call {
        path: "/access_grants/get_related",
        method: Method::GET,
        params: &[
            optional("access_grant_ids", IDS),
            optional("access_grant_keys", TEXTS),
            optional("include", Kind::List(&Kind::Choice(OF_GRANTS))),
            optional("exclude", Kind::List(&Kind::Choice(OF_GRANTS))),
        ],
        answers: Answers::One("batch", "batch"),
        run: |request| Box::pin(of_grants(request)),
    },
    Call {
        path: "/access_methods/get_related",
        method: Method::GET,
        params: &[
            required("access_method_ids", IDS),
            optional("include", Kind::List(&Kind::Choice(OF_METHODS))),
            optional("exclude", Kind::List(&Kind::Choice(OF_METHODS))),
        ],
        answers: Answers::One("batch", "batch"),
        run: |request| Box::pin(of_methods(request)),
    },
    Call {
        path: "/spaces/get_related",
        method: Method::GET,
        params: &[
            optional("space_ids", IDS),
            optional("space_keys", TEXTS),
            optional("include", Kind::List(&Kind::Choice(OF_SPACES))),
            optional("exclude", Kind::List(&Kind::Choice(OF_SPACES))),
        ],
        answers: Answers::One("batch", "batch"),
        run: |request| Box::pin(of_spaces(request)),
    },
];

/// More of them in one question would keep others waiting.
const MOST: usize = 200;

/// What is named: each once, by either of two names.
fn named<N>(
    args: &Args,
    ids: (&str, fn(uuid::Uuid) -> N),
    keys: (&str, fn(String) -> N),
) -> Result<Vec<N>, Problem> {
    let by_id = args.ids::<uuid::Uuid>(ids.0).unwrap_or_default();
    let by_key = args.texts(keys.0).unwrap_or_default();
    let by_id: BTreeSet<_> = by_id.into_iter().collect();
    let by_key: BTreeSet<_> = by_key.into_iter().collect();
    match by_id.len() + by_key.len() {
        0 => Err(Problem::invalid_parameter(ids.0, "Expected at least one")),
        many if many > MOST => {
            Err(Problem::invalid_parameter(ids.0, format!("Expected at most {MOST} of them")))
        }
        _ => Ok(by_id.into_iter().map(ids.1).chain(by_key.into_iter().map(keys.1)).collect()),
    }
}

/// What an answer gathers, each thing once.
struct Batch {
    workspace: WorkspaceId,
    now: jiff::Timestamp,
    wanted: Vec<&'static str>,
    things: Map<String, Value>,
    seen: BTreeSet<(&'static str, String)>,
}

impl Batch {
    fn new(request: &Request, kinds: &[&'static str]) -> Self {
        let given = |name: &str| request.args.texts(name);
        let (include, exclude) = (given("include"), given("exclude").unwrap_or_default());
        let is_wanted = |kind: &&&str| {
            include.as_ref().is_none_or(|include| include.iter().any(|one| one == **kind))
                && !exclude.iter().any(|one| one == **kind)
        };
        let wanted: Vec<_> = kinds.iter().filter(is_wanted).copied().collect();
        let things = wanted.iter().map(|kind| ((*kind).to_owned(), json!([])));
        Self {
            workspace: request.workspace,
            now: request.api.clock.now(),
            things: things.collect(),
            wanted,
            seen: BTreeSet::new(),
        }
    }

    fn wants(&self, kind: &str) -> bool {
        self.wanted.contains(&kind)
    }

    fn add(&mut self, kind: &'static str, id: impl ToString, shown: impl FnOnce() -> Value) {
        if self.wants(kind)
            && self.seen.insert((kind, id.to_string()))
            && let Some(Value::Array(things)) = self.things.get_mut(kind)
        {
            things.push(shown());
        }
    }

    fn add_spaces(&mut self, tenant: &mut Tenant<'_>, spaces: &[SpaceId]) -> Result<(), StoreError> {
        for id in spaces {
            if let Ok(space) = tenant.space_named(&SpaceName::Id(*id))? {
                let workspace = self.workspace;
                self.add("spaces", id, || answers::space(workspace, &space));
            }
        }
        Ok(())
    }

    /// Doors, and the systems and accounts behind them.
    fn add_doors(&mut self, tenant: &mut Tenant<'_>, filter: &EntranceFilter) -> Result<(), StoreError> {
        let doors: Vec<Entrance> = tenant.entrances(filter, Page { limit: 10_000, after: 0 })?.rows;
        let systems = match self.wants("acs_systems") || self.wants("connected_accounts") {
            true => tenant.systems(None, None, None)?,
            false => Vec::new(),
        };
        for door in &doors {
            self.add("acs_entrances", door.id, || answers::entrance(door));
            let Some(system) = systems.iter().find(|system| system.id == door.system) else { continue };
            let workspace = self.workspace;
            self.add("acs_systems", system.id, || answers::system(workspace, system));
            self.add("connected_accounts", system.account, || answers::account(system));
        }
        Ok(())
    }

    fn add_devices(&mut self, tenant: &mut Tenant<'_>, filter: &DeviceFilter) -> Result<(), StoreError> {
        if self.wants("devices") {
            for device in tenant.devices(filter, Page { limit: 10_000, after: 0 })?.rows {
                let workspace = self.workspace;
                self.add("devices", device.id, || answers::device(workspace, &device));
            }
        }
        Ok(())
    }

    fn add_grant(&mut self, tenant: &mut Tenant<'_>, grant: &Grant) -> Result<(), StoreError> {
        let (workspace, now) = (self.workspace, self.now);
        self.add("access_grants", grant.id, || answers::grant(workspace, grant, now));
        for method in &grant.methods {
            self.add("access_methods", method.id, || answers::method(workspace, method, now));
        }
        if self.wants("user_identities")
            && let Some(identity) = tenant.identity(grant.user_identity)?
        {
            self.add("user_identities", identity.id, || answers::identity(workspace, &identity));
        }
        self.add_spaces(tenant, &grant.spaces)?;
        let devices = DeviceFilter { grant: Some(grant.id.to_string()), ..DeviceFilter::default() };
        self.add_devices(tenant, &devices)?;
        let doors = tenant.doors_of_grant(grant.id)?;
        self.add_doors(tenant, &EntranceFilter { ids: Some(doors), ..EntranceFilter::default() })
    }

    fn done(self) -> Value {
        Value::Object(self.things)
    }
}

async fn of_grants(request: Request) -> Answer {
    let names = named(
        &request.args,
        ("access_grant_ids", |id| GrantName::Id(AccessGrantId(id))),
        ("access_grant_keys", GrantName::Key),
    )?;
    let mut batch = Batch::new(&request, OF_GRANTS);
    let gather = move |tenant: &mut Tenant<'_>| {
        for name in &names {
            let Some(grant) = tenant.grant(name)? else {
                let shown = match name {
                    GrantName::Id(id) => id.to_string(),
                    GrantName::Key(key) => key.clone(),
                };
                return Ok(Err(Refused::not_found(Resource::AccessGrant, shown)));
            };
            batch.add_grant(tenant, &grant)?;
        }
        Ok(Ok(batch.done()))
    };
    one("batch", request.ask(gather).await?)
}

async fn of_methods(request: Request) -> Answer {
    let ids: Vec<AccessMethodId> = named(
        &request.args,
        ("access_method_ids", AccessMethodId),
        ("", |_| AccessMethodId(uuid::Uuid::nil())),
    )?;
    let mut batch = Batch::new(&request, OF_METHODS);
    let gather = move |tenant: &mut Tenant<'_>| {
        for id in &ids {
            let Some(method) = tenant.method(*id)? else {
                return Ok(Err(Refused::not_found(Resource::AccessMethod, id)));
            };
            let (workspace, now) = (batch.workspace, batch.now);
            batch.add("access_methods", id, || answers::method(workspace, &method, now));
            if let Some(grant) = tenant.grant(&GrantName::Id(method.grant))? {
                batch.add("access_grants", grant.id, || answers::grant(workspace, &grant, now));
                batch.add_spaces(tenant, &grant.spaces)?;
            }
            if let Some(card) = tenant.card_of_method(*id)? {
                batch.add("acs_credentials", card.id, || answers::credential(workspace, &card));
            }
            let devices = DeviceFilter { method: Some(id.to_string()), ..DeviceFilter::default() };
            batch.add_devices(tenant, &devices)?;
            let filter = EntranceFilter { method: Some(id.to_string()), ..EntranceFilter::default() };
            batch.add_doors(tenant, &filter)?;
        }
        Ok(Ok(batch.done()))
    };
    one("batch", request.ask(gather).await?)
}

async fn of_spaces(request: Request) -> Answer {
    let names =
        named(&request.args, ("space_ids", |id| SpaceName::Id(SpaceId(id))), ("space_keys", SpaceName::Key))?;
    let mut batch = Batch::new(&request, OF_SPACES);
    let gather = move |tenant: &mut Tenant<'_>| {
        for name in &names {
            let space = match tenant.space_named(name)? {
                Ok(space) => space,
                Err(refused) => return Ok(Err(refused)),
            };
            let (workspace, now) = (batch.workspace, batch.now);
            batch.add("spaces", space.id, || answers::space(workspace, &space));
            let devices = DeviceFilter { space: Some(space.id.to_string()), ..DeviceFilter::default() };
            batch.add_devices(tenant, &devices)?;
            let filter = EntranceFilter { space: Some(space.id.to_string()), ..EntranceFilter::default() };
            batch.add_doors(tenant, &filter)?;
            if batch.wants("access_methods") {
                for grant in tenant.grants_of_space(space.id)? {
                    for method in tenant.methods_of(grant)? {
                        batch.add("access_methods", method.id, || answers::method(workspace, &method, now));
                    }
                }
            }
        }
        Ok(Ok(batch.done()))
    };
    one("batch", request.ask(gather).await?)
}
