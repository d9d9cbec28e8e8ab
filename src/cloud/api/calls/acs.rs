//! `acs/systems`, `acs/entrances` and `acs/encoders`: what the sites have.

use hyper::Method;

use super::{Answer, Call, PAGED, Request, one};
use crate::cloud::{
    api::{
        answers,
        params::{IDS, Kind, optional},
    },
    store::EntranceFilter,
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
        run: |request| Box::pin(list_systems(request)),
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
