//! `bench`: what latchd takes, beside what the machine needs at least. See `README.md` for the goals and the numbers.

mod agent;
mod bound;
mod cloud;
mod device;
mod floor;
mod http;
mod jobs;
mod judge;
mod preload;
mod scenarios;

use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};

use judge::{Check, Verdict};

/// Measures latchd against what the machine can do.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one scenario, or all; fails when a goal is missed in three attempts.
    Scenario {
        name: Name,
        #[command(flatten)]
        options: Options,
    },
    /// Counts and flatness only, in less than a minute; nothing that a busy machine could spoil.
    Quick {
        #[command(flatten)]
        options: Options,
    },
    /// The floor of `wire` and `burst`, as a process of its own.
    #[command(hide = true)]
    Bound(bound::Arguments),
    /// The orders of `queue` as a process of its own, whose syncs may be slower than the disk's.
    #[command(hide = true)]
    Orders { folder: PathBuf, rounds: usize },
    /// Fills a queue, says so, and waits to be killed.
    #[command(hide = true)]
    Fill { folder: PathBuf, jobs: u64, sent: u64 },
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// How many syncs a job costs (row 1).
    Syncs,
    /// From the cloud's message to the first byte on the wire (rows 2 to 5).
    Wire,
    /// Durable orders a second with 64 waiting (row 6), and the claim with a long past (row 7).
    Queue,
    /// From a kill to the first claim (row 9).
    Reopen,
    /// 200 check-ins within a second (row 18).
    Burst,
    /// CPU time and pages of a job in the database alone.
    Cost,
    /// Memory and wake-ups of an agent with 200 lanes (rows 11 and 13).
    Idle,
    /// From the exec of an agent to its welcome (row 10).
    Start,
    /// TLS from the beginning and resumed, heartbeats beside an echo, and signatures.
    Link,
    /// The HTTP API with 1,000, 10,000 and 100,000 grants: a new one above a durable commit, and lists.
    Api,
    /// The drivers of access systems: how busy they keep eight encoders, and what they add to the bare exchange.
    Drivers,
    /// Locks by Bluetooth: an agent that knows fifty and has nothing to do, and how long a job holds a lock's link.
    Radio,
    /// Other queues on the same work.
    Peers,
    /// One after the other, with the settings that the goals name.
    All,
}

/// How it is measured.
#[derive(Clone, clap::Args)]
pub struct Options {
    /// Added to every sync of the programs that are measured, in microseconds: 0 for a protected NVMe, 500, 2000 for a
    /// consumer's, 10000 for eMMC.
    #[arg(long, value_name = "N")]
    sync_delay_us: Option<u64>,
    /// Lengthens every sync, the floor's too, until the floor is the one that the goals were set with: `wire` and the
    /// orders of `queue`. By how much is measured first.
    #[arg(long, conflicts_with = "sync_delay_us")]
    disk_of_goals: bool,
    /// Pause before each job, in milliseconds.
    #[arg(long, value_name = "N", default_value_t = 0)]
    gap_ms: u64,
    /// Rounds of floor and candidate; the median over them is judged.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Jobs of the `idle` scenario.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    jobs: u64,
    /// Writes what was measured to a file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The latchd to measure.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// Where databases lie while they are measured: a folder on the disk in question.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    #[arg(skip)]
    quick: bool,
}

impl Options {
    fn scratch(&self) -> anyhow::Result<tempfile::TempDir> {
        let folder = self.folder.clone().unwrap_or_else(std::env::temp_dir);
        tempfile::Builder::new().prefix("latchd-bench").tempdir_in(&folder).context("make a scratch folder")
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match arguments.command {
        Command::Scenario { name, options } => scenarios(name, &options),
        Command::Quick { options } => quick(&Options { quick: true, rounds: 3, ..options }),
        Command::Bound(arguments) => bound::run(&arguments).map(|()| true),
        Command::Orders { folder, rounds } => scenarios::queue::tell_orders(&folder, rounds).map(|()| true),
        Command::Fill { folder, jobs, sent } => scenarios::reopen::fill(&folder, jobs, sent).map(|()| true),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn scenarios(name: Name, options: &Options) -> anyhow::Result<bool> {
    let mut verdicts = Vec::new();
    if name == Name::All {
        for name in [
            Name::Syncs,
            Name::Cost,
            Name::Queue,
            Name::Reopen,
            Name::Burst,
            Name::Idle,
            Name::Start,
            Name::Link,
            Name::Api,
            Name::Drivers,
            Name::Radio,
        ] {
            verdicts.push(one(name, options)?);
        }
        for (delay, gap) in [(0, 0), (500, 0), (2_000, 0), (10_000, 0), (0, 20)] {
            let options = Options { sync_delay_us: Some(delay), gap_ms: gap, ..options.clone() };
            verdicts.push(one(Name::Wire, &options)?);
        }
        for name in [Name::Queue, Name::Wire] {
            verdicts.push(one(name, &Options { disk_of_goals: true, ..options.clone() })?);
        }
        verdicts.push(one(Name::Peers, options)?);
    } else {
        verdicts.push(one(name, options)?);
    }
    finish(&verdicts, options)
}

fn one(name: Name, options: &Options) -> anyhow::Result<Verdict> {
    match name {
        Name::Syncs => attempts("syncs", || scenarios::syncs::run(options)),
        Name::Wire => attempts(&scenarios::wire::title(options), || scenarios::wire::run(options)),
        Name::Queue => scenarios::queue::run(options),
        Name::Reopen => attempts("reopen", || scenarios::reopen::run(options)),
        Name::Burst => attempts("burst", || scenarios::burst::run(options)),
        Name::Cost => attempts("cost", || scenarios::cost::run(options)),
        Name::Idle => attempts("idle", || scenarios::idle::run(options)),
        Name::Start => attempts("start", || scenarios::start::run(options)),
        Name::Link => attempts("link", || scenarios::trust::run(options)),
        Name::Api => scenarios::api::run(options),
        Name::Drivers => attempts("drivers", || scenarios::drivers::run(options)),
        Name::Radio => attempts("radio", || scenarios::radio::run(options)),
        Name::Peers => scenarios::peers::run(options),
        Name::All => unreachable!("all are run one by one"),
    }
}

fn attempts(name: &str, run: impl FnMut() -> anyhow::Result<Vec<Check>>) -> anyhow::Result<Verdict> {
    judge::attempts(name, run)
}

fn quick(options: &Options) -> anyhow::Result<bool> {
    let began = Instant::now();
    let verdicts = [
        attempts("syncs", || scenarios::syncs::run(options))?,
        scenarios::queue::run_claims(options)?,
        attempts("reopen", || scenarios::reopen::run(options))?,
        attempts("link", || scenarios::trust::run(options))?,
    ];
    println!("\n{:.0} s", began.elapsed().as_secs_f64());
    finish(&verdicts, options)
}

fn finish(verdicts: &[Verdict], options: &Options) -> anyhow::Result<bool> {
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(verdicts)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    let missed: Vec<_> = verdicts
        .iter()
        .flat_map(|verdict| verdict.checks.iter().map(move |check| (verdict, check)))
        .filter(|(_, check)| !check.is_met())
        .map(|(verdict, check)| format!("{}: {}", verdict.scenario, check.what))
        .collect();
    for miss in &missed {
        println!("missed: {miss}");
    }
    Ok(missed.is_empty())
}
