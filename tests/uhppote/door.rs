//! Whom the pretend board lets in.

use jiff::civil::{date, time};
use latchd::drivers::uhppote::{
    session::{Came, Task},
    values::{Card, Pin, TimeProfile},
};
use serde_json::json;

use super::pump::{card, house, profile, say, talk};

const GRANTED: (bool, u64) = (true, 1);

/// Puts a card without a PIN that opens door 1 by this byte.
async fn swiped(door: u8, profiles: Vec<TimeProfile>, cases: &[(&str, (bool, u64))]) {
    let house = house();
    assert_eq!(talk(&house, Task::PutProfiles(profiles)).came, Came::Done);
    let card = Card { doors: [door, 0, 0, 0], pin: Pin::NONE, ..card(7) };
    assert_eq!(talk(&house, Task::PutCard(card)).came, Came::Done);
    for (now, (granted, reason)) in cases {
        say(&house, &format!("clock set {now}")).await;
        let said = say(&house, "swipe 7 1").await;
        assert_eq!(said, json!({ "granted": granted, "reason": reason }), "{now}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_card_opens_its_doors_from_its_first_day_to_its_last() {
    let cases = [
        ("2026-11-20T23:59:59", (false, 6)),
        ("2026-11-21T00:00:00", GRANTED),
        ("2026-11-24T23:59:59", GRANTED),
        ("2026-11-25T00:00:00", (false, 6)),
    ];
    swiped(1, Vec::new(), &cases).await;
    swiped(0, Vec::new(), &[("2026-11-22T12:00:00", (false, 6))]).await;
    swiped(255, Vec::new(), &[("2026-11-22T12:00:00", (false, 6))]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stay_with_hours_is_three_linked_profiles() {
    let part = |id, from, to, hours: (i8, i8, i8, i8), linked| TimeProfile {
        from: date(2026, 11, from),
        to: date(2026, 11, to),
        segments: [
            (time(hours.0, hours.1, 0, 0), time(hours.2, hours.3, 0, 0)),
            profile(id).segments[1],
            profile(id).segments[2],
        ],
        linked,
        ..profile(id)
    };
    let chain = vec![
        part(40, 21, 21, (15, 0, 23, 59), 41),
        part(41, 22, 23, (0, 0, 23, 59), 42),
        part(42, 24, 24, (0, 0, 11, 0), 0),
    ];
    let cases = [
        ("2026-11-21T14:59:59", (false, 15)),
        ("2026-11-21T15:00:00", GRANTED),
        ("2026-11-22T03:00:00", GRANTED),
        ("2026-11-24T10:59:00", GRANTED),
        ("2026-11-24T11:00:59", GRANTED),
        ("2026-11-24T11:01:00", (false, 15)),
    ];
    swiped(40, chain, &cases).await;
}

#[tokio::test(start_paused = true)]
async fn a_profile_is_good_on_its_weekdays_and_in_each_of_its_segments() {
    let mut days = [false; 7];
    // The 23rd is a Monday.
    days[0] = true;
    let mut weekly = TimeProfile { days, ..profile(29) };
    weekly.segments[2] = (time(20, 0, 0, 0), time(20, 30, 0, 0));
    let cases = [
        ("2026-11-22T09:00:00", (false, 15)),
        ("2026-11-23T08:29:00", (false, 15)),
        ("2026-11-23T08:30:00", GRANTED),
        ("2026-11-23T11:46:00", (false, 15)),
        ("2026-11-23T20:15:00", GRANTED),
        ("2026-11-23T00:00:00", (false, 15)),
        ("2026-11-24T09:00:00", (false, 15)),
    ];
    swiped(29, vec![weekly], &cases).await;
}

#[tokio::test(start_paused = true)]
async fn profiles_that_lead_in_a_circle_let_nobody_wait() {
    let ring = vec![TimeProfile { linked: 30, ..profile(29) }, TimeProfile { linked: 29, ..profile(30) }];
    swiped(29, ring, &[("2026-11-23T09:00:00", GRANTED), ("2026-11-23T19:00:00", (false, 15))]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pin_counts_where_the_keypad_is_on_and_an_unknown_card_nowhere() {
    let house = house();
    talk(&house, Task::PutCard(card(7)));
    assert_eq!(say(&house, "swipe 7 1").await["granted"], true);
    let on = latchd::drivers::uhppote::request::Request::ActivateKeypads([true, false, false, false]);
    house.answers(&on.encode(super::pump::BOARD).unwrap());
    assert_eq!(say(&house, "swipe 7 1").await["reason"], 7);
    assert_eq!(say(&house, "swipe 7 1 1111").await["reason"], 7);
    assert_eq!(say(&house, "swipe 7 1 7531").await["granted"], true);
    assert_eq!(say(&house, "swipe 7 4").await["granted"], true);
    assert_eq!(say(&house, "swipe 999 1").await["reason"], 18);
    assert_eq!(say(&house, "at 303986753 swipe 7 1").await["reason"], 18);
}
