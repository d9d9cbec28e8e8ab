//! Compares what the devices did with what the cloud believes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use latchd::{
    cloud::store::Db,
    model::{Job, JobId, Order, ReservationKey},
    queue::{JobDetail, Queue},
    store::{Store, StoreError},
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    desk::{Attempt, FIRST},
    simulated::play,
    world::{Book, number_by_end, number_of, printed_end},
};

/// How long before its time a lock's entry is put there.
pub(super) const LEAD: SignedDuration = SignedDuration::from_secs(30);

/// How many of what, over a seed or many.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) jobs: u64,
    /// Those of them that were ordered at the site.
    pub(super) local: u64,
    pub(super) pauses: u64,
    /// Attempts at cards that were ordered at the API.
    pub(super) attempts: u64,
    /// Changes and deletions of grants there.
    pub(super) changes: u64,
    /// How often work under way was looked at on a full disk.
    pub(super) full_disks: u64,
    /// Cards that others made at the lock server.
    pub(super) foreign: u64,
    /// Cards that joined a stay there, where others make cards as well.
    pub(super) joins: u64,
    /// How often an agent was set back.
    pub(super) set_back: u64,
    pub(super) by_end: BTreeMap<String, u64>,
    pub(super) done: u64,
    pub(super) settled: u64,
    pub(super) crashes: u64,
    /// Of the longest life of a process.
    pub(super) most_steps: u64,
}

impl play::Tally for Tally {
    fn add(&mut self, other: &Self) {
        self.jobs += other.jobs;
        self.local += other.local;
        self.pauses += other.pauses;
        self.attempts += other.attempts;
        self.changes += other.changes;
        self.full_disks += other.full_disks;
        self.foreign += other.foreign;
        self.joins += other.joins;
        self.set_back += other.set_back;
        self.done += other.done;
        self.settled += other.settled;
        self.crashes += other.crashes;
        self.most_steps = self.most_steps.max(other.most_steps);
        for (end, count) in &other.by_end {
            *self.by_end.entry(end.clone()).or_default() += count;
        }
    }
}

/// What the cloud's database says of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CloudView {
    pub(super) ordered: bool,
    pub(super) over: bool,
    /// State and code by revision: 0 the cloud's own word, 1 the bridge's, 2 what settled a doubt.
    pub(super) ends: BTreeMap<u8, (String, Option<String>)>,
}

/// A job of the site's own is known once it is over.
pub(super) fn cloud_view(db: &mut Db, job_id: JobId, local: bool) -> Result<CloudView, StoreError> {
    let connection = db.connection();
    let order = match local {
        true => "SELECT true FROM local_job WHERE job_id = ?",
        false => "SELECT over_at IS NOT NULL FROM bridge_order WHERE job_id = ? AND what = 'job'",
    };
    let mut statement = connection.prepare(order)?;
    let over: Vec<bool> =
        statement.query_map([job_id.to_string()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut statement = connection.prepare("SELECT revision, state, code FROM job_end WHERE job_id = ?")?;
    let ends =
        statement.query_map([job_id.to_string()], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    let ends = ends.collect::<Result<_, _>>()?;
    Ok(CloudView { ordered: !over.is_empty(), over: over == [true], ends })
}

/// How many jobs of the site's own the cloud knows of, and how often its feed tells of the end of one.
pub(super) fn told_of_local_jobs(db: &mut Db) -> Result<(i64, i64), StoreError> {
    let told = "SELECT (SELECT count(*) FROM local_job),
                (SELECT count(*) FROM event WHERE event_type = 'latchd.local_job.ended')";
    Ok(db.connection().query_row(told, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// The jobs that the agent remembers, by their numbers and in the order in which they came.
pub(super) fn arrived(queue: &mut Queue) -> Result<Vec<u64>, StoreError> {
    let connection = queue.connection();
    let mut statement = connection.prepare("SELECT job_id FROM job ORDER BY id")?;
    let jobs = statement.query_map([], |row| Ok(JobId(Uuid::from_bytes(row.get(0)?))))?;
    Ok(jobs.map(|job| job.map(number_of)).collect::<Result<_, _>>()?)
}

/// What there is at the end.
pub(super) struct Evidence {
    /// The lock server's own.
    pub(super) ledger: Value,
    /// What turned in a circle, and was ended.
    pub(super) circles: Vec<String>,
    /// Why both sides did not come to rest, if they did not.
    pub(super) unrest: Option<String>,
    pub(super) ends: BTreeMap<u64, CloudView>,
    /// Those of the API, in the order in which they were made.
    pub(super) attempts: Vec<Attempt>,
    /// How many bytes the cloud and the agent keep in reserve.
    pub(super) reserves: [Option<u64>; 2],
    /// As [`arrived`] gives them.
    pub(super) arrived: Vec<u64>,
    /// As [`told_of_local_jobs`] gives it.
    pub(super) local_jobs_told: (i64, i64),
    /// What the locks held when nothing was left but what had its time to come.
    pub(super) tables: Vec<Value>,
    /// And when that was.
    pub(super) tables_at: Timestamp,
    /// What the locks did.
    pub(super) locks: Vec<Value>,
    /// Whether they are all empty at the end.
    pub(super) empty: bool,
    pub(super) agent_jobs: BTreeMap<u64, JobDetail>,
    pub(super) crashes: u64,
    /// Of the longest life of a process.
    pub(super) most_steps: u64,
}

fn fields(order: &Value) -> Vec<&str> {
    order["fields"].as_array().unwrap().iter().map(|field| field.as_str().unwrap()).collect()
}

fn was_done(order: &Value) -> bool {
    ["written", "done"].contains(&order["result"].as_str().unwrap())
}

/// The number of the job that a card was written for.
fn card_of(order: &Value) -> Option<u64> {
    let fields = fields(order);
    let is_card = fields[0].starts_with("CN") || fields[0].starts_with("CC");
    let end = jiff::civil::DateTime::strptime("%H%M%d%m%y", fields.get(10)?).ok()?;
    let first = printed_end(0).to_zoned(jiff::tz::TimeZone::UTC).datetime();
    let minutes = end.duration_since(first).as_mins();
    (is_card && 0 < minutes).then_some(minutes as u64)
}

/// The number that a job's card carries.
pub(super) fn card_number(job: &Job) -> Option<u64> {
    match &job.order {
        Order::CardEncode(card) => Some(number_by_end(card.window.ends_at()?.as_millisecond())),
        _ => None,
    }
}

/// How often the device wrote the card of a job.
pub(super) fn times_done(ledger: &Value, number: u64) -> usize {
    let orders = ledger["orders"].as_array().unwrap();
    orders.iter().filter(|order| was_done(order) && card_of(order) == Some(number)).count()
}

pub(super) fn judge(book: &Book, evidence: &Evidence) -> Result<Tally, Vec<String>> {
    let mut wrong = [&evidence.circles[..], &book.wrong].concat();
    let forgotten = book.cloud_restored || !book.agent_restored.is_empty();
    if let Some(why) = &evidence.unrest {
        wrong.push(format!("something is stuck: {why}"));
    }
    let Evidence { crashes, most_steps, .. } = *evidence;
    let set_back = book.agent_restored.len() as u64;
    let (settled, pauses) = (book.settled, book.pauses);
    let mut tally = Tally { crashes, most_steps, settled, pauses, set_back, ..Tally::default() };
    for (number, ordered) in &book.orders {
        let Some(view) = evidence.ends.get(number) else { continue };
        tally.jobs += 1;
        if !view.ordered {
            if ordered.held && !ordered.local && !book.cloud_restored {
                wrong.push(format!("job {number} was lost by the cloud, which had said that it holds it"));
            }
            // A cloud that was set back is told again, and an agent that was tells what it remembers.
            let is_remembered = evidence.agent_jobs.contains_key(number) && !book.cloud_restored;
            if ordered.local && (is_remembered || ordered.held && book.agent_restored.is_empty()) {
                wrong.push(format!(
                    "the cloud never heard of job {number}, which the agent had taken at the site"
                ));
            }
            if !forgotten && 0 < times_done(&evidence.ledger, *number) {
                wrong.push(format!("the card of job {number} was written, and the cloud never heard of it"));
            }
            continue;
        }
        tally.local += u64::from(ordered.local);
        let what = judge_job(*number, view, evidence, book, &ordered.job.order, &mut wrong);
        *tally.by_end.entry(what).or_default() += 1;
    }
    let (known, told) = evidence.local_jobs_told;
    if !book.cloud_restored && known != told {
        wrong.push(format!("the cloud knows {known} jobs of the site's own and told of {told}"));
    }
    tally.done =
        evidence.ledger["orders"].as_array().unwrap().iter().filter(|it| was_done(it)).count() as u64;
    judge_cards(book, evidence, &mut wrong);
    judge_attempts(book, evidence, &mut wrong);
    tally.attempts = evidence.attempts.len() as u64;
    tally.changes = book.desk.changes;
    tally.full_disks = book.full_disks;
    tally.foreign = book.foreign.len() as u64;
    for (side, reserve) in ["cloud", "agent"].iter().zip(evidence.reserves) {
        if reserve.is_none() && evidence.unrest.is_none() {
            wrong.push(format!("the {side} keeps nothing in reserve on its disk any more"));
        }
    }
    judge_checkouts(book, evidence, &mut wrong);
    tally.joins = judge_stays(book, evidence, &mut wrong);
    judge_doors(book, evidence, &mut wrong);
    judge_slots(book, evidence, &mut wrong);
    if wrong.is_empty() { Ok(tally) } else { Err(wrong) }
}

/// One outcome, and at most one resolution of a doubt. Gives the state it ended in.
fn judge_job(
    number: u64,
    view: &CloudView,
    evidence: &Evidence,
    book: &Book,
    order: &Order,
    wrong: &mut Vec<String>,
) -> String {
    // A cloud that was set back may be told how a doubt was settled and no more of the doubt.
    let settled = view.ends.get(&2).filter(|_| book.cloud_restored);
    let Some((state, code)) = view.ends.get(&1).or(view.ends.get(&0)).or(settled) else {
        wrong.push(format!("job {number} has no outcome (over: {})", view.over));
        return "none".into();
    };
    if !view.over {
        wrong.push(format!("job {number} is {state} and its order still open"));
    }
    if let Some((settled, _)) = view.ends.get(&2)
        && view.ends.len() > 1
        && (state != "unknown" || !["succeeded", "failed"].contains(&settled.as_str()))
        // An agent that was set back is in doubt once more, and must be told the same.
        && (book.agent_restored.is_empty() || (state == "succeeded") != (settled == "succeeded"))
    {
        wrong.push(format!("job {number} was {state} and was then settled as {settled}"));
    }
    let forgotten = !book.agent_restored.is_empty() || book.cloud_restored;
    if state == "unknown" && !forgotten && !view.ends.contains_key(&1) {
        wrong.push(format!("job {number} was forgotten by the agent, which had said that it holds it"));
    }
    if state == "unknown" && !forgotten && view.ends.contains_key(&1) {
        let sent = evidence.agent_jobs.get(&number).is_some_and(|job| 0 < job.view.attempt);
        if !sent {
            wrong.push(format!("job {number} is unknown ({code:?}) and was never marked sent"));
        }
    }
    if let Some(job) = evidence.agent_jobs.get(&number)
        && !forgotten
        && view.ends.contains_key(&1)
        && view.ends.keys().max() != Some(&2)
        && job.view.state.as_str() != state
    {
        wrong.push(format!("job {number} is {state} for the cloud and {} for the agent", job.view.state));
    }
    if let Order::CardEncode(_) = order {
        let done = times_done(&evidence.ledger, number);
        let believed = view.ends.last_key_value().map_or("", |(_, (state, _))| state.as_str());
        match (believed, done) {
            ("succeeded", 1) | ("unknown", 0 | 1) => {}
            ("failed" | "cancelled" | "expired" | "superseded", 0) => {}
            // The cloud's own word, because it was set back, until the bridge's comes.
            (_, 0 | 1) if book.cloud_restored && !view.ends.contains_key(&1) => {}
            (believed, done) => {
                wrong.push(format!("job {number} is {believed}, and its card was written {done} times"));
            }
        }
    }
    state.clone()
}

/// No card twice, whatever anybody believes, and none that nobody ordered.
fn judge_cards(book: &Book, evidence: &Evidence, wrong: &mut Vec<String>) {
    let mut written = BTreeMap::<u64, usize>::new();
    for order in evidence.ledger["orders"].as_array().unwrap().iter().filter(|order| was_done(order)) {
        if let Some(number) = card_of(order) {
            *written.entry(number).or_default() += 1;
        }
    }
    for (number, times) in written {
        if !book.orders.contains_key(&number) && book.desk.guest_with(number).is_none() {
            wrong.push(format!("the card of job {number} was written, and nobody had ordered it"));
        }
        // A cloud that was set back may have forgotten that a guest had a card.
        if 1 < times && !(FIRST <= number && book.cloud_restored) {
            wrong.push(format!("the card of job {number} was written {times} times"));
        }
    }
}

/// A guest's card is as the attempts at it and its method say, for each of the ends that its grant had.
fn judge_attempts(book: &Book, evidence: &Evidence, wrong: &mut Vec<String>) {
    let mut cards = BTreeMap::<u64, Vec<&Attempt>>::new();
    for attempt in &evidence.attempts {
        cards.entry(attempt.card).or_default().push(attempt);
        wrong.extend(attempt.contradiction());
        if attempt.status == "pending" {
            wrong.push(format!("an attempt at card {} has not ended", attempt.card));
        }
    }
    for card in book.desk.guests.values().flat_map(|guest| &guest.ends) {
        let attempts = cards.get(card).map_or(&[][..], Vec::as_slice);
        let done = attempts.iter().filter(|it| it.is_done()).count();
        let doubts = attempts.iter().filter(|it| it.is_in_doubt()).count();
        let written = times_done(&evidence.ledger, *card);
        if written < done || (done + doubts < written && !book.cloud_restored) {
            wrong.push(format!(
                "card {card} was written {written} times; {done} are said to be done, {doubts} in doubt"
            ));
        }
    }
    for method in evidence.attempts.iter().filter(|it| it.is_newest) {
        let written = method.wanted.map_or(0, |card| times_done(&evidence.ledger, card));
        let is_no_more =
            |card| is_thrown_out(book, &evidence.ledger, card) || is_written_over(&evidence.ledger, card);
        if method.wanted.is_some_and(is_no_more) && !method.is_issued {
            continue;
        }
        if method.is_issued && written == 0
            || !method.is_issued && !method.in_doubt && 0 < written && !book.cloud_restored
        {
            wrong.push(format!(
                "card {:?} was written {written} times, and its method is issued: {}",
                method.wanted, method.is_issued
            ));
        }
        // What may open stays to be seen.
        if method.wanted.is_none() && 0 < times_done(&evidence.ledger, method.card) && !book.cloud_restored {
            wrong.push(format!("card {} was written, and its method is gone", method.card));
        }
    }
}

/// Whether the stay of a card that was written began anew afterwards, by another card for one of its rooms.
fn is_thrown_out(book: &Book, ledger: &Value, number: u64) -> bool {
    let stay_of = |number: u64| match book.desk.guest_with(number) {
        Some(guest) => Some(&guest.stay),
        None => match &book.orders.get(&number)?.job.order {
            Order::CardEncode(card) => card.reservation_key.as_ref(),
            _ => None,
        },
    };
    let rooms = |order: &Value| -> BTreeSet<String> {
        fields(order)
            .iter()
            .skip(3)
            .take(4)
            .filter(|room| !room.is_empty())
            .map(ToString::to_string)
            .collect()
    };
    let done: Vec<_> = ledger["orders"].as_array().unwrap().iter().filter(|it| was_done(it)).collect();
    let Some(at) = done.iter().rposition(|order| card_of(order) == Some(number)) else { return false };
    let begins =
        |later: &&Value| fields(later)[0].starts_with("CN") && !rooms(later).is_disjoint(&rooms(done[at]));
    let mut later = done[at + 1..].iter().copied().filter(begins).filter_map(card_of);
    later.any(|other| stay_of(other).is_some() && stay_of(other) == stay_of(number))
}

/// Whether the card that carries this number last was laid down once more, and carries another one since.
fn is_written_over(ledger: &Value, number: u64) -> bool {
    let done: Vec<_> = ledger["orders"].as_array().unwrap().iter().filter(|it| was_done(it)).collect();
    let Some(at) = done.iter().rposition(|order| card_of(order) == Some(number)) else { return false };
    let is_over = |later: &&Value| later["card"] == done[at]["card"] && card_of(later).is_some();
    done[at + 1..].iter().any(is_over)
}

/// A check-out carries no name on the wire, so a room's are counted.
fn judge_checkouts(book: &Book, evidence: &Evidence, wrong: &mut Vec<String>) {
    let mut rooms = BTreeMap::<&str, (usize, usize, usize)>::new();
    for (number, ordered) in &book.orders {
        let Order::StayCheckout { room, .. } = &ordered.job.order else { continue };
        let Some(view) = evidence.ends.get(number) else { continue };
        let counts = rooms.entry(room.as_str()).or_default();
        match view.ends.last_key_value().map(|(revision, (state, _))| (*revision, state.as_str())) {
            Some((_, "succeeded")) => counts.0 += 1,
            Some((_, "unknown")) | None => counts.1 += 1,
            Some((0, _)) if book.cloud_restored => counts.1 += 1,
            Some(_) => {}
        }
    }
    for order in evidence.ledger["orders"].as_array().unwrap().iter().filter(|order| was_done(order)) {
        let fields = fields(order);
        if fields[0] == "CO" {
            rooms.entry(fields[2]).or_default().2 += 1;
        }
    }
    for (room, (succeeded, unknown, done)) in rooms {
        if done < succeeded || succeeded + unknown < done {
            wrong.push(format!(
                "room {room} was checked out {done} times; {succeeded} are said to be done, {unknown} in doubt"
            ));
        }
    }
}

/// No card joins a stay that is another reservation's. Says how many joined one where others make cards as well.
fn judge_stays(book: &Book, evidence: &Evidence, wrong: &mut Vec<String>) -> u64 {
    let mut joins = 0;
    let mut stays = BTreeMap::<String, Option<ReservationKey>>::new();
    let mut orders: Vec<&Value> = evidence.ledger["orders"].as_array().unwrap().iter().collect();
    // In the order in which they were done, which is when they ended.
    orders.retain(|order| was_done(order));
    orders.sort_by_key(|order| order["ended_as"].as_u64());
    let mut foreign = book.foreign.iter().peekable();
    for order in orders {
        let ended = order["ended_as"].as_u64().unwrap();
        while let Some((room, _)) = foreign.next_if(|(_, after)| *after < ended) {
            stays.insert(room.clone(), None);
        }
        let fields = fields(order);
        if fields[0] == "CO" {
            stays.insert(fields[2].to_owned(), None);
        }
        let Some(number) = card_of(order) else { continue };
        let own = match (book.orders.get(&number).map(|it| &it.job.order), book.desk.guest_with(number)) {
            (Some(Order::CardEncode(card)), _) => card.reservation_key.clone(),
            (_, Some(guest)) => Some(guest.stay.clone()),
            _ => continue,
        };
        joins += u64::from(fields[0].starts_with("CC") && !book.foreign.is_empty());
        for room in fields[3..7].iter().filter(|room| !room.is_empty()) {
            if fields[0].starts_with("CC") && stays.get(*room) != Some(&own) {
                let whose = stays.get(*room);
                wrong.push(format!("the card of job {number} joined a stay in {room} that is {whose:?}"));
            }
            if fields[0].starts_with("CN") {
                stays.insert((*room).to_owned(), own.clone());
            }
        }
    }
    joins
}

/// A door opens once for each order that says so.
fn judge_doors(book: &Book, evidence: &Evidence, wrong: &mut Vec<String>) {
    for (number, ordered) in &book.orders {
        let Order::DeviceUnlock { .. } = &ordered.job.order else { continue };
        let job = ordered.job.job_id.to_string();
        let deeds = evidence.locks.iter().flat_map(|lock| lock["ledger"].as_array().unwrap());
        let opened = deeds.filter(|deed| deed["what"] == "unlocked" && deed["job"] == job.as_str()).count();
        let view = evidence.ends.get(number).filter(|view| view.ordered);
        let believed = view.and_then(|view| view.ends.last_key_value());
        match (believed.map(|(revision, (state, _))| (*revision, state.as_str())), opened) {
            (_, 2..) => wrong.push(format!("job {number} opened its door {opened} times")),
            (None, _) | (Some((_, "unknown")), _) | (Some((_, "succeeded")), 1) => {}
            (Some((0, _)), _) if book.cloud_restored => {}
            (Some((_, "failed" | "cancelled" | "expired" | "superseded")), 0) => {}
            (Some((_, state)), opened) => {
                wrong.push(format!("job {number} is {state}, and its door was opened {opened} times"));
            }
        }
    }
}

/// Each entry is as the newest order about it says, as far as that is known; and at the end all have had their time.
fn judge_slots(book: &Book, evidence: &Evidence, wrong: &mut Vec<String>) {
    if evidence.unrest.is_some() {
        return;
    }
    let forgotten = book.cloud_restored || !book.agent_restored.is_empty();
    let mut may_hold = BTreeMap::<(String, String), BTreeSet<Option<u64>>>::new();
    // In a slot that nobody is known to have touched.
    let mut at_first = BTreeSet::from([None]);
    let mut set_backs = book.agent_restored.iter().copied().peekable();
    // The agent's own removals are not in the book.
    let arrived = evidence.arrived.iter().filter_map(|number| book.orders.get_key_value(number));
    for (number, ordered) in arrived {
        // What an agent that was set back has forgotten is there, or is removed when it should not be any more.
        while let Some(last) = set_backs.next_if(|last| last < number) {
            for holds in may_hold.values_mut().chain([&mut at_first]) {
                holds.extend((1..=last).map(Some).chain([None]));
            }
        }
        let (device, slot, then): (_, _, BTreeSet<Option<u64>>) = match &ordered.job.order {
            Order::SlotPut(put) => {
                let left = put.window.ends_at().unwrap().duration_since(evidence.tables_at);
                let mut holds: BTreeSet<_> = match left.as_secs() {
                    5.. => [Some(*number)].into(),
                    ..-340 => [None].into(),
                    // It may be being removed just now, or again five minutes after it could not be.
                    _ => [Some(*number), None].into(),
                };
                // An agent that starts without its cloud has no other clock than its host's.
                holds.extend(book.clock_jumped.then_some(None));
                (&put.device, &put.slot, holds)
            }
            Order::SlotRemove { device, slot } => (device, slot, [None].into()),
            _ => continue,
        };
        let Some(view) = evidence.ends.get(number) else { continue };
        let state = match view.ends.last_key_value() {
            // A cloud that was set back has forgotten what it ordered, or what became of it.
            None | Some((0, _)) if book.cloud_restored => "unknown",
            _ if !view.ordered && forgotten => "unknown",
            Some((_, (state, _))) if view.ordered => state,
            _ => continue,
        };
        let is_later = matches!(&ordered.job.order, Order::SlotPut(put)
            if evidence.tables_at < put.window.starts_at() - LEAD);
        let was_ahead = matches!(&ordered.job.order, Order::SlotPut(put)
            if ordered.job.created_at < put.window.starts_at() - LEAD);
        let place = (device.to_string(), slot.clone());
        match state {
            // What was put since then had been waiting for its time, by a clock that may have been wrong.
            "succeeded" if is_later && book.clock_jumped => {
                may_hold.entry(place).or_insert(at_first.clone()).extend(then);
            }
            "succeeded" if is_later => drop(may_hold.entry(place).or_insert(at_first.clone()).insert(None)),
            "succeeded" => drop(may_hold.insert(place, then)),
            "unknown" => {
                let holds = may_hold.entry(place).or_insert(at_first.clone());
                // A put that is ordered ahead empties the slot until its time comes, whatever becomes of it then.
                holds.extend(was_ahead.then_some(None));
                holds.extend(then);
            }
            // This one's time did not come.
            _ => drop(may_hold.entry(place).or_insert(at_first.clone()).insert(None)),
        }
    }
    if set_backs.next().is_some() {
        // Nothing was ordered since.
        return;
    }
    for ((device, slot), then) in may_hold {
        let lock: usize = device[1..].parse().unwrap();
        let Some(table) = evidence.tables.get(lock - 1) else { continue };
        let entries = table["table"].as_array().unwrap();
        let held = entries.iter().find(|entry| entry["key"] == slot.as_str());
        let held = held.map(|entry| entry["generation"].as_u64().unwrap());
        if !then.contains(&held) {
            wrong.push(format!("{slot} of {device} holds {held:?} and not one of {then:?}"));
        }
    }
    let doubt = evidence.ends.values().any(|view| view.ends.values().any(|(state, _)| state == "unknown"));
    if !evidence.empty && !doubt && book.agent_restored.is_empty() {
        wrong.push("a lock still holds an entry whose time is over".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use latchd::model::{
        AccessMethodId, CardEncode, DeviceName, DoorName, EncoderName, Job, Priority, Private, SlotContent,
        SlotPut, SystemName, Window,
    };
    use serde_json::json;

    use super::*;
    use crate::world::Ordered;

    /// How a job ended, by revision.
    type Ends = &'static [(u8, &'static str)];

    fn job(number: u64, system: &str, order: Order) -> Job {
        let at = "2026-11-22T12:00:00Z".parse().unwrap();
        Job {
            job_id: JobId(Uuid::from_u128(number.into())),
            system: SystemName::new(system).unwrap(),
            priority: Priority::Desk,
            created_at: at,
            expires_at: at,
            order,
        }
    }

    fn nothing() -> Evidence {
        Evidence {
            ledger: json!({ "orders": [] }),
            circles: Vec::new(),
            unrest: None,
            ends: BTreeMap::new(),
            arrived: Vec::new(),
            attempts: Vec::new(),
            reserves: [Some(1); 2],
            local_jobs_told: (0, 0),
            tables: Vec::new(),
            tables_at: "2026-11-22T12:05:00Z".parse().unwrap(),
            locks: Vec::new(),
            empty: true,
            agent_jobs: BTreeMap::new(),
            crashes: 1,
            most_steps: 1,
        }
    }

    /// What is said of a slot into which two entries were put, the second forgotten by a cloud that was set back, and
    /// which holds `held` in the end.
    fn after_the_cloud_was_set_back(held: Option<u64>) -> Vec<String> {
        let put = |number| {
            let put = SlotPut {
                device: DeviceName::new("k1").unwrap(),
                slot: "s0".into(),
                content: SlotContent::Pin(Private::new("123456")),
                window: Window::new(
                    "2026-11-22T12:00:00Z".parse().unwrap(),
                    Some("2026-11-22T13:00:00Z".parse().unwrap()),
                )
                .unwrap(),
                generation: number,
            };
            let job = job(number, "keys", Order::SlotPut(put));
            (number, Ordered { job, local: false, held: true })
        };
        let book = Book { orders: (1..=3).map(put).collect(), cloud_restored: true, ..Book::default() };
        let done = CloudView { ordered: true, over: true, ends: [(1, ("succeeded".into(), None))].into() };
        let gone = CloudView { ordered: false, over: false, ends: BTreeMap::new() };
        let entry = held.map(|generation| json!({ "key": "s0", "generation": generation }));
        let evidence = Evidence {
            ends: [(1, done.clone()), (2, done), (3, gone)].into(),
            arrived: vec![1, 2, 3],
            tables: vec![json!({ "table": Vec::from_iter(entry) })],
            ..nothing()
        };
        judge(&book, &evidence).err().unwrap_or_default()
    }

    #[test]
    fn a_slot_is_as_ordered_or_as_a_cloud_that_was_set_back_may_have_ordered() {
        for held in [Some(2), Some(3)] {
            assert_eq!(after_the_cloud_was_set_back(held), [""; 0], "{held:?}");
        }
        for held in [None, Some(1)] {
            let wrong = after_the_cloud_was_set_back(held);
            assert!(wrong.iter().any(|wrong| wrong.contains("and not one of")), "{held:?}: {wrong:?}");
        }
    }

    /// What is said of one card of an agent that was set back after it was ordered: how it ended for the cloud, by
    /// revision, and how often the device wrote it.
    fn after_a_set_back(ends: Ends, written: usize) -> Vec<String> {
        let at: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let order = Order::CardEncode(CardEncode {
            encoder: EncoderName::new("1").unwrap(),
            doors: vec![DoorName::new("101").unwrap()],
            reservation_key: Some(ReservationKey::new("guest").unwrap()),
            window: Window::new(at, Some(printed_end(1))).unwrap(),
            access_method_id: AccessMethodId(Uuid::nil()),
            guest_name: None,
            card_wait_seconds: 5,
            begin_again: false,
        });
        let orders = [(1, Ordered { job: job(1, "salto", order), local: false, held: true })].into();
        let book = Book { orders, agent_restored: vec![1], ..Book::default() };
        let fields = ["CN1", "1", "E", "101", "", "", "", "", "", "", "1001101226"];
        let card = |n| json!({ "fields": fields, "result": "written", "ended_as": n });
        let ends = ends.iter().map(|(revision, state)| (*revision, ((*state).to_owned(), None))).collect();
        let evidence = Evidence {
            ledger: json!({ "orders": (0..written).map(card).collect::<Vec<_>>() }),
            ends: [(1, CloudView { ordered: true, over: true, ends })].into(),
            ..nothing()
        };
        judge(&book, &evidence).err().unwrap_or_default()
    }

    #[test]
    fn an_agent_that_was_set_back_may_doubt_and_neither_repeat_nor_pretend() {
        let honest: [(Ends, usize); 6] = [
            (&[(0, "unknown")], 1),
            (&[(1, "unknown")], 0),
            (&[(1, "unknown"), (2, "succeeded")], 1),
            (&[(1, "succeeded"), (2, "succeeded")], 1),
            (&[(1, "failed"), (2, "failed")], 0),
            (&[(1, "succeeded")], 1),
        ];
        for (ends, written) in honest {
            assert_eq!(after_a_set_back(ends, written), [""; 0], "{ends:?}, {written} times");
        }
        let broken: [(Ends, usize, &str); 5] = [
            (&[(1, "unknown")], 2, "was written 2 times"),
            (&[(1, "failed")], 1, "is failed, and its card was written 1 times"),
            (&[(0, "expired")], 1, "is expired, and its card was written 1 times"),
            (&[(1, "succeeded"), (2, "failed")], 1, "was then settled as failed"),
            (&[], 1, "has no outcome"),
        ];
        for (ends, written, words) in broken {
            let wrong = after_a_set_back(ends, written);
            assert!(wrong.iter().any(|wrong| wrong.contains(words)), "{ends:?}, {written} times: {wrong:?}");
        }
    }
}
