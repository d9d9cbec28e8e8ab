//! What must be so at the doors, by what people were told and by what lies in their pockets.
//!
//! Plain and apart from the product's code: it knows who was told "written", which cards exist and when each was made,
//! and how an offline lock behaves, which follows the newest stay that it was shown. It never asks which card was meant
//! to begin a stay or to join one.
//!
//! 1. Once a newer stay's card was used at a room, no older card opens there.
//! 2. A card opens nothing but the doors of its own grant, and those only between its start and its end.
//! 3. Who was told "written" gets in until a newer stay's or a foreign card was used there.
//! 4. Common doors open for all who were told "written".

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, ToSpan, civil::DateTime, tz::TimeZone};

use super::simulated::play;

/// A door: its system's place in the list of systems, and its name there.
pub(super) type Door = (usize, String);
/// A card: the place of the system that it is for, and what it is called there.
pub(super) type Plastic = (usize, String);

/// A guest's grant.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) guest: String,
    /// The stay's name.
    pub(super) stay: String,
    pub(super) rooms: BTreeSet<Door>,
    pub(super) common: BTreeSet<Door>,
    /// Every window that was asked for, the newest last.
    pub(super) windows: Vec<(Timestamp, Timestamp)>,
    pub(super) is_live: bool,
}

/// Whose stay it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stay {
    Guests(String),
    /// Of the hotel's own desk, each a new one.
    Foreign,
}

#[derive(Debug, Default)]
struct Room {
    /// In the order in which their first cards were made.
    stays: Vec<Stay>,
    /// Stays before this one are over as far as the lock server knows: a name that comes again is a new stay.
    first: usize,
    /// The newest stay whose card was used at the lock.
    used: Option<usize>,
    /// When somebody else took the room where the site says that nobody would.
    is_lost: bool,
}

impl Room {
    /// The last place of a stay that is not over.
    fn newest(&self, stay: &Stay) -> Option<usize> {
        (self.first..self.stays.len()).rev().find(|place| self.stays[*place] == *stay)
    }
}

/// A piece of plastic with something on it.
#[derive(Debug)]
enum Card {
    Guests(Written),
    /// Of the hotel's own desk.
    Foreign {
        room: Door,
        place: usize,
    },
}

/// What a card was written with.
#[derive(Debug)]
struct Written {
    grant: usize,
    /// Its start and end in local time, as a lock compares them.
    from: DateTime,
    until: DateTime,
    /// The same as instants.
    window: (Timestamp, Timestamp),
    at: DateTime,
    /// The stay's place in each of its rooms.
    places: BTreeMap<Door, usize>,
    /// Whether a guest was told that it is written.
    is_told: bool,
}

/// What is to be seen at a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    Opens(String),
    StaysShut(String),
    /// Nothing is promised.
    Either,
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Opens(why) => write!(f, "must open, as {why}"),
            Self::StaysShut(why) => write!(f, "must stay shut, as {why}"),
            Self::Either => f.write_str("nothing is promised"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Model {
    zone: TimeZone,
    pub(super) grants: Vec<Grant>,
    cards: BTreeMap<Plastic, Card>,
    rooms: BTreeMap<Door, Room>,
    /// What was promised and seen, and how often.
    pub(super) tally: Tally,
}

/// What was compared with the doors.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) opens: u64,
    pub(super) stays_shut: u64,
    pub(super) superseded: u64,
    pub(super) common: u64,
    /// Grants that were made and taken back at the site, and cards that were written for it.
    pub(super) made_here: u64,
    pub(super) revoked_here: u64,
    pub(super) written_here: u64,
    /// Cards that began their stay anew.
    pub(super) begun_again: u64,
    /// Cards of another desk that were read while one of ours was in doubt.
    pub(super) foreign_at_a_doubt: u64,
    /// Ends that lock servers were told.
    pub(super) ends_told: u64,
    /// Grants, cards and rooms of which both sides and the lock servers said the same in the end.
    pub(super) agreed: u64,
}

impl play::Tally for Tally {
    fn add(&mut self, other: &Self) {
        self.opens += other.opens;
        self.stays_shut += other.stays_shut;
        self.superseded += other.superseded;
        self.common += other.common;
        self.made_here += other.made_here;
        self.revoked_here += other.revoked_here;
        self.written_here += other.written_here;
        self.begun_again += other.begun_again;
        self.foreign_at_a_doubt += other.foreign_at_a_doubt;
        self.ends_told += other.ends_told;
        self.agreed += other.agreed;
    }
}

impl Model {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            grants: Vec::new(),
            cards: BTreeMap::new(),
            rooms: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// An instant as the walls of the house show it.
    pub(super) fn local(&self, at: Timestamp) -> DateTime {
        self.zone.to_datetime(at)
    }

    /// The minute that is printed for a start. Nobody knows which one a lock takes a minute for that comes twice, so that
    /// such a card is printed for the minute before that hour: it may open early, and never late.
    fn printed_start(&self, start: Timestamp) -> DateTime {
        let minute = whole_minute(self.local(start));
        if self.zone.to_ambiguous_zoned(minute).is_ambiguous() {
            return minute.date().at(minute.hour(), 0, 0, 0).saturating_sub(1.minute());
        }
        minute
    }

    /// The minute that is printed for an end. It is the instant that is rounded up: half a minute before the clocks are put
    /// back, the next minute of the walls is an hour later than the next one of time.
    pub(super) fn printed(&self, end: Timestamp) -> DateTime {
        self.local(whole_minutes((end, end)).1)
    }

    /// Whose grant has or had this printed end, and which of its windows.
    pub(super) fn grant_by_end(&self, end: DateTime) -> Option<(usize, (Timestamp, Timestamp))> {
        self.grants.iter().enumerate().find_map(|(number, grant)| {
            let window = grant.windows.iter().find(|(_, until)| self.printed(*until) == end)?;
            Some((number, *window))
        })
    }

    /// A card was written for a grant in one system. `begins_again` where the stay had to begin anew with it, so that those
    /// who have it now need new cards once it is used.
    pub(super) fn wrote(
        &mut self,
        card: &Plastic,
        grant: usize,
        window: (Timestamp, Timestamp),
        at: Timestamp,
        begins_again: bool,
    ) {
        let Grant { stay, rooms, .. } = &self.grants[grant];
        let stay = Stay::Guests(stay.clone());
        let mut places = BTreeMap::new();
        for door in rooms.iter().filter(|(system, _)| *system == card.0) {
            let room = self.rooms.entry(door.clone()).or_default();
            let known = room.newest(&stay).filter(|_| !begins_again);
            let place = known.unwrap_or(room.stays.len());
            if place == room.stays.len() {
                room.stays.push(stay.clone());
            }
            places.insert(door.clone(), place);
        }
        let written = Written {
            grant,
            from: self.printed_start(window.0),
            until: self.printed(window.1),
            window: whole_minutes(window),
            at: self.local(at),
            places,
            is_told: false,
        };
        self.cards.insert(card.clone(), Card::Guests(written));
    }

    /// Until when a card is good that was written for this grant.
    pub(super) fn opens_until(&self, card: &Plastic, grant: usize) -> Option<Timestamp> {
        match self.cards.get(card)? {
            Card::Guests(written) if written.grant == grant => Some(written.window.1),
            Card::Guests(_) | Card::Foreign { .. } => None,
        }
    }

    /// Whether a later card of its own stay throws a card out of a room, or has.
    pub(super) fn is_thrown_out(&self, card: &Plastic) -> bool {
        let Some(Card::Guests(written)) = self.cards.get(card) else { return false };
        let stay = Stay::Guests(self.grants[written.grant].stay.clone());
        let is_older = |(door, place): (&Door, &usize)| {
            let newest = self.rooms.get(door).and_then(|room| room.newest(&stay));
            newest.is_some_and(|newest| *place < newest)
        };
        written.places.iter().any(is_older)
    }

    /// The stay that a room's lock server has there by what was written, if it is one of ours.
    pub(super) fn stay_in(&self, room: &Door) -> Option<&str> {
        let room = self.rooms.get(room)?;
        match room.stays.get(room.first..)?.last()? {
            Stay::Guests(name) if !room.is_lost => Some(name),
            Stay::Guests(_) | Stay::Foreign => None,
        }
    }

    /// When the last of a stay's live grants ends.
    pub(super) fn end_of(&self, stay: &str) -> Option<Timestamp> {
        let live = self.grants.iter().filter(|grant| grant.is_live && grant.stay == stay);
        live.filter_map(|grant| Some(grant.windows.last()?.1)).max()
    }

    /// Whose grant is on a card now.
    pub(super) fn grant_on(&self, card: &Plastic) -> Option<usize> {
        match self.cards.get(card)? {
            Card::Guests(written) => Some(written.grant),
            Card::Foreign { .. } => None,
        }
    }

    /// The guest of a grant was told that this card is written.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn told(&mut self, card: &Plastic, grant: usize) -> Result<(), String> {
        let guest = &self.grants[grant].guest;
        match self.cards.get_mut(card) {
            Some(Card::Guests(written)) if written.grant == grant => {
                written.is_told = true;
                Ok(())
            }
            Some(Card::Guests(written)) => Err(format!(
                "{guest} was told that {} is written, and it is a card of {}",
                card.1, self.grants[written.grant].guest
            )),
            Some(Card::Foreign { .. }) | None => {
                Err(format!("{guest} was told that {} is written, and nothing of the kind is on it", card.1))
            }
        }
    }

    /// A guest no longer has a card: it may open what it opened, and nothing is promised of it.
    pub(super) fn lost(&mut self, card: &Plastic) {
        if let Some(Card::Guests(written)) = self.cards.get_mut(card) {
            written.is_told = false;
        }
    }

    /// The hotel's own desk made a card: for a new guest, or one more of the stay that its lock server has in the room.
    /// `is_lost` where the site had said that it would not.
    pub(super) fn foreign_made(&mut self, card: &Plastic, room: &Door, copies: bool, is_lost: bool) {
        let it = self.rooms.entry(room.clone()).or_default();
        let place = match it.stays.len() {
            last if copies && it.first < last => last - 1,
            next => {
                it.stays.push(Stay::Foreign);
                it.is_lost |= is_lost;
                next
            }
        };
        let made = Card::Foreign { room: room.clone(), place };
        self.cards.insert(card.clone(), made);
    }

    /// The lock server was told that a stay is over. The lock hears nothing of it.
    pub(super) fn freed(&mut self, room: &Door) {
        let room = self.rooms.entry(room.clone()).or_default();
        room.first = room.stays.len();
    }

    /// A card was held to a door and opened it.
    pub(super) fn opened(&mut self, card: &Plastic, door: &Door) {
        let place = match self.cards.get(card) {
            Some(Card::Guests(written)) => written.places.get(door).copied(),
            Some(Card::Foreign { room, place, .. }) => (room == door).then_some(*place),
            None => None,
        };
        if let (Some(place), Some(room)) = (place, self.rooms.get_mut(door)) {
            room.used = room.used.max(Some(place));
        }
    }

    /// All cards with something on them; of those that guests were told of, the grant.
    pub(super) fn cards(&self) -> impl Iterator<Item = (&Plastic, Option<usize>)> {
        self.cards.iter().map(|(name, card)| match card {
            Card::Guests(written) if written.is_told => (name, Some(written.grant)),
            Card::Guests(_) | Card::Foreign { .. } => (name, None),
        })
    }

    /// What holding a card to a door must come to.
    pub(super) fn expected(&self, card: &Plastic, door: &Door, now: Timestamp) -> Expected {
        let shut = |why: String| Expected::StaysShut(why);
        let room = self.rooms.get(door);
        let used = room.and_then(|room| room.used);
        let is_lost = room.is_some_and(|room| room.is_lost);
        let written = match self.cards.get(card) {
            None => return shut("nothing is on it".into()),
            Some(Card::Foreign { room, .. }) if room != door => return Expected::Either,
            Some(Card::Foreign { place, .. }) => {
                return match used {
                    Some(used) if *place < used => shut("a card of a newer stay was used there".into()),
                    _ => Expected::Either,
                };
            }
            Some(Card::Guests(written)) => written,
        };
        let grant = &self.grants[written.grant];
        let is_room = grant.rooms.contains(door);
        if !is_room && !grant.common.contains(door) {
            return shut(format!("it is not a door of {}", grant.guest));
        }
        let local = self.local(now);
        // Printed are minutes of local time, so in the night in which an hour comes twice a card cannot say which of both
        // it means: there nothing is promised.
        let begins = (written.from <= local, written.window.0 <= now);
        let is_over = (written.until <= local, written.window.1 <= now);
        if begins == (false, false) {
            return shut(format!("it begins at {}", written.from));
        }
        if is_over == (true, true) {
            return shut(format!("it ended at {}", written.until));
        }
        if begins != (true, true) || is_over != (false, false) {
            return Expected::Either;
        }
        let place = written.places.get(door).copied();
        if is_room && is_lost {
            return Expected::Either;
        }
        if let (Some(used), Some(place)) = (used, place)
            && place < used
        {
            return shut("a card of a newer stay was used there".into());
        }
        // Where a start had come, the lock server took the minute of writing for it, which a night when the clocks are
        // put back shows twice.
        if !written.is_told || !grant.is_live || local < written.at {
            return Expected::Either;
        }
        let kind = if is_room { "room" } else { "common door" };
        Expected::Opens(format!("{} was told \"written\", and it is a {kind} of theirs", grant.guest))
    }

    /// Compares all cards with what the doors of a system say; `openers` of a door are the cards that would open it.
    pub(super) fn judge(&mut self, door: &Door, openers: &BTreeSet<String>, now: Timestamp) -> Vec<String> {
        let mut wrong = Vec::new();
        let cards: Vec<_> = self.cards.keys().filter(|card| card.0 == door.0).cloned().collect();
        let unknown = openers.iter().filter(|name| !self.cards.contains_key(&(door.0, (*name).clone())));
        wrong.extend(unknown.map(|name| format!("{name} opens {}, and nothing is on it", door.1)));
        for card in cards {
            let (_, name) = &card;
            let opens = openers.contains(name);
            match self.expected(&card, door, now) {
                Expected::Either => {}
                Expected::Opens(why) => {
                    self.tally.opens += 1;
                    self.tally.common += u64::from(!self.rooms.contains_key(door));
                    if !opens {
                        wrong.push(format!("{name} does not open {}: {why}", door.1));
                    }
                }
                Expected::StaysShut(why) => {
                    self.tally.stays_shut += 1;
                    self.tally.superseded += u64::from(why.contains("newer"));
                    if opens {
                        wrong.push(format!("{name} opens {}: {why}", door.1));
                    }
                }
            }
        }
        wrong
    }
}

/// What is printed is rounded to it.
const MINUTE: i64 = 60;

/// The whole minutes of which a window is printed: its start rounded down, its end up.
fn whole_minutes((from, until): (Timestamp, Timestamp)) -> (Timestamp, Timestamp) {
    let at = |minutes: i64| Timestamp::from_second(minutes * MINUTE).unwrap();
    let last = until.as_millisecond() + MINUTE * 1_000 - 1;
    (at(from.as_second().div_euclid(MINUTE)), at(last.div_euclid(MINUTE * 1_000)))
}

fn whole_minute(at: DateTime) -> DateTime {
    at.date().at(at.hour(), at.minute(), 0, 0)
}
