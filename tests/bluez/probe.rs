//! A peripheral that answers what it is told to, and a world with two of them.

use std::{process::Command, time::Duration};

use jiff::Timestamp;
use latchd::{
    seams::Clock,
    sim::ble::{
        Bluez, Bus, Place, Timing,
        peripheral::{Act, Advertisement, AttError, Characteristic, Peripheral, Service},
    },
};
use uuid::Uuid;

use crate::client::{ADAPTER, Client, Heard, changed};

const SERVICE: Uuid = Uuid::from_u128(0x1000);
const WRITTEN: Uuid = Uuid::from_u128(0x1001);
const OTHER: Uuid = Uuid::from_u128(0x1002);
const TOLD: Uuid = Uuid::from_u128(0x1003);

/// Refuses what begins with `0xEE` by the error behind that; repeats everything else at its third characteristic.
#[derive(Default)]
struct Probe {
    written: Vec<u8>,
    times: usize,
}

impl Peripheral for Probe {
    fn advertisement(&self) -> Advertisement {
        Advertisement { name: "probe".into(), services: vec![SERVICE], ..Advertisement::default() }
    }

    fn services(&self) -> Vec<Service> {
        let one = |uuid, flags| Characteristic { uuid, flags };
        let characteristics =
            vec![one(WRITTEN, vec!["read", "write"]), one(OTHER, vec!["write"]), one(TOLD, vec!["notify"])];
        vec![Service { uuid: SERVICE, characteristics }]
    }

    fn connected(&mut self, _now: Timestamp) {}

    fn disconnected(&mut self, _now: Timestamp) {}

    fn write(&mut self, _now: Timestamp, _to: Uuid, value: &[u8]) -> Result<Vec<Act>, AttError> {
        if let [0xEE, error] = value {
            return Err(AttError(*error));
        }
        self.written = value.to_vec();
        self.times += 1;
        Ok(vec![Act::Notify { from: TOLD, value: value.to_vec(), after: Duration::ZERO }])
    }

    fn read(&mut self, _now: Timestamp, _from: Uuid) -> Result<Vec<u8>, AttError> {
        match self.written.as_slice() {
            [0xEF, error] => Err(AttError(*error)),
            written => Ok(written.to_vec()),
        }
    }

    fn control(&mut self, _now: Timestamp, command: &str) -> Result<String, String> {
        match command {
            "times" => Ok(self.times.to_string()),
            _ => Err("times".into()),
        }
    }
}

pub struct World {
    pub bluez: Bluez,
    pub bus: Bus,
}

/// A device's place on the bus, and those of its three characteristics.
pub const ONE: &str = "/org/bluez/hci0/dev_C0_FF_EE_00_00_01";
pub const TWO: &str = "/org/bluez/hci0/dev_C0_FF_EE_00_00_02";
pub const ONE_WRITTEN: &str = "/org/bluez/hci0/dev_C0_FF_EE_00_00_01/service0100/char0111";
pub const ONE_OTHER: &str = "/org/bluez/hci0/dev_C0_FF_EE_00_00_01/service0100/char0121";
pub const ONE_TOLD: &str = "/org/bluez/hci0/dev_C0_FF_EE_00_00_01/service0100/char0131";

/// Whether these tests can run here. Where there is no message bus there is nothing to see, but where nothing may be
/// skipped.
fn has_a_bus() -> bool {
    let found = Command::new("dbus-daemon").arg("--version").output().is_ok();
    assert!(found || std::env::var_os("LATCHD_NO_SKIPS").is_none(), "missing: dbus-daemon");
    found
}

impl World {
    /// Two devices, `one` and `two`, heard every ten milliseconds; none without a message bus.
    pub fn start() -> Option<Self> {
        if !has_a_bus() {
            return None;
        }
        let bus = Bus::start(None).unwrap();
        let place = |label: &str, number| Place {
            label: label.into(),
            address: format!("C0:FF:EE:00:00:{number:02X}"),
            peripheral: Box::new(Probe::default()),
        };
        let places = vec![place("one", 1), place("two", 2)];
        let timing = Timing { advertise: Duration::from_millis(10), ..Timing::default() };
        let bluez = Bluez::start(&bus.address(), timing, Clock::system(), places).unwrap();
        Some(Self { bluez, bus })
    }

    /// The world, and a client that meets it.
    pub fn met() -> Option<(Self, Client)> {
        let world = Self::start()?;
        let client = world.client();
        Some((world, client))
    }

    pub fn client(&self) -> Client {
        Client::new(&self.bus.address())
    }

    #[track_caller]
    pub fn tell(&self, command: &str) -> String {
        self.bluez.command(command).unwrap()
    }
}

impl Client {
    /// Scans until both devices are heard.
    #[track_caller]
    pub fn find(&mut self) {
        let before = self.heard.len();
        self.call(ADAPTER, "StartDiscovery", ()).unwrap();
        for wanted in [ONE, TWO] {
            let is_wanted = |heard: &Heard| match heard {
                Heard::Added { path, .. } => path == wanted,
                Heard::Changed { path, property, .. } => path == wanted && property == "RSSI",
                _ => false,
            };
            self.until("a device is heard", |client| client.heard[before..].iter().any(is_wanted));
        }
        self.call(ADAPTER, "StopDiscovery", ()).unwrap();
    }

    /// Connects to the first device until its table is there.
    #[track_caller]
    pub fn connect(&mut self) {
        let before = self.heard.len();
        self.call(ONE, "Connect", ()).unwrap();
        let resolved = changed(ONE, "ServicesResolved", "true");
        self.until("its table is there", |client| client.heard[before..].contains(&resolved));
    }
}
