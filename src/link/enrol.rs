//! The requests by which a site is taken in and goes on: one HTTP exchange each, over TLS in which only the cloud shows
//! a certificate, with one deadline for all of it. Knows whom TLS believes; what the answers' signatures are worth, it
//! leaves to whoever asked.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::{
    LinkError, Route, Trouble, Trust,
    dial::{Call, Moment},
    route::Endpoint,
    settings::{read_roots, system_roots},
};
use crate::{
    protocol::enrol::{
        Answer, CLOUD_PATH, CloudCard, HELD_FOR, MAX_ANSWER, PAIR_PATH, PairRequest, RENEW_PATH,
        RenewRequest, Waiting,
    },
    seams::{Clock, Net, Stream},
};

/// One exchange, from the first byte of the connection to the last of the answer.
const WITHIN: Duration = Duration::from_secs(30);
/// A clock further off than this explains why a certificate does not count.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(10);

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// There is no way to the cloud, or what is there is not to be believed.
    #[error("{}", .0.message)]
    Link(Trouble),
    /// What answers shows a certificate that is not of the authority that it names.
    #[error(
        "what answers at {at} shows a certificate that the cloud's own authority did not issue: something on the way \
         inspects TLS, or is in the cloud's place; this is not worked round: let {at} pass uninspected"
    )]
    Inspected {
        /// `HOST:PORT`.
        at: String,
    },
    /// A certificate does not count, and the clocks say why.
    #[error(
        "this machine's clock is wrong: it shows {host}, and the cloud's shows {cloud}; set it, or set up time \
         synchronisation, and try again"
    )]
    ClockWrong {
        /// This machine's time.
        host: Timestamp,
        /// The cloud's.
        cloud: Timestamp,
    },
    /// No answer in time.
    #[error("{at} did not answer within {} s: check the network, and whether the cloud works", .within.as_secs())]
    Silent {
        /// `HOST:PORT`.
        at: String,
        /// All the time it had.
        within: Duration,
    },
    /// The connection ended before the whole answer had come.
    #[error("the connection to {at} ended before the answer had come")]
    Lost {
        /// `HOST:PORT`.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// What answers does not speak this language.
    #[error("what answers at {at} is no latchd cloud, or one of another age: {what}")]
    NotLatchd {
        /// `HOST:PORT`.
        at: String,
        /// What it does instead.
        what: String,
    },
    /// The cloud says no.
    #[error("the cloud says no ({kind}): {message}")]
    Refused {
        /// The answer's status.
        status: u16,
        /// The stable name.
        kind: String,
        /// For a person, in the cloud's words.
        message: String,
    },
    /// The cloud cannot answer now.
    #[error("the cloud cannot answer at the moment ({kind}): {message}; try again in {} s", .after.as_secs())]
    Later {
        /// The stable name.
        kind: String,
        /// For a person, in the cloud's words.
        message: String,
        /// When it is worth another try.
        after: Duration,
    },
}

impl EnrolError {
    /// Whether the cloud has heard the request and will not grant it, however often it is sent again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Link(_)
            | Self::Inspected { .. }
            | Self::ClockWrong { .. }
            | Self::Silent { .. }
            | Self::Lost { .. }
            | Self::NotLatchd { .. }
            | Self::Later { .. } => false,
        }
    }

    /// How long the cloud wants to be left alone, if it said so.
    #[must_use]
    pub fn after(&self) -> Option<Duration> {
        match self {
            Self::Later { after, .. } => Some(*after),
            Self::Refused { .. }
            | Self::Link(_)
            | Self::Inspected { .. }
            | Self::ClockWrong { .. }
            | Self::Silent { .. }
            | Self::Lost { .. }
            | Self::NotLatchd { .. } => None,
        }
    }
}

/// Where a cloud takes bridges in.
#[derive(Clone)]
pub struct Gate {
    route: Route,
    net: Arc<dyn Net>,
    clock: Clock,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("route", &self.route).finish_non_exhaustive()
    }
}

/// A cloud that has said who it is, before anything was told to it.
#[derive(Debug, Clone)]
pub struct Met {
    /// What it said.
    pub card: CloudCard,
    /// Who vouches for its certificate: its own authority, or whom this site trusts.
    pub roots: Arc<RootCertStore>,
}

/// What came of a request to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The cloud has answered.
    Answered(Answer),
    /// A person at the cloud has not.
    Waiting(Waiting),
}

impl Gate {
    /// The gate at an address: `https://HOST:PORT` as people write it, or `wss://HOST:PORT` as it is kept.
    ///
    /// # Errors
    /// When it is not of this form.
    pub fn at(url: &str, net: Arc<dyn Net>, clock: Clock) -> Result<Self, LinkError> {
        let url = url.trim();
        let wss = url.strip_prefix("https://").map(|rest| format!("wss://{rest}"));
        Ok(Self { route: Route::to(wss.as_deref().unwrap_or(url))?, net, clock })
    }

    /// The same by another way: through a proxy, or to further addresses.
    #[must_use]
    pub fn by(mut self, route: Route) -> Self {
        self.route = route;
        self
    }

    fn endpoint(&self) -> &Endpoint {
        &self.route.endpoints[0]
    }

    fn call<'a>(&'a self, endpoint: &'a Endpoint, until: Instant) -> Call<'a> {
        let moment = Moment { host: self.clock.now(), cloud: None };
        Call { route: &self.route, endpoint, net: &*self.net, moment, until }
    }

    /// Where bridges dial in: `wss://HOST:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("wss://{}", self.endpoint())
    }

    /// Asks who is there. Nothing is told. Its certificate must be of whom the site trusts (`ca`, or else the system's
    /// roots); that of a cloud with an authority of its own, of that authority. Whether the authority is the cloud's is
    /// for a person to compare.
    ///
    /// # Errors
    /// When nobody is there, or it is not to be believed.
    pub async fn meet(&self, ca: Option<Arc<RootCertStore>>) -> Result<Met, EnrolError> {
        let remembered = Arc::new(Remembering::default());
        let tls = config(&self.clock, |builder| {
            builder.dangerous().with_custom_certificate_verifier(remembered.clone()).with_no_client_auth()
        })?;
        let reply = self.exchange(&tls, Method::GET, CLOUD_PATH, Bytes::new(), WITHIN).await?;
        let card: CloudCard = match reply.status {
            StatusCode::OK => self.read(&reply.body)?,
            status => return Err(self.refused(status, &reply)),
        };
        if card.cloud_keys.is_empty() {
            return Err(self.not_latchd("it names no key of its own"));
        }
        let chain = remembered.chain();
        let own = card.authority.as_deref();
        let own = own.map(|pem| read_roots(Path::new("the cloud's card"), pem.as_bytes()).map(Arc::new));
        let own = own.transpose().map_err(|_| self.not_latchd("its authority is not one"))?;
        let roots = match (own, ca) {
            (Some(own), None) => own,
            (own, Some(ca)) => {
                self.vouched(&chain, &ca, &card)?;
                own.unwrap_or(ca)
            }
            (None, None) => match system_roots() {
                Ok(roots) => Arc::new(roots),
                Err(error) => return Err(EnrolError::Link(trouble(&error))),
            },
        };
        match self.vouched(&chain, &roots, &card) {
            Err(EnrolError::Link(trouble))
                if card.authority.is_some() && trouble.code == "link_tls_untrusted" =>
            {
                Err(EnrolError::Inspected { at: self.endpoint().to_string() })
            }
            vouched => vouched.map(|()| Met { card, roots }),
        }
    }

    /// Asks to be taken in.
    ///
    /// # Errors
    /// When there is no answer, or it is no.
    pub async fn pair(&self, roots: &Arc<RootCertStore>, request: &PairRequest) -> Result<Asked, EnrolError> {
        let tls = Trust::private(RootCertStore::clone(roots)).client_config(None);
        let tls = Arc::new(tls.map_err(|error| EnrolError::Link(trouble(&error)))?);
        let reply = self.post(&tls, PAIR_PATH, request, WITHIN + HELD_FOR).await?;
        match reply.status {
            StatusCode::OK => Ok(Asked::Answered(self.read(&reply.body)?)),
            StatusCode::ACCEPTED => Ok(Asked::Waiting(self.read(&reply.body)?)),
            status => Err(self.refused(status, &reply)),
        }
    }

    /// Asks for the next certificate.
    ///
    /// # Errors
    /// When there is no answer, or it is no.
    pub async fn renew(&self, trust: Trust, request: &RenewRequest) -> Result<Answer, EnrolError> {
        let tls = Arc::new(trust.client_config(None).map_err(|error| EnrolError::Link(trouble(&error)))?);
        let reply = self.post(&tls, RENEW_PATH, request, WITHIN).await?;
        match reply.status {
            StatusCode::OK => self.read(&reply.body),
            status => Err(self.refused(status, &reply)),
        }
    }

    async fn post(
        &self,
        tls: &Arc<ClientConfig>,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<Reply, EnrolError> {
        let body = serde_json::to_vec(body).expect("a request has string keys only");
        self.exchange(tls, Method::POST, path, body.into(), within).await
    }

    /// A stream to the first address that answers.
    async fn stream(
        &self,
        tls: &Arc<ClientConfig>,
        until: Instant,
    ) -> Result<TlsStream<Box<dyn Stream>>, EnrolError> {
        let mut first = None;
        for endpoint in &self.route.endpoints {
            match self.call(endpoint, until).secure(tls).await {
                Ok(stream) => return Ok(stream),
                Err(end) => drop(first.get_or_insert(end)),
            }
        }
        let end = first.expect("a route has an address");
        Err(EnrolError::Link(end.trouble()))
    }

    async fn exchange(
        &self,
        tls: &Arc<ClientConfig>,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Reply, EnrolError> {
        let at = self.endpoint().to_string();
        let lost = |error: hyper::Error| EnrolError::Lost {
            at: self.endpoint().to_string(),
            source: io::Error::other(error),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &at)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(header::CONNECTION, HeaderValue::from_static("close"))
            .body(Full::new(body))
            .map_err(|error| self.not_latchd(&error.to_string()))?;
        let exchanged = async {
            let stream = self.stream(tls, Instant::now() + within).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
            let answered = async {
                let response = sender.send_request(request).await.map_err(lost)?;
                let (head, body) = response.into_parts();
                let after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let after = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
                let body =
                    Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| match error
                        .is::<LengthLimitError>(
                    ) {
                        true => self.not_latchd("its answer has no end"),
                        false => EnrolError::Lost { at: at.clone(), source: io::Error::other(error) },
                    })?;
                Ok(Reply { status: head.status, after, body: body.to_bytes() })
            };
            let mut answered = std::pin::pin!(answered);
            tokio::select! {
                biased;
                reply = &mut answered => reply,
                // What it has read by then is still there to be taken.
                _ended = connection => answered.await,
            }
        };
        let silent = |_| EnrolError::Silent { at: self.endpoint().to_string(), within };
        timeout(within, exchanged).await.map_err(silent)?
    }

    /// Whether somebody of `roots` vouches for a chain, now and for this address.
    fn vouched(
        &self,
        chain: &[CertificateDer<'static>],
        roots: &Arc<RootCertStore>,
        card: &CloudCard,
    ) -> Result<(), EnrolError> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(self.not_latchd("it shows no certificate"));
        };
        let judged =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::new(default_provider()))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))
                .and_then(|verifier| {
                    let now = self.clock.current_time().ok_or(rustls::Error::FailedToGetCurrentTime)?;
                    verifier.verify_server_cert(leaf, intermediates, &self.endpoint().name, &[], now)
                });
        let Err(error) = judged else { return Ok(()) };
        let host = self.clock.now();
        let is_of_time = matches!(
            &error,
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. }
                    | CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
            )
        );
        if is_of_time && host.duration_since(card.time).abs() > CLOCK_TOLERANCE {
            return Err(EnrolError::ClockWrong { host, cloud: card.time });
        }
        let end = self.call(self.endpoint(), Instant::now()).not_trusted(error, leaf);
        Err(EnrolError::Link(end.trouble()))
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, EnrolError> {
        serde_json::from_slice(body).map_err(|_| self.not_latchd("its answer is of another form"))
    }

    fn not_latchd(&self, what: &str) -> EnrolError {
        EnrolError::NotLatchd { at: self.endpoint().to_string(), what: what.to_owned() }
    }

    fn refused(&self, status: StatusCode, reply: &Reply) -> EnrolError {
        #[derive(Deserialize)]
        struct Body {
            error: Words,
        }
        #[derive(Deserialize)]
        struct Words {
            r#type: String,
            message: String,
        }
        let words = serde_json::from_slice::<Body>(&reply.body).ok();
        let is_for_the_moment = reply.after.is_some() || status.is_server_error();
        let Some(Body { error: Words { r#type: kind, message } }) = words else {
            return match (is_for_the_moment, reply.after) {
                (true, after) => EnrolError::Later {
                    kind: format!("HTTP {}", status.as_u16()),
                    message: "its service is down for the moment".into(),
                    after: after.unwrap_or(WITHIN),
                },
                (false, _) => self.not_latchd(&format!("it answers with HTTP {status}")),
            };
        };
        let (kind, message) = (shown(&kind), shown(&message));
        match is_for_the_moment || status == StatusCode::TOO_MANY_REQUESTS {
            true => EnrolError::Later { kind, message, after: reply.after.unwrap_or(WITHIN) },
            // The same words from a cloud that has no such path: it is older than this program.
            false if kind == "not_found" => self.not_latchd("it takes no bridges in this way: update it"),
            false => EnrolError::Refused { status: status.as_u16(), kind, message },
        }
    }
}

/// A peer's words, made harmless for a log or a terminal.
fn shown(words: &str) -> String {
    let harmless = |letter: char| match letter {
        '\'' | '"' => letter.to_string(),
        letter => letter.escape_debug().to_string(),
    };
    words.chars().take(200).map(harmless).collect()
}

struct Reply {
    status: StatusCode,
    /// When it is worth another try, as the peer says.
    after: Option<Duration>,
    body: Bytes,
}

fn trouble(error: &LinkError) -> Trouble {
    Trouble { code: error.code(), message: error.to_string() }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn config(
    clock: &Clock,
    finish: impl FnOnce(Builder) -> ClientConfig,
) -> Result<Arc<ClientConfig>, EnrolError> {
    let builder = ClientConfig::builder_with_details(Arc::new(default_provider()), Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()
        .map_err(|error| EnrolError::Link(trouble(&LinkError::Tls(error))))?;
    Ok(Arc::new(finish(builder)))
}

/// Takes any certificate whose key is really there, and remembers it for a later judgement. Nothing may be told over a
/// connection that was made with it.
#[derive(Debug)]
struct Remembering {
    provider: CryptoProvider,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl Default for Remembering {
    fn default() -> Self {
        Self { provider: default_provider(), chain: Mutex::default() }
    }
}

impl Remembering {
    /// The certificate that was shown, and then what came with it.
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.lock().expect("no panic while held").clone()
    }
}

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = [certificate].into_iter().chain(intermediates);
        *self.chain.lock().expect("no panic while held") =
            shown.map(|certificate| certificate.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seams::MemoryNet;

    fn gate(net: &MemoryNet, port: u16) -> Gate {
        let url = format!("https://cloud.example:{port}");
        Gate::at(&url, Arc::new(net.clone()), Clock::system()).unwrap()
    }

    #[test]
    fn an_address_is_taken_as_people_write_it_and_as_it_is_kept() {
        let at = |url| Gate::at(url, Arc::new(MemoryNet::default()), Clock::system()).map(|gate| gate.url());
        assert_eq!(at(" https://cloud.example ").unwrap(), "wss://cloud.example:443");
        assert_eq!(at("wss://[::1]:8443").unwrap(), "wss://[::1]:8443");
        for wrong in ["http://cloud.example", "cloud.example", "https://cloud.example/x", "https://"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_gets_one_deadline_for_everything() {
        let net = MemoryNet::default();
        let mut listener = net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let gate = gate(&net, listener.address().port());
        let begun = tokio::time::Instant::now();
        let (met, _silent) = tokio::join!(gate.meet(None), listener.accept());
        let EnrolError::Link(trouble) = met.unwrap_err() else { panic!("a server that says nothing") };
        assert_eq!(trouble.code, "link_tls_silent");
        assert_eq!(begun.elapsed(), WITHIN);
    }

    #[test]
    fn an_answer_that_is_no_yes_is_told_by_what_can_be_done_about_it() {
        let gate = gate(&MemoryNet::default(), 1);
        let told = |status: u16, after: Option<u64>, body: &str| {
            let after = after.map(Duration::from_secs);
            let status = StatusCode::from_u16(status).unwrap();
            gate.refused(status, &Reply { status, after, body: Bytes::from(body.to_owned()) })
        };
        let words = r#"{"error":{"type":"code_invalid","message":"it isn't\u001b[2J one"}}"#;
        let refused = told(403, None, words);
        assert!(refused.is_final());
        assert_eq!(refused.to_string(), "the cloud says no (code_invalid): it isn't\\u{1b}[2J one");
        for later in [told(429, None, words), told(503, Some(7), words), told(502, None, "<html>")] {
            assert!(!later.is_final() && later.after().is_some(), "{later}");
        }
        let web = told(200, None, "<html>");
        assert!(matches!(web, EnrolError::NotLatchd { .. }), "{web}");
    }
}
