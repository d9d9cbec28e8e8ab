//! Where a job stands. The rules about which state may follow which are in `queue::policy`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a job stands in the agent's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Durable, not yet looked at.
    Received,
    /// In its lane's queue.
    Waiting,
    /// The mark is durable; from here on bytes may leave.
    Sent,
    /// Done, and the device said so.
    Succeeded,
    /// Not done, and that is certain.
    Failed,
    /// May have been done; a reading or a person decides.
    Unknown,
    /// Taken back before anything was sent.
    Cancelled,
    /// Too late before anything was sent.
    Expired,
    /// A newer job took its place before anything was sent.
    Superseded,
}

impl JobState {
    /// Every state there is.
    pub const ALL: [Self; 9] = [
        Self::Received,
        Self::Waiting,
        Self::Sent,
        Self::Succeeded,
        Self::Failed,
        Self::Unknown,
        Self::Cancelled,
        Self::Expired,
        Self::Superseded,
    ];

    /// The name in rows, on the wire and in the CLI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
        }
    }

    /// Whether the job has an outcome.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::Received | Self::Waiting | Self::Sent => false,
            Self::Succeeded
            | Self::Failed
            | Self::Unknown
            | Self::Cancelled
            | Self::Expired
            | Self::Superseded => true,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
