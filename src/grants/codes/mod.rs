//! Codes on devices, and cards that devices know by their numbers: what should be in their slots, what is known to be in
//! them, and what has to be ordered.
//!
//! A [`Book`] holds grants with codes and cards, their methods, and the slots of the devices. A command, a report of a bridge, a
//! reading or the clock changes the book ([`plan`](self), pure); then [`Book::reconcile`] compares desired with observed,
//! slot by slot, and names the orders that are missing. Who keeps the book loads as much of it as a grant touches, and
//! stores what became of it.
//!
//! Each method has one PIN, or one card whose number is not known before somebody lays it on a desk's reader; and in each
//! of its devices one slot, whose key is the method's id. What should be there is
//! [`Desired`]; what the last word of a bridge proved is [`Observed`]; what is under way is [`Work`]. A method is issued
//! exactly as long as every one of its slots was read back with what is desired. It is gone when none of its slots may
//! hold anything.
//!
//! The agent owns lead, reading back, and the removal at the end. This side repeats the removal only where the agent's is
//! not heard of: its memory may have been lost.

mod adopt;
mod card;
mod plan;
mod reconcile;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{AccessGrantId, AccessMethodId, Code, DeviceId, JobId, PinRules, Private, SlotContent, Window},
    seams::Random,
};

use super::{Event, PinMark};

pub use adopt::GivenOut;
pub use card::NotEnrolled;
pub use plan::MOST_SLOTS;
pub use reconcile::{Action, SlotOrder};
pub use told::{MOST_DOUBTS, Told};

/// When a change happens, and what it draws on.
pub struct Moment<'a> {
    /// The time.
    pub now: Timestamp,
    /// For ids and PINs.
    pub random: &'a Random,
    /// The mark of a PIN.
    pub mark: &'a dyn Fn(&str) -> PinMark,
}

impl std::fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Moment({})", self.now)
    }
}

/// Grants with codes, as far as they are looked at.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// The devices of everything below.
    pub devices: BTreeMap<DeviceId, Lock>,
    /// The grants.
    pub grants: BTreeMap<AccessGrantId, CodeGrant>,
    /// Their code methods; one that is gone has no entry any more.
    pub methods: BTreeMap<AccessMethodId, CodeMethod>,
    /// The slots of the methods, and slots of methods that are long forgotten.
    pub slots: BTreeMap<(DeviceId, AccessMethodId), Slot>,
    /// What the feed is to tell, oldest first.
    pub events: Vec<Event>,
}

/// A device, as codes see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Which PINs it takes; none where it takes no code.
    pub pins: Option<PinRules>,
    /// Whether it knows cards by their numbers.
    pub takes_cards: bool,
    /// Whether its site has it.
    pub is_here: bool,
    /// How long before its window begins a code is put into it.
    pub lead: SignedDuration,
    /// PINs that are live on it, or may still be in it, for grants outside this book.
    pub taken: Vec<(PinMark, Window)>,
}

/// A grant, as its codes see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeGrant {
    /// When it holds.
    pub window: Window,
    /// Since when it is being deleted.
    pub deleted_at: Option<Timestamp>,
    /// Whether the feed has told of its deletion.
    pub deletion_told: bool,
    /// The devices it leads to, none twice.
    pub devices: Vec<DeviceId>,
    /// Devices that a code of it has ever been read back from.
    pub opened: BTreeSet<DeviceId>,
    /// Whether every door that is no device opens, or there is none.
    pub doors_open: bool,
    /// PINs that the same person has by other grants, the latest first.
    pub habits: Vec<Private>,
    /// The codes that are asked for, by their places among everything that the grant asks for.
    pub requests: BTreeMap<u32, CodeRequest>,
}

/// What opens a device by way of its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Key {
    /// Digits on its keys.
    #[default]
    Pin,
    /// A card that it knows by the number of its chip.
    Card,
}

/// A code, or a card, that a grant asks for, for all its devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CodeRequest {
    /// Which of both.
    pub key: Key,
    /// Every card of it was taken back by name: there shall be no other one.
    pub is_closed: bool,
    /// The PIN that was asked for. Where a device takes only what its maker computed, it is for that one and for the
    /// grant's times as they are: other times end it.
    pub wish: Option<Private>,
    /// Devices whose code was taken back by name: they get no other one for this request.
    pub declined: BTreeSet<DeviceId>,
    /// What of it cannot be had now.
    pub lack: Option<Lack>,
}

/// What of a code that is asked for cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Since when.
    pub since: Timestamp,
    /// Devices that take codes and cannot be given one. Without any, no device that the grant leads to takes codes.
    pub devices: BTreeSet<DeviceId>,
}

impl Lack {
    /// The same for a person.
    #[must_use]
    pub fn message(&self) -> &'static str {
        if self.devices.is_empty() {
            "No targeted door supports: code"
        } else {
            "No code can be had for some of the devices: no PIN is left that they would take, their maker computes their \
             codes and none was given for the lock and these times, or the access grant has as many codes as one may have"
        }
    }
}

/// A code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeMethod {
    /// Of which grant.
    pub grant: AccessGrantId,
    /// Which of the grant's requests it answers.
    pub place: u32,
    /// What it is.
    pub key: Key,
    /// The PIN, or the number of the card's chip in hexadecimal; empty where it was forgotten, or no card was read yet.
    pub pin: Private,
    /// The PIN that was asked for.
    pub wish: Option<Private>,
    /// The devices it is for.
    pub devices: Vec<DeviceId>,
    /// Of those, the ones that came to it when it was handed out already, and have not had it yet. It works at the
    /// others, so that they do not take it back from anybody.
    pub joining: BTreeSet<DeviceId>,
    /// Since when what is desired now is desired.
    pub asked_at: Timestamp,
    /// Whether it may be handed out.
    pub is_issued: bool,
    /// When it first could be.
    pub issued_at: Option<Timestamp>,
    /// The window before an update that is not in every device yet.
    pub updating_from: Option<Window>,
    /// Since when it is being deleted.
    pub deleted_at: Option<Timestamp>,
    /// Its window is over.
    pub has_ended: bool,
    /// Since when it is late.
    pub late_since: Option<Timestamp>,
    /// Since when it counts as not issued in time.
    pub failed_since: Option<Timestamp>,
}

/// A slot of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slot {
    /// What should be there.
    pub desired: Desired,
    /// What is known to be there.
    pub observed: Observed,
    /// What is done about it.
    pub work: Work,
}

/// What should be in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Grows with every change.
    pub generation: u64,
    /// What, and when it opens; nothing where the slot should be empty.
    pub content: Option<(SlotContent, Window)>,
}

/// What is known to be in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// What it held before everything that is in doubt.
    pub holds: Option<Content>,
    /// Since when it has held something, or may have.
    pub since: Option<Timestamp>,
    /// Jobs of which nobody knows whether they were done, oldest first; the last [`MOST_DOUBTS`] of them.
    pub doubts: Vec<Doubt>,
}

impl Observed {
    /// Everything that may be there.
    pub fn contents(&self) -> impl Iterator<Item = Content> {
        let doubtful = self.doubts.iter().filter_map(|doubt| match doubt.deed {
            Deed::Put(content) => Some(content),
            Deed::Remove => None,
        });
        self.holds.into_iter().chain(doubtful)
    }
}

/// A PIN in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The generation of the order that put it there.
    pub generation: u64,
    /// Which PIN; none where nobody knows.
    pub mark: Option<PinMark>,
    /// Until when it opens; without an end, until it is taken away.
    pub until: Option<Timestamp>,
}

/// A job of which nobody knows whether it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// Which.
    pub job: JobId,
    /// What it would have done.
    pub deed: Deed,
}

/// What is done about a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Work {
    /// The newest order of which no end is known.
    pub under_way: Option<UnderWay>,
    /// Earlier orders that put something, may be known to the bridge, and of which no end is known.
    pub earlier: Vec<(JobId, Content)>,
    /// How often in a row it was refused.
    pub failures: u32,
    /// Not ordered again before.
    pub not_before: Option<Timestamp>,
    /// Why it was refused last.
    pub trouble: Option<Trouble>,
}

/// An order under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// Its job.
    pub job: JobId,
    /// What it does.
    pub deed: Deed,
    /// Whether its bridge may know of it.
    pub was_handed: bool,
}

/// What an order does to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Puts this there.
    Put(Content),
    /// Empties it.
    Remove,
}

/// Why an order was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The stable name.
    pub code: Code,
    /// For a person.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

impl CodeMethod {
    /// One that is asked for now, and of which nothing is done yet.
    fn new(now: Timestamp, grant: AccessGrantId, place: u32, pin: Private, devices: Vec<DeviceId>) -> Self {
        Self {
            grant,
            place,
            key: Key::Pin,
            pin,
            wish: None,
            devices,
            joining: BTreeSet::new(),
            asked_at: now,
            is_issued: false,
            issued_at: None,
            updating_from: None,
            deleted_at: None,
            has_ended: false,
            late_since: None,
            failed_since: None,
        }
    }
}

impl CodeMethod {
    /// What is to be in its slots; nothing before a card was read, or after a PIN was forgotten.
    #[must_use]
    pub fn content(&self) -> Option<SlotContent> {
        let text = Some(self.pin.clone()).filter(|text| !text.expose().is_empty())?;
        Some(match self.key {
            Key::Pin => SlotContent::Pin(text),
            Key::Card => SlotContent::CardNumber(text),
        })
    }

    /// Whether it waits for somebody to lay a card down.
    #[must_use]
    pub fn awaits_card(&self) -> bool {
        self.key == Key::Card && self.pin.expose().is_empty()
    }
}

impl Moment<'_> {
    /// The mark of what is in a slot. A card's number is never taken for a PIN.
    #[must_use]
    pub fn mark_of(&self, content: &SlotContent) -> PinMark {
        mark_of(self.mark, content)
    }
}

/// The mark of what is in a slot, by the mark of a text.
pub fn mark_of(mark: &dyn Fn(&str) -> PinMark, content: &SlotContent) -> PinMark {
    match content {
        SlotContent::Pin(pin) => mark(pin.expose()),
        SlotContent::CardNumber(number) => mark(&format!("card {}", number.expose())),
    }
}

impl CodeGrant {
    /// What cannot be had now of the codes that are asked for.
    pub fn lacks(&self) -> impl Iterator<Item = &Lack> {
        self.requests.values().filter_map(|request| request.lack.as_ref())
    }
}

impl Slot {
    /// Whether it may hold something.
    #[must_use]
    pub fn may_hold(&self) -> bool {
        let seen = self.observed.holds.is_some() || !self.observed.doubts.is_empty();
        seen || self.may_put().is_some() || !self.work.earlier.is_empty()
    }

    /// Whether it has a code, may have one, or is to have one.
    fn may_be_used(&self) -> bool {
        self.desired.content.is_some() || self.may_hold()
    }

    /// When the last of what it may hold opens no more; none where nothing is there, or something has no end.
    fn opens_until(&self) -> Option<Timestamp> {
        let earlier = self.work.earlier.iter().map(|(_, content)| *content);
        let contents = self.observed.contents().chain(self.may_put()).chain(earlier);
        contents.map(|content| content.until).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Whether what is desired was read back.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let seen = self.observed.holds.map(|content| content.generation);
        let wanted = self.desired.content.as_ref().map(|_| self.desired.generation);
        self.observed.doubts.is_empty() && seen == wanted
    }

    /// Whether nothing is there, nothing should be, and nothing is under way.
    #[must_use]
    pub fn is_done_with(&self) -> bool {
        let is_at_rest = self.work.under_way.is_none() && self.work.earlier.is_empty();
        self.is_settled() && self.desired.content.is_none() && is_at_rest
    }

    /// Changes what should be there.
    fn want(&mut self, now: Timestamp, content: Option<(SlotContent, Window)>) {
        self.desired.content = content;
        self.outgrow(now, self.desired.generation);
        self.work.failures = 0;
        self.work.not_before = None;
        self.work.trouble = None;
    }

    /// The desired generation becomes a later one than this. It goes by the clock, so that it also grows where this
    /// memory was set back.
    fn outgrow(&mut self, now: Timestamp, generation: u64) {
        let clock = u64::try_from(now.as_millisecond()).unwrap_or(0);
        self.desired.generation = clock.max(self.desired.generation.max(generation).saturating_add(1));
    }
}

impl Book {
    /// The devices from which a code that should be gone is not known to have gone, and since when it has been there.
    #[must_use]
    pub fn still_there(&self, method: AccessMethodId) -> Vec<(DeviceId, Option<Timestamp>)> {
        self.slots_of(method)
            .filter(|(_, slot)| slot.desired.content.is_none() && slot.may_hold())
            .map(|(device, slot)| (device, slot.observed.since))
            .collect()
    }

    /// The slots of a method.
    pub fn slots_of(&self, method: AccessMethodId) -> impl Iterator<Item = (DeviceId, &Slot)> {
        self.slots
            .iter()
            .filter(move |((_, own), _)| *own == method)
            .map(|((device, _), slot)| (*device, slot))
    }

    /// The methods of a grant.
    pub fn methods_of(&self, grant: AccessGrantId) -> impl Iterator<Item = (AccessMethodId, &CodeMethod)> {
        self.methods.iter().filter(move |(_, method)| method.grant == grant).map(|(id, method)| (*id, method))
    }
}
