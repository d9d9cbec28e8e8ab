//! How a conversation with a device ended that can be asked what it holds.

use crate::model::Refusal;

/// How a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// Done, and the device shows it; of a proof: it was done.
    Done,
    /// Nothing of what changes the device left, or the device said that it takes nothing now. A proof or a reading was not
    /// come to its end.
    NothingSent(Refusal),
    /// Not done, and the device said or showed so; of a proof: it was not done.
    NotDone(Refusal),
    /// It left, and what came of it was not seen to the end; of a proof: the device does not tell.
    Doubt(Refusal),
}
