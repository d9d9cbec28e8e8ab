//! `user_identities`: who.

use hyper::{Method, StatusCode};
use serde_json::{Map, Value};

use super::{Answer, Answers, Call, PAGED, Request, one};
use crate::{
    cloud::{
        api::{
            answers,
            params::{Args, IDS, Kind, Param, TEXTS, nullable, optional, required},
            problem::Problem,
        },
        store::{
            DeviceFilter, EntranceFilter, Identity, IdentityFilter, IdentityName, NoInstantKey, Page, Person,
            PersonChange,
        },
    },
    grants::{Refused, Resource},
    model::UserIdentityId,
};

/// The fields of a person.
pub(super) const PERSON: [Param; 4] = [
    optional("full_name", Kind::Text),
    optional("email_address", Kind::Email),
    optional("phone_number", Kind::Text),
    optional("user_identity_key", Kind::Text),
];

pub(super) fn person(args: &Args) -> Person {
    Person {
        full_name: args.text("full_name"),
        email_address: args.text("email_address"),
        phone_number: args.text("phone_number"),
        user_identity_key: args.text("user_identity_key"),
    }
}

pub(super) const CALLS: &[Call] = &[
    Call {
        path: "/user_identities/create",
        method: Method::POST,
        params: &[
            PERSON[0],
            PERSON[1],
            PERSON[2],
            PERSON[3],
            optional("acs_system_ids", IDS),
            optional("customer_key", Kind::Text),
        ],
        answers: Answers::One("user_identity", "user_identity"),
        run: |request| Box::pin(create(request)),
    },
    Call {
        path: "/user_identities/get",
        method: Method::GET,
        params: &[optional("user_identity_id", Kind::Id), optional("user_identity_key", Kind::Text)],
        answers: Answers::One("user_identity", "user_identity"),
        run: |request| Box::pin(get(request)),
    },
    Call {
        path: "/user_identities/list",
        method: Method::GET,
        params: &[
            optional("user_identity_ids", IDS),
            optional("search", Kind::Text),
            optional("created_before", Kind::Time),
            optional("credential_manager_acs_system_id", Kind::Id),
            optional("customer_key", Kind::Text),
            PAGED[0],
            PAGED[1],
        ],
        answers: Answers::Pages("user_identities", "user_identity"),
        run: |request| Box::pin(list(request)),
    },
    Call {
        path: "/user_identities/update",
        method: Method::PATCH,
        params: &[
            required("user_identity_id", Kind::Id),
            nullable("full_name", Kind::Text),
            nullable("email_address", Kind::Email),
            nullable("phone_number", Kind::Text),
            nullable("user_identity_key", Kind::Text),
        ],
        answers: Answers::Nothing,
        run: |request| Box::pin(update(request)),
    },
    Call {
        path: "/user_identities/delete",
        method: Method::DELETE,
        params: &[required("user_identity_id", Kind::Id)],
        answers: Answers::Nothing,
        run: |request| Box::pin(delete(request)),
    },
    Call {
        path: "/user_identities/merge",
        method: Method::POST,
        params: &[
            optional("user_identity_id", Kind::Id),
            optional("user_identity_key", Kind::Text),
            optional("merged_user_identity_ids", IDS),
            optional("merged_user_identity_keys", TEXTS),
        ],
        answers: Answers::Nothing,
        run: |request| Box::pin(merge(request)),
    },
    Call {
        path: "/user_identities/generate_instant_key",
        method: Method::POST,
        params: &[
            required("user_identity_id", Kind::Id),
            optional("max_use_count", Kind::Count(1_000_000)),
            optional("customization_profile_id", Kind::Id),
        ],
        answers: Answers::One("instant_key", "instant_key"),
        run: |request| Box::pin(generate_key(request)),
    },
    Call {
        path: "/user_identities/list_accessible_entrances",
        method: Method::GET,
        params: &[required("user_identity_id", Kind::Id)],
        answers: Answers::All("acs_entrances", "acs_entrance"),
        run: |request| Box::pin(list_entrances(request)),
    },
    Call {
        path: "/user_identities/list_accessible_devices",
        method: Method::GET,
        params: &[required("user_identity_id", Kind::Id)],
        answers: Answers::AllTwice("devices", "accessible_devices", "device"),
        run: |request| Box::pin(list_devices(request)),
    },
];

async fn create(request: Request) -> Answer {
    let person = person(&request.args);
    let customer = request.args.text("customer_key");
    let systems = request.args.ids("acs_system_ids").unwrap_or_default();
    let now = request.api.clock.now();
    let identity = request
        .ask(move |tenant| tenant.create_identity(now, &person, customer.as_deref(), &systems))
        .await?;
    one("user_identity", answers::identity(request.workspace, &identity))
}

/// Who is meant, by exactly one of id and key.
fn named(args: &Args) -> Result<IdentityName, Problem> {
    match (args.id("user_identity_id"), args.text("user_identity_key")) {
        (Some(id), None) => Ok(IdentityName::Id(id)),
        (None, Some(key)) => Ok(IdentityName::Key(key)),
        _ => Err(Problem::invalid_parameter(
            "user_identity_id",
            "Give exactly one of user_identity_id and user_identity_key",
        )),
    }
}

async fn get(request: Request) -> Answer {
    let name = named(&request.args)?;
    let shown = name.to_string();
    let found = request.store(move |tenant| tenant.identity_named(&name)).await?;
    let identity = found.ok_or_else(|| Refused::not_found(Resource::UserIdentity, shown))?;
    one("user_identity", answers::identity(request.workspace, &identity))
}

async fn list(request: Request) -> Answer {
    let args = &request.args;
    let filter = IdentityFilter {
        // No system here manages credentials for others, so nobody is managed by one.
        ids: match args.has("credential_manager_acs_system_id") {
            true => Some(Vec::new()),
            false => args.ids("user_identity_ids"),
        },
        search: args.text("search"),
        created_before: args.time("created_before"),
        customer: args.text("customer_key"),
    };
    let page = request.page(500)?;
    let listed = request.store(move |tenant| tenant.identities(&filter, page)).await?;
    let show = |identity: &Identity| answers::identity(request.workspace, identity);
    request.listed("user_identities", &listed, show)
}

async fn update(request: Request) -> Answer {
    let args = &request.args;
    let wanted: UserIdentityId = args.the_id("user_identity_id")?;
    let change = PersonChange {
        full_name: args.changed("full_name"),
        email_address: args.changed("email_address"),
        phone_number: args.changed("phone_number"),
        user_identity_key: args.changed("user_identity_key"),
    };
    request.ask(move |tenant| tenant.change_identity(wanted, change)).await?;
    Ok(Map::new())
}

async fn delete(request: Request) -> Answer {
    let wanted: UserIdentityId = request.args.the_id("user_identity_id")?;
    let now = request.api.clock.now();
    request.ask(move |tenant| tenant.delete_identity(now, wanted)).await?;
    Ok(Map::new())
}

async fn merge(request: Request) -> Answer {
    let args = &request.args;
    let kept = named(args)?;
    let others: Vec<_> =
        match (&kept, args.ids("merged_user_identity_ids"), args.texts("merged_user_identity_keys")) {
            (IdentityName::Id(_), Some(ids), None) => ids.into_iter().map(IdentityName::Id).collect(),
            (IdentityName::Key(_), None, Some(keys)) => keys.into_iter().map(IdentityName::Key).collect(),
            _ => {
                return Err(Problem::invalid_parameter(
                    "merged_user_identity_ids",
                    "Name everybody by id, or everybody by key",
                ));
            }
        };
    let now = request.api.clock.now();
    request.ask(move |tenant| tenant.merge_identities(now, &kept, &others)).await?;
    Ok(Map::new())
}

/// The link of the person's mobile key. A key belongs to an access grant here: a link for whatever a person may open one
/// day would be one that opens nothing today.
async fn generate_key(request: Request) -> Answer {
    let wanted: UserIdentityId = request.args.the_id("user_identity_id")?;
    let now = request.api.clock.now();
    let found = request
        .store(move |tenant| match tenant.identity(wanted)? {
            None => Ok(None),
            Some(identity) => Ok(Some((identity.id, tenant.key_of_identity(now, identity.id)?))),
        })
        .await?;
    let (identity, key) = found.ok_or_else(|| Refused::not_found(Resource::UserIdentity, wanted))?;
    let refused = |kind, message: &str| Problem::new(StatusCode::BAD_REQUEST, kind, message.to_owned());
    let key = key.map_err(|why| match why {
        NoInstantKey::NoAddress => refused(
            "instant_keys_not_supported",
            "This cloud hands out no mobile keys: no address for them is configured (api.instant_key_url)",
        ),
        NoInstantKey::NoMobileKey => refused(
            "no_mobile_key",
            "No live access grant of this user identity has a mobile key: ask for a mobile_key in one",
        ),
    })?;
    one("instant_key", answers::instant_key(request.workspace, identity, &key))
}

async fn list_entrances(request: Request) -> Answer {
    let wanted: UserIdentityId = request.args.the_id("user_identity_id")?;
    let now = request.api.clock.now();
    let ids = request.ask(move |tenant| tenant.entrances_of_identity(now, wanted)).await?;
    let page = Page { limit: u32::try_from(ids.len()).unwrap_or(u32::MAX - 1), after: 0 };
    let filter = EntranceFilter { ids: Some(ids), ..EntranceFilter::default() };
    let listed = request.store(move |tenant| tenant.entrances(&filter, page)).await?;
    one("acs_entrances", listed.rows.iter().map(answers::entrance).collect())
}

async fn list_devices(request: Request) -> Answer {
    let wanted: UserIdentityId = request.args.the_id("user_identity_id")?;
    let now = request.api.clock.now();
    let ids = request.ask(move |tenant| tenant.devices_of_identity(now, wanted)).await?;
    let page = Page { limit: u32::try_from(ids.len()).unwrap_or(u32::MAX - 1), after: 0 };
    let filter = DeviceFilter { ids: Some(ids), ..DeviceFilter::default() };
    let listed = request.store(move |tenant| tenant.devices(&filter, page)).await?;
    let shown: Value = listed.rows.iter().map(|device| answers::device(request.workspace, device)).collect();
    let mut answer = one("devices", shown.clone())?;
    answer.insert("accessible_devices".into(), shown);
    Ok(answer)
}
