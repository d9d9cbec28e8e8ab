//! `latchd probe SYSTEM`

use std::{
    fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf, process::ExitCode, sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use jiff::tz::TimeZone;

use super::{print, table::wrapped};
use crate::{
    config::{AgentConfig, DriverConfig, SystemConfig},
    drivers::probe::{self, CardToRead, Step, Tools, Verdict},
    model::{EncoderName, SystemKind},
    seams::{Clock, Random, SystemNet},
};

/// What `latchd probe` is told.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// The system, by its name in the configuration.
    #[arg(value_name = "SYSTEM")]
    pub system: String,
    /// The agent's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/latchd/latchd.toml")]
    pub config: PathBuf,
    /// Read the card that lies on this encoder, too; somebody must lay one down.
    #[arg(long, value_name = "NAME")]
    pub encoder: Option<EncoderName>,
    /// How long that somebody may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "encoder")]
    pub card_wait: u16,
    /// Write what passed on the line to a new file, without names, passwords and
    /// card numbers, in the form of the published vectors.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

pub(super) async fn run(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let config = AgentConfig::load(&args.config)?;
    let Some(system) = config.systems.iter().find(|system| system.name.as_str() == args.system) else {
        let known: Vec<_> = config.systems.iter().map(|system| system.name.as_str()).collect();
        bail!("this site has no system {:?}; it has: {}", args.system, known.join(", "));
    };
    let kind = kind(system);
    if let Some(encoder) = &args.encoder {
        knows(system, encoder)?;
    }
    // Before anything is asked: what was seen shall not be lost for a name that is taken.
    let mut record = match &args.record {
        None => None,
        Some(path) => {
            let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            Some(opened.with_context(|| {
                format!("make the record {}: name a file that is not there yet", path.display())
            })?)
        }
    };
    let time_zone = TimeZone::get(&config.site.time_zone).context("the site's time zone")?;
    let clock = Clock::system();
    let today = clock.now().to_zoned(TimeZone::UTC).date();
    let tools = Tools { net: Arc::new(SystemNet), clock, random: Random::system(), time_zone };
    let card = args
        .encoder
        .clone()
        .map(|encoder| CardToRead { encoder, within: Duration::from_secs(args.card_wait.into()) });
    print(&format!("{} ({}): nothing is changed by these questions\n", system.name, kind.as_str()))?;
    if let Some(card) = &card {
        print(&wrapped(&format!("lay a card down on encoder {}", card.encoder), 0))?;
    }
    let Some(probed) = probe::probe(system, &tools, card.as_ref()).await else {
        bail!("of a system of kind {} nothing is known that could be asked", kind.as_str());
    };
    print(&probed.steps.iter().map(told).collect::<String>())?;
    if let (Some(file), Some(path)) = (&mut record, &args.record) {
        let version = env!("CARGO_PKG_VERSION");
        let source = format!("recorded by latchd probe {version} on {today}, scrubbed");
        file.write_all(probed.record(kind.as_str(), &source).as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("write the record {}", path.display()))?;
        print(&format!("recorded in {}: {} exchanges\n", path.display(), probed.exchanges.len()))?;
    }
    Ok(ExitCode::from(match probed.verdict() {
        Verdict::AsExpected => 0,
        Verdict::Odd => 1,
        Verdict::Wrong => 2,
    }))
}

fn kind(system: &SystemConfig) -> SystemKind {
    match system.driver {
        DriverConfig::SaltoIs(_) => SystemKind::SaltoIs,
        DriverConfig::Visionline(_) => SystemKind::Visionline,
        DriverConfig::KabaMessenger(_) => SystemKind::KabaMessenger,
        DriverConfig::Ble(ref locks) => locks.make.kind(),
        DriverConfig::Igloohome(_) => SystemKind::Igloohome,
        DriverConfig::Uhppote(_) => SystemKind::Uhppote,
        DriverConfig::CardReader(_) => SystemKind::CardReader,
        DriverConfig::SimLock(_) => SystemKind::SimLock,
    }
}

/// Refuses an encoder that the system does not have, and one of a system that can read no card.
fn knows(system: &SystemConfig, encoder: &EncoderName) -> anyhow::Result<()> {
    let names: Vec<_> = match &system.driver {
        DriverConfig::SaltoIs(it) => it.encoders.iter().map(|it| &it.name).collect(),
        DriverConfig::Visionline(it) => it.encoders.iter().map(|it| &it.name).collect(),
        DriverConfig::CardReader(it) => it.encoders.iter().map(|it| &it.name).collect(),
        DriverConfig::KabaMessenger(_)
        | DriverConfig::Ble(_)
        | DriverConfig::Igloohome(_)
        | DriverConfig::Uhppote(_)
        | DriverConfig::SimLock(_) => {
            bail!("{} reads no cards: leave --encoder out", system.name)
        }
    };
    if !names.contains(&encoder) {
        let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
        bail!("system {} has no encoder {:?}; it has: {}", system.name, encoder.as_str(), names.join(", "));
    }
    Ok(())
}

fn told(step: &Step) -> String {
    let verdict = match step.verdict {
        Verdict::AsExpected => "ok",
        Verdict::Odd => "warn",
        Verdict::Wrong => "FAIL",
    };
    let head = format!("{verdict:5} ");
    let mut text = wrapped(step.what, head.len());
    text.replace_range(..head.len(), &head);
    text += &wrapped(&format!("expected: {}", step.expected), head.len());
    text += &wrapped(&format!("seen: {}", step.seen), head.len());
    text
}
