//! The simulated SALTO SPACE server, spoken to byte by byte over its own lines and judged by the published frames.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

mod faults;
mod onity;
mod vectors;

use std::time::Duration;

use latchd::{
    drivers::salto_is::sim::{Front, Line, Options, Settings, Simulator, Style},
    seams::Stream,
    sim::control::{Client, ControlError},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_serial::SerialPortBuilderExt;

const ENQ: &[u8] = &[0x05];
const ACK: &[u8] = &[0x06];
const NAK: &[u8] = &[0x15];
const LONG_ENOUGH: Duration = Duration::from_secs(20);

/// A running simulator and somebody with hands and eyes beside it.
struct Site {
    front: Front,
    control: Client,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings =
            Settings { starts_at: Some("2026-11-21T14:00:00Z".parse().unwrap()), ..Settings::default() };
        change(&mut settings);
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            folder: folder.path().to_owned(),
            pty: true,
            tcp: Some("127.0.0.1:0".parse().unwrap()),
        };
        let front = Front::open(Simulator::new(settings).unwrap(), options).await.unwrap();
        let control = Client::connect(&front.places().control).await.unwrap();
        Self { front, control, _folder: folder }
    }

    async fn say(&mut self, command: &str) -> Value {
        self.control.send(command).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn count(&mut self, what: &str) -> u64 {
        self.say(&format!("wire count {what}")).await["count"].as_u64().unwrap()
    }

    /// Everything the ledger says of the last order.
    async fn last_order(&mut self) -> Value {
        self.say("ledger").await["orders"].as_array().unwrap().last().unwrap().clone()
    }

    async fn tcp(&self) -> Peer {
        let stream = TcpStream::connect(self.front.places().tcp.unwrap()).await.unwrap();
        Peer(Box::new(stream))
    }

    fn serial(&self) -> Peer {
        let path = self.front.places().tty.as_ref().unwrap().to_string_lossy();
        Peer(Box::new(tokio_serial::new(path, 9600).open_native_async().unwrap()))
    }
}

/// A client that knows nothing but bytes.
struct Peer(Box<dyn Stream>);

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        timeout(LONG_ENOUGH, self.0.write_all(bytes)).await.unwrap().unwrap();
    }

    async fn expect(&mut self, expected: &[u8]) {
        let mut heard = vec![0; expected.len()];
        let read = timeout(LONG_ENOUGH, self.0.read_exact(&mut heard)).await;
        let read = read.unwrap_or_else(|_| panic!("no answer; expected {}", expected.escape_ascii()));
        read.unwrap_or_else(|error| panic!("{error}; expected {}", expected.escape_ascii()));
        assert_eq!(heard.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    async fn expect_the_end(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = timeout(LONG_ENOUGH, self.0.read_to_end(&mut rest)).await.expect("hung up in time");
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }

    async fn ask(&mut self, request: &[u8], answer: &[u8]) {
        self.send(request).await;
        self.expect(ACK).await;
        self.expect(answer).await;
        self.send(ACK).await;
    }

    async fn exchange(&mut self, request: &str, answer: &str) {
        self.ask(&frame(request), &frame(answer)).await;
    }
}

/// A simulator without a kernel in between, for tests that own the time.
fn in_memory(settings: Settings) -> (Simulator, Peer) {
    let simulator = Simulator::new(settings).unwrap();
    let (ours, theirs) = tokio::io::duplex(4096);
    let serving = simulator.clone();
    tokio::spawn(async move { serving.serve(theirs, Line::Serial).await });
    (simulator, Peer(Box::new(ours)))
}

/// STX, fields, separator, ETX, checksum.
fn frame(fields: &str) -> Vec<u8> {
    let mut bytes = vec![0xb3];
    bytes.extend(fields.bytes().map(|byte| if byte == b'|' { 0xb3 } else { byte }));
    bytes.extend([0xb3, 0x03]);
    let check = bytes.iter().fold(0, |sum, byte| sum ^ byte);
    [&[0x02], &bytes[..], &[check]].concat()
}

const STAY: &str = "1500211126|1100241126|DESK";

fn check_in(encoder: &str, room: &str, common: &str) -> String {
    format!("CN|{encoder}|R|{room}||||{common}||{STAY}")
}

#[tokio::test]
async fn both_lines_work_at_once_on_one_state() {
    let mut site = Site::new().await;
    let (mut serial, mut tcp) = (site.serial(), site.tcp().await);
    site.say("place anna on 1").await;
    site.say("place ben on 2").await;
    serial.exchange(&check_in("1", "101", "1"), "CN|1").await;
    let copy = check_in("2", "101", "13").replacen("CN", "CC", 1);
    tcp.exchange(&copy, "CC|2").await;
    let doors = site.say("doors").await["doors"].clone();
    assert_eq!(doors["101"], json!(["anna", "ben"]));
    assert_eq!((&doors["pool"], &doors["gym"]), (&json!(["anna", "ben"]), &json!(["ben"])));

    site.say("remove 2").await;
    site.say("place carl on 2").await;
    tcp.exchange(&check_in("2", "101", ""), "CN|2").await;
    assert_eq!(site.say("use anna at 101").await["opened"], true);
    assert_eq!(site.say("use carl at 101").await["first_of_a_newer_stay"], true);
    assert_eq!(site.say("use anna at 101").await["code"], "superseded");
    assert_eq!(site.say("use ben at 101").await["code"], "superseded");
    assert_eq!(site.say("use ben at pool").await["opened"], true);
}

#[tokio::test]
async fn what_the_server_cannot_do_is_answered_by_its_code() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("set card-wait 0").await;
    site.say("room 110 out-of-service").await;
    peer.exchange(&check_in("9", "101", ""), "NC|9").await;
    peer.exchange(&check_in("1", "0101", ""), "TD|1").await;
    peer.exchange(&check_in("1", "110", ""), "OS|1").await;
    peer.exchange(&check_in("1", "101", "`"), "ES|1").await;
    peer.exchange(&check_in("1", "101", "}"), "ES|1").await;
    peer.exchange("CC|1|R|101", "EA|1").await;
    peer.exchange("CN|1|R|101||||||1500211126|1500211126", "EG|1|expiry is not after start").await;
    peer.exchange("CN|1|R|101||||||1500211026|1100241026", "EG|1|expiry lies in the past").await;
    peer.exchange(&check_in("1", "101", ""), "ED|1").await;
    peer.exchange("LT|1|R", "ED|1").await;
    site.say("place alien foreign on 1").await;
    peer.exchange(&check_in("1", "101", ""), "EF|1").await;
    peer.exchange("LT|1|R", "EF|1").await;
    assert_eq!(site.say("ledger").await["rooms"]["101"]["last_stay"], 0, "nothing was written");
}

#[tokio::test]
async fn an_encoder_waits_for_its_card_and_is_busy_meanwhile() {
    let mut site = Site::new().await;
    let (mut first, mut second) = (site.tcp().await, site.serial());
    first.send(&frame(&check_in("1", "101", ""))).await;
    first.expect(ACK).await;
    site.say("wait card-wait 1").await;
    second.exchange(&check_in("1", "102", ""), "OV|1").await;
    second.exchange(&check_in("2", "101", ""), "EO|2").await;
    first.send(ENQ).await;
    first.expect(NAK).await;
    first.send(&frame("LT|2|R")).await;
    first.expect(NAK).await;
    site.say("place anna on 1").await;
    first.expect(&frame("CN|1")).await;
    site.say("wait idle 1").await;
    assert_eq!(site.last_order().await["result"], "EO");
    assert_eq!(site.say("use anna at 101").await["taken_from"], "1");
}

#[tokio::test]
async fn a_card_that_was_to_be_taken_away_is_not_written_twice() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("set card-wait 0").await;
    let eject = |command: &str| command.replacen("|R|", "|E|", 1);
    site.say("place anna on 1").await;
    peer.exchange(&eject(&check_in("1", "101", "")), "CN|1").await;
    peer.exchange(&eject(&check_in("1", "102", "")), "ED|1").await;
    peer.exchange("LT|1|R", "ED|1").await;
    assert_eq!(site.say("cards").await["cards"]["anna"]["rooms"][0]["room"], "101");
    site.say("remove 1").await;
    site.say("place ben on 1").await;
    peer.exchange(&check_in("1", "102", ""), "CN|1").await;
    // Where it need not be taken away, it is written again.
    peer.exchange(&check_in("1", "103", ""), "CN|1").await;
    assert_eq!(site.say("cards").await["cards"]["ben"]["rooms"][0]["room"], "103");
}

#[tokio::test]
async fn an_order_outlives_the_client_that_gave_it() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    peer.send(&frame(&check_in("1", "101", ""))).await;
    peer.expect(ACK).await;
    drop(peer);
    site.say("wait conversations 1").await;
    let mut peer = site.tcp().await;
    peer.exchange("LT|1|R", "OV|1").await;
    site.say("place anna on 1").await;
    site.say("wait orders 2").await;
    assert_eq!(site.say("use anna at 101").await["opened"], true);
}

#[tokio::test]
async fn a_frame_is_understood_however_its_bytes_arrive() {
    let mut site = Site::new().await;
    site.say("place anna on 1").await;
    let mut peer = site.tcp().await;
    let request = frame(&check_in("1", "101", "1"));
    for cut in 0..=request.len() {
        let (head, tail) = request.split_at(cut);
        peer.send(head).await;
        site.say("wire").await;
        peer.send(tail).await;
        peer.expect(ACK).await;
        peer.expect(&frame("CN|1")).await;
        peer.send(ACK).await;
    }
    assert_eq!(site.count("CN").await, request.len() as u64 + 1);
}

#[tokio::test]
async fn an_answer_is_repeated_three_times_and_no_more() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    peer.send(&frame("CO|0|101")).await;
    peer.expect(ACK).await;
    for _ in 0..3 {
        peer.expect(&frame("CO|0")).await;
        peer.send(NAK).await;
    }
    peer.expect(&frame("CO|0")).await;
    peer.send(NAK).await;
    peer.send(ENQ).await;
    peer.expect(ACK).await;
    assert_eq!(site.count("sent CO").await, 4);
}

#[tokio::test]
async fn a_client_that_never_acknowledges_is_served_on() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    for _ in 0..2 {
        peer.send(ENQ).await;
        peer.expect(ACK).await;
        peer.send(&frame("CO|0|101")).await;
        peer.expect(ACK).await;
        peer.expect(&frame("CO|0")).await;
    }
    // Two frames without a word between them.
    peer.send(&frame("CO|0|102")).await;
    peer.expect(ACK).await;
    peer.expect(&frame("CO|0")).await;
    assert_eq!(site.count("CO").await, 3);
}

#[tokio::test]
async fn answers_are_written_in_the_style_that_is_set() {
    let style = Style { closing_separator: false, true_check: false };
    let mut site = Site::with(|settings| settings.style = style).await;
    let mut peer = site.serial();
    peer.ask(&frame("CO|0|101"), b"\x02\xb3CO\xb30\x03\x0d").await;
    site.say("set check true").await;
    peer.ask(&frame("CO|0|101"), b"\x02\xb3CO\xb30\x03\x3f").await;
}

#[tokio::test]
async fn a_client_too_many_is_hung_up_at_once() {
    let mut site = Site::with(|settings| settings.max_clients = 1).await;
    let mut first = site.tcp().await;
    first.exchange("CO|0|101", "CO|0").await;
    site.tcp().await.expect_the_end().await;
    first.exchange("CO|0|101", "CO|0").await;
    let wire = site.say("wire").await;
    let refused = wire["wire"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "refused");
    assert_eq!(refused.count(), 1);
}

#[tokio::test]
async fn the_wire_log_shows_what_passed_in_order() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    peer.send(ENQ).await;
    peer.expect(ACK).await;
    peer.send(b"zz").await;
    peer.send(&frame("CO|0|W1")).await;
    peer.expect(ACK).await;
    peer.expect(&frame("TD|0")).await;
    let wire = site.say("wire since 1").await["wire"].clone();
    let shown = wire.as_array().unwrap().iter().map(|entry| {
        assert_eq!(entry["line"], "tcp#2", "the serial line is the first");
        format!("{} {}", entry["direction"].as_str().unwrap(), entry["kind"].as_str().unwrap())
    });
    let shown: Vec<_> = shown.skip_while(|entry| entry != "received ENQ").collect();
    let expected = ["received ENQ", "sent ACK", "received noise", "received CO", "sent ACK", "sent TD"];
    assert_eq!(shown, expected);
    assert_eq!(wire.as_array().unwrap().last().unwrap()["hex"], "02b35444b330b30390");
    assert_eq!(site.say("wire count").await["frames"], 1);
    let refused = site.control.send("wait frames 2 within 1").await.unwrap_err();
    assert!(matches!(refused, ControlError::Refused { .. }));
    peer.send(&frame("CO|0|W1")).await;
    site.say("wait frames 2").await;
}

#[tokio::test]
async fn the_hotels_own_desk_overrides_a_room_behind_our_back() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("place anna on 1").await;
    peer.exchange(&check_in("1", "101", ""), "CN|1").await;
    let made = site.say("foreign-card-made 101").await;
    assert_eq!(made["card"], "desk-1");
    peer.exchange("LT|1|R", &format!("LT|1|101||||CO|0||{STAY}")).await;
    assert_eq!(site.say("use desk-1 at 101").await["opened"], true);
    assert_eq!(site.say("use anna at 101").await["code"], "superseded");
}

#[tokio::test]
async fn quit_leaves_nothing_behind() {
    let mut site = Site::new().await;
    let places = site.front.places().clone();
    let toml = site.say("agent-config tcp").await["toml"].as_str().unwrap().to_owned();
    assert!(toml.contains(&places.tcp.unwrap().to_string()), "{toml}");
    site.say("quit").await;
    timeout(LONG_ENOUGH, site.front.ended()).await.unwrap().unwrap();
    site.front.close().await;
    assert!(!places.control.exists());
    assert!(!places.tty.unwrap().is_symlink());
}

#[tokio::test(start_paused = true)]
async fn a_card_wait_ends_by_itself_and_answers_leave_at_the_lines_pace() {
    let (_simulator, mut peer) = in_memory(Settings {
        card_wait: Duration::from_secs(60),
        baud: std::num::NonZeroU32::new(9600),
        ..Settings::default()
    });
    let started = tokio::time::Instant::now();
    peer.send(&frame("LT|1|R")).await;
    peer.expect(ACK).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    let mut answer = vec![0; frame("ED|1").len()];
    peer.0.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, frame("ED|1"));
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(60) && waited < Duration::from_secs(61), "{waited:?}");
}
