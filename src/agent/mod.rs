//! The agent: the rooms put together. It decides nothing.
//!
//! One `current_thread` runtime carries the link, the dispatcher and all lines; one thread writes the queue. The loop
//! in `core` is the only place where they meet.

pub mod admin;
mod answers;
mod backup;
mod conditions;
mod core;
mod desired;
pub mod doctor;
mod doors;
pub mod enrol;
pub mod notify;
pub mod pairing;
mod reload;
mod renewal;
mod uplink;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use jiff::{Timestamp, tz::TimeZone};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use pairing::{Own, Pairing, take_ledger};
use reload::Reload;

use crate::{
    config::{AgentConfig, BleConfig, DriverConfig, StorageConfig, SystemConfig},
    dispatch::Dispatch,
    drivers::{
        Driver, Past,
        ble::{BleLocks, KeyRing},
        card_reader::CardReaders,
        igloohome::Igloohome,
        kaba_messenger::KabaMessenger,
        salto_is::SaltoIs,
        sim_lock::SimLock,
        uhppote::Uhppote,
        visionline::Visionline,
    },
    link,
    model::SystemName,
    queue::{FILE, Queue, QueueReader, Rules},
    seal::SealKey,
    seams::{self, Clock, Net, Random, Storage, SystemNet, TrustedTime},
    store::{self, FolderLock, ReaderHandle, Reserve, Salvage, Writer, WriterHandle, make_folder},
    transport::ble::{Radio, RadioSettings, WeakRadio},
};

pub use backup::{back_up, restore};
pub use core::QueueFile;

/// Runs the agent until it is told to stop by SIGTERM or SIGINT. `path` is where its configuration was read, and is
/// read again at SIGHUP.
///
/// # Errors
/// When it cannot start: the queue, the admin socket, the pairing or the certificate authority cannot be used.
pub async fn run(path: &Path, config: AgentConfig) -> anyhow::Result<()> {
    let (clock, random) = (Clock::system(), Random::system());
    let started = clock.now();
    if let Some(mistake) = mistakes(&config).first() {
        anyhow::bail!("{mistake}; `latchd check-config` shows all that is wrong");
    }
    // First of all: from here on a signal stops the agent in order.
    let stop = stop_signals()?;
    let hangups = signal(SignalKind::hangup()).context("listen for SIGHUP")?;

    let Opened { _lock, seal, queue, reserve, reader, salvage, damage } =
        open_queue(&config, &random, started)?;
    let is_restored = queue.is_restored()?;
    let storage = Storage::folder(&config.storage.folder);
    let (writer, queue) = Writer::start_with("queue", queue, Some(reserve));
    let time_zone = TimeZone::get(&config.site.time_zone).context("the site's time zone")?;
    let pairing_file = Pairing::path(&config);
    let mut pairing = Pairing::load(&pairing_file)?;
    // Before the first order: it would be judged by what this queue knows.
    let imported = take_ledger(&queue, &mut pairing, &pairing_file, &seal, started).await?;
    let settings = pairing.settings(&config, &seal)?;

    let server = admin::Server::bind(&config.admin.socket).await?;
    let (questions, requests) = mpsc::channel(16);
    let (close_admin, admin_closed) = oneshot::channel::<()>();
    let watchers = admin::Watchers::default();
    let serving = seams::spawn(server.run(questions, watchers.clone(), async move {
        // Closed by its drop as well: both mean the end.
        let _ = admin_closed.await;
    }));

    let file = QueueFile { storage, reader, damage: Some(damage), salvage, is_restored };
    let of_end;
    let start = {
        let (clock, random) = (clock.clone(), random.clone());
        let ring = KeyRing::new(&config.storage.folder, Some(seal.clone()));
        let radios = Arc::new(Radios(ring, Mutex::default()));
        of_end = radios.clone();
        move |system: &SystemConfig, zone: &TimeZone, past| {
            start(system, zone, past, &clock, &random, &radios)
        }
    };
    let is_renewing = renewal::is_cut_off(&config, &pairing, &seal);
    let net: Arc<dyn Net> = Arc::new(SystemNet);
    let (of_clock, of_random) = (clock.clone(), random.clone());
    let own = Own {
        pairing,
        seal,
        clock: of_clock,
        random: of_random,
        net: Arc::clone(&net),
        is_renewing,
        imported,
    };
    let parts = Parts { queue, file, settings, net, clock, random, requests, stop };
    let reload = Reload { path: path.to_owned(), hangups, start: Box::new(start.clone()) };
    let people = People { watchers, reload: Some(reload), own: Some(own) };
    let ended = work_with(config, parts, people, |_, config, in_doubt| {
        let past = |system: &SystemConfig| match in_doubt.contains(&system.name) {
            true => Past::AnswerMayCome,
            false => Past::Answered,
        };
        config.systems.iter().map(|system| start(system, &time_zone, past(system))).collect()
    });
    let ended = ended.await;
    of_end.closed().await;
    drop(close_admin);
    // Removes the socket's file.
    let _ = serving.await;
    // The core's handles are gone: what was submitted is durable when this returns.
    tokio::task::spawn_blocking(move || writer.join()).await?;
    tracing::info!("agent stopped");
    ended
}

/// What an agent works with, beside its configuration.
pub struct Parts {
    /// Its memory.
    pub queue: WriterHandle<Queue>,
    /// The file of it.
    pub file: QueueFile,
    /// Where its cloud is.
    pub settings: link::Settings,
    /// The network towards it.
    pub net: Arc<dyn Net>,
    /// The host's clock.
    pub clock: Clock,
    /// For jitter and ids.
    pub random: Random,
    /// Questions of the administration.
    pub requests: mpsc::Receiver<admin::Question>,
    /// Each message asks the agent to stop; a second one, at once.
    pub stop: mpsc::Receiver<()>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

/// Works until told to stop. `drivers` is asked for the drivers once it is known which systems may still be at work
/// for the last run.
///
/// # Errors
/// When the queue cannot be read, or the link's task is gone.
pub async fn work(
    config: AgentConfig,
    parts: Parts,
    drivers: impl FnOnce(&Parts, &AgentConfig, &BTreeSet<SystemName>) -> Vec<Arc<dyn Driver>>,
) -> anyhow::Result<()> {
    work_with(config, parts, People::default(), drivers).await
}

/// What only people ask of an agent.
#[derive(Default)]
struct People {
    /// Who follows its jobs.
    watchers: admin::Watchers,
    /// How it is given another configuration.
    reload: Option<Reload>,
    /// How it is paired.
    own: Option<Own>,
}

async fn work_with(
    config: AgentConfig,
    parts: Parts,
    people: People,
    drivers: impl FnOnce(&Parts, &AgentConfig, &BTreeSet<SystemName>) -> Vec<Arc<dyn Driver>>,
) -> anyhow::Result<()> {
    let started = parts.clock.now();
    let past = parts.queue.run(move |queue: &mut Queue| queue.past(started)).await?;
    for (lane, claimed) in &past.in_doubt {
        tracing::error!(
            job = %claimed.job.job_id, lane = %lane,
            "the last run ended with this job at work: it may have been done"
        );
    }
    let in_doubt = past.in_doubt.iter().map(|(_, claimed)| claimed.job.system.clone()).collect();
    let drivers = drivers(&parts, &config, &in_doubt);
    let Parts { queue, file, settings, net, clock, random, requests, stop } = parts;
    let time = TrustedTime::new(clock);
    let dispatch = Dispatch::new(queue.clone(), time.clone(), drivers, past);
    let link = link::start(settings, net, time.clone(), random.clone());
    let service_manager = notify::ServiceManager::from_environment();
    service_manager.ready(&format!("{} systems", config.systems.len()));
    tracing::info!(site = config.site.name, version = env!("CARGO_PKG_VERSION"), "agent started");
    let health = queue.health();
    let People { watchers, reload, own } = people;
    let core = core::Core {
        config,
        queue,
        file,
        health,
        dispatch,
        link,
        time,
        random,
        requests,
        watchers,
        reload,
        own,
        stop,
        service_manager,
        started,
    };
    Ok(core.run().await?)
}

/// What the drivers have against a configuration, each with its system's name.
#[must_use]
pub fn mistakes(config: &AgentConfig) -> Vec<String> {
    let of_system = |system: &SystemConfig| {
        let mistakes = match &system.driver {
            DriverConfig::SaltoIs(salto) => SaltoIs::mistakes(salto),
            DriverConfig::Visionline(visionline) => Visionline::mistakes(visionline),
            DriverConfig::KabaMessenger(messenger) => KabaMessenger::mistakes(messenger),
            DriverConfig::CardReader(readers) => CardReaders::mistakes(readers),
            // All of it is judged where it is read.
            DriverConfig::Ble(_)
            | DriverConfig::Igloohome(_)
            | DriverConfig::Uhppote(_)
            | DriverConfig::SimLock(_) => Vec::new(),
        };
        let name = system.name.clone();
        mistakes.into_iter().map(move |mistake| format!("system {name}: {mistake}"))
    };
    config.systems.iter().flat_map(of_system).collect()
}

/// The folder of a store and the right to use it, and its key, as configured.
///
/// # Errors
/// When the folder cannot be made or is in use, or the key cannot be used.
pub(crate) fn open_storage(
    config: &StorageConfig,
    random: &Random,
) -> anyhow::Result<(FolderLock, Storage, SealKey)> {
    make_folder(&config.folder, 0o777)
        .with_context(|| format!("make the folder {}", config.folder.display()))?;
    let lock = FolderLock::take(&config.folder)?;
    let seal = match &config.key_file {
        Some(path) => SealKey::from_file(path, random.clone())?,
        None => SealKey::from_file_or_new(&config.folder.join("seal.key"), random.clone())?,
    };
    Ok((lock, Storage::folder(&config.folder), seal))
}

/// The keys of a site's locks. Without the site's own key those that are sealed do not open.
#[must_use]
pub fn key_ring(config: &AgentConfig, random: &Random) -> KeyRing {
    let usual = config.storage.folder.join("seal.key");
    let path = config.storage.key_file.as_deref().unwrap_or(&usual);
    KeyRing::new(&config.storage.folder, SealKey::from_file(path, random.clone()).ok())
}

/// The queue with all that belongs to its file.
struct Opened {
    _lock: FolderLock,
    seal: SealKey,
    queue: Queue,
    reserve: Reserve,
    reader: ReaderHandle<QueueReader>,
    /// What the file was saved from.
    salvage: Option<Salvage>,
    /// Hears of damage that opening did not stumble over.
    damage: oneshot::Receiver<String>,
}

fn open_queue(config: &AgentConfig, random: &Random, now: Timestamp) -> anyhow::Result<Opened> {
    let (lock, storage, seal) = open_storage(&config.storage, random)?;
    let was_left_open = store::was_left_open(&storage, FILE);
    let mut reserve = Reserve::new(storage.clone(), config.storage.reserve);
    let rules = Rules::from(config);
    let open = || Queue::open_or_salvage(&storage, seal.clone(), random.clone(), rules.clone(), now);
    let (queue, salvage) = match open() {
        Err(error) if error.is_disk_full() => {
            reserve.release();
            open()?
        }
        opened => opened?,
    };
    let damage = match was_left_open && salvage.is_none() {
        true => store::examine_aside(storage.clone(), FILE),
        false => oneshot::channel().1,
    };
    let (random, key) = (random.clone(), seal.clone());
    let reader = ReaderHandle::new("queue-reader", move || {
        QueueReader::open(&storage, key.clone(), random.clone(), rules.clone())
    });
    Ok(Opened { _lock: lock, seal, queue, reserve, reader, salvage, damage })
}

/// What locks with a radio need: the keys, and the radios in use, one for each way in which one is used. Systems on one
/// adapter share it, also over a reload.
struct Radios(KeyRing, Mutex<Vec<(RadioSettings, WeakRadio)>>);

/// How long the radios may take to end their links; a daemon that does not answer keeps nobody from leaving.
const RADIOS_END: Duration = Duration::from_secs(8);

impl Radios {
    /// Waits until no radio holds a lock any more: one that is left connected is out of everybody's reach.
    async fn closed(&self) {
        let radios = std::mem::take(&mut *self.1.lock().unwrap_or_else(PoisonError::into_inner));
        let all = futures_util::future::join_all(radios.into_iter().map(|(_, radio)| radio.closed()));
        let _ = tokio::time::timeout(RADIOS_END, all).await;
    }

    fn radio(&self, config: &BleConfig) -> Radio {
        let settings = RadioSettings {
            adapter: config.adapter.clone(),
            connect: config.connect_timeout,
            ..RadioSettings::default()
        };
        let mut radios = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        radios.retain(|(_, radio)| radio.upgrade().is_some());
        if let Some(radio) = radios.iter().find_map(|(of, radio)| radio.upgrade().filter(|_| *of == settings))
        {
            return radio;
        }
        let radio = Radio::start(settings.clone());
        radios.push((settings, radio.downgrade()));
        radio
    }
}

fn start(
    system: &SystemConfig,
    zone: &TimeZone,
    past: Past,
    clock: &Clock,
    random: &Random,
    radios: &Radios,
) -> Arc<dyn Driver> {
    let (name, zone, clock, random) = (system.name.clone(), zone.clone(), clock.clone(), random.clone());
    match &system.driver {
        DriverConfig::SaltoIs(salto) => {
            Arc::new(SaltoIs::start(salto, name, zone, past, clock, random)) as Arc<dyn Driver>
        }
        DriverConfig::Visionline(visionline) => {
            Arc::new(Visionline::start(visionline, name, zone, past, clock, random))
        }
        DriverConfig::KabaMessenger(messenger) => {
            Arc::new(KabaMessenger::start(messenger, name, zone, past, clock, random))
        }
        DriverConfig::Ble(locks) => {
            BleLocks::start(locks, radios.radio(locks), radios.0.clone(), name, zone, clock, random)
        }
        DriverConfig::Igloohome(locks) => Arc::new(Igloohome::start(locks, name, zone, clock)),
        DriverConfig::CardReader(readers) => CardReaders::start(readers, name, zone, clock),
        DriverConfig::Uhppote(boards) => Uhppote::start(boards, name, zone, clock),
        DriverConfig::SimLock(locks) => Arc::new(SimLock::start(locks, name, zone, clock)),
    }
}

fn stop_signals() -> anyhow::Result<mpsc::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (told, stop) = mpsc::channel(2);
    seams::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if told.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(stop)
}
