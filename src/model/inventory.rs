//! What a site has: systems with their doors and encoders, and what each system can do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeviceName, DoorName, EncoderName, SystemName};

/// Everything behind one bridge.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    /// The access systems, sorted by name.
    pub systems: Vec<SystemInventory>,
}

/// One access system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SystemInventory {
    /// The site's name for it.
    pub name: SystemName,
    /// Which make.
    pub kind: SystemKind,
    /// IANA name of the property's time zone.
    pub time_zone: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether the site lets the end of a reservation's last grant free the room.
    #[serde(default)]
    pub checkout_on_last_grant: bool,
    /// Its doors.
    pub doors: Vec<Door>,
    /// Its encoders.
    pub encoders: Vec<Encoder>,
    /// Its devices with slots of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
}

/// Which make of access system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SystemKind {
    /// SALTO SPACE by its "Industry Standard" PMS interface.
    SaltoIs,
    /// The keypad lock of `latchd sim lock`.
    SimLock,
}

impl SystemKind {
    /// The name on the wire and in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SaltoIs => "salto_is",
            Self::SimLock => "sim_lock",
        }
    }
}

/// One door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Door {
    /// Its name in the system; also its local id.
    pub name: DoorName,
    /// What people call it, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Whether it follows reservations.
    pub kind: DoorKind,
}

/// Whether a door follows reservations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DoorKind {
    /// A guest room: cards override or join.
    Room,
    /// A common door: plain access, never part of an override.
    Common,
}

/// One encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Encoder {
    /// Its name or number in the system; also its local id.
    pub name: EncoderName,
    /// What people call it, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// A device that holds PINs or card numbers in slots of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// Its name in the system; also its local id.
    pub name: DeviceName,
    /// What people call it, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// How many slots it has.
    pub slots: u16,
}

/// What a driver can do with its system, each with how well that is proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// Cards that begin a stay.
    pub r#override: Option<ProofLevel>,
    /// Cards that join a stay.
    pub join: Option<ProofLevel>,
    /// Cards that start later than now.
    pub future_start: Option<ProofLevel>,
    /// Freeing a room.
    pub checkout: Option<ProofLevel>,
    /// Changing a stay's end or room without a card.
    pub modify_stay: Option<ProofLevel>,
    /// Reading a card.
    pub read_card: Option<ProofLevel>,
    /// Cards without a printed end.
    pub open_end: Option<ProofLevel>,
    /// PINs or card numbers in a device's slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<ProofLevel>,
    /// Opening a door now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock: Option<ProofLevel>,
    /// Reservation-capable doors on one card.
    pub max_rooms: u16,
    /// Common doors on one card.
    pub max_common: u16,
    /// Whether success means that the card was written, not only that the order was taken.
    pub answer_means_written: bool,
    /// Whether several encoders of the system work at once.
    pub parallel_encoders: bool,
}

/// How well a capability is proven. Nothing below `Site` is called proven in the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProofLevel {
    /// Only our own simulator accepted it.
    Simulator,
    /// The bytes agree with a public source.
    Vector,
    /// An independent implementation accepted it.
    Peer,
    /// A recorded transcript of a real installation.
    Site,
}
