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
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::{Route, Trust};
use crate::model::Private;

/// Where the cloud is, and how we show who we are.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) route: Route,
    pub(super) authorization: HeaderValue,
    pub(super) tls: Arc<ClientConfig>,
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
    /// The token cannot be sent in a header. It is not shown.
    #[error("the bearer token must be one line of printable ASCII without spaces")]
    Token,
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
            Self::Token => "link_token_invalid",
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
    /// Checks and takes the settings.
    ///
    /// # Errors
    /// When the URL is not `wss://HOST:PORT`, or the token cannot be sent in a header.
    pub fn new(url: &str, token: &Private, tls: Arc<ClientConfig>) -> Result<Self, LinkError> {
        let route = Route::to(url)?;
        let token = token.expose().trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(LinkError::Token);
        }
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| LinkError::Token)?;
        authorization.set_sensitive(true);
        Ok(Self { route, authorization, tls })
    }

    /// The same by another way.
    #[must_use]
    pub fn by(mut self, route: Route) -> Self {
        self.route = route;
        self
    }
}

/// Whom to trust: the certificate authority of a private cloud, or else the system's own roots.
///
/// # Errors
/// When there is nobody to trust.
pub fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, LinkError> {
    Trust::open(ca_file)?.client_config()
}

pub(super) fn private_roots(path: &Path) -> Result<RootCertStore, LinkError> {
    let unreadable = |source| LinkError::CaFile { path: path.into(), source };
    let text = std::fs::read(path).map_err(|error: io::Error| unreadable(pem::Error::Io(error)))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        Arc::new(config)
    }

    fn refused(url: &str) -> String {
        Settings::new(url, &Private::new("t"), nobody()).unwrap_err().to_string()
    }

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        for (url, host, port) in [
            ("wss://cloud.example", "cloud.example", 443),
            ("wss://cloud.example:8443/", "cloud.example", 8443),
            ("wss://127.0.0.1:1", "127.0.0.1", 1),
            ("wss://[::1]:2", "::1", 2),
        ] {
            let settings = Settings::new(url, &Private::new("t"), nobody()).unwrap();
            let endpoint = &settings.route.endpoints[0];
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
        }
        assert!(refused("https://cloud.example").contains("scheme must be wss"));
        assert!(refused("wss://cloud.example/other").contains("path"));
        assert!(refused("cloud example").contains("not a URL"));
        assert!(!refused("wss://user:secret@cloud.example").contains("secret"));
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_refused_without_being_shown() {
        for token in ["", "two words", "line\nbreak", "g\u{e4}st"] {
            let error = Settings::new("wss://c", &Private::new(token), nobody()).unwrap_err();
            assert_eq!(error.code(), "link_token_invalid");
        }
        let settings = Settings::new("wss://c", &Private::new("sesame\n"), nobody()).unwrap();
        assert!(!format!("{settings:?}").contains("sesame"));
    }

    #[test]
    fn a_file_that_names_nobody_to_trust_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let missing = tls_config(Some(&path)).unwrap_err();
        assert!(missing.to_string().contains("ca.pem"));
        std::fs::write(&path, "hello").unwrap();
        assert!(matches!(tls_config(Some(&path)), Err(LinkError::CaEmpty { .. })));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(tls_config(Some(&path)), Err(LinkError::CaInvalid { .. })));
    }
}
