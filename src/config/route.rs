//! The way to the cloud: further addresses, a proxy, pinned keys. Settings of `[cloud]`.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use hyper::Uri;

use super::{
    agent::wss,
    section::{Section, Setting},
};
use base64::{Engine, engine::general_purpose::STANDARD};

/// The way to the cloud, beside its address.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteConfig {
    /// Further addresses of the same cloud, each tried when the ones before it failed.
    pub also: Vec<String>,
    /// The proxy that leads there; without one it is dialled directly.
    pub proxy: Option<ProxyConfig>,
    /// Keys of which the cloud's certificates must show one.
    pub pins: Option<Pins>,
}

/// An HTTP proxy that is asked for a tunnel.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyConfig {
    /// Where it is.
    pub at: ProxyAt,
    /// The file with `user:password`, mode 0600.
    pub credentials_file: Option<PathBuf>,
    /// Whom it is not asked for.
    pub bypass: Vec<Bypass>,
}

/// Where a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyAt {
    /// Where `HTTPS_PROXY` of the environment says, except for whom `NO_PROXY` names.
    Environment,
    /// Here.
    Address {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl FromStr for ProxyAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "environment" {
            return Ok(Self::Environment);
        }
        if text.contains('@') {
            return Err("a user or password has no place in it; name a file with `proxy_credentials_file`");
        }
        let Some(authority) = text.strip_prefix("http://") else {
            return Err("write http://HOST:PORT: the way to the proxy is plain, what goes through it is TLS");
        };
        if authority.trim_end_matches('/').contains(['/', '?', '#']) {
            return Err("a proxy has no path: write http://HOST:PORT");
        }
        let uri: Uri = text.parse().map_err(|_| "write http://HOST:PORT")?;
        match (uri.host(), uri.port_u16()) {
            (Some(host), Some(port)) if !host.is_empty() && port > 0 => {
                let host = host.trim_start_matches('[').trim_end_matches(']').into();
                Ok(Self::Address { host, port })
            }
            _ => Err("write http://HOST:PORT; proxies have no usual port"),
        }
    }
}

/// Whom a proxy is not asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bypass {
    who: Who,
    /// At this port only.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Everybody,
    Name(String),
    /// Everything below a name, and not the name itself.
    Below(String),
    Network {
        address: IpAddr,
        bits: u8,
    },
}

/// Why a text names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no host: write a name, \"*.NAME\", an address, or a network like \"10.0.0.0/8\"")]
pub struct BypassError(String);

impl FromStr for Bypass {
    type Err = BypassError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || BypassError(text.to_owned());
        let text = text.trim().to_ascii_lowercase();
        let (who, port) = match text.rsplit_once(':') {
            // A bare IPv6 address has colons and no port.
            Some((who, port)) if !who.contains(':') || who.ends_with(']') => {
                (who, Some(port.parse().map_err(|_| wrong())?))
            }
            _ => (text.as_str(), None),
        };
        let plain = who.trim_start_matches('[').trim_end_matches(']');
        let who = if who == "*" {
            Who::Everybody
        } else if let Some((address, bits)) = plain.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?;
            Who::Network { address, bits }
        } else if let Ok(address) = plain.parse::<IpAddr>() {
            Who::Network { address, bits: if address.is_ipv4() { 32 } else { 128 } }
        } else {
            let name = who.trim_start_matches('*').trim_start_matches('.');
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_name) {
                return Err(wrong());
            }
            let name = name.trim_end_matches('.').to_owned();
            if who.starts_with(['*', '.']) { Who::Below(name) } else { Who::Name(name) }
        };
        Ok(Self { who, port })
    }
}

impl Bypass {
    /// The list of an environment's `NO_PROXY`, where a name stands for everything below it too. What cannot be
    /// understood there is left out: other programs read it as well, and each has forms of its own.
    #[must_use]
    pub fn from_environment(list: &str) -> Vec<Self> {
        let mut found = Vec::new();
        for entry in list.split(',').filter_map(|entry| entry.parse::<Self>().ok()) {
            if let Who::Name(name) | Who::Below(name) = &entry.who {
                found.push(Self { who: Who::Name(name.clone()), port: entry.port });
                found.push(Self { who: Who::Below(name.clone()), port: entry.port });
            } else {
                found.push(entry);
            }
        }
        found
    }

    /// Whether this host is meant. A name is compared as a name: what it resolves to does not matter.
    #[must_use]
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_meant = match &self.who {
            Who::Everybody => true,
            Who::Name(name) => *name == host,
            Who::Below(name) => host
                .strip_suffix(name.as_str())
                .is_some_and(|before| before.len() > 1 && before.ends_with('.')),
            Who::Network { address, bits } => {
                host.parse().is_ok_and(|host: IpAddr| is_within(host, *address, *bits))
            }
        };
        is_meant && self.port.is_none_or(|wanted| wanted == port)
    }
}

fn is_within(host: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (host, network, all) = match (host.to_canonical(), network) {
        (IpAddr::V4(host), IpAddr::V4(network)) => {
            (u128::from(u32::from(host)), u128::from(u32::from(network)), 32)
        }
        (IpAddr::V6(host), IpAddr::V6(network)) => (u128::from(host), u128::from(network), 128),
        _ => return false,
    };
    let differ = (host ^ network).checked_shr(u32::from(all - bits));
    differ.unwrap_or(0) == 0
}

/// The SHA-256 of a public key as certificates carry it (`SubjectPublicKeyInfo`), written `sha256/BASE64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpkiPin(pub [u8; 32]);

impl FromStr for SpkiPin {
    type Err = PinsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PinsError::Form { text: text.to_owned() };
        let digest = text.strip_prefix("sha256/").ok_or_else(wrong)?;
        let bytes = STANDARD.decode(digest).map_err(|_| wrong())?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", STANDARD.encode(self.0))
    }
}

/// Pinned keys: at least two different ones, so that the day the first key is lost is not the day the site goes dark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins(Vec<SpkiPin>);

/// Why pins cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinsError {
    /// Not a pin.
    #[error("{text:?} is not a pin: write \"sha256/\" and the 44 base64 digits of the key's SHA-256")]
    Form {
        /// What was written.
        text: String,
    },
    /// No second key.
    #[error(
        "a backup pin is missing: pin a second key, kept offline, or the site is cut off on the day the first is lost"
    )]
    NoBackup,
}

impl Pins {
    /// Takes pins.
    ///
    /// # Errors
    /// When there are not two different ones.
    pub fn new(pins: Vec<SpkiPin>) -> Result<Self, PinsError> {
        match pins.iter().any(|pin| *pin != pins[0]) {
            true => Ok(Self(pins)),
            false => Err(PinsError::NoBackup),
        }
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn has(&self, pin: SpkiPin) -> bool {
        self.0.contains(&pin)
    }
}

impl RouteConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let items = |key| section.get(key).and_then(|setting| setting.items());
        let also = items("also").unwrap_or_default().iter().filter_map(wss).collect();
        let at = section.get("proxy").and_then(|setting| match setting.text()?.parse() {
            Ok(at) => Some(at),
            Err(why) => {
                setting.wrong("this is not a proxy", why);
                None
            }
        });
        let credentials = section.get("proxy_credentials_file");
        let credentials_file = credentials.as_ref().and_then(Setting::path);
        let bypass = items("no_proxy");
        if at.is_none() && !section.has("proxy") {
            for (key, is_there) in
                [("proxy_credentials_file", credentials.is_some()), ("no_proxy", bypass.is_some())]
            {
                if is_there {
                    section.wrong_key(key, "there is no proxy that this could be for", "set `proxy` as well");
                }
            }
        }
        let bypass = bypass.unwrap_or_default().iter().filter_map(Setting::parsed).collect();
        let proxy = at.map(|at| ProxyConfig { at, credentials_file, bypass });
        let pins = section.get("pins").and_then(|setting| pins(&setting));
        Self { also, proxy, pins }
    }
}

fn pins(setting: &Setting<'_>) -> Option<Pins> {
    let items = setting.items()?;
    let pins: Vec<_> = items.iter().filter_map(Setting::parsed).collect();
    if pins.len() < items.len() {
        return None;
    }
    match Pins::new(pins) {
        Ok(pins) => Some(pins),
        Err(error) => {
            setting.wrong(error, "write at least two different pins, or leave the setting out");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn covers(entry: &str, host: &str) -> bool {
        entry.parse::<Bypass>().unwrap().covers(host, 443)
    }

    #[test]
    fn a_name_means_itself_and_a_star_means_what_is_below() {
        for (entry, host) in [
            ("*", "cloud.example"),
            ("localhost", "localhost"),
            ("Cloud.Example", "cloud.example."),
            ("*.example", "cloud.example"),
            (".example", "a.cloud.example"),
            ("cloud.example:443", "cloud.example"),
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1"),
            ("0.0.0.0/0", "192.0.2.7"),
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8::/32", "2001:db8:1::5"),
            ("[2001:db8::5]:443", "2001:db8::5"),
            ("::1", "::1"),
        ] {
            assert!(covers(entry, host), "{entry} {host}");
        }
        for (entry, host) in [
            ("*.example", "example"),
            ("*.example", "badexample"),
            ("example", "cloud.example"),
            ("cloud.example:8443", "cloud.example"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/8", "ten.example"),
            ("192.0.2.7", "192.0.2.70"),
            ("2001:db8::/32", "2001:db9::1"),
            ("::/0", "192.0.2.7"),
        ] {
            assert!(!covers(entry, host), "{entry} {host}");
        }
        for wrong in ["", "*.", "10.0.0.0/33", "::1/129", "a b", "x:port", "http://x"] {
            assert!(wrong.parse::<Bypass>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn in_the_environment_a_name_stands_for_what_is_below_it_too() {
        let list = Bypass::from_environment("localhost, .inner.example,!!, example.org,10.0.0.0/8");
        let covers = |host: &str| list.iter().any(|entry| entry.covers(host, 443));
        for host in ["localhost", "inner.example", "a.inner.example", "a.example.org", "10.9.8.7"] {
            assert!(covers(host), "{host}");
        }
        assert!(!covers("cloud.example"));
    }

    #[test]
    fn a_proxy_is_a_plain_address_without_secrets() {
        assert_eq!("environment".parse(), Ok(ProxyAt::Environment));
        let at = |host: &str, port| Ok(ProxyAt::Address { host: host.into(), port });
        assert_eq!("http://proxy.example:3128".parse(), at("proxy.example", 3128));
        assert_eq!("http://[::1]:8080/".parse(), at("::1", 8080));
        for wrong in [
            "proxy:3128",
            "https://proxy:3128",
            "http://proxy",
            "http://proxy:1/x",
            "http://u:secret@proxy:1",
        ] {
            let refused = wrong.parse::<ProxyAt>().unwrap_err();
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn pins_are_two_different_keys_or_none() {
        let pin = |byte: u8| SpkiPin([byte; 32]);
        let text = pin(7).to_string();
        assert_eq!(text.parse(), Ok(pin(7)));
        for wrong in ["", "sha256/", "sha1/AAAA", &text[..50], &text.replace("sha256/", "")] {
            assert!(matches!(wrong.parse::<SpkiPin>(), Err(PinsError::Form { .. })), "{wrong:?}");
        }
        assert_eq!(Pins::new(vec![]), Err(PinsError::NoBackup));
        assert_eq!(Pins::new(vec![pin(1)]), Err(PinsError::NoBackup));
        assert_eq!(Pins::new(vec![pin(1), pin(1)]), Err(PinsError::NoBackup));
        let pins = Pins::new(vec![pin(1), pin(2)]).unwrap();
        assert!(pins.has(pin(2)) && !pins.has(pin(3)));
    }
}
