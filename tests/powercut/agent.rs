//! The agent's queue, worked through its writer: arrivals, marks, ends, doubts, proofs, deadlines, slots with their
//! timers, acknowledgements, new epochs, purges, bursts, checkpoints, new starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use latchd::{
    model::{Admission, Code, JobId, JobState, Order, Origin, Outcome, Refusal, Resolution, Verdict},
    protocol::{Message, Position},
    queue::{Accepted, CancelAnswer, JobFilter, Queue},
    seams::{Random, Storage},
    store::{Store, StoreError, Writer, WriterHandle},
};
use tokio::runtime::Runtime;

use crate::{
    judge::{Cuts, Found, Known, Note, Notes, Replay, Told, replay},
    queue_support::{admission, at, card_at, id, job, lane, open, put, remove, rules},
    trace::traced,
};

const FOLDER: &str = "POWERCUT_QUEUE_IN";
const LAX: &str = "POWERCUT_LAX";
const SEED: u64 = 20;
const SLOTS: [&str; 4] = ["a", "b", "c", "d"];
const SLOT_LANE: &str = "9";
const SLOT_LEAD: std::time::Duration = std::time::Duration::from_secs(5);

#[test]
fn what_the_agent_acknowledged_survives_every_power_cut() {
    let Some(replay) = cut(false, Cuts { answers: 1, at_answers: 1, at_syncs: 1 }) else { return };
    assert!(replay.wrongs.is_empty(), "{:#?}", replay.wrongs);
    assert!(replay.acknowledged >= 300 && replay.torn >= 200, "{replay:?}");
}

#[test]
fn with_less_than_full_syncs_the_agent_would_lose_what_it_acknowledged() {
    let Some(replay) = cut(true, Cuts { answers: 4, at_answers: 0, at_syncs: 0 }) else { return };
    assert!(replay.acknowledged >= 300 && replay.lost > replay.worst / 2, "{replay:?}");
}

fn cut(lax: bool, cuts: Cuts) -> Option<Replay> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("disk")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "agent::works_until_it_is_done", "--nocapture"]);
    command.env(FOLDER, folder.path().join("disk"));
    if lax {
        command.env(LAX, "1");
    }
    traced(&mut command, &folder.path().join("trace"))?;
    let name = if lax { "queue-lax" } else { "queue" };
    Some(replay::<Known>(name, folder.path(), SEED, cuts, look))
}

/// Opens the queue that a power cut left and compares it with what is known.
fn look(folder: &Path, known: &Known) -> Vec<String> {
    match found(folder) {
        Ok(found) => known.wrongs(&found),
        Err(error) => vec![error.chain()],
    }
}

fn found(folder: &Path) -> Result<Found, StoreError> {
    let storage = Storage::folder(folder.join("agent"));
    let random = Random::seeded(7);
    let seal = latchd::seal::SealKey::new([7; 32], random.clone());
    let mut queue = Queue::open(&storage, seal, random, rules())?;
    let check: String = queue.connection().query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(StoreError::corrupt("quick_check", check));
    }
    let mut found = Found::default();
    let mut looked_after = BTreeSet::new();
    for view in queue.jobs(JobFilter { limit: 10_000, ..JobFilter::default() })? {
        // All of it must open, not only the row's plain part.
        let detail = queue.job(view.job_id)?.expect("it is listed");
        let order = detail.job.as_ref().map(|job| &job.order);
        if let (Some(Order::SlotPut(_) | Order::SlotRemove { .. }), false) = (order, view.state.is_over()) {
            looked_after.extend(order.map(slot_of));
        }
        // Those of its own have names that nobody knew before.
        if view.origin == Origin::Timer {
            continue;
        }
        let state = match &detail.outcome {
            Some(_) if detail.resolution.is_some() => format!("{} resolved", view.state),
            Some(outcome) if outcome.state() == view.state => view.state.to_string(),
            Some(outcome) => format!("{} with the outcome {}", view.state, outcome.state()),
            None => view.state.to_string(),
        };
        found.jobs.insert(view.job_id.to_string(), state);
    }
    for slot in queue.slots()? {
        if slot.ends_at.is_some() && !looked_after.contains(&slot.slot) {
            return Err(StoreError::corrupt("a slot", format!("nobody will empty {}", slot.slot)));
        }
    }
    found.jobs.extend(rooms_and_slots(&queue)?);
    let memory = queue.memory()?;
    found.orders = memory.orders_received;
    found.reports = memory.reports.last;
    let reports = queue.reports_after(Position { epoch: memory.reports.last.epoch, n: 0 }, 10_000)?;
    let mut expected = memory.reports.last.n - reports.len() as u64;
    for (position, message) in reports {
        expected += 1;
        if position.n != expected {
            return Err(StoreError::corrupt("the outbox", format!("{position:?} where {expected} was due")));
        }
        let (Message::Outcome(report) | Message::Resolution(report)) = message else {
            return Err(StoreError::corrupt("the outbox", "neither an outcome nor a resolution"));
        };
        found.outbox.insert(format!("{}/{}", report.job_id, report.revision));
    }
    Ok(found)
}

fn slot_of(order: &Order) -> String {
    match order {
        Order::SlotPut(put) => put.slot.clone(),
        Order::SlotRemove { slot, .. } => slot.clone(),
        other => panic!("{other:?} has no slot"),
    }
}

const ROOM_STATES: [&str; 4] = ["held", "held or not", "free", "free or not"];
const SLOT_STATES: [&str; 3] = ["empty", "filled", "uncertain"];
const SLOT_JOB_STATES: [&str; 7] =
    ["waiting", "sent", "superseded", "expired", "succeeded", "unknown", "failed"];

/// What the queue holds of rooms and slots, in words.
fn rooms_and_slots(queue: &Queue) -> Result<BTreeMap<String, String>, StoreError> {
    let mut all = BTreeMap::new();
    for room in queue.rooms(None)? {
        let is_held = usize::from(room.reservation_key.is_none()) * 2;
        let state = ROOM_STATES[is_held + usize::from(!room.certain)];
        all.insert(format!("room {}", room.room), state.to_owned());
    }
    for slot in queue.slots()? {
        let state = if slot.uncertain { 2 } else { usize::from(slot.may_open) };
        all.insert(format!("slot {}", slot.slot), SLOT_STATES[state].to_owned());
    }
    Ok(all)
}

/// Not a test of its own: the process that is traced.
#[test]
fn works_until_it_is_done() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut bench = Bench::new(Path::new(&folder));
    let mut timers = 0;
    for round in 0..6_u64 {
        bench.start(round);
        for _ in 0..60 {
            bench.step();
        }
        timers += bench.run(|queue| {
            let jobs = queue.jobs(JobFilter { limit: 10_000, ..JobFilter::default() })?;
            Ok(jobs.iter().filter(|job| job.origin == Origin::Timer).count())
        });
        bench.stop();
    }
    assert!(timers > 10, "slots are emptied by jobs of the queue's own: {timers}");
}

struct Bench {
    folder: std::path::PathBuf,
    runtime: Runtime,
    open: Option<(Writer, WriterHandle<Queue>)>,
    notes: Notes,
    random: Random,
    now: i64,
    last: u64,
    standing: BTreeMap<u64, JobState>,
    outbox: BTreeSet<String>,
    /// Orders for slots that were not over when last looked at, and what is at work in their lane.
    for_slots: BTreeSet<u64>,
    in_slots: Vec<JobId>,
    over_for_slots: BTreeSet<u64>,
}

impl Bench {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.join("agent"),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            open: None,
            notes: Notes::in_folder(folder),
            random: Random::seeded(SEED),
            now: 1,
            last: 0,
            standing: BTreeMap::new(),
            outbox: BTreeSet::new(),
            for_slots: BTreeSet::new(),
            in_slots: Vec::new(),
            over_for_slots: BTreeSet::new(),
        }
    }

    fn start(&mut self, round: u64) {
        let mut queue = open(&Storage::folder(&self.folder), &rules());
        let connection = queue.connection();
        if std::env::var_os(LAX).is_some() {
            connection.execute_batch("PRAGMA synchronous=NORMAL").unwrap();
        }
        // In every other life the log is folded back all the time, so that cuts fall into that as well.
        if round % 2 == 1 {
            connection.pragma_update(None, "wal_autocheckpoint", 20).unwrap();
        }
        self.open = Some(Writer::start("queue", queue));
    }

    /// A stop in order: the log is folded back and goes.
    fn stop(&mut self) {
        let (writer, handle) = self.open.take().unwrap();
        drop(handle);
        writer.join();
    }

    fn step(&mut self) {
        self.now += 1;
        match self.random.below(32) {
            0..=5 => self.arrive(1, true),
            6 => self.arrive(1, false),
            // They share a commit.
            7 => self.arrive(7, false),
            8..=9 => self.claim(),
            10..=15 => self.finish(),
            16 => self.cancel(),
            17 => self.resolve(),
            18 => self.deliver(),
            19 => self.purge(),
            20 => self.unsend(),
            21 => self.begin_epoch(),
            22..=25 => self.order_slot(),
            26..=27 => self.claim_slot(),
            28..=30 => self.finish_slot(),
            _ => self.expire(),
        }
    }

    /// Proven: nothing was written after all.
    fn unsend(&mut self) {
        let Some(number) = self.one_of(JobState::Sent) else { return };
        let now = self.now;
        self.notes.tried([(name(number), "waiting")]);
        self.tried_rooms([number]);
        let why = Refusal::new(Code::LineLost, "the line went down");
        self.run(move |queue| queue.unsend(at(now), id(u128::from(number)), &why));
        self.told(&[(number, JobState::Waiting)], 0);
    }

    /// The cloud remembers less than it once did: what it does not hold is numbered anew.
    fn begin_epoch(&mut self) {
        let last = self.run(|queue| {
            let epoch = queue.memory()?.reports.last.epoch + 1;
            queue.begin_reports_epoch(epoch)?;
            Ok(queue.memory()?.reports.last)
        });
        self.tell(Told { reports: last, ..Told::default() });
    }

    fn order_slot(&mut self) {
        self.last += 1;
        let (now, number) = (self.now, self.last);
        let slot = SLOTS[usize::try_from(self.random.below(SLOTS.len() as u64)).unwrap()];
        let below = |most| self.random.below(most).cast_signed();
        let order = if below(4) == 0 {
            remove(slot)
        } else {
            let starts_at = now + below(20);
            put(slot, number, starts_at, Some(starts_at + 4 + below(20)))
        };
        let mut job = job(u128::from(number), order);
        job.expires_at = at(now + 8 + below(20));
        let admission = Admission { lead: SLOT_LEAD, ..Admission::to(lane(SLOT_LANE), Vec::new()) };
        let position = Position { epoch: 1, n: number };
        self.for_slots.insert(number);
        self.tried_slots();
        let accepted = self.run(move |queue| queue.accept(at(now), Some(position), job, Ok(admission), true));
        if let Accepted::Sent(claimed) = accepted {
            self.in_slots.push(claimed.job.job_id);
        }
        self.told_slots(position);
    }

    /// Timers come due, and the next job of the slots' lane is begun.
    fn claim_slot(&mut self) {
        let now = self.now;
        self.tried_slots();
        let claimed = self.run(move |queue| {
            queue.come_due(at(now))?;
            queue.claim(at(now), &lane(SLOT_LANE))
        });
        self.in_slots.extend(claimed.map(|claimed| claimed.job.job_id));
        self.told_slots(Position::default());
    }

    fn finish_slot(&mut self) {
        if self.in_slots.is_empty() {
            return;
        }
        let at_work = self.random.below(self.in_slots.len() as u64);
        let job_id = self.in_slots.remove(usize::try_from(at_work).unwrap());
        let outcome = match self.random.below(6) {
            0 => None,
            1 => Some(Outcome::unknown(Code::NoAnswer, "the lock fell silent")),
            2 => Some(Outcome::failed(Code::Rejected, "the lock refused")),
            _ => Some(crate::queue_support::written()),
        };
        let now = self.now;
        self.tried_slots();
        self.run(move |queue| match outcome {
            Some(outcome) => queue.finish(at(now), job_id, outcome),
            None => queue.unsend(at(now), job_id, &Refusal::new(Code::DeviceOffline, "the lock is away")),
        });
        self.told_slots(Position::default());
    }

    /// Deadlines pass; those of the cards are far away.
    fn expire(&mut self) {
        let now = self.now;
        self.tried_slots();
        self.run(move |queue| queue.expire(at(now)));
        self.told_slots(Position::default());
    }

    /// From now on what is about slots may stand anywhere.
    fn tried_slots(&mut self) {
        let jobs = self.for_slots.iter().flat_map(|job| SLOT_JOB_STATES.map(|state| (name(*job), state)));
        let slots = SLOTS.iter().flat_map(|slot| SLOT_STATES.map(|state| (format!("slot {slot}"), state)));
        self.notes.tried(jobs.chain(slots).collect::<Vec<_>>());
    }

    /// And now it is known where.
    fn told_slots(&mut self, orders: Position) {
        let numbers: Vec<_> = self.for_slots.iter().copied().collect();
        let (mut jobs, states) = self.run(move |queue| {
            let mut states = Vec::new();
            for number in numbers {
                let detail = queue.job(id(u128::from(number)))?.expect("it is not over, or just now");
                states.push((number, detail.view.state));
            }
            Ok((slots_of(queue)?, states))
        });
        for (number, state) in states {
            jobs.push((name(number), state.to_string()));
            if state.is_over() {
                self.for_slots.remove(&number);
                self.reported(number, 1);
                self.over_for_slots.insert(number);
            }
        }
        self.tell(Told { jobs, orders, ..Told::default() });
    }

    fn tried_rooms(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let rooms = numbers.into_iter().flat_map(|number| ROOM_STATES.map(|state| (room(number), state)));
        self.notes.tried(rooms.collect::<Vec<_>>());
    }

    fn arrive(&mut self, count: u64, may_send: bool) {
        let handle = self.open.as_ref().unwrap().1.clone();
        let mut answers = Vec::new();
        for _ in 0..count {
            self.last += 1;
            let (now, number) = (self.now, self.last);
            let position = Position { epoch: 1, n: number };
            // Each has a room of its own, so that none waits for another's end.
            let room = (1000 + number).to_string();
            let encoder = (number % 3 + 1).to_string();
            let job = job(u128::from(number), card_at(&encoder, &[&room], &format!("stay {number}")));
            let admission = admission(&job.order);
            self.notes.tried(["sent", "waiting"].map(|state| (name(number), state)));
            self.tried_rooms([number]);
            let accept =
                move |queue: &mut Queue| queue.accept(at(now), Some(position), job, Ok(admission), may_send);
            answers.push((number, handle.submit(accept)));
        }
        for (number, answer) in answers {
            let accepted = self.runtime.block_on(answer).unwrap().unwrap();
            let state = match accepted {
                Accepted::Sent(_) => JobState::Sent,
                Accepted::Waiting | Accepted::Unconfirmed => JobState::Waiting,
                other => panic!("{other:?}"),
            };
            self.told(&[(number, state)], number);
        }
    }

    fn claim(&mut self) {
        let encoder = self.random.below(3) + 1;
        let now = self.now;
        let lanes_jobs = self.in_state(JobState::Waiting).into_iter().filter(|job| job % 3 + 1 == encoder);
        let lanes_jobs: Vec<_> = lanes_jobs.collect();
        self.notes.tried(lanes_jobs.iter().map(|number| (name(*number), "sent")).collect::<Vec<_>>());
        self.tried_rooms(lanes_jobs);
        let lane = lane(&encoder.to_string());
        if let Some(claimed) = self.run(move |queue| queue.claim(at(now), &lane)) {
            let number = u64::try_from(claimed.job.job_id.0.as_u128()).unwrap();
            self.told(&[(number, JobState::Sent)], 0);
        }
    }

    fn finish(&mut self) {
        let Some(number) = self.one_of(JobState::Sent) else { return };
        let outcome = match self.random.below(4) {
            0 => Outcome::unknown(Code::NoAnswer, "the encoder fell silent"),
            1 => Outcome::failed(Code::NoCard, "nobody laid a card down"),
            _ => crate::queue_support::written(),
        };
        let (now, state) = (self.now, outcome.state());
        self.notes.tried([(name(number), state.as_str())]);
        self.tried_rooms([number]);
        self.run(move |queue| queue.finish(at(now), id(u128::from(number)), outcome));
        self.reported(number, 1);
        self.told(&[(number, state)], 0);
    }

    fn cancel(&mut self) {
        let Some(number) = self.one_of(JobState::Waiting) else { return };
        let now = self.now;
        self.notes.tried([(name(number), "cancelled")]);
        let answer = self.run(move |queue| queue.cancel(at(now), None, id(u128::from(number))));
        assert_eq!(answer, CancelAnswer::Cancelled);
        self.reported(number, 1);
        self.told(&[(number, JobState::Cancelled)], 0);
    }

    fn resolve(&mut self) {
        let Some(number) = self.one_of(JobState::Unknown) else { return };
        let now = self.now;
        self.notes.tried([(name(number), "succeeded resolved")]);
        self.tried_rooms([number]);
        let resolution = Resolution { verdict: Verdict::Done, by: "Ada".into() };
        self.run(move |queue| queue.resolve(at(now), id(u128::from(number)), resolution)).unwrap();
        self.reported(number, 2);
        self.standing.insert(number, JobState::Succeeded);
        let mut jobs = self.rooms_of([number]);
        jobs.push((name(number), "succeeded resolved".to_owned()));
        self.tell(Told { jobs, ..Told::default() });
    }

    /// The cloud says that it holds the reports; they go with a later change.
    fn deliver(&mut self) {
        let up_to = self.run(|queue| queue.memory()).reports.last;
        self.notes.take(&Note::Delivered(std::mem::take(&mut self.outbox).into_iter().collect()));
        self.run(move |queue| {
            queue.acknowledge_reports(up_to);
            Ok(())
        });
    }

    /// Forgets what is over, as much later, when the jobs' deadlines have passed too.
    fn purge(&mut self) {
        let late = self.now + 200_000;
        let over = self.standing.iter().filter(|(_, state)| state.is_over() && **state != JobState::Unknown);
        let over: Vec<_> = over.map(|(number, _)| *number).collect();
        let may_go = over.into_iter().chain(self.over_for_slots.iter().copied()).map(name);
        let may_go = may_go.chain(SLOTS.map(|slot| format!("slot {slot}")));
        self.notes.tried(may_go.map(|what| (what, crate::judge::ABSENT)).collect::<Vec<_>>());
        self.run(move |queue| queue.purge(at(late)));
        let left: BTreeSet<_> = self.run(|queue| {
            let all = JobFilter { limit: 10_000, ..JobFilter::default() };
            Ok(queue.jobs(all)?.into_iter().map(|view| view.job_id.to_string()).collect())
        });
        let known = self.standing.keys().chain(&self.over_for_slots).copied();
        let gone: Vec<_> = known.filter(|job| !left.contains(&name(*job))).collect();
        let mut jobs = self.run(|queue| slots_of(queue));
        for number in gone {
            self.standing.remove(&number);
            self.over_for_slots.remove(&number);
            jobs.push((name(number), crate::judge::ABSENT.to_owned()));
        }
        self.tell(Told { jobs, ..Told::default() });
    }

    fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Queue) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        let handle = &self.open.as_ref().unwrap().1;
        self.runtime.block_on(handle.run(operation)).unwrap()
    }

    fn reported(&mut self, number: u64, revision: u8) {
        self.outbox.insert(format!("{}/{revision}", name(number)));
    }

    fn told(&mut self, jobs: &[(u64, JobState)], orders: u64) {
        self.standing.extend(jobs.iter().copied());
        let mut told = self.rooms_of(jobs.iter().map(|(number, _)| *number));
        told.extend(jobs.iter().map(|(number, state)| (name(*number), state.to_string())));
        let jobs = told;
        let orders = Position { epoch: u64::from(orders > 0), n: orders };
        self.tell(Told { jobs, orders, ..Told::default() });
    }

    /// How these jobs' rooms stand.
    fn rooms_of(&self, numbers: impl IntoIterator<Item = u64>) -> Vec<(String, String)> {
        let all = self.run(|queue| rooms_and_slots(queue));
        let state = |room: &String| all.get(room).map_or(crate::judge::ABSENT, String::as_str).to_owned();
        numbers.into_iter().map(room).map(|room| (room.clone(), state(&room))).collect()
    }

    fn tell(&mut self, told: Told) {
        let outbox = self.outbox.iter().cloned().collect();
        self.notes.take(&Note::Told(Told { outbox, ..told }));
    }

    fn in_state(&self, wanted: JobState) -> Vec<u64> {
        let jobs = self.standing.iter().filter(|(_, state)| **state == wanted);
        jobs.map(|(number, _)| *number).collect()
    }

    fn one_of(&self, wanted: JobState) -> Option<u64> {
        let jobs = self.in_state(wanted);
        let index = usize::try_from(self.random.below(jobs.len().max(1) as u64)).unwrap();
        jobs.get(index).copied()
    }
}

fn name(number: u64) -> String {
    id(u128::from(number)).to_string()
}

/// Each card has a room of its own, so that none waits for another's end.
fn room(number: u64) -> String {
    format!("room {}", 1000 + number)
}

/// How the slots stand.
fn slots_of(queue: &Queue) -> Result<Vec<(String, String)>, StoreError> {
    let all = rooms_and_slots(queue)?;
    let state = |slot: &String| all.get(slot).map_or(crate::judge::ABSENT, String::as_str).to_owned();
    Ok(SLOTS
        .map(|slot| format!("slot {slot}"))
        .into_iter()
        .map(|slot| (slot.clone(), state(&slot)))
        .collect())
}
