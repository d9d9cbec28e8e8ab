//! Connects: TCP, TLS, websocket. Knows what can go wrong and what a person can do about it, not what is said.

use std::{error::Error, io, sync::Arc};

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self,
        http::{HeaderValue, Request, StatusCode, header},
    },
};

use super::{
    Settings, Trouble,
    settings::Place,
    wire::{self, Watched, WireError},
};
use crate::{
    protocol::{
        PATH, Refused, RefusedCode, Session,
        signing::{Distrust, NONCE_HEADER},
    },
    seams::{Net, Stream},
};

/// A connection to a cloud.
pub(super) type Socket = WebSocketStream<Watched<TlsStream<Box<dyn Stream>>>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the cloud's name {host} cannot be resolved: check the network and its DNS")]
    NameUnknown { host: String, source: io::Error },
    #[error("the cloud at {host}:{port} cannot be reached: check the network, the address and the firewall")]
    Unreachable { host: String, port: u16, source: io::Error },
    #[error(
        "the cloud's certificate was not issued by a certificate authority that is trusted here: `ca_file` is missing \
         or belongs to another cloud"
    )]
    Untrusted,
    #[error("the cloud's certificate is not made out to {host}: use a name that it is good for")]
    WrongName { host: String },
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
    #[error("TLS with the cloud failed")]
    Tls(#[source] io::Error),
    #[error(
        "the cloud does not know this bridge's certificate: it was revoked, or belongs to another cloud; pair the site \
         again with `latchd pair`"
    )]
    NotPaired,
    #[error("this bridge's certificate has expired, by the cloud's clock: it is renewed by itself")]
    CertificateExpired(#[source] io::Error),
    #[error("connecting again with the renewed certificate")]
    Renewed,
    #[error("a server at {host}:{port} answers with HTTP {status}: its service is down for the moment")]
    Unavailable { host: String, port: u16, status: StatusCode },
    #[error("what answers at {host}:{port} is no latchd cloud: {what}")]
    NotLatchd { host: String, port: u16, what: String },
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

impl End {
    fn code(&self) -> &'static str {
        match self {
            Self::NameUnknown { .. } => "link_name_unknown",
            Self::Unreachable { .. } => "link_unreachable",
            Self::Untrusted => "link_tls_untrusted",
            Self::WrongName { .. } => "link_tls_wrong_name",
            Self::NotYetValid { .. } => "link_tls_not_yet_valid",
            Self::Expired { .. } => "link_tls_expired",
            Self::Tls(_) => "link_tls_failed",
            Self::NotPaired => "link_not_paired",
            Self::CertificateExpired(_) => "link_certificate_expired",
            Self::Renewed => "link_renewed",
            Self::Unavailable { .. } => "link_unavailable",
            Self::NotLatchd { .. } => "link_not_latchd",
            Self::VersionUnknown => "link_version_unknown",
            Self::NotWelcomed => "link_not_welcomed",
            Self::Wire(WireError::Closed | WireError::Broken(_)) => "link_closed",
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

    /// What the cloud is told, where it can still hear.
    pub(super) fn refusal(&self) -> Option<Refused> {
        let code = match self {
            Self::Wire(error) => return error.refusal(),
            Self::Unexpected => RefusedCode::FrameUnexpected,
            Self::VersionUnknown => RefusedCode::VersionUnknown,
            _ => return None,
        };
        Some(Refused { code, message: self.to_string() })
    }

    /// What the agent is told.
    pub(super) fn trouble(&self) -> Trouble {
        let mut message = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Trouble { code: self.code(), message }
    }
}

/// Connects up to the point where both sides can exchange frames; gives the cloud's nonce as well.
pub(super) async fn dial(
    settings: &Settings,
    net: &dyn Net,
    now: Timestamp,
) -> Result<(Socket, Session), End> {
    let tls = secure(&settings.place, &settings.tls, net, now).await?;
    let (socket, response) =
        client_async_with_config(request(settings)?, wire::watch(tls), Some(wire::config()))
            .await
            .map_err(|error| not_upgraded(settings, error))?;
    let nonce = response.headers().get(NONCE_HEADER).and_then(|nonce| Session::read(nonce.to_str().ok()?));
    let nonce = nonce.ok_or_else(|| End::NotLatchd {
        host: settings.place.host.clone(),
        port: settings.place.port,
        what: format!("it opens a websocket without the header {NONCE_HEADER}"),
    })?;
    Ok((socket, nonce))
}

/// The way to a cloud up to the point where TLS stands; whom to take for the cloud, `tls` says.
pub(super) async fn secure(
    place: &Place,
    tls: &Arc<ClientConfig>,
    net: &dyn Net,
    now: Timestamp,
) -> Result<TlsStream<Box<dyn Stream>>, End> {
    let tcp = net.connect(&place.host, place.port).await.map_err(|source| not_connected(place, source))?;
    let connected = TlsConnector::from(Arc::clone(tls)).connect(place.name.clone(), tcp).await;
    connected.map_err(|error| not_trusted(place, now, error))
}

fn request(settings: &Settings) -> Result<Request<()>, End> {
    let place = &settings.place;
    Request::builder()
        .uri(format!("wss://{place}{PATH}"))
        .header(header::HOST, place.to_string())
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
        .header(header::SEC_WEBSOCKET_KEY, tungstenite::handshake::client::generate_key())
        .body(())
        .map_err(|error| End::Wire(WireError::Broken(error.into())))
}

fn not_connected(place: &Place, source: io::Error) -> End {
    let Place { host, port, .. } = place;
    // Name resolution has no error kind of its own; its text in the standard library is the only mark.
    match source.to_string().starts_with("failed to lookup address") {
        true => End::NameUnknown { host: host.clone(), source },
        false => End::Unreachable { host: host.clone(), port: *port, source },
    }
}

/// What it means that TLS failed, or that a certificate is not the one of `place`.
pub(super) fn not_trusted(place: &Place, now: Timestamp, error: io::Error) -> End {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                End::NotYetValid { now }
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => End::Expired { now },
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                End::WrongName { host: place.host.clone() }
            }
            // A private authority that was made anew keeps its name: then the signature is what does not fit.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => End::Untrusted,
            _ => End::Tls(error),
        },
        _ if is_our_certificate_over(&error) => End::CertificateExpired(error),
        Some(rustls::Error::InvalidMessage(_)) => End::NotLatchd {
            host: place.host.clone(),
            port: place.port,
            what: "it does not speak TLS".into(),
        },
        _ => End::Tls(error),
    }
}

/// Whether the cloud says that the certificate that we showed has ended.
fn is_our_certificate_over(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)))
}

fn not_upgraded(settings: &Settings, error: tungstenite::Error) -> End {
    let (host, port) = (settings.place.host.clone(), settings.place.port);
    let what = match error {
        tungstenite::Error::Http(response) => match response.status() {
            StatusCode::UNAUTHORIZED => return End::NotPaired,
            status @ (StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => return End::Unavailable { host, port, status },
            status => format!("it answers with HTTP {status}"),
        },
        tungstenite::Error::Protocol(tungstenite::error::ProtocolError::HandshakeIncomplete) => {
            return End::Wire(WireError::Closed);
        }
        // In TLS 1.3 the cloud judges our certificate after our handshake is over: its word arrives in place of an answer.
        tungstenite::Error::Io(error) if is_our_certificate_over(&error) => {
            return End::CertificateExpired(error);
        }
        tungstenite::Error::Io(_) => return End::Wire(WireError::Broken(error)),
        error => error.to_string(),
    };
    End::NotLatchd { host, port, what }
}
