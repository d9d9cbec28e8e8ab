//! The steps of jobs, as they are watched.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::model::{Code, DeviceName, DoorName, EncoderName, JobId, JobState, Kind, SystemName};

/// One step of a job, with what a person needs to know of it. Nothing here names a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// When.
    pub at: Timestamp,
    /// Which job.
    pub job_id: JobId,
    /// What it is about; none where this version could not read the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// For which system, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemName>,
    /// The encoder, for jobs about cards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderName>,
    /// The device, for jobs about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    /// The doors it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doors: Vec<DoorName>,
    /// What came to pass.
    #[serde(flatten)]
    pub moment: Moment,
}

/// What came to pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Moment {
    /// It waits in its lane.
    Queued,
    /// It waits until a person at the site confirms or declines it.
    WaitingForConfirmation,
    /// The mark is durable; bytes leave.
    Sent,
    /// The device took the order: lay a card down.
    WaitingForCard {
        /// So many seconds are left for it.
        within_seconds: u16,
    },
    /// It is over.
    Ended {
        /// How.
        state: JobState,
        /// Why it did not simply succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
        /// The same for a person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A doubt about it was settled.
    Resolved {
        /// Where it stands now.
        state: JobState,
        /// Who says so, or the reading that proved it.
        by: String,
    },
    /// A step that this version does not know.
    #[serde(other)]
    Other,
}

/// Steps that wait for one slow client; more are left out.
const KEPT: usize = 256;

/// Everybody who watches. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Watchers(broadcast::Sender<Watched>);

impl Default for Watchers {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Watchers {
    /// Whether somebody watches.
    #[must_use]
    pub fn any(&self) -> bool {
        0 < self.0.receiver_count()
    }

    /// Tells a step to whoever watches. Never waits.
    pub fn tell(&self, step: Watched) {
        // Nobody watches: nothing is lost.
        let _ = self.0.send(step);
    }

    /// Sees every step from now on.
    pub(super) fn join(&self) -> broadcast::Receiver<Watched> {
        self.0.subscribe()
    }
}
