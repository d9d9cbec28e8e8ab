//! What a driver says to an order that is possible.

use super::{DoorName, LaneName};

/// What a driver says to an order that is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Where it queues.
    pub lane: LaneName,
    /// Its doors that follow reservations, the main one first. The door ledger decides their treatment.
    pub rooms: Vec<DoorName>,
}
