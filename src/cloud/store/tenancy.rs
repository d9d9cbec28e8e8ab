//! Workspaces, their API keys, and the site that each begins with.

use jiff::Timestamp;
use rusqlite::{Row, params};

use crate::{
    model::{BridgeId, WorkspaceId},
    store::StoreError,
};

use super::{
    Db, Tenant,
    rows::{id, maybe_time, ms, time},
};

/// A workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An API key, of which only its digest is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRow {
    /// By what people tell it: the beginning of its digest, in hexadecimal digits.
    pub key_id: String,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// What it is for.
    pub name: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it does not count.
    pub revoked_at: Option<Timestamp>,
}

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
        self.found_with(now, name, Some(api_key))
    }

    /// Makes another workspace with its bridge, and no API key yet.
    ///
    /// # Errors
    /// Those of the database; nothing is stored then.
    pub fn add_workspace(&mut self, now: Timestamp, name: &str) -> Result<WorkspaceId, StoreError> {
        self.found_with(now, name, None)
    }

    fn found_with(
        &mut self,
        now: Timestamp,
        name: &str,
        api_key: Option<[u8; 32]>,
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
        api_key: Option<[u8; 32]>,
    ) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO workspace VALUES(?1, ?2, ?3)",
            params![workspace.to_string(), name, ms(now)],
        )?;
        if let Some(digest) = api_key {
            self.add_api_key(now, workspace, None, digest)?;
        }
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

    /// Whose API key has this SHA-256 digest, if it counts.
    ///
    /// # Errors
    /// Those of the database.
    pub fn workspace_by_key(&mut self, digest: [u8; 32]) -> Result<Option<WorkspaceId>, StoreError> {
        let found = "SELECT workspace_id FROM api_key WHERE digest = ?1 AND revoked_at IS NULL";
        self.one(found, [digest], |row| id(row, "workspace_id"))
    }

    /// Every workspace, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn workspaces(&mut self) -> Result<Vec<Workspace>, StoreError> {
        self.all("SELECT * FROM workspace ORDER BY created_at, rowid", [], workspace)
    }

    /// Every API key, also those that do not count any more, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn api_keys(&mut self) -> Result<Vec<ApiKeyRow>, StoreError> {
        self.all(&format!("SELECT {KEY_ID} AS shown, * FROM api_key ORDER BY created_at, rowid"), [], |row| {
            Ok(ApiKeyRow {
                key_id: row.get("shown")?,
                workspace: id(row, "workspace_id")?,
                name: row.get("name")?,
                created_at: time(row, "created_at")?,
                revoked_at: maybe_time(row, "revoked_at")?,
            })
        })
    }

    /// Lets another API key count for a workspace. Says whether there is such a workspace.
    ///
    /// # Errors
    /// Those of the database.
    pub fn add_api_key(
        &mut self,
        now: Timestamp,
        workspace: WorkspaceId,
        name: Option<&str>,
        digest: [u8; 32],
    ) -> Result<bool, StoreError> {
        let added = self.execute(
            "INSERT INTO api_key(digest, workspace_id, created_at, name)
             SELECT ?1, workspace_id, ?3, ?4 FROM workspace WHERE workspace_id = ?2",
            params![digest, workspace.to_string(), ms(now), name],
        )?;
        Ok(added > 0)
    }

    /// Lets an API key count no more. Says whether there was one that did.
    ///
    /// # Errors
    /// Those of the database.
    pub fn revoke_api_key(&mut self, now: Timestamp, key_id: &str) -> Result<bool, StoreError> {
        let revoked = self.execute(
            &format!("UPDATE api_key SET revoked_at = ?2 WHERE {KEY_ID} = ?1 AND revoked_at IS NULL"),
            params![key_id, ms(now)],
        )?;
        Ok(revoked > 0)
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

impl Tenant<'_> {
    /// This workspace.
    pub(crate) fn own(&mut self) -> Result<Option<Workspace>, StoreError> {
        self.db.one("SELECT * FROM workspace WHERE workspace_id = ?1", [&self.workspace], workspace)
    }
}

/// By what a key is told: the beginning of its digest, from which nobody finds the key.
const KEY_ID: &str = "lower(hex(substr(digest, 1, 6)))";

fn workspace(row: &Row<'_>) -> rusqlite::Result<Workspace> {
    Ok(Workspace {
        id: id(row, "workspace_id")?,
        name: row.get("name")?,
        created_at: time(row, "created_at")?,
    })
}
