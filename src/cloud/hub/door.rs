//! Who comes in: TLS with a certificate of ours, one HTTP request. Strangers get one short answer and no second request.
//!
//! The requests of [`crate::protocol::enrol`] are answered here too: by people and bridges that have no certificate yet,
//! or none any more.

use std::{
    borrow::Cow,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::{
    Hub,
    strangers::{MustGo, Place},
};
use crate::{
    cloud::{
        enrol::{self, Enrolment, Told},
        store::Paired,
        tls::public_key_hash,
    },
    link::wire::{self, Watched},
    protocol::{
        PATH, Session,
        enrol::{CLOUD_PATH, HELD_FOR, MAX_BODY, PAIR_PATH, RENEW_PATH},
        signing::NONCE_HEADER,
    },
    seams::Stream,
    store::StoreError,
};

/// The largest request head.
const HEAD: usize = 8 * 1024;
/// An answer that was held has this long to leave.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// When a bridge may ask again that could not be served.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(30);

/// Why somebody went.
#[derive(Debug, thiserror::Error)]
pub(super) enum Turned {
    #[error("TLS handshake")]
    Tls(#[source] io::Error),
    #[error("the client's certificate")]
    Certificate(#[source] rustls::Error),
    #[error("HTTP request")]
    Http(#[source] hyper::Error),
    #[error("the request was answered with {0}")]
    Answered(StatusCode),
    #[error("nothing came in time")]
    Slow,
    #[error("others needed the place more")]
    Crowded,
}

/// A bridge whose certificate is good.
pub(super) struct Guest {
    pub(super) paired: Paired,
    /// What its hello must name.
    pub(super) nonce: Session,
    pub(super) socket: WebSocketStream<Watched<TokioIo<Upgraded>>>,
    /// Until the hello it is a stranger still.
    pub(super) place: (Place, MustGo),
}

/// Lets a bridge in, or answers why not, or what else was asked.
pub(super) async fn admit(
    hub: &Hub,
    stream: Box<dyn Stream>,
    from: SocketAddr,
    (place, mut must_go): (Place, MustGo),
    until: Instant,
) -> Result<Guest, Turned> {
    let visit = Visit { place: Mutex::new(Some(place)), until: Mutex::new(until) };
    let visited = visit.go(hub, stream, from.ip());
    let mut visited = pin!(visited);
    let (paired, nonce, upgrade) = loop {
        let until = *locked(&visit.until);
        let waits = locked(&visit.place).is_none();
        tokio::select! {
            biased;
            visited = &mut visited => break visited?,
            _ = &mut must_go, if !waits => {
                if locked(&visit.place).is_some() {
                    return Err(Turned::Crowded);
                }
            }
            () = tokio::time::sleep_until(until) => {
                if *locked(&visit.until) <= until {
                    return Err(Turned::Slow);
                }
            }
        }
    };
    let upgraded = timeout_at(until, upgrade).await.map_err(|_| Turned::Slow)?.map_err(Turned::Http)?;
    let socket = WebSocketStream::from_raw_socket(
        wire::watch(TokioIo::new(upgraded)),
        Role::Server,
        Some(wire::config()),
    )
    .await;
    let place = locked(&visit.place).take().expect("only those who wait for a person give it up");
    Ok(Guest { paired, nonce, socket, place: (place, must_go) })
}

/// One request, and what its visitor is granted.
struct Visit {
    /// Given up by those who have shown that they know a code, and wait for a person.
    place: Mutex<Option<Place>>,
    until: Mutex<Instant>,
}

impl Visit {
    async fn go(
        &self,
        hub: &Hub,
        stream: Box<dyn Stream>,
        from: IpAddr,
    ) -> Result<(Paired, Session, OnUpgrade), Turned> {
        let tls = hub.tls.accept(stream).await.map_err(Turned::Tls)?;
        let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let shown = certificate.map(public_key_hash).transpose().map_err(Turned::Certificate)?;
        let nonce = Session::fresh(&hub.random);
        let admitted = Mutex::new(Err(StatusCode::BAD_REQUEST));
        let service = service_fn(|mut request: Request<Incoming>| {
            let admitted = &admitted;
            async move {
                let (response, result) = match (asked(&request), &hub.enrolment) {
                    (Asked::Websocket, _) => match checked(hub, &request, shown).await {
                        Ok((paired, accept)) => {
                            let upgrade = hyper::upgrade::on(&mut request);
                            (switch(&accept, nonce), Ok((paired, upgrade)))
                        }
                        Err(refusal) => refusal.end(),
                    },
                    (Asked::Cloud, Some(enrolment)) => ended(card(enrolment).await),
                    (Asked::Pair, Some(enrolment)) => ended(self.pair(hub, enrolment, from, request).await),
                    (Asked::Renew, Some(enrolment)) => ended(renew(enrolment, from, request).await),
                    _ => Refusal::NOT_FOUND.end(),
                };
                *locked(admitted) = result;
                Ok::<_, Infallible>(response)
            }
        });
        http1::Builder::new()
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(tls), service)
            .with_upgrades()
            .await
            .map_err(Turned::Http)?;
        let result: Result<(Paired, OnUpgrade), StatusCode> =
            admitted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (paired, upgrade) = result.map_err(Turned::Answered)?;
        Ok((paired, nonce, upgrade))
    }

    async fn pair(
        &self,
        hub: &Hub,
        enrolment: &Enrolment,
        from: IpAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let body = body(request).await?;
        let mut held = None;
        let may_wait = || {
            held = hub.held.try_acquire().ok();
            if held.is_some() {
                *locked(&self.until) = Instant::now() + HELD_FOR + ANSWER_WITHIN;
                drop(locked(&self.place).take());
            }
            held.is_some()
        };
        match enrolment.pair(from, &body, may_wait).await? {
            Told::Admitted(answer) => Ok(json(StatusCode::OK, answer)),
            Told::Waiting(waiting) => {
                let body = serde_json::to_string(&waiting).expect("it has string keys only");
                Ok(json(StatusCode::ACCEPTED, body))
            }
        }
    }
}

/// What a request is about.
enum Asked {
    Websocket,
    Cloud,
    Pair,
    Renew,
    Nothing,
}

fn asked(request: &Request<Incoming>) -> Asked {
    match (request.method(), request.uri().path()) {
        (&Method::GET, PATH) => Asked::Websocket,
        (&Method::GET, CLOUD_PATH) => Asked::Cloud,
        (&Method::POST, PAIR_PATH) => Asked::Pair,
        (&Method::POST, RENEW_PATH) => Asked::Renew,
        _ => Asked::Nothing,
    }
}

async fn card(enrolment: &Enrolment) -> Result<Response<Full<Bytes>>, Refusal> {
    let card = enrolment.card().await.map_err(|error| unavailable(&error))?;
    Ok(json(StatusCode::OK, serde_json::to_string(&card).expect("a card has string keys only")))
}

async fn renew(
    enrolment: &Enrolment,
    from: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let body = body(request).await?;
    Ok(json(StatusCode::OK, enrolment.renew(from, &body).await?))
}

/// The body, of which never more is read than counts.
async fn body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let too_large = Refusal {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        code: "request_too_large",
        message: format!("a request has at most {MAX_BODY} bytes").into(),
        retry_after: None,
    };
    match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large),
        Err(_) => Err(Refusal {
            status: StatusCode::BAD_REQUEST,
            code: "request_malformed",
            message: "the body is cut off".into(),
            retry_after: None,
        }),
    }
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

type Ended = (Response<Full<Bytes>>, Result<(Paired, OnUpgrade), StatusCode>);

fn ended(result: Result<Response<Full<Bytes>>, Refusal>) -> Ended {
    match result {
        Ok(response) => {
            let status = response.status();
            (response, Err(status))
        }
        Err(refusal) => refusal.end(),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer that ends the visit.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
}

impl Refusal {
    const NOT_FOUND: Self = Self::new(StatusCode::NOT_FOUND, "not_found", "only bridges are served here");
    const UNAUTHORIZED: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "no certificate of a bridge that is paired here was shown",
    );
    const UPGRADE_REQUIRED: Self =
        Self::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "a websocket of version 13 is needed");

    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message), retry_after: None }
    }

    fn end(self) -> Ended {
        let status = self.status;
        (self.into_response(), Err(status))
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({"error": {"type": self.code, "message": self.message}});
        let mut response = json(self.status, body.to_string());
        let headers = response.headers_mut();
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, after.as_secs().into());
        }
        response
    }
}

impl From<enrol::Refusal> for Refusal {
    fn from(refusal: enrol::Refusal) -> Self {
        let (status, retry_after) = match &refusal {
            enrol::Refusal::TooMany(after) => (StatusCode::TOO_MANY_REQUESTS, Some(*after)),
            enrol::Refusal::Malformed(_) | enrol::Refusal::Csr | enrol::Refusal::Unproven => {
                (StatusCode::BAD_REQUEST, None)
            }
            enrol::Refusal::Code | enrol::Refusal::Declined | enrol::Refusal::Not(_) => {
                (StatusCode::FORBIDDEN, None)
            }
            enrol::Refusal::Unavailable(error) => return unavailable(error),
        };
        Self { status, code: refusal.code(), message: refusal.to_string().into(), retry_after }
    }
}

/// Judges who wants to speak: certificate, then upgrade, so that a stranger learns nothing but the first.
async fn checked(
    hub: &Hub,
    request: &Request<Incoming>,
    shown: Option<[u8; 32]>,
) -> Result<(Paired, HeaderValue), Refusal> {
    let Some(shown) = shown else {
        return Err(Refusal::UNAUTHORIZED);
    };
    let now = hub.clock.now();
    let paired = match hub.db.run(move |db| db.bridge_by_certificate(now, shown)).await {
        Ok(Some(paired)) => paired,
        Ok(None) => return Err(Refusal::UNAUTHORIZED),
        Err(error) => return Err(unavailable(&error)),
    };
    let accept = accept_key(request).ok_or(Refusal::UPGRADE_REQUIRED)?;
    Ok((paired, accept))
}

fn unavailable(error: &StoreError) -> Refusal {
    tracing::error!(error = error.chain(), "a bridge cannot be served");
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let retry_after = Some(UNAVAILABLE_FOR);
    Refusal { retry_after, ..Refusal::new(status, "unavailable", "try again later") }
}

fn accept_key(request: &Request<Incoming>) -> Option<HeaderValue> {
    let headers = request.headers();
    let names = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let wanted = names(header::CONNECTION, "upgrade")
        && names(header::UPGRADE, "websocket")
        && names(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24 && wanted)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()
}

fn switch(accept: &HeaderValue, nonce: Session) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
    let nonce = HeaderValue::try_from(nonce.to_string()).expect("base64 is printable");
    headers.insert(NONCE_HEADER, nonce);
    response
}
