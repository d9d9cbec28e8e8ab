//! A lock system that writes whole hours: what it rounded is told wherever the card is shown.

use jiff::{SignedDuration, Timestamp, ToSpan, Unit};
use serde_json::json;

use crate::site::Site;

#[test]
fn a_start_and_an_end_that_were_rounded_are_told_by_the_cloud_and_at_the_desk() {
    let mut site = Site::without_agent_at(&["--dates", "hours"]);
    site.configure("dialect = \"salto_hours\"");
    site.start_agent();
    site.healthy();
    let hour = |at: Timestamp| at.round(jiff::TimestampRound::new().smallest(Unit::Hour)).unwrap();
    // Oslo's clocks differ from UTC by whole hours: half past there is half past here.
    let opens_at = hour(Timestamp::now()) + SignedDuration::from_hours(24);
    let closes_at = opens_at + SignedDuration::from_hours(49);
    let grant = json!({
        "user_identity": { "full_name": "Jane Doe" },
        "acs_entrance_ids": site.entrances(&["101"]),
        "requested_access_methods": [{ "mode": "card" }],
        "reservation_key": "stay-1",
        "starts_at": opens_at + 30.minutes(),
        "ends_at": closes_at - 30.minutes(),
    });
    let grant = site.ok("/access_grants/create", grant, "access_grant");
    let attempt = site.encode(&grant["access_method_ids"][0], "1");
    site.waits_for_card("1");
    site.control("place jane on 1");
    let attempt = site.ended(&attempt);
    assert_eq!(attempt["status"], "success", "{attempt}");

    let card = site.control("cards")["cards"]["jane"].clone();
    let on_the_card = |at: Timestamp| at.in_tz("Europe/Oslo").unwrap().datetime().to_string();
    assert_eq!(
        (&card["start"], &card["expiry"]),
        (&json!(on_the_card(opens_at)), &json!(on_the_card(closes_at)))
    );
    let told = |name: &str| attempt["result"][name].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!((told("starts_at"), told("ends_at")), (opens_at, closes_at), "{attempt}");

    let jobs = site.told_json(&["jobs", "list"]);
    let job = jobs.as_array().unwrap().iter().find(|job| job["kind"] == "card.encode").unwrap();
    let shown = site.told(&["jobs", "show", job["job_id"].as_str().unwrap()]);
    let printed = format!("it opens from {opens_at} until {closes_at}");
    assert!(shown.contains(&printed), "{shown}");
}
