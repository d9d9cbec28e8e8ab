//! What a conversation with a board is for, and what it tells.

use std::{ops::RangeInclusive, time::Duration};

use jiff::{SignedDuration, civil::DateTime};

pub use crate::drivers::Came;

use super::{
    events::Mark,
    values::{Card, CardNumber, Event, Held, Listener, Status, TimeProfile},
};

/// What to do at a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// See how it is.
    Status,
    /// See its clock, and set it where it is wrong.
    Clock {
        /// What is right when the conversation begins, in the board's local time.
        now: DateTime,
        /// By how much it may be wrong.
        bound: SignedDuration,
    },
    /// Open a door once.
    Open(u8),
    /// Put a card, in place of what is there of it. Profiles that it names must be there: a board lets in whom it has no
    /// profile for.
    PutCard(Card),
    /// Delete a card.
    DeleteCard(CardNumber),
    /// Put time profiles; one that links to another comes before that.
    PutProfiles(Vec<TimeProfile>),
    /// See where it sends events, and have them sent here.
    Listen(Listener),
    /// Read every card.
    List,
    /// See how many cards there are, and what it holds of one.
    See(CardNumber),
    /// Read these time profiles.
    Profiles(RangeInclusive<u8>),
    /// Read what happened behind a mark; without one, all that it remembers.
    Events {
        /// The mark.
        after: Option<Mark>,
        /// So many at most.
        most: u32,
    },
}

/// What a conversation goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// How long the board may take for an answer.
    pub answer_timeout: Duration,
    /// How often a request is sent that is not answered.
    pub tries: u32,
}

impl Default for Manners {
    fn default() -> Self {
        Self { answer_timeout: Duration::from_millis(2500), tries: 3 }
    }
}

/// What a conversation tells on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// How the board is.
    Status(Status),
    /// Its clock is being set.
    ClockOff {
        /// What it shows, less what is right; none if it is not set.
        by: Option<SignedDuration>,
    },
    /// Its events went elsewhere, and are being sent here.
    ListenedElsewhere(Listener),
    /// The command leaves now, or leaves again.
    Leaves,
    /// Its cards.
    Holds {
        /// In the order of its list.
        cards: Vec<Card>,
        /// Whether they are as many as it says it has.
        is_whole: bool,
    },
    /// A card that was asked for.
    Sees {
        /// How many cards it says it has.
        count: u32,
        /// What it holds of that one.
        held: Held,
    },
    /// The time profiles that were asked for, of those that are defined.
    Profiles(Vec<TimeProfile>),
    /// What happened.
    Happened {
        /// Oldest first, without gaps but the lost ones.
        events: Vec<Event>,
        /// So many could not be read any more. A log that began anew does not say how many, and counts as one at least.
        lost: u64,
        /// Where the next reading begins; none while nothing ever happened.
        mark: Option<Mark>,
        /// Whether there is more.
        more: bool,
    },
}
