//! Peers that speak hand-written text: nothing here uses the protocol's types.

use futures_util::{SinkExt, StreamExt};
use latchd::seams::{Listener, Stream};
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

use super::world::{TOKEN, World};

pub(super) type Tls = Box<dyn Stream>;

/// A websocket with a person at the keyboard.
pub(super) struct Peer {
    socket: WebSocketStream<Tls>,
}

fn unlimited() -> WebSocketConfig {
    WebSocketConfig::default().accept_unmasked_frames(true)
}

/// Opens TLS to a hub, and nothing more.
pub(super) async fn tls(world: &World, port: u16) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connect = async {
        let tcp = world.net.connect("localhost", port).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    };
    Box::new(world.soon(connect).await)
}

/// Knocks at a hub with this path and these headers.
pub(super) async fn knock(
    world: &World,
    port: u16,
    path: &str,
    authorization: Option<&str>,
) -> Result<Peer, Box<tungstenite::http::Response<Option<Vec<u8>>>>> {
    let stream = tls(world, port).await;
    let mut request = format!("wss://localhost:{port}{path}").into_client_request().unwrap();
    if let Some(value) = authorization {
        request.headers_mut().insert("authorization", value.parse().unwrap());
    }
    match world.soon(client_async_with_config(request, stream, Some(unlimited()))).await {
        Ok((socket, _)) => Ok(Peer { socket }),
        Err(tungstenite::Error::Http(response)) => Err(response),
        Err(error) => panic!("{error}"),
    }
}

/// A bridge that is in but has not said hello.
pub(super) async fn bridge(world: &World, port: u16) -> Peer {
    bridge_with(world, port, TOKEN).await
}

pub(super) async fn bridge_with(world: &World, port: u16, token: &str) -> Peer {
    knock(world, port, "/bridge/v1", Some(&format!("Bearer {token}")))
        .await
        .unwrap_or_else(|response| panic!("{response:?}"))
}

/// A bridge that has said hello, and what the hub answered.
pub(super) async fn welcomed(world: &World, port: u16, received: (u64, u64), limit: u64) -> (Peer, Value) {
    let mut peer = bridge(world, port).await;
    peer.say(world, hello(received, limit)).await;
    let welcome = peer.hear(world).await;
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    (peer, welcome)
}

pub(super) fn hello((epoch, n): (u64, u64), limit: u64) -> Value {
    json!({
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

/// A cloud that has accepted a link's websocket, with the token it was shown.
pub(super) async fn cloud(
    world: &World,
    listener: &mut Box<dyn Listener>,
    acceptor: &TlsAcceptor,
) -> (Peer, String) {
    let mut shown = String::new();
    #[expect(clippy::result_large_err, reason = "the shape of the library's callback")]
    let callback = |request: &Request, response: Response| {
        assert_eq!(request.uri().path(), "/bridge/v1");
        shown = request.headers()["authorization"].to_str().unwrap().to_owned();
        Ok(response)
    };
    let accept = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let tls: Tls = Box::new(acceptor.accept(tcp).await.unwrap());
        accept_hdr_async_with_config(tls, callback, Some(unlimited())).await.unwrap()
    };
    let socket = world.within(Duration::from_secs(70), accept).await.expect("a link comes");
    (Peer { socket }, shown)
}

impl Peer {
    pub(super) async fn say(&mut self, world: &World, frame: Value) {
        self.say_text(world, &frame.to_string()).await;
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
                let frame = next(&mut self.socket).await?;
                match frame["type"].as_str() {
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
        world.within(span, next(&mut self.socket)).await.flatten()
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
