//! Devices on the whole road, by the API alone: from a grant to a PIN that opens, and until it opens no more.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    keypads::Keypads,
    site::{Site, until},
};

/// A site with two keypad locks that its cloud shows as online.
fn with_locks(limits: &str) -> (Site, Keypads) {
    let mut site = Site::without_agent();
    let keypads = Keypads::start(site.folder.path(), 2);
    site.configure(&format!("{}{limits}", keypads.section("2s")));
    site.start_agent();
    site.healthy();
    until("the devices are online", || {
        let (_, answer) = site.try_call("/devices/list", &json!({}))?;
        let devices = answer["devices"].as_array()?;
        let online = devices.iter().filter(|device| device["properties"]["online"] == true).count();
        (online == 2).then_some(())
    });
    (site, keypads)
}

fn device(site: &Site, name: &str) -> Value {
    let devices = site.ok("/devices/list", json!({}), "devices");
    let found = devices.as_array().unwrap().iter().find(|device| device["display_name"] == name);
    found.unwrap_or_else(|| panic!("no device {name} in {devices}")).clone()
}

fn grant(site: &Site, devices: &[&str], methods: Value) -> Value {
    let now = Timestamp::now();
    let ids: Vec<_> = devices.iter().map(|name| device(site, name)["device_id"].clone()).collect();
    let body = json!({
        "user_identity": { "full_name": "Jane Doe" },
        "device_ids": ids,
        "requested_access_methods": methods,
        "starts_at": now,
        "ends_at": now + SignedDuration::from_hours(48),
    });
    site.ok("/access_grants/create", body, "access_grant")
}

fn method(site: &Site, id: &Value) -> Value {
    site.ok("/access_methods/get", json!({ "access_method_id": id }), "access_method")
}

fn issued(site: &Site, id: &Value) -> Value {
    until("the code is issued", || Some(method(site, id)).filter(|method| method["is_issued"] == true))
}

fn kinds(site: &Site, grant: &Value) -> Vec<String> {
    let ask = json!({ "since": "2020-01-01T00:00:00Z", "access_grant_id": grant });
    let events = site.ok("/events/list", ask, "events");
    events.as_array().unwrap().iter().map(|event| event["event_type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_code_opens_a_device_from_its_issue_through_an_update_until_it_is_deleted() {
    let (mut site, keypads) = with_locks("");
    let lock = device(&site, "lock-1");
    assert_eq!(lock["can_program_online_access_codes"], true, "{lock}");
    assert_eq!(lock["properties"]["supported_code_lengths"], json!([4, 5, 6, 7, 8]), "{lock}");
    assert_eq!(lock["can_remotely_unlock"], false, "the site does not allow it: {lock}");
    assert_eq!(lock["errors"], json!([]));

    let granted = grant(&site, &["lock-1"], json!([{ "mode": "code" }]));
    assert_eq!(granted["display_name"], "My Access Grant", "{granted}");
    let asked = &granted["requested_access_methods"][0];
    assert_eq!((&asked["display_name"], &asked["mode"]), (&json!("PIN Code"), &json!("code")), "{granted}");
    let id = asked["created_access_method_ids"][0].clone();
    let code = issued(&site, &id);
    let pin = code["code"].as_str().unwrap().to_owned();
    assert_eq!((&code["pending_mutations"], &code["errors"]), (&json!([]), &json!([])), "{code}");
    assert_eq!(keypads.keys("lock-1"), [id.as_str().unwrap()]);
    assert!(keypads.opens("lock-1", &pin) && !keypads.opens("lock-2", &pin));

    // Both locks, and a day longer: the PIN stays, and is issued again when both have it.
    let (lock_1, lock_2) = (lock["device_id"].clone(), device(&site, "lock-2")["device_id"].clone());
    let ends_at = Timestamp::now() + SignedDuration::from_hours(72);
    let update = json!({
        "access_grant_id": granted["access_grant_id"], "ends_at": ends_at, "device_ids": [lock_1, lock_2],
    });
    assert_eq!(site.call("/access_grants/update", update).0, 200);
    until("the other lock has it", || keypads.opens("lock-2", &pin).then_some(()));
    let again = issued(&site, &id);
    assert_eq!(again["code"], pin.as_str(), "{again}");
    assert_eq!(again["issued_at"], code["issued_at"], "{again}");
    assert!(keypads.opens("lock-1", &pin));

    let wanted = json!({ "access_grant_id": granted["access_grant_id"] });
    assert_eq!(site.call("/access_grants/delete", wanted.clone()).0, 200);
    until("the grant is gone", || (site.call("/access_grants/get", wanted.clone()).0 == 404).then_some(()));
    assert_eq!(site.call("/access_methods/get", json!({ "access_method_id": id })).0, 404);
    for lock in ["lock-1", "lock-2"] {
        assert!(!keypads.opens(lock, &pin) && keypads.keys(lock).is_empty(), "{lock}");
    }
    assert_eq!(
        kinds(&site, &granted["access_grant_id"]),
        [
            "access_grant.created",
            "access_method.created",
            "access_method.issued",
            "access_grant.access_granted_to_all_doors",
            "access_grant.access_times_changed",
            "access_method.revoked",
            "access_method.reissued",
            "access_grant.access_granted_to_all_doors",
            "access_method.deleted",
            "access_grant.deleted",
        ]
    );
    for process in [site.agent().errors(), site.cloud().errors()] {
        assert!(!process.contains(&pin), "a PIN is told to nobody");
    }
}

#[test]
fn a_code_that_cannot_be_removed_stays_listed_and_one_that_a_lock_forgot_comes_back() {
    let (site, keypads) = with_locks("");
    let kept = grant(&site, &["lock-1"], json!([{ "mode": "code" }]));
    let gone = grant(&site, &["lock-2"], json!([{ "mode": "code" }]));
    let (kept_id, gone_id) = (kept["access_method_ids"][0].clone(), gone["access_method_ids"][0].clone());
    let pin = issued(&site, &kept_id)["code"].as_str().unwrap().to_owned();
    issued(&site, &gone_id);

    keypads.at("lock-2", "unplug");
    let wanted = json!({ "access_grant_id": gone["access_grant_id"] });
    assert_eq!(site.call("/access_grants/delete", wanted.clone()).0, 200);
    until("the lock is seen to be away", || {
        (device(&site, "lock-2")["properties"]["online"] == false).then_some(())
    });
    let listed = site.ok("/access_grants/get", wanted.clone(), "access_grant");
    let warnings: Vec<_> =
        listed["warnings"].as_array().unwrap().iter().map(|one| &one["warning_code"]).collect();
    assert_eq!(warnings, ["being_deleted", "overprovisioned_access"], "{listed}");
    let still = method(&site, &gone_id);
    assert_eq!(still["warnings"][0]["warning_code"], "being_deleted", "{still}");
    keypads.at("lock-2", "replug");
    until("the grant is gone", || (site.call("/access_grants/get", wanted.clone()).0 == 404).then_some(()));
    assert!(keypads.keys("lock-2").is_empty());

    // A lock that was away is read when it is back.
    keypads.at("lock-1", "unplug");
    keypads.at("lock-1", "clear");
    let nothing =
        json!({ "system": crate::keypads::SYSTEM, "order": { "kind": "device.read", "device": "lock-1" } });
    site.added(&nothing);
    until("the lock is seen to be away", || {
        (device(&site, "lock-1")["properties"]["online"] == false).then_some(())
    });
    keypads.at("lock-1", "replug");
    until("the code is back", || keypads.opens("lock-1", &pin).then_some(()));
    assert_eq!(issued(&site, &kept_id)["code"], pin.as_str());
    let told = kinds(&site, &kept["access_grant_id"]);
    assert!(
        told.ends_with(&["access_method.revoked".to_owned(), "access_method.reissued".to_owned()]),
        "{told:?}"
    );
}

#[test]
fn a_cloud_key_opens_the_door_once_and_only_where_the_site_allows_it() {
    let unlock = |site: &Site, keypads: &Keypads| {
        let granted = grant(site, &["lock-1"], json!([{ "mode": "cloud_key" }]));
        let door = device(site, "lock-1")["device_id"].clone();
        let body = json!({ "access_method_id": granted["access_method_ids"][0], "acs_entrance_id": door });
        let attempt = site.ok("/access_methods/unlock_door", body, "action_attempt");
        assert_eq!(attempt["action_type"], "UNLOCK_DOOR", "{attempt}");
        (site.ended(&attempt["action_attempt_id"]), keypads.done("lock-1", "unlocked").len())
    };
    let (site, keypads) = with_locks("");
    let (refused, opened) = unlock(&site, &keypads);
    assert_eq!(
        (&refused["status"], &refused["error"]["type"]),
        (&json!("error"), &json!("site_forbids_kind"))
    );
    assert_eq!(opened, 0);
    drop((site, keypads));
    let (site, keypads) = with_locks("[limits]\nremote_unlock = true\n");
    assert_eq!(device(&site, "lock-1")["can_remotely_unlock"], true);
    let (done, opened) = unlock(&site, &keypads);
    assert_eq!((&done["status"], opened), (&json!("success"), 1), "{done}");
}
