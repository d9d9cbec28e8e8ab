//! The way to the cloud: its addresses, and the proxy in between.

use std::{fmt, fs, net::IpAddr, os::unix::fs::PermissionsExt, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};

use super::LinkError;
use crate::{
    config::{Bypass, CloudLink, ProxyAt, ProxyConfig},
    model::Private,
    seal::is_exposed,
};

/// An address of the cloud.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) name: ServerName<'static>,
}

impl Endpoint {
    /// Reads `wss://HOST:PORT`.
    fn parse(url: &str) -> Result<Self, LinkError> {
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

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&at(&self.host, self.port))
    }
}

/// A host and a port as one text, brackets included.
pub(super) fn at(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The way to the cloud.
#[derive(Debug, Clone)]
pub struct Route {
    /// In the order in which they are tried; never empty.
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) proxy: Option<Proxy>,
    pub(super) is_first_setup: bool,
}

impl Route {
    /// Straight to one address, `wss://HOST:PORT`.
    ///
    /// # Errors
    /// When it is not of this form.
    pub fn to(url: &str) -> Result<Self, LinkError> {
        Ok(Self { endpoints: vec![Endpoint::parse(url)?], proxy: None, is_first_setup: false })
    }

    /// With a further address, tried when the ones before it failed.
    ///
    /// # Errors
    /// When it is not `wss://HOST:PORT`.
    pub fn or(mut self, url: &str) -> Result<Self, LinkError> {
        self.endpoints.push(Endpoint::parse(url)?);
        Ok(self)
    }

    /// Through a proxy.
    #[must_use]
    pub fn through(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// For a site that is being set up: until the first welcome, what trying again cannot cure ends the link.
    #[must_use]
    pub fn first_setup(mut self) -> Self {
        self.is_first_setup = true;
        self
    }

    /// As configured, with `url` as the first address. `environment` is asked for variables where the configuration leaves the proxy to them.
    ///
    /// # Errors
    /// When an address or the proxy cannot be used, or its credentials cannot be read.
    pub fn from_config(
        url: &str,
        cloud: &CloudLink,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, LinkError> {
        let mut route = Self::to(url)?;
        for url in &cloud.route.also {
            route = route.or(url)?;
        }
        route.proxy = match &cloud.route.proxy {
            Some(proxy) => Proxy::from_config(proxy, environment)?,
            None => None,
        };
        Ok(route)
    }

    /// The proxy that leads to an address, where one does.
    pub(super) fn proxy_to(&self, endpoint: &Endpoint) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|proxy| !proxy.is_bypassed(&endpoint.host, endpoint.port))
    }
}

/// An HTTP proxy that is asked for a tunnel.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authorization: Option<HeaderValue>,
    bypass: Vec<Bypass>,
}

impl Proxy {
    /// A proxy that asks for nothing.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port, authorization: None, bypass: Vec::new() }
    }

    /// With `user:password`.
    ///
    /// # Errors
    /// When it is not one line with a user and a colon.
    pub fn with_credentials(mut self, credentials: &Private) -> Result<Self, LinkError> {
        let text = credentials.expose().trim_end_matches(['\r', '\n']);
        if text.split_once(':').is_none_or(|(user, _)| user.is_empty()) || text.chars().any(char::is_control)
        {
            return Err(LinkError::ProxyCredentials);
        }
        let encoded = Private::new(format!("Basic {}", STANDARD.encode(text)));
        let mut value = HeaderValue::try_from(encoded.expose()).map_err(|_| LinkError::ProxyCredentials)?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// Not asked for these hosts.
    #[must_use]
    pub fn except(mut self, bypass: Vec<Bypass>) -> Self {
        self.bypass = bypass;
        self
    }

    fn from_config(
        config: &ProxyConfig,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, LinkError> {
        let mut bypass = config.bypass.clone();
        let at = match &config.at {
            ProxyAt::Address { .. } => config.at.clone(),
            ProxyAt::Environment => {
                let either = |upper: &str| {
                    let set = environment(upper).or_else(|| environment(&upper.to_lowercase()));
                    set.filter(|text| !text.trim().is_empty())
                };
                bypass.extend(Bypass::from_environment(&either("NO_PROXY").unwrap_or_default()));
                let Some(text) = either("HTTPS_PROXY") else {
                    return Ok(None);
                };
                text.trim().parse().map_err(|why| LinkError::ProxyOfEnvironment { why })?
            }
        };
        let ProxyAt::Address { host, port } = at else {
            return Err(LinkError::ProxyOfEnvironment { why: "it points at itself" });
        };
        let mut proxy = Self::new(&host, port).except(bypass);
        if let Some(path) = &config.credentials_file {
            proxy = proxy.with_credentials(&credentials(path)?)?;
        }
        Ok(Some(proxy))
    }

    /// A proxy is never asked for this machine: what it would reach is the proxy's own.
    fn is_bypassed(&self, host: &str, port: u16) -> bool {
        let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        is_here || self.bypass.iter().any(|entry| entry.covers(host, port))
    }
}

fn credentials(path: &Path) -> Result<Private, LinkError> {
    let unreadable = |source| LinkError::ProxyCredentialsFile { path: path.into(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if is_exposed(mode, path.starts_with("/run/credentials")) {
        return Err(LinkError::ProxyCredentialsExposed { path: path.into(), mode: mode & 0o777 });
    }
    fs::read_to_string(path).map(Private::new).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(at: &str) -> ProxyConfig {
        let bypass = vec!["*.inner.example".parse().unwrap()];
        ProxyConfig { at: at.parse().unwrap(), credentials_file: None, bypass }
    }

    fn asks(proxy: &Proxy, url: &str) -> bool {
        let route = Route::to(url).unwrap().through(proxy.clone());
        route.proxy_to(&route.endpoints[0]).is_some()
    }

    #[test]
    fn a_proxy_is_asked_for_all_but_those_named_and_this_machine() {
        let proxy =
            Proxy::from_config(&config("http://proxy:3128"), |_| panic!("not asked")).unwrap().unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy", 3128));
        assert!(asks(&proxy, "wss://cloud.example"));
        for url in ["wss://a.inner.example", "wss://localhost", "wss://127.0.0.1:8443", "wss://[::1]:8443"] {
            assert!(!asks(&proxy, url), "{url}");
        }
    }

    #[test]
    fn the_environment_is_asked_only_where_the_configuration_says_so() {
        let environment = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            }
        };
        let open = |pairs| Proxy::from_config(&config("environment"), environment(pairs));
        assert!(open(&[]).unwrap().is_none());
        assert!(open(&[("HTTPS_PROXY", " ")]).unwrap().is_none());
        let proxy = open(&[("https_proxy", "http://p:1"), ("NO_PROXY", "example.org")]).unwrap().unwrap();
        assert!(asks(&proxy, "wss://cloud.example") && !asks(&proxy, "wss://cloud.example.org"));
        assert!(!asks(&proxy, "wss://a.inner.example"));
        for wrong in [&[("HTTPS_PROXY", "http://user:secret@p:1")][..], &[("HTTPS_PROXY", "environment")]] {
            let error = open(wrong).unwrap_err();
            assert_eq!(error.code(), "link_proxy_invalid");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn credentials_come_from_a_file_that_nobody_else_reads_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy-credentials");
        let open = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let config = ProxyConfig { credentials_file: Some(path.clone()), ..config("http://proxy:1") };
            Proxy::from_config(&config, |_| None).map(Option::unwrap)
        };
        let proxy = open("Aladdin:open sesame\n", 0o600).unwrap();
        // RFC 7617, 2.
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{proxy:?}").contains("QWxhZGRpbj"), "{proxy:?}");
        assert!(open("Aladdin:open sesame\n", 0o640).unwrap_err().to_string().contains("640"));
        for wrong in ["", "sesame", ":sesame", "a:b\nc:d", "a:b\u{7}"] {
            assert!(matches!(open(wrong, 0o600), Err(LinkError::ProxyCredentials)), "{wrong:?}");
        }
        fs::remove_file(&path).unwrap();
        let config = ProxyConfig { credentials_file: Some(path.clone()), ..config("http://proxy:1") };
        assert!(Proxy::from_config(&config, |_| None).unwrap_err().to_string().contains("proxy-credentials"));
    }
}
