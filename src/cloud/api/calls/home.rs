//! `workspaces`, and what there never is here: things in the access systems that nobody ordered are left alone, so
//! every list of what is not managed is empty.

use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{Answer, Answers, Call, PAGED, Request, one};
use crate::{
    cloud::api::{
        answers,
        params::{IDS, Kind, Param, TEXTS, optional, required},
        problem::Problem,
    },
    grants::{Refused, Resource},
};

/// A thing of which there are none.
struct Unmanaged {
    resource: Resource,
    id: &'static str,
}

const GRANT: Unmanaged = Unmanaged { resource: Resource::AccessGrant, id: "access_grant_id" };
const METHOD: Unmanaged = Unmanaged { resource: Resource::AccessMethod, id: "access_method_id" };
const IDENTITY: Unmanaged = Unmanaged { resource: Resource::UserIdentity, id: "user_identity_id" };
const DEVICE: Unmanaged = Unmanaged { resource: Resource::Device, id: "device_id" };

const IS_MANAGED: Param = required("is_managed", Kind::Flag);

pub(super) const CALLS: &[Call] = &[
    Call {
        path: "/workspaces/get",
        method: Method::GET,
        params: &[],
        answers: Answers::One("workspace", "workspace"),
        run: |request| Box::pin(get_workspace(request)),
    },
    Call {
        path: "/access_grants/unmanaged/list",
        method: Method::GET,
        params: &[
            optional("acs_entrance_id", Kind::Id),
            optional("acs_system_id", Kind::Id),
            optional("reservation_key", Kind::Text),
            optional("user_identity_id", Kind::Id),
            PAGED[0],
            PAGED[1],
        ],
        answers: Answers::Pages("access_grants", "access_grant"),
        run: |request| Box::pin(async move { none_in_pages(&request, "access_grants") }),
    },
    Call {
        path: "/access_grants/unmanaged/get",
        method: Method::GET,
        params: &[required(GRANT.id, Kind::Id)],
        answers: Answers::One("access_grant", "access_grant"),
        run: |request| Box::pin(async move { no_such(&request, &GRANT) }),
    },
    Call {
        path: "/access_grants/unmanaged/update",
        method: Method::PATCH,
        params: &[required(GRANT.id, Kind::Id), IS_MANAGED, optional("access_grant_key", Kind::Text)],
        answers: Answers::Nothing,
        run: |request| Box::pin(async move { no_such(&request, &GRANT) }),
    },
    Call {
        path: "/access_methods/unmanaged/list",
        method: Method::GET,
        params: &[
            required("access_grant_id", Kind::Id),
            optional("acs_entrance_id", Kind::Id),
            optional("device_id", Kind::Id),
            optional("space_id", Kind::Id),
        ],
        answers: Answers::All("access_methods", "access_method"),
        run: |_| Box::pin(async { one("access_methods", json!([])) }),
    },
    Call {
        path: "/access_methods/unmanaged/get",
        method: Method::GET,
        params: &[required(METHOD.id, Kind::Id)],
        answers: Answers::One("access_method", "access_method"),
        run: |request| Box::pin(async move { no_such(&request, &METHOD) }),
    },
    Call {
        path: "/user_identities/unmanaged/list",
        method: Method::GET,
        params: &[optional("search", Kind::Text), optional("created_before", Kind::Time), PAGED[0], PAGED[1]],
        answers: Answers::Pages("user_identities", "user_identity"),
        run: |request| Box::pin(async move { none_in_pages(&request, "user_identities") }),
    },
    Call {
        path: "/user_identities/unmanaged/get",
        method: Method::GET,
        params: &[required(IDENTITY.id, Kind::Id)],
        answers: Answers::One("user_identity", "user_identity"),
        run: |request| Box::pin(async move { no_such(&request, &IDENTITY) }),
    },
    Call {
        path: "/user_identities/unmanaged/update",
        method: Method::PATCH,
        params: &[required(IDENTITY.id, Kind::Id), IS_MANAGED, optional("user_identity_key", Kind::Text)],
        answers: Answers::Nothing,
        run: |request| Box::pin(async move { no_such(&request, &IDENTITY) }),
    },
    Call {
        path: "/devices/unmanaged/list",
        method: Method::GET,
        params: &[
            optional("device_ids", IDS),
            optional("device_type", Kind::Text),
            optional("device_types", TEXTS),
            optional("search", Kind::Text),
            PAGED[0],
            PAGED[1],
        ],
        answers: Answers::Pages("devices", "device"),
        run: |request| Box::pin(async move { none_in_pages(&request, "devices") }),
    },
    Call {
        path: "/devices/unmanaged/get",
        method: Method::GET,
        params: &[optional(DEVICE.id, Kind::Id), optional("name", Kind::Text)],
        answers: Answers::One("device", "device"),
        run: |request| Box::pin(async move { no_such(&request, &DEVICE) }),
    },
    Call {
        path: "/devices/unmanaged/update",
        method: Method::PATCH,
        params: &[required(DEVICE.id, Kind::Id), optional("is_managed", Kind::Flag)],
        answers: Answers::Nothing,
        run: |request| Box::pin(async move { no_such(&request, &DEVICE) }),
    },
];

async fn get_workspace(request: Request) -> Answer {
    let shown = request.store(|tenant| Ok(tenant.own()?.map(|own| answers::workspace(&own)))).await?;
    let shown = shown.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "workspace_not_found", "This workspace is not there any more")
    })?;
    one("workspace", shown)
}

fn none_in_pages(request: &Request, key: &str) -> Answer {
    request.page(500)?;
    let mut answer = one(key, json!([]))?;
    answer.insert(
        "pagination".into(),
        json!({"has_next_page": false, "next_page_cursor": null, "next_page_url": null}),
    );
    Ok(answer)
}

fn no_such(request: &Request, what: &Unmanaged) -> Answer {
    let asked = request.args.value(what.id).or_else(|| request.args.value("name"));
    let shown = asked.as_ref().and_then(Value::as_str).unwrap_or("of that name").to_owned();
    Err::<Map<String, Value>, _>(Refused::not_found(what.resource, shown).into())
}
