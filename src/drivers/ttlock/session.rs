//! One conversation with a lock: log in, its clock, what is to be changed, and then its table read back. No IO, no clock.
//!
//! ```text
//! log in    CheckAdmin CheckRandom
//! look      log in, Features, SetClock, Status
//! put       log in, Features, SetClock, then one of Change, Add; Remove of what else the slot may hold; the table
//! remove    log in, Remove of whatever the slot may hold; the table
//! prove     log in, the table
//! unlock    CheckUser, Unlock                     asked once; silence from here on is a doubt
//! watch     log in, SetClock, Log …
//! introduce Init, GetKey                          of a lock that belongs to nobody, with the published key
//! admit     AddAdmin, SetClock, Features, Finished
//! ```
//! A lock has no slots: a passcode is known by its digits, a card by its number. What a slot may hold says whoever keeps
//! the slots. A passcode is changed in place, so that a refusal leaves the former one in force.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use jiff::{Timestamp, Unit, civil::DateTime, tz::TimeZone};
use uuid::{Uuid, uuid};

use super::{
    codec::{Decoded, Header, Key, decode, encode},
    message::{Answer, CardNumber, No, Numbers, Record, Request, Span},
};
pub use crate::drivers::Came;
use crate::{
    model::{Code, Private, Refusal},
    transport::ble::gatt::{Heard, Talk, Want, WriteKind},
};

/// The lock's service.
pub const SERVICE: Uuid = uuid!("00001910-0000-1000-8000-00805f9b34fb");
/// Requests are written here.
pub const WRITE: Uuid = uuid!("0000fff2-0000-1000-8000-00805f9b34fb");
/// Answers are notified here.
pub const NOTIFY: Uuid = uuid!("0000fff4-0000-1000-8000-00805f9b34fb");

/// A frame is written in pieces of this many bytes …
const PIECE: usize = 20;
/// … this far apart: the lock has one small buffer.
const BETWEEN_PIECES: Duration = Duration::from_millis(20);
/// Frames that belong to nothing which are passed over while one answer is waited for: the lock tells its state unasked.
const STRANGERS: u32 = 4;
/// Pages of a table that are read before it is given up; a bound, since a peer may never come to an end.
const PAGES: u32 = 300;
/// Pages of the log that one watch reads; the next one goes on behind them.
const WATCHED_PAGES: u32 = 16;
/// A card is waited for so long at the lock's reader.
const ENROLLING: Duration = Duration::from_secs(25);

/// Features by their bits.
mod feature {
    /// Passcodes.
    pub(super) const PASSCODE: u128 = 1;
    /// Cards.
    pub(super) const CARD: u128 = 1 << 1;
    /// It has no clock, and so no windows.
    pub(super) const NO_CLOCK: u128 = 1 << 20;
}

/// What gives rights at one lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Its header, as pairing or the vendor's record tells.
    pub header: Header,
    /// The key of every frame.
    pub key: Key,
    /// The administrator's number and the unlock key.
    pub numbers: Numbers,
    /// The lowest three bytes of the flag position; 0 for a lock that was paired here.
    pub flag_position: u32,
}

impl Keys {
    /// With which a lock is spoken to that belongs to nobody yet.
    #[must_use]
    pub fn of_nobody(numbers: Numbers) -> Self {
        Self { header: Header::UNKNOWN, key: Key::FACTORY, numbers, flag_position: 0 }
    }
}

/// What opens the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Digits at the keypad.
    Pin(Private),
    /// A card at the reader.
    Card(CardNumber),
}

/// What to do at a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// To see how it is, and to set its clock.
    Look,
    /// To let something open it, and nothing else that the slot may hold.
    Put {
        /// What.
        content: Content,
        /// When, in the lock's local time.
        span: Span,
        /// What the slot may hold.
        may_hold: Vec<Content>,
    },
    /// To empty a slot.
    Remove {
        /// What it may hold.
        may_hold: Vec<Content>,
    },
    /// To see whether a [`Self::Put`] was done, without doing it.
    ProvePut {
        /// What.
        content: Content,
        /// When.
        span: Span,
        /// What the slot may hold besides.
        may_hold: Vec<Content>,
    },
    /// To see whether a [`Self::Remove`] was done, without doing it.
    ProveRemove {
        /// What the slot may hold.
        may_hold: Vec<Content>,
    },
    /// To add the card that is held against its reader within the next seconds.
    Enrol {
        /// When it opens.
        span: Span,
    },
    /// To open the door.
    Unlock,
    /// To see what happened from this record on.
    Watch {
        /// Its number; 0 for the oldest.
        from: u16,
    },
    /// To hear the key and the header of a lock that belongs to nobody; see [`Keys::of_nobody`]. Changes nothing.
    Introduce,
    /// To make a lock that was introduced belong to whoever has the numbers of the keys. They have to be kept safe before:
    /// without them only the lock's own button frees it.
    Admit,
}

/// What a conversation goes by.
#[derive(Debug, Clone)]
pub struct Manners {
    /// How long the lock may take for each answer.
    pub answer_timeout: Duration,
    /// What time it is when the conversation is begun.
    pub now: Timestamp,
    /// The zone of the lock's local time.
    pub zone: TimeZone,
    /// What gives rights.
    pub keys: Keys,
    /// What the lock can do, where that is known; it is asked otherwise.
    pub features: Option<u128>,
}

/// What a conversation tells on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Of its battery, in per cent.
    Battery(u8),
    /// What it can do.
    Features(u128),
    /// How it is to be spoken to from now on.
    Introduced {
        /// Its header.
        header: Header,
        /// Its key.
        key: Key,
    },
    /// Whether the door is locked.
    Locked(bool),
    /// What changes the lock leaves now.
    Leaves,
    /// The lock waits for a card at its reader.
    WaitsForCard,
    /// This card was laid down.
    Enrolled(CardNumber),
    /// What happened.
    Did {
        /// In the lock's order.
        records: Vec<Record>,
        /// Where to go on.
        next: u16,
        /// Whether there is more.
        more: bool,
    },
    /// The place from which to watch is none that the lock knows any more.
    Forgotten,
}

/// One conversation.
pub struct Conversation {
    task: Task,
    manners: Manners,
    begun: Option<Instant>,
    state: At,
    buffer: Vec<u8>,
    notes: VecDeque<Note>,
    /// What changes the lock was handed out for writing.
    left: bool,
    /// What the slot may hold and is still to be tried as that which is changed.
    candidates: VecDeque<Content>,
    /// What is to be removed once the new content is in.
    to_remove: VecDeque<Content>,
    found: Found,
    /// Which of the two tables are still to be read.
    to_read: VecDeque<Request>,
    pages: u32,
    records: Vec<Record>,
    enrolled: Option<CardNumber>,
}

/// What the lock's tables show of what matters.
#[derive(Default)]
struct Found {
    /// The entry that was ordered, with its dates.
    wanted: Option<Option<Span>>,
    /// Something else that the slot may hold.
    other: bool,
}

#[derive(Debug)]
enum At {
    Subscribe,
    Ask(Request),
    Sending { request: Request, pieces: VecDeque<Vec<u8>>, next_at: Instant },
    Asked { request: Request, until: Instant, strangers: u32 },
    Over(Came),
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is left in the buffer is encrypted, and still nobody's business.
        f.debug_struct("Conversation")
            .field("task", &self.task)
            .field("at", &self.state)
            .finish_non_exhaustive()
    }
}

impl Task {
    fn may_hold(&self) -> &[Content] {
        match self {
            Self::Put { may_hold, .. }
            | Self::Remove { may_hold }
            | Self::ProvePut { may_hold, .. }
            | Self::ProveRemove { may_hold } => may_hold,
            Self::Look
            | Self::Enrol { .. }
            | Self::Unlock
            | Self::Watch { .. }
            | Self::Introduce
            | Self::Admit => &[],
        }
    }

    /// What shall be in the table at the end.
    fn wanted(&self) -> Option<(&Content, Span)> {
        match self {
            Self::Put { content, span, .. } | Self::ProvePut { content, span, .. } => Some((content, *span)),
            _ => None,
        }
    }

    fn is_proof(&self) -> bool {
        matches!(self, Self::ProvePut { .. } | Self::ProveRemove { .. })
    }
}

impl Content {
    fn add(&self, span: Span) -> Request {
        match self {
            Self::Pin(digits) => Request::AddPasscode { digits: digits.clone(), span },
            Self::Card(card) => Request::AddCard { card: *card, span },
        }
    }

    /// Changes this into something else of its kind; none where only another entry can hold that.
    fn change(&self, to: &Self, span: Span) -> Option<Request> {
        match (self, to) {
            (Self::Pin(digits), Self::Pin(new)) => {
                let to = (digits != new).then(|| new.clone());
                Some(Request::ChangePasscode { digits: digits.clone(), to, span })
            }
            (Self::Card(card), Self::Card(new)) if card == new => {
                Some(Request::MoveCard { card: *card, span })
            }
            _ => None,
        }
    }

    fn remove(&self) -> Request {
        match self {
            Self::Pin(digits) => Request::RemovePasscode { digits: digits.clone() },
            Self::Card(card) => Request::RemoveCard { card: *card },
        }
    }
}

impl Conversation {
    /// A conversation, not begun.
    #[must_use]
    pub fn new(task: Task, manners: Manners) -> Self {
        let mut candidates: VecDeque<Content> = task.may_hold().iter().cloned().collect();
        if let Some((wanted, _)) = task.wanted() {
            // What is there already is changed first: then nothing else needs to be.
            if let Some(at) = candidates.iter().position(|content| content == wanted) {
                candidates.swap(0, at);
            }
        }
        Self {
            task,
            manners,
            begun: None,
            state: At::Subscribe,
            buffer: Vec::new(),
            notes: VecDeque::new(),
            left: false,
            candidates,
            to_remove: VecDeque::new(),
            found: Found::default(),
            to_read: VecDeque::new(),
            pages: 0,
            records: Vec::new(),
            enrolled: None,
        }
    }

    fn first(&self) -> Request {
        let keys = &self.manners.keys;
        match self.task {
            Task::Unlock => Request::CheckUser { flag_position: keys.flag_position },
            Task::Introduce => Request::Init,
            Task::Admit => Request::AddAdmin(keys.numbers),
            _ => Request::CheckAdmin { admin: keys.numbers.admin, flag_position: keys.flag_position },
        }
    }

    fn ask(&mut self, request: Request) {
        self.state = At::Ask(request);
    }

    fn end(&mut self, came: Came) {
        self.state = At::Over(came);
    }

    /// Ends without an answer to the last request.
    fn end_unanswered(&mut self, code: Code, message: &str) {
        let came = match self.left {
            false if self.task.is_proof() => Came::Doubt(Refusal::new(Code::DeviceOffline, message)),
            false => Came::NothingSent(Refusal::new(Code::DeviceOffline, message)),
            true => Came::Doubt(Refusal::new(
                code,
                format!("{message} after the command had left; it may have been done"),
            )),
        };
        self.end(came);
    }

    /// Local time at the lock.
    fn local(&self, now: Instant) -> DateTime {
        let passed = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        let at = self.manners.now.saturating_add(passed).unwrap_or(Timestamp::MAX);
        self.manners.zone.to_datetime(at.round(Unit::Second).unwrap_or(at))
    }

    fn hear(&mut self, now: Instant, decoded: Decoded) {
        let At::Asked { request, strangers, .. } = &mut self.state else {
            return;
        };
        let frame = match decoded {
            Decoded::Frame { frame, .. } => frame,
            // Nothing better will come for it.
            Decoded::Damaged { .. } => {
                return self.end_unanswered(Code::NoAnswer, "the lock's answer arrived damaged");
            }
            Decoded::Need | Decoded::Noise { .. } => return,
        };
        let request = request.clone();
        if request == Request::Init {
            // What it says is of no use.
            return self.ask(Request::GetKey);
        }
        let header = frame.header;
        let Some(clear) = frame.open(&self.manners.keys.key) else {
            if request == Request::GetKey {
                return self.end(Came::NotDone(refusal(No::NOT_PAIRING)));
            }
            if matches!(request, Request::CheckAdmin { .. } | Request::CheckUser { .. }) {
                return self.end(Came::NotDone(Refusal::new(
                    Code::Auth,
                    "the lock answers with another key than the one that is known here: it was set back or paired with \
                     somebody else; pair it again, or import its record anew",
                )));
            }
            return self.end_unanswered(Code::NoAnswer, "the lock's answer could not be read");
        };
        let answer = request.answer(&clear);
        if request == Request::GetKey {
            self.manners.keys.header = header;
        }
        if answer == Answer::Stranger {
            *strangers += 1;
            if STRANGERS < *strangers {
                self.end_unanswered(Code::ProtocolViolation, "the lock answers something else");
            }
            return;
        }
        self.answered(now, request, answer);
    }

    fn answered(&mut self, now: Instant, request: Request, answer: Answer) {
        match (request, answer) {
            (request, Answer::No(no)) => self.refused(request, no),
            (Request::CheckAdmin { .. }, Answer::Token(token)) => {
                let answer = token.wrapping_add(self.manners.keys.numbers.unlock);
                self.ask(Request::CheckRandom { answer });
            }
            (Request::CheckUser { .. }, Answer::Token(token)) => {
                let answer = token.wrapping_add(self.manners.keys.numbers.unlock);
                let at = u32::try_from(self.manners.now.as_second()).unwrap_or_default();
                self.ask(Request::Unlock { answer, at });
            }
            (Request::Unlock { .. } | Request::Finished, Answer::Yes) => self.end(Came::Done),
            (Request::GetKey, Answer::Key(key)) => {
                self.notes.push_back(Note::Introduced { header: self.manners.keys.header, key });
                self.end(Came::Done);
            }
            (Request::AddAdmin(_), Answer::Yes) => self.ask(Request::SetClock(self.local(now))),
            (Request::CheckRandom { .. }, Answer::Yes) => self.logged_in(now),
            (Request::Features, Answer::Features { battery, bits }) => {
                self.notes.extend(battery.map(Note::Battery));
                self.notes.push_back(Note::Features(bits));
                self.manners.features = Some(bits);
                self.logged_in(now);
            }
            (Request::SetClock(_), Answer::Yes) => self.clock_is_right(),
            (Request::Status, Answer::Status { battery, locked }) => {
                self.notes.extend(battery.map(Note::Battery));
                self.notes.extend(locked.map(Note::Locked));
                self.end(Came::Done);
            }
            (
                Request::AddPasscode { .. }
                | Request::AddCard { .. }
                | Request::ChangePasscode { .. }
                | Request::MoveCard { .. },
                Answer::Yes,
            ) => self.is_in(),
            (Request::RemovePasscode { .. } | Request::RemoveCard { .. }, Answer::Yes) => self.remove_next(),
            (Request::Passcodes { .. }, Answer::Passcodes { entries, next }) => {
                let entries = entries.into_iter().map(|entry| (Content::Pin(entry.digits), entry.span));
                self.shown(entries.collect(), next.map(|cursor| Request::Passcodes { cursor }));
            }
            (Request::Cards { .. }, Answer::Cards { entries, next }) => {
                let entries = entries.into_iter().map(|entry| (Content::Card(entry.number), entry.span));
                self.shown(entries.collect(), next.map(|cursor| Request::Cards { cursor }));
            }
            (Request::EnrolCard, Answer::WaitsForCard) => {
                self.notes.push_back(Note::WaitsForCard);
                let until = now + ENROLLING;
                self.state = At::Asked { request: Request::EnrolCard, until, strangers: 0 };
            }
            (Request::EnrolCard, Answer::Enrolled(card)) => {
                self.notes.push_back(Note::Enrolled(card));
                self.enrolled = Some(card);
                let Task::Enrol { span } = self.task else {
                    return self.end_unanswered(Code::ProtocolViolation, "the lock took a card unasked");
                };
                self.ask(Request::MoveCard { card, span });
            }
            (Request::Log { cursor }, Answer::Log { records, next }) => self.watched(cursor, records, next),
            _ => self.end_unanswered(Code::ProtocolViolation, "the lock's answer was not understood"),
        }
    }

    fn logged_in(&mut self, now: Instant) {
        if self.task == Task::Admit {
            return self.ask(Request::Finished);
        }
        let needs_features = matches!(self.task, Task::Look | Task::Put { .. } | Task::Enrol { .. });
        if needs_features && self.manners.features.is_none() {
            return self.ask(Request::Features);
        }
        let cannot = |why: &str| Came::NotDone(Refusal::new(Code::Unsupported, why));
        let bits = self.manners.features.unwrap_or_default();
        match &self.task {
            Task::Put { content: Content::Pin(_), .. } if bits & feature::PASSCODE == 0 => {
                self.end(cannot("the lock takes no passcodes"));
            }
            Task::Put { content: Content::Card(_), .. } | Task::Enrol { .. } if bits & feature::CARD == 0 => {
                self.end(cannot("the lock takes no cards"));
            }
            Task::Put { span, .. } | Task::Enrol { span }
                if span.ends_at.is_some() && bits & feature::NO_CLOCK != 0 =>
            {
                self.end(cannot(
                    "the lock has no clock and knows no windows: set `windows = false` for it, and its codes are written \
                     when they begin and removed when they end",
                ));
            }
            Task::Look | Task::Put { .. } | Task::Enrol { .. } | Task::Watch { .. }
                if bits & feature::NO_CLOCK == 0 =>
            {
                self.ask(Request::SetClock(self.local(now)));
            }
            _ => self.clock_is_right(),
        }
    }

    fn clock_is_right(&mut self) {
        match &self.task {
            Task::Look => self.ask(Request::Status),
            Task::Put { .. } => self.put_next(),
            Task::Remove { .. } => {
                self.to_remove = std::mem::take(&mut self.candidates);
                self.remove_next();
            }
            Task::ProvePut { .. } | Task::ProveRemove { .. } => self.read_back(),
            Task::Enrol { .. } => self.ask(Request::EnrolCard),
            Task::Watch { from } => {
                let cursor = *from;
                self.ask(Request::Log { cursor });
            }
            Task::Admit => self.ask(Request::Features),
            Task::Unlock | Task::Introduce => {
                self.end_unanswered(Code::ProtocolViolation, "the lock answers out of turn");
            }
        }
    }

    /// Tries the next of what the slot may hold as that which is changed, and adds a new entry at last.
    fn put_next(&mut self) {
        let Task::Put { content, span, .. } = &self.task else {
            return;
        };
        while let Some(candidate) = self.candidates.front() {
            if let Some(request) = candidate.change(content, *span) {
                return self.ask(request);
            }
            // Of another kind: it goes once the new one is in.
            self.to_remove.extend(self.candidates.pop_front());
        }
        let request = content.add(*span);
        self.ask(request);
    }

    /// The new content is in.
    fn is_in(&mut self) {
        if let Task::Enrol { .. } = self.task {
            return self.read_back();
        }
        let Some((wanted, _)) = self.task.wanted() else {
            return self.end_unanswered(Code::ProtocolViolation, "the lock answers out of turn");
        };
        let wanted = wanted.clone();
        // The first one became it, or none did.
        self.candidates.pop_front();
        self.to_remove.extend(self.candidates.drain(..));
        self.to_remove.retain(|content| *content != wanted);
        self.remove_next();
    }

    fn remove_next(&mut self) {
        match self.to_remove.pop_front() {
            Some(content) => self.ask(content.remove()),
            None => self.read_back(),
        }
    }

    /// Reads whichever table may show something of this slot.
    fn read_back(&mut self) {
        let wanted = self.task.wanted().map(|(content, _)| content);
        let contents = || self.task.may_hold().iter().chain(wanted);
        let pins = contents().any(|content| matches!(content, Content::Pin(_)));
        let cards = contents().any(|content| matches!(content, Content::Card(_)));
        self.to_read.extend(pins.then_some(Request::Passcodes { cursor: 0 }));
        let enrolled = self.enrolled.is_some();
        self.to_read.extend((cards || enrolled).then_some(Request::Cards { cursor: 0 }));
        self.read_next();
    }

    fn read_next(&mut self) {
        match self.to_read.pop_front() {
            Some(request) => self.ask(request),
            None => self.compare(),
        }
    }

    /// A page of a table.
    fn shown(&mut self, entries: Vec<(Content, Option<Span>)>, next: Option<Request>) {
        let wanted = match (&self.task, self.enrolled) {
            (Task::Enrol { .. }, Some(card)) => Some(Content::Card(card)),
            (task, _) => task.wanted().map(|(content, _)| content.clone()),
        };
        for (content, span) in entries {
            if Some(&content) == wanted.as_ref() {
                self.found.wanted = Some(span);
            } else if self.task.may_hold().contains(&content) {
                self.found.other = true;
            }
        }
        self.pages += 1;
        match next {
            Some(_) if PAGES <= self.pages => {
                self.end_unanswered(Code::ProtocolViolation, "the lock's table has no end");
            }
            Some(request) => self.ask(request),
            None => self.read_next(),
        }
    }

    /// Judges the tables, read to their ends.
    fn compare(&mut self) {
        let span = match &self.task {
            Task::Enrol { span } => Some(*span),
            task => task.wanted().map(|(_, span)| span),
        };
        let is_as_ordered = match (span, self.found.wanted) {
            (Some(ordered), Some(Some(shown))) => {
                // A lock keeps no start of what holds for good in the way that it was told it.
                ordered == shown || ordered.ends_at.is_none() && shown.ends_at.is_none()
            }
            (None, None) => true,
            _ => false,
        };
        let came = match (is_as_ordered && !self.found.other, self.task.is_proof()) {
            (true, _) => Came::Done,
            (false, true) => {
                Came::NotDone(Refusal::new(Code::NoAnswer, "the lock's table does not show what was ordered"))
            }
            (false, false) => Came::Doubt(Refusal::new(
                Code::ProtocolViolation,
                "the lock says that it is done, and its table does not show what was ordered",
            )),
        };
        self.end(came);
    }

    /// A page of the log.
    fn watched(&mut self, cursor: u16, records: Vec<Record>, next: Option<u16>) {
        let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
        self.records.extend(records);
        self.pages += 1;
        let on = next.unwrap_or_else(|| cursor.saturating_add(count));
        match next {
            Some(next) if self.pages < WATCHED_PAGES && next != cursor => {
                self.ask(Request::Log { cursor: next });
            }
            next => {
                let records = std::mem::take(&mut self.records);
                self.notes.push_back(Note::Did {
                    records,
                    next: on,
                    more: next.is_some_and(|next| next != cursor),
                });
                self.end(Came::Done);
            }
        }
    }

    fn refused(&mut self, request: Request, no: No) {
        match (&request, no) {
            // What is not there any more need not go.
            (Request::RemovePasscode { .. }, No::MISSING)
            | (Request::RemoveCard { .. }, No::MISSING | No::CARD_MISSING) => return self.remove_next(),
            // What the slot may have held is not there: the next, or a new entry.
            (Request::ChangePasscode { .. }, No::MISSING)
            | (Request::MoveCard { .. }, No::MISSING | No::CARD_MISSING)
                if self.enrolled.is_none() =>
            {
                self.candidates.pop_front();
                return self.put_next();
            }
            // It belongs to us whatever else it will not do.
            (Request::SetClock(_), _) if self.task == Task::Admit => return self.clock_is_right(),
            (Request::Features, _) if self.task == Task::Admit => return self.ask(Request::Finished),
            (Request::Finished, _) => return self.end(Came::Done),
            (Request::Log { cursor }, _) if *cursor != 0 => {
                self.notes.push_back(Note::Forgotten);
                return self.end(Came::Done);
            }
            _ => {}
        }
        let is_reading = matches!(request, Request::Passcodes { .. } | Request::Cards { .. });
        // Reading back is not what was ordered: a lock that does not show its table says nothing of the command.
        if is_reading && (self.left || self.task.is_proof()) {
            let silent =
                Refusal::by_device(Code::NoAnswer, vendor(no), "the lock does not show its table now");
            return self.end(Came::Doubt(silent));
        }
        if no == No::CRC && self.left {
            return self.end_unanswered(Code::NoAnswer, "the lock did not receive the request whole");
        }
        // Removals follow what was put: that one of them is refused leaves more than was ordered in the table.
        if self.left && matches!(request, Request::RemovePasscode { .. } | Request::RemoveCard { .. }) {
            let refusal =
                Refusal::by_device(Code::Rejected, vendor(no), "the lock does not let go of an entry");
            return self.end(Came::Doubt(refusal));
        }
        let refusal = refusal(no);
        self.end(match no {
            No::FROZEN | No::CRC | No::NO_POWER => Came::NothingSent(refusal),
            _ => Came::NotDone(refusal),
        });
    }

    fn expire(&mut self, now: Instant) {
        if !matches!(self.state, At::Asked { until, .. } if until <= now) {
            return;
        }
        if matches!(self.state, At::Asked { request: Request::EnrolCard, .. }) && self.enrolled.is_none() {
            return self.end(Came::Doubt(Refusal::new(
                Code::NoCard,
                "nobody held a card against the lock's reader in time, or the lock did not tell",
            )));
        }
        self.end_unanswered(Code::NoAnswer, "the lock did not answer");
    }
}

fn vendor(no: No) -> String {
    format!("{:02x}", no.0)
}

fn refusal(no: No) -> Refusal {
    let (code, message) = match no {
        No::FULL => (Code::SlotsFull, "the lock has room for no more: remove an entry that is not needed"),
        No::EXISTS => {
            (Code::ContentTaken, "the lock has this passcode already, and not from here: choose another")
        }
        No::MISSING | No::CARD_MISSING => (Code::Rejected, "the lock does not have this entry"),
        No::LENGTH => (Code::Rejected, "the lock takes no passcode of this length: 4 to 9 digits"),
        No::WRONG_ADMIN | No::NO_ADMIN | No::KEY_GONE | No::AES | No::NO_PERMISSION => (
            Code::Auth,
            "the lock does not take the rights that are known here: it was set back or paired with somebody else; pair it \
             again, or import its record anew",
        ),
        No::FLAG_POSITION => {
            (Code::Auth, "the lock's rights were renewed in the vendor's app: import its record anew")
        }
        No::PAIRING => (Code::Auth, "the lock belongs to nobody and waits to be paired: pair it again"),
        No::NOT_PAIRING => (
            Code::Auth,
            "the lock belongs to somebody: reset it in the vendor's app or by its button, then pair it",
        ),
        No::NO_POWER => (Code::DeviceBusy, "the lock's batteries are too weak: change them"),
        No::FROZEN => (Code::DeviceBusy, "the lock takes nothing at present; it is tried again"),
        No::CRC => (Code::DeviceBusy, "the lock did not receive the request whole; it is tried again"),
        No::COMMAND => (Code::Unsupported, "the lock does not know this command"),
        _ => (Code::Rejected, "the lock refuses it"),
    };
    Refusal::by_device(code, vendor(no), message)
}

impl Talk for Conversation {
    type Done = Came;
    type Note = Note;

    fn poll(&mut self, now: Instant) -> Want<Came, Note> {
        self.begun.get_or_insert(now);
        // A peer that never stops talking would keep the shell from ever reporting a timeout.
        self.expire(now);
        loop {
            if let Some(note) = self.notes.pop_front() {
                return Want::Note(note);
            }
            match &mut self.state {
                At::Subscribe => {
                    self.state = At::Ask(self.first());
                    return Want::Subscribe(NOTIFY);
                }
                At::Ask(request) => {
                    let request = request.clone();
                    if request.changes() && !self.left {
                        self.left = true;
                        return Want::Note(Note::Leaves);
                    }
                    let keys = &self.manners.keys;
                    let frame = encode(keys.header, request.command(), &request.clear(), &keys.key);
                    let pieces = frame.chunks(PIECE).map(<[u8]>::to_vec).collect();
                    // What came before belongs to no request.
                    self.buffer.clear();
                    self.state = At::Sending { request, pieces, next_at: now };
                }
                At::Sending { next_at, .. } if now < *next_at => return Want::Wait { until: *next_at },
                At::Sending { request, pieces, next_at } => match pieces.pop_front() {
                    Some(value) => {
                        *next_at = now + BETWEEN_PIECES;
                        return Want::Write { to: WRITE, value, kind: WriteKind::Command };
                    }
                    None => {
                        let until = now + self.manners.answer_timeout;
                        self.state = At::Asked { request: request.clone(), until, strangers: 0 };
                    }
                },
                At::Asked { until, .. } => return Want::Wait { until: *until },
                At::Over(came) => return Want::Done(came.clone()),
            }
        }
    }

    fn handle(&mut self, now: Instant, heard: Heard<'_>) {
        match heard {
            Heard::Timeout => self.expire(now),
            Heard::Refused | Heard::Closed => match self.state {
                At::Over(_) => {}
                _ => self.end_unanswered(Code::LineLost, "the connection to the lock ended"),
            },
            Heard::Value { from, .. } if from != NOTIFY => {}
            Heard::Value { value, .. } => {
                // An answer may come before the pause behind the last piece is over.
                if let At::Sending { request, pieces, .. } = &self.state
                    && pieces.is_empty()
                {
                    let until = now + self.manners.answer_timeout;
                    self.state = At::Asked { request: request.clone(), until, strangers: 0 };
                }
                self.buffer.extend_from_slice(value);
                loop {
                    let decoded = decode(&self.buffer);
                    let used = match &decoded {
                        Decoded::Need => break,
                        Decoded::Noise { used } | Decoded::Damaged { used } | Decoded::Frame { used, .. } => {
                            *used
                        }
                    };
                    self.buffer.drain(..used);
                    self.hear(now, decoded);
                }
            }
        }
    }
}
