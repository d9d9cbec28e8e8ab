//! Stays from their first card to their last, judged by the doors: who gets in, and who no longer does.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::site::{Site, until};

impl Site {
    /// Encodes a method's card again, or for the first time, on the card of this name.
    fn written(&self, method: &Value, card: &str) {
        let attempt = self.encode(method, "1");
        self.waits_for_card("1");
        self.control(&format!("place {card} on 1"));
        let attempt = self.ended(&attempt);
        assert_eq!(attempt["status"], "success", "{attempt}");
        self.control("remove 1");
    }

    fn delete(&self, grant: &Value) {
        let (status, answer) = self.call("/access_grants/delete", json!({ "access_grant_id": grant }));
        assert_eq!(status, 200, "{answer}");
    }

    /// The messages of a grant's warnings with this code.
    fn warnings(&self, grant: &Value, code: &str) -> Vec<String> {
        let shown = self.ok("/access_grants/get", json!({ "access_grant_id": grant }), "access_grant");
        let warnings = shown["warnings"].as_array().unwrap().iter();
        let wanted = warnings.filter(|warning| warning["warning_code"] == code);
        wanted.map(|warning| warning["message"].as_str().unwrap().to_owned()).collect()
    }

    /// What the lock server believes of a room's stay.
    fn stay_in(&self, room: &str) -> Value {
        self.control("ledger")["rooms"][room]["stay"].clone()
    }

    fn is_ready(&self, method: &Value) -> bool {
        let shown = self.ok("/access_methods/get", json!({ "access_method_id": method }), "access_method");
        shown["is_ready_for_encoding"] == true
    }
}

#[test]
fn a_longer_stay_is_told_to_the_lock_server_and_its_cards_are_written_again() {
    let site = Site::start();
    let (grant, method) = site.card("jane", "stay-1", &["101", "pool"]);
    let (_, of_john) = site.card("john", "stay-1", &["101"]);
    let before = site.stay_in("101")["expiry"].clone();
    let ends_at = Timestamp::now() + SignedDuration::from_hours(96);
    let change = json!({ "access_grant_id": grant, "ends_at": ends_at });
    assert_eq!(site.call("/access_grants/update", change).0, 200);
    until("the lock server knows the new end", || (site.stay_in("101")["expiry"] != before).then_some(()));
    assert_eq!(site.frames("MC"), 1);
    let told = site.warnings(&grant, "updating_access_times");
    assert!(told[0].contains("keeps the end printed on it"), "{told:?}");
    assert!(site.opens("jane", "101"), "until the end that is printed on it");

    assert!(site.is_ready(&method) && !site.is_ready(&of_john));
    site.written(&method, "jane");
    assert_eq!((site.frames("CN"), site.frames("CC"), site.frames("MC")), (1, 2, 1));
    assert_eq!(site.warnings(&grant, "updating_access_times"), [""; 0]);
    site.control("clock advance 72h");
    assert!(site.opens("jane", "101") && site.opens("jane", "pool"));
    assert!(!site.opens("john", "101"), "his own stay was over");
}

#[test]
fn after_a_lost_card_the_next_one_throws_it_out_where_the_site_says_so() {
    let mut site = Site::without_agent();
    site.configure("after_deleted_card = \"override\"");
    site.start_agent();
    site.healthy();
    let (_, lost) = site.card("lost", "stay-1", &["101", "pool"]);
    let (johns, of_john) = site.card("john", "stay-1", &["101", "pool"]);
    site.card("ada", "stay-2", &["102"]);
    let (status, answer) = site.call("/access_methods/delete", json!({ "access_method_id": lost }));
    assert_eq!(status, 200, "{answer}");
    let told = site.warnings(&johns, "overprovisioned_access");
    assert!(told.len() == 1 && told[0].contains("101, pool"), "{told:?}");
    let (_, new) = site.grant("Jane Doe", "stay-1", &["101", "pool"]);
    site.written(&new, "new");
    assert_eq!((site.frames("CN"), site.frames("CC")), (3, 1));
    assert!(site.opens("lost", "101") && site.opens("john", "101"), "the lock has not seen the new card yet");
    assert!(site.opens("new", "101"));
    assert!(!site.opens("lost", "101") && !site.opens("john", "101"));
    assert!(site.opens("lost", "pool"), "common doors are no part of an override");
    let told = site.warnings(&johns, "overprovisioned_access");
    assert!(
        told.len() == 1 && told[0].contains("only until a card that was written since is used"),
        "{told:?}"
    );
    assert!(site.opens("ada", "102"));

    assert!(site.is_ready(&of_john) && !site.is_ready(&new));
    site.written(&of_john, "john");
    assert_eq!((site.frames("CN"), site.frames("CC")), (3, 2));
    assert!(site.opens("john", "101") && site.opens("new", "101") && !site.opens("lost", "101"));
}

#[test]
fn by_default_a_lost_card_goes_on_opening_and_the_stay_says_so() {
    let site = Site::start();
    let (janes, _) = site.card("lost", "stay-1", &["101"]);
    let (johns, _) = site.card("john", "stay-1", &["101"]);
    site.delete(&janes);
    site.card("new", "stay-1", &["101"]);
    assert_eq!((site.frames("CN"), site.frames("CC")), (1, 2));
    assert!(site.opens("new", "101") && site.opens("john", "101") && site.opens("lost", "101"));
    let told = site.warnings(&johns, "overprovisioned_access");
    assert!(told.len() == 1 && told[0].contains("still opens 101 until"), "{told:?}");
}

#[test]
fn a_stay_moves_by_a_first_card_in_its_new_room() {
    let mut site = Site::without_agent();
    site.configure("checkout = \"last_grant\"");
    site.start_agent();
    site.healthy();
    site.card("before", "stay-0", &["102"]);
    let (grant, _) = site.card("old", "stay-1", &["101"]);
    let elsewhere = json!({
        "user_identity": { "full_name": "Jane Doe" },
        "acs_entrance_ids": site.entrances(&["102"]),
        "requested_access_methods": [{ "mode": "card" }],
        "reservation_key": "stay-1",
        "ends_at": Timestamp::now() + SignedDuration::from_hours(48),
    });
    let (status, refused) = site.call("/access_grants/create", elsewhere);
    assert_eq!(
        (status, &refused["error"]["type"]),
        (409, &json!("reservation_entrance_change_requires_cleanup"))
    );
    site.delete(&grant);
    until("the old room is free", || (site.stay_in("101") == Value::Null).then_some(()));
    let (moved, _) = site.card("new", "stay-1", &["102"]);
    assert_eq!((site.frames("CN"), site.frames("CC"), site.frames("MC")), (3, 0, 0));
    assert!(site.opens("new", "102") && !site.opens("before", "102"), "the new room follows the stay");
    // The room is free in the lock server; its lock goes by the card until the next guest's is used.
    assert!(site.opens("old", "101"));
    assert_eq!(site.warnings(&moved, "overprovisioned_access"), [""; 0], "the room is free");
    site.card("next", "stay-2", &["101"]);
    assert!(site.opens("next", "101") && !site.opens("old", "101"));
}

#[test]
fn two_rooms_in_one_stay_open_with_one_card_and_a_joiner_may_have_one_of_them() {
    let site = Site::start();
    site.card("jane", "stay-1", &["101", "102", "pool"]);
    site.card("john", "stay-1", &["102"]);
    assert_eq!((site.frames("CN"), site.frames("CC")), (1, 1));
    assert!(site.opens("jane", "101") && site.opens("jane", "102") && site.opens("john", "102"));
    assert!(!site.opens("john", "101"));
}

#[test]
fn a_next_stay_that_is_encoded_before_the_last_one_left_kills_nobody_before_it_is_used() {
    let site = Site::start();
    let (_, of_jane) = site.card("jane", "stay-1", &["101"]);
    let (_, second) = site.grant("Jim Doe", "stay-1", &["101"]);
    site.card("next", "stay-2", &["101"]);
    assert!(site.opens("jane", "101"));
    // A further card of the old stay would join the new one: nothing is written.
    let frames = site.writing_frames();
    let ended = site.ended(&site.encode(&second, "1"));
    assert!(
        ended["error"]["message"].as_str().unwrap().contains("room_held_by_other_reservation"),
        "{ended}"
    );
    assert_eq!(site.writing_frames(), frames);
    assert!(site.opens("next", "101") && !site.opens("jane", "101"));
    assert!(!site.is_ready(&of_jane));
}

#[test]
fn a_guest_who_left_early_gets_in_until_the_next_one_is_at_the_door_and_the_grant_says_so() {
    let site = Site::start();
    let (janes, _) = site.card("jane", "stay-1", &["101", "pool"]);
    assert!(site.opens("jane", "101"));
    site.delete(&janes);
    let told = site.warnings(&janes, "overprovisioned_access");
    assert!(told.len() == 1 && told[0].contains("(101, pool)"), "{told:?}");
    assert!(told[0].contains("still opens until 20") && told[0].contains("Take the card back"), "{told:?}");
    assert!(site.opens("jane", "101"), "nobody can tell an offline lock");
    site.card("next", "stay-2", &["101", "pool"]);
    assert!(site.opens("jane", "101"), "the next guest is not there yet");
    assert!(site.opens("next", "101"));
    assert!(
        !site.opens("jane", "101") && site.opens("jane", "pool"),
        "common doors are no part of an override"
    );
}

#[test]
fn a_room_that_somebody_else_checked_out_is_told_and_its_stay_begins_again() {
    let site = Site::start();
    let (_, of_jane) = site.card("jane", "stay-1", &["101"]);
    let (_, of_john) = site.grant("John Doe", "stay-1", &["101"]);
    site.control("foreign-check-out 101");
    let ended = site.ended(&site.encode(&of_john, "1"));
    assert!(ended["error"]["message"].as_str().unwrap().contains("no_stay_to_join"), "{ended}");
    let is_told = || {
        let status = site.status();
        let conditions = status["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|condition| condition["code"] == "room_changed_elsewhere")
    };
    let told = until("the operator is told", is_told);
    assert!(told["message"].as_str().unwrap().contains("house/101"), "{told}");
    // Latchd alone makes cards here: nobody is thrown out but the stay's own cards, which are written again.
    site.written(&of_john, "john");
    assert_eq!((site.frames("CN"), site.frames("CC")), (2, 1));
    until("the room follows the stay again", || is_told().is_none().then_some(()));
    assert!(site.opens("john", "101") && !site.opens("jane", "101"));
    until("her card asks to be written again", || site.is_ready(&of_jane).then_some(()));
    site.written(&of_jane, "jane");
    assert!(site.opens("jane", "101") && site.opens("john", "101"));
}

#[test]
fn the_cards_of_a_family_are_written_one_after_another_each_with_its_own_progress() {
    let site = Site::start();
    let family: Vec<_> = (1..=3).map(|n| site.grant(&format!("Guest {n}"), "stay-1", &["101"]).1).collect();
    let attempts: Vec<_> = family.iter().map(|method| site.encode(method, "1")).collect();
    let stage = |attempt: &Value| {
        site.ok("/action_attempts/get", json!({ "action_attempt_id": attempt }), "action_attempt")["stage"]
            .clone()
    };
    for (n, attempt) in attempts.iter().enumerate() {
        site.waits_for_card("1");
        until("the desk sees which card is awaited", || {
            let stages: Vec<_> = attempts[n..].iter().map(&stage).collect();
            let rest_waits = stages[1..].iter().all(|stage| stage == "queued");
            (stages[0] == "waiting_for_card" && rest_waits).then_some(())
        });
        site.control(&format!("place card-{n} on 1"));
        assert_eq!(site.ended(attempt)["status"], "success");
        // The next card of the family is awaited while this one still lies there, and is not written onto it.
        let awaited = attempts.get(n + 1);
        awaited.inspect(|_| site.waits_for_card("1"));
        assert!(awaited.is_none_or(|next| stage(next) != Value::Null));
        site.control("remove 1");
    }
    assert_eq!((site.frames("CN"), site.frames("CC")), (1, 2));
    assert!((0..3).all(|n| site.opens(&format!("card-{n}"), "101")));
}
