//! effectum on the work that `bench scenario peers` gives to every queue. Prints one line of JSON.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use effectum::{Error, Job, JobRunner, Queue, RunningJob, Worker};
use serde_json::json;
use tokio::sync::Notify;

#[derive(Debug)]
struct Done {
    left: AtomicU64,
    all: Notify,
}

async fn done(_job: RunningJob, context: Arc<Done>) -> Result<(), Error> {
    if context.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        context.all.notify_one();
    }
    Ok(())
}

async fn add(queue: &Queue) {
    let payload = "x".repeat(600).into_bytes();
    Job::builder("card").payload(payload).add_to(queue).await.expect("a job is stored");
}

async fn add_many(queue: &Arc<Queue>, jobs: u64, waiting: u64) {
    let producers = (0..waiting).map(|_| {
        let queue = Arc::clone(queue);
        tokio::spawn(async move {
            for _ in 0..jobs / waiting {
                add(&queue).await;
            }
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await.expect("a producer ends");
    }
}

async fn worked_off(queue: &Arc<Queue>, jobs: u64, workers: u16) -> f64 {
    let done_all = Arc::new(Done { left: AtomicU64::new(jobs), all: Notify::new() });
    add_many(queue, jobs, 64).await;
    let began = Instant::now();
    let worker = Worker::builder(queue, Arc::clone(&done_all))
        .max_concurrency(workers)
        .jobs([JobRunner::builder("card", done).build()])
        .build()
        .await
        .expect("a worker");
    done_all.all.notified().await;
    let rate = jobs as f64 / began.elapsed().as_secs_f64();
    worker.unregister(Some(Duration::from_secs(10))).await.expect("the worker ends");
    rate
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, _mode, jobs] = &arguments[..] else { panic!("peer-effectum FOLDER MODE JOBS") };
    let queue = Arc::new(Queue::new(&Path::new(folder).join("queue.db")).await.expect("a queue"));
    let jobs: u64 = jobs.parse().expect("a number");
    if jobs > 0 {
        // Only these, so that what they cost can be counted from outside.
        for _ in 0..jobs {
            add(&queue).await;
        }
        return;
    }
    for _ in 0..200 {
        add(&queue).await;
    }
    let mut took = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        add(&queue).await;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let began = Instant::now();
    add_many(&queue, 3_200, 64).await;
    let waiting = 3_200.0 / began.elapsed().as_secs_f64();
    // What was put in above is worked off first, so that each measured worker has its own jobs.
    worked_off(&queue, 64, 64).await;
    let (one, many) = (worked_off(&queue, 512, 1).await, worked_off(&queue, 1_024, 64).await);
    println!(
        "{}",
        json!({
            "peer": "effectum 0.7.0", "enqueue_p50_us": took[250].as_secs_f64() * 1e6,
            "enqueue_64_per_s": waiting, "cycles_1_per_s": one, "cycles_64_per_s": many,
        })
    );
    std::process::exit(0);
}
