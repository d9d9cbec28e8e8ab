//! `access_grants` and `access_methods`: who, where, when and how.

use hyper::Method;
use serde_json::Map;

use super::{
    Answer, Answers, Call, Listed, PAGED, Request, feed, one,
    people::{PERSON, person},
};
use crate::{
    cloud::{
        api::{
            answers,
            params::{Args, IDS, Kind, TEXTS, nullable, optional, required},
            problem::Problem,
        },
        store::{GrantChange, GrantCommand, GrantFilter, GrantName, IdentityRef, MethodFilter, Requested},
    },
    grants::{Mode, Refused, Resource},
    model::{AccessGrantId, AccessMethodId, AcsEncoderId, Private, ReservationKey},
};

const REQUESTED: Kind = Kind::List(&Kind::Object(&[
    required("mode", Kind::Choice(Mode::NAMES)),
    optional("code", Kind::Code),
    optional("instant_key_max_use_count", Kind::Count(1_000_000)),
]));

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
            required("requested_access_methods", REQUESTED),
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
        path: "/access_grants/list",
        method: Method::GET,
        params: &[
            optional("access_grant_ids", IDS),
            nullable("access_grant_key", Kind::Text),
            optional("user_identity_id", Kind::Id),
            optional("device_id", Kind::Id),
            optional("acs_entrance_id", Kind::Id),
            optional("acs_system_id", Kind::Id),
            optional("space_id", Kind::Id),
            optional("location_id", Kind::Id),
            optional("access_code_id", Kind::Id),
            optional("reservation_key", Kind::Text),
            optional("customer_key", Kind::Text),
            PAGED[0],
            PAGED[1],
        ],
        answers: Answers::Pages("access_grants", "access_grant"),
        run: |request| Box::pin(list(request)),
    },
    Call {
        path: "/access_grants/update",
        method: Method::PATCH,
        params: &[
            optional("access_grant_id", Kind::Id),
            optional("access_grant_key", Kind::Text),
            optional("starts_at", Kind::Time),
            nullable("ends_at", Kind::Time),
            nullable("name", Kind::Text),
            optional("device_ids", IDS),
            optional("acs_entrance_ids", IDS),
            optional("space_ids", IDS),
        ],
        answers: Answers::Nothing,
        run: |request| Box::pin(update(request)),
    },
    Call {
        path: "/access_grants/request_access_methods",
        method: Method::POST,
        params: &[required("access_grant_id", Kind::Id), required("requested_access_methods", REQUESTED)],
        answers: Answers::One("access_grant", "access_grant"),
        run: |request| Box::pin(request_methods(request)),
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
        path: "/access_methods/create",
        method: Method::POST,
        params: &[
            required("access_grant_id", Kind::Id),
            required("mode", Kind::Choice(Mode::NAMES)),
            optional("code", Kind::Code),
        ],
        answers: Answers::One("access_method", "access_method"),
        run: |request| Box::pin(create_method(request)),
    },
    Call {
        path: "/access_methods/list",
        method: Method::GET,
        params: &[
            optional("access_grant_id", Kind::Id),
            optional("access_grant_key", Kind::Text),
            optional("acs_entrance_id", Kind::Id),
            optional("device_id", Kind::Id),
            optional("space_id", Kind::Id),
            optional("access_code_id", Kind::Id),
            PAGED[0],
            PAGED[1],
        ],
        answers: Answers::Pages("access_methods", "access_method"),
        run: |request| Box::pin(list_methods(request)),
    },
    Call {
        path: "/access_methods/delete",
        method: Method::DELETE,
        params: &[
            optional("access_method_id", Kind::Id),
            optional("access_grant_id", Kind::Id),
            optional("reservation_key", Kind::Text),
        ],
        answers: Answers::Nothing,
        run: |request| Box::pin(delete_methods(request)),
    },
    Call {
        path: "/access_methods/assign_card",
        method: Method::POST,
        params: &[required("access_method_id", Kind::Id), required("card_number", Kind::Text)],
        answers: Answers::One("action_attempt", "action_attempt"),
        run: |request| Box::pin(assign_card(request)),
    },
    Call {
        path: "/access_methods/unlock_door",
        method: Method::POST,
        params: &[
            required("access_method_id", Kind::Id),
            optional("acs_entrance_id", Kind::Id),
            optional("device_id", Kind::Id),
        ],
        answers: Answers::One("action_attempt", "action_attempt"),
        run: |request| Box::pin(unlock_door(request)),
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
    let identity = match (args.id("user_identity_id"), args.object("user_identity")) {
        (Some(known), None) => IdentityRef::Known(known),
        (None, Some(new)) => IdentityRef::New(person(&new)),
        _ => return Err(Refused::IdentityUnclear.into()),
    };
    let requested = requested(&args.objects("requested_access_methods"))?;
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
        devices: args.ids("device_ids").unwrap_or_default(),
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

fn requested(asked: &[Args]) -> Result<Vec<Requested>, Problem> {
    let requested: Vec<_> = asked
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
    Ok(requested)
}

/// By which a call names its grant, and what is shown where there is none.
fn grant_name(args: &Args) -> Result<(GrantName, String), Problem> {
    match (args.id::<AccessGrantId>("access_grant_id"), args.text("access_grant_key")) {
        (Some(id), None) => Ok((GrantName::Id(id), id.to_string())),
        (None, Some(key)) => Ok((GrantName::Key(key.clone()), key)),
        _ => Err(Problem::invalid_parameter(
            "access_grant_id",
            "Give exactly one of access_grant_id and access_grant_key",
        )),
    }
}

async fn get(request: Request) -> Answer {
    let (name, shown) = grant_name(&request.args)?;
    let grant = request
        .store(move |tenant| tenant.grant(&name))
        .await?
        .ok_or_else(|| Refused::not_found(Resource::AccessGrant, shown))?;
    one("access_grant", answers::grant(request.workspace, &grant, request.api.clock.now()))
}

async fn list(request: Request) -> Answer {
    let args = &request.args;
    let key = match args.text("access_grant_key") {
        Some(key) => Some(Some(key)),
        None => args.is_null("access_grant_key").then_some(None),
    };
    let filter = GrantFilter {
        // There are no access codes of their own: what names one is about no grant.
        ids: if args.has("access_code_id") { Some(Vec::new()) } else { args.ids("access_grant_ids") },
        key,
        identity: args.id_text("user_identity_id"),
        device: args.id_text("device_id"),
        entrance: args.id_text("acs_entrance_id"),
        system: args.id_text("acs_system_id"),
        space: args.id_text("space_id").or_else(|| args.id_text("location_id")),
        reservation_key: args.text("reservation_key"),
        customer: args.text("customer_key"),
    };
    let page = request.page(500)?;
    let listed = request.store(move |tenant| tenant.grants(&filter, page)).await?;
    let now = request.api.clock.now();
    request.listed("access_grants", &listed, |grant| answers::grant(request.workspace, grant, now))
}

async fn update(request: Request) -> Answer {
    let args = &request.args;
    let (name, _) = grant_name(args)?;
    let change = GrantChange {
        starts_at: args.time("starts_at"),
        ends_at: args.has("ends_at").then(|| args.time("ends_at")),
        name: args.has("name").then(|| args.text("name").map(Private::new)),
        entrances: args.ids("acs_entrance_ids"),
        devices: args.ids("device_ids"),
        spaces: args.ids("space_ids"),
    };
    let now = request.api.clock.now();
    request.ask(move |tenant| tenant.update_grant(now, &name, &change)).await?;
    changed(&request);
    Ok(Map::new())
}

async fn request_methods(request: Request) -> Answer {
    let wanted: AccessGrantId = request.args.the_id("access_grant_id")?;
    let requested = requested(&request.args.objects("requested_access_methods"))?;
    let now = request.api.clock.now();
    let grant = request.ask(move |tenant| tenant.request_methods(now, wanted, &requested)).await?;
    changed(&request);
    one("access_grant", answers::grant(request.workspace, &grant, now))
}

/// The same for one means, as older descriptions have it.
async fn create_method(request: Request) -> Answer {
    let wanted: AccessGrantId = request.args.the_id("access_grant_id")?;
    let requested = requested(std::slice::from_ref(&request.args))?;
    let now = request.api.clock.now();
    let made = request.ask(move |tenant| tenant.create_method(now, wanted, &requested)).await?;
    changed(&request);
    one("access_method", answers::method(request.workspace, &made, now))
}

/// Something was ordered, or is shown otherwise.
fn changed(request: &Request) {
    request.api.signals.orders_queued();
    request.api.signals.state_changed();
}

async fn delete(request: Request) -> Answer {
    let wanted: AccessGrantId = request.args.the_id("access_grant_id")?;
    let now = request.api.clock.now();
    request.ask(move |tenant| tenant.delete_grant(now, wanted)).await?;
    changed(&request);
    Ok(Map::new())
}

async fn get_method(request: Request) -> Answer {
    let wanted: AccessMethodId = request.args.the_id("access_method_id")?;
    let method = request
        .store(move |tenant| tenant.method(wanted))
        .await?
        .ok_or_else(|| Refused::not_found(Resource::AccessMethod, wanted))?;
    one("access_method", answers::method(request.workspace, &method, request.api.clock.now()))
}

async fn list_methods(request: Request) -> Answer {
    let args = &request.args;
    let names =
        ["access_grant_id", "access_grant_key", "acs_entrance_id", "device_id", "space_id", "access_code_id"];
    if !names.iter().any(|name| args.has(name)) {
        return Err(Problem::invalid_parameter(
            "access_grant_id",
            format!("Give one of {}", names.join(", ")),
        ));
    }
    let grant = match (args.id::<AccessGrantId>("access_grant_id"), args.text("access_grant_key")) {
        (None, None) => None,
        _ => Some(grant_name(args)?),
    };
    let mut filter = MethodFilter {
        entrance: args.id_text("acs_entrance_id"),
        device: args.id_text("device_id"),
        space: args.id_text("space_id"),
        ..MethodFilter::default()
    };
    let page = request.page(500)?;
    let no_code = args.has("access_code_id");
    let listed = request
        .store(move |tenant| {
            if let Some((name, _)) = &grant {
                let Some(grant) = tenant.grant(name)? else { return Ok(None) };
                filter.grant = Some(grant.id);
            }
            if no_code {
                return Ok(Some(Listed { rows: Vec::new(), next: None }));
            }
            tenant.methods(&filter, page).map(Some)
        })
        .await?;
    let shown =
        || args.id_text("access_grant_id").or_else(|| args.text("access_grant_key")).unwrap_or_default();
    let listed = listed.ok_or_else(|| Refused::not_found(Resource::AccessGrant, shown()))?;
    let now = request.api.clock.now();
    request.listed("access_methods", &listed, |method| answers::method(request.workspace, method, now))
}

async fn delete_methods(request: Request) -> Answer {
    let args = &request.args;
    let method = args.id::<AccessMethodId>("access_method_id");
    let grant = args.id::<AccessGrantId>("access_grant_id");
    let reservation = args.text("reservation_key");
    if u8::from(method.is_some()) + u8::from(grant.is_some()) + u8::from(reservation.is_some()) != 1 {
        return Err(Problem::invalid_parameter(
            "access_method_id",
            "Give exactly one of access_method_id, access_grant_id and reservation_key",
        ));
    }
    let now = request.api.clock.now();
    request
        .ask(move |tenant| match method {
            Some(method) => tenant.delete_method(now, method),
            None => tenant.delete_methods(now, grant, reservation.as_deref()),
        })
        .await?;
    changed(&request);
    Ok(Map::new())
}

async fn assign_card(request: Request) -> Answer {
    let wanted: AccessMethodId = request.args.the_id("access_method_id")?;
    let known = request.store(move |tenant| tenant.method(wanted)).await?;
    known.ok_or_else(|| Refused::not_found(Resource::AccessMethod, wanted))?;
    Err(Refused::AssignmentNotSupported.into())
}

async fn unlock_door(request: Request) -> Answer {
    let method: AccessMethodId = request.args.the_id("access_method_id")?;
    let door: uuid::Uuid = match (request.args.id("acs_entrance_id"), request.args.id("device_id")) {
        (Some(door), None) | (None, Some(door)) => door,
        _ => {
            return Err(Problem::invalid_parameter(
                "acs_entrance_id",
                "Give exactly one of acs_entrance_id and device_id",
            ));
        }
    };
    let now = request.api.clock.now();
    let attempt = request.ask(move |tenant| tenant.unlock_door(now, method, door)).await?;
    changed(&request);
    feed::ordered(&request, attempt.id).await
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
