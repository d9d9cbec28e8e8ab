//! Orders to commands, and what came of them to outcomes.
//!
//! # Lanes
//! Over TCP each encoder is a lane, `system/encoder`, and each command has a connection of its own. A serial line is one
//! lane, `system`. `inventory.refresh` has the lane `system` on both.
//!
//! # Times
//! Local time in minutes: an end is rounded up, a start down. In the hour that comes twice an end is told as the later of
//! the two, and a start there is written as the minute before it. A start that has come is left
//! out, which the server takes for "at once".
//!
//! # Waiting
//! Before a card is written the encoder may have to be looked at (see `desk`). All looks of a job share the time in which
//! a person may lay a card down; the command itself has as much of its own, since a server waits for a card by its own
//! clock. After a command without an answer its encoder rests (see `rests`).
//!
//! # Rooms
//! One room stands on a card: how several would be written is not published.

use std::{sync::Arc, time::Duration};

use jiff::{civil, tz::TimeZone};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    answer::CardShown,
    codec::{Framing, carries},
    command::{Command, MakeCard},
    desk::{LastCard, LastCards, Likeness},
    line::Connector,
    session::{Conversation, Ending, Manners, Result as Came},
    web::{
        server::Web,
        visit::{self, Errand},
    },
};
use crate::{
    config::{NumberedConfig, VisionlineConfig},
    drivers::{
        Driver, Line, Past, Performed, ProgressSink, Resting, Trouble, Work, rests::Rests, wall::Wall,
    },
    model::{
        Admission, Capabilities, CardEncode, CardFacts, CardRead, CardSeen, Code, Door, DoorKind, DoorName,
        Encoder, EncoderName, LaneName, Order, Outcome, ProofLevel, Refusal, StayCards, Success,
        SystemInventory, SystemKind, SystemName, Treatment, Written,
    },
    seams::{self, BoxFuture, Clock, Net, Random, SystemNet},
    transport::Target,
};

/// Common rooms on one card: what the smaller of the card formats holds.
pub const MAX_COMMON: u16 = 28;
/// Between two looks at an encoder on which the card that was written last still lies.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A Visionline server and the line to it.
#[derive(Debug)]
pub struct Visionline {
    system: SystemName,
    config: VisionlineConfig,
    wall: Wall,
    clock: Clock,
    connector: Arc<Connector>,
    stopping: watch::Sender<bool>,
    last_cards: LastCards,
    /// Over TCP; a serial line rests as a whole.
    rests: Rests,
    /// The Web API, where the site has it.
    web: Option<Arc<Web>>,
}

impl Visionline {
    /// Begins to look after the line. Needs a running tokio runtime; dropping the driver ends it.
    ///
    /// A line that cannot be had is looked at again by itself; one whose configuration makes no sense stays down with the
    /// trouble `line_config` (see [`Target::from_config`]).
    #[must_use]
    pub fn start(
        config: &VisionlineConfig,
        system: SystemName,
        time_zone: TimeZone,
        past: Past,
        clock: Clock,
        random: Random,
    ) -> Self {
        Self::start_over(Arc::new(SystemNet), config, system, time_zone, past, clock, random)
    }

    /// [`Self::start`] with TCP connections made over `net`.
    #[must_use]
    pub fn start_over(
        net: Arc<dyn Net>,
        config: &VisionlineConfig,
        system: SystemName,
        time_zone: TimeZone,
        past: Past,
        clock: Clock,
        random: Random,
    ) -> Self {
        let target = Target::from_config(&config.line);
        let connector =
            Connector::new(system.clone(), target, config.settle, past, Arc::clone(&net), clock.clone());
        let connector = Arc::new(connector);
        let stopping = watch::Sender::new(false);
        let wall = Wall::new(time_zone);
        let web = config.web.as_ref().map(|web| {
            let rooms = config.rooms.iter().map(|room| room.name.clone()).collect();
            Arc::new(Web::new(net, web, system.clone(), rooms, wall.clone(), clock.clone()))
        });
        if let Some(web) = &web {
            let line = Arc::clone(&connector);
            seams::spawn(Arc::clone(web).keep(stopping.subscribe(), move || line.nudge()));
        }
        seams::spawn(Arc::clone(&connector).keep(random, stopping.subscribe()));
        Self {
            system,
            config: config.clone(),
            wall,
            clock,
            connector,
            stopping,
            last_cards: LastCards::default(),
            rests: Rests::new(config.settle, past),
            web,
        }
    }

    /// Names that this interface cannot say, each with what to do; everything else about a configuration is judged where
    /// it is read.
    #[must_use]
    pub fn mistakes(config: &VisionlineConfig) -> Vec<String> {
        let rooms = config.rooms.iter().map(|room| check_room(&room.name));
        let encoders = config.encoders.iter().map(|encoder| check_text("encoder", encoder.name.as_str()));
        rooms.chain(encoders).filter_map(|checked| checked.err().map(|refusal| refusal.message)).collect()
    }

    /// One visit to the Web API; none where the site does not have it.
    pub async fn visit_web(&self, errand: Errand) -> Option<visit::Result> {
        Some(self.web.as_ref()?.visit(errand).await)
    }

    /// What the interface can do over TCP.
    #[must_use]
    pub fn capabilities_over_tcp() -> Capabilities {
        Capabilities {
            r#override: Some(ProofLevel::Vector),
            join: Some(ProofLevel::Vector),
            future_start: Some(ProofLevel::Vector),
            checkout: None,
            modify_stay: None,
            read_card: Some(ProofLevel::Vector),
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

    /// What it can do over a serial line, which all encoders share.
    #[must_use]
    pub fn capabilities_over_serial() -> Capabilities {
        Capabilities { parallel_encoders: false, ..Self::capabilities_over_tcp() }
    }

    fn capabilities(&self) -> Capabilities {
        match self.is_tcp() {
            true => Self::capabilities_over_tcp(),
            false => Self::capabilities_over_serial(),
        }
    }

    fn is_tcp(&self) -> bool {
        self.config.line.tcp.is_some()
    }

    fn lane(&self, encoder: &EncoderName) -> LaneName {
        match self.is_tcp() {
            true => LaneName::new(format!("{}/{encoder}", self.system))
                .expect("two names and a slash are a lane's name"),
            false => whole(&self.system),
        }
    }

    fn check_encoder(&self, encoder: &EncoderName) -> Result<(), Refusal> {
        if !self.config.encoders.iter().any(|known| known.name == *encoder) {
            return Err(Refusal::new(
                Code::EncoderUnknown,
                format!("system {} has no encoder {encoder}", self.system),
            ));
        }
        check_text("encoder", encoder.as_str())
    }

    fn common_door(&self, door: &DoorName) -> Option<&NumberedConfig> {
        self.config.common.iter().find(|common| common.name == *door)
    }

    /// A card's room, and the numbers of its common rooms.
    fn doors(&self, card: &CardEncode) -> Result<(DoorName, Vec<u16>), Refusal> {
        let mut rooms: Vec<&DoorName> = Vec::new();
        let mut common = Vec::new();
        for door in &card.doors {
            if self.config.rooms.iter().any(|room| room.name == *door) {
                check_room(door)?;
                if !rooms.contains(&door) {
                    rooms.push(door);
                }
            } else if let Some(known) = self.common_door(door) {
                if !common.contains(&known.number) {
                    common.push(known.number);
                }
            } else {
                let message = format!("system {} has no door {door}", self.system);
                return Err(Refusal::new(Code::EntranceUnknown, message));
            }
        }
        if common.len() > MAX_COMMON.into() {
            let message = format!("Visionline carries at most {MAX_COMMON} common rooms on one card");
            return Err(Refusal::new(Code::TooManyDoors, message));
        }
        match rooms[..] {
            [room] => Ok((room.clone(), common)),
            [] => Err(Refusal::new(
                Code::Unsupported,
                "Visionline makes guest cards for a room: name a room besides the common doors",
            )),
            [..] => Err(Refusal::new(
                Code::TooManyDoors,
                format!(
                    "Visionline's PMS interface takes one room on a card, this one would have {}",
                    rooms.len()
                ),
            )),
        }
    }

    /// A card's end as it is printed.
    fn printed_end(&self, card: &CardEncode) -> Result<civil::DateTime, Refusal> {
        let ends_at = card.window.ends_at().ok_or_else(|| {
            Refusal::new(
                Code::OpenEndUnsupported,
                "Visionline prints an end on every card: give the access an end (`ends_at`)",
            )
        })?;
        Ok(self.wall.end(ends_at))
    }

    fn make_card(&self, card: &CardEncode, treatment: Treatment) -> Result<MakeCard, Refusal> {
        self.check_encoder(&card.encoder)?;
        let (room, common) = self.doors(card)?;
        let end = self.printed_end(card)?;
        let starts_at = card.window.starts_at();
        let joins = match treatment {
            Treatment::Override => false,
            Treatment::Join => true,
            Treatment::Plain => {
                return Err(Refusal::new(
                    Code::Unsupported,
                    "Visionline's guest cards begin or join a room's stay; there is no plain one",
                ));
            }
        };
        Ok(MakeCard {
            joins,
            encoder: card.encoder.as_str().to_owned(),
            room: room.as_str().to_owned(),
            start: (self.clock.now() < starts_at).then(|| self.wall.start(starts_at)),
            end,
            common,
            user_group: self.config.user_group.clone(),
            operator: self.config.operator.clone(),
            guest: None,
            card_type: self.config.card_type,
            serial: true,
        })
    }

    async fn perform_work(&self, work: &Work, progress: &ProgressSink) -> Performed {
        match &work.order {
            Order::CardEncode(card) => match self.held_back(card, work.to_see.as_ref()).await {
                Some(performed) => performed,
                None => self.encode(card, work.treatment, progress).await,
            },
            Order::CardRead(read) => self.read(read, progress).await,
            Order::InventoryRefresh => Performed::Ended(Outcome::Succeeded(Success::default())),
            Order::StayModify(_)
            | Order::StayCheckout { .. }
            | Order::SlotPut(_)
            | Order::SlotRemove { .. }
            | Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. } => Performed::Ended(Outcome::Failed(unsupported(&work.order))),
        }
    }

    /// How a card ends that must not join, or that is not begun any more.
    async fn held_back(&self, card: &CardEncode, cards: Option<&StayCards>) -> Option<Performed> {
        let cards = cards?;
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => {
                let why = "latchd is stopping; nothing new is begun";
                Some(Performed::NothingSent(Refusal::new(Code::SystemOffline, why)))
            }
            over = self.stay_is_over(card, cards) => {
                over.map(|refusal| Performed::Ended(Outcome::Failed(refusal)))
            }
        }
    }

    /// Why a card must not join: the server does not list a good card of the stay. Asked right before the card is
    /// written; between the two another program may still change the room.
    async fn stay_is_over(&self, card: &CardEncode, cards: &StayCards) -> Option<Refusal> {
        let (room, _) = match self.doors(card) {
            Ok(doors) => doors,
            Err(refusal) => return Some(refusal),
        };
        let Some(web) = &self.web else {
            return Some(Refusal::new(
                Code::RoomStateUnknown,
                "others make cards for this room too, and there is no Web API to ask for them",
            ));
        };
        match web.has_live_card(&room, card.window.starts_at(), cards).await {
            Ok(true) => None,
            Ok(false) if !cards.printed_ends.iter().any(|end| self.clock.now() < *end) => Some(Refusal::new(
                Code::RoomStateUnknown,
                format!(
                    "others make cards for room {room} too, and the cards of this stay have all ended: give the guest \
                     a new reservation"
                ),
            )),
            Ok(false) => Some(Refusal::new(
                Code::NoStayToJoin,
                format!(
                    "Visionline lists no card of this stay in room {room} that is still good: somebody else changed it. \
                     Give the guest a new reservation"
                ),
            )),
            Err(refusal) => Some(Refusal {
                code: Code::RoomStateUnknown,
                message: format!(
                    "others make cards for room {room} too, and its cards could not be looked at: {}",
                    refusal.message
                ),
                ..refusal
            }),
        }
    }

    async fn encode(&self, card: &CardEncode, treatment: Treatment, progress: &ProgressSink) -> Performed {
        let make = match self.make_card(card, treatment) {
            Ok(make) => make,
            Err(refusal) => return Performed::Ended(Outcome::Failed(refusal)),
        };
        if let Some(performed) = self.another_card(card, progress).await {
            return performed;
        }
        let before = self.last_cards.note(card.access_method_id, &make);
        let (encoder, start, end) = (make.encoder.clone(), make.start, make.end);
        let came = self.converse(Command::MakeCard(make), card_wait(card.card_wait_seconds), progress).await;
        match came {
            Came::NothingSent(refusal) => {
                self.last_cards.take_back(&encoder, before);
                Performed::NothingSent(refusal)
            }
            Came::Refused(refusal) => {
                self.last_cards.take_back(&encoder, before);
                Performed::Ended(Outcome::Failed(refusal))
            }
            Came::Doubt(refusal) => Performed::Ended(Outcome::Unknown(refusal)),
            Came::Made { serial } => {
                self.last_cards.written(&encoder, serial.as_deref());
                Performed::Ended(Outcome::Succeeded(Success {
                    written: Some(Written::Proven),
                    card: Some(CardFacts {
                        serial,
                        overrode: Some(treatment == Treatment::Override),
                        printed_end: self.wall.end_of(end),
                        printed_start: start.and_then(|start| self.wall.start_of(start)),
                    }),
                    ..Success::default()
                }))
            }
            Came::Read(_) => Performed::Ended(Outcome::unknown(
                Code::NoAnswer,
                "the server answered a reading; the card may have been written: read it",
            )),
        }
    }

    async fn read(&self, read: &CardRead, progress: &ProgressSink) -> Performed {
        if let Err(refusal) = self.check_encoder(&read.encoder) {
            return Performed::Ended(Outcome::Failed(refusal));
        }
        match self.look(&read.encoder, card_wait(read.card_wait_seconds), progress).await {
            Came::NothingSent(refusal) => Performed::NothingSent(refusal),
            Came::Refused(refusal) | Came::Doubt(refusal) => Performed::Ended(Outcome::Failed(refusal)),
            Came::Read(shown) => {
                let seen = Some(self.seen(shown));
                Performed::Ended(Outcome::Succeeded(Success { seen, ..Success::default() }))
            }
            Came::Made { .. } => Performed::Ended(Outcome::failed(
                Code::ProtocolViolation,
                "the server answered the reading as if a card had been written",
            )),
        }
    }

    /// Sees to it that the card to be written is another one than the one written last; how the order ends where that is
    /// not known in time.
    async fn another_card(&self, card: &CardEncode, progress: &ProgressSink) -> Option<Performed> {
        let encoder = card.encoder.as_str();
        let last = self.last_cards.before(encoder, card.access_method_id)?;
        let give_up = Instant::now() + card_wait(card.card_wait_seconds);
        loop {
            let likeness = match self.look(&card.encoder, give_up - Instant::now(), progress).await {
                Came::Read(shown) => last.likeness(&shown),
                Came::NothingSent(refusal) => return Some(Performed::NothingSent(refusal)),
                Came::Refused(refusal) => match LastCard::likeness_unread(&refusal) {
                    Some(likeness) => likeness,
                    None => return Some(Performed::Ended(Outcome::Failed(refusal))),
                },
                Came::Doubt(refusal) => return Some(Performed::Ended(Outcome::Failed(refusal))),
                Came::Made { .. } => Likeness::NotKnown,
            };
            if likeness == Likeness::Another {
                return None;
            }
            if give_up <= Instant::now() {
                if likeness == Likeness::NotKnown {
                    // Whoever was told this once puts the next one there knowingly.
                    self.last_cards.take_back(encoder, None);
                }
                let refusal = Refusal::new(Code::NoCard, likeness.what_to_do(encoder));
                return Some(Performed::Ended(Outcome::Failed(refusal)));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Reads what lies on an encoder.
    async fn look(&self, encoder: &EncoderName, card_wait: Duration, progress: &ProgressSink) -> Came {
        let command = Command::ReadCard { encoder: encoder.as_str().to_owned() };
        self.converse(command, card_wait, progress).await
    }

    async fn converse(&self, command: Command, card_wait: Duration, progress: &ProgressSink) -> Came {
        let encoder = command.encoder().to_owned();
        if let Some(refusal) = self.rests.refusal(&encoder).filter(|_| self.is_tcp()) {
            return Came::NothingSent(refusal);
        }
        let manners = Manners {
            framing: if self.is_tcp() { Framing::Line } else { Framing::Block },
            ack_timeout: self.config.ack_timeout,
            answer_timeout: card_wait + self.config.answer_margin,
        };
        let conversation = Conversation::new(command, manners);
        self.rests.begin(&encoder, conversation.longest());
        let Ending { result, answer_may_come, .. } =
            self.connector.converse(conversation, self.stopping.subscribe(), progress).await;
        self.rests.end(&encoder, answer_may_come);
        result
    }

    fn seen(&self, shown: CardShown) -> CardSeen {
        if shown.rooms.is_empty() && !shown.is_valid {
            return CardSeen::Invalid;
        }
        let named = |number: &u16| {
            let door = self.config.common.iter().find(|common| common.number == *number)?;
            Some(door.name.as_str().to_owned())
        };
        CardSeen::Guest {
            rooms: shown.rooms,
            valid: shown.is_valid,
            // An answer does not tell a first card from a joiner.
            original: false,
            common: shown.common.iter().filter_map(named).collect(),
            starts_at: shown.start.and_then(|start| self.wall.start_of(start)),
            ends_at: shown.end.and_then(|end| self.wall.end_of(end)),
            // Nor who made it.
            made_here: None,
        }
    }
}

impl Driver for Visionline {
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
            kind: SystemKind::Visionline,
            time_zone: self.wall.zone_name().to_owned(),
            capabilities: self.capabilities(),
            doors: rooms.chain(common).collect(),
            encoders: encoders.collect(),
            devices: Vec::new(),
        }
    }

    fn lanes(&self) -> Vec<LaneName> {
        let of_encoders = self.config.encoders.iter().filter(|_| self.is_tcp()).map(|it| self.lane(&it.name));
        std::iter::once(whole(&self.system)).chain(of_encoders).collect()
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        match order {
            Order::CardEncode(card) => {
                self.check_encoder(&card.encoder)?;
                let (room, _common) = self.doors(card)?;
                let printed_end = self.wall.end_of(self.printed_end(card)?);
                Ok(Admission { printed_end, ..Admission::to(self.lane(&card.encoder), vec![room]) })
            }
            Order::CardRead(read) => {
                self.check_encoder(&read.encoder)?;
                Ok(Admission::to(self.lane(&read.encoder), Vec::new()))
            }
            Order::InventoryRefresh => Ok(Admission::to(whole(&self.system), Vec::new())),
            Order::StayModify(_)
            | Order::StayCheckout { .. }
            | Order::SlotPut(_)
            | Order::SlotRemove { .. }
            | Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. } => Err(unsupported(order)),
        }
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.connector.line()
    }

    fn remark(&self) -> Option<Trouble> {
        self.web.as_ref()?.remark()
    }

    fn rests(&self) -> Vec<Resting> {
        let encoders = self.config.encoders.iter().filter(|_| self.is_tcp());
        encoders.filter_map(|it| self.rests.resting(it.name.as_str(), self.lane(&it.name), None)).collect()
    }

    fn perform<'a>(&'a self, work: Work, progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        Box::pin(async move { self.perform_work(&work, progress).await })
    }

    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

/// How long a person may take to lay a card down.
fn card_wait(seconds: u16) -> Duration {
    Duration::from_secs(seconds.into())
}

/// The lane of what is not about one encoder of several.
fn whole(system: &SystemName) -> LaneName {
    LaneName::new(system.as_str()).expect("a system's name is a lane's name too")
}

fn unsupported(order: &Order) -> Refusal {
    Refusal::new(
        Code::Unsupported,
        format!("Visionline's PMS interface has no known command for {}", order.kind().as_str()),
    )
}

/// Refuses a name that the wire cannot say as it is: it might become another room's.
fn check_text(what: &str, name: &str) -> Result<(), Refusal> {
    if carries(name) {
        return Ok(());
    }
    let message = format!(
        "the {what} name {name:?} has signs that Visionline's PMS interface cannot carry: plain ASCII without a \
         semicolon is possible; rename it in Visionline"
    );
    Err(Refusal::new(Code::Unsupported, message))
}

/// A comma may part two rooms.
fn check_room(room: &DoorName) -> Result<(), Refusal> {
    check_text("room", room.as_str())?;
    if room.as_str().contains(',') {
        let message = format!(
            "the room name {room:?} has a comma, which may stand for two rooms; rename it in Visionline"
        );
        return Err(Refusal::new(Code::Unsupported, message));
    }
    Ok(())
}
