//! Slots of devices: who decides them, when they are filled and emptied, and what survives a crash.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use std::collections::{BTreeMap, BTreeSet};

use latchd::{
    model::{
        Code, JobId, JobState, Kind, Order, Origin, Outcome, Priority, Private, Resolution, SlotContent,
        Success, Verdict,
    },
    protocol::Message,
    queue::{Accepted, Claimed, JobFilter, JobView, RetryRefused, SlotView, Wish},
    store::Store,
};
use proptest::prelude::*;
use queue_support::*;

/// The jobs of the agent's own, oldest first.
fn timers(site: &Site) -> Vec<JobView> {
    let mut jobs = site.queue.jobs(JobFilter::default()).unwrap();
    jobs.retain(|job| job.origin == Origin::Timer);
    jobs.reverse();
    jobs
}

/// When each unfinished removal of the agent's own is due, in seconds; 0 for one that is ready.
fn removals(site: &Site) -> Vec<i64> {
    let waiting = timers(site).into_iter().filter(|job| job.state == JobState::Waiting);
    waiting.map(|job| job.due_at.map_or(0, jiff::Timestamp::as_second)).collect()
}

fn slot(site: &Site) -> SlotView {
    let slots = site.queue.slots().unwrap();
    assert_eq!(slots.len(), 1);
    slots.into_iter().next().unwrap()
}

fn claim(site: &mut Site, now: i64) -> Option<Claimed> {
    site.commit(|queue| queue.come_due(at(now))).unwrap();
    site.commit(|queue| queue.claim(at(now), &lane("1"))).unwrap()
}

fn finish(site: &mut Site, now: i64, job_id: JobId, outcome: Outcome) {
    site.commit(|queue| queue.finish(at(now), job_id, outcome)).unwrap();
}

fn done() -> Outcome {
    Outcome::Succeeded(Success::default())
}

#[test]
fn a_code_is_put_shortly_before_its_window_and_removed_at_its_end_through_restarts() {
    let mut site = Site::new();
    assert_eq!(site.accept(0, job(1, put("a", 1, 1000, Some(2000))), true), Accepted::Waiting);
    assert_eq!(site.queue.next_due().unwrap(), Some(at(1000 - LEAD)));
    assert_eq!(claim(&mut site, 1000 - LEAD - 1), None);
    site = site.crash();
    assert_eq!(claim(&mut site, 1000 - LEAD).unwrap().job.job_id, id(1));
    assert_eq!(removals(&site), [0_i64; 0]);
    finish(&mut site, 901, id(1), done());
    assert_eq!(removals(&site), [2000]);
    assert!(slot(&site).may_open);
    site = site.crash();
    assert_eq!(claim(&mut site, 1999), None);
    let removal = claim(&mut site, 2000).unwrap().job;
    assert_eq!(removal.order, remove("a"));
    finish(&mut site, 2000, removal.job_id, done());
    assert_eq!((removals(&site), slot(&site).may_open), (vec![], false));
    let last = site.reports().into_iter().next_back().unwrap().1;
    let Message::Outcome(report) = last else { panic!("{last:?}") };
    let local = report.local.unwrap();
    assert_eq!(
        (local.origin, local.kind, local.device.as_deref()),
        (Origin::Timer, Kind::SlotRemove, Some("door"))
    );
}

#[test]
fn a_code_that_is_taken_back_early_leaves_no_timer_behind() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(900))));
    finish(&mut site, 1, id(1), done());
    site.send(2, job(2, remove("a")));
    finish(&mut site, 3, id(2), done());
    assert_eq!((slot(&site).may_open, removals(&site)), (false, vec![]));
    assert_eq!(claim(&mut site, 900), None);
}

#[test]
fn a_newer_order_takes_the_place_of_all_that_wait_and_each_ends_with_an_outcome() {
    let mut site = Site::new();
    for (number, order) in [(1, put("a", 1, 0, Some(900))), (2, remove("a")), (3, put("a", 2, 0, Some(900)))]
    {
        site.accept(0, job(number, order), false);
    }
    site.accept(0, job(4, put("b", 1, 0, Some(900))), false);
    let states: Vec<_> = (1..=4).map(|number| site.state(number)).collect();
    use JobState::{Superseded, Waiting};
    assert_eq!(states, [Superseded, Superseded, Waiting, Waiting]);
    let told: Vec<_> = site.reports().into_iter().map(|(_, message)| message).collect();
    assert_eq!(told.len(), 2);
    assert_eq!(slot_of(&site, "a").decided_by, id(3));
}

fn slot_of(site: &Site, key: &str) -> SlotView {
    site.queue.slots().unwrap().into_iter().find(|slot| slot.slot == key).unwrap()
}

/// A put of this PIN into this slot.
fn pin(slot: &str, generation: u64, pin: &str) -> Order {
    let Order::SlotPut(mut put) = put(slot, generation, 0, Some(800_000)) else { panic!("a put") };
    put.content = SlotContent::Pin(Private::new(pin));
    Order::SlotPut(put)
}

fn pins(claimed: &Claimed) -> Vec<&str> {
    let mut pins = Vec::new();
    for content in &claimed.slot.as_ref().unwrap().may_hold {
        match content {
            SlotContent::Pin(pin) => pins.push(pin.expose()),
            SlotContent::CardNumber(_) => panic!("a card"),
        }
    }
    pins
}

#[test]
fn a_driver_is_told_what_a_slot_may_hold_for_as_long_as_that_may_be_there() {
    let mut site = Site::new();
    let first = site.send(0, job(1, pin("a", 1, "1111")));
    assert_eq!(pins(&first), [""; 0]);
    // Told again after a crash: what was at work may be there.
    site = site.crash();
    let (_, again) = site.queue.past(at(1)).unwrap().in_doubt.pop().unwrap();
    assert_eq!(pins(&again), ["1111"]);
    finish(&mut site, 2, id(1), done());
    // Long after its job is forgotten.
    while site.commit(|queue| queue.purge(at(200_000))).unwrap() > 0 {}
    assert_eq!(site.queue.job(id(1)).unwrap(), None);
    site = site.crash();
    let late = |number, order| latchd::model::Job { expires_at: at(900_000), ..job(number, order) };
    let second = site.send(200_001, late(2, pin("a", 2, "2222")));
    assert_eq!(pins(&second), ["1111"]);
    finish(&mut site, 200_002, id(2), Outcome::unknown(Code::NoAnswer, "silent"));
    let third = site.send(200_003, late(3, pin("a", 3, "1111")));
    assert_eq!(pins(&third), ["1111", "2222"]);
    finish(&mut site, 200_004, id(3), Outcome::failed(Code::Rejected, "no"));
    site.send(200_005, late(4, remove("a")));
    finish(&mut site, 200_006, id(4), done());
    let fresh = site.send(200_007, late(5, pin("a", 4, "4444")));
    assert_eq!(pins(&fresh), [""; 0], "it was emptied");
}

#[test]
fn a_driver_is_told_that_what_a_slot_held_was_forgotten_until_it_was_emptied_or_filled() {
    let mut site = Site::new();
    let is_forgotten = |claimed: &Claimed| claimed.slot.as_ref().unwrap().is_forgotten;
    assert!(!is_forgotten(&site.send(0, job(1, pin("a", 1, "1111")))));
    finish(&mut site, 1, id(1), done());
    site.commit(|queue| queue.restored(at(2))).unwrap();
    let made_later = |number, order| latchd::model::Job { created_at: at(10), ..job(number, order) };
    // The memory that is left knows this slot, and not the other two.
    assert!(!is_forgotten(&site.send(11, made_later(2, remove("a")))));
    finish(&mut site, 12, id(2), done());
    for (number, order) in [(3, remove("b")), (4, pin("c", 1, "3333"))] {
        let first = site.send(13, made_later(number, order));
        assert!(is_forgotten(&first) && pins(&first).is_empty());
        finish(&mut site, 14, id(number), Outcome::failed(Code::Rejected, "no"));
    }
    for (number, order) in [(5, remove("b")), (6, pin("c", 2, "3333"))] {
        assert!(is_forgotten(&site.send(15, made_later(number, order))));
        finish(&mut site, 16, id(number), done());
    }
    for (number, order) in [(7, remove("b")), (8, remove("c"))] {
        assert!(!is_forgotten(&site.send(17, made_later(number, order))));
        finish(&mut site, 18, id(number), done());
    }
}

#[test]
fn slots_of_a_device_that_numbers_its_places_have_each_its_own() {
    let mut site = Site::new();
    let place = |claimed: &Claimed| claimed.slot.as_ref().unwrap().place.unwrap();
    let mut places = Vec::new();
    for (number, slot) in [(1, "a"), (2, "b"), (3, "c")] {
        places.push(place(&site.send(0, job(number, pin(slot, 1, "1111")))));
        finish(&mut site, 1, id(number), done());
    }
    assert_eq!(places, [0, 1, 2]);
    // A slot keeps its place while anything may be in it, and the place of an empty one is another's.
    assert_eq!(place(&site.send(2, job(4, pin("b", 2, "2222")))), 1);
    finish(&mut site, 3, id(4), Outcome::unknown(Code::NoAnswer, "silent"));
    assert_eq!(place(&site.send(4, job(5, remove("b")))), 1);
    finish(&mut site, 5, id(5), Outcome::unknown(Code::NoAnswer, "silent"));
    site.send(6, job(6, remove("a")));
    finish(&mut site, 7, id(6), done());
    site = site.crash();
    assert_eq!(place(&site.send(8, job(7, pin("d", 1, "4444")))), 0);
    finish(&mut site, 9, id(7), done());
    assert_eq!(place(&site.send(10, job(8, pin("a", 2, "5555")))), 3);
}

#[test]
fn an_older_generation_that_comes_late_changes_nothing() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 7, 0, Some(900))));
    finish(&mut site, 1, id(1), done());
    assert_eq!(
        site.accept(2, job(2, put("a", 6, 0, Some(5000))), true),
        Accepted::Ended(Outcome::Superseded)
    );
    assert_eq!(removals(&site), [900]);
    assert_eq!(slot(&site).decided_by, id(1));
}

#[test]
fn jobs_on_one_slot_never_overlap_and_others_of_the_lane_go_on() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(900))));
    site.accept(0, job(2, remove("a")), false);
    site.accept(0, job(3, remove("b")), false);
    assert_eq!(claim(&mut site, 1).unwrap().job.job_id, id(3));
    assert_eq!(claim(&mut site, 2), None);
    finish(&mut site, 3, id(1), done());
    assert_eq!(claim(&mut site, 4).unwrap().job.job_id, id(2));
}

#[test]
fn a_later_window_empties_the_slot_until_its_time_comes() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(5000))));
    finish(&mut site, 1, id(1), done());
    assert_eq!(site.accept(2, job(2, put("a", 2, 3000, Some(4000))), true), Accepted::Waiting);
    assert_eq!(removals(&site), [0], "what is in it goes now");
    let removal = claim(&mut site, 3).unwrap().job;
    finish(&mut site, 3, removal.job_id, done());
    assert_eq!((slot(&site).may_open, removals(&site)), (false, vec![]));
    assert_eq!(claim(&mut site, 3000).unwrap().job.job_id, id(2));
}

#[test]
fn a_later_window_ordered_while_the_earlier_code_is_being_put_empties_the_slot_as_well() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(5000))));
    site.accept(1, job(2, put("a", 2, 3000, Some(4000))), true);
    assert_eq!(claim(&mut site, 1), None, "the slot is at work");
    finish(&mut site, 2, id(1), done());
    assert_eq!(claim(&mut site, 4).unwrap().job.order, remove("a"));
}

#[test]
fn a_code_that_could_not_be_put_is_not_put_after_a_newer_order_for_its_slot() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(5000))));
    site.accept(1, job(2, remove("a")), true);
    site.commit(|queue| queue.unsend(at(2), id(1), &line_down())).unwrap();
    assert_eq!(site.state(1), JobState::Superseded);
    assert_eq!(site.reports().len(), 1, "it ends with an outcome");
    assert_eq!(claim(&mut site, 4).unwrap().job.job_id, id(2));
    finish(&mut site, 5, id(2), done());
    assert_eq!(claim(&mut site, 4000), None);
}

#[test]
fn a_code_that_may_have_been_put_is_removed_at_its_end_whatever_a_person_finds_out() {
    for (verdict, left) in
        [(None, vec![900]), (Some(Verdict::Done), vec![900]), (Some(Verdict::NotDone), vec![])]
    {
        let mut site = Site::new();
        site.send(0, job(1, put("a", 1, 0, Some(900))));
        finish(&mut site, 1, id(1), no_answer());
        assert_eq!(removals(&site), [900]);
        assert!(slot(&site).uncertain && slot(&site).may_open);
        if let Some(verdict) = verdict {
            let resolution = Resolution { verdict, by: "Ada".into() };
            site.commit(|queue| queue.resolve(at(2), id(1), resolution)).unwrap().unwrap();
            assert!(!slot(&site).uncertain);
        }
        assert_eq!(slot(&site).may_open, !left.is_empty());
        let removal = claim(&mut site, 900).map(|claimed| claimed.job.order);
        assert_eq!(removal, Some(remove("a")), "a removal too many is harmless, one too few is not");
    }
}

#[test]
fn a_replacement_that_fails_leaves_the_earlier_code_with_its_own_end() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(5000))));
    finish(&mut site, 1, id(1), done());
    site.send(2, job(2, put("a", 2, 0, Some(9000))));
    assert_eq!(removals(&site), [0_i64; 0], "the newer one takes care of the slot");
    finish(&mut site, 3, id(2), no_card());
    assert_eq!(removals(&site), [5000]);
}

#[test]
fn a_removal_that_fails_is_tried_again_until_the_slot_is_empty() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(900))));
    finish(&mut site, 1, id(1), done());
    let first = claim(&mut site, 900).unwrap().job.job_id;
    finish(&mut site, 901, first, no_card());
    assert_eq!(removals(&site), [901 + 300]);
    let second = claim(&mut site, 1201).unwrap().job.job_id;
    finish(&mut site, 1201, second, no_answer());
    assert_eq!(removals(&site), [1201 + 300]);
}

#[test]
fn a_code_whose_window_is_over_is_never_put() {
    let mut site = Site::new();
    site.accept(0, job(1, put("a", 1, 0, Some(50))), false);
    assert_eq!(claim(&mut site, 50), None);
    assert_eq!(site.state(1), JobState::Expired);
    let accepted = site.accept(60, job(2, put("a", 2, 0, Some(50))), true);
    assert!(matches!(accepted, Accepted::Ended(Outcome::Expired(_))), "{accepted:?}");
}

#[test]
fn a_clock_that_jumps_neither_loses_a_timer_nor_fires_it_twice() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(900))));
    finish(&mut site, 1, id(1), done());
    assert_eq!(claim(&mut site, -10_000), None);
    let removal = claim(&mut site, 1_000_000).unwrap().job.job_id;
    assert_eq!(claim(&mut site, 1_000_001), None);
    site.commit(|queue| queue.unsend(at(2), removal, &line_down())).unwrap();
    assert_eq!(
        (claim(&mut site, 100), removals(&site)),
        (None, vec![900]),
        "its time has not come after all"
    );
    assert_eq!(claim(&mut site, 900).unwrap().job.job_id, removal);
}

#[test]
fn a_clock_that_was_ahead_and_is_put_right_makes_nothing_early_that_was_not_sent() {
    let mut site = Site::new();
    site.send(0, job(1, put("full", 1, 0, Some(5000))));
    finish(&mut site, 1, id(1), done());
    site.accept(2, job(2, put("planned", 1, 4000, Some(9000))), true);
    // Both come due, and nothing is sent before the clock is put right.
    site.commit(|queue| queue.come_due(at(6000))).unwrap();
    assert_eq!((site.queue.next_due().unwrap(), removals(&site)), (None, vec![0]));
    site = site.crash();
    assert_eq!(claim(&mut site, 10), None);
    assert_eq!((site.queue.next_due().unwrap(), removals(&site)), (Some(at(4000 - LEAD)), vec![5000]));
    assert_eq!(claim(&mut site, 4000 - LEAD).unwrap().job.job_id, id(2));
    finish(&mut site, 4000, id(2), done());
    assert_eq!(claim(&mut site, 4999), None);
    assert_eq!(claim(&mut site, 5000).unwrap().job.order, remove("full"));
}

#[test]
fn a_removal_that_failed_while_the_clock_was_ahead_is_tried_again_by_the_right_one() {
    // The clock is put right before the end, and after it.
    for (now, then) in [(10, 5000), (6000, 6300)] {
        let mut site = Site::new();
        site.send(0, job(1, put("a", 1, 0, Some(5000))));
        finish(&mut site, 1, id(1), done());
        let early = claim(&mut site, 1_000_000).unwrap().job.job_id;
        finish(&mut site, 1_000_000, early, no_card());
        assert_eq!(removals(&site), [1_000_300]);
        site = site.crash();
        assert_eq!((claim(&mut site, now), removals(&site)), (None, vec![then]));
        site = site.crash();
        assert_eq!(claim(&mut site, then - 1), None);
        let again = claim(&mut site, then).unwrap().job;
        assert_eq!(again.order, remove("a"));
        finish(&mut site, then, again.job_id, no_card());
        assert_eq!(removals(&site), [then + 300]);
    }
}

#[test]
fn a_code_that_was_ordered_while_the_clock_was_ahead_waits_for_its_time() {
    let mut site = Site::new();
    site.accept(3000, job(1, put("a", 1, 3000, Some(9000))), false);
    assert_eq!(claim(&mut site, 10), None);
    assert_eq!(site.queue.next_due().unwrap(), Some(at(3000 - LEAD)));
    assert_eq!(claim(&mut site, 3000 - LEAD).unwrap().job.job_id, id(1));
}

#[test]
fn old_slots_are_forgotten_only_when_they_are_empty_and_nothing_is_to_come() {
    let mut site = Site::new();
    for (number, key) in [(1, "empty"), (2, "full"), (3, "planned")] {
        let starts_at = if key == "planned" { 60_000 } else { 0 };
        if let Accepted::Sent(_) = site.accept(0, job(number, put(key, 1, starts_at, Some(90_000))), true) {
            finish(&mut site, 1, id(number), done());
        }
    }
    site.send(2, job(4, remove("empty")));
    finish(&mut site, 2, id(4), done());
    while site.commit(|queue| queue.purge(at(50_000))).unwrap() > 0 {}
    let left: Vec<_> = site.queue.slots().unwrap().into_iter().map(|slot| slot.slot).collect();
    assert_eq!(left, ["full", "planned"]);
}

#[test]
fn codes_for_later_and_removals_to_come_take_no_room_from_what_waits() {
    let mut site = Site::with(|rules| rules.limits.waiting_jobs = 2);
    for number in 1..=3 {
        site.send(0, job(number, put(&format!("now {number}"), 1, 0, Some(9000))));
        finish(&mut site, 0, id(number), done());
    }
    let later = |number: u128| job(number, put(&format!("later {number}"), 1, 5000, Some(9000)));
    for number in 4..=19 {
        assert_eq!(site.accept(0, later(number), false), Accepted::Waiting, "{number}");
    }
    assert_eq!(site.queue.orders_limit(256).unwrap(), 2);
    site.accept(0, job(20, read()), false);
    assert_eq!(site.queue.orders_limit(256).unwrap(), 1);
    assert_eq!(site.queue.orders_limit(1).unwrap(), 1);
    site.accept(0, job(21, read()), false);
    assert_eq!(site.queue.orders_limit(256).unwrap(), 0);
    assert_eq!(site.refused(0, job(22, read())), Code::QueueFull);
    // Three removals and seventeen codes are as many as may be to come.
    assert_eq!(site.accept(0, later(23), false), Accepted::Waiting);
    assert_eq!(site.refused(0, later(24)), Code::QueueFull);
    // Now they have to be worked off like any job.
    site.commit(|queue| queue.come_due(at(5000))).unwrap();
    assert_eq!(site.queue.orders_limit(256).unwrap(), 0);
}

#[test]
fn a_job_is_done_again_by_a_new_one_that_says_whose_place_it_takes() {
    let mut site = Site::new();
    site.send(0, job(1, read()));
    let refused = site.queue.retry_of(at(1), id(1)).unwrap().unwrap_err();
    assert_eq!(refused, RetryRefused::Not(JobState::Sent));
    finish(&mut site, 1, id(1), no_card());
    let order = site.queue.retry_of(at(2), id(1)).unwrap().unwrap();
    let new = order.job.job_id;
    let admission = admission(&order.job.order);
    site.commit(|queue| queue.accept_local(at(2), order, Ok(admission), false)).unwrap();
    assert_eq!(site.queue.retry_of(at(3), id(1)).unwrap().unwrap().job.job_id, new, "while it is unfinished");
    assert_eq!(claim(&mut site, 4).unwrap().job.job_id, new);
    finish(&mut site, 5, new, done());
    let Message::Outcome(report) = site.reports().into_iter().next_back().unwrap().1 else { panic!() };
    let local = report.local.unwrap();
    assert_eq!((local.origin, local.retries), (Origin::Person, Some(id(1))));
    assert_eq!(site.queue.retry_of(at(6), new).unwrap(), Err(RetryRefused::Not(JobState::Succeeded)));
}

#[test]
fn a_pause_outlives_a_restart_and_names_who_said_so() {
    let mut site = Site::new();
    assert!(site.commit(|queue| queue.pause_lane(at(5), &lane("1"), "Ada")).unwrap());
    assert!(!site.commit(|queue| queue.pause_lane(at(9), &lane("1"), "Bob")).unwrap());
    site = site.crash();
    let pauses = site.queue.past(at(10)).unwrap().paused;
    assert_eq!((pauses.len(), pauses[0].since, pauses[0].by.as_str()), (1, at(5), "Ada"));
    assert!(site.commit(|queue| queue.resume_lane(at(11), &lane("1"), "Bob")).unwrap());
    assert!(!site.commit(|queue| queue.resume_lane(at(12), &lane("1"), "Bob")).unwrap());
    assert_eq!(site.queue.past(at(13)).unwrap().paused, []);
    assert_eq!(site.audited(), ["lane_resumed", "lane_paused"]);
}

#[test]
fn what_was_at_work_at_a_crash_is_named_with_its_lane_and_stays_as_it_was() {
    let mut site = Site::new();
    site.send(0, job(1, unlock("door")));
    site.accept(0, job(2, read()), false);
    site = site.crash();
    let past = site.queue.past(at(1)).unwrap();
    assert!(past.waiting);
    let [(name, claimed)] = past.in_doubt.as_slice() else { panic!("{past:?}") };
    assert_eq!((name, claimed.job.job_id, claimed.attempt), (&lane("1"), id(1), 1));
    assert_eq!(site.state(1), JobState::Sent);
}

#[test]
fn the_background_has_its_turn_when_the_lane_owes_it_one() {
    let mut site = Site::new();
    let mut background = job(1, read());
    background.priority = Priority::Background;
    site.accept(0, background, false);
    site.accept(0, job(2, read()), false);
    let wish = Wish { background: true, ..Wish::default() };
    let first = site.commit(|queue| queue.claim_as(at(1), &lane("1"), &wish)).unwrap().unwrap();
    assert_eq!(first.job.job_id, id(1));
    let next = site.commit(|queue| queue.claim_as(at(1), &lane("1"), &wish)).unwrap().unwrap();
    assert_eq!(next.job.job_id, id(2), "where nothing waits in the background the desk goes on");
}

#[test]
fn jobs_of_one_reservation_are_done_in_their_order_whatever_their_priority_or_lane() {
    let mut site = Site::new();
    let mut first = job(1, card_at("1", &["101"], "stay"));
    first.priority = Priority::Background;
    site.accept(0, first, false);
    site.accept(0, job(2, card_at("1", &["102"], "stay")), false);
    site.accept(0, job(3, card_at("2", &["103"], "stay")), false);
    let claimed = |site: &mut Site, now, encoder: &str, wish: &Wish| {
        let claimed = site.commit(|queue| queue.claim_as(at(now), &lane(encoder), wish)).unwrap();
        claimed.map(|claimed| claimed.job.job_id)
    };
    let plain = Wish::default();
    assert_eq!(claimed(&mut site, 1, "2", &plain), None, "the earlier ones wait in the other lane");
    assert_eq!(claimed(&mut site, 1, "1", &plain), Some(id(1)), "it goes before the desk's later one");
    assert_eq!(claimed(&mut site, 1, "1", &plain), None);
    finish(&mut site, 2, id(1), written());
    assert_eq!(claimed(&mut site, 10, "2", &plain), None);
    let stuck = Wish { stuck: BTreeSet::from([lane("1")]), ..Wish::default() };
    assert_eq!(claimed(&mut site, 20, "2", &stuck), Some(id(3)), "a lane that is stuck holds up nobody");
}

#[test]
fn a_removal_that_gives_way_to_a_later_code_is_not_done_after_it() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(5000))));
    finish(&mut site, 1, id(1), done());
    site.accept(2, job(2, put("a", 2, 3000, Some(4000))), true);
    assert_eq!(removals(&site), [0]);
    // The lane came to nothing until both were ready, and the code comes first.
    assert_eq!(claim(&mut site, 3000).unwrap().job.job_id, id(2));
    finish(&mut site, 3001, id(2), done());
    assert_eq!(removals(&site), [4000]);
    assert_eq!(claim(&mut site, 3002), None, "the code that was just put stays");
}

#[test]
fn a_code_that_was_not_sent_after_all_gives_way_to_the_newer_order() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(900))));
    site.accept(1, job(2, put("a", 2, 0, Some(900))), false);
    site.commit(|queue| queue.unsend(at(2), id(1), &line_down())).unwrap();
    assert_eq!(site.state(1), JobState::Superseded);
    assert_eq!(claim(&mut site, 2).unwrap().job.job_id, id(2));
    finish(&mut site, 3, id(2), done());
    assert_eq!((claim(&mut site, 100), removals(&site)), (None, vec![900]));
}

#[test]
fn a_code_does_not_outlive_its_end_because_another_is_to_come_later() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(1000))));
    finish(&mut site, 1, id(1), done());
    site.accept(2, job(2, put("a", 2, 30_000, Some(40_000))), true);
    let removal = claim(&mut site, 3).unwrap().job.job_id;
    finish(&mut site, 3, removal, no_card());
    assert_eq!(removals(&site), [303], "the later order has taken its place already");
    let removal = claim(&mut site, 303).unwrap().job.job_id;
    finish(&mut site, 303, removal, done());
    assert_eq!(removals(&site), [0_i64; 0]);
    assert_eq!(site.state(2), JobState::Waiting);
}

#[test]
fn a_removal_that_failed_is_not_tried_again_where_the_next_code_comes_first() {
    for (put_is_done, then) in [(true, vec![4000]), (false, vec![2900])] {
        let mut site = Site::new();
        site.send(0, job(1, put("a", 1, 0, Some(2500))));
        finish(&mut site, 1, id(1), done());
        site.accept(2, job(2, put("a", 2, 3000, Some(4000))), true);
        let removal = claim(&mut site, 2601).unwrap().job.job_id;
        finish(&mut site, 2601, removal, no_card());
        // It would be tried again at 2901, when the next code has taken the place of what is in the slot.
        assert_eq!((site.queue.next_due().unwrap(), removals(&site)), (Some(at(3000 - LEAD)), vec![]));
        assert_eq!(claim(&mut site, 3000 - LEAD).unwrap().job.job_id, id(2));
        let told = if put_is_done { done() } else { no_card() };
        finish(&mut site, 2900, id(2), told);
        let due: Vec<_> = removals(&site).into_iter().map(|due| due.max(2900)).collect();
        assert_eq!(due, then, "what is left in it goes at its end, or at once where that has passed");
    }
}

#[test]
fn a_doubt_that_is_settled_leaves_the_earlier_code_its_own_end() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(900))));
    finish(&mut site, 1, id(1), done());
    site.send(2, job(2, put("a", 2, 0, Some(9000))));
    finish(&mut site, 3, id(2), no_answer());
    let resolution = Resolution { verdict: Verdict::NotDone, by: "Ada".into() };
    site.commit(|queue| queue.resolve(at(4), id(2), resolution)).unwrap().unwrap();
    assert_eq!(claim(&mut site, 900).unwrap().job.order, remove("a"));
}

#[test]
fn where_one_of_two_codes_may_be_in_a_slot_it_is_emptied_at_the_end_that_was_ordered_last() {
    for (older, newer) in [(9000, 900), (900, 9000)] {
        let mut site = Site::new();
        site.send(0, job(1, put("a", 1, 0, Some(older))));
        finish(&mut site, 1, id(1), done());
        site.send(2, job(2, put("a", 2, 0, Some(newer))));
        finish(&mut site, 3, id(2), no_answer());
        assert_eq!((removals(&site), slot(&site).ends_at), (vec![newer], Some(at(newer))));
        let outlives = (older < newer).then(|| at(older));
        assert_eq!(slot(&site).may_outlive, outlives, "the list says so");
        let removal = claim(&mut site, newer).unwrap().job.job_id;
        finish(&mut site, newer, removal, no_answer());
        assert_eq!(removals(&site), [newer + 300], "until it is empty for certain");
    }
}

#[test]
fn a_doubt_that_is_settled_takes_no_earlier_code_away_at_the_end_of_one_that_was_never_put() {
    for (verdict, end) in [(Verdict::NotDone, 9000), (Verdict::Done, 900)] {
        let mut site = Site::new();
        site.send(0, job(1, put("a", 1, 0, Some(9000))));
        finish(&mut site, 1, id(1), done());
        site.send(2, job(2, put("a", 2, 0, Some(900))));
        finish(&mut site, 3, id(2), no_answer());
        let resolution = Resolution { verdict, by: "Ada".into() };
        site.commit(|queue| queue.resolve(at(4), id(2), resolution)).unwrap().unwrap();
        assert_eq!(removals(&site), [end], "{verdict:?}");
    }
}

#[test]
fn removals_of_its_own_are_purged_like_any_job() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(900))));
    finish(&mut site, 1, id(1), done());
    let removal = claim(&mut site, 900).unwrap().job.job_id;
    finish(&mut site, 901, removal, done());
    while site.commit(|queue| queue.purge(at(200_000))).unwrap() > 0 {}
    assert_eq!(site.queue.jobs(JobFilter::default()).unwrap(), []);
}

#[test]
fn a_full_disk_keeps_no_code_from_being_recorded_and_no_removal_from_being_planned() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(900))));
    site.queue.disk_is_full(true);
    finish(&mut site, 1, id(1), done());
    assert_eq!((site.state(1), removals(&site)), (JobState::Succeeded, vec![900]));
}

#[test]
fn a_site_that_takes_no_removals_from_anybody_still_removes_what_it_put() {
    let mut site = Site::with(|rules| rules.limits.forbidden_kinds = vec![Kind::SlotRemove]);
    assert!(matches!(site.accept(0, job(9, remove("a")), true), Accepted::Ended(Outcome::Failed(_))));
    site.send(0, job(1, put("a", 1, 0, Some(900))));
    finish(&mut site, 1, id(1), done());
    assert_eq!(claim(&mut site, 900).unwrap().job.order, remove("a"));
}

#[test]
fn a_job_whose_successor_may_have_been_done_is_not_done_again() {
    let mut site = Site::new();
    site.send(0, job(1, unlock("door")));
    finish(&mut site, 1, id(1), no_card());
    let mut last = id(1);
    for outcome in [no_card(), no_answer()] {
        let order = site.queue.retry_of(at(2), last).unwrap().unwrap();
        let (admission, new) = (admission(&order.job.order), order.job.job_id);
        site.commit(|queue| queue.accept_local(at(2), order, Ok(admission), true)).unwrap();
        finish(&mut site, 3, new, outcome);
        last = new;
    }
    let refused = site.queue.retry_of(at(4), id(1)).unwrap().unwrap_err();
    assert_eq!(refused, RetryRefused::Replaced { by: last, state: JobState::Unknown });
    let resolution = Resolution { verdict: Verdict::NotDone, by: "Ada".into() };
    site.commit(|queue| queue.resolve(at(5), last, resolution)).unwrap().unwrap();
    let Message::Resolution(report) = site.reports().into_iter().next_back().unwrap().1 else { panic!() };
    assert_eq!(report.local.unwrap().origin, Origin::Person, "the cloud never ordered it");
    assert!(site.queue.retry_of(at(6), id(1)).unwrap().is_ok());
}

#[test]
fn a_code_that_proves_to_be_early_leaves_its_slot_empty_until_its_time() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(5000))));
    finish(&mut site, 1, id(1), done());
    // By a clock that is ahead the second code takes the place of the first at once.
    site.accept(4500, job(2, put("a", 2, 4000, Some(9000))), false);
    assert_eq!(removals(&site), [0_i64; 0]);
    let removal = claim(&mut site, 10).unwrap().job;
    assert_eq!(removal.order, remove("a"));
    finish(&mut site, 11, removal.job_id, done());
    assert_eq!((claim(&mut site, 12), removals(&site)), (None, vec![]));
    assert_eq!(claim(&mut site, 4000 - LEAD).unwrap().job.job_id, id(2));
}

/// A lock as it really is, whatever the queue is told of it: per slot whose content it holds, and until when.
#[derive(Debug, Default)]
struct Lock(BTreeMap<String, (JobId, i64)>);

impl Lock {
    fn does(&mut self, job: &latchd::model::Job) {
        match &job.order {
            Order::SlotPut(put) => {
                let until = put.window.ends_at().unwrap().as_second();
                self.0.insert(put.slot.clone(), (job.job_id, until));
            }
            Order::SlotRemove { slot, .. } => {
                self.0.remove(slot);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        slot: u8,
        starts_in: i64,
        lasts: i64,
        may_send: bool,
    },
    Remove {
        slot: u8,
        may_send: bool,
    },
    /// The next job is worked on; whether the lock does it, and what is said of that, are two things.
    Work {
        done: bool,
        told: Told,
    },
    Cancel {
        back: u128,
    },
    Resolve {
        back: u128,
    },
    Wait {
        span: i64,
    },
    Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// What is so.
    Truth,
    /// Nobody knows.
    Nothing,
    /// That nothing was sent, where that is so.
    NothingSent,
    /// Not yet: the job stays at work.
    Later,
}

fn step() -> impl Strategy<Value = Step> {
    let told = prop_oneof![
        4 => Just(Told::Truth),
        2 => Just(Told::Nothing),
        1 => Just(Told::NothingSent),
        1 => Just(Told::Later)
    ];
    prop_oneof![
        4 => (0..2_u8, -100..3000_i64, 50..2000_i64, any::<bool>())
            .prop_map(|(slot, starts_in, lasts, may_send)| Step::Put { slot, starts_in, lasts, may_send }),
        1 => (0..2_u8, any::<bool>()).prop_map(|(slot, may_send)| Step::Remove { slot, may_send }),
        6 => (any::<bool>(), told).prop_map(|(done, told)| Step::Work { done, told }),
        1 => (0..4_u128).prop_map(|back| Step::Cancel { back }),
        1 => (0..4_u128).prop_map(|back| Step::Resolve { back }),
        3 => (1..1500_i64).prop_map(|span| Step::Wait { span }),
        1 => Just(Step::Crash),
    ]
}

/// A site with one lock, and the truth about every job.
struct Story {
    site: Site,
    lock: Lock,
    now: i64,
    orders: u128,
    /// The newest order of each slot.
    newest: BTreeMap<String, JobId>,
    done: BTreeMap<JobId, bool>,
    at_work: Option<JobId>,
}

impl Story {
    fn new() -> Self {
        Self {
            site: Site::new(),
            lock: Lock::default(),
            now: 0,
            orders: 0,
            newest: BTreeMap::new(),
            done: BTreeMap::new(),
            at_work: None,
        }
    }

    fn order(&mut self, slot: u8, order: Order, may_send: bool) {
        self.orders += 1;
        let (number, key) = (self.orders, format!("slot {slot}"));
        let may_send = may_send && self.at_work.is_none();
        if let Accepted::Sent(claimed) = self.site.accept(self.now, job(number, order), may_send) {
            self.works(&claimed, true, Told::Truth);
        }
        self.newest.insert(key, id(number));
    }

    /// What comes of a job that is marked.
    fn works(&mut self, claimed: &Claimed, done: bool, told: Told) {
        let (now, job_id) = (self.now, claimed.job.job_id);
        if done {
            self.lock.does(&claimed.job);
        }
        self.done.insert(job_id, done);
        match told {
            Told::Truth if done => finish(&mut self.site, now, job_id, self::done()),
            Told::Truth => finish(&mut self.site, now, job_id, no_card()),
            Told::NothingSent if !done => {
                self.site.commit(|queue| queue.unsend(at(now), job_id, &line_down())).unwrap();
            }
            Told::Nothing | Told::NothingSent => finish(&mut self.site, now, job_id, no_answer()),
            Told::Later => self.at_work = Some(job_id),
        }
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Put { slot, starts_in, lasts, may_send } => {
                let starts_at = now + starts_in;
                let generation = u64::try_from(self.orders).unwrap() + 1;
                let window = (starts_at, Some(starts_at + lasts));
                self.order(slot, put(&format!("slot {slot}"), generation, window.0, window.1), may_send);
            }
            Step::Remove { slot, may_send } => self.order(slot, remove(&format!("slot {slot}")), may_send),
            Step::Work { done, told } => {
                if let Some(job_id) = self.at_work.take() {
                    // The end of what had been left at work: as it was, or a doubt.
                    let outcome = match (told, self.done[&job_id]) {
                        (Told::Truth, true) => self::done(),
                        (Told::Truth, false) => no_card(),
                        _ => no_answer(),
                    };
                    finish(&mut self.site, now, job_id, outcome);
                } else if let Some(claimed) = claim(&mut self.site, now) {
                    self.works(&claimed, done, told);
                }
            }
            Step::Cancel { back } => {
                let job_id = id(self.orders.saturating_sub(back));
                self.site.commit(|queue| queue.cancel(at(now), None, job_id)).unwrap();
            }
            Step::Resolve { back } => {
                let job_id = id(self.orders.saturating_sub(back));
                let Some(done) = self.done.get(&job_id) else { return };
                let verdict = if *done { Verdict::Done } else { Verdict::NotDone };
                let resolution = Resolution { verdict, by: "Ada".into() };
                // Refused where there is no doubt.
                let _ = self.site.commit(|queue| queue.resolve(at(now), job_id, resolution)).unwrap();
            }
            Step::Wait { span } => self.now += span,
            Step::Crash => {
                let site = std::mem::replace(&mut self.site, Site::new());
                self.site = site.crash();
                self.at_work = None;
                self.site.commit(|queue| queue.recover(at(now))).unwrap();
            }
        }
    }

    /// From here on the lock does what it is asked, and says so.
    fn works_off(&mut self) {
        if let Some(job_id) = self.at_work.take() {
            finish(&mut self.site, self.now, job_id, no_answer());
        }
        loop {
            while let Some(claimed) = claim(&mut self.site, self.now) {
                self.works(&claimed, true, Told::Truth);
            }
            let Some(retry) = self.site.queue.next_retry(&lane("1")).unwrap() else { return };
            self.now = self.now.max(retry.as_second() + 1);
        }
    }

    /// Whether what is in a slot goes soon: a removal that failed is tried again within five minutes, unless a code that
    /// takes its place is due sooner.
    fn goes_soon(&self, slot: &str) -> bool {
        let filter = JobFilter { state: Some(JobState::Waiting), limit: 1000, ..JobFilter::default() };
        self.site.queue.jobs(filter).unwrap().into_iter().any(|waiting| {
            let job = self.site.queue.job(waiting.job_id).unwrap().unwrap().job.unwrap();
            let of = match &job.order {
                Order::SlotPut(put) => &put.slot,
                Order::SlotRemove { slot, .. } => slot,
                other => panic!("{other:?}"),
            };
            of == slot && waiting.due_at.is_none_or(|due| due <= at(self.now + 300))
        })
    }

    /// With nothing left to do at this moment, the lock is as it was ordered.
    fn judge(&self) {
        for (slot, (job_id, until)) in &self.lock.0 {
            // Where nobody knows which of two is in it, the newer one's end counts: nobody is shut out early.
            let is_right = *until > self.now || self.goes_soon(slot) || slot_of(&self.site, slot).uncertain;
            assert!(is_right, "{slot} still holds what {job_id} put there, {until} at {}", self.now);
        }
        for (slot, newest) in &self.newest {
            let view = self.site.queue.job(*newest).unwrap().unwrap();
            let held = self.lock.0.get(slot).map(|(job_id, _)| *job_id);
            let end = match view.job.unwrap().order {
                Order::SlotPut(put) => put.window.ends_at(),
                _ => None,
            };
            match view.view.state {
                JobState::Succeeded if end.is_some_and(|end| end > at(self.now)) => {
                    assert_eq!(held, Some(*newest), "{slot} before the end of what was put there");
                }
                JobState::Succeeded if end.is_some() => {
                    assert!(held.is_none() || held == Some(*newest), "{slot}");
                }
                JobState::Succeeded => assert_eq!(held, None, "{slot}"),
                // Its time has not come: what was there before has gone, or goes soon where removing it failed.
                JobState::Waiting => assert!(held.is_none() || self.goes_soon(slot), "{slot} holds {held:?}"),
                JobState::Failed
                | JobState::Unknown
                | JobState::Cancelled
                | JobState::Expired
                | JobState::Superseded => {}
                other => panic!("{newest} of {slot} is {other} with nothing left to do"),
            }
        }
    }
}

fn cases() -> u32 {
    let wanted = std::env::var("LATCHD_CASES").ok();
    wanted.map_or(150, |cases| cases.parse().expect("LATCHD_CASES is a number"))
}

proptest! {
    // A failure prints its steps, and leaves behind what is needed to try the same case again.
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::Direct("tests/queue_slots.proptest-regressions"),
        )),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_no_code_outlives_its_end_and_the_newest_order_decides(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let mut story = Story::new();
        for step in steps {
            story.step(step);
        }
        story.works_off();
        story.judge();
        // From timer to timer, to the last.
        while let Some(due) = story.site.queue.next_due().unwrap() {
            story.now = story.now.max(due.as_second());
            story.works_off();
            story.judge();
        }
        prop_assert!(story.lock.0.is_empty(), "{:?}", story.lock);
    }
}
