//! What the link needs to know beforehand, checked before the first connection.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem, pem::PemObject},
};
use tokio_tungstenite::tungstenite::http::Uri;

use super::Identity;
use crate::{protocol::PublicKey, seams::Clock};

/// Where the cloud is, and how we show who we are.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) place: Place,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) identity: Arc<Identity>,
    /// Speak for the cloud.
    pub(super) cloud_keys: Vec<PublicKey>,
}

/// An address of a cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) name: ServerName<'static>,
}

impl Place {
    /// Reads `wss://HOST:PORT`.
    pub(super) fn parse(url: &str) -> Result<Self, LinkError> {
        let refuse = |why| LinkError::Url { url: url.to_owned(), why };
        let uri: Uri = url.trim().parse().map_err(|_| refuse("not a URL"))?;
        if uri.scheme_str() != Some("wss") {
            return Err(refuse("the scheme must be wss"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refuse("the path is not yours to choose"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(LinkError::Url {
                url: "wss://…@…".into(), why: "credentials have no place in it"
            });
        }
        let host = uri.host().ok_or_else(|| refuse("no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| refuse("no such host name can exist"))?;
        Ok(Self { port: uri.port_u16().unwrap_or(443), host, name })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Why the link cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The cloud's address cannot be used.
    #[error("cloud url {url:?} must be wss://HOST:PORT: {why}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The file with the certificate authority cannot be read.
    #[error("read certificate authority {}", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{} holds no PEM certificate", path.display())]
    CaEmpty {
        /// Which file.
        path: PathBuf,
    },
    /// The file holds something that is not a certificate authority.
    #[error("certificate authority {}", path.display())]
    CaInvalid {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The system trusts nobody.
    #[error(
        "this system has no root certificates: install its package `ca-certificates`, or name the cloud's own \
         certificate authority in `ca_file`"
    )]
    NoRoots,
    /// The TLS library refuses its own defaults.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}

impl LinkError {
    /// The stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url { .. } => "link_url_invalid",
            Self::CaFile { .. } | Self::CaEmpty { .. } | Self::CaInvalid { .. } => "link_ca_invalid",
            Self::NoRoots => "link_no_roots",
            Self::Tls(_) => "link_tls",
        }
    }
}

impl Settings {
    /// Checks and takes the settings.
    ///
    /// # Errors
    /// When the URL is not `wss://HOST:PORT`, or the identity's key cannot be used for TLS.
    pub fn new(
        url: &str,
        identity: Arc<Identity>,
        cloud_keys: Vec<PublicKey>,
        roots: &Arc<RootCertStore>,
        clock: Clock,
    ) -> Result<Self, LinkError> {
        let place = Place::parse(url)?;
        let tls = Arc::new(client(&identity, Arc::clone(roots), clock).map_err(LinkError::Tls)?);
        Ok(Self { place, tls, identity, cloud_keys })
    }

    /// Where the cloud is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("wss://{}", self.place)
    }

    /// From the next connection on, these keys speak for the cloud.
    pub fn believe(&mut self, cloud_keys: Vec<PublicKey>) {
        self.cloud_keys = cloud_keys;
    }

    /// Whether a conversation that began with these settings would begin alike with the others.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let whom = |settings: &Self| (settings.place.clone(), settings.identity.key.public());
        whom(self) == whom(other)
    }
}

/// TLS as a client that shows its certificate. `clock` judges the cloud's.
fn client(
    identity: &Identity,
    roots: Arc<RootCertStore>,
    clock: Clock,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_details(provider, Arc::new(clock))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(identity.certificate.clone(), identity.tls_key.clone_key())
}

/// Whom to trust: the certificate authority of a private cloud, or else the system's own roots.
///
/// # Errors
/// When there is nobody to trust.
pub fn roots(ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, LinkError> {
    let roots = match ca_file {
        Some(path) => private_roots(path)?,
        None => system_roots()?,
    };
    Ok(Arc::new(roots))
}

/// Whom to trust: the authorities of a PEM text that pairing brought.
///
/// # Errors
/// When it names nobody.
pub fn roots_of(pem: &str) -> Result<Arc<RootCertStore>, LinkError> {
    read_roots(Path::new("the pairing"), pem.as_bytes()).map(Arc::new)
}

fn private_roots(path: &Path) -> Result<RootCertStore, LinkError> {
    let unreadable = |source| LinkError::CaFile { path: path.into(), source };
    let text = std::fs::read(path).map_err(|error: io::Error| unreadable(pem::Error::Io(error)))?;
    read_roots(path, &text)
}

fn read_roots(path: &Path, text: &[u8]) -> Result<RootCertStore, LinkError> {
    let unreadable = |source| LinkError::CaFile { path: path.into(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        roots
            .add(certificate.map_err(unreadable)?)
            .map_err(|source| LinkError::CaInvalid { path: path.into(), source })?;
    }
    match roots.is_empty() {
        true => Err(LinkError::CaEmpty { path: path.into() }),
        false => Ok(roots),
    }
}

pub(super) fn system_roots() -> Result<RootCertStore, LinkError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a root certificate of the system cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => Err(LinkError::NoRoots),
        false => Ok(roots),
    }
}

/// Settings of a bridge that no cloud knows.
#[cfg(test)]
pub(crate) fn of_nobody(url: &str) -> Result<Settings, LinkError> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let identity = Identity {
        bridge_id: crate::model::BridgeId(uuid::Uuid::nil()),
        key: crate::protocol::SigningKey::from_seed(&[1; 32]),
        certificate: vec![certificate.der().clone()],
        tls_key: rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    };
    let roots = Arc::new(RootCertStore::empty());
    Settings::new(url, Arc::new(identity), Vec::new(), &roots, Clock::system())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        of_nobody(url).unwrap_err().to_string()
    }

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        for (url, host, port) in [
            ("wss://cloud.example", "cloud.example", 443),
            ("wss://cloud.example:8443/", "cloud.example", 8443),
            ("wss://127.0.0.1:1", "127.0.0.1", 1),
            ("wss://[::1]:2", "::1", 2),
        ] {
            let settings = of_nobody(url).unwrap();
            assert_eq!((settings.place.host.as_str(), settings.place.port), (host, port));
        }
        assert!(refused("https://cloud.example").contains("scheme must be wss"));
        assert!(refused("wss://cloud.example/other").contains("path"));
        assert!(refused("cloud example").contains("not a URL"));
        assert!(!refused("wss://user:secret@cloud.example").contains("secret"));
    }

    #[test]
    fn a_file_that_names_nobody_to_trust_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let missing = roots(Some(&path)).unwrap_err();
        assert!(missing.to_string().contains("ca.pem"));
        std::fs::write(&path, "hello").unwrap();
        assert!(matches!(roots(Some(&path)), Err(LinkError::CaEmpty { .. })));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(roots(Some(&path)), Err(LinkError::CaInvalid { .. })));
    }
}
