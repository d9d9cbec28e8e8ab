//! Where a reading of a board's events begins and ends, and which of those that a board sends by itself may be taken.
//!
//! A board numbers its events from 1 and never again the same, until it is reset. It keeps the newest hundred thousand
//! or so, and drops the oldest by the block. What it sends by itself may be lost or come twice; the log decides.

use jiff::civil::DateTime;

use super::values::Event;

/// The last event that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its number.
    pub index: u32,
    /// When it happened, by the board's clock: a board that was reset has another one under the number.
    pub at: Option<DateTime>,
}

impl Mark {
    /// The mark behind an event.
    #[must_use]
    pub fn behind(event: &Event) -> Self {
        Self { index: event.index, at: event.at }
    }

    /// What an event that a board sent by itself is.
    #[must_use]
    pub fn places(&self, event: &Event) -> Place {
        match event.index {
            0 => Place::None,
            index if Some(index) == self.index.checked_add(1) => Place::Next,
            index if index == self.index && event.at == self.at => Place::Known,
            _ => Place::Elsewhere,
        }
    }

    /// Whether the record under its number is another one: then the board was reset.
    #[must_use]
    pub(super) fn is_contradicted(&self, record: &Event) -> bool {
        record.index == self.index && !record.is_overwritten() && self.at.is_some() && record.at != self.at
    }
}

/// How an event lies to the last one that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is no event: the board only says how it is.
    None,
    /// The next one: it may be taken.
    Next,
    /// The same once more.
    Known,
    /// There is a gap, or the board was reset: the log has to be read.
    Elsewhere,
}

/// What of a log is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The first number.
    pub from: u32,
    /// The last one; before `from` where there is nothing to read.
    pub to: u32,
    /// How many are known to be gone before the first.
    pub lost: u64,
}

impl Span {
    /// Of a log from `oldest` to `newest` what lies behind `last`; all of it where nothing was ever read.
    pub(super) fn behind(last: Option<u32>, oldest: u32, newest: u32) -> Self {
        let Some(last) = last else {
            return Self { from: oldest, to: newest, lost: 0 };
        };
        if newest < last {
            return Self::after_reset(oldest, newest);
        }
        let next = last.saturating_add(1);
        let from = next.max(oldest);
        // The highest number asks for the newest event: none has it.
        let to = if last == u32::MAX { 0 } else { newest };
        Self { from, to, lost: u64::from(from - next) }
    }

    /// All of a log that began anew. How many were lost with the old one it does not say.
    pub(super) fn after_reset(oldest: u32, newest: u32) -> Self {
        Self { from: oldest, to: newest, lost: u64::from(oldest.max(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(last: Option<u32>, oldest: u32, newest: u32, expected: (u32, u32, u64)) {
        let span = Span::behind(last, oldest, newest);
        assert_eq!((span.from, span.to, span.lost), expected, "{last:?} {oldest} {newest}");
    }

    #[test]
    fn a_reading_begins_behind_the_last_event_or_at_the_oldest_that_is_left() {
        check(None, 1, 9, (1, 9, 0));
        check(None, 4, 9, (4, 9, 0));
        check(Some(0), 1, 9, (1, 9, 0));
        check(Some(5), 1, 9, (6, 9, 0));
        check(Some(5), 6, 9, (6, 9, 0));
        check(Some(5), 8, 9, (8, 9, 2));
        check(Some(9), 1, 9, (10, 9, 0));
    }

    #[test]
    fn a_log_that_went_back_began_anew() {
        check(Some(500), 1, 9, (1, 9, 1));
        check(Some(500), 4, 9, (4, 9, 4));
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trap() {
        check(Some(u32::MAX), 1, u32::MAX, (u32::MAX, 0, 0));
        check(Some(u32::MAX - 1), 1, u32::MAX, (u32::MAX, u32::MAX, 0));
        check(Some(0), u32::MAX, u32::MAX, (u32::MAX, u32::MAX, u64::from(u32::MAX) - 1));
    }
}
