//! The websocket of the bridges: who may come in, and what both sides owe each other then.
//!
//! A connection goes through `door` (TLS with a certificate of ours, one HTTP request) and `talk` (hello, welcome, and the two
//! streams). It is one task and three loops: one reads, one waits for commits in the order in which their operations
//! were begun and owes the acknowledgements, one writes. Each wait on a peer has a deadline, each queue a bound, so
//! that a bridge that stops reading or floods harms itself alone.
//!
//! This room never decides what a report means and never makes an order; it carries them between sockets and
//! [`Db`].

mod door;
mod talk;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;

use super::{Signals, store::Db};
use crate::{
    model::BridgeId,
    seams::{self, Clock, Listener, Random, Stream},
    store::WriterHandle,
};

/// How many connections may stand that have not yet shown who they are. Further ones wait in the kernel's queue.
const STRANGERS: usize = 256;
/// Everything from the first byte of a connection to its hello.
const HELLO_WITHIN: Duration = Duration::from_secs(15);
/// How long the listener rests after an error such as "too many open files".
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long connections may take to end when the cloud stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Serves bridges until `shutdown` becomes true; then each is told to come again and the function returns.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    tls: TlsAcceptor,
    db: WriterHandle<Db>,
    signals: Signals,
    clock: Clock,
    random: Random,
    mut shutdown: watch::Receiver<bool>,
) {
    let hub = Hub { tls, db, signals, clock, random, shutdown: shutdown.clone(), speakers: Mutex::default() };
    let hub = Arc::new(hub);
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let mut connections = JoinSet::new();
    loop {
        let admitted = async {
            let permit = Arc::clone(&strangers).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = stopping(&mut shutdown) => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a bridge's connection panicked");
                }
            }
            (permit, accepted) = admitted => match accepted {
                Ok((stream, from)) => {
                    let hub = Arc::clone(&hub);
                    let connection = async move { hub.connection(stream, from, permit.ok()).await };
                    connections.spawn(seams::task(connection));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a bridge's connection");
                    sleep(ACCEPT_REST).await;
                }
            },
        }
    }
    let ended = timeout(STOP_WITHIN, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!(connections = connections.len(), "bridges that did not part in time are cut off");
    }
}

/// Waits until the cloud stops, or until nobody is left who could say so.
async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

struct Hub {
    tls: TlsAcceptor,
    db: WriterHandle<Db>,
    signals: Signals,
    clock: Clock,
    random: Random,
    shutdown: watch::Receiver<bool>,
    speakers: Mutex<Speakers>,
}

/// Which connection speaks for which bridge.
#[derive(Default)]
struct Speakers {
    connections: u64,
    /// Dropping a sender fences its connection.
    fences: BTreeMap<BridgeId, (u64, oneshot::Sender<()>)>,
}

impl Hub {
    async fn connection(
        &self,
        stream: Box<dyn Stream>,
        from: SocketAddr,
        permit: Option<tokio::sync::OwnedSemaphorePermit>,
    ) {
        let until = Instant::now() + HELLO_WITHIN;
        let mut shutdown = self.shutdown.clone();
        let admitted = tokio::select! {
            biased;
            () = stopping(&mut shutdown) => return,
            admitted = timeout_at(until, door::admit(self, stream)) => admitted,
        };
        match admitted {
            Ok(Ok(guest)) => talk::converse(self, guest, from, until, permit).await,
            Ok(Err(why)) => tracing::debug!(%from, error = %why, "a stranger was turned away"),
            Err(_elapsed) => tracing::debug!(%from, "a stranger said nothing in time"),
        }
    }
}
