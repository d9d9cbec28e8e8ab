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
    queue::{Accepted, FILE, Queue},
    seams::Storage,
    store::{Writer, examine_aside, was_left_open},
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
    let (mut beside, mut look) = (Samples::default(), Samples::default());
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
        let reader = latchd::store::open_reader(&Storage::folder(copy.path()), FILE)?;
        reader.query_row("SELECT reports_n FROM memory", [], |row| row.get::<_, i64>(0))?;
        floor.push(began.elapsed());
        drop(reader);

        took.push(first_claim(scratch.path(), |_| ())?.0);

        // A file that was left open is looked through on a thread of its own meanwhile.
        let scratch = options.scratch()?;
        killed(scratch.path())?;
        ensure!(
            was_left_open(&Storage::folder(scratch.path()), FILE),
            "the killed process had folded its log"
        );
        let (claimed, found) =
            first_claim(scratch.path(), |storage| (Instant::now(), examine_aside(storage, FILE)))?;
        beside.push(claimed);
        let (began, found) = found;
        ensure!(found.blocking_recv().is_err(), "damage was found");
        look.push(began.elapsed());
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
        Check::new(
            "9",
            "the same, while the file is looked through for damage",
            beside.p50() / 1000.0,
            "ms",
            // Two threads, and a busy machine may give all its time to the other one.
            if options.quick { Goal::Told } else { Goal::AtMost(50.0) },
        )
        .of(&beside),
        Check::told(
            "9",
            "how long it was looked through, with the work done meanwhile",
            look.p50() / 1000.0,
            "ms",
        ),
    ])
}

/// Opens what a killed process left, starts something beside it, settles what was at work and claims a job.
fn first_claim<T>(folder: &Path, aside: impl FnOnce(Storage) -> T) -> anyhow::Result<(Duration, T)> {
    let now = Timestamp::now();
    let began = Instant::now();
    let queue = jobs::open(folder)?;
    let aside = aside(Storage::folder(folder));
    let (writer, queue) = Writer::start("queue", queue);
    let (recovered, claimed) = runtime()?.block_on(async {
        let recovered = queue.run(move |queue: &mut Queue| queue.recover(now)).await?;
        let claimed = queue.run(move |queue: &mut Queue| queue.claim(now, &lane(1))).await?;
        anyhow::Ok((recovered, claimed))
    })?;
    let took = began.elapsed();
    ensure!(recovered.len() as u64 == SENT, "{} jobs were at work", recovered.len());
    ensure!(claimed.is_some_and(|claimed| claimed.job.job_id == job_id(1)), "the first job was claimed");
    drop(queue);
    writer.join();
    Ok((took, aside))
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
