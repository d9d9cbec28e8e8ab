//! Who may come in once a backup was put back.
//!
//! A backup knows nothing of what came after it: a bridge that was revoked since would be let in again, and one that
//! has renewed since would not. The database that it replaces knows, where it can still be read; from there is taken who
//! may come in. Of a bridge of which it cannot be read, nobody can say whether it was revoked: its keys do not count
//! until a person vouches for it. Cards and codes that are out go on meanwhile, and so does the desk.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{Db, FILE, rows, trust::secret_place};
use crate::{
    model::{BridgeId, WorkspaceId},
    seams::Storage,
    store::{self, StoreError},
};

/// A bridge for which somebody has to vouch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unvouched {
    /// Which.
    pub bridge: BridgeId,
    /// What people call it.
    pub name: Option<String>,
}

/// What a database says of who may come in.
#[derive(Debug, Default)]
pub(super) struct Known {
    bridges: BTreeMap<String, Bridge>,
    keys: Vec<Key>,
    cloud_keys: Vec<CloudKey>,
    /// The digests of API keys that count no more, and since when. Nothing where nobody can say.
    revoked_api_keys: Option<Vec<(Vec<u8>, i64)>>,
}

#[derive(Debug, Clone, Copy)]
struct Bridge {
    seen_at: Option<i64>,
    revoked_at: Option<i64>,
    unvouched_at: Option<i64>,
}

#[derive(Debug)]
struct Key {
    tls_key: Vec<u8>,
    signing_key: Vec<u8>,
    bridge: String,
    issued_at: i64,
    expires_at: i64,
    used_at: Option<i64>,
    revoked_at: Option<i64>,
}

#[derive(Debug)]
struct CloudKey {
    key_id: String,
    secret: Vec<u8>,
    created_at: i64,
    retired_at: Option<i64>,
}

impl Known {
    /// Whether it could say which API keys were revoked.
    pub(super) fn has_api_keys(&self) -> bool {
        self.revoked_api_keys.is_some()
    }

    /// What the database in place says. Nothing where there is none, or none that can be read from end to end.
    pub(super) fn of(storage: &Storage) -> Self {
        if !storage.file(FILE).exists() {
            return Self::default();
        }
        match store::open_reader(storage, FILE).and_then(|connection| Self::read(&connection)) {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(
                    error = error.chain(),
                    "the database that is replaced cannot be asked who was revoked"
                );
                Self::default()
            }
        }
    }

    fn read(connection: &Connection) -> Result<Self, StoreError> {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(StoreError::corrupt(FILE, found));
        }
        let mut statement = connection.prepare("SELECT * FROM bridge")?;
        let bridges = statement.query_map([], |row| {
            let bridge = Bridge {
                seen_at: row.get("seen_at")?,
                revoked_at: row.get("revoked_at")?,
                // An older program's database has none.
                unvouched_at: row.get("unvouched_at").unwrap_or_default(),
            };
            Ok((row.get("id")?, bridge))
        })?;
        let bridges = bridges.collect::<Result<_, _>>()?;
        let mut statement = connection.prepare("SELECT * FROM bridge_key ORDER BY rowid")?;
        let keys = statement.query_map([], |row| {
            Ok(Key {
                tls_key: row.get("tls_key")?,
                signing_key: row.get("signing_key")?,
                bridge: row.get("bridge_id")?,
                issued_at: row.get("issued_at")?,
                expires_at: row.get("expires_at")?,
                used_at: row.get("used_at")?,
                revoked_at: row.get("revoked_at")?,
            })
        })?;
        let keys = keys.collect::<Result<_, _>>()?;
        let mut statement = connection.prepare("SELECT * FROM cloud_key ORDER BY rowid")?;
        let cloud_keys = statement.query_map([], |row| {
            Ok(CloudKey {
                key_id: row.get("key_id")?,
                secret: row.get("secret")?,
                created_at: row.get("created_at")?,
                retired_at: row.get("retired_at")?,
            })
        })?;
        let cloud_keys = cloud_keys.collect::<Result<_, _>>()?;
        // An older program's database cannot revoke any.
        let can_revoke = connection.prepare("SELECT revoked_at FROM api_key").is_ok();
        let revoked = if can_revoke {
            "SELECT digest, revoked_at FROM api_key WHERE revoked_at IS NOT NULL"
        } else {
            "SELECT digest, 0 FROM api_key WHERE 0"
        };
        let mut statement = connection.prepare(revoked)?;
        let revoked = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let revoked_api_keys = Some(revoked.collect::<Result<_, _>>()?);
        Ok(Self { bridges, keys, cloud_keys, revoked_api_keys })
    }
}

impl Db {
    /// Takes over what the replaced database knew of who may come in, and gives the bridges of which it could not say.
    pub(super) fn take_standing(
        &mut self,
        now: Timestamp,
        known: &Known,
    ) -> Result<Vec<Unvouched>, StoreError> {
        // A code that was used since would count once more.
        self.execute("DELETE FROM pairing WHERE admitted_at IS NULL", [])?;
        for key in &known.cloud_keys {
            if self.seal.open(&secret_place(&key.key_id), &key.secret).is_err() {
                continue;
            }
            self.execute(
                "INSERT INTO cloud_key(key_id, secret, created_at, retired_at) VALUES(?1, ?2, ?3, ?4)
                 ON CONFLICT(key_id) DO UPDATE SET retired_at = coalesce(retired_at, excluded.retired_at)",
                params![key.key_id, key.secret, key.created_at, key.retired_at],
            )?;
        }
        for (digest, revoked_at) in known.revoked_api_keys.iter().flatten() {
            self.execute(
                "UPDATE api_key SET revoked_at = coalesce(revoked_at, ?2) WHERE digest = ?1",
                params![digest, revoked_at],
            )?;
        }
        let bridges = self.all(
            "SELECT id, workspace_id, name, seen_at, revoked_at,
                    EXISTS(SELECT 1 FROM bridge_key WHERE bridge_id = bridge.id) AS paired
             FROM bridge ORDER BY created_at, id",
            [],
            |row| {
                let (id, workspace): (String, String) = (row.get("id")?, row.get("workspace_id")?);
                let unvouched = Unvouched { bridge: rows::id(row, "id")?, name: row.get("name")? };
                let (seen_at, revoked_at): (Option<i64>, Option<i64>) =
                    (row.get("seen_at")?, row.get("revoked_at")?);
                Ok((id, workspace, unvouched, seen_at, revoked_at, row.get::<_, bool>("paired")?))
            },
        )?;
        let mut unvouched = Vec::new();
        for (id, workspace, bridge, seen_at, revoked_at, was_paired) in bridges {
            let of = known.bridges.get(&id);
            // One that last heard of the bridge before the backup did knows less, not more.
            let newer = of.filter(|of| seen_at <= of.seen_at);
            for key in known.keys.iter().filter(|key| key.bridge == id) {
                self.take_key(&workspace, key, newer.is_some())?;
            }
            // Where neither has heard of the bridge since the other, who is the newer one only its keys can tell: those that
            // were given to it after it was revoked say that it was paired again.
            let is_tied = newer.is_some_and(|of| seen_at == of.seen_at);
            let is_back = |revoked_at| {
                let later = |key: &Key| key.issued_at >= revoked_at && key.revoked_at.is_none();
                known.keys.iter().any(|key| key.bridge == id && later(key))
            };
            let still_revoked = revoked_at.filter(|at| is_tied && !is_back(*at));
            let (revoked_at, doubted_at) = match (newer, of) {
                (Some(newer), _) => (newer.revoked_at.or(still_revoked), newer.unvouched_at),
                (None, of) => {
                    let revoked_at = revoked_at.or(of.and_then(|of| of.revoked_at));
                    (revoked_at, was_paired.then_some(rows::ms(now)))
                }
            };
            self.execute(
                "UPDATE bridge SET revoked_at = ?2, unvouched_at = ?3 WHERE id = ?1",
                params![id, revoked_at, doubted_at],
            )?;
            if doubted_at.is_some() && revoked_at.is_none() {
                unvouched.push(bridge);
            }
        }
        Ok(unvouched)
    }

    /// A key that was revoked stays so; one that the backup does not know is taken from a database that is newer.
    fn take_key(&self, workspace: &str, key: &Key, is_newer: bool) -> Result<(), StoreError> {
        if is_newer {
            self.execute(
                "INSERT INTO bridge_key(tls_key, signing_key, workspace_id, bridge_id, issued_at, expires_at, used_at)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
                params![
                    key.tls_key,
                    key.signing_key,
                    workspace,
                    key.bridge,
                    key.issued_at,
                    key.expires_at,
                    key.used_at
                ],
            )?;
        }
        self.execute(
            "UPDATE bridge_key SET revoked_at = coalesce(revoked_at, ?2) WHERE tls_key = ?1",
            params![key.tls_key, key.revoked_at],
        )?;
        Ok(())
    }

    /// A person says that a bridge was not revoked: its keys count again. False where nobody has to.
    ///
    /// # Errors
    /// Those of the database.
    pub fn vouch(&mut self, workspace: WorkspaceId, bridge: BridgeId) -> Result<bool, StoreError> {
        let vouched = self.execute(
            "UPDATE bridge SET unvouched_at = NULL
             WHERE id = ?1 AND workspace_id = ?2 AND unvouched_at IS NOT NULL AND revoked_at IS NULL",
            params![bridge.to_string(), workspace.to_string()],
        )?;
        Ok(vouched > 0)
    }
}
