//! Reservations over the API: which grants go together, and what a stay shows of its cards.

use latchd::model::{CardFacts, Outcome, RoomState, Success, Written};
use serde_json::{Value, json};

use super::{Cloud, in_hours, text};

impl Cloud {
    /// Asks for a card of a stay, from and until so many hours from now.
    fn stay(&self, key: Option<&str>, doors: &[&str], from: i64, until: i64) -> (u16, Value) {
        let doors: Vec<_> = doors.iter().map(|door| self.entrance(door)).collect();
        let body = json!({
            "user_identity": {"full_name": "Jane Doe"},
            "acs_entrance_ids": doors,
            "requested_access_methods": [{"mode": "card"}],
            "reservation_key": key,
            "starts_at": in_hours(from),
            "ends_at": in_hours(until),
        });
        self.post("/access_grants/create", &body)
    }

    fn delete_grant(&self, grant: &Value) {
        self.ok("/access_grants/delete", &json!({"access_grant_id": grant["access_grant_id"]}));
    }

    fn shown(&self, grant: &Value) -> Value {
        let name = json!({"access_grant_id": grant["access_grant_id"]});
        self.ok("/access_grants/get", &name)["access_grant"].clone()
    }

    /// The messages of a thing's warnings with this code.
    fn warned(&self, thing: &Value, code: &str) -> Vec<String> {
        let warnings = thing["warnings"].as_array().unwrap().iter();
        warnings.filter(|warning| warning["warning_code"] == code).map(|it| text(&it["message"])).collect()
    }

    fn write(&self, grant: &Value, overrode: bool) {
        let card = CardFacts { overrode: Some(overrode), ..CardFacts::default() };
        let success = Success { written: Some(Written::Proven), card: Some(card), ..Success::default() };
        let attempt = self.encode(grant);
        self.report(&attempt, Outcome::Succeeded(success));
        assert_eq!(self.attempt(&attempt)["status"], "success");
    }
}

/// The stay, the doors, and from when until when, in hours.
type Asked<'a> = (Option<&'a str>, &'a [&'a str], i64, i64);
/// What it is, what lives already, what is asked for, and status, type and message of the answer.
type Case<'a> = (&'a str, &'a [Asked<'a>], Asked<'a>, (u16, &'a str, &'a str));

/// The rules and the worked cases of reservations, each beside what lives already.
#[test]
fn which_grants_make_a_stay_together() {
    let first: Asked<'_> = (Some("stay-1"), &["101", "lobby"], 10, 100);
    let joins: Asked<'_> = (Some("stay-1"), &["101"], 30, 100);
    let wide: Asked<'_> = (Some("stay-1"), &["101", "102"], 10, 100);
    let ok = (200, "", "");
    let not_supported = (400, "reservation_key_not_supported", "reservation_key not supported.");
    let required = (400, "reservation_key_required", "reservation_key required for guest cards.");
    let elsewhere = (
        409,
        "reservation_entrance_change_requires_cleanup",
        "Reservation entrance change requires cleanup.",
    );
    let conflict =
        (409, "reservation_joiner_entrance_set_conflict", "Reservation joiner entrance set conflict.");
    let apart = (409, "reservation_time_frames_must_overlap", "Reservation time frames must overlap.");
    let cases: &[Case<'_>] = &[
        ("the first grant of a stay", &[], first, ok),
        (
            "a key where nothing follows reservations",
            &[],
            (Some("stay-1"), &["lobby"], 10, 100),
            not_supported,
        ),
        ("a guest's card without a key", &[], (None, &["101"], 10, 100), required),
        ("a common door needs no key", &[], (None, &["lobby"], 10, 100), ok),
        ("the same room within its time", &[first], joins, ok),
        ("any common door beside it", &[joins], first, ok),
        ("one room more", &[first], wide, conflict),
        ("another room", &[first], (Some("stay-1"), &["103"], 10, 100), elsewhere),
        ("another room and a common door", &[first], (Some("stay-1"), &["103", "lobby"], 10, 100), elsewhere),
        ("the same room after it", &[first], (Some("stay-1"), &["101"], 120, 200), apart),
        ("the same room from its very end", &[first], (Some("stay-1"), &["101"], 100, 200), apart),
        ("the same room, overlapping it by an hour", &[first], (Some("stay-1"), &["101"], 99, 200), ok),
        ("overlapping one of two grants", &[first, joins], (Some("stay-1"), &["101"], 10, 25), apart),
        ("common doors only", &[first], (Some("stay-1"), &["lobby"], 10, 100), not_supported),
        ("the next stay in the room", &[first], (Some("stay-2"), &["101"], 100, 200), ok),
        ("the next stay before the last one left", &[first], (Some("stay-2"), &["101"], 50, 200), ok),
        ("two rooms in one stay", &[], wide, ok),
        ("one of two rooms", &[wide], joins, ok),
        ("both of two rooms", &[wide], (Some("stay-1"), &["102", "101"], 20, 90), ok),
        ("one of two rooms and a third", &[wide], (Some("stay-1"), &["102", "103"], 10, 100), conflict),
    ];
    let cloud = Cloud::with_property();
    for (case, live, (key, doors, from, until), (status, kind, message)) in cases {
        let live: Vec<_> = live
            .iter()
            .map(|(key, doors, from, until)| {
                let (status, made) = cloud.stay(*key, doors, *from, *until);
                assert_eq!(status, 200, "before {case}: {made}");
                made["access_grant"].clone()
            })
            .collect();
        let (answered, answer) = cloud.stay(*key, doors, *from, *until);
        assert_eq!(answered, *status, "{case}: {answer}");
        if *status == 200 {
            cloud.delete_grant(&answer["access_grant"]);
        } else {
            assert_eq!(answer["error"]["type"], *kind, "{case}");
            assert!(text(&answer["error"]["message"]).starts_with(message), "{case}: {answer}");
        }
        // Nothing of it is left for the next case: the stay's key is free for any room.
        live.iter().for_each(|grant| cloud.delete_grant(grant));
    }
}

#[test]
fn a_stay_keeps_its_rooms_until_its_last_grant_goes_and_then_may_move() {
    let cloud = Cloud::with_property();
    let grant = |doors: &[&str]| {
        let (status, made) = cloud.stay(Some("stay-1"), doors, 10, 100);
        assert_eq!(status, 200, "{made}");
        made["access_grant"].clone()
    };
    let (both, one) = (grant(&["101", "102"]), grant(&["101"]));
    cloud.delete_grant(&both);
    assert_eq!(
        cloud.stay(Some("stay-1"), &["102"], 10, 100).0,
        200,
        "the room is the stay's while one lives"
    );
    let (_, refused) = cloud.stay(Some("stay-1"), &["103"], 10, 100);
    assert_eq!(refused["error"]["type"], "reservation_entrance_change_requires_cleanup");
    let listed = cloud.ok("/access_grants/list", &json!({"reservation_key": "stay-1"}));
    listed["access_grants"].as_array().unwrap().iter().for_each(|grant| cloud.delete_grant(grant));
    assert_eq!(cloud.shown_status(&one), 404);
    assert_eq!(cloud.stay(Some("stay-1"), &["103"], 10, 100).0, 200, "a room move");
}

impl Cloud {
    fn shown_status(&self, grant: &Value) -> u16 {
        self.post("/access_grants/get", &json!({"access_grant_id": grant["access_grant_id"]})).0
    }
}

#[test]
fn one_room_in_two_systems_is_one_stay_with_a_card_for_each() {
    let cloud = Cloud::with_property();
    let mut inventory = super::inventory();
    let mut annex = inventory.systems[0].clone();
    annex.name = "annex".parse().unwrap();
    inventory.systems.push(annex);
    cloud.furnish_with(cloud.bridge, inventory);
    let listed = cloud.ok("/acs/entrances/list", &json!({"search": "101"}));
    let doors: Vec<_> =
        listed["acs_entrances"].as_array().unwrap().iter().map(|door| &door["acs_entrance_id"]).collect();
    let asked = |doors: &[&Value]| {
        cloud.post(
            "/access_grants/create",
            &json!({
                "user_identity": {"full_name": "Jane Doe"},
                "acs_entrance_ids": doors,
                "requested_access_methods": [{"mode": "card"}],
                "reservation_key": "stay-1",
                "ends_at": in_hours(24),
            }),
        )
    };
    let (status, both) = asked(&doors[..2]);
    assert_eq!((status, doors.len()), (200, 2), "{both}");
    let grant = &both["access_grant"];
    assert_eq!(grant["access_method_ids"].as_array().unwrap().len(), 2, "one card for each system");
    assert_eq!(asked(&doors[1..]).0, 200, "the other system's door is the stay's too");
    // What becomes of the stay's card in one system is nothing to its card in the other.
    cloud.write(grant, true);
    let issued = |n: usize| {
        let method = json!({"access_method_id": grant["access_method_ids"][n]});
        cloud.ok("/access_methods/get", &method)["access_method"]["is_issued"].clone()
    };
    assert_eq!((issued(0), issued(1)), (json!(true), json!(false)));
}

#[test]
fn what_a_deleted_card_still_opens_is_told_where_the_stay_is_looked_after() {
    let cloud = Cloud::with_property();
    let grant = |key: &str, doors: &[&str]| cloud.stay(Some(key), doors, 0, 100).1["access_grant"].clone();
    let (jane, john, next) =
        (grant("stay-1", &["101", "lobby"]), grant("stay-1", &["101"]), grant("stay-2", &["101"]));
    cloud.write(&jane, true);
    cloud.delete_grant(&jane);
    let end = text(&jane["ends_at"]);
    let told = cloud.warned(&cloud.shown(&john), "overprovisioned_access");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("101, lobby") && told[0].contains(&end), "{told:?}");
    assert!(cloud.warned(&cloud.shown(&next), "overprovisioned_access").is_empty());
    // The deleted card itself says it too, as long as it opens.
    let method = json!({"access_method_id": jane["access_method_ids"][0]});
    let method = cloud.ok("/access_methods/get", &method)["access_method"].clone();
    let told = cloud.warned(&method, "being_deleted");
    assert!(told[0].contains(&end) && told[0].contains("Take the card back"), "{told:?}");

    // A room move: the new room's grant shows what the old room's card opens.
    cloud.delete_grant(&john);
    let moved = grant("stay-1", &["103"]);
    let told = cloud.warned(&cloud.shown(&moved), "overprovisioned_access");
    assert!(told.len() == 1 && told[0].contains("101, lobby"), "{told:?}");
}

#[test]
fn a_shortened_grant_says_until_when_its_card_opens_and_an_extended_one_what_it_keeps() {
    let cloud = Cloud::with_property();
    let grant = cloud.stay(Some("stay-1"), &["101"], 0, 100).1["access_grant"].clone();
    cloud.write(&grant, true);
    let printed = text(&grant["ends_at"]);
    let change = |hours: i64| {
        let ends_at = in_hours(hours);
        cloud.ok(
            "/access_grants/update",
            &json!({"access_grant_id": grant["access_grant_id"], "ends_at": ends_at}),
        );
        cloud.shown(&grant)
    };
    let shorter = change(50);
    let told = cloud.warned(&shorter, "overprovisioned_access");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&printed) && told[0].contains(&text(&shorter["ends_at"])), "{told:?}");
    let longer = change(150);
    assert!(cloud.warned(&longer, "overprovisioned_access").is_empty());
    let told = cloud.warned(&longer, "updating_access_times");
    assert!(told[0].contains("keeps the end printed on it until it is encoded again"), "{told:?}");
    cloud.write(&grant, false);
    assert_eq!(cloud.shown(&grant)["warnings"], json!([]));
}

/// What ends a card for which nobody comes back, in words that a person at the desk can act on.
const CURES: [&str; 3] =
    ["Take the card back", "have the room checked out", "the next guest's be used at the door"];
/// What ends a card whose guest can be asked for it.
const OWN_CURES: [&str; 2] = ["Encode the same card again", "take it back"];

/// One message, which names the doors, until when they open, and every cure.
fn says_all(told: &[String], doors: &[&str], end: &str, cures: &[&str]) {
    assert_eq!(told.len(), 1, "{told:?}");
    for words in doors.iter().chain([&end]).chain(cures) {
        assert!(told[0].contains(words), "no {words:?} in {told:?}");
    }
}

#[test]
fn after_an_early_check_out_the_grant_its_card_and_its_stay_say_what_still_opens_and_what_ends_it() {
    let cloud = Cloud::with_property();
    let grant = |key: &str, doors: &[&str]| cloud.stay(Some(key), doors, 0, 100).1["access_grant"].clone();
    let (jane, john) = (grant("stay-1", &["101", "lobby"]), grant("stay-1", &["101"]));
    let end = text(&jane["ends_at"]);
    cloud.write(&jane, true);
    cloud.delete_grant(&jane);
    let of = |grant: &Value| cloud.warned(&cloud.shown(grant), "overprovisioned_access");
    says_all(&of(&jane), &["(101, lobby)"], &end, &CURES);
    says_all(&of(&john), &["opens 101, lobby"], &end, &CURES);
    let method = json!({"access_method_id": jane["access_method_ids"][0]});
    let method = cloud.ok("/access_methods/get", &method)["access_method"].clone();
    says_all(&cloud.warned(&method, "being_deleted"), &[], &end, &CURES);
    // The last guest leaves as well: both cards are told on their own grants.
    cloud.write(&john, false);
    cloud.delete_grant(&john);
    says_all(&of(&john)[..1], &["(101)"], &text(&john["ends_at"]), &CURES);
    says_all(&of(&jane)[..1], &["(101, lobby)"], &end, &CURES);
}

#[test]
fn after_a_room_move_the_new_rooms_grant_says_what_the_old_card_opens_and_what_ends_it() {
    let cloud = Cloud::with_property();
    let grant = |doors: &[&str]| cloud.stay(Some("stay-1"), doors, 0, 100).1["access_grant"].clone();
    let old = grant(&["101"]);
    cloud.write(&old, true);
    cloud.delete_grant(&old);
    let moved = grant(&["103"]);
    let told = || cloud.warned(&cloud.shown(&moved), "overprovisioned_access");
    says_all(&told(), &["opens 101"], &text(&old["ends_at"]), &CURES);
    // The new room's own card ends nothing in the old one.
    cloud.write(&moved, true);
    says_all(&told(), &["opens 101"], &text(&old["ends_at"]), &CURES);
}

#[test]
fn a_shortened_grant_says_how_its_longer_card_is_ended_and_nothing_once_that_is_written_again() {
    let cloud = Cloud::with_property();
    let grant = cloud.stay(Some("stay-1"), &["101"], 0, 100).1["access_grant"].clone();
    cloud.write(&grant, true);
    let shorter = json!({"access_grant_id": grant["access_grant_id"], "ends_at": in_hours(50)});
    cloud.ok("/access_grants/update", &shorter);
    let told = || cloud.warned(&cloud.shown(&grant), "overprovisioned_access");
    says_all(&told(), &[], &text(&grant["ends_at"]), &OWN_CURES);
    cloud.write(&grant, false);
    assert_eq!(told(), [""; 0]);
}

#[test]
fn a_lock_system_that_was_not_told_of_a_longer_stay_is_named() {
    let cloud = Cloud::with_property();
    let mut inventory = super::inventory();
    inventory.systems[0].capabilities.modify_stay = inventory.systems[0].capabilities.join;
    cloud.furnish_with(cloud.bridge, inventory);
    let grant = cloud.stay(Some("stay-1"), &["101"], 0, 100).1["access_grant"].clone();
    cloud.write(&grant, true);
    cloud.holds("stay-1", "101");
    cloud.ok(
        "/access_grants/update",
        &json!({"access_grant_id": grant["access_grant_id"], "ends_at": in_hours(150)}),
    );
    let code = latchd::model::Code::NoStayToJoin;
    cloud.report_stay_end(Outcome::failed(code, "the room is checked out"));
    let told = cloud.warned(&cloud.shown(&grant), "underprovisioned_access");
    assert!(told.len() == 1 && told[0].contains("101") && told[0].contains("no_stay_to_join"), "{told:?}");
}

impl Cloud {
    /// Something else that is reported says that a room follows a stay.
    fn holds(&self, stay: &str, room: &str) {
        let room = RoomState {
            system: "salto".parse().unwrap(),
            room: room.parse().unwrap(),
            reservation_key: Some(stay.parse().unwrap()),
            certain: true,
            since: jiff::Timestamp::now(),
            cards: 1,
            printed_ends: Vec::new(),
        };
        self.report_job(uuid::Uuid::from_u128(1).into(), Outcome::Cancelled, vec![room]);
    }

    fn report_stay_end(&self, outcome: Outcome) {
        let reader = self.reader();
        let job: String = reader.query_row("SELECT job_id FROM stay_end", [], |row| row.get(0)).unwrap();
        self.report_job(job.parse().unwrap(), outcome, Vec::new());
    }
}
