//! Every published frame of the SALTO and Onity dialects, against the codec.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil;
use latchd::{
    drivers::salto_is::{
        answer::{self, Answer, CardShown, CopyNumber, ErrorCode},
        codec::{self, Check, Control, Decoded, Trailer},
        command::{
            Command, DateForm, Eject, Record, SendPhoneKey, Serials, Stay, WriteCard, authorisations, symbol,
        },
    },
    model::Code,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    id: String,
    bytes_hex: String,
}

/// The vectors, and which of them were looked at.
struct Vectors {
    bytes: BTreeMap<u16, Vec<u8>>,
    used: BTreeSet<u16>,
}

impl Vectors {
    fn load() -> Self {
        let all: Vec<Vector> = serde_json::from_str(include_str!("vectors/salto-is.json")).unwrap();
        let bytes = all.iter().map(|vector| {
            let number = vector.id.strip_prefix("salto-industry-standard-").unwrap();
            let hex = vector.bytes_hex.as_bytes();
            let bytes =
                hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
            (number.parse().unwrap(), bytes.collect())
        });
        Self { bytes: bytes.collect(), used: BTreeSet::new() }
    }

    fn take(&mut self, number: u16) -> &[u8] {
        self.used.insert(number);
        &self.bytes[&number]
    }

    fn control(&mut self, number: u16, expected: Control) {
        let bytes = self.take(number);
        assert_eq!(bytes.len(), 1, "vector {number}");
        assert_eq!(codec::decode(bytes), Decoded::Control(expected), "vector {number}");
    }

    /// The fields of a frame, after it was decoded from every split of its bytes.
    fn fields(&mut self, number: u16, expected: Check) -> Vec<String> {
        let bytes = self.take(number);
        for cut in 0..bytes.len() {
            assert_eq!(codec::decode(&bytes[..cut]), Decoded::Need, "vector {number} cut at {cut}");
        }
        match codec::decode(bytes) {
            Decoded::Frame { fields, check, used } => {
                assert_eq!((check, used), (expected, bytes.len()), "vector {number}");
                fields
            }
            other => panic!("vector {number} is {other:?}"),
        }
    }

    /// A frame that we send: the command gives exactly its bytes.
    fn sent(&mut self, number: u16, command: &Command, trailer: Trailer) {
        let check = match trailer {
            Trailer::Checked => Check::Good,
            Trailer::Unchecked => Check::Skipped,
        };
        assert_eq!(self.fields(number, check), command.fields(), "vector {number}");
        let spelled = command.frame(trailer);
        assert_eq!(
            spelled.escape_ascii().to_string(),
            self.take(number).escape_ascii().to_string(),
            "vector {number}"
        );
    }

    /// A frame that the lock server sends in answer to `command`.
    fn answered(&mut self, number: u16, command: &Command) -> Answer {
        let fields = self.fields(number, Check::Good);
        answer::read(&fields, command)
    }
}

#[test]
fn every_vector_is_spelled_and_read() {
    let mut vectors = Vectors::load();
    vectors.control(1, Control::Enq);
    vectors.control(2, Control::Ack);
    vectors.control(3, Control::Nak);
    vectors.control(37, Control::Ack);
    simple_commands(&mut vectors);
    cards(&mut vectors);
    onity_cards(&mut vectors);
    successes(&mut vectors);
    refusals(&mut vectors);
    read_cards(&mut vectors);

    // Vectors that no check can use, each with its reason.
    let excused: BTreeMap<u16, &str> = BTreeMap::new();
    let all: BTreeSet<u16> = vectors.bytes.keys().copied().collect();
    let accounted: BTreeSet<u16> = vectors.used.iter().chain(excused.keys()).copied().collect();
    assert_eq!(all, accounted, "each vector is used or excused");
    assert_eq!(all.len(), 40);
}

fn simple_commands(vectors: &mut Vectors) {
    let check_out = |room: &str| Command::CheckOut { room: room.into(), has_encoder_field: true };
    vectors.sent(4, &check_out("W10011"), Trailer::Checked);
    vectors.sent(30, &check_out("101"), Trailer::Unchecked);
    assert_eq!(vectors.fields(31, Check::Bad), check_out("101").fields());
    let modify = Command::ModifyStay {
        room: "W10011".into(),
        to_room: String::new(),
        expiry: civil::date(2022, 12, 12).at(11, 0, 0, 0),
        dates: DateForm::Minutes,
        auth_code: String::new(),
    };
    vectors.sent(5, &modify, Trailer::Checked);
    let phone = Command::SendPhoneKey(SendPhoneKey {
        stay: Stay::Begin,
        phone: "+15555550100".into(),
        rooms: vec!["101".into()],
        granted: "1".into(),
        denied: String::new(),
        start: Some(arrival()),
        expiry: Some(departure()),
        operator: "FRONT DESK".into(),
        text: "Welcome".into(),
        auth_code: String::new(),
    });
    vectors.sent(6, &phone, Trailer::Checked);
    vectors.sent(27, &read_card(), Trailer::Checked);
    let audit = Command::Audit { record: Record::First, door: "101".into() };
    vectors.sent(32, &audit, Trailer::Checked);
}

fn cards(vectors: &mut Vectors) {
    let full = card();
    vectors.sent(7, &Command::WriteCard(full.clone()), Trailer::Checked);
    let shortest = WriteCard {
        count: None,
        encoder: "Online Encoder 1".into(),
        eject: Eject::DoNotWait,
        granted: String::new(),
        start: None,
        expiry: None,
        operator: String::new(),
        serials: None,
        ..full.clone()
    };
    vectors.sent(8, &Command::WriteCard(shortest), Trailer::Checked);
    let joining = WriteCard { stay: Stay::Join, ..full.clone() };
    vectors.sent(9, &Command::WriteCard(joining), Trailer::Checked);
    let bare = WriteCard { operator: String::new(), serials: None, ..full.clone() };
    let hours = WriteCard { dates: DateForm::Hours, ..bare.clone() };
    vectors.sent(10, &Command::WriteCard(hours), Trailer::Checked);
    let four_rooms = WriteCard {
        rooms: ["101", "102", "103", "104"].map(String::from).into(),
        granted: String::new(),
        ..bare
    };
    vectors.sent(11, &Command::WriteCard(four_rooms), Trailer::Checked);
    let hours_with_serial =
        WriteCard { count: None, dates: DateForm::Hours, serials: Some(Serials::Last), ..full };
    vectors.sent(35, &Command::WriteCard(hours_with_serial), Trailer::Checked);
}

fn onity_cards(vectors: &mut Vectors) {
    let onity = WriteCard {
        count: None,
        start: None,
        dates: DateForm::Hours,
        print_lines: vec![String::new(), String::new()],
        serials: None,
        ..card()
    };
    vectors.sent(33, &Command::WriteCard(onity.clone()), Trailer::Unchecked);
    let joining = WriteCard { stay: Stay::Join, ..onity };
    vectors.sent(34, &Command::WriteCard(joining), Trailer::Unchecked);
}

fn successes(vectors: &mut Vectors) {
    for number in [12, 36] {
        let Answer::Done(fields) = vectors.answered(number, &Command::WriteCard(card())) else {
            panic!("vector {number} is a success");
        };
        assert_eq!(answer::serial(&fields), Some("04A1B2C3D4E580"), "vector {number}");
    }
    let phone = Command::SendPhoneKey(SendPhoneKey {
        stay: Stay::Begin,
        phone: "+15555550100".into(),
        rooms: vec!["101".into()],
        granted: String::new(),
        denied: String::new(),
        start: None,
        expiry: None,
        operator: String::new(),
        text: String::new(),
        auth_code: String::new(),
    });
    assert!(matches!(vectors.answered(13, &phone), Answer::Done(_)));
    assert_eq!(vectors.answered(13, &read_card()), Answer::Foreign);
}

fn refusals(vectors: &mut Vectors) {
    for (number, expected, code) in [
        (14, ErrorCode::Es, Code::Rejected),
        (15, ErrorCode::Nc, Code::EncoderOffline),
        (16, ErrorCode::Nf, Code::Rejected),
        (17, ErrorCode::Ov, Code::EncoderBusy),
        (18, ErrorCode::Ep, Code::NoCard),
        (19, ErrorCode::Ef, Code::BadCard),
        (20, ErrorCode::Td, Code::RoomUnknown),
        (21, ErrorCode::Ed, Code::NoCard),
        (22, ErrorCode::Ea, Code::NoStayToJoin),
        (23, ErrorCode::Os, Code::RoomBlocked),
        (24, ErrorCode::Eo, Code::EncoderBusy),
        (25, ErrorCode::Ev, Code::Rejected),
        (26, ErrorCode::Eg, Code::Rejected),
        (40, ErrorCode::En, Code::BadCard),
    ] {
        match vectors.answered(number, &Command::WriteCard(card())) {
            Answer::Refused(error, refusal) => {
                assert_eq!((error, refusal.code), (expected, code), "vector {number}");
                assert_eq!(
                    refusal.message.contains("Encoder firmware too old"),
                    number == 26,
                    "vector {number}"
                );
            }
            other => panic!("vector {number} is {other:?}"),
        }
    }
}

fn read_cards(vectors: &mut Vectors) {
    for (number, start, expiry) in [(28, arrival(), departure()), (38, arrival(), departure())] {
        let Answer::Done(fields) = vectors.answered(number, &read_card()) else {
            panic!("vector {number} is a success");
        };
        let Some(CardShown::Guest(guest)) = CardShown::read(&fields) else {
            panic!("vector {number} is a guest card");
        };
        assert_eq!(guest.rooms, ["101"], "vector {number}");
        assert!(guest.valid, "vector {number}");
        assert_eq!(guest.copy, CopyNumber::Original, "vector {number}");
        assert_eq!(guest.authorisations, [1, 2], "vector {number}");
        assert_eq!((guest.start, guest.expiry), (Some(start), Some(expiry)), "vector {number}");
        assert_eq!(guest.operator, "BRIDGE", "vector {number}");
    }
    assert_eq!(CardShown::read(&vectors.fields(29, Check::Good)), Some(CardShown::Staff));
    assert_eq!(CardShown::read(&vectors.fields(39, Check::Good)), Some(CardShown::Invalid));
}

fn arrival() -> civil::DateTime {
    civil::date(2026, 11, 21).at(15, 0, 0, 0)
}

fn departure() -> civil::DateTime {
    civil::date(2026, 11, 24).at(11, 0, 0, 0)
}

fn read_card() -> Command {
    Command::ReadCard { is_amadeus: false, encoder: "1".into(), eject: Eject::Wait }
}

fn card() -> WriteCard {
    let granted: String = [1, 2].into_iter().filter_map(symbol).collect();
    assert_eq!(authorisations(&granted), [1, 2]);
    WriteCard {
        stay: Stay::Begin,
        count: Some(1),
        encoder: "1".into(),
        eject: Eject::Wait,
        rooms: vec!["101".into()],
        granted,
        denied: String::new(),
        start: Some(arrival()),
        expiry: Some(departure()),
        dates: DateForm::Minutes,
        operator: "BRIDGE".into(),
        print_lines: Vec::new(),
        serials: Some(Serials::All),
    }
}
