//! The page is enough: a bridge in another language, written from it alone, hears what we say and works with our cloud.
//!
//! It needs Python 3.11 and nothing beside it. Where that is missing, the tests say so and are skipped.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    folder,
    site::{Site, latchd, until},
};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bridge.py")
}

/// The stranger, if it can live here.
fn stranger(words: &[&str]) -> Option<Command> {
    let enough = ["-c", "import ssl, sys; sys.exit(sys.version_info < (3, 11))"];
    let enough = Command::new("python3").args(enough).stdin(Stdio::null()).stderr(Stdio::null()).status();
    if !enough.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("LATCHD_NO_SKIPS").is_none(), "missing: python3");
        println!("missing: python3");
        return None;
    }
    let mut command = Command::new("python3");
    command.arg("-I").arg(script()).args(words).stdin(Stdio::null());
    Some(command)
}

/// What is killed with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines of JSON that a process says.
struct Told(BufReader<Box<dyn Read>>);

impl Told {
    fn of(child: &mut Child) -> Self {
        Self(BufReader::new(Box::new(child.stdout.take().unwrap())))
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }
}

#[test]
fn a_stranger_believes_the_golden_conversation_and_nothing_that_was_changed() {
    let Some(mut stranger) = stranger(&["hear", folder().to_str().unwrap()]) else { return };
    let output = stranger.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let texts = super::conversation::texts();
    let signed = texts.iter().filter(|text| text.starts_with(r#"{"type":"signed""#)).count();
    // Each of these changed, and each but the hello, after which another session begins, a second time.
    assert_eq!(told, json!({"heard": texts.len(), "refused": 2 * signed - 1}));
}

#[test]
fn a_stranger_who_has_read_the_page_is_taken_in_and_carries_out_an_order() {
    let site = Site::without_agent();
    let mut invite = latchd();
    invite.args(["cloud", "bridges", "pair", "--accept", "--json", "--by", "Kari"]);
    invite.arg("--config").arg(site.folder.path().join("cloud.toml"));
    let mut invite = Ended(invite.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let mut at_cloud = Told::of(&mut invite.0);
    let invited = at_cloud.next();
    let word = |key: &str| invited[key].as_str().unwrap();
    let address = word("url").split_once("://").unwrap().1.trim_end_matches('/');
    let folder = site.folder.path().to_str().unwrap();
    let Some(mut stranger) = stranger(&["work", address, word("code"), word("cloud_fingerprint"), folder])
    else {
        return;
    };
    let mut stranger = Ended(stranger.stdout(Stdio::piped()).spawn().unwrap());
    let mut told = Told::of(&mut stranger.0);
    let paired = told.next();
    let seen = at_cloud.next();
    assert_eq!(seen["state"], "paired", "{seen}");
    assert_eq!((&seen["bridge_id"], &seen["fingerprint"]), (&paired["paired"], &paired["fingerprint"]));
    assert_eq!(told.next(), json!({"welcomed": "Home"}));

    until("the cloud shows what the stranger has", || {
        let (_, doors) = site.try_call("/acs/entrances/list", &json!({}))?;
        (doors["acs_entrances"].get(0)?["display_name"] == "301").then_some(())
    });
    let (_, method) = site.grant("Jane Doe", "stay 1", &["301"]);
    let attempt = site.encode(&method, "1");
    let job = told.next()["job"].take();
    assert_eq!(job["order"]["kind"], "card.encode", "{job}");
    assert_eq!(job["order"]["doors"], json!(["301"]), "{job}");
    assert_eq!(job["order"]["guest_name"], "Jane Doe", "{job}");
    let ended = site.ended(&attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(told.next(), json!({"held": {"epoch": 1, "n": 1}}));
    assert!(stranger.0.wait().unwrap().success());
}
