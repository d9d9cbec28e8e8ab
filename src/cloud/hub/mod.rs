//! Where bridges come in: who may, and what both sides owe each other then.
//!
//! A connection goes through `door` (TLS, one HTTP request) and, with a certificate of ours that counts, `talk` (hello,
//! welcome, and the two streams). Whoever has none may ask [`Enrolment`] for one and is gone after the answer.
//!
//! A conversation is one task and three loops: one reads, one waits for commits in the order in which their operations
//! were begun and owes the acknowledgements, one writes. Each wait on a peer has a deadline, each queue a bound, so
//! that a bridge that stops reading or floods harms itself alone. Beside them it waits for what ends it: a newer
//! connection of the same bridge, keys that were revoked, a stop.
//!
//! This room never decides what a report means and never makes an order; it carries them between sockets and
//! [`Db`].

mod door;
mod strangers;
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
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{Signals, enrol::Enrolment, store::Db};
use crate::{
    model::BridgeId,
    seams::{self, Clock, Listener, Random, Stream},
    store::WriterHandle,
};
use strangers::{MustGo, Place, Strangers};

/// How many connections may stand that have not yet shown who they are. Further ones wait in the kernel's queue, unless
/// they come from an address that has fewer of the places than another.
const STRANGERS: usize = 256;
/// How many sites may wait at a time for a person's yes with their request held; others are told to ask again.
const HELD: usize = 64;
/// Everything from the first byte of a connection to its hello.
const HELLO_WITHIN: Duration = Duration::from_secs(15);
/// How long the listener rests after an error such as "too many open files".
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long connections may take to end when the cloud stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Bridges that are told to come again do so one after the other: each of them takes so much of the cloud's time.
const COME_AGAIN_EACH: Duration = Duration::from_millis(15);
/// But nobody waits for longer than this.
const COME_AGAIN_WITHIN: Duration = Duration::from_secs(30);

/// Where bridges come in.
pub struct Entrance {
    /// Where it listens.
    pub listener: Box<dyn Listener>,
    /// Ends TLS, and judges certificates.
    pub tls: TlsAcceptor,
    /// Takes new bridges in; without it, only those come in that are paired.
    pub enrolment: Option<Enrolment>,
}

impl std::fmt::Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrance").field("enrolment", &self.enrolment).finish_non_exhaustive()
    }
}

/// Serves bridges that are paired, until `shutdown` becomes true; then each is told to come again and the function
/// returns.
pub async fn serve(
    listener: Box<dyn Listener>,
    tls: TlsAcceptor,
    db: WriterHandle<Db>,
    signals: Signals,
    clock: Clock,
    random: Random,
    shutdown: watch::Receiver<bool>,
) {
    let entrance = Entrance { listener, tls, enrolment: None };
    serve_at(entrance, db, signals, clock, random, shutdown).await;
}

/// [`serve`], where new bridges may be taken in as well.
pub async fn serve_at(
    entrance: Entrance,
    db: WriterHandle<Db>,
    signals: Signals,
    clock: Clock,
    random: Random,
    mut shutdown: watch::Receiver<bool>,
) {
    let Entrance { mut listener, tls, enrolment } = entrance;
    let hub = Arc::new(Hub {
        tls,
        enrolment,
        db,
        signals,
        clock,
        random,
        shutdown: shutdown.clone(),
        held: Semaphore::new(HELD),
        speakers: Mutex::default(),
    });
    let strangers = Strangers::new(STRANGERS);
    let mut connections = JoinSet::new();
    // One that was accepted waits here for a place.
    let mut newcomer: Option<(Box<dyn Stream>, SocketAddr)> = None;
    loop {
        let admitted = async {
            if newcomer.is_none() {
                newcomer = Some(listener.accept().await?);
            }
            let from = newcomer.as_ref().map(|(_, from)| *from).expect("one has just come");
            let place = strangers.place(from.ip()).await;
            Ok::<_, std::io::Error>((newcomer.take().expect("it waits here"), place))
        };
        tokio::select! {
            biased;
            () = stopping(&mut shutdown) => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a bridge's connection panicked");
                }
            }
            admitted = admitted => match admitted {
                Ok(((stream, from), (place, must_go))) => {
                    let hub = Arc::clone(&hub);
                    let connection = async move { hub.connection(stream, from, place, must_go).await };
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
    enrolment: Option<Enrolment>,
    db: WriterHandle<Db>,
    signals: Signals,
    clock: Clock,
    random: Random,
    shutdown: watch::Receiver<bool>,
    held: Semaphore,
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
    async fn connection(&self, stream: Box<dyn Stream>, from: SocketAddr, place: Place, must_go: MustGo) {
        let until = Instant::now() + HELLO_WITHIN;
        let mut shutdown = self.shutdown.clone();
        let admitted = tokio::select! {
            biased;
            () = stopping(&mut shutdown) => return,
            admitted = door::admit(self, stream, from, (place, must_go), until) => admitted,
        };
        match admitted {
            Ok(guest) => talk::converse(self, guest, from, until).await,
            Err(why) => tracing::debug!(%from, error = %why, "a stranger went"),
        }
    }

    /// How long a bridge that is told to come again stays away.
    fn come_again_after(&self) -> Duration {
        let bridges = self.speakers.lock().expect("no panic while held").fences.len();
        let span = COME_AGAIN_EACH * u32::try_from(bridges).unwrap_or(u32::MAX);
        let span = u64::try_from(span.min(COME_AGAIN_WITHIN).as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.random.below(span))
    }
}
