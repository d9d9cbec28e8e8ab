//! Other queues on the same work, beside ours: durable orders one at a time and with 64 waiting, and claim with
//! acknowledgement. They are programs of their own under `peers/`, since only one SQLite may be linked; each is run as
//! it is shipped, and once more with durable settings where it is shipped with weaker ones.
//!
//! Nothing is judged here: the settings, the languages and what a job is differ. What is durable is told by the syncs
//! that strace counts for each order, not by what a README says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use latchd::{queue::Queue, store::Writer};
use serde::{Deserialize, Serialize};

use super::{queue::Taker, runtime};
use crate::{
    Options,
    floor::Disk,
    jobs::{self, lane},
    judge::{self, Check, Samples, Verdict},
};

/// How a peer is started, less `FOLDER MODE JOBS`.
struct Peer {
    name: &'static str,
    program: Vec<PathBuf>,
    modes: &'static [&'static str],
}

fn peers() -> anyhow::Result<Vec<Peer>> {
    let ours = std::env::current_exe()?;
    let release = ours.parent().context("a folder")?;
    let installed = release.parent().context("a folder")?.join("peers");
    let peer = |name, program, modes| Peer { name, program, modes };
    Ok(vec![
        peer("effectum", vec![release.join("peer-effectum")], &["shipped"]),
        peer("apalis-sqlite", vec![release.join("peer-apalis-sqlite")], &["shipped", "durable"]),
        peer("plainjob", vec!["node".into(), installed.join("plainjob/peer.mjs")], &["shipped", "durable"]),
        peer(
            "persist-queue",
            vec![installed.join("persist-queue/bin/python"), installed.join("persist-queue/peer.py")],
            &["shipped"],
        ),
    ])
}

/// What a peer says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Told {
    peer: String,
    enqueue_p50_us: f64,
    enqueue_64_per_s: f64,
    cycles_1_per_s: f64,
    /// Absent where a peer cannot do several at once.
    #[serde(default)]
    cycles_64_per_s: Option<f64>,
}

/// A line of the table: a name, syncs for each order, and of each round the ratio to the floor with what was told.
type Line = (String, Option<f64>, Vec<(f64, Told)>);

pub fn run(options: &Options) -> anyhow::Result<Verdict> {
    let mut tables: Vec<Line> = Vec::new();
    let mut missing = Vec::new();
    let mut runs: Vec<(Peer, &'static str)> = Vec::new();
    for peer in peers()? {
        match peer.missing() {
            Some(what) => missing.push(format!("{}: {what}", peer.name)),
            None => runs.extend(peer.modes.iter().map(|mode| (peer.again(), *mode))),
        }
    }
    tables.push(("latchd".into(), Some(1.0), Vec::new()));
    for (peer, mode) in &runs {
        let syncs = peer.syncs(options, mode)?;
        let weaker = syncs.is_some_and(|syncs| syncs < 0.99);
        let name = format!("{} {mode}{}", peer.name, if weaker { ", weaker" } else { "" });
        tables.push((name, syncs, Vec::new()));
    }
    for _ in 0..options.rounds {
        // The disk drifts, so each is compared with what it could do right before.
        let mut measure = |at: usize, run: &dyn Fn() -> anyhow::Result<Told>| -> anyhow::Result<()> {
            let scratch = options.scratch()?;
            let mut floor = Samples::default();
            floor.extend(Disk::new(scratch.path())?.block(300)?);
            let told = run()?;
            tables[at].2.push((told.enqueue_p50_us / floor.p50(), told));
            Ok(())
        };
        measure(0, &|| ours(options))?;
        for (at, (peer, mode)) in runs.iter().enumerate() {
            measure(at + 1, &|| peer.run(options, mode))?;
        }
    }

    println!("\n== peers, medians of {} rounds", options.rounds);
    println!(
        "{:<28} {:>12} {:>14} {:>8} {:>14} {:>14} {:>14}",
        "", "syncs/order", "order p50 us", "/ floor", "64 waiting /s", "claim+ack /s", "64 at work /s"
    );
    let mut checks = Vec::new();
    for (name, syncs, rounds) in &tables {
        let of = |pick: fn(&Told) -> Option<f64>| {
            let numbers: Vec<f64> = rounds.iter().filter_map(|(_, told)| pick(told)).collect();
            (!numbers.is_empty()).then(|| judge::median(&numbers))
        };
        let ratio = judge::median(&rounds.iter().map(|(ratio, _)| *ratio).collect::<Vec<_>>());
        let columns = [
            ("order p50", "us", of(|told| Some(told.enqueue_p50_us))),
            ("order p50 against one durable write", "x", Some(ratio)),
            ("orders with 64 waiting", "/s", of(|told| Some(told.enqueue_64_per_s))),
            ("claim and acknowledgement", "/s", of(|told| Some(told.cycles_1_per_s))),
            ("the same, 64 at work", "/s", of(|told| told.cycles_64_per_s)),
        ];
        let shown = |value: Option<f64>, digits: usize| match value {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_owned(),
        };
        println!(
            "{name:<28} {:>12} {:>14} {:>8} {:>14} {:>14} {:>14}",
            shown(*syncs, 2),
            shown(columns[0].2, 0),
            shown(columns[1].2, 2),
            shown(columns[2].2, 0),
            shown(columns[3].2, 0),
            shown(columns[4].2, 0)
        );
        if let Some(syncs) = syncs {
            checks.push(Check::told("-", format!("{name}: syncs for each order"), *syncs, ""));
        }
        for (what, unit, value) in columns {
            checks.extend(value.map(|value| Check::told("-", format!("{name}: {what}"), value, unit)));
        }
    }
    for missing in &missing {
        println!("missing: {missing}");
        checks.push(Check::told("-", format!("missing: {missing}"), f64::NAN, ""));
    }
    Ok(Verdict { scenario: "peers".into(), attempts: 1, checks, met: true })
}

impl Peer {
    fn again(&self) -> Self {
        Self { name: self.name, program: self.program.clone(), modes: self.modes }
    }

    fn missing(&self) -> Option<String> {
        let is_there = |path: &PathBuf| {
            path.exists() || Command::new(path).arg("--version").stdout(Stdio::null()).status().is_ok()
        };
        let missing = self.program.iter().find(|path| !is_there(path))?;
        Some(format!("{} (run tests/bench/peers/install.sh)", missing.display()))
    }

    fn command(&self, folder: &Path, mode: &str, jobs: u64) -> Vec<String> {
        let program = self.program.iter().map(|part| part.display().to_string());
        program.chain([folder.display().to_string(), mode.to_owned(), jobs.to_string()]).collect()
    }

    fn run(&self, options: &Options, mode: &str) -> anyhow::Result<Told> {
        let scratch = options.scratch()?;
        let command = self.command(scratch.path(), mode, 0);
        let output = Command::new(&command[0]).args(&command[1..]).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        let line = said.lines().last().with_context(|| format!("{} said nothing", self.name))?;
        serde_json::from_str(line).with_context(|| format!("{} said {line:?}", self.name))
    }

    /// Syncs for each order: the difference between two runs, so that opening does not count. None without strace.
    fn syncs(&self, options: &Options, mode: &str) -> anyhow::Result<Option<f64>> {
        let counted = |jobs: u64| -> anyhow::Result<Option<u64>> {
            let scratch = options.scratch()?;
            let log = scratch.path().join("strace");
            let traced = Command::new("strace")
                .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o"])
                .arg(&log)
                .args(self.command(scratch.path(), mode, jobs))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            match traced {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
                Ok(status) => {
                    ensure!(status.success(), "{} failed under strace", self.name);
                    let lines = fs::read_to_string(&log)?;
                    let syncs =
                        lines.lines().filter(|line| line.contains("sync(") && !line.contains("resumed"));
                    Ok(Some(syncs.count() as u64))
                }
            }
        };
        Ok(match (counted(20)?, counted(120)?) {
            (Some(few), Some(many)) => Some((many as f64 - few as f64) / 100.0),
            _ => None,
        })
    }
}

/// The same work for our own queue.
fn ours(options: &Options) -> anyhow::Result<Told> {
    let scratch = options.scratch()?;
    let (writer, handle) = Writer::start("queue", jobs::open(scratch.path())?);
    let told = runtime()?.block_on(async {
        let mut taker = Taker::new(handle.clone());
        taker.take(200, 1).await?;
        let mut alone = Samples::default();
        alone.extend(taker.take(500, 1).await?);
        let began = Instant::now();
        taker.take(6_400, 64).await?;
        let enqueue_64_per_s = 6_400.0 / began.elapsed().as_secs_f64();
        let now = Timestamp::now();
        let cycles = |workers: u64, each: u64| {
            let handle = handle.clone();
            async move {
                let began = Instant::now();
                let worker = || {
                    let handle = handle.clone();
                    async move {
                        for _ in 0..each {
                            let claimed =
                                handle.run(move |queue: &mut Queue| queue.claim(now, &lane(1))).await?;
                            let job_id = claimed.context("there are jobs")?.job.job_id;
                            handle
                                .run(move |queue: &mut Queue| queue.finish(now, job_id, jobs::done()))
                                .await?;
                        }
                        anyhow::Ok(())
                    }
                };
                let workers_at_work: Vec<_> = (0..workers).map(|_| tokio::spawn(worker())).collect();
                for worker in workers_at_work {
                    worker.await??;
                }
                anyhow::Ok((workers * each) as f64 / began.elapsed().as_secs_f64())
            }
        };
        Ok::<_, anyhow::Error>(Told {
            peer: "latchd".into(),
            enqueue_p50_us: alone.p50(),
            enqueue_64_per_s,
            cycles_1_per_s: cycles(1, 500).await?,
            cycles_64_per_s: Some(cycles(64, 40).await?),
        })
    })?;
    drop(handle);
    writer.join();
    Ok(told)
}
