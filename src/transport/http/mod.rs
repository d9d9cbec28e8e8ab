//! HTTP/1.1 to a server on the property: one request, one answer, one connection.
//!
//! A connection is made for each request and closed after its answer, so that nothing that comes late is ever taken for
//! the next one's answer. Nothing is followed (no redirects), nothing is tried again, and everything has a bound: time,
//! the size of heads and bodies, and how many connections there are at once.
//!
//! A failure says whether bytes of the request may have left. As long as there is no connection (nobody there, TLS
//! refused) nothing has; from the first attempt to write, something may have.

mod tls;
mod watched;

use std::{
    fmt, io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
pub use hyper::Method;
use hyper::{body::Body as _, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsConnector;

pub use tls::TrustError;
use watched::Watched;

use crate::{
    config::{HttpConfig, HttpUrl},
    seams::{Net, Stream},
};

/// An answer that is coming in when its time is over may pause no longer than this.
const LULL: Duration = Duration::from_millis(500);

/// What a client puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long name, connection and TLS may take together, and how long to wait for a place among the connections.
    pub connect: Duration,
    /// How long the server may take nothing of a request that is being sent.
    pub stall: Duration,
    /// How much longer an answer may take that is coming in when its time is over, as long as it does not pause.
    pub rest: Duration,
    /// Most bytes of an answer's head; at least 8192.
    pub head: usize,
    /// Most bytes of an answer's body.
    pub body: usize,
    /// Most connections at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            rest: Duration::ZERO,
            head: 16 * 1024,
            body: 1024 * 1024,
            connections: 16,
        }
    }
}

/// A server and how to reach it.
pub struct Client {
    net: Arc<dyn Net>,
    url: HttpUrl,
    tls: Option<TlsConnector>,
    limits: Limits,
    places: Arc<Semaphore>,
}

/// What is asked. Nothing of it is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Path and query, spelled as they go out. Plain ASCII.
    pub resource: String,
    /// Headers beside `Host` and `Content-Length`, by lower-case names. Plain ASCII.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty for none.
    pub body: Vec<u8>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("method", &self.method)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// An answer, whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status, e.g. 200.
    pub status: u16,
    /// `Content-Type`, where it is plain text.
    pub content_type: Option<String>,
    /// `Date`, where it is plain text.
    pub date: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("bytes", &self.body.len()).finish()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {why}")]
pub struct HttpError {
    /// Whom it was for.
    pub url: String,
    /// Whether bytes of the request may have left.
    pub may_have_left: bool,
    /// What happened.
    pub why: Failure,
}

/// What happened to a request.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody answers at the address.
    #[error("nobody answers there ({0})")]
    Unreachable(io::Error),
    /// TLS did not come about.
    #[error("its certificate is not taken, or it speaks no TLS ({0})")]
    Tls(io::Error),
    /// As many connections as may be are in use.
    #[error("as many requests as may be are under way already")]
    Busy,
    /// The connection broke, or the server took nothing for too long.
    #[error("the connection broke ({0})")]
    Lost(io::Error),
    /// No whole answer in time.
    #[error("no whole answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// What came is not HTTP.
    #[error("what it answers is not HTTP ({0})")]
    Malformed(hyper::Error),
    /// More came than is taken.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
}

impl Failure {
    /// Stable name: shown to operators, sent to the cloud, used as a metric label.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "tcp_unreachable",
            Self::Tls(_) => "tls_refused",
            Self::Busy => "line_busy",
            Self::Lost(_) | Self::Silent(_) => "line_down",
            Self::Malformed(_) | Self::TooLong(_) => "line_garbled",
        }
    }
}

impl Client {
    /// A client of one server, over `net`. Reads the file of authorities, where there is one.
    ///
    /// # Errors
    /// When TLS is wanted and there is nobody to trust.
    pub fn new(net: Arc<dyn Net>, config: &HttpConfig, limits: Limits) -> Result<Self, TrustError> {
        let tls = match config.url.is_tls {
            true => Some(tls::connector(config)?),
            false => None,
        };
        let places = Arc::new(Semaphore::new(limits.connections));
        Ok(Self { net, url: config.url.clone(), tls, limits, places })
    }

    /// Where the server is.
    #[must_use]
    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// Makes a connection for one request. Whoever drops the future has sent nothing.
    ///
    /// # Errors
    /// When there is none in time: nothing has left.
    pub async fn connect(&self) -> Result<Connection, HttpError> {
        let unsent = |why| HttpError { url: self.url.to_string(), may_have_left: false, why };
        let place = timeout(self.limits.connect, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(unsent(Failure::Busy)) };
        match timeout(self.limits.connect, self.stream()).await {
            Ok(Ok(stream)) => {
                Ok(Connection { stream, url: self.url.clone(), limits: self.limits, _place: place })
            }
            Ok(Err(why)) => Err(unsent(why)),
            Err(_elapsed) => Err(unsent(Failure::Unreachable(io::ErrorKind::TimedOut.into()))),
        }
    }

    async fn stream(&self) -> Result<Box<dyn Stream>, Failure> {
        let stream = self.net.connect(&self.url.host, self.url.port).await.map_err(Failure::Unreachable)?;
        let Some(tls) = &self.tls else { return Ok(stream) };
        let name = tls::name_of(&self.url.host).map_err(Failure::Tls)?;
        let stream = tls.connect(name, stream).await.map_err(Failure::Tls)?;
        Ok(Box::new(stream))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A connection that nothing was said on yet.
pub struct Connection {
    stream: Box<dyn Stream>,
    url: HttpUrl,
    limits: Limits,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Asks, and hears the whole answer. Whoever drops the future must take it that the request has left.
    ///
    /// # Errors
    /// When no whole answer comes within `within`, and, where it is coming in then, [`Limits::rest`]; the error says whether
    /// bytes may have left.
    pub async fn ask(self, ask: Ask, within: Duration) -> Result<Answer, HttpError> {
        let Self { stream, url, limits, _place } = self;
        let left = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(AtomicUsize::new(0));
        let stream = Watched::new(stream, limits.stall, Arc::clone(&left), Arc::clone(&heard));
        let mut exchange = pin!(exchange(stream, &url, limits, ask));
        let mut answer = timeout(within, &mut exchange).await;
        let mut waited = within;
        let mut before = 0;
        while answer.is_err() && waited < within + limits.rest {
            let so_far = heard.load(Ordering::SeqCst);
            if so_far == before {
                break;
            }
            before = so_far;
            waited += LULL;
            answer = timeout(LULL, &mut exchange).await;
        }
        let answer = answer.unwrap_or(Err(Failure::Silent(waited)));
        let may_have_left = left.load(Ordering::SeqCst);
        tracing::trace!(target: "wire", url = %url, answer = ?answer, may_have_left);
        answer.map_err(|why| HttpError { url: url.to_string(), may_have_left, why })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("url", &self.url).finish_non_exhaustive()
    }
}

async fn exchange(stream: Watched, url: &HttpUrl, limits: Limits, ask: Ask) -> Result<Answer, Failure> {
    let request = request(url, ask);
    let (mut sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .max_buf_size(limits.head.max(8192))
        .max_header_size(limits.head)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failure)?;
    let answered = async {
        let (head, body) = sender.send_request(request).await.map_err(failure)?.into_parts();
        // Said before a byte of it is kept.
        if body.size_hint().lower() > limits.body as u64 {
            return Err(Failure::TooLong(limits.body));
        }
        let body = Limited::new(body, limits.body).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => failure(*error),
            Err(error) if error.is::<LengthLimitError>() => Failure::TooLong(limits.body),
            Err(error) => Failure::Lost(io::Error::other(error)),
        })?;
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Answer {
            status: head.status.as_u16(),
            content_type: text(header::CONTENT_TYPE),
            date: text(header::DATE),
            body: body.to_bytes().into(),
        })
    };
    let mut answered = pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        // What it has read by then is still there to be taken.
        _ended = connection => answered.await,
    }
}

fn request(url: &HttpUrl, ask: Ask) -> hyper::Request<Full<Bytes>> {
    let built = hyper::Request::builder().header(header::HOST, url.authority());
    let built = built.method(ask.method).uri(ask.resource);
    let built = ask.headers.into_iter().fold(built, |built, (name, value)| built.header(name, value));
    built.body(Full::new(ask.body.into())).expect("a checked url and plain ASCII headers make a request")
}

fn failure(error: hyper::Error) -> Failure {
    match error.is_parse() || error.is_parse_too_large() {
        true => Failure::Malformed(error),
        false => Failure::Lost(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests;
