//! The hub against bridges that speak hand-written text.

use std::time::Duration;

use latchd::{cloud::store::Standing, protocol::MAX_FRAME, seams::Random};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use super::{
    peers::{acknowledged, bridge, bridge_as, hello, knock, order, outcome, tls, tls_as, welcomed},
    world::{World, job, keys_of},
};

#[tokio::test(start_paused = true)]
async fn strangers_get_one_short_answer() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let ours = world.ours();
    let unknown = world.identity_of(cloud.bridge, [5; 32], &rcgen::KeyPair::generate().unwrap());
    for (path, identity, status, code) in [
        ("/bridge/v1", None, 401, "unauthorized"),
        ("/bridge/v1", Some(&unknown), 401, "unauthorized"),
        ("/bridge/v2", Some(&ours), 404, "not_found"),
        ("/", None, 404, "not_found"),
    ] {
        let response = knock(&world, cloud.port, path, identity).await.err().unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], "application/json");

        let mut stream = tls_as(&world, cloud.port, identity).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: c\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = world.soon(stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8(answer).unwrap();
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["error"]["type"], code);
        assert!(!answer.contains(&cloud.bridge.to_string()) && !answer.to_lowercase().contains("nonce"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_certificate_without_a_websocket_is_told_to_upgrade() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut stream = tls_as(&world, cloud.port, Some(&world.ours())).await;
    stream.write_all(b"GET /bridge/v1 HTTP/1.1\r\nHost: c\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = world.soon(stream.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 426"), "{}", answer.escape_ascii());
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_dropped_at_every_stage() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut no_tls = world.net.connect("localhost", cloud.port).await.unwrap();
    let mut no_request = tls(&world, cloud.port).await;
    no_request.write_all(b"GET /bridge/v1 HTTP/1.1\r\n").await.unwrap();
    let mut no_hello = bridge(&world, cloud.port).await;
    let span = Duration::from_secs(20);
    let mut byte = [0];
    assert!(matches!(world.within(span, no_tls.read(&mut byte)).await, Some(Ok(0) | Err(_))));
    assert!(matches!(world.within(span, no_request.read(&mut byte)).await, Some(Ok(0) | Err(_))));
    let closed = world.within(span, no_hello.hear_anything(&world, span)).await;
    assert_eq!(closed, Some(None));
}

#[tokio::test(start_paused = true)]
async fn noise_before_tls_and_before_http_harms_nobody() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut raw = world.net.connect("localhost", cloud.port).await.unwrap();
    raw.write_all(&[0xff; 4096]).await.unwrap();
    let mut inside = tls(&world, cloud.port).await;
    let _ = inside.write_all(&[0x16; 20_000]).await;
    welcomed(&world, cloud.port, (0, 0), 100).await;
}

#[tokio::test(start_paused = true)]
async fn no_bytes_after_the_upgrade_bring_a_conversation_down_without_its_end() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let random = Random::seeded(11);
    for round in 0..60 {
        // Every other time a bridge that has said hello, so that what follows meets the pump.
        let mut peer = match round % 2 {
            0 => welcomed(&world, cloud.port, (0, 0), 100).await.0,
            _ => bridge(&world, cloud.port).await,
        };
        let mut noise = random.bytes::<64>();
        if round % 3 == 0 {
            noise[0] = 0x81;
        }
        peer.say_bytes(&world, &noise).await;
    }
    world.pass(Duration::from_secs(20)).await;
    cloud.order(&world, [1]).await;
    assert_eq!(cloud.standing(&world, 1).await, Some(Standing::Waiting));
    welcomed(&world, cloud.port, (0, 0), 100).await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_hears_why_over_tcp_as_well() {
    let world = World::real();
    let cloud = world.cloud().await;
    let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    peer.say_text(&world, &"x".repeat(2 * MAX_FRAME)).await;
    assert_eq!(peer.refused(&world).await, "frame_too_large");
    cloud.stop(&world).await;
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_not_of_the_language_end_the_connection_by_name() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    for text in [
        "",
        "hello?",
        "[]",
        "{}",
        r#"{"type":"open_sesame"}"#,
        r#"{"type":"signed"}"#,
        r#"{"type":"signed","key_id":7,"signature":"","body":""}"#,
    ] {
        let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
        peer.say_text(&world, text).await;
        assert_eq!(peer.refused(&world).await, "frame_malformed", "{text}");
    }
    for frame in [
        "",
        "7",
        r#"{"type":"open_sesame"}"#,
        r#"{"type":"envelope","position":{"epoch":1,"n":1},"body":"not json"}"#,
        r#"{"type":"envelope","position":{"epoch":1,"n":1},"body":"{\"message\":\"erase\"}"}"#,
        r#"{"type":"envelope","position":{"epoch":1,"n":18446744073709551616},"body":""}"#,
        r#"{"type":"envelope","position":{"epoch":18446744073709551615,"n":1},"body":""}"#,
        r#"{"type":"limit","stream":"orders","up_to":-1}"#,
        r#"{"type":"inventory","systems":[{"name":""}]}"#,
    ] {
        let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
        peer.say_signed(&world, frame).await;
        assert_eq!(peer.refused(&world).await, "frame_malformed", "{frame}");
    }
    let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    peer.say_message(&world, Message::binary(&b"{}"[..])).await;
    assert_eq!(peer.refused(&world).await, "frame_malformed");
    // As deep as a frame can be.
    let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    peer.say_text(&world, &"[".repeat(MAX_FRAME)).await;
    assert_eq!(peer.refused(&world).await, "frame_malformed");
    // And before hello.
    let mut peer = bridge(&world, cloud.port).await;
    peer.say_text(&world, "hello?").await;
    assert_eq!(peer.refused(&world).await, "frame_malformed");
}

#[tokio::test(start_paused = true)]
async fn frames_out_of_turn_end_the_connection_by_name() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let cancel = json!({"message": "cancel", "job_id": "00000000-0000-0000-0000-000000000001"}).to_string();
    let mut loose = outcome(1, 1, 1);
    loose.as_object_mut().unwrap().remove("position");
    for frame in [
        hello(&world, (0, 0), 1),
        json!({"type": "limit", "stream": "reports", "up_to": 5}),
        json!({"type": "envelope", "body": cancel}),
        json!({"type": "envelope", "position": {"epoch": 1, "n": 1}, "body": cancel}),
        loose,
        acknowledged(1, 1),
    ] {
        let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
        peer.say(&world, frame.clone()).await;
        assert_eq!(peer.refused(&world).await, "frame_unexpected", "{frame}");
    }
    let mut peer = bridge(&world, cloud.port).await;
    peer.say(&world, json!({"type": "ping", "nonce": 1})).await;
    assert_eq!(peer.refused(&world).await, "frame_unexpected");
}

#[tokio::test(start_paused = true)]
async fn the_largest_frame_is_taken_and_a_larger_one_is_refused_by_name() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let frame = |length: usize| {
        let bare = json!({"type": "ping", "nonce": 5, "pad": ""}).to_string().len();
        json!({"type": "ping", "nonce": 5, "pad": "x".repeat(length - bare)}).to_string()
    };
    let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    peer.say_text(&world, &frame(MAX_FRAME)).await;
    let pong = peer.hear_anything(&world, Duration::from_secs(5)).await.unwrap();
    assert_eq!(pong, json!({"type": "pong", "nonce": 5}));
    peer.say_text(&world, &frame(MAX_FRAME + 1)).await;
    assert_eq!(peer.refused(&world).await, "frame_too_large");
}

#[tokio::test(start_paused = true)]
async fn a_bridge_without_a_common_version_is_told_so() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    for (versions, welcome) in [(json!([7, 9]), false), (json!([]), false), (json!([7, 1]), true)] {
        let mut peer = bridge(&world, cloud.port).await;
        let mut frame = hello(&world, (0, 0), 100);
        frame["versions"] = versions;
        peer.say(&world, frame).await;
        if welcome {
            assert_eq!(peer.hear(&world).await["version"], 1);
        } else {
            assert_eq!(peer.refused(&world).await, "version_unknown");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_reports_and_one_above_the_limit_are_refused_by_name() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let (mut peer, welcome) = welcomed(&world, cloud.port, (0, 0), 100).await;
    peer.say(&world, outcome(1, 2, 2)).await;
    assert_eq!(peer.refused(&world).await, "stream_gap");
    let limit = welcome["reports_limit"].as_u64().unwrap();
    let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    peer.say(&world, outcome(1, limit + 1, 2)).await;
    assert_eq!(peer.refused(&world).await, "limit_exceeded");
    // Nothing of either was taken.
    let (_, welcome) = welcomed(&world, cloud.port, (0, 0), 100).await;
    assert_eq!(welcome["reports_received"], json!({"epoch": 0, "n": 0}));
}

#[tokio::test(start_paused = true)]
async fn a_newer_connection_fences_the_older_one_and_takes_over_its_orders() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let (mut older, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    cloud.order(&world, [1]).await;
    assert_eq!(older.orders(&world, 1).await, [(1, 1, 1)]);
    let (mut newer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    assert_eq!(older.refused(&world).await, "fenced");
    cloud.order(&world, [2]).await;
    assert_eq!(newer.orders(&world, 2).await, [(1, 1, 1), (1, 2, 2)]);
}

#[tokio::test(start_paused = true)]
async fn orders_keep_to_the_limit_of_the_bridge() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    cloud.order(&world, 1..=40).await;
    let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 3).await;
    assert_eq!(peer.orders(&world, 3).await, [(1, 1, 1), (1, 2, 2), (1, 3, 3)]);
    assert_eq!(peer.hear_within(&world, Duration::from_secs(10)).await, None);
    peer.say(&world, json!({"type": "limit", "stream": "orders", "up_to": 40})).await;
    let rest = peer.orders(&world, 37).await;
    assert!(rest.iter().map(|order| order.1).eq(4..=40));
    assert!(rest.iter().map(|order| order.2).eq(4..=40));
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_forgot_gets_a_new_epoch_and_nothing_twice() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 2).await;
    cloud.order(&world, 1..=3).await;
    peer.orders(&world, 2).await;
    peer.say(&world, acknowledged(1, 1)).await;
    cloud.until(&world, 1, Standing::Acknowledged).await;
    let (mut restored, welcome) = welcomed(&world, cloud.port, (0, 0), 100).await;
    assert_eq!(welcome["orders_resume_after"], json!({"epoch": 2, "n": 0}));
    assert_eq!(welcome["orders_epoch_reason"], "receiver_behind");
    assert_eq!(restored.orders(&world, 1).await, [(2, 1, 3)]);
    assert_eq!(restored.hear_within(&world, Duration::from_secs(10)).await, None);
    for lost in [1, 2] {
        assert_eq!(cloud.standing(&world, lost).await, Some(Standing::Over));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cloud_from_a_backup_sends_what_is_unfinished_under_a_new_epoch() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    cloud.order(&world, [1, 2]).await;
    let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    peer.orders(&world, 2).await;
    peer.say(&world, acknowledged(1, 2)).await;
    cloud.until(&world, 2, Standing::Acknowledged).await;
    // The backup is taken; then life goes on.
    let (folder, port) = cloud.stop(&world).await;
    let backup = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), backup.path().join(file.file_name())).unwrap();
    }
    let cloud = super::world::Cloud::on(&world, folder, port).await;
    cloud.order(&world, [3]).await;
    let (mut peer, _) = welcomed(&world, port, (1, 2), 100).await;
    assert_eq!(peer.orders(&world, 1).await, [(1, 3, 3)]);
    peer.say(&world, outcome(1, 1, 1)).await;
    assert_eq!(peer.hear(&world).await["type"], "envelope");
    cloud.stop(&world).await;

    let cloud = super::world::Cloud::on(&world, backup, port).await;
    let (mut peer, welcome) = welcomed(&world, port, (1, 3), 100).await;
    assert_eq!(welcome["orders_epoch_reason"], "sender_behind");
    assert_eq!(welcome["reports_received"], json!({"epoch": 0, "n": 0}));
    // The bridge knows 1 and 2 by their ids; it starts its reports anew as well.
    assert_eq!(peer.orders(&world, 2).await, [(2, 1, 1), (2, 2, 2)]);
    peer.say(&world, outcome(2, 1, 1)).await;
    let acknowledgement = peer.hear(&world).await;
    assert!(acknowledgement["body"].as_str().unwrap().contains(r#""position":{"epoch":2,"n":1}"#));
    cloud.until(&world, 1, Standing::Over).await;
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_does_not_read_harms_itself_alone() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let now = world.clock.now();
    let other = cloud.run(&world, move |db| db.the_bridge(now, uuid::Uuid::from_u128(2).into())).await;
    let identity = world.identity_of(other, [4; 32], &rcgen::KeyPair::generate().unwrap());
    let keys = keys_of(&identity);
    cloud.run(&world, move |db| db.admit(now, other, &keys)).await;
    let (slow, _) = welcomed(&world, cloud.port, (0, 0), 10_000).await;
    // Far more than the connection holds on its way.
    let large = |number: u128| {
        let mut job = job(number);
        let doors = (0..2000).map(|door| latchd::model::DoorName::new(format!("{door:060}")).unwrap());
        job.order = latchd::model::Order::CardEncode(latchd::model::CardEncode {
            encoder: latchd::model::EncoderName::new("1").unwrap(),
            doors: doors.collect(),
            reservation_key: None,
            window: latchd::model::Window::new(now, None).unwrap(),
            access_method_id: uuid::Uuid::from_u128(1).into(),
            guest_name: None,
            card_wait_seconds: 30,
            begin_again: false,
        });
        job
    };
    for number in 1..=6 {
        cloud.order_job(&world, cloud.bridge, large(number)).await;
    }
    let mut quick = bridge_as(&world, cloud.port, &identity).await;
    quick.voice.sign_with(&[4; 32]);
    quick.say(&world, hello(&world, (0, 0), 100)).await;
    assert_eq!(quick.hear(&world).await["type"], "welcome");
    cloud.order_job(&world, other, job(100)).await;
    assert_eq!(order(&quick.hear(&world).await), Some((1, 1, 100)));
    // The slow one is given up, and its next order waits for its return.
    let nothing = quick.hear_within(&world, Duration::from_secs(45)).await;
    assert_eq!(nothing, None);
    cloud.order_job(&world, cloud.bridge, job(7)).await;
    assert_eq!(cloud.standing(&world, 7).await, Some(Standing::Waiting));
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn a_silent_bridge_is_asked_twice_and_then_dropped() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let (mut peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    let began = tokio::time::Instant::now();
    let span = Duration::from_secs(60);
    let mut pings = 0;
    while let Some(frame) = peer.hear_anything(&world, span).await {
        assert_eq!(frame["type"], "ping");
        pings += 1;
    }
    assert_eq!(pings, 2);
    assert!(began.elapsed() <= Duration::from_secs(45), "{:?}", began.elapsed());
    cloud.order(&world, [1]).await;
    assert_eq!(cloud.standing(&world, 1).await, Some(Standing::Waiting));
}

#[tokio::test(start_paused = true)]
async fn a_stopping_cloud_says_so_and_does_not_wait_for_those_who_do_not_listen() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let (peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    let _silent = world.net.connect("localhost", cloud.port).await.unwrap();
    cloud.ask_to_stop();
    assert_eq!(peer.refused(&world).await, "restarting");
    cloud.stop(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_silent_strangers_is_bounded_and_passes() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut crowd = Vec::new();
    for _ in 0..256 {
        crowd.push(world.soon(world.net.connect("localhost", cloud.port)).await.unwrap());
    }
    let mut waiting = world.net.connect("localhost", cloud.port).await.unwrap();
    let mut byte = [0];
    assert!(world.within(Duration::from_secs(5), waiting.read(&mut byte)).await.is_none());
    world.pass(Duration::from_secs(11)).await;
    welcomed(&world, cloud.port, (0, 0), 100).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_without_a_word_leaves_no_bridge_that_seems_connected() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let (_peer, _) = welcomed(&world, cloud.port, (0, 0), 100).await;
    cloud.order(&world, [1]).await;
    assert_eq!(cloud.standing(&world, 1).await, Some(Standing::Handed));
    cloud.abort();
    // Fewer than its limit: what waits then waits for want of a connection.
    let mut parted = false;
    for number in 2..50 {
        cloud.order(&world, [number]).await;
        parted |= cloud.standing(&world, number).await == Some(Standing::Waiting);
    }
    assert!(parted, "orders are not handed to a connection that is gone");
}
