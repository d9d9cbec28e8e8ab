//! Doing a job again because a person says so: a new job takes its place, and the cloud is told which.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::{
    LocalOrder, Queue,
    store::{place, state_named},
};
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
    /// Another job took its place, and that one was done or may have been.
    #[error("job {by} took its place: {}", why(*.state))]
    Replaced {
        /// Which.
        by: JobId,
        /// How that one ended.
        state: JobState,
    },
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
        let successor = self.successor_of(job_id)?;
        let unfinished = match successor {
            Some((by, state @ (JobState::Succeeded | JobState::Unknown))) => {
                return Ok(Err(RetryRefused::Replaced { by, state }));
            }
            Some((by, JobState::Received | JobState::Waiting | JobState::Sent)) => Some(by),
            _ => None,
        };
        let lifetime = body.job.expires_at.duration_since(body.job.created_at).max(AT_LEAST);
        let job = Job {
            job_id: unfinished.unwrap_or_else(|| JobId(self.random.uuid_at(now))),
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
    pub fn note_cancelled_here(&mut self, now: Timestamp, job_id: JobId, by: &str) -> Result<(), StoreError> {
        self.audit_line(now, "cancelled_here", Some(job_id), &format!("taken back at the site by {by}"))
    }

    /// The last job that took the place of another, or of one that did, and how it stands.
    fn successor_of(&self, job_id: JobId) -> Result<Option<(JobId, JobState)>, StoreError> {
        let mut last = None;
        let (mut of, mut after) = (job_id, 0);
        while let Some((row, job_id, state)) = self
            .connection
            .prepare_cached(
                "SELECT id, job_id, state FROM job WHERE retries = ?1 AND id > ?2 ORDER BY id DESC LIMIT 1",
            )?
            .query_row(params![of.0.as_bytes(), after], |row| {
                Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, String>(2)?))
            })
            .optional()?
        {
            (of, after) = (JobId(uuid::Uuid::from_bytes(job_id)), row);
            let state = state_named(&state).ok_or_else(|| StoreError::corrupt(place(of), "its state"))?;
            last = Some((of, state));
        }
        Ok(last)
    }
}
