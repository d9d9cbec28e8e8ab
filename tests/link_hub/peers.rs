//! Peers that speak hand-written text and sign it themselves: nothing here uses the protocol's types or signatures.

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use latchd::{
    link::Identity,
    seams::{Listener, Stream},
};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::io::AsyncWriteExt;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        handshake::server::{Request, Response},
        protocol::WebSocketConfig,
    },
};

use super::world::{BRIDGE_SEED, CLOUD_SEED, World};

pub(super) type Tls = Box<dyn Stream>;

/// A websocket with a person at the keyboard.
pub(super) struct Peer {
    socket: WebSocketStream<Tls>,
    pub(super) voice: Voice,
}

/// What one side knows of signing.
pub(super) struct Voice {
    key: Ed25519KeyPair,
    /// What its own signatures begin with, and those of the other side.
    own: &'static [u8],
    other: &'static [u8],
    /// The other side's key, if the peer looks at it.
    other_key: Option<[u8; 32]>,
    pub(super) bridge_id: String,
    pub(super) session: String,
    pub(super) said: u64,
    heard: u64,
}

const BY_BRIDGE: &[u8] = b"latchd v1 bridge to cloud\0";
const BY_CLOUD: &[u8] = b"latchd v1 cloud to bridge\0";

impl Voice {
    fn new(
        seed: &[u8; 32],
        own: &'static [u8],
        other: &'static [u8],
        bridge_id: String,
        nonce: String,
    ) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
        Self { key, own, other, other_key: None, bridge_id, session: nonce, said: 0, heard: 0 }
    }

    /// Packs the text of a frame. Hello and welcome do not say until when they count.
    pub(super) fn pack(&mut self, frame: &str, expires_at: Option<&str>) -> Value {
        self.said += 1;
        let expires = expires_at.map(|at| format!(r#""expires_at":"{at}","#)).unwrap_or_default();
        let (bridge_id, session, seq) = (&self.bridge_id, &self.session, self.said);
        let body = format!(
            r#"{{"bridge_id":"{bridge_id}","session":"{session}","seq":{seq},{expires}"frame":{frame}}}"#
        );
        let signature = self.key.sign(&[self.own, body.as_bytes()].concat());
        let key_id: String =
            sha256(self.key.public_key().as_ref())[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"type": "signed", "key_id": key_id, "signature": STANDARD.encode(signature), "body": body})
    }

    /// Unpacks what was heard; the peer that hears checks all of it.
    fn unpack(&mut self, packet: &Value) -> (String, Value) {
        let body = packet["body"].as_str().unwrap();
        if let Some(key) = self.other_key {
            let signature = STANDARD.decode(packet["signature"].as_str().unwrap()).unwrap();
            let signed = [self.other, body.as_bytes()].concat();
            UnparsedPublicKey::new(&ED25519, key).verify(&signed, &signature).unwrap();
        }
        let statement: Value = serde_json::from_str(body).unwrap();
        self.heard += 1;
        assert_eq!(statement["seq"], self.heard, "{statement}");
        assert_eq!(statement["session"], self.session, "{statement}");
        assert_eq!(statement["bridge_id"], self.bridge_id, "{statement}");
        (body.to_owned(), statement["frame"].clone())
    }

    pub(super) fn sign_with(&mut self, seed: &[u8; 32]) {
        self.key = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
    }

    /// After hello, both sides speak in the session that it began.
    fn begin(&mut self, hello: &str) {
        self.session = STANDARD.encode(&sha256(hello.as_bytes())[..16]);
        (self.said, self.heard) = (0, 0);
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

fn unlimited() -> WebSocketConfig {
    WebSocketConfig::default().accept_unmasked_frames(true)
}

/// Opens TLS to a hub as a stranger, and nothing more.
pub(super) async fn tls(world: &World, port: u16) -> Tls {
    tls_as(world, port, None).await
}

/// Opens TLS to a hub, and shows a certificate.
pub(super) async fn tls_as(world: &World, port: u16, identity: Option<&Identity>) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some(identity) => {
            let key = identity.tls_key.clone_key();
            builder.with_client_auth_cert(identity.certificate.clone(), key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let connect = async {
        let tcp = world.net.connect("localhost", port).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    };
    Box::new(world.soon(connect).await)
}

/// Knocks at a hub with this path and certificate.
pub(super) async fn knock(
    world: &World,
    port: u16,
    path: &str,
    identity: Option<&Identity>,
) -> Result<Peer, Box<tungstenite::http::Response<Option<Vec<u8>>>>> {
    let stream = tls_as(world, port, identity).await;
    let request = format!("wss://localhost:{port}{path}").into_client_request().unwrap();
    match world.soon(client_async_with_config(request, stream, Some(unlimited()))).await {
        Ok((socket, response)) => {
            let nonce = response.headers()["latchd-nonce"].to_str().unwrap().to_owned();
            let bridge_id = identity.unwrap().bridge_id.to_string();
            Ok(Peer { socket, voice: Voice::new(&BRIDGE_SEED, BY_BRIDGE, BY_CLOUD, bridge_id, nonce) })
        }
        Err(tungstenite::Error::Http(response)) => Err(response),
        Err(error) => panic!("{error}"),
    }
}

/// A bridge's websocket, with the nonce that came with it.
pub(super) async fn websocket_as(
    world: &World,
    port: u16,
    identity: &Identity,
) -> Result<(WebSocketStream<Tls>, String), tungstenite::Error> {
    let stream = tls_as(world, port, Some(identity)).await;
    let request = format!("wss://localhost:{port}/bridge/v1").into_client_request()?;
    let (socket, response) = client_async_with_config(request, stream, Some(unlimited())).await?;
    Ok((socket, response.headers()["latchd-nonce"].to_str().unwrap().to_owned()))
}

/// A bridge that is in but has not said hello.
pub(super) async fn bridge(world: &World, port: u16) -> Peer {
    bridge_as(world, port, &world.ours()).await
}

pub(super) async fn bridge_as(world: &World, port: u16, identity: &Identity) -> Peer {
    let peer = knock(world, port, "/bridge/v1", Some(identity)).await;
    let mut peer = peer.unwrap_or_else(|response| panic!("{response:?}"));
    peer.voice.other_key = world.cloud_key();
    peer
}

/// A bridge that has said hello, and what the hub answered.
pub(super) async fn welcomed(world: &World, port: u16, received: (u64, u64), limit: u64) -> (Peer, Value) {
    let mut peer = bridge(world, port).await;
    peer.say(world, hello(world, received, limit)).await;
    let welcome = peer.hear(world).await;
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    (peer, welcome)
}

pub(super) fn hello(world: &World, (epoch, n): (u64, u64), limit: u64) -> Value {
    json!({
        "nonce": "AAAAAAAAAAAAAAAAAAAAAA==", "cloud_keys": world.cloud_key_ids(),
        "type": "hello", "versions": [1], "agent": "pencil 1.0",
        "orders_received": {"epoch": epoch, "n": n},
        "reports_sent": {"epoch": 1, "n": 0},
        "reports_acknowledged": {"epoch": 1, "n": 0},
        "orders_limit": limit,
    })
}

pub(super) fn welcome(version: u64) -> Value {
    json!({
        "type": "welcome", "version": version, "bridge_id": "00000000-0000-4000-8000-000000000001",
        "workspace": "Home", "time": "2026-11-22T12:00:00Z",
        "orders_resume_after": {"epoch": 1, "n": 0},
        "reports_received": {"epoch": 0, "n": 0}, "reports_limit": 1000,
        "cloud_keys": [STANDARD.encode(Ed25519KeyPair::from_seed_unchecked(&CLOUD_SEED).unwrap().public_key())],
    })
}

pub(super) fn outcome(epoch: u64, n: u64, job: u64) -> Value {
    let body = json!({
        "message": "outcome", "job_id": format!("00000000-0000-0000-0000-{job:012x}"), "revision": 1,
        "at": "2026-11-22T12:00:05Z", "outcome": {"state": "cancelled"},
    });
    json!({"type": "envelope", "position": {"epoch": epoch, "n": n}, "body": body.to_string()})
}

pub(super) fn acknowledged(epoch: u64, n: u64) -> Value {
    let body =
        json!({"message": "acknowledgement", "stream": "orders", "position": {"epoch": epoch, "n": n}});
    json!({"type": "envelope", "body": body.to_string()})
}

/// A cloud that has accepted a link's websocket.
pub(super) async fn cloud(world: &World, listener: &mut Box<dyn Listener>, acceptor: &TlsAcceptor) -> Peer {
    let nonce = "BAAAAAAAAAAAAAAAAAAAAA==";
    #[expect(clippy::result_large_err, reason = "the shape of the library's callback")]
    let callback = |request: &Request, mut response: Response| {
        assert_eq!(request.uri().path(), "/bridge/v1");
        response.headers_mut().insert("latchd-nonce", nonce.parse().unwrap());
        Ok(response)
    };
    let accept = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let tls: Tls = Box::new(acceptor.accept(tcp).await.unwrap());
        accept_hdr_async_with_config(tls, callback, Some(unlimited())).await.unwrap()
    };
    let socket = world.within(Duration::from_secs(70), accept).await.expect("a link comes");
    let bridge_id = world.ours().bridge_id.to_string();
    let mut voice = Voice::new(&CLOUD_SEED, BY_CLOUD, BY_BRIDGE, bridge_id, nonce.into());
    voice.other_key = Some(public(&BRIDGE_SEED));
    Peer { socket, voice }
}

fn public(seed: &[u8; 32]) -> [u8; 32] {
    Ed25519KeyPair::from_seed_unchecked(seed).unwrap().public_key().as_ref().try_into().unwrap()
}

impl Peer {
    /// Says a frame, signed unless it is one that is not.
    pub(super) async fn say(&mut self, world: &World, frame: Value) {
        match frame["type"].as_str() {
            Some("ping" | "pong" | "refused") => self.say_text(world, &frame.to_string()).await,
            _ => self.say_signed(world, &frame.to_string()).await,
        }
    }

    /// Signs the text of a frame and says it.
    pub(super) async fn say_signed(&mut self, world: &World, frame: &str) {
        let is_hello = frame.contains(r#""type":"hello""#);
        let begins = is_hello || frame.contains(r#""type":"welcome""#);
        let packet = self.voice.pack(frame, (!begins).then_some("2100-01-01T00:00:00Z"));
        if is_hello && self.voice.own == BY_BRIDGE {
            self.voice.begin(packet["body"].as_str().unwrap());
        }
        self.say_text(world, &packet.to_string()).await;
    }

    pub(super) async fn say_text(&mut self, world: &World, text: &str) {
        self.say_message(world, Message::text(text)).await;
    }

    pub(super) async fn say_message(&mut self, world: &World, message: Message) {
        // Whoever refuses may have gone before all of it was said.
        let _ = world.soon(self.socket.send(message)).await;
    }

    /// Writes bytes below the websocket.
    pub(super) async fn say_bytes(&mut self, world: &World, bytes: &[u8]) {
        let stream = self.socket.get_mut();
        world.soon(stream.write_all(bytes)).await.unwrap();
        world.soon(stream.flush()).await.unwrap();
    }

    /// The next frame that is not a sign of life.
    pub(super) async fn hear(&mut self, world: &World) -> Value {
        self.hear_within(world, Duration::from_secs(5)).await.expect("it says something")
    }

    /// The next frame that is not a sign of life, if one comes; pings are answered.
    pub(super) async fn hear_within(&mut self, world: &World, span: Duration) -> Option<Value> {
        let hear = async {
            loop {
                let frame = self.next().await?;
                match frame["type"].as_str() {
                    Some("beacon") => {}
                    Some("ping") => {
                        let pong = json!({"type": "pong", "nonce": frame["nonce"]});
                        self.socket.send(Message::text(pong.to_string())).await.ok()?;
                    }
                    Some("pong") => {}
                    _ => return Some(frame),
                }
            }
        };
        world.within(span, hear).await.flatten()
    }

    /// Whatever comes next, signs of life included.
    pub(super) async fn hear_anything(&mut self, world: &World, span: Duration) -> Option<Value> {
        world.within(span, self.next()).await.flatten()
    }

    async fn next(&mut self) -> Option<Value> {
        let said = next(&mut self.socket).await?;
        if said["type"] != "signed" {
            return Some(said);
        }
        let (body, frame) = self.voice.unpack(&said);
        if frame["type"] == "hello" {
            self.voice.begin(&body);
        }
        Some(frame)
    }

    /// Hears why it is refused, and that nothing comes after it.
    pub(super) async fn refused(mut self, world: &World) -> String {
        let frame = self.hear(world).await;
        assert_eq!(frame["type"], "refused", "{frame}");
        let after = world.soon(next(&mut self.socket)).await;
        assert_eq!(after, None);
        frame["code"].as_str().unwrap().to_owned()
    }

    /// Hears `count` orders, acknowledges none; gives their positions and the numbers of their jobs.
    pub(super) async fn orders(&mut self, world: &World, count: usize) -> Vec<(u64, u64, u64)> {
        let mut orders = Vec::new();
        while orders.len() < count {
            let frame = self.hear(world).await;
            if frame["type"] == "envelope" {
                orders.extend(order(&frame));
            }
        }
        orders
    }
}

/// Position and job number of an order.
pub(super) fn order(frame: &Value) -> Option<(u64, u64, u64)> {
    let body: Value = serde_json::from_str(frame["body"].as_str()?).ok()?;
    let job = u64::from_str_radix(body["job_id"].as_str()?.rsplit('-').next()?, 16).ok()?;
    Some((frame["position"]["epoch"].as_u64()?, frame["position"]["n"].as_u64()?, job))
}

async fn next(socket: &mut WebSocketStream<Tls>) -> Option<Value> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}
