//! Conversations under a clock that is stepped by hand.

use jiff::civil;
use proptest::prelude::*;

use super::*;
use crate::drivers::salto_is::{
    codec::{LONGEST, encode},
    command::{DateForm, Eject, SendPhoneKey, Serials, Stay, Track, WriteCard},
};

const WRITTEN: &str = "CN1|1|04A1";
const SEEN: &str = "LT|1|LM";

#[test]
fn a_card_is_written_and_the_answer_acknowledged() {
    check(write_card(), "ack ack 1m answer=CN1|1|04A1", "enq leaves frame card? ack", "done quiet");
}

#[test]
fn without_ack_final_the_answer_is_not_acknowledged() {
    let manners = Manners { ack_final: false, ..manners() };
    check_with(manners, write_card(), "ack ack answer=CN|1", "enq leaves frame card?", "done quiet");
}

#[test]
fn a_command_without_a_card_does_not_ask_for_one() {
    check(check_out(), "ack ack answer=CO|0|101", "enq leaves frame ack", "done quiet");
}

#[test]
fn a_key_goes_to_its_phone_and_silence_is_a_doubt() {
    check(phone_key(), "ack ack answer=CNM|+15555550100|101", "enq leaves frame ack", "done quiet");
    // Another phone's answer, then silence.
    let silence = "doubt:no_answer answer_may_come";
    check(phone_key(), "ack ack answer=CNM|+15555550199|101 75s", "enq leaves frame", silence);
    check(phone_key(), "ack close", "enq leaves frame", "doubt:line_lost closed unanswered");
    check(
        phone_key(),
        "ack ack answer=TD|+15555550100",
        "enq leaves frame ack",
        "refused:room_unknown quiet",
    );
}

#[test]
fn a_track_is_read_by_its_own_answer_and_one_that_may_have_been_written_is_a_doubt() {
    let track = |writes| {
        let (track, encoder, eject) = (Track::Two, "1".to_owned(), Eject::Wait);
        match writes {
            true => Command::WriteTrack { track, encoder, eject, text: "A text".into() },
            false => Command::ReadTrack { track, encoder, eject },
        }
    };
    let asked = "enq leaves frame card?";
    check(track(false), "ack ack answer=L1|1|OTHER answer=L2|1|TEXT", &format!("{asked} ack"), "done quiet");
    check(track(false), "ack ack 75s", asked, "refused:no_answer answer_may_come");
    check(track(true), "ack ack answer=P2|1", &format!("{asked} ack"), "done quiet");
    check(track(true), "ack ack 75s", asked, "doubt:no_answer answer_may_come");
    check(track(true), "ack ack answer=EN|1", &format!("{asked} ack"), "refused:bad_card quiet");
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
    check(write_card(), "nak 200ms nak 200ms nak", polls, "nothing_sent:encoder_busy quiet");
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
    check(write_card(), "nak close", "enq", "nothing_sent:system_offline closed");
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
        (write_card(), "doubt:line_lost closed unanswered"),
        (check_out(), "doubt:line_lost closed unanswered"),
        (modify_stay(), "doubt:line_lost closed unanswered"),
        (read_card(), "refused:line_lost closed unanswered"),
    ] {
        check(command, "ack close", "enq leaves frame", end);
    }
    check(write_card(), "ack ack close", "enq leaves frame card?", "doubt:line_lost closed unanswered");
}

#[test]
fn the_answer_counts_although_its_acknowledgement_did_not_go_through() {
    let mut stage = Rehearsal::new(manners(), write_card());
    stage.play("ack ack");
    stage.conversation.handle(stage.now, Input::Bytes(&frame(WRITTEN)));
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
    check(write_card(), "ack nak 200ms close", &format!("{once} enq"), "refused:system_offline closed");
}

#[test]
fn a_refusal_that_may_be_noise_never_sends_the_frame_again() {
    check(write_card(), "ack noise nak", "enq leaves frame", "doubt:no_answer answer_may_come");
    check(write_card(), "ack nak ack", "enq leaves frame", "doubt:no_answer answer_may_come");
    check(write_card(), "ack nak answer=CN1|1", "enq leaves frame", "doubt:no_answer answer_may_come");
    check(write_card(), "ack ack nak answer=CN1|1", "enq leaves frame card? ack", "done quiet");
}

#[test]
fn a_frame_before_our_acknowledgement_is_an_old_answer_and_is_discarded() {
    check(
        write_card(),
        "answer=CN1|1|OLD ack answer=CN1|1|OLD ack answer=CN1|1|04A1",
        "enq leaves frame card? ack",
        "done quiet",
    );
    check(write_card(), "ack answer=CN1|1|OLD 5s", "enq leaves frame", "doubt:no_answer answer_may_come");
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
    check(write_card(), "ack ack answer=ED|1", "enq leaves frame card? ack", "refused:no_card quiet");
    check(write_card(), "ack ack answer=OV|1", "enq leaves frame card? ack", "refused:encoder_busy quiet");
    check(check_out(), "ack ack answer=TD|0", "enq leaves frame ack", "refused:room_unknown quiet");
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
    check(write_card(), "ack ack damaged 2s answer=CN1|1", &format!("{asked} nak ack"), "done quiet");
    check(
        write_card(),
        "ack ack damaged damaged damaged damaged",
        &format!("{asked} nak nak nak"),
        "doubt:no_answer answer_may_come",
    );
    check(write_card(), "ack ack damaged 3s", &format!("{asked} nak"), "doubt:no_answer answer_may_come");
    let silent_manners = Manners { ack_final: false, ..manners() };
    check_with(silent_manners, write_card(), "ack ack damaged", asked, "doubt:no_answer answer_may_come");
    check(read_card(), "ack ack damaged 3s", &format!("{asked} nak"), "refused:no_answer answer_may_come");
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
            LineAfter::ClosedUnanswered => "closed unanswered",
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
    assert_eq!((stage.did.join(" ").as_str(), stage.end().as_str()), (did, end), "after {script:?}");
}

fn manners() -> Manners {
    Manners {
        ack_timeout: Duration::from_secs(5),
        answer_timeout: Duration::from_secs(75),
        ack_final: true,
        trailer: Trailer::Checked,
        takes_0f_for_nak: false,
    }
}

fn frame(fields: &str) -> Vec<u8> {
    encode(&fields.split('|').collect::<Vec<_>>(), Trailer::Checked)
}

fn read_card() -> Command {
    Command::ReadCard { is_amadeus: false, encoder: "1".into(), eject: Eject::Wait }
}

fn check_out() -> Command {
    Command::CheckOut { room: "101".into(), has_encoder_field: true }
}

fn modify_stay() -> Command {
    Command::ModifyStay {
        room: "101".into(),
        to_room: String::new(),
        expiry: civil::date(2026, 11, 24).at(11, 0, 0, 0),
        dates: DateForm::Minutes,
        auth_code: String::new(),
    }
}

fn phone_key() -> Command {
    Command::SendPhoneKey(SendPhoneKey {
        stay: Stay::Begin,
        phone: "+15555550100".into(),
        rooms: vec!["101".into()],
        granted: String::new(),
        denied: String::new(),
        start: None,
        expiry: Some(civil::date(2026, 11, 24).at(11, 0, 0, 0)),
        operator: "LATCHD".into(),
        text: "Welcome".into(),
        auth_code: String::new(),
    })
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
