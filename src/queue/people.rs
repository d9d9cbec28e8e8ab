//! What people at the site did, for the audit.

use jiff::Timestamp;

use super::Queue;
use crate::{model::JobId, store::StoreError};

impl Queue {
    /// Writes into the audit who ordered a job at the site.
    ///
    /// # Errors
    /// Those of the database.
    pub fn note_ordered_here(&mut self, now: Timestamp, job_id: JobId, by: &str) -> Result<(), StoreError> {
        self.audit_line(now, "ordered_here", Some(job_id), &format!("ordered at the site by {by}"))
    }
}
