//! Where a system's HTTP server is, and whom to take for it.

use std::{fmt, path::PathBuf, str::FromStr};

use super::{
    SpkiPin,
    section::{Section, Setting},
};

/// How to reach an HTTP server on the property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it is.
    pub url: HttpUrl,
    /// With `https`: the server's certificate must have this key, and is then taken whoever issued it and whatever it is
    /// named; a server on a property often signs its own. Default none.
    pub pin: Option<SpkiPin>,
    /// With `https`: PEM file of the authorities that vouch for it. Default those of this machine.
    pub ca_file: Option<PathBuf>,
}

impl HttpConfig {
    /// Reads `url`, `pin` and `ca_file`.
    pub(super) fn read(section: &Section<'_>, why_url: &str) -> Option<Self> {
        let url: Option<HttpUrl> = section.must("url", why_url).and_then(|setting| setting.parsed());
        let (pin, ca_file) = (section.get("pin"), section.get("ca_file"));
        let is_plain = url.as_ref().is_some_and(|url| !url.is_tls);
        for setting in pin.iter().chain(&ca_file).filter(|_| is_plain) {
            setting.wrong("plain http shows no certificate", "write an https:// url, or remove this setting");
        }
        if let (Some(pin), Some(_)) = (&pin, &ca_file) {
            pin.wrong(
                "with a pin nobody has to vouch for the certificate",
                "remove either `pin` or `ca_file`",
            );
        }
        let pinned = pin.as_ref().map(Setting::parsed);
        let ca_file = ca_file.and_then(|setting| setting.path());
        let pin = match pinned {
            // One that is none was told; it must not become "no pin".
            Some(pin) => Some(pin?),
            None => None,
        };
        Some(Self { url: url?, pin, ca_file })
    }
}

/// `http://HOST[:PORT]/PATH` or `https://…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpUrl {
    /// Whether it is `https`.
    pub is_tls: bool,
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path, with its first slash.
    pub path: String,
}

/// Why a text is no address of an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// It is of another form.
    #[error(
        "{0:?} is not a url: write it like \"http://10.0.0.7/service.asmx\" or \"https://host:8443/service.asmx\""
    )]
    Form(String),
    /// It holds a user or a password.
    #[error("a user or password has no place in a url")]
    Secret,
    /// It holds a query or a fragment.
    #[error("{0:?} has a query or a fragment; write the address of the service alone")]
    Query(String),
}

impl HttpUrl {
    /// `HOST:PORT` as people write it, and as a `Host` header has it where the port is not the usual one.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port == self.usual_port() {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }

    fn usual_port(&self) -> u16 {
        if self.is_tls { 443 } else { 80 }
    }
}

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || HttpUrlError::Form(text.to_owned());
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(form()),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if authority.contains('@') {
            return Err(HttpUrlError::Secret);
        }
        if text.contains(['?', '#']) {
            return Err(HttpUrlError::Query(text.to_owned()));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let bare = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']').filter(|host| host.parse::<std::net::Ipv6Addr>().is_ok()),
            None => Some(host).filter(|host| {
                !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
            }),
        };
        let usual = if is_tls { 443 } else { 80 };
        let port = port.map_or(Ok(usual), str::parse).ok().filter(|port| *port > 0);
        let sayable = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
        match (bare, port) {
            (Some(host), Some(port)) if sayable => {
                Ok(Self { is_tls, host: host.to_owned(), port, path: path.to_owned() })
            }
            _ => Err(form()),
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_people_write_it_and_written_the_same() {
        let check = |text: &str, authority: &str, port: u16| {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), url.authority(), url.port), (text.into(), authority.into(), port));
        };
        check("http://10.0.0.7/a/b.asmx", "10.0.0.7", 80);
        check("https://pms.lan/a", "pms.lan", 443);
        check("https://pms.lan:8443/a", "pms.lan:8443", 8443);
        check("http://[fe80::1]:81/a", "[fe80::1]:81", 81);
        check("http://[fe80::1]/a", "[fe80::1]", 80);
        assert_eq!("http://pms".parse::<HttpUrl>().unwrap().path, "/");
    }

    #[test]
    fn what_is_no_url_is_refused_and_a_password_is_not_repeated() {
        for wrong in [
            "pms.lan",
            "ftp://pms/",
            "http://",
            "http:///a",
            "http://a b/",
            "http://a:0/",
            "http://a:b/",
            "http://[x]/",
            "http://a/\u{e9}",
            "http://a/\r\nX: y",
        ] {
            assert_eq!(wrong.parse::<HttpUrl>(), Err(HttpUrlError::Form(wrong.into())), "{wrong:?}");
        }
        let secret = "http://user:geheim@pms/".parse::<HttpUrl>().unwrap_err();
        assert!(!secret.to_string().contains("geheim"));
        assert!(matches!("http://a/b?wsdl".parse::<HttpUrl>(), Err(HttpUrlError::Query(_))));
    }
}
