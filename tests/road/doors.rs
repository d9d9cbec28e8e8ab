//! What happens at doors, on the whole road: from the lock's memory to the feed, once each and in order.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    keypads::Keypads,
    site::{Site, until},
};

fn with_lock() -> (Site, Keypads) {
    let mut site = Site::without_agent();
    let keypads = Keypads::start(site.folder.path(), 1);
    let section = format!("{}read_events_every = \"1s\"\n", keypads.section("2s"));
    site.configure(&format!("{section}[limits]\nremote_unlock = true\n"));
    site.start_agent();
    site.healthy();
    (site, keypads)
}

fn device(site: &Site) -> Value {
    until("the device is online", || {
        let (_, answer) = site.try_call("/devices/list", &json!({}))?;
        let device = answer["devices"][0].clone();
        (device["properties"]["online"] == true).then_some(device)
    })
}

/// What the feed says of the device's door.
fn events(site: &Site, device: &Value) -> Option<Vec<Value>> {
    let ask = json!({
        "since": "2020-01-01T00:00:00Z", "device_id": device,
        "event_types": ["lock.locked", "lock.unlocked", "lock.access_denied"],
    });
    let (_, answer) = site.try_call("/events/list", &ask)?;
    answer["events"].as_array().cloned()
}

fn kinds(events: &[Value]) -> Vec<(&str, Option<&str>)> {
    events.iter().map(|event| (event["event_type"].as_str().unwrap(), event["method"].as_str())).collect()
}

#[test]
fn the_feed_tells_once_who_opened_a_door_how_it_was_opened_and_who_was_not_let_in() {
    let (mut site, keypads) = with_lock();
    let device = device(&site)["device_id"].clone();
    let now = Timestamp::now();
    let body = json!({
        "user_identity": { "full_name": "Jane Doe" }, "device_ids": [device],
        "requested_access_methods": [{ "mode": "code" }, { "mode": "cloud_key" }],
        "starts_at": now, "ends_at": now + SignedDuration::from_hours(48),
    });
    let granted = site.ok("/access_grants/create", body, "access_grant");
    let methods = granted["access_method_ids"].as_array().unwrap();
    let shown = |site: &Site, id: &Value| {
        site.ok("/access_methods/get", json!({ "access_method_id": id }), "access_method")
    };
    let of_mode = |mode: &str| methods.iter().find(|id| shown(&site, id)["mode"] == mode).unwrap().clone();
    let (code, key) = (of_mode("code"), of_mode("cloud_key"));
    let pin = until("the code is issued", || shown(&site, &code)["code"].as_str().map(str::to_owned));
    until("the code is in the lock", || keypads.opens("lock-1", &pin).then_some(()));
    let tried = keypads.done("lock-1", "refused").len();
    assert!(!keypads.opens("lock-1", "0000000"));
    until("it was heard", || events(&site, &device).filter(|events| events.len() == tried + 2).map(drop));

    // While the cloud is away, and the agent too.
    site.cloud().kill();
    keypads.at("lock-1", "turn locked");
    site.agent().kill();
    keypads.at("lock-1", "turn unlocked");
    site.restart_agent();
    site.restart_cloud();
    site.healthy();
    let unlock = json!({ "access_method_id": key, "device_id": device });
    let (status, answer) = site.call("/access_methods/unlock_door", unlock);
    assert_eq!(status, 200, "{answer}");
    let attempt = answer["action_attempt"]["action_attempt_id"].clone();

    let told =
        until("all of it was told", || events(&site, &device).filter(|events| events.len() >= tried + 5));
    let last = &told[tried..];
    assert_eq!(
        kinds(last),
        [
            ("lock.unlocked", Some("keycode")),
            ("lock.access_denied", None),
            ("lock.locked", Some("manual")),
            ("lock.unlocked", Some("manual")),
            ("lock.unlocked", Some("remote")),
        ]
    );
    assert_eq!(last[0]["code"], pin.as_str());
    assert_eq!(last[0]["user_identity_id"], granted["user_identity_id"]);
    assert_eq!(last[4]["action_attempt_id"], attempt);
    for event in last {
        let time = |name: &str| event[name].as_str().unwrap().parse::<Timestamp>().unwrap();
        assert!(time("occurred_at") <= time("created_at"), "{event}");
        assert_eq!(event["device_id"], device);
    }
    for process in [site.agent().errors(), site.cloud().errors()] {
        assert!(!process.contains(&pin), "a PIN is told to nobody");
    }
}
