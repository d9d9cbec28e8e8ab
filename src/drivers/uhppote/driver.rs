//! Orders to conversations with boards, and what came of them to outcomes.
//!
//! A door is a device, and a board is a lane, `system/serial`: its doors share one list of cards. `inventory.refresh` has
//! the lane `system`. Whatever is written is read back before it counts as done.
//!
//! What a board holds is read once, and each card again before it is changed. Where the board shows another number of
//! cards than it should have, all of it is read anew: it may have forgotten everything.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex as Now,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::{Unit, tz::TimeZone};
use ring::digest::{SHA256, digest};
use tokio::sync::{Mutex, watch};

use super::{
    events::Mark,
    keeper,
    line::{self, Way},
    listener, number,
    plan::{Hours, Memory, Plan, Removal},
    session::{Came, Conversation, Manners, Note, Task},
    values::{CardNumber, Event, Held},
};
use crate::{
    config::{BoardDoor, UhppoteConfig},
    drivers::{Driver, Line, Observed, Performed, ProgressSink, Proof, Trouble, Work, local},
    model::{
        Admission, Capabilities, Code, Device, DeviceName, DoorAct, DoorEvent, DoorMeans, LaneName, Order,
        Outcome, PinConstraint, PinRules, ProofLevel, Refusal, SlotContent, SlotNow, SlotPut, Success,
        SystemInventory, SystemKind, SystemName, Written,
    },
    seams::{self, BoxFuture, Clock, Net, SystemNet},
};

/// How many records of a log are read at once.
const RECORDS: u32 = 64;

/// The boards of one system.
pub struct Uhppote {
    pub(super) system: SystemName,
    pub(super) config: UhppoteConfig,
    pub(super) time_zone: TimeZone,
    pub(super) boards: Vec<Board>,
    /// By the names of doors: which board, and which door of it.
    doors: BTreeMap<DeviceName, (usize, BoardDoor)>,
    pub(super) net: Arc<dyn Net>,
    pub(super) clock: Clock,
    line: watch::Sender<Line>,
    /// Counts what boards told by themselves.
    stirs: watch::Sender<u64>,
    /// Why boards cannot tell it.
    deaf: Now<Option<Trouble>>,
    pub(super) stopping: watch::Sender<bool>,
}

/// One board.
pub(super) struct Board {
    pub(super) serial: u32,
    pub(super) way: Way,
    lane: LaneName,
    /// What it holds, once it was read. It answers one request at a time.
    turn: Mutex<Option<Memory>>,
    /// Its time profiles are spent: some door keeps days where it should keep hours.
    is_spent: AtomicBool,
    /// What was put since the start, by the numbers that the board was told: it tells nothing apart that has one number.
    contents: Now<BTreeMap<CardNumber, SlotContent>>,
}

/// What is said of a board, or the end of what was tried with it.
type Tried<T> = Result<T, Came>;

impl Uhppote {
    /// Takes the boards in hand. Their clocks are set, and they are told where to send what happens.
    #[must_use]
    pub fn start(config: &UhppoteConfig, system: SystemName, time_zone: TimeZone, clock: Clock) -> Arc<Self> {
        Self::start_over(Arc::new(SystemNet), config, system, time_zone, clock)
    }

    /// [`Self::start`] over this network.
    #[must_use]
    pub fn start_over(
        net: Arc<dyn Net>,
        config: &UhppoteConfig,
        system: SystemName,
        time_zone: TimeZone,
        clock: Clock,
    ) -> Arc<Self> {
        let board = |board: &crate::config::BoardConfig| Board {
            serial: board.serial,
            way: match (board.address, board.is_tcp) {
                (Some(address), true) => Way::Tcp(address),
                (Some(address), false) => Way::Udp(address),
                (None, _) => Way::Broadcast(config.broadcast),
            },
            lane: LaneName::new(format!("{system}/{}", board.serial)).expect("a system's name and digits"),
            turn: Mutex::new(None),
            is_spent: AtomicBool::new(false),
            contents: Now::default(),
        };
        let doors = config.boards.iter().enumerate().flat_map(|(at, board)| {
            board.doors.iter().map(move |door| (door.name.clone(), (at, door.clone())))
        });
        let driver = Arc::new(Self {
            boards: config.boards.iter().map(board).collect(),
            doors: doors.collect(),
            config: config.clone(),
            system,
            time_zone,
            net,
            clock,
            line: watch::Sender::new(Line::Ready),
            stirs: watch::Sender::new(0),
            deaf: Now::default(),
            stopping: watch::Sender::new(false),
        });
        seams::spawn(keeper::keep(Arc::downgrade(&driver), driver.stopping.subscribe()));
        if let Some(at) = config.listener {
            seams::spawn(listener::listen(Arc::downgrade(&driver), at, driver.stopping.subscribe()));
        }
        driver
    }

    /// What these boards can do; the same for every site.
    #[must_use]
    pub fn capabilities() -> Capabilities {
        Capabilities {
            r#override: None,
            join: None,
            future_start: None,
            checkout: None,
            modify_stay: None,
            read_card: None,
            open_end: None,
            slots: Some(ProofLevel::Vector),
            unlock: Some(ProofLevel::Vector),
            chip_numbers: None,
            max_rooms: 0,
            max_common: 0,
            answer_means_written: true,
            parallel_encoders: false,
        }
    }

    fn door(&self, device: &DeviceName) -> Result<(&Board, &BoardDoor), Refusal> {
        let (board, door) = self.doors.get(device).ok_or_else(|| {
            Refusal::new(Code::DeviceUnknown, format!("system {} has no door {device}", self.system))
        })?;
        Ok((&self.boards[*board], door))
    }

    /// The door that an order is about; none where every board is meant.
    fn door_for(&self, order: &Order) -> Result<Option<(&Board, &BoardDoor)>, Refusal> {
        match order {
            Order::SlotPut(put) => {
                let (board, door) = self.door(&put.device)?;
                self.asked(put, door)?;
                Ok(Some((board, door)))
            }
            Order::SlotRemove { device, .. }
            | Order::DeviceUnlock { device }
            | Order::DeviceRead { device } => self.door(device).map(Some),
            Order::InventoryRefresh => Ok(None),
            Order::CardEncode(_) | Order::CardRead(_) | Order::StayModify(_) | Order::StayCheckout { .. } => {
                Err(Refusal::new(
                    Code::Unsupported,
                    format!("a board knows cards by their numbers and cannot do {}", order.kind().as_str()),
                ))
            }
        }
    }

    /// What is to be put, in a board's words.
    fn asked(&self, put: &SlotPut, door: &BoardDoor) -> Result<(CardNumber, Hours), Refusal> {
        let number = number::of(&put.content, door, self.config.card_numbers)?;
        let (from, until) = local::window(put.window, Unit::Minute, &self.time_zone);
        let years = 2000..=2099;
        if !years.contains(&from.year()) || until.is_some_and(|until| !years.contains(&until.year())) {
            return Err(Refusal::new(Code::BadDates, "`window`: a board keeps years from 2000 to 2099"));
        }
        Ok((number, Hours { from, until }))
    }

    /// The numbers that a slot may hold. What is none at this door never was there.
    fn may_hold(&self, slot: &SlotNow, door: &BoardDoor) -> Vec<CardNumber> {
        let number = |content: &SlotContent| number::of(content, door, self.config.card_numbers).ok();
        slot.may_hold.iter().filter_map(number).collect()
    }

    async fn perform_work(&self, work: &Work) -> Performed {
        let (board, door) = match self.door_for(&work.order) {
            Ok(Some(at)) => at,
            Ok(None) => return self.refresh().await,
            Err(refusal) => return Performed::Ended(Outcome::Failed(refusal)),
        };
        if let Some(refusal) = work.forgotten() {
            return Performed::Ended(Outcome::Failed(refusal));
        }
        let slot = work.slot.clone().unwrap_or_default();
        let came = match &work.order {
            Order::SlotPut(put) => match self.asked(put, door) {
                Ok((number, hours)) => match self.same_to(board, number, &put.content) {
                    Some(refusal) => Err(Came::NotDone(refusal)),
                    None => self.put(board, door, number, hours, &slot).await.inspect(|()| {
                        board.contents().insert(number, put.content.clone());
                    }),
                },
                Err(refusal) => Err(Came::NotDone(refusal)),
            },
            Order::SlotRemove { .. } => self.remove(board, door, &self.may_hold(&slot, door)).await,
            Order::DeviceUnlock { .. } => self.say_in_turn(board, Task::Open(door.door), |_| {}).await,
            _ => self.say_in_turn(board, Task::Status, |_| {}).await,
        };
        match came {
            Ok(()) => {
                let is_slot = matches!(work.order, Order::SlotPut(_) | Order::SlotRemove { .. });
                let written = is_slot.then_some(Written::Proven);
                Performed::Ended(Outcome::Succeeded(Success { written, ..Success::default() }))
            }
            Err(Came::Done) => unreachable!("what is done is no end of what was tried"),
            Err(Came::NothingSent(refusal)) => Performed::NothingSent(refusal),
            Err(Came::NotDone(refusal)) => Performed::Ended(Outcome::Failed(refusal)),
            Err(Came::Doubt(refusal)) if work.order.kind().is_repeatable() => Performed::MayRepeat(refusal),
            Err(Came::Doubt(refusal)) => Performed::Ended(Outcome::Unknown(refusal)),
        }
    }

    async fn prove_work(&self, work: &Work) -> Proof {
        let Ok(Some((board, door))) = self.door_for(&work.order) else { return Proof::None };
        let slot = work.slot.clone().unwrap_or_default();
        if work.forgotten().is_some() {
            return Proof::None;
        }
        let mut turn = board.turn.lock().await;
        let seen = match &work.order {
            Order::SlotPut(put) => match self.asked(put, door) {
                Ok((number, hours)) => self.shows(board, &mut turn, door, number, hours).await,
                Err(_) => return Proof::None,
            },
            Order::SlotRemove { .. } => {
                let mut opens = false;
                for number in self.may_hold(&slot, door) {
                    match self.known(board, &mut turn, number).await {
                        Ok(memory) => opens |= memory.opens(number, door.door),
                        Err(_) => return Proof::None,
                    }
                }
                Ok(Some(!opens))
            }
            _ => return Proof::None,
        };
        match seen {
            Ok(Some(true)) => Proof::Done(Success { written: Some(Written::Proven), ..Success::default() }),
            Ok(Some(false)) => {
                Proof::NotDone(Refusal::new(Code::NoAnswer, "the board's own list does not show it"))
            }
            Ok(None) | Err(_) => Proof::None,
        }
    }

    /// Whether the board shows a card at a door as it would be put; none where it shows it otherwise.
    async fn shows(
        &self,
        board: &Board,
        turn: &mut Option<Memory>,
        door: &BoardDoor,
        number: CardNumber,
        hours: Hours,
    ) -> Tried<Option<bool>> {
        let memory = self.known(board, turn, number).await?;
        if !memory.opens(number, door.door) {
            return Ok(Some(false));
        }
        let Plan { profiles, card, .. } = memory.put(number, door.door, hours, self.pool());
        let is_there = profiles.iter().all(|profile| memory.profiles.get(&profile.id) == Some(profile));
        Ok((is_there && memory.cards.get(&number) == Some(&card)).then_some(true))
    }

    /// Whether a board of this serial number may speak from there.
    pub(super) fn is_ours(&self, serial: u32, from: SocketAddr) -> bool {
        self.boards.iter().any(|board| board.serial == serial && board.way.is_from(from))
    }

    /// Something happened at a board.
    pub(super) fn stirred(&self) {
        self.stirs.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Events of boards are heard, or why not.
    pub(super) fn listens(&self, deaf: Option<Trouble>) {
        let mut now = self.deaf.lock().expect("no panic while held");
        if now.as_ref().map(|now| &now.message) == deaf.as_ref().map(|deaf| &deaf.message) {
            return;
        }
        match &deaf {
            Some(deaf) => tracing::warn!(system = %self.system, "{}", deaf.message),
            None => tracing::info!(system = %self.system, "events of boards are heard again"),
        }
        *now = deaf;
        drop(now);
        self.look_at_remark();
    }

    /// [`Driver::remark`] says something else now.
    fn look_at_remark(&self) {
        self.line.send_modify(|_| {});
    }

    fn pool(&self) -> std::ops::RangeInclusive<u8> {
        self.config.profiles.0..=self.config.profiles.1
    }

    /// Why a number cannot be put that the board was told of another card, or of a PIN: it would open that one's doors too.
    fn same_to(&self, board: &Board, number: CardNumber, content: &SlotContent) -> Option<Refusal> {
        let contents = board.contents();
        contents.get(&number).filter(|known| *known != content)?;
        Some(Refusal::new(
            Code::ContentTaken,
            format!(
                "board {} knows another card or PIN by the same number and would not tell them apart: choose another",
                board.serial
            ),
        ))
    }

    /// Lets a number open a door, and what else its slot may hold no more.
    async fn put(
        &self,
        board: &Board,
        door: &BoardDoor,
        number: CardNumber,
        hours: Hours,
        slot: &SlotNow,
    ) -> Tried<()> {
        let mut turn = board.turn.lock().await;
        let may_hold = self.may_hold(slot, door);
        let memory = self.known(board, &mut turn, number).await?;
        if memory.opens(number, door.door) && !may_hold.contains(&number) && !slot.is_forgotten {
            return Err(Came::NotDone(Refusal::new(
                Code::ContentTaken,
                format!(
                    "another slot of door {}, or another program, has this number: choose another",
                    door.name
                ),
            )));
        }
        let Plan { profiles, card, is_coarse } = memory.put(number, door.door, hours, self.pool());
        if is_coarse && !board.is_spent.swap(true, Ordering::Relaxed) {
            self.look_at_remark();
            tracing::warn!(
                system = %self.system, board = board.serial,
                "all time profiles are in use: what comes now is bounded by days, and removed when its window ends"
            );
        } else if !is_coarse && !profiles.is_empty() && board.is_spent.swap(false, Ordering::Relaxed) {
            self.look_at_remark();
        }
        // What is under way may be there or not: the next one reads the board anew.
        let mut known = turn.take().unwrap_or_default();
        if !profiles.is_empty() {
            self.say(board, Task::PutProfiles(profiles.clone()), |_| {}).await?;
            known.profiles.extend(profiles.into_iter().map(|profile| (profile.id, profile)));
        }
        self.say(board, Task::PutCard(card.clone()), |_| {}).await?;
        known.cards.insert(number, card);
        *turn = Some(known);
        for former in may_hold.into_iter().filter(|former| *former != number) {
            self.take_out(board, &mut turn, door, former).await.map_err(|came| match came {
                // The new number is in: that one of two things is done is no end.
                Came::NothingSent(refusal) => Came::Doubt(refusal),
                came => came,
            })?;
        }
        Ok(())
    }

    async fn remove(&self, board: &Board, door: &BoardDoor, numbers: &[CardNumber]) -> Tried<()> {
        let mut turn = board.turn.lock().await;
        for (at, number) in numbers.iter().enumerate() {
            self.take_out(board, &mut turn, door, *number).await.map_err(|came| match came {
                Came::NothingSent(refusal) if 0 < at => Came::Doubt(refusal),
                came => came,
            })?;
        }
        Ok(())
    }

    /// Lets a number open a door no more.
    async fn take_out(
        &self,
        board: &Board,
        turn: &mut Option<Memory>,
        door: &BoardDoor,
        number: CardNumber,
    ) -> Tried<()> {
        let removal = self.known(board, turn, number).await?.remove(number, door.door);
        let mut known = turn.take().unwrap_or_default();
        match removal {
            Removal::Nothing => {}
            Removal::Put(card) => {
                self.say(board, Task::PutCard(card.clone()), |_| {}).await?;
                known.cards.insert(number, card);
            }
            Removal::Delete(_) => {
                self.say(board, Task::DeleteCard(number), |_| {}).await?;
                known.cards.remove(&number);
                board.contents().remove(&number);
            }
        }
        *turn = Some(known);
        Ok(())
    }

    /// What a board holds, with one card as it is now.
    async fn known<'t>(
        &self,
        board: &Board,
        turn: &'t mut Option<Memory>,
        number: CardNumber,
    ) -> Tried<&'t Memory> {
        if let Some(memory) = turn.as_mut() {
            let mut seen = None;
            self.say(board, Task::See(number), |note| {
                if let Note::Sees { count, held } = note {
                    seen = Some((count, held));
                }
            })
            .await?;
            let (count, held) = seen.unwrap_or((0, Held::Nothing));
            match held {
                Held::Card(card) => drop(memory.cards.insert(number, card)),
                Held::Nothing | Held::Deleted => drop(memory.cards.remove(&number)),
            }
            if memory.cards.len() as u64 != u64::from(count) {
                tracing::info!(system = %self.system, board = board.serial, "the board holds other cards than before");
                *turn = None;
            }
        }
        if turn.is_none() {
            *turn = Some(self.read(board).await?);
        }
        Ok(turn.as_ref().expect("it was read just now"))
    }

    /// Reads all that matters of what a board holds.
    async fn read(&self, board: &Board) -> Tried<Memory> {
        let mut memory = Memory::default();
        let mut is_whole = false;
        self.say(board, Task::List, |note| {
            if let Note::Holds { cards, is_whole: all } = note {
                memory.cards = cards.into_iter().map(|card| (card.number, card)).collect();
                is_whole = all;
            }
        })
        .await?;
        if !is_whole {
            let message = "the board lists fewer cards than it says it has; it is read again";
            return Err(Came::NothingSent(Refusal::new(Code::DeviceBusy, message)));
        }
        self.say(board, Task::Profiles(self.pool()), |note| {
            if let Note::Profiles(profiles) = note {
                memory.profiles = profiles.into_iter().map(|profile| (profile.id, profile)).collect();
            }
        })
        .await?;
        tracing::debug!(
            system = %self.system, board = board.serial, cards = memory.cards.len(),
            profiles = memory.profiles.len(), "the board was read"
        );
        Ok(memory)
    }

    /// Holds one conversation with a board. A stop ends it if nothing of its command has left yet.
    async fn say(&self, board: &Board, task: Task, mut note: impl FnMut(Note)) -> Tried<()> {
        let mut told = self.stopping.subscribe();
        let left = AtomicBool::new(false);
        let stopped = async {
            // The sender lives as long as the driver.
            let _ = told.wait_for(|stop| *stop).await;
            if left.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let stopped = pin!(stopped);
        let manners = Manners { answer_timeout: self.config.answer_timeout, ..Manners::default() };
        let mut talk = Conversation::new(board.serial, task, manners);
        let conversation = line::run(&*self.net, &board.way, &mut talk, |told| match told {
            Note::Leaves => left.store(true, Ordering::Relaxed),
            told => note(told),
        });
        let came = tokio::select! {
            biased;
            () = stopped => Came::NothingSent(stopping()),
            came = conversation => came,
        };
        match came {
            Came::Done => Ok(()),
            came => Err(came),
        }
    }

    /// The same once it is the board's turn, for what needs nothing of its memory.
    pub(super) async fn say_in_turn(&self, board: &Board, task: Task, note: impl FnMut(Note)) -> Tried<()> {
        let _turn = board.turn.lock().await;
        self.say(board, task, note).await
    }

    /// Looks at every board, one after the other.
    async fn refresh(&self) -> Performed {
        let mut silent = Vec::new();
        for board in &self.boards {
            match self.say_in_turn(board, Task::Status, |_| {}).await {
                Ok(()) => {}
                Err(_) if *self.stopping.borrow() => return Performed::NothingSent(stopping()),
                Err(_) => silent.push(board.serial.to_string()),
            }
        }
        match silent.as_slice() {
            [] => Performed::Ended(Outcome::Succeeded(Success::default())),
            silent => Performed::Ended(Outcome::failed(
                Code::DeviceOffline,
                format!("boards that could not be read: {}", silent.join(", ")),
            )),
        }
    }

    /// What happened at a door since a mark.
    async fn watch(&self, device: &DeviceName, mark: Option<&str>) -> Result<Observed, Refusal> {
        let (board, door) = self.door(device)?;
        let mut happened = None;
        let task = Task::Events { after: mark.and_then(read_mark), most: RECORDS };
        let read = self.say_in_turn(board, task, |note| {
            if let Note::Happened { events, lost, mark, more } = note {
                happened = Some((events, lost, mark, more));
            }
        });
        let came = read.await;
        match (came, happened) {
            (Ok(()), Some((events, lost, mark, more))) => {
                let at_door = events.iter().filter(|event| event.door == door.door);
                let events = at_door.filter_map(|event| self.told(board, device, event)).collect();
                Ok(Observed { events, lost, mark: mark.map(write_mark).unwrap_or_default(), more })
            }
            (Ok(()), None) => Err(Refusal::new(Code::NoAnswer, "the board did not show its log")),
            (Err(Came::NothingSent(refusal) | Came::NotDone(refusal) | Came::Doubt(refusal)), _) => {
                Err(refusal)
            }
            (Err(Came::Done), _) => unreachable!("what is done is no end of what was tried"),
        }
    }

    /// What a record of a board's log is to a door; none where it is of something else, or at no time.
    fn told(&self, board: &Board, device: &DeviceName, event: &Event) -> Option<DoorEvent> {
        let (what, by) = match (event.granted, event.reason) {
            (true, 20) => (DoorAct::Unlocked, Some(DoorMeans::Manual)),
            (true, 44 | 45) => (DoorAct::Unlocked, Some(DoorMeans::Remote)),
            (true, 25) => (DoorAct::Unlocked, Some(DoorMeans::Keycode)),
            // A number that was typed instead of a card looks the same.
            (true, 1 | 10) => (DoorAct::Unlocked, Some(DoorMeans::Card)),
            (false, 5..=9 | 11..=13 | 15 | 18) => (DoorAct::AccessDenied, Some(DoorMeans::Card)),
            _ => return None,
        };
        let at = event.at?;
        let own = format!("{}/{device}/{}/{}/{at}", self.system, board.serial, event.index);
        let hash = digest(&SHA256, own.as_bytes());
        let bytes = hash.as_ref().first_chunk::<16>().expect("a hash has 32 bytes");
        Some(DoorEvent {
            door_event_id: uuid::Builder::from_custom_bytes(*bytes).into_uuid(),
            at: self.time_zone.to_timestamp(at).ok()?,
            what,
            by,
            slot: None,
            job_id: None,
        })
    }
}

/// A mark as the queue keeps it.
fn write_mark(mark: Mark) -> String {
    match mark.at {
        Some(at) => format!("{} {at}", mark.index),
        None => mark.index.to_string(),
    }
}

fn read_mark(text: &str) -> Option<Mark> {
    let (index, at) = text.split_once(' ').map_or((text, None), |(index, at)| (index, Some(at)));
    Some(Mark { index: index.parse().ok()?, at: at.and_then(|at| at.parse().ok()) })
}

fn stopping() -> Refusal {
    Refusal::new(Code::SystemOffline, "latchd is stopping; nothing new is begun")
}

fn all_boards(system: &SystemName) -> LaneName {
    LaneName::new(system.as_str()).expect("a system's name is a lane's name too")
}

impl Board {
    fn contents(&self) -> std::sync::MutexGuard<'_, BTreeMap<CardNumber, SlotContent>> {
        self.contents.lock().expect("no panic while held")
    }
}

impl Driver for Uhppote {
    fn system(&self) -> &SystemName {
        &self.system
    }

    fn inventory(&self) -> SystemInventory {
        let lead = u32::try_from(self.config.lead.as_secs()).unwrap_or(u32::MAX);
        let device = |(name, (_, door)): (&DeviceName, &(usize, BoardDoor))| Device {
            name: name.clone(),
            display_name: door.display_name.clone(),
            slots: 0,
            pins: door.keypad.then(|| PinRules {
                lengths: door.pin_lengths.clone(),
                // A number does not begin with 0.
                constraints: vec![PinConstraint::NoZeros],
            }),
            device_type: Some("uhppote_door".into()),
            manufacturer: Some("UHPPOTE".into()),
            model: None,
            lead_seconds: Some(lead),
            // The site's limits say whether it may be.
            remote_unlock: None,
            card_numbers: true,
        };
        SystemInventory {
            name: self.system.clone(),
            kind: SystemKind::Uhppote,
            time_zone: self.time_zone.iana_name().unwrap_or("Etc/Unknown").to_owned(),
            capabilities: Self::capabilities(),
            checkout_on_last_grant: false,
            override_after_deleted_card: false,
            doors: Vec::new(),
            encoders: Vec::new(),
            devices: self.doors.iter().map(device).collect(),
        }
    }

    fn lanes(&self) -> Vec<LaneName> {
        let boards = self.boards.iter().map(|board| board.lane.clone());
        std::iter::once(all_boards(&self.system)).chain(boards).collect()
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        let at = self.door_for(order)?;
        let lane = at.map_or_else(|| all_boards(&self.system), |(board, _)| board.lane.clone());
        let lead = match order {
            Order::SlotPut(_) => self.config.lead,
            _ => Duration::ZERO,
        };
        Ok(Admission { lead, ..Admission::to(lane, Vec::new()) })
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.line.subscribe()
    }

    fn remark(&self) -> Option<Trouble> {
        let Some(spent) = self.boards.iter().find(|board| board.is_spent.load(Ordering::Relaxed)) else {
            return self.deaf.lock().expect("no panic while held").clone();
        };
        Some(Trouble {
            code: "time_profiles_spent",
            message: format!(
                "all time profiles of board {} are in use: further cards keep days there, and hours only while latchd runs; \
                 give it more of them (`profiles`)",
                spent.serial
            ),
            since: self.clock.now(),
        })
    }

    fn perform<'a>(&'a self, work: Work, _progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        Box::pin(async move { self.perform_work(&work).await })
    }

    fn prove<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Proof> {
        Box::pin(self.prove_work(work))
    }

    fn observed(&self) -> Option<(Vec<DeviceName>, Duration)> {
        Some((self.doors.keys().cloned().collect(), self.config.read_events_every))
    }

    fn stirs(&self) -> Option<watch::Receiver<u64>> {
        Some(self.stirs.subscribe())
    }

    fn observe<'a>(
        &'a self,
        device: &'a DeviceName,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Observed, Refusal>> {
        Box::pin(self.watch(device, after))
    }

    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

impl std::fmt::Debug for Uhppote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uhppote")
            .field("system", &self.system)
            .field("boards", &self.boards.len())
            .finish_non_exhaustive()
    }
}
