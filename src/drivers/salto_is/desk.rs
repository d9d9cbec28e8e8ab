//! What was written last on each encoder.
//!
//! An encoder that does not wait until a card is taken away (`wait_for_removal = false`) writes the next order onto
//! whatever lies there: two orders in a row would end up on one card, and the first guest would hold nothing. So the
//! card that lies there is read first, and it has to be another one. Where the encoder waits by itself nothing is read.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::civil;

use super::{answer::CardShown, command::WriteCard};
use crate::model::AccessMethodId;

/// What was written last, by encoder.
#[derive(Debug, Default)]
pub(super) struct LastCards(Mutex<BTreeMap<String, LastCard>>);

/// A card as it was ordered, whether or not it is known to have been written.
#[derive(Debug, Clone)]
pub(super) struct LastCard {
    method: AccessMethodId,
    rooms: Vec<String>,
    expiry: Option<civil::DateTime>,
}

impl LastCards {
    /// A card is about to be written. Gives the one before it.
    pub(super) fn note(&self, method: AccessMethodId, card: &WriteCard) -> Option<LastCard> {
        let last = LastCard { method, rooms: card.rooms.clone(), expiry: card.expiry };
        self.all().insert(card.encoder.clone(), last)
    }

    /// Nothing of it was written: the one before it is the last, and may still lie there.
    pub(super) fn take_back(&self, encoder: &str, before: Option<LastCard>) {
        let mut all = self.all();
        match before {
            Some(before) => drop(all.insert(encoder.to_owned(), before)),
            None => drop(all.remove(encoder)),
        }
    }

    /// The card that must not lie on an encoder when one for `method` is to be written; one's own may be written again.
    pub(super) fn before(&self, encoder: &str, method: AccessMethodId) -> Option<LastCard> {
        self.all().get(encoder).filter(|last| last.method != method).cloned()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, LastCard>> {
        // Each change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LastCard {
    /// Whether a card that was read looks like it.
    pub(super) fn is(&self, shown: &CardShown) -> bool {
        match shown {
            CardShown::Guest(card) => card.rooms == self.rooms && card.expiry == self.expiry,
            CardShown::Staff | CardShown::Invalid | CardShown::Other(_) => false,
        }
    }
}
