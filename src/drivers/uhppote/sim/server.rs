//! The boards on their ports, and what goes wrong on demand.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::civil::DateTime;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    sync::Notify,
    task::JoinSet,
};

use super::board::{Board, Frame};
use crate::seams::{Listener, Stream};

/// A TCP client that says nothing for so long is hung up on.
const IDLE: Duration = Duration::from_secs(30);

/// How boards are from the start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The serial number of each.
    pub serials: Vec<u32>,
    /// How many cards each has room for.
    pub cards: usize,
    /// How many events each keeps.
    pub events: usize,
    /// What the clocks show first.
    pub starts_at: DateTime,
}

/// Boards that share their ports. Cheap to clone; all clones are one house.
#[derive(Debug, Clone)]
pub struct House(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes whoever waits in the order in which they wait: a simulation has to go the same way every time.
    changes: Notify,
    /// What sends events; none before the ports are open.
    socket: Mutex<Option<Arc<UdpSocket>>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub boards: Vec<Board>,
    pub faults: Vec<Armed>,
    pub quit: bool,
}

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It never arrives.
    Deaf,
    /// It is done, and the answer is lost.
    Silent,
    /// The answer comes later.
    Delay(Duration),
    /// The answer comes twice.
    Double,
    /// The answer has another board's serial number.
    Foreign,
    /// It is answered by what is no frame.
    Noise,
}

#[derive(Debug)]
pub(super) struct Armed {
    pub fault: Fault,
    /// Only with this function.
    pub on: Option<u8>,
    /// How often it still happens; without a number, until cleared.
    pub times: Option<u32>,
}

impl State {
    fn fault(&mut self, function: Option<u8>) -> Option<Fault> {
        let at = self.faults.iter().position(|armed| armed.on.is_none() || armed.on == function)?;
        let armed = &mut self.faults[at];
        let fault = armed.fault;
        if let Some(times) = &mut armed.times {
            *times -= 1;
            if *times == 0 {
                self.faults.remove(at);
            }
        }
        Some(fault)
    }
}

/// What goes back for a request.
#[derive(Debug, Default)]
struct Said {
    after: Duration,
    packets: Vec<Vec<u8>>,
    /// Events for listeners; they are sent before the answer.
    events: Vec<(std::net::SocketAddr, Frame)>,
}

impl House {
    /// Boards that hold nothing. Needs a running tokio runtime, whose clock moves theirs.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let board = |serial: &u32| Board::new(*serial, settings.starts_at, settings.cards, settings.events);
        let state =
            State { boards: settings.serials.iter().map(board).collect(), faults: Vec::new(), quit: false };
        Self(Arc::new(Shared { state: Mutex::new(state), changes: Notify::new(), socket: Mutex::new(None) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic while held")
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.0.changes.notify_waiters();
        result
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, so: impl Fn(&State) -> bool) {
        loop {
            let changed = self.0.changes.notified();
            if self.look(&so) {
                return;
            }
            changed.await;
        }
    }

    /// What the boards send back for one packet, without any port: answers, in the order of the boards. Events do not go
    /// to listeners this way.
    pub fn answers(&self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.hear(packet).packets
    }

    fn hear(&self, packet: &[u8]) -> Said {
        self.change(|state| {
            let mut said = Said::default();
            let fault = state.fault(packet.get(1).copied());
            if fault == Some(Fault::Deaf) {
                return said;
            }
            for board in &mut state.boards {
                let before = board.events.back().map(|event| event.index);
                let answer = board.answer(packet);
                if before != board.events.back().map(|event| event.index) {
                    said.events.extend(board.listener().map(|to| (to, board.status())));
                }
                said.packets.extend(answer.map(|answer| answer.to_vec()));
            }
            match fault {
                None | Some(Fault::Deaf) => {}
                Some(Fault::Silent) => said.packets.clear(),
                Some(Fault::Delay(after)) => said.after = after,
                Some(Fault::Double) => said.packets.extend_from_within(..),
                Some(Fault::Foreign) => {
                    for packet in &mut said.packets {
                        packet[4] ^= 0xFF;
                    }
                }
                Some(Fault::Noise) => said.packets = vec![b"no frame of sixty-four bytes".to_vec()],
            }
            said
        })
    }

    /// Sends the last event of a board to its listener.
    pub(super) async fn tell(&self, at: usize) {
        let event = self.look(|state| {
            let board = &state.boards[at];
            board.listener().map(|to| (to, board.status()))
        });
        self.send(event.into_iter().collect()).await;
    }

    async fn send(&self, events: Vec<(std::net::SocketAddr, Frame)>) {
        let socket = self.0.socket.lock().expect("no panic while held").clone();
        let Some(socket) = socket else { return };
        for (to, event) in events {
            if let Err(error) = socket.send_to(&event, to).await {
                tracing::debug!(%error, %to, "event not sent");
            }
        }
    }

    /// Answers datagrams until dropped.
    pub(super) async fn serve_udp(&self, socket: Arc<UdpSocket>) {
        *self.0.socket.lock().expect("no panic while held") = Some(socket.clone());
        let mut answers = JoinSet::new();
        let mut buffer = [0; 512];
        loop {
            let (count, from) = tokio::select! {
                biased;
                Some(_) = answers.join_next() => continue,
                received = socket.recv_from(&mut buffer) => match received {
                    Ok(received) => received,
                    Err(error) => {
                        // Somebody who was answered is gone.
                        tracing::debug!(%error, "datagram not received");
                        continue;
                    }
                },
            };
            let said = self.hear(&buffer[..count]);
            let (house, socket) = (self.clone(), socket.clone());
            let send = async move {
                house.send(said.events).await;
                for packet in said.packets {
                    let _gone_is_fine = socket.send_to(&packet, from).await;
                }
            };
            if said.after.is_zero() {
                send.await;
            } else {
                answers.spawn(async move {
                    tokio::time::sleep(said.after).await;
                    send.await;
                });
            }
        }
    }

    /// Answers TCP clients until dropped: one request a connection.
    pub(super) async fn serve_tcp(&self, mut listener: Box<dyn Listener>) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = clients.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _from)) => {
                        let house = self.clone();
                        clients.spawn(async move { house.converse(stream).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "client not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }

    async fn converse(&self, mut stream: Box<dyn Stream>) {
        let mut buffer = [0; 128];
        // A request comes whole or not at all.
        let Ok(Ok(count)) = tokio::time::timeout(IDLE, stream.read(&mut buffer)).await else { return };
        let said = self.hear(&buffer[..count]);
        tokio::time::sleep(said.after).await;
        self.send(said.events).await;
        for packet in &said.packets {
            if stream.write_all(packet).await.is_err() {
                return;
            }
        }
        if said.packets.is_empty() {
            let _until_the_client_has_enough = tokio::time::timeout(IDLE, stream.read(&mut buffer)).await;
        }
    }

    pub(super) fn serials(&self) -> Vec<u32> {
        self.look(|state| state.boards.iter().map(|board| board.serial).collect())
    }

    pub(super) fn boards(&self) -> Value {
        json!({ "boards": self.serials() })
    }
}
