//! The door ledger through the queue: what a card may do to its rooms, and that it is never wrong about it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use std::collections::{BTreeMap, BTreeSet};

use latchd::{
    model::{
        CardEncode, CardFacts, CardSeen, Code, DoorName, Job, JobState, Order, Origin, Outcome,
        ReservationKey, Resolution, StayModify, Success, Treatment, Verdict, Window,
    },
    protocol::{EpochReason, Message, Position, enrol::LedgerCopy},
    queue::{Accepted, Claimed, LocalOrder, Sharing},
    store::Store,
};
use proptest::prelude::*;
use queue_support::*;

fn resolve(site: &mut Site, number: u128, verdict: Verdict) {
    let resolution = Resolution { verdict, by: "Ada".into() };
    site.queue.resolve(at(50), id(number), resolution).unwrap().unwrap();
}

fn shared(sharing: Sharing) -> Site {
    Site::with(|rules| {
        rules.systems.insert(system(), sharing);
    })
}

fn holder(site: &Site, room: &str) -> (Option<String>, bool) {
    let state = site.room(room);
    (state.reservation_key.map(String::from), state.certain)
}

#[test]
fn the_first_card_overrides_and_further_ones_join() {
    let mut site = Site::new();
    assert_eq!(site.done(0, job(1, card(&["101", "gym"], "a"))).treatment, Treatment::Override);
    assert_eq!(site.done(1, job(2, card(&["101"], "a"))).treatment, Treatment::Join);
    assert_eq!(site.done(2, job(3, card(&["gym"], "a"))).treatment, Treatment::Plain);
    assert_eq!(site.room("101").cards, 2);
    let mut site = site.crash();
    assert_eq!(site.done(3, job(4, card(&["101"], "b"))).treatment, Treatment::Override);
    assert_eq!(site.refused(4, job(5, card(&["101"], "a"))), Code::RoomHeldByOtherReservation);
    assert_eq!(site.done(5, job(6, card(&["101"], "b"))).treatment, Treatment::Join);
}

#[test]
fn a_stay_that_may_have_begun_does_not_begin_again_though_its_room_was_lost_meanwhile() {
    let mut site = Site::new();
    site.send(0, job(1, card(&["101"], "a")));
    site.queue.connection().execute_batch("DELETE FROM room").unwrap();
    let mut site = site.crash();
    site.commit(|queue| queue.finish(at(1), id(1), no_answer())).unwrap();
    site.queue.connection().execute_batch("DELETE FROM room").unwrap();
    assert_eq!(site.refused(2, job(2, card(&["101"], "a"))), Code::RoomStateUnknown);
}

#[test]
fn a_report_carries_the_rooms_it_touched_as_they_stand_now() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101", "102"], "a")));
    let reports = site.reports();
    let Message::Outcome(report) = &reports[0].1 else { panic!("{reports:?}") };
    let rooms: Vec<_> =
        report.rooms.iter().map(|room| (room.room.as_str(), room.certain, room.cards)).collect();
    assert_eq!(rooms, [("101", true, 1), ("102", true, 1)]);
}

#[test]
fn a_card_for_a_room_without_a_reservation_key_is_refused_even_where_it_would_wait() {
    let mut site = Site::new();
    let mut order = card(&["101"], "a");
    let Order::CardEncode(encode) = &mut order else { unreachable!() };
    encode.reservation_key = None;
    let Accepted::Ended(Outcome::Failed(refusal)) = site.accept(0, job(1, order), false) else {
        panic!("it was taken")
    };
    assert_eq!(refusal.code, Code::ReservationKeyRequired);
}

#[test]
fn after_an_unknown_override_the_stay_waits_for_a_verdict_and_a_new_guest_does_not() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "a")));
    site.send(1, job(2, card(&["101"], "b")));
    site.queue.finish(at(1), id(2), no_answer()).unwrap();
    assert_eq!(holder(&site, "101"), (Some("b".into()), false));
    assert_eq!(site.refused(2, job(3, card(&["101"], "b"))), Code::RoomStateUnknown);
    assert_eq!(site.refused(2, job(4, card(&["101"], "a"))), Code::RoomStateUnknown);
    assert_eq!(site.send(3, job(5, card(&["101"], "c"))).treatment, Treatment::Override);
    site.queue.finish(at(3), id(5), no_card()).unwrap();
    assert_eq!(holder(&site, "101"), (Some("b".into()), false), "a certain failure restores the doubt");
    resolve(&mut site, 2, Verdict::NotDone);
    assert_eq!(holder(&site, "101"), (Some("a".into()), true));
    assert_eq!(site.done(51, job(6, card(&["101"], "a"))).treatment, Treatment::Join);
    assert_eq!(site.done(52, job(7, card(&["101"], "b"))).treatment, Treatment::Override);
}

#[test]
fn a_verdict_of_done_makes_the_room_the_stays_own() {
    let mut site = Site::new();
    site.send(0, job(1, card(&["101"], "a")));
    site.queue.recover(at(1)).unwrap();
    resolve(&mut site, 1, Verdict::Done);
    assert_eq!(site.state(1), JobState::Succeeded);
    assert_eq!(holder(&site, "101"), (Some("a".into()), true));
    assert_eq!(site.room("101").cards, 1);
    assert_eq!(site.done(51, job(2, card(&["101"], "a"))).treatment, Treatment::Join);
}

#[test]
fn the_chips_of_a_stays_cards_are_what_a_driver_looks_for_also_after_a_restart() {
    let mut site = shared(Sharing::Listed);
    let written = |chip: &str| {
        let card = CardFacts { serial: Some(chip.into()), ..CardFacts::default() };
        Outcome::Succeeded(Success { card: Some(card), ..Success::default() })
    };
    let first = site.send(0, job(1, card(&["101"], "a")));
    assert_eq!((first.treatment, first.to_see), (Treatment::Override, None));
    site.queue.finish(at(1), id(1), written("04AA")).unwrap();
    let mut site = site.crash();
    let seen = |site: &mut Site, now, number| {
        let claimed = site.send(now, job(number, card(&["101"], "a")));
        assert_eq!(claimed.treatment, Treatment::Join);
        claimed.to_see.unwrap().chips
    };
    assert_eq!(seen(&mut site, 2, 2), ["04AA"]);
    site.queue.finish(at(3), id(2), written("04BB")).unwrap();
    assert_eq!(seen(&mut site, 4, 3), ["04AA", "04BB"]);
    site.queue.finish(at(5), id(3), Outcome::failed(Code::NoStayToJoin, "somebody else changed it")).unwrap();
    assert_eq!(site.refused(6, job(4, card(&["101"], "a"))), Code::RoomStateUnknown);
    let next = site.send(7, job(5, card(&["101"], "b")));
    assert_eq!((next.treatment, next.to_see), (Treatment::Override, None));
}

#[test]
fn a_failed_or_unsent_override_leaves_no_trace() {
    let mut site = Site::new();
    site.send(0, job(1, card(&["101"], "a")));
    site.queue.unsend(at(0), id(1), &line_down()).unwrap();
    let again = site.claim(100).unwrap();
    assert_eq!((again.treatment, again.attempt), (Treatment::Override, 2));
    site.queue.finish(at(100), id(1), no_card()).unwrap();
    assert_eq!(holder(&site, "101"), (None, false));
    assert_eq!(site.done(101, job(2, card(&["101"], "a"))).treatment, Treatment::Override);
}

#[test]
fn an_unknown_join_leaves_the_stay_certain() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "a")));
    site.send(1, job(2, card(&["101"], "a")));
    site.queue.finish(at(1), id(2), no_answer()).unwrap();
    assert_eq!(holder(&site, "101"), (Some("a".into()), true));
    assert_eq!(site.room("101").cards, 1);
    resolve(&mut site, 2, Verdict::Done);
    assert_eq!(site.room("101").cards, 2);
}

#[test]
fn rooms_that_need_different_treatment_are_refused_and_the_rest_of_the_queue_goes_on() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "a")));
    site.accept(1, job(2, card(&["101", "102"], "a")), false);
    site.accept(1, job(3, read()), false);
    assert_eq!(site.claim(2).unwrap().job.job_id, id(3));
    let code = site.queue.job(id(2)).unwrap().unwrap().view.code;
    assert_eq!(code, Some(Code::RoomStatesDiffer));
}

#[test]
fn a_room_that_is_at_work_in_another_lane_makes_a_card_wait_not_fail() {
    let mut site = Site::new();
    site.send(0, job(1, card_at("1", &["101"], "a")));
    assert_eq!(site.accept(0, job(2, card_at("2", &["101"], "a")), true), Accepted::Waiting);
    assert_eq!(site.queue.next_retry(&lane("2")).unwrap(), Some(at(1)));
    assert_eq!(site.queue.claim(at(1), &lane("2")).unwrap(), None);
    site.queue.finish(at(1), id(1), written()).unwrap();
    let claimed = site.queue.claim(at(2), &lane("2")).unwrap().unwrap();
    assert_eq!(claimed.treatment, Treatment::Join);
}

#[test]
fn a_checkout_frees_the_stays_own_room_only_and_everybody_is_new_afterwards() {
    let mut site = Site::new();
    assert_eq!(site.refused(0, job(1, checkout("101", "a"))), Code::RoomHeldByOtherReservation);
    site.done(0, job(2, card(&["101"], "a")));
    site.done(1, job(3, card(&["101"], "b")));
    assert_eq!(site.refused(2, job(4, checkout("101", "a"))), Code::RoomHeldByOtherReservation);
    site.done(3, job(5, checkout("101", "b")));
    assert_eq!(holder(&site, "101"), (None, true));
    assert_eq!(site.done(4, job(6, card(&["101"], "a"))).treatment, Treatment::Override);
}

#[test]
fn an_unknown_checkout_leaves_the_room_uncertain_until_resolved() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "a")));
    site.send(1, job(2, checkout("101", "a")));
    site.queue.finish(at(1), id(2), no_answer()).unwrap();
    assert_eq!(holder(&site, "101"), (Some("a".into()), false));
    assert_eq!(site.refused(2, job(3, card(&["101"], "a"))), Code::RoomStateUnknown);
    resolve(&mut site, 2, Verdict::Done);
    assert_eq!(holder(&site, "101"), (None, true));
}

#[test]
fn a_stay_that_moves_takes_its_room_along() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "a")));
    let order = Order::StayModify(StayModify {
        room: DoorName::new("101").unwrap(),
        to_room: Some(DoorName::new("102").unwrap()),
        reservation_key: ReservationKey::new("a").unwrap(),
        ends_at: at(5000),
    });
    site.done(1, job(2, order));
    assert_eq!(holder(&site, "101"), (None, true));
    assert_eq!(holder(&site, "102"), (Some("a".into()), true));
    assert_eq!(site.done(2, job(3, card(&["102"], "a"))).treatment, Treatment::Join);
}

#[test]
fn a_stay_that_may_have_moved_into_a_room_of_which_nothing_is_known_is_not_begun_there_blindly() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "a")));
    let order = Order::StayModify(StayModify {
        room: DoorName::new("101").unwrap(),
        to_room: Some(DoorName::new("102").unwrap()),
        reservation_key: ReservationKey::new("a").unwrap(),
        ends_at: at(5000),
    });
    site.send(1, job(2, order));
    site.queue.connection().execute_batch("DELETE FROM room WHERE room = '102'").unwrap();
    site.queue.finish(at(1), id(2), no_answer()).unwrap();
    assert_eq!(site.refused(2, job(3, card(&["102"], "a"))), Code::RoomStateUnknown);
    resolve(&mut site, 2, Verdict::NotDone);
    assert_eq!(site.done(3, job(4, card(&["102"], "a"))).treatment, Treatment::Override);
}

fn made_by(mut card: CardSeen, us: Option<bool>) -> CardSeen {
    if let CardSeen::Guest { made_here, .. } = &mut card {
        *made_here = us;
    }
    card
}

#[test]
fn on_a_shared_system_a_live_card_of_the_stay_opens_the_way_for_one_join() {
    let mut site = shared(Sharing::Shared);
    site.done(0, job(1, card(&["101"], "a")));
    assert_eq!(site.refused(1, job(2, card(&["101"], "a"))), Code::RoomStateUnknown);
    // Another desk's card may end with ours, and where nobody says who made it, it may be another desk's.
    let by = |made_here| made_by(guest_card("101", CARD_END), made_here);
    for proves_nothing in
        [guest_card("101", CARD_END - 1), guest_card("102", CARD_END), by(Some(false)), by(None)]
    {
        site.queue.note_card_seen(at(2), &system(), &proves_nothing).unwrap();
    }
    assert_eq!(site.refused(2, job(3, card(&["101"], "a"))), Code::RoomStateUnknown);
    site.queue.note_card_seen(at(3), &system(), &guest_card("101", CARD_END)).unwrap();
    assert_eq!(site.done(603, job(4, card(&["101"], "a"))).treatment, Treatment::Join);
    assert_eq!(site.refused(604, job(5, card(&["101"], "a"))), Code::RoomStateUnknown);
}

#[test]
fn an_assumption_about_a_shared_system_is_audited() {
    let mut site = shared(Sharing::AssumeUnchanged);
    site.done(0, job(1, card(&["101"], "a")));
    assert!(site.audited().is_empty());
    assert_eq!(site.done(1, job(2, card(&["101"], "a"))).treatment, Treatment::Join);
    assert_eq!(site.audited(), ["assumed_unchanged"]);
}

#[test]
fn a_memory_out_of_date_makes_every_room_uncertain_until_a_live_card_proves_it() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "a")));
    site.queue.forgot(at(1)).unwrap();
    assert_eq!(holder(&site, "101"), (Some("a".into()), false));
    assert_eq!(site.audited(), ["memory_out_of_date"]);
    assert_eq!(site.refused(2, job(2, card(&["101"], "a"))), Code::RoomStateUnknown);
    site.queue.note_card_seen(at(3), &system(), &guest_card("101", CARD_END)).unwrap();
    assert_eq!(site.done(4, job(3, card(&["101"], "a"))).treatment, Treatment::Join);
}

#[test]
fn what_waits_in_a_memory_that_may_be_out_of_date_is_in_doubt_and_not_done() {
    use EpochReason::{ReceiverBehind, SenderBehind};
    for (reason, state) in [
        (Some(ReceiverBehind), JobState::Unknown),
        (None, JobState::Unknown),
        (Some(SenderBehind), JobState::Waiting),
    ] {
        let mut site = Site::new();
        site.send(0, job(1, unlock("lobby")));
        site.accept(0, job(2, unlock("gate")), false);
        site = site.crash();
        assert!(!site.commit(|queue| queue.continue_orders(at(1), 1, None)).unwrap());
        site.commit(|queue| queue.continue_orders(at(1), 2, reason)).unwrap();
        assert_eq!((site.state(1), site.state(2)), (JobState::Sent, state), "{reason:?}");
    }
    // What was ordered at the site since is no memory of before.
    let mut site = Site::new();
    site.commit(|queue| queue.restored(at(0))).unwrap();
    let (order, gate) = (job(2, unlock("gate")), admission(&unlock("gate")));
    let order = LocalOrder { job: order, origin: Origin::Person, retries: None };
    site.commit(|queue| queue.accept_local(at(1), order, Ok(gate), false)).unwrap();
    assert!(site.commit(|queue| queue.continue_orders(at(2), 2, Some(ReceiverBehind))).unwrap());
    assert_eq!(site.state(2), JobState::Waiting);
}

#[test]
fn a_new_epoch_of_the_orders_makes_rooms_uncertain_once_unless_the_cloud_says_that_it_forgot() {
    use EpochReason::{ReceiverBehind, SenderBehind};
    for (reason, certain) in [(Some(ReceiverBehind), false), (Some(SenderBehind), true), (None, false)] {
        let mut site = Site::new();
        assert!(!site.queue.continue_orders(at(0), 1, None).unwrap(), "a first meeting");
        site.done(0, job(1, card(&["101"], "a")));
        assert!(!site.queue.continue_orders(at(1), 1, None).unwrap());
        assert_eq!(site.queue.continue_orders(at(1), 2, reason).unwrap(), !certain, "{reason:?}");
        assert_eq!(holder(&site, "101"), (Some("a".into()), certain), "{reason:?}");
        assert_eq!(site.queue.memory().unwrap().orders_received, Position { epoch: 2, n: 0 });
        site.queue.note_card_seen(at(3), &system(), &guest_card("101", CARD_END)).unwrap();
        assert!(!site.queue.continue_orders(at(4), 2, None).unwrap());
        assert_eq!(holder(&site, "101"), (Some("a".into()), true), "{reason:?}");
    }
}

#[test]
fn an_order_of_an_epoch_that_was_not_announced_makes_rooms_uncertain_too() {
    let mut site = Site::new();
    let order = |epoch| Some(Position { epoch, n: 1 });
    site.queue.cancel(at(0), order(1), id(7)).unwrap();
    site.done(0, job(1, card(&["101"], "a")));
    site.queue.cancel(at(1), order(2), id(8)).unwrap();
    assert_eq!(holder(&site, "101"), (Some("a".into()), false));
}

/// A card that begins its stay anew.
fn card_again(doors: &[&str], reservation: &str) -> Order {
    let mut order = card(doors, reservation);
    let Order::CardEncode(encode) = &mut order else { unreachable!() };
    encode.begin_again = true;
    order
}

#[test]
fn a_stay_begins_anew_where_it_is_certain_to_be_and_its_cards_count_from_then_on() {
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "a")));
    assert_eq!(site.done(1, job(2, card(&["101"], "a"))).treatment, Treatment::Join);
    assert_eq!(site.done(2, job(3, card_again(&["101"], "a"))).treatment, Treatment::Override);
    assert_eq!(site.room("101").cards, 1);
    assert_eq!(site.done(3, job(4, card(&["101"], "a"))).treatment, Treatment::Join);
    // One that comes to nothing leaves the stay as it was, also after it was in doubt.
    site.send(4, job(5, card_again(&["101"], "a")));
    site.queue.finish(at(4), id(5), no_card()).unwrap();
    assert_eq!((holder(&site, "101"), site.room("101").cards), ((Some("a".into()), true), 2));
    site.send(5, job(6, card_again(&["101"], "a")));
    site.queue.finish(at(5), id(6), no_answer()).unwrap();
    assert_eq!(site.refused(6, job(7, card_again(&["101"], "a"))), Code::RoomStateUnknown);
    assert_eq!(site.refused(6, job(8, card(&["101"], "a"))), Code::RoomStateUnknown);
    resolve(&mut site, 6, Verdict::NotDone);
    let mut site = site.crash();
    assert_eq!(site.done(51, job(9, card(&["101"], "a"))).treatment, Treatment::Join);
    // Another stay's room is not begun in again.
    site.done(52, job(10, card(&["101"], "b")));
    assert_eq!(site.refused(53, job(11, card_again(&["101"], "a"))), Code::RoomHeldByOtherReservation);
    assert_eq!(site.done(54, job(12, card_again(&["102"], "a"))).treatment, Treatment::Override);
}

#[test]
fn a_room_of_which_the_lock_system_has_no_stay_is_noticed_and_joined_no_more() {
    for (sharing, next) in [
        (Sharing::Exclusive, Ok(Treatment::Override)),
        (Sharing::AssumeUnchanged, Err(Code::RoomStateUnknown)),
    ] {
        let mut site = shared(sharing);
        site.done(0, job(1, card(&["101"], "a")));
        assert_eq!(site.queue.rooms_changed_elsewhere().unwrap(), []);
        site.send(1, job(2, card(&["101"], "a")));
        let lost = Outcome::failed(Code::NoStayToJoin, "the room is checked out");
        site.commit(|queue| queue.finish(at(1), id(2), lost)).unwrap();
        let mut site = site.crash();
        let noticed = site.queue.rooms_changed_elsewhere().unwrap();
        assert_eq!(noticed, [(system(), DoorName::new("101").unwrap())]);
        assert!(site.audited().contains(&"room_changed_elsewhere".to_owned()));
        match next {
            Ok(treatment) => assert_eq!(site.done(2, job(3, card(&["101"], "a"))).treatment, treatment),
            Err(code) => {
                assert_eq!(site.refused(2, job(3, card(&["101"], "a"))), code);
                site.queue.note_card_seen(at(3), &system(), &guest_card("101", CARD_END)).unwrap();
                assert_eq!(site.done(4, job(4, card(&["101"], "a"))).treatment, Treatment::Join);
            }
        }
        assert_eq!(site.queue.rooms_changed_elsewhere().unwrap(), []);
    }
}

/// What happens in the world, and what the agent hears of it.
#[derive(Debug, Clone)]
enum Step {
    /// A card or a check-out is ordered, and something comes of it.
    Order {
        stay: u8,
        rooms: u8,
        checkout: bool,
        /// The card is to begin its stay anew.
        again: bool,
        end: End,
    },
    /// Somebody who knows the truth settles the oldest doubt, or the youngest.
    Verdict {
        oldest: bool,
    },
    Crash,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Done,
    Refused,
    NothingSent,
    SilentButDone,
    SilentAndNot,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        4 => Just(End::Done),
        1 => Just(End::Refused),
        1 => Just(End::NothingSent),
        2 => Just(End::SilentButDone),
        2 => Just(End::SilentAndNot),
    ];
    prop_oneof![
        12 => (0..4_u8, 1..4_u8, prop::bool::weighted(0.15), prop::bool::weighted(0.2), end).prop_map(
            |(stay, rooms, checkout, again, end)| Step::Order { stay, rooms, checkout, again, end }
        ),
        4 => any::<bool>().prop_map(|oldest| Step::Verdict { oldest }),
        1 => Just(Step::Crash),
    ]
}

/// The lock system's own books: which stay each room follows, and who ever began one there since it was free.
#[derive(Debug, Default)]
struct Truth {
    holders: BTreeMap<String, String>,
    began: BTreeSet<(String, String)>,
}

impl Truth {
    fn apply(&mut self, order: &Order, treatment: Treatment) {
        let (stay, rooms) = touched(order);
        for room in rooms {
            match (order, treatment) {
                (Order::StayCheckout { .. }, _) => {
                    self.holders.remove(&room);
                    self.began.retain(|(other, _)| *other != room);
                }
                (_, Treatment::Override) => {
                    self.holders.insert(room.clone(), stay.clone());
                    self.began.insert((room, stay.clone()));
                }
                _ => {}
            }
        }
    }

    /// What must hold whenever the agent lets bytes leave.
    fn check(&self, claimed: &Claimed) {
        let (stay, rooms) = touched(&claimed.job.order);
        for room in rooms {
            let holder = self.holders.get(&room);
            match (&claimed.job.order, claimed.treatment) {
                (Order::CardEncode(card), Treatment::Override) if card.begin_again => {
                    let is_first = !self.began.contains(&(room.clone(), stay.clone()));
                    assert!(
                        is_first || holder == Some(&stay),
                        "{stay} would throw out {holder:?} from {room}"
                    );
                }
                (Order::CardEncode(_), Treatment::Override) => {
                    assert!(
                        !self.began.contains(&(room.clone(), stay.clone())),
                        "{stay} would throw out {holder:?} from {room}, where it has been before"
                    );
                }
                _ => assert_eq!(holder, Some(&stay), "{room} follows another stay"),
            }
        }
    }
}

fn touched(order: &Order) -> (String, Vec<String>) {
    match order {
        Order::CardEncode(card) => (
            card.reservation_key.clone().unwrap().into(),
            card.doors.iter().cloned().map(String::from).collect(),
        ),
        Order::StayCheckout { room, reservation_key } => {
            (reservation_key.clone().into(), vec![room.clone().into()])
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_card_ever_joins_another_stay_or_begins_one_twice(steps in prop::collection::vec(step(), 1..40)) {
        let mut site = Site::new();
        let mut truth = Truth::default();
        let mut doubts: Vec<(u128, Verdict)> = Vec::new();
        let mut now = 0;
        for (number, step) in (1..).zip(steps) {
            now += 100;
            match step {
                Step::Crash => site = site.crash(),
                Step::Verdict { oldest } => {
                    let index = if oldest { 0 } else { doubts.len().saturating_sub(1) };
                    if index < doubts.len() {
                        let (job, verdict) = doubts.remove(index);
                        resolve(&mut site, job, verdict);
                    }
                }
                Step::Order { stay, rooms, checkout: is_checkout, again, end } => {
                    let stay = format!("stay {stay}");
                    let order = if is_checkout {
                        checkout(if rooms == 1 { "101" } else { "102" }, &stay)
                    } else {
                        let doors: &[&str] = match rooms { 1 => &["101"], 2 => &["102"], _ => &["101", "102"] };
                        if again { card_again(doors, &stay) } else { card(doors, &stay) }
                    };
                    let Accepted::Sent(claimed) = site.accept(now, job(number, order), true) else { continue };
                    truth.check(&claimed);
                    if matches!(end, End::Done | End::SilentButDone) {
                        truth.apply(&claimed.job.order, claimed.treatment);
                    }
                    match end {
                        End::Done => site.commit(|queue| queue.finish(at(now), id(number), written())).unwrap(),
                        End::Refused => site.commit(|queue| queue.finish(at(now), id(number), no_card())).unwrap(),
                        End::NothingSent => {
                            site.commit(|queue| {
                                queue.unsend(at(now), id(number), &line_down()).unwrap();
                                queue.cancel(at(now), None, id(number)).unwrap();
                            });
                        }
                        End::SilentButDone | End::SilentAndNot => {
                            site.commit(|queue| queue.finish(at(now), id(number), no_answer())).unwrap();
                            let verdict = match end {
                                End::SilentButDone => Verdict::Done,
                                _ => Verdict::NotDone,
                            };
                            doubts.push((number, verdict));
                        }
                    }
                }
            }
            for room in site.queue.rooms(None).unwrap().into_iter().filter(|room| room.certain) {
                let known = room.reservation_key.map(String::from);
                prop_assert_eq!(known.as_ref(), truth.holders.get(room.room.as_str()));
            }
        }
    }
}

#[test]
fn a_card_that_was_written_in_doubt_proves_itself_when_it_is_read() {
    let mut site = Site::new();
    site.done(0, job(1, ending(card(&["101"], "earlier"), CARD_END - 60)));
    site.send(1, job(2, card(&["101"], "stay")));
    site.queue.finish(at(2), id(2), no_answer()).unwrap();
    site.queue.note_card_seen(at(3), &system(), &guest_card("101", CARD_END - 60)).unwrap();
    assert_eq!(site.state(2), JobState::Unknown, "the earlier guest's card proves nothing");
    site.queue.note_card_seen(at(4), &system(), &guest_card("101", CARD_END)).unwrap();
    assert_eq!(site.state(2), JobState::Succeeded);
    let room = site.room("101");
    assert_eq!((room.certain, room.reservation_key.unwrap().as_str()), (true, "stay"));
    let detail = site.queue.job(id(2)).unwrap().unwrap();
    assert!(detail.resolution.unwrap().by.contains("read"));
    assert!(matches!(site.reports().last(), Some((_, Message::Resolution(report))) if report.revision == 2));
    site.done(5, job(3, card(&["101"], "stay")));
}

#[test]
fn a_card_that_could_be_another_one_settles_no_doubt() {
    // An earlier stay's card with the same end.
    let mut site = Site::new();
    site.done(0, job(1, card(&["101"], "earlier")));
    site.send(1, job(2, card(&["101"], "stay")));
    site.queue.finish(at(2), id(2), no_answer()).unwrap();
    site.queue.note_card_seen(at(3), &system(), &guest_card("101", CARD_END)).unwrap();
    assert_eq!(site.state(2), JobState::Unknown);
    // A room of which nothing is known: there may be cards from before.
    let mut site = Site::new();
    site.send(1, job(2, card(&["101"], "stay")));
    site.queue.finish(at(2), id(2), no_answer()).unwrap();
    site.queue.note_card_seen(at(3), &system(), &guest_card("101", CARD_END)).unwrap();
    assert_eq!(site.state(2), JobState::Unknown);
    // A system on which others make cards too.
    let mut site = shared(Sharing::Shared);
    site.done(0, job(1, ending(card(&["101"], "earlier"), CARD_END - 60)));
    site.send(1, job(2, card(&["101"], "stay")));
    site.queue.finish(at(2), id(2), no_answer()).unwrap();
    site.queue.note_card_seen(at(3), &system(), &guest_card("101", CARD_END)).unwrap();
    assert_eq!(site.state(2), JobState::Unknown);
}

fn copy_of(site: &Site, is_current: bool) -> LedgerCopy {
    LedgerCopy { is_current, rooms: site.queue.rooms(None).unwrap() }
}

#[test]
fn new_hardware_goes_on_where_the_old_one_stood_if_somebody_vouches_for_it() {
    let mut old = Site::new();
    old.done(0, job(1, card(&["101"], "a")));
    let mut new = Site::new();
    let imported = new.queue.import_ledger(at(10), &copy_of(&old, true)).unwrap();
    assert_eq!((imported.rooms, imported.uncertain, imported.kept), (1, 0, 0));
    assert_eq!(new.audited(), ["ledger_imported"]);
    // To its cloud it has forgotten everything; what it has was told by that cloud, and somebody's word stands for it.
    let behind = Some(EpochReason::ReceiverBehind);
    assert!(new.queue.continue_orders(at(10), 2, behind).unwrap());
    assert_eq!(holder(&new, "101"), (Some("a".into()), true));
    let ordered = |number, stay| Job { created_at: at(11), ..job(number, card(&["101"], stay)) };
    assert_eq!(new.done(11, ordered(2, "a")).treatment, Treatment::Join);
    assert_eq!(new.room("101").cards, 2);
    assert_eq!(new.done(12, ordered(3, "b")).treatment, Treatment::Override);
    assert_eq!(new.refused(13, ordered(4, "a")), Code::RoomHeldByOtherReservation);
}

#[test]
fn where_nobody_vouches_for_the_copy_no_further_card_of_a_stay_is_made_and_the_next_stay_begins() {
    let mut old = Site::new();
    old.done(0, job(1, card(&["101"], "a")));
    old.done(0, job(2, card(&["102"], "c")));
    old.send(1, job(3, card(&["102"], "d")));
    old.queue.finish(at(1), id(3), no_answer()).unwrap();
    let mut new = Site::new();
    let imported = new.queue.import_ledger(at(10), &copy_of(&old, false)).unwrap();
    assert_eq!((imported.rooms, imported.uncertain), (2, 2));
    assert_eq!(new.refused(11, job(4, card(&["101"], "a"))), Code::RoomStateUnknown);
    assert_eq!(new.done(12, job(5, card(&["101"], "b"))).treatment, Treatment::Override);
    // Nor does anybody's word make a room certain that the old bridge itself was in doubt about.
    let mut vouched = Site::new();
    let imported = vouched.queue.import_ledger(at(10), &copy_of(&old, true)).unwrap();
    assert_eq!((imported.rooms, imported.uncertain), (2, 1));
    assert_eq!(vouched.refused(11, job(6, card(&["102"], "d"))), Code::RoomStateUnknown);
}

#[test]
fn a_live_card_settles_a_room_of_the_copy_on_new_hardware_as_it_would_have_on_the_old() {
    let mut old = Site::new();
    old.done(0, job(1, card(&["101"], "a")));
    let copy = copy_of(&old, false);
    assert_eq!(copy.rooms[0].printed_ends, [at(CARD_END)]);
    let mut new = Site::new();
    new.queue.import_ledger(at(10), &copy).unwrap();
    new.queue.note_card_seen(at(11), &system(), &guest_card("101", CARD_END + 60)).unwrap();
    assert_eq!(holder(&new, "101"), (Some("a".into()), false), "a card of another stay proves nothing");
    new.queue.note_card_seen(at(12), &system(), &guest_card("101", CARD_END)).unwrap();
    assert_eq!(holder(&new, "101"), (Some("a".into()), true));
    assert_eq!(new.done(13, job(2, card(&["101"], "a"))).treatment, Treatment::Join);
}

#[test]
fn a_queue_with_a_past_of_its_own_keeps_it_and_a_copy_twice_is_a_copy_once() {
    let mut old = Site::new();
    old.done(0, job(1, card(&["101"], "a")));
    old.done(0, job(2, card(&["102"], "a")));
    let mut site = Site::new();
    site.done(5, job(3, card(&["101"], "b")));
    let imported = site.queue.import_ledger(at(10), &copy_of(&old, true)).unwrap();
    assert_eq!((imported.rooms, imported.kept), (1, 1));
    assert_eq!(holder(&site, "101"), (Some("b".into()), true));
    site.done(11, job(4, card(&["102"], "c")));
    let again = site.queue.import_ledger(at(12), &copy_of(&old, true)).unwrap();
    assert_eq!((again.rooms, again.kept), (0, 2));
    assert_eq!(holder(&site, "102"), (Some("c".into()), true));
}

/// A card whose window ends at this second.
fn ending(order: Order, ends_at: i64) -> Order {
    let Order::CardEncode(card) = order else { panic!("{order:?}") };
    let window = Window::new(card.window.starts_at(), Some(at(ends_at))).unwrap();
    Order::CardEncode(CardEncode { window, ..card })
}
