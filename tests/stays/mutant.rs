//! Broken parts, to show that the judge sees what they break at the doors.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use latchd::{
    cloud::store::Db,
    config::{DoorConfig, SaltoIsConfig},
    drivers::{Driver, Performed, ProgressSink, Work, salto_is::SaltoIs},
    model::{CardEncode, CardSeen, DoorName, Order, Outcome, ReservationKey, Success, Treatment, Window},
    seams::BoxFuture,
    store::{Store, StoreError},
};
use rusqlite::Connection;

use crate::simulated::{
    play,
    spoilt::{Spoils, Spoilt},
};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Nothing.
    None,
    /// A new stay joins the one that is in the room.
    JoinsForANewStay,
    /// A further guest's card begins the stay anew.
    OverridesForAGuest,
    /// After a beginning that ended in doubt, the next card of the stay joins.
    JoinsAfterADoubt,
    /// Common doors are doors of the stay like rooms.
    CommonDoorsAreRooms,
    /// Some cards are made for another room.
    WrongRoom,
    /// Some doubts are reported as success.
    CallsDoubtSuccess,
    /// Cards are good for an hour longer than their grant.
    EndsLate,
    /// Whoever made a card that is read, it was us. The hotel's own desk gives rooms of ours away until the very minute that
    /// is printed on our guests' cards; by its end alone such a card is one of ours, and what joins it opens somebody else's
    /// room.
    TrustsAnEnd,
    /// Another desk's card that opens a room in doubt is taken for ours that may have been written there.
    LetsAForeignCardSettle,
    /// A card that is to begin its stay anew joins it, and the lost one stays good.
    JoinsInPlaceOfALostCard,
    /// The cloud goes on to call cards written that a later one of their stay throws out.
    CallsThrownOutWritten,
    /// The agent keeps grants that are made at its desk to itself.
    KeepsGrantsToItself,
    /// Lock servers are told that stays last an hour longer than they do.
    TellsAnotherEnd,
    /// Lock servers are told once until when the stay in a room is, and never again.
    TellsOneEnd,
}

impl play::Mutant for Mutant {
    const NONE: Self = Self::None;
    const ALL: &'static [Self] = &[
        Self::None,
        Self::JoinsForANewStay,
        Self::OverridesForAGuest,
        Self::JoinsAfterADoubt,
        Self::CommonDoorsAreRooms,
        Self::WrongRoom,
        Self::CallsDoubtSuccess,
        Self::EndsLate,
        Self::TrustsAnEnd,
        Self::LetsAForeignCardSettle,
        Self::JoinsInPlaceOfALostCard,
        Self::CallsThrownOutWritten,
        Self::KeepsGrantsToItself,
        Self::TellsAnotherEnd,
        Self::TellsOneEnd,
    ];
}

pub(super) fn spoil_cloud(mutant: Mutant, db: &mut Db) -> Result<(), StoreError> {
    if mutant == Mutant::CallsThrownOutWritten {
        let spoil = "CREATE TRIGGER IF NOT EXISTS spoil AFTER UPDATE OF is_issued ON card_state
                     WHEN new.is_issued = 0 AND EXISTS
                       (SELECT 1 FROM overridden_card o WHERE o.access_method_id = new.access_method_id)
                     BEGIN UPDATE card_state SET is_issued = 1 WHERE access_method_id = new.access_method_id; END";
        db.connection().execute_batch(spoil)?;
    }
    Ok(())
}

pub(super) fn spoil_queue(mutant: Mutant, connection: &mut Connection) -> Result<(), StoreError> {
    if mutant == Mutant::KeepsGrantsToItself {
        let forget = "CREATE TRIGGER IF NOT EXISTS forget AFTER INSERT ON report WHEN new.revision = 3
                      BEGIN DELETE FROM report WHERE rowid = new.rowid; END";
        connection.execute_batch(forget)?;
    }
    Ok(())
}

/// The driver for a configuration, broken as asked.
pub(super) fn spoil_driver(
    mutant: Mutant,
    config: &SaltoIsConfig,
    start: impl Fn(&SaltoIsConfig) -> Arc<SaltoIs>,
) -> Arc<dyn Driver> {
    let driver = start(config);
    if mutant == Mutant::None {
        return driver;
    }
    let mut worker = Arc::clone(&driver);
    if mutant == Mutant::CommonDoorsAreRooms {
        let mut config = config.clone();
        let common = config
            .common
            .drain(..)
            .map(|door| DoorConfig { name: door.name, display_name: door.display_name });
        config.rooms.extend(common);
        worker = start(&config);
    }
    let rooms = config.rooms.iter().map(|room| room.name.clone()).collect();
    let spoils = Careless {
        mutant,
        rooms,
        doubted: Mutex::default(),
        ends_in_doubt: Mutex::default(),
        begun: Mutex::default(),
    };
    Arc::new(Spoilt { spoils, driver, worker })
}

struct Careless {
    mutant: Mutant,
    rooms: Vec<DoorName>,
    /// Stays that began in doubt.
    doubted: Mutex<BTreeSet<ReservationKey>>,
    /// The ends that cards in doubt would have, by their rooms.
    ends_in_doubt: Mutex<BTreeMap<DoorName, Timestamp>>,
    /// Rooms in which a stay began.
    begun: Mutex<BTreeSet<DoorName>>,
}

impl Careless {
    fn spoil(&self, work: &mut Work) {
        if let (Mutant::TellsAnotherEnd, Order::StayModify(stay)) = (self.mutant, &mut work.order) {
            stay.ends_at += SignedDuration::from_hours(1);
        }
        let Work { order: Order::CardEncode(card), treatment, .. } = work else { return };
        match (self.mutant, *treatment) {
            (Mutant::JoinsForANewStay, Treatment::Override) if self.was_begun(card) => {
                *treatment = Treatment::Join;
            }
            (Mutant::JoinsInPlaceOfALostCard, Treatment::Override) if card.begin_again => {
                *treatment = Treatment::Join;
            }
            (Mutant::OverridesForAGuest, Treatment::Join) => *treatment = Treatment::Override,
            (Mutant::JoinsAfterADoubt, Treatment::Override) if self.was_doubted(card) => {
                *treatment = Treatment::Join;
            }
            (Mutant::WrongRoom, _) => {
                let other = self.rooms.iter().find(|room| !card.doors.contains(room));
                let door = card.doors.iter_mut().find(|door| self.rooms.contains(door));
                if let (Some(other), Some(door)) = (other, door) {
                    *door = other.clone();
                }
            }
            (Mutant::EndsLate, _) => {
                let ends_at = card.window.ends_at().map(|end| end + SignedDuration::from_hours(1));
                card.window = Window::new(card.window.starts_at(), ends_at).unwrap();
            }
            _ => {}
        }
    }

    /// Whether a stay began in one of a card's rooms before. From now on it has.
    fn was_begun(&self, card: &CardEncode) -> bool {
        let mut begun = self.begun.lock().unwrap();
        let rooms: BTreeSet<_> =
            card.doors.iter().filter(|door| self.rooms.contains(door)).cloned().collect();
        let was_begun = !begun.is_disjoint(&rooms);
        begun.extend(rooms);
        was_begun
    }

    /// Whether an order is called done without a word to the lock server.
    fn swallows(&self, order: &Order) -> bool {
        match order {
            Order::StayModify(stay) if self.mutant == Mutant::TellsOneEnd => {
                !self.begun.lock().unwrap().insert(stay.room.clone())
            }
            _ => false,
        }
    }

    /// What is told of a card that was read.
    fn misread(&self, seen: &mut CardSeen) {
        let CardSeen::Guest { rooms, ends_at, made_here, .. } = seen else { return };
        match self.mutant {
            Mutant::TrustsAnEnd => *made_here = Some(true),
            Mutant::LetsAForeignCardSettle if *made_here == Some(false) => {
                let ends = self.ends_in_doubt.lock().unwrap();
                let in_doubt = |room: &String| ends.get(&DoorName::new(room.as_str()).unwrap()).copied();
                if let Some(end) = rooms.first().and_then(in_doubt) {
                    (*made_here, *ends_at) = (Some(true), Some(end));
                }
            }
            _ => {}
        }
    }

    fn was_doubted(&self, card: &CardEncode) -> bool {
        let doubted = self.doubted.lock().unwrap();
        card.reservation_key.as_ref().is_some_and(|key| doubted.contains(key))
    }
}

impl Spoils for Careless {
    fn perform<'a>(
        &'a self,
        worker: &'a dyn Driver,
        mut work: Work,
        progress: &'a ProgressSink,
    ) -> BoxFuture<'a, Performed> {
        Box::pin(async move {
            if self.swallows(&work.order) {
                return Performed::Ended(Outcome::Succeeded(Success::default()));
            }
            self.spoil(&mut work);
            let (key, doors) = match &work.order {
                Order::CardEncode(card) => (card.reservation_key.clone(), card.doors.clone()),
                _ => (None, Vec::new()),
            };
            let printed_end = worker.admit(&work.order).ok().and_then(|admission| admission.printed_end);
            let mut performed = worker.perform(work, progress).await;
            if let Performed::Ended(Outcome::Succeeded(success)) = &mut performed
                && let Some(seen) = &mut success.seen
            {
                self.misread(seen);
            }
            let is_doubt = matches!(performed, Performed::Ended(Outcome::Unknown(_)));
            if is_doubt {
                self.doubted.lock().unwrap().extend(key);
                let ends = doors.into_iter().zip(printed_end.into_iter().cycle());
                self.ends_in_doubt.lock().unwrap().extend(ends);
            }
            if is_doubt && self.mutant == Mutant::CallsDoubtSuccess {
                return Performed::Ended(Outcome::Succeeded(Success::default()));
            }
            performed
        })
    }
}
