//! What a lock keeps: PINs with when they hold, and what happened.

use std::collections::{BTreeMap, VecDeque};

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

/// How much of what happened it remembers.
const REMEMBERED: usize = 200;

/// When a PIN holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// Seconds since 1970; the last is outside.
    Between(u32, u32),
    /// A bit a day, Sunday the lowest; seconds of the day.
    Days(u8, u32, u32),
}

impl When {
    /// Reads the access command's 12 bytes.
    pub(super) fn read(rest: &[u8; 12]) -> Option<Self> {
        let number = |from: usize| (0..4).fold(0, |sum, at| sum | u32::from(rest[from + at]) << (8 * at));
        let (from, until) = (number(0), number(4));
        match rest[8] {
            0x80 => Some(Self::Always),
            0x81 | 0x82 if from < until => Some(Self::Between(from, until)),
            days @ 0x01..=0x7f if from < until && until <= 86_400 => Some(Self::Days(days, from, until)),
            _ => None,
        }
    }

    fn holds(self, at: Timestamp) -> bool {
        match self {
            Self::Always => true,
            Self::Between(from, until) => (i64::from(from)..i64::from(until)).contains(&at.as_second()),
            Self::Days(days, from, until) => {
                let local = at.to_zoned(TimeZone::UTC);
                let day = local.weekday().to_sunday_zero_offset();
                let second = at.as_second().rem_euclid(86_400);
                days >> day & 1 == 1 && (i64::from(from)..i64::from(until)).contains(&second)
            }
        }
    }

    fn show(self) -> Value {
        let at = |second: u32| Timestamp::from_second(second.into()).unwrap_or_default().to_string();
        match self {
            Self::Always => json!("always"),
            Self::Between(from, until) => json!({ "from": at(from), "until": at(until) }),
            Self::Days(days, from, until) => json!({ "days": days, "from": from, "until": until }),
        }
    }
}

/// Slot, PIN and when it holds.
#[derive(Default)]
pub(super) struct Table(BTreeMap<u16, (String, When)>);

impl Table {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn pin(&self, slot: u16) -> Option<&str> {
        self.0.get(&slot).map(|(pin, _)| pin.as_str())
    }

    pub(super) fn slot_of(&self, pin: &str) -> Option<u16> {
        self.0.iter().find_map(|(slot, (held, _))| (held == pin).then_some(*slot))
    }

    pub(super) fn put(&mut self, slot: u16, pin: String, when: When) {
        self.0.insert(slot, (pin, when));
    }

    pub(super) fn empty(&mut self, slot: u16) {
        self.0.remove(&slot);
    }

    pub(super) fn empty_all(&mut self) {
        self.0.clear();
    }

    /// The slot with which this PIN opens.
    pub(super) fn opens(&self, pin: &str, at: Timestamp) -> Option<u16> {
        let (slot, (_, when)) = self.0.iter().find(|(_, (held, _))| held == pin)?;
        when.holds(at).then_some(*slot)
    }

    pub(super) fn show(&self) -> Value {
        let slots =
            self.0.iter().map(|(slot, (pin, when))| json!({ "slot": slot, "pin": pin, "when": when.show() }));
        slots.collect()
    }
}

/// Digits in halves of bytes, from the front; what follows them is F. Nothing where they are something else.
pub(super) fn digits(packed: &[u8]) -> Option<String> {
    let text: String = packed.iter().map(|byte| format!("{byte:02X}")).collect();
    let digits = text.trim_end_matches('F');
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.to_owned())
}

/// The other way, into 7 bytes.
pub(super) fn packed(digits: &str) -> [u8; 7] {
    let mut bytes = [0xff; 7];
    for (place, digit) in digits.chars().enumerate().take(14) {
        let digit = digit.to_digit(16).unwrap_or(0x0f) as u8;
        let shift = if place % 2 == 0 { 4 } else { 0 };
        bytes[place / 2] = bytes[place / 2] & !(0x0f << shift) | digit << shift;
    }
    bytes
}

/// What happened, oldest first, as the lock tells it.
#[derive(Default)]
pub(super) struct Log(VecDeque<[u8; 12]>);

impl Log {
    fn add(&mut self, record: [u8; 12]) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    pub(super) fn bolt(&mut self, at: u32, status: u8) {
        let [a, b, c, d] = at.to_le_bytes();
        self.add([0x00, 0x00, status, 0x03, a, b, c, d, 0, 0, 0, 0]);
    }

    pub(super) fn keypad(&mut self, at: u32, slot: u16) {
        let ([a, b, c, d], [low, high]) = (at.to_le_bytes(), slot.to_le_bytes());
        self.add([0x07, a, b, c, d, 0, 0, 0, 0, 0, low, high]);
    }

    pub(super) fn door(&mut self, at: u32, state: u8) {
        let [a, b, c, d] = at.to_le_bytes();
        self.add([0x20, a, b, c, d, state, 0, 0, 0, 0, 0, 0]);
    }

    /// The oldest, forgotten with it.
    pub(super) fn pop(&mut self) -> [u8; 12] {
        let mut none = [0; 12];
        none[0] = 0x80;
        self.0.pop_front().unwrap_or(none)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
