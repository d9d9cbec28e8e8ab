//! What a driver says to an order that is possible.

use std::time::Duration;

use jiff::Timestamp;

use super::{DoorName, LaneName};

/// What a driver says to an order that is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Where it queues.
    pub lane: LaneName,
    /// Its doors that follow reservations, the main one first. The door ledger decides their treatment.
    pub rooms: Vec<DoorName>,
    /// The end that a card will carry once it is written, by which it is known again; the system's clock may be coarser
    /// than ours.
    pub printed_end: Option<Timestamp>,
    /// How long before its window begins a `slot.put` may be done. Zero for orders that are done at once.
    pub lead: Duration,
}

impl Admission {
    /// An order that is done at once.
    #[must_use]
    pub fn to(lane: LaneName, rooms: Vec<DoorName>) -> Self {
        Self { lane, rooms, printed_end: None, lead: Duration::ZERO }
    }
}
