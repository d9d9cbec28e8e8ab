//! Local administration of a running cloud: who may be a bridge, and which keys speak for the cloud.
//!
//! A socket of mode 0600 in the storage folder, in the manner of [`crate::local`]: whoever may read the database may
//! administer it.
//!
//! ```text
//! {"latchd":1,"request":"bridges"}
//! {"latchd":1,"response":"bridges","bridges":[…],"pairings":[…]}
//! ```

mod client;
mod desk;

use std::{io, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{BridgeId, WebhookId, WorkspaceId};

pub use client::ask;
pub use desk::{Desk, serve};

/// The version of this language.
pub const VERSION: u16 = 1;
/// The socket's name in the storage folder.
pub const SOCKET: &str = "admin.sock";
/// The longest line a client may send.
const LONGEST_REQUEST: usize = 16 * 1024;
/// The longest line a client reads: some thousand bridges.
const LONGEST_RESPONSE: usize = 4 * 1024 * 1024;
/// The longest name of a bridge or a person, in characters.
pub const LONGEST_NAME: usize = 64;

/// What a client may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Which bridges are there, and who was invited?
    Bridges {
        /// Of which workspace, by name or id; without one, of all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workspace: Option<String>,
    },
    /// A person invites a bridge.
    Invite {
        /// What people will call it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The bridge whose place it takes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replace: Option<BridgeId>,
        /// Whoever asks first with the code is taken in, without a question.
        #[serde(default)]
        accept: bool,
        /// Only keys of this fingerprint are taken in, without a question.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
        /// For how many seconds the code counts.
        valid_seconds: u32,
        /// The person vouches that the replaced bridge did nothing that the cloud does not know.
        #[serde(default)]
        ledger_is_current: bool,
        /// Into which workspace, by name or id; without one, into that of the bridge which is replaced, or the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workspace: Option<String>,
        /// Who invites.
        by: String,
    },
    /// How does an invitation stand? Answered when it no longer stands as in `unless`, or after some seconds.
    Pairing {
        /// Which.
        pairing: String,
        /// What the client knows already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unless: Option<PairingState>,
    },
    /// A person answers whoever asks to be paired.
    Answer {
        /// Which invitation.
        pairing: String,
        /// The fingerprint that the person compared.
        fingerprint: String,
        /// Yes or no.
        accept: bool,
        /// Who.
        by: String,
    },
    /// A person revokes a bridge.
    Revoke {
        /// Which.
        bridge_id: BridgeId,
        /// Why, for the log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// Who.
        by: String,
    },
    /// A person says that a bridge was not revoked, where a restore has left that open.
    Vouch {
        /// Which.
        bridge_id: BridgeId,
        /// Who.
        by: String,
    },
    /// A person gives a bridge another name.
    Rename {
        /// Which.
        bridge_id: BridgeId,
        /// The name.
        name: String,
        /// Who.
        by: String,
    },
    /// Which keys speak for the cloud?
    SigningKeys,
    /// A person makes another key.
    AddSigningKey {
        /// Who.
        by: String,
    },
    /// A person lets a key speak for the cloud no more.
    RetireSigningKey {
        /// Which.
        key_id: String,
        /// Even where bridges know no newer one.
        #[serde(default)]
        force: bool,
        /// Who.
        by: String,
    },
    /// Which workspaces are there?
    Workspaces,
    /// A person makes another workspace.
    AddWorkspace {
        /// What people will call it.
        name: String,
        /// Who.
        by: String,
    },
    /// Which API keys are there?
    ApiKeys,
    /// A person lets another API key count, of which the cloud is told no more than this.
    AddApiKey {
        /// Its SHA-256, in hexadecimal digits.
        digest: String,
        /// For which workspace, by name or id; without one, for the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workspace: Option<String>,
        /// What it is for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Who.
        by: String,
    },
    /// A person lets an API key count no more.
    RevokeApiKey {
        /// Which.
        key_id: String,
        /// Who.
        by: String,
    },
    /// Whom are events delivered to?
    Webhooks,
    /// A person lets deliveries go on, or stop.
    SetWebhook {
        /// Which.
        webhook_id: WebhookId,
        /// On, or stop.
        enabled: bool,
        /// Who.
        by: String,
    },
}

/// What the cloud answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Bridges`].
    Bridges {
        /// Oldest first.
        bridges: Vec<BridgeLine>,
        /// Invitations that are not long over, oldest first.
        pairings: Vec<PairingLine>,
    },
    /// To [`Request::Invite`]. The code is told here and nowhere else.
    Invited(Box<Invited>),
    /// To [`Request::Pairing`].
    Pairing(Box<PairingLine>),
    /// To what changes something: it is durable.
    Done,
    /// To [`Request::Revoke`]: the bridge is cut off, and cannot come back.
    Revoked {
        /// Orders that it never heard of and never will.
        withdrawn: u32,
        /// Orders whose end only it could tell.
        open: u32,
    },
    /// To [`Request::SigningKeys`] and [`Request::AddSigningKey`], newest first.
    SigningKeys {
        /// The keys.
        keys: Vec<SigningKeyLine>,
    },
    /// To [`Request::Workspaces`] and [`Request::AddWorkspace`], oldest first.
    Workspaces {
        /// The workspaces.
        workspaces: Vec<WorkspaceLine>,
    },
    /// To [`Request::ApiKeys`] and what changes them, oldest first.
    ApiKeys {
        /// The keys.
        keys: Vec<ApiKeyLine>,
    },
    /// To [`Request::Webhooks`] and what changes them, oldest first.
    Webhooks {
        /// The webhooks.
        webhooks: Vec<WebhookLine>,
    },
    /// The question could not be answered, or what was wanted not be done.
    Refused {
        /// The stable name: `bridge_unknown`, `not_unvouched`, `too_many_invitations`, `pairing_unknown`, `not_waiting`,
        /// `other_fingerprint`, `workspace_exists`, `workspace_unknown`, `api_key_unknown`, `digest_invalid`, `key_unknown`, `webhook_unknown`,
        /// `key_newest`, `key_needed`, `name_invalid`, `fingerprint_invalid`,
        /// `validity_invalid`, `version_unknown`, `request_malformed`, `request_too_long`, `unavailable`.
        code: String,
        /// For a person.
        message: String,
    },
}

impl Response {
    fn refused(code: &str, message: impl ToString) -> Self {
        Self::Refused { code: code.into(), message: message.to_string() }
    }
}

/// An invitation that was made just now.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// Its name.
    pub pairing: String,
    /// The code, as people read it.
    pub code: String,
    /// Until when it counts.
    pub expires_at: Timestamp,
    /// The cloud's fingerprint, to be compared at the site.
    pub cloud_fingerprint: String,
    /// Where the site finds the cloud.
    pub url: String,
}

impl std::fmt::Debug for Invited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invited").field("pairing", &self.pairing).finish_non_exhaustive()
    }
}

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeLine {
    /// Which.
    pub bridge_id: BridgeId,
    /// What people call its workspace.
    #[serde(default)]
    pub workspace: String,
    /// What people call it.
    pub name: Option<String>,
    /// How it stands.
    pub state: BridgeState,
    /// When it was last heard of.
    pub seen_at: Option<Timestamp>,
    /// When its certificate ends.
    pub certificate_ends: Option<Timestamp>,
    /// The newest of the cloud's keys that it is known to know.
    pub cloud_key: Option<String>,
}

/// How a bridge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeState {
    /// It has never been paired.
    NotPaired,
    /// It is paired and speaks with this cloud.
    Connected,
    /// It is paired.
    Away,
    /// Its certificate has ended; it may still renew it, for as long as the cloud's grace lasts.
    CertificateEnded,
    /// It was revoked.
    Revoked,
    /// The cloud was put back from a backup, and nobody has said yet that it was not revoked since.
    Unvouched,
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingLine {
    /// Its name.
    pub pairing: String,
    /// What people call its workspace.
    #[serde(default)]
    pub workspace: String,
    /// How it stands.
    pub state: PairingState,
    /// What the bridge will be called.
    pub name: Option<String>,
    /// The bridge that is replaced or, once it was taken in, the bridge.
    pub bridge_id: Option<BridgeId>,
    /// Until when the code counts.
    pub expires_at: Timestamp,
    /// The fingerprint of who asks.
    pub fingerprint: Option<String>,
    /// From where.
    pub from: Option<String>,
    /// With which program.
    pub agent: Option<String>,
}

/// How an invitation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairingState {
    /// Nobody has asked with its code yet.
    Open,
    /// A site asks: a person has to answer.
    Asks,
    /// A person said yes; the site has to ask once more.
    Accepted,
    /// The bridge was taken in.
    Paired,
    /// A person said no.
    Declined,
    /// The code has ended.
    Ended,
}

/// One of the keys that speak, or spoke, for the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKeyLine {
    /// Its name.
    pub key_id: String,
    /// Since when there is it.
    pub created_at: Timestamp,
    /// Since when it does not count.
    pub retired_at: Option<Timestamp>,
    /// How many bridges are known to know it as the newest.
    pub bridges: u32,
}

/// A workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceLine {
    /// Which.
    pub workspace_id: WorkspaceId,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An API key; never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyLine {
    /// By what it is told: the beginning of its digest.
    pub key_id: String,
    /// Whose it is.
    pub workspace_id: WorkspaceId,
    /// What people call that workspace.
    pub workspace: String,
    /// What the key is for.
    pub name: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it does not count.
    pub revoked_at: Option<Timestamp>,
}

/// Why the socket cannot be served, or a question not be answered.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket cannot be made.
    #[error("make the admin socket {}", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else stands in its place.
    #[error("{} is in the way of the admin socket: move it away", path.display())]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// Nobody listens at the socket.
    #[error("no cloud runs on {}: start it, and ask again", path.parent().unwrap_or(path).display())]
    NoCloud {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file's permissions say no.
    #[error("not allowed to use {}: run this as the user that the cloud runs as, or as root", path.display())]
    Denied {
        /// Where.
        path: PathBuf,
    },
    /// The cloud did not answer in time.
    #[error("the cloud at {} takes a connection but does not answer", path.display())]
    Silent {
        /// Where.
        path: PathBuf,
    },
    /// The conversation broke off.
    #[error("the conversation with {} broke off", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The answer is not of this language.
    #[error("the cloud at {} answers in another language (are both of the same version?)", path.display())]
    Malformed {
        /// Where.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The cloud refused.
    #[error("{message} ({code})")]
    Refused {
        /// The stable name.
        code: String,
        /// For a person.
        message: String,
    },
}

/// A webhook, as its operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookLine {
    /// Which.
    pub webhook_id: WebhookId,
    /// Whose.
    pub workspace_id: WorkspaceId,
    /// Scheme and host of its address.
    pub origin: String,
    /// What it is told of; `*` is everything.
    pub event_types: Vec<String>,
    /// When something was taken last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// Since when tries have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Why the last one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Since when nothing is tried any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_at: Option<Timestamp>,
    /// How many events it is owed, counted up to [`Self::MOST_COUNTED`].
    pub owed: u64,
}

impl WebhookLine {
    /// No more events than this are counted.
    pub const MOST_COUNTED: u64 = super::store::WebhookRow::MOST_COUNTED;
}
