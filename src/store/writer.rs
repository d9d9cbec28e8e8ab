//! The writer: group commit, and answers only after it.
//!
//! # Who does the work
//! A thread of its own, so that no slow disk holds up an event loop for long. But two hops between threads cost about as much
//! as a quick disk's sync, which is all that a lone job waits for. So what is submitted with
//! [`WriterHandle::submit_soon`] is done by its caller if few operations wait, all of them of this kind, nobody is at
//! work, and the last commits were quick; else the thread does it as ever. Whoever works holds the store's lock and takes
//! operations in the one order in which they were submitted.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::{
    sync::{mpsc as task_mpsc, oneshot, watch},
    task::{JoinHandle, yield_now},
    time::{sleep, timeout},
};

use super::{
    Disk, Health, Reserve, Store, StoreError,
    group::{Asked, Ended, Group, Kind, Operation},
    health::Watched,
    pace::Pace,
    reserve::LOOK_AGAIN,
};
use crate::seams;

/// At most this many operations share a commit, so that nobody waits behind an endless queue.
const GROUP: usize = 256;
/// And no commit is put off for longer than this.
const GATHER: Duration = Duration::from_millis(5);
/// After this long without work the log is folded back into the file.
const IDLE: Duration = Duration::from_secs(3);
/// More operations than this are worth the thread: their caller has better things to do meanwhile.
const FEW: usize = 4;

/// The queue's other end.
struct Queued<S> {
    operations: mpsc::Receiver<Box<dyn Operation<S>>>,
    /// About how many are in it.
    waiting: Arc<AtomicUsize>,
}

impl<S> Queued<S> {
    fn next(&self) -> Result<Box<dyn Operation<S>>, mpsc::TryRecvError> {
        let operation = self.operations.try_recv()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(operation)
    }
}

/// The thread around a store. It ends, with its queue worked off, when the last handle is gone.
#[derive(Debug)]
pub struct Writer {
    thread: thread::JoinHandle<()>,
}

/// A way to the store. Cheap to clone.
pub struct WriterHandle<S> {
    way: Way<S>,
    watched: Watched,
}

enum Way<S> {
    Thread(Arc<Road<S>>),
    Task(task_mpsc::UnboundedSender<Box<dyn Operation<S>>>),
}

impl<S> Clone for Way<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Thread(road) => Self::Thread(Arc::clone(road)),
            Self::Task(sender) => Self::Task(sender.clone()),
        }
    }
}

impl<S> Clone for WriterHandle<S> {
    fn clone(&self) -> Self {
        Self { way: self.way.clone(), watched: self.watched.clone() }
    }
}

impl<S> std::fmt::Debug for WriterHandle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriterHandle")
    }
}

/// What all handles of a thread have in common. The fields are dropped in this order: the thread that is called at the
/// end finds the queue closed.
struct Road<S> {
    operations: mpsc::Sender<Box<dyn Operation<S>>>,
    waiting: Arc<AtomicUsize>,
    _last_call: LastCall,
    bench: Bench<S>,
}

struct LastCall(thread::Thread);

impl Drop for LastCall {
    fn drop(&mut self) {
        self.0.unpark();
    }
}

/// Where the work is done, and who does it when nobody else will.
struct Bench<S> {
    /// Nothing once the thread has ended.
    work: Arc<Mutex<Option<Work<S>>>>,
    thread: thread::Thread,
}

impl<S> Clone for Bench<S> {
    fn clone(&self) -> Self {
        Self { work: Arc::clone(&self.work), thread: self.thread.clone() }
    }
}

impl<S: Store> Bench<S> {
    /// Does what waits right here, or leaves it to the thread.
    fn work_here(&self) {
        let Ok(mut bench) = self.work.try_lock() else { return self.thread.unpark() };
        let Some(work) = bench.as_mut() else { return };
        let next = catch_unwind(AssertUnwindSafe(|| work.work_here())).unwrap_or_else(|_| {
            tracing::error!("the database writer panicked");
            // Nobody knows what is half done: whoever waits is told that nothing works here any more.
            *bench = None;
            Next::CallThread
        });
        // Called any earlier, the thread would wake only to wait for the lock.
        drop(bench);
        if next == Next::CallThread {
            self.thread.unpark();
        }
    }
}

/// An operation in the queue of which it is not decided who does it.
struct Undecided<S>(Option<Bench<S>>);

impl<S> Drop for Undecided<S> {
    fn drop(&mut self) {
        // Nobody waits any more, and done it must be all the same.
        if let Some(bench) = &self.0 {
            bench.thread.unpark();
        }
    }
}

impl Writer {
    /// Moves a store onto a thread of its own.
    pub fn start<S: Store>(name: &str, store: S) -> (Self, WriterHandle<S>) {
        Self::start_with(name, store, None)
    }

    /// The same, with room on the disk that is kept for work that is under way when the disk is full.
    pub fn start_with<S: Store>(name: &str, store: S, reserve: Option<Reserve>) -> (Self, WriterHandle<S>) {
        Self::start_timed(name, store, reserve, Instant::now)
    }

    /// The same with another clock for how long commits take.
    fn start_timed<S: Store>(
        name: &str,
        store: S,
        reserve: Option<Reserve>,
        clock: impl FnMut() -> Instant + Send + 'static,
    ) -> (Self, WriterHandle<S>) {
        let (sender, operations) = mpsc::channel();
        let (watched, waiting) = (Watched::default(), Arc::default());
        let operations = Queued { operations, waiting: Arc::clone(&waiting) };
        let work = Work::new(store, operations, reserve, watched.clone(), Box::new(clock));
        let work = Arc::new(Mutex::new(Some(work)));
        let bench = Arc::clone(&work);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let ran = catch_unwind(AssertUnwindSafe(|| run(&bench)));
                // Whatever happened, the file is closed, and whoever still waits hears that nobody will answer.
                drop(bench.lock().unwrap_or_else(PoisonError::into_inner).take());
                if let Err(panic) = ran {
                    resume_unwind(panic);
                }
            })
            .expect("the operating system gives a thread at start");
        let bench = Bench { work, thread: thread.thread().clone() };
        let road = Road { operations: sender, waiting, _last_call: LastCall(bench.thread.clone()), bench };
        (Self { thread }, WriterHandle { way: Way::Thread(Arc::new(road)), watched })
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
        // Its operations come another way.
        let none = Queued { operations: mpsc::channel().1, waiting: Arc::default() };
        let work = Work::new(store, none, reserve, watched.clone(), Box::new(Instant::now));
        (seams::spawn(work.run_as_task(operations, pace)), WriterHandle { way: Way::Task(sender), watched })
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
        let answer = self.enqueue(once(operation), Kind::Once);
        self.call_thread();
        answer
    }

    /// [`WriterHandle::submit`] for a small operation that somebody waits for: where the disk is quick and little else
    /// waits, whoever awaits the answer does the work, commit and all. It is in the queue at once, and not begun before
    /// all that is ready in the same runtime has had its turn, so that what is submitted meanwhile shares its commit.
    ///
    /// The operation may be run a second time, after what it did was undone.
    pub fn submit_soon<T, F>(
        &self,
        operation: F,
    ) -> impl Future<Output = Result<Result<T, StoreError>, oneshot::error::RecvError>> + Send + use<T, F, S>
    where
        T: Send + 'static,
        F: FnMut(&mut S) -> Result<T, StoreError> + Send + 'static,
    {
        let answer = self.enqueue(operation, Kind::Small);
        let mut undecided = Undecided(match &self.way {
            Way::Thread(road) if road.waiting.load(Ordering::Relaxed) <= FEW => Some(road.bench.clone()),
            // It can begin while more are submitted.
            Way::Thread(_) | Way::Task(_) => None,
        });
        if undecided.0.is_none() {
            self.call_thread();
        }
        async move {
            if undecided.0.is_some() {
                yield_now().await;
            }
            if let Some(bench) = undecided.0.take() {
                bench.work_here();
            }
            answer.await
        }
    }

    /// Puts a small operation into the queue that nobody waits for: it is done along with the next one that somebody
    /// does wait for, and at the latest before the thread ends.
    ///
    /// The operation may be run a second time, after what it did was undone.
    pub fn defer<F>(&self, operation: F)
    where
        F: FnMut(&mut S) -> Result<(), StoreError> + Send + 'static,
    {
        drop(self.enqueue(operation, Kind::Small));
        if let Way::Thread(road) = &self.way
            && GROUP < road.waiting.load(Ordering::Relaxed)
        {
            // They are to wait for company, not to pile up without end.
            self.call_thread();
        }
    }

    fn enqueue<T, F>(&self, operation: F, kind: Kind) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnMut(&mut S) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        let operation = Box::new(Asked::new(operation, kind, answer));
        // A stopped writer drops the operation and with it the sender: the receiver then says so.
        match &self.way {
            Way::Thread(road) => {
                road.waiting.fetch_add(1, Ordering::Relaxed);
                drop(road.operations.send(operation));
            }
            Way::Task(sender) => drop(sender.send(operation)),
        }
        receiver
    }

    fn call_thread(&self) {
        if let Way::Thread(road) = &self.way {
            road.bench.thread.unpark();
        }
    }

    /// How disk and file are; changes as the writer finds out, and is news once at the beginning.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        let mut health = self.watched.subscribe();
        health.mark_changed();
        health
    }
}

/// An operation that is run once, in the shape of one that may be run again.
fn once<S, T>(
    operation: impl FnOnce(&mut S) -> Result<T, StoreError>,
) -> impl FnMut(&mut S) -> Result<T, StoreError> {
    let mut operation = Some(operation);
    move |store| operation.take().map_or(Err(StoreError::Stopped), |operation| operation(store))
}

/// What is left to do for whoever worked somewhere else than on the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    CallThread,
}

/// The thread.
fn run<S: Store>(bench: &Mutex<Option<Work<S>>>) {
    loop {
        let patience = {
            // Nothing is there once somebody broke down at work; that it is poisoned would say the same.
            let Ok(mut work) = bench.lock() else { return };
            let Some(work) = work.as_mut() else { return };
            match work.turn() {
                Turn::Over => return,
                Turn::Sleep(patience) => patience,
            }
        };
        match patience {
            Some(patience) => thread::park_timeout(patience),
            None => thread::park(),
        }
    }
}

/// What comes after a turn of the thread.
enum Turn {
    /// Until somebody calls, or for so long.
    Sleep(Option<Duration>),
    /// All handles are gone.
    Over,
}

/// The work itself, for a thread, a task, or whoever is in a hurry.
struct Work<S> {
    store: S,
    queued: Queued<S>,
    /// What was taken out of the queue and is still to be done, before all that is in it.
    taken: VecDeque<Box<dyn Operation<S>>>,
    reserve: Option<Reserve>,
    watched: Watched,
    pace: Pace,
    clock: Box<dyn FnMut() -> Instant + Send>,
    /// When something was last done, until the log is folded.
    worked_at: Option<Instant>,
    /// When the thread wakes by itself.
    wake_at: Option<Instant>,
    is_begun: bool,
}

impl<S: Store> Work<S> {
    fn new(
        store: S,
        queued: Queued<S>,
        reserve: Option<Reserve>,
        watched: Watched,
        clock: Box<dyn FnMut() -> Instant + Send>,
    ) -> Self {
        let (taken, pace) = (VecDeque::new(), Pace::default());
        let (worked_at, wake_at, is_begun) = (None, None, false);
        Self { store, queued, taken, reserve, watched, pace, clock, worked_at, wake_at, is_begun }
    }

    /// A turn of the thread: all that waits, and what is due by the clock.
    fn turn(&mut self) -> Turn {
        if !std::mem::replace(&mut self.is_begun, true) {
            self.look_at_first();
        }
        let is_open = self.work_off();
        let now = Instant::now();
        let is_due = match self.watched.disk() {
            Disk::Full => self.wake_at.is_some_and(|at| at <= now),
            Disk::Room => self.worked_at.is_some_and(|at| IDLE <= now.saturating_duration_since(at)),
        };
        if is_due || !is_open {
            fold_log(self.store.connection());
            self.worked_at = None;
        }
        if !is_open {
            return Turn::Over;
        }
        self.look_for_room();
        self.wake_at = match self.watched.disk() {
            Disk::Full => Some(now + LOOK_AGAIN),
            Disk::Room => self.worked_at.map(|at| at + IDLE),
        };
        Turn::Sleep(self.wake_at.map(|at| at.saturating_duration_since(now)))
    }

    /// Works until nothing waits any more. Says whether something may still come.
    fn work_off(&mut self) -> bool {
        loop {
            if self.taken.is_empty() {
                match self.queued.next() {
                    Ok(operation) => self.taken.push_back(operation),
                    Err(mpsc::TryRecvError::Empty) => return true,
                    Err(mpsc::TryRecvError::Disconnected) => return false,
                }
            }
            let mut taken = std::mem::take(&mut self.taken);
            let started = Instant::now();
            self.group(|queued, so_many| {
                if so_many == GROUP || (so_many > 0 && GATHER <= started.elapsed()) {
                    return None;
                }
                taken.pop_front().or_else(|| queued.next().ok())
            })
            .answer();
            self.taken = taken;
            self.look_for_room();
        }
    }

    /// Does what waits if it is little and the disk is quick.
    fn work_here(&mut self) -> Next {
        while self.taken.len() <= FEW
            && let Ok(operation) = self.queued.next()
        {
            self.taken.push_back(operation);
        }
        if self.taken.is_empty() {
            return Next::Nothing;
        }
        let is_little = self.taken.len() <= FEW && self.taken.iter().all(|waits| waits.kind() == Kind::Small);
        if !is_little || !self.pace.is_quick() || self.watched.disk() == Disk::Full {
            return Next::CallThread;
        }
        let mut taken = std::mem::take(&mut self.taken);
        let ended = self.group(|_, _| taken.pop_front());
        // What a transaction that broke off left is still to be done.
        self.taken = taken;
        ended.answer();
        if !self.taken.is_empty() {
            return Next::CallThread;
        }
        // Once in a while the thread folds the log, and looks for room.
        match (self.watched.disk(), self.wake_at) {
            (Disk::Room, Some(_)) => Next::Nothing,
            _ => Next::CallThread,
        }
    }

    async fn run_as_task(
        mut self,
        mut operations: task_mpsc::UnboundedReceiver<Box<dyn Operation<S>>>,
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
                    let mut first = Some(first);
                    let ended = self.group(|_, so_many| match first.take() {
                        Some(first) => Some(first),
                        None if so_many < GROUP => operations.try_recv().ok(),
                        None => None,
                    });
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

    /// Runs what `next` gives, from the queue or elsewhere, in one transaction; it hears how many have run.
    fn group(
        &mut self,
        mut next: impl FnMut(&Queued<S>, usize) -> Option<Box<dyn Operation<S>>>,
    ) -> Ended<S> {
        let queued = &self.queued;
        let next = |so_many| next(queued, so_many);
        let ended = Group::run(&mut self.store, &self.watched, next, &mut *self.clock);
        if let Some(took) = ended.took {
            self.pace.note(took);
        }
        self.worked_at = Some(Instant::now());
        // Before anybody is told, so that whoever tries again finds room.
        if ended.disk_full {
            self.out_of_room();
        }
        ended
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
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;
    use crate::{
        seams::Storage,
        store::vfs::{CountingVfs, Fault},
    };

    struct Plain(Connection);

    impl Store for Plain {
        fn connection(&mut self) -> &mut Connection {
            &mut self.0
        }
    }

    fn plain(storage: &Storage) -> Plain {
        Plain(super::super::open(storage, "t.db", &["CREATE TABLE t(x INTEGER UNIQUE)"]).unwrap())
    }

    fn insert(x: i64) -> impl FnMut(&mut Plain) -> Result<(), StoreError> {
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

    /// Puts off what it is told to insert.
    struct Later(Plain, Vec<i64>);

    impl Store for Later {
        fn connection(&mut self) -> &mut Connection {
            self.0.connection()
        }

        fn undone(&mut self) {
            self.1.clear();
        }

        fn owes(&self) -> bool {
            !self.1.is_empty()
        }

        fn settle_up(&mut self) -> Result<(), StoreError> {
            std::mem::take(&mut self.1).into_iter().try_for_each(|x| insert(x)(&mut self.0))
        }
    }

    /// Puts `x` off, and fails if it is told to.
    fn later(x: i64, fails: bool) -> impl FnMut(&mut Later) -> Result<(), StoreError> {
        move |store| {
            store.1.push(x);
            if fails { Err(StoreError::DiskFull) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn what_is_put_off_is_stored_with_the_rest_and_undone_with_whoever_put_it_off() {
        for fails in 1..=4 {
            let folder = tempfile::tempdir().unwrap();
            let storage = Storage::folder(folder.path());
            let (writer, handle) = Writer::start("test", Later(plain(&storage), Vec::new()));
            // Holds the thread until the others are in its queue, so that they share a transaction.
            let (go, held) = mpsc::channel::<()>();
            let holds = handle.submit(move |_: &mut Later| Ok(held.recv().is_ok()));
            let answers = [
                handle.enqueue(later(1, fails == 1), Kind::Small),
                handle.enqueue(later(2, fails == 2), Kind::Small),
                handle.submit(later(3, fails == 3)),
                handle.enqueue(later(4, fails == 4), Kind::Small),
            ];
            go.send(()).unwrap();
            let _ = holds.await.unwrap();
            for (x, answer) in (1..).zip(answers) {
                assert_eq!(answer.await.unwrap().is_err(), x == fails);
            }
            drop(handle);
            writer.join();
            let reader = super::super::open_reader(&storage, "t.db").unwrap();
            let mut stored = reader.prepare("SELECT x FROM t ORDER BY x").unwrap();
            let stored: Vec<i64> =
                stored.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
            assert_eq!(stored, (1..=4).filter(|x| *x != fails).collect::<Vec<_>>());
        }
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

    /// A clock by which a commit takes as long as it is told, and which counts the commits.
    #[derive(Clone, Default)]
    struct Clock {
        micros: Arc<AtomicU64>,
        asked: Arc<AtomicU64>,
    }

    impl Clock {
        fn takes(&self, commit: Duration) {
            self.micros.store(u64::try_from(commit.as_micros()).unwrap(), Ordering::SeqCst);
        }

        /// It is asked before and after each.
        fn commits(&self) -> u64 {
            self.asked.load(Ordering::SeqCst) / 2
        }

        fn ticking(&self) -> impl FnMut() -> Instant + Send + 'static {
            let (clock, mut now) = (self.clone(), Instant::now());
            move || {
                clock.asked.fetch_add(1, Ordering::SeqCst);
                now += Duration::from_micros(clock.micros.load(Ordering::SeqCst));
                now
            }
        }

        fn start<S: Store>(&self, store: S) -> (Writer, WriterHandle<S>) {
            Writer::start_timed("test", store, None, self.ticking())
        }
    }

    /// The work without its thread.
    struct Alone {
        work: Work<Plain>,
        sender: mpsc::Sender<Box<dyn Operation<Plain>>>,
    }

    impl Alone {
        fn new(storage: &Storage, clock: &Clock, reserve: Option<Reserve>) -> Self {
            let (sender, operations) = mpsc::channel();
            let clock = Box::new(clock.ticking());
            let operations = Queued { operations, waiting: Arc::default() };
            let mut work = Work::new(plain(storage), operations, reserve, Watched::default(), clock);
            assert!(matches!(work.turn(), Turn::Sleep(None)));
            Self { work, sender }
        }

        fn wait(&self, x: i64) -> oneshot::Receiver<Result<(), StoreError>> {
            let (answer, told) = oneshot::channel();
            self.work.queued.waiting.fetch_add(1, Ordering::Relaxed);
            self.sender.send(Box::new(Asked::new(insert(x), Kind::Small, answer))).unwrap();
            told
        }

        /// Does what waits as somebody in a hurry would; says whether it was done.
        fn here(&mut self) -> bool {
            self.work.work_here();
            self.work.taken.is_empty()
        }

        fn hurry(&mut self) {
            for x in 0..8 {
                let mut told = self.wait(1000 + x);
                assert!(!self.here());
                self.work.turn();
                told.try_recv().unwrap().unwrap();
            }
        }
    }

    /// So many quick commits that the disk is known to be quick.
    async fn hurry(handle: &WriterHandle<Plain>) {
        for x in 0..8 {
            handle.run(insert(1000 + x)).await.unwrap();
        }
    }

    #[test]
    fn while_commits_are_quick_whoever_waits_does_the_work_and_while_they_are_not_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let clock = Clock::default();
        let mut alone = Alone::new(&storage, &clock, None);
        let by_us: Vec<_> = (0..40)
            .map(|x| {
                // One is slow now and then, and two are so soon after each other.
                let slow = [11, 22, 23].contains(&x);
                clock.takes(Duration::from_millis(if slow { 20 } else { 0 }));
                let mut told = alone.wait(x);
                let is_done = alone.here();
                alone.work.turn();
                told.try_recv().unwrap().unwrap();
                assert_eq!(count(&storage), x + 1);
                is_done
            })
            .collect();
        let expected: Vec<_> = (0..40).map(|x| (8..=23).contains(&x) || 31 <= x).collect();
        assert_eq!(by_us, expected);
    }

    #[tokio::test]
    async fn what_changes_nothing_says_nothing_of_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let (writer, handle) = Clock::default().start(plain(&storage));
        for _ in 0..20 {
            let by = handle.submit_soon(|_: &mut Plain| Ok(thread::current().id())).await.unwrap().unwrap();
            assert_ne!(by, thread::current().id());
        }
        drop(handle);
        writer.join();
    }

    #[test]
    fn few_share_a_commit_here_and_many_are_left_to_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::default();
        let mut alone = Alone::new(&Storage::folder(folder.path()), &clock, None);
        alone.hurry();
        let before = clock.commits();
        let few: Vec<_> = (0..4).map(|x| alone.wait(x)).collect();
        assert!(alone.here());
        assert_eq!(clock.commits(), before + 1);
        let many: Vec<_> = (100..105).map(|x| alone.wait(x)).collect();
        assert!(!alone.here());
        let later = alone.wait(105);
        assert!(!alone.here());
        assert_eq!(clock.commits(), before + 1);
        alone.work.turn();
        for mut told in few.into_iter().chain(many).chain([later]) {
            told.try_recv().unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_submitted_before_anybody_waits_shares_its_commits() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let clock = Clock::default();
        let (writer, handle) = clock.start(plain(&storage));
        hurry(&handle).await;
        let before = clock.commits();
        let answers = (0..64).map(|x| handle.submit_soon(insert(x)));
        for answer in futures_util::future::join_all(answers).await {
            answer.unwrap().unwrap();
        }
        let commits = clock.commits() - before;
        assert!(commits < 16, "{commits}");
        drop(handle);
        writer.join();
    }

    #[tokio::test]
    async fn the_order_is_that_of_submission_whoever_does_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let (writer, handle) = Clock::default().start(plain(&storage));
        hurry(&handle).await;
        let mut expected: Vec<i64> = (0..8).map(|x| 1000 + x).collect();
        for round in 0..50 {
            let x = 10 * round;
            handle.defer(insert(x));
            let soon = handle.submit_soon(insert(x + 1));
            // Whatever the thread has done of it by now.
            let waits = (round % 2 == 0).then(|| handle.submit(insert(x + 2)));
            let later = handle.submit_soon(insert(x + 3));
            later.await.unwrap().unwrap();
            soon.await.unwrap().unwrap();
            expected.extend([x, x + 1]);
            if let Some(waits) = waits {
                waits.await.unwrap().unwrap();
                expected.push(x + 2);
            }
            expected.push(x + 3);
        }
        let reader = super::super::open_reader(&storage, "t.db").unwrap();
        let mut found = reader.prepare("SELECT x FROM t ORDER BY rowid").unwrap();
        let found: Vec<i64> = found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, expected);
        drop(handle);
        writer.join();
    }

    #[tokio::test]
    async fn one_that_fails_or_panics_after_others_wrote_harms_nobody_here_or_on_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let (writer, handle) = Clock::default().start(plain(&storage));
        hurry(&handle).await;
        for (round, crowd) in [(0, 0), (1, 10)] {
            let x = 100 * round;
            let fine = handle.submit_soon(insert(x + 1));
            let fails = handle.submit_soon(move |store: &mut Plain| {
                insert(x + 2)(store)?;
                insert(x + 1)(store)
            });
            let panics = handle.submit_soon(move |store: &mut Plain| -> Result<(), StoreError> {
                insert(x + 3)(store)?;
                panic!("as a bug would")
            });
            let also_fine = handle.submit_soon(insert(x + 4));
            let others = (0..crowd).map(|other| handle.submit_soon(insert(x + 10 + other)));
            let others = futures_util::future::join_all(others);
            let (fine, fails, panics, also_fine, others) =
                tokio::join!(fine, fails, panics, also_fine, others);
            fine.unwrap().unwrap();
            assert!(matches!(fails.unwrap(), Err(StoreError::Sql(_))));
            assert!(matches!(panics.unwrap(), Err(StoreError::Stopped)));
            also_fine.unwrap().unwrap();
            assert!(others.into_iter().all(|other| other.unwrap().is_ok()));
        }
        assert_eq!(count(&storage), 8 + 2 + 2 + 10);
        drop(handle);
        writer.join();
    }

    #[tokio::test]
    async fn what_cannot_be_run_again_is_run_once_whatever_fails_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let (writer, handle) = Writer::start("test", plain(&storage));
        // Holds the thread until the others are in its queue, so that they share a transaction.
        let (go, held) = mpsc::channel::<()>();
        let holds = handle.submit(move |_: &mut Plain| Ok(held.recv().is_ok()));
        let fails = |x| {
            move |store: &mut Plain| {
                insert(x)(store)?;
                insert(1)(store)
            }
        };
        let small = handle.submit_soon(insert(1));
        let fails_early = handle.submit_soon(fails(2));
        let once = handle.submit(insert(3));
        let fails_itself = handle.submit(fails(4));
        let fails_late = handle.submit_soon(fails(5));
        let last = handle.submit_soon(insert(6));
        go.send(()).unwrap();
        holds.await.unwrap().unwrap();
        small.await.unwrap().unwrap();
        assert!(fails_early.await.unwrap().is_err());
        once.await.unwrap().unwrap();
        assert!(fails_itself.await.unwrap().is_err());
        assert!(fails_late.await.unwrap().is_err());
        last.await.unwrap().unwrap();
        assert_eq!(count(&storage), 3);
        drop(handle);
        writer.join();
    }

    #[tokio::test]
    async fn what_nobody_awaits_any_more_is_done_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let (writer, handle) = Clock::default().start(plain(&storage));
        hurry(&handle).await;
        let (tell, told) = mpsc::channel();
        drop(handle.submit_soon(move |_: &mut Plain| {
            tell.send(()).unwrap();
            Ok(())
        }));
        told.recv_timeout(Duration::from_secs(30)).unwrap();
        handle.defer(insert(1));
        drop(handle);
        writer.join();
        assert_eq!(count(&storage), 8 + 1);
    }

    #[test]
    fn a_disk_that_is_found_full_here_gives_the_reserve_free_and_leaves_the_rest_to_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let counts = CountingVfs::register("full-here").unwrap();
        let storage = Storage::folder(folder.path()).through("full-here");
        let reserve = Reserve::new(storage.clone(), 1024 * 1024);
        let mut alone = Alone::new(&storage, &Clock::default(), Some(reserve));
        alone.hurry();
        assert!(folder.path().join("reserve").exists());
        counts.break_with(Fault::Full);
        let mut refused = alone.wait(1);
        assert_eq!(alone.work.work_here(), Next::CallThread);
        assert!(refused.try_recv().unwrap().is_err());
        assert_eq!(alone.work.watched.disk(), Disk::Full);
        assert!(!folder.path().join("reserve").exists());
        counts.mend();
        let mut told = alone.wait(2);
        assert!(!alone.here());
        assert!(matches!(alone.work.turn(), Turn::Sleep(Some(_))));
        told.try_recv().unwrap().unwrap();
        assert_eq!(count(&storage), 8 + 1);
    }

    /// Breaks down where no operation can be blamed.
    struct Brittle(Plain, Arc<AtomicBool>);

    impl Store for Brittle {
        fn connection(&mut self) -> &mut Connection {
            assert!(!self.1.load(Ordering::SeqCst), "as a bug would");
            self.0.connection()
        }
    }

    #[tokio::test]
    async fn when_the_writer_itself_breaks_down_everybody_is_told() {
        for here in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let breaks = Arc::new(AtomicBool::new(false));
            let store = Brittle(plain(&Storage::folder(folder.path())), Arc::clone(&breaks));
            let (writer, handle) = Clock::default().start(store);
            for x in 0..8 {
                handle.run(move |store: &mut Brittle| insert(x)(&mut store.0)).await.unwrap();
            }
            breaks.store(true, Ordering::SeqCst);
            let first = handle.submit_soon(|_: &mut Brittle| Ok(()));
            let others: Vec<_> =
                if here { Vec::new() } else { (0..8).map(|_| handle.submit(|_| Ok(()))).collect() };
            assert!(first.await.is_err());
            for other in others {
                assert!(other.await.is_err());
            }
            assert!(matches!(handle.run(|_| Ok(())).await, Err(StoreError::Stopped)));
            drop(handle);
            writer.join();
        }
    }

    #[test]
    fn the_log_of_work_that_was_done_elsewhere_is_folded_by_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let mut alone = Alone::new(&storage, &Clock::default(), None);
        let log = || std::fs::metadata(storage.file("t.db-wal")).unwrap().len();
        fold_log(alone.work.store.connection());
        (0..8).for_each(|_| alone.work.pace.note(Duration::ZERO));
        let _first = alone.wait(1);
        // It would sleep for ever.
        assert_eq!(alone.work.work_here(), Next::CallThread);
        assert!(0 < log());
        assert!(matches!(alone.work.turn(), Turn::Sleep(Some(_))));
        let _second = alone.wait(2);
        assert_eq!(alone.work.work_here(), Next::Nothing);
        alone.work.worked_at = Instant::now().checked_sub(IDLE);
        assert!(matches!(alone.work.turn(), Turn::Sleep(None)));
        assert_eq!(log(), 0);
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
