//! What the admin socket is told: the state of the loop and of the queue, as plain data.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    admin::{
        AuditReport, CardReport, CodeReport, GrantReport, JobDetail, JobLine, LONGEST_NAME, LaneReport,
        LaneState, LinkReport, LinkState, Moment, NewJob, Pause, Response, Rest, SlotReport, SlotState,
        StateCount, StatusReport, Step, SystemReport, TroubleReport, Watched,
    },
    conditions::Conditions,
};
use crate::{
    config::{AgentConfig, DriverConfig, SystemConfig},
    dispatch::{self, Dispatch},
    drivers::Line,
    link,
    model::{
        BridgeId, Code, DesiredCard, DesiredGrant, DeviceName, DoorName, EncoderName, Job, JobId, JobState,
        LaneName, Order, Outcome, Report, Resolution, SystemKind, SystemName, Verdict,
    },
    protocol::{Message, Position, Stage},
    queue::{
        Accepted, AuditEntry, Barred, BarredRemoval, CancelAnswer, CardStanding, CodeStanding,
        ConfirmRefused, Counts, DeskRefused, GrantRefused, JobFilter, JobView, Queue, ResolveRefused,
        RetryRefused, SlotView,
    },
    store::StoreError,
};

/// How many jobs that are not over a watcher is told of at first, for each state.
const WATCHED_AT_FIRST: usize = 200;
/// How many ends are taken from the outbox for watchers at once.
const ENDS_AT_ONCE: usize = 64;

/// What the loop knows of the link.
#[derive(Debug, Clone)]
pub(super) struct LinkView {
    pub(super) state: LinkState,
    pub(super) since: Timestamp,
    pub(super) workspace: Option<String>,
    /// Who we are to the cloud, and until when our certificate counts.
    pub(super) paired: Option<(BridgeId, Timestamp)>,
    pub(super) trouble: Option<link::Trouble>,
}

/// The loop's half of a status; the queue's half is added by [`with_queue`].
pub(super) fn status(
    config: &AgentConfig,
    cloud: String,
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
            cloud,
            workspace: link.workspace.clone(),
            bridge_id: link.paired.map(|(bridge_id, _)| bridge_id),
            certificate_until: link.paired.map(|(_, until)| until),
            trouble: link.trouble.as_ref().map(TroubleReport::from),
        },
        systems: config.systems.iter().map(|system| system_report(system, dispatch)).collect(),
        lanes: lanes(now, dispatch),
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
    report.lanes = lanes_with_queue(report.lanes, queue)?;
    Ok(report)
}

/// The lanes, with what only the queue knows of them.
///
/// # Errors
/// Those of the database.
pub(super) fn lanes_with_queue(
    mut lanes: Vec<LaneReport>,
    queue: &Queue,
) -> Result<Vec<LaneReport>, StoreError> {
    let paused = queue.paused_lanes()?.into_iter();
    let mut paused: BTreeMap<_, _> =
        paused.map(|lane| (lane.lane, Pause { by: lane.by, since: lane.since })).collect();
    for lane in &mut lanes {
        lane.waiting = queue.waiting_in(&lane.lane)?;
        lane.paused = paused.remove(&lane.lane);
        // What is durable counts; the dispatcher's word may be a moment older.
        lane.state = match (&lane.paused, lane.state) {
            (_, LaneState::Busy) => LaneState::Busy,
            (Some(_), _) => LaneState::Paused,
            (None, LaneState::Paused) => LaneState::Idle,
            (None, state) => state,
        };
    }
    Ok(lanes)
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
    let place = detail.job.as_ref().map(|job| Place::of(&job.order)).unwrap_or_default();
    Ok(Some(JobDetail {
        job: job_line(queue, view)?,
        expires_at: detail.job.as_ref().map_or(view.received_at, |job| job.expires_at),
        attempts: view.attempt,
        treatment: detail.treatment,
        encoder: place.encoder,
        device: place.device,
        doors: place.doors,
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
        Err(ResolveRefused::NotKnown) => no_such_job(job_id),
        Err(why @ (ResolveRefused::NotInDoubt(_) | ResolveRefused::Resolved(_))) => {
            Response::refused("not_in_doubt", why.to_string())
        }
    })
}

/// A person's name, fit for the audit.
///
/// # Errors
/// A refusal that says what is wrong with it.
pub(super) fn name_of(by: &str) -> Result<String, Response> {
    let by = by.trim();
    if by.is_empty() || by.chars().count() > LONGEST_NAME || by.chars().any(char::is_control) {
        let message = format!("say who wants it in 1 to {LONGEST_NAME} printable characters (--by)");
        return Err(Response::refused("name_invalid", message));
    }
    Ok(by.to_owned())
}

/// The job that a person wants, made at `now`.
pub(super) fn new_job(now: Timestamp, job_id: JobId, wanted: NewJob) -> Job {
    let NewJob { system, priority, expires_in_seconds, order, .. } = wanted;
    let expires_at = now
        .saturating_add(jiff::SignedDuration::from_secs(expires_in_seconds.into()))
        .unwrap_or(Timestamp::MAX);
    Job { job_id, system, priority, created_at: now, expires_at, order }
}

/// What became of a person's job.
pub(super) fn added(job_id: JobId, accepted: Accepted) -> Response {
    match accepted {
        Accepted::Waiting | Accepted::Unconfirmed | Accepted::Sent(_) => {
            Response::Added { job_id, known: false }
        }
        Accepted::Duplicate => Response::Added { job_id, known: true },
        Accepted::Ended(outcome) => match outcome.reason() {
            Some(why) => Response::refused(why.code.as_str(), why.message.clone()),
            None => Response::refused("job_refused", format!("the job ended {} at once", outcome.state())),
        },
    }
}

/// What became of the wish to take a job back.
///
/// # Errors
/// Those of the database.
pub(super) fn cancelled(queue: &Queue, job_id: JobId, answer: CancelAnswer) -> Result<Response, StoreError> {
    let state = match answer {
        CancelAnswer::Cancelled => return Ok(Response::Cancelled),
        CancelAnswer::NotKnown => return Ok(no_such_job(job_id)),
        CancelAnswer::TooLate(state) => state,
    };
    let Some(view) = queue.job(job_id)?.map(|detail| detail.view) else {
        return Ok(no_such_job(job_id));
    };
    let message = match (state.is_over(), view.sent_at, view.ended_at) {
        (false, Some(sent_at), _) => format!(
            "too late: it was sent at {sent_at}; it ends cancelled only if nothing of it proves to have been written"
        ),
        (true, _, Some(ended_at)) => format!("too late: it was over at {ended_at}: {state}"),
        _ => format!("too late: it is {state}"),
    };
    Ok(Response::refused("too_late", message))
}

/// What became of the wish to have a job done once more.
pub(super) fn retried(job_id: JobId, answer: Result<JobId, RetryRefused>) -> Response {
    match answer {
        Ok(job_id) => Response::Retried { job_id },
        Err(RetryRefused::NotKnown) => no_such_job(job_id),
        Err(
            why @ (RetryRefused::Not(JobState::Unknown)
            | RetryRefused::Replaced { state: JobState::Unknown, .. }),
        ) => Response::refused("in_doubt", why.to_string()),
        Err(why @ (RetryRefused::Not(_) | RetryRefused::Replaced { .. } | RetryRefused::Unreadable)) => {
            Response::refused("not_retriable", why.to_string())
        }
    }
}

/// What became of a person's word about a card that waits for it.
pub(super) fn confirmed(job_id: JobId, answer: Result<(), ConfirmRefused>, done: Response) -> Response {
    match answer {
        Ok(()) => done,
        Err(ConfirmRefused::NotKnown) => no_such_job(job_id),
        Err(why @ ConfirmRefused::NotAwaited(_)) => Response::refused("not_awaited", why.to_string()),
    }
}

/// The refusal of a question about a job that is not there.
pub(super) fn no_such_job(job_id: JobId) -> Response {
    Response::refused("no_such_job", format!("there is no job {job_id}"))
}

/// The refusal of a question about a lane that is not there.
pub(super) fn no_such_lane(lane: &LaneName, dispatch: &Dispatch) -> Response {
    let known: Vec<_> = dispatch.lanes().iter().map(|lane| lane.name.as_str()).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    Response::refused("no_such_lane", format!("there is no lane {lane}; there are: {known}"))
}

/// What the site refused, and who decided what, newest first.
///
/// # Errors
/// Those of the database.
pub(super) fn audit(queue: &Queue, before: Option<u64>, limit: usize) -> Result<Response, StoreError> {
    let mut entries = queue.audit_before(before, limit.saturating_add(1))?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let report = |entry: AuditEntry| AuditReport {
        number: entry.number,
        at: entry.at,
        what: entry.what,
        job_id: entry.job_id,
        detail: entry.detail,
    };
    Ok(Response::Audit { entries: entries.into_iter().map(report).collect(), more })
}

/// The slots that the agent looks after.
///
/// # Errors
/// Those of the database.
pub(super) fn slots(queue: &Queue, system: Option<&SystemName>) -> Result<Response, StoreError> {
    let shown = queue.slots()?.into_iter().filter(|slot| system.is_none_or(|system| *system == slot.system));
    let report = |slot: SlotView| SlotReport {
        system: slot.system,
        device: slot.device,
        slot: slot.slot,
        state: match (slot.uncertain, slot.may_open) {
            (true, _) => SlotState::Uncertain,
            (false, true) => SlotState::Filled,
            (false, false) => SlotState::Empty,
        },
        since: slot.changed_at,
        job_id: slot.decided_by,
        ends_at: slot.ends_at,
        may_outlive: slot.may_outlive,
    };
    Ok(Response::Slots { slots: shown.map(report).collect() })
}

/// The grants that the cloud told of, with where their cards stand by now.
///
/// # Errors
/// Those of the database.
pub(super) fn grants(queue: &Queue, name: Option<&str>, limit: usize) -> Result<Response, StoreError> {
    let mut found = match name {
        Some(name) => queue.desired_named(name)?,
        None => queue.desired_grants(None, limit + 1)?,
    };
    let more = found.len() > limit;
    found.truncate(limit);
    let grants = found.into_iter().map(|grant| grant_report(queue, grant)).collect::<Result<_, _>>()?;
    Ok(Response::Grants { grants, more, complete: queue.desired_held()?.is_complete })
}

fn grant_report(queue: &Queue, grant: DesiredGrant) -> Result<GrantReport, StoreError> {
    let card = |card: &DesiredCard| {
        let CardStanding { state, why, job_id } = queue.card_standing(&grant, card)?;
        let (access_method_id, system) = (card.access_method_id, card.system.clone());
        Ok(CardReport { access_method_id, system, state, why, job_id })
    };
    let mut codes = Vec::new();
    for code in &grant.codes {
        for at in &code.devices {
            let CodeStanding { state, pin, why, job_id } = queue.code_standing(code.access_method_id, at)?;
            let (system, device) = (at.system.clone(), at.device.clone());
            let access_method_id = code.access_method_id;
            codes.push(CodeReport { access_method_id, system, device, state, code: pin, why, job_id });
        }
    }
    Ok(GrantReport {
        cards: grant.cards.iter().map(card).collect::<Result<_, StoreError>>()?,
        codes,
        access_grant_id: grant.access_grant_id,
        access_grant_key: grant.access_grant_key,
        reservation_key: grant.reservation_key,
        guest_name: grant.guest_name,
        window: grant.window,
        doors: grant.doors,
    })
}

/// What became of a grant that a person made or took back.
///
/// # Errors
/// Those of the database.
pub(super) fn granted(
    queue: &Queue,
    done: Result<DesiredGrant, GrantRefused>,
) -> Result<Response, StoreError> {
    Ok(match done {
        Ok(grant) => Response::Grant(Box::new(grant_report(queue, grant)?)),
        Err(refused) => Response::refused(refused.code(), refused.to_string()),
    })
}

/// What became of a person's wish to have a card written.
pub(super) fn encoded(done: Result<(JobId, Accepted), DeskRefused>) -> Response {
    match done {
        Ok((job_id, accepted)) => added(job_id, accepted),
        Err(refused) => Response::refused(refused.code(), refused.to_string()),
    }
}

/// What a watcher is told at first, and the last report that it needs not be told of any more. `cards` says since when
/// the jobs at work have been waiting for one.
///
/// # Errors
/// Those of the database.
pub(super) fn watching(
    queue: &Queue,
    now: Timestamp,
    only: Option<JobId>,
    cards: &BTreeMap<JobId, Timestamp>,
) -> Result<(Response, Position), StoreError> {
    let seen = queue.memory()?.reports.last;
    let views = match only {
        Some(job_id) => match queue.job(job_id)? {
            Some(detail) => vec![detail.view],
            None => return Ok((no_such_job(job_id), seen)),
        },
        None => {
            let mut views = Vec::new();
            for state in [JobState::Received, JobState::Waiting, JobState::Sent] {
                let filter = JobFilter { state: Some(state), lane: None, limit: WATCHED_AT_FIRST };
                views.extend(queue.jobs(filter)?);
            }
            views.sort_by_key(|view| (view.received_at, view.job_id));
            views
        }
    };
    let mut jobs = Vec::with_capacity(views.len());
    for view in views {
        let Some(detail) = queue.job(view.job_id)? else { continue };
        let moment = match (&detail.resolution, &detail.outcome) {
            (Some(resolution), _) => Moment::Resolved { state: view.state, by: resolution.by.clone() },
            (None, Some(outcome)) => ended(outcome),
            (None, None) => match (view.state, cards.get(&view.job_id), &detail.job) {
                (JobState::Sent, Some(since), Some(job)) => {
                    let passed = u16::try_from(now.duration_since(*since).as_secs()).unwrap_or_default();
                    Moment::WaitingForCard { within_seconds: card_wait(job).saturating_sub(passed) }
                }
                (JobState::Sent, ..) => Moment::Sent,
                _ => waiting(&view),
            },
        };
        let at = view.ended_at.or(view.sent_at).unwrap_or(view.received_at);
        jobs.push(watched(at, view.job_id, detail.job.as_ref(), moment));
    }
    Ok((Response::Watching { jobs }, seen))
}

/// How jobs ended whose reports follow a position, the position of the last of them, and whether there are more.
///
/// # Errors
/// Those of the database.
pub(super) fn ends_after(
    queue: &Queue,
    after: Position,
) -> Result<(Vec<Watched>, Position, bool), StoreError> {
    let epoch = queue.memory()?.reports.last.epoch;
    // What a new epoch renumbered may be told again, rather than not at all.
    let after = if epoch == after.epoch { after } else { Position { epoch, n: 0 } };
    let reports = queue.reports_after(after, ENDS_AT_ONCE)?;
    let last = reports.last().map_or(after, |(position, _)| *position);
    let more = reports.len() == ENDS_AT_ONCE;
    let mut ends = Vec::with_capacity(reports.len());
    for (_, message) in reports {
        let (Message::Outcome(report) | Message::Resolution(report)) = message else { continue };
        let job = queue.job(report.job_id)?.and_then(|detail| detail.job);
        let moment = match &report.resolution {
            Some(resolution) => Moment::Resolved { state: report.outcome.state(), by: resolution.by.clone() },
            None => ended(&report.outcome),
        };
        ends.push(watched(report.at, report.job_id, job.as_ref(), moment));
    }
    Ok((ends, last, more))
}

/// A stage that a driver told of the job it has at work.
pub(super) fn step(now: Timestamp, job_id: JobId, job: Option<&Job>, stage: Stage) -> Watched {
    let moment = match stage {
        Stage::Queued => Moment::Queued,
        Stage::WaitingForConfirmation => Moment::WaitingForConfirmation,
        Stage::Sent => Moment::Sent,
        Stage::WaitingForCard => Moment::WaitingForCard { within_seconds: job.map_or(0, card_wait) },
        Stage::Other => Moment::Other,
    };
    watched(now, job_id, job, moment)
}

/// A job that has just begun to wait, if it still does.
///
/// # Errors
/// Those of the database.
pub(super) fn waits(queue: &Queue, now: Timestamp, job_id: JobId) -> Result<Option<Watched>, StoreError> {
    let detail = queue.job(job_id)?.filter(|detail| detail.view.state == JobState::Waiting);
    Ok(detail.map(|detail| watched(now, job_id, detail.job.as_ref(), waiting(&detail.view))))
}

/// What a person has to know of removals that may not be done.
pub(super) fn barred(barred: &Barred) -> String {
    let why = |removal: &BarredRemoval| match removal.why {
        Code::SystemUnknown => format!("the configuration has no system {}", removal.system),
        Code::SiteForbidsKind => "limits.forbidden_kinds forbids slot.remove".to_owned(),
        other => format!("it is refused as {}", other.as_str()),
    };
    let mut places: Vec<_> = barred
        .first
        .iter()
        .map(|removal| format!("{}/{} ({})", removal.system, removal.device, why(removal)))
        .collect();
    places.dedup();
    let named = u64::try_from(barred.first.len()).unwrap_or(u64::MAX);
    let more = match barred.count.saturating_sub(named) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!(
        "codes that were taken back at the desk may be in their locks still, as nothing may take them out: {}{more}. Change          the configuration and reload, and they are taken out; until then see to the locks by hand",
        places.join(", ")
    )
}

/// What a job that waits is waiting for.
fn waiting(view: &JobView) -> Moment {
    match view.code {
        Some(Code::SiteNotConfirmed) => Moment::WaitingForConfirmation,
        _ => Moment::Queued,
    }
}

/// How long a person may take to lay a card down, in seconds.
fn card_wait(job: &Job) -> u16 {
    match &job.order {
        Order::CardEncode(card) => card.card_wait_seconds,
        Order::CardRead(read) => read.card_wait_seconds,
        _ => 0,
    }
}

fn ended(outcome: &Outcome) -> Moment {
    let why = outcome.reason();
    Moment::Ended {
        state: outcome.state(),
        code: why.map(|why| why.code),
        message: why.map(|why| why.message.clone()),
    }
}

fn watched(at: Timestamp, job_id: JobId, job: Option<&Job>, moment: Moment) -> Watched {
    let Place { encoder, device, doors } = job.map(|job| Place::of(&job.order)).unwrap_or_default();
    Watched {
        at,
        job_id,
        kind: job.map(|job| job.order.kind()),
        system: job.map(|job| job.system.clone()),
        encoder,
        device,
        doors,
        moment,
    }
}

/// Where an order is carried out, and what it is about.
#[derive(Default)]
struct Place {
    encoder: Option<EncoderName>,
    device: Option<DeviceName>,
    doors: Vec<DoorName>,
}

impl Place {
    fn of(order: &Order) -> Self {
        let at = |encoder: &EncoderName, doors: &[DoorName]| Self {
            encoder: Some(encoder.clone()),
            device: None,
            doors: doors.to_vec(),
        };
        let room = |room: &DoorName| Self { doors: vec![room.clone()], ..Self::default() };
        let device = |device: &DeviceName| Self { device: Some(device.clone()), ..Self::default() };
        match order {
            Order::CardEncode(card) => at(&card.encoder, &card.doors),
            Order::CardRead(read) => at(&read.encoder, &[]),
            Order::StayCheckout { room: name, .. } => room(name),
            Order::StayModify(stay) => room(&stay.room),
            Order::SlotPut(slot) => device(&slot.device),
            Order::SlotRemove { device: name, .. }
            | Order::DeviceUnlock { device: name }
            | Order::DeviceRead { device: name } => device(name),
            Order::InventoryRefresh => Self::default(),
        }
    }
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
        origin: view.origin,
        due_at: view.due_at,
        retries: view.retries,
    })
}

fn system_report(system: &SystemConfig, dispatch: &Dispatch) -> SystemReport {
    let line = dispatch.lines().get(&system.name).unwrap_or(&Line::Opening);
    let (kind, at, encoders) = match &system.driver {
        DriverConfig::SaltoIs(salto) => (SystemKind::SaltoIs, salto.line.to_string(), salto.encoders.len()),
        DriverConfig::Visionline(it) => (SystemKind::Visionline, it.line.to_string(), it.encoders.len()),
        DriverConfig::KabaMessenger(it) => {
            (SystemKind::KabaMessenger, it.http.url.to_string(), it.encoders.len())
        }
        DriverConfig::Ble(locks) => {
            let adapter = locks.adapter.as_deref().unwrap_or("the first adapter");
            (locks.make.kind(), format!("{} locks by {adapter}", locks.locks.len()), 0)
        }
        DriverConfig::Igloohome(locks) => (SystemKind::Igloohome, format!("{} locks", locks.locks.len()), 0),
        DriverConfig::CardReader(it) => match it.encoders.as_slice() {
            [reader] => (SystemKind::CardReader, reader.line.to_string(), 1),
            readers => (SystemKind::CardReader, format!("{} readers", readers.len()), readers.len()),
        },
        DriverConfig::Uhppote(it) => (SystemKind::Uhppote, format!("{} boards", it.boards.len()), 0),
        DriverConfig::SimLock(locks) => match locks.locks.as_slice() {
            [lock] => (SystemKind::SimLock, lock.address.clone(), 0),
            locks => (SystemKind::SimLock, format!("{} locks", locks.len()), 0),
        },
    };
    SystemReport {
        name: system.name.clone(),
        kind,
        at,
        line: line.into(),
        trouble: match line {
            Line::Down(trouble) => Some(trouble.into()),
            Line::Opening | Line::Ready => None,
        },
        doors: u32::try_from(system.door_count()).unwrap_or(u32::MAX),
        encoders: u32::try_from(encoders).unwrap_or(u32::MAX),
        signs: dispatch.drivers().get(&system.name).map(|driver| driver.signs()).unwrap_or_default(),
    }
}

/// How the lanes stand, as far as the dispatcher knows.
pub(super) fn lanes(now: Timestamp, dispatch: &Dispatch) -> Vec<LaneReport> {
    let report = |lane: dispatch::LaneView<'_>| {
        let left = |rest: &dispatch::Rest| rest.until.saturating_duration_since(Instant::now());
        let rest = lane.rest.or(lane.held).filter(|rest| !left(rest).is_zero()).map(|rest| Rest {
            until: now.saturating_add(left(rest)).unwrap_or(now),
            why: rest.why.message.clone(),
        });
        let ready = dispatch.lines().get(lane.system) == Some(&Line::Ready);
        let (state, job) = match lane.state {
            dispatch::LaneState::Busy(job) => (LaneState::Busy, Some(job)),
            _ if lane.paused => (LaneState::Paused, None),
            _ if rest.is_some() => (LaneState::Resting, None),
            dispatch::LaneState::Free | dispatch::LaneState::Reserved if ready => (LaneState::Idle, None),
            dispatch::LaneState::Free | dispatch::LaneState::Reserved => (LaneState::Blocked, None),
        };
        LaneReport { lane: lane.name.clone(), state, job, waiting: 0, paused: None, rest }
    };
    dispatch.lanes().iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_no_name_that_an_audit_can_hold_is_refused() {
        for name in ["", "  ", "Ka\nri", "\u{1b}[2J", &"K".repeat(LONGEST_NAME + 1)] {
            let refused = name_of(name).unwrap_err();
            assert!(
                matches!(&refused, Response::Refused { code, .. } if code == "name_invalid"),
                "{refused:?}"
            );
        }
        assert_eq!(name_of(" Kari Nordmann ").unwrap(), "Kari Nordmann");
        assert_eq!(name_of(&"ø".repeat(LONGEST_NAME)).unwrap(), "ø".repeat(LONGEST_NAME));
    }
}
