//! Who may speak: invitations, the keys of bridges, and the cloud's own.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, Row, params};

use super::{Cancel, Db, rows};
use crate::{
    grants::AttemptError,
    model::{ActionAttemptId, BridgeId, DoorName, JobId, ReservationKey, RoomState, SystemName, WorkspaceId},
    protocol::{KeyId, PublicKey, SigningKey, enrol::LedgerCopy},
    store::StoreError,
};

/// How many invitations may be open at a time: guessing must not become easier with their number.
const INVITATIONS: u32 = 32;
/// How many pairs of keys of one bridge count at a time: the present ones, the next ones, and those whose certificate
/// was lost on the way.
const PAIRS_OF_KEYS: usize = 3;
/// For how long what was said to a bridge can be asked for once more, and is seen in lists.
pub(super) const PAIRINGS_KEPT: SignedDuration = SignedDuration::from_hours(24);

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
    /// When the certificate ends that it has shown.
    pub until: Timestamp,
    /// Nobody knows whether it was revoked, since the database was put back.
    pub is_unvouched: bool,
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

/// Whether the keys of a connection still count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Neither they nor their bridge were revoked.
    pub counts: bool,
    /// The name of the cloud's newest key; none before there is one.
    pub newest_cloud_key: Option<String>,
}

/// Who may be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The code, as [`crate::cloud::enrol::Code`] spells it without dashes.
    pub code: String,
    /// What people will call the bridge.
    pub name: Option<String>,
    /// The bridge whose place it takes.
    pub replaces: Option<BridgeId>,
    /// Whether a person vouches that the replaced bridge did nothing that the cloud does not know.
    pub ledger_is_current: bool,
    /// Whether a person is asked.
    pub acceptance: Acceptance,
    /// For how long the code counts.
    pub valid_for: SignedDuration,
    /// Who invites.
    pub by: String,
}

/// Who says yes to a bridge that knows the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// A person, when it asks.
    Person,
    /// The invitation, to whoever asks first.
    Anybody,
    /// The invitation, to keys of this fingerprint and to nobody else.
    Fingerprint(String),
}

/// Why nobody was invited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotInvited {
    /// There is no bridge whose place could be taken.
    #[error("there is no bridge {0}")]
    BridgeUnknown(BridgeId),
    /// Too many codes count already.
    #[error("{INVITATIONS} invitations are open; wait until one has ended")]
    TooMany,
}

/// A site that asks to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// The code it knows, spelt as in [`Invitation::code`].
    pub code: String,
    /// The digest of its keys.
    pub keys: String,
    /// Their fingerprint.
    pub fingerprint: String,
    /// From where.
    pub from: String,
    /// Program and version.
    pub agent: String,
}

/// How a site stands that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The code does not count: wrong, over, or somebody else's by now.
    NoSuchCode,
    /// The code counts, and these are not the keys that were announced.
    OtherKeys {
        /// Which invitation.
        pairing: String,
        /// What was announced.
        wanted: String,
    },
    /// A person has said no.
    Declined,
    /// A person has not answered yet.
    Waiting {
        /// Which invitation.
        pairing: String,
        /// Until when the code counts.
        until: Timestamp,
        /// Whether this was the first time that it asked.
        is_new: bool,
    },
    /// It may be taken in.
    Accepted {
        /// Which invitation.
        pairing: String,
    },
    /// It was taken in, and was told this.
    Admitted(String),
}

/// A bridge that is being taken in, or goes on with new keys.
#[derive(Debug)]
pub struct Admitting {
    /// Which.
    pub bridge: BridgeId,
    /// The workspace's name.
    pub workspace_name: String,
    /// Signs what it is told: a key of the cloud that it knows.
    pub signer: SigningKey,
    /// The keys that speak for the cloud, newest first.
    pub cloud_keys: Vec<PublicKey>,
    /// For a bridge that takes another one's place.
    pub ledger: Option<LedgerCopy>,
    /// Whether other keys of the bridge were revoked for it.
    pub revokes: bool,
    /// When its certificate ends.
    pub expires_at: Timestamp,
}

/// Why a bridge was not taken in, or does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Nobody has these keys, or not the right to ask.
    #[error("no bridge that is paired here has signed this")]
    NotPaired,
    /// It was revoked, or replaced.
    #[error("the bridge was revoked: pair the site again")]
    Revoked,
    /// Its last certificate ended too long ago.
    #[error("the bridge's certificate ended too long ago: pair the site again")]
    TooLate,
    /// The new keys are not new.
    #[error("these keys were in use before: make new ones")]
    KeysKnown,
    /// The invitation is over.
    #[error("the invitation does not count any more")]
    Over,
}

/// What is known of the key that a renewal is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldKey {
    /// Its public half.
    pub key: PublicKey,
    /// When its certificate ends, or ended.
    pub expires_at: Timestamp,
}

/// An invitation, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairingRow {
    /// Its name.
    pub pairing: String,
    /// What the bridge will be called.
    pub name: Option<String>,
    /// The bridge that is replaced or, once it was taken in, the bridge.
    pub bridge: Option<BridgeId>,
    /// Until when the code counts.
    pub expires_at: Timestamp,
    /// Who asks: the fingerprint of its keys, from where, with which program.
    pub asker: Option<(String, String, String)>,
    /// What was said to it.
    pub accepted: Option<bool>,
    /// Whether it was taken in.
    pub admitted: bool,
}

/// Why an answer to a pairing does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnswered {
    /// There is none of this name that waits for an answer.
    #[error("nobody waits for an answer under this name: see `latchd cloud bridges list`")]
    NotWaiting,
    /// Somebody else asks.
    #[error("who asks has the fingerprint {0}: nothing was answered")]
    OtherFingerprint(String),
}

/// A bridge, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeRow {
    /// Which.
    pub bridge: BridgeId,
    /// What people call it.
    pub name: Option<String>,
    /// Whether a connection speaks for it now.
    pub connected: bool,
    /// When it was last heard of.
    pub seen_at: Option<Timestamp>,
    /// When the last of its certificates ends; none where it has never been paired.
    pub certificate_ends: Option<Timestamp>,
    /// Since when it is revoked.
    pub revoked_at: Option<Timestamp>,
    /// Since when nobody knows whether it was.
    pub unvouched_at: Option<Timestamp>,
    /// The newest of the cloud's keys that it is known to know.
    pub cloud_key: Option<String>,
}

/// What came of a bridge's revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revocation {
    /// Orders that it never heard of and never will.
    pub withdrawn: u32,
    /// Orders that it may carry out or have carried out: nobody will say so until the site is paired again.
    pub open: u32,
}

/// One of the cloud's keys, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudKeyRow {
    /// Its name.
    pub key_id: String,
    /// Since when there is it.
    pub created_at: Timestamp,
    /// Since when it does not count.
    pub retired_at: Option<Timestamp>,
}

/// Why a key of the cloud is not retired.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRetired {
    /// There is none of this name that counts.
    #[error("no key of this name speaks for the cloud")]
    Unknown,
    /// It is the newest.
    #[error("it is the newest key: make another one first, with `latchd cloud signing-keys add`")]
    Newest,
    /// These bridges may know no newer one: they could not speak with this cloud any more.
    #[error(
        "these bridges were not welcomed since a newer key came, and could not speak with this cloud any more: {}",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    StillNeeded(Vec<BridgeId>),
}

const CODE: &str = "pairing.code";

impl Db {
    /// Invites a bridge; gives the invitation's name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn invite(
        &mut self,
        now: Timestamp,
        workspace: WorkspaceId,
        invitation: &Invitation,
    ) -> Result<Result<String, NotInvited>, StoreError> {
        if let Some(bridge) = invitation.replaces
            && self.bridges(workspace)?.iter().all(|known| known.bridge != bridge)
        {
            return Ok(Err(NotInvited::BridgeUnknown(bridge)));
        }
        let open: u32 = self.connection.query_row(
            "SELECT count(*) FROM pairing WHERE expires_at > ?1 AND admitted_at IS NULL",
            [rows::ms(now)],
            |row| row.get(0),
        )?;
        if open >= INVITATIONS {
            return Ok(Err(NotInvited::TooMany));
        }
        let pairing = self.random.uuid().to_string();
        let (accepted, wanted) = match &invitation.acceptance {
            Acceptance::Person => (None, None),
            Acceptance::Anybody => (Some(true), None),
            Acceptance::Fingerprint(wanted) => (Some(true), Some(wanted)),
        };
        let expires_at = now.saturating_add(invitation.valid_for).unwrap_or(Timestamp::MAX);
        self.execute(
            "INSERT INTO pairing(pairing_id, code, workspace_id, bridge_id, name, ledger_is_current, invited_by,
                                 created_at, expires_at, wanted, accepted, answered_by)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, iif(?11 IS NULL, NULL, ?7))",
            params![
                pairing,
                self.seal.blind_index(CODE, &invitation.code),
                workspace.to_string(),
                invitation.replaces.map(|bridge| bridge.to_string()),
                invitation.name,
                invitation.ledger_is_current,
                invitation.by,
                rows::ms(now),
                rows::ms(expires_at),
                wanted,
                accepted,
            ],
        )?;
        Ok(Ok(pairing))
    }

    /// A site that knows a code asks to be taken in. The first one that asks with a code is bound to it. A code that is
    /// over cannot be told from one that never was, neither by the answer nor by the time it takes.
    ///
    /// # Errors
    /// Those of the database.
    pub fn ask_to_pair(&mut self, now: Timestamp, asking: &Asking) -> Result<Asked, StoreError> {
        struct Found {
            pairing: String,
            expires_at: Timestamp,
            keys: Option<String>,
            wanted: Option<String>,
            accepted: Option<bool>,
            answer: Option<Vec<u8>>,
        }
        let rows = self.all("SELECT * FROM pairing", [], |row| {
            let code: Vec<u8> = row.get("code")?;
            Ok((
                code,
                Found {
                    pairing: row.get("pairing_id")?,
                    expires_at: rows::time(row, "expires_at")?,
                    keys: row.get("keys")?,
                    wanted: row.get("wanted")?,
                    accepted: row.get("accepted")?,
                    answer: row.get("answer")?,
                },
            ))
        })?;
        let mut found = None;
        for (code, row) in rows {
            if self.seal.is_blind_index(CODE, &asking.code, &code) {
                found = Some(row);
            }
        }
        let Some(found) = found else { return Ok(Asked::NoSuchCode) };
        let is_new = found.keys.is_none();
        if found.keys.is_some_and(|keys| keys != asking.keys) {
            return Ok(Asked::NoSuchCode);
        }
        if let Some(answer) = found.answer {
            let place = answer_place(&found.pairing);
            let answer = self.seal.open(&place, &answer)?;
            let answer = String::from_utf8(answer).map_err(|error| StoreError::corrupt(place, error))?;
            return Ok(Asked::Admitted(answer));
        }
        let pairing = found.pairing;
        if found.expires_at <= now {
            return Ok(Asked::NoSuchCode);
        }
        if let Some(wanted) = found.wanted.filter(|wanted| *wanted != asking.fingerprint) {
            return Ok(Asked::OtherKeys { pairing, wanted });
        }
        if is_new {
            self.execute(
                "UPDATE pairing SET keys = ?2, fingerprint = ?3, from_address = ?4, agent = ?5, asked_at = ?6
                 WHERE pairing_id = ?1",
                params![pairing, asking.keys, asking.fingerprint, asking.from, asking.agent, rows::ms(now)],
            )?;
        }
        Ok(match found.accepted {
            None => Asked::Waiting { pairing, until: found.expires_at, is_new },
            Some(false) => Asked::Declined,
            Some(true) => Asked::Accepted { pairing },
        })
    }

    /// A person answers whoever asks; `fingerprint` is what the person was shown.
    ///
    /// # Errors
    /// Those of the database.
    pub fn answer_pairing(
        &mut self,
        now: Timestamp,
        pairing: &str,
        fingerprint: &str,
        accepted: bool,
        by: &str,
    ) -> Result<Result<(), NotAnswered>, StoreError> {
        let asks: Option<String> = self.one(
            "SELECT fingerprint FROM pairing
             WHERE pairing_id = ?1 AND fingerprint IS NOT NULL AND accepted IS NULL AND expires_at > ?2",
            params![pairing, rows::ms(now)],
            |row| row.get(0),
        )?;
        match asks {
            None => return Ok(Err(NotAnswered::NotWaiting)),
            Some(asks) if asks != fingerprint => return Ok(Err(NotAnswered::OtherFingerprint(asks))),
            Some(_) => {}
        }
        self.execute(
            "UPDATE pairing SET accepted = ?2, answered_by = ?3 WHERE pairing_id = ?1",
            params![pairing, accepted, by],
        )?;
        Ok(Ok(()))
    }

    /// Takes a bridge in whose pairing was accepted. `tell` makes what it is told, which is kept, so that it can be told
    /// once more. Keys that the bridge had before are revoked at this moment.
    ///
    /// # Errors
    /// Those of the database, and of `tell`; nothing is stored then.
    pub fn admit_paired<T>(
        &mut self,
        now: Timestamp,
        pairing: &str,
        keys: &BridgeKeys,
        tell: impl FnOnce(&Admitting) -> Result<(String, T), StoreError>,
    ) -> Result<Result<(Admitting, T), NotAdmitted>, StoreError> {
        let found = self.one(
            "SELECT * FROM pairing WHERE pairing_id = ?1 AND accepted = 1 AND answer IS NULL AND expires_at > ?2",
            params![pairing, rows::ms(now)],
            |row| {
                let (workspace, replaces): (WorkspaceId, Option<BridgeId>) =
                    (rows::id(row, "workspace_id")?, rows::maybe_id(row, "bridge_id")?);
                let name: Option<String> = row.get("name")?;
                let (current, since): (bool, i64) = (row.get("ledger_is_current")?, row.get("created_at")?);
                Ok((workspace, replaces, name, current, since))
            },
        )?;
        let Some((workspace, replaces, name, ledger_is_current, invited_at)) = found else {
            return Ok(Err(NotAdmitted::Over));
        };
        if self.knows_keys(keys)? {
            return Ok(Err(NotAdmitted::KeysKnown));
        }
        let bridge = match replaces {
            Some(bridge) => bridge,
            None => self.unpaired_bridge(now, workspace)?,
        };
        let cloud_keys = self.cloud_keys_with_age(now)?;
        // The site may have read the cloud's card as early as it was invited.
        let signer = cloud_keys.iter().find(|(_, made)| *made <= invited_at).or(cloud_keys.first());
        let (signer, _) = signer.cloned().expect("a cloud has a key from its first start on");
        let ledger = match replaces {
            Some(bridge) => Some(self.replace_hardware(bridge, ledger_is_current)?),
            None => None,
        };
        let revoked = self.revoke_keys(now, bridge)?;
        if self.live.remove(&bridge).is_some() {
            self.bridge_down(now, bridge)?;
        }
        self.execute(
            "UPDATE bridge SET revoked_at = NULL, unvouched_at = NULL, name = coalesce(?2, name), cloud_key = ?3 WHERE id = ?1",
            params![bridge.to_string(), name, signer.public().id().as_str()],
        )?;
        self.admit(now, bridge, keys)?;
        let admitting = Admitting {
            bridge,
            workspace_name: self.workspace_name(workspace)?,
            signer,
            cloud_keys: cloud_keys.iter().map(|(key, _)| key.public()).collect(),
            ledger,
            revokes: revoked > 0,
            expires_at: keys.expires_at,
        };
        let (told, more) = tell(&admitting)?;
        self.execute(
            "UPDATE pairing SET bridge_id = ?2, answer = ?3, admitted_at = ?4 WHERE pairing_id = ?1",
            params![
                pairing,
                bridge.to_string(),
                self.seal.seal(&answer_place(pairing), told.as_bytes()),
                rows::ms(now)
            ],
        )?;
        Ok(Ok((admitting, more)))
    }

    /// The key of a bridge that a renewal is signed with, whether it still counts or not.
    ///
    /// # Errors
    /// Those of the database.
    pub fn old_key(&mut self, bridge: BridgeId, key: &KeyId) -> Result<Option<OldKey>, StoreError> {
        let keys = self.all(
            "SELECT signing_key, expires_at FROM bridge_key WHERE bridge_id = ?1",
            [bridge.to_string()],
            |row| {
                let key = PublicKey::new(row.get("signing_key")?);
                Ok(OldKey { key, expires_at: rows::time(row, "expires_at")? })
            },
        )?;
        Ok(keys.into_iter().find(|known| known.key.id() == *key))
    }

    /// Lets a bridge go on with new keys, which are wanted by whoever has `old`. Asked again for the same keys, their
    /// certificate ends when it did: a request that is sent again by somebody else prolongs nothing.
    ///
    /// # Errors
    /// Those of the database.
    pub fn admit_renewed(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        old: &PublicKey,
        keys: &BridgeKeys,
        grace: SignedDuration,
    ) -> Result<Result<Admitting, NotAdmitted>, StoreError> {
        let found = self.one(
            "SELECT key.workspace_id, key.expires_at, cloud_key,
                    key.revoked_at IS NOT NULL OR bridge.revoked_at IS NOT NULL AS revoked
             FROM bridge_key AS key JOIN bridge ON bridge.id = bridge_id
             WHERE bridge_id = ?1 AND signing_key = ?2",
            params![bridge.to_string(), old.as_bytes()],
            |row| {
                let (workspace, expires_at) =
                    (rows::id(row, "workspace_id")?, rows::time(row, "expires_at")?);
                Ok((workspace, expires_at, row.get("cloud_key")?, row.get("revoked")?))
            },
        )?;
        let Some((workspace, expires_at, cloud_key, revoked)) = found else {
            return Ok(Err(NotAdmitted::NotPaired));
        };
        let cloud_key: Option<String> = cloud_key;
        if revoked {
            return Ok(Err(NotAdmitted::Revoked));
        }
        if expires_at.saturating_add(grace).unwrap_or(Timestamp::MAX) < now {
            return Ok(Err(NotAdmitted::TooLate));
        }
        let same = self.one(
            "SELECT expires_at FROM bridge_key
             WHERE tls_key = ?1 AND signing_key = ?2 AND bridge_id = ?3 AND revoked_at IS NULL AND expires_at > ?4",
            params![keys.tls, keys.signing.as_bytes(), bridge.to_string(), rows::ms(now)],
            |row| rows::time(row, "expires_at"),
        )?;
        let (expires_at, revokes) = match same {
            Some(expires_at) => (expires_at, false),
            None if self.knows_keys(keys)? => return Ok(Err(NotAdmitted::KeysKnown)),
            None => {
                let revokes = self.make_room_for_keys(now, bridge, old)?;
                self.admit(now, bridge, keys)?;
                (keys.expires_at, revokes)
            }
        };
        let cloud_keys = self.cloud_keys(now)?;
        // One that is retired was so with a person's word that this bridge is left behind.
        let known = cloud_keys.iter().find(|key| cloud_key.as_deref() == Some(key.public().id().as_str()));
        let signer =
            known.or(cloud_keys.first()).cloned().expect("a cloud has a key from its first start on");
        Ok(Ok(Admitting {
            bridge,
            workspace_name: self.workspace_name(workspace)?,
            signer,
            cloud_keys: cloud_keys.iter().map(SigningKey::public).collect(),
            ledger: None,
            revokes,
            expires_at,
        }))
    }

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
    /// is for TLS to say, except for its end: a resumed TLS session does not look at it again.
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
             WHERE tls_key = ?1 AND revoked_at IS NULL AND expires_at > ?2
             AND bridge_id IN (SELECT id FROM bridge WHERE revoked_at IS NULL)
             RETURNING bridge_id, workspace_id, signing_key, expires_at,
                       (SELECT unvouched_at IS NOT NULL FROM bridge WHERE id = bridge_id) AS unvouched",
            params![tls_key, rows::ms(now)],
            |row| {
                let key: [u8; 32] = row.get("signing_key")?;
                let until = rows::time(row, "expires_at")?;
                let ids = (rows::id(row, "bridge_id")?, rows::id(row, "workspace_id")?);
                Ok((ids, PublicKey::new(key), until, row.get("unvouched")?))
            },
        )?;
        let Some(((bridge, workspace), key, until, is_unvouched)) = found else { return Ok(None) };
        let (workspace_name, cloud_keys) = (self.workspace_name(workspace)?, self.cloud_keys(now)?);
        Ok(Some(Paired { bridge, workspace, workspace_name, key, until, is_unvouched, cloud_keys }))
    }

    /// Whether a connection may go on that is signed with this key.
    ///
    /// # Errors
    /// Those of the database.
    pub fn trust(&mut self, key: &PublicKey) -> Result<Trust, StoreError> {
        let newest_cloud_key = self.one(
            "SELECT key_id FROM cloud_key WHERE retired_at IS NULL ORDER BY created_at DESC, rowid DESC LIMIT 1",
            [],
            |row| row.get(0),
        )?;
        Ok(Trust { counts: self.counts(key)?, newest_cloud_key })
    }

    /// Whether neither a key of a bridge nor the bridge was revoked.
    ///
    /// # Errors
    /// Those of the database.
    pub fn counts(&mut self, key: &PublicKey) -> Result<bool, StoreError> {
        let found = self.one(
            "SELECT 1 FROM bridge_key AS key JOIN bridge ON bridge.id = bridge_id
             WHERE signing_key = ?1 AND key.revoked_at IS NULL AND bridge.revoked_at IS NULL",
            [key.as_bytes()],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// A bridge has answered a welcome that named this key of the cloud as the newest.
    ///
    /// # Errors
    /// Those of the database.
    pub fn note_cloud_key_known(&mut self, bridge: BridgeId, key: &KeyId) -> Result<(), StoreError> {
        self.execute(
            "UPDATE bridge SET cloud_key = ?2 WHERE id = ?1 AND cloud_key IS NOT ?2",
            params![bridge.to_string(), key.as_str()],
        )?;
        Ok(())
    }

    /// Revokes a bridge: its keys count no more. What was never handed out to it is withdrawn; nothing where there is no
    /// such bridge, or it was revoked before.
    ///
    /// What it may know of stays open: the attempts end in doubt at their time, and reports count that it brings when the
    /// site is paired again under this bridge's name.
    ///
    /// # Errors
    /// Those of the database.
    pub fn revoke_bridge(
        &mut self,
        now: Timestamp,
        workspace: WorkspaceId,
        bridge: BridgeId,
    ) -> Result<Option<Revocation>, StoreError> {
        let revoked = self.execute(
            "UPDATE bridge SET revoked_at = ?3 WHERE id = ?1 AND workspace_id = ?2 AND revoked_at IS NULL",
            params![bridge.to_string(), workspace.to_string(), rows::ms(now)],
        )?;
        if revoked == 0 {
            return Ok(None);
        }
        self.revoke_keys(now, bridge)?;
        // From here on nothing is handed out.
        if self.live.remove(&bridge).is_some() {
            self.bridge_down(now, bridge)?;
        }
        let waiting = self.all(
            "SELECT job_id FROM bridge_order
             WHERE bridge_id = ?1 AND what = 'job' AND handed = 0 AND over_at IS NULL ORDER BY id",
            [bridge.to_string()],
            |row| rows::id::<JobId>(row, "job_id"),
        )?;
        for job in &waiting {
            let attempt = self.one(
                "SELECT action_attempt_id FROM action_attempt
                 WHERE job_id = ?1 AND workspace_id = ?2 AND status = 'pending'",
                params![job.to_string(), workspace.to_string()],
                |row| rows::id::<ActionAttemptId>(row, "action_attempt_id"),
            )?;
            if let Some(attempt) = attempt {
                self.tenant(workspace).end_attempt(now, attempt, &Err(AttemptError::bridge_away()))?;
            }
            match self.enqueue_cancel(now, bridge, *job)? {
                Cancel::Withdrawn => {
                    self.job_withdrawn(now, bridge, *job)?;
                    self.slot_withdrawn(now, bridge, *job)?;
                }
                Cancel::Ordered | Cancel::TooLate => {}
            }
        }
        let open = self.unfinished(bridge)?;
        Ok(Some(Revocation { withdrawn: u32::try_from(waiting.len()).unwrap_or(u32::MAX), open }))
    }

    /// Gives a bridge the name that people call it by. False where there is no such bridge.
    ///
    /// # Errors
    /// Those of the database.
    pub fn rename_bridge(
        &mut self,
        workspace: WorkspaceId,
        bridge: BridgeId,
        name: &str,
    ) -> Result<bool, StoreError> {
        let renamed = self.execute(
            "UPDATE bridge SET name = ?3 WHERE id = ?1 AND workspace_id = ?2",
            params![bridge.to_string(), workspace.to_string(), name],
        )?;
        Ok(renamed > 0)
    }

    /// The workspace of a bridge.
    ///
    /// # Errors
    /// Those of the database.
    pub fn house_of(&mut self, bridge: BridgeId) -> Result<Option<WorkspaceId>, StoreError> {
        self.one("SELECT workspace_id FROM bridge WHERE id = ?1", [bridge.to_string()], |row| {
            rows::id(row, "workspace_id")
        })
    }

    /// The bridges of a workspace, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn bridges(&mut self, workspace: WorkspaceId) -> Result<Vec<BridgeRow>, StoreError> {
        let mut bridges = self.all(
            "SELECT *, (SELECT max(expires_at) FROM bridge_key AS key
                        WHERE bridge_id = bridge.id AND key.revoked_at IS NULL) AS certificate_ends
             FROM bridge WHERE workspace_id = ?1 ORDER BY created_at, id",
            [workspace.to_string()],
            |row| {
                Ok(BridgeRow {
                    bridge: rows::id(row, "id")?,
                    name: row.get("name")?,
                    connected: false,
                    seen_at: rows::maybe_time(row, "seen_at")?,
                    certificate_ends: rows::maybe_time(row, "certificate_ends")?,
                    revoked_at: rows::maybe_time(row, "revoked_at")?,
                    unvouched_at: rows::maybe_time(row, "unvouched_at")?,
                    cloud_key: row.get("cloud_key")?,
                })
            },
        )?;
        for bridge in &mut bridges {
            bridge.connected = self.live.contains_key(&bridge.bridge);
        }
        Ok(bridges)
    }

    /// Invitations that are not long over, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn pairings(&mut self, workspace: WorkspaceId) -> Result<Vec<PairingRow>, StoreError> {
        self.all(
            "SELECT * FROM pairing WHERE workspace_id = ?1 ORDER BY created_at, rowid",
            [workspace.to_string()],
            |row: &Row<'_>| {
                let asker = match row.get::<_, Option<String>>("fingerprint")? {
                    Some(fingerprint) => Some((fingerprint, row.get("from_address")?, row.get("agent")?)),
                    None => None,
                };
                Ok(PairingRow {
                    pairing: row.get("pairing_id")?,
                    name: row.get("name")?,
                    bridge: rows::maybe_id(row, "bridge_id")?,
                    expires_at: rows::time(row, "expires_at")?,
                    asker,
                    accepted: row.get("accepted")?,
                    admitted: row.get::<_, Option<i64>>("admitted_at")?.is_some(),
                })
            },
        )
    }

    /// The keys that speak for the cloud, newest first; the first of all is made here.
    ///
    /// # Errors
    /// Those of the database; also when a key does not open.
    pub fn cloud_keys(&mut self, now: Timestamp) -> Result<Vec<SigningKey>, StoreError> {
        Ok(self.cloud_keys_with_age(now)?.into_iter().map(|(key, _)| key).collect())
    }

    fn cloud_keys_with_age(&mut self, now: Timestamp) -> Result<Vec<(SigningKey, i64)>, StoreError> {
        let sealed = self.all(
            "SELECT key_id, secret, created_at FROM cloud_key
             WHERE retired_at IS NULL ORDER BY created_at DESC, rowid DESC",
            [],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?)),
        )?;
        if sealed.is_empty() {
            return Ok(vec![(self.add_cloud_key(now)?, rows::ms(now))]);
        }
        let open = |(key_id, secret, made): (String, Vec<u8>, i64)| {
            let place = secret_place(&key_id);
            let seed = zeroize::Zeroizing::new(self.seal.open(&place, &secret)?);
            let seed: &[u8; 32] =
                seed.as_slice().try_into().map_err(|error| StoreError::corrupt(place, error))?;
            Ok((SigningKey::from_seed(seed), made))
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
            // The newest stays the newest, also where the clock was set back.
            "INSERT INTO cloud_key(key_id, secret, created_at)
             SELECT ?1, ?2, max(?3, coalesce(max(created_at), ?3)) FROM cloud_key",
            params![key_id, secret, rows::ms(now)],
        )?;
        Ok(key)
    }

    /// Every key that has spoken for the cloud, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn cloud_key_rows(&mut self) -> Result<Vec<CloudKeyRow>, StoreError> {
        self.all(
            "SELECT key_id, created_at, retired_at FROM cloud_key ORDER BY created_at DESC, rowid DESC",
            [],
            |row| {
                Ok(CloudKeyRow {
                    key_id: row.get("key_id")?,
                    created_at: rows::time(row, "created_at")?,
                    retired_at: rows::maybe_time(row, "retired_at")?,
                })
            },
        )
    }

    /// Lets a key speak for the cloud no more. Unless `force`d, not while a bridge may know no newer one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn retire_cloud_key(
        &mut self,
        now: Timestamp,
        key_id: &str,
        force: bool,
    ) -> Result<Result<(), NotRetired>, StoreError> {
        let keys: Vec<_> = self.cloud_keys(now)?.iter().map(|key| key.public().id().to_string()).collect();
        let Some(place) = keys.iter().position(|known| known == key_id) else {
            return Ok(Err(NotRetired::Unknown));
        };
        if place == 0 {
            return Ok(Err(NotRetired::Newest));
        }
        let newer = &keys[..place];
        let needed = self.all(
            "SELECT id, cloud_key FROM bridge WHERE revoked_at IS NULL
             AND id IN (SELECT bridge_id FROM bridge_key WHERE revoked_at IS NULL) ORDER BY created_at, id",
            [],
            |row| Ok((rows::id::<BridgeId>(row, "id")?, row.get::<_, Option<String>>("cloud_key")?)),
        )?;
        let needed: Vec<_> = needed
            .into_iter()
            .filter(|(_, known)| known.as_ref().is_none_or(|known| !newer.contains(known)))
            .map(|(bridge, _)| bridge)
            .collect();
        if !needed.is_empty() && !force {
            return Ok(Err(NotRetired::StillNeeded(needed)));
        }
        self.execute(
            "UPDATE cloud_key SET retired_at = ?2 WHERE key_id = ?1",
            params![key_id, rows::ms(now)],
        )?;
        Ok(Ok(()))
    }

    /// The bridge that the first start made, or another one for a further site.
    fn unpaired_bridge(&mut self, now: Timestamp, workspace: WorkspaceId) -> Result<BridgeId, StoreError> {
        let unpaired = self.one(
            "SELECT id FROM bridge WHERE workspace_id = ?1 AND revoked_at IS NULL
             AND id NOT IN (SELECT bridge_id FROM bridge_key) ORDER BY created_at, id LIMIT 1",
            [workspace.to_string()],
            |row| rows::id(row, "id"),
        )?;
        if let Some(bridge) = unpaired {
            return Ok(bridge);
        }
        let bridge = BridgeId(self.random.uuid());
        self.execute(
            "INSERT INTO bridge(id, workspace_id, created_at) VALUES(?1, ?2, ?3)",
            params![bridge.to_string(), workspace.to_string(), rows::ms(now)],
        )?;
        self.add_site(now, workspace, bridge)?;
        Ok(bridge)
    }

    /// Keys are never given a second time, not even to the bridge that had them.
    fn knows_keys(&self, keys: &BridgeKeys) -> Result<bool, StoreError> {
        let known = self
            .connection
            .prepare_cached("SELECT 1 FROM bridge_key WHERE tls_key = ?1 OR signing_key = ?2")?
            .query_row(params![keys.tls, keys.signing.as_bytes()], |_| Ok(()))
            .optional()?;
        Ok(known.is_some())
    }

    fn revoke_keys(&self, now: Timestamp, bridge: BridgeId) -> Result<usize, StoreError> {
        // What was said to whoever had them is not said again.
        self.execute(
            "UPDATE pairing SET answer = NULL, expires_at = min(expires_at, ?2)
             WHERE bridge_id = ?1 AND admitted_at IS NOT NULL",
            params![bridge.to_string(), rows::ms(now)],
        )?;
        self.execute(
            "UPDATE bridge_key SET revoked_at = ?2 WHERE bridge_id = ?1 AND revoked_at IS NULL",
            params![bridge.to_string(), rows::ms(now)],
        )
    }

    /// Keys that were never used go first: their certificate was lost on the way. Those that sign for the next ones stay.
    fn make_room_for_keys(
        &self,
        now: Timestamp,
        bridge: BridgeId,
        old: &PublicKey,
    ) -> Result<bool, StoreError> {
        let others = self.all(
            "SELECT tls_key FROM bridge_key
             WHERE bridge_id = ?1 AND revoked_at IS NULL AND expires_at > ?2 AND signing_key <> ?3
             ORDER BY used_at IS NOT NULL, issued_at, rowid",
            params![bridge.to_string(), rows::ms(now), old.as_bytes()],
            |row| row.get::<_, Vec<u8>>(0),
        )?;
        // With these stay the old keys and come the new ones.
        let surplus = others.len().saturating_sub(PAIRS_OF_KEYS - 2);
        for tls_key in &others[..surplus] {
            self.execute(
                "UPDATE bridge_key SET revoked_at = ?2 WHERE tls_key = ?1",
                params![tls_key, rows::ms(now)],
            )?;
        }
        Ok(surplus > 0)
    }

    /// How many orders a bridge may know of whose end is not known.
    fn unfinished(&self, bridge: BridgeId) -> Result<u32, StoreError> {
        let count = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM bridge_order
                 WHERE bridge_id = ?1 AND what = 'job' AND handed = 1 AND over_at IS NULL",
            )?
            .query_row([bridge.to_string()], |row| row.get(0))?;
        Ok(count)
    }

    /// Other hardware takes a bridge's place, and begins with what is known here of the doors. An empty memory that says hello
    /// next is not the one that was given what was handed out.
    ///
    /// # Errors
    /// Those of the database.
    pub fn replace_hardware(
        &mut self,
        bridge: BridgeId,
        ledger_is_current: bool,
    ) -> Result<LedgerCopy, StoreError> {
        self.expect_memory(bridge, true)?;
        self.ledger_copy(bridge, ledger_is_current)
    }

    /// A person's word that the copy is current does not stand against orders whose end is not known.
    fn ledger_copy(&self, bridge: BridgeId, is_current: bool) -> Result<LedgerCopy, StoreError> {
        let unfinished = self.unfinished(bridge)?;
        if is_current && unfinished > 0 {
            tracing::warn!(
                %bridge, unfinished,
                "the ledger's copy was called current, and yet orders are open: no room's state counts as certain"
            );
        }
        let is_current = is_current && unfinished == 0;
        let rooms = self.all(
            "SELECT * FROM door_ledger WHERE bridge_id = ?1 ORDER BY system, room",
            [bridge.to_string()],
            |row| {
                Ok(RoomState {
                    system: rows::parsed::<SystemName>(row, "system")?,
                    room: rows::parsed::<DoorName>(row, "room")?,
                    reservation_key: match row.get::<_, Option<String>>("reservation_key")? {
                        Some(_) => Some(rows::parsed::<ReservationKey>(row, "reservation_key")?),
                        None => None,
                    },
                    certain: row.get::<_, bool>("certain")? && is_current,
                    since: rows::time(row, "since")?,
                    cards: row.get("cards")?,
                    printed_ends: rows::json(row, "printed_ends")?,
                })
            },
        )?;
        Ok(LedgerCopy { is_current, rooms })
    }
}

fn answer_place(pairing: &str) -> String {
    format!("pairing.answer/{pairing}")
}

pub(super) fn secret_place(key_id: &str) -> String {
    format!("cloud_key.secret/{key_id}")
}
