//! What the agent tells about itself and its jobs. Nothing here names a guest but a grant.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    drivers::{self, Signs},
    link,
    model::{
        AccessGrantId, AccessMethodId, BridgeId, Code, Condition, DesiredCardState, DesiredDoors, DeviceName,
        DoorName, EncoderName, JobId, JobState, Kind, LaneName, Origin, Priority, Private, Report,
        ReservationKey, SystemKind, SystemName, Treatment, Window, on_the_wire_optional,
    },
    queue::CodeState,
};

/// How everything is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The program's version.
    pub version: String,
    /// What people call the property.
    pub site: String,
    /// The property's IANA time zone.
    pub time_zone: String,
    /// The time of this report.
    pub now: Timestamp,
    /// When the agent started.
    pub since: Timestamp,
    /// The connection to the cloud.
    pub link: LinkReport,
    /// The access systems, as configured.
    pub systems: Vec<SystemReport>,
    /// The lanes, by name.
    pub lanes: Vec<LaneReport>,
    /// How many jobs stand where; states without jobs may be missing.
    pub jobs: Vec<StateCount>,
    /// Reports that the cloud has not acknowledged yet.
    pub unacknowledged: u64,
    /// What an operator should know, the worst first.
    pub conditions: Vec<Condition>,
}

/// The connection to the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Whether it stands.
    pub state: LinkState,
    /// Since when.
    pub since: Timestamp,
    /// The cloud's address.
    pub cloud: String,
    /// To whom the site is enrolled; unknown before the first welcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Who the site is to its cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_id: Option<BridgeId>,
    /// When the present certificate ends; it is renewed long before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_until: Option<Timestamp>,
    /// Why it does not stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<TroubleReport>,
}

/// Whether the connection to the cloud stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Being made.
    Connecting,
    /// Welcomed.
    Up,
    /// Tried again by itself.
    Down,
}

/// Why something does not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleReport {
    /// Stable name.
    pub code: String,
    /// For a person: what is wrong, and what to do.
    pub message: String,
}

impl From<&drivers::Trouble> for TroubleReport {
    fn from(trouble: &drivers::Trouble) -> Self {
        Self { code: trouble.code.into(), message: trouble.message.clone() }
    }
}

impl From<&link::Trouble> for TroubleReport {
    fn from(trouble: &link::Trouble) -> Self {
        Self { code: trouble.code.into(), message: trouble.message.clone() }
    }
}

/// One access system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemReport {
    /// The site's name for it.
    pub name: SystemName,
    /// Which make.
    pub kind: SystemKind,
    /// Where it is reached: an address or a port.
    pub at: String,
    /// Whether its line is open.
    pub line: LineState,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<TroubleReport>,
    /// How many doors it has.
    pub doors: u32,
    /// How many encoders it has.
    pub encoders: u32,
    /// How its devices were found over the air, of those that were wanted since the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signs: Vec<Signs>,
}

/// Whether a line is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineState {
    /// Being opened for the first time.
    Opening,
    /// Open.
    Ready,
    /// Not open; tried again by itself.
    Down,
}

impl From<&drivers::Line> for LineState {
    fn from(line: &drivers::Line) -> Self {
        match line {
            drivers::Line::Opening => Self::Opening,
            drivers::Line::Ready => Self::Ready,
            drivers::Line::Down(_) => Self::Down,
        }
    }
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneReport {
    /// Its name.
    pub lane: LaneName,
    /// What it does.
    pub state: LaneState,
    /// The job at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// How many jobs wait in it.
    pub waiting: u64,
    /// Who paused it, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// Why it rests, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<Rest>,
}

/// A lane was paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// By whom.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// A lane rests: its device could not be reached several times in a row, or may still be at work on a command that was
/// not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// It is tried again then.
    pub until: Timestamp,
    /// What is wrong.
    pub why: String,
}

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Its number, which grows.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What happened, by its stable name.
    pub what: String,
    /// The job that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// For a person.
    pub detail: String,
}

/// One slot of a device that the agent looks after; never what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// The system.
    pub system: SystemName,
    /// The device.
    pub device: DeviceName,
    /// The slot's key.
    pub slot: String,
    /// What is known of it.
    pub state: SlotState,
    /// Since when.
    pub since: Timestamp,
    /// The job that decides what it holds.
    pub job_id: JobId,
    /// When it has to be empty, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// The end of an older code that may be in it still and open beyond that end, until the doubt about the newer one is
    /// settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_outlive: Option<Timestamp>,
}

/// What is known of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Nothing is in it.
    Empty,
    /// Something is in it.
    Filled,
    /// Nobody knows: a job is at work on it, or ended in doubt.
    Uncertain,
}

/// What a lane does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneState {
    /// Nothing to do.
    Idle,
    /// A job is at work.
    Busy,
    /// It gets no work: the line is not open, or a person must act.
    Blocked,
    /// A person paused it.
    Paused,
    /// Its device could not be reached several times in a row; it is tried again by itself.
    Resting,
}

/// How many jobs are in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCount {
    /// The state.
    pub state: JobState,
    /// How many.
    pub count: u64,
}

/// One job, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLine {
    /// Which.
    pub job_id: JobId,
    /// What it is about; none where this version could not read the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// For which system, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemName>,
    /// In which lane; none where it was refused before it got one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneName>,
    /// Where it stands.
    pub state: JobState,
    /// Whether a person waits for it, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// When the cloud made it.
    pub created_at: Timestamp,
    /// When it last changed its state.
    pub changed_at: Timestamp,
    /// Why it did not simply succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Who wanted it.
    pub origin: Origin,
    /// Not begun before this instant, where it waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// The job whose place it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<JobId>,
}

/// One job, with its story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDetail {
    /// In short.
    pub job: JobLine,
    /// Not started after this instant.
    pub expires_at: Timestamp,
    /// How often it was sent.
    pub attempts: u32,
    /// What the card does to its rooms, once that is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub treatment: Option<Treatment>,
    /// The encoder, for jobs about cards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderName>,
    /// The device, for jobs about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    /// The doors it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doors: Vec<DoorName>,
    /// Its states, oldest first.
    pub history: Vec<Step>,
    /// The outcome, and after `unknown` what settled the doubt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<Report>,
}

/// One step in a job's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// The state it came to.
    pub state: JobState,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A grant that the cloud told of, and where each of its cards stands by what this site knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantReport {
    /// Which.
    pub access_grant_id: AccessGrantId,
    /// The caller's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_grant_key: Option<String>,
    /// The stay, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation_key: Option<ReservationKey>,
    /// Whose it is: for the desk, which has to know to whom a card goes.
    #[serde(serialize_with = "on_the_wire_optional", default, skip_serializing_if = "Option::is_none")]
    pub guest_name: Option<Private>,
    /// When it holds.
    pub window: Window,
    /// Where it leads, by system.
    pub doors: Vec<DesiredDoors>,
    /// Its cards.
    pub cards: Vec<CardReport>,
    /// Its codes, in each of their devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<CodeReport>,
}

/// A code of a grant in a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeReport {
    /// The access method that it is.
    pub access_method_id: AccessMethodId,
    /// The device's system.
    pub system: SystemName,
    /// The device.
    pub device: DeviceName,
    /// Where it stands there.
    pub state: CodeState,
    /// The PIN, once it was read back: for the desk, which tells it to the guest.
    #[serde(serialize_with = "on_the_wire_optional", default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Private>,
    /// Why it is not there, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The job of this site that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
}

/// A card of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardReport {
    /// The access method that it is.
    pub access_method_id: AccessMethodId,
    /// Its system.
    pub system: SystemName,
    /// Where it stands.
    pub state: DesiredCardState,
    /// Why it cannot be written, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The job of this site that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
}
