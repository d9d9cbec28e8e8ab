//! Frames that no honest peer sends, both ways: each is refused by its name, and what is good before and after it is
//! done once.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    peers::{PaperCloud, Papers, Peer},
    site::{Site, until},
};

/// Above the largest frame of the language.
const TOO_LARGE: usize = 600 * 1024;

#[test]
fn a_cloud_names_what_a_bad_bridge_says_and_keeps_its_orders_for_the_good_one() {
    let mut site = Site::start();
    // The real agent has told what the site has; from here on somebody else holds its keys.
    site.agent().signal(rustix::process::Signal::TERM);
    site.agent().ended();
    let said = |key: &str| site.said[key].as_str().unwrap().to_owned();
    let (url, ca) = (said("bridges"), PathBuf::from(said("ca_file")));
    let papers = Papers::of(&site);
    let envelope = |position: Option<u64>, body: &str| {
        let mut frame = json!({"type": "envelope", "body": body});
        if let Some(n) = position {
            frame["position"] = json!({"epoch": 1, "n": n});
        }
        frame.to_string()
    };
    let outcome = json!({
        "message": "outcome", "job_id": "00000000-0000-4000-8000-000000000009", "revision": 1,
        "at": "2026-11-22T12:00:05Z", "outcome": {"state": "cancelled"},
    })
    .to_string();
    let never_sent =
        json!({"message": "acknowledgement", "stream": "orders", "position": {"epoch": 1, "n": 99}})
            .to_string();

    // Before the first word of the language.
    for (message, code) in [
        (Message::text(r#"{"type":"open_sesame"}"#), "frame_malformed"),
        (Message::text("knock knock"), "frame_malformed"),
        (Message::binary(vec![0; 16]), "frame_malformed"),
        (Message::text(r#"{"type":"ping","nonce":1}"#), "frame_unexpected"),
        (Message::text(r#"{"type":"limit","stream":"reports","up_to":5}"#), "signature_missing"),
        (Message::text("x".repeat(TOO_LARGE)), "frame_too_large"),
    ] {
        let mut bridge = Peer::bridge(&url, &ca, &papers);
        bridge.say_message(message);
        assert_eq!(bridge.refused(), code);
    }
    // An order for whoever holds the keys: it hears it, acknowledges nothing, and goes wrong.
    let mut bridge = Peer::introduced(&url, &ca, &papers);
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    let order = bridge.hear_until("the order", |body| body["message"] == "job").pop().unwrap();
    bridge.say_text("{");
    assert_eq!(bridge.refused(), "frame_malformed");
    let (as_it_is, signed) =
        (|text: &str| Said::AsItIs(Message::text(text)), |text: &str| Said::Signed(text.into()));
    for (said, code) in [
        (as_it_is(r#"{"type":"open_sesame"}"#), "frame_malformed"),
        (
            as_it_is(&format!(r#"{{"type":"status","conditions":"{}"}}"#, "x".repeat(TOO_LARGE))),
            "frame_too_large",
        ),
        (Said::AsItIs(Message::binary(vec![0; 16])), "frame_malformed"),
        (as_it_is(&envelope(Some(1), &outcome)), "signature_missing"),
        (signed(r#"{"type":"open_sesame"}"#), "frame_malformed"),
        (signed(r#"{"type":"welcome"}"#), "frame_malformed"),
        (signed(&envelope(Some(1), "not a message")), "frame_malformed"),
        (signed(&envelope(Some(1), r#"{"message":"erase"}"#)), "frame_malformed"),
        (signed(&envelope(Some(7), &outcome)), "stream_gap"),
        (signed(&envelope(Some(1_000_000), &outcome)), "limit_exceeded"),
        (signed(&envelope(None, &never_sent)), "frame_unexpected"),
    ] {
        let mut bridge = Peer::introduced(&url, &ca, &papers);
        let again = bridge.hear_until("the order again", |body| body["message"] == "job").pop().unwrap();
        assert_eq!(again["job_id"], order["job_id"]);
        let shown = format!("{said:.120?}");
        match said {
            Said::AsItIs(message) => bridge.say_message(message),
            Said::Signed(frame) => bridge.say_signed(&frame),
        }
        assert_eq!(bridge.refused(), code, "{shown}");
    }
    assert_eq!(site.writing_frames(), 0);

    site.restart_agent();
    site.waits_for_card("1");
    site.control("place jane on 1");
    let ended = site.ended(&attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(site.writing_frames(), 1);
    assert!(site.opens("jane", "101"));
}

/// What a bad bridge says.
#[derive(Debug)]
enum Said {
    AsItIs(Message),
    Signed(String),
}

/// A job for a card, as a cloud writes it.
fn card(id: u64, room: &str) -> Value {
    let now = jiff::Timestamp::now();
    let hours = |hours| now + jiff::SignedDuration::from_hours(hours);
    json!({
        "message": "job", "job_id": job_id(id), "system": "house", "priority": "desk",
        "created_at": now, "expires_at": hours(1),
        "order": {
            "kind": "card.encode", "encoder": "1", "doors": [room], "reservation_key": format!("stay-{id}"),
            "window": {"starts_at": now, "ends_at": hours(24)},
            "access_method_id": format!("00000000-0000-4000-8000-0000000000a{id}"),
            "card_wait_seconds": 30,
        },
    })
}

fn job_id(id: u64) -> String {
    format!("00000000-0000-4000-8000-00000000000{id}")
}

fn order(peer: &mut Peer, n: u64, body: &str) {
    peer.say(&json!({"type": "envelope", "position": {"epoch": 1, "n": n}, "body": body}));
}

fn is_outcome_of(id: u64) -> impl Fn(&Value) -> bool {
    move |body| body["message"] == "outcome" && body["job_id"] == job_id(id)
}

fn is_acknowledgement_of(n: u64) -> impl Fn(&Value) -> bool {
    move |body| body["message"] == "acknowledgement" && body["position"] == json!({"epoch": 1, "n": n})
}

/// Waits until the encoder waits, lays a card down and hears of the success.
fn written(site: &Site, peer: &mut Peer, id: u64) {
    site.waits_for_card("1");
    site.control(&format!("place card{id} on 1"));
    let heard = peer.hear_until("the success", is_outcome_of(id)).pop().unwrap();
    assert_eq!(heard["outcome"]["state"], "succeeded", "{heard}");
    site.control("remove 1");
}

#[test]
fn an_agent_names_what_a_bad_cloud_says_and_does_what_is_good_before_and_after_once() {
    let mut site = Site::without_agent();
    let cloud = PaperCloud::new();
    let papers = Papers::of(&site);
    cloud.bewitch(&mut site);
    site.start_agent();
    let (mut peer, _) = cloud.welcome(&papers, 0);
    until("the line is open", || (site.status()["systems"][0]["line"] == "ready").then_some(()));

    order(&mut peer, 1, &card(1, "101").to_string());
    written(&site, &mut peer, 1);

    // Envelopes that cannot be read take their place in the stream; where a job can be named, it ends by name.
    order(&mut peer, 2, "{ not a message");
    order(&mut peer, 3, r#"{"message":"erase"}"#);
    peer.hear_until("both are held", is_acknowledgement_of(3));
    let mut unknown_kind = card(2, "101");
    unknown_kind["order"]["kind"] = json!("card.staff");
    let mut backwards = card(3, "101");
    backwards["order"]["window"]["ends_at"] = json!("2020-01-01T00:00:00Z");
    let mut telltale = card(6, "101");
    telltale["order"] = json!({
        "kind": "slot.put", "device": "lobby", "slot": "1", "content": {"pin": 90_210_471}, "generation": 1,
        "window": telltale["order"]["window"],
    });
    let mut elsewhere = card(5, "101");
    elsewhere["system"] = json!("annex");
    for (n, id, job, code, word) in [
        (4, 2, unknown_kind, "unsupported", "card.staff"),
        (5, 3, backwards, "bad_dates", "must be after starts_at"),
        (6, 4, card(4, "999"), "entrance_unknown", "999"),
        (7, 5, elsewhere, "system_unknown", "annex"),
        (8, 6, telltale, "unsupported", "slot.put"),
    ] {
        order(&mut peer, n, &job.to_string());
        let heard = peer.hear_until("the refusal", is_outcome_of(id)).pop().unwrap();
        assert_eq!(
            (&heard["outcome"]["state"], &heard["outcome"]["code"]),
            (&json!("failed"), &json!(code)),
            "{heard}"
        );
        assert!(heard["outcome"]["message"].as_str().unwrap().contains(word), "{heard}");
        assert!(!heard.to_string().contains("90210471"), "a refusal quotes no PIN: {heard}");
    }
    assert!(!site.agent().errors().contains("90210471"), "a log quotes no PIN");
    order(&mut peer, 9, &card(8, "102").to_string());
    written(&site, &mut peer, 8);
    assert_eq!(site.writing_frames(), 2);

    // A gap: nothing behind it is taken, the agent asks to begin again, and blames no disk for it.
    order(&mut peer, 20, &card(9, "103").to_string());
    assert_eq!(peer.hear_refusal()["code"], "stream_gap");
    let conditions = site.status()["conditions"].to_string();
    assert!(!conditions.contains("store_failed"), "{conditions}");
    drop(peer);
    let (mut peer, hello) = cloud.welcome(&papers, 0);
    assert_eq!(hello["orders_received"], json!({"epoch": 1, "n": 9}), "{hello}");

    // Frames that end the conversation: the agent says why, comes again, and remembers what it held. What was not
    // acknowledged to it here is told again, and changes nothing.
    let unsigned =
        json!({"type": "envelope", "position": {"epoch": 1, "n": 10}, "body": card(9, "103").to_string()});
    for (said, code) in [
        ("x".repeat(TOO_LARGE), "frame_too_large"),
        (r#"{"type":"open_sesame"}"#.to_owned(), "frame_malformed"),
        (unsigned.to_string(), "signature_missing"),
    ] {
        peer.say_text(&said);
        assert_eq!(peer.refused(), code);
        let hello;
        (peer, hello) = cloud.welcome(&papers, 0);
        assert_eq!(hello["orders_received"], json!({"epoch": 1, "n": 9}), "{hello}");
        peer.hear_until("the last report again", is_outcome_of(8));
        // Delivered a second time, and done no second time.
        order(&mut peer, 1, &card(1, "101").to_string());
    }
    order(&mut peer, 10, &card(9, "103").to_string());
    written(&site, &mut peer, 9);
    assert_eq!(site.frames("CN"), 3);
    assert_eq!(site.writing_frames(), 3);
    let count = |state| site.jobs(state).unwrap();
    assert_eq!((count("succeeded"), count("failed"), count("unknown")), (3, 5, 0));
}
