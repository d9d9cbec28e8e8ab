//! A BlueZ that only pretends: one thread that owns `org.bluez` on a bus.
//!
//! # Commands
//! ```text
//! lock DEVICE COMMAND …       what the device itself understands
//! fault DEVICE OPERATION KIND connect, disconnect, read, write, notify or value; in a queue, one for each time
//! resolve DEVICE whole | never | late MS | drop MS
//! drop DEVICE                 the link goes
//! range DEVICE on | off       whether it can be heard
//! forget DEVICE               the daemon forgets it
//! burst DEVICE N              it is heard N times at once
//! adapter on | off | unplug | plug
//! crash | up                  the daemon goes, and comes back
//! count MEMBER [DEVICE]       how often something was called: Device1.Connect
//! connected                   which devices are
//! ```
//! Kinds of faults: `pass`, `error NAME TEXT …`, `delay MS`, `hang` (neither done nor answered), `mute` (done and not
//! answered; a value: lost), `drop` (not done, the link goes, the caller is told), `drop_mute` (the caller is not told),
//! `reply_drop` (done, answered, then the link goes), and of values `double` and `truncate`.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use dbus::{
    Message, MessageType,
    arg::{PropMap, RefArg, Variant},
    channel::Channel,
};
use uuid::Uuid;

use super::{
    objects::{self, ADAPTER, CHARACTERISTIC, DEVICE, Interfaces, variant},
    peripheral::{Act, AttError, Peripheral},
    world::{Adapter, Agenda, Device, Fault, Later, Operation, Resolution},
};
use crate::seams::Clock;

const ADAPTER_NAME: &str = "hci0";
/// The daemon looks this often whether somebody wants something of it.
const LOOK: Duration = Duration::from_millis(2);

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two advertisements of a device.
    pub advertise: Duration,
    /// A connection.
    pub connect: Duration,
    /// From there until the table is there.
    pub resolve: Duration,
    /// The end of a connection; with a real daemon about two seconds.
    pub disconnect: Duration,
    /// Until a device is forgotten that was never connected, once nobody scans; with a real daemon thirty seconds.
    pub forget: Duration,
    /// Until a write that the peer never answers costs the link; with a real daemon thirty seconds.
    pub silence: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            advertise: Duration::from_millis(50),
            connect: Duration::from_millis(20),
            resolve: Duration::from_millis(20),
            disconnect: Duration::from_millis(20),
            forget: Duration::from_secs(30),
            silence: Duration::from_secs(30),
        }
    }
}

/// A device and where it stands.
pub struct Place {
    /// Its name in commands.
    pub label: String,
    /// Its address: `C0:FF:EE:00:00:01`.
    pub address: String,
    /// The device.
    pub peripheral: Box<dyn Peripheral>,
}

type Command = (String, mpsc::Sender<Result<String, String>>);

/// A pretend daemon; it goes when this is dropped.
#[derive(Debug)]
pub struct Bluez {
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Bluez {
    /// Takes `org.bluez` on a bus.
    ///
    /// # Errors
    /// When the bus cannot be reached or the name is taken.
    pub fn start(address: &str, timing: Timing, clock: Clock, places: Vec<Place>) -> Result<Self, String> {
        let (commands, taken) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let address = address.to_owned();
        let thread = std::thread::Builder::new()
            .name("bluez".into())
            .spawn(move || {
                let mut daemon = Daemon::new(address, timing, clock, places);
                let up = daemon.up();
                let is_up = up.is_ok();
                let _ = ready.send(up);
                if is_up {
                    daemon.run(&taken);
                }
            })
            .map_err(|error| error.to_string())?;
        is_ready.recv().map_err(|_| "the daemon's thread broke".to_owned())??;
        Ok(Self { commands, thread: Some(thread) })
    }

    /// Does a command; see [the module](self).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn command(&self, command: &str) -> Result<String, String> {
        let (answer, answered) = mpsc::channel();
        let gone = || "the daemon's thread broke".to_owned();
        self.commands.send((command.to_owned(), answer)).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

impl Drop for Bluez {
    fn drop(&mut self) {
        let (commands, _) = mpsc::channel();
        self.commands = commands;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Daemon {
    address: String,
    timing: Timing,
    clock: Clock,
    channel: Option<Channel>,
    adapter: Adapter,
    devices: Vec<Device>,
    agenda: Agenda,
    next_advertisement: Instant,
    /// How often each member was called, by device.
    calls: HashMap<(String, String), u64>,
    agents: HashSet<String>,
}

type Answer = Result<Option<Message>, (&'static str, String)>;

fn refuse(name: &'static str, text: impl Into<String>) -> Answer {
    Err((name, text.into()))
}

const FAILED: &str = "org.bluez.Error.Failed";
const NOT_READY: &str = "org.bluez.Error.NotReady";
const IN_PROGRESS: &str = "org.bluez.Error.InProgress";
const UNKNOWN_OBJECT: &str = "org.freedesktop.DBus.Error.UnknownObject";

impl Daemon {
    fn new(address: String, timing: Timing, clock: Clock, places: Vec<Place>) -> Self {
        let device = |place: Place| Device {
            label: place.label,
            address: place.address,
            services: place.peripheral.services(),
            peripheral: place.peripheral,
            in_range: true,
            rssi: -60,
            known: false,
            permanent: false,
            connected: false,
            resolved: false,
            epoch: 0,
            connecting: None,
            connect_hangs: false,
            hanging: Vec::new(),
            notifying: HashMap::new(),
            faults: HashMap::new(),
            resolution: Resolution::Whole,
            goes_at: None,
        };
        let adapter = Adapter {
            address: "00:1A:7D:DA:71:11".into(),
            powered: true,
            present: true,
            discovering: HashSet::new(),
        };
        Self {
            address,
            timing,
            clock,
            channel: None,
            adapter,
            devices: places.into_iter().map(device).collect(),
            agenda: Agenda::default(),
            next_advertisement: Instant::now(),
            calls: HashMap::new(),
            agents: HashSet::new(),
        }
    }

    /// Comes to the bus.
    fn up(&mut self) -> Result<(), String> {
        let bad = |error: dbus::Error| error.message().unwrap_or("no reason").to_owned();
        let mut channel = Channel::open_private(&self.address).map_err(bad)?;
        channel.register().map_err(bad)?;
        let bus = |member: &str| {
            Message::new_method_call(
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus",
                member,
            )
        };
        let watch = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'";
        let calls = [bus("AddMatch")?.append1(watch), bus("RequestName")?.append2("org.bluez", 4_u32)];
        for call in calls {
            channel.send_with_reply_and_block(call, Duration::from_secs(5)).map_err(bad)?;
        }
        self.channel = Some(channel);
        Ok(())
    }

    fn run(&mut self, commands: &mpsc::Receiver<Command>) {
        loop {
            loop {
                match commands.try_recv() {
                    Ok((command, answer)) => drop(answer.send(self.commanded(&command))),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            match &self.channel {
                Some(channel) if channel.read_write(Some(LOOK)).is_ok() => {
                    while let Some(message) = self.channel.as_ref().and_then(Channel::pop_message) {
                        self.heard(&message);
                    }
                }
                Some(_) => self.crash(),
                None => std::thread::park_timeout(LOOK),
            }
            let now = Instant::now();
            while let Some(later) = self.agenda.due(now) {
                self.happen(later);
            }
            if self.next_advertisement <= now {
                self.next_advertisement = now + self.timing.advertise;
                self.advertise();
            }
            for at in 0..self.devices.len() {
                if self.devices[at].goes_at.is_some_and(|goes_at| goes_at <= now) {
                    self.forget(at);
                }
            }
        }
    }

    fn send(&self, message: Message) {
        if let Some(channel) = &self.channel {
            let _ = channel.send(message);
        }
    }

    // Signals.

    fn signal(&self, path: &str, interface: &str, member: &str) -> Option<Message> {
        Message::new_signal(path, interface, member).ok()
    }

    fn changed(&self, path: &str, interface: &str, changed: PropMap, invalidated: &[&str]) {
        if let Some(signal) = self.signal(path, "org.freedesktop.DBus.Properties", "PropertiesChanged") {
            let invalidated: Vec<String> = invalidated.iter().map(ToString::to_string).collect();
            self.send(signal.append3(interface, changed, invalidated));
        }
    }

    fn one(name: &str, value: Variant<Box<dyn RefArg>>) -> PropMap {
        PropMap::from([(name.to_owned(), value)])
    }

    fn added(&self, path: String, interfaces: Interfaces) {
        if let (Some(signal), Ok(path)) =
            (self.signal("/", "org.freedesktop.DBus.ObjectManager", "InterfacesAdded"), dbus::Path::new(path))
        {
            self.send(signal.append2(path, interfaces));
        }
    }

    fn removed(&self, path: String, interfaces: &[&str]) {
        if let (Some(signal), Ok(path)) = (
            self.signal("/", "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved"),
            dbus::Path::new(path),
        ) {
            let interfaces: Vec<String> = interfaces.iter().map(ToString::to_string).collect();
            self.send(signal.append2(path, interfaces));
        }
    }

    fn path(&self, device: usize) -> String {
        format!("/org/bluez/{ADAPTER_NAME}/{}", self.devices[device].node())
    }

    fn is_scanning(&self) -> bool {
        self.adapter.present && self.adapter.powered && !self.adapter.discovering.is_empty()
    }

    fn advertise(&mut self) {
        if self.is_scanning() {
            (0..self.devices.len()).for_each(|at| self.is_heard(at));
        }
        // One that waited for a connection has come into range.
        for at in 0..self.devices.len() {
            let device = &self.devices[at];
            if device.connecting.is_some() && device.in_range && !device.connected && !device.connect_hangs {
                let epoch = device.epoch;
                self.happen(Later::Connected { device: at, epoch });
            }
        }
    }

    /// A device is heard once, if it can be.
    fn is_heard(&mut self, at: usize) {
        let is_scanning = self.is_scanning();
        let path = self.path(at);
        let device = &mut self.devices[at];
        if !device.in_range || device.connected || device.connecting.is_some() {
            return;
        }
        // A little stronger, a little weaker: what does not change is not told.
        device.rssi = if device.rssi == -60 { -61 } else { -60 };
        device.goes_at = None;
        if device.known {
            let properties = objects::advertised(&self.devices[at]);
            self.changed(&path, DEVICE, properties, &[]);
        } else {
            device.known = true;
            let properties = objects::device(&self.devices[at], ADAPTER_NAME, is_scanning);
            self.added(path, HashMap::from([(DEVICE.to_owned(), properties)]));
        }
    }

    fn forget(&mut self, at: usize) {
        let path = self.path(at);
        self.drop_link(at);
        let device = &mut self.devices[at];
        device.goes_at = None;
        device.permanent = false;
        if std::mem::replace(&mut device.known, false) {
            self.removed(path, &[DEVICE]);
        }
    }

    /// Nobody scans any more.
    fn scan_ended(&mut self) {
        self.changed(&adapter_path(), ADAPTER, Self::one("Discovering", variant(false)), &[]);
        for at in 0..self.devices.len() {
            let path = self.path(at);
            let forget = self.timing.forget;
            let device = &mut self.devices[at];
            if !device.known {
                continue;
            }
            if !device.permanent && !device.connected && device.connecting.is_none() {
                device.goes_at = Some(Instant::now() + forget);
            }
            self.changed(&path, DEVICE, PropMap::new(), &["RSSI"]);
        }
    }

    // Links.

    fn drop_link(&mut self, at: usize) {
        let path = self.path(at);
        let device = &mut self.devices[at];
        device.epoch += 1;
        let hanging = std::mem::take(&mut device.hanging);
        let (was_connected, was_resolved) = (device.connected, device.resolved);
        (device.connected, device.resolved) = (false, false);
        if was_connected {
            device.peripheral.disconnected(self.clock.now());
        }
        for (_, write) in hanging {
            self.send(error(&write, FAILED, "Operation failed with ATT error: 0x0e"));
        }
        if was_resolved {
            self.changed(&path, DEVICE, Self::one("ServicesResolved", variant(false)), &[]);
        }
        if was_connected {
            self.changed(&path, DEVICE, Self::one("Connected", variant(false)), &[]);
        }
    }

    fn connect(&mut self, at: usize, message: &Message) -> Answer {
        if !self.adapter.powered {
            return refuse(FAILED, "Resource Not Ready");
        }
        let (connect, device) = (self.timing.connect, &mut self.devices[at]);
        if device.connecting.is_some() {
            return refuse(IN_PROGRESS, "Operation already in progress");
        }
        if device.connected {
            return Ok(Some(message.method_return()));
        }
        let epoch = device.epoch;
        let mut after = connect;
        match device.fault(Operation::Connect) {
            Fault::Error { .. } | Fault::DropLink | Fault::DropLinkMute => {
                return refuse(FAILED, "le-connection-abort-by-local");
            }
            Fault::Hang => {
                (device.connecting, device.connect_hangs) = (kept(message), true);
                return Ok(None);
            }
            Fault::Delay(by) => after += by,
            _ => {}
        }
        device.connecting = kept(message);
        device.goes_at = None;
        if device.in_range {
            self.agenda.put(Instant::now() + after, Later::Connected { device: at, epoch });
        }
        Ok(None)
    }

    fn disconnect(&mut self, at: usize, message: &Message) -> Answer {
        let after = self.timing.disconnect;
        let device = &mut self.devices[at];
        if let Some(waiting) = device.connecting.take() {
            device.connect_hangs = false;
            device.epoch += 1;
            self.send(error(&waiting, FAILED, "br-connection-canceled"));
            return Ok(Some(message.method_return()));
        }
        if !device.connected {
            return Ok(Some(message.method_return()));
        }
        match device.fault(Operation::Disconnect) {
            Fault::Error { name: _, text } => return refuse(FAILED, text),
            Fault::Hang => return Ok(None),
            _ => {}
        }
        let epoch = device.epoch;
        let reply = message.method_return();
        self.agenda.put(Instant::now() + after, Later::Disconnected { device: at, epoch, reply });
        Ok(None)
    }

    fn happen(&mut self, later: Later) {
        let now = Instant::now();
        match later {
            Later::Reply(message) => self.send(message),
            Later::Connected { device: at, epoch } => {
                let (path, resolve) = (self.path(at), self.timing.resolve);
                let device = &mut self.devices[at];
                if device.epoch != epoch || device.connected {
                    return;
                }
                let Some(waiting) = device.connecting.take() else { return };
                (device.connected, device.permanent, device.known) = (true, true, true);
                device.peripheral.connected(self.clock.now());
                let next = match device.resolution {
                    Resolution::Whole => Some((resolve, Later::Resolve { device: at, epoch })),
                    Resolution::Never => None,
                    Resolution::ObjectsLate(_) => Some((resolve, Later::Resolve { device: at, epoch })),
                    Resolution::DropBefore(after) => Some((after, Later::Drop { device: at, epoch })),
                };
                self.changed(&path, DEVICE, Self::one("Connected", variant(true)), &[]);
                self.send(waiting.method_return());
                if let Some((after, later)) = next {
                    self.agenda.put(now + after, later);
                }
            }
            Later::Resolve { device: at, epoch } => {
                let path = self.path(at);
                let device = &mut self.devices[at];
                if device.epoch != epoch {
                    return;
                }
                if let Resolution::ObjectsLate(after) = device.resolution {
                    self.agenda.put(now + after, Later::ShowTable { device: at, epoch });
                } else {
                    self.happen(Later::ShowTable { device: at, epoch });
                }
                self.changed(&path, DEVICE, Self::one("ServicesResolved", variant(true)), &[]);
            }
            Later::ShowTable { device: at, epoch } => {
                if self.devices[at].epoch != epoch {
                    return;
                }
                self.devices[at].resolved = true;
                for (path, interfaces) in objects::table(&self.devices[at], &self.path(at)) {
                    self.added(path, interfaces);
                }
            }
            Later::Drop { device: at, epoch } => {
                if self.devices[at].epoch == epoch {
                    self.drop_link(at);
                }
            }
            Later::Disconnected { device: at, epoch, reply } => {
                if self.devices[at].epoch == epoch {
                    self.drop_link(at);
                }
                self.send(reply);
            }
            Later::Value { device: at, epoch, from, value } => {
                if self.devices[at].epoch == epoch && self.devices[at].connected {
                    self.notify(at, from, value);
                }
            }
        }
    }

    fn notify(&mut self, at: usize, from: Uuid, mut value: Vec<u8>) {
        if self.devices[at].notifying.get(&from).is_none_or(HashSet::is_empty) {
            return;
        }
        let mut times = 1;
        match self.devices[at].fault(Operation::Value) {
            Fault::Mute => return,
            Fault::Double => times = 2,
            Fault::Truncate => value.truncate(value.len().saturating_sub(1)),
            Fault::DropLink | Fault::DropLinkMute => return self.drop_link(at),
            _ => {}
        }
        if let Some(path) = self.characteristic_path(at, from) {
            for _ in 0..times {
                self.changed(&path, CHARACTERISTIC, Self::one("Value", variant(value.clone())), &[]);
            }
        }
    }

    fn characteristic_path(&self, at: usize, uuid: Uuid) -> Option<String> {
        let services = self.devices[at].services.iter().enumerate();
        services
            .flat_map(|(service, all)| {
                all.characteristics.iter().enumerate().map(move |(number, one)| (service, number, one.uuid))
            })
            .find(|(_, _, found)| *found == uuid)
            .map(|(service, number, _)| {
                let (service, number) =
                    (objects::service_node(service), objects::characteristic_node(service, number));
                format!("{}/{service}/{number}", self.path(at))
            })
    }

    fn act(&mut self, at: usize, acts: Vec<Act>) {
        let (now, epoch) = (Instant::now(), self.devices[at].epoch);
        for act in acts {
            match act {
                Act::Notify { from, value, after } => {
                    self.agenda.put(now + after, Later::Value { device: at, epoch, from, value });
                }
                Act::HangUp { after } => self.agenda.put(now + after, Later::Drop { device: at, epoch }),
            }
        }
    }

    fn write(&mut self, at: usize, uuid: Uuid, message: &Message) -> Answer {
        let (value, options): (Option<Vec<u8>>, Option<PropMap>) = message.get2();
        let Some(value) = value else {
            return refuse("org.bluez.Error.InvalidArguments", "Invalid arguments in method call");
        };
        let kind = options.and_then(|options| Some(options.get("type")?.0.as_str()?.to_owned()));
        let is_command = kind.as_deref() == Some("command");
        let silence = self.timing.silence;
        let device = &mut self.devices[at];
        if !device.connected {
            return refuse(FAILED, "Not connected");
        }
        if !is_command && device.hanging.iter().any(|(held, _)| *held == uuid) {
            return refuse(IN_PROGRESS, "In Progress");
        }
        if is_command && 244 < value.len() {
            return refuse(FAILED, "Failed to initiate write");
        }
        let epoch = device.epoch;
        let mut after = Duration::ZERO;
        let mut then_drop = false;
        match device.fault(Operation::Write) {
            Fault::Pass | Fault::Double | Fault::Truncate => {}
            Fault::Error { name, text } => {
                self.send(error(message, &name, &text));
                return Ok(None);
            }
            Fault::Delay(by) => after = by,
            fault @ (Fault::Hang | Fault::Mute) => {
                device.hanging.extend(kept(message).map(|message| (uuid, message)));
                let acts = match fault {
                    Fault::Mute => {
                        device.peripheral.write(self.clock.now(), uuid, &value).unwrap_or_default()
                    }
                    _ => Vec::new(),
                };
                self.agenda.put(Instant::now() + silence, Later::Drop { device: at, epoch });
                self.act(at, acts);
                return Ok(None);
            }
            fault @ (Fault::DropLink | Fault::DropLinkMute) => {
                self.drop_link(at);
                if fault == Fault::DropLink {
                    return refuse(FAILED, "Operation failed with ATT error: 0x0e");
                }
                return Ok(None);
            }
            Fault::ReplyThenDrop => then_drop = true,
        }
        let result = device.peripheral.write(self.clock.now(), uuid, &value);
        let reply = match result {
            Ok(acts) => {
                self.act(at, acts);
                message.method_return()
            }
            // Nobody is told of what a command came to.
            Err(_) if is_command => message.method_return(),
            Err(att) => {
                let (name, text) = att_error(att, true);
                error(message, name, &text)
            }
        };
        let now = Instant::now();
        self.agenda.put(now + after, Later::Reply(reply));
        if then_drop {
            self.agenda.put(now + after, Later::Drop { device: at, epoch });
        }
        Ok(None)
    }

    fn read(&mut self, at: usize, uuid: Uuid, message: &Message) -> Answer {
        let device = &mut self.devices[at];
        if !device.connected {
            return refuse(FAILED, "Not connected");
        }
        match device.fault(Operation::Read) {
            Fault::Error { name, text } => {
                self.send(error(message, &name, &text));
                return Ok(None);
            }
            Fault::Hang | Fault::Mute => return Ok(None),
            _ => {}
        }
        match self.devices[at].peripheral.read(self.clock.now(), uuid) {
            Ok(value) => {
                // What is read is also told as if it had been notified.
                if let Some(path) = self.characteristic_path(at, uuid) {
                    self.changed(&path, CHARACTERISTIC, Self::one("Value", variant(value.clone())), &[]);
                }
                Ok(Some(message.method_return().append1(value)))
            }
            Err(att) => {
                let (name, text) = att_error(att, false);
                refuse(name, text)
            }
        }
    }

    fn start_notify(&mut self, at: usize, uuid: Uuid, message: &Message) -> Answer {
        let client = sender(message);
        let device = &mut self.devices[at];
        if let Fault::Error { name: _, text } = device.fault(Operation::Notify) {
            return refuse(FAILED, text);
        }
        let clients = device.notifying.entry(uuid).or_default();
        if clients.contains(&client) && !device.connected {
            return refuse(IN_PROGRESS, "Operation already in progress");
        }
        clients.insert(client);
        Ok(Some(message.method_return()))
    }

    fn stop_notify(&mut self, at: usize, uuid: Uuid, message: &Message) -> Answer {
        let clients = self.devices[at].notifying.get_mut(&uuid);
        if clients.is_some_and(|clients| clients.remove(&sender(message))) {
            return Ok(Some(message.method_return()));
        }
        refuse(FAILED, "No notify session started")
    }

    // The adapter.

    fn start_discovery(&mut self, message: &Message) -> Answer {
        if !self.adapter.powered {
            return refuse(NOT_READY, "Resource Not Ready");
        }
        if !self.adapter.discovering.insert(sender(message)) {
            return refuse(IN_PROGRESS, "Operation already in progress");
        }
        if self.adapter.discovering.len() == 1 {
            self.changed(&adapter_path(), ADAPTER, Self::one("Discovering", variant(true)), &[]);
        }
        Ok(Some(message.method_return()))
    }

    fn stop_discovery(&mut self, message: &Message) -> Answer {
        if !self.adapter.powered {
            return refuse(NOT_READY, "Resource Not Ready");
        }
        if !self.adapter.discovering.remove(&sender(message)) {
            return refuse(FAILED, "No discovery started");
        }
        if self.adapter.discovering.is_empty() {
            self.scan_ended();
        }
        Ok(Some(message.method_return()))
    }

    fn power(&mut self, on: bool) {
        if self.adapter.powered == on {
            return;
        }
        if !on {
            (0..self.devices.len()).for_each(|at| self.drop_link(at));
            let was_scanning = !self.adapter.discovering.is_empty();
            self.adapter.discovering.clear();
            if was_scanning {
                self.scan_ended();
            }
        }
        self.adapter.powered = on;
        self.changed(&adapter_path(), ADAPTER, Self::one("Powered", variant(on)), &[]);
    }

    // Messages.

    fn heard(&mut self, message: &Message) {
        match message.msg_type() {
            MessageType::MethodCall => {}
            MessageType::Signal => {
                if message.member().is_some_and(|member| &*member == "NameOwnerChanged")
                    && let (Some(name), Some(_), Some(owner)) = message.get3::<String, String, String>()
                    && owner.is_empty()
                {
                    self.client_left(&name);
                }
                return;
            }
            MessageType::MethodReturn | MessageType::Error => return,
        }
        let answer = match self.called(message) {
            Ok(Some(answer)) => answer,
            Ok(None) => return,
            Err((name, text)) => error(message, name, &text),
        };
        if !message.get_no_reply() {
            self.send(answer);
        }
    }

    fn client_left(&mut self, client: &str) {
        self.agents.remove(client);
        for device in &mut self.devices {
            device.notifying.values_mut().for_each(|clients| {
                clients.remove(client);
            });
        }
        if self.adapter.discovering.remove(client) && self.adapter.discovering.is_empty() {
            self.scan_ended();
        }
    }

    /// Every object: its path and its interfaces.
    fn objects(&self) -> Vec<(String, Interfaces)> {
        let mut all = Vec::new();
        if !self.adapter.present {
            return all;
        }
        all.push((adapter_path(), HashMap::from([(ADAPTER.to_owned(), objects::adapter(&self.adapter))])));
        for (at, device) in self.devices.iter().enumerate() {
            if device.known {
                let properties = objects::device(device, ADAPTER_NAME, self.is_scanning());
                all.push((self.path(at), HashMap::from([(DEVICE.to_owned(), properties)])));
            }
            if device.resolved {
                all.extend(objects::table(device, &self.path(at)));
            }
        }
        all
    }

    fn called(&mut self, message: &Message) -> Answer {
        let path = message.path().map(|path| path.to_string()).unwrap_or_default();
        let interface = message.interface().map(|interface| interface.to_string()).unwrap_or_default();
        let member = message.member().map(|member| member.to_string()).unwrap_or_default();
        let short = interface.rsplit('.').next().unwrap_or_default();
        let device = (0..self.devices.len()).find(|at| {
            let here = self.path(*at);
            self.devices[*at].known && (path == here || path.starts_with(&format!("{here}/")))
        });
        let label = device.map(|at| self.devices[at].label.clone()).unwrap_or_default();
        // Whoever calls what there is not makes nothing grow without end.
        if self.calls.len() < 4096 {
            *self.calls.entry((format!("{short}.{member}"), label)).or_default() += 1;
        }
        match (interface.as_str(), member.as_str()) {
            ("org.freedesktop.DBus.ObjectManager", "GetManagedObjects") => {
                let objects: HashMap<dbus::Path<'static>, Interfaces> = self
                    .objects()
                    .into_iter()
                    .filter_map(|(path, interfaces)| Some((dbus::Path::new(path).ok()?, interfaces)))
                    .collect();
                return Ok(Some(message.method_return().append1(objects)));
            }
            ("org.freedesktop.DBus.Introspectable", "Introspect") => {
                let mut paths: Vec<String> = self.objects().into_iter().map(|(path, _)| path).collect();
                if path != "/" && path != "/org" && path != "/org/bluez" && !paths.contains(&path) {
                    return refuse(UNKNOWN_OBJECT, format!("No such object path '{path}'"));
                }
                paths.push("/org/bluez".into());
                return Ok(Some(message.method_return().append1(objects::introspection(&paths, &path))));
            }
            ("org.freedesktop.DBus.Properties", _) => return self.properties(message, &path, &member),
            ("org.bluez.AgentManager1", "RegisterAgent") => {
                self.agents.insert(sender(message));
                return Ok(Some(message.method_return()));
            }
            ("org.bluez.AgentManager1", "RequestDefaultAgent" | "UnregisterAgent") => {
                return match self.agents.contains(&sender(message)) {
                    true => Ok(Some(message.method_return())),
                    false => refuse("org.bluez.Error.DoesNotExist", "Does Not Exist"),
                };
            }
            _ => {}
        }
        if path == adapter_path() && self.adapter.present {
            return match member.as_str() {
                "StartDiscovery" => self.start_discovery(message),
                "StopDiscovery" => self.stop_discovery(message),
                "SetDiscoveryFilter" if !self.adapter.powered => refuse(NOT_READY, "Resource Not Ready"),
                "SetDiscoveryFilter" => Ok(Some(message.method_return())),
                "RemoveDevice" => {
                    let wanted: Option<dbus::Path<'_>> = message.get1();
                    let wanted = wanted.map(|path| path.to_string()).unwrap_or_default();
                    let at = (0..self.devices.len())
                        .find(|at| self.path(*at) == wanted && self.devices[*at].known);
                    match at {
                        Some(at) => {
                            self.forget(at);
                            Ok(Some(message.method_return()))
                        }
                        None => refuse("org.bluez.Error.DoesNotExist", "Does Not Exist"),
                    }
                }
                _ => refuse("org.freedesktop.DBus.Error.UnknownMethod", member),
            };
        }
        let Some(at) = device.filter(|_| self.adapter.present) else {
            return refuse(UNKNOWN_OBJECT, format!("No such object path '{path}'"));
        };
        if path == self.path(at) {
            return match member.as_str() {
                "Connect" => self.connect(at, message),
                "Disconnect" => self.disconnect(at, message),
                _ => refuse("org.freedesktop.DBus.Error.UnknownMethod", member),
            };
        }
        let uuids: Vec<Uuid> = self.devices[at]
            .services
            .iter()
            .flat_map(|service| &service.characteristics)
            .map(|one| one.uuid)
            .collect();
        let Some(uuid) = uuids
            .into_iter()
            .find(|uuid| self.characteristic_path(at, *uuid).as_deref() == Some(path.as_str()))
        else {
            return refuse(UNKNOWN_OBJECT, format!("No such object path '{path}'"));
        };
        match member.as_str() {
            "WriteValue" => self.write(at, uuid, message),
            "ReadValue" => self.read(at, uuid, message),
            "StartNotify" => self.start_notify(at, uuid, message),
            "StopNotify" => self.stop_notify(at, uuid, message),
            _ => refuse("org.freedesktop.DBus.Error.UnknownMethod", member),
        }
    }

    fn properties(&mut self, message: &Message, path: &str, member: &str) -> Answer {
        let (interface, name): (Option<String>, Option<String>) = message.get2();
        let (interface, name) = (interface.unwrap_or_default(), name.unwrap_or_default());
        if member == "Set" {
            if path != adapter_path() || name != "Powered" {
                return refuse("org.freedesktop.DBus.Error.PropertyReadOnly", name);
            }
            let value: Option<Variant<bool>> = message.get3::<String, String, Variant<bool>>().2;
            self.power(value.is_some_and(|value| value.0));
            return Ok(Some(message.method_return()));
        }
        let found = self.objects().into_iter().find(|(known, _)| known == path);
        let Some((_, mut interfaces)) = found else {
            return refuse(UNKNOWN_OBJECT, format!("No such object path '{path}'"));
        };
        let Some(mut properties) = interfaces.remove(&interface) else {
            return refuse(
                "org.freedesktop.DBus.Error.InvalidArgs",
                format!("No such interface '{interface}'"),
            );
        };
        match member {
            "GetAll" => Ok(Some(message.method_return().append1(properties))),
            "Get" => match properties.remove(&name) {
                Some(value) => Ok(Some(message.method_return().append1(value))),
                None => {
                    refuse("org.freedesktop.DBus.Error.InvalidArgs", format!("No such property '{name}'"))
                }
            },
            _ => refuse("org.freedesktop.DBus.Error.UnknownMethod", member),
        }
    }

    // Commands.

    fn crash(&mut self) {
        self.channel = None;
        self.agenda.clear();
        self.agents.clear();
        self.adapter.discovering.clear();
        for device in &mut self.devices {
            device.epoch += 1;
            if device.connected {
                device.peripheral.disconnected(self.clock.now());
            }
            (device.connected, device.resolved, device.connecting) = (false, false, None);
            device.connect_hangs = false;
            device.hanging.clear();
            device.notifying.clear();
            // What was connected once is on the disk.
            device.known = device.permanent;
            device.goes_at = None;
        }
    }

    fn commanded(&mut self, command: &str) -> Result<String, String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let at = |label: &str| {
            let found = self.devices.iter().position(|device| device.label == label);
            found.ok_or_else(|| {
                let known: Vec<_> = self.devices.iter().map(|device| device.label.as_str()).collect();
                format!("there is no device {label}; there is: {}", known.join(", "))
            })
        };
        let done = Ok(String::new());
        match words.as_slice() {
            ["lock", label, ..] => {
                let at = at(label)?;
                let rest = command.trim_start().strip_prefix("lock").unwrap_or_default().trim_start();
                let rest = rest.strip_prefix(label).unwrap_or_default().trim();
                self.devices[at].peripheral.control(self.clock.now(), rest)
            }
            ["fault", label, operation, kind @ ..] => {
                let (at, operation) = (at(label)?, self::operation(operation)?);
                let fault = fault(kind)?;
                self.devices[at].faults.entry(operation).or_default().push_back(fault);
                done
            }
            ["resolve", label, how @ ..] => {
                let at = at(label)?;
                self.devices[at].resolution = match how {
                    ["whole"] => Resolution::Whole,
                    ["never"] => Resolution::Never,
                    ["late", ms] => Resolution::ObjectsLate(milliseconds(ms)?),
                    ["drop", ms] => Resolution::DropBefore(milliseconds(ms)?),
                    _ => return Err("resolve DEVICE whole | never | late MS | drop MS".into()),
                };
                done
            }
            ["drop", label] => {
                let at = at(label)?;
                self.drop_link(at);
                done
            }
            ["range", label, on @ ("on" | "off")] => {
                let at = at(label)?;
                self.devices[at].in_range = *on == "on";
                if *on == "off" {
                    self.drop_link(at);
                }
                done
            }
            ["forget", label] => {
                let at = at(label)?;
                self.forget(at);
                done
            }
            ["burst", label, count] => {
                let at = at(label)?;
                for _ in 0..count.parse::<u32>().map_err(|error| error.to_string())? {
                    self.is_heard(at);
                }
                done
            }
            ["adapter", "on"] => {
                self.power(true);
                done
            }
            ["adapter", "off"] => {
                self.power(false);
                done
            }
            ["adapter", "unplug"] => {
                self.power(false);
                self.adapter.present = false;
                self.removed(adapter_path(), &[ADAPTER]);
                done
            }
            ["adapter", "plug"] => {
                self.adapter.present = true;
                self.adapter.powered = true;
                let properties = objects::adapter(&self.adapter);
                self.added(adapter_path(), HashMap::from([(ADAPTER.to_owned(), properties)]));
                done
            }
            ["crash"] => {
                self.crash();
                done
            }
            ["up"] => {
                if self.channel.is_none() {
                    self.up()?;
                }
                done
            }
            ["count", member, label @ ..] => {
                let is_it = |(name, device): &(String, String)| {
                    name == member && label.first().is_none_or(|label| device == label)
                };
                let counts = self.calls.iter().filter(|(call, _)| is_it(call)).map(|(_, count)| count);
                Ok(counts.sum::<u64>().to_string())
            }
            ["connected"] => {
                let connected = self.devices.iter().filter(|device| device.connected);
                let labels: Vec<_> = connected.map(|device| device.label.as_str()).collect();
                Ok(labels.join(" "))
            }
            ["agents"] => Ok(self.agents.len().to_string()),
            _ => Err(format!("`{command}` is no command: see the simulator's documentation")),
        }
    }
}

fn adapter_path() -> String {
    format!("/org/bluez/{ADAPTER_NAME}")
}

/// A call to be answered later. A copy has no serial number of its own, and an answer needs it.
fn kept(message: &Message) -> Option<Message> {
    let mut copy = message.duplicate().ok()?;
    copy.set_serial(message.get_serial()?);
    Some(copy)
}

fn sender(message: &Message) -> String {
    message.sender().map(|sender| sender.to_string()).unwrap_or_default()
}

fn error(message: &Message, name: &str, text: &str) -> Message {
    let name = dbus::strings::ErrorName::new(name).unwrap_or_else(|_| FAILED.into());
    message.error(&name, &CString::new(text).unwrap_or_default())
}

/// How the daemon tells an error of the attribute protocol.
fn att_error(att: AttError, write: bool) -> (&'static str, String) {
    match att.0 {
        0x02 => ("org.bluez.Error.NotPermitted", "Read not permitted".into()),
        0x03 => ("org.bluez.Error.NotPermitted", "Write not permitted".into()),
        0x05 | 0x0C | 0x0F => ("org.bluez.Error.NotPermitted", "Not paired".into()),
        0x06 => ("org.bluez.Error.NotSupported", "Operation is not supported".into()),
        0x07 => ("org.bluez.Error.InvalidArguments", "Invalid offset".into()),
        0x08 => ("org.bluez.Error.NotAuthorized", "Operation Not Authorized".into()),
        0x0D if write => ("org.bluez.Error.InvalidArguments", "Invalid Length".into()),
        other => (FAILED, format!("Operation failed with ATT error: 0x{other:02x}")),
    }
}

fn operation(word: &str) -> Result<Operation, String> {
    Ok(match word {
        "connect" => Operation::Connect,
        "disconnect" => Operation::Disconnect,
        "read" => Operation::Read,
        "write" => Operation::Write,
        "notify" => Operation::Notify,
        "value" => Operation::Value,
        _ => {
            return Err(format!("`{word}` is no operation: connect, disconnect, read, write, notify, value"));
        }
    })
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).map_err(|error| format!("{text}: {error}"))
}

fn fault(words: &[&str]) -> Result<Fault, String> {
    Ok(match words {
        ["pass"] => Fault::Pass,
        ["error", name, text @ ..] => {
            let name =
                if name.contains('.') { (*name).to_owned() } else { format!("org.bluez.Error.{name}") };
            Fault::Error { name, text: text.join(" ") }
        }
        ["delay", ms] => Fault::Delay(milliseconds(ms)?),
        ["hang"] => Fault::Hang,
        ["mute"] => Fault::Mute,
        ["drop"] => Fault::DropLink,
        ["drop_mute"] => Fault::DropLinkMute,
        ["reply_drop"] => Fault::ReplyThenDrop,
        ["double"] => Fault::Double,
        ["truncate"] => Fault::Truncate,
        _ => return Err(format!("`{}` is no fault", words.join(" "))),
    })
}
