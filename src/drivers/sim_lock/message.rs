//! What stands in the frames: requests as bodies, bodies as answers.

use std::fmt::Write;

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{Offset, TimeZone},
};

use super::codec::{escape, unescape};
use crate::model::{JobId, Private, SlotContent};

/// What the lock can be asked. Its `Debug` shows no PIN and no card number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// How it is.
    State,
    /// To set its clock.
    Clock(Reading),
    /// To put an entry, or to replace it.
    Put {
        /// For which job.
        job: JobId,
        /// The entry.
        entry: Entry,
    },
    /// To empty an entry.
    Delete {
        /// For which job.
        job: JobId,
        /// The entry's key.
        key: String,
    },
    /// To open the door, once.
    Open {
        /// For which job.
        job: JobId,
    },
    /// Its table.
    Table {
        /// From this slot on.
        from: u16,
    },
    /// What was done.
    Ledger {
        /// For which job; for any, and for none, without one.
        job: Option<JobId>,
        /// After this sequence.
        after: u64,
    },
}

/// One slot as the lock keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The caller's key.
    pub key: String,
    /// PIN or card number.
    pub content: SlotContent,
    /// First local time at which it opens.
    pub starts_at: DateTime,
    /// First local time at which it does not open any more.
    pub ends_at: Option<DateTime>,
    /// Grows with every change.
    pub generation: u64,
}

/// A clock as it is read or set: an instant, and the offset of its local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The instant.
    pub at: Timestamp,
    /// What its local time adds to UTC.
    pub offset: Offset,
}

/// An answer to our request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// How the lock is.
    State(State),
    /// Done.
    Done,
    /// A page of the table.
    Table {
        /// The entries.
        entries: Vec<Entry>,
        /// Where the next page begins; none behind the last.
        next: Option<u16>,
    },
    /// A page of the ledger.
    Ledger {
        /// The oldest sequence it keeps of anything.
        first: u64,
        /// What it did, oldest first.
        entries: Vec<Deed>,
        /// Behind which sequence the next page begins; none behind the last.
        next: Option<u64>,
    },
    /// Refused, and nothing was done.
    No(No),
    /// The number is ours and the rest makes no sense.
    Strange,
    /// To another request.
    Foreign,
}

/// How a lock is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its serial number.
    pub serial: String,
    /// Its clock.
    pub clock: Reading,
    /// Its battery in per cent.
    pub battery: u8,
    /// How many slots it has.
    pub slots: u16,
    /// How many of them are in use.
    pub used: u16,
    /// For how many seconds it has kept its memory.
    pub age: u64,
}

/// One entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// Its place.
    pub sequence: u64,
    /// When, by the lock's clock.
    pub at: Timestamp,
    /// For which job.
    pub job: Option<JobId>,
    /// What was done, in the lock's word.
    pub what: String,
    /// The entry that it was about.
    pub key: Option<String>,
}

/// Why a lock refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum No {
    /// At work.
    Busy,
    /// No free slot.
    Full,
    /// The content is in another slot.
    Taken,
    /// It has the entry with a later generation.
    Older,
    /// No PIN or card number for it.
    Format,
    /// No window for it.
    Dates,
    /// Anything else; its own word, shortened.
    Other(String),
}

impl Request {
    /// The body of its frame.
    #[must_use]
    pub fn body(&self, number: u16) -> String {
        match self {
            Self::State => format!("{number} STATE -"),
            Self::Clock(reading) => format!("{number} CLOCK - {}", reading.spelt()),
            Self::Put { job, entry } => {
                let (kind, content) = match &entry.content {
                    SlotContent::Pin(pin) => ("PIN", pin),
                    SlotContent::CardNumber(card) => ("CARD", card),
                };
                let mut body = format!("{number} PUT {job} {} {kind} ", escape(&entry.key));
                let ends_at = entry.ends_at.map_or_else(|| "-".into(), |end| spelt(end).to_string());
                let _ = write!(
                    body,
                    "{} {} {ends_at} {}",
                    escape(content.expose()),
                    spelt(entry.starts_at),
                    entry.generation
                );
                body
            }
            Self::Delete { job, key } => format!("{number} DEL {job} {}", escape(key)),
            Self::Open { job } => format!("{number} OPEN {job}"),
            Self::Table { from } => format!("{number} TABLE - {from}"),
            Self::Ledger { job: Some(job), after } => format!("{number} LEDGER {job} {after}"),
            Self::Ledger { job: None, after } => format!("{number} LEDGER - {after}"),
        }
    }

    /// Reads a body as the answer to this request, asked as `number`.
    #[must_use]
    pub fn answer(&self, number: u16, body: &str) -> Answer {
        let fields: Vec<&str> = body.split(' ').collect();
        let [theirs, word, rest @ ..] = &fields[..] else {
            return Answer::Foreign;
        };
        if *theirs != number.to_string() {
            return Answer::Foreign;
        }
        match *word {
            "OK" => self.done(rest).unwrap_or(Answer::Strange),
            "NO" => Answer::No(No::of(rest.first().copied().unwrap_or_default())),
            _ => Answer::Strange,
        }
    }

    fn done(&self, fields: &[&str]) -> Option<Answer> {
        match self {
            Self::State => {
                let &[serial, clock, battery, slots, used, age] = fields else {
                    return None;
                };
                Some(Answer::State(State {
                    serial: unescape(serial)?,
                    clock: Reading::of(clock)?,
                    battery: battery.parse().ok()?,
                    slots: slots.parse().ok()?,
                    used: used.parse().ok()?,
                    age: age.parse().ok()?,
                }))
            }
            Self::Clock(_) => fields.is_empty().then_some(Answer::Done),
            Self::Put { .. } | Self::Open { .. } => {
                let &[sequence] = fields else { return None };
                sequence.parse::<u64>().ok().map(|_| Answer::Done)
            }
            Self::Delete { .. } => {
                let &[sequence] = fields else { return None };
                none_or(sequence, |sequence| sequence.parse::<u64>().ok()).map(|_| Answer::Done)
            }
            Self::Table { from } => {
                let (&next, entries) = fields.split_first()?;
                let next = none_or(next, |next| next.parse::<u16>().ok().filter(|next| next > from))?;
                Some(Answer::Table { entries: each::<6, _>(entries, Entry::of)?, next })
            }
            Self::Ledger { after, .. } => {
                let (&first, rest) = fields.split_first()?;
                let (&next, entries) = rest.split_first()?;
                let next = none_or(next, |next| next.parse::<u64>().ok().filter(|next| next > after))?;
                let entries = each::<5, _>(entries, Deed::of)?;
                Some(Answer::Ledger { first: first.parse().ok()?, entries, next })
            }
        }
    }
}

impl Entry {
    fn of([key, kind, content, starts_at, ends_at, generation]: [&str; 6]) -> Option<Self> {
        let content = Private::new(unescape(content)?);
        Some(Self {
            key: unescape(key)?,
            content: match kind {
                "PIN" => SlotContent::Pin(content),
                "CARD" => SlotContent::CardNumber(content),
                _ => return None,
            },
            starts_at: local(starts_at)?,
            ends_at: none_or(ends_at, local)?,
            generation: generation.parse().ok()?,
        })
    }
}

impl Deed {
    fn of([sequence, clock, job, what, key]: [&str; 5]) -> Option<Self> {
        Some(Self {
            sequence: sequence.parse().ok()?,
            at: Reading::of(clock)?.at,
            job: none_or(job, |job| job.parse().ok())?,
            what: unescape(what)?,
            key: none_or(key, unescape)?,
        })
    }
}

impl Reading {
    /// The clock of `zone` at an instant, without fractions of a second.
    #[must_use]
    pub fn in_zone(at: Timestamp, zone: &TimeZone) -> Self {
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
        Self { at, offset: zone.to_offset(at) }
    }

    fn spelt(self) -> String {
        let seconds = self.offset.seconds();
        let sign = if seconds < 0 { '-' } else { '+' };
        let minutes = seconds.abs() / 60;
        format!("{}{sign}{:02}{:02}", spelt(self.offset.to_datetime(self.at)), minutes / 60, minutes % 60)
    }

    fn of(field: &str) -> Option<Self> {
        let (time, offset) = field.split_at_checked(15)?;
        let (sign, digits) = offset.split_at_checked(1)?;
        if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let sign = match sign {
            "+" => 1,
            "-" => -1,
            _ => return None,
        };
        let (hours, minutes) = (digits[..2].parse::<i32>().ok()?, digits[2..].parse::<i32>().ok()?);
        let offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()?;
        Some(Self { at: offset.to_timestamp(local(time)?).ok()?, offset })
    }
}

impl No {
    fn of(word: &str) -> Self {
        match word {
            "BUSY" => Self::Busy,
            "FULL" => Self::Full,
            "TAKEN" => Self::Taken,
            "OLDER" => Self::Older,
            "FORMAT" => Self::Format,
            "DATES" => Self::Dates,
            // A few signs only: whatever a lock says must not carry a PIN into a log.
            other => Self::Other(other.chars().filter(char::is_ascii_uppercase).take(16).collect()),
        }
    }
}

/// A local time as the wire writes it.
fn spelt(local: DateTime) -> impl std::fmt::Display {
    local.strftime("%Y%m%dT%H%M%S")
}

fn local(field: &str) -> Option<DateTime> {
    let digits = |range: std::ops::Range<usize>| {
        let part = field.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<i16>().ok())?
    };
    if field.len() != 15 || field.get(8..9) != Some("T") {
        return None;
    }
    let small = |range| digits(range).and_then(|number| i8::try_from(number).ok());
    DateTime::new(digits(0..4)?, small(4..6)?, small(6..8)?, small(9..11)?, small(11..13)?, small(13..15)?, 0)
        .ok()
}

/// `-` as none, and anything else as `read` has it.
fn none_or<T>(field: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match field {
        "-" => Some(None),
        field => read(field).map(Some),
    }
}

/// Groups of `N` fields, each read; nothing where one cannot be, or where fields are left over.
fn each<const N: usize, T>(fields: &[&str], read: impl Fn([&str; N]) -> Option<T>) -> Option<Vec<T>> {
    let groups = fields.chunks_exact(N);
    if !groups.remainder().is_empty() {
        return None;
    }
    groups.map(|group| read(group.try_into().ok()?)).collect()
}
