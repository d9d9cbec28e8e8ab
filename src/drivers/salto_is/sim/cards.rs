//! Cards, and why a lock refuses one.

use std::{collections::BTreeSet, fmt};

use jiff::civil::DateTime;

/// A piece of plastic.
#[derive(Debug)]
pub(super) struct Card {
    pub serial: String,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Guest(Guest),
    Other(Kind),
}

/// Cards that no encode command of ours made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Blank,
    Staff,
    Spare,
    Diagnostic,
    Foreign,
    Damaged,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::Blank, Self::Staff, Self::Spare, Self::Diagnostic, Self::Foreign, Self::Damaged];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Staff => "staff",
            Self::Spare => "spare",
            Self::Diagnostic => "diagnostic",
            Self::Foreign => "foreign",
            Self::Damaged => "damaged",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guest {
    /// The main room first, each with the stay it was made for.
    pub keys: Vec<(String, u64)>,
    pub start: DateTime,
    pub expiry: DateTime,
    pub authorisations: BTreeSet<u8>,
    pub copy: Copied,
    pub operator: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    Original,
    Times(u32),
    OneShot { used: bool },
}

impl Copied {
    pub(super) fn mark(self) -> &'static str {
        match self {
            Self::Original => "0",
            Self::Times(1) => "1",
            Self::Times(2) => "2",
            Self::Times(_) => "I",
            Self::OneShot { .. } => "A",
        }
    }
}

/// Why a lock stays shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shut {
    NotThisDoor,
    Superseded,
    NotYet,
    Over,
    UsedUp,
    Unreadable,
}

impl Shut {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::NotThisDoor => "not_this_door",
            Self::Superseded => "superseded",
            Self::NotYet => "not_yet_valid",
            Self::Over => "expired",
            Self::UsedUp => "used_up",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotThisDoor => "the card was not made for this door",
            Self::Superseded => "the lock has seen a card of a newer stay",
            Self::NotYet => "the card is not valid yet",
            Self::Over => "the card has expired",
            Self::UsedUp => "the card opens once, and has",
            Self::Unreadable => "the lock cannot read this card",
        })
    }
}
