//! Codes in the devices of this site: those that a desk gives out, and where each of a grant's stands.
//!
//! A desk draws a PIN by the planner that the cloud draws it by, from what this site knows: every PIN that may be in a
//! device, or waits to be put there, is taken. What only the cloud knows is not: a PIN that it has promised to somebody and
//! not ordered yet. The device itself decides then, as none holds the same PIN twice. So nobody is told a PIN before the
//! device was read back, and the cloud gives another to whom the device refuses it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    GrantRefused, JobDetail, LocalOrder, Queue,
    slots::{NEVER, Slot},
};
use crate::{
    grants::{
        PinMark,
        codes::{Book, CodeGrant, Lock, Moment},
        pin,
    },
    model::{
        AccessGrantId, AccessMethodId, DesiredCode, DesiredDevice, DesiredGrant, Device, DeviceId, Job,
        JobId, JobState, Kind, Order, Origin, Priority, Private, SlotContent, SlotPut, SystemInventory,
        Window, on_the_wire,
    },
    store::StoreError,
};

/// The PIN that a desk asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeskCode {
    /// Any that nobody has, drawn here.
    Any,
    /// This one, by the guest's own wish.
    Pin(#[serde(serialize_with = "on_the_wire")] Private),
}

/// Where a code stands in a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeState {
    /// It was read back: it opens within its window.
    Set,
    /// Its time has not come.
    Scheduled,
    /// A job for it waits, or is at work.
    BeingSet,
    /// Nobody knows whether it is there.
    InDoubt,
    /// It is not there.
    NotSet,
}

/// Where a code stands in a device, and the job that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeStanding {
    /// Where it stands.
    pub state: CodeState,
    /// The PIN, where it was read back.
    pub pin: Option<Private>,
    /// Why it is not there, for a person.
    pub why: Option<String>,
    /// The job of this site that says so.
    pub job_id: Option<JobId>,
}

/// A device that can be given codes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keypad<'a> {
    pub(super) system: &'a SystemInventory,
    pub(super) device: &'a Device,
}

impl Keypad<'_> {
    fn named(&self) -> DesiredDevice {
        DesiredDevice { system: self.system.name.clone(), device: self.device.name.clone() }
    }

    /// The name that leaves no doubt.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.system.name, self.device.name)
    }
}

/// Whether a device can be given codes.
pub(super) fn takes_codes(system: &SystemInventory, device: &Device) -> bool {
    system.capabilities.slots.is_some() && device.pins.as_ref().is_some_and(pin::can_be_given)
}

impl Queue {
    /// The codes of a new grant: one PIN for all these devices where that can be. Nothing is kept of them here.
    pub(super) fn plan_codes(
        &self,
        now: Timestamp,
        grant: AccessGrantId,
        window: Window,
        keypads: &[Keypad<'_>],
        wanted: &DeskCode,
    ) -> Result<Result<Vec<DesiredCode>, GrantRefused>, StoreError> {
        let mark = |pin: &str| PinMark(self.seal.blind_index("slot.pin", pin));
        let held = self.pins_held(now)?;
        let id = |place: usize| DeviceId(uuid::Uuid::from_u128(place as u128 + 1));
        let lock = |keypad: &Keypad<'_>| Lock {
            pins: keypad.device.pins.clone(),
            takes_cards: false,
            is_here: true,
            lead: SignedDuration::from_secs(keypad.device.lead_seconds.unwrap_or_default().into()),
            taken: held.get(&keypad.name()).into_iter().flatten().map(|(pin, at)| (mark(pin), *at)).collect(),
        };
        let mut book = Book::default();
        book.devices.extend(keypads.iter().enumerate().map(|(place, keypad)| (id(place), lock(keypad))));
        let of_grant = CodeGrant {
            window,
            deleted_at: None,
            deletion_told: false,
            devices: book.devices.keys().copied().collect(),
            opened: BTreeSet::new(),
            doors_open: true,
            habits: Vec::new(),
            requests: BTreeMap::new(),
        };
        book.grants.insert(grant, of_grant);
        let wish = match wanted {
            DeskCode::Any => None,
            DeskCode::Pin(pin) => Some(pin),
        };
        let at = Moment { now, random: &self.random, mark: &mark };
        let methods = book.request(&at, grant, 0, wish);
        let mut codes = Vec::new();
        let mut without: Vec<_> = keypads.iter().map(Keypad::name).collect();
        for method in methods {
            let code = &book.methods[&method];
            // Whoever chose a PIN is told that it cannot be had, and given no other.
            if wish.is_some_and(|wish| *wish != code.pin) {
                continue;
            }
            let of_code = |(place, _): &(usize, &Keypad<'_>)| code.devices.contains(&id(*place));
            let devices: Vec<_> = keypads.iter().enumerate().filter(of_code).map(|(_, it)| it).collect();
            without.retain(|name| devices.iter().all(|keypad| keypad.name() != *name));
            codes.push(DesiredCode {
                access_method_id: method,
                devices: devices.into_iter().map(Keypad::named).collect(),
                pin: Some(code.pin.clone()),
            });
        }
        Ok(match without.is_empty() {
            true => Ok(codes),
            false if wish.is_some() => Err(GrantRefused::PinNotToBeHad(without)),
            false => Err(GrantRefused::NoPinLeft(without)),
        })
    }

    /// The PINs that are in devices, or may be, or wait to be put there; by system and device.
    fn pins_held(&self, now: Timestamp) -> Result<BTreeMap<String, Vec<(String, Window)>>, StoreError> {
        let mut jobs: BTreeSet<JobId> = self
            .ids("SELECT job_id FROM job WHERE slot IS NOT NULL AND ended_at IS NULL", [])?
            .into_iter()
            .collect();
        self.each_slot(|slot| match slot {
            Ok(slot) => {
                jobs.extend(slot.put_by());
                Ok(())
            }
            // A device refuses a PIN that it has already.
            Err(error @ (StoreError::Sealed(_) | StoreError::Corrupt { .. })) => {
                tracing::warn!(error = error.chain(), "what a device may hold cannot be read any more");
                Ok(())
            }
            Err(error) => Err(error),
        })?;
        let mut held = BTreeMap::<_, Vec<_>>::new();
        for job_id in jobs {
            let Some((system, put)) = self.put_of(job_id)? else { continue };
            let SlotContent::Pin(pin) = put.content else { continue };
            // What should be gone and is not takes up its place until it is.
            let window = match put.window.is_over(now) {
                true => Window::new(put.window.starts_at(), None).unwrap_or(put.window),
                false => put.window,
            };
            let name = format!("{system}/{}", put.device);
            held.entry(name).or_default().push((pin.expose().to_owned(), window));
        }
        Ok(held)
    }

    /// What a job puts, and in which system; none of a job that is not there, or cannot be read any more.
    pub(super) fn put_of(
        &self,
        job_id: JobId,
    ) -> Result<Option<(crate::model::SystemName, SlotPut)>, StoreError> {
        let row = match self.find(job_id) {
            Ok(row) => row,
            Err(error @ (StoreError::Sealed(_) | StoreError::Corrupt { .. })) => {
                tracing::warn!(job = %job_id, error = error.chain(), "what a device may hold cannot be read any more");
                None
            }
            Err(error) => return Err(error),
        };
        let job = row.and_then(|row| row.body).map(|body| body.job);
        Ok(job.and_then(|Job { system, order, .. }| match order {
            Order::SlotPut(put) => Some((system, put)),
            _ => None,
        }))
    }

    /// The jobs that put the codes of a new grant.
    pub(super) fn code_puts(&self, now: Timestamp, grant: &DesiredGrant) -> Vec<LocalOrder> {
        let mut puts = Vec::new();
        for DesiredCode { access_method_id, devices, pin } in &grant.codes {
            let Some(pin) = pin else { continue };
            for at in devices {
                let put = SlotPut {
                    device: at.device.clone(),
                    slot: access_method_id.to_string(),
                    content: SlotContent::Pin(pin.clone()),
                    window: grant.window,
                    generation: generation(now),
                };
                puts.push(self.of_desk(now, at, grant.window.ends_at(), Order::SlotPut(put)));
            }
        }
        puts
    }

    /// The jobs that empty what the codes of a grant are for. Also of a slot for which no order ever came: the cloud may have
    /// given one that is on its way, see [`Queue::was_taken_back_here`].
    pub(super) fn code_removals(&self, now: Timestamp, grant: &DesiredGrant) -> Vec<LocalOrder> {
        let places = grant.codes.iter().flat_map(|code| code.devices.iter().map(move |at| (code, at)));
        places.map(|(code, at)| self.of_desk(now, at, None, removal(code.access_method_id, at))).collect()
    }

    /// Whether a person at the site has had a slot emptied, of which the cloud had not heard when it ordered something
    /// into it, or may not have.
    pub(super) fn was_taken_back_here(&self, now: Timestamp, put: &Job) -> Result<bool, StoreError> {
        let Some(slot) = self.slot_for(&put.system, &put.order)? else { return Ok(false) };
        let Some(JobDetail { view, .. }) = self.job(slot.decided_by)? else { return Ok(false) };
        if view.origin != Origin::Person || view.kind != Some(Kind::SlotRemove) {
            return Ok(false);
        }
        // An end that lies ahead was read off a clock that was wrong: it says nothing.
        let was_before = view.ended_at.is_none_or(|ended_at| ended_at <= now && put.created_at <= ended_at);
        Ok(was_before || self.has_report(slot.decided_by)?)
    }

    fn of_desk(
        &self,
        now: Timestamp,
        at: &DesiredDevice,
        expires_at: Option<Timestamp>,
        order: Order,
    ) -> LocalOrder {
        let never = Timestamp::from_second(NEVER).unwrap_or(Timestamp::MAX);
        let job = Job {
            job_id: JobId(self.random.uuid_at(now)),
            system: at.system.clone(),
            priority: Priority::Desk,
            created_at: now,
            expires_at: expires_at.unwrap_or(never),
            order,
        };
        LocalOrder { job, origin: Origin::Person, retries: None }
    }

    /// Gives the codes of a grant the PINs that they have by now, as far as they were put, or are to be, in devices of this
    /// site: the cloud gives another to whom a device refuses one, under the same name.
    pub(super) fn renew_pins(&self, grant: &mut DesiredGrant) -> Result<(), StoreError> {
        for code in &mut grant.codes {
            let mut latest = None;
            for at in &code.devices {
                let slot = match self.slot_for(&at.system, &removal(code.access_method_id, at)) {
                    Ok(Some(slot)) => slot,
                    // What cannot be read any more holds up nothing.
                    Ok(None) | Err(StoreError::Sealed(_) | StoreError::Corrupt { .. }) => continue,
                    Err(error) => return Err(error),
                };
                let newest = (slot.generation, self.pin_in(&slot)?);
                if newest.1.is_some() && latest.as_ref().is_none_or(|(known, _)| *known < newest.0) {
                    latest = Some(newest);
                }
            }
            if let Some((_, pin)) = latest {
                code.pin = pin;
            }
        }
        Ok(())
    }

    /// The PIN that was ordered into a slot last, unless that came to nothing: then the last one that may be there.
    fn pin_in(&self, slot: &Slot) -> Result<Option<Private>, StoreError> {
        let is_to_be = self
            .connection
            .prepare_cached(
                "SELECT 1 FROM job WHERE job_id = ?1 \
                 AND state IN ('received', 'waiting', 'sent', 'succeeded', 'unknown')",
            )?
            .exists([slot.decided_by.0.as_bytes()])?;
        let to_be = if is_to_be { self.pin_put_by(slot.decided_by)? } else { None };
        match (to_be, slot.put_by().last()) {
            (None, Some(last)) => self.pin_put_by(*last),
            (to_be, _) => Ok(to_be),
        }
    }

    fn pin_put_by(&self, job_id: JobId) -> Result<Option<Private>, StoreError> {
        Ok(self.put_of(job_id)?.and_then(|(_, put)| match put.content {
            SlotContent::Pin(pin) => Some(pin),
            SlotContent::CardNumber(_) => None,
        }))
    }

    /// Where a code stands in one of its devices, by what this site did there. The PIN is told once it was read back, and it
    /// is the one that is there, whoever ordered it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn code_standing(
        &self,
        code: AccessMethodId,
        at: &DesiredDevice,
    ) -> Result<CodeStanding, StoreError> {
        let standing = |state, job_id| CodeStanding { state, pin: None, why: None, job_id: Some(job_id) };
        let Some(slot) = self.slot_for(&at.system, &removal(code, at))? else {
            let why = Some("no order for it has come to this site".to_owned());
            return Ok(CodeStanding { state: CodeState::NotSet, pin: None, why, job_id: None });
        };
        let there = slot.certainly_put_by();
        let pin = there.map_or(Ok(None), |job_id| self.pin_put_by(job_id))?;
        if let Some(job_id) = slot.at_work {
            // The cloud takes over what a desk gave out by ordering it once more.
            let being_put = self.pin_put_by(job_id)?;
            if being_put.is_some() && being_put != pin {
                return Ok(standing(CodeState::BeingSet, job_id));
            }
        }
        if let Some(job_id) = there {
            return Ok(CodeStanding { pin, ..standing(CodeState::Set, job_id) });
        }
        let job_id = slot.decided_by;
        if slot.may_open() {
            return Ok(standing(CodeState::InDoubt, job_id));
        }
        let Some(JobDetail { view, outcome, .. }) = self.job(job_id)? else {
            return Ok(standing(CodeState::NotSet, job_id));
        };
        let state = match view.state {
            JobState::Received | JobState::Waiting if view.due_at.is_some() => CodeState::Scheduled,
            JobState::Received | JobState::Waiting | JobState::Sent => CodeState::BeingSet,
            JobState::Succeeded
            | JobState::Failed
            | JobState::Unknown
            | JobState::Cancelled
            | JobState::Expired
            | JobState::Superseded => CodeState::NotSet,
        };
        let why = outcome.as_ref().and_then(|outcome| outcome.reason()).map(|why| why.message.clone());
        Ok(CodeStanding { why, ..standing(state, job_id) })
    }
}

/// The generation of what a desk puts: it grows with the clock, as the cloud's does.
fn generation(now: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond()).unwrap_or(0)
}

fn removal(code: AccessMethodId, at: &DesiredDevice) -> Order {
    Order::SlotRemove { device: at.device.clone(), slot: code.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            Admission, Capabilities, Code, DeviceName, LaneName, Outcome, PinConstraint, PinRules,
            ProofLevel, Resolution, Success, SystemKind, SystemName, Verdict,
        },
        protocol::{Desired, Message, Position},
        queue::{
            Claimed, DeskGrant, Rules,
            testing::{at, opened},
        },
        seams::Random,
    };

    const LOCKS: [&str; 2] = ["front", "back"];
    const HOUR: i64 = 3_600;

    fn keypads() -> Vec<SystemInventory> {
        let proven = Some(ProofLevel::Simulator);
        let device = |name: &str| Device {
            name: DeviceName::new(name).unwrap(),
            display_name: None,
            slots: 10,
            pins: Some(PinRules { lengths: vec![4], constraints: vec![PinConstraint::NoZeros] }),
            device_type: None,
            manufacturer: None,
            model: None,
            lead_seconds: Some(60),
            remote_unlock: None,
            card_numbers: false,
        };
        vec![SystemInventory {
            name: system(),
            kind: SystemKind::SimLock,
            time_zone: "UTC".into(),
            capabilities: Capabilities {
                r#override: None,
                join: None,
                future_start: None,
                checkout: None,
                modify_stay: None,
                read_card: None,
                open_end: None,
                slots: proven,
                unlock: None,
                chip_numbers: None,
                max_rooms: 0,
                max_common: 0,
                answer_means_written: true,
                parallel_encoders: true,
            },
            override_after_deleted_card: false,
            checkout_on_last_grant: false,
            doors: Vec::new(),
            encoders: Vec::new(),
            devices: LOCKS.map(device).into(),
        }]
    }

    fn system() -> SystemName {
        SystemName::new("keypads").unwrap()
    }

    fn lane(device: &str) -> LaneName {
        LaneName::new(format!("keypads/{device}")).unwrap()
    }

    /// A desk with two locks, and what its queue is told became of their jobs.
    struct Desk {
        queue: Queue,
        _folder: tempfile::TempDir,
        jobs: u128,
        now: Timestamp,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut queue = opened(&folder, Rules::default());
            let up_to = Position { epoch: 1, n: 0 };
            let told = Desired { up_to, grants: Vec::new(), gone: Vec::new(), complete: true };
            queue.take_desired(&told).unwrap();
            Self { queue, _folder: folder, jobs: 0, now: at(HOUR) }
        }

        fn wish(&mut self, locks: &[&str], code: DeskCode) -> Result<DesiredGrant, GrantRefused> {
            let wish = DeskGrant {
                access_grant_key: None,
                reservation_key: None,
                guest_name: Private::new("Jane Secretsson"),
                starts_at: None,
                ends_at: Some(self.now + SignedDuration::from_hours(24)),
                doors: locks.iter().map(ToString::to_string).collect(),
                card: false,
                code: Some(code),
            };
            let changed = self.queue.plan_grant(self.now, &wish, &keypads()).unwrap()?;
            self.queue.make_grant(self.now, &changed.grant, "Kari").unwrap();
            changed.orders.into_iter().for_each(|order| self.take(order));
            Ok(changed.grant)
        }

        fn make(&mut self, locks: &[&str]) -> DesiredGrant {
            self.wish(locks, DeskCode::Any).unwrap()
        }

        fn choose(&mut self, locks: &[&str], pin: &str) -> Result<DesiredGrant, GrantRefused> {
            self.wish(locks, DeskCode::Pin(Private::new(pin)))
        }

        fn revoke(&mut self, grant: &DesiredGrant) {
            let name = grant.access_grant_id.to_string();
            let changed = self.queue.revoke_grant(self.now, &name, "Kari").unwrap().unwrap();
            changed.orders.into_iter().for_each(|order| self.take(order));
        }

        fn take(&mut self, order: LocalOrder) {
            let (Order::SlotPut(SlotPut { device, .. }) | Order::SlotRemove { device, .. }) =
                &order.job.order
            else {
                panic!("{order:?}")
            };
            let admission = Admission::to(lane(device.as_str()), Vec::new());
            self.queue.accept_local(self.now, order, Ok(admission), false).unwrap();
        }

        /// The cloud puts a PIN for a grant of its own; from when on, in hours.
        fn cloud_puts(&mut self, lock: &str, pin: &str, from: i64) {
            self.jobs += 1;
            let from = self.now + SignedDuration::from_hours(from);
            let put = SlotPut {
                device: DeviceName::new(lock).unwrap(),
                slot: uuid::Uuid::from_u128(self.jobs).to_string(),
                content: SlotContent::Pin(Private::new(pin)),
                window: Window::new(from, Some(from + SignedDuration::from_hours(24))).unwrap(),
                generation: 1,
            };
            let job = Job {
                job_id: JobId(uuid::Uuid::from_u128(0xc10d_0000 + self.jobs)),
                system: system(),
                priority: Priority::Background,
                created_at: self.now,
                expires_at: put.window.ends_at().unwrap(),
                order: Order::SlotPut(put),
            };
            self.take(LocalOrder { job, origin: Origin::Cloud, retries: None });
        }

        /// The cloud orders a code of a grant into a lock, and says so again whenever it cares to.
        fn cloud_orders(
            &mut self,
            grant: &DesiredGrant,
            lock: &str,
            pin: Private,
            made_at: Timestamp,
        ) -> JobId {
            self.jobs += 1;
            let put = SlotPut {
                device: DeviceName::new(lock).unwrap(),
                slot: grant.codes[0].access_method_id.to_string(),
                content: SlotContent::Pin(pin),
                window: grant.window,
                generation: generation(made_at) + 1,
            };
            let job = Job {
                job_id: JobId(uuid::Uuid::from_u128(0xc10d_0000 + self.jobs)),
                system: system(),
                priority: Priority::Background,
                created_at: made_at,
                expires_at: put.window.ends_at().unwrap(),
                order: Order::SlotPut(put),
            };
            let job_id = job.job_id;
            self.take(LocalOrder { job, origin: Origin::Cloud, retries: None });
            job_id
        }

        fn state(&self, job_id: JobId) -> JobState {
            self.queue.job(job_id).unwrap().unwrap().view.state
        }

        /// The cloud acknowledges all that it was told.
        fn is_heard(&mut self) {
            let last = self.queue.memory().unwrap().reports.last;
            self.queue.hand_out_reports(Position { n: 0, ..last }, 100).unwrap();
            self.queue.acknowledge_reports(last);
        }

        /// What waits for a lock is done, each with this end.
        fn works(&mut self, lock: &str, mut end: impl FnMut() -> Outcome) {
            self.queue.come_due(self.now).unwrap();
            while let Some(Claimed { job, .. }) = self.queue.claim(self.now, &lane(lock)).unwrap() {
                self.queue.finish(self.now, job.job_id, end()).unwrap();
            }
        }

        fn standings(&self, grant: &DesiredGrant) -> Vec<(CodeState, Option<Private>)> {
            let mut all = Vec::new();
            for code in &grant.codes {
                for device in &code.devices {
                    let standing = self.queue.code_standing(code.access_method_id, device).unwrap();
                    all.push((standing.state, standing.pin));
                }
            }
            all
        }

        /// The PINs that a lock may hold, or is to hold.
        fn pins_of(&self, lock: &str) -> Vec<String> {
            let held = self.queue.pins_held(self.now).unwrap();
            let held = held.get(&format!("keypads/{lock}"));
            held.into_iter().flatten().map(|(pin, _)| pin.clone()).collect()
        }
    }

    fn done() -> Outcome {
        Outcome::Succeeded(Success::default())
    }

    fn pin_of(grant: &DesiredGrant) -> Private {
        grant.codes[0].pin.clone().unwrap()
    }

    #[test]
    fn a_pin_is_told_once_its_lock_was_read_back_and_goes_out_of_it_with_its_grant() {
        let mut desk = Desk::new();
        let grant = desk.make(&LOCKS);
        assert_eq!((grant.codes.len(), grant.codes[0].devices.len()), (1, 2), "one PIN for both");
        assert_eq!(desk.standings(&grant), vec![(CodeState::BeingSet, None); 2]);
        desk.works("front", done);
        let told = (CodeState::Set, Some(pin_of(&grant)));
        assert_eq!(desk.standings(&grant), [told.clone(), (CodeState::BeingSet, None)]);
        desk.works("back", || Outcome::unknown(Code::NoAnswer, "silent"));
        assert_eq!(desk.standings(&grant), [told, (CodeState::InDoubt, None)]);
        desk.revoke(&grant);
        LOCKS.into_iter().for_each(|lock| desk.works(lock, done));
        assert_eq!(desk.standings(&grant), vec![(CodeState::NotSet, None); 2]);
        assert_eq!((desk.pins_of("front"), desk.pins_of("back")), (vec![], vec![]));
    }

    #[test]
    fn a_pin_that_was_read_back_stays_told_while_the_cloud_orders_it_once_more() {
        let mut desk = Desk::new();
        let grant = desk.make(&["front"]);
        desk.works("front", done);
        let told = [(CodeState::Set, Some(pin_of(&grant)))];
        desk.cloud_orders(&grant, "front", pin_of(&grant), desk.now);
        let begin = |desk: &mut Desk| desk.queue.claim(desk.now, &lane("front")).unwrap().unwrap().job.job_id;
        let same = begin(&mut desk);
        assert_eq!(desk.standings(&grant), told);
        desk.queue.finish(desk.now, same, done()).unwrap();
        desk.cloud_orders(&grant, "front", Private::new("4829"), desk.now);
        begin(&mut desk);
        assert_eq!(desk.standings(&grant), [(CodeState::BeingSet, None)], "it may be another by now");
    }

    #[test]
    fn a_pin_that_is_being_taken_out_is_not_told_as_being_set() {
        let mut desk = Desk::new();
        let grant = desk.make(&["front"]);
        desk.works("front", done);
        desk.revoke(&grant);
        desk.queue.claim(desk.now, &lane("front")).unwrap().unwrap();
        assert_eq!(desk.standings(&grant), [(CodeState::Set, Some(pin_of(&grant)))], "until it is gone");
    }

    #[test]
    fn a_slot_that_cannot_be_read_any_more_keeps_no_desk_from_giving_out_codes() {
        let mut desk = Desk::new();
        desk.make(&["front"]);
        desk.works("front", done);
        desk.queue.connection.execute("UPDATE slot SET body = zeroblob(64)", []).unwrap();
        let other = desk.make(&["back"]);
        desk.works("back", done);
        assert_eq!(desk.pins_of("back"), [pin_of(&other).expose().to_owned()]);
    }

    #[test]
    fn a_cloud_that_has_not_heard_brings_no_pin_back_that_the_desk_took_back() {
        for (was_put, is_removed) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut desk = Desk::new();
            let grant = desk.make(&["front"]);
            if was_put {
                desk.works("front", done);
            }
            desk.revoke(&grant);
            if is_removed {
                desk.works("front", done);
            }
            // Later than the desk's word, by a cloud that has not heard it yet.
            desk.now += SignedDuration::from_secs(60);
            let put = desk.cloud_orders(&grant, "front", pin_of(&grant), desk.now);
            assert_eq!(desk.state(put), JobState::Superseded, "{was_put} {is_removed}");
            desk.works("front", done);
            assert_eq!(desk.pins_of("front"), [] as [String; 0]);
            desk.is_heard();
            // What it ordered before is no later for that.
            let put =
                desk.cloud_orders(&grant, "front", pin_of(&grant), desk.now - SignedDuration::from_secs(90));
            assert_eq!(desk.state(put), JobState::Superseded, "{was_put} {is_removed}");
            // And what a cloud orders that knows, it wants.
            desk.now += SignedDuration::from_secs(60);
            let put = desk.cloud_orders(&grant, "front", pin_of(&grant), desk.now);
            assert_eq!(desk.state(put), JobState::Waiting, "{was_put} {is_removed}");
        }
    }

    #[test]
    fn a_code_that_the_cloud_has_ordered_and_that_is_not_here_yet_is_taken_back_too() {
        let mut desk = Desk::new();
        let mut grant = desk.make(&["front"]);
        grant.codes[0].access_method_id = AccessMethodId(uuid::Uuid::from_u128(99));
        desk.queue.put_made(&grant).unwrap();
        desk.revoke(&grant);
        let put = desk.cloud_orders(&grant, "front", Private::new("4829"), desk.now);
        assert_eq!(desk.state(put), JobState::Superseded);
    }

    #[test]
    fn what_never_came_into_a_lock_is_not_put_after_its_grant_is_taken_back() {
        let mut desk = Desk::new();
        let grant = desk.make(&["front"]);
        desk.revoke(&grant);
        let mut seen = Vec::new();
        desk.queue.come_due(desk.now).unwrap();
        while let Some(Claimed { job, .. }) = desk.queue.claim(desk.now, &lane("front")).unwrap() {
            desk.queue.finish(desk.now, job.job_id, done()).unwrap();
            seen.push(job.order);
        }
        assert!(matches!(seen.as_slice(), [Order::SlotRemove { .. }]), "{seen:?}");
    }

    #[test]
    fn what_a_desk_takes_back_in_vain_is_tried_again_until_it_is_gone() {
        let failed = || Outcome::failed(Code::DeviceBusy, "at work");
        let silent = || Outcome::unknown(Code::NoAnswer, "silent");
        for (first, second) in [(failed(), failed()), (silent(), failed()), (failed(), silent())] {
            let mut desk = Desk::new();
            let grant = desk.make(&["front"]);
            desk.works("front", done);
            desk.revoke(&grant);
            desk.works("front", || first.clone());
            for _ in 0..3 {
                assert_ne!(desk.pins_of("front"), [] as [String; 0]);
                let again = desk.queue.next_due().unwrap().expect("it is tried again");
                assert_eq!(again, desk.now + SignedDuration::from_mins(5), "{first:?} {second:?}");
                desk.now = again;
                desk.works("front", || second.clone());
            }
            desk.now += SignedDuration::from_mins(5);
            desk.works("front", done);
            assert_eq!(desk.pins_of("front"), [] as [String; 0]);
            assert_eq!(desk.queue.next_due().unwrap(), None);
        }
    }

    #[test]
    fn what_a_desk_takes_back_in_vain_goes_at_its_end_at_the_latest() {
        for (ends_in, again_in) in [(3_600, 300), (60, 60), (0, 0)] {
            let mut desk = Desk::new();
            let grant = desk.make(&["front"]);
            desk.works("front", done);
            desk.revoke(&grant);
            let ends_at = grant.window.ends_at().unwrap();
            desk.now = ends_at - SignedDuration::from_secs(ends_in);
            let Claimed { job, .. } = desk.queue.claim(desk.now, &lane("front")).unwrap().unwrap();
            desk.queue.finish(desk.now, job.job_id, Outcome::failed(Code::DeviceBusy, "at work")).unwrap();
            let again = desk.queue.next_due().unwrap().unwrap_or(desk.now);
            assert_eq!(again, desk.now + SignedDuration::from_secs(again_in));
            desk.now = again;
            desk.works("front", done);
            assert_eq!(desk.pins_of("front"), [] as [String; 0]);
        }
    }

    #[test]
    fn a_removal_is_taken_however_much_waits_and_one_that_is_called_off_is_not_tried_again() {
        let mut desk = Desk::new();
        let grant = desk.make(&["front"]);
        desk.works("front", done);
        desk.cloud_puts("front", "4829", 0);
        desk.queue.rules.limits.waiting_jobs = 1;
        desk.revoke(&grant);
        let order = removal(grant.codes[0].access_method_id, &grant.codes[0].devices[0]);
        let job_id = desk.queue.slot_for(&system(), &order).unwrap().unwrap().decided_by;
        assert_eq!(desk.state(job_id), JobState::Waiting);
        desk.queue.cancel(desk.now, None, job_id).unwrap();
        let due = desk.queue.next_due().unwrap();
        assert_eq!(due, grant.window.ends_at(), "what somebody called off is left to its end");
    }

    #[test]
    fn a_chosen_pin_is_had_only_where_nobody_has_it_or_may_have_it() {
        let mut desk = Desk::new();
        desk.cloud_puts("front", "4829", 0);
        desk.cloud_puts("front", "5937", 200);
        let refused = |locks: &[&str]| {
            let names = locks.iter().map(|lock| format!("keypads/{lock}")).collect();
            Err(GrantRefused::PinNotToBeHad(names))
        };
        assert_eq!(desk.choose(&LOCKS, "4829"), refused(&["front"]), "it waits to be put");
        desk.works("front", || Outcome::unknown(Code::NoAnswer, "silent"));
        assert_eq!(desk.choose(&LOCKS, "4829"), refused(&["front"]), "it may be there");
        assert_eq!(desk.choose(&LOCKS, "4029"), refused(&LOCKS), "the locks take no zeros");
        assert_eq!(desk.choose(&["front"], "5937").map(|grant| pin_of(&grant)), Ok(Private::new("5937")));
        assert_eq!(desk.choose(&["back"], "4829").map(|grant| pin_of(&grant)), Ok(Private::new("4829")));
        assert_eq!(desk.choose(&["back"], "4829"), refused(&["back"]));
        // What was refused has left nothing behind.
        assert_eq!(desk.queue.desired_grants(None, 100).unwrap().len(), 2);
    }

    #[test]
    fn the_cloud_is_told_the_pin_and_its_own_picture_keeps_the_code_in_reach() {
        let mut desk = Desk::new();
        let grant = desk.make(&["front"]);
        desk.works("front", done);
        let reports = desk.queue.reports_after(Position { epoch: 1, n: 0 }, 100).unwrap();
        let (Message::GrantMade(made), Message::Outcome(end)) = (&reports[0].1, &reports[1].1) else {
            panic!("{reports:?}")
        };
        assert_eq!(pin_of(&made.grant), pin_of(&grant));
        let local = end.local.as_ref().unwrap();
        assert_eq!(local.slot, Some(grant.codes[0].access_method_id.to_string()));
        let mut picture = grant.clone();
        picture.codes[0].pin = None;
        let up_to = Position { epoch: 1, n: 1 };
        let told = Desired { up_to, grants: vec![picture], gone: Vec::new(), complete: true };
        desk.queue.take_desired(&told).unwrap();
        let seen = desk.queue.desired_grant(grant.access_grant_id).unwrap().unwrap();
        assert_eq!(desk.standings(&seen), [(CodeState::Set, Some(pin_of(&grant)))]);
        // A cloud that forgets all this is told the PIN once more.
        desk.queue.report_facts_again().unwrap();
        let again = desk.queue.reports_after(Position { epoch: 1, n: 2 }, 100).unwrap();
        assert!(again.is_empty(), "the first word is still in the outbox");
        let last = desk.queue.memory().unwrap().reports.last;
        desk.queue.hand_out_reports(Position { n: 0, ..last }, 100).unwrap();
        desk.queue.acknowledge_reports(last);
        desk.queue.resume(at(7), 1, None, Position { n: 0, ..last }).unwrap();
        let reports = desk.queue.reports_after(Position { epoch: 2, n: 0 }, 100).unwrap();
        let Message::GrantMade(made) = &reports[0].1 else { panic!("{reports:?}") };
        assert_eq!(pin_of(&made.grant), pin_of(&grant));
        desk.revoke(&seen);
        desk.works("front", done);
        assert_eq!(desk.pins_of("front"), [] as [String; 0]);
    }

    #[test]
    fn of_more_doubts_than_can_be_settled_one_by_one_no_pin_is_forgotten_and_none_told_for_certain() {
        let silent = || Outcome::unknown(Code::NoAnswer, "silent");
        let mut desk = Desk::new();
        let grant = desk.choose(&["front"], "4829").unwrap();
        desk.works("front", done);
        let pins = ["5937", "7351", "8264", "9173", "6482", "3748"];
        let mut jobs = Vec::new();
        for pin in pins {
            desk.now += SignedDuration::from_secs(1);
            jobs.push(desk.cloud_orders(&grant, "front", Private::new(pin), desk.now));
            desk.works("front", silent);
        }
        let may_be_there = BTreeSet::from_iter(["4829"].into_iter().chain(pins).map(str::to_owned));
        let held = |desk: &Desk| BTreeSet::from_iter(desk.pins_of("front"));
        assert_eq!(held(&desk), may_be_there);
        assert!(desk.choose(&["front"], "4829").is_err(), "somebody else would be given it");
        // A person finds out about the newest: what was before them is as open as it was.
        let by = |verdict| Resolution { verdict, by: "Ada".into() };
        for job_id in jobs.into_iter().rev() {
            desk.queue.resolve(desk.now, job_id, by(Verdict::NotDone)).unwrap().unwrap();
            assert_eq!(desk.standings(&grant), [(CodeState::InDoubt, None)]);
        }
        let known = BTreeSet::from_iter(["4829", "5937", "7351"].map(str::to_owned));
        assert_eq!(held(&desk), known, "of those nobody can say any more which came first");
        // Removals in doubt, and the same PIN again and again, take no room.
        for times in 0..20 {
            desk.now += SignedDuration::from_secs(1);
            if times % 2 == 0 {
                desk.cloud_orders(&grant, "front", Private::new("9173"), desk.now);
            } else {
                let order = removal(grant.codes[0].access_method_id, &grant.codes[0].devices[0]);
                let order = desk.queue.of_desk(desk.now, &grant.codes[0].devices[0], None, order);
                desk.take(LocalOrder { origin: Origin::Cloud, ..order });
            }
            desk.works("front", silent);
        }
        let order = removal(grant.codes[0].access_method_id, &grant.codes[0].devices[0]);
        let slot = desk.queue.slot_for(&system(), &order).unwrap().unwrap();
        assert!(slot.put_by().len() <= 6, "{slot:?}");
        assert_eq!((slot.ends_at(), slot.is_uncertain()), (grant.window.ends_at(), true));
        assert_eq!(held(&desk), known.into_iter().chain(["9173".to_owned()]).collect());
        // One certain word settles all of it.
        desk.now = grant.window.ends_at().unwrap();
        desk.works("front", done);
        assert_eq!((held(&desk), desk.standings(&grant)), (BTreeSet::new(), vec![(CodeState::NotSet, None)]));
    }

    #[test]
    fn a_cloud_that_was_set_back_is_told_the_pin_that_a_lock_has_by_now() {
        for (end, now_has) in [(done(), "5937"), (Outcome::failed(Code::ContentTaken, "taken"), "4829")] {
            let mut desk = Desk::new();
            let grant = desk.choose(&["front"], "4829").unwrap();
            desk.works("front", done);
            desk.now += SignedDuration::from_secs(60);
            desk.cloud_orders(&grant, "front", Private::new("5937"), desk.now);
            desk.works("front", || end.clone());
            // The cloud tells of a code of its own besides, for another lock.
            let mut picture = grant.clone();
            let other = DesiredCode {
                access_method_id: AccessMethodId(uuid::Uuid::from_u128(99)),
                devices: vec![DesiredDevice { device: DeviceName::new("back").unwrap(), system: system() }],
                pin: None,
            };
            picture.codes.push(other.clone());
            picture.codes[0].pin = None;
            let told = Desired {
                up_to: Position { epoch: 1, n: 1 },
                grants: vec![picture],
                gone: Vec::new(),
                complete: true,
            };
            desk.queue.take_desired(&told).unwrap();
            let of_cloud = DesiredGrant { codes: vec![other], ..grant.clone() };
            desk.cloud_orders(&of_cloud, "back", Private::new("7351"), desk.now);
            desk.is_heard();
            let last = desk.queue.memory().unwrap().reports.last;
            desk.queue.resume(desk.now, 1, None, Position { n: 0, ..last }).unwrap();
            let reports = desk.queue.reports_after(Position { n: 0, epoch: last.epoch + 1 }, 100).unwrap();
            let Message::GrantMade(made) = &reports[0].1 else { panic!("{reports:?}") };
            let pins: Vec<_> = made.grant.codes.iter().map(|code| code.pin.clone().unwrap()).collect();
            assert_eq!(pins, [now_has, "7351"].map(Private::new));
        }
    }

    #[test]
    fn whatever_becomes_of_jobs_no_lock_is_to_hold_one_pin_for_two() {
        for seed in 0..48 {
            let random = Random::seeded(seed);
            let below = |n: u64| usize::try_from(random.below(n)).unwrap();
            let pin = |n: usize| ["4829", "5937", "7351", "8264", "9173"][n];
            let (mut desk, mut grants) = (Desk::new(), Vec::<DesiredGrant>::new());
            desk.queue.connection.execute_batch("BEGIN").unwrap();
            for _ in 0..60 {
                let locks = [&LOCKS[..], &LOCKS[..1], &LOCKS[1..]][below(3)];
                let lock = LOCKS[below(2)];
                match below(6) {
                    0 => {
                        // As the cloud would: none that it knows to be taken.
                        let free = pin(below(5));
                        if !desk.pins_of(lock).contains(&free.to_owned()) {
                            desk.cloud_puts(lock, free, i64::try_from(below(3)).unwrap() * 20);
                        }
                    }
                    1 => grants.extend(desk.choose(locks, pin(below(5)))),
                    2 => grants.push(desk.make(locks)),
                    3 if !grants.is_empty() => {
                        let grant = grants.swap_remove(below(grants.len() as u64));
                        desk.revoke(&grant);
                    }
                    4 => desk.now += SignedDuration::from_hours(7),
                    _ => desk.works(lock, || match below(4) {
                        0 => Outcome::unknown(Code::NoAnswer, "silent"),
                        1 => Outcome::failed(Code::SlotsFull, "full"),
                        _ => done(),
                    }),
                }
                for lock in LOCKS {
                    let held = desk.queue.pins_held(desk.now).unwrap();
                    let held = held.get(&format!("keypads/{lock}")).cloned().unwrap_or_default();
                    // Where one should be gone by now and is not, the lock itself refuses the other.
                    let held: Vec<_> = held.iter().filter(|(_, at)| at.ends_at().is_some()).collect();
                    for (n, (pin, window)) in held.iter().enumerate() {
                        let mut others = held[n + 1..].iter();
                        let meets = others.any(|(other, at)| other == pin && at.overlaps(window));
                        assert!(!meets, "seed {seed}: {lock} is to hold {pin} twice");
                    }
                }
            }
        }
    }

    #[test]
    fn a_door_that_takes_no_code_is_refused_by_name() {
        let mut desk = Desk::new();
        let wish = |doors: &[&str], card, code| DeskGrant {
            access_grant_key: None,
            reservation_key: None,
            guest_name: Private::new(""),
            starts_at: None,
            ends_at: None,
            doors: doors.iter().map(ToString::to_string).collect(),
            card,
            code,
        };
        let check = |wish: DeskGrant, name: &str| {
            let refused = desk.queue.plan_grant(desk.now, &wish, &keypads()).unwrap();
            assert_eq!(refused.as_ref().map_err(GrantRefused::code), Err(name), "{refused:?}");
        };
        check(wish(&["nowhere"], false, Some(DeskCode::Any)), "entrance_unknown");
        check(wish(&["front"], true, None), "means_not_supported");
        check(wish(&["front"], true, Some(DeskCode::Any)), "means_not_supported");
        check(wish(&["front"], false, None), "means_not_supported");
        assert_eq!(
            desk.wish(&["keypads/back"], DeskCode::Any).unwrap().codes[0].devices[0].device.as_str(),
            "back"
        );
    }

    #[test]
    fn no_pin_lies_open_in_the_file() {
        let mut desk = Desk::new();
        let pin = pin_of(&desk.make(&["front"]));
        desk.works("front", done);
        drop(desk.queue);
        for file in std::fs::read_dir(desk._folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let quoted = format!("\"{}\"", pin.expose());
            assert!(!bytes.windows(quoted.len()).any(|part| part == quoted.as_bytes()));
        }
    }
}
