//! What a job costs in the database alone, without its syncs: CPU time and pages of the log. There is no goal; it is the
//! number to look at when a change is judged, because no disk and little of the machine's other work is in it.

use std::{path::Path, time::Instant};

use jiff::{SignedDuration, Timestamp};
use latchd::{
    model::{Admission, Order},
    protocol::Position,
    queue::{Accepted, Queue},
    store::Store,
};

use crate::{
    Options,
    jobs::{self, admission, commit, job_id},
    judge::{Check, Samples},
};

/// Jobs that are over before anything is measured: every index has some height.
const PAST: u64 = 2_000;
/// Jobs a round.
const JOBS: u64 = 2_000;
/// Transactions whose pages are counted.
const COUNTED: u64 = 200;
/// Orders that share a commit.
const TOGETHER: u64 = 64;
/// A page of the log, with its header.
const FRAME: f64 = 4096.0 + 24.0;

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    let scratch = options.scratch()?;
    let now = Timestamp::now();
    let mut queue = jobs::open(scratch.path())?;
    queue.connection().execute_batch("PRAGMA synchronous = OFF")?;
    let mut site = Site { queue, now, n: 0 };
    let mut past = Cost::default();
    while site.n < PAST {
        site.job(&mut past)?;
    }
    // The log is long enough now to be written over, as it is at a site; its length says nothing any more.
    let mut all = Cost::default();
    for _ in 0..options.rounds {
        for _ in 0..JOBS {
            site.job(&mut all)?;
        }
        for _ in 0..JOBS / TOGETHER {
            site.wait(&mut all)?;
        }
    }
    site.queue.connection().execute_batch("PRAGMA wal_autocheckpoint = 0")?;
    site.fold()?;
    for _ in 0..COUNTED {
        site.job(&mut past)?;
    }
    let job_pages = pages(scratch.path())? / COUNTED as f64;
    site.fold()?;
    for _ in 0..COUNTED {
        site.wait(&mut past)?;
    }
    let wait_pages = pages(scratch.path())? / COUNTED as f64;
    Ok(vec![
        Check::told("-", "order and mark of a card", all.sent.p50(), "us"),
        Check::told("-", "its end, with the acknowledgement of the one before", all.ended.p50(), "us"),
        Check::told("-", "pages of the log for both", job_pages, ""),
        Check::told(
            "-",
            format!("an order that waits, one of {TOGETHER} in a commit"),
            all.waited.p50() / TOGETHER as f64,
            "us",
        ),
        Check::told("-", format!("pages of the log for {TOGETHER} of them"), wait_pages, ""),
    ])
}

#[derive(Default)]
struct Cost {
    sent: Samples,
    ended: Samples,
    waited: Samples,
}

struct Site {
    queue: Queue,
    now: Timestamp,
    n: u64,
}

impl Site {
    /// One card of 180 an hour.
    fn job(&mut self, cost: &mut Cost) -> anyhow::Result<()> {
        self.n += 1;
        self.now += SignedDuration::from_secs(20);
        let Self { queue, now, n } = self;
        let (now, number, position) = (*now, *n, Position { epoch: 1, n: *n });
        let job = jobs::card("bench", number, now);
        let rooms = match &job.order {
            Order::CardEncode(card) => card.doors.clone(),
            _ => Vec::new(),
        };
        let admission = Admission { rooms, ..admission(1) };
        let began = Instant::now();
        let accepted = commit(queue, |queue| queue.accept(now, Some(position), job, Ok(admission), true))?;
        cost.sent.push(began.elapsed());
        anyhow::ensure!(matches!(accepted, Accepted::Sent(_)), "{accepted:?}");
        let began = Instant::now();
        commit(queue, |queue| queue.finish(now, job_id(number), jobs::done()))?;
        cost.ended.push(began.elapsed());
        let reports = queue.memory()?.reports.last;
        queue.acknowledge_reports(reports);
        Ok(())
    }

    fn wait(&mut self, cost: &mut Cost) -> anyhow::Result<()> {
        let Self { queue, now, n } = self;
        let now = *now;
        let orders: Vec<_> = (*n + 1..=*n + TOGETHER).map(|n| (n, jobs::read("bench", n, now))).collect();
        *n += TOGETHER;
        let began = Instant::now();
        commit(queue, |queue| {
            for (n, job) in orders {
                queue.accept(now, Some(Position { epoch: 1, n }), job, Ok(admission(2)), false)?;
            }
            Ok(())
        })?;
        cost.waited.push(began.elapsed());
        Ok(())
    }

    fn fold(&mut self) -> anyhow::Result<()> {
        self.queue.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

fn pages(folder: &Path) -> anyhow::Result<f64> {
    let log = folder.join(format!("{}-wal", latchd::queue::FILE));
    Ok(std::fs::metadata(log)?.len() as f64 / FRAME)
}
