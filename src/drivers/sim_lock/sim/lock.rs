//! The lock itself: table, clock, ledger, door. It reads no socket.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    faults::Faults,
    server::Settings,
    wire::{Asked, Verb, clock_field, clock_of, field, local_field, local_of},
};
use crate::seams::Clock;

/// Why a lock cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The zone is none.
    #[error("there is no time zone {0:?}")]
    TimeZone(String),
    /// The journal cannot be used.
    #[error("use the journal {}", path.display())]
    Journal {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// How much of a table fits into one answer, in bytes.
const PAGE: usize = 1024;
/// How many entries of the ledger fit into one answer.
const DEEDS: usize = 16;

/// One lock.
pub(super) struct Lock {
    serial: String,
    zone: TimeZone,
    real: Clock,
    clock: LockClock,
    slots: Vec<Option<Slot>>,
    ledger: Vec<Record>,
    /// How many entries the ledger keeps.
    keeps: usize,
    last: u64,
    /// When its memory began, by real time.
    begun: Timestamp,
    pub battery: u8,
    journal: Option<File>,
    pub faults: Faults,
    pub up: bool,
    /// The newest connection's number.
    pub connection: u64,
    /// How many are open.
    pub open: u64,
    /// How often each verb was asked, done or not.
    pub requests: BTreeMap<&'static str, u64>,
}

/// A clock that is not the real one.
#[derive(Debug, Clone, Copy)]
struct LockClock {
    base: Timestamp,
    from: Instant,
    /// Parts per million that it is too fast.
    drift: i64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Slot {
    key: String,
    kind: Kind,
    content: String,
    start: DateTime,
    end: Option<DateTime>,
    generation: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    #[serde(rename = "PIN")]
    Pin,
    #[serde(rename = "CARD")]
    Card,
}

#[derive(Clone, Serialize, Deserialize)]
struct Record {
    sequence: u64,
    at: Timestamp,
    job: Option<String>,
    what: What,
    key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Begun,
    Put,
    Removed,
    Unlocked,
    ClockSet,
    Opened,
    OpenedByCard,
    Refused,
    LockedByHand,
    UnlockedByHand,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Put => "put",
            Self::Removed => "removed",
            Self::Unlocked => "unlocked",
            Self::ClockSet => "clock_set",
            Self::Opened => "opened",
            Self::OpenedByCard => "opened_card",
            Self::Refused => "refused",
            Self::LockedByHand => "locked_hand",
            Self::UnlockedByHand => "unlocked_hand",
        }
    }
}

/// One line of the journal.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    record: Record,
    /// What a put put.
    slot: Option<Slot>,
    /// What the clock shows beyond real time, in milliseconds, when it was set.
    clock_error: Option<i64>,
    /// When the memory began, by real time.
    begun: Option<Timestamp>,
}

/// What a lock answers, without number and frame; it may hold a PIN.
pub(super) type Answer = String;

impl Lock {
    pub(super) fn new(settings: &Settings, real: Clock) -> Result<Self, SettingsError> {
        let zone = TimeZone::get(&settings.time_zone)
            .map_err(|_| SettingsError::TimeZone(settings.time_zone.clone()))?;
        let now = real.now();
        let age = SignedDuration::try_from(settings.age).unwrap_or(SignedDuration::MAX);
        let mut lock = Self {
            serial: settings.serial.clone(),
            zone,
            clock: LockClock { base: settings.starts_at.unwrap_or(now), from: Instant::now(), drift: 0 },
            real,
            slots: vec![None; usize::from(settings.slots)],
            ledger: Vec::new(),
            keeps: settings.ledger.max(1),
            last: 0,
            begun: now.saturating_sub(age).unwrap_or(Timestamp::MIN),
            battery: 100,
            journal: None,
            faults: Faults::default(),
            up: true,
            connection: 0,
            open: 0,
            requests: BTreeMap::new(),
        };
        if let Some(path) = &settings.journal {
            let failed = |source| SettingsError::Journal { path: path.clone(), source };
            lock.journal = Some(lock.replay(path).map_err(failed)?);
        }
        if lock.last == 0 {
            lock.begin();
        }
        Ok(lock)
    }

    /// Reads the journal up to a torn line, which is cut off.
    fn replay(&mut self, path: &Path) -> io::Result<File> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut whole = 0;
        for line in text.split_inclusive('\n') {
            let Ok(read) = serde_json::from_str::<Line>(line) else {
                break;
            };
            if !line.ends_with('\n') {
                break;
            }
            whole += line.len();
            self.take(read);
        }
        file.set_len(whole as u64)?;
        Ok(file)
    }

    /// Makes a line of the journal so.
    fn take(&mut self, line: Line) {
        let Line { record, slot, clock_error, begun } = line;
        if let Some(begun) = begun {
            (self.begun, self.last) = (begun, 0);
            self.ledger.clear();
            self.slots.fill(None);
        }
        if let Some(error) = clock_error {
            let base = self.real.now().saturating_add(SignedDuration::from_millis(error));
            self.clock =
                LockClock { base: base.unwrap_or(Timestamp::MAX), from: Instant::now(), ..self.clock };
        }
        let key = record.key.as_deref();
        match (record.what, slot) {
            (What::Put, Some(slot)) => {
                let at = self.place(&slot.key).or_else(|| self.slots.iter().position(Option::is_none));
                if let Some(at) = at {
                    self.slots[at] = Some(slot);
                }
            }
            (What::Removed, _) => {
                if let Some(at) = key.and_then(|key| self.place(key)) {
                    self.slots[at] = None;
                }
            }
            _ => {}
        }
        self.last = record.sequence;
        self.ledger.push(record);
        if self.ledger.len() > self.keeps {
            self.ledger.remove(0);
        }
    }

    /// Does a deed: first the journal, then the table and the ledger.
    fn deed(&mut self, what: What, job: Option<&str>, key: Option<&str>, slot: Option<Slot>) -> u64 {
        let (clock_error, begun) = match what {
            What::ClockSet => (Some(self.now().duration_since(self.real.now()).as_millis()), None),
            What::Begun => (None, Some(self.begun)),
            _ => (None, None),
        };
        let record = Record {
            sequence: self.last + 1,
            at: self.now(),
            job: job.map(Into::into),
            what,
            key: key.map(Into::into),
        };
        let clock_error = clock_error.and_then(|error| i64::try_from(error).ok());
        let line = Line { record, slot, clock_error, begun };
        if let Some(journal) = &mut self.journal {
            let mut text = serde_json::to_string(&line).expect("plain data");
            text.push('\n');
            if let Err(error) = journal.write_all(text.as_bytes()) {
                tracing::error!(%error, "the lock's journal could not be written");
            }
        }
        // The clock is right already.
        self.take(Line { clock_error: None, ..line });
        self.last
    }

    /// Begins an empty memory.
    fn begin(&mut self) {
        self.last = 0;
        self.deed(What::Begun, None, None, None);
    }

    /// Loses everything it holds.
    pub(super) fn clear(&mut self) {
        self.begun = self.real.now();
        self.begin();
    }

    fn place(&self, key: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.key == key))
    }

    pub(super) fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.clock.from.elapsed()).unwrap_or(SignedDuration::MAX);
        let too_fast = passed.as_micros() / 1_000_000 * i128::from(self.clock.drift);
        let too_fast = SignedDuration::from_micros(i64::try_from(too_fast).unwrap_or_default());
        self.clock.base.saturating_add(passed.saturating_add(too_fast)).unwrap_or(Timestamp::MAX)
    }

    fn local(&self) -> DateTime {
        self.zone.to_datetime(self.now())
    }

    /// Puts the clock to another time, as a bad battery would; nothing of it is in the ledger.
    pub(super) fn jump(&mut self, to: Timestamp) {
        self.clock = LockClock { base: to, from: Instant::now(), ..self.clock };
    }

    pub(super) fn drift(&mut self, parts_per_million: i64) {
        self.jump(self.now());
        self.clock.drift = parts_per_million;
    }

    pub(super) fn zone(&self) -> &TimeZone {
        &self.zone
    }

    pub(super) fn set_zone(&mut self, zone: TimeZone) {
        self.zone = zone;
    }

    /// Does what was asked.
    pub(super) fn obey(&mut self, verb: Verb, asked: &Asked) -> Answer {
        let fields: Vec<&str> = asked.fields.iter().map(String::as_str).collect();
        let job = asked.job.as_deref();
        self.answer(verb, job, &fields).unwrap_or_else(|| "NO BAD".into())
    }

    fn answer(&mut self, verb: Verb, job: Option<&str>, fields: &[&str]) -> Option<Answer> {
        match (verb, fields) {
            (Verb::State, []) => {
                let clock = clock_field(self.now(), &self.zone);
                let used = self.slots.iter().flatten().count();
                let age = self.real.now().duration_since(self.begun).as_secs().max(0);
                Some(format!(
                    "OK {} {clock} {} {} {used} {age}",
                    field(&self.serial),
                    self.battery,
                    self.slots.len()
                ))
            }
            (Verb::Clock, [clock]) => {
                self.jump(clock_of(clock)?);
                self.deed(What::ClockSet, job, None, None);
                Some("OK".into())
            }
            (Verb::Put, [key, kind, content, start, end, generation]) => {
                let slot = Slot {
                    key: (*key).into(),
                    kind: match *kind {
                        "PIN" => Kind::Pin,
                        "CARD" => Kind::Card,
                        _ => return None,
                    },
                    content: (*content).into(),
                    start: local_of(start)?,
                    end: if *end == "-" { None } else { Some(local_of(end)?) },
                    generation: generation.parse().ok()?,
                };
                Some(self.put(job?, slot))
            }
            (Verb::Del, [key]) => Some(match self.place(key) {
                Some(_) => format!("OK {}", self.deed(What::Removed, Some(job?), Some(key), None)),
                None => "OK -".into(),
            }),
            (Verb::Open, []) => Some(format!("OK {}", self.deed(What::Unlocked, Some(job?), None, None))),
            (Verb::Table, [from]) => Some(self.table_page(from.parse().ok()?)),
            (Verb::Ledger, [after]) => Some(self.ledger_page(job, after.parse().ok()?)),
            _ => None,
        }
    }

    fn put(&mut self, job: &str, slot: Slot) -> Answer {
        let digits = |least: usize, most: usize, is: fn(&char) -> bool| {
            (least..=most).contains(&slot.content.len()) && slot.content.chars().all(|sign| is(&sign))
        };
        let well_formed = match slot.kind {
            Kind::Pin => digits(4, 8, char::is_ascii_digit),
            Kind::Card => digits(4, 20, char::is_ascii_hexdigit),
        };
        if !well_formed {
            return "NO FORMAT".into();
        }
        if slot.end.is_some_and(|end| end <= slot.start) {
            return "NO DATES".into();
        }
        let mut others = self.slots.iter().flatten().filter(|other| other.key != slot.key);
        if others.any(|other| other.kind == slot.kind && other.content == slot.content) {
            return "NO TAKEN".into();
        }
        match self.place(&slot.key).and_then(|at| self.slots[at].as_ref()) {
            Some(held) if held.generation > slot.generation => return "NO OLDER".into(),
            Some(_) => {}
            None if self.slots.iter().all(Option::is_some) => return "NO FULL".into(),
            None => {}
        }
        let key = slot.key.clone();
        format!("OK {}", self.deed(What::Put, Some(job), Some(&key), Some(slot)))
    }

    fn table_page(&self, from: u16) -> Answer {
        let mut entries = String::new();
        let mut next = "-".to_owned();
        for (at, slot) in self.slots.iter().enumerate().skip(usize::from(from.max(1)) - 1) {
            let Some(slot) = slot else { continue };
            if entries.len() > PAGE {
                next = (at + 1).to_string();
                break;
            }
            let kind = match slot.kind {
                Kind::Pin => "PIN",
                Kind::Card => "CARD",
            };
            let end = slot.end.map_or_else(|| "-".into(), local_field);
            entries.push_str(&format!(
                " {} {kind} {} {} {end} {}",
                field(&slot.key),
                field(&slot.content),
                local_field(slot.start),
                slot.generation
            ));
        }
        format!("OK {next}{entries}")
    }

    fn ledger_page(&self, job: Option<&str>, after: u64) -> Answer {
        let first = self.ledger.first().map_or(0, |record| record.sequence);
        let mut meant = self
            .ledger
            .iter()
            .filter(|record| record.sequence > after && (job.is_none() || record.job.as_deref() == job));
        let page: Vec<&Record> = meant.by_ref().take(DEEDS).collect();
        let next = match (meant.next(), page.last()) {
            (Some(_), Some(last)) => last.sequence.to_string(),
            _ => "-".into(),
        };
        let entries: String = page
            .iter()
            .map(|record| {
                format!(
                    " {} {} {} {} {}",
                    record.sequence,
                    clock_field(record.at, &self.zone),
                    record.job.as_deref().unwrap_or("-"),
                    record.what.word(),
                    record.key.as_deref().map_or_else(|| "-".into(), field)
                )
            })
            .collect();
        format!("OK {first} {next}{entries}")
    }

    /// Somebody types a PIN or holds a card to the lock: the key of the entry that opened it.
    pub(super) fn used(&mut self, content: &str) -> Option<String> {
        let now = self.local();
        let opens = |slot: &&Slot| {
            slot.content == content && slot.start <= now && slot.end.is_none_or(|end| now < end)
        };
        let found = self.slots.iter().flatten().find(opens).map(|slot| (slot.key.clone(), slot.kind));
        let (key, what) = match found {
            Some((key, Kind::Pin)) => (Some(key), What::Opened),
            Some((key, Kind::Card)) => (Some(key), What::OpenedByCard),
            None => (None, What::Refused),
        };
        self.deed(what, None, key.as_deref(), None);
        key
    }

    /// Somebody turns the knob inside.
    pub(super) fn turned(&mut self, locks: bool) {
        let what = if locks { What::LockedByHand } else { What::UnlockedByHand };
        self.deed(what, None, None, None);
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    /// How often something was done for a job; for any if none is named.
    pub(super) fn count(&self, what: &str, job: Option<&str>) -> usize {
        let meant =
            |record: &&Record| record.what.word() == what && (job.is_none() || record.job.as_deref() == job);
        self.ledger.iter().filter(meant).count()
    }

    /// The table for a person, contents and all.
    pub(super) fn show_table(&self) -> Value {
        let slot = |(at, slot): (usize, &Option<Slot>)| {
            let slot = slot.as_ref()?;
            Some(json!({
                "slot": at + 1, "key": slot.key, "kind": slot.kind, "content": slot.content,
                "start": slot.start, "end": slot.end, "generation": slot.generation,
            }))
        };
        self.slots.iter().enumerate().filter_map(slot).collect()
    }

    pub(super) fn show_ledger(&self) -> Value {
        let record = |record: &Record| {
            json!({
                "sequence": record.sequence, "at": record.at, "job": record.job,
                "what": record.what.word(), "key": record.key,
            })
        };
        self.ledger.iter().map(record).collect()
    }
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lock").field("serial", &self.serial).finish_non_exhaustive()
    }
}
