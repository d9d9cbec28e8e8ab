//! Agent, cloud and lock server as processes, from the first card to the last, with the power cut for all of them at
//! once: what each end says of the other must be so, and so must what people were told.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use latchd::{
    cloud::store::Db,
    queue::{Queue, Rules},
    seal::SealKey,
    seams::{Random, Storage},
    store::Store,
};
use serde::{Deserialize, Serialize};

use crate::{
    judge::{Cuts, Knows, replay},
    site::Site,
    trace::{NOTES, traced},
};

const FOLDER: &str = "POWERCUT_PROPERTY_IN";
const SEED: u64 = 22;

#[test]
fn what_people_were_told_and_what_both_ends_told_each_other_survives_every_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "property::works_until_it_is_done", "--nocapture"]);
    command.env(FOLDER, &disk).env("TMPDIR", &disk);
    let Some(()) = traced(&mut command, &folder.path().join("trace")) else { return };
    let cuts = Cuts { answers: 1, at_answers: 1, at_syncs: 1 };
    let replay = replay::<Heard>("property", folder.path(), SEED, cuts, look);
    assert!(replay.wrongs.is_empty(), "{:#?}", replay.wrongs);
    assert!(replay.acknowledged >= 60 && replay.torn >= 60, "{replay:?}");
}

/// What somebody saw.
#[derive(Debug, Serialize, Deserialize)]
enum Saw {
    Grant(String),
    Attempt(String, String),
    /// So many writing commands have reached the lock server.
    Commands(u64),
}

/// All that was seen.
#[derive(Debug, Default, Clone)]
struct Heard {
    grants: BTreeSet<String>,
    attempts: BTreeMap<String, String>,
    commands: u64,
}

impl Knows for Heard {
    fn note(&mut self, line: &str) -> bool {
        match serde_json::from_str(line).unwrap() {
            Saw::Grant(grant) => {
                self.grants.insert(grant);
            }
            Saw::Attempt(attempt, status) => {
                self.attempts.insert(attempt, status);
            }
            Saw::Commands(commands) => self.commands = commands,
        }
        true
    }
}

fn look(folder: &Path, heard: &Heard) -> Vec<String> {
    let mut wrongs = Vec::new();
    let property = std::fs::read_dir(folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.is_dir().then_some(path)
    });
    let (mut cloud, mut agent) = (None, None);
    if let Some(property) = &property {
        cloud = opened(&property.join("cloud"), "cloud.db", &mut wrongs, |storage, seal| {
            Db::open(&storage, seal, Random::seeded(1))
        });
        agent = opened(&property.join("agent"), "queue.db", &mut wrongs, |storage, seal| {
            Queue::open(&storage, seal, Random::seeded(1), Rules::default())
        });
    }

    let mut grants: BTreeSet<String> = BTreeSet::new();
    let mut attempts: BTreeMap<String, String> = BTreeMap::new();
    let mut of_cloud = (0, 0, 0, 0);
    if let Some(db) = &mut cloud {
        let connection = db.connection();
        let mut statement = connection.prepare("SELECT access_grant_id FROM access_grant").unwrap();
        grants = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut statement =
            connection.prepare("SELECT action_attempt_id, status FROM action_attempt").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        attempts = rows.map(Result::unwrap).collect();
        let sql = "SELECT orders_epoch, orders_acknowledged, reports_epoch, reports_n FROM bridge";
        of_cloud = four(connection, sql);
    }
    let (mut of_agent, mut marked) = ((0, 0, 0, 0), 0);
    if let Some(queue) = &mut agent {
        let memory = queue.memory().unwrap();
        let (orders, reports) = (memory.orders_received, memory.reports);
        of_agent =
            [orders.epoch, orders.n, reports.last.epoch, reports.acknowledged].map(u64::cast_signed).into();
        let sql = "SELECT count(*) FROM job WHERE attempt > 0 AND kind = 'card.encode'";
        marked = queue.connection().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned();
    }

    wrongs.extend(heard.grants.difference(&grants).map(|grant| format!("grant {grant} is lost")));
    for (attempt, status) in &heard.attempts {
        let found = attempts.get(attempt);
        if found.is_none_or(|found| status != "pending" && found != status) {
            wrongs.push(format!("attempt {attempt} is {found:?}, and somebody was told {status}"));
        }
    }
    if marked < heard.commands {
        wrongs.push(format!("{} commands left, {marked} marks are there", heard.commands));
    }
    if of_cloud.1 > 0 && (of_agent.0, of_agent.1) < (of_cloud.0, of_cloud.1) {
        wrongs.push(format!("the cloud was told of orders that the agent lost: {of_cloud:?} {of_agent:?}"));
    }
    if of_agent.3 > 0 && (of_cloud.2, of_cloud.3) < (of_agent.2, of_agent.3) {
        wrongs.push(format!("the agent was told of reports that the cloud lost: {of_agent:?} {of_cloud:?}"));
    }
    wrongs
}

/// A database, with its own key, if it has a file yet.
fn opened<S: Store>(
    folder: &Path,
    file: &str,
    wrongs: &mut Vec<String>,
    open: impl FnOnce(Storage, SealKey) -> Result<S, latchd::store::StoreError>,
) -> Option<S> {
    if !folder.join(file).exists() {
        return None;
    }
    let seal = match SealKey::from_file(&folder.join("seal.key"), Random::seeded(1)) {
        Ok(seal) => seal,
        Err(error) => {
            wrongs.push(format!("{file} without its key: {error}"));
            return None;
        }
    };
    let mut store = match open(Storage::folder(folder), seal) {
        Ok(store) => store,
        Err(error) => {
            wrongs.push(format!("{file}: {}", error.chain()));
            return None;
        }
    };
    let check = store.connection().query_row("PRAGMA quick_check", [], |row| row.get::<_, String>(0));
    if check.as_deref() != Ok("ok") {
        wrongs.push(format!("{file}: {check:?}"));
    }
    Some(store)
}

fn four(connection: &rusqlite::Connection, sql: &str) -> (i64, i64, i64, i64) {
    let found = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    // No bridge yet.
    found.unwrap_or((0, 0, 0, 0))
}

/// Not a test of its own: the process that is traced, with those that it starts.
#[test]
fn works_until_it_is_done() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let notes = Path::new(&folder).join(NOTES);
    let mut notes = std::fs::File::options().create(true).append(true).open(notes).unwrap();
    let mut saw = |saw: Saw| {
        let line = serde_json::to_string(&saw).unwrap() + "\n";
        std::io::Write::write_all(&mut notes, line.as_bytes()).unwrap();
    };
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let mut site = Site::start();
    // Whose folders these are in is not the programs' concern.
    std::fs::File::open(&folder).unwrap().sync_all().unwrap();
    for number in 0..14_u64 {
        let room = format!("10{}", number % 5 + 1);
        let (grant, method) = site.grant("Jane Doe", &format!("stay {number}"), &[&room]);
        saw(Saw::Grant(text(&grant)));
        let attempt = site.encode(&method, "1");
        saw(Saw::Attempt(text(&attempt), "pending".into()));
        site.waits_for_card("1");
        saw(Saw::Commands(number + 1));
        if number == 5 {
            // The mark is all that is left of this one.
            site.agent().kill();
            written_again(&site.folder.path().join("agent/queue.db"));
            site.control(&format!("place card-{number} on 1"));
            site.control("wait idle 1");
            site.restart_agent();
        } else {
            site.control(&format!("place card-{number} on 1"));
        }
        let ended = site.ended(&attempt);
        saw(Saw::Attempt(text(&attempt), text(&ended["status"])));
        site.control("remove 1");
        for more in 0..3 {
            let (grant, _) = site.grant("Jane Doe", &format!("more {number} {more}"), &[&room]);
            saw(Saw::Grant(text(&grant)));
        }
        if number == 9 {
            site.cloud().kill();
            written_again(&site.folder.path().join("cloud/cloud.db"));
            site.restart_cloud();
        }
    }
    // Their folder goes with the site, and they would go on writing to files without a name meanwhile.
    site.agent = None;
    site.cloud = None;
    site.kill_sim();
}

/// Writes a database and its log as they are. A write during which its process was killed may have been done and may not,
/// and the trace does not say; the next process finds the one or the other, and builds on it.
fn written_again(database: &Path) {
    for end in ["", "-wal"] {
        let mut path = database.as_os_str().to_owned();
        path.push(end);
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let mut file = std::fs::File::options().write(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
    }
}
