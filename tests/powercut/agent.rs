//! The agent's queue, worked through its writer: arrivals, marks, ends, doubts, acknowledgements, purges, bursts,
//! checkpoints, new starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use latchd::{
    model::{Code, JobState, Outcome, Resolution, Verdict},
    protocol::{Message, Position},
    queue::{Accepted, CancelAnswer, JobFilter, Queue},
    seams::{Random, Storage},
    store::{Store, StoreError, Writer, WriterHandle},
};
use tokio::runtime::Runtime;

use crate::{
    judge::{Cuts, Found, Known, Note, Notes, Replay, Told, replay},
    queue_support::{admission, at, card_at, id, job, lane, open, rules},
    trace::traced,
};

const FOLDER: &str = "POWERCUT_QUEUE_IN";
const LAX: &str = "POWERCUT_LAX";
const SEED: u64 = 20;

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
    for view in queue.jobs(JobFilter { limit: 10_000, ..JobFilter::default() })? {
        // All of it must open, not only the row's plain part.
        let detail = queue.job(view.job_id)?.expect("it is listed");
        let state = match &detail.outcome {
            Some(_) if detail.resolution.is_some() => format!("{} resolved", view.state),
            Some(outcome) if outcome.state() == view.state => view.state.to_string(),
            Some(outcome) => format!("{} with the outcome {}", view.state, outcome.state()),
            None => view.state.to_string(),
        };
        found.jobs.insert(view.job_id.to_string(), state);
    }
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

/// Not a test of its own: the process that is traced.
#[test]
fn works_until_it_is_done() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut bench = Bench::new(Path::new(&folder));
    for round in 0..6_u64 {
        bench.start(round);
        for _ in 0..50 {
            bench.step();
        }
        bench.stop();
    }
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
        match self.random.below(20) {
            0..=5 => self.arrive(1, true),
            6 => self.arrive(1, false),
            // They share a commit.
            7 => self.arrive(7, false),
            8..=9 => self.claim(),
            10..=15 => self.finish(),
            16 => self.cancel(),
            17 => self.resolve(),
            18 => self.deliver(),
            _ => self.purge(),
        }
    }

    fn arrive(&mut self, count: u64, may_send: bool) {
        let handle = &self.open.as_ref().unwrap().1;
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
            let accept =
                move |queue: &mut Queue| queue.accept(at(now), Some(position), job, Ok(admission), may_send);
            answers.push((number, handle.submit(accept)));
        }
        for (number, answer) in answers {
            let accepted = self.runtime.block_on(answer).unwrap().unwrap();
            let state = match accepted {
                Accepted::Sent(_) => JobState::Sent,
                Accepted::Waiting => JobState::Waiting,
                other => panic!("{other:?}"),
            };
            self.told(&[(number, state)], number);
        }
    }

    fn claim(&mut self) {
        let encoder = self.random.below(3) + 1;
        let now = self.now;
        let lanes_jobs = self.in_state(JobState::Waiting).into_iter().filter(|job| job % 3 + 1 == encoder);
        self.notes.tried(lanes_jobs.map(|number| (name(number), "sent")).collect::<Vec<_>>());
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
        let resolution = Resolution { verdict: Verdict::Done, by: "Ada".into() };
        self.run(move |queue| queue.resolve(at(now), id(u128::from(number)), resolution)).unwrap();
        self.reported(number, 2);
        self.standing.insert(number, JobState::Succeeded);
        let jobs = vec![(name(number), "succeeded resolved".to_owned())];
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
        self.notes.tried(over.into_iter().map(|number| (name(number), crate::judge::ABSENT)));
        self.run(move |queue| queue.purge(at(late)));
        let left: BTreeSet<_> = self.run(|queue| {
            let all = JobFilter { limit: 10_000, ..JobFilter::default() };
            Ok(queue.jobs(all)?.into_iter().map(|view| view.job_id.to_string()).collect())
        });
        let gone: Vec<_> = self.standing.keys().copied().filter(|job| !left.contains(&name(*job))).collect();
        let mut jobs = Vec::new();
        for number in gone {
            self.standing.remove(&number);
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
        let jobs = jobs.iter().map(|(number, state)| (name(*number), state.to_string())).collect();
        let orders = Position { epoch: u64::from(orders > 0), n: orders };
        self.tell(Told { jobs, orders, ..Told::default() });
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
