//! Links: made, ended, lost; and what happens later.

use std::time::Instant;

use dbus::Message;

use super::{
    super::world::{Attempt, Awaits},
    *,
};

impl Daemon {
    pub(super) fn connect(&mut self, at: usize, message: &Message) -> Answer {
        if !self.adapter.powered {
            return refuse(FAILED, "Resource Not Ready");
        }
        let mut after = self.timing.connect;
        let device = &mut self.devices[at];
        if device.connecting.is_some() {
            return refuse(IN_PROGRESS, "Operation already in progress");
        }
        if device.connected {
            return Ok(Some(message.method_return()));
        }
        let mut awaits = if device.in_range { Awaits::Time } else { Awaits::Range };
        match device.fault(Operation::Connect) {
            Fault::Error { name, text } => {
                self.may_fade(at);
                return refuse(name, text);
            }
            Fault::DropLink | Fault::DropLinkMute => {
                self.may_fade(at);
                return refuse(FAILED, "le-connection-abort-by-local");
            }
            Fault::Hang => awaits = Awaits::Nothing,
            Fault::Delay(by) => after += by,
            _ => {}
        }
        device.connecting = kept(message).map(|call| Attempt { call, awaits });
        device.goes_at = None;
        if awaits == Awaits::Time {
            self.agenda.put(Instant::now() + after, Later::Connected { device: at, epoch: device.epoch });
        }
        Ok(None)
    }

    /// Whoever waits for a connection waits in vain. Tells whether anybody did.
    pub(super) fn call_off(&mut self, at: usize, why: &str) -> bool {
        let Some(attempt) = self.devices[at].connecting.take() else {
            return false;
        };
        self.devices[at].epoch += 1;
        self.send(error(&attempt.call, FAILED, why));
        self.may_fade(at);
        true
    }

    pub(super) fn disconnect(&mut self, at: usize, message: &Message) -> Answer {
        if self.call_off(at, "br-connection-canceled") || !self.devices[at].connected {
            return Ok(Some(message.method_return()));
        }
        let device = &mut self.devices[at];
        match device.fault(Operation::Disconnect) {
            Fault::Error { name, text } => return refuse(name, text),
            Fault::Hang => return Ok(None),
            _ => {}
        }
        let (epoch, reply) = (device.epoch, message.method_return());
        self.agenda
            .put(Instant::now() + self.timing.disconnect, Later::Disconnected { device: at, epoch, reply });
        Ok(None)
    }

    pub(super) fn drop_link(&mut self, at: usize) {
        let path = self.path(at);
        self.pairing_is_over(at);
        let device = &mut self.devices[at];
        device.epoch += 1;
        let writing = std::mem::take(&mut device.writing);
        let (was_connected, was_resolved) = (device.connected, device.resolved);
        (device.connected, device.resolved, device.encrypted) = (false, false, false);
        if was_connected {
            device.peripheral.disconnected(self.clock.now());
        }
        for (_, write) in writing {
            self.send(error(&write, FAILED, LINK_LOST));
        }
        if was_resolved {
            self.changed(&path, DEVICE, Self::one("ServicesResolved", variant(false)), &[]);
        }
        if was_connected {
            self.changed(&path, DEVICE, Self::one("Connected", variant(false)), &[]);
        }
    }

    /// Takes a device's table from the bus.
    pub(super) fn unshow(&mut self, at: usize) {
        if std::mem::replace(&mut self.devices[at].shown, false) {
            for (path, interfaces) in objects::table(&self.devices[at], &self.path(at)) {
                let interfaces: Vec<&str> = interfaces.keys().map(String::as_str).collect();
                self.removed(path, &interfaces);
            }
        }
    }

    pub(super) fn happen(&mut self, later: Later) {
        match later {
            Later::Written { device: at, epoch, to, reply } => {
                // The end of the link has answered it otherwise.
                if self.devices[at].epoch == epoch {
                    self.devices[at].writing.retain(|(held, _)| *held != to);
                    self.send(reply);
                }
            }
            Later::Connected { device, epoch } => self.is_connected(device, epoch),
            Later::Resolve { device: at, epoch } => {
                let path = self.path(at);
                let device = &mut self.devices[at];
                if device.epoch != epoch {
                    return;
                }
                device.resolved = true;
                if let Resolution::ObjectsLate(after) = device.resolution {
                    self.agenda.put(Instant::now() + after, Later::ShowTable { device: at, epoch });
                } else {
                    self.happen(Later::ShowTable { device: at, epoch });
                }
                self.changed(&path, DEVICE, Self::one("ServicesResolved", variant(true)), &[]);
            }
            Later::ShowTable { device: at, epoch } => {
                let device = &mut self.devices[at];
                if device.epoch != epoch || std::mem::replace(&mut device.shown, true) {
                    return;
                }
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
            Later::Encrypted { device, epoch } => self.is_encrypted(device, epoch),
            Later::PairingEnds { device, epoch } => self.pairing_took_too_long(device, epoch),
        }
    }

    fn is_connected(&mut self, at: usize, epoch: u64) {
        let (now, path) = (Instant::now(), self.path(at));
        let device = &mut self.devices[at];
        if device.epoch != epoch || device.connected {
            return;
        }
        let Some(attempt) = device.connecting.take() else { return };
        if !device.in_range {
            device.connecting = Some(Attempt { awaits: Awaits::Range, ..attempt });
            return;
        }
        (device.connected, device.permanent, device.known) = (true, true, true);
        device.peripheral.connected(self.clock.now());
        let resolution = device.resolution;
        let next = match resolution {
            Resolution::Whole | Resolution::ObjectsLate(_) => {
                Some((self.timing.resolve, Later::Resolve { device: at, epoch }))
            }
            Resolution::Never => None,
            Resolution::DropBefore(after) => Some((after, Later::Drop { device: at, epoch })),
        };
        if matches!(resolution, Resolution::ObjectsLate(_)) {
            self.unshow(at);
        }
        self.changed(&path, DEVICE, Self::one("Connected", variant(true)), &[]);
        self.send(attempt.call.method_return());
        if let Some((after, later)) = next {
            self.agenda.put(now + after, later);
        }
    }
}
