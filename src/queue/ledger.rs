//! The door ledger: which stay the lock of a room follows, and what a card may therefore do. Pure: no SQL, no clock.
//!
//! Lock systems copy "the stay in the room" as their server sees it. A card that begins a stay kills the room's older
//! cards once it is used; a card that joins opens for whichever stay was begun last. So a join needs to know whose
//! stay that is, and a beginning must not happen twice for one reservation by itself: only a card that is ordered to
//! begin its stay again does so, where a join would be right too. What cannot be known is refused by name, before any
//! byte.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Sharing;
use crate::model::{
    Code, DoorName, JobId, Order, Refusal, ReservationKey, RoomState, StayCards, SystemName, Treatment,
};

/// How long a card that was read proves which stay a shared room has.
const PROOF: SignedDuration = SignedDuration::from_mins(10);
/// Printed ends kept of one stay; a later card pushes out the oldest.
pub(super) const PRINTED_ENDS: usize = 16;
/// Unsettled beginnings kept on top of each other in one room. Below the last, the room counts as never seen.
const DOUBTS: usize = 8;

/// What is known about one room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Room {
    /// The stay of the last beginning that the lock system accepted, or may have accepted.
    pub(super) holder: Option<ReservationKey>,
    /// Whether that is certain.
    pub(super) certain: bool,
    /// Since when.
    pub(super) since: Timestamp,
    /// How many cards of the stay were written.
    pub(super) cards: u32,
    /// The ends printed on them, by which a card is known again.
    pub(super) printed_ends: Vec<Timestamp>,
    /// When a live card of the stay was last read, with no other job in the room since.
    pub(super) verified_at: Option<Timestamp>,
    /// The job that is at work in the room.
    pub(super) at_work: Option<JobId>,
    /// The job that may have changed whose room it is.
    pub(super) doubt: Option<Doubt>,
    /// When the lock system said that the room has no stay although this one should hold it: somebody else checked it
    /// out, or gave it to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) changed_elsewhere: Option<Timestamp>,
    /// The chips that cards of the stay were written on here, by which the lock system's own list knows them. No copy of
    /// the ledger has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) chips: Vec<String>,
}

/// A change that is not settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Doubt {
    job_id: JobId,
    change: Change,
    before: Box<Room>,
}

/// What a job does to whose room it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// The reservation's stay begins.
    Begin,
    /// The stay goes on.
    Keep,
    /// The room becomes free.
    Free,
}

/// A room of an order, with what is known about it.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) name: DoorName,
    pub(super) room: Room,
    /// Whether the order's reservation began a stay here since the room was last free.
    pub(super) was_here: bool,
}

/// What an order will do to its rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) treatment: Treatment,
    /// In the order of the doors.
    pub(super) changes: Vec<Change>,
    /// Whether it rests on the site's word that nobody else makes cards.
    pub(super) assumed: bool,
    /// Where the driver has to see in the lock system's own list that the stay goes on: what is known of its cards.
    pub(super) to_see: Option<StayCards>,
}

/// How a job's work in its rooms ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// It was done, with so many cards and this end printed on them.
    Done { cards: u32, printed_end: Option<Timestamp> },
    /// It was not done, and that is certain.
    NotDone,
    /// It was not done, because the lock system has no stay in the room.
    NoStay,
    /// It may have been done.
    Unclear,
}

/// The rooms whose stay an order touches, each once. `admitted` are those that the driver found on a card.
pub(super) fn rooms_of(order: &Order, admitted: &[DoorName]) -> Vec<DoorName> {
    let named: Vec<&DoorName> = match order {
        Order::CardEncode(_) => admitted.iter().collect(),
        Order::StayModify(stay) => [&stay.room].into_iter().chain(&stay.to_room).collect(),
        Order::StayCheckout { room, .. } => vec![room],
        Order::CardRead(_)
        | Order::SlotPut(_)
        | Order::SlotRemove { .. }
        | Order::DeviceUnlock { .. }
        | Order::DeviceRead { .. }
        | Order::InventoryRefresh => Vec::new(),
    };
    let mut rooms: Vec<DoorName> = Vec::with_capacity(named.len());
    for room in named {
        if !rooms.contains(room) {
            rooms.push(room.clone());
        }
    }
    rooms
}

/// The reservation in whose name an order works.
pub(super) fn reservation_of(order: &Order) -> Option<&ReservationKey> {
    match order {
        Order::CardEncode(card) => card.reservation_key.as_ref(),
        Order::StayModify(stay) => Some(&stay.reservation_key),
        Order::StayCheckout { reservation_key, .. } => Some(reservation_key),
        Order::CardRead(_)
        | Order::SlotPut(_)
        | Order::SlotRemove { .. }
        | Order::DeviceUnlock { .. }
        | Order::DeviceRead { .. }
        | Order::InventoryRefresh => None,
    }
}

/// Decides what an order does to its rooms; `doors` are those of [`rooms_of`].
///
/// # Errors
/// The named refusal, when it must not be done.
pub(super) fn plan(order: &Order, doors: &[Door], sharing: Sharing, now: Timestamp) -> Result<Plan, Refusal> {
    let Some((main, others)) = doors.split_first() else {
        return Ok(Plan { treatment: Treatment::Plain, changes: Vec::new(), assumed: false, to_see: None });
    };
    let Some(key) = reservation_of(order) else {
        return Err(key_required(&main.name));
    };
    let sharing = match (sharing, order) {
        (Sharing::Listed, Order::CardEncode(_)) => Sharing::Listed,
        // Nobody looks before anything but a card.
        (Sharing::Listed, _) => Sharing::Shared,
        (other, _) => other,
    };
    let keeps = |door: &Door| keep(key, door, sharing, now);
    let begins_again = matches!(order, Order::CardEncode(card) if card.begin_again);
    let enters = |door: &Door| {
        if is_first(key, door) {
            return Ok(Change::Begin);
        }
        keeps(door)?;
        // Where nobody else makes cards, a stay that the lock system has lost may only begin again.
        let begins = begins_again || door.room.changed_elsewhere.is_some();
        Ok(if begins { Change::Begin } else { Change::Keep })
    };
    let first = match order {
        Order::StayCheckout { .. } => keeps(main).map(|()| Change::Free)?,
        Order::StayModify(_) if others.is_empty() => keeps(main).map(|()| Change::Keep)?,
        Order::StayModify(_) => keeps(main).map(|()| Change::Free)?,
        _ => enters(main)?,
    };
    let mut changes = vec![first];
    for door in others {
        changes.push(enters(door)?);
    }
    let treatment = match order {
        Order::CardEncode(_) if changes.iter().any(|change| *change != first) => {
            return Err(Refusal::new(
                Code::RoomStatesDiffer,
                "one card cannot begin a stay in one room and join it in another: make a card for each",
            ));
        }
        Order::CardEncode(_) if first == Change::Begin => Treatment::Override,
        Order::CardEncode(_) => Treatment::Join,
        _ => Treatment::Plain,
    };
    let goes_on = !doors.iter().all(|door| is_first(key, door));
    let assumed = sharing == Sharing::AssumeUnchanged && goes_on;
    let to_see = (sharing == Sharing::Listed && goes_on)
        .then(|| StayCards { chips: main.room.chips.clone(), printed_ends: main.room.printed_ends.clone() });
    Ok(Plan { treatment, changes, assumed, to_see })
}

/// A card for a room that follows reservations must say whose stay it is.
pub(super) fn key_required(room: &DoorName) -> Refusal {
    Refusal::new(
        Code::ReservationKeyRequired,
        format!("room {room} follows reservations: the card needs a reservation_key"),
    )
}

/// Whether a card would be the reservation's first in a room.
fn is_first(key: &ReservationKey, door: &Door) -> bool {
    !door.was_here && door.room.holder.as_ref() != Some(key)
}

/// Whether the room certainly follows this reservation now.
fn keep(key: &ReservationKey, door: &Door, sharing: Sharing, now: Timestamp) -> Result<(), Refusal> {
    let Door { name, room, .. } = door;
    let unknown = |message| Err(Refusal::new(Code::RoomStateUnknown, message));
    let is_other = room.holder.as_ref() != Some(key);
    if is_other && (room.certain || !door.was_here) {
        return Err(Refusal::new(
            Code::RoomHeldByOtherReservation,
            format!("room {name} does not follow this reservation now"),
        ));
    }
    if !room.certain {
        return unknown(format!(
            "nobody knows which stay room {name} follows: read a live card of the stay, or have the doubtful job \
             resolved"
        ));
    }
    if room.changed_elsewhere.is_some() && sharing != Sharing::Exclusive {
        return unknown(format!(
            "the lock system has no stay of this reservation in room {name} any more: somebody else changed it. Read a \
             live card of the stay, or give the guest a new reservation"
        ));
    }
    let is_proven = room.verified_at.is_some_and(|at| now.duration_since(at).abs() <= PROOF);
    match sharing {
        Sharing::Exclusive | Sharing::AssumeUnchanged => Ok(()),
        Sharing::Listed if room.chips.is_empty() => unknown(format!(
            "others make cards for room {name} too, and this site does not know the chip of any card of this stay: give \
             the guest a new reservation"
        )),
        Sharing::Listed => Ok(()),
        Sharing::Shared if is_proven => Ok(()),
        Sharing::Shared => unknown(format!(
            "others make cards for room {name} too: read a live card of this stay first, then try again within ten \
             minutes"
        )),
    }
}

impl Room {
    /// A room of which nothing is known.
    pub(super) fn unseen(now: Timestamp) -> Self {
        Self {
            holder: None,
            certain: false,
            since: now,
            cards: 0,
            printed_ends: Vec::new(),
            verified_at: None,
            at_work: None,
            doubt: None,
            changed_elsewhere: None,
            chips: Vec::new(),
        }
    }

    fn free(since: Timestamp) -> Self {
        Self { certain: true, ..Self::unseen(since) }
    }

    /// The row while a job is at work.
    pub(super) fn sent(
        mut self,
        job_id: JobId,
        key: &ReservationKey,
        change: Change,
        now: Timestamp,
    ) -> Self {
        let (holder, cards, printed_ends, chips) = match change {
            Change::Keep => {
                self.at_work = Some(job_id);
                return self;
            }
            Change::Begin => (Some(key.clone()), 0, Vec::new(), Vec::new()),
            Change::Free => (self.holder.clone(), self.cards, self.printed_ends.clone(), self.chips.clone()),
        };
        self.keep_doubts(DOUBTS - 1);
        Self {
            holder,
            certain: false,
            since: now,
            cards,
            printed_ends,
            verified_at: None,
            at_work: Some(job_id),
            changed_elsewhere: self.changed_elsewhere.filter(|_| change == Change::Free),
            chips,
            doubt: Some(Doubt { job_id, change, before: Box::new(self) }),
        }
    }

    /// The row after a job's work ended, or after a doubt about it was settled.
    pub(super) fn settle(
        mut self,
        job_id: JobId,
        key: &ReservationKey,
        settled: Settled,
        now: Timestamp,
    ) -> Self {
        let was_at_work = self.at_work == Some(job_id);
        if was_at_work {
            self.at_work = None;
        }
        if settled == Settled::NoStay {
            let mut room = self.settle(job_id, key, Settled::NotDone, now);
            if was_at_work && room.certain && room.holder.as_ref() == Some(key) {
                room.changed_elsewhere = Some(now);
                room.verified_at = None;
            }
            return room;
        }
        match self.doubt.take() {
            Some(doubt) if doubt.job_id == job_id => match (settled, doubt.change) {
                (Settled::NotDone | Settled::NoStay, _) => *doubt.before,
                (Settled::Unclear, _) => Self { doubt: Some(doubt), ..self },
                (Settled::Done { .. }, Change::Free) => Self::free(now),
                (Settled::Done { .. }, Change::Begin | Change::Keep) => {
                    self.certain = true;
                    self.count(settled);
                    self
                }
            },
            Some(doubt) => Self {
                doubt: Some(Doubt {
                    before: Box::new(doubt.before.settle(job_id, key, settled, now)),
                    ..doubt
                }),
                ..self
            },
            None => {
                let still_theirs = self.holder.as_ref() == Some(key);
                match settled {
                    Settled::Done { .. } if still_theirs => self.count(settled),
                    Settled::Unclear if was_at_work => self.verified_at = None,
                    Settled::Done { .. } | Settled::Unclear | Settled::NotDone | Settled::NoStay => {}
                }
                self
            }
        }
    }

    /// Whether the last change that is not settled is this job's, and begins a stay.
    pub(super) fn is_begun_by(&self, job_id: JobId) -> bool {
        let begins = |doubt: &Doubt| doubt.job_id == job_id && doubt.change == Change::Begin;
        self.doubt.as_ref().is_some_and(begins)
    }

    /// The job in doubt whose card a live guest card with this end would be, if it began the stay in this room: what was
    /// here before it is certain and did not have that end.
    pub(super) fn doubted_for(&self, printed_end: Timestamp) -> Option<JobId> {
        let doubt = self.doubt.as_ref().filter(|doubt| doubt.change == Change::Begin)?;
        let before = &doubt.before;
        let is_new = before.certain && !before.printed_ends.contains(&printed_end);
        (is_new && self.at_work.is_none()).then_some(doubt.job_id)
    }

    /// A live guest card with this end was read in the room: the stay is proven if the card is one of it. Says
    /// whether it was.
    pub(super) fn prove(&mut self, printed_end: Timestamp, now: Timestamp) -> bool {
        let is_of_this_stay = self.holder.is_some() && self.printed_ends.contains(&printed_end);
        if !is_of_this_stay || self.at_work.is_some() {
            return false;
        }
        self.certain = true;
        self.verified_at = Some(now);
        self.doubt = None;
        self.changed_elsewhere = None;
        true
    }

    /// A card of this reservation was written on a chip: whatever else the chip was before, it is no more.
    pub(super) fn wrote(&mut self, key: &ReservationKey, chip: &str) {
        if self.certain && self.holder.as_ref() == Some(key) && !self.chips.iter().any(|it| it == chip) {
            if self.chips.len() == PRINTED_ENDS {
                self.chips.remove(0);
            }
            self.chips.push(chip.to_owned());
        }
    }

    /// What was known may be out of date, also what a doubt would fall back to.
    pub(super) fn forget(&mut self) {
        self.certain = false;
        self.verified_at = None;
        if let Some(doubt) = &mut self.doubt {
            doubt.before.forget();
        }
    }

    /// Whether a stay was begun here, or may have been, or the room freed, after a job was sent at this millisecond.
    pub(super) fn has_begun_after(&self, sent_at: Timestamp) -> bool {
        self.since.as_millisecond() > sent_at.as_millisecond()
    }

    /// Whether nobody's stay is in it, and that is certain.
    pub(super) fn is_free(&self) -> bool {
        self.certain && self.holder.is_none()
    }

    pub(super) fn state(&self, system: &SystemName, room: &DoorName) -> RoomState {
        RoomState {
            system: system.clone(),
            room: room.clone(),
            reservation_key: self.holder.clone(),
            certain: self.certain,
            since: self.since,
            cards: self.cards,
            printed_ends: self.printed_ends.clone(),
        }
    }

    fn count(&mut self, settled: Settled) {
        self.verified_at = None;
        let Settled::Done { cards, printed_end } = settled else {
            return;
        };
        self.cards = self.cards.saturating_add(cards);
        if let Some(end) = printed_end
            && !self.printed_ends.contains(&end)
        {
            if self.printed_ends.len() == PRINTED_ENDS {
                self.printed_ends.remove(0);
            }
            self.printed_ends.push(end);
        }
    }

    fn keep_doubts(&mut self, depth: usize) {
        let since = self.since;
        match (&mut self.doubt, depth) {
            (None, _) => {}
            (Some(_), 0) => *self = Self::unseen(since),
            (Some(doubt), _) => doubt.before.keep_doubts(depth - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::testing::*;

    fn door(holder: Option<&str>, certain: bool, was_here: bool) -> Door {
        Door {
            name: DoorName::new("101").unwrap(),
            room: Room { holder: holder.map(key), certain, ..Room::unseen(at(0)) },
            was_here,
        }
    }

    fn planned(order: &Order, doors: &[Door], sharing: Sharing) -> Result<Treatment, Code> {
        plan(order, doors, sharing, at(0)).map(|plan| plan.treatment).map_err(|refusal| refusal.code)
    }

    /// How a card of stay `a` is treated.
    fn treated(doors: &[Door]) -> Result<Treatment, Code> {
        planned(&card(&["101"], "a"), doors, Sharing::Exclusive)
    }

    #[test]
    fn a_card_without_rooms_is_plain_and_one_with_rooms_needs_a_key() {
        assert_eq!(treated(&[]), Ok(Treatment::Plain));
        let mut order = card(&["101"], "a");
        let Order::CardEncode(encode) = &mut order else { unreachable!() };
        encode.reservation_key = None;
        let doors = [door(None, true, false)];
        assert_eq!(planned(&order, &doors, Sharing::Exclusive), Err(Code::ReservationKeyRequired));
    }

    #[test]
    fn a_reservations_first_card_in_a_room_overrides_whatever_is_there() {
        for (holder, certain) in [(None, true), (None, false), (Some("b"), true), (Some("b"), false)] {
            assert_eq!(treated(&[door(holder, certain, false)]), Ok(Treatment::Override));
        }
    }

    #[test]
    fn further_cards_join_only_the_reservations_own_and_certain_stay() {
        assert_eq!(treated(&[door(Some("a"), true, true)]), Ok(Treatment::Join));
        assert_eq!(treated(&[door(Some("a"), false, true)]), Err(Code::RoomStateUnknown));
        assert_eq!(treated(&[door(Some("b"), true, true)]), Err(Code::RoomHeldByOtherReservation));
        assert_eq!(treated(&[door(Some("b"), false, true)]), Err(Code::RoomStateUnknown));
    }

    #[test]
    fn a_card_begins_its_stay_again_only_where_it_could_have_joined_it() {
        let mut order = card(&["101"], "a");
        let Order::CardEncode(encode) = &mut order else { unreachable!() };
        encode.begin_again = true;
        let again = |door: Door, sharing| planned(&order, &[door], sharing);
        let alone = Sharing::Exclusive;
        assert_eq!(again(door(Some("a"), true, true), alone), Ok(Treatment::Override));
        assert_eq!(again(door(Some("a"), false, true), alone), Err(Code::RoomStateUnknown));
        assert_eq!(again(door(Some("b"), true, true), alone), Err(Code::RoomHeldByOtherReservation));
        assert_eq!(again(door(Some("b"), false, true), alone), Err(Code::RoomStateUnknown));
        assert_eq!(again(door(None, true, false), alone), Ok(Treatment::Override));
        assert_eq!(again(door(Some("a"), true, true), Sharing::Shared), Err(Code::RoomStateUnknown));
        let mut read = door(Some("a"), true, true);
        read.room.verified_at = Some(at(0));
        assert_eq!(again(read, Sharing::Shared), Ok(Treatment::Override));
        // Where it is the first in one room and not in the other, it begins in both.
        let doors = [door(Some("a"), true, true), door(None, true, false)];
        assert_eq!(planned(&order, &doors, alone), Ok(Treatment::Override));
        let assumed = |doors: &[Door]| plan(&order, doors, Sharing::AssumeUnchanged, at(0)).unwrap().assumed;
        assert!(assumed(&doors) && !assumed(&doors[1..]));
    }

    #[test]
    fn a_stay_that_began_again_falls_back_to_what_it_was_if_that_was_not_done() {
        let a = key("a");
        let held = Room::unseen(at(0)).sent(id(1), &a, Change::Begin, at(1)).settle(id(1), &a, done(), at(2));
        let sent = held.clone().sent(id(2), &a, Change::Begin, at(3));
        assert_eq!((sent.certain, sent.cards, sent.printed_ends.len()), (false, 0, 0));
        assert_eq!(sent.clone().settle(id(2), &a, Settled::NotDone, at(4)), held);
        let again = sent.clone().settle(id(2), &a, done(), at(4));
        assert_eq!((again.holder.as_ref(), again.certain, again.cards), (Some(&a), true, 1));
        // A card with the same end may be an earlier one: it settles nothing.
        let mut unclear = sent.settle(id(2), &a, Settled::Unclear, at(4));
        assert_eq!(unclear.doubted_for(at(1000)), None);
        assert!(!unclear.prove(at(1000), at(5)) && !unclear.certain);
    }

    #[test]
    fn rooms_that_would_need_different_treatment_are_refused_together() {
        let doors = [door(Some("a"), true, true), door(None, true, false)];
        assert_eq!(treated(&doors), Err(Code::RoomStatesDiffer));
        let doors = [door(Some("a"), true, true), door(Some("b"), true, true)];
        assert_eq!(treated(&doors), Err(Code::RoomHeldByOtherReservation));
    }

    #[test]
    fn on_a_shared_system_a_join_needs_a_live_card_read_within_ten_minutes() {
        let mut door = door(Some("a"), true, true);
        let order = card(&["101"], "a");
        let doors = |door: &Door| [door.clone()];
        assert_eq!(planned(&order, &doors(&door), Sharing::Shared), Err(Code::RoomStateUnknown));
        assert!(plan(&order, &doors(&door), Sharing::AssumeUnchanged, at(0)).unwrap().assumed);
        door.room.verified_at = Some(at(-600));
        assert_eq!(planned(&order, &doors(&door), Sharing::Shared), Ok(Treatment::Join));
        door.room.verified_at = Some(at(-601));
        assert_eq!(planned(&order, &doors(&door), Sharing::Shared), Err(Code::RoomStateUnknown));
    }

    #[test]
    fn where_the_lock_system_lists_cards_whatever_goes_on_is_looked_for_by_the_chips_of_the_stay() {
        let a = key("a");
        let listed = |room: &Room, begin_again| {
            let mut order = card(&["101"], "a");
            let Order::CardEncode(encode) = &mut order else { unreachable!() };
            encode.begin_again = begin_again;
            let door = Door { room: room.clone(), ..door(Some("a"), true, true) };
            let plan = plan(&order, &[door], Sharing::Listed, at(0));
            plan.map(|plan| (plan.treatment, plan.to_see)).map_err(|refusal| refusal.code)
        };
        let mut room =
            Room::unseen(at(0)).sent(id(1), &a, Change::Begin, at(1)).settle(id(1), &a, done(), at(2));
        assert_eq!(listed(&room, false), Err(Code::RoomStateUnknown), "nothing to look for");
        room.wrote(&key("b"), "another's");
        room.wrote(&a, "04AA");
        room.wrote(&a, "04AA");
        let seen = StayCards { chips: vec!["04AA".into()], printed_ends: vec![at(1000)] };
        assert_eq!(listed(&room, false), Ok((Treatment::Join, Some(seen.clone()))));
        assert_eq!(listed(&room, true), Ok((Treatment::Override, Some(seen))));

        let order = card(&["101"], "b");
        let next =
            plan(&order, &[Door { room: room.clone(), ..door(None, true, false) }], Sharing::Listed, at(0));
        assert_eq!(next.unwrap().to_see, None, "a new stay overrides whatever is there");
        let check_out = |sharing| planned(&checkout("101", "a"), &[door(Some("a"), true, true)], sharing);
        assert_eq!(check_out(Sharing::Listed), check_out(Sharing::Shared), "nobody looks before a check-out");

        let begun = room.clone().sent(id(2), &a, Change::Begin, at(3));
        assert_eq!(begun.chips, [""; 0], "its cards are not those of before");
        assert_eq!(begun.settle(id(2), &a, Settled::NotDone, at(4)).chips, ["04AA"]);
        let lost = room.sent(id(3), &a, Change::Keep, at(5)).settle(id(3), &a, Settled::NoStay, at(6));
        assert_eq!(listed(&lost, false), Err(Code::RoomStateUnknown), "somebody else changed it");
    }

    #[test]
    fn only_the_stay_in_the_room_is_checked_out() {
        let checked = |door| planned(&checkout("101", "a"), &[door], Sharing::Exclusive);
        assert_eq!(checked(door(Some("a"), true, true)), Ok(Treatment::Plain));
        assert_eq!(checked(door(Some("a"), false, true)), Err(Code::RoomStateUnknown));
        assert_eq!(checked(door(Some("b"), true, true)), Err(Code::RoomHeldByOtherReservation));
        assert_eq!(checked(door(Some("b"), true, false)), Err(Code::RoomHeldByOtherReservation));
        assert_eq!(checked(door(None, true, false)), Err(Code::RoomHeldByOtherReservation));
    }

    fn done() -> Settled {
        Settled::Done { cards: 1, printed_end: Some(at(1000)) }
    }

    #[test]
    fn a_beginning_is_certain_once_done_and_undone_once_disproven() {
        let (a, b) = (key("a"), key("b"));
        let held = Room::unseen(at(0)).sent(id(1), &a, Change::Begin, at(1)).settle(id(1), &a, done(), at(2));
        assert_eq!((held.holder.as_ref(), held.certain, held.cards), (Some(&a), true, 1));
        let sent = held.clone().sent(id(2), &b, Change::Begin, at(3));
        assert_eq!((sent.holder.as_ref(), sent.certain, sent.cards), (Some(&b), false, 0));
        assert_eq!(sent.clone().settle(id(2), &b, Settled::NotDone, at(4)), held);
        let unclear = sent.settle(id(2), &b, Settled::Unclear, at(4));
        assert!(!unclear.certain && unclear.at_work.is_none());
        assert_eq!(unclear.settle(id(2), &b, Settled::NotDone, at(5)), held);
    }

    #[test]
    fn an_older_doubt_is_settled_beneath_a_newer_one() {
        let (a, b) = (key("a"), key("b"));
        let doubtful = Room::unseen(at(0))
            .sent(id(1), &a, Change::Begin, at(1))
            .settle(id(1), &a, Settled::Unclear, at(2))
            .sent(id(2), &b, Change::Begin, at(3))
            .settle(id(1), &a, done(), at(4));
        assert_eq!(doubtful.holder.as_ref(), Some(&b));
        let back = doubtful.settle(id(2), &b, Settled::NotDone, at(5));
        assert_eq!((back.holder.as_ref(), back.certain), (Some(&a), true));
    }

    #[test]
    fn an_unclear_join_leaves_the_stay_certain_but_no_longer_verified() {
        let a = key("a");
        let mut held =
            Room::unseen(at(0)).sent(id(1), &a, Change::Begin, at(1)).settle(id(1), &a, done(), at(2));
        assert!(held.prove(at(1000), at(3)));
        let joined = held.sent(id(2), &a, Change::Keep, at(4)).settle(id(2), &a, Settled::Unclear, at(5));
        assert!(joined.certain && joined.verified_at.is_none());
        assert_eq!(joined.cards, 1);
        assert_eq!(joined.settle(id(2), &a, done(), at(6)).cards, 2);
    }

    #[test]
    fn a_stay_that_the_lock_system_has_lost_begins_again_where_nobody_else_makes_cards() {
        let a = key("a");
        let held = Room::unseen(at(0)).sent(id(1), &a, Change::Begin, at(1)).settle(id(1), &a, done(), at(2));
        let lost =
            held.clone().sent(id(2), &a, Change::Keep, at(3)).settle(id(2), &a, Settled::NoStay, at(4));
        assert_eq!(
            (lost.holder.as_ref(), lost.certain, lost.changed_elsewhere),
            (Some(&a), true, Some(at(4)))
        );
        let door = |room: &Room| Door { room: room.clone(), ..door(None, true, true) };
        let next = |room: &Room, sharing| planned(&card(&["101"], "a"), &[door(room)], sharing);
        assert_eq!(next(&held, Sharing::Exclusive), Ok(Treatment::Join));
        assert_eq!(next(&lost, Sharing::Exclusive), Ok(Treatment::Override));
        for shared in [Sharing::Shared, Sharing::AssumeUnchanged] {
            assert_eq!(next(&lost, shared), Err(Code::RoomStateUnknown));
        }
        let sent = lost.clone().sent(id(3), &a, Change::Begin, at(5));
        assert_eq!(sent.clone().settle(id(3), &a, Settled::NotDone, at(6)), lost);
        assert_eq!(sent.settle(id(3), &a, done(), at(6)).changed_elsewhere, None);
        // A live card of the stay shows that it is there after all.
        let mut found = lost;
        assert!(found.prove(at(1000), at(7)) && found.changed_elsewhere.is_none());
        assert_eq!(next(&found, Sharing::AssumeUnchanged), Ok(Treatment::Join));
    }

    #[test]
    fn a_card_with_another_end_proves_nothing() {
        let a = key("a");
        let mut room =
            Room::unseen(at(0)).sent(id(1), &a, Change::Begin, at(1)).settle(id(1), &a, done(), at(2));
        room.forget();
        assert!(!room.prove(at(999), at(3)) && !room.certain);
        assert!(room.prove(at(1000), at(3)) && room.certain);
    }

    #[test]
    fn doubts_upon_doubts_stay_bounded() {
        let mut room = Room::unseen(at(0));
        for number in 1..100 {
            let guest = key(&format!("guest {number}"));
            room = room.sent(id(number), &guest, Change::Begin, at(1)).settle(
                id(number),
                &guest,
                Settled::Unclear,
                at(2),
            );
        }
        let mut depth = 0;
        let mut below = &room;
        while let Some(doubt) = &below.doubt {
            depth += 1;
            below = &doubt.before;
        }
        assert_eq!(depth, DOUBTS);
        assert!(below.holder.is_none() && !below.certain);
    }
}
