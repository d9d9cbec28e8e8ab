//! Who comes in: TLS with a certificate of ours, one HTTP request. Strangers get one short answer and no second request.

use std::{convert::Infallible, io, sync::Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::Hub;
use crate::{
    cloud::{store::Paired, tls::public_key_hash},
    link::wire::{self, Watched},
    protocol::{PATH, Session, signing::NONCE_HEADER},
    seams::Stream,
    store::StoreError,
};

/// The largest request head.
const HEAD: usize = 8 * 1024;

/// Why somebody was turned away.
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
}

/// A bridge whose certificate is good.
pub(super) struct Guest {
    pub(super) paired: Paired,
    /// What its hello must name.
    pub(super) nonce: Session,
    pub(super) socket: WebSocketStream<Watched<TokioIo<Upgraded>>>,
}

/// Lets a bridge in, or answers why not.
pub(super) async fn admit(hub: &Hub, stream: Box<dyn Stream>) -> Result<Guest, Turned> {
    let tls = hub.tls.accept(stream).await.map_err(Turned::Tls)?;
    let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let shown = certificate.map(public_key_hash).transpose().map_err(Turned::Certificate)?;
    let nonce = Session::fresh(&hub.random);
    let admitted = Mutex::new(Err(StatusCode::BAD_REQUEST));
    let service = service_fn(|mut request: Request<Incoming>| {
        let admitted = &admitted;
        async move {
            let (response, result) = match checked(hub, &request, shown).await {
                Ok((paired, accept)) => {
                    let upgrade = hyper::upgrade::on(&mut request);
                    (switch(&accept, nonce), Ok((paired, upgrade)))
                }
                Err(refusal) => {
                    let status = refusal.status;
                    (refusal.into_response(), Err(status))
                }
            };
            *admitted.lock().expect("no panic while held") = result;
            Ok::<_, Infallible>(response)
        }
    });
    http1::Builder::new()
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(tls), service)
        .with_upgrades()
        .await
        .map_err(Turned::Http)?;
    let result: Result<(Paired, OnUpgrade), StatusCode> = admitted.into_inner().expect("no panic while held");
    let (paired, upgrade) = result.map_err(Turned::Answered)?;
    let upgraded = upgrade.await.map_err(Turned::Http)?;
    let socket = WebSocketStream::from_raw_socket(
        wire::watch(TokioIo::new(upgraded)),
        Role::Server,
        Some(wire::config()),
    )
    .await;
    Ok(Guest { paired, nonce, socket })
}

/// An answer that ends the visit.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

impl Refusal {
    fn into_response(self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({"error": {"type": self.code, "message": self.message}});
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        response
    }
}

/// Judges a request: path, then certificate, then upgrade, so that a stranger learns nothing but the first two.
async fn checked(
    hub: &Hub,
    request: &Request<Incoming>,
    shown: Option<[u8; 32]>,
) -> Result<(Paired, HeaderValue), Refusal> {
    if request.uri().path() != PATH || request.method() != Method::GET {
        return Err(Refusal {
            status: StatusCode::NOT_FOUND,
            code: "not_found",
            message: "only bridges are served here",
        });
    }
    let unauthorized = Refusal {
        status: StatusCode::UNAUTHORIZED,
        code: "unauthorized",
        message: "no certificate of a bridge that is paired here was shown",
    };
    let Some(shown) = shown else {
        return Err(unauthorized);
    };
    let now = hub.clock.now();
    let paired = match hub.db.run(move |db| db.bridge_by_certificate(now, shown)).await {
        Ok(Some(paired)) => paired,
        Ok(None) => return Err(unauthorized),
        Err(error) => return Err(unavailable(&error)),
    };
    let accept = accept_key(request).ok_or(Refusal {
        status: StatusCode::UPGRADE_REQUIRED,
        code: "upgrade_required",
        message: "a websocket of version 13 is needed",
    })?;
    Ok((paired, accept))
}

fn unavailable(error: &StoreError) -> Refusal {
    tracing::error!(%error, "look up a bridge's certificate");
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, code: "unavailable", message: "try again later" }
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
