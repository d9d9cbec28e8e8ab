//! What boards hold: cards, time profiles, doors, events.

use core::net::Ipv4Addr;
use std::fmt;

use jiff::civil::{Date, DateTime, Time};

use super::codec::{Fields, Writer, Wrong, wrong};

/// A card's number, or the number typed instead of one. Whoever knows it may get in: it shows nothing in logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardNumber(u32);

impl CardNumber {
    /// Any number; [`Self::is_usable`] says whether a card may have it.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number itself, for the few lines that must have it.
    #[must_use]
    pub fn expose(self) -> u32 {
        self.0
    }

    /// Whether a card may have it: some numbers mean other things to a board.
    #[must_use]
    pub fn is_usable(self) -> bool {
        !matches!(self.0, 0 | 0x00FF_FFFF | u32::MAX)
    }
}

impl fmt::Debug for CardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private]")
    }
}

/// A PIN or a door's code, up to 999999; 0 is none. It shows nothing in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin(u32);

impl Pin {
    /// No PIN.
    pub const NONE: Self = Self(0);

    /// A PIN; none above 999999, which boards mangle without a word.
    #[must_use]
    pub fn new(pin: u32) -> Option<Self> {
        (pin <= 999_999).then_some(Self(pin))
    }

    /// The PIN itself, for the few lines that must have it.
    #[must_use]
    pub fn expose(&self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::NONE { "[none]" } else { "[private]" })
    }
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident as $field:literal { $($(#[$of:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant = $code,)* }

        impl $name {
            pub(super) fn of(code: u8) -> Result<Self, Wrong> {
                match code {
                    $($code => Ok(Self::$variant),)*
                    _ => Err(wrong($field, "has no such value")),
                }
            }
        }
    };
}

numbered! {
    /// How a door is held.
    DoorMode as "door mode" {
        /// Unlocked all the time.
        NormallyOpen = 1,
        /// Locked all the time, whatever card comes.
        NormallyClosed = 2,
        /// Opened by cards.
        Controlled = 3,
    }
}

numbered! {
    /// Which readers keep people from entering twice.
    AntiPassback as "anti-passback mode" {
        /// None.
        Off = 0,
        /// Readers 1 and 2; 3 and 4.
        Pairs = 1,
        /// Readers 1 and 3 against 2 and 4.
        TwoAgainstTwo = 2,
        /// Reader 1 against 2 and 3.
        OneAgainstTwo = 3,
        /// Reader 1 against 2, 3 and 4.
        OneAgainstThree = 4,
    }
}

numbered! {
    /// Which doors are never open together.
    Interlock as "interlock mode" {
        /// None.
        Off = 0,
        /// Doors 1 and 2.
        OneAndTwo = 1,
        /// Doors 3 and 4.
        ThreeAndFour = 2,
        /// Both pairs.
        BothPairs = 3,
        /// Doors 1, 2 and 3.
        OneToThree = 4,
        /// All four.
        All = 8,
    }
}

numbered! {
    /// How a door is while a first card has opened it, or has not.
    FirstCardMode as "first-card mode" {
        /// Opened by cards.
        Controlled = 0,
        /// Unlocked.
        NormallyOpen = 1,
        /// Locked.
        NormallyClosed = 2,
        /// Opened by first cards alone; only for the hours outside.
        FirstCardOnly = 3,
    }
}

/// Who a board is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its subnet's mask.
    pub mask: Ipv4Addr,
    /// Its gateway.
    pub gateway: Ipv4Addr,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its firmware, as the board spells it: `[0x08, 0x92]` is 8.92.
    pub version: [u8; 2],
    /// When that was released.
    pub released: Option<Date>,
}

/// Where a board sends events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// To which address.
    pub address: Ipv4Addr,
    /// To which port.
    pub port: u16,
    /// Seconds between two that are sent without a cause; 0 for never.
    pub every: u8,
}

/// How a door is held, and for how long it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorControl {
    /// Which door, 1 to 4.
    pub door: u8,
    /// How it is held.
    pub mode: DoorMode,
    /// Seconds that it stays unlocked.
    pub delay: u8,
}

/// A card and where it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its number.
    pub number: CardNumber,
    /// The first day on which it opens.
    pub from: Date,
    /// The last day on which it opens.
    pub to: Date,
    /// For each door: 0 not, 1 always, 2 to 254 by the time profile of that number, 255 not.
    pub doors: [u8; 4],
    /// Its PIN.
    pub pin: Pin,
    /// Doors at which it is a first card, the lowest bit for door 1.
    pub first_card: u8,
}

impl Card {
    pub(super) fn read(fields: &Fields) -> Result<Self, Wrong> {
        Ok(Self {
            number: fields.card(8),
            from: fields.date(12, "first day")?,
            to: fields.date(16, "last day")?,
            doors: fields.bytes(20),
            pin: fields.pin(24, "PIN")?,
            first_card: fields.u8(27),
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) -> Result<(), Wrong> {
        writer.u32(8, self.number.expose());
        writer.date(12, self.from, "first day")?;
        writer.date(16, self.to, "last day")?;
        writer.bytes(20, &self.doors);
        writer.pin(24, &self.pin);
        writer.u8(27, self.first_card);
        Ok(())
    }

    /// What no board may be told.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        if !self.number.is_usable() {
            return Err(wrong("card number", "means something else to a board"));
        }
        if self.to < self.from {
            return Err(wrong("last day", "lies before the first"));
        }
        Ok(())
    }
}

/// What is at a place of a board's list of cards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Nothing: no such card, or the end of the list.
    Nothing,
    /// A card that was deleted.
    Deleted,
    /// A card.
    Card(Card),
}

/// When a card opens: on these days of the week, in these hours, between two dates; or as a linked profile says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeProfile {
    /// Its number, 2 to 254.
    pub id: u8,
    /// The first day.
    pub from: Date,
    /// The last day.
    pub to: Date,
    /// Monday first.
    pub days: [bool; 7],
    /// From and to, both to the minute and both included; midnight to midnight is none.
    pub segments: [(Time, Time); 3],
    /// Another profile by which a card opens as well; 0 for none.
    pub linked: u8,
}

impl TimeProfile {
    pub(super) fn read(fields: &Fields) -> Result<Self, Wrong> {
        let minute = |at| fields.minute(at, "hours");
        Ok(Self {
            id: fields.u8(8),
            from: fields.date(9, "first day")?,
            to: fields.date(13, "last day")?,
            days: fields.bools(17, "weekday")?,
            segments: [(minute(24)?, minute(26)?), (minute(28)?, minute(30)?), (minute(32)?, minute(34)?)],
            linked: fields.u8(36),
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) -> Result<(), Wrong> {
        writer.u8(8, self.id);
        writer.date(9, self.from, "first day")?;
        writer.date(13, self.to, "last day")?;
        writer.bools(17, &self.days);
        for ((start, end), at) in self.segments.iter().zip([24, 28, 32]) {
            writer.minute(at, *start);
            writer.minute(at + 2, *end);
        }
        writer.u8(36, self.linked);
        Ok(())
    }

    /// What no board may be told.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        profile_id(self.id)?;
        if self.linked != 0 && profile_id(self.linked).is_err() {
            return Err(wrong("linked profile", "is neither 0 nor 2 to 254"));
        }
        if self.to < self.from {
            return Err(wrong("last day", "lies before the first"));
        }
        if self.segments.iter().any(|(start, end)| end < start) {
            return Err(wrong("hours", "end before they begin"));
        }
        Ok(())
    }
}

pub(super) fn profile_id(id: u8) -> Result<u8, Wrong> {
    match id {
        2..=254 => Ok(id),
        _ => Err(wrong("time profile", "is not 2 to 254")),
    }
}

/// When the first card at a door opens it for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstCard {
    /// Which door, 1 to 4.
    pub door: u8,
    /// From when.
    pub start: Time,
    /// How the door is held once that card has come.
    pub active: FirstCardMode,
    /// Until when.
    pub end: Time,
    /// How it is held else.
    pub inactive: FirstCardMode,
    /// Monday first.
    pub days: [bool; 7],
}

/// Something that a board does by itself every day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The first day.
    pub from: Date,
    /// The last day.
    pub to: Date,
    /// Monday first.
    pub days: [bool; 7],
    /// When.
    pub start: Time,
    /// At which door, 1 to 4.
    pub door: u8,
    /// What, 0 to 12: 0 controlled, 1 open, 2 closed, 3 and 4 time profiles off and on, 5 card without PIN, 6 and 7 card
    /// and PIN on the way in and both ways, 8 and 9 more cards on and off, 10 open once, 11 and 12 button off and on.
    pub task: u8,
    /// How many more cards.
    pub more_cards: u8,
}

/// Something that happened at a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number; 0 where there is none.
    pub index: u32,
    /// Of what kind: 0 none, 1 swipe, 2 door, 3 alarm, 255 overwritten. Firmwares differ: `granted` says what came of it.
    pub kind: u8,
    /// Whether somebody was let in.
    pub granted: bool,
    /// At which door.
    pub door: u8,
    /// 1 in, 2 out.
    pub direction: u8,
    /// By which card; a small number where there was none.
    pub card: CardNumber,
    /// When, by the board's clock.
    pub at: Option<DateTime>,
    /// Why, in the board's own numbers.
    pub reason: u8,
}

impl Event {
    /// Whether newer events took its place.
    #[must_use]
    pub fn is_overwritten(&self) -> bool {
        self.kind == 0xFF
    }

    pub(super) fn read(fields: &Fields) -> Result<Self, Wrong> {
        Ok(Self {
            index: fields.u32(8),
            kind: fields.u8(12),
            granted: fields.bool(13, "granted")?,
            door: fields.u8(14),
            direction: fields.u8(15),
            card: fields.card(16),
            at: fields.date_time(20, "time of the event")?,
            reason: fields.u8(27),
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) -> Result<(), Wrong> {
        writer.u32(8, self.index);
        writer.bytes(12, &[self.kind, u8::from(self.granted), self.door, self.direction]);
        writer.u32(16, self.card.expose());
        if let Some(at) = self.at {
            writer.date_time(20, at, "time of the event")?;
        }
        writer.u8(27, self.reason);
        Ok(())
    }
}

/// How a board is, and the last thing that happened at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The last event.
    pub event: Event,
    /// Which doors are open.
    pub open: [bool; 4],
    /// Which buttons are pressed.
    pub buttons: [bool; 4],
    /// What is wrong with the board, in its own numbers.
    pub error: u8,
    /// The time of its clock.
    pub time: Time,
    /// The date of its clock.
    pub date: Option<Date>,
    /// The number of the host's last message.
    pub sequence: u32,
    /// Nobody says what this is.
    pub special: u8,
    /// Which doors are unlocked, the lowest bit for door 1.
    pub relays: u8,
    /// Lowest bit: forced lock; next: fire.
    pub inputs: u8,
}

impl Status {
    /// The board's clock, if it is set.
    #[must_use]
    pub fn clock(&self) -> Option<DateTime> {
        self.date.map(|date| DateTime::from_parts(date, self.time))
    }

    pub(super) fn read(fields: &Fields) -> Result<Self, Wrong> {
        Ok(Self {
            event: Event::read(fields)?,
            open: fields.bools(28, "open door")?,
            buttons: fields.bools(32, "button")?,
            error: fields.u8(36),
            time: fields.time(37, "time of the clock")?,
            date: fields.short_date(51, "date of the clock")?,
            sequence: fields.u32(40),
            special: fields.u8(48),
            relays: fields.u8(49),
            inputs: fields.u8(50),
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) -> Result<(), Wrong> {
        self.event.write(writer)?;
        writer.bools(28, &self.open);
        writer.bools(32, &self.buttons);
        writer.u8(36, self.error);
        writer.time(37, self.time);
        writer.u32(40, self.sequence);
        writer.bytes(48, &[self.special, self.relays, self.inputs]);
        if let Some(date) = self.date {
            writer.short_date(51, date, "date of the clock")?;
        }
        Ok(())
    }
}
