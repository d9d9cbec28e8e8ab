//! Rows 2 to 5: from the cloud's message to the first byte at the device, and to the outcome's return. Cloud and device
//! are this process, with one clock; the agent and the floor ([`crate::bound`]) are children over the same TLS and the
//! same kind of pty.
//!
//! The agent says 05 first and hears 06 before its command leaves; a "first byte" is that 05, which only a durable mark
//! lets leave.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use latchd::{model::Outcome, protocol::Position, sim::Pty};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::TlsStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message as Ws};

use super::{runtime, soon};
use crate::{
    Options,
    agent::{self, Process, System},
    bound::WORD,
    cloud::{Bridge, Cloud, order},
    device::{Devices, Seen},
    jobs,
    judge::{Check, Goal, Paired, Samples},
    preload::Preload,
};

/// Jobs between two turns.
const BLOCK: u64 = 200;
/// Turns of each a round.
const TURNS: usize = 2;

/// The floor, to the first byte, on the machine that the goals were set with.
const BOUND_OF_GOALS_US: f64 = 282.0;

pub fn title(options: &Options) -> String {
    if options.disk_of_goals {
        return format!("wire, on a disk as the goals were set with (bound {BOUND_OF_GOALS_US} us)");
    }
    let delay = options.sync_delay_us.unwrap_or(0);
    format!("wire, +{delay} us a sync, {} ms apart", options.gap_ms)
}

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    runtime()?.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Vec<Check>> {
    let delay = match options.disk_of_goals {
        true => delay_of_goals(options).await?,
        false => options.sync_delay_us.unwrap_or(0),
    };
    let gap = Duration::from_millis(options.gap_ms);
    let (mut wire, mut done) = (Paired::default(), Paired::default());
    let mut all = Samples::default();
    for _ in 0..options.rounds {
        let scratch = options.scratch()?;
        let mut floor = Floor::start(scratch.path(), delay).await?;
        let mut candidate = Candidate::start(options, scratch.path(), delay).await?;
        // SQLite's log is recycled after some hundred commits, TLS and allocators settle too.
        let warm_up = if delay < 2_000 { 300 } else { 100 };
        floor.turn(warm_up, Duration::ZERO).await?;
        candidate.warm_up(warm_up).await?;
        let (mut wires, mut dones) =
            ((Samples::default(), Samples::default()), (Samples::default(), Samples::default()));
        for _ in 0..TURNS {
            let took = floor.turn(BLOCK, gap).await?;
            wires.0.extend(took.iter().map(|took| took.0));
            dones.0.extend(took.iter().map(|took| took.1));
            let took = candidate.turn(BLOCK, gap).await?;
            wires.1.extend(took.iter().map(|took| took.0));
            dones.1.extend(took.iter().map(|took| took.1));
            all.extend(took.iter().map(|took| took.0));
        }
        wire.round(wires.0, wires.1);
        done.round(dones.0, dones.1);
    }
    let (row, goal) = match (delay, options.gap_ms) {
        (_, 0) if options.disk_of_goals => ("2", Goal::AtMost(1.7)),
        (0, 0) => ("2", Goal::AtMost(1.7)),
        (2_000, 0) => ("3", Goal::AtMost(1.3)),
        (0, 20) => ("4", Goal::AtMost(1.6)),
        _ => ("2+", Goal::Told),
    };
    let tail = all.percentile(99) / all.p50();
    let warn = if tail > 5.0 { ": above 5, look at it" } else { "" };
    let mut checks = vec![
        wire.check(row, "cloud to wire, against the bound", goal),
        done.check(row, "cloud to outcome, against the bound", Goal::Told),
        Check::told("5", format!("cloud to wire, p99 against p50{warn}"), tail, "x"),
    ];
    if options.disk_of_goals {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        checks.push(Check::told("2", "added to every sync, the floor's too", delay as f64, "us"));
    }
    Ok(checks)
}

/// What every sync has to take longer for the floor to be the one of the goals. A sleep takes longer than it was told to,
/// so what is found is tried.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number, and not below zero"
)]
async fn delay_of_goals(options: &Options) -> anyhow::Result<u64> {
    let mut delay = 0.0_f64;
    for _ in 0..3 {
        let scratch = options.scratch()?;
        let mut floor = Floor::start(scratch.path(), delay as u64).await?;
        floor.turn(100, Duration::ZERO).await?;
        let mut wires = Samples::default();
        wires.extend(floor.turn(2 * BLOCK, Duration::ZERO).await?.iter().map(|took| took.0));
        delay = (delay + BOUND_OF_GOALS_US - wires.p50()).max(0.0);
    }
    Ok(delay as u64)
}

/// How long until the first byte, and until the end.
type Took = (Duration, Duration);

struct Floor {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    bytes: mpsc::UnboundedReceiver<Instant>,
    message: String,
    _process: Process,
}

impl Floor {
    async fn start(scratch: &Path, delay: u64) -> anyhow::Result<Self> {
        let folder = fresh(scratch, "floor")?;
        let preload = Preload::new(&folder, delay)?;
        let cloud = Cloud::new().await?;
        std::fs::write(folder.join("ca.pem"), &cloud.ca)?;
        let port = folder.join("port");
        let mut line = Pty::open(&port)?;
        let (seen, bytes) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut word = [0; WORD.len()];
            while line.read_exact(&mut word).await.is_ok() {
                let _ = seen.send(Instant::now());
                if line.write_all(&word).await.is_err() {
                    return;
                }
            }
        });
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bound", "--url", &cloud.url, "--ca"]).arg(folder.join("ca.pem"));
        command.arg("--folder").arg(&folder).arg("--port").arg(&port);
        let process = Process::start(&folder, "bound", preload.under(&mut command))?;
        let socket = cloud.accept().await?;
        // As long as the order that the agent gets.
        let message = order(Position { epoch: 1, n: 1000 }, jobs::card("s0", 1000, Timestamp::now()));
        Ok(Self { socket, bytes, message, _process: process })
    }

    async fn turn(&mut self, messages: u64, gap: Duration) -> anyhow::Result<Vec<Took>> {
        let mut took = Vec::new();
        for _ in 0..messages {
            pause(gap).await;
            let began = Instant::now();
            self.socket.send(Ws::text(self.message.as_str())).await?;
            soon("the floor's end", async { self.socket.next().await?.ok() }).await?;
            let ended = began.elapsed();
            let first = self.bytes.recv().await.context("the floor's first byte")?;
            took.push((first - began, ended));
        }
        Ok(took)
    }
}

struct Candidate {
    bridge: Bridge,
    seen: mpsc::UnboundedReceiver<Seen>,
    devices: Devices,
    number: u64,
    now: Timestamp,
    _process: Process,
}

impl Candidate {
    async fn start(options: &Options, scratch: &Path, delay: u64) -> anyhow::Result<Self> {
        let folder = fresh(scratch, "agent")?;
        let preload = Preload::new(&folder, delay)?;
        let program = agent::program(options.agent.as_deref())?;
        let cloud = Cloud::new().await?;
        let port = folder.join("port");
        let (devices, seen) = Devices::new();
        tokio::spawn(devices.clone().serve(Pty::open(&port)?));
        let system = System::serial(0, &port);
        let process = agent::start(&program, &folder, &cloud, &[system], Some(&preload))?;
        let now = Timestamp::now();
        let (bridge, _) = cloud.welcome(now, Position::default()).await?;
        Ok(Self { bridge, seen, devices, number: 0, now, _process: process })
    }

    /// Readings: cards would count for the hour's limit, which the queue looks up card by card.
    async fn warm_up(&mut self, jobs: u64) -> anyhow::Result<()> {
        for _ in 0..jobs {
            self.number += 1;
            self.bridge.order(jobs::read("s0", self.number, self.now)).await?;
            self.bridge.outcome().await?;
        }
        while self.seen.try_recv().is_ok() {}
        Ok(())
    }

    async fn turn(&mut self, jobs: u64, gap: Duration) -> anyhow::Result<Vec<Took>> {
        let mut took = Vec::new();
        let before = self.devices.commands();
        for _ in 0..jobs {
            pause(gap).await;
            self.number += 1;
            let began = self.bridge.order(jobs::card("s0", self.number, self.now)).await?;
            let (report, ended) = self.bridge.outcome().await?;
            ensure!(matches!(report.outcome, Outcome::Succeeded(_)), "a card failed: {:?}", report.outcome);
            let mut first = None;
            while let Ok(seen) = self.seen.try_recv() {
                if let Seen::FirstByte(at) = seen {
                    first = first.or(Some(at));
                }
            }
            took.push((first.context("an outcome without a byte")? - began, ended - began));
        }
        ensure!(self.devices.commands() - before == jobs, "each job is one command");
        Ok(took)
    }
}

async fn pause(gap: Duration) {
    if !gap.is_zero() {
        tokio::time::sleep(gap).await;
    }
}

fn fresh(scratch: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = scratch.join(name);
    std::fs::create_dir(&folder)?;
    Ok(folder)
}
