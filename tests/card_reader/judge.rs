//! libnfc takes the pretend chip for a PN532: Debian's `nfc-list` finds what lies in its field.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use latchd::sim::control::BlockingClient;
use serde_json::Value;

fn nfc_list() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|path| path.join("nfc-list")).find(|tool| tool.exists());
    assert!(
        found.is_some() || std::env::var_os("LATCHD_NO_SKIPS").is_none(),
        "missing: nfc-list (libnfc-bin)"
    );
    if found.is_none() {
        println!("missing: nfc-list (libnfc-bin)");
    }
    found
}

/// `latchd sim pn532`; killed with this.
struct Chip {
    process: Child,
    tty: PathBuf,
    control: BlockingClient,
    _folder: tempfile::TempDir,
}

impl Chip {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchd"));
        command.args(["sim", "pn532", "--pty", "--dir"]).arg(folder.path());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let control = BlockingClient::connect(said["control"].as_str().unwrap()).unwrap();
        // Its own name: libnfc takes no links.
        let tty = std::fs::canonicalize(said["tty"].as_str().unwrap()).unwrap();
        Self { process, tty, control, _folder: folder }
    }

    /// What `nfc-list` says is there of ISO 14443 A, without blanks.
    fn listed(&self, tool: &PathBuf) -> String {
        let mut command = Command::new(tool);
        command.args(["-t", "1"]);
        command.env("LIBNFC_DEVICE", format!("pn532_uart:{}:115200", self.tty.display()));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("device opened"), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said.replace(' ', "")
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn libnfc_finds_what_lies_in_the_field_of_the_pretend_chip() {
    let Some(tool) = nfc_list() else { return };
    let mut chip = Chip::start();
    assert!(!chip.listed(&tool).contains("UID(NFCID1)"), "nothing lies there");
    for (place, uid, sak) in [
        ("DEADBEEF classic", "UID(NFCID1):deadbeef", "SAK(SEL_RES):08"),
        ("CAFEBABE classic-4k", "UID(NFCID1):cafebabe", "SAK(SEL_RES):18"),
        ("04A1B2C3D4E580 ultralight", "UID(NFCID1):04a1b2c3d4e580", "SAK(SEL_RES):00"),
        ("04A1B2C3D4E581 desfire", "UID(NFCID1):04a1b2c3d4e581", "ATS:7577810280"),
    ] {
        chip.control.send("lift").unwrap();
        chip.control.send(&format!("place {place}")).unwrap();
        let listed = chip.listed(&tool);
        assert!(listed.contains(uid) && listed.contains(sak), "{place}: {listed}");
    }
    let asked = chip.control.send("requests").unwrap();
    assert!(asked["requests"]["4A"].as_u64().unwrap() >= 5, "{asked}");
}
