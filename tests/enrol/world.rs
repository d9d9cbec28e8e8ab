//! A whole cloud on a network in memory, and peers that speak hand-written bytes to it over real TLS.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use latchd::{
    cloud::{
        self, Running,
        admin::{AdminError, Invited, PairingLine, PairingState, Request, Response, ask},
    },
    config::{
        ApiConfig, BridgesConfig, CloudConfig, RetentionConfig, StorageConfig, WebhooksConfig,
        WorkspaceConfig,
    },
    model::BridgeId,
    seams::{Clock, MemoryNet, Net, Random, Stream},
};
use rcgen::{CertificateParams, KeyPair};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

type Tls = Box<dyn Stream>;

/// Whatever must come, comes within this.
const SOON: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) net: MemoryNet,
    pub(crate) clock: Clock,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) running: Running,
    pub(crate) port: u16,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(folder: tempfile::TempDir) -> Self {
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = CloudConfig {
            storage: StorageConfig { folder: folder.path().into(), key_file: None, reserve: 0 },
            workspace: WorkspaceConfig { name: "Home".into() },
            api: ApiConfig {
                listen,
                plain: true,
                tls: None,
                names: Vec::new(),
                hold: Duration::from_secs(20),
                hold_orders: false,
                instant_key_url: None,
            },
            bridges: BridgesConfig {
                listen,
                tls: None,
                names: Vec::new(),
                certificate_lifetime: days(30),
                renewal_grace: days(10),
            },
            retention: RetentionConfig::default(),
            webhooks: WebhooksConfig::default(),
            simulators: Vec::new(),
        };
        let net = MemoryNet::default();
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        let running = cloud::start(&config, &net, clock.clone(), Random::system()).await.unwrap();
        let port = running.bridges.rsplit(':').next().unwrap().parse().unwrap();
        Self { net, clock, folder, running, port }
    }

    /// Puts the clock forward.
    pub(crate) fn pass(&self, span: Duration) {
        let span = SignedDuration::try_from(span).unwrap();
        self.clock.jump_to(self.clock.now() + span);
    }

    pub(crate) async fn ask(&self, request: Request) -> Result<Response, AdminError> {
        ask(&self.running.admin_socket, &request).await
    }

    /// What administration refuses, by name.
    pub(crate) async fn refused(&self, request: Request) -> (String, String) {
        match self.ask(request).await {
            Err(AdminError::Refused { code, message }) => (code, message),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn invite(&self, request: Request) -> Invited {
        match self.ask(request).await.unwrap() {
            Response::Invited(invited) => *invited,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until an invitation stands otherwise than so.
    pub(crate) async fn pairing(&self, pairing: &str, unless: PairingState) -> PairingLine {
        loop {
            let request = Request::Pairing { pairing: pairing.into(), unless: Some(unless) };
            match self.ask(request).await.unwrap() {
                Response::Pairing(line) if line.state != unless => return *line,
                Response::Pairing(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// A paired site.
    pub(crate) async fn paired(&self) -> (Site, Admission) {
        let (site, invited) = (Site::new(), self.invite(accepting()).await);
        let reply = self.post("/bridge/v1/pair", &site.pair(&invited.code)).await;
        let admission = site.admission(&reply);
        (site, admission)
    }

    pub(crate) async fn tls(&self, site: Option<(&Site, &Admission)>) -> std::io::Result<Tls> {
        let mut roots = RootCertStore::empty();
        let authority = std::fs::read(self.folder.path().join("ca.pem")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_details(provider, Arc::new(self.clock.clone()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match site {
            None => config.with_no_client_auth(),
            Some((site, admission)) => {
                let chain = vec![CertificateDer::from_pem_slice(admission.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(site.tls.serialize_pem().as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let tcp = self.net.connect("localhost", self.port).await?;
        let name = ServerName::try_from("localhost").unwrap();
        Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?))
    }

    /// Says these bytes and hears the answer to its end.
    pub(crate) async fn say(&self, bytes: &[u8]) -> Reply {
        let talk = async {
            let mut stream = self.tls(None).await.unwrap();
            // Whoever refuses may have gone before all of it was said.
            let _ = stream.write_all(bytes).await;
            let _ = stream.flush().await;
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            Reply::read(&heard)
        };
        timeout(SOON, talk).await.expect("an answer comes")
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.say(post(path, &body.to_string()).as_bytes()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.say(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await
    }

    /// Opens the websocket; the status of the answer where it is not opened.
    pub(crate) async fn knock(&self, site: &Site, admission: &Admission) -> Result<Peer, String> {
        let knock = async {
            let stream = self.tls(Some((site, admission))).await.map_err(|error| error.to_string())?;
            let request = format!("wss://localhost:{}/bridge/v1", self.port).into_client_request().unwrap();
            match client_async(request, stream).await {
                Ok((socket, response)) => {
                    let nonce = response.headers()["latchd-nonce"].to_str().unwrap().to_owned();
                    Ok(Peer { socket, session: nonce, seq: 0, signing: site.seed, bridge: admission.bridge })
                }
                Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                    Err(response.status().as_u16().to_string())
                }
                Err(error) => Err(error.to_string()),
            }
        };
        timeout(SOON, knock).await.expect("an answer comes")
    }

    /// A bridge that has said hello, knowing these keys of the cloud, and the packet that it got.
    pub(crate) async fn welcomed(&self, site: &Site, admission: &Admission) -> (Peer, Packet) {
        let known: Vec<_> = admission.cloud_keys.iter().map(|key| key_id(key)).collect();
        let mut peer = self.knock(site, admission).await.unwrap();
        peer.hello(&known).await;
        let packet = peer.hear().await.expect("a welcome comes");
        assert_eq!(packet.frame["type"], "welcome", "{packet:?}");
        (peer, packet)
    }

    pub(crate) async fn stop(self) {
        self.running.stop().await;
    }

    /// Stops, and gives the folder for another start.
    pub(crate) async fn stop_and_keep(self) -> tempfile::TempDir {
        self.running.stop().await;
        self.folder
    }
}

pub(crate) fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

pub(crate) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// An invitation that asks a person.
pub(crate) fn invitation() -> Request {
    Request::Invite {
        name: None,
        replace: None,
        accept: false,
        fingerprint: None,
        valid_seconds: 900,
        ledger_is_current: false,
        workspace: None,
        by: "night porter".into(),
    }
}

/// One that asks nobody.
pub(crate) fn accepting() -> Request {
    let Request::Invite {
        name, replace, fingerprint, valid_seconds, ledger_is_current, workspace, by, ..
    } = invitation()
    else {
        unreachable!()
    };
    Request::Invite {
        accept: true,
        name,
        replace,
        fingerprint,
        valid_seconds,
        ledger_is_current,
        workspace,
        by,
    }
}

/// One for a bridge that takes another one's place.
pub(crate) fn replacing(bridge: BridgeId, current: bool) -> Request {
    Request::Invite {
        name: None,
        replace: Some(bridge),
        accept: true,
        fingerprint: None,
        valid_seconds: 900,
        ledger_is_current: current,
        workspace: None,
        by: "night porter".into(),
    }
}

/// What an HTTP server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_ascii_lowercase(), body: body.into() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and name of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["error"]["type"].as_str().unwrap_or_default().to_owned())
    }
}

/// The keys of one bridge.
pub(crate) struct Site {
    pub(crate) tls: KeyPair,
    pub(crate) seed: [u8; 32],
    /// Made once: its signature is another one each time.
    csr: String,
}

/// What a cloud said when it took a bridge in.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pub(crate) bridge: BridgeId,
    pub(crate) certificate: String,
    /// Public keys, base64.
    pub(crate) cloud_keys: Vec<String>,
    pub(crate) expires_at: Timestamp,
    pub(crate) value: Value,
    pub(crate) signed_by: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(KeyPair::generate().unwrap())
    }

    pub(crate) fn with(tls: KeyPair) -> Self {
        // Wishes that a cloud must not grant.
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "somebody else");
        let csr = STANDARD.encode(params.serialize_request(&tls).unwrap().der());
        Self { tls, seed: Random::system().bytes(), csr }
    }

    pub(crate) fn key(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.seed).unwrap()
    }

    fn public(&self) -> Vec<u8> {
        self.key().public_key().as_ref().to_vec()
    }

    fn keys(&self) -> (Vec<u8>, Value) {
        let csr = &self.csr;
        let bytes = [self.public().as_slice(), csr.as_bytes()].concat();
        let proof = self.sign(b"latchd v1 bridge's keys\0", &bytes);
        let value = json!({"csr": csr, "signing_key": STANDARD.encode(self.public()), "proof": proof});
        (bytes, value)
    }

    fn sign(&self, domain: &[u8], bytes: &[u8]) -> String {
        STANDARD.encode(self.key().sign(&[domain, bytes].concat()).as_ref())
    }

    pub(crate) fn pair(&self, code: &str) -> Value {
        let (_, mut request) = self.keys();
        request["code"] = code.into();
        request["agent"] = "pencil 1.0".into();
        request
    }

    /// Wants `next`'s keys.
    pub(crate) fn renew(&self, bridge: BridgeId, next: &Self) -> Value {
        let (bytes, mut request) = next.keys();
        request["bridge_id"] = bridge.to_string().into();
        request["old_key_id"] = key_id(&STANDARD.encode(self.public())).into();
        request["old_proof"] = self.sign(b"latchd v1 renewal\0", &bytes).into();
        request
    }

    /// What a cloud's answer says, if it is signed by one of the keys that it names.
    pub(crate) fn admission(&self, reply: &Reply) -> Admission {
        assert_eq!(reply.status, 200, "{reply:?}");
        let answer = reply.json();
        let body = answer["body"].as_str().unwrap();
        let value: Value = serde_json::from_str(body).unwrap();
        let cloud_keys: Vec<String> = serde_json::from_value(value["cloud_keys"].clone()).unwrap();
        let signed_by = answer["key_id"].as_str().unwrap().to_owned();
        let key =
            cloud_keys.iter().find(|key| key_id(key) == signed_by).expect("it names the key that signed");
        verify(key, b"latchd v1 admission\0", body, answer["signature"].as_str().unwrap());
        Admission {
            bridge: value["bridge_id"].as_str().unwrap().parse().unwrap(),
            certificate: value["certificate"].as_str().unwrap().into(),
            cloud_keys,
            expires_at: value["expires_at"].as_str().unwrap().parse().unwrap(),
            value,
            signed_by,
        }
    }
}

pub(crate) fn verify(key: &str, domain: &[u8], body: &str, signature: &str) {
    let key = STANDARD.decode(key).unwrap();
    let signed = [domain, body.as_bytes()].concat();
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key)
        .verify(&signed, &STANDARD.decode(signature).unwrap())
        .expect("the signature fits");
}

/// The name of a public key.
pub(crate) fn key_id(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, &STANDARD.decode(key).unwrap());
    digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A bridge's end of the websocket.
pub(crate) struct Peer {
    socket: WebSocketStream<Tls>,
    session: String,
    seq: u64,
    signing: [u8; 32],
    bridge: BridgeId,
}

/// What was heard: by which key it is signed, if it is, and what it says.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) key_id: Option<String>,
    pub(crate) frame: Value,
}

impl Peer {
    /// Says a signed frame; gives its body.
    pub(crate) async fn say(&mut self, frame: Value, expires_at: Option<Timestamp>) -> String {
        self.seq += 1;
        let mut statement = json!({
            "bridge_id": self.bridge.to_string(), "session": self.session, "seq": self.seq, "frame": frame,
        });
        if let Some(at) = expires_at {
            statement["expires_at"] = at.to_string().into();
        }
        let body = statement.to_string();
        let key = Ed25519KeyPair::from_seed_unchecked(&self.signing).unwrap();
        let signature = key.sign(&[b"latchd v1 bridge to cloud\0", body.as_bytes()].concat());
        let packet = json!({
            "type": "signed", "key_id": key_id(&STANDARD.encode(key.public_key().as_ref())),
            "signature": STANDARD.encode(signature.as_ref()), "body": body,
        });
        // Whoever refuses may have gone.
        let _ = self.socket.send(Message::text(packet.to_string())).await;
        body
    }

    /// Says hello; the cloud may send it a thousand orders.
    pub(crate) async fn hello(&mut self, cloud_keys: &[String]) {
        self.hello_remembering(cloud_keys, 0).await;
    }

    /// Says hello, remembering so many orders.
    pub(crate) async fn hello_remembering(&mut self, cloud_keys: &[String], orders: u64) {
        self.hello_holding(cloud_keys, json!({"epoch": 1, "n": orders})).await;
    }

    /// Says hello, holding the orders up to a position.
    pub(crate) async fn hello_holding(&mut self, cloud_keys: &[String], received: Value) {
        let nothing = json!({"epoch": 1, "n": 0});
        let hello = json!({
            "type": "hello", "versions": [1], "agent": "pencil 1.0", "orders_received": received,
            "reports_sent": nothing, "reports_acknowledged": nothing, "orders_limit": 1000,
            "nonce": STANDARD.encode([7; 16]), "cloud_keys": cloud_keys,
        });
        let body = self.say(hello, None).await;
        let digest = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
        self.session = STANDARD.encode(&digest.as_ref()[..16]);
        self.seq = 0;
    }

    /// The next frame that is not a sign of life; none when the connection has ended.
    pub(crate) async fn hear(&mut self) -> Option<Packet> {
        let hear = async {
            loop {
                let text = match self.socket.next().await? {
                    Ok(Message::Text(text)) => text,
                    Ok(Message::Close(_)) | Err(_) => return None,
                    Ok(_) => continue,
                };
                let value: Value = serde_json::from_str(&text).unwrap();
                let packet = match value["type"].as_str() {
                    Some("signed") => {
                        let body: Value = serde_json::from_str(value["body"].as_str().unwrap()).unwrap();
                        let key_id = value["key_id"].as_str().map(str::to_owned);
                        Packet { key_id, frame: body["frame"].clone() }
                    }
                    _ => Packet { key_id: None, frame: value },
                };
                match packet.frame["type"].as_str() {
                    Some("ping" | "pong" | "beacon") => {}
                    _ => return Some(packet),
                }
            }
        };
        timeout(SOON, hear).await.expect("something comes, or the connection ends")
    }

    /// Hears why it is refused, and that nothing comes after it.
    pub(crate) async fn refused(&mut self) -> Value {
        let packet = self.hear().await.expect("a reason is given");
        assert_eq!(packet.frame["type"], "refused", "{packet:?}");
        assert!(self.hear().await.is_none());
        packet.frame
    }
}
