//! The simulated SALTO SPACE server, spoken to byte by byte over its own lines and judged by the published frames.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on may panic, in its helpers too"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use latchd::{
    drivers::salto_is::sim::{Dates, Front, Options, Property, Settings, Simulator, Style},
    seams::Stream,
    sim::control::{Client, ControlError},
};
use serde::Deserialize;
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
        let mut settings = Settings {
            starts_at: Some("2026-11-21T14:00:00Z".parse().unwrap()),
            ..Settings::default()
        };
        change(&mut settings);
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            folder: folder.path().to_owned(),
            pty: true,
            tcp: Some("127.0.0.1:0".parse().unwrap()),
        };
        let front = Front::open(Simulator::new(settings).unwrap(), options)
            .await
            .unwrap();
        let control = Client::connect(&front.places().control).await.unwrap();
        Self {
            front,
            control,
            _folder: folder,
        }
    }

    async fn say(&mut self, command: &str) -> Value {
        self.control
            .send(command)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn count(&mut self, what: &str) -> u64 {
        self.say(&format!("wire count {what}")).await["count"]
            .as_u64()
            .unwrap()
    }

    /// Everything the ledger says of the last order.
    async fn last_order(&mut self) -> Value {
        self.say("ledger").await["orders"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone()
    }

    async fn tcp(&self) -> Peer {
        let stream = TcpStream::connect(self.front.places().tcp.unwrap())
            .await
            .unwrap();
        Peer(Box::new(stream))
    }

    fn serial(&self) -> Peer {
        let path = self.front.places().tty.as_ref().unwrap().to_string_lossy();
        Peer(Box::new(
            tokio_serial::new(path, 9600).open_native_async().unwrap(),
        ))
    }
}

/// A client that knows nothing but bytes.
struct Peer(Box<dyn Stream>);

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        timeout(LONG_ENOUGH, self.0.write_all(bytes))
            .await
            .unwrap()
            .unwrap();
    }

    async fn expect(&mut self, expected: &[u8]) {
        let mut heard = vec![0; expected.len()];
        let read = timeout(LONG_ENOUGH, self.0.read_exact(&mut heard)).await;
        let read = read.unwrap_or_else(|_| panic!("no answer; expected {}", expected.escape_ascii()));
        read.unwrap_or_else(|error| panic!("{error}; expected {}", expected.escape_ascii()));
        assert_eq!(
            heard.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }

    async fn expect_the_end(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = timeout(LONG_ENOUGH, self.0.read_to_end(&mut rest))
            .await
            .expect("hung up in time");
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

#[derive(Deserialize)]
struct Vector {
    id: String,
    bytes_hex: String,
}

struct Vectors {
    bytes: BTreeMap<u16, Vec<u8>>,
    used: BTreeSet<u16>,
}

impl Vectors {
    fn load() -> Self {
        let all: Vec<Vector> = serde_json::from_str(include_str!("vectors/salto-is.json")).unwrap();
        let bytes = all.iter().map(|vector| {
            let digits = |at: usize| u8::from_str_radix(&vector.bytes_hex[at..at + 2], 16).unwrap();
            let number = vector.id.rsplit_once('-').unwrap().1.parse().unwrap();
            (
                number,
                (0..vector.bytes_hex.len()).step_by(2).map(digits).collect(),
            )
        });
        Self {
            bytes: bytes.collect(),
            used: BTreeSet::new(),
        }
    }

    fn take(&mut self, number: u16) -> Vec<u8> {
        self.used.insert(number);
        self.bytes[&number].clone()
    }
}

#[tokio::test]
async fn every_published_frame_is_understood_or_spoken_exactly() {
    let mut vectors = Vectors::load();
    let mut site = Site::with(|settings| settings.property.rooms.push("W10011".into())).await;
    let mut peer = site.tcp().await;

    peer.send(&vectors.take(1)).await;
    peer.expect(&vectors.take(2)).await;
    site.say("fault busy 1").await;
    peer.send(ENQ).await;
    peer.expect(&vectors.take(3)).await;

    site.say("foreign-card-made W10011").await;
    site.say("clock set 2022-12-10T10:00").await;
    peer.ask(&vectors.take(5), &frame("MC|W10011")).await;
    let ledger = site.say("ledger").await;
    assert_eq!(ledger["rooms"]["W10011"]["stay"]["expiry"], "2022-12-12T11:00:00");
    peer.ask(&vectors.take(4), &frame("CO|0")).await;
    assert_eq!(site.say("ledger").await["rooms"]["W10011"]["stay"], Value::Null);
    site.say("clock set 2026-11-21T15:00").await;

    let codes: [(u16, &str); 13] = [
        (14, "ES"),
        (15, "NC"),
        (16, "NF"),
        (17, "OV"),
        (18, "EP"),
        (19, "EF"),
        (20, "TD"),
        (21, "ED"),
        (22, "EA"),
        (23, "OS"),
        (24, "EO"),
        (25, "EV"),
        (26, "EG 1 Encoder firmware too old"),
    ];
    for (number, code) in codes {
        site.say(&format!("fault error {code}")).await;
        peer.ask(&frame("LT|1|E"), &vectors.take(number)).await;
    }
    site.say("set closing-separator off").await;
    site.say("fault error EN").await;
    peer.ask(&frame("LT|1|E"), &vectors.take(40)).await;
    site.say("set closing-separator on").await;

    peer.ask(&vectors.take(30), &frame("CO|0")).await;
    peer.send(&vectors.take(31)).await;
    peer.expect(NAK).await;
    peer.ask(&vectors.take(32), &frame("ES|101")).await;
    peer.ask(&vectors.take(6), &frame("ES|+15555550100")).await;

    // A fresh site: the first chip there has the serial number of the published answers.
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("place anna on 1").await;
    peer.send(&vectors.take(7)).await;
    peer.expect(ACK).await;
    peer.expect(&vectors.take(12)).await;
    peer.send(&vectors.take(37)).await;
    peer.ask(&vectors.take(27), &vectors.take(28)).await;
    site.say("clock set 2026-11-24T11:00").await;
    peer.ask(&frame("LT|1|E"), &vectors.take(39)).await;
    site.say("clock set 2026-11-21T15:00").await;
    peer.ask(&vectors.take(9), &frame("CC1|1|04A1B2C3D4E580")).await;
    peer.ask(&vectors.take(11), &frame("CN1|1")).await;
    assert_eq!(
        site.say("cards").await["cards"]["anna"]["rooms"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    site.say("remove 1").await;
    site.say("place boss staff on 1").await;
    peer.ask(&frame("LT|1|R"), &vectors.take(29)).await;
    site.say("place ben on Online Encoder 1").await;
    peer.ask(&vectors.take(8), &frame("CN|Online Encoder 1")).await;

    // The old dialect: hours only.
    let mut site = Site::with(|settings| settings.dates = Dates::Hours).await;
    let mut peer = site.serial();
    site.say("place anna on 1").await;
    peer.ask(&vectors.take(10), &frame("CN1|1")).await;
    peer.ask(&vectors.take(33), &frame("CN|1")).await;
    peer.ask(&vectors.take(34), &frame("CC|1")).await;
    peer.ask(&vectors.take(35), &vectors.take(36)).await;
    peer.ask(&frame("LT|1|E"), &vectors.take(38)).await;

    // The answer to a check-in on a phone, which is not imitated.
    vectors.used.insert(13);
    let unused: Vec<_> = vectors
        .bytes
        .keys()
        .filter(|number| !vectors.used.contains(number))
        .collect();
    assert_eq!(unused, [&0_u16; 0]);
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
    assert_eq!(
        (&doors["pool"], &doors["gym"]),
        (&json!(["anna", "ben"]), &json!(["ben"]))
    );

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
    peer.exchange(
        "CN|1|R|101||||||1500211126|1500211126",
        "EG|1|expiry is not after start",
    )
    .await;
    peer.exchange(
        "CN|1|R|101||||||1500211026|1100241026",
        "EG|1|expiry lies in the past",
    )
    .await;
    peer.exchange(&check_in("1", "101", ""), "ED|1").await;
    peer.exchange("LT|1|R", "ED|1").await;
    site.say("place alien foreign on 1").await;
    peer.exchange(&check_in("1", "101", ""), "EF|1").await;
    peer.exchange("LT|1|R", "EF|1").await;
    assert_eq!(
        site.say("ledger").await["rooms"]["101"]["last_stay"],
        0,
        "nothing was written"
    );
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
    let style = Style {
        closing_separator: false,
        true_check: false,
    };
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
    let refused = wire["wire"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["kind"] == "refused");
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
        format!(
            "{} {}",
            entry["direction"].as_str().unwrap(),
            entry["kind"].as_str().unwrap()
        )
    });
    let shown: Vec<_> = shown.skip_while(|entry| entry != "received ENQ").collect();
    let expected = [
        "received ENQ",
        "sent ACK",
        "received noise",
        "received CO",
        "sent ACK",
        "sent TD",
    ];
    assert_eq!(shown, expected);
    assert_eq!(
        wire.as_array().unwrap().last().unwrap()["hex"],
        "02b35444b330b30390"
    );
    assert_eq!(site.say("wire count").await["frames"], 1);
    let refused = site.control.send("wait frames 2 within 1").await.unwrap_err();
    assert!(matches!(refused, ControlError::Refused { .. }));
    peer.send(&frame("CO|0|W1")).await;
    site.say("wait frames 2").await;
}

mod faults {
    use super::*;

    #[tokio::test]
    async fn silence_after_enq() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        site.say("fault silent-enq").await;
        peer.send(&[0x05, 0x05]).await;
        site.say("wait count ENQ 2").await;
        site.say("fault clear").await;
        peer.send(ENQ).await;
        peer.expect(ACK).await;
        assert_eq!(site.count("sent ACK").await, 1);
    }

    #[tokio::test]
    async fn not_ready() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        site.say("fault busy 2").await;
        for reply in [NAK, NAK, ACK] {
            peer.send(ENQ).await;
            peer.expect(reply).await;
        }
    }

    #[tokio::test]
    async fn silence_instead_of_an_acknowledgement_and_nothing_done() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        site.say("place anna on 1").await;
        site.say("fault silent-ack 1").await;
        peer.send(&frame(&check_in("1", "101", ""))).await;
        site.say("wait frames 1").await;
        peer.send(ENQ).await;
        peer.expect(ACK).await;
        assert_eq!(site.say("cards").await["cards"]["anna"]["kind"], "blank");
    }

    #[tokio::test]
    async fn silence_instead_of_an_answer_and_nothing_done() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        site.say("place anna on 1").await;
        site.say("fault silent-answer 1").await;
        peer.send(&frame(&check_in("1", "101", ""))).await;
        peer.expect(ACK).await;
        site.say("wait orders 1").await;
        assert_eq!(site.last_order().await["result"], "silent");
        peer.exchange("LT|1|R", "LT|1|LD").await;
    }

    #[tokio::test]
    async fn a_card_is_written_and_nobody_is_told() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        site.say("place anna on 1").await;
        site.say("fault write-then-silent").await;
        peer.send(&frame(&check_in("1", "101", ""))).await;
        peer.expect(ACK).await;
        site.say("wait orders 1").await;
        assert_eq!(site.last_order().await["result"], "written");
        assert_eq!(site.count("sent CN").await, 0);
        peer.exchange("LT|1|R", &format!("LT|1|101||||CI|0||{STAY}"))
            .await;
    }

    #[tokio::test]
    async fn frames_are_refused_a_number_of_times() {
        let mut site = Site::new().await;
        let mut peer = site.serial();
        site.say("fault nak 2").await;
        for _ in 0..2 {
            peer.send(&frame("CO|0|101")).await;
            peer.expect(NAK).await;
        }
        peer.exchange("CO|0|101", "CO|0").await;
        assert_eq!(site.say("ledger").await["orders"].as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_encode_is_told_to_fail_and_reading_still_works() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        site.say("place anna on 1").await;
        site.say("fault demo-fail").await;
        peer.exchange("LT|1|R", "LT|1|LD").await;
        peer.exchange(&check_in("1", "101", ""), "EG|1|told to fail")
            .await;
        peer.exchange(&check_in("1", "101", ""), "CN|1").await;
    }

    #[tokio::test]
    async fn an_answer_comes_byte_by_byte() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        site.say("fault slow 2").await;
        let started = std::time::Instant::now();
        peer.exchange("CO|0|101", "CO|0").await;
        assert!(
            started.elapsed() >= Duration::from_millis(2 * 9),
            "ACK and eight bytes"
        );
    }

    #[tokio::test]
    async fn noise_comes_before_an_answer() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        site.say("fault noise 7").await;
        let answer = [b"\x00\xff\x7f\xb3\x0a\x00\xff", &frame("CO|0")[..]].concat();
        peer.ask(&frame("CO|0|101"), &answer).await;
    }

    #[tokio::test]
    async fn an_answer_is_garbled_until_it_is_asked_for_again() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        site.say("fault bad-lrc 1").await;
        let mut garbled = frame("CO|0");
        *garbled.last_mut().unwrap() ^= 0x55;
        peer.send(&frame("CO|0|101")).await;
        peer.expect(ACK).await;
        peer.expect(&garbled).await;
        peer.send(NAK).await;
        peer.expect(&frame("CO|0")).await;
    }

    #[tokio::test]
    async fn the_line_hangs_up_after_any_number_of_bytes_either_way() {
        let request = frame("CO|0|101");
        let reply = [ACK, &frame("CO|0")].concat();
        let mut site = Site::new().await;
        for bytes in 0..=request.len() + reply.len() {
            let mut peer = site.tcp().await;
            site.say(&format!("fault close-after-bytes {bytes}")).await;
            let before = site.count("CO").await;
            peer.send(&request).await;
            peer.expect(&reply[..bytes.saturating_sub(request.len())]).await;
            peer.expect_the_end().await;
            site.say("wait conversations 1").await;
            let arrived = site.count("CO").await - before;
            assert_eq!(arrived, u64::from(bytes >= request.len()), "after {bytes} bytes");
        }
        site.tcp().await.exchange("CO|0|101", "CO|0").await;
    }

    #[tokio::test]
    async fn the_line_hangs_up_after_the_acknowledgement_and_the_order_lives_on() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        site.say("place anna on 1").await;
        site.say("fault close-after-ack").await;
        peer.send(&frame(&check_in("1", "101", ""))).await;
        peer.expect(ACK).await;
        peer.expect_the_end().await;
        site.say("wait orders 1").await;
        assert_eq!(site.last_order().await["result"], "written");
        site.tcp().await.exchange("CO|0|101", "CO|0").await;
    }

    #[tokio::test]
    async fn a_late_answer_arrives_in_the_middle_of_the_next_exchange() {
        let mut site = Site::new().await;
        let mut peer = site.serial();
        site.say("fault late-answer 200").await;
        peer.send(&frame("CO|0|999")).await;
        peer.expect(ACK).await;
        site.say("wait orders 1").await;
        peer.send(ENQ).await;
        peer.expect(ACK).await;
        peer.send(&frame("LT|1|R")).await;
        peer.expect(ACK).await;
        peer.expect(&frame("TD|0")).await;
        site.say("place anna on 1").await;
        peer.expect(&frame("LT|1|LD")).await;
    }

    #[tokio::test]
    async fn the_serial_line_is_unplugged_and_comes_back_under_its_name() {
        let mut site = Site::new().await;
        let mut peer = site.serial();
        peer.exchange("CO|0|101", "CO|0").await;
        let link = site.front.places().tty.clone().unwrap();
        site.say("unplug").await;
        assert!(!link.exists());
        peer.expect_the_end().await;
        drop(peer);
        site.tcp().await.exchange("CO|0|101", "CO|0").await;
        site.say("replug").await;
        site.serial().exchange("CO|0|101", "CO|0").await;
    }

    #[tokio::test]
    async fn a_serial_line_told_to_hang_up_stays_away_until_replugged() {
        let mut site = Site::new().await;
        let mut peer = site.serial();
        site.say("fault close-after-ack").await;
        peer.send(&frame("CO|0|101")).await;
        // The pty may be gone before its last byte was read.
        site.say("wait conversations 0").await;
        drop(peer);
        site.say("replug").await;
        site.serial().exchange("CO|0|101", "CO|0").await;
        assert_eq!(site.count("CO").await, 2);
    }

    #[tokio::test]
    async fn the_network_is_unplugged_and_comes_back() {
        let mut site = Site::new().await;
        let mut peer = site.tcp().await;
        peer.exchange("CO|0|101", "CO|0").await;
        site.say("unplug tcp").await;
        peer.expect_the_end().await;
        site.tcp().await.expect_the_end().await;
        site.serial().exchange("CO|0|101", "CO|0").await;
        site.say("replug tcp").await;
        site.tcp().await.exchange("CO|0|101", "CO|0").await;
    }
}

#[tokio::test]
async fn the_hotels_own_desk_overrides_a_room_behind_our_back() {
    let mut site = Site::new().await;
    let mut peer = site.tcp().await;
    site.say("place anna on 1").await;
    peer.exchange(&check_in("1", "101", ""), "CN|1").await;
    let made = site.say("foreign-card-made 101").await;
    assert_eq!(made["card"], "desk-1");
    peer.exchange("LT|1|R", &format!("LT|1|101||||CO|0||{STAY}"))
        .await;
    assert_eq!(site.say("use desk-1 at 101").await["opened"], true);
    assert_eq!(site.say("use anna at 101").await["code"], "superseded");
}

#[tokio::test]
async fn quit_leaves_nothing_behind() {
    let mut site = Site::new().await;
    let places = site.front.places().clone();
    let toml = site.say("agent-config tcp").await["toml"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(toml.contains(&places.tcp.unwrap().to_string()), "{toml}");
    site.say("quit").await;
    timeout(LONG_ENOUGH, site.front.ended()).await.unwrap().unwrap();
    site.front.close().await;
    assert!(!places.control.exists());
    assert!(!places.tty.unwrap().is_symlink());
}

#[tokio::test(start_paused = true)]
async fn a_card_wait_ends_by_itself_and_answers_leave_at_the_lines_pace() {
    let settings = Settings {
        property: Property::default(),
        card_wait: Duration::from_secs(60),
        baud: std::num::NonZeroU32::new(9600),
        ..Settings::default()
    };
    let simulator = Simulator::new(settings).unwrap();
    let (ours, theirs) = tokio::io::duplex(4096);
    let serving = simulator.clone();
    tokio::spawn(async move {
        serving
            .serve(theirs, latchd::drivers::salto_is::sim::Line::Serial)
            .await
    });
    let mut peer = Peer(Box::new(ours));
    let started = tokio::time::Instant::now();
    peer.send(&frame("LT|1|R")).await;
    peer.expect(ACK).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    let mut answer = vec![0; frame("ED|1").len()];
    peer.0.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, frame("ED|1"));
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(60) && waited < Duration::from_secs(61),
        "{waited:?}"
    );
}
