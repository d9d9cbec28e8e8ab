//! The unit file, judged by systemd's own tools and by what the program needs of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::print_stdout, reason = "a skipped test says what is missing")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const UNIT: &str = include_str!("../systemd/latchd.service");

/// Known since systemd 254; an older one says that it ignores them, and starts us every second.
const NEWER: &[&str] = &["RestartSteps", "RestartMaxDelaySec"];

/// Runs `systemd-analyze` on the unit with the built binary in place of the installed one; nothing where the tool is
/// missing.
fn analyze(arguments: &[&str]) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("latchd.service");
    fs::write(&unit, UNIT.replace("/usr/bin/latchd", env!("CARGO_BIN_EXE_latchd"))).unwrap();
    match Command::new("systemd-analyze").args(arguments).arg(&unit).output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(std::env::var_os("LATCHD_NO_SKIPS").is_none(), "missing: systemd-analyze ({error})");
            println!("missing: systemd-analyze");
            None
        }
    }
}

/// The values of a setting, in the order of the file.
fn values(setting: &str) -> Vec<&'static str> {
    let value = |line: &'static str| line.strip_prefix(setting)?.strip_prefix('=');
    UNIT.lines().filter_map(value).collect()
}

/// Seconds of a value like `45s` or `1min`.
fn seconds(setting: &str) -> u64 {
    let [value] = values(setting)[..] else { panic!("{setting} stands once") };
    let (number, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
    let number: u64 = number.parse().unwrap();
    match unit {
        "s" | "" => number,
        "min" => 60 * number,
        other => panic!("{setting}: {other}"),
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let Some(output) = analyze(&["verify"]) else {
        return;
    };
    let told = String::from_utf8(output.stderr).unwrap();
    let ours = told.lines().filter(|line| line.contains("latchd"));
    let wrong: Vec<_> = ours.filter(|line| !NEWER.iter().any(|key| line.contains(key))).collect();
    assert!(output.status.success() && wrong.is_empty(), "{told}");
}

#[test]
fn the_unit_exposes_little() {
    // In tenths: 2.0 of 10. What remains is the network, Unix sockets and serial ports, which are the purpose.
    let Some(output) = analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]) else {
        return;
    };
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_unit_leaves_an_orderly_stop_its_time() {
    let agent =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/latchd.example.toml")).unwrap();
    assert!(agent.contains("#stop_deadline = \"30s\""), "the default that the unit counts on");
    assert!(seconds("TimeoutStopSec") >= 30 + 10);
    assert!(seconds("WatchdogSec") >= 30);
    assert_eq!(values("Type"), ["notify"]);
    assert_eq!(values("Restart"), ["always"]);
}

#[test]
fn the_unit_keeps_what_serial_ports_bluetooth_and_administrators_need() {
    assert_eq!(values("DeviceAllow"), ["char-ttyUSB rw", "char-ttyACM rw", "char-ttyS rw"]);
    assert_eq!(values("SupplementaryGroups"), ["dialout"]);
    assert!(values("RestrictAddressFamilies")[0].contains("AF_UNIX"));
    for unwanted in ["PrivateUsers", "PrivateDevices", "PrivateNetwork"] {
        assert!(values(unwanted).is_empty(), "{unwanted}");
    }
    assert!(values("After")[0].contains("modprobe@usbserial.service"));
}

#[test]
fn the_units_commands_are_commands_of_this_program_and_its_paths_those_of_the_examples() {
    use clap::Parser;
    let started = ["ExecStartPre", "ExecStart", "ExecReload"].into_iter().flat_map(values);
    let ours: Vec<_> = started.filter(|line| line.starts_with("/usr/bin/latchd")).collect();
    assert_eq!(ours.len(), 3);
    for line in ours {
        latchd::cli::Cli::try_parse_from(line.split_whitespace())
            .unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    let example = include_str!("../config/latchd.example.toml");
    for credential in values("LoadCredential") {
        let name = credential.split(':').next().unwrap();
        assert!(example.contains(&format!("/run/credentials/latchd.service/{name}")), "{name}");
    }
    assert!(example.contains("/run/latchd/") && values("RuntimeDirectory") == ["latchd"]);
    assert!(example.contains("/var/lib/latchd") && values("StateDirectory") == ["latchd"]);
}
