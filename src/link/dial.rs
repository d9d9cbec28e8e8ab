//! Connects: names, addresses, a proxy, TLS, websocket. Knows what can go wrong and what a person can do about it, not
//! what is said.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use jiff::Timestamp;
use rustls::{
    AlertDescription, CertificateError, ClientConfig,
    pki_types::{CertificateDer, UnixTime},
    time_provider::TimeProvider,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self,
        handshake::client::Response,
        http::{HeaderValue, Request, StatusCode, header},
    },
};

use super::{
    Settings, Trouble,
    issuer::issuer,
    machine::{Again, Failure},
    proxy::{ProxyTrouble, tunnel},
    race::race,
    retry,
    route::{Endpoint, Route, at},
    trust::{Doubt, DoubtKind},
    wire::{self, Watched, WireError},
};
use crate::{
    protocol::{
        MAX_RETRY_AFTER, PATH, Refused, RefusedCode, Session,
        signing::{Distrust, NONCE_HEADER},
    },
    seams::{Net, ResolveError, Stream},
};

/// A connection to a cloud.
pub(super) type Socket = WebSocketStream<Watched<TlsStream<Box<dyn Stream>>>>;

/// No machine that runs this has lived before: a clock that shows an earlier time is wrong.
const EARLIEST: &str = "2026-01-01T00:00:00Z";

/// What time it is, as far as that is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// By this machine's clock.
    pub(super) host: Timestamp,
    /// By the cloud's, where it has told since we began.
    pub(super) cloud: Option<Timestamp>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the cloud's name {host} does not exist: check its address and the DNS of this network")]
    NameUnknown { host: String, source: io::Error },
    #[error("no name server answers for {host}: check this machine's network and its DNS servers")]
    DnsSilent { host: String, source: Option<io::Error> },
    #[error("nobody takes connections at {at}: check the port, and whether the cloud runs")]
    PortClosed { at: String },
    #[error("the cloud at {at} cannot be reached: check the network, the address and the firewall")]
    Unreachable { at: String, source: io::Error },
    #[error("the cloud at {at} takes no connection in time: check the network, the address and the firewall")]
    ConnectTimeout { at: String },
    #[error("the proxy {at}")]
    Proxy { at: String, source: ProxyTrouble },
    #[error(
        "the cloud's certificate (issued by {issuer}) was not issued by a certificate authority that is trusted here: \
         `ca_file` is missing or belongs to another cloud{}", if *.is_proxied { ", or the proxy puts its own in place" } else { "" }
    )]
    Untrusted { issuer: String, is_proxied: bool },
    #[error(
        "somebody between here and the cloud reads along: {issuer}, which this machine trusts, has made a certificate \
         in the cloud's name. This is not worked round: ask who runs the proxy or the firewall to exempt {host} from \
         TLS inspection"
    )]
    Inspected { issuer: String, host: String },
    #[error(
        "the cloud's authority ({issuer}) vouches for a key that is none of those in `pins`: ask who runs the cloud \
         whether it has changed"
    )]
    NotPinned { issuer: String },
    #[error("the cloud's certificate is not made out to {host}: use a name that it is good for")]
    WrongName { host: String },
    #[error(
        "this machine's clock is wrong: it shows {host}{}; set up time synchronisation. It is tried again until the \
         time is right", by_the_cloud(*.cloud)
    )]
    ClockWrong { host: Timestamp, cloud: Option<Timestamp> },
    #[error(
        "the cloud's certificate is not valid yet, by this machine's clock ({now}): the clock is behind; it is tried \
         again until the time is right"
    )]
    NotYetValid { now: Timestamp },
    #[error(
        "the cloud's certificate has expired, by this machine's clock ({now}): if the clock is right, renew the \
         certificate"
    )]
    Expired { now: Timestamp },
    #[error(
        "the server at {at} speaks no TLS that is still safe (1.2 or 1.3, and no old ciphers): update it, or what \
         is before it"
    )]
    TlsVersion { at: String },
    #[error(
        "the server at {at} takes the connection and does not answer to TLS: look at it and at what is before it"
    )]
    TlsSilent { at: String },
    #[error("the server at {at} ended TLS ({alert:?}): look at its log")]
    TlsRefused { at: String, alert: AlertDescription },
    #[error("TLS with the cloud failed")]
    Tls(#[source] io::Error),
    #[error(
        "a web page answers where the cloud was due ({what}): somebody must log in to this network first, or it must \
         let {host} pass"
    )]
    CaptivePortal { host: String, what: String },
    #[error("the server at {at} speaks TLS and does not answer to HTTP: look at it and at what is before it")]
    HttpSilent { at: String },
    #[error(
        "the cloud does not know this bridge's certificate: it was revoked, or belongs to another cloud; pair the site \
         again with `latchd pair --replace`"
    )]
    NotPaired,
    #[error("this bridge's certificate has expired, by the cloud's clock: it is renewed by itself")]
    CertificateExpired(#[source] io::Error),
    #[error("connecting again with the renewed certificate")]
    Renewed,
    #[error("the cloud at {at} knows who we are and will not have us (HTTP 403): ask who runs it")]
    Forbidden { at: String },
    #[error(
        "something between here and {at} asks for proxy credentials (HTTP 407): set `proxy` and \
         `proxy_credentials_file`"
    )]
    HiddenProxy { at: String },
    #[error(
        "the server at {at} answers HTTP 426 to a websocket: something in between strips it, or the server is too new; \
         let the address pass, or update latchd"
    )]
    UpgradeRequired { at: String },
    #[error("the cloud at {at} has had too many requests (HTTP 429): it is tried again later")]
    TooMany { at: String, after: Option<Duration> },
    #[error("a server at {at} answers with HTTP {status}: its service is down for the moment")]
    Unavailable { at: String, status: StatusCode, after: Option<Duration> },
    #[error("what answers at {at} is no latchd cloud: {what}")]
    NotLatchd { at: String, what: String },
    #[error("cloud and bridge have no version of their language in common: update the older one")]
    VersionUnknown,
    #[error("the cloud did not welcome this bridge within 30 s")]
    NotWelcomed,
    #[error("the connection failed")]
    Wire(#[from] WireError),
    #[error("the cloud sent a frame out of turn")]
    Unexpected,
    #[error("the cloud ended the connection: {}", wire::shown(&.0.message))]
    Refused(Refused),
    /// The agent is gone; nobody is left to tell.
    #[error("the agent has stopped")]
    AgentStopped,
}

fn by_the_cloud(cloud: Option<Timestamp>) -> String {
    cloud.map_or_else(String::new, |cloud| format!(" where it is {cloud} by the cloud's"))
}

impl End {
    fn code(&self) -> &'static str {
        match self {
            Self::NameUnknown { .. } => "link_name_unknown",
            Self::DnsSilent { .. } => "link_dns_silent",
            Self::PortClosed { .. } => "link_port_closed",
            Self::Unreachable { .. } => "link_unreachable",
            Self::ConnectTimeout { .. } => "link_connect_timeout",
            Self::Proxy { source, .. } => source.code(),
            Self::Untrusted { .. } => "link_tls_untrusted",
            Self::Inspected { .. } => "link_tls_inspected",
            Self::NotPinned { .. } => "link_tls_not_pinned",
            Self::WrongName { .. } => "link_tls_wrong_name",
            Self::ClockWrong { .. } => "link_clock_wrong",
            Self::NotYetValid { .. } => "link_tls_not_yet_valid",
            Self::Expired { .. } => "link_tls_expired",
            Self::TlsVersion { .. } => "link_tls_version",
            Self::TlsSilent { .. } => "link_tls_silent",
            Self::TlsRefused { .. } => "link_tls_refused",
            Self::Tls(_) => "link_tls_failed",
            Self::CaptivePortal { .. } => "link_captive_portal",
            Self::HttpSilent { .. } => "link_http_silent",
            Self::NotPaired => "link_not_paired",
            Self::CertificateExpired(_) => "link_certificate_expired",
            Self::Renewed => "link_renewed",
            Self::Forbidden { .. } => "link_forbidden",
            Self::HiddenProxy { .. } => "link_proxy_auth",
            Self::UpgradeRequired { .. } => "link_upgrade_required",
            Self::TooMany { .. } => "link_too_many",
            Self::Unavailable { .. } => "link_unavailable",
            Self::NotLatchd { .. } => "link_not_latchd",
            Self::VersionUnknown => "link_version_unknown",
            Self::NotWelcomed => "link_not_welcomed",
            Self::Wire(WireError::Closed | WireError::Broken(_)) => "link_closed",
            Self::Wire(WireError::ClosedWith { code, .. }) => retry::closing(*code).code,
            Self::Wire(WireError::Silent) => "link_silent",
            Self::Wire(WireError::NotRead) => "link_not_read",
            Self::Wire(WireError::TooLarge) => "link_frame_too_large",
            Self::Wire(WireError::Malformed(_)) => "link_frame_malformed",
            Self::Wire(WireError::Withheld) => "link_messages_withheld",
            Self::Wire(WireError::Distrusted(distrust)) => match distrust {
                Distrust::KeyUnknown(_) => "link_key_unknown",
                Distrust::Expired { .. } => "link_message_expired",
                Distrust::Malformed(_) | Distrust::Endless => "link_frame_malformed",
                Distrust::Unsigned(_)
                | Distrust::Altered
                | Distrust::Misdirected(_)
                | Distrust::OtherSession
                | Distrust::Gap { .. }
                | Distrust::Repeated { .. } => "link_tampered",
            },
            Self::Unexpected => "link_frame_unexpected",
            Self::Refused(refused) => match refused.code {
                RefusedCode::VersionUnknown => "link_version_unknown",
                RefusedCode::Fenced => "link_fenced",
                RefusedCode::Restarting => "link_cloud_restarting",
                RefusedCode::StreamGap => "link_stream_gap",
                RefusedCode::Revoked => "link_not_paired",
                RefusedCode::CertificateEnded => "link_certificate_expired",
                RefusedCode::StandingUnknown => "link_standing_unknown",
                RefusedCode::KeyUnknown => "link_key_unknown",
                RefusedCode::MessageExpired => "link_message_expired",
                RefusedCode::MessagesWithheld => "link_messages_withheld",
                RefusedCode::SignatureMissing
                | RefusedCode::SignatureInvalid
                | RefusedCode::MessageReplayed
                | RefusedCode::MessageMissing => "link_tampered",
                RefusedCode::FrameMalformed
                | RefusedCode::FrameTooLarge
                | RefusedCode::FrameUnexpected
                | RefusedCode::LimitExceeded
                | RefusedCode::Other => "link_refused",
            },
            Self::AgentStopped => "link_agent_stopped",
        }
    }

    /// What it means for the next attempt.
    pub(super) fn failure(&self) -> Failure {
        Failure { again: self.again(), is_curable: self.is_curable() }
    }

    fn again(&self) -> Again {
        let after = match self {
            Self::TooMany { after, .. } | Self::Unavailable { after, .. } => *after,
            Self::Proxy { source, .. } => source.after(),
            Self::Wire(WireError::ClosedWith { code, .. }) => return retry::closing(*code).again,
            // A time of our own: there is nothing to spread.
            Self::Refused(Refused { retry_after_ms: Some(after), .. }) => {
                let after = Duration::from_millis(u64::from(*after)).min(MAX_RETRY_AFTER);
                return Again::NotBefore { after, spread: Duration::ZERO };
            }
            _ => None,
        };
        // Whoever was sent away together does not come back together.
        after.map_or(Again::Soon, |after| Again::NotBefore { after, spread: after / 4 })
    }

    /// Whether trying again could help without a person's doing.
    fn is_curable(&self) -> bool {
        match self {
            Self::DnsSilent { .. }
            | Self::PortClosed { .. }
            | Self::Unreachable { .. }
            | Self::ConnectTimeout { .. }
            | Self::ClockWrong { .. }
            | Self::NotYetValid { .. }
            | Self::TlsSilent { .. }
            | Self::Tls(_)
            | Self::HttpSilent { .. }
            | Self::TooMany { .. }
            | Self::Unavailable { .. }
            | Self::NotWelcomed
            | Self::CertificateExpired(_)
            | Self::Renewed
            | Self::AgentStopped => true,
            Self::NameUnknown { .. }
            | Self::Untrusted { .. }
            | Self::Inspected { .. }
            | Self::NotPinned { .. }
            | Self::WrongName { .. }
            | Self::Expired { .. }
            | Self::TlsVersion { .. }
            | Self::TlsRefused { .. }
            | Self::CaptivePortal { .. }
            | Self::NotPaired
            | Self::Forbidden { .. }
            | Self::HiddenProxy { .. }
            | Self::UpgradeRequired { .. }
            | Self::NotLatchd { .. }
            | Self::VersionUnknown
            | Self::Unexpected => false,
            Self::Proxy { source, .. } => source.is_curable(),
            Self::Wire(error) => match error {
                WireError::ClosedWith { code, .. } => retry::closing(*code).is_curable,
                WireError::Closed | WireError::Broken(_) | WireError::Silent | WireError::NotRead => true,
                WireError::Withheld => true,
                WireError::TooLarge | WireError::Malformed(_) | WireError::Distrusted(_) => false,
            },
            Self::Refused(refused) => match refused.code {
                RefusedCode::Fenced
                | RefusedCode::Restarting
                | RefusedCode::LimitExceeded
                | RefusedCode::CertificateEnded
                | RefusedCode::MessageExpired
                | RefusedCode::MessagesWithheld
                | RefusedCode::MessageMissing
                | RefusedCode::MessageReplayed => true,
                RefusedCode::VersionUnknown
                | RefusedCode::KeyUnknown
                | RefusedCode::Revoked
                | RefusedCode::StandingUnknown
                | RefusedCode::SignatureInvalid
                | RefusedCode::SignatureMissing
                | RefusedCode::FrameMalformed
                | RefusedCode::FrameTooLarge
                | RefusedCode::FrameUnexpected
                | RefusedCode::StreamGap
                | RefusedCode::Other => false,
            },
        }
    }

    /// What the cloud is told, where it can still hear.
    pub(super) fn refusal(&self) -> Option<Refused> {
        let code = match self {
            Self::Wire(error) => return error.refusal(),
            Self::Unexpected => RefusedCode::FrameUnexpected,
            Self::VersionUnknown => RefusedCode::VersionUnknown,
            _ => return None,
        };
        Some(Refused { code, message: self.to_string(), retry_after_ms: None })
    }

    /// What the agent is told.
    pub(super) fn trouble(&self) -> Trouble {
        let mut message = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        if let Self::Wire(WireError::ClosedWith { code, .. }) = self {
            message = format!("{message}: {}", retry::closing(*code).meaning);
        }
        Trouble { code: self.code(), message }
    }
}

/// Connects to an address up to the point where both sides can exchange frames, all before one instant; gives the
/// cloud's nonce as well.
pub(super) async fn dial(
    settings: &Settings,
    endpoint: &Endpoint,
    net: &dyn Net,
    moment: Moment,
    until: Instant,
) -> Result<(Socket, Session), End> {
    let call = Call { route: &settings.route, endpoint, net, moment, until };
    let tls = call.secure(&settings.tls).await?;
    let asked = client_async_with_config(request(endpoint)?, wire::watch(tls), Some(wire::config()));
    match timeout_at(until, asked).await {
        Err(_elapsed) => Err(End::HttpSilent { at: endpoint.to_string() }),
        Ok(Err(error)) => Err(call.not_upgraded(error)),
        Ok(Ok((socket, response))) => {
            let nonce = response.headers().get(NONCE_HEADER);
            let nonce = nonce.and_then(|nonce| Session::read(nonce.to_str().ok()?));
            let nonce = nonce.ok_or_else(|| End::NotLatchd {
                at: endpoint.to_string(),
                what: format!("it opens a websocket without the header {NONCE_HEADER}"),
            })?;
            Ok((socket, nonce))
        }
    }
}

fn request(endpoint: &Endpoint) -> Result<Request<()>, End> {
    let host = endpoint.to_string();
    Request::builder()
        .uri(format!("wss://{host}{PATH}"))
        .header(header::HOST, host)
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
        .header(header::SEC_WEBSOCKET_KEY, tungstenite::handshake::client::generate_key())
        .body(())
        .map_err(|error| End::Wire(WireError::Broken(error.into())))
}

/// One attempt, and what its failures mean.
pub(super) struct Call<'a> {
    pub(super) route: &'a Route,
    pub(super) endpoint: &'a Endpoint,
    pub(super) net: &'a dyn Net,
    pub(super) moment: Moment,
    pub(super) until: Instant,
}

impl Call<'_> {
    /// A TLS stream whose other end is the cloud's; whom to take for it, `tls` says.
    pub(super) async fn secure(&self, tls: &ClientConfig) -> Result<TlsStream<Box<dyn Stream>>, End> {
        let (tcp, overheard) = overhear(self.open().await?);
        let connector = TlsConnector::from(dated(tls, self.moment.host));
        match timeout_at(self.until, connector.connect(self.endpoint.name.clone(), tcp)).await {
            Err(_elapsed) => Err(End::TlsSilent { at: self.endpoint.to_string() }),
            Ok(Err(error)) => Err(self.without_tls(error, &overheard)),
            Ok(Ok(tls)) => Ok(tls),
        }
    }

    /// What it means that a certificate is not the one that was due.
    pub(super) fn not_trusted(&self, error: rustls::Error, certificate: &CertificateDer<'_>) -> End {
        match &error {
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => {
                let is_proxied = self.route.proxy_to(self.endpoint).is_some();
                End::Untrusted { issuer: issuer(certificate), is_proxied }
            }
            _ => self.without_tls(io::Error::other(error), &Overheard::default()),
        }
    }

    /// A byte stream whose other end is the cloud's.
    async fn open(&self) -> Result<Box<dyn Stream>, End> {
        let Some(proxy) = self.route.proxy_to(self.endpoint) else {
            return self
                .reach(&self.endpoint.host, self.endpoint.port)
                .await
                .map_err(|why| self.unreached(why));
        };
        let through = async {
            let mut stream = self.reach(&proxy.host, proxy.port).await.map_err(|why| match why {
                Unreached::Unresolved(Some(ResolveError::Unknown(source) | ResolveError::Silent(source))) => {
                    ProxyTrouble::Unresolved(source)
                }
                Unreached::Unresolved(None) => ProxyTrouble::Unresolved(io::ErrorKind::TimedOut.into()),
                Unreached::Refused(source) => ProxyTrouble::Unreachable(source),
                Unreached::Silent => ProxyTrouble::ConnectTimeout,
            })?;
            let to = self.endpoint.to_string();
            let asked = tunnel(&mut stream, proxy, &to, self.moment.host);
            timeout_at(self.until, asked).await.unwrap_or(Err(ProxyTrouble::Silent))?;
            Ok(stream)
        };
        through.await.map_err(|source| End::Proxy { at: at(&proxy.host, proxy.port), source })
    }

    async fn reach(&self, host: &str, port: u16) -> Result<Box<dyn Stream>, Unreached> {
        let addresses = match timeout_at(self.until, self.net.resolve(host, port)).await {
            Err(_elapsed) => return Err(Unreached::Unresolved(None)),
            Ok(Err(error)) => return Err(Unreached::Unresolved(Some(error))),
            Ok(Ok(addresses)) => addresses,
        };
        match timeout_at(self.until, race(self.net, host, addresses)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => Err(Unreached::Refused(error)),
            Ok(Err(_)) | Err(_) => Err(Unreached::Silent),
        }
    }

    fn unreached(&self, why: Unreached) -> End {
        let (host, at) = (self.endpoint.host.clone(), self.endpoint.to_string());
        match why {
            Unreached::Unresolved(Some(ResolveError::Unknown(source))) => End::NameUnknown { host, source },
            Unreached::Unresolved(Some(ResolveError::Silent(source))) => {
                End::DnsSilent { host, source: Some(source) }
            }
            Unreached::Unresolved(None) => End::DnsSilent { host, source: None },
            Unreached::Refused(source) if source.kind() == io::ErrorKind::ConnectionRefused => {
                End::PortClosed { at }
            }
            Unreached::Refused(source) => End::Unreachable { at, source },
            Unreached::Silent => End::ConnectTimeout { at },
        }
    }

    fn without_tls(&self, error: io::Error, overheard: &Overheard) -> End {
        let (host, at) = (self.endpoint.host.clone(), self.endpoint.to_string());
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(why)) => match why {
                CertificateError::NotValidYetContext { not_before, .. } => {
                    self.not_valid_yet(Some(*not_before))
                }
                CertificateError::NotValidYet => self.not_valid_yet(None),
                CertificateError::ExpiredContext { not_after, .. } => self.expired(Some(*not_after)),
                CertificateError::Expired => self.expired(None),
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    End::WrongName { host }
                }
                why => match Doubt::behind(why) {
                    Some(doubt) => self.doubted(doubt),
                    None => End::Tls(error),
                },
            },
            Some(rustls::Error::InvalidMessage(_)) if overheard.is_web_page() => {
                End::CaptivePortal { host, what: "plain HTTP instead of TLS".into() }
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                End::NotLatchd { at, what: "it does not speak TLS".into() }
            }
            Some(rustls::Error::PeerIncompatible(_)) => End::TlsVersion { at },
            Some(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)) => End::TlsVersion { at },
            Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => {
                End::CertificateExpired(error)
            }
            Some(rustls::Error::AlertReceived(alert)) => End::TlsRefused { at, alert: *alert },
            _ => End::Tls(error),
        }
    }

    fn doubted(&self, doubt: &Doubt) -> End {
        let (issuer, host) = (doubt.issuer.clone(), self.endpoint.host.clone());
        match doubt.kind {
            DoubtKind::Untrusted => {
                let is_proxied = self.route.proxy_to(self.endpoint).is_some();
                End::Untrusted { issuer, is_proxied }
            }
            DoubtKind::Inspected => End::Inspected { issuer, host },
            DoubtKind::NotPinned => End::NotPinned { issuer },
        }
    }

    fn not_valid_yet(&self, from: Option<UnixTime>) -> End {
        let Moment { host, cloud } = self.moment;
        let earliest: Timestamp = EARLIEST.parse().unwrap_or(Timestamp::UNIX_EPOCH);
        let is_valid_there = cloud.is_some_and(|cloud| from.is_some_and(|from| from <= unix(cloud)));
        match host < earliest || is_valid_there {
            true => End::ClockWrong { host, cloud },
            false => End::NotYetValid { now: host },
        }
    }

    fn expired(&self, after: Option<UnixTime>) -> End {
        let Moment { host, cloud } = self.moment;
        let is_valid_there = cloud.is_some_and(|cloud| after.is_some_and(|after| unix(cloud) <= after));
        match is_valid_there {
            true => End::ClockWrong { host, cloud },
            false => End::Expired { now: host },
        }
    }

    fn not_upgraded(&self, error: tungstenite::Error) -> End {
        let what = match error {
            tungstenite::Error::Http(response) => return self.answered(&response),
            tungstenite::Error::Protocol(tungstenite::error::ProtocolError::HandshakeIncomplete) => {
                return End::Wire(WireError::Closed);
            }
            tungstenite::Error::Io(error) => {
                // In TLS 1.3 the server judges us after we have begun to speak.
                let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
                return match cause {
                    Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => {
                        End::CertificateExpired(error)
                    }
                    Some(rustls::Error::AlertReceived(alert)) => {
                        End::TlsRefused { at: self.endpoint.to_string(), alert: *alert }
                    }
                    _ => End::Wire(WireError::Broken(error.into())),
                };
            }
            error => wire::shown(&error.to_string()),
        };
        End::NotLatchd { at: self.endpoint.to_string(), what }
    }

    fn answered(&self, response: &Response) -> End {
        let (host, at) = (self.endpoint.host.clone(), self.endpoint.to_string());
        let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let after = field(header::RETRY_AFTER)
            .and_then(|value| retry::retry_after(value, field(header::DATE), self.moment.host));
        let is_page = field(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"));
        match response.status() {
            status if status.is_redirection() => {
                let to = field(header::LOCATION).map(|to| format!(", to {}", wire::shown(to)));
                End::CaptivePortal {
                    host,
                    what: format!("HTTP {}{}", status.as_u16(), to.unwrap_or_default()),
                }
            }
            StatusCode::NETWORK_AUTHENTICATION_REQUIRED => {
                End::CaptivePortal { host, what: "HTTP 511".into() }
            }
            StatusCode::OK if is_page => End::CaptivePortal { host, what: "HTTP 200 and HTML".into() },
            StatusCode::UNAUTHORIZED => End::NotPaired,
            StatusCode::FORBIDDEN => End::Forbidden { at },
            StatusCode::NOT_FOUND => End::NotLatchd {
                at,
                what: "there is nothing for bridges (HTTP 404): check address and port".into(),
            },
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => End::HiddenProxy { at },
            StatusCode::UPGRADE_REQUIRED => End::UpgradeRequired { at },
            StatusCode::TOO_MANY_REQUESTS => End::TooMany { at, after },
            status if status.is_server_error() => End::Unavailable { at, status, after },
            status => End::NotLatchd { at, what: format!("it answers with HTTP {status}") },
        }
    }
}

/// Why there is no byte stream to a host.
enum Unreached {
    /// By its name servers; nothing where time ran out.
    Unresolved(Option<ResolveError>),
    Refused(io::Error),
    Silent,
}

/// TLS that judges certificates by one instant.
fn dated(tls: &ClientConfig, now: Timestamp) -> Arc<ClientConfig> {
    let mut tls = tls.clone();
    tls.time_provider = Arc::new(At(unix(now)));
    Arc::new(tls)
}

fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(
        Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default(),
    )
}

#[derive(Debug)]
struct At(UnixTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

/// The first bytes of a peer: what it is, where it is not what it should be.
#[derive(Debug, Clone, Default)]
struct Overheard(Arc<Mutex<Vec<u8>>>);

impl Overheard {
    const MOST: usize = 16;

    fn is_web_page(&self) -> bool {
        let bytes = self.0.lock().expect("no panic while held");
        let begin = bytes.trim_ascii_start();
        begin.starts_with(b"HTTP/") || begin.starts_with(b"<")
    }
}

fn overhear(inner: Box<dyn Stream>) -> (Box<dyn Stream>, Overheard) {
    let overheard = Overheard::default();
    let stream = Overhearing { inner, heard: Some(overheard.clone()) };
    (Box::new(stream), overheard)
}

struct Overhearing {
    inner: Box<dyn Stream>,
    heard: Option<Overheard>,
}

impl AsyncRead for Overhearing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        if let Some(Overheard(bytes)) = &self.heard {
            let mut bytes = bytes.lock().expect("no panic while held");
            let room = Overheard::MOST - bytes.len();
            bytes.extend(buffer.filled()[before..].iter().take(room));
            let is_enough = bytes.len() == Overheard::MOST;
            drop(bytes);
            if is_enough {
                self.heard = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Overhearing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
