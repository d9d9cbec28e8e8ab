//! The cloud's side of the socket.

mod keys;
mod webhooks;

use std::{path::Path, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{
    AdminError, BridgeLine, BridgeState, Invited, LONGEST_NAME, LONGEST_REQUEST, PairingLine, PairingState,
    Request, Response, SigningKeyLine, VERSION,
};
use crate::{
    cloud::{
        Signals,
        enrol::Code,
        store::{Acceptance, BridgeRow, Db, Invitation, NotAnswered, NotInvited, NotRetired, PairingRow},
    },
    link::wire::shown,
    local::{self, Heard, Line, NotBound, NotUnderstood, PATIENCE, Socket},
    model::{BridgeId, WorkspaceId},
    protocol::{SigningKey, enrol::CloudCard},
    seams::{Clock, Random},
    store::{StoreError, WriterHandle},
};

/// How long an answer waits for a change.
const HELD_FOR: Duration = Duration::from_secs(8);
/// For how long a code may count.
const VALIDITY: std::ops::RangeInclusive<u32> = 60..=24 * 3600;

/// What answers questions.
#[derive(Debug)]
pub struct Desk {
    /// The database.
    pub db: WriterHandle<Db>,
    /// Tells hub and held requests what changed.
    pub signals: Signals,
    /// Judges what is over.
    pub clock: Clock,
    /// For codes.
    pub random: Random,
    /// The first workspace: the one that is meant where none is named.
    pub workspace: WorkspaceId,
    /// Our own authority's certificate, PEM, where the bridges' listener shows one of its certificates.
    pub authority: Option<String>,
    /// Where bridges find the cloud.
    pub url: String,
}

/// Binds the socket; what is returned serves it until `stop` turns true.
///
/// # Errors
/// When it cannot be made.
pub async fn serve(
    path: &Path,
    desk: Desk,
    mut stop: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + use<>, AdminError> {
    let socket = Socket::bind(path, 0o600).await.map_err(|error| match error {
        NotBound::Failed(source) => AdminError::Bind { path: path.into(), source },
        NotBound::Occupied | NotBound::NotASocket => AdminError::Occupied { path: path.into() },
    })?;
    let desk = Arc::new(desk);
    Ok(async move {
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let converse = move |client| {
            let desk = Arc::clone(&desk);
            async move { converse(client, &desk).await }
        };
        socket.serve(converse, stopped).await;
    })
}

async fn converse(mut client: UnixStream, desk: &Desk) {
    let (read, mut write) = client.split();
    let mut read = BufReader::new(read);
    loop {
        let (response, goes_on) = match local::hear(&mut read, LONGEST_REQUEST).await {
            Heard::Nothing => return,
            Heard::TooLong => {
                let message = format!("a question has at most {LONGEST_REQUEST} bytes");
                (Response::refused("request_too_long", message), false)
            }
            Heard::Line(line) => match local::understood(&line, VERSION) {
                Ok(request) => (desk.answer(request).await, true),
                Err(error @ NotUnderstood::Version(_)) => {
                    let message = format!("this cloud speaks version {VERSION}, {error}");
                    (Response::refused("version_unknown", message), false)
                }
                Err(error) => (Response::refused("request_malformed", error), false),
            },
        };
        let written = timeout(PATIENCE, write.write_all(&Line::bytes(VERSION, response))).await;
        if !goes_on || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// A question that was not answered.
enum Fault {
    Refused(Response),
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn refused<T>(code: &str, message: impl ToString) -> Result<T, Fault> {
    Err(Fault::Refused(Response::refused(code, message)))
}

impl Desk {
    async fn answer(&self, request: Request) -> Response {
        match self.answered(request).await {
            Ok(response) | Err(Fault::Refused(response)) => response,
            Err(Fault::Store(error)) => {
                tracing::error!(error = error.chain(), "a question of administration could not be answered");
                Response::refused("unavailable", format!("the cloud's database: {}", error.chain()))
            }
        }
    }

    async fn answered(&self, request: Request) -> Result<Response, Fault> {
        match request {
            Request::Bridges { workspace } => self.bridges(workspace).await,
            request @ Request::Invite { .. } => self.invite(request).await,
            Request::Pairing { pairing, unless } => self.pairing(&pairing, unless).await,
            Request::Answer { pairing, fingerprint, accept, by } => {
                self.answer_pairing(pairing, &fingerprint, accept, name(&by)?).await
            }
            Request::Revoke { bridge_id, why, by } => self.revoke(bridge_id, why, name(&by)?).await,
            Request::Vouch { bridge_id, by } => self.vouch(bridge_id, name(&by)?).await,
            Request::Rename { bridge_id, name: to, by } => {
                self.rename(bridge_id, name(&to)?, name(&by)?).await
            }
            Request::SigningKeys => self.signing_keys().await,
            Request::AddSigningKey { by } => {
                let (now, by) = (self.clock.now(), name(&by)?);
                let key = self.db.run(move |db| db.add_cloud_key(now)).await?;
                tracing::info!(key = %key.public().id(), by, "the cloud has a new signing key");
                self.signals.trust_changed();
                self.signing_keys().await
            }
            Request::RetireSigningKey { key_id, force, by } => self.retire(key_id, force, name(&by)?).await,
            Request::Workspaces => self.workspaces().await,
            Request::AddWorkspace { name: called, by } => self.add_workspace(called, name(&by)?).await,
            Request::ApiKeys => self.api_keys().await,
            Request::AddApiKey { digest, workspace, name: called, by } => {
                self.add_api_key(&digest, workspace, called, name(&by)?).await
            }
            Request::RevokeApiKey { key_id, by } => self.revoke_api_key(key_id, name(&by)?).await,
            Request::Webhooks => self.webhooks().await,
            Request::SetWebhook { webhook_id, enabled, by } => {
                self.set_webhook(webhook_id, enabled, name(&by)?).await
            }
        }
    }

    /// Of one workspace, or of all.
    async fn bridges(&self, workspace: Option<String>) -> Result<Response, Fault> {
        let only = match workspace {
            None => None,
            Some(wanted) => Some(self.find_workspace(&wanted).await?),
        };
        let now = self.clock.now();
        let read = self.db.run(move |db| {
            let (mut bridges, mut pairings) = (Vec::new(), Vec::new());
            for workspace in db.workspaces()? {
                if only.is_none_or(|only| only == workspace.id) {
                    let name = &workspace.name;
                    bridges
                        .extend(db.bridges(workspace.id)?.into_iter().map(|row| bridge_line(row, name, now)));
                    pairings.extend(
                        db.pairings(workspace.id)?.into_iter().map(|row| pairing_line(row, name, now)),
                    );
                }
            }
            Ok((bridges, pairings))
        });
        let (bridges, pairings) = read.await?;
        Ok(Response::Bridges { bridges, pairings })
    }

    /// Whose a bridge is; nobody's is taken for one of the first workspace, where it is not found either.
    async fn workspace_of(&self, bridge: BridgeId) -> Result<WorkspaceId, Fault> {
        Ok(self.db.run(move |db| db.house_of(bridge)).await?.unwrap_or(self.workspace))
    }

    async fn invite(&self, request: Request) -> Result<Response, Fault> {
        let Request::Invite {
            name: called,
            replace,
            accept,
            fingerprint,
            valid_seconds,
            ledger_is_current,
            workspace,
            by,
        } = request
        else {
            return refused("request_malformed", "not an invitation");
        };
        if !VALIDITY.contains(&valid_seconds) {
            return refused("validity_invalid", "a code counts for a minute at least and a day at most");
        }
        let acceptance = match (accept, fingerprint) {
            (false, None) => Acceptance::Person,
            (true, None) => Acceptance::Anybody,
            (_, Some(fingerprint)) => match spelt(&fingerprint) {
                Some(fingerprint) => Acceptance::Fingerprint(fingerprint),
                None => {
                    return refused(
                        "fingerprint_invalid",
                        "a fingerprint has sixteen letters and digits, as `latchd pair` shows it",
                    );
                }
            },
        };
        let code = Code::fresh(&self.random);
        let invitation = Invitation {
            code: code.plain(),
            name: called.as_deref().map(name).transpose()?,
            replaces: replace,
            ledger_is_current,
            acceptance,
            valid_for: SignedDuration::from_secs(valid_seconds.into()),
            by: name(&by)?,
        };
        let workspace = match (&workspace, replace) {
            (Some(wanted), _) => self.find_workspace(wanted).await?,
            (None, Some(bridge)) => self.workspace_of(bridge).await?,
            (None, None) => self.workspace,
        };
        let now = self.clock.now();
        let expires_at = now.saturating_add(invitation.valid_for).unwrap_or(Timestamp::MAX);
        let made = invitation.clone();
        let run = self.db.run(move |db| Ok((db.invite(now, workspace, &made)?, db.cloud_keys(now)?)));
        let (pairing, keys) = match run.await? {
            (Ok(pairing), keys) => (pairing, keys),
            (Err(not @ NotInvited::BridgeUnknown(_)), _) => return refused("bridge_unknown", not),
            (Err(not @ NotInvited::TooMany), _) => return refused("too_many_invitations", not),
        };
        let Invitation { by, acceptance, .. } = invitation;
        tracing::info!(
            pairing, by, ?replace, ?acceptance, ledger_is_current, until = %expires_at, "a bridge was invited"
        );
        let cloud_keys = keys.iter().map(SigningKey::public).collect();
        let card = CloudCard { cloud_keys, authority: self.authority.clone(), time: now };
        Ok(Response::Invited(Box::new(Invited {
            pairing,
            code: code.shown(),
            expires_at,
            cloud_fingerprint: card.fingerprint(),
            url: self.url.clone(),
        })))
    }

    async fn pairing(&self, pairing: &str, unless: Option<PairingState>) -> Result<Response, Fault> {
        let until = Instant::now() + HELD_FOR;
        loop {
            let mut changes = self.signals.pairing_changes();
            let (wanted, now) = (pairing.to_owned(), self.clock.now());
            let found = self.db.run(move |db| {
                for workspace in db.workspaces()? {
                    let known = db.pairings(workspace.id)?.into_iter().find(|row| row.pairing == wanted);
                    if let Some(row) = known {
                        return Ok(Some(pairing_line(row, &workspace.name, now)));
                    }
                }
                Ok(None)
            });
            let Some(line) = found.await? else {
                return refused("pairing_unknown", "there is no invitation of this name, or it is long over");
            };
            let news = unless != Some(line.state);
            if news || timeout_at(until, changes.changed()).await.is_err() {
                return Ok(Response::Pairing(Box::new(line)));
            }
        }
    }

    async fn answer_pairing(
        &self,
        pairing: String,
        fingerprint: &str,
        accept: bool,
        by: String,
    ) -> Result<Response, Fault> {
        // One that is none is nobody's.
        let fingerprint = spelt(fingerprint).unwrap_or_default();
        let (now, of, who, shown) = (self.clock.now(), pairing.clone(), by.clone(), fingerprint.clone());
        let answered = self.db.run(move |db| db.answer_pairing(now, &of, &shown, accept, &who)).await?;
        match answered {
            Ok(()) => {}
            Err(not @ NotAnswered::NotWaiting) => return refused("not_waiting", not),
            Err(not @ NotAnswered::OtherFingerprint(_)) => return refused("other_fingerprint", not),
        }
        tracing::info!(pairing, fingerprint, accept, by, "a pairing was answered");
        self.signals.pairings_changed();
        Ok(Response::Done)
    }

    async fn revoke(&self, bridge: BridgeId, why: Option<String>, by: String) -> Result<Response, Fault> {
        let (now, workspace) = (self.clock.now(), self.workspace_of(bridge).await?);
        let Some(revoked) = self.db.run(move |db| db.revoke_bridge(now, workspace, bridge)).await? else {
            return refused(
                "bridge_unknown",
                format!("there is no bridge {bridge}, or it is revoked already"),
            );
        };
        self.signals.trust_changed();
        self.signals.state_changed();
        let (withdrawn, open) = (revoked.withdrawn, revoked.open);
        let why = why.as_deref().map(shown).unwrap_or_default();
        tracing::warn!(%bridge, by, why, withdrawn, open, "a bridge was revoked");
        Ok(Response::Revoked { withdrawn, open })
    }

    async fn vouch(&self, bridge: BridgeId, by: String) -> Result<Response, Fault> {
        let workspace = self.workspace_of(bridge).await?;
        if !self.db.run(move |db| db.vouch(workspace, bridge)).await? {
            let message =
                format!("nobody has to vouch for a bridge {bridge}: see `latchd cloud bridges list`");
            return refused("not_unvouched", message);
        }
        tracing::warn!(%bridge, by, "a person vouches for a bridge: its keys count again");
        self.signals.state_changed();
        Ok(Response::Done)
    }

    async fn rename(&self, bridge: BridgeId, to: String, by: String) -> Result<Response, Fault> {
        let (workspace, called) = (self.workspace_of(bridge).await?, to.clone());
        if !self.db.run(move |db| db.rename_bridge(workspace, bridge, &called)).await? {
            return refused("bridge_unknown", format!("there is no bridge {bridge}"));
        }
        tracing::info!(%bridge, name = to, by, "a bridge was renamed");
        Ok(Response::Done)
    }

    async fn signing_keys(&self) -> Result<Response, Fault> {
        let now = self.clock.now();
        let run = self.db.run(move |db| {
            // The first of all is made where there is none.
            db.cloud_keys(now)?;
            let mut bridges = Vec::new();
            for workspace in db.workspaces()? {
                bridges.extend(db.bridges(workspace.id)?);
            }
            Ok((db.cloud_key_rows()?, bridges))
        });
        let (keys, bridges) = run.await?;
        let line = |key: crate::cloud::store::CloudKeyRow| {
            let knows = |bridge: &&BridgeRow| {
                bridge.cloud_key.as_deref() == Some(key.key_id.as_str()) && bridge.revoked_at.is_none()
            };
            let bridges = u32::try_from(bridges.iter().filter(knows).count()).unwrap_or(u32::MAX);
            let (created_at, retired_at) = (key.created_at, key.retired_at);
            SigningKeyLine { created_at, retired_at, bridges, key_id: key.key_id }
        };
        Ok(Response::SigningKeys { keys: keys.into_iter().map(line).collect() })
    }

    async fn retire(&self, key_id: String, force: bool, by: String) -> Result<Response, Fault> {
        let (now, key) = (self.clock.now(), key_id.clone());
        match self.db.run(move |db| db.retire_cloud_key(now, &key, force)).await? {
            Ok(()) => {}
            Err(not @ NotRetired::Unknown) => return refused("key_unknown", not),
            Err(not @ NotRetired::Newest) => return refused("key_newest", not),
            Err(not @ NotRetired::StillNeeded(_)) => {
                return refused("key_needed", format!("{not}; --force leaves them behind"));
            }
        }
        tracing::warn!(key = shown(&key_id), force, by, "a signing key of the cloud was retired");
        self.signals.trust_changed();
        Ok(Response::Done)
    }
}

/// A name of a person or a bridge, as it may stand in a list and in the log.
fn name(text: &str) -> Result<String, Fault> {
    let text = text.trim();
    let is_one = (1..=LONGEST_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    match is_one {
        true => Ok(text.into()),
        false => refused("name_invalid", format!("a name has 1 to {LONGEST_NAME} printable characters")),
    }
}

/// A fingerprint as it is shown, from what a person typed.
fn spelt(typed: &str) -> Option<String> {
    let letters: String = typed.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let letters = letters.to_ascii_uppercase().replace('O', "0").replace(['I', 'L'], "1");
    let is_one = letters.len() == 16 && letters.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_one.then(|| [&letters[..4], &letters[4..8], &letters[8..12], &letters[12..]].join("-"))
}

fn bridge_line(row: BridgeRow, workspace: &str, now: Timestamp) -> BridgeLine {
    let state = match (row.revoked_at, row.certificate_ends) {
        (Some(_), _) => BridgeState::Revoked,
        _ if row.unvouched_at.is_some() => BridgeState::Unvouched,
        _ if row.connected => BridgeState::Connected,
        (None, None) => BridgeState::NotPaired,
        (None, Some(ends)) if ends <= now => BridgeState::CertificateEnded,
        (None, Some(_)) => BridgeState::Away,
    };
    BridgeLine {
        workspace: workspace.to_owned(),
        bridge_id: row.bridge,
        name: row.name,
        state,
        seen_at: row.seen_at,
        certificate_ends: row.certificate_ends,
        cloud_key: row.cloud_key,
    }
}

fn pairing_line(row: PairingRow, workspace: &str, now: Timestamp) -> PairingLine {
    let ended = row.expires_at <= now;
    let state = match (row.admitted, row.accepted, row.asker.is_some()) {
        (true, _, _) => PairingState::Paired,
        (false, Some(false), _) => PairingState::Declined,
        _ if ended => PairingState::Ended,
        (false, Some(true), true) => PairingState::Accepted,
        (false, None, true) => PairingState::Asks,
        (false, _, false) => PairingState::Open,
    };
    let (fingerprint, from, agent) = match row.asker {
        Some((fingerprint, from, agent)) => (Some(fingerprint), Some(from), Some(agent)),
        None => (None, None, None),
    };
    PairingLine {
        workspace: workspace.to_owned(),
        pairing: row.pairing,
        state,
        name: row.name,
        bridge_id: row.bridge,
        expires_at: row.expires_at,
        fingerprint,
        from,
        agent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_people_type_it() {
        let shown = "AB01-CDEF-2345-6789";
        for typed in ["ab01-cdef-2345-6789", "ABO1CDEF23456789", "abol cdef 2345 6789"] {
            assert_eq!(spelt(typed).as_deref(), Some(shown), "{typed}");
        }
        assert_eq!(spelt("AB01-CDEF-2345-678"), None);
        assert_eq!(spelt("ÄB01-CDEF-2345-678"), None);
    }
}
