//! Locks that are spoken to by Bluetooth Low Energy.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use super::{Section, Setting, list, names, pin_constraints, pin_lengths, zone};
use crate::model::{DeviceName, PinConstraint, SystemKind, Whom};

/// Which make of lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BleMake {
    /// `ttlock`.
    TtLock,
    /// `august_yale`.
    AugustYale,
}

impl BleMake {
    /// The same as a make of system.
    #[must_use]
    pub fn kind(self) -> SystemKind {
        match self {
            Self::TtLock => SystemKind::TtLock,
            Self::AugustYale => SystemKind::AugustYale,
        }
    }
}

/// Locks of one make within reach of one radio.
#[derive(Debug, Clone, PartialEq)]
pub struct BleConfig {
    /// Which make.
    pub make: BleMake,
    /// Its locks.
    pub locks: Vec<BleLockConfig>,
    /// Which adapter, by its name (`hci1`). Default the first one.
    pub adapter: Option<String>,
    /// How long a lock is listened for before it counts as out of range: 1 s to 2 min. Default 20 s.
    pub listen: Duration,
    /// How long one try of a connection may take: 1 s to 25 s. Default 20 s.
    pub connect_timeout: Duration,
    /// How long before its window an entry is put into a lock that keeps the window by itself. Default 72 h, at most 30 days.
    pub lead: Duration,
    /// How long a lock may take for each answer: 1 s to 60 s. Default 10 s.
    pub answer_timeout: Duration,
    /// How often each lock is asked what happened at its door: 1 min to one day. Default never, since each time costs the
    /// lock's battery.
    pub read_events_every: Option<Duration>,
}

/// One lock.
#[derive(Debug, Clone, PartialEq)]
pub struct BleLockConfig {
    /// The site's name for it; half of its local id. Never change it.
    pub name: DeviceName,
    /// What people call it.
    pub display_name: Option<String>,
    /// Its address, `AA:BB:CC:DD:EE:FF`, or the name that it shows.
    pub address: String,
    /// File with what gives rights at the lock, which nobody else may read. Without it, where `latchd devices` keeps it.
    pub keys_file: Option<PathBuf>,
    /// IANA zone of the lock's local time, where it is not the property's.
    pub time_zone: Option<String>,
    /// How many digits a PIN of this lock may have. Default 4 to 9 for `ttlock`, 4 to 6 for `august_yale`.
    pub pin_lengths: Vec<u8>,
    /// What this lock refuses beside that, e.g. `no_zeros`. Default nothing.
    pub pin_constraints: Vec<PinConstraint>,
    /// As what the cloud's clients see it. Default `ttlock_lock` or `august_lock`.
    pub device_type: String,
    /// Whether the lock keeps windows by itself. Without that its codes are written when they begin, and removed when they
    /// end. Default yes.
    pub windows: bool,
    /// Of `august_yale`: the first and the last of the lock's numbered places that are latchd's alone. Default 20 to 99.
    pub places: (u16, u16),
}

impl BleConfig {
    pub(super) fn read(section: &Section<'_>, make: BleMake) -> Option<Self> {
        let locks = section
            .must("locks", "its locks, e.g. locks = [{ name = \"101\", address = \"C0:FF:EE:00:00:01\" }]")
            .and_then(|setting| {
                let read = |item: &Setting<'_>| BleLockConfig::read(item, make);
                let locks = list(&setting, &mut BTreeSet::new(), read, |lock| lock.name.as_str())?;
                if locks.is_empty() {
                    setting.wrong("the list is empty", "a system without a lock can do nothing");
                }
                let mut addresses = BTreeSet::new();
                for lock in &locks {
                    if !addresses.insert(lock.address.to_ascii_uppercase()) {
                        setting.wrong(
                            format!("two locks have the address {}", lock.address),
                            "each lock has its own address",
                        );
                    }
                }
                Some(locks)
            });
        let second = Duration::from_secs(1);
        let length = |key, bounds| section.get(key).and_then(|setting| setting.length(bounds));
        let adapter = section.get("adapter").and_then(|setting| {
            let name = setting.text()?;
            if !name.starts_with("hci") {
                setting.wrong(
                    format!("{name:?} is no adapter"),
                    "name it as `bluetoothctl list` shows it: hci0",
                );
            }
            Some(name.to_owned())
        });
        let listen = length("listen", second..=120 * second);
        let connect_timeout = length("connect_timeout", second..=25 * second);
        let lead = length("lead", Duration::ZERO..=30 * 24 * 3600 * second);
        let answer_timeout = length("answer_timeout", second..=60 * second);
        let read_events_every = length("read_events_every", 60 * second..=24 * 3600 * second);
        Some(Self {
            make,
            locks: locks?,
            adapter,
            listen: listen.unwrap_or(20 * second),
            connect_timeout: connect_timeout.unwrap_or(20 * second),
            lead: lead.unwrap_or(72 * 3600 * second),
            answer_timeout: answer_timeout.unwrap_or(10 * second),
            read_events_every,
        })
    }
}

impl BleLockConfig {
    /// A lock of which nothing more is said.
    #[must_use]
    pub fn usual(make: BleMake, name: DeviceName, address: &str) -> Self {
        let (longest, device_type) = match make {
            BleMake::TtLock => (9, "ttlock_lock"),
            BleMake::AugustYale => (6, "august_lock"),
        };
        Self {
            name,
            display_name: None,
            address: address.into(),
            keys_file: None,
            time_zone: None,
            pin_lengths: (4..=longest).collect(),
            pin_constraints: Vec::new(),
            device_type: device_type.into(),
            windows: true,
            places: (20, 99),
        }
    }

    fn read(setting: &Setting<'_>, make: BleMake) -> Option<Self> {
        let section = setting.section()?;
        let (name, display_name) = names(&section);
        let address = section
            .must("address", "the lock's address, e.g. \"C0:FF:EE:00:00:01\", or the name that it shows")
            .and_then(|setting| {
                let text = setting.text()?;
                match text.parse::<Whom>() {
                    Ok(_) => Some(text.to_owned()),
                    Err(error) => {
                        setting.wrong(error, "see `bluetoothctl scan on`, or the vendor's app");
                        None
                    }
                }
            });
        let keys_file = section.get("keys_file").map(|setting| setting.path());
        let time_zone = section.get("time_zone").map(|setting| zone(&setting));
        let longest = match make {
            BleMake::TtLock => 9,
            BleMake::AugustYale => 6,
        };
        let lengths = pin_lengths(&section, 4..=longest);
        let constraints = pin_constraints(&section);
        let device_type = section.get("device_type").and_then(|setting| setting.text().map(String::from));
        let windows = section.get("windows").and_then(|setting| setting.flag());
        let places = section.get("places").and_then(|setting| {
            if make == BleMake::TtLock {
                setting.wrong("a TTLock numbers nothing", "remove this setting");
            }
            let items = setting.items()?;
            let [first, last] = items.as_slice() else {
                setting.wrong("it is not two numbers", "the first and the last: places = [20, 99]");
                return None;
            };
            let (first, last) = (first.number(0..=999_u16)?, last.number(0..=999_u16)?);
            if last < first {
                setting.wrong(
                    format!("{last} comes before {first}"),
                    "the first and the last: places = [20, 99]",
                );
                return None;
            }
            Some((first, last))
        });
        let usual = Self::usual(make, name?, &address?);
        Some(Self {
            display_name,
            // A path that is none was told; it must not become the usual one. So with a zone.
            keys_file: match keys_file {
                Some(path) => Some(path?),
                None => None,
            },
            time_zone: match time_zone {
                Some(zone) => Some(zone?),
                None => None,
            },
            pin_lengths: lengths.unwrap_or(usual.pin_lengths),
            pin_constraints: constraints.unwrap_or_default(),
            device_type: device_type.unwrap_or(usual.device_type),
            windows: windows.unwrap_or(usual.windows),
            places: places.unwrap_or(usual.places),
            ..usual
        })
    }
}
