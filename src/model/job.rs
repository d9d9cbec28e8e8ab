//! What the cloud may ask a bridge to do. The list of kinds is closed.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AccessMethodId, DeviceName, DoorName, EncoderName, JobId, Private, ReservationKey, SystemName, Window,
    on_the_wire, on_the_wire_optional,
};

/// One job: an order with its name, its address and its deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// The idempotency key: a second delivery of it is the same job.
    pub job_id: JobId,
    /// The access system or device family it is for.
    pub system: SystemName,
    /// Whether a person is waiting for it.
    pub priority: Priority,
    /// When the cloud made it.
    pub created_at: Timestamp,
    /// Not started after this instant.
    pub expires_at: Timestamp,
    /// What to do.
    pub order: Order,
}

/// Who waits for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Nobody stands there.
    Background,
    /// A person at the desk.
    Desk,
}

/// What to do, with all that it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub enum Order {
    /// Write one card.
    #[serde(rename = "card.encode")]
    CardEncode(CardEncode),
    /// Read the card that lies on an encoder.
    #[serde(rename = "card.read")]
    CardRead(CardRead),
    /// Change the end or the room of a stay that the lock system knows.
    #[serde(rename = "stay.modify")]
    StayModify(StayModify),
    /// Free a room.
    #[serde(rename = "stay.checkout")]
    StayCheckout {
        /// The room to free.
        room: DoorName,
        /// The stay that must hold it, else nothing is done.
        reservation_key: ReservationKey,
    },
    /// Put a PIN or a card number into a device's slot.
    #[serde(rename = "slot.put")]
    SlotPut(SlotPut),
    /// Empty a device's slot.
    #[serde(rename = "slot.remove")]
    SlotRemove {
        /// The device.
        device: DeviceName,
        /// The slot's key, as `slot.put` gave it.
        slot: String,
    },
    /// Open a door now.
    #[serde(rename = "device.unlock")]
    DeviceUnlock {
        /// The device.
        device: DeviceName,
    },
    /// Read a device's state.
    #[serde(rename = "device.read")]
    DeviceRead {
        /// The device.
        device: DeviceName,
    },
    /// List a system's doors and encoders again.
    #[serde(rename = "inventory.refresh")]
    InventoryRefresh,
}

/// One card for one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CardEncode {
    /// Where the card will lie.
    pub encoder: EncoderName,
    /// Every door it shall open, rooms and common doors; the first room is the main one.
    pub doors: Vec<DoorName>,
    /// The stay, for doors that follow reservations.
    pub reservation_key: Option<ReservationKey>,
    /// When it shall open them.
    pub window: Window,
    /// The access method that this card is.
    pub access_method_id: AccessMethodId,
    /// For the lock system's own lists.
    #[serde(serialize_with = "on_the_wire_optional", default, skip_serializing_if = "Option::is_none")]
    pub guest_name: Option<Private>,
    /// How long a person may take to lay a card down, in seconds.
    pub card_wait_seconds: u16,
    /// Whether the card begins its stay anew in rooms that the stay holds already: once it is used there, the stay's
    /// earlier cards are dead, a lost one among them. Where a room does not certainly follow the stay, nothing is written.
    /// Without it a further card joins; in a room that the stay has not begun yet it changes nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begin_again: bool,
}

/// Read the card on an encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CardRead {
    /// Where the card will lie.
    pub encoder: EncoderName,
    /// How long a person may take to lay a card down, in seconds.
    pub card_wait_seconds: u16,
}

/// Change a stay without a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StayModify {
    /// The room the stay holds now.
    pub room: DoorName,
    /// The room it shall hold, if it moves.
    pub to_room: Option<DoorName>,
    /// The stay that must hold the room, else nothing is done.
    pub reservation_key: ReservationKey,
    /// The new end.
    pub ends_at: Timestamp,
}

/// One entry of a device's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotPut {
    /// The device.
    pub device: DeviceName,
    /// The caller's key for the entry; a later put with the same key replaces it.
    pub slot: String,
    /// What to put.
    pub content: SlotContent,
    /// When it shall open.
    pub window: Window,
    /// Grows with every change of the entry; an older one never replaces a newer one.
    pub generation: u64,
}

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlotContent {
    /// Digits for a keypad.
    Pin(#[serde(serialize_with = "on_the_wire")] Private),
    /// The number of a card.
    CardNumber(#[serde(serialize_with = "on_the_wire")] Private),
}

/// What is known of a device's slot when something is about to be done there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotNow {
    /// Which of the device's places it has, counted from 0, where the device numbers them.
    pub place: Option<u32>,
    /// What may be in it, the newest last, each once; empty where nothing is.
    pub may_hold: Vec<SlotContent>,
    /// When the last of that opens no more; absent where nothing is there, or something has no end.
    pub until: Option<Timestamp>,
    /// Something else may be in it, of which nothing is known: the memory here was set back, and knew nothing of the slot.
    pub is_forgotten: bool,
}

impl SlotNow {
    /// From now on this may be in it.
    pub fn tried(&mut self, content: &SlotContent) {
        self.may_hold.retain(|other| other != content);
        self.may_hold.push(content.clone());
    }
}

/// The name of an order's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// See [`Order::CardEncode`].
    #[serde(rename = "card.encode")]
    CardEncode,
    /// See [`Order::CardRead`].
    #[serde(rename = "card.read")]
    CardRead,
    /// See [`Order::StayModify`].
    #[serde(rename = "stay.modify")]
    StayModify,
    /// See [`Order::StayCheckout`].
    #[serde(rename = "stay.checkout")]
    StayCheckout,
    /// See [`Order::SlotPut`].
    #[serde(rename = "slot.put")]
    SlotPut,
    /// See [`Order::SlotRemove`].
    #[serde(rename = "slot.remove")]
    SlotRemove,
    /// See [`Order::DeviceUnlock`].
    #[serde(rename = "device.unlock")]
    DeviceUnlock,
    /// See [`Order::DeviceRead`].
    #[serde(rename = "device.read")]
    DeviceRead,
    /// See [`Order::InventoryRefresh`].
    #[serde(rename = "inventory.refresh")]
    InventoryRefresh,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 9] = [
        Self::CardEncode,
        Self::CardRead,
        Self::StayModify,
        Self::StayCheckout,
        Self::SlotPut,
        Self::SlotRemove,
        Self::DeviceUnlock,
        Self::DeviceRead,
        Self::InventoryRefresh,
    ];

    /// The name on the wire, in the configuration and in the CLI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CardEncode => "card.encode",
            Self::CardRead => "card.read",
            Self::StayModify => "stay.modify",
            Self::StayCheckout => "stay.checkout",
            Self::SlotPut => "slot.put",
            Self::SlotRemove => "slot.remove",
            Self::DeviceUnlock => "device.unlock",
            Self::DeviceRead => "device.read",
            Self::InventoryRefresh => "inventory.refresh",
        }
    }

    /// Whether doing it twice is harmless. What is not repeatable is done exactly once or ends `unknown`.
    #[must_use]
    pub fn is_repeatable(self) -> bool {
        match self {
            Self::CardEncode | Self::StayModify | Self::StayCheckout | Self::DeviceUnlock => false,
            Self::CardRead | Self::SlotPut | Self::SlotRemove | Self::DeviceRead | Self::InventoryRefresh => {
                true
            }
        }
    }

    /// Whether it only looks: whatever becomes of it, nothing is changed anywhere.
    #[must_use]
    pub fn is_reading(self) -> bool {
        match self {
            Self::CardRead | Self::DeviceRead | Self::InventoryRefresh => true,
            Self::CardEncode
            | Self::StayModify
            | Self::StayCheckout
            | Self::SlotPut
            | Self::SlotRemove
            | Self::DeviceUnlock => false,
        }
    }
}

impl Order {
    /// Which kind of order this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::CardEncode(_) => Kind::CardEncode,
            Self::CardRead(_) => Kind::CardRead,
            Self::StayModify(_) => Kind::StayModify,
            Self::StayCheckout { .. } => Kind::StayCheckout,
            Self::SlotPut(_) => Kind::SlotPut,
            Self::SlotRemove { .. } => Kind::SlotRemove,
            Self::DeviceUnlock { .. } => Kind::DeviceUnlock,
            Self::DeviceRead { .. } => Kind::DeviceRead,
            Self::InventoryRefresh => Kind::InventoryRefresh,
        }
    }

    /// The encoder that it is done on, if it needs one.
    #[must_use]
    pub fn encoder(&self) -> Option<&EncoderName> {
        match self {
            Self::CardEncode(card) => Some(&card.encoder),
            Self::CardRead(read) => Some(&read.encoder),
            Self::StayModify(_)
            | Self::StayCheckout { .. }
            | Self::SlotPut(_)
            | Self::SlotRemove { .. }
            | Self::DeviceUnlock { .. }
            | Self::DeviceRead { .. }
            | Self::InventoryRefresh => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_name_of_a_kind_is_the_tag_of_its_order() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        let order = Order::DeviceUnlock { device: DeviceName::new("lobby").unwrap() };
        assert_eq!(serde_json::to_value(&order).unwrap()["kind"], order.kind().as_str());
    }

    #[test]
    fn a_kind_outside_the_list_does_not_parse() {
        let error = serde_json::from_str::<Order>(r#"{"kind":"card.staff"}"#).unwrap_err().to_string();
        assert!(error.contains("unknown variant `card.staff`"), "{error}");
    }
}
