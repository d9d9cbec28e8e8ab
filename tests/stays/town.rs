//! One house, its cloud and its doors, under simulated time; and what goes wrong between them.
//!
//! Minutes pass as they are. Hours pass at once: all clocks are put forward together and the connection between both
//! sides is made anew, as for machines that slept. So a history may reach over nights and changes of clocks and still
//! be played in a fraction of a second.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use latchd::{
    agent,
    cloud::store::Db,
    config::AgentConfig,
    drivers::salto_is::sim::Line,
    model::SystemName,
    seams::{self, Clock, Process, Random},
    store::{Reserve, vfs::memory::Disk},
};
use rusqlite::Connection;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    model::{Model, Tally},
    mutant::{Mutant, spoil_cloud, spoil_queue},
    simulated::{
        api::{Answer, call},
        net::{Host, Network, Road},
        side::{
            AgentLife, AgentStart, Circles, CloudLife, CloudStart, End, RESERVE, Side, address, doom, ended,
        },
    },
    site::{SALTO, System, ZONE, agent_config, drivers},
};

/// Spans longer than this pass at once.
const PASSED_AS_THEY_ARE: Duration = Duration::from_secs(180);
/// How long both sides may take to find each other again.
const RECONNECTED: Duration = Duration::from_secs(5);

/// What happens by itself, some time later.
#[derive(Debug, Clone)]
pub(super) enum Later {
    StartCloud,
    StartAgent,
    KillCloud,
    KillAgent,
    /// Within so many steps of its own.
    DoomAgent(u64),
    MendRoad(Host, Host),
    /// A lock server does as the fault says.
    Break(usize, String),
    /// What is wrong with a lock server is mended.
    Mend(usize),
    /// A person lays a card on an encoder.
    Lay {
        system: usize,
        encoder: String,
        card: String,
    },
    /// And takes away what lies there.
    TakeAway {
        system: usize,
        encoder: String,
    },
}

pub(super) struct Town {
    pub(super) random: Random,
    pub(super) network: Network,
    pub(super) systems: Vec<System>,
    pub(super) model: Model,
    pub(super) agent: Side<AgentLife>,
    pub(super) cloud: Side<CloudLife>,
    /// Of everybody and everything.
    pub(super) clock: Clock,
    pub(super) history: Vec<String>,
    /// What broke the promise.
    pub(super) wrong: Vec<String>,
    /// Whether the site does not reach its cloud.
    pub(super) is_alone: bool,
    seed: u64,
    pub(super) mutant: Mutant,
    /// The agent's own, which all share.
    agent_clock: Clock,
    devices: Process,
    circles: Circles,
    plan: BTreeMap<(Instant, u64), Later>,
    planned: u64,
}

impl Town {
    pub(super) fn new(seed: u64, mutant: Mutant) -> Self {
        let random = Random::seeded(seed);
        // An ordinary day, the night in which an hour comes twice, and the one that lacks an hour.
        let days = ["2026-11-22T09:00:00Z", "2026-10-24T20:00:00Z", "2027-03-27T20:00:00Z"];
        let day: Timestamp = days[[0, 0, 0, 1, 2][random.below(5) as usize]].parse().unwrap();
        let now = day + SignedDuration::from_mins(random.below(5 * 60) as i64);
        let count = 1 + usize::from(random.below(4) == 0);
        let systems = (0..count).map(|place| System::new(place, now, &random, mutant)).collect();
        Self {
            network: Network::new(Random::seeded(seed ^ 0x6e65_7477)),
            systems,
            model: Model::new(TimeZone::get(ZONE).unwrap()),
            agent: Side::new(),
            cloud: Side::new(),
            clock: Clock::simulated(now),
            history: Vec::new(),
            wrong: Vec::new(),
            is_alone: false,
            seed,
            mutant,
            agent_clock: Clock::simulated(now),
            devices: Process::new(|| false),
            circles: Circles::default(),
            plan: BTreeMap::new(),
            planned: 0,
            random,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn note(&mut self, what: impl std::fmt::Display) {
        let local = self.model.local(self.now()).strftime("%a %H:%M:%S");
        let line = format!("{local}  {what}");
        tracing::info!(target: "simulation", "{line}");
        self.history.push(line);
    }

    /// Counts something.
    pub(super) fn tally(&mut self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.model.tally);
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    pub(super) fn one<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.random.below(of.len() as u64) as usize]
    }

    // Time.

    pub(super) fn after(&mut self, span: Duration, what: Later) {
        self.planned += 1;
        self.plan.insert((Instant::now() + span, self.planned), what);
    }

    /// Lets the house live until something has come to its end.
    pub(super) async fn during<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        loop {
            let cloud = self.cloud.life.as_ref().map(|life| life.process.clone());
            let agent = self.agent.life.as_ref().map(|life| life.process.clone());
            let next = self.plan.first_key_value().map(|(key, _)| *key);
            let due = async {
                match next {
                    Some((due, _)) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = ended(cloud) => self.cloud_ended(),
                () = ended(agent) => self.agent_ended(),
                () = due => {
                    let later = next.and_then(|key| self.plan.remove(&key));
                    if let Some(later) = later {
                        Box::pin(self.happens(later)).await;
                    }
                }
                value = &mut what => return value,
            }
        }
    }

    /// Lets time pass.
    pub(super) async fn pass(&mut self, span: Duration) {
        if span <= PASSED_AS_THEY_ARE {
            return self.during(sleep(span)).await;
        }
        let to = self.now() + SignedDuration::try_from(span - RECONNECTED).unwrap();
        self.clock.jump_to(to);
        self.agent_clock.jump_to(to);
        for system in &self.systems {
            system.say(&format!("clock set {to}")).await;
        }
        self.network.reset(Host::Agent, Host::Cloud);
        self.during(sleep(RECONNECTED)).await;
    }

    async fn happens(&mut self, what: Later) {
        match what {
            Later::StartCloud => self.start_cloud().await,
            Later::StartAgent => self.start_agent().await,
            Later::KillCloud => {
                if let Some(life) = &self.cloud.life {
                    life.process.kill();
                }
            }
            Later::KillAgent => {
                if let Some(life) = &self.agent.life {
                    life.process.kill();
                }
            }
            Later::DoomAgent(steps) => {
                if let Some(life) = &self.agent.life {
                    doom(&life.process, steps);
                }
            }
            Later::MendRoad(one, other) => {
                self.note(format_args!("the road {one:?}-{other:?} is open again"));
                self.is_alone &= other != Host::Cloud;
                self.network.set_road(one, other, Road::Open(Duration::from_millis(2)));
            }
            Later::Break(system, fault) => {
                let name = self.systems[system].name;
                self.note(format_args!("{name}: {fault}"));
                self.systems[system].say(&format!("fault {fault}")).await;
            }
            Later::Mend(system) => {
                self.systems[system].say("fault clear").await;
            }
            Later::Lay { system, encoder, card } => {
                let server = &self.systems[system];
                server.say(&format!("remove {encoder}")).await;
                server.say(&format!("place {card} on {encoder}")).await;
                self.note(format_args!("{card} is laid on encoder {encoder}"));
            }
            Later::TakeAway { system, encoder } => {
                let removed = self.systems[system].say(&format!("remove {encoder}")).await;
                if let Some(card) = removed["removed"].as_str() {
                    self.note(format_args!("{card} is taken away from encoder {encoder}"));
                }
            }
        }
    }

    /// A lock server does as the fault says, until it is mended.
    pub(super) fn break_later(&mut self, system: usize, fault: String, mended: Duration) {
        self.after(Duration::ZERO, Later::Break(system, fault));
        self.after(mended, Later::Mend(system));
    }

    // The API.

    /// Asks the cloud as the front desk's software does; nothing where it does not answer.
    pub(super) async fn ask(&mut self, path: &'static str, body: Value) -> Option<Answer> {
        let net = self.network.at(Host::People);
        self.during(async move { call(&net, path, &body).await }).await
    }

    // Both sides.

    pub(super) async fn open(&mut self) {
        for (port, system) in (SALTO..).zip(&self.systems) {
            let mut listener = self.network.at(Host::Salto).listen(address(port)).await.unwrap();
            let server = system.server.clone();
            self.devices.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let server = server.clone();
                    seams::spawn(async move { server.serve(stream, Line::Tcp).await });
                }
            });
        }
        self.start_cloud().await;
        self.start_agent().await;
    }

    fn random_of(&self, host: Host, lives: u64) -> Random {
        Random::seeded(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (lives << 8) ^ host as u64)
    }

    /// How long a sync takes on a side's disk.
    fn pace(&self, host: Host, lives: u64) -> impl FnMut() -> Duration + Send + 'static {
        let random = self.random_of(host, lives ^ 0xffff);
        move || Duration::from_micros(random.below(3_000))
    }

    async fn start_cloud(&mut self) {
        if self.cloud.life.is_some() {
            return;
        }
        self.cloud.lives += 1;
        let (lives, mutant) = (self.cloud.lives, self.mutant);
        let start = CloudStart {
            disk: self.cloud.disk.clone(),
            reserve: |disk: &Disk| Reserve::new(disk.storage(), RESERVE),
            clock: self.clock.clone(),
            random: self.random_of(Host::Cloud, lives),
            net: self.network.at(Host::Cloud),
            pace: self.pace(Host::Cloud, lives),
            circles: self.circles.clone(),
            is_set_back: Arc::new(AtomicBool::new(false)),
            spoil: move |db: &mut Db| spoil_cloud(mutant, db),
        };
        self.cloud.life = start.begin().await;
        if self.cloud.life.is_none() {
            self.cloud_dead();
        }
    }

    async fn start_agent(&mut self) {
        if self.agent.life.is_some() {
            return;
        }
        self.agent.lives += 1;
        let (lives, mutant) = (self.agent.lives, self.mutant);
        let start = AgentStart {
            disk: self.agent.disk.clone(),
            reserve: |disk: &Disk| Reserve::new(disk.storage(), RESERVE),
            clock: self.agent_clock.clone(),
            random: self.random_of(Host::Agent, lives),
            net: self.network.at(Host::Agent),
            pace: self.pace(Host::Agent, lives),
            circles: self.circles.clone(),
            is_set_back: Arc::new(AtomicBool::new(false)),
            spoil: move |connection: &mut Connection| spoil_queue(mutant, connection),
            config: agent_config(&self.systems),
            drivers: move |parts: &agent::Parts,
                           config: &AgentConfig,
                           in_doubt: &std::collections::BTreeSet<SystemName>| {
                drivers(parts, config, in_doubt, mutant)
            },
        };
        self.agent.life = start.begin().await;
        if self.agent.life.is_none() {
            self.agent_dead();
        }
    }

    fn cloud_ended(&mut self) {
        self.cloud.life = None;
        self.cloud_dead();
    }

    fn cloud_dead(&mut self) {
        let end = self.some_end();
        self.note(format_args!("the cloud dies: {end:?}"));
        self.network.crashed(Host::Cloud, end != End::Killed);
        self.cloud.disk.cut(end.cut(), &self.random);
        let span = *self.one(&[50, 3_000, 20_000]);
        self.after(Duration::from_millis(span), Later::StartCloud);
    }

    fn agent_ended(&mut self) {
        self.agent.life = None;
        self.agent_dead();
    }

    fn agent_dead(&mut self) {
        let end = self.some_end();
        self.note(format_args!("the agent dies: {end:?}"));
        self.network.crashed(Host::Agent, end != End::Killed);
        self.agent.disk.cut(end.cut(), &self.random);
        let span = *self.one(&[50, 3_000, 20_000, 90_000]);
        self.after(Duration::from_millis(span), Later::StartAgent);
    }

    fn some_end(&self) -> End {
        *self.one(&[End::Killed, End::Power, End::PowerAndCache])
    }

    /// What turned in a circle, if anything did.
    pub(super) fn circles(&self) -> Vec<String> {
        std::mem::take(&mut *self.circles.0.lock().unwrap())
    }
}
