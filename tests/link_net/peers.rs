//! Hand-written clouds and proxies. A cloud knows as much of the protocol as a link must hear to be welcome; a proxy
//! knows CONNECT and nothing else. Nothing here uses the product's own code.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use latchd::seams::Stream;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

use super::{
    net::Host,
    world::{CLOUD, World},
};

/// What the cloud signs with.
pub(super) const CLOUD_SEED: [u8; 32] = [9; 32];

/// What a cloud does with who comes next.
#[derive(Clone)]
pub(super) enum Manner {
    /// Welcomes, and answers pings.
    Welcomes,
    /// Takes the connection and says nothing.
    Mute,
    /// Says this where TLS was due, and nothing more.
    Says(&'static [u8]),
    /// Takes its time with each of its words of TLS.
    Slow(Duration),
    /// Speaks TLS and is silent after that.
    MuteInTls,
    /// Answers this to the request for a websocket.
    Answers(String),
    /// Takes the websocket and does not welcome.
    DoesNotWelcome,
    /// Welcomes and closes with these bytes of a close frame.
    Closes(Vec<u8>),
    /// Welcomes and drops the connection.
    Drops,
}

/// A cloud; all clones are one.
#[derive(Clone)]
pub(super) struct Cloud {
    world: World,
    name: &'static str,
    manner: Arc<Mutex<Manner>>,
    acceptor: Arc<Mutex<TlsAcceptor>>,
}

impl Cloud {
    /// The cloud where the world expects it, with a certificate that is good for a century.
    pub(super) async fn start(world: &World, manner: Manner) -> Self {
        Self::start_at(world, "cloud", 443, world.authority.acceptor(CLOUD, 2000..2100), manner).await
    }

    pub(super) async fn start_at(
        world: &World,
        name: &'static str,
        port: u16,
        acceptor: TlsAcceptor,
        manner: Manner,
    ) -> Self {
        let acceptor = Arc::new(Mutex::new(acceptor));
        let cloud = Self { world: world.clone(), name, manner: Arc::new(Mutex::new(manner)), acceptor };
        let mut listener = world.listen(port).await;
        let serving = cloud.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.world.note(format!("{} is called", serving.name));
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        cloud
    }

    /// From now on, and for those to come.
    pub(super) fn now(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Takes another certificate.
    pub(super) fn shows(&self, acceptor: TlsAcceptor) {
        *self.acceptor.lock().unwrap() = acceptor;
    }

    async fn serve(&self, mut stream: Box<dyn Stream>) -> Option<()> {
        let manner = self.manner.lock().unwrap().clone();
        let acceptor = self.acceptor.lock().unwrap().clone();
        match manner {
            Manner::Mute => return swallow(stream).await,
            Manner::Says(bytes) => {
                stream.write_all(bytes).await.ok()?;
                return swallow(stream).await;
            }
            Manner::Slow(pause) => sleep(pause).await,
            _ => {}
        }
        let mut tls = acceptor.accept(stream).await.ok()?;
        if let Manner::Slow(pause) = manner {
            sleep(pause).await;
        }
        match &manner {
            Manner::MuteInTls => return swallow(tls).await,
            Manner::Answers(head) => {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(tls.read_u8().await.ok()?);
                }
                tls.write_all(head.as_bytes()).await.ok()?;
                tls.flush().await.ok()?;
                return swallow(tls).await;
            }
            _ => {}
        }
        #[expect(clippy::result_large_err, reason = "the shape of the library's callback")]
        let with_nonce = |_: &Request, mut response: Response| {
            response.headers_mut().insert("latchd-nonce", "AAAAAAAAAAAAAAAAAAAAAA==".parse().unwrap());
            Ok(response)
        };
        let mut socket = accept_hdr_async(tls, with_nonce).await.ok()?;
        let hello = socket.next().await?.ok()?.into_text().ok()?;
        let hello: Value = serde_json::from_str(&hello).unwrap();
        let hello = hello["body"].as_str().unwrap().to_owned();
        assert!(hello.contains(r#""frame":{"type":"hello""#), "{hello}");
        let (mut voice, mut pings) = (Voice::after(&hello), 0);
        self.world.note(format!("{} hears hello", self.name));
        if let Manner::DoesNotWelcome = manner {
            return swallow(socket.into_inner()).await;
        }
        socket.send(Message::text(voice.says(&welcome(), None))).await.ok()?;
        match manner {
            Manner::Drops => return None,
            Manner::Closes(payload) => {
                let mut stream = socket.into_inner();
                let mut frame = vec![0x88, u8::try_from(payload.len()).unwrap()];
                frame.extend(payload);
                stream.write_all(&frame).await.ok()?;
                stream.flush().await.ok()?;
                return swallow(stream).await;
            }
            _ => {}
        }
        loop {
            let text = socket.next().await?.ok()?.into_text().ok()?;
            let frame: Value = serde_json::from_str(&text).ok()?;
            if frame["type"] == "ping" {
                self.world.note(format!("{} is pinged", self.name));
                let pong = json!({"type": "pong", "nonce": frame["nonce"]}).to_string();
                socket.send(Message::text(pong)).await.ok()?;
                // About once a minute.
                pings += 1;
                if pings % 4 == 0 {
                    let beacon = voice.says(&json!({"type": "beacon"}), Some("2100-01-01T00:00:00Z"));
                    socket.send(Message::text(beacon)).await.ok()?;
                }
            }
        }
    }
}

/// What a cloud signs, by hand.
struct Voice {
    session: String,
    said: u64,
}

impl Voice {
    /// In the session that a hello began.
    fn after(hello: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, hello.as_bytes());
        Self { session: STANDARD.encode(&digest.as_ref()[..16]), said: 0 }
    }

    fn says(&mut self, frame: &Value, expires_at: Option<&str>) -> String {
        self.said += 1;
        let mut body = json!({
            "bridge_id": "00000000-0000-4000-8000-000000000001", "session": self.session, "seq": self.said,
            "frame": frame,
        });
        if let Some(at) = expires_at {
            body["expires_at"] = at.into();
        }
        let body = body.to_string();
        let key = Ed25519KeyPair::from_seed_unchecked(&CLOUD_SEED).unwrap();
        let signature = key.sign(&[b"latchd v1 cloud to bridge\0", body.as_bytes()].concat());
        let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref());
        let key_id: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"type": "signed", "key_id": key_id, "signature": STANDARD.encode(signature), "body": body})
            .to_string()
    }
}

fn welcome() -> Value {
    let key = Ed25519KeyPair::from_seed_unchecked(&CLOUD_SEED).unwrap();
    json!({
        "cloud_keys": [STANDARD.encode(key.public_key())],
        "type": "welcome", "version": 1, "bridge_id": "00000000-0000-4000-8000-000000000001",
        "workspace": "Home", "time": "2026-11-22T12:00:00Z",
        "orders_resume_after": {"epoch": 1, "n": 0},
        "reports_received": {"epoch": 0, "n": 0}, "reports_limit": 1000,
    })
}

/// Reads to the end and says nothing.
async fn swallow(mut stream: impl AsyncReadExt + Unpin) -> Option<()> {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await.ok()? > 0 {}
    None
}

/// What a proxy does with who comes next.
#[derive(Clone)]
pub(super) enum ProxyManner {
    Tunnels,
    /// Tunnels for this `Proxy-Authorization` alone.
    Demands(&'static str),
    Hangs,
    HangsAfter(&'static str),
    Answers(&'static str),
    /// Makes a tunnel, and ends TLS itself.
    Inspects(TlsAcceptor),
}

/// A proxy at port 3128; all clones are one.
#[derive(Clone)]
pub(super) struct Proxy {
    world: World,
    manner: Arc<Mutex<ProxyManner>>,
}

impl Proxy {
    pub(super) async fn start(world: &World, manner: ProxyManner) -> Self {
        let proxy = Self { world: world.clone(), manner: Arc::new(Mutex::new(manner)) };
        let mut listener = world.listen(3128).await;
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        proxy
    }

    pub(super) fn now(&self, manner: ProxyManner) {
        *self.manner.lock().unwrap() = manner;
    }

    async fn serve(&self, mut stream: Box<dyn Stream>) -> Option<()> {
        let manner = self.manner.lock().unwrap().clone();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some("CONNECT cloud.example:443 HTTP/1.1"));
        assert_eq!(lines.next(), Some("Host: cloud.example:443"));
        self.world.note("proxy is asked");
        // Nothing more may come before we have agreed.
        let early = timeout(Duration::from_secs(1), stream.read_u8()).await;
        assert!(!matches!(early, Ok(Ok(_))), "a byte came before the tunnel stood");
        match manner {
            ProxyManner::Hangs => return swallow(stream).await,
            ProxyManner::HangsAfter(part) => {
                stream.write_all(part.as_bytes()).await.ok()?;
                return swallow(stream).await;
            }
            ProxyManner::Answers(answer) => {
                stream.write_all(answer.as_bytes()).await.ok()?;
                return None;
            }
            ProxyManner::Demands(wanted)
                if !lines.any(|line| line == format!("Proxy-Authorization: {wanted}")) =>
            {
                let answer = "HTTP/1.1 407 Proxy Authentication Required\r\n\
                              Proxy-Authenticate: Basic realm=\"Fjord\"\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.ok()?;
                return None;
            }
            _ => {}
        }
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
        if let ProxyManner::Inspects(acceptor) = manner {
            return swallow(acceptor.accept(stream).await.ok()?).await;
        }
        let mut further = self.world.network.at(Host::Salto).connect("cloud", 443).await.ok()?;
        copy_bidirectional(&mut stream, &mut further).await.ok()?;
        None
    }
}
