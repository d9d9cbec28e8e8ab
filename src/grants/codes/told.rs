//! What bridges say of slots, and what it changes.

use jiff::{SignedDuration, Timestamp};

use crate::model::{AccessMethodId, Code, DeviceId, JobId, SlotSeen};

use super::{Book, Content, Deed, Doubt, Moment, Observed, Slot, Trouble};

/// The agent's clock may be ahead of this one by so much: what it removes so shortly before the end has ended.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(60);

/// Jobs in doubt that are remembered of a slot. A lock that never says how an order ended is ordered anew for days; what
/// such an order would put is the same each time.
pub const MOST_DOUBTS: usize = 16;

/// How a job on a slot ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Done, and read back.
    Done,
    /// Certainly not done.
    NotDone {
        /// Why not, by its stable name.
        code: Code,
        /// The same for a person.
        message: String,
    },
    /// Perhaps done.
    Doubt,
}

impl Book {
    /// A job on a slot has ended, or the doubt about it is over.
    pub fn reported(
        &mut self,
        at: &Moment<'_>,
        device: DeviceId,
        method: AccessMethodId,
        job: JobId,
        deed: Deed,
        told: &Told,
    ) {
        let slot = self.slots.entry((device, method)).or_default();
        slot.observe(at.now, job, deed, told);
        slot.work.earlier.retain(|(earlier, _)| *earlier != job);
        let was_newest = slot.work.under_way.is_some_and(|way| way.job == job);
        if was_newest {
            slot.work.under_way = None;
            match told {
                Told::Done => {
                    // What came before it is over: the newest order decides.
                    slot.work.earlier.clear();
                    slot.work.failures = 0;
                    slot.work.not_before = None;
                    slot.work.trouble = None;
                }
                Told::NotDone { code, message } => {
                    let since = slot.work.trouble.as_ref().map_or(at.now, |trouble| trouble.since);
                    slot.work.trouble = Some(Trouble { code: *code, message: message.clone(), since });
                    Self::pause(slot, at.now);
                    if *code == Code::Superseded {
                        // Something later than what was ordered is there.
                        slot.outgrow(at.now, 0);
                    }
                }
                Told::Doubt => Self::pause(slot, at.now),
            }
            let is_taken = matches!(told, Told::NotDone { code: Code::ContentTaken, .. });
            if is_taken && slot.desired.content.is_some() {
                self.cannot_have(at, method, device);
            }
        }
        self.settle(at, method);
    }

    /// The doubt about a job is over, sooner or later. Where something newer is known of its slot since, it changes
    /// nothing: the slot may have been written and read back many times.
    pub fn resolved(
        &mut self,
        at: &Moment<'_>,
        device: DeviceId,
        method: AccessMethodId,
        job: JobId,
        deed: Deed,
        told: &Told,
    ) {
        if self.slots.get(&(device, method)).is_some_and(|slot| slot.awaits(job)) {
            self.reported(at, device, method, job, deed, told);
        }
    }

    /// The bridge has lost its memory of a job: nobody will ever say how it ended.
    pub fn lost(
        &mut self,
        at: &Moment<'_>,
        device: DeviceId,
        method: AccessMethodId,
        job: JobId,
        deed: Deed,
    ) {
        let slot = self.slots.entry((device, method)).or_default();
        slot.observe(at.now, job, deed, &Told::Doubt);
        slot.work.earlier.retain(|(earlier, _)| *earlier != job);
        if slot.work.under_way.is_some_and(|way| way.job == job) {
            slot.work.under_way = None;
        }
        self.settle(at, method);
    }

    /// A job was taken back before its bridge heard of it, by somebody who did not know what it was for: it is ordered anew
    /// if it is still needed.
    pub fn withdrawn(&mut self, at: &Moment<'_>, device: DeviceId, method: AccessMethodId, job: JobId) {
        let Some(slot) = self.slots.get_mut(&(device, method)) else { return };
        if slot.work.under_way.is_some_and(|way| way.job == job) {
            slot.work.under_way = None;
        }
        self.settle(at, method);
    }

    /// Something at the site emptied a slot: the agent at the end of its content, or a person.
    pub fn emptied(&mut self, at: &Moment<'_>, device: DeviceId, method: AccessMethodId) {
        let Some(slot) = self.slots.get_mut(&(device, method)) else { return };
        slot.observed = Observed::default();
        if let Some((_, window)) = &slot.desired.content {
            let soon = at.now.saturating_add(CLOCKS_APART).unwrap_or(at.now);
            if window.is_over(soon) {
                self.end(at.now, method);
            }
        }
        self.settle(at, method);
    }

    /// A person at the site put something else into a slot.
    pub fn filled(&mut self, at: &Moment<'_>, device: DeviceId, method: AccessMethodId) {
        let slot = self.slots.entry((device, method)).or_default();
        slot.observed.hold(at.now, Content { generation: 0, mark: None, until: None });
        self.settle(at, method);
    }

    /// A reading shows everything that a device holds.
    pub fn read(&mut self, at: &Moment<'_>, device: DeviceId, seen: &[SlotSeen]) {
        let known: Vec<_> = self.slots.keys().filter(|(on, _)| *on == device).map(|(_, id)| *id).collect();
        for method in known {
            let shown = seen.iter().find(|seen| seen.slot == method.to_string());
            if let Some(slot) = self.slots.get_mut(&(device, method)) {
                slot.compare(at.now, shown);
            }
            self.settle(at, method);
        }
    }
}

impl Slot {
    /// What the order under way would put.
    pub(super) fn may_put(&self) -> Option<Content> {
        self.work.under_way.and_then(|way| match way.deed {
            Deed::Put(content) => Some(content),
            Deed::Remove => None,
        })
    }

    /// Whether it is open what became of a job.
    fn awaits(&self, job: JobId) -> bool {
        self.work.under_way.is_some_and(|way| way.job == job)
            || self.work.earlier.iter().any(|(earlier, _)| *earlier == job)
            || self.observed.doubts.iter().any(|doubt| doubt.job == job)
    }

    fn observe(&mut self, now: Timestamp, job: JobId, deed: Deed, told: &Told) {
        let observed = &mut self.observed;
        let doubted = observed.doubts.iter().position(|doubt| doubt.job == job);
        match told {
            Told::Done => {
                // What was in doubt before it is over; what came after it is not.
                let later = doubted.map(|place| observed.doubts.split_off(place + 1)).unwrap_or_default();
                match deed {
                    Deed::Put(content) => observed.hold(now, content),
                    Deed::Remove => *observed = Observed::default(),
                }
                observed.doubts = later;
            }
            // Where older ones may be forgotten, the rest of them says nothing of what is there: an order that is known to
            // be done does, and a reading.
            Told::NotDone { .. } if observed.doubts.len() >= MOST_DOUBTS => {}
            Told::NotDone { .. } => {
                if let Some(place) = doubted {
                    observed.doubts.remove(place);
                }
            }
            Told::Doubt if doubted.is_none() => {
                observed.doubts.push(Doubt { job, deed });
                let forgotten = observed.doubts.len().saturating_sub(MOST_DOUBTS);
                observed.doubts.drain(..forgotten);
            }
            Told::Doubt => {}
        }
        let may_hold = observed.contents().next().is_some();
        observed.since = observed.since.or(Some(now)).filter(|_| may_hold);
    }

    fn compare(&mut self, now: Timestamp, shown: Option<&SlotSeen>) {
        let Some(shown) = shown else {
            self.observed = Observed::default();
            return;
        };
        let held = self.observed.contents().find(|content| content.generation == shown.generation);
        if let Some(held) = held {
            self.observed.hold(now, held);
            return;
        }
        // It is told of in a moment by its own report.
        if self.may_put().is_some_and(|put| put.generation == shown.generation) {
            return;
        }
        if self.desired.generation <= shown.generation {
            self.outgrow(now, shown.generation);
        }
        self.observed.hold(now, Content { generation: shown.generation, mark: None, until: None });
    }
}

impl Observed {
    pub(super) fn hold(&mut self, now: Timestamp, content: Content) {
        self.holds = Some(content);
        self.since = self.since.or(Some(now));
        self.doubts.clear();
    }
}
