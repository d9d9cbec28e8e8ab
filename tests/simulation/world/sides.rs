//! Both sides: how they start, end, and are set back.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use latchd::{
    agent,
    cloud::store::Db,
    config::AgentConfig,
    drivers::salto_is::sim::Line,
    model::SystemName,
    protocol::Position,
    queue::{Memory, Queue, Rules},
    seal::SealKey,
    seams::{self, Random},
    store::{Store, StoreError, vfs::memory::Disk},
};
use rusqlite::Connection;
use tokio::time::Instant;

use super::{
    Action, LOCKS, MOST_IN_VAIN, SALTO, World,
    site::{agent_config, drivers},
};
use crate::{
    desk::Attempts,
    mutant::{self, Mutant},
    simulated::{
        net::{Host, Road},
        side::{AgentStart, CloudStart, End, MOST_STEPS, RESERVE, address, doom},
    },
};

impl World {
    pub(super) async fn open_devices(&mut self) {
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

    pub(super) fn random_of(&self, host: Host, lives: u64) -> Random {
        Random::seeded(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (lives << 8) ^ host as u64)
    }

    /// How long a sync takes on this side's disk.
    pub(super) fn pace(&self, host: Host, lives: u64) -> impl FnMut() -> Duration + Send + 'static {
        let random = self.random_of(host, lives ^ 0xffff);
        let slowest = self.one(&[1, 300, 4_000, 30_000]);
        move || Duration::from_micros(random.below(slowest))
    }

    pub(super) async fn start_cloud(&mut self) {
        if self.cloud.life.is_some() {
            return;
        }
        self.cloud.lives += 1;
        let lives = self.cloud.lives;
        let (mutant, pairs_again, now) = (self.mutant, self.pairs_again, self.cloud_clock.now());
        let start = CloudStart {
            disk: self.cloud.disk.clone(),
            reserve: move |disk: &Disk| mutant::spoil_reserve(mutant, disk, RESERVE),
            clock: self.cloud_clock.clone(),
            random: self.random_of(Host::Cloud, lives),
            net: self.network.at(Host::Cloud),
            pace: self.pace(Host::Cloud, lives),
            circles: self.circles.clone(),
            is_set_back: Arc::clone(&self.cloud_is_set_back),
            spoil: move |db: &mut Db| {
                mutant::spoil_cloud(mutant, db)?;
                if let Some(workspace) = db.workspace()?.filter(|_| pairs_again) {
                    let bridge = db.the_bridge(now, workspace)?;
                    db.replace_hardware(bridge, false)?;
                }
                Ok(())
            },
        };
        self.cloud.life = start.begin().await;
        self.pairs_again &= self.cloud.life.is_none();
        match self.cloud.life {
            Some(_) => self.note(format_args!("cloud life {lives}")),
            None => {
                self.note(format_args!("cloud life {lives} does not begin"));
                self.cloud_dead();
            }
        }
    }

    /// Whether in this seed the agent's machine is put back to an older moment without anybody saying so.
    pub(super) fn may_roll_back(&self) -> bool {
        self.seed % 8 == 5
    }

    /// Whether in this seed the agent is set back and told so. It has much to be forgiven, so most seeds have none of it.
    pub(super) fn agent_is_told_of_set_backs(&self) -> bool {
        self.seed % 4 == 1 && !self.may_roll_back()
    }

    /// Whether the agent's box may be replaced by another one in this seed.
    fn is_replaced(&self) -> bool {
        self.seed % 32 == 17 || self.seed % 32 == 25
    }

    /// Whether the cloud is put back soon after the agent in this seed, to a moment soon after that which the agent was put
    /// back to, and nobody tells it: then it orders again what both have forgotten.
    pub(super) fn cloud_follows(&self) -> bool {
        self.seed % 16 == 9
    }

    /// The agent's box is gone for good, and a blank one takes its place.
    fn replace_agent(&mut self) {
        self.note("the agent's box is replaced");
        self.agent.disk.restore(&self.blank);
        self.agent.backup = None;
        (self.agent_is_new, self.agent_was_replaced) = (true, true);
        self.agent_is_set_back.store(false, Ordering::Relaxed);
        self.agent_was_set_back();
    }

    /// The box that takes the agent's place is paired and takes over what the cloud knows of the doors. False where there is
    /// no cloud that could say so.
    async fn pair_anew(&mut self) -> bool {
        let Some(cloud) = &self.cloud.life else { return false };
        let bridge = cloud.bridge;
        let Ok(copy) = cloud.db.run(move |db| db.replace_hardware(bridge, false)).await else { return false };
        let random = self.random_of(Host::Agent, 0);
        let seal = SealKey::new([9; 32], random.clone());
        let rules = Rules::from(&agent_config(true));
        // Whatever was wrong with the disk of the other one.
        self.agent.disk.limit(None);
        self.agent.disk.fail_syncs(0);
        self.agent.disk.die_after(u64::MAX >> 1);
        let mut queue = Queue::open(&self.agent.disk.storage(), seal, random, rules).unwrap();
        queue.connection().execute_batch("BEGIN IMMEDIATE").unwrap();
        let imported = queue.import_ledger(self.agent_clock.now(), &copy).unwrap();
        queue.commit().unwrap();
        self.note(format_args!("it is paired, and knows of {} rooms", imported.rooms));
        self.agent_is_new = false;
        true
    }

    /// What the agent knew since some moment is gone.
    fn agent_was_set_back(&mut self) {
        self.filled_beside_reserve.remove(&Host::Agent);
        self.paused.lock().unwrap().clear();
        let mut book = self.book.lock().unwrap();
        let last = book.orders.len() as u64;
        book.agent_restored.push(last);
        drop(book);
        if self.cloud_follows() {
            self.cloud_goes_back = true;
            self.soon(60_000, Action::PutCloudBack);
        }
    }

    /// What is on the agent's disk, while no process uses it.
    pub(super) fn agent_memory(&self) -> Result<Memory, StoreError> {
        let random = self.random_of(Host::Agent, 0);
        let seal = SealKey::new([9; 32], random.clone());
        Queue::open(&self.agent.disk.storage(), seal, random, Rules::from(&agent_config(true)))?.memory()
    }

    /// Puts the agent's disk back to its copy. Only the cloud can know then, and only if it has heard of something that the
    /// copy does not hold, and of all orders that the agent took. So there must be a cloud to say so within the time for
    /// which an agent that starts holds its jobs, be it at its first start or at the next one.
    pub(super) async fn roll_back(&mut self) {
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
    pub(super) fn open_the_way_to_the_cloud(&mut self) {
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

    pub(super) async fn start_agent(&mut self) {
        if self.agent.life.is_some() {
            return;
        }
        if self.agent_is_new && !self.pair_anew().await {
            return self.soon(3_000, Action::StartAgent);
        }
        if std::mem::take(&mut self.agent_rolls_back) {
            self.roll_back().await;
        }
        self.agent.lives += 1;
        let lives = self.agent.lives;
        let mutant = self.mutant;
        let start = AgentStart {
            disk: self.agent.disk.clone(),
            reserve: move |disk: &Disk| mutant::spoil_reserve(mutant, disk, RESERVE),
            clock: self.agent_clock.clone(),
            random: self.random_of(Host::Agent, lives),
            net: self.network.at(Host::Agent),
            pace: self.pace(Host::Agent, lives),
            circles: self.circles.clone(),
            is_set_back: Arc::clone(&self.agent_is_set_back),
            spoil: move |connection: &mut Connection| mutant::spoil_queue(mutant, connection),
            config: agent_config(!self.is_shared() || mutant == Mutant::BelievesItIsAlone),
            drivers: move |parts: &agent::Parts, config: &AgentConfig, in_doubt: &BTreeSet<SystemName>| {
                drivers(parts, config, in_doubt, mutant)
            },
        };
        self.agent.life = start.begin().await;
        match self.agent.life {
            Some(_) => self.note(format_args!("agent life {lives}")),
            None => {
                self.note(format_args!("agent life {lives} does not begin"));
                self.agent_dead();
            }
        }
    }

    pub(super) fn cloud_ended(&mut self) {
        let life = self.cloud.life.take().unwrap();
        let (polls, changes) = (life.process.polls(), self.cloud.disk.changes());
        self.note(format_args!("the cloud ended after {polls} steps, {changes} changes"));
        self.most_steps = self.most_steps.max(polls);
        if MOST_STEPS <= polls {
            self.circles.add("the cloud takes steps without end");
        }
        self.cloud_dead();
    }

    pub(super) fn cloud_dead(&mut self) {
        let end = std::mem::replace(&mut self.cloud.end, End::Killed);
        self.network.crashed(Host::Cloud, end != End::Killed);
        self.cloud.disk.cut(end.cut(), &self.random);
        self.cloud.crashes += 1;
        // Where both sides are set back to the same moment and the agent is not told, nobody can know.
        let may_be_set_back = !self.healed && !self.may_roll_back();
        let goes_back = std::mem::take(&mut self.cloud_goes_back);
        let may_go_back = |_: &_| may_be_set_back && (goes_back || self.chance(25));
        if let Some(image) = self.cloud.backup.clone().filter(may_go_back) {
            self.note("the cloud's backup is put back");
            self.cloud.disk.restore(&image);
            // Its bridge tells it. Where that may be set back as well, a person does, but in the seeds where it follows.
            let is_told = self.agent_is_told_of_set_backs() && !self.cloud_follows();
            self.cloud_is_set_back.store(is_told, Ordering::Relaxed);
            self.pairs_again = self.agent_was_replaced;
            self.filled_beside_reserve.remove(&Host::Cloud);
            let mut book = self.book.lock().unwrap();
            book.cloud_restored = true;
            book.attempts = Attempts::default();
        }
        let below = self.one(&[50, 3_000, 40_000]);
        self.soon(below, Action::StartCloud);
    }

    pub(super) fn agent_ended(&mut self) {
        let life = self.agent.life.take().unwrap();
        let (polls, changes) = (life.process.polls(), self.agent.disk.changes());
        self.note(format_args!("the agent ended after {polls} steps, {changes} changes"));
        self.most_steps = self.most_steps.max(polls);
        if MOST_STEPS <= polls {
            self.circles.add("the agent takes steps without end");
        }
        self.agent_dead();
    }

    pub(super) fn agent_dead(&mut self) {
        let end = std::mem::replace(&mut self.agent.end, End::Killed);
        self.network.crashed(Host::Agent, end != End::Killed);
        self.agent.disk.cut(end.cut(), &self.random);
        self.agent.crashes += 1;
        if std::mem::take(&mut self.agent_starts_over) {
            return self.soon(50, Action::StartAgent);
        }
        let may_be_set_back = !self.healed && self.agent_is_told_of_set_backs();
        if !self.healed && self.may_roll_back() && self.agent.backup.is_some() && self.chance(50) {
            self.agent_rolls_back = true;
        }
        let percent = if self.cloud_follows() { 50 } else { 25 };
        if let Some(image) = self.agent.backup.clone().filter(|_| may_be_set_back && self.chance(percent)) {
            self.note("the agent's backup is put back");
            self.agent.disk.restore(&image);
            self.agent_is_set_back.store(true, Ordering::Relaxed);
            self.agent_was_set_back();
        } else if may_be_set_back && self.is_replaced() && self.chance(30) {
            self.replace_agent();
        }
        let below = self.one(&[50, 3_000, 40_000]);
        self.soon(below, Action::StartAgent);
    }
}
