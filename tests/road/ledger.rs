//! The door ledger's refusals, each before any byte.

use serde_json::{Value, json};

use crate::site::{Site, until};

#[test]
fn a_join_into_another_stay_is_refused_before_any_byte() {
    let site = Site::start();
    site.card("jane", "stay-1", &["101"]);
    site.card("ada", "stay-2", &["101"]);
    let frames = site.writing_frames();
    let (_, method) = site.grant("John Doe", "stay-1", &["101"]);
    let ended = site.ended(&site.encode(&method, "1"));
    assert_eq!(ended["status"], "error", "{ended}");
    let message = ended["error"]["message"].as_str().unwrap();
    assert!(message.contains("room_held_by_other_reservation"), "{message}");
    assert_eq!(site.writing_frames(), frames);
}

#[test]
fn a_join_after_an_unknown_override_is_refused_before_any_byte() {
    let mut site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    site.agent().kill();
    site.restart_agent();
    assert_eq!(site.ended(&attempt)["error"]["type"], "encoding_interrupted");
    let (_, second) = site.grant("John Doe", "stay-1", &["101"]);
    let ended = site.ended(&site.encode(&second, "2"));
    let message = ended["error"]["message"].as_str().unwrap();
    assert!(message.contains("room_state_unknown"), "{ended}");
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn rooms_that_need_different_treatment_are_refused_before_any_byte() {
    let site = Site::start();
    let (_, both) = site.grant("Jane Doe", "stay-1", &["101", "102"]);
    site.card("john", "stay-1", &["101"]);
    let frames = site.writing_frames();
    let ended = site.ended(&site.encode(&both, "1"));
    let message = ended["error"]["message"].as_str().unwrap();
    assert!(message.contains("room_states_differ"), "{ended}");
    assert_eq!(site.writing_frames(), frames);
}

#[test]
fn a_card_to_a_room_without_a_reservation_key_is_refused_by_name() {
    let site = Site::start();
    let now = jiff::Timestamp::now();
    let body = json!({
        "user_identity": { "full_name": "Jane Doe" },
        "acs_entrance_ids": site.entrances(&["101"]),
        "requested_access_methods": [{ "mode": "card" }],
        "ends_at": now + jiff::SignedDuration::from_hours(24),
    });
    let (status, answer) = site.call("/access_grants/create", body);
    assert_eq!(status, 400, "{answer}");
    assert_eq!(answer["error"]["type"], "reservation_key_required", "{answer}");
    assert_eq!(site.writing_frames(), 0);
}

#[test]
fn a_second_card_of_the_stay_joins_and_the_first_one_stays_alive() {
    let site = Site::start();
    site.card("jane", "stay-1", &["101", "pool"]);
    site.card("john", "stay-1", &["101"]);
    assert_eq!((site.frames("CN"), site.frames("CC")), (1, 1));
    assert!(site.opens("john", "101"));
    assert!(site.opens("jane", "101"));
}

#[test]
fn the_next_stay_overrides_on_first_use() {
    let site = Site::start();
    site.card("jane", "stay-1", &["101"]);
    site.card("ada", "stay-2", &["101"]);
    assert!(site.opens("jane", "101"), "the lock has not seen the newer card yet");
    assert!(site.opens("ada", "101"));
    assert!(!site.opens("jane", "101"));
}

#[test]
fn what_the_site_forbids_is_refused_by_name_before_any_byte() {
    let mut site = Site::without_agent();
    site.configure(
        "[limits]\nrooms_never_issued = [\"house/104\"]\ncards_per_hour = 1\nlongest_validity = \"72h\"",
    );
    site.start_agent();
    site.healthy();
    let (_, vault) = site.grant("Jane Doe", "stay-1", &["104"]);
    let ended = site.ended(&site.encode(&vault, "1"));
    assert!(ended["error"]["message"].as_str().unwrap().contains("site_forbids_room"), "{ended}");
    site.card("jane", "stay-2", &["101"]);
    let (_, second) = site.grant("John Doe", "stay-2", &["101"]);
    let ended = site.ended(&site.encode(&second, "1"));
    assert!(ended["error"]["message"].as_str().unwrap().contains("site_card_limit"), "{ended}");
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn a_card_from_the_cloud_is_made_only_when_the_desk_has_confirmed_it_where_the_site_asks_for_that() {
    let mut site = Site::without_agent();
    site.configure("[limits]\nconfirm_remote_cards = true");
    site.start_agent();
    site.healthy();
    let awaited = |site: &Site, attempt: &Value| {
        until("the cloud's client sees what is waited for", || {
            let attempt =
                site.ok("/action_attempts/get", json!({ "action_attempt_id": attempt }), "action_attempt");
            assert_eq!(attempt["status"], "pending", "{attempt}");
            (attempt["stage"] == "waiting_for_confirmation").then_some(())
        });
        let jobs = site.told_json(&["jobs", "list", "--state", "waiting"]);
        assert_eq!(jobs[0]["code"], "site_not_confirmed", "{jobs}");
        jobs[0]["job_id"].as_str().unwrap().to_owned()
    };
    let is_shown = |site: &Site| {
        let status = site.status();
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().any(|condition| condition["code"] == "confirmation_awaited")
    };
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    awaited(&site, &attempt);
    assert!(is_shown(&site));

    // Neither a restart of the agent nor one of the cloud makes the card, or loses what is waited for.
    site.agent().kill();
    site.restart_agent();
    site.restart_cloud();
    site.healthy();
    let job = awaited(&site, &attempt);
    assert_eq!(site.writing_frames(), 0);
    site.told(&["jobs", "confirm", &job, "--by", "Kari"]);
    site.waits_for_card("1");
    until("nothing waits for a word any more", || (!is_shown(&site)).then_some(()));
    site.control("place jane on 1");
    assert_eq!(site.ended(&attempt)["status"], "success");
    site.control("remove 1");
    assert!(site.opens("jane", "101"));

    let (_, method) = site.grant("Ada Moe", "stay-2", &["102"]);
    let attempt = site.encode(&method, "1");
    let job = awaited(&site, &attempt);
    site.told(&["jobs", "decline", &job, "--by", "Kari"]);
    let ended = site.ended(&attempt);
    assert!(ended["error"]["message"].as_str().unwrap().contains("site_declined"), "{ended}");
    let refused = site.refused(&["jobs", "confirm", &job, "--by", "Kari"]);
    assert!(refused.contains("not_awaited"), "{refused}");
    assert_eq!(site.writing_frames(), 1);
}
