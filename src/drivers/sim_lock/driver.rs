//! Orders to conversations, and what came of them to outcomes.
//!
//! Each lock is a lane of its own, `system/lock`; `inventory.refresh` has the lane `system`. A connection is made for
//! each job and closed behind it: between jobs a lock costs a few hundred bytes, no task and no wake-up. The line of the
//! system as a whole is therefore always ready; a lock that cannot be reached stops nobody but itself.
//!
//! # Times
//! A lock keeps windows in local time without an offset. A start is rounded down to the second, an end up. Where a
//! change of clocks repeats an hour, a start in it is written as that hour's beginning and an end in it as that hour's
//! end: access is never cut short, and the lock alone might open up to two hours early or late. It gets no chance to
//! but for the lead: the agent puts an entry no sooner than `lead` before its window and removes it at the window's end.
//! Instants never fall into an hour that is skipped.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use jiff::{Unit, civil::DateTime, tz::TimeZone};
use tokio::sync::{Mutex, watch};

use super::{
    events::{Mark, Read},
    message::Entry,
    session::{Came, Command, Conversation, Manners, Note, Task},
};
use crate::{
    config::SimLockConfig,
    drivers::{Driver, Line, Observed, Performed, ProgressSink, Proof, Work, local},
    model::{
        Admission, Capabilities, Code, Device, DeviceName, JobId, LaneName, Order, Outcome, PinRules,
        ProofLevel, Refusal, SlotContent, SlotPut, SlotSeen, Success, SystemInventory, SystemKind,
        SystemName, Window, Written,
    },
    seams::{BoxFuture, Clock, Net, SystemNet},
    transport::{Target, run},
};

/// How many locks are looked at side by side when all are.
const SIDE_BY_SIDE: usize = 16;
/// The longest key of an entry, in characters.
const LONGEST_KEY: usize = 64;

/// The keypad locks of one system.
pub struct SimLock {
    system: SystemName,
    time_zone: TimeZone,
    lead: Duration,
    answer_timeout: Duration,
    read_events_every: Option<Duration>,
    locks: BTreeMap<DeviceName, Lock>,
    net: Arc<dyn Net>,
    clock: Clock,
    line: watch::Sender<Line>,
    stopping: watch::Sender<bool>,
}

struct Lock {
    lane: LaneName,
    display_name: Option<String>,
    target: Target,
    time_zone: TimeZone,
    pins: PinRules,
    device_type: String,
    /// As the lock last said; 0 before it did.
    slots: AtomicU16,
    /// A second connection would end the first one.
    turn: Mutex<()>,
}

/// What came of a conversation.
struct Held {
    came: Came,
    /// What the lock holds, where that was asked for.
    slots: Option<Vec<SlotSeen>>,
    /// What it did, likewise.
    did: Option<Read>,
}

impl SimLock {
    /// Takes the locks in hand. Nothing is connected yet.
    ///
    /// A lock whose address or zone makes no sense is left out, with an error in the log: both are judged where the
    /// configuration is read.
    #[must_use]
    pub fn start(config: &SimLockConfig, system: SystemName, time_zone: TimeZone, clock: Clock) -> Self {
        Self::start_over(Arc::new(SystemNet), config, system, time_zone, clock)
    }

    /// [`Self::start`] with connections made over `net`.
    #[must_use]
    pub fn start_over(
        net: Arc<dyn Net>,
        config: &SimLockConfig,
        system: SystemName,
        time_zone: TimeZone,
        clock: Clock,
    ) -> Self {
        let lock = |lock: &crate::config::LockConfig| {
            let zone = match &lock.time_zone {
                Some(name) => TimeZone::get(name).map_err(|error| error.to_string())?,
                None => time_zone.clone(),
            };
            let target = Target::tcp(&lock.address).map_err(|error| error.to_string())?;
            let lane = LaneName::new(format!("{system}/{}", lock.name)).map_err(|error| error.to_string())?;
            Ok(Lock {
                lane,
                display_name: lock.display_name.clone(),
                target,
                time_zone: zone,
                pins: PinRules {
                    lengths: lock.pin_lengths.clone(),
                    constraints: lock.pin_constraints.clone(),
                },
                device_type: lock.device_type.clone(),
                slots: AtomicU16::new(0),
                turn: Mutex::new(()),
            })
        };
        let mut locks = BTreeMap::new();
        for config in &config.locks {
            match lock(config) {
                Ok(lock) => drop(locks.insert(config.name.clone(), lock)),
                Err::<_, String>(error) => {
                    tracing::error!(system = %system, lock = %config.name, error, "the lock is left out");
                }
            }
        }
        Self {
            system,
            time_zone,
            lead: config.lead,
            answer_timeout: config.answer_timeout,
            read_events_every: config.read_events_every,
            locks,
            net,
            clock,
            line: watch::Sender::new(Line::Ready),
            stopping: watch::Sender::new(false),
        }
    }

    /// What these locks can do; the same for every site.
    #[must_use]
    pub fn capabilities() -> Capabilities {
        Capabilities {
            r#override: None,
            join: None,
            future_start: None,
            checkout: None,
            modify_stay: None,
            read_card: None,
            open_end: None,
            slots: Some(ProofLevel::Simulator),
            unlock: Some(ProofLevel::Simulator),
            chip_numbers: None,
            max_rooms: 0,
            max_common: 0,
            answer_means_written: true,
            parallel_encoders: false,
        }
    }

    fn lock(&self, device: &DeviceName) -> Result<&Lock, Refusal> {
        self.locks.get(device).ok_or_else(|| {
            Refusal::new(Code::DeviceUnknown, format!("system {} has no lock {device}", self.system))
        })
    }

    /// The lock and what to do there; none where every lock is meant.
    fn task(&self, job: JobId, order: &Order) -> Result<Option<(&DeviceName, &Lock, Task)>, Refusal> {
        let at = |device: &DeviceName, task: Task| {
            let (name, lock) = self.locks.get_key_value(device).ok_or_else(|| {
                Refusal::new(Code::DeviceUnknown, format!("system {} has no lock {device}", self.system))
            })?;
            Ok(Some((name, lock, task)))
        };
        match order {
            Order::SlotPut(put) => {
                let entry = entry(put, &self.lock(&put.device)?.time_zone)?;
                at(&put.device, Task::Do(Command::Put { job, entry }))
            }
            Order::SlotRemove { device, slot } => {
                check_key(slot)?;
                at(device, Task::Do(Command::Remove { job, key: slot.clone() }))
            }
            Order::DeviceUnlock { device } => at(device, Task::Do(Command::Unlock { job })),
            Order::DeviceRead { device } => at(device, Task::Read),
            Order::InventoryRefresh => Ok(None),
            Order::CardEncode(_) | Order::CardRead(_) | Order::StayModify(_) | Order::StayCheckout { .. } => {
                Err(Refusal::new(
                    Code::Unsupported,
                    format!("a keypad lock cannot do {}", order.kind().as_str()),
                ))
            }
        }
    }

    async fn perform_work(&self, work: &Work) -> Performed {
        let (name, lock, task) = match self.task(work.job_id, &work.order) {
            Ok(Some(at)) => at,
            Ok(None) => return self.refresh().await,
            Err(refusal) => return Performed::Ended(Outcome::Failed(refusal)),
        };
        let Held { came, slots, .. } = self.hold(name, lock, task).await;
        match came {
            Came::Done => {
                let written = match work.order {
                    Order::SlotPut(_) | Order::SlotRemove { .. } => Some(Written::Proven),
                    _ => None,
                };
                Performed::Ended(Outcome::Succeeded(Success { written, slots, ..Success::default() }))
            }
            Came::NothingSent(refusal) => Performed::NothingSent(refusal),
            Came::NotDone(refusal) => Performed::Ended(Outcome::Failed(refusal)),
            Came::Doubt(refusal) if work.order.kind().is_repeatable() => Performed::MayRepeat(refusal),
            Came::Doubt(refusal) => Performed::Ended(Outcome::Unknown(refusal)),
        }
    }

    async fn prove_work(&self, work: &Work) -> Proof {
        let task = match self.task(work.job_id, &work.order) {
            Ok(Some((name, lock, Task::Do(command)))) => Some((name, lock, Task::Prove(command))),
            Ok(_) | Err(_) => None,
        };
        let Some((name, lock, task)) = task else {
            return Proof::None;
        };
        match self.hold(name, lock, task).await.came {
            Came::Done => {
                let written = work.order.kind().is_repeatable().then_some(Written::Proven);
                Proof::Done(Success { written, ..Success::default() })
            }
            Came::NotDone(refusal) => Proof::NotDone(refusal),
            Came::NothingSent(refusal) | Came::Doubt(refusal) => {
                tracing::info!(job = %work.job_id, lock = %name, error = %refusal, "nothing is proven");
                Proof::None
            }
        }
    }

    /// Looks at every lock, for the number of its slots.
    async fn refresh(&self) -> Performed {
        let mut looks: Vec<BoxFuture<'_, (&DeviceName, Came)>> = Vec::with_capacity(self.locks.len());
        for (name, lock) in &self.locks {
            looks.push(Box::pin(async move { (name, self.hold(name, lock, Task::Look).await.came) }));
        }
        let looked: Vec<_> = stream::iter(looks).buffered(SIDE_BY_SIDE).collect().await;
        let silent: Vec<_> =
            looked.into_iter().filter(|(_, came)| *came != Came::Done).map(|(name, _)| name).collect();
        match silent.as_slice() {
            [] => Performed::Ended(Outcome::Succeeded(Success::default())),
            _ if *self.stopping.borrow() => Performed::NothingSent(stopping()),
            [first, more @ ..] => Performed::Ended(Outcome::failed(
                Code::DeviceOffline,
                match more.len() {
                    0 => format!("lock {first} could not be read"),
                    count => format!("lock {first} and {count} more could not be read"),
                },
            )),
        }
    }

    /// What happened at a lock since a mark.
    async fn watch(&self, name: &DeviceName, mark: Option<&str>) -> Result<Observed, Refusal> {
        let lock = self.lock(name)?;
        let old = mark.and_then(Mark::read);
        if let Some(old) = &old {
            let ledger = self.ledger(name, lock, old.after()).await?;
            if let Some((new, lost)) = ledger.since(old) {
                let mark = new.mark().as_ref().unwrap_or(old).to_string();
                let events = new.events(&self.system, name);
                return Ok(Observed { events, lost, mark, more: new.more });
            }
            tracing::warn!(system = %self.system, lock = %name, "the lock's memory is a new one; all of it is read");
        }
        let ledger = self.ledger(name, lock, 0).await?;
        let mark = ledger.mark().map(|mark| mark.to_string()).unwrap_or_default();
        // Nobody knows what came behind the mark and is gone with the memory that it was made in.
        let lost = if old.is_some() { ledger.first.saturating_sub(1).max(1) } else { 0 };
        Ok(Observed { events: ledger.events(&self.system, name), lost, mark, more: ledger.more })
    }

    async fn ledger(&self, name: &DeviceName, lock: &Lock, after: u64) -> Result<Read, Refusal> {
        let held = self.hold(name, lock, Task::Watch { after }).await;
        match (held.came, held.did) {
            (Came::Done, Some(did)) => Ok(did),
            (Came::Done, None) => Err(Refusal::new(Code::NoAnswer, "the lock did not show its memory")),
            (Came::NothingSent(refusal) | Came::NotDone(refusal) | Came::Doubt(refusal), _) => Err(refusal),
        }
    }

    /// Holds one conversation with a lock. A stop ends it if its command has not left yet.
    async fn hold(&self, name: &DeviceName, lock: &Lock, task: Task) -> Held {
        let mut told = self.stopping.subscribe();
        let left = AtomicBool::new(false);
        let stopped = async {
            // The sender lives as long as the driver.
            let _ = told.wait_for(|stop| *stop).await;
            if left.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let stopped = pin!(stopped);
        let conversation = async {
            let _turn = lock.turn.lock().await;
            let mut port = match lock.target.open(&*self.net).await {
                Ok(port) => port,
                Err(error) => {
                    let why = match std::error::Error::source(&error) {
                        Some(cause) => format!("{error}: {cause}"),
                        None => error.to_string(),
                    };
                    let refusal = Refusal::new(
                        Code::DeviceOffline,
                        format!("lock {name} cannot be reached; check its power and its network: {why}"),
                    );
                    return Held { came: Came::NothingSent(refusal), slots: None, did: None };
                }
            };
            let manners = Manners {
                answer_timeout: self.answer_timeout,
                now: self.clock.now(),
                zone: lock.time_zone.clone(),
            };
            let mut conversation = Conversation::new(task, manners);
            let (mut held, mut serial, mut did) = (None, String::new(), None);
            let note = |note| match note {
                Note::Holds(slots) => held = Some(slots),
                Note::Did { first, deeds, more } => did = Some((first, deeds, more)),
                Note::Leaves => left.store(true, Ordering::Relaxed),
                Note::ClockOff { by } => {
                    tracing::warn!(
                        system = %self.system, lock = %name, off_by = format!("{by:#}"),
                        "the lock's clock is wrong; it is set"
                    );
                }
                Note::State(state) => {
                    lock.slots.store(state.slots, Ordering::Relaxed);
                    serial.clone_from(&state.serial);
                    tracing::debug!(
                        system = %self.system, lock = %name, serial = state.serial.escape_default().to_string(),
                        battery = state.battery, slots = state.slots, used = state.used, "the lock answers"
                    );
                }
            };
            let came = run(&mut port, &mut conversation, note).await;
            let did = did.map(|(first, deeds, more)| Read { serial, first, deeds, more });
            Held { came, slots: held, did }
        };
        tokio::select! {
            biased;
            () = stopped => Held { came: Came::NothingSent(stopping()), slots: None, did: None },
            held = conversation => held,
        }
    }
}

impl Driver for SimLock {
    fn system(&self) -> &SystemName {
        &self.system
    }

    fn inventory(&self) -> SystemInventory {
        let device = |(name, lock): (&DeviceName, &Lock)| Device {
            name: name.clone(),
            display_name: lock.display_name.clone(),
            slots: lock.slots.load(Ordering::Relaxed),
            pins: Some(lock.pins.clone()),
            device_type: Some(lock.device_type.clone()),
            manufacturer: Some("latchd".into()),
            model: Some("Simulated keypad lock".into()),
            lead_seconds: Some(u32::try_from(self.lead.as_secs()).unwrap_or(u32::MAX)),
            // The site's limits say whether it may be.
            remote_unlock: None,
            card_numbers: false,
        };
        SystemInventory {
            name: self.system.clone(),
            kind: SystemKind::SimLock,
            time_zone: self.time_zone.iana_name().unwrap_or("Etc/Unknown").to_owned(),
            capabilities: Self::capabilities(),
            checkout_on_last_grant: false,
            override_after_deleted_card: false,
            doors: Vec::new(),
            encoders: Vec::new(),
            devices: self.locks.iter().map(device).collect(),
        }
    }

    fn lanes(&self) -> Vec<LaneName> {
        let locks = self.locks.values().map(|lock| lock.lane.clone());
        std::iter::once(all_locks(&self.system)).chain(locks).collect()
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        // Which job it is makes no difference to whether it is possible.
        let lane = match self.task(JobId::from(uuid::Uuid::nil()), order)? {
            Some((_, lock, _)) => lock.lane.clone(),
            None => all_locks(&self.system),
        };
        let lead = match order {
            Order::SlotPut(_) => self.lead,
            _ => Duration::ZERO,
        };
        Ok(Admission { lead, ..Admission::to(lane, Vec::new()) })
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.line.subscribe()
    }

    fn perform<'a>(&'a self, work: Work, _progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        Box::pin(async move { self.perform_work(&work).await })
    }

    fn prove<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Proof> {
        Box::pin(self.prove_work(work))
    }

    fn observed(&self) -> Option<(Vec<DeviceName>, Duration)> {
        let every = self.read_events_every?;
        Some((self.locks.keys().cloned().collect(), every))
    }

    fn observe<'a>(
        &'a self,
        device: &'a DeviceName,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Observed, Refusal>> {
        Box::pin(self.watch(device, after))
    }

    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

impl std::fmt::Debug for SimLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimLock")
            .field("system", &self.system)
            .field("locks", &self.locks.len())
            .finish_non_exhaustive()
    }
}

fn all_locks(system: &SystemName) -> LaneName {
    LaneName::new(system.as_str()).expect("a system's name is a lane's name too")
}

fn stopping() -> Refusal {
    Refusal::new(Code::SystemOffline, "latchd is stopping; nothing new is begun")
}

/// The entry for an order.
fn entry(put: &SlotPut, zone: &TimeZone) -> Result<Entry, Refusal> {
    check_key(&put.slot)?;
    check_content(&put.content)?;
    let (starts_at, ends_at) = local_window(put.window, zone)?;
    Ok(Entry {
        key: put.slot.clone(),
        content: put.content.clone(),
        starts_at,
        ends_at,
        generation: put.generation,
    })
}

fn check_key(key: &str) -> Result<(), Refusal> {
    let length = key.chars().count();
    if (1..=LONGEST_KEY).contains(&length) && !key.contains(char::is_control) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::Unsupported,
        format!(
            "`slot` has {length} characters; give it 1 to {LONGEST_KEY}, none of them control characters"
        ),
    ))
}

fn check_content(content: &SlotContent) -> Result<(), Refusal> {
    let wrong = |message: &str| Err(Refusal::new(Code::Unsupported, message));
    match content {
        SlotContent::Pin(pin) => {
            let pin = pin.expose();
            if (4..=8).contains(&pin.len()) && pin.bytes().all(|digit| digit.is_ascii_digit()) {
                return Ok(());
            }
            wrong("`pin`: this lock takes 4 to 8 digits")
        }
        SlotContent::CardNumber(card) => {
            let card = card.expose();
            if (4..=20).contains(&card.len()) && card.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Ok(());
            }
            wrong("`card_number`: this lock takes 4 to 20 hexadecimal digits")
        }
    }
}

/// A window as the lock keeps it; see the top of this file.
fn local_window(window: Window, zone: &TimeZone) -> Result<(DateTime, Option<DateTime>), Refusal> {
    let (starts_at, ends_at) = local::window(window, Unit::Second, zone);
    let years = 2000..=2099;
    if !years.contains(&starts_at.year()) || ends_at.is_some_and(|end| !years.contains(&end.year())) {
        return Err(Refusal::new(Code::BadDates, "`window`: this lock keeps years from 2000 to 2099"));
    }
    Ok((starts_at, ends_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(zone: &str, starts_at: &str, ends_at: &str, expected: (&str, &str)) {
        let zone = TimeZone::get(zone).unwrap();
        let window = Window::new(starts_at.parse().unwrap(), Some(ends_at.parse().unwrap())).unwrap();
        let (start, end) = local_window(window, &zone).unwrap();
        assert_eq!((start.to_string().as_str(), end.unwrap().to_string().as_str()), expected);
    }

    #[test]
    fn an_ordinary_window_is_local_time_with_its_ends_rounded_outwards() {
        check(
            "Europe/Oslo",
            "2026-11-21T14:00:00.9Z",
            "2026-11-24T10:00:00.1Z",
            ("2026-11-21T15:00:00", "2026-11-24T11:00:01"),
        );
        check(
            "America/New_York",
            "2026-07-01T20:00:00Z",
            "2026-07-02T15:00:00Z",
            ("2026-07-01T16:00:00", "2026-07-02T11:00:00"),
        );
    }

    #[test]
    fn a_start_in_the_repeated_hour_is_its_beginning_and_an_end_in_it_its_end() {
        // Oslo, 25 October 2026: 03:00 becomes 02:00 at 01:00Z.
        check(
            "Europe/Oslo",
            "2026-10-25T00:30:00Z",
            "2026-10-25T10:00:00Z",
            ("2026-10-25T02:00:00", "2026-10-25T11:00:00"),
        );
        check(
            "Europe/Oslo",
            "2026-10-25T01:30:00Z",
            "2026-10-25T10:00:00Z",
            ("2026-10-25T02:00:00", "2026-10-25T11:00:00"),
        );
        for end in ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:59:59Z"] {
            check("Europe/Oslo", "2026-10-24T10:00:00Z", end, ("2026-10-24T12:00:00", "2026-10-25T03:00:00"));
        }
    }

    #[test]
    fn an_end_right_before_the_repeated_hour_or_right_behind_it_stays_what_it_is() {
        let starts_at = "2026-10-24T10:00:00Z";
        for (end, expected) in [
            ("2026-10-24T23:59:59Z", "2026-10-25T01:59:59"),
            ("2026-10-25T00:00:00Z", "2026-10-25T02:00:00"),
            ("2026-10-25T02:00:00Z", "2026-10-25T03:00:00"),
            ("2026-10-25T02:00:01Z", "2026-10-25T03:00:01"),
        ] {
            check("Europe/Oslo", starts_at, end, ("2026-10-24T12:00:00", expected));
        }
    }

    #[test]
    fn the_hour_that_is_skipped_needs_no_care() {
        // Oslo, 29 March 2026: 02:00 becomes 03:00 at 01:00Z.
        check(
            "Europe/Oslo",
            "2026-03-29T00:59:59Z",
            "2026-03-29T01:00:00Z",
            ("2026-03-29T01:59:59", "2026-03-29T03:00:00"),
        );
    }
}
