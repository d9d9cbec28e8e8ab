//! `latchd sim`: pretend systems to try things out with.

#![expect(
    clippy::print_stdout,
    reason = "scripts read where the simulator is reached from its standard output"
)]

use std::{
    io::Write,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    drivers::{
        card_reader::sim as card_reader,
        kaba_messenger::sim as messenger,
        salto_is::sim::{Dates, Dialect, Front, Options, Property, Settings, Simulator, Style},
        sim_lock::sim as lock,
        uhppote::sim as uhppote,
        visionline::sim as visionline,
    },
    seams::{Clock, SystemNet},
    sim::script::{self, Script},
};

/// Runs a pretend system: doors, cards and encoders in memory, on a real serial port or TCP port.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// Which one.
    #[command(subcommand)]
    pub system: System,
}

/// The systems that can be pretended.
#[derive(Debug, Subcommand)]
pub enum System {
    /// A SALTO SPACE server with several encoders, spoken to by its "Industry Standard" PMS interface.
    ///
    /// Prints one line of JSON that says where it is reached. Everything else is done at the control socket, one
    /// command a line: `echo help | socat - UNIX-CONNECT:DIR/salto-is.ctl`.
    SaltoIs(SaltoIsArgs),
    /// A Visionline server with several encoders, spoken to by its PMS text interface over TCP.
    ///
    /// Prints one line of JSON that says where it is reached. Everything else is done at the control socket, one
    /// command a line: `echo help | socat - UNIX-CONNECT:DIR/visionline.ctl`.
    Visionline(VisionlineArgs),
    /// A Messenger service (Saflok System 6000, Ambiance) with several encoders, over plain HTTP.
    ///
    /// Prints one line of JSON that says where it is reached. Everything else is done at the control socket, one
    /// command a line: `echo help | socat - UNIX-CONNECT:DIR/messenger.ctl`.
    Messenger(MessengerArgs),
    /// A record of `latchd probe --record`, played back at a TCP port: what was recorded is answered byte for byte, and
    /// whatever else is asked is refused.
    ///
    /// Prints one line of JSON that says where it is reached. At the control socket (`DIR/script.ctl`), `ledger` tells what
    /// was refused.
    Script(ScriptArgs),
    /// Keypad locks over TCP, each with its table of slots, its clock, its ledger and its door.
    ///
    /// Prints one line of JSON that says where they are reached. Everything else is done at the control socket, one
    /// command a line: `echo help | socat - UNIX-CONNECT:DIR/lock.ctl`.
    Lock(LockArgs),
    /// Locks with a radio (TTLock, August), carried by a pretend BlueZ on a message bus of its own; needs `dbus-daemon`.
    ///
    /// Prints one line of JSON that says where the bus is: start `latchd run` with `DBUS_SYSTEM_BUS_ADDRESS` set to that,
    /// and with the locks' `address` and `keys_file` in its configuration. Everything else is done at the control socket,
    /// one command a line: `echo 'lock ttlock-1 slots' | socat - UNIX-CONNECT:DIR/ble.ctl`.
    Ble(super::sim_ble::BleArgs),
    /// UHPPOTE boards on one port, UDP and TCP, each with its cards, time profiles, clock, log and doors.
    ///
    /// Prints one line of JSON that says where they are reached. Everything else is done at the control socket, one
    /// command a line: `echo help | socat - UNIX-CONNECT:DIR/uhppote.ctl`.
    Uhppote(UhppoteArgs),
    /// A PN532 card reader on a serial port or at a TCP port, with cards to lay down.
    ///
    /// Prints one line of JSON that says where it is reached. Everything else is done at the control socket, one
    /// command a line: `echo help | socat - UNIX-CONNECT:DIR/pn532.ctl`.
    Pn532(Pn532Args),
}

/// A pretend SALTO SPACE server.
#[derive(Debug, Args)]
pub struct SaltoIsArgs {
    /// Publish a serial port at `DIR/salto-is.tty`. Without --pty and --tcp there are both lines.
    #[arg(long)]
    pub pty: bool,
    /// Listen for TCP clients; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub tcp: Option<SocketAddr>,
    /// Folder of the serial port and the control socket. Default: a fresh one, removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// TOML file with `time_zone`, `rooms`, `common` and `encoders` of the property.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// IANA time zone of the property; wins over the file's.
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// How long an encoder waits for a card.
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    pub card_wait: Duration,
    /// How many TCP clients are served at once; a further one is accepted and hung up at once.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub max_clients: usize,
    /// Leave out the separator before the end of an answer.
    #[arg(long)]
    pub no_closing_separator: bool,
    /// What stands behind the end of an answer.
    #[arg(long, value_enum, default_value_t = Check::True)]
    pub check: Check,
    /// How dates are written.
    #[arg(long, value_enum, default_value_t = DateForm::Minutes)]
    pub dates: DateForm,
    /// Whose form of the protocol it speaks. Onity writes whole hours and no check byte, and refuses a start, a second
    /// room and an encoder that is no number. Amadeus ST40 differs from it by an empty eject field, a reading and a
    /// check-out of its own, and knows no change of a stay.
    #[arg(long, value_enum, default_value_t = DialectForm::Salto, conflicts_with_all = ["dates", "check"])]
    pub dialect: DialectForm,
    /// Let answers leave no faster than at this speed.
    #[arg(long)]
    pub baud: Option<NonZeroU32>,
    /// What the clock shows first, as 2026-11-22T14:00:00Z. Default: the host's time.
    #[arg(long, value_name = "TIME")]
    pub clock: Option<Timestamp>,
}

/// A pretend Visionline server.
#[derive(Debug, Args)]
pub struct VisionlineArgs {
    /// Where clients are accepted; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub tcp: SocketAddr,
    /// Where clients of the Web API are accepted, without TLS; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub web: SocketAddr,
    /// Folder of the control socket. Default: a fresh one, removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// TOML file with `time_zone`, `rooms`, `common` and `encoders` of the property.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long an encoder waits for a card.
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    pub card_wait: Duration,
    /// What the clock shows first, as 2026-11-22T14:00:00Z. Default: the host's time.
    #[arg(long, value_name = "TIME")]
    pub clock: Option<Timestamp>,
}

/// A pretend Messenger service.
#[derive(Debug, Args)]
pub struct MessengerArgs {
    /// Where clients are accepted; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub tcp: SocketAddr,
    /// Folder of the control socket. Default: a fresh one, removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// TOML file with `time_zone`, `rooms`, `common`, `encoders`, `user` and `password` of the property.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long an encoder waits for a card.
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    pub card_wait: Duration,
    /// What the clock shows first, as 2026-11-22T14:00:00Z. Default: the host's time.
    #[arg(long, value_name = "TIME")]
    pub clock: Option<Timestamp>,
}

/// A record that is played back.
#[derive(Debug, Args)]
pub struct ScriptArgs {
    /// The record.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where clients are accepted; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub tcp: SocketAddr,
    /// Folder of the control socket. Default: a fresh one, removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// Pretend UHPPOTE boards.
#[derive(Debug, Args)]
pub struct UhppoteArgs {
    /// Where the boards are reached, by UDP and by TCP; port 0 takes a free one. Real ones have port 60000.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub address: SocketAddr,
    /// Folder of the control socket. Default: a fresh one, removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// A board's serial number; again for more boards.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_values_t = [405_419_896])]
    pub serial: Vec<u32>,
    /// How many cards a board has room for.
    #[arg(long, default_value_t = 1000)]
    pub cards: u32,
    /// How many events a board keeps.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub events: u32,
    /// What the clocks show first, in local time, as 2026-11-22T15:00:00. Default: the host's.
    #[arg(long, value_name = "TIME")]
    pub clock: Option<jiff::civil::DateTime>,
}

/// A pretend PN532.
#[derive(Debug, Args)]
pub struct Pn532Args {
    /// Publish a serial port at `DIR/pn532.tty`. Without --pty and --tcp there are both lines.
    #[arg(long)]
    pub pty: bool,
    /// Listen for a TCP client; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub tcp: Option<SocketAddr>,
    /// Folder of the serial port and the control socket. Default: a fresh one, removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// Pretend keypad locks.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// Where the first lock listens, the others at the ports behind it; port 0 takes free ones.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub tcp: SocketAddr,
    /// Folder of the control socket and of what the locks hold. Default: a fresh one, removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// How many locks: lock-1, lock-2 and so on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub locks: u16,
    /// How many slots each has.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub slots: u16,
    /// IANA time zone of the locks' local time.
    #[arg(long, value_name = "ZONE", default_value = "Europe/Oslo")]
    pub time_zone: String,
    /// What the clocks show first, as 2026-11-22T14:00:00Z. Default: the host's time.
    #[arg(long, value_name = "TIME")]
    pub clock: Option<Timestamp>,
}

/// What stands behind the end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// The checksum.
    True,
    /// `0D`, which says that nobody checks.
    #[value(name = "0d")]
    Waived,
}

/// How dates are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DateForm {
    /// hhmmDDMMYY.
    Minutes,
    /// hhDDMMYY, the old form.
    Hours,
}

/// Whose form of the protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DialectForm {
    /// SALTO SPACE, version 1.16.
    Salto,
    /// Onity HT22, HT24 and HT28.
    Onity,
    /// Amadeus ST40.
    #[value(name = "amadeus_st40")]
    AmadeusSt40,
}

/// Runs the pretend system until SIGTERM, ctrl-c, or `quit` at its control socket.
///
/// # Errors
/// When the property cannot be, or a line or the control socket cannot be had.
pub async fn run(args: SimArgs) -> anyhow::Result<()> {
    match args.system {
        System::SaltoIs(args) => salto_is(args).await,
        System::Visionline(args) => visionline(args).await,
        System::Messenger(args) => messenger(args).await,
        System::Lock(args) => locks(args).await,
        System::Ble(args) => super::sim_ble::run(args).await,
        System::Uhppote(args) => boards(args).await,
        System::Pn532(args) => pn532(args).await,
        System::Script(args) => play(args).await,
    }
}

async fn play(args: ScriptArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (folder, _removed_at_the_end) = folder(args.dir.as_deref())?;
    let text =
        std::fs::read_to_string(&args.file).with_context(|| format!("read {}", args.file.display()))?;
    let script = Script::read(&text).with_context(|| format!("play {}", args.file.display()))?;
    let front = script::Front::open(script, &SystemNet, script::Options { folder, tcp: args.tcp }).await?;
    println!("{}", serde_json::to_string(front.places())?);
    std::io::stdout().flush()?;
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = front.ended() => {}
    }
    front.close().await;
    Ok(())
}

async fn locks(args: LockArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (folder, _removed_at_the_end) = folder(args.dir.as_deref())?;
    std::fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let settings = lock::Settings {
        time_zone: args.time_zone,
        slots: args.slots,
        starts_at: args.clock,
        ..lock::Settings::default()
    };
    let house = lock::House::new(args.locks.into(), &settings, Some(&folder), &Clock::system())?;
    let front = lock::Front::open(house, &SystemNet, &lock::Options { folder, tcp: args.tcp }).await?;
    println!("{}", serde_json::to_string(front.places())?);
    std::io::stdout().flush()?;
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = front.ended() => {}
    }
    front.close().await;
    Ok(())
}

async fn boards(args: UhppoteArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (folder, _removed_at_the_end) = folder(args.dir.as_deref())?;
    let here = || jiff::tz::TimeZone::system().to_datetime(Clock::system().now());
    let house = uhppote::House::new(&uhppote::Settings {
        serials: args.serial,
        cards: args.cards as usize,
        events: args.events as usize,
        starts_at: args.clock.unwrap_or_else(here),
    });
    let options = uhppote::Options { folder, address: args.address };
    let front = uhppote::Front::open(house, &SystemNet, options).await?;
    println!("{}", serde_json::to_string(front.places())?);
    std::io::stdout().flush()?;
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = front.ended() => {}
    }
    front.close().await;
    Ok(())
}

async fn pn532(args: Pn532Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (folder, _removed_at_the_end) = folder(args.dir.as_deref())?;
    let neither = !args.pty && args.tcp.is_none();
    let options = card_reader::Options {
        folder,
        pty: args.pty || neither,
        tcp: args.tcp.or_else(|| neither.then(|| SocketAddr::from(([127, 0, 0, 1], 0)))),
    };
    let mut front = card_reader::Front::open(card_reader::Reader::default(), options).await?;
    println!("{}", serde_json::to_string(front.places())?);
    std::io::stdout().flush()?;
    let ended = tokio::select! {
        biased;
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = front.ended() => ended,
    };
    front.close().await;
    Ok(ended?)
}

async fn visionline(args: VisionlineArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (folder, _removed_at_the_end) = folder(args.dir.as_deref())?;
    let settings = visionline::Settings {
        property: args.config.as_deref().map_or_else(|| Ok(Default::default()), property)?,
        card_wait: args.card_wait,
        starts_at: args.clock,
    };
    let simulator = visionline::Simulator::new(settings)?;
    let options = visionline::Options { folder, tcp: args.tcp, web: Some(args.web) };
    let front = visionline::Front::open(simulator, &SystemNet, options).await?;
    println!("{}", serde_json::to_string(front.places())?);
    std::io::stdout().flush()?;
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = front.ended() => {}
    }
    front.close().await;
    Ok(())
}

async fn messenger(args: MessengerArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (folder, _removed_at_the_end) = folder(args.dir.as_deref())?;
    let settings = messenger::Settings {
        property: args.config.as_deref().map_or_else(|| Ok(Default::default()), property)?,
        card_wait: args.card_wait,
        starts_at: args.clock,
    };
    let simulator = messenger::Simulator::new(settings)?;
    let options = messenger::Options { folder, tcp: args.tcp };
    let front = messenger::Front::open(simulator, &SystemNet, options).await?;
    println!("{}", serde_json::to_string(front.places())?);
    std::io::stdout().flush()?;
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = front.ended() => {}
    }
    front.close().await;
    Ok(())
}

/// A property as a file describes it.
fn property<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("understand {}", path.display()))
}

/// The folder asked for, or a fresh one that goes when it is dropped.
pub(super) fn folder(asked: Option<&Path>) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    if let Some(folder) = asked {
        return Ok((folder.to_owned(), None));
    }
    let fresh = tempfile::Builder::new().prefix("latchd-sim-").tempdir().context("make a folder")?;
    Ok((fresh.path().to_owned(), Some(fresh)))
}

async fn salto_is(args: SaltoIsArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (folder, _removed_at_the_end) = folder(args.dir.as_deref())?;
    let neither = !args.pty && args.tcp.is_none();
    let options = Options {
        folder,
        pty: args.pty || neither,
        tcp: args.tcp.or_else(|| neither.then(|| SocketAddr::from(([127, 0, 0, 1], 0)))),
    };
    let simulator = Simulator::new(settings(args)?)?;
    let mut front = Front::open(simulator, options).await?;
    println!("{}", serde_json::to_string(front.places())?);
    std::io::stdout().flush()?;
    let ended = tokio::select! {
        biased;
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = front.ended() => ended,
    };
    front.close().await;
    Ok(ended?)
}

fn settings(args: SaltoIsArgs) -> anyhow::Result<Settings> {
    let mut property = args.config.as_deref().map_or_else(|| Ok(Property::default()), property)?;
    if let Some(zone) = args.time_zone {
        property.time_zone = zone;
    }
    Ok(Settings {
        property,
        card_wait: args.card_wait,
        style: Style { closing_separator: !args.no_closing_separator, true_check: args.check == Check::True },
        dates: match args.dates {
            DateForm::Minutes => Dates::Minutes,
            DateForm::Hours => Dates::Hours,
        },
        dialect: match args.dialect {
            DialectForm::Salto => Dialect::Salto,
            DialectForm::Onity => Dialect::Onity,
            DialectForm::AmadeusSt40 => Dialect::AmadeusSt40,
        },
        max_clients: args.max_clients,
        baud: args.baud,
        starts_at: args.clock,
    })
}

fn span(text: &str) -> Result<Duration, String> {
    let span: SignedDuration = text.parse().map_err(|_| "write it like \"60s\"".to_owned())?;
    Duration::try_from(span).map_err(|_| "it cannot be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::sim::control::Client;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        sim: SimArgs,
    }

    fn parsed(words: &[&str]) -> SimArgs {
        let words = ["sim", "salto-is"].iter().chain(words);
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).sim
    }

    #[tokio::test]
    async fn it_runs_until_told_to_quit_and_takes_everything_away() {
        let folder = tempfile::tempdir().unwrap();
        let property = folder.path().join("property.toml");
        std::fs::write(&property, "rooms = ['7']\nencoders = ['desk']\n").unwrap();
        let dir = folder.path().join("run");
        let control = dir.join("salto-is.ctl");
        let args = ["--dir", dir.to_str().unwrap(), "--config", property.to_str().unwrap()];
        let running = tokio::spawn(run(parsed(&args)));
        let client = async {
            loop {
                match Client::connect(&control).await {
                    Ok(client) => return client,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let mut client = tokio::time::timeout(Duration::from_secs(20), client).await.unwrap();
        let ledger = client.send("ledger").await.unwrap();
        assert_eq!(ledger["rooms"].as_object().unwrap().keys().collect::<Vec<_>>(), ["7"]);
        assert!(dir.join("salto-is.tty").is_symlink());
        client.send("agent-config tcp").await.unwrap();
        client.send("quit").await.unwrap();
        running.await.unwrap().unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn visionline_runs_until_told_to_quit() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("visionline.ctl");
        let words = ["sim", "visionline", "--dir", folder.path().to_str().unwrap()];
        let running = tokio::spawn(run(Cli::try_parse_from(words).unwrap().sim));
        let client = async {
            loop {
                match Client::connect(&control).await {
                    Ok(client) => return client,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let mut client = tokio::time::timeout(Duration::from_secs(20), client).await.unwrap();
        let config = client.send("agent-config").await.unwrap();
        assert!(config["config"].as_str().unwrap().contains("kind = \"visionline\""), "{config}");
        client.send("quit").await.unwrap();
        running.await.unwrap().unwrap();
        assert!(!control.exists());
    }

    #[tokio::test]
    async fn messenger_runs_until_told_to_quit() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("messenger.ctl");
        let words = ["sim", "messenger", "--dir", folder.path().to_str().unwrap()];
        let running = tokio::spawn(run(Cli::try_parse_from(words).unwrap().sim));
        let client = async {
            loop {
                match Client::connect(&control).await {
                    Ok(client) => return client,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let mut client = tokio::time::timeout(Duration::from_secs(20), client).await.unwrap();
        let config = client.send("agent-config /run/password").await.unwrap();
        assert!(config["config"].as_str().unwrap().contains("kind = \"kaba_messenger\""), "{config}");
        client.send("quit").await.unwrap();
        running.await.unwrap().unwrap();
        assert!(!control.exists());
    }

    #[tokio::test]
    async fn locks_run_until_told_to_quit_and_keep_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("lock.ctl");
        let dir = folder.path().to_str().unwrap();
        let words = ["sim", "lock", "--dir", dir, "--locks", "2", "--slots", "7"];
        for deeds in [2, 3] {
            let running = tokio::spawn(run(Cli::try_parse_from(words).unwrap().sim));
            let client = async {
                loop {
                    match Client::connect(&control).await {
                        Ok(client) => return client,
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            };
            let mut client = tokio::time::timeout(Duration::from_secs(20), client).await.unwrap();
            client.send("at lock-2 use 4711").await.unwrap();
            let ledger = client.send("at lock-2 ledger").await.unwrap();
            assert_eq!(ledger["ledger"].as_array().unwrap().len(), deeds);
            client.send("quit").await.unwrap();
            running.await.unwrap().unwrap();
            assert!(!control.exists());
        }
    }

    #[tokio::test]
    async fn a_property_file_with_an_unknown_key_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let property = folder.path().join("property.toml");
        std::fs::write(&property, "room = ['7']\n").unwrap();
        let refused = run(parsed(&["--config", property.to_str().unwrap()])).await.unwrap_err();
        let text = format!("{refused:#}");
        assert!(text.contains("property.toml") && text.contains("unknown field `room`"), "{text}");
    }

    #[test]
    fn lengths_of_time_are_written_for_people() {
        assert_eq!(span("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(span("-5s").is_err() && span("soon").is_err());
        let System::SaltoIs(args) = parsed(&["--pty", "--check", "0d", "--baud", "9600"]).system else {
            panic!("another system");
        };
        assert!(args.pty && args.check == Check::Waived && args.card_wait == Duration::from_secs(60));
    }
}
