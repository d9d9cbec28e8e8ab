//! `user_identities` and `spaces`.

use hyper::Method;
use serde_json::Map;

use super::{Answer, Call, Request, one};
use crate::{
    cloud::{
        api::{
            answers,
            params::{Args, IDS, Kind, Param, TEXTS, optional, required},
        },
        store::{NewSpace, Person},
    },
    model::SpaceId,
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
        run: |request| Box::pin(create_identity(request)),
    },
    Call {
        path: "/spaces/create",
        method: Method::POST,
        params: &[
            required("name", Kind::Text),
            optional("space_key", Kind::Text),
            optional("customer_key", Kind::Text),
            optional("device_ids", IDS),
            optional("acs_entrance_ids", IDS),
            optional("connected_account_ids", TEXTS),
            optional("customer_data", Kind::Any),
        ],
        run: |request| Box::pin(create_space(request)),
    },
    Call {
        path: "/spaces/add_acs_entrances",
        method: Method::PUT,
        params: &[required("space_id", Kind::Id), required("acs_entrance_ids", IDS)],
        run: |request| Box::pin(add_entrances(request)),
    },
];

async fn create_identity(request: Request) -> Answer {
    let person = person(&request.args);
    let now = request.api.clock.now();
    let identity = request.ask(move |tenant| tenant.create_identity(now, &person)).await?;
    one("user_identity", answers::identity(request.workspace, &identity))
}

async fn create_space(request: Request) -> Answer {
    let new = NewSpace {
        name: request.args.text("name").unwrap_or_default(),
        space_key: request.args.text("space_key"),
        customer_key: request.args.text("customer_key"),
        entrances: request.args.ids("acs_entrance_ids").unwrap_or_default(),
        devices: request.args.ids("device_ids").unwrap_or_default(),
    };
    let now = request.api.clock.now();
    let space = request.ask(move |tenant| tenant.create_space(now, new)).await?;
    one("space", answers::space(request.workspace, &space))
}

async fn add_entrances(request: Request) -> Answer {
    let space: SpaceId = request.args.the_id("space_id")?;
    let doors = request.args.ids("acs_entrance_ids").unwrap_or_default();
    let now = request.api.clock.now();
    request.ask(move |tenant| tenant.add_doors(now, space, &doors)).await?;
    request.api.signals.state_changed();
    Ok(Map::new())
}
