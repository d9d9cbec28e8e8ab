//! Both ends of the bridges' websocket as somebody else might write them: text and signatures by hand, none of the
//! program's types. The keys are those that pairing left at the site.
//!
//! What they do not imitate: memory over connections, signs of life of their own, limits that grow.

use std::{fs, future::Future, net::SocketAddr, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use latchd::link::Identity;
use ring::{
    digest::{SHA256, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        handshake::server::{Request, Response},
    },
};

use crate::site::{PATIENCE, Site};

trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// One end of a websocket.
pub struct Peer {
    runtime: Arc<Runtime>,
    socket: WebSocketStream<Box<dyn Bytes>>,
    voice: Voice,
}

const BY_BRIDGE: &[u8] = b"latchd v1 bridge to cloud\0";
const BY_CLOUD: &[u8] = b"latchd v1 cloud to bridge\0";
/// Signed messages of a peer count as long as anybody here waits.
const COUNTS_UNTIL: &str = "2100-01-01T00:00:00Z";

/// How one side signs, and what it asks of the other side's signatures.
struct Voice {
    key: Ed25519KeyPair,
    /// What its own signatures begin with, and those of the other side.
    own: &'static [u8],
    other: &'static [u8],
    /// Speaks for the other side.
    other_key: Vec<u8>,
    bridge_id: String,
    session: String,
    said: u64,
    heard: u64,
}

impl Voice {
    fn pack(&mut self, frame: &str) -> String {
        self.said += 1;
        let is_hello = frame.contains(r#""type":"hello""#);
        let expires = match is_hello || frame.contains(r#""type":"welcome""#) {
            true => String::new(),
            false => format!(r#""expires_at":"{COUNTS_UNTIL}","#),
        };
        let (bridge_id, session, seq) = (&self.bridge_id, &self.session, self.said);
        let body = format!(
            r#"{{"bridge_id":"{bridge_id}","session":"{session}","seq":{seq},{expires}"frame":{frame}}}"#
        );
        let signature = STANDARD.encode(self.key.sign(&[self.own, body.as_bytes()].concat()));
        let key_id = key_id(self.key.public_key().as_ref());
        let packet = json!({"type": "signed", "key_id": key_id, "signature": signature, "body": body});
        if is_hello {
            self.begin(&body);
        }
        packet.to_string()
    }

    fn unpack(&mut self, packet: &Value) -> Value {
        let body = packet["body"].as_str().unwrap();
        let signature = STANDARD.decode(packet["signature"].as_str().unwrap()).unwrap();
        let signed = [self.other, body.as_bytes()].concat();
        UnparsedPublicKey::new(&ED25519, &self.other_key).verify(&signed, &signature).unwrap();
        let mut statement: Value = serde_json::from_str(body).unwrap();
        self.heard += 1;
        assert_eq!(statement["seq"], self.heard, "{statement}");
        assert_eq!(statement["session"], self.session, "{statement}");
        assert_eq!(statement["bridge_id"], self.bridge_id, "{statement}");
        let frame = statement["frame"].take();
        if frame["type"] == "hello" {
            self.begin(body);
        }
        frame
    }

    /// After hello, both sides speak in the session that it began.
    fn begin(&mut self, hello: &str) {
        self.session = STANDARD.encode(&digest(&SHA256, hello.as_bytes()).as_ref()[..16]);
        (self.said, self.heard) = (0, 0);
    }
}

/// Who a bridge is: what pairing left at its site.
pub struct Papers {
    identity: Identity,
    seed: [u8; 32],
    cloud_key: Vec<u8>,
}

impl Papers {
    pub fn of(site: &Site) -> Self {
        let (identity, seed) = site.identity();
        let pairing: Value = serde_json::from_slice(&fs::read(site.pairing_file()).unwrap()).unwrap();
        let cloud_key = STANDARD.decode(pairing["cloud_keys"][0].as_str().unwrap()).unwrap();
        Self { identity, seed, cloud_key }
    }
}

fn key_id(key: &[u8]) -> String {
    digest(&SHA256, key).as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn runtime() -> Arc<Runtime> {
    Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
}

fn soon<T>(runtime: &Runtime, what: &str, future: impl Future<Output = T>) -> T {
    let waited = runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
    waited.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain until {what}"))
}

impl Peer {
    /// A bridge at the door of a real cloud, with its certificate, before its first frame.
    pub fn bridge(url: &str, ca_file: &Path, papers: &Papers) -> Self {
        let runtime = runtime();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(papers.identity.certificate.clone(), papers.identity.tls_key.clone_key())
            .unwrap();
        let address: SocketAddr = url.strip_prefix("wss://").unwrap().parse().unwrap();
        let request = format!("{url}/bridge/v1").into_client_request().unwrap();
        let (socket, answer) = soon(&runtime, "the cloud takes a bridge", async {
            let tcp = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from(address.ip().to_string()).unwrap();
            let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
            let bytes: Box<dyn Bytes> = Box::new(tls);
            client_async(request, bytes).await.unwrap()
        });
        let voice = Voice {
            key: Ed25519KeyPair::from_seed_unchecked(&papers.seed).unwrap(),
            own: BY_BRIDGE,
            other: BY_CLOUD,
            other_key: papers.cloud_key.clone(),
            bridge_id: papers.identity.bridge_id.to_string(),
            session: answer.headers()["latchd-nonce"].to_str().unwrap().to_owned(),
            said: 0,
            heard: 0,
        };
        Self { runtime, socket, voice }
    }

    /// The same, after a hello that remembers nothing but what it is told, and its welcome.
    pub fn introduced(url: &str, ca_file: &Path, papers: &Papers) -> Self {
        let mut peer = Self::bridge(url, ca_file, papers);
        peer.say(&json!({
            "type": "hello", "versions": [1], "agent": "pencil 1.0",
            "nonce": "AAAAAAAAAAAAAAAAAAAAAA==", "cloud_keys": [key_id(&papers.cloud_key)],
            "orders_received": {"epoch": 0, "n": 0},
            "reports_sent": {"epoch": 1, "n": 0},
            "reports_acknowledged": {"epoch": 1, "n": 0},
            "orders_limit": 100,
        }));
        let welcome = peer.hear().unwrap();
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        peer
    }

    /// Signs a frame and says it.
    pub fn say(&mut self, frame: &Value) {
        self.say_signed(&frame.to_string());
    }

    /// Signs the text of a frame and says it.
    pub fn say_signed(&mut self, frame: &str) {
        let packet = self.voice.pack(frame);
        self.say_text(&packet);
    }

    /// Says a text as it is.
    pub fn say_text(&mut self, text: &str) {
        self.say_message(Message::text(text));
    }

    pub fn say_message(&mut self, message: Message) {
        // Whoever refuses may have gone before all of it was said.
        let _ = soon(&self.runtime, "the other side reads", self.socket.send(message));
    }

    /// The next frame that is no sign of life, or nothing when the other side has ended it; pings are answered. What must
    /// be signed is.
    pub fn hear(&mut self) -> Option<Value> {
        let Self { runtime, socket, voice } = self;
        soon(runtime, "the other side says something", async {
            loop {
                let text = match socket.next().await? {
                    Ok(Message::Text(text)) => text,
                    Ok(Message::Close(_)) | Err(_) => return None,
                    Ok(_) => continue,
                };
                let frame: Value = serde_json::from_str(&text).unwrap();
                match frame["type"].as_str() {
                    Some("signed") => match voice.unpack(&frame) {
                        beacon if beacon["type"] == "beacon" => {}
                        frame => return Some(frame),
                    },
                    Some("ping") => {
                        let pong = json!({"type": "pong", "nonce": frame["nonce"]}).to_string();
                        socket.send(Message::text(pong)).await.ok()?;
                    }
                    Some("pong") => {}
                    Some("refused") => return Some(frame),
                    _ => panic!("said without a signature: {frame}"),
                }
            }
        })
    }

    /// The bodies of envelopes from here on, until one of them is as wanted.
    pub fn hear_until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut heard = Vec::new();
        loop {
            let frame = self.hear().unwrap_or_else(|| panic!("it ended before {what}: {heard:?}"));
            if let Some(body) = frame["body"].as_str() {
                let body: Value = serde_json::from_str(body).unwrap();
                let enough = wanted(&body);
                heard.push(body);
                if enough {
                    return heard;
                }
            }
        }
    }

    /// Hears why it is refused, whatever comes before.
    pub fn hear_refusal(&mut self) -> Value {
        loop {
            let frame = self.hear().expect("a reason comes before the end");
            if frame["type"] == "refused" {
                return frame;
            }
        }
    }

    /// Hears why it is refused, and that nothing comes after it.
    pub fn refused(mut self) -> String {
        let refusal = self.hear_refusal();
        assert_eq!(self.hear(), None);
        refusal["code"].as_str().unwrap().to_owned()
    }
}

/// A cloud that a person plays.
pub struct PaperCloud {
    runtime: Arc<Runtime>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pub url: String,
    pub ca: String,
    key: [u8; 32],
}

impl PaperCloud {
    pub fn new() -> Self {
        let runtime = runtime();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("wss://{}", listener.local_addr().unwrap());
        Self { runtime, listener, acceptor: Arc::new(config).into(), url, ca: made.cert.pem(), key: [6; 32] }
    }

    fn public_key(&self) -> Vec<u8> {
        let key = Ed25519KeyPair::from_seed_unchecked(&self.key).unwrap();
        key.public_key().as_ref().to_vec()
    }

    /// Lets a site that was paired with another cloud take this one for it.
    pub fn bewitch(&self, site: &mut Site) {
        let mut pairing: Value = serde_json::from_slice(&fs::read(site.pairing_file()).unwrap()).unwrap();
        pairing["cloud_keys"] = json!([STANDARD.encode(self.public_key())]);
        pairing["url"] = json!(self.url);
        pairing["authority"] = json!(self.ca);
        fs::write(site.pairing_file(), pairing.to_string()).unwrap();
    }

    /// Takes the next agent that comes, the one of these papers, welcomes it as one that holds `reports` of its reports,
    /// and gives its hello.
    pub fn welcome(&self, papers: &Papers, reports: u64) -> (Peer, Value) {
        let nonce = "BAAAAAAAAAAAAAAAAAAAAA==";
        #[expect(clippy::result_large_err, reason = "the shape of the library's callback")]
        let answer = |_: &Request, mut response: Response| {
            response.headers_mut().insert("latchd-nonce", nonce.parse().unwrap());
            Ok(response)
        };
        let socket = soon(&self.runtime, "an agent comes", async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            let bytes: Box<dyn Bytes> = Box::new(self.acceptor.accept(tcp).await.unwrap());
            accept_hdr_async(bytes, answer).await.unwrap()
        });
        let bridge_key = Ed25519KeyPair::from_seed_unchecked(&papers.seed).unwrap();
        let bridge_id = papers.identity.bridge_id.to_string();
        let voice = Voice {
            key: Ed25519KeyPair::from_seed_unchecked(&self.key).unwrap(),
            own: BY_CLOUD,
            other: BY_BRIDGE,
            other_key: bridge_key.public_key().as_ref().to_vec(),
            bridge_id: bridge_id.clone(),
            session: nonce.into(),
            said: 0,
            heard: 0,
        };
        let mut peer = Peer { runtime: Arc::clone(&self.runtime), socket, voice };
        let hello = peer.hear().unwrap();
        assert_eq!(hello["type"], "hello", "{hello}");
        let mut orders = hello["orders_received"].clone();
        orders["epoch"] = json!(1);
        peer.say(&json!({
            "type": "welcome", "version": 1, "bridge_id": bridge_id,
            "cloud_keys": [STANDARD.encode(self.public_key())],
            "workspace": "Paper", "time": jiff::Timestamp::now(),
            "orders_resume_after": orders,
            "reports_received": {"epoch": u64::from(reports > 0), "n": reports}, "reports_limit": 1000,
        }));
        (peer, hello)
    }
}
