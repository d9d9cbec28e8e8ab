//! Locks that are spoken to by Bluetooth Low Energy: what the makes share.
//!
//! Each lock is a lane of its own, `system/lock`; `inventory.refresh` has the lane `system`. A connection is made for a
//! job, kept half a second for others that come with it, and closed, so that a lock's one link is free for a guest's telephone. Nothing is done that was not read
//! back: a code counts as set when the lock's own table shows it.
//!
//! What a lock holds is known by its content (TTLock) or by a numbered place (August, Yale). Both are kept by the queue and
//! come with the work.

mod clocks;
mod keys;
mod links;
mod make;
mod pairing;
mod signs;

pub use keys::{Kept, KeyRing, KeysError};
pub use pairing::{PairError, Paired, Pairer};

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::tz::TimeZone;
use tokio::{sync::watch, time::Instant};

use self::{
    links::{Links, Standing, Turn},
    make::{Did, GoesOn, Held, LockKeys, Task},
};
use crate::{
    config::{BleConfig, BleLockConfig, BleMake},
    drivers::{Came, Driver, Line, Observed, Performed, ProgressSink, Proof, Signs, Trouble, Work},
    model::{
        Admission, Capabilities, Code, Device, DeviceName, DoorEvent, LaneName, Order, Outcome, PinRules,
        ProofLevel, Refusal, SlotContent, SlotNow, SlotPut, Success, SystemInventory, SystemKind, SystemName,
        Whom, Written,
    },
    seams::{self, BoxFuture, Clock, Random},
    transport::ble::{Radio, RadioState, Unreachable, Wanted},
};

/// The locks of one system.
pub struct BleLocks {
    system: SystemName,
    kind: SystemKind,
    make: BleMake,
    time_zone: TimeZone,
    lead: Duration,
    listen: Duration,
    answer_timeout: Duration,
    read_events_every: Option<Duration>,
    locks: BTreeMap<DeviceName, Lock>,
    ring: KeyRing,
    radio: Radio,
    clock: Clock,
    random: Random,
    line: watch::Receiver<Line>,
    stopping: watch::Sender<bool>,
}

/// One lock.
struct Lock {
    config: BleLockConfig,
    lane: LaneName,
    whom: Whom,
    time_zone: TimeZone,
    make: make::Make,
    signs: signs::Log,
    links: Links,
}

impl BleLocks {
    /// Takes the locks in hand. Nothing is connected yet, but where the clocks of a lock's zone were changed lately.
    ///
    /// A lock whose address or zone makes no sense is left out, with an error in the log: both are judged where the
    /// configuration is read.
    #[must_use]
    pub fn start(
        config: &BleConfig,
        radio: Radio,
        ring: KeyRing,
        system: SystemName,
        time_zone: TimeZone,
        clock: Clock,
        random: Random,
    ) -> Arc<Self> {
        let lock = |lock: &BleLockConfig| {
            let zone = match &lock.time_zone {
                Some(name) => TimeZone::get(name).map_err(|error| error.to_string())?,
                None => time_zone.clone(),
            };
            let whom: Whom = lock.address.parse()?;
            let lane = LaneName::new(format!("{system}/{}", lock.name)).map_err(|error| error.to_string())?;
            let make = make::Make::new(config.make);
            Ok(Lock {
                config: lock.clone(),
                lane,
                whom,
                time_zone: zone,
                make,
                signs: signs::Log::default(),
                links: Links::default(),
            })
        };
        let mut locks = BTreeMap::new();
        for config in &config.locks {
            match lock(config) {
                Ok(lock) => drop(locks.insert(config.name.clone(), lock)),
                Err::<_, String>(error) => {
                    tracing::error!(system = %system, lock = %config.name, error, "the lock is left out");
                }
            }
        }
        let driver = Arc::new(Self {
            line: follow(radio.state(), clock.clone()),
            kind: config.make.kind(),
            make: config.make,
            system,
            time_zone,
            lead: config.lead,
            listen: config.listen,
            answer_timeout: config.answer_timeout,
            read_events_every: config.read_events_every,
            locks,
            ring,
            radio,
            clock,
            random,
            stopping: watch::Sender::new(false),
        });
        seams::spawn(clocks::keep(Arc::downgrade(&driver), driver.stopping.subscribe()));
        driver
    }

    /// What these locks can do; the same for every site.
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
            slots: Some(ProofLevel::Simulator),
            unlock: Some(ProofLevel::Simulator),
            chip_numbers: None,
            max_rooms: 0,
            max_common: 0,
            answer_means_written: true,
            parallel_encoders: false,
        }
    }

    /// Whether a lock's keys can be used.
    ///
    /// # Errors
    /// When they cannot.
    pub fn check_keys(
        ring: &KeyRing,
        make: BleMake,
        system: &SystemName,
        lock: &BleLockConfig,
    ) -> Result<(), KeysError> {
        ring.read(make, system, lock).map(drop)
    }

    fn lock(&self, device: &DeviceName) -> Result<(&DeviceName, &Lock), Refusal> {
        self.locks.get_key_value(device).ok_or_else(|| {
            Refusal::new(Code::DeviceUnknown, format!("system {} has no lock {device}", self.system))
        })
    }

    /// The lock that an order is about; none where every lock is meant.
    fn lock_for(&self, order: &Order) -> Result<Option<(&DeviceName, &Lock)>, Refusal> {
        match order {
            Order::SlotPut(put) => {
                let (name, lock) = self.lock(&put.device)?;
                lock.make.judge(put, &lock.config, &lock.time_zone)?;
                Ok(Some((name, lock)))
            }
            Order::SlotRemove { device, .. }
            | Order::DeviceUnlock { device }
            | Order::DeviceRead { device } => self.lock(device).map(Some),
            Order::InventoryRefresh => Ok(None),
            Order::CardEncode(_) | Order::CardRead(_) | Order::StayModify(_) | Order::StayCheckout { .. } => {
                Err(Refusal::new(
                    Code::Unsupported,
                    format!("a lock of kind {} cannot do {}", self.kind.as_str(), order.kind().as_str()),
                ))
            }
        }
    }

    /// What to do at a lock for an order; none where nothing is left to be done.
    fn task(work: &Work, proof: bool) -> Option<Task> {
        let slot = || work.slot.clone().unwrap_or_default();
        match &work.order {
            Order::SlotPut(put) if proof => Some(Task::ProvePut(put.clone(), slot())),
            Order::SlotPut(put) => Some(Task::Put(put.clone(), slot())),
            // Nobody ever put anything there that may still be in it.
            Order::SlotRemove { .. } if slot().may_hold.is_empty() => None,
            Order::SlotRemove { .. } if proof => Some(Task::ProveRemove(slot())),
            Order::SlotRemove { .. } => Some(Task::Remove(slot())),
            Order::DeviceUnlock { .. } => Some(Task::Unlock),
            _ => Some(Task::Look),
        }
    }

    async fn perform_work(&self, work: &Work) -> Performed {
        let (name, lock) = match self.lock_for(&work.order) {
            Ok(Some(at)) => at,
            Ok(None) => return self.refresh().await,
            Err(refusal) => return Performed::Ended(Outcome::Failed(refusal)),
        };
        let written = matches!(work.order, Order::SlotPut(_) | Order::SlotRemove { .. });
        let success = Success { written: written.then_some(Written::Proven), ..Success::default() };
        if let Some(refusal) = work.forgotten() {
            return Performed::Ended(Outcome::Failed(refusal));
        }
        let Some(task) = Self::task(work, false) else {
            return Performed::Ended(Outcome::Succeeded(success));
        };
        match self.hold(name, lock, task).await.came {
            Came::Done => Performed::Ended(Outcome::Succeeded(success)),
            Came::NothingSent(refusal) => Performed::NothingSent(refusal),
            Came::NotDone(refusal) => Performed::Ended(Outcome::Failed(refusal)),
            Came::Doubt(refusal) if work.order.kind().is_repeatable() => Performed::MayRepeat(refusal),
            Came::Doubt(refusal) => Performed::Ended(Outcome::Unknown(refusal)),
        }
    }

    async fn prove_work(&self, work: &Work) -> Proof {
        let is_slot = matches!(work.order, Order::SlotPut(_) | Order::SlotRemove { .. });
        let (Ok(Some((name, lock))), true) = (self.lock_for(&work.order), is_slot) else {
            return Proof::None;
        };
        let done = || Proof::Done(Success { written: Some(Written::Proven), ..Success::default() });
        if work.forgotten().is_some() {
            return Proof::None;
        }
        let Some(task) = Self::task(work, true) else {
            return done();
        };
        match self.hold(name, lock, task).await.came {
            Came::Done => done(),
            Came::NotDone(refusal) => Proof::NotDone(refusal),
            Came::NothingSent(refusal) | Came::Doubt(refusal) => {
                tracing::info!(job = %work.job_id, lock = %name, error = %refusal, "nothing is proven");
                Proof::None
            }
        }
    }

    /// Looks at every lock, one after the other: a radio makes one connection at a time.
    async fn refresh(&self) -> Performed {
        let mut silent = Vec::new();
        for (name, lock) in &self.locks {
            match self.hold(name, lock, Task::Look).await.came {
                Came::Done => {}
                _ if *self.stopping.borrow() => return Performed::NothingSent(stopping()),
                _ => silent.push(name.as_str()),
            }
        }
        match silent.as_slice() {
            [] => Performed::Ended(Outcome::Succeeded(Success::default())),
            silent => Performed::Ended(Outcome::failed(
                Code::DeviceOffline,
                format!("could not be read: {}", silent.join(", ")),
            )),
        }
    }

    /// Holds one conversation with a lock. A stop ends it if nothing of its command has left yet.
    async fn hold(&self, name: &DeviceName, lock: &Lock, task: Task) -> Held {
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
        let conversation = async {
            let leaves = || left.store(true, Ordering::Relaxed);
            let mut turn = lock.links.turn().await;
            let keys = match self.ring.read(self.make, &self.system, &lock.config) {
                Ok(keys) => keys,
                Err(error) => {
                    return Held::came(Came::NothingSent(Refusal::new(Code::Auth, error.to_string())));
                }
            };
            if let Some(standing) = turn.take() {
                let (held, standing) =
                    self.converse(name, lock, standing, keys.clone(), task.clone(), leaves).await;
                match held.came {
                    // The link was gone, or the session in it.
                    Came::NothingSent(_) => left.store(false, Ordering::Relaxed),
                    _ => {
                        self.keep(turn, standing);
                        return held;
                    }
                }
            }
            let standing = match self.connect(name, lock).await {
                Ok(standing) => standing,
                Err(refusal) => return Held::came(Came::NothingSent(refusal)),
            };
            let (held, standing) = self.converse(name, lock, standing, keys, task, leaves).await;
            self.keep(turn, standing);
            held
        };
        tokio::select! {
            biased;
            () = stopped => Held::came(Came::NothingSent(stopping())),
            held = conversation => held,
        }
    }

    fn keep(&self, turn: Turn, standing: Option<Standing>) {
        if let Some(standing) = standing {
            turn.keep(standing, self.stopping.subscribe());
        }
    }

    async fn connect(&self, name: &DeviceName, lock: &Lock) -> Result<Standing, Refusal> {
        let began = Instant::now();
        let wanted = Wanted { whom: lock.whom.clone(), service: lock.make.service() };
        let link = self.radio.connect(wanted, self.listen).await.map_err(|why| {
            lock.signs.missed(&why);
            unreachable(name, &why)
        })?;
        lock.signs.reached(self.clock.now(), link.signal(), began.elapsed());
        Ok(Standing { link, goes_on: GoesOn::Anew, since: Instant::now() })
    }

    /// Holds one conversation over a link that stands. Gives the link back where more may come over it.
    async fn converse(
        &self,
        name: &DeviceName,
        lock: &Lock,
        standing: Standing,
        keys: LockKeys,
        task: Task,
        leaves: impl Fn(),
    ) -> (Held, Option<Standing>) {
        let Standing { mut link, goes_on, since } = standing;
        let manners = make::Manners {
            answer_timeout: self.answer_timeout,
            now: self.clock.now(),
            zone: lock.time_zone.clone(),
            nonces: self.random.bytes(),
            config: &lock.config,
        };
        let mut held = lock.make.converse(&mut link, goes_on, task, keys, manners, leaves).await;
        lock.signs.held(&held.came, held.battery, since.elapsed());
        tracing::debug!(
            system = %self.system, lock = %name, millis = since.elapsed().as_millis(), came = ?held.came,
            "a conversation ended"
        );
        let standing = held.goes_on.take().map(|goes_on| Standing { link, goes_on, since });
        (held, standing)
    }

    /// What happened at a lock since a mark.
    async fn watch(&self, name: &DeviceName, mark: Option<&str>) -> Result<Observed, Refusal> {
        let (name, lock) = self.lock(name)?;
        let from = mark.and_then(|mark| mark.parse().ok()).unwrap_or(0);
        let held = self.hold(name, lock, Task::Watch { from }).await;
        match (held.did, held.came) {
            (Some(Did { events, next, more, forgotten }), _) => {
                let events = events.iter().filter_map(|event| event.told(&self.system, name)).collect();
                let mark = if forgotten { 0 } else { next }.to_string();
                Ok(Observed { events, lost: u64::from(forgotten), mark, more: more || forgotten })
            }
            (None, Came::Done) => Err(Refusal::new(Code::Unsupported, "the lock does not show its memory")),
            (None, Came::NothingSent(refusal) | Came::NotDone(refusal) | Came::Doubt(refusal)) => {
                Err(refusal)
            }
        }
    }
}

/// A line that is as the radio is.
fn follow(mut radio: watch::Receiver<RadioState>, clock: Clock) -> watch::Receiver<Line> {
    let line = move |state: &RadioState| match state {
        RadioState::Opening => Line::Opening,
        RadioState::Ready => Line::Ready,
        RadioState::Down(why) => {
            let message = format!("the radio cannot be used: {why}");
            Line::Down(Trouble { code: "radio_down", message, since: clock.now() })
        }
    };
    let (told, followed) = watch::channel(line(&radio.borrow_and_update()));
    seams::spawn(async move {
        loop {
            tokio::select! {
                () = told.closed() => return,
                changed = radio.changed() => if changed.is_err() {
                    return;
                },
            }
            let now = line(&radio.borrow_and_update());
            told.send_if_modified(|before| {
                // The same trouble goes on.
                let same = match (&*before, &now) {
                    (Line::Down(before), Line::Down(now)) => before.message == now.message,
                    (before, now) => before == now,
                };
                if !same {
                    *before = now;
                }
                !same
            });
        }
    });
    followed
}

fn unreachable(name: &DeviceName, why: &Unreachable) -> Refusal {
    let code = match why {
        Unreachable::OtherDevice(_) => Code::Rejected,
        Unreachable::Down(_) => Code::SystemOffline,
        Unreachable::NotHeard(_) | Unreachable::NotConnected(_) => Code::DeviceOffline,
    };
    Refusal::new(code, format!("lock {name}: {why}"))
}

fn stopping() -> Refusal {
    Refusal::new(Code::SystemOffline, "latchd is stopping; nothing new is begun")
}

impl Driver for BleLocks {
    fn system(&self) -> &SystemName {
        &self.system
    }

    fn inventory(&self) -> SystemInventory {
        let device = |(name, lock): (&DeviceName, &Lock)| Device {
            name: name.clone(),
            display_name: lock.config.display_name.clone(),
            slots: lock.make.slots(&lock.config),
            pins: Some(PinRules {
                lengths: lock.config.pin_lengths.clone(),
                constraints: lock.config.pin_constraints.clone(),
            }),
            device_type: Some(lock.config.device_type.clone()),
            manufacturer: Some(lock.make.manufacturer().into()),
            model: None,
            lead_seconds: Some(u32::try_from(self.lead_of(lock).as_secs()).unwrap_or(u32::MAX)),
            // The site's limits say whether it may be.
            remote_unlock: None,
            card_numbers: false,
        };
        SystemInventory {
            name: self.system.clone(),
            kind: self.kind,
            time_zone: self.time_zone.iana_name().unwrap_or("Etc/Unknown").to_owned(),
            capabilities: Self::capabilities(),
            checkout_on_last_grant: false,
            override_after_deleted_card: false,
            doors: Vec::new(),
            encoders: Vec::new(),
            devices: self.locks.iter().map(device).collect(),
        }
    }

    fn lanes(&self) -> Vec<LaneName> {
        let locks = self.locks.values().map(|lock| lock.lane.clone());
        std::iter::once(all_locks(&self.system)).chain(locks).collect()
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        let at = self.lock_for(order)?;
        let lead = match (order, at) {
            (Order::SlotPut(_), Some((_, lock))) => self.lead_of(lock),
            _ => Duration::ZERO,
        };
        let lane = at.map_or_else(|| all_locks(&self.system), |(_, lock)| lock.lane.clone());
        Ok(Admission { lead, ..Admission::to(lane, Vec::new()) })
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.line.clone()
    }

    fn perform<'a>(&'a self, work: Work, _progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        Box::pin(async move { self.perform_work(&work).await })
    }

    fn prove<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Proof> {
        Box::pin(self.prove_work(work))
    }

    fn observed(&self) -> Option<(Vec<DeviceName>, Duration)> {
        let every = self.read_events_every?;
        Some((self.locks.keys().cloned().collect(), every))
    }

    fn observe<'a>(
        &'a self,
        device: &'a DeviceName,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Observed, Refusal>> {
        Box::pin(self.watch(device, after))
    }

    fn signs(&self) -> Vec<Signs> {
        self.locks.iter().filter_map(|(name, lock)| lock.signs.signs(name)).collect()
    }

    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

impl BleLocks {
    /// A lock that keeps no windows gets its codes when they begin.
    fn lead_of(&self, lock: &Lock) -> Duration {
        if lock.config.windows { self.lead } else { Duration::ZERO }
    }
}

impl std::fmt::Debug for BleLocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BleLocks")
            .field("system", &self.system)
            .field("locks", &self.locks.len())
            .finish_non_exhaustive()
    }
}

fn all_locks(system: &SystemName) -> LaneName {
    LaneName::new(system.as_str()).expect("a system's name is a lane's name too")
}
