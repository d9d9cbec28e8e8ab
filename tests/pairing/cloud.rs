//! A cloud of the test's own, as far as a bridge sees it while it is paired and renewed: blocking, one connection at a
//! time, its answers made and signed here.
//!
//! It does not imitate: codes that expire or are used up, a check of what asks (proofs, the request's own signature), an
//! answer that is kept and given again, orders and reports. What it heard is there for the test to judge.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use latchd::{
    model::BridgeId,
    protocol::{
        Frame, Position, PublicKey, Session, SigningKey, Welcome,
        signing::{Packet, Party, Speaker, Statement},
    },
    seams::Random,
};
use ring::{digest, signature::Ed25519KeyPair, signature::KeyPair as _};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, WebSocket, handshake::derive_accept_key, protocol::Role};
use uuid::Uuid;

/// What is done with a request to be taken in, or to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Yes,
    /// 202: a person has not answered.
    Wait,
    /// The connection ends without an answer.
    Lose,
    /// No answer, and the connection stays.
    Hold,
    /// A status, the error's type, and `Retry-After`.
    No(u16, &'static str, Option<u32>),
    /// An answer of which one letter is another than was signed.
    Altered,
    /// An answer that somebody else signed, whose key stands second on the card.
    Foreign,
    /// An answer about other keys.
    OtherKeys,
}

/// What the cloud heard: a path and the body that came with it.
pub(crate) type Heard = (String, Value);

pub(crate) struct State {
    pub(crate) pair: VecDeque<Reply>,
    pub(crate) renew: VecDeque<Reply>,
    /// What is done when the lists are at their end.
    pub(crate) always: Reply,
    /// From when, counted from now, and how long the certificates count that it issues.
    pub(crate) backdated: SignedDuration,
    pub(crate) life: SignedDuration,
    pub(crate) ledger: Option<Value>,
    pub(crate) heard: Vec<Heard>,
    /// Signing keys of bridges whose hello was heard, in this order.
    pub(crate) met: Vec<PublicKey>,
    hellos: mpsc::Sender<PublicKey>,
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Oddity {
    #[default]
    None,
    /// Somebody in between shows a certificate of his own.
    Inspected,
    /// Its clock, and all that it issues, is three years ahead.
    Ahead,
    /// It knows nothing of pairing.
    Old,
    /// A second key stands on its card.
    TwoKeys,
    /// Its welcome names no key of its own.
    Nameless,
    /// Its certificate is its operator's: it names no authority of its own.
    Operators,
    /// It ends connections that were made with the first certificate, for that has ended, as it says.
    EndsTheFirst,
}

pub(crate) struct Cloud {
    pub(crate) port: u16,
    pub(crate) bridge: Uuid,
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) hellos: mpsc::Receiver<PublicKey>,
    speaks: Arc<Speaks>,
}

/// What it speaks with.
struct Speaks {
    bridge: Uuid,
    key: Ed25519KeyPair,
    seed: [u8; 32],
    other: Ed25519KeyPair,
    oddity: Oddity,
    authority: String,
    bridges: rcgen::Issuer<'static, rcgen::KeyPair>,
}

fn issuer(name: &str) -> (String, rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, rcgen::Issuer::new(params, key))
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    roots
}

fn set_life(params: &mut rcgen::CertificateParams, from: Timestamp, until: Timestamp) {
    let begin = rcgen::date_time_ymd(1970, 1, 1);
    let date = |at: Timestamp| begin + Duration::from_secs(at.as_second().try_into().unwrap());
    (params.not_before, params.not_after) = (date(from), date(until));
}

impl Cloud {
    pub(crate) fn start(oddity: Oddity) -> Self {
        let (authority, servers) = issuer("servers");
        let (_, inspectors) = issuer("inspectors");
        let (bridges_pem, bridges) = issuer("bridges");
        let mut leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        if oddity == Oddity::Ahead {
            let ahead = Timestamp::now() + SignedDuration::from_hours(3 * 365 * 24);
            set_life(&mut leaf, ahead, ahead + SignedDuration::from_hours(24));
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let by = if oddity == Oddity::Inspected { &inspectors } else { &servers };
        let certificate = leaf.signed_by(&key, by).unwrap().der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&bridges_pem)), provider.clone())
                .allow_unauthenticated()
                .build()
                .unwrap();
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let (hellos_in, hellos) = mpsc::channel();
        let state = Arc::new(Mutex::new(State {
            pair: VecDeque::new(),
            renew: VecDeque::new(),
            always: Reply::Yes,
            backdated: SignedDuration::ZERO,
            life: SignedDuration::from_hours(24 * 90),
            ledger: None,
            heard: Vec::new(),
            met: Vec::new(),
            hellos: hellos_in,
        }));
        let bridge = Uuid::from_u128(7);
        let seed = [7; 32];
        let speaks = Arc::new(Speaks {
            bridge,
            key: Ed25519KeyPair::from_seed_unchecked(&seed).unwrap(),
            seed,
            other: Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap(),
            oddity,
            authority,
            bridges,
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (serving, of_state, tls) = (Arc::clone(&speaks), Arc::clone(&state), Arc::new(tls));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (serving, state, tls) = (Arc::clone(&serving), Arc::clone(&of_state), Arc::clone(&tls));
                // Whoever goes away is no failure of the test: it is missing in what was heard.
                thread::spawn(move || serving.visit(stream.unwrap(), tls, &state));
            }
        });
        Self { port, bridge, state, hellos, speaks }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Its fingerprint, counted here: SHA-256 over a word, and each part after its length in eight bytes; 80 bits of it
    /// in Crockford's letters.
    pub(crate) fn fingerprint(&self) -> String {
        let mut bytes = b"latchd v1 cloud's fingerprint\0".to_vec();
        for part in [self.speaks.key.public_key().as_ref(), self.speaks.named().unwrap_or("").as_bytes()] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        let digest = digest::digest(&digest::SHA256, &bytes);
        let bits: String = digest.as_ref()[..10].iter().map(|byte| format!("{byte:08b}")).collect();
        let letter = |at: usize| {
            let value = usize::from_str_radix(&bits[5 * at..5 * at + 5], 2).unwrap();
            char::from(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[value])
        };
        let letters: String = (0..16).map(letter).collect();
        [&letters[..4], &letters[4..8], &letters[8..12], &letters[12..]].join("-")
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The authority that vouches for it, PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.speaks.authority
    }

    /// The bodies that came to a path.
    pub(crate) fn heard(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.heard.iter().filter(|(at, _)| at == path).map(|(_, body)| body.clone()).collect()
    }
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

impl Speaks {
    fn visit(&self, stream: TcpStream, tls: Arc<ServerConfig>, state: &Mutex<State>) -> Option<()> {
        let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
        let (head, body) = request(&mut stream)?;
        let path = head.split(' ').nth(1)?.to_owned();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        state.lock().unwrap().heard.push((path.clone(), body.clone()));
        match path.as_str() {
            "/bridge/v1/cloud" if self.oddity != Oddity::Old => respond(&mut stream, 200, None, &self.card()),
            "/bridge/v1/pair" | "/bridge/v1/renew" => {
                let reply = {
                    let mut state = state.lock().unwrap();
                    let list = if path.ends_with("pair") { &mut state.pair } else { &mut state.renew };
                    list.pop_front().unwrap_or_else(|| state.always.clone())
                };
                self.reply(&mut stream, &reply, &body, state)
            }
            "/bridge/v1" => self.talk(stream, &head, state),
            _ => respond(&mut stream, 404, None, &error("not_found")),
        }
    }

    fn public(key: &Ed25519KeyPair) -> String {
        STANDARD.encode(key.public_key().as_ref())
    }

    /// The authority that it names as its own.
    fn named(&self) -> Option<&str> {
        (self.oddity != Oddity::Operators).then_some(self.authority.as_str())
    }

    fn card(&self) -> Value {
        let ahead = if self.oddity == Oddity::Ahead { 3 * 365 * 24 } else { 0 };
        let mut keys = vec![Self::public(&self.key)];
        if self.oddity == Oddity::TwoKeys {
            keys.push(Self::public(&self.other));
        }
        let mut card =
            json!({"cloud_keys": keys, "time": Timestamp::now() + SignedDuration::from_hours(ahead)});
        if let Some(authority) = self.named() {
            card["authority"] = authority.into();
        }
        card
    }

    fn reply(&self, stream: &mut Tls, reply: &Reply, body: &Value, state: &Mutex<State>) -> Option<()> {
        match reply {
            Reply::Lose => None,
            Reply::Hold => stream.read(&mut [0; 1]).ok().map(drop),
            Reply::Wait => respond(stream, 202, None, &json!({"expires_in": 600})),
            Reply::No(status, kind, after) => respond(stream, *status, *after, &error(kind)),
            Reply::Yes | Reply::Altered | Reply::Foreign | Reply::OtherKeys => {
                let answer = self.answer(reply, body, &state.lock().unwrap());
                respond(stream, 200, None, &answer)
            }
        }
    }

    fn answer(&self, reply: &Reply, body: &Value, state: &State) -> Value {
        let csr = body["csr"].as_str().unwrap();
        let signing = STANDARD.decode(body["signing_key"].as_str().unwrap()).unwrap();
        let asked = [&signing[..], csr.as_bytes()].concat();
        let digest = digest::digest(&digest::SHA256, &asked);
        let mut keys: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if *reply == Reply::OtherKeys {
            keys = "0".repeat(64);
        }
        let issued_at = Timestamp::now() - state.backdated;
        let expires_at = issued_at + state.life;
        let mut params = rcgen::CertificateParams::default();
        set_life(&mut params, issued_at - SignedDuration::from_hours(1), expires_at);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = Asked(STANDARD.decode(csr).unwrap());
        let mut admission = json!({
            "keys": keys,
            "bridge_id": self.bridge,
            "workspace": "Home",
            "cloud_keys": [Self::public(&self.key)],
            "certificate": params.signed_by(&key, &self.bridges).unwrap().pem(),
            "issued_at": issued_at,
            "expires_at": expires_at,
        });
        if let Some(authority) = self.named() {
            admission["authority"] = authority.into();
        }
        if let Some(ledger) = &state.ledger {
            admission["ledger"] = ledger.clone();
        }
        let body = admission.to_string();
        let key = if *reply == Reply::Foreign { &self.other } else { &self.key };
        let signature = key.sign(&[b"latchd v1 admission\0", body.as_bytes()].concat());
        let body = if *reply == Reply::Altered { body.replace("Home", "Homer") } else { body };
        let id = digest::digest(&digest::SHA256, key.public_key().as_ref());
        let id: String = id.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"key_id": id, "signature": STANDARD.encode(signature.as_ref()), "body": body})
    }

    /// Says welcome, and lives until the bridge goes.
    fn talk(&self, mut stream: Tls, head: &str, state: &Mutex<State>) -> Option<()> {
        stream.conn.peer_certificates()?;
        let asked = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
        })?;
        let nonce = Session::fresh(&Random::system());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {}\r\nlatchd-nonce: {nonce}\r\n\r\n",
            derive_accept_key(asked.as_bytes())
        );
        stream.write_all(answer.as_bytes()).ok()?;
        let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
        let text = |message: tungstenite::Message| message.into_text().ok();
        let packet: Packet = serde_json::from_str(&text(socket.read().ok()?)?).ok()?;
        let statement: Statement = serde_json::from_str(&packet.body).ok()?;
        let Frame::Hello(hello) = statement.frame else { return None };
        let bridge = BridgeId(self.bridge);
        let cloud = SigningKey::from_seed(&self.seed);
        if !hello.cloud_keys.contains(&cloud.public().id()) {
            return None;
        }
        let session = Session::of_hello(&packet.body);
        let mut speaker = Speaker::new(Party::Cloud, cloud.clone(), bridge, session);
        let welcome = Frame::Welcome(Welcome {
            version: 1,
            bridge_id: bridge,
            workspace: "Home".into(),
            time: Timestamp::now(),
            orders_resume_after: Position { epoch: 1, n: 0 },
            reports_received: hello.memory.reports_sent,
            reports_limit: 1_000,
            orders_epoch_reason: None,
            cloud_keys: if self.oddity == Oddity::Nameless { Vec::new() } else { vec![cloud.public()] },
        });
        let mut say = serde_json::to_value(speaker.say(welcome, None)).ok()?;
        say["type"] = "signed".into();
        socket.send(tungstenite::Message::text(say.to_string())).ok()?;
        {
            let mut state = state.lock().unwrap();
            let asked = state.heard.iter().rev().filter_map(|(_, body)| body["signing_key"].as_str());
            let signed = |key: &str| {
                let key = PublicKey::new(STANDARD.decode(key).ok()?.try_into().ok()?);
                (key.id() == packet.key_id).then_some(key)
            };
            let key = asked.filter_map(signed).next()?;
            state.met.push(key);
            // Nobody may wait for it.
            let _ = state.hellos.send(key);
            if self.oddity == Oddity::EndsTheFirst && state.met[0] == key {
                let over = json!({
                    "type": "refused", "code": "certificate_ended", "message": "in the cloud's own words",
                });
                return socket.send(tungstenite::Message::text(over.to_string())).ok();
            }
        }
        loop {
            let message: Value = serde_json::from_str(&text(socket.read().ok()?)?).ok()?;
            if message["type"] == "ping" {
                let pong = json!({"type": "pong", "nonce": message["nonce"]});
                socket.send(tungstenite::Message::text(pong.to_string())).ok()?;
            }
        }
    }
}

/// The public key in a request for a certificate: an uncompressed point of P-256 in a bit string.
struct Asked(Vec<u8>);

impl rcgen::PublicKeyData for Asked {
    fn der_bytes(&self) -> &[u8] {
        let at = self.0.windows(4).position(|bytes| bytes == [3, 66, 0, 4]);
        let at = at.unwrap() + 3;
        &self.0[at..at + 65]
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn error(kind: &str) -> Value {
    json!({"error": {"type": kind, "message": "in the cloud's own words"}})
}

fn request(stream: &mut Tls) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let mut some = [0; 1024];
        match stream.read(&mut some).ok()? {
            0 => return None,
            count => bytes.extend(&some[..count]),
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = bytes[end..].to_vec();
    let have = body.len();
    body.resize(length.unwrap_or(0).max(have), 0);
    stream.read_exact(&mut body[have..]).ok()?;
    Some((head, body))
}

fn respond(stream: &mut Tls, status: u16, after: Option<u32>, body: &Value) -> Option<()> {
    let after = after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\ncontent-length: {}\r\n{after}connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}

/// Nothing in these tests takes longer, whatever the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until something is so.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < give_up, "waited {PATIENCE:?} in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
