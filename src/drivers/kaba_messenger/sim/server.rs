//! The server: one request a connection, orders that outlive it, and what goes wrong on demand.

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
    wire::{self, Asked, Wrong},
    world::{Denial, Property, PropertyError, World},
};
use crate::{
    seams::{Clock, Listener, Stream},
    sim::{Direction, Tape},
};

/// Most bytes of a request.
const LONGEST: usize = 64 * 1024;

/// How the simulator behaves from the start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Rooms, doors, encoders and the PMS user.
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
    /// An operation that the description leaves out.
    pub wsdl_without: Option<String>,
    pub quit: bool,
    pub address: Option<std::net::SocketAddr>,
    connections: u64,
    pub open: u64,
}

/// What goes wrong next. Each strikes once, and only a command that changes something, but `slow`, which lasts.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub silent: bool,
    pub write_then_silent: bool,
    pub denied: bool,
    pub soap_fault: bool,
    pub garbled: bool,
    pub error: Option<Denial>,
    pub http: Option<u16>,
    pub late: Option<Duration>,
    /// Bytes that may still pass, both ways together, before the connection ends.
    pub close_after: Option<usize>,
    pub slow: Option<Duration>,
}

/// The connection ends.
struct HungUp;

/// A request as it came.
struct Heard {
    line: String,
    action: String,
    body: Vec<u8>,
}

/// A status and a body.
type Answer = (u16, String);

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
            wsdl_without: None,
            quit: false,
            address: None,
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
        let label = self.change(|state, now| {
            state.connections += 1;
            state.open += 1;
            let label = format!("tcp#{}", state.connections);
            state.tape.record(now, &label, Direction::Event, "opened", &[]);
            label
        });
        let _either_way = self.converse(&mut stream, &label).await;
        self.change(|state, now| {
            state.open -= 1;
            state.tape.record(now, &label, Direction::Event, "closed", &[]);
        });
    }

    async fn converse(&self, stream: &mut Box<dyn Stream>, label: &str) -> Result<(), HungUp> {
        let heard = self.hear(stream).await?;
        let kind = heard.action.rsplit('/').next().unwrap_or_default().trim_end_matches('"').to_owned();
        self.change(|state, now| state.tape.record(now, label, Direction::Received, &kind, &heard.body));
        let mut more = [0; 64];
        let answer = tokio::select! {
            biased;
            answer = self.order(heard, label) => answer.ok(),
            // A second request on one connection, or the end of it.
            _ = stream.read(&mut more) => return Err(HungUp),
        };
        let Some((status, body)) = answer else {
            // Silence: until the client has enough.
            let _whatever_it_says = stream.read(&mut more).await;
            return Err(HungUp);
        };
        if let Some(late) = self.change(|state, _| state.faults.late.take()) {
            tokio::time::sleep(late).await;
        }
        let answer = format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.say(stream, label, &status.to_string(), answer.as_bytes()).await?;
        let _closed_by_the_client = stream.read(&mut more).await;
        Ok(())
    }

    /// A whole request.
    async fn hear(&self, stream: &mut Box<dyn Stream>) -> Result<Heard, HungUp> {
        let mut bytes = Vec::new();
        let end = loop {
            self.hear_more(stream, &mut bytes).await?;
            if let Some(at) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let mut body = bytes.split_off(end);
        let head = String::from_utf8_lossy(&bytes).into_owned();
        let header = |name: &str| {
            let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.trim().to_owned())
        };
        let length: usize =
            header("content-length").map_or(Ok(0), |text| text.parse()).map_err(|_| HungUp)?;
        while body.len() < length {
            self.hear_more(stream, &mut body).await?;
        }
        if length < body.len() {
            // A second request on one connection.
            return Err(HungUp);
        }
        let line = head.lines().next().unwrap_or_default().to_owned();
        Ok(Heard { line, action: header("soapaction").unwrap_or_default(), body })
    }

    async fn hear_more(&self, stream: &mut Box<dyn Stream>, into: &mut Vec<u8>) -> Result<(), HungUp> {
        let mut part = [0; 1024];
        let count = stream.read(&mut part).await.map_err(|_| HungUp)?;
        if count == 0 || self.pass(count) < count || into.len() + count > LONGEST {
            return Err(HungUp);
        }
        into.extend_from_slice(&part[..count]);
        Ok(())
    }

    async fn say(
        &self,
        stream: &mut Box<dyn Stream>,
        label: &str,
        kind: &str,
        bytes: &[u8],
    ) -> Result<(), HungUp> {
        let slow = self.look(|state| state.faults.slow);
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

    /// Takes a request. It lives on by itself, whatever becomes of the connection; no answer means silence.
    fn order(&self, heard: Heard, label: &str) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let (simulator, label) = (self.clone(), label.to_owned());
        tokio::spawn(async move {
            if let Some(said) = simulator.fulfil(&heard, &label).await {
                let _nobody_listens_any_more = answer.send(said);
            }
        });
        receiver
    }

    async fn fulfil(&self, heard: &Heard, label: &str) -> Option<Answer> {
        let mut words = heard.line.split(' ');
        match (words.next(), words.next()) {
            (Some("GET"), Some("/lenspmswebservice/MessengerPMSService.asmx?wsdl")) => {
                let without = self.look(|state| state.wsdl_without.clone());
                return Some((200, wire::description(without.as_deref())));
            }
            (Some("POST"), Some("/lenspmswebservice/MessengerPMSService.asmx")) => {}
            _ => return Some((404, "<html/>".into())),
        }
        let (operation, request) = match wire::parse(&heard.action, &heard.body) {
            Ok(parsed) => parsed,
            Err(Wrong::Envelope(why)) => {
                self.note(label, "", &Err(Denial("soap:Client".into(), why.clone())));
                return Some((500, wire::soap_fault("Client", &why)));
            }
            Err(Wrong::Fault(main, why)) => {
                self.note(label, "", &Err(Denial(main.into(), why)));
                return Some((200, wire::fault("Unknown", main, "NotApplicable")));
            }
        };
        let is_let_in = self.look(|state| {
            (&request.user, &request.password) == (&state.property.user, &state.property.password)
        });
        if !is_let_in {
            return Some((200, wire::fault(&operation, "UserCredentialsNotProvided", "NotApplicable")));
        }
        match &request.asked {
            Asked::Hello => return Some((200, wire::success(&operation, true))),
            Asked::Faults => return Some((200, wire::fault(&operation, "NoFault", "TimeoutWaitingKey"))),
            Asked::Key { .. }
            | Asked::Extend { .. }
            | Asked::CheckOut { .. }
            | Asked::CancelRoom { .. }
            | Asked::Other => {}
        }
        let (result, silent) = self.work(&request.asked).await;
        self.note(label, &operation, &result);
        let spoilt = self.change(|state, _| state.faults.spoil());
        match (silent, spoilt, result) {
            (true, _, _) => None,
            (false, Some(spoilt), _) => Some(spoilt),
            (false, None, Ok(_)) => Some((200, wire::success(&operation, true))),
            (false, None, Err(Denial(main, detail))) => Some((200, wire::fault(&operation, &main, &detail))),
        }
    }

    fn note(&self, label: &str, operation: &str, result: &Result<Option<String>, Denial>) {
        self.change(|state, now| {
            let (card, denial) = match result {
                Ok(card) => (card.clone(), None),
                Err(Denial(main, detail)) => (None, Some(format!("{main} {detail}"))),
            };
            let written = card.as_deref().and_then(|card| state.world.shown(card));
            state.orders.push(json!({
                "at": now, "line": label, "operation": operation, "card": card, "written": written,
                "denial": denial,
            }));
        });
    }

    /// What becomes of a command, with the card that was written; and whether nothing is said of it.
    async fn work(&self, asked: &Asked) -> (Result<Option<String>, Denial>, bool) {
        let local = self.local_now();
        let begun = self.change(|state, _| state.begin(asked, local));
        let done = match begun {
            Err(denial) => Err(denial),
            Ok(()) => {
                if let Asked::Key { encoder, .. } = asked {
                    let lies = self.until(|state| state.world.lying_on(encoder).map(drop));
                    let _in_time_or_not =
                        tokio::time::timeout(self.look(|state| state.card_wait), lies).await;
                }
                let local = self.local_now();
                self.change(|state, _| state.finish(asked, local))
            }
        };
        let wrote = done.is_ok();
        let silent = self.change(|state, _| {
            std::mem::take(&mut state.faults.silent)
                || (wrote && std::mem::take(&mut state.faults.write_then_silent))
        });
        (done, silent)
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

impl Faults {
    /// An answer that is not the true one.
    fn spoil(&mut self) -> Option<Answer> {
        if let Some(status) = self.http.take() {
            return Some((status, "<html/>".into()));
        }
        match () {
            () if std::mem::take(&mut self.denied) => Some((200, wire::success("Any", false))),
            () if std::mem::take(&mut self.soap_fault) => {
                Some((500, wire::soap_fault("Server", "Object reference not set")))
            }
            () if std::mem::take(&mut self.garbled) => Some((200, "<html>welcome</html>".into())),
            () => None,
        }
    }
}

impl State {
    fn begin(&mut self, asked: &Asked, now: DateTime) -> Result<(), Denial> {
        if let Some(denial) = self.faults.error.take() {
            return Err(denial);
        }
        let Some(terminal) = asked.terminal() else {
            return Err(Denial(
                "KABALodgingInterfaceOperationNotSupported".into(),
                "OperationNotSupported".into(),
            ));
        };
        if self.world.terminals.contains(terminal) {
            return Err(Denial("BusyProcessingPreviousRequest".into(), "NotApplicable".into()));
        }
        if let Asked::Key { how, stay, encoder } = asked {
            self.world.admit(how, stay, encoder, now)?;
        }
        self.occupy(asked, true);
        Ok(())
    }

    fn finish(&mut self, asked: &Asked, now: DateTime) -> Result<Option<String>, Denial> {
        self.occupy(asked, false);
        match asked {
            Asked::Key { how, stay, encoder } => self.world.write(how, stay, encoder, now).map(Some),
            Asked::Extend { stay, check_out } => self.world.extend(stay, *check_out, now).map(|()| None),
            Asked::CheckOut { stay } => self.world.check_out(stay, now).map(|()| None),
            Asked::CancelRoom { room, .. } => self.world.cancel_room(room).map(|()| None),
            Asked::Hello | Asked::Faults | Asked::Other => Ok(None),
        }
    }

    fn occupy(&mut self, asked: &Asked, busy: bool) {
        let Some(terminal) = asked.terminal() else { return };
        match busy {
            true => self.world.terminals.insert(terminal.to_owned()),
            false => self.world.terminals.remove(terminal),
        };
        if let Asked::Key { encoder, .. } = asked
            && let Some(encoder) = self.world.encoders.get_mut(encoder)
        {
            encoder.busy = busy;
        }
    }
}
