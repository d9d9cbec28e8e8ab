//! Doors that are opened from afar, and codes where nothing takes them.

use std::thread;

use latchd::model::{Code, Inventory, Outcome, ProofLevel, Success};
use serde_json::{Value, json};

use super::{Cloud, config, in_hours, inventory_with_a_lock, text};

/// The property with a lock that can be opened from afar.
fn inventory_with_a_latch() -> Inventory {
    let mut inventory = inventory_with_a_lock();
    let locks = &mut inventory.systems[1];
    locks.capabilities.unlock = Some(ProofLevel::Simulator);
    locks.devices[0].remote_unlock = Some(true);
    inventory
}

fn cloud(hold_orders: bool) -> Cloud {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, true);
    config.api.hold_orders = hold_orders;
    let cloud = Cloud::start_with(folder, config);
    cloud.furnish_with(cloud.bridge, inventory_with_a_latch());
    cloud
}

/// The call that opens the front door for somebody who has a key to it.
fn unlock(cloud: &Cloud) -> Value {
    let front = cloud.ok("/devices/list", &json!({"search": "front"}))["devices"][0]["device_id"].clone();
    let grant = json!({
        "user_identity": {"full_name": "Jane Doe"}, "device_ids": [front],
        "requested_access_methods": [{"mode": "cloud_key"}], "ends_at": in_hours(24),
    });
    let grant = cloud.ok("/access_grants/create", &grant)["access_grant"].clone();
    json!({"access_method_id": grant["access_method_ids"][0], "device_id": front})
}

fn call(cloud: &Cloud, unlock: &Value) -> Value {
    cloud.ok("/access_methods/unlock_door", unlock)["action_attempt"].clone()
}

fn opened() -> Outcome {
    Outcome::Succeeded(Success::default())
}

#[test]
fn a_question_about_a_door_that_is_being_opened_is_answered_when_it_is_open() {
    let cloud = cloud(false);
    let unlock = unlock(&cloud);
    let attempt = call(&cloud, &unlock);
    assert_eq!((&attempt["action_type"], &attempt["status"]), (&json!("UNLOCK_DOOR"), &json!("pending")));
    assert_eq!(call(&cloud, &unlock)["action_attempt_id"], attempt["action_attempt_id"]);
    let ended = thread::scope(|scope| {
        let waiting = scope.spawn(|| cloud.attempt(&attempt));
        cloud.report(&attempt, opened());
        waiting.join().unwrap()
    });
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(cloud.attempt(&attempt), ended, "a finished attempt stays readable");

    let attempt = call(&cloud, &unlock);
    let ended = thread::scope(|scope| {
        let waiting = scope.spawn(|| cloud.attempt(&attempt));
        cloud.report(&attempt, Outcome::unknown(Code::NoAnswer, "silence"));
        waiting.join().unwrap()
    });
    assert_eq!(ended["status"], "error", "{ended}");
    assert!(text(&ended["error"]["message"]).contains("may have been opened"), "{ended}");
}

#[test]
fn where_the_operator_says_so_the_call_that_opens_a_door_is_answered_with_the_end() {
    let cloud = cloud(true);
    let unlock = unlock(&cloud);
    let ended = thread::scope(|scope| {
        let waiting = scope.spawn(|| call(&cloud, &unlock));
        let of_device = json!({"device_id": unlock["device_id"]});
        let attempt = (0..100_000).find_map(|_| {
            let listed = cloud.ok("/action_attempts/list", &of_device);
            listed["action_attempts"].as_array().unwrap().first().cloned()
        });
        let attempt = attempt.expect("the call orders the door to be opened");
        assert_eq!(attempt["status"], "pending");
        cloud.report(&attempt, opened());
        waiting.join().unwrap()
    });
    assert_eq!((&ended["action_type"], &ended["status"]), (&json!("UNLOCK_DOOR"), &json!("success")));
}

/// No system of ours takes a code at a door that is no device.
#[test]
fn a_code_for_a_door_that_takes_none_is_refused_by_name() {
    let cloud = cloud(false);
    let grant = json!({
        "user_identity": {"full_name": "Jane Doe"}, "acs_entrance_ids": [cloud.entrance("lobby")],
        "requested_access_methods": [{"mode": "code"}], "ends_at": in_hours(24),
    });
    let grant = cloud.ok("/access_grants/create", &grant)["access_grant"].clone();
    assert_eq!(grant["access_method_ids"], json!([]));
    let error = &grant["errors"][0];
    let name = "cannot_create_requested_access_methods";
    assert_eq!(
        (&error["error_code"], &error["message"]),
        (&json!(name), &json!("No targeted door supports: code"))
    );
    let one = json!({"access_grant_id": grant["access_grant_id"], "mode": "code"});
    let (status, refused) = cloud.post("/access_methods/create", &one);
    assert_eq!((status, &refused["error"]["type"]), (400, &json!(name)), "{refused}");
    let events = json!({"access_grant_id": grant["access_grant_id"], "since": "2020-01-01T00:00:00Z"});
    let events = cloud.ok("/events/list", &events)["events"].clone();
    let told = |kind: &str| events.as_array().unwrap().iter().filter(|one| one["event_type"] == kind).count();
    assert_eq!(told("access_grant.could_not_create_requested_access_methods"), 1);
}
