//! The Visionline driver against the pretend server, under a paused clock; judged by what the pretend locks open to.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

use std::{path::Path, sync::Arc, time::Duration};

use jiff::{Timestamp, civil::date};
use latchd::{
    config::{AgentConfig, DriverConfig, VisionlineConfig},
    drivers::{
        Driver, Line, Past, Performed, Work,
        visionline::{
            Visionline,
            codec::Framing,
            command::{Command, MakeCard},
            sim::{Property, Settings, Simulator},
        },
    },
    model::{
        AccessMethodId, CardEncode, CardRead, CardSeen, DoorName, EncoderName, JobId, Order, Outcome,
        SystemName, Treatment, Window,
    },
    protocol::Stage,
    seams::{Clock, MemoryNet, Net, Random},
    sim::Pty,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(600);
/// For how long an encoder rests, unless the site says otherwise.
const SETTLE: Duration = Duration::from_secs(30);
const ADDRESS: &str = "127.0.0.1:4000";

#[tokio::test(start_paused = true)]
async fn a_first_card_overrides_and_a_further_one_joins() {
    let site = Site::open().await;
    site.tell("place ada on 1").await;
    assert_eq!(site.encode("101", Treatment::Override).await, "succeeded");
    site.tell("remove 1").await;
    site.tell("place ben on 1").await;
    assert_eq!(site.encode("101", Treatment::Join).await, "succeeded");
    site.tell("remove 1").await;
    site.tell("clock set 2026-11-22T10:00").await;
    assert_eq!(site.openers("101").await, ["ada", "ben"]);
    assert_eq!(site.openers("pool").await, ["ada", "ben"]);
    assert_eq!(site.openers("102").await, [""; 0]);

    // Somebody else's stay: dead for ours once it is used, and not before.
    site.tell("foreign-card-made 101").await;
    assert_eq!(site.openers("101").await, ["ada", "ben", "desk-1"]);
    assert_eq!(site.tell("use desk-1 at 101").await["opened"], true);
    assert_eq!(site.openers("101").await, ["desk-1"]);
    assert_eq!(site.tell("use ada at 101").await["code"], "superseded");
    assert_eq!(site.tell("use ada at pool").await["opened"], true);

    // The server says so too.
    site.tell("place ada on 1").await;
    let Some(CardSeen::Guest { rooms, valid: false, .. }) = site.read().await else { panic!("not seen") };
    assert_eq!(rooms, ["101"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_read_back() {
    let site = Site::open().await;
    site.tell("place ada on 1").await;
    assert_eq!(site.encode("101", Treatment::Override).await, "succeeded");
    assert_eq!(
        site.read().await,
        Some(CardSeen::Guest {
            rooms: vec!["101".into()],
            valid: true,
            original: false,
            common: vec!["pool".into()],
            starts_at: Some(at("2026-11-21T14:00:00Z")),
            ends_at: Some(at("2026-11-24T10:00:00Z")),
            made_here: None,
        })
    );
}

#[tokio::test(start_paused = true)]
async fn whatever_is_in_the_way_has_its_name_and_nothing_is_written() {
    let site = Site::open().await;
    // The codes for these are not published: what they say is a doubt.
    assert_eq!(site.encode("101", Treatment::Join).await, "unknown rejected", "nobody holds the room");
    assert_eq!(site.encode("999", Treatment::Override).await, "unknown rejected", "there is no such room");
    assert_eq!(site.encode("101", Treatment::Override).await, "failed no_card");
    for (card, end) in [("foreign", "failed bad_card"), ("damaged", "failed bad_card")] {
        site.tell(&format!("place {card} {card} on 1")).await;
        assert_eq!(site.encode("101", Treatment::Override).await, end);
        site.tell("remove 1").await;
    }
    site.tell("fault error 4").await;
    assert_eq!(site.encode("101", Treatment::Override).await, "failed encoder_busy");
    site.tell("fault nak").await;
    assert_eq!(site.encode("101", Treatment::Override).await, "failed rejected");
    assert_eq!(site.written().await, 0);
}

#[tokio::test(start_paused = true)]
async fn slow_queued_and_unended_answers_are_answers() {
    for fault in ["slow 700", "queued", "no-line-end", "late 70000"] {
        let site = Site::open().await;
        site.tell("place ada on 1").await;
        site.tell(&format!("fault {fault}")).await;
        assert_eq!(site.encode("101", Treatment::Override).await, "succeeded", "{fault}");
        assert_eq!(site.written().await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_doubt_whether_or_not_a_card_was_written() {
    for (fault, written) in [("write-then-silent", 1), ("late 90000", 1)] {
        let site = Site::open().await;
        site.tell("place ada on 1").await;
        site.tell(&format!("fault {fault}")).await;
        assert_eq!(site.encode("101", Treatment::Override).await, "unknown no_answer", "{fault}");
        assert_eq!(site.written().await, written, "{fault}");
        // The late answer is nobody's: the next one has its own.
        site.rested().await;
        site.tell("remove 1").await;
        assert_eq!(site.encode("102", Treatment::Override).await, "failed no_card", "{fault}");
    }
    let site = Site::open().await;
    site.tell("fault silent").await;
    assert_eq!(site.encode("101", Treatment::Override).await, "unknown no_answer");
    assert_eq!(site.written().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_cut_at_any_byte_is_never_reported_as_what_did_not_happen() {
    let request = site_card("101", Treatment::Override).bytes(Framing::Line).len();
    let answer = "CCA;EA1;RC0;SR04A1B2C3D4E580FF;\r\n".len();
    let site = Site::open().await;
    for cut in 0..=request + answer {
        site.tell("remove 1").await;
        site.tell(&format!("place card{cut} on 1")).await;
        let before = site.written().await;
        site.tell(&format!("fault close-after {cut}")).await;
        let end = site.encode("101", Treatment::Override).await;
        let written = site.written().await - before;
        match end.as_str() {
            "succeeded" => assert_eq!(written, 1, "cut at {cut}"),
            "unknown line_lost" => assert_eq!(written, u64::from(cut >= request), "cut at {cut}"),
            other => panic!("cut at {cut}: {other}"),
        }
        site.rested().await;
    }
    site.tell("fault clear").await;
    assert_eq!(site.encode("101", Treatment::Override).await, "succeeded");
}

#[tokio::test(start_paused = true)]
async fn two_encoders_work_at_once_and_one_waits_for_nobody() {
    let site = Site::open().await;
    site.tell("place ben on 2").await;
    let nobody = |_stage: Stage| ();
    let slow = site.driver.perform(work(card("101", "1"), Treatment::Override), &nobody);
    let quick = async {
        site.tell("wait card-wait 1").await;
        let performed = site.driver.perform(work(card("102", "2"), Treatment::Override), &nobody).await;
        assert_eq!(end(&performed), "succeeded");
        site.tell("place ada on 1").await;
    };
    let (performed, ()) = timeout(PATIENCE, async { tokio::join!(slow, quick) }).await.unwrap();
    assert_eq!(end(&performed), "succeeded");
    assert_eq!(site.written().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_list_our_address_gets_no_work() {
    let site = Site::open().await;
    site.tell("place ada on 1").await;
    site.tell("set listed off").await;
    // The command may have left before the line was seen to close.
    assert_eq!(site.encode("101", Treatment::Override).await, "unknown line_lost");
    let mut line = site.driver.line();
    let refused = |line: &Line| matches!(line, Line::Down(trouble) if trouble.code == "address_refused");
    timeout(PATIENCE, line.wait_for(refused)).await.unwrap().unwrap();
    site.tell("set listed on").await;
    site.rested().await;
    assert_eq!(site.written().await, 0);
    assert_eq!(site.encode("101", Treatment::Override).await, "succeeded");
}

#[tokio::test(start_paused = true)]
async fn the_drivers_bytes_are_refused_once_they_are_broken() {
    let site = Site::open().await;
    site.tell("place ada on 1").await;
    let whole = site_card("101", Treatment::Override).items();
    let spelled = |items: &[String]| items.iter().map(|item| format!("{item};")).collect::<String>() + "\r\n";
    let mut broken = Vec::new();
    for n in 0..whole.len() {
        let mut items = whole.clone();
        items.insert(n, items[n].clone());
        broken.push(spelled(&items));
        if n + 1 < whole.len() {
            let mut items = whole.clone();
            items.swap(n, n + 1);
            broken.push(spelled(&items));
        }
        // A start, common rooms and the serial number may be left out.
        if !["CI", "CR", "SR"].iter().any(|name| whole[n].starts_with(name)) {
            let mut items = whole.clone();
            items.remove(n);
            broken.push(spelled(&items));
        }
        let mut items = whole.clone();
        items[n].truncate(2);
        broken.push(spelled(&items));
        let mut items = whole.clone();
        items[n].make_ascii_lowercase();
        broken.push(spelled(&items));
    }
    let intact = spelled(&whole);
    broken.push(intact.replace(";\r\n", "\r\n"));
    broken.push(intact.replace("GR101", "GR1\u{fc}1"));
    broken.push(intact.replace("CO202611241100", "CO202611211500"));
    broken.push(intact.replace("CO2026112411", "CO2026-11-24 11"));
    broken.push(format!("\u{2}{intact}"));
    assert!(broken.len() > 40);
    for text in broken {
        let answer = site.say(&text).await;
        assert!(answer.contains("RC128;ET"), "{text:?}: {answer:?}");
    }
    assert_eq!(site.written().await, 0);
    assert_eq!(site.say(&intact).await, "CCA;EA1;RC0;SR04A1B2C3D4E580FF;\r\n");
}

/// Over a pseudo-terminal, which keeps neither speed nor parity.
#[tokio::test]
async fn over_a_serial_line_cards_are_made_and_read_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("visionline.tty");
    let port = Pty::open(&link).unwrap();
    let now = at("2026-11-20T08:00:00Z");
    let simulator = Simulator::new(Settings { starts_at: Some(now), ..Settings::default() }).unwrap();
    let serving = simulator.clone();
    let server = tokio::spawn(async move { serving.serve_serial(port).await });
    let mut config = config(&Property::default());
    config.line.tcp = None;
    config.line.serial = Some(link);
    let net = MemoryNet::default();
    let site = Site { driver: start(&net, &config, now), simulator, net, server };
    site.ready().await;
    assert_eq!(site.driver.lanes().len(), 1, "one line for all encoders");

    site.tell("place ada on 1").await;
    assert_eq!(site.encode("101", Treatment::Override).await, "succeeded");
    let Some(CardSeen::Guest { rooms, valid: true, .. }) = site.read().await else { panic!("not seen") };
    assert_eq!(rooms, ["101"]);
    site.tell("remove 1").await;
    site.tell("place ben on 1").await;
    // A frame that was refused is sent again, and one card is written.
    site.tell("fault nak").await;
    assert_eq!(site.encode("101", Treatment::Join).await, "succeeded");
    assert_eq!(site.written().await, 2);
    site.tell("clock set 2026-11-22T10:00").await;
    assert_eq!(site.openers("101").await, ["ada", "ben"]);
    site.tell("fault error 41").await;
    assert_eq!(site.encode("102", Treatment::Override).await, "failed no_card");
    assert_eq!(site.written().await, 2);
    let wire = site.tell("wire").await;
    let kinds = wire["wire"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap());
    assert!(!kinds.clone().any(|kind| kind == "bad_block"), "{wire}");
    assert_eq!(kinds.filter(|kind| *kind == "NAK").count(), 1, "{wire}");
}

/// What a client says that knows nothing but bytes.
#[tokio::test]
async fn a_block_whose_check_is_wrong_is_refused_and_the_next_one_heard() {
    let simulator = Simulator::new(Settings::default()).unwrap();
    let (mut ours, theirs) = tokio::io::duplex(4096);
    let serving = simulator.clone();
    let server = tokio::spawn(async move { serving.serve_serial(theirs).await });
    simulator.command("fault error 41").await.unwrap();
    for (block, said) in [
        (&b"\x02CCB;AM1;EA1;00\x03"[..], &b"\x15"[..]),
        (&block("CCB;AM1;EA1;")[..], &b"\x06\x02CCB;EA1;RC41;"[..]),
    ] {
        ours.write_all(block).await.unwrap();
        let mut heard = vec![0; said.len()];
        timeout(PATIENCE, ours.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard.escape_ascii().to_string(), said.escape_ascii().to_string());
    }
    drop(ours);
    timeout(PATIENCE, server).await.unwrap().unwrap();
}

/// STX, a text, its check in two capital hex digits, ETX.
fn block(text: &str) -> Vec<u8> {
    let check = text.bytes().fold(2, |sum: u8, byte| sum ^ byte);
    format!("\u{2}{text}{check:02X}\u{3}").into_bytes()
}

#[tokio::test]
async fn the_simulators_own_section_configures_the_driver() {
    let property = Property::default();
    let config = config(&property);
    assert_eq!((config.rooms.len(), config.common.len(), config.encoders.len()), (20, 3, 3));
    assert_eq!(Visionline::mistakes(&config), [] as [String; 0]);
}

struct Site {
    simulator: Simulator,
    driver: Visionline,
    net: MemoryNet,
    server: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Site {
    async fn open() -> Self {
        let now = at("2026-11-20T08:00:00Z");
        let settings = Settings { starts_at: Some(now), ..Settings::default() };
        let mut config = config(&settings.property);
        // One that the server does not have.
        config
            .rooms
            .push(latchd::config::DoorConfig { name: DoorName::new("999").unwrap(), display_name: None });
        let simulator = Simulator::new(settings).unwrap();
        let net = MemoryNet::default();
        let listener = net.listen(ADDRESS.parse().unwrap()).await.unwrap();
        let serving = simulator.clone();
        let server = tokio::spawn(async move { serving.accept(listener).await });
        let driver = start(&net, &config, now);
        let site = Self { simulator, driver, net, server };
        site.ready().await;
        site
    }

    async fn ready(&self) {
        let mut line = self.driver.line();
        timeout(PATIENCE, line.wait_for(|line| *line == Line::Ready)).await.unwrap().unwrap();
    }

    /// Lets pass the time for which an encoder rests after a command without an answer.
    async fn rested(&self) {
        self.ready().await;
        sleep(SETTLE).await;
    }

    async fn tell(&self, command: &str) -> Value {
        self.simulator.command(command).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    async fn encode(&self, room: &str, treatment: Treatment) -> String {
        let nobody = |_stage: Stage| ();
        let performed = self.driver.perform(work(card(room, "1"), treatment), &nobody);
        end(&timeout(PATIENCE, performed).await.unwrap())
    }

    async fn read(&self) -> Option<CardSeen> {
        let read = CardRead { encoder: EncoderName::new("1").unwrap(), card_wait_seconds: 60 };
        let nobody = |_stage: Stage| ();
        let performed = self.driver.perform(work(Order::CardRead(read), Treatment::Plain), &nobody);
        match timeout(PATIENCE, performed).await.unwrap() {
            Performed::Ended(Outcome::Succeeded(success)) => success.seen,
            other => panic!("{other:?}"),
        }
    }

    /// The cards that open a door now.
    async fn openers(&self, door: &str) -> Vec<String> {
        serde_json::from_value(self.tell("ledger").await["doors"][door].clone()).unwrap()
    }

    /// How often a card was written.
    async fn written(&self) -> u64 {
        let ledger = self.tell("ledger").await;
        let orders = ledger["orders"].as_array().unwrap().iter();
        orders.filter(|order| order["code"] == 0).count() as u64
    }

    /// Says bytes to the server as a client without a driver, and returns its answer.
    async fn say(&self, text: &str) -> String {
        let mut stream = self.net.connect("visionline.lan", 4000).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            answer.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        String::from_utf8(answer).unwrap()
    }
}

fn start(net: &MemoryNet, config: &VisionlineConfig, now: Timestamp) -> Visionline {
    Visionline::start_over(
        Arc::new(net.clone()),
        config,
        SystemName::new("front").unwrap(),
        jiff::tz::TimeZone::get("Europe/Oslo").unwrap(),
        Past::Answered,
        Clock::simulated(now),
        Random::seeded(7),
    )
}

fn config(property: &Property) -> VisionlineConfig {
    let head = "[site]\nname = \"House\"\ntime_zone = \"Europe/Oslo\"\n[storage]\nfolder = \"s\"\n";
    let text = format!("{head}{}", property.agent_section("front", ADDRESS, None));
    let mut config =
        AgentConfig::from_toml(Path::new("/latchd.toml"), &text).unwrap_or_else(|errors| panic!("{errors}"));
    let DriverConfig::Visionline(visionline) = config.systems.remove(0).driver else {
        panic!("another make")
    };
    visionline
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn card(room: &str, encoder: &str) -> Order {
    Order::CardEncode(CardEncode {
        encoder: EncoderName::new(encoder).unwrap(),
        doors: [room, "pool"].map(|name| DoorName::new(name).unwrap()).into(),
        reservation_key: None,
        window: Window::new(at("2026-11-21T14:00:00Z"), Some(at("2026-11-24T10:00:00Z"))).unwrap(),
        access_method_id: AccessMethodId(Uuid::nil()),
        guest_name: None,
        card_wait_seconds: 60,
        begin_again: false,
    })
}

/// The command that the driver makes of [`card`].
fn site_card(room: &str, treatment: Treatment) -> Command {
    Command::MakeCard(MakeCard {
        joins: treatment == Treatment::Join,
        encoder: "1".into(),
        room: room.into(),
        start: Some(date(2026, 11, 21).at(15, 0, 0, 0)),
        end: date(2026, 11, 24).at(11, 0, 0, 0),
        common: vec![1],
        user_group: None,
        operator: None,
        guest: None,
        card_type: None,
        serial: true,
    })
}

fn work(order: Order, treatment: Treatment) -> Work {
    Work { job_id: JobId(Uuid::nil()), order, treatment, to_see: None, slot: None }
}

fn end(performed: &Performed) -> String {
    match performed {
        Performed::NothingSent(refusal) => format!("nothing_sent {}", refusal.code),
        Performed::MayRepeat(refusal) => format!("may_repeat {}", refusal.code),
        Performed::Ended(Outcome::Failed(refusal)) => format!("failed {}", refusal.code),
        Performed::Ended(Outcome::Unknown(refusal)) => format!("unknown {}", refusal.code),
        Performed::Ended(other) => other.state().to_string(),
    }
}
