//! igloohome locks: no radio and no line. Their maker's cloud computes codes, each for one lock and its hours, and the lock
//! checks them by itself. How, the maker does not tell; nothing on the property can make one, change one, or take one away.
//!
//! So a code comes with its order, and what is done here is to keep which code opens which lock until when. A removal before
//! that end is refused with the reason: it would be a word that does not hold.

use std::{collections::BTreeMap, time::Duration};

use jiff::tz::TimeZone;
use tokio::sync::watch;

use crate::{
    config::IgloohomeConfig,
    drivers::{Driver, Line, Performed, ProgressSink, Proof, Work},
    model::{
        Admission, Capabilities, Code, Device, DeviceName, LaneName, Order, Outcome, PinConstraint, PinRules,
        ProofLevel, Refusal, SlotContent, SlotNow, SlotPut, Success, SystemInventory, SystemKind, SystemName,
    },
    seams::{BoxFuture, Clock},
};

/// A code opens without anybody's help, so nothing is waited for before its hours: a year and a day, as long as the longest
/// code holds.
const LEAD: Duration = Duration::from_secs(367 * 24 * 3600);

/// The locks of one system.
pub struct Igloohome {
    system: SystemName,
    time_zone: TimeZone,
    locks: BTreeMap<DeviceName, Lock>,
    clock: Clock,
    line: watch::Sender<Line>,
}

struct Lock {
    lane: LaneName,
    device: Device,
}

impl Igloohome {
    /// Takes the locks in hand.
    #[must_use]
    pub fn start(config: &IgloohomeConfig, system: SystemName, time_zone: TimeZone, clock: Clock) -> Self {
        let mut locks = BTreeMap::new();
        for lock in &config.locks {
            let lane = match LaneName::new(format!("{system}/{}", lock.name)) {
                Ok(lane) => lane,
                Err(error) => {
                    tracing::error!(%system, lock = %lock.name, %error, "the lock is left out");
                    continue;
                }
            };
            let device = Device {
                name: lock.name.clone(),
                display_name: lock.display_name.clone(),
                slots: 0,
                pins: Some(PinRules {
                    lengths: lock.pin_lengths.clone(),
                    constraints: vec![PinConstraint::ComputedByMaker],
                }),
                device_type: Some(lock.device_type.clone()),
                manufacturer: Some("igloohome".into()),
                model: None,
                lead_seconds: u32::try_from(LEAD.as_secs()).ok(),
                remote_unlock: None,
                card_numbers: false,
            };
            locks.insert(lock.name.clone(), Lock { lane, device });
        }
        Self { system, time_zone, locks, clock, line: watch::Sender::new(Line::Ready) }
    }

    /// What can be done with these locks; the same for every site.
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
            unlock: None,
            chip_numbers: None,
            max_rooms: 0,
            max_common: 0,
            answer_means_written: false,
            parallel_encoders: false,
        }
    }

    fn lock(&self, device: &DeviceName) -> Result<&Lock, Refusal> {
        self.locks.get(device).ok_or_else(|| {
            Refusal::new(Code::DeviceUnknown, format!("system {} has no lock {device}", self.system))
        })
    }

    /// Judges what is to be given out, before anything is stored.
    fn judge(lock: &Lock, put: &SlotPut) -> Result<(), Refusal> {
        let SlotContent::Pin(pin) = &put.content else {
            return Err(unsupported("an igloohome lock is given codes; it knows no cards by their numbers"));
        };
        let digits = pin.expose();
        let lengths = lock.device.pins.as_ref().map(|pins| pins.lengths.as_slice()).unwrap_or_default();
        let fits = lengths.iter().any(|length| usize::from(*length) == digits.len());
        if !fits || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            let lengths: Vec<_> = lengths.iter().map(ToString::to_string).collect();
            return Err(unsupported(format!("`pin`: this lock's codes have {} digits", lengths.join(", "))));
        }
        if put.window.ends_at().is_none() {
            return Err(Refusal::new(
                Code::BadDates,
                "`window`: a code without an end could never be taken away from an igloohome lock; give it one",
            ));
        }
        Ok(())
    }

    /// Judges it again, by what was given out before.
    fn put(&self, put: &SlotPut, slot: &SlotNow) -> Result<(), Refusal> {
        let is_same = slot.may_hold == [put.content.clone()] && slot.until == put.window.ends_at();
        match self.opens_until(slot) {
            Some(end) if !is_same => Err(unsupported(format!(
                "the code that was given out before opens until {end}: nobody can change it, give out another one in a \
                 slot of its own"
            ))),
            _ => Ok(()),
        }
    }

    fn remove(&self, slot: &SlotNow) -> Result<(), Refusal> {
        match self.opens_until(slot) {
            Some(end) => Err(unsupported(format!(
                "the code opens until {end} whatever is done here: only the maker's app or bridge can take it away"
            ))),
            None => Ok(()),
        }
    }

    /// Until when what was given out opens, for a person; none where nothing does any more.
    fn opens_until(&self, slot: &SlotNow) -> Option<String> {
        let now = self.clock.now();
        match (slot.may_hold.as_slice(), slot.until) {
            ([], _) => None,
            (_, None) => Some("an end that nobody knows".into()),
            (_, Some(until)) => (now < until).then(|| until.to_string()),
        }
    }

    fn work(&self, work: &Work) -> Result<Success, Refusal> {
        let slot = work.slot.clone().unwrap_or_default();
        match &work.order {
            Order::SlotPut(put) => {
                Self::judge(self.lock(&put.device)?, put)?;
                self.put(put, &slot)?;
            }
            Order::SlotRemove { device, .. } => {
                self.lock(device)?;
                self.remove(&slot)?;
            }
            order => drop(self.lane(order)?),
        }
        Ok(Success::default())
    }

    fn lane(&self, order: &Order) -> Result<LaneName, Refusal> {
        match order {
            Order::SlotPut(put) => {
                let lock = self.lock(&put.device)?;
                Self::judge(lock, put)?;
                Ok(lock.lane.clone())
            }
            Order::SlotRemove { device, .. } => Ok(self.lock(device)?.lane.clone()),
            Order::InventoryRefresh => Ok(self.all_locks()),
            Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. }
            | Order::CardEncode(_)
            | Order::CardRead(_)
            | Order::StayModify(_)
            | Order::StayCheckout { .. } => Err(unsupported(format!(
                "nothing on the property speaks to igloohome locks: {} is only possible with the maker's app or bridge",
                order.kind().as_str()
            ))),
        }
    }

    fn all_locks(&self) -> LaneName {
        LaneName::new(self.system.as_str()).expect("a system's name is a lane's name too")
    }
}

fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::Unsupported, message)
}

impl Driver for Igloohome {
    fn system(&self) -> &SystemName {
        &self.system
    }

    fn inventory(&self) -> SystemInventory {
        SystemInventory {
            name: self.system.clone(),
            kind: SystemKind::Igloohome,
            time_zone: self.time_zone.iana_name().unwrap_or("Etc/Unknown").to_owned(),
            capabilities: Self::capabilities(),
            checkout_on_last_grant: false,
            override_after_deleted_card: false,
            doors: Vec::new(),
            encoders: Vec::new(),
            devices: self.locks.values().map(|lock| lock.device.clone()).collect(),
        }
    }

    fn lanes(&self) -> Vec<LaneName> {
        let locks = self.locks.values().map(|lock| lock.lane.clone());
        std::iter::once(self.all_locks()).chain(locks).collect()
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        let lead = match order {
            Order::SlotPut(_) => LEAD,
            _ => Duration::ZERO,
        };
        Ok(Admission { lead, ..Admission::to(self.lane(order)?, Vec::new()) })
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.line.subscribe()
    }

    fn perform<'a>(&'a self, work: Work, _progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        let outcome = match self.work(&work) {
            Ok(success) => Outcome::Succeeded(success),
            Err(refusal) => Outcome::Failed(refusal),
        };
        Box::pin(async move { Performed::Ended(outcome) })
    }

    /// Nothing ever left: what a lock does was settled when its maker computed the code.
    fn prove<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Proof> {
        let proof = match (&work.order, work.slot.as_ref()) {
            (Order::SlotPut(_), _) => Proof::Done(Success::default()),
            (Order::SlotRemove { .. }, slot) => match self.remove(&slot.cloned().unwrap_or_default()) {
                Ok(()) => Proof::Done(Success::default()),
                Err(refusal) => Proof::NotDone(refusal),
            },
            _ => Proof::None,
        };
        Box::pin(async move { proof })
    }

    fn stop(&self) {}
}

impl std::fmt::Debug for Igloohome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Igloohome")
            .field("system", &self.system)
            .field("locks", &self.locks.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::{
        config::IgloohomeLock,
        model::{JobId, Private, Treatment, Window},
    };

    fn hours(count: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(count)
    }

    fn gate(now: Timestamp) -> Igloohome {
        let lock = IgloohomeLock {
            name: DeviceName::new("301").unwrap(),
            display_name: None,
            pin_lengths: vec![8],
            device_type: "igloohome_lock".into(),
        };
        let system = SystemName::new("gate").unwrap();
        Igloohome::start(&IgloohomeConfig { locks: vec![lock] }, system, TimeZone::UTC, Clock::simulated(now))
    }

    fn put(pin: &str, ends_at: Option<Timestamp>) -> Order {
        Order::SlotPut(SlotPut {
            device: DeviceName::new("301").unwrap(),
            slot: "stay-1".into(),
            content: SlotContent::Pin(Private::new(pin)),
            window: Window::new(hours(0), ends_at).unwrap(),
            generation: 1,
        })
    }

    fn remove() -> Order {
        Order::SlotRemove { device: DeviceName::new("301").unwrap(), slot: "stay-1".into() }
    }

    fn holds(pin: &str, until: Option<Timestamp>) -> SlotNow {
        SlotNow {
            place: None,
            may_hold: vec![SlotContent::Pin(Private::new(pin))],
            until,
            is_forgotten: false,
        }
    }

    fn done(gate: &Igloohome, order: Order, slot: SlotNow) -> Result<Success, Refusal> {
        let job_id = JobId::from(uuid::Uuid::nil());
        gate.work(&Work { job_id, order, treatment: Treatment::Plain, to_see: None, slot: Some(slot) })
    }

    #[test]
    fn a_code_is_passed_on_and_what_only_the_maker_can_do_is_refused_with_the_reason() {
        let gate = gate(hours(5));
        let own = put("83051742", Some(hours(9)));
        assert_eq!(done(&gate, own.clone(), SlotNow::default()), Ok(Success::default()));
        // Once more after a crash.
        assert_eq!(done(&gate, own, holds("83051742", Some(hours(9)))), Ok(Success::default()));
        let refused = |order: Order, slot: SlotNow, part: &str| {
            let refusal = done(&gate, order, slot).unwrap_err();
            assert!(refusal.message.contains(part), "{refusal}");
        };
        let held = || holds("83051742", Some(hours(9)));
        refused(put("11112222", Some(hours(9))), held(), "opens until 1970-01-01T09:00:00Z");
        refused(put("83051742", Some(hours(12))), held(), "nobody can change it");
        refused(remove(), held(), "opens until 1970-01-01T09:00:00Z whatever is done here");
        refused(remove(), holds("83051742", None), "an end that nobody knows");
        refused(put("83051742", None), SlotNow::default(), "`window`");
        refused(put("830517", Some(hours(9))), SlotNow::default(), "8 digits");
        let device = DeviceName::new("301").unwrap();
        let refusal = gate.admit(&Order::DeviceUnlock { device }).unwrap_err();
        assert!(refusal.code == Code::Unsupported && refusal.message.contains("maker's app"), "{refusal}");
    }

    #[test]
    fn what_is_over_is_gone_by_itself_and_its_slot_is_free() {
        let gate = gate(hours(9));
        let held = || holds("83051742", Some(hours(9)));
        assert_eq!(done(&gate, remove(), held()), Ok(Success::default()));
        assert_eq!(done(&gate, put("11112222", Some(hours(12))), held()), Ok(Success::default()));
        assert_eq!(done(&gate, remove(), SlotNow::default()), Ok(Success::default()));
    }
}
