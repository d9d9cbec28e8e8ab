//! The cloud's end of the bridges' websocket, with everything left out that takes time.

use std::{
    collections::VecDeque,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use latchd::{
    model::{BridgeId, Job, Report},
    protocol::{Envelope, Frame, Hello, Message, Position, StreamName, Welcome},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config, client_async_with_config,
    tungstenite::{Message as Ws, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// As far as an agent may ever report.
const REPORTS: u64 = 1 << 40;

fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0)
}

/// Where agents, and whatever stands in for one, dial to.
pub struct Cloud {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pub url: String,
    /// The certificate to trust, PEM.
    pub ca: String,
}

impl Cloud {
    pub async fn new() -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("wss://{}", listener.local_addr()?);
        Ok(Self { listener, acceptor: Arc::new(config).into(), url, ca: made.cert.pem() })
    }

    /// Takes whoever comes next.
    pub async fn accept(&self) -> anyhow::Result<WebSocketStream<TlsStream<TcpStream>>> {
        let accepted = async {
            let (tcp, _) = self.listener.accept().await?;
            tcp.set_nodelay(true)?;
            let tls = TlsStream::Server(self.acceptor.accept(tcp).await?);
            anyhow::Ok(accept_async_with_config(tls, Some(config())).await?)
        };
        tokio::time::timeout(PATIENCE, accepted).await.context("nobody dialled in")?
    }

    /// Takes the agent that comes next and welcomes it: at this time by its clock, and as one that holds so many of
    /// its reports.
    pub async fn welcome(&self, time: Timestamp, reports: Position) -> anyhow::Result<(Bridge, Hello)> {
        let mut socket = self.accept().await?;
        let Frame::Hello(hello) = frame(&mut socket).await? else { bail!("an agent begins with a hello") };
        let orders = Position { epoch: hello.orders_received.epoch.max(1), n: hello.orders_received.n };
        let welcome = Welcome {
            version: 1,
            bridge_id: BridgeId(uuid::Uuid::from_u128(1)),
            workspace: "Bench".into(),
            time,
            orders_resume_after: orders,
            reports_received: reports,
            reports_limit: REPORTS,
            orders_epoch_reason: None,
        };
        let mut bridge = Bridge {
            socket,
            sent: orders,
            held: orders,
            limit: hello.orders_limit,
            reports,
            heard: VecDeque::new(),
        };
        bridge.say(&Frame::Welcome(welcome)).await?;
        Ok((bridge, hello))
    }
}

/// Dials a cloud as an agent does.
pub async fn dial(url: &str, ca_file: &Path) -> anyhow::Result<WebSocketStream<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file)?)?;
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address: std::net::SocketAddr = url.strip_prefix("wss://").context("wss://")?.parse()?;
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(address.ip().to_string())?;
    let tls = TlsStream::Client(TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?);
    let request = format!("{url}/bridge/v1").into_client_request()?;
    Ok(client_async_with_config(request, tls, Some(config())).await?.0)
}

/// The text of a job as an order.
pub fn order(position: Position, job: Job) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&Frame::Envelope(Envelope::at(position, &Message::Job(job))))?)
}

/// What a bridge says that is of interest.
#[derive(Debug)]
pub enum Heard {
    /// Orders up to here are durable.
    Held { position: Position, at: Instant },
    /// More may be sent.
    Limit,
    /// How a job ended.
    Outcome { report: Box<Report>, at: Instant },
}

/// A bridge that was welcomed.
pub struct Bridge {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    /// The last order sent.
    pub sent: Position,
    /// The last order that is durable there.
    pub held: Position,
    limit: u64,
    /// The last report.
    pub reports: Position,
    heard: VecDeque<Heard>,
}

impl Bridge {
    async fn say(&mut self, frame: &Frame) -> anyhow::Result<()> {
        Ok(self.socket.send(Ws::text(serde_json::to_string(frame)?)).await?)
    }

    /// Sends a job; gives the instant right before its bytes left.
    pub async fn order(&mut self, job: Job) -> anyhow::Result<Instant> {
        ensure!(self.sent.n < self.limit, "the agent lets us send no more than {} orders", self.limit);
        self.sent = self.sent.next();
        let text = order(self.sent, job)?;
        let at = Instant::now();
        self.socket.send(Ws::text(text)).await?;
        Ok(at)
    }

    /// How many jobs may be sent now.
    pub fn may_send(&self) -> u64 {
        self.limit.saturating_sub(self.sent.n)
    }

    /// What comes next. Reports are acknowledged, pings answered, everything else is passed over. Cancel-safe but for
    /// an acknowledgement, which the next one makes up for.
    pub async fn next(&mut self) -> anyhow::Result<Heard> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(heard);
            }
            let frame = frame(&mut self.socket).await?;
            let at = Instant::now();
            match frame {
                Frame::Ping { nonce } => self.say(&Frame::Pong { nonce }).await?,
                Frame::Limit(limit) => {
                    self.limit = self.limit.max(limit.up_to);
                    self.heard.push_back(Heard::Limit);
                }
                Frame::Refused(refused) => {
                    bail!("the agent refuses: {} ({:?})", refused.message, refused.code)
                }
                Frame::Envelope(envelope) => match (envelope.position, envelope.message()?) {
                    (None, Message::Acknowledgement { stream: StreamName::Orders, position }) => {
                        self.held = position;
                        self.heard.push_back(Heard::Held { position, at });
                    }
                    (Some(position), Message::Outcome(report)) => {
                        self.reports = position;
                        self.heard.push_back(Heard::Outcome { report: Box::new(report), at });
                        let message = Message::Acknowledgement { stream: StreamName::Reports, position };
                        self.say(&Frame::Envelope(Envelope::loose(&message))).await?;
                    }
                    (_, other) => bail!("an agent does not send {other:?}"),
                },
                _ => {}
            }
        }
    }

    /// The next outcome.
    pub async fn outcome(&mut self) -> anyhow::Result<(Box<Report>, Instant)> {
        let heard = async {
            loop {
                if let Heard::Outcome { report, at } = self.next().await? {
                    return anyhow::Ok((report, at));
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.context("no outcome came")?
    }
}

async fn frame(socket: &mut WebSocketStream<TlsStream<TcpStream>>) -> anyhow::Result<Frame> {
    loop {
        match socket.next().await.context("the agent hung up")?? {
            Ws::Text(text) => return Ok(serde_json::from_str(&text)?),
            Ws::Close(_) => bail!("the agent hung up"),
            // Signs of life.
            _ => {}
        }
    }
}
