//! Asks an HTTP proxy for a tunnel (RFC 9110, 9.3.6). No byte of TLS leaves before it has agreed.

use std::{io, time::Duration};

use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{Trouble, retry, route::Proxy, wire::shown};

/// A proxy that is there answers within this: it has the cloud to reach meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The head of an answer is no larger; what follows it is not read.
const MOST: usize = 16 * 1024;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyTrouble {
    #[error("its name cannot be resolved: check `proxy` and this machine's DNS")]
    Unresolved(#[source] io::Error),
    #[error("it cannot be reached: check `proxy`, the network and the firewall")]
    Unreachable(#[source] io::Error),
    #[error("it takes no connection in time: check `proxy`, the network and the firewall")]
    ConnectTimeout,
    #[error("it takes the connection and does not answer: look at the proxy")]
    Silent,
    #[error("it closes the connection instead of answering: look at its log, and whether it allows CONNECT")]
    Closed,
    #[error("it does not answer as an HTTP proxy does ({0}): check host and port of `proxy`")]
    NotHttp(String),
    #[error(
        "it asks for a user and password for {realm}: put user:password into a file of mode 0600 and name that file \
         with `proxy_credentials_file`"
    )]
    CredentialsMissing { realm: String },
    #[error("it does not take the user and password for {realm}: mend `proxy_credentials_file`")]
    CredentialsRefused { realm: String },
    #[error(
        "it asks to be shown who we are by {schemes}, and only Basic is known here: ask its keeper for an exemption or \
         for Basic"
    )]
    SchemeUnknown { schemes: String },
    #[error(
        "it answers with a web page ({0}) where a tunnel was due: somebody must log in to this network first"
    )]
    Portal(String),
    #[error("it does not let us through to {to} (HTTP {status}): ask its keeper to allow CONNECT to it")]
    Forbidden { status: u16, to: String },
    #[error("it has no connection to {to} (HTTP {status}): look at its own network and DNS")]
    CloudUnreachable { status: u16, to: String, after: Option<Duration> },
    #[error("it refuses for the moment (HTTP {status})")]
    Busy { status: u16, after: Option<Duration> },
}

impl ProxyTrouble {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Unresolved(_) => "link_proxy_name_unknown",
            Self::Unreachable(_) | Self::ConnectTimeout => "link_proxy_unreachable",
            Self::Silent => "link_proxy_silent",
            Self::Closed => "link_proxy_closed",
            Self::NotHttp(_) => "link_proxy_not_http",
            Self::CredentialsMissing { .. }
            | Self::CredentialsRefused { .. }
            | Self::SchemeUnknown { .. } => "link_proxy_auth",
            Self::Portal(_) => "link_captive_portal",
            Self::Forbidden { .. } => "link_proxy_forbidden",
            Self::CloudUnreachable { .. } => "link_proxy_cloud_unreachable",
            Self::Busy { .. } => "link_proxy_busy",
        }
    }

    /// When it wants to be asked again.
    pub(super) fn after(&self) -> Option<Duration> {
        match self {
            Self::CloudUnreachable { after, .. } | Self::Busy { after, .. } => *after,
            Self::Unresolved(_)
            | Self::Unreachable(_)
            | Self::ConnectTimeout
            | Self::Silent
            | Self::Closed
            | Self::NotHttp(_)
            | Self::CredentialsMissing { .. }
            | Self::CredentialsRefused { .. }
            | Self::SchemeUnknown { .. }
            | Self::Portal(_)
            | Self::Forbidden { .. } => None,
        }
    }

    /// Whether asking again could help without a person's doing.
    pub(super) fn is_curable(&self) -> bool {
        match self {
            Self::Unresolved(_)
            | Self::Unreachable(_)
            | Self::ConnectTimeout
            | Self::Silent
            | Self::Closed
            | Self::CloudUnreachable { .. }
            | Self::Busy { .. } => true,
            Self::NotHttp(_)
            | Self::CredentialsMissing { .. }
            | Self::CredentialsRefused { .. }
            | Self::SchemeUnknown { .. }
            | Self::Portal(_)
            | Self::Forbidden { .. } => false,
        }
    }
}

/// Asks for a tunnel to `to` (HOST:PORT). When it returns well, the next byte is the cloud's.
pub(super) async fn tunnel<S>(
    stream: &mut S,
    proxy: &Proxy,
    to: &str,
    now: Timestamp,
) -> Result<(), ProxyTrouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let asked = async {
        stream.write_all(&request).await.map_err(|_| ProxyTrouble::Closed)?;
        stream.flush().await.map_err(|_| ProxyTrouble::Closed)?;
        head(stream).await
    };
    let head = timeout(ANSWER_WITHIN, asked).await.map_err(|_| ProxyTrouble::Silent)??;
    judge(&head, proxy.authorization.is_some(), to, now)
}

/// Asks for a tunnel on a stream that leads to a proxy, and says what is in the way as the link does.
///
/// # Errors
/// What the proxy says or does instead.
///
/// # Panics
/// Outside a tokio runtime that has a clock.
pub async fn ask_proxy<S>(stream: &mut S, proxy: &Proxy, to: &str, now: Timestamp) -> Result<(), Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let trouble = |why: ProxyTrouble| Trouble { code: why.code(), message: why.to_string() };
    tunnel(stream, proxy, to, now).await.map_err(trouble)
}

/// Reads up to the empty line. A peer that says more than that before we have spoken is no tunnel to a TLS server.
async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String, ProxyTrouble> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let read = stream.read(&mut chunk).await.map_err(|_| ProxyTrouble::Closed)?;
        head.extend_from_slice(&chunk[..read]);
        if read == 0 && head.is_empty() {
            return Err(ProxyTrouble::Closed);
        }
        if !b"HTTP/1.".starts_with(&head[..head.len().min(7)]) {
            let begin = String::from_utf8_lossy(&head[..head.len().min(40)]).into_owned();
            return Err(ProxyTrouble::NotHttp(format!("it says {}", shown(&begin))));
        }
        if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let goes_on = head.len() > end + 4;
            head.truncate(end + 2);
            let head = String::from_utf8_lossy(&head).into_owned();
            if goes_on && status(&head).is_some_and(is_well) {
                return Err(ProxyTrouble::NotHttp("it speaks before TLS has begun".into()));
            }
            return Ok(head);
        }
        if read == 0 {
            return Err(ProxyTrouble::Closed);
        }
        if head.len() > MOST {
            return Err(ProxyTrouble::NotHttp("its answer does not end".into()));
        }
    }
}

/// The status of an answer, if its first line has one where it should be.
fn status(head: &str) -> Option<u16> {
    let digits = head.split("\r\n").next()?.split(' ').nth(1)?;
    let is_one = digits.len() == 3 && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_one.then(|| digits.parse().ok()).flatten()
}

fn is_well(status: u16) -> bool {
    (200..300).contains(&status)
}

/// What the head of an answer means.
fn judge(head: &str, has_credentials: bool, to: &str, now: Timestamp) -> Result<(), ProxyTrouble> {
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let Some(status) = status(head) else {
        return Err(ProxyTrouble::NotHttp(format!("it says {}", shown(line))));
    };
    let fields: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let all = |name: &'static str| {
        fields
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    let first = |name| all(name).next();
    let after = first("retry-after").and_then(|value| retry::retry_after(value, first("date"), now));
    let to = || to.to_owned();
    Err(match status {
        status if is_well(status) => return Ok(()),
        300..400 | 511 => ProxyTrouble::Portal(match first("location") {
            Some(location) => format!("at {}", shown(location)),
            None => format!("HTTP {status}"),
        }),
        407 => refused(all("proxy-authenticate").collect(), has_credentials),
        429 | 503 => ProxyTrouble::Busy { status, after },
        502 | 504 => ProxyTrouble::CloudUnreachable { status, to: to(), after },
        500.. => ProxyTrouble::Busy { status, after },
        _ => ProxyTrouble::Forbidden { status, to: to() },
    })
}

fn refused(challenges: Vec<&str>, has_credentials: bool) -> ProxyTrouble {
    let scheme = |challenge: &&str| challenge.split([' ', ',']).next().unwrap_or_default().to_owned();
    let basic = challenges.iter().find(|challenge| scheme(challenge).eq_ignore_ascii_case("basic"));
    let Some(basic) = basic else {
        let schemes: Vec<_> = challenges.iter().map(scheme).filter(|scheme| !scheme.is_empty()).collect();
        return match schemes.is_empty() {
            true => ProxyTrouble::NotHttp("it wants to know who we are and does not say how".into()),
            false => ProxyTrouble::SchemeUnknown { schemes: shown(&schemes.join(", ")) },
        };
    };
    let realm = basic.split_once("realm=\"").and_then(|(_, rest)| rest.split_once('"'));
    let realm = match realm {
        Some((realm, _)) => format!("\"{}\"", shown(realm)),
        None => "itself".into(),
    };
    match has_credentials {
        true => ProxyTrouble::CredentialsRefused { realm },
        false => ProxyTrouble::CredentialsMissing { realm },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;
    use crate::model::Private;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn proxy() -> Proxy {
        Proxy::new("proxy", 3128)
    }

    /// What asking comes to when the proxy answers with these bytes, a few at a time, and then does nothing.
    async fn ask(proxy: &Proxy, answer: &[u8], at_a_time: usize) -> Result<(), ProxyTrouble> {
        let (mut ours, mut theirs) = duplex(1 << 20);
        let asked = tunnel(&mut ours, proxy, "cloud.example:443", now());
        let answered = async {
            for part in answer.chunks(at_a_time) {
                theirs.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            asked = asked => asked,
            () = answered => unreachable!(),
        }
    }

    async fn code(answer: &str) -> &'static str {
        let whole = ask(&proxy(), answer.as_bytes(), usize::MAX).await.unwrap_err().code();
        let split = ask(&proxy(), answer.as_bytes(), 1).await.unwrap_err().code();
        assert_eq!(whole, split, "{answer:?}");
        whole
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_asked_for_with_host_and_credentials_and_nothing_follows() {
        let proxy = proxy().with_credentials(&Private::new("Aladdin:open sesame")).unwrap();
        let (mut ours, mut theirs) = duplex(1024);
        let asked = tokio::spawn(async move { tunnel(&mut ours, &proxy, "[::1]:443", now()).await });
        let mut heard = vec![0; 1024];
        let read = theirs.read(&mut heard).await.unwrap();
        let wanted = "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\
                      Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&heard[..read]), wanted);
        theirs.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 x\r\n\r\n").await.unwrap();
        asked.await.unwrap().unwrap();
        assert_eq!(theirs.read(&mut heard).await.unwrap(), 0, "not a byte more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_proxy_answers_instead_is_named() {
        for (answer, wanted) in [
            ("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"Fjord\"\r\n\r\n", "link_proxy_auth"),
            (
                "HTTP/1.1 407 x\r\nproxy-authenticate: Negotiate\r\nproxy-authenticate: NTLM\r\n\r\n",
                "link_proxy_auth",
            ),
            ("HTTP/1.1 407 x\r\n\r\n", "link_proxy_not_http"),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "link_proxy_forbidden"),
            ("HTTP/1.1 405 x\r\n\r\n", "link_proxy_forbidden"),
            ("HTTP/1.0 502 x\r\n\r\n", "link_proxy_cloud_unreachable"),
            ("HTTP/1.1 503 x\r\nRetry-After: 60\r\n\r\n", "link_proxy_busy"),
            ("HTTP/1.1 302 x\r\nLocation: http://login.example/\r\n\r\n", "link_captive_portal"),
            ("HTTP/1.1 OK\r\n\r\n", "link_proxy_not_http"),
            ("HTTP/1.1 +20 OK\r\n\r\n", "link_proxy_not_http"),
            ("SSH-2.0-OpenSSH_9.9\r\n", "link_proxy_not_http"),
            ("<html>", "link_proxy_not_http"),
            ("HTTP/1.1 200 OK\r\n", "link_proxy_silent"),
            ("", "link_proxy_silent"),
        ] {
            assert_eq!(code(answer).await, wanted, "{answer:?}");
        }
        for early in [&b"HTTP/1.1 200 OK\r\n\r\nsurprise"[..], b"HTTP/1.10 200 OK\r\n\r\nsurprise"] {
            let early = ask(&proxy(), early, usize::MAX).await.unwrap_err();
            assert_eq!(early.code(), "link_proxy_not_http");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2 * MOST));
        assert_eq!(code(&endless).await, "link_proxy_not_http");
    }

    #[tokio::test(start_paused = true)]
    async fn a_demand_for_credentials_says_for_what_and_tells_missing_from_wrong() {
        let answer = b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"Fjord staff\"\r\n\r\n";
        let missing = ask(&proxy(), answer, 7).await.unwrap_err().to_string();
        assert!(
            missing.contains("\"Fjord staff\"") && missing.contains("proxy_credentials_file"),
            "{missing}"
        );
        let with = proxy().with_credentials(&Private::new("a:secret")).unwrap();
        let wrong = ask(&with, answer, 7).await.unwrap_err();
        assert!(matches!(wrong, ProxyTrouble::CredentialsRefused { .. }));
        assert!(!format!("{wrong:?}{wrong}").contains("secret"));
        let ntlm = ask(&proxy(), b"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\n\r\n", 7).await.unwrap_err();
        assert!(ntlm.to_string().contains("NTLM"), "{ntlm}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_drips_is_given_up_in_time() {
        let began = tokio::time::Instant::now();
        let (mut ours, mut theirs) = duplex(1024);
        let drips = async {
            theirs.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            loop {
                theirs.write_all(b"x").await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let proxy = proxy();
        tokio::select! {
            result = tunnel(&mut ours, &proxy, "c:1", now()) => {
                assert_eq!(result.unwrap_err().code(), "link_proxy_silent");
            }
            () = drips => {}
        }
        assert_eq!(began.elapsed(), ANSWER_WITHIN);
    }

    proptest! {
        #[test]
        fn no_head_panics(head: String, status in 100_u16..1000, name: String, value: String) {
            let _ = judge(&head, false, "c:1", now());
            let head = format!("HTTP/1.1 {status} x\r\n{name}:{value}\r\nproxy-authenticate:{value}\r\n");
            let judged = judge(&head, true, "c:1", now());
            prop_assert_eq!(judged.is_ok(), (200..300).contains(&status));
        }
    }
}
