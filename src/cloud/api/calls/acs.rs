//! `acs/systems`, `acs/entrances` and `acs/encoders`: what the sites have.

use hyper::{Method, StatusCode};

use super::{Answer, Answers, Call, PAGED, Request, feed, one};
use crate::{
    cloud::{
        api::{
            answers,
            params::{IDS, Kind, optional, required},
            problem::Problem,
        },
        store::{Encoder, EntranceFilter},
    },
    grants::{Refused, Resource},
    model::{AccessMethodId, AcsCredentialId, AcsEncoderId, AcsEntranceId, AcsSystemId},
};

pub(super) const CALLS: &[Call] = &[
    Call {
        path: "/acs/systems/list",
        method: Method::GET,
        params: &[
            optional("connected_account_id", Kind::Id),
            optional("customer_key", Kind::Text),
            optional("search", Kind::Text),
        ],
        answers: Answers::All("acs_systems", "acs_system"),
        run: |request| Box::pin(list_systems(request)),
    },
    Call {
        path: "/acs/systems/get",
        method: Method::GET,
        params: &[required("acs_system_id", Kind::Id)],
        answers: Answers::One("acs_system", "acs_system"),
        run: |request| Box::pin(get_system(request)),
    },
    Call {
        path: "/acs/entrances/get",
        method: Method::GET,
        params: &[required("acs_entrance_id", Kind::Id)],
        answers: Answers::One("acs_entrance", "acs_entrance"),
        run: |request| Box::pin(get_entrance(request)),
    },
    Call {
        path: "/acs/encoders/get",
        method: Method::GET,
        params: &[required("acs_encoder_id", Kind::Id)],
        answers: Answers::One("acs_encoder", "acs_encoder"),
        run: |request| Box::pin(get_encoder(request)),
    },
    Call {
        path: "/acs/entrances/unlock",
        method: Method::POST,
        params: &[required("acs_credential_id", Kind::Id), required("acs_entrance_id", Kind::Id)],
        answers: Answers::One("action_attempt", "action_attempt"),
        run: |request| Box::pin(unlock(request)),
    },
    Call {
        path: "/acs/encoders/encode_credential",
        method: Method::POST,
        params: &[
            required("acs_encoder_id", Kind::Id),
            optional("acs_credential_id", Kind::Id),
            optional("access_method_id", Kind::Id),
        ],
        answers: Answers::One("action_attempt", "action_attempt"),
        run: |request| Box::pin(encode(request)),
    },
    Call {
        path: "/acs/encoders/scan_credential",
        method: Method::POST,
        params: &[required("acs_encoder_id", Kind::Id), optional("salto_ks_metadata", Kind::Any)],
        answers: Answers::One("action_attempt", "action_attempt"),
        run: |request| Box::pin(scan(request)),
    },
    Call {
        path: "/acs/encoders/scan_to_assign_credential",
        method: Method::POST,
        params: &[
            required("acs_encoder_id", Kind::Id),
            optional("acs_user_id", Kind::Id),
            optional("user_identity_id", Kind::Id),
            optional("salto_ks_metadata", Kind::Any),
        ],
        answers: Answers::One("action_attempt", "action_attempt"),
        run: |request| Box::pin(scan_to_assign(request)),
    },
    Call {
        path: "/acs/entrances/list",
        method: Method::GET,
        params: &[
            optional("acs_system_id", Kind::Id),
            optional("acs_credential_id", Kind::Id),
            optional("access_method_id", Kind::Id),
            optional("acs_entrance_ids", IDS),
            optional("connected_account_id", Kind::Id),
            optional("space_id", Kind::Id),
            optional("location_id", Kind::Id),
            optional("customer_key", Kind::Text),
            optional("search", Kind::Text),
            PAGED[0],
            PAGED[1],
        ],
        answers: Answers::Pages("acs_entrances", "acs_entrance"),
        run: |request| Box::pin(list_entrances(request)),
    },
    Call {
        path: "/acs/encoders/list",
        method: Method::GET,
        params: &[
            optional("acs_system_id", Kind::Id),
            optional("acs_system_ids", IDS),
            optional("acs_encoder_ids", IDS),
            PAGED[0],
            PAGED[1],
        ],
        answers: Answers::Pages("acs_encoders", "acs_encoder"),
        run: |request| Box::pin(list_encoders(request)),
    },
];

async fn list_systems(request: Request) -> Answer {
    let account = request.args.id_text("connected_account_id");
    let search = request.args.text("search");
    let customer = request.args.text("customer_key");
    let systems = request
        .store(move |tenant| tenant.systems(account.as_deref(), search.as_deref(), customer.as_deref()))
        .await?;
    let shown = systems.iter().map(|system| answers::system(request.workspace, system));
    one("acs_systems", shown.collect())
}

async fn get_system(request: Request) -> Answer {
    let wanted: AcsSystemId = request.args.the_id("acs_system_id")?;
    let found = request.store(move |tenant| tenant.system(wanted)).await?;
    let system = found.ok_or_else(|| Refused::not_found(Resource::AcsSystem, wanted))?;
    one("acs_system", answers::system(request.workspace, &system))
}

async fn get_entrance(request: Request) -> Answer {
    let wanted: AcsEntranceId = request.args.the_id("acs_entrance_id")?;
    let found = request.store(move |tenant| tenant.entrance(wanted)).await?;
    let entrance = found.ok_or_else(|| Refused::not_found(Resource::AcsEntrance, wanted))?;
    one("acs_entrance", answers::entrance(&entrance))
}

async fn get_encoder(request: Request) -> Answer {
    let encoder = the_encoder(&request).await?;
    one("acs_encoder", answers::encoder(request.workspace, &encoder))
}

async fn the_encoder(request: &Request) -> Result<Encoder, Problem> {
    let wanted: AcsEncoderId = request.args.the_id("acs_encoder_id")?;
    let found = request.store(move |tenant| tenant.encoder(wanted)).await?;
    Ok(found.ok_or_else(|| Refused::not_found(Resource::AcsEncoder, wanted))?)
}

async fn encode(request: Request) -> Answer {
    let args = &request.args;
    let encoder: AcsEncoderId = args.the_id("acs_encoder_id")?;
    let method = match (
        args.id::<AccessMethodId>("access_method_id"),
        args.id::<AcsCredentialId>("acs_credential_id"),
    ) {
        (Some(method), None) => method,
        (None, Some(card)) => method_of(&request, card).await?,
        _ => {
            return Err(Problem::invalid_parameter(
                "access_method_id",
                "Give exactly one of acs_credential_id and access_method_id",
            ));
        }
    };
    let now = request.api.clock.now();
    let attempt = request.ask(move |tenant| tenant.encode(now, method, encoder)).await?;
    request.api.signals.orders_queued();
    request.api.signals.state_changed();
    feed::ordered(&request, attempt.id).await
}

/// The method that a credential was made for.
async fn method_of(request: &Request, card: AcsCredentialId) -> Result<AccessMethodId, Problem> {
    let method = request.store(move |tenant| tenant.method_of_card(card)).await?;
    method.ok_or_else(|| {
        let message = format!("There is no credential {card}");
        Problem::new(StatusCode::NOT_FOUND, "acs_credential_not_found", message)
    })
}

/// Refused by name unless the credential is one that opens doors from afar.
async fn unlock(request: Request) -> Answer {
    let method = method_of(&request, request.args.the_id("acs_credential_id")?).await?;
    let door: AcsEntranceId = request.args.the_id("acs_entrance_id")?;
    let now = request.api.clock.now();
    let attempt = request.ask(move |tenant| tenant.unlock_door(now, method, door.0)).await?;
    request.api.signals.orders_queued();
    request.api.signals.state_changed();
    feed::ordered(&request, attempt.id).await
}

async fn scan(request: Request) -> Answer {
    let encoder: AcsEncoderId = request.args.the_id("acs_encoder_id")?;
    let now = request.api.clock.now();
    let attempt = request.ask(move |tenant| tenant.scan(now, encoder)).await?;
    request.api.signals.orders_queued();
    request.api.signals.state_changed();
    feed::ordered(&request, attempt).await
}

/// Cards are written for one stay, never handed out as they are.
async fn scan_to_assign(request: Request) -> Answer {
    the_encoder(&request).await?;
    Err(Problem::new(
        StatusCode::BAD_REQUEST,
        "scan_to_assign_credential_not_supported",
        "The access system of this encoder writes a card for each access method: use access_methods/encode",
    ))
}

async fn list_entrances(request: Request) -> Answer {
    let args = &request.args;
    let filter = EntranceFilter {
        system: args.id_text("acs_system_id"),
        account: args.id_text("connected_account_id"),
        ids: args.ids("acs_entrance_ids"),
        space: args.id_text("space_id").or_else(|| args.id_text("location_id")),
        search: args.text("search"),
        method: args.id_text("access_method_id"),
        credential: args.id_text("acs_credential_id"),
        customer: args.text("customer_key"),
    };
    let page = request.page(900)?;
    let listed = request.store(move |tenant| tenant.entrances(&filter, page)).await?;
    request.listed("acs_entrances", &listed, answers::entrance)
}

async fn list_encoders(request: Request) -> Answer {
    let systems = request.args.one_or_more("acs_system_id", "acs_system_ids");
    let ids = request.args.ids("acs_encoder_ids");
    let page = request.page(500)?;
    let listed =
        request.store(move |tenant| tenant.encoders(systems.as_deref(), ids.as_deref(), page)).await?;
    request.listed("acs_encoders", &listed, |encoder| answers::encoder(request.workspace, encoder))
}
