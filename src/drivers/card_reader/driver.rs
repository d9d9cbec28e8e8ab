//! Orders to conversations with readers, and what came of them to outcomes.
//!
//! A reader is an encoder and a lane of its own, `system/encoder`. Its line is opened for each job and closed behind it: a
//! reader that was unplugged is found again by the next job, and others may use it in between.
//!
//! Nothing is ever written to a card, so no job of a reader is ever in doubt.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use jiff::tz::TimeZone;
use tokio::sync::watch;

use super::session::{Came, Conversation, NoNumber, Note, Task};
use crate::{
    config::CardReaderConfig,
    drivers::{Driver, Line, Performed, ProgressSink, Proof, Trouble, Work},
    model::{
        Admission, Capabilities, CardFacts, CardSeen, Code, Encoder, EncoderName, LaneName, Order, Outcome,
        ProofLevel, Refusal, Success, SystemInventory, SystemKind, SystemName, Written,
    },
    protocol::Stage,
    seams::{self, BoxFuture, Clock, Net, SystemNet},
    transport::{self, Target},
};

/// Ports are looked at this often: whether a reader is plugged in shows before somebody stands there with a card.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The readers of one system.
pub struct CardReaders {
    system: SystemName,
    time_zone: TimeZone,
    readers: BTreeMap<EncoderName, Reader>,
    net: Arc<dyn Net>,
    clock: Clock,
    line: watch::Sender<Line>,
    stopping: watch::Sender<bool>,
}

/// One reader.
struct Reader {
    lane: LaneName,
    display_name: Option<String>,
    target: Target,
    /// The number that was read last for a method, as long as the card may still lie there.
    former: Mutex<Option<Vec<u8>>>,
    /// Why it cannot be reached.
    missing: Mutex<Option<Trouble>>,
}

impl CardReaders {
    /// What the driver has against a configuration.
    #[must_use]
    pub fn mistakes(config: &CardReaderConfig) -> Vec<String> {
        let mistake = |reader: &crate::config::ReaderConfig| {
            let error = Target::from_config(&reader.line).err()?;
            Some(format!("encoder {}: {error}", reader.name))
        };
        config.encoders.iter().filter_map(mistake).collect()
    }

    /// Takes the readers in hand. Nothing is opened yet.
    #[must_use]
    pub fn start(
        config: &CardReaderConfig,
        system: SystemName,
        time_zone: TimeZone,
        clock: Clock,
    ) -> Arc<Self> {
        Self::start_over(Arc::new(SystemNet), config, system, time_zone, clock)
    }

    /// [`Self::start`] with connections made over `net`.
    ///
    /// A reader whose line makes no sense is left out, with an error in the log: it is judged where the configuration is
    /// read.
    #[must_use]
    pub fn start_over(
        net: Arc<dyn Net>,
        config: &CardReaderConfig,
        system: SystemName,
        time_zone: TimeZone,
        clock: Clock,
    ) -> Arc<Self> {
        let mut readers = BTreeMap::new();
        for reader in &config.encoders {
            let lane = LaneName::new(format!("{system}/{}", reader.name));
            match (Target::from_config(&reader.line), lane) {
                (Ok(target), Ok(lane)) => {
                    let reader_of = Reader {
                        lane,
                        display_name: reader.display_name.clone(),
                        target,
                        former: Mutex::default(),
                        missing: Mutex::default(),
                    };
                    readers.insert(reader.name.clone(), reader_of);
                }
                (Err(error), _) => {
                    tracing::error!(%system, encoder = %reader.name, %error, "the reader is left out");
                }
                (_, Err(error)) => {
                    tracing::error!(%system, encoder = %reader.name, %error, "the reader is left out");
                }
            }
        }
        let driver = Arc::new(Self {
            system,
            time_zone,
            readers,
            net,
            clock,
            line: watch::Sender::new(Line::Ready),
            stopping: watch::Sender::new(false),
        });
        seams::spawn(look_after(Arc::downgrade(&driver), driver.stopping.subscribe()));
        driver
    }

    /// What readers can do; the same for every site.
    #[must_use]
    pub fn capabilities() -> Capabilities {
        Capabilities {
            r#override: None,
            join: None,
            future_start: None,
            checkout: None,
            modify_stay: None,
            read_card: Some(ProofLevel::Vector),
            open_end: None,
            slots: None,
            unlock: None,
            chip_numbers: Some(ProofLevel::Vector),
            max_rooms: 0,
            max_common: 0,
            answer_means_written: true,
            parallel_encoders: true,
        }
    }

    /// The reader that an order is for; none where all of them are meant.
    fn reader_for(&self, order: &Order) -> Result<Option<(&EncoderName, &Reader)>, Refusal> {
        let encoder = match order {
            Order::CardEncode(card) if !card.doors.is_empty() => {
                return Err(Refusal::new(
                    Code::Unsupported,
                    "`doors`: a reader writes no doors on cards; it reads the number of a card for devices that know cards by it",
                ));
            }
            Order::CardEncode(card) => &card.encoder,
            Order::CardRead(read) => &read.encoder,
            Order::InventoryRefresh => return Ok(None),
            Order::StayModify(_)
            | Order::StayCheckout { .. }
            | Order::SlotPut(_)
            | Order::SlotRemove { .. }
            | Order::DeviceUnlock { .. }
            | Order::DeviceRead { .. } => {
                return Err(Refusal::new(
                    Code::Unsupported,
                    format!("a reader on a desk cannot do {}", order.kind().as_str()),
                ));
            }
        };
        self.readers.get_key_value(encoder).map(Some).ok_or_else(|| {
            let names: Vec<_> = self.readers.keys().map(EncoderName::as_str).collect();
            Refusal::new(
                Code::EncoderUnknown,
                format!("system {} has no encoder {encoder}; it has: {}", self.system, names.join(", ")),
            )
        })
    }

    async fn perform_work(&self, work: &Work, progress: &ProgressSink) -> Performed {
        let wait = |seconds: u16| Duration::from_secs(seconds.into());
        let (within, is_for_a_method) = match &work.order {
            Order::CardEncode(card) => (wait(card.card_wait_seconds), true),
            Order::CardRead(read) => (wait(read.card_wait_seconds), false),
            _ => return self.refresh().await,
        };
        let reader = match self.reader_for(&work.order) {
            Ok(Some((_, reader))) => reader,
            Ok(None) => return self.refresh().await,
            Err(refusal) => return Performed::Ended(Outcome::Failed(refusal)),
        };
        let former = is_for_a_method.then(|| reader.former().clone()).flatten();
        let mut talk = Conversation::new(Task::Read(within), former);
        let came = self.talk(reader, &mut talk, progress).await;
        if talk.former_is_gone() {
            *reader.former() = None;
        }
        let failed = |code, message: &str| Performed::Ended(Outcome::failed(code, message));
        match came {
            Ok(Came::Card(target)) => {
                if is_for_a_method {
                    *reader.former() = Some(target.uid.clone());
                }
                let facts = CardFacts { serial: Some(target.number()), ..CardFacts::default() };
                let seen = CardSeen::Other { what: target.kind().to_owned() };
                Performed::Ended(Outcome::Succeeded(Success {
                    written: is_for_a_method.then_some(Written::Proven),
                    card: Some(facts),
                    seen: Some(seen),
                    ..Success::default()
                }))
            }
            Ok(Came::NoCard(None)) => failed(Code::NoCard, "no card was laid down in time"),
            Ok(Came::NoCard(Some(NoNumber::Several))) => {
                failed(Code::BadCard, "several cards lay there at once: lay down one")
            }
            Ok(Came::NoCard(Some(NoNumber::Random))) => failed(
                Code::BadCard,
                "this card, or telephone, tells another number each time: take one that keeps its number",
            ),
            Ok(Came::NoCard(Some(NoNumber::Former))) => failed(
                Code::NoCard,
                "the card that was read before still lay there: lift it, and lay the next one down",
            ),
            Ok(Came::Silent | Came::Closed) => failed(
                Code::EncoderOffline,
                "the reader does not answer: look at its plug, or unplug it and plug it in again",
            ),
            Ok(Came::OtherChip(chip)) => Performed::Ended(Outcome::failed(
                Code::EncoderOffline,
                format!("what is at {} is no PN532: it says it is {chip:02X}", reader.target),
            )),
            Ok(Came::Identified(_)) => failed(Code::EncoderOffline, "the reader answered what was not asked"),
            Err(refusal) if refusal.code == Code::SystemOffline => Performed::NothingSent(refusal),
            Err(refusal) => Performed::Ended(Outcome::Failed(refusal)),
        }
    }

    /// Holds one conversation. A stop ends it: nothing is lost by that.
    async fn talk(
        &self,
        reader: &Reader,
        talk: &mut Conversation,
        progress: &ProgressSink,
    ) -> Result<Came, Refusal> {
        let mut told = self.stopping.subscribe();
        let stopped = async {
            // The sender lives as long as the driver.
            let _ = told.wait_for(|stop| *stop).await;
        };
        let conversation = async {
            let opened = reader.target.open(self.net.as_ref()).await;
            let mut port = opened.map_err(|error| Refusal::new(Code::EncoderOffline, error.to_string()))?;
            let came = transport::run(&mut port, talk, |note| match note {
                Note::Waiting => progress(Stage::WaitingForCard),
            })
            .await;
            reader.target.hang_up(port).await;
            Ok(came)
        };
        tokio::select! {
            biased;
            () = stopped => {
                Err(Refusal::new(Code::SystemOffline, "latchd is stopping; the card was not waited for any more"))
            }
            came = conversation => came,
        }
    }

    /// Looks at every reader, one after the other.
    async fn refresh(&self) -> Performed {
        let mut silent = Vec::new();
        for (name, reader) in &self.readers {
            let mut talk = Conversation::new(Task::Identify, None);
            match self.talk(reader, &mut talk, &|_| {}).await {
                Ok(Came::Identified(_)) => {}
                Err(refusal) if refusal.code == Code::SystemOffline => {
                    return Performed::NothingSent(refusal);
                }
                _ => silent.push(name.as_str()),
            }
        }
        match silent.as_slice() {
            [] => Performed::Ended(Outcome::Succeeded(Success::default())),
            silent => Performed::Ended(Outcome::failed(
                Code::EncoderOffline,
                format!("readers that do not answer: {}", silent.join(", ")),
            )),
        }
    }

    /// Looks whether every reader's port is there. Nothing is opened, and a TCP server is left alone.
    async fn look(&self) {
        let mut is_news = false;
        for (name, reader) in self.readers.iter().filter(|(_, reader)| !reader.target.is_tcp()) {
            let found = reader.target.look(self.net.as_ref()).await;
            let mut missing = reader.missing.lock().expect("no panic while held");
            // While a job has it open, it is ours.
            let error = found.err().filter(|error| error.code() != "port_held");
            if error.is_some() == missing.is_some() {
                continue;
            }
            is_news = true;
            *missing = error.map(|error| Trouble {
                code: "encoder_offline",
                message: format!("encoder {}/{name}: {error}", self.system),
                since: self.clock.now(),
            });
            match &*missing {
                Some(trouble) => tracing::warn!("{}", trouble.message),
                None => tracing::info!(system = %self.system, encoder = %name, "the reader is there again"),
            }
        }
        if is_news {
            self.line.send_modify(|_| {});
        }
    }
}

impl Reader {
    fn former(&self) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
        self.former.lock().expect("no panic while held")
    }
}

async fn look_after(readers: Weak<CardReaders>, mut stopping: watch::Receiver<bool>) {
    loop {
        let Some(driver) = readers.upgrade() else { return };
        driver.look().await;
        drop(driver);
        tokio::select! {
            // The sender goes with the driver.
            stopped = stopping.wait_for(|stop| *stop) => return drop(stopped),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn all_readers(system: &SystemName) -> LaneName {
    LaneName::new(system.as_str()).expect("a system's name is a lane's name too")
}

impl Driver for CardReaders {
    fn system(&self) -> &SystemName {
        &self.system
    }

    fn inventory(&self) -> SystemInventory {
        let encoder = |(name, reader): (&EncoderName, &Reader)| Encoder {
            name: name.clone(),
            display_name: reader.display_name.clone(),
        };
        SystemInventory {
            name: self.system.clone(),
            kind: SystemKind::CardReader,
            time_zone: self.time_zone.iana_name().unwrap_or("Etc/Unknown").to_owned(),
            capabilities: Self::capabilities(),
            checkout_on_last_grant: false,
            override_after_deleted_card: false,
            doors: Vec::new(),
            encoders: self.readers.iter().map(encoder).collect(),
            devices: Vec::new(),
        }
    }

    fn lanes(&self) -> Vec<LaneName> {
        let readers = self.readers.values().map(|reader| reader.lane.clone());
        std::iter::once(all_readers(&self.system)).chain(readers).collect()
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        let at = self.reader_for(order)?;
        let lane = at.map_or_else(|| all_readers(&self.system), |(_, reader)| reader.lane.clone());
        Ok(Admission::to(lane, Vec::new()))
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.line.subscribe()
    }

    fn remark(&self) -> Option<Trouble> {
        let missing = |reader: &Reader| reader.missing.lock().expect("no panic while held").clone();
        self.readers.values().find_map(missing)
    }

    fn perform<'a>(&'a self, work: Work, progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        Box::pin(async move { self.perform_work(&work, progress).await })
    }

    fn prove<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Proof> {
        let _ = work;
        let why = "a reader changes nothing: whatever was read was not told, and is read again when it is asked for";
        Box::pin(async move { Proof::NotDone(Refusal::new(Code::NoAnswer, why)) })
    }

    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

impl std::fmt::Debug for CardReaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CardReaders")
            .field("system", &self.system)
            .field("readers", &self.readers.len())
            .finish_non_exhaustive()
    }
}
