//! The agent: the rooms put together. It decides nothing.
//!
//! One `current_thread` runtime carries the link, the dispatcher and all lines; one thread writes the queue. The loop
//! in `core` is the only place where they meet.

pub mod admin;
mod answers;
mod conditions;
mod core;
pub mod notify;
mod uplink;

use std::{collections::BTreeSet, fs, sync::Arc};

use anyhow::Context;
use jiff::tz::TimeZone;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use crate::{
    config::{AgentConfig, DriverConfig, StorageConfig, SystemConfig},
    dispatch::Dispatch,
    drivers::{
        Driver,
        salto_is::{Past, SaltoIs},
    },
    link,
    model::{Private, SystemName},
    queue::{Queue, Rules},
    seal::SealKey,
    seams::{Clock, Random, Storage, SystemNet, TrustedTime},
    store::{FolderLock, Writer},
};

/// Runs the agent until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start: the queue, the admin socket, the token or the certificate authority cannot be used.
pub async fn run(config: AgentConfig) -> anyhow::Result<()> {
    let (clock, random) = (Clock::system(), Random::system());
    let started = clock.now();
    if let Some(mistake) = mistakes(&config).first() {
        anyhow::bail!("{mistake}; `latchd check-config` shows all that is wrong");
    }
    // First of all: from here on a signal stops the agent in order.
    let stop = stop_signals()?;

    let (_lock, queue) = open_queue(&config, &random)?;
    let (writer, queue) = Writer::start("queue", queue);
    let time = TrustedTime::new(clock.clone());
    let past = queue.run(move |queue: &mut Queue| queue.past(started)).await?;
    for (lane, claimed) in &past.in_doubt {
        tracing::error!(
            job = %claimed.job.job_id, lane = %lane,
            "the last run ended with this job at work: it may have been done"
        );
    }

    let time_zone = TimeZone::get(&config.site.time_zone).context("the site's time zone")?;
    let in_doubt = past.in_doubt.iter().map(|(_, claimed)| claimed.job.system.clone()).collect();
    let drivers = drivers(&config, &time_zone, &in_doubt, &clock, &random);
    let dispatch = Dispatch::new(queue.clone(), time.clone(), drivers, past);

    let token = fs::read_to_string(&config.cloud.token_file)
        .with_context(|| format!("read the token file {}", config.cloud.token_file.display()))?;
    let tls = link::tls_config(config.cloud.ca_file.as_deref())?;
    let settings = link::Settings::new(&config.cloud.url, &Private::new(token), Arc::new(tls))?;
    let link = link::start(settings, Arc::new(SystemNet), clock, random);

    let server = admin::Server::bind(&config.admin.socket).await?;
    let (questions, requests) = mpsc::channel(16);
    let (close_admin, admin_closed) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(questions, async move {
        // Closed by its drop as well: both mean the end.
        let _ = admin_closed.await;
    }));

    let service_manager = notify::ServiceManager::from_environment();
    service_manager.ready(&format!("{} systems", config.systems.len()));
    tracing::info!(site = config.site.name, version = env!("CARGO_PKG_VERSION"), "agent started");
    let core = core::Core { config, queue, dispatch, link, time, requests, stop, service_manager, started };
    let ended = core.run().await;
    drop(close_admin);
    // Removes the socket's file.
    let _ = serving.await;
    // The core's handles are gone: what was submitted is durable when this returns.
    tokio::task::spawn_blocking(move || writer.join()).await?;
    tracing::info!("agent stopped");
    ended.map_err(Into::into)
}

/// What the drivers have against a configuration, each with its system's name.
#[must_use]
pub fn mistakes(config: &AgentConfig) -> Vec<String> {
    let of_system = |system: &SystemConfig| {
        let DriverConfig::SaltoIs(salto) = &system.driver;
        let name = system.name.clone();
        SaltoIs::mistakes(salto).into_iter().map(move |mistake| format!("system {name}: {mistake}"))
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
    fs::create_dir_all(&config.folder)
        .with_context(|| format!("make the folder {}", config.folder.display()))?;
    let lock = FolderLock::take(&config.folder)?;
    let seal = match &config.key_file {
        Some(path) => SealKey::from_file(path, random.clone())?,
        None => SealKey::from_file_or_new(&config.folder.join("seal.key"), random.clone())?,
    };
    Ok((lock, Storage::folder(&config.folder), seal))
}

fn open_queue(config: &AgentConfig, random: &Random) -> anyhow::Result<(FolderLock, Queue)> {
    let (lock, storage, seal) = open_storage(&config.storage, random)?;
    Ok((lock, Queue::open(&storage, seal, random.clone(), Rules::from(config))?))
}

fn drivers(
    config: &AgentConfig,
    time_zone: &TimeZone,
    in_doubt: &BTreeSet<SystemName>,
    clock: &Clock,
    random: &Random,
) -> Vec<Arc<dyn Driver>> {
    let start = |system: &SystemConfig| {
        let past = match in_doubt.contains(&system.name) {
            true => Past::AnswerMayCome,
            false => Past::Answered,
        };
        let (name, zone, clock, random) =
            (system.name.clone(), time_zone.clone(), clock.clone(), random.clone());
        match &system.driver {
            DriverConfig::SaltoIs(salto) => {
                Arc::new(SaltoIs::start(salto, name, zone, past, clock, random)) as Arc<dyn Driver>
            }
        }
    };
    config.systems.iter().map(start).collect()
}

fn stop_signals() -> anyhow::Result<mpsc::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (told, stop) = mpsc::channel(2);
    tokio::spawn(async move {
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
