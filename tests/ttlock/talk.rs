//! Conversations with the pretend lock; its table is the judge.

use std::time::Duration;

use jiff::{Timestamp, civil::datetime, tz::TimeZone};
use latchd::{
    drivers::ttlock::{
        codec::{Header, Key},
        message::{CardNumber, Numbers, Span},
        session::{Came, Content, Conversation, Keys, Manners, Note, Task},
        sim::{Pairing, TtLock},
    },
    model::{Code, Private},
    sim::ble::peripheral::Peripheral,
};

use super::pump::{Cut, Pumped, pump};

const KEY: [u8; 16] = [9; 16];
const WINDOW: &str = "2026-12-01T15:00:00 2026-12-03T11:00:00";

fn now() -> Timestamp {
    "2026-12-01T10:00:00Z".parse().unwrap()
}

fn lock() -> TtLock {
    let pairing = Pairing { key: KEY, admin: 970_456_745, unlock: 344_382_141, flag_position: 5 };
    TtLock::paired("Room 7", [1, 2, 3, 4, 5, 6], pairing, now())
}

fn manners() -> Manners {
    let header = Header { protocol: 5, sub: 3, scene: 7, group: 1, organisation: 1 };
    let numbers = Numbers { admin: 970_456_745, unlock: 344_382_141 };
    Manners {
        answer_timeout: Duration::from_secs(5),
        now: now(),
        zone: TimeZone::get("Europe/Oslo").unwrap(),
        keys: Keys { header, key: Key::new(KEY), numbers, flag_position: 5 },
        features: None,
    }
}

fn pin(digits: &str) -> Content {
    Content::Pin(Private::new(digits))
}

fn card(number: u64) -> Content {
    Content::Card(CardNumber::new(number))
}

fn span() -> Span {
    Span { starts_at: datetime(2026, 12, 1, 15, 0, 0, 0), ends_at: Some(datetime(2026, 12, 3, 11, 0, 0, 0)) }
}

fn put(content: Content, may_hold: &[Content]) -> Task {
    Task::Put { content, span: span(), may_hold: may_hold.to_vec() }
}

fn talk(lock: &mut TtLock, task: Task, cut: Cut) -> Pumped<Came, Note> {
    pump(&mut Conversation::new(task, manners()), lock, now(), cut)
}

#[track_caller]
fn ends(lock: &mut TtLock, task: Task, expected: &Came) {
    assert_eq!(talk(lock, task, Cut::Never).done, *expected);
}

#[track_caller]
fn is_refused(lock: &mut TtLock, task: Task, code: Code) {
    match talk(lock, task, Cut::Never).done {
        Came::NotDone(refusal) if refusal.code == code => {}
        other => panic!("{other:?}"),
    }
}

fn told(lock: &mut TtLock, command: &str) -> String {
    lock.control(now(), command).unwrap()
}

#[test]
fn a_code_is_put_in_its_window_and_opens_there_alone() {
    let mut lock = lock();
    ends(&mut lock, put(pin("135790"), &[]), &Came::Done);
    assert_eq!(told(&mut lock, "slots"), format!("135790 {WINDOW}"));
    // Oslo is an hour ahead of UTC in winter, and the lock's clock was set to that, to the second.
    for (at, expected) in [
        ("2026-12-01T13:59:59Z", "too early"),
        ("2026-12-01T14:00:01Z", "opens"),
        ("2026-12-03T09:59:59Z", "opens"),
        ("2026-12-03T10:00:01Z", "over"),
    ] {
        assert_eq!(lock.control(at.parse().unwrap(), "try 135790").unwrap(), expected, "{at}");
    }
    assert_eq!(told(&mut lock, "try 111111"), "unknown");
}

#[test]
fn another_code_takes_the_place_of_the_one_that_the_slot_holds() {
    let mut lock = lock();
    ends(&mut lock, put(pin("135790"), &[]), &Came::Done);
    ends(&mut lock, put(pin("24680"), &[pin("135790")]), &Came::Done);
    assert_eq!(told(&mut lock, "slots"), format!("24680 {WINDOW}"));
    // The same one once more, with whatever else may be there by a doubt.
    told(&mut lock, "foreign 7777");
    ends(&mut lock, put(pin("24680"), &[pin("9999"), pin("7777"), pin("24680")]), &Came::Done);
    assert_eq!(told(&mut lock, "slots"), format!("24680 {WINDOW}"));
}

#[test]
fn a_code_that_somebody_else_wrote_is_a_collision_and_the_former_one_stays() {
    let mut lock = lock();
    told(&mut lock, "foreign 24680");
    is_refused(&mut lock, put(pin("24680"), &[]), Code::ContentTaken);
    ends(&mut lock, put(pin("135790"), &[]), &Came::Done);
    is_refused(&mut lock, put(pin("24680"), &[pin("135790")]), Code::ContentTaken);
    assert_eq!(told(&mut lock, "slots"), format!("135790 {WINDOW}; 24680 2000-01-01T00:00:00 -"));
}

#[test]
fn a_slot_is_emptied_whatever_it_holds() {
    let mut lock = lock();
    ends(&mut lock, put(pin("135790"), &[]), &Came::Done);
    ends(&mut lock, put(card(77), &[pin("135790")]), &Came::Done);
    assert_eq!(told(&mut lock, "slots"), format!("card:77 {WINDOW}"));
    let held = vec![pin("135790"), card(77), card(u64::MAX)];
    ends(&mut lock, Task::Remove { may_hold: held.clone() }, &Came::Done);
    ends(&mut lock, Task::ProveRemove { may_hold: held.clone() }, &Came::Done);
    assert_eq!(told(&mut lock, "slots"), "");
    ends(&mut lock, Task::Remove { may_hold: held }, &Came::Done);
}

#[test]
fn many_entries_are_read_to_the_end() {
    let mut lock = lock();
    for number in 1000..1037 {
        told(&mut lock, &format!("foreign {number}"));
    }
    for number in [8, 9, 10, 11, 12, 0x04A1_B2C3_D4E5_F680] {
        ends(&mut lock, put(card(number), &[]), &Came::Done);
    }
    ends(&mut lock, put(pin("9999"), &[]), &Came::Done);
    let proof = Task::ProvePut { content: pin("9999"), span: span(), may_hold: Vec::new() };
    ends(&mut lock, proof, &Came::Done);
}

#[test]
fn a_full_lock_a_lock_without_a_reader_and_one_without_a_clock_say_so() {
    let mut lock = lock();
    told(&mut lock, "capacity 1");
    ends(&mut lock, put(pin("135790"), &[]), &Came::Done);
    is_refused(&mut lock, put(pin("24680"), &[]), Code::SlotsFull);
    // In place of the one that it has there is room.
    ends(&mut lock, put(pin("24680"), &[pin("135790")]), &Came::Done);
    told(&mut lock, "features 71c4f5f1");
    is_refused(&mut lock, put(card(77), &[]), Code::Unsupported);
    told(&mut lock, "features 71d4f5f1");
    is_refused(&mut lock, put(pin("24680"), &[]), Code::Unsupported);
    let always = Span { ends_at: None, ..span() };
    let task = Task::Put { content: pin("24680"), span: always, may_hold: vec![pin("24680")] };
    ends(&mut lock, task, &Came::Done);
}

#[test]
fn other_rights_than_the_locks_are_told_as_that() {
    for change in [
        |manners: &mut Manners| manners.keys.key = Key::new([1; 16]),
        |manners: &mut Manners| manners.keys.numbers.admin += 1,
        |manners: &mut Manners| manners.keys.numbers.unlock += 1,
        |manners: &mut Manners| manners.keys.flag_position += 1,
    ] {
        let (mut lock, mut manners) = (lock(), manners());
        change(&mut manners);
        let pumped =
            pump(&mut Conversation::new(put(pin("135790"), &[]), manners), &mut lock, now(), Cut::Never);
        assert!(
            matches!(&pumped.done, Came::NotDone(refusal) if refusal.code == Code::Auth),
            "{:?}",
            pumped.done
        );
        assert_eq!(told(&mut lock, "slots"), "");
    }
}

#[test]
fn what_the_lock_does_wrong_is_never_taken_for_done() {
    // A state told unasked and an answer that comes twice do no harm.
    for frame in 1..=8 {
        for fault in ["chatter", "double"] {
            let mut lock = lock();
            told(&mut lock, &format!("fault {fault} {frame}"));
            ends(&mut lock, put(pin("135790"), &[]), &Came::Done);
            assert_eq!(told(&mut lock, "slots"), format!("135790 {WINDOW}"));
        }
    }
    let mut lock = lock();
    told(&mut lock, "fault forgets");
    let done = talk(&mut lock, put(pin("135790"), &[]), Cut::Never).done;
    assert!(matches!(done, Came::Doubt(_)), "{done:?}");
    told(&mut lock, "fault frozen 2");
    let done = talk(&mut lock, put(pin("135790"), &[]), Cut::Never).done;
    assert!(matches!(done, Came::NothingSent(_)), "{done:?}");
}

/// Runs a task with the link cut, or an answer lost or damaged, at every single place; then once more, as after a doubt.
fn at_every_place(prepare: impl Fn(&mut TtLock), task: impl Fn(bool) -> Task, before: &str, after: &str) {
    let fresh = || {
        let mut lock = lock();
        prepare(&mut lock);
        lock
    };
    let mut whole = fresh();
    let Pumped { done, written, notified, .. } = talk(&mut whole, task(false), Cut::Never);
    assert_eq!((done, told(&mut whole, "slots").as_str()), (Came::Done, after));
    assert!(8 < written && 8 < notified, "{written} {notified}");
    let cuts = (0..written).map(Cut::Write).chain((0..notified).map(Cut::Value));
    let cuts = cuts.map(|cut| (cut, String::new()));
    let frames = 1..20;
    let faults = ["mute", "damage", "drop_before", "drop_after"];
    let faults = frames.flat_map(|n| faults.map(|fault| (Cut::Never, format!("fault {fault} {n}"))));
    for (cut, fault) in cuts.chain(faults) {
        let mut lock = fresh();
        if !fault.is_empty() {
            told(&mut lock, &fault);
        }
        let came = talk(&mut lock, task(false), cut).done;
        let slots = told(&mut lock, "slots");
        let place = format!("{cut:?} {fault}: {came:?}, {slots}");
        match came {
            Came::Done => assert_eq!(slots, after, "{place}"),
            Came::NothingSent(_) | Came::NotDone(_) => assert_eq!(slots, before, "{place}"),
            Came::Doubt(_) => {}
        }
        told(&mut lock, "heal");
        ends(&mut lock, task(true), &Came::Done);
        assert_eq!(told(&mut lock, "slots"), after, "{place}");
    }
}

#[test]
fn a_put_that_breaks_off_anywhere_is_never_told_wrong_and_is_mended_by_the_next() {
    let task = |again: bool| {
        let held: Vec<_> = again.then(|| pin("135790")).into_iter().collect();
        put(pin("135790"), &held)
    };
    at_every_place(|_| {}, task, "", &format!("135790 {WINDOW}"));
}

#[test]
fn a_change_that_breaks_off_anywhere_leaves_one_or_the_other() {
    let (old, new) = (pin("135790"), pin("24680"));
    let prepare = |lock: &mut TtLock| ends(lock, put(pin("135790"), &[]), &Came::Done);
    let task = |again: bool| {
        let mut held = vec![old.clone()];
        held.extend(again.then(|| new.clone()));
        put(new.clone(), &held)
    };
    at_every_place(prepare, task, &format!("135790 {WINDOW}"), &format!("24680 {WINDOW}"));
}

#[test]
fn a_removal_that_breaks_off_anywhere_is_never_told_wrong() {
    let prepare = |lock: &mut TtLock| {
        ends(lock, put(pin("135790"), &[]), &Came::Done);
    };
    let task = |_| Task::Remove { may_hold: vec![pin("135790"), card(77)] };
    at_every_place(prepare, task, &format!("135790 {WINDOW}"), "");
}

#[test]
fn a_door_is_opened_once_and_silence_behind_that_is_a_doubt() {
    let mut whole = lock();
    let Pumped { done, written, notified, .. } = talk(&mut whole, Task::Unlock, Cut::Never);
    assert_eq!((done, told(&mut whole, "done").as_str()), (Came::Done, "0 writes, 1 opens"));
    for cut in (0..written).map(Cut::Write).chain((0..notified).map(Cut::Value)) {
        let mut lock = lock();
        let came = talk(&mut lock, Task::Unlock, cut).done;
        let opened = told(&mut lock, "done") == "0 writes, 1 opens";
        match came {
            Came::Done => assert!(opened, "{cut:?}"),
            Came::NothingSent(_) | Came::NotDone(_) => assert!(!opened, "{cut:?}"),
            Came::Doubt(_) => {}
        }
    }
}

#[test]
fn a_card_is_enrolled_at_the_reader_and_gets_its_window() {
    let mut lock = lock();
    told(&mut lock, "hold_card 3735928559");
    let pumped = talk(&mut lock, Task::Enrol { span: span() }, Cut::Never);
    assert_eq!(pumped.done, Came::Done);
    assert!(pumped.notes.contains(&Note::WaitsForCard), "{:?}", pumped.notes);
    assert!(pumped.notes.contains(&Note::Enrolled(CardNumber::new(3_735_928_559))));
    assert_eq!(told(&mut lock, "slots"), format!("card:3735928559 {WINDOW}"));
    // Nobody comes.
    let pumped = talk(&mut lock, Task::Enrol { span: span() }, Cut::Never);
    assert!(
        matches!(&pumped.done, Came::Doubt(refusal) if refusal.code == Code::NoCard),
        "{:?}",
        pumped.done
    );
    assert!(
        Duration::from_secs(25) <= pumped.took && pumped.took < Duration::from_secs(30),
        "{:?}",
        pumped.took
    );
}

#[test]
fn what_happened_is_read_from_where_it_was_read_to() {
    let mut lock = lock();
    ends(&mut lock, put(pin("135790"), &[]), &Came::Done);
    let at: Timestamp = "2026-12-01T15:00:30Z".parse().unwrap();
    for _ in 0..9 {
        lock.control(at, "try 135790").unwrap();
    }
    let did = |lock: &mut TtLock, from| {
        let notes = talk(lock, Task::Watch { from }, Cut::Never).notes;
        notes.into_iter().find_map(|note| match note {
            Note::Did { records, next, more } => Some((records, next, more)),
            _ => None,
        })
    };
    let (records, next, more) = did(&mut lock, 0).unwrap();
    assert_eq!((records.len(), next, more), (9, 9, false));
    assert_eq!(
        (records[0].kind, records[0].at.with().second(0).build().unwrap()),
        (4, datetime(2026, 12, 1, 16, 0, 0, 0))
    );
    assert_eq!(records[0].digits, Some(Private::new("135790")));
    assert_eq!(did(&mut lock, 9), Some((Vec::new(), 9, false)));
    let (records, ..) = did(&mut lock, 8).unwrap();
    assert_eq!(records.len(), 1);
    // A lock whose memory is shorter than the mark was set back.
    let notes = talk(&mut lock, Task::Watch { from: 100 }, Cut::Never).notes;
    assert!(notes.contains(&Note::Forgotten), "{notes:?}");
}

#[test]
fn how_it_is_is_told_and_its_clock_is_set() {
    let mut lock = lock();
    told(&mut lock, "battery 12");
    let notes = talk(&mut lock, Task::Look, Cut::Never).notes;
    assert!(notes.contains(&Note::Battery(12)) && notes.contains(&Note::Locked(true)), "{notes:?}");
    assert!(told(&mut lock, "clock").starts_with("2026-12-01T10:59:59.9"));
}
