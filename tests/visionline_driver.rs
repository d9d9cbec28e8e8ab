//! The Visionline driver against servers played byte by byte, in memory under a paused clock. The server here knows no
//! protocol: it says what a test tells it to say. Every byte is written by hand.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use latchd::{
    config::{AgentConfig, DriverConfig, VisionlineConfig},
    drivers::{Driver, Line, Past, Performed, Work, visionline::Visionline},
    model::{
        AccessMethodId, CardEncode, CardRead, CardSeen, Code, DoorKind, DoorName, EncoderName, JobId, Order,
        Outcome, ProofLevel, ReservationKey, StayModify, Success, SystemName, Treatment, Window, Written,
    },
    protocol::Stage,
    seams::{Clock, Listener, MemoryNet, Net, Random, Stream},
    sim::Pty,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// The first card of a stay in room 101, as [`card`] orders it.
const FIRST_CARD: &str = "CCA;AM1;EA1;GR101;CI202611211500;CO202611241100;NC01;CR1,2;SR?;\r\n";
const FURTHER_CARD: &str = "CCA;JR1;AM1;EA1;GR101;CI202611211500;CO202611241100;NC01;CR1,2;SR?;\r\n";
const LOOK: &str = "CCB;AM1;EA1;SR?;\r\n";
const WRITTEN: &str = "CCA;EA1;RC0;SR04A1B2C3D4E580FF;\r\n";

/// For how long an encoder rests, unless the site says otherwise.
const SETTLE: Duration = Duration::from_secs(30);
/// No wait of a test is longer than this.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn the_first_card_of_a_stay_goes_out_byte_for_byte_and_what_was_written_comes_back() {
    let mut site = Site::open().await;
    let script = async {
        let mut server = site.listener.take(FIRST_CARD).await;
        sleep(Duration::from_secs(70)).await;
        server.say(WRITTEN).await;
        server.hung_up().await;
    };
    let (performed, stages) = perform_with_stages(&site.driver, first(card()), script).await;
    let success = success(performed);
    assert_eq!(success.written, Some(Written::Proven));
    let facts = success.card.unwrap();
    assert_eq!(facts.serial.as_deref(), Some("04A1B2C3D4E580"));
    assert_eq!(facts.overrode, Some(true));
    assert_eq!(facts.printed_end, Some(at("2026-11-24T10:00:00Z")));
    assert_eq!(stages, [Stage::WaitingForCard]);
}

#[tokio::test(start_paused = true)]
async fn a_further_card_joins_and_a_card_is_read_each_on_a_connection_of_its_own() {
    let mut site = Site::open().await;
    let performed = perform(&site.driver, further(card()), site.listener.serve(FURTHER_CARD, WRITTEN)).await;
    assert_eq!(success(performed).card.unwrap().overrode, Some(false));

    let answer = "CCB;EA1;RC13;GR101;CI202611211500;CO202611241100;CR1-2;UFJane;USDoe;SR04A1FF;\r\n";
    let performed = perform(&site.driver, read(), site.listener.serve(LOOK, answer)).await;
    assert_eq!(
        success(performed).seen,
        Some(CardSeen::Guest {
            rooms: vec!["101".into()],
            valid: true,
            original: false,
            common: vec!["pool".into(), "spa".into()],
            starts_at: Some(at("2026-11-21T14:00:00Z")),
            ends_at: Some(at("2026-11-24T10:00:00Z")),
            made_here: None,
        })
    );
    for (answer, seen) in
        [("CCB;EA1;RC46;\r\n", Some(CardSeen::Invalid)), ("CCB;EA1;RC44;\r\n", Some(CardSeen::Invalid))]
    {
        let performed = perform(&site.driver, read(), site.listener.serve(LOOK, answer)).await;
        assert_eq!(success(performed).seen, seen);
    }
}

#[tokio::test(start_paused = true)]
async fn every_refusal_has_its_name_and_a_doubt_is_never_a_failure() {
    let mut site = Site::open().await;
    for (answer, ends) in [
        ("CCA;EA1;RC3;ETNo connection;\r\n", "failed encoder_offline"),
        ("CCA;EA1;RC4;\r\n", "failed encoder_busy"),
        ("CCA;EA1;RC41;\r\n", "failed no_card"),
        ("CCA;EA1;RC18;\r\n", "failed bad_card"),
        ("CCA;EA1;RC57;\r\n", "failed bad_dates"),
        ("CCA;EA1;RC96;\r\n", "failed rejected"),
        ("\x15", "failed rejected"),
        ("CCA;EA1;RC20;\r\n", "unknown bad_card"),
        ("CCA;EA1;RC72;\r\n", "unknown rejected"),
        // Not published: whatever it means, the command was heard.
        ("CCA;EA1;RC200;ETUnknown room;\r\n", "unknown rejected"),
        ("CCA;EA1;ETwhat;\r\n", "unknown no_answer"),
        ("CCA;EA1;RC85;\r\nCCA;EA1;RC0;\r\n", "succeeded"),
        ("CCA;EA1;RC0;", "succeeded"),
    ] {
        let performed = perform(&site.driver, first(card()), site.listener.serve(FIRST_CARD, answer)).await;
        assert_eq!(end(&performed), ends, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_cut_at_any_byte_is_a_success_or_a_doubt() {
    let mut site = Site::open().await;
    for cut in 0..=WRITTEN.len() {
        let script = async {
            let mut server = site.listener.take(FIRST_CARD).await;
            server.say(&WRITTEN[..cut]).await;
        };
        let performed = perform(&site.driver, first(card()), script).await;
        let is_known = cut == 12 || cut + 2 >= WRITTEN.len();
        assert_eq!(end(&performed), if is_known { "succeeded" } else { "unknown line_lost" }, "cut at {cut}");
        site.rested().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_the_deadline_finds_nobody_and_is_never_the_next_ones() {
    let mut site = Site::open().await;
    let mut late = None;
    let performed = perform(&site.driver, first(card()), async {
        late = Some(site.listener.take(FIRST_CARD).await);
    })
    .await;
    assert_eq!(end(&performed), "unknown no_answer");
    site.rested().await;
    let script = async {
        let mut server = site.listener.take(FIRST_CARD).await;
        let mut late = late.unwrap();
        let _nobody = late.0.write_all(b"CCA;EA1;RC0;SR0BAD;\r\n").await;
        late.hung_up().await;
        server.say("CCA;EA1;RC41;\r\n").await;
    };
    assert_eq!(end(&perform(&site.driver, first(card()), script).await), "failed no_card");
}

#[tokio::test(start_paused = true)]
async fn a_queued_request_without_its_last_answer_is_a_doubt() {
    let mut site = Site::open().await;
    let began = Instant::now();
    let script = async {
        let mut server = site.listener.take(FIRST_CARD).await;
        server.say("CCA;EA1;RC85;\r\n").await;
        server.hung_up().await;
    };
    assert_eq!(end(&perform(&site.driver, first(card()), script).await), "unknown no_answer");
    assert!(Duration::from_secs(75) <= began.elapsed() && began.elapsed() < Duration::from_secs(80));
}

#[tokio::test(start_paused = true)]
async fn two_encoders_work_side_by_side_and_one_lane_each() {
    let mut site = Site::open().await;
    let mut other = card();
    other.encoder = EncoderName::new("2").unwrap();
    other.doors = vec![door("102")];
    let lanes = [card(), other.clone()].map(|card| site.driver.admit(&Order::CardEncode(card)).unwrap().lane);
    assert_eq!(lanes.map(|lane| lane.to_string()), ["front/1", "front/2"]);
    let nobody = |_stage: Stage| ();
    let script = async {
        let mut one = site.listener.take(FIRST_CARD).await;
        let second = "CCA;AM1;EA2;GR102;CI202611211500;CO202611241100;NC01;SR?;\r\n";
        let mut two = site.listener.take(second).await;
        two.say("CCA;EA2;RC0;SR02;\r\n").await;
        one.say("CCA;EA1;RC0;SR01;\r\n").await;
    };
    let both = async {
        tokio::join!(
            site.driver.perform(first(card()), &nobody),
            site.driver.perform(first(other), &nobody),
            script
        )
    };
    let (one, two, ()) = timeout(PATIENCE, both).await.unwrap();
    let serial = |performed| success(performed).card.unwrap().serial.unwrap();
    assert_eq!((serial(one).as_str(), serial(two).as_str()), ("01", "02"));
}

#[tokio::test(start_paused = true)]
async fn times_are_local_an_end_rounds_up_a_start_down_and_a_start_that_has_come_is_left_out() {
    let mut site = Site::open().await;
    for (start, end, written, printed_end) in [
        (
            "2026-11-21T14:00:59Z",
            "2026-11-24T10:00:01Z",
            "CI202611211500;CO202611241101",
            "2026-11-24T10:01:00Z",
        ),
        ("2026-11-19T14:00:00Z", "2026-11-24T10:00:00Z", "CO202611241100", "2026-11-24T10:00:00Z"),
        // Summer time.
        (
            "2027-06-30T22:30:00Z",
            "2027-07-02T10:00:00Z",
            "CI202707010030;CO202707021200",
            "2027-07-02T10:00:00Z",
        ),
        // 02:30 on the clock of the night that has that hour twice: before it, so that it is not taken for the later one.
        (
            "2027-10-31T00:30:00Z",
            "2027-11-02T10:00:00Z",
            "CI202710310159;CO202711021100",
            "2027-11-02T10:00:00Z",
        ),
        // Both ends are 02:30 on the clock of the night that has that hour twice; the later one may be what it means.
        (
            "2026-11-21T14:00:00Z",
            "2027-10-31T00:30:00Z",
            "CI202611211500;CO202710310230",
            "2027-10-31T01:30:00Z",
        ),
        (
            "2026-11-21T14:00:00Z",
            "2027-10-31T01:30:00Z",
            "CI202611211500;CO202710310230",
            "2027-10-31T01:30:00Z",
        ),
    ] {
        let mut card = card();
        card.doors = vec![door("102")];
        card.window = Window::new(at(start), Some(at(end))).unwrap();
        let admitted = site.driver.admit(&Order::CardEncode(card.clone())).unwrap();
        assert_eq!(admitted.printed_end, Some(at(printed_end)), "{end}");
        let expected = format!("CCA;AM1;EA1;GR102;{written};NC01;SR?;\r\n");
        let performed =
            perform(&site.driver, first(card), site.listener.serve(&expected, "CCA;EA1;RC0;\r\n")).await;
        let facts = success(performed).card.unwrap();
        assert_eq!(facts.printed_end, Some(at(printed_end)), "{end}");
        let stands_there = written.starts_with("CI").then(|| at(start));
        let printed_start = match start {
            "2026-11-21T14:00:59Z" => Some(at("2026-11-21T14:00:00Z")),
            // 01:59, the minute before the hour that comes twice.
            "2027-10-31T00:30:00Z" => Some(at("2027-10-30T23:59:00Z")),
            _ => stands_there,
        };
        assert_eq!(facts.printed_start, printed_start, "{start}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_site_sets_stands_in_the_command() {
    let mut site = Site::open_with("operator = \"BRIDGE\"\nuser_group = \"Guests\"\ncard_type = 7").await;
    let expected =
        "CCA;AM1;EA1;GR101;CI202611211500;CO202611241100;NC01;CR1,2;UGGuests;IOBRIDGE;CT7;SR?;\r\n";
    success(perform(&site.driver, first(card()), site.listener.serve(expected, WRITTEN)).await);
}

#[tokio::test(start_paused = true)]
async fn a_card_that_was_left_on_the_encoder_is_not_written_again() {
    let mut site = Site::open().await;
    let family = |n: u128| CardEncode { access_method_id: AccessMethodId(Uuid::from_u128(n)), ..card() };
    let left_there = "CCB;EA1;RC13;GR101;CO202611241100;SR04A1B2C3D4E580FF;\r\n";
    success(perform(&site.driver, first(family(1)), site.listener.serve(FIRST_CARD, WRITTEN)).await);
    // The same method's card may be written again at once; another one's waits until something else lies there.
    success(perform(&site.driver, further(family(1)), site.listener.serve(FURTHER_CARD, WRITTEN)).await);
    let script = async {
        site.listener.serve(LOOK, left_there).await;
        site.listener.serve(LOOK, left_there).await;
        site.listener.serve(LOOK, "CCB;EA1;RC13;GR101;CO202611241100;SR0B;\r\n").await;
        site.listener.serve(FURTHER_CARD, "CCA;EA1;RC0;SR0B;\r\n").await;
    };
    success(perform(&site.driver, further(family(2)), script).await);

    // Nobody takes it away: no byte of a third card leaves, and the desk is told why.
    let script = async {
        for _ in 0..=60 {
            site.listener.serve(LOOK, "CCB;EA1;RC13;GR101;SR0BFF;\r\n").await;
        }
    };
    let performed = perform(&site.driver, further(family(3)), script).await;
    let Performed::Ended(Outcome::Failed(refusal)) = performed else { panic!("{performed:?}") };
    assert_eq!(refusal.code, Code::NoCard);
    assert!(refusal.message.contains("take it away"), "{refusal}");

    // Nothing lies there: the server may wait for the card.
    let script = async {
        site.listener.serve(LOOK, "CCB;EA1;RC41;\r\n").await;
        site.listener.serve(FURTHER_CARD, "CCA;EA1;RC41;\r\n").await;
    };
    assert_eq!(end(&perform(&site.driver, further(family(4)), script).await), "failed no_card");
    // The encoder is at work: nothing of the card left.
    let performed =
        perform(&site.driver, further(family(5)), site.listener.serve(LOOK, "CCB;EA1;RC4;\r\n")).await;
    assert_eq!(end(&performed), "failed encoder_busy");
}

#[tokio::test(start_paused = true)]
async fn an_encoder_without_an_answer_rests_and_the_others_work() {
    let mut site = Site::open().await;
    let performed = perform(&site.driver, first(card()), async {
        site.listener.take(FIRST_CARD).await.hung_up().await;
    })
    .await;
    assert_eq!(end(&performed), "unknown no_answer");
    site.ready().await;
    let again = perform(&site.driver, first(card()), async {}).await;
    assert_eq!(end(&again), "nothing_sent encoder_busy");
    let other = CardEncode { encoder: EncoderName::new("2").unwrap(), doors: vec![door("102")], ..card() };
    let expected = "CCA;AM1;EA2;GR102;CI202611211500;CO202611241100;NC01;SR?;\r\n";
    success(perform(&site.driver, first(other), site.listener.serve(expected, "CCA;EA2;RC0;\r\n")).await);
    site.rested().await;
    success(perform(&site.driver, first(card()), site.listener.serve(FIRST_CARD, WRITTEN)).await);
}

#[tokio::test(start_paused = true)]
async fn after_a_run_that_ended_over_a_command_every_encoder_rests_first() {
    let net = MemoryNet::default();
    let listener = Doors(net.listen("127.0.0.1:4000".parse().unwrap()).await.unwrap());
    let (zone, name) = (TimeZone::get("Europe/Oslo").unwrap(), SystemName::new("front").unwrap());
    let (clock, past) = (Clock::simulated(at("2026-11-20T08:00:00Z")), Past::AnswerMayCome);
    let driver =
        Visionline::start_over(Arc::new(net), &config(""), name, zone, past, clock, Random::seeded(7));
    let mut site = Site { driver, listener };
    site.ready().await;
    let performed = perform(&site.driver, first(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent encoder_busy");
    site.rested().await;
    success(perform(&site.driver, first(card()), site.listener.serve(FIRST_CARD, WRITTEN)).await);
}

#[tokio::test(start_paused = true)]
async fn a_card_that_cannot_be_read_is_not_taken_for_another_one() {
    let mut site = Site::open().await;
    let family = |n: u128| CardEncode { access_method_id: AccessMethodId(Uuid::from_u128(n)), ..card() };
    success(perform(&site.driver, first(family(1)), site.listener.serve(FIRST_CARD, WRITTEN)).await);
    let script = async {
        for _ in 0..=60 {
            site.listener.serve(LOOK, "CCB;EA1;RC38;\r\n").await;
        }
    };
    let performed = perform(&site.driver, further(family(2)), script).await;
    let Performed::Ended(Outcome::Failed(refusal)) = performed else { panic!("{performed:?}") };
    assert_eq!(refusal.code, Code::NoCard);
    assert!(refusal.message.contains("cannot be read"), "{refusal}");
    // The person was told once, and lays another one down.
    success(perform(&site.driver, further(family(2)), site.listener.serve(FURTHER_CARD, WRITTEN)).await);
}

#[tokio::test(start_paused = true)]
async fn all_looks_at_an_encoder_share_one_deadline() {
    let mut site = Site::open().await;
    let family = |n: u128| CardEncode { access_method_id: AccessMethodId(Uuid::from_u128(n)), ..card() };
    success(perform(&site.driver, first(family(1)), site.listener.serve(FIRST_CARD, WRITTEN)).await);
    let began = Instant::now();
    let script = async {
        let mut server = site.listener.take(LOOK).await;
        sleep(Duration::from_secs(50)).await;
        server.say("CCB;EA1;RC38;\r\n").await;
        site.listener.take(LOOK).await.hung_up().await;
    };
    assert_eq!(end(&perform(&site.driver, further(family(2)), script).await), "failed no_answer");
    // A minute for the card, and the margin for an answer.
    assert!(began.elapsed() <= Duration::from_secs(75), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_serve_our_address_gets_no_work_until_it_does() {
    let net = MemoryNet::default();
    let mut listener = Doors(net.listen("127.0.0.1:4000".parse().unwrap()).await.unwrap());
    let driver = start(Arc::new(net), "");
    drop(listener.accept().await);
    line_is(&driver, "address_refused").await;
    let mut site = Site { driver, listener };
    site.ready().await;
    success(perform(&site.driver, first(card()), site.listener.serve(FIRST_CARD, WRITTEN)).await);
}

#[tokio::test(start_paused = true)]
async fn nobody_at_the_address_means_that_nothing_was_sent() {
    let driver = start(Arc::new(MemoryNet::default()), "");
    line_is(&driver, "tcp_unreachable").await;
    assert_eq!(end(&perform(&driver, first(card()), async {}).await), "nothing_sent system_offline");
}

#[tokio::test(start_paused = true)]
async fn a_stop_brings_back_what_has_not_left_and_lets_the_rest_end() {
    let mut site = Site::open().await;
    let script = async {
        let mut server = site.listener.take(FIRST_CARD).await;
        site.driver.stop();
        sleep(Duration::from_secs(20)).await;
        server.say(WRITTEN).await;
    };
    success(perform(&site.driver, first(card()), script).await);
    assert_eq!(end(&perform(&site.driver, first(card()), async {}).await), "nothing_sent system_offline");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_floods_the_line_does_not_hide_the_deadline() {
    let mut site = Site::open().await;
    let script = async {
        let mut server = site.listener.take(FIRST_CARD).await;
        while server.0.write_all(&[b'C'; 700]).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(end(&perform(&site.driver, first(card()), script).await), "unknown no_answer");
}

#[tokio::test]
async fn what_the_interface_cannot_do_is_refused_by_name_before_any_byte() {
    let driver = start(Arc::new(MemoryNet::default()), "");
    let check = |change: fn(&mut CardEncode), code: Code, says: &str| {
        let mut card = card();
        change(&mut card);
        let refusal = driver.admit(&Order::CardEncode(card)).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(says), "{refusal}");
    };
    check(|card| card.encoder = EncoderName::new("9").unwrap(), Code::EncoderUnknown, "encoder 9");
    check(|card| card.doors.push(door("0101")), Code::EntranceUnknown, "door 0101");
    check(|card| card.doors.push(door("102")), Code::TooManyDoors, "one room");
    check(|card| card.doors = vec![door("pool")], Code::Unsupported, "name a room");
    check(|card| card.doors = vec![door("1;2")], Code::Unsupported, "1;2");
    check(|card| card.doors = vec![door("Süd")], Code::Unsupported, "Süd");
    check(|card| card.doors = vec![door("1,2")], Code::Unsupported, "comma");
    check(
        |card| card.window = Window::new(card.window.starts_at(), None).unwrap(),
        Code::OpenEndUnsupported,
        "ends_at",
    );
    let reservation_key = ReservationKey::new("stay-1").unwrap();
    let longer = StayModify {
        room: door("101"),
        to_room: None,
        reservation_key: reservation_key.clone(),
        ends_at: at("2026-11-26T10:00:00Z"),
    };
    for order in [Order::StayCheckout { room: door("101"), reservation_key }, Order::StayModify(longer)] {
        let refusal = driver.admit(&order).unwrap_err();
        assert_eq!(refusal.code, Code::Unsupported);
        assert!(refusal.message.contains(order.kind().as_str()), "{refusal}");
        let performed = perform(&driver, work(order, Treatment::Plain), async {}).await;
        assert_eq!(end(&performed), "failed unsupported");
    }
    let plain = work(Order::CardEncode(card()), Treatment::Plain);
    assert_eq!(end(&perform(&driver, plain, async {}).await), "failed unsupported");
}

#[tokio::test]
async fn the_inventory_lists_the_site_and_how_well_each_thing_is_proven() {
    let driver = start(Arc::new(MemoryNet::default()), "");
    let inventory = driver.inventory();
    assert_eq!((inventory.kind.as_str(), inventory.encoders.len()), ("visionline", 2));
    let common = inventory.doors.iter().filter(|door| door.kind == DoorKind::Common);
    assert_eq!((inventory.doors.len(), common.count()), (7, 2));
    let can = inventory.capabilities;
    assert_eq!((can.r#override, can.join), (Some(ProofLevel::Vector), Some(ProofLevel::Vector)));
    assert_eq!((can.checkout, can.modify_stay, can.open_end), (None, None, None));
    assert_eq!(can.max_rooms, 1);
    assert!(can.parallel_encoders);
    let lanes: Vec<_> = driver.lanes().iter().map(ToString::to_string).collect();
    assert_eq!(lanes, ["front", "front/1", "front/2"]);
}

#[test]
fn every_name_that_the_interface_cannot_say_is_shown_at_once() {
    let mistakes = Visionline::mistakes(&config(""));
    assert_eq!(mistakes.len(), 3, "{mistakes:#?}");
    assert!(
        ["1;2", "Süd", "1,2"].iter().zip(&mistakes).all(|(name, mistake)| mistake.contains(name)),
        "{mistakes:#?}"
    );
}

/// Over a pseudo-terminal, which does not imitate speed or parity.
#[tokio::test]
async fn over_a_serial_line_a_command_is_acknowledged_and_the_line_rests_where_its_answer_did_not_come() {
    const BLOCK: &[u8] = b"\x02CCA;AM1;EA1;GR101;CI202611211500;CO202611241100;NC01;CR1,2;SR?;5E\x03";
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("visionline.tty");
    let mut server = Pty::open(&link).unwrap();
    let mut config = config("ack_timeout = \"1s\"\nsettle = \"1s\"");
    config.line.tcp = None;
    config.line.serial = Some(link);
    let driver = start_with(Arc::new(MemoryNet::default()), &config);
    assert_eq!(driver.lanes().len(), 1);
    assert!(!driver.inventory().capabilities.parallel_encoders);
    is_ready(&driver).await;
    let script = async {
        hear(&mut server, BLOCK).await;
        server.write_all(b"\x15").await.unwrap();
        hear(&mut server, BLOCK).await;
        server.write_all(b"\x06").await.unwrap();
        for byte in b"\x02CCA;EA1;RC0;SR04A1FF;22\x03" {
            server.write_all(&[*byte]).await.unwrap();
        }
    };
    let performed = perform(&driver, first(card()), script).await;
    assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("04A1"));

    // Never acknowledged: a doubt, and what comes later is not the next one's.
    let performed = perform(&driver, first(card()), hear(&mut server, BLOCK)).await;
    assert_eq!(end(&performed), "unknown no_answer");
    assert_eq!(end(&perform(&driver, first(card()), async {}).await), "nothing_sent system_offline");
    server.write_all(b"\x06CCA;EA1;RC0;\r\n").await.unwrap();
    is_ready(&driver).await;
    let script = async {
        hear(&mut server, BLOCK).await;
        server.write_all(b"\x06CCA;EA1;RC41;\r\n").await.unwrap();
    };
    assert_eq!(end(&perform(&driver, first(card()), script).await), "failed no_card");
}

async fn hear(server: &mut Pty, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    timeout(PATIENCE, server.read_exact(&mut heard)).await.expect("bytes in time").unwrap();
    assert_eq!(heard.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

async fn is_ready(driver: &Visionline) {
    let mut line = driver.line();
    timeout(PATIENCE, line.wait_for(|line| *line == Line::Ready)).await.expect("ready in time").unwrap();
}

/// A driver, and the listener of its server.
struct Site {
    driver: Visionline,
    listener: Doors,
}

impl Site {
    async fn open() -> Self {
        Self::open_with("").await
    }

    async fn open_with(more: &str) -> Self {
        let net = MemoryNet::default();
        let listener = Doors(net.listen("127.0.0.1:4000".parse().unwrap()).await.unwrap());
        let mut site = Self { driver: start(Arc::new(net), more), listener };
        site.ready().await;
        site
    }

    /// Lets pass the time for which an encoder rests after a command without an answer.
    async fn rested(&mut self) {
        self.ready().await;
        sleep(SETTLE).await;
    }

    /// Lets the driver look at the line until it is ready.
    async fn ready(&mut self) {
        let mut line = self.driver.line();
        let looked = async {
            loop {
                if *line.borrow_and_update() == Line::Ready {
                    return;
                }
                tokio::select! {
                    biased;
                    changed = line.changed() => changed.unwrap(),
                    mut looking = self.listener.accept() => looking.hung_up().await,
                }
            }
        };
        timeout(PATIENCE, looked).await.expect("the line is ready in time");
    }
}

fn start(net: Arc<dyn Net>, more: &str) -> Visionline {
    start_with(net, &config(more))
}

fn start_with(net: Arc<dyn Net>, config: &VisionlineConfig) -> Visionline {
    let clock = Clock::simulated(at("2026-11-20T08:00:00Z"));
    let zone = TimeZone::get("Europe/Oslo").unwrap();
    let name = SystemName::new("front").unwrap();
    Visionline::start_over(net, config, name, zone, Past::Answered, clock, Random::seeded(7))
}

fn config(more: &str) -> VisionlineConfig {
    let text = format!(
        r#"
        [site]
        name = "House"
        time_zone = "Europe/Oslo"
        [storage]
        folder = "store"
        [[system]]
        name = "front"
        kind = "visionline"
        exclusive = true
        line = {{ tcp = "visionline.lan:4000" }}
        encoders = ["1", "2"]
        rooms = ["101", "102", "1;2", "Süd", "1,2"]
        common = [{{ name = "pool", number = 1 }}, {{ name = "spa", number = 2 }}]
        {more}
        "#
    );
    let config = AgentConfig::from_toml(Path::new("/latchd.toml"), &text);
    let mut config = config.unwrap_or_else(|errors| panic!("{errors}"));
    let DriverConfig::Visionline(visionline) = config.systems.remove(0).driver else {
        panic!("another make")
    };
    visionline
}

/// The server's listener.
struct Doors(Box<dyn Listener>);

impl Doors {
    async fn accept(&mut self) -> Server {
        Server(self.0.accept().await.unwrap().0)
    }

    /// Takes a connection with exactly this command; one that only looks is let go.
    async fn take(&mut self, command: &str) -> Server {
        let taken = async {
            loop {
                let mut server = self.accept().await;
                let mut heard = vec![0; command.len()];
                if server.0.read_exact(&mut heard).await.is_ok() {
                    assert_eq!(
                        heard.escape_ascii().to_string(),
                        command.as_bytes().escape_ascii().to_string()
                    );
                    return server;
                }
            }
        };
        timeout(PATIENCE, taken).await.expect("a command in time")
    }

    /// A whole conversation.
    async fn serve(&mut self, command: &str, answer: &str) {
        let mut server = self.take(command).await;
        server.say(answer).await;
        server.hung_up().await;
    }
}

struct Server(Box<dyn Stream>);

impl Server {
    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The driver closes the connection, and says nothing before.
    async fn hung_up(&mut self) {
        let mut rest = Vec::new();
        let _reset_is_fine = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("it hangs up");
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn door(name: &str) -> DoorName {
    DoorName::new(name).unwrap()
}

/// A card for room 101, pool and spa, from 15:00 to 11:00 local time.
fn card() -> CardEncode {
    CardEncode {
        encoder: EncoderName::new("1").unwrap(),
        doors: ["101", "pool", "spa"].map(door).into(),
        reservation_key: None,
        window: Window::new(at("2026-11-21T14:00:00Z"), Some(at("2026-11-24T10:00:00Z"))).unwrap(),
        access_method_id: AccessMethodId(Uuid::nil()),
        guest_name: None,
        card_wait_seconds: 60,
        begin_again: false,
    }
}

fn first(card: CardEncode) -> Work {
    work(Order::CardEncode(card), Treatment::Override)
}

fn further(card: CardEncode) -> Work {
    work(Order::CardEncode(card), Treatment::Join)
}

fn read() -> Work {
    let read = CardRead { encoder: EncoderName::new("1").unwrap(), card_wait_seconds: 60 };
    work(Order::CardRead(read), Treatment::Plain)
}

fn work(order: Order, treatment: Treatment) -> Work {
    Work { job_id: JobId(Uuid::nil()), order, treatment, to_see: None, slot: None }
}

/// Does the work, while the server does what the test says.
async fn perform(driver: &Visionline, work: Work, server: impl Future<Output = ()>) -> Performed {
    perform_with_stages(driver, work, server).await.0
}

/// [`perform`], and which stages were told.
async fn perform_with_stages(
    driver: &Visionline,
    work: Work,
    server: impl Future<Output = ()>,
) -> (Performed, Vec<Stage>) {
    let stages = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&stages);
    let sink = move |stage: Stage| told.lock().unwrap().push(stage);
    let both = async { tokio::join!(driver.perform(work, &sink), server).0 };
    let performed = timeout(PATIENCE, both).await.expect("the work ends");
    let stages = stages.lock().unwrap().clone();
    (performed, stages)
}

fn success(performed: Performed) -> Success {
    match performed {
        Performed::Ended(Outcome::Succeeded(success)) => success,
        other => panic!("not a success: {other:?}"),
    }
}

/// How it ended, in one word and the code: `nothing_sent system_offline`.
fn end(performed: &Performed) -> String {
    match performed {
        Performed::NothingSent(refusal) => format!("nothing_sent {}", refusal.code),
        Performed::MayRepeat(refusal) => format!("may_repeat {}", refusal.code),
        Performed::Ended(Outcome::Failed(refusal)) => format!("failed {}", refusal.code),
        Performed::Ended(Outcome::Unknown(refusal)) => format!("unknown {}", refusal.code),
        Performed::Ended(other) => other.state().to_string(),
    }
}

/// Waits until the line is down with this trouble.
async fn line_is(driver: &Visionline, wanted: &str) {
    let mut line = driver.line();
    let is_so = |line: &Line| matches!(line, Line::Down(trouble) if trouble.code == wanted);
    timeout(PATIENCE, line.wait_for(is_so)).await.expect("in time").unwrap();
}
