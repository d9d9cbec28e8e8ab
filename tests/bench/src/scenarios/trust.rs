//! The connection: what TLS with certificates at both ends takes, from the beginning and resumed; from nothing to the
//! welcome; a heartbeat beside a bare echo over the same kind of websocket; and what signatures cost.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use latchd::{
    link::{self, Event, Settings},
    model::{
        BridgeId, CardFacts, DoorName, Outcome, Report, ReservationKey, RoomState, Success, SystemName,
        Written,
    },
    protocol::{
        Envelope, Frame, Memory, Message, Position, Said, Session, SigningKey,
        signing::{Listener, Party, Speaker},
    },
    seams::{Clock, Random, SystemNet, TrustedTime},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message as Ws;

use super::{runtime, soon};
use crate::{
    Options,
    cloud::{self, Cloud, Socket},
    jobs,
    judge::{Check, Goal, Paired, Samples},
};

/// Handshakes, or connections, between two turns.
const HANDSHAKES: usize = 50;
/// Heartbeats between two turns.
const BEATS: usize = 200;
/// Turns of each a round.
const TURNS: usize = 2;
/// Messages between two looks at the clock.
const MESSAGES: usize = 200;

pub fn run(options: &Options) -> anyhow::Result<Vec<Check>> {
    let mut checks = handshakes(options)?;
    if !options.quick {
        checks.extend(welcomes(options)?);
        checks.extend(heartbeats(options)?);
    }
    checks.extend(signatures(options)?);
    Ok(checks)
}

/// Runs the other end on a thread and a runtime of its own, as it has them at a site.
fn beside<F: Future<Output = anyhow::Result<()>>>(work: impl FnOnce() -> F + Send + 'static) {
    thread::spawn(move || {
        let ended = runtime().and_then(|runtime| runtime.block_on(work()));
        if let Err(error) = ended {
            eprintln!("bench: the other end: {error:#}");
        }
    });
}

/// From the connection's first packet to the first byte back.
fn handshakes(options: &Options) -> anyhow::Result<Vec<Check>> {
    let (told, here) = std::sync::mpsc::channel();
    beside(move || async move {
        let (server, plain) = (Arc::new(Cloud::new().await?), TcpListener::bind("127.0.0.1:0").await?);
        told.send((Arc::clone(&server), plain.local_addr()?))?;
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = plain.accept().await {
                let _ = tcp.set_nodelay(true);
                if tcp.read_u8().await.is_ok() {
                    let _ = tcp.write_u8(1).await;
                }
            }
        });
        loop {
            let mut tls = server.handshake().await?;
            tokio::spawn(async move {
                if tls.read_u8().await.is_ok() {
                    let _ = tls.write_u8(1).await;
                    let _ = tls.flush().await;
                }
                // Until the other side goes.
                let _ = tls.read_u8().await;
            });
        }
    });
    let (cloud, tcp_at) = here.recv().context("the cloud's thread")?;
    let tls_at: std::net::SocketAddr = cloud.url.replace("wss://", "").parse()?;
    let (mut full, mut resumed) = (Paired::default(), Paired::default());
    let mut counted = 0;
    runtime()?.block_on(async {
        for _ in 0..options.rounds {
            let (mut floor, mut from_nothing, mut again) =
                (Samples::default(), Samples::default(), Samples::default());
            for _ in 0..TURNS {
                for _ in 0..HANDSHAKES {
                    let began = Instant::now();
                    let mut tcp = TcpStream::connect(tcp_at).await?;
                    tcp.set_nodelay(true)?;
                    tcp.write_u8(1).await?;
                    tcp.read_u8().await?;
                    floor.push(began.elapsed());
                }
                for _ in 0..HANDSHAKES {
                    from_nothing.push(shake(tls_at, Arc::new(cloud.client_config()?)).await?);
                }
                ensure!(cloud.resumed() == 0, "a handshake with a stranger was resumed");
                let tls = Arc::new(cloud.client_config()?);
                shake(tls_at, Arc::clone(&tls)).await?;
                for _ in 0..HANDSHAKES {
                    again.push(shake(tls_at, Arc::clone(&tls)).await?);
                }
                counted += cloud.resumed();
            }
            full.round(floor, from_nothing.clone());
            resumed.round(from_nothing, again);
        }
        anyhow::Ok(())
    })?;
    let all = options.rounds * TURNS * HANDSHAKES;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let share = counted as f64 / all as f64;
    Ok(vec![
        full.check("-", "full mutual TLS, against TCP alone", Goal::Told),
        resumed.check("-", "resumed, against full", Goal::Told),
        Check::new("-", "of those that could be resumed, were", share, "", Goal::Exactly(1.0)),
    ])
}

/// One handshake with a byte there and a byte back: only then has the server judged us too.
async fn shake(at: std::net::SocketAddr, tls: Arc<rustls::ClientConfig>) -> anyhow::Result<Duration> {
    let name = ServerName::try_from(at.ip().to_string())?;
    let began = Instant::now();
    let tcp = TcpStream::connect(at).await?;
    tcp.set_nodelay(true)?;
    let mut tls = TlsConnector::from(tls).connect(name, tcp).await?;
    tls.write_u8(1).await?;
    tls.flush().await?;
    tls.read_u8().await?;
    Ok(began.elapsed())
}

/// From a link that starts to the welcome that it hears: the connection, TLS, the websocket, hello and welcome.
fn welcomes(options: &Options) -> anyhow::Result<Vec<Check>> {
    let (told, here) = std::sync::mpsc::channel();
    beside(move || async move {
        let cloud = Arc::new(Cloud::new().await?);
        told.send(Arc::clone(&cloud))?;
        // Until nobody has come for long.
        while let Ok((mut bridge, _)) = cloud.welcome(Timestamp::now(), Position::default()).await {
            tokio::spawn(
                async move { while bridge.socket().next().await.is_some_and(|read| read.is_ok()) {} },
            );
        }
        Ok(())
    });
    let cloud = here.recv().context("the cloud's thread")?;
    let mut again = Paired::default();
    runtime()?.block_on(async {
        for _ in 0..options.rounds {
            let (mut from_nothing, mut resumed) = (Samples::default(), Samples::default());
            for _ in 0..TURNS {
                for _ in 0..HANDSHAKES {
                    from_nothing.push(up(cloud.settings()?).await?.0);
                }
                let settings = cloud.settings()?;
                up(settings.clone()).await?;
                cloud.resumed();
                for _ in 0..HANDSHAKES {
                    resumed.push(up(settings.clone()).await?.0);
                }
                ensure!(cloud.resumed() == HANDSHAKES as u64, "the link resumes no handshake");
            }
            again.round(from_nothing, resumed);
        }
        anyhow::Ok(())
    })?;
    Ok(vec![again.check("-", "from nothing to the welcome, resumed against full", Goal::Told)])
}

/// A link that was welcomed, and how long that took.
async fn up(settings: Settings) -> anyhow::Result<(Duration, link::Link)> {
    let began = Instant::now();
    let time = TrustedTime::new(Clock::system());
    let mut link = link::start(settings, Arc::new(SystemNet), time, Random::system());
    loop {
        match soon("the link", link.events.recv()).await? {
            Event::Connecting(ask) => {
                let nothing = Position::default();
                let memory = Memory {
                    orders_received: nothing,
                    reports_sent: nothing,
                    reports_acknowledged: nothing,
                    orders_limit: 64,
                };
                let _ = ask.send(memory);
            }
            Event::Up { .. } => return Ok((began.elapsed(), link)),
            Event::Down(trouble) | Event::GaveUp(trouble) => bail!("{}", trouble.message),
            Event::Frame { .. } => {}
        }
    }
}

/// A ping and its pong, beside the same text there and back with nothing that looks at it. Both ends that answer live on
/// one thread, and take turns.
fn heartbeats(options: &Options) -> anyhow::Result<Vec<Check>> {
    let mut beats = Paired::default();
    runtime()?.block_on(async {
        let cloud = Arc::new(Cloud::new().await?);
        let (settings, tls, url) = (cloud.settings()?, Arc::new(cloud.client_config()?), cloud.url.clone());
        beside(move || async move {
            let mut echo = cloud::dial_with(&url, tls).await?;
            tokio::spawn(async move {
                while let Some(Ok(message)) = echo.next().await {
                    if message.is_text() && echo.send(message).await.is_err() {
                        return;
                    }
                }
            });
            let (_, mut link) = up(settings).await?;
            while link.events.recv().await.is_some() {}
            Ok(())
        });
        let mut echo = cloud.accept().await?;
        let (mut bridge, _) = cloud.welcome(Timestamp::now(), Position::default()).await?;
        let mut nonce = 0;
        for _ in 0..=options.rounds {
            let (mut floor, mut took) = (Samples::default(), Samples::default());
            for _ in 0..TURNS {
                for _ in 0..BEATS {
                    nonce += 1;
                    floor.push(beat(&mut echo, nonce, "ping").await?);
                }
                for _ in 0..BEATS {
                    nonce += 1;
                    took.push(beat(bridge.socket(), nonce, "pong").await?);
                }
            }
            // The first round is for caches and allocators.
            if nonce > 2 * (TURNS * BEATS) as u64 {
                beats.round(floor, took);
            }
        }
        anyhow::Ok(())
    })?;
    Ok(vec![beats.check("-", "heartbeat, against a bare echo", Goal::AtMost(1.3))])
}

async fn beat(socket: &mut Socket, nonce: u64, answer: &str) -> anyhow::Result<Duration> {
    let ping = Said::Bare(Frame::Ping { nonce }).to_text();
    let wanted = ping.replace("ping", answer);
    let began = Instant::now();
    socket.send(Ws::text(ping)).await?;
    loop {
        let heard = soon("an answer", async { socket.next().await?.ok() }).await?;
        let took = began.elapsed();
        // The link says more than this: that it is there.
        if heard.to_text().is_ok_and(|heard| heard == wanted) {
            return Ok(took);
        }
    }
}

const BRIDGE: BridgeId = BridgeId(uuid::Uuid::from_u128(1));
const TO_BRIDGE: &[u8] = b"latchd v1 cloud to bridge\0";
const TO_CLOUD: &[u8] = b"latchd v1 bridge to cloud\0";

/// An order heard and an outcome said, without anything that carries them.
fn signatures(options: &Options) -> anyhow::Result<Vec<Check>> {
    let (cloud, bridge) = (SigningKey::from_seed(&[6; 32]), SigningKey::from_seed(&[2; 32]));
    let session = Session::fresh(&Random::seeded(1));
    let now = Timestamp::now();
    let until = Some(now + jiff::SignedDuration::from_mins(10));
    let (mut hear, mut verify, mut say, mut sign) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let mut lengths = (0, 0);
    for _ in 0..options.rounds {
        let mut speaker = Speaker::new(Party::Cloud, cloud.clone(), BRIDGE, session);
        let mut listener = Listener::new(Party::Cloud, [cloud.public()], BRIDGE, session);
        let mut own = Speaker::new(Party::Bridge, bridge.clone(), BRIDGE, session);
        for turn in 0..TURNS {
            let mut orders = Vec::new();
            for number in 0..MESSAGES {
                let n = (turn * MESSAGES + number + 1) as u64;
                let order = Message::Job(jobs::card("bench", n, now));
                let envelope = Envelope::at(Position { epoch: 1, n }, &order);
                orders.push(Said::Signed(speaker.say(Frame::Envelope(envelope), until)).to_text());
            }
            let reports: Vec<_> = (1..=MESSAGES as u64).map(|n| report(n, now)).collect();

            let began = Instant::now();
            for text in &orders {
                let Said::Signed(packet) = Said::read(text)? else { bail!("an order is signed") };
                let Frame::Envelope(envelope) = listener.hear(&packet, now)? else { bail!("an envelope") };
                let Message::Job(job) = envelope.message()? else { bail!("an order") };
                ensure!(std::hint::black_box(job).system.as_str() == "bench");
            }
            hear.push(each(began));

            let packets: Vec<_> = orders
                .iter()
                .map(|text| match Said::read(text)? {
                    Said::Signed(packet) => Ok((STANDARD.decode(&packet.signature)?, packet.body)),
                    Said::Bare(_) => bail!("an order is signed"),
                })
                .collect::<anyhow::Result<_>>()?;
            let began = Instant::now();
            for (signature, body) in &packets {
                ensure!(cloud.public().verifies(TO_BRIDGE, body.as_bytes(), signature), "a signature fits");
            }
            verify.push(each(began));

            let mut said = Vec::with_capacity(MESSAGES);
            let began = Instant::now();
            for (n, report) in (1..).zip(reports) {
                let envelope = Envelope::at(Position { epoch: 1, n }, &Message::Outcome(report));
                said.push(Said::Signed(own.say(Frame::Envelope(envelope), until)).to_text());
            }
            say.push(each(began));

            let began = Instant::now();
            for text in &said {
                std::hint::black_box(bridge.sign(TO_CLOUD, text.as_bytes()));
            }
            sign.push(each(began));
            lengths = (orders[0].len(), said[0].len());
        }
    }
    let part = |what: String, whole: &Samples, part: &Samples| {
        [
            Check::told("-", what, whole.p50(), "us").of(whole),
            Check::told("-", "of that, Ed25519", part.p50() / whole.p50() * 100.0, "%").of(part),
        ]
    };
    let hear = part(format!("an order of {} bytes, decoded and verified", lengths.0), &hear, &verify);
    let say = part(format!("an outcome, encoded and signed ({} bytes)", lengths.1), &say, &sign);
    Ok(hear.into_iter().chain(say).collect())
}

fn each(began: Instant) -> Duration {
    began.elapsed() / MESSAGES as u32
}

fn report(number: u64, now: Timestamp) -> Report {
    let facts = CardFacts {
        serial: Some("04A1B2C3D4E5F6".into()),
        overrode: Some(true),
        printed_end: Some(now),
        printed_start: None,
    };
    Report {
        job_id: jobs::job_id(number),
        revision: 1,
        at: now,
        outcome: Outcome::Succeeded(Success {
            written: Some(Written::Proven),
            card: Some(facts),
            seen: None,
            slots: None,
        }),
        resolution: None,
        rooms: vec![RoomState {
            system: SystemName::new("bench").expect("a name"),
            room: DoorName::new("101").expect("a name"),
            reservation_key: Some(ReservationKey::new(format!("stay {number}")).expect("a key")),
            certain: true,
            since: now,
            cards: 1,
            printed_ends: Vec::new(),
        }],
        local: None,
    }
}
