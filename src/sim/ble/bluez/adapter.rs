//! The adapter: its power, who scans, and what is heard.

use std::{collections::HashMap, time::Instant};

use dbus::{Message, arg::PropMap};

use super::{super::world::Awaits, *};

impl Daemon {
    pub(super) fn is_scanning(&self) -> bool {
        self.adapter.present && self.adapter.powered && !self.adapter.discovering.is_empty()
    }

    pub(super) fn start_discovery(&mut self, message: &Message) -> Answer {
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

    pub(super) fn stop_discovery(&mut self, message: &Message) -> Answer {
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

    /// Nobody scans any more.
    pub(super) fn scan_ended(&mut self) {
        self.changed(&adapter_path(), ADAPTER, Self::one("Discovering", variant(false)), &[]);
        for at in 0..self.devices.len() {
            if self.devices[at].known {
                self.may_fade(at);
                self.changed(&self.path(at), DEVICE, PropMap::new(), &["RSSI"]);
            }
        }
    }

    /// Begins to forget a device that was never connected, unless somebody scans.
    pub(super) fn may_fade(&mut self, at: usize) {
        let is_heard = self.is_scanning();
        let device = &mut self.devices[at];
        let is_wanted = device.permanent || device.connected || device.connecting.is_some();
        if device.known && !is_wanted && !is_heard {
            device.goes_at = Some(Instant::now() + self.timing.forget);
        }
    }

    pub(super) fn power(&mut self, on: bool) {
        if self.adapter.powered == on {
            return;
        }
        self.adapter.powered = on;
        if !on {
            for at in 0..self.devices.len() {
                self.call_off(at, "le-connection-abort-by-local");
                self.drop_link(at);
            }
            let was_scanning = !self.adapter.discovering.is_empty();
            self.adapter.discovering.clear();
            if was_scanning {
                self.scan_ended();
            }
        }
        self.changed(&adapter_path(), ADAPTER, Self::one("Powered", variant(on)), &[]);
    }

    pub(super) fn unplug(&mut self) {
        self.power(false);
        for at in 0..self.devices.len() {
            self.unshow(at);
            if self.devices[at].known {
                self.removed(self.path(at), &[DEVICE]);
            }
            let device = &mut self.devices[at];
            device.known = device.permanent;
            device.goes_at = None;
        }
        self.adapter.present = false;
        self.removed(adapter_path(), &[ADAPTER]);
    }

    pub(super) fn plug(&mut self) {
        (self.adapter.present, self.adapter.powered) = (true, true);
        for (path, interfaces) in self.objects() {
            self.added(path, interfaces);
        }
    }

    pub(super) fn advertise(&mut self) {
        if self.is_scanning() {
            (0..self.devices.len()).for_each(|at| self.is_heard(at));
        }
        for at in 0..self.devices.len() {
            let device = &self.devices[at];
            let awaits = device.connecting.as_ref().map(|attempt| attempt.awaits);
            if awaits == Some(Awaits::Range) && device.in_range {
                let epoch = device.epoch;
                self.happen(Later::Connected { device: at, epoch });
            }
        }
    }

    /// A device is heard once, if it can be.
    pub(super) fn is_heard(&mut self, at: usize) {
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

    /// The daemon forgets a device, with its key.
    pub(super) fn forget(&mut self, at: usize) {
        self.call_off(at, "le-connection-abort-by-local");
        self.drop_link(at);
        self.unshow(at);
        let path = self.path(at);
        let device = &mut self.devices[at];
        device.goes_at = None;
        device.notifying.clear();
        (device.permanent, device.paired) = (false, false);
        if std::mem::replace(&mut device.known, false) {
            self.removed(path, &[DEVICE]);
        }
    }
}
