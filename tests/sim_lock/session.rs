//! One conversation, stepped by hand: what is said, what is heard, how it ends.

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use latchd::{
    drivers::sim_lock::{
        message::Entry,
        session::{Came, Command, Conversation, Manners, Note, Task},
    },
    model::JobId,
    transport::{Input, Output, Session},
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::house::{JOB, NOW, OTHER_JOB, at, frame, pin};

/// What the lock does when it was asked something.
#[derive(Debug, Clone, Copy)]
enum Lock<'a> {
    /// Answers with this body behind the request's number.
    Says(&'a str),
    /// Sends these bytes.
    Sends(&'a [u8]),
    HangsUp,
    IsSilent,
}
use Lock::{HangsUp, IsSilent, Says, Sends};

const STATE: Lock<'_> = Says("OK SL-0001 20261120T090000+0100 100 100 3 2592000");
const MINE: &str = "stay%207 PIN 4711 20261121T150000 20261124T110000 3";

fn command(name: &str) -> Command {
    let job = JobId(Uuid::parse_str(JOB).unwrap());
    match name {
        "put" => Command::Put {
            job,
            entry: Entry {
                key: "stay 7".into(),
                content: pin("4711"),
                starts_at: "2026-11-21T15:00:00".parse().unwrap(),
                ends_at: Some("2026-11-24T11:00:00".parse().unwrap()),
                generation: 3,
            },
        },
        "remove" => Command::Remove { job, key: "stay 7".into() },
        _ => Command::Unlock { job },
    }
}

fn conversation(task: Task) -> Conversation {
    let zone = TimeZone::get("Europe/Oslo").unwrap();
    Conversation::new(task, Manners { answer_timeout: Duration::from_secs(5), now: at(NOW), zone })
}

/// Holds a conversation with a lock that follows a script: the verbs it was asked, and the end.
fn held(task: Task, script: &[Lock<'_>]) -> (Vec<String>, Came) {
    let mut conversation = conversation(task);
    let mut now = Instant::now();
    let (mut asked, mut script) = (Vec::new(), script.iter());
    let mut number = String::new();
    loop {
        match conversation.poll(now) {
            Output::Write(bytes) => {
                let body = std::str::from_utf8(&bytes[5..bytes.len() - 5]).unwrap();
                let mut words = body.split(' ');
                number = words.next().unwrap().to_owned();
                asked.push(words.next().unwrap().to_owned());
            }
            Output::Wait { until } => match script.next() {
                Some(Says(body)) => {
                    conversation.handle(now, Input::Bytes(&frame(&format!("{number} {body}"))));
                }
                Some(Sends(bytes)) => conversation.handle(now, Input::Bytes(bytes)),
                Some(HangsUp) => conversation.handle(now, Input::Closed),
                Some(IsSilent) | None => {
                    now = until;
                    conversation.handle(now, Input::Timeout);
                }
            },
            Output::Note(Note::Leaves) => asked.push("(leaves)".into()),
            Output::Note(Note::ClockOff { by }) => asked.push(format!("(off {})", by.as_secs())),
            Output::Note(Note::State(_) | Note::Holds(_) | Note::Did { .. }) => {}
            Output::Done(came) => {
                assert!(script.next().is_none(), "the conversation ended early: {came:?}");
                return (asked, came);
            }
        }
    }
}

#[track_caller]
fn check(task: Task, script: &[Lock<'_>], asked: &str, expected: &str) {
    let (verbs, came) = held(task, script);
    let came = match came {
        Came::Done => "done".into(),
        Came::NothingSent(why) => format!("nothing_sent {}", why.code),
        Came::NotDone(why) => format!("not_done {}", why.code),
        Came::Doubt(why) => format!("doubt {}", why.code),
    };
    assert_eq!((verbs.join(" ").as_str(), came.as_str()), (asked, expected), "{script:?}");
}

fn doing(name: &str) -> Task {
    Task::Do(command(name))
}

fn proving(name: &str) -> Task {
    Task::Prove(command(name))
}

#[test]
fn an_entry_is_put_only_if_the_table_shows_exactly_that() {
    let put = |table: &[Lock<'_>], expected| {
        let verbs = vec!["TABLE"; table.len()].join(" ");
        let script = [&[STATE, Says("OK 9")], table].concat();
        check(doing("put"), &script, &format!("STATE (leaves) PUT {verbs}"), expected);
    };
    let shows = |entry: &str| format!("OK - {entry}");
    put(&[Says(&shows(MINE))], "done");
    let other = "other PIN 1234 20261121T150000 - 1";
    put(&[Says(&shows(&format!("{other} {MINE}")))], "done");
    put(&[Says(&format!("OK 40 {other}")), Says(&shows(MINE))], "done");
    for wrong in [
        "stay%207 PIN 4712 20261121T150000 20261124T110000 3",
        "stay%207 CARD 4711 20261121T150000 20261124T110000 3",
        "stay%207 PIN 4711 20261121T160000 20261124T110000 3",
        "stay%207 PIN 4711 20261121T150000 20261124T120000 3",
        "stay%207 PIN 4711 20261121T150000 - 3",
        "stay%207 PIN 4711 20261121T150000 20261124T110000 2",
        "stay%208 PIN 4711 20261121T150000 20261124T110000 3",
        &format!("{MINE} {MINE}"),
        other,
    ] {
        put(&[Says(&shows(wrong))], "doubt protocol_violation");
    }
    put(&[Says("OK -")], "doubt protocol_violation");
    put(&[Says("NO BUSY")], "doubt no_answer");
    put(&[IsSilent], "doubt no_answer");
    put(&[HangsUp], "doubt line_lost");
    put(&[Says("OK maybe")], "doubt no_answer");
}

#[test]
fn an_entry_is_removed_only_if_the_table_shows_nothing_under_its_key() {
    let asked = "STATE (leaves) DEL TABLE";
    check(doing("remove"), &[STATE, Says("OK 9"), Says("OK -")], asked, "done");
    check(doing("remove"), &[STATE, Says("OK -"), Says("OK -")], asked, "done");
    let still = format!("OK - {MINE}");
    check(doing("remove"), &[STATE, Says("OK 9"), Says(&still)], asked, "doubt protocol_violation");
    check(doing("remove"), &[STATE, Says("OK 9"), IsSilent], asked, "doubt no_answer");
}

#[test]
fn a_door_is_asked_to_open_once_and_silence_after_that_is_a_doubt() {
    let asked = "STATE (leaves) OPEN";
    check(doing("unlock"), &[STATE, Says("OK 9")], asked, "done");
    check(doing("unlock"), &[STATE, IsSilent], asked, "doubt no_answer");
    check(doing("unlock"), &[STATE, HangsUp], asked, "doubt line_lost");
    check(doing("unlock"), &[STATE, Says("OK")], asked, "doubt no_answer");
    check(doing("unlock"), &[STATE, Says("PERHAPS 9")], asked, "doubt no_answer");
    check(doing("unlock"), &[STATE, Sends(b":00092 OPEN -0000\n")], asked, "doubt no_answer");
    // Somebody else's answer is not ours, and noise is none.
    let foreign = frame("1 OK 9");
    check(doing("unlock"), &[STATE, Sends(&foreign), Sends(b"\xff\n"), IsSilent], asked, "doubt no_answer");
    check(doing("unlock"), &[STATE, Sends(&foreign), Says("OK 9")], asked, "done");
}

#[test]
fn before_the_command_has_left_nothing_was_sent() {
    for name in ["put", "remove", "unlock"] {
        for lock in [IsSilent, HangsUp, Says("OK what"), Sends(b":00092 OPEN -0000\n")] {
            check(doing(name), &[lock], "STATE", "nothing_sent device_offline");
        }
        check(doing(name), &[Says("NO BUSY")], "STATE", "nothing_sent device_busy");
    }
    let late = Says("OK SL-0001 20261120T091000+0100 100 100 3 60");
    check(doing("put"), &[late, IsSilent], "STATE (off 600) CLOCK", "nothing_sent device_offline");
}

#[test]
fn what_a_lock_refuses_was_not_done_and_has_a_name() {
    for (word, expected) in [
        ("NO BUSY", "nothing_sent device_busy"),
        ("NO FULL", "not_done slots_full"),
        ("NO TAKEN", "not_done content_taken"),
        ("NO OLDER", "not_done superseded"),
        ("NO FORMAT", "not_done rejected"),
        ("NO DATES", "not_done bad_dates"),
        ("NO BAD", "not_done rejected"),
        ("NO", "not_done rejected"),
    ] {
        check(doing("put"), &[STATE, Says(word)], "STATE (leaves) PUT", expected);
    }
}

#[test]
fn a_clock_that_is_wrong_is_set_before_a_window_is_put_and_looked_at_again() {
    let clock = |time: &str| format!("OK SL-0001 {time} 100 100 3 60");
    let table = format!("OK - {MINE}");
    let with = |time: &str, asked: &str| {
        let wrong = clock(time);
        let script = [Says(&wrong), Says("OK"), STATE, Says("OK 9"), Says(&table)];
        check(doing("put"), &script, &format!("STATE {asked} CLOCK STATE (leaves) PUT TABLE"), "done");
    };
    with("20261120T090031+0100", "(off 31)");
    with("20261120T085929+0100", "(off -31)");
    with("20261120T100000+0200", "(off 0)");
    for good in ["20261120T090030+0100", "20261120T085930+0100"] {
        let good = clock(good);
        let script = [Says(&good), Says("OK 9"), Says(&table)];
        check(doing("put"), &script, "STATE (leaves) PUT TABLE", "done");
    }
    // Neither removing nor opening needs a clock.
    let wrong = clock("20010101T000000+0000");
    check(doing("unlock"), &[Says(&wrong), Says("OK 9")], "STATE (leaves) OPEN", "done");
}

#[test]
fn a_clock_that_cannot_be_set_right_keeps_a_window_out() {
    let zone = Says("OK SL-0001 20261120T080000+0000 100 100 3 60");
    check(doing("put"), &[zone, Says("OK"), zone], "STATE (off 0) CLOCK STATE", "not_done rejected");
    let stuck = Says("OK SL-0001 20010101T000000+0100 100 100 3 60");
    let (asked, came) = held(doing("put"), &[stuck, Says("OK"), stuck]);
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(matches!(came, Came::NotDone(_)), "{came:?}");
    let looked = held(Task::Look, &[zone, Says("OK"), zone]).1;
    assert_eq!(looked, Came::Done);
}

#[test]
fn the_clock_is_judged_by_the_time_that_passed_meanwhile() {
    let mut conversation = conversation(doing("unlock"));
    let begun = Instant::now();
    assert!(matches!(conversation.poll(begun), Output::Write(_)));
    let mut late = self::conversation(doing("put"));
    assert!(matches!(late.poll(begun), Output::Write(_)));
    // Four seconds later the lock shows four seconds and thirty more: just right.
    let now = begun + Duration::from_secs(4);
    late.handle(now, Input::Bytes(&frame("1 OK SL-0001 20261120T090034+0100 100 100 3 60")));
    assert!(matches!(late.poll(now), Output::Note(Note::State(_))));
    assert_eq!(late.poll(now), Output::Note(Note::Leaves));
}

#[test]
fn a_proof_reads_the_table_or_the_ledger_and_asks_for_nothing_else() {
    let mine = format!("OK - {MINE}");
    check(proving("put"), &[STATE, Says(&mine)], "STATE TABLE", "done");
    check(proving("put"), &[STATE, Says("OK -")], "STATE TABLE", "not_done no_answer");
    check(proving("remove"), &[STATE, Says("OK -")], "STATE TABLE", "done");
    check(proving("remove"), &[STATE, Says(&mine)], "STATE TABLE", "not_done no_answer");
    let deed =
        |sequence: u64, job: &str, what: &str| format!(" {sequence} 20261120T090000+0100 {job} {what} -");
    let unlocked = format!("OK 1 -{}", deed(9, JOB, "unlocked"));
    check(proving("unlock"), &[STATE, Says(&unlocked)], "STATE LEDGER", "done");
    check(proving("unlock"), &[STATE, Says("OK 1 -")], "STATE LEDGER", "not_done no_answer");
    for other in [deed(9, OTHER_JOB, "unlocked"), deed(9, JOB, "opened"), deed(9, "-", "unlocked")] {
        check(
            proving("unlock"),
            &[STATE, Says(&format!("OK 1 -{other}"))],
            "STATE LEDGER",
            "not_done no_answer",
        );
    }
    let page = format!("OK 1 9{}", deed(9, JOB, "put"));
    check(proving("unlock"), &[STATE, Says(&page), Says(&unlocked)], "STATE LEDGER LEDGER", "done");
}

#[test]
fn a_memory_that_is_young_or_does_not_reach_back_proves_nothing_by_what_it_lacks() {
    check(proving("unlock"), &[STATE, Says("OK 2 -")], "STATE LEDGER", "doubt no_answer");
    let young = Says("OK SL-0001 20261120T090000+0100 100 100 3 86399");
    check(proving("unlock"), &[young, Says("OK 1 -")], "STATE LEDGER", "doubt no_answer");
    let old = Says("OK SL-0001 20261120T090000+0100 100 100 3 86400");
    check(proving("unlock"), &[old, Says("OK 1 -")], "STATE LEDGER", "not_done no_answer");
}

#[test]
fn a_lock_that_cannot_be_asked_proves_nothing() {
    for name in ["put", "remove", "unlock"] {
        let page = if name == "unlock" { "STATE LEDGER" } else { "STATE TABLE" };
        for (lock, expected) in [
            (IsSilent, "nothing_sent device_offline"),
            (HangsUp, "nothing_sent device_offline"),
            (Says("NO BUSY"), "doubt no_answer"),
            (Says("NO BAD"), "doubt no_answer"),
        ] {
            check(proving(name), &[lock], "STATE", expected);
            check(proving(name), &[STATE, lock], page, expected);
        }
    }
}

#[test]
fn a_table_without_end_is_given_up() {
    let mut conversation = conversation(doing("remove"));
    let now = Instant::now();
    let mut asked = 0_u32;
    loop {
        match conversation.poll(now) {
            Output::Write(bytes) => {
                asked += 1;
                let answer = match asked {
                    1 => "OK SL-0001 20261120T090000+0100 100 100 3 60".to_owned(),
                    2 => "OK 9".into(),
                    page => format!("OK {page}"),
                };
                assert!(bytes.starts_with(b":"), "a frame");
                conversation.handle(now, Input::Bytes(&frame(&format!("{asked} {answer}"))));
            }
            Output::Note(_) => {}
            Output::Wait { .. } => panic!("every request was answered"),
            Output::Done(came) => {
                assert!(matches!(came, Came::Doubt(_)), "{came:?}");
                break;
            }
        }
    }
    assert!(asked < 2000, "{asked}");
}

#[test]
fn every_split_of_an_answer_gives_the_same() {
    let bytes = [frame("1 OK SL-0001 20261120T090000+0100 100 100 3 60"), frame("2 OK 9")];
    for which in 0..2 {
        for cut in 0..=bytes[which].len() {
            let mut conversation = conversation(doing("unlock"));
            let now = Instant::now();
            let mut answers = bytes.iter().enumerate();
            let came = loop {
                match conversation.poll(now) {
                    Output::Wait { .. } => {
                        let (number, answer) = answers.next().unwrap();
                        let cut = if number == which { cut } else { 0 };
                        conversation.handle(now, Input::Bytes(&answer[..cut]));
                        if cut < answer.len() {
                            assert!(matches!(conversation.poll(now), Output::Wait { .. }), "no end yet");
                            conversation.handle(now, Input::Bytes(&answer[cut..]));
                        }
                    }
                    Output::Done(came) => break came,
                    Output::Write(_) | Output::Note(_) => {}
                }
            };
            assert_eq!(came, Came::Done, "answer {which} cut at {cut}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_a_lock_sends_a_conversation_ends_and_asks_to_open_once(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80),
                "[1-9] (OK|NO)( [A-Z0-9-]{0,9}){0,7}".prop_map(|body| frame(&body)),
                Just(frame("1 OK SL-0001 20261120T090000+0100 100 100 3 60")),
            ],
            0..12,
        ),
    ) {
        let mut conversation = conversation(doing("unlock"));
        let mut now = Instant::now();
        let mut pieces = pieces.iter();
        let mut opens = 0;
        loop {
            match conversation.poll(now) {
                Output::Write(bytes) => opens += u32::from(bytes.windows(6).any(|part| part == b" OPEN ")),
                Output::Note(_) => {}
                Output::Wait { until } => match pieces.next() {
                    Some(piece) => conversation.handle(now, Input::Bytes(piece)),
                    None => {
                        now = until;
                        conversation.handle(now, Input::Timeout);
                    }
                },
                Output::Done(came) => {
                    let not_asked = matches!(came, Came::NothingSent(_) | Came::NotDone(_));
                    prop_assert!(opens == 1 || not_asked, "{:?} without asking", came);
                    break;
                }
            }
        }
        prop_assert!(opens <= 1);
    }
}
