//! Doing a job again because a person says so: a new job takes its place, and the cloud is told which.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::{LocalOrder, Queue};
use crate::{
    model::{Job, JobId, JobState, Origin},
    store::StoreError,
};

/// A retry lives at least this long: time for a person to walk to the encoder.
const AT_LEAST: SignedDuration = SignedDuration::from_mins(5);

/// Why a job cannot be done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetryRefused {
    /// No such job.
    #[error("there is no such job")]
    NotKnown,
    /// It may still be done, or it was.
    #[error("{}", why(*.0))]
    Not(JobState),
    /// This version cannot read its order.
    #[error("its order cannot be read by this version, so it cannot be given again")]
    Unreadable,
}

fn why(state: JobState) -> &'static str {
    match state {
        JobState::Unknown => {
            "it may have been done: look first, then settle it with `latchd jobs resolve`; with `--retry` it is done again"
        }
        JobState::Succeeded => "it was done",
        JobState::Superseded => "a newer job took its place",
        JobState::Received | JobState::Waiting | JobState::Sent => "it is not over yet",
        JobState::Failed | JobState::Cancelled | JobState::Expired => "it cannot be done again",
    }
}

impl Queue {
    /// The job that takes the place of one that ended without being done. It is not in the queue yet: hand it to
    /// [`Queue::accept_local`] in the same transaction. Where such a job is unfinished already, it is that one.
    ///
    /// # Errors
    /// Those of the database; a refusal is the inner result.
    pub fn retry_of(
        &self,
        now: Timestamp,
        job_id: JobId,
    ) -> Result<Result<LocalOrder, RetryRefused>, StoreError> {
        let Some(row) = self.find(job_id)? else {
            return Ok(Err(RetryRefused::NotKnown));
        };
        if !matches!(row.state, JobState::Failed | JobState::Cancelled | JobState::Expired) {
            return Ok(Err(RetryRefused::Not(row.state)));
        }
        let Some(body) = row.body else {
            return Ok(Err(RetryRefused::Unreadable));
        };
        let lifetime = body.job.expires_at.duration_since(body.job.created_at).max(AT_LEAST);
        let job = Job {
            job_id: self.retried_by(job_id)?.unwrap_or_else(|| JobId(self.random.uuid())),
            created_at: now,
            expires_at: now.saturating_add(lifetime).unwrap_or(Timestamp::MAX),
            ..body.job
        };
        Ok(Ok(LocalOrder { job, origin: Origin::Person, retries: Some(job_id) }))
    }

    /// Writes into the audit who had a job done again.
    ///
    /// # Errors
    /// Those of the database.
    pub fn note_retried(
        &mut self,
        now: Timestamp,
        job_id: JobId,
        by_job: JobId,
        by: &str,
    ) -> Result<(), StoreError> {
        self.audit_line(now, "retried", Some(job_id), &format!("job {by_job} takes its place, says {by}"))
    }

    /// Writes into the audit that a job was taken back at the site.
    ///
    /// # Errors
    /// Those of the database.
    pub fn note_cancelled_here(&mut self, now: Timestamp, job_id: JobId) -> Result<(), StoreError> {
        self.audit_line(now, "cancelled_here", Some(job_id), "taken back at the site")
    }

    /// The unfinished job that takes the place of another.
    fn retried_by(&self, job_id: JobId) -> Result<Option<JobId>, StoreError> {
        let found: Option<[u8; 16]> = self
            .connection
            .prepare_cached("SELECT job_id FROM job WHERE retries = ?1 AND ended_at IS NULL LIMIT 1")?
            .query_row(params![job_id.0.as_bytes()], |row| row.get(0))
            .optional()?;
        Ok(found.map(|bytes| JobId(uuid::Uuid::from_bytes(bytes))))
    }
}
