//! Conversations with a pretend August lock, with nothing between: what is done, what is refused, and what is said when a
//! value does not arrive. The lock's own table is the judge.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod lock;
mod pump;

use std::time::Duration;

use latchd::{
    drivers::august_yale::{
        codec::{Key, OfflineKey},
        message::{Access, Activity, Bolt, Door, Held, Pin, Slot},
        session::{Came, Note},
        task::{Before, Change, Motion, Task},
    },
    model::{Code, Refusal},
};
use serde_json::{Value, json};

use pump::{Air, Went};

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn pin(digits: &str) -> Pin {
    Pin::new(digits).unwrap()
}

fn window() -> Access {
    Access::window("2026-12-01T15:00:00Z".parse().unwrap(), "2026-12-03T11:00:00Z".parse().unwrap()).unwrap()
}

fn put(number: u16, digits: &str, access: Access) -> Change {
    Change::Put { slot: slot(number), pin: pin(digits), access }
}

fn remove(number: u16) -> Change {
    Change::Remove { slot: slot(number) }
}

/// What the table shows of a slot; null where it is empty.
fn shown(air: &mut Air, number: u16) -> Value {
    let slots = air.control("slots");
    let slots = slots["slots"].as_array().unwrap();
    slots.iter().find(|slot| slot["slot"] == number).cloned().unwrap_or(Value::Null)
}

fn windowed(number: u16, digits: &str) -> Value {
    json!({
        "slot": number,
        "pin": digits,
        "when": { "from": "2026-12-01T15:00:00Z", "until": "2026-12-03T11:00:00Z" },
    })
}

fn always(number: u16, digits: &str) -> Value {
    json!({ "slot": number, "pin": digits, "when": "always" })
}

fn opens(air: &mut Air, digits: &str, at: &str) -> bool {
    air.control(&format!("try {digits} {at}"))["opens"].as_bool().unwrap()
}

/// How often the lock did a command.
fn done(air: &mut Air, verb: &str) -> u64 {
    air.control("done")["done"][verb].as_u64().unwrap_or(0)
}

fn not_done(went: &Went) -> &Refusal {
    match &went.came {
        Came::NotDone(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pin_with_a_window_is_put_opens_inside_it_only_and_is_read_back() {
    let mut air = Air::new();
    // A clock that is wrong would spoil the window.
    air.control("clock set 2020-01-01T00:00:00Z");
    let went = air.hold(Task::Change(put(2, "123456", window())));
    assert_eq!(went.came, Came::Done);
    let holds = Held::Pin(pin("123456"));
    assert_eq!(went.notes, [Note::Bolt(Bolt::Locked), Note::Leaves, Note::Slot { slot: slot(2), holds }]);
    assert_eq!(shown(&mut air, 2), windowed(2, "123456"));
    assert_eq!(air.control("try 123456")["slot"], 2, "by the lock's clock, which is right now");
    for (at, expected) in [
        ("2026-12-01T14:59:59Z", false),
        ("2026-12-01T15:00:00Z", true),
        ("2026-12-03T10:59:59Z", true),
        ("2026-12-03T11:00:00Z", false),
    ] {
        assert_eq!(opens(&mut air, "123456", at), expected, "{at}");
    }
    assert!(!went.closed, "the lock need not hang up");
}

#[test]
fn commands_keep_their_distance_from_what_came_before() {
    let mut air = Air::new();
    let went = air.hold(Task::Change(put(2, "123456", window())));
    assert_eq!(went.written.len(), 7);
    for written in &went.written[1..] {
        let before = went.answered.iter().filter(|answered| *answered < written).max().unwrap();
        assert!(*written - *before >= Duration::from_millis(250), "{written:?} follows {before:?}");
    }
}

#[test]
fn a_pin_is_changed_and_removed_and_its_neighbours_stay() {
    let mut air = Air::new();
    air.control("put 1 4711");
    air.control("put 3 4713");
    assert_eq!(air.hold(Task::Change(put(2, "123456", Access::Always))).came, Came::Done);
    assert_eq!(shown(&mut air, 2), always(2, "123456"));
    assert_eq!(air.hold(Task::Change(put(2, "654321", window()))).came, Came::Done);
    assert_eq!(shown(&mut air, 2), windowed(2, "654321"));
    assert!(!opens(&mut air, "123456", "2026-12-02T00:00:00Z"));
    assert_eq!(air.hold(Task::Change(remove(2))).came, Came::Done);
    assert_eq!(shown(&mut air, 2), Value::Null);
    assert_eq!((shown(&mut air, 1), shown(&mut air, 3)), (always(1, "4711"), always(3, "4713")));
}

#[test]
fn the_same_pin_with_another_window_is_put_anew() {
    let mut air = Air::new();
    air.control("put 2 123456");
    assert_eq!(air.hold(Task::Change(put(2, "123456", window()))).came, Came::Done);
    assert_eq!(shown(&mut air, 2), windowed(2, "123456"));
}

#[test]
fn removing_from_an_empty_slot_is_done() {
    let mut air = Air::new();
    let went = air.hold(Task::Change(remove(4)));
    assert_eq!(went.came, Came::Done);
    assert!(went.left);
}

#[test]
fn slots_are_read_as_they_are() {
    let mut air = Air::new();
    air.control("put 0 4711");
    air.control("put 300 123456");
    let went = air.hold(Task::Read(vec![slot(0), slot(1), slot(300)]));
    assert_eq!(went.came, Came::Done);
    let note = |number, holds| Note::Slot { slot: slot(number), holds };
    let expected =
        [note(0, Held::Pin(pin("4711"))), note(1, Held::Nothing), note(300, Held::Pin(pin("123456")))];
    assert_eq!(went.notes, expected);
    assert!(!went.left);
}

#[test]
fn a_pin_of_another_slot_is_a_collision_and_the_slot_is_left_empty_and_said_to_be() {
    let mut air = Air::new();
    air.control("put 1 123456");
    air.control("put 2 4711");
    let went = air.hold(Task::Change(put(2, "123456", window())));
    let refusal = not_done(&went);
    assert_eq!((refusal.code, refusal.vendor_code.as_deref()), (Code::ContentTaken, Some("06")));
    assert!(refusal.message.ends_with("; slot 2 is empty now"), "{}", refusal.message);
    assert_eq!((shown(&mut air, 1), shown(&mut air, 2)), (always(1, "123456"), Value::Null));
}

#[test]
fn a_full_table_is_named_whether_it_is_full_or_says_so() {
    let mut air = Air::new();
    for number in 10..15 {
        air.control(&format!("put {number} 47{number}"));
    }
    assert_eq!(not_done(&air.hold(Task::Change(put(2, "123456", window())))).code, Code::SlotsFull);
    assert_eq!(air.hold(Task::Change(put(10, "123456", window()))).came, Came::Done, "it makes room first");
    air.control("fault full");
    let went = air.hold(Task::Change(put(11, "654321", window())));
    assert!(not_done(&went).message.ends_with("slot 11 is empty now"));
}

#[test]
fn a_wrong_key_or_its_wrong_number_is_named_and_nothing_leaves() {
    for key in [
        OfflineKey { key: Key::new([0x55; 16]), slot: 7 },
        OfflineKey { key: Key::new(*b"sixteen bytes of"), slot: 8 },
    ] {
        let mut air = Air::new();
        air.key = key;
        let went = air.hold(Task::Change(put(2, "123456", window())));
        assert!(
            matches!(&went.came, Came::NothingSent(refusal) if refusal.code == Code::Auth),
            "{:?}",
            went.came
        );
        assert_eq!(went.commands, 0);
    }
}

#[test]
fn a_busy_lock_is_busy_and_its_table_is_as_it_was() {
    let mut air = Air::new();
    air.control("put 2 4711");
    air.control("fault busy");
    for change in [put(2, "123456", window()), remove(2)] {
        let went = air.hold(Task::Change(change));
        assert_eq!(not_done(&went).code, Code::DeviceBusy);
        assert!(not_done(&went).message.ends_with("slot 2 is as before"));
        assert_eq!(shown(&mut air, 2), always(2, "4711"));
    }
    let went = air.hold(Task::Move(Motion::Unlock));
    assert_eq!(not_done(&went).code, Code::DeviceBusy);
}

#[test]
fn a_lock_that_is_busy_before_anything_left_was_sent_nothing() {
    let mut air = Air::new();
    for at in 1..=2 {
        air.control(&format!("fault refuse {at} 3e"));
        let went = air.hold(Task::Change(put(2, "123456", window())));
        let Came::NothingSent(refusal) = &went.came else { panic!("{:?}", went.came) };
        assert_eq!(refusal.code, Code::DeviceBusy);
    }
    assert_eq!(shown(&mut air, 2), Value::Null);
}

#[test]
fn whatever_a_lock_refuses_and_wherever_the_slot_is_as_it_is_said_to_be() {
    let codes = "01 03 04 05 06 07 08 1e 32 33 37 38 39 3a 3e 3f 45 c0";
    for code in codes.split(' ') {
        for at in 1..=7 {
            let mut air = Air::new();
            air.control("put 2 4711");
            air.control(&format!("fault refuse {at} {code}"));
            let went = air.hold(Task::Change(put(2, "123456", window())));
            let context = format!("{code} at {at}: {went:?}");
            let after = shown(&mut air, 2);
            judge(&went, &always(2, "4711"), &windowed(2, "123456"), &after, &context);
            assert!(went.came != Came::Done, "{context}");
        }
    }
}

#[test]
fn a_lock_that_takes_no_windows_says_so_and_takes_what_always_holds() {
    let mut air = Air::new();
    air.control("fault no-windows");
    let went = air.hold(Task::Change(put(2, "123456", window())));
    let refusal = not_done(&went);
    assert_eq!((refusal.code, refusal.vendor_code.as_deref()), (Code::Unsupported, Some("05")));
    assert!(refusal.message.ends_with("slot 2 is empty now"), "{}", refusal.message);
    assert_eq!(air.hold(Task::Change(put(2, "123456", Access::Always))).came, Came::Done);
}

#[test]
fn a_lock_without_a_keypad_takes_no_pin() {
    let mut air = Air::new();
    air.control("fault no-keypad");
    let went = air.hold(Task::Change(put(2, "123456", window())));
    assert_eq!(not_done(&went).vendor_code.as_deref(), Some("04"));
    let went = air.hold(Task::Read(vec![slot(2)]));
    assert_eq!(not_done(&went).vendor_code.as_deref(), Some("04"));
}

#[test]
fn a_look_tells_bolt_and_battery_and_does_without_a_battery_that_is_never_told() {
    let mut air = Air::new();
    let went = air.hold(Task::Look { battery: true });
    let battery = Note::Battery { millivolts: 5960 };
    assert_eq!((went.came, went.notes), (Came::Done, vec![Note::Bolt(Bolt::Locked), battery]));
    air.control("fault no-battery");
    let went = air.hold(Task::Look { battery: true });
    assert_eq!((went.came, went.notes), (Came::Done, vec![Note::Bolt(Bolt::Locked)]));
    assert_eq!(air.hold(Task::Look { battery: false }).commands, 1);
}

#[test]
fn the_bolt_turns_back_and_out_once_each() {
    let mut air = Air::new();
    assert_eq!(air.hold(Task::Move(Motion::Unlock)).came, Came::Done);
    assert_eq!(air.control("state")["bolt"], "03");
    let went = air.hold(Task::Move(Motion::Lock));
    assert_eq!((went.came, &went.notes[0]), (Came::Done, &Note::Bolt(Bolt::Unlocked)));
    assert_eq!(air.control("state")["bolt"], "05");
    assert_eq!((done(&mut air, "0a"), done(&mut air, "0b")), (1, 1));
}

#[test]
fn a_bolt_that_sticks_is_not_done() {
    let mut air = Air::new();
    air.control("fault jam");
    let went = air.hold(Task::Move(Motion::Lock));
    assert_eq!(not_done(&went).vendor_code.as_deref(), Some("1E"));
    assert_eq!(air.hold(Task::Look { battery: false }).notes, [Note::Bolt(Bolt::Jammed)]);
}

#[test]
fn what_happened_is_told_oldest_first_and_no_more_than_asked_for() {
    let mut air = Air::new();
    air.control("put 2 4711");
    assert_eq!(air.control("type 4712")["opened"], false);
    assert_eq!(air.control("type 4711")["slot"], 2);
    let opened = air.now;
    air.control("door open");
    assert_eq!(air.hold(Task::Move(Motion::Lock)).came, Came::Done);
    let went = air.hold(Task::Log { at_most: 2 });
    let happened: Vec<_> = went.notes.iter().filter(|note| **note != Note::Leaves).cloned().collect();
    let keypad = Activity::Keypad { at: opened, slot: 2 };
    let door = Activity::Door { at: opened, door: Door::Open };
    assert_eq!((went.came, happened), (Came::Done, vec![Note::Happened(keypad), Note::Happened(door)]));
    let went = air.hold(Task::Log { at_most: 100 });
    let [Note::Leaves, Note::Happened(Activity::Bolt { status: 5, remote: 3, .. })] = went.notes[..] else {
        panic!("{:?}", went.notes);
    };
    assert_eq!(air.control("state")["untold"], 0);
    assert_eq!(air.hold(Task::Log { at_most: 0 }).commands, 0);
}

#[test]
fn a_proof_only_reads_and_takes_no_pin_for_a_window() {
    let mut air = Air::new();
    let ordered = put(2, "123456", window());
    let prove = |air: &mut Air, change: &Change, before| {
        let went = air.hold(Task::Prove(change.clone(), before));
        assert!(!went.left && went.commands == 1);
        went.came
    };
    assert!(matches!(prove(&mut air, &ordered, Before::Unknown), Came::NotDone(_)));
    assert_eq!(prove(&mut air, &remove(2), Before::Unknown), Came::Done);
    air.control("put 2 4711");
    assert!(matches!(prove(&mut air, &ordered, Before::Unknown), Came::NotDone(_)));
    assert!(matches!(prove(&mut air, &remove(2), Before::Unknown), Came::NotDone(_)));
    air.control("put 2 123456");
    assert!(matches!(prove(&mut air, &ordered, Before::Unknown), Came::Doubt(_)), "it may be the old one");
    assert_eq!(prove(&mut air, &ordered, Before::Otherwise), Came::Done);
}

/// Holds what came of a change against the lock's own table.
fn judge(went: &Went, before: &Value, ordered: &Value, after: &Value, context: &str) {
    assert!([before, ordered, &Value::Null].contains(&after), "{context}: {after}");
    let refusal = match &went.came {
        Came::Done => {
            assert_eq!(after, ordered, "{context}");
            return;
        }
        Came::NothingSent(_) => {
            assert!(!went.left, "{context}");
            assert_eq!(after, before, "{context}");
            return;
        }
        Came::NotDone(refusal) => {
            assert!(after != ordered || before == ordered, "{context}");
            refusal
        }
        Came::Doubt(refusal) => {
            assert!(went.left, "{context}");
            refusal
        }
    };
    let says = |words: &str| refusal.message.ends_with(words);
    assert!(!says("is empty now") || after.is_null(), "{context}");
    assert!(!says("is as before") || after == before, "{context}");
    assert!(!says("is as before, or empty now") || after == before || after.is_null(), "{context}");
    assert!(!says("is empty now, or holds the PIN") || after == ordered || after.is_null(), "{context}");
}

/// Lets each value of a conversation go wrong in turn, and judges what came of it, until none is left to go wrong.
/// Returns how many there were.
fn everywhere(
    fault: &str,
    prepare: impl Fn(&mut Air),
    task: &Task,
    mut judge: impl FnMut(&mut Air, &Went, &str),
) -> u32 {
    for at in 1.. {
        let mut air = Air::new();
        prepare(&mut air);
        air.control(&format!("fault {fault} {at}"));
        let went = air.hold(task.clone());
        let armed = air.control("fault show")["faults"][fault.replace('-', "_")].clone();
        air.control("fault clear");
        judge(&mut air, &went, &format!("{task:?}, {fault} {at}: {went:?}"));
        if !armed.is_null() {
            assert_eq!(went.came, Came::Done, "nothing went wrong");
            return at - 1;
        }
    }
    unreachable!()
}

/// How values go wrong on the way to the lock, and on the way back.
const THERE: [&str; 2] = ["cut-before", "cut-after"];
const BACK: [&str; 4] = ["cut-answer", "lose", "damage", "duplicate"];

#[test]
fn wherever_a_value_goes_wrong_nothing_is_said_that_the_table_does_not_show() {
    let put_it = (put(2, "123456", window()), windowed(2, "123456"), 7);
    let remove_it = (remove(2), Value::Null, 3);
    for (change, ordered, commands) in [put_it, remove_it] {
        for held in [None, Some("4711"), Some("123456")] {
            let before = held.map_or(Value::Null, |held| always(2, held));
            let prepare = |air: &mut Air| {
                air.control("put 1 1111");
                if let Some(held) = held {
                    air.control(&format!("put 2 {held}"));
                }
            };
            let task = Task::Change(change.clone());
            let judge = |air: &mut Air, went: &Went, context: &str| {
                let context = format!("over {held:?}: {context}");
                let after = shown(air, 2);
                judge(went, &before, &ordered, &after, &context);
                // Once more, with nothing wrong, ends the same.
                assert_eq!(air.hold(task.clone()).came, Came::Done, "{context}");
                assert_eq!(shown(air, 2), ordered, "{context}");
                assert_eq!(shown(air, 1), always(1, "1111"), "{context}");
            };
            // The handshake has two values each way, the end one; a command is answered twice.
            for fault in THERE {
                assert_eq!(everywhere(fault, prepare, &task, judge), 2 + commands + 1);
            }
            for fault in BACK {
                assert_eq!(everywhere(fault, prepare, &task, judge), 2 + 2 * commands + 1);
            }
        }
    }
}

#[test]
fn wherever_a_value_goes_wrong_the_bolt_turns_no_more_than_once() {
    for fault in THERE.into_iter().chain(BACK) {
        everywhere(
            fault,
            |_| {},
            &Task::Move(Motion::Unlock),
            |air, went, context| {
                let turned = done(air, "0a");
                assert!(turned <= 1, "{context}");
                match &went.came {
                    Came::Done => {
                        assert_eq!(turned, 1, "{context}");
                        assert_eq!(air.control("state")["bolt"], "03", "{context}");
                    }
                    Came::NothingSent(_) => assert!(turned == 0 && !went.left, "{context}"),
                    Came::NotDone(_) => panic!("nothing was refused: {context}"),
                    Came::Doubt(_) => assert!(went.left, "{context}"),
                }
            },
        );
    }
}

#[test]
fn wherever_a_value_goes_wrong_a_reading_tells_what_is_there_and_sends_nothing_that_changes() {
    let prepare = |air: &mut Air| {
        air.control("put 1 4711");
    };
    for fault in THERE.into_iter().chain(BACK) {
        everywhere(fault, prepare, &Task::Read(vec![slot(1), slot(2)]), |_, went, context| {
            let expected = [
                Note::Slot { slot: slot(1), holds: Held::Pin(pin("4711")) },
                Note::Slot { slot: slot(2), holds: Held::Nothing },
            ];
            assert!(expected.starts_with(&went.notes), "{context}");
            match went.came {
                Came::Done => assert_eq!(went.notes.len(), 2, "{context}"),
                Came::NothingSent(_) => {}
                Came::NotDone(_) | Came::Doubt(_) => panic!("{context}"),
            }
        });
    }
}

#[test]
fn wherever_a_value_goes_wrong_one_thing_that_happened_is_lost_at_most_and_it_is_said() {
    let prepare = |air: &mut Air| {
        for state in ["open", "closed", "ajar"] {
            air.control(&format!("door {state}"));
        }
    };
    for fault in THERE.into_iter().chain(BACK) {
        everywhere(fault, prepare, &Task::Log { at_most: 9 }, |air, went, context| {
            let told = went.notes.iter().filter(|note| matches!(note, Note::Happened(_))).count() as u64;
            let untold = air.control("state")["untold"].as_u64().unwrap();
            match went.came {
                Came::Done => assert_eq!((told, untold), (3, 0), "{context}"),
                Came::NothingSent(_) => assert_eq!((told, untold), (0, 3), "{context}"),
                Came::NotDone(_) => panic!("{context}"),
                Came::Doubt(_) => assert!(told + untold >= 2, "{context}"),
            }
        });
    }
}

#[test]
fn a_lost_answer_to_the_last_step_is_made_good_by_looking() {
    // The handshake's two answers, five commands' two each, and the word that the commit is received.
    for (answer, change) in [(14, put(2, "123456", window())), (6, remove(2))] {
        let mut air = Air::new();
        air.control("put 2 4711");
        air.control(&format!("fault lose {answer}"));
        let went = air.hold(Task::Change(change));
        assert_eq!(went.came, Came::Done, "{went:?}");
    }
}
