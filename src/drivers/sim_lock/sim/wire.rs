//! The lock's own reading and writing of frames, one line each.

use jiff::{
    Timestamp,
    civil::DateTime,
    fmt::strtime,
    tz::{Offset, TimeZone},
};

/// A request as it came in. Its fields may hold a PIN.
pub(super) struct Asked {
    pub number: String,
    pub verb: Option<Verb>,
    pub job: Option<String>,
    pub fields: Vec<String>,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    State,
    Clock,
    Put,
    Del,
    Open,
    Table,
    Ledger,
}

impl Verb {
    pub(super) const ALL: [Self; 7] =
        [Self::State, Self::Clock, Self::Put, Self::Del, Self::Open, Self::Table, Self::Ledger];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::State => "STATE",
            Self::Clock => "CLOCK",
            Self::Put => "PUT",
            Self::Del => "DEL",
            Self::Open => "OPEN",
            Self::Table => "TABLE",
            Self::Ledger => "LEDGER",
        }
    }

    pub(super) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name().eq_ignore_ascii_case(word))
    }
}

/// The longest line that is waited for.
const LONGEST_LINE: usize = 4096;

/// Collects bytes into lines and lines into requests.
#[derive(Default)]
pub(super) struct Reader {
    line: Vec<u8>,
}

impl Reader {
    /// The requests that these bytes complete; whatever is damaged is left out.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Asked> {
        let mut asked = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                // What stands before the last colon is noise, or a request that was cut off.
                let begin = self.line.iter().rposition(|byte| *byte == b':').unwrap_or(self.line.len());
                let frame = self.line.get(begin + 1..).unwrap_or_default();
                asked.extend(std::str::from_utf8(frame).ok().and_then(request));
                self.line.clear();
            } else if self.line.len() < LONGEST_LINE {
                self.line.push(*byte);
            }
        }
        asked
    }
}

fn request(frame: &str) -> Option<Asked> {
    let (length, rest) = frame.split_at_checked(4)?;
    let (body, check) = rest.split_at_checked(rest.len().checked_sub(4)?)?;
    let hex = |digits: &str| {
        let upper = digits.bytes().all(|digit| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit));
        u16::from_str_radix(digits, 16).ok().filter(|_| upper)
    };
    let checked = &frame.as_bytes()[..frame.len() - 4];
    if usize::from(hex(length)?) != body.len() || hex(check)? != check_of(checked) {
        return None;
    }
    let mut fields = body.split(' ');
    let number = fields.next().filter(|number| number.parse::<u16>().is_ok_and(|number| number > 0))?;
    let verb = Verb::ALL.into_iter().find(|verb| fields.clone().next() == Some(verb.name()));
    let job = fields.nth(1).filter(|job| *job != "-").map(Into::into);
    Some(Asked { number: number.into(), verb, job, fields: fields.map(plain).collect::<Option<_>>()? })
}

/// A frame around an answer.
pub(super) fn frame(body: &str) -> Vec<u8> {
    let checked = format!("{:04X}{body}", body.len());
    format!(":{checked}{:04X}\n", check_of(checked.as_bytes())).into_bytes()
}

/// The check, byte by byte without a table.
fn check_of(bytes: &[u8]) -> u16 {
    let mut check = u16::MAX;
    for byte in bytes {
        check = check.rotate_left(8) ^ u16::from(*byte);
        check ^= (check & 0xFF) >> 4;
        check ^= check << 12;
        check ^= (check & 0xFF) << 5;
    }
    check
}

fn plain(field: &str) -> Option<String> {
    let mut parts = field.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// A text as a field.
pub(super) fn field(text: &str) -> String {
    text.bytes()
        .map(|byte| match char::from(byte) {
            plain @ ('-' | '_' | '.') => plain.to_string(),
            plain if plain.is_ascii_alphanumeric() => plain.to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

const LOCAL: &str = "%Y%m%dT%H%M%S";

pub(super) fn local_field(local: DateTime) -> String {
    local.strftime(LOCAL).to_string()
}

pub(super) fn local_of(field: &str) -> Option<DateTime> {
    DateTime::strptime(LOCAL, field).ok().filter(|local| local_field(*local) == field)
}

pub(super) fn clock_field(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime(&format!("{LOCAL}%z")).to_string()
}

pub(super) fn clock_of(field: &str) -> Option<Timestamp> {
    let read = strtime::parse(format!("{LOCAL}%z"), field).ok()?;
    let offset: Offset = read.offset()?;
    offset.to_timestamp(read.to_datetime().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_from_elsewhere_are_read_and_damaged_ones_are_not() {
        let mut reader = Reader::default();
        let asked = reader.feed(b"noise:00091 STATE -1C1C\n:00091 STATE -1C1D\n:000A1 STATE -1C1C\n");
        assert_eq!(asked.len(), 1);
        assert_eq!((asked[0].number.as_str(), asked[0].verb), ("1", Some(Verb::State)));
        assert_eq!(frame("1 STATE -"), b":00091 STATE -1C1C\n");
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let zone = TimeZone::get("Europe/Oslo").unwrap();
        let at: Timestamp = "2026-10-25T01:30:00Z".parse().unwrap();
        assert_eq!(clock_field(at, &zone), "20261025T023000+0100");
        assert_eq!(clock_of("20261025T023000+0100"), Some(at));
        assert_eq!(clock_of("20261025T023000+0200"), Some("2026-10-25T00:30:00Z".parse().unwrap()));
        assert_eq!(local_of("20261025T0230"), None);
        assert_eq!(plain(&field("a b:ø%")).as_deref(), Some("a b:ø%"));
    }
}
