//! Every published frame, against the codec.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{DateTime, datetime};
use latchd::{
    drivers::ttlock::{
        advertisement,
        codec::{Check, Decoded, Header, Key, crc8, decode, encode},
        message::{Answer, CardNumber, No, Numbers, Passcode, Record, Request, Span},
        record,
    },
    model::Private,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    id: String,
    bytes_hex: String,
}

pub(super) struct Vectors {
    bytes: BTreeMap<u16, Vec<u8>>,
    used: BTreeSet<u16>,
}

const LOCK: Header = Header { protocol: 5, sub: 3, scene: 7, group: 1, organisation: 1 };
const NUMBERS: Numbers = Numbers { admin: 970_456_745, unlock: 344_382_141 };

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key() -> Key {
    Key::new(hex("c0157a26893ade25c8c4717eb8df0b84").try_into().unwrap())
}

impl Vectors {
    pub(super) fn load() -> Self {
        let all: Vec<Vector> = serde_json::from_str(include_str!("../vectors/ttlock.json")).unwrap();
        let bytes = all.iter().map(|vector| {
            let number = vector.id.strip_prefix("ttlock-v3-").unwrap();
            (number.parse().unwrap(), hex(&vector.bytes_hex))
        });
        Self { bytes: bytes.collect(), used: BTreeSet::new() }
    }

    pub(super) fn take(&mut self, number: u16) -> Vec<u8> {
        self.used.insert(number);
        self.bytes[&number].clone()
    }

    #[track_caller]
    fn asks(&mut self, number: u16, header: Header, key: &Key, request: &Request) {
        let bytes = encode(header, request.command(), &request.clear(), key);
        assert_eq!(bytes, self.take(number), "vector {number}");
    }

    #[track_caller]
    fn answers(&mut self, number: u16, key: &Key, request: &Request, answer: &Answer) {
        let bytes = self.take(number);
        let Decoded::Frame { frame, used } = decode(&bytes) else { panic!("vector {number} is no frame") };
        assert_eq!(
            (used, frame.check, frame.header),
            (bytes.len(), Check::Firmware, LOCK),
            "vector {number}"
        );
        assert_eq!(request.answer(&frame.open(key).unwrap()), *answer, "vector {number}");
    }
}

fn at(day: i8, hour: i8) -> DateTime {
    datetime(2026, 12, day, hour, 0, 0, 0)
}

#[test]
fn every_vector_is_reproduced() {
    let mut vectors = Vectors::load();
    let (key, factory) = (key(), Key::FACTORY);
    let v = &mut vectors;

    // A real pairing.
    v.asks(1, Header::UNKNOWN, &factory, &Request::Init);
    let Decoded::Frame { frame, .. } = decode(&v.take(8)) else { panic!("vector 8 is no frame") };
    assert_eq!((frame.header, frame.command), (LOCK, 0x54));
    v.asks(2, Header::UNKNOWN, &factory, &Request::GetKey);
    v.answers(3, &factory, &Request::GetKey, &Answer::Key(key.clone()));
    v.asks(4, LOCK, &key, &Request::AddAdmin(NUMBERS));
    v.answers(5, &key, &Request::AddAdmin(NUMBERS), &Answer::Yes);
    let set = Request::SetClock(datetime(2020, 11, 11, 19, 52, 39, 0));
    v.asks(6, LOCK, &key, &set);
    v.answers(7, &key, &set, &Answer::Yes);

    // Checks that are right only with the firmware's table.
    for (number, textbook) in [(9, 0x57), (10, 0x77), (11, 0x62)] {
        let bytes = v.take(number);
        let (crc, checked) = bytes.split_last().unwrap();
        assert_eq!((crc8(checked, Check::Firmware), crc8(checked, Check::Textbook)), (*crc, textbook));
    }

    // A session.
    let check = Request::CheckAdmin { admin: NUMBERS.admin, flag_position: 0 };
    v.asks(12, LOCK, &key, &check);
    v.answers(33, &key, &check, &Answer::Token(0x0102_0304));
    let answer = 0x0102_0304_u32.wrapping_add(NUMBERS.unlock);
    v.asks(13, LOCK, &key, &Request::CheckRandom { answer });
    v.answers(34, &key, &Request::CheckRandom { answer }, &Answer::Yes);
    v.asks(14, LOCK, &key, &Request::CheckUser { flag_position: 0 });
    v.asks(15, LOCK, &key, &Request::Unlock { answer, at: 1_796_137_200 });
    v.asks(16, LOCK, &key, &Request::Status);
    v.asks(32, LOCK, &key, &Request::SetClock(at(1, 16)));

    // Passcodes.
    let pin = || Private::new("135790");
    let window = Span { starts_at: at(1, 15), ends_at: Some(at(3, 11)) };
    let add = Request::AddPasscode { digits: pin(), span: window };
    v.asks(17, LOCK, &key, &add);
    let always = Span { starts_at: datetime(2000, 1, 1, 0, 0, 0, 0), ends_at: None };
    v.asks(18, LOCK, &key, &Request::AddPasscode { digits: Private::new("24680"), span: always });
    v.asks(19, LOCK, &key, &Request::RemovePasscode { digits: pin() });
    let later = Span { ends_at: Some(at(4, 11)), ..window };
    v.asks(20, LOCK, &key, &Request::ChangePasscode { digits: pin(), to: None, span: later });
    let list = Request::Passcodes { cursor: 0 };
    v.asks(22, LOCK, &key, &list);
    v.answers(35, &key, &add, &Answer::Yes);
    for (number, no) in
        [(36, No::EXISTS), (37, No::MISSING), (38, No::FULL), (39, No::CRC), (40, No::NOT_LOGGED_IN)]
    {
        v.answers(number, &key, &add, &Answer::No(no));
    }
    v.answers(43, &key, &list, &Answer::Passcodes { entries: Vec::new(), next: None });
    let page = [&[0x07, 0x01], &v.take(47)[..]].concat();
    let entry = Passcode { digits: Private::new("123456"), span: Some(always) };
    assert_eq!(list.answer(&page), Answer::Passcodes { entries: vec![entry], next: Some(180) });

    // Cards.
    let card = CardNumber::new(3_735_928_559);
    v.asks(23, LOCK, &key, &Request::AddCard { card, span: window });
    let long = CardNumber::new(0x04A1_B2C3_D4E5_F680);
    v.asks(24, LOCK, &key, &Request::AddCard { card: long, span: window });
    v.asks(25, LOCK, &key, &Request::EnrolCard);
    v.asks(26, LOCK, &key, &Request::MoveCard { card, span: Span { ends_at: Some(at(5, 11)), ..window } });
    v.asks(27, LOCK, &key, &Request::RemoveCard { card });
    v.asks(29, LOCK, &key, &Request::Cards { cursor: 0 });
    v.answers(41, &key, &Request::EnrolCard, &Answer::WaitsForCard);
    v.answers(42, &key, &Request::EnrolCard, &Answer::Enrolled(card));

    // What is never asked: to clear every passcode or card of a lock would take those of others. Only the bytes are shown.
    for (number, command, clear) in [(21, 0x03, 1_u8), (28, 0x05, 4)] {
        assert_eq!(encode(LOCK, command, &[clear], &key), v.take(number));
    }
    // Nor what came since anybody read last, which another reader changes: each reading says from where.
    assert_eq!(encode(LOCK, 0x25, &[0xFF, 0xFF], &key), v.take(31));

    // The log and what is told unasked.
    let log = Request::Log { cursor: 0 };
    v.asks(30, LOCK, &key, &log);
    let typed = Record { kind: 4, at: at(1, 16), digits: Some(pin()), card: None };
    let records = match decode(&v.bytes[&44]) {
        Decoded::Frame { frame, .. } => match log.answer(&frame.open(&key).unwrap()) {
            Answer::Log { records, next: Some(_) } => records,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    v.take(44);
    assert_eq!(records, [typed]);
    v.answers(45, &key, &log, &Answer::Log { records: Vec::new(), next: None });
    v.answers(46, &key, &Request::Status, &Answer::Status { battery: Some(87), locked: Some(false) });

    // What it shows, and the vendor's record.
    let data = v.take(48);
    let shown = advertisement::read(u16::from_le_bytes([data[0], data[1]]), &data[2..]).unwrap();
    assert_eq!((shown.version, shown.scene, shown.battery), ((5, 3), 7, Some(87)));
    assert_eq!(shown.address, [0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF]);
    let flags = shown.flags.unwrap();
    assert!(!flags.is_unlocked() && !flags.has_news() && !flags.waits_to_be_paired());
    for (number, expected) in [(49, 246_813_579), (50, 659_525_046)] {
        let text = String::from_utf8(v.take(number)).unwrap();
        assert_eq!(record::number(&text), Ok(expected), "vector {number}");
    }

    let unused: Vec<_> = vectors.bytes.keys().filter(|number| !vectors.used.contains(number)).collect();
    assert!(unused.is_empty(), "vectors that nothing looked at: {unused:?}");
}
