//! One conversation with the lock server: poll, frame, acknowledgement, answer. No IO, no clock.
//!
//! ```text
//! us      05               ready?                    nothing of the command has left: NothingSent
//! server  06 | 15          15: ask again
//! us      02 … 03 check    the command leaves        from here on silence is a doubt
//! server  06 | 15          15: refused, poll and send again
//! server  02 … 03 check    done or refused           the answer
//! us      06 | 15          taken | say that again
//! ```

use std::time::{Duration, Instant};

use super::{
    answer::{self, Answer},
    codec::{ACK, Check, Control, Decoded, ENQ, NAK, Trailer, decode},
    command::Command,
};
use crate::{
    model::{Code, Refusal},
    protocol::Stage,
    transport::{Input, Output, Session},
};

/// Readiness polls before each sending of the frame.
const POLLS: u8 = 3;
/// Between a refusal and the next poll.
const PAUSE: Duration = Duration::from_millis(200);
/// Sendings of one frame, each after a refusal.
const SENDINGS: u8 = 3;
/// How long the server may take to say a damaged answer again.
const REREAD: Duration = Duration::from_secs(3);
/// How often it is asked to.
const REREADS: u8 = 3;

/// How to talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// How long the server may take for ACK or NAK.
    pub ack_timeout: Duration,
    /// How long the answer may take, counted from the ACK; with the time a person needs to lay a card down.
    pub answer_timeout: Duration,
    /// Whether the answer is acknowledged.
    pub ack_final: bool,
    /// What stands behind our frames.
    pub trailer: Trailer,
    /// Whether a lone `0F` is a NAK as well. The one known client of Amadeus compares with decimal 15, where all others have
    /// hexadecimal.
    pub takes_0f_for_nak: bool,
}

impl Manners {
    /// How long a conversation may take from its first byte to its end.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let sending = (self.ack_timeout + PAUSE) * u32::from(POLLS) + self.ack_timeout;
        sending * u32::from(SENDINGS) + self.answer_timeout + REREAD * u32::from(REREADS)
    }
}

/// How a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What came of the command.
    pub result: Result,
    /// What it means for the line.
    pub line: LineAfter,
    /// Whether the other side said anything at all.
    pub heard: bool,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Result {
    /// No byte of it was written.
    NothingSent(Refusal),
    /// Not done, and the server said so.
    Refused(Refusal),
    /// It may have been done.
    Doubt(Refusal),
    /// Done; the answer's fields.
    Done(Vec<String>),
}

/// What a conversation left behind on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineAfter {
    /// Nothing: the next one may begin.
    Quiet,
    /// Nobody answered the poll; at most a single late byte may come.
    Silent,
    /// An answer may still come and must not be taken for the next one's.
    AnswerMayCome,
    /// It is closed.
    Closed,
    /// It is closed, and the answer may still come once it is open again.
    ClosedUnanswered,
}

impl LineAfter {
    /// Whether an answer to this conversation's command may still come.
    #[must_use]
    pub fn answer_may_come(self) -> bool {
        match self {
            Self::AnswerMayCome | Self::ClosedUnanswered => true,
            Self::Quiet | Self::Silent | Self::Closed => false,
        }
    }
}

/// One conversation.
///
/// It notes [`Stage::Sent`] right before the frame is handed out for writing, and [`Stage::WaitingForCard`] when the
/// server took a command that needs a card.
#[derive(Debug)]
pub struct Conversation {
    command: Command,
    manners: Manners,
    state: State,
    buffer: Vec<u8>,
    /// Whether anything was received.
    heard: bool,
    /// Sendings of the frame so far.
    sendings: u8,
    /// Polls before the next sending, so far.
    polls: u8,
    /// Damaged answers so far.
    damaged: u8,
    /// Whether bytes without meaning came while a sending waited for its ACK.
    noisy: bool,
}

#[derive(Debug)]
enum State {
    Poll,
    Polled {
        until: Instant,
    },
    /// Between a NAK and the next poll.
    Pause {
        until: Instant,
    },
    /// The frame is about to leave: first the note, then the bytes.
    Leave,
    Send,
    Sent {
        until: Instant,
    },
    Accepted {
        until: Instant,
        noted: bool,
    },
    /// An answer was damaged: ask for it again.
    AskAgain,
    /// Acknowledge, then end.
    Acknowledge(Ending),
    Over(Ending),
}

impl Conversation {
    /// A conversation about `command`, not begun.
    #[must_use]
    pub fn new(command: Command, manners: Manners) -> Self {
        Self {
            command,
            manners,
            state: State::Poll,
            buffer: Vec::new(),
            heard: false,
            sendings: 0,
            polls: 0,
            damaged: 0,
            noisy: false,
        }
    }

    fn end(&mut self, result: Result, line: LineAfter) {
        self.state = State::Over(self.ending(result, line));
    }

    fn ending(&self, result: Result, line: LineAfter) -> Ending {
        Ending { result, line, heard: self.heard }
    }

    /// Ends without an answer after the frame may have been taken: a doubt, unless doing it again is harmless.
    fn end_unanswered(&mut self, code: Code, message: &str, line: LineAfter) {
        let result = if self.command.writes() {
            let advice = if self.command.takes_a_card() {
                "the card may have been written: read it"
            } else {
                "it may have been done: look it up in the lock system"
            };
            Result::Doubt(Refusal::new(code, format!("{message}; {advice}")))
        } else {
            Result::Refused(Refusal::new(code, message))
        };
        self.end(result, line);
    }

    /// Ends before the frame left, or after the server refused each sending of it.
    fn end_unsent(&mut self, refusal: Refusal, line: LineAfter) {
        let result = match self.sendings {
            0 => Result::NothingSent(refusal),
            _ => Result::Refused(refusal),
        };
        self.end(result, line);
    }

    fn expire(&mut self, now: Instant) {
        match self.state {
            State::Polled { until } if until <= now => self.end_unsent(
                Refusal::new(Code::SystemOffline, "the lock server does not answer the readiness poll"),
                LineAfter::Silent,
            ),
            State::Pause { until } if until <= now => self.state = State::Poll,
            State::Sent { until } if until <= now => {
                self.end_unanswered(
                    Code::NoAnswer,
                    "the lock server did not acknowledge the command",
                    LineAfter::AnswerMayCome,
                );
            }
            State::Accepted { until, .. } if until <= now => {
                let message = match self.damaged {
                    0 => "the lock server took the command and did not answer",
                    _ => "the lock server's answer arrived damaged",
                };
                self.end_unanswered(Code::NoAnswer, message, LineAfter::AnswerMayCome);
            }
            State::Poll
            | State::Polled { .. }
            | State::Pause { .. }
            | State::Leave
            | State::Send
            | State::Sent { .. }
            | State::Accepted { .. }
            | State::AskAgain
            | State::Acknowledge(_)
            | State::Over(_) => {}
        }
    }

    fn hang_up(&mut self) {
        match &self.state {
            State::Poll | State::Polled { .. } | State::Pause { .. } | State::Leave => self.end_unsent(
                Refusal::new(
                    Code::SystemOffline,
                    "the line to the lock server closed before the command left",
                ),
                LineAfter::Closed,
            ),
            State::Send | State::Sent { .. } | State::Accepted { .. } | State::AskAgain => {
                self.end_unanswered(
                    Code::LineLost,
                    "the line to the lock server closed before the answer",
                    LineAfter::ClosedUnanswered,
                );
            }
            State::Acknowledge(ending) | State::Over(ending) => {
                self.state = State::Over(Ending { line: LineAfter::Closed, ..ending.clone() });
            }
        }
    }

    fn hear(&mut self, now: Instant, what: Decoded) {
        match (&self.state, what) {
            (State::Polled { .. }, Decoded::Control(Control::Ack)) => self.state = State::Leave,
            (State::Polled { .. }, Decoded::Control(Control::Nak)) if self.polls < POLLS => {
                self.state = State::Pause { until: now + PAUSE };
            }
            (State::Polled { .. }, Decoded::Control(Control::Nak)) => self.end_unsent(
                Refusal::new(Code::EncoderBusy, "the lock server says that it is not ready"),
                LineAfter::Quiet,
            ),
            (State::Sent { .. }, Decoded::Control(Control::Ack)) => {
                self.state = State::Accepted {
                    until: now + self.manners.answer_timeout,
                    noted: false,
                };
            }
            // On a noisy line a NAK may be noise too, and sending again could write twice.
            (State::Sent { .. }, Decoded::Control(Control::Nak)) if self.noisy => self.end_unanswered(
                Code::NoAnswer,
                "the line is too noisy to tell whether the command was taken",
                LineAfter::AnswerMayCome,
            ),
            (State::Sent { .. }, Decoded::Control(Control::Nak)) if self.sendings < SENDINGS => {
                self.polls = 0;
                self.state = State::Pause { until: now + PAUSE };
            }
            (State::Sent { .. }, Decoded::Control(Control::Nak)) => self.end(
                Result::Refused(Refusal::new(
                    Code::Rejected,
                    "the lock server refused the command's bytes each time; check the serial settings and `lrc`",
                )),
                LineAfter::Quiet,
            ),
            (State::Sent { .. }, Decoded::Noise { .. }) => self.noisy = true,
            // After a NAK nothing else may come before we ask again.
            (
                State::Pause { .. },
                Decoded::Control(Control::Ack) | Decoded::Frame { .. } | Decoded::Noise { .. },
            ) if self.sendings > 0 => self.end_unanswered(
                Code::NoAnswer,
                "the lock server refused the command's bytes and then went on talking",
                LineAfter::AnswerMayCome,
            ),
            (State::Accepted { .. }, Decoded::Frame { fields, check, .. }) => {
                self.hear_answer(&fields, check);
            }
            // What is left are controls out of turn, noise, and frames before our command was taken: answers of
            // an earlier command.
            (_, _) => {}
        }
    }

    fn hear_answer(&mut self, fields: &[String], check: Check) {
        if check == Check::Bad {
            self.damaged += 1;
            if self.manners.ack_final && self.damaged <= REREADS {
                self.state = State::AskAgain;
            } else {
                self.end_unanswered(
                    Code::NoAnswer,
                    "the lock server's answer arrived damaged",
                    LineAfter::AnswerMayCome,
                );
            }
            return;
        }
        let (result, line) = match answer::read(fields, &self.command) {
            // An answer to something else.
            Answer::Foreign => return,
            Answer::Done(fields) => (Result::Done(fields), LineAfter::Quiet),
            Answer::Refused(_, refusal) => (Result::Refused(refusal), LineAfter::Quiet),
            Answer::Strange { what } => {
                let refusal = |code, message: &str| Refusal::by_device(code, short(&what), message);
                let result = if self.command.writes() {
                    Result::Doubt(refusal(
                        Code::NoAnswer,
                        "the lock server's answer is not understood; it may have been done",
                    ))
                } else {
                    Result::Refused(refusal(
                        Code::ProtocolViolation,
                        "the lock server's answer is not understood",
                    ))
                };
                (result, LineAfter::AnswerMayCome)
            }
        };
        let ending = self.ending(result, line);
        self.state = if self.manners.ack_final { State::Acknowledge(ending) } else { State::Over(ending) };
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(16).collect()
}

impl Session for Conversation {
    type Done = Ending;
    type Note = Stage;

    fn poll(&mut self, now: Instant) -> Output<Ending, Stage> {
        // A peer that never stops sending would keep the shell from ever reporting a timeout.
        self.expire(now);
        match &mut self.state {
            State::Poll => {
                self.polls += 1;
                self.state = State::Polled { until: now + self.manners.ack_timeout };
                Output::Write(vec![ENQ])
            }
            State::Leave => {
                self.state = State::Send;
                Output::Note(Stage::Sent)
            }
            State::Send => {
                self.sendings += 1;
                self.noisy = false;
                self.state = State::Sent { until: now + self.manners.ack_timeout };
                Output::Write(self.command.frame(self.manners.trailer))
            }
            State::Accepted { noted, .. } if !*noted && self.command.takes_a_card() => {
                *noted = true;
                Output::Note(Stage::WaitingForCard)
            }
            State::AskAgain => {
                self.state = State::Accepted { until: now + REREAD, noted: true };
                Output::Write(vec![NAK])
            }
            State::Acknowledge(ending) => {
                self.state = State::Over(ending.clone());
                Output::Write(vec![ACK])
            }
            State::Polled { until }
            | State::Pause { until }
            | State::Sent { until }
            | State::Accepted { until, .. } => Output::Wait { until: *until },
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
                    let decoded = match self.buffer.first() {
                        Some(0x0F) if self.manners.takes_0f_for_nak => Decoded::Control(Control::Nak),
                        _ => decode(&self.buffer),
                    };
                    let used = match &decoded {
                        Decoded::Need => break,
                        Decoded::Control(_) => 1,
                        Decoded::Noise { used } | Decoded::Frame { used, .. } => *used,
                    };
                    self.buffer.drain(..used);
                    self.hear(now, decoded);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
