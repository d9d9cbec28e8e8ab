//! Both ends of the bridges' websocket as somebody else might write them: text by hand, none of the program's types.
//!
//! What they do not imitate: memory over connections, signs of life of their own, limits that grow.

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc};

use futures_util::{SinkExt, StreamExt};
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
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::site::PATIENCE;

trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// One end of a websocket.
pub struct Peer {
    runtime: Arc<Runtime>,
    socket: WebSocketStream<Box<dyn Bytes>>,
}

fn runtime() -> Arc<Runtime> {
    Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
}

fn soon<T>(runtime: &Runtime, what: &str, future: impl Future<Output = T>) -> T {
    let waited = runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
    waited.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain until {what}"))
}

impl Peer {
    /// A bridge at the door of a real cloud, with its token, before its first frame.
    pub fn bridge(url: &str, ca_file: &Path, token: &str) -> Self {
        let runtime = runtime();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address: SocketAddr = url.strip_prefix("wss://").unwrap().parse().unwrap();
        let mut request = format!("{url}/bridge/v1").into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let socket = soon(&runtime, "the cloud takes a bridge", async {
            let tcp = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from(address.ip().to_string()).unwrap();
            let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
            let bytes: Box<dyn Bytes> = Box::new(tls);
            client_async(request, bytes).await.unwrap().0
        });
        Self { runtime, socket }
    }

    /// The same, after a hello that remembers nothing but what it is told, and its welcome.
    pub fn introduced(url: &str, ca_file: &Path, token: &str) -> Self {
        let mut peer = Self::bridge(url, ca_file, token);
        peer.say(&json!({
            "type": "hello", "versions": [1], "agent": "pencil 1.0",
            "orders_received": {"epoch": 0, "n": 0},
            "reports_sent": {"epoch": 1, "n": 0},
            "reports_acknowledged": {"epoch": 1, "n": 0},
            "orders_limit": 100,
        }));
        let welcome = peer.hear().unwrap();
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        peer
    }

    pub fn say(&mut self, frame: &Value) {
        self.say_text(&frame.to_string());
    }

    pub fn say_text(&mut self, text: &str) {
        self.say_message(Message::text(text));
    }

    pub fn say_message(&mut self, message: Message) {
        // Whoever refuses may have gone before all of it was said.
        let _ = soon(&self.runtime, "the other side reads", self.socket.send(message));
    }

    /// The next frame that is no sign of life, or nothing when the other side has ended it; pings are answered.
    pub fn hear(&mut self) -> Option<Value> {
        let Self { runtime, socket } = self;
        soon(runtime, "the other side says something", async {
            loop {
                let text = match socket.next().await? {
                    Ok(Message::Text(text)) => text,
                    Ok(Message::Close(_)) | Err(_) => return None,
                    Ok(_) => continue,
                };
                let frame: Value = serde_json::from_str(&text).unwrap();
                match frame["type"].as_str() {
                    Some("ping") => {
                        let pong = json!({"type": "pong", "nonce": frame["nonce"]}).to_string();
                        socket.send(Message::text(pong)).await.ok()?;
                    }
                    Some("pong") => {}
                    _ => return Some(frame),
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
        Self { runtime, listener, acceptor: Arc::new(config).into(), url, ca: made.cert.pem() }
    }

    /// Takes the next agent that comes, welcomes it as one that holds `reports` of its reports, and gives its hello.
    pub fn welcome(&self, reports: u64) -> (Peer, Value) {
        let socket = soon(&self.runtime, "an agent comes", async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            let bytes: Box<dyn Bytes> = Box::new(self.acceptor.accept(tcp).await.unwrap());
            accept_async(bytes).await.unwrap()
        });
        let mut peer = Peer { runtime: Arc::clone(&self.runtime), socket };
        let hello = peer.hear().unwrap();
        assert_eq!(hello["type"], "hello", "{hello}");
        let mut orders = hello["orders_received"].clone();
        orders["epoch"] = json!(1);
        peer.say(&json!({
            "type": "welcome", "version": 1, "bridge_id": "00000000-0000-4000-8000-000000000001",
            "workspace": "Paper", "time": jiff::Timestamp::now(),
            "orders_resume_after": orders,
            "reports_received": {"epoch": u64::from(reports > 0), "n": reports}, "reports_limit": 1000,
        }));
        (peer, hello)
    }
}
