//! Tasks, and what ends them together.
//!
//! An operating system ends a process with all its tasks at once. A simulation has several processes in one runtime;
//! there, each is a [`Process`], and every task that one of its tasks starts belongs to it. Elsewhere there is no
//! [`Process`], and [`spawn`] is tokio's own.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

tokio::task_local! {
    static PROCESS: Process;
}

/// Starts a task; in a simulation, one of the same process.
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match Process::current() {
        None => tokio::spawn(future),
        Some(process) => process.spawn(future),
    }
}

/// A future for a task of a `JoinSet`; in a simulation, one of the same process.
pub fn task<F: Future>(future: F) -> impl Future<Output = F::Output> {
    Task { process: Process::current(), future: Box::pin(future) }
}

/// A simulated process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

struct Inner {
    dead: AtomicBool,
    polls: AtomicU64,
    last_poll: AtomicU64,
    tasks: Mutex<Vec<AbortHandle>>,
    has_died: Box<dyn Fn() -> bool + Send + Sync>,
    end: watch::Sender<bool>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("dead", &self.is_dead()).finish_non_exhaustive()
    }
}

impl Process {
    /// A process that has begun. After each step of each task `has_died` is asked whether that step was its last one:
    /// nothing of the process runs any more then.
    #[must_use]
    pub fn new(has_died: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            dead: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            last_poll: AtomicU64::new(u64::MAX),
            tasks: Mutex::default(),
            has_died: Box::new(has_died),
            end: watch::Sender::new(false),
        }))
    }

    fn current() -> Option<Self> {
        PROCESS.try_with(Clone::clone).ok()
    }

    /// Starts a task of this process.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let started = tokio::spawn(Task { process: Some(self.clone()), future: Box::pin(future) });
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(started.abort_handle());
        if self.is_dead() {
            started.abort();
        }
        started
    }

    /// Ends all its tasks where they stand.
    pub fn kill(&self) {
        if !self.0.dead.swap(true, Ordering::SeqCst) {
            for task in self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                task.abort();
            }
            self.0.end.send_replace(true);
        }
    }

    /// Ends it before the step after `more` further ones, of whichever task.
    pub fn die_after(&self, more: u64) {
        self.0.last_poll.store(self.0.polls.load(Ordering::SeqCst) + more, Ordering::SeqCst);
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::SeqCst)
    }

    /// How many steps its tasks have taken.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.0.polls.load(Ordering::SeqCst)
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        // The sender lives as long as this.
        let _ = self.0.end.subscribe().wait_for(|dead| *dead).await;
    }

    /// Takes a step, if this is not where it ends.
    fn step<T>(&self, step: impl FnOnce() -> Poll<T>) -> Poll<T> {
        if self.is_dead() {
            return Poll::Pending;
        }
        if self.0.last_poll.load(Ordering::SeqCst) <= self.0.polls.fetch_add(1, Ordering::SeqCst) {
            self.kill();
            return Poll::Pending;
        }
        let stepped = PROCESS.sync_scope(self.clone(), step);
        if !self.is_dead() && (self.0.has_died)() {
            self.kill();
        }
        // Nobody hears what a dead process has done last.
        if self.is_dead() { Poll::Pending } else { stepped }
    }
}

struct Task<F> {
    process: Option<Process>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Task<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { process, future } = &mut *self;
        match process {
            None => future.as_mut().poll(context),
            Some(process) => process.step(|| future.as_mut().poll(context)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{task::yield_now, time::sleep};

    use super::*;

    /// Counts steps in two tasks of a process, one of them started by the other.
    fn counting(process: &Process) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        let counts = async |count: Arc<AtomicU64>| {
            loop {
                count.fetch_add(1, Ordering::SeqCst);
                yield_now().await;
            }
        };
        let (one, other) = (Arc::clone(&count), Arc::clone(&count));
        process.spawn(async move {
            spawn(async move { counts(other).await });
            counts(one).await;
        });
        count
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_ends_with_all_its_tasks_at_the_step_that_was_chosen() {
        let process = Process::new(|| false);
        process.die_after(100);
        let count = counting(&process);
        process.ended().await;
        assert_eq!(count.load(Ordering::SeqCst), 100);
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(count.load(Ordering::SeqCst), 100);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_was_the_last_one_is_heard_of_by_nobody() {
        let died = Arc::new(AtomicBool::new(false));
        let dies = Arc::clone(&died);
        let process = Process::new(move || died.load(Ordering::SeqCst));
        let told = process.spawn(async move { dies.store(true, Ordering::SeqCst) });
        process.ended().await;
        assert!(told.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn without_a_process_a_task_is_tokios_own() {
        assert!(Process::current().is_none());
        assert_eq!(spawn(async { 7 }).await.unwrap(), 7);
        assert_eq!(task(async { 8 }).await, 8);
        sleep(Duration::ZERO).await;
    }
}
