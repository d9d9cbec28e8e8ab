//! A BlueZ that only pretends: one thread that owns `org.bluez` on a bus.
//!
//! # Commands
//! ```text
//! lock DEVICE COMMAND …       what the device itself understands
//! fault DEVICE OPERATION KIND connect, disconnect, read, write, notify or value; in a queue, one for each time
//! faults DEVICE               how many are still to come
//! resolve DEVICE whole | never | late MS | drop MS
//! drop DEVICE                 the link goes
//! range DEVICE on | off       whether it can be heard
//! encryption DEVICE on | off  whether it refuses to be written to over a link that is not encrypted
//! forget DEVICE               the daemon forgets it
//! burst DEVICE N              it is heard N times at once
//! adapter on | off | unplug | plug
//! adapter pairs on | off      whether it can agree on keys
//! timing WHAT MS              advertise, connect, resolve, pair, disconnect, forget or silence: see [`Timing`]
//! crash | up                  the daemon goes, and comes back
//! count MEMBER [DEVICE]       how often something was called: Device1.Connect
//! connected                   which devices are
//! agents                      how many clients would be asked before a key is agreed on
//! ```
//! Kinds of faults: `pass`, `error NAME TEXT …`, `delay MS`, `hang` (neither done nor answered), `mute` (done and not
//! answered; a value: lost), `drop` (not done, the link goes, the caller is told), `drop_mute` (the caller is not told),
//! `reply_drop` (done, answered, then the link goes), and of values `double` and `truncate`.

mod adapter;
mod calls;
mod commands;
mod links;
mod pairing;
mod values;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ffi::CString,
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use dbus::{
    Message,
    arg::{PropMap, RefArg, Variant},
    channel::Channel,
};

use self::pairing::Agents;
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
    /// Agreeing on a key, and encrypting a link.
    pub pair: Duration,
    /// The end of a connection; with a real daemon about two seconds.
    pub disconnect: Duration,
    /// Until a device is forgotten that was never connected, once nobody scans; with a real daemon thirty seconds.
    pub forget: Duration,
    /// Until a write that the peer never answers costs the link, and a question about a key that nobody answers; with a real daemon thirty seconds.
    pub silence: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            advertise: Duration::from_millis(50),
            connect: Duration::from_millis(20),
            resolve: Duration::from_millis(20),
            pair: Duration::from_millis(20),
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
    agents: Agents,
}

/// An answer at once, none yet, or an error: its name and its text.
type Answer = Result<Option<Message>, (Cow<'static, str>, String)>;

fn refuse(name: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Answer {
    Err((name.into(), text.into()))
}

const FAILED: &str = "org.bluez.Error.Failed";
const NOT_READY: &str = "org.bluez.Error.NotReady";
const IN_PROGRESS: &str = "org.bluez.Error.InProgress";
const NOT_PERMITTED: &str = "org.bluez.Error.NotPermitted";
const UNKNOWN_OBJECT: &str = "org.freedesktop.DBus.Error.UnknownObject";
const NOT_PAIRED: &str = "Not paired";
const LINK_LOST: &str = "Operation failed with ATT error: 0x0e";
const INSUFFICIENT_AUTHENTICATION: u8 = 0x05;

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
            shown: false,
            wants_encryption: false,
            paired: false,
            encrypted: false,
            pairing: None,
            connecting: None,
            writing: Vec::new(),
            notifying: HashMap::new(),
            faults: HashMap::new(),
            resolution: Resolution::Whole,
            goes_at: None,
        };
        let adapter = Adapter {
            address: "00:1A:7D:DA:71:11".into(),
            powered: true,
            present: true,
            pairs: true,
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
            agents: Agents::default(),
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
