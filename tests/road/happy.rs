//! Grant, encode, poll, and the right doors open.

use serde_json::json;

use crate::site::Site;

#[test]
fn a_granted_card_is_written_once_and_opens_its_doors_only() {
    let site = Site::start();
    let (grant, method) = site.grant("Jane Doe", "stay-1", &["101", "pool"]);
    let before = site.ok("/access_methods/get", json!({ "access_method_id": method }), "access_method");
    assert_eq!(before["is_encoding_required"], true, "{before}");
    assert_eq!(before["is_ready_for_encoding"], true, "{before}");
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    site.control("place jane on 1");
    let ended = site.ended(&attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(ended["action_type"], "ENCODE_CREDENTIAL");
    assert_eq!(ended["result"]["external_type"], "salto_space_key", "{ended}");
    site.control("remove 1");
    let after = site.ok("/access_methods/get", json!({ "access_method_id": method }), "access_method");
    assert_eq!(after["is_issued"], true, "{after}");
    assert_eq!(after["is_encoding_required"], false, "{after}");
    for (door, opens) in [("101", true), ("pool", true), ("102", false), ("spa", false)] {
        assert_eq!(site.opens("jane", door), opens, "{door}");
    }
    assert_eq!(site.frames("CN"), 1);
    assert_eq!(site.writing_frames(), 1);
    let ask = json!({ "since": "2020-01-01T00:00:00Z", "access_grant_id": grant });
    let events = site.ok("/events/list", ask, "events");
    let kinds: Vec<_> = events.as_array().unwrap().iter().map(|event| event["event_type"].clone()).collect();
    for kind in ["access_grant.created", "access_grant.access_granted_to_all_doors"] {
        assert_eq!(kinds.iter().filter(|seen| **seen == kind).count(), 1, "{kind}: {kinds:?}");
    }
}

#[test]
fn a_second_click_on_encode_is_the_same_attempt_and_another_encoder_is_a_conflict() {
    let site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let first = site.encode(&method, "1");
    site.waits_for_card("1");
    assert_eq!(site.encode(&method, "1"), first);
    let body = json!({ "access_method_id": method, "acs_encoder_id": site.encoder("2") });
    let (status, answer) = site.call("/access_methods/encode", body);
    assert_eq!(status, 409, "{answer}");
    site.control("place jane on 1");
    assert_eq!(site.ended(&first)["status"], "success");
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn nobody_lays_a_card_down_and_a_refusal_of_the_server_are_ordinary_ends() {
    let site = Site::start();
    for (code, kind) in [("ED", "no_credential_on_encoder"), ("EF", "incompatible_card_format")] {
        let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
        site.control(&format!("fault error {code} 1"));
        let ended = site.ended(&site.encode(&method, "1"));
        assert_eq!(ended["status"], "error", "{ended}");
        assert_eq!(ended["error"]["type"], kind, "{ended}");
    }
    // A refused check-in changed nothing: the next one begins the stay.
    site.card("jane", "stay-1", &["101"]);
    assert!(site.opens("jane", "101"));
}
