//! What people at the site did, for the audit.

use jiff::Timestamp;

use super::Queue;
use crate::{model::JobId, store::StoreError};

impl Queue {
    /// Writes down that a person did something to a job.
    ///
    /// # Errors
    /// Those of the database.
    pub fn note_person(
        &mut self,
        now: Timestamp,
        what: &'static str,
        job_id: JobId,
        by: &str,
    ) -> Result<(), StoreError> {
        self.audit_line(now, what, Some(job_id), &format!("by {by}"))
    }
}
