//! Who may speak: the keys of bridges and the cloud's own.

use jiff::Timestamp;
use rusqlite::params;

use super::{Db, rows};
use crate::{
    model::{BridgeId, WorkspaceId},
    protocol::{PublicKey, SigningKey},
    store::StoreError,
};

/// A bridge that has shown a certificate of ours.
#[derive(Debug, Clone)]
pub struct Paired {
    /// Which.
    pub bridge: BridgeId,
    /// Whose.
    pub workspace: WorkspaceId,
    /// What people call that.
    pub workspace_name: String,
    /// What signs on its connection.
    pub key: PublicKey,
    /// The keys that speak for the cloud, newest first; never none.
    pub cloud_keys: Vec<SigningKey>,
}

/// The keys that a certificate was issued for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeKeys {
    /// The SHA-256 of the public key in the certificate.
    pub tls: [u8; 32],
    /// What signs on the connection.
    pub signing: PublicKey,
    /// When the certificate ends.
    pub expires_at: Timestamp,
}

impl Db {
    /// From now on, whoever shows this certificate and signs with this key is the bridge.
    ///
    /// # Errors
    /// Those of the database; also when a key is another bridge's.
    pub fn admit(&mut self, now: Timestamp, bridge: BridgeId, keys: &BridgeKeys) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO bridge_key(tls_key, signing_key, workspace_id, bridge_id, issued_at, expires_at)
             SELECT ?1, ?2, workspace_id, id, ?4, ?5 FROM bridge WHERE id = ?3",
            params![
                keys.tls,
                keys.signing.as_bytes(),
                bridge.to_string(),
                rows::ms(now),
                rows::ms(keys.expires_at)
            ],
        )?;
        Ok(())
    }

    /// The bridge whose certificate holds this public key, by the key's SHA-256. That its certificate is good otherwise
    /// is for TLS to say.
    ///
    /// # Errors
    /// Those of the database.
    pub fn bridge_by_certificate(
        &mut self,
        now: Timestamp,
        tls_key: [u8; 32],
    ) -> Result<Option<Paired>, StoreError> {
        let found = self.one(
            "UPDATE bridge_key SET used_at = ?2
             WHERE tls_key = ?1 AND revoked_at IS NULL
             AND bridge_id IN (SELECT id FROM bridge WHERE revoked_at IS NULL)
             RETURNING bridge_id, workspace_id, signing_key",
            params![tls_key, rows::ms(now)],
            |row| {
                let key: [u8; 32] = row.get("signing_key")?;
                Ok((rows::id(row, "bridge_id")?, rows::id(row, "workspace_id")?, PublicKey::new(key)))
            },
        )?;
        let Some((bridge, workspace, key)) = found else { return Ok(None) };
        let (workspace_name, cloud_keys) = (self.workspace_name(workspace)?, self.cloud_keys(now)?);
        Ok(Some(Paired { bridge, workspace, workspace_name, key, cloud_keys }))
    }

    /// The keys that speak for the cloud, newest first; the first of all is made here.
    ///
    /// # Errors
    /// Those of the database; also when a key does not open.
    pub fn cloud_keys(&mut self, now: Timestamp) -> Result<Vec<SigningKey>, StoreError> {
        let sealed = self.all(
            "SELECT key_id, secret FROM cloud_key WHERE retired_at IS NULL ORDER BY created_at DESC, key_id",
            [],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)),
        )?;
        if sealed.is_empty() {
            return Ok(vec![self.add_cloud_key(now)?]);
        }
        let open = |(key_id, secret): (String, Vec<u8>)| {
            let place = secret_place(&key_id);
            let seed = zeroize::Zeroizing::new(self.seal.open(&place, &secret)?);
            let seed: &[u8; 32] =
                seed.as_slice().try_into().map_err(|error| StoreError::corrupt(place, error))?;
            Ok(SigningKey::from_seed(seed))
        };
        sealed.into_iter().map(open).collect()
    }

    /// Makes another key for the cloud, which is the newest from now on.
    ///
    /// # Errors
    /// Those of the database.
    pub fn add_cloud_key(&mut self, now: Timestamp) -> Result<SigningKey, StoreError> {
        let (key, seed) = SigningKey::generate(&self.random);
        let key_id = key.public().id().to_string();
        let secret = self.seal.seal(&secret_place(&key_id), seed.as_slice());
        self.execute(
            "INSERT INTO cloud_key(key_id, secret, created_at) VALUES(?1, ?2, ?3)",
            params![key_id, secret, rows::ms(now)],
        )?;
        Ok(key)
    }
}

fn secret_place(key_id: &str) -> String {
    format!("cloud_key.secret/{key_id}")
}
