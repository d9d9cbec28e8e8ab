//! Row 9: a process with 100,000 jobs, 64 of them at work, is killed for real; how long until the next one has opened
//! the queue, settled what was at work and claimed the first job. The floor is a reader that
//! opens the same files, log and all, and asks for one number.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use jiff::Timestamp;
use latchd::{
    queue::{Accepted, Queue},
    seams::Storage,
    store::Writer,
};

use super::{PATIENCE, runtime};
use crate::{
    Options,
    agent::Process,
    jobs::{self, admission, commit, job_id, lane, multiply, unsynced},
    judge::{Check, Goal, Samples},
};

const JOBS: u64 = 100_000;
const SENT: u64 = 64;
/// Of the jobs, those that can be claimed.
const REAL: u64 = 1_000;

/// Fills a queue, with a log that was not folded back, and waits to be killed.
pub fn fill(folder: &Path, jobs: u64, sent: u64) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let mut queue = jobs::open(folder)?;
    unsynced(&mut queue, |queue| {
        commit(queue, |queue| {
            for number in 1..=REAL {
                queue.accept(now, None, jobs::read("bench", number, now), Ok(admission(1)), false)?;
            }
            Ok(())
        })?;
        multiply(queue, job_id(REAL), jobs - REAL - sent)
    })?;
    for at_work in 1..=sent {
        let job = jobs::read("bench", REAL + at_work, now);
        let accepted =
            commit(&mut queue, |queue| queue.accept(now, None, job, Ok(admission(1 + at_work)), true))?;
        ensure!(matches!(accepted, Accepted::Sent(_)), "{accepted:?}");
    }
    fs::write(folder.join("filled"), "")?;
    loop {
        thread::park();
    }
}

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    let (mut floor, mut took) = (Samples::default(), Samples::default());
    for _ in 0..options.rounds {
        let scratch = options.scratch()?;
        killed(scratch.path())?;
        // SQLite reads its log and answers one question, and nothing else happens.
        let copy = options.scratch()?;
        for file in fs::read_dir(scratch.path())? {
            let file = file?;
            fs::copy(file.path(), copy.path().join(file.file_name()))?;
        }
        let began = Instant::now();
        let reader = latchd::store::open_reader(&Storage::folder(copy.path()), latchd::queue::FILE)?;
        reader.query_row("SELECT reports_n FROM memory", [], |row| row.get::<_, i64>(0))?;
        floor.push(began.elapsed());
        drop(reader);

        let now = Timestamp::now();
        let began = Instant::now();
        let (writer, queue) = Writer::start("queue", jobs::open(scratch.path())?);
        let (recovered, claimed) = runtime()?.block_on(async {
            let recovered = queue.run(move |queue: &mut Queue| queue.recover(now)).await?;
            let claimed = queue.run(move |queue: &mut Queue| queue.claim(now, &lane(1))).await?;
            anyhow::Ok((recovered, claimed))
        })?;
        took.push(began.elapsed());
        ensure!(recovered.len() as u64 == SENT, "{} jobs were at work", recovered.len());
        ensure!(claimed.is_some_and(|claimed| claimed.job.job_id == job_id(1)), "the first job was claimed");
        drop(queue);
        writer.join();
    }
    let worst = took.percentile(100) / 1000.0;
    Ok(vec![
        Check::new(
            "9",
            format!("from the open of {JOBS} jobs, {SENT} at work, to the first claim"),
            took.p50() / 1000.0,
            "ms",
            Goal::AtMost(50.0),
        )
        .of(&took)
        .above(&floor),
        Check::told("9", "the slowest of them", worst, "ms"),
    ])
}

/// Leaves a queue behind as a killed process does.
fn killed(folder: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("fill").arg(folder).args([JOBS.to_string(), SENT.to_string()]);
    let process = Process::start(folder, "fill", &mut command)?;
    let began = Instant::now();
    while !folder.join("filled").exists() {
        ensure!(
            began.elapsed() < PATIENCE,
            "the queue was not filled: {}",
            fs::read_to_string(folder.join("fill.err")).unwrap_or_default()
        );
        thread::sleep(Duration::from_millis(5));
    }
    process.kill();
    Ok(())
}
