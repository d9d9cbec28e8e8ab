//! Stable names of what can go wrong with a job: shown to people, sent to the cloud, used as metric labels.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)?) => {
        /// Why a job did not simply succeed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
            /// A code of a newer peer.
            #[serde(rename = "other", other)]
            Other,
        }

        impl Code {
            /// The stable name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other => "other",
                }
            }

            /// Every code this version knows.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)* Self::Other];
        }
    };
}

codes! {
    /// Nobody laid a card down in time.
    NoCard = "no_card",
    /// Foreign, damaged, locked or of a wrong family.
    BadCard = "bad_card",
    /// The encoder, or what serves it, cannot be reached.
    EncoderOffline = "encoder_offline",
    /// The encoder is at work for somebody else.
    EncoderBusy = "encoder_busy",
    /// The line to the system is not open.
    SystemOffline = "system_offline",
    /// The card was taken away before it was written.
    CardRemoved = "card_removed",
    /// Somebody at the desk cancelled it.
    CancelledAtDesk = "cancelled_at_desk",
    /// The device does not answer.
    DeviceOffline = "device_offline",
    /// The device is at work for somebody else.
    DeviceBusy = "device_busy",
    /// The device has no free slot.
    SlotsFull = "slots_full",
    /// The device holds the same PIN or card under another key.
    ContentTaken = "content_taken",
    /// The lock system has no such room.
    RoomUnknown = "room_unknown",
    /// The lock system says that the room is out of service.
    RoomBlocked = "room_blocked",
    /// A copy for a room that the lock system holds for free.
    NoStayToJoin = "no_stay_to_join",
    /// Start or end refused by the lock system.
    BadDates = "bad_dates",
    /// Credentials, licence or rights.
    Auth = "auth",
    /// The system or its driver cannot do this.
    Unsupported = "unsupported",
    /// Any other definite refusal of the device.
    Rejected = "rejected",
    /// The device's answer broke the protocol, and nothing was written for it.
    ProtocolViolation = "protocol_violation",
    /// A command left and the answer did not come: it may have been done.
    NoAnswer = "no_answer",
    /// The line broke after a command had left: it may have been done.
    LineLost = "line_lost",
    /// The agent stopped between the durable mark and the proof: it may have been done.
    AgentStopped = "agent_stopped",
    /// A backup was restored, or the machine set back, after the job may have been done.
    MemoryRestored = "memory_restored",
    /// The job names a system that the site does not have.
    SystemUnknown = "system_unknown",
    /// The job names a door that the site does not have.
    EntranceUnknown = "entrance_unknown",
    /// The job names an encoder that the site does not have.
    EncoderUnknown = "encoder_unknown",
    /// The job names a device that the site does not have.
    DeviceUnknown = "device_unknown",
    /// A card for a room that follows reservations, without a reservation key.
    ReservationKeyRequired = "reservation_key_required",
    /// The room's last override was another stay's.
    RoomHeldByOtherReservation = "room_held_by_other_reservation",
    /// Nobody knows which stay the room's lock will accept: read a card or ask a person first.
    RoomStateUnknown = "room_state_unknown",
    /// The card's rooms would need different treatment.
    RoomStatesDiffer = "room_states_differ",
    /// More rooms or common doors than the system carries on one card.
    TooManyDoors = "too_many_doors",
    /// The system needs a printed end.
    OpenEndUnsupported = "open_end_unsupported",
    /// The site forbids jobs of this kind.
    SiteForbidsKind = "site_forbids_kind",
    /// The site never issues this room from afar.
    SiteForbidsRoom = "site_forbids_room",
    /// The site's limit of cards an hour is reached.
    SiteCardLimit = "site_card_limit",
    /// A card ordered from the cloud, which nobody at the site has confirmed.
    SiteNotConfirmed = "site_not_confirmed",
    /// A person at the site declined a card ordered from the cloud.
    SiteDeclined = "site_declined",
    /// The site's longest validity is exceeded.
    SiteValidityLimit = "site_validity_limit",
    /// The disk is full: what runs may end, nothing new is taken.
    DiskFull = "disk_full",
    /// Too many jobs wait already.
    QueueFull = "queue_full",
    /// The deadline passed before anything was sent.
    Expired = "expired",
    /// Cancelled before anything was sent.
    Cancelled = "cancelled",
    /// A newer job for the same thing took its place.
    Superseded = "superseded",
}

impl Code {
    /// Whether it says that the device, or what stands before it, could not be reached or did not answer.
    #[must_use]
    pub fn is_unreachable(self) -> bool {
        matches!(
            self,
            Self::DeviceOffline
                | Self::EncoderOffline
                | Self::SystemOffline
                | Self::NoAnswer
                | Self::LineLost
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_the_stable_name_and_a_newer_code_still_parses() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
        assert_eq!(serde_json::from_str::<Code>("\"moon_phase\"").unwrap(), Code::Other);
    }
}
