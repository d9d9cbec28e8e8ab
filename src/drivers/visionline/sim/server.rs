//! The server: one command a connection, orders that outlive it, and what goes wrong on demand.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, oneshot},
    task::JoinSet,
};

use super::{
    web::Web,
    wire::{Command, LONGEST, parse},
    world::{Denial, Property, PropertyError, World},
};
use crate::{
    seams::{Clock, Listener, Stream},
    sim::{Direction, Tape},
};

/// How the simulator behaves from the start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Rooms, doors and encoders.
    pub property: Property,
    /// How long an encoder waits for a card.
    pub card_wait: Duration,
    /// What the clock shows first; otherwise the host's time.
    pub starts_at: Option<Timestamp>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { property: Property::default(), card_wait: Duration::from_secs(60), starts_at: None }
    }
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

#[derive(Debug)]
pub(super) struct State {
    pub property: Property,
    pub world: World,
    pub faults: Faults,
    pub tape: Tape,
    /// What became of each command, oldest first.
    pub orders: Vec<Value>,
    pub card_wait: Duration,
    /// Whether the clients' address is entered.
    pub listed: bool,
    pub quit: bool,
    pub address: Option<std::net::SocketAddr>,
    pub web: Web,
    /// Where the Web API listens, and the file with its user's password.
    pub web_at: Option<(std::net::SocketAddr, std::path::PathBuf)>,
    connections: u64,
    pub open: u64,
}

/// What goes wrong next. Each strikes once, but `slow` and `no_line_end`, which last.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub silent: bool,
    pub nak: bool,
    pub write_then_silent: bool,
    pub queued: bool,
    pub error: Option<(u32, String)>,
    pub late: Option<Duration>,
    /// Bytes that may still pass, both ways together, before the connection ends.
    pub close_after: Option<usize>,
    pub slow: Option<Duration>,
    pub no_line_end: bool,
}

/// The connection ends.
pub(super) struct HungUp;

impl Simulator {
    /// A server without cards. Needs a running tokio runtime, whose clock moves its time.
    ///
    /// # Errors
    /// When the property cannot be.
    pub fn new(settings: Settings) -> Result<Self, PropertyError> {
        let zone = settings.property.check()?;
        let starts_at = settings.starts_at.unwrap_or_else(|| Clock::system().now());
        let state = State {
            world: World::new(&settings.property),
            property: settings.property,
            faults: Faults::default(),
            tape: Tape::default(),
            orders: Vec::new(),
            card_wait: settings.card_wait,
            listed: true,
            quit: false,
            address: None,
            web: Web::default(),
            web_at: None,
            connections: 0,
            open: 0,
        };
        let clock = Clock::simulated(starts_at);
        Ok(Self(Arc::new(Shared { clock, zone, state: Mutex::new(state), changes: Notify::new() })))
    }

    /// Serves clients until dropped.
    pub async fn accept(&self, mut listener: Box<dyn Listener>) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = clients.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _from)) => {
                        let simulator = self.clone();
                        clients.spawn(async move { simulator.serve(stream).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "client not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }

    /// Holds one connection until it ends.
    async fn serve(&self, mut stream: Box<dyn Stream>) {
        let (label, listed) = self.change(|state, now| {
            state.connections += 1;
            state.open += 1;
            let label = format!("tcp#{}", state.connections);
            let kind = if state.listed { "opened" } else { "refused" };
            state.tape.record(now, &label, Direction::Event, kind, &[]);
            (label, state.listed)
        });
        if listed {
            let _either_way = self.converse(&mut stream, &label).await;
        }
        self.change(|state, now| {
            state.open -= 1;
            state.tape.record(now, &label, Direction::Event, "closed", &[]);
        });
    }

    async fn converse(&self, stream: &mut Box<dyn Stream>, label: &str) -> Result<(), HungUp> {
        let line = self.hear_line(stream).await?;
        let kind = line.get(..3).map_or_else(String::new, |name| name.escape_ascii().to_string());
        let nak = self.change(|state, now| {
            state.tape.record(now, label, Direction::Received, &kind, &line);
            std::mem::take(&mut state.faults.nak)
        });
        if nak {
            return self.say(stream, label, "NAK", b"\x15").await;
        }
        let mut order = self.order(&line, label);
        if self.change(|state, _| std::mem::take(&mut state.faults.queued)) {
            self.say(stream, label, "RC85", &spelled(&line, 85, &[], "")).await?;
        }
        let mut more = [0; 64];
        let answer = tokio::select! {
            biased;
            answer = &mut order => answer.ok(),
            // A second command on one connection, or the end of it.
            _ = stream.read(&mut more) => return Err(HungUp),
        };
        let Some((kind, answer)) = answer else {
            // Silence: until the client has enough.
            let _whatever_it_says = stream.read(&mut more).await;
            return Err(HungUp);
        };
        if let Some(late) = self.change(|state, _| state.faults.late.take()) {
            tokio::time::sleep(late).await;
        }
        self.say(stream, label, &kind, &answer).await?;
        // One command a connection: whatever else comes is not heard.
        let _closed_by_the_client = stream.read(&mut more).await;
        Ok(())
    }

    /// A line without its end.
    async fn hear_line(&self, stream: &mut Box<dyn Stream>) -> Result<Vec<u8>, HungUp> {
        let mut line = Vec::new();
        loop {
            let byte = stream.read_u8().await.map_err(|_| HungUp)?;
            if self.pass(1) == 0 {
                return Err(HungUp);
            }
            line.push(byte);
            if line.ends_with(b"\r\n") {
                line.truncate(line.len() - 2);
                return Ok(line);
            }
            if line.len() > LONGEST {
                return Err(HungUp);
            }
        }
    }

    async fn say(
        &self,
        stream: &mut Box<dyn Stream>,
        label: &str,
        kind: &str,
        bytes: &[u8],
    ) -> Result<(), HungUp> {
        let (no_line_end, slow) = self.look(|state| (state.faults.no_line_end, state.faults.slow));
        let bytes = match no_line_end {
            true => bytes.strip_suffix(b"\r\n").unwrap_or(bytes),
            false => bytes,
        };
        let passed = self.pass(bytes.len());
        self.change(|state, now| state.tape.record(now, label, Direction::Sent, kind, &bytes[..passed]));
        let step = if slow.is_some() { 1 } else { bytes.len().max(1) };
        for part in bytes[..passed].chunks(step) {
            tokio::time::sleep(slow.unwrap_or_default()).await;
            stream.write_all(part).await.map_err(|_| HungUp)?;
        }
        if passed < bytes.len() { Err(HungUp) } else { Ok(()) }
    }

    /// How many of `count` bytes pass before the connection ends.
    fn pass(&self, count: usize) -> usize {
        self.change(|state, _| {
            let Some(left) = &mut state.faults.close_after else { return count };
            let passed = count.min(*left);
            *left -= passed;
            if passed < count {
                state.faults.close_after = None;
            }
            passed
        })
    }

    /// Takes an order. It lives on by itself, whatever becomes of the connection; no answer means silence.
    pub(super) fn order(&self, line: &[u8], label: &str) -> oneshot::Receiver<(String, Vec<u8>)> {
        let (answer, receiver) = oneshot::channel();
        let (simulator, line, label) = (self.clone(), line.to_vec(), label.to_owned());
        tokio::spawn(async move {
            let (result, silent) = simulator.fulfil(&line).await;
            let (code, items, text, card) = match result {
                Ok((code, items, card)) => (code, items, String::new(), card),
                Err(Denial(code, text)) => (code, Vec::new(), text, None),
            };
            simulator.change(|state, now| {
                state.orders.push(json!({
                    "at": now,
                    "line": label,
                    "said": String::from_utf8_lossy(&line),
                    "code": code,
                    "text": text,
                    "card": card,
                }));
            });
            if !silent {
                let _nobody_listens_any_more =
                    answer.send((format!("RC{code}"), spelled(&line, code, &items, &text)));
            }
        });
        receiver
    }

    /// The end of an order, and whether nothing is said of it.
    async fn fulfil(&self, line: &[u8]) -> (Result<Fulfilled, Denial>, bool) {
        let local = self.local_now();
        let begun = self.change(|state, _| state.begin(line, local));
        let command = match begun {
            Ok(command) => command,
            Err(denial) => {
                return (Err(denial), self.change(|state, _| std::mem::take(&mut state.faults.silent)));
            }
        };
        let encoder = command.encoder().to_owned();
        let lies = self.until(|state| state.world.lying_on(&encoder).map(drop));
        let _in_time_or_not = tokio::time::timeout(self.look(|state| state.card_wait), lies).await;
        let local = self.local_now();
        self.change(|state, _| state.finish(&command, local))
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

/// A result code, the items beside it, and the card.
type Fulfilled = (u32, Vec<String>, Option<String>);

impl State {
    fn begin(&mut self, line: &[u8], now: DateTime) -> Result<Command, Denial> {
        if let Some((code, text)) = self.faults.error.take() {
            return Err(Denial(code, text));
        }
        let command = parse(line).map_err(|syntax| Denial(128, syntax.to_string()))?;
        match &command {
            Command::Make(make) => self.world.admit(make, now)?,
            Command::Read { encoder, .. } => self.world.idle(encoder)?,
        }
        self.occupy(command.encoder(), true);
        Ok(command)
    }

    fn finish(&mut self, command: &Command, now: DateTime) -> (Result<Fulfilled, Denial>, bool) {
        self.occupy(command.encoder(), false);
        let serial = |wanted: bool, serial: &str| wanted.then(|| format!("SR{serial}"));
        let result = match command {
            Command::Make(make) => self
                .world
                .write(make, now)
                .map(|(card, chip)| (0, serial(make.serial_wanted, &chip).into_iter().collect(), Some(card))),
            Command::Read { encoder, serial_wanted } => {
                self.world.read(encoder, now).map(|(code, mut items, chip)| {
                    items.extend(serial(*serial_wanted, &chip));
                    (code, items, self.world.lying_on(encoder).map(str::to_owned))
                })
            }
        };
        let wrote = matches!(command, Command::Make(_)) && result.is_ok();
        let silent = std::mem::take(&mut self.faults.silent)
            || (wrote && std::mem::take(&mut self.faults.write_then_silent));
        (result, silent)
    }

    fn occupy(&mut self, encoder: &str, busy: bool) {
        if let Some(encoder) = self.world.encoders.get_mut(encoder) {
            encoder.busy = busy;
        }
    }
}

/// An answer: the command's name and encoder as they were said, then the code.
fn spelled(line: &[u8], code: u32, items: &[String], text: &str) -> Vec<u8> {
    let line = String::from_utf8_lossy(line);
    let name = line.split(';').next().filter(|name| ["CCA", "CCB"].contains(name)).unwrap_or("CCA");
    let mut answer = format!("{name};");
    if let Some(encoder) = line.split(';').skip(1).find(|item| item.starts_with("EA")) {
        answer.push_str(&format!("{encoder};"));
    }
    answer.push_str(&format!("RC{code};"));
    for item in items {
        answer.push_str(&format!("{item};"));
    }
    if !text.is_empty() {
        answer.push_str(&format!("ET{text};"));
    }
    answer.push_str("\r\n");
    answer.into_bytes()
}
