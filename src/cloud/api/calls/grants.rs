//! `access_grants` and `access_methods`: who, where, when and how.

use hyper::Method;
use serde_json::Map;

use super::{
    Answer, Answers, Call, Request, feed, one,
    people::{PERSON, no_devices, person},
};
use crate::{
    cloud::{
        api::{
            answers,
            params::{IDS, Kind, TEXTS, optional, required},
            problem::Problem,
        },
        store::{GrantCommand, GrantName, IdentityRef, Requested},
    },
    grants::{Mode, Refused, Resource},
    model::{AccessGrantId, AccessMethodId, AcsEncoderId, Private, ReservationKey},
};

pub(super) const CALLS: &[Call] = &[
    Call {
        path: "/access_grants/create",
        method: Method::POST,
        params: &[
            optional("user_identity_id", Kind::Id),
            optional("user_identity", Kind::Object(&PERSON)),
            optional("device_ids", IDS),
            optional("acs_entrance_ids", IDS),
            optional("space_ids", IDS),
            optional("space_keys", TEXTS),
            optional("location_ids", IDS),
            required(
                "requested_access_methods",
                Kind::List(&Kind::Object(&[
                    required("mode", Kind::Choice(Mode::NAMES)),
                    optional("code", Kind::Code),
                    optional("instant_key_max_use_count", Kind::Count(1_000_000)),
                ])),
            ),
            optional("starts_at", Kind::Time),
            optional("ends_at", Kind::Time),
            optional("name", Kind::Text),
            optional("access_grant_key", Kind::Text),
            optional("reservation_key", Kind::Text),
            optional("customization_profile_id", Kind::Id),
        ],
        answers: Answers::One("access_grant", "access_grant"),
        run: |request| Box::pin(create(request)),
    },
    Call {
        path: "/access_grants/get",
        method: Method::GET,
        params: &[optional("access_grant_id", Kind::Id), optional("access_grant_key", Kind::Text)],
        answers: Answers::One("access_grant", "access_grant"),
        run: |request| Box::pin(get(request)),
    },
    Call {
        path: "/access_grants/delete",
        method: Method::DELETE,
        params: &[required("access_grant_id", Kind::Id)],
        answers: Answers::Nothing,
        run: |request| Box::pin(delete(request)),
    },
    Call {
        path: "/access_methods/get",
        method: Method::GET,
        params: &[required("access_method_id", Kind::Id)],
        answers: Answers::One("access_method", "access_method"),
        run: |request| Box::pin(get_method(request)),
    },
    Call {
        path: "/access_methods/encode",
        method: Method::POST,
        params: &[required("access_method_id", Kind::Id), required("acs_encoder_id", Kind::Id)],
        answers: Answers::One("action_attempt", "action_attempt"),
        run: |request| Box::pin(encode(request)),
    },
];

/// How many means one grant may ask for; each makes a card for each access system.
const MOST_METHODS: usize = 32;

async fn create(request: Request) -> Answer {
    let args = &request.args;
    no_devices(args)?;
    let identity = match (args.id("user_identity_id"), args.object("user_identity")) {
        (Some(known), None) => IdentityRef::Known(known),
        (None, Some(new)) => IdentityRef::New(person(&new)),
        _ => return Err(Refused::IdentityUnclear.into()),
    };
    let requested: Vec<_> = args
        .objects("requested_access_methods")
        .iter()
        .filter_map(|asked| {
            Some(Requested {
                mode: Mode::from_name(&asked.text("mode")?)?,
                code: asked.text("code").map(Private::new),
            })
        })
        .collect();
    if requested.is_empty() || requested.len() > MOST_METHODS {
        return Err(Problem::invalid_parameter(
            "requested_access_methods",
            format!("Expected 1 to {MOST_METHODS} elements"),
        ));
    }
    let reservation_key = args
        .text("reservation_key")
        .map(ReservationKey::new)
        .transpose()
        .map_err(|error| Problem::invalid_parameter("reservation_key", error.to_string()))?;
    let spaces = args.ids("space_ids").into_iter().chain(args.ids("location_ids"));
    let command = GrantCommand {
        identity,
        key: args.text("access_grant_key"),
        reservation_key,
        name: args.text("name").map(Private::new),
        starts_at: args.time("starts_at"),
        ends_at: args.time("ends_at"),
        entrances: args.ids("acs_entrance_ids").unwrap_or_default(),
        spaces: spaces.flatten().collect(),
        space_keys: args.texts("space_keys").unwrap_or_default(),
        requested,
    };
    let now = request.api.clock.now();
    let grant = request.ask(move |tenant| tenant.create_grant(now, &command)).await?;
    request.api.signals.orders_queued();
    request.api.signals.state_changed();
    one("access_grant", answers::grant(request.workspace, &grant, now))
}

async fn get(request: Request) -> Answer {
    let args = &request.args;
    let (name, shown) = match (args.id::<AccessGrantId>("access_grant_id"), args.text("access_grant_key")) {
        (Some(id), None) => (GrantName::Id(id), id.to_string()),
        (None, Some(key)) => (GrantName::Key(key.clone()), key),
        _ => {
            return Err(Problem::invalid_parameter(
                "access_grant_id",
                "Give exactly one of access_grant_id and access_grant_key",
            ));
        }
    };
    let grant = request
        .store(move |tenant| tenant.grant(&name))
        .await?
        .ok_or_else(|| Refused::not_found(Resource::AccessGrant, shown))?;
    one("access_grant", answers::grant(request.workspace, &grant, request.api.clock.now()))
}

async fn delete(request: Request) -> Answer {
    let wanted: AccessGrantId = request.args.the_id("access_grant_id")?;
    let now = request.api.clock.now();
    request.ask(move |tenant| tenant.delete_grant(now, wanted)).await?;
    request.api.signals.orders_queued();
    request.api.signals.state_changed();
    Ok(Map::new())
}

async fn get_method(request: Request) -> Answer {
    let wanted: AccessMethodId = request.args.the_id("access_method_id")?;
    let method = request
        .store(move |tenant| tenant.method(wanted))
        .await?
        .ok_or_else(|| Refused::not_found(Resource::AccessMethod, wanted))?;
    one("access_method", answers::method(request.workspace, &method))
}

async fn encode(request: Request) -> Answer {
    let method: AccessMethodId = request.args.the_id("access_method_id")?;
    let encoder: AcsEncoderId = request.args.the_id("acs_encoder_id")?;
    let now = request.api.clock.now();
    let attempt = request.ask(move |tenant| tenant.encode(now, method, encoder)).await?;
    request.api.signals.orders_queued();
    request.api.signals.state_changed();
    feed::ordered(&request, attempt.id).await
}
