//! What the link needs to know beforehand, checked before the first connection.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem, pem::PemObject},
};

use super::{Identity, Route, Trust};
use crate::protocol::PublicKey;

/// Where the cloud is, and how we show who we are.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) route: Route,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) identity: Arc<Identity>,
    /// Speak for the cloud.
    pub(super) cloud_keys: Vec<PublicKey>,
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
    /// The environment names no usable proxy.
    #[error("HTTPS_PROXY of the environment: {why}")]
    ProxyOfEnvironment {
        /// What is wrong with it. It is not shown: it may hold a password.
        why: &'static str,
    },
    /// The proxy's credentials cannot be read.
    #[error("read the proxy's credentials {}", path.display())]
    ProxyCredentialsFile {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others can read the proxy's credentials.
    #[error("{} can be read by others (mode {mode:o}): chmod 600", path.display())]
    ProxyCredentialsExposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The proxy's credentials have another form. They are not shown.
    #[error("the proxy's credentials must be one line, user:password")]
    ProxyCredentials,
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
            Self::ProxyOfEnvironment { .. } => "link_proxy_invalid",
            Self::ProxyCredentialsFile { .. }
            | Self::ProxyCredentialsExposed { .. }
            | Self::ProxyCredentials => "link_proxy_credentials_invalid",
            Self::Tls(_) => "link_tls",
        }
    }
}

impl Settings {
    /// Checks and takes the settings: straight to one address, `wss://HOST:PORT`.
    ///
    /// # Errors
    /// When the URL is not of this form, or the identity's key cannot be used for TLS.
    pub fn new(
        url: &str,
        identity: Arc<Identity>,
        cloud_keys: Vec<PublicKey>,
        trust: Trust,
    ) -> Result<Self, LinkError> {
        let route = Route::to(url)?;
        let tls = Arc::new(trust.client_config(Some(&identity))?);
        Ok(Self { route, tls, identity, cloud_keys })
    }

    /// Where the cloud is, at the address that is preferred.
    #[must_use]
    pub fn url(&self) -> String {
        self.route.endpoints.first().map_or_else(String::new, |endpoint| format!("wss://{endpoint}"))
    }

    /// From the next connection on, these keys speak for the cloud.
    pub fn believe(&mut self, cloud_keys: Vec<PublicKey>) {
        self.cloud_keys = cloud_keys;
    }

    /// Whether a conversation that began with these settings would begin alike with the others.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let addresses =
            |settings: &Self| settings.route.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>();
        self.identity.key.public() == other.identity.key.public() && addresses(self) == addresses(other)
    }

    /// The same by another way.
    #[must_use]
    pub fn by(mut self, route: Route) -> Self {
        self.route = route;
        self
    }
}

/// Whom to trust: the certificate authorities of a private cloud.
///
/// # Errors
/// When the file names nobody.
pub fn roots(ca_file: &Path) -> Result<Arc<RootCertStore>, LinkError> {
    private_roots(ca_file).map(Arc::new)
}

pub(super) fn private_roots(path: &Path) -> Result<RootCertStore, LinkError> {
    let unreadable = |source| LinkError::CaFile { path: path.into(), source };
    let text = std::fs::read(path).map_err(|error: io::Error| unreadable(pem::Error::Io(error)))?;
    read_roots(path, &text)
}

/// The authorities of a PEM text; `path` names it where something is wrong with it.
pub(super) fn read_roots(path: &Path, text: &[u8]) -> Result<RootCertStore, LinkError> {
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
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let identity = Identity {
        bridge_id: crate::model::BridgeId(uuid::Uuid::nil()),
        key: crate::protocol::SigningKey::from_seed(&[1; 32]),
        certificate: vec![certificate.der().clone()],
        tls_key: rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    };
    Settings::new(url, Arc::new(identity), Vec::new(), Trust::private(roots))
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
            let endpoint = &settings.route.endpoints[0];
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
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
        let missing = Trust::open(Some(&path)).unwrap_err();
        assert!(missing.to_string().contains("ca.pem"));
        std::fs::write(&path, "hello").unwrap();
        assert!(matches!(Trust::open(Some(&path)), Err(LinkError::CaEmpty { .. })));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(Trust::open(Some(&path)), Err(LinkError::CaInvalid { .. })));
    }
}
