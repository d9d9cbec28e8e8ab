//! Rows 11 and 13: an agent with 200 lanes that has nothing to do, and the same agent after a hundred thousand jobs.
//! Each lane is a system of its own, with a line and a room of its own. There is no floor but nothing at all.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use latchd::protocol::Position;

use super::{runtime, soon};
use crate::{
    Options,
    agent::{self, System},
    cloud::{Cloud, Heard},
    device::Devices,
    jobs,
    judge::{Check, Goal},
};

const LANES: u64 = 200;
/// Long enough for a ping and its pong.
const WATCHED: Duration = Duration::from_secs(30);
/// What is needed once is there after so many jobs: caches are full, the log has been recycled.
const WARM: u64 = 20_000;
const MIB: f64 = 1024.0;

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    runtime()?.block_on(measure(options))
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
async fn measure(options: &Options) -> anyhow::Result<Vec<Check>> {
    let scratch = options.scratch()?;
    let cloud = Cloud::new().await?;
    let (devices, mut seen) = Devices::new();
    // Nobody asks when; an unread channel would fill this process only.
    tokio::spawn(async move { while seen.recv().await.is_some() {} });
    let mut systems = Vec::new();
    for number in 0..usize::try_from(LANES)? {
        systems.push(System { rooms: 1, ..System::tcp(number, &devices.listen().await?) });
    }
    let program = agent::program(options.agent.as_deref())?;
    let agent = agent::start(&program, scratch.path(), &cloud, &systems, None)?;
    let now = Timestamp::now();
    let (mut bridge, _) = cloud.welcome(now, Position::default()).await?;
    let mut number = 0;
    let mut outcomes = 0;

    // One job in each lane, so that every line is known to be open.
    let mut work = async |bridge: &mut crate::cloud::Bridge,
                          until: u64,
                          outcomes: &mut u64|
           -> anyhow::Result<()> {
        while *outcomes < until {
            while number < until && number - *outcomes < 128 && bridge.may_send() > 0 {
                number += 1;
                bridge.order(jobs::read(&format!("s{}", number % LANES), number, now)).await?;
            }
            if let Heard::Outcome { .. } = soon("an outcome", async { Some(bridge.next().await) }).await?? {
                *outcomes += 1;
            }
        }
        Ok(())
    };
    work(&mut bridge, LANES, &mut outcomes).await?;
    ensure!(devices.commands() == LANES, "each lane did a job");

    // The log is folded back after three seconds; from then on there is nothing to do.
    let listen = async |bridge: &mut crate::cloud::Bridge, span: Duration| match tokio::time::timeout(
        span,
        bridge.next(),
    )
    .await
    {
        Err(_) => Ok(()),
        Ok(heard) => Err(anyhow::anyhow!("an idle agent said {heard:?}")),
    };
    listen(&mut bridge, Duration::from_secs(5)).await?;
    let fresh = resident(agent.pid())?;
    let (before, cpu_before) = (switches(agent.pid())?, cpu(agent.pid())?);
    listen(&mut bridge, WATCHED).await?;
    let seconds = WATCHED.as_secs_f64();
    let wakes = switches_since(&before, agent.pid())? as f64 / seconds;
    let busy = (cpu(agent.pid())? - cpu_before) / seconds * 100.0;

    let began = Instant::now();
    let cpu_before = cpu(agent.pid())?;
    let warm_at = WARM.min(options.jobs / 2);
    work(&mut bridge, warm_at, &mut outcomes).await?;
    let warm = resident(agent.pid())?;
    let mut most = warm;
    let mut until = warm_at;
    while until < options.jobs {
        until = (until + 5_000).min(options.jobs);
        work(&mut bridge, until, &mut outcomes).await?;
        most = most.max(resident(agent.pid())?);
    }
    let rate = options.jobs as f64 / began.elapsed().as_secs_f64();
    let cpu_a_job = (cpu(agent.pid())? - cpu_before) / options.jobs as f64 * 1e6;
    listen(&mut bridge, Duration::from_secs(5)).await?;
    let after = resident(agent.pid())?;
    ensure!(devices.commands() == options.jobs, "each job is one command");
    let jobs = options.jobs;
    Ok(vec![
        Check::new("11", format!("resident, {LANES} lanes, idle"), fresh / MIB, "MiB", Goal::AtMost(16.0)),
        Check::new("11", format!("resident, idle after {jobs} jobs"), after / MIB, "MiB", Goal::AtMost(16.0)),
        Check::new(
            "11",
            format!("growth from {warm_at} jobs to the most until {jobs}"),
            (most - warm) / MIB,
            "MiB",
            Goal::AtMost(1.0),
        ),
        Check::new("13", "wake-ups of an idle agent", wakes, "/s", Goal::AtMost(2.0)),
        Check::told("13", "of one core while idle", busy, "%"),
        Check::told("11", "jobs a second meanwhile, 128 on their way", rate, "/s"),
        Check::told("11", "of the agent's CPU for each of them", cpu_a_job, "us"),
    ])
}

/// Resident memory in KiB.
fn resident(pid: u32) -> anyhow::Result<f64> {
    Ok(status(&format!("/proc/{pid}/status"), "VmRSS:")? as f64)
}

/// How often each thread of a process was switched to.
pub(super) fn switches(pid: u32) -> anyhow::Result<BTreeMap<OsString, u64>> {
    let mut switches = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        let path = task.path().join("status").display().to_string();
        let of_task =
            status(&path, "voluntary_ctxt_switches:")? + status(&path, "nonvoluntary_ctxt_switches:")?;
        switches.insert(task.file_name(), of_task);
    }
    Ok(switches)
}

/// How often all of them were since an earlier count; one that has ended meanwhile is not known any more.
pub(super) fn switches_since(before: &BTreeMap<OsString, u64>, pid: u32) -> anyhow::Result<u64> {
    let now = switches(pid)?;
    Ok(now.iter().map(|(task, count)| count - before.get(task).unwrap_or(&0)).sum())
}

/// CPU time of a process in seconds.
pub(super) fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let ticks = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    Ok(ticks.context("CPU time in /proc")? / 100.0)
}

fn status(path: &str, key: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{key} in {path}"))
}
