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
    answer::{self, Answer, ErrorCode},
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
        Ending {
            result,
            line,
            heard: self.heard,
        }
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
                Refusal::new(
                    Code::SystemOffline,
                    "the lock server does not answer the readiness poll",
                ),
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
                    LineAfter::Closed,
                );
            }
            State::Acknowledge(ending) | State::Over(ending) => {
                self.state = State::Over(Ending {
                    line: LineAfter::Closed,
                    ..ending.clone()
                });
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
            (_, what) => {
                if let Decoded::Frame { .. } = what {
                    tracing::debug!("a frame out of turn was discarded");
                }
            }
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
            Answer::Foreign => {
                tracing::debug!("an answer to something else was discarded");
                return;
            }
            Answer::Done(fields) => (Result::Done(fields), LineAfter::Quiet),
            Answer::Refused(code, refusal) => {
                if code == ErrorCode::Es {
                    tracing::error!(
                        command = self.command.mnemonic(),
                        "the lock server reports a syntax error"
                    );
                }
                (Result::Refused(refusal), LineAfter::Quiet)
            }
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
        self.state = if self.manners.ack_final {
            State::Acknowledge(ending)
        } else {
            State::Over(ending)
        };
    }
}

fn short(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(16)
        .collect()
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
                self.state = State::Polled {
                    until: now + self.manners.ack_timeout,
                };
                Output::Write(vec![ENQ])
            }
            State::Leave => {
                self.state = State::Send;
                Output::Note(Stage::Sent)
            }
            State::Send => {
                self.sendings += 1;
                self.noisy = false;
                self.state = State::Sent {
                    until: now + self.manners.ack_timeout,
                };
                Output::Write(self.command.frame(self.manners.trailer))
            }
            State::Accepted { noted, .. } if !*noted && self.command.takes_a_card() => {
                *noted = true;
                Output::Note(Stage::WaitingForCard)
            }
            State::AskAgain => {
                self.state = State::Accepted {
                    until: now + REREAD,
                    noted: true,
                };
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
                    let decoded = decode(&self.buffer);
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
mod tests {
    use jiff::civil;
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::salto_is::{
        codec::{LONGEST, encode},
        command::{DateForm, Eject, Serials, Stay, WriteCard},
    };

    const WRITTEN: &str = "CN1|1|04A1";
    const SEEN: &str = "LT|1|LM";

    #[test]
    fn a_card_is_written_and_the_answer_acknowledged() {
        check(
            write_card(),
            "ack ack 1m answer=CN1|1|04A1",
            "enq leaves frame card? ack",
            "done quiet",
        );
    }

    #[test]
    fn without_ack_final_the_answer_is_not_acknowledged() {
        let manners = Manners {
            ack_final: false,
            ..manners()
        };
        check_with(
            manners,
            write_card(),
            "ack ack answer=CN|1",
            "enq leaves frame card?",
            "done quiet",
        );
    }

    #[test]
    fn a_command_without_a_card_does_not_ask_for_one() {
        check(
            check_out(),
            "ack ack answer=CO|0|101",
            "enq leaves frame ack",
            "done quiet",
        );
    }

    #[test]
    fn the_server_may_be_busy_twice_and_a_third_time_ends_it_with_nothing_sent() {
        let polls = "enq enq enq";
        check(
            write_card(),
            "nak 200ms nak 200ms ack ack answer=CN1|1",
            &format!("{polls} leaves frame card? ack"),
            "done quiet",
        );
        check(
            write_card(),
            "nak 200ms nak 200ms nak",
            polls,
            "nothing_sent:encoder_busy quiet",
        );
    }

    #[test]
    fn silence_or_a_hang_up_before_the_frame_proves_that_nothing_was_sent() {
        for (script, end) in [
            ("5s", "nothing_sent:system_offline silent"),
            ("answer=CN1|1|04A1 5s", "nothing_sent:system_offline silent"),
            ("noise 5s", "nothing_sent:system_offline silent"),
            ("close", "nothing_sent:system_offline closed"),
        ] {
            check(write_card(), script, "enq", end);
        }
        check(
            write_card(),
            "nak close",
            "enq",
            "nothing_sent:system_offline closed",
        );
    }

    #[test]
    fn silence_after_the_frame_is_a_doubt_for_what_writes_and_a_failure_for_a_reading() {
        for (command, end) in [
            (write_card(), "doubt:no_answer"),
            (check_out(), "doubt:no_answer"),
            (modify_stay(), "doubt:no_answer"),
            (read_card(), "refused:no_answer"),
        ] {
            let end = format!("{end} answer_may_come");
            check(command.clone(), "ack 5s", "enq leaves frame", &end);
            let asked = if command.takes_a_card() { " card?" } else { "" };
            check(command, "ack ack 75s", &format!("enq leaves frame{asked}"), &end);
        }
    }

    #[test]
    fn a_hang_up_after_the_frame_is_a_doubt_for_what_writes_and_a_failure_for_a_reading() {
        for (command, end) in [
            (write_card(), "doubt:line_lost closed"),
            (check_out(), "doubt:line_lost closed"),
            (modify_stay(), "doubt:line_lost closed"),
            (read_card(), "refused:line_lost closed"),
        ] {
            check(command, "ack close", "enq leaves frame", end);
        }
        check(
            write_card(),
            "ack ack close",
            "enq leaves frame card?",
            "doubt:line_lost closed",
        );
    }

    #[test]
    fn the_answer_counts_although_its_acknowledgement_did_not_go_through() {
        let mut stage = Rehearsal::new(manners(), write_card());
        stage.play("ack ack");
        stage
            .conversation
            .handle(stage.now, Input::Bytes(&frame(WRITTEN)));
        assert_eq!(stage.conversation.poll(stage.now), Output::Write(vec![ACK]));
        stage.conversation.handle(stage.now, Input::Closed);
        stage.go();
        assert_eq!(stage.end(), "done closed");
    }

    #[test]
    fn a_refused_frame_is_sent_again_after_a_poll_and_three_times_at_most() {
        let once = "enq leaves frame";
        check(
            write_card(),
            "ack nak 200ms ack ack answer=CN1|1",
            &format!("{once} {once} card? ack"),
            "done quiet",
        );
        check(
            write_card(),
            "ack nak 200ms ack nak 200ms ack nak",
            &[once; 3].join(" "),
            "refused:rejected quiet",
        );
        // Refused, and then not ready or gone: proven not done, but bytes have left.
        check(
            write_card(),
            "ack nak 200ms nak 200ms nak 200ms nak",
            &format!("{once} enq enq enq"),
            "refused:encoder_busy quiet",
        );
        check(
            write_card(),
            "ack nak 200ms close",
            &format!("{once} enq"),
            "refused:system_offline closed",
        );
    }

    #[test]
    fn a_refusal_that_may_be_noise_never_sends_the_frame_again() {
        check(
            write_card(),
            "ack noise nak",
            "enq leaves frame",
            "doubt:no_answer answer_may_come",
        );
        check(
            write_card(),
            "ack nak ack",
            "enq leaves frame",
            "doubt:no_answer answer_may_come",
        );
        check(
            write_card(),
            "ack nak answer=CN1|1",
            "enq leaves frame",
            "doubt:no_answer answer_may_come",
        );
        check(
            write_card(),
            "ack ack nak answer=CN1|1",
            "enq leaves frame card? ack",
            "done quiet",
        );
    }

    #[test]
    fn a_frame_before_our_acknowledgement_is_an_old_answer_and_is_discarded() {
        check(
            write_card(),
            "answer=CN1|1|OLD ack answer=CN1|1|OLD ack answer=CN1|1|04A1",
            "enq leaves frame card? ack",
            "done quiet",
        );
        check(
            write_card(),
            "ack answer=CN1|1|OLD 5s",
            "enq leaves frame",
            "doubt:no_answer answer_may_come",
        );
    }

    #[test]
    fn an_answer_to_another_command_or_encoder_is_discarded() {
        check(
            read_card(),
            "ack ack answer=CN1|1|04A1 answer=LT|2|LM answer=ED|2 noise answer=LT|1|LM",
            "enq leaves frame card? ack",
            "done quiet",
        );
    }

    #[test]
    fn a_refusal_of_the_server_ends_it_definitely() {
        check(
            write_card(),
            "ack ack answer=ED|1",
            "enq leaves frame card? ack",
            "refused:no_card quiet",
        );
        check(
            write_card(),
            "ack ack answer=OV|1",
            "enq leaves frame card? ack",
            "refused:encoder_busy quiet",
        );
        check(
            check_out(),
            "ack ack answer=TD|0",
            "enq leaves frame ack",
            "refused:room_unknown quiet",
        );
    }

    #[test]
    fn an_answer_that_is_not_understood_is_no_success() {
        check(
            write_card(),
            "ack ack answer=QQ|1",
            "enq leaves frame card? ack",
            "doubt:no_answer answer_may_come",
        );
        check(
            read_card(),
            "ack ack answer=QQ|1",
            "enq leaves frame card? ack",
            "refused:protocol_violation answer_may_come",
        );
    }

    #[test]
    fn a_damaged_answer_is_asked_for_again_three_times_and_is_then_a_doubt() {
        let asked = "enq leaves frame card?";
        check(
            write_card(),
            "ack ack damaged 2s answer=CN1|1",
            &format!("{asked} nak ack"),
            "done quiet",
        );
        check(
            write_card(),
            "ack ack damaged damaged damaged damaged",
            &format!("{asked} nak nak nak"),
            "doubt:no_answer answer_may_come",
        );
        check(
            write_card(),
            "ack ack damaged 3s",
            &format!("{asked} nak"),
            "doubt:no_answer answer_may_come",
        );
        let silent_manners = Manners {
            ack_final: false,
            ..manners()
        };
        check_with(
            silent_manners,
            write_card(),
            "ack ack damaged",
            asked,
            "doubt:no_answer answer_may_come",
        );
        check(
            read_card(),
            "ack ack damaged 3s",
            &format!("{asked} nak"),
            "refused:no_answer answer_may_come",
        );
    }

    #[test]
    fn a_server_that_never_stops_talking_does_not_stop_the_clock() {
        let mut stage = Rehearsal::new(manners(), write_card());
        stage.play("ack");
        for _ in 0..60 {
            stage.now += Duration::from_millis(100);
            stage.conversation.handle(stage.now, Input::Bytes(&[b'x'; 600]));
            stage.go();
            assert!(stage.conversation.buffer.len() <= LONGEST);
        }
        assert_eq!(stage.end(), "doubt:no_answer answer_may_come");
    }

    #[test]
    fn every_split_of_what_the_server_says_ends_the_same() {
        let said = [&[ACK][..], &frame(WRITTEN)].concat();
        for cut in 0..=said.len() {
            let mut stage = Rehearsal::new(manners(), write_card());
            stage.play("ack");
            for piece in [&said[..cut], &said[cut..]] {
                stage.conversation.handle(stage.now, Input::Bytes(piece));
                stage.go();
            }
            assert_eq!(stage.end(), "done quiet", "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn once_the_frame_left_no_story_ends_with_nothing_sent(
            steps in prop::collection::vec(prop::sample::select(vec![
                "ack", "nak", "close", "noise", "damaged", "200ms", "3s", "1m", "answer=CN1|1|04A1", "answer=ED|1",
                "answer=CN1|2|FF", "answer=QQ|1",
            ]), 0..24),
        ) {
            let mut stage = Rehearsal::new(manners(), write_card());
            stage.play(&steps.join(" "));
            let left = stage.did.iter().any(|act| act == "frame");
            if let Some(ending) = &stage.ending {
                prop_assert_eq!(left, !matches!(ending.result, Result::NothingSent(_)));
                if let Result::Done(fields) = &ending.result {
                    prop_assert_eq!(fields.join("|"), WRITTEN);
                }
            }
            let frames = stage.did.iter().filter(|act| *act == "frame").count();
            let naks = steps.iter().filter(|step| **step == "nak").count();
            prop_assert!(frames <= 1 + naks && frames <= 3, "each repetition follows a refusal");
        }
    }

    /// A conversation under a clock that is stepped by hand.
    struct Rehearsal {
        conversation: Conversation,
        now: Instant,
        until: Option<Instant>,
        did: Vec<String>,
        ending: Option<Ending>,
    }

    impl Rehearsal {
        fn new(manners: Manners, command: Command) -> Self {
            let mut stage = Self {
                conversation: Conversation::new(command, manners),
                now: Instant::now(),
                until: None,
                did: Vec::new(),
                ending: None,
            };
            stage.go();
            stage
        }

        /// Polls until it waits or is done.
        fn go(&mut self) {
            loop {
                match self.conversation.poll(self.now) {
                    Output::Write(bytes) => self.did.push(
                        match bytes[..] {
                            [ENQ] => "enq",
                            [ACK] => "ack",
                            [NAK] => "nak",
                            _ => "frame",
                        }
                        .into(),
                    ),
                    Output::Note(Stage::Sent) => self.did.push("leaves".into()),
                    Output::Note(_) => self.did.push("card?".into()),
                    Output::Wait { until } => {
                        self.until = Some(until);
                        return;
                    }
                    Output::Done(ending) => {
                        self.ending = Some(ending);
                        return;
                    }
                }
            }
        }

        /// `ack`, `nak`, `noise`, `damaged`, `close`, `answer=…`, or time that passes.
        fn play(&mut self, script: &str) {
            for step in script.split_whitespace() {
                let said = match step {
                    "ack" => vec![ACK],
                    "nak" => vec![NAK],
                    "noise" => b"\x80~~".to_vec(),
                    "damaged" => {
                        let mut bytes = frame(SEEN);
                        bytes[3] ^= 0x40;
                        bytes
                    }
                    "close" => Vec::new(),
                    _ => step.strip_prefix("answer=").map(frame).unwrap_or_default(),
                };
                if !said.is_empty() {
                    self.conversation.handle(self.now, Input::Bytes(&said));
                } else if step == "close" {
                    self.conversation.handle(self.now, Input::Closed);
                } else {
                    let span: jiff::SignedDuration = step.parse().unwrap();
                    self.now += span.unsigned_abs();
                    if self.until.is_some_and(|until| until <= self.now) {
                        self.conversation.handle(self.now, Input::Timeout);
                    }
                }
                self.go();
            }
        }

        fn end(&self) -> String {
            let Some(ending) = &self.ending else {
                return "still talking".into();
            };
            let line = match ending.line {
                LineAfter::Quiet => "quiet",
                LineAfter::Silent => "silent",
                LineAfter::AnswerMayCome => "answer_may_come",
                LineAfter::Closed => "closed",
            };
            match &ending.result {
                Result::NothingSent(refusal) => format!("nothing_sent:{} {line}", refusal.code),
                Result::Refused(refusal) => format!("refused:{} {line}", refusal.code),
                Result::Doubt(refusal) => format!("doubt:{} {line}", refusal.code),
                Result::Done(_) => format!("done {line}"),
            }
        }
    }

    fn check(command: Command, script: &str, did: &str, end: &str) {
        check_with(manners(), command, script, did, end);
    }

    fn check_with(manners: Manners, command: Command, script: &str, did: &str, end: &str) {
        let mut stage = Rehearsal::new(manners, command);
        stage.play(script);
        assert_eq!(
            (stage.did.join(" ").as_str(), stage.end().as_str()),
            (did, end),
            "after {script:?}"
        );
    }

    fn manners() -> Manners {
        Manners {
            ack_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(75),
            ack_final: true,
            trailer: Trailer::Checked,
        }
    }

    fn frame(fields: &str) -> Vec<u8> {
        encode(&fields.split('|').collect::<Vec<_>>(), Trailer::Checked)
    }

    fn read_card() -> Command {
        Command::ReadCard {
            encoder: "1".into(),
            eject: Eject::Wait,
        }
    }

    fn check_out() -> Command {
        Command::CheckOut { room: "101".into() }
    }

    fn modify_stay() -> Command {
        Command::ModifyStay {
            room: "101".into(),
            to_room: String::new(),
            expiry: civil::date(2026, 11, 24).at(11, 0, 0, 0),
            auth_code: String::new(),
        }
    }

    fn write_card() -> Command {
        Command::WriteCard(WriteCard {
            stay: Stay::Begin,
            count: Some(1),
            encoder: "1".into(),
            eject: Eject::Wait,
            rooms: vec!["101".into()],
            granted: String::new(),
            denied: String::new(),
            start: None,
            expiry: Some(civil::date(2026, 11, 24).at(11, 0, 0, 0)),
            dates: DateForm::Minutes,
            operator: "LATCHD".into(),
            print_lines: Vec::new(),
            serials: Some(Serials::Last),
        })
    }
}
