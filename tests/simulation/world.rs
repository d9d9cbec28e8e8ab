//! One property, its cloud, and everything that goes wrong between them, from one seed.
//!
//! Both sides are the product's own code on the real SQLite: hub and database, link, queue, dispatcher and drivers.
//! What stands in for the outside is time (tokio's, paused), the network, the disks and the devices. Everything runs on
//! one thread, so what happens is decided by the seed alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use latchd::{
    drivers::{
        salto_is::sim::{Settings, Simulator},
        sim_lock,
    },
    model::{Job, JobId},
    seams::{Clock, Process, Random},
    store::vfs::memory::{Disk, Image},
};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::{
    desk::{Attempts, Desk},
    judge::Tally,
    mutant::Mutant,
    simulated::{
        net::{Host, Network, Road},
        play,
        side::{AgentLife, Circles, CloudLife, MOST_STEPS, Side, doom, ended},
    },
};

mod people;
mod rest;
mod sides;
mod site;
mod trouble;

use site::property;

/// How long things go wrong.
pub(super) const TROUBLE: Duration = Duration::from_secs(300);
/// How long everything may take to come to rest after that, with nothing going wrong any more.
const REST: Duration = Duration::from_secs(45 * 60);
/// When the long ones of the locks' entries end, after the beginning: late enough that everything else is at rest.
const LONG_ENTRIES: Duration = Duration::from_secs(8 * 60);
const SALTO: u16 = 8090;
/// The first lock's; the others follow.
const LOCKS: u16 = 4801;
const LOCK_COUNT: u64 = 2;
const SLOTS: u64 = 4;
const ROOMS: u64 = 6;
const ENCODERS: u64 = 2;
const LANES: [&str; 3] = ["salto", "keys/k1", "keys/k2"];
/// What a person at the site orders in vain while an agent that starts holds its jobs.
const MOST_IN_VAIN: u64 = 30;
/// How long until a person tries again what could not be asked for.
const AGAIN: Duration = Duration::from_secs(3);

/// Nor turns of a seed; see [`MOST_STEPS`].
const MOST_TURNS: u64 = 20_000;

/// What one seed came to, and what was done in it.
pub(super) type Story = play::Story<Tally>;

/// Plays one seed.
pub(super) fn play(seed: u64, mutant: Mutant) -> Story {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async move {
        let mut world = World::new(seed, mutant);
        world.run().await;
        world.end().await
    })
}

/// An order that was given to the cloud, or at the site.
pub(super) struct Ordered {
    pub(super) job: Job,
    /// Whether it was given to the agent by a person at the site.
    pub(super) local: bool,
    /// Whether who was given it has said to hold it.
    pub(super) held: bool,
}

/// What the test knows because it did it.
#[derive(Default)]
pub(super) struct Book {
    pub(super) orders: BTreeMap<u64, Ordered>,
    /// The cloud was set back to an older state, so it may have forgotten orders.
    pub(super) cloud_restored: bool,
    /// The clock of the agent's host was wrong for a while.
    pub(super) clock_jumped: bool,
    /// Cards that the hotel's own desk made at the lock server: for which room, and after how many orders had ended there.
    pub(super) foreign: Vec<(String, u64)>,
    /// The number of the last order before each time that the agent was set back.
    pub(super) agent_restored: Vec<u64>,
    /// What guests' cards were asked for at the cloud's API.
    pub(super) desk: Desk,
    /// What was seen of the API's attempts, until the cloud is set back.
    pub(super) attempts: Attempts,
    /// How often work under way was looked at on a full disk.
    pub(super) full_disks: u64,
    /// What was seen to be wrong on the way.
    pub(super) wrong: Vec<String>,
    /// Pauses of lanes over which it was counted what began there.
    pub(super) pauses: u64,
    /// Doubts that a person has settled.
    pub(super) settled: u64,
}

struct World {
    seed: u64,
    mutant: Mutant,
    random: Random,
    begun: Instant,
    network: Network,
    cloud: Side<CloudLife>,
    agent: Side<AgentLife>,
    cloud_clock: Clock,
    agent_clock: Clock,
    salto: Simulator,
    locks: Vec<sim_lock::sim::Simulator>,
    /// What the locks held when all was done but what has its time still to come.
    tables: Option<(Timestamp, Vec<serde_json::Value>)>,
    book: Arc<Mutex<Book>>,
    /// The agent's memory was put back from a backup, and it has not been told yet.
    agent_is_set_back: Arc<AtomicBool>,
    /// Likewise the cloud's; it is told in few seeds.
    cloud_is_set_back: Arc<AtomicBool>,
    /// The agent's box was replaced by another one, which is to be paired before it starts.
    agent_is_new: bool,
    /// It was replaced at least once.
    agent_was_replaced: bool,
    /// The cloud does not know the keys of the box that replaced another, so it is paired once more.
    pairs_again: bool,
    /// What a box comes with.
    blank: Image,
    /// Whose disks were filled while they had room and so the whole reserve, and not put back since.
    filled_beside_reserve: BTreeSet<Host>,
    /// The agent's disk goes back to its copy before its next start, and nobody will tell it.
    agent_rolls_back: bool,
    /// The cloud's disk goes back to its copy when its process has ended; until then nothing is copied.
    cloud_goes_back: bool,
    /// The agent is to be started over before it meets its cloud.
    agent_starts_over: bool,
    /// Until then nothing goes wrong.
    calm_until: Instant,
    /// How often jobs had begun in each paused lane when its pause was said to be durable.
    paused: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    /// The process of all devices.
    devices: Process,
    /// What turned in a circle.
    circles: Circles,
    turns: u64,
    /// Of the longest life of a process so far.
    most_steps: u64,
    plan: BTreeMap<(Instant, u64), Action>,
    planned: u64,
    cards: u64,
    healed: bool,
    history: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    Order,
    OrderHere,
    Cancel,
    Pause,
    Resume(&'static str),
    Hand,
    Trouble,
    StartCloud,
    StartAgent,
    StopAgent,
    MendRoad(Host, Host),
    MendSalto,
    MendLocks,
    MendDisk(Host),
    Sturdy,
    LookForDoubts,
    ForeignCard,
    CopyAgent,
    CopyCloud,
    PutCloudBack,
    OrderInVain,
    StartOver,
    Guest,
    ChangeGrant,
    EncodeAgain,
    LookAtAttempts,
    Heal,
}

impl World {
    fn new(seed: u64, mutant: Mutant) -> Self {
        let start = noon();
        let settings = Settings { property: property(), starts_at: Some(start), ..Settings::default() };
        let real = Clock::simulated(start);
        let lock = |number: u64| {
            let settings = sim_lock::sim::Settings {
                name: format!("k{number}"),
                time_zone: "Etc/UTC".into(),
                ..sim_lock::sim::Settings::default()
            };
            sim_lock::sim::Simulator::new(&settings, real.clone()).unwrap()
        };
        let locks = (1..=LOCK_COUNT).map(lock).collect();
        let agent = Side::new();
        let blank = agent.disk.image();
        Self {
            seed,
            mutant,
            random: Random::seeded(seed),
            begun: Instant::now(),
            network: Network::new(Random::seeded(seed ^ 0x6e65_7477)),
            cloud: Side::new(),
            agent,
            cloud_clock: Clock::simulated(start),
            agent_clock: Clock::simulated(start),
            salto: Simulator::new(settings).unwrap(),
            locks,
            tables: None,
            book: Arc::default(),
            agent_is_set_back: Arc::default(),
            cloud_is_set_back: Arc::default(),
            agent_is_new: false,
            agent_was_replaced: false,
            pairs_again: false,
            blank,
            filled_beside_reserve: BTreeSet::new(),
            agent_rolls_back: false,
            cloud_goes_back: false,
            agent_starts_over: false,
            calm_until: Instant::now(),
            paused: Arc::default(),
            devices: Process::new(|| false),
            circles: Circles::default(),
            turns: 0,
            most_steps: 0,
            plan: BTreeMap::new(),
            planned: 0,
            cards: 0,
            healed: false,
            history: Vec::new(),
        }
    }

    async fn run(&mut self) {
        self.open_devices().await;
        self.start_cloud().await;
        self.start_agent().await;
        for action in [
            Action::Order,
            Action::OrderHere,
            Action::Hand,
            Action::Trouble,
            Action::Cancel,
            Action::Pause,
            Action::LookForDoubts,
        ] {
            self.soon(1_000, action);
        }
        if self.is_shared() {
            self.soon(10_000, Action::ForeignCard);
        }
        if self.may_roll_back() || self.cloud_follows() {
            self.soon(30_000, Action::CopyAgent);
        }
        if self.has_a_desk() {
            for action in [Action::Guest, Action::ChangeGrant, Action::EncodeAgain, Action::LookAtAttempts] {
                self.soon(10_000, action);
            }
        }
        self.after(TROUBLE, Action::Heal);
        let give_up = self.begun + TROUBLE + REST;
        doom(&self.devices, MOST_STEPS);
        while Instant::now() < give_up && self.circles.0.lock().unwrap().is_empty() {
            self.turns += 1;
            if MOST_TURNS < self.turns {
                self.circles.add("the history has no end");
            }
            let Some((&(due, number), _)) = self.plan.first_key_value() else { break };
            let cloud = self.cloud.life.as_ref().map(|life| life.process.clone());
            let agent = self.agent.life.as_ref().map(|life| life.process.clone());
            tokio::select! {
                biased;
                () = ended(cloud) => self.cloud_ended(),
                () = ended(agent) => self.agent_ended(),
                () = self.devices.ended() => self.circles.add("the devices take steps without end"),
                () = sleep_until(due) => {
                    let action = self.plan.remove(&(due, number)).unwrap();
                    self.act(action).await;
                }
            }
            if self.healed && self.tables.is_none() && self.unrest(false).await.is_none() {
                let mut tables = Vec::new();
                for lock in self.locks.clone() {
                    tables.push(lock.command("table").await.unwrap());
                }
                self.tables = Some((self.cloud_clock.now(), tables));
                self.note("nothing is left but what has its time");
            }
            if self.healed && self.unrest(true).await.is_none() {
                break;
            }
        }
    }

    fn note(&mut self, what: impl std::fmt::Display) {
        let line = format!("{:>10.3} {what}", self.begun.elapsed().as_secs_f64());
        tracing::info!(target: "simulation", "{line}");
        self.history.push(line);
    }

    fn after(&mut self, span: Duration, action: Action) {
        self.planned += 1;
        self.plan.insert((Instant::now() + span, self.planned), action);
    }

    /// Within so many milliseconds.
    fn soon(&mut self, below: u64, action: Action) {
        let span = Duration::from_millis(self.random.below(below));
        self.after(span, action);
    }

    fn chance(&self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    fn one<T: Copy>(&self, of: &[T]) -> T {
        of[self.random.below(of.len() as u64) as usize]
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Order => {
                if !self.healed {
                    let next = self.one(&[800, 4_000, 15_000]);
                    self.soon(next, Action::Order);
                    self.order();
                }
            }
            Action::OrderHere => {
                if !self.healed {
                    self.soon(30_000, Action::OrderHere);
                    self.order_here();
                }
            }
            Action::Pause => {
                if !self.healed {
                    self.soon(60_000, Action::Pause);
                    self.pause();
                }
            }
            Action::Resume(lane) => self.resume(lane).await,
            Action::Cancel => {
                if !self.healed {
                    self.soon(30_000, Action::Cancel);
                    self.cancel();
                }
            }
            Action::Hand => {
                let next = if self.healed { 4_000 } else { 9_000 };
                self.soon(next, Action::Hand);
                self.lay_a_card().await;
            }
            Action::Trouble => {
                if !self.healed {
                    self.soon(20_000, Action::Trouble);
                    self.trouble().await;
                }
            }
            Action::StartCloud => self.start_cloud().await,
            Action::StartAgent => self.start_agent().await,
            Action::StopAgent => {
                if let Some(life) = &self.agent.life {
                    let _ = life.stop.try_send(());
                }
            }
            Action::MendRoad(one, other) => {
                let open = self.open_road();
                self.network.set_road(one, other, open);
                self.note(format_args!("the road {one:?}-{other:?} is {open:?}"));
            }
            Action::MendSalto => self.command("fault clear").await,
            Action::MendLocks => self.mend_locks().await,
            Action::MendDisk(host) => {
                self.look_at_full_disk(host).await;
                self.filled_beside_reserve.remove(&host);
                self.note(format_args!("the disk of {host:?} has room"));
                self.disk(host).limit(None);
            }
            Action::Sturdy => self.network.make_fragile(None),
            Action::LookForDoubts => {
                self.soon(25_000, Action::LookForDoubts);
                self.settle_a_doubt().await;
            }
            Action::ForeignCard => {
                if !self.healed {
                    self.soon(20_000, Action::ForeignCard);
                    self.make_a_foreign_card().await;
                }
            }
            Action::CopyAgent => {
                if !self.healed {
                    self.soon(30_000, Action::CopyAgent);
                }
                if !self.healed && !self.cloud_goes_back {
                    self.note("the agent's disk is copied");
                    self.agent.backup = Some(self.agent.disk.image());
                    if self.cloud_follows() {
                        self.soon(20_000, Action::CopyCloud);
                    }
                }
            }
            Action::CopyCloud => {
                if !self.cloud_goes_back {
                    self.note("the cloud is backed up");
                    self.cloud.backup = Some(self.cloud.disk.image());
                }
            }
            Action::PutCloudBack => {
                let goes_back = self.cloud_goes_back && !self.healed;
                if let Some(life) = self.cloud.life.as_ref().filter(|_| goes_back) {
                    life.process.kill();
                }
            }
            Action::OrderInVain => self.order_in_vain(),
            Action::StartOver => {
                self.open_the_way_to_the_cloud();
                if let Some(life) = self.agent.life.as_ref().filter(|_| !self.healed) {
                    self.agent_starts_over = true;
                    life.process.kill();
                }
            }
            Action::Guest => {
                if !self.healed {
                    self.soon(40_000, Action::Guest);
                    self.guest();
                }
            }
            Action::ChangeGrant => {
                if !self.healed {
                    let next = self.one(&[5_000, 40_000]);
                    self.soon(next, Action::ChangeGrant);
                    self.change_grant();
                }
            }
            Action::EncodeAgain => {
                if !self.healed {
                    self.soon(30_000, Action::EncodeAgain);
                    self.encode_again();
                }
            }
            Action::LookAtAttempts => {
                self.soon(10_000, Action::LookAtAttempts);
                self.look_at_attempts().await;
            }
            Action::Heal => self.heal().await,
        }
    }

    fn disk(&self, host: Host) -> Disk {
        match host {
            Host::Cloud => self.cloud.disk.clone(),
            Host::Agent | Host::Salto | Host::Locks | Host::People => self.agent.disk.clone(),
        }
    }

    fn open_road(&self) -> Road {
        let micros = self.one(&[300, 5_000, 40_000, 400_000]);
        Road::Open(Duration::from_micros(micros + self.random.below(micros)))
    }
}

pub(super) fn job_id(seed: u64, number: u64) -> JobId {
    JobId(Uuid::from_u128(u128::from(seed) << 64 | u128::from(number)))
}

pub(super) fn number_of(job_id: JobId) -> u64 {
    job_id.0.as_u128() as u64
}

/// Of those that break.
const ROADS: [(Host, Host); 3] =
    [(Host::Agent, Host::Cloud), (Host::Agent, Host::Salto), (Host::Agent, Host::Locks)];

fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub(super) fn first_end() -> Timestamp {
    "2026-11-22T00:00:00Z".parse().unwrap()
}

/// Whose card ends at this many milliseconds since 1970.
pub(super) fn number_by_end(ends_at: i64) -> u64 {
    ((ends_at - printed_end(0).as_millisecond()) / 60_000).cast_unsigned()
}

/// A card's end, by which the device's ledger tells whose it is.
pub(super) fn printed_end(number: u64) -> Timestamp {
    let first: Timestamp = "2026-12-10T10:00:00Z".parse().unwrap();
    first + SignedDuration::from_mins(number as i64)
}
