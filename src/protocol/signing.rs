//! Signatures: who said a frame, to whom, in which conversation, as which one, and until when it counts.
//!
//! TLS protects a conversation from strangers on the way. These signatures protect it from whoever *is* on the way with
//! a certificate: a proxy that inspects TLS, a relay that was stolen. So every frame but [`Frame::Ping`],
//! [`Frame::Pong`] and [`Frame::Refused`] travels inside a packet:
//!
//! ```text
//! {"type":"signed","key_id":"4f1c…","signature":"<base64>","body":"{\"bridge_id\":…,\"session\":…,\"seq\":3,\"expires_at\":…,\"frame\":{…}}"}
//! ```
//!
//! The signature (Ed25519, RFC 8032) covers a word for the direction and then the exact bytes of `body` in UTF-8, never a
//! re-serialisation:
//!
//! | said by | word |
//! | --- | --- |
//! | the bridge | `latchd v1 bridge to cloud` and a zero byte |
//! | the cloud | `latchd v1 cloud to bridge` and a zero byte |
//!
//! A signature is 64 bytes, a public key 32, a session 16; on the wire each is base64 (RFC 4648, 4, with padding). A key
//! is named by the first eight bytes of the SHA-256 of its public half, in hexadecimal digits. What a body names beside
//! its frame:
//!
//! | field | against |
//! | --- | --- |
//! | `bridge_id` | a message meant for another bridge |
//! | `session` | a message of another conversation, an earlier one for example |
//! | `seq` | one that was left out, repeated or moved: counts from 1 without gaps, each direction for itself |
//! | `expires_at` | one that was held back |
//!
//! A receiver looks at them in this order, and each has a name if it is wrong: is the key one that speaks for the other
//! side (`key_unknown`), does the signature fit (`signature_invalid`), is the body of this language
//! (`frame_malformed`), is it for this bridge and this session and not a repetition (`message_replayed`), is nothing
//! missing before it (`message_missing`), does it still count (`message_expired`). A frame that has to be signed and is
//! not is `signature_missing`. A sender lets a frame count for [`COUNTS_FOR`].
//!
//! # A session
//! The cloud's answer to the websocket request carries a fresh nonce in [`NONCE_HEADER`]. It is the `session` of the
//! bridge's [`Hello`](super::Hello). From then on, both ways, the session is the first half of the SHA-256 of the
//! hello's body: which holds the cloud's nonce and one of the bridge's own, so neither side ever takes part in the same
//! session twice. `seq` is 1 in the hello, and begins with 1 again in the session that follows from it. Hello and welcome
//! do not expire: before the welcome the bridge does not know what time it is.
//!
//! A peer may say nothing for a long time, and somebody on the way may make it seem so by letting nothing but pings
//! through. So each side signs a [`Frame::Beacon`] when it has signed nothing for [`BEACON_AFTER`], and gives a
//! conversation up in which nothing signed arrived for [`WITHHELD_AFTER`].
//!
//! # Which keys
//! A bridge has one signing key, which the cloud learned when it took the bridge in. Several keys may speak for the
//! cloud. Hello names those that the bridge knows (`cloud_keys`); the cloud signs with the newest of them, and says
//! `key_unknown` where there is none. The welcome lists all that speak for it from then on: what it does not list does
//! so no more.
//!
//! # An example
//! The first two messages of `tests/golden/v1/conversation.json`, with the keys of `keys.json`.
//!
//! ```text
//! bridge's seed   0101010101010101010101010101010101010101010101010101010101010101
//! bridge's key    iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=
//! its id          34750f98bd59fcfc
//! cloud's seed    0202020202020202020202020202020202020202020202020202020202020202
//! cloud's key     gTl3Dqh9F19Wo1Rmw0x+zMuNipG07jeiXfYPW4/Js5Q=
//! its id          6a3803d5f059902a
//! latchd-nonce    EBESExQVFhcYGRobHB0eHw==
//! hello's body    {"bridge_id":"0192f0c1-2f4e-7a31-9c55-3d1f6a7b0001","session":"EBESExQVFhcYGRobHB0eHw==","seq":1,"frame":{"type":"hello","versions":[2,1],"agent":"latchd 1.0.0","orders_received":{"epoch":3,"n":14},"reports_sent":{"epoch":2,"n":9},"reports_acknowledged":{"epoch":2,"n":7},"orders_limit":78,"nonce":"AAECAwQFBgcICQoLDA0ODw==","cloud_keys":["6a3803d5f059902a","c5b940ed3f65c391"]}}
//! its signature   YWXIu/aP7lo+nUwtpZhNcPQ9eB8GWyoaDAY+tTz7y+zn/01U8ZZcxHcs9teabpIjgu3N/MS18yOfmM5maIPtAQ==
//! session         dErorsHDWEm1Af4F1vTskA==
//! welcome's body  {"bridge_id":"0192f0c1-2f4e-7a31-9c55-3d1f6a7b0001","session":"dErorsHDWEm1Af4F1vTskA==","seq":1,"frame":{"type":"welcome","version":1,"bridge_id":"0192f0c1-2f4e-7a31-9c55-3d1f6a7b0001","workspace":"Seaview Hotels","time":"2026-11-22T12:00:00.123456789Z","orders_resume_after":{"epoch":4,"n":0},"reports_received":{"epoch":2,"n":8},"reports_limit":72,"orders_epoch_reason":"receiver_behind","cloud_keys":["gTl3Dqh9F19Wo1Rmw0x+zMuNipG07jeiXfYPW4/Js5Q=","ypOsFwUYcHHWe4PH/w7+gQjo7EUwV113JoeTM9vavnw="]}}
//! its signature   8OeIqEAtNdEHoRiVP0zmRU2a4Utn6BMm+zIX/sitX0z3lhvD8TSJZNrenLkeU6Ac8/8BgtnQgod/pHF3j20AAQ==
//! ```

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use ring::{
    digest,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Frame, RefusedCode, schema};
use crate::{model::BridgeId, seams::Random};

/// The header of the websocket's answer that holds the cloud's nonce: 16 bytes, base64.
pub const NONCE_HEADER: &str = "latchd-nonce";
/// How long a signed frame counts.
pub const COUNTS_FOR: Duration = Duration::from_secs(600);
/// A side that has signed nothing for so long signs a [`Frame::Beacon`].
pub const BEACON_AFTER: Duration = Duration::from_secs(60);
/// A side that got nothing signed for so long takes it that something on the way keeps it back.
pub const WITHHELD_AFTER: Duration = Duration::from_secs(150);

/// The form of a signature.
pub(super) const SIGNATURE: &str = "^[A-Za-z0-9+/]{85}[AQgw]==$";

/// One of the two ends of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The agent at a site.
    Bridge,
    /// The cloud.
    Cloud,
}

impl Party {
    /// What its signatures begin with, so that no signature of one side, and none made for another purpose, is ever one
    /// of the other's.
    fn domain(self) -> &'static [u8] {
        match self {
            Self::Bridge => b"latchd v1 bridge to cloud\0",
            Self::Cloud => b"latchd v1 cloud to bridge\0",
        }
    }
}

/// Names a key: the first eight bytes of the SHA-256 of its public half, as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl JsonSchema for KeyId {
    fn schema_name() -> Cow<'static, str> {
        "KeyId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The name of a key: the first eight bytes of the SHA-256 of its public half, as hexadecimal digits.",
            "type": "string",
            "pattern": "^[0-9a-f]{16}$",
        })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The public half of an Ed25519 key; 32 bytes, base64 on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// A key from its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = digest::digest(&digest::SHA256, &self.0);
        KeyId(digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether a signature over `domain` and `bytes` is this key's. `domain` ends where no other can go on, with a zero
    /// byte for example.
    #[must_use]
    pub fn verifies(&self, domain: &[u8], bytes: &[u8], signature: &[u8]) -> bool {
        let signed = [domain, bytes].concat();
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&signed, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        STANDARD.encode(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| de::Error::custom("a public key is 32 bytes in base64"))
    }
}

impl JsonSchema for PublicKey {
    fn schema_name() -> Cow<'static, str> {
        "PublicKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The public half of an Ed25519 key: 32 bytes, base64.",
            "type": "string",
            "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$",
        })
    }
}

/// A key that signs. Shows nothing of itself but its name; cheap to clone.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Ed25519KeyPair>,
    public: PublicKey,
}

impl SigningKey {
    /// A key from its 32 secret bytes (RFC 8032's private key).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a private key");
        let public = pair.public_key().as_ref().try_into().expect("a public key has 32 bytes");
        Self { pair: Arc::new(pair), public: PublicKey(public) }
    }

    /// A new key and its secret bytes, to be kept where only their owner reads.
    #[must_use]
    pub fn generate(random: &Random) -> (Self, zeroize::Zeroizing<[u8; 32]>) {
        let seed = zeroize::Zeroizing::new(random.bytes::<32>());
        (Self::from_seed(&seed), seed)
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs `domain` and then `bytes`.
    #[must_use]
    pub fn sign(&self, domain: &[u8], bytes: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(&[domain, bytes].concat());
        signature.as_ref().try_into().expect("a signature has 64 bytes")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id())
    }
}

/// A conversation; 16 bytes, base64 on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session([u8; 16]);

impl Session {
    /// A nonce, which stands for the session that it asks for.
    #[must_use]
    pub fn fresh(random: &Random) -> Self {
        Self(random.bytes())
    }

    /// The session that begins with a hello of this body.
    #[must_use]
    pub fn of_hello(body: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, body.as_bytes());
        Self(digest.as_ref()[..16].try_into().expect("a SHA-256 digest has 32 bytes"))
    }

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        Some(Self(STANDARD.decode(text).ok()?.try_into().ok()?))
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({self})")
    }
}

impl Serialize for Session {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Session {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).ok_or_else(|| de::Error::custom("a session is 16 bytes in base64"))
    }
}

impl JsonSchema for Session {
    fn schema_name() -> Cow<'static, str> {
        "Session".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A conversation, or the nonce that asks for one: 16 bytes, base64.",
            "type": "string",
            "pattern": "^[A-Za-z0-9+/]{21}[AQgw]==$",
        })
    }
}

/// What travels: a body, who signed it, and the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packet {
    /// Which key signed.
    pub key_id: KeyId,
    /// The detached signature: 64 bytes, base64.
    #[schemars(regex(pattern = SIGNATURE))]
    pub signature: String,
    /// The JSON text of a [`Statement`]; the exact bytes that the signature covers.
    #[schemars(transform = schema::text_of::<Statement>)]
    pub body: String,
}

/// What is signed: a frame and what it counts for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Statement {
    /// Of which bridge, or to which.
    pub bridge_id: BridgeId,
    /// In which conversation.
    pub session: Session,
    /// The how-manieth of its direction, from 1.
    #[schemars(range(min = 1))]
    pub seq: u64,
    /// Until when it counts, by the cloud's time; absent in hello and welcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What is said.
    pub frame: Frame,
}

/// Why a packet does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// A frame that has to be signed came as it is.
    #[error("a frame that must be signed is not: {0}")]
    Unsigned(&'static str),
    /// By a key that does not speak for the peer (any more).
    #[error("signed by key {0}, which does not speak for the other side")]
    KeyUnknown(KeyId),
    /// The signature does not fit the bytes.
    #[error("the signature does not fit: the message was altered on the way, or is not of the key it names")]
    Altered,
    /// It is signed, and yet no statement.
    #[error("a signed body that is not of this language: {0}")]
    Malformed(String),
    /// Meant for, or said by, another bridge.
    #[error("meant for another bridge ({0})")]
    Misdirected(BridgeId),
    /// Of another conversation.
    #[error("a message of another conversation: it was recorded and is sent again")]
    OtherSession,
    /// Something before it is missing.
    #[error("message {found} where {expected} was due: something was left out on the way")]
    Gap {
        /// What was due.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// It came before.
    #[error("message {found} again, where {expected} was due: it was sent twice on the way")]
    Repeated {
        /// What was due.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// It was held back.
    #[error(
        "a message that counted until {expires_at} arrived at {now}: it was held back on the way, or a clock is wrong"
    )]
    Expired {
        /// Until when it counted.
        expires_at: Timestamp,
        /// When it came, by the cloud's time.
        now: Timestamp,
    },
    /// It does not say until when it counts.
    #[error("a message that does not say until when it counts")]
    Endless,
}

impl Distrust {
    /// What the peer is told, if it is the peer that hears it.
    #[must_use]
    pub fn code(&self) -> RefusedCode {
        match self {
            Self::Unsigned(_) => RefusedCode::SignatureMissing,
            Self::KeyUnknown(_) => RefusedCode::KeyUnknown,
            Self::Altered => RefusedCode::SignatureInvalid,
            Self::Malformed(_) | Self::Endless => RefusedCode::FrameMalformed,
            Self::Misdirected(_) | Self::OtherSession | Self::Repeated { .. } => RefusedCode::MessageReplayed,
            Self::Gap { .. } => RefusedCode::MessageMissing,
            Self::Expired { .. } => RefusedCode::MessageExpired,
        }
    }
}

/// The words of one side, as it signs them.
#[derive(Debug, Clone)]
pub struct Speaker {
    party: Party,
    key: SigningKey,
    bridge_id: BridgeId,
    session: Session,
    seq: u64,
}

impl Speaker {
    /// One that has said nothing yet.
    #[must_use]
    pub fn new(party: Party, key: SigningKey, bridge_id: BridgeId, session: Session) -> Self {
        Self { party, key, bridge_id, session, seq: 0 }
    }

    /// Signs the next frame.
    pub fn say(&mut self, frame: Frame, expires_at: Option<Timestamp>) -> Packet {
        self.seq += 1;
        let statement =
            Statement { bridge_id: self.bridge_id, session: self.session, seq: self.seq, expires_at, frame };
        let body = serde_json::to_string(&statement).expect("a statement has string keys only");
        let signature = self.key.sign(self.party.domain(), body.as_bytes());
        Packet { key_id: self.key.public().id(), signature: STANDARD.encode(signature), body }
    }
}

/// Hears the words of one side, and believes only those that are signed, and next.
#[derive(Debug)]
pub struct Listener {
    party: Party,
    keys: Vec<(KeyId, PublicKey)>,
    bridge_id: BridgeId,
    session: Session,
    seq: u64,
}

impl Listener {
    /// Hears `party`, for whom these keys speak.
    #[must_use]
    pub fn new(
        party: Party,
        keys: impl IntoIterator<Item = PublicKey>,
        bridge_id: BridgeId,
        session: Session,
    ) -> Self {
        let keys = keys.into_iter().map(|key| (key.id(), key)).collect();
        Self { party, keys, bridge_id, session, seq: 0 }
    }

    /// Opens the next packet. `now` is the cloud's time.
    ///
    /// # Errors
    /// Why it does not count. The conversation is over then: what follows would leave a gap.
    pub fn hear(&mut self, packet: &Packet, now: Timestamp) -> Result<Frame, Distrust> {
        let known = self.keys.iter().find(|(id, _)| *id == packet.key_id);
        let (_, key) = known.ok_or_else(|| Distrust::KeyUnknown(packet.key_id.clone()))?;
        let signature = STANDARD.decode(&packet.signature).map_err(|_| Distrust::Altered)?;
        if !key.verifies(self.party.domain(), packet.body.as_bytes(), &signature) {
            return Err(Distrust::Altered);
        }
        let statement: Statement = serde_json::from_str(&packet.body)
            .map_err(|error| Distrust::Malformed(super::place(&packet.body, &error)))?;
        let expected = self.seq + 1;
        let found = statement.seq;
        if statement.bridge_id != self.bridge_id {
            return Err(Distrust::Misdirected(statement.bridge_id));
        }
        if statement.session != self.session {
            return Err(Distrust::OtherSession);
        }
        match found.cmp(&expected) {
            std::cmp::Ordering::Less => return Err(Distrust::Repeated { expected, found }),
            std::cmp::Ordering::Greater => return Err(Distrust::Gap { expected, found }),
            std::cmp::Ordering::Equal => {}
        }
        let begins = matches!(statement.frame, Frame::Hello(_) | Frame::Welcome(_));
        match statement.expires_at {
            None if !begins => return Err(Distrust::Endless),
            Some(expires_at) if expires_at < now => return Err(Distrust::Expired { expires_at, now }),
            _ => {}
        }
        self.seq = expected;
        Ok(statement.frame)
    }
}

#[cfg(test)]
mod tests;
