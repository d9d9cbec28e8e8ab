//! HTTP/1.1 over TLS or, on loopback, in the clear; everything a stranger can make grow is bounded.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue},
    http::request,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Api,
    calls::{self, Call},
    own_errors::OwnErrors,
    params,
    problem::Problem,
};
use crate::{
    cloud::keys,
    model::WorkspaceId,
    seams::{self, Listener, Stream},
};

/// The largest body of a request.
const BODY: usize = 256 * 1024;
/// The longest query string.
const QUERY: usize = 16 * 1024;
/// All headers of a request together.
const HEADERS: usize = 64 * 1024;
/// Connections at a time; each may hold one request.
const CONNECTIONS: usize = 512;
/// A stranger has this long for the TLS handshake, and for a body.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection may idle this long, and its headers may take this long.
const IDLE: Duration = Duration::from_secs(60);
/// A connection is closed after this long, so that clients that never read do not hold their places for ever.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Requests under way have this long to end when the API stops.
const PARTING: Duration = Duration::from_secs(5);

/// Serves the API until `shutdown` turns true, then lets requests under way end.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    tls: Option<TlsAcceptor>,
    api: Arc<Api>,
    mut shutdown: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    while !*shutdown.borrow_and_update() {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            _ = shutdown.changed() => break,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (listener.accept().await, slot)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), Ok(slot)) => {
                let (tls, api, shutdown) = (tls.clone(), Arc::clone(&api), shutdown.clone());
                connections.spawn(seams::task(async move {
                    connection(stream, tls, api, shutdown).await;
                    drop(slot);
                }));
            }
            (Ok(_), Err(_)) => break,
            (Err(error), _) => {
                // Out of file descriptors, mostly: some will be free again.
                tracing::warn!(%error, "the API could not accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(PARTING, ended).await.is_err() {
        tracing::warn!("requests were cut off, because the API stops");
    }
}

async fn connection(
    stream: Box<dyn Stream>,
    tls: Option<TlsAcceptor>,
    api: Arc<Api>,
    shutdown: watch::Receiver<bool>,
) {
    match tls {
        None => speak(stream, "http", api, shutdown).await,
        Some(tls) => match timeout(PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => speak(stream, "https", api, shutdown).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the API failed"),
            Err(_) => tracing::debug!("a TLS handshake with the API took too long"),
        },
    }
}

async fn speak(
    stream: impl Stream + 'static,
    scheme: &'static str,
    api: Arc<Api>,
    mut shutdown: watch::Receiver<bool>,
) {
    let longest_request = longest_request(&api);
    let api_random = api.random.clone();
    let service = service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(respond(api, scheme, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEADERS)
        .serve_connection(TokioIo::new(OwnErrors::new(stream, api_random)), service);
    tokio::pin!(connection);
    let until_stop = async {
        let _ = timeout(LIFETIME, shutdown.wait_for(|stop| *stop)).await;
    };
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = until_stop => {
            connection.as_mut().graceful_shutdown();
            match timeout(longest_request, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("a connection to the API was cut: its client does not read"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}

fn longest_request(api: &Api) -> Duration {
    api.hold + 2 * PATIENCE
}

async fn respond(api: Arc<Api>, scheme: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let id = api.random.uuid().to_string();
    let path = request.uri().path().to_owned();
    let asks_for_methods = request.method() == Method::OPTIONS;
    let (head, mut rest) = request.into_parts();
    let answering = answer(Arc::clone(&api), scheme, head, &mut rest);
    let answered = match timeout(longest_request(&api), answering).await {
        Ok(answered) => answered,
        Err(_) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "request_timeout", "The request took too long"))
        }
    };
    let mut allow = None;
    if asks_for_methods
        || matches!(&answered, Err(problem) if problem.status == StatusCode::METHOD_NOT_ALLOWED)
    {
        allow = api.calls.get(path.as_str()).map(|call| allowed(call));
    }
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(problem) => (problem.status, problem.body()),
    };
    // What is left unread would have the connection closed behind the answer, while the client sends its next request.
    let is_read = drained(&mut rest).await;
    tracing::debug!(request = id, path, status = status.as_u16(), "answered");
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("seam-request-id", id);
    }
    if let Some(allow) = allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    if !is_read {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn allowed(call: &Call) -> String {
    match &call.method {
        method if method == Method::POST => "POST, OPTIONS".into(),
        method if method == Method::GET => "GET, HEAD, POST, OPTIONS".into(),
        method => format!("{method}, POST, OPTIONS"),
    }
}

async fn answer(
    api: Arc<Api>,
    scheme: &str,
    head: request::Parts,
    body: &mut Incoming,
) -> Result<Value, Problem> {
    let path = head.uri.path();
    let Some(&call) = api.calls.get(path) else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("There is no call {}", clipped(path)),
        ));
    };
    if head.method == Method::OPTIONS {
        return Ok(json!({"ok": true}));
    }
    // What answers HEAD leaves the body away.
    let method = if head.method == Method::HEAD { Method::GET } else { head.method };
    if method != Method::POST && method != call.method {
        return Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("{path} takes {}", allowed(call)),
        ));
    }
    let workspace = authorize(&api, &head.headers).await?;
    let args = if method == Method::GET || method == Method::DELETE {
        let query = head.uri.query().unwrap_or_default();
        if query.len() > QUERY {
            return Err(Problem::new(
                StatusCode::URI_TOO_LONG,
                "invalid_query_params",
                "The query string is too long; send the same call as POST",
            ));
        }
        params::from_query(call.params, query)?
    } else {
        let body = read(body).await?;
        params::from_body(call.params, &body).map_err(|problem| match of_another_type(&head.headers) {
            Some(kind) if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() => Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_content_type",
                format!("Expected a body of application/json, received {}", clipped(kind)),
            ),
            _ => problem,
        })?
    };
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let url = format!("{scheme}://{}{path}", host.unwrap_or("localhost"));
    let cursors = api.cursors().await?;
    let request = calls::Request { api, workspace, args, path: call.path, cursors, url };
    let mut answer = (call.run)(request).await?;
    answer.insert("ok".into(), json!(true));
    Ok(Value::Object(answer))
}

/// The type that a body claims to have, if that is not JSON.
fn of_another_type(headers: &HeaderMap) -> Option<&str> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().unwrap_or("something unreadable");
    (!kind.to_ascii_lowercase().contains("json")).then_some(kind)
}

/// Looks the key up by its digest, so that the time it takes tells nothing about how much of a guess was right.
async fn authorize(api: &Api, headers: &HeaderMap) -> Result<WorkspaceId, Problem> {
    let header =
        headers.get(AUTHORIZATION).ok_or_else(|| Problem::unauthorized("No Authorization header"))?;
    let key = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| keys::digest(key.trim()))
        .ok_or_else(|| Problem::unauthorized("Expected \"Authorization: Bearer <API key>\""))?;
    api.db
        .run(move |db| db.workspace_by_key(key))
        .await?
        .ok_or_else(|| Problem::unauthorized("API Key not found"))
}

/// Reads what is left of a body and forgets it. False where that is too much.
async fn drained(body: &mut Incoming) -> bool {
    let all = async {
        let mut room = BODY;
        while let Some(frame) = body.frame().await {
            let read = frame.ok()?.data_ref().map_or(0, Bytes::len);
            room = room.checked_sub(read)?;
        }
        Some(())
    };
    matches!(timeout(PATIENCE, all).await, Ok(Some(())))
}

async fn read(body: &mut Incoming) -> Result<Bytes, Problem> {
    let collected = timeout(PATIENCE, Limited::new(body, BODY).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload_too_large",
            format!("The body is larger than {BODY} bytes"),
        )),
        Ok(Err(_)) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_input", "The body could not be read"))
        }
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The body took too long")),
    }
}

fn clipped(text: &str) -> String {
    text.chars().take(100).collect()
}
