//! One conversation with a lock: the handshake, then one command after another. No IO, no clock.
//!
//! ```text
//! handshake  hear secure · exchange · initialise · hear commands
//! Look       bolt (battery)
//! Put        bolt · clock · clear · PIN · access · commit · show    done only if the slot shows exactly this PIN
//! Remove     bolt · clear · show                                    done only if the slot shows nothing
//! Prove                     show
//! Read       show …
//! Move       bolt · unlock or lock                                  asked once; silence from here on is a doubt
//! Log        pop …
//! end        part                                                   unless it stays, done, for the next task
//! ```
//! `bolt` goes first although nothing depends on it: a lock that is not there then shows before a command can be in
//! doubt. What cannot be asked again without harm never is; a slot is asked again once, since a value that is lost takes
//! the next one with it.
//!
//! What the refusal of a change says last is what its slot holds. A refusal with [`Code::Auth`] before anything has left
//! says that the lock did not take the key: a fault of the radio looks the same, so it counts only when it happens again.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    codec::{
        self, Bad, COMMAND_NOTIFY, COMMAND_WRITE, Chains, Frame, Key, OfflineKey, SECURE_NOTIFY,
        SECURE_WRITE, Secure, SecureChannel, SecureOp,
    },
    message::{Access, Activity, Answer, Ask, Bolt, Command, Held, ResultCode, Slot, unix},
    task::{Before, Change, Task},
};
pub use crate::drivers::Came;
use crate::{
    model::{Code, Refusal},
    transport::ble::gatt::{Heard, Talk, Want, WriteKind},
};

/// Between an answer and the next command: some locks crash without it until their batteries are taken out.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the lock may take for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to say that it has a command that turns the motor.
const MOTOR_RECEIVED: Duration = Duration::from_secs(8);
/// How long the motor may take after that.
const MOTOR_DONE: Duration = Duration::from_secs(12);
/// How long its word to the end is waited for; nothing depends on it.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a conversation goes by.
#[derive(Debug, Clone)]
pub struct Manners {
    /// The lock's key.
    pub key: OfflineKey,
    /// 16 random bytes, never used before.
    pub nonces: Key,
    /// What time it is when the conversation is begun.
    pub now: Timestamp,
}

/// What a conversation tells on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// How the bolt is.
    Bolt(Bolt),
    /// How the battery is.
    Battery {
        /// Its voltage.
        millivolts: u16,
    },
    /// The first command that changes anything leaves now.
    Leaves,
    /// What a slot holds.
    Slot {
        /// Which.
        slot: Slot,
        /// What.
        holds: Held,
    },
    /// Something happened at the lock, which remembers it no more.
    Happened(Activity),
}

/// One conversation.
pub struct Conversation {
    task: Task,
    manners: Manners,
    begun: Option<Instant>,
    state: At,
    secure: SecureChannel,
    chains: Option<Chains>,
    notes: VecDeque<Note>,
    plan: VecDeque<Command>,
    /// [`Note::Leaves`] was told.
    told: bool,
    /// A command that changes anything was handed out for writing.
    left: bool,
    /// The last command of a change was not answered.
    silent: bool,
    slot_is: SlotIs,
    /// Things that happened, as far as the lock has told.
    popped: u32,
    /// The session is not ended behind a task that was done.
    stays: bool,
    /// The lock takes no command before this.
    rests_until: Option<Instant>,
}

enum At {
    /// Takes up a task, or leaves, in a session that stands.
    Follow,
    Leave,
    Listen(uuid::Uuid),
    Listening(uuid::Uuid),
    Greet(SecureOp),
    Greeted {
        with: SecureOp,
        until: Instant,
    },
    Ask {
        command: Command,
        again: bool,
        from: Instant,
    },
    Asked {
        command: Command,
        again: bool,
        received: bool,
        until: Instant,
    },
    Part {
        came: Came,
        from: Instant,
    },
    Parted {
        came: Came,
        until: Instant,
    },
    Over(Came),
}

/// What is known of the slot of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotIs {
    AsBefore,
    AsBeforeOrEmpty,
    Empty,
    EmptyOrNew,
    New,
    Unknown,
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").field("task", &self.task).finish_non_exhaustive()
    }
}

impl Conversation {
    /// A conversation, not begun.
    #[must_use]
    pub fn new(task: Task, manners: Manners) -> Self {
        Self {
            plan: task.plan().into(),
            secure: SecureChannel::new(&manners.key.key),
            task,
            manners,
            begun: None,
            state: At::Listen(SECURE_NOTIFY),
            chains: None,
            notes: VecDeque::new(),
            told: false,
            left: false,
            silent: false,
            slot_is: SlotIs::AsBefore,
            popped: 0,
            stays: false,
            rests_until: None,
        }
    }

    /// The same, which leaves the session with the lock as it is once the task is done: for [`Self::follow`], or
    /// [`Self::part`].
    #[must_use]
    pub fn staying(mut self) -> Self {
        self.stays = true;
        self
    }

    /// Whether the task is done and the session with the lock stands.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.stays && self.chains.is_some() && matches!(self.state, At::Over(Came::Done))
    }

    /// Takes up another task in a session that [stands](Self::stands); `now` is the time when it is begun.
    pub fn follow(&mut self, task: Task, now: Timestamp) {
        self.plan = task.plan().into();
        self.task = task;
        self.manners.now = now;
        self.begun = None;
        self.told = false;
        self.left = false;
        self.silent = false;
        self.slot_is = SlotIs::AsBefore;
        self.popped = 0;
        self.state = At::Follow;
    }

    /// Ends a session that [stands](Self::stands), in order.
    pub fn part(&mut self) {
        self.state = At::Leave;
    }

    fn write_secure(&self, op: SecureOp) -> Want<Came, Note> {
        let (first, second) = self.manners.nonces.halves();
        let (data, key_slot) = match op {
            SecureOp::Exchange => (first, self.manners.key.slot),
            SecureOp::Initialise => (second, self.manners.key.slot),
            _ => ([0; 8], 0),
        };
        let value = self.secure.seal(&Secure::ours(op, data, key_slot)).to_vec();
        Want::Write { to: SECURE_WRITE, value, kind: WriteKind::Request }
    }

    /// Hands a command out for writing.
    fn write(&mut self, now: Instant, mut command: Command, again: bool) -> Want<Came, Note> {
        if let Command::SetClock(to) = &mut command {
            let passed = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
            let Some(right) = self.manners.now.checked_add(passed).ok().and_then(unix) else {
                let message = "the clock here shows a time that the lock cannot keep";
                self.end(now, Came::NothingSent(Refusal::new(Code::BadDates, message)));
                return self.poll(now);
            };
            *to = right;
        }
        if command.changes() && !self.told {
            self.told = true;
            self.state = At::Ask { command, again, from: now };
            return Want::Note(Note::Leaves);
        }
        let Some(chains) = &mut self.chains else {
            // The plan is begun after the handshake only.
            let came = self.unanswered_came(Code::ProtocolViolation, "there is no session with the lock");
            self.state = At::Over(came.clone());
            return Want::Done(came);
        };
        let value = chains.seal(&command.frame()).to_vec();
        self.left |= command.changes();
        match command {
            Command::Clear(_) => self.slot_is = SlotIs::AsBeforeOrEmpty,
            Command::Commit { .. } => self.slot_is = SlotIs::EmptyOrNew,
            _ => {}
        }
        let patience = if command.turns() { MOTOR_RECEIVED } else { ANSWER };
        self.state = At::Asked { command, again, received: false, until: now + patience };
        Want::Write { to: COMMAND_WRITE, value, kind: WriteKind::Request }
    }

    /// The next command of the plan.
    fn go_on(&mut self, now: Instant, from: Instant) {
        match self.plan.pop_front() {
            Some(command) => self.state = At::Ask { command, again: false, from },
            None => self.end(now, Came::Done),
        }
    }

    /// Ends in order, where there is a session to end.
    fn end(&mut self, now: Instant, came: Came) {
        self.state = match &self.chains {
            Some(_) if self.stays && came == Came::Done => {
                self.rests_until = Some(now + PAUSE);
                At::Over(came)
            }
            Some(_) => At::Part { came, from: now + PAUSE },
            None => At::Over(came),
        };
    }

    fn key_rejected(&mut self) {
        let refusal = Refusal::new(
            Code::Auth,
            "the lock does not take the key: ask for a fresh one if it says so again",
        );
        self.state = At::Over(Came::NothingSent(refusal));
    }

    fn hear_secure(&mut self, value: &[u8]) {
        let heard = match self.secure.open(value) {
            Err(Bad::Length(_)) => return,
            Err(Bad::Check) => None,
            Ok(frame) => Some(frame),
        };
        match (&self.state, heard) {
            (
                At::Greeted { with: SecureOp::Exchange, .. },
                Some(Secure { op: SecureOp::Exchanged, data, .. }),
            ) => {
                let key = codec::session_key(self.manners.nonces.halves().0, data);
                self.secure = SecureChannel::new(&key);
                self.chains = Some(Chains::new(&key));
                self.state = At::Greet(SecureOp::Initialise);
            }
            (
                At::Greeted { with: SecureOp::Initialise, .. },
                Some(Secure { op: SecureOp::Initialised, .. }),
            ) => {
                self.state = At::Listen(COMMAND_NOTIFY);
            }
            (At::Greeted { .. }, _) => self.key_rejected(),
            (At::Parted { came, .. }, Some(Secure { op: SecureOp::Parted, .. })) => {
                self.state = At::Over(came.clone());
            }
            _ => {}
        }
    }

    fn hear(&mut self, now: Instant, frame: &Frame) {
        let At::Asked { command, received, until, .. } = &mut self.state else {
            return;
        };
        match command.answer(frame) {
            None => {}
            Some(Answer::Received) => {
                if command.turns() && !*received {
                    *until = now + MOTOR_DONE;
                }
                *received = true;
            }
            Some(answer) => {
                let command = command.clone();
                self.answered(now, &command, answer);
            }
        }
    }

    fn answered(&mut self, now: Instant, command: &Command, answer: Answer) {
        let next = now + PAUSE;
        match (command, answer) {
            (Command::ReadSlot(slot), Answer::Holds(holds)) => self.shown(now, *slot, holds),
            (Command::ReadSlot(slot), Answer::No(ResultCode::NOT_FOUND)) => {
                self.shown(now, *slot, Held::Nothing);
            }
            (Command::Clear(_), Answer::Done | Answer::No(ResultCode::NOT_FOUND)) => {
                self.slot_is = SlotIs::Empty;
                self.go_on(now, next);
            }
            // It has none that can be read.
            (Command::Status(Ask::Battery), Answer::No(_)) => self.go_on(now, next),
            (_, Answer::No(code)) => self.refused(now, command, code),
            (Command::Commit { .. }, Answer::Done) => {
                self.slot_is = SlotIs::New;
                self.go_on(now, next);
            }
            (_, Answer::Activity(Some(activity))) => {
                self.notes.push_back(Note::Happened(activity));
                self.popped += 1;
                if matches!(self.task, Task::Log { at_most } if self.popped < at_most) {
                    self.plan.push_back(Command::PopActivity);
                }
                self.go_on(now, next);
            }
            (_, Answer::Activity(None)) => self.end(now, Came::Done),
            (_, Answer::Bolt(bolt)) => {
                self.notes.push_back(Note::Bolt(bolt));
                self.go_on(now, next);
            }
            (_, Answer::Battery { millivolts }) => {
                self.notes.push_back(Note::Battery { millivolts });
                self.go_on(now, next);
            }
            (_, Answer::Done) => self.go_on(now, next),
            // No plan asks for these.
            (
                _,
                Answer::Received
                | Answer::Door(_)
                | Answer::Both(..)
                | Answer::AutoLock(_)
                | Answer::Holds(_),
            ) => {}
        }
    }

    /// A slot is read.
    fn shown(&mut self, now: Instant, slot: Slot, holds: Held) {
        let shown = match &holds {
            Held::Nothing => "nothing",
            Held::Pin(_) => "another PIN",
            Held::Strange => "what is no PIN",
        };
        let is_shown = |change: &Change| change.is_shown(&holds);
        let came = match &self.task {
            Task::Change(change) if is_shown(change) => Came::Done,
            Task::Change(_) if self.silent => Came::Doubt(Refusal::new(
                Code::NoAnswer,
                format!("the lock did not answer the last command; slot {slot} shows {shown}"),
            )),
            Task::Change(_) => Came::Doubt(Refusal::new(
                Code::ProtocolViolation,
                format!("the lock says that it is done; slot {slot} shows {shown}"),
            )),
            Task::Prove(change @ Change::Put { .. }, Before::Unknown) if is_shown(change) => {
                let message = "shows this PIN, which may have been there before, and not when it holds";
                Came::Doubt(Refusal::new(Code::NoAnswer, format!("slot {slot} {message}")))
            }
            Task::Prove(change, _) if is_shown(change) => Came::Done,
            Task::Prove(..) => {
                Came::NotDone(Refusal::new(Code::NoAnswer, format!("slot {slot} shows {shown}")))
            }
            Task::Read(_) | Task::Look { .. } | Task::Move(_) | Task::Log { .. } => {
                self.notes.push_back(Note::Slot { slot, holds });
                return self.go_on(now, now + PAUSE);
            }
        };
        self.notes.push_back(Note::Slot { slot, holds });
        self.end(now, came);
    }

    fn refused(&mut self, now: Instant, command: &Command, code: ResultCode) {
        let word = format!("{:02X}", code.0);
        // Looking at the slot is not what was ordered: it says nothing of the change.
        if let (Command::ReadSlot(slot), Task::Change(_) | Task::Prove(..)) = (command, &self.task) {
            let name = code.name();
            let message = format!("the lock does not show slot {slot} ({name}){}", self.slot_words());
            return self.end(now, Came::Doubt(Refusal::by_device(Code::NoAnswer, word, message)));
        }
        match (command, code) {
            (_, ResultCode::TIMEOUT) => {}
            (Command::Clear(_), _) => self.slot_is = SlotIs::AsBefore,
            (Command::Commit { .. }, ResultCode::SLOT_IN_USE) => self.slot_is = SlotIs::Unknown,
            (Command::Commit { .. }, _) => self.slot_is = SlotIs::Empty,
            _ => {}
        }
        let is_window = matches!(command, Command::SetAccess(Access::Window { .. } | Access::Weekly { .. }));
        let (kind, message) = match code.0 {
            0x01 | 0x03 | 0x38 => (Code::Auth, "the lock does not let this key do it".to_owned()),
            0x04 => (Code::Rejected, "the lock's keypad is switched off".to_owned()),
            0x05 if is_window => {
                (Code::Unsupported, "the lock takes no PIN that holds for a time only".to_owned())
            }
            0x05 => (Code::Rejected, "the lock does not take when the PIN holds".to_owned()),
            0x06 => (Code::ContentTaken, "another slot of the lock has this PIN: choose another".to_owned()),
            0x07 => (Code::SlotsFull, "the lock has no free slot: remove one that is not needed".to_owned()),
            0x1e..=0x23 => (Code::Rejected, format!("the bolt did not turn as it should ({})", code.name())),
            0x32 => (Code::Rejected, "the lock's batteries are too low: change them".to_owned()),
            0x33 => (Code::DeviceBusy, "the lock's motor is too hot".to_owned()),
            0x39 | 0x3e => (Code::DeviceBusy, "the lock is at work".to_owned()),
            _ => (Code::Rejected, format!("the lock refuses it ({})", code.name())),
        };
        let refusal = Refusal::by_device(kind, word, format!("{message}{}", self.slot_words()));
        let came = match kind {
            // Where the bolt stopped nobody knows.
            _ if code == ResultCode::TIMEOUT && command.changes() => {
                Came::Doubt(Refusal { code: Code::NoAnswer, ..refusal })
            }
            Code::Auth | Code::DeviceBusy if !self.left => Came::NothingSent(refusal),
            _ => Came::NotDone(refusal),
        };
        self.end(now, came);
    }

    /// What a refusal says last.
    fn slot_words(&self) -> String {
        let Task::Change(change) = &self.task else {
            return String::new();
        };
        let words = match self.slot_is {
            SlotIs::AsBefore => "is as before",
            SlotIs::AsBeforeOrEmpty => "is as before, or empty now",
            SlotIs::Empty => "is empty now",
            SlotIs::EmptyOrNew => "is empty now, or holds the PIN",
            SlotIs::New => "holds the PIN, as far as the lock says",
            SlotIs::Unknown => "holds what nobody knows",
        };
        format!("; slot {} {words}", change.slot())
    }

    fn unanswered_came(&self, code: Code, message: &str) -> Came {
        match self.left {
            false => Came::NothingSent(Refusal::new(Code::DeviceOffline, message)),
            true => Came::Doubt(Refusal::new(code, format!("{message}{}", self.slot_words()))),
        }
    }

    /// The lock did not answer in time.
    fn expire(&mut self, now: Instant) {
        match &self.state {
            At::Greeted { until, .. } if *until <= now => {
                self.state = At::Over(self.unanswered_came(Code::NoAnswer, "the lock did not answer"));
            }
            At::Asked { command, again, until, .. } if *until <= now => {
                let (command, again, next) = (command.clone(), *again, now + PAUSE);
                match (&command, &self.task) {
                    (Command::Status(Ask::Battery), _) => self.go_on(now, next),
                    (Command::ReadSlot(_), _) if !again => {
                        self.state = At::Ask { command, again: true, from: next };
                    }
                    (_, Task::Change(change)) if change.ends_with(&command) => {
                        self.silent = true;
                        self.go_on(now, next);
                    }
                    _ => {
                        let came = self.unanswered_came(Code::NoAnswer, "the lock did not answer");
                        self.end(now, came);
                    }
                }
            }
            At::Parted { came, until } if *until <= now => self.state = At::Over(came.clone()),
            _ => {}
        }
    }

    /// The lock refused a write or a subscription, which had no effect.
    fn write_refused(&mut self, now: Instant) {
        match &self.state {
            At::Listening(_) => {
                self.state = At::Over(Came::NothingSent(Refusal::new(
                    Code::DeviceOffline,
                    "the lock does not let itself be listened to",
                )));
            }
            At::Greeted { .. } => self.key_rejected(),
            At::Asked { command, .. } => {
                match command {
                    Command::Clear(_) => self.slot_is = SlotIs::AsBefore,
                    Command::Commit { .. } => self.slot_is = SlotIs::Empty,
                    _ => {}
                }
                let changes = command.changes();
                let message = "the lock does not take the command";
                let came = match changes {
                    true => {
                        let message = format!("{message}{}", self.slot_words());
                        Came::NotDone(Refusal::new(Code::Rejected, message))
                    }
                    false => self.unanswered_came(Code::NoAnswer, message),
                };
                self.end(now, came);
            }
            At::Parted { came, .. } => self.state = At::Over(came.clone()),
            At::Follow
            | At::Leave
            | At::Listen(_)
            | At::Greet(_)
            | At::Ask { .. }
            | At::Part { .. }
            | At::Over(_) => {}
        }
    }

    fn closed(&mut self) {
        let came = match &self.state {
            At::Over(_) => return,
            At::Leave => Came::Done,
            At::Part { came, .. } | At::Parted { came, .. } => came.clone(),
            At::Follow
            | At::Listen(_)
            | At::Listening(_)
            | At::Greet(_)
            | At::Greeted { .. }
            | At::Ask { .. }
            | At::Asked { .. } => self.unanswered_came(Code::LineLost, "the connection to the lock was lost"),
        };
        self.state = At::Over(came);
    }
}

impl Talk for Conversation {
    type Done = Came;
    type Note = Note;

    fn poll(&mut self, now: Instant) -> Want<Came, Note> {
        self.begun.get_or_insert(now);
        // A peer that never stops sending would keep the shell from ever reporting a timeout.
        self.expire(now);
        if let Some(note) = self.notes.pop_front() {
            return Want::Note(note);
        }
        match self.state {
            At::Follow => self.go_on(now, self.rests_until.unwrap_or(now)),
            At::Leave => {
                self.state = At::Part { came: Came::Done, from: self.rests_until.unwrap_or(now) };
            }
            At::Listening(SECURE_NOTIFY) => self.state = At::Greet(SecureOp::Exchange),
            At::Listening(_) => self.go_on(now, now),
            _ => {}
        }
        match &self.state {
            // Begun or left above.
            At::Follow | At::Leave => Want::Wait { until: now },
            At::Listen(from) | At::Listening(from) => {
                let from = *from;
                self.state = At::Listening(from);
                Want::Subscribe(from)
            }
            At::Greet(with) => {
                let with = *with;
                self.state = At::Greeted { with, until: now + ANSWER };
                self.write_secure(with)
            }
            At::Ask { from, .. } | At::Part { from, .. } if now < *from => Want::Wait { until: *from },
            At::Ask { command, again, .. } => {
                let (command, again) = (command.clone(), *again);
                self.write(now, command, again)
            }
            At::Part { came, .. } => {
                self.state = At::Parted { came: came.clone(), until: now + FAREWELL };
                self.write_secure(SecureOp::Part)
            }
            At::Greeted { until, .. } | At::Asked { until, .. } | At::Parted { until, .. } => {
                Want::Wait { until: *until }
            }
            At::Over(came) => Want::Done(came.clone()),
        }
    }

    fn handle(&mut self, now: Instant, heard: Heard<'_>) {
        match heard {
            Heard::Value { from: SECURE_NOTIFY, value } => self.hear_secure(value),
            Heard::Value { from: COMMAND_NOTIFY, value } => {
                // Whatever it is about, the chain goes on.
                if let Some(Ok(frame)) = self.chains.as_mut().map(|chains| chains.open(value)) {
                    self.hear(now, &frame);
                }
            }
            Heard::Value { .. } => {}
            Heard::Refused => self.write_refused(now),
            Heard::Timeout => self.expire(now),
            Heard::Closed => self.closed(),
        }
    }
}

#[cfg(test)]
mod tests;
