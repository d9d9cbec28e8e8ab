//! What there is: the adapter, the devices, who asked for what, and what is to go wrong.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use dbus::Message;
use uuid::Uuid;

use super::peripheral::{Peripheral, Service};

/// The one adapter.
pub(super) struct Adapter {
    pub(super) address: String,
    pub(super) powered: bool,
    /// Whether it is plugged in.
    pub(super) present: bool,
    /// Whether it can agree on keys.
    pub(super) pairs: bool,
    /// Clients that scan.
    pub(super) discovering: HashSet<String>,
}

/// One device, known to the daemon or not.
pub(super) struct Device {
    pub(super) label: String,
    pub(super) address: String,
    pub(super) peripheral: Box<dyn Peripheral>,
    pub(super) services: Vec<Service>,
    /// Whether anybody could hear it.
    pub(super) in_range: bool,
    pub(super) rssi: i16,
    /// Whether its object stands on the bus.
    pub(super) known: bool,
    /// It was connected once: its object stays.
    pub(super) permanent: bool,
    pub(super) connected: bool,
    pub(super) resolved: bool,
    /// Counts connections, so that what was begun on one does nothing to the next.
    pub(super) epoch: u64,
    /// Its table stands on the bus, and stays there behind the end of the link.
    pub(super) shown: bool,
    /// Its peer refuses to be written to over a link that is not encrypted.
    pub(super) wants_encryption: bool,
    /// There is a key for the link.
    pub(super) paired: bool,
    /// The present link is encrypted.
    pub(super) encrypted: bool,
    /// A key is being agreed on.
    pub(super) pairing: Option<Pairing>,
    /// Who waits for a connection.
    pub(super) connecting: Option<Attempt>,
    /// Writes that are not answered yet, by characteristic.
    pub(super) writing: Vec<(Uuid, Message)>,
    pub(super) notifying: HashMap<Uuid, HashSet<String>>,
    pub(super) faults: HashMap<Operation, VecDeque<Fault>>,
    pub(super) resolution: Resolution,
    /// When its object goes that was never connected, once nobody scans any more.
    pub(super) goes_at: Option<Instant>,
}

/// A connection that is being made.
pub(super) struct Attempt {
    /// Who waits.
    pub(super) call: Message,
    pub(super) awaits: Awaits,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// The time that it takes.
    Time,
    /// The peer, which is out of range.
    Range,
    /// Nothing that ever comes, until somebody calls it off.
    Nothing,
}

/// A key that is being agreed on.
pub(super) struct Pairing {
    /// Who was asked, and by which call; nobody where there is nobody to ask.
    pub(super) asked: Option<(Agent, u32)>,
    /// No longer than this.
    pub(super) until: Instant,
    /// What is done once the link is encrypted.
    pub(super) held_back: Vec<(Uuid, Message)>,
}

/// Who is asked before a key is agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agent {
    pub(super) client: String,
    pub(super) path: String,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Connect,
    Disconnect,
    Read,
    Write,
    Notify,
    Value,
}

/// How.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not this time.
    Pass,
    /// Refused.
    Error { name: String, text: String },
    /// Late.
    Delay(Duration),
    /// Neither done nor answered.
    Hang,
    /// Done, never answered; of a value: lost.
    Mute,
    /// Not done; the link goes, which the caller is told.
    DropLink,
    /// Not done; the link goes, and the caller is told nothing.
    DropLinkMute,
    /// Done and answered; then the link goes.
    ReplyThenDrop,
    /// A value comes twice.
    Double,
    /// A value comes without its end.
    Truncate,
}

/// How a device's table appears after a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    /// As it should.
    Whole,
    /// It is never said to be there.
    Never,
    /// It is said to be there before its objects are.
    ObjectsLate(Duration),
    /// The link goes before.
    DropBefore(Duration),
}

impl Device {
    pub(super) fn fault(&mut self, operation: Operation) -> Fault {
        self.faults.get_mut(&operation).and_then(VecDeque::pop_front).unwrap_or(Fault::Pass)
    }

    /// Whether a write to this characteristic is under way.
    pub(super) fn is_writing(&self, to: Uuid) -> bool {
        let held_back = self.pairing.iter().flat_map(|pairing| &pairing.held_back);
        self.writing.iter().chain(held_back).any(|(held, _)| *held == to)
    }

    /// Its place on the bus, below the adapter's.
    pub(super) fn node(&self) -> String {
        format!("dev_{}", self.address.replace(':', "_"))
    }
}

/// What is to happen later.
pub(super) enum Later {
    Written { device: usize, epoch: u64, to: Uuid, reply: Message },
    Connected { device: usize, epoch: u64 },
    Resolve { device: usize, epoch: u64 },
    ShowTable { device: usize, epoch: u64 },
    Drop { device: usize, epoch: u64 },
    Disconnected { device: usize, epoch: u64, reply: Message },
    Value { device: usize, epoch: u64, from: Uuid, value: Vec<u8> },
    Encrypted { device: usize, epoch: u64 },
    PairingEnds { device: usize, epoch: u64 },
}

/// What is to happen, in its order.
#[derive(Default)]
pub(super) struct Agenda {
    entries: BTreeMap<(Instant, u64), Later>,
    count: u64,
}

impl Agenda {
    pub(super) fn put(&mut self, at: Instant, later: Later) {
        self.count += 1;
        self.entries.insert((at, self.count), later);
    }

    pub(super) fn due(&mut self, now: Instant) -> Option<Later> {
        let entry = self.entries.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}
