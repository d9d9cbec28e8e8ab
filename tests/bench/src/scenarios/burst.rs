//! Row 18: 200 cards over 8 lanes, within one second and all at once, on a disk that takes 2 ms more a sync. How long
//! after its arrival was the last one durable, as the agent's acknowledgement tells; and were all of them done, each
//! once. The floor is [`crate::bound`] without a line: one sync for all that has come.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use latchd::{model::Outcome, protocol::Position};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message as Ws};

use super::{runtime, soon};
use crate::{
    Options,
    agent::{self, Process, System},
    cloud::{Bridge, Cloud, Heard, order},
    device::Devices,
    jobs,
    judge::{Check, Goal, Samples},
    preload::Preload,
};

const CARDS: u64 = 200;
const LANES: u64 = 8;
const DELAY_US: u64 = 2_000;

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    runtime()?.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Vec<Check>> {
    let scratch = options.scratch()?;
    let delay = options.sync_delay_us.unwrap_or(DELAY_US);
    let cloud = Cloud::new().await?;
    let (devices, _seen) = Devices::new();
    let mut systems = Vec::new();
    for number in 0..usize::try_from(LANES)? {
        systems.push(System::tcp(number, &devices.listen().await?));
    }
    let preload = Preload::new(scratch.path(), delay)?;
    let program = agent::program(options.agent.as_deref())?;
    let _agent = agent::start(&program, scratch.path(), &cloud, &systems, Some(&preload))?;
    let now = Timestamp::now();
    let (mut bridge, _) = cloud.welcome(now, Position::default()).await?;
    let floor_folder = scratch.path().join("floor");
    std::fs::create_dir(&floor_folder)?;
    let mut floor = Floor::start(&floor_folder, delay).await?;

    let mut number = 0;
    // Opens the lines, and recycles the log.
    cards(&mut bridge, &mut number, now, Duration::ZERO).await?;
    let mut checks = Vec::new();
    for (name, pace) in
        [("within a second", Duration::from_millis(1000 / CARDS)), ("all at once", Duration::ZERO)]
    {
        let (mut last, mut slowest, mut in_all, mut floors) =
            (Samples::default(), Samples::default(), Samples::default(), Samples::default());
        for _ in 0..options.rounds {
            floors.push(floor.last_durable(pace).await?);
            let before = devices.commands();
            let burst = cards(&mut bridge, &mut number, now, pace).await?;
            ensure!(devices.commands() - before == CARDS, "each card is one command");
            last.push(burst.last);
            slowest.push(burst.slowest);
            in_all.push(burst.in_all);
        }
        let ms = |samples: &Samples| samples.p50() / 1000.0;
        checks.extend([
            Check::new(
                "18",
                format!("{CARDS} cards {name}: the last one durable after"),
                ms(&last),
                "ms",
                Goal::AtMost(20.0),
            )
            .of(&last)
            .above(&floors),
            Check::told("18", "the slowest one durable after", ms(&slowest), "ms"),
            Check::told("18", "all outcomes back after the first order", ms(&in_all), "ms"),
        ]);
    }
    let done = devices.rooms().values().sum::<u64>();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    checks.push(Check::new(
        "18",
        "commands at the devices for each card",
        done as f64 / number as f64,
        "x",
        Goal::Exactly(1.0),
    ));
    Ok(checks)
}

struct Burst {
    last: Duration,
    slowest: Duration,
    in_all: Duration,
}

/// Sends a burst of cards and waits until all are done.
async fn cards(
    bridge: &mut Bridge,
    number: &mut u64,
    now: Timestamp,
    pace: Duration,
) -> anyhow::Result<Burst> {
    let began = Instant::now();
    let first = bridge.sent.n + 1;
    let (mut sent, mut durable) = (Vec::new(), Vec::<Instant>::new());
    let mut outcomes = 0;
    let mut hear = |heard: Heard, durable: &mut Vec<Instant>| -> anyhow::Result<bool> {
        match heard {
            Heard::Held { position, at } => {
                durable.resize(usize::try_from(position.n + 1 - first)?, at);
            }
            Heard::Limit => {}
            Heard::Outcome { report, .. } => {
                ensure!(
                    matches!(report.outcome, Outcome::Succeeded(_)),
                    "a card failed: {:?}",
                    report.outcome
                );
                outcomes += 1;
            }
        }
        Ok(outcomes == CARDS)
    };
    for at in 0..CARDS {
        // Listening while it waits for the next one's time; all at once, nobody waits.
        let due = tokio::time::Instant::from_std(began) + pace * u32::try_from(at)?;
        while !pace.is_zero() {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => break,
                heard = bridge.next() => { hear(heard?, &mut durable)?; }
            }
        }
        // A cloud that has sent all it may waits to be told more.
        while bridge.may_send() == 0 {
            let heard = soon("leave to send", async { Some(bridge.next().await) }).await??;
            hear(heard, &mut durable)?;
        }
        *number += 1;
        let system = format!("s{}", *number % LANES);
        sent.push(bridge.order(jobs::card(&system, *number, now)).await?);
    }
    loop {
        let heard = soon("an outcome", async { Some(bridge.next().await) }).await??;
        if hear(heard, &mut durable)? {
            break;
        }
    }
    ensure!(durable.len() == sent.len(), "{} of {} orders are durable", durable.len(), sent.len());
    let waits = || durable.iter().zip(&sent).map(|(durable, sent)| *durable - *sent);
    Ok(Burst {
        last: waits().next_back().unwrap_or_default(),
        slowest: waits().max().unwrap_or_default(),
        in_all: began.elapsed(),
    })
}

struct Floor {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    message: String,
    sent: u64,
    _process: Process,
}

impl Floor {
    async fn start(folder: &Path, delay: u64) -> anyhow::Result<Self> {
        let preload = Preload::new(folder, delay)?;
        let cloud = Cloud::new().await?;
        std::fs::write(folder.join("ca.pem"), &cloud.ca)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bound", "--url", &cloud.url, "--ca"]).arg(folder.join("ca.pem"));
        command.arg("--folder").arg(folder);
        let process = Process::start(folder, "bound", preload.under(&mut command))?;
        let message = order(Position { epoch: 1, n: 1000 }, jobs::card("s0", 1000, Timestamp::now()));
        Ok(Self { socket: cloud.accept().await?, message, sent: 0, _process: process })
    }

    async fn last_durable(&mut self, pace: Duration) -> anyhow::Result<Duration> {
        let mut last = Instant::now();
        for _ in 0..CARDS {
            if !pace.is_zero() {
                tokio::time::sleep(pace).await;
            }
            self.sent += 1;
            last = Instant::now();
            self.socket.send(Ws::text(self.message.as_str())).await?;
        }
        loop {
            let told = soon("the floor", async { self.socket.next().await?.ok() }).await?;
            if told.to_text().is_ok_and(|text| text == self.sent.to_string()) {
                return Ok(last.elapsed());
            }
        }
    }
}
