//! A conversation, signed with fixed keys, judged with nothing of the product's: a reader of JSON, SHA-256 and Ed25519.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use latchd::{
    model::{Code, Outcome, Report, Resolution, Success, Verdict, Written},
    protocol::{
        Envelope, Frame, Limit, Message, Position, Progress, Said, Session, SigningKey, Stage, StreamName,
        enrol::CloudCard,
        signing::{Listener, Party, Speaker},
    },
};
use ring::{
    digest::{SHA256, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

use super::{folder, golden, values};

const TO_CLOUD: &[u8] = b"latchd v1 bridge to cloud\0";
const TO_BRIDGE: &[u8] = b"latchd v1 cloud to bridge\0";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The seeds in the golden files, as they are computed without the product.
fn keys() -> Value {
    let key = |seed: &[u8; 32]| {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
        let public = pair.public_key().as_ref();
        let id = hex(&digest(&SHA256, public).as_ref()[..8]);
        json!({"seed": hex(seed), "public": STANDARD.encode(public), "id": id})
    };
    json!({
        "bridge": key(&values::BRIDGE_SEED),
        "bridge_next": key(&values::NEXT_SEED),
        "cloud": key(&values::CLOUD_SEED),
        "cloud_older": key(&values::OLDER_SEED),
    })
}

/// Who says what. A conversation that could have been: each order is taken, acknowledged and reported in its turn.
fn script() -> Vec<(Party, Frame)> {
    let frame = |kind: &str, nth: usize| {
        let of_kind = values::frames().into_iter().filter(|frame| frame.name() == kind);
        of_kind.skip(nth).take(1).next().unwrap()
    };
    let at = |epoch, n, message: &Message| Frame::Envelope(Envelope::at(Position { epoch, n }, message));
    let held = |stream, epoch, n| {
        let message = Message::Acknowledgement { stream, position: Position { epoch, n } };
        Frame::Envelope(Envelope::loose(&message))
    };
    let jobs: Vec<_> =
        values::messages().into_iter().filter(|message| matches!(message, Message::Job(_))).collect();
    let id = |job: &Message| match job {
        Message::Job(job) => job.job_id,
        other => panic!("{other:?}"),
    };
    let ids: Vec<_> = jobs.iter().map(id).collect();
    let report = |job: usize, outcome| Report {
        job_id: ids[job],
        revision: 1,
        at: values::noon(),
        outcome,
        resolution: None,
        rooms: Vec::new(),
        local: None,
    };
    let written = Success { written: Some(Written::Proven), ..Success::default() };
    let done = Message::Outcome(report(0, Outcome::Succeeded(written.clone())));
    let doubt = Message::Outcome(report(1, Outcome::unknown(Code::LineLost, "read the card")));
    let settled = Message::Resolution(Report {
        revision: 2,
        resolution: Some(Resolution { verdict: Verdict::Done, by: "Maria, front desk".into() }),
        ..report(1, Outcome::Succeeded(written))
    });
    let cancelled = Message::Outcome(report(2, Outcome::Cancelled));
    let stage = |stage| Frame::Progress(Progress { job_id: ids[0], stage });
    let (bridge, cloud) = (Party::Bridge, Party::Cloud);
    vec![
        (bridge, frame("hello", 0)),
        (cloud, frame("welcome", 0)),
        (bridge, frame("inventory", 0)),
        (bridge, frame("status", 0)),
        (cloud, at(4, 1, &jobs[0])),
        (bridge, held(StreamName::Orders, 4, 1)),
        (bridge, stage(Stage::Sent)),
        (bridge, stage(Stage::WaitingForCard)),
        (bridge, frame("ping", 0)),
        (cloud, frame("pong", 0)),
        (bridge, at(2, 9, &done)),
        (cloud, held(StreamName::Reports, 2, 9)),
        (cloud, Frame::Limit(Limit { stream: StreamName::Reports, up_to: 73 })),
        (bridge, Frame::Limit(Limit { stream: StreamName::Orders, up_to: 79 })),
        (bridge, frame("status", 1)),
        (cloud, at(4, 2, &jobs[1])),
        (cloud, at(4, 3, &jobs[2])),
        (cloud, at(4, 4, &Message::Cancel { job_id: ids[2], ordered: None })),
        (bridge, held(StreamName::Orders, 4, 4)),
        (bridge, at(2, 10, &cancelled)),
        (bridge, at(2, 11, &doubt)),
        (cloud, held(StreamName::Reports, 2, 11)),
        (cloud, frame("ping", 1)),
        (bridge, Frame::Pong { nonce: 0 }),
        (bridge, frame("beacon", 0)),
        (cloud, frame("beacon", 0)),
        (bridge, at(2, 12, &settled)),
        (cloud, held(StreamName::Reports, 2, 12)),
        (cloud, frame("refused", 0)),
    ]
}

/// The conversation as the product says it.
fn said() -> Vec<(Party, String)> {
    let mut session = values::cloud_nonce();
    let speaker_of = |party, session| {
        let key = match party {
            Party::Bridge => values::bridge_key(),
            Party::Cloud => values::cloud_key(),
        };
        Speaker::new(party, key, values::bridge(), session)
    };
    let mut bridge = speaker_of(Party::Bridge, session);
    let mut cloud = speaker_of(Party::Cloud, session);
    let mut texts = Vec::new();
    for (party, frame) in script() {
        let speaker = match party {
            Party::Bridge => &mut bridge,
            Party::Cloud => &mut cloud,
        };
        let begins = matches!(frame, Frame::Hello(_) | Frame::Welcome(_));
        let is_hello = matches!(frame, Frame::Hello(_));
        let expires_at = (!begins).then(|| values::noon() + SignedDuration::from_mins(10));
        let said = match frame {
            Frame::Ping { .. } | Frame::Pong { .. } | Frame::Refused(_) => Said::Bare(frame),
            frame => Said::Signed(speaker.say(frame, expires_at)),
        };
        texts.push((party, said.to_text()));
        if is_hello {
            session = Session::of_hello(&said.into_body().unwrap());
            bridge = speaker_of(Party::Bridge, session);
            cloud = speaker_of(Party::Cloud, session);
        }
    }
    texts
}

fn file() -> Value {
    let said: Vec<_> = said()
        .into_iter()
        .map(|(party, text)| json!({"by": format!("{party:?}").to_lowercase(), "text": text}))
        .collect();
    json!({"latchd-nonce": values::cloud_nonce().to_string(), "messages": said})
}

fn read() -> Value {
    serde_json::from_str(&fs::read_to_string(folder().join("conversation.json")).unwrap()).unwrap()
}

/// The texts of the golden conversation, in order.
pub(crate) fn texts() -> Vec<String> {
    read()["messages"].as_array().unwrap().iter().map(|message| text(&message["text"]).to_owned()).collect()
}

#[test]
fn the_keys_are_those_of_their_seeds() {
    let file: Value = serde_json::from_str(&golden("keys.json", &pretty(&keys()))).unwrap();
    assert_eq!(file, keys());
    for (_, key) in file.as_object().unwrap() {
        let ours = SigningKey::from_seed(&unhex(&key["seed"]).try_into().unwrap()).public();
        assert_eq!(serde_json::to_value(ours).unwrap(), key["public"]);
        assert_eq!(ours.id().as_str(), key["id"]);
    }
}

#[test]
fn a_conversation_is_said_as_it_was() {
    assert_eq!(golden("conversation.json", &pretty(&file())), pretty(&file()));
}

#[test]
fn a_conversation_is_heard_as_it_was() {
    let nonce = Session::read(text(&read()["latchd-nonce"])).unwrap();
    let listener = |party, session| {
        let key = match party {
            Party::Bridge => values::bridge_key(),
            Party::Cloud => values::cloud_key(),
        };
        Listener::new(party, [key.public()], values::bridge(), session)
    };
    let mut bridge = listener(Party::Bridge, nonce);
    let mut cloud = listener(Party::Cloud, nonce);
    let script = script();
    assert_eq!(texts().len(), script.len());
    for (text, (party, wanted)) in texts().iter().zip(script) {
        let heard = match Said::read(text).unwrap() {
            Said::Bare(frame) => frame,
            Said::Signed(packet) => {
                let ears = if party == Party::Bridge { &mut bridge } else { &mut cloud };
                let frame = ears.hear(&packet, values::noon()).unwrap();
                if matches!(frame, Frame::Hello(_)) {
                    let session = Session::of_hello(&packet.body);
                    (bridge, cloud) = (listener(Party::Bridge, session), listener(Party::Cloud, session));
                }
                frame
            }
        };
        assert_eq!(heard, wanted);
    }
}

#[test]
fn every_signature_session_and_number_of_the_conversation_is_right() {
    let (file, keys) = (read(), keys());
    let mut session = text(&file["latchd-nonce"]).to_owned();
    let mut numbers = [0; 2];
    let mut signed = 0;
    for message in file["messages"].as_array().unwrap() {
        let said: Value = serde_json::from_str(text(&message["text"])).unwrap();
        if said["type"] != "signed" {
            assert!(["ping", "pong", "refused"].contains(&text(&said["type"])), "{said}");
            continue;
        }
        let (by, word) = match text(&message["by"]) {
            "bridge" => (0, TO_CLOUD),
            _ => (1, TO_BRIDGE),
        };
        let key = &keys[text(&message["by"])];
        assert_eq!(said["key_id"], key["id"]);
        let body = text(&said["body"]);
        let public = STANDARD.decode(text(&key["public"])).unwrap();
        let signature = STANDARD.decode(text(&said["signature"])).unwrap();
        let covered = [word, body.as_bytes()].concat();
        UnparsedPublicKey::new(&ED25519, public).verify(&covered, &signature).unwrap();
        signed += 1;

        let statement: Value = serde_json::from_str(body).unwrap();
        let kind = text(&statement["frame"]["type"]);
        numbers[by] += 1;
        assert_eq!(statement["bridge_id"], values::bridge().to_string());
        assert_eq!(statement["seq"], numbers[by], "{kind}");
        assert_eq!(statement["session"], session, "{kind}");
        match kind {
            "hello" | "welcome" => assert!(statement.get("expires_at").is_none()),
            _ => assert!(text(&statement["expires_at"]).parse::<Timestamp>().unwrap() > values::noon()),
        }
        if kind == "hello" {
            assert_ne!(statement["frame"]["nonce"], session);
            session = STANDARD.encode(&digest(&SHA256, body.as_bytes()).as_ref()[..16]);
            numbers = [0; 2];
        }
    }
    assert_eq!(signed, 24);
}

/// What people compare, of each card and each request of the golden files.
fn fingerprints() -> Value {
    let clouds: Vec<_> = values::cloud_cards().iter().map(CloudCard::fingerprint).collect();
    let bridges: Vec<_> = values::pair_requests().iter().map(|request| request.keys.fingerprint()).collect();
    json!({"enrol-cloud.json": clouds, "enrol-pair.json": bridges})
}

#[test]
fn fingerprints_are_what_they_were() {
    assert_eq!(golden("fingerprints.json", &pretty(&fingerprints())), pretty(&fingerprints()));
}

#[test]
fn what_is_certified_is_the_key_that_was_asked_for() {
    for (request, admission) in values::pair_requests().iter().zip(values::admissions()) {
        let certificate = CertificateDer::from_pem_slice(admission.certificate.as_bytes()).unwrap();
        let asked = latchd::cloud::enrol::requested_key(&request.keys.csr);
        assert_eq!(asked, latchd::cloud::tls::public_key_hash(&certificate).ok());
    }
}

#[test]
fn the_answers_and_proofs_of_enrolment_are_right() {
    let read = |name: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(folder().join(name)).unwrap()).unwrap()
    };
    let keys = keys();
    let verify = |key: &str, word: &[u8], bytes: &[u8], signature: &Value| {
        let public = STANDARD.decode(text(&keys[key]["public"])).unwrap();
        let signature = STANDARD.decode(text(signature)).unwrap();
        UnparsedPublicKey::new(&ED25519, public).verify(&[word, bytes].concat(), &signature).unwrap();
    };
    let mut digests = Vec::new();
    for (name, is_renewal) in [("enrol-pair.json", false), ("enrol-renew.json", true)] {
        let request = &read(name)[0];
        assert_eq!(request["signing_key"], keys["bridge_next"]["public"]);
        let public = STANDARD.decode(text(&request["signing_key"])).unwrap();
        let both = [public.as_slice(), text(&request["csr"]).as_bytes()].concat();
        verify("bridge_next", b"latchd v1 bridge's keys\0", &both, &request["proof"]);
        if is_renewal {
            assert_eq!(request["old_key_id"], keys["bridge"]["id"]);
            verify("bridge", b"latchd v1 renewal\0", &both, &request["old_proof"]);
        }
        digests.push(hex(digest(&SHA256, &both).as_ref()));
    }
    for answer in read("enrol-answer.json").as_array().unwrap() {
        assert_eq!(answer["key_id"], keys["cloud"]["id"]);
        let body = text(&answer["body"]);
        verify("cloud", b"latchd v1 admission\0", body.as_bytes(), &answer["signature"]);
        let admission: Value = serde_json::from_str(body).unwrap();
        assert_eq!(admission["keys"], digests[0]);
    }
    assert_eq!(digests[0], digests[1]);
}

/// The example in the documentation of signatures, name by name.
fn example() -> Vec<(String, String)> {
    let source = include_str!("../../src/protocol/signing.rs");
    let (_, section) = source.split_once("//! # An example").unwrap();
    let (_, block) = section.split_once("//! ```text\n").unwrap();
    let (block, _) = block.split_once("//! ```\n").unwrap();
    let parts = |line: &str| {
        let (name, value) = line.strip_prefix("//! ")?.split_once("  ")?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    block.lines().map(|line| parts(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

#[test]
fn the_example_in_the_documentation_is_the_beginning_of_the_conversation() {
    let (file, keys) = (read(), keys());
    let packet =
        |nth: usize| -> Value { serde_json::from_str(text(&file["messages"][nth]["text"])).unwrap() };
    let (hello, welcome) = (packet(0), packet(1));
    let session = digest(&SHA256, text(&hello["body"]).as_bytes());
    let wanted = [
        ("bridge's seed", text(&keys["bridge"]["seed"])),
        ("bridge's key", text(&keys["bridge"]["public"])),
        ("its id", text(&keys["bridge"]["id"])),
        ("cloud's seed", text(&keys["cloud"]["seed"])),
        ("cloud's key", text(&keys["cloud"]["public"])),
        ("its id", text(&keys["cloud"]["id"])),
        ("latchd-nonce", text(&file["latchd-nonce"])),
        ("hello's body", text(&hello["body"])),
        ("its signature", text(&hello["signature"])),
        ("session", &STANDARD.encode(&session.as_ref()[..16])),
        ("welcome's body", text(&welcome["body"])),
        ("its signature", text(&welcome["signature"])),
    ];
    let block: String = wanted.iter().map(|(name, value)| format!("//! {name:<14}  {value}\n")).collect();
    let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(example(), wanted, "the example has to be\n{block}");
}
