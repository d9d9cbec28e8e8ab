//! Independent clients against the pretend locks with a radio: what they hold for the protocol, the pretend locks must, and
//! so must the driver that meets those. They are Python's, over a Bluetooth library of their own.
//!
//! No client is known for windows in a TTLock by this road, nor for those of an August lock: both are proven by the
//! published bytes alone.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

/// The Python that has the clients; none where nobody installed them.
fn python() -> Option<PathBuf> {
    let python = env::var_os("LATCHD_SDKS").map(|sdks| PathBuf::from(sdks).join("python-ble/bin/python"));
    let python = python.filter(|python| python.exists());
    let has_bus = Command::new("dbus-daemon").arg("--version").output().is_ok();
    if python.is_none() || !has_bus {
        assert!(env::var_os("LATCHD_NO_SKIPS").is_none(), "missing: the Bluetooth clients, or dbus-daemon");
        return None;
    }
    python
}

/// `latchd sim ble`; killed with this.
struct Locks {
    process: Child,
    said: Value,
    _folder: tempfile::TempDir,
}

impl Locks {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchd"));
        command.args(["sim", "ble", "--dir"]).arg(folder.path());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, said: serde_json::from_str(&line).unwrap(), _folder: folder }
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lets a client loose on a lock.
fn judge(script: &str, lock: usize, more: &[&str]) {
    let Some(python) = python() else { return };
    let locks = Locks::start();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let lock = &locks.said["locks"][lock];
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/ble").join(script);
    let output = Command::new(python)
        .env("DBUS_SYSTEM_BUS_ADDRESS", word(&locks.said["bus"]))
        .arg(script)
        .args([word(&locks.said["control"]), word(&lock["address"])])
        .args(more)
        .arg(word(&lock["keys_file"]))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("held"),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_client_of_ttlock_locks_finds_opens_and_programs_the_pretend_one() {
    judge("ttlock.py", 0, &[]);
}

#[test]
fn a_client_of_august_locks_reads_moves_and_programs_the_pretend_one_and_needs_its_key() {
    judge("august.py", 1, &["M100001"]);
}
