//! What happened at a door, as the device there remembers it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeviceName, JobId, SystemName};

/// What a device remembers, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoorEvents {
    /// The device's system.
    pub system: SystemName,
    /// The device.
    pub device: DeviceName,
    /// At least so many events before these nobody will hear of: the device or the site had no room to keep them, or the
    /// device's memory was cleared; nobody knows how many went with that, and it counts as one.
    pub lost: u64,
    /// The events.
    pub events: Vec<DoorEvent>,
}

/// One thing that happened at a door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoorEvent {
    /// The same however often it is read, and no other event's.
    pub door_event_id: uuid::Uuid,
    /// When, by the device's clock.
    pub at: Timestamp,
    /// What.
    pub what: DoorAct,
    /// By what means; absent where the device does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<DoorMeans>,
    /// The slot whose content was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// The job that it was done for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
}

/// What can happen at a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DoorAct {
    /// It was locked.
    Locked,
    /// It was unlocked.
    Unlocked,
    /// Somebody tried to open it and was not let in.
    AccessDenied,
}

/// By what means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DoorMeans {
    /// A code at its keypad.
    Keycode,
    /// A card.
    Card,
    /// By hand.
    Manual,
    /// By itself.
    Automatic,
    /// From afar.
    Remote,
}

impl DoorMeans {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keycode => "keycode",
            Self::Card => "card",
            Self::Manual => "manual",
            Self::Automatic => "automatic",
            Self::Remote => "remote",
        }
    }
}
