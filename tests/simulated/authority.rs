//! Who trusts whom: the house with its bridge and the keys of both sides, the same for all seeds.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use latchd::{
    cloud::{
        keys::digest,
        store::{BridgeKeys, Db},
        tls::public_key_hash,
    },
    link,
    model::BridgeId,
    protocol::{PublicKey, SigningKey},
    seal::SealKey,
    seams::{Random, Storage},
    store::{Store, StoreError},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ED25519,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use super::side::{BRIDGES, KEY};

/// What signs for the bridge.
const BRIDGE_SEED: [u8; 32] = [3; 32];

/// Founds the house with its bridge and the cloud's key, in one commit and with the same ids for all seeds: what
/// pairing once brought to the agent stays true however the cloud's disk fares. Nothing where it was founded before.
pub(crate) fn found(
    storage: &Storage,
    now: Timestamp,
    authority: Option<&Authority>,
) -> Result<(), StoreError> {
    let random = Random::seeded(4711);
    let mut db = Db::open(storage, SealKey::new([7; 32], random.clone()), random)?;
    if db.workspace()?.is_some() {
        return Ok(());
    }
    db.connection().execute_batch("BEGIN IMMEDIATE")?;
    let workspace = db.found(now, "House", digest(KEY))?;
    let bridge = db.the_bridge(now, workspace)?;
    db.cloud_keys(now)?;
    if let Some(authority) = authority {
        db.admit(now, bridge, &authority.keys())?;
    }
    db.commit()?;
    Ok(())
}

/// Certificates, made once for all seeds: their signatures have one length, so connections have as well.
pub(crate) struct Authority {
    ca_file: tempfile::NamedTempFile,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    /// The bridge's.
    client_certificate: CertificateDer<'static>,
    client_key: Vec<u8>,
    bridge: BridgeId,
    cloud_keys: Vec<PublicKey>,
}

impl Authority {
    pub(crate) fn get() -> &'static Self {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY.get_or_init(Self::new)
    }

    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "latchd simulation");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::new(["cloud".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client_key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let client_certificate = params.signed_by(&client_key, &issuer).unwrap().der().clone();
        let ca_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca_file.path(), pem).unwrap();
        let (bridge, cloud_keys) = Self::paired();
        Self {
            ca_file,
            certificate,
            key: key.serialize_der(),
            client_certificate,
            client_key: client_key.serialize_der(),
            bridge,
            cloud_keys,
        }
    }

    /// What founding gives, each time.
    fn paired() -> (BridgeId, Vec<PublicKey>) {
        let folder = tempfile::tempdir().unwrap();
        let (storage, now) = (Storage::folder(folder.path()), "2026-11-22T12:00:00Z".parse().unwrap());
        found(&storage, now, None).unwrap();
        let random = Random::seeded(1);
        let mut db = Db::open(&storage, SealKey::new([7; 32], random.clone()), random).unwrap();
        let workspace = db.workspace().unwrap().unwrap();
        let keys = db.cloud_keys(now).unwrap().iter().map(SigningKey::public).collect();
        (db.the_bridge(now, workspace).unwrap(), keys)
    }

    fn keys(&self) -> BridgeKeys {
        BridgeKeys {
            tls: public_key_hash(&self.client_certificate).unwrap(),
            signing: SigningKey::from_seed(&BRIDGE_SEED).public(),
            expires_at: "2100-01-01T00:00:00Z".parse().unwrap(),
        }
    }

    /// What pairing left at the site.
    pub(crate) fn settings(&self) -> link::Settings {
        let identity = link::Identity {
            bridge_id: self.bridge,
            key: SigningKey::from_seed(&BRIDGE_SEED),
            certificate: vec![self.client_certificate.clone()],
            tls_key: PrivateKeyDer::try_from(self.client_key.clone()).unwrap(),
        };
        let url = format!("wss://cloud:{BRIDGES}");
        let trust = link::Trust::open(Some(self.ca_file.path())).unwrap();
        link::Settings::new(&url, Arc::new(identity), self.cloud_keys.clone(), trust).unwrap()
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca_file.path()).unwrap()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let clients = clients.build().unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
