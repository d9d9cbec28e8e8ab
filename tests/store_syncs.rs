//! How many syncs a job costs: counted by a VFS, and once more at the C library, where it also shows that SQLite was
//! built to use `fdatasync`.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use latchd::{
    model::Outcome,
    protocol::Position,
    queue::{Accepted, Queue},
    seams::Storage,
    store::{
        StoreError, Writer, WriterHandle,
        vfs::{CountingVfs, Counts, VfsError},
    },
};
use queue_support::*;

struct Bench {
    counts: Counts,
    handle: WriterHandle<Queue>,
    writer: Writer,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(vfs: &str) -> Self {
        let counts = CountingVfs::register(vfs).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path()).through(vfs);
        let Site { queue, folder, .. } = Site::at(folder, storage, |_| {});
        let (writer, handle) = Writer::start("queue", queue);
        Self { counts, handle, writer, _folder: folder }
    }

    /// Runs one operation and says how many syncs lay before its answer.
    async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Queue) -> Result<T, StoreError> + Send + 'static,
    ) -> (T, u64) {
        let before = self.counts.all_syncs();
        let answer = self.handle.run(operation).await.unwrap();
        (answer, self.counts.all_syncs() - before)
    }

    async fn accept(&self, number: u128, n: u64, may_send: bool) -> (Accepted, u64) {
        let position = Position { epoch: 1, n };
        let job = job(number, card(&["101"], &format!("stay {number}")));
        let admission = admission(&job.order);
        self.run(move |queue| queue.accept(at(0), Some(position), job, Ok(admission), may_send)).await
    }

    fn stop(self) {
        drop(self.handle);
        self.writer.join();
    }
}

#[tokio::test]
async fn one_sync_lies_between_a_jobs_arrival_and_its_first_byte_and_two_are_its_whole_price() {
    let bench = Bench::new("idle-lane");
    // The first commit of a fresh log also syncs the log's header.
    bench.accept(1, 1, true).await;
    bench.run(|queue| queue.finish(at(1), id(1), written())).await;
    for number in 2..12_u64 {
        let (accepted, syncs) = bench.accept(u128::from(number), number, true).await;
        assert!(matches!(accepted, Accepted::Sent(_)), "{accepted:?}");
        assert_eq!(syncs, 1, "before the first byte");
        let ((), syncs) = bench
            .run(move |queue| {
                queue.acknowledge_reports(Position { epoch: 1, n: number - 1 });
                queue.finish(at(1), id(u128::from(number)), written())
            })
            .await;
        assert_eq!(syncs, 1, "the outcome, its ledger rows, its report and the deletion of an older one");
    }
    bench.stop();
}

#[tokio::test]
async fn a_job_that_had_to_wait_costs_three() {
    let bench = Bench::new("busy-lane");
    bench.accept(1, 1, true).await;
    let before = bench.counts.all_syncs();
    assert_eq!(bench.accept(2, 2, false).await.0, Accepted::Waiting);
    let (claimed, _) = bench
        .run(|queue| {
            queue.finish(at(1), id(1), written())?;
            queue.claim(at(1), &lane("1"))
        })
        .await;
    assert_eq!(claimed.unwrap().job.job_id, id(2));
    bench.run(|queue| queue.finish(at(2), id(2), written())).await;
    assert_eq!(bench.counts.all_syncs() - before, 3);
    bench.stop();
}

#[tokio::test]
async fn what_changes_nothing_costs_nothing() {
    let bench = Bench::new("no-change");
    bench.accept(1, 1, true).await;
    bench.run(|queue| queue.finish(at(1), id(1), written())).await;
    let (accepted, syncs) = bench.accept(1, 1, true).await;
    assert_eq!((accepted, syncs), (Accepted::Duplicate, 0));
    let acknowledge = |queue: &mut Queue| {
        queue.acknowledge_reports(Position { epoch: 1, n: 1 });
        Ok(())
    };
    assert_eq!(bench.run(acknowledge).await.1, 0, "an acknowledgement has no commit of its own");
    assert_eq!(bench.run(|queue| queue.claim(at(2), &lane("1"))).await, (None, 0));
    assert_eq!(bench.run(|queue| queue.expire(at(2))).await.1, 0);
    assert_eq!(bench.run(|queue| queue.memory()).await.1, 0);
    bench.stop();
}

#[tokio::test]
async fn a_commit_goes_to_the_log_and_leaves_the_file_alone() {
    let bench = Bench::new("per-file");
    bench.accept(1, 1, true).await;
    let counted =
        |counts: &Counts| ["queue.db", "queue.db-wal"].map(|file| (counts.syncs(file), counts.writes(file)));
    let [file, log] = counted(&bench.counts);
    bench.run(|queue| queue.finish(at(1), id(1), written())).await;
    let [file_after, log_after] = counted(&bench.counts);
    assert_eq!(file_after, file);
    assert_eq!(log_after.0, log.0 + 1);
    assert_eq!(log_after.1, log.1 + 1, "all pages in one write");
    bench.stop();
}

#[tokio::test]
async fn jobs_that_come_together_share_their_syncs() {
    let bench = Bench::new("group");
    bench.accept(1000, 1, true).await;
    let before = bench.counts.all_syncs();
    let answers: Vec<_> = (0..50_u64)
        .map(|number| {
            let job = job(u128::from(number), read());
            let admission = admission(&job.order);
            let position = Position { epoch: 1, n: number + 2 };
            bench.handle.submit(move |queue| queue.accept(at(0), Some(position), job, Ok(admission), false))
        })
        .collect();
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap(), Accepted::Waiting);
    }
    let syncs = bench.counts.all_syncs() - before;
    assert!(syncs < 50, "{syncs}");
    bench.stop();
}

#[test]
fn a_name_is_given_to_one_vfs_only() {
    CountingVfs::register("twice").unwrap();
    assert_eq!(CountingVfs::register("twice").unwrap_err(), VfsError::Taken);
    assert_eq!(CountingVfs::register("a\0b").unwrap_err(), VfsError::Name);
}

#[test]
fn sqlite_was_built_to_count_no_memory() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    let mut options = connection.prepare("PRAGMA compile_options").unwrap();
    let options: Vec<String> = options.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(options.iter().any(|option| option == "DEFAULT_MEMSTATUS=0"), "{options:?}");
}

/// Counts `fsync` and `fdatasync` of a process and writes both numbers to a file when it ends.
const PRELOAD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static _Atomic long syncs, datasyncs;

int fsync(int file) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    syncs++;
    return next(file);
}

int fdatasync(int file) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    datasyncs++;
    return next(file);
}

__attribute__((destructor)) static void tell(void) {
    const char *path = getenv("SYNCS_TOLD_IN");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld %ld", syncs, datasyncs);
    fclose(file);
}
"#;

const JOBS: &str = "SYNCS_JOBS";

#[test]
#[cfg(target_os = "linux")]
fn at_the_c_library_a_job_is_two_fdatasyncs_and_no_fsync() {
    let folder = tempfile::tempdir().unwrap();
    let library = compile(folder.path());
    let (of_few, few) = count(&library, folder.path(), 10);
    let (of_many, many) = count(&library, folder.path(), 40);
    assert_eq!(many - few, 2 * 30, "two per job");
    // Making the file syncs the names in its folder; what is left would be SQLite's.
    assert_eq!(
        of_many, of_few,
        "SQLite was built without HAVE_FDATASYNC: build inside the repository's folder"
    );
}

/// Not a test of its own: the process whose syncs are counted.
#[test]
fn works_off_the_jobs_it_was_told_to() {
    let Ok(jobs) = std::env::var(JOBS) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let Site { queue, folder, .. } = Site::new();
        let (writer, handle) = Writer::start("queue", queue);
        for number in 0..jobs.parse().unwrap() {
            let job = job(number, card(&["101"], &format!("stay {number}")));
            let admission = admission(&job.order);
            let accepted = handle
                .run(move |queue: &mut Queue| queue.accept(at(0), None, job, Ok(admission), true))
                .await
                .unwrap();
            assert!(matches!(accepted, Accepted::Sent(_)));
            let outcome: Outcome = written();
            handle.run(move |queue: &mut Queue| queue.finish(at(1), id(number), outcome)).await.unwrap();
        }
        drop(handle);
        writer.join();
        drop(folder);
    });
}

fn compile(folder: &Path) -> PathBuf {
    let source = folder.join("syncs.c");
    let library = folder.join("libsyncs.so");
    std::fs::write(&source, PRELOAD).unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let compiled = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .unwrap_or_else(|error| panic!("run the C compiler {compiler}: {error}"));
    assert!(compiled.success(), "{compiler} failed");
    library
}

fn count(library: &Path, folder: &Path, jobs: u32) -> (u64, u64) {
    let told = folder.join(format!("{jobs}.txt"));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "works_off_the_jobs_it_was_told_to"])
        .env("LD_PRELOAD", library)
        .env("SYNCS_TOLD_IN", &told)
        .env(JOBS, jobs.to_string())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let text = std::fs::read_to_string(told).unwrap();
    let (syncs, datasyncs) = text.split_once(' ').unwrap();
    (syncs.parse().unwrap(), datasyncs.parse().unwrap())
}
