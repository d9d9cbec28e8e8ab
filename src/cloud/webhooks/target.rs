//! Where events may be delivered to. Whoever holds an API key may name any address; without rules the cloud would knock
//! for them at doors that only the cloud can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::Uri;
use rustls::pki_types::ServerName;

/// Which addresses the operator lets webhooks have, beside public ones by https.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// Those of private networks, by https.
    pub private: bool,
    /// Those of this machine itself, by https or plain http.
    pub loopback: bool,
}

/// An address that events are delivered to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whom TLS has to prove; without it, plain http.
    pub(super) tls: Option<ServerName<'static>>,
    /// Path and query.
    pub(super) path: String,
}

/// Why there can be no webhook at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTarget {
    #[error("Expected an absolute https address, e.g. https://example.com/events")]
    Malformed,
    #[error("An address of a webhook carries no name and no password")]
    Credentials,
    #[error("Events carry codes, so they are delivered by https only")]
    Plain,
    #[error("This address belongs to the cloud's own machine, and the cloud does not deliver there")]
    Loopback,
    #[error("This address belongs to a private network, and the cloud does not deliver there")]
    Private,
    #[error("Nothing can be delivered to this address")]
    Nowhere,
}

impl Target {
    /// Reads a URL, and refuses what can be told without asking a name server. The addresses of a name are looked at when
    /// something is delivered, each time: a name may have others by then.
    pub(crate) fn read(url: &str, reach: Reach) -> Result<Self, NoTarget> {
        if url.contains('#') || url.chars().any(|char| char.is_whitespace() || char.is_control()) {
            return Err(NoTarget::Malformed);
        }
        let uri: Uri = url.parse().map_err(|_| NoTarget::Malformed)?;
        let authority = uri.authority().ok_or(NoTarget::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(NoTarget::Credentials);
        }
        let is_plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(NoTarget::Malformed),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| NoTarget::Malformed)?;
        let is_local = match &name {
            ServerName::IpAddress(ip) => {
                let ip = IpAddr::from(*ip);
                reach.check(ip)?;
                ip.to_canonical().is_loopback()
            }
            _ => is_localhost(&host),
        };
        if is_local && !reach.loopback {
            return Err(NoTarget::Loopback);
        }
        if is_plain && !is_local {
            return Err(NoTarget::Plain);
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {
                if is_plain {
                    80
                } else {
                    443
                }
            }
            _ => authority.port_u16().filter(|port| *port != 0).ok_or(NoTarget::Malformed)?,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port, tls: (!is_plain).then_some(name), path })
    }

    /// Host and port, as a request names them.
    pub(super) fn host_and_port(&self) -> String {
        let is_usual = self.port == if self.tls.is_some() { 443 } else { 80 };
        match (self.host.contains(':'), is_usual) {
            (false, true) => self.host.clone(),
            (false, false) => format!("{}:{}", self.host, self.port),
            (true, true) => format!("[{}]", self.host),
            (true, false) => format!("[{}]:{}", self.host, self.port),
        }
    }

    /// Whether an address that its name stands for may be used: one of plain http only if it never leaves the machine.
    pub(super) fn allows(&self, ip: IpAddr, reach: Reach) -> Result<(), NoTarget> {
        reach.check(ip)?;
        match self.tls.is_none() && !ip.to_canonical().is_loopback() {
            true => Err(NoTarget::Plain),
            false => Ok(()),
        }
    }
}

/// RFC 6761: these names never leave the machine.
fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

impl Reach {
    fn check(self, ip: IpAddr) -> Result<(), NoTarget> {
        let ip = inner(ip);
        if ip.is_loopback() {
            return if self.loopback { Ok(()) } else { Err(NoTarget::Loopback) };
        }
        let (nowhere, private) = match ip {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                // Link-local addresses are where clouds keep their machines' credentials; 0.0.0.0/8 is this machine.
                let nowhere = a == 0 || ip.is_link_local() || ip.is_multicast() || a >= 240;
                let is_of_tests = a == 198 && (18..20).contains(&b);
                // RFC 6598 is the private side of a carrier.
                (nowhere, ip.is_private() || is_of_tests || (a == 100 && (64..128).contains(&b)))
            }
            IpAddr::V6(ip) => {
                let first = ip.segments()[0];
                let site_local = first & 0xffc0 == 0xfec0;
                // RFC 8215: translated to whatever the network's own translator says.
                let translated = ip.segments()[..3] == [0x64, 0xff9b, 1];
                let nowhere = ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local();
                (nowhere, ip.is_unique_local() || site_local || translated)
            }
        };
        match (nowhere, private) {
            (true, _) => Err(NoTarget::Nowhere),
            (false, true) if !self.private => Err(NoTarget::Private),
            (false, _) => Ok(()),
        }
    }
}

/// The IPv4 address that an IPv6 address stands for, where it does: mapped, compatible, of NAT64 (RFC 6052) or 6to4.
fn inner(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = ip else { return ip };
    let last = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match six.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => last(high, low),
        [0x2002, high, low, ..] => last(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if six != Ipv6Addr::LOCALHOST && high != 0 => last(high, low),
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: Reach = Reach { private: false, loopback: false };
    const ALL: Reach = Reach { private: true, loopback: true };

    fn read(url: &str, reach: Reach) -> Result<(), NoTarget> {
        Target::read(url, reach).map(|_| ())
    }

    #[test]
    fn a_public_address_by_https_may_be_told() {
        let target = Target::read("https://example.com/a/b?c=d", PUBLIC).unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.path.as_str()),
            ("example.com", 443, "/a/b?c=d")
        );
        assert_eq!(target.host_and_port(), "example.com");
        let target = Target::read("https://[2606:4700::1111]:8443", PUBLIC).unwrap();
        assert_eq!((target.host_and_port().as_str(), target.path.as_str()), ("[2606:4700::1111]:8443", "/"));
        assert_eq!(target.allows("93.184.216.34".parse().unwrap(), PUBLIC), Ok(()));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "",
            "example.com",
            "/events",
            "ftp://example.com",
            "https://",
            "https:///a",
            "https://a b/",
            "https://ex ample.com",
            "https://example.com/#a",
            "https://example.com:0/",
            "https://example.com:99999/",
            "https://-/",
            "https://exa\u{0}mple.com/",
        ] {
            assert_eq!(read(url, ALL), Err(NoTarget::Malformed), "{url}");
        }
        assert_eq!(read("https://jane:secret@example.com/", ALL), Err(NoTarget::Credentials));
        assert_eq!(read("http://example.com/", ALL), Err(NoTarget::Plain));
    }

    /// Each spelling of an address that only this machine or its network can reach.
    #[test]
    fn what_only_the_cloud_can_reach_is_refused_unless_the_operator_allows_it() {
        let loopback = [
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "localhost",
            "LOCALHOST",
            "a.localhost",
            "localhost.",
        ];
        for host in loopback {
            assert_eq!(read(&format!("https://{host}/"), PUBLIC), Err(NoTarget::Loopback), "{host}");
            assert_eq!(read(&format!("https://{host}/"), ALL), Ok(()), "{host}");
        }
        let private = [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "[fd00::1]",
            "[fec0::1]",
            "[::ffff:10.0.0.1]",
            "[2002:c0a8:101::1]",
            "[::10.0.0.1]",
            "[64:ff9b:1::a9fe:a9fe]",
            "198.18.0.1",
        ];
        for host in private {
            assert_eq!(read(&format!("https://{host}/"), PUBLIC), Err(NoTarget::Private), "{host}");
            assert_eq!(read(&format!("https://{host}/"), ALL), Ok(()), "{host}");
            assert_eq!(read(&format!("http://{host}/"), ALL), Err(NoTarget::Plain), "{host}");
        }
        for host in [
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "[::]",
            "[fe80::1]",
            "[ff02::1]",
            "[::ffff:169.254.169.254]",
        ] {
            assert_eq!(read(&format!("https://{host}/"), ALL), Err(NoTarget::Nowhere), "{host}");
        }
    }

    /// A public name whose addresses are not.
    #[test]
    fn the_addresses_of_a_name_are_judged_like_any_other() {
        let target = Target::read("https://example.com/", PUBLIC).unwrap();
        let allows = |ip: &str| target.allows(ip.parse().unwrap(), PUBLIC);
        assert_eq!(allows("127.0.0.1"), Err(NoTarget::Loopback));
        assert_eq!(allows("10.0.0.1"), Err(NoTarget::Private));
        assert_eq!(allows("169.254.169.254"), Err(NoTarget::Nowhere));
        let plain = Target::read("http://localhost:8000/", ALL).unwrap();
        assert_eq!(plain.allows("127.0.0.1".parse().unwrap(), ALL), Ok(()));
        assert_eq!(plain.allows("93.184.216.34".parse().unwrap(), ALL), Err(NoTarget::Plain));
    }
}
