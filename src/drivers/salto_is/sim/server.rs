//! The server: conversations over any stream, and orders that outlive them.

use std::{
    fmt,
    num::NonZeroU32,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Notify, oneshot},
    task::JoinSet,
};

use super::{
    command::{Dates, Dialect},
    conversation::Conversation,
    property::{Property, PropertyError},
    state::{Begun, State},
    wire::Style,
};
use crate::{seams::Clock, sim::Direction};

/// How the simulator behaves from the start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Rooms, doors and encoders.
    pub property: Property,
    /// How long an encoder waits for a card.
    pub card_wait: Duration,
    /// How answers are written.
    pub style: Style,
    /// How times are written, both ways; Onity writes hours whatever stands here.
    pub dates: Dates,
    /// Whose form of the protocol it speaks.
    pub dialect: Dialect,
    /// How many TCP clients are served at once; a further one is accepted and hung up at once.
    pub max_clients: usize,
    /// The speed at which answers leave, if they are paced.
    pub baud: Option<NonZeroU32>,
    /// What the clock shows first; otherwise the host's time.
    pub starts_at: Option<Timestamp>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            property: Property::default(),
            card_wait: Duration::from_secs(60),
            style: Style::default(),
            dates: Dates::default(),
            dialect: Dialect::default(),
            max_clients: 16,
            baud: None,
            starts_at: None,
        }
    }
}

/// Which line a conversation came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// The serial port.
    Serial,
    /// The TCP port.
    Tcp,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serial => "serial",
            Self::Tcp => "tcp",
        })
    }
}

/// Why a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client hung up, or its line broke.
    ByClient,
    /// The simulator hung up, as a fault told it to.
    ByFault,
    /// The line was unplugged.
    Unplugged,
}

/// The simulated server. Cheap to clone; all clones are one server.
#[derive(Debug, Clone)]
pub struct Simulator(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    zone: TimeZone,
    state: Mutex<State>,
    /// Wakes whoever waits in the order in which they wait: a simulation has to go the same way every time.
    changes: Notify,
}

impl Simulator {
    /// A server with empty rooms and no cards. Needs a running tokio runtime, whose clock moves its time.
    ///
    /// # Errors
    /// When the property cannot be.
    pub fn new(settings: Settings) -> Result<Self, PropertyError> {
        let zone = settings.property.check()?;
        let starts_at = settings.starts_at.unwrap_or_else(|| Clock::system().now());
        let state = State::new(settings);
        Ok(Self(Arc::new(Shared {
            clock: Clock::simulated(starts_at),
            zone,
            state: Mutex::new(state),
            changes: Notify::new(),
        })))
    }

    /// Holds one conversation over a stream until the client, a fault or an unplugging ends it.
    pub async fn serve<S>(&self, stream: S, line: Line) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (opened, pulls) = self.open(line);
        let pulled = self.until(|state| {
            let plug = state.plug(line);
            (!plug.up || plug.pulls != pulls).then_some(())
        });
        let mut conversation = Conversation::new(self, stream, &opened.label);
        let ended = tokio::select! {
            biased;
            () = pulled => Ended::Unplugged,
            ended = conversation.hold() => ended,
        };
        if ended == Ended::ByFault {
            self.change(|state, _| state.faults.close_after_bytes = None);
        }
        ended
    }

    /// Accepts TCP clients until dropped.
    pub async fn accept(&self, listener: TcpListener) {
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                Some(_) = clients.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "TCP client not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let served = self.change(|state, now| {
                let served = state.tcp.up && clients.len() < state.max_clients;
                if !served {
                    state.tape.record(now, "tcp", Direction::Event, "refused", &[]);
                }
                served
            });
            tracing::info!(%from, served, "TCP client");
            if served {
                let _only_speed = stream.set_nodelay(true);
                let simulator = self.clone();
                clients.spawn(async move { simulator.serve(stream, Line::Tcp).await });
            }
        }
    }

    fn open(&self, line: Line) -> (Opened<'_>, u64) {
        self.change(|state, now| {
            state.conversations += 1;
            let label = format!("{line}#{}", state.conversations);
            state.tape.record(now, &label, Direction::Event, "opened", &[]);
            state.open.insert(label.clone());
            let opened = Opened { simulator: self, label };
            (opened, state.plug(line).pulls)
        })
    }

    /// Takes an order. It lives on by itself, whatever becomes of the conversation; no answer means silence.
    pub(super) fn order(&self, fields: Vec<String>, label: &str) -> oneshot::Receiver<Vec<String>> {
        let (answer, receiver) = oneshot::channel();
        let n = self.change(|state, now| state.log(now, label, fields.clone()));
        let simulator = self.clone();
        tokio::spawn(async move {
            if let Some(fields) = simulator.fulfil(n, &fields).await {
                let _nobody_listens_any_more = answer.send(fields);
            }
        });
        receiver
    }

    async fn fulfil(&self, n: u64, fields: &[String]) -> Option<Vec<String>> {
        let local = self.local_now();
        let begun = self.change(|state, now| {
            let begun = state.begin(fields, local);
            if let Begun::Ended(end) = &begun {
                state.close(n, now, end);
            }
            begun
        });
        let waiting = match begun {
            Begun::Ended(end) => return end.answer(fields),
            Begun::Waiting(waiting) => waiting,
        };
        let encoder = waiting.encoder();
        let lies = self.until(|state| state.world.lying_on(encoder).map(drop));
        let _in_time_or_not = tokio::time::timeout(self.look(|state| state.card_wait), lies).await;
        let local = self.local_now();
        let end = self.change(|state, now| {
            let end = state.finish(&waiting, local);
            state.close(n, now, &end);
            end
        });
        end.answer(fields)
    }

    /// Waits until something is so. The caller bounds it.
    pub(super) async fn until<T>(&self, mut seen: impl FnMut(&State) -> Option<T>) -> T {
        loop {
            let mut change = pin!(self.0.changes.notified());
            // Before looking, so that no change falls in between.
            change.as_mut().enable();
            if let Some(found) = self.look(&mut seen) {
                return found;
            }
            change.await;
        }
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let result = change(&mut self.lock(), self.now());
        self.0.changes.notify_waiters();
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic while the state is held")
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub(super) fn local_now(&self) -> DateTime {
        self.now().to_zoned(self.0.zone.clone()).datetime()
    }

    pub(super) fn zone(&self) -> &TimeZone {
        &self.0.zone
    }

    pub(super) fn set_clock(&self, to: Timestamp) {
        self.0.clock.jump_to(to);
        self.0.changes.notify_waiters();
    }
}

/// A conversation's place in the books; dropping it closes them.
struct Opened<'a> {
    simulator: &'a Simulator,
    label: String,
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.simulator.change(|state, now| {
            state.tape.record(now, &self.label, Direction::Event, "closed", &[]);
            state.open.remove(&self.label);
        });
    }
}
