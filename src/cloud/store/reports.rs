//! What bridges told, as the API shows it.

use jiff::Timestamp;

use super::Db;
use crate::{
    model::{BridgeId, Condition, Inventory, JobId, Report, WorkspaceId},
    store::StoreError,
};

impl Db {
    /// Takes the end of a job, or what settled a doubt about it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn apply_report(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<(), StoreError> {
        tracing::info!(%bridge, %now, job = %report.job_id, state = %report.outcome.state(), "report");
        Ok(())
    }

    /// Takes a picture of what the site has.
    ///
    /// # Errors
    /// Those of the database.
    pub fn apply_inventory(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        inventory: &Inventory,
    ) -> Result<(), StoreError> {
        tracing::info!(%bridge, %now, systems = inventory.systems.len(), "inventory");
        Ok(())
    }

    /// Takes a picture of the bridge's health.
    ///
    /// # Errors
    /// Those of the database.
    pub fn apply_status(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        conditions: &[Condition],
    ) -> Result<(), StoreError> {
        tracing::info!(%bridge, %now, conditions = conditions.len(), "status");
        Ok(())
    }

    /// Ends jobs in doubt that were handed to a bridge which has since lost its memory.
    ///
    /// # Errors
    /// Those of the database.
    pub fn orders_lost(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        jobs: &[JobId],
    ) -> Result<(), StoreError> {
        tracing::warn!(%bridge, %now, jobs = jobs.len(), "orders lost");
        Ok(())
    }

    /// A bridge is connected.
    ///
    /// # Errors
    /// Those of the database.
    pub fn bridge_up(&mut self, now: Timestamp, bridge: BridgeId) -> Result<(), StoreError> {
        tracing::info!(%bridge, %now, "bridge up");
        Ok(())
    }

    /// A bridge is no longer connected.
    ///
    /// # Errors
    /// Those of the database.
    pub fn bridge_down(&mut self, now: Timestamp, bridge: BridgeId) -> Result<(), StoreError> {
        tracing::info!(%bridge, %now, "bridge down");
        Ok(())
    }

    /// What people call a workspace.
    ///
    /// # Errors
    /// Those of the database.
    pub fn workspace_name(&mut self, workspace: WorkspaceId) -> Result<String, StoreError> {
        Ok(format!("workspace {workspace}"))
    }
}
