//! What is set back once more, taken back, or replaced, and clocks that were ahead meanwhile.

use super::*;

impl Both {
    /// Other hardware, whose memory is empty, is paired in the site's place.
    fn new_hardware(&mut self) {
        self.site = Site::new();
        self.db.replace_hardware(self.bridge, false).unwrap();
    }

    /// The cloud's order is done at the site and reported.
    fn is_done(&mut self, number: u128) {
        self.orders_arrive(100);
        self.site.commit(|queue| queue.finish(at(self.now), id(number), written())).unwrap();
        self.reports_arrive();
    }

    /// Both meet at a moment, and all that is left is said.
    fn meet_at(&mut self, second: i64) {
        self.now = second;
        self.meet();
        self.orders_arrive(100);
        self.reports_arrive();
    }

    fn order_card(&mut self, second: i64, number: u128) {
        let job = Job { created_at: at(second), ..job(number, card(&["101"], "guest")) };
        self.db.enqueue_job(at(second), self.bridge, &job).unwrap();
    }
}

#[test]
fn new_hardware_is_not_given_what_the_old_one_may_hold_though_it_acknowledged_nothing() {
    for is_cut_off in [false, true] {
        let mut both = Both::new();
        both.meet();
        both.order_card(1, 1);
        // It is done, and the box is gone before anything was said of that.
        let orders = both.db.orders_to_send(both.bridge, both.connection, 0, 1).unwrap().unwrap();
        assert_eq!(orders[0].position, Some(Position { epoch: 1, n: 1 }));
        both.new_hardware();
        if is_cut_off {
            both.cloud_meets();
        }
        both.meet_at(10);
        assert_eq!(both.ended(1), JobState::Unknown);
        assert_eq!(both.site.queue.job(id(1)).unwrap(), None, "it is not even told");
        assert_eq!(both.order_at(11, 2, card(&["102"], "guest")), JobState::Sent);
    }
}

#[test]
fn an_empty_memory_that_never_heard_its_first_welcome_is_given_what_waits_for_it() {
    let mut both = Both::new();
    both.cloud_meets();
    both.order_card(1, 1);
    both.db.orders_to_send(both.bridge, both.connection, 0, 1).unwrap().unwrap();
    both.now = 10;
    both.meet();
    both.is_done(1);
    assert_eq!(both.ended(1), JobState::Succeeded);
}

#[test]
fn a_cloud_that_is_put_back_twice_with_new_hardware_between_does_nothing_twice() {
    for (was_handed, first_told, second_told) in
        (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0))
    {
        let case = (was_handed, first_told, second_told);
        let mut both = Both::new();
        if was_handed {
            both.meet();
        }
        both.order_card(1, 1);
        let backup = both.backup();
        both.meet();
        both.is_done(1);
        assert_eq!(both.ended(1), JobState::Succeeded);
        let put_back = |both: &mut Both, told: bool| {
            both.put_back(&backup);
            if told {
                both.db.restored().unwrap();
            }
        };
        put_back(&mut both, first_told);
        both.new_hardware();
        both.meet_at(10);
        assert_eq!(both.ended(1), JobState::Unknown, "{case:?}");
        assert_eq!(both.order_at(11, 2, card(&["102"], "guest")), JobState::Sent, "{case:?}");
        put_back(&mut both, second_told);
        both.meet_at(20);
        assert_eq!(both.ended(1), JobState::Unknown, "{case:?}");
        // What the new hardware did it knows, also where the cloud orders it again.
        let again = Job { created_at: at(11), ..job(2, card(&["102"], "guest")) };
        both.db.enqueue_job(at(21), both.bridge, &again).unwrap();
        both.meet_at(21);
        assert_eq!(both.ended(2), JobState::Succeeded, "{case:?}");
        // And once more, with new hardware that is cut off before it hears an answer.
        put_back(&mut both, first_told);
        both.new_hardware();
        both.now = 30;
        both.cloud_meets();
        both.meet_at(30);
        both.db.enqueue_job(at(31), both.bridge, &again).unwrap();
        both.meet_at(31);
        for number in [1, 2] {
            assert_eq!(both.ended(number), JobState::Unknown, "{number}, {case:?}");
        }
        assert_eq!(both.order_at(32, 3, card(&["103"], "guest")), JobState::Sent, "{case:?}");
    }
}

#[test]
fn a_cloud_put_back_after_new_hardware_met_it_with_nothing_open_does_nothing_twice() {
    let mut both = Both::new();
    both.meet();
    both.order_card(1, 1);
    let backup = both.backup();
    both.is_done(1);
    // Of what the old one told only its report arrived.
    both.db.connection().execute("UPDATE bridge SET orders_acknowledged = 0", []).unwrap();
    both.new_hardware();
    both.meet_at(10);
    both.put_back(&backup);
    both.meet_at(20);
    assert_eq!(both.ended(1), JobState::Unknown);
}

/// A card was written that both sides have forgotten: the site's memory was set back, the cloud after it, and there the order
/// is open.
fn forgotten_by_both() -> Both {
    let mut both = Both::new();
    both.meet();
    let older = copy_of(both.site.folder.path());
    both.order_card(1, 1);
    let backup = both.backup();
    both.is_done(1);
    both.site_is_put_back(&older);
    both.site.commit(|queue| queue.restored(at(5))).unwrap();
    both.meet_at(10);
    both.put_back(&backup);
    both.now = 20;
    both
}

#[test]
fn a_cancel_of_what_may_have_been_done_and_be_forgotten_is_not_answered_with_cancelled() {
    let mut both = forgotten_by_both();
    both.cancel(1);
    both.meet_at(20);
    assert_eq!(both.ended(1), JobState::Unknown);
    // Of one that was made since, it is known that nothing came of it.
    both.order_card(21, 2);
    both.cancel(2);
    both.meet();
    both.orders_arrive(1);
    both.reports_arrive();
    assert_eq!(both.ended(2), JobState::Cancelled);
}

#[test]
fn a_cancel_of_what_was_purged_here_is_not_answered_with_cancelled() {
    let mut both = Both::new();
    both.meet();
    both.order_card(1, 1);
    let backup = both.backup();
    both.is_done(1);
    // The reports that were acknowledged go with a later one.
    both.local_job_ends(9);
    while 0 < both.site.commit(|queue| queue.purge(at(200_000))).unwrap() {}
    assert_eq!(both.site.queue.job(id(1)).unwrap(), None);
    both.put_back(&backup);
    both.restart();
    both.cancel(1);
    both.meet_at(200_000);
    assert_eq!(both.ended(1), JobState::Unknown);
}

#[test]
fn what_a_cloud_that_was_put_back_has_not_handed_out_yet_is_not_withdrawn_as_if_nobody_knew_it() {
    let mut both = Both::new();
    both.order_card(1, 1);
    let backup = both.backup();
    both.meet();
    both.is_done(1);
    both.put_back(&backup);
    both.now = 20;
    both.meet();
    // It says that it never handed it out; it was found to have forgotten some.
    both.cancel(1);
    both.orders_arrive(100);
    both.reports_arrive();
    assert_eq!(both.ended(1), JobState::Succeeded);
}

#[test]
fn that_an_order_was_never_handed_out_is_no_proof_where_both_sides_may_have_forgotten_it() {
    let mut both = Both::new();
    let older = copy_of(both.site.folder.path());
    both.order_card(1, 1);
    let backup = both.backup();
    both.meet();
    both.is_done(1);
    both.site_is_put_back(&older);
    both.site.commit(|queue| queue.restored(at(5))).unwrap();
    // Nobody tells this cloud, and nothing that this site holds shows it: by its word nothing was ever handed out.
    both.put_back(&backup);
    assert_eq!(both.db.standing(id(1)).unwrap(), Some(Standing::Waiting));
    both.meet_at(20);
    assert_eq!(both.ended(1), JobState::Unknown);
}

/// The same as [`forgotten_by_both`], by a cloud's clock that was ahead: the card was ordered when it said `made`, and the
/// site's memory met it when it said `met`. The clock is right again when both meet the next time.
fn forgotten_under_a_clock_that_was_ahead(made: i64, met: i64) -> (Both, tempfile::TempDir) {
    let mut both = Both::new();
    both.meet();
    both.order_at(1, 7, read());
    let older = copy_of(both.site.folder.path());
    both.now = made;
    both.order_card(made, 1);
    let backup = both.backup();
    both.is_done(1);
    both.site_is_put_back(&older);
    both.meet_at(met);
    both.meet_at(20);
    (both, backup)
}

#[test]
fn what_was_forgotten_under_a_clock_far_ahead_is_in_doubt_also_after_the_clock_was_put_right() {
    let (mut both, backup) = forgotten_under_a_clock_that_was_ahead(89_000, 90_000);
    assert_eq!(both.order_at(21, 2, card(&["102"], "guest")), JobState::Sent, "nothing new is doubtful");
    both.put_back(&backup);
    both.meet_at(30);
    assert_eq!(both.ended(1), JobState::Unknown);
    assert_eq!(both.order_at(31, 3, card(&["103"], "guest")), JobState::Sent);
}

#[test]
fn what_was_forgotten_under_a_clock_a_little_ahead_is_in_doubt_also_when_the_right_one_is_nearly_there() {
    let (mut both, backup) = forgotten_under_a_clock_that_was_ahead(290, 300);
    both.put_back(&backup);
    both.meet_at(250);
    assert_eq!(both.ended(1), JobState::Unknown);
    // That is the price, for a few minutes.
    assert_eq!(both.order_at(251, 2, card(&["102"], "guest")), JobState::Unknown);
    assert_eq!(both.order_at(301, 3, card(&["103"], "guest")), JobState::Sent);
}

#[test]
fn what_was_forgotten_under_a_clock_far_ahead_is_in_doubt_also_where_the_memory_was_set_back_before() {
    let mut both = Both::new();
    both.meet();
    let oldest = copy_of(both.site.folder.path());
    both.order_at(2, 7, read());
    both.site_is_put_back(&oldest);
    both.meet_at(3);
    let older = copy_of(both.site.folder.path());
    both.now = 89_000;
    both.order_card(89_000, 1);
    let backup = both.backup();
    both.is_done(1);
    both.site_is_put_back(&older);
    both.meet_at(90_000);
    both.meet_at(20);
    both.put_back(&backup);
    both.meet_at(30);
    assert_eq!(both.ended(1), JobState::Unknown);
}

#[test]
fn a_restored_memory_goes_by_the_clock_of_the_cloud_that_it_meets_whichever_of_the_two_was_behind() {
    for reason in [EpochReason::SenderBehind, EpochReason::ReceiverBehind] {
        let mut site = Site::new();
        site.commit(|queue| queue.continue_orders(at(1), 1, None)).unwrap();
        // The host's clock is behind the cloud's.
        site.commit(|queue| queue.restored(at(5))).unwrap();
        site.commit(|queue| queue.continue_orders(at(20), 2, Some(reason))).unwrap();
        let mut order = |number: u64, second| {
            let job = Job { created_at: at(second), ..job(number.into(), card(&["101"], "guest")) };
            let admission = admission(&job.order);
            let position = Some(Position { epoch: 2, n: number });
            site.commit(|queue| queue.accept(at(21), position, job, Ok(admission), false)).unwrap()
        };
        let before = order(1, 8);
        assert!(matches!(before, Accepted::Ended(Outcome::Unknown(_))), "{reason:?}: {before:?}");
        assert_eq!(order(2, 21), Accepted::Waiting, "{reason:?}");
    }
}

#[test]
fn what_new_hardware_was_told_on_the_property_before_it_met_its_cloud_is_not_in_doubt() {
    let mut both = Both::new();
    both.meet();
    both.order_card(1, 1);
    both.db.orders_to_send(both.bridge, both.connection, 0, 1).unwrap().unwrap();
    both.new_hardware();
    let waits = both.site.accept(5, job(9, put("stay", 1, 50_000, Some(60_000))), true);
    assert_eq!(waits, Accepted::Waiting);
    both.meet_at(10);
    assert_eq!(both.ended(1), JobState::Unknown, "the cloud's own order may have been done by the old one");
    assert_eq!(both.site.state(9), JobState::Waiting);
}

#[test]
fn an_old_memory_that_only_the_reports_show_takes_no_order_for_new_that_was_made_before_it_was_known() {
    let mut both = Both::new();
    both.meet();
    both.order_at(1, 7, read());
    let older = copy_of(both.site.folder.path());
    both.local_job_ends(9);
    both.reports_arrive();
    both.now = 8;
    both.order_card(8, 1);
    let backup = both.backup();
    both.is_done(1);
    both.site_is_put_back(&older);
    both.put_back(&backup);
    // The orders agree, and yet the cloud holds a report that this memory never gave.
    both.meet_at(20);
    assert_eq!(both.ended(1), JobState::Unknown);
}
