//! Certificates: the operator's, or from a certificate authority of our own that the first start makes; and those of
//! bridges, always from an authority of our own.
//!
//! Our own leaf certificates live in memory only. They are made at every start, and again long before they end while
//! the program runs; clients trust the authority, so they notice nothing.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};

use crate::{
    config::TlsFiles,
    model::BridgeId,
    seal::{write_new, write_private},
    seams::{Clock, Random},
};

/// How long a certificate of ours is good for; clients of some makes refuse more than 825 days.
const LEAF: SignedDuration = SignedDuration::from_hours(397 * 24);
/// It is made anew when less than this is left.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(60 * 24);
/// The clocks of clients may be this much behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(48);
/// The authority is good for twenty years: it is put into every bridge's configuration by hand.
const AUTHORITY: SignedDuration = SignedDuration::from_hours(20 * 365 * 24);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("certificate file {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds no certificate, or no key.
    #[error("{} holds no {what} in PEM", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why not.
        source: rustls::pki_types::pem::Error,
    },
    /// Others may read a private key.
    #[error("private key {} may be read by others (mode {mode:o}): run `chmod 600` on it", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// One half of the authority is missing.
    #[error("{} is there, but not {}: restore it, or remove both and give every bridge the new ca.pem", present.display(), missing.display())]
    Half {
        /// What is there.
        present: PathBuf,
        /// What is not.
        missing: PathBuf,
    },
    /// A certificate cannot be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// A certificate and its key cannot be used.
    #[error("use a certificate")]
    Use(#[from] rustls::Error),
}

/// Whom an authority of ours vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Our own listeners: `ca.pem` and `ca.key`.
    Servers,
    /// Bridges: `bridges-ca.pem` and `bridges-ca.key`.
    Bridges,
}

impl For {
    fn file(self) -> &'static str {
        match self {
            Self::Servers => "ca",
            Self::Bridges => "bridges-ca",
        }
    }

    fn common_name(self) -> &'static str {
        match self {
            Self::Servers => "latchd cloud authority",
            Self::Bridges => "latchd bridges authority",
        }
    }
}

/// A certificate authority of our own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The file with its certificate, for bridges and clients.
    pub file: PathBuf,
    random: Random,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads the two files of an authority in a folder, or makes them.
    ///
    /// # Errors
    /// When a file cannot be read or made, or one of the two is missing.
    pub fn open(folder: &Path, whom: For, now: Timestamp, random: &Random) -> Result<Self, TlsError> {
        let name = whom.file();
        let (file, key_file) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { path, source }
        };
        match (file.exists(), key_file.exists()) {
            (true, true) => {
                refuse_exposed(&key_file)?;
                let pem = fs::read_to_string(&key_file).map_err(failed(&key_file))?;
                Ok(Self::new(whom, KeyPair::from_pem(&pem)?, file, random))
            }
            (true, false) => Err(TlsError::Half { present: file, missing: key_file }),
            // The certificate is written last: a key alone is what an interrupted first start leaves.
            (false, exists) => {
                if exists {
                    fs::remove_file(&key_file).map_err(failed(&key_file))?;
                }
                let key = KeyPair::generate()?;
                let mut params = authority(whom);
                params.serial_number = Some(serial(random));
                valid(&mut params, now - BACKDATED, now + AUTHORITY);
                let certificate = params.self_signed(&key)?;
                write_private(&key_file, key.serialize_pem().as_bytes()).map_err(failed(&key_file))?;
                write_public(&file, certificate.pem().as_bytes()).map_err(failed(&file))?;
                Ok(Self::new(whom, key, file, random))
            }
        }
    }

    fn new(whom: For, key: KeyPair, file: PathBuf, random: &Random) -> Self {
        Self { issuer: Issuer::new(authority(whom), key), file, random: random.clone() }
    }

    /// Its certificate.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn certificate(&self) -> Result<CertificateDer<'static>, TlsError> {
        CertificateDer::from_pem_file(&self.file).map_err(|source| TlsError::Pem {
            path: self.file.clone(),
            what: "certificate",
            source,
        })
    }

    /// Its certificate as PEM, as bridges are given it.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn pem(&self) -> Result<String, TlsError> {
        fs::read_to_string(&self.file).map_err(|source| TlsError::File { path: self.file.clone(), source })
    }

    /// A certificate for a bridge, good for its public key until `until`.
    ///
    /// # Errors
    /// When the key cannot be certified.
    pub fn issue(
        &self,
        key: &impl PublicKeyData,
        bridge: BridgeId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<CertificateDer<'static>, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, bridge.to_string());
        params.serial_number = Some(serial(&self.random));
        valid(&mut params, now - BACKDATED, until);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }

    /// Lets in whoever shows no certificate, or one of this authority's.
    ///
    /// # Errors
    /// When the authority's own certificate cannot be used.
    pub fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()?)?;
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
        verifier.build().map_err(|error| TlsError::Use(rustls::Error::General(error.to_string())))
    }

    fn leaf(&self, names: &[String], now: Timestamp) -> Result<CertifiedKey, TlsError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("latchd", String::as_str));
        params.serial_number = Some(serial(&self.random));
        valid(&mut params, now - BACKDATED, now + LEAF);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key)?))
    }
}

/// A certificate of ours for some names, made anew before it ends.
#[derive(Debug)]
pub struct Leaf {
    authority: Arc<Authority>,
    names: Vec<String>,
    /// With when it was made.
    current: RwLock<(Arc<CertifiedKey>, Timestamp)>,
}

impl Leaf {
    /// Makes one.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn new(
        authority: &Arc<Authority>,
        names: Vec<String>,
        now: Timestamp,
    ) -> Result<Arc<Self>, TlsError> {
        let key = Arc::new(authority.leaf(&names, now)?);
        Ok(Arc::new(Self { authority: Arc::clone(authority), names, current: RwLock::new((key, now)) }))
    }

    /// Makes it anew if it ends soon, or if it was made while the clock was ahead and does not hold yet.
    ///
    /// # Errors
    /// When it cannot be made; the old one stays in use.
    pub fn renew(&self, now: Timestamp) -> Result<bool, TlsError> {
        let made = self.current.read().expect("no panic while held").1;
        if made - BACKDATED <= now && now + RENEW_BEFORE < made + LEAF {
            return Ok(false);
        }
        let key = Arc::new(self.authority.leaf(&self.names, now)?);
        *self.current.write().expect("no panic while held") = (key, now);
        Ok(true)
    }
}

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().expect("no panic while held").0))
    }
}

/// The name of a certificate's public key: the SHA-256 of its SubjectPublicKeyInfo.
///
/// # Errors
/// When it is no certificate.
pub fn public_key_hash(certificate: &CertificateDer<'_>) -> Result<[u8; 32], rustls::Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    let digest = ring::digest::digest(&ring::digest::SHA256, &key);
    Ok(digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes"))
}

/// Who may knock: everybody, or bridges, with an authority that vouches for those that have a certificate.
pub type Clients = Option<Arc<dyn ClientCertVerifier>>;

fn builder(
    clients: Clients,
    clock: Clock,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>, TlsError> {
    let builder = ServerConfig::builder_with_details(Arc::new(default_provider()), Arc::new(clock))
        .with_safe_default_protocol_versions()?;
    Ok(match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    })
}

/// A server with a certificate of ours. `clock` judges the certificates of clients.
///
/// # Errors
/// When the TLS library has no protocol version in common with itself.
pub fn server(leaf: Arc<Leaf>, clients: Clients, clock: Clock) -> Result<ServerConfig, TlsError> {
    Ok(builder(clients, clock)?.with_cert_resolver(leaf))
}

/// A server with the operator's certificate.
///
/// # Errors
/// When a file cannot be read, the key is open to others, or the two do not fit.
pub fn operators(files: &TlsFiles, clients: Clients, clock: Clock) -> Result<ServerConfig, TlsError> {
    let pem = |path: &Path, what| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, what, source }
    };
    refuse_exposed(&files.key_file)?;
    let chain = CertificateDer::pem_file_iter(&files.cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem(&files.cert_file, "certificate"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(pem(&files.key_file, "private key"))?;
    Ok(builder(clients, clock)?.with_single_cert(chain, key)?)
}

/// The names that a certificate of ours is good for, when none are configured.
#[must_use]
pub fn default_names(configured: &[String], listen: IpAddr) -> Vec<String> {
    if !configured.is_empty() {
        return configured.to_vec();
    }
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let own = listen.to_string();
    if !listen.is_unspecified() && !names.contains(&own) {
        names.push(own);
    }
    names
}

fn authority(whom: For) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, whom.common_name());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn serial(random: &Random) -> SerialNumber {
    let mut bytes = random.bytes::<16>();
    // A serial number is positive and has no leading zero byte.
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn valid(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let at = |at: Timestamp| {
        let seconds = u64::try_from(at.as_second()).unwrap_or(0);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    params.not_before = at(from);
    params.not_after = at(until);
}

fn refuse_exposed(path: &Path) -> Result<(), TlsError> {
    let metadata = fs::metadata(path).map_err(|source| TlsError::File { path: path.into(), source })?;
    match metadata.permissions().mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(TlsError::Exposed { path: path.into(), mode }),
        _ => Ok(()),
    }
}

fn write_public(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_new(path, bytes, 0o644)
}

/// TLS towards receivers of events, whose certificates have to convince this machine, or whom the operator names beside
/// it.
///
/// # Errors
/// When the named file holds no certificate that can be used.
pub(super) fn receivers(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    // A machine may trust nobody; then only whom the operator names is believed.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        let pem = |source| TlsError::Pem { path: file.into(), what: "certificate", source };
        for certificate in CertificateDer::pem_file_iter(file).map_err(pem)? {
            roots.add(certificate.map_err(pem)?)?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn open(folder: &Path) -> Result<Authority, TlsError> {
        Authority::open(folder, For::Servers, noon(), &Random::seeded(1))
    }

    #[test]
    fn a_certificate_is_made_anew_only_when_it_ends_soon() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(open(folder.path()).unwrap());
        let leaf = Leaf::new(&authority, vec!["localhost".into()], noon()).unwrap();
        let days = |days: i64| noon() + SignedDuration::from_hours(24 * days);
        assert!(!leaf.renew(days(300)).unwrap());
        assert!(leaf.renew(days(340)).unwrap());
        assert!(!leaf.renew(days(340)).unwrap());
        assert!(!leaf.renew(days(338)).unwrap());
        assert!(leaf.renew(days(0)).unwrap(), "the clock had been ahead");
    }

    #[test]
    fn a_lost_half_of_the_authority_and_an_exposed_key_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("ca.key");
        open(folder.path()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::remove_file(&key).unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("ca.pem is there, but not"), "{error}");
    }

    #[test]
    fn an_interrupted_first_start_is_finished_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        write_private(&folder.path().join("ca.key"), b"half a k").unwrap();
        open(folder.path()).unwrap();
        open(folder.path()).unwrap();
    }

    #[test]
    fn an_operators_certificate_must_fit_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            TlsFiles { cert_file: folder.path().join("cert.pem"), key_file: folder.path().join("key.pem") };
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        write_public(&files.cert_file, params.self_signed(&key).unwrap().pem().as_bytes()).unwrap();
        write_private(&files.key_file, key.serialize_pem().as_bytes()).unwrap();
        assert!(operators(&files, None, Clock::system()).is_ok());
        fs::remove_file(&files.key_file).unwrap();
        write_private(&files.key_file, other.serialize_pem().as_bytes()).unwrap();
        assert!(matches!(operators(&files, None, Clock::system()), Err(TlsError::Use(_))));
        fs::remove_file(&files.cert_file).unwrap();
        write_public(&files.cert_file, b"").unwrap();
        assert!(operators(&files, None, Clock::system()).is_err());
    }
}
