//! Conversations with a lock over GATT, as pure state machines: no IO, no clock, no tasks.

use std::time::Instant;

use uuid::Uuid;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// The peer acknowledges each write.
    Request,
    /// Nobody acknowledges it.
    Command,
}

/// What a conversation is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A characteristic notified a value.
    Value {
        /// Which one.
        from: Uuid,
        /// The value.
        value: &'a [u8],
    },
    /// The peer refused the last write or subscription; it had no effect.
    Refused,
    /// The instant of the last [`Want::Wait`] has passed.
    Timeout,
    /// The link is gone, or a write was not acknowledged in time: it may have had its effect.
    Closed,
}

/// What a conversation wants.
#[derive(Clone, PartialEq, Eq)]
pub enum Want<D, N> {
    /// To be notified of this characteristic's values; then poll again.
    Subscribe(Uuid),
    /// To write; then poll again.
    Write {
        /// To which characteristic.
        to: Uuid,
        /// What.
        value: Vec<u8>,
        /// How.
        kind: WriteKind,
    },
    /// Nothing before this instant, unless a value comes.
    Wait {
        /// Until when.
        until: Instant,
    },
    /// Something worth telling; poll again.
    Note(N),
    /// The conversation is over.
    Done(D),
}

/// One conversation over one connection, which is there when it begins. All that is written and heard is private: it may
/// hold keys and PINs.
pub trait Talk {
    /// How it ends.
    type Done;
    /// What it tells on the way.
    type Note;

    /// What to do now.
    fn poll(&mut self, now: Instant) -> Want<Self::Done, Self::Note>;

    /// Something happened.
    fn handle(&mut self, now: Instant, heard: Heard<'_>);
}
