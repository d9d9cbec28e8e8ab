//! `devices`: locks that stand on their own.

use hyper::Method;

use super::{Answer, Answers, Call, PAGED, Request, one};
use crate::{
    cloud::{
        api::{
            answers,
            params::{IDS, Kind, TEXTS, optional},
            problem::Problem,
        },
        store::{DeviceFilter, Page},
    },
    grants::{Refused, Resource},
    model::DeviceId,
};

pub(super) const CALLS: &[Call] = &[
    Call {
        path: "/devices/list",
        method: Method::GET,
        params: &[
            optional("device_ids", IDS),
            optional("connected_account_id", Kind::Id),
            optional("connected_account_ids", IDS),
            optional("device_type", Kind::Text),
            optional("device_types", TEXTS),
            optional("manufacturer", Kind::Text),
            optional("space_id", Kind::Id),
            optional("search", Kind::Text),
            optional("customer_key", Kind::Text),
            PAGED[0],
            PAGED[1],
        ],
        answers: Answers::Pages("devices", "device"),
        run: |request| Box::pin(list(request)),
    },
    Call {
        path: "/devices/get",
        method: Method::GET,
        params: &[optional("device_id", Kind::Id), optional("name", Kind::Text)],
        answers: Answers::One("device", "device"),
        run: |request| Box::pin(get(request)),
    },
];

async fn list(request: Request) -> Answer {
    let args = &request.args;
    let filter = DeviceFilter {
        ids: args.ids("device_ids"),
        accounts: args.one_or_more("connected_account_id", "connected_account_ids"),
        types: args.one_or_more_texts("device_type", "device_types"),
        manufacturer: args.text("manufacturer"),
        space: args.id_text("space_id"),
        search: args.text("search"),
        customer: args.text("customer_key"),
        ..DeviceFilter::default()
    };
    let page = request.page(500)?;
    let listed = request.store(move |tenant| tenant.devices(&filter, page)).await?;
    request.listed("devices", &listed, |device| answers::device(request.workspace, device))
}

async fn get(request: Request) -> Answer {
    let args = &request.args;
    let (filter, name) = match (args.id::<DeviceId>("device_id"), args.text("name")) {
        (Some(id), None) => (DeviceFilter { ids: Some(vec![id]), ..DeviceFilter::default() }, None),
        (None, Some(name)) => {
            (DeviceFilter { search: Some(name.clone()), ..DeviceFilter::default() }, Some(name))
        }
        _ => {
            return Err(Problem::invalid_parameter("device_id", "Give exactly one of device_id and name"));
        }
    };
    let shown = name.clone().or_else(|| args.id_text("device_id")).unwrap_or_default();
    let page = Page { limit: 500, after: 0 };
    let found = request.store(move |tenant| tenant.devices(&filter, page)).await?;
    let is_it = |device: &&crate::cloud::store::DeviceRow| match &name {
        None => true,
        Some(name) => {
            device.declared.display_name.as_deref().unwrap_or(device.declared.name.as_str()) == name
        }
    };
    let device = found.rows.iter().find(is_it).ok_or_else(|| Refused::not_found(Resource::Device, shown))?;
    one("device", answers::device(request.workspace, device))
}
