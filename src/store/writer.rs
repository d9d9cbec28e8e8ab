//! The writer thread: group commit, and answers only after it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::{
    sync::{mpsc as task_mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{Disk, Health, Reserve, Store, StoreError, health::Watched, reserve::LOOK_AGAIN};
use crate::seams;

/// At most this many operations share a commit, so that nobody waits behind an endless queue.
const GROUP: usize = 256;
/// And no commit is put off for longer than this.
const GATHER: Duration = Duration::from_millis(5);
/// After this long without work the log is folded back into the file.
const IDLE: Duration = Duration::from_secs(3);

/// Runs one operation inside the open transaction; what it gives back is called with the commit's fate.
type Operation<S> = Box<dyn FnOnce(&mut S, &mut Seen, Turn) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), &str>) + Send>;

/// The thread around a store. It ends, with its queue worked off, when the last handle is gone.
#[derive(Debug)]
pub struct Writer {
    thread: thread::JoinHandle<()>,
}

/// A way to the store. Cheap to clone.
pub struct WriterHandle<S> {
    operations: Way<S>,
    watched: Watched,
}

enum Way<S> {
    Thread(mpsc::Sender<Operation<S>>),
    Task(task_mpsc::UnboundedSender<Operation<S>>),
}

impl<S> Clone for Way<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Thread(sender) => Self::Thread(sender.clone()),
            Self::Task(sender) => Self::Task(sender.clone()),
        }
    }
}

impl<S> Clone for WriterHandle<S> {
    fn clone(&self) -> Self {
        Self { operations: self.operations.clone(), watched: self.watched.clone() }
    }
}

impl<S> std::fmt::Debug for WriterHandle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriterHandle")
    }
}

impl Writer {
    /// Moves a store onto a thread of its own.
    pub fn start<S: Store>(name: &str, store: S) -> (Self, WriterHandle<S>) {
        Self::start_with(name, store, None)
    }

    /// The same, with room on the disk that is kept for work that is under way when the disk is full.
    pub fn start_with<S: Store>(name: &str, store: S, reserve: Option<Reserve>) -> (Self, WriterHandle<S>) {
        let (sender, operations) = mpsc::channel();
        let watched = Watched::default();
        let mut work = Work { store, reserve, watched: watched.clone() };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work.run(&operations))
            .expect("the operating system gives a thread at start");
        (Self { thread }, WriterHandle { operations: Way::Thread(sender), watched })
    }

    /// Does the same work in a task of the current runtime, for simulations: no thread takes part whose pace the seed
    /// does not decide. Every commit's answers are held back for as long as `pace` says a sync takes.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn simulated<S: Store>(
        store: S,
        reserve: Option<Reserve>,
        pace: impl FnMut() -> Duration + Send + 'static,
    ) -> (JoinHandle<()>, WriterHandle<S>) {
        let (sender, operations) = task_mpsc::unbounded_channel();
        let watched = Watched::default();
        let work = Work { store, reserve, watched: watched.clone() };
        (
            seams::spawn(work.run_as_task(operations, pace)),
            WriterHandle { operations: Way::Task(sender), watched },
        )
    }

    /// Waits until the queue is worked off and the file closed. All handles must be gone, else this waits for them.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the database writer had panicked");
        }
    }
}

impl<S: Store> WriterHandle<S> {
    /// Runs an operation in a transaction and answers after the commit that holds it. An operation that fails leaves
    /// nothing behind and harms no other of the same commit.
    ///
    /// # Errors
    /// The operation's own; [`StoreError::Commit`] when the commit failed; [`StoreError::Stopped`] when the thread
    /// has ended or the operation panicked.
    pub async fn run<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut S) -> Result<T, StoreError> + Send + 'static,
    {
        self.submit(operation).await.unwrap_or(Err(StoreError::Stopped))
    }

    /// Puts an operation into the queue at once; the receiver answers after the commit. Operations run in the order
    /// they were submitted.
    pub fn submit<T, F>(&self, operation: F) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&mut S) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        let operation: Operation<S> = Box::new(move |store, seen, turn| {
            let result = match turn {
                Turn::First => alone(store, operation),
                Turn::Later => in_savepoint(store, operation),
            };
            if let Err(error) = &result {
                seen.note(error);
            }
            Box::new(move |committed| {
                let result = match committed {
                    Ok(()) => result,
                    Err(why) => result.and_then(|_| Err(StoreError::Commit(why.to_owned()))),
                };
                // The caller may have gone; what was committed stays committed.
                let _ = answer.send(result);
            })
        });
        // A stopped writer drops the operation and with it the sender: the receiver then says so.
        match &self.operations {
            Way::Thread(sender) => drop(sender.send(operation)),
            Way::Task(sender) => drop(sender.send(operation)),
        }
        receiver
    }

    /// How disk and file are; changes as the writer finds out, and is news once at the beginning.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        let mut health = self.watched.subscribe();
        health.mark_changed();
        health
    }
}

/// Where an operation stands in its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing was done before it, so the transaction itself is what undoes it: a savepoint keeps a copy of every page.
    First,
    Later,
}

fn caught<S, T>(
    store: &mut S,
    operation: impl FnOnce(&mut S) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(|| operation(store))).unwrap_or_else(|_| {
        tracing::error!("a database operation panicked; it was rolled back");
        Err(StoreError::Stopped)
    })
}

fn alone<S: Store, T>(
    store: &mut S,
    operation: impl FnOnce(&mut S) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let result = caught(store, operation);
    if result.is_err() {
        store.undone();
    }
    // One that the operation or a full disk has undone is for the group to notice.
    if result.is_err() && !store.connection().is_autocommit() {
        execute(store.connection(), "ROLLBACK")?;
        execute(store.connection(), "BEGIN IMMEDIATE")?;
    }
    result
}

fn in_savepoint<S: Store, T>(
    store: &mut S,
    operation: impl FnOnce(&mut S) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    execute(store.connection(), "SAVEPOINT operation")?;
    let result = caught(store, operation);
    if result.is_err() {
        store.undone();
        execute(store.connection(), "ROLLBACK TO operation")?;
    }
    execute(store.connection(), "RELEASE operation")?;
    result
}

fn execute(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// What operations and commits of a group stumbled over.
struct Seen {
    watched: Watched,
    disk_full: bool,
}

impl Seen {
    fn note(&mut self, error: &StoreError) {
        self.watched.note_damage(error);
        // The store's own refusal is no news.
        self.disk_full |= error.is_disk_full() && !matches!(error, StoreError::DiskFull);
    }
}

/// The work of a thread or task.
struct Work<S> {
    store: S,
    reserve: Option<Reserve>,
    watched: Watched,
}

impl<S: Store> Work<S> {
    fn run(&mut self, operations: &mpsc::Receiver<Operation<S>>) {
        self.look_at_first();
        let mut checkpoint_due = false;
        loop {
            let patience = match (self.watched.disk(), checkpoint_due) {
                (Disk::Full, _) => Some(LOOK_AGAIN),
                (Disk::Room, true) => Some(IDLE),
                (Disk::Room, false) => None,
            };
            let next = match patience {
                Some(patience) => operations.recv_timeout(patience),
                None => operations.recv().map_err(mpsc::RecvTimeoutError::from),
            };
            match next {
                Ok(first) => {
                    let started = Instant::now();
                    let next = || if started.elapsed() < GATHER { operations.try_recv().ok() } else { None };
                    self.group(first, next).answer();
                    checkpoint_due = true;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    fold_log(self.store.connection());
                    checkpoint_due = false;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            self.look_for_room();
        }
        fold_log(self.store.connection());
    }

    async fn run_as_task(
        mut self,
        mut operations: task_mpsc::UnboundedReceiver<Operation<S>>,
        mut pace: impl FnMut() -> Duration,
    ) {
        self.look_at_first();
        let mut checkpoint_due = false;
        loop {
            let wait = match (self.watched.disk(), checkpoint_due) {
                (Disk::Full, _) => LOOK_AGAIN,
                (Disk::Room, true) => IDLE,
                (Disk::Room, false) => Duration::MAX,
            };
            match timeout(wait, operations.recv()).await {
                Ok(Some(first)) => {
                    let ended = self.group(first, || operations.try_recv().ok());
                    sleep(pace()).await;
                    ended.answer();
                    checkpoint_due = true;
                }
                Err(_elapsed) => {
                    fold_log(self.store.connection());
                    checkpoint_due = false;
                }
                Ok(None) => break,
            }
            self.look_for_room();
        }
        fold_log(self.store.connection());
    }

    fn look_at_first(&mut self) {
        if self.reserve.as_mut().is_some_and(|reserve| !reserve.refill()) {
            self.disk_is(Disk::Full);
        }
    }

    fn look_for_room(&mut self) {
        let is_full = self.watched.disk() == Disk::Full;
        if is_full && self.reserve.as_mut().is_some_and(Reserve::refill_sometimes) {
            tracing::info!("there is room on the disk again");
            self.disk_is(Disk::Room);
        }
    }

    /// A commit found no room. What failed is told to have failed; what is tried again finds the reserve's room.
    fn out_of_room(&mut self) {
        let Some(reserve) = &mut self.reserve else { return };
        reserve.release();
        if self.watched.disk() == Disk::Room {
            tracing::error!(
                "the disk is full: what runs is recorded in the reserve, and nothing new is taken"
            );
            self.disk_is(Disk::Full);
        }
    }

    fn disk_is(&mut self, disk: Disk) {
        self.store.disk_is_full(disk == Disk::Full);
        self.watched.set_disk(disk);
    }

    /// Runs an operation and those that `next` gives in one transaction.
    fn group(&mut self, first: Operation<S>, mut next: impl FnMut() -> Option<Operation<S>>) -> Ended {
        let store = &mut self.store;
        let mut seen = Seen { watched: self.watched.clone(), disk_full: false };
        let mut replies = Vec::new();
        let begun = execute(store.connection(), "BEGIN IMMEDIATE");
        let committed = begun.and_then(|()| {
            let mut due = Some(first);
            while let Some(operation) = due {
                let turn = if replies.is_empty() { Turn::First } else { Turn::Later };
                replies.push(operation(store, &mut seen, turn));
                // A full disk may undo the whole transaction from inside a statement. What ran before is gone then,
                // and what ran now would be stored by itself and called lost.
                if store.connection().is_autocommit() {
                    return Err(StoreError::Commit("the transaction was undone on the way".into()));
                }
                due = if replies.len() < GROUP { next() } else { None };
            }
            execute(store.connection(), "COMMIT")
        });
        let fate = match committed {
            Ok(()) => Ok(()),
            Err(error) => {
                store.undone();
                seen.note(&error);
                let why = error.chain();
                tracing::error!(
                    error = why,
                    operations = replies.len(),
                    "a commit failed; nothing of it is stored"
                );
                if !store.connection().is_autocommit() {
                    let _ = execute(store.connection(), "ROLLBACK");
                }
                Err(why)
            }
        };
        // Before anybody is told, so that whoever tries again finds room.
        if seen.disk_full {
            self.out_of_room();
        }
        Ended { fate, replies }
    }
}

/// A transaction that has ended, and who waits to hear of it.
struct Ended {
    fate: Result<(), String>,
    replies: Vec<Reply>,
}

impl Ended {
    fn answer(self) {
        for reply in self.replies {
            reply(self.fate.as_ref().map(|_| ()).map_err(String::as_str));
        }
    }
}

fn fold_log(connection: &Connection) {
    let folded = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = folded {
        tracing::warn!(error = %error, "the log could not be folded back; it will be later");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seams::Storage;

    struct Plain(Connection);

    impl Store for Plain {
        fn connection(&mut self) -> &mut Connection {
            &mut self.0
        }
    }

    fn plain(storage: &Storage) -> Plain {
        Plain(super::super::open(storage, "t.db", &["CREATE TABLE t(x INTEGER UNIQUE)"]).unwrap())
    }

    fn insert(x: i64) -> impl FnOnce(&mut Plain) -> Result<(), StoreError> {
        move |store| {
            store.0.execute("INSERT INTO t VALUES(?1)", [x])?;
            Ok(())
        }
    }

    fn count(storage: &Storage) -> i64 {
        let reader = super::super::open_reader(storage, "t.db").unwrap();
        reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[tokio::test]
    async fn an_answer_means_that_another_connection_sees_it() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let (writer, handle) = Writer::start("test", plain(&storage));
        for x in 1..=20 {
            handle.run(insert(x)).await.unwrap();
            assert_eq!(count(&storage), x);
        }
        drop(handle);
        writer.join();
    }

    #[tokio::test]
    async fn a_failing_and_a_panicking_operation_leave_nothing_and_harm_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let (writer, handle) = Writer::start("test", plain(&storage));
        let fine = handle.submit(insert(1));
        let fails = handle.submit(|store: &mut Plain| {
            insert(2)(store)?;
            insert(1)(store)
        });
        let panics = handle.submit(|store: &mut Plain| -> Result<(), StoreError> {
            insert(3)(store)?;
            panic!("as a bug would")
        });
        let also_fine = handle.submit(insert(4));
        assert!(fine.await.unwrap().is_ok());
        assert!(matches!(fails.await.unwrap(), Err(StoreError::Sql(_))));
        assert!(matches!(panics.await.unwrap(), Err(StoreError::Stopped)));
        assert!(also_fine.await.unwrap().is_ok());
        assert_eq!(count(&storage), 2);
        drop(handle);
        writer.join();
    }

    #[tokio::test]
    async fn a_transaction_that_is_undone_on_the_way_is_reported_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let (writer, handle) = Writer::start("test", plain(&storage));
        // Holds the thread until the others are in its queue, so that they share a transaction.
        let (go, held) = mpsc::channel::<()>();
        let holds = handle.submit(move |_: &mut Plain| Ok(held.recv().is_ok()));
        let before = handle.submit(insert(1));
        let undoes = handle.submit(|store: &mut Plain| -> Result<(), StoreError> {
            store.0.execute_batch("ROLLBACK")?;
            Err(StoreError::Stopped)
        });
        let after = handle.submit(insert(2));
        go.send(()).unwrap();
        let _ = holds.await.unwrap();
        assert!(undoes.await.unwrap().is_err());
        let stored = [before.await.unwrap(), after.await.unwrap()].iter().filter(|told| told.is_ok()).count();
        assert_eq!(count(&storage), i64::try_from(stored).unwrap());
        handle.run(insert(3)).await.unwrap();
        assert_eq!(count(&storage), i64::try_from(stored).unwrap() + 1);
        drop(handle);
        writer.join();
    }

    #[tokio::test]
    async fn what_was_submitted_is_worked_off_before_the_thread_ends() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let (writer, handle) = Writer::start("test", plain(&storage));
        let answers: Vec<_> = (0..500).map(|x| handle.submit(insert(x))).collect();
        drop(handle);
        writer.join();
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
        assert_eq!(count(&storage), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn as_a_task_it_answers_when_the_simulated_sync_is_over_and_ends_with_its_handles() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let sync = Duration::from_millis(7);
        let (task, handle) = Writer::simulated(plain(&storage), None, move || sync);
        let begun = tokio::time::Instant::now();
        let first = handle.submit(insert(1));
        let with_it = handle.submit(insert(2));
        first.await.unwrap().unwrap();
        let after_it = handle.submit(insert(3));
        with_it.await.unwrap().unwrap();
        assert_eq!(begun.elapsed(), sync);
        assert!(handle.run(insert(1)).await.is_err());
        after_it.await.unwrap().unwrap();
        assert_eq!(begun.elapsed(), 2 * sync);
        drop(handle);
        task.await.unwrap();
        assert_eq!(count(&storage), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn as_a_task_it_gives_its_reserve_free_and_makes_it_again() {
        const RESERVE: u64 = 1024 * 1024;
        let disk = crate::store::vfs::memory::Disk::new().unwrap();
        let storage = disk.storage();
        let reserve = Reserve::new(storage.clone(), RESERVE);
        let (_task, handle) = Writer::simulated(plain(&storage), Some(reserve), || Duration::ZERO);
        let mut health = handle.health();
        handle.run(insert(1)).await.unwrap();
        disk.limit(Some(disk.used()));
        assert!(handle.run(insert(2)).await.is_err());
        handle.run(insert(2)).await.unwrap();
        assert_eq!((health.borrow().disk, storage.size("reserve").unwrap()), (Disk::Full, None));
        disk.limit(None);
        health.wait_for(|health| health.disk == Disk::Room).await.unwrap();
        assert_eq!(storage.size("reserve").unwrap(), Some(RESERVE));
    }
}
