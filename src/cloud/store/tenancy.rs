//! The workspace, its API key, and the site it begins with.

use jiff::Timestamp;
use rusqlite::params;

use crate::{
    model::{BridgeId, WorkspaceId},
    store::StoreError,
};

use super::{
    Db,
    rows::{id, ms},
};

impl Db {
    /// The workspace that the first start made.
    ///
    /// # Errors
    /// Those of the database.
    pub fn workspace(&mut self) -> Result<Option<WorkspaceId>, StoreError> {
        self.one("SELECT workspace_id FROM workspace ORDER BY created_at LIMIT 1", [], |row| {
            id(row, "workspace_id")
        })
    }

    /// Makes the workspace with its first API key, by its SHA-256 digest alone, and its bridge.
    ///
    /// # Errors
    /// Those of the database; nothing is stored then.
    pub fn found(
        &mut self,
        now: Timestamp,
        name: &str,
        api_key: [u8; 32],
    ) -> Result<WorkspaceId, StoreError> {
        let workspace = WorkspaceId(self.random.uuid());
        self.execute("SAVEPOINT found", [])?;
        let founded = self.found_as(workspace, now, name, api_key);
        if founded.is_err() {
            self.execute("ROLLBACK TO found", [])?;
        }
        self.execute("RELEASE found", [])?;
        founded.map(|()| workspace)
    }

    fn found_as(
        &mut self,
        workspace: WorkspaceId,
        now: Timestamp,
        name: &str,
        api_key: [u8; 32],
    ) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO workspace VALUES(?1, ?2, ?3)",
            params![workspace.to_string(), name, ms(now)],
        )?;
        self.execute(
            "INSERT INTO api_key VALUES(?1, ?2, ?3)",
            params![api_key, workspace.to_string(), ms(now)],
        )?;
        let bridge = self.the_bridge(now, workspace)?;
        self.add_site(now, workspace, bridge)
    }

    /// What people call a workspace.
    ///
    /// # Errors
    /// Those of the database.
    pub fn workspace_name(&mut self, workspace: WorkspaceId) -> Result<String, StoreError> {
        let name =
            self.one("SELECT name FROM workspace WHERE workspace_id = ?1", [workspace.to_string()], |row| {
                row.get(0)
            })?;
        Ok(name.unwrap_or_default())
    }

    /// Gives the workspace the name that the operator configured.
    ///
    /// # Errors
    /// Those of the database.
    pub fn rename_workspace(&mut self, workspace: WorkspaceId, name: &str) -> Result<(), StoreError> {
        self.execute(
            "UPDATE workspace SET name = ?2 WHERE workspace_id = ?1 AND name <> ?2",
            params![workspace.to_string(), name],
        )?;
        Ok(())
    }

    /// Whose API key has this SHA-256 digest.
    ///
    /// # Errors
    /// Those of the database.
    pub fn workspace_by_key(&mut self, digest: [u8; 32]) -> Result<Option<WorkspaceId>, StoreError> {
        self.one("SELECT workspace_id FROM api_key WHERE digest = ?1", [digest], |row| {
            id(row, "workspace_id")
        })
    }

    pub(super) fn add_site(
        &self,
        now: Timestamp,
        workspace: WorkspaceId,
        bridge: BridgeId,
    ) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO site VALUES(?1, ?2, 0, ?3)",
            params![bridge.to_string(), workspace.to_string(), ms(now)],
        )?;
        Ok(())
    }
}
