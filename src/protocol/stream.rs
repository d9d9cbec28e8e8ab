//! Positions in a durable stream, and what two memories of it have to say to each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::EpochReason;

/// The largest epoch or `n` on the wire: every JSON reader holds it exactly.
pub const LARGEST: u64 = (1 << 53) - 1;

/// A place in a stream: `n` counts from 1 inside an epoch; `n = 0` is the place before the first message.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
pub struct Position {
    /// Grows whenever one side turned out to have forgotten something.
    #[schemars(range(max = LARGEST))]
    pub epoch: u64,
    /// Counts messages inside the epoch.
    #[schemars(range(max = LARGEST))]
    pub n: u64,
}

impl Position {
    /// What a receiver says it holds whose memory was set back, by a restored backup for example: nobody knows what it
    /// once held. No message ever stands here.
    pub const LOST: Self = Self { epoch: 0, n: 1 };

    /// The place of the next message of the same epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self { epoch: self.epoch, n: self.n + 1 }
    }

    /// Whether both numbers are ones that a peer can honestly have come to; what is above overflows nowhere, but is
    /// not of this language.
    #[must_use]
    pub fn is_plausible(self) -> bool {
        self.epoch <= LARGEST && self.n <= LARGEST
    }
}

/// What the sender of a stream remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The last position it gave out.
    pub last: Position,
    /// The last position of the same epoch that the receiver acknowledged.
    pub acknowledged: u64,
}

impl Default for Sent {
    fn default() -> Self {
        Self { last: Position { epoch: 1, n: 0 }, acknowledged: 0 }
    }
}

/// How a sender goes on with a receiver that has just said what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Both remember the same past: send what follows `after`.
    Continue {
        /// The receiver's last position.
        after: Position,
    },
    /// One of the two forgot something: number what is left anew, from `n = 1` in this epoch.
    NewEpoch {
        /// The epoch that begins.
        epoch: u64,
        /// Who forgot.
        reason: EpochReason,
    },
}

/// Compares the sender's memory with what the receiver says it holds.
#[must_use]
pub fn resume(sender: &Sent, receiver: Position) -> Resume {
    let new_epoch = |reason| Resume::NewEpoch { epoch: sender.last.epoch.max(receiver.epoch) + 1, reason };
    if receiver == Position::LOST {
        return new_epoch(EpochReason::ReceiverBehind);
    }
    if receiver.epoch > sender.last.epoch {
        return new_epoch(EpochReason::SenderBehind);
    }
    if receiver.epoch < sender.last.epoch {
        // Nothing of this epoch has arrived. That is right only while nothing of it was acknowledged either.
        return match sender.acknowledged {
            0 => Resume::Continue { after: Position { epoch: sender.last.epoch, n: 0 } },
            _ => new_epoch(EpochReason::ReceiverBehind),
        };
    }
    if receiver.n > sender.last.n {
        return new_epoch(EpochReason::SenderBehind);
    }
    if receiver.n < sender.acknowledged {
        return new_epoch(EpochReason::ReceiverBehind);
    }
    Resume::Continue { after: receiver }
}

/// What a receiver does with a message that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The next one: take it.
    Next,
    /// Held already: acknowledge again, do nothing else.
    Duplicate,
    /// Something is missing before it.
    Gap {
        /// What was due.
        expected: Position,
    },
}

/// Judges a position against the last one held.
#[must_use]
pub fn arrival(held: Position, position: Position) -> Arrival {
    if position.epoch < held.epoch || (position.epoch == held.epoch && position.n <= held.n) {
        return Arrival::Duplicate;
    }
    let expected =
        if position.epoch == held.epoch { held.next() } else { Position { epoch: position.epoch, n: 1 } };
    if position == expected { Arrival::Next } else { Arrival::Gap { expected } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(epoch: u64, n: u64, acknowledged: u64) -> Sent {
        Sent { last: Position { epoch, n }, acknowledged }
    }

    fn at(epoch: u64, n: u64) -> Position {
        Position { epoch, n }
    }

    #[test]
    fn a_first_meeting_continues_from_nothing() {
        assert_eq!(resume(&Sent::default(), Position::default()), Resume::Continue { after: at(1, 0) });
        assert_eq!(resume(&sent(1, 9, 0), Position::default()), Resume::Continue { after: at(1, 0) });
    }

    #[test]
    fn equal_memories_continue_after_what_the_receiver_holds() {
        assert_eq!(resume(&sent(3, 9, 4), at(3, 6)), Resume::Continue { after: at(3, 6) });
        assert_eq!(resume(&sent(3, 9, 4), at(3, 4)), Resume::Continue { after: at(3, 4) });
    }

    #[test]
    fn a_receiver_that_forgot_what_it_acknowledged_starts_a_new_epoch() {
        let new = Resume::NewEpoch { epoch: 4, reason: EpochReason::ReceiverBehind };
        assert_eq!(resume(&sent(3, 9, 4), at(3, 3)), new);
        assert_eq!(resume(&sent(3, 9, 4), at(2, 50)), new);
        assert_eq!(resume(&sent(3, 9, 4), at(0, 0)), new);
    }

    #[test]
    fn a_receiver_that_was_set_back_starts_a_new_epoch_whatever_was_acknowledged() {
        for sender in [sent(1, 0, 0), sent(1, 9, 0), sent(3, 9, 4)] {
            let epoch = sender.last.epoch + 1;
            let new = Resume::NewEpoch { epoch, reason: EpochReason::ReceiverBehind };
            assert_eq!(resume(&sender, Position::LOST), new);
        }
        assert_eq!(arrival(Position::LOST, at(2, 1)), Arrival::Next);
        assert_eq!(arrival(Position::LOST, at(2, 2)), Arrival::Gap { expected: at(2, 1) });
    }

    #[test]
    fn a_sender_that_forgot_what_it_sent_starts_a_new_epoch_above_both() {
        let new = |epoch| Resume::NewEpoch { epoch, reason: EpochReason::SenderBehind };
        assert_eq!(resume(&sent(3, 9, 4), at(3, 10)), new(4));
        assert_eq!(resume(&sent(3, 9, 4), at(7, 1)), new(8));
    }

    #[test]
    fn a_new_epoch_continues_while_nothing_of_it_was_acknowledged() {
        assert_eq!(resume(&sent(4, 2, 0), at(3, 9)), Resume::Continue { after: at(4, 0) });
    }

    #[test]
    fn arrivals_are_next_duplicate_or_a_named_gap() {
        assert_eq!(arrival(at(3, 6), at(3, 7)), Arrival::Next);
        assert_eq!(arrival(at(3, 6), at(3, 6)), Arrival::Duplicate);
        assert_eq!(arrival(at(3, 6), at(2, 90)), Arrival::Duplicate);
        assert_eq!(arrival(at(3, 6), at(3, 8)), Arrival::Gap { expected: at(3, 7) });
        assert_eq!(arrival(at(3, 6), at(4, 1)), Arrival::Next);
        assert_eq!(arrival(at(3, 6), at(4, 2)), Arrival::Gap { expected: at(4, 1) });
        assert_eq!(arrival(Position::default(), at(1, 1)), Arrival::Next);
    }
}
