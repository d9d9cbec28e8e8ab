//! The cloud's end of the bridges' websocket, with everything left out that takes time but TLS, with certificates at both
//! ends, and the signatures.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use latchd::{
    agent::pairing::{self, Pairing, Secrets, Taken},
    cloud::tls::{self, Authority, For, Leaf},
    link::{Identity, Settings, Trust},
    model::{BridgeId, Job, Report},
    protocol::{
        Envelope, Frame, Hello, Message, Position, Said, SigningKey, StreamName, Welcome,
        signing::{Listener, NONCE_HEADER, Party, Session, Speaker},
    },
    seal::SealKey,
    seams::{Clock, Random},
};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config, client_async_with_config,
    tungstenite::{
        Message as Ws,
        client::IntoClientRequest,
        handshake::server::{Request, Response},
        protocol::WebSocketConfig,
    },
};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// As far as an agent may ever report.
const REPORTS: u64 = 1 << 40;
/// What signs for the cloud, and for the one bridge that it has.
const CLOUD_SEED: [u8; 32] = [6; 32];
const BRIDGE_SEED: [u8; 32] = [2; 32];
const BRIDGE: BridgeId = BridgeId(uuid::Uuid::from_u128(1));
/// For how long certificates and signed frames count: longer than anybody measures.
const COUNTS_FOR: SignedDuration = SignedDuration::from_hours(90 * 24);

pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// As both ends of the product have it.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0)
}

/// Where agents, and whatever stands in for one, dial to.
pub struct Cloud {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pub url: String,
    /// The certificate to trust, PEM.
    pub ca: String,
    /// Vouches for bridges.
    authority: Arc<Authority>,
    random: Random,
    /// How many handshakes began from an earlier one.
    resumed: AtomicU64,
    _folder: tempfile::TempDir,
}

impl Cloud {
    pub async fn new() -> anyhow::Result<Self> {
        let (folder, random) = (tempfile::tempdir()?, Random::system());
        let now = Timestamp::now();
        let own = Arc::new(Authority::open(folder.path(), For::Servers, now, &random)?);
        let authority = Arc::new(Authority::open(folder.path(), For::Bridges, now, &random)?);
        let leaf = Leaf::new(&own, vec!["127.0.0.1".to_owned()], now)?;
        let config = tls::server(leaf, Some(authority.verifier()?), Clock::system())?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("wss://{}", listener.local_addr()?);
        let acceptor = Arc::new(config).into();
        let resumed = AtomicU64::new(0);
        Ok(Self { listener, acceptor, url, ca: own.pem()?, authority, random, resumed, _folder: folder })
    }

    /// How many handshakes began from an earlier one, since it was asked last.
    pub fn resumed(&self) -> u64 {
        self.resumed.swap(0, Ordering::SeqCst)
    }

    /// Who the one bridge is.
    pub fn identity(&self) -> anyhow::Result<Identity> {
        let key = rcgen::KeyPair::generate()?;
        let (now, until) = (Timestamp::now(), Timestamp::now() + COUNTS_FOR);
        Ok(Identity {
            bridge_id: BRIDGE,
            key: SigningKey::from_seed(&BRIDGE_SEED),
            certificate: vec![self.authority.issue(&key, BRIDGE, now, until)?],
            tls_key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }

    /// What its link starts with.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let identity = Arc::new(self.identity()?);
        let keys = vec![SigningKey::from_seed(&CLOUD_SEED).public()];
        Ok(Settings::new(&self.url, identity, keys, Trust::of_pairing(&self.ca)?)?)
    }

    /// The link's own TLS without the link.
    pub fn client_config(&self) -> anyhow::Result<ClientConfig> {
        Ok(Trust::of_pairing(&self.ca)?.client_config(Some(&self.identity()?))?)
    }

    /// Leaves in an agent's storage folder what pairing it with this cloud would.
    pub fn take_in(&self, storage: &Path) -> anyhow::Result<()> {
        self.take_in_vouched_for(storage, Some(self.ca.clone()))
    }

    /// The same for a cloud whose certificate this authority, or else one that the machine trusts, has issued.
    pub fn take_in_vouched_for(&self, storage: &Path, authority: Option<String>) -> anyhow::Result<()> {
        std::fs::create_dir_all(storage)?;
        let seal = SealKey::from_file_or_new(&storage.join("seal.key"), self.random.clone())?;
        let key = rcgen::KeyPair::generate()?;
        let (now, until) = (Timestamp::now(), Timestamp::now() + COUNTS_FOR);
        let taken = Taken {
            url: self.url.clone(),
            bridge_id: BRIDGE,
            workspace: "Bench".into(),
            cloud_keys: vec![SigningKey::from_seed(&CLOUD_SEED).public()],
            authority,
            certificate: pem(&self.authority.issue(&key, BRIDGE, now, until)?),
            issued_at: now,
            expires_at: until,
        };
        let secrets = Secrets { tls: key.serialize_der().into(), signing: BRIDGE_SEED.into() };
        Pairing::new(taken, &secrets, &seal).store(&storage.join(pairing::FILE))
    }

    /// Takes whoever comes next.
    pub async fn accept(&self) -> anyhow::Result<Socket> {
        Ok(self.meet().await?.0)
    }

    /// Takes whoever comes next up to the end of TLS.
    pub async fn handshake(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let (tcp, _) = self.listener.accept().await?;
        tcp.set_nodelay(true)?;
        let tls = self.acceptor.accept(tcp).await?;
        if tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, Ordering::SeqCst);
        }
        Ok(TlsStream::Server(tls))
    }

    /// A websocket, with the session that begins.
    async fn meet(&self) -> anyhow::Result<(Socket, Session)> {
        let nonce = Session::fresh(&self.random);
        #[expect(clippy::result_large_err, reason = "the shape of the library's callback")]
        let answer = |_: &Request, mut response: Response| {
            let value = nonce.to_string().parse().expect("base64 is good for a header");
            response.headers_mut().insert(NONCE_HEADER, value);
            Ok(response)
        };
        let accepted = async {
            let tls = self.handshake().await?;
            anyhow::Ok(accept_hdr_async_with_config(tls, answer, Some(config())).await?)
        };
        Ok((tokio::time::timeout(PATIENCE, accepted).await.context("nobody dialled in")??, nonce))
    }

    /// Takes the agent that comes next and welcomes it: at this time by its clock, and as one that holds so many of
    /// its reports.
    pub async fn welcome(&self, time: Timestamp, reports: Position) -> anyhow::Result<(Bridge, Hello)> {
        let (mut socket, nonce) = self.meet().await?;
        let key = SigningKey::from_seed(&BRIDGE_SEED).public();
        let Said::Signed(packet) = read(&mut socket).await? else { bail!("an agent signs its hello") };
        let mut listener = Listener::new(Party::Bridge, [key], BRIDGE, nonce);
        let Frame::Hello(hello) = listener.hear(&packet, Timestamp::now())? else {
            bail!("an agent begins with a hello")
        };
        let session = Session::of_hello(&packet.body);
        let orders =
            Position { epoch: hello.memory.orders_received.epoch.max(1), n: hello.memory.orders_received.n };
        let welcome = Welcome {
            version: 1,
            bridge_id: BRIDGE,
            workspace: "Bench".into(),
            time,
            orders_resume_after: orders,
            reports_received: reports,
            reports_limit: REPORTS,
            orders_epoch_reason: None,
            cloud_keys: vec![SigningKey::from_seed(&CLOUD_SEED).public()],
        };
        let mut bridge = Bridge {
            socket,
            listener: Listener::new(Party::Bridge, [key], BRIDGE, session),
            speaker: Speaker::new(Party::Cloud, SigningKey::from_seed(&CLOUD_SEED), BRIDGE, session),
            // By the time that the welcome tells.
            until: time + COUNTS_FOR,
            sent: orders,
            held: orders,
            limit: hello.memory.orders_limit,
            reports,
            heard: VecDeque::new(),
        };
        bridge.say(Frame::Welcome(welcome)).await?;
        Ok((bridge, hello))
    }
}

/// Dials a cloud as an agent does.
pub async fn dial(url: &str, ca_file: &Path) -> anyhow::Result<Socket> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file)?)?;
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    dial_with(url, Arc::new(tls)).await
}

/// The same with TLS of any kind.
pub async fn dial_with(url: &str, tls: Arc<ClientConfig>) -> anyhow::Result<Socket> {
    let address: std::net::SocketAddr = url.strip_prefix("wss://").context("wss://")?.parse()?;
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(address.ip().to_string())?;
    let tls = TlsStream::Client(TlsConnector::from(tls).connect(name, tcp).await?);
    let request = format!("{url}/bridge/v1").into_client_request()?;
    Ok(client_async_with_config(request, tls, Some(config())).await?.0)
}

/// The text of a job as an order, as long as a bridge would get it.
pub fn order(position: Position, job: Job) -> String {
    let session = Session::fresh(&Random::system());
    let mut speaker = Speaker::new(Party::Cloud, SigningKey::from_seed(&CLOUD_SEED), BRIDGE, session);
    let frame = Frame::Envelope(Envelope::at(position, &Message::Job(job)));
    let packet = speaker.say(frame, Some(Timestamp::now() + COUNTS_FOR));
    Said::Signed(packet).to_text()
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
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
    socket: Socket,
    listener: Listener,
    speaker: Speaker,
    /// Until when what is said counts.
    until: Timestamp,
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
    /// What carries the frames.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    async fn say(&mut self, frame: Frame) -> anyhow::Result<()> {
        let text = match frame {
            Frame::Pong { .. } => Said::Bare(frame).to_text(),
            frame => self.signed(frame),
        };
        Ok(self.socket.send(Ws::text(text)).await?)
    }

    fn signed(&mut self, frame: Frame) -> String {
        let until = (!matches!(frame, Frame::Welcome(_))).then_some(self.until);
        Said::Signed(self.speaker.say(frame, until)).to_text()
    }

    async fn hear(&mut self) -> anyhow::Result<Frame> {
        match read(&mut self.socket).await? {
            Said::Bare(frame) => Ok(frame),
            // The host's own time is the cloud's here.
            Said::Signed(packet) => Ok(self.listener.hear(&packet, Timestamp::now())?),
        }
    }

    /// Sends a job; gives the instant right before its bytes left.
    pub async fn order(&mut self, job: Job) -> anyhow::Result<Instant> {
        ensure!(self.sent.n < self.limit, "the agent lets us send no more than {} orders", self.limit);
        self.sent = self.sent.next();
        let text = self.signed(Frame::Envelope(Envelope::at(self.sent, &Message::Job(job))));
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
            let frame = self.hear().await?;
            let at = Instant::now();
            match frame {
                Frame::Ping { nonce } => self.say(Frame::Pong { nonce }).await?,
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
                        self.say(Frame::Envelope(Envelope::loose(&message))).await?;
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

async fn read(socket: &mut Socket) -> anyhow::Result<Said> {
    loop {
        match socket.next().await.context("the agent hung up")?? {
            Ws::Text(text) => return Ok(Said::read(&text)?),
            Ws::Close(_) => bail!("the agent hung up"),
            // Signs of life.
            _ => {}
        }
    }
}
