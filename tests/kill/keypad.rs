//! Keypad doors of the house: somebody orders entries and opens doors, and the locks' tables and ledgers say what came
//! of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use jiff::{SignedDuration, Timestamp};
use latchd::seams::Random;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{
    desk::House,
    judge::Held,
    keypads::{Keypads, SYSTEM},
    site::{Site, until},
};

/// How long before their windows entries are put in.
pub(crate) const LEAD: &str = "1s";
const LEAD_SECONDS: i64 = 1;
/// Two doors with a few entries each: orders overtake each other all the time.
const LOCKS: [&str; 2] = ["lock-1", "lock-2"];
const KEYS: [&str; 3] = ["a", "b", "c"];

pub(crate) fn locks() -> u16 {
    u16::try_from(LOCKS.len()).unwrap()
}

/// What somebody ordered, in the order in which the agent took it.
pub(crate) struct Doors {
    pub(crate) keypads: Keypads,
    orders: Mutex<Vec<Ordered>>,
}

struct Ordered {
    job: String,
    lock: &'static str,
    what: What,
}

enum What {
    Put { key: &'static str, pin: String, starts_at: Timestamp, ends_at: Timestamp },
    Remove { key: &'static str },
    Unlock,
}

impl What {
    fn key(&self) -> Option<&'static str> {
        match self {
            Self::Put { key, .. } | Self::Remove { key } => Some(key),
            Self::Unlock => None,
        }
    }

    /// As the lock's ledger names it.
    fn deed(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::Remove { .. } => "removed",
            Self::Unlock => "unlocked",
        }
    }
}

impl Doors {
    pub(crate) fn new(keypads: Keypads) -> Self {
        Self { keypads, orders: Mutex::default() }
    }

    /// Waits until a lock is asked for the next change, but not for long: it need not come.
    pub(crate) fn next_command(&self, random: &Random, within: std::time::Duration) {
        let (lock, verb) = (one_of(random, &LOCKS), one_of(random, &["PUT", "DEL", "OPEN"]));
        let seen = self.keypads.at(lock, "requests")["requests"][verb].as_u64().unwrap_or(0);
        let wait = format!("at {lock} wait requests {verb} {} within {}", seen + 1, within.as_millis());
        let _ = self.keypads.client().send(&wait);
    }
}

fn one_of<T: Copy>(random: &Random, of: &[T]) -> T {
    of[usize::try_from(random.below(of.len() as u64)).unwrap()]
}

/// Somebody who orders for the doors, one order after the other, whatever becomes of them.
pub(crate) fn porter(house: &House, doors: &Doors, site: &Site, random: &Random) {
    let mut client = doors.keypads.client();
    while !house.is_closed() {
        let number = doors.orders.lock().unwrap().len() as u64 + 1;
        let (lock, key) = (one_of(random, &LOCKS), one_of(random, &KEYS));
        let now = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
        let seconds = |seconds: u64| SignedDuration::from_secs(i64::try_from(seconds).unwrap());
        let what = match random.below(8) {
            0..=3 => {
                let starts_at = now + seconds(random.below(5));
                let lasts = if random.below(2) == 0 { seconds(2 + random.below(3)) } else { seconds(86_400) };
                What::Put { key, pin: format!("{number:06}"), starts_at, ends_at: starts_at + lasts }
            }
            4 => What::Remove { key },
            _ => What::Unlock,
        };
        let order = match &what {
            What::Put { key, pin, starts_at, ends_at } => json!({
                "kind": "slot.put", "device": lock, "slot": key, "content": { "pin": pin },
                "window": { "starts_at": starts_at, "ends_at": ends_at }, "generation": number,
            }),
            What::Remove { key } => json!({ "kind": "slot.remove", "device": lock, "slot": key }),
            What::Unlock => json!({ "kind": "device.unlock", "device": lock }),
        };
        // The answer is lost before the command is carried out, or after it.
        if random.below(4) == 0 {
            let fault = one_of(random, &["cut-before", "cut-after"]);
            doors.keypads.at(lock, &format!("fault {fault} on {}", one_of(random, &["PUT", "DEL", "OPEN"])));
        }
        let job = random.uuid().to_string();
        let add = json!({ "job_id": job, "system": SYSTEM, "order": order });
        house.gives_order();
        until("the agent takes the job", || site.add(&add).status.success().then_some(()));
        let seen = doors.keypads.done(lock, what.deed()).len();
        let wait = format!("at {lock} wait count {} {} within 150", what.deed(), seen + 1);
        doors.orders.lock().unwrap().push(Ordered { job, lock, what });
        let _ = client.send(&wait);
    }
}

/// What the doors came to.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) puts: u64,
    pub(crate) removals: u64,
    pub(crate) timers: u64,
    pub(crate) unlocks: u64,
    /// Overtaken by a newer order, or by the end of their window.
    pub(crate) superseded: u64,
    pub(crate) doubts: u64,
    /// Marked more than once: proven undone, and done again.
    pub(crate) again: u64,
}

impl Came {
    pub(crate) fn add(&mut self, more: &Self) {
        self.puts += more.puts;
        self.removals += more.removals;
        self.timers += more.timers;
        self.unlocks += more.unlocks;
        self.superseded += more.superseded;
        self.doubts += more.doubts;
        self.again += more.again;
    }
}

/// An entry of a lock's ledger.
struct Deed {
    at: Timestamp,
    job: String,
    what: String,
    key: Option<String>,
}

/// Compares what the locks did with what agent and cloud say of it.
pub(crate) fn judge(
    doors: &Doors,
    held: &BTreeMap<String, Held>,
    cloud: &Connection,
    wrongs: &mut Vec<String>,
) -> Came {
    let mut came = Came::default();
    let orders = doors.orders.lock().unwrap();
    let ledgers: BTreeMap<_, _> = LOCKS.map(|lock| (lock, ledger(doors, lock))).into();
    let done = |lock: &str, job: &str, what: &str| {
        ledgers[lock].iter().filter(|deed| deed.job == job && deed.what == what).count()
    };

    for order in orders.iter() {
        let Some(held) = held.get(&order.job) else {
            wrongs.push(format!("job {} was taken and is not there", order.job));
            continue;
        };
        let times = done(order.lock, &order.job, order.what.deed());
        let fits = match (&order.what, held.state.as_str()) {
            (What::Put { .. } | What::Remove { .. }, "superseded") => times == 0,
            (What::Put { .. }, "succeeded") => 1 <= times,
            // Its window was over before it could be put.
            (What::Put { ends_at, .. }, "expired") => times == 0 && *ends_at <= Timestamp::now(),
            // There may have been nothing to remove.
            (What::Remove { .. }, "succeeded") => true,
            (What::Unlock, "succeeded") => times == 1,
            (What::Unlock, "unknown") => times <= 1,
            _ => false,
        };
        if !fits {
            let (lock, deed) = (order.lock, order.what.deed());
            let story = format!("{} after {} marks", held.state, held.marks);
            wrongs.push(format!("job {}: {lock} has {deed} {times} times, and it is {story}", order.job));
        }
        if let What::Put { starts_at, .. } = &order.what {
            let due = *starts_at - SignedDuration::from_secs(LEAD_SECONDS);
            let early = ledgers[order.lock].iter().find(|deed| deed.job == order.job && deed.at < due);
            if let Some(early) = early {
                wrongs.push(format!("job {} was put at {}, and is due at {due}", order.job, early.at));
            }
        }
        came.again += u64::from(1 < held.marks);
        match (&order.what, held.state.as_str()) {
            (_, "superseded" | "expired") => came.superseded += 1,
            (_, "unknown") => came.doubts += 1,
            (What::Put { .. }, _) => came.puts += 1,
            (What::Remove { .. }, _) => came.removals += 1,
            (What::Unlock, _) => came.unlocks += 1,
        }
    }

    let ordered: BTreeSet<_> = orders.iter().map(|order| order.job.as_str()).collect();
    for (job, held) in held.iter().filter(|(_, held)| is_of_a_door(held)) {
        match (held.origin.as_str(), held.state.as_str()) {
            ("person", _) if ordered.contains(job.as_str()) => {}
            ("timer", "succeeded" | "superseded") => came.timers += 1,
            // The end of an entry that stays.
            ("timer", "waiting") if held.is_far => {}
            _ => wrongs.push(format!("job {job} ({}, by {}) is {}", held.kind, held.origin, held.state)),
        }
    }
    for lock in LOCKS {
        removed_in_time(lock, &ledgers[lock], &orders, held, wrongs);
        as_ordered(doors, lock, &orders, wrongs);
    }
    told(held, cloud, wrongs);
    came
}

pub(crate) fn is_of_a_door(held: &Held) -> bool {
    held.kind.starts_with("slot.") || held.kind.starts_with("device.")
}

fn ledger(doors: &Doors, lock: &str) -> Vec<Deed> {
    let ledger = doors.keypads.at(lock, "ledger");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let deed = |record: &Value| Deed {
        at: record["at"].as_str().unwrap().parse().unwrap(),
        job: text(&record["job"]).unwrap_or_default(),
        what: text(&record["what"]).unwrap(),
        key: text(&record["key"]),
    };
    ledger["ledger"].as_array().unwrap().iter().map(deed).collect()
}

/// The agent itself removes an entry no sooner than at its end, or because a later order wants its place.
fn removed_in_time(
    lock: &str,
    ledger: &[Deed],
    orders: &[Ordered],
    held: &BTreeMap<String, Held>,
    wrongs: &mut Vec<String>,
) {
    let mut holds: BTreeMap<&str, &str> = BTreeMap::new();
    for deed in ledger {
        let Some(key) = deed.key.as_deref() else { continue };
        if deed.what == "put" {
            holds.insert(key, &deed.job);
        }
        let is_timer = held.get(&deed.job).is_some_and(|held| held.origin == "timer");
        if deed.what != "removed" || !is_timer {
            continue;
        }
        let Some(put) = holds.get(key) else { continue };
        let Some(at) = orders.iter().position(|order| order.job == *put) else {
            wrongs.push(format!("{lock} had an entry {key} that nobody ordered"));
            continue;
        };
        let later = orders[at + 1..].iter().any(|order| order.lock == lock && order.what.key() == Some(key));
        if let What::Put { ends_at, .. } = &orders[at].what
            && deed.at < *ends_at
            && !later
        {
            wrongs.push(format!("job {put}: {lock} lost its entry at {}, before {ends_at}", deed.at));
        }
    }
}

/// The table is as the last order for each entry wants it, and the PINs open or do not.
fn as_ordered(doors: &Doors, lock: &str, orders: &[Ordered], wrongs: &mut Vec<String>) {
    let table = doors.keypads.at(lock, "table");
    let mut table: BTreeMap<&str, &str> = table["table"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| (slot["key"].as_str().unwrap(), slot["content"].as_str().unwrap()))
        .collect();
    let now = Timestamp::now();
    for key in KEYS {
        let last = orders.iter().rfind(|order| order.lock == lock && order.what.key() == Some(key));
        let wanted = match last.map(|order| &order.what) {
            Some(What::Put { pin, starts_at, ends_at, .. }) if now < *ends_at => {
                Some((pin.as_str(), *starts_at))
            }
            _ => None,
        };
        let found = table.remove(key);
        if found != wanted.map(|(pin, _)| pin) {
            let job = last.map(|order| &order.job);
            wrongs.push(format!("{lock} has {found:?} at {key}, and {wanted:?} was ordered by {job:?}"));
        }
        if let Some((pin, starts_at)) = wanted
            && starts_at <= now
            && !doors.keypads.opens(lock, pin)
        {
            wrongs.push(format!("{lock} does not open by {pin}"));
        }
    }
    if !table.is_empty() {
        wrongs.push(format!("{lock} has entries that nobody ordered: {table:?}"));
    }
}

/// The cloud was told of each job how it ended, once.
fn told(held: &BTreeMap<String, Held>, cloud: &Connection, wrongs: &mut Vec<String>) {
    let mut statement = cloud.prepare("SELECT job_id, state FROM local_job").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let told: BTreeMap<String, String> = rows.collect::<Result<_, _>>().unwrap();
    let over: BTreeMap<_, _> = held
        .iter()
        .filter(|(_, held)| is_of_a_door(held) && held.state != "waiting")
        .map(|(job, held)| (job.clone(), held.state.clone()))
        .collect();
    for job in over.keys().chain(told.keys()).collect::<BTreeSet<_>>() {
        if over.get(job) != told.get(job) {
            wrongs.push(format!("job {job} is {:?}; the cloud was told {:?}", over.get(job), told.get(job)));
        }
    }
    let sql = "SELECT count(*) FROM event WHERE event_type = 'latchd.local_job.ended'";
    let events: i64 = cloud.query_row(sql, [], |row| row.get(0)).unwrap();
    if usize::try_from(events).unwrap() != over.len() {
        wrongs.push(format!("{events} events tell of {} jobs of the doors", over.len()));
    }
}
