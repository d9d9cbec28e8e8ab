//! What the first card of each room's stay was, as long as this process remembers it.
//!
//! A further card that is to be just like it is a duplicate: the service then holds it for the same stay. Any other one
//! joins with rights and dates of its own. Whoever remembers nothing does the latter, which is never wrong.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::civil::DateTime;

/// The first cards, by room.
#[derive(Debug, Default)]
pub(super) struct FirstCards(Mutex<BTreeMap<String, FirstCard>>);

/// A card that began a stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FirstCard {
    /// The service's name for the stay.
    pub reservation: String,
    /// Whether it opens from the beginning.
    pub opens_at_once: bool,
    /// Until when.
    pub check_out: DateTime,
    /// The pass levels of its common areas.
    pub common: Vec<u16>,
}

impl FirstCards {
    /// It was written.
    pub(super) fn note(&self, room: &str, card: FirstCard) {
        self.all().insert(room.to_owned(), card);
    }

    /// What the room's stay is like may change now.
    pub(super) fn forget(&self, room: &str) {
        self.all().remove(room);
    }

    /// Whether a further card is just like the first one.
    pub(super) fn has(&self, room: &str, card: &FirstCard) -> bool {
        card.opens_at_once && self.all().get(room) == Some(card)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, FirstCard>> {
        // Each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
