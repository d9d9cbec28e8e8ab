//! apalis-sqlite on the work that `bench scenario peers` gives to every queue. Prints one line of JSON.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use apalis::prelude::*;
use apalis_sqlite::{SqliteConnectOptions, SqlitePool, SqliteStorage};
use serde_json::json;

static LEFT: AtomicU64 = AtomicU64::new(0);

async fn done(_card: String, worker: WorkerContext) -> Result<(), BoxDynError> {
    if LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        worker.stop()?;
    }
    Ok(())
}

async fn add(storage: &mut SqliteStorage<String>) {
    storage.push("x".repeat(600)).await.expect("a job is stored");
}

async fn add_many(storage: &SqliteStorage<String>, jobs: u64, waiting: u64) {
    let producers = (0..waiting).map(|_| {
        let mut storage = storage.clone();
        tokio::spawn(async move {
            for _ in 0..jobs / waiting {
                add(&mut storage).await;
            }
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await.expect("a producer ends");
    }
}

async fn worked_off(storage: &SqliteStorage<String>, name: &str, more: u64, jobs: u64, workers: usize) -> f64 {
    LEFT.store(more + jobs, Ordering::SeqCst);
    let mut adding = storage.clone();
    adding.push_bulk(vec!["x".repeat(600); jobs as usize]).await.expect("jobs are stored");
    let began = Instant::now();
    let worker = WorkerBuilder::new(name).backend(storage.clone()).concurrency(workers).build(done);
    worker.run().await.expect("a worker");
    (more + jobs) as f64 / began.elapsed().as_secs_f64()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, mode, jobs] = &arguments[..] else { panic!("peer-apalis-sqlite FOLDER MODE JOBS") };
    let file = Path::new(folder).join("queue.db");
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let mut pool = SqlitePool::connect_with(options.clone()).await.expect("a pool");
    SqliteStorage::setup(&pool).await.expect("a schema");
    if mode == "durable" {
        // `setup` lowers the durability of whichever connection it got; these have never met it.
        pool.close().await;
        pool = SqlitePool::connect_with(options.pragma("synchronous", "FULL")).await.expect("a pool");
    }
    let mut storage = SqliteStorage::<String>::new(&pool);
    let jobs: u64 = jobs.parse().expect("a number");
    if jobs > 0 {
        // Only these, so that what they cost can be counted from outside.
        for _ in 0..jobs {
            add(&mut storage).await;
        }
        return;
    }
    for _ in 0..200 {
        add(&mut storage).await;
    }
    let mut took = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        add(&mut storage).await;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let began = Instant::now();
    add_many(&storage, 640, 64).await;
    let waiting = 640.0 / began.elapsed().as_secs_f64();
    // What was put in above is worked off on the way.
    let one = worked_off(&storage, "one", 200 + 500 + 640, 0, 1).await;
    let many = worked_off(&storage, "many", 0, 1_024, 64).await;
    println!(
        "{}",
        json!({
            "peer": "apalis-sqlite 1.0.0", "enqueue_p50_us": took[250].as_secs_f64() * 1e6,
            "enqueue_64_per_s": waiting, "cycles_1_per_s": one, "cycles_64_per_s": many,
        })
    );
    std::process::exit(0);
}
