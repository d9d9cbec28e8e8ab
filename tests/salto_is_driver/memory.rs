//! Under a paused clock, over a network in memory: everything that is about time.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use latchd::{
    drivers::{
        Driver, Performed,
        salto_is::{Past, SaltoIs},
    },
    model::{CardSeen, Code, Order, Outcome, ReservationKey, StayModify, Treatment, Written},
    protocol::Stage,
    seams::{BoxFuture, Listener, MemoryNet, Net, Random, Stream},
};
use tokio::time::{Instant, sleep, timeout};

use crate::desk::*;

#[tokio::test(start_paused = true)]
async fn the_first_card_of_a_stay_goes_out_byte_for_byte_and_what_was_written_comes_back() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let script = async {
        server.take(FIRST_CARD).await;
        sleep(Duration::from_secs(70)).await;
        server.say(&frame("CN1|1|04A1B2C3D4E580")).await;
        server.expect(ACK).await;
    };
    let (performed, stages) = perform_with_stages(&site.driver, override_with(card()), script).await;
    let success = success(performed);
    assert_eq!(success.written, Some(Written::Proven));
    let facts = success.card.unwrap();
    assert_eq!(facts.serial.as_deref(), Some("04A1B2C3D4E580"));
    assert_eq!(facts.overrode, Some(true));
    assert_eq!(facts.printed_end, Some(at("2026-11-24T10:00:00Z")));
    assert_eq!(stages, [Stage::WaitingForCard]);
}

#[tokio::test(start_paused = true)]
async fn a_further_card_joins_a_card_is_read_and_a_room_is_freed_over_one_connection() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;

    let join = work(Order::CardEncode(card()), Treatment::Join);
    let copy = frame("CC1|1|E|101||||12||1500211126|1100241126|BRIDGE||||1");
    let performed = perform(&site.driver, join, server.serve(&copy, "CC|1")).await;
    assert_eq!(success(performed).card.unwrap().overrode, Some(false));

    let answer = "LT|1|101|102|||CI|1|12|1500211126|11241126|DESK";
    let performed = perform(&site.driver, read(), server.serve(&frame("LT|1|E"), answer)).await;
    assert_eq!(
        success(performed).seen,
        Some(CardSeen::Guest {
            rooms: vec!["101".into(), "102".into()],
            valid: true,
            original: false,
            common: vec!["pool".into(), "spa".into()],
            starts_at: Some(at("2026-11-21T14:00:00Z")),
            ends_at: Some(at("2026-11-24T10:00:00Z")),
            made_here: Some(false),
        })
    );

    let checkout =
        Order::StayCheckout { room: door("101"), reservation_key: ReservationKey::new("stay-1").unwrap() };
    let free = frame("CO|0|101");
    let script = server.serve(&free, "CO|0|101");
    let performed = perform(&site.driver, work(checkout, Treatment::Plain), script).await;
    assert_eq!(success(performed).written, Some(Written::Proven));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_stay_is_changed_and_what_the_server_says_of_it_is_told() {
    /// `MC` of room 101 until 11:01 on 26 November, nothing behind the end: every byte written by hand.
    const LONGER: &[u8] = b"\x02\xb3MC\xb3101\xb3\xb31101261126\xb3\x03\x8f";
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let order = Order::StayModify(StayModify {
        room: door("101"),
        to_room: None,
        reservation_key: ReservationKey::new("stay-1").unwrap(),
        ends_at: at("2026-11-26T10:00:01Z"),
    });
    let longer = || work(order.clone(), Treatment::Plain);
    let performed = perform(&site.driver, longer(), server.serve(LONGER, "MC|101")).await;
    let done = success(performed);
    assert_eq!((done.written, done.card), (Some(Written::Proven), None));
    for (answer, told) in [
        ("EA|101", "failed no_stay_to_join"),
        ("TD|101", "failed room_unknown"),
        ("EG|101|expiry lies in the past", "failed rejected"),
        ("MX|101", "unknown no_answer"),
    ] {
        let performed = perform(&site.driver, longer(), server.serve(LONGER, answer)).await;
        assert_eq!(end(&performed), told, "{answer}");
        if told.starts_with("unknown") {
            server.hung_up().await;
            server = site.accept().await;
            ready(&site.driver).await;
        }
    }
    let performed = perform(&site.driver, longer(), server.take(LONGER)).await;
    assert_eq!(end(&performed), "unknown no_answer");
}

#[tokio::test(start_paused = true)]
async fn times_are_local_an_end_rounds_up_a_start_down_and_a_start_that_has_come_is_empty() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    for (start, end, written, printed_end) in [
        ("2026-11-21T14:00:59Z", "2026-11-24T10:00:01Z", "1500211126|1101241126", "2026-11-24T10:01:00Z"),
        ("2026-11-19T14:00:00Z", "2026-11-24T10:00:00Z", "|1100241126", "2026-11-24T10:00:00Z"),
        // Summer time.
        ("2027-06-30T22:30:00Z", "2027-07-02T10:00:00Z", "0030010727|1200020727", "2027-07-02T10:00:00Z"),
        // Both ends are 02:30 on the clock of the night that has that hour twice; the later one may be what it means.
        ("2026-11-21T14:00:00Z", "2027-10-31T00:30:00Z", "1500211126|0230311027", "2027-10-31T01:30:00Z"),
        ("2026-11-21T14:00:00Z", "2027-10-31T01:30:00Z", "1500211126|0230311027", "2027-10-31T01:30:00Z"),
    ] {
        let mut card = card();
        card.doors = vec![door("102")];
        card.window = latchd::model::Window::new(at(start), Some(at(end))).unwrap();
        let expected = frame(&format!("CN1|1|E|102||||||{written}|BRIDGE||||1"));
        let performed = perform(&site.driver, override_with(card), server.serve(&expected, "CN1|1")).await;
        assert_eq!(success(performed).card.unwrap().printed_end, Some(at(printed_end)), "{end}");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_change_the_frame_and_the_last_byte() {
    let more = "lrc = \"skip\"\nwait_for_removal = false\nack_final = false";
    let mut site = Site::open_with(more).await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let script = async {
        server.take(b"\x02\xb3LT\xb31\xb3R\xb3\x03\x0d").await;
        server.say(b"\x02\xb3LT\xb31\xb3LM\xb3\x03\x0d").await;
        // Nothing acknowledges it: the next byte is the next poll.
    };
    let performed = perform(&site.driver, read(), script).await;
    assert_eq!(success(performed).seen, Some(CardSeen::Staff));
    let script = async {
        server.expect(ENQ).await;
        server.say(NAK).await;
        server.expect(ENQ).await;
        server.say(NAK).await;
        server.expect(ENQ).await;
        server.say(NAK).await;
    };
    let performed = perform(&site.driver, read(), script).await;
    assert_eq!(end(&performed), "nothing_sent encoder_busy");
    assert_eq!(word(&site.driver.line().borrow()), "ready");
}

#[tokio::test(start_paused = true)]
async fn where_the_encoder_does_not_wait_a_card_that_was_left_there_is_not_written_again() {
    let mut site = Site::open_with("wait_for_removal = false").await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let family = |n: u128| {
        let mut card = card();
        card.doors = vec![door("101")];
        card.access_method_id = latchd::model::AccessMethodId(uuid::Uuid::from_u128(n));
        card
    };
    let write = |name: &str| frame(&format!("{name}|1|R|101||||||1500211126|1100241126|BRIDGE||||1"));
    let (first, copy) = (write("CN1"), write("CC1"));
    let look = frame("LT|1|R");
    let left_there = "LT|1|101||||CI|0||1500211126|1100241126|BRIDGE";
    let joining = |n: u128| work(Order::CardEncode(family(n)), Treatment::Join);
    success(perform(&site.driver, override_with(family(1)), server.serve(&first, "CN1|1|A")).await);

    // The same method's card may be written again at once; another one's waits until something else lies there.
    success(perform(&site.driver, joining(1), server.serve(&copy, "CC1|1|A")).await);
    let script = async {
        server.serve(&look, left_there).await;
        server.serve(&look, left_there).await;
        server.serve(&look, "LT|1|LD").await;
        server.serve(&copy, "CC1|1|B").await;
    };
    let performed = perform(&site.driver, joining(2), script).await;
    assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("B"));

    // Nobody takes it away: no byte of a third card leaves, and the desk is told why.
    let script = async {
        for _ in 0..=60 {
            server.serve(&look, left_there).await;
        }
    };
    let performed = perform(&site.driver, joining(3), script).await;
    let Performed::Ended(Outcome::Failed(refusal)) = performed else { panic!("{performed:?}") };
    assert_eq!(refusal.code, Code::NoCard);
    assert!(refusal.message.contains("take it away"), "{refusal}");

    // A foreign card lies there, or nobody came: the one is tried, the other is the end.
    let script = async {
        server.serve(&look, "EF|1").await;
        server.serve(&copy, "EF|1").await;
    };
    assert_eq!(end(&perform(&site.driver, joining(4), script).await), "failed bad_card");
    // Nothing was written then, so the card before it is still the one that must not lie there.
    let script = async {
        server.serve(&look, "LT|1|LD").await;
        server.serve(&copy, "CC1|1|C").await;
    };
    success(perform(&site.driver, joining(5), script).await);
    let performed = perform(&site.driver, joining(6), server.serve(&look, "ED|1")).await;
    assert_eq!(end(&performed), "failed no_card");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_the_poll_gets_no_work_until_it_does() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let performed = perform(&site.driver, override_with(card()), server.expect(ENQ)).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
    assert_eq!(word(&site.driver.line().borrow()), "system_silent");
    server.hung_up().await;

    let mut server = site.accept().await;
    server.expect(ENQ).await;
    let performed = perform(&site.driver, override_with(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
    server.hung_up().await;

    let mut server = site.accept().await;
    assert_eq!(word(&site.driver.line().borrow()), "system_silent");
    server.answer_poll().await;
    ready(&site.driver).await;
    let performed = perform(&site.driver, override_with(card()), server.serve(FIRST_CARD, "CN1|1")).await;
    success(performed);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_never_taken_for_the_next_jobs() {
    let mut site = Site::open().await;
    let mut old = site.accept().await;
    ready(&site.driver).await;
    let performed = perform(&site.driver, override_with(card()), old.take(FIRST_CARD)).await;
    assert_eq!(end(&performed), "unknown no_answer");
    old.hung_up().await;

    let mut new = site.accept().await;
    ready(&site.driver).await;
    // The lock server may be at work on it still: its encoder gets nothing before that is over.
    let performed = perform(&site.driver, override_with(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent encoder_busy");
    rested(&site.driver).await;
    let script = async {
        // The server delivers the old answer on the new connection: it comes before the new command was taken.
        new.expect(ENQ).await;
        new.say(&frame("CN1|1|0LD")).await;
        new.say(ACK).await;
        new.expect(FIRST_CARD).await;
        new.say(&frame("CN1|1|0LD")).await;
        new.say(ACK).await;
        new.say(&frame("CN1|1|NEW")).await;
        new.expect(ACK).await;
    };
    let performed = perform(&site.driver, override_with(card()), script).await;
    assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("NEW"));
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_between_jobs_is_thrown_away() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    server.say(&frame("CN1|1|0LD")).await;
    server.say(b"\x06\x15 noise \x02\xb3").await;
    let performed = perform(&site.driver, override_with(card()), server.serve(FIRST_CARD, "CN1|1|NEW")).await;
    assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("NEW"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_and_closes_the_connection_is_held_by_somebody_else_until_an_exchange_succeeds() {
    let mut site = Site::open().await;
    drop(site.accept().await);
    line_is(&site.driver, "second_client_refused").await;
    let since = Instant::now();
    let mut attempts = 0;
    while since.elapsed() < Duration::from_secs(120) {
        drop(site.accept().await);
        attempts += 1;
        assert_eq!(word(&site.driver.line().borrow()), "second_client_refused");
    }
    assert!((10..=20).contains(&attempts), "{attempts} attempts in two minutes");
    let performed = perform(&site.driver, override_with(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");

    let mut server = site.accept().await;
    assert_eq!(word(&site.driver.line().borrow()), "second_client_refused", "connected is not enough");
    server.answer_poll().await;
    ready(&site.driver).await;
    let performed = perform(&site.driver, override_with(card()), server.serve(FIRST_CARD, "CN1|1")).await;
    success(performed);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_at_the_first_poll_is_held_by_somebody_else_too() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let script = async move { server.expect(ENQ).await };
    let performed = perform(&site.driver, override_with(card()), script).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
    assert_eq!(word(&site.driver.line().borrow()), "second_client_refused");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_later_is_a_line_down_and_comes_back_by_itself() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let performed = perform(&site.driver, override_with(card()), server.serve(FIRST_CARD, "CN1|1")).await;
    success(performed);
    drop(server);
    line_is(&site.driver, "line_down").await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let script = async {
        server.take(FIRST_CARD).await;
        drop(server);
    };
    let performed = perform(&site.driver, override_with(card()), script).await;
    assert_eq!(end(&performed), "unknown line_lost");
    let _server = site.accept().await;
    ready(&site.driver).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_at_the_address_is_tried_less_and_less_often() {
    let net = Arc::new(Counting::default());
    let driver = start(net.clone(), "");
    line_is(&driver, "tcp_unreachable").await;
    let performed = perform(&driver, override_with(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
    sleep(Duration::from_secs(600)).await;
    let attempts = net.attempts.load(Ordering::Relaxed);
    assert!((50..=65).contains(&attempts), "{attempts} attempts in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_stop_brings_back_what_has_not_left_and_lets_the_rest_end() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let began = Instant::now();
    let script = async {
        server.take(FIRST_CARD).await;
        site.driver.stop();
        sleep(Duration::from_secs(20)).await;
        server.say(&frame("CN1|1")).await;
        server.expect(ACK).await;
    };
    success(perform(&site.driver, override_with(card()), script).await);
    assert!(Duration::from_secs(20) <= began.elapsed());
    let performed = perform(&site.driver, override_with(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");

    let mut other = Site::open().await;
    let mut server = other.accept().await;
    ready(&other.driver).await;
    let began = Instant::now();
    let script = async {
        server.expect(ENQ).await;
        other.driver.stop();
    };
    let performed = perform(&other.driver, override_with(card()), script).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
    assert!(began.elapsed() < Duration::from_secs(1), "at once, not after the poll's timeout");
}

#[tokio::test(start_paused = true)]
async fn a_conversation_nobody_waits_for_any_more_is_still_held_to_its_end() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let nobody = |_stage: Stage| ();
    {
        let work = site.driver.perform(override_with(card()), &nobody);
        let dropped = timeout(Duration::from_secs(30), async {
            tokio::join!(work, server.take(FIRST_CARD));
        });
        assert!(dropped.await.is_err());
    }
    server.say(&frame("CN1|1|0LD")).await;
    server.expect(ACK).await;
    // Nobody was there to hear that the encoder is free again.
    rested(&site.driver).await;
    let script = async {
        server.serve(FIRST_CARD, "CN1|1|NEW").await;
    };
    let performed = perform(&site.driver, override_with(card()), script).await;
    assert_eq!(success(performed).card.unwrap().serial.as_deref(), Some("NEW"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_floods_the_line_neither_starves_the_work_nor_hides_its_end() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let script = async {
        loop {
            if tokio::io::AsyncWriteExt::write_all(&mut server.0, &[b'x'; 700]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let performed = perform(&site.driver, override_with(card()), script).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_driver_closes_the_line() {
    let mut site = Site::open().await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    drop(site);
    server.hung_up().await;
}

#[tokio::test(start_paused = true)]
async fn a_line_that_makes_no_sense_stays_down_by_name() {
    let mut config = config("serial = \"/dev/ttyUSB0\"", "");
    config.line.framing = "9N1".into();
    let driver = SaltoIs::start(&config, name(), oslo(), Past::Answered, clock(), Random::seeded(1));
    line_is(&driver, "line_config").await;
    let performed = perform(&driver, override_with(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_the_line_is_survived() {
    let net = MemoryNet::default();
    let mut listener = net.listen("127.0.0.1:8090".parse().unwrap()).await.unwrap();
    let driver = start(Arc::new(Panicking(AtomicUsize::new(0), net)), "");
    line_is(&driver, "line_failed").await;
    let performed = perform(&driver, override_with(card()), async {}).await;
    assert_eq!(end(&performed), "nothing_sent system_offline");
    let mut server = Server(listener.accept().await.unwrap().0);
    ready(&driver).await;
    success(perform(&driver, override_with(card()), server.serve(FIRST_CARD, "CN1|1")).await);
}

/// A driver, and the listener of its lock server.
pub(crate) struct Site {
    pub(crate) driver: SaltoIs,
    listener: Box<dyn Listener>,
}

impl Site {
    async fn open() -> Self {
        Self::open_with("").await
    }

    pub(crate) async fn open_with(more: &str) -> Self {
        let net = MemoryNet::default();
        let listener = net.listen("127.0.0.1:8090".parse().unwrap()).await.unwrap();
        Self { driver: start(Arc::new(net), more), listener }
    }

    pub(crate) async fn accept(&mut self) -> Server<Box<dyn Stream>> {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        Server(accepted.expect("a connection in time").unwrap().0)
    }
}

fn start(net: Arc<dyn Net>, more: &str) -> SaltoIs {
    let config = config("tcp = \"salto.lan:8090\"", more);
    SaltoIs::start_over(net, &config, name(), oslo(), Past::Answered, clock(), Random::seeded(7))
}

/// A network without anybody, which counts who asks.
#[derive(Default)]
struct Counting {
    attempts: AtomicUsize,
}

impl Net for Counting {
    fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }

    fn listen(&self, _address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

/// A network whose first connection is a bug.
struct Panicking(AtomicUsize, MemoryNet);

impl Net for Panicking {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        assert_ne!(self.0.fetch_add(1, Ordering::Relaxed), 0, "the bug");
        self.1.connect(host, port)
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.1.listen(address)
    }
}
