//! One property, its cloud, and everything that goes wrong between them, from one seed.
//!
//! Both sides are the product's own code on the real SQLite: hub and database, link, queue, dispatcher and drivers.
//! What stands in for the outside is time (tokio's, paused), the network, the disks and the devices. Everything runs on
//! one thread, so what happens is decided by the seed alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use latchd::{
    agent::{self, QueueFile, admin},
    cloud::{
        self, Signals,
        keys::digest,
        store::{BridgeKeys, Db},
        tls::public_key_hash,
    },
    config::{AgentConfig, DriverConfig},
    drivers::{
        Driver,
        salto_is::{
            Past, SaltoIs,
            sim::{Line, Property, Settings, Simulator},
        },
        sim_lock::{self, SimLock},
    },
    link,
    model::{
        AccessMethodId, BridgeId, CardEncode, CardRead, DeviceName, DoorName, EncoderName, Job, JobId,
        JobState, LaneName, Order, Priority, Private, ReservationKey, SlotContent, SlotPut, SystemName,
        Verdict, Window,
    },
    protocol::{Position, PublicKey, SigningKey},
    queue::{JobFilter, Memory, Queue, QueueReader, Rules},
    seal::SealKey,
    seams::{self, Clock, Net, Process, Random, Storage},
    store::{
        self, ReaderHandle, Reserve, Store, StoreError, Writer, WriterHandle,
        vfs::memory::{Cut, Disk, Image},
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ED25519,
};
use rusqlite::Connection;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::{
    desk::{self, Attempts, Desk},
    judge::{self, Evidence, Tally},
    mutant::{self, Mutant},
    net::{Host, Network, Road},
};

/// How long things go wrong.
pub(super) const TROUBLE: Duration = Duration::from_secs(300);
/// How long everything may take to come to rest after that, with nothing going wrong any more.
const REST: Duration = Duration::from_secs(45 * 60);
/// When the long ones of the locks' entries end, after the beginning: late enough that everything else is at rest.
const LONG_ENTRIES: Duration = Duration::from_secs(8 * 60);
const BRIDGES: u16 = 7443;
pub(super) const API: u16 = 7080;
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

/// What each side keeps in reserve on its disk: more than a log grows to before it is folded back.
const RESERVE: u64 = 4 * 1024 * 1024;

/// Nothing that works well takes more steps in one life of a process, or turns of a seed. What does turns in a circle: it
/// is ended there and told, so that it is never taken for slowness.
const MOST_STEPS: u64 = 100_000;
const MOST_TURNS: u64 = 20_000;
/// And no life of a database works more than so many times [`STRIDE`] of SQLite's own instructions.
const MOST_STRIDES: u64 = 5_000;
const STRIDE: i32 = 10_000;

/// What one seed came to.
pub(super) struct Story {
    pub(super) history: Vec<String>,
    pub(super) simulated: Duration,
    /// What was done, or what broke the promise.
    pub(super) verdict: Result<Tally, Vec<String>>,
}

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
    /// Likewise the cloud's; it is not told in every seed.
    cloud_is_set_back: Arc<AtomicBool>,
    /// Whose disks were filled while they had room and so the whole reserve, and not put back since.
    filled_beside_reserve: BTreeSet<Host>,
    /// The agent's disk goes back to its copy before its next start, and nobody will tell it.
    agent_rolls_back: bool,
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

/// What turned in a circle; all clones are one.
#[derive(Clone, Default)]
struct Circles(Arc<Mutex<Vec<String>>>);

impl Circles {
    fn add(&self, what: impl Into<String>) {
        let (what, mut all) = (what.into(), self.0.lock().unwrap());
        if !all.contains(&what) {
            all.push(what);
        }
    }

    /// Interrupts a connection that works without end.
    fn watch(&self, whose: &'static str, connection: &mut Connection) -> Result<(), StoreError> {
        let (mut strides, circles) = (0, self.clone());
        let works_on = move || {
            strides += 1;
            if MOST_STRIDES < strides {
                circles.add(format!("the database of {whose} works without end"));
            }
            MOST_STRIDES < strides
        };
        Ok(connection.progress_handler(STRIDE, Some(works_on))?)
    }
}

/// Lets a process take so many steps more, as far as it may.
fn doom(process: &Process, steps: u64) {
    process.die_after(steps.min(MOST_STEPS.saturating_sub(process.polls())));
}

/// One of both sides: its disk, and its process while it runs.
struct Side<L> {
    disk: Disk,
    life: Option<L>,
    lives: u64,
    /// How the present process ends if it ends by itself.
    end: End,
    backup: Option<Image>,
    crashes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    Power,
    PowerAndCache,
}

struct CloudLife {
    process: Process,
    db: WriterHandle<Db>,
    signals: Signals,
    bridge: BridgeId,
    _stop: watch::Sender<bool>,
}

struct AgentLife {
    process: Process,
    queue: WriterHandle<Queue>,
    stop: mpsc::Sender<()>,
    questions: mpsc::Sender<admin::Question>,
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
    OrderInVain,
    StartOver,
    Guest,
    ChangeGrant,
    EncodeAgain,
    LookAtAttempts,
    Heal,
}

impl<L> Side<L> {
    fn new() -> Self {
        let disk = Disk::new().unwrap();
        Self { disk, life: None, lives: 0, end: End::Killed, backup: None, crashes: 0 }
    }
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
        Self {
            seed,
            mutant,
            random: Random::seeded(seed),
            begun: Instant::now(),
            network: Network::new(Random::seeded(seed ^ 0x6e65_7477)),
            cloud: Side::new(),
            agent: Side::new(),
            cloud_clock: Clock::simulated(start),
            agent_clock: Clock::simulated(start),
            salto: Simulator::new(settings).unwrap(),
            locks,
            tables: None,
            book: Arc::default(),
            agent_is_set_back: Arc::default(),
            cloud_is_set_back: Arc::default(),
            filled_beside_reserve: BTreeSet::new(),
            agent_rolls_back: false,
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
        if self.may_roll_back() {
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
                    self.note("the agent's disk is copied");
                    self.agent.backup = Some(self.agent.disk.image());
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

    // What people want.

    fn order(&mut self) {
        let Some(life) = &self.cloud.life else { return };
        let (db, signals, bridge) = (life.db.clone(), life.signals.clone(), life.bridge);
        let now = self.cloud_clock.now();
        let (number, job) = self.some_job(false);
        self.note(format_args!("order {number}: {}", words(&job.order)));
        let book = Arc::clone(&self.book);
        tokio::spawn(async move {
            if db.run(move |db| db.enqueue_job(now, bridge, &job)).await.is_ok() {
                signals.orders_queued();
                book.lock().unwrap().orders.get_mut(&number).unwrap().held = true;
            }
        });
    }

    /// A person at the site wants a job of their own.
    fn order_here(&mut self) -> Option<JobId> {
        let questions = self.agent.life.as_ref().map(|life| life.questions.clone())?;
        let (number, job) = self.some_job(true);
        let job_id = job.job_id;
        self.note(format_args!("order {number} at the site: {}", words(&job.order)));
        let wanted = admin::NewJob {
            job_id: Some(job.job_id),
            system: job.system,
            priority: job.priority,
            expires_in_seconds: job.expires_at.duration_since(job.created_at).as_secs() as u32,
            order: job.order,
        };
        let (answer, told) = oneshot::channel();
        let request = admin::Request::Add { job: Box::new(wanted), by: "night porter".into() };
        if questions.try_send((request, answer)).is_ok() {
            let book = Arc::clone(&self.book);
            tokio::spawn(async move {
                if let Ok(admin::Response::Added { .. }) = told.await {
                    book.lock().unwrap().orders.get_mut(&number).unwrap().held = true;
                }
            });
        }
        Some(job_id)
    }

    /// A person at the site wants a job of their own, and at once does not any more.
    fn order_in_vain(&mut self) {
        let questions = self.agent.life.as_ref().map(|life| life.questions.clone());
        let (Some(questions), Some(job_id)) = (questions, self.order_here()) else { return };
        let by = "night porter".to_owned();
        let (answer, _) = oneshot::channel();
        let _ = questions.try_send((admin::Request::Cancel { job_id, by }, answer));
    }

    /// The next order, in the book.
    fn some_job(&self, local: bool) -> (u64, Job) {
        let number = self.book.lock().unwrap().orders.len() as u64 + 1;
        let now = self.cloud_clock.now();
        let within = self.one(&[20, 90, 600]);
        let (system, order) = match self.chance(60) {
            true => ("salto", self.some_order(number)),
            false => ("keys", self.some_lock_order(number)),
        };
        let job = Job {
            job_id: job_id(self.seed, number),
            system: SystemName::new(system).unwrap(),
            priority: if self.chance(70) { Priority::Desk } else { Priority::Background },
            created_at: now,
            expires_at: now + SignedDuration::from_secs(within + self.random.below(60) as i64),
            order,
        };
        let ordered = Ordered { job: job.clone(), local, held: false };
        self.book.lock().unwrap().orders.insert(number, ordered);
        (number, job)
    }

    /// Somebody at the site pauses a lane for a while. Nothing may begin there until it is resumed, whatever happens.
    fn pause(&mut self) {
        let lane = self.one(&LANES);
        let span = Duration::from_millis(self.one(&[3_000, 30_000, 90_000]));
        let Some(life) = self.agent.life.as_ref().filter(|_| !self.paused.lock().unwrap().contains_key(lane))
        else {
            return;
        };
        let (answer, told) = oneshot::channel();
        let (name, by) = (LaneName::new(lane).unwrap(), "night porter".into());
        if life.questions.try_send((admin::Request::PauseLane { lane: name, by }, answer)).is_ok() {
            let (queue, paused) = (life.queue.clone(), Arc::clone(&self.paused));
            self.note(format_args!("the lane {lane} is paused for {span:?}"));
            tokio::spawn(async move {
                if let Ok(admin::Response::Lanes { .. }) = told.await
                    && let Ok(begun) = queue.run(move |queue| begun_in(queue, lane)).await
                {
                    paused.lock().unwrap().insert(lane, begun);
                }
            });
            self.after(span, Action::Resume(lane));
        }
    }

    async fn resume(&mut self, lane: &'static str) {
        let life = self.agent.life.as_ref().map(|life| (life.queue.clone(), life.questions.clone()));
        let Some((queue, questions)) = life else { return self.after(AGAIN, Action::Resume(lane)) };
        let Ok(begun) = queue.run(move |queue| begun_in(queue, lane)).await else {
            return self.after(AGAIN, Action::Resume(lane));
        };
        let before = self.paused.lock().unwrap().remove(lane);
        if let Some(before) = before {
            let mut book = self.book.lock().unwrap();
            book.pauses += 1;
            if before < begun {
                let began = begun.saturating_sub(before);
                book.wrong.push(format!("{began} jobs began in {lane} while it was paused"));
            }
        }
        let (answer, told) = oneshot::channel();
        let (name, by) = (LaneName::new(lane).unwrap(), "night porter".into());
        let asked = questions.try_send((admin::Request::ResumeLane { lane: name, by }, answer)).is_ok();
        match asked && matches!(told.await, Ok(admin::Response::Lanes { .. })) {
            true => self.note(format_args!("the lane {lane} goes on")),
            false => self.after(AGAIN, Action::Resume(lane)),
        }
    }

    fn some_order(&self, number: u64) -> Order {
        let encoder = EncoderName::new(format!("{}", 1 + self.random.below(ENCODERS))).unwrap();
        let room = self.random.below(ROOMS);
        let door = |room: u64| DoorName::new(format!("{}", 101 + room)).unwrap();
        let reservation_key = self.some_stay(room);
        let card_wait_seconds = self.one(&[5, 20, 60]);
        if self.is_shared() && self.chance(30) {
            return Order::CardRead(CardRead { encoder, card_wait_seconds });
        }
        match self.random.below(100) {
            0..80 => {
                let mut doors = vec![door(room)];
                if self.chance(10) {
                    doors.push(door((room + 1) % ROOMS));
                }
                Order::CardEncode(CardEncode {
                    encoder,
                    doors,
                    reservation_key: Some(reservation_key),
                    window: Window::new(first_end(), Some(printed_end(number))).unwrap(),
                    access_method_id: AccessMethodId(Uuid::from_u128(number.into())),
                    guest_name: None,
                    card_wait_seconds,
                    begin_again: false,
                })
            }
            80..88 => Order::CardRead(CardRead { encoder, card_wait_seconds }),
            88..96 => Order::StayCheckout { room: door(room), reservation_key },
            _ => Order::InventoryRefresh,
        }
    }

    fn some_lock_order(&self, number: u64) -> Order {
        let device = DeviceName::new(format!("k{}", 1 + self.random.below(LOCK_COUNT))).unwrap();
        let slot = format!("s{}", self.random.below(SLOTS));
        match self.random.below(100) {
            0..55 => {
                let now = self.cloud_clock.now();
                let starts_at = now + SignedDuration::from_secs(self.random.below(150) as i64 - 50);
                let long = noon() + SignedDuration::try_from(LONG_ENTRIES).unwrap();
                let short =
                    starts_at.max(now) + SignedDuration::from_secs(10 + self.random.below(200) as i64);
                let ends_at = if self.chance(50) { long } else { short };
                Order::SlotPut(SlotPut {
                    device,
                    slot,
                    content: SlotContent::Pin(Private::new(format!("{}", 100_000 + number))),
                    window: Window::new(starts_at, Some(ends_at)).unwrap(),
                    generation: number,
                })
            }
            55..70 => Order::SlotRemove { device, slot },
            70..95 => Order::DeviceUnlock { device },
            _ => Order::DeviceRead { device },
        }
    }

    /// In some seeds the hotel's own desk makes cards at the lock server as well.
    fn is_shared(&self) -> bool {
        self.seed % 5 == 2
    }

    /// Where a live card was read, a stay may be joined for ten minutes: the desk knows that and keeps away.
    async fn make_a_foreign_card(&mut self) {
        let ledger = self.salto.command("ledger").await.unwrap();
        let orders = ledger["orders"].as_array().unwrap();
        let reads = || orders.iter().filter(|order| order["fields"][0] == "LT");
        let room = format!("{}", 101 + self.random.below(ROOMS));
        let is_read = |order: &serde_json::Value| {
            order["result"] == "waiting"
                || order["read"].as_array().is_some_and(|read| read.iter().any(|it| *it == *room))
        };
        if reads().any(is_read) {
            return;
        }
        let ended = orders.iter().filter_map(|order| order["ended_as"].as_u64()).max().unwrap_or(0);
        self.command(&format!("foreign-card-made {room}")).await;
        self.book.lock().unwrap().foreign.push((room, ended));
    }

    /// In some seeds guests' cards are ordered as the front desk's software does it, at the cloud's API.
    fn has_a_desk(&self) -> bool {
        self.seed.is_multiple_of(3)
    }

    /// The stay of some guest in a room.
    fn some_stay(&self, room: u64) -> ReservationKey {
        // Guests follow each other, and now and then an order of a guest who has left comes late.
        let guest = self.begun.elapsed().as_secs() / 70;
        let guest = if self.chance(10) { guest.saturating_sub(1) } else { guest };
        ReservationKey::new(format!("guest-{guest}-of-{room}")).unwrap()
    }

    /// Somebody checks in: a grant, and its card.
    fn guest(&mut self) {
        let room = self.random.below(ROOMS);
        let guest = self.book.lock().unwrap().desk.next_guest();
        let wish = desk::Wish {
            number: guest + 50,
            guest,
            room: 101 + room,
            encoder: self.random.below(ENCODERS) as usize,
            stay: self.some_stay(room),
        };
        let number = wish.number;
        self.note(format_args!("guest {number} of {} checks in to {}", wish.stay.as_str(), wish.room));
        self.book.lock().unwrap().desk.guests.insert(guest, desk::Guest::of(&wish));
        let (net, book) = (self.network.at(Host::People), Arc::clone(&self.book));
        tokio::spawn(desk::check_in(net, book, wish));
    }

    /// Somebody leaves sooner or later than was said, or does not stay at all: the card may be waiting, at work, in doubt,
    /// written, or not.
    fn change_grant(&mut self) {
        let deletes = self.chance(25);
        let (grant, end) = {
            let mut book = self.book.lock().unwrap();
            let mut guests: Vec<_> = book.desk.guests.values_mut().filter(|it| it.grant.is_some()).collect();
            let which = self.random.below(guests.len().max(1) as u64) as usize;
            let Some(guest) = guests.get_mut(which) else { return };
            let end = (!deletes).then(|| guest.another_end(|below| self.random.below(below)));
            (guest.grant.clone().unwrap(), end)
        };
        let (net, book) = (self.network.at(Host::People), Arc::clone(&self.book));
        match end {
            Some(number) => {
                self.note(format_args!("the grant {grant} is to end at {}", printed_end(number)));
                tokio::spawn(desk::change_end(net, book, grant, number));
            }
            None => {
                self.note(format_args!("the grant {grant} is to be deleted"));
                tokio::spawn(desk::delete(net, book, grant));
            }
        }
    }

    /// Somebody asks once more for a guest's card: it may be under way, in doubt, written, or not.
    fn encode_again(&mut self) {
        let methods: Vec<_> = {
            let book = self.book.lock().unwrap();
            book.desk.guests.values().filter_map(|guest| guest.method.clone()).collect()
        };
        let Some(method) = methods.get(self.random.below(methods.len().max(1) as u64) as usize) else {
            return;
        };
        let encoder = self.random.below(ENCODERS) as usize;
        self.note(format_args!("the card {method} is asked for once more, on encoder {}", encoder + 1));
        tokio::spawn(desk::encode(self.network.at(Host::People), method.clone(), encoder));
    }

    async fn look_at_attempts(&mut self) {
        let Some(life) = &self.cloud.life else { return };
        let Ok(rows) = life.db.run(desk::attempts).await else { return };
        let mut book = self.book.lock().unwrap();
        let Book { attempts, wrong, .. } = &mut *book;
        attempts.look_at(rows, wrong);
    }

    /// What is under way is recorded on a full disk as well, in the room that was kept for it.
    async fn look_at_full_disk(&mut self, host: Host) {
        let stored = match host {
            Host::Cloud => match &self.cloud.life {
                Some(life) if life.db.health().borrow().disk == store::Disk::Full => {
                    life.db
                        .run(|db| {
                            Ok(db
                                .connection()
                                .execute("UPDATE bridge_order SET created_at = created_at", [])?)
                        })
                        .await
                }
                _ => return,
            },
            Host::Agent | Host::Salto | Host::Locks | Host::People => match &self.agent.life {
                Some(life) if life.queue.health().borrow().disk == store::Disk::Full => {
                    let touch = "UPDATE job SET received_at = received_at";
                    life.queue.run(|queue| Ok(queue.connection().execute(touch, [])?)).await
                }
                _ => return,
            },
        };
        let free = self.disk(host).storage().free_bytes().unwrap();
        let mut book = self.book.lock().unwrap();
        book.full_disks += 1;
        // One that dies meanwhile says nothing about its disk.
        let was_given_up = self.filled_beside_reserve.contains(&host);
        if was_given_up && free < RESERVE / 4 || stored.is_err_and(|error| error.is_disk_full()) {
            book.wrong.push(format!("{host:?} has no room on its full disk for what is under way"));
        }
    }

    fn cancel(&mut self) {
        let known = self.book.lock().unwrap().orders.len() as u64;
        let Some(life) = self.cloud.life.as_ref().filter(|_| 0 < known) else { return };
        let number = known - self.random.below(known.min(5));
        let (db, signals, bridge, now) =
            (life.db.clone(), life.signals.clone(), life.bridge, self.cloud_clock.now());
        let job_id = job_id(self.seed, number);
        self.note(format_args!("cancel {number}"));
        tokio::spawn(async move {
            if db.run(move |db| db.enqueue_cancel(now, bridge, job_id)).await.is_ok() {
                signals.orders_queued();
            }
        });
    }

    async fn lay_a_card(&mut self) {
        let encoder = 1 + self.random.below(ENCODERS);
        let _ = self.salto.command(&format!("remove {encoder}")).await;
        if self.is_shared() && self.chance(50) {
            // A guest comes back with a card.
            let ledger = self.salto.command("ledger").await.unwrap();
            let orders = ledger["orders"].as_array().unwrap().iter().rev();
            let cards: Vec<_> = orders.filter_map(|order| order["card"].as_str()).take(4).collect();
            if !cards.is_empty() {
                let card = self.one(&cards);
                let _ = self.salto.command(&format!("place {card} on {encoder}")).await;
                return;
            }
        }
        if self.healed || self.chance(80) {
            self.cards += 1;
            let kind = if self.healed || self.chance(90) { "blank" } else { self.one(&["staff", "damaged"]) };
            let _ = self.salto.command(&format!("place c{} {kind} on {encoder}", self.cards)).await;
        }
    }

    /// A person goes to see what became of a job in doubt, and says so.
    async fn settle_a_doubt(&mut self) {
        let Some(life) = &self.agent.life else { return };
        if !self.healed && self.chance(60) {
            return;
        }
        let filter = JobFilter { state: Some(JobState::Unknown), lane: None, limit: 50 };
        let doubts = life.queue.run(move |queue: &mut Queue| queue.jobs(filter)).await;
        let Ok(doubts) = doubts else { return };
        // Cards are told apart by the guest's number, which a cloud that was set back may order once more.
        let can_be_told = |number| {
            let book = self.book.lock().unwrap();
            match book.orders.get(&number).map(|ordered| &ordered.job.order) {
                Some(Order::CardEncode(_)) => true,
                Some(_) => false,
                None => book.desk.guest_with(number).is_some() && !book.cloud_restored,
            }
        };
        let mut found = None;
        for doubt in doubts {
            let job_id = doubt.job_id;
            let Ok(Some(detail)) = life.queue.run(move |queue: &mut Queue| queue.job(job_id)).await else {
                return;
            };
            if let Some(number) =
                detail.job.as_ref().and_then(judge::card_number).filter(|it| can_be_told(*it))
            {
                found = Some((job_id, number));
                break;
            }
        }
        let Some((job_id, number)) = found else { return };
        let ledger = self.salto.command("ledger").await.unwrap();
        // While a command may still arrive, or its encoder waits for the card, nobody can say.
        let waits = !self.network.is_quiet(Host::Agent, Host::Salto);
        let waits =
            waits || ledger["orders"].as_array().unwrap().iter().any(|order| order["result"] == "waiting");
        if waits {
            return;
        }
        // A card that another job is known to have written proves nothing about this one; and which of two in doubt wrote
        // one, nobody can say.
        let Some(cloud) = &self.cloud.life else { return };
        let Ok(attempts) = cloud.db.run(desk::attempts).await else { return };
        let job = job_id.to_string();
        let others: Vec<_> = attempts.iter().filter(|it| it.card == number && it.job != job).collect();
        let known = others.iter().filter(|it| it.is_done()).count();
        let done = judge::times_done(&ledger, number).saturating_sub(known);
        if 0 < done && others.iter().any(|it| it.status == "pending" || it.is_in_doubt()) {
            return;
        }
        let verdict = if 0 < done { Verdict::Done } else { Verdict::NotDone };
        let (answer, told) = oneshot::channel();
        let request = admin::Request::Resolve { job_id, verdict, by: "night porter".into() };
        if life.questions.try_send((request, answer)).is_ok() {
            self.note(format_args!("job {number} is said to be {verdict:?}"));
            let book = Arc::clone(&self.book);
            tokio::spawn(async move {
                if told.await.is_ok() {
                    book.lock().unwrap().settled += 1;
                }
            });
        }
    }

    // What goes wrong.

    async fn trouble(&mut self) {
        if Instant::now() < self.calm_until {
            return;
        }
        let host = self.one(&[Host::Agent, Host::Agent, Host::Cloud]);
        let road = self.one(&ROADS);
        let span = Duration::from_millis(self.one(&[300, 5_000, 40_000, 100_000]));
        match self.random.below(22) {
            0 => self.crash_now(host),
            1..4 => {
                let steps = self.one(&[3, 40, 400, 4_000]);
                let steps = self.random.below(steps);
                let end = self.some_end();
                self.note(format_args!("{host:?} dies {end:?} in {steps} steps"));
                match host {
                    Host::Cloud => {
                        self.cloud.end = end;
                        if let Some(life) = &self.cloud.life {
                            doom(&life.process, steps);
                        }
                    }
                    Host::Agent | Host::Salto | Host::Locks | Host::People => {
                        self.agent.end = end;
                        if let Some(life) = &self.agent.life {
                            doom(&life.process, steps);
                        }
                    }
                }
            }
            4..7 => {
                let changes = self.random.below(60);
                let end = self.some_end();
                self.note(format_args!("{host:?} dies {end:?} at change {changes}"));
                match host {
                    Host::Cloud => self.cloud.end = end,
                    Host::Agent | Host::Salto | Host::Locks | Host::People => self.agent.end = end,
                }
                self.disk(host).die_after(changes);
            }
            7 => {
                self.note("the agent is told to stop");
                self.act_now(Action::StopAgent).await;
            }
            8..10 => {
                self.note(format_args!("the road {road:?} is down for {span:?}"));
                self.network.set_road(road.0, road.1, Road::Down);
                self.after(span, Action::MendRoad(road.0, road.1));
            }
            10 => {
                self.note(format_args!("connections {road:?} are reset"));
                self.network.reset(road.0, road.1);
            }
            11 => {
                self.note(format_args!("connections {road:?} swallow"));
                self.network.swallow(road.0, road.1);
            }
            12 => {
                let below = self.one(&[20, 400, 8_000]);
                let bytes = self.random.below(below);
                self.note(format_args!("connections {road:?} end after {bytes} bytes"));
                self.network.cut_after(road.0, road.1, bytes);
            }
            13 => {
                let bytes = self.one(&[60, 3_000, 20_000]);
                self.note(format_args!("new connections end before {bytes} bytes for {span:?}"));
                self.network.make_fragile(Some(1 + bytes));
                self.after(span, Action::Sturdy);
            }
            14 => self.jump().await,
            15 => {
                let room = self.random.below(30_000) as usize;
                let disk = self.disk(host);
                if disk.storage().free_bytes().unwrap() < u64::MAX {
                    return;
                }
                let health = match host {
                    Host::Cloud => self.cloud.life.as_ref().map(|life| life.db.health()),
                    _ => self.agent.life.as_ref().map(|life| life.queue.health()),
                };
                if health.is_some_and(|health| health.borrow().disk == store::Disk::Room) {
                    self.filled_beside_reserve.insert(host);
                }
                self.note(format_args!("the disk of {host:?} has {room} bytes left for {span:?}"));
                disk.limit(Some(disk.used() + room));
                self.after(span, Action::MendDisk(host));
            }
            16 => {
                let times = 1 + self.random.below(3) as u32;
                self.note(format_args!("{times} syncs of {host:?} fail"));
                self.disk(host).fail_syncs(times);
            }
            17 => match host {
                Host::Cloud => {
                    self.note("the cloud is backed up");
                    self.cloud.backup = Some(self.cloud.disk.image());
                }
                Host::Agent | Host::Salto | Host::Locks | Host::People => {
                    self.note("the agent is backed up");
                    self.agent.backup = Some(self.agent.disk.image());
                }
            },
            18..20 => self.lock_trouble(span).await,
            _ => self.salto_trouble(span).await,
        }
    }

    async fn lock_trouble(&mut self, span: Duration) {
        let times = 1 + self.random.below(3);
        let trouble = match self.random.below(14) {
            0 => format!("fault silent {times}"),
            1 => format!("fault deaf {times}"),
            2 => format!("fault slow {} {times}", self.one(&[300, 4_900, 30_000])),
            3 => format!("fault garbage {times}"),
            4 => format!("fault damaged {times}"),
            5 => format!("fault wrong-number {times}"),
            6 => format!("fault cut-before {times}"),
            7 => format!("fault cut-after {times}"),
            8 => format!("fault busy {times}"),
            9 => format!("fault full {times}"),
            10 => format!("fault lie on {} {times}", self.one(&["PUT", "DEL"])),
            11 => format!("fault cut-received {}", self.random.below(200)),
            12 => format!("fault cut-sent {}", self.random.below(200)),
            _ => {
                let jump = self.random.below(20_000) as i64 - 10_000;
                format!("clock set {}", self.cloud_clock.now() + SignedDuration::from_secs(jump))
            }
        };
        let lock = self.random.below(LOCK_COUNT) as usize;
        self.note(format_args!("lock {}: {trouble}", lock + 1));
        self.locks[lock].command(&trouble).await.unwrap();
        self.after(span, Action::MendLocks);
    }

    async fn mend_locks(&mut self) {
        self.note("the locks are mended");
        for lock in self.locks.clone() {
            lock.command("fault clear").await.unwrap();
        }
    }

    async fn act_now(&mut self, action: Action) {
        Box::pin(self.act(action)).await;
    }

    fn some_end(&self) -> End {
        self.one(&[End::Killed, End::Power, End::PowerAndCache])
    }

    fn crash_now(&mut self, host: Host) {
        let end = self.some_end();
        self.note(format_args!("{host:?} dies {end:?}"));
        match host {
            Host::Cloud => {
                self.cloud.end = end;
                if let Some(life) = &self.cloud.life {
                    life.process.kill();
                }
            }
            Host::Agent | Host::Salto | Host::Locks | Host::People => {
                self.agent.end = end;
                if let Some(life) = &self.agent.life {
                    life.process.kill();
                }
            }
        }
    }

    async fn jump(&mut self) {
        let seconds = self.one(&[2, 300, 86_400 * 3]);
        let seconds = self.random.below(2 * seconds) as i64 - seconds as i64;
        if self.chance(60) {
            let to = self.agent_clock.now() + SignedDuration::from_secs(seconds);
            self.note(format_args!("the agent's clock jumps to {to}"));
            self.agent_clock.jump_to(to);
            self.book.lock().unwrap().clock_jumped = true;
        } else {
            // A lock server that is days off refuses every card.
            let to = self.cloud_clock.now() + SignedDuration::from_secs(seconds.clamp(-3_000, 3_000));
            self.command(&format!("clock set {to}")).await;
        }
    }

    async fn salto_trouble(&mut self, span: Duration) {
        let times = 1 + self.random.below(3);
        let fault = match self.random.below(13) {
            0 => format!("silent-enq {times}"),
            1 => format!("silent-ack {times}"),
            2 => format!("silent-answer {times}"),
            3 => format!("busy {times}"),
            4 => format!("nak {times}"),
            5 => format!("bad-lrc {times}"),
            6 => format!("close-after-ack {times}"),
            7 => format!("write-then-silent {times}"),
            8 => format!("late-answer {}", self.one(&[500, 20_000, 90_000])),
            9 => format!("close-after-bytes {}", self.random.below(300)),
            10 => format!("slow {}", 1 + self.random.below(30)),
            11 => format!("noise {}", self.random.below(40)),
            _ => format!("error {} {times}", self.one(&["TD", "EV", "OV", "EG", "EF", "NC"])),
        };
        self.command(&format!("fault {fault}")).await;
        self.after(span, Action::MendSalto);
    }

    async fn command(&mut self, command: &str) {
        self.note(format_args!("salto: {command}"));
        self.salto.command(command).await.unwrap();
    }

    // Both sides.

    async fn open_devices(&mut self) {
        for (port, lock) in (LOCKS..).zip(self.locks.clone()) {
            let listener = self.network.at(Host::Locks).listen(address(port)).await.unwrap();
            self.devices.spawn(async move { lock.accept(listener).await });
        }
        let mut listener = self.network.at(Host::Salto).listen(address(SALTO)).await.unwrap();
        let salto = self.salto.clone();
        self.devices.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let salto = salto.clone();
                seams::spawn(async move { salto.serve(stream, Line::Tcp).await });
            }
        });
    }

    fn random_of(&self, host: Host, lives: u64) -> Random {
        Random::seeded(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (lives << 8) ^ host as u64)
    }

    /// How long a sync takes on this side's disk.
    fn pace(&self, host: Host, lives: u64) -> impl FnMut() -> Duration + Send + 'static {
        let random = self.random_of(host, lives ^ 0xffff);
        let slowest = self.one(&[1, 300, 4_000, 30_000]);
        move || Duration::from_micros(random.below(slowest))
    }

    async fn start_cloud(&mut self) {
        if self.cloud.life.is_some() {
            return;
        }
        self.cloud.lives += 1;
        let (lives, disk) = (self.cloud.lives, self.cloud.disk.clone());
        let process = Process::new({
            let disk = disk.clone();
            move || disk.is_dead()
        });
        let (clock, random) = (self.cloud_clock.clone(), self.random_of(Host::Cloud, lives));
        let (network, pace) = (self.network.at(Host::Cloud), self.pace(Host::Cloud, lives));
        let (stop, stopped) = watch::channel(false);
        let signals = Signals::default();
        let (tell, told) = oneshot::channel();
        let (spoken, mutant, circles) = (signals.clone(), self.mutant, self.circles.clone());
        let is_set_back = Arc::clone(&self.cloud_is_set_back);
        let run = async move {
            let now = clock.now();
            let open = || Db::open(&disk.storage(), SealKey::new([7; 32], random.clone()), random.clone());
            let mut reserve = mutant::spoil_reserve(mutant, &disk, RESERVE);
            open_at_any_rate(&mut reserve, || found(&disk.storage(), now, Some(Authority::get())))?;
            let mut db = open_at_any_rate(&mut reserve, open)?;
            circles.watch("the cloud", db.connection())?;
            mutant::spoil_cloud(mutant, &mut db)?;
            if is_set_back.load(Ordering::Relaxed) {
                db.connection().execute_batch("BEGIN IMMEDIATE")?;
                db.restored()?;
                db.connection().execute_batch("COMMIT")?;
            }
            is_set_back.store(false, Ordering::Relaxed);
            db.all_bridges_down(now)?;
            let workspace = db.workspace()?.expect("it was founded");
            let bridge = db.the_bridge(now, workspace)?;
            let (_task, db) = Writer::simulated(db, Some(reserve), pace);
            let bridges = network.listen(address(BRIDGES)).await.unwrap();
            let api = network.listen(address(API)).await.unwrap();
            let _ = tell.send((db.clone(), bridge));
            let parts = cloud::Parts {
                db,
                signals: spoken,
                api: (api, None),
                bridges: (bridges, Authority::get().acceptor()),
                clock,
                random,
                settings: cloud::api::Settings {
                    hold: Duration::from_secs(1),
                    ..cloud::api::Settings::default()
                },
                keep_idle_people: None,
            };
            let mut tasks = cloud::work(parts, &stopped);
            while tasks.join_next().await.is_some() {}
            Ok::<_, StoreError>(())
        };
        doom(&process, MOST_STEPS);
        start(&process, run);
        match told.await {
            Ok((db, bridge)) => {
                self.note(format_args!("cloud life {lives}"));
                self.cloud.life = Some(CloudLife { process, db, signals, bridge, _stop: stop });
            }
            Err(_) => {
                self.note(format_args!("cloud life {lives} does not begin"));
                self.cloud_dead();
            }
        }
    }

    /// Whether in this seed the agent's machine is put back to an older moment without anybody saying so.
    fn may_roll_back(&self) -> bool {
        self.seed % 8 == 5
    }

    /// Whether in this seed the agent is set back and told so. It has much to be forgiven, so most seeds have none of it.
    fn agent_is_told_of_set_backs(&self) -> bool {
        self.seed % 4 == 1 && !self.may_roll_back()
    }

    /// What is on the agent's disk, while no process uses it.
    fn agent_memory(&self) -> Result<Memory, StoreError> {
        let random = self.random_of(Host::Agent, 0);
        let seal = SealKey::new([9; 32], random.clone());
        Queue::open(&self.agent.disk.storage(), seal, random, Rules::from(&agent_config(true)))?.memory()
    }

    /// Puts the agent's disk back to its copy. Only the cloud can know then, and only if it has heard of something that the
    /// copy does not hold, and of all orders that the agent took. So there must be a cloud to say so within the time for
    /// which an agent that starts holds its jobs, be it at its first start or at the next one.
    async fn roll_back(&mut self) {
        let Some(cloud) = &self.cloud.life else { return };
        let Some(image) = self.agent.backup.clone() else { return };
        let positions = "SELECT orders_epoch, orders_acknowledged, reports_epoch, reports_n FROM bridge";
        let positions = cloud.db.run(|db| {
            let position = |row: &rusqlite::Row<'_>, at: usize| {
                let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
                Ok::<_, rusqlite::Error>(Position { epoch: number(at)?, n: number(at + 1)? })
            };
            Ok(db.connection().query_row(positions, [], |row| Ok((position(row, 0)?, position(row, 2)?)))?)
        });
        let Ok((orders, reports)) = positions.await else { return };
        self.agent.disk.limit(None);
        let present = self.agent.disk.image();
        let knows_present = self.agent_memory().is_ok_and(|memory| memory.orders_received == orders);
        self.agent.disk.restore(&image);
        let is_old = |memory: &Memory| memory.orders_received < orders || memory.reports.last < reports;
        let old = self.agent_memory().ok().filter(|_| knows_present).filter(is_old);
        let Some(old) = old else { return self.agent.disk.restore(&present) };
        self.note("the agent's disk is put back, and nobody says so");
        self.paused.lock().unwrap().clear();
        {
            let mut book = self.book.lock().unwrap();
            let last = book.orders.len() as u64;
            book.agent_restored.push(last);
        }
        self.open_the_way_to_the_cloud();
        let behind = reports.n.saturating_sub(old.reports.last.n);
        if behind <= MOST_IN_VAIN && self.chance(60) {
            self.note("and it meets its cloud only once it was started over");
            self.network.set_road(Host::Agent, Host::Cloud, Road::Down);
            // What it numbers alone takes the numbers that the cloud knows.
            for nth in 0..=behind as u32 {
                self.after(Duration::from_millis(500) + Duration::from_millis(50) * nth, Action::OrderInVain);
            }
            self.after(Duration::from_secs(3), Action::StartOver);
        }
    }

    /// For a while nothing stands between the agent and the cloud.
    fn open_the_way_to_the_cloud(&mut self) {
        self.calm_until = Instant::now() + Duration::from_secs(10);
        self.network.make_fragile(None);
        self.network.set_road(Host::Agent, Host::Cloud, Road::Open(Duration::from_millis(20)));
        self.cloud.disk.limit(None);
        self.cloud.disk.fail_syncs(0);
        self.cloud.disk.die_after(u64::MAX >> 1);
        if let Some(life) = &self.cloud.life {
            doom(&life.process, u64::MAX);
        }
    }

    async fn start_agent(&mut self) {
        if self.agent.life.is_some() {
            return;
        }
        if std::mem::take(&mut self.agent_rolls_back) {
            self.roll_back().await;
        }
        self.agent.lives += 1;
        let (lives, disk) = (self.agent.lives, self.agent.disk.clone());
        let process = Process::new({
            let disk = disk.clone();
            move || disk.is_dead()
        });
        let (clock, random) = (self.agent_clock.clone(), self.random_of(Host::Agent, lives));
        let (net, pace) = (self.network.at(Host::Agent), self.pace(Host::Agent, lives));
        let config = agent_config(!self.is_shared() || self.mutant == Mutant::BelievesItIsAlone);
        let settings = Authority::get().settings();
        let (stop, stopped) = mpsc::channel(2);
        let (questions, requests) = mpsc::channel(16);
        let (tell, told) = oneshot::channel();
        let (mutant, circles) = (self.mutant, self.circles.clone());
        let is_set_back = Arc::clone(&self.agent_is_set_back);
        let run = async move {
            let seal = SealKey::new([9; 32], random.clone());
            let rules = Rules::from(&config);
            let mut reserve = mutant::spoil_reserve(mutant, &disk, RESERVE);
            let open = || Queue::open(&disk.storage(), seal.clone(), random.clone(), rules.clone());
            let mut queue = open_at_any_rate(&mut reserve, open)?;
            if is_set_back.load(Ordering::Relaxed) {
                queue.connection().execute_batch("BEGIN IMMEDIATE")?;
                queue.restored(clock.now())?;
                queue.commit()?;
            }
            is_set_back.store(false, Ordering::Relaxed);
            let is_restored = queue.is_restored()?;
            circles.watch("the agent", queue.connection())?;
            mutant::spoil_queue(mutant, queue.connection())?;
            let (_task, queue) = Writer::simulated(queue, Some(reserve), pace);
            let _ = tell.send(queue.clone());
            let (storage, for_reader) = (disk.storage(), random.clone());
            let reader = ReaderHandle::inline(move || {
                QueueReader::open(&storage, seal.clone(), for_reader.clone(), rules.clone())
            });
            let file =
                QueueFile { storage: disk.storage(), reader, damage: None, salvage: None, is_restored };
            let parts = agent::Parts {
                queue: queue.clone(),
                file,
                settings,
                net: Arc::clone(&net),
                clock,
                random,
                requests,
                stop: stopped,
            };
            let drivers = move |parts: &agent::Parts, config: &AgentConfig, in_doubt: &_| {
                drivers(parts, config, in_doubt, mutant)
            };
            if let Err(error) = agent::work(config, parts, drivers).await {
                tracing::warn!(%error, "the agent ended");
            }
            // What was submitted before is durable after this.
            queue.run(|_| Ok(())).await
        };
        doom(&process, MOST_STEPS);
        start(&process, run);
        match told.await {
            Ok(queue) => {
                self.note(format_args!("agent life {lives}"));
                self.agent.life = Some(AgentLife { process, queue, stop, questions });
            }
            Err(_) => {
                self.note(format_args!("agent life {lives} does not begin"));
                self.agent_dead();
            }
        }
    }

    fn cloud_ended(&mut self) {
        let life = self.cloud.life.take().unwrap();
        let (polls, changes) = (life.process.polls(), self.cloud.disk.changes());
        self.note(format_args!("the cloud ended after {polls} steps, {changes} changes"));
        self.most_steps = self.most_steps.max(polls);
        if MOST_STEPS <= polls {
            self.circles.add("the cloud takes steps without end");
        }
        self.cloud_dead();
    }

    fn cloud_dead(&mut self) {
        let end = std::mem::replace(&mut self.cloud.end, End::Killed);
        self.network.crashed(Host::Cloud, end != End::Killed);
        self.cloud.disk.cut(cut(end), &self.random);
        self.cloud.crashes += 1;
        // Where both sides are set back to the same moment and the agent is not told, nobody can know.
        let may_be_set_back = !self.healed && !self.may_roll_back();
        if let Some(image) = self.cloud.backup.clone().filter(|_| may_be_set_back && self.chance(25)) {
            self.note("the cloud's backup is put back");
            self.cloud.disk.restore(&image);
            // Its bridge tells it, but for one that was set back as well: then nobody else can.
            self.cloud_is_set_back.store(self.agent_is_told_of_set_backs(), Ordering::Relaxed);
            self.filled_beside_reserve.remove(&Host::Cloud);
            let mut book = self.book.lock().unwrap();
            book.cloud_restored = true;
            book.attempts = Attempts::default();
        }
        let below = self.one(&[50, 3_000, 40_000]);
        self.soon(below, Action::StartCloud);
    }

    fn agent_ended(&mut self) {
        let life = self.agent.life.take().unwrap();
        let (polls, changes) = (life.process.polls(), self.agent.disk.changes());
        self.note(format_args!("the agent ended after {polls} steps, {changes} changes"));
        self.most_steps = self.most_steps.max(polls);
        if MOST_STEPS <= polls {
            self.circles.add("the agent takes steps without end");
        }
        self.agent_dead();
    }

    fn agent_dead(&mut self) {
        let end = std::mem::replace(&mut self.agent.end, End::Killed);
        self.network.crashed(Host::Agent, end != End::Killed);
        self.agent.disk.cut(cut(end), &self.random);
        self.agent.crashes += 1;
        if std::mem::take(&mut self.agent_starts_over) {
            return self.soon(50, Action::StartAgent);
        }
        let may_be_set_back = !self.healed && self.agent_is_told_of_set_backs();
        if !self.healed && self.may_roll_back() && self.agent.backup.is_some() && self.chance(50) {
            self.agent_rolls_back = true;
        }
        if let Some(image) = self.agent.backup.clone().filter(|_| may_be_set_back && self.chance(25)) {
            self.note("the agent's backup is put back");
            self.agent.disk.restore(&image);
            self.filled_beside_reserve.remove(&Host::Agent);
            self.agent_is_set_back.store(true, Ordering::Relaxed);
            self.paused.lock().unwrap().clear();
            let mut book = self.book.lock().unwrap();
            let last = book.orders.len() as u64;
            book.agent_restored.push(last);
        }
        let below = self.one(&[50, 3_000, 40_000]);
        self.soon(below, Action::StartAgent);
    }

    // The end.

    async fn heal(&mut self) {
        self.note("everything is mended");
        self.healed = true;
        self.network.make_fragile(None);
        let good = Road::Open(Duration::from_millis(2));
        for road in ROADS {
            self.network.set_road(road.0, road.1, good);
        }
        for disk in [&self.cloud.disk, &self.agent.disk] {
            disk.limit(None);
            disk.fail_syncs(0);
            disk.die_after(u64::MAX >> 1);
        }
        for process in [
            self.cloud.life.as_ref().map(|life| &life.process),
            self.agent.life.as_ref().map(|life| &life.process),
        ]
        .into_iter()
        .flatten()
        {
            doom(process, u64::MAX);
        }
        self.mend_locks().await;
        self.command("fault clear").await;
        let now = self.cloud_clock.now();
        self.command(&format!("clock set {now}")).await;
        self.agent_clock.jump_to(now);
        self.soon(1, Action::StartCloud);
        self.soon(1, Action::StartAgent);
        for lane in LANES {
            self.after(Duration::from_secs(1), Action::Resume(lane));
        }
    }

    /// What is left to do or to say, with or without what waits for its time.
    async fn unrest(&mut self, with_timers: bool) -> Option<String> {
        let (Some(cloud), Some(agent)) = (&self.cloud.life, &self.agent.life) else {
            return Some("a side is down".into());
        };
        let disks = [cloud.db.health().borrow().disk, agent.queue.health().borrow().disk];
        if disks.contains(&store::Disk::Full) {
            return Some("a side takes its disk for full".into());
        }
        let open = cloud.db.run(|db| {
            let open = "SELECT (SELECT count(*) FROM bridge_order WHERE over_at IS NULL)
                             + (SELECT count(*) FROM action_attempt WHERE status = 'pending')";
            Ok(db.connection().query_row(open, [], |row| row.get::<_, i64>(0))?)
        });
        let busy = agent.queue.run(move |queue: &mut Queue| {
            let counts = queue.counts()?;
            let at = |state| counts.by_state.get(&state).copied().unwrap_or(0);
            let timers = "SELECT count(*) FROM job WHERE state = 'waiting' AND due_at IS NOT NULL";
            let timers: i64 = queue.connection().query_row(timers, [], |row| row.get(0))?;
            let timers = if with_timers { 0 } else { timers.cast_unsigned() };
            Ok((at(JobState::Waiting) - timers, at(JobState::Sent), counts.reports_waiting))
        });
        match (open.await, busy.await) {
            (Ok(0), Ok((0, 0, 0))) => None,
            (open, busy) => Some(format!("open orders: {open:?}; waiting, sent, reports: {busy:?}")),
        }
    }

    async fn end(mut self) -> Story {
        let unrest = self.unrest(true).await;
        let (tables_at, tables) = self.tables.take().unwrap_or_default();
        let mut ledgers = Vec::new();
        let mut empty = true;
        for lock in &self.locks {
            ledgers.push(lock.command("ledger").await.unwrap());
            empty &= lock.command("table").await.unwrap()["table"].as_array().unwrap().is_empty();
        }
        let simulated = self.begun.elapsed();
        let circles = std::mem::take(&mut *self.circles.0.lock().unwrap());
        let ledger = self.salto.command("ledger").await.unwrap();
        let mut evidence = Evidence {
            ledger,
            circles,
            unrest,
            tables_at,
            tables,
            locks: ledgers,
            empty,
            ends: BTreeMap::new(),
            attempts: Vec::new(),
            reserves: [&self.cloud.disk, &self.agent.disk]
                .map(|disk| disk.storage().size("reserve").unwrap()),
            local_jobs_told: (0, 0),
            arrived: Vec::new(),
            agent_jobs: BTreeMap::new(),
            most_steps: self.most_steps,
            crashes: self.cloud.crashes + self.agent.crashes,
        };
        if let (Some(cloud), Some(agent)) = (&self.cloud.life, &self.agent.life) {
            let numbers: Vec<u64> = self.book.lock().unwrap().orders.keys().copied().collect();
            if let Ok(told) = cloud.db.run(judge::told_of_local_jobs).await {
                evidence.local_jobs_told = told;
            }
            if let Ok(attempts) = cloud.db.run(desk::attempts).await {
                evidence.attempts = attempts;
            }
            if let Ok(arrived) = agent.queue.run(judge::arrived).await {
                evidence.arrived = arrived;
            }
            for number in numbers {
                let job_id = job_id(self.seed, number);
                let local = self.book.lock().unwrap().orders[&number].local;
                // A side that cannot answer has not come to rest either.
                if let Ok(end) = cloud.db.run(move |db| judge::cloud_view(db, job_id, local)).await {
                    evidence.ends.insert(number, end);
                }
                if let Ok(Some(job)) = agent.queue.run(move |queue: &mut Queue| queue.job(job_id)).await {
                    evidence.agent_jobs.insert(number, job);
                }
            }
            let (cloud, agent) = (cloud.process.polls(), agent.process.polls());
            evidence.most_steps = self.most_steps.max(cloud).max(agent);
            let changes = (self.cloud.disk.changes(), self.agent.disk.changes());
            self.note(format_args!("the end: {cloud} and {agent} steps, {changes:?} changes"));
        }
        for (number, end) in &evidence.ends {
            self.history.push(format!("job {number}: {end:?}"));
        }
        for attempt in &evidence.attempts {
            self.history.push(format!("{attempt:?}"));
        }
        for order in evidence.ledger["orders"].as_array().unwrap() {
            self.history.push(format!("device: {order}"));
        }
        for (lock, ledger) in (1..).zip(&evidence.locks) {
            for deed in ledger["ledger"].as_array().unwrap() {
                self.history.push(format!("lock {lock}: {deed}"));
            }
        }
        let book = self.book.lock().unwrap();
        Story {
            verdict: judge::judge(&book, &evidence),
            history: std::mem::take(&mut self.history),
            simulated,
        }
    }
}

/// How often jobs have begun in a lane.
fn begun_in(queue: &mut Queue, lane: &str) -> Result<u64, StoreError> {
    let begun = "SELECT coalesce(sum(attempt), 0) FROM job WHERE lane = ?";
    Ok(queue.connection().query_row(begun, [lane], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// Opens a database; where its disk is full, in the room that was kept for that.
fn open_at_any_rate<T>(
    reserve: &mut Reserve,
    open: impl Fn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match open() {
        Err(error) if error.is_disk_full() => {
            reserve.release();
            open()
        }
        opened => opened,
    }
}

/// Runs something as a process's first task; the process ends with it, however it ends.
fn start(process: &Process, run: impl Future<Output = Result<(), StoreError>> + Send + 'static) {
    struct Ends(Process);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.kill();
        }
    }
    let ends = Ends(process.clone());
    process.spawn(async move {
        let ends = ends;
        if let Err(error) = run.await {
            tracing::warn!(%error, "a process ended");
        }
        drop(ends);
    });
}

async fn ended(process: Option<Process>) {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

fn cut(end: End) -> Cut {
    match end {
        End::Killed => Cut::Killed,
        End::Power => Cut::Power,
        End::PowerAndCache => Cut::PowerAndCache,
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
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

fn words(order: &Order) -> String {
    match order {
        Order::CardEncode(card) => {
            let doors: Vec<_> = card.doors.iter().map(DoorName::as_str).collect();
            let key = card.reservation_key.as_ref().map_or("", ReservationKey::as_str);
            format!("card for {} of {key} on {}", doors.join("+"), card.encoder)
        }
        Order::StayCheckout { room, reservation_key } => {
            format!("check-out of {} from {room}", reservation_key.as_str())
        }
        Order::SlotPut(put) => {
            let ends_at = put.window.ends_at().unwrap();
            format!("{} into {} from {} to {ends_at}", put.slot, put.device, put.window.starts_at())
        }
        Order::SlotRemove { device, slot } => format!("{slot} out of {device}"),
        Order::DeviceUnlock { device } => format!("open {device}"),
        other => other.kind().as_str().to_owned(),
    }
}

fn property() -> Property {
    Property {
        time_zone: "Etc/UTC".into(),
        rooms: (101..101 + ROOMS).map(|room| room.to_string()).collect(),
        common: Vec::new(),
        encoders: (1..=ENCODERS).map(|encoder| encoder.to_string()).collect(),
    }
}

/// The agent's, which may be the only one that makes cards.
fn agent_config(exclusive: bool) -> AgentConfig {
    let names = |names: &[String]| {
        let names: Vec<_> = names.iter().map(|name| format!("{{ name = \"{name}\" }}")).collect();
        names.join(", ")
    };
    let Property { rooms, encoders, .. } = property();
    let lock = |(number, port)| format!("{{ name = \"k{number}\", address = \"locks:{port}\" }}");
    let locks: Vec<_> = (1..=LOCK_COUNT).zip(LOCKS..).map(lock).collect();
    let text = format!(
        "[site]\nname = \"House\"\ntime_zone = \"Etc/UTC\"\n\
         [storage]\nfolder = \"s\"\n\
         [limits]\ncards_per_hour = 100000\nremote_unlock = true\n\
         [[system]]\nname = \"salto\"\nkind = \"salto_is\"\nexclusive = {exclusive}\nline = {{ tcp = \"salto:{SALTO}\" }}\n\
         encoders = [{}]\nrooms = [{}]\n\
         [[system]]\nname = \"keys\"\nkind = \"sim_lock\"\nlead = \"{}s\"\nlocks = [{}]\n",
        names(&encoders),
        names(&rooms),
        judge::LEAD.as_secs(),
        locks.join(", "),
    );
    AgentConfig::from_toml(std::path::Path::new("/latchd.toml"), &text)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn drivers(
    parts: &agent::Parts,
    config: &AgentConfig,
    in_doubt: &BTreeSet<SystemName>,
    mutant: Mutant,
) -> Vec<Arc<dyn Driver>> {
    let start = |system: &latchd::config::SystemConfig| {
        let past = match in_doubt.contains(&system.name) {
            true => Past::AnswerMayCome,
            false => Past::Answered,
        };
        let (name, clock, random) = (system.name.clone(), parts.clock.clone(), parts.random.clone());
        let net: Arc<dyn Net> = Arc::clone(&parts.net);
        match &system.driver {
            DriverConfig::SaltoIs(salto) => {
                let driver = SaltoIs::start_over(net, salto, name, TimeZone::UTC, past, clock, random);
                mutant::spoil_driver(mutant, Arc::new(driver))
            }
            DriverConfig::SimLock(locks) => {
                let driver = SimLock::start_over(net, locks, name, TimeZone::UTC, clock);
                mutant::spoil_driver(mutant, Arc::new(driver))
            }
        }
    };
    config.systems.iter().map(start).collect()
}

/// What signs for the bridge.
const BRIDGE_SEED: [u8; 32] = [3; 32];

/// Founds the house with its bridge and the cloud's key, in one commit and with the same ids for all seeds: what
/// pairing once brought to the agent stays true however the cloud's disk fares. Nothing where it was founded before.
fn found(storage: &Storage, now: Timestamp, authority: Option<&Authority>) -> Result<(), StoreError> {
    let random = Random::seeded(4711);
    let mut db = Db::open(storage, SealKey::new([7; 32], random.clone()), random)?;
    if db.workspace()?.is_some() {
        return Ok(());
    }
    db.connection().execute_batch("BEGIN IMMEDIATE")?;
    let workspace = db.found(now, "House", digest(desk::KEY))?;
    let bridge = db.the_bridge(now, workspace)?;
    db.cloud_keys(now)?;
    if let Some(authority) = authority {
        db.admit(now, bridge, &authority.keys())?;
    }
    db.commit()?;
    Ok(())
}

/// Certificates, made once for all seeds: their signatures have one length, so connections have as well.
struct Authority {
    ca_file: tempfile::NamedTempFile,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    /// The bridge's.
    client_certificate: CertificateDer<'static>,
    client_key: Vec<u8>,
    bridge: BridgeId,
    cloud_keys: Vec<PublicKey>,
}

impl Authority {
    fn get() -> &'static Self {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY.get_or_init(Self::new)
    }

    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "latchd simulation");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::new(["cloud".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client_key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let client_certificate = params.signed_by(&client_key, &issuer).unwrap().der().clone();
        let ca_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca_file.path(), pem).unwrap();
        let (bridge, cloud_keys) = Self::paired();
        Self {
            ca_file,
            certificate,
            key: key.serialize_der(),
            client_certificate,
            client_key: client_key.serialize_der(),
            bridge,
            cloud_keys,
        }
    }

    /// What founding gives, each time.
    fn paired() -> (BridgeId, Vec<PublicKey>) {
        let folder = tempfile::tempdir().unwrap();
        let (storage, now) = (Storage::folder(folder.path()), "2026-11-22T12:00:00Z".parse().unwrap());
        found(&storage, now, None).unwrap();
        let random = Random::seeded(1);
        let mut db = Db::open(&storage, SealKey::new([7; 32], random.clone()), random).unwrap();
        let workspace = db.workspace().unwrap().unwrap();
        let keys = db.cloud_keys(now).unwrap().iter().map(SigningKey::public).collect();
        (db.the_bridge(now, workspace).unwrap(), keys)
    }

    fn keys(&self) -> BridgeKeys {
        BridgeKeys {
            tls: public_key_hash(&self.client_certificate).unwrap(),
            signing: SigningKey::from_seed(&BRIDGE_SEED).public(),
            expires_at: "2100-01-01T00:00:00Z".parse().unwrap(),
        }
    }

    /// What pairing left at the site.
    fn settings(&self) -> link::Settings {
        let identity = link::Identity {
            bridge_id: self.bridge,
            key: SigningKey::from_seed(&BRIDGE_SEED),
            certificate: vec![self.client_certificate.clone()],
            tls_key: PrivateKeyDer::try_from(self.client_key.clone()).unwrap(),
        };
        let url = format!("wss://cloud:{BRIDGES}");
        let trust = link::Trust::open(Some(self.ca_file.path())).unwrap();
        link::Settings::new(&url, Arc::new(identity), self.cloud_keys.clone(), trust).unwrap()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca_file.path()).unwrap()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let clients = clients.build().unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
