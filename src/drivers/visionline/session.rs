//! One conversation with a server: a command, and its answer. No IO, no clock.
//!
//! ```text
//! TCP     us      CCA;…  0D 0A            the command leaves: from here on silence is a doubt
//!         server  CCA;…;RCn;  0D 0A       done, refused, or (85) not yet
//!
//! serial  us      02 CCA;…  check 03      the command leaves
//!         server  06 | 15                 15: refused, send again
//!         server  the answer              nothing acknowledges it
//! ```

use std::time::{Duration, Instant};

use super::{
    answer::{self, Answer, CardShown},
    codec::{Decoded, Framing, Text, decode, decode_rest},
    command::Command,
};
use crate::{
    model::{Code, Refusal},
    protocol::Stage,
    transport::{Input, Output, Session},
};

/// Sendings of one command over a serial line, each after a refusal.
const SENDINGS: u8 = 3;
/// Between a refusal and the next sending.
const PAUSE: Duration = Duration::from_millis(200);
/// An answer whose end is never said is over when nothing follows its last separator for so long.
const QUIET: Duration = Duration::from_millis(500);

/// How to talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// How the command is framed; a block is acknowledged, a line is not.
    pub framing: Framing,
    /// How long the server may take for the acknowledgement.
    pub ack_timeout: Duration,
    /// How long the answer may take, with the time a person needs to lay a card down.
    pub answer_timeout: Duration,
}

/// How a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What came of the command.
    pub result: Result,
    /// Whether an answer to it may still come on this line.
    pub answer_may_come: bool,
    /// Whether the other side said anything at all.
    pub heard: bool,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Result {
    /// No byte of it was written.
    NothingSent(Refusal),
    /// Not done, and the server said so; or it only reads, and nothing came.
    Refused(Refusal),
    /// A card may have been written.
    Doubt(Refusal),
    /// The card was written.
    Made {
        /// The chip's serial number in hex.
        serial: Option<String>,
    },
    /// A card was read.
    Read(CardShown),
}

/// One conversation.
///
/// It notes [`Stage::Sent`] right before the command is handed out for writing, and [`Stage::WaitingForCard`] once the
/// server has it.
#[derive(Debug)]
pub struct Conversation {
    command: Command,
    manners: Manners,
    state: State,
    buffer: Vec<u8>,
    heard: bool,
    /// Sendings so far.
    sendings: u8,
    /// Whether bytes without meaning came since the last sending.
    noisy: bool,
}

#[derive(Debug)]
enum State {
    /// The command is about to leave: first the note, then the bytes.
    Leave,
    Send,
    /// Over a serial line: until it is taken or refused.
    Sent {
        until: Instant,
    },
    /// Refused: until it is sent again.
    Pause {
        until: Instant,
    },
    Taken {
        until: Instant,
        noted: bool,
        /// Whether the server said that the answer is still to come.
        pending: bool,
        /// When what has come so far counts as the whole answer.
        quiet_at: Option<Instant>,
        /// Whether a NAK is all that came.
        is_refused: bool,
    },
    Over(Ending),
}

impl Conversation {
    /// A conversation about `command`, not begun.
    #[must_use]
    pub fn new(command: Command, manners: Manners) -> Self {
        Self {
            command,
            manners,
            state: State::Leave,
            buffer: Vec::new(),
            heard: false,
            sendings: 0,
            noisy: false,
        }
    }

    /// How long it may last at most.
    #[must_use]
    pub fn longest(&self) -> Duration {
        (self.manners.ack_timeout + PAUSE) * SENDINGS.into() + self.manners.answer_timeout
    }

    fn end(&mut self, result: Result, answer_may_come: bool) {
        self.state = State::Over(Ending { result, answer_may_come, heard: self.heard });
    }

    /// Ends without an answer that is understood after the command left: a doubt, unless it only reads.
    fn end_unanswered(&mut self, code: Code, message: &str) {
        let result = match self.command.writes() {
            true => {
                let message = format!("{message}; the card may have been written: read it");
                Result::Doubt(Refusal::new(code, message))
            }
            false => Result::Refused(Refusal::new(code, message)),
        };
        self.end(result, true);
    }

    fn expire(&mut self, now: Instant) {
        match self.state {
            State::Sent { until } if until <= now => {
                self.end_unanswered(Code::NoAnswer, "the server did not acknowledge the command");
            }
            State::Pause { until } if until <= now => self.state = State::Send,
            State::Taken { quiet_at: Some(quiet_at), .. } if quiet_at <= now => self.hear_rest(),
            State::Taken { until, pending, .. } if until <= now => {
                self.hear_rest();
                if matches!(self.state, State::Taken { .. }) {
                    let message = match pending {
                        true => "the server queued the command and said no more",
                        false => "the server did not answer the command",
                    };
                    self.end_unanswered(Code::NoAnswer, message);
                }
            }
            State::Leave
            | State::Send
            | State::Sent { .. }
            | State::Pause { .. }
            | State::Taken { .. }
            | State::Over(_) => {}
        }
    }

    /// What stands there is all that comes.
    fn hear_rest(&mut self) {
        let rest = self.rest();
        let is_nothing_else = self.buffer.is_empty();
        self.buffer.clear();
        let mut was_refused = false;
        if let State::Taken { quiet_at, is_refused, .. } = &mut self.state {
            *quiet_at = None;
            was_refused = std::mem::take(is_refused) && is_nothing_else;
        }
        if let Some(text) = rest {
            self.hear_text(&text);
        } else if was_refused {
            let message = "the server refused the command's bytes";
            self.end(Result::Refused(Refusal::new(Code::Rejected, message)), false);
        }
    }

    /// The answer, if what stands there can be all of it: without a result code it is not.
    fn rest(&self) -> Option<Text> {
        decode_rest(&self.buffer).filter(|text| text.items.iter().any(|item| item.starts_with("RC")))
    }

    fn hang_up(&mut self) {
        match &self.state {
            State::Leave => {
                let why = Refusal::new(Code::SystemOffline, "the line closed before the command left");
                self.end(Result::NothingSent(why), false);
            }
            // Each sending so far was refused.
            State::Pause { .. } => {
                let why = Refusal::new(Code::Rejected, "the server refused the command's bytes and hung up");
                self.end(Result::Refused(why), false);
            }
            State::Taken { .. } => {
                self.hear_rest();
                if matches!(self.state, State::Taken { .. }) {
                    self.end_unanswered(Code::LineLost, "the line closed before the answer");
                }
            }
            State::Send | State::Sent { .. } => {
                self.end_unanswered(Code::LineLost, "the line closed before the answer");
            }
            State::Over(_) => {}
        }
    }

    fn hear(&mut self, now: Instant, what: Decoded) {
        match (&self.state, what) {
            (State::Sent { .. }, Decoded::Ack) => self.take(now),
            // On a noisy line a NAK may be noise too, and sending again could write twice.
            (State::Sent { .. }, Decoded::Nak) if self.noisy => {
                self.end_unanswered(
                    Code::NoAnswer,
                    "the line is too noisy to tell whether the command was taken",
                );
            }
            (State::Sent { .. }, Decoded::Nak) if self.sendings < SENDINGS => {
                self.state = State::Pause { until: now + PAUSE };
            }
            (State::Sent { .. }, Decoded::Nak) => {
                let message = "the server refused the command's bytes each time; check the serial settings";
                self.end(Result::Refused(Refusal::new(Code::Rejected, message)), false);
            }
            // After a refusal nothing may come before we send again.
            (State::Pause { .. }, Decoded::Ack | Decoded::Text { .. } | Decoded::Noise { .. }) => self
                .end_unanswered(
                    Code::NoAnswer,
                    "the server refused the command's bytes and then went on talking",
                ),
            // Where nothing is acknowledged, a NAK is the answer; it is one only if it is all that comes.
            (State::Taken { pending: false, .. }, Decoded::Nak)
                if self.manners.framing == Framing::Line && !self.noisy =>
            {
                self.set_refused(true);
            }
            (State::Taken { .. }, Decoded::Text { text, .. }) => {
                self.noisy = true;
                self.set_refused(false);
                self.hear_text(&text);
            }
            (State::Taken { .. }, Decoded::Noise { .. }) => {
                self.noisy = true;
                self.set_refused(false);
            }
            // A text before our command was acknowledged is an answer of an earlier one, or of this one whose
            // acknowledgement was lost: after it a NAK tells nothing.
            (State::Sent { .. }, Decoded::Noise { .. } | Decoded::Text { .. }) => self.noisy = true,
            // What is left are controls out of turn.
            (_, _) => {}
        }
    }

    fn take(&mut self, now: Instant) {
        let until = now + self.manners.answer_timeout;
        self.state = State::Taken { until, noted: false, pending: false, quiet_at: None, is_refused: false };
    }

    fn set_refused(&mut self, to: bool) {
        if let State::Taken { is_refused, .. } = &mut self.state {
            *is_refused = to;
        }
    }

    fn hear_text(&mut self, text: &Text) {
        if text.is_damaged {
            return self.end_unanswered(Code::NoAnswer, "the server's answer arrived damaged");
        }
        match answer::read(&text.items, &self.command) {
            Answer::Foreign => {}
            Answer::Pending => {
                if let State::Taken { pending, .. } = &mut self.state {
                    *pending = true;
                }
            }
            Answer::Made { serial } => self.end(Result::Made { serial }, false),
            Answer::Read(card) => self.end(Result::Read(card), false),
            Answer::Refused(why) => self.end(Result::Refused(why), false),
            Answer::Doubt(why) => self.end(Result::Doubt(why), false),
        }
    }
}

impl Session for Conversation {
    type Done = Ending;
    type Note = Stage;
    /// Answers name guests.
    const PRIVATE: bool = true;

    fn poll(&mut self, now: Instant) -> Output<Ending, Stage> {
        // A peer that never stops sending would keep the shell from ever reporting a timeout.
        self.expire(now);
        match &mut self.state {
            State::Leave => {
                self.state = State::Send;
                Output::Note(Stage::Sent)
            }
            State::Send => {
                self.sendings += 1;
                self.noisy = false;
                // Half of something from before must not be taken for the beginning of the answer.
                self.buffer.clear();
                match self.manners.framing {
                    Framing::Line => self.take(now),
                    Framing::Block => self.state = State::Sent { until: now + self.manners.ack_timeout },
                }
                Output::Write(self.command.bytes(self.manners.framing))
            }
            State::Taken { noted, .. } if !*noted => {
                *noted = true;
                Output::Note(Stage::WaitingForCard)
            }
            State::Sent { until } | State::Pause { until } => Output::Wait { until: *until },
            State::Taken { until, quiet_at, .. } => {
                Output::Wait { until: quiet_at.map_or(*until, |quiet_at| quiet_at.min(*until)) }
            }
            State::Over(ending) => Output::Done(ending.clone()),
        }
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Timeout => self.expire(now),
            Input::Closed => self.hang_up(),
            Input::Bytes(bytes) => {
                self.heard = true;
                self.buffer.extend_from_slice(bytes);
                loop {
                    let decoded = decode(&self.buffer);
                    let used = match &decoded {
                        Decoded::Need => break,
                        Decoded::Ack | Decoded::Nak => 1,
                        Decoded::Noise { used } | Decoded::Text { used, .. } => *used,
                    };
                    self.buffer.drain(..used);
                    self.hear(now, decoded);
                }
                let may_be_all = self.rest().is_some();
                let is_empty = self.buffer.is_empty();
                if let State::Taken { quiet_at, is_refused, .. } = &mut self.state {
                    *quiet_at = (may_be_all || *is_refused && is_empty).then_some(now + QUIET);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
