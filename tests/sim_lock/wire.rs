//! The bytes: requests as they are written, answers as they are read, and a lock asked by hand.

use jiff::{Timestamp, tz::TimeZone};
use latchd::{
    drivers::sim_lock::{
        codec::{Decoded, decode, encode},
        message::{Answer, Entry, No, Reading, Request},
        sim::{Ended, Settings, Simulator},
    },
    model::{JobId, Private, SlotContent},
    seams::Clock,
};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use uuid::Uuid;

use crate::house::{JOB, NOW, at, frame, pin};

fn job() -> JobId {
    JobId(Uuid::parse_str(JOB).unwrap())
}

fn entry() -> Entry {
    Entry {
        key: "stay 7".into(),
        content: pin("4711"),
        starts_at: "2026-11-21T15:00:00".parse().unwrap(),
        ends_at: Some("2026-11-24T11:00:00".parse().unwrap()),
        generation: 3,
    }
}

/// Every request, and its bytes as number 2, written by hand; the checks are another implementation's.
fn requests() -> Vec<(Request, &'static [u8])> {
    let oslo = TimeZone::get("Europe/Oslo").unwrap();
    let card = SlotContent::CardNumber(Private::new("0A1B2C"));
    let card = Entry { key: "k".into(), content: card, ends_at: None, generation: 1, ..entry() };
    vec![
        (Request::State, b":00092 STATE -3158\n"),
        (
            Request::Clock(Reading::in_zone(at("2026-10-25T01:30:00.7Z"), &oslo)),
            b":001E2 CLOCK - 20261025T023000+0100AFF4\n",
        ),
        (
            Request::Put { job: job(), entry: entry() },
            b":005E2 PUT 11111111-2222-4333-8444-555555555555 stay%207 PI\
N 4711 20261121T150000 20261124T110000 36891\n",
        ),
        (
            Request::Put { job: job(), entry: card },
            b":004C2 PUT 11111111-2222-4333-8444-555555555555 k CARD 0A1B2C 20261121T150000 - 16036\n",
        ),
        (
            Request::Delete { job: job(), key: "stay 7".into() },
            b":00332 DEL 11111111-2222-4333-8444-555555555555 stay%207E0F5\n",
        ),
        (Request::Open { job: job() }, b":002B2 OPEN 11111111-2222-4333-8444-555555555555D4B5\n"),
        (Request::Table { from: 1 }, b":000B2 TABLE - 15CAF\n"),
        (
            Request::Ledger { job: Some(job()), after: 0 },
            b":002F2 LEDGER 11111111-2222-4333-8444-555555555555 03EBD\n",
        ),
    ]
}

#[test]
fn every_request_is_written_as_the_protocol_says() {
    for (request, bytes) in requests() {
        let written = encode(&request.body(2));
        assert_eq!(written.escape_ascii().to_string(), bytes.escape_ascii().to_string(), "{request:?}");
        assert_eq!(
            frame(std::str::from_utf8(&bytes[5..bytes.len() - 5]).unwrap()),
            bytes,
            "the test's own check"
        );
    }
    assert_eq!(encode("1 STATE -"), b":00091 STATE -1C1C\n");
}

#[track_caller]
fn check(request: &Request, body: &str, expected: &str) {
    let answer = request.answer(2, body);
    let shown = match answer {
        Answer::State(state) => format!(
            "state {} {} {} {} {} {} {}",
            state.serial,
            state.clock.at,
            state.clock.offset,
            state.battery,
            state.slots,
            state.used,
            state.age
        ),
        Answer::Done => "done".into(),
        Answer::Table { entries, next } => {
            let entries: Vec<_> =
                entries.iter().map(|entry| format!("{}#{}", entry.key, entry.generation)).collect();
            format!("table {entries:?} {next:?}")
        }
        Answer::Ledger { first, entries, next } => {
            let entries: Vec<_> =
                entries.iter().map(|deed| format!("{}{}", deed.sequence, deed.what)).collect();
            format!("ledger {first} {entries:?} {next:?}")
        }
        Answer::No(no) => format!("no {no:?}"),
        Answer::Strange => "strange".into(),
        Answer::Foreign => "foreign".into(),
    };
    assert_eq!(shown, expected, "{body}");
}

#[test]
fn answers_are_read_field_by_field_and_anything_else_is_strange() {
    let state = Request::State;
    check(
        &state,
        "2 OK SL-0001 20261025T023000+0100 87 100 3 60",
        "state SL-0001 2026-10-25T01:30:00Z +01 87 100 3 60",
    );
    for strange in [
        "2 OK",
        "2 OK SL-0001 20261025T023000+0100 87 100 3",
        "2 OK SL-0001 20261025T023000+0100 87 100 3 60 1",
        "2 OK SL-0001 20261025T023000 87 100 3 60",
        "2 OK SL-0001 20261325T023000+0100 87 100 3 60",
        "2 OK SL-0001 20261025T023000+9900 87 100 3 60",
        "2 OK SL-0001 20261025T023000\u{e9}0100 87 100 3 60",
        "2 OK SL-0001 20261025T023000+0100 300 100 3 60",
        "2 OK %G0 20261025T023000+0100 87 100 3 60",
        "2 YES",
    ] {
        check(&state, strange, "strange");
    }
    for foreign in ["", "2", "1 OK", "02 OK", "2  OK", "20 NO BUSY"] {
        let expected = if foreign == "2  OK" { "strange" } else { "foreign" };
        check(&state, foreign, expected);
    }
    let open = Request::Open { job: job() };
    check(&open, "2 OK 17", "done");
    check(&open, "2 OK", "strange");
    check(&open, "2 OK x", "strange");
    check(&open, "2 NO BUSY", "no Busy");
    check(&open, "2 NO", "no Other(\"\")");
    // A PIN in place of a reason does not get through.
    check(&open, "2 NO 4711BATTERY", "no Other(\"BATTERY\")");
    check(&Request::Delete { job: job(), key: "k".into() }, "2 OK -", "done");
    let table = Request::Table { from: 5 };
    let one = "k PIN 4711 20261121T150000 - 1";
    check(&table, "2 OK -", "table [] None");
    check(&table, &format!("2 OK 9 {one} {one}"), "table [\"k#1\", \"k#1\"] Some(9)");
    // A page that leads back would never end.
    check(&table, &format!("2 OK 5 {one}"), "strange");
    check(&table, &format!("2 OK - {one} k"), "strange");
    check(&table, "2 OK - k FACE 4711 20261121T150000 - 1", "strange");
    check(&table, "2 OK - k PIN 4711 2026112T150000 - 1", "strange");
    let ledger = Request::Ledger { job: Some(job()), after: 3 };
    let deed = format!("4 20261025T023000+0100 {JOB} unlocked -");
    check(&ledger, &format!("2 OK 1 - {deed}"), "ledger 1 [\"4unlocked\"] None");
    check(&ledger, &format!("2 OK 1 3 {deed}"), "strange");
    check(&ledger, "2 OK 1", "strange");
    assert_eq!(Request::State.answer(2, "2 NO TAKEN"), Answer::No(No::Taken));
}

proptest! {
    #[test]
    fn no_answer_makes_reading_panic(
        body in "(2 (OK|NO))?( ([0-9]{1,21}|-|PIN|%[0-9A-F]{2}|20261025T023000(\\+0100)?|\\PC{0,16})){0,14}",
    ) {
        for (request, _) in requests() {
            let _ = request.answer(2, &body);
        }
    }

    #[test]
    fn what_a_lock_is_told_it_shows_again(
        key in "\\PC{1,64}", digits in "[0-9]{4,8}", generation in any::<u64>(),
    ) {
        let entry = Entry { key, content: pin(&digits), generation, ..entry() };
        let body = Request::Put { job: job(), entry: entry.clone() }.body(2);
        let shown = body.split_once(JOB).unwrap().1;
        let Decoded::Frame { body, .. } = decode(&frame(&format!("2 OK -{shown}"))) else { panic!("a frame") };
        let read = Request::Table { from: 1 }.answer(2, body.expose());
        prop_assert_eq!(read, Answer::Table { entries: vec![entry], next: None });
    }
}

/// Somebody who asks a lock by hand.
struct Hand(DuplexStream);

impl Hand {
    fn at(lock: &Simulator) -> (Self, tokio::task::JoinHandle<Ended>) {
        let (ours, theirs) = tokio::io::duplex(4096);
        let lock = lock.clone();
        (Self(ours), tokio::spawn(async move { lock.serve(theirs).await }))
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn hear(&mut self, body: &str) {
        let expected = frame(body);
        let mut heard = vec![0; expected.len()];
        self.0.read_exact(&mut heard).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(&expected));
    }

    async fn ask(&mut self, body: &str, answer: &str) {
        self.say(&frame(body)).await;
        self.hear(answer).await;
    }
}

fn lock(slots: u16) -> Simulator {
    let settings = Settings { slots, starts_at: Some(at(NOW)), ..Settings::default() };
    Simulator::new(&settings, Clock::simulated(at(NOW))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_lock_answers_by_hand_as_the_protocol_says() {
    let lock = lock(2);
    let (mut hand, _serving) = Hand::at(&lock);
    hand.say(b":00091 STATE -1C1C\n").await;
    hand.hear("1 OK SL-0001 20261120T090000+0100 100 2 0 2592000").await;
    hand.ask("2 CLOCK - 20261120T100000+0100", "2 OK").await;
    let put = |n, key, pin, generation| {
        format!("{n} PUT {JOB} {key} PIN {pin} 20261121T150000 20261124T110000 {generation}")
    };
    hand.ask(&put(3, "a", "4711", 5), "3 OK 3").await;
    hand.ask(&put(4, "b", "4711", 1), "4 NO TAKEN").await;
    hand.ask(&put(5, "a", "4711", 4), "5 NO OLDER").await;
    hand.ask(&put(6, "a", "4711", 5), "6 OK 4").await;
    hand.ask(&put(7, "b", "123", 1), "7 NO FORMAT").await;
    hand.ask(&put(8, "b", "1234", 1), "8 OK 5").await;
    hand.ask(&put(9, "c", "5678", 1), "9 NO FULL").await;
    hand.ask(&format!("10 PUT {JOB} b PIN 1234 20261121T150000 20261121T150000 2"), "10 NO DATES").await;
    hand.ask(&format!("11 PUT {JOB} b PIN 1234 20261121T150000 - x"), "11 NO BAD").await;
    hand.ask("12 SING -", "12 NO BAD").await;
    hand.ask(
        "13 TABLE - 1",
        "13 OK - a PIN 4711 20261121T150000 20261124T110000 5 b PIN 1234 20261121T150000 20261124T110000 1",
    )
    .await;
    hand.ask(&format!("14 DEL {JOB} a"), "14 OK 6").await;
    hand.ask(&format!("15 DEL {JOB} a"), "15 OK -").await;
    hand.ask(&format!("16 OPEN {JOB}"), "16 OK 7").await;
    hand.ask(&format!("17 OPEN {JOB}"), "17 OK 8").await;
    hand.ask(
        &format!("18 LEDGER {JOB} 6"),
        &format!("18 OK 1 - 7 20261120T100000+0100 {JOB} unlocked - 8 20261120T100000+0100 {JOB} unlocked -"),
    )
    .await;
    hand.ask("19 LEDGER 00000000-0000-4000-8000-000000000000 0", "19 OK 1 -").await;
}

#[tokio::test(start_paused = true)]
async fn a_request_is_read_in_any_pieces_and_behind_any_noise() {
    let lock = lock(2);
    let bytes = frame(&format!("7 OPEN {JOB}"));
    for cut in 0..=bytes.len() {
        let (mut hand, serving) = Hand::at(&lock);
        hand.say(b"noise\n\xff:0009").await;
        hand.say(&bytes[..cut]).await;
        tokio::task::yield_now().await;
        hand.say(&bytes[cut..]).await;
        hand.hear(&format!("7 OK {}", cut + 2)).await;
        drop(hand);
        assert_eq!(serving.await.unwrap(), Ended::ByClient);
    }
    assert_eq!(lock.done("unlocked", Some(JOB)), bytes.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_request_is_neither_done_nor_answered() {
    let lock = lock(2);
    let whole = frame(&format!("7 OPEN {JOB}"));
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let (mut hand, _serving) = Hand::at(&lock);
        // A line feed, should the damaged byte have been the frame's own.
        bytes.push(b'\n');
        hand.say(&bytes).await;
        hand.ask("8 TABLE - 1", "8 OK -").await;
    }
    assert_eq!(lock.done("unlocked", None), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_ends_the_old_one_and_what_it_had_not_begun() {
    let lock = lock(2);
    lock.command("fault slow 3000 on OPEN").await.unwrap();
    let (mut old, serving) = Hand::at(&lock);
    old.say(&[frame(&format!("1 OPEN {JOB}")), frame(&format!("2 OPEN {JOB}"))].concat()).await;
    lock.command("wait requests OPEN 1").await.unwrap();
    let (mut new, _serving) = Hand::at(&lock);
    // The one at work is finished before the new connection hears anything.
    new.ask("1 TABLE - 1", "1 OK -").await;
    assert_eq!(lock.done("unlocked", Some(JOB)), 1);
    assert_eq!(serving.await.unwrap(), Ended::TakenOver);
    old.hear("1 OK 2").await;
    assert_eq!(old.0.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed() {
    let lock = lock(2);
    let (_hand, serving) = Hand::at(&lock);
    assert_eq!(serving.await.unwrap(), Ended::ByClient);
}

#[test]
fn clocks_of_every_zone_are_written_with_their_offset() {
    for (zone, expected) in [
        ("Asia/Kathmandu", "2 CLOCK - 20261120T134500+0545"),
        ("America/St_Johns", "2 CLOCK - 20261120T043000-0330"),
        ("UTC", "2 CLOCK - 20261120T080000+0000"),
    ] {
        let now: Timestamp = at(NOW);
        let reading = Reading::in_zone(now, &TimeZone::get(zone).unwrap());
        assert_eq!(Request::Clock(reading).body(2), expected);
    }
}
