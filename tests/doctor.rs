//! `latchd doctor` where things are missing: it names them, the next step, and no secret.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

const SECRET: &str = "c2VhbGVkLWtleXMtb2YtYS1zaXRl";

/// A configuration of which nothing exists.
fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = r#"
        [site]
        name = "Hotel"
        time_zone = "Europe/Oslo"
        [storage]
        folder = "state"
        [admin]
        socket = "latchd.sock"
        [[system]]
        name = "house"
        kind = "salto_is"
        exclusive = true
        line = { serial = "no-such-port" }
        encoders = ["1"]
        rooms = ["101"]
    "#;
    fs::write(path.join("latchd.toml"), text).unwrap();
    folder
}

fn doctor(folder: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_latchd"))
        .args(["doctor", "--config"])
        .arg(folder.join("latchd.toml"))
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(!told.contains(SECRET), "{told}");
    // As one line: how it wraps is no matter here.
    (output.status.code(), told.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn what_is_missing_is_named_with_the_next_step_and_nothing_is_made() {
    let folder = site();
    let (code, told) = doctor(folder.path());
    assert_eq!(code, Some(2), "{told}");
    for wanted in [
        "ok config:",
        "warn agent: no agent answers",
        "FAIL pairing: this site is not paired with a cloud",
        "-> pair the site with `latchd pair`",
        "seal.key: made at first start",
        "ok database:",
        "FAIL system house: serial port",
        "-> plug the adapter in",
        "warn clock:",
    ] {
        assert!(told.contains(wanted), "{wanted:?} is missing in {told}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the configuration");
}

#[test]
fn a_secret_that_others_may_read_a_lost_key_and_a_damaged_database_are_told() {
    let folder = site();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let pairing = state.join("pairing.json");
    fs::write(&pairing, format!("{{\"latchd\": 1, \"secrets\": \"{SECRET}\"}}\n")).unwrap();
    fs::set_permissions(&pairing, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(state.join("queue.db"), [b'x'; 9000]).unwrap();
    let (code, told) = doctor(folder.path());
    assert_eq!(code, Some(2), "{told}");
    for wanted in
        ["FAIL pairing:", "(mode 644): run `chmod 600`", "FAIL key:", "FAIL database:", "not a database"]
    {
        assert!(told.contains(wanted), "{wanted:?} is missing in {told}");
    }
    fs::set_permissions(&pairing, fs::Permissions::from_mode(0o600)).unwrap();
    let (_, told) = doctor(folder.path());
    assert!(told.contains("is not a pairing: pair the site again"), "{told}");
}

#[test]
fn a_wrong_configuration_is_told_first_and_where_its_mistakes_are_shown() {
    let folder = site();
    fs::write(folder.path().join("latchd.toml"), "[site]\nname = 1\n").unwrap();
    let (code, told) = doctor(folder.path());
    assert_eq!(code, Some(2));
    assert!(told.starts_with("FAIL config:") && told.contains("latchd check-config"), "{told}");
    fs::remove_file(folder.path().join("latchd.toml")).unwrap();
    let (code, told) = doctor(folder.path());
    assert_eq!(code, Some(2));
    assert!(told.contains("cannot be read: No such file"), "{told}");
}
