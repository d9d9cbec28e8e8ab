//! What happened at doors whose locks are spoken to by Bluetooth: out of their memories into the feed.

use std::fs;

use serde_json::{Value, json};

use crate::{radio_house::House, site::until};

/// What the feed says of doors, without what went before them: what, how, and at which device.
fn told(house: &House) -> Option<Vec<(String, String, String)>> {
    let ask = json!({
        "since": "2020-01-01T00:00:00Z",
        "event_types": ["lock.locked", "lock.unlocked", "lock.access_denied"],
    });
    let (_, answer) = house.site.try_call("/events/list", &ask)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = answer["events"].as_array()?.iter();
    Some(
        events
            .map(|event| (text(&event["event_type"]), text(&event["method"]), text(&event["device_id"])))
            .collect(),
    )
}

#[test]
fn what_locks_of_both_makes_remember_is_told_once_each_and_by_what_means() {
    let Some(mut house) = House::prepare(&[], |lock| format!(", keys_file = {}", lock["keys_file"])) else {
        return;
    };
    let config = house.site.folder.path().join("agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    let often = "answer_timeout = \"2s\"\nread_events_every = \"1h\"\n";
    fs::write(&config, text.replace("answer_timeout = \"2s\"\n", often)).unwrap();
    house.start_agent();
    house.site.healthy();
    for (system, lock) in [("doors", "101"), ("flats", "201")] {
        house.reaches(&house.put(system, lock, "stay-1", "471108", (-60, 3600)), "succeeded");
    }
    until("both were read once", || {
        let read =
            ["ttlock-1", "august-1"].map(|label| 2 <= house.count(&format!("Device1.Connect {label}")));
        (read == [true, true]).then_some(())
    });
    let before = told(&house).unwrap();
    assert_eq!(before, [], "nobody was at a door yet");

    house.site.agent().kill();
    // More than is taken out of an August lock's memory at once.
    for _ in 0..20 {
        assert_eq!(house.sim("lock august-1 type 471108")["opened"], true);
        // Nobody types two codes in one second.
        house.sim("lock august-1 clock advance 7s");
    }
    assert_eq!(house.sim("lock ttlock-1 try 471108")["answer"], "opens");
    assert_ne!(house.sim("lock ttlock-1 try 999999")["answer"], "opens");
    // The link is lost while its memory is read: what was told by then is not lost with it.
    for _ in 0..9 {
        house.sim("fault august-1 write pass");
    }
    house.sim("fault august-1 write drop");
    house.start_agent();
    house.site.healthy();
    let untold = |house: &House| house.sim("lock august-1 state")["untold"].as_u64().unwrap();
    until("all that left the memories is told", || {
        let (told, untold) = (told(&house)?.len() as u64, untold(&house));
        (0 < untold && untold < 20 && told + untold == 22).then_some(())
    });

    house.start_agent();
    house.site.healthy();
    let events = until("all of it is told", || told(&house).filter(|events| 22 <= events.len()));
    let of = |what: &str, how: &str| {
        let same = events.iter().filter(|(event, means, _)| event == what && means == how);
        same.map(|(.., device)| device.clone()).collect::<Vec<_>>()
    };
    let (opened, refused) = (of("lock.unlocked", "keycode"), of("lock.access_denied", ""));
    assert_eq!((events.len(), opened.len(), refused.len()), (22, 21, 1), "{events:?}");
    let at_flat = opened.iter().filter(|device| **device != refused[0]).count();
    assert_eq!(at_flat, 20, "each at its own door: {events:?}");
    assert_eq!(untold(&house), 0, "an August lock forgets what it told");

    let flat = || {
        let status = house.site.status();
        let mut systems = status["systems"].as_array().unwrap().iter();
        systems.find(|system| system["name"] == "flats").unwrap()["signs"][0].clone()
    };
    // Of a lock that a former run left connected, no signal is heard.
    let signs = until("its signal is told", || {
        house.reaches(&house.unlock("flats", "201"), "succeeded");
        Some(flat()).filter(|signs| signs["signal_dbm"].as_i64().is_some_and(|signal| signal < 0))
    });
    assert!(signs["device"] == "201" && 2 <= signs["reached"].as_u64().unwrap(), "{signs}");
    assert!(signs["connect_ms"].is_u64() && signs["session_ms"].is_u64(), "{signs}");
    assert_eq!(signs["misses"]["not_heard"], 0, "{signs}");
    house.sim("range august-1 off");
    let missed = house.unlock("flats", "201");
    until("it is missed", || flat()["misses"]["not_heard"].as_u64().filter(|count| 0 < *count));
    assert_ne!(house.shown(&missed)["job"]["state"], "succeeded");
    house.is_discreet(&["471108", "999999"]);
}
