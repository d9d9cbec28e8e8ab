//! `events` and `action_attempts`: what happened and what is happening.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{Answer, Answers, Call, Listed, PAGED, Request, Tenant, one};
use crate::{
    cloud::{
        api::{
            answers,
            params::{IDS, Kind, Param, TEXTS, optional, required},
            problem::Problem,
        },
        store::{Attempt, AttemptState, EventFilter, Scan, ScanState},
    },
    grants::{Refused, Resource},
    model::{ActionAttemptId, EventId, JobId},
    protocol::Stage,
    store::StoreError,
};

/// Filters by what no event carries yet. A question that names one is about none of our events: answering with all
/// of them would tell about others' doors.
const NEVER_CARRIED: [Param; 7] = [
    optional("access_code_id", Kind::Id),
    optional("access_code_ids", IDS),
    optional("acs_access_group_id", Kind::Id),
    optional("acs_user_id", Kind::Id),
    optional("connect_webview_id", Kind::Id),
    optional("customer_key", Kind::Text),
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
            optional("acs_credential_id", Kind::Id),
            optional("connected_account_id", Kind::Id),
            NEVER_CARRIED[0],
            NEVER_CARRIED[1],
            NEVER_CARRIED[2],
            NEVER_CARRIED[3],
            NEVER_CARRIED[4],
            NEVER_CARRIED[5],
            NEVER_CARRIED[6],
            optional("device_id", Kind::Id),
            optional("device_ids", IDS),
            optional("space_id", Kind::Id),
            optional("space_ids", IDS),
            optional("limit", Kind::Count(1_000)),
        ],
        answers: Answers::All("events", "event"),
        run: |request| Box::pin(list_events(request)),
    },
    Call {
        path: "/events/get",
        method: Method::GET,
        params: &[
            optional("event_id", Kind::Id),
            optional("event_type", Kind::Text),
            optional("device_id", Kind::Id),
        ],
        answers: Answers::One("event", "event"),
        run: |request| Box::pin(get_event(request)),
    },
    Call {
        path: "/action_attempts/list",
        method: Method::GET,
        params: &[optional("action_attempt_ids", IDS), optional("device_id", Kind::Id), PAGED[0], PAGED[1]],
        answers: Answers::Pages("action_attempts", "action_attempt"),
        run: |request| Box::pin(list_attempts(request)),
    },
    Call {
        path: "/action_attempts/get",
        method: Method::GET,
        params: &[required("action_attempt_id", Kind::Id), optional("stage", Kind::Text)],
        answers: Answers::One("action_attempt", "action_attempt"),
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
        credential: args.id("acs_credential_id"),
        spaces: args.one_or_more("space_id", "space_ids"),
        devices: args.one_or_more("device_id", "device_ids"),
        limit: args.count("limit").unwrap_or(500),
    };
    let events = request.store(move |tenant| tenant.events(&filter)).await?;
    let shown = events.iter().map(|event| answers::event(request.workspace, event));
    one("events", shown.collect())
}

/// By its id, and where a type or a device is given with it, only if it is of these.
async fn get_event(request: Request) -> Answer {
    let wanted: EventId = request.args.the_id("event_id")?;
    let filter = EventFilter {
        ids: Some(vec![wanted]),
        kinds: request.args.text("event_type").map(|kind| vec![kind]),
        devices: request.args.id("device_id").map(|device| vec![device]),
        limit: 1,
        ..EventFilter::default()
    };
    let not_found =
        || Problem::new(StatusCode::NOT_FOUND, "event_not_found", format!("There is no event {wanted}"));
    let event = request.store(move |tenant| tenant.events(&filter)).await?.pop().ok_or_else(not_found)?;
    one("event", answers::event(request.workspace, &event))
}

async fn list_attempts(request: Request) -> Answer {
    let page = request.page(500)?;
    let ids = request.args.ids("action_attempt_ids");
    let device = request.args.id_text("device_id");
    let listed = request
        .store(move |tenant| {
            let listed = tenant.attempts(ids.as_deref(), device.as_deref(), page)?;
            let mut rows = Vec::new();
            for id in listed.rows {
                rows.extend(any_attempt(tenant, id)?);
            }
            Ok(Listed { rows, next: listed.next })
        })
        .await?;
    request.listed("action_attempts", &listed, |attempt| attempt.shown(&request).1)
}

/// An attempt of whichever kind.
pub(super) enum AnyAttempt {
    Card(Attempt),
    Scan(Scan),
}

impl AnyAttempt {
    /// Whether it is over, and how it is shown.
    fn shown(&self, request: &Request) -> (bool, Value) {
        let stage = request.api.signals.stage(self.job());
        match self {
            Self::Card(attempt) => (
                !matches!(attempt.state, AttemptState::Pending),
                answers::attempt(request.workspace, attempt, stage),
            ),
            Self::Scan(scan) => {
                (!matches!(scan.state, ScanState::Pending), answers::scan(request.workspace, scan, stage))
            }
        }
    }

    fn job(&self) -> JobId {
        match self {
            Self::Card(attempt) => attempt.job,
            Self::Scan(scan) => scan.job,
        }
    }
}

fn any_attempt(tenant: &mut Tenant<'_>, wanted: ActionAttemptId) -> Result<Option<AnyAttempt>, StoreError> {
    match tenant.attempt(wanted)? {
        Some(attempt) => Ok(Some(AnyAttempt::Card(attempt))),
        None => Ok(tenant.scanned(wanted)?.map(AnyAttempt::Scan)),
    }
}

/// An attempt that was ordered just now: as it is or, where the operator says so, when it has ended.
pub(super) async fn ordered(request: &Request, attempt: ActionAttemptId) -> Answer {
    let hold = if request.api.hold_orders { request.api.hold } else { Duration::ZERO };
    held(request, attempt, None, hold).await
}

/// Held open while the attempt is pending: a person lays a card down more slowly than clients like to poll. Who shows
/// them what to do says which `stage` it knows of (`none` at first), and is answered as soon as it is another.
async fn get_attempt(request: Request) -> Answer {
    let wanted: ActionAttemptId = request.args.the_id("action_attempt_id")?;
    held(&request, wanted, request.args.text("stage"), request.api.hold).await
}

async fn held(request: &Request, wanted: ActionAttemptId, known: Option<String>, hold: Duration) -> Answer {
    let until = Instant::now() + hold;
    let mut changes = request.api.signals.changes();
    let mut shutdown = request.api.shutdown.clone();
    loop {
        let attempt = request
            .store(move |tenant| any_attempt(tenant, wanted))
            .await?
            .ok_or_else(|| Refused::not_found(Resource::ActionAttempt, wanted))?;
        let (is_over, shown) = attempt.shown(request);
        let name = request.api.signals.stage(attempt.job()).map_or("none", Stage::as_str);
        let moved = known.as_ref().is_some_and(|known| *known != name);
        if moved || is_over || *shutdown.borrow() || Instant::now() >= until {
            return one("action_attempt", shown);
        }
        tokio::select! {
            biased;
            _ = shutdown.changed() => return one("action_attempt", shown),
            changed = timeout_at(until, changes.changed()) => {
                if !matches!(changed, Ok(Ok(()))) {
                    return one("action_attempt", shown);
                }
            }
        }
    }
}
