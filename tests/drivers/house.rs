//! A house with its agent and its systems, under simulated time: cards are ordered at the desk, go the whole road of
//! queue, dispatcher and driver, and are judged by what the systems' doors make of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use jiff::{
    RoundMode, SignedDuration, Timestamp, TimestampRound, ToSpan, Unit,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use latchd::{
    agent::{
        self,
        admin::{NewJob, Request, Response},
    },
    config::AgentConfig,
    drivers::{Driver, Past},
    model::{
        AccessMethodId, Capabilities, CardEncode, CardRead, CardSeen, Code, DoorName, EncoderName, JobId,
        Order, Outcome, Priority, ReservationKey, SystemName, Treatment, Window,
    },
    queue::JobDetail,
    seams::{Clock, MemoryNet, Net, Process, Random},
    store::{Reserve, vfs::memory::Disk},
};
use rusqlite::Connection;
use serde_json::Value;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    makes::{Layout, Ledger, Make, Site, StartDriver, StartMake, Written},
    simulated::side::{AgentLife, AgentStart, Circles, End, RESERVE, Side, address, doom},
    wire::{Faults, PORT, WEB_PORT, Wire},
};

/// Between two looks at how a job stands.
const A_MOMENT: Duration = Duration::from_millis(100);
/// No job takes longer to come to its end, whatever goes wrong.
const PATIENCE: Duration = Duration::from_secs(1200);
/// How long a person may take to lay a card down, in seconds.
pub(crate) const CARD_WAIT: u16 = 60;
/// Longer than any system goes on by itself with what it was told.
const AT_REST: Duration = Duration::from_secs(400);

/// An access system of the house.
pub(crate) struct System {
    pub(crate) name: &'static str,
    pub(crate) make: Box<dyn Make>,
    pub(crate) wire: Wire,
}

impl System {
    /// Says something to the simulator, which must understand it.
    pub(crate) async fn say(&self, words: &str) -> Value {
        self.make.say(words).await.unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    pub(crate) async fn ledger(&self) -> Ledger {
        self.make.ledger(&self.say("ledger").await)
    }

    /// How many cards the agent has asked for.
    pub(crate) fn ordered(&self) -> usize {
        self.wire.said().iter().map(|said| self.make.ordered(&said.by_agent)).sum()
    }

    /// Whether a card opens a door now; it is held there.
    pub(crate) async fn opens(&self, card: &str, door: &str) -> bool {
        self.say(&format!("use {card} at {door}")).await["opened"] == true
    }
}

/// A card that the desk wants.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) system: usize,
    pub(crate) encoder: String,
    pub(crate) doors: Vec<String>,
    pub(crate) stay: String,
    pub(crate) starts_at: Timestamp,
    /// How long it is good for; none is for ever. A minute of its own is added, by which the card is known; an hour where the
    /// system has no minutes.
    pub(crate) span: Option<SignedDuration>,
    /// Not begun later than so many seconds from now.
    pub(crate) expires_in: u32,
}

/// What became of a card that was ordered.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) card: Card,
    pub(crate) ends_at: Option<Timestamp>,
}

pub(crate) struct House {
    pub(crate) systems: Vec<System>,
    pub(crate) clock: Clock,
    pub(crate) jobs: Vec<Job>,
    layout: Layout,
    is_shared: bool,
    agent: Side<AgentLife>,
    /// Whether a crash may have come between the mark of a job and its first byte.
    pub(crate) has_crashed: bool,
    devices: Process,
    random: Random,
}

impl House {
    /// A house with a system of each of these makes, whose agent is at work.
    pub(crate) async fn open(makes: &[StartMake]) -> Self {
        Self::open_at(makes, "2026-11-22T12:00:00Z", false).await
    }

    /// [`Self::open`] at a time of one's own; others may make cards as well.
    pub(crate) async fn open_at(makes: &[StartMake], now: &str, is_shared: bool) -> Self {
        let (now, layout): (Timestamp, _) = (now.parse().unwrap(), Layout::default());
        let start = |(name, start): (&'static str, &StartMake)| System {
            name,
            make: start(&layout, now),
            wire: Wire::default(),
        };
        let mut house = Self {
            systems: ["main", "annex"].into_iter().zip(makes).map(start).collect(),
            clock: Clock::simulated(now),
            jobs: Vec::new(),
            layout,
            is_shared,
            agent: Side::new(),
            has_crashed: false,
            devices: Process::new(|| false),
            random: Random::seeded(makes.len() as u64),
        };
        for system in &house.systems {
            let listener = system.wire.listen(address(PORT)).await.unwrap();
            house.devices.spawn(system.make.serve(listener));
            let listener = system.wire.listen(address(WEB_PORT)).await.unwrap();
            if let Some(serving) = system.make.serve_web(listener) {
                house.devices.spawn(serving);
            }
        }
        house.start().await;
        house
    }

    // The agent.

    /// Starts the agent, and waits until it has looked at its lines.
    pub(crate) async fn start(&mut self) {
        self.agent.lives += 1;
        let starters: BTreeMap<SystemName, (StartDriver, Wire)> = self
            .systems
            .iter()
            .map(|it| (SystemName::new(it.name).unwrap(), (it.make.starter(), it.wire.clone())))
            .collect();
        let zone = TimeZone::get(self.layout.zone).unwrap();
        let start = AgentStart {
            disk: self.agent.disk.clone(),
            reserve: |disk: &Disk| Reserve::new(disk.storage(), RESERVE),
            clock: self.clock.clone(),
            random: Random::seeded(self.agent.lives),
            // The cloud is away: the desk works without it.
            net: Arc::new(MemoryNet::default()),
            pace: || Duration::from_millis(1),
            circles: Circles::default(),
            is_set_back: Arc::new(AtomicBool::new(false)),
            spoil: |_: &mut Connection| Ok(()),
            config: self.config(),
            drivers: move |parts: &agent::Parts, config: &AgentConfig, in_doubt: &BTreeSet<SystemName>| {
                let start = |system: &latchd::config::SystemConfig| {
                    let (start, wire) = &starters[&system.name];
                    let past =
                        if in_doubt.contains(&system.name) { Past::AnswerMayCome } else { Past::Answered };
                    let net: Arc<dyn Net> = Arc::new(wire.clone());
                    let (clock, random) = (parts.clock.clone(), parts.random.clone());
                    start(system, Site { net, zone: zone.clone(), past, clock, random })
                };
                config.systems.iter().map(start).collect::<Vec<Arc<dyn Driver>>>()
            },
        };
        self.agent.life = start.begin().await;
        sleep(Duration::from_secs(2)).await;
    }

    fn config(&self) -> AgentConfig {
        let section = |system: &System| {
            let name = system.name;
            let own = system.make.section(&self.layout, &format!("{name}:{PORT}"));
            format!("[[system]]\nname = \"{name}\"\nexclusive = {}\n{own}", !self.is_shared)
        };
        let sections: String = self.systems.iter().map(section).collect();
        let text = format!(
            "[site]\nname = \"House\"\ntime_zone = \"{}\"\n[storage]\nfolder = \"s\"\n\
             [limits]\ncards_per_hour = 100000\n{sections}",
            self.layout.zone
        );
        AgentConfig::from_toml(Path::new("/latchd.toml"), &text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What the driver of a system declares.
    pub(crate) fn declares(&self, system: usize) -> Capabilities {
        let config = self.config();
        let config = config.systems.iter().find(|it| it.name.as_str() == self.systems[system].name).unwrap();
        let site = Site {
            net: Arc::new(MemoryNet::default()),
            zone: TimeZone::UTC,
            past: Past::Answered,
            clock: self.clock.clone(),
            random: Random::seeded(0),
        };
        self.systems[system].make.starter()(config, site).inventory().capabilities
    }

    /// The agent dies, and its disk with it as far as the end says; then it is started again.
    pub(crate) async fn crash(&mut self, end: End) {
        self.has_crashed = true;
        if let Some(life) = self.agent.life.take() {
            life.process.kill();
            life.process.ended().await;
        }
        self.agent.disk.cut(end.cut(), &self.random);
        self.start().await;
    }

    /// Lets the agent die after so many steps more of its own.
    pub(crate) fn doom(&self, steps: u64) {
        doom(&self.agent.life.as_ref().unwrap().process, steps);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.agent.life.as_ref().is_none_or(|life| life.process.is_dead())
    }

    /// Asks the agent; nothing where it is dead or dies over it.
    async fn ask(&self, request: Request) -> Option<Response> {
        let (answer, told) = oneshot::channel();
        let asked = self.agent.life.as_ref()?.questions.send((request, answer));
        asked.await.ok()?;
        told.await.ok()
    }

    // Orders.

    /// A card for a room of the first system, as most are.
    pub(crate) fn card(&self, room: &str, stay: &str) -> Card {
        Card {
            system: 0,
            encoder: "1".into(),
            doors: [room, "pool"].map(String::from).into(),
            stay: stay.into(),
            starts_at: self.clock.now(),
            span: Some(SignedDuration::from_hours(44)),
            expires_in: 600,
        }
    }

    /// Orders a card. Its number is the plastic's on which it is to be written.
    pub(crate) async fn order(&mut self, card: Card) -> usize {
        let number = self.jobs.len();
        let own = match self.systems[card.system].make.has_hours_only() {
            true => SignedDuration::from_hours(number as i64),
            false => SignedDuration::from_mins(number as i64),
        };
        let ends_at = card.span.map(|span| card.starts_at + span + own);
        let id = JobId(Uuid::from_u128(1 + number as u128));
        let order = Order::CardEncode(CardEncode {
            encoder: EncoderName::new(&card.encoder).unwrap(),
            doors: card.doors.iter().map(|door| DoorName::new(door).unwrap()).collect(),
            reservation_key: Some(ReservationKey::new(card.stay.as_str()).unwrap()),
            window: Window::new(card.starts_at, ends_at).unwrap(),
            access_method_id: AccessMethodId(Uuid::from_u128(1 + number as u128)),
            guest_name: None,
            card_wait_seconds: CARD_WAIT,
            begin_again: false,
        });
        let (system, expires_in) = (card.system, card.expires_in);
        self.jobs.push(Job { id, card, ends_at });
        self.add(system, id, order, expires_in).await;
        number
    }

    async fn add(&self, system: usize, id: JobId, order: Order, expires_in_seconds: u32) {
        let system = SystemName::new(self.systems[system].name).unwrap();
        let job = NewJob { job_id: Some(id), system, priority: Priority::Desk, expires_in_seconds, order };
        self.ask(Request::Add { job: Box::new(job), by: "desk".into() }).await;
    }

    /// Orders something else, and says how it ended.
    pub(crate) async fn has(&mut self, system: usize, order: Order) -> Outcome {
        let id = JobId(self.random.uuid());
        self.add(system, id, order, 600).await;
        self.ends(id).await.expect("it was taken").outcome.expect("it is over")
    }

    /// Reads the card on an encoder of the first system.
    pub(crate) async fn read(&mut self, encoder: &str) -> Outcome {
        let encoder = EncoderName::new(encoder).unwrap();
        self.has(0, Order::CardRead(CardRead { encoder, card_wait_seconds: CARD_WAIT })).await
    }

    /// Lays a card's plastic down where it is to be written.
    pub(crate) async fn lay(&self, number: usize) {
        let Card { system, encoder, .. } = &self.jobs[number].card;
        self.systems[*system].say(&format!("remove {encoder}")).await;
        self.systems[*system].say(&format!("place {} on {encoder}", plastic(number))).await;
    }

    pub(crate) async fn take_away(&self, number: usize) {
        let Card { system, encoder, .. } = &self.jobs[number].card;
        self.systems[*system].say(&format!("remove {encoder}")).await;
    }

    /// Orders a card whose plastic lies there already, and says how that ended.
    pub(crate) async fn make(&mut self, card: Card) -> (usize, Outcome) {
        let (system, encoder) = (card.system, card.encoder.clone());
        let number = self.jobs.len();
        self.systems[system].say(&format!("remove {encoder}")).await;
        self.systems[system].say(&format!("place {} on {encoder}", plastic(number))).await;
        self.order(card).await;
        let outcome = self.end(number).await;
        self.take_away(number).await;
        (number, outcome)
    }

    /// How a job ended, once it has.
    pub(crate) async fn end(&self, number: usize) -> Outcome {
        let detail = self.ends(self.jobs[number].id).await.expect("the job is there");
        detail.outcome.unwrap_or_else(|| panic!("job {number} is {:?}", detail.view.state))
    }

    async fn ends(&self, id: JobId) -> Option<JobDetail> {
        let (until, mut pause) = (Instant::now() + PATIENCE, A_MOMENT);
        while Instant::now() < until {
            match self.job(id).await {
                Some(detail) if detail.view.state.is_over() => return Some(detail),
                // What takes long is looked at less often.
                _ => sleep(pause).await,
            }
            pause = (pause * 5 / 4).min(20 * A_MOMENT);
        }
        self.job(id).await
    }

    /// How a job stands; none where the agent is dead or has never heard of it.
    pub(crate) async fn job(&self, id: JobId) -> Option<JobDetail> {
        let queue = self.agent.life.as_ref()?.queue.clone();
        queue.run(move |queue| queue.job(id)).await.ok()?
    }

    /// Waits until an encoder is at work or is not.
    pub(crate) async fn is_busy(&self, system: usize, encoder: &str, busy: bool) {
        let until = Instant::now() + PATIENCE;
        while self.systems[system].say("ledger").await["encoders"][encoder]["busy"] != busy {
            assert!(Instant::now() < until, "encoder {encoder} is never so: busy {busy}");
            sleep(A_MOMENT).await;
        }
    }

    // The verdict.

    /// Mends whatever is broken and lets everything come to rest.
    pub(crate) async fn rest(&self) {
        for system in &self.systems {
            system.wire.set(Faults::default());
            system.say("fault clear").await;
        }
        sleep(AT_REST).await;
    }

    /// Lets everything come to rest, and compares what was said of every card with what the systems have written.
    pub(crate) async fn judge(&self) -> Tally {
        self.rest().await;
        let mut tally = Tally::default();
        let mut wrong = Vec::new();
        for (place, system) in self.systems.iter().enumerate() {
            let ledger = system.ledger().await;
            let ends: BTreeSet<_> = self.jobs.iter().filter_map(|job| self.printed(job)).collect();
            for stray in ledger.written.iter().filter(|it| !ends.contains(&it.end)) {
                wrong.push(format!("{}: nobody ordered {stray:?}", system.name));
            }
            wrong.extend(self.opens_too_much(&ledger));
            for (number, job) in self.jobs.iter().enumerate().filter(|(_, job)| job.card.system == place) {
                let detail = self.job(job.id).await;
                let what = self.misjudged(number, job, detail.as_ref(), &ledger, &mut tally);
                wrong.extend(what.map(|what| format!("{} card {number}: {what}", system.name)));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        tally
    }

    fn misjudged(
        &self,
        number: usize,
        job: &Job,
        detail: Option<&JobDetail>,
        ledger: &Ledger,
        tally: &mut Tally,
    ) -> Option<String> {
        let written: Vec<_> = ledger.written.iter().filter(|it| Some(it.end) == self.printed(job)).collect();
        let Some(detail) = detail else {
            return (!self.has_crashed || !written.is_empty()).then(|| format!("lost, and {written:?}"));
        };
        let Some(outcome) = &detail.outcome else { return Some(format!("still {:?}", detail.view.state)) };
        if 1 < written.len() {
            return Some(format!("written {} times", written.len()));
        }
        match outcome {
            Outcome::Succeeded(_) => {
                tally.succeeded += 1;
                let Some(it) = written.first() else { return Some("succeeded, and was not written".into()) };
                let rooms: Vec<_> =
                    job.card.doors.iter().filter(|it| self.layout.rooms.contains(it)).collect();
                let is_so = it.card == plastic(number) && it.rooms.iter().collect::<Vec<_>>() == rooms;
                let joins = detail.treatment == Some(Treatment::Join);
                if !is_so || it.joins != joins {
                    return Some(format!("succeeded, and {it:?} was written"));
                }
                let shut = self.stays_shut(job, it, ledger)?;
                Some(format!("succeeded, and does not open {shut}"))
            }
            Outcome::Unknown(why) => {
                tally.unknown += 1;
                tally.unknown_written += usize::from(!written.is_empty());
                let may_have_left = self.has_crashed || 0 < self.systems[job.card.system].ordered();
                (!may_have_left).then(|| format!("unknown ({why}), and nothing was asked"))
            }
            Outcome::Failed(_) | Outcome::Cancelled | Outcome::Expired(_) | Outcome::Superseded => {
                tally.not_done += 1;
                (!written.is_empty()).then(|| format!("{outcome:?}, and {written:?}"))
            }
        }
    }

    /// Cards that open a door for which what was written on them last was not ordered.
    fn opens_too_much(&self, ledger: &Ledger) -> Vec<String> {
        let mut wrong = Vec::new();
        for (door, cards) in &ledger.doors {
            for card in cards {
                let Some(last) = ledger.written.iter().rfind(|it| it.card == *card) else { continue };
                let job = self.jobs.iter().find(|job| self.printed(job) == Some(last.end));
                if job.is_none_or(|job| !job.card.doors.contains(door)) {
                    wrong.push(format!("{card} opens {door}: {last:?}"));
                }
            }
        }
        wrong
    }

    /// A door that a card should open by now, and does not: unless its plastic was written again, or a stay has begun in its
    /// room since.
    fn stays_shut<'a>(&self, job: &'a Job, written: &Written, ledger: &Ledger) -> Option<&'a String> {
        let now = self.clock.now();
        let later = ledger.written.iter().skip_while(|it| *it != written).skip(1);
        // What the locks learned of the other desk's cards is not known here.
        let is_over = self.is_shared
            || job.ends_at.is_none_or(|ends_at| ends_at <= now)
            || now < job.card.starts_at
            || later.clone().any(|it| it.card == written.card);
        let is_taken = |door: &String| later.clone().any(|it| !it.joins && it.rooms.contains(door));
        let should_open = |door: &&String| !is_over && !is_taken(door);
        job.card.doors.iter().filter(should_open).find(|door| !ledger.doors[*door].contains(&written.card))
    }

    /// A job's end as the systems print it.
    fn printed(&self, job: &Job) -> Option<DateTime> {
        let (zone, ends_at) = (TimeZone::get(self.layout.zone).unwrap(), job.ends_at?);
        if self.systems[job.card.system].make.has_hours_only() {
            // The first that the clocks show, and only from then on.
            let begun = zone.to_datetime(ends_at).date().at(0, 0, 0, 0);
            let hours = (0..48).map(|hours| begun + hours.hours());
            let is_so = |hour: &DateTime| {
                let meant = zone.to_ambiguous_zoned(*hour);
                !matches!(meant.offset(), AmbiguousOffset::Gap { .. })
                    && ends_at <= meant.earlier().unwrap().timestamp()
            };
            return hours.into_iter().find(is_so);
        }
        let round = TimestampRound::new().smallest(Unit::Minute).mode(RoundMode::Ceil);
        Some(zone.to_datetime(ends_at.round(round).unwrap()))
    }
}

/// Nothing of a house goes on once its story is told.
impl Drop for House {
    fn drop(&mut self) {
        if let Some(life) = &self.agent.life {
            life.process.kill();
        }
        self.devices.kill();
    }
}

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) succeeded: usize,
    pub(crate) unknown: usize,
    /// Those of them that proved to be written.
    pub(crate) unknown_written: usize,
    pub(crate) not_done: usize,
}

/// The name of the plastic for a card.
pub(crate) fn plastic(number: usize) -> String {
    format!("card-{number}")
}

/// An outcome in a word and its code.
pub(crate) fn word(outcome: &Outcome) -> String {
    match outcome.reason() {
        Some(why) => format!("{} {}", outcome.state(), why.code),
        None => outcome.state().to_string(),
    }
}

/// A refusal's code.
pub(crate) fn code(outcome: &Outcome) -> Option<Code> {
    outcome.reason().map(|why| why.code)
}

/// What a reading has shown.
pub(crate) fn seen(outcome: Outcome) -> CardSeen {
    let Outcome::Succeeded(success) = outcome else { panic!("{outcome:?}") };
    success.seen.expect("a card was read")
}
