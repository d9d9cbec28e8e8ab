//! `latchd check-config` as a person at a terminal meets it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{fs, process::Command};

fn check_config(text: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latchd.toml");
    fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_latchd"))
        .arg("check-config")
        .arg(&file)
        .args(more)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn both_examples_are_fine_and_told_apart() {
    let (code, out, err) = check_config(include_str!("../config/latchd.example.toml"), &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("fine; the agent of Hotel Fjord, 11 doors of salto, annex"), "{out}");
    let (code, out, _) = check_config(include_str!("../config/cloud.example.toml"), &[]);
    assert_eq!(code, Some(0));
    assert!(out.contains("fine; the cloud of workspace Home"), "{out}");
}

#[test]
fn mistakes_end_with_one_and_are_shown_with_line_and_way_out() {
    let text = include_str!("../config/latchd.example.toml").replace("exclusive = true", "exclusiv = true");
    let (code, out, err) = check_config(&text, &[]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("did you mean `exclusive`?") && err.contains(" | exclusiv = true"), "{err}");
    assert!(err.trim_end().ends_with("2 mistakes"), "{err}");
}

#[test]
fn a_name_that_the_system_could_not_be_told_is_a_mistake() {
    let text = fs::read_to_string("config/latchd.example.toml").unwrap();
    let text = text.replacen("rooms = [", "rooms = [\"Suite №1\", ", 1);
    let (code, out, err) = check_config(&text, &[]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("system salto:") && err.contains("Suite №1"), "{err}");
}

#[test]
fn a_role_given_by_hand_decides_whose_file_it_is() {
    let (code, _, err) = check_config(include_str!("../config/cloud.example.toml"), &["--as", "agent"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("error: site:") && err.contains("error: api: unknown setting"), "{err}");
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_its_reason_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_latchd"))
        .args(["check-config", "/nonexistent/latchd.toml"])
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(err.matches("No such file").count(), 1, "{err}");
}

#[test]
fn run_with_a_wrong_configuration_shows_the_mistakes_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latchd.toml");
    fs::write(&file, "[site]\nname = 1\n").unwrap();
    for command in ["run", "cloud"] {
        let output = Command::new(env!("CARGO_BIN_EXE_latchd"))
            .args([command, "--config"])
            .arg(&file)
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(err.starts_with("error: ") && err.contains("latchd.toml:"), "{err}");
    }
}

#[test]
fn a_log_filter_that_cannot_be_understood_is_named_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latchd.toml");
    let text = include_str!("../config/latchd.example.toml").replace("/var/lib/latchd", "state");
    fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_latchd"))
        .args(["run", "--config"])
        .arg(&file)
        .env("LATCHD_LOG", "latchd=loud")
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(err.starts_with("latchd: understand LATCHD_LOG=\"latchd=loud\": "), "{err}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
