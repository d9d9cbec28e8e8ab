//! Every published frame, spelled or read field by field.

use std::collections::BTreeSet;

use latchd::drivers::card_reader::codec::{ACK, Command, Decoder, Firmware, Frame, Target, WAKE, exchanged};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Vector {
    id: String,
    direction: String,
    bytes_hex: String,
    decoded: Value,
}

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../vectors/pn532-hsu.json")).unwrap()
}

/// What the host says, by the number of its vector.
fn command(number: &str) -> Command {
    let key = bytes("603fffffffffffffdeadbeef");
    match number {
        "001" => Command::SamConfiguration,
        "004" => Command::Diagnose(b"libnfc".to_vec()),
        "006" => Command::GetFirmwareVersion,
        "008" => Command::SetParameters(0x14),
        "009" => Command::Field(false),
        "010" => Command::Field(true),
        "011" => Command::Retries(2),
        "012" => Command::ListTargets(1),
        "014" => Command::Exchange(1, key),
        "018" => Command::Exchange(1, vec![0x30, 63]),
        "020" => Command::Exchange(1, [&[0xA0, 4][..], &[0; 16]].concat()),
        "021" => Command::Exchange(1, bytes("9060000000")),
        "023" => Command::Through(bytes("60f832")),
        "025" => Command::Release,
        "026" => Command::PowerDown,
        "028" => Command::Exchange(1, vec![0; 256]),
        number => panic!("{number} is no command of this test"),
    }
}

/// What the chip says, in the words of the vectors.
fn shown(frame: &Frame) -> Value {
    let Frame::Answer(code, data) = frame else {
        return match frame {
            Frame::Ack => json!({ "ack": true }),
            Frame::SyntaxError => json!({ "error": "7f" }),
            frame => panic!("{frame:?}"),
        };
    };
    match code {
        0x03 => {
            let it = Firmware::read(data).unwrap();
            let (version, revision) = it.version;
            json!({ "ic": format!("{:02x}", it.chip), "ver": version, "rev": revision, "support": it.supports })
        }
        0x4B => {
            let targets = Target::read_list(data).unwrap();
            let [one] = targets.as_slice() else { panic!("{targets:?}") };
            json!({
                "targets": 1, "tg": 1, "sens_res": format!("{:04x}", one.sens_res),
                "sel_res": format!("{:02x}", one.sel_res), "uid": one.number().to_lowercase(),
            })
        }
        0x41 | 0x43 => match exchanged(data) {
            Ok(data) => json!({ "status": 0, "data": hex(data) }),
            Err(status) => json!({ "status": format!("{status:02x}") }),
        },
        code => json!({ "rsp": format!("{code:02x}") }),
    }
}

#[test]
fn every_vector_is_spelled_or_read() {
    let mut used = BTreeSet::new();
    for vector in vectors() {
        let (number, frame) = (vector.id.rsplit_once('-').unwrap().1, bytes(&vector.bytes_hex));
        if vector.direction == "host->device" {
            let spelled = command(number).frame().unwrap();
            let woken = if number == "001" { WAKE.to_vec() } else { Vec::new() };
            assert_eq!(hex(&[woken, spelled].concat()), vector.bytes_hex, "{}", vector.id);
        } else {
            let mut decoder = Decoder::default();
            decoder.push(&frame);
            let read = shown(&decoder.next_frame().unwrap());
            assert_eq!(decoder.next_frame(), None, "{}", vector.id);
            let expected = match number {
                // What a card says is read by whoever speaks to it.
                "019" => json!({ "status": 0, "data": "000000000000ff078069ffffffffffff" }),
                "022" => json!({ "status": 0, "data": "0401010100160591af" }),
                "024" => json!({ "status": 0, "data": "0004040201000f03" }),
                "015" => json!({ "status": 0, "data": "" }),
                "016" | "017" => json!({ "status": vector.decoded["status"] }),
                _ => vector.decoded,
            };
            assert_eq!(read, expected, "{}", vector.id);
        }
        used.insert(vector.id);
    }
    assert_eq!(used.len(), 28);
}

#[test]
fn a_frame_is_found_wherever_it_begins_and_however_it_comes() {
    let answer = bytes("0000ff0cf4d54b010100040804deadbeef9600");
    let said = [&b"\x55\x00noise\x00\xff\x03"[..], &ACK, &[0xFF, 0, 0], &answer, &[0], &ACK].concat();
    for cut in 1..said.len() {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for part in said.chunks(cut) {
            decoder.push(part);
            frames.extend(std::iter::from_fn(|| decoder.next_frame()));
        }
        assert!(
            matches!(frames.as_slice(), [Frame::Ack, Frame::Answer(0x4B, _), Frame::Ack]),
            "cut to {cut}: {frames:?}"
        );
    }
}

#[test]
fn a_frame_with_a_wrong_byte_was_never_said() {
    let answer = bytes("0000ff0cf4d54b010100040804deadbeef9600");
    // The preamble and the postamble are nothing.
    for at in 2..answer.len() - 1 {
        for flip in 1..=0xFF {
            let mut wrong = answer.clone();
            wrong[at] ^= flip;
            let mut decoder = Decoder::default();
            decoder.push(&wrong);
            decoder.push(&[0; 300]);
            let frame = decoder.next_frame();
            assert!(!matches!(frame, Some(Frame::Answer(..))), "byte {at} with {flip:02x}: {frame:?}");
        }
    }
}

#[test]
fn lists_that_are_none_are_refused_and_cards_of_iso_14443_4_tell_more() {
    let two =
        bytes("02010044000704a1b2c3d4e58002034420 0704a1b2c3d4e581067577810280".replace(' ', "").as_str());
    let targets = Target::read_list(&two).unwrap();
    let numbers: Vec<_> = targets.iter().map(Target::number).collect();
    assert_eq!(numbers, ["04A1B2C3D4E580", "04A1B2C3D4E581"]);
    assert_eq!(targets[1].kind(), "MIFARE DESFire");
    for cut in 1..two.len() - 6 {
        assert_eq!(Target::read_list(&two[..cut]), None, "cut to {cut}");
    }
    assert_eq!(Target::read_list(&[0]), Some(Vec::new()));
    assert_eq!(Target::read_list(&bytes("010100040805deadbeef00")), None, "no number has five bytes");
    assert!(!format!("{targets:?}").contains("04A1"), "a number is shown nowhere");
}
