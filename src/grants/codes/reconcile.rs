//! Desired against observed, slot by slot: what is missing is ordered, one order for a slot at a time.

use jiff::{SignedDuration, Timestamp};

use crate::model::{AccessGrantId, AccessMethodId, DeviceId, JobId, SlotContent, Window};

use super::{
    super::{Event, PinMark},
    Book, CodeGrant, Content, Deed, Key, Moment, Slot, UnderWay,
};

/// The pause after a first refusal; each further one doubles it.
const PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// The longest pause: what a person mends at the site shows within it.
pub(super) const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(30);
/// The agent removes what has ended; this long after the end nobody counts on it any more.
const REMOVED_WITHIN: SignedDuration = SignedDuration::from_mins(2);
/// A code that is not read back this long after it should have been put is late.
const LATE_AFTER: SignedDuration = SignedDuration::from_mins(2);
/// And this long after, it counts as not issued in time, though its window may only have begun.
const FAILED_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// An order for a bridge, or the wish to take one back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotOrder {
    /// At which device.
    pub device: DeviceId,
    /// Which slot: the method is its key.
    pub method: AccessMethodId,
    /// For or by which job.
    pub job: JobId,
    /// What.
    pub action: Action,
}

/// What a bridge is to do about a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// To put this.
    Put {
        /// Grows with every change.
        generation: u64,
        /// What.
        what: SlotContent,
        /// Its mark.
        mark: PinMark,
        /// When it opens.
        window: Window,
    },
    /// To empty it.
    Remove,
    /// Nothing: the job never left and is not wanted any more.
    Withdraw,
}

/// What a slot needs.
enum Need {
    Nothing,
    /// To be looked at again then.
    Wait(Timestamp),
    Put,
    Remove,
    /// To take back what is under way, and be looked at again.
    Withdraw(JobId),
}

impl Book {
    /// Orders what is missing, and settles what became of methods.
    pub fn reconcile(&mut self, at: &Moment<'_>) -> Vec<SlotOrder> {
        let mut orders = Vec::new();
        let keys: Vec<_> = self.slots.keys().copied().collect();
        for (device, method) in keys {
            while let Some(slot) = self.slots.get(&(device, method)) {
                match self.need(at.now, device, method, slot) {
                    Need::Nothing | Need::Wait(_) => break,
                    Need::Withdraw(job) => {
                        orders.push(SlotOrder { device, method, job, action: Action::Withdraw });
                        if let Some(slot) = self.slots.get_mut(&(device, method)) {
                            slot.work.under_way = None;
                        }
                    }
                    need => {
                        orders.extend(self.order(at, device, method, matches!(need, Need::Put)));
                        break;
                    }
                }
            }
        }
        // What is over leaves nothing behind: else a lock's slots would grow with everybody who ever had a code there.
        self.slots.retain(|_, slot| !slot.is_done_with());
        self.settle_all(at);
        orders
    }

    /// Settles what became of methods, where nothing can be ordered now.
    pub fn settle_all(&mut self, at: &Moment<'_>) {
        let methods: Vec<_> = self.methods.keys().copied().collect();
        for method in methods {
            self.settle(at, method);
        }
    }

    /// When something is to be done of which nobody else will tell.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.methods.values().filter(|method| method.deleted_at.is_none() && !method.has_ended);
        let ends = ends.filter_map(|method| self.grants.get(&method.grant)?.window.ends_at());
        let slots = self.slots.iter().filter_map(|((device, method), slot)| {
            match self.need(now, *device, *method, slot) {
                Need::Wait(until) => Some(until),
                Need::Nothing => None,
                // What was not ordered by now, nobody can do yet.
                Need::Put | Need::Remove | Need::Withdraw(_) => None,
            }
        });
        let late =
            self.methods.keys().filter_map(|id| self.lateness(*id)).flat_map(|(late, failed)| [late, failed]);
        let wants = |grant: &&CodeGrant| grant.deleted_at.is_none() && !grant.window.is_over(now);
        let lacks = self.grants.values().filter(wants).filter_map(|grant| {
            // A device that takes codes at last tells of itself.
            let since = grant.lacks().filter(|lack| !lack.devices.is_empty()).map(|lack| lack.since).min()?;
            // Every so often somebody else's code is gone by then.
            let pauses = now.duration_since(since).as_secs() / LONGEST_PAUSE.as_secs() + 1;
            since.checked_add(LONGEST_PAUSE.saturating_mul(i32::try_from(pauses).unwrap_or(i32::MAX))).ok()
        });
        ends.chain(slots).chain(late).chain(lacks).filter(|due| *due > now).min()
    }

    fn need(&self, now: Timestamp, device: DeviceId, method: AccessMethodId, slot: &Slot) -> Need {
        let own = self.methods.get(&method);
        let is_here = self.devices.get(&device).is_some_and(|lock| lock.is_here);
        let put_generation = slot.work.under_way.and_then(|way| match way.deed {
            Deed::Put(content) => Some(content.generation),
            Deed::Remove => None,
        });
        if let Some((_, window)) = &slot.desired.content {
            if window.is_over(now) {
                // It is about to be noted that this has ended.
                return Need::Nothing;
            }
            return match slot.work.under_way {
                Some(way) if put_generation == Some(slot.desired.generation) => {
                    // A device that left its site: the order would only come back.
                    if is_here || way.was_handed { Need::Nothing } else { Need::Withdraw(way.job) }
                }
                Some(way) if !way.was_handed => Need::Withdraw(way.job),
                _ if slot.is_settled() && slot.work.under_way.is_none() => Need::Nothing,
                _ if !is_here => Need::Nothing,
                _ => match slot.work.not_before {
                    Some(until) if now < until => Need::Wait(until),
                    _ => Need::Put,
                },
            };
        }
        let has_ended = own.is_some_and(|own| own.has_ended && own.deleted_at.is_none());
        // What was put for a window that was cut short since is the agent's for longer than it should be.
        let end = own.and_then(|own| self.grants.get(&own.grant)?.window.ends_at());
        let ends_in_time = |until: Option<Timestamp>| until.zip(end).is_some_and(|(until, end)| until <= end);
        match slot.work.under_way {
            Some(UnderWay { deed: Deed::Remove, was_handed, job }) => {
                return if is_here || was_handed { Need::Nothing } else { Need::Withdraw(job) };
            }
            Some(way) if !way.was_handed => return Need::Withdraw(way.job),
            // The agent puts nothing whose window is over, and removes what it has put.
            Some(UnderWay { deed: Deed::Put(content), .. }) if has_ended && ends_in_time(content.until) => {
                return Need::Nothing;
            }
            Some(_) => {}
            None if !slot.may_hold() => return Need::Nothing,
            None => {}
        }
        if !is_here {
            return Need::Nothing;
        }
        if self.is_computed(device)
            && let Some(end) = slot.opens_until().filter(|end| now < *end)
        {
            // Nobody can take it away before.
            return Need::Wait(end);
        }
        let until = slot.observed.holds.and_then(|content| content.until);
        let is_at_rest = slot.work.under_way.is_none() && slot.work.earlier.is_empty();
        let is_the_agents = has_ended && ends_in_time(until) && slot.observed.doubts.is_empty() && is_at_rest;
        let by_agent = until
            .filter(|_| is_the_agents)
            .map(|until| until.saturating_add(REMOVED_WITHIN).unwrap_or(until));
        match by_agent.max(slot.work.not_before) {
            Some(until) if now < until => Need::Wait(until),
            _ => Need::Remove,
        }
    }

    fn order(
        &mut self,
        at: &Moment<'_>,
        device: DeviceId,
        method: AccessMethodId,
        is_put: bool,
    ) -> Option<SlotOrder> {
        let slot = self.slots.get_mut(&(device, method))?;
        // A PIN that was forgotten is nothing to put.
        if is_put && slot.desired.content.as_ref().is_some_and(|(what, _)| is_forgotten(what)) {
            return None;
        }
        let job = JobId(at.random.uuid_at(at.now));
        let (deed, action) = match &slot.desired.content {
            Some((what, window)) if is_put => {
                let (generation, mark) = (slot.desired.generation, at.mark_of(what));
                let content = Content { generation, mark: Some(mark), until: window.ends_at() };
                (Deed::Put(content), Action::Put { generation, what: what.clone(), mark, window: *window })
            }
            _ => (Deed::Remove, Action::Remove),
        };
        if let Some(UnderWay { job, deed: Deed::Put(content), was_handed: true }) = slot.work.under_way {
            slot.work.earlier.push((job, content));
        }
        slot.work.under_way = Some(UnderWay { job, deed, was_handed: false });
        Some(SlotOrder { device, method, job, action })
    }

    /// Notes that an order was refused; the pause grows.
    pub(super) fn pause(slot: &mut Slot, now: Timestamp) {
        let doublings = slot.work.failures.min(10);
        let pause = PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
        slot.work.failures = slot.work.failures.saturating_add(1);
        slot.work.not_before = now.checked_add(pause).ok();
    }

    /// A device is back: what it refused is tried again at once.
    pub fn try_again(&mut self, device: DeviceId) {
        for ((on, _), slot) in &mut self.slots {
            if *on == device {
                slot.work.not_before = None;
            }
        }
    }

    /// Brings a method to where its slots are.
    pub(super) fn settle(&mut self, at: &Moment<'_>, id: AccessMethodId) {
        let Some(method) = self.methods.get(&id) else { return };
        let grant = method.grant;
        if method.deleted_at.is_some() {
            if self.slots_of(id).all(|(_, slot)| slot.is_done_with()) {
                self.slots.retain(|(_, own), _| *own != id);
                self.methods.remove(&id);
                self.events.push(Event::method("access_method.deleted", id, grant));
                self.bury(grant);
            }
            return;
        }
        if method.has_ended {
            return;
        }
        let is_in = |device: &DeviceId| {
            let slot = self.slots.get(&(*device, id));
            slot.is_some_and(|slot| slot.desired.content.is_some() && slot.is_settled())
        };
        let joined: Vec<_> = method.joining.iter().copied().filter(is_in).collect();
        let is_waited_for = |device: &&DeviceId| !method.joining.contains(device);
        let complete =
            method.devices.iter().any(is_in) && method.devices.iter().filter(is_waited_for).all(is_in);
        match (complete, method.is_issued) {
            (true, false) => self.issue(at.now, id),
            (false, true) => self.revoke(id),
            (true, true) if !joined.is_empty() => {
                if let Some(method) = self.methods.get_mut(&id) {
                    method.joining.retain(|device| !joined.contains(device));
                }
                self.opens(grant, joined);
            }
            _ => {}
        }
    }

    pub(super) fn settle_grant(&mut self, at: &Moment<'_>, grant: AccessGrantId) {
        let methods: Vec<_> = self.methods_of(grant).map(|(id, _)| id).collect();
        for method in methods {
            self.settle(at, method);
        }
    }

    fn issue(&mut self, now: Timestamp, id: AccessMethodId) {
        let Some(method) = self.methods.get_mut(&id) else { return };
        let kind = match method.issued_at {
            None => "access_method.issued",
            Some(_) => "access_method.reissued",
        };
        method.is_issued = true;
        method.issued_at = method.issued_at.or(Some(now));
        method.updating_from = None;
        method.late_since = None;
        method.failed_since = None;
        let event = Event::method(kind, id, method.grant);
        let event = match method.key {
            Key::Pin => event.with_code(method.pin.clone()),
            Key::Card => event,
        };
        let (devices, grant) = (method.devices.clone(), method.grant);
        self.events.push(event);
        self.opens(grant, devices);
    }

    /// Codes of a grant were read back from these devices.
    fn opens(&mut self, grant: AccessGrantId, devices: Vec<DeviceId>) {
        let Some(own) = self.grants.get_mut(&grant) else { return };
        let before = own.opened.len();
        own.opened.extend(devices);
        let all = own.doors_open && own.devices.iter().all(|device| own.opened.contains(device));
        if own.opened.len() > before && all {
            self.events.push(Event::grant("access_grant.access_granted_to_all_doors", grant));
        }
    }

    /// It must not be handed out any more, until it is issued again.
    pub(super) fn revoke(&mut self, id: AccessMethodId) {
        let Some(method) = self.methods.get_mut(&id).filter(|method| method.is_issued) else { return };
        method.is_issued = false;
        method.joining.clear();
        let event = Event::method("access_method.revoked", id, method.grant);
        self.events.push(event);
    }

    /// A deleted grant is told of once none of its codes is anywhere.
    pub(super) fn bury(&mut self, grant: AccessGrantId) {
        let is_empty = self.methods_of(grant).next().is_none();
        let Some(own) = self.grants.get_mut(&grant) else { return };
        if own.deleted_at.is_some() && !own.deletion_told && is_empty {
            own.deletion_told = true;
            self.events.push(Event::grant("access_grant.deleted", grant));
        }
    }

    /// From when on a method is late, and from when on it was not issued in time.
    fn lateness(&self, id: AccessMethodId) -> Option<(Timestamp, Timestamp)> {
        let method = self.methods.get(&id)?;
        if method.is_issued || method.has_ended || method.deleted_at.is_some() || method.awaits_card() {
            return None;
        }
        let starts_at = self.grants.get(&method.grant)?.window.starts_at();
        let lead = method.devices.iter().filter_map(|device| Some(self.devices.get(device)?.lead)).min();
        let put_at = starts_at.saturating_sub(lead.unwrap_or_default()).unwrap_or(starts_at);
        let due = put_at.max(method.asked_at);
        let after = |span| due.saturating_add(span).unwrap_or(due);
        Some((after(LATE_AFTER), after(FAILED_AFTER).max(starts_at)))
    }

    pub(super) fn judge_lateness(&mut self, now: Timestamp, id: AccessMethodId) {
        let Some((late, failed)) = self.lateness(id) else { return };
        let Some(method) = self.methods.get_mut(&id) else { return };
        let mut told = Vec::new();
        if late <= now && method.late_since.is_none() {
            method.late_since = Some(now);
            told.push("access_method.delay_in_issuing");
        }
        if failed <= now && method.failed_since.is_none() {
            method.failed_since = Some(now);
            told.push("access_method.failed_to_issue");
        }
        let grant = method.grant;
        self.events.extend(told.into_iter().map(|kind| Event::method(kind, id, grant)));
    }
}

fn is_forgotten(what: &SlotContent) -> bool {
    match what {
        SlotContent::Pin(text) | SlotContent::CardNumber(text) => text.expose().is_empty(),
    }
}
