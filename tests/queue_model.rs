//! The queue against a plain model of it: random orders, ends, cut power, full disks, clocks that jump, restored copies,
//! compared after each step. The queue is the real one on real SQLite; its disk is one in memory that loses what was not
//! synced. `LATCHD_CASES` says how many cases are tried.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use std::collections::{BTreeMap, BTreeSet};

use latchd::{
    model::{AccessMethodId, JobId, JobState, Origin, Priority, Resolution, Verdict},
    protocol::{Message, Position},
    queue::{Accepted, CancelAnswer, JobFilter, LocalOrder, Queue, RetryRefused, Wish},
    seams::Random,
    store::{
        Store, StoreError,
        vfs::memory::{Cut, Disk, Image},
    },
};
use proptest::prelude::*;
use queue_support::*;

/// More than any pause between attempts.
const LONG: i64 = 60;

#[derive(Debug, Clone)]
enum Step {
    Accept {
        number: u128,
        lane: u8,
        desk: bool,
        /// How long ago it was made.
        age: i64,
        lasts: i64,
        may_send: bool,
        /// Whether the message was delivered before, under the same position.
        again: bool,
    },
    Claim {
        lane: u8,
        background: bool,
    },
    Finish {
        pick: usize,
        end: JobState,
    },
    Unsend {
        pick: usize,
    },
    Cancel {
        number: u128,
    },
    Expire,
    Wait,
    /// The clock is set; what is due is judged by what it shows then.
    Jump {
        by: i64,
    },
    /// The process ends: killed, or with the power.
    Crash {
        power: bool,
    },
    /// A person has a job done again, under this number.
    Retry {
        number: u128,
        new: u128,
    },
    /// From here on every commit may find the disk full, or no longer.
    Fill {
        full: bool,
    },
    /// A copy is made, to be put back later.
    Copy,
    PutBack,
    Resolve {
        number: u128,
        done: bool,
    },
    Acknowledge {
        part: u64,
    },
    NewEpoch,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![Just(JobState::Succeeded), Just(JobState::Failed), Just(JobState::Unknown)];
    let lasts = prop_oneof![Just(LONG), Just(3 * LONG), Just(1000 * LONG)];
    let age = prop_oneof![3 => Just(0), 1 => Just(LONG), 1 => Just(5 * LONG)];
    prop_oneof![
        8 => (0..16_u128, 0..2_u8, any::<bool>(), age, lasts, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(number, lane, desk, age, lasts, may_send, again)| {
                Step::Accept { number, lane, desk, age, lasts, may_send, again }
            }
        ),
        5 => (0..2_u8, any::<bool>()).prop_map(|(lane, background)| Step::Claim { lane, background }),
        5 => (0..4_usize, end).prop_map(|(pick, end)| Step::Finish { pick, end }),
        2 => (0..4_usize).prop_map(|pick| Step::Unsend { pick }),
        2 => (0..16_u128).prop_map(|number| Step::Cancel { number }),
        1 => Just(Step::Expire),
        2 => Just(Step::Wait),
        1 => prop_oneof![Just(-5000 * LONG), Just(-LONG), Just(10 * LONG)].prop_map(|by| Step::Jump { by }),
        1 => any::<bool>().prop_map(|power| Step::Crash { power }),
        2 => (0..16_u128, 16..24_u128).prop_map(|(number, new)| Step::Retry { number, new }),
        2 => any::<bool>().prop_map(|full| Step::Fill { full }),
        1 => Just(Step::Copy),
        1 => Just(Step::PutBack),
        2 => (0..16_u128, any::<bool>()).prop_map(|(number, done)| Step::Resolve { number, done }),
        2 => (0..=4_u64).prop_map(|part| Step::Acknowledge { part }),
        1 => Just(Step::NewEpoch),
    ]
}

/// The queue and its disk.
struct House {
    disk: Disk,
    random: Random,
    queue: Queue,
    full: bool,
    copy: Option<(Image, Model)>,
}

impl House {
    fn new() -> Self {
        let disk = Disk::new().unwrap();
        let queue = open(&disk.storage(), &rules());
        Self { disk, random: Random::seeded(3), queue, full: false, copy: None }
    }

    /// Runs operations in one transaction, as the writer does. Nothing where the disk was full: then nothing happened.
    fn commit<T>(&mut self, operations: impl FnOnce(&mut Queue) -> Result<T, StoreError>) -> Option<T> {
        if self.full {
            self.disk.limit(Some(self.disk.used()));
        }
        self.queue.connection().execute_batch("BEGIN IMMEDIATE").unwrap();
        let done = operations(&mut self.queue).and_then(|answer| {
            self.queue.commit()?;
            Ok(answer)
        });
        self.disk.limit(None);
        match done {
            Ok(answer) => Some(answer),
            Err(error) => {
                assert!(self.full && error.is_disk_full(), "{}", error.chain());
                if !self.queue.connection().is_autocommit() {
                    self.queue.connection().execute_batch("ROLLBACK").unwrap();
                }
                self.queue.undone();
                None
            }
        }
    }

    fn crash(&mut self, cut: Cut) {
        self.disk.cut(cut, &self.random);
        self.queue = open(&self.disk.storage(), &rules());
    }
}

#[derive(Debug, Clone)]
struct Known {
    state: JobState,
    lane: u8,
    desk: bool,
    arrived: usize,
    made_at: i64,
    expires_at: i64,
    attempt: u32,
    /// Not to be sent before the next wait.
    pauses: bool,
    cancel_wanted: bool,
    retries: Option<u128>,
    /// What was reported of it, by revision.
    told: Vec<(u8, JobState)>,
}

#[derive(Debug, Default, Clone)]
struct Model {
    now: i64,
    jobs: BTreeMap<u128, Known>,
    ahead: BTreeSet<u128>,
    /// The stream of orders: its epoch, and the last one held.
    orders: Position,
    /// How often this memory was set back.
    set_back: u64,
    /// When it met its cloud after that, or when it was set back if it has not.
    set_back_at: Option<i64>,
    epoch: u64,
    /// Every report of this epoch: job, revision, state told.
    reports: Vec<(u128, u8, JobState)>,
    acknowledged: usize,
}

impl Model {
    fn end(&mut self, number: u128, state: JobState) {
        self.jobs.get_mut(&number).unwrap().state = state;
        self.tell(number, 1, state);
    }

    fn tell(&mut self, number: u128, revision: u8, state: JobState) {
        self.jobs.get_mut(&number).unwrap().told.push((revision, state));
        self.reports.push((number, revision, state));
    }

    /// An order about a job that the site knows: it is told again, unless it is about to be told anyway.
    fn ordered_again(&mut self, number: u128) {
        if !self.is_about_to_be_told(number) {
            let told = self.jobs[&number].told.iter();
            self.reports.extend(told.map(|(revision, state)| (number, *revision, *state)));
        }
    }

    /// A cancel of a job that the site does not know is answered likewise.
    fn cancelled_unseen(&mut self, number: u128) {
        if !self.is_about_to_be_told(number) {
            self.reports.push((number, 1, JobState::Cancelled));
        }
    }

    fn is_about_to_be_told(&self, number: u128) -> bool {
        self.reports[self.acknowledged..].iter().any(|(told, _, _)| *told == number)
    }

    fn ready(&self, lane: u8, background: bool) -> Option<u128> {
        let waits = |job: &Known| job.lane == lane && job.state == JobState::Waiting && !job.pauses;
        let ready: Vec<_> = self.jobs.iter().filter(|(_, job)| waits(job)).collect();
        let owed = ready.iter().filter(|(_, job)| background && !job.desk).min_by_key(|(_, job)| job.arrived);
        let first = owed.or_else(|| ready.iter().min_by_key(|(_, job)| (!job.desk, job.arrived)));
        first.map(|(number, _)| **number)
    }

    fn claim(&mut self, lane: u8, background: bool) -> Option<(u128, u32)> {
        while let Some(number) = self.ready(lane, background) {
            let job = self.jobs.get_mut(&number).unwrap();
            if job.expires_at > self.now {
                job.state = JobState::Sent;
                job.attempt += 1;
                return Some((number, job.attempt));
            }
            self.end(number, JobState::Expired);
        }
        None
    }

    fn accept(&mut self, number: u128, job: Known, may_send: bool) -> JobState {
        let lane = job.lane;
        let late = job.expires_at <= self.now;
        let may_be_forgotten = job.retries.is_none() && self.set_back_at.is_some_and(|at| job.made_at <= at);
        self.jobs.insert(number, job);
        let was_cancelled = self.ahead.remove(&number);
        if may_be_forgotten {
            self.end(number, JobState::Unknown);
        } else if was_cancelled {
            self.end(number, JobState::Cancelled);
        } else if late {
            self.end(number, JobState::Expired);
        } else if may_send && self.ready(lane, false) == Some(number) && self.ready_count(lane) == 1 {
            self.claim(lane, false);
        }
        self.jobs[&number].state
    }

    fn ready_count(&self, lane: u8) -> usize {
        let waits = |job: &&Known| job.lane == lane && job.state == JobState::Waiting && !job.pauses;
        self.jobs.values().filter(waits).count()
    }

    /// The cloud numbers its orders anew for a memory that was set back.
    fn next_order(&self) -> Position {
        match self.orders.epoch {
            0 => Position { epoch: 1 + self.set_back, n: 1 },
            _ => self.orders.next(),
        }
    }

    /// The cloud's order at a position is taken; its first one shows that both have met.
    fn takes(&mut self, position: Position) {
        if self.orders == Position::LOST {
            self.set_back_at = Some(self.now);
        }
        self.orders = position;
    }

    /// Every pause is over.
    fn wake(&mut self) {
        for job in self.jobs.values_mut() {
            job.pauses = false;
        }
    }

    fn new_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.reports.drain(..self.acknowledged);
        self.acknowledged = 0;
    }

    /// This memory is an old one: what is unfinished in it may have been done since.
    fn set_back(&mut self) {
        for state in [JobState::Waiting, JobState::Sent] {
            let mut unfinished: Vec<_> = self.jobs.iter().filter(|(_, job)| job.state == state).collect();
            unfinished.sort_by_key(|(_, job)| job.arrived);
            let unfinished: Vec<_> = unfinished.into_iter().map(|(number, _)| *number).collect();
            for number in unfinished {
                self.end(number, JobState::Unknown);
            }
        }
        let by_the_clock = u64::try_from(self.now).unwrap_or(0);
        self.new_epoch((self.epoch + 1).max(by_the_clock));
        self.orders = Position::LOST;
        self.set_back += 1;
        self.set_back_at = Some(self.now);
    }

    fn sent(&self) -> Vec<u128> {
        let mut sent: Vec<_> = self.jobs.iter().filter(|(_, job)| job.state == JobState::Sent).collect();
        sent.sort_by_key(|(_, job)| job.arrived);
        sent.into_iter().map(|(number, _)| *number).collect()
    }
}

fn state_of(accepted: &Accepted) -> JobState {
    match accepted {
        Accepted::Duplicate => panic!("a new job was taken for an old one"),
        Accepted::Ended(outcome) => outcome.state(),
        Accepted::Waiting | Accepted::Unconfirmed => JobState::Waiting,
        Accepted::Sent(_) => JobState::Sent,
    }
}

/// A card in a room of its own stay, so that no job waits for another one's.
fn order_of(number: u128, line: u8) -> latchd::model::Order {
    let mut order = card_at(&line.to_string(), &["gym"], &number.to_string());
    if let latchd::model::Order::CardEncode(card) = &mut order {
        // Each is the card of somebody else.
        card.access_method_id = AccessMethodId(uuid::Uuid::from_u128(number));
    }
    order
}

/// A job that is made now.
fn known(model: &Model, line: u8, desk: bool, expires_at: i64, retries: Option<u128>) -> Known {
    Known {
        state: JobState::Waiting,
        lane: line,
        desk,
        arrived: model.jobs.len(),
        made_at: model.now,
        expires_at,
        attempt: 0,
        pauses: false,
        cancel_wanted: false,
        retries,
        told: Vec::new(),
    }
}

fn number_of(job_id: JobId) -> u128 {
    job_id.0.as_u128()
}

/// Does a step on both; what the disk had no room for happened on neither.
fn run(house: &mut House, model: &mut Model, step: Step) -> Option<()> {
    let now = at(model.now);
    match step {
        Step::Accept { number, lane: line, desk, age, lasts, may_send, again } => {
            let again = again && model.orders.epoch > 0;
            let position = if again { model.orders } else { model.next_order() };
            let mut job = job(number, order_of(number, line));
            job.priority = if desk { Priority::Desk } else { Priority::Background };
            job.created_at = at(model.now - age);
            job.expires_at = at(model.now + lasts);
            let admission = admission(&job.order);
            let accepted =
                house.commit(|queue| queue.accept(now, Some(position), job, Ok(admission), may_send))?;
            model.takes(position);
            if again || model.jobs.contains_key(&number) {
                assert_eq!(accepted, Accepted::Duplicate);
                if !again {
                    model.ordered_again(number);
                }
                return Some(());
            }
            let made_at = model.now - age;
            let known = Known { made_at, ..known(model, line, desk, model.now + lasts, None) };
            assert_eq!(state_of(&accepted), model.accept(number, known, may_send));
        }
        Step::Claim { lane: line, background } => {
            let wish = Wish { background, ..Wish::default() };
            let claimed = house.commit(|queue| queue.claim_as(now, &lane(&line.to_string()), &wish))?;
            let claimed = claimed.map(|claimed| (number_of(claimed.job.job_id), claimed.attempt));
            assert_eq!(claimed, model.claim(line, background));
        }
        Step::Finish { pick, end } => {
            let number = *model.sent().get(pick)?;
            let outcome = match end {
                JobState::Succeeded => written(),
                JobState::Failed => no_card(),
                _ => no_answer(),
            };
            house.commit(|queue| queue.finish(now, id(number), outcome))?;
            model.end(number, end);
        }
        Step::Unsend { pick } => {
            let number = *model.sent().get(pick)?;
            house.commit(|queue| queue.unsend(now, id(number), &line_down()))?;
            let job = model.jobs.get_mut(&number).unwrap();
            job.pauses = true;
            job.state = JobState::Waiting;
            if job.cancel_wanted {
                model.end(number, JobState::Cancelled);
            }
        }
        Step::Cancel { number } => {
            let position = model.next_order();
            let answer = house.commit(|queue| queue.cancel(now, Some(position), id(number)))?;
            model.takes(position);
            let expected = match model.jobs.get_mut(&number).map(|job| (job.state, job)) {
                None => {
                    model.ahead.insert(number);
                    model.cancelled_unseen(number);
                    CancelAnswer::NotKnown
                }
                Some((JobState::Waiting, _)) => {
                    model.end(number, JobState::Cancelled);
                    CancelAnswer::Cancelled
                }
                Some((JobState::Sent, job)) => {
                    job.cancel_wanted = true;
                    CancelAnswer::TooLate(JobState::Sent)
                }
                Some((over, _)) => {
                    model.ordered_again(number);
                    CancelAnswer::TooLate(over)
                }
            };
            assert_eq!(answer, expected);
        }
        Step::Expire => {
            let expired = house.commit(|queue| queue.expire(now))?;
            let late = |job: &Known| job.state == JobState::Waiting && job.expires_at <= model.now;
            let mut due: Vec<_> = model.jobs.iter().filter(|(_, job)| late(job)).collect();
            due.sort_by_key(|(_, job)| (job.expires_at, job.arrived));
            let due: Vec<_> = due.into_iter().map(|(number, _)| *number).collect();
            assert_eq!(expired, due.iter().map(|number| id(*number)).collect::<Vec<_>>());
            for number in due {
                model.end(number, JobState::Expired);
            }
        }
        Step::Wait => {
            model.now += LONG;
            model.wake();
        }
        Step::Jump { by } => {
            model.now += by;
            // A pause may not outlive the clock it was written under: one that lies too far ahead is none.
            if by.abs() > LONG {
                model.wake();
            } else if by < 0 {
                // What paused until just now pauses a little longer, but never for ever.
                model.now += 2 * LONG;
                model.wake();
            }
        }
        Step::Crash { power } => {
            // The acknowledgement may be forgotten; the cloud repeats it when both meet again.
            let n = model.acknowledged as u64;
            house.crash(if power { Cut::Power } else { Cut::Killed });
            house.queue.acknowledge_reports(Position { epoch: model.epoch, n });
            let past = house.queue.past(now).unwrap();
            let sent = model.sent();
            let named: Vec<_> =
                past.in_doubt.iter().map(|(_, claimed)| number_of(claimed.job.job_id)).collect();
            assert_eq!(named, sent);
            let recovered = house.commit(|queue| queue.recover(now))?;
            assert_eq!(recovered, sent.iter().map(|number| id(*number)).collect::<Vec<_>>());
            for number in sent {
                model.end(number, JobState::Unknown);
            }
        }
        Step::Resolve { number, done } => {
            let (verdict, state) = match done {
                true => (Verdict::Done, JobState::Succeeded),
                false => (Verdict::NotDone, JobState::Failed),
            };
            let resolution = Resolution { verdict, by: "Ada".into() };
            let answer = house.commit(|queue| queue.resolve(now, id(number), resolution))?;
            let doubtful = model.jobs.get_mut(&number).filter(|job| job.state == JobState::Unknown);
            assert_eq!(answer.is_ok(), doubtful.is_some(), "{answer:?}");
            if let Some(job) = doubtful {
                job.state = state;
                model.tell(number, 2, state);
            }
        }
        Step::Retry { number, new } => {
            let told = house.commit(|queue| {
                let order = match queue.retry_of(now, id(number))? {
                    Ok(order) => order,
                    Err(refused) => return Ok(Err(refused)),
                };
                let given = number_of(order.job.job_id);
                // A number that is known here in place of one by chance, unless such a job stands already.
                let job_id = if given < 24 { order.job.job_id } else { id(new) };
                let order = LocalOrder { job: latchd::model::Job { job_id, ..order.job }, ..order };
                assert_eq!((order.origin, order.retries), (Origin::Person, Some(id(number))));
                let (expires_at, admission) = (order.job.expires_at, admission(&order.job.order));
                let accepted = queue.accept_local(now, order, Ok(admission), false)?;
                Ok(Ok((number_of(job_id), expires_at, accepted)))
            })?;
            use JobState::{Cancelled, Expired, Failed};
            let old = model.jobs.get(&number).cloned();
            let (job_id, expires_at, accepted) = match told {
                Ok(told) => told,
                Err(RetryRefused::NotKnown) => {
                    assert!(old.is_none());
                    return Some(());
                }
                Err(RetryRefused::Replaced { by, state }) => {
                    let by = number_of(by);
                    assert!(matches!(state, JobState::Succeeded | JobState::Unknown));
                    assert_eq!(model.jobs[&by].state, state);
                    let mut of = by;
                    while of != number {
                        of =
                            model.jobs[&of].retries.expect("it took the place of the one that was asked for");
                    }
                    return Some(());
                }
                Err(refused) => {
                    let state = old.unwrap().state;
                    assert_eq!(refused, RetryRefused::Not(state));
                    assert!(!matches!(state, Failed | Cancelled | Expired), "{state}");
                    return Some(());
                }
            };
            let old = old.unwrap();
            assert!(matches!(old.state, Failed | Cancelled | Expired));
            if model.jobs.contains_key(&job_id) {
                assert_eq!(accepted, Accepted::Duplicate);
                model.ordered_again(job_id);
            } else {
                let known = known(model, old.lane, old.desk, expires_at.as_second(), Some(number));
                assert_eq!(state_of(&accepted), model.accept(job_id, known, false));
            }
        }
        Step::Acknowledge { part } => {
            let left = (model.reports.len() - model.acknowledged) as u64;
            model.acknowledged += usize::try_from(left * part / 4).unwrap();
            let n = model.acknowledged as u64;
            house.queue.acknowledge_reports(Position { epoch: model.epoch, n });
        }
        Step::NewEpoch => {
            let full = std::mem::take(&mut house.full);
            model.new_epoch(model.epoch + 1);
            house.commit(|queue| queue.begin_reports_epoch(model.epoch))?;
            house.full = full;
        }
        Step::Fill { full } => house.full = full,
        Step::Copy => {
            // As a backup is made: of one moment, whatever the outbox remembers only in memory.
            let mut then = model.clone();
            then.acknowledged = 0;
            house.copy = Some((house.disk.image(), then));
        }
        Step::PutBack => {
            let (image, then) = house.copy.take()?;
            house.full = false;
            house.disk.restore(&image);
            house.queue = open(&house.disk.storage(), &rules());
            // What the copy knows of acknowledgements is what its rows say.
            let remembered = house.queue.memory().unwrap().reports.acknowledged;
            let later = model.now;
            *model = Model { now: later, acknowledged: usize::try_from(remembered).unwrap(), ..then };
            let restored = house.commit(|queue| queue.restored(at(later)))?;
            model.set_back();
            assert_eq!(restored.reports_epoch, model.epoch);
        }
    }
    Some(())
}

fn compare(site: &House, model: &Model) {
    let stored: BTreeMap<_, _> = site
        .queue
        .jobs(JobFilter { limit: 1000, ..JobFilter::default() })
        .unwrap()
        .into_iter()
        .map(|job| (number_of(job.job_id), (job.state, job.attempt, job.retries.map(number_of))))
        .collect();
    let modelled = model.jobs.iter().map(|(number, job)| (*number, (job.state, job.attempt, job.retries)));
    assert_eq!(stored, modelled.collect::<BTreeMap<_, _>>());
    let memory = site.queue.memory().unwrap();
    assert_eq!(memory.orders_received, model.orders);
    let last = Position { epoch: model.epoch, n: model.reports.len() as u64 };
    assert_eq!((memory.reports.last, memory.reports.acknowledged), (last, model.acknowledged as u64));
    let after = Position { epoch: model.epoch, n: memory.reports.acknowledged };
    let stored: Vec<_> = site
        .queue
        .reports_after(after, 1000)
        .unwrap()
        .into_iter()
        .map(|(position, message)| {
            let (Message::Outcome(report) | Message::Resolution(report)) = message else {
                panic!("{message:?}")
            };
            (position.n, report.job_id.0.as_u128(), report.revision, report.outcome.state())
        })
        .collect();
    let expected: Vec<_> = (1..)
        .zip(&model.reports)
        .skip(model.acknowledged)
        .map(|(n, (number, revision, state))| (n, *number, *revision, *state))
        .collect();
    assert_eq!(stored, expected);
    let waiting = model.jobs.values().filter(|job| job.state == JobState::Waiting);
    assert_eq!(site.queue.next_expiry().unwrap(), waiting.map(|job| at(job.expires_at)).min());
    let counts = site.queue.counts().unwrap().by_state;
    for state in JobState::ALL {
        let expected = model.jobs.values().filter(|job| job.state == state).count() as u64;
        assert_eq!(counts.get(&state).copied().unwrap_or(0), expected, "{state}");
    }
    // Nothing is purged here, so the tally is what the rows say, code by code.
    let reader = latchd::store::open_reader(&site.disk.storage(), latchd::queue::FILE).unwrap();
    let counted = |sql: &str| -> Vec<(String, String, i64)> {
        let mut statement = reader.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(
        counted("SELECT state, code, jobs FROM tally WHERE jobs <> 0 ORDER BY 1, 2"),
        counted("SELECT state, code, count(*) FROM job WHERE state <> 'sent' GROUP BY 1, 2 ORDER BY 1, 2")
    );
}

/// How many cases are tried: `LATCHD_CASES`, or as many as an ordinary run has time for.
fn cases() -> u32 {
    let wanted = std::env::var("LATCHD_CASES").ok();
    wanted.map_or(2000, |cases| cases.parse().expect("LATCHD_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::Direct("tests/queue_model.proptest-regressions"),
        )),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_queue_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut house = House::new();
        let mut model = Model { epoch: 1, ..Model::default() };
        for step in steps {
            run(&mut house, &mut model, step);
            compare(&house, &model);
        }
    }
}
