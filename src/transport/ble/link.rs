//! A connection to one peripheral, away from the thread that holds it, and the shell that runs a conversation over it.

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::gatt::{Heard, Talk, Want, WriteKind};

/// Why something did not go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The peer refused it; it had no effect.
    Refused,
    /// The link is gone, or nobody acknowledged it in time.
    Lost,
}

/// What the holder of a link asks of the thread.
#[derive(Debug)]
pub(super) enum Ask {
    Subscribe { to: Uuid, answer: oneshot::Sender<Result<(), Broken>> },
    Write { to: Uuid, value: Vec<u8>, kind: WriteKind, answer: oneshot::Sender<Result<(), Broken>> },
}

/// A connection to one peripheral. It ends when this is dropped.
#[derive(Debug)]
pub struct Link {
    asks: mpsc::Sender<Ask>,
    values: mpsc::Receiver<(Uuid, Vec<u8>)>,
    signal: Option<i16>,
    /// What is notified already.
    subscribed: Vec<Uuid>,
}

impl Link {
    pub(super) fn new(
        asks: mpsc::Sender<Ask>,
        values: mpsc::Receiver<(Uuid, Vec<u8>)>,
        signal: Option<i16>,
    ) -> Self {
        Self { asks, values, signal, subscribed: Vec::new() }
    }

    /// How strong the peripheral's signal was when it was last heard, in dBm, where the adapter told.
    #[must_use]
    pub fn signal(&self) -> Option<i16> {
        self.signal
    }

    /// Forgets what was notified and nobody has taken: the next conversation does not follow from it.
    pub fn forget(&mut self) {
        while self.values.try_recv().is_ok() {}
    }

    /// Has a characteristic's values notified, once for the whole of the link.
    async fn subscribe(&mut self, to: Uuid) -> Result<(), Broken> {
        if !self.subscribed.contains(&to) {
            self.ask(|answer| Ask::Subscribe { to, answer }).await?;
            self.subscribed.push(to);
        }
        Ok(())
    }

    async fn ask(&self, ask: impl FnOnce(oneshot::Sender<Result<(), Broken>>) -> Ask) -> Result<(), Broken> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(ask(answer)).await.map_err(|_| Broken::Lost)?;
        answered.await.unwrap_or(Err(Broken::Lost))
    }
}

/// Runs a conversation over a link until it is done. What is written and heard is never traced but for its length.
pub async fn run<T: Talk>(link: &mut Link, talk: &mut T, mut note: impl FnMut(T::Note)) -> T::Done {
    let now = || Instant::now().into_std();
    loop {
        let result = match talk.poll(now()) {
            Want::Subscribe(to) => link.subscribe(to).await,
            Want::Write { to, value, kind } => {
                tracing::trace!(target: "wire", out_bytes = value.len());
                link.ask(|answer| Ask::Write { to, value, kind, answer }).await
            }
            Want::Wait { until } => {
                match timeout_at(until.into(), link.values.recv()).await {
                    Err(_elapsed) => talk.handle(now(), Heard::Timeout),
                    Ok(Some((from, value))) => {
                        tracing::trace!(target: "wire", in_bytes = value.len());
                        talk.handle(now(), Heard::Value { from, value: &value });
                    }
                    Ok(None) => talk.handle(now(), Heard::Closed),
                }
                Ok(())
            }
            Want::Note(what) => {
                note(what);
                Ok(())
            }
            Want::Done(done) => return done,
        };
        match result {
            Ok(()) => {}
            Err(Broken::Refused) => talk.handle(now(), Heard::Refused),
            Err(Broken::Lost) => talk.handle(now(), Heard::Closed),
        }
    }
}
