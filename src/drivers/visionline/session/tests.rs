//! Conversations under a clock that is stepped by hand.

use jiff::civil::date;
use proptest::prelude::*;

use super::*;
use crate::drivers::visionline::{codec::LONGEST, command::MakeCard};

const WRITTEN: &str = "say=CCA;EA1;RC0;|";
const GUEST: &str = "say=CCB;EA1;RC13;GR101;|";

#[test]
fn a_card_is_written_over_tcp() {
    check(Framing::Line, make(), &format!("1m {WRITTEN}"), "leaves text card?", "made");
    check(Framing::Line, look(), GUEST, "leaves text card?", "read valid");
}

#[test]
fn a_card_is_written_over_a_serial_line_and_nothing_acknowledges_the_answer() {
    check(Framing::Block, make(), "ack say=\x02CCA;EA1;RC0;6C\x03", "leaves text card?", "made");
    check(Framing::Block, make(), &format!("ack 1m {WRITTEN}"), "leaves text card?", "made");
}

#[test]
fn an_answer_whose_end_is_never_said_counts_once_it_is_quiet() {
    let check = |script: &str, end: &str| check(Framing::Line, make(), script, "leaves text card?", end);
    check("say=CCA;EA1;RC0; 500ms", "made");
    check("say=CCA;EA1;RC0; close", "made");
    // Not before something else could follow, and never without its code or its last separator.
    check("say=CCA;EA1;RC0; 499ms say=SR04A1;| 0ms", "made 04A1");
    check("say=CCA;EA1; 1m say=RC0;|", "made");
    check("say=CCA;EA1; close", "doubt line_lost may_come");
    check("say=CCA;EA1; 75s", "doubt no_answer may_come");
    check("say=CCA;EA1;RC0 75s", "doubt no_answer may_come");
    check("say=CCA;EA1;RC0 close", "doubt line_lost may_come");
}

#[test]
fn a_request_that_waits_in_a_queue_has_its_answer_later() {
    let check = |script: &str, end: &str| check(Framing::Line, make(), script, "leaves text card?", end);
    check(&format!("say=CCA;EA1;RC85;| 1m {WRITTEN}"), "made");
    check("say=CCA;EA1;RC85;|CCA;EA1;RC41;|", "refused no_card");
    check("say=CCA;EA1;RC85; 500ms say=CCA;EA1;RC0;|", "made");
    check("say=CCA;EA1;RC85;| 75s", "doubt no_answer may_come");
    check("say=CCA;EA1;RC85;| close", "doubt line_lost may_come");
    check("say=CCA;EA1;RC85;| nak 75s", "doubt no_answer may_come");
}

#[test]
fn silence_and_a_hang_up_are_a_doubt_for_what_writes_and_a_failure_for_a_reading() {
    for (command, end) in [(make(), "doubt"), (look(), "refused")] {
        let silent = format!("{end} no_answer may_come");
        let gone = format!("{end} line_lost may_come");
        check(Framing::Line, command.clone(), "75s", "leaves text card?", &silent);
        check(Framing::Line, command.clone(), "close", "leaves text card?", &gone);
        check(Framing::Block, command.clone(), "3s", "leaves text", &silent);
        check(Framing::Block, command.clone(), "close", "leaves text", &gone);
        check(Framing::Block, command.clone(), "ack 75s", "leaves text card?", &silent);
        check(Framing::Block, command, "ack close", "leaves text card?", &gone);
    }
}

#[test]
fn refused_bytes_are_sent_again_over_a_serial_line_three_times_in_all_and_not_over_tcp() {
    let end = "refused rejected";
    check(Framing::Line, make(), "nak 500ms", "leaves text card?", end);
    check(Framing::Line, make(), "nak close", "leaves text card?", end);
    check(Framing::Block, make(), "nak 200ms nak 200ms nak", "leaves text text text", end);
    check(Framing::Block, make(), "nak close", "leaves text", end);
    check(Framing::Block, make(), &format!("nak 200ms ack {WRITTEN}"), "leaves text text card?", "made");
}

#[test]
fn a_refusal_counts_over_tcp_only_where_nothing_follows_it() {
    let check = |script: &str, end: &str| check(Framing::Line, make(), script, "leaves text card?", end);
    check(&format!("nak {WRITTEN}"), "made");
    check(&format!("nak 499ms {WRITTEN}"), "made");
    check("nak say=CCA; 75s", "doubt no_answer may_come");
    check("nak say=xyz 75s", "doubt no_answer may_come");
}

#[test]
fn an_answer_before_its_acknowledgement_makes_a_refusal_after_it_tell_nothing() {
    check(Framing::Block, make(), &format!("{WRITTEN} nak"), "leaves text", "doubt no_answer may_come");
}

#[test]
fn a_refusal_among_noise_may_be_noise() {
    for script in ["say=xyz nak", "nak ack", "nak say=CCA;EA1;RC0;|"] {
        check(Framing::Block, make(), script, "leaves text", "doubt no_answer may_come");
    }
    check(Framing::Line, make(), "say=xyz nak 75s", "leaves text card?", "doubt no_answer may_come");
}

#[test]
fn an_answer_before_the_command_was_taken_is_an_earlier_ones() {
    check(Framing::Block, make(), "say=CCA;EA1;RC41;| ack say=CCA;EA1;RC0;|", "leaves text card?", "made");
    check(
        Framing::Line,
        make(),
        "say=CCA;EA2;RC0;|CCB;EA1;RC13;| 75s",
        "leaves text card?",
        "doubt no_answer may_come",
    );
}

#[test]
fn a_damaged_answer_is_a_doubt() {
    let end = "doubt no_answer may_come";
    check(Framing::Block, make(), "ack say=\x02CCA;EA1;RC0;00\x03", "leaves text card?", end);
    check(Framing::Line, make(), "say=CCA;EA1;RC0|", "leaves text card?", end);
}

#[test]
fn an_answer_cut_at_any_byte_is_never_a_failure() {
    let answer = b"CCA;EA1;RC0;SR04A1B2C3D4E580FF;\r\n";
    for framing in [Framing::Line, Framing::Block] {
        for cut in 0..answer.len() {
            let mut stage = Rehearsal::new(framing, make());
            stage.play(if framing == Framing::Block { "ack" } else { "" });
            stage.conversation.handle(stage.now, Input::Bytes(&answer[..cut]));
            stage.play("close");
            let known = cut >= 12 && answer[cut - 1] == b';';
            let known = known || answer[..cut].contains(&b'\r');
            assert_eq!(stage.end().starts_with("made"), known, "cut at {cut}: {}", stage.end());
            assert!(known || stage.end() == "doubt line_lost may_come", "cut at {cut}: {}", stage.end());
        }
    }
}

#[test]
fn a_peer_that_floods_the_line_does_not_hide_the_deadline() {
    let mut stage = Rehearsal::new(Framing::Line, make());
    for _ in 0..76 {
        stage.conversation.handle(stage.now, Input::Bytes(&[b'C'; 700]));
        assert!(stage.conversation.buffer.len() < LONGEST);
        stage.now += Duration::from_secs(1);
        stage.go();
    }
    assert_eq!(stage.end(), "doubt no_answer may_come");
}

proptest! {
    #[test]
    fn whatever_comes_no_more_than_three_copies_leave_and_the_end_is_reached(
        pieces in proptest::collection::vec(
            prop_oneof![
                "[\\x00-\\x7f]{0,20}",
                Just("\x06".to_owned()),
                Just("\x15".to_owned()),
                Just("CCA;EA1;RC85;\r\n".to_owned()),
                Just("CCA;EA1;RC0;".to_owned()),
            ],
            0..30,
        ),
        is_block in any::<bool>(),
    ) {
        let framing = if is_block { Framing::Block } else { Framing::Line };
        let mut stage = Rehearsal::new(framing, make());
        for piece in pieces {
            stage.conversation.handle(stage.now, Input::Bytes(piece.as_bytes()));
            stage.now += Duration::from_millis(100);
            stage.go();
        }
        for _ in 0..4 {
            stage.play("75s");
        }
        prop_assert!(stage.told.matches("text").count() <= 3);
        prop_assert!(!stage.end().starts_with("nothing_sent"), "{}", stage.end());
    }
}

fn check(framing: Framing, command: Command, script: &str, told: &str, end: &str) {
    let mut stage = Rehearsal::new(framing, command);
    stage.play(script);
    assert_eq!(stage.told, told, "{script}");
    assert_eq!(stage.end(), end, "{script}");
}

struct Rehearsal {
    conversation: Conversation,
    now: Instant,
    told: String,
    ended: Option<Ending>,
}

impl Rehearsal {
    fn new(framing: Framing, command: Command) -> Self {
        let manners =
            Manners { framing, ack_timeout: Duration::from_secs(3), answer_timeout: Duration::from_secs(75) };
        let conversation = Conversation::new(command, manners);
        let mut stage = Self { conversation, now: Instant::now(), told: String::new(), ended: None };
        stage.go();
        stage
    }

    /// Plays steps: `ack`, `nak`, `close`, `say=TEXT` (`|` is CR LF), or a time that passes.
    fn play(&mut self, script: &str) {
        for step in script.split_whitespace() {
            match step {
                "ack" => self.conversation.handle(self.now, Input::Bytes(b"\x06")),
                "nak" => self.conversation.handle(self.now, Input::Bytes(b"\x15")),
                "close" => self.conversation.handle(self.now, Input::Closed),
                step => match step.strip_prefix("say=") {
                    Some(text) => {
                        let text = text.replace('|', "\r\n");
                        self.conversation.handle(self.now, Input::Bytes(text.as_bytes()));
                    }
                    None => {
                        let span: jiff::SignedDuration = step.parse().unwrap();
                        self.now += Duration::try_from(span).unwrap();
                        self.conversation.handle(self.now, Input::Timeout);
                    }
                },
            }
            self.go();
        }
    }

    fn go(&mut self) {
        loop {
            let word = match self.conversation.poll(self.now) {
                Output::Write(bytes) => {
                    assert_eq!(bytes, self.conversation.command.bytes(self.conversation.manners.framing));
                    "text"
                }
                Output::Note(Stage::Sent) => "leaves",
                Output::Note(Stage::WaitingForCard) => "card?",
                Output::Note(other) => panic!("{other:?}"),
                Output::Wait { .. } => return,
                Output::Done(ending) => {
                    self.ended = Some(ending);
                    return;
                }
            };
            if !self.told.is_empty() {
                self.told.push(' ');
            }
            self.told.push_str(word);
        }
    }

    fn end(&self) -> String {
        let ending = self.ended.as_ref().expect("it has ended");
        let mut word = match &ending.result {
            Result::NothingSent(why) => format!("nothing_sent {}", why.code),
            Result::Refused(why) => format!("refused {}", why.code),
            Result::Doubt(why) => format!("doubt {}", why.code),
            Result::Made { serial: None } => "made".into(),
            Result::Made { serial: Some(serial) } => format!("made {serial}"),
            Result::Read(card) => format!("read {}", card.why_not.unwrap_or("valid")),
        };
        if ending.answer_may_come {
            word.push_str(" may_come");
        }
        word
    }
}

fn make() -> Command {
    Command::MakeCard(MakeCard {
        joins: false,
        encoder: "1".into(),
        room: "101".into(),
        start: None,
        end: date(2026, 11, 24).at(11, 0, 0, 0),
        common: Vec::new(),
        user_group: None,
        operator: None,
        guest: None,
        card_type: None,
        serial: true,
    })
}

fn look() -> Command {
    Command::ReadCard { encoder: "1".into() }
}
