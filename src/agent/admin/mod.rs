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

mod client;
mod report;
mod server;

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{JobId, JobState, LaneName, Verdict};

pub use client::ask;
pub use report::{
    JobDetail, JobLine, LaneReport, LaneState, LineState, LinkReport, LinkState, StateCount, StatusReport,
    Step, SystemReport, TroubleReport,
};
pub use server::{Question, Server, serve};

/// The version of this language.
pub const VERSION: u16 = 1;

/// The longest line a client may send.
const LONGEST_REQUEST: usize = 4 * 1024;

/// The longest name of a person who settles a doubt, in characters.
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
    /// The question could not be answered.
    Refused {
        /// The stable name: `no_such_job`, `not_in_doubt`, `version_unknown`, `request_malformed`, `request_too_long`, `unavailable`.
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

/// One line on the socket.
#[derive(Debug, Serialize, Deserialize)]
struct Line<T> {
    #[serde(rename = "latchd")]
    version: u16,
    #[serde(flatten)]
    body: T,
}

impl<T: Serialize> Line<T> {
    fn of(body: T) -> Vec<u8> {
        let line = Self { version: VERSION, body };
        let mut line = serde_json::to_vec(&line).expect("a line has string keys only");
        line.push(b'\n');
        line
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
