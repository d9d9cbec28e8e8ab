//! The agent's memory: jobs and their states, the door ledger, and the reports on their way to the cloud.
//!
//! # What it must hold
//! A job is never lost, never silently done twice, never reported as something that did not happen. So the queue
//! follows three rules. *Nothing is acknowledged before it is durable.* *No byte leaves before the mark `sent` is
//! durable*, together with what the job does to the rooms it touches; a crash after the mark makes the job `unknown`.
//! *A job's end, its ledger rows and its report are one transaction.*
//!
//! # How it is used
//! [`Queue`] is a synchronous struct without threads; time comes in as `now`. Its methods run inside the transaction
//! that [`crate::store::Writer`] opened and never begin or commit one, so several of them share a sync. On an idle
//! lane [`Queue::accept`] stores a job, decides the treatment of its rooms and marks it `sent` at once: one sync lies
//! between arrival and first byte, and [`Queue::finish`] takes the second and last. A report that was acknowledged is
//! deleted along with some later change, never in a commit of its own.
//!
//! What most operations of a transaction change alike, the streams' positions and the tally, is kept in memory until its
//! end and written once: whoever ends one does it with [`Store::commit`], and says so with [`Store::undone`] when it was
//! rolled back.
//!
//! # Rows
//! `job` holds orders and outcomes, sealed; its index `job_waiting` is the order in which a lane is worked off, with
//! jobs that may not be sent yet behind all that may. `report` is the outbox, numbered as its stream is. `room`
//! and `stay` are the door ledger: whose stay a room follows, and which reservations began one since it was last
//! free. `slot` says which order decides each slot of a device and what may be in it. `tally` counts, so that nothing
//! else ever has to. `audit` says what the site refused and who decided what. `desired_grant` is what the cloud wants of
//! the site, for a desk that has to go on without it, and `desk_fact` what that desk did to grants. `door_event` and
//! `door_read` are what devices remember of their doors, as far as it was read and is not in the outbox, and
//! `door_event_id` is what it is known by.
//!
//! # Timers are jobs
//! A `slot.put` whose time has not come stands in the queue with `due_at`; what may be in a slot has a removal of the
//! agent's own standing there from then on. Nothing has to be remembered beside the rows, so a restart forgets no timer,
//! and a clock that jumps only changes when the next look finds them due. What was found due waits again if the clock
//! proves to have been ahead before it was sent.
//!
//! This room sees no driver, no network and no task.

mod barred;
mod cards;
mod codes;
mod confirm;
mod desired;
mod doors;
mod facts;
mod import;
mod lanes;
mod ledger;
mod limits;
mod made;
mod outbox;
mod owed;
mod people;
pub mod policy;
mod restore;
mod retry;
mod slots;
mod store;
#[cfg(test)]
mod testing;
mod view;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

pub use barred::{Barred, BarredRemoval};
pub use cards::{CardStanding, DeskCard, DeskRefused};
pub use codes::{CodeStanding, CodeState, DeskCode};
pub use confirm::{ConfirmRefused, Unconfirmed};
pub use desired::DesiredHeld;
pub use doors::{DOOR_EVENTS_KEPT, HandedOn};
pub use import::Imported;
pub use lanes::LanePause;
pub use made::{Changed, DeskGrant, GrantRefused};
pub use outbox::Resumed;
pub use restore::Restored;
pub use retry::RetryRefused;
pub use view::{AuditEntry, Counts, JobDetail, JobFilter, JobView, QueueReader, SlotView};

use self::{
    ledger::{Door, Settled},
    owed::Owed,
    policy::Event,
    restore::SetBack,
    slots::{Ordered, Taken},
    store::Row,
};
use crate::{
    config::{AgentConfig, Limits, SystemConfig},
    model::{
        Admission, CardFacts, CardSeen, Code, DoorName, EncoderName, Job, JobId, JobState, Kind, LaneName,
        LocalCard, LocalJob, Order, Origin, Outcome, Refusal, Report, Resolution, RoomState, SlotNow,
        StayCards, Success, SystemName, Treatment, Verdict, Written,
    },
    protocol::{Ordered as OrderedJob, Position, stream},
    seal::SealKey,
    seams::{Random, Storage},
    store::{Store, StoreError},
};

/// The database's file name.
pub const FILE: &str = "queue.db";

/// Schema steps; a released one is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("queue.sql"),
    include_str!("second.sql"),
    include_str!("third.sql"),
    include_str!("fourth.sql"),
    include_str!("fifth.sql"),
    include_str!("job_card.sql"),
    include_str!("doors.sql"),
    include_str!("set_back.sql"),
    include_str!("codes.sql"),
    include_str!("door_ids.sql"),
    include_str!("set_back_latest.sql"),
];

/// The schema of this version.
pub const SCHEMA: u32 = MIGRATIONS.len() as u32;

/// How long a job waits for another one in the same room, slot or reservation. Cards take seconds, so a person hardly
/// notices.
const AT_WORK: SignedDuration = SignedDuration::from_secs(1);
/// No pause between two attempts is longer. A later one was written under a clock that has since been put back.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Jobs that one call of [`Queue::expire`] ends, so that no commit is held up.
const EXPIRED_AT_ONCE: usize = 256;

/// SQLite's own cache of pages, in KiB (negative, so that it means KiB and not pages): a job touches a dozen pages of four,
/// and the system caches the file besides.
const CACHE: i32 = -512;

/// What the site's configuration says about jobs.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// What the site allows, whoever asks.
    pub limits: Limits,
    /// Who makes cards on each system.
    pub systems: BTreeMap<SystemName, Sharing>,
    /// Systems whose devices number the places that slots have.
    pub numbered: BTreeSet<SystemName>,
}

impl From<&AgentConfig> for Rules {
    fn from(config: &AgentConfig) -> Self {
        let sharing = |system: &SystemConfig| (system.name.clone(), Sharing::from(system));
        let name = |system: &SystemConfig| system.name.clone();
        Self {
            limits: config.limits.clone(),
            systems: config.systems.iter().map(sharing).collect(),
            numbered: config
                .systems
                .iter()
                .filter(|system| system.driver.numbers_places())
                .map(name)
                .collect(),
        }
    }
}

/// Who makes cards on a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Only this agent.
    Exclusive,
    /// Others may, but the site wants the ledger trusted all the same; every such join is audited.
    AssumeUnchanged,
    /// Others do, and before a join the driver sees in the lock system's own list whether the stay goes on.
    Listed,
    /// Others do: a join needs proof.
    Shared,
}

impl From<&SystemConfig> for Sharing {
    fn from(system: &SystemConfig) -> Self {
        match (system.exclusive, system.assume_unchanged) {
            (true, _) => Self::Exclusive,
            (false, true) => Self::AssumeUnchanged,
            (false, false) if system.driver.lists_cards() => Self::Listed,
            (false, false) => Self::Shared,
        }
    }
}

/// What the agent remembers of both streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The last order it holds.
    pub orders_received: Position,
    /// What it has sent of reports.
    pub reports: stream::Sent,
}

/// A job that was made at the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalOrder {
    /// The job. One that is known already is the same job.
    pub job: Job,
    /// Who wants it.
    pub origin: Origin,
    /// The job whose place it takes.
    pub retries: Option<JobId>,
}

/// What a lane wishes for next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// A job that nobody stands and waits for, if there is one: the desk has had its turns.
    pub background: bool,
    /// Lanes that get no work at present. What waits there holds up no later job of its reservation.
    pub stuck: BTreeSet<LaneName>,
    /// Encoders of the lane that get no work at present, and for how long. What waits for one steps back.
    pub resting: BTreeMap<EncoderName, Duration>,
}

/// What keeps jobs from being begun, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Troubles {
    /// Of whole systems.
    pub systems: BTreeMap<SystemName, String>,
    /// Of single lanes.
    pub lanes: BTreeMap<LaneName, String>,
}

/// What a dispatcher has to know of the time before it started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// Jobs that were at work, with their lanes.
    pub in_doubt: Vec<(LaneName, Claimed)>,
    /// Those of them that were to be taken back.
    pub taken_back: BTreeSet<JobId>,
    /// Lanes that a person has paused.
    pub paused: Vec<LanePause>,
    /// Lanes in which jobs wait.
    pub lanes: BTreeSet<LaneName>,
    /// Whether jobs wait.
    pub waiting: bool,
}

/// What became of a job that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It is held already; nothing was done.
    Duplicate,
    /// It was refused, or came too late; its outcome is in the outbox.
    Ended(Outcome),
    /// It stands in its lane, to be claimed.
    Waiting,
    /// It waits until a person at the site confirms or declines it.
    Unconfirmed,
    /// It is marked `sent`: once this is committed, bytes may leave.
    Sent(Claimed),
}

/// A job that is marked `sent`, with all that its driver needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The job.
    pub job: Job,
    /// What its card does to its rooms.
    pub treatment: Treatment,
    /// Which mark this is, counted from 1.
    pub attempt: u32,
    /// What its driver has to see before it writes.
    pub to_see: Option<StayCards>,
    /// What is known of the slot that it is about.
    pub slot: Option<SlotNow>,
}

/// What came of taking a job back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAnswer {
    /// Nothing had been sent, and nothing will be.
    Cancelled,
    /// It stood here already. A job that is `sent` still ends cancelled if nothing of it proves to have been written, or
    /// if it only looks and did not get to see anything.
    TooLate(JobState),
    /// No such job; one that arrives later under this id is not done.
    NotKnown,
}

/// Why a doubt cannot be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveRefused {
    /// No such job.
    #[error("there is no such job")]
    NotKnown,
    /// There is no doubt about it.
    #[error("only a job that is unknown can be resolved; this one is {0}")]
    NotInDoubt(JobState),
    /// The doubt was settled before.
    #[error("the job was resolved before; it is {0} now")]
    Resolved(JobState),
}

/// The agent's queue.
#[derive(Debug)]
pub struct Queue {
    connection: Connection,
    seal: SealKey,
    random: Random,
    rules: Rules,
    /// The last report whose acknowledgement arrived; its row may still be there.
    acknowledged: Position,
    /// The last report that a cloud can have heard of this memory: what it held when its cloud was met last or, if later,
    /// when it was opened first since then; and what was handed out since.
    handed_out: Position,
    /// Tells this opening from all others, up to when it parts from its cloud: what was heard of it before says nothing
    /// about what is numbered since.
    life: i64,
    cards_sent: Option<CardsSent>,
    /// Nothing new is taken. Removals of the agent's own are part of what ended and come all the same.
    disk_is_full: bool,
    /// The positions of both streams as they are to be, if they were looked up since anything was undone.
    memory: Cell<Option<Memory>>,
    owed: Owed,
}

impl Store for Queue {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn disk_is_full(&mut self, full: bool) {
        self.disk_is_full = full;
    }

    fn undone(&mut self) {
        self.cards_sent = None;
        self.memory.set(None);
        self.owed = Owed::default();
    }

    fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    fn settle_up(&mut self) -> Result<(), StoreError> {
        self.write_owed()
    }
}

/// How many cards were sent at most in the hour that ends at an instant, and since. An hour that ends later holds no other
/// cards, so they need not be counted again before this comes near the limit.
#[derive(Debug, Clone, Copy)]
struct CardsSent {
    at: Timestamp,
    most: u32,
}

/// How a job in doubt ended after all, by what settled it.
fn resolved(row: &Row, resolution: &Resolution) -> Outcome {
    match resolution.verdict {
        Verdict::Done => row.resolved_success(),
        Verdict::NotDone => Outcome::failed(
            row.code.unwrap_or(Code::Other),
            format!("{} says that it was not done", resolution.by),
        ),
    }
}

/// What came of trying to send a job.
enum Sending {
    Sent(Claimed),
    Ended(Outcome),
    /// Another job is at work in one of its rooms, or on its slot.
    AtWork,
    /// A person at the site has to confirm it first.
    Unconfirmed,
    /// The clock showed a later time when it was made ready.
    TooEarly(Timestamp),
}

impl Queue {
    /// Opens the queue and brings its schema up to date.
    ///
    /// # Errors
    /// See [`crate::store::open`].
    pub fn open(storage: &Storage, seal: SealKey, random: Random, rules: Rules) -> Result<Self, StoreError> {
        let mut queue = Self::around(crate::store::open(storage, FILE, MIGRATIONS)?, seal, random, rules)?;
        queue.note_earlier_cards()?;
        queue.note_earlier_door_events()?;
        Ok(queue)
    }

    fn around(
        connection: Connection,
        seal: SealKey,
        random: Random,
        rules: Rules,
    ) -> Result<Self, StoreError> {
        connection.pragma_update(None, "cache_size", CACHE)?;
        let (acknowledged, disk_is_full) = (Position::default(), false);
        let (cards_sent, memory, owed) = (None, Cell::default(), Owed::default());
        let handed_out = acknowledged;
        let life = i64::from_le_bytes(random.bytes());
        let mut queue = Self {
            connection,
            seal,
            random,
            rules,
            acknowledged,
            handed_out,
            life,
            cards_sent,
            disk_is_full,
            memory,
            owed,
        };
        let reports = queue.memory()?.reports;
        let n = queue.unmet_after()?.unwrap_or(reports.last.n);
        queue.handed_out = Position { n, ..reports.last };
        queue.acknowledged = Position { epoch: reports.last.epoch, n: reports.acknowledged };
        Ok(queue)
    }

    /// Takes a job that arrived. `position` is its place in the stream of orders, `admission` what its driver says of
    /// it, and `may_send` says that its lane is idle and its line open: then it is marked `sent` right away, unless
    /// other jobs of the lane wait.
    ///
    /// # Errors
    /// [`StoreError::Gap`] when something is missing before it, and those of the database.
    pub fn accept(
        &mut self,
        now: Timestamp,
        position: Option<Position>,
        job: Job,
        admission: Result<Admission, Refusal>,
        may_send: bool,
    ) -> Result<Accepted, StoreError> {
        if !self.take_order(now, position)? {
            return Ok(Accepted::Duplicate);
        }
        let order = LocalOrder { job, origin: Origin::Cloud, retries: None };
        self.accept_at(now, position, order, admission, may_send)
    }

    /// [`Queue::accept`] for a job that was made at the site: it has no place in the stream of orders.
    ///
    /// # Errors
    /// Those of the database.
    pub fn accept_local(
        &mut self,
        now: Timestamp,
        order: LocalOrder,
        admission: Result<Admission, Refusal>,
        may_send: bool,
    ) -> Result<Accepted, StoreError> {
        self.accept_at(now, None, order, admission, may_send)
    }

    fn accept_at(
        &mut self,
        now: Timestamp,
        position: Option<Position>,
        order: LocalOrder,
        admission: Result<Admission, Refusal>,
        may_send: bool,
    ) -> Result<Accepted, StoreError> {
        let LocalOrder { job, origin, retries } = order;
        let job_id = job.job_id;
        let arrived = self.arrived(job_id)?;
        if arrived.is_held {
            self.report_again(now, job_id)?;
            return Ok(Accepted::Duplicate);
        }
        if self.disk_is_full {
            return Err(StoreError::DiskFull);
        }
        // Whatever would be said of it today, it may have been done in its time.
        if origin == Origin::Cloud && self.may_be_forgotten(now, &OrderedJob::of(&job), &arrived.set_back)? {
            let mut row = self.received_row(job, admission.ok(), origin, retries, None)?;
            row.note_card();
            self.forget_cancelled_ahead(job_id)?;
            return self.end_in_doubt(now, &row);
        }
        let admission = match admission {
            Ok(admission) => admission,
            Err(refusal) => {
                let row = self.received_row(job, None, origin, retries, None)?;
                if arrived.is_cancelled {
                    return self.end_cancelled_ahead(now, &row);
                }
                return self.end_early(now, &row, Outcome::Failed(refusal));
            }
        };
        let not_before = due_at(&job.order, admission.lead);
        let due_at = not_before.filter(|due| *due > now);
        let lane = admission.lane.clone();
        let mut row = self.received_row(job, Some(admission), origin, retries, not_before)?;
        if arrived.is_cancelled {
            return self.end_cancelled_ahead(now, &row);
        }
        if origin == Origin::Cloud && self.is_overtaken_at_desk(now, row.job()?)? {
            return self.end_early(now, &row, Outcome::Superseded);
        }
        row.note_card();
        row.position = position;
        if let Some(outcome) = self.refuse(now, &row)? {
            return self.end_early(now, &row, outcome);
        }
        let is_held = self.lacks_confirmation(&row);
        let may_send = may_send && due_at.is_none() && !is_held && !self.has_ready(now, &lane)?;
        let is_later = may_send && self.ordered_before(&row, &BTreeSet::new())?.is_some();
        let may_send = may_send && !is_later;
        // Of those that a desk has emptied one waits for each slot, and what is taken back there is to go however much waits.
        let is_taken_back = origin == Origin::Person && row.job()?.order.kind() == Kind::SlotRemove;
        if !may_send
            && !is_taken_back
            && let Err(refusal) = self.has_room(arrived.waiting, due_at.is_some() || is_held)?
        {
            self.audit_refusal(now, job_id, &refusal)?;
            return self.end_early(now, &row, Outcome::Failed(refusal));
        }
        if is_held {
            self.hold(now, &row)?;
            return Ok(Accepted::Unconfirmed);
        }
        if self.order_slot(now, &mut row, &lane, due_at.is_some())? == Ordered::Older {
            return self.end_early(now, &row, Outcome::Superseded);
        }
        let mut retry_at = is_later.then(|| after(now, AT_WORK));
        if may_send {
            match self.send(now, &row)? {
                Sending::Sent(claimed) => return Ok(Accepted::Sent(claimed)),
                Sending::Ended(outcome) => return Ok(Accepted::Ended(outcome)),
                Sending::Unconfirmed => {
                    self.hold(now, &row)?;
                    return Ok(Accepted::Unconfirmed);
                }
                Sending::AtWork | Sending::TooEarly(_) => retry_at = Some(after(now, AT_WORK)),
            }
        }
        self.mark_queued(now, &row, due_at, retry_at)?;
        Ok(Accepted::Waiting)
    }

    /// Whether one more job may wait, beside `waiting` others of both kinds.
    fn has_room(&self, waiting: u64, is_scheduled: bool) -> Result<Result<(), Refusal>, StoreError> {
        let limits = &self.rules.limits;
        if is_scheduled {
            return Ok(match limits::one_more_scheduled(limits, waiting) {
                Err(_) => limits::one_more_scheduled(limits, self.scheduled(waiting)?),
                fits => fits,
            });
        }
        // Only so many as make the difference are counted.
        let beyond = (waiting + 1).saturating_sub(u64::from(limits.waiting_jobs));
        Ok(limits::one_more_waiting(limits, waiting - self.scheduled(beyond)?))
    }

    fn end_cancelled_ahead(&mut self, now: Timestamp, row: &Row) -> Result<Accepted, StoreError> {
        self.forget_cancelled_ahead(row.job_id)?;
        self.end_early(now, row, Outcome::Cancelled)
    }

    fn end_early(&mut self, now: Timestamp, row: &Row, outcome: Outcome) -> Result<Accepted, StoreError> {
        self.end(now, row, &outcome)?;
        Ok(Accepted::Ended(outcome))
    }

    /// Whether a job that this memory does not know may be one that was done: a cloud that was set back orders again what it
    /// has forgotten the end of. This side has purged it, if it comes too late, or was set back as well, after it was made.
    ///
    /// It is judged by when it was made alone. That the cloud never handed it out before is no proof: one that was put back
    /// and not told says so of what it has handed out since, and a memory that was set back as well cannot contradict it.
    fn may_be_forgotten(
        &self,
        now: Timestamp,
        job: &OrderedJob,
        set_back: &SetBack,
    ) -> Result<bool, StoreError> {
        if job.kind.is_repeatable() {
            return Ok(false);
        }
        let is_late = job.expires_at <= now;
        Ok(set_back.may_have_forgotten(now, job.created_at)
            || is_late && self.may_be_purged(job.expires_at)?)
    }

    fn end_in_doubt(&mut self, now: Timestamp, row: &Row) -> Result<Accepted, StoreError> {
        let outcome = forgotten();
        self.end_by(now, row, &outcome, Event::SetBack)?;
        Ok(Accepted::Ended(outcome))
    }

    /// Takes the position of a message that this version cannot read. If a job's id could be found in it, that job
    /// ends failed.
    ///
    /// # Errors
    /// As [`Queue::accept`].
    pub fn refuse_unreadable(
        &mut self,
        now: Timestamp,
        position: Position,
        job_id: Option<JobId>,
        refusal: Refusal,
    ) -> Result<(), StoreError> {
        if !self.take_order(now, Some(position))? {
            return Ok(());
        }
        match job_id {
            Some(job_id) if !self.holds(job_id)? => {
                let row = self.insert_unreadable(now, job_id)?;
                self.end(now, &row, &Outcome::Failed(refusal))
            }
            _ => Ok(()),
        }
    }

    /// Marks the next job of a lane `sent`, if there is one. Jobs that must not be done any more end on the way, each
    /// with its outcome; a job whose room is at work in another lane steps back for a moment.
    ///
    /// # Errors
    /// Those of the database.
    pub fn claim(&mut self, now: Timestamp, lane: &LaneName) -> Result<Option<Claimed>, StoreError> {
        self.claim_as(now, lane, &Wish::default())
    }

    /// [`Queue::claim`] by a lane's wish. Jobs of one reservation are done in the order in which they came: where an
    /// earlier one waits in the same lane it goes first, and for one in another lane the later one steps back.
    ///
    /// # Errors
    /// Those of the database; [`StoreError::Damaged`] when its index names a job that does not wait.
    pub fn claim_as(
        &mut self,
        now: Timestamp,
        lane: &LaneName,
        wish: &Wish,
    ) -> Result<Option<Claimed>, StoreError> {
        self.promote(now, lane)?;
        while let Some(first) = self.wished(lane, wish)? {
            if first.state != JobState::Waiting {
                // Put back, it would be found again at once, and so for ever.
                return Err(self.damaged("the index of what waits names jobs that do not"));
            }
            let row = match self.ordered_before(&first, &wish.stuck)? {
                None => first,
                Some(earlier) if earlier.lane.as_ref() == Some(lane) && self.is_ready(&earlier)? => earlier,
                Some(_) => {
                    self.postpone(&first, after(now, AT_WORK))?;
                    continue;
                }
            };
            let encoder = row.body.as_ref().and_then(|body| body.job.order.encoder());
            if let Some(rest) = encoder.and_then(|encoder| wish.resting.get(encoder)) {
                let rest = SignedDuration::try_from((*rest).min(LONGEST_PAUSE)).unwrap_or(AT_WORK);
                self.postpone(&row, after(now, rest.max(AT_WORK)))?;
                continue;
            }
            match self.send(now, &row)? {
                Sending::Sent(claimed) => return Ok(Some(claimed)),
                Sending::Ended(_) => {}
                Sending::AtWork => self.postpone(&row, after(now, AT_WORK))?,
                // It came before the site asked for that.
                Sending::Unconfirmed => self.hold(now, &row)?,
                Sending::TooEarly(due_at) => self.wait_for_its_time(now, &row, due_at)?,
            }
        }
        Ok(None)
    }

    fn wished(&self, lane: &LaneName, wish: &Wish) -> Result<Option<Row>, StoreError> {
        if wish.background
            && let Some(row) = self.next_in_background(lane)?
        {
            return Ok(Some(row));
        }
        self.next_of(lane)
    }

    /// Ends a job: outcome, ledger and report in one.
    ///
    /// # Errors
    /// When the job is not there or cannot end so, and those of the database.
    pub fn finish(&mut self, now: Timestamp, job_id: JobId, outcome: Outcome) -> Result<(), StoreError> {
        let row = self.known(job_id)?;
        self.end(now, &row, &outcome)
    }

    /// Puts a job back into its lane because its driver proved that nothing was written. Its rooms are as before, and
    /// it is not tried again before a short pause. A job that was to be taken back meanwhile ends cancelled instead, and
    /// one whose slot a newer order decides now ends superseded.
    ///
    /// # Errors
    /// When the job is not there or is not `sent`, and those of the database.
    pub fn unsend(&mut self, now: Timestamp, job_id: JobId, why: &Refusal) -> Result<(), StoreError> {
        let row = self.known(job_id)?;
        if row.state == JobState::Sent && row.cancel_wanted {
            return self.end(now, &row, &Outcome::Cancelled);
        }
        let pause = policy::backoff(row.attempt);
        // Up to a quarter more, so that lanes that lost the same line do not come back in step.
        let jitter = Duration::from_millis(self.random.below(pause.as_secs() * 250));
        let pause = SignedDuration::try_from(pause + jitter).unwrap_or(SignedDuration::MAX);
        self.mark_waiting(&row, Event::Unsend, Some(after(now, pause)), Some(why.code))?;
        self.settle(now, &row, Settled::NotDone, None)?;
        if self.leave_slot(&row)? == Ordered::Older {
            // Done after the newer one, it would undo it.
            let waiting = self.known(job_id)?;
            self.end(now, &waiting, &Outcome::Superseded)?;
        }
        Ok(())
    }

    /// [`Queue::cancel_ordered`], where it is not said what the job was.
    ///
    /// # Errors
    /// As [`Queue::accept`].
    pub fn cancel(
        &mut self,
        now: Timestamp,
        position: Option<Position>,
        job_id: JobId,
    ) -> Result<CancelAnswer, StoreError> {
        self.cancel_ordered(now, position, job_id, None)
    }

    /// Takes a job back, if nothing of it was sent. A place in the stream is a question, and every new one is answered:
    /// with the end of a job that is over, told again where the cloud holds it already, and with `cancelled` for a job
    /// that is not here, which ends so should it still come. A cloud that was set back has forgotten the answer, and may
    /// take the cancel it once sent for the job. Of a job that may have been here and be forgotten nobody says that it was
    /// cancelled: it is in doubt. Which jobs these are shows what the job was; of an older cloud, which does not say that,
    /// it is taken that it asks about none of them.
    ///
    /// # Errors
    /// As [`Queue::accept`].
    pub fn cancel_ordered(
        &mut self,
        now: Timestamp,
        position: Option<Position>,
        job_id: JobId,
        ordered: Option<&OrderedJob>,
    ) -> Result<CancelAnswer, StoreError> {
        let is_new = self.take_order(now, position)?;
        let is_asked = is_new && position.is_some();
        let Some(row) = self.find(job_id)? else {
            if is_new {
                self.cancel_ahead(now, job_id)?;
            }
            if is_asked && !self.has_report(job_id)? {
                let may_be_forgotten = match ordered {
                    Some(ordered) => self.may_be_forgotten(now, ordered, &self.set_back()?)?,
                    None => false,
                };
                let outcome = if may_be_forgotten { forgotten() } else { Outcome::Cancelled };
                let rooms = Vec::new();
                self.report(&Report {
                    job_id,
                    revision: 1,
                    at: now,
                    outcome,
                    resolution: None,
                    rooms,
                    local: None,
                })?;
            }
            return Ok(CancelAnswer::NotKnown);
        };
        match row.state {
            JobState::Received | JobState::Waiting => {
                self.end(now, &row, &Outcome::Cancelled)?;
                Ok(CancelAnswer::Cancelled)
            }
            JobState::Sent => {
                self.want_cancelled(&row)?;
                Ok(CancelAnswer::TooLate(JobState::Sent))
            }
            over => {
                if is_asked {
                    self.report_again(now, job_id)?;
                }
                Ok(CancelAnswer::TooLate(over))
            }
        }
    }

    /// Settles the doubt about a job, once. The outcome's second revision goes to the outbox, and the ledger follows.
    ///
    /// # Errors
    /// Those of the database; a refusal is the inner result.
    pub fn resolve(
        &mut self,
        now: Timestamp,
        job_id: JobId,
        resolution: Resolution,
    ) -> Result<Result<(), ResolveRefused>, StoreError> {
        let Some(row) = self.find(job_id)? else {
            return Ok(Err(ResolveRefused::NotKnown));
        };
        let Ok(state) = policy::next(row.state, Event::Resolve(resolution.verdict)) else {
            return Ok(Err(match row.is_resolved {
                true => ResolveRefused::Resolved(row.state),
                false => ResolveRefused::NotInDoubt(row.state),
            }));
        };
        let settled = match resolution.verdict {
            Verdict::Done => row.done(None),
            Verdict::NotDone => Settled::NotDone,
        };
        let outcome = resolved(&row, &resolution);
        let rooms = self.settle(now, &row, settled, None)?;
        self.mark_resolved(&row, state, &resolution)?;
        self.resolve_slot(now, &row, resolution.verdict == Verdict::Done)?;
        let verdict = match resolution.verdict {
            Verdict::Done => "done",
            Verdict::NotDone => "not done",
        };
        self.audit_line(now, "resolved", Some(job_id), &format!("{verdict}, says {}", resolution.by))?;
        self.report(&Report {
            job_id,
            revision: 2,
            at: now,
            outcome,
            resolution: Some(resolution),
            rooms,
            local: row.local(),
        })?;
        Ok(Ok(()))
    }

    /// What is left of the last run: jobs that were at work, in the order in which they came (each may have been done;
    /// one that cannot be read any more ends `unknown` at once), pauses, and where jobs wait.
    ///
    /// # Errors
    /// Those of the database.
    pub fn past(&mut self, now: Timestamp) -> Result<Past, StoreError> {
        let (mut in_doubt, mut taken_back) = (Vec::new(), BTreeSet::new());
        for job_id in self.ids_in(JobState::Sent)? {
            let row = self.known(job_id)?;
            taken_back.extend(row.cancel_wanted.then_some(job_id));
            let slot = self.slot_of_past(&row)?;
            match (row.lane, row.body) {
                (Some(lane), Some(body)) => in_doubt.push((
                    lane,
                    Claimed {
                        job: body.job,
                        treatment: row.treatment.unwrap_or(Treatment::Plain),
                        attempt: row.attempt,
                        to_see: None,
                        slot,
                    },
                )),
                _ => self.finish(now, job_id, stopped_at_work())?,
            }
        }
        Ok(Past {
            in_doubt,
            taken_back,
            paused: self.paused_lanes()?,
            lanes: self.lanes_with_work()?,
            waiting: self.waiting()? > 0,
        })
    }

    /// Takes other rules into force, for what is judged from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        self.cards_sent = None;
    }

    /// After a stop that was not clean, where nothing can prove what became of them: every job that is `sent` may have
    /// been done, so it becomes `unknown`.
    ///
    /// # Errors
    /// Those of the database.
    pub fn recover(&mut self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        let sent = self.ids_in(JobState::Sent)?;
        for job_id in &sent {
            self.finish(now, *job_id, stopped_at_work())?;
        }
        Ok(sent)
    }

    /// Ends jobs whose deadline has come while they waited; a bounded number, so call it until it names none.
    ///
    /// # Errors
    /// Those of the database.
    pub fn expire(&mut self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        self.expire_for(now, &Troubles::default())
    }

    /// [`Queue::expire`], where something is in trouble: a person at the desk is told what the job waited for.
    ///
    /// # Errors
    /// Those of the database.
    pub fn expire_for(&mut self, now: Timestamp, troubles: &Troubles) -> Result<Vec<JobId>, StoreError> {
        let late = self.ids_expired(now, EXPIRED_AT_ONCE)?;
        for job_id in &late {
            let row = self.known(*job_id)?;
            let of_system = || troubles.systems.get(&row.body.as_ref()?.job.system);
            let trouble = row.lane.as_ref().and_then(|lane| troubles.lanes.get(lane)).or_else(of_system);
            let outcome = match trouble {
                Some(trouble) if row.code != Some(Code::SiteNotConfirmed) => {
                    let message = format!("its deadline passed before anything was sent: {trouble}");
                    Outcome::Expired(Refusal::new(Code::Expired, message))
                }
                _ => self.too_late(&row),
            };
            self.end(now, &row, &outcome)?;
        }
        Ok(late)
    }

    /// Settles which stay a room follows, as far as a card that was read proves it: a guest card that its system holds
    /// for valid in its main room, with an end that was printed on a card of the stay in the ledger, or that would have
    /// been printed by a job in doubt and on no card before it. The latter settles that doubt as well. Anything else
    /// proves nothing.
    ///
    /// # Errors
    /// Those of the database.
    pub fn note_card_seen(
        &mut self,
        now: Timestamp,
        system: &SystemName,
        seen: &CardSeen,
    ) -> Result<(), StoreError> {
        let CardSeen::Guest { rooms, valid: true, ends_at: Some(end), made_here, .. } = seen else {
            return Ok(());
        };
        // Another desk's card may well end with one of ours.
        let others_make_cards = self.rules.systems.get(system) != Some(&Sharing::Exclusive);
        if !made_here.unwrap_or(!others_make_cards) {
            return Ok(());
        }
        // Validity is said of the main room only.
        let Some(main) = rooms.first().and_then(|room| DoorName::new(room.as_str()).ok()) else {
            return Ok(());
        };
        let Some(room) = self.room(system, &main)? else {
            return Ok(());
        };
        if let Some(job_id) = room.doubted_for(*end)
            && self.rules.systems.get(system) == Some(&Sharing::Exclusive)
            && let Some(row) = self.find(job_id)?
            && row.state == JobState::Unknown
            && row.body.is_some_and(|body| body.printed_end == Some(*end))
        {
            let by = "the card of this job, read on an encoder".to_owned();
            if let Err(refused) = self.resolve(now, job_id, Resolution { verdict: Verdict::Done, by })? {
                tracing::warn!(job = %job_id, error = %refused, "a card that was read could not settle its job");
            }
        }
        let Some(mut room) = self.room(system, &main)? else {
            return Ok(());
        };
        if room.prove(*end, now) {
            self.put_room(system, &main, &room)?;
        }
        Ok(())
    }

    /// This side turned out to remember less than it once did: no room's stay is certain any more.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forgot(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let rooms = self.all_rooms(None)?;
        for (system, name, room) in &rooms {
            let mut room = room.clone();
            room.forget();
            self.put_room(system, name, &room)?;
        }
        let detail = format!("the state of {} rooms is uncertain: this memory was out of date", rooms.len());
        self.audit_line(now, "memory_out_of_date", None, &detail)
    }

    /// Why a job that has just arrived is not even queued, if so.
    fn refuse(&mut self, now: Timestamp, row: &Row) -> Result<Option<Outcome>, StoreError> {
        let Some(body) = &row.body else { return Ok(None) };
        if let Some(outcome) = too_late(now, &body.job) {
            return Ok(Some(outcome));
        }
        // Whatever the site forbids, what was put there is removed at its end.
        if row.origin != Origin::Timer
            && let Err(refusal) = limits::standing(&self.rules.limits, now, &body.job, &body.rooms)
        {
            self.audit_refusal(now, row.job_id, &refusal)?;
            return Ok(Some(Outcome::Failed(refusal)));
        }
        let lacks_key = ledger::reservation_of(&body.job.order).is_none();
        let room = row.rooms.first().filter(|_| lacks_key);
        Ok(room.map(|room| Outcome::Failed(ledger::key_required(room))))
    }

    /// Marks a job `sent`, with what it does to its rooms, or ends it where it must not be done.
    fn send(&mut self, now: Timestamp, row: &Row) -> Result<Sending, StoreError> {
        if let Some(outcome) = self.refuse(now, row)? {
            self.end(now, row, &outcome)?;
            return Ok(Sending::Ended(outcome));
        }
        if self.lacks_confirmation(row) {
            return Ok(Sending::Unconfirmed);
        }
        if let Some(due_at) = row.body.as_ref().and_then(|body| body.not_before).filter(|due| *due > now) {
            return Ok(Sending::TooEarly(due_at));
        }
        let job = row.job()?;
        if job.order.kind() == Kind::CardEncode {
            let issued = self.cards_sent(now)?;
            if let Err(refusal) = limits::one_more_card(&self.rules.limits, issued) {
                self.audit_refusal(now, row.job_id, &refusal)?;
                return self.end_unsent(now, row, refusal);
            }
        }
        let doors = self.doors(now, row)?;
        if doors.iter().any(|door| door.room.at_work.is_some()) {
            return Ok(Sending::AtWork);
        }
        let sharing = self.rules.systems.get(&job.system).copied().unwrap_or(Sharing::Shared);
        let plan = match ledger::plan(&job.order, &doors, sharing, now) {
            Ok(plan) => plan,
            Err(refusal) => return self.end_unsent(now, row, refusal),
        };
        if let Some(key) = ledger::reservation_of(&job.order) {
            for (door, change) in doors.into_iter().zip(&plan.changes) {
                let room = door.room.sent(row.job_id, key, *change, now);
                self.put_room(&job.system, &door.name, &room)?;
            }
        }
        if plan.assumed {
            self.audit_line(
                now,
                "assumed_unchanged",
                Some(row.job_id),
                "nobody else changed the room, by configuration",
            )?;
        }
        let Taken::Yes(slot) = self.take_slot(now, row)? else {
            return Ok(Sending::AtWork);
        };
        let attempt = self.mark_sent(row, now, plan.treatment)?;
        if let (Kind::CardEncode, Some(cards)) = (job.order.kind(), &mut self.cards_sent) {
            cards.most = cards.most.saturating_add(1);
        }
        let (treatment, to_see) = (plan.treatment, plan.to_see);
        Ok(Sending::Sent(Claimed { job: job.clone(), treatment, attempt, to_see, slot }))
    }

    /// How many cards were sent in the last hour; never says too few, and too many only below the limit.
    fn cards_sent(&mut self, now: Timestamp) -> Result<u32, StoreError> {
        let limit = self.rules.limits.cards_per_hour;
        match self.cards_sent {
            Some(CardsSent { at, most }) if at <= now && most < limit => Ok(most),
            _ => {
                let most = self.cards_sent_since(after(now, -limits::CARD_SPAN), limit)?;
                self.cards_sent = Some(CardsSent { at: now, most });
                Ok(most)
            }
        }
    }

    fn end_unsent(&mut self, now: Timestamp, row: &Row, refusal: Refusal) -> Result<Sending, StoreError> {
        let outcome = Outcome::Failed(refusal);
        self.end(now, row, &outcome)?;
        Ok(Sending::Ended(outcome))
    }

    /// Ends a job: outcome, ledger and report in one.
    fn end(&mut self, now: Timestamp, row: &Row, outcome: &Outcome) -> Result<(), StoreError> {
        self.end_by(now, row, outcome, Event::from(outcome))
    }

    fn end_by(
        &mut self,
        now: Timestamp,
        row: &Row,
        outcome: &Outcome,
        event: Event,
    ) -> Result<(), StoreError> {
        self.mark_over(row, now, outcome, event)?;
        let settled = match (row.state, outcome) {
            (JobState::Sent, Outcome::Succeeded(success)) => Some(row.done(success.card.as_ref())),
            (JobState::Sent, Outcome::Unknown(_)) => Some(Settled::Unclear),
            // Of several rooms, nobody says which one it is.
            (JobState::Sent, Outcome::Failed(why))
                if why.code == Code::NoStayToJoin && row.rooms.len() == 1 =>
            {
                Some(Settled::NoStay)
            }
            (JobState::Sent, _) => Some(Settled::NotDone),
            _ => None,
        };
        let chip = match outcome {
            Outcome::Succeeded(success) => success.card.as_ref().and_then(|card| card.serial.as_deref()),
            _ => None,
        };
        let rooms = settled.map_or(Ok(Vec::new()), |settled| self.settle(now, row, settled, chip))?;
        // A memory that was set back ends in doubt what it knows as waiting.
        let in_slot = settled.or(matches!(outcome, Outcome::Unknown(_)).then_some(Settled::Unclear));
        self.settle_slot(now, row, in_slot)?;
        self.report(&Report {
            job_id: row.job_id,
            revision: 1,
            at: now,
            outcome: outcome.clone(),
            resolution: None,
            rooms,
            local: row.local(),
        })
    }

    /// Says once more how a job ended: a cloud that orders it again, or takes it back, does not know.
    fn report_again(&mut self, now: Timestamp, job_id: JobId) -> Result<(), StoreError> {
        match self.has_report(job_id)? {
            true => Ok(()),
            false => self.report_anew(now, job_id),
        }
    }

    fn report_anew(&mut self, now: Timestamp, job_id: JobId) -> Result<(), StoreError> {
        let (Some(row), Some(detail)) = (self.find(job_id)?, self.job(job_id)?) else {
            return Ok(());
        };
        let Some(outcome) = detail.outcome else { return Ok(()) };
        let at = detail.view.ended_at.unwrap_or(now);
        let first = Report {
            job_id,
            revision: 1,
            at,
            outcome,
            resolution: None,
            rooms: Vec::new(),
            local: row.local(),
        };
        self.report(&first)?;
        let Some(resolution) = detail.resolution else { return Ok(()) };
        let outcome = resolved(&row, &resolution);
        self.report(&Report { revision: 2, outcome, resolution: Some(resolution), ..first })
    }

    /// Carries the end of a job's work into its rooms; `chip` is the one that its card was written on.
    fn settle(
        &mut self,
        now: Timestamp,
        row: &Row,
        settled: Settled,
        chip: Option<&str>,
    ) -> Result<Vec<RoomState>, StoreError> {
        let Some(body) = &row.body else {
            return Ok(Vec::new());
        };
        let Some(key) = ledger::reservation_of(&body.job.order) else {
            return Ok(Vec::new());
        };
        let system = &body.job.system;
        let mut states = Vec::with_capacity(row.rooms.len());
        for name in &row.rooms {
            if matches!(settled, Settled::NotDone | Settled::NoStay) {
                self.drop_stay_begun_by(system, name, key, row.job_id)?;
            }
            let room = self.room(system, name)?.unwrap_or_else(|| ledger::Room::unseen(now));
            // Not when it was sent: nobody else looks at the room before it has ended, and the card waits for that commit.
            if matches!(settled, Settled::Done { .. } | Settled::Unclear) && row.began_stay_in(name, &room) {
                self.put_stay(system, name, key, row.job_id)?;
            }
            let was_changed = room.changed_elsewhere;
            let mut room = room.settle(row.job_id, key, settled, now);
            if let Some(chip) = chip {
                room.wrote(key, chip);
            }
            if room.changed_elsewhere.is_some() && was_changed.is_none() {
                let detail =
                    format!("the lock system has no stay in {system}/{name} although one of ours holds it");
                self.audit_line(now, "room_changed_elsewhere", Some(row.job_id), &detail)?;
            }
            if room.is_free() {
                self.drop_stays_in(system, name)?;
            }
            self.put_room(system, name, &room)?;
            states.push(room.state(system, name));
        }
        if let (Order::StayCheckout { .. }, Settled::Done { .. }) = (&body.job.order, settled) {
            self.end_cards_before(now, row)?;
        }
        Ok(states)
    }

    /// A stay was checked out of its room: cards of it that were ordered before and still wait, for a person's word or for
    /// their encoder, would begin it anew.
    fn end_cards_before(&mut self, now: Timestamp, checkout: &Row) -> Result<(), StoreError> {
        for waiting in self.waiting_before(checkout)? {
            let waiting = self.known(waiting)?;
            let is_card = waiting.body.as_ref().is_some_and(|it| it.job.order.kind() == Kind::CardEncode);
            if is_card && waiting.rooms.iter().any(|room| checkout.rooms.contains(room)) {
                self.end(now, &waiting, &Outcome::Superseded)?;
            }
        }
        Ok(())
    }

    /// The rooms of a job, with what is known about them.
    fn doors(&self, now: Timestamp, row: &Row) -> Result<Vec<Door>, StoreError> {
        let job = row.job()?;
        let key = ledger::reservation_of(&job.order);
        let door = |name: &DoorName| {
            Ok(Door {
                name: name.clone(),
                room: self.room(&job.system, name)?.unwrap_or_else(|| ledger::Room::unseen(now)),
                was_here: match key {
                    Some(key) => self.was_here(&job.system, name, key)?,
                    None => false,
                },
            })
        };
        row.rooms.iter().map(door).collect()
    }

    fn audit_refusal(&mut self, now: Timestamp, job_id: JobId, refusal: &Refusal) -> Result<(), StoreError> {
        self.audit_line(now, refusal.code.as_str(), Some(job_id), &refusal.message)
    }
}

impl Row {
    /// What the cloud has to be told of a job that it did not order.
    fn local(&self) -> Option<LocalJob> {
        let job = self.body.as_ref().map(|body| &body.job).filter(|_| self.origin != Origin::Cloud)?;
        let device = match &job.order {
            Order::CardEncode(card) => Some(card.encoder.as_str()),
            Order::CardRead(read) => Some(read.encoder.as_str()),
            Order::SlotPut(put) => Some(put.device.as_str()),
            Order::SlotRemove { device, .. }
            | Order::DeviceUnlock { device }
            | Order::DeviceRead { device } => Some(device.as_str()),
            Order::StayModify(_) | Order::StayCheckout { .. } | Order::InventoryRefresh => None,
        };
        Some(LocalJob {
            origin: self.origin,
            system: job.system.clone(),
            kind: job.order.kind(),
            device: device.map(str::to_owned),
            slot: slots::slot_of(&job.order).map(|(_, slot)| slot.to_owned()),
            created_at: job.created_at,
            retries: self.retries,
            card: match &job.order {
                Order::CardEncode(card) => Some(LocalCard {
                    access_method_id: card.access_method_id,
                    doors: card.doors.clone(),
                    window: card.window,
                }),
                _ => None,
            },
        })
    }

    /// Whether it is at work and begins its reservation's stay in a room; what is known of the room may be lost.
    fn began_stay_in(&self, name: &DoorName, room: &ledger::Room) -> bool {
        let order = self.body.as_ref().map(|body| &body.job.order);
        let moves_into =
            matches!(order, Some(Order::StayModify(stay)) if stay.to_room.as_ref() == Some(name));
        let begins = self.treatment == Some(Treatment::Override) || room.is_begun_by(self.job_id);
        self.state == JobState::Sent && (begins || moves_into)
    }

    /// What its success means to its rooms. Without the system's word, the end that was ordered is what is printed.
    fn done(&self, facts: Option<&CardFacts>) -> Settled {
        let ordered = match self.body.as_ref().map(|body| &body.job.order) {
            Some(Order::CardEncode(card)) => {
                self.body.as_ref().and_then(|body| body.printed_end).or(card.window.ends_at())
            }
            _ => {
                return Settled::Done { cards: 0, printed_end: None };
            }
        };
        Settled::Done { cards: 1, printed_end: facts.and_then(|facts| facts.printed_end).or(ordered) }
    }

    /// The outcome of a job that proved to have been done.
    fn resolved_success(&self) -> Outcome {
        let is_card = matches!(self.body.as_ref().map(|body| &body.job.order), Some(Order::CardEncode(_)));
        let overrode = match self.treatment {
            Some(Treatment::Override) => Some(true),
            Some(Treatment::Join) => Some(false),
            Some(Treatment::Plain) | None => None,
        };
        Outcome::Succeeded(Success {
            written: is_card.then_some(Written::Proven),
            card: is_card.then(|| CardFacts { overrode, ..CardFacts::default() }),
            ..Success::default()
        })
    }
}

/// How a job ends that nobody may begin any more.
fn too_late(now: Timestamp, job: &Job) -> Option<Outcome> {
    if job.expires_at <= now {
        return Some(expired());
    }
    let Order::SlotPut(put) = &job.order else { return None };
    put.window.ends_at().filter(|end| *end <= now).map(|_| window_over())
}

fn expired() -> Outcome {
    Outcome::Expired(Refusal::new(Code::Expired, "its deadline passed before anything was sent"))
}

/// The outcome of a job that was at work when the agent stopped, where nothing proves what became of it.
#[must_use]
pub fn stopped_at_work() -> Outcome {
    Outcome::unknown(
        Code::AgentStopped,
        "the agent stopped after the job was marked and before its end was known",
    )
}

fn forgotten() -> Outcome {
    let why = "the job is older than what this agent remembers: it may have been done in its time";
    Outcome::unknown(Code::MemoryRestored, why)
}

fn window_over() -> Outcome {
    Outcome::Expired(Refusal::new(Code::Expired, "its window was over before anything was sent"))
}

/// When an order's time comes, for those that have one of their own.
fn due_at(order: &Order, lead: Duration) -> Option<Timestamp> {
    match order {
        Order::SlotPut(put) => {
            let lead = SignedDuration::try_from(lead).unwrap_or(SignedDuration::MAX);
            Some(put.window.starts_at().saturating_sub(lead).unwrap_or(Timestamp::MIN))
        }
        _ => None,
    }
}

fn after(now: Timestamp, span: SignedDuration) -> Timestamp {
    now.saturating_add(span).unwrap_or(now)
}
