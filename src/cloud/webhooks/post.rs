//! One delivery: one HTTP request, with one deadline for all of it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Reach, Target, sign::signature, target::NoTarget};
use crate::{
    cloud::{
        api,
        store::{Delivered, Delivery},
    },
    seams::{Clock, Net, Stream},
};

/// From the question for addresses to the status of the answer.
const WITHIN: Duration = Duration::from_secs(15);
const AGENT: &str = concat!("latchd/", env!("CARGO_PKG_VERSION"));

/// How deliveries leave.
pub(crate) struct Post {
    pub(crate) net: Arc<dyn Net>,
    /// Whom a receiver's certificate has to convince.
    pub(crate) tls: Arc<ClientConfig>,
    /// Where they may go.
    pub(crate) reach: Reach,
}

/// Why the receiver does not have it, as far as we know.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    NoTarget(#[from] NoTarget),
    #[error("its name has no address")]
    Unresolved,
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("the exchange broke off: {0}")]
    Broken(hyper::Error),
    #[error("it answered {}", .0.as_u16())]
    Status(StatusCode),
    #[error("its secret is no secret")]
    Unsigned,
    #[error("no answer within {} s", WITHIN.as_secs())]
    Silent,
}

impl Failed {
    /// Whether any other event would have met the same end: not where the receiver says that it is this one.
    fn whatever_it_was(&self) -> bool {
        !matches!(
            self,
            Self::Status(
                StatusCode::BAD_REQUEST
                    | StatusCode::CONFLICT
                    | StatusCode::PAYLOAD_TOO_LARGE
                    | StatusCode::UNPROCESSABLE_ENTITY
            )
        )
    }
}

impl Post {
    /// Delivers an event. Never fails: how it ended is the answer.
    pub(super) async fn deliver(&self, clock: &Clock, delivery: &Delivery) -> Delivered {
        let ended = timeout(WITHIN, self.send(clock, delivery)).await.unwrap_or(Err(Failed::Silent));
        match ended {
            Ok(()) => Delivered::Taken,
            Err(failed) => {
                let why = failed.to_string();
                tracing::info!(webhook = %delivery.webhook, event = %delivery.event.id, why, "not delivered");
                Delivered::Failed { why, whatever_it_was: failed.whatever_it_was() }
            }
        }
    }

    async fn send(&self, clock: &Clock, delivery: &Delivery) -> Result<(), Failed> {
        let target = Target::read(delivery.url.expose(), self.reach)?;
        let body = api::event(delivery.workspace, &delivery.event).to_string();
        // The same for every try: by it a receiver knows a repetition.
        let id = format!("msg_{}", delivery.event.id.0.simple());
        let now = clock.now();
        let signed = signature(&delivery.secret, &id, now, body.as_bytes()).ok_or(Failed::Unsigned)?;
        let mut request = Request::post(&target.path)
            .header(header::HOST, target.host_and_port())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(header::USER_AGENT, HeaderValue::from_static(AGENT))
            .header(header::CONNECTION, HeaderValue::from_static("close"))
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| NoTarget::Malformed)?;
        for (name, value) in [("id", id), ("timestamp", now.as_second().to_string()), ("signature", signed)] {
            let value = HeaderValue::try_from(value).expect("letters, digits and signs of base64");
            for family in ["svix", "webhook"] {
                let name = format!("{family}-{name}").parse::<header::HeaderName>();
                request.headers_mut().insert(name.expect("a header's name"), value.clone());
            }
        }
        let stream = self.connect(&target).await?;
        let status = match &target.tls {
            None => exchange(stream, request).await?,
            Some(name) => {
                let connector = TlsConnector::from(Arc::clone(&self.tls));
                let stream = connector.connect(name.clone(), stream).await.map_err(Failed::Tls)?;
                exchange(stream, request).await?
            }
        };
        // A redirection is followed by nobody: it could lead anywhere.
        match status.is_success() {
            true => Ok(()),
            false => Err(Failed::Status(status)),
        }
    }

    /// A connection to the first address that may be used and answers. An address is judged and then used itself, so that
    /// its name cannot mean another one in between.
    async fn connect(&self, target: &Target) -> Result<Box<dyn Stream>, Failed> {
        let addresses = self.net.resolve(&target.host, target.port).await.map_err(|_| Failed::Unresolved)?;
        let mut trouble = Failed::Unresolved;
        for address in addresses {
            trouble = match self.try_one(target, address).await {
                Ok(stream) => return Ok(stream),
                Err(failed) => failed,
            };
        }
        Err(trouble)
    }

    async fn try_one(&self, target: &Target, address: SocketAddr) -> Result<Box<dyn Stream>, Failed> {
        target.allows(address.ip(), self.reach)?;
        self.net.connect_to(&target.host, address).await.map_err(Failed::Unreachable)
    }
}

/// Sends a request and waits for the status of its answer; what else there is of it is nobody's concern.
async fn exchange(
    stream: impl Stream + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, Failed> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Failed::Broken)?;
    let mut answered = std::pin::pin!(sender.send_request(request));
    tokio::select! {
        biased;
        answer = &mut answered => Ok(answer.map_err(Failed::Broken)?.status()),
        // What it has read by then is still there to be taken.
        _ended = connection => Ok(answered.await.map_err(Failed::Broken)?.status()),
    }
}
