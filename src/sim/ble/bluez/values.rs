//! Values: read, written, notified.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use dbus::{
    Message,
    arg::{PropMap, RefArg},
};
use uuid::Uuid;

use super::*;

impl Daemon {
    pub(super) fn notify(&mut self, at: usize, from: Uuid, mut value: Vec<u8>) {
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
        for _ in 0..times {
            self.tell_value(at, from, &value);
        }
    }

    fn tell_value(&self, at: usize, from: Uuid, value: &[u8]) {
        if let Some(path) = self.characteristic_path(at, from) {
            self.changed(&path, CHARACTERISTIC, Self::one("Value", variant(value.to_vec())), &[]);
        }
    }

    /// Where a characteristic stands on the bus; none while it does not.
    pub(super) fn characteristic_path(&self, at: usize, uuid: Uuid) -> Option<String> {
        let device = &self.devices[at];
        let services = device.services.iter().enumerate().filter(|_| device.shown);
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

    pub(super) fn write(&mut self, at: usize, uuid: Uuid, message: &Message) -> Answer {
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
        if !is_command && device.is_writing(uuid) {
            return refuse(IN_PROGRESS, "In Progress");
        }
        if is_command && usize::from(objects::MTU) - 3 < value.len() {
            return refuse(FAILED, "Failed to initiate write");
        }
        let epoch = device.epoch;
        let mut after = Duration::ZERO;
        let mut then_drop = false;
        match device.fault(Operation::Write) {
            Fault::Pass | Fault::Double | Fault::Truncate => {}
            Fault::Error { name, text } => return refuse(name, text),
            Fault::Delay(by) => after = by,
            fault @ (Fault::Hang | Fault::Mute) => {
                device.writing.extend(kept(message).map(|message| (uuid, message)));
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
                return if fault == Fault::DropLink { refuse(FAILED, LINK_LOST) } else { Ok(None) };
            }
            Fault::ReplyThenDrop => then_drop = true,
        }
        let result = match device.wants_encryption && !device.encrypted {
            true => Err(AttError(INSUFFICIENT_AUTHENTICATION)),
            false => device.peripheral.write(self.clock.now(), uuid, &value),
        };
        let reply = match result {
            Ok(acts) => {
                self.act(at, acts);
                message.method_return()
            }
            // Nobody is told of what a command came to.
            Err(_) if is_command => message.method_return(),
            Err(att) if self.encrypts(at, att) => return self.encrypt(at, uuid, message),
            Err(att) => {
                let (name, text) = att_error(att, true);
                error(message, name, &text)
            }
        };
        let now = Instant::now();
        let device = &mut self.devices[at];
        device.writing.extend(kept(message).map(|message| (uuid, message)).filter(|_| !is_command));
        let written = Later::Written { device: at, epoch, to: uuid, reply };
        if after.is_zero() {
            self.happen(written);
        } else {
            self.agenda.put(now + after, written);
        }
        if then_drop {
            self.agenda.put(now + after, Later::Drop { device: at, epoch });
        }
        Ok(None)
    }

    pub(super) fn read(&mut self, at: usize, uuid: Uuid, message: &Message) -> Answer {
        let device = &mut self.devices[at];
        if !device.connected {
            return refuse(FAILED, "Not connected");
        }
        match device.fault(Operation::Read) {
            Fault::Error { name, text } => return refuse(name, text),
            Fault::Hang | Fault::Mute => return Ok(None),
            Fault::DropLink => {
                self.drop_link(at);
                return refuse(FAILED, LINK_LOST);
            }
            _ => {}
        }
        match self.devices[at].peripheral.read(self.clock.now(), uuid) {
            Ok(value) => {
                // What is read is also told as if it had been notified.
                self.tell_value(at, uuid, &value);
                Ok(Some(message.method_return().append1(value)))
            }
            Err(att) if self.encrypts(at, att) => self.encrypt(at, uuid, message),
            Err(att) => {
                let (name, text) = att_error(att, false);
                refuse(name, text)
            }
        }
    }

    pub(super) fn start_notify(&mut self, at: usize, uuid: Uuid, message: &Message) -> Answer {
        let client = sender(message);
        let device = &mut self.devices[at];
        match device.fault(Operation::Notify) {
            Fault::Error { name, text } => return refuse(name, text),
            Fault::Hang | Fault::Mute => return Ok(None),
            _ => {}
        }
        let clients = device.notifying.entry(uuid).or_default();
        if clients.contains(&client) && !device.connected {
            return refuse(IN_PROGRESS, "Operation already in progress");
        }
        clients.insert(client);
        Ok(Some(message.method_return()))
    }

    pub(super) fn stop_notify(&mut self, at: usize, uuid: Uuid, message: &Message) -> Answer {
        let clients = self.devices[at].notifying.get_mut(&uuid);
        if clients.is_some_and(|clients| clients.remove(&sender(message))) {
            return Ok(Some(message.method_return()));
        }
        refuse(FAILED, "No notify session started")
    }
}

/// How the daemon tells an error of the attribute protocol.
fn att_error(att: AttError, write: bool) -> (&'static str, String) {
    match att.0 {
        0x02 => ("org.bluez.Error.NotPermitted", "Read not permitted".into()),
        0x03 => ("org.bluez.Error.NotPermitted", "Write not permitted".into()),
        INSUFFICIENT_AUTHENTICATION | 0x0C | 0x0F => (NOT_PERMITTED, NOT_PAIRED.into()),
        0x06 => ("org.bluez.Error.NotSupported", "Operation is not supported".into()),
        0x07 => ("org.bluez.Error.InvalidArguments", "Invalid offset".into()),
        0x08 => ("org.bluez.Error.NotAuthorized", "Operation Not Authorized".into()),
        0x0D if write => ("org.bluez.Error.InvalidArguments", "Invalid Length".into()),
        other => (FAILED, format!("Operation failed with ATT error: 0x{other:02x}")),
    }
}
