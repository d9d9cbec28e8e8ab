//! Keypad locks beside the lock server: one more process, whose control socket is the witness of what the locks did.

use std::path::PathBuf;

use latchd::sim::control::BlockingClient;
use serde_json::Value;

use crate::site::{Process, latchd, until};

/// The locks' system.
pub const SYSTEM: &str = "annex";

/// `latchd sim lock`.
pub struct Keypads {
    _process: Process,
    control: PathBuf,
}

impl Keypads {
    /// Starts so many locks, `lock-1` and so on, in a folder below this one.
    pub fn start(folder: &std::path::Path, locks: u16) -> Self {
        let own = folder.join("locks");
        let mut command = latchd();
        command.args(["sim", "lock", "--locks", &locks.to_string(), "--dir"]).arg(&own);
        let process = Process::start(folder, "locks", &mut command);
        let control = own.join("lock.ctl");
        until("the locks are up", || BlockingClient::connect(&control).ok());
        Self { _process: process, control }
    }

    /// The control socket.
    pub fn client(&self) -> BlockingClient {
        BlockingClient::connect(&self.control).unwrap()
    }

    /// One command for a lock; the answer must be ok.
    pub fn at(&self, lock: &str, command: &str) -> Value {
        self.client().send(&format!("at {lock} {command}")).unwrap()
    }

    /// The `[[system]]` section for an agent that puts entries in `lead` before their windows begin.
    pub fn section(&self, lead: &str) -> String {
        let said = self.client().send("agent-config").unwrap();
        let toml =
            said["toml"].as_str().unwrap().replace("name = \"locks\"", &format!("name = \"{SYSTEM}\""));
        format!("{toml}lead = \"{lead}\"\n")
    }

    /// The entries of a lock's ledger of one kind: what was done, when, for which job.
    pub fn done(&self, lock: &str, what: &str) -> Vec<Value> {
        let ledger = self.at(lock, "ledger");
        let records = ledger["ledger"].as_array().unwrap().iter();
        records.filter(|record| record["what"] == what).cloned().collect()
    }

    /// How often something was done for a job.
    pub fn done_for(&self, lock: &str, what: &str, job: &Value) -> usize {
        self.done(lock, what).iter().filter(|record| record["job"] == *job).count()
    }

    /// The keys of a lock's table.
    pub fn keys(&self, lock: &str) -> Vec<String> {
        let table = self.at(lock, "table");
        let slots = table["table"].as_array().unwrap().iter();
        slots.map(|slot| slot["key"].as_str().unwrap().to_owned()).collect()
    }

    /// Somebody types a PIN.
    pub fn opens(&self, lock: &str, pin: &str) -> bool {
        self.at(lock, &format!("use {pin}"))["opened"] == true
    }
}
