//! Windows at the door itself, minute by minute, around the changes of clocks.

use std::time::Duration;

use jiff::SignedDuration;
use latchd::drivers::sim_lock::sim::Settings;

use crate::house::*;

/// Puts the window into a lock a quarter of an hour before it begins and tries the PIN every five minutes from then
/// until four hours after its end: how much too early and too late it opens.
async fn tried(starts_at: &str, ends_at: &str) -> (SignedDuration, SignedDuration) {
    let (starts_at, ends_at) = (at(starts_at), at(ends_at));
    let lead = SignedDuration::from_mins(15);
    let house = House::open_with(&(starts_at - lead).to_string(), Settings::default()).await;
    let mut order = stay();
    order.window = latchd::model::Window::new(starts_at, Some(ends_at)).unwrap();
    house.succeeded(&house.perform(&put(order)).await);
    let step = Duration::from_secs(300);
    let (mut early, mut late) = (SignedDuration::ZERO, SignedDuration::ZERO);
    let mut now = house.clock.now();
    while now < ends_at + SignedDuration::from_hours(4) {
        let opens = house.opens("4711").await;
        if starts_at <= now && now < ends_at {
            assert!(opens, "shut at {now}, inside {starts_at} to {ends_at}");
        } else if opens && now < starts_at {
            early = early.max(starts_at.duration_since(now));
        } else if opens {
            late = late.max(now.duration_since(ends_at) + SignedDuration::from_mins(5));
        }
        tokio::time::advance(step).await;
        now = house.clock.now();
    }
    (early, late)
}

async fn check(starts_at: &str, ends_at: &str, early: i64, late: i64) {
    let (was_early, was_late) = tried(starts_at, ends_at).await;
    let case = format!("{starts_at} to {ends_at}: early {was_early:#}, late {was_late:#}");
    assert!(was_early <= SignedDuration::from_mins(early), "{case}");
    assert_eq!(was_late, SignedDuration::from_mins(late), "{case}");
}

#[tokio::test(start_paused = true)]
async fn away_from_a_change_of_clocks_a_window_is_exact() {
    check("2026-11-21T14:00:00Z", "2026-11-21T20:00:00Z", 0, 0).await;
    // Over the change, with both ends away from the repeated and from the skipped hour.
    check("2026-10-24T20:00:00Z", "2026-10-25T06:00:00Z", 0, 0).await;
    check("2026-03-28T20:00:00Z", "2026-03-29T06:00:00Z", 0, 0).await;
}

#[tokio::test(start_paused = true)]
async fn around_the_skipped_hour_a_window_is_exact() {
    // Oslo, 29 March 2026: 02:00 becomes 03:00 at 01:00Z.
    for (starts_at, ends_at) in [
        ("2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"),
        ("2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"),
        ("2026-03-28T20:00:00Z", "2026-03-29T01:00:00Z"),
    ] {
        check(starts_at, ends_at, 0, 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn around_the_repeated_hour_access_is_never_cut_short() {
    // Oslo, 25 October 2026: 03:00 becomes 02:00 at 01:00Z. Early by no more than the lead; late until the hour is over.
    check("2026-10-25T00:30:00Z", "2026-10-25T06:00:00Z", 15, 0).await;
    check("2026-10-25T01:30:00Z", "2026-10-25T06:00:00Z", 15, 0).await;
    check("2026-10-24T20:00:00Z", "2026-10-25T00:30:00Z", 0, 90).await;
    check("2026-10-24T20:00:00Z", "2026-10-25T01:00:00Z", 0, 60).await;
    check("2026-10-24T20:00:00Z", "2026-10-25T01:30:00Z", 0, 30).await;
    check("2026-10-25T00:10:00Z", "2026-10-25T00:20:00Z", 15, 100).await;
    check("2026-10-25T01:10:00Z", "2026-10-25T01:20:00Z", 15, 40).await;
    // Its beginning and its end themselves.
    check("2026-10-24T20:00:00Z", "2026-10-25T00:00:00Z", 0, 0).await;
    check("2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z", 0, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_lock_in_another_zone_gets_no_window_and_says_what_to_do() {
    let house = House::open().await;
    house.tell("clock zone America/New_York").await;
    let performed = house.perform(&put(stay())).await;
    assert_eq!(word(&performed), "failed rejected");
    assert!(format!("{performed:?}").contains("`time_zone`"), "{performed:?}");
    assert!(house.table().await.is_empty());
    house.succeeded(&house.perform(&unlock()).await);
    house.tell("clock zone Europe/Oslo").await;
    house.succeeded(&house.perform(&put(stay())).await);
}
