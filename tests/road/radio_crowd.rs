//! A radio that makes one connection after the other among neighbours that chatter, on a bus that lets it register little.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use dbus::{
    Message,
    arg::{PropMap, RefArg},
    channel::Channel,
};
use serde_json::{Value, json};

use crate::{radio_house::House, site::until};

/// Each lock with how often it is read; an August lock is slower.
const LOCKS: [(&str, &str, u64); 4] =
    [("doors", "101", 150), ("doors", "102", 150), ("doors", "901", 150), ("flats", "201", 50)];
const ALL: u64 = 500;

impl House {
    /// Orders so many readings of a lock, over one connection to the agent.
    fn read(&self, system: &str, lock: &str, times: u64) {
        let mut agent = UnixStream::connect(self.site.folder.path().join("agent.sock")).unwrap();
        let mut answers = BufReader::new(agent.try_clone().unwrap());
        for _ in 0..times {
            let job = json!({
                "system": system, "priority": "desk", "expires_in_seconds": 600,
                "order": { "kind": "device.read", "device": lock },
            });
            writeln!(agent, "{}", json!({ "latchd": 1, "request": "add", "job": job, "by": "Kari" }))
                .unwrap();
            let mut answer = String::new();
            answers.read_line(&mut answer).unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["response"], "added", "{answer}");
        }
    }

    /// The agent's memory, in kilobytes.
    fn resident(&self) -> u64 {
        let pid = self.site.agent.as_ref().unwrap().pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// The message bus's own books.
struct Books {
    channel: Channel,
}

impl Books {
    fn open(bus: &str) -> Self {
        let mut channel = Channel::open_private(bus).unwrap();
        channel.register().unwrap();
        Self { channel }
    }

    fn ask(&self, interface: &str, member: &str) -> Message {
        let bus = "org.freedesktop.DBus";
        let call = Message::new_method_call(bus, "/org/freedesktop/DBus", interface, member).unwrap();
        self.channel.send_with_reply_and_block(call, Duration::from_secs(20)).unwrap()
    }

    fn stand(&self) -> BTreeMap<String, u64> {
        let told: PropMap = self.ask("org.freedesktop.DBus.Debug.Stats", "GetStats").read1().unwrap();
        told.into_iter().filter_map(|(name, value)| Some((name, value.0.as_u64()?))).collect()
    }

    /// Every connection's own name, which no other ever has.
    fn connections(&self) -> BTreeSet<String> {
        let names: Vec<String> = self.ask("org.freedesktop.DBus", "ListNames").read1().unwrap();
        names.into_iter().filter(|name| name.starts_with(':')).collect()
    }
}

#[test]
fn five_hundred_connections_among_chattering_neighbours_leave_nothing_behind() {
    let more = ["--fresh", "1", "--neighbours", "20", "--match-rules", "32"];
    let Some(mut house) = House::prepare(&more, |lock| match lock["keys_file"].as_str() {
        Some(keys) => format!(", keys_file = \"{keys}\""),
        None => String::new(),
    }) else {
        return;
    };
    let (paired, said) = house.told_with_radio(&["devices", "pair", "doors/901"]);
    assert!(paired, "{said}");
    for time in ["advertise 25", "connect 1", "resolve 1", "disconnect 1"] {
        house.sim(&format!("timing {time}"));
    }
    house.start_agent();
    house.site.healthy();
    let books = Books::open(&house.bus);
    // One connection before, so that everything has been used once.
    house.read("doors", "101", 1);
    until("it was read", || (house.site.jobs("succeeded")? == 1).then_some(()));
    until("no link is held", || (house.sim("connected")["answer"] == "").then_some(()));
    let (before, first) = (books.stand(), books.connections());
    let connected = house.count("Device1.Connect");

    thread::scope(|scope| {
        for (system, lock, times) in LOCKS {
            let house = &house;
            scope.spawn(move || house.read(system, lock, times));
        }
    });
    let half =
        until("half of it is done", || (ALL / 2 < house.site.jobs("succeeded")?).then(|| house.resident()));
    until("all of it is done", || (house.site.jobs("succeeded")? == 1 + ALL).then_some(()));
    until("no link is held", || (house.sim("connected")["answer"] == "").then_some(()));
    let resident = house.resident();

    assert_eq!(house.count("Device1.Connect") - connected, ALL, "none came to nothing");
    // As many connections and registrations as before, and not the same ones: those were given up on the way.
    until("the bus holds what it held before", || {
        let now = books.stand();
        let same = |name: &str| now[name] == before[name];
        (same("ActiveConnections") && same("MatchRules")).then_some(())
    });
    let given_up = first.difference(&books.connections()).count();
    assert_eq!(given_up, 2, "what the library leaves behind goes with its connection");
    assert!(books.stand()["PeakMatchRulesPerConnection"] < 32, "no limit was met");
    assert!(resident < half + 8 * 1024, "{half} kB, and {resident} kB behind twice as many connections");
}

#[test]
fn a_daemon_that_starts_anew_forty_times_finds_no_more_connections_and_no_more_memory_taken() {
    let Some(house) = House::start(&[]) else { return };
    let is_there = || until("the radio is there", || (house.sim("agents")["answer"] == "1").then_some(()));
    is_there();
    let books = Books::open(&house.bus);
    let before = books.stand();
    let mut early = 0;
    for round in 0..40 {
        house.sim("crash");
        house.sim("up");
        is_there();
        if round == 10 {
            early = house.resident();
        }
    }
    let resident = house.resident();
    until("the bus holds what it held before", || {
        let now = books.stand();
        let same = |name: &str| now[name] == before[name];
        (same("ActiveConnections") && same("MatchRules")).then_some(())
    });
    assert!(resident < early + 2 * 1024, "{early} kB behind ten starts, {resident} kB behind forty");
    house.reaches(&house.put("doors", "101", "stay-1", "471108", (-60, 3600)), "succeeded");
}
