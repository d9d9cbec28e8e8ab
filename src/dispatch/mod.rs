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
//! # What does not end at once
//! A job that may be repeated and whose device fell silent stays `sent` and stands *aside*: its lane works on, and the
//! job is tried again after a pause until its deadline; one that only looks, and was to be taken back, ends cancelled
//! instead. A job in doubt, after a restart or at its end, keeps its lane while its driver is asked for *proof*; only
//! without one it ends `unknown`. A lane whose device could not be reached several times in a row *rests*, so that one
//! dead device costs nobody else anything. A lane, or an encoder of one, that may still be at work on a command which was
//! not answered is *held* as long as its driver wants that: what waits for it is not marked `sent` before.
//!
//! When jobs wait from the time before a restart, they are held until the cloud has welcomed the agent, or for a few
//! seconds: this memory may be an old one that was put back, and only the cloud can tell.
//!
//! This room sees neither SQL nor bytes. Nothing here waits for a commit while other lanes could work: answers of the
//! queue come back through [`Dispatch::next`].

mod lanes;
mod wishes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
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
    drivers::{Driver, Line, Performed, Proof, Resting, Work},
    model::{
        Admission, Code, Job, JobId, JobState, Kind, LaneName, Order, Outcome, Refusal, Success, SystemName,
        Window,
    },
    protocol::{Envelope, Message, Ordered, Position, RefusedCode, Stage},
    queue::{
        Accepted, CancelAnswer, Claimed, LONGEST_PAUSE, LocalOrder, Past, Queue, Troubles, Wish, policy,
        stopped_at_work,
    },
    seams::{self, TrustedTime},
    store::{StoreError, WriterHandle},
};

pub use lanes::{LaneState, LaneView, Lanes, Rest};
pub use wishes::Reply;
use wishes::Word;

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
    /// Something happened at devices of a system, which told so by themselves.
    Stir(SystemName),
    /// A lock system said that a room has no stay although one of ours holds it.
    RoomChangedElsewhere,
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
    tell_line: mpsc::UnboundedSender<(SystemName, u64, Heard)>,
    line_changes: mpsc::UnboundedReceiver<(SystemName, u64, Heard)>,
    /// Which driver of a system speaks for its line: a replaced one may still be heard.
    line_of: BTreeMap<SystemName, u64>,
    drivers_started: u64,
    running: JoinSet<Came>,
    at_work: BTreeMap<Id, AtWork>,
    aside: BTreeMap<JobId, Aside>,
    /// Jobs at work or aside that were to be taken back.
    taken_back: BTreeSet<JobId>,
    /// Jobs of the time before the start whose lane is at work for another one of them.
    to_prove: VecDeque<(LaneName, Claimed)>,
    answers: FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    tell_progress: mpsc::UnboundedSender<(JobId, Stage)>,
    progress: mpsc::UnboundedReceiver<(JobId, Stage)>,
    told: VecDeque<Happening>,
    /// Tasks that have not had a turn yet.
    begun: Vec<Id>,
    next_expiry: Option<Timestamp>,
    next_due: Option<Timestamp>,
    /// When deadlines and timers were looked at last.
    looked_at: Timestamp,
    held_until: Option<Instant>,
    /// What people said meanwhile.
    words: Vec<Word>,
    stopping: bool,
}

/// What was heard of a system.
#[derive(Debug)]
enum Heard {
    /// Its line opened or went down.
    Line(Line),
    /// Something happened at its devices.
    Stir,
}

/// A job that has its lane.
struct AtWork {
    lane: LaneName,
    claimed: Claimed,
    /// How often it was tried before under the same mark.
    tries: u32,
    asked: Asked,
}

/// What its driver was asked.
enum Asked {
    ToPerform,
    /// For proof, at its end: how it ends without.
    ForProof(Refusal),
    /// For proof, after a restart.
    ForProofAtStart,
}

/// What its driver said.
enum Came {
    Performed(Performed),
    Proof(Proof),
}

/// A job that is `sent` and waits for another try.
struct Aside {
    lane: LaneName,
    claimed: Claimed,
    tries: u32,
    at: Instant,
    /// Its pause is over, and its lane knows: it is taken as soon as the lane may take work.
    is_ready: bool,
    why: Refusal,
}

/// What the queue answered, with what is needed to go on.
enum Answer {
    Accepted {
        job_id: JobId,
        position: Option<Position>,
        lane: Option<LaneName>,
        reserved: bool,
        has_timer: bool,
        result: Result<Accepted, StoreError>,
        reply: Option<oneshot::Sender<Result<Accepted, StoreError>>>,
    },
    Refused {
        position: Position,
        result: Result<(), StoreError>,
    },
    Cancelled {
        position: Option<Position>,
        job_id: JobId,
        result: Result<CancelAnswer, StoreError>,
        reply: Option<oneshot::Sender<Result<CancelAnswer, StoreError>>>,
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
    /// The end of a job that had stood aside.
    Recorded {
        end: Box<End>,
        result: Result<(), StoreError>,
    },
    Expired(Result<(Vec<JobId>, Option<Timestamp>), StoreError>),
    Due(Result<(BTreeSet<LaneName>, Option<Timestamp>), StoreError>),
    /// A person's wish was carried out: these lanes may have work, or none any more.
    Wished {
        ask: Vec<LaneName>,
        /// The job that waits for its lane now, and for nothing else.
        queued: Option<JobId>,
        failed: Option<String>,
    },
}

/// What came of a job, until it is durable.
#[derive(Clone)]
struct End {
    job_id: JobId,
    system: SystemName,
    /// Whether it may have left a timer behind.
    has_timer: bool,
    performed: Performed,
}

impl End {
    fn of(job: &Job, performed: Performed) -> Self {
        Self { job_id: job.job_id, system: job.system.clone(), has_timer: has_timer(&job.order), performed }
    }
}

/// How long jobs from before a restart are held for the cloud's welcome.
const HELD: Duration = Duration::from_secs(5);
/// How long a driver may look for proof.
const PROOF_WITHIN: Duration = Duration::from_secs(20);
/// How long until the store is tried again after it failed.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// Devices that tell by themselves what happens are heard this often at most: who floods the network gets no more.
const STIR_PAUSE: Duration = Duration::from_secs(1);
/// A wall clock that is put right may bring a deadline nearer; it is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Answers of the queue that may be outstanding before further orders should wait outside.
const MOST_ANSWERS: usize = 256;

/// The next job of a lane, or when to ask again.
struct NextJob {
    claimed: Option<Claimed>,
    retry_at: Option<Timestamp>,
    /// Jobs that ended on the way may have left timers behind.
    next_due: Option<Timestamp>,
    asked: bool,
}

impl NextJob {
    /// The queue was not asked.
    const NONE: Self = Self { claimed: None, retry_at: None, next_due: None, asked: false };
}

impl Dispatch {
    /// Puts drivers to work on a queue. `past` is what [`Queue::past`] says is left of the last run.
    #[must_use]
    pub fn new(
        queue: WriterHandle<Queue>,
        time: TrustedTime,
        drivers: Vec<Arc<dyn Driver>>,
        past: Past,
    ) -> Self {
        let (tell_line, line_changes) = mpsc::unbounded_channel();
        let (tell_progress, progress) = mpsc::unbounded_channel();
        let mut dispatch = Self {
            queue,
            time,
            drivers: BTreeMap::new(),
            lanes: Lanes::default(),
            lines: BTreeMap::new(),
            tell_line,
            line_changes,
            line_of: BTreeMap::new(),
            drivers_started: 0,
            running: JoinSet::new(),
            at_work: BTreeMap::new(),
            aside: BTreeMap::new(),
            taken_back: past.taken_back,
            to_prove: VecDeque::new(),
            answers: FuturesUnordered::new(),
            tell_progress,
            progress,
            told: VecDeque::new(),
            begun: Vec::new(),
            next_expiry: Some(Timestamp::MIN),
            next_due: Some(Timestamp::MIN),
            looked_at: Timestamp::MIN,
            held_until: past.waiting.then(|| Instant::now() + HELD),
            words: Vec::new(),
            stopping: false,
        };
        for driver in drivers {
            dispatch.add_driver(driver);
        }
        for pause in &past.paused {
            dispatch.lanes.pause(&pause.lane, true);
        }
        for lane in past.lanes {
            dispatch.lanes.waits_in(lane);
        }
        for (lane, claimed) in past.in_doubt {
            dispatch.prove_at_start(lane, claimed);
        }
        dispatch
    }

    fn add_driver(&mut self, driver: Arc<dyn Driver>) {
        let system = driver.system().clone();
        for lane in driver.lanes() {
            self.lanes.add(lane, system.clone());
        }
        self.drivers_started += 1;
        let which = self.drivers_started;
        self.line_of.insert(system.clone(), which);
        self.lines.insert(system.clone(), Line::Opening);
        let (mut line, name, tell) = (driver.line(), system.clone(), self.tell_line.clone());
        line.mark_changed();
        seams::spawn(async move {
            while line.changed().await.is_ok() {
                let now = line.borrow_and_update().clone();
                if tell.send((name.clone(), which, Heard::Line(now))).is_err() {
                    return;
                }
            }
        });
        if let Some(mut stirs) = driver.stirs() {
            let (name, tell) = (system.clone(), self.tell_line.clone());
            seams::spawn(async move {
                while stirs.changed().await.is_ok() {
                    stirs.mark_unchanged();
                    if tell.send((name.clone(), which, Heard::Stir)).is_err() {
                        return;
                    }
                    tokio::time::sleep(STIR_PAUSE).await;
                }
            });
        }
        self.drivers.insert(system, driver);
    }

    /// The cloud has welcomed the agent, and both remember the same past: what waits may be done.
    pub fn welcomed(&mut self) {
        if self.held_until.is_some() {
            self.hold_no_more();
        }
    }

    fn hold_no_more(&mut self) {
        self.held_until = None;
        for word in std::mem::take(&mut self.words) {
            word(self);
        }
        self.ask_all();
    }

    /// Takes a message of the orders stream. Never waits: what came of it is told by [`Dispatch::next`].
    pub fn order(&mut self, position: Position, envelope: &Envelope) {
        if self.stopping {
            return;
        }
        match envelope.message() {
            Ok(Message::Job(job)) => self.accept(position, job),
            Ok(Message::Cancel { job_id, ordered }) => self.cancel(position, job_id, ordered),
            Ok(
                Message::Outcome(_)
                | Message::Resolution(_)
                | Message::GrantMade(_)
                | Message::GrantRevoked(_)
                | Message::DoorEvents(_)
                | Message::Acknowledgement { .. },
            ) => {
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

    fn accept(&mut self, position: Position, job: Job) {
        let (job_id, has_timer) = (job.job_id, has_timer(&job.order));
        let (admission, lane, reserved) = self.admitted(&job);
        let now = self.time.now();
        let answer = self.queue.submit_soon(move |queue: &mut Queue| {
            queue.accept(now, Some(position), job.clone(), admission.clone(), reserved)
        });
        let position = Some(position);
        self.answers.push(Box::pin(async move {
            let result = answered(answer).await;
            Answer::Accepted { job_id, position, lane, reserved, has_timer, result, reply: None }
        }));
    }

    /// What a job's driver says of it, its lane, and whether that is now reserved for it.
    fn admitted(&mut self, job: &Job) -> (Result<Admission, Refusal>, Option<LaneName>, bool) {
        let admission = self.admit(&job.system, &job.order);
        let lane = admission.as_ref().ok().map(|admission| admission.lane.clone());
        // Where its encoder rests the job takes its place in the lane, and steps back there.
        let reserved =
            lane.as_ref().is_some_and(|lane| !self.rests_for(&job.order, lane) && self.reserve(lane));
        (admission, lane, reserved)
    }

    fn admit(&self, system: &SystemName, order: &Order) -> Result<Admission, Refusal> {
        admit(&self.drivers, system, order)
    }

    fn cancel(&mut self, position: Position, job_id: JobId, ordered: Option<Ordered>) {
        let now = self.time.now();
        let answer = self.queue.submit(move |queue: &mut Queue| {
            queue.cancel_ordered(now, Some(position), job_id, ordered.as_ref())
        });
        self.answers.push(Box::pin(async move {
            let result = answered(answer).await;
            Answer::Cancelled { position: Some(position), job_id, result, reply: None }
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

    /// Lets drivers that were just given a job begin. To be called between two turns of [`Dispatch::next`], before
    /// anybody is told: what is said of a job can wait, whoever holds the card does.
    pub async fn let_begin(&mut self) {
        if self.begun.is_empty() {
            return;
        }
        tokio::task::yield_now().await;
        for begun in self.begun.drain(..) {
            if let Some(AtWork { lane, claimed, tries, .. }) = self.at_work.get(&begun) {
                log_sent(lane, claimed, *tries);
            }
        }
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
                Some((system, which, heard)) = self.line_changes.recv() => {
                    if self.line_of.get(&system) == Some(&which) {
                        match heard {
                            Heard::Line(line) => self.line_changed(system, line),
                            Heard::Stir => self.told.push_back(Happening::Stir(system)),
                        }
                    }
                }
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

    /// The job at work under this id, if it is.
    #[must_use]
    pub fn at_work(&self, job_id: JobId) -> Option<&Job> {
        self.at_work.values().map(|at_work| &at_work.claimed.job).find(|job| job.job_id == job_id)
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

    /// What of a lane its driver does not want to have work at present.
    fn resting_in(&self, lane: &LaneName) -> Vec<Resting> {
        let driver = self.lanes.system_of(lane).and_then(|system| self.drivers.get(system));
        let all = driver.map(|driver| driver.rests()).unwrap_or_default();
        all.into_iter().filter(|resting| resting.lane == *lane).collect()
    }

    fn rests_for(&self, order: &Order, lane: &LaneName) -> bool {
        let encoder = order.encoder();
        encoder.is_some() && self.resting_in(lane).iter().any(|resting| resting.encoder.as_ref() == encoder)
    }

    /// Holds a lane back as long as its driver wants it to, and lets it go when that is over.
    fn hold_as_wished(&mut self, lane: &LaneName) {
        let whole = self.resting_in(lane).into_iter().filter(|resting| resting.encoder.is_none());
        let held = whole.max_by_key(|resting| resting.until);
        if self.lanes.hold(lane, held.map(|Resting { until, why, .. }| Rest { until, why })) {
            self.told.push_back(Happening::LinesChanged);
        }
    }

    fn reserve(&mut self, lane: &LaneName) -> bool {
        // What a driver says of a lane at work is for the case that this work is dropped: that is no rest yet.
        if !self.lanes.is_busy(lane) {
            self.hold_as_wished(lane);
        }
        let drivers = &self.drivers;
        let may_begin = !self.stopping && self.held_until.is_none();
        may_begin && self.lanes.reserve(lane, Instant::now(), |system| is_ready(drivers, system))
    }

    /// What a lane should be given next.
    fn wish_of(&self, lane: &LaneName) -> Wish {
        let now = Instant::now();
        let is_stuck = |other: &LaneView<'_>| {
            other.name != lane
                && (other.paused
                    || other.rest.is_some_and(|rest| rest.until > now)
                    || self.lines.get(other.system) != Some(&Line::Ready))
        };
        let stuck = self.lanes.iter().filter(is_stuck).map(|lane| lane.name);
        let stuck = stuck.chain(self.lanes.gone()).cloned().collect();
        let of_encoder =
            |resting: Resting| Some((resting.encoder?, resting.until.saturating_duration_since(now)));
        let resting = self.resting_in(lane).into_iter().filter_map(of_encoder).collect();
        Wish { background: self.lanes.owes_background(lane), stuck, resting }
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

    /// Asks the queue for a lane's next job, if the lane may take one. A job that stands aside for the lane, and whose
    /// pause is over, goes first.
    fn ask(&mut self, lane: &LaneName) {
        if self.prove_next(lane) || !self.reserve(lane) {
            return;
        }
        if let Some(job_id) = self.aside_for(lane) {
            let Aside { lane, claimed, tries, .. } =
                self.aside.remove(&job_id).expect("it was found there just now");
            self.begin(lane, claimed, tries);
            return;
        }
        let (wish, now) = (self.wish_of(lane), self.time.now());
        let (lane, name) = (lane.clone(), lane.clone());
        let answer = self.queue.submit_soon(move |queue: &mut Queue| next_job(queue, now, &name, &wish));
        self.answers.push(Box::pin(async move { Answer::Claimed { lane, result: answered(answer).await } }));
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Accepted { job_id, position, lane, reserved, has_timer, result, reply } => {
                let stage = match &result {
                    Ok(Accepted::Waiting) => Some(Stage::Queued),
                    Ok(Accepted::Unconfirmed) => Some(Stage::WaitingForConfirmation),
                    _ => None,
                };
                self.told.extend(stage.map(|stage| Happening::Progress { job_id, stage }));
                if has_timer {
                    self.next_due = Some(Timestamp::MIN);
                }
                if let Some(reply) = reply {
                    // Whoever asked may have gone.
                    let _ = reply.send(result.as_ref().map(Clone::clone).map_err(told));
                }
                self.accepted(position, lane, reserved, result);
            }
            Answer::Refused { position, result } => match result {
                Ok(()) => self.told.extend([Happening::Held(position), Happening::Reports]),
                Err(error) => self.not_stored(&error),
            },
            Answer::Cancelled { position, job_id, result, reply } => {
                if let Some(reply) = reply {
                    let _ = reply.send(result.as_ref().map(|answer| *answer).map_err(told));
                }
                self.cancelled(position, job_id, result);
            }
            Answer::Claimed { lane, result } => match result {
                Ok(next) => self.go_on(lane, next),
                Err(error) => {
                    self.lanes.free(&lane, Some(Instant::now() + STORE_AGAIN));
                    self.told.push_back(Happening::StoreFailed { why: error.chain() });
                }
            },
            Answer::Settled { lane, end, result } => match result {
                Ok(next) => {
                    self.taken_back.remove(&end.job_id);
                    let is_lost = |why: &Refusal| why.code == Code::NoStayToJoin;
                    if matches!(&end.performed, Performed::Ended(Outcome::Failed(why)) if is_lost(why)) {
                        self.told.push_back(Happening::RoomChangedElsewhere);
                    }
                    if matches!(end.performed, Performed::NothingSent(_)) {
                        // It waits again, and its deadline with it.
                        self.next_expiry = Some(Timestamp::MIN);
                    }
                    if end.has_timer {
                        self.next_due = Some(Timestamp::MIN);
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
            Answer::Recorded { end, result } => match result {
                Ok(()) => {
                    self.taken_back.remove(&end.job_id);
                    self.next_due = Some(Timestamp::MIN);
                    self.told.push_back(Happening::Reports);
                }
                Err(error) => {
                    tracing::error!(job = %end.job_id, error = error.chain(), "an outcome could not be stored yet");
                    self.told.push_back(Happening::StoreFailed { why: error.chain() });
                    self.record_aside(*end, STORE_AGAIN);
                }
            },
            Answer::Due(Ok((lanes, next))) => {
                self.next_due = self.next_due.into_iter().chain(next).min();
                for lane in lanes {
                    self.ask(&lane);
                }
            }
            Answer::Due(Err(error)) => {
                self.next_due = Some(self.time.now().saturating_add(STORE_AGAIN).unwrap_or(Timestamp::MAX));
                self.told.push_back(Happening::StoreFailed { why: error.chain() });
            }
            Answer::Wished { ask, queued, failed } => {
                if let Some(why) = failed {
                    self.told.push_back(Happening::StoreFailed { why });
                }
                // Doubts may have been settled, jobs ended, timers made.
                self.look_again();
                self.told.extend([Happening::Reports, Happening::LinesChanged]);
                self.told.extend(queued.map(|job_id| Happening::Progress { job_id, stage: Stage::Queued }));
                for lane in ask {
                    self.ask(&lane);
                }
            }
            Answer::Expired(Ok((ended, next))) => {
                // What was asked for meanwhile stands.
                self.next_expiry = self.next_expiry.into_iter().chain(next).min();
                if !ended.is_empty() {
                    self.next_due = Some(Timestamp::MIN);
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

    fn accepted(
        &mut self,
        position: Option<Position>,
        lane: Option<LaneName>,
        reserved: bool,
        result: Result<Accepted, StoreError>,
    ) {
        let reserved = lane.clone().filter(|_| reserved);
        match result {
            Ok(Accepted::Sent(claimed)) => {
                let lane = lane.expect("a job is sent to the lane it was admitted to");
                self.begin(lane, claimed, 0);
            }
            Ok(Accepted::Waiting) => {
                self.next_expiry = Some(Timestamp::MIN);
                match (reserved, lane) {
                    (Some(reserved), _) => self.ask_again(&reserved),
                    (None, Some(lane)) => self.ask(&lane),
                    (None, None) => {}
                }
            }
            Ok(Accepted::Unconfirmed) => {
                tracing::info!("an order waits until a person at the site confirms it");
                self.next_expiry = Some(Timestamp::MIN);
                if let Some(lane) = &reserved {
                    self.ask_again(lane);
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
                if position.is_some() {
                    self.not_stored(&error);
                } else {
                    self.told.push_back(Happening::StoreFailed { why: error.chain() });
                }
                return;
            }
        }
        self.told.extend(position.map(Happening::Held));
    }

    fn cancelled(
        &mut self,
        position: Option<Position>,
        job_id: JobId,
        result: Result<CancelAnswer, StoreError>,
    ) {
        match result {
            Ok(answer) => {
                match answer {
                    CancelAnswer::Cancelled => tracing::info!(job = %job_id, "job cancelled"),
                    CancelAnswer::TooLate(state) => {
                        tracing::info!(job = %job_id, %state, "too late to cancel");
                        if state == JobState::Sent {
                            self.take_back(job_id);
                        }
                    }
                    CancelAnswer::NotKnown => tracing::info!(job = %job_id, "cancelled before it arrived"),
                }
                self.next_due = Some(Timestamp::MIN);
                self.told.extend(position.map(Happening::Held));
                self.told.push_back(Happening::Reports);
            }
            Err(error) if position.is_some() => self.not_stored(&error),
            Err(error) => self.told.push_back(Happening::StoreFailed { why: error.chain() }),
        }
    }

    fn begin(&mut self, lane: LaneName, claimed: Claimed, tries: u32) {
        let job = &claimed.job;
        let Some(driver) = self.drivers.get(&job.system).map(Arc::clone) else {
            // Its system was taken out of the configuration while the queue was asked.
            let why =
                Refusal::new(Code::SystemUnknown, format!("this site has no system {} any more", job.system));
            self.settle(lane, End::of(job, Performed::NothingSent(why)), Duration::ZERO);
            return;
        };
        self.lanes.begin(&lane, job.job_id);
        self.lanes.had_turn(&lane, job.priority);
        self.told.push_back(Happening::Progress { job_id: job.job_id, stage: Stage::Sent });
        let work = work(&claimed);
        let (job_id, progress) = (job.job_id, self.tell_progress.clone());
        let running = self.running.spawn(seams::task(async move {
            let sink = move |stage| {
                // The dispatcher may be gone; screens are the only ones who miss it.
                let _ = progress.send((job_id, stage));
            };
            Came::Performed(driver.perform(work, &sink).await)
        }));
        let asked = Asked::ToPerform;
        self.begun.push(running.id());
        self.at_work.insert(running.id(), AtWork { lane, claimed, tries, asked });
    }

    /// Asks a job's driver what became of it, if its lane is free; else that waits for its lane.
    fn prove_at_start(&mut self, lane: LaneName, claimed: Claimed) {
        if !self.lanes.has(&lane) || !self.drivers.contains_key(&claimed.job.system) {
            // Nobody is left who could be asked.
            let end = Performed::Ended(stopped_at_work());
            self.record_aside(End::of(&claimed.job, end), Duration::ZERO);
        } else if self.lanes.take(&lane, claimed.job.job_id) {
            self.prove(lane, claimed, 0, Asked::ForProofAtStart);
        } else {
            self.to_prove.push_back((lane, claimed));
        }
    }

    /// Says whether a lane is taken by a job of the time before the start.
    fn prove_next(&mut self, lane: &LaneName) -> bool {
        let Some(place) = self.to_prove.iter().position(|(waiting, _)| waiting == lane) else {
            return false;
        };
        if let Some((lane, claimed)) = self.to_prove.remove(place) {
            self.prove_at_start(lane, claimed);
        }
        true
    }

    /// Has a driver look for proof of what became of a job; the lane is the job's meanwhile.
    fn prove(&mut self, lane: LaneName, claimed: Claimed, tries: u32, asked: Asked) {
        let driver = Arc::clone(&self.drivers[&claimed.job.system]);
        self.lanes.begin(&lane, claimed.job.job_id);
        let work = work(&claimed);
        let running = self.running.spawn(seams::task(async move {
            let proof = tokio::time::timeout(PROOF_WITHIN, driver.prove(&work)).await;
            Came::Proof(proof.unwrap_or(Proof::None))
        }));
        self.at_work.insert(running.id(), AtWork { lane, claimed, tries, asked });
    }

    fn performed(&mut self, done: Result<(Id, Came), tokio::task::JoinError>) {
        let (id, came) = match done {
            Ok(done) => done,
            Err(error) => {
                let doubt =
                    Outcome::unknown(Code::AgentStopped, "the driver broke down at work; read the card");
                tracing::error!(error = %error, "a driver panicked; its lane goes on");
                (error.id(), Came::Performed(Performed::Ended(doubt)))
            }
        };
        let AtWork { lane, claimed, tries, asked } =
            self.at_work.remove(&id).expect("every task was put to work here");
        let job_id = claimed.job.job_id;
        let performed = match (came, asked) {
            (Came::Performed(Performed::MayRepeat(why)), _) if claimed.job.order.kind().is_repeatable() => {
                self.note_reached(&lane, &why);
                return self.put_aside(lane, claimed, tries, why);
            }
            // An earlier try under the same mark may have been done.
            (Came::Performed(Performed::NothingSent(why)), _) if tries > 0 => {
                self.note_reached(&lane, &why);
                return self.put_aside(lane, claimed, tries, why);
            }
            // That this try was refused says nothing of the earlier one. What only reads changed nothing.
            (Came::Performed(Performed::Ended(Outcome::Failed(why))), Asked::ToPerform)
                if tries > 0 && has_timer(&claimed.job.order) =>
            {
                if self.stopping {
                    // Still `sent`: the next start asks.
                    return;
                }
                if self.drivers.contains_key(&claimed.job.system) {
                    tracing::info!(
                        job = %job_id, error = %why,
                        "refused after an earlier try that may have been done; its driver looks for proof"
                    );
                    return self.prove(lane, claimed, tries, Asked::ForProof(why));
                }
                Performed::Ended(Outcome::Unknown(why))
            }
            // A driver that says so of what must not be repeated is mistaken.
            (Came::Performed(Performed::MayRepeat(why)), _) => Performed::Ended(Outcome::Unknown(why)),
            (Came::Performed(Performed::Ended(Outcome::Unknown(why))), Asked::ToPerform)
                if self.drivers.contains_key(&claimed.job.system) && !self.stopping =>
            {
                tracing::info!(job = %job_id, error = %why, "the end of the job is not known; its driver looks for proof");
                return self.prove(lane, claimed, tries, Asked::ForProof(why));
            }
            (Came::Performed(performed), _) => performed,
            (Came::Proof(Proof::Done(success)), _) => {
                tracing::info!(job = %job_id, "the device proves that the job was done");
                Performed::Ended(Outcome::Succeeded(success))
            }
            (Came::Proof(Proof::NotDone(why)), _) => {
                tracing::info!(job = %job_id, error = %why, "the device proves that the job was not done");
                Performed::NothingSent(why)
            }
            // It may not have been looked for to the end: the next start asks again.
            (Came::Proof(Proof::None), _) if self.stopping => return,
            (Came::Proof(Proof::None), Asked::ForProof(why)) => Performed::Ended(Outcome::Unknown(why)),
            (Came::Proof(Proof::None), _) if claimed.job.order.kind().is_repeatable() => {
                let why = Refusal::new(
                    Code::AgentStopped,
                    "the agent stopped while the job was at work; it is done again",
                );
                return self.put_aside(lane, claimed, tries, why);
            }
            (Came::Proof(Proof::None), _) => Performed::Ended(stopped_at_work()),
        };
        match &performed {
            Performed::Ended(outcome) => {
                log_outcome(job_id, outcome);
                match outcome.reason().filter(|why| why.code.is_unreachable()) {
                    Some(why) => self.note_reached(&lane, why),
                    None => {
                        if self.lanes.reached(&lane) {
                            self.told.push_back(Happening::LinesChanged);
                        }
                    }
                }
            }
            Performed::NothingSent(why) | Performed::MayRepeat(why) => {
                tracing::warn!(job = %job_id, error = %why, "nothing was sent; the job waits again");
                self.note_reached(&lane, why);
            }
        }
        self.hold_as_wished(&lane);
        self.lanes.reserve_again(&lane);
        self.settle(lane, End::of(&claimed.job, performed), Duration::ZERO);
        // A rest may have ended with it.
        for other in self.lanes.held_of(&claimed.job.system) {
            self.ask(&other);
        }
    }

    /// Counts failures to reach a lane's device.
    fn note_reached(&mut self, lane: &LaneName, why: &Refusal) {
        if !why.code.is_unreachable() {
            return;
        }
        if let Some(rest) = self.lanes.not_reached(lane, Instant::now(), why) {
            tracing::warn!(lane = %lane, ?rest, error = %why, "the device cannot be reached; its lane rests");
            self.told.push_back(Happening::LinesChanged);
        }
    }

    /// Keeps a job that may be repeated until its pause is over, and gives its lane to others meanwhile.
    fn put_aside(&mut self, lane: LaneName, mut claimed: Claimed, tries: u32, why: Refusal) {
        // What it puts may be there from now on.
        if let (Order::SlotPut(put), Some(slot)) = (&claimed.job.order, &mut claimed.slot) {
            slot.tried(&put.content);
        }
        let job = &claimed.job;
        tracing::warn!(job = %job.job_id, lane = %lane, tries, error = %why, "the job is tried again after a pause");
        if job.expires_at <= self.time.now() {
            self.lanes.reserve_again(&lane);
            let end = End::of(job, Performed::Ended(too_late(job, why)));
            return self.settle(lane, end, Duration::ZERO);
        }
        if self.taken_back.contains(&job.job_id) && job.order.kind().is_reading() {
            self.lanes.reserve_again(&lane);
            // Nothing was changed, so it is as if nothing had been sent: the queue ends it cancelled.
            let end = End::of(job, Performed::NothingSent(why));
            return self.settle(lane, end, Duration::ZERO);
        }
        let tries = tries.saturating_add(1);
        let at = Instant::now() + spread(policy::backoff(tries), job.job_id, tries);
        self.aside.insert(job.job_id, Aside { lane: lane.clone(), claimed, tries, at, is_ready: false, why });
        self.lanes.reserve_again(&lane);
        self.free(&lane, None);
        self.ask(&lane);
    }

    /// A job is to be taken back that is at work or stands aside. One that only looks ends before it is tried again.
    fn take_back(&mut self, job_id: JobId) {
        self.taken_back.insert(job_id);
        if self.aside.get(&job_id).is_some_and(|aside| aside.claimed.job.order.kind().is_reading())
            && let Some(Aside { claimed, why, .. }) = self.aside.remove(&job_id)
        {
            self.record_aside(End::of(&claimed.job, Performed::NothingSent(why)), Duration::ZERO);
        }
    }

    /// The job that stands aside for a lane and may be tried again.
    fn aside_for(&self, lane: &LaneName) -> Option<JobId> {
        let ready = self.aside.iter().filter(|(_, aside)| aside.lane == *lane && aside.is_ready);
        ready.min_by_key(|(_, aside)| aside.at).map(|(job_id, _)| *job_id)
    }

    /// Makes the end of a job durable that has no lane at present.
    fn record_aside(&mut self, end: End, after: Duration) {
        let (queue, time) = (self.queue.clone(), self.time.clone());
        self.answers.push(Box::pin(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            let (now, work) = (time.now(), end.clone());
            let answer = queue.submit(move |queue: &mut Queue| record(queue, now, work));
            Answer::Recorded { end: Box::new(end), result: answered(answer).await }
        }));
    }

    /// Makes the end of a job durable, and asks for the lane's next one in the same commit.
    fn settle(&mut self, lane: LaneName, end: End, after: Duration) {
        let (queue, time) = (self.queue.clone(), self.time.clone());
        // Later the lane may be paused, its driver gone: then it is asked when the end is stored, by what is so then.
        let may_ask = after.is_zero()
            && !self.stopping
            && self.held_until.is_none()
            && is_ready(&self.drivers, &end.system)
            && self.lanes.may_go_on(&lane, Instant::now())
            && self.aside_for(&lane).is_none()
            && !self.to_prove.iter().any(|(waiting, _)| *waiting == lane);
        let wish = self.wish_of(&lane);
        let work = (lane.clone(), end.clone());
        let end = Box::new(end);
        let submit = move || {
            let (lane, end) = work;
            let now = time.now();
            queue.submit_soon(move |queue: &mut Queue| {
                record(queue, now, end.clone())?;
                if may_ask { next_job(queue, now, &lane, &wish) } else { Ok(NextJob::NONE) }
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
        self.next_due = self.next_due.into_iter().chain(next.next_due).min();
        match next.claimed {
            Some(claimed) => self.begin(lane, claimed, 0),
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
        let now = Instant::now();
        let until = |at: Timestamp| {
            let wait = at.duration_since(self.time.now());
            Duration::try_from(wait).unwrap_or(Duration::ZERO).min(LOOK_AGAIN)
        };
        let asides = self.aside.values().map(|aside| {
            let deadline = until(aside.claimed.job.expires_at);
            if aside.is_ready { deadline } else { deadline.min(aside.at.saturating_duration_since(now)) }
        });
        let instants = self.lanes.next_retry(now).into_iter().chain(self.held_until);
        let waits = instants.map(|at| at.saturating_duration_since(now)).chain(asides);
        let next_expiry = self.next_expiry.filter(|_| self.held_until.is_none());
        waits.chain(next_expiry.map(until)).chain(self.next_due.map(until)).min()
    }

    /// Deadlines and timers may have changed.
    pub(crate) fn look_again(&mut self) {
        self.next_expiry = Some(Timestamp::MIN);
        self.next_due = Some(Timestamp::MIN);
    }

    fn woken(&mut self) {
        let now = self.time.now();
        if now < self.looked_at {
            // What was planned by a clock that was ahead is planned anew.
            self.look_again();
        }
        self.looked_at = now;
        // What is held may have been done from a memory that is gone: the cloud's word comes before a deadline's.
        if self.held_until.is_none() && self.next_expiry.is_some_and(|at| at <= now) {
            // Asked once; the answer says when to ask again.
            self.next_expiry = None;
            let trouble = |(system, line): (&SystemName, &Line)| match line {
                Line::Down(trouble) => Some((system.clone(), trouble.message.clone())),
                Line::Opening | Line::Ready => None,
            };
            let rests = |lane: LaneView<'_>| {
                let why = match (lane.paused, lane.rest.or(lane.held)) {
                    (true, _) => format!("lane {} is paused (`latchd lanes resume`)", lane.name),
                    (false, Some(rest)) => rest.why.message.clone(),
                    (false, None) => return None,
                };
                Some((lane.name.clone(), why))
            };
            let troubles = Troubles {
                systems: self.lines.iter().filter_map(trouble).collect(),
                lanes: self.lanes.iter().filter_map(rests).collect(),
            };
            let answer = self.queue.submit(move |queue: &mut Queue| {
                Ok((queue.expire_for(now, &troubles)?, queue.next_expiry()?))
            });
            self.answers.push(Box::pin(async move { Answer::Expired(answered(answer).await) }));
        }
        if self.next_due.is_some_and(|at| at <= now) {
            self.next_due = None;
            let answer =
                self.queue.submit(move |queue: &mut Queue| Ok((queue.come_due(now)?, queue.next_due()?)));
            self.answers.push(Box::pin(async move { Answer::Due(answered(answer).await) }));
        }
        let instant = Instant::now();
        if self.held_until.is_some_and(|at| at <= instant) {
            self.hold_no_more();
        }
        let late = self.aside.iter().filter(|(_, aside)| aside.claimed.job.expires_at <= now);
        let late: Vec<_> = late.map(|(job_id, _)| *job_id).collect();
        for job_id in late {
            if let Some(Aside { claimed, why, .. }) = self.aside.remove(&job_id) {
                let outcome = too_late(&claimed.job, why);
                log_outcome(job_id, &outcome);
                self.record_aside(End::of(&claimed.job, Performed::Ended(outcome)), Duration::ZERO);
            }
        }
        let mut lanes: BTreeSet<_> = self.lanes.due(instant).into_iter().collect();
        for aside in self.aside.values_mut().filter(|aside| !aside.is_ready && aside.at <= instant) {
            aside.is_ready = true;
            lanes.insert(aside.lane.clone());
        }
        for lane in lanes {
            self.ask(&lane);
        }
    }

    fn ask_all(&mut self) {
        for lane in self.lanes.names() {
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
    let End { job_id, system, performed, .. } = end;
    match performed {
        Performed::NothingSent(why) => queue.unsend(now, job_id, &why),
        // Never recorded: such a job stands aside.
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

fn next_job(queue: &mut Queue, now: Timestamp, lane: &LaneName, wish: &Wish) -> Result<NextJob, StoreError> {
    let claimed = queue.claim_as(now, lane, wish)?;
    let retry_at = if claimed.is_none() { queue.next_retry(lane)? } else { None };
    Ok(NextJob { claimed, retry_at, next_due: queue.next_due()?, asked: true })
}

fn admit(
    drivers: &BTreeMap<SystemName, Arc<dyn Driver>>,
    system: &SystemName,
    order: &Order,
) -> Result<Admission, Refusal> {
    let Some(driver) = drivers.get(system) else {
        let known: Vec<_> = drivers.keys().map(SystemName::as_str).collect();
        return Err(Refusal::new(
            Code::SystemUnknown,
            format!("this site has no system {system}; it has: {}", known.join(", ")),
        ));
    };
    driver.admit(order)
}

fn work(claimed: &Claimed) -> Work {
    let Claimed { job, treatment, to_see, slot, .. } = claimed;
    let (order, to_see) = (job.order.clone(), to_see.clone());
    Work { job_id: job.job_id, order, treatment: *treatment, to_see, slot: slot.clone() }
}

/// Whether a job's arrival or end may set or end a timer.
fn has_timer(order: &Order) -> bool {
    matches!(order.kind(), Kind::SlotPut | Kind::SlotRemove)
}

/// How a job ends whose deadline came while it was tried again and again. Reading changes nothing, so that it was not
/// done is certain.
fn too_late(job: &Job, why: Refusal) -> Outcome {
    match job.order.kind() {
        Kind::SlotPut | Kind::SlotRemove => Outcome::Unknown(why),
        _ => Outcome::Failed(why),
    }
}

/// A pause and up to a quarter more, so that jobs that failed together do not come back in step. The spread is the
/// job's own: its id is random.
fn spread(pause: Duration, job_id: JobId, tries: u32) -> Duration {
    let bits = job_id.0.as_u128().rotate_left(tries.wrapping_mul(7)) as u64;
    let quarter = u64::try_from(pause.as_millis() / 4).unwrap_or(u64::MAX).max(1);
    pause + Duration::from_millis(bits % quarter)
}

/// An error for whoever asked; the dispatcher itself has the original.
fn told(error: &StoreError) -> StoreError {
    StoreError::Commit(error.chain())
}

async fn answered<T>(
    answer: impl Future<Output = Result<Result<T, StoreError>, oneshot::error::RecvError>>,
) -> Result<T, StoreError> {
    answer.await.unwrap_or(Err(StoreError::Stopped))
}

async fn until(wake: Option<Duration>) {
    match wake {
        // At once, not at the timer's next tick: whoever drops the future again and again must not put off what is due.
        Some(Duration::ZERO) => {}
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

fn log_sent(lane: &LaneName, claimed: &Claimed, tries: u32) {
    let Claimed { job, treatment, attempt, to_see: _, slot: _ } = claimed;
    tracing::info!(
        job = %job.job_id, lane = %lane, kind = job.order.kind().as_str(), ?treatment, attempt, tries, "job sent"
    );
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
