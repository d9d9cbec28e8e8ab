//! Slots of devices: who decides them, when they are filled and emptied, and what survives a crash.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use std::collections::BTreeSet;

use latchd::{
    model::{JobId, JobState, Kind, Origin, Outcome, Priority, Resolution, Success, Verdict},
    protocol::Message,
    queue::{Accepted, Claimed, JobFilter, JobView, RetryRefused, SlotView, Wish},
};
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
fn a_code_waits_until_what_was_in_its_slot_is_removed_so_that_the_removal_cannot_take_it_away() {
    let mut site = Site::new();
    site.send(0, job(1, put("a", 1, 0, Some(5000))));
    finish(&mut site, 1, id(1), done());
    site.accept(2, job(2, put("a", 2, 3000, Some(4000))), true);
    let removal = claim(&mut site, 2999 - LEAD).unwrap().job;
    assert_eq!(removal.order, remove("a"));
    // The lock could not be reached: the removal pauses, and meanwhile the put's time has come.
    site.commit(|queue| queue.unsend(at(2999 - LEAD), removal.job_id, &line_down())).unwrap();
    assert_eq!(claim(&mut site, 3000 - LEAD), None);
    assert_eq!(claim(&mut site, 3000).unwrap().job.job_id, removal.job_id);
    finish(&mut site, 3000, removal.job_id, done());
    assert_eq!(claim(&mut site, 3002).unwrap().job.job_id, id(2));
    finish(&mut site, 3002, id(2), done());
    assert_eq!((slot(&site).may_open, removals(&site)), (true, vec![4000]));
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
    assert_eq!(claim(&mut site, 100).unwrap().job.job_id, removal);
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
