//! Which job goes to which device next, and what its end means.
//!
//! # The idea
//! Every driver declares lanes; a lane does one job at a time. Whether a lane may take one is known here, in memory;
//! which one it takes is decided by the queue, in the transaction that marks the job `sent`. So the two can never
//! disagree: a lane is *reserved* before the queue is asked, and only the queue's answer, given after its commit, lets
//! a driver begin.
//!
//! ```text
//!            reserve, ask the queue                 commit says: sent
//!   free ----------------------------> reserved -----------------------> busy(job)
//!    ^                                     |                                 |
//!    |          nothing to do              |      the job ended: record it,  |
//!    +<------------------------------------+      and ask for the next one,  |
//!    +<------------------------------------------ in one commit <------------+
//! ```
//!
//! An order that arrives while its lane is free is accepted, claimed and marked in one commit: one sync lies between
//! its arrival and the first byte at the device.
//!
//! This room sees neither SQL nor bytes. Nothing here waits for a commit while other lanes could work: answers of the
//! queue come back through [`Dispatch::next`].

mod lanes;

use std::{
    collections::{BTreeMap, VecDeque},
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::{Id, JoinSet},
    time::Instant,
};

use crate::{
    drivers::{Driver, Line, Performed, Work},
    model::{Admission, Code, JobId, LaneName, Order, Outcome, Refusal, Success, SystemName, Window},
    protocol::{Envelope, Message, Position, RefusedCode, Stage},
    queue::{Accepted, CancelAnswer, Claimed, LONGEST_PAUSE, Queue},
    seams::{self, TrustedTime},
    store::{StoreError, WriterHandle},
};

pub use lanes::{LaneState, Lanes};

/// What the rest of the agent learns from the dispatcher.
#[derive(Debug)]
pub enum Happening {
    /// Orders up to here are durable.
    Held(Position),
    /// A message left a gap, or could not be stored: the link must begin again from what is held.
    OrdersInterrupted {
        /// What the cloud is told.
        code: RefusedCode,
        /// For a person and the log.
        why: String,
    },
    /// Outcomes wait in the outbox.
    Reports,
    /// Where a job stands, for screens.
    Progress {
        /// Which job.
        job_id: JobId,
        /// Where it stands.
        stage: Stage,
    },
    /// A line opened or went down, or a lane changed.
    LinesChanged,
    /// The store refused work: somebody must look at the disk.
    StoreFailed {
        /// For a person and the log.
        why: String,
    },
}

/// The dispatcher.
pub struct Dispatch {
    queue: WriterHandle<Queue>,
    time: TrustedTime,
    drivers: BTreeMap<SystemName, Arc<dyn Driver>>,
    lanes: Lanes,
    lines: BTreeMap<SystemName, Line>,
    line_changes: mpsc::UnboundedReceiver<(SystemName, Line)>,
    running: JoinSet<Performed>,
    at_work: BTreeMap<Id, (LaneName, Claimed)>,
    answers: FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    tell_progress: mpsc::UnboundedSender<(JobId, Stage)>,
    progress: mpsc::UnboundedReceiver<(JobId, Stage)>,
    told: VecDeque<Happening>,
    next_expiry: Option<Timestamp>,
    stopping: bool,
}

/// What the queue answered, with what is needed to go on.
enum Answer {
    Accepted {
        position: Position,
        lane: Option<LaneName>,
        reserved: bool,
        result: Result<Accepted, StoreError>,
    },
    Refused {
        position: Position,
        result: Result<(), StoreError>,
    },
    Cancelled {
        position: Position,
        job_id: JobId,
        result: Result<CancelAnswer, StoreError>,
    },
    Claimed {
        lane: LaneName,
        result: Result<NextJob, StoreError>,
    },
    Settled {
        lane: LaneName,
        end: Box<End>,
        result: Result<NextJob, StoreError>,
    },
    Expired(Result<(Vec<JobId>, Option<Timestamp>), StoreError>),
}

/// What came of a job, until it is durable.
#[derive(Clone)]
struct End {
    job_id: JobId,
    system: SystemName,
    performed: Performed,
}

/// How long until the store is tried again after it failed.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// A wall clock that is put right may bring a deadline nearer; it is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Answers of the queue that may be outstanding before further orders should wait outside.
const MOST_ANSWERS: usize = 256;

/// The next job of a lane, or when to ask again.
struct NextJob {
    claimed: Option<Claimed>,
    retry_at: Option<Timestamp>,
    asked: bool,
}

impl NextJob {
    /// The queue was not asked.
    const NONE: Self = Self { claimed: None, retry_at: None, asked: false };
}

impl Dispatch {
    /// Puts drivers to work on a queue. Every job that was `sent` when the agent last stopped must have been settled
    /// by `Queue::recover` before.
    #[must_use]
    pub fn new(queue: WriterHandle<Queue>, time: TrustedTime, drivers: Vec<Arc<dyn Driver>>) -> Self {
        let (changed, line_changes) = mpsc::unbounded_channel();
        let (tell_progress, progress) = mpsc::unbounded_channel();
        let mut lanes = Lanes::default();
        let mut lines = BTreeMap::new();
        for driver in &drivers {
            for lane in driver.lanes() {
                lanes.add(lane, driver.system().clone());
            }
            lines.insert(driver.system().clone(), Line::Opening);
            let (mut line, system, changed) = (driver.line(), driver.system().clone(), changed.clone());
            line.mark_changed();
            seams::spawn(async move {
                while line.changed().await.is_ok() {
                    let now = line.borrow_and_update().clone();
                    if changed.send((system.clone(), now)).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            queue,
            time,
            drivers: drivers.into_iter().map(|driver| (driver.system().clone(), driver)).collect(),
            lanes,
            lines,
            line_changes,
            running: JoinSet::new(),
            at_work: BTreeMap::new(),
            answers: FuturesUnordered::new(),
            tell_progress,
            progress,
            told: VecDeque::new(),
            next_expiry: Some(Timestamp::MIN),
            stopping: false,
        }
    }

    /// Takes a message of the orders stream. Never waits: what came of it is told by [`Dispatch::next`].
    pub fn order(&mut self, position: Position, envelope: &Envelope) {
        if self.stopping {
            return;
        }
        match envelope.message() {
            Ok(Message::Job(job)) => self.accept(position, job),
            Ok(Message::Cancel { job_id }) => self.cancel(position, job_id),
            Ok(Message::Outcome(_) | Message::Resolution(_) | Message::Acknowledgement { .. }) => {
                let why = Refusal::new(
                    Code::Rejected,
                    "a message of the wrong direction stood in the orders stream",
                );
                self.refuse_unreadable(position, None, why);
            }
            Err(error) => {
                let why = unreadable(&envelope.body, &error);
                self.refuse_unreadable(position, job_id_of(&envelope.body), why);
            }
        }
    }

    fn accept(&mut self, position: Position, job: crate::model::Job) {
        let admission = self.admit(&job.system, &job.order);
        let lane = admission.as_ref().ok().map(|admission| admission.lane.clone());
        let reserved = lane.as_ref().is_some_and(|lane| self.reserve(lane));
        let now = self.time.now();
        let answer = self
            .queue
            .submit(move |queue: &mut Queue| queue.accept(now, Some(position), job, admission, reserved));
        self.answers.push(Box::pin(async move {
            Answer::Accepted { position, lane, reserved, result: answered(answer).await }
        }));
    }

    fn admit(&self, system: &SystemName, order: &Order) -> Result<Admission, Refusal> {
        let Some(driver) = self.drivers.get(system) else {
            let known: Vec<_> = self.drivers.keys().map(SystemName::as_str).collect();
            return Err(Refusal::new(
                Code::SystemUnknown,
                format!("this site has no system {system}; it has: {}", known.join(", ")),
            ));
        };
        driver.admit(order)
    }

    fn cancel(&mut self, position: Position, job_id: JobId) {
        let now = self.time.now();
        let answer = self.queue.submit(move |queue: &mut Queue| queue.cancel(now, Some(position), job_id));
        self.answers.push(Box::pin(async move {
            Answer::Cancelled { position, job_id, result: answered(answer).await }
        }));
    }

    fn refuse_unreadable(&mut self, position: Position, job_id: Option<JobId>, why: Refusal) {
        tracing::warn!(job = job_id.map(tracing::field::display), error = %why, "order refused");
        let now = self.time.now();
        let answer =
            self.queue.submit(move |queue: &mut Queue| queue.refuse_unreadable(now, position, job_id, why));
        self.answers
            .push(Box::pin(async move { Answer::Refused { position, result: answered(answer).await } }));
    }

    /// Waits for the next thing that the agent should know, and drives all lanes meanwhile. Cancel-safe: nothing is
    /// lost when the future is dropped.
    pub async fn next(&mut self) -> Happening {
        loop {
            if let Some(happening) = self.told.pop_front() {
                return happening;
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                Some(done) = self.running.join_next_with_id(), if !self.running.is_empty() => self.performed(done),
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => self.answered(answer),
                Some((job_id, stage)) = self.progress.recv() => {
                    self.told.push_back(Happening::Progress { job_id, stage });
                }
                Some((system, line)) = self.line_changes.recv() => self.line_changed(system, line),
                () = until(wake) => self.woken(),
            }
        }
    }

    /// How each line stands.
    #[must_use]
    pub fn lines(&self) -> &BTreeMap<SystemName, Line> {
        &self.lines
    }

    /// How each lane stands.
    #[must_use]
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The drivers, by system.
    #[must_use]
    pub fn drivers(&self) -> &BTreeMap<SystemName, Arc<dyn Driver>> {
        &self.drivers
    }

    /// Begins nothing new. Jobs at work go on; those whose command has not left come back to the queue.
    pub fn stop(&mut self) {
        self.stopping = true;
        for driver in self.drivers.values() {
            driver.stop();
        }
    }

    /// Whether no job is at work and no answer of the queue is outstanding.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.running.is_empty() && self.answers.is_empty()
    }

    /// Whether further orders should be handed in. They may be all the same: this bounds memory, not what is allowed.
    #[must_use]
    pub fn takes_orders(&self) -> bool {
        self.answers.len() < MOST_ANSWERS
    }

    fn reserve(&mut self, lane: &LaneName) -> bool {
        let drivers = &self.drivers;
        !self.stopping && self.lanes.reserve(lane, |system| is_ready(drivers, system))
    }

    /// Gives a lane back for which the queue had no job, and asks again where it may have one by now.
    fn free(&mut self, lane: &LaneName, retry_at: Option<Instant>) {
        if self.lanes.free(lane, retry_at) {
            self.ask(lane);
        }
    }

    /// When to ask again for a job that may be sent at `at`.
    fn instant_of(&self, at: Timestamp) -> Instant {
        let wait = Duration::try_from(at.duration_since(self.time.now())).unwrap_or(Duration::ZERO);
        Instant::now() + wait.min(LONGEST_PAUSE)
    }

    /// Gives a lane back that an order had reserved, and asks for its next job.
    fn ask_again(&mut self, lane: &LaneName) {
        self.lanes.free(lane, None);
        self.ask(lane);
    }

    /// Asks the queue for a lane's next job, if the lane may take one.
    fn ask(&mut self, lane: &LaneName) {
        if !self.reserve(lane) {
            return;
        }
        let (lane, now, name) = (lane.clone(), self.time.now(), lane.clone());
        let answer = self.queue.submit(move |queue: &mut Queue| next_job(queue, now, &name));
        self.answers.push(Box::pin(async move { Answer::Claimed { lane, result: answered(answer).await } }));
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Accepted { position, lane, reserved, result } => {
                let reserved = lane.clone().filter(|_| reserved);
                match result {
                    Ok(Accepted::Sent(claimed)) => {
                        let lane = lane.expect("a job is sent to the lane it was admitted to");
                        self.begin(lane, claimed);
                    }
                    Ok(Accepted::Waiting) => {
                        self.next_expiry = Some(Timestamp::MIN);
                        match (reserved, lane) {
                            (Some(reserved), _) => self.ask_again(&reserved),
                            (None, Some(lane)) => self.ask(&lane),
                            (None, None) => {}
                        }
                    }
                    Ok(Accepted::Ended(outcome)) => {
                        tracing::info!(state = %outcome.state(), "order ended on arrival");
                        self.told.push_back(Happening::Reports);
                        if let Some(lane) = &reserved {
                            self.ask_again(lane);
                        }
                    }
                    Ok(Accepted::Duplicate) => {
                        // A job that is over is reported once more.
                        self.told.push_back(Happening::Reports);
                        if let Some(lane) = &reserved {
                            self.ask_again(lane);
                        }
                    }
                    Err(error) => {
                        // Others may wait in the lane; taking it has cancelled their retry.
                        if let Some(lane) = &reserved {
                            self.free(lane, Some(Instant::now() + STORE_AGAIN));
                        }
                        self.not_stored(&error);
                        return;
                    }
                }
                self.told.push_back(Happening::Held(position));
            }
            Answer::Refused { position, result } => match result {
                Ok(()) => self.told.extend([Happening::Held(position), Happening::Reports]),
                Err(error) => self.not_stored(&error),
            },
            Answer::Cancelled { position, job_id, result } => match result {
                Ok(answer) => {
                    match answer {
                        CancelAnswer::Cancelled => tracing::info!(job = %job_id, "job cancelled"),
                        CancelAnswer::TooLate(state) => {
                            tracing::info!(job = %job_id, %state, "too late to cancel");
                        }
                        CancelAnswer::NotKnown => {
                            tracing::info!(job = %job_id, "cancelled before it arrived");
                        }
                    }
                    self.told.extend([Happening::Held(position), Happening::Reports]);
                }
                Err(error) => self.not_stored(&error),
            },
            Answer::Claimed { lane, result } => match result {
                Ok(next) => self.go_on(lane, next),
                Err(error) => {
                    self.lanes.free(&lane, Some(Instant::now() + STORE_AGAIN));
                    self.told.push_back(Happening::StoreFailed { why: error.chain() });
                }
            },
            Answer::Settled { lane, end, result } => match result {
                Ok(next) => {
                    if matches!(end.performed, Performed::NothingSent(_)) {
                        // It waits again, and its deadline with it.
                        self.next_expiry = Some(Timestamp::MIN);
                    }
                    self.go_on(lane, next);
                }
                Err(error) => {
                    // The lane stays taken: nothing else is done there before this end is durable.
                    tracing::error!(job = %end.job_id, error = error.chain(), "an outcome could not be stored yet");
                    self.told.push_back(Happening::StoreFailed { why: error.chain() });
                    self.settle(lane, *end, STORE_AGAIN);
                }
            },
            Answer::Expired(Ok((ended, next))) => {
                // What was asked for meanwhile stands.
                self.next_expiry = self.next_expiry.into_iter().chain(next).min();
                if !ended.is_empty() {
                    tracing::warn!(jobs = ended.len(), "jobs expired before anything was sent");
                    self.told.push_back(Happening::Reports);
                }
            }
            Answer::Expired(Err(error)) => {
                let later = self.time.now().saturating_add(STORE_AGAIN).unwrap_or(Timestamp::MAX);
                self.next_expiry = Some(later);
                self.told.push_back(Happening::StoreFailed { why: error.chain() });
            }
        }
    }

    fn not_stored(&mut self, error: &StoreError) {
        let why = error.chain();
        if let StoreError::Gap { .. } = error {
            // The cloud's mistake: the disk is well.
            tracing::warn!(error = why, "an order does not follow the last one; nothing of it was stored");
            self.told.push_back(Happening::OrdersInterrupted { code: RefusedCode::StreamGap, why });
            return;
        }
        tracing::error!(error = why, "an order could not be stored");
        let code = RefusedCode::Restarting;
        self.told.push_back(Happening::OrdersInterrupted { code, why: why.clone() });
        self.told.push_back(Happening::StoreFailed { why });
    }

    fn begin(&mut self, lane: LaneName, claimed: Claimed) {
        let job = &claimed.job;
        let driver = Arc::clone(&self.drivers[&job.system]);
        tracing::info!(
            job = %job.job_id, lane = %lane, kind = job.order.kind().as_str(), treatment = ?claimed.treatment,
            attempt = claimed.attempt, "job sent"
        );
        self.lanes.begin(&lane, job.job_id);
        self.told.push_back(Happening::Progress { job_id: job.job_id, stage: Stage::Sent });
        let work = Work { job_id: job.job_id, order: job.order.clone(), treatment: claimed.treatment };
        let (job_id, progress) = (job.job_id, self.tell_progress.clone());
        let running = self.running.spawn(seams::task(async move {
            let sink = move |stage| {
                // The dispatcher may be gone; screens are the only ones who miss it.
                let _ = progress.send((job_id, stage));
            };
            driver.perform(work, &sink).await
        }));
        self.at_work.insert(running.id(), (lane, claimed));
    }

    fn performed(&mut self, done: Result<(Id, Performed), tokio::task::JoinError>) {
        let (id, performed) = match done {
            Ok(done) => done,
            Err(error) => {
                let doubt =
                    Outcome::unknown(Code::AgentStopped, "the driver broke down at work; read the card");
                tracing::error!(error = %error, "a driver panicked; its lane goes on");
                (error.id(), Performed::Ended(doubt))
            }
        };
        let (lane, Claimed { job, .. }) = self.at_work.remove(&id).expect("every task was put to work here");
        match &performed {
            Performed::Ended(outcome) => log_outcome(job.job_id, outcome),
            Performed::MayRepeat(why) => {
                tracing::warn!(job = %job.job_id, error = %why, "the job may be repeated")
            }
            Performed::NothingSent(why) => {
                tracing::warn!(job = %job.job_id, error = %why, "nothing was sent; the job waits again");
            }
        }
        self.lanes.reserve_again(&lane);
        self.settle(lane, End { job_id: job.job_id, system: job.system, performed }, Duration::ZERO);
    }

    /// Makes the end of a job durable, and asks for the lane's next one in the same commit.
    fn settle(&mut self, lane: LaneName, end: End, after: Duration) {
        let (queue, time) = (self.queue.clone(), self.time.clone());
        let may_ask = !self.stopping && is_ready(&self.drivers, &end.system);
        let work = (lane.clone(), end.clone());
        let end = Box::new(end);
        let submit = move || {
            let (lane, end) = work;
            let now = time.now();
            queue.submit(move |queue: &mut Queue| {
                record(queue, now, end)?;
                if may_ask { next_job(queue, now, &lane) } else { Ok(NextJob::NONE) }
            })
        };
        if after.is_zero() {
            // In the queue before anything else that this turn may submit.
            let answer = submit();
            self.answers
                .push(Box::pin(async move { Answer::Settled { lane, end, result: answered(answer).await } }));
        } else {
            self.answers.push(Box::pin(async move {
                tokio::time::sleep(after).await;
                Answer::Settled { lane, end, result: answered(submit()).await }
            }));
        }
    }

    fn go_on(&mut self, lane: LaneName, next: NextJob) {
        // Asking may have ended jobs on the way: refused by the ledger, or too late.
        self.told.push_back(Happening::Reports);
        match next.claimed {
            Some(claimed) => self.begin(lane, claimed),
            None => {
                let retry_at = next.retry_at.map(|at| self.instant_of(at));
                self.free(&lane, retry_at);
                // The line may have opened while the queue was asked without leave to claim.
                if next.asked {
                    self.told.push_back(Happening::LinesChanged);
                } else {
                    self.ask(&lane);
                }
            }
        }
    }

    fn line_changed(&mut self, system: SystemName, line: Line) {
        match &line {
            Line::Ready => tracing::info!(system = %system, "line open"),
            Line::Opening => {}
            Line::Down(trouble) => {
                tracing::warn!(system = %system, code = trouble.code, error = trouble.message, "line down");
            }
        }
        let ready = line == Line::Ready;
        self.lines.insert(system.clone(), line);
        self.told.push_back(Happening::LinesChanged);
        if ready {
            for lane in self.lanes.of(&system) {
                self.ask(&lane);
            }
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        if self.stopping {
            return None;
        }
        let retry = self.lanes.next_retry().map(|at| at.saturating_duration_since(Instant::now()));
        let expiry = self.next_expiry.map(|at| {
            let wait = at.duration_since(self.time.now());
            Duration::try_from(wait).unwrap_or(Duration::ZERO).min(LOOK_AGAIN)
        });
        retry.into_iter().chain(expiry).min()
    }

    fn woken(&mut self) {
        let now = self.time.now();
        if self.next_expiry.is_some_and(|at| at <= now) {
            // Asked once; the answer says when to ask again.
            self.next_expiry = None;
            let trouble = |(system, line): (&SystemName, &Line)| match line {
                Line::Down(trouble) => Some((system.clone(), trouble.message.clone())),
                Line::Opening | Line::Ready => None,
            };
            let troubles: BTreeMap<_, _> = self.lines.iter().filter_map(trouble).collect();
            let answer = self.queue.submit(move |queue: &mut Queue| {
                Ok((queue.expire_for(now, &troubles)?, queue.next_expiry()?))
            });
            self.answers.push(Box::pin(async move { Answer::Expired(answered(answer).await) }));
        }
        for lane in self.lanes.due(Instant::now()) {
            self.ask(&lane);
        }
    }
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch")
            .field("lanes", &self.lanes)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

/// How a system's line stands at this very moment; what was told of it may be older.
fn is_ready(drivers: &BTreeMap<SystemName, Arc<dyn Driver>>, system: &SystemName) -> bool {
    drivers.get(system).is_some_and(|driver| *driver.line().borrow() == Line::Ready)
}

fn record(queue: &mut Queue, now: Timestamp, end: End) -> Result<(), StoreError> {
    let End { job_id, system, performed } = end;
    match performed {
        Performed::NothingSent(why) => queue.unsend(now, job_id, &why),
        Performed::MayRepeat(why) => queue.finish(now, job_id, Outcome::Unknown(why)),
        Performed::Ended(outcome) => {
            let seen = match &outcome {
                Outcome::Succeeded(Success { seen, .. }) => seen.clone(),
                _ => None,
            };
            queue.finish(now, job_id, outcome)?;
            match seen {
                Some(seen) => queue.note_card_seen(now, &system, &seen),
                None => Ok(()),
            }
        }
    }
}

fn next_job(queue: &mut Queue, now: Timestamp, lane: &LaneName) -> Result<NextJob, StoreError> {
    let claimed = queue.claim(now, lane)?;
    let retry_at = if claimed.is_none() { queue.next_retry(lane)? } else { None };
    Ok(NextJob { claimed, retry_at, asked: true })
}

async fn answered<T>(answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    answer.await.unwrap_or(Err(StoreError::Stopped))
}

async fn until(wake: Option<Duration>) {
    match wake {
        Some(wait) => tokio::time::sleep(wait).await,
        None => pending().await,
    }
}

/// The job id of an order that this version cannot read, if it can be found.
fn job_id_of(body: &str) -> Option<JobId> {
    #[derive(serde::Deserialize)]
    struct Named {
        job_id: JobId,
    }
    serde_json::from_str::<Named>(body).ok().map(|named| named.job_id)
}

/// Why an order cannot be read, in words that hold nothing of it but the name of its kind and its times: a reader's own
/// words quote what stands where something else was due, which may be a PIN or a guest's name.
fn unreadable(body: &str, error: &serde_json::Error) -> Refusal {
    let order = serde_json::from_str::<serde_json::Value>(body).map(|mut body| body["order"].take());
    let order = order.unwrap_or_default();
    let time = |name: &str| order["window"][name].as_str()?.parse::<Timestamp>().ok();
    if let Some(starts_at) = time("starts_at")
        && let Err(wrong) = Window::new(starts_at, time("ends_at"))
    {
        return Refusal::new(Code::BadDates, wrong.to_string());
    }
    let known = |kind: &&str| {
        kind.len() <= 32 && kind.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte))
    };
    let kind = order["kind"].as_str().filter(known).unwrap_or("without a known kind");
    let (line, column) = (error.line(), error.column());
    Refusal::new(
        Code::Unsupported,
        format!(
            "this version of the agent cannot read the order ({kind}, at line {line} column {column}): if the cloud \
             is newer, update the agent"
        ),
    )
}

fn log_outcome(job_id: JobId, outcome: &Outcome) {
    match outcome {
        Outcome::Succeeded(_) => tracing::info!(job = %job_id, "job succeeded"),
        Outcome::Failed(why) => {
            tracing::info!(job = %job_id, code = %why.code, error = why.message, "job failed");
        }
        Outcome::Unknown(why) => {
            tracing::error!(
                job = %job_id, code = %why.code, error = why.message,
                "job may have been done: read the card or ask at the desk"
            );
        }
        Outcome::Cancelled | Outcome::Expired(_) | Outcome::Superseded => {
            tracing::info!(job = %job_id, state = %outcome.state(), "job ended");
        }
    }
}

#[cfg(test)]
mod tests;
