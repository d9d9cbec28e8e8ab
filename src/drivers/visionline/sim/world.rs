//! What is true on the property: the cards, the encoders, and what each offline lock has seen. Knows no clock, no line
//! and no task; every answer follows from its own state and the time it is given.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{ToSpan, civil::DateTime, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::wire::{Make, written};

/// The property that the simulator pretends to serve.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Property {
    /// IANA zone of the property: all times on the wire and on cards are local.
    pub time_zone: String,
    /// Guest rooms.
    pub rooms: Vec<String>,
    /// Common rooms.
    pub common: Vec<CommonRoom>,
    /// PMS addresses of the encoders.
    pub encoders: Vec<String>,
    /// The Web API's user.
    pub web_user: String,
    /// Its password.
    pub web_password: String,
}

/// A door that many guests may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommonRoom {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u16,
}

impl Default for Property {
    /// Two floors of ten rooms, three common rooms, three encoders, in Oslo.
    fn default() -> Self {
        let common = ["pool", "spa", "gym"].into_iter().zip(1..);
        Self {
            time_zone: "Europe/Oslo".into(),
            rooms: (101..=110).chain(201..=210).map(|n| n.to_string()).collect(),
            common: common.map(|(name, number)| CommonRoom { name: name.into(), number }).collect(),
            encoders: ["1", "2", "11"].map(String::from).into(),
            web_user: "bridge".into(),
            web_password: "secret".into(),
        }
    }
}

/// Why a property cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// Nothing to check in to, or nothing to do it with.
    #[error("a property needs at least one room and one encoder")]
    Empty,
    /// A name that the wire cannot carry.
    #[error("{0:?} cannot be a name: it must be plain ASCII without semicolons")]
    Name(String),
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
            for name in names {
                if name.trim().is_empty() || !name.bytes().all(|it| (b' '..=b'~').contains(&it) && it != b';')
                {
                    return Err(PropertyError::Name(name.clone()));
                }
                if !seen.insert(name) {
                    return Err(PropertyError::Twice(name.clone()));
                }
            }
        }
        TimeZone::get(&self.time_zone).map_err(|_| PropertyError::TimeZone(self.time_zone.clone()))
    }

    /// The `[[system]]` section with which an agent's configuration describes this property at `HOST:PORT`; with the Web
    /// API's `HOST:PORT` and the file of its password where it is to be used.
    #[must_use]
    pub fn agent_section(&self, system: &str, address: &str, web: Option<(&str, &str)>) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let names = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let common: Vec<_> = self
            .common
            .iter()
            .map(|door| format!("{{ name = {}, number = {} }}", quoted(&door.name), door.number))
            .collect();
        let web = web.map(|(address, password_file)| {
            let (url, user) = (quoted(&format!("http://{address}")), quoted(&self.web_user));
            format!("web = {{ url = {url}, user = {user}, password_file = {} }}\n", quoted(password_file))
        });
        format!(
            "[[system]]\nname = {}\nkind = \"visionline\"\nexclusive = true\nline = {{ tcp = {} }}\n\
             encoders = [{}]\nrooms = [{}]\ncommon = [{}]\n{}",
            quoted(system),
            quoted(address),
            names(&self.encoders),
            names(&self.rooms),
            common.join(", "),
            web.unwrap_or_default(),
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
    room: String,
    stay: u64,
    joined: bool,
    start: DateTime,
    end: DateTime,
    common: Vec<u16>,
    operator: String,
}

#[derive(Debug)]
struct Card {
    serial: String,
    content: Content,
}

/// What the server wrote down of a card or key when it was made.
#[derive(Debug)]
struct Record {
    guest: Guest,
    created: DateTime,
    /// The chip; none for a telephone.
    serial: Option<String>,
    /// Another card was written on the same chip.
    overwritten: bool,
}

/// A key that a telephone is to have.
#[derive(Debug)]
pub(super) struct Phone {
    pub door: String,
    pub endpoint: String,
    pub start: Option<DateTime>,
    pub end: DateTime,
    pub stands: Stands,
}

/// How it stands to what was made before.
#[derive(Debug)]
pub(super) enum Stands {
    Override,
    Join,
    /// It joins these, by their ids.
    With(Vec<String>),
}

/// The id of the first record; the others count up.
const FIRST_RECORD: usize = 100_060;

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

/// A result code, and a text that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denial(pub u32, pub String);

#[derive(Debug)]
pub(super) struct World {
    rooms: BTreeMap<String, Room>,
    common: BTreeMap<String, u16>,
    pub encoders: BTreeMap<String, Encoder>,
    cards: BTreeMap<String, Card>,
    records: Vec<Record>,
    desk_cards: u32,
}

impl World {
    pub(super) fn new(property: &Property) -> Self {
        Self {
            rooms: property.rooms.iter().map(|name| (name.clone(), Room::default())).collect(),
            common: property.common.iter().map(|it| (it.name.clone(), it.number)).collect(),
            encoders: property.encoders.iter().map(|name| (name.clone(), Encoder::default())).collect(),
            cards: BTreeMap::new(),
            records: Vec::new(),
            desk_cards: 0,
        }
    }

    pub(super) fn idle(&self, encoder: &str) -> Result<(), Denial> {
        match self.encoders.get(encoder) {
            None => Err(Denial(7, "undefined device".into())),
            Some(encoder) if encoder.is_away => Err(Denial(3, "no connection to device".into())),
            Some(encoder) if encoder.busy => Err(Denial(4, "device is processing".into())),
            Some(_) => Ok(()),
        }
    }

    /// Everything that is judged before a card is needed.
    pub(super) fn admit(&self, make: &Make, now: DateTime) -> Result<(), Denial> {
        let refused = |why: &str| Err(Denial(128, why.into()));
        self.idle(&make.encoder)?;
        match self.rooms.get(&make.room) {
            None => return refused("no such room"),
            Some(room) if make.joins && room.stay == 0 => return refused("no card to join"),
            Some(_) => {}
        }
        if !make.common.iter().all(|number| self.common.values().any(|known| known == number)) {
            return refused("no such common room");
        }
        if make.end <= make.start.unwrap_or(now) || make.end <= now {
            return refused("the end is not after the start and now");
        }
        Ok(())
    }

    pub(super) fn lying_on(&self, encoder: &str) -> Option<&str> {
        self.encoders.get(encoder)?.card.as_deref()
    }

    /// Writes the card that lies there, and gives its chip's number.
    pub(super) fn write(&mut self, make: &Make, now: DateTime) -> Result<(String, String), Denial> {
        let none = || Denial(41, "no card was inserted".into());
        let name = self.lying_on(&make.encoder).ok_or_else(none)?.to_owned();
        let card = self.cards.get_mut(&name).ok_or_else(none)?;
        match card.content {
            Content::Foreign => return Err(Denial(17, "card cannot be used".into())),
            Content::Damaged => return Err(Denial(18, "card cannot be written".into())),
            Content::Blank | Content::Guest(_) => {}
        }
        let room = self.rooms.get_mut(&make.room).ok_or(Denial(128, "no such room".into()))?;
        room.stay += u64::from(!make.joins);
        let guest = Guest {
            room: make.room.clone(),
            stay: room.stay,
            joined: make.joins,
            start: make.start.unwrap_or(now),
            end: make.end,
            common: make.common.clone(),
            operator: make.operator.clone(),
        };
        card.content = Content::Guest(guest.clone());
        let serial = card.serial.clone();
        self.write_down(guest, Some(serial.clone()), now);
        Ok((name, serial))
    }

    fn write_down(&mut self, guest: Guest, serial: Option<String>, now: DateTime) {
        for record in self.records.iter_mut().filter(|record| serial.is_some() && record.serial == serial) {
            record.overwritten = true;
        }
        self.records.push(Record { guest, created: now, serial, overwritten: false });
    }

    pub(super) fn has_room(&self, room: &str) -> bool {
        self.rooms.contains_key(room)
    }

    /// All doors as the Web API lists them.
    pub(super) fn doors(&self, details: bool) -> Value {
        let door = |(id, category): (&String, &str)| match details {
            true => json!({ "doorID": id, "doorName": id, "doorCategory": category, "doorGroup": "" }),
            false => json!({ "id": id }),
        };
        let rooms = self.rooms.keys().map(|name| (name, "guest"));
        rooms.chain(self.common.keys().map(|name| (name, "common"))).map(door).collect()
    }

    /// The ids of what was made for a door and is valid at a time, also where something newer was made since.
    pub(super) fn cards_of_door(&self, door: &str, at: DateTime) -> Vec<String> {
        // Times are kept to the minute.
        let begins = |record: &Record| record.guest.start.with().second(0).subsec_nanosecond(0).build();
        self.ids(|record| {
            record.guest.room == door
                && begins(record).is_ok_and(|start| start <= at)
                && at < record.guest.end
        })
    }

    pub(super) fn cards_of_chip(&self, serial: &str) -> Vec<String> {
        let is_it =
            |record: &Record| record.serial.as_deref().is_some_and(|it| it.eq_ignore_ascii_case(serial));
        self.ids(is_it)
    }

    fn ids(&self, wanted: impl Fn(&Record) -> bool) -> Vec<String> {
        let all = self.records.iter().enumerate().filter(|(_, record)| wanted(record));
        all.map(|(at, _)| (FIRST_RECORD + at).to_string()).collect()
    }

    /// What was written down under an id.
    pub(super) fn record(&self, id: &str, now: DateTime) -> Option<Value> {
        let at = id.parse::<usize>().ok()?.checked_sub(FIRST_RECORD)?;
        let Record { guest, created, serial, overwritten } = self.records.get(at)?;
        let written = |at: &DateTime| at.strftime("%Y%m%dT%H%M").to_string();
        let newest = self.rooms.get(&guest.room).map_or(0, |room| room.stay);
        Some(json!({
            "id": id,
            "cardHolder": guest.room,
            "startTime": written(&guest.start),
            "expireTime": written(&guest.end),
            "created": written(created),
            "doorOperations": [{ "doors": [guest.room], "operation": "guest" }],
            "serialNumbers": serial.iter().map(|serial| serial.to_ascii_lowercase()).collect::<Vec<_>>(),
            "format": "rfid48",
            "overridden": guest.stay < newest,
            "overwritten": overwritten,
            "cancelled": false,
            "discarded": false,
            "expired": guest.end <= now,
            "pendingAutoUpdate": false,
        }))
    }

    /// Gives a telephone a key, and says under which id; it is used at doors as the card `phone-ENDPOINT`.
    pub(super) fn phone_key(&mut self, phone: &Phone, now: DateTime) -> Result<String, (u16, &'static str)> {
        if phone.end <= phone.start.unwrap_or(now) || phone.end <= now {
            return Err((400, "the end is not after the start and now"));
        }
        let live = match &phone.stands {
            Stands::With(ids) => ids.iter().all(|id| {
                let card = self.record(id, now);
                card.is_some_and(|card| card["overridden"] == false && card["overwritten"] == false)
            }),
            Stands::Override | Stands::Join => true,
        };
        let room = self.rooms.get_mut(&phone.door).ok_or((404, "no such door"))?;
        let joined = !matches!(phone.stands, Stands::Override);
        if !live || (joined && room.stay == 0) {
            return Err((409, "nothing to join"));
        }
        room.stay += u64::from(!joined);
        let guest = Guest {
            room: phone.door.clone(),
            stay: room.stay,
            joined,
            start: phone.start.unwrap_or(now),
            end: phone.end,
            common: Vec::new(),
            operator: String::new(),
        };
        self.write_down(guest.clone(), None, now);
        let card = Card { serial: String::new(), content: Content::Guest(guest) };
        self.cards.insert(format!("phone-{}", phone.endpoint), card);
        Ok((7000 + self.records.len()).to_string())
    }

    /// The code and the items of an answer to a reading.
    pub(super) fn read(&self, encoder: &str, now: DateTime) -> Result<(u32, Vec<String>, String), Denial> {
        let card = self.lying_on(encoder).and_then(|name| self.cards.get(name));
        let card = card.ok_or(Denial(41, "no card was inserted".into()))?;
        let guest = match &card.content {
            Content::Guest(guest) => guest,
            Content::Blank => return Err(Denial(43, "unusable card".into())),
            Content::Foreign => return Err(Denial(17, "card cannot be used".into())),
            Content::Damaged => return Err(Denial(38, "card could not be read".into())),
        };
        let code = match () {
            () if guest.end <= now => 44,
            () if self.rooms.get(&guest.room).is_some_and(|room| guest.stay < room.stay) => 46,
            () => 13,
        };
        let mut items = vec![
            format!("GR{}", guest.room),
            format!("CI{}", written(guest.start)),
            format!("CO{}", written(guest.end)),
        ];
        if !guest.common.is_empty() {
            let common: Vec<_> = guest.common.iter().map(ToString::to_string).collect();
            items.push(format!("CR{}", common.join(",")));
        }
        Ok((code, items, card.serial.clone()))
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
        if !self.cards.contains_key(card) {
            self.make(card, content);
        } else if kind.is_some() {
            return Err(format!("card {card:?} exists already and is what it is"));
        }
        self.take_up(card);
        if let Some(encoder) = self.encoders.get_mut(encoder) {
            encoder.card = Some(card.to_owned());
        }
        Ok(())
    }

    fn make(&mut self, card: &str, content: Content) {
        let serial = format!("{:014X}FF", FIRST_SERIAL + self.cards.len() as u64);
        self.cards.insert(card.to_owned(), Card { serial, content });
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
        let stay = match &it.content {
            Content::Guest(guest) if guest.room == door => Some(guest.stay),
            _ => None,
        };
        self.take_up(card);
        if let (None, Some(stay), Some(room)) = (shut, stay, self.rooms.get_mut(door)) {
            room.lock = stay;
        }
        Ok(shut)
    }

    fn judge(&self, card: &Card, door: &str, now: DateTime) -> Option<&'static str> {
        let Content::Guest(guest) = &card.content else { return Some("unreadable") };
        let common = self.common.get(door).is_some_and(|number| guest.common.contains(number));
        match () {
            () if guest.room != door && !common => Some("not_this_door"),
            () if now < guest.start => Some("not_yet_valid"),
            () if guest.end <= now => Some("expired"),
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
        let guest = Guest {
            room: room.to_owned(),
            stay: it.stay,
            joined: false,
            start: now,
            end: now.saturating_add(1.day()),
            common: Vec::new(),
            operator: "DESK".into(),
        };
        self.desk_cards += 1;
        let name = format!("desk-{}", self.desk_cards);
        self.make(&name, Content::Guest(guest.clone()));
        let serial = self.cards.get(&name).map(|card| card.serial.clone());
        self.write_down(guest, serial, now);
        Ok(name)
    }

    /// Everything, for eyes: cards, which of them open each door now, encoders.
    pub(super) fn show(&self, now: DateTime) -> Map<String, Value> {
        let card = |(name, card): (&String, &Card)| {
            let mut shown = match &card.content {
                Content::Blank => json!({ "kind": "blank" }),
                Content::Foreign => json!({ "kind": "foreign" }),
                Content::Damaged => json!({ "kind": "damaged" }),
                Content::Guest(guest) => json!({
                    "kind": "guest",
                    "room": guest.room,
                    "stay": guest.stay,
                    "joined": guest.joined,
                    "start": guest.start,
                    "end": guest.end,
                    "common": guest.common,
                    "operator": guest.operator,
                }),
            };
            shown["serial"] = json!(card.serial);
            (name.clone(), shown)
        };
        let openers = |door: &String| {
            let opens =
                |(name, card): (&String, &Card)| self.judge(card, door, now).is_none().then(|| name.clone());
            (door.clone(), json!(self.cards.iter().filter_map(opens).collect::<Vec<_>>()))
        };
        let encoder =
            |(name, it): (&String, &Encoder)| (name.clone(), json!({ "card": it.card, "busy": it.busy }));
        let mut all = Map::new();
        all.insert("cards".into(), self.cards.iter().map(card).collect::<Map<_, _>>().into());
        let doors = self.rooms.keys().chain(self.common.keys());
        all.insert("doors".into(), doors.map(openers).collect::<Map<_, _>>().into());
        all.insert("encoders".into(), self.encoders.iter().map(encoder).collect::<Map<_, _>>().into());
        all
    }
}

/// The serial number of the first card's chip; the others count up.
const FIRST_SERIAL: u64 = 0x04_A1B2_C3D4_E580;
