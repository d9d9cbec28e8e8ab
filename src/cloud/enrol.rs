//! How bridges are taken in and go on: the cloud's side of [`crate::protocol::enrol`].
//!
//! A person invites a bridge and gets a code of eight letters, 40 bits, good for minutes and for one bridge. Whoever asks
//! with a code first is bound to it; then a person compares fingerprints and says yes, unless the invitation did so in
//! advance. What can be guessed is limited from where it is guessed and in all (`Limits`), and neither the answer nor
//! the time it takes says whether a code is wrong or merely over.
//!
//! This room decides what is answered. It opens no socket and reads no HTTP.

mod code;
mod limits;

use std::{net::IpAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::CertificateSigningRequestDer;
use tokio::time::{Instant, timeout_at};

pub use code::Code;
use limits::Limits;

use super::{
    Signals,
    store::{Admitting, Asked, Asking, BridgeKeys, Db, NotAdmitted},
    tls::Authority,
};
use crate::{
    link::wire::shown,
    protocol::{
        PublicKey, SigningKey,
        enrol::{
            Admission, Answer, CloudCard, HELD_FOR, Keys, MAX_ANSWER, PairRequest, RenewRequest, Waiting,
        },
    },
    seams::Clock,
    store::{StoreError, WriterHandle},
};

/// How the certificates of bridges live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long one is good for.
    pub certificate: Duration,
    /// For how long after its end a bridge may still renew it.
    pub grace: Duration,
}

/// What it takes to take bridges in.
#[derive(Debug)]
pub struct Enrolment {
    /// The database.
    pub db: WriterHandle<Db>,
    /// Wakes who waits for a person.
    pub signals: Signals,
    /// Judges what is over.
    pub clock: Clock,
    /// Certifies bridges.
    pub bridges: std::sync::Arc<Authority>,
    /// Our own authority's certificate, PEM, where the bridges' listener shows one of its certificates.
    pub authority: Option<String>,
    /// How certificates live.
    pub lifetimes: Lifetimes,
    limits: Limits,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Too many went wrong, from there or in all.
    #[error("too many attempts: try again in {} s", .0.as_secs())]
    TooMany(Duration),
    /// It is not a request of this language.
    #[error("not a request that is known here: {0}")]
    Malformed(String),
    /// The request for a certificate is not one for a key that is taken here.
    #[error("the request for a certificate is not one of a P-256 key, signed with it")]
    Csr,
    /// It is not shown that the asker has the keys.
    #[error("the proof does not fit: the keys are not those of whoever asks")]
    Unproven,
    /// The code does not count.
    #[error("this code does not count: wrong, over, or used by another site")]
    Code,
    /// A person said no.
    #[error("the pairing was declined at the cloud")]
    Declined,
    /// A rule of the store.
    #[error(transparent)]
    Not(#[from] NotAdmitted),
    /// The cloud cannot do it at the moment.
    #[error("try again later")]
    Unavailable(#[source] StoreError),
}

impl Refusal {
    /// The stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooMany(_) => "rate_limited",
            Self::Malformed(_) => "request_malformed",
            Self::Csr => "certificate_request_invalid",
            Self::Unproven => "proof_invalid",
            Self::Code | Self::Not(NotAdmitted::Over) => "code_invalid",
            Self::Declined => "pairing_declined",
            Self::Not(NotAdmitted::NotPaired) => "not_paired",
            Self::Not(NotAdmitted::Revoked) => "revoked",
            Self::Not(NotAdmitted::TooLate) => "renewal_too_late",
            Self::Not(NotAdmitted::KeysKnown) => "keys_known",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// Whether it says something about the asker, as opposed to us.
    fn is_a_failed_attempt(&self) -> bool {
        match self {
            Self::TooMany(_) | Self::Unavailable(_) => false,
            Self::Malformed(_) | Self::Csr | Self::Unproven | Self::Code | Self::Declined | Self::Not(_) => {
                true
            }
        }
    }
}

/// What a site is told that asks to be paired.
#[derive(Debug)]
pub enum Told {
    /// The JSON text of an [`Answer`].
    Admitted(String),
    /// A person has not answered yet.
    Waiting(Waiting),
}

impl Enrolment {
    /// Ready to take bridges in.
    #[must_use]
    pub fn new(
        db: WriterHandle<Db>,
        signals: Signals,
        clock: Clock,
        bridges: std::sync::Arc<Authority>,
        authority: Option<String>,
        lifetimes: Lifetimes,
    ) -> Self {
        Self { db, signals, clock, bridges, authority, lifetimes, limits: Limits::default() }
    }

    /// Who answers here.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn card(&self) -> Result<CloudCard, StoreError> {
        let now = self.clock.now();
        let keys = self.db.run(move |db| db.cloud_keys(now)).await?;
        let cloud_keys = keys.iter().map(SigningKey::public).collect();
        Ok(CloudCard { cloud_keys, authority: self.authority.clone(), time: now })
    }

    /// Answers a site that asks to be paired; while a person is asked, after [`HELD_FOR`] at the latest. Once it is clear
    /// that the asker knows a code, and has to wait, `may_wait` says whether it may do so here.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn pair(
        &self,
        from: IpAddr,
        body: &[u8],
        may_wait: impl FnOnce() -> bool,
    ) -> Result<Told, Refusal> {
        let attempt = self.limits.attempt(from).map_err(Refusal::TooMany)?;
        let told = self.pair_within_limits(from, body, may_wait).await;
        match &told {
            Err(refusal) if refusal.is_a_failed_attempt() => {
                tracing::warn!(%from, code = refusal.code(), "a pairing was refused");
            }
            _ => attempt.succeeded(),
        }
        told
    }

    async fn pair_within_limits(
        &self,
        from: IpAddr,
        body: &[u8],
        may_wait: impl FnOnce() -> bool,
    ) -> Result<Told, Refusal> {
        let request: PairRequest = parsed(body)?;
        let (tls, key) = proven(&request.keys, &request.proof)?;
        // One that cannot be a code is looked up as well: it must not be told apart by the time it takes.
        let code = Code::read(&request.code).map_or_else(|| "-".to_owned(), |code| code.plain());
        let asking = Asking {
            code,
            keys: request.keys.digest(),
            fingerprint: request.keys.fingerprint(),
            from: from.to_string(),
            agent: shown(&request.agent),
        };
        let until = Instant::now() + HELD_FOR;
        let mut may_wait = Some(may_wait);
        loop {
            let mut changes = self.signals.pairing_changes();
            let (now, asks) = (self.clock.now(), asking.clone());
            let asked = self.db.run(move |db| db.ask_to_pair(now, &asks)).await;
            match asked.map_err(Refusal::Unavailable)? {
                Asked::NoSuchCode => return Err(Refusal::Code),
                Asked::OtherKeys { pairing, wanted } => {
                    let found = &asking.fingerprint;
                    tracing::warn!(%from, pairing, wanted, found, "a code was used with keys that were not announced");
                    return Err(Refusal::Code);
                }
                Asked::Declined => return Err(Refusal::Declined),
                Asked::Admitted(answer) => return Ok(Told::Admitted(answer)),
                Asked::Accepted { pairing } => {
                    return self.take_in(from, &pairing, &asking, &request.keys, tls, &key).await;
                }
                Asked::Waiting { pairing, until: ends, is_new } => {
                    let waits = may_wait.take().is_none_or(|may_wait| may_wait());
                    if is_new {
                        let (fingerprint, agent) = (&asking.fingerprint, &asking.agent);
                        tracing::info!(%from, pairing, fingerprint, agent, "a site asks to be paired; a person is asked");
                        self.signals.pairings_changed();
                    }
                    if !waits || timeout_at(until, changes.changed()).await.is_err() {
                        let left = ends.duration_since(self.clock.now()).as_secs();
                        return Ok(Told::Waiting(Waiting { expires_in: u64::try_from(left).unwrap_or(0) }));
                    }
                }
            }
        }
    }

    async fn take_in(
        &self,
        from: IpAddr,
        pairing: &str,
        asking: &Asking,
        keys: &Keys,
        tls: CertifiedKey,
        key: &PublicKey,
    ) -> Result<Told, Refusal> {
        let now = self.clock.now();
        let bridge_keys = BridgeKeys { tls: tls.name(), signing: *key, expires_at: self.ends(now) };
        let (maker, digest, of) = (self.maker(), keys.digest(), pairing.to_owned());
        let admitted = self.db.run(move |db| {
            db.admit_paired(now, &of, &bridge_keys, |admitting| {
                let answer = maker.answer(admitting, digest, &tls, now)?;
                Ok((answer.clone(), answer))
            })
        });
        let (admitting, answer) = admitted.await.map_err(Refusal::Unavailable)??;
        let (bridge, key) = (admitting.bridge, bridge_keys.signing.id());
        let (fingerprint, until, revokes) = (&asking.fingerprint, bridge_keys.expires_at, admitting.revokes);
        tracing::info!(%bridge, %from, pairing, fingerprint, %key, %until, revokes, "a bridge was paired");
        if revokes {
            self.signals.trust_changed();
        }
        self.signals.pairings_changed();
        self.signals.state_changed();
        Ok(Told::Admitted(answer))
    }

    /// Answers a bridge that asks for its next certificate, with the JSON text of an [`Answer`].
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn renew(&self, from: IpAddr, body: &[u8]) -> Result<String, Refusal> {
        let attempt = self.limits.attempt(from).map_err(Refusal::TooMany)?;
        let answer = self.renew_within_limits(from, body).await;
        match &answer {
            Err(refusal) if refusal.is_a_failed_attempt() => {}
            _ => attempt.succeeded(),
        }
        answer
    }

    async fn renew_within_limits(&self, from: IpAddr, body: &[u8]) -> Result<String, Refusal> {
        let request: RenewRequest = parsed(body)?;
        let bridge = request.bridge_id;
        let refused = |refusal: Refusal| {
            tracing::warn!(%bridge, %from, code = refusal.code(), "a renewal was refused");
            refusal
        };
        let (tls, key) = proven(&request.keys, &request.proof).map_err(refused)?;
        let old_key_id = request.old_key_id.clone();
        let old =
            self.db.run(move |db| db.old_key(bridge, &old_key_id)).await.map_err(Refusal::Unavailable)?;
        // Nothing is said about a bridge before it has shown that it is one.
        let old = old.filter(|old| request.keys.is_wanted(&old.key, &request.old_proof));
        let old = old.ok_or_else(|| refused(NotAdmitted::NotPaired.into()))?;
        let now = self.clock.now();
        let keys = BridgeKeys { tls: tls.name(), signing: key, expires_at: self.ends(now) };
        let grace = SignedDuration::try_from(self.lifetimes.grace).unwrap_or(SignedDuration::MAX);
        let (maker, digest) = (self.maker(), request.keys.digest());
        let admitted = self.db.run(move |db| {
            Ok(match db.admit_renewed(now, bridge, &old.key, &keys, grace)? {
                Ok(admitting) => Ok((maker.answer(&admitting, digest, &tls, now)?, admitting)),
                Err(not) => Err(not),
            })
        });
        let admitted = admitted.await.map_err(Refusal::Unavailable)?;
        let (answer, Admitting { expires_at: until, revokes, .. }) =
            admitted.map_err(|not| refused(not.into()))?;
        let (key, old_ended) = (key.id(), old.expires_at <= now);
        tracing::info!(%bridge, %from, %key, %until, old_ended, revokes, "a bridge's certificate was renewed");
        if revokes {
            self.signals.trust_changed();
        }
        Ok(answer)
    }

    fn ends(&self, now: Timestamp) -> Timestamp {
        // Certificates count whole seconds.
        let end = now.saturating_add(self.lifetimes.certificate).unwrap_or(Timestamp::MAX);
        Timestamp::from_second(end.as_second()).unwrap_or(end)
    }

    fn maker(&self) -> Maker {
        Maker { bridges: std::sync::Arc::clone(&self.bridges), authority: self.authority.clone() }
    }
}

/// Makes answers, wherever the database's work is done.
struct Maker {
    bridges: std::sync::Arc<Authority>,
    authority: Option<String>,
}

impl Maker {
    fn answer(
        &self,
        admitting: &Admitting,
        keys: String,
        tls: &CertifiedKey,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let failed = |error: super::tls::TlsError| StoreError::corrupt("a bridge's certificate", error);
        let Admitting { bridge, expires_at, .. } = *admitting;
        let certificate = self.bridges.issue(&tls.0, bridge, now, expires_at).map_err(failed)?;
        let admission = Admission {
            keys,
            bridge_id: bridge,
            workspace: admitting.workspace_name.clone(),
            cloud_keys: admitting.cloud_keys.clone(),
            authority: self.authority.clone(),
            certificate: pem(&certificate),
            issued_at: now,
            expires_at,
            ledger: admitting.ledger.clone(),
        };
        told(admission, &admitting.signer)
    }
}

/// The answer, in a size that a bridge takes.
fn told(mut admission: Admission, signer: &SigningKey) -> Result<String, StoreError> {
    let text = |admission: &Admission| {
        serde_json::to_string(&Answer::new(admission, signer)).expect("an answer has string keys only")
    };
    let answer = text(&admission);
    if answer.len() <= MAX_ANSWER {
        return Ok(answer);
    }
    // A room's state counts without them; what they spare is a person's look at a room in doubt.
    for room in admission.ledger.iter_mut().flat_map(|ledger| &mut ledger.rooms) {
        room.printed_ends.clear();
    }
    tracing::warn!(
        bridge = %admission.bridge_id,
        "the ledger's copy is large: it goes without the ends printed on cards"
    );
    let answer = text(&admission);
    match answer.len() <= MAX_ANSWER {
        true => Ok(answer),
        false => Err(StoreError::corrupt("the ledger's copy", "it is larger than a bridge takes")),
    }
}

/// The name of the key that a request for a certificate (PKCS #10, DER, base64) asks for, as
/// [`super::tls::public_key_hash`] of the certificate; none where the cloud would not certify it.
#[must_use]
pub fn requested_key(csr: &str) -> Option<[u8; 32]> {
    CertifiedKey::of(csr).map(|key| key.name())
}

/// The public key that a request for a certificate was signed with. Nothing else of what it wishes counts.
struct CertifiedKey(rcgen::PublicKey);

impl CertifiedKey {
    fn of(csr: &str) -> Option<Self> {
        /// An uncompressed point of P-256: a key of another curve has another length.
        const POINT: usize = 65;
        let der = STANDARD.decode(csr).ok()?;
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der)).ok()?;
        let key = request.public_key;
        let is_p256 = key.algorithm() == &PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == POINT;
        (is_p256 && key.der_bytes()[0] == 4).then_some(Self(key))
    }

    /// As [`super::tls::public_key_hash`] of its certificates.
    fn name(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0.subject_public_key_info());
        digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
    }
}

fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // Where, never what: a code may stand in it.
    serde_json::from_slice(body)
        .map_err(|error| Refusal::Malformed(format!("at line {} column {}", error.line(), error.column())))
}

fn proven(keys: &Keys, proof: &str) -> Result<(CertifiedKey, PublicKey), Refusal> {
    let tls = CertifiedKey::of(&keys.csr).ok_or(Refusal::Csr)?;
    match keys.is_proven(proof) {
        true => Ok((tls, keys.signing_key)),
        false => Err(Refusal::Unproven),
    }
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{BridgeId, DoorName, RoomState, SystemName},
        protocol::enrol::LedgerCopy,
    };

    /// What is said to a bridge that takes another's place, of so many rooms with so many cards each.
    fn admission(rooms: u32, cards: u32) -> Admission {
        let at: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let room = |number: u32| RoomState {
            system: SystemName::new("salto").unwrap(),
            room: DoorName::new(number.to_string()).unwrap(),
            reservation_key: None,
            certain: true,
            since: at,
            cards,
            printed_ends: vec![at; cards as usize],
        };
        Admission {
            keys: "0".repeat(64),
            bridge_id: BridgeId(uuid::Uuid::nil()),
            workspace: "House".into(),
            cloud_keys: Vec::new(),
            authority: None,
            certificate: "certificate".into(),
            issued_at: at,
            expires_at: at,
            ledger: Some(LedgerCopy { is_current: true, rooms: (0..rooms).map(room).collect() }),
        }
    }

    fn heard(admission: Admission) -> Result<Admission, StoreError> {
        let answer: Answer =
            serde_json::from_str(&told(admission, &SigningKey::from_seed(&[1; 32]))?).unwrap();
        Ok(serde_json::from_str(&answer.body).unwrap())
    }

    #[test]
    fn a_ledger_that_is_too_large_goes_without_the_ends_on_its_cards_and_never_without_a_room() {
        let small = admission(3, 100);
        assert_eq!(heard(small.clone()).unwrap(), small);
        let mut large = admission(1000, 800);
        let told = heard(large.clone()).unwrap();
        for room in &mut large.ledger.as_mut().unwrap().rooms {
            room.printed_ends.clear();
        }
        assert_eq!(told, large);
        assert!(heard(admission(200_000, 0)).is_err());
    }
}
