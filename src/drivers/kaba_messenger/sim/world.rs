//! What is true on the property: the stays, the cards, the encoders, and what each offline lock has seen. Knows no clock,
//! no line and no task; every answer follows from its own state and the time it is given.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{ToSpan, civil::DateTime, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::wire::{How, Rights, StayName};

/// The property that the simulator pretends to serve.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Property {
    /// IANA zone of the property: all times on the wire and on cards are local.
    pub time_zone: String,
    /// Guest rooms.
    pub rooms: Vec<String>,
    /// Common areas.
    pub common: Vec<CommonArea>,
    /// Registered numbers of the encoders.
    pub encoders: Vec<String>,
    /// The PMS user.
    pub user: String,
    /// The PMS user's password.
    pub password: String,
}

/// A door that many guests may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommonArea {
    /// Its name.
    pub name: String,
    /// Its pass level.
    pub pass_level: u16,
}

impl Default for Property {
    /// Two floors of ten rooms, three common areas, two encoders, in Oslo.
    fn default() -> Self {
        let common = ["pool", "spa", "gym"].into_iter().zip(1..);
        Self {
            time_zone: "Europe/Oslo".into(),
            rooms: (101..=110).chain(201..=210).map(|n| n.to_string()).collect(),
            common: common.map(|(name, pass_level)| CommonArea { name: name.into(), pass_level }).collect(),
            encoders: ["1", "2"].map(String::from).into(),
            user: "pms".into(),
            password: "sesame".into(),
        }
    }
}

/// Why a property cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// Nothing to check in to, or nothing to do it with.
    #[error("a property needs at least one room and one encoder")]
    Empty,
    /// Two doors or two encoders of one name.
    #[error("{0:?} stands there twice")]
    Twice(String),
    /// Not an IANA zone.
    #[error("{0:?} is not an IANA time zone")]
    TimeZone(String),
}

impl Property {
    pub(super) fn check(&self) -> Result<TimeZone, PropertyError> {
        if self.rooms.is_empty() || self.encoders.is_empty() {
            return Err(PropertyError::Empty);
        }
        let doors: Vec<_> = self.rooms.iter().chain(self.common.iter().map(|it| &it.name)).collect();
        for names in [doors, self.encoders.iter().collect()] {
            let mut seen = BTreeSet::new();
            if let Some(twice) = names.into_iter().find(|name| !seen.insert(*name)) {
                return Err(PropertyError::Twice(twice.clone()));
            }
        }
        TimeZone::get(&self.time_zone).map_err(|_| PropertyError::TimeZone(self.time_zone.clone()))
    }

    /// The `[[system]]` section with which an agent's configuration describes this property at `HOST:PORT`; the password
    /// belongs into the file that it names.
    #[must_use]
    pub fn agent_section(&self, system: &str, address: &str, password_file: &str) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let names = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let common: Vec<_> = self
            .common
            .iter()
            .map(|door| format!("{{ name = {}, pass_level = {} }}", quoted(&door.name), door.pass_level))
            .collect();
        format!(
            "[[system]]\nname = {}\nkind = \"kaba_messenger\"\nproduct = \"saflok\"\nexclusive = true\nurl = {}\n\
             user = {}\npassword_file = {}\nencoders = [{}]\nrooms = [{}]\ncommon = [{}]\n",
            quoted(system),
            quoted(&format!("http://{address}/lenspmswebservice/MessengerPMSService.asmx")),
            quoted(&self.user),
            quoted(password_file),
            names(&self.encoders),
            names(&self.rooms),
            common.join(", "),
        )
    }
}

/// What lies or is held somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Blank,
    Foreign,
    Damaged,
    Guest(Guest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Guest {
    reservation: String,
    stay: u64,
    rights: Rights,
}

impl Content {
    fn shown(&self) -> Value {
        match self {
            Self::Blank => json!({ "kind": "blank" }),
            Self::Foreign => json!({ "kind": "foreign" }),
            Self::Damaged => json!({ "kind": "damaged" }),
            Self::Guest(guest) => json!({
                "kind": "guest",
                "reservation": guest.reservation,
                "stay": guest.stay,
                "rights": guest.rights.shown(),
            }),
        }
    }
}

impl Rights {
    fn shown(&self) -> Value {
        json!({ "room": self.room, "start": self.check_in, "end": self.check_out, "common": self.common })
    }
}

#[derive(Debug)]
struct Booking {
    stay: u64,
    rights: Rights,
    is_out: bool,
}

#[derive(Debug, Default)]
struct Room {
    /// The newest stay that a card was made for; none before the first.
    stay: u64,
    /// The newest stay the lock has seen on a card.
    lock: u64,
}

#[derive(Debug, Default)]
pub(super) struct Encoder {
    card: Option<String>,
    pub busy: bool,
    /// The server does not reach it.
    is_away: bool,
}

/// A main reason and a detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denial(pub String, pub String);

fn denied<T>(main: &str) -> Result<T, Denial> {
    Err(Denial(main.into(), "NotApplicable".into()))
}

fn by_encoder<T>(detail: &str) -> Result<T, Denial> {
    Err(Denial("EncoderMsg".into(), detail.into()))
}

#[derive(Debug)]
pub(super) struct World {
    rooms: BTreeMap<String, Room>,
    common: BTreeMap<String, u16>,
    pub encoders: BTreeMap<String, Encoder>,
    /// Terminals with an open command.
    pub terminals: BTreeSet<String>,
    bookings: BTreeMap<String, Booking>,
    cards: BTreeMap<String, Content>,
}

impl World {
    pub(super) fn new(property: &Property) -> Self {
        Self {
            rooms: property.rooms.iter().map(|name| (name.clone(), Room::default())).collect(),
            common: property.common.iter().map(|it| (it.name.clone(), it.pass_level)).collect(),
            encoders: property.encoders.iter().map(|name| (name.clone(), Encoder::default())).collect(),
            terminals: BTreeSet::new(),
            bookings: BTreeMap::new(),
            cards: BTreeMap::new(),
        }
    }

    /// Everything that is judged before a card is needed.
    pub(super) fn admit(
        &self,
        how: &How,
        stay: &StayName,
        encoder: &str,
        now: DateTime,
    ) -> Result<(), Denial> {
        match self.encoders.get(encoder) {
            None => return by_encoder("EncoderNotOnlineOrNotExist"),
            Some(encoder) if encoder.is_away => return by_encoder("EncoderNotOnlineOrNotExist"),
            Some(encoder) if encoder.busy => return by_encoder("EncoderBusy"),
            Some(_) => {}
        }
        match how {
            How::New(rights) => self.admit_rights(rights, now),
            How::Shared(rights) => {
                self.admit_rights(rights, now)?;
                let newest = self.rooms.get(&rights.room).map_or(0, |room| room.stay);
                let lives = |it: &Booking| it.rights.room == rights.room && it.stay == newest && !it.is_out;
                match self.bookings.contains_key(&stay.reservation) {
                    true => denied("ReservationNoInvalid"),
                    false if !self.bookings.values().any(lives) => denied("SharedWithMustHaveExistingStay"),
                    false => Ok(()),
                }
            }
            How::Duplicate => self.live(stay, now).map(drop),
        }
    }

    fn admit_rights(&self, rights: &Rights, now: DateTime) -> Result<(), Denial> {
        if !self.rooms.contains_key(&rights.room) {
            return denied("RoomNumberNotFound");
        }
        if !rights.common.iter().all(|level| self.common.values().any(|known| known == level)) {
            return by_encoder("PassNumberIsInvalid");
        }
        match rights.check_out <= rights.check_in || rights.check_out <= now {
            true => by_encoder("CheckoutDateLessThanSystemDate"),
            false => Ok(()),
        }
    }

    /// A booking that still holds its room.
    fn live(&self, stay: &StayName, now: DateTime) -> Result<&Booking, Denial> {
        let Some(booking) = self.bookings.get(&stay.reservation) else {
            return denied("ReservationNotFound");
        };
        let newest = self.rooms.get(&booking.rights.room).map_or(0, |room| room.stay);
        match () {
            () if booking.is_out => denied("ReservationCheckedOut"),
            () if booking.stay < newest => denied("KeyInstanceNotFound"),
            () if booking.rights.check_out <= now => denied("ReservationHasExpired"),
            () => Ok(booking),
        }
    }

    pub(super) fn lying_on(&self, encoder: &str) -> Option<&str> {
        self.encoders.get(encoder)?.card.as_deref()
    }

    /// Writes the card that lies there.
    pub(super) fn write(
        &mut self,
        how: &How,
        stay: &StayName,
        encoder: &str,
        now: DateTime,
    ) -> Result<String, Denial> {
        let Some(name) = self.lying_on(encoder).map(str::to_owned) else {
            return by_encoder("TimeoutWaitingKey");
        };
        match self.cards.get(&name) {
            Some(Content::Foreign) => return by_encoder("VIP_UNKNOWN_CARD_FORMAT"),
            Some(Content::Damaged) => return by_encoder("KeyMaybeDamaged"),
            Some(Content::Blank | Content::Guest(_)) => {}
            None => return by_encoder("TimeoutWaitingKey"),
        }
        let (number, rights) = match how {
            How::New(rights) | How::Shared(rights) => {
                let Some(room) = self.rooms.get_mut(&rights.room) else {
                    return denied("RoomNumberNotFound");
                };
                room.stay += u64::from(matches!(how, How::New(_)));
                let booking = Booking { stay: room.stay, rights: rights.clone(), is_out: false };
                let number = booking.stay;
                self.bookings.insert(stay.reservation.clone(), booking);
                (number, rights.clone())
            }
            How::Duplicate => {
                let booking = self.live(stay, now)?;
                (booking.stay, booking.rights.clone())
            }
        };
        let guest = Guest { reservation: stay.reservation.clone(), stay: number, rights };
        self.cards.insert(name.clone(), Content::Guest(guest));
        Ok(name)
    }

    pub(super) fn extend(
        &mut self,
        stay: &StayName,
        check_out: DateTime,
        now: DateTime,
    ) -> Result<(), Denial> {
        self.live(stay, now)?;
        if check_out <= now {
            return by_encoder("CheckoutDateLessThanSystemDate");
        }
        if let Some(booking) = self.bookings.get_mut(&stay.reservation) {
            booking.rights.check_out = check_out;
        }
        Ok(())
    }

    pub(super) fn check_out(&mut self, stay: &StayName, now: DateTime) -> Result<(), Denial> {
        self.live(stay, now)?;
        if let Some(booking) = self.bookings.get_mut(&stay.reservation) {
            booking.is_out = true;
        }
        Ok(())
    }

    /// Ends every stay in a room, whoever's it is.
    pub(super) fn cancel_room(&mut self, room: &str) -> Result<(), Denial> {
        let Some(newest) = self.rooms.get(room).map(|room| room.stay) else {
            return denied("RoomNumberNotFound");
        };
        let lives = |it: &&mut Booking| it.rights.room == room && it.stay == newest && !it.is_out;
        for booking in self.bookings.values_mut().filter(lives) {
            booking.is_out = true;
        }
        Ok(())
    }

    /// Lays a card on an encoder; a card not known yet is made.
    pub(super) fn place(&mut self, card: &str, kind: Option<&str>, encoder: &str) -> Result<(), String> {
        let there = self.encoders.get(encoder).ok_or_else(|| format!("there is no encoder {encoder:?}"))?;
        if let Some(other) = there.card.as_deref().filter(|other| *other != card) {
            return Err(format!("card {other:?} already lies on encoder {encoder:?}"));
        }
        let content = match kind {
            None | Some("blank") => Content::Blank,
            Some("foreign") => Content::Foreign,
            Some("damaged") => Content::Damaged,
            Some(_) => return Err("KIND is blank, foreign or damaged".into()),
        };
        if kind.is_some() && self.cards.contains_key(card) {
            return Err(format!("card {card:?} exists already and is what it is"));
        }
        self.cards.entry(card.to_owned()).or_insert(content);
        self.take_up(card);
        if let Some(encoder) = self.encoders.get_mut(encoder) {
            encoder.card = Some(card.to_owned());
        }
        Ok(())
    }

    fn take_up(&mut self, card: &str) {
        for encoder in self.encoders.values_mut() {
            encoder.card.take_if(|lying| lying == card);
        }
    }

    /// Takes an encoder off the network, or puts it back.
    pub(super) fn set_away(&mut self, encoder: &str, is_away: bool) -> Result<(), String> {
        let it = self.encoders.get_mut(encoder).ok_or_else(|| format!("there is no encoder {encoder:?}"))?;
        it.is_away = is_away;
        Ok(())
    }

    /// Takes what lies on an encoder.
    pub(super) fn remove(&mut self, encoder: &str) -> Result<Option<String>, String> {
        let there = self.encoders.get_mut(encoder);
        Ok(there.ok_or_else(|| format!("there is no encoder {encoder:?}"))?.card.take())
    }

    /// Holds a card to a door's lock, and says why it stays shut. Only a door that opens learns anything.
    pub(super) fn hold(
        &mut self,
        card: &str,
        door: &str,
        now: DateTime,
    ) -> Result<Option<&'static str>, String> {
        let it = self.cards.get(card).ok_or_else(|| format!("there is no card {card:?}"))?;
        if !self.rooms.contains_key(door) && !self.common.contains_key(door) {
            return Err(format!("there is no door {door:?}"));
        }
        let shut = self.judge(it, door, now);
        let stay = match it {
            Content::Guest(guest) if guest.rights.room == door => Some(guest.stay),
            _ => None,
        };
        self.take_up(card);
        if let (None, Some(stay), Some(room)) = (shut, stay, self.rooms.get_mut(door)) {
            room.lock = stay;
        }
        Ok(shut)
    }

    fn judge(&self, card: &Content, door: &str, now: DateTime) -> Option<&'static str> {
        let Content::Guest(guest) = card else { return Some("unreadable") };
        let rights = &guest.rights;
        let common = self.common.get(door).is_some_and(|level| rights.common.contains(level));
        match () {
            () if rights.room != door && !common => Some("not_this_door"),
            () if now < rights.check_in => Some("not_yet_valid"),
            () if rights.check_out <= now => Some("expired"),
            () if !common && self.rooms.get(door).is_some_and(|room| guest.stay < room.lock) => {
                Some("superseded")
            }
            () => None,
        }
    }

    /// The hotel's own desk program checks somebody in, and makes the card itself.
    pub(super) fn desk_card(&mut self, room: &str, now: DateTime) -> Result<String, String> {
        let it = self.rooms.get_mut(room).ok_or_else(|| format!("there is no room {room:?}"))?;
        it.stay += 1;
        let rights = Rights {
            check_in: now,
            check_out: now.saturating_add(1.day()),
            guest: "Desk".into(),
            room: room.to_owned(),
            common: Vec::new(),
        };
        let reservation = format!("desk-{}", self.bookings.len() + 1);
        let booking = Booking { stay: it.stay, rights: rights.clone(), is_out: false };
        let guest = Guest { reservation: reservation.clone(), stay: it.stay, rights };
        self.bookings.insert(reservation.clone(), booking);
        self.cards.insert(reservation.clone(), Content::Guest(guest));
        Ok(reservation)
    }

    /// What is on a card, for eyes.
    pub(super) fn shown(&self, card: &str) -> Option<Value> {
        self.cards.get(card).map(Content::shown)
    }

    /// Everything, for eyes: stays, cards, which of them open each door now, encoders.
    pub(super) fn show(&self, now: DateTime) -> Map<String, Value> {
        let card = |(name, card): (&String, &Content)| (name.clone(), card.shown());
        let booking = |(name, it): (&String, &Booking)| {
            (name.clone(), json!({ "stay": it.stay, "is_out": it.is_out, "rights": it.rights.shown() }))
        };
        let openers = |door: &String| {
            let opens = |(name, card): (&String, &Content)| {
                self.judge(card, door, now).is_none().then(|| name.clone())
            };
            (door.clone(), json!(self.cards.iter().filter_map(opens).collect::<Vec<_>>()))
        };
        let encoder =
            |(name, it): (&String, &Encoder)| (name.clone(), json!({ "card": it.card, "busy": it.busy }));
        let mut all = Map::new();
        all.insert("stays".into(), self.bookings.iter().map(booking).collect::<Map<_, _>>().into());
        all.insert("cards".into(), self.cards.iter().map(card).collect::<Map<_, _>>().into());
        let doors = self.rooms.keys().chain(self.common.keys());
        all.insert("doors".into(), doors.map(openers).collect::<Map<_, _>>().into());
        all.insert("encoders".into(), self.encoders.iter().map(encoder).collect::<Map<_, _>>().into());
        all
    }
}
