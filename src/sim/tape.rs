//! What really went over the wire, for tests and people to judge by.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::Serialize;

/// Who sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The client sent it, the simulator received it.
    Received,
    /// The simulator sent it.
    Sent,
    /// Nobody: a line was opened, closed or refused.
    Event,
}

/// One thing on the tape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Counts from 1 over all lines, without gaps.
    pub n: u64,
    /// When, by the simulator's clock.
    pub at: Timestamp,
    /// Which line and which connection on it: `serial#1`, `tcp#2`.
    pub line: String,
    /// Who sent.
    pub direction: Direction,
    /// `ENQ`, `ACK`, `NAK`, a frame's mnemonic, `bad_frame`, `noise`; `opened`, `closed`, `refused` for events.
    pub kind: String,
    /// The bytes, as hexadecimal digits.
    pub hex: String,
}

/// A bounded record: the newest entries whole, and how often each kind passed since the start.
#[derive(Debug, Default)]
pub struct Tape {
    entries: VecDeque<Entry>,
    counts: BTreeMap<(Direction, String), u64>,
    last: u64,
}

/// How many entries are kept; a long demo must not grow without end.
const KEPT: usize = 10_000;

impl Tape {
    /// Adds an entry and returns its number.
    pub fn record(
        &mut self,
        at: Timestamp,
        line: &str,
        direction: Direction,
        kind: &str,
        bytes: &[u8],
    ) -> u64 {
        self.last += 1;
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        tracing::debug!(line, ?direction, kind, bytes = %bytes.escape_ascii(), "wire");
        self.entries.push_back(Entry {
            n: self.last,
            at,
            line: line.to_owned(),
            direction,
            kind: kind.to_owned(),
            hex: hex(bytes),
        });
        *self.counts.entry((direction, kind.to_owned())).or_default() += 1;
        self.last
    }

    /// The kept entries after number `n`, oldest first.
    pub fn since(&self, n: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().skip_while(move |entry| entry.n <= n)
    }

    /// How often a kind passed since the start.
    #[must_use]
    pub fn count(&self, direction: Direction, kind: &str) -> u64 {
        let key = (direction, kind.to_owned());
        self.counts.get(&key).copied().unwrap_or_default()
    }

    /// How often anything passed whose kind satisfies `wanted`.
    pub fn count_where(&self, direction: Direction, wanted: impl Fn(&str) -> bool) -> u64 {
        self.counts
            .iter()
            .filter(|((way, kind), _)| *way == direction && wanted(kind))
            .map(|(_, count)| count)
            .sum()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tape_forgets_old_entries_but_never_a_count() {
        let mut tape = Tape::default();
        for _ in 0..KEPT + 5 {
            tape.record(Timestamp::UNIX_EPOCH, "tcp#1", Direction::Received, "ENQ", &[5]);
        }
        assert_eq!(tape.since(0).count(), KEPT);
        assert_eq!(tape.since(0).next().unwrap().n, 6);
        assert_eq!(tape.count(Direction::Received, "ENQ"), 10_005);
        assert_eq!(tape.count(Direction::Sent, "ENQ"), 0);
        assert_eq!(tape.since(10_004).count(), 1);
    }
}
