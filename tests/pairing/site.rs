//! A site: a folder, its configuration, and the program as processes.

use std::{
    fs,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::Value;

use super::cloud::{Cloud, until};

pub(crate) const CODE: &str = "ABCD-EFGH";

pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
}

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = "
            [site]
            name = \"Hotel Fjord\"
            time_zone = \"Europe/Oslo\"
            [storage]
            folder = \"state\"
            [admin]
            socket = \"a.sock\"
            [[system]]
            name = \"locks\"
            kind = \"sim_lock\"
            locks = [{ name = \"101\", address = \"127.0.0.1:1\" }]
        ";
        fs::write(folder.path().join("latchd.toml"), config).unwrap();
        Self { folder }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }

    /// What lies in the storage folder, without the queue and the key.
    pub(crate) fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder.path().join("state")) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names
            .filter(|name| !name.starts_with("queue") && name != "seal.key" && name != "lock")
            .filter(|name| name != "reserve")
            .collect();
        names.sort();
        names
    }

    pub(crate) fn pairing(&self) -> Value {
        let path = self.file("pairing.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchd"));
        command.args(arguments).arg("--config").arg(self.folder.path().join("latchd.toml"));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn pair_command(&self, url: &str, more: &[&str]) -> Command {
        self.command(&[&["pair", url, "--code", CODE], more].concat())
    }

    /// `latchd pair` with a fingerprint that somebody compared.
    pub(crate) fn pair(&self, cloud: &Cloud, more: &[&str]) -> Output {
        let fingerprint = cloud.fingerprint();
        let more = [&["--fingerprint", &fingerprint], more].concat();
        self.pair_command(&cloud.url(), &more).output().unwrap()
    }

    pub(crate) fn paired(&self, cloud: &Cloud) -> String {
        said(self.pair(cloud, &[]), true)
    }

    /// What a pairing that fails says.
    pub(crate) fn refused(&self, cloud: &Cloud) -> String {
        said(self.pair(cloud, &[]), false)
    }

    /// Runs the agent.
    pub(crate) fn run(&self) -> Process {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        Process(self.command(&["run"]).stderr(log).spawn().unwrap())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What `latchd status` says, once the agent answers.
    pub(crate) fn status(&self) -> Value {
        until("the agent answers", || {
            let output = self.command(&["status", "--json"]).output().unwrap();
            serde_json::from_slice(&output.stdout).ok()
        })
    }

    pub(crate) fn condition(&self, code: &str) -> Option<Value> {
        let status = self.status();
        status["conditions"].as_array().unwrap().iter().find(|held| held["code"] == code).cloned()
    }
}

/// All that a command said, if it ended as it should.
#[track_caller]
pub(crate) fn said(output: Output, well: bool) -> String {
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.success(), well, "{text}");
    text
}

/// A terminal with a person before it.
pub(crate) struct Terminal {
    person: fs::File,
    heard: String,
}

impl Terminal {
    pub(crate) fn start(command: &mut Command) -> (Self, Process) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || -> OwnedFd {
            rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
                .unwrap()
        };
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        // The command's own ends are the last: reading ends when it does.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        (Self { person: master.into(), heard: String::new() }, Process(child))
    }

    /// Reads until a word was shown, or nothing more comes; gives all that was.
    pub(crate) fn read(&mut self, word: &str) -> &str {
        while !self.heard.contains(word) {
            let mut bytes = [0; 512];
            match self.person.read(&mut bytes) {
                Ok(count) if count > 0 => self.heard += &String::from_utf8_lossy(&bytes[..count]),
                _ => break,
            }
        }
        &self.heard
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.person.write_all(text.as_bytes()).unwrap();
    }
}
