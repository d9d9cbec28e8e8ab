//! Row 1: how many syncs lie between a job's arrival and its first byte, and how many it costs in all, counted under
//! the real agent. The floor is the promise itself: what is durable before the wire is one sync, what is durable after
//! it another.

use std::time::Duration;

use jiff::Timestamp;
use latchd::protocol::Position;
use tokio::sync::mpsc;

use super::{runtime, soon};
use crate::{
    Options,
    agent::{self, Process, System},
    cloud::{Bridge, Cloud, Heard},
    device::{Devices, Seen},
    jobs,
    judge::{Check, Goal},
    preload::Preload,
};

/// Few enough for SQLite's log not to be folded back meanwhile: that costs syncs of its own, after each 1,000 pages.
const JOBS: u64 = 20;
/// Jobs in a row to see what the folding adds.
const MANY: u64 = 300;
/// After this long without work the agent has folded its log back.
const FOLDED: Duration = Duration::from_millis(3_500);

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    runtime()?.block_on(measure(options))
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
async fn measure(options: &Options) -> anyhow::Result<Vec<Check>> {
    let scratch = options.scratch()?;
    let mut site = Site::start(options, scratch.path()).await?;
    site.job().await?;
    let begun = site.preload.syncs()?;

    site.fold().await?;
    let before_all = site.syncs()?;
    let (mut before_wire, mut in_all) = (Vec::new(), Vec::new());
    for _ in 0..JOBS {
        let before = site.syncs()?;
        site.order().await?;
        site.first_byte().await?;
        before_wire.push(site.syncs()? - before);
        site.end().await?;
        in_all.push(site.syncs()? - before);
    }
    let together = site.syncs()? - before_all;

    site.fold().await?;
    let mut waited = Vec::new();
    for _ in 0..JOBS / 2 {
        site.order().await?;
        site.first_byte().await?;
        let before = site.syncs()?;
        site.order().await?;
        site.held().await?;
        site.end().await?;
        site.first_byte().await?;
        site.end().await?;
        waited.push(site.syncs()? - before);
    }

    let before_many = site.syncs()?;
    for _ in 0..MANY {
        site.job().await?;
    }
    let many = site.syncs()? - before_many;
    let fsyncs = site.preload.syncs()?.fsync - begun.fsync;

    let count = |what: &str, counts: &[u64], goal: u64| {
        if counts.iter().any(|count| *count != goal) {
            println!("{what}: {counts:?}");
        }
        // The one that is furthest off speaks for all.
        let worst = counts.iter().copied().max_by_key(|count| count.abs_diff(goal)).unwrap_or_default();
        let what = format!("{what}, each of {}", counts.len());
        Check::new("1", what, worst as f64, "syncs", Goal::Exactly(goal as f64))
    };
    let exactly = |what: String, value: u64, goal: u64| {
        Check::new("1", what, value as f64, "syncs", Goal::Exactly(goal as f64))
    };
    Ok(vec![
        count("before the wire, lane idle", &before_wire, 1),
        count("from order to outcome, lane idle", &in_all, 2),
        exactly(format!("{JOBS} jobs together"), together, 2 * JOBS),
        count("from order to outcome, after a wait", &waited, 3),
        exactly("of them fsync instead of fdatasync".into(), fsyncs, 0),
        Check::told(
            "1",
            format!("a job, over {MANY} in a row, with the log's folding"),
            many as f64 / MANY as f64,
            "syncs",
        ),
    ])
}

/// One agent with one lane, whose device answers when it is told to.
struct Site {
    bridge: Bridge,
    devices: Devices,
    seen: mpsc::UnboundedReceiver<Seen>,
    preload: Preload,
    number: u64,
    now: Timestamp,
    _agent: Process,
}

impl Site {
    async fn start(options: &Options, folder: &std::path::Path) -> anyhow::Result<Self> {
        let program = agent::program(options.agent.as_deref())?;
        let preload = Preload::new(folder, 0)?;
        let cloud = Cloud::new().await?;
        let (devices, seen) = Devices::new();
        let devices = devices.held();
        let system = System::tcp(0, &devices.listen().await?);
        let agent = agent::start(&program, folder, &cloud, &[system], Some(&preload))?;
        let now = Timestamp::now();
        let (bridge, _) = cloud.welcome(now, Position::default()).await?;
        Ok(Self { bridge, devices, seen, preload, number: 0, now, _agent: agent })
    }

    fn syncs(&self) -> anyhow::Result<u64> {
        Ok(self.preload.syncs()?.all())
    }

    async fn order(&mut self) -> anyhow::Result<()> {
        while self.bridge.may_send() == 0 {
            soon("leave to send", async { Some(self.bridge.next().await) }).await??;
        }
        self.number += 1;
        self.bridge.order(jobs::card("s0", self.number, self.now)).await?;
        Ok(())
    }

    /// Waits until the last order is durable.
    async fn held(&mut self) -> anyhow::Result<()> {
        while self.bridge.held != self.bridge.sent {
            let heard = soon("an acknowledgement", async { Some(self.bridge.next().await) }).await??;
            anyhow::ensure!(!matches!(heard, Heard::Outcome { .. }), "an outcome out of turn");
        }
        Ok(())
    }

    async fn first_byte(&mut self) -> anyhow::Result<()> {
        soon("the first byte", async {
            loop {
                if let Seen::FirstByte(_) = self.seen.recv().await? {
                    return Some(());
                }
            }
        })
        .await
    }

    /// Lets the device answer, and waits for the outcome.
    async fn end(&mut self) -> anyhow::Result<()> {
        self.devices.let_answer(1);
        self.bridge.outcome().await?;
        Ok(())
    }

    async fn job(&mut self) -> anyhow::Result<()> {
        self.order().await?;
        self.first_byte().await?;
        self.end().await
    }

    /// Lets the log be folded back. The first commit after it also syncs the log's new header.
    async fn fold(&mut self) -> anyhow::Result<()> {
        tokio::time::sleep(FOLDED).await;
        self.job().await
    }
}
