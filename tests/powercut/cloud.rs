//! The cloud's database, worked through its writer: orders made, handed out, acknowledged and taken back, reports
//! taken, connections that come and go.

use std::{collections::BTreeMap, path::Path, process::Command};

use latchd::{
    cloud::store::{Cancel, Db, Standing, Taken},
    model::{BridgeId, JobId, Report},
    protocol::{Memory, Position},
    seal::SealKey,
    seams::{Random, Storage},
    store::{Store, StoreError, Writer, WriterHandle},
};
use tokio::runtime::Runtime;

use crate::{
    judge::{Cuts, Found, Known, Notes, Replay, Told, replay},
    queue_support::{at, card, id, job, written},
    trace::traced,
};

const FOLDER: &str = "POWERCUT_CLOUD_IN";
const LAX: &str = "POWERCUT_LAX";
const SEED: u64 = 21;

#[test]
fn what_the_cloud_acknowledged_survives_every_power_cut() {
    let Some(replay) = cut(false, Cuts { answers: 1, at_answers: 1, at_syncs: 1 }) else { return };
    assert!(replay.wrongs.is_empty(), "{:#?}", replay.wrongs);
    assert!(replay.acknowledged >= 300 && replay.torn >= 200, "{replay:?}");
}

#[test]
fn with_less_than_full_syncs_the_cloud_would_lose_what_it_acknowledged() {
    let Some(replay) = cut(true, Cuts { answers: 4, at_answers: 0, at_syncs: 0 }) else { return };
    assert!(replay.acknowledged >= 300 && replay.lost > replay.worst / 2, "{replay:?}");
}

fn cut(lax: bool, cuts: Cuts) -> Option<Replay> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("disk")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "cloud::works_until_it_is_done", "--nocapture"]);
    command.env(FOLDER, folder.path().join("disk"));
    if lax {
        command.env(LAX, "1");
    }
    traced(&mut command, &folder.path().join("trace"))?;
    let name = if lax { "cloud-lax" } else { "cloud" };
    Some(replay::<Known>(name, folder.path(), SEED, cuts, look))
}

fn look(folder: &Path, known: &Known) -> Vec<String> {
    match found(folder) {
        Ok(found) => known.wrongs(&found),
        Err(error) => vec![error.chain()],
    }
}

fn open(folder: &Path) -> Result<Db, StoreError> {
    let random = Random::seeded(7);
    let seal = SealKey::new([7; 32], random.clone());
    Db::open(&Storage::folder(folder.join("cloud")), seal, random)
}

fn found(folder: &Path) -> Result<Found, StoreError> {
    let mut db = open(folder)?;
    let check: String = db.connection().query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(StoreError::corrupt("quick_check", check));
    }
    let mut found = Found::default();
    let jobs: Vec<String> = {
        let sql = "SELECT job_id FROM bridge_order WHERE what = 'job'";
        let mut statement = db.connection().prepare(sql)?;
        let jobs = statement.query_map([], |row| row.get(0))?;
        jobs.collect::<Result<_, _>>()?
    };
    for job in jobs {
        let standing = db.standing(JobId(job.parse().unwrap()))?.expect("it is there");
        found.jobs.insert(job, word(standing).to_owned());
    }
    let sql = "SELECT orders_epoch, orders_acknowledged, reports_epoch, reports_n FROM bridge";
    let memory = db.connection().query_row(sql, [], |row| {
        let number = |column| row.get(column).map(i64::cast_unsigned);
        Ok((number(0)?, number(1)?, number(2)?, number(3)?))
    });
    match memory {
        Ok(memory) => {
            found.orders = Position { epoch: memory.0, n: memory.1 };
            found.reports = Position { epoch: memory.2, n: memory.3 };
        }
        Err(rusqlite::Error::QueryReturnedNoRows) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(found)
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Waiting => "waiting",
        Standing::Handed => "handed",
        Standing::Acknowledged => "acknowledged",
        Standing::Over => "over",
    }
}

/// Not a test of its own: the process that is traced.
#[test]
fn works_until_it_is_done() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut bench = Bench::new(Path::new(&folder));
    for round in 0..6_u64 {
        bench.start(round);
        for _ in 0..60 {
            bench.step();
        }
        bench.stop();
    }
}

struct Bench {
    folder: std::path::PathBuf,
    runtime: Runtime,
    open: Option<(Writer, WriterHandle<Db>)>,
    bridge: Option<BridgeId>,
    notes: Notes,
    random: Random,
    now: i64,
    last: u64,
    connection: u64,
    /// What the bridge holds and has told, as it would remember it.
    handed: u64,
    held: u64,
    told: u64,
    standing: BTreeMap<u64, &'static str>,
}

impl Bench {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            open: None,
            bridge: None,
            notes: Notes::in_folder(folder),
            random: Random::seeded(SEED),
            now: 1,
            last: 0,
            connection: 0,
            handed: 0,
            held: 0,
            told: 0,
            standing: BTreeMap::new(),
        }
    }

    fn start(&mut self, round: u64) {
        let mut db = open(&self.folder).unwrap();
        if std::env::var_os(LAX).is_some() {
            db.connection().execute_batch("PRAGMA synchronous=NORMAL").unwrap();
        }
        if round % 2 == 1 {
            db.connection().pragma_update(None, "wal_autocheckpoint", 20).unwrap();
        }
        self.open = Some(Writer::start("cloud", db));
        if self.bridge.is_none() {
            let bridge = self.run(|db| {
                let workspace = db.found(at(0), "Home", [1; 32])?;
                db.the_bridge(at(0), workspace)
            });
            self.bridge = Some(bridge);
        }
        // A new process knows no connection.
        self.meet();
    }

    fn stop(&mut self) {
        let (writer, handle) = self.open.take().unwrap();
        drop(handle);
        writer.join();
    }

    fn step(&mut self) {
        self.now += 1;
        match self.random.below(20) {
            0..=6 => self.order(1),
            7 => self.order(9),
            8..=11 => self.acknowledge(),
            12..=16 => self.report(),
            17..=18 => self.take_back(),
            _ => self.meet(),
        }
    }

    fn order(&mut self, count: u64) {
        let handle = &self.open.as_ref().unwrap().1;
        let mut answers = Vec::new();
        for _ in 0..count {
            self.last += 1;
            let (now, bridge, number) = (self.now, self.bridge.unwrap(), self.last);
            let job = job(u128::from(number), card(&["101"], &format!("stay {number}")));
            self.notes.tried([(name(number), "handed")]);
            answers.push((number, handle.submit(move |db: &mut Db| db.enqueue_job(at(now), bridge, &job))));
        }
        for (number, answer) in answers {
            self.runtime.block_on(answer).unwrap().unwrap();
            self.handed += 1;
            self.stands(&[(number, "handed")]);
        }
    }

    /// The bridge holds some more of what it was sent.
    fn acknowledge(&mut self) {
        let (bridge, connection) = (self.bridge.unwrap(), self.connection);
        let to_hold = self.random.below(self.handed - self.held + 1) + self.held;
        if to_hold == self.held {
            return;
        }
        let after = self.held;
        let orders = self.run(move |db| db.orders_to_send(bridge, connection, after, 1000)).unwrap();
        assert_eq!(orders.len() as u64, self.handed - self.held);
        let position = Position { epoch: 1, n: to_hold };
        let held = orders.iter().take_while(|order| order.position.is_some_and(|at| at <= position));
        let held: Vec<u64> = held
            .filter_map(|order| {
                let body: serde_json::Value = serde_json::from_str(&order.body).unwrap();
                // The others take jobs back.
                (body["message"] == "job").then(|| number(body["job_id"].as_str().unwrap()))
            })
            .collect();
        let moved: Vec<_> = held
            .into_iter()
            .filter(|number| self.standing.get(number) == Some(&"handed"))
            .map(|number| (number, "acknowledged"))
            .collect();
        self.notes.tried(moved.iter().map(|(number, word)| (name(*number), *word)));
        assert!(self.run(move |db| db.orders_acknowledged(bridge, connection, position)));
        self.held = to_hold;
        self.stands(&moved);
    }

    fn report(&mut self) {
        let Some(number) = self.one_of("acknowledged") else { return };
        let (bridge, connection, now) = (self.bridge.unwrap(), self.connection, self.now);
        let position = Position { epoch: 1, n: self.told + 1 };
        let report = Report {
            job_id: id(u128::from(number)),
            revision: 1,
            at: at(now),
            outcome: written(),
            resolution: None,
            rooms: Vec::new(),
            local: None,
        };
        self.notes.tried([(name(number), "over")]);
        let taken = self.run(move |db| db.take_report(at(now), bridge, connection, position, &report));
        assert_eq!(taken, Taken::Applied);
        self.told += 1;
        self.stands(&[(number, "over")]);
    }

    /// A cancel takes its place in the stream behind the order.
    fn take_back(&mut self) {
        let Some(number) = self.one_of("handed") else { return };
        let (bridge, now) = (self.bridge.unwrap(), self.now);
        let handed = "SELECT orders_last FROM bridge";
        let answer = self.run(move |db| db.enqueue_cancel(at(now), bridge, id(u128::from(number))));
        assert_eq!(answer, Cancel::Ordered);
        self.handed = self
            .run(|db| Ok(db.connection().query_row(handed, [], |row| row.get::<_, i64>(0))?.cast_unsigned()));
        self.stands(&[]);
    }

    fn meet(&mut self) {
        self.connection += 1;
        let (bridge, connection, now) = (self.bridge.unwrap(), self.connection, self.now);
        let memory = Memory {
            orders_received: Position { epoch: u64::from(self.held > 0), n: self.held },
            reports_sent: Position { epoch: 1, n: self.told },
            reports_acknowledged: Position { epoch: 1, n: self.told },
            orders_limit: 1_000_000,
        };
        let meeting = self.run(move |db| db.meet(at(now), bridge, connection, &memory));
        assert!(meeting.lost.is_empty(), "{meeting:?}");
        assert_eq!(meeting.orders_epoch_reason, None, "{meeting:?}");
    }

    fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        let handle = &self.open.as_ref().unwrap().1;
        self.runtime.block_on(handle.run(operation)).unwrap()
    }

    fn stands(&mut self, jobs: &[(u64, &'static str)]) {
        self.standing.extend(jobs.iter().copied());
        let told = Told {
            jobs: jobs.iter().map(|(number, word)| (name(*number), (*word).to_owned())).collect(),
            orders: Position { epoch: 1, n: self.held },
            reports: Position { epoch: u64::from(self.told > 0), n: self.told },
            outbox: Vec::new(),
        };
        self.notes.take(&crate::judge::Note::Told(told));
    }

    fn one_of(&self, wanted: &str) -> Option<u64> {
        let jobs: Vec<_> = self.standing.iter().filter(|(_, word)| **word == wanted).collect();
        let index = usize::try_from(self.random.below(jobs.len().max(1) as u64)).unwrap();
        jobs.get(index).map(|(number, _)| **number)
    }
}

fn name(number: u64) -> String {
    id(u128::from(number)).to_string()
}

fn number(job_id: &str) -> u64 {
    u64::try_from(job_id.parse::<uuid::Uuid>().unwrap().as_u128()).unwrap()
}
