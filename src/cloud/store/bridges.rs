//! Bridges: their streams, orders and health.

use jiff::Timestamp;
use rusqlite::params;

use super::{Db, rows::id};
use crate::{
    model::{BridgeId, Job, JobId, WorkspaceId},
    store::StoreError,
};

/// What became of the wish to take a job back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Cancel {
    /// It will never be handed to the bridge.
    Withdrawn,
    /// The bridge is asked to.
    Ordered,
}

impl Db {
    /// The workspace's bridge; its id is made on first use.
    ///
    /// # Errors
    /// Those of the database.
    pub fn the_bridge(&mut self, _now: Timestamp, workspace: WorkspaceId) -> Result<BridgeId, StoreError> {
        let known = self.one(
            "SELECT bridge_id FROM bridge WHERE workspace_id = ?1",
            [workspace.to_string()],
            |row| id(row, "bridge_id"),
        )?;
        if let Some(known) = known {
            return Ok(known);
        }
        let bridge = BridgeId(self.random.uuid());
        self.execute(
            "INSERT INTO bridge(bridge_id, workspace_id) VALUES(?1, ?2)",
            params![bridge.to_string(), workspace.to_string()],
        )?;
        Ok(bridge)
    }

    /// Sets the token that admits a bridge, by its digest.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_bridge_token(&mut self, bridge: BridgeId, token: [u8; 32]) -> Result<(), StoreError> {
        self.execute(
            "UPDATE bridge SET token = ?2 WHERE bridge_id = ?1",
            params![bridge.to_string(), token],
        )?;
        Ok(())
    }

    /// Queues a job for a bridge.
    ///
    /// # Errors
    /// Those of the database.
    pub fn enqueue_job(&mut self, _now: Timestamp, bridge: BridgeId, job: &Job) -> Result<(), StoreError> {
        let body = serde_json::to_vec(job).map_err(|error| StoreError::corrupt("bridge_order", error))?;
        let sealed = self
            .seal
            .seal(&format!("bridge_order.body/{}", job.job_id), &body);
        self.execute(
            "INSERT INTO bridge_order(job_id, bridge_id, workspace_id, body)
             SELECT ?1, bridge_id, workspace_id, ?3 FROM bridge WHERE bridge_id = ?2",
            params![job.job_id.to_string(), bridge.to_string(), sealed],
        )?;
        Ok(())
    }

    /// Takes a job back, if nothing was sent yet.
    ///
    /// # Errors
    /// Those of the database.
    pub fn enqueue_cancel(
        &mut self,
        _now: Timestamp,
        _bridge: BridgeId,
        job: JobId,
    ) -> Result<Cancel, StoreError> {
        self.execute(
            "UPDATE bridge_order SET cancelled = 1 WHERE job_id = ?1",
            [job.to_string()],
        )?;
        Ok(if self.was_handed(job)? {
            Cancel::Ordered
        } else {
            Cancel::Withdrawn
        })
    }

    /// Whether the bridge may know of a job.
    ///
    /// # Errors
    /// Those of the database.
    pub fn was_handed(&mut self, job: JobId) -> Result<bool, StoreError> {
        let handed = self.one(
            "SELECT handed FROM bridge_order WHERE job_id = ?1",
            [job.to_string()],
            |row| row.get(0),
        )?;
        Ok(handed.unwrap_or(false))
    }
}
