//! What a site's cloud wants there, as far as a desk needs it to go on without the cloud.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AccessGrantId, AccessMethodId, DeviceName, DoorName, Private, ReservationKey, SystemName, Window,
    on_the_wire_optional,
};

/// A grant as it is now, and no more of it than concerns one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DesiredGrant {
    /// Which.
    pub access_grant_id: AccessGrantId,
    /// The caller's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_grant_key: Option<String>,
    /// The stay, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation_key: Option<ReservationKey>,
    /// Whose it is; absent where nobody knows, or nobody is to know any more.
    #[serde(serialize_with = "on_the_wire_optional", default, skip_serializing_if = "Option::is_none")]
    pub guest_name: Option<Private>,
    /// When it holds.
    pub window: Window,
    /// Where it leads, by system; doors that follow reservations come first.
    pub doors: Vec<DesiredDoors>,
    /// Its cards in the systems of this site.
    pub cards: Vec<DesiredCard>,
    /// Its codes on devices of this site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<DesiredCode>,
}

impl DesiredGrant {
    /// The doors in one system, in the order in which a card names them.
    #[must_use]
    pub fn doors_in(&self, system: &SystemName) -> &[DoorName] {
        self.doors.iter().find(|doors| doors.system == *system).map_or(&[], |doors| &doors.doors)
    }
}

/// The doors of a grant in one system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DesiredDoors {
    /// The system.
    pub system: SystemName,
    /// Its doors.
    pub doors: Vec<DoorName>,
}

/// A card of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DesiredCard {
    /// The access method that it is.
    pub access_method_id: AccessMethodId,
    /// Its system. It opens all doors that the grant has there.
    pub system: SystemName,
    /// Where it stands.
    pub state: DesiredCardState,
    /// Why it cannot be written, for a person, where it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A code of a grant: one PIN for some devices of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DesiredCode {
    /// The access method that it is; also the key of its slot in each device.
    pub access_method_id: AccessMethodId,
    /// Where it is to open.
    pub devices: Vec<DesiredDevice>,
    /// The PIN, where the site gave it out. A cloud does not tell those of its own: they come with their orders.
    #[serde(serialize_with = "on_the_wire_optional", default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Private>,
}

/// A device that a code is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DesiredDevice {
    /// Its system.
    pub system: SystemName,
    /// Its name there.
    pub device: DeviceName,
}

/// Where a card stands, as far as its cloud knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DesiredCardState {
    /// It asks to be written, for the first time or again.
    EncodingRequired,
    /// It has been ordered, and the end of that is not known.
    BeingEncoded,
    /// It is written as it should be.
    Issued,
    /// It may have been written: it is to be read before it is written again.
    InDoubt,
    /// It cannot be written.
    NotReady,
}

impl DesiredCardState {
    /// The name on the wire and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EncodingRequired => "encoding_required",
            Self::BeingEncoded => "being_encoded",
            Self::Issued => "issued",
            Self::InDoubt => "in_doubt",
            Self::NotReady => "not_ready",
        }
    }
}

/// A person at a site made a grant there: a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GrantMade {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// What, under ids of the site's.
    pub grant: DesiredGrant,
}

/// A person at a site took a grant back: a fact. Cards that were written open until their printed end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GrantRevoked {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// Which.
    pub access_grant_id: AccessGrantId,
}
