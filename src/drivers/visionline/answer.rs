//! What a server answers, and what that means.
//!
//! The result codes are those that a PMS maker publishes; its list ends at 127. What the numbers leave open is decided
//! to the safe side: a code that speaks of trouble *after* writing, or of a fatal error, is a doubt for a command that
//! writes. So is a code that is not in the list, until somebody has seen what it means; that of a room which the server
//! does not know must be one of these.

use jiff::civil::DateTime;

use super::command::Command;
use crate::model::{Code, Refusal};

/// What an answer means for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It belongs to another command or encoder.
    Foreign,
    /// Not the end: the request waits in the encoder's queue, and another answer follows.
    Pending,
    /// The card was written.
    Made {
        /// The chip's serial number in hex, where it was asked for.
        serial: Option<String>,
    },
    /// A card was read.
    Read(CardShown),
    /// Not done.
    Refused(Refusal),
    /// The card may have been written.
    Doubt(Refusal),
}

/// A card that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CardShown {
    /// Whether the server holds it for valid.
    pub is_valid: bool,
    /// The server's word for one that is not.
    pub why_not: Option<&'static str>,
    /// Its rooms; none where the server does not say.
    pub rooms: Vec<String>,
    /// From when it opens, in local time.
    pub start: Option<DateTime>,
    /// Until when.
    pub end: Option<DateTime>,
    /// The numbers of its common rooms.
    pub common: Vec<u16>,
    /// The chip's serial number in hex.
    pub serial: Option<String>,
}

/// What a result code means, whatever was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Success,
    Pending,
    Valid,
    /// A card that is not valid; the server's word for it.
    Invalid(&'static str),
    /// Not done.
    Not(Code, &'static str),
    /// Not done as far as the server knows, but a card may have been written.
    Unclear(Code, &'static str),
}

fn meaning(code: u32) -> Meaning {
    use Code::{BadCard, BadDates, EncoderBusy, EncoderOffline, NoCard, Rejected};
    use Meaning::{Invalid, Not, Pending, Success, Unclear, Valid};
    match code {
        0 => Success,
        3 => Not(EncoderOffline, "the server has no connection to the encoder"),
        4 => Not(EncoderBusy, "the encoder is at work"),
        7 => Not(EncoderOffline, "the server has no connection to the encoder, or does not know it"),
        13 => Valid,
        17 => Not(BadCard, "the card cannot be used"),
        18 => Not(BadCard, "the card cannot be written"),
        20 => {
            Unclear(BadCard, "the card did not pass the check after writing; it may be written all the same")
        }
        38 => Not(BadCard, "the card could not be read"),
        39 => Not(NoCard, "somebody cancelled it at the encoder"),
        40 => Not(EncoderOffline, "no card reader is connected"),
        41 => Not(NoCard, "no card was laid down"),
        42 => Not(EncoderOffline, "the encoder needs a new PROM"),
        43 | 70 => Not(BadCard, "the card is of no use"),
        44 => Invalid("expired"),
        45 => Invalid("cancelled"),
        46 => Invalid("overridden"),
        57 => Not(BadDates, "the operator may not give a card so long a validity"),
        72 => Unclear(Rejected, "the server had a fatal error; its event log says which"),
        73 => Not(EncoderBusy, "the server's database is locked"),
        78 => Not(EncoderOffline, "another unit answers where the encoder should"),
        85 => Pending,
        96..=105 => Not(Rejected, "the server answers with the use of a reporting card"),
        _ => Unclear(Rejected, "the server answers with a code that is not published"),
    }
}

/// A result code: digits alone.
fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads an answer to `command`.
#[must_use]
pub fn read(items: &[String], command: &Command) -> Answer {
    let value = |name: &str| items.iter().skip(1).find_map(|item| item.strip_prefix(name));
    let is_ours = items.first().is_some_and(|name| name == command.name())
        && value("EA").is_none_or(|encoder| is_same(encoder, command.encoder()));
    if !is_ours {
        return Answer::Foreign;
    }
    let Some(code) = value("RC").and_then(number) else {
        let why = Refusal::new(Code::NoAnswer, "the server's answer has no result code");
        return strange(why, command);
    };
    let refusal = |of: Code, message: &str| {
        let said = value("ET").map(plain).filter(|said| !said.is_empty());
        let message = said.map_or_else(|| message.to_owned(), |said| format!("{message} (\"{said}\")"));
        Refusal::by_device(of, format!("RC{code}"), message)
    };
    match (meaning(code), command) {
        (Meaning::Pending, _) => Answer::Pending,
        (Meaning::Success, Command::MakeCard(_)) => Answer::Made { serial: value("SR").and_then(serial) },
        (Meaning::Valid, Command::ReadCard { .. }) => Answer::Read(shown(value, None)),
        (Meaning::Invalid(why), Command::ReadCard { .. }) => Answer::Read(shown(value, Some(why))),
        (Meaning::Not(of, message), _) => Answer::Refused(refusal(of, message)),
        (Meaning::Unclear(of, message), Command::MakeCard(_)) => Answer::Doubt(refusal(of, message)),
        (Meaning::Unclear(of, message), Command::ReadCard { .. }) => Answer::Refused(refusal(of, message)),
        (Meaning::Success, Command::ReadCard { .. })
        | (Meaning::Valid | Meaning::Invalid(_), Command::MakeCard(_)) => strange(
            refusal(Code::NoAnswer, "the server answers as if it had been asked something else"),
            command,
        ),
    }
}

fn strange(why: Refusal, command: &Command) -> Answer {
    match command {
        Command::MakeCard(_) => {
            let message = format!("{}; the card may have been written: read it", why.message);
            Answer::Doubt(Refusal { message, ..why })
        }
        Command::ReadCard { .. } => Answer::Refused(Refusal { code: Code::ProtocolViolation, ..why }),
    }
}

fn shown<'a>(value: impl Fn(&str) -> Option<&'a str>, why_not: Option<&'static str>) -> CardShown {
    CardShown {
        is_valid: why_not.is_none(),
        why_not,
        rooms: value("GR").filter(|room| !room.is_empty()).map(str::to_owned).into_iter().collect(),
        start: value("CI").and_then(minutes),
        end: value("CO").and_then(minutes),
        common: value("CR").map(numbers).unwrap_or_default(),
        serial: value("SR").and_then(serial),
    }
}

/// Encoders are numbers: the same one may be written with zeros before it.
fn is_same(one: &str, other: &str) -> bool {
    match (one.trim().parse::<u32>(), other.parse::<u32>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one.trim() == other,
    }
}

/// A chip's number in hex, without the `FF` bytes that fill it up.
fn serial(text: &str) -> Option<String> {
    let is_hex =
        !text.is_empty() && text.len().is_multiple_of(2) && text.bytes().all(|it| it.is_ascii_hexdigit());
    let mut serial = is_hex.then_some(text)?;
    while let Some(shorter) = serial.strip_suffix("FF").or_else(|| serial.strip_suffix("ff")) {
        serial = shorter;
    }
    (!serial.is_empty()).then(|| serial.to_owned())
}

fn minutes(text: &str) -> Option<DateTime> {
    let digits = (text.len() == 12 && text.bytes().all(|it| it.is_ascii_digit())).then_some(text)?;
    DateTime::strptime("%Y%m%d%H%M", digits).ok()
}

/// `1`, `1,4` or `1-4`.
fn numbers(text: &str) -> Vec<u16> {
    /// More than any card carries; a range must not fill the memory.
    const MOST: usize = 256;
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse::<u16>().ok()?..=to.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().take(MOST).collect()
}

/// A server's words, short, and fit for a log and a screen.
fn plain(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::drivers::visionline::command::MakeCard;

    fn make() -> Command {
        Command::MakeCard(MakeCard {
            joins: false,
            encoder: "1".into(),
            room: "101".into(),
            start: None,
            end: date(2026, 11, 24).at(11, 0, 0, 0),
            common: Vec::new(),
            user_group: None,
            operator: None,
            guest: None,
            card_type: None,
            serial: true,
        })
    }

    fn look() -> Command {
        Command::ReadCard { encoder: "1".into() }
    }

    fn answered(text: &str, command: &Command) -> Answer {
        let items: Vec<_> = text.split(';').map(str::to_owned).collect();
        read(&items, command)
    }

    /// What an answer comes to, in words.
    fn word(answer: &Answer) -> String {
        match answer {
            Answer::Foreign => "foreign".into(),
            Answer::Pending => "pending".into(),
            Answer::Made { serial } => format!("made {}", serial.as_deref().unwrap_or("-")),
            Answer::Read(card) => format!("read {}", card.why_not.unwrap_or("valid")),
            Answer::Refused(why) => format!("refused {}", why.code),
            Answer::Doubt(why) => format!("doubt {}", why.code),
        }
    }

    #[test]
    fn every_published_code_means_the_same_for_making_and_reading_but_where_it_cannot() {
        for (codes, made, looked) in [
            (&[0_u32][..], "made -", "refused protocol_violation"),
            (&[3, 7, 40, 42, 78], "refused encoder_offline", "refused encoder_offline"),
            (&[4, 73], "refused encoder_busy", "refused encoder_busy"),
            (&[13], "doubt no_answer", "read valid"),
            (&[17, 18, 38, 43, 70], "refused bad_card", "refused bad_card"),
            (&[20], "doubt bad_card", "refused bad_card"),
            (&[39, 41], "refused no_card", "refused no_card"),
            (&[44], "doubt no_answer", "read expired"),
            (&[45], "doubt no_answer", "read cancelled"),
            (&[46], "doubt no_answer", "read overridden"),
            (&[57], "refused bad_dates", "refused bad_dates"),
            (&[72], "doubt rejected", "refused rejected"),
            (&[85], "pending", "pending"),
            (&[96, 105], "refused rejected", "refused rejected"),
            (&[1, 127, 128, 4_294_967_295], "doubt rejected", "refused rejected"),
        ] {
            for code in codes {
                assert_eq!(word(&answered(&format!("CCA;EA1;RC{code}"), &make())), made, "{code}");
                assert_eq!(word(&answered(&format!("CCB;EA1;RC{code}"), &look())), looked, "{code}");
            }
        }
    }

    #[test]
    fn an_answer_to_something_else_is_nobodys() {
        for foreign in ["CCB;EA1;RC0", "CCA;EA2;RC0", "CCA;EAx;RC0", "", "CC", "CCA1;EA1;RC0"] {
            assert_eq!(answered(foreign, &make()), Answer::Foreign, "{foreign}");
        }
        assert_eq!(word(&answered("CCA;EA01;RC0", &make())), "made -");
        assert_eq!(word(&answered("CCA;RC0", &make())), "made -");
    }

    #[test]
    fn an_answer_without_a_code_is_a_doubt_for_what_writes() {
        for text in ["CCA;EA1", "CCA;EA1;RC", "CCA;EA1;RCx", "CCA;EA1;RC-1", "CCA;EA1;RC4294967296"] {
            assert_eq!(word(&answered(text, &make())), "doubt no_answer", "{text}");
        }
        assert_eq!(word(&answered("CCB;EA1", &look())), "refused protocol_violation");
    }

    #[test]
    fn the_servers_own_words_and_number_reach_the_person() {
        let Answer::Doubt(refusal) = answered("CCA;EA1;RC200;ETNo such\u{7} room", &make()) else { panic!() };
        assert_eq!(refusal.vendor_code.as_deref(), Some("RC200"));
        assert_eq!(
            refusal.message,
            "the server answers with a code that is not published (\"No such room\")"
        );
    }

    #[test]
    fn a_chips_number_loses_what_fills_it_up() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(serial(text).as_deref(), expected, "{text}");
        check("04A1B2C3D4E580FF", Some("04A1B2C3D4E580"));
        check("04a1b2c3ffff", Some("04a1b2c3"));
        check("0FF0", Some("0FF0"));
        check("FFFF", None);
        check("", None);
        check("?", None);
    }

    #[test]
    fn numbers_of_common_rooms_are_read_in_each_form() {
        assert_eq!(numbers("1"), [1]);
        assert_eq!(numbers("1,4"), [1, 4]);
        assert_eq!(numbers("1-4,7"), [1, 2, 3, 4, 7]);
        assert_eq!(numbers("4-1,x,,-"), [] as [u16; 0]);
        assert_eq!(numbers("0-65535").len(), 256);
    }
}
