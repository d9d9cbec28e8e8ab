//! Orders to commands, and what came of them to outcomes.
//!
//! There is one lane, named like the system: the protocol has no request id and all encoders share one line, so a
//! second command may not leave before the first is answered, whichever encoder it is for.
//!
//! After a command without an answer the line settles. A serial line rests as a whole; over TCP the connection is made
//! anew, and only the command's encoder rests (see `rests`), since the lock server may go on with it.
//!
//! # Times
//! Local time in minutes: an end is rounded up, a start down. A dialect of whole hours rounds as the site chose, by default
//! in the same way; what is printed is told with the outcome. Onity and Amadeus write no start at all: there a card whose
//! time has not come is refused. In the hour that comes twice an end is told as the later of the two, and a start there is
//! written as the minute before it. A start that has come is left empty, which the lock server takes for "at once".
//!
//! # Stays
//! `MC` changes the end of the stay that the server knows, and with it no card: an offline lock goes by the end that
//! is printed on the card. It could also move the stay to another room. That is refused: a room's first card must be
//! one that begins the stay there (`CN`), else nothing says that the lock turns away the cards of whoever was there
//! before, and after a move the first one would be a copy (`CC`).

pub(super) mod orders;

use std::{sync::Arc, time::Duration};

use jiff::{civil, tz::TimeZone};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};

use self::orders::{check_text, unsupported};
use super::{
    answer::{self, CardShown, CopyNumber, GuestCard},
    command::{Command, Eject, is_name},
    desk::LastCards,
    keeper::{Keeper, Request},
    session::{Conversation, Result as Came},
};
use crate::{
    config::{CommonConfig, Dialect, EncoderConfig, SaltoIsConfig},
    drivers::{Driver, Line, Past, Performed, ProgressSink, Resting, Work, rests::Rests, wall::Wall},
    model::{
        Admission, Capabilities, CardEncode, CardFacts, CardSeen, Code, Door, DoorKind, Encoder, LaneName,
        Order, Outcome, ProofLevel, Refusal, Success, SystemInventory, SystemKind, SystemName, Treatment,
        Written,
    },
    protocol::Stage,
    seams::{self, BoxFuture, Clock, Net, Random, SystemNet},
    transport::Target,
};

/// A SALTO SPACE server and the line to it.
#[derive(Debug)]
pub struct SaltoIs {
    system: SystemName,
    config: SaltoIsConfig,
    wall: Wall,
    clock: Clock,
    /// Boxed: a channel keeps room for dozens of them, and there may be hundreds of lines.
    requests: mpsc::Sender<Box<Request>>,
    line: watch::Receiver<Line>,
    stopping: watch::Sender<bool>,
    last_cards: LastCards,
    /// Over TCP; a serial line rests as a whole.
    rests: Rests,
}

/// Between two looks at an encoder on which the card that was written last still lies.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl SaltoIs {
    /// Begins to keep the line open. Needs a running tokio runtime; dropping the driver closes the line.
    ///
    /// A line that cannot be opened is tried again by itself; one whose configuration makes no sense stays down with
    /// the trouble `line_config` (see [`Target::from_config`]).
    #[must_use]
    pub fn start(
        config: &SaltoIsConfig,
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
        config: &SaltoIsConfig,
        system: SystemName,
        time_zone: TimeZone,
        past: Past,
        clock: Clock,
        random: Random,
    ) -> Self {
        let (requests, incoming) = mpsc::channel(1);
        let (line_writer, line) = watch::channel(Line::Opening);
        let (stopping, told) = watch::channel(false);
        let keeper = Keeper {
            system: system.clone(),
            ack_timeout: config.ack_timeout,
            settle: config.settle,
            answer_may_come: past == Past::AnswerMayCome,
            net,
            clock: clock.clone(),
            random,
            requests: incoming,
            stopping: told,
            line: line_writer,
        };
        seams::spawn(keeper.keep(Target::from_config(&config.line)));
        Self {
            system,
            config: config.clone(),
            wall: Wall::new(time_zone),
            clock,
            requests,
            line,
            stopping,
            last_cards: LastCards::default(),
            rests: Rests::new(config.settle, past),
        }
    }

    /// Names that this protocol cannot say, each with what to do; everything else about a configuration is judged where
    /// it is read.
    #[must_use]
    pub fn mistakes(config: &SaltoIsConfig) -> Vec<String> {
        let rooms = config.rooms.iter().map(|room| ("room", room.name.as_str()));
        let encoders = config.encoders.iter().map(|encoder| ("encoder", encoder.name.as_str()));
        let unsayable = |(what, name)| check_text(what, name).err().map(|refusal| refusal.message);
        let not_a_number = |encoder: &EncoderConfig| {
            let name = encoder.name.as_str();
            (config.dialect == Dialect::Onity && !name.bytes().all(|byte| byte.is_ascii_digit())).then(|| {
                format!("the encoder {name:?} is no number: Onity knows an encoder by its client number, e.g. \"1\"")
            })
        };
        let numbers = config.encoders.iter().filter_map(not_a_number);
        rooms.chain(encoders).filter_map(unsayable).chain(numbers).collect()
    }

    /// What a form of the protocol can do.
    #[must_use]
    pub fn capabilities(dialect: Dialect) -> Capabilities {
        // Of Amadeus no whole message is published, only in what it differs from Onity's.
        let all = match dialect {
            Dialect::Salto | Dialect::SaltoHours | Dialect::Onity => ProofLevel::Vector,
            Dialect::AmadeusSt40 => ProofLevel::Simulator,
        };
        Capabilities {
            r#override: Some(all),
            join: Some(all),
            future_start: (!dialect.is_old()).then_some(all),
            checkout: Some(all),
            modify_stay: match dialect {
                Dialect::Salto => Some(all),
                Dialect::SaltoHours | Dialect::Onity => Some(ProofLevel::Simulator),
                Dialect::AmadeusSt40 => None,
            },
            read_card: Some(all),
            open_end: None,
            slots: None,
            unlock: None,
            chip_numbers: None,
            max_rooms: dialect.max_rooms() as u16,
            max_common: 62,
            answer_means_written: true,
            parallel_encoders: false,
        }
    }

    async fn perform_work(&self, work: Work, progress: &ProgressSink) -> Performed {
        let command = match self.command(&work) {
            Ok(Some(command)) => command,
            Ok(None) => return Performed::Ended(Outcome::Succeeded(Success::default())),
            Err(refusal) => return Performed::Ended(Outcome::Failed(refusal)),
        };
        if *self.stopping.borrow() {
            return Performed::NothingSent(Refusal::new(
                Code::SystemOffline,
                "latchd is stopping; nothing new is begun",
            ));
        }
        if let Order::CardEncode(card) = &work.order
            && let Some(performed) = self.another_card(card, &work.order, progress).await
        {
            return performed;
        }
        let before = match (&work.order, &command) {
            (Order::CardEncode(card), Command::WriteCard(write)) => {
                self.last_cards.note(card.access_method_id, write)
            }
            _ => None,
        };
        let start = match &command {
            Command::WriteCard(write) => write.start,
            _ => None,
        };
        let writes = command.writes();
        let held = self.converse(command, &work.order, progress).await;
        if let (
            Order::CardEncode(card),
            Held::Came(Came::NothingSent(_) | Came::Refused(_)) | Held::NotBegun(_),
        ) = (&work.order, &held)
        {
            self.last_cards.take_back(card.encoder.as_str(), before);
        }
        match held {
            Held::Came(Came::NothingSent(refusal)) | Held::NotBegun(refusal) => {
                Performed::NothingSent(refusal)
            }
            Held::Came(Came::Refused(refusal)) => {
                if refusal.vendor_code.as_deref() == Some("ES") {
                    // Nothing at the site causes this: our frame and this server do not agree.
                    tracing::error!(system = %self.system, "the lock server reports a syntax error");
                }
                Performed::Ended(Outcome::Failed(refusal))
            }
            Held::Came(Came::Doubt(refusal)) => Performed::Ended(Outcome::Unknown(refusal)),
            Held::Came(Came::Done(fields)) => Performed::Ended(self.done(&work, start, &fields)),
            Held::Lost if writes => Performed::Ended(Outcome::unknown(
                Code::AgentStopped,
                "the line's task ended while the command was under way; it may have been done",
            )),
            Held::Lost => Performed::Ended(Outcome::failed(
                Code::SystemOffline,
                "the line's task ended while the command was under way",
            )),
        }
    }

    /// Sees to it that the card to be written is another one than the one written last, where the encoder does not do so
    /// by itself; how the order ends where it is not.
    async fn another_card(
        &self,
        card: &CardEncode,
        order: &Order,
        progress: &ProgressSink,
    ) -> Option<Performed> {
        if self.config.wait_for_removal {
            return None;
        }
        let encoder = card.encoder.as_str();
        let last = self.last_cards.before(encoder, card.access_method_id)?;
        let give_up = Instant::now() + Duration::from_secs(card.card_wait_seconds.into());
        loop {
            let eject = if self.config.dialect.has_eject() { Eject::DoNotWait } else { Eject::Empty };
            let read = self.read_card(&card.encoder, eject);
            let fields = match self.converse(read, order, progress).await {
                Held::Came(Came::Done(fields)) => fields,
                Held::Came(Came::NothingSent(refusal)) | Held::NotBegun(refusal) => {
                    return Some(Performed::NothingSent(refusal));
                }
                // It is of another system: whatever it is, it was not written here last.
                Held::Came(Came::Refused(refusal)) if refusal.code == Code::BadCard => return None,
                Held::Came(Came::Refused(refusal) | Came::Doubt(refusal)) => {
                    return Some(Performed::Ended(Outcome::Failed(refusal)));
                }
                Held::Lost => {
                    let message = "the line's task ended while the encoder was being looked at";
                    return Some(Performed::Ended(Outcome::failed(Code::SystemOffline, message)));
                }
            };
            if !CardShown::read(&fields).is_some_and(|shown| last.is(&shown)) {
                return None;
            }
            if give_up <= Instant::now() {
                let message = format!(
                    "the card that was written last still lies on encoder {encoder}: take it away and lay down another one"
                );
                return Some(Performed::Ended(Outcome::failed(Code::NoCard, message)));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Holds a conversation, unless its encoder rests.
    async fn converse(&self, command: Command, order: &Order, progress: &ProgressSink) -> Held {
        let manners = self.manners(order);
        let encoder = command.encoder().filter(|_| self.is_tcp()).map(str::to_owned);
        let conversation = Conversation::new(command, manners);
        let Some(encoder) = encoder else { return self.hold(conversation, progress).await.0 };
        if let Some(refusal) = self.rests.refusal(&encoder) {
            return Held::NotBegun(refusal);
        }
        self.rests.begin(&encoder, manners.longest());
        let (held, answer_may_come) = self.hold(conversation, progress).await;
        if !matches!(held, Held::Lost) {
            self.rests.end(&encoder, answer_may_come);
        }
        held
    }

    async fn hold(&self, conversation: Conversation, progress: &ProgressSink) -> (Held, bool) {
        let (stages, mut told) = mpsc::channel::<Stage>(4);
        let (came, mut end) = oneshot::channel();
        let request = Box::new(Request { conversation, stages, came });
        if self.requests.send(request).await.is_err() {
            let refusal = Refusal::new(Code::SystemOffline, "the line's task has ended");
            return (Held::NotBegun(refusal), false);
        }
        loop {
            tokio::select! {
                biased;
                Some(stage) = told.recv() => progress(stage),
                came = &mut end => return match came {
                    Ok((came, answer_may_come)) => (Held::Came(came), answer_may_come),
                    Err(_) => (Held::Lost, true),
                },
            }
        }
    }

    /// What an answered command comes to; `start` is the one that stood in it.
    fn done(&self, work: &Work, start: Option<civil::DateTime>, fields: &[String]) -> Outcome {
        let success = match &work.order {
            Order::CardEncode(card) => Success {
                written: Some(Written::Proven),
                card: Some(CardFacts {
                    serial: answer::serial(fields).map(String::from),
                    overrode: Some(work.treatment == Treatment::Override),
                    printed_end: self.printed_end(card).ok().and_then(|end| self.wall.end_of(end)),
                    printed_start: start.and_then(|start| self.wall.start_of(start)),
                }),
                ..Success::default()
            },
            Order::CardRead(_) => match CardShown::read(fields) {
                Some(shown) => Success { seen: Some(self.seen(shown)), ..Success::default() },
                None => {
                    return Outcome::failed(
                        Code::ProtocolViolation,
                        "the lock server answered the reading without saying what card it is",
                    );
                }
            },
            Order::StayCheckout { .. } | Order::StayModify(_) => {
                Success { written: Some(Written::Proven), ..Success::default() }
            }
            Order::SlotPut(_)
            | Order::SlotRemove { .. }
            | Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. }
            | Order::InventoryRefresh => Success::default(),
        };
        Outcome::Succeeded(success)
    }

    fn seen(&self, shown: CardShown) -> CardSeen {
        match shown {
            CardShown::Guest(GuestCard { rooms, valid, copy, authorisations, start, expiry, operator }) => {
                CardSeen::Guest {
                    rooms,
                    valid,
                    original: copy == CopyNumber::Original,
                    common: authorisations
                        .iter()
                        .filter_map(|number| {
                            let named = |common: &&CommonConfig| common.authorisation == *number;
                            self.config.common.iter().find(named)
                        })
                        .map(|common| common.name.as_str().to_owned())
                        .collect(),
                    starts_at: start.and_then(|start| self.wall.start_of(start)),
                    ends_at: expiry.and_then(|expiry| self.wall.end_of(expiry)),
                    made_here: (!operator.is_empty()).then(|| is_name(&operator, &self.config.operator)),
                }
            }
            CardShown::Staff => CardSeen::Staff,
            CardShown::Invalid => CardSeen::Invalid,
            CardShown::Other(what) => CardSeen::Other { what },
        }
    }
}

/// What became of a conversation handed to the keeper.
enum Held {
    Came(Came),
    /// The keeper was gone before.
    NotBegun(Refusal),
    /// The keeper went on the way.
    Lost,
}

impl Driver for SaltoIs {
    fn system(&self) -> &SystemName {
        &self.system
    }

    fn inventory(&self) -> SystemInventory {
        let rooms = self.config.rooms.iter().map(|room| Door {
            name: room.name.clone(),
            display_name: room.display_name.clone(),
            kind: DoorKind::Room,
        });
        let common = self.config.common.iter().map(|common| Door {
            name: common.name.clone(),
            display_name: common.display_name.clone(),
            kind: DoorKind::Common,
        });
        let encoders = self.config.encoders.iter().map(|encoder| Encoder {
            name: encoder.name.clone(),
            display_name: encoder.display_name.clone(),
        });
        SystemInventory {
            // The site's choice, not the system's: the agent fills it in.
            checkout_on_last_grant: false,
            override_after_deleted_card: false,
            name: self.system.clone(),
            kind: SystemKind::SaltoIs,
            time_zone: self.wall.zone_name().to_owned(),
            capabilities: Self::capabilities(self.config.dialect),
            doors: rooms.chain(common).collect(),
            encoders: encoders.collect(),
            devices: Vec::new(),
        }
    }

    fn lanes(&self) -> Vec<LaneName> {
        vec![lane(&self.system)]
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        let mut printed_end = None;
        let rooms = match order {
            Order::CardEncode(card) => {
                self.check_encoder(&card.encoder)?;
                let (rooms, _granted) = self.doors(card)?;
                self.check_hours(card)?;
                printed_end = self.wall.end_of(self.printed_end(card)?);
                rooms
            }
            Order::CardRead(read) => {
                self.check_encoder(&read.encoder)?;
                Vec::new()
            }
            Order::StayCheckout { room, .. } => {
                self.check_stay_room(room)?;
                vec![room.clone()]
            }
            Order::StayModify(stay) => {
                self.modify_stay(stay)?;
                vec![stay.room.clone()]
            }
            Order::InventoryRefresh => Vec::new(),
            Order::SlotPut(_)
            | Order::SlotRemove { .. }
            | Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. } => return Err(unsupported(order)),
        };
        Ok(Admission { printed_end, ..Admission::to(lane(&self.system), rooms) })
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.line.clone()
    }

    fn rests(&self) -> Vec<Resting> {
        let encoders = self.config.encoders.iter().filter(|_| self.is_tcp());
        let rest = |it: &EncoderConfig| {
            self.rests.resting(it.name.as_str(), lane(&self.system), Some(it.name.clone()))
        };
        encoders.filter_map(rest).collect()
    }

    fn perform<'a>(&'a self, work: Work, progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        Box::pin(self.perform_work(work, progress))
    }

    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

fn lane(system: &SystemName) -> LaneName {
    LaneName::new(system.as_str()).expect("a system's name is a lane's name too")
}
