//! What an order asks of the lock server: names, times and doors as its dialect can say them, and named refusals where it
//! cannot. No IO.

use std::time::Duration;

use jiff::{Timestamp, civil};

use super::{
    super::{
        codec::{Trailer, carries},
        command::{Command, DateForm, Eject, Serials, Stay, WriteCard, symbol},
        session::Manners,
    },
    SaltoIs,
};
use crate::{
    config::{CommonConfig, Dialect, LrcConfig, SaltoIsConfig},
    drivers::Work,
    model::{CardEncode, CardRead, Code, DoorName, EncoderName, Order, Refusal, StayModify, Treatment},
};

impl SaltoIs {
    pub(super) fn check_encoder(&self, encoder: &EncoderName) -> Result<(), Refusal> {
        if !self.config.encoders.iter().any(|known| known.name == *encoder) {
            return Err(Refusal::new(
                Code::EncoderUnknown,
                format!("system {} has no encoder {encoder}", self.system),
            ));
        }
        check_text("encoder", encoder.as_str())
    }

    fn is_room(&self, door: &DoorName) -> bool {
        self.config.rooms.iter().any(|room| room.name == *door)
    }

    fn common_door(&self, door: &DoorName) -> Option<&CommonConfig> {
        self.config.common.iter().find(|common| common.name == *door)
    }

    fn entrance_unknown(&self, door: &DoorName) -> Refusal {
        Refusal::new(Code::EntranceUnknown, format!("system {} has no door {door}", self.system))
    }

    /// A card's rooms, the main one first, and the signs of its common doors.
    pub(super) fn doors(&self, card: &CardEncode) -> Result<(Vec<DoorName>, String), Refusal> {
        let mut rooms: Vec<DoorName> = Vec::new();
        let mut granted = String::new();
        for door in &card.doors {
            if self.is_room(door) {
                check_text("room", door.as_str())?;
                if !rooms.contains(door) {
                    rooms.push(door.clone());
                }
            } else {
                let common = self.common_door(door).ok_or_else(|| self.entrance_unknown(door))?;
                let sign = symbol(common.authorisation).ok_or_else(|| {
                    Refusal::new(
                        Code::Unsupported,
                        format!(
                            "common door {door} has authorisation {}, the lock system has 1 to 62",
                            common.authorisation
                        ),
                    )
                })?;
                if !granted.contains(sign) {
                    granted.push(sign);
                }
            }
        }
        let most = self.config.dialect.max_rooms();
        match rooms.len() {
            0 => Err(Refusal::new(
                Code::Unsupported,
                "SALTO makes guest cards for a room: name at least one room besides the common doors",
            )),
            count if count <= most => Ok((rooms, granted)),
            many => Err(Refusal::new(
                Code::TooManyDoors,
                format!(
                    "the lock system carries at most {most} rooms on one card, this one would have {many}"
                ),
            )),
        }
    }

    /// A card's end as it is printed.
    pub(super) fn printed_end(&self, card: &CardEncode) -> Result<civil::DateTime, Refusal> {
        let ends_at = card.window.ends_at().ok_or_else(|| {
            Refusal::new(
                Code::OpenEndUnsupported,
                "SALTO prints an end on every card: give the access an end (`ends_at`)",
            )
        })?;
        self.end_on_the_wire(ends_at)
    }

    /// From when on a card opens, by the lock system's clock, where it can be told.
    fn start_on_the_wire(&self, card: &CardEncode) -> civil::DateTime {
        let starts_at = card.window.starts_at();
        match self.config.dialect.has_hours_only() {
            true => self.wall.start_in_hours(starts_at, self.config.hour_rounding),
            false => self.wall.start(starts_at),
        }
    }

    /// Refuses a card that would never open, since its times have no minutes.
    pub(super) fn check_hours(&self, card: &CardEncode) -> Result<(), Refusal> {
        if !self.config.dialect.has_hours_only() {
            return Ok(());
        }
        let now = self.clock.now();
        let opens_at = match now < card.window.starts_at() {
            true if self.config.dialect.is_old() => {
                return Err(Refusal::new(
                    Code::BadDates,
                    "the lock system writes no start on a card, it would open at once: make it when the access begins",
                ));
            }
            true => self.wall.start_of(self.start_on_the_wire(card)).unwrap_or(now),
            false => now,
        };
        let end = self.printed_end(card)?;
        if self.wall.end_of(end).is_some_and(|ends_at| opens_at < ends_at) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::BadDates,
            format!(
                "the lock system has whole hours only: a card to {} would never open; give the access an end at a later hour",
                end.strftime("%Y-%m-%d %H:%M")
            ),
        ))
    }

    fn end_on_the_wire(&self, ends_at: Timestamp) -> Result<civil::DateTime, Refusal> {
        let end = match self.config.dialect.has_hours_only() {
            true => self.wall.end_in_hours(ends_at, self.config.hour_rounding),
            false => self.wall.end(ends_at),
        };
        // The wire has two digits for the year.
        match end.year() {
            2000..=2099 => Ok(end),
            year => Err(Refusal::new(
                Code::BadDates,
                format!("SALTO's cards and stays end between 2000 and 2099, not in {year}"),
            )),
        }
    }

    /// The command for an order; none where there is nothing to ask.
    pub(super) fn command(&self, work: &Work) -> Result<Option<Command>, Refusal> {
        match &work.order {
            Order::CardEncode(card) => self.write_card(card, work.treatment).map(Some),
            Order::CardRead(read) => {
                self.check_encoder(&read.encoder)?;
                Ok(Some(self.read_card(&read.encoder, self.eject())))
            }
            Order::StayCheckout { room, .. } => {
                self.check_stay_room(room)?;
                Ok(Some(Command::CheckOut {
                    room: room.as_str().to_owned(),
                    has_encoder_field: self.config.dialect.has_eject(),
                }))
            }
            Order::StayModify(stay) => self.modify_stay(stay).map(Some),
            Order::InventoryRefresh => Ok(None),
            Order::SlotPut(_)
            | Order::SlotRemove { .. }
            | Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. } => Err(unsupported(&work.order)),
        }
    }

    pub(super) fn read_card(&self, encoder: &EncoderName, eject: Eject) -> Command {
        let is_amadeus = self.config.dialect == Dialect::AmadeusSt40;
        Command::ReadCard { is_amadeus, encoder: encoder.as_str().to_owned(), eject }
    }

    pub(super) fn modify_stay(&self, stay: &StayModify) -> Result<Command, Refusal> {
        if Self::capabilities(self.config.dialect).modify_stay.is_none() {
            return Err(Refusal::new(Code::Unsupported, "Amadeus has no known command that changes a stay"));
        }
        self.check_stay_room(&stay.room)?;
        if stay.to_room.as_ref().is_some_and(|to| *to != stay.room) {
            return Err(Refusal::new(
                Code::Unsupported,
                "a stay moves by a first card in its new room: delete the stay's access grants, and grant the new room",
            ));
        }
        Ok(Command::ModifyStay {
            room: stay.room.as_str().to_owned(),
            to_room: String::new(),
            expiry: self.end_on_the_wire(stay.ends_at)?,
            dates: self.dates(),
            auth_code: String::new(),
        })
    }

    fn write_card(&self, card: &CardEncode, treatment: Treatment) -> Result<Command, Refusal> {
        self.check_encoder(&card.encoder)?;
        let (rooms, granted) = self.doors(card)?;
        let expiry = self.printed_end(card)?;
        let starts_at = card.window.starts_at();
        let is_to_come = self.clock.now() < starts_at;
        let is_old = self.config.dialect.is_old();
        self.check_hours(card)?;
        let start = is_to_come.then(|| self.start_on_the_wire(card));
        let stay = match treatment {
            Treatment::Override => Stay::Begin,
            Treatment::Join => Stay::Join,
            Treatment::Plain => {
                return Err(Refusal::new(
                    Code::Unsupported,
                    "SALTO's guest cards begin or join a room's stay; there is no plain one",
                ));
            }
        };
        Ok(Command::WriteCard(WriteCard {
            stay,
            count: (!is_old).then_some(1),
            encoder: card.encoder.as_str().to_owned(),
            eject: self.eject(),
            rooms: rooms.iter().map(|room| room.as_str().to_owned()).collect(),
            granted,
            denied: String::new(),
            start,
            expiry: Some(expiry),
            dates: self.dates(),
            operator: self.config.operator.clone(),
            print_lines: if is_old { vec![String::new(); 2] } else { Vec::new() },
            serials: (!is_old).then_some(Serials::Last),
        }))
    }

    pub(super) fn check_stay_room(&self, room: &DoorName) -> Result<(), Refusal> {
        if self.common_door(room).is_some() && !self.is_room(room) {
            return Err(Refusal::new(Code::Unsupported, format!("{room} is a common door; it has no stay")));
        }
        if !self.is_room(room) {
            return Err(self.entrance_unknown(room));
        }
        check_text("room", room.as_str())
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.config.line.tcp.is_some()
    }

    fn eject(&self) -> Eject {
        match self.config.wait_for_removal {
            _ if !self.config.dialect.has_eject() => Eject::Empty,
            true => Eject::Wait,
            false => Eject::DoNotWait,
        }
    }

    fn dates(&self) -> DateForm {
        if self.config.dialect.has_hours_only() { DateForm::Hours } else { DateForm::Minutes }
    }

    pub(super) fn manners(&self, order: &Order) -> Manners {
        let card_wait = match order {
            Order::CardEncode(CardEncode { card_wait_seconds, .. })
            | Order::CardRead(CardRead { card_wait_seconds, .. }) => *card_wait_seconds,
            Order::StayModify(_)
            | Order::StayCheckout { .. }
            | Order::SlotPut(_)
            | Order::SlotRemove { .. }
            | Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. }
            | Order::InventoryRefresh => 0,
        };
        manners(&self.config, Duration::from_secs(card_wait.into()))
    }
}

/// How to talk to a server, where a person may take so long to lay a card down.
pub(in crate::drivers::salto_is) fn manners(config: &SaltoIsConfig, card_wait: Duration) -> Manners {
    Manners {
        ack_timeout: config.ack_timeout,
        answer_timeout: card_wait + config.answer_margin,
        ack_final: config.ack_final,
        trailer: match config.lrc {
            LrcConfig::Checked => Trailer::Checked,
            LrcConfig::Skip => Trailer::Unchecked,
        },
        takes_0f_for_nak: config.dialect == Dialect::AmadeusSt40,
    }
}

pub(super) fn unsupported(order: &Order) -> Refusal {
    Refusal::new(Code::Unsupported, format!("SALTO by its PMS interface cannot do {}", order.kind().as_str()))
}

/// Refuses a name that the wire would change: it might become another room's.
pub(super) fn check_text(what: &str, name: &str) -> Result<(), Refusal> {
    if carries(name) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::Unsupported,
        format!(
            "the {what} name {name:?} has signs that SALTO's PMS interface cannot carry; rename it in SPACE"
        ),
    ))
}
