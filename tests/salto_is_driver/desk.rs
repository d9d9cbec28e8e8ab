//! What the tests share: a site, its orders, and a lock server that says and expects bytes.
//!
//! The server knows no protocol: it does not imitate a lock server's reactions, only what a test tells it to say.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use latchd::{
    config::{AgentConfig, DriverConfig, SaltoIsConfig},
    drivers::{Driver, Line, Performed, Work, salto_is::SaltoIs},
    model::{
        AccessMethodId, CardEncode, CardRead, DoorName, EncoderName, JobId, Order, Outcome, Success,
        SystemName, Treatment, Window,
    },
    protocol::Stage,
    seams::Clock,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{sleep_until, timeout},
};
use uuid::Uuid;

pub(crate) const ENQ: &[u8] = b"\x05";
pub(crate) const ACK: &[u8] = b"\x06";
pub(crate) const NAK: &[u8] = b"\x15";

/// The first card of a stay in room 101, as [`card`] orders it: every byte written by hand.
pub(crate) const FIRST_CARD: &[u8] =
    b"\x02\xb3CN1\xb31\xb3E\xb3101\xb3\xb3\xb3\xb312\xb3\xb31500211126\xb31100241126\
\xb3BRIDGE\xb3\xb3\xb3\xb31\xb3\x03\xe4";

/// No wait of a test is longer than this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A site's configuration; `line` and more settings in TOML.
pub(crate) fn config(line: &str, more: &str) -> SaltoIsConfig {
    let text = format!(
        r#"
        [site]
        name = "House"
        time_zone = "Europe/Oslo"
        [cloud]
        url = "wss://localhost:1"
        [storage]
        folder = "store"
        [[system]]
        name = "salto"
        kind = "salto_is"
        exclusive = true
        line = {{ {line} }}
        operator = "BRIDGE"
        encoders = [{{ name = "1" }}, {{ name = "Desk 2" }}]
        rooms = [
            {{ name = "101" }}, {{ name = "102" }}, {{ name = "103" }}, {{ name = "104" }}, {{ name = "105" }},
            {{ name = "10³" }},
        ]
        common = [{{ name = "pool", authorisation = 1 }}, {{ name = "spa", authorisation = 2 }}]
        {more}
        "#
    );
    let config = AgentConfig::from_toml(Path::new("/latchd.toml"), &text);
    let mut config = config.unwrap_or_else(|errors| panic!("{errors}"));
    let DriverConfig::SaltoIs(salto) = config.systems.remove(0).driver else { panic!("another make") };
    salto
}

pub(crate) fn name() -> SystemName {
    SystemName::new("salto").unwrap()
}

pub(crate) fn oslo() -> TimeZone {
    TimeZone::get("Europe/Oslo").unwrap()
}

/// The day before the guests of these tests arrive.
pub(crate) fn clock() -> Clock {
    Clock::simulated(at("2026-11-20T08:00:00Z"))
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn door(name: &str) -> DoorName {
    DoorName::new(name).unwrap()
}

/// A card for room 101, pool and spa, from 15:00 to 11:00 local time.
pub(crate) fn card() -> CardEncode {
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

pub(crate) fn override_with(card: CardEncode) -> Work {
    work(Order::CardEncode(card), Treatment::Override)
}

pub(crate) fn read() -> Work {
    let read = CardRead { encoder: EncoderName::new("1").unwrap(), card_wait_seconds: 60 };
    work(Order::CardRead(read), Treatment::Plain)
}

pub(crate) fn work(order: Order, treatment: Treatment) -> Work {
    Work { job_id: JobId(Uuid::nil()), order, treatment, to_see: None, slot: None }
}

/// Does the work, while the lock server does what the test says.
pub(crate) async fn perform(driver: &SaltoIs, work: Work, server: impl Future<Output = ()>) -> Performed {
    let nobody = |_stage: Stage| ();
    let both = async { tokio::join!(driver.perform(work, &nobody), server).0 };
    timeout(20 * PATIENCE, both).await.expect("the work ends")
}

/// [`perform`], and which stages were told.
pub(crate) async fn perform_with_stages(
    driver: &SaltoIs,
    work: Work,
    server: impl Future<Output = ()>,
) -> (Performed, Vec<Stage>) {
    let stages = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&stages);
    let sink = move |stage: Stage| told.lock().unwrap().push(stage);
    let both = async { tokio::join!(driver.perform(work, &sink), server).0 };
    let performed = timeout(20 * PATIENCE, both).await.expect("the work ends");
    let stages = stages.lock().unwrap().clone();
    (performed, stages)
}

pub(crate) fn success(performed: Performed) -> Success {
    match performed {
        Performed::Ended(Outcome::Succeeded(success)) => success,
        other => panic!("not a success: {other:?}"),
    }
}

/// How it ended, in one word and the code: `nothing_sent system_offline`.
pub(crate) fn end(performed: &Performed) -> String {
    match performed {
        Performed::NothingSent(refusal) => format!("nothing_sent {}", refusal.code),
        Performed::MayRepeat(refusal) => format!("may_repeat {}", refusal.code),
        Performed::Ended(Outcome::Failed(refusal)) => format!("failed {}", refusal.code),
        Performed::Ended(Outcome::Unknown(refusal)) => format!("unknown {}", refusal.code),
        Performed::Ended(other) => other.state().to_string(),
    }
}

pub(crate) async fn ready(driver: &SaltoIs) {
    line_is(driver, "ready").await;
}

/// Waits until no encoder rests.
pub(crate) async fn rested(driver: &SaltoIs) {
    let resting = driver.rests();
    assert!(!resting.is_empty(), "an encoder in doubt rests");
    for resting in resting {
        sleep_until(resting.until).await;
    }
    assert_eq!(driver.rests(), []);
}

/// Waits until the line is `opening`, `ready`, or down with this trouble.
pub(crate) async fn line_is(driver: &SaltoIs, wanted: &str) {
    let mut line = driver.line();
    let found = timeout(PATIENCE, line.wait_for(|line| word(line) == wanted)).await;
    if found.is_err() {
        panic!("the line is {:?}, not {wanted}", driver.line().borrow());
    }
}

pub(crate) fn word(line: &Line) -> &'static str {
    match line {
        Line::Opening => "opening",
        Line::Ready => "ready",
        Line::Down(trouble) => trouble.code,
    }
}

/// A frame with its check, spelled independently of the driver.
pub(crate) fn frame(fields: &str) -> Vec<u8> {
    let mut bytes = vec![0x02, 0xb3];
    bytes.extend(fields.bytes().map(|byte| if byte == b'|' { 0xb3 } else { byte }));
    bytes.extend([0xb3, 0x03]);
    let mut check = 0;
    for byte in &bytes[1..] {
        check ^= byte;
    }
    bytes.push(check);
    bytes
}

/// The lock server's end of a line.
pub(crate) struct Server<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> Server<S> {
    /// Exactly these bytes come next.
    pub(crate) async fn expect(&mut self, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        let read = timeout(PATIENCE, self.0.read_exact(&mut heard)).await;
        read.expect("bytes in time").unwrap();
        assert_eq!(heard.escape_ascii().to_string(), bytes.escape_ascii().to_string());
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Answers the poll.
    pub(crate) async fn answer_poll(&mut self) {
        self.expect(ENQ).await;
        self.say(ACK).await;
    }

    /// Answers the poll and takes a command.
    pub(crate) async fn take(&mut self, command: &[u8]) {
        self.answer_poll().await;
        self.expect(command).await;
        self.say(ACK).await;
    }

    /// A whole conversation.
    pub(crate) async fn serve(&mut self, command: &[u8], answer: &str) {
        self.take(command).await;
        self.say(&frame(answer)).await;
        self.expect(ACK).await;
    }

    /// The driver closes the line.
    pub(crate) async fn hung_up(&mut self) {
        let rest = async {
            let mut buffer = [0; 64];
            while let Ok(1..) = self.0.read(&mut buffer).await {}
        };
        timeout(PATIENCE, rest).await.expect("the line is closed");
    }
}
