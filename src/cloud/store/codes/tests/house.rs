//! Random grants over random locks, and what the locks hold in the end.

use std::collections::BTreeMap;

use super::{desk::made, *};
use crate::model::GrantMade;

/// What a lock holds, slot by slot.
type Table = BTreeMap<String, SlotPut>;

/// The store beside locks that do at once what they are told, where they can be reached.
struct House {
    property: Property,
    tables: BTreeMap<String, Table>,
    away: BTreeSet<String>,
    here: Vec<&'static str>,
    random: Random,
    grants: Vec<Grant>,
    /// What a desk made, and the cloud has not heard of.
    unheard: Vec<GrantMade>,
    /// The slots of a desk's codes.
    of_desk: BTreeSet<String>,
}

impl House {
    const LOCKS: [&str; 3] = ["lock-1", "lock-2", "lock-3"];

    fn new(seed: u64) -> Self {
        let mut property = Property::new();
        property.shows(&Self::LOCKS);
        let tables = Self::LOCKS.iter().map(|lock| ((*lock).to_owned(), Table::new())).collect();
        Self {
            property,
            tables,
            away: BTreeSet::new(),
            here: Self::LOCKS.to_vec(),
            random: Random::seeded(seed),
            grants: Vec::new(),
            unheard: Vec::new(),
            of_desk: BTreeSet::new(),
        }
    }

    fn below(&self, n: u64) -> usize {
        usize::try_from(self.random.below(n)).unwrap()
    }

    fn some_locks(&self) -> Vec<&'static str> {
        let chosen = 1 + self.below(7);
        Self::LOCKS
            .into_iter()
            .enumerate()
            .filter(|(n, _)| chosen & (1 << n) != 0)
            .map(|(_, lock)| lock)
            .collect()
    }

    fn one_grant(&self) -> Option<GrantName> {
        match self.grants.len() as u64 {
            0 => None,
            n => Some(GrantName::Id(self.grants[self.below(n)].id)),
        }
    }

    fn step(&mut self) {
        let now = self.property.now;
        let hours = SignedDuration::from_hours(1 + i64::try_from(self.below(60)).unwrap());
        match self.below(15) {
            12 | 13 => self.desk_gives_out(hours),
            14 => self.cloud_hears(),
            0..3 => {
                let (mut locks, modes) = (self.some_locks(), vec![Mode::Code; 1 + self.below(2)]);
                locks.retain(|lock| self.here.contains(lock));
                if locks.is_empty() {
                    return;
                }
                let grant = self.property.grant(&locks, &modes);
                self.grants.push(grant);
            }
            3..5 => {
                let Some(name) = self.one_grant() else { return };
                let devices = self.some_locks().into_iter().map(|lock| self.property.device(lock)).collect();
                let is_move = self.below(2) == 0;
                let change = GrantChange {
                    ends_at: (!is_move).then_some(Some(now + hours)),
                    devices: is_move.then_some(devices),
                    ..GrantChange::default()
                };
                // A grant that is gone refuses.
                let _ = self.tenant().update_grant(now, &name, &change).unwrap();
            }
            5 => {
                let Some(GrantName::Id(grant)) = self.one_grant() else { return };
                let _ = self.tenant().delete_grant(now, grant).unwrap();
            }
            6 => {
                let Some(name) = self.one_grant() else { return };
                let grant = self.tenant().grant(&name).unwrap();
                if let Some(method) = grant.and_then(|grant| grant.methods.first().map(|method| method.id)) {
                    self.tenant().delete_method(now, method).unwrap().unwrap();
                }
            }
            7 => {
                let lock = Self::LOCKS[self.below(3)].to_owned();
                if !self.away.remove(&lock) {
                    self.away.insert(lock);
                }
            }
            8 => {
                self.here = self.some_locks();
                let here = self.here.clone();
                self.property.shows(&here);
            }
            9 => self.tables.get_mut(Self::LOCKS[self.below(3)]).unwrap().clear(),
            _ => self.property.later(hours),
        }
        self.ends_of_unheard();
        self.work();
        self.check();
    }

    /// A desk that is cut off gives out a code: of locks that can be reached, and often one that the cloud has promised
    /// somebody else and not got into the lock yet.
    fn desk_gives_out(&mut self, hours: SignedDuration) {
        let locks: Vec<_> = self.some_locks().into_iter().filter(|lock| !self.away.contains(*lock)).collect();
        let number = self.of_desk.len() as u128 + 1;
        let promised = match self.one_grant() {
            Some(name) if self.below(2) == 0 => self.tenant().grant(&name).unwrap(),
            _ => None,
        };
        let promised = promised.and_then(|grant| grant.methods.first()?.code.clone());
        let drawn = format!("{:06}", 300_000 + self.below(600_000));
        let pin = promised.map_or(drawn, |view| view.code.pin.expose().to_owned());
        let content = SlotContent::Pin(Private::new(pin.as_str()));
        let is_taken = |lock: &&str| self.tables[*lock].values().any(|put| put.content == content);
        if pin.is_empty() || locks.is_empty() || locks.iter().any(is_taken) {
            return;
        }
        let fact = made(&self.property, number, &pin, &locks, hours.as_hours());
        let slot = fact.grant.codes[0].access_method_id.to_string();
        self.of_desk.insert(slot.clone());
        for lock in locks {
            let put = SlotPut {
                device: DeviceName::new(lock).unwrap(),
                slot: slot.clone(),
                content: content.clone(),
                window: fact.grant.window,
                generation: u64::try_from(fact.at.as_millisecond()).unwrap(),
            };
            self.tables.get_mut(lock).unwrap().insert(slot.clone(), put);
        }
        self.unheard.push(fact);
    }

    /// The cloud hears of what a desk made; of some it hears at once that the desk took it back.
    fn cloud_hears(&mut self) {
        for fact in std::mem::take(&mut self.unheard) {
            let grant = self.property.adopts(&fact);
            if self.below(4) == 0 {
                self.property.desk_revokes(grant.id);
                for table in self.tables.values_mut() {
                    table.remove(&fact.grant.codes[0].access_method_id.to_string());
                }
            }
            self.grants.push(grant);
        }
    }

    /// What the agent does at its end with a code that the cloud has not heard of.
    fn ends_of_unheard(&mut self) {
        let now = self.property.now;
        for fact in self.unheard.iter().filter(|fact| fact.grant.window.is_over(now)) {
            for table in self.tables.values_mut() {
                table.remove(&fact.grant.codes[0].access_method_id.to_string());
            }
        }
    }

    fn tenant(&mut self) -> Tenant<'_> {
        self.property.db.tenant(self.property.workspace)
    }

    /// Locks that can be reached do what is ordered; sometimes nobody knows.
    fn work(&mut self) {
        for _ in 0..50 {
            let mut orders = self.property.ordered();
            if orders.is_empty() {
                return;
            }
            for (job, order) in orders.drain(..) {
                let lock = match &order {
                    Order::SlotPut(put) => put.device.to_string(),
                    Order::SlotRemove { device, .. } | Order::DeviceRead { device } => device.to_string(),
                    order => panic!("{order:?}"),
                };
                if self.away.contains(&lock) {
                    self.property.report(job, Outcome::failed(Code::NoAnswer, "away"));
                    continue;
                }
                let now = self.property.now;
                let table = self.tables.get_mut(&lock).unwrap();
                let mut success = Success::default();
                match order {
                    Order::SlotPut(put) if put.window.is_over(now) => {
                        self.property.report(job, Outcome::failed(Code::Expired, "over"));
                        continue;
                    }
                    Order::SlotPut(put) => {
                        let twin = table
                            .values()
                            .find(|other| other.slot != put.slot && other.content == put.content);
                        let is_of_desk = |slot: &String| self.of_desk.contains(slot);
                        if twin.is_some_and(|twin| {
                            !twin.window.is_over(now) && !is_of_desk(&twin.slot) && !is_of_desk(&put.slot)
                        }) {
                            panic!("{} is put at {lock} beside {twin:?}", put.slot);
                        }
                        if twin.is_some() {
                            self.property.report(job, Outcome::failed(Code::ContentTaken, "left over"));
                            continue;
                        }
                        table.insert(put.slot.clone(), put);
                    }
                    Order::SlotRemove { slot, .. } => drop(table.remove(&slot)),
                    _ => {
                        let seen =
                            |put: &SlotPut| SlotSeen { slot: put.slot.clone(), generation: put.generation };
                        success.slots = Some(table.values().map(seen).collect());
                    }
                }
                let is_known = success.slots.is_some() || self.random.below(8) > 0;
                let silence = Outcome::unknown(Code::NoAnswer, "silence");
                self.property.report(job, if is_known { Outcome::Succeeded(success) } else { silence });
            }
        }
        panic!("orders do not come to an end");
    }

    /// What is in a lock is wanted there, or shown as still there.
    fn check(&mut self) {
        for lock in Self::LOCKS {
            let slots: Vec<_> = self.tables[lock].keys().cloned().collect();
            let device =
                self.property.db.one("SELECT device_id FROM device WHERE name = ?1", [lock], |row| {
                    row.get::<_, String>("device_id")
                });
            let is_unheard = |slot: &String| {
                let mut facts = self.unheard.iter();
                facts.any(|fact| fact.grant.codes[0].access_method_id.to_string() == *slot)
            };
            for slot in slots.into_iter().filter(|slot| !is_unheard(slot)) {
                let known = format!(
                    "desired_slot WHERE access_method_id = '{slot}' AND device_id = '{}'",
                    device.as_ref().unwrap().as_ref().unwrap()
                );
                assert_eq!(self.property.rows(&known), 1, "{slot} is in {lock} unheard of");
            }
        }
    }

    /// Everything can be reached, and enough time passes.
    fn quiet(&mut self) {
        self.away.clear();
        self.property.shows(&Self::LOCKS);
        self.cloud_hears();
        for _ in 0..4 {
            self.property.db.execute("UPDATE device SET read_due = 0", []).unwrap();
            self.property.later(SignedDuration::from_mins(31));
            self.work();
        }
        // What ended just now is left to the agent for a moment.
        for _ in 0..2 {
            self.property.later(SignedDuration::from_mins(3));
            self.work();
        }
    }

    fn check_quiet(&mut self) {
        let now = self.property.now;
        let mut wanted: BTreeMap<String, BTreeMap<String, (Private, Option<Timestamp>)>> = BTreeMap::new();
        for grant in std::mem::take(&mut self.grants) {
            let Some(grant) = self.property.the_grant(&grant) else { continue };
            assert!(grant.deleted_at.is_none(), "{} is still being deleted", grant.id);
            if grant.window.is_over(now) {
                continue;
            }
            for method in &grant.methods {
                let view = method.code.as_ref().unwrap();
                // Its devices have others of the same request.
                if view.code.devices.is_empty() {
                    continue;
                }
                assert!(method.is_issued && view.coming.is_empty() && view.leaving.is_empty(), "{method:?}");
                for device in &view.code.devices {
                    assert!(grant.devices.contains(device));
                    let held = (view.code.pin.clone(), grant.window.ends_at());
                    let of_lock = wanted.entry(device.to_string()).or_default();
                    of_lock.insert(method.id.to_string(), held);
                }
            }
        }
        for lock in Self::LOCKS {
            let device = self.property.device(lock).to_string();
            let holds: BTreeMap<_, _> = self.tables[lock]
                .values()
                .map(|put| {
                    let SlotContent::Pin(pin) = &put.content else { panic!("{put:?}") };
                    (put.slot.clone(), (pin.clone(), put.window.ends_at()))
                })
                .collect();
            let wanted = wanted.remove(&device).unwrap_or_default();
            assert!(holds == wanted, "{lock} holds {:?} and should hold {:?}", holds.keys(), wanted.keys());
            let pins: BTreeSet<_> = holds.values().map(|(pin, _)| pin.expose().to_owned()).collect();
            assert_eq!(pins.len(), holds.len(), "a PIN twice at {lock}");
        }
        let wanted: i64 = self.property.rows("desired_slot WHERE pin IS NOT NULL");
        assert_eq!(self.property.rows("desired_slot"), wanted, "what is over has left rows");
        assert_eq!(self.property.rows("stray_slot"), 0);
    }
}

#[test]
fn whatever_is_stored_and_reported_the_locks_end_as_it_was_asked() {
    let cases = std::env::var("LATCHD_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    for seed in 0..cases {
        let mut house = House::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..40 {
                house.step();
            }
            house.quiet();
            house.check_quiet();
        }));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
