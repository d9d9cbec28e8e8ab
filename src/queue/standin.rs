//! STAND-IN, see `dispatch/standin.rs`.

use jiff::Timestamp;
use rusqlite::params;

use super::{JobView, Queue, ResolveRefused, Rules};
use crate::{
    model::{DeviceName, Job, JobId, JobState, LaneName, Origin, SystemName},
    store::StoreError,
};

/// Why a job cannot be done once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetryRefused {
    /// No such job.
    #[error("there is no such job")]
    NotKnown,
    /// It is not over, or it succeeded.
    #[error("only a job that ended without success can be done again; this one is {0}")]
    NotOver(JobState),
    /// It may have been done.
    #[error("it may have been done: look first, and say with the retry that it was not")]
    InDoubt,
}

impl From<ResolveRefused> for RetryRefused {
    fn from(why: ResolveRefused) -> Self {
        match why {
            ResolveRefused::NotKnown => Self::NotKnown,
            ResolveRefused::NotInDoubt(state) | ResolveRefused::Resolved(state) => Self::NotOver(state),
        }
    }
}

/// A lane that a person paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PausedLane {
    /// Which.
    pub lane: LaneName,
    /// By whom.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// One slot of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotView {
    /// The system.
    pub system: SystemName,
    /// The device.
    pub device: DeviceName,
    /// Its key.
    pub slot: String,
    /// What is known.
    pub state: String,
    /// The end of its window.
    pub ends_at: Option<Timestamp>,
}

impl JobView {
    /// Who wanted it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::Cloud
    }

    /// When it may begin.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        None
    }

    /// Whose place it takes.
    #[must_use]
    pub fn retries(&self) -> Option<JobId> {
        None
    }
}

impl Queue {
    /// Other rules.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// # Errors
    /// Those of the database.
    pub fn pause_lane(&mut self, now: Timestamp, lane: &LaneName, by: &str) -> Result<(), StoreError> {
        self.connection
            .execute_batch("CREATE TEMP TABLE IF NOT EXISTS standin(lane PRIMARY KEY, by, since)")?;
        self.connection.execute(
            "INSERT OR IGNORE INTO standin VALUES (?1, ?2, ?3)",
            params![lane.as_str(), by, now.as_millisecond()],
        )?;
        Ok(())
    }

    /// # Errors
    /// Those of the database.
    pub fn resume_lane(&mut self, lane: &LaneName) -> Result<(), StoreError> {
        self.connection
            .execute_batch("CREATE TEMP TABLE IF NOT EXISTS standin(lane PRIMARY KEY, by, since)")?;
        self.connection.execute("DELETE FROM standin WHERE lane = ?1", [lane.as_str()])?;
        Ok(())
    }

    /// # Errors
    /// Those of the database.
    pub fn paused_lanes(&self) -> Result<Vec<PausedLane>, StoreError> {
        self.connection
            .execute_batch("CREATE TEMP TABLE IF NOT EXISTS standin(lane PRIMARY KEY, by, since)")?;
        let mut statement = self.connection.prepare("SELECT lane, by, since FROM standin")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
        })?;
        rows.map(|row| {
            let (lane, by, since) = row?;
            let since = Timestamp::from_millisecond(since).unwrap_or_default();
            let lane = LaneName::new(lane).map_err(|error| StoreError::corrupt("standin", error))?;
            Ok(PausedLane { lane, by, since })
        })
        .collect()
    }

    /// # Errors
    /// Those of the database.
    pub fn slots(&self) -> Result<Vec<SlotView>, StoreError> {
        Ok(Vec::new())
    }

    /// # Errors
    /// Those of the database.
    pub fn to_retry(
        &mut self,
        now: Timestamp,
        job_id: JobId,
    ) -> Result<Result<Job, RetryRefused>, StoreError> {
        let Some(detail) = self.job(job_id)? else { return Ok(Err(RetryRefused::NotKnown)) };
        match detail.view.state {
            JobState::Unknown => Ok(Err(RetryRefused::InDoubt)),
            JobState::Failed | JobState::Cancelled | JobState::Expired => match detail.job {
                Some(job) => Ok(Ok(Job {
                    job_id: JobId(self.random.uuid()),
                    created_at: now,
                    expires_at: now + job.expires_at.duration_since(job.created_at),
                    ..job
                })),
                None => Ok(Err(RetryRefused::NotKnown)),
            },
            state => Ok(Err(RetryRefused::NotOver(state))),
        }
    }
}
