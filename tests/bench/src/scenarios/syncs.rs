//! Row 1: how many syncs lie between a job's arrival and its first byte, and how many it costs in all, counted under
//! the real agent. The floor is the promise itself: what is durable before the wire is one sync, what is durable after
//! it another.

use std::time::Duration;

use jiff::Timestamp;
use latchd::protocol::Position;

use super::{runtime, soon};
use crate::{
    Options,
    agent::{self, System},
    cloud::{Cloud, Heard},
    device::{Devices, Seen},
    jobs,
    judge::{Check, Goal},
    preload::Preload,
};

/// Few enough for SQLite's log not to be folded back meanwhile: that costs syncs of its own, once in a hundred jobs.
const JOBS: u64 = 40;
/// After this long without work the agent folds its log back.
const FOLDED: Duration = Duration::from_millis(3_500);

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    runtime()?.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Vec<Check>> {
    let scratch = options.scratch()?;
    let program = agent::program(options.agent.as_deref())?;
    let preload = Preload::new(scratch.path(), 0)?;
    let cloud = Cloud::new().await?;
    let (devices, mut seen) = Devices::new();
    let devices = devices.held();
    let system = System::tcp(0, &devices.listen().await?);
    let _agent = agent::start(&program, scratch.path(), &cloud, &[system], Some(&preload))?;
    let now = Timestamp::now();
    let (mut bridge, _) = cloud.welcome(now, Position::default()).await?;
    let mut first_byte = async || {
        soon("the first byte", async {
            loop {
                if let Seen::FirstByte(at) = seen.recv().await? {
                    return Some(at);
                }
            }
        })
        .await
    };
    let mut number = 0;
    let mut card = || {
        number += 1;
        jobs::card("s0", number, now)
    };

    // The first commits of a fresh log sync its header too, and so do those after it was folded back.
    for fold in [true, false] {
        for _ in 0..5 {
            bridge.order(card()).await?;
            first_byte().await?;
            devices.let_answer(1);
            bridge.outcome().await?;
        }
        if fold {
            tokio::time::sleep(FOLDED).await;
        }
    }

    let begun = preload.syncs()?;
    let (mut before_wire, mut in_all) = (Vec::new(), Vec::new());
    for _ in 0..JOBS {
        let before = preload.syncs()?.all();
        bridge.order(card()).await?;
        first_byte().await?;
        before_wire.push(preload.syncs()?.all() - before);
        devices.let_answer(1);
        bridge.outcome().await?;
        in_all.push(preload.syncs()?.all() - before);
    }
    let total = preload.syncs()?.all() - begun.all();

    let mut waited = Vec::new();
    for _ in 0..JOBS / 2 {
        bridge.order(card()).await?;
        first_byte().await?;
        let before = preload.syncs()?.all();
        bridge.order(card()).await?;
        while bridge.held != bridge.sent {
            let Heard::Held { .. } = bridge.next().await? else { anyhow::bail!("an outcome out of turn") };
        }
        devices.let_answer(1);
        bridge.outcome().await?;
        first_byte().await?;
        devices.let_answer(1);
        bridge.outcome().await?;
        waited.push(preload.syncs()?.all() - before);
    }
    let fsyncs = preload.syncs()?.fsync - begun.fsync;

    let count = |what: &str, counts: &[u64], goal: u64| {
        // The one that is furthest off speaks for all.
        let worst = counts.iter().copied().max_by_key(|count| count.abs_diff(goal)).unwrap_or_default();
        let jobs = counts.len();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        Check::new(
            "1",
            format!("{what}, each of {jobs} jobs"),
            worst as f64,
            "syncs",
            Goal::Exactly(goal as f64),
        )
    };
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    Ok(vec![
        count("before the wire, lane idle", &before_wire, 1),
        count("from order to outcome, lane idle", &in_all, 2),
        Check::new(
            "1",
            format!("{JOBS} jobs together"),
            total as f64,
            "syncs",
            Goal::Exactly((2 * JOBS) as f64),
        ),
        count("from order to outcome, after a wait in the lane", &waited, 3),
        Check::new("1", "of them fsync instead of fdatasync", fsyncs as f64, "syncs", Goal::Exactly(0.0)),
    ])
}
