//! `spaces`: named groups of doors.

use hyper::Method;
use serde_json::{Map, Value};

use super::{Answer, Answers, Call, PAGED, Request, one};
use crate::{
    cloud::{
        api::{
            answers,
            params::{Args, IDS, Kind, nullable, optional, required},
            problem::Problem,
        },
        store::{Members, NewSpace, Space, SpaceChange, SpaceFilter, SpaceName},
    },
    model::SpaceId,
};

/// What a caller keeps about whom a space is for.
const CUSTOMER: Kind = Kind::Object(&[
    nullable("address", Kind::Text),
    nullable("default_checkin_time", Kind::Clock),
    nullable("default_checkout_time", Kind::Clock),
    nullable("time_zone", Kind::Zone),
]);

pub(super) const CALLS: &[Call] = &[
    Call {
        path: "/spaces/create",
        method: Method::POST,
        params: &[
            required("name", Kind::Text),
            optional("space_key", Kind::Text),
            optional("customer_key", Kind::Text),
            optional("device_ids", IDS),
            optional("acs_entrance_ids", IDS),
            optional("connected_account_ids", IDS),
            optional("customer_data", CUSTOMER),
        ],
        answers: Answers::One("space", "space"),
        run: |request| Box::pin(create(request)),
    },
    Call {
        path: "/spaces/get",
        method: Method::GET,
        params: &[optional("space_id", Kind::Id), optional("space_key", Kind::Text)],
        answers: Answers::One("space", "space"),
        run: |request| Box::pin(get(request)),
    },
    Call {
        path: "/spaces/list",
        method: Method::GET,
        params: &[
            optional("space_key", Kind::Text),
            optional("parent_space_id", Kind::Id),
            optional("parent_space_key", Kind::Text),
            optional("connected_account_id", Kind::Id),
            optional("customer_key", Kind::Text),
            optional("search", Kind::Text),
            PAGED[0],
            PAGED[1],
        ],
        answers: Answers::Pages("spaces", "space"),
        run: |request| Box::pin(list(request)),
    },
    Call {
        path: "/spaces/update",
        method: Method::PATCH,
        params: &[
            optional("space_id", Kind::Id),
            optional("space_key", Kind::Text),
            optional("name", Kind::Text),
            optional("device_ids", IDS),
            optional("acs_entrance_ids", IDS),
            nullable("parent_space_id", Kind::Id),
            nullable("parent_space_key", Kind::Text),
            optional("customer_key", Kind::Text),
            nullable("customer_data", CUSTOMER),
        ],
        answers: Answers::One("space", "space"),
        run: |request| Box::pin(update(request)),
    },
    Call {
        path: "/spaces/delete",
        method: Method::DELETE,
        params: &[required("space_id", Kind::Id)],
        answers: Answers::Nothing,
        run: |request| Box::pin(delete(request)),
    },
    Call {
        path: "/spaces/add_acs_entrances",
        method: Method::PUT,
        params: &[required("space_id", Kind::Id), required("acs_entrance_ids", IDS)],
        answers: Answers::Nothing,
        run: |request| Box::pin(add_entrances(request)),
    },
    Call {
        path: "/spaces/remove_acs_entrances",
        method: Method::DELETE,
        params: &[required("space_id", Kind::Id), required("acs_entrance_ids", IDS)],
        answers: Answers::Nothing,
        run: |request| Box::pin(remove_entrances(request)),
    },
    Call {
        path: "/spaces/add_devices",
        method: Method::PUT,
        params: &[required("space_id", Kind::Id), required("device_ids", IDS)],
        answers: Answers::Nothing,
        run: |request| Box::pin(add_devices(request)),
    },
    Call {
        path: "/spaces/remove_devices",
        method: Method::DELETE,
        params: &[required("space_id", Kind::Id), required("device_ids", IDS)],
        answers: Answers::Nothing,
        run: |request| Box::pin(remove_devices(request)),
    },
];

async fn create(request: Request) -> Answer {
    let args = &request.args;
    no_accounts(args)?;
    let new = NewSpace {
        name: args.text("name").unwrap_or_default(),
        space_key: args.text("space_key"),
        customer_key: args.text("customer_key"),
        customer_data: args.value("customer_data"),
        entrances: args.ids("acs_entrance_ids").unwrap_or_default(),
        devices: args.ids("device_ids").unwrap_or_default(),
    };
    let now = request.api.clock.now();
    let space = request.ask(move |tenant| tenant.create_space(now, new)).await?;
    one("space", answers::space(request.workspace, &space))
}

/// A space follows the doors it names, not whatever an account will have one day.
fn no_accounts(args: &Args) -> Result<(), Problem> {
    match args.value("connected_account_ids") {
        Some(Value::Array(accounts)) if !accounts.is_empty() => Err(Problem::invalid_parameter(
            "connected_account_ids",
            "A space is made of entrances and devices: name these",
        )),
        _ => Ok(()),
    }
}

/// Which space is meant, by exactly one of id and key.
fn named(args: &Args) -> Result<SpaceName, Problem> {
    match (args.id("space_id"), args.text("space_key")) {
        (Some(id), None) => Ok(SpaceName::Id(id)),
        (None, Some(key)) => Ok(SpaceName::Key(key)),
        _ => Err(Problem::invalid_parameter("space_id", "Give exactly one of space_id and space_key")),
    }
}

async fn get(request: Request) -> Answer {
    let name = named(&request.args)?;
    let space = request.ask(move |tenant| tenant.space_named(&name)).await?;
    one("space", answers::space(request.workspace, &space))
}

async fn list(request: Request) -> Answer {
    let args = &request.args;
    let filter = SpaceFilter {
        key: args.text("space_key"),
        parent: args.id_text("parent_space_id"),
        parent_key: args.text("parent_space_key"),
        account: args.id_text("connected_account_id"),
        customer: args.text("customer_key"),
        search: args.text("search"),
    };
    let page = request.page(500)?;
    let listed = request.store(move |tenant| tenant.spaces(&filter, page)).await?;
    request.listed("spaces", &listed, |space: &Space| answers::space(request.workspace, space))
}

async fn update(request: Request) -> Answer {
    let args = &request.args;
    let name = named(args)?;
    let parent = match (args.changed("parent_space_key"), args.id("parent_space_id")) {
        (None, Some(id)) => Some(Some(SpaceName::Id(id))),
        (Some(Some(key)), None) => Some(Some(SpaceName::Key(key))),
        (Some(Some(_)), Some(_)) | (Some(None), Some(_)) => {
            return Err(Problem::invalid_parameter(
                "parent_space_id",
                "Give at most one of parent_space_id and parent_space_key",
            ));
        }
        (key, None) => (key.is_some() || args.is_null("parent_space_id")).then_some(None),
    };
    let change = SpaceChange {
        name: args.text("name"),
        entrances: args.ids("acs_entrance_ids"),
        devices: args.ids("device_ids"),
        parent,
        customer_key: args.text("customer_key"),
        customer_data: match args.is_null("customer_data") {
            true => Some(None),
            false => args.value("customer_data").map(Some),
        },
    };
    let now = request.api.clock.now();
    let space = request.ask(move |tenant| tenant.change_space(now, &name, change)).await?;
    request.api.signals.orders_queued();
    request.api.signals.state_changed();
    one("space", answers::space(request.workspace, &space))
}

async fn delete(request: Request) -> Answer {
    let wanted: SpaceId = request.args.the_id("space_id")?;
    let now = request.api.clock.now();
    request.ask(move |tenant| tenant.delete_space(now, wanted)).await?;
    Ok(Map::new())
}

async fn add_entrances(request: Request) -> Answer {
    let doors = request.args.ids("acs_entrance_ids").unwrap_or_default();
    change_members(request, Members::Add(doors)).await
}

async fn remove_entrances(request: Request) -> Answer {
    let doors = request.args.ids("acs_entrance_ids").unwrap_or_default();
    change_members(request, Members::Remove(doors)).await
}

async fn add_devices(request: Request) -> Answer {
    let devices = request.args.ids("device_ids").unwrap_or_default();
    change_members(request, Members::AddDevices(devices)).await
}

async fn remove_devices(request: Request) -> Answer {
    let devices = request.args.ids("device_ids").unwrap_or_default();
    change_members(request, Members::RemoveDevices(devices)).await
}

async fn change_members(request: Request, members: Members) -> Answer {
    let space: SpaceId = request.args.the_id("space_id")?;
    let now = request.api.clock.now();
    request.ask(move |tenant| tenant.change_members(now, space, &members)).await?;
    request.api.signals.orders_queued();
    request.api.signals.state_changed();
    Ok(Map::new())
}
