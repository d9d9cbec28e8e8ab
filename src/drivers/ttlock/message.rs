//! What is asked of a lock and what it answers, in the clear. Total over any input.
//!
//! Every answer is `command status data`: status 1 for yes, 0 for no with an error of one byte behind it. Dates are five
//! or six bytes with decimal values (`1a 0c 01 0f 00` is 1 December 2026, 15:00), in the lock's local time.

use std::fmt;

use jiff::civil::{Date, DateTime, Time};

use super::codec::Key;
use crate::model::Private;

/// A word of the vendor that some requests carry.
const WORD: &[u8] = b"SCIENER";
/// Start of a card or a passcode that holds for good.
const ALWAYS_FROM: [u8; 5] = [0, 2, 1, 0, 0];
/// End of a card that holds for good.
const ALWAYS_UNTIL: [u8; 5] = [99, 12, 1, 0, 0];

/// What a lock is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// To show its header, before it is paired.
    Init,
    /// For the key of a lock that belongs to nobody.
    GetKey,
    /// To belong to whoever has these numbers from now on.
    AddAdmin(Numbers),
    /// That pairing is over.
    Finished,
    /// To set its clock.
    SetClock(DateTime),
    /// What its clock shows.
    ReadClock,
    /// What it can do.
    Features,
    /// For a token, as its administrator.
    CheckAdmin {
        /// The administrator's number.
        admin: u32,
        /// The lowest three bytes of the lock's flag position.
        flag_position: u32,
    },
    /// To take the token's answer.
    CheckRandom {
        /// The token and the unlock key, added.
        answer: u32,
    },
    /// For a token, as a user.
    CheckUser {
        /// The lowest three bytes of the lock's flag position.
        flag_position: u32,
    },
    /// To open.
    Unlock {
        /// As in [`Self::CheckRandom`].
        answer: u32,
        /// When, in seconds since 1970.
        at: u32,
    },
    /// To close.
    Lock {
        /// As in [`Self::CheckRandom`].
        answer: u32,
        /// When, in seconds since 1970.
        at: u32,
    },
    /// Whether it is locked.
    Status,
    /// To add a passcode.
    AddPasscode {
        /// Four to nine digits.
        digits: Private,
        /// When it opens.
        span: Span,
    },
    /// To change a passcode: its dates, and its digits where others are given.
    ChangePasscode {
        /// Which.
        digits: Private,
        /// Its digits from now on; none where they stay.
        to: Option<Private>,
        /// When it opens from now on.
        span: Span,
    },
    /// To remove a passcode.
    RemovePasscode {
        /// Which.
        digits: Private,
    },
    /// To show its passcodes.
    Passcodes {
        /// From where.
        cursor: u16,
    },
    /// To add a card.
    AddCard {
        /// Its number.
        card: CardNumber,
        /// When it opens.
        span: Span,
    },
    /// To wait for a card at its reader, and add that.
    EnrolCard,
    /// To move the dates of a card.
    MoveCard {
        /// Which.
        card: CardNumber,
        /// When it opens from now on.
        span: Span,
    },
    /// To remove a card.
    RemoveCard {
        /// Which.
        card: CardNumber,
    },
    /// To show its cards.
    Cards {
        /// From where.
        cursor: u16,
    },
    /// To show what happened at it.
    Log {
        /// From which record.
        cursor: u16,
    },
}

/// What makes an administrator: both drawn by whoever pairs the lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// The administrator's number.
    pub admin: u32,
    /// Added to the token of each session.
    pub unlock: u32,
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[numbers]")
    }
}

/// When an entry opens, to the minute, in the lock's local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From when.
    pub starts_at: DateTime,
    /// Until when; none for good.
    pub ends_at: Option<DateTime>,
}

/// The number of a card.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CardNumber(u64);

impl CardNumber {
    /// Takes a number; eight bytes of it are sent where it has more than ten decimal digits.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub fn expose(self) -> u64 {
        self.0
    }

    fn bytes(self) -> Vec<u8> {
        match u32::try_from(self.0) {
            Ok(short) => short.to_be_bytes().to_vec(),
            Err(_) => self.0.to_be_bytes().to_vec(),
        }
    }
}

impl fmt::Debug for CardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[card]")
    }
}

impl Request {
    /// Its command.
    #[must_use]
    pub fn command(&self) -> u8 {
        match self {
            Self::Features => 0x01,
            Self::AddPasscode { .. } | Self::ChangePasscode { .. } | Self::RemovePasscode { .. } => 0x03,
            Self::AddCard { .. }
            | Self::EnrolCard
            | Self::MoveCard { .. }
            | Self::RemoveCard { .. }
            | Self::Cards { .. } => 0x05,
            Self::Passcodes { .. } => 0x07,
            Self::Status => 0x14,
            Self::GetKey => 0x19,
            Self::Log { .. } => 0x25,
            Self::CheckRandom { .. } => 0x30,
            Self::ReadClock => 0x34,
            Self::CheckAdmin { .. } => 0x41,
            Self::SetClock(_) => 0x43,
            Self::Init => 0x45,
            Self::Unlock { .. } => 0x47,
            Self::CheckUser { .. } => 0x55,
            Self::AddAdmin(_) => 0x56,
            Self::Finished => 0x57,
            Self::Lock { .. } => 0x58,
        }
    }

    /// What of commands that do several things: a passcode's or card's operation.
    fn operation(&self) -> Option<u8> {
        match self {
            Self::Cards { .. } => Some(1),
            Self::AddPasscode { .. } | Self::AddCard { .. } | Self::EnrolCard => Some(2),
            Self::RemovePasscode { .. } | Self::RemoveCard { .. } => Some(3),
            Self::ChangePasscode { .. } | Self::MoveCard { .. } => Some(5),
            _ => None,
        }
    }

    /// Whether the lock is another one after it, or its door.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            Self::AddAdmin(_)
            | Self::Unlock { .. }
            | Self::Lock { .. }
            | Self::AddPasscode { .. }
            | Self::ChangePasscode { .. }
            | Self::RemovePasscode { .. }
            | Self::AddCard { .. }
            | Self::EnrolCard
            | Self::MoveCard { .. }
            | Self::RemoveCard { .. } => true,
            Self::Init
            | Self::GetKey
            | Self::Finished
            | Self::SetClock(_)
            | Self::ReadClock
            | Self::Features
            | Self::CheckAdmin { .. }
            | Self::CheckRandom { .. }
            | Self::CheckUser { .. }
            | Self::Status
            | Self::Passcodes { .. }
            | Self::Cards { .. }
            | Self::Log { .. } => false,
        }
    }

    /// Its clear text.
    #[must_use]
    pub fn clear(&self) -> Vec<u8> {
        let mut clear: Vec<u8> = self.operation().into_iter().collect();
        match self {
            Self::Init | Self::Finished | Self::Features | Self::ReadClock | Self::EnrolCard => {}
            Self::GetKey | Self::Status => clear.extend(WORD),
            Self::AddAdmin(numbers) => {
                clear.extend(numbers.admin.to_be_bytes());
                clear.extend(numbers.unlock.to_be_bytes());
                clear.extend(WORD);
            }
            Self::SetClock(now) => {
                clear.extend(minute(*now));
                clear.push(now.second().unsigned_abs());
            }
            Self::CheckAdmin { admin, flag_position } => {
                clear.extend(admin.to_be_bytes());
                clear.extend(&flag_position.to_be_bytes()[1..]);
                clear.extend([0; 4]);
            }
            Self::CheckRandom { answer } => clear.extend(answer.to_be_bytes()),
            Self::CheckUser { flag_position } => {
                // All time, as the vendor writes it.
                clear.extend([0, 1, 31, 14, 0, 99, 11, 30, 14, 0]);
                clear.extend(&flag_position.to_be_bytes()[1..]);
                clear.extend([0; 4]);
            }
            Self::Unlock { answer, at } | Self::Lock { answer, at } => {
                clear.extend(answer.to_be_bytes());
                clear.extend(at.to_be_bytes());
            }
            Self::AddPasscode { digits, span } => {
                clear.push(if span.ends_at.is_some() { PERIOD } else { PERMANENT });
                put_digits(&mut clear, digits);
                put_span(&mut clear, span);
            }
            Self::ChangePasscode { digits, to, span } => {
                clear.push(if span.ends_at.is_some() { PERIOD } else { PERMANENT });
                put_digits(&mut clear, digits);
                match to {
                    Some(to) => put_digits(&mut clear, to),
                    None => clear.push(0),
                }
                put_span(&mut clear, span);
            }
            Self::RemovePasscode { digits } => {
                // The type is that of the entry, which the lock knows better: any is taken.
                clear.push(PERIOD);
                put_digits(&mut clear, digits);
            }
            Self::AddCard { card, span } | Self::MoveCard { card, span } => {
                clear.extend(card.bytes());
                match span.ends_at {
                    Some(end) => clear.extend([minute(span.starts_at), minute(end)].concat()),
                    None => clear.extend([ALWAYS_FROM, ALWAYS_UNTIL].concat()),
                }
            }
            Self::RemoveCard { card } => clear.extend(card.bytes()),
            Self::Passcodes { cursor } | Self::Cards { cursor } | Self::Log { cursor } => {
                clear.extend(cursor.to_be_bytes());
            }
        }
        clear
    }
}

const PERMANENT: u8 = 1;
const PERIOD: u8 = 3;

fn put_digits(clear: &mut Vec<u8>, digits: &Private) {
    let digits = digits.expose().as_bytes();
    clear.extend(u8::try_from(digits.len()));
    clear.extend(digits);
}

fn put_span(clear: &mut Vec<u8>, span: &Span) {
    clear.extend(minute(span.starts_at));
    clear.extend(span.ends_at.map(minute).into_iter().flatten());
}

/// A moment in decimal bytes; of a year, what stands behind 2000.
fn minute(at: DateTime) -> [u8; 5] {
    let year = u8::try_from(at.year().rem_euclid(100)).unwrap_or_default();
    // A calendar's and a clock's numbers are small and not negative.
    let small = |number: i8| number.unsigned_abs();
    [year, small(at.month()), small(at.day()), small(at.hour()), small(at.minute())]
}

/// What a lock answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It belongs to something else: another request, or nobody asked.
    Stranger,
    /// It belongs to the request and makes no sense.
    Strange,
    /// No.
    No(No),
    /// Yes, and nothing more is told; to [`Request::Init`] whatever came.
    Yes,
    /// To [`Request::GetKey`].
    Key(Key),
    /// To [`Request::CheckAdmin`] and [`Request::CheckUser`].
    Token(u32),
    /// To [`Request::Features`].
    Features {
        /// Of its battery, in per cent; none where it does not know.
        battery: Option<u8>,
        /// One bit for each thing that it can do.
        bits: u128,
    },
    /// To [`Request::ReadClock`].
    Clock(DateTime),
    /// To [`Request::Status`].
    Status {
        /// As in [`Self::Features`].
        battery: Option<u8>,
        /// Whether it is locked; none where it says neither.
        locked: Option<bool>,
    },
    /// To [`Request::Passcodes`].
    Passcodes {
        /// Of this page.
        entries: Vec<Passcode>,
        /// Where to go on; none at the end.
        next: Option<u16>,
    },
    /// To [`Request::Cards`].
    Cards {
        /// Of this page.
        entries: Vec<Card>,
        /// Where to go on; none at the end.
        next: Option<u16>,
    },
    /// To [`Request::EnrolCard`]: it waits for a card.
    WaitsForCard,
    /// To [`Request::EnrolCard`]: this card was laid down and added.
    Enrolled(CardNumber),
    /// To [`Request::Log`].
    Log {
        /// Of this page, in the lock's order.
        records: Vec<Record>,
        /// Where to go on; none at the end.
        next: Option<u16>,
    },
}

/// A passcode of a lock's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passcode {
    /// As it is now.
    pub digits: Private,
    /// When it opens; none of one that comes again each week or day, or that this driver does not know.
    pub span: Option<Span>,
}

/// A card of a lock's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Which.
    pub number: CardNumber,
    /// When it opens.
    pub span: Option<Span>,
}

/// What happened at a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What, by the vendor's number.
    pub kind: u8,
    /// When, by the lock's clock.
    pub at: DateTime,
    /// The passcode that was typed, where it tells one.
    pub digits: Option<Private>,
    /// The card that was held against it, likewise.
    pub card: Option<CardNumber>,
}

/// Why a lock says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct No(pub u8);

impl No {
    /// A frame that did not arrive whole.
    pub const CRC: Self = Self(0x01);
    /// The administrator's number is wrong.
    pub const WRONG_ADMIN: Self = Self(0x03);
    /// It waits to be paired.
    pub const PAIRING: Self = Self(0x05);
    /// It has no administrator.
    pub const NO_ADMIN: Self = Self(0x06);
    /// It is paired, and pairs with nobody else.
    pub const NOT_PAIRING: Self = Self(0x07);
    /// The flag position is an older one.
    pub const FLAG_POSITION: Self = Self(0x0D);
    /// A passcode of that many digits.
    pub const LENGTH: Self = Self(0x0F);
    /// Nobody logged in.
    pub const NOT_LOGGED_IN: Self = Self(0x12);
    /// It did not work.
    pub const FAILED: Self = Self(0x13);
    /// That passcode is there already.
    pub const EXISTS: Self = Self(0x14);
    /// That passcode is not there.
    pub const MISSING: Self = Self(0x15);
    /// No more fit.
    pub const FULL: Self = Self(0x16);
    /// That card is not there.
    pub const CARD_MISSING: Self = Self(0x18);
    /// It does not know the command.
    pub const COMMAND: Self = Self(0x1B);
    /// It takes nothing at present.
    pub const FROZEN: Self = Self(0x1C);
    /// It was set back to how it left the factory.
    pub const KEY_GONE: Self = Self(0x31);
    /// It does not have the power for it.
    pub const NO_POWER: Self = Self(0x0A);
    /// It cannot read what was sent: another key.
    pub const AES: Self = Self(0x30);
    /// It does not give that right to whoever asks.
    pub const NO_PERMISSION: Self = Self(0x02);
}

impl Request {
    /// What an answer's clear text says to this request.
    #[must_use]
    pub fn answer(&self, clear: &[u8]) -> Answer {
        // The answer to the first request of all is not to be read by anybody who has no key yet.
        if *self == Self::Init {
            return Answer::Yes;
        }
        let (Some(&command), Some(&status)) = (clear.first(), clear.get(1)) else {
            return Answer::Stranger;
        };
        if command != self.command() {
            return Answer::Stranger;
        }
        let data = &clear[2..];
        match status {
            0 => data.first().map_or(Answer::Strange, |error| Answer::No(No(*error))),
            1 => self.yes(data).unwrap_or(Answer::Strange),
            _ => Answer::Strange,
        }
    }

    fn yes(&self, data: &[u8]) -> Option<Answer> {
        Some(match self {
            Self::Init
            | Self::AddAdmin(_)
            | Self::Finished
            | Self::SetClock(_)
            | Self::CheckRandom { .. }
            | Self::Unlock { .. }
            | Self::Lock { .. } => Answer::Yes,
            Self::GetKey => Answer::Key(Key::new(data.try_into().ok()?)),
            Self::CheckAdmin { .. } | Self::CheckUser { .. } => {
                Answer::Token(u32::from_be_bytes(data.first_chunk().copied()?))
            }
            Self::Features => {
                let (battery, words) = data.split_first()?;
                let words = words.chunks_exact(4).take(4).enumerate();
                let bits = words.fold(0, |bits: u128, (at, word)| {
                    let word = word.iter().fold(0, |all: u32, byte| all << 8 | u32::from(*byte));
                    bits | u128::from(word) << (32 * at)
                });
                Answer::Features { battery: per_cent(*battery), bits }
            }
            Self::ReadClock => Answer::Clock(second(data)?),
            Self::Status => {
                let locked = match data.get(1)? {
                    0 => Some(true),
                    1 => Some(false),
                    _ => None,
                };
                Answer::Status { battery: per_cent(data[0]), locked }
            }
            Self::AddPasscode { .. } | Self::ChangePasscode { .. } | Self::RemovePasscode { .. } => {
                match data.get(1) {
                    Some(operation) if Some(*operation) != self.operation() => Answer::Stranger,
                    _ => Answer::Yes,
                }
            }
            Self::Passcodes { .. } => passcodes(data)?,
            Self::AddCard { .. } | Self::EnrolCard | Self::MoveCard { .. } | Self::RemoveCard { .. } => {
                if data.get(1).copied() != self.operation() {
                    return Some(Answer::Stranger);
                }
                match (self, data.get(2)) {
                    (Self::EnrolCard, Some(2)) => Answer::WaitsForCard,
                    (Self::EnrolCard, _) => Answer::Enrolled(card_number(data.get(3..)?)?),
                    _ => Answer::Yes,
                }
            }
            Self::Cards { .. } => {
                if data.get(1) != Some(&1) {
                    return Some(Answer::Stranger);
                }
                cards(&data[2..])?
            }
            Self::Log { .. } => log(data)?,
        })
    }
}

fn per_cent(battery: u8) -> Option<u8> {
    (battery <= 100).then_some(battery)
}

fn date(bytes: &[u8]) -> Option<DateTime> {
    let [year, month, day, hour, minute] = *bytes.first_chunk::<5>()?;
    at(year, month, day, hour, minute, 0)
}

fn second(bytes: &[u8]) -> Option<DateTime> {
    let [year, month, day, hour, minute, second] = *bytes.first_chunk::<6>()?;
    at(year, month, day, hour, minute, second)
}

fn at(year: u8, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Option<DateTime> {
    let small = |number: u8| i8::try_from(number).ok();
    let date = Date::new(2000 + i16::from(year), small(month)?, small(day)?).ok()?;
    let time = Time::new(small(hour)?, small(minute)?, small(second)?, 0).ok()?;
    Some(date.to_datetime(time))
}

/// A page of passcodes: `total next {length type new old start …}`. The end of all is a page without entries, or a place to
/// go on that is 0 or FFFF.
fn passcodes(data: &[u8]) -> Option<Answer> {
    let (_, rest) = data.split_first_chunk::<2>()?;
    let Some((next, mut rest)) = rest.split_first_chunk::<2>() else {
        return Some(Answer::Passcodes { entries: Vec::new(), next: None });
    };
    let mut entries = Vec::new();
    while let Some((length, behind)) = rest.split_first() {
        let (entry, behind) = behind.split_at_checked(usize::from(*length))?;
        entries.push(passcode(entry)?);
        rest = behind;
    }
    let next = u16::from_be_bytes(*next);
    let next = (next != 0 && next != u16::MAX && !entries.is_empty()).then_some(next);
    Some(Answer::Passcodes { entries, next })
}

fn passcode(entry: &[u8]) -> Option<Passcode> {
    let (kind, rest) = entry.split_first()?;
    let (digits, rest) = text(rest)?;
    let (_before, rest) = text(rest)?;
    let span = match *kind {
        PERMANENT => Some(Span { starts_at: date(rest)?, ends_at: None }),
        PERIOD => Some(Span { starts_at: date(rest)?, ends_at: Some(date(rest.get(5..)?)?) }),
        // One that comes again each day or week, or one that this driver does not know.
        _ => None,
    };
    Some(Passcode { digits, span })
}

/// Digits behind their number.
fn text(bytes: &[u8]) -> Option<(Private, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (digits, rest) = rest.split_at_checked(usize::from(*length))?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((Private::new(digits), rest))
}

/// A page of cards: `next {number start end}`, with numbers of four bytes or all of eight.
fn cards(data: &[u8]) -> Option<Answer> {
    let Some((next, entries)) = data.split_first_chunk::<2>() else {
        return Some(Answer::Cards { entries: Vec::new(), next: None });
    };
    let wide = match entries.len() {
        length if length % 14 == 0 => 4,
        // A single card with a long number may have two bytes behind it.
        20 => 8,
        length if length % 18 == 0 => 8,
        _ => return None,
    };
    let card = |entry: &[u8]| {
        let number = entry[..wide].iter().fold(0, |all: u64, byte| all << 8 | u64::from(*byte));
        let (starts_at, ends_at) = (date(&entry[wide..])?, date(&entry[wide + 5..])?);
        let always = entry[wide..wide + 10] == [ALWAYS_FROM, ALWAYS_UNTIL].concat();
        let span = Span { starts_at, ends_at: (!always).then_some(ends_at) };
        Some(Card { number: CardNumber(number), span: Some(span) })
    };
    let entries = entries.chunks_exact(wide + 10).map(card).collect::<Option<Vec<_>>>()?;
    let next = u16::from_be_bytes(*next);
    let next = (next != 0 && next != u16::MAX && !entries.is_empty()).then_some(next);
    Some(Answer::Cards { entries, next })
}

fn card_number(bytes: &[u8]) -> Option<CardNumber> {
    let bytes = match bytes {
        // So a lock says that the number has four bytes.
        [short @ .., 0xFF, 0xFF, 0xFF, 0xFF] if short.len() == 4 => short,
        all => all,
    };
    match bytes.len() {
        4 | 8 => Some(CardNumber(bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)))),
        _ => None,
    }
}

/// A page of the log: `total next {length kind date battery tail}`; only one without a total ends it.
fn log(data: &[u8]) -> Option<Answer> {
    let (total, rest) = data.split_first_chunk::<2>()?;
    if *total == [0, 0] {
        return Some(Answer::Log { records: Vec::new(), next: None });
    }
    let (next, mut rest) = rest.split_first_chunk::<2>()?;
    let mut records = Vec::new();
    while let Some((length, behind)) = rest.split_first() {
        let (entry, behind) = behind.split_at_checked(usize::from(*length))?;
        // A date that no clock shows: the record is passed over, since it says nothing.
        records.extend(record(entry));
        rest = behind;
    }
    Some(Answer::Log { records, next: Some(u16::from_be_bytes(*next)) })
}

fn record(entry: &[u8]) -> Option<Record> {
    let (kind, rest) = entry.split_first()?;
    let at = second(rest)?;
    let tail = rest.get(7..).unwrap_or_default();
    let (mut digits, mut card) = (None, None);
    match kind {
        4 | 5 | 6 | 7 | 11 | 47 => digits = text(tail).map(|(digits, _)| digits),
        15 | 17 | 18 | 25 => card = card_number(tail),
        _ => {}
    }
    Some(Record { kind: *kind, at, digits, card })
}

#[cfg(test)]
mod tests {
    use jiff::civil::datetime;
    use proptest::prelude::*;

    use super::*;

    fn passcodes() -> Request {
        Request::Passcodes { cursor: 0 }
    }

    #[test]
    fn a_page_of_a_real_lock_is_read() {
        let clear = b"\x07\x01\x00\x17\x00\xb4\x14\x01\x06123456\x06123456\x00\x01\x01\x00\x00";
        let span = Span { starts_at: datetime(2000, 1, 1, 0, 0, 0, 0), ends_at: None };
        let entry = Passcode { digits: Private::new("123456"), span: Some(span) };
        let page = Answer::Passcodes { entries: vec![entry], next: Some(180) };
        assert_eq!(passcodes().answer(clear), page);
    }

    #[test]
    fn the_three_ends_of_a_list_are_ends() {
        let entry = b"\x14\x01\x06123456\x06123456\x00\x01\x01\x00\x00";
        for (data, entries) in [
            (&b"\0\0"[..], 0),
            (b"\0\0\0\0", 0),
            (b"\0\x01\0\x05", 0),
            (&[&b"\0\x01\0\0"[..], entry].concat(), 1),
            (&[&b"\0\x01\xff\xff"[..], entry].concat(), 1),
        ] {
            match passcodes().answer(&[&b"\x07\x01"[..], data].concat()) {
                Answer::Passcodes { entries: shown, next: None } => assert_eq!(shown.len(), entries),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn cards_of_four_and_of_eight_bytes_are_told_apart() {
        let days = [26, 12, 1, 15, 0, 26, 12, 3, 11, 0];
        let read =
            |data: &[u8]| Request::Cards { cursor: 0 }.answer(&[&b"\x05\x01\x57\x01\0\0"[..], data].concat());
        let numbers = |answer: Answer| match answer {
            Answer::Cards { entries, next: None } => {
                entries.iter().map(|card| card.number.0).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        let short = [&[0xDE, 0xAD, 0xBE, 0xEF][..], &days].concat();
        let long = [&[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0xF6, 0x80][..], &days].concat();
        assert_eq!(numbers(read(&short.repeat(2))), [0xDEAD_BEEF; 2]);
        assert_eq!(numbers(read(&long)), [0x04A1_B2C3_D4E5_F680]);
        assert_eq!(numbers(read(&[&long[..], &[0, 0]].concat())), [0x04A1_B2C3_D4E5_F680]);
        assert_eq!(read(&short[1..]), Answer::Strange);
    }

    #[test]
    fn what_is_private_shows_in_no_debug_text() {
        let span = Span { starts_at: datetime(2026, 12, 1, 15, 0, 0, 0), ends_at: None };
        let shown = [
            format!("{:?}", Request::AddPasscode { digits: Private::new("135790"), span }),
            format!("{:?}", Request::AddCard { card: CardNumber(135_790), span }),
            format!("{:?}", Request::AddAdmin(Numbers { admin: 135_790, unlock: 135_790 })),
        ];
        assert!(shown.iter().all(|text| !text.contains("135790")), "{shown:?}");
    }

    proptest! {
        #[test]
        fn any_answer_to_any_request_is_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..240), yes: bool) {
            for request in [
                Request::GetKey, Request::Features, Request::ReadClock, Request::Status, passcodes(),
                Request::CheckAdmin { admin: 1, flag_position: 0 }, Request::EnrolCard,
                Request::Cards { cursor: 0 }, Request::Log { cursor: 0 },
            ] {
                let clear = [&[request.command(), u8::from(yes)], &data[..]].concat();
                let _ = request.answer(&clear);
                let _ = request.answer(&data);
            }
        }
    }
}
