//! Pairing.

use std::{fs, time::Duration};

use latchd::cloud::admin::{PairingState, Request, Response};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::{
    pki_types::{CertificateDer, pem::PemObject},
    server::ParsedCertificate,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::world::{Site, World, accepting, invitation, post};

/// The fingerprint of a site's keys, computed as a stranger would from the description.
fn fingerprint(request: &Value) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let key = STANDARD.decode(request["signing_key"].as_str().unwrap()).unwrap();
    let csr = request["csr"].as_str().unwrap().as_bytes();
    let mut text = b"latchd v1 bridge's fingerprint\0".to_vec();
    for part in [key.as_slice(), csr] {
        text.extend_from_slice(&u64::try_from(part.len()).unwrap().to_be_bytes());
        text.extend_from_slice(part);
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    let bits: String = digest.as_ref()[..10].iter().map(|byte| format!("{byte:08b}")).collect();
    let letter = |group: usize| {
        let index = usize::from_str_radix(&bits[group * 5..group * 5 + 5], 2).unwrap();
        char::from(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[index])
    };
    let letters: String = (0..16).map(letter).collect();
    [&letters[..4], &letters[4..8], &letters[8..12], &letters[12..]].join("-")
}

#[tokio::test]
async fn a_site_is_taken_in_when_a_person_has_compared_and_said_yes() {
    let world = World::start().await;
    let invited = world.invite(invitation()).await;
    let card = world.get("/bridge/v1/cloud").await;
    assert_eq!(card.status, 200, "{card:?}");
    assert!(card.json()["authority"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE"));
    let site = Site::new();
    // As a person types it.
    let request = site.pair(&invited.code.replace('-', " ").to_ascii_lowercase());
    let person = async {
        let line = world.pairing(&invited.pairing, PairingState::Open).await;
        assert_eq!(line.state, PairingState::Asks);
        assert_eq!(line.fingerprint.as_deref(), Some(fingerprint(&request).as_str()));
        let answer = |fingerprint: &str| Request::Answer {
            pairing: invited.pairing.clone(),
            fingerprint: fingerprint.into(),
            accept: true,
            by: "night porter".into(),
        };
        let (code, _) = world.refused(answer("0000-0000-0000-0000")).await;
        assert_eq!(code, "other_fingerprint");
        world.ask(answer(&fingerprint(&request))).await.unwrap();
    };
    let (reply, ()) = tokio::join!(world.post("/bridge/v1/pair", &request), person);
    let admission = site.admission(&reply);
    assert_eq!(admission.value["workspace"], "Home");
    assert_eq!(admission.value["ledger"], Value::Null);
    assert_eq!(admission.cloud_keys[0], card.json()["cloud_keys"][0].as_str().unwrap());
    assert_eq!(world.pairing(&invited.pairing, PairingState::Asks).await.bridge_id, Some(admission.bridge));
    world.welcomed(&site, &admission).await;
    // Nobody else can use the code, and whoever has lost the answer gets it again.
    let other = world.post("/bridge/v1/pair", &Site::new().pair(&invited.code)).await;
    assert_eq!(other.refusal(), (403, "code_invalid".into()));
    assert_eq!(world.post("/bridge/v1/pair", &request).await.body, reply.body);
    world.stop().await;
}

#[tokio::test]
async fn nothing_of_what_a_request_for_a_certificate_wishes_is_granted() {
    let world = World::start().await;
    let (_, admission) = world.paired().await;
    let der = CertificateDer::from_pem_slice(admission.certificate.as_bytes()).unwrap();
    assert!(ParsedCertificate::try_from(&der).is_ok());
    let holds = |text: &str| der.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds(&admission.bridge.to_string()));
    assert!(!holds("evil.example") && !holds("somebody else"));
    world.stop().await;
}

#[tokio::test]
async fn a_person_may_say_no() {
    let world = World::start().await;
    let invited = world.invite(invitation()).await;
    let request = Site::new().pair(&invited.code);
    let person = async {
        world.pairing(&invited.pairing, PairingState::Open).await;
        let fingerprint = fingerprint(&request);
        let (pairing, by) = (invited.pairing.clone(), "night porter".into());
        world.ask(Request::Answer { pairing, fingerprint, accept: false, by }).await.unwrap();
    };
    let (reply, ()) = tokio::join!(world.post("/bridge/v1/pair", &request), person);
    assert_eq!(reply.refusal(), (403, "pairing_declined".into()));
    assert_eq!(world.post("/bridge/v1/pair", &request).await.refusal(), (403, "pairing_declined".into()));
    world.stop().await;
}

#[tokio::test]
async fn while_nobody_answers_the_site_is_told_to_ask_again() {
    let world = World::start().await;
    let invited = world.invite(invitation()).await;
    let request = Site::new().pair(&invited.code);
    let person = async {
        world.pairing(&invited.pairing, PairingState::Open).await;
        // By the time that another request is answered, this one is held.
        world.get("/bridge/v1/cloud").await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(21)).await;
        tokio::time::resume();
    };
    let (reply, ()) = tokio::join!(world.post("/bridge/v1/pair", &request), person);
    assert_eq!(reply.status, 202, "{reply:?}");
    let left = reply.json()["expires_in"].as_u64().unwrap();
    assert!((800..900).contains(&left), "{left}");
    world.stop().await;
}

#[tokio::test]
async fn keys_that_were_announced_need_no_answer_and_others_are_not_taken() {
    let world = World::start().await;
    let site = Site::new();
    let announced = fingerprint(&site.pair(""));
    let Request::Invite { name, replace, valid_seconds, ledger_is_current, workspace, by, .. } = invitation()
    else {
        unreachable!()
    };
    let fingerprint = Some(announced.to_ascii_lowercase());
    let request = Request::Invite {
        name,
        replace,
        accept: false,
        fingerprint,
        valid_seconds,
        ledger_is_current,
        workspace,
        by,
    };
    let invited = world.invite(request).await;
    let other = world.post("/bridge/v1/pair", &Site::new().pair(&invited.code)).await;
    assert_eq!(other.refusal(), (403, "code_invalid".into()));
    site.admission(&world.post("/bridge/v1/pair", &site.pair(&invited.code)).await);
    world.stop().await;
}

#[tokio::test]
async fn a_code_that_is_over_cannot_be_told_from_one_that_never_was() {
    let world = World::start().await;
    let invited = world.invite(accepting()).await;
    world.pass(Duration::from_secs(901));
    let over = world.post("/bridge/v1/pair", &Site::new().pair(&invited.code)).await;
    let wrong = world.post("/bridge/v1/pair", &Site::new().pair("0000-0000")).await;
    let no_code = world.post("/bridge/v1/pair", &Site::new().pair("not a code")).await;
    assert_eq!(over.refusal(), (403, "code_invalid".into()));
    let without_date = |reply: &super::world::Reply| {
        let lines = reply.head.lines().filter(|line| !line.starts_with("date:"));
        (lines.map(str::to_owned).collect::<Vec<_>>(), reply.body.clone())
    };
    assert_eq!(without_date(&over), without_date(&wrong));
    assert_eq!(without_date(&over), without_date(&no_code));
    world.stop().await;
}

#[tokio::test]
async fn guessing_is_limited_and_a_right_code_is_not_looked_at_meanwhile() {
    let world = World::start().await;
    let invited = world.invite(accepting()).await;
    let site = Site::new();
    for _ in 0..10 {
        let reply = world.post("/bridge/v1/pair", &site.pair("0000-0000")).await;
        assert_eq!(reply.refusal(), (403, "code_invalid".into()));
    }
    let limited = world.post("/bridge/v1/pair", &site.pair(&invited.code)).await;
    assert_eq!(limited.refusal(), (429, "rate_limited".into()));
    let after = limited.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    let after: u64 = after.parse().unwrap();
    assert!((1..=6).contains(&after), "{after}");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(after)).await;
    tokio::time::resume();
    site.admission(&world.post("/bridge/v1/pair", &site.pair(&invited.code)).await);
    world.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named_and_binds_no_code() {
    let world = World::start().await;
    let invited = world.invite(accepting()).await;
    let (site, other) = (Site::new(), Site::new());
    let mut unproven = site.pair(&invited.code);
    unproven["proof"] = other.pair("")["proof"].clone();
    let mut cut = site.pair(&invited.code);
    cut["csr"] = cut["csr"].as_str().unwrap()[..40].into();
    for (request, name) in [
        (unproven, "proof_invalid"),
        (cut, "certificate_request_invalid"),
        (
            Site::with(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()).pair(&invited.code),
            "certificate_request_invalid",
        ),
        (
            Site::with(KeyPair::generate_for(&PKCS_ED25519).unwrap()).pair(&invited.code),
            "certificate_request_invalid",
        ),
        (json!({"code": invited.code}), "request_malformed"),
        (json!([1, 2]), "request_malformed"),
    ] {
        let reply = world.post("/bridge/v1/pair", &request).await;
        assert_eq!(reply.refusal(), (400, name.into()));
        assert!(!reply.body.contains(&invited.code), "{reply:?}");
    }
    site.admission(&world.post("/bridge/v1/pair", &site.pair(&invited.code)).await);
    world.stop().await;
}

#[tokio::test]
async fn strangers_get_one_short_answer_and_what_is_too_large_is_not_read() {
    let world = World::start().await;
    for (method, path) in
        [("GET", "/"), ("GET", "/bridge/v1/pair"), ("POST", "/bridge/v1/cloud"), ("POST", "/bridge/v1")]
    {
        let text = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
        let reply = world.say(text.as_bytes()).await;
        assert_eq!(reply.refusal(), (404, "not_found".into()), "{method} {path}");
    }
    let announced = format!(
        "POST /bridge/v1/pair HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        16 * 1024 + 1
    );
    let large = "x".repeat(16 * 1024 + 1);
    assert_eq!(
        world.say(format!("{announced}{large}").as_bytes()).await.refusal(),
        (413, "request_too_large".into())
    );
    let chunked = "POST /bridge/v1/renew HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let endless = format!("{chunked}{}", chunk.repeat(5));
    assert_eq!(world.say(endless.as_bytes()).await.refusal(), (413, "request_too_large".into()));
    // A second request on the same connection is not answered.
    let twice = post("/bridge/v1/pair", "{}").repeat(2);
    let reply = world.say(twice.as_bytes()).await;
    assert_eq!(reply.head.matches("http/1.1").count() + reply.body.matches("HTTP/1.1").count(), 1);
    assert!(reply.head.contains("connection: close"));
    world.stop().await;
}

#[tokio::test]
async fn whoever_dawdles_is_cut_off() {
    let world = World::start().await;
    for begun in [
        "",
        "POST /bridge/v1/pair HTTP/1.1\r\n",
        "POST /bridge/v1/pair HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let mut stream = world.tls(None).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(16)).await;
        tokio::time::resume();
        let mut heard = Vec::new();
        let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut heard)).await.expect("it ends");
        assert!(heard.is_empty(), "{begun:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_code_is_kept_as_nothing_that_gives_it_back() {
    let world = World::start().await;
    let invited = world.invite(invitation()).await;
    let plain = invited.code.replace('-', "");
    for file in fs::read_dir(world.folder.path()).unwrap() {
        let path = file.unwrap().path();
        let Ok(bytes) = fs::read(&path) else { continue };
        for code in [&invited.code, &plain] {
            let found = bytes.windows(code.len()).any(|part| part == code.as_bytes());
            assert!(!found, "{} holds the code", path.display());
        }
    }
    assert!(!format!("{invited:?}").contains(&invited.code));
    world.stop().await;
}

#[tokio::test]
async fn a_bridge_is_invited_into_the_workspace_that_is_named_and_listed_with_it() {
    let world = World::start().await;
    let by = "night porter".to_owned();
    world.ask(Request::AddWorkspace { name: "Annexe".into(), by: by.clone() }).await.unwrap();
    let into = |wanted: &str| match accepting() {
        Request::Invite {
            name, replace, accept, fingerprint, valid_seconds, ledger_is_current, by, ..
        } => {
            let workspace = Some(wanted.to_owned());
            Request::Invite {
                name,
                replace,
                accept,
                fingerprint,
                valid_seconds,
                ledger_is_current,
                workspace,
                by,
            }
        }
        _ => unreachable!(),
    };
    let invited = world.invite(into("Annexe")).await;
    let site = Site::new();
    let admission = site.admission(&world.post("/bridge/v1/pair", &site.pair(&invited.code)).await);
    assert_eq!(world.pairing(&invited.pairing, PairingState::Open).await.workspace, "Annexe");
    let listed = async |workspace: Option<&str>| {
        let request = Request::Bridges { workspace: workspace.map(str::to_owned) };
        let Response::Bridges { bridges, .. } = world.ask(request).await.unwrap() else { panic!() };
        bridges.into_iter().map(|line| (line.bridge_id, line.workspace)).collect::<Vec<_>>()
    };
    let own = (admission.bridge, "Annexe".to_owned());
    assert_eq!(listed(Some("Annexe")).await, std::slice::from_ref(&own));
    assert!(listed(None).await.contains(&own) && listed(None).await.len() == 2);
    assert!(world.ask(into("Nowhere")).await.is_err());
    // A bridge is known by its id, whosever it is.
    let renamed = Request::Rename { bridge_id: admission.bridge, name: "Cellar".into(), by };
    assert_eq!(world.ask(renamed).await.unwrap(), Response::Done);
    world.stop().await;
}

#[tokio::test]
async fn the_first_bridge_is_the_one_that_the_cloud_began_with_and_the_next_is_another() {
    let world = World::start().await;
    let (_, first) = world.paired().await;
    let (_, second) = world.paired().await;
    assert_ne!(first.bridge, second.bridge);
    let Response::Bridges { bridges, .. } = world.ask(Request::Bridges { workspace: None }).await.unwrap()
    else {
        panic!()
    };
    let ids: Vec<_> = bridges.iter().map(|line| line.bridge_id).collect();
    assert_eq!(ids, [first.bridge, second.bridge]);
    let rename =
        Request::Rename { bridge_id: second.bridge, name: "Fjord".into(), by: "night porter".into() };
    world.ask(rename).await.unwrap();
    let Response::Bridges { bridges, .. } = world.ask(Request::Bridges { workspace: None }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(bridges[1].name.as_deref(), Some("Fjord"));
    world.stop().await;
}
