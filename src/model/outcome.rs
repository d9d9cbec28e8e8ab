//! How a job ended, and what a person or a reading said afterwards.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AccessMethodId, Code, DoorName, JobId, JobState, Kind, ReservationKey, SystemName, Window};

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// Done, and the device said so.
    Succeeded(Success),
    /// Not done, and that is certain.
    Failed(Refusal),
    /// May have been done: never repeat it blindly.
    Unknown(Refusal),
    /// Taken back before anything was sent.
    Cancelled,
    /// Too late before anything was sent.
    Expired(Refusal),
    /// A newer job took its place.
    Superseded,
}

impl Outcome {
    /// A certain failure.
    pub fn failed(code: Code, message: impl Into<String>) -> Self {
        Self::Failed(Refusal::new(code, message))
    }

    /// A doubt.
    pub fn unknown(code: Code, message: impl Into<String>) -> Self {
        Self::Unknown(Refusal::new(code, message))
    }

    /// Why it did not simply succeed.
    #[must_use]
    pub fn reason(&self) -> Option<&Refusal> {
        match self {
            Self::Failed(why) | Self::Unknown(why) | Self::Expired(why) => Some(why),
            Self::Succeeded(_) | Self::Cancelled | Self::Superseded => None,
        }
    }

    /// The state a job has after this.
    #[must_use]
    pub fn state(&self) -> JobState {
        match self {
            Self::Succeeded(_) => JobState::Succeeded,
            Self::Failed(_) => JobState::Failed,
            Self::Unknown(_) => JobState::Unknown,
            Self::Cancelled => JobState::Cancelled,
            Self::Expired(_) => JobState::Expired,
            Self::Superseded => JobState::Superseded,
        }
    }
}

/// Why something was not done, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, JsonSchema)]
#[error("{code}{}: {message}", vendor_code.as_ref().map(|vendor| format!(" ({vendor})")).unwrap_or_default())]
pub struct Refusal {
    /// The stable name.
    pub code: Code,
    /// For a person: what is wrong, and what to do.
    pub message: String,
    /// The device's own code, where it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_code: Option<String>,
}

impl Refusal {
    /// A refusal of ours.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), vendor_code: None }
    }

    /// A refusal of the device's.
    pub fn by_device(code: Code, vendor_code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), vendor_code: Some(vendor_code.into()) }
    }
}

/// What a success brought.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Success {
    /// What was written, for orders that write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
    /// What the system says of the card it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<CardFacts>,
    /// What a card that was read shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<CardSeen>,
    /// What a device that was read holds; absent where it does not show that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<Vec<SlotSeen>>,
}

/// An entry of a device's table, as a reading shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotSeen {
    /// The key that `slot.put` gave it.
    pub slot: String,
    /// Its generation.
    pub generation: u64,
}

/// How sure a success is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Written {
    /// The system says that it was physically written.
    Proven,
    /// The system took the order; writing is not proven.
    Accepted,
}

/// What the system says of a card it wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CardFacts {
    /// The chip's serial number, as the system writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Whether the card began the stay in its rooms (`true`) or joined it (`false`); absent without rooms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrode: Option<bool>,
    /// The window as the card carries it, where the system's clock is coarser than ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub printed_end: Option<Timestamp>,
    /// When the card begins to open, as it carries it, where that is to come: the system's clock may be coarser than ours.
    /// Absent where it opens at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub printed_start: Option<Timestamp>,
}

/// What a read card shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "card", rename_all = "snake_case")]
pub enum CardSeen {
    /// A guest card.
    Guest {
        /// Its rooms, the main one first.
        rooms: Vec<String>,
        /// Whether the system holds it for valid in its main room.
        valid: bool,
        /// Whether it is the stay's first card.
        original: bool,
        /// Its common doors, as far as the site's map names them.
        common: Vec<String>,
        /// Start, if it shows one that can be understood.
        starts_at: Option<Timestamp>,
        /// End, likewise.
        ends_at: Option<Timestamp>,
        /// Whether it was made in this site's own name; absent where the system does not say who made it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made_here: Option<bool>,
    },
    /// A card of the staff.
    Staff,
    /// A guest card that is not valid.
    Invalid,
    /// Anything else; the text is the system's own word for it.
    Other {
        /// The system's own word.
        what: String,
    },
}

/// An outcome on its way to the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Which job.
    pub job_id: JobId,
    /// 1 for the outcome itself, 2 for the one resolution that may follow `unknown`.
    #[schemars(range(min = 1, max = 2))]
    pub revision: u8,
    /// When it was decided, by the agent's clock.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Who or what resolved it, for revision 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// The door ledger of the rooms this job touched, as it stands now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<RoomState>,
    /// What the job was, where the cloud did not order it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalJob>,
}

/// A job that was made at the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalJob {
    /// Who wanted it.
    pub origin: Origin,
    /// The access system or device family it is for.
    pub system: SystemName,
    /// What it asks for.
    pub kind: Kind,
    /// The device or encoder, where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The slot of the device, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The job whose place it takes: a person said to do that one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<JobId>,
    /// The card, where it writes one; since version 2 of the language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<LocalCard>,
}

/// A card that is written at the site's own wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalCard {
    /// The access method that it is.
    pub access_method_id: AccessMethodId,
    /// The doors it opens.
    pub doors: Vec<DoorName>,
    /// When it opens them.
    pub window: Window,
}

/// Who wanted a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The cloud ordered it.
    Cloud,
    /// A person at the site.
    Person,
    /// The agent's own timer: what a slot holds has come to its end.
    Timer,
}

impl Origin {
    /// Every origin there is.
    pub const ALL: [Self; 3] = [Self::Cloud, Self::Person, Self::Timer];

    /// The name in rows and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Person => "person",
            Self::Timer => "timer",
        }
    }
}

/// What settled a doubt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resolution {
    /// What is so.
    pub verdict: Verdict,
    /// Who says so: a person's name, or the reading that proved it.
    pub by: String,
}

/// What is so, after a doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It had been done.
    Done,
    /// It had not been done.
    NotDone,
}

/// What the agent knows about one room of one lock system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomState {
    /// The lock system.
    pub system: SystemName,
    /// The room.
    pub room: DoorName,
    /// The stay of the last override that the system accepted, or may have accepted; none when it is free.
    pub reservation_key: Option<ReservationKey>,
    /// Whether that is certain.
    pub certain: bool,
    /// Since when.
    pub since: Timestamp,
    /// How many cards of that stay were written.
    pub cards: u32,
    /// The ends printed on the last of them, oldest first: by these a live card of the stay is known again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub printed_ends: Vec<Timestamp>,
}
