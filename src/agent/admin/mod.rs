//! The socket for local administration: what `latchd status` and `latchd jobs` talk to.
//!
//! A Unix socket whose file permissions decide who may use it. One JSON object a line each way, each with the
//! version of this language as `latchd`; a client may ask several times on one connection, one question at a time.
//! The server knows nothing itself: it hands each [`Request`] to the agent's core with the way back for the
//! [`Response`].
//!
//! ```text
//! {"latchd":1,"request":"jobs","state":"unknown","limit":10}
//! {"latchd":1,"response":"jobs","jobs":[…],"more":false}
//! ```
//!
//! [`Request::Watch`] is the one question with many answers: first what stands, then a line for every step, until the
//! client goes. Steps wait for a slow client in a ring of bounded length; one that falls behind is told how many it
//! missed ([`Response::Missed`]), and nobody else waits for it.

mod client;
mod report;
mod server;
mod watch;

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    local::{NotAsked, NotBound},
    model::{JobId, JobState, LaneName, Order, Priority, SystemName, Verdict},
};

pub use crate::queue::{CodeState, DeskCard, DeskCode, DeskGrant};
pub use client::{Watching, ask, watch};
pub use report::{
    AuditReport, CardReport, CodeReport, GrantReport, JobDetail, JobLine, LaneReport, LaneState, LineState,
    LinkReport, LinkState, Pause, Rest, SlotReport, SlotState, StateCount, StatusReport, Step, SystemReport,
    TroubleReport,
};
pub use server::{Question, Server, serve};
pub use watch::{Moment, Watched, Watchers};

/// The version of this language.
pub const VERSION: u16 = 1;

/// The longest line a client may send: an order that names some hundred doors.
const LONGEST_REQUEST: usize = 32 * 1024;

/// The longest name of a person, in characters.
pub const LONGEST_NAME: usize = 64;

/// The longest line a client reads: some thousand jobs.
const LONGEST_RESPONSE: usize = 4 * 1024 * 1024;

/// What a client may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How is everything?
    Status,
    /// Which jobs are there? Newest first.
    Jobs {
        /// Only those in this state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<JobState>,
        /// Only those of this lane.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lane: Option<LaneName>,
        /// At most this many.
        limit: u16,
    },
    /// All about one job.
    Job {
        /// Which.
        job_id: JobId,
    },
    /// A person says what became of a job in doubt.
    Resolve {
        /// Which.
        job_id: JobId,
        /// What is so.
        verdict: Verdict,
        /// Who says so; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// A person takes a job back, if nothing of it was sent.
    Cancel {
        /// Which.
        job_id: JobId,
        /// Who; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// A person lets a card be made that the cloud ordered, where the site asks for that.
    Confirm {
        /// Which job.
        job_id: JobId,
        /// Who; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// A person does not let a card be made that waits for that.
    Decline {
        /// Which job.
        job_id: JobId,
        /// Who; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// A person has an ended job done once more, by a new job that takes its place.
    Retry {
        /// Which.
        job_id: JobId,
        /// Whether the person says of a job in doubt that it had not been done.
        #[serde(default)]
        not_done: bool,
        /// Who; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// A person wants a job of their own.
    Add {
        /// What is wanted.
        job: Box<NewJob>,
        /// Who; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// Tell every step of every job, or of one, from now on.
    Watch {
        /// Only of this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job_id: Option<JobId>,
    },
    /// How do the lanes stand?
    Lanes,
    /// A person has a lane begin nothing new until it is resumed, however often the agent starts meanwhile.
    PauseLane {
        /// Which.
        lane: LaneName,
        /// Who; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// A person lets a lane go on.
    ResumeLane {
        /// Which.
        lane: LaneName,
        /// Who; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// Which grants did the cloud tell of? In the order of their ids.
    Grants {
        /// Only those that this means: by a grant's key or id, a card's id, or a stay's key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// At most this many.
        limit: u16,
    },
    /// A person wants a card written that the cloud told of.
    Encode {
        /// Which, and where.
        card: Box<DeskCard>,
        /// Who; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// A person makes a grant.
    MakeGrant {
        /// What is wanted.
        grant: Box<DeskGrant>,
        /// Who; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// A person takes a grant back.
    RevokeGrant {
        /// Which: a grant's key or id, a card's id, or the key of a stay that has but one.
        name: String,
        /// Who; at most [`LONGEST_NAME`] characters.
        by: String,
    },
    /// What did the site refuse, and who decided what? Newest first.
    Audit {
        /// Only what is older than the entry of this number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<u64>,
        /// At most this many.
        limit: u16,
    },
    /// Which slots of devices does the agent look after? Never what they hold.
    Slots {
        /// Only those of this system.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system: Option<SystemName>,
    },
}

impl Request {
    /// Who wants something changed.
    #[must_use]
    pub fn by(&self) -> Option<&str> {
        match self {
            Self::Resolve { by, .. }
            | Self::Cancel { by, .. }
            | Self::Confirm { by, .. }
            | Self::Decline { by, .. }
            | Self::Retry { by, .. }
            | Self::Add { by, .. }
            | Self::Encode { by, .. }
            | Self::MakeGrant { by, .. }
            | Self::RevokeGrant { by, .. }
            | Self::PauseLane { by, .. }
            | Self::ResumeLane { by, .. } => Some(by),
            Self::Status
            | Self::Jobs { .. }
            | Self::Job { .. }
            | Self::Watch { .. }
            | Self::Lanes
            | Self::Grants { .. }
            | Self::Audit { .. }
            | Self::Slots { .. } => None,
        }
    }
}

/// A job that a person at the site wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJob {
    /// Its id; given again, it is the same job. The agent makes one where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The access system or device family it is for.
    pub system: SystemName,
    /// Whether somebody waits for it.
    pub priority: Priority,
    /// Not started later than so many seconds from now.
    pub expires_in_seconds: u32,
    /// What to do.
    pub order: Order,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Jobs`].
    Jobs {
        /// Newest first.
        jobs: Vec<JobLine>,
        /// Whether there are more than the limit let through.
        more: bool,
    },
    /// To [`Request::Job`].
    Job(Box<JobDetail>),
    /// To [`Request::Resolve`]: the doubt is settled, and that is durable.
    Resolved {
        /// Where the job stands now.
        state: JobState,
    },
    /// To [`Request::Cancel`]: nothing of it was sent, and nothing will be.
    Cancelled,
    /// To [`Request::Confirm`]: the job goes on, and that is durable.
    Confirmed,
    /// To [`Request::Decline`]: the job is over, and nothing of it was or will be sent.
    Declined,
    /// To [`Request::Retry`]: the new job is durable.
    Retried {
        /// The new job, which takes the other one's place.
        job_id: JobId,
    },
    /// To [`Request::Add`] and [`Request::Encode`]: the job is durable.
    Added {
        /// Which.
        job_id: JobId,
        /// Whether it was there before: then nothing was done now.
        known: bool,
    },
    /// To [`Request::Watch`], at first: jobs that are not over, oldest first, or the one that was named.
    Watching {
        /// What stands.
        jobs: Vec<Watched>,
    },
    /// To [`Request::Watch`], from then on.
    Watched(Box<Watched>),
    /// To [`Request::Watch`]: the client was too slow.
    Missed {
        /// So many steps were left out here.
        steps: u64,
    },
    /// To [`Request::Lanes`], by name; to [`Request::PauseLane`] and [`Request::ResumeLane`], the one it was about.
    Lanes {
        /// The lanes.
        lanes: Vec<LaneReport>,
    },
    /// To [`Request::Grants`].
    Grants {
        /// The grants.
        grants: Vec<GrantReport>,
        /// Whether there are more than the limit let through.
        more: bool,
        /// Whether the cloud has told all of them: else some may be missing, and some may be over.
        complete: bool,
    },
    /// To [`Request::MakeGrant`] and [`Request::RevokeGrant`]: that is durable. Cards stand as they did before, and the
    /// jobs of its codes are in their lanes.
    Grant(Box<GrantReport>),
    /// To [`Request::Audit`].
    Audit {
        /// Newest first.
        entries: Vec<AuditReport>,
        /// Whether there are more than the limit let through.
        more: bool,
    },
    /// To [`Request::Slots`].
    Slots {
        /// By system, device and key.
        slots: Vec<SlotReport>,
    },
    /// The question could not be answered, or what was wanted not be done.
    Refused {
        /// The stable name: `no_such_job`, `no_such_lane`, `not_in_doubt`, `not_awaited`, `in_doubt`, `too_late`, `not_over`,
        /// `no_such_card`, `card_not_ready`, `card_already_written`, `card_being_encoded`, `card_in_doubt`, `never_told`, `no_such_grant`, `grant_unclear`, `entrance_unclear`, `name_invalid`, `job_refused`, `version_unknown`, `request_malformed`, `request_too_long`, `unavailable`.
        code: String,
        /// For a person.
        message: String,
    },
}

impl Response {
    /// A refusal.
    pub fn refused(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused { code: code.into(), message: message.into() }
    }
}

/// Why the socket cannot be served, or a question not be answered.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket cannot be made.
    #[error("make the admin socket {}", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another agent answers there.
    #[error("another agent answers at {}: stop it, or give this one its own `admin.socket`", path.display())]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// Something that is not a socket stands in its place.
    #[error("{} is not a socket: move it away, or choose another `admin.socket`", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// Nobody listens at the socket.
    #[error("no agent answers at {} (`systemctl status latchd` says whether it runs)", path.display())]
    NoAgent {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file's permissions say no.
    #[error("not allowed to use {}: run this as root or as a member of the socket's group", path.display())]
    Denied {
        /// Where.
        path: PathBuf,
    },
    /// The agent did not answer in time.
    #[error("the agent at {} takes a connection but does not answer", path.display())]
    Silent {
        /// Where.
        path: PathBuf,
    },
    /// The conversation broke off.
    #[error("the conversation with {} broke off", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The answer is not of this language.
    #[error("the agent at {} answers in another language (are both of the same version?)", path.display())]
    Malformed {
        /// Where.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The agent refused to answer.
    #[error("{message} ({code})")]
    Refused {
        /// The stable name.
        code: String,
        /// For a person.
        message: String,
    },
}

impl AdminError {
    fn of_bind(path: &Path, error: NotBound) -> Self {
        let path = path.into();
        match error {
            NotBound::Failed(source) => Self::Bind { path, source },
            NotBound::Occupied => Self::Occupied { path },
            NotBound::NotASocket => Self::NotASocket { path },
        }
    }

    fn of_ask(path: &Path, error: NotAsked) -> Self {
        let path = path.into();
        match error {
            NotAsked::Nobody(source) => Self::NoAgent { path, source },
            NotAsked::Denied => Self::Denied { path },
            NotAsked::Broken(source) => Self::Broken { path, source },
            NotAsked::Malformed(source) => Self::Malformed { path, source },
        }
    }
}
