//! What a lock's ledger says of its door. Pure.
//!
//! A mark names the last deed that was read: the lock's serial number, the deed's place and its time. The next reading
//! begins at that deed and not behind it, so that it shows whether this is still the same memory: one that was cleared
//! counts from 1 again, and another deed stands at the place.

use ring::digest::{SHA256, digest};

use super::message::Deed;
use crate::model::{DeviceName, DoorAct, DoorEvent, DoorMeans, SystemName};

/// The last deed that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    sequence: u64,
    second: i64,
    serial: String,
}

/// A ledger as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) serial: String,
    pub(super) first: u64,
    pub(super) deeds: Vec<Deed>,
    pub(super) more: bool,
}

impl Mark {
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let mut part = || parts.next();
        Some(Self {
            sequence: part()?.parse().ok()?,
            second: part()?.parse().ok()?,
            serial: part()?.to_owned(),
        })
    }

    fn of(deed: &Deed, serial: &str) -> Self {
        Self { sequence: deed.sequence, second: deed.at.as_second(), serial: serial.to_owned() }
    }

    /// Behind which place of the ledger its deed stands.
    pub(super) fn after(&self) -> u64 {
        self.sequence.saturating_sub(1)
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.sequence, self.second, self.serial)
    }
}

impl Read {
    /// Leaves what is behind a mark, and says how many deeds between the lock has forgotten. None if this memory is not
    /// the one that the mark was made in.
    pub(super) fn since(mut self, mark: &Mark) -> Option<(Self, u64)> {
        if self.serial != mark.serial {
            return None;
        }
        if mark.sequence < self.first {
            let lost = self.first - mark.sequence - 1;
            return Some((self, lost));
        }
        if self.deeds.first().map(|deed| Mark::of(deed, &self.serial)).as_ref() != Some(mark) {
            return None;
        }
        self.deeds.remove(0);
        Some((self, 0))
    }

    /// Where the next reading begins; none where nothing was read.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.deeds.last().map(|deed| Mark::of(deed, &self.serial))
    }

    /// What of it happened at the door.
    pub(super) fn events(&self, system: &SystemName, lock: &DeviceName) -> Vec<DoorEvent> {
        self.deeds.iter().filter_map(|deed| event(deed, &self.serial, system, lock)).collect()
    }
}

fn event(deed: &Deed, serial: &str, system: &SystemName, lock: &DeviceName) -> Option<DoorEvent> {
    let (what, by) = match deed.what.as_str() {
        "opened" => (DoorAct::Unlocked, Some(DoorMeans::Keycode)),
        "opened_card" => (DoorAct::Unlocked, Some(DoorMeans::Card)),
        "unlocked" => (DoorAct::Unlocked, Some(DoorMeans::Remote)),
        "unlocked_hand" => (DoorAct::Unlocked, Some(DoorMeans::Manual)),
        "locked_hand" => (DoorAct::Locked, Some(DoorMeans::Manual)),
        "refused" => (DoorAct::AccessDenied, None),
        _ => return None,
    };
    let Deed { sequence, at, .. } = deed;
    let name = format!("{system}/{lock}/{serial}/{sequence}/{}/{}", at.as_second(), deed.what);
    let hash = digest(&SHA256, name.as_bytes());
    let bytes = hash.as_ref().first_chunk::<16>().expect("a hash has 32 bytes");
    Some(DoorEvent {
        door_event_id: uuid::Builder::from_custom_bytes(*bytes).into_uuid(),
        at: *at,
        what,
        by,
        slot: deed.key.clone(),
        job_id: deed.job,
    })
}
