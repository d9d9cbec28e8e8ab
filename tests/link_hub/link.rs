//! The link against clouds that speak hand-written text, and against what is no cloud at all.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use latchd::{
    link::{Event, Link, Trouble},
    protocol::{Frame, MAX_FRAME},
    seams::{BoxFuture, Listener, MemoryNet, Net, Random, ResolveError, Stream, TrustedTime},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;

use super::{
    peers::{self, Peer, welcome},
    world::{World, at, memory},
};

/// A place at which a hand-written cloud accepts links.
struct Stage {
    world: World,
    listener: Box<dyn Listener>,
    acceptor: TlsAcceptor,
}

impl Stage {
    async fn new() -> Self {
        let world = World::simulated();
        let listener = world.net.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let acceptor = world.localhost();
        Self { world, listener, acceptor }
    }

    fn link(&self) -> Link {
        self.world.link(self.listener.address().port())
    }

    /// Accepts a link, hears its hello and welcomes it.
    async fn up(&mut self, link: &mut Link) -> (Peer, u64) {
        let mut cloud = self.hello(link).await;
        cloud.say(&self.world, welcome(1)).await;
        loop {
            match self.world.event(link).await {
                Event::Up { connection, .. } => return (cloud, connection),
                Event::Down(trouble) => panic!("{trouble:?}"),
                _ => {}
            }
        }
    }

    /// Accepts a link and hears its hello.
    async fn hello(&mut self, link: &mut Link) -> Peer {
        let accept = peers::cloud(&self.world, &mut self.listener, &self.acceptor);
        let answer = async {
            loop {
                match link.events.recv().await.unwrap() {
                    Event::Connecting(answer) => return answer.send(memory(at(4, 2), 9)).unwrap(),
                    Event::Down(_) | Event::GaveUp(_) | Event::Up { .. } | Event::Frame { .. } => {}
                }
            }
        };
        let (mut cloud, ()) = tokio::join!(accept, answer);
        let said = cloud.hear(&self.world).await;
        assert_eq!(said["type"], "hello");
        assert_eq!(said["versions"], json!([2, 1]));
        assert_eq!(said["orders_received"], json!({"epoch": 4, "n": 2}));
        cloud
    }
}

fn progress(number: u64) -> Value {
    json!({"type": "progress", "job_id": format!("00000000-0000-0000-0000-{number:012x}"), "stage": "sent"})
}

async fn trouble_with(world: &World, mut link: Link) -> Trouble {
    world.trouble(&mut link).await
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_not_of_the_language_are_refused_and_the_link_comes_again() {
    let mut stage = Stage::new().await;
    let mut link = stage.link();
    for text in [r#"{"type":"open_sesame"}"#, "nonsense"] {
        let (mut cloud, _) = stage.up(&mut link).await;
        cloud.say_text(&stage.world, text).await;
        assert_eq!(cloud.refused(&stage.world).await, "frame_malformed");
        assert_eq!(stage.world.trouble(&mut link).await.code, "link_frame_malformed");
    }
    for frame in [
        r#"{"type":"open_sesame"}"#,
        r#"{"type":"envelope","position":{"epoch":18446744073709551615,"n":1},"body":""}"#,
        r#"{"type":"limit"}"#,
    ] {
        let (mut cloud, _) = stage.up(&mut link).await;
        cloud.say_signed(&stage.world, frame).await;
        assert_eq!(cloud.refused(&stage.world).await, "frame_malformed");
        assert_eq!(stage.world.trouble(&mut link).await.code, "link_frame_malformed");
    }
    let (mut cloud, _) = stage.up(&mut link).await;
    cloud.say_message(&stage.world, Message::binary(&b"{}"[..])).await;
    assert_eq!(cloud.refused(&stage.world).await, "frame_malformed");
    let (mut cloud, _) = stage.up(&mut link).await;
    cloud.say_text(&stage.world, &"x".repeat(MAX_FRAME + 1)).await;
    assert_eq!(cloud.refused(&stage.world).await, "frame_too_large");
    assert_eq!(stage.world.trouble(&mut link).await.code, "link_frame_too_large");
    let (mut cloud, _) = stage.up(&mut link).await;
    cloud.say(&stage.world, welcome(1)).await;
    assert_eq!(cloud.refused(&stage.world).await, "frame_unexpected");
    assert_eq!(stage.world.trouble(&mut link).await.code, "link_frame_unexpected");
}

#[tokio::test(start_paused = true)]
async fn no_bytes_of_a_cloud_end_the_link_for_good() {
    let mut stage = Stage::new().await;
    let mut link = stage.link();
    let random = Random::seeded(12);
    for round in 0..40 {
        let mut cloud = match round % 2 {
            0 => stage.up(&mut link).await.0,
            _ => stage.hello(&mut link).await,
        };
        cloud.say_bytes(&stage.world, &random.bytes::<64>()).await;
        drop(cloud);
        stage.world.trouble(&mut link).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_cloud_says_instead_of_welcome_is_named() {
    let mut stage = Stage::new().await;
    let mut link = stage.link();
    let refused = |code: &str| json!({"type": "refused", "code": code, "message": "because"});
    for (answer, trouble) in [
        (welcome(3), "link_version_unknown"),
        (refused("version_unknown"), "link_version_unknown"),
        (refused("restarting"), "link_cloud_restarting"),
        (refused("fenced"), "link_fenced"),
        (refused("stream_gap"), "link_stream_gap"),
        (refused("a_code_of_tomorrow"), "link_refused"),
        (json!({"type": "ping", "nonce": 1}), "link_frame_unexpected"),
    ] {
        let mut cloud = stage.hello(&mut link).await;
        cloud.say(&stage.world, answer).await;
        assert_eq!(stage.world.trouble(&mut link).await.code, trouble);
    }
    let _silent = stage.hello(&mut link).await;
    assert_eq!(stage.world.trouble(&mut link).await.code, "link_not_welcomed");
}

#[tokio::test(start_paused = true)]
async fn a_silent_cloud_is_asked_twice_and_then_given_up() {
    let mut stage = Stage::new().await;
    let mut link = stage.link();
    let (mut cloud, _) = stage.up(&mut link).await;
    let began = tokio::time::Instant::now();
    let mut pings = 0;
    while let Some(frame) = cloud.hear_anything(&stage.world, Duration::from_secs(60)).await {
        assert_eq!(frame["type"], "ping");
        pings += 1;
    }
    assert_eq!(pings, 2);
    assert!(began.elapsed() <= Duration::from_secs(45));
    assert_eq!(stage.world.trouble(&mut link).await.code, "link_silent");
}

#[tokio::test(start_paused = true)]
async fn frames_for_an_older_connection_are_dropped() {
    let mut stage = Stage::new().await;
    let mut link = stage.link();
    let (cloud, first) = stage.up(&mut link).await;
    drop(cloud);
    assert_eq!(stage.world.trouble(&mut link).await.code, "link_closed");
    // More than the channel holds: an agent that goes on sending to a dead connection is not held up.
    for nonce in 0..200 {
        let sent = link.frames.send((first, Frame::Ping { nonce }));
        stage.world.soon(sent).await.unwrap();
    }
    let (mut cloud, second) = stage.up(&mut link).await;
    assert!(second > first);
    link.frames.send((first, Frame::Pong { nonce: 1 })).await.unwrap();
    link.frames.send((second, Frame::Pong { nonce: 2 })).await.unwrap();
    let heard = cloud.hear_anything(&stage.world, Duration::from_secs(5)).await;
    assert_eq!(heard, Some(json!({"type": "pong", "nonce": 2})));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_look_slows_the_cloud_down_and_loses_nothing() {
    // More than may wait in the agent, and no more than the connection holds besides.
    const AHEAD: u64 = 120;
    let mut stage = Stage::new().await;
    let mut link = stage.link();
    let (mut cloud, connection) = stage.up(&mut link).await;
    for number in 0..AHEAD {
        cloud.say(&stage.world, progress(number)).await;
    }
    assert!(link.events.len() <= 64);
    // Our own slowness is not the cloud's silence.
    stage.world.pass(Duration::from_secs(300)).await;
    for number in 0..AHEAD {
        match stage.world.event(&mut link).await {
            Event::Frame { connection: on, frame } => {
                assert_eq!(on, connection);
                assert_eq!(serde_json::to_value(frame).unwrap(), progress(number));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_does_not_read_is_given_up_although_both_queues_are_full() {
    let mut stage = Stage::new().await;
    let mut link = stage.link();
    let (mut cloud, connection) = stage.up(&mut link).await;
    for number in 0..100 {
        cloud.say(&stage.world, progress(number)).await;
    }
    let frames = link.frames.clone();
    let sender = tokio::spawn(async move {
        let large = Frame::Refused(latchd::protocol::Refused {
            code: latchd::protocol::RefusedCode::Other,
            message: "x".repeat(100_000),
            retry_after_ms: None,
        });
        for _ in 0..200 {
            frames.send((connection, large.clone())).await.unwrap();
        }
    });
    stage.world.pass(Duration::from_secs(45)).await;
    // The agent looks again: the rest of what came before, then the end.
    let trouble = stage.world.trouble(&mut link).await;
    assert_eq!(trouble.code, "link_not_read");
    stage.world.soon(sender).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn retries_back_off_to_a_minute_and_start_over_after_a_healthy_one() {
    let stage = Stage::new().await;
    let port = stage.listener.address().port();
    drop(stage.listener);
    let world = stage.world;
    let mut link = world.link(port);
    let mut began = tokio::time::Instant::now();
    for attempt in 0..12_u32 {
        assert_eq!(world.trouble(&mut link).await.code, "link_port_closed");
        let bound = match attempt {
            0 => Duration::ZERO,
            _ => Duration::from_secs(1 << (attempt - 1).min(6)).min(Duration::from_secs(60)),
        };
        let waited = began.elapsed();
        assert!(waited <= bound + Duration::from_secs(1), "{attempt}: {waited:?}");
        began = tokio::time::Instant::now();
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_ends_when_its_agent_does() {
    let mut stage = Stage::new().await;
    let mut link = stage.link();
    let (mut cloud, connection) = stage.up(&mut link).await;
    link.frames.send((connection, Frame::Pong { nonce: 9 })).await.unwrap();
    drop(link);
    let last = cloud.hear_anything(&stage.world, Duration::from_secs(5)).await;
    assert_eq!(last, Some(json!({"type": "pong", "nonce": 9})), "what was sent still leaves");
    assert_eq!(cloud.hear_anything(&stage.world, Duration::from_secs(5)).await, None);
    let come_again = stage.world.within(Duration::from_secs(120), stage.listener.accept()).await;
    assert!(come_again.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_no_bridge_has_and_a_key_that_is_not_the_bridges_are_named() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let trouble = trouble_with(&world, world.link_of_a_stranger(cloud.port)).await;
    assert_eq!(trouble.code, "link_not_paired");
    let trouble = trouble_with(&world, world.link_of_a_thief(cloud.port)).await;
    assert_eq!(trouble.code, "link_key_unknown", "{trouble:?}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_cannot_be_trusted_is_named_with_its_reason() {
    let mut stage = Stage::new().await;
    for (acceptor, code, hint) in [
        (stage.world.untrusted_localhost(), "link_tls_untrusted", "ca_file"),
        (stage.world.acceptor("localhost", 2200..2300), "link_tls_not_yet_valid", "clock"),
        (stage.world.acceptor("localhost", 2000..2001), "link_tls_expired", "clock"),
        (stage.world.acceptor("elsewhere", 2000..2100), "link_tls_wrong_name", "localhost"),
    ] {
        let mut link = stage.link();
        let accept = async {
            let (tcp, _) = stage.listener.accept().await.unwrap();
            let _ = acceptor.accept(tcp).await;
            std::future::pending::<Trouble>().await
        };
        let trouble = tokio::select! {
            trouble = stage.world.trouble(&mut link) => trouble,
            never = accept => never,
        };
        assert_eq!(trouble.code, code, "{trouble:?}");
        assert!(trouble.message.contains(hint), "{trouble:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_latchd_cloud_is_named() {
    let mut stage = Stage::new().await;
    for (answer, code) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "link_not_latchd"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "link_not_latchd"),
        ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "link_unavailable"),
        ("220 mail.example ESMTP\r\n", "link_not_latchd"),
    ] {
        let mut link = stage.link();
        let (listener, acceptor) = (&mut stage.listener, &stage.acceptor);
        let serve = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut tls = acceptor.accept(tcp).await.unwrap();
            let mut request = [0; 2048];
            let _ = tls.read(&mut request).await.unwrap();
            tls.write_all(answer.as_bytes()).await.unwrap();
            tls.flush().await.unwrap();
            std::future::pending::<Trouble>().await
        };
        let trouble = tokio::select! {
            trouble = stage.world.trouble(&mut link) => trouble,
            never = serve => never,
        };
        assert_eq!(trouble.code, code, "{answer}: {trouble:?}");
    }
    let mut link = stage.link();
    let plain = async {
        let (mut tcp, _) = stage.listener.accept().await.unwrap();
        tcp.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
        std::future::pending::<Trouble>().await
    };
    let trouble = tokio::select! {
        trouble = stage.world.trouble(&mut link) => trouble,
        never = plain => never,
    };
    assert_eq!(trouble.code, "link_not_latchd", "{trouble:?}");
}

/// A network in which no name is known.
struct Nameless;

impl Net for Nameless {
    fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        unreachable!("nothing has an address")
    }

    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, Result<Vec<SocketAddr>, ResolveError>> {
        Box::pin(async move { Err(ResolveError::Unknown(io::Error::other("no such name"))) })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { MemoryNet::default().listen(address).await })
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_resolved_is_told_from_a_cloud_that_cannot_be_reached() {
    let world = World::simulated();
    let settings = world.settings("wss://cloud.invalid", world.ours());
    let time = TrustedTime::new(world.clock.clone());
    let link = latchd::link::start(settings, Arc::new(Nameless), time, Random::seeded(1));
    let trouble = trouble_with(&world, link).await;
    assert_eq!(trouble.code, "link_name_unknown");
    assert!(trouble.message.contains("cloud.invalid") && trouble.message.contains("DNS"));
    assert_eq!(trouble_with(&world, world.link(9)).await.code, "link_port_closed");
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_says_when_to_come_again_is_obeyed_within_reason() {
    let mut stage = Stage::new().await;
    let mut link = stage.link();
    for (wished, at_least, at_most) in [(90_000, 88, 92), (4_000_000_000_u64, 238, 300)] {
        let (mut cloud, _) = stage.up(&mut link).await;
        let away = json!({"type": "refused", "code": "restarting", "message": "", "retry_after_ms": wished});
        cloud.say(&stage.world, away).await;
        assert_eq!(stage.world.trouble(&mut link).await.code, "link_cloud_restarting");
        let parted = tokio::time::Instant::now();
        let accepted = stage.world.within(Duration::from_secs(400), stage.listener.accept()).await;
        drop(accepted.expect("it comes again"));
        let away = parted.elapsed().as_secs();
        assert!((at_least..=at_most).contains(&away), "{away} s");
        stage.world.trouble(&mut link).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_speaks_version_1_does_not_tell_what_it_desires() {
    let mut stage = Stage::new().await;
    let mut link = stage.link();
    let desired = json!({"type": "desired", "up_to": {"epoch": 1, "n": 1}, "complete": true});
    let (mut cloud, _) = stage.up(&mut link).await;
    cloud.say(&stage.world, desired.clone()).await;
    assert_eq!(cloud.refused(&stage.world).await, "frame_unexpected");
    assert_eq!(stage.world.trouble(&mut link).await.code, "link_frame_unexpected");

    let mut cloud = stage.hello(&mut link).await;
    cloud.say(&stage.world, welcome(2)).await;
    assert!(matches!(stage.world.event(&mut link).await, Event::Up { .. }));
    cloud.say(&stage.world, desired).await;
    assert!(matches!(stage.world.frame(&mut link).await, Frame::Desired(_)));
}
