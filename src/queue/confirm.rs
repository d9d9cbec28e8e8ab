//! Cards that the cloud ordered and that a person at the site has to confirm first.
//!
//! Such a job waits like any other, but for no time: `due_at` is [`HELD`], which no clock reaches. Who confirmed it is
//! kept with its order, so that it is asked for once, whatever becomes of its attempts.
//!
//! What waits so holds up no later order of its reservation. Where one of these checks the stay out, nobody is asked any
//! more: the card was ordered before, so it ends `superseded`, and a word that comes too late begins no stay anew.

use jiff::Timestamp;
use rusqlite::params;

use super::{
    Queue, expired,
    store::{Row, body_place},
};
use crate::{
    model::{Code, JobId, JobState, Kind, LaneName, Origin, Outcome, Refusal},
    store::StoreError,
};

/// The `due_at` of what waits for a person and not for a time; no instant has this number.
pub(super) const HELD: i64 = i64::MAX;

/// Jobs that wait for a person's word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unconfirmed {
    /// The first of them, oldest first.
    pub first: Vec<JobId>,
    /// How many there are.
    pub count: u64,
}

/// Why a job cannot be confirmed or declined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmRefused {
    /// No such job.
    #[error("there is no such job")]
    NotKnown,
    /// It waits for nobody's word.
    #[error("only a card that waits for it is confirmed or declined; this job is {0}")]
    NotAwaited(JobState),
}

impl Queue {
    /// A person at the site lets a card be made that the cloud ordered. Gives the lane that may go on.
    ///
    /// # Errors
    /// Those of the database; a refusal is the inner result.
    pub fn confirm(
        &mut self,
        now: Timestamp,
        job_id: JobId,
        by: &str,
    ) -> Result<Result<Option<LaneName>, ConfirmRefused>, StoreError> {
        let mut row = match self.awaiting(job_id)? {
            Ok(row) => row,
            Err(refused) => return Ok(Err(refused)),
        };
        if row.body.as_ref().is_some_and(|body| body.job.expires_at <= now) {
            let outcome = self.too_late(&row);
            self.end(now, &row, &outcome)?;
            return Ok(Err(ConfirmRefused::NotAwaited(outcome.state())));
        }
        if let Some(body) = &mut row.body {
            body.confirmed_by = Some(by.to_owned());
        }
        let sealed = self.sealed(&body_place(job_id), &row.body);
        self.connection
            .prepare_cached(
                "UPDATE job SET body = ?2, due_at = NULL, retry_at = NULL, code = '' WHERE job_id = ?1",
            )?
            .execute(params![job_id.0.as_bytes(), sealed])?;
        self.count_moved(&row, row.state, "")?;
        self.audit_line(now, "confirmed", Some(job_id), &format!("to be made, says {by}"))?;
        Ok(Ok(row.lane))
    }

    /// A person at the site does not let a card be made that the cloud ordered: it ends failed, by name.
    ///
    /// # Errors
    /// Those of the database; a refusal is the inner result.
    pub fn decline(
        &mut self,
        now: Timestamp,
        job_id: JobId,
        by: &str,
    ) -> Result<Result<(), ConfirmRefused>, StoreError> {
        let row = match self.awaiting(job_id)? {
            Ok(row) => row,
            Err(refused) => return Ok(Err(refused)),
        };
        // Who it was is for the site to know.
        let outcome =
            Outcome::failed(Code::SiteDeclined, "a person at the site declined the card; nothing was sent");
        self.end(now, &row, &outcome)?;
        self.audit_line(
            now,
            Code::SiteDeclined.as_str(),
            Some(job_id),
            &format!("not to be made, says {by}"),
        )?;
        Ok(Ok(()))
    }

    /// The jobs that wait for a person's word; names at most `most` of them.
    ///
    /// # Errors
    /// Those of the database.
    pub fn unconfirmed(&self, most: usize) -> Result<Unconfirmed, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let first = self.ids(
            "SELECT job_id FROM job INDEXED BY job_due WHERE state = 'waiting' AND due_at IS NOT NULL \
             AND due_at = ?1 ORDER BY id LIMIT ?2",
            [HELD, most],
        )?;
        let count: i64 = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM job INDEXED BY job_due WHERE state = 'waiting' AND due_at IS NOT NULL \
                 AND due_at = ?1",
            )?
            .query_row([HELD], |row| row.get(0))?;
        Ok(Unconfirmed { first, count: count.cast_unsigned() })
    }

    /// Whether a job may be sent only after a person's word that has not been given.
    pub(super) fn lacks_confirmation(&self, row: &Row) -> bool {
        self.rules.limits.confirm_remote_cards
            && row.origin == Origin::Cloud
            && row
                .body
                .as_ref()
                .is_some_and(|body| body.job.order.kind() == Kind::CardEncode && body.confirmed_by.is_none())
    }

    /// Has a job wait for a person's word.
    pub(super) fn hold(&mut self, now: Timestamp, row: &Row) -> Result<(), StoreError> {
        self.mark_held(now, row, HELD, Code::SiteNotConfirmed)?;
        let detail = "a card ordered from the cloud waits until a person at the site confirms it";
        self.audit_line(now, Code::SiteNotConfirmed.as_str(), Some(row.job_id), detail)
    }

    /// The outcome of a job whose deadline came while it waited.
    pub(super) fn too_late(&self, row: &Row) -> Outcome {
        if row.code != Some(Code::SiteNotConfirmed) {
            return expired();
        }
        let message = "nobody at the site confirmed the card before its deadline; nothing was sent";
        Outcome::Expired(Refusal::new(Code::SiteNotConfirmed, message))
    }

    fn awaiting(&self, job_id: JobId) -> Result<Result<Row, ConfirmRefused>, StoreError> {
        let Some(row) = self.find(job_id)? else {
            return Ok(Err(ConfirmRefused::NotKnown));
        };
        let awaits = row.state == JobState::Waiting && row.code == Some(Code::SiteNotConfirmed);
        Ok(if awaits { Ok(row) } else { Err(ConfirmRefused::NotAwaited(row.state)) })
    }
}
