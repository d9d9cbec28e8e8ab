//! What was written last on each encoder.
//!
//! Nothing in this interface makes an encoder wait until a card is taken away: the next order may be written onto whatever
//! lies there. Two orders in a row would end up on one card, and the first guest would hold nothing. So before a card is
//! written the one that lies there is read, and it has to be another one than the one that was written last. Where that
//! cannot be told, nothing is written.
//!
//! This memory ends with the process. What was said of the cards before stays true: each was written. But the first order
//! at an encoder after a start may be written onto the card that was left there, so a card is to be taken away at once.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::civil::DateTime;

use super::{answer::CardShown, command::MakeCard};
use crate::model::{AccessMethodId, Code, Refusal};

/// What was written last, by encoder.
#[derive(Debug, Default)]
pub(super) struct LastCards(Mutex<BTreeMap<String, LastCard>>);

/// A card as it was ordered, whether or not it is known to have been written.
#[derive(Debug, Clone)]
pub(super) struct LastCard {
    method: AccessMethodId,
    room: String,
    end: DateTime,
    /// Known once the server has said it.
    serial: Option<String>,
}

impl LastCards {
    /// A card is about to be written. Gives the one before it.
    pub(super) fn note(&self, method: AccessMethodId, card: &MakeCard) -> Option<LastCard> {
        let last = LastCard { method, room: card.room.clone(), end: card.end, serial: None };
        self.all().insert(card.encoder.clone(), last)
    }

    /// It was written, on this chip.
    pub(super) fn written(&self, encoder: &str, serial: Option<&str>) {
        if let Some(last) = self.all().get_mut(encoder) {
            last.serial = serial.map(str::to_owned);
        }
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

/// Whether a card that lies on an encoder is the one that was written there last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It is not, or none lies there.
    Another,
    /// It is, or looks like it.
    Same,
    /// It could not be told.
    NotKnown,
}

impl Likeness {
    /// What a person is told at an encoder on which no other card is known to lie.
    pub(super) fn what_to_do(self, encoder: &str) -> String {
        let what = match self {
            Self::Same => "the card that was written last still lies on",
            Self::NotKnown | Self::Another => {
                "it cannot be read whether the card that was written last still lies on"
            }
        };
        format!("{what} encoder {encoder}: take it away, lay down another one, and ask again")
    }
}

impl LastCard {
    /// What a card that was read is: by its chip, or by what stands on it where its chip is not known.
    pub(super) fn likeness(&self, shown: &CardShown) -> Likeness {
        let is_same = match (&self.serial, &shown.serial) {
            (Some(written), Some(read)) => written.eq_ignore_ascii_case(read),
            _ => shown.rooms == [self.room.as_str()] && shown.end == Some(self.end),
        };
        if is_same { Likeness::Same } else { Likeness::Another }
    }

    /// The same of one that could not be read; none where the server speaks of something else.
    pub(super) fn likeness_unread(refusal: &Refusal) -> Option<Likeness> {
        match (refusal.code, refusal.vendor_code.as_deref()) {
            (Code::NoCard, _) => Some(Likeness::Another),
            // The server has seen what it is: nothing that anybody could use.
            (Code::BadCard, Some("RC17" | "RC43" | "RC70")) => Some(Likeness::Another),
            (Code::BadCard, _) => Some(Likeness::NotKnown),
            _ => None,
        }
    }
}
