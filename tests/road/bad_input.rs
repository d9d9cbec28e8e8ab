//! Bad input is named, and nothing is lost for it.

use std::fs;

use serde_json::json;

use crate::site::{Site, latchd, until};

fn trouble(site: &mut Site, code: &str) {
    until(code, || (site.status()["link"]["trouble"]["code"] == code).then_some(()));
}

#[test]
fn an_unreadable_configuration_is_shown_with_its_line_and_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latchd.toml");
    fs::write(&path, "[site]\nname = \"House\"\ntime_zne = \"Europe/Oslo\"\n").unwrap();
    for arguments in [["run", "--config"], ["cloud", "--config"]] {
        let output = latchd().args(arguments).arg(&path).output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("latchd.toml:") || text.contains("line"), "{text}");
    }
    let output = latchd().args(["run", "--config"]).arg(&path).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("time_zne") && text.contains("time_zone"), "{text}");
}

#[test]
fn a_wrong_authority_and_refused_keys_are_named_and_mended_by_the_right_ones() {
    let mut site = Site::without_agent();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let wrong_ca = site.folder.path().join("wrong.pem");
    fs::write(&wrong_ca, other.cert.pem()).unwrap();
    site.configure(&format!("[cloud]\nca_file = \"{}\"\n", wrong_ca.display()));
    site.start_agent();
    trouble(&mut site, "link_tls_untrusted");

    // Keys that the cloud has turned away.
    let bridge = site.paired.bridge.clone();
    assert!(site.at_cloud(&["bridges", "revoke", &bridge]).status.success());
    site.configure("");
    site.restart_agent();
    trouble(&mut site, "link_not_paired");

    site.agent = None;
    site.pair_with(&["--replace", &bridge], &["--replace"]);
    site.start_agent();
    site.healthy();
}

#[test]
fn requests_that_cannot_be_are_refused_by_name() {
    let site = Site::start();
    let now = jiff::Timestamp::now();
    let hours = |hours| now + jiff::SignedDuration::from_hours(hours);
    let grant = |change: serde_json::Value| {
        let mut body = json!({
            "user_identity": { "full_name": "Jane Doe" },
            "acs_entrance_ids": site.entrances(&["101"]),
            "requested_access_methods": [{ "mode": "card" }],
            "reservation_key": "stay-1",
            "starts_at": now,
            "ends_at": hours(24),
        });
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        site.call("/access_grants/create", body)
    };
    let nobody = "00000000-0000-4000-8000-000000000000";
    let (status, answer) = grant(json!({ "acs_entrance_ids": [nobody] }));
    assert_eq!((status, &answer["error"]["type"]), (404, &json!("acs_entrance_not_found")), "{answer}");
    for (change, field) in [
        (json!({ "starts_at": hours(24), "ends_at": hours(12) }), "ends_at"),
        (json!({ "ends_at": null }), "ends_at"),
        (
            json!({ "acs_entrance_ids": site.entrances(&["101", "102", "103", "104", "105"]) }),
            "acs_entrance_ids",
        ),
        (json!({ "requested_access_methods": [{ "mode": "retina" }] }), "requested_access_methods"),
    ] {
        let (status, answer) = grant(change);
        assert_eq!((status, &answer["error"]["type"]), (400, &json!("invalid_input")), "{answer}");
        assert!(answer["error"]["validation_errors"][field].is_object(), "{field}: {answer}");
    }
    assert_eq!(grant(json!({})).0, 200, "the good one still works");
    assert_eq!(site.writing_frames(), 0);
}

#[test]
fn a_room_that_the_lock_server_does_not_know_is_its_own_named_error() {
    let site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    site.control("fault error TD 1");
    let ended = site.ended(&site.encode(&method, "1"));
    let message = ended["error"]["message"].as_str().unwrap();
    assert!(message.contains("room_unknown") && message.contains("TD"), "{ended}");
}

#[test]
fn a_space_that_outgrows_its_cards_is_told_by_the_grant_and_the_feed_and_no_card_is_ordered() {
    let site = Site::start();
    let four = site.entrances(&["101", "102", "103", "104"]);
    let space = site.ok("/spaces/create", json!({ "name": "Wing", "acs_entrance_ids": four }), "space");
    let now = jiff::Timestamp::now();
    let grant = json!({
        "user_identity": { "full_name": "Jane Doe" },
        "space_ids": [space["space_id"]],
        "requested_access_methods": [{ "mode": "card" }],
        "reservation_key": "stay-1",
        "ends_at": now + jiff::SignedDuration::from_hours(24),
    });
    let grant = site.ok("/access_grants/create", grant, "access_grant");
    assert_eq!(grant["errors"], json!([]), "{grant}");

    let fifth = json!({ "space_id": space["space_id"], "acs_entrance_ids": site.entrances(&["105"]) });
    assert_eq!(site.call("/spaces/add_acs_entrances", fifth.clone()), (200, json!({ "ok": true })));
    let ask = json!({ "access_grant_id": grant["access_grant_id"] });
    let seen = site.ok("/access_grants/get", ask, "access_grant");
    assert_eq!(seen["errors"][0]["error_code"], "cannot_create_requested_access_methods", "{seen}");
    let body =
        json!({ "access_method_id": grant["access_method_ids"][0], "acs_encoder_id": site.encoder("1") });
    let (status, answer) = site.call("/access_methods/encode", body);
    assert_eq!(status, 400, "{answer}");

    // Said once, also when the same door is added again.
    assert_eq!(site.call("/spaces/add_acs_entrances", fifth).0, 200);
    let ask = json!({ "since": "2020-01-01T00:00:00Z", "access_grant_id": grant["access_grant_id"] });
    let events = site.ok("/events/list", ask, "events");
    let told = "access_grant.could_not_create_requested_access_methods";
    assert_eq!(events.as_array().unwrap().iter().filter(|event| event["event_type"] == told).count(), 1);
    assert_eq!(site.writing_frames(), 0);
}
