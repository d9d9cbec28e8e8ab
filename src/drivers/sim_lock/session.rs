//! One conversation with a lock: how is it, its clock, the command, what its memory shows then. No IO, no clock.
//!
//! ```text
//! slot.put       STATE  (CLOCK STATE)  PUT   TABLE …    done only if the table shows exactly what was ordered
//! slot.remove    STATE                 DEL   TABLE …    done only if the table shows nothing under the key
//! device.unlock  STATE                 OPEN             asked once; silence from here on is a doubt
//! device.read    STATE  (CLOCK STATE)  TABLE …
//! proof          STATE                 TABLE … or LEDGER …
//! watch          STATE                 LEDGER …
//! ```
//! Until the command is handed out for writing nothing of it has left. `STATE` goes first although only a window needs
//! the clock: a lock that is not there then shows before a command can be in doubt.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::{
    codec::{Decoded, decode, encode},
    message::{Answer, Deed, Entry, No, Reading, Request, State},
};
use crate::{
    model::{Code, JobId, Refusal, SlotSeen},
    transport::{Input, Output, Session},
};

/// A lock's clock may be off by this much; the locks imitated here drift by a few seconds a day.
const CLOCK_BOUND: SignedDuration = SignedDuration::from_secs(30);
/// What a ledger does not have was not done, if its memory is at least this old: one that was cleared or replaced after
/// the command left would not have it either. No command waits this long for its proof.
const MEMORY_OLD_ENOUGH: Duration = Duration::from_secs(24 * 3600);
/// Pages of a table or a ledger that are read before it is given up; a bound, since a peer may never come to an end.
const PAGES: u32 = 1000;

/// Pages of a ledger that one watch reads; the next one goes on behind them. A job that waits for the lock waits for no more
/// than these.
const WATCHED_PAGES: u32 = 4;

/// What to do at a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Only to see how it is, and to set its clock.
    Look,
    /// The same, and to see what it holds.
    Read,
    /// To do something.
    Do(Command),
    /// To see whether something was done, without doing it.
    Prove(Command),
    /// To see what was done behind this place of the ledger.
    Watch {
        /// Which.
        after: u64,
    },
}

/// What changes a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Put an entry.
    Put {
        /// For which job.
        job: JobId,
        /// The entry.
        entry: Entry,
    },
    /// Empty an entry.
    Remove {
        /// For which job.
        job: JobId,
        /// The entry's key.
        key: String,
    },
    /// Open the door.
    Unlock {
        /// For which job.
        job: JobId,
    },
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
}

/// What a conversation tells on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// How the lock is.
    State(State),
    /// The lock's clock is being set.
    ClockOff {
        /// What the lock's clock shows, less what is right.
        by: SignedDuration,
    },
    /// The command leaves now.
    Leaves,
    /// The whole table that was asked for, without contents.
    Holds(Vec<SlotSeen>),
    /// What was done behind the place that was asked for.
    Did {
        /// The oldest sequence that the lock keeps.
        first: u64,
        /// Oldest first.
        deeds: Vec<Deed>,
        /// Whether there is more behind them.
        more: bool,
    },
}

/// How a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// Done, and the lock's memory shows it; of a proof: it was done.
    Done,
    /// No byte of the command left, or the lock said that it is too busy for it.
    NothingSent(Refusal),
    /// Not done, and the lock said so; of a proof: it was not done.
    NotDone(Refusal),
    /// It may have been done.
    Doubt(Refusal),
}

/// One conversation.
pub struct Conversation {
    task: Task,
    manners: Manners,
    begun: Option<Instant>,
    state: At,
    buffer: Vec<u8>,
    notes: VecDeque<Note>,
    /// The number of the last request.
    number: u16,
    /// The clock was set.
    clock_set: bool,
    /// The command was handed out for writing.
    left: bool,
    /// Entries of the table under the task's key, and the pages read.
    found: Vec<Entry>,
    pages: u32,
    /// Everything in the table, where that is asked for.
    held: Vec<SlotSeen>,
    /// What was done, where that is asked for.
    deeds: Vec<Deed>,
    /// Seconds for which the lock has kept its memory.
    age: u64,
}

#[derive(Debug)]
enum At {
    Ask(Request),
    Asked { request: Request, until: Instant },
    Over(Came),
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is left in the buffer may be a PIN.
        f.debug_struct("Conversation")
            .field("task", &self.task)
            .field("at", &self.state)
            .finish_non_exhaustive()
    }
}

impl Command {
    fn request(&self) -> Request {
        match self.clone() {
            Self::Put { job, entry } => Request::Put { job, entry },
            Self::Remove { job, key } => Request::Delete { job, key },
            Self::Unlock { job } => Request::Open { job },
        }
    }

    fn key(&self) -> Option<&str> {
        match self {
            Self::Put { entry, .. } => Some(&entry.key),
            Self::Remove { key, .. } => Some(key),
            Self::Unlock { .. } => None,
        }
    }
}

impl Task {
    fn command(&self) -> Option<&Command> {
        match self {
            Self::Look | Self::Read | Self::Watch { .. } => None,
            Self::Do(command) | Self::Prove(command) => Some(command),
        }
    }

    /// Whether a wrong clock of the lock would spoil it.
    fn needs_the_clock(&self) -> bool {
        matches!(self, Self::Look | Self::Read | Self::Do(Command::Put { .. }))
    }
}

impl Conversation {
    /// A conversation, not begun.
    #[must_use]
    pub fn new(task: Task, manners: Manners) -> Self {
        Self {
            task,
            manners,
            begun: None,
            state: At::Ask(Request::State),
            buffer: Vec::new(),
            notes: VecDeque::new(),
            number: 0,
            clock_set: false,
            left: false,
            found: Vec::new(),
            pages: 0,
            held: Vec::new(),
            deeds: Vec::new(),
            age: 0,
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
            false => Came::NothingSent(Refusal::new(Code::DeviceOffline, message)),
            true => Came::Doubt(Refusal::new(
                code,
                format!("{message} after the command had left; it may have been done"),
            )),
        };
        self.end(came);
    }

    fn hear(&mut self, now: Instant, decoded: &Decoded) {
        let At::Asked { request, .. } = &self.state else {
            return;
        };
        let (request, body) = match decoded {
            Decoded::Frame { body, .. } => (request.clone(), body),
            // Nothing better will come for it.
            Decoded::Damaged { .. } => {
                return self.end_unanswered(Code::NoAnswer, "the lock's answer arrived damaged");
            }
            Decoded::Need | Decoded::Noise { .. } => return,
        };
        match request.answer(self.number, body.expose()) {
            Answer::Foreign => {}
            Answer::Strange => {
                self.end_unanswered(Code::NoAnswer, "the lock's answer was not understood");
            }
            Answer::No(no) => self.refused(&request, &no),
            Answer::State(state) => self.looked(now, state),
            Answer::Done => match request {
                Request::Clock(_) => self.ask(Request::State),
                Request::Put { .. } | Request::Delete { .. } => self.ask(Request::Table { from: 1 }),
                Request::State | Request::Open { .. } | Request::Table { .. } | Request::Ledger { .. } => {
                    self.end(Came::Done);
                }
            },
            Answer::Table { entries, next } => {
                if self.task == Task::Read {
                    let seen = |entry: Entry| SlotSeen { slot: entry.key, generation: entry.generation };
                    self.held.extend(entries.into_iter().map(seen));
                    return match next {
                        Some(from) => self.next_page(Request::Table { from }),
                        None => {
                            self.notes.push_back(Note::Holds(std::mem::take(&mut self.held)));
                            self.end(Came::Done);
                        }
                    };
                }
                let key = self.task.command().and_then(Command::key);
                self.found.extend(entries.into_iter().filter(|entry| Some(entry.key.as_str()) == key));
                match next {
                    Some(from) => self.next_page(Request::Table { from }),
                    None => self.compare(),
                }
            }
            Answer::Ledger { first, entries, next } if matches!(self.task, Task::Watch { .. }) => {
                self.watched(first, entries, next);
            }
            Answer::Ledger { first, entries, next } => {
                let command = self.task.command();
                let Some(Command::Unlock { job }) = command else {
                    return;
                };
                let job = *job;
                if entries.iter().any(|deed| deed.job == Some(job) && deed.what == "unlocked") {
                    return self.end(Came::Done);
                }
                match next {
                    Some(after) => self.next_page(Request::Ledger { job: Some(job), after }),
                    None if first == 1 && MEMORY_OLD_ENOUGH.as_secs() <= self.age => {
                        self.end(Came::NotDone(Refusal::new(
                            Code::NoAnswer,
                            "the lock's ledger is whole and does not have it",
                        )));
                    }
                    None => self.end(Came::Doubt(Refusal::new(
                        Code::NoAnswer,
                        "the lock's ledger does not have it and does not reach back far enough to tell",
                    ))),
                }
            }
        }
    }

    /// A page of what was done is read.
    fn watched(&mut self, first: u64, entries: Vec<Deed>, next: Option<u64>) {
        self.deeds.extend(entries);
        match next {
            Some(after) if self.pages + 1 < WATCHED_PAGES => {
                self.next_page(Request::Ledger { job: None, after });
            }
            next => {
                let deeds = std::mem::take(&mut self.deeds);
                self.notes.push_back(Note::Did { first, deeds, more: next.is_some() });
                self.end(Came::Done);
            }
        }
    }

    fn next_page(&mut self, request: Request) {
        self.pages += 1;
        // More entries under one key than a lock could have are no table either.
        if self.pages < PAGES && self.found.len() <= 64 && self.held.len() <= usize::from(u16::MAX) {
            self.ask(request);
        } else {
            self.end_unanswered(Code::ProtocolViolation, "the lock's memory has no end");
        }
    }

    fn looked(&mut self, now: Instant, state: State) {
        let passed = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        let right = self.manners.now.saturating_add(passed).unwrap_or(Timestamp::MAX);
        let right = Reading::in_zone(right, &self.manners.zone);
        let by = state.clock.at.duration_since(right.at);
        let offset = state.clock.offset;
        self.age = state.age;
        self.notes.push_back(Note::State(state));
        let is_off = by.abs() > CLOCK_BOUND;
        if self.task.needs_the_clock() && (is_off || offset != right.offset) {
            if !self.clock_set {
                self.clock_set = true;
                self.notes.push_back(Note::ClockOff { by });
                return self.ask(Request::Clock(right));
            }
            if !matches!(self.task, Task::Look | Task::Read) {
                let message = match is_off {
                    true => {
                        "the lock's clock does not stay as it is set; its windows would be wrong".to_owned()
                    }
                    false => format!(
                        "the lock keeps its local time at {offset}, its zone here has {}: set the lock's zone, or its \
                         `time_zone` in the configuration",
                        right.offset
                    ),
                };
                return self.end(Came::NotDone(Refusal::new(Code::Rejected, message)));
            }
        }
        match self.task.clone() {
            Task::Look => self.end(Came::Done),
            Task::Read => self.ask(Request::Table { from: 1 }),
            Task::Watch { after } => self.ask(Request::Ledger { job: None, after }),
            Task::Do(command) => self.ask(command.request()),
            Task::Prove(Command::Unlock { job }) => self.ask(Request::Ledger { job: Some(job), after: 0 }),
            Task::Prove(Command::Put { .. } | Command::Remove { .. }) => self.ask(Request::Table { from: 1 }),
        }
    }

    fn refused(&mut self, request: &Request, no: &No) {
        let is_command = match request {
            Request::Put { .. } | Request::Delete { .. } | Request::Open { .. } => true,
            Request::State | Request::Clock(_) | Request::Table { .. } | Request::Ledger { .. } => false,
        };
        // Reading back is not what was ordered: a lock that does not show its memory says nothing of the command.
        if self.left && !is_command {
            return self.end_unanswered(Code::NoAnswer, "the lock did not show its memory");
        }
        if matches!(self.task, Task::Prove(_)) {
            let silent = Refusal::new(Code::NoAnswer, "the lock does not show its memory now");
            return self.end(Came::Doubt(silent));
        }
        let (code, word, message) = match no {
            No::Busy => {
                let busy =
                    Refusal::by_device(Code::DeviceBusy, "BUSY", "the lock is at work; it is tried again");
                return self.end(Came::NothingSent(busy));
            }
            No::Full => {
                (Code::SlotsFull, "FULL", "the lock has no free slot: remove an entry that is not needed")
            }
            No::Taken => {
                (Code::ContentTaken, "TAKEN", "another slot of the lock has this PIN or card: choose another")
            }
            No::Older => (Code::Superseded, "OLDER", "the lock has a later generation of this entry"),
            No::Format => (Code::Rejected, "FORMAT", "the lock takes no such PIN or card number"),
            No::Dates => (Code::BadDates, "DATES", "the lock takes no such window"),
            No::Other(word) => (Code::Rejected, word.as_str(), "the lock refuses it"),
        };
        self.end(Came::NotDone(Refusal::by_device(code, word, message)));
    }

    /// Judges the table, read to its end.
    fn compare(&mut self) {
        let shown = match self.task.command() {
            Some(Command::Put { entry, .. }) => self.found == [entry.clone()],
            Some(Command::Remove { .. }) => self.found.is_empty(),
            Some(Command::Unlock { .. }) | None => return,
        };
        let came = match (shown, &self.task) {
            (true, _) => Came::Done,
            (false, Task::Prove(_)) => {
                Came::NotDone(Refusal::new(Code::NoAnswer, "the lock's table does not show what was ordered"))
            }
            (false, _) => Came::Doubt(Refusal::new(
                Code::ProtocolViolation,
                "the lock says that it is done, and its table does not show what was ordered",
            )),
        };
        self.end(came);
    }

    fn expire(&mut self, now: Instant) {
        if matches!(self.state, At::Asked { until, .. } if until <= now) {
            self.end_unanswered(Code::NoAnswer, "the lock did not answer");
        }
    }
}

impl Session for Conversation {
    type Done = Came;
    type Note = Note;
    const PRIVATE: bool = true;

    fn poll(&mut self, now: Instant) -> Output<Came, Note> {
        self.begun.get_or_insert(now);
        // A peer that never stops sending would keep the shell from ever reporting a timeout.
        self.expire(now);
        if let Some(note) = self.notes.pop_front() {
            return Output::Note(note);
        }
        match &self.state {
            At::Ask(request) => {
                let request = request.clone();
                let is_command =
                    matches!(request, Request::Put { .. } | Request::Delete { .. } | Request::Open { .. });
                if is_command && !self.left {
                    self.left = true;
                    return Output::Note(Note::Leaves);
                }
                // The bound on pages keeps it far below the end.
                self.number += 1;
                let bytes = encode(&request.body(self.number));
                self.state = At::Asked { request, until: now + self.manners.answer_timeout };
                Output::Write(bytes)
            }
            At::Asked { until, .. } => Output::Wait { until: *until },
            At::Over(came) => Output::Done(came.clone()),
        }
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Timeout => self.expire(now),
            Input::Closed => match self.state {
                At::Over(_) => {}
                At::Ask(_) | At::Asked { .. } => {
                    self.end_unanswered(Code::LineLost, "the connection to the lock closed");
                }
            },
            Input::Bytes(bytes) => {
                self.buffer.extend_from_slice(bytes);
                loop {
                    let decoded = decode(&self.buffer);
                    let used = match &decoded {
                        Decoded::Need => break,
                        Decoded::Noise { used } | Decoded::Damaged { used } | Decoded::Frame { used, .. } => {
                            *used
                        }
                    };
                    self.buffer.drain(..used);
                    self.hear(now, &decoded);
                }
            }
        }
    }
}
