//! What the codec refuses, by name.

use latchd::drivers::uhppote::{
    codec::{Function, Wrong},
    reply::{Pushed, Reply},
    request::Request,
    values::{CardNumber, Pin},
};

use super::{
    pump::{card, profile},
    vectors::Vector,
};

const BOARD: u32 = 405_419_896;

fn refused(frame: &[u8]) -> String {
    Request::decode(frame).unwrap_err().to_string()
}

#[test]
fn a_frame_is_64_bytes_with_a_known_start_function_and_board() {
    let frame = Request::GetTime.encode(BOARD).unwrap();
    for length in (0..64).chain([65]) {
        let bytes: Vec<u8> = frame.iter().copied().chain([0]).take(length).collect();
        assert_eq!(Request::decode(&bytes), Err(Wrong::Length(length)));
        assert_eq!(Reply::decode(&bytes), Err(Wrong::Length(length)));
        assert_eq!(Pushed::decode(&bytes), Err(Wrong::Length(length)));
    }
    let with = |at: usize, byte: u8| {
        let mut frame = frame;
        frame[at] = byte;
        frame
    };
    for start in (0..=255).filter(|start| *start != 0x17) {
        assert_eq!(Request::decode(&with(0, start)), Err(Wrong::Start(start)));
        assert_eq!(Reply::decode(&with(0, start)), Err(Wrong::Start(start)));
    }
    for code in 0..=255 {
        let known = Function::ALL.iter().any(|function| function.code() == code);
        assert_eq!(Request::decode(&with(1, code)) == Err(Wrong::Function(code)), !known, "{code:02x}");
    }
    let nobody = [&frame[..4], &[0; 60]].concat();
    assert_eq!(Request::decode(&nobody), Err(Wrong::Serial));
    assert_eq!(Reply::decode(&nobody), Err(Wrong::Serial));
    assert_eq!(Request::GetTime.encode(0), Err(Wrong::Serial));
    assert_eq!(Reply::decode(&with(1, 0x96)), Err(Wrong::Misplaced(0x96)));
    assert_eq!(Pushed::decode(&with(1, 0x32)), Err(Wrong::Misplaced(0x32)));
}

#[test]
fn the_old_start_is_for_events_alone() {
    let mut frame = Request::GetStatus.encode(BOARD).unwrap();
    frame[0] = 0x19;
    assert!(Pushed::decode(&frame).unwrap().is_old);
    assert_eq!(Reply::decode(&frame), Err(Wrong::Start(0x19)));
    assert_eq!(Request::decode(&frame), Err(Wrong::Start(0x19)));
}

#[test]
fn every_field_that_is_wrong_is_named() {
    let changed = |request: &Request, at: usize, bytes: &[u8]| {
        let mut frame = request.encode(BOARD).unwrap();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        refused(&frame)
    };
    let put = Request::PutCard(card(7));
    assert_eq!(changed(&put, 12, &[0x20, 0x26, 0x13, 0x01]), "first day: is not in the calendar");
    assert_eq!(changed(&put, 16, &[0x20, 0x2A, 0x12, 0x01]), "last day: is not made of digits");
    assert_eq!(changed(&put, 16, &[0; 4]), "last day: is missing");
    assert_eq!(changed(&put, 16, &[0x20, 0x26, 0x11, 0x20]), "last day: lies before the first");
    assert_eq!(changed(&put, 24, &[0x40, 0x42, 0x0F]), "PIN: is above 999999");
    for number in [0, 0x00FF_FFFF, u32::MAX] {
        let mean = "card number: means something else to a board";
        assert_eq!(changed(&put, 8, &number.to_le_bytes()), mean);
        let number = CardNumber::new(number);
        assert_eq!(Request::DeleteCard(number).encode(BOARD).unwrap_err().to_string(), mean);
        assert_eq!(Request::GetCard(number).encode(BOARD).unwrap_err().to_string(), mean);
    }
    let set = Request::SetTimeProfile(profile(29));
    assert_eq!(changed(&set, 8, &[1]), "time profile: is not 2 to 254");
    assert_eq!(changed(&set, 36, &[255]), "linked profile: is neither 0 nor 2 to 254");
    assert_eq!(changed(&set, 17, &[2]), "weekday: is neither 0 nor 1");
    assert_eq!(changed(&set, 24, &[0x24, 0]), "hours: is no time of day");
    assert_eq!(changed(&set, 24, &[0x23, 0x59, 0, 0]), "hours: end before they begin");
    assert_eq!(changed(&Request::OpenDoor(4), 8, &[5]), "door: is not 1 to 4");
    assert_eq!(changed(&Request::DeleteAllCards, 8, &[0x54]), "magic word: is another");
    assert_eq!(changed(&Request::SetPcControl(true), 12, &[2]), "switch: is neither 0 nor 1");
    assert_eq!(changed(&Request::GetCardByIndex(1), 8, &[0]), "place in the list: is 0; it begins at 1");
    assert!(Request::OpenDoor(0).encode(BOARD).is_err());
    assert_eq!(Pin::new(1_000_000), None);
}

#[test]
fn nothing_of_a_card_or_a_pin_is_shown() {
    for vector in Vector::all().into_iter().filter(Vector::is_request) {
        let (_, request) = Request::decode(&vector.bytes()).unwrap();
        let shown = format!("{request:?}");
        for secret in ["10058400", "10058401", "7531", "12345", "54321"] {
            assert!(!shown.contains(secret), "{}: {shown}", vector.id);
        }
    }
}

#[test]
fn no_byte_of_any_frame_makes_it_panic_and_what_is_read_is_spelled_the_same() {
    for vector in Vector::all() {
        let bytes = vector.bytes();
        for at in 0..bytes.len() {
            for byte in [0, 1, 2, 9, 0x0A, 0x19, 0x60, 0x99, 0xA0, 0xFF] {
                let mut bytes = bytes.clone();
                bytes[at] = byte;
                if let Ok((serial, request)) = Request::decode(&bytes) {
                    assert_eq!(Request::decode(&request.encode(serial).unwrap()), Ok((serial, request)));
                }
                if let Ok(reply) = Reply::decode(&bytes) {
                    assert_eq!(Reply::decode(&reply.encode().unwrap()), Ok(reply));
                }
                if let Ok(event) = Pushed::decode(&bytes) {
                    assert_eq!(Pushed::decode(&event.encode().unwrap()), Ok(event));
                }
            }
        }
    }
}
