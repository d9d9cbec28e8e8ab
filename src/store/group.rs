//! Operations that share a transaction.
//!
//! One that fails leaves nothing behind and harms no other. A savepoint for each would do that, and copies every page that
//! an operation touches. So those that can be run again are run without: what fails before it wrote anything, or as the
//! first that writes, is undone for nothing, and when another one fails, which hardly ever happens, all before it are undone
//! with it and run again, each in a savepoint.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Store, StoreError, health::Watched};

/// What is to be done inside a transaction, with whom to tell.
pub(super) trait Operation<S>: Send {
    /// Does it, and keeps what came of it until [`Operation::answer`].
    fn run(&mut self, store: &mut S) -> Result<(), &StoreError>;

    /// What kind it is.
    fn kind(&self) -> Kind;

    /// Tells what came of it, now that its transaction has ended.
    fn answer(self: Box<Self>, committed: Result<(), &str>);
}

/// Kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Runs once, and may take its time.
    Once,
    /// Is small, and may be run again after it was undone.
    Small,
}

/// An operation whose result goes through a channel.
pub(super) struct Asked<T, F> {
    operation: F,
    kind: Kind,
    /// Nothing before it was run.
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Asked<T, F> {
    pub(super) fn new(operation: F, kind: Kind, answer: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { operation, kind, result: None, answer }
    }
}

impl<S, T, F> Operation<S> for Asked<T, F>
where
    T: Send,
    F: FnMut(&mut S) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, store: &mut S) -> Result<(), &StoreError> {
        let operation = &mut self.operation;
        let result = catch_unwind(AssertUnwindSafe(|| operation(store))).unwrap_or_else(|_| {
            tracing::error!("a database operation panicked; it was rolled back");
            Err(StoreError::Stopped)
        });
        self.result.insert(result).as_ref().map(|_| ())
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn answer(self: Box<Self>, committed: Result<(), &str>) {
        let result = match (committed, self.result) {
            (_, Some(Err(error))) => Err(error),
            (Err(why), _) => Err(StoreError::Commit(why.to_owned())),
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(StoreError::Stopped),
        };
        // The caller may have gone; what was committed stays committed.
        let _ = self.answer.send(result);
    }
}

/// How an operation is undone if it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// With all before it, which are run again.
    Together,
    /// By its savepoint.
    Each,
}

/// A transaction under way.
pub(super) struct Group<'a, S> {
    store: &'a mut S,
    watched: &'a Watched,
    operations: Vec<Box<dyn Operation<S>>>,
    care: Care,
    /// The count of changes when the transaction began.
    began_at: u64,
    disk_full: bool,
}

/// A transaction that has ended, and who waits to hear of it.
pub(super) struct Ended<S> {
    fate: Result<(), String>,
    operations: Vec<Box<dyn Operation<S>>>,
    /// Whether somebody stumbled over a disk without room.
    pub(super) disk_full: bool,
    /// How long the commit took, if it wrote anything.
    pub(super) took: Option<Duration>,
}

impl<S> Ended<S> {
    pub(super) fn answer(self) {
        for operation in self.operations {
            operation.answer(self.fate.as_ref().map(|_| ()).map_err(String::as_str));
        }
    }
}

impl<'a, S: Store> Group<'a, S> {
    /// Runs what `next` gives in one transaction. `clock` tells how long its commit takes.
    pub(super) fn run(
        store: &'a mut S,
        watched: &'a Watched,
        next: impl FnMut(usize) -> Option<Box<dyn Operation<S>>>,
        clock: &mut dyn FnMut() -> Instant,
    ) -> Ended<S> {
        let operations = Vec::new();
        let mut group =
            Self { store, watched, operations, care: Care::Together, began_at: 0, disk_full: false };
        let committed = group.transaction(next, clock);
        let (took, fate) = match committed {
            Ok(took) => (took, Ok(())),
            Err(error) => (None, Err(group.failed(&error))),
        };
        Ended { fate, operations: group.operations, disk_full: group.disk_full, took }
    }

    fn transaction(
        &mut self,
        mut next: impl FnMut(usize) -> Option<Box<dyn Operation<S>>>,
        clock: &mut dyn FnMut() -> Instant,
    ) -> Result<Option<Duration>, StoreError> {
        // Taken out of the queue before anything can fail, so that it is told.
        let mut due = next(0);
        let begun = self.begin();
        while let Some(operation) = due {
            self.operations.push(operation);
            if begun.is_err() {
                break;
            }
            self.run_at(self.operations.len() - 1)?;
            due = next(self.operations.len());
        }
        begun?;
        let wrote = self.has_written();
        self.store.settle_up()?;
        let from = clock();
        self.store.commit()?;
        Ok(wrote.then(|| clock().saturating_duration_since(from)))
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.began_at = self.store.connection().total_changes();
        execute(self.store.connection(), "BEGIN IMMEDIATE")
    }

    /// Whether anything would be lost if all were undone.
    fn has_written(&mut self) -> bool {
        self.store.owes() || self.store.connection().total_changes() != self.began_at
    }

    /// Runs the operation of this place, the last one so far.
    fn run_at(&mut self, place: usize) -> Result<(), StoreError> {
        let is_first = !self.has_written();
        let is_small = self.operations[place].kind() == Kind::Small;
        let before = self.store.connection().total_changes();
        // A failure undoes what was put off together with what was written.
        let owed = self.store.owes();
        let has_own = self.care == Care::Each || !(is_first || is_small);
        let failed = if has_own {
            self.run_in_savepoint(place)?;
            false
        } else {
            let failed = self.attempt(place);
            self.go_on()?;
            failed
        };
        let wrote = owed || self.store.owes() || self.store.connection().total_changes() != before;
        if !wrote {
            if !is_small && !is_first {
                // It may tell of what others have done before it, so that has to stay done.
                self.care = Care::Each;
            }
            return Ok(());
        }
        if !failed {
            if !is_small {
                // It is not to be run again, so nothing before it can be.
                self.care = Care::Each;
            }
            return Ok(());
        }
        execute(self.store.connection(), "ROLLBACK")?;
        self.begin()?;
        if is_first {
            return Ok(());
        }
        self.care = Care::Each;
        for place in 0..=place {
            // Of what runs once there was nothing to undo.
            if self.operations[place].kind() == Kind::Small {
                self.run_in_savepoint(place)?;
            }
        }
        Ok(())
    }

    fn run_in_savepoint(&mut self, place: usize) -> Result<(), StoreError> {
        // What is owed for others stands outside.
        self.store.settle_up()?;
        execute(self.store.connection(), "SAVEPOINT operation")?;
        let failed = self.attempt(place);
        self.go_on()?;
        match failed {
            true => execute(self.store.connection(), "ROLLBACK TO operation")?,
            false => self.store.settle_up()?,
        }
        execute(self.store.connection(), "RELEASE operation")
    }

    /// Runs an operation; says whether it failed.
    fn attempt(&mut self, place: usize) -> bool {
        let Err(error) = self.operations[place].run(self.store) else { return false };
        self.watched.note_damage(error);
        // The store's own refusal is no news.
        self.disk_full |= error.is_disk_full() && !matches!(error, StoreError::DiskFull);
        self.store.undone();
        true
    }

    /// A full disk may undo the whole transaction from inside a statement. What ran before is gone then, and what ran now
    /// would be stored by itself and called lost.
    fn go_on(&mut self) -> Result<(), StoreError> {
        if self.store.connection().is_autocommit() {
            return Err(StoreError::Commit("the transaction was undone on the way".into()));
        }
        Ok(())
    }

    fn failed(&mut self, error: &StoreError) -> String {
        self.store.undone();
        self.watched.note_damage(error);
        self.disk_full |= error.is_disk_full() && !matches!(error, StoreError::DiskFull);
        let why = error.chain();
        tracing::error!(
            error = why,
            operations = self.operations.len(),
            "a commit failed; nothing of it is stored"
        );
        if !self.store.connection().is_autocommit() {
            let _ = execute(self.store.connection(), "ROLLBACK");
        }
        why
    }
}

fn execute(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
