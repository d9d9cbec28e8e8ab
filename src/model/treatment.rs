//! What a card does to the room it is made for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a card does to the rooms on it; decided by the agent's door ledger when the job is marked `sent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Treatment {
    /// No room that follows reservations is on it.
    Plain,
    /// It begins a stay: once used, the room's older cards are dead.
    Override,
    /// It joins the stay that the room already has.
    Join,
}

/// What the ledger knows of the cards of a room's stay, by which the lock system's own list is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StayCards {
    /// The chips that they were written on, in hexadecimal as the system says it.
    pub chips: Vec<String>,
    /// The ends printed on them.
    pub printed_ends: Vec<Timestamp>,
}
