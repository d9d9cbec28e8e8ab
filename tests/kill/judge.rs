//! What the lock server did, against what agent and cloud say of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    process::Output,
};

use jiff::{SignedDuration, Timestamp};
use latchd::{
    model::{JobId, Order},
    queue::{Queue, Rules},
    seal::SealKey,
    seams::{Random, Storage},
};
use rusqlite::Connection;
use serde_json::Value;

use crate::{
    desk::{House, Made, control},
    keypad::{self, Doors},
    killer::{Killer, Moment},
    site::{Site, latchd, until},
};

/// What a house came to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) folder: String,
    pub(crate) wrongs: Vec<String>,
    pub(crate) kills: u64,
    pub(crate) by_moment: BTreeMap<Moment, u64>,
    pub(crate) jobs: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
    /// Doubts about something that the lock server never did.
    pub(crate) cut_unsent: u64,
    pub(crate) resolved: u64,
    pub(crate) cancelled: u64,
    /// Rooms that were freed.
    pub(crate) freed: u64,
    pub(crate) doors: keypad::Came,
}

impl Verdict {
    pub(crate) fn add(&mut self, house: &Self) {
        let sums = [
            (&mut self.kills, house.kills),
            (&mut self.jobs, house.jobs),
            (&mut self.succeeded, house.succeeded),
            (&mut self.failed, house.failed),
            (&mut self.unknown, house.unknown),
            (&mut self.cut_unsent, house.cut_unsent),
            (&mut self.resolved, house.resolved),
            (&mut self.cancelled, house.cancelled),
            (&mut self.freed, house.freed),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
        for (moment, kills) in &house.by_moment {
            *self.by_moment.entry(*moment).or_default() += kills;
        }
        self.doors.add(&house.doors);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills {:?}; {} jobs: {} succeeded, {} failed, {} cancelled, {} in doubt ({} of them never done, {} \
             resolved); {} rooms freed; {:?}",
            self.kills,
            self.by_moment,
            self.jobs,
            self.succeeded,
            self.failed,
            self.cancelled,
            self.unknown,
            self.cut_unsent,
            self.resolved,
            self.freed,
            self.doors
        )
    }
}

/// A job as the agent has it.
pub(crate) struct Held {
    pub(crate) state: String,
    pub(crate) kind: String,
    pub(crate) origin: String,
    pub(crate) marks: u64,
    is_resolved: bool,
    /// It waits for a time that no test sees.
    pub(crate) is_far: bool,
}

/// An attempt as the cloud has it.
struct Attempt {
    id: String,
    job: String,
    method: String,
    status: String,
    error: String,
}

/// What the lock server did for one end of a card.
#[derive(Default)]
struct Done {
    orders: u64,
    written: u64,
}

/// Doubts that are settled by a person in each house.
const RESOLVED: usize = 3;

/// Waits until nothing is at work any more, settles some doubts, and compares.
pub(crate) fn judge(
    house: &House,
    doors: &Doors,
    site: &Site,
    mut killer: Killer,
    killed: BTreeMap<Moment, u64>,
) -> Verdict {
    let mut verdict = Verdict { kills: killed.values().sum(), by_moment: killed, ..Verdict::default() };
    let mut wrongs = Vec::new();
    quiet(site);
    let made = house.made.lock().unwrap();
    let by_end = done_by_end(house, &made);
    verdict.resolved = resolve_some(site, &made, &by_end, &mut wrongs);
    quiet(site);
    if !killer.survived() {
        wrongs.push("a process ended by itself".to_owned());
    }
    killer.end();

    let agent = Connection::open(house.folder.join("agent/queue.db")).unwrap();
    let cloud = Connection::open(house.folder.join("cloud/cloud.db")).unwrap();
    for (name, database) in [("agent", &agent), ("cloud", &cloud)] {
        let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        if check != "ok" {
            wrongs.push(format!("the {name}'s database: {check}"));
        }
    }
    let held = held(&agent);
    let attempts = attempts(&cloud);
    let issued = issued(&cloud);

    for (job, held) in held.iter().filter(|(_, held)| !keypad::is_of_a_door(held)) {
        verdict.jobs += 1;
        match held.state.as_str() {
            "unknown" => verdict.unknown += 1,
            "succeeded" if held.is_resolved => verdict.unknown += 1,
            "failed" if held.is_resolved => verdict.unknown += 1,
            "succeeded" => verdict.succeeded += 1,
            "failed" | "expired" => verdict.failed += 1,
            "cancelled" => verdict.cancelled += 1,
            other => wrongs.push(format!("job {job} ({}) is still {other}", held.kind)),
        }
        if held.state == "unknown" && held.marks == 0 {
            wrongs.push(format!("job {job} is in doubt and was never marked"));
        }
    }
    for (job, handed, is_over) in ordered(&cloud) {
        if handed && !held.contains_key(&job) {
            wrongs.push(format!("job {job} was handed out and the agent does not know it"));
        }
        if !is_over {
            wrongs.push(format!("the cloud never heard how job {job} ended"));
        }
    }

    let known: BTreeSet<&str> = attempts.iter().map(|attempt| attempt.id.as_str()).collect();
    for card in made.iter() {
        for attempt in &card.attempts {
            if !known.contains(attempt.as_str()) {
                wrongs.push(format!("attempt {attempt} was acknowledged and is not there"));
            }
        }
        let jobs: Vec<_> = attempts.iter().filter(|attempt| attempt.method == card.method).collect();
        let done = by_end.get(&card.end).unwrap_or(&Done { orders: 0, written: 0 });
        let of = |wanted: &dyn Fn(&Held) -> bool| {
            jobs.iter().filter(|attempt| held.get(&attempt.job).is_some_and(wanted)).count() as u64
        };
        let marked = of(&|held| 0 < held.marks);
        let succeeded = of(&|held| held.state == "succeeded" && !held.is_resolved);
        let doubted = of(&|held| held.state == "unknown" || held.is_resolved);
        let found_done = of(&|held| held.state == "succeeded");
        let story = || {
            let jobs = jobs.iter().map(|attempt| {
                let held = held.get(&attempt.job).map(|held| (&held.state, held.marks, held.is_resolved));
                (&attempt.job, &attempt.status, &attempt.error, held)
            });
            format!(
                "{:?}; the lock server: {} orders, {} written",
                jobs.collect::<Vec<_>>(),
                done.orders,
                done.written
            )
        };
        if done.orders > marked {
            wrongs.push(format!("a command left without a mark, or twice for one job: {}", story()));
        }
        if done.written < succeeded || succeeded + doubted < done.written {
            wrongs.push(format!("what was written is not what was told: {}", story()));
        }
        // Who deleted the grant is told of its cards no more.
        let events = issued.get(&card.method).copied().unwrap_or(0);
        if found_done < events || (!card.is_unwanted && events < found_done) {
            wrongs.push(format!("{events} events of an issued card: {}", story()));
        }
        if 0 < doubted && done.orders < doubted {
            verdict.cut_unsent += doubted - done.orders;
        }
        for attempt in &jobs {
            let fits = match (attempt.status.as_str(), held.get(&attempt.job)) {
                ("success", Some(held)) => held.state == "succeeded" && !held.is_resolved,
                ("error", Some(held)) if attempt.error == "encoding_interrupted" => {
                    held.state == "unknown" || held.is_resolved
                }
                ("error", Some(held)) => matches!(held.state.as_str(), "failed" | "cancelled" | "expired"),
                // It never reached the agent.
                ("error", None) => attempt.error != "encoding_interrupted",
                _ => false,
            };
            if !fits {
                wrongs.push(format!("attempt {} does not tell what happened: {}", attempt.id, story()));
            }
        }
    }
    verdict.doors = keypad::judge(doors, &held, &cloud, &mut wrongs);
    drop((agent, cloud));
    verdict.freed = freed(house, &held, &mut wrongs);
    verdict.wrongs = wrongs;
    verdict
}

/// Ends that come later than this are not waited for.
const FAR: SignedDuration = SignedDuration::from_hours(1);

/// Waits until the agent has no job at work or to come soon, and nothing left to tell.
fn quiet(site: &Site) {
    until("every job has ended and is told", || {
        let words = ["list", "--json", "--state", "waiting", "--limit", "1000"];
        let waiting: Value = serde_json::from_slice(&jobs_command(site, &words).stdout).ok()?;
        let waiting = waiting.as_array()?;
        let soon = Timestamp::now() + FAR;
        let is_far = |job: &Value| job["due_at"].as_str().is_some_and(|due| soon < due.parse().unwrap());
        let output = latchd()
            .args(["status", "--json", "--socket"])
            .arg(site.folder.path().join("agent.sock"))
            .output();
        let status: Value = serde_json::from_slice(&output.unwrap().stdout).ok()?;
        let at_work = |count: &Value| match count["state"].as_str() {
            Some("received" | "sent") => count["count"] != 0,
            Some("waiting") => count["count"] != waiting.len(),
            _ => false,
        };
        let is_quiet = !status["jobs"].as_array()?.iter().any(at_work) && status["unacknowledged"] == 0;
        (is_quiet && waiting.iter().all(is_far) && status["link"].to_string().contains("up")).then_some(())
    });
}

/// By a card's end: what the lock server was ordered, and what it wrote.
fn done_by_end(house: &House, made: &[Made]) -> BTreeMap<String, Done> {
    let mut by_end: BTreeMap<String, Done> = BTreeMap::new();
    for order in orders(house) {
        let fields = texts(&order["fields"]);
        let end = made.iter().map(|made| &made.end).find(|end| fields.contains(end));
        if let (true, Some(end)) = (["CN", "CC"].iter().any(|kind| fields[0].starts_with(kind)), end) {
            let done = by_end.entry(end.clone()).or_default();
            done.orders += 1;
            done.written += u64::from(order["result"] == "written");
        }
    }
    by_end
}

/// Every command that the lock server acknowledged.
fn orders(house: &House) -> Vec<Value> {
    let ledger = control(&house.folder).send("ledger").unwrap();
    ledger["orders"].as_array().unwrap().clone()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn jobs_command(site: &Site, words: &[&str]) -> Output {
    let socket = site.folder.path().join("agent.sock");
    latchd().arg("jobs").args(words).arg("--socket").arg(socket).output().unwrap()
}

/// Somebody looks at the cards of some doubts and says what is so; a second time nobody can.
fn resolve_some(
    site: &Site,
    made: &[Made],
    by_end: &BTreeMap<String, Done>,
    wrongs: &mut Vec<String>,
) -> u64 {
    let listed = jobs_command(site, &["list", "--json", "--state", "unknown"]);
    let doubts: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let cloud = Connection::open(site.folder.path().join("cloud/cloud.db")).unwrap();
    let attempts = attempts(&cloud);
    let mut resolved = 0;
    let cards = doubts.as_array().unwrap().iter().filter(|doubt| doubt["kind"] == "card.encode");
    for doubt in cards.take(RESOLVED) {
        let job = doubt["job_id"].as_str().unwrap();
        let method = &attempts.iter().find(|attempt| attempt.job == job).unwrap().method;
        let end = &made.iter().find(|made| made.method == *method).unwrap().end;
        let verdict = match by_end.get(end) {
            Some(done) if 0 < done.written => "--done",
            _ => "--not-done",
        };
        for expected in [Some(0), Some(1)] {
            let told = jobs_command(site, &["resolve", job, verdict, "--by", "Ada"]);
            if told.status.code() != expected {
                let words = String::from_utf8_lossy(&told.stderr).into_owned();
                wrongs.push(format!("job {job} resolved with {:?}, not {expected:?}: {words}", told.status));
            }
        }
        resolved += 1;
    }
    resolved
}

fn held(agent: &Connection) -> BTreeMap<String, Held> {
    let sql = "SELECT job_id, state, coalesce(kind, ''), attempt, resolution IS NOT NULL, origin, coalesce(due_at, 0)
               FROM job";
    let soon = (Timestamp::now() + FAR).as_millisecond();
    let mut statement = agent.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        let held = Held {
            state: row.get(1)?,
            kind: row.get(2)?,
            marks: row.get::<_, i64>(3)?.cast_unsigned(),
            is_resolved: row.get(4)?,
            origin: row.get(5)?,
            is_far: soon < row.get(6)?,
        };
        Ok((uuid::Uuid::from_bytes(row.get(0)?).to_string(), held))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

fn attempts(cloud: &Connection) -> Vec<Attempt> {
    let sql = "SELECT action_attempt_id, job_id, access_method_id, status, coalesce(error_type, '') FROM action_attempt";
    let mut statement = cloud.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        Ok(Attempt {
            id: row.get(0)?,
            job: row.get(1)?,
            method: row.get(2)?,
            status: row.get(3)?,
            error: row.get(4)?,
        })
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Jobs: whether they were handed out, and whether their end is known.
fn ordered(cloud: &Connection) -> Vec<(String, bool, bool)> {
    let sql = "SELECT job_id, handed, over_at IS NOT NULL FROM bridge_order WHERE what = 'job'";
    let mut statement = cloud.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// By method: how often it was told that its card was issued.
fn issued(cloud: &Connection) -> BTreeMap<String, u64> {
    let sql =
        "SELECT access_method_id, count(*) FROM event WHERE event_type = 'access_method.issued' GROUP BY 1";
    let mut statement = cloud.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())));
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Compares the check-outs, room by room; gives how many there were.
fn freed(house: &House, held: &BTreeMap<String, Held>, wrongs: &mut Vec<String>) -> u64 {
    // Their rooms are sealed, and the cloud forgets an earlier check-out of a stay for a later one.
    let folder = house.folder.join("agent");
    let seal = SealKey::from_file(&folder.join("seal.key"), Random::system()).unwrap();
    let queue = Queue::open(&Storage::folder(&folder), seal, Random::system(), Rules::default()).unwrap();
    let checkouts = held.iter().filter(|(_, held)| held.kind == "stay.checkout");
    let jobs: Vec<(String, String)> = checkouts
        .map(|(job, _)| {
            let detail = queue.job(JobId(job.parse().unwrap())).unwrap().unwrap();
            let Some(Order::StayCheckout { room, .. }) = detail.job.map(|job| job.order) else {
                panic!("job {job} is no check-out")
            };
            (job.clone(), room.to_string())
        })
        .collect();
    let mut all = 0;
    for room in jobs.iter().map(|(_, room)| room).collect::<BTreeSet<_>>() {
        let of = |wanted: &dyn Fn(&Held) -> bool| {
            let jobs = jobs.iter().filter(|(job, of)| of == room && held.get(job).is_some_and(wanted));
            jobs.count() as u64
        };
        let done = orders(house).into_iter().filter(|order| {
            let fields = texts(&order["fields"]);
            fields[0] == "CO" && fields.contains(room) && order["result"] == "done"
        });
        let (done, succeeded) = (done.count() as u64, of(&|held| held.state == "succeeded"));
        let marked = of(&|held| 0 < held.marks);
        let doubted = of(&|held| held.state == "unknown");
        if done < succeeded || succeeded + doubted < done || marked < done {
            wrongs.push(format!(
                "room {room} was freed {done} times, by {succeeded} jobs that succeeded, {doubted} in doubt"
            ));
        }
        all += done;
    }
    all
}
