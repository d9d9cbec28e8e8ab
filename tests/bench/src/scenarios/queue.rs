//! Row 6: durable orders a second with 64 of them waiting, for each sync that the disk can do alone. Row 7: the claim
//! with a long queue, and with a long past, against a short one.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use latchd::{
    protocol::Position,
    queue::{Accepted, Queue},
    store::{StoreError, Writer, WriterHandle},
};
use serde::{Deserialize, Serialize};

use super::runtime;
use crate::{
    Options,
    floor::Disk,
    jobs::{self, admission, commit, job_id, lane, multiply, unsynced},
    judge::{self, Check, Goal, Paired, Samples, Verdict},
    preload::Preload,
};

/// Orders that wait at the same time.
const WAITING: usize = 64;
/// Orders a round.
const ORDERS: u64 = 6_400;
/// Claims between two turns.
const BLOCK: u64 = 200;

/// Syncs a second of the disk that the goals were set with.
const SYNCS_OF_GOALS: f64 = 5_500.0;

pub fn run(options: &Options) -> anyhow::Result<Verdict> {
    if options.disk_of_goals {
        return judge::attempts("queue: orders, on a disk as the goals were set with", || {
            let scratch = options.scratch()?;
            let delay = delay_of_goals(scratch.path())?;
            let mut checks = checks(&Orders::of_process(scratch.path(), options.rounds, delay)?);
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            checks.push(Check::told("6", "added to every sync, the floor's too", delay as f64, "us"));
            Ok(checks)
        });
    }
    let mut orders = judge::attempts("queue: orders", || {
        let scratch = options.scratch()?;
        Ok(checks(&runtime()?.block_on(orders(scratch.path(), options.rounds))?))
    })?;
    let claims = run_claims(options)?;
    orders.met &= claims.met;
    orders.attempts = orders.attempts.max(claims.attempts);
    orders.checks.extend(claims.checks);
    Ok(Verdict { scenario: "queue".into(), ..orders })
}

/// What was measured, by round.
#[derive(Default, Serialize, Deserialize)]
struct Orders {
    /// Durable writes of the disk a second.
    syncs: Vec<f64>,
    /// Orders a second.
    rates: Vec<f64>,
    /// One order at a time: the median of the disk, and of the queue, in microseconds.
    single: Vec<(f64, f64)>,
}

impl Orders {
    /// Measures in a process of its own, whose syncs take longer.
    fn of_process(scratch: &Path, rounds: usize, delay_us: u64) -> anyhow::Result<Self> {
        let preload = Preload::new(scratch, delay_us)?;
        let folder = tempfile::tempdir_in(scratch)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("orders").arg(folder.path()).arg(rounds.to_string());
        let told = preload.under(&mut command).output()?;
        anyhow::ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        Ok(serde_json::from_slice(&told.stdout)?)
    }
}

/// Measures in this process, and prints what was measured for another.
pub fn tell_orders(folder: &Path, rounds: usize) -> anyhow::Result<()> {
    let measured = runtime()?.block_on(orders(folder, rounds))?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// What every sync has to take longer for the disk to be the one of the goals. A sleep takes longer than it was told to,
/// so what is found is tried.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number, and not below zero"
)]
fn delay_of_goals(scratch: &Path) -> anyhow::Result<u64> {
    let mut delay = 0.0_f64;
    for _ in 0..3 {
        let measured = Orders::of_process(scratch, 1, delay as u64)?;
        delay = (delay + 1e6 / SYNCS_OF_GOALS - 1e6 / judge::median(&measured.syncs)).max(0.0);
    }
    Ok(delay as u64)
}

async fn orders(folder: &Path, rounds: usize) -> anyhow::Result<Orders> {
    let mut disk = Disk::new(folder)?;
    let (writer, handle) = Writer::start("queue", jobs::open(folder)?);
    let mut taker = Taker::new(handle);
    taker.take(ORDERS, WAITING).await?;
    disk.block(200)?;
    let mut measured = Orders::default();
    for _ in 0..rounds {
        let mut floor = Samples::default();
        let (mut syncing, mut taking) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..4 {
            let took = disk.block(200)?;
            syncing += took.iter().sum::<Duration>();
            floor.extend(took);
            let began = Instant::now();
            taker.take(ORDERS / 4, WAITING).await?;
            taking += began.elapsed();
        }
        measured.rates.push(ORDERS as f64 / taking.as_secs_f64());
        measured.syncs.push(800.0 / syncing.as_secs_f64());
        let mut alone = Samples::default();
        alone.extend(taker.take(400, 1).await?);
        measured.single.push((floor.p50(), alone.p50()));
    }
    drop(taker);
    writer.join();
    Ok(measured)
}

fn checks(measured: &Orders) -> Vec<Check> {
    let Orders { syncs, rates, single } = measured;
    let ratios: Vec<f64> = rates.iter().zip(syncs).map(|(rate, syncs)| rate / syncs).collect();
    let singles: Vec<f64> = single.iter().map(|(floor, alone)| alone / floor).collect();
    let told = |what: &str, numbers: &[f64], unit| Check {
        range: judge::range(numbers),
        ..Check::told("6", what, judge::median(numbers), unit)
    };
    vec![
        Check {
            range: judge::range(&ratios),
            ..Check::new(
                "6",
                format!("durable orders, {WAITING} waiting, per sync of the disk"),
                judge::median(&ratios),
                "x",
                Goal::AtLeast(10.0),
            )
        },
        told("the same, a second", rates, "/s"),
        told("syncs of the disk, a second", syncs, "/s"),
        told("one durable order at a time, against one durable write", &singles, "x"),
    ]
}

/// Puts orders into a queue.
pub struct Taker {
    handle: WriterHandle<Queue>,
    n: u64,
    now: Timestamp,
}

impl Taker {
    pub fn new(handle: WriterHandle<Queue>) -> Self {
        Self { handle, n: 0, now: Timestamp::now() }
    }

    /// Takes orders as the dispatcher does, one stream, so many of them waiting for their commit; how long each waited.
    /// They are readings, which touch no room and count for no limit.
    pub async fn take(&mut self, orders: u64, waiting: usize) -> anyhow::Result<Vec<Duration>> {
        let mut took = Vec::new();
        let mut answers = FuturesUnordered::new();
        let until = self.n + orders;
        while self.n < until || !answers.is_empty() {
            while self.n < until && answers.len() < waiting {
                self.n += 1;
                let (now, n) = (self.now, self.n);
                let job = jobs::read("bench", n, now);
                let began = Instant::now();
                let admission = admission(1);
                let answer = self.handle.submit_soon(move |queue: &mut Queue| {
                    let position = Some(Position { epoch: 1, n });
                    queue.accept(now, position, job.clone(), Ok(admission.clone()), false)
                });
                answers.push(async move {
                    let accepted = answer.await.unwrap_or(Err(StoreError::Stopped));
                    accepted.map(|accepted| (accepted, began.elapsed()))
                });
            }
            if let Some(answer) = answers.next().await {
                let (accepted, elapsed) = answer?;
                anyhow::ensure!(accepted == Accepted::Waiting, "{accepted:?}");
                took.push(elapsed);
            }
        }
        Ok(took)
    }
}

/// Row 7 alone.
pub fn run_claims(options: &Options) -> anyhow::Result<Verdict> {
    let scratch = options.scratch()?;
    let now = Timestamp::now();
    // Enough for three attempts, durable and not.
    let claims = 6 * options.rounds as u64 * BLOCK;
    let most: u64 = if options.quick { 200_000 } else { 1_000_000 };
    let fill = |name: &str, waiting: u64, finished: u64| -> anyhow::Result<Queue> {
        let folder = scratch.path().join(name);
        std::fs::create_dir(&folder)?;
        filled(&folder, now, claims, waiting, finished)
    };
    let mut short = fill("short", 1_000, 0)?;
    let thousands = most / 1000;
    let mut long = [
        ("100k waiting".to_owned(), fill("hundred", 100_000, 0)?),
        (format!("{thousands}k waiting"), fill("most", most, 0)?),
        (format!("1k waiting and {thousands}k over"), fill("past", 1_000, most)?),
    ];
    judge::attempts("queue: claims", || {
        let mut checks = Vec::new();
        for durable in [true, false] {
            let synchronous = if durable { "FULL" } else { "OFF" };
            for queue in std::iter::once(&mut short).chain(long.iter_mut().map(|(_, queue)| queue)) {
                latchd::store::Store::connection(queue)
                    .execute_batch(&format!("PRAGMA synchronous = {synchronous}"))?;
            }
            let mut paired: Vec<Paired> = long.iter().map(|_| Paired::default()).collect();
            for _ in 0..options.rounds {
                let floor = claim(&mut short, now, BLOCK)?;
                for ((_, queue), paired) in long.iter_mut().zip(&mut paired) {
                    paired.round(floor.clone(), claim(queue, now, BLOCK)?);
                }
            }
            for ((name, _), paired) in long.iter().zip(&paired) {
                checks.push(if durable {
                    paired.check("7", format!("claim with {name}, against 1k waiting"), Goal::AtMost(1.3))
                } else {
                    paired.check("7", format!("the same without its sync, {name}"), Goal::Told)
                });
            }
        }
        Ok(checks)
    })
}

/// A queue whose first jobs can be claimed, with so many waiting behind them and so many that are over.
fn filled(folder: &Path, now: Timestamp, claims: u64, waiting: u64, finished: u64) -> anyhow::Result<Queue> {
    let mut queue = jobs::open(folder)?;
    unsynced(&mut queue, |queue| {
        commit(queue, |queue| {
            for number in 1..=claims + 1 {
                queue.accept(now, None, jobs::read("bench", number, now), Ok(admission(1)), false)?;
            }
            Ok(())
        })?;
        if finished > 0 {
            let over = commit(queue, |queue| {
                let claimed = queue.claim(now, &lane(1))?.expect("there are jobs");
                queue.finish(now, claimed.job.job_id, jobs::done())?;
                Ok(claimed.job.job_id)
            })?;
            multiply(queue, over, finished)?;
        }
        multiply(queue, job_id(claims + 1), waiting)
    })?;
    Ok(queue)
}

/// Claims, and ends what was claimed; only the claims are timed.
fn claim(queue: &mut Queue, now: Timestamp, claims: u64) -> anyhow::Result<Samples> {
    let mut took = Samples::default();
    for _ in 0..claims {
        let began = Instant::now();
        let claimed = commit(queue, |queue| queue.claim(now, &lane(1)))?;
        took.push(began.elapsed());
        let claimed = claimed.ok_or_else(|| anyhow::anyhow!("nothing was left to claim"))?;
        commit(queue, |queue| queue.finish(now, claimed.job.job_id, jobs::done()))?;
    }
    Ok(took)
}
