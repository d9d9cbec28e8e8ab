//! Workspaces and their API keys.

use super::{Desk, Fault, name, refused};
use crate::{
    cloud::{
        admin::{ApiKeyLine, Response, WorkspaceLine},
        store::{ApiKeyRow, Db, Workspace},
    },
    link::wire::shown,
    model::WorkspaceId,
};

impl Desk {
    pub(super) async fn workspaces(&self) -> Result<Response, Fault> {
        let rows = self.db.run(Db::workspaces).await?;
        let line = |row: Workspace| WorkspaceLine {
            workspace_id: row.id,
            name: row.name,
            created_at: row.created_at,
        };
        Ok(Response::Workspaces { workspaces: rows.into_iter().map(line).collect() })
    }

    pub(super) async fn add_workspace(&self, called: String, by: String) -> Result<Response, Fault> {
        let (now, to) = (self.clock.now(), name(&called)?);
        if self.find_workspace(&to).await.is_ok() {
            return refused("workspace_exists", format!("there is a workspace of the name {to}"));
        }
        let added = to.clone();
        let workspace = self.db.run(move |db| db.add_workspace(now, &added)).await?;
        tracing::info!(%workspace, name = to, by, "a workspace was made");
        self.workspaces().await
    }

    pub(super) async fn api_keys(&self) -> Result<Response, Fault> {
        let (rows, workspaces) = self.db.run(|db| Ok((db.api_keys()?, db.workspaces()?))).await?;
        let line = |row: ApiKeyRow| {
            let of = workspaces.iter().find(|workspace| workspace.id == row.workspace);
            ApiKeyLine {
                key_id: row.key_id,
                workspace_id: row.workspace,
                workspace: of.map(|workspace| workspace.name.clone()).unwrap_or_default(),
                name: row.name,
                created_at: row.created_at,
                revoked_at: row.revoked_at,
            }
        };
        Ok(Response::ApiKeys { keys: rows.into_iter().map(line).collect() })
    }

    pub(super) async fn add_api_key(
        &self,
        digest: &str,
        workspace: Option<String>,
        called: Option<String>,
        by: String,
    ) -> Result<Response, Fault> {
        let Some(digest) = bytes(digest) else {
            return refused("digest_invalid", "the digest of a key is a SHA-256 in 64 hexadecimal digits");
        };
        let workspace = match workspace {
            None => self.workspace,
            Some(wanted) => self.find_workspace(&wanted).await?,
        };
        let called = called.as_deref().map(name).transpose()?;
        let (now, kept) = (self.clock.now(), called.clone());
        self.db.run(move |db| db.add_api_key(now, workspace, kept.as_deref(), digest)).await?;
        tracing::info!(%workspace, name = called, by, "an API key was made");
        self.api_keys().await
    }

    pub(super) async fn revoke_api_key(&self, key_id: String, by: String) -> Result<Response, Fault> {
        let (now, key) = (self.clock.now(), key_id.to_ascii_lowercase());
        if !self.db.run(move |db| db.revoke_api_key(now, &key)).await? {
            let message = format!("there is no API key {}, or it is revoked already", shown(&key_id));
            return refused("api_key_unknown", message);
        }
        tracing::warn!(key = shown(&key_id), by, "an API key was revoked");
        self.api_keys().await
    }

    /// A workspace by its id or its name.
    pub(super) async fn find_workspace(&self, wanted: &str) -> Result<WorkspaceId, Fault> {
        let rows = self.db.run(Db::workspaces).await?;
        let found = rows.iter().find(|row| row.name == wanted || row.id.to_string() == wanted);
        match found {
            Some(row) => Ok(row.id),
            None => refused("workspace_unknown", format!("there is no workspace {}", shown(wanted))),
        }
    }
}

fn bytes(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte * 16 + digit)).collect();
    (digits.len() == 64).then(|| bytes.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_hexadecimal_digits_and_nothing_else() {
        assert_eq!(bytes(&"0f".repeat(32)), Some([15; 32]));
        for wrong in ["", "0f", &"0f".repeat(33), &"0g".repeat(32), &"é".repeat(32)] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
