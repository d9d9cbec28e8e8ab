//! A disk that is full: what runs is recorded in the room that was kept, nothing new is taken, and it goes on by itself
//! once there is room again.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use std::{
    fs,
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use latchd::{
    model::JobState,
    queue::{Accepted, Queue},
    seams::Storage,
    store::{Disk, Reserve, StoreError, Writer, WriterHandle, vfs::CountingVfs},
};
use queue_support::*;

const MIB: u64 = 1024 * 1024;
const RESERVE: u64 = 2 * MIB;
const FOLDER: &str = "DISK_TO_BE_FILLED";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Tries again for as long as an operation fails, as those do that have an end to record.
async fn until_stored<T: Send + 'static>(
    handle: &WriterHandle<Queue>,
    operation: impl Fn(&mut Queue) -> Result<T, StoreError> + Clone + Send + 'static,
) -> (T, u32) {
    let give_up = Instant::now() + Duration::from_secs(20);
    let mut failures = 0;
    loop {
        match handle.run(operation.clone()).await {
            Ok(done) => return (done, failures),
            Err(error) => {
                failures += 1;
                assert!(Instant::now() < give_up, "{}", error.chain());
            }
        }
    }
}

/// The story, on any disk that `fill` fills to the brim with a file that is given back.
fn a_disk_runs_full_and_is_freed(storage: &Storage, fill: impl Fn() -> std::path::PathBuf) {
    runtime().block_on(async {
        let reserve = Reserve::new(storage.clone(), RESERVE);
        let (writer, handle) = Writer::start_with("queue", open(storage, &rules()), Some(reserve));
        let mut health = handle.health();
        let take = |number: u128| {
            let room = format!("{number}");
            let job = job(number, card_at("1", &[&room], &room));
            let admission = admission(&job.order);
            move |queue: &mut Queue| queue.accept(at(1), None, job.clone(), Ok(admission.clone()), true)
        };
        for number in 1..=40 {
            assert!(matches!(handle.run(take(number)).await.unwrap(), Accepted::Sent(_)));
        }
        assert_eq!(fs::metadata(storage.file("reserve")).unwrap().len(), RESERVE);
        assert_eq!(health.borrow_and_update().disk, Disk::Room);
        let held = handle.run(|queue: &mut Queue| queue.orders_limit(0)).await.unwrap();

        let filler = fill();
        // Each end is told as stored only once it is; the first that finds no room is the one that gives it free.
        let mut failures = 0;
        for number in 1..=40 {
            let end = move |queue: &mut Queue| queue.finish(at(2), id(number), written());
            failures += until_stored(&handle, end).await.1;
        }
        assert!(failures > 0, "the disk was never full");
        assert_eq!(health.borrow_and_update().disk, Disk::Full);
        assert!(!storage.file("reserve").exists());
        // The rest of the outbox is free of gaps, and the ends are there for another connection.
        let seen = latchd::queue::QueueReader::open(storage, key(), random(), rules()).unwrap();
        for number in 1..=40 {
            assert_eq!(seen.job(id(number)).unwrap().unwrap().view.state, JobState::Succeeded);
        }
        drop(seen);

        // Nothing new: not by order, not at the desk; and the cloud is told to keep what it has.
        let refused = handle.run(take(41)).await.unwrap_err();
        assert!(matches!(refused, StoreError::DiskFull), "{refused}");
        let limit = handle.run(|queue: &mut Queue| queue.orders_limit(32)).await.unwrap();
        assert_eq!(limit, held);
        assert_eq!(handle.run(|queue: &mut Queue| queue.job(id(41))).await.unwrap(), None);

        fs::remove_file(filler).unwrap();
        let room = health.wait_for(|health| health.disk == Disk::Room);
        tokio::time::timeout(Duration::from_secs(20), room).await.expect("room is noticed").unwrap();
        assert_eq!(fs::metadata(storage.file("reserve")).unwrap().len(), RESERVE);
        assert!(matches!(handle.run(take(41)).await.unwrap(), Accepted::Sent(_)));
        drop(handle);
        writer.join();
    });
}

fn random() -> latchd::seams::Random {
    latchd::seams::Random::seeded(7)
}

fn key() -> latchd::seal::SealKey {
    latchd::seal::SealKey::new([7; 32], random())
}

#[test]
fn ends_are_recorded_on_a_full_disk_and_nothing_new_is_taken_until_there_is_room() {
    let counts = CountingVfs::register("quota").unwrap();
    let folder = tempfile::tempdir().unwrap();
    counts.limit(folder.path(), 8 * MIB);
    let free = counts.clone();
    let storage = Storage::folder(folder.path()).through("quota").with_free(move || free.free());
    a_disk_runs_full_and_is_freed(&storage, || {
        let filler = folder.path().join("filler");
        fs::write(&filler, vec![1; usize::try_from(counts.free()).unwrap()]).unwrap();
        assert_eq!(counts.free(), 0);
        filler
    });
}

#[test]
fn a_disk_that_is_full_from_the_beginning_is_known_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::folder(folder.path()).with_free(|| RESERVE);
    let reserve = Reserve::new(storage.clone(), RESERVE);
    let (writer, handle) = Writer::start_with("queue", open(&storage, &rules()), Some(reserve));
    runtime().block_on(async {
        let take = |queue: &mut Queue| {
            let job = job(1, read());
            let admission = admission(&job.order);
            queue.accept(at(1), None, job, Ok(admission), true)
        };
        assert!(matches!(handle.run(take).await, Err(StoreError::DiskFull)));
        assert_eq!(handle.health().borrow().disk, Disk::Full);
    });
    drop(handle);
    writer.join();
}

#[test]
fn a_real_file_system_that_is_full_is_no_different() {
    let folder = tempfile::tempdir().unwrap();
    // A mount of its own in a namespace of its own, gone with the process.
    let mut command = Command::new("unshare");
    command
        .args([
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs -o size=12m tmpfs \"$0\" && exec \"$@\"",
        ])
        .arg(folder.path());
    let can = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs tmpfs \"$0\""])
        .arg(folder.path())
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("LATCHD_NO_SKIPS").is_none(), "missing: unshare and mount");
        println!("missing: unshare and mount");
        return;
    }
    let output = command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "fills_the_disk_it_is_given", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}{output:?}");
}

/// Not a test of its own: the process that has a small file system to itself.
#[test]
fn fills_the_disk_it_is_given() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    a_disk_runs_full_and_is_freed(&Storage::folder(folder), || {
        let filler = folder.join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        filler
    });
}
