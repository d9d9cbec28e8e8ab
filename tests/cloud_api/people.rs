//! People and spaces that change and go, cards that are read, and what belongs to what.

use latchd::model::{CardSeen, Code, Outcome, Success, Written};
use serde_json::{Value, json};

use super::{Cloud, in_hours, text, written};

fn refused(cloud: &Cloud, path: &str, body: Value) -> (u16, String) {
    let (status, answer) = cloud.post(path, &body);
    assert_eq!(answer["ok"], false, "{path}: {answer}");
    (status, text(&answer["error"]["type"]))
}

fn person(cloud: &Cloud, body: Value) -> Value {
    cloud.ok("/user_identities/create", &body)["user_identity"].clone()
}

#[test]
fn a_person_changes_is_found_and_goes_when_no_access_is_left() {
    let cloud = Cloud::with_property();
    let jane = person(&cloud, json!({"full_name": "Jane Doe", "email_address": "jane@example.com"}));
    let john = person(&cloud, json!({"user_identity_key": "john", "customer_key": "ours"}));
    let id = jane["user_identity_id"].clone();
    let get = || cloud.ok("/user_identities/get", &json!({"user_identity_id": id}))["user_identity"].clone();
    assert_eq!(get(), jane);
    let by_key = cloud.ok("/user_identities/get", &json!({"user_identity_key": "john"}));
    assert_eq!(by_key["user_identity"], john);
    assert_eq!(refused(&cloud, "/user_identities/get", json!({})).0, 400);
    assert_eq!(
        refused(&cloud, "/user_identities/get", json!({"user_identity_id": id, "user_identity_key": "john"}))
            .0,
        400
    );

    cloud.ok(
        "/user_identities/update",
        &json!({"user_identity_id": id, "full_name": "Jane Roe", "phone_number": "+4712345678"}),
    );
    assert_eq!(get()["full_name"], "Jane Roe");
    assert_eq!(get()["email_address"], "jane@example.com");
    cloud.ok("/user_identities/update", &json!({"user_identity_id": id, "email_address": null}));
    assert_eq!(get()["email_address"], Value::Null);
    let taken = json!({"user_identity_id": id, "user_identity_key": "john"});
    assert_eq!(
        refused(&cloud, "/user_identities/update", taken),
        (409, "user_identity_already_exists".into())
    );
    let nameless = json!({"user_identity_id": john["user_identity_id"], "user_identity_key": null});
    assert_eq!(refused(&cloud, "/user_identities/update", nameless).0, 400);

    let listed = |filter: Value| {
        let found = cloud.ok("/user_identities/list", &filter)["user_identities"].clone();
        found.as_array().unwrap().iter().map(|one| one["user_identity_id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(listed(json!({})).len(), 2);
    assert_eq!(listed(json!({"search": "ROE"})), std::slice::from_ref(&id));
    assert_eq!(listed(json!({"search": "4712"})), std::slice::from_ref(&id));
    assert_eq!(listed(json!({"customer_key": "ours"})), [john["user_identity_id"].clone()]);
    assert_eq!(listed(json!({"user_identity_ids": []})), Vec::<Value>::new());
    assert_eq!(listed(json!({"created_before": "2020-01-01T00:00:00Z"})), Vec::<Value>::new());

    let grant = json!({
        "user_identity_id": id, "acs_entrance_ids": [cloud.entrance("101")], "name": "Jane's room",
        "requested_access_methods": [{"mode": "card"}], "reservation_key": "stay-1", "ends_at": in_hours(24),
    });
    let grant = cloud.ok("/access_grants/create", &grant)["access_grant"].clone();
    let doors = cloud.ok("/user_identities/list_accessible_entrances", &json!({"user_identity_id": id}));
    assert_eq!(doors["acs_entrances"][0]["display_name"], "101");
    let devices = cloud.ok("/user_identities/list_accessible_devices", &json!({"user_identity_id": id}));
    assert_eq!(devices, json!({"devices": [], "accessible_devices": [], "ok": true}));
    let gone = json!({"user_identity_id": id});
    assert_eq!(
        refused(&cloud, "/user_identities/delete", gone.clone()),
        (409, "user_identity_has_access_grants".into())
    );
    cloud.report(&cloud.encode(&grant), written(Written::Proven));
    cloud.ok("/access_grants/delete", &json!({"access_grant_id": grant["access_grant_id"]}));
    cloud.ok("/user_identities/delete", &gone);
    let not_found = (404, "user_identity_not_found".to_owned());
    assert_eq!(refused(&cloud, "/user_identities/get", gone.clone()), not_found);
    assert_eq!(refused(&cloud, "/user_identities/delete", gone), not_found);
    // The card still opens, so its grant is still shown; but nothing of the person.
    let kept = cloud.ok("/access_grants/get", &json!({"access_grant_id": grant["access_grant_id"]}));
    assert_eq!(kept["access_grant"]["name"], Value::Null);
    assert_eq!(kept["access_grant"]["user_identity_id"], id);
    // What was hers is free for somebody else.
    person(&cloud, json!({"phone_number": "+47 123 45 678"}));
}

#[test]
fn people_that_turn_out_to_be_one_are_one_from_then_on() {
    let cloud = Cloud::with_property();
    let kept = person(&cloud, json!({"user_identity_key": "kept", "full_name": "Jane Doe"}));
    let other = person(&cloud, json!({"user_identity_key": "other", "email_address": "jane@example.com"}));
    let grant = json!({
        "user_identity_id": other["user_identity_id"], "acs_entrance_ids": [cloud.entrance("101")],
        "requested_access_methods": [{"mode": "card"}], "reservation_key": "stay-1", "ends_at": in_hours(24),
    });
    let grant = cloud.ok("/access_grants/create", &grant)["access_grant"]["access_grant_id"].clone();
    let merge = json!({"user_identity_key": "kept", "merged_user_identity_keys": ["other"]});
    for _ in 0..2 {
        cloud.ok("/user_identities/merge", &merge);
        let found = cloud.ok("/user_identities/get", &json!({"user_identity_id": other["user_identity_id"]}));
        let found = &found["user_identity"];
        assert_eq!(found["user_identity_id"], kept["user_identity_id"]);
        assert_eq!(found["email_address"], "jane@example.com");
        assert_eq!(found["merged_user_identity_ids"], json!([other["user_identity_id"]]));
        assert_eq!(found["merged_user_identity_keys"], json!(["other"]));
    }
    let found = cloud.ok("/user_identities/get", &json!({"user_identity_key": "other"}));
    assert_eq!(found["user_identity"]["user_identity_id"], kept["user_identity_id"]);
    let moved = cloud.ok("/access_grants/get", &json!({"access_grant_id": grant}));
    assert_eq!(moved["access_grant"]["user_identity_id"], kept["user_identity_id"]);
    let taken = json!({"user_identity_key": "other"});
    assert_eq!(refused(&cloud, "/user_identities/create", taken).0, 409, "the key leads to somebody");
    assert_eq!(cloud.ok("/user_identities/list", &json!({}))["user_identities"].as_array().unwrap().len(), 1);
    // A grant for the id that was folded in is a grant of the person.
    let again = json!({
        "user_identity_id": other["user_identity_id"], "acs_entrance_ids": [cloud.entrance("102")],
        "requested_access_methods": [{"mode": "card"}], "reservation_key": "stay-2", "ends_at": in_hours(24),
    });
    let again = cloud.ok("/access_grants/create", &again);
    assert_eq!(again["access_grant"]["user_identity_id"], kept["user_identity_id"]);
    let both = json!({"user_identity_id": kept["user_identity_id"], "merged_user_identity_keys": ["other"]});
    assert_eq!(refused(&cloud, "/user_identities/merge", both).0, 400);
}

#[test]
fn a_space_changes_its_doors_its_place_and_goes_when_no_grant_needs_it() {
    let cloud = Cloud::with_property();
    let (room, lobby) = (cloud.entrance("101"), cloud.entrance("lobby"));
    let house = cloud.ok("/spaces/create", &json!({"name": "House", "space_key": "house"}))["space"].clone();
    let customer = json!({"address": "1 Road", "default_checkin_time": "15:00", "time_zone": "Europe/Oslo"});
    let unit =
        json!({"name": "Unit", "space_key": "unit", "acs_entrance_ids": [room], "customer_data": customer});
    let unit = cloud.ok("/spaces/create", &unit)["space"].clone();
    assert_eq!(unit["customer_data"], customer);
    let id = unit["space_id"].clone();
    let change = json!({"space_key": "unit", "name": "Unit 1", "parent_space_key": "house", "acs_entrance_ids": [lobby]});
    let changed = cloud.ok("/spaces/update", &change)["space"].clone();
    assert_eq!((&changed["name"], &changed["parent_space_id"]), (&json!("Unit 1"), &house["space_id"]));
    assert_eq!(changed["acs_entrance_count"], 1);
    assert_eq!(cloud.ok("/spaces/get", &json!({"space_id": id}))["space"], changed);
    let inside = json!({"space_key": "house", "parent_space_id": id});
    assert_eq!(refused(&cloud, "/spaces/update", inside).0, 400);
    let names = |filter: Value| {
        let found = cloud.ok("/spaces/list", &filter)["spaces"].clone();
        found.as_array().unwrap().iter().map(|one| text(&one["name"])).collect::<Vec<_>>()
    };
    assert_eq!(names(json!({})), ["House", "Unit 1"]);
    assert_eq!(names(json!({"parent_space_key": "house"})), ["Unit 1"]);
    assert_eq!(names(json!({"search": "hous"})), ["House"]);
    assert_eq!(names(json!({"space_key": "attic"})), Vec::<String>::new());

    cloud.ok("/spaces/add_acs_entrances", &json!({"space_id": id, "acs_entrance_ids": [room]}));
    cloud.ok("/spaces/remove_acs_entrances", &json!({"space_id": id, "acs_entrance_ids": [lobby]}));
    cloud.ok("/spaces/remove_acs_entrances", &json!({"space_id": id, "acs_entrance_ids": [lobby]}));
    let related = cloud
        .ok("/spaces/get_related", &json!({"space_ids": [id], "include": ["acs_entrances", "acs_systems"]}));
    assert_eq!(related["batch"]["acs_entrances"].as_array().unwrap().len(), 1);
    assert_eq!(related["batch"]["acs_entrances"][0]["acs_entrance_id"], json!(room));
    assert_eq!(related["batch"].as_object().unwrap().len(), 2);

    let grant = json!({
        "user_identity": {"full_name": "Jane"}, "space_ids": [id],
        "requested_access_methods": [{"mode": "card"}], "reservation_key": "stay-1", "ends_at": in_hours(24),
    });
    let grant = cloud.ok("/access_grants/create", &grant)["access_grant"].clone();
    assert_eq!(
        refused(&cloud, "/spaces/delete", json!({"space_id": id})),
        (409, "space_has_access_grants".into())
    );
    let of_grant =
        cloud.ok("/access_grants/get_related", &json!({"access_grant_ids": [grant["access_grant_id"]]}));
    let batch = &of_grant["batch"];
    for (kind, count) in
        [("spaces", 1), ("acs_entrances", 1), ("user_identities", 1), ("access_methods", 1), ("devices", 0)]
    {
        assert_eq!(batch[kind].as_array().unwrap().len(), count, "{kind}: {batch}");
    }
    let of_method = json!({"access_method_ids": grant["access_method_ids"], "exclude": ["spaces"]});
    let batch = &cloud.ok("/access_methods/get_related", &of_method)["batch"];
    assert_eq!(batch["access_grants"][0]["access_grant_id"], grant["access_grant_id"]);
    assert!(batch.get("spaces").is_none());
    cloud.ok("/access_grants/delete", &json!({"access_grant_id": grant["access_grant_id"]}));
    cloud.ok("/spaces/delete", &json!({"space_id": id}));
    assert_eq!(refused(&cloud, "/spaces/get", json!({"space_id": id})), (404, "space_not_found".into()));
    cloud.ok("/spaces/create", &json!({"name": "Unit", "space_key": "unit"}));

    let events = cloud.ok("/events/list", &json!({"space_id": id, "since": "2020-01-01T00:00:00Z"}));
    let kinds: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|event| text(&event["event_type"])).collect();
    let changed = "space.device_membership_changed";
    assert_eq!(kinds, ["space.created", changed, changed, changed, "space.deleted"]);
    assert_eq!(events["events"][0]["acs_entrance_ids"], json!([room]));
    let first = json!({"event_id": events["events"][0]["event_id"]});
    assert_eq!(cloud.ok("/events/get", &first)["event"], events["events"][0]);
    let other = json!({"event_id": events["events"][0]["event_id"], "event_type": "space.deleted"});
    assert_eq!(refused(&cloud, "/events/get", other), (404, "event_not_found".into()));
}

#[test]
fn what_the_site_has_is_got_by_its_id() {
    let cloud = Cloud::with_property();
    for (path, key) in [("systems", "acs_system"), ("entrances", "acs_entrance"), ("encoders", "acs_encoder")]
    {
        let listed = cloud.ok(&format!("/acs/{path}/list"), &json!({}))[format!("acs_{path}")][0].clone();
        let id = format!("{key}_id");
        let got = cloud.ok(&format!("/acs/{path}/get"), &json!({id.as_str(): listed[&id]}));
        assert_eq!(got[key], listed);
    }
    let assign = json!({"acs_encoder_id": cloud.encoder()});
    let (status, kind) = refused(&cloud, "/acs/encoders/scan_to_assign_credential", assign);
    assert_eq!((status, kind.as_str()), (400, "scan_to_assign_credential_not_supported"));
    let jane = person(&cloud, json!({"full_name": "Jane"}));
    let key = json!({"user_identity_id": jane["user_identity_id"]});
    let (status, kind) = refused(&cloud, "/user_identities/generate_instant_key", key);
    assert_eq!((status, kind.as_str()), (400, "instant_keys_not_supported"));
    assert_eq!(cloud.ok("/workspaces/get", &json!({}))["workspace"]["name"], "Home");
}

#[test]
fn an_instant_key_is_the_link_of_the_persons_mobile_key_and_never_a_dead_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = super::config(&folder, true);
    let template = latchd::model::KeyTemplate::new("https://keys.example/{access_method_id}").unwrap();
    config.api.instant_key_url = Some(template);
    let cloud = Cloud::start_with(folder, config);
    cloud.furnish();
    let jane = person(&cloud, json!({"full_name": "Jane"}));
    let wanted = json!({"user_identity_id": jane["user_identity_id"]});
    let generate = "/user_identities/generate_instant_key";
    assert_eq!(refused(&cloud, generate, wanted.clone()), (400, "no_mobile_key".into()));
    let grant = json!({
        "user_identity_id": jane["user_identity_id"], "acs_entrance_ids": [cloud.entrance("101")],
        "requested_access_methods": [{"mode": "mobile_key"}], "reservation_key": "stay-1",
        "ends_at": in_hours(24),
    });
    let grant = cloud.ok("/access_grants/create", &grant)["access_grant"].clone();
    let key = cloud.ok(generate, &wanted)["instant_key"].clone();
    assert_eq!(key["instant_key_url"], grant["instant_key_url"]);
    assert_eq!(
        (&key["user_identity_id"], &key["expires_at"]),
        (&jane["user_identity_id"], &grant["ends_at"])
    );
    cloud.ok("/access_grants/delete", &json!({"access_grant_id": grant["access_grant_id"]}));
    assert_eq!(refused(&cloud, generate, wanted), (400, "no_mobile_key".into()));
}

fn scan(cloud: &Cloud) -> Value {
    cloud.ok("/acs/encoders/scan_credential", &json!({"acs_encoder_id": cloud.encoder()}))["action_attempt"]
        .clone()
}

fn seen(rooms: &[&str], ends_at: &str) -> Outcome {
    let card = CardSeen::Guest {
        rooms: rooms.iter().map(|room| (*room).to_owned()).collect(),
        valid: true,
        original: true,
        common: Vec::new(),
        starts_at: None,
        ends_at: Some(ends_at.parse().unwrap()),
        made_here: None,
    };
    Outcome::Succeeded(Success { seen: Some(card), ..Success::default() })
}

#[test]
fn a_card_that_was_written_before_its_space_changed_asks_to_be_written_again() {
    let cloud = Cloud::with_property();
    let (room, lobby) = (cloud.entrance("101"), cloud.entrance("lobby"));
    let unit = json!({"name": "Unit", "space_key": "unit", "acs_entrance_ids": [room]});
    let space = cloud.ok("/spaces/create", &unit)["space"]["space_id"].clone();
    let grant = json!({
        "user_identity": {"full_name": "Jane"}, "space_ids": [space],
        "requested_access_methods": [{"mode": "card"}], "reservation_key": "stay-1", "ends_at": in_hours(24),
    });
    let grant = cloud.ok("/access_grants/create", &grant)["access_grant"].clone();
    let card = json!({"access_method_id": grant["access_method_ids"][0]});
    let asks = || {
        let card = cloud.ok("/access_methods/get", &card)["access_method"].clone();
        assert_eq!(
            (&card["pending_mutations"], &card["warnings"]),
            (&json!([]), &json!([])),
            "its times are as before"
        );
        assert_ne!(card["is_issued"], card["is_encoding_required"], "{card}");
        card["is_ready_for_encoding"] == true
    };
    let write = || {
        cloud.report(&cloud.encode(&grant), written(Written::Proven));
        assert!(!asks());
    };
    let member = json!({"space_id": space, "acs_entrance_ids": [lobby]});
    write();
    cloud.ok("/spaces/add_acs_entrances", &member);
    assert!(asks(), "it does not open the lobby");
    cloud.ok("/spaces/add_acs_entrances", &member);
    write();
    cloud.ok("/spaces/add_acs_entrances", &member);
    assert!(!asks(), "nothing has changed");
    cloud.ok("/spaces/remove_acs_entrances", &member);
    assert!(asks(), "it still opens the lobby");
    write();
    let both = json!({"space_key": "unit", "acs_entrance_ids": [room, lobby]});
    cloud.ok("/spaces/update", &both);
    assert!(asks());
    let events = json!({"access_grant_id": grant["access_grant_id"], "since": "2020-01-01T00:00:00Z"});
    let events = cloud.ok("/events/list", &events)["events"].clone();
    let kinds: Vec<_> = events.as_array().unwrap().iter().map(|event| text(&event["event_type"])).collect();
    assert!(
        kinds.ends_with(&["access_method.revoked".into(), "access_method.card_encoding_required".into()])
    );
}

#[test]
fn a_card_that_is_read_is_told_from_others_as_far_as_that_can_be_done() {
    let cloud = Cloud::with_property();
    let grant = cloud.grant("stay-1");
    let ends_at = text(&grant["ends_at"]);
    let read = |outcome: Outcome| {
        let attempt = scan(&cloud);
        assert_eq!(
            (&attempt["action_type"], &attempt["status"]),
            (&json!("SCAN_CREDENTIAL"), &json!("pending"))
        );
        assert_eq!(scan(&cloud)["action_attempt_id"], attempt["action_attempt_id"], "one reading at a time");
        cloud.report(&attempt, outcome);
        let ended = cloud.attempt(&attempt);
        let (_, listed) = cloud.get("/action_attempts/list?limit=500&_strict=true");
        assert!(listed["action_attempts"].as_array().unwrap().contains(&ended));
        ended
    };
    let warning = |ended: &Value| ended["result"]["warnings"][0]["warning_code"].clone();
    let stranger = read(seen(&["101"], &ends_at));
    assert_eq!(stranger["status"], "success", "{stranger}");
    assert_eq!(stranger["result"]["acs_credential_on_seam"], Value::Null);
    assert_eq!(warning(&stranger), "acs_credential_on_seam_not_found");
    assert_eq!(stranger["result"]["acs_credential_on_encoder"]["ends_at"], grant["ends_at"]);

    let first = cloud.encode(&grant);
    cloud.report(&first, written(Written::Proven));
    let card = cloud.attempt(&first)["result"]["acs_credential_id"].clone();
    let known = read(seen(&["101"], &ends_at));
    assert_eq!(known["result"]["acs_credential_on_seam"]["acs_credential_id"], card);
    assert_eq!(known["result"]["warnings"], json!([]));
    let never = read(seen(&["101"], "2026-11-20T12:00:00Z"));
    assert_eq!(never["result"]["acs_credential_on_seam"], Value::Null, "somebody else's stay in this room");
    assert_eq!(warning(&never), "acs_credential_on_seam_not_found");
    let longer = json!({"access_grant_id": grant["access_grant_id"], "ends_at": "2027-01-10T12:00:00Z"});
    cloud.ok("/access_grants/update", &longer);
    cloud.report(&cloud.encode(&grant), written(Written::Proven));
    let newer = read(seen(&["101"], "2027-01-10T12:00:00Z"));
    assert_eq!(newer["result"]["acs_credential_on_seam"]["acs_credential_id"], card);
    let older = read(seen(&["101"], &ends_at));
    assert_eq!(older["result"]["acs_credential_on_seam"]["acs_credential_id"], card);
    assert_eq!(warning(&older), "acs_credential_on_encoder_out_of_sync");
    let ends_at = "2027-01-10T12:00:00Z";
    assert_eq!(warning(&read(seen(&["102"], ends_at))), "acs_credential_on_seam_not_found");
    let staff = Success { seen: Some(CardSeen::Staff), ..Success::default() };
    assert_eq!(warning(&read(Outcome::Succeeded(staff))), "acs_credential_on_seam_not_found");

    let nothing = read(Outcome::failed(Code::NoCard, "no card was laid down"));
    assert_eq!(nothing["error"]["type"], "no_credential_on_encoder");
    let odd = read(Outcome::failed(Code::BadCard, "this card cannot be read"));
    assert_eq!(odd["error"]["type"], "uncategorized_error", "a reading knows fewer reasons than a writing");
}

#[test]
fn a_card_is_written_by_its_own_id_too_and_calls_are_held_where_the_operator_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = super::config(&folder, true);
    config.api.hold_orders = true;
    let cloud = Cloud::start_with(folder, config);
    cloud.furnish();
    let pending = || {
        let (_, listed) = cloud.get("/action_attempts/list");
        let listed = listed["action_attempts"].as_array().unwrap();
        listed.iter().find(|attempt| attempt["status"] == "pending").cloned()
    };
    let write = |path: &str, stay: &str| {
        let grant = cloud.grant(stay);
        let order =
            json!({"acs_encoder_id": cloud.encoder(), "access_method_id": grant["access_method_ids"][0]});
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| cloud.ok(path, &order));
            let attempt = loop {
                if let Some(attempt) = pending() {
                    break attempt;
                }
                std::thread::yield_now();
            };
            cloud.report(&attempt, written(Written::Proven));
            waiting.join().unwrap()["action_attempt"].clone()
        })
    };
    assert_eq!(write("/access_methods/encode", "stay-1")["status"], "success");
    let ended = write("/acs/encoders/encode_credential", "stay-2");
    assert_eq!(ended["status"], "success", "{ended}");
    // Written as it is, it is not written again; but it is found by the card's id.
    let again =
        json!({"acs_encoder_id": cloud.encoder(), "acs_credential_id": ended["result"]["acs_credential_id"]});
    let kind = refused(&cloud, "/acs/encoders/encode_credential", again);
    assert_eq!(kind, (400, "access_method_not_ready_for_encoding".into()));
}
