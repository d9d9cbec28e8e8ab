//! What bridges say of slots, and what it changes.

use jiff::{SignedDuration, Timestamp};

use crate::model::{AccessMethodId, Code, DeviceId, JobId, SlotSeen};

use super::{Book, Content, Deed, Doubt, Moment, Observed, Slot, Trouble};

/// The agent's clock may be ahead of this one by so much: what it removes so shortly before the end has ended.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(60);

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
        let Some(slot) = self.slots.get_mut(&(device, method)) else { return };
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

    fn observe(&mut self, now: Timestamp, job: JobId, deed: Deed, told: &Told) {
        match (told, deed) {
            (Told::Done, Deed::Put(content)) => self.observed.hold(now, content),
            (Told::Done, Deed::Remove) => self.observed = Observed::default(),
            (Told::NotDone { .. }, _) => {
                if let Some(doubt) = self.observed.doubt.filter(|doubt| doubt.job == job) {
                    self.observed.doubt = None;
                    self.observed.holds = doubt.before;
                    self.observed.since = self.observed.since.filter(|_| doubt.before.is_some());
                }
            }
            (Told::Doubt, deed) => {
                let before = match self.observed.doubt {
                    // The older doubt is not settled by a newer one; what was there first may still be there.
                    Some(doubt) => doubt.before.or(self.observed.holds),
                    None => self.observed.holds,
                };
                self.observed.doubt = Some(Doubt { job, before });
                if let Deed::Put(content) = deed {
                    self.observed.holds = Some(content);
                    self.observed.since = self.observed.since.or(Some(now));
                }
            }
        }
    }

    fn compare(&mut self, now: Timestamp, shown: Option<&SlotSeen>) {
        match (shown, self.observed.holds) {
            (None, _) => self.observed = Observed::default(),
            (Some(shown), Some(held)) if shown.generation == held.generation => self.observed.doubt = None,
            // It is told of in a moment by its own report.
            (Some(shown), _) if self.may_put().is_some_and(|put| put.generation == shown.generation) => {}
            (Some(shown), _) => {
                if self.desired.generation <= shown.generation {
                    self.outgrow(now, shown.generation);
                }
                let content = Content { generation: shown.generation, mark: None, until: None };
                self.observed.hold(now, content);
            }
        }
    }
}

impl Observed {
    fn hold(&mut self, now: Timestamp, content: Content) {
        self.holds = Some(content);
        self.since = self.since.or(Some(now));
        self.doubt = None;
    }
}
