//! `latchd devices`: what gives rights at the locks that are spoken to by Bluetooth.

use std::{
    io::{self, IsTerminal, Read},
    path::PathBuf,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::tz::TimeZone;

use super::{print, table::columns};
use crate::{
    agent::{enrol::seal_key, key_ring},
    config::{AgentConfig, BleConfig, BleLockConfig, BleMake, DriverConfig, SystemConfig},
    drivers::ble::{Kept, KeyRing, Pairer},
    model::{Private, Whom},
    seams::{Clock, Random},
    transport::ble::{Radio, RadioSettings},
};

/// A record is some hundred bytes long.
const LONGEST_RECORD: u64 = 64 * 1024;

/// What `latchd devices` is told.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What `latchd devices` does.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Show each lock with its address and how its keys are kept.
    List(ListArgs),
    /// Take over what gives rights at a lock, and keep it sealed.
    ///
    /// The record is the one of the maker's cloud or the short form that config/latchd.example.toml shows. The running agent
    /// uses it from its next conversation on; keys that were there are replaced. Delete the file you read it from.
    Import(ImportArgs),
    /// Make a TTLock that belongs to nobody belong to this site, without its maker's app and cloud.
    ///
    /// Set the lock back to its factory state, wake it by its keypad, and stay near. From then on the maker's app does not
    /// know it; only its own button frees it. What breaks off is carried on by the same command once more.
    Pair(PairDeviceArgs),
}

/// What `latchd devices list` is told.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The agent's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    pub config: PathBuf,
}

/// What `latchd devices import` is told.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The lock, as SYSTEM/LOCK of the configuration.
    #[arg(value_name = "LOCK")]
    pub lock: String,
    /// File with the lock's record, JSON; `-` for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The seal key, where the configuration's path leads to it only while the service runs.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The agent's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    pub config: PathBuf,
}

/// What `latchd devices pair` is told.
#[derive(Debug, Args)]
pub struct PairDeviceArgs {
    /// The lock, as SYSTEM/LOCK of the configuration.
    #[arg(value_name = "LOCK")]
    pub lock: String,
    /// Also where keys of the lock are there; they stay until the lock has new ones.
    #[arg(long)]
    pub replace: bool,
    /// The seal key, where the configuration's path leads to it only while the service runs.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The agent's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    pub config: PathBuf,
}

pub(super) async fn run(args: &DevicesArgs) -> anyhow::Result<()> {
    match &args.what {
        What::List(args) => list(&AgentConfig::load(&args.config)?),
        What::Import(args) => {
            let mut config = AgentConfig::load(&args.config)?;
            config.storage.key_file = args.key_file.clone().or(config.storage.key_file);
            import(&config, args)
        }
        What::Pair(args) => {
            let mut config = AgentConfig::load(&args.config)?;
            config.storage.key_file = args.key_file.clone().or(config.storage.key_file);
            pair(&config, args).await
        }
    }
}

/// The locks of a site that are spoken to by Bluetooth.
fn locks(config: &AgentConfig) -> impl Iterator<Item = (&SystemConfig, &BleConfig, &BleLockConfig)> {
    config.systems.iter().flat_map(|system| match &system.driver {
        DriverConfig::Ble(ble) => ble.locks.iter().map(|lock| (system, ble, lock)).collect(),
        _ => Vec::new(),
    })
}

fn find<'a>(
    config: &'a AgentConfig,
    name: &str,
) -> anyhow::Result<(&'a SystemConfig, &'a BleConfig, &'a BleLockConfig)> {
    let named = |(system, _, lock): &(&SystemConfig, &BleConfig, &BleLockConfig)| {
        format!("{}/{}", system.name, lock.name) == name
    };
    locks(config).find(named).with_context(|| {
        let known: Vec<_> =
            locks(config).map(|(system, _, lock)| format!("{}/{}", system.name, lock.name)).collect();
        match known.as_slice() {
            [] => "this site has no locks that are spoken to by Bluetooth".to_owned(),
            known => format!("this site has no lock {name:?}; it has: {}", known.join(", ")),
        }
    })
}

/// With the site's own key, which is made where there is none yet.
fn ring(config: &AgentConfig) -> anyhow::Result<KeyRing> {
    let seal = seal_key(config, &Random::system())?;
    Ok(KeyRing::new(&config.storage.folder, Some(seal)))
}

fn list(config: &AgentConfig) -> anyhow::Result<()> {
    let ring = key_ring(config, &Random::system());
    let mut rows = Vec::new();
    for (system, ble, lock) in locks(config) {
        let keys = match ring.kept(&system.name, lock) {
            Kept::Sealed => "sealed".to_owned(),
            Kept::Plain => format!("in {}", ring.path(&system.name, lock).display()),
            Kept::Missing => "none".to_owned(),
        };
        let name = format!("{}/{}", system.name, lock.name);
        rows.push(vec![name, ble.make.kind().as_str().to_owned(), lock.address.clone(), keys]);
    }
    Ok(print(&columns(&["LOCK", "KIND", "ADDRESS", "KEYS"], &rows))?)
}

fn import(config: &AgentConfig, args: &ImportArgs) -> anyhow::Result<()> {
    let (system, ble, lock) = find(config, &args.lock)?;
    let mut text = String::new();
    let read = match args.file.as_os_str() == "-" {
        true => io::stdin().lock().take(LONGEST_RECORD).read_to_string(&mut text),
        false => std::fs::File::open(&args.file)
            .and_then(|file| file.take(LONGEST_RECORD).read_to_string(&mut text)),
    };
    let text = Private::new(text);
    read.with_context(|| format!("read {}", args.file.display()))?;
    let path = ring(config)?.import(ble.make, &system.name, lock, &text)?;
    let mut told = format!("Lock {}: its keys are in {}, sealed.\n", args.lock, path.display());
    if args.file.as_os_str() != "-" {
        told += &format!("Delete {}: whoever reads it can open the door.\n", args.file.display());
    }
    Ok(print(&told)?)
}

async fn pair(config: &AgentConfig, args: &PairDeviceArgs) -> anyhow::Result<()> {
    let (system, ble, lock) = find(config, &args.lock)?;
    if ble.make != BleMake::TtLock {
        bail!(
            "lock {} cannot be paired here: only its maker's app can, and its keys come from there; \
             `latchd devices import {}`",
            args.lock,
            args.lock
        );
    }
    let whom: Whom = lock.address.parse().map_err(anyhow::Error::msg).context("`address`")?;
    let zone = lock.time_zone.as_deref().unwrap_or(&config.site.time_zone);
    let zone = TimeZone::get(zone).context("`time_zone`")?;
    let settings = RadioSettings {
        adapter: ble.adapter.clone(),
        connect: ble.connect_timeout,
        ..RadioSettings::default()
    };
    let (ring, radio) = (ring(config)?, Radio::start(settings));
    let (clock, random) = (Clock::system(), Random::system());
    let pairer = Pairer {
        ring: &ring,
        radio: &radio,
        clock: &clock,
        random: &random,
        zone,
        listen: ble.listen,
        answer_timeout: ble.answer_timeout,
    };
    if io::stdout().is_terminal() {
        print("Listening for the lock; wake it by touching its keypad.\n")?;
    }
    let paired = pairer.pair(&system.name, lock, whom, args.replace).await;
    // Whatever came of it: a link that is left behind keeps everybody else from the lock.
    radio.close().await;
    let paired = paired?;
    let mut told = match paired.went_on {
        false => format!("Lock {} belongs to this site now.\n", args.lock),
        true => format!("Lock {} belongs to this site since the try before.\n", args.lock),
    };
    told +=
        &format!("Its keys are in {}, sealed. Nobody else has them: keep a backup.\n", paired.path.display());
    if let Some(per_cent) = paired.battery {
        told += &format!("Its battery is at {per_cent} %.\n");
    }
    Ok(print(&told)?)
}
