//! Every published text of Visionline's PMS interface, against the codec.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{DateTime, date};
use latchd::{
    drivers::visionline::{
        answer::{self, Answer, CardShown},
        codec::{Decoded, Framing, decode},
        command::{Command, Guest, MakeCard},
    },
    model::Code,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Vector {
    id: String,
    bytes_hex: String,
    decoded: Value,
}

/// The vectors, and which of them were looked at.
struct Vectors {
    all: BTreeMap<String, Vector>,
    used: BTreeSet<String>,
}

impl Vectors {
    fn load() -> Self {
        let all: Vec<Vector> = serde_json::from_str(include_str!("vectors/visionline-pms.json")).unwrap();
        let short = |vector: &Vector| vector.id.strip_prefix("visionline-pms-").unwrap().to_owned();
        Self { all: all.into_iter().map(|vector| (short(&vector), vector)).collect(), used: BTreeSet::new() }
    }

    /// The bytes, and the items as the vector itself lists them.
    fn take(&mut self, id: &str) -> (Vec<u8>, Vec<String>) {
        self.used.insert(id.to_owned());
        let vector = &self.all[id];
        let hex = vector.bytes_hex.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let items = vector.decoded["fields"].as_array().unwrap();
        let items = items.iter().map(|item| item.as_str().unwrap().to_owned());
        (hex.map(byte).collect(), items.collect())
    }

    /// A command that we send: exactly these bytes and items.
    fn sent(&mut self, id: &str, command: &Command, framing: Framing) {
        let (bytes, items) = self.take(id);
        assert_eq!(command.items(), items, "vector {id}");
        let spelled = command.bytes(framing);
        assert_eq!(spelled.escape_ascii().to_string(), bytes.escape_ascii().to_string(), "vector {id}");
    }

    /// What a server's answer means for `command`, after it was read from every split of its bytes.
    fn answered(&mut self, id: &str, command: &Command) -> Answer {
        let (bytes, items) = self.take(id);
        let end = bytes.len() - 1;
        for cut in 0..end {
            assert_eq!(decode(&bytes[..cut]), Decoded::Need, "vector {id} cut at {cut}");
        }
        let Decoded::Text { text, used } = decode(&bytes) else { panic!("vector {id}") };
        assert_eq!((used, text.is_damaged), (end, false), "vector {id}: the line feed is left over");
        assert_eq!(text.items, items, "vector {id}");
        answer::read(&text.items, command)
    }
}

#[test]
fn every_vector_is_spelled_and_read() {
    let mut vectors = Vectors::load();
    commands(&mut vectors);
    answers(&mut vectors);
    readings(&mut vectors);

    // Vectors that no check can use, each with its reason.
    let excused: BTreeMap<String, &str> = BTreeMap::new();
    let all: BTreeSet<_> = vectors.all.keys().cloned().collect();
    let accounted: BTreeSet<_> = vectors.used.iter().chain(excused.keys()).cloned().collect();
    assert_eq!(all, accounted, "each vector is used or excused");
    assert_eq!(all.len(), 14);
}

fn commands(vectors: &mut Vectors) {
    vectors.sent("tcp-001", &Command::MakeCard(card()), Framing::Line);
    vectors.sent("serial-001", &Command::MakeCard(card()), Framing::Block);
    let full = MakeCard {
        start: Some(arrival()),
        common: vec![1, 2],
        operator: Some("BRIDGE".into()),
        guest: Some(Guest { id: "84711".into(), first_name: "Jane".into(), surname: "Doe".into() }),
        serial: true,
        ..card()
    };
    vectors.sent("tcp-002", &Command::MakeCard(full), Framing::Line);
    vectors.sent("tcp-003", &Command::MakeCard(MakeCard { joins: true, ..card() }), Framing::Line);
    vectors.sent("tcp-004", &look(), Framing::Line);
}

fn answers(vectors: &mut Vectors) {
    let at_eleven = Command::MakeCard(MakeCard { encoder: "11".into(), ..card() });
    assert_eq!(vectors.answered("tcp-005", &at_eleven), Answer::Made { serial: None });
    let make = Command::MakeCard(card());
    assert_eq!(vectors.answered("tcp-005", &make), Answer::Foreign);
    let serial = Some("04A1B2C3D4E580".to_owned());
    assert_eq!(vectors.answered("tcp-006", &make), Answer::Made { serial });
    for (id, code, vendor, says) in [
        ("tcp-007", Code::NoCard, "RC41", "No card was inserted"),
        ("tcp-008", Code::EncoderOffline, "RC3", "No connection"),
        ("tcp-009", Code::EncoderBusy, "RC4", ""),
        ("tcp-010", Code::BadCard, "RC18", ""),
    ] {
        let Answer::Refused(why) = vectors.answered(id, &make) else { panic!("vector {id}") };
        assert_eq!((why.code, why.vendor_code.as_deref()), (code, Some(vendor)), "vector {id}");
        assert!(why.message.contains(says), "vector {id}: {why}");
    }
    assert_eq!(vectors.answered("tcp-011", &make), Answer::Pending);
}

fn readings(vectors: &mut Vectors) {
    let guest = CardShown {
        is_valid: true,
        why_not: None,
        rooms: vec!["101".into()],
        start: Some(arrival()),
        end: Some(departure()),
        common: vec![1, 2],
        serial: Some("04A1B2C3D4E580".into()),
    };
    assert_eq!(vectors.answered("tcp-012", &look()), Answer::Read(guest));
    let dead = CardShown { why_not: Some("overridden"), ..CardShown::default() };
    assert_eq!(vectors.answered("tcp-013", &look()), Answer::Read(dead));
}

fn arrival() -> DateTime {
    date(2026, 11, 21).at(15, 0, 0, 0)
}

fn departure() -> DateTime {
    date(2026, 11, 24).at(11, 0, 0, 0)
}

fn look() -> Command {
    Command::ReadCard { encoder: "1".into() }
}

/// The shortest card: whoever wants its serial number asks for it.
fn card() -> MakeCard {
    MakeCard {
        joins: false,
        encoder: "1".into(),
        room: "101".into(),
        start: None,
        end: departure(),
        common: Vec::new(),
        user_group: None,
        operator: None,
        guest: None,
        card_type: None,
        serial: false,
    }
}
