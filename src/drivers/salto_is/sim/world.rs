//! What is true on the property: the server's database, the cards, the encoders, and what each offline lock has seen.
//! Knows no clock, no line and no task; every answer follows from its own state and the time it is given.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{ToSpan, civil::DateTime};

use super::{
    cards::{Card, Content, Copied, Guest, Kind, Shut},
    command::{Dates, Encode, Modify, symbols, written},
    property::Property,
};

/// What the server answers instead of success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denial {
    pub code: &'static str,
    /// Only `EG` carries one on the wire.
    pub text: &'static str,
}

/// Every code a server may answer.
pub(super) const CODES: [&str; 15] =
    ["ES", "NC", "NF", "OV", "EP", "EF", "TD", "ED", "EA", "OS", "EO", "EN", "EV", "EG", "WE"];

fn denied(code: &'static str, text: &'static str) -> Denial {
    Denial { code, text }
}

/// Why a hand cannot do what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HandError {
    #[error("there is no {what} {name:?}")]
    Missing { what: &'static str, name: String },
    #[error("card {card:?} already lies on encoder {encoder:?}")]
    Occupied { encoder: String, card: String },
    #[error("card {0:?} exists already and is what it is")]
    Exists(String),
}

#[derive(Debug, Default)]
pub(super) struct Room {
    /// Stays are numbered per room, over its whole life.
    pub last_stay: u64,
    /// The stay the server believes in; none when checked out.
    pub stay: Option<Stay>,
    /// The newest stay the lock has seen on a card.
    pub lock: u64,
    pub out_of_service: bool,
}

#[derive(Debug)]
pub(super) struct Stay {
    pub number: u64,
    pub copies: u32,
    pub expiry: DateTime,
}

#[derive(Debug, Default)]
pub(super) struct Encoder {
    pub card: Option<String>,
    /// What lies there was worked on and is to be taken away first.
    pub is_ejected: bool,
    /// The rooms being encoded right now; none when idle.
    pub busy: Option<BTreeSet<String>>,
    /// The server does not reach it.
    pub is_away: bool,
}

/// A card made by the server or by the hotel's own desk program.
#[derive(Debug)]
pub(super) struct Made {
    pub card: String,
    pub serial: String,
}

#[derive(Debug)]
pub(super) struct World {
    dates: Dates,
    pub rooms: BTreeMap<String, Room>,
    /// Common doors and their authorisations.
    pub common: BTreeMap<String, u8>,
    pub encoders: BTreeMap<String, Encoder>,
    pub cards: BTreeMap<String, Card>,
    desk_cards: u32,
}

impl World {
    pub(super) fn new(property: &Property, dates: Dates) -> Self {
        let common = property.common.iter();
        Self {
            dates,
            rooms: property.rooms.iter().map(|name| (name.clone(), Room::default())).collect(),
            common: common.map(|door| (door.name.clone(), door.authorisation)).collect(),
            encoders: property.encoders.iter().map(|name| (name.clone(), Encoder::default())).collect(),
            cards: BTreeMap::new(),
            desk_cards: 0,
        }
    }

    /// Everything that is judged before a card is needed. The order of the checks is a choice of ours.
    pub(super) fn admit(&self, encode: &Encode, now: DateTime) -> Result<(), Denial> {
        self.idle(&encode.encoder)?;
        for name in &encode.rooms {
            let Some(room) = self.rooms.get(name) else {
                return Err(denied("TD", "room does not exist"));
            };
            if room.out_of_service {
                return Err(denied("OS", "room out of service"));
            }
            if encode.copy && room.stay.is_none() {
                return Err(denied("EA", "room is checked out"));
            }
        }
        let known: BTreeSet<u8> = self.common.values().copied().collect();
        if !encode.authorisations.is_subset(&known) {
            return Err(denied("ES", "an authorisation that no door has"));
        }
        let elsewhere = |room: &String| {
            let mut encoders = self.encoders.values();
            encoders.any(|encoder| encoder.busy.as_ref().is_some_and(|rooms| rooms.contains(room)))
        };
        if encode.rooms.iter().any(elsewhere) {
            return Err(denied("EO", "guest card is being encoded at another station"));
        }
        let expiry = expiry(encode, now);
        if expiry <= encode.start.unwrap_or(now) {
            return Err(denied("EG", "expiry is not after start"));
        }
        if expiry <= now {
            return Err(denied("EG", "expiry lies in the past"));
        }
        Ok(())
    }

    pub(super) fn idle(&self, encoder: &str) -> Result<(), Denial> {
        match self.encoders.get(encoder) {
            None => Err(denied("NC", "encoder does not answer")),
            Some(encoder) if encoder.is_away => Err(denied("NC", "encoder does not answer")),
            Some(encoder) if encoder.busy.is_some() => Err(denied("OV", "encoder still busy")),
            Some(_) => Ok(()),
        }
    }

    /// Marks an encoder as at work, or as idle again.
    pub(super) fn occupy(&mut self, encoder: &str, rooms: Option<&[String]>) {
        if let Some(encoder) = self.encoders.get_mut(encoder) {
            encoder.busy = rooms.map(|rooms| rooms.iter().cloned().collect());
        }
    }

    /// Takes an encoder off the network, or puts it back.
    pub(super) fn set_away(&mut self, encoder: &str, is_away: bool) -> Result<(), HandError> {
        let it = self.encoders.get_mut(encoder).ok_or_else(|| missing("encoder", encoder))?;
        it.is_away = is_away;
        Ok(())
    }

    pub(super) fn is_busy(&self, encoder: &str) -> bool {
        self.encoders.get(encoder).is_some_and(|it| it.busy.is_some())
    }

    /// The card that an encoder can work on.
    pub(super) fn lying_on(&self, encoder: &str) -> Option<&str> {
        let encoder = self.encoders.get(encoder)?;
        encoder.card.as_deref().filter(|_| !encoder.is_ejected)
    }

    /// Whatever lies there has to be taken away before the encoder works again.
    pub(super) fn eject(&mut self, encoder: &str) {
        if let Some(encoder) = self.encoders.get_mut(encoder) {
            encoder.is_ejected = encoder.card.is_some();
        }
    }

    /// Writes the card that lies there, and only then begins or extends the stay in the database.
    pub(super) fn write(&mut self, encode: &Encode, now: DateTime) -> Result<Made, Denial> {
        let name = self.lying_on(&encode.encoder).ok_or(denied("ED", "no card"))?.to_owned();
        let card = self.cards.get_mut(&name).ok_or(denied("ED", "no card"))?;
        match card.content {
            Content::Other(Kind::Foreign | Kind::Damaged) => {
                return Err(denied("EF", "card of another system, or damaged"));
            }
            Content::Other(Kind::Staff | Kind::Diagnostic) => {
                return Err(denied("EG", "a staff card is not overwritten"));
            }
            Content::Guest(_) | Content::Other(Kind::Blank | Kind::Spare) => {}
        }
        if encode.copy
            && encode.rooms.iter().any(|room| self.rooms.get(room).is_none_or(|it| it.stay.is_none()))
        {
            return Err(denied("EA", "room is checked out"));
        }
        let expiry = expiry(encode, now);
        let mut copies = 0;
        let mut keys = Vec::new();
        for (position, name) in encode.rooms.iter().enumerate() {
            let Some(room) = self.rooms.get_mut(name) else {
                return Err(denied("TD", "room does not exist"));
            };
            let stay = match (&mut room.stay, encode.copy) {
                (Some(stay), true) => {
                    stay.copies += 1;
                    stay
                }
                (stay, _) => {
                    room.last_stay += 1;
                    stay.insert(Stay { number: room.last_stay, copies: 0, expiry })
                }
            };
            if position == 0 {
                copies = stay.copies;
            }
            keys.push((name.clone(), stay.number));
        }
        card.content = Content::Guest(Guest {
            keys,
            start: encode.start.unwrap_or(now),
            expiry,
            authorisations: encode.authorisations.clone(),
            copy: match copies {
                0 => Copied::Original,
                times => Copied::Times(times),
            },
            operator: encode.operator.clone(),
        });
        Ok(Made { serial: card.serial.clone(), card: name })
    }

    /// The fields of a read answer after the encoder.
    pub(super) fn read(&self, encoder: &str, now: DateTime) -> Result<Vec<String>, Denial> {
        let card = self.lying_on(encoder).and_then(|name| self.cards.get(name));
        let guest = match &card.ok_or(denied("ED", "no card"))?.content {
            Content::Guest(guest) => guest,
            Content::Other(kind) => {
                let code = match kind {
                    Kind::Staff => "LM",
                    Kind::Spare => "LR",
                    Kind::Blank => "LD",
                    Kind::Diagnostic => "LS",
                    Kind::Foreign | Kind::Damaged => {
                        return Err(denied("EF", "card of another system, or damaged"));
                    }
                };
                return Ok(vec![code.into()]);
            }
        };
        if guest.expiry <= now {
            return Ok(vec!["LC".into()]);
        }
        let mut fields: Vec<String> = guest.keys.iter().map(|(room, _)| room.clone()).collect();
        fields.resize(4, String::new());
        fields.push(if self.is_current(&guest.keys[0]) { "CI" } else { "CO" }.into());
        fields.push(guest.copy.mark().into());
        fields.push(symbols(&guest.authorisations));
        fields.push(written(guest.start, self.dates));
        fields.push(written(guest.expiry, self.dates));
        fields.push(guest.operator.clone());
        Ok(fields)
    }

    fn is_current(&self, (room, stay): &(String, u64)) -> bool {
        let room = self.rooms.get(room);
        room.and_then(|room| room.stay.as_ref()).is_some_and(|it| it.number == *stay)
    }

    /// Frees a room in the database. Cards and locks know nothing of it.
    pub(super) fn check_out(&mut self, encoder: &str, room: &str) -> Result<(), Denial> {
        if encoder != "0" && !self.encoders.contains_key(encoder) {
            return Err(denied("NC", "encoder does not answer"));
        }
        match self.rooms.get_mut(room) {
            None => Err(denied("TD", "room does not exist")),
            Some(room) => {
                room.stay = None;
                Ok(())
            }
        }
    }

    /// Changes a stay in the database. Offline cards keep the room and the end that are printed on them.
    pub(super) fn modify(&mut self, modify: &Modify, now: DateTime) -> Result<(), Denial> {
        let unknown = || denied("TD", "room does not exist");
        if modify.to.as_ref().is_some_and(|to| !self.rooms.contains_key(to)) {
            return Err(unknown());
        }
        let room = self.rooms.get_mut(&modify.room).ok_or_else(unknown)?;
        let stay = room.stay.as_mut().ok_or(denied("EA", "room is checked out"))?;
        if modify.expiry.is_some_and(|expiry| expiry <= now) {
            return Err(denied("EG", "expiry lies in the past"));
        }
        stay.expiry = modify.expiry.unwrap_or(stay.expiry);
        let expiry = stay.expiry;
        if let Some(to) = &modify.to {
            room.stay = None;
            self.begin_stay(to, expiry);
        }
        Ok(())
    }

    fn begin_stay(&mut self, room: &str, expiry: DateTime) -> Option<u64> {
        let room = self.rooms.get_mut(room)?;
        room.last_stay += 1;
        room.stay = Some(Stay { number: room.last_stay, copies: 0, expiry });
        Some(room.last_stay)
    }

    /// Lays a card on an encoder; a card not known yet is made, blank unless told otherwise.
    pub(super) fn place(&mut self, card: &str, kind: Option<Kind>, encoder: &str) -> Result<(), HandError> {
        let Some(there) = self.encoders.get(encoder) else {
            return Err(missing("encoder", encoder));
        };
        match &there.card {
            Some(other) if other != card => {
                return Err(HandError::Occupied { encoder: encoder.to_owned(), card: other.clone() });
            }
            _ => {}
        }
        match (self.cards.get(card), kind) {
            (Some(known), Some(kind)) if known.content != Content::Other(kind) => {
                return Err(HandError::Exists(card.to_owned()));
            }
            (Some(_), _) => {}
            (None, kind) => self.make(card, Content::Other(kind.unwrap_or(Kind::Blank))),
        }
        self.take_up(card);
        if let Some(encoder) = self.encoders.get_mut(encoder) {
            encoder.card = Some(card.to_owned());
            encoder.is_ejected = false;
        }
        Ok(())
    }

    fn make(&mut self, card: &str, content: Content) {
        let serial = format!("{:014X}", FIRST_SERIAL + self.cards.len() as u64);
        self.cards.insert(card.to_owned(), Card { serial, content });
    }

    /// Takes a card from wherever it lies, and says from which encoder.
    fn take_up(&mut self, card: &str) -> Option<String> {
        self.encoders.iter_mut().find_map(|(name, encoder)| {
            encoder.card.take_if(|lying| lying == card)?;
            Some(name.clone())
        })
    }

    /// Takes what lies on an encoder.
    pub(super) fn remove(&mut self, encoder: &str) -> Result<Option<String>, HandError> {
        let there = self.encoders.get_mut(encoder);
        Ok(there.ok_or_else(|| missing("encoder", encoder))?.card.take())
    }

    /// Holds a card to a door's lock. Only a door that opens learns anything.
    pub(super) fn hold(&mut self, card: &str, door: &str, now: DateTime) -> Result<Held, HandError> {
        if !self.cards.contains_key(card) {
            return Err(missing("card", card));
        }
        if !self.rooms.contains_key(door) && !self.common.contains_key(door) {
            return Err(missing("door", door));
        }
        let taken_from = self.take_up(card);
        let verdict = self.cards.get(card).map_or(Err(Shut::Unreadable), |it| self.judge(it, door, now));
        let mut newer = false;
        if let (Ok(()), Some(it)) = (verdict, self.cards.get_mut(card))
            && let Content::Guest(guest) = &mut it.content
        {
            if let Copied::OneShot { used } = &mut guest.copy {
                *used = true;
            }
            let stay = guest.keys.iter().find(|(room, _)| room == door).map(|(_, stay)| *stay);
            if let (Some(stay), Some(room)) = (stay, self.rooms.get_mut(door)) {
                newer = stay > room.lock;
                room.lock = stay;
            }
        }
        Ok(Held { verdict, newer, taken_from })
    }

    pub(super) fn judge(&self, card: &Card, door: &str, now: DateTime) -> Result<(), Shut> {
        let guest = match &card.content {
            Content::Guest(guest) => guest,
            Content::Other(Kind::Staff) => return Ok(()),
            Content::Other(_) => return Err(Shut::Unreadable),
        };
        let key = guest.keys.iter().find(|(room, _)| room == door);
        let common = self.common.get(door).is_some_and(|n| guest.authorisations.contains(n));
        if key.is_none() && !common {
            return Err(Shut::NotThisDoor);
        }
        if now < guest.start {
            return Err(Shut::NotYet);
        }
        if guest.expiry <= now {
            return Err(Shut::Over);
        }
        if guest.copy == (Copied::OneShot { used: true }) {
            return Err(Shut::UsedUp);
        }
        match (key, self.rooms.get(door)) {
            (Some((_, stay)), Some(room)) if *stay < room.lock => Err(Shut::Superseded),
            _ => Ok(()),
        }
    }

    /// The hotel's own desk program checks somebody in, and makes the card itself.
    pub(super) fn desk_card(&mut self, room: &str, now: DateTime, one_shot: bool) -> Result<Made, HandError> {
        let expiry = now.saturating_add(1.day());
        let current = self.rooms.get(room).and_then(|it| it.stay.as_ref()).map(|stay| stay.number);
        let stay = match current {
            Some(number) if one_shot => Some(number),
            _ => self.begin_stay(room, expiry),
        };
        let stay = stay.ok_or_else(|| missing("room", room))?;
        self.desk_cards += 1;
        let name = format!("desk-{}", self.desk_cards);
        self.make(
            &name,
            Content::Guest(Guest {
                keys: vec![(room.to_owned(), stay)],
                start: now,
                expiry,
                authorisations: BTreeSet::new(),
                copy: if one_shot { Copied::OneShot { used: false } } else { Copied::Original },
                operator: "DESK".into(),
            }),
        );
        Ok(Made {
            serial: self.cards.get(&name).map(|card| card.serial.clone()).unwrap_or_default(),
            card: name,
        })
    }

    pub(super) fn set_out_of_service(&mut self, room: &str, out: bool) -> Result<(), HandError> {
        let it = self.rooms.get_mut(room).ok_or_else(|| missing("room", room))?;
        it.out_of_service = out;
        Ok(())
    }

    pub(super) fn knows_encoder(&self, encoder: &str) -> Result<(), HandError> {
        match self.encoders.contains_key(encoder) {
            true => Ok(()),
            false => Err(missing("encoder", encoder)),
        }
    }
}

/// The serial number of the first card's chip; the others count up.
const FIRST_SERIAL: u64 = 0x04_A1B2_C3D4_E580;

/// A card without an end is good until noon of the day after its start: a choice of ours.
fn expiry(encode: &Encode, now: DateTime) -> DateTime {
    encode.expiry.unwrap_or_else(|| {
        let start = encode.start.unwrap_or(now);
        start.date().saturating_add(1.day()).at(12, 0, 0, 0)
    })
}

fn missing(what: &'static str, name: &str) -> HandError {
    HandError::Missing { what, name: name.to_owned() }
}

/// What came of holding a card to a lock.
#[derive(Debug)]
pub(super) struct Held {
    pub verdict: Result<(), Shut>,
    /// The lock saw this stay for the first time: cards of earlier stays are dead here from now on.
    pub newer: bool,
    pub taken_from: Option<String>,
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn at(day: i8, hour: i8) -> DateTime {
        date(2026, 11, day).at(hour, 0, 0, 0)
    }

    fn encode(copy: bool, rooms: &[&str], common: &[u8]) -> Encode {
        Encode {
            ejects: false,
            said: if copy { "CC" } else { "CN" }.into(),
            copy,
            encoder: "1".into(),
            rooms: rooms.iter().map(ToString::to_string).collect(),
            authorisations: common.iter().copied().collect(),
            start: Some(at(21, 15)),
            expiry: Some(at(24, 11)),
            operator: String::new(),
            serial_wanted: false,
        }
    }

    fn world() -> World {
        World::new(&Property::default(), Dates::Minutes)
    }

    fn make(world: &mut World, card: &str, order: &Encode) {
        world.remove("1").unwrap();
        world.place(card, None, "1").unwrap();
        world.admit(order, at(21, 14)).unwrap();
        world.write(order, at(21, 14)).unwrap();
    }

    fn held(world: &mut World, card: &str, door: &str, now: DateTime) -> Result<(), Shut> {
        world.hold(card, door, now).unwrap().verdict
    }

    #[test]
    fn a_newer_stays_card_kills_the_older_ones_on_first_use_and_not_before() {
        let mut world = world();
        make(&mut world, "ada", &encode(false, &["101"], &[]));
        make(&mut world, "ben", &encode(false, &["101"], &[]));
        assert_eq!(held(&mut world, "ada", "101", at(22, 9)), Ok(()));
        assert_eq!(held(&mut world, "ben", "101", at(22, 9)), Ok(()));
        assert_eq!(held(&mut world, "ada", "101", at(22, 9)), Err(Shut::Superseded));
        assert_eq!(held(&mut world, "ben", "101", at(22, 9)), Ok(()));
    }

    #[test]
    fn a_copy_joins_whatever_stay_the_server_sees_in_the_room() {
        let mut world = world();
        assert_eq!(world.admit(&encode(true, &["101"], &[]), at(21, 14)).unwrap_err().code, "EA");
        make(&mut world, "ada", &encode(false, &["101"], &[]));
        world.desk_card("101", at(21, 14), false).unwrap();
        make(&mut world, "ben", &encode(true, &["101"], &[]));
        assert_eq!(held(&mut world, "ben", "101", at(21, 20)), Ok(()));
        assert_eq!(held(&mut world, "desk-1", "101", at(21, 20)), Ok(()));
        assert_eq!(held(&mut world, "ada", "101", at(21, 20)), Err(Shut::Superseded));
    }

    #[test]
    fn a_card_opens_inside_its_window_only_and_outside_teaches_the_lock_nothing() {
        let mut world = world();
        make(&mut world, "ada", &encode(false, &["101"], &[1]));
        let mut later = encode(false, &["101"], &[]);
        later.start = Some(at(23, 15));
        make(&mut world, "ben", &later);
        assert_eq!(held(&mut world, "ben", "101", at(22, 9)), Err(Shut::NotYet));
        assert_eq!(held(&mut world, "ada", "101", at(22, 9)), Ok(()));
        assert_eq!(held(&mut world, "ada", "101", at(24, 11)), Err(Shut::Over));
        assert_eq!(held(&mut world, "ada", "pool", at(24, 11)), Err(Shut::Over));
    }

    #[test]
    fn common_doors_ask_for_the_authorisation_and_never_override() {
        let mut world = world();
        make(&mut world, "ada", &encode(false, &["101"], &[1, 3]));
        make(&mut world, "ben", &encode(false, &["101"], &[1]));
        assert_eq!(held(&mut world, "ben", "101", at(22, 9)), Ok(()));
        assert_eq!(held(&mut world, "ben", "gym", at(22, 9)), Err(Shut::NotThisDoor));
        assert_eq!(held(&mut world, "ben", "pool", at(22, 9)), Ok(()));
        assert_eq!(held(&mut world, "ada", "pool", at(22, 9)), Ok(()));
        assert_eq!(held(&mut world, "ada", "101", at(22, 9)), Err(Shut::Superseded));
    }

    #[test]
    fn a_check_out_frees_the_room_but_not_the_card() {
        let mut world = world();
        make(&mut world, "ada", &encode(false, &["101"], &[]));
        world.check_out("0", "101").unwrap();
        assert_eq!(held(&mut world, "ada", "101", at(22, 9)), Ok(()));
        assert_eq!(world.admit(&encode(true, &["101"], &[]), at(22, 9)).unwrap_err().code, "EA");
        world.place("ada", None, "1").unwrap();
        assert_eq!(world.read("1", at(22, 9)).unwrap()[4], "CO");
        assert_eq!(world.check_out("0", "999").unwrap_err().code, "TD");
        assert_eq!(world.check_out("9", "101").unwrap_err().code, "NC");
    }

    #[test]
    fn copies_are_counted_on_the_card() {
        let mut world = world();
        let marks = ["0", "1", "2", "I", "I"];
        for (n, mark) in marks.into_iter().enumerate() {
            make(&mut world, &format!("card{n}"), &encode(n > 0, &["101", "102"], &[]));
            assert_eq!(world.read("1", at(22, 9)).unwrap()[5], mark);
        }
        world.desk_card("101", at(22, 9), true).unwrap();
        world.remove("1").unwrap();
        world.place("desk-1", None, "1").unwrap();
        assert_eq!(world.read("1", at(22, 9)).unwrap()[5], "A");
        assert_eq!(held(&mut world, "desk-1", "101", at(22, 9)), Ok(()));
        assert_eq!(held(&mut world, "desk-1", "101", at(22, 9)), Err(Shut::UsedUp));
    }

    #[test]
    fn each_kind_of_card_is_read_and_overwritten_as_what_it_is() {
        let check = |kind: Kind, read: Result<&str, &str>, overwritten: Option<&str>, opens: bool| {
            let mut world = world();
            world.place("it", Some(kind), "1").unwrap();
            let seen = world.read("1", at(22, 9));
            let seen = seen.as_ref().map(|fields| fields[0].as_str()).map_err(|denial| denial.code);
            assert_eq!(seen, read, "{kind:?}");
            assert_eq!(held(&mut world, "it", "101", at(22, 9)).is_ok(), opens, "{kind:?}");
            world.place("it", None, "1").unwrap();
            let refused = world.write(&encode(false, &["101"], &[]), at(22, 9)).err();
            assert_eq!(refused.map(|denial| denial.code), overwritten, "{kind:?}");
        };
        check(Kind::Blank, Ok("LD"), None, false);
        check(Kind::Spare, Ok("LR"), None, false);
        check(Kind::Staff, Ok("LM"), Some("EG"), true);
        check(Kind::Diagnostic, Ok("LS"), Some("EG"), false);
        check(Kind::Foreign, Err("EF"), Some("EF"), false);
        check(Kind::Damaged, Err("EF"), Some("EF"), false);
    }

    #[test]
    fn what_cannot_be_made_is_denied_before_a_card_is_asked_for() {
        let mut world = world();
        world.set_out_of_service("105", true).unwrap();
        world.occupy("2", Some(&["106".into()]));
        let check = |change: &dyn Fn(&mut Encode), code: &str| {
            let mut order = encode(false, &["101"], &[]);
            change(&mut order);
            assert_eq!(world.admit(&order, at(22, 9)).unwrap_err().code, code);
        };
        check(&|it| it.encoder = "9".into(), "NC");
        check(&|it| it.encoder = "2".into(), "OV");
        check(&|it| it.rooms.push("0101".into()), "TD");
        check(&|it| it.rooms.push("105".into()), "OS");
        check(&|it| it.rooms.push("106".into()), "EO");
        check(&|it| it.authorisations = [62].into(), "ES");
        check(&|it| it.expiry = it.start, "EG");
        check(&|it| (it.start, it.expiry) = (Some(at(19, 0)), Some(at(20, 0))), "EG");
    }

    #[test]
    fn a_moved_stay_leaves_its_room_and_the_printed_card_behind() {
        let mut world = world();
        make(&mut world, "ada", &encode(false, &["101"], &[]));
        let modify = |room: &str, to: Option<&str>, expiry| Modify {
            room: room.into(),
            to: to.map(Into::into),
            expiry,
        };
        world.modify(&modify("101", None, Some(at(26, 11))), at(22, 9)).unwrap();
        assert_eq!(world.rooms()["101"]["stay"]["expiry"], "2026-11-26T11:00:00");
        world.modify(&modify("101", Some("102"), None), at(22, 9)).unwrap();
        assert_eq!(world.rooms()["102"]["stay"]["expiry"], "2026-11-26T11:00:00");
        assert_eq!(held(&mut world, "ada", "102", at(22, 9)), Err(Shut::NotThisDoor));
        assert_eq!(world.modify(&modify("101", None, None), at(22, 9)).unwrap_err().code, "EA");
        assert_eq!(world.modify(&modify("102", Some("x"), None), at(22, 9)).unwrap_err().code, "TD");
    }

    #[test]
    fn a_card_lies_in_one_place_and_an_encoder_holds_one_card() {
        let mut world = world();
        world.place("ada", None, "1").unwrap();
        assert!(matches!(world.place("ben", None, "1"), Err(HandError::Occupied { .. })));
        world.place("ada", None, "2").unwrap();
        assert_eq!(world.lying_on("1"), None);
        assert_eq!(world.hold("ada", "101", at(22, 9)).unwrap().taken_from.as_deref(), Some("2"));
        assert!(matches!(world.place("ada", Some(Kind::Staff), "1"), Err(HandError::Exists(_))));
        assert!(matches!(world.place("ada", None, "9"), Err(HandError::Missing { .. })));
        assert!(matches!(world.hold("zoe", "101", at(22, 9)), Err(HandError::Missing { .. })));
        assert!(matches!(world.hold("ada", "bar", at(22, 9)), Err(HandError::Missing { .. })));
    }
}
