//! The life of a job in the queue: arrival, order, ends, doubts, reports, limits, crashes.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use latchd::{
    model::{Code, JobState, Kind, LaneName, Outcome, Priority, Refusal, Resolution, Verdict},
    protocol::{Message, Position},
    queue::{Accepted, CancelAnswer, JobFilter, Queue, ResolveRefused},
    seams::Storage,
    store::{
        Store, StoreError, Writer,
        vfs::{CountingVfs, Fault},
    },
};
use queue_support::*;

fn order(epoch: u64, n: u64) -> Position {
    Position { epoch, n }
}

#[test]
fn an_idle_lane_sends_at_once_and_a_busy_one_queues() {
    let mut site = Site::new();
    let claimed = site.send(0, job(1, read()));
    assert_eq!((claimed.job.job_id, claimed.attempt), (id(1), 1));
    assert_eq!(site.accept(0, job(2, read()), false), Accepted::Waiting);
    assert_eq!(site.accept(0, job(3, read()), true), Accepted::Waiting, "others of the lane wait already");
    assert_eq!(site.claim(1).unwrap().job.job_id, id(2));
    assert_eq!(site.claim(1).unwrap().job.job_id, id(3));
    assert_eq!(site.claim(1), None);
}

#[test]
fn people_at_the_desk_come_first_then_whoever_came_first() {
    let mut site = Site::new();
    for (number, priority) in
        [(1, Priority::Background), (2, Priority::Desk), (3, Priority::Background), (4, Priority::Desk)]
    {
        let job = latchd::model::Job { priority, ..job(number, read()) };
        site.accept(0, job, false);
    }
    let order: Vec<_> = std::iter::from_fn(|| site.claim(1)).map(|claimed| claimed.job.job_id).collect();
    assert_eq!(order, [id(2), id(4), id(1), id(3)]);
}

#[test]
fn lanes_do_not_see_each_other() {
    let mut site = Site::new();
    site.accept(0, job(1, read()), false);
    let other = LaneName::new("salto/2").unwrap();
    assert_eq!(site.queue.claim(at(0), &other).unwrap(), None);
    assert!(matches!(site.accept(0, job(2, card_at("2", &["gym"], "a")), true), Accepted::Sent(_)));
}

#[test]
fn a_second_delivery_takes_its_position_and_does_nothing_else() {
    let mut site = Site::new();
    let deliver = |site: &mut Site, position| {
        let order = read();
        let admission = admission(&order);
        site.queue.accept(at(0), Some(position), job(1, order), Ok(admission), true)
    };
    assert!(matches!(deliver(&mut site, order(1, 1)), Ok(Accepted::Sent(_))));
    site.queue.finish(at(1), id(1), written()).unwrap();
    assert_eq!(deliver(&mut site, order(1, 1)).unwrap(), Accepted::Duplicate);
    assert_eq!(deliver(&mut site, order(2, 1)).unwrap(), Accepted::Duplicate);
    assert_eq!(site.queue.memory().unwrap().orders_received, order(2, 1));
    assert_eq!(site.reports().len(), 1);
    assert_eq!(site.state(1), JobState::Succeeded);
}

#[test]
fn nothing_is_stored_past_a_gap() {
    let mut site = Site::new();
    let error = site
        .queue
        .accept(at(0), Some(order(1, 2)), job(1, read()), Ok(admission(&read())), true)
        .unwrap_err();
    assert!(matches!(error, StoreError::Gap { expected: (1, 1), found: (1, 2) }), "{error}");
    assert_eq!(site.queue.memory().unwrap().orders_received, Position::default());
    assert_eq!(site.queue.job(id(1)).unwrap(), None);
}

#[test]
fn positions_of_any_size_are_kept() {
    let mut site = Site::new();
    let far = order(u64::MAX, 1);
    site.queue.accept(at(0), Some(far), job(1, read()), Ok(admission(&read())), true).unwrap();
    assert_eq!(site.queue.memory().unwrap().orders_received, far);
}

#[test]
fn a_message_that_cannot_be_read_takes_its_position_and_fails_its_job() {
    let mut site = Site::new();
    let refusal = || Refusal::new(Code::Unsupported, "a newer kind of job");
    site.queue.refuse_unreadable(at(0), order(1, 1), Some(id(1)), refusal()).unwrap();
    site.queue.refuse_unreadable(at(0), order(1, 2), None, refusal()).unwrap();
    site.queue.refuse_unreadable(at(0), order(1, 2), Some(id(2)), refusal()).unwrap();
    assert_eq!(site.queue.memory().unwrap().orders_received, order(1, 2));
    assert_eq!(site.state(1), JobState::Failed);
    assert_eq!(site.queue.job(id(2)).unwrap(), None);
    assert_eq!(site.reports().len(), 1);
    assert_eq!(site.queue.jobs(JobFilter::default()).unwrap()[0].code, Some(Code::Unsupported));
}

#[test]
fn what_a_driver_refuses_ends_failed_with_its_words() {
    let mut site = Site::new();
    let refusal = Refusal::new(Code::TooManyDoors, "at most four rooms");
    let accepted = site.queue.accept(at(0), None, job(1, read()), Err(refusal.clone()), true).unwrap();
    assert_eq!(accepted, Accepted::Ended(Outcome::Failed(refusal)));
}

#[test]
fn a_proven_non_write_is_tried_again_after_a_growing_pause() {
    let mut site = Site::new();
    site.send(0, job(1, read()));
    site.queue.unsend(at(0), id(1), &line_down()).unwrap();
    assert_eq!(site.claim(0), None);
    let first = site.queue.next_retry(&lane("1")).unwrap().unwrap();
    assert!(first >= at(1) && first <= at(2), "{first}");
    assert_eq!(
        site.accept(0, job(2, read()), true),
        Accepted::Sent(latchd::queue::Claimed {
            job: job(2, read()),
            treatment: latchd::model::Treatment::Plain,
            attempt: 1,
            to_see: None,
            slot: None
        })
    );
    site.queue.finish(at(1), id(2), written()).unwrap();
    let again = site.queue.claim(first, &lane("1")).unwrap().unwrap();
    assert_eq!((again.job.job_id, again.attempt), (id(1), 2));
    site.queue.unsend(first, id(1), &line_down()).unwrap();
    let second = site.queue.next_retry(&lane("1")).unwrap().unwrap();
    assert!(second.duration_since(first).as_secs() >= 2);
}

#[test]
fn what_waits_can_be_taken_back_and_what_is_sent_only_with_proof() {
    let mut site = Site::new();
    site.send(0, job(1, read()));
    site.accept(0, job(2, read()), false);
    let cancel = |site: &mut Site, number| site.queue.cancel(at(1), None, id(number)).unwrap();
    assert_eq!(cancel(&mut site, 2), CancelAnswer::Cancelled);
    assert_eq!(cancel(&mut site, 2), CancelAnswer::TooLate(JobState::Cancelled));
    assert_eq!(cancel(&mut site, 1), CancelAnswer::TooLate(JobState::Sent));
    site.queue.unsend(at(2), id(1), &line_down()).unwrap();
    assert_eq!(site.state(1), JobState::Cancelled);
    assert_eq!(site.reports().len(), 2);
}

#[test]
fn a_cancel_that_overtakes_its_job_is_remembered() {
    let mut site = Site::new();
    let answer = site.queue.cancel(at(0), Some(order(1, 1)), id(1)).unwrap();
    assert_eq!(answer, CancelAnswer::NotKnown);
    let mut site = site.crash();
    assert_eq!(site.accept(1, job(1, read()), true), Accepted::Ended(Outcome::Cancelled));
}

#[test]
fn a_cloud_that_takes_back_a_job_that_is_over_is_told_its_end_again() {
    let mut site = Site::new();
    site.done(0, job(1, read()));
    let told = |site: &Site| {
        let reports = site.reports().into_iter().map(|(position, message)| (position.n, message));
        reports.map(|(n, message)| (n, outcome_of(message))).collect::<Vec<_>>()
    };
    let cancel = |site: &mut Site, n| {
        let answer = site.commit(|queue| queue.cancel(at(1), Some(order(1, n)), id(1))).unwrap();
        assert_eq!(answer, CancelAnswer::TooLate(JobState::Succeeded));
    };
    cancel(&mut site, 1);
    assert_eq!(told(&site), [(1, JobState::Succeeded)], "it is about to be told anyway");
    site.queue.acknowledge_reports(Position { epoch: 1, n: 1 });
    cancel(&mut site, 1);
    assert_eq!(told(&site), [(1, JobState::Succeeded)], "the same cancel, delivered twice");
    cancel(&mut site, 2);
    assert_eq!(told(&site), [(2, JobState::Succeeded)]);
    site.queue.acknowledge_reports(Position { epoch: 1, n: 2 });
    site.commit(|queue| queue.cancel(at(2), None, id(1))).unwrap();
    assert_eq!(site.queue.memory().unwrap().reports.last.n, 2, "a person at the site is not the cloud");
}

#[test]
fn a_cloud_that_takes_back_a_job_that_never_came_is_told_that_it_is_not_done() {
    let mut site = Site::new();
    for n in 1..=2 {
        let answer = site.commit(|queue| queue.cancel(at(0), Some(order(1, n)), id(1))).unwrap();
        assert_eq!(answer, CancelAnswer::NotKnown);
        let (position, message) = site.reports().into_iter().next_back().unwrap();
        assert_eq!((position.n, outcome_of(message)), (n, JobState::Cancelled));
        site.queue.acknowledge_reports(Position { epoch: 1, n });
    }
    assert_eq!(site.queue.jobs(JobFilter::default()).unwrap(), [], "nobody here ever heard of it");
    assert_eq!(site.accept(1, job(1, read()), true), Accepted::Ended(Outcome::Cancelled));
}

fn outcome_of(message: Message) -> JobState {
    match message {
        Message::Outcome(report) => report.outcome.state(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_job_that_is_too_late_is_never_started() {
    let mut site = Site::new();
    assert!(matches!(site.accept(10, expiring(1, 10), true), Accepted::Ended(Outcome::Expired(_))));
    site.accept(0, expiring(2, 20), false);
    site.accept(0, expiring(3, 30), false);
    assert_eq!(site.queue.next_expiry().unwrap(), Some(at(20)));
    assert_eq!(site.queue.expire(at(20)).unwrap(), [id(2)]);
    assert_eq!(site.claim(30), None);
    assert_eq!(site.state(3), JobState::Expired);
    assert_eq!(site.queue.next_expiry().unwrap(), None);
}

#[test]
fn a_job_ends_once() {
    let mut site = Site::new();
    site.send(0, job(1, read()));
    site.queue.finish(at(1), id(1), written()).unwrap();
    assert!(site.queue.finish(at(2), id(1), no_answer()).is_err());
    assert!(site.queue.unsend(at(2), id(1), &line_down()).is_err());
    assert!(site.queue.finish(at(2), id(9), written()).is_err());
    assert_eq!(site.reports().len(), 1);
}

#[test]
fn success_or_doubt_without_a_mark_is_refused() {
    let mut site = Site::new();
    site.accept(0, job(1, read()), false);
    assert!(site.queue.finish(at(1), id(1), written()).is_err());
    assert!(site.queue.finish(at(1), id(1), no_answer()).is_err());
    assert_eq!(site.state(1), JobState::Waiting);
}

#[test]
fn after_a_crash_everything_committed_is_there_and_what_was_sent_is_unknown() {
    let mut site = Site::new();
    site.send(0, job(1, read()));
    site.accept(0, job(2, read()), false);
    site.done(0, job(3, card_at("2", &["101"], "a")));
    let mut site = site.crash();
    assert_eq!(site.queue.recover(at(9)).unwrap(), [id(1)]);
    assert_eq!(site.queue.recover(at(9)).unwrap(), []);
    assert_eq!(
        [1, 2, 3].map(|number| site.state(number)),
        [JobState::Unknown, JobState::Waiting, JobState::Succeeded]
    );
    assert_eq!(site.queue.counts().unwrap().by_code[&Code::AgentStopped], 1);
    assert_eq!(site.room("101").cards, 1);
    let reported: Vec<_> = site.reports().into_iter().map(|(position, _)| position).collect();
    assert_eq!(reported, [order(1, 1), order(1, 2)]);
    assert_eq!(site.claim(10).unwrap().job.job_id, id(2));
}

#[test]
fn an_uncommitted_change_is_gone_after_a_crash() {
    let mut site = Site::new();
    site.accept(0, job(1, read()), false);
    site.queue.connection().execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(site.claim(1).is_some());
    site.queue.acknowledge_reports(order(1, 0));
    let site = site.crash();
    assert_eq!(site.state(1), JobState::Waiting);
}

#[test]
fn a_doubt_is_settled_once_and_reported_as_a_second_revision() {
    let mut site = Site::new();
    let resolve = |site: &mut Site, verdict| {
        let resolution = Resolution { verdict, by: "Ada".into() };
        site.queue.resolve(at(5), id(1), resolution).unwrap()
    };
    assert_eq!(resolve(&mut site, Verdict::Done), Err(ResolveRefused::NotKnown));
    site.send(0, job(1, card(&["101"], "a")));
    assert_eq!(resolve(&mut site, Verdict::Done), Err(ResolveRefused::NotInDoubt(JobState::Sent)));
    site.queue.finish(at(1), id(1), no_answer()).unwrap();
    assert_eq!(resolve(&mut site, Verdict::NotDone), Ok(()));
    assert_eq!(resolve(&mut site, Verdict::Done), Err(ResolveRefused::Resolved(JobState::Failed)));
    let reports = site.reports();
    let [(_, Message::Outcome(first)), (_, Message::Resolution(second))] = &reports[..] else {
        panic!("{reports:?}");
    };
    assert_eq!((first.revision, first.outcome.state()), (1, JobState::Unknown));
    assert_eq!((second.revision, second.outcome.state()), (2, JobState::Failed));
    assert_eq!(second.resolution.as_ref().unwrap().by, "Ada");
    let detail = site.queue.job(id(1)).unwrap().unwrap();
    assert_eq!(detail.outcome, Some(no_answer()), "the attempt's own end stays as it was");
    assert_eq!(detail.resolution.unwrap().verdict, Verdict::NotDone);
    assert!(site.audited().contains(&"resolved".into()));
}

#[test]
fn reports_are_numbered_kept_until_acknowledged_and_dropped_with_a_later_change() {
    let mut site = Site::new();
    for number in 1..=3 {
        site.done(0, job(number, read()));
    }
    assert_eq!(site.queue.reports_after(order(1, 1), 1).unwrap()[0].0, order(1, 2));
    site.queue.acknowledge_reports(order(1, 9));
    site.queue.acknowledge_reports(order(2, 1));
    assert_eq!(site.queue.memory().unwrap().reports.acknowledged, 0, "never numbered, never acknowledged");
    site.queue.acknowledge_reports(order(1, 2));
    assert_eq!(site.queue.memory().unwrap().reports.acknowledged, 2);
    assert_eq!(site.queue.counts().unwrap().reports_waiting, 1);
    assert_eq!(site.reports().len(), 3);
    site.done(1, job(4, read()));
    let left: Vec<_> = site.reports().into_iter().map(|(position, _)| position).collect();
    assert_eq!(left, [order(1, 3), order(1, 4)]);
    let site = site.crash();
    assert_eq!(site.queue.memory().unwrap().reports.acknowledged, 2);
}

#[test]
fn a_cloud_that_orders_again_what_is_over_is_told_again_how_it_ended() {
    let mut site = Site::new();
    site.done(0, job(1, read()));
    let told = site.reports();
    site.queue.acknowledge_reports(order(1, 1));
    let again = |site: &mut Site, n| {
        let accepted = site
            .queue
            .accept(at(1), Some(order(2, n)), job(1, read()), Ok(admission(&read())), true)
            .unwrap();
        assert_eq!(accepted, Accepted::Duplicate);
        site.reports()
    };
    let reports = again(&mut site, 1);
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].0, &reports[0].1), (order(1, 2), &told[0].1));
    assert_eq!(again(&mut site, 2), reports, "what waits in the outbox already is not doubled");
}

#[test]
fn a_rolled_back_change_does_not_lose_the_acknowledgement() {
    let mut site = Site::new();
    site.done(0, job(1, read()));
    site.queue.acknowledge_reports(order(1, 1));
    site.send(1, job(2, read()));
    let left = |site: &Site| -> Vec<_> { site.reports().into_iter().map(|(position, _)| position).collect() };
    site.queue.connection().execute_batch("BEGIN IMMEDIATE").unwrap();
    site.queue.finish(at(1), id(2), no_answer()).unwrap();
    assert_eq!(left(&site), [order(1, 2)]);
    site.queue.connection().execute_batch("ROLLBACK").unwrap();
    site.queue.undone();
    assert_eq!(left(&site), [order(1, 1)]);
    site.queue.finish(at(1), id(2), no_answer()).unwrap();
    assert_eq!(left(&site), [order(1, 2)]);
    let site = site.crash();
    assert_eq!(site.queue.memory().unwrap().reports.acknowledged, 1);
}

#[test]
fn a_new_epoch_numbers_what_is_left_from_one() {
    let mut site = Site::new();
    for number in 1..=4 {
        site.done(0, job(number, read()));
    }
    site.queue.acknowledge_reports(order(1, 2));
    site.queue.begin_reports_epoch(5).unwrap();
    assert!(site.queue.begin_reports_epoch(5).is_err());
    let left: Vec<_> = site
        .reports()
        .into_iter()
        .map(|(position, message)| match message {
            Message::Outcome(report) => (position, report.job_id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(left, [(order(5, 1), id(3)), (order(5, 2), id(4))]);
    let sent = site.queue.memory().unwrap().reports;
    assert_eq!((sent.last, sent.acknowledged), (order(5, 2), 0));
    assert_eq!(site.queue.reports_after(order(6, 0), 9).unwrap(), []);
}

#[test]
fn the_limit_of_cards_an_hour_is_the_sites_and_is_audited() {
    let mut site = Site::with(|rules| rules.limits.cards_per_hour = 2);
    site.done(0, job(1, card(&["101"], "a")));
    site.done(10, job(2, card(&["102"], "b")));
    assert_eq!(site.refused(20, job(3, card(&["103"], "c"))), Code::SiteCardLimit);
    assert_eq!(site.audited(), ["site_card_limit"]);
    site.done(21, job(4, read()));
    site.done(3600, job(5, card(&["104"], "d")));
    assert_eq!(site.refused(3600, job(6, card(&["105"], "e"))), Code::SiteCardLimit);
}

#[test]
fn an_attempt_that_wrote_nothing_does_not_count_as_a_card() {
    let mut site = Site::with(|rules| rules.limits.cards_per_hour = 1);
    site.send(0, job(1, card(&["101"], "a")));
    site.queue.unsend(at(0), id(1), &line_down()).unwrap();
    site.done(1, job(2, card(&["102"], "b")));
}

#[test]
fn cards_are_counted_by_the_hour_whatever_the_clock_did() {
    let mut site = Site::with(|rules| rules.limits.cards_per_hour = 2);
    site.done(10_000, job(1, card(&["101"], "a")));
    // Set back: the card before lies ahead.
    site.done(20, job(2, card(&["102"], "b")));
    assert_eq!(site.refused(30, job(3, card(&["103"], "c"))), Code::SiteCardLimit);
    // And put right: the second one is long ago. One that ended while it was set back still counts.
    site.send(10_010, job(4, card(&["104"], "d")));
    site.commit(|queue| queue.finish(at(40), id(4), written())).unwrap();
    assert_eq!(site.refused(10_020, job(5, card(&["105"], "e"))), Code::SiteCardLimit);
    let mut site = site.crash();
    assert_eq!(site.refused(10_020, job(6, card(&["105"], "e"))), Code::SiteCardLimit);
    site.done(13_600, job(7, card(&["105"], "e")));
}

#[tokio::test]
async fn a_count_of_cards_from_a_transaction_that_was_undone_is_not_trusted() {
    let mut site = Site::with(|rules| rules.limits.cards_per_hour = 2);
    site.send(0, job(1, card(&["101"], "a")));
    site.send(0, job(2, card_at("2", &["102"], "b")));
    let Site { queue, folder, .. } = site;
    let (writer, handle) = Writer::start("queue", queue);
    let undone = handle.run(|queue: &mut Queue| {
        queue.unsend(at(1), id(1), &line_down())?;
        // Counted, and not sent: its room is at work.
        let third = job(3, card_at("3", &["102"], "c"));
        let admitted = Ok(admission(&third.order));
        assert_eq!(queue.accept(at(1), None, third, admitted, true)?, Accepted::Waiting);
        Err::<(), _>(StoreError::DiskFull)
    });
    assert!(undone.await.is_err());
    let fourth = job(4, card_at("4", &["104"], "d"));
    let admitted = Ok(admission(&fourth.order));
    let accepted = handle.run(move |queue: &mut Queue| queue.accept(at(2), None, fourth, admitted, true));
    let Accepted::Ended(Outcome::Failed(refusal)) = accepted.await.unwrap() else { panic!("it was sent") };
    assert_eq!(refusal.code, Code::SiteCardLimit);
    drop(handle);
    writer.join();
    drop(folder);
}

#[test]
fn limits_also_hold_for_jobs_that_waited_while_they_were_tightened() {
    let mut site = Site::new();
    site.accept(0, job(1, unlock("lobby")), false);
    site.rules.limits.forbidden_kinds = vec![Kind::DeviceUnlock];
    let mut site = site.crash();
    assert_eq!(site.claim(1), None);
    assert_eq!(site.state(1), JobState::Failed);
    assert_eq!(site.audited(), ["site_forbids_kind"]);
}

#[test]
fn a_full_queue_refuses_by_name_what_would_have_to_wait() {
    let mut site = Site::with(|rules| rules.limits.waiting_jobs = 2);
    site.accept(0, job(1, read()), false);
    site.accept(0, job(2, read()), false);
    assert_eq!(site.refused(0, job(3, read())), Code::QueueFull);
    assert!(matches!(site.accept(0, job(4, card_at("2", &["gym"], "a")), true), Accepted::Sent(_)));
    site.claim(1).unwrap();
    assert_eq!(site.accept(1, job(5, read()), false), Accepted::Waiting);
}

#[test]
fn the_cloud_may_send_no_more_orders_than_have_room_to_wait() {
    let mut site = Site::with(|rules| rules.limits.waiting_jobs = 3);
    let limit = |site: &Site| site.queue.orders_limit(256).unwrap();
    assert_eq!(limit(&site), 3);
    for number in 1..=3 {
        let n = u64::try_from(number).unwrap();
        site.queue
            .accept(at(0), Some(order(1, n)), job(number, read()), Ok(admission(&read())), number == 1)
            .unwrap();
    }
    assert_eq!(limit(&site), 3);
    site.queue.unsend(at(0), id(1), &line_down()).unwrap();
    assert_eq!(limit(&site), 3);
    site.queue.cancel(at(0), None, id(2)).unwrap();
    assert_eq!(limit(&site), 4);
    assert_eq!(site.queue.orders_limit(0).unwrap(), 3);
}

#[test]
fn a_clock_that_is_put_back_keeps_no_job_from_its_next_attempt() {
    let mut site = Site::new();
    site.send(10_000, job(1, read()));
    site.queue.unsend(at(10_000), id(1), &line_down()).unwrap();
    assert!(site.claim(10_000).is_none());
    assert!(site.claim(1_000).is_some());
}

#[test]
fn finished_jobs_are_purged_in_slices_but_never_doubts_or_what_could_come_again() {
    let mut site = Site::new();
    site.send(0, job(1, read()));
    site.queue.finish(at(1), id(1), no_answer()).unwrap();
    site.done(0, expiring(2, 50));
    site.done(0, expiring(3, 500));
    site.accept(0, expiring(4, 50), false);
    assert_eq!(site.queue.purge(at(100)).unwrap(), 1);
    assert_eq!(site.queue.job(id(2)).unwrap(), None);
    assert_eq!(site.queue.purge(at(100)).unwrap(), 0);
    for number in [1, 3, 4] {
        assert!(site.queue.job(id(number)).unwrap().is_some(), "{number}");
    }
    assert_eq!(site.queue.counts().unwrap().by_state[&JobState::Succeeded], 2);
}

#[test]
fn names_of_guests_and_stays_are_nowhere_in_the_files() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "stay of the Duke")));
    site.send(1, job(2, card(&["101"], "stay of the Duke")));
    site.queue.finish(at(1), id(2), no_answer()).unwrap();
    let detail = site.queue.job(id(1)).unwrap().unwrap();
    assert!(!format!("{detail:?}").contains("Jane"));
    for entry in std::fs::read_dir(site.folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in ["Jane Doe", "Duke"] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret}");
        }
    }
}

#[test]
fn the_claim_and_the_hourly_count_walk_an_index() {
    let mut site = Site::new();
    let mut plan = |sql: &str| -> String {
        let mut statement = site.queue.connection().prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let lines = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        lines.map(|line| line.unwrap() + "\n").collect()
    };
    let claim = plan(
        "SELECT id FROM job WHERE lane = 'x' AND state = 'waiting' AND due_at IS NULL AND retry_at IS NULL \
         ORDER BY priority DESC, id LIMIT 1",
    );
    let whole = "COVERING INDEX job_waiting (lane=? AND due_at=? AND retry_at=?)";
    assert!(claim.contains(whole) && !claim.contains("TEMP"), "{claim}");
    let background = plan(
        "SELECT id FROM job WHERE lane = 'x' AND state = 'waiting' AND due_at IS NULL AND retry_at IS NULL \
         AND priority = 0 ORDER BY id LIMIT 1",
    );
    assert!(
        background.contains("retry_at=? AND priority=?)") && !background.contains("TEMP"),
        "{background}"
    );
    let retry = plan(
        "SELECT min(retry_at) FROM job WHERE lane = 'x' AND state = 'waiting' AND due_at IS NULL \
         AND retry_at IS NOT NULL",
    );
    assert!(retry.contains("COVERING INDEX job_waiting (lane=? AND due_at=? AND retry_at>?)"), "{retry}");
    let pauses = plan(
        "UPDATE job SET retry_at = NULL WHERE lane = 'x' AND state = 'waiting' AND due_at IS NULL \
         AND (retry_at <= 1 OR retry_at > 2)",
    );
    assert!(pauses.contains("lane=? AND due_at=?"), "{pauses}");
    let due =
        plan("SELECT min(due_at) FROM job INDEXED BY job_due WHERE state = 'waiting' AND due_at IS NOT NULL");
    assert!(due.contains("COVERING INDEX job_due"), "{due}");
    let slot = plan(
        "SELECT job_id FROM job WHERE slot = x'00' AND ended_at IS NULL AND state = 'waiting' AND job_id <> x'00' \
         ORDER BY id",
    );
    assert!(slot.contains("INDEX job_slot (slot=?)") && !slot.contains("TEMP"), "{slot}");
    let stay = plan(
        "SELECT min(id) FROM job INDEXED BY job_reservation WHERE reservation = x'00' AND state = 'waiting' AND id > 1 \
         AND id < 9",
    );
    assert!(stay.contains("INDEX job_reservation (reservation=? AND id>? AND id<?)"), "{stay}");
    let first = plan(
        "SELECT retry_at FROM job WHERE lane = 'x' AND state = 'waiting' AND due_at IS NULL ORDER BY retry_at LIMIT 1",
    );
    let whole = "COVERING INDEX job_waiting (lane=? AND due_at=?)";
    assert!(first.contains(whole) && !first.contains("TEMP"), "{first}");
    let expiry = plan("SELECT min(expires_at) FROM job INDEXED BY job_expiry WHERE state = 'waiting'");
    assert!(expiry.contains("COVERING INDEX job_expiry"), "{expiry}");
    let cards = plan(
        "SELECT 1 FROM job INDEXED BY job_over WHERE ended_at IS NOT NULL AND max(ended_at, coalesce(sent_at, 0)) > 5 \
         AND kind = 'card.encode' AND sent_at > 5",
    );
    assert!(cards.contains("INDEX job_over (<expr>>?)"), "{cards}");
    let past = plan(
        "SELECT id FROM job INDEXED BY job_over WHERE ended_at IS NOT NULL AND max(ended_at, coalesce(sent_at, 0)) < 5 \
         LIMIT 500",
    );
    assert!(past.contains("INDEX job_over (<expr><?)"), "{past}");
    let at_work = plan(
        "SELECT job_id FROM job INDEXED BY job_state WHERE state = 'sent' AND state NOT IN ('waiting', 'succeeded') \
         ORDER BY id",
    );
    assert!(at_work.contains("INDEX job_state (state=?)") && !at_work.contains("TEMP"), "{at_work}");
    let failed = plan(
        "SELECT job_id FROM job INDEXED BY job_state WHERE state = 'failed' AND state NOT IN ('waiting', 'succeeded') \
         AND (NULL IS NULL OR lane = NULL) ORDER BY id DESC LIMIT 9",
    );
    assert!(failed.contains("INDEX job_state (state=?)") && !failed.contains("TEMP"), "{failed}");
    let done = plan("SELECT job_id FROM job NOT INDEXED WHERE state = 'succeeded' ORDER BY id DESC LIMIT 9");
    assert!(done.contains("SCAN job") && !done.contains("TEMP"), "{done}");
    let told = plan("DELETE FROM report WHERE n <= min(5, (SELECT min(n) FROM report) + 255)");
    assert!(told.contains("report USING INTEGER PRIMARY KEY (rowid<?)"), "{told}");
}

#[tokio::test]
async fn a_broken_disk_is_an_error_and_leaves_the_queue_as_it_was() {
    let counts = CountingVfs::register("broken-disk").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::folder(folder.path()).through("broken-disk");
    let mut site = Site::at(folder, storage, |_| {});
    site.accept(0, job(1, read()), false);
    let Site { queue, folder, .. } = site;
    let (writer, handle) = Writer::start("queue", queue);
    for fault in [Fault::Writes, Fault::Full, Fault::Syncs] {
        counts.break_with(fault);
        let claimed = handle.run(|queue: &mut Queue| queue.claim(at(1), &lane("1"))).await;
        assert!(matches!(claimed, Err(StoreError::Commit(_))), "{fault:?}: {claimed:?}");
        counts.mend();
        let job = handle.run(|queue: &mut Queue| queue.job(id(1))).await.unwrap().unwrap();
        assert_eq!(job.view.state, JobState::Waiting, "{fault:?}");
    }
    let claimed = handle.run(|queue: &mut Queue| queue.claim(at(2), &lane("1"))).await.unwrap();
    assert_eq!(claimed.unwrap().attempt, 1);
    drop(handle);
    writer.join();
    drop(folder);
}
