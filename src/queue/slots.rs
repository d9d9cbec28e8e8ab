//! The slots of devices: which order decides each, and what it may hold. The first half is pure.
//!
//! The newest order decides a slot from its arrival on; what waits for the slot then ends `superseded`. A put whose time
//! has not come leaves the slot empty until then: if it may hold something, that is removed first. And whatever may be in
//! a slot is removed at its end, by a job of the agent's own that stands in the queue from the moment the content may be
//! in the device. So a cut link, a restart or a jump of the clock keeps no code alive.
//!
//! Where nobody knows which of two contents is there, the slot is emptied at the end of the newer one, which is what was
//! ordered of it, be it sooner or later than the older one's. So an older code may outlive its end until a person settles
//! the doubt, a new order comes, or the newer one ends. That is the lesser harm: a removal takes whatever is there, and at
//! the older one's end it could shut out somebody whose code was put, while the doubt itself is told as `unknown` at once,
//! and the list of slots says since when a code is overdue that may be there still ([`Slot::may_outlive`]).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{Queue, barred::BARRED, ledger::Settled, store::Row};
use crate::{
    model::{
        Admission, Code, DeviceName, Job, JobId, LaneName, Order, Origin, Outcome, Priority, Refusal,
        SlotContent, SlotNow, SystemName,
    },
    store::StoreError,
};

/// A removal that ended without removing anything is tried again after this long.
pub(super) const REMOVE_AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// Doubts on top of each other in one slot that can still be settled one by one. Of those below it is only known what may be
/// there by them: all of that or nothing, until something certain comes.
const DOUBTS: usize = 4;
/// A removal is never too late: its deadline is the year 9000, far away and still a date that every reader can print.
pub(super) const NEVER: i64 = 221_845_392_000;

/// What decides a slot, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) system: SystemName,
    pub(super) device: DeviceName,
    pub(super) key: String,
    /// The newest order.
    pub(super) decided_by: JobId,
    /// The generation of the newest put.
    pub(super) generation: u64,
    /// The job that is at work on it.
    pub(super) at_work: Option<JobId>,
    pub(super) holds: Holds,
    pub(super) changed_at: Timestamp,
    /// What each job puts there that may be in it, for devices that know an entry by its content alone. Absent in older rows,
    /// where the job's own row tells it for as long as that is kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    contents: BTreeMap<JobId, SlotContent>,
    /// Which of the device's numbered places it has, where the device numbers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<u32>,
    /// Nothing is known of what came into it before the memory was set back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_forgotten: bool,
}

/// What came of taking a slot for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is the job's. Some is known of it, where the job is about one.
    Yes(Option<SlotNow>),
    /// Another job is at work on it.
    AtWork,
}

/// What a slot holds, as far as this side knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "holds", rename_all = "snake_case")]
pub(super) enum Holds {
    Nothing,
    /// What this job put there.
    Content(Content),
    /// One or the other: nobody knows whether this job was done.
    Either {
        job_id: JobId,
        before: Box<Holds>,
        after: Box<Holds>,
    },
    /// One of these, the newest last, or nothing: of jobs in doubt, too many to be settled one by one.
    AnyOf {
        contents: Vec<Content>,
    },
}

/// What a job put into a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    job_id: JobId,
    until: Option<Timestamp>,
    /// By which the same PIN or card number is known; absent in older rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<u64>,
}

/// When a slot is empty at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Empty,
    At(Timestamp),
    Never,
}

impl Holds {
    fn end(&self) -> End {
        match self {
            Self::Nothing => End::Empty,
            Self::Content(content) => content.end(),
            Self::AnyOf { contents } => contents.last().map_or(End::Empty, Content::end),
            Self::Either { before, after, .. } => match after.end() {
                End::Empty => before.end(),
                end => end,
            },
        }
    }

    /// The first end of anything that may be there.
    fn first_end(&self) -> Option<Timestamp> {
        match self {
            Self::Nothing => None,
            Self::Content(content) => content.until,
            Self::AnyOf { contents } => contents.iter().filter_map(|content| content.until).min(),
            Self::Either { before, after, .. } => {
                before.first_end().into_iter().chain(after.first_end()).min()
            }
        }
    }

    /// All that may be there, the newest last.
    fn contents(&self) -> Vec<Content> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Content(content) => vec![*content],
            Self::AnyOf { contents } => contents.clone(),
            Self::Either { before, after, .. } => {
                let mut contents = before.contents();
                contents.extend(after.contents());
                contents
            }
        }
    }

    /// The same with the oldest doubt no longer one that can be settled by itself. What was put several times is kept once,
    /// as it was put last: a lock that never answers is told the same again and again.
    fn folded(self) -> Self {
        match self {
            Self::Either { job_id, before, after } if matches!(*before, Self::Either { .. }) => {
                Self::Either { job_id, before: Box::new(before.folded()), after }
            }
            Self::Either { .. } => {
                let mut kept = Vec::<Content>::new();
                for content in self.contents() {
                    kept.retain(|other| other.mark.is_none() || other.mark != content.mark);
                    kept.push(content);
                }
                if kept.is_empty() { Self::Nothing } else { Self::AnyOf { contents: kept } }
            }
            certain => certain,
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Nothing | Self::Content(_) | Self::AnyOf { .. } => 0,
            Self::Either { before, after, .. } => 1 + before.depth().max(after.depth()),
        }
    }

    /// The same once it is known what became of a job.
    fn settled(self, job: JobId, done: bool) -> Self {
        match self {
            Self::Either { job_id, before, after } if job_id == job => *if done { after } else { before },
            Self::Either { job_id, before, after } => Self::Either {
                job_id,
                before: Box::new(before.settled(job, done)),
                after: Box::new(after.settled(job, done)),
            },
            settled => settled,
        }
    }
}

impl Content {
    fn end(&self) -> End {
        self.until.map_or(End::Never, End::At)
    }
}

impl Slot {
    /// Whether anything may be in it.
    pub(super) fn may_open(&self) -> bool {
        self.holds != Holds::Nothing
    }

    /// Whether anything may be in it, or come into it by what is at work.
    fn is_in_use(&self) -> bool {
        self.may_open() || self.at_work.is_some()
    }

    /// The instant at which it has to be empty, if anything may be in it that ends.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        match self.holds.end() {
            End::At(until) => Some(until),
            End::Empty | End::Never => None,
        }
    }

    /// The end of a code that may be in it and is not removed then, but where the newer one ends that may be there instead.
    pub(super) fn may_outlive(&self) -> Option<Timestamp> {
        let first = self.holds.first_end()?;
        match self.holds.end() {
            End::At(until) => (first < until).then_some(first),
            End::Never => Some(first),
            End::Empty => None,
        }
    }

    /// When the last of what may be in it opens no more; none where something has no end.
    fn last_end(&self) -> Option<Timestamp> {
        let ends: Option<Vec<_>> = self.holds.contents().iter().map(|content| content.until).collect();
        ends?.into_iter().max()
    }

    /// The jobs whose contents may be in it.
    pub(super) fn put_by(&self) -> Vec<JobId> {
        self.holds.contents().iter().map(|content| content.job_id).collect()
    }

    /// The job whose content is in it, where that is known.
    pub(super) fn certainly_put_by(&self) -> Option<JobId> {
        match self.holds {
            Holds::Content(content) => Some(content.job_id),
            Holds::Nothing | Holds::Either { .. } | Holds::AnyOf { .. } => None,
        }
    }

    /// Whether nobody knows what it holds.
    pub(super) fn is_uncertain(&self) -> bool {
        matches!(self.holds, Holds::Either { .. } | Holds::AnyOf { .. })
    }

    /// Carries the end of a job's work on it into it; `mark` is of what the job puts.
    fn settle(&mut self, job: JobId, order: &Order, mark: Option<u64>, settled: Settled) {
        if self.at_work == Some(job) {
            self.at_work = None;
        }
        let before = std::mem::replace(&mut self.holds, Holds::Nothing);
        let after = match order {
            Order::SlotPut(put) => Holds::Content(Content { job_id: job, until: put.window.ends_at(), mark }),
            _ => Holds::Nothing,
        };
        self.holds = match settled {
            Settled::Done { .. } => {
                self.is_forgotten = false;
                after
            }
            Settled::NotDone | Settled::NoStay => before.settled(job, false),
            Settled::Unclear => {
                let before = if before.depth() < DOUBTS { before } else { before.folded() };
                Holds::Either { job_id: job, before: Box::new(before), after: Box::new(after) }
            }
        };
        self.forget_contents();
    }

    /// What cannot be there any more need not be known.
    fn forget_contents(&mut self) {
        let (kept, at_work) = (self.put_by(), self.at_work);
        self.contents.retain(|job, _| kept.contains(job) || at_work == Some(*job));
    }

    /// A doubt about a job is over.
    fn resolve(&mut self, job: JobId, done: bool) {
        let holds = std::mem::replace(&mut self.holds, Holds::Nothing);
        self.holds = holds.settled(job, done);
        self.forget_contents();
    }
}

/// The device and slot that an order is about.
pub(super) fn slot_of(order: &Order) -> Option<(&DeviceName, &str)> {
    match order {
        Order::SlotPut(put) => Some((&put.device, &put.slot)),
        Order::SlotRemove { device, slot } => Some((device, slot)),
        Order::CardEncode(_)
        | Order::CardRead(_)
        | Order::StayModify(_)
        | Order::StayCheckout { .. }
        | Order::DeviceUnlock { .. }
        | Order::DeviceRead { .. }
        | Order::InventoryRefresh => None,
    }
}

/// When a job of the agent's own is done.
#[derive(Debug, Clone, Copy, Default)]
struct Timer {
    /// Never earlier, whatever the clock showed when it was made ready.
    not_before: Option<Timestamp>,
    /// When it is looked at next; at once where absent.
    due_at: Option<Timestamp>,
    /// Whether that is no time of its own, but [`REMOVE_AGAIN`] after one that failed.
    is_pause: bool,
}

/// What a newly arrived order means to its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ordered {
    /// It decides the slot.
    Newest,
    /// A newer one came before it.
    Older,
}

impl Queue {
    pub(super) fn slot_index(&self, system: &SystemName, order: &Order) -> Option<[u8; 32]> {
        let (device, slot) = slot_of(order)?;
        Some(self.seal.blind_index("job.slot", &format!("{system}\0{device}\0{slot}")))
    }

    /// By which it is known that two orders put the same.
    fn content_mark(&self, order: &Order) -> Option<u64> {
        let Order::SlotPut(put) = order else { return None };
        let index = match &put.content {
            SlotContent::Pin(pin) => self.seal.blind_index("slot.content.pin", pin.expose()),
            SlotContent::CardNumber(card) => self.seal.blind_index("slot.content.card", card.expose()),
        };
        index.first_chunk().map(|first| u64::from_le_bytes(*first))
    }

    /// Lets an order that has just arrived decide its slot: what waits for it ends, and what may be in it is removed
    /// first if the order's own time has not come.
    pub(super) fn order_slot(
        &mut self,
        now: Timestamp,
        row: &mut Row,
        lane: &LaneName,
        comes_later: bool,
    ) -> Result<Ordered, StoreError> {
        if slot_of(&row.job()?.order).is_none() {
            return Ok(Ordered::Newest);
        }
        // It sees to the slot from here on, and comes before what is queued for the slot now.
        self.store_received(now, row)?;
        let job = row.job()?;
        let (Some(index), Some((device, key))) =
            (self.slot_index(&job.system, &job.order), slot_of(&job.order))
        else {
            return Ok(Ordered::Newest);
        };
        let mut slot = self.slot_or_new(now, &index, job, device, key)?;
        if let Order::SlotPut(put) = &job.order {
            if put.generation < slot.generation {
                return Ok(Ordered::Older);
            }
            slot.generation = put.generation;
        }
        slot.decided_by = job.job_id;
        slot.changed_at = now;
        let must_go = comes_later && (slot.may_open() || slot.at_work.is_some());
        let removal = removal_of(&slot, now, &self.random);
        self.put_slot(&index, &slot)?;
        for waiting in self.waiting_for(&index, job.job_id)? {
            let waiting = self.known(waiting)?;
            self.end(now, &waiting, &Outcome::Superseded)?;
        }
        if must_go {
            self.queue_own(now, removal, lane, Timer::default())?;
        }
        Ok(Ordered::Newest)
    }

    /// Lets a removal decide its slot that may not be done yet: what waits to be put there ends, and the agent's own
    /// removal at the end stays. Says whether anything may be there that it is kept for; else it ends with the refusal.
    pub(super) fn order_barred(
        &mut self,
        now: Timestamp,
        row: &mut Row,
        refusal: &Refusal,
    ) -> Result<bool, StoreError> {
        self.store_received(now, row)?;
        let job = row.job()?;
        let (Some(index), Some((device, key))) =
            (self.slot_index(&job.system, &job.order), slot_of(&job.order))
        else {
            self.end(now, row, &Outcome::Failed(refusal.clone()))?;
            return Ok(false);
        };
        let mut slot = self.slot_or_new(now, &index, job, device, key)?;
        slot.decided_by = job.job_id;
        slot.changed_at = now;
        self.put_slot(&index, &slot)?;
        let is_kept = slot.is_in_use();
        match is_kept {
            true => self.bar(now, row, refusal)?,
            false => self.end(now, row, &Outcome::Failed(refusal.clone()))?,
        }
        for waiting in self.waiting_for(&index, row.job_id)? {
            let waiting = self.known(waiting)?;
            if waiting.origin != Origin::Timer {
                self.end(now, &waiting, &Outcome::Superseded)?;
            }
        }
        Ok(is_kept)
    }

    /// A removal that had waited is held until it may be done: meanwhile the agent's own sees to the slot's end. One of
    /// what is not there ends with the refusal.
    pub(super) fn hold_removal(
        &mut self,
        now: Timestamp,
        row: &Row,
        refusal: &Refusal,
    ) -> Result<(), StoreError> {
        match self.slot_of_row(row)?.filter(|(_, slot)| slot.is_in_use()) {
            Some((index, slot)) => {
                self.bar(now, row, refusal)?;
                self.keep_end(now, row, &index, &slot)
            }
            None => self.end(now, row, &Outcome::Failed(refusal.clone())),
        }
    }

    /// A removal that was held waits for its lane: what the agent's own was to empty goes with it.
    pub(super) fn release_removal(
        &mut self,
        now: Timestamp,
        row: &Row,
        lane: &LaneName,
    ) -> Result<(), StoreError> {
        self.unbar(row, lane)?;
        let Some((index, _)) = self.slot_of_row(row)? else { return Ok(()) };
        for waiting in self.waiting_for(&index, row.job_id)? {
            let waiting = self.known(waiting)?;
            if waiting.origin == Origin::Timer {
                self.end(now, &waiting, &Outcome::Superseded)?;
            }
        }
        Ok(())
    }

    /// What a removal that is held was to take out is gone: another took it.
    fn end_barred(
        &mut self,
        now: Timestamp,
        index: &[u8; 32],
        slot: &Slot,
        but: JobId,
    ) -> Result<(), StoreError> {
        if slot.is_in_use() {
            return Ok(());
        }
        for barred in self.barred_for(index, but)? {
            let barred = self.known(barred)?;
            self.end(now, &barred, &Outcome::Superseded)?;
        }
        Ok(())
    }

    /// Takes a slot for a job that is about to be sent, unless another job is at work on it. What is put there
    /// takes the place of whatever a removal of the agent's own was still to empty, so that goes: done afterwards, it
    /// would take the new content away.
    pub(super) fn take_slot(&mut self, now: Timestamp, row: &Row) -> Result<Taken, StoreError> {
        let Some((index, mut slot)) = self.slot_of_row(row)? else {
            return Ok(Taken::Yes(None));
        };
        if slot.at_work.is_some_and(|other| other != row.job_id) {
            return Ok(Taken::AtWork);
        }
        slot.at_work = Some(row.job_id);
        if self.rules.numbered.contains(&slot.system) {
            slot.place = Some(self.place_for(&slot)?);
        }
        let known = self.slot_now(&slot)?;
        if let Order::SlotPut(put) = &row.job()?.order {
            slot.contents.insert(row.job_id, put.content.clone());
        }
        self.put_slot(&index, &slot)?;
        if matches!(row.job()?.order, Order::SlotPut(_)) {
            for waiting in self.waiting_for(&index, row.job_id)? {
                let waiting = self.known(waiting)?;
                if waiting.origin == Origin::Timer {
                    self.end(now, &waiting, &Outcome::Superseded)?;
                }
            }
        }
        Ok(Taken::Yes(Some(known)))
    }

    /// What is known of the slot of a job that may have been at work on it when the last run ended.
    pub(super) fn slot_of_past(&self, row: &Row) -> Result<Option<SlotNow>, StoreError> {
        let Some((_, slot)) = self.slot_of_row(row)? else {
            return Ok(None);
        };
        let mut known = self.slot_now(&slot)?;
        if let Order::SlotPut(put) = &row.job()?.order {
            known.tried(&put.content);
        }
        Ok(Some(known))
    }

    fn slot_now(&self, slot: &Slot) -> Result<SlotNow, StoreError> {
        let mut known = SlotNow {
            place: slot.place,
            may_hold: Vec::new(),
            until: slot.last_end(),
            is_forgotten: slot.is_forgotten,
        };
        for job in slot.put_by() {
            let content = match slot.contents.get(&job) {
                Some(content) => Some(content.clone()),
                None => self.put_of(job)?.map(|(_, put)| put.content),
            };
            if let Some(content) = content {
                known.tried(&content);
            }
        }
        Ok(known)
    }

    /// The place that a slot has, or the lowest one that no other slot of its device is in.
    fn place_for(&self, slot: &Slot) -> Result<u32, StoreError> {
        let mut taken = BTreeSet::new();
        self.each_slot(|other| {
            // One that cannot be read any more may be anywhere: nothing is certain of it, and the device tells.
            let Ok(other) = other else { return Ok(()) };
            let is_other = (&other.device, &other.key) != (&slot.device, &slot.key);
            if other.system == slot.system && other.device == slot.device && is_other && other.is_in_use() {
                taken.extend(other.place);
            }
            Ok(())
        })?;
        let free = || (0..).find(|place| !taken.contains(place)).unwrap_or(u32::MAX);
        Ok(slot.place.filter(|place| !taken.contains(place)).unwrap_or_else(free))
    }

    /// Carries the end of a job into its slot: what it may hold now, and who removes it at its end. `settled` is absent
    /// for a job that was never sent.
    pub(super) fn settle_slot(
        &mut self,
        now: Timestamp,
        row: &Row,
        settled: Option<Settled>,
    ) -> Result<(), StoreError> {
        let Some((index, mut slot)) = self.slot_of_row(row)? else {
            return Ok(());
        };
        if let Some(settled) = settled {
            let order = &row.job()?.order;
            slot.settle(row.job_id, order, self.content_mark(order), settled);
            slot.changed_at = now;
            self.put_slot(&index, &slot)?;
        }
        self.end_barred(now, &index, &slot, row.job_id)?;
        self.keep_end(now, row, &index, &slot)
    }

    /// A job that was made ready by a clock that was ahead waits again. Until its time comes its slot is empty, as it
    /// would have been from the job's arrival on.
    pub(super) fn wait_for_its_time(
        &mut self,
        now: Timestamp,
        row: &Row,
        due_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.put_off(row, due_at)?;
        let (Some((index, slot)), Some(lane)) = (self.slot_of_row(row)?, &row.lane) else {
            return Ok(());
        };
        let is_put = matches!(row.job()?.order, Order::SlotPut(_));
        let goes = self.next_for(&index, row.job_id)?.is_some_and(|next| next <= now);
        if !is_put || !slot.may_open() || goes {
            return Ok(());
        }
        let removal = removal_of(&slot, now, &self.random);
        self.queue_own(now, removal, lane, Timer::default())
    }

    /// A job whose work was proven empty goes back to wait; its slot is free for others. Says whether a newer order
    /// came for the slot meanwhile.
    pub(super) fn leave_slot(&mut self, row: &Row) -> Result<Ordered, StoreError> {
        let Some((index, mut slot)) = self.slot_of_row(row)? else {
            return Ok(Ordered::Newest);
        };
        if slot.at_work == Some(row.job_id) {
            slot.at_work = None;
            self.put_slot(&index, &slot)?;
        }
        let is_newest = slot.decided_by == row.job_id || row.origin == Origin::Timer;
        Ok(if is_newest { Ordered::Newest } else { Ordered::Older })
    }

    /// Carries the end of a doubt into the slot.
    pub(super) fn resolve_slot(&mut self, now: Timestamp, row: &Row, done: bool) -> Result<(), StoreError> {
        let Some((index, mut slot)) = self.slot_of_row(row)? else {
            return Ok(());
        };
        slot.resolve(row.job_id, done);
        slot.changed_at = now;
        self.put_slot(&index, &slot)?;
        self.end_barred(now, &index, &slot, row.job_id)?;
        // A removal for what proves not to be there would take away what is.
        for waiting in self.waiting_for(&index, row.job_id)? {
            let waiting = self.known(waiting)?;
            let at = waiting.body.as_ref().and_then(|body| body.not_before).filter(|at| *at > now);
            let is_early = at.zip(slot.ends_at()).is_some_and(|(at, end)| at < end);
            if waiting.origin == Origin::Timer && is_early {
                self.end(now, &waiting, &Outcome::Superseded)?;
            }
        }
        self.keep_end(now, row, &index, &slot)
    }

    /// What may be in a slot is removed at its end, and at once where the order that decides the slot only comes later. What a
    /// desk took back and is there still is tried again and again until then.
    /// If no other job sees to the slot by then, one is queued for it.
    fn keep_end(
        &mut self,
        now: Timestamp,
        ended: &Row,
        index: &[u8; 32],
        slot: &Slot,
    ) -> Result<(), StoreError> {
        let (Some(ends_at), Some(lane)) = (slot.ends_at(), &ended.lane) else {
            return Ok(());
        };
        let must_go = self.was_taken_back_in_vain(slot)?;
        let is_replaced = slot.decided_by != ended.job_id && self.is_unfinished(slot.decided_by)?;
        let pause = now.saturating_add(REMOVE_AGAIN).unwrap_or(now);
        let at_once = match ended.origin {
            Origin::Timer => pause,
            Origin::Cloud | Origin::Person => now,
        };
        let empty_at = match (is_replaced, must_go) {
            (true, _) => at_once,
            (false, true) => ends_at.max(at_once).min(pause),
            (false, false) => ends_at.max(at_once),
        };
        if self.next_for(index, ended.job_id)?.is_some_and(|next| next <= empty_at) {
            return Ok(());
        }
        let removal = removal_of(slot, now, &self.random);
        let lane = lane.clone();
        let not_before = (!is_replaced && !must_go).then_some(ends_at);
        let due_at = Some(empty_at).filter(|due| *due > now);
        let is_pause = (must_go || ended.origin == Origin::Timer) && empty_at == pause;
        self.queue_own(now, removal, &lane, Timer { not_before, due_at, is_pause })
    }

    /// Whether the newest word about a slot is a person's at the site that it be emptied, and that was not done, or nobody
    /// knows. The cloud may be away for long, so the agent sees to it. Not a memory that was set back: it does not know what
    /// came later.
    fn was_taken_back_in_vain(&self, slot: &Slot) -> Result<bool, StoreError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT 1 FROM job WHERE job_id = ?1 AND origin = 'person' AND kind = 'slot.remove' \
                 AND (state = 'failed' OR state = 'unknown' AND code <> ?2)",
            )?
            .exists(params![slot.decided_by.0.as_bytes(), Code::MemoryRestored.as_str()])?)
    }

    /// Queues a job of the agent's own.
    fn queue_own(
        &mut self,
        now: Timestamp,
        job: Job,
        lane: &LaneName,
        timer: Timer,
    ) -> Result<(), StoreError> {
        let admission = Admission::to(lane.clone(), Vec::new());
        let row = self.received_row(job, Some(admission), Origin::Timer, None, timer.not_before)?;
        // Both are set for no other job, so that what is told by the present clock is found when that is put right.
        let retry_at = timer.due_at.filter(|_| timer.is_pause);
        self.mark_queued(now, &row, timer.due_at, retry_at)
    }

    /// Every slot that was ever ordered and not forgotten since.
    pub(super) fn all_slots(&self) -> Result<Vec<Slot>, StoreError> {
        let mut slots = Vec::new();
        self.each_slot(|slot| slot.map(|slot| slots.push(slot)))?;
        slots.sort_by(|a: &Slot, b: &Slot| {
            (&a.system, &a.device, &a.key).cmp(&(&b.system, &b.device, &b.key))
        });
        Ok(slots)
    }

    /// Hands out every slot, or why it cannot be read, in no order that means anything.
    pub(super) fn each_slot(
        &self,
        mut take: impl FnMut(Result<Slot, StoreError>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT slot, body FROM slot ORDER BY slot")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (index, sealed): ([u8; 32], Vec<u8>) = (row.get(0)?, row.get(1)?);
            take(self.unseal(&place(&index), &sealed))?;
        }
        Ok(())
    }

    fn slot_of_row(&self, row: &Row) -> Result<Option<([u8; 32], Slot)>, StoreError> {
        let Some(body) = &row.body else { return Ok(None) };
        let Some(index) = self.slot_index(&body.job.system, &body.job.order) else {
            return Ok(None);
        };
        Ok(self.slot(&index)?.map(|slot| (index, slot)))
    }

    /// The slot that an order is about, if any order for it ever came.
    pub(super) fn slot_for(&self, system: &SystemName, order: &Order) -> Result<Option<Slot>, StoreError> {
        self.slot_index(system, order).map_or(Ok(None), |index| self.slot(&index))
    }

    fn slot(&self, index: &[u8; 32]) -> Result<Option<Slot>, StoreError> {
        let sealed: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT body FROM slot WHERE slot = ?1")?
            .query_row([index], |row| row.get(0))
            .optional()?;
        sealed.map(|sealed| self.unseal(&place(index), &sealed)).transpose()
    }

    /// The slot of an order that has arrived.
    fn slot_or_new(
        &self,
        now: Timestamp,
        index: &[u8; 32],
        job: &Job,
        device: &DeviceName,
        key: &str,
    ) -> Result<Slot, StoreError> {
        if let Some(slot) = self.slot(index)? {
            return Ok(slot);
        }
        Ok(Slot {
            system: job.system.clone(),
            device: device.clone(),
            key: key.to_owned(),
            decided_by: job.job_id,
            generation: 0,
            at_work: None,
            holds: Holds::Nothing,
            changed_at: now,
            contents: BTreeMap::new(),
            place: None,
            is_forgotten: self.set_back()?.at.is_some(),
        })
    }

    fn put_slot(&mut self, index: &[u8; 32], slot: &Slot) -> Result<(), StoreError> {
        let sealed = self.sealed(&place(index), slot);
        let empty = !slot.is_in_use();
        self.connection
            .prepare_cached(
                "INSERT INTO slot(slot, changed_at, empty, body) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO UPDATE SET changed_at = excluded.changed_at, empty = excluded.empty, \
                 body = excluded.body",
            )?
            .execute(params![index, slot.changed_at.as_millisecond(), empty, sealed])?;
        Ok(())
    }

    /// The jobs that wait for a slot, other than one.
    fn waiting_for(&self, index: &[u8; 32], but: JobId) -> Result<Vec<JobId>, StoreError> {
        self.ids(
            "SELECT job_id FROM job WHERE slot = ?1 AND ended_at IS NULL AND state = 'waiting' AND job_id <> ?2 \
             ORDER BY id",
            params![index, but.0.as_bytes()],
        )
    }

    /// Whether a job will come to its slot.
    fn is_unfinished(&self, job_id: JobId) -> Result<bool, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM job WHERE job_id = ?1 AND ended_at IS NULL AND due_at IS NOT ?2")?
            .exists(params![job_id.0.as_bytes(), BARRED])?)
    }

    /// When the next unfinished job on a slot comes, other than one; the beginning of time for one that is ready. Of one
    /// that is held nobody knows.
    fn next_for(&self, index: &[u8; 32], but: JobId) -> Result<Option<Timestamp>, StoreError> {
        let at: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT min(coalesce(due_at, 0)) FROM job WHERE slot = ?1 AND ended_at IS NULL AND job_id <> ?2 \
                 AND due_at IS NOT ?3",
            )?
            .query_row(params![index, but.0.as_bytes(), BARRED], |row| row.get(0))?;
        Ok(at.map(|at| Timestamp::from_millisecond(at).unwrap_or(Timestamp::MIN)))
    }
}

/// A job that empties a slot.
fn removal_of(slot: &Slot, now: Timestamp, random: &crate::seams::Random) -> Job {
    Job {
        job_id: JobId(random.uuid_at(now)),
        system: slot.system.clone(),
        priority: Priority::Background,
        created_at: now,
        expires_at: Timestamp::from_second(NEVER).unwrap_or(Timestamp::MAX),
        order: Order::SlotRemove { device: slot.device.clone(), slot: slot.key.clone() },
    }
}

fn place(index: &[u8; 32]) -> String {
    let hex: String = index.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("slot.body/{hex}")
}
