//! `events` and `action_attempts`: what happened and what is happening.

use hyper::Method;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{Answer, Call, Request, one};
use crate::{
    cloud::{
        api::{
            answers,
            params::{IDS, Kind, Param, TEXTS, optional, required},
            problem::Problem,
        },
        store::{AttemptState, EventFilter},
    },
    grants::{Refused, Resource},
    model::ActionAttemptId,
};

/// Filters by what no event carries yet. A question that names one is about none of our events: answering with all
/// of them would tell about others' doors.
const NEVER_CARRIED: [Param; 12] = [
    optional("access_code_id", Kind::Id),
    optional("access_code_ids", IDS),
    optional("acs_access_group_id", Kind::Id),
    optional("acs_credential_id", Kind::Id),
    optional("acs_user_id", Kind::Id),
    optional("connect_webview_id", Kind::Id),
    optional("customer_key", Kind::Text),
    optional("device_id", Kind::Id),
    optional("device_ids", IDS),
    optional("space_id", Kind::Id),
    optional("space_ids", IDS),
    optional("user_identity_id", Kind::Id),
];

pub(super) const CALLS: &[Call] = &[
    Call {
        path: "/events/list",
        method: Method::GET,
        params: &[
            optional("since", Kind::Time),
            optional("between", Kind::List(&Kind::Time)),
            optional("event_ids", IDS),
            optional("event_type", Kind::Text),
            optional("event_types", TEXTS),
            optional("access_grant_id", Kind::Id),
            optional("access_grant_ids", IDS),
            optional("access_method_id", Kind::Id),
            optional("access_method_ids", IDS),
            optional("acs_system_id", Kind::Id),
            optional("acs_system_ids", IDS),
            optional("acs_entrance_id", Kind::Id),
            optional("acs_encoder_id", Kind::Id),
            optional("connected_account_id", Kind::Id),
            NEVER_CARRIED[0],
            NEVER_CARRIED[1],
            NEVER_CARRIED[2],
            NEVER_CARRIED[3],
            NEVER_CARRIED[4],
            NEVER_CARRIED[5],
            NEVER_CARRIED[6],
            NEVER_CARRIED[7],
            NEVER_CARRIED[8],
            NEVER_CARRIED[9],
            NEVER_CARRIED[10],
            NEVER_CARRIED[11],
            optional("limit", Kind::Count(1_000)),
        ],
        run: |request| Box::pin(list_events(request)),
    },
    Call {
        path: "/action_attempts/get",
        method: Method::GET,
        params: &[required("action_attempt_id", Kind::Id)],
        run: |request| Box::pin(get_attempt(request)),
    },
];

async fn list_events(request: Request) -> Answer {
    let args = &request.args;
    let (since, until) = match (args.time("since"), args.times("between").as_deref()) {
        (since, None) => (since, None),
        (None, Some(&[from, to])) => (Some(from), Some(to)),
        _ => {
            return Err(Problem::invalid_parameter(
                "between",
                "Expected two dates, and no since beside them",
            ));
        }
    };
    let ids = args.ids("event_ids");
    if since.is_none() && ids.is_none() {
        return Err(Problem::invalid_parameter("since", "Required unless between or event_ids is given"));
    }
    if NEVER_CARRIED.iter().any(|param| args.has(param.name)) {
        return one("events", Value::Array(Vec::new()));
    }
    let kinds = match (args.text("event_type"), args.texts("event_types")) {
        (None, None) => None,
        (one, more) => Some(one.into_iter().chain(more.into_iter().flatten()).collect()),
    };
    let filter = EventFilter {
        since,
        until,
        ids,
        kinds,
        grants: args.one_or_more("access_grant_id", "access_grant_ids"),
        methods: args.one_or_more("access_method_id", "access_method_ids"),
        systems: args.one_or_more("acs_system_id", "acs_system_ids"),
        account: args.id_text("connected_account_id"),
        entrance: args.id("acs_entrance_id"),
        encoder: args.id("acs_encoder_id"),
        limit: args.count("limit").unwrap_or(500),
    };
    let events = request.store(move |tenant| tenant.events(&filter)).await?;
    let shown = events.iter().map(|event| answers::event(request.workspace, event));
    one("events", shown.collect())
}

/// Held open while the attempt is pending and its job's stage stays the same: a person lays a card down more slowly
/// than clients like to poll, and whoever shows them what to do wants to know at once.
async fn get_attempt(request: Request) -> Answer {
    let wanted: ActionAttemptId = request.args.the_id("action_attempt_id")?;
    let until = Instant::now() + request.api.hold;
    let mut changes = request.api.signals.changes();
    let mut shutdown = request.api.shutdown.clone();
    let mut first_seen = None;
    loop {
        let attempt = request
            .store(move |tenant| tenant.attempt(wanted))
            .await?
            .ok_or_else(|| Refused::not_found(Resource::ActionAttempt, wanted))?;
        let stage = request.api.signals.stage(attempt.job);
        let answer = || one("action_attempt", answers::attempt(request.workspace, &attempt, stage));
        let moved = *first_seen.get_or_insert(stage) != stage;
        if moved || !matches!(attempt.state, AttemptState::Pending) || *shutdown.borrow() {
            return answer();
        }
        tokio::select! {
            biased;
            _ = shutdown.changed() => return answer(),
            changed = timeout_at(until, changes.changed()) => {
                if !matches!(changed, Ok(Ok(()))) {
                    return answer();
                }
            }
        }
    }
}
