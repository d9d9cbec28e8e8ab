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
    /// Whether the site wants the next card of a stay to begin the stay anew after one of its cards was deleted, so that
    /// the deleted one dies once the new one is used. Otherwise it joins, and the deleted one opens until its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub override_after_deleted_card: bool,
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
    /// ASSA ABLOY Visionline by its PMS text interface; since version 2 of the language.
    Visionline,
    /// dormakaba's hotel systems (Saflok System 6000, Ambiance) by the Messenger PMS web service; since version 2 of the
    /// language.
    KabaMessenger,
    /// TTLock locks by Bluetooth Low Energy; since version 2 of the language.
    #[serde(rename = "ttlock")]
    TtLock,
    /// August and Yale locks by Bluetooth Low Energy; since version 2 of the language.
    AugustYale,
    /// igloohome locks, whose codes their maker's cloud computes; since version 2 of the language.
    Igloohome,
    /// UHPPOTE door controllers; since version 2 of the language.
    Uhppote,
    /// Readers on desks, for devices that know cards by their numbers; since version 2 of the language.
    CardReader,
    /// A make of a newer peer; since version 2 of the language.
    #[serde(other)]
    Other,
}

impl SystemKind {
    /// The name on the wire and in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SaltoIs => "salto_is",
            Self::SimLock => "sim_lock",
            Self::Visionline => "visionline",
            Self::KabaMessenger => "kaba_messenger",
            Self::TtLock => "ttlock",
            Self::AugustYale => "august_yale",
            Self::Igloohome => "igloohome",
            Self::Uhppote => "uhppote",
            Self::CardReader => "card_reader",
            Self::Other => "other",
        }
    }

    /// Whether a peer that speaks only version 1 of the language knows it.
    #[must_use]
    pub fn is_of_version_1(self) -> bool {
        match self {
            Self::SaltoIs | Self::SimLock => true,
            Self::Visionline
            | Self::KabaMessenger
            | Self::TtLock
            | Self::AugustYale
            | Self::Igloohome
            | Self::Uhppote
            | Self::CardReader
            | Self::Other => false,
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
    /// How many slots it has; 0 while that is not known.
    pub slots: u16,
    /// Which PINs it takes; absent where it takes none, or nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<PinRules>,
    /// What kind of device it is, in the words of the cloud's clients, e.g. `august_lock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// Who makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// What its maker calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How long before its window begins an entry is put into it, in seconds; absent where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead_seconds: Option<u32>,
    /// Whether the site lets it be opened from afar; absent where it cannot be, or nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_unlock: Option<bool>,
    /// Whether it knows cards by the numbers of their chips.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub card_numbers: bool,
}

/// Which PINs a device takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PinRules {
    /// How many digits a PIN may have.
    pub lengths: Vec<u8>,
    /// What is refused beside that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<PinConstraint>,
}

impl PinRules {
    /// Whether a PIN has to be what the maker computed, [`PinConstraint::ComputedByMaker`].
    #[must_use]
    pub fn are_computed(&self) -> bool {
        self.constraints.contains(&PinConstraint::ComputedByMaker)
    }
}

/// Why a device refuses a PIN of a length that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum PinConstraint {
    /// It contains 0.
    #[serde(rename = "no_zeros")]
    NoZeros,
    /// It begins with 12.
    #[serde(rename = "cannot_start_with_12")]
    CannotStartWith12,
    /// More than three digits in a row are equal, or count up or down by one.
    #[serde(rename = "no_triple_consecutive_ints")]
    NoTripleConsecutiveInts,
    /// It is one run up or down.
    #[serde(rename = "no_ascending_or_descending_sequence")]
    NoAscendingOrDescendingSequence,
    /// It has fewer than three different digits.
    #[serde(rename = "at_least_three_unique_digits")]
    AtLeastThreeUniqueDigits,
    /// All its digits are equal.
    #[serde(rename = "no_all_same_digits")]
    NoAllSameDigits,
    /// Two of its first four digits are equal.
    #[serde(rename = "unique_first_four_digits")]
    UniqueFirstFourDigits,
    /// It contains 0, 8 or 9.
    #[serde(rename = "cannot_contain_089")]
    CannotContain089,
    /// It contains 0, 7, 8 or 9.
    #[serde(rename = "cannot_contain_0789")]
    CannotContain0789,
    /// The maker makes it up: none can be given.
    #[serde(rename = "cannot_specify_pin_code")]
    CannotSpecifyPinCode,
    /// The maker computes it for a lock and its hours: that one can be given, and no other. It cannot be changed, nor taken
    /// away before its end.
    #[serde(rename = "computed_by_maker")]
    ComputedByMaker,
    /// A constraint of a newer peer.
    #[serde(rename = "other", other)]
    Other,
}

impl PinConstraint {
    /// Every constraint this version knows.
    pub const ALL: [Self; 12] = [
        Self::NoZeros,
        Self::CannotStartWith12,
        Self::NoTripleConsecutiveInts,
        Self::NoAscendingOrDescendingSequence,
        Self::AtLeastThreeUniqueDigits,
        Self::NoAllSameDigits,
        Self::UniqueFirstFourDigits,
        Self::CannotContain089,
        Self::CannotContain0789,
        Self::CannotSpecifyPinCode,
        Self::ComputedByMaker,
        Self::Other,
    ];

    /// The name on the wire, in the configuration and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoZeros => "no_zeros",
            Self::CannotStartWith12 => "cannot_start_with_12",
            Self::NoTripleConsecutiveInts => "no_triple_consecutive_ints",
            Self::NoAscendingOrDescendingSequence => "no_ascending_or_descending_sequence",
            Self::AtLeastThreeUniqueDigits => "at_least_three_unique_digits",
            Self::NoAllSameDigits => "no_all_same_digits",
            Self::UniqueFirstFourDigits => "unique_first_four_digits",
            Self::CannotContain089 => "cannot_contain_089",
            Self::CannotContain0789 => "cannot_contain_0789",
            Self::CannotSpecifyPinCode => "cannot_specify_pin_code",
            Self::ComputedByMaker => "computed_by_maker",
            Self::Other => "other",
        }
    }
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
    /// Encoders that read the number of a card's chip, for devices that know cards by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chip_numbers: Option<ProofLevel>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_name_of_a_constraint_is_its_name_and_a_newer_one_still_parses() {
        for constraint in PinConstraint::ALL {
            assert_eq!(serde_json::to_value(constraint).unwrap(), constraint.as_str());
        }
        assert_eq!(serde_json::from_str::<PinConstraint>("\"no_primes\"").unwrap(), PinConstraint::Other);
    }
}
