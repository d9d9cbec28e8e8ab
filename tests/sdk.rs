//! Public client libraries, unmodified, take the whole road: grant, encode, wait, and the door opens.
//!
//! Their versions are pinned in `tests/sdk`. Where they are not installed, the tests say so and are skipped;
//! `LATCHD_SDKS` names the folder they were installed to.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::print_stdout, reason = "a skipped test says what is missing")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

#[path = "road/site.rs"]
#[expect(dead_code, reason = "the road's tests need more of it")]
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod site;

use site::{Site, until};

fn installed() -> Option<PathBuf> {
    env::var_os("LATCHD_SDKS").map(PathBuf::from)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// Says whether a library can be loaded.
fn is_there(what: &str, check: &mut Command) -> bool {
    let there = check.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = there.is_ok_and(|status| status.success());
    if !there {
        assert!(env::var_os("LATCHD_NO_SKIPS").is_none(), "missing: {what}");
        println!("missing: {what}");
    }
    there
}

/// Lets a client make a card for room 101, lays the card down for it, and looks at what came of it.
fn takes_the_road(client: &mut Command, script: &str) {
    let site = Site::start();
    let said = |key: &str| site.said[key].as_str().unwrap();
    let (told, trouble) = (site.folder.path().join("client.out"), site.folder.path().join("client.err"));
    let client = client
        .env("API", said("api"))
        .env("API_KEY", fs::read_to_string(said("api_key_file")).unwrap().trim())
        // Each has its own way to trust a certificate authority.
        .env("SSL_CERT_FILE", said("ca_file"))
        .env("NODE_EXTRA_CA_CERTS", said("ca_file"))
        .stdin(fs::File::open(sources().join(script)).unwrap())
        .stdout(fs::File::create(&told).unwrap())
        .stderr(fs::File::create(&trouble).unwrap());
    let mut client = client.spawn().unwrap();
    until("the encoder waits for a card", || {
        let ended = client.try_wait().unwrap();
        assert!(ended.is_none(), "{script}: {}", fs::read_to_string(&trouble).unwrap());
        (site.frames("CN") == 1).then_some(())
    });
    site.waits_for_card("1");
    site.control("place jane on 1");
    let ended = until("the client ends", || client.try_wait().unwrap());
    assert!(ended.success(), "{script}: {}", fs::read_to_string(&trouble).unwrap());
    let told: Value = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
    assert_eq!(told["status"], "success", "{told}");
    assert_eq!(told["credential"], "salto_space_key", "{told}");
    assert_eq!(told["is_issued"], true, "{told}");
    let events = told["events"].as_array().unwrap();
    for event in ["access_grant.created", "access_method.issued"] {
        assert!(events.contains(&json!(event)), "{event}: {told}");
    }
    site.control("remove 1");
    assert!(site.opens("jane", "101"));
    assert!(!site.opens("jane", "102"));
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn the_python_sdk_makes_a_card() {
    let python = installed().map_or_else(|| "python3".into(), |folder| folder.join("python/bin/python3"));
    if is_there("python3 with seam", Command::new(&python).args(["-c", "import seam"])) {
        takes_the_road(Command::new(&python).arg("-"), "flow.py");
    }
}

#[test]
fn the_javascript_sdk_makes_a_card() {
    // A module that is read from standard input finds its packages from the working directory on.
    let folder = installed().unwrap_or_else(sources);
    let node = || {
        let mut node = Command::new("node");
        node.arg("--input-type=module").current_dir(&folder);
        node
    };
    if is_there("node with @seamapi/http", node().args(["-e", "import '@seamapi/http'"])) {
        takes_the_road(node().arg("-"), "flow.mjs");
    }
}
