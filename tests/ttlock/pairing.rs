//! A lock that belongs to nobody comes to belong to this site, whatever breaks off on the way.

use std::time::{Duration, Instant};

use jiff::{Timestamp, tz::TimeZone};
use latchd::{
    drivers::ttlock::{
        codec::{Decoded, Header, Key, decode},
        message::Numbers,
        session::{Came, Conversation, Keys, Manners, NOTIFY, Note, Task},
        sim::TtLock,
    },
    model::Code,
    sim::ble::peripheral::Peripheral,
    transport::ble::gatt::{Heard, Talk, Want},
};

use super::pump::{Cut, Pumped, pump};

const NUMBERS: Numbers = Numbers { admin: 970_456_745, unlock: 344_382_141 };

fn now() -> Timestamp {
    "2020-11-11T17:52:39Z".parse().unwrap()
}

fn fresh() -> TtLock {
    TtLock::new("Room 7", [1, 2, 3, 4, 5, 6], [9; 16], now())
}

fn conversation(task: Task, keys: Keys) -> Conversation {
    let zone = TimeZone::get("Europe/Helsinki").unwrap();
    let manners = Manners { answer_timeout: Duration::from_secs(5), now: now(), zone, keys, features: None };
    Conversation::new(task, manners)
}

fn talk(lock: &mut TtLock, task: Task, keys: &Keys, cut: Cut) -> Pumped<Came, Note> {
    pump(&mut conversation(task, keys.clone()), lock, now(), cut)
}

/// An introduction and what follows it over one connection, as whoever pairs a lock holds them.
struct InOne {
    talk: Conversation,
    keys: Option<Keys>,
}

impl Talk for InOne {
    type Done = Came;
    type Note = Note;

    fn poll(&mut self, now: Instant) -> Want<Came, Note> {
        match self.talk.poll(now) {
            Want::Note(Note::Introduced { header, key }) => {
                let keys = Keys { header, key, numbers: NUMBERS, flag_position: 0 };
                self.talk = conversation(Task::Admit, keys.clone());
                self.keys = Some(keys);
                self.talk.poll(now)
            }
            want => want,
        }
    }

    fn handle(&mut self, now: Instant, heard: Heard<'_>) {
        self.talk.handle(now, heard);
    }
}

/// Pairs a lock; with its keys, if they came to be known.
fn pair(lock: &mut TtLock, cut: Cut) -> (Option<Keys>, Pumped<Came, Note>) {
    let mut talk = InOne { talk: conversation(Task::Introduce, Keys::of_nobody(NUMBERS)), keys: None };
    let pumped = pump(&mut talk, lock, now(), cut);
    (talk.keys, pumped)
}

#[test]
fn a_lock_that_belongs_to_nobody_is_taken_and_knows_its_keys_and_the_time_from_then_on() {
    let mut lock = fresh();
    let (keys, Pumped { done, notes, .. }) = pair(&mut lock, Cut::Never);
    let keys = keys.unwrap();
    assert_eq!((done, keys.header.scene, *keys.key.expose()), (Came::Done, 7, [9; 16]));
    assert!(notes.contains(&Note::Leaves), "{notes:?}");
    let clock = lock.control(now(), "clock").unwrap();
    assert!(clock.contains("2020-11-11T19:52:3"), "{clock}");
    assert_eq!(talk(&mut lock, Task::Look, &keys, Cut::Never).done, Came::Done);
    let others = Keys { numbers: Numbers { unlock: 1, ..NUMBERS }, ..keys };
    assert!(matches!(talk(&mut lock, Task::Look, &others, Cut::Never).done, Came::NotDone(_)));
}

#[test]
fn a_lock_that_belongs_to_somebody_is_not_taken() {
    let mut lock = fresh();
    let keys = pair(&mut lock, Cut::Never).0.unwrap();
    match pair(&mut lock, Cut::Never) {
        (None, Pumped { done: Came::NotDone(refusal), .. }) => assert_eq!(refusal.code, Code::Auth),
        (_, Pumped { done, .. }) => panic!("{done:?}"),
    }
    assert_eq!(talk(&mut lock, Task::Look, &keys, Cut::Never).done, Came::Done);
}

#[test]
fn wherever_a_pairing_breaks_off_the_keys_that_were_kept_tell_whose_the_lock_is() {
    let (_, Pumped { written, notified, .. }) = pair(&mut fresh(), Cut::Never);
    let cuts = (0..written).map(Cut::Write).chain((0..notified).map(Cut::Value));
    let cuts = cuts.map(|cut| (cut, String::new()));
    let kinds = ["mute", "damage", "drop_before", "drop_after", "double", "chatter", "frozen"];
    let faults = (1..7).flat_map(|n| kinds.map(|kind| (Cut::Never, format!("fault {kind} {n}"))));
    let (mut ours, mut nobodys) = (0, 0);
    for (cut, fault) in cuts.chain(faults) {
        let mut lock = fresh();
        if !fault.is_empty() {
            lock.control(now(), &fault).unwrap();
        }
        let (keys, Pumped { done: came, .. }) = pair(&mut lock, cut);
        lock.control(now(), "heal").unwrap();
        let seen = keys.as_ref().map(|keys| talk(&mut lock, Task::Look, keys, Cut::Never).done);
        let place = format!("{cut:?} {fault}: {came:?}, then {seen:?}");
        match (&came, &seen) {
            // What is said to be so is so.
            (Came::Done | Came::Doubt(_), Some(Came::Done)) => ours += 1,
            (Came::NotDone(_) | Came::NothingSent(_) | Came::Doubt(_), Some(Came::NotDone(_)))
            | (Came::NotDone(_) | Came::NothingSent(_), None) => {
                nobodys += 1;
                let (keys, Pumped { done, .. }) = pair(&mut lock, Cut::Never);
                assert_eq!(done, Came::Done, "{place}");
                let keys = keys.unwrap();
                assert_eq!(talk(&mut lock, Task::Look, &keys, Cut::Never).done, Came::Done, "{place}");
            }
            _ => panic!("{place}"),
        }
    }
    assert!(3 < ours && 3 < nobodys, "{ours} {nobodys}");
}

/// Plays recorded answers to a conversation, and returns what it wrote.
fn recorded(mut talk: Conversation, answers: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<Note>) {
    let mut now = Instant::now();
    let (mut frames, mut heard, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    let mut answers = answers.iter();
    loop {
        match talk.poll(now) {
            Want::Subscribe(_) => {}
            Want::Write { value, .. } => {
                heard.extend(value);
                if let Decoded::Frame { used, .. } = decode(&heard) {
                    frames.push(heard.drain(..used).collect());
                    let Some(answer) = answers.next() else { return (frames, notes) };
                    // Pieces as small as a lock without a larger size sends them.
                    for value in answer.chunks(20) {
                        talk.handle(now, Heard::Value { from: NOTIFY, value });
                    }
                }
            }
            Want::Wait { until } => now = until,
            Want::Note(note) => notes.push(note),
            Want::Done(_) => return (frames, notes),
        }
    }
}

#[test]
fn the_recorded_pairing_is_held_byte_for_byte() {
    let mut vectors = super::vectors::Vectors::load();
    let mut take = |numbers: &[u16]| numbers.iter().map(|n| vectors.take(*n)).collect::<Vec<_>>();
    let of_nobody = conversation(Task::Introduce, Keys::of_nobody(NUMBERS));
    let (asked, notes) = recorded(of_nobody, &take(&[8, 3]));
    assert_eq!(asked, take(&[1, 2]));
    let [Note::Introduced { header, key }] = notes.as_slice() else { panic!("{notes:?}") };
    assert_eq!(*header, Header { scene: 7, ..Header::UNKNOWN });
    let keys = Keys { header: *header, key: Key::new(*key.expose()), numbers: NUMBERS, flag_position: 0 };
    let (asked, _) = recorded(conversation(Task::Admit, keys), &take(&[5]));
    assert_eq!(asked, take(&[4, 6]));
}
