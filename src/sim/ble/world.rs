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
    /// Who waits for a connection.
    pub(super) connecting: Option<Message>,
    /// They wait in vain, until somebody calls it off.
    pub(super) connect_hangs: bool,
    /// Writes that nobody answers, by characteristic, until the link is gone.
    pub(super) hanging: Vec<(Uuid, Message)>,
    pub(super) notifying: HashMap<Uuid, HashSet<String>>,
    pub(super) faults: HashMap<Operation, VecDeque<Fault>>,
    pub(super) resolution: Resolution,
    /// When its object goes that was never connected, once nobody scans any more.
    pub(super) goes_at: Option<Instant>,
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

    /// Its place on the bus, below the adapter's.
    pub(super) fn node(&self) -> String {
        format!("dev_{}", self.address.replace(':', "_"))
    }
}

/// What is to happen later.
pub(super) enum Later {
    Reply(Message),
    Connected { device: usize, epoch: u64 },
    Resolve { device: usize, epoch: u64 },
    ShowTable { device: usize, epoch: u64 },
    Drop { device: usize, epoch: u64 },
    Disconnected { device: usize, epoch: u64, reply: Message },
    Value { device: usize, epoch: u64, from: Uuid, value: Vec<u8> },
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
