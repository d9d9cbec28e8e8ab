//! A house whose locks are spoken to by Bluetooth: the real Bluetooth library over a pretend BlueZ.

use std::{path::PathBuf, process::Command};

use jiff::{SignedDuration, Timestamp};
use latchd::sim::control::BlockingClient;
use serde_json::{Value, json};

use crate::site::{Process, Site, first_line, latchd, until};

/// `latchd sim ble`, and a site whose agent meets it.
pub struct House {
    pub site: Site,
    pub sim: Process,
    control: PathBuf,
    pub bus: String,
    /// What the simulator said of its locks.
    pub locks: Value,
}

/// Deadlines that no test has to wait out.
const SHORT: &str = "lead = \"2s\"\nlisten = \"3s\"\nconnect_timeout = \"2s\"\nanswer_timeout = \"2s\"\n";

/// Whether these tests can run here: the pretend BlueZ needs a message bus. Where it is missing there is nothing to see, but
/// where nothing may be skipped.
fn has_a_bus() -> bool {
    let found = Command::new("dbus-daemon").arg("--version").output().is_ok();
    assert!(found || std::env::var_os("LATCHD_NO_SKIPS").is_none(), "missing: dbus-daemon");
    found
}

impl House {
    /// Two TTLock locks (`101`, `102`) and an August lock (`201`); none without a message bus.
    pub fn start(more: &[&str]) -> Option<Self> {
        let with_keys = |lock: &Value| format!(", keys_file = {}", lock["keys_file"]);
        let mut house = Self::prepare(more, with_keys)?;
        house.start_agent();
        house.site.healthy();
        Some(house)
    }

    /// The same before the agent runs, with more of what the simulator said of a lock in its configuration. Locks that
    /// belong to nobody are `901` and so on.
    pub fn prepare(more: &[&str], also: impl Fn(&Value) -> String) -> Option<Self> {
        Self::prepare_with(more, also, SHORT)
    }

    /// The same with these settings of both systems, and with the product's own for what is not among them.
    pub fn prepare_with(more: &[&str], also: impl Fn(&Value) -> String, settings: &str) -> Option<Self> {
        if !has_a_bus() {
            return None;
        }
        let mut site = Site::without_agent();
        let folder = site.folder.path().to_owned();
        let mut sim = latchd();
        sim.args(["sim", "ble", "--ttlock", "2", "--august", "1"])
            .args(more)
            .arg("--dir")
            .arg(folder.join("ble"));
        let sim = Process::start(&folder, "ble", &mut sim);
        let said = first_line(&sim);
        let locks = |kind: &str| {
            let of_kind = said["locks"].as_array().unwrap().iter().filter(|lock| lock["kind"] == kind);
            let text = of_kind.map(|lock| {
                let (make, number) = lock["name"].as_str().unwrap().split_once('-').unwrap();
                let floor = match make {
                    "ttlock" => 1,
                    "august" => 2,
                    _ => 9,
                };
                let name = format!("{floor}0{number}");
                format!("{{ name = \"{name}\", address = {}{} }}", lock["address"], also(lock))
            });
            text.collect::<Vec<_>>().join(", ")
        };
        site.configure(&format!(
            "[[system]]\nname = \"doors\"\nkind = \"ttlock\"\nlocks = [{}]\n{settings}\
             [[system]]\nname = \"flats\"\nkind = \"august_yale\"\nlocks = [{}]\n{settings}\
             [limits]\nremote_unlock = true\n",
            locks("ttlock"),
            locks("august_yale"),
        ));
        let control = PathBuf::from(said["control"].as_str().unwrap());
        let bus = said["bus"].as_str().unwrap().to_owned();
        Some(Self { site, sim, control, bus, locks: said["locks"].clone() })
    }

    pub fn start_agent(&mut self) {
        self.site.agent = None;
        let bus = self.bus.clone();
        // The library survives panics of its own; a story of one would bring the program's symbols into memory.
        let settings = [("DBUS_SYSTEM_BUS_ADDRESS", bus.as_str()), ("RUST_BACKTRACE", "0")];
        self.site.start_agent_with(|command| command.envs(settings));
    }

    /// One run of the command line in reach of the pretend BlueZ: whether it went well, and what it said.
    pub fn told_with_radio(&self, args: &[&str]) -> (bool, String) {
        let config = self.site.folder.path().join("agent.toml");
        let output = latchd()
            .args(args)
            .arg("--config")
            .arg(config)
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    /// One command at the pretend BlueZ; the answer must be ok.
    pub fn sim(&self, command: &str) -> Value {
        BlockingClient::connect(&self.control).unwrap().send(command).unwrap()
    }

    /// What a TTLock's table holds, digits first.
    pub fn table(&self, lock: &str) -> String {
        self.sim(&format!("lock {lock} slots"))["answer"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether a PIN opens a lock now, by its own clock.
    pub fn opens(&self, lock: &str, pin: &str) -> bool {
        let tried = self.sim(&format!("lock {lock} try {pin}"));
        tried["answer"] == "opens" || tried["opens"] == true
    }

    pub fn count(&self, what: &str) -> u64 {
        self.sim(&format!("count {what}"))["answer"].to_string().trim_matches('"').parse().unwrap()
    }

    pub fn put(&self, system: &str, lock: &str, slot: &str, pin: &str, seconds: (i64, i64)) -> Value {
        let order = json!({
            "kind": "slot.put", "device": lock, "slot": slot, "content": { "pin": pin }, "generation": 1,
            "window": { "starts_at": after(seconds.0), "ends_at": after(seconds.1) },
        });
        self.site.added(&json!({ "system": system, "order": order }))["job_id"].clone()
    }

    pub fn remove(&self, system: &str, lock: &str, slot: &str) -> Value {
        let order = json!({ "kind": "slot.remove", "device": lock, "slot": slot });
        self.site.added(&json!({ "system": system, "order": order }))["job_id"].clone()
    }

    pub fn unlock(&self, system: &str, lock: &str) -> Value {
        let order = json!({ "kind": "device.unlock", "device": lock });
        self.site.added(&json!({ "system": system, "order": order }))["job_id"].clone()
    }

    pub fn shown(&self, job: &Value) -> Value {
        self.site.told_json(&["jobs", "show", job.as_str().unwrap()])
    }

    #[track_caller]
    pub fn reaches(&self, job: &Value, wanted: &str) -> Value {
        until(&format!("the job is {wanted}"), || {
            let shown = self.shown(job);
            (shown["job"]["state"] == wanted).then_some(shown)
        })
    }

    /// Nobody was told a PIN.
    pub fn is_discreet(&mut self, pins: &[&str]) {
        let agent = self.site.agent().errors();
        let cloud = self.site.cloud().errors();
        for told in [agent, cloud, self.sim.errors()] {
            for pin in pins {
                let line = told.lines().find(|line| line.contains(pin));
                assert_eq!(line, None, "a PIN is told to nobody");
            }
        }
    }
}

pub fn after(seconds: i64) -> Timestamp {
    let now = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
    now + SignedDuration::from_secs(seconds)
}
