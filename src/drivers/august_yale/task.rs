//! What there is to do at a lock, and the commands for it.

use super::message::{Access, Ask, Command, Held, Pin, Slot};

/// What to do at a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Only to see how it is.
    Look {
        /// Ask for the battery, too. Some locks never answer that; they are given up after a while.
        battery: bool,
    },
    /// To see what these slots hold.
    Read(Vec<Slot>),
    /// To change its table.
    Change(Change),
    /// To see whether its table was changed so, without changing it.
    Prove(Change, Before),
    /// To turn its bolt.
    Move(Motion),
    /// To take what happened there out of its memory.
    Log {
        /// No more than this.
        at_most: u32,
    },
}

/// What changes a lock's table. Doing one again leaves the same table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Put a PIN, whatever the slot holds.
    Put {
        /// Into which slot.
        slot: Slot,
        /// The PIN.
        pin: Pin,
        /// When it holds.
        access: Access,
    },
    /// Empty a slot.
    Remove {
        /// Which.
        slot: Slot,
    },
}

/// What is known of a slot before a change. A slot shows its PIN, and not when that holds: a PIN that was there before
/// proves nothing of a new window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It may have held the same PIN.
    Unknown,
    /// It held another PIN, or none.
    Otherwise,
}

/// How the bolt is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// Back.
    Unlock,
    /// Out.
    Lock,
}

impl Change {
    pub(super) fn slot(&self) -> Slot {
        match self {
            Self::Put { slot, .. } | Self::Remove { slot } => *slot,
        }
    }

    fn plan(&self) -> Vec<Command> {
        match self.clone() {
            Self::Put { slot, pin, access } => vec![
                Command::Status(Ask::Lock),
                // Set right as it leaves.
                Command::SetClock(0),
                Command::Clear(slot),
                Command::SetPin(pin.clone()),
                Command::SetAccess(access),
                Command::Commit { pin, slot },
                Command::ReadSlot(slot),
            ],
            Self::Remove { slot } => {
                vec![Command::Status(Ask::Lock), Command::Clear(slot), Command::ReadSlot(slot)]
            }
        }
    }

    /// Whether the slot shows what it would hold.
    pub(super) fn is_shown(&self, holds: &Held) -> bool {
        match self {
            Self::Put { pin, .. } => matches!(holds, Held::Pin(held) if held == pin),
            Self::Remove { .. } => *holds == Held::Nothing,
        }
    }

    /// Whether nothing of it follows this command but the look at the slot.
    pub(super) fn ends_with(&self, command: &Command) -> bool {
        match self {
            Self::Put { .. } => matches!(command, Command::Commit { .. }),
            Self::Remove { .. } => matches!(command, Command::Clear(_)),
        }
    }
}

impl Task {
    /// The commands for it, in their order. More of a log is asked for as long as there is some.
    pub(super) fn plan(&self) -> Vec<Command> {
        match self {
            Self::Look { battery: false } => vec![Command::Status(Ask::Lock)],
            Self::Look { battery: true } => {
                vec![Command::Status(Ask::Lock), Command::Status(Ask::Battery)]
            }
            Self::Read(slots) => slots.iter().copied().map(Command::ReadSlot).collect(),
            Self::Change(change) => change.plan(),
            Self::Prove(change, _) => vec![Command::ReadSlot(change.slot())],
            Self::Move(Motion::Unlock) => vec![Command::Status(Ask::Lock), Command::Unlock],
            Self::Move(Motion::Lock) => vec![Command::Status(Ask::Lock), Command::Lock],
            Self::Log { at_most: 0 } => vec![],
            Self::Log { .. } => vec![Command::PopActivity],
        }
    }
}
