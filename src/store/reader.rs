//! Looking without disturbing: a second connection that only reads, on a thread of its own.
//!
//! In WAL mode a reader neither waits for the writer nor makes it wait. What was committed before a question was asked
//! is in its answer, so whoever was answered by the writer sees what it wrote.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{Store, StoreError};

/// The thread and its connection go after this long without a question.
const IDLE: Duration = Duration::from_secs(30);
/// Questions that may wait; whoever comes then is told to come again.
const WAITING: usize = 64;

type Question<V> = Box<dyn FnOnce(&mut Result<V, StoreError>) + Send>;
type Open<V> = Box<dyn Fn() -> Result<V, StoreError> + Send>;

/// A way to look at a store. Cheap to clone, and to have: nothing is opened before the first question.
pub struct ReaderHandle<V>(Arc<Mutex<Inner<V>>>);

struct Inner<V> {
    open: Arc<Mutex<Open<V>>>,
    place: Place<V>,
}

enum Place<V> {
    /// A thread, where there are questions.
    Thread { name: String, questions: Option<mpsc::SyncSender<Question<V>>> },
    /// Whoever asks: where time is simulated there are no threads.
    Inline,
}

impl<V> Clone for ReaderHandle<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> std::fmt::Debug for ReaderHandle<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReaderHandle")
    }
}

impl<V: Store> ReaderHandle<V> {
    /// A reader with a thread of its own; `open` makes its view of the store there.
    pub fn new(name: &str, open: impl Fn() -> Result<V, StoreError> + Send + 'static) -> Self {
        Self::at(Place::Thread { name: name.to_owned(), questions: None }, open)
    }

    /// A reader that answers at once, on the thread of whoever asks.
    pub fn inline(open: impl Fn() -> Result<V, StoreError> + Send + 'static) -> Self {
        Self::at(Place::Inline, open)
    }

    fn at(place: Place<V>, open: impl Fn() -> Result<V, StoreError> + Send + 'static) -> Self {
        let open: Open<V> = Box::new(open);
        Self(Arc::new(Mutex::new(Inner { open: Arc::new(Mutex::new(open)), place })))
    }

    /// Asks, and waits for the answer. All that one question reads is of one moment.
    ///
    /// # Errors
    /// The question's own; [`StoreError::Busy`] when too many wait; [`StoreError::Stopped`] when it panicked.
    pub async fn run<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut V) -> Result<T, StoreError> + Send + 'static,
    {
        self.submit(question).await.unwrap_or(Err(StoreError::Stopped))
    }

    /// Asks; the receiver gets the answer.
    pub fn submit<T, F>(&self, question: F) -> oneshot::Receiver<Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&mut V) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        let question: Question<V> = Box::new(move |view| {
            let answered = match view {
                Ok(view) => at_one_moment(view, question),
                Err(StoreError::Busy) => Err(StoreError::Busy),
                Err(error) => Err(StoreError::Unreadable(error.chain())),
            };
            // Whoever asked may have gone.
            let _ = answer.send(answered);
        });
        let ourselves = Arc::downgrade(&self.0);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ask(question, ourselves);
        receiver
    }
}

impl<V: Store> Inner<V> {
    /// A question that is dropped tells its asker [`StoreError::Stopped`].
    fn ask(&mut self, mut question: Question<V>, ourselves: Weak<Mutex<Self>>) {
        let open = Arc::clone(&self.open);
        let Place::Thread { name, questions } = &mut self.place else {
            return question(&mut opened(&open));
        };
        if let Some(asked) = questions {
            question = match asked.try_send(question) {
                Ok(()) => return,
                Err(mpsc::TrySendError::Full(question)) => {
                    return question(&mut Err(StoreError::Busy));
                }
                Err(mpsc::TrySendError::Disconnected(question)) => question,
            };
        }
        let (asked, waiting) = mpsc::sync_channel(WAITING);
        asked.try_send(question).unwrap_or_else(|_| unreachable!("the channel is new"));
        let thread =
            thread::Builder::new().name(name.clone()).spawn(move || answer(&open, &waiting, &ourselves));
        *questions = thread.is_ok().then_some(asked);
    }
}

fn opened<V>(open: &Mutex<Open<V>>) -> Result<V, StoreError> {
    let open = open.lock().unwrap_or_else(PoisonError::into_inner);
    open()
}

fn answer<V>(open: &Mutex<Open<V>>, questions: &mpsc::Receiver<Question<V>>, handle: &Weak<Mutex<Inner<V>>>) {
    let mut view = opened(open);
    loop {
        let question = match questions.recv_timeout(IDLE) {
            Ok(question) => question,
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let Some(handle) = handle.upgrade() else { return };
                // Nobody asks while this is held, so no question is left behind.
                let mut inner = handle.lock().unwrap_or_else(PoisonError::into_inner);
                match (questions.try_recv(), &mut inner.place) {
                    (Ok(question), _) => question,
                    (Err(_), Place::Thread { questions, .. }) => return *questions = None,
                    (Err(_), Place::Inline) => return,
                }
            }
        };
        if view.is_err() {
            view = opened(open);
        }
        question(&mut view);
    }
}

fn at_one_moment<V: Store, T>(
    view: &mut V,
    question: impl FnOnce(&mut V) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    // What it remembers of an earlier moment is of no use in this one.
    view.undone();
    view.connection().execute_batch("BEGIN")?;
    let answered = catch_unwind(AssertUnwindSafe(|| question(view))).unwrap_or_else(|_| {
        tracing::error!("a question to the database panicked");
        Err(StoreError::Stopped)
    });
    // Ends the moment; nothing was written.
    let ended = view.connection().execute_batch("ROLLBACK");
    let answered = answered?;
    ended?;
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::seams::Storage;

    struct Plain(Connection);

    impl Store for Plain {
        fn connection(&mut self) -> &mut Connection {
            &mut self.0
        }
    }

    fn count(view: &mut Plain) -> Result<i64, StoreError> {
        Ok(view.0.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn a_reader_sees_what_was_committed_before_it_was_asked_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let of_reader = storage.clone();
        let open = move || Ok(Plain(super::super::open_reader(&of_reader, "t.db")?));
        let (reader, inline) = (ReaderHandle::new("test", open.clone()), ReaderHandle::inline(open));
        // Nothing was opened so far: there is no file. It is tried again with the next question.
        assert!(matches!(reader.run(count).await, Err(StoreError::Unreadable(_))));
        let writer = super::super::open(&storage, "t.db", &["CREATE TABLE t(x)"]).unwrap();
        for round in 1..=3 {
            writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
            writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").unwrap();
            assert_eq!(reader.run(count).await.unwrap(), round);
            assert_eq!(inline.run(count).await.unwrap(), round);
            writer.execute_batch("ROLLBACK").unwrap();
        }
        let wrote = reader.run(|view: &mut Plain| Ok(view.0.execute("INSERT INTO t VALUES (3)", [])?)).await;
        assert!(matches!(wrote, Err(StoreError::Sql(_))));
    }

    #[tokio::test]
    async fn one_question_reads_of_one_moment_and_a_panic_of_one_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let writer = super::super::open(&storage, "t.db", &["CREATE TABLE t(x)"]).unwrap();
        let of_reader = storage.clone();
        let reader =
            ReaderHandle::new("test", move || Ok(Plain(super::super::open_reader(&of_reader, "t.db")?)));
        let (looked, has_looked) = mpsc::channel();
        let (go, goes_on) = mpsc::channel::<()>();
        let both = reader.submit(move |view: &mut Plain| {
            let before = count(view)?;
            looked.send(()).unwrap();
            goes_on.recv().unwrap();
            Ok((before, count(view)?))
        });
        has_looked.recv().unwrap();
        // The writer waits for nobody who looks.
        writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
        go.send(()).unwrap();
        assert_eq!(both.await.unwrap().unwrap(), (0, 0));
        let panics = reader.run(|_: &mut Plain| -> Result<(), StoreError> { panic!("as a bug would") });
        assert!(matches!(panics.await, Err(StoreError::Stopped)));
        assert_eq!(reader.run(count).await.unwrap(), 1);
    }

    /// A view that keeps what it has read.
    struct Keeping(Connection, Option<i64>);

    impl Store for Keeping {
        fn connection(&mut self) -> &mut Connection {
            &mut self.0
        }

        fn undone(&mut self) {
            self.1 = None;
        }
    }

    #[tokio::test]
    async fn what_a_view_keeps_of_one_moment_is_not_the_answer_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let writer = super::super::open(&storage, "t.db", &["CREATE TABLE t(x)"]).unwrap();
        let reader = ReaderHandle::new("test", move || {
            Ok(Keeping(super::super::open_reader(&storage, "t.db")?, Some(7)))
        });
        for round in 1..=3 {
            writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
            let counted = reader.run(|view: &mut Keeping| {
                if view.1.is_none() {
                    view.1 = Some(view.0.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?);
                }
                Ok(view.1)
            });
            assert_eq!(counted.await.unwrap(), Some(round));
        }
    }

    #[tokio::test]
    async fn too_many_who_look_are_sent_away_rather_than_kept() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        drop(super::super::open(&storage, "t.db", &["CREATE TABLE t(x)"]).unwrap());
        let reader =
            ReaderHandle::new("test", move || Ok(Plain(super::super::open_reader(&storage, "t.db")?)));
        let (held, holds) = mpsc::channel();
        let (go, goes_on) = mpsc::channel::<()>();
        let holder = reader.submit(move |_: &mut Plain| {
            held.send(()).unwrap();
            Ok(goes_on.recv().is_ok())
        });
        holds.recv().unwrap();
        let waiting: Vec<_> = (0..WAITING).map(|_| reader.submit(count)).collect();
        assert!(matches!(reader.run(count).await, Err(StoreError::Busy)));
        go.send(()).unwrap();
        assert!(holder.await.unwrap().unwrap());
        for answer in waiting {
            assert_eq!(answer.await.unwrap().unwrap(), 0);
        }
    }
}
