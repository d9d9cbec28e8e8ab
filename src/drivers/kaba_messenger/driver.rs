//! Orders to commands, and what came of them to outcomes.
//!
//! # Lanes
//! Each encoder is a lane, `system/encoder`, with a PMS terminal of its own: a terminal has one command open at a time.
//! What needs no encoder has the lane `system` where a terminal is configured for it, and otherwise goes with the first
//! encoder's. `inventory.refresh` has the lane `system`.
//!
//! # Stays
//! The service knows a stay by a name. Ours is `KEY/ROOM`, so that the change or the end of a stay in one room never
//! touches another room of the same reservation. A further card that is just like the stay's first one is a duplicate of
//! it. Any other further card is a stay of its own beside it, `KEY/ROOM/` and eight digits of its job: it has exactly its
//! own doors and dates, and neither the change nor the end of the first stay says anything about it.
//!
//! A check-out ends the first stay by its name, which the service refuses where the room is another's by now. Then, where
//! nobody else makes cards (`checkout_of = "room"`), it ends whatever else is in the room: those who joined. That this is a
//! success, or `NoActionRequired`, where nobody joined, is a guess of ours; any other word is a doubt, as the first guest is
//! out by then. With `checkout_of = "first_guest"` those who joined keep what the service gave them
//! until their own ends.
//!
//! A new end is told of the first stay and its duplicates alone: no operation has one for all guests of a room, and those
//! who joined have ends of their own. Their cards get them by being encoded again.
//!
//! # Times
//! The wire carries the property's local time, without a zone: an end rounded up to the minute, a start down. A start that
//! has come is "now". In the hour that comes twice an end is told as the later of the two, and a start there is written as
//! the minute before it.
//!
//! # Waiting
//! After a command without an answer its terminal rests: the service may wait for a card still, and would write the last
//! guest's onto the next one.
//!
//! # What nobody can do here
//! No card is ever read: nothing is proven afterwards, and nothing says whether the card that was written last was taken
//! off the encoder.

use std::{sync::Arc, time::Duration};

use jiff::{civil::DateTime, tz::TimeZone};
use tokio::sync::watch;

use super::{
    codec::carries,
    command::{Command, Key, Stay},
    server::Server,
    session::Result as Came,
    stays::{FirstCard, FirstCards},
};
use crate::{
    config::{COMMUNITY, CheckoutOf, KabaMessengerConfig, KabaProduct, TerminalConfig},
    drivers::{
        Driver, Line, Past, Performed, ProgressSink, Resting, Trouble, Work, rests::Rests, wall::Wall,
    },
    model::{
        Admission, Capabilities, CardEncode, CardFacts, Code, Door, DoorKind, DoorName, Encoder, EncoderName,
        JobId, LaneName, Order, Outcome, ProofLevel, Refusal, ReservationKey, StayModify, Success,
        SystemInventory, SystemKind, SystemName, Treatment, Written,
    },
    protocol::Stage,
    seams::{self, BoxFuture, Clock, Net, Random, SystemNet},
};

/// Common areas on one card: what one client that works with cards sends at most.
pub const MAX_COMMON: u16 = 20;

/// A Messenger service.
#[derive(Debug)]
pub struct KabaMessenger {
    system: SystemName,
    config: KabaMessengerConfig,
    wall: Wall,
    clock: Clock,
    server: Arc<Server>,
    stopping: watch::Sender<bool>,
    first_cards: FirstCards,
    /// By terminal.
    rests: Rests,
}

/// The service waits for a card by its own clock, and how long is not published. So long after a command without an answer
/// its terminal, and the encoder that it works at, get no other.
pub const REST: Duration = Duration::from_secs(120);

impl KabaMessenger {
    /// Begins to look after the service. Needs a running tokio runtime; dropping the driver ends it.
    #[must_use]
    pub fn start(
        config: &KabaMessengerConfig,
        system: SystemName,
        time_zone: TimeZone,
        past: Past,
        clock: Clock,
        random: Random,
    ) -> Self {
        Self::start_over(Arc::new(SystemNet), config, system, time_zone, past, clock, random)
    }

    /// [`Self::start`] with connections made over `net`.
    #[must_use]
    pub fn start_over(
        net: Arc<dyn Net>,
        config: &KabaMessengerConfig,
        system: SystemName,
        time_zone: TimeZone,
        past: Past,
        clock: Clock,
        random: Random,
    ) -> Self {
        let server = Server::new(net, config, system.clone(), time_zone.clone(), clock.clone(), random);
        let server = Arc::new(server);
        let stopping = watch::Sender::new(false);
        seams::spawn(Arc::clone(&server).keep(stopping.subscribe()));
        let first_cards = FirstCards::default();
        let (wall, rests) = (Wall::new(time_zone), Rests::new(REST, past));
        Self { system, config: config.clone(), wall, clock, server, stopping, first_cards, rests }
    }

    /// Names that the service would not read as they are, each with what to do; everything else about a configuration is
    /// judged where it is read.
    #[must_use]
    pub fn mistakes(config: &KabaMessengerConfig) -> Vec<String> {
        let rooms = config.rooms.iter().map(|room| check_room(&room.name));
        let encoders = config.encoders.iter().map(|encoder| check_text("encoder", encoder.name.as_str()));
        rooms.chain(encoders).filter_map(|checked| checked.err().map(|refusal| refusal.message)).collect()
    }

    /// What the service can do; nothing for Community.
    #[must_use]
    pub fn capabilities(product: KabaProduct) -> Capabilities {
        let offered = |level| (product != KabaProduct::Community).then_some(level);
        Capabilities {
            r#override: offered(ProofLevel::Vector),
            join: offered(ProofLevel::Vector),
            future_start: offered(ProofLevel::Vector),
            checkout: offered(ProofLevel::Vector),
            // Its fields are published, a whole message is not.
            modify_stay: offered(ProofLevel::Simulator),
            read_card: None,
            open_end: None,
            slots: None,
            unlock: None,
            chip_numbers: None,
            max_rooms: 1,
            max_common: MAX_COMMON,
            answer_means_written: true,
            parallel_encoders: true,
        }
    }

    fn check_offered(&self) -> Result<(), Refusal> {
        match self.config.product {
            KabaProduct::Saflok | KabaProduct::Ambiance => Ok(()),
            KabaProduct::Community => Err(Refusal::new(Code::Unsupported, COMMUNITY)),
        }
    }

    fn encoder(&self, name: &EncoderName) -> Result<&TerminalConfig, Refusal> {
        let known = self.config.encoders.iter().find(|known| known.name == *name);
        let known = known.ok_or_else(|| {
            Refusal::new(Code::EncoderUnknown, format!("system {} has no encoder {name}", self.system))
        })?;
        check_text("encoder", name.as_str())?;
        Ok(known)
    }

    fn encoder_lane(&self, encoder: &EncoderName) -> LaneName {
        LaneName::new(format!("{}/{encoder}", self.system)).expect("two names and a slash are a lane's name")
    }

    /// The lane and the terminal of what needs no encoder.
    fn stays_lane(&self) -> Result<(LaneName, &str), Refusal> {
        match (&self.config.terminal, self.config.encoders.first()) {
            (Some(terminal), _) => Ok((whole(&self.system), terminal)),
            (None, Some(first)) => Ok((self.encoder_lane(&first.name), &first.terminal)),
            (None, None) => {
                Err(Refusal::new(Code::EncoderUnknown, "the system has no encoder and no terminal"))
            }
        }
    }

    /// A card's room, and the pass levels of its common areas.
    fn doors(&self, card: &CardEncode) -> Result<(DoorName, Vec<u16>), Refusal> {
        let mut rooms: Vec<&DoorName> = Vec::new();
        let mut common = Vec::new();
        for door in &card.doors {
            if self.config.rooms.iter().any(|room| room.name == *door) {
                check_room(door)?;
                if !rooms.contains(&door) {
                    rooms.push(door);
                }
                continue;
            }
            let known = self.config.common.iter().find(|common| common.name == *door);
            let level = known.ok_or_else(|| self.entrance_unknown(door))?.pass_level;
            if !common.contains(&level) {
                common.push(level);
            }
        }
        common.sort_unstable();
        if common.len() > MAX_COMMON.into() {
            let message = format!("Messenger's service gets at most {MAX_COMMON} common areas for one card");
            return Err(Refusal::new(Code::TooManyDoors, message));
        }
        match rooms[..] {
            [room] => Ok((room.clone(), common)),
            [] => Err(Refusal::new(
                Code::Unsupported,
                "Messenger's service makes guest cards for a room: name a room besides the common areas",
            )),
            [..] => Err(Refusal::new(
                Code::TooManyDoors,
                format!("one room stands on a card of Messenger's, this one would have {}", rooms.len()),
            )),
        }
    }

    fn entrance_unknown(&self, door: &DoorName) -> Refusal {
        Refusal::new(Code::EntranceUnknown, format!("system {} has no door {door}", self.system))
    }

    fn check_stay_room(&self, room: &DoorName) -> Result<(), Refusal> {
        match self.config.rooms.iter().any(|known| known.name == *room) {
            true => check_room(room),
            false if self.config.common.iter().any(|common| common.name == *room) => {
                Err(Refusal::new(Code::Unsupported, format!("{room} is a common area; it has no stay")))
            }
            false => Err(self.entrance_unknown(room)),
        }
    }

    /// The service's name for a stay in a room.
    fn reservation(&self, key: &ReservationKey, room: &DoorName) -> Result<String, Refusal> {
        let name = format!("{}{}/{room}", self.config.reservation_prefix, key.as_str());
        match carries(&name) {
            true => Ok(name),
            false => Err(Refusal::new(
                Code::Unsupported,
                "the reservation key has signs that Messenger's service would not read as they are",
            )),
        }
    }

    fn stay(&self, reservation: String, terminal: &str) -> Stay {
        Stay { reservation, site: self.config.site_name.clone(), terminal: terminal.to_owned() }
    }

    /// A card's end as it is printed.
    fn printed_end(&self, card: &CardEncode) -> Result<DateTime, Refusal> {
        let ends_at = card.window.ends_at().ok_or_else(|| {
            Refusal::new(
                Code::OpenEndUnsupported,
                "Messenger's service prints an end on every card: give the access an end (`ends_at`)",
            )
        })?;
        Ok(self.wall.end(ends_at))
    }

    /// The command for a card, and what the card is like if it is the first one of its stay.
    fn card(
        &self,
        job_id: JobId,
        card: &CardEncode,
        treatment: Treatment,
    ) -> Result<(Command, FirstCard), Refusal> {
        let TerminalConfig { name, terminal, .. } = self.encoder(&card.encoder)?;
        let encoder = name.as_str().to_owned();
        let (room, common) = self.doors(card)?;
        let check_out = self.printed_end(card)?;
        let key = card.reservation_key.as_ref().ok_or_else(|| {
            Refusal::new(Code::ReservationKeyRequired, "a card for a room needs a reservation key")
        })?;
        let reservation = self.reservation(key, &room)?;
        let now = self.clock.now();
        let starts_at = card.window.starts_at();
        let like = FirstCard { reservation, opens_at_once: starts_at <= now, check_out, common };
        if treatment == Treatment::Join && self.first_cards.has(room.as_str(), &like) {
            let stay = self.stay(like.reservation.clone(), terminal);
            let guest = card.guest_name.clone();
            return Ok((Command::MakeDuplicateKey { stay, encoder, guest }, like));
        }
        let key = Key {
            encoder,
            check_in: self.wall.start(starts_at.max(now)),
            check_out,
            guest: card.guest_name.clone(),
            room: room.as_str().to_owned(),
            more_rooms: Vec::new(),
            common: like.common.clone(),
        };
        let command = match treatment {
            Treatment::Override => {
                Command::CreateNewBooking { stay: self.stay(like.reservation.clone(), terminal), key }
            }
            Treatment::Join => {
                let job = job_id.0.simple().to_string();
                let own = format!("{}/{}", like.reservation, &job[job.len() - 8..]);
                Command::AddSharedGuest { stay: self.stay(own, terminal), key }
            }
            Treatment::Plain => {
                return Err(Refusal::new(
                    Code::Unsupported,
                    "Messenger's guest cards begin or join a room's stay; there is no plain one",
                ));
            }
        };
        Ok((command, like))
    }

    fn extend(&self, stay: &StayModify) -> Result<Command, Refusal> {
        self.check_stay_room(&stay.room)?;
        if stay.to_room.as_ref().is_some_and(|to| *to != stay.room) {
            return Err(Refusal::new(
                Code::Unsupported,
                "a stay moves by a first card in its new room: delete the stay's access grants, and grant the new room",
            ));
        }
        let (_lane, terminal) = self.stays_lane()?;
        let reservation = self.reservation(&stay.reservation_key, &stay.room)?;
        let check_out = self.wall.end(stay.ends_at);
        Ok(Command::ExtendCheckOut { stay: self.stay(reservation, terminal), check_out })
    }

    fn check_out(&self, room: &DoorName, key: &ReservationKey) -> Result<Command, Refusal> {
        self.check_stay_room(room)?;
        let (_lane, terminal) = self.stays_lane()?;
        let reservation = self.reservation(key, room)?;
        Ok(Command::CheckOutGuest { stay: self.stay(reservation, terminal) })
    }

    async fn perform_work(&self, work: &Work, progress: &ProgressSink) -> Performed {
        let done = match &work.order {
            Order::CardEncode(card) => self.encode(work.job_id, card, work.treatment, progress).await,
            Order::StayModify(stay) => self.change(&stay.room, self.extend(stay), progress).await,
            Order::StayCheckout { room, reservation_key } => {
                self.end_stay(room, reservation_key, progress).await
            }
            Order::InventoryRefresh => Ok(Performed::Ended(Outcome::Succeeded(Success::default()))),
            Order::CardRead(_)
            | Order::SlotPut(_)
            | Order::SlotRemove { .. }
            | Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. } => Err(unsupported(&work.order)),
        };
        done.unwrap_or_else(|refusal| Performed::Ended(Outcome::Failed(refusal)))
    }

    async fn encode(
        &self,
        job_id: JobId,
        card: &CardEncode,
        treatment: Treatment,
        progress: &ProgressSink,
    ) -> Result<Performed, Refusal> {
        self.check_offered()?;
        let (command, like) = self.card(job_id, card, treatment)?;
        let (room, _common) = self.doors(card)?;
        let begins = treatment == Treatment::Override;
        let printed_end = self.wall.end_of(like.check_out);
        let start = match &command {
            Command::CreateNewBooking { key, .. } | Command::AddSharedGuest { key, .. } => {
                (!like.opens_at_once).then_some(key.check_in)
            }
            _ => None,
        };
        let printed_start = start.and_then(|start| self.wall.start_of(start));
        if begins {
            self.first_cards.forget(room.as_str());
        }
        let within = Duration::from_secs(card.card_wait_seconds.into()) + self.config.answer_margin;
        Ok(match self.ask(&command, within, progress).await {
            Came::Done => {
                if begins {
                    self.first_cards.note(room.as_str(), like);
                }
                let card =
                    Some(CardFacts { serial: None, overrode: Some(begins), printed_end, printed_start });
                let written = Some(Written::Proven);
                Performed::Ended(Outcome::Succeeded(Success { written, card, ..Success::default() }))
            }
            other => undone(other),
        })
    }

    async fn change(
        &self,
        room: &DoorName,
        command: Result<Command, Refusal>,
        progress: &ProgressSink,
    ) -> Result<Performed, Refusal> {
        self.check_offered()?;
        let command = command?;
        self.first_cards.forget(room.as_str());
        Ok(match self.ask(&command, self.config.answer_margin, progress).await {
            Came::Done => {
                let written = Some(Written::Proven);
                Performed::Ended(Outcome::Succeeded(Success { written, ..Success::default() }))
            }
            other => undone(other),
        })
    }

    /// Ends the first guest's stay, and then that of everybody else in the room.
    async fn end_stay(
        &self,
        room: &DoorName,
        key: &ReservationKey,
        progress: &ProgressSink,
    ) -> Result<Performed, Refusal> {
        let first = self.change(room, self.check_out(room, key), progress).await?;
        let is_done = matches!(first, Performed::Ended(Outcome::Succeeded(_)));
        if !is_done || self.config.checkout_of == CheckoutOf::FirstGuest {
            return Ok(first);
        }
        let (_lane, terminal) = self.stays_lane()?;
        let others = Command::CancelGuestsAccessToRoom {
            site: self.config.site_name.clone(),
            room: room.as_str().to_owned(),
            terminal: terminal.to_owned(),
        };
        Ok(match self.ask(&others, self.config.answer_margin, progress).await {
            Came::Done => first,
            // Half of it is done: neither a failure nor to be tried again.
            Came::NothingSent(why) | Came::Refused(why) | Came::Doubt(why) => {
                let message = format!(
                    "the stay's first guest is checked out, those who joined may not be: check room {room} out at the lock \
                     system's own desk program ({})",
                    why.message
                );
                Performed::Ended(Outcome::Unknown(Refusal { message, ..why }))
            }
        })
    }

    async fn ask(&self, command: &Command, within: Duration, progress: &ProgressSink) -> Came {
        let terminal = command.terminal();
        if let Some(refusal) = self.rests.refusal(terminal) {
            return Came::NothingSent(refusal);
        }
        let leaves = || {
            self.rests.begin(terminal, within);
            if command.makes_card() {
                progress(Stage::WaitingForCard);
            }
        };
        let came = self.server.perform(command, within, self.stopping.subscribe(), leaves).await;
        self.rests.end(terminal, matches!(came, Came::Doubt(_)));
        came
    }
}

fn undone(came: Came) -> Performed {
    match came {
        Came::NothingSent(refusal) => Performed::NothingSent(refusal),
        Came::Refused(refusal) => Performed::Ended(Outcome::Failed(refusal)),
        Came::Doubt(refusal) => Performed::Ended(Outcome::Unknown(refusal)),
        Came::Done => Performed::Ended(Outcome::Succeeded(Success::default())),
    }
}

impl Driver for KabaMessenger {
    fn system(&self) -> &SystemName {
        &self.system
    }

    fn inventory(&self) -> SystemInventory {
        let door = |name: &DoorName, display_name: &Option<String>, kind| Door {
            name: name.clone(),
            display_name: display_name.clone(),
            kind,
        };
        let rooms = self.config.rooms.iter().map(|room| door(&room.name, &room.display_name, DoorKind::Room));
        let common = self.config.common.iter().map(|it| door(&it.name, &it.display_name, DoorKind::Common));
        let encoders = self.config.encoders.iter().map(|encoder| Encoder {
            name: encoder.name.clone(),
            display_name: encoder.display_name.clone(),
        });
        SystemInventory {
            // The site's choice, not the system's: the agent fills it in.
            checkout_on_last_grant: false,
            override_after_deleted_card: false,
            name: self.system.clone(),
            kind: SystemKind::KabaMessenger,
            time_zone: self.wall.zone_name().to_owned(),
            capabilities: Self::capabilities(self.config.product),
            doors: rooms.chain(common).collect(),
            encoders: encoders.collect(),
            devices: Vec::new(),
        }
    }

    fn lanes(&self) -> Vec<LaneName> {
        let of_encoders = self.config.encoders.iter().map(|it| self.encoder_lane(&it.name));
        std::iter::once(whole(&self.system)).chain(of_encoders).collect()
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        if !matches!(order, Order::InventoryRefresh) {
            self.check_offered()?;
        }
        match order {
            Order::CardEncode(card) => {
                self.encoder(&card.encoder)?;
                let (room, _common) = self.doors(card)?;
                let printed_end = self.wall.end_of(self.printed_end(card)?);
                if let Some(key) = &card.reservation_key {
                    self.reservation(key, &room)?;
                }
                Ok(Admission { printed_end, ..Admission::to(self.encoder_lane(&card.encoder), vec![room]) })
            }
            Order::StayModify(stay) => {
                self.extend(stay)?;
                Ok(Admission::to(self.stays_lane()?.0, vec![stay.room.clone()]))
            }
            Order::StayCheckout { room, reservation_key } => {
                self.check_out(room, reservation_key)?;
                Ok(Admission::to(self.stays_lane()?.0, vec![room.clone()]))
            }
            Order::InventoryRefresh => Ok(Admission::to(whole(&self.system), Vec::new())),
            Order::CardRead(_)
            | Order::SlotPut(_)
            | Order::SlotRemove { .. }
            | Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. } => Err(unsupported(order)),
        }
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.server.line()
    }

    fn remark(&self) -> Option<Trouble> {
        self.server.remark()
    }

    fn rests(&self) -> Vec<Resting> {
        let of_encoders = self.config.encoders.iter().map(|it| (self.encoder_lane(&it.name), &it.terminal));
        let of_stays = self.config.terminal.iter().map(|terminal| (whole(&self.system), terminal));
        let all = of_encoders.chain(of_stays);
        all.filter_map(|(lane, terminal)| self.rests.resting(terminal, lane, None)).collect()
    }

    fn perform<'a>(&'a self, work: Work, progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        Box::pin(async move { self.perform_work(&work, progress).await })
    }

    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

/// The lane of what is not about one encoder of several.
fn whole(system: &SystemName) -> LaneName {
    LaneName::new(system.as_str()).expect("a system's name is a lane's name too")
}

fn unsupported(order: &Order) -> Refusal {
    Refusal::new(
        Code::Unsupported,
        format!("Messenger's service has no operation for {}", order.kind().as_str()),
    )
}

/// Refuses a name that the service would read as another one.
fn check_text(what: &str, name: &str) -> Result<(), Refusal> {
    match carries(name) {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::Unsupported,
            format!(
                "the {what} name {name:?} has signs or blanks that Messenger's service would not read as they are"
            ),
        )),
    }
}

/// A slash parts a stay's key from its room in the stay's name.
fn check_room(room: &DoorName) -> Result<(), Refusal> {
    check_text("room", room.as_str())?;
    match room.as_str().contains('/') {
        true => Err(Refusal::new(
            Code::Unsupported,
            format!(
                "the room name {room:?} has a slash, which would be taken for another stay's name; rename it"
            ),
        )),
        false => Ok(()),
    }
}
