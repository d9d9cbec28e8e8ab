//! What the admin socket is told: the state of the loop and of the queue, as plain data.

use jiff::Timestamp;

use super::{
    admin::{
        JobDetail, JobLine, LONGEST_NAME, LaneReport, LaneState, LinkReport, LinkState, Response, StateCount,
        StatusReport, Step, SystemReport, TroubleReport,
    },
    conditions::Conditions,
};
use crate::{
    config::{AgentConfig, DriverConfig, SystemConfig},
    dispatch::{self, Dispatch},
    drivers::Line,
    link,
    model::{JobId, JobState, LaneName, Order, Report, Resolution, SystemKind, Verdict},
    queue::{Counts, JobFilter, JobView, Queue, ResolveRefused},
    store::StoreError,
};

/// What the loop knows of the link.
#[derive(Debug, Clone)]
pub(super) struct LinkView {
    pub(super) state: LinkState,
    pub(super) since: Timestamp,
    pub(super) workspace: Option<String>,
    pub(super) trouble: Option<link::Trouble>,
}

/// The loop's half of a status; the queue's half is added by [`with_queue`].
pub(super) fn status(
    config: &AgentConfig,
    started: Timestamp,
    now: Timestamp,
    link: &LinkView,
    dispatch: &Dispatch,
    conditions: &Conditions,
) -> StatusReport {
    let mut conditions = conditions.all();
    conditions.sort_by_key(|condition| (std::cmp::Reverse(condition.severity), condition.since));
    StatusReport {
        version: env!("CARGO_PKG_VERSION").into(),
        site: config.site.name.clone(),
        time_zone: config.site.time_zone.clone(),
        now,
        since: started,
        link: LinkReport {
            state: link.state,
            since: link.since,
            cloud: config.cloud.url.clone(),
            workspace: link.workspace.clone(),
            trouble: link.trouble.as_ref().map(TroubleReport::from),
        },
        systems: config.systems.iter().map(|system| system_report(system, dispatch)).collect(),
        lanes: lanes(dispatch),
        jobs: Vec::new(),
        unacknowledged: 0,
        conditions,
    }
}

/// Adds what only the queue knows.
///
/// # Errors
/// Those of the database.
pub(super) fn with_queue(mut report: StatusReport, queue: &Queue) -> Result<StatusReport, StoreError> {
    let Counts { by_state, reports_waiting, .. } = queue.counts()?;
    report.jobs = by_state.into_iter().map(|(state, count)| StateCount { state, count }).collect();
    report.unacknowledged = reports_waiting;
    for lane in &mut report.lanes {
        lane.waiting = queue.waiting_in(&lane.lane)?;
    }
    Ok(report)
}

/// Jobs for a list, newest first, and whether there are more.
///
/// # Errors
/// Those of the database.
pub(super) fn jobs(
    queue: &Queue,
    state: Option<JobState>,
    lane: Option<&LaneName>,
    limit: usize,
) -> Result<(Vec<JobLine>, bool), StoreError> {
    let mut views = queue.jobs(JobFilter { state, lane: lane.cloned(), limit: limit.saturating_add(1) })?;
    let more = views.len() > limit;
    views.truncate(limit);
    let lines = views.iter().map(|view| job_line(queue, view)).collect::<Result<_, _>>()?;
    Ok((lines, more))
}

/// One job with its story.
///
/// # Errors
/// Those of the database.
pub(super) fn job(queue: &Queue, job_id: JobId) -> Result<Option<JobDetail>, StoreError> {
    let Some(detail) = queue.job(job_id)? else {
        return Ok(None);
    };
    let view = &detail.view;
    let mut history = vec![Step { at: view.received_at, state: JobState::Received, note: None }];
    if let Some(at) = view.sent_at {
        let note = detail.treatment.map(|treatment| format!("{treatment:?}").to_lowercase());
        history.push(Step { at, state: JobState::Sent, note });
    }
    if let (Some(at), Some(outcome)) = (view.ended_at, &detail.outcome) {
        history.push(Step { at, state: outcome.state(), note: outcome.reason().map(ToString::to_string) });
    }
    if let (Some(at), Some(resolution)) = (view.ended_at, &detail.resolution) {
        history.push(Step { at, state: view.state, note: Some(format!("resolved by {}", resolution.by)) });
    }
    let report = detail.outcome.map(|outcome| Report {
        job_id,
        revision: 1,
        at: view.ended_at.unwrap_or(view.received_at),
        outcome,
        resolution: None,
        rooms: Vec::new(),
        local: None,
    });
    let order = detail.job.as_ref().map(|job| &job.order);
    let (encoder, doors) = match order {
        Some(Order::CardEncode(card)) => (Some(card.encoder.clone()), card.doors.clone()),
        Some(Order::CardRead(read)) => (Some(read.encoder.clone()), Vec::new()),
        Some(Order::StayCheckout { room, .. }) => (None, vec![room.clone()]),
        Some(Order::StayModify(stay)) => (None, vec![stay.room.clone()]),
        Some(
            Order::SlotPut(_)
            | Order::SlotRemove { .. }
            | Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. }
            | Order::InventoryRefresh,
        )
        | None => (None, Vec::new()),
    };
    Ok(Some(JobDetail {
        job: job_line(queue, view)?,
        expires_at: detail.job.as_ref().map_or(view.received_at, |job| job.expires_at),
        attempts: view.attempt,
        treatment: detail.treatment,
        encoder,
        doors,
        history,
        reports: report.into_iter().collect(),
    }))
}

/// Settles a doubt by a person's word.
///
/// # Errors
/// Those of the database.
pub(super) fn resolve(
    queue: &mut Queue,
    now: Timestamp,
    job_id: JobId,
    verdict: Verdict,
    by: &str,
) -> Result<Response, StoreError> {
    let by = by.trim();
    if by.is_empty() || by.chars().count() > LONGEST_NAME || by.chars().any(char::is_control) {
        let message = format!("say who settles it in 1 to {LONGEST_NAME} printable characters");
        return Ok(Response::refused("name_invalid", message));
    }
    let resolved = queue.resolve(now, job_id, Resolution { verdict, by: by.to_owned() })?;
    Ok(match resolved {
        Ok(()) => {
            tracing::warn!(job = %job_id, ?verdict, by, "a doubt was settled by a person");
            let state = match verdict {
                Verdict::Done => JobState::Succeeded,
                Verdict::NotDone => JobState::Failed,
            };
            Response::Resolved { state }
        }
        Err(ResolveRefused::NotKnown) => {
            Response::refused("no_such_job", format!("there is no job {job_id}"))
        }
        Err(why @ (ResolveRefused::NotInDoubt(_) | ResolveRefused::Resolved(_))) => {
            Response::refused("not_in_doubt", why.to_string())
        }
    })
}

fn job_line(queue: &Queue, view: &JobView) -> Result<JobLine, StoreError> {
    let job = queue.job(view.job_id)?.and_then(|detail| detail.job);
    Ok(JobLine {
        job_id: view.job_id,
        kind: view.kind,
        system: view.system.clone(),
        lane: view.lane.clone(),
        state: view.state,
        priority: job.as_ref().map(|job| job.priority),
        created_at: job.as_ref().map_or(view.received_at, |job| job.created_at),
        changed_at: view.ended_at.or(view.sent_at).unwrap_or(view.received_at),
        code: view.code,
    })
}

fn system_report(system: &SystemConfig, dispatch: &Dispatch) -> SystemReport {
    let line = dispatch.lines().get(&system.name).unwrap_or(&Line::Opening);
    let DriverConfig::SaltoIs(salto) = &system.driver;
    let at = match (&salto.line.tcp, &salto.line.serial) {
        (Some(address), _) => address.clone(),
        (None, Some(port)) => port.display().to_string(),
        (None, None) => String::new(),
    };
    SystemReport {
        name: system.name.clone(),
        kind: SystemKind::SaltoIs,
        at,
        line: line.into(),
        trouble: match line {
            Line::Down(trouble) => Some(trouble.into()),
            Line::Opening | Line::Ready => None,
        },
        doors: u32::try_from(salto.rooms.len() + salto.common.len()).unwrap_or(u32::MAX),
        encoders: u32::try_from(salto.encoders.len()).unwrap_or(u32::MAX),
    }
}

fn lanes(dispatch: &Dispatch) -> Vec<LaneReport> {
    let lanes = dispatch.lanes().iter();
    lanes
        .map(|lane| {
            let ready = dispatch.lines().get(lane.system) == Some(&Line::Ready)
                && !lane.paused
                && lane.rest.is_none();
            let (state, job) = match lane.state {
                dispatch::LaneState::Busy(job) => (LaneState::Busy, Some(job)),
                dispatch::LaneState::Free | dispatch::LaneState::Reserved if ready => (LaneState::Idle, None),
                dispatch::LaneState::Free | dispatch::LaneState::Reserved => (LaneState::Blocked, None),
            };
            LaneReport { lane: lane.name.clone(), state, job, waiting: 0 }
        })
        .collect()
}
