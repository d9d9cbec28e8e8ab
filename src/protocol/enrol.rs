//! How a bridge is taken in, and how its certificate is renewed: three HTTP requests beside the websocket, on the same
//! listener, over TLS in which only the cloud shows a certificate.
//!
//! ```text
//! GET  /bridge/v1/cloud   -> 200 [`CloudCard`]: who answers here, before anything is told to it
//! POST /bridge/v1/pair    [`PairRequest`]  -> 200 [`Answer`] of an [`Admission`] | 202 [`Waiting`]: ask again the same
//! POST /bridge/v1/renew   [`RenewRequest`] -> 200 [`Answer`] of an [`Admission`]
//! ```
//! A refusal is any other status with `{"error":{"type","message"}}`; 429 and 503 name `Retry-After` in seconds. Requests
//! and answers are JSON of at most [`MAX_BODY`] bytes.
//!
//! | status | type | of | means |
//! | --- | --- | --- | --- |
//! | 400 | `request_malformed`, `certificate_request_invalid`, `proof_invalid` | both | what is sent is not what it should be |
//! | 403 | `code_invalid` | pair | the code is wrong, over, or another site's; which of these is not said |
//! | 403 | `pairing_declined` | pair | a person said no |
//! | 403 | `keys_known` | both | the keys were in use before: make new ones |
//! | 403 | `not_paired` | renew | no bridge that is paired has signed this |
//! | 403 | `revoked` | renew | the bridge was revoked or replaced: pair the site again |
//! | 403 | `renewal_too_late` | renew | the cloud's grace has ended: pair the site again |
//! | 413 | `request_too_large` | both | more than [`MAX_BODY`] bytes |
//! | 429 | `rate_limited` | both | too much went wrong, from there or in all |
//! | 503 | `unavailable` | all | the cloud cannot do it at the moment |
//!
//! The same request, sent again, gets the same answer: a pairing's word for word, a renewal's with a certificate that
//! ends when the first one does.
//!
//! # Whom to believe
//! The person who pairs compares two fingerprints: the cloud's, of [`CloudCard::fingerprint`], before the code is sent;
//! the bridge's, of [`Keys::fingerprint`], before the cloud says yes. From then on the answer's signature decides, not
//! TLS: a proxy that inspects TLS can read a code, and still neither take the bridge's place unseen nor put its own keys
//! into the cloud's answer.
//!
//! # Which keys
//! A bridge makes two keys, and new ones for each certificate. The one that signs is Ed25519. The one of the certificate
//! is ECDSA on P-256, its point uncompressed; the request for the certificate is signed with it and SHA-256. Of that
//! request only the key counts: the cloud names the bridge in the certificate as it likes. With the certificate the
//! websocket opens until it ends; a bridge asks for the next one long before that, and the cloud still gives it for a
//! while after.
//!
//! # What keys sign
//! Each signature covers a word of its own and then what is named, so that none can be used for another purpose:
//! [`PairRequest::proof`] and [`RenewRequest::proof`] show that whoever asks has the new signing key; the request for a
//! certificate (PKCS #10) shows the same of the TLS key; [`RenewRequest::old_proof`] shows that the new keys are wanted
//! by whoever has the old one.
//!
//! | signature | word, and a zero byte | then |
//! | --- | --- | --- |
//! | `proof` | `latchd v1 bridge's keys` | the new signing key's 32 bytes, the text of `csr` |
//! | `old_proof` | `latchd v1 renewal` | the same |
//! | [`Answer::signature`] | `latchd v1 admission` | the text of `body` |
//!
//! [`Admission::keys`] is the SHA-256 of the same bytes that `proof` signs, in hexadecimal digits.
//!
//! A fingerprint is the first 80 bits of a SHA-256, in sixteen digits of Crockford's base 32 and four groups. What is
//! digested is a word and a zero byte, and then each part behind its length in eight bytes, the greatest first: for
//! the cloud `latchd v1 cloud's fingerprint`, its newest key's 32 bytes, the text of `authority` (empty where it has
//! none); for the bridge `latchd v1 bridge's fingerprint`, the signing key's 32 bytes, the text of `csr`.
//! `tests/golden/v1/fingerprints.json` holds those of the golden files.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use ring::digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeyId, PublicKey, SigningKey, schema, signing::SIGNATURE};
use crate::model::{BridgeId, RoomState};

/// The path of [`CloudCard`].
pub const CLOUD_PATH: &str = "/bridge/v1/cloud";
/// The path of [`PairRequest`].
pub const PAIR_PATH: &str = "/bridge/v1/pair";
/// The path of [`RenewRequest`].
pub const RENEW_PATH: &str = "/bridge/v1/renew";
/// The largest request a cloud takes, in bytes.
pub const MAX_BODY: usize = 16 * 1024;
/// The largest answer a bridge takes, in bytes: room for the ledger of ten thousand doors.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// How long the cloud may hold a pairing request that waits for a person, before it answers [`Waiting`].
pub const HELD_FOR: std::time::Duration = std::time::Duration::from_secs(20);

const KEYS: &[u8] = b"latchd v1 bridge's keys\0";
const RENEWAL: &[u8] = b"latchd v1 renewal\0";
const ADMISSION: &[u8] = b"latchd v1 admission\0";

/// Who a cloud says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CloudCard {
    /// The keys that speak for it, newest first.
    pub cloud_keys: Vec<PublicKey>,
    /// Its own certificate authority, PEM; absent where its certificate is the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Its time.
    pub time: Timestamp,
}

impl CloudCard {
    /// What a person compares: of the newest key and the authority.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let key = self.cloud_keys.first().map_or(&[][..], |key| key.as_bytes());
        fingerprint(
            b"latchd v1 cloud's fingerprint\0",
            &[key, self.authority.as_deref().unwrap_or("").as_bytes()],
        )
    }
}

/// The public halves of what a bridge made for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Keys {
    /// The request for a certificate of the TLS key: PKCS #10, DER, base64.
    #[schemars(extend("contentEncoding" = "base64", "contentMediaType" = "application/pkcs10"))]
    pub csr: String,
    /// What is going to sign.
    pub signing_key: PublicKey,
}

impl Keys {
    /// What a person compares.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(b"latchd v1 bridge's fingerprint\0", &[self.signing_key.as_bytes(), self.csr.as_bytes()])
    }

    /// The SHA-256 of both, as hexadecimal digits: what an [`Admission`] answers to.
    #[must_use]
    pub fn digest(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Shows that whoever asks has the new signing key.
    #[must_use]
    pub fn proof(&self, key: &SigningKey) -> String {
        STANDARD.encode(key.sign(KEYS, &self.bytes()))
    }

    /// Whether a [`Keys::proof`] is one.
    #[must_use]
    pub fn is_proven(&self, proof: &str) -> bool {
        STANDARD.decode(proof).is_ok_and(|proof| self.signing_key.verifies(KEYS, &self.bytes(), &proof))
    }

    /// Shows that whoever has an old signing key wants these.
    #[must_use]
    pub fn renewal_proof(&self, old: &SigningKey) -> String {
        STANDARD.encode(old.sign(RENEWAL, &self.bytes()))
    }

    /// Whether a [`Keys::renewal_proof`] is one.
    #[must_use]
    pub fn is_wanted(&self, old: &PublicKey, proof: &str) -> bool {
        STANDARD.decode(proof).is_ok_and(|proof| old.verifies(RENEWAL, &self.bytes(), &proof))
    }

    fn bytes(&self) -> Vec<u8> {
        [self.signing_key.as_bytes().as_slice(), self.csr.as_bytes()].concat()
    }
}

/// A site asks to be taken in. Sent again unchanged while the answer is [`Waiting`], or when none came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairRequest {
    /// The pairing code, as the cloud gave it.
    pub code: String,
    /// The keys that the bridge made.
    #[serde(flatten)]
    pub keys: Keys,
    /// [`Keys::proof`] with the signing key.
    #[schemars(regex(pattern = SIGNATURE))]
    pub proof: String,
    /// Program and version, for people.
    pub agent: String,
}

/// A bridge asks for its next certificate, with the present one or, within the cloud's grace, with one that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RenewRequest {
    /// Who asks.
    pub bridge_id: BridgeId,
    /// The new keys.
    #[serde(flatten)]
    pub keys: Keys,
    /// [`Keys::proof`] with the new signing key.
    #[schemars(regex(pattern = SIGNATURE))]
    pub proof: String,
    /// The present signing key.
    pub old_key_id: KeyId,
    /// [`Keys::renewal_proof`] with it.
    #[schemars(regex(pattern = SIGNATURE))]
    pub old_proof: String,
}

/// A person has not answered yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// For how many seconds the request is worth repeating.
    pub expires_in: u64,
}

/// What a cloud says to a bridge that it takes in, or goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Admission {
    /// [`Keys::digest`] of the keys that were certified.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub keys: String,
    /// Who the bridge is to the cloud.
    pub bridge_id: BridgeId,
    /// The workspace's name, for people.
    pub workspace: String,
    /// The keys that speak for the cloud, newest first.
    pub cloud_keys: Vec<PublicKey>,
    /// Its own certificate authority, PEM, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// The certificate, PEM.
    pub certificate: String,
    /// The cloud's time.
    pub issued_at: Timestamp,
    /// When the certificate ends.
    pub expires_at: Timestamp,
    /// The cloud's copy of the door ledger, for a bridge that takes another one's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerCopy>,
}

/// What a cloud knows of the doors of a bridge that is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerCopy {
    /// Whether a person vouches that the old bridge did nothing that the cloud does not know. If not, no room's state is
    /// certain.
    pub is_current: bool,
    /// Its rooms.
    pub rooms: Vec<RoomState>,
}

/// A signed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// Which of the cloud's keys signed.
    pub key_id: KeyId,
    /// The signature: 64 bytes, base64.
    #[schemars(regex(pattern = SIGNATURE))]
    pub signature: String,
    /// The JSON text of an [`Admission`]; the exact bytes that the signature covers.
    #[schemars(transform = schema::text_of::<Admission>)]
    pub body: String,
}

impl Answer {
    /// Signs an admission.
    #[must_use]
    pub fn new(admission: &Admission, key: &SigningKey) -> Self {
        let body = serde_json::to_string(admission).expect("an admission has string keys only");
        let signature = STANDARD.encode(key.sign(ADMISSION, body.as_bytes()));
        Self { key_id: key.public().id(), signature, body }
    }

    /// Opens an answer that one of these keys signed, and that is about these keys of ours.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn open(&self, cloud_keys: &[PublicKey], keys: &Keys) -> Result<Admission, NotBelieved> {
        let key = cloud_keys.iter().find(|key| key.id() == self.key_id).ok_or(NotBelieved::KeyUnknown)?;
        let signature = STANDARD.decode(&self.signature).map_err(|_| NotBelieved::Altered)?;
        if !key.verifies(ADMISSION, self.body.as_bytes(), &signature) {
            return Err(NotBelieved::Altered);
        }
        let admission: Admission = serde_json::from_str(&self.body).map_err(|_| NotBelieved::Malformed)?;
        match admission.keys == keys.digest() {
            true => Ok(admission),
            false => Err(NotBelieved::OtherKeys),
        }
    }
}

/// Why a cloud's answer is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotBelieved {
    /// Signed by nobody we know.
    #[error("the answer is signed by a key that is not the cloud's")]
    KeyUnknown,
    /// The signature does not fit.
    #[error("the answer was altered on the way")]
    Altered,
    /// It is signed, and of another form.
    #[error("the answer is of another form: one of the two programs is too old")]
    Malformed,
    /// It is about keys of somebody else.
    #[error("the answer is about other keys than ours")]
    OtherKeys,
}

/// 80 bits in sixteen letters and digits that nobody confuses (Crockford's base 32), in four groups.
fn fingerprint(domain: &[u8], parts: &[&[u8]]) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(domain);
    for part in parts {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let mut bits = digest.as_ref()[..10].iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let mut letters = [0; 16];
    for letter in letters.iter_mut().rev() {
        *letter = ALPHABET[usize::try_from(bits & 31).unwrap_or(0)];
        bits >>= 5;
    }
    let groups: Vec<_> = letters.chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    groups.join("-")
}

#[cfg(test)]
mod tests;
