//! What frames say, byte by byte.

use proptest::prelude::*;

use super::*;

fn result(op: u8, payload: [u8; 12]) -> Frame {
    Frame { part: Part::Result, op, payload }
}

fn pin(digits: &str) -> Pin {
    Pin::new(digits).unwrap()
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// What a slot holds that is shown as these 7 bytes.
fn held(packed: [u8; 7]) -> Held {
    let mut payload = [0; 12];
    payload[2..9].copy_from_slice(&packed);
    match Command::ReadSlot(slot(0)).answer(&result(0x39, payload)) {
        Some(Answer::Holds(held)) => held,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pin_is_4_to_14_digits_from_the_high_half_on_and_shows_nothing() {
    assert_eq!(pin("12345").0, [0x12, 0x34, 0x5f, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(pin("0000").0, [0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(pin("98765432101234").0, [0x98, 0x76, 0x54, 0x32, 0x10, 0x12, 0x34]);
    for bad in ["", "123", "123456789012345", "12a4", "12 4", "１２３４", "-1234"] {
        assert_eq!(Pin::new(bad), None, "{bad}");
    }
    assert_eq!(format!("{:?}", Command::SetPin(pin("4711"))), "SetPin([private])");
}

#[test]
fn what_a_slot_holds_is_a_pin_nothing_or_strange() {
    assert_eq!(held([0x12, 0x34, 0x5f, 0xff, 0xff, 0xff, 0xff]), Held::Pin(pin("12345")));
    assert_eq!(held([0xff; 7]), Held::Nothing);
    assert_eq!(held([0x98, 0x76, 0x54, 0x32, 0x10, 0x12, 0x34]), Held::Pin(pin("98765432101234")));
    for strange in [
        [0xaa; 7],
        [0x12, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff],
        [0x12, 0x34, 0xf5, 0xff, 0xff, 0xff, 0xff],
        [0x12, 0x34, 0xff, 0xff, 0xff, 0xff, 0x0f],
        [0xf1, 0x23, 0x4f, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert_eq!(held(strange), Held::Strange, "{strange:02x?}");
    }
}

#[test]
fn a_window_ends_after_it_starts_within_what_the_lock_can_count() {
    let from = at("2026-12-01T15:00:00Z");
    let window = Access::window(from, at("2026-12-03T11:00:00Z"));
    assert_eq!(window, Some(Access::Window { from: 1_796_137_200, until: 1_796_295_600 }));
    assert_eq!(Access::window(from, from), None);
    assert_eq!(Access::window(from, at("2026-12-01T15:00:00.9Z")), None);
    assert_eq!(Access::window(from, at("2106-02-07T06:28:16Z")), None);
    assert_eq!(Access::window(at("1969-12-31T23:59:59Z"), from), None);
    assert!(Access::window(from, at("2106-02-07T06:28:15Z")).is_some());
}

#[test]
fn the_master_code_is_in_no_slot() {
    assert_eq!(Slot::new(0xffee), None);
    assert_eq!(Slot::new(300).map(Slot::number), Some(300));
}

/// Bytes 4 to 15 of the command's frame.
fn payload(command: &Command) -> [u8; 12] {
    command.frame().payload
}

#[test]
fn the_commands_without_a_published_frame_are_laid_out_as_described() {
    let times = AutoLock { closed: 30, never_opened: 300 };
    let auto_lock = [0x28, 0, 0, 0, 30, 0, 0x2c, 1, 0, 0, 0, 0];
    assert_eq!((Command::WriteAutoLock(times).op(), payload(&Command::WriteAutoLock(times))), (3, auto_lock));
    assert_eq!(payload(&Command::ReadAutoLock)[..5], [0x28, 0, 0, 0, 0]);
    let answer = Command::ReadAutoLock.answer(&result(4, auto_lock));
    assert_eq!(answer, Some(Answer::AutoLock(times)));
    assert_eq!((Command::Unlatch.op(), payload(&Command::Unlatch)[0]), (0x0a, 0x0a));
    assert_eq!((Command::SecureLock.op(), payload(&Command::SecureLock)[0]), (0x0b, 0x04));
    assert_eq!((Command::ClearAll.op(), payload(&Command::ClearAll)), (0x29, [0; 12]));
    let weekly = Access::Weekly { days: 0b111_1110, from: 0x0102_0304, until: 0x0506_0708 };
    assert_eq!(payload(&Command::SetAccess(weekly)), [4, 3, 2, 1, 8, 7, 6, 5, 0x7e, 0, 0, 0]);
    assert_eq!(payload(&Command::Status(Ask::Door))[0], 0x2e);
    assert_eq!(payload(&Command::Status(Ask::Both))[0], 0x2f);
}

#[test]
fn an_answer_about_something_else_is_none() {
    let read = Command::ReadSlot(slot(2));
    assert_eq!(read.answer(&result(0x2c, [0; 12])), None);
    assert_eq!(read.answer(&result(0x39, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])), None);
    assert_eq!(read.answer(&Frame { part: Part::Request, op: 0x39, payload: [0; 12] }), None);
    let battery = [0x0f, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(Command::Status(Ask::Lock).answer(&result(2, battery)), None);
    let received = Frame { part: Part::Received, op: 0x39, payload: [0; 12] };
    assert_eq!(read.answer(&received), Some(Answer::Received));
}

#[test]
fn the_door_is_told_alone_or_with_the_bolt() {
    let both = [0x2f, 0, 0, 0, 0x03, 0x01, 0, 0, 0, 0, 0, 0];
    let answer = Command::Status(Ask::Both).answer(&result(2, both));
    assert_eq!(answer, Some(Answer::Both(Bolt::Unlocked, Door::Closed)));
    let door = [0x2e, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(Command::Status(Ask::Door).answer(&result(2, door)), Some(Answer::Door(Door::Ajar)));
}

fn popped(payload: [u8; 12]) -> Option<Answer> {
    Command::PopActivity.answer(&result(0x2d, payload))
}

#[test]
fn every_kind_of_activity_is_read() {
    let when = at("2026-12-01T15:00:00Z");
    let [a, b, c, d] = 1_796_137_200_u32.to_le_bytes();
    let activity = |payload| match popped(payload) {
        Some(Answer::Activity(Some(activity))) => activity,
        other => panic!("{other:?}"),
    };
    let bolt = Activity::Bolt { source: 1, status: 5, remote: 3, at: when };
    assert_eq!(activity([0x00, 1, 5, 3, a, b, c, d, 0, 0, 0, 0]), bolt);
    let pin = Activity::Pin { at: when, slot: 300, status: 2 };
    assert_eq!(activity([0x0e, a, b, c, d, 0, 0x2c, 1, 0xf2, 0, 0, 0]), pin);
    let door = Activity::Door { at: when, door: Door::Open };
    assert_eq!(activity([0x20, a, b, c, d, 3, 0, 0, 0, 0, 0, 0]), door);
    assert_eq!(activity([0x55, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Activity::Other(0x55));
}

#[test]
fn the_master_code_at_the_keypad_is_no_refusal() {
    let keypad = [0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xee, 0xff];
    let expected = Activity::Keypad { at: Timestamp::UNIX_EPOCH, slot: Slot::MASTER };
    assert_eq!(popped(keypad), Some(Answer::Activity(Some(expected))));
    let busy = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3e];
    assert_eq!(popped(busy), Some(Answer::No(ResultCode(0x3e))));
    let empty = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x28];
    assert_eq!(popped(empty), Some(Answer::Activity(None)));
}

#[test]
fn a_result_is_shown_by_its_number_and_its_name() {
    assert_eq!(ResultCode(0x06).to_string(), "06 code_exists");
    assert_eq!(ResultCode(0x45).to_string(), "45 slot_in_use");
    assert_eq!(ResultCode(0xc0).to_string(), "C0 unknown");
}

proptest! {
    #[test]
    fn whatever_a_lock_answers_is_understood_or_left(op in any::<u8>(), payload in any::<[u8; 12]>()) {
        for command in [
            Command::Status(Ask::Both), Command::ReadAutoLock, Command::Unlock, Command::PopActivity,
            Command::ReadSlot(slot(u16::from_le_bytes([payload[0], payload[1]]) & 0x7fff)),
        ] {
            let frame = result(if op & 1 == 0 { command.op() } else { op }, payload);
            let answer = command.answer(&frame);
            prop_assert!(answer.is_none() || frame.op == command.op());
        }
    }

    #[test]
    fn a_pin_that_is_put_is_the_one_that_is_shown(digits in "[0-9]{4,14}") {
        let pin = pin(&digits);
        prop_assert_eq!(held(pin.0), Held::Pin(pin));
    }
}
