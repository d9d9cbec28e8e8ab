//! The lock itself.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use jiff::{SignedDuration, Timestamp, civil::DateTime};
use uuid::{Uuid, uuid};

use super::wire;
use crate::sim::ble::peripheral::{Act, Advertisement, AttError, Characteristic, Peripheral, Service};

const SERVICE: Uuid = uuid!("00001910-0000-1000-8000-00805f9b34fb");
const WRITE: Uuid = uuid!("0000fff2-0000-1000-8000-00805f9b34fb");
const NOTIFY: Uuid = uuid!("0000fff4-0000-1000-8000-00805f9b34fb");

/// The key of a lock that belongs to nobody.
const FACTORY: [u8; 16] =
    [0x98, 0x76, 0x23, 0xE8, 0xA9, 0x23, 0xA1, 0xBB, 0x3D, 0x9E, 0x7D, 0x03, 0x78, 0x12, 0x45, 0x88];
/// Passcodes, cards, changes of passcodes.
const FEATURES: u32 = 0x71C4_F5F3;
/// The lock answers so fast.
const QUICK: Duration = Duration::from_millis(2);
/// A card is read at the reader so fast.
const READING: Duration = Duration::from_millis(30);
/// Entries of a table that one answer shows.
const A_PAGE: usize = 4;

mod no {
    pub(super) const CRC: u8 = 0x01;
    pub(super) const ADMIN: u8 = 0x03;
    pub(super) const PAIRING: u8 = 0x05;
    pub(super) const NOT_PAIRING: u8 = 0x07;
    pub(super) const FLAG_POSITION: u8 = 0x0D;
    pub(super) const LENGTH: u8 = 0x0F;
    pub(super) const NOT_LOGGED_IN: u8 = 0x12;
    pub(super) const EXISTS: u8 = 0x14;
    pub(super) const MISSING: u8 = 0x15;
    pub(super) const FULL: u8 = 0x16;
    pub(super) const CARD_MISSING: u8 = 0x18;
    pub(super) const COMMAND: u8 = 0x1B;
    pub(super) const FROZEN: u8 = 0x1C;
    pub(super) const PARAMETER: u8 = 0x20;
}

/// What a lock is given when it is paired.
#[derive(Clone, Copy)]
pub struct Pairing {
    /// The key of its frames.
    pub key: [u8; 16],
    /// The administrator's number.
    pub admin: u32,
    /// The unlock key.
    pub unlock: u32,
    /// The lowest bytes of the flag position.
    pub flag_position: u32,
}

/// When an entry opens, as bytes of the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Dates {
    starts_at: [u8; 5],
    ends_at: Option<[u8; 5]>,
}

#[derive(Clone)]
struct Passcode {
    /// Under which it was first written.
    first: String,
    kind: u8,
    dates: Dates,
}

/// A pretend lock.
pub struct TtLock {
    name: String,
    address: [u8; 6],
    /// The key that it gives away when it is paired, and has from then on.
    key: [u8; 16],
    paired: Option<Pairing>,
    /// Somebody touched the keypad: it may be paired.
    pairing: bool,
    /// Pairing was begun on this connection, and the key given away.
    gave_key: bool,
    /// It takes commands from anybody who has its key, without a login.
    lenient: bool,
    buffer: Vec<u8>,
    tokens: u32,
    token: Option<u32>,
    logged_in: bool,
    /// What its clock showed at a moment.
    clock: (DateTime, Timestamp),
    battery: u8,
    features: u32,
    capacity: usize,
    unlocked: bool,
    passcodes: BTreeMap<String, Passcode>,
    cards: BTreeMap<u64, Dates>,
    records: Vec<Vec<u8>>,
    /// Up to where somebody has read them.
    read_to: usize,
    at_reader: Option<u64>,
    faults: Vec<(Fault, u32)>,
    writes: u32,
    opens: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    DropBefore,
    DropAfter,
    Mute,
    Damage,
    Double,
    Chatter,
    Frozen,
    Forgets,
}

impl TtLock {
    /// A lock that belongs to nobody and waits to be paired; `key` is the one it will give away.
    #[must_use]
    pub fn new(name: &str, address: [u8; 6], key: [u8; 16], now: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            address,
            key,
            paired: None,
            pairing: true,
            gave_key: false,
            lenient: false,
            buffer: Vec::new(),
            tokens: 0x0102_0303,
            token: None,
            logged_in: false,
            clock: (jiff::civil::date(2000, 1, 1).at(0, 0, 0, 0), now),
            battery: 87,
            features: FEATURES,
            capacity: 100,
            unlocked: false,
            passcodes: BTreeMap::new(),
            cards: BTreeMap::new(),
            records: Vec::new(),
            read_to: 0,
            at_reader: None,
            faults: Vec::new(),
            writes: 0,
            opens: 0,
        }
    }

    /// The same, paired already.
    #[must_use]
    pub fn paired(name: &str, address: [u8; 6], pairing: Pairing, now: Timestamp) -> Self {
        let mut lock = Self::new(name, address, pairing.key, now);
        lock.paired = Some(pairing);
        lock.pairing = false;
        lock
    }

    fn now(&self, now: Timestamp) -> DateTime {
        let passed = now.duration_since(self.clock.1);
        self.clock.0.saturating_add(passed)
    }

    /// Whether this fault is due with the frame at hand.
    fn faulty(&mut self, fault: Fault) -> bool {
        let Some(at) = self.faults.iter().position(|(kind, n)| *kind == fault && *n == 0) else {
            return false;
        };
        self.faults.remove(at);
        true
    }

    /// What a frame brings.
    fn frame(&mut self, now: Timestamp, heard: &wire::Heard) -> Vec<Act> {
        for (_, n) in &mut self.faults {
            *n = n.saturating_sub(1);
        }
        if self.faulty(Fault::DropBefore) {
            return vec![Act::HangUp { after: Duration::ZERO }];
        }
        let key = if self.paired.is_some() { self.key } else { FACTORY };
        let mut later = Vec::new();
        let (sealed_with, clear) = match wire::unseal(&key, &heard.sealed) {
            _ if !heard.is_whole => (key, refuse(heard.command, no::CRC)),
            // During pairing the key changes with the answer that tells it.
            _ if self.gave_key && self.paired.is_none() && heard.command != 0x19 => {
                match wire::unseal(&self.key, &heard.sealed) {
                    Some(asked) => (self.key, self.answer(now, heard.command, &asked, &mut later)),
                    None => (self.key, refuse(heard.command, 0x30)),
                }
            }
            Some(asked) => (key, self.answer(now, heard.command, &asked, &mut later)),
            None => (key, refuse(heard.command, 0x30)),
        };
        let sealed_with = if self.paired.is_some() { self.key } else { sealed_with };
        let command = if heard.command == 0x19 { 0x19 } else { 0x54 };
        let mut answer = wire::frame(7, command, &wire::seal(&sealed_with, &clear));
        if self.faulty(Fault::Damage) {
            let middle = answer.len() / 2;
            answer[middle] ^= 0x10;
        }
        let mut acts = Vec::new();
        if self.faulty(Fault::Chatter) {
            let state = [0x14, 1, self.battery, u8::from(self.unlocked), 0];
            acts.extend(pieces(&wire::frame(7, 0x54, &wire::seal(&sealed_with, &state)), QUICK));
        }
        if !self.faulty(Fault::Mute) {
            acts.extend(pieces(&answer, QUICK));
            if self.faulty(Fault::Double) {
                acts.extend(pieces(&answer, QUICK));
            }
            for clear in later {
                acts.extend(pieces(&wire::frame(7, 0x54, &wire::seal(&sealed_with, &clear)), READING));
            }
        }
        if self.faulty(Fault::DropAfter) {
            acts.retain(|act| matches!(act, Act::HangUp { .. }));
            acts.push(Act::HangUp { after: Duration::ZERO });
        }
        acts
    }

    /// The clear text of an answer.
    fn answer(&mut self, now: Timestamp, command: u8, asked: &[u8], later: &mut Vec<Vec<u8>>) -> Vec<u8> {
        if self.faulty(Fault::Frozen) {
            return refuse(command, no::FROZEN);
        }
        let is_open_to_all = matches!(command, 0x01 | 0x14 | 0x19 | 0x30 | 0x34 | 0x41 | 0x45 | 0x55 | 0x56);
        if !is_open_to_all
            && !self.lenient
            && !self.logged_in
            && self.paired.is_some()
            && !matches!(command, 0x43 | 0x47 | 0x57 | 0x58)
        {
            return refuse(command, no::NOT_LOGGED_IN);
        }
        match self.done(now, command, asked, later) {
            Ok(data) => [&[command, 1], &data[..]].concat(),
            Err(error) => refuse(command, error),
        }
    }

    fn done(
        &mut self,
        now: Timestamp,
        command: u8,
        asked: &[u8],
        later: &mut Vec<Vec<u8>>,
    ) -> Result<Vec<u8>, u8> {
        match command {
            0x01 => Ok([&[self.battery], &self.features.to_be_bytes()[..]].concat()),
            0x03 => self.passcode(asked).map(|operation| vec![self.battery, operation]),
            0x05 => self.card(asked, later),
            0x07 => self.passcode_page(asked),
            0x14 if asked == b"SCIENER" => Ok(vec![self.battery, u8::from(self.unlocked), 0]),
            0x19 if asked == b"SCIENER" => {
                if self.paired.is_some() || !self.pairing {
                    return Err(no::NOT_PAIRING);
                }
                self.gave_key = true;
                Ok(self.key.to_vec())
            }
            0x25 => self.log_page(asked),
            0x30 => {
                let (Some(token), Some(paired)) = (self.token, self.paired) else {
                    return Err(no::NOT_LOGGED_IN);
                };
                if asked != token.wrapping_add(paired.unlock).to_be_bytes() {
                    return Err(no::ADMIN);
                }
                self.logged_in = true;
                Ok(Vec::new())
            }
            0x34 => Ok(self.shown(now).to_vec()),
            0x41 => {
                let paired = self.paired.ok_or(no::PAIRING)?;
                let (admin, rest) = asked.split_first_chunk::<4>().ok_or(no::PARAMETER)?;
                if *admin != paired.admin.to_be_bytes() {
                    return Err(no::ADMIN);
                }
                self.new_token(&paired, rest)
            }
            0x55 => {
                let paired = self.paired.ok_or(no::PAIRING)?;
                self.new_token(&paired, asked.get(10..).ok_or(no::PARAMETER)?)
            }
            0x43 => {
                let shown = moment(asked.get(..6).ok_or(no::PARAMETER)?).ok_or(no::PARAMETER)?;
                self.clock = (shown, now);
                Ok(vec![self.battery])
            }
            0x45 => Ok(Vec::new()),
            0x47 | 0x58 => {
                let (Some(token), Some(paired)) = (self.token.take(), self.paired) else {
                    return Err(no::NOT_LOGGED_IN);
                };
                if asked.get(..4) != Some(&token.wrapping_add(paired.unlock).to_be_bytes()[..]) {
                    return Err(no::ADMIN);
                }
                self.unlocked = command == 0x47;
                self.opens += u32::from(self.unlocked);
                self.record(now, 26, &[]);
                Ok(vec![self.battery])
            }
            0x56 => {
                if self.paired.is_some() || !self.gave_key {
                    return Err(no::NOT_PAIRING);
                }
                let word = |at: usize| -> Option<u32> {
                    Some(u32::from_be_bytes(asked.get(at..at + 4)?.try_into().ok()?))
                };
                let (Some(admin), Some(unlock)) = (word(0), word(4)) else {
                    return Err(no::PARAMETER);
                };
                if asked.get(8..) != Some(b"SCIENER") {
                    return Err(no::PARAMETER);
                }
                self.paired = Some(Pairing { key: self.key, admin, unlock, flag_position: 0 });
                self.pairing = false;
                Ok(b"SCIENER".to_vec())
            }
            0x57 => Ok(Vec::new()),
            _ => Err(no::COMMAND),
        }
    }

    fn new_token(&mut self, paired: &Pairing, rest: &[u8]) -> Result<Vec<u8>, u8> {
        if rest.get(..3) != Some(&paired.flag_position.to_be_bytes()[1..]) || rest.len() != 7 {
            return Err(no::FLAG_POSITION);
        }
        self.tokens = self.tokens.wrapping_add(1);
        self.token = Some(self.tokens);
        Ok(self.tokens.to_be_bytes().to_vec())
    }

    fn passcode(&mut self, asked: &[u8]) -> Result<u8, u8> {
        let (&operation, rest) = asked.split_first().ok_or(no::PARAMETER)?;
        if operation == 1 {
            self.passcodes.clear();
            return Ok(1);
        }
        let (&kind, rest) = rest.split_first().ok_or(no::PARAMETER)?;
        let (digits, rest) = digits(rest)?;
        if !(4..=9).contains(&digits.len()) {
            return Err(no::LENGTH);
        }
        let forgets = self.faulty(Fault::Forgets);
        match operation {
            2 => {
                let dates = dates(kind, rest)?;
                if self.passcodes.contains_key(&digits) {
                    return Err(no::EXISTS);
                }
                if self.capacity <= self.passcodes.len() + self.cards.len() {
                    return Err(no::FULL);
                }
                self.writes += 1;
                if !forgets {
                    self.passcodes.insert(digits.clone(), Passcode { first: digits, kind, dates });
                }
            }
            3 => {
                if !self.passcodes.contains_key(&digits) {
                    return Err(no::MISSING);
                }
                self.writes += 1;
                if !forgets {
                    self.passcodes.remove(&digits);
                }
            }
            5 => {
                let mut entry = self.passcodes.get(&digits).cloned().ok_or(no::MISSING)?;
                let (&length, after) = rest.split_first().ok_or(no::PARAMETER)?;
                let (to, rest) = match length {
                    0 => (digits.clone(), after),
                    _ => self::digits(rest)?,
                };
                if to != digits && self.passcodes.contains_key(&to) {
                    return Err(no::EXISTS);
                }
                if !rest.is_empty() {
                    (entry.dates, entry.kind) = (dates(kind, rest)?, kind);
                }
                self.writes += 1;
                if !forgets {
                    self.passcodes.remove(&digits);
                    self.passcodes.insert(to, entry);
                }
            }
            _ => return Err(no::PARAMETER),
        }
        Ok(operation)
    }

    fn passcode_page(&self, asked: &[u8]) -> Result<Vec<u8>, u8> {
        let from = usize::from(u16::from_be_bytes(asked.try_into().map_err(|_| no::PARAMETER)?));
        let total = u16::try_from(self.passcodes.len()).unwrap_or(u16::MAX);
        if self.passcodes.len() <= from {
            return Ok(vec![0, 0]);
        }
        let next = from + A_PAGE;
        let next =
            if next < self.passcodes.len() { u16::try_from(next).unwrap_or(u16::MAX) } else { u16::MAX };
        let mut page = [total.to_be_bytes(), next.to_be_bytes()].concat();
        for (digits, entry) in self.passcodes.iter().skip(from).take(A_PAGE) {
            let mut body = vec![entry.kind];
            for text in [digits, &entry.first] {
                body.push(u8::try_from(text.len()).unwrap_or_default());
                body.extend(text.as_bytes());
            }
            body.extend(entry.dates.starts_at);
            body.extend(entry.dates.ends_at.into_iter().flatten());
            page.push(u8::try_from(body.len()).unwrap_or_default());
            page.extend(body);
        }
        Ok(page)
    }

    fn card(&mut self, asked: &[u8], later: &mut Vec<Vec<u8>>) -> Result<Vec<u8>, u8> {
        let (&operation, rest) = asked.split_first().ok_or(no::PARAMETER)?;
        let yes = |status: u8| vec![self.battery, operation, status];
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        // A number has four bytes or eight, and dates have ten.
        let parts = || match rest.len() {
            4 | 8 => Ok((number(rest), None)),
            14 | 18 => {
                let (card, days) = rest.split_at(rest.len() - 10);
                Ok((number(card), Some(dates(3, days)?)))
            }
            _ => Err(no::PARAMETER),
        };
        match operation {
            1 => return self.card_page(rest),
            2 if rest.is_empty() => {
                let waits = yes(2);
                if let Some(card) = self.at_reader.take() {
                    if self.capacity <= self.passcodes.len() + self.cards.len() {
                        return Err(no::FULL);
                    }
                    let always = Dates { starts_at: [0, 2, 1, 0, 0], ends_at: Some([99, 12, 1, 0, 0]) };
                    self.cards.insert(card, always);
                    self.writes += 1;
                    let number = match u32::try_from(card) {
                        Ok(short) => [short.to_be_bytes(), [0xFF; 4]].concat(),
                        Err(_) => card.to_be_bytes().to_vec(),
                    };
                    later.push([&[0x05, 1, self.battery, 2, 1], &number[..]].concat());
                }
                return Ok(waits);
            }
            2 => {
                let (card, dates) = parts()?;
                if self.cards.contains_key(&card) {
                    return Err(no::EXISTS);
                }
                if self.capacity <= self.passcodes.len() + self.cards.len() {
                    return Err(no::FULL);
                }
                let dates = dates.ok_or(no::PARAMETER)?;
                if !self.faulty(Fault::Forgets) {
                    self.cards.insert(card, dates);
                }
            }
            3 => drop(self.cards.remove(&parts()?.0).ok_or(no::CARD_MISSING)?),
            4 => self.cards.clear(),
            5 => {
                let (card, dates) = parts()?;
                *self.cards.get_mut(&card).ok_or(no::CARD_MISSING)? = dates.ok_or(no::PARAMETER)?;
            }
            _ => return Err(no::PARAMETER),
        }
        self.writes += 1;
        Ok(vec![self.battery, operation, 1])
    }

    fn card_page(&self, asked: &[u8]) -> Result<Vec<u8>, u8> {
        let from = usize::from(u16::from_be_bytes(asked.try_into().map_err(|_| no::PARAMETER)?));
        let (short, long): (Vec<_>, Vec<_>) =
            self.cards.iter().partition(|(card, _)| u32::try_from(**card).is_ok());
        // One page has numbers of one length.
        let pages: Vec<&[_]> = short.chunks(A_PAGE).chain(long.chunks(1)).collect();
        let Some(page) = pages.get(from) else {
            return Ok(vec![self.battery, 1, 0xFF, 0xFF]);
        };
        let next =
            if from + 1 < pages.len() { u16::try_from(from + 1).unwrap_or(u16::MAX) } else { u16::MAX };
        let mut answer = vec![self.battery, 1];
        answer.extend(next.to_be_bytes());
        for (card, dates) in *page {
            match u32::try_from(**card) {
                Ok(short) => answer.extend(short.to_be_bytes()),
                Err(_) => answer.extend(card.to_be_bytes()),
            }
            answer.extend(dates.starts_at);
            answer.extend(dates.ends_at.into_iter().flatten());
        }
        Ok(answer)
    }

    fn record(&mut self, now: Timestamp, kind: u8, tail: &[u8]) {
        let shown = self.shown(now);
        self.records.push([&[kind], &shown[..], &[self.battery], tail].concat());
    }

    fn log_page(&mut self, asked: &[u8]) -> Result<Vec<u8>, u8> {
        let from = match u16::from_be_bytes(asked.try_into().map_err(|_| no::PARAMETER)?) {
            // Where anybody read to the last time.
            u16::MAX => self.read_to,
            from => usize::from(from),
        };
        if self.records.len() < from {
            return Err(no::PARAMETER);
        }
        self.read_to = self.records.len().min(from + A_PAGE);
        let page: Vec<_> = self.records.iter().skip(from).take(A_PAGE).collect();
        if page.is_empty() {
            return Ok(vec![0, 0]);
        }
        let number = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes();
        let mut answer = [number(self.records.len()), number(from + page.len())].concat();
        for record in page {
            answer.push(u8::try_from(record.len()).unwrap_or_default());
            answer.extend(record);
        }
        Ok(answer)
    }

    /// The clock as bytes of the wire.
    fn shown(&self, now: Timestamp) -> [u8; 6] {
        let shown = self.now(now);
        let small = |number: i8| number.unsigned_abs();
        let year = u8::try_from(shown.year().rem_euclid(100)).unwrap_or_default();
        let (date, time) = (shown.date(), shown.time());
        [
            year,
            small(date.month()),
            small(date.day()),
            small(time.hour()),
            small(time.minute()),
            small(time.second()),
        ]
    }

    /// What the keypad or the reader does.
    fn tried(&mut self, now: Timestamp, dates: Option<Dates>, kind: (u8, u8), tail: &[u8]) -> &'static str {
        let Some(dates) = dates else {
            return "unknown";
        };
        let shown = self.shown(now);
        let is_open =
            dates.starts_at[..] <= shown[..5] && dates.ends_at.is_none_or(|end| shown[..5] < end[..]);
        self.record(now, if is_open { kind.0 } else { kind.1 }, tail);
        if is_open {
            self.unlocked = true;
            return "opens";
        }
        if shown[..5] < dates.starts_at[..] { "too early" } else { "over" }
    }

    fn commanded(&mut self, now: Timestamp, command: &str) -> Result<String, String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().map_err(|error| format!("{word}: {error}"));
        match words.as_slice() {
            ["slots"] => Ok(self.slots()),
            ["try", digits] => {
                let entry = self.passcodes.get(*digits).map(|entry| entry.dates);
                let length = u8::try_from(digits.len()).unwrap_or_default();
                let once = [&[length], digits.as_bytes()].concat();
                if entry.is_none() {
                    self.record(now, 7, &once);
                }
                Ok(self.tried(now, entry, (4, 11), &[&once[..], &once[..]].concat()).to_owned())
            }
            ["try_card", card] => {
                let card = number(card)?;
                let entry = self.cards.get(&card).copied();
                let tail = match u32::try_from(card) {
                    Ok(short) => short.to_be_bytes().to_vec(),
                    Err(_) => card.to_be_bytes().to_vec(),
                };
                Ok(self.tried(now, entry, (17, 25), &tail).to_owned())
            }
            ["hold_card", card] => {
                self.at_reader = Some(number(card)?);
                Ok(String::new())
            }
            ["foreign", digits] => {
                let dates = Dates { starts_at: [0, 1, 1, 0, 0], ends_at: None };
                let entry = Passcode { first: (*digits).to_owned(), kind: 1, dates };
                self.passcodes.insert((*digits).to_owned(), entry);
                Ok(String::new())
            }
            ["clock"] => Ok(self.now(now).to_string()),
            ["clock", seconds] => {
                let by = seconds.parse().map_err(|error| format!("{seconds}: {error}"))?;
                self.clock.0 = self.clock.0.saturating_add(SignedDuration::from_secs(by));
                Ok(String::new())
            }
            ["battery", per_cent] => {
                self.battery = u8::try_from(number(per_cent)?).map_err(|error| error.to_string())?;
                Ok(String::new())
            }
            ["features", hex] => {
                self.features = u32::from_str_radix(hex, 16).map_err(|error| format!("{hex}: {error}"))?;
                Ok(String::new())
            }
            ["capacity", entries] => {
                self.capacity = usize::try_from(number(entries)?).map_err(|error| error.to_string())?;
                Ok(String::new())
            }
            ["pairing"] => {
                self.pairing = true;
                Ok(String::new())
            }
            ["lenient"] => {
                self.lenient = true;
                Ok(String::new())
            }
            ["reset"] => {
                let fresh = Self::new(&self.name, self.address, self.key, now);
                *self = fresh;
                Ok(String::new())
            }
            ["done"] => Ok(format!("{} writes, {} opens", self.writes, self.opens)),
            ["heal"] => {
                self.faults.clear();
                Ok(String::new())
            }
            ["fault", "show"] => Ok(format!("{} to come", self.faults.len())),
            ["fault", kind] => self.add_fault(kind, 1),
            ["fault", kind, n] => {
                let n = u32::try_from(number(n)?).map_err(|error| error.to_string())?;
                self.add_fault(kind, n)
            }
            _ => Err(format!("`{command}` is no command: see the simulator's documentation")),
        }
    }

    fn add_fault(&mut self, kind: &str, n: u32) -> Result<String, String> {
        let fault = match kind {
            "drop_before" => Fault::DropBefore,
            "drop_after" => Fault::DropAfter,
            "mute" => Fault::Mute,
            "damage" => Fault::Damage,
            "double" => Fault::Double,
            "chatter" => Fault::Chatter,
            "frozen" => Fault::Frozen,
            "forgets" => Fault::Forgets,
            _ => return Err(format!("`{kind}` is no fault")),
        };
        if n == 0 {
            return Err("frames are counted from 1".into());
        }
        self.faults.push((fault, n));
        Ok(String::new())
    }

    fn slots(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, dates: &Dates| {
            let end = dates.ends_at.and_then(|end| moment(&end)).map(|end| end.to_string());
            let start = moment(&dates.starts_at).map(|start| start.to_string());
            let (start, end) = (start.unwrap_or_else(|| "-".into()), end.unwrap_or_else(|| "-".into()));
            let separator = if text.is_empty() { "" } else { "; " };
            write!(text, "{separator}{what} {start} {end}").expect("a text can be written to");
        };
        for (digits, entry) in &self.passcodes {
            line(digits, &entry.dates);
        }
        for (card, dates) in &self.cards {
            line(&format!("card:{card}"), dates);
        }
        text
    }
}

fn refuse(command: u8, error: u8) -> Vec<u8> {
    vec![command, 0, error]
}

/// The notifications of a frame: twenty bytes each.
fn pieces(frame: &[u8], after: Duration) -> Vec<Act> {
    frame.chunks(20).map(|piece| Act::Notify { from: NOTIFY, value: piece.to_vec(), after }).collect()
}

fn digits(bytes: &[u8]) -> Result<(String, &[u8]), u8> {
    let (&length, rest) = bytes.split_first().ok_or(no::PARAMETER)?;
    let (digits, rest) = rest.split_at_checked(usize::from(length)).ok_or(no::PARAMETER)?;
    let digits = String::from_utf8(digits.to_vec()).map_err(|_| no::PARAMETER)?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(no::PARAMETER);
    }
    Ok((digits, rest))
}

fn dates(kind: u8, bytes: &[u8]) -> Result<Dates, u8> {
    let day = |at: usize| -> Option<[u8; 5]> {
        let bytes: [u8; 5] = bytes.get(at..at + 5)?.try_into().ok()?;
        moment(&bytes).map(|_| bytes)
    };
    match (kind, bytes.len()) {
        (1, 5) => Ok(Dates { starts_at: day(0).ok_or(no::PARAMETER)?, ends_at: None }),
        (3, 10) => {
            let (start, end) = (day(0).ok_or(no::PARAMETER)?, day(5).ok_or(no::PARAMETER)?);
            if end <= start {
                return Err(no::PARAMETER);
            }
            Ok(Dates { starts_at: start, ends_at: Some(end) })
        }
        _ => Err(no::PARAMETER),
    }
}

/// A moment of five or six decimal bytes.
fn moment(bytes: &[u8]) -> Option<DateTime> {
    let small = |at: usize| bytes.get(at).map_or(Some(0), |byte| i8::try_from(*byte).ok());
    let year = 2000 + i16::from(*bytes.first()?);
    DateTime::new(year, small(1)?, small(2)?, small(3)?, small(4)?, small(5)?, 0).ok()
}

impl Peripheral for TtLock {
    fn advertisement(&self) -> Advertisement {
        let flags =
            u8::from(self.unlocked) | u8::from(!self.records.is_empty()) << 1 | u8::from(self.pairing) << 2;
        let mut data = vec![7, flags, self.battery, 0, 0, 0, 0];
        data.extend(self.address.iter().rev());
        // The first two bytes stand where other makers put their number.
        let manufacturer_data = BTreeMap::from([(u16::from_le_bytes([5, 3]), data)]);
        Advertisement { name: self.name.clone(), services: Vec::new(), manufacturer_data }
    }

    fn services(&self) -> Vec<Service> {
        let characteristics = vec![
            Characteristic { uuid: WRITE, flags: vec!["write-without-response"] },
            Characteristic { uuid: NOTIFY, flags: vec!["notify"] },
        ];
        vec![Service { uuid: SERVICE, characteristics }]
    }

    fn connected(&mut self, _now: Timestamp) {
        self.disconnected(Timestamp::UNIX_EPOCH);
    }

    fn disconnected(&mut self, _now: Timestamp) {
        self.buffer.clear();
        (self.token, self.logged_in, self.gave_key) = (None, false, false);
    }

    fn write(&mut self, now: Timestamp, to: Uuid, value: &[u8]) -> Result<Vec<Act>, AttError> {
        if to != WRITE {
            return Err(AttError(0x03));
        }
        self.buffer.extend_from_slice(value);
        // No frame is longer than this; what is, is none.
        if 1024 < self.buffer.len() {
            self.buffer.clear();
        }
        let mut acts = Vec::new();
        while let Some(heard) = wire::take(&mut self.buffer) {
            acts.extend(self.frame(now, &heard));
        }
        Ok(acts)
    }

    fn read(&mut self, _now: Timestamp, _from: Uuid) -> Result<Vec<u8>, AttError> {
        Err(AttError(0x02))
    }

    fn control(&mut self, now: Timestamp, command: &str) -> Result<String, String> {
        self.commanded(now, command)
    }
}
