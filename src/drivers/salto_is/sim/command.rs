//! A frame's fields to a command, checked field by field.

use std::collections::BTreeSet;

use jiff::civil::DateTime;

/// Symbol of authorisation n at position n - 1.
const SYMBOLS: &str = r"123456789abcdefghijklmnopqrstuvwxyz!#$%&()*+,-./:;<=>?@[\]^_{}";
/// Longest operator name and print line.
const LINE: usize = 24;
/// Longest operator name of Onity's.
const ONITY_OPERATOR: usize = 20;
/// Onity's fields for magnetic tracks, and how long each may be.
const ONITY_TRACKS: [(usize, usize); 2] = [(12, 62), (13, 14)];

/// How times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dates {
    /// `hhmmDDMMYY`.
    #[default]
    Minutes,
    /// `hhDDMMYY`, the old form.
    Hours,
}

/// Whose form of the protocol the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// SALTO SPACE, version 1.16.
    #[default]
    Salto,
    /// Onity HT22, HT24 and HT28.
    Onity,
    /// Amadeus ST40: as Onity, but for the eject field, reading and check-out.
    AmadeusSt40,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Encode(Encode),
    Read {
        /// The command as sent: the answer repeats it.
        said: String,
        encoder: String,
        ejects: bool,
    },
    CheckOut {
        encoder: Option<String>,
        room: String,
    },
    Modify(Modify),
}

/// `CN` and `CC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encode {
    /// The command as sent, with its count: the answer repeats it.
    pub said: String,
    /// Whether it joins the stay in the room (`CC`) or begins a new one (`CN`).
    pub copy: bool,
    pub encoder: String,
    /// Whether the card has to be taken away before the encoder takes another.
    pub ejects: bool,
    /// The main room first.
    pub rooms: Vec<String>,
    pub authorisations: BTreeSet<u8>,
    /// Without one: from now.
    pub start: Option<DateTime>,
    pub expiry: Option<DateTime>,
    pub operator: String,
    pub serial_wanted: bool,
}

/// `MC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Modify {
    pub room: String,
    pub to: Option<String>,
    pub expiry: Option<DateTime>,
}

/// Why a frame is no command; the wire only says `ES`, the log says this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Syntax(pub &'static str);

pub(super) fn parse(fields: &[String], dates: Dates, dialect: Dialect) -> Result<Command, Syntax> {
    let field = |n: usize| fields.get(n).map_or("", String::as_str);
    if fields.iter().any(|field| field.chars().any(char::is_control)) {
        return Err(Syntax("control character in a field"));
    }
    let at_most =
        |most: usize| (fields.len() <= most).then_some(()).ok_or(Syntax("more fields than the command has"));
    match field(0) {
        said @ ("LT" | "LTE") if (said == "LTE") == (dialect == Dialect::AmadeusSt40) => {
            at_most(3)?;
            let ejects = eject(field(2), dialect)?;
            Ok(Command::Read { said: said.to_owned(), encoder: encoder(field(1), dialect)?, ejects })
        }
        "CO" if dialect == Dialect::AmadeusSt40 => {
            at_most(2)?;
            Ok(Command::CheckOut { encoder: None, room: required(field(1), "no room")? })
        }
        "CO" => {
            at_most(3)?;
            Ok(Command::CheckOut {
                encoder: Some(required(field(1), "no encoder field")?),
                room: required(field(2), "no room")?,
            })
        }
        "MC" if dialect != Dialect::AmadeusSt40 => {
            at_most(5)?;
            Ok(Command::Modify(Modify {
                room: required(field(1), "no room")?,
                to: Some(field(2).to_owned()).filter(|to| !to.is_empty()),
                expiry: date(field(3), dates)?,
            }))
        }
        said => encode(said, fields, dates, dialect).map(Command::Encode),
    }
}

fn encode(said: &str, fields: &[String], dates: Dates, dialect: Dialect) -> Result<Encode, Syntax> {
    let field = |n: usize| fields.get(n).map_or("", String::as_str);
    let (copy, count) = match (said.strip_prefix("CN"), said.strip_prefix("CC")) {
        (Some(count), _) => (false, count),
        (_, Some(count)) => (true, count),
        _ => return Err(Syntax("not a command this server knows")),
    };
    if !matches!(count, "" | "1") {
        return Err(Syntax("only one card a command is imitated"));
    }
    if fields.len() > 16 {
        return Err(Syntax("more fields than the command has"));
    }
    let ejects = eject(field(2), dialect)?;
    required(field(3), "no main room")?;
    let rooms = (3..=6).map(field).filter(|room| !room.is_empty()).map(str::to_owned).collect();
    let is_longer = |(n, most): (usize, usize)| field(n).chars().count() > most;
    match dialect {
        Dialect::Salto => {
            if (11..=14).any(|n| is_longer((n, LINE))) {
                return Err(Syntax("operator or print line longer than 24"));
            }
        }
        Dialect::Onity | Dialect::AmadeusSt40 => {
            if (4..=6).any(|n| !field(n).is_empty()) {
                return Err(Syntax("a second room: a card of this system opens one"));
            }
            if !field(9).is_empty() {
                return Err(Syntax("a start: a card of this system opens at once"));
            }
            if is_longer((11, ONITY_OPERATOR)) {
                return Err(Syntax("operator longer than 20"));
            }
            if ONITY_TRACKS.into_iter().any(is_longer) {
                return Err(Syntax("track 1 longer than 62 or track 2 longer than 14"));
            }
        }
    }
    let granted = numbers(field(7))?;
    let denied = numbers(field(8))?;
    Ok(Encode {
        said: said.to_owned(),
        copy,
        encoder: encoder(field(1), dialect)?,
        ejects,
        rooms,
        authorisations: granted.difference(&denied).copied().collect(),
        start: date(field(9), dates)?,
        expiry: date(field(10), dates)?,
        operator: field(11).to_owned(),
        serial_wanted: match field(15) {
            "" | "0" => false,
            "1" | "2" => true,
            _ => return Err(Syntax("serial number field is not 0, 1 or 2")),
        },
    })
}

fn required(text: &str, missing: &'static str) -> Result<String, Syntax> {
    match text {
        "" => Err(Syntax(missing)),
        text => Ok(text.to_owned()),
    }
}

fn encoder(name: &str, dialect: Dialect) -> Result<String, Syntax> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    if dialect == Dialect::Onity && !is_number {
        return Err(Syntax("the encoder is no client number"));
    }
    required(name, "no encoder")
}

fn eject(text: &str, dialect: Dialect) -> Result<bool, Syntax> {
    match (text, dialect) {
        ("", Dialect::AmadeusSt40) => Ok(false),
        (_, Dialect::AmadeusSt40) => Err(Syntax("an eject field: this system has none")),
        ("E" | "T", _) => Ok(true),
        ("R", _) => Ok(false),
        _ => Err(Syntax("eject field is not E, R or T")),
    }
}

fn numbers(symbols: &str) -> Result<BTreeSet<u8>, Syntax> {
    symbols
        .chars()
        .map(|symbol| {
            let position = SYMBOLS.find(symbol).and_then(|at| u8::try_from(at + 1).ok());
            position.ok_or(Syntax("unknown authorisation symbol"))
        })
        .collect()
}

/// The symbols of authorisations, for an answer.
pub(super) fn symbols(numbers: &BTreeSet<u8>) -> String {
    let symbol = |n: &u8| SYMBOLS.chars().nth(usize::from(*n).checked_sub(1)?);
    numbers.iter().filter_map(symbol).collect()
}

fn date(text: &str, dates: Dates) -> Result<Option<DateTime>, Syntax> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = Syntax("a date is not in the form this server is set to");
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong);
    }
    let (hour, minute, day) = match (dates, text.len()) {
        (Dates::Minutes, 10) => (&text[..2], &text[2..4], &text[4..]),
        (Dates::Hours, 8) => (&text[..2], "0", &text[2..]),
        _ => return Err(wrong),
    };
    let number = |text: &str| text.parse::<i8>().map_err(|_| wrong);
    let year = 2000 + i16::from(number(&day[4..])?);
    DateTime::new(year, number(&day[2..4])?, number(&day[..2])?, number(hour)?, number(minute)?, 0, 0)
        .map(Some)
        .map_err(|_| Syntax("a date that does not exist"))
}

/// A date for an answer.
pub(super) fn written(date: DateTime, dates: Dates) -> String {
    let form = match dates {
        Dates::Minutes => "%H%M%d%m%y",
        Dates::Hours => "%H%d%m%y",
    };
    date.strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date as day;
    use proptest::prelude::*;

    use super::*;

    fn fields(text: &str) -> Vec<String> {
        text.split('|').map(str::to_owned).collect()
    }

    fn refused(text: &str, why: &str) {
        assert_eq!(parse(&fields(text), Dates::Minutes, Dialect::Salto).unwrap_err().0, why, "{text}");
    }

    #[test]
    fn a_full_check_in_is_read_field_by_field() {
        let text = "CN1|1|E|101|102||104|12a!|2|1500211126|1100241126|BRIDGE||||2";
        let Ok(Command::Encode(encode)) = parse(&fields(text), Dates::Minutes, Dialect::Salto) else {
            panic!("not read");
        };
        assert_eq!(encode.rooms, ["101", "102", "104"]);
        assert_eq!(encode.authorisations, BTreeSet::from([1, 10, 36]));
        assert_eq!(encode.start, Some(day(2026, 11, 21).at(15, 0, 0, 0)));
        assert_eq!(encode.expiry, Some(day(2026, 11, 24).at(11, 0, 0, 0)));
        assert!(encode.serial_wanted && !encode.copy);
        assert_eq!(symbols(&encode.authorisations), "1a!");
        assert_eq!(symbols(&(1..=62).collect()), SYMBOLS);
    }

    #[test]
    fn every_part_that_is_not_as_published_is_a_syntax_error_with_a_reason() {
        refused("CNJ|1|E|101", "only one card a command is imitated");
        refused("XX|1", "not a command this server knows");
        refused("CN2|1|E|101", "only one card a command is imitated");
        refused("CN||E|101", "no encoder");
        refused("CN|1|X|101", "eject field is not E, R or T");
        refused("CN|1|E||102", "no main room");
        refused("CN|1|E|101||||`", "unknown authorisation symbol");
        refused("CN|1|E|101||||||15211126", "a date is not in the form this server is set to");
        refused("CN|1|E|101||||||1500311126", "a date that does not exist");
        refused("CN|1|E|101||||||2400211126", "a date that does not exist");
        refused("CN|1|E|101||||||||ABCDEFGHIJKLMNOPQRSTUVWXY", "operator or print line longer than 24");
        refused("CN|1|E|101||||||||||||3", "serial number field is not 0, 1 or 2");
        refused("CN|1|E|101|||||||||||||", "more fields than the command has");
        refused("CN|1|E|10\u{7}1", "control character in a field");
        refused("CO|0", "no room");
        refused("CO||101", "no encoder field");
        refused("LT|1", "eject field is not E, R or T");
    }

    #[test]
    fn the_old_form_has_hours_only_and_is_written_back_so() {
        let text = "CC|1|R|101||||||15211126|11241126";
        let Ok(Command::Encode(encode)) = parse(&fields(text), Dates::Hours, Dialect::Salto) else {
            panic!("not read");
        };
        assert!(encode.copy);
        assert_eq!(written(encode.expiry.unwrap(), Dates::Hours), "11241126");
        assert_eq!(written(encode.start.unwrap(), Dates::Minutes), "1500211126");
        assert!(parse(&fields("CN|1|R|101||||||1500211126"), Dates::Hours, Dialect::Salto).is_err());
    }

    proptest! {
        #[test]
        fn no_fields_of_a_peer_panic(
            command in "CN1?|CC1?|CO|MC|LTE?|",
            fields in proptest::collection::vec("[ERT0-9]{0,10}|.{0,30}", 0..20),
        ) {
            let fields: Vec<String> = std::iter::once(command).chain(fields).collect();
            let forms = [
                (Dates::Minutes, Dialect::Salto),
                (Dates::Hours, Dialect::Salto),
                (Dates::Hours, Dialect::Onity),
                (Dates::Hours, Dialect::AmadeusSt40),
            ];
            for (dates, dialect) in forms {
                let _any_verdict = parse(&fields, dates, dialect);
            }
        }
    }
}
