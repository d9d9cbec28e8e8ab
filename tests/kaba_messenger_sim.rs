//! The driver of Messenger's service against the pretend one, under a paused clock; judged by what the pretend locks open
//! to. And bytes of the driver's that were broken on purpose, which the pretend service must refuse.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use jiff::{Timestamp, civil::date};
use latchd::{
    config::{AgentConfig, DriverConfig},
    drivers::{
        Driver, Line, Past, Performed, Work,
        kaba_messenger::{
            KabaMessenger, REST,
            codec::{Header, action, envelope},
            command::{Command, Key, Stay},
            sim::{Property, Settings, Simulator},
        },
    },
    model::{
        AccessMethodId, CardEncode, DoorName, EncoderName, JobId, Order, Outcome, Private, ReservationKey,
        StayModify, SystemName, Treatment, Window,
    },
    protocol::Stage,
    seams::{Clock, MemoryNet, Net, Random},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn a_first_card_overrides_a_further_one_joins_and_locks_agree() {
    let site = Site::open().await;
    assert_eq!(site.card("ada", "101", "1", Treatment::Override).await, "succeeded");
    assert_eq!(site.card("ben", "101", "1", Treatment::Join).await, "succeeded");
    assert_eq!(site.tell("ledger").await["orders"][1]["operation"], "MakeDuplicateKey");
    assert_eq!(site.openers("101").await, ["ada", "ben"]);
    assert_eq!(site.openers("pool").await, ["ada", "ben"]);
    assert_eq!(site.openers("102").await, [""; 0]);

    // Another stay: the first use of its card ends the others'.
    assert_eq!(site.card("eve", "101", "2", Treatment::Override).await, "succeeded");
    assert_eq!(site.tell("use eve at 101").await["opened"], true);
    assert_eq!(site.openers("101").await, ["eve"]);
    // The first stay's name holds nothing any more.
    assert_eq!(site.stay(site.check_out("101", "1")).await, "failed no_stay_to_join");
    assert_eq!(site.stay(site.check_out("101", "2")).await, "succeeded");
    assert_eq!(site.card("dan", "101", "2", Treatment::Join).await, "failed no_stay_to_join");
}

#[tokio::test(start_paused = true)]
async fn a_further_card_whose_stay_is_not_remembered_has_its_own_end() {
    let site = Site::open().await;
    assert_eq!(site.card("ada", "101", "1", Treatment::Override).await, "succeeded");
    assert_eq!(site.stay(site.extend("101", "1", "2026-11-25T10:00:00Z")).await, "succeeded");
    assert_eq!(site.tell("ledger").await["stays"]["1/101"]["rights"]["end"], "2026-11-25T11:00:00");
    assert_eq!(site.card("ben", "101", "1", Treatment::Join).await, "succeeded");
    let ledger = site.tell("ledger").await;
    assert_eq!(ledger["orders"][2]["operation"], "AddSharedGuest");
    assert_eq!(ledger["cards"]["ben"]["rights"]["end"], "2026-11-24T11:00:00");
    // The end of the stay is everybody's who is in the room.
    assert_eq!(site.card("ann", "102", "2", Treatment::Override).await, "succeeded");
    assert_eq!(site.stay(site.check_out("101", "1")).await, "succeeded");
    let ledger = site.tell("ledger").await;
    let stays = ledger["stays"].as_object().unwrap();
    let mut out: Vec<_> = stays.iter().map(|(name, stay)| (name.len(), stay["is_out"] == true)).collect();
    out.sort_unstable();
    assert_eq!(out, [(5, false), (5, true), (14, true)], "{stays:?}");
    // A stay that nobody began cannot be joined, extended or ended.
    assert_eq!(site.card("eve", "103", "1", Treatment::Join).await, "failed no_stay_to_join");
    assert_eq!(site.stay(site.extend("103", "1", "2026-11-25T10:00:00Z")).await, "failed no_stay_to_join");
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_is_named_and_a_card_that_may_open_is_never_a_failure() {
    for (fault, ends) in [
        ("error EncoderMsg EncoderBusy", "failed encoder_busy"),
        ("error EncoderMsg TimeoutWaitingResponse", "unknown no_answer"),
        ("denied", "unknown no_answer"),
        ("soap-fault", "unknown no_answer"),
        ("garbled", "unknown no_answer"),
        ("http 503", "unknown no_answer"),
        ("http 404", "failed rejected"),
        ("silent", "unknown no_answer"),
        ("write-then-silent", "unknown no_answer"),
        ("late 200000", "unknown no_answer"),
        ("slow 1", "succeeded"),
    ] {
        // An encoder without an answer would rest.
        let site = Site::open().await;
        site.tell(&format!("fault {fault}")).await;
        assert_eq!(site.card("ada", "101", "1", Treatment::Override).await, ends, "{fault}");
    }
    let site = Site::open().await;
    assert_eq!(site.card("ada", "101", "1", Treatment::Override).await, "succeeded");
    assert_eq!(site.encode("101", "1", Treatment::Override).await, "failed no_card");
    site.tell("place old foreign on 1").await;
    assert_eq!(site.encode("101", "1", Treatment::Override).await, "failed bad_card");
}

#[tokio::test(start_paused = true)]
async fn cut_anywhere_in_request_and_answer_no_card_that_opens_is_called_a_failure() {
    let site = Site::open().await;
    site.tell("place ada on 1").await;
    let mut seen = std::collections::BTreeSet::new();
    for cut in (0..2600).step_by(3) {
        site.tell("clock set 2026-11-22T10:00").await;
        site.tell(&format!("fault close-after {cut}")).await;
        let before = site.tell("ledger").await["stays"]["1/101"]["stay"].clone();
        let ends = site.encode("101", "1", Treatment::Override).await;
        let ledger = site.tell("ledger").await;
        let wrote = ledger["stays"]["1/101"]["stay"] != before;
        assert!(ends == "unknown line_lost" || (ends == "succeeded" && wrote), "cut at {cut}: {ends}");
        seen.insert((ends, wrote));
        site.tell("fault clear").await;
        sleep(REST).await;
        site.ready().await;
    }
    // Not done, done without our knowing, and done.
    let wanted = [("succeeded", true), ("unknown line_lost", false), ("unknown line_lost", true)];
    assert_eq!(seen, wanted.map(|(ends, wrote)| (ends.to_owned(), wrote)).into());
}

#[tokio::test(start_paused = true)]
async fn encoders_work_at_once_and_a_busy_one_is_named() {
    let site = Site::open().await;
    let other = CardEncode { encoder: EncoderName::new("2").unwrap(), ..order("102", "2") };
    let sink = |_: Stage| {};
    let both = async {
        let one = site.driver.perform(work(Order::CardEncode(order("101", "1")), Treatment::Override), &sink);
        let two = site.driver.perform(work(Order::CardEncode(other), Treatment::Override), &sink);
        let hands = async {
            site.tell("wait card-wait 1").await;
            site.tell("wait card-wait 2").await;
            // Somebody else's order meets a busy encoder, and ours goes on.
            let stay = Stay { reservation: "x".into(), site: "MAIN".into(), terminal: "7".into() };
            let said = site.say(&Command::CreateNewBooking { stay, key: key() }, |text| text).await;
            assert!(said.contains("EncoderBusy"), "{said}");
            site.tell("place ada on 1").await;
            site.tell("place ben on 2").await;
        };
        let (one, two, ()) = tokio::join!(one, two, hands);
        (end(&one), end(&two))
    };
    let ends = timeout(PATIENCE, both).await.unwrap();
    assert_eq!(ends, ("succeeded".into(), "succeeded".into()));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_and_a_description_that_differs_are_seen() {
    let site = Site::open().await;
    assert_eq!(site.driver.remark(), None);
    site.tell("set password other").await;
    assert_eq!(site.card("ada", "101", "1", Treatment::Override).await, "failed auth");
    let mut line = site.driver.line();
    let is_so = |line: &Line| matches!(line, Line::Down(trouble) if trouble.code == "auth_refused");
    timeout(PATIENCE, line.wait_for(is_so)).await.unwrap().unwrap();
    site.tell("set wsdl-without ExtendCheckOut").await;
    site.tell("set password sesame").await;
    site.ready().await;
    assert!(site.driver.remark().unwrap().message.contains("lacks ExtendCheckOut"));
}

/// What the driver says, with one thing about it broken, and what the service has to say to that.
const BROKEN: &[(&str, &str, &str)] = &[
    (
        "<t:AuthHeader xmlns:t=\"http://tempuri.org\">",
        "<t:AuthHeader xmlns:t=\"http://tempuri.org/\">",
        "AuthHeaderNot",
    ),
    ("a:MessageID", "a:MessageId", "AuthHeaderNot"),
    ("<t:Security>", "<t:Security xmlns:t=\"urn:x\">", "AuthHeaderNot"),
    ("<u:Password>sesame", "<u:Password>open", "UserCredentialsNotProvided"),
    ("<u:Username>pms", "<u:Username>PMS", "UserCredentialsNotProvided"),
    (
        "<t:CreateNewBooking xmlns:t=\"http://tempuri.org\">",
        "<t:CreateNewBooking xmlns:t=\"http://tempuri.org/\">",
        "soap:Client",
    ),
    ("t:CreateNewBooking", "t:AddSharedGuest", "soap:Client"),
    ("t:CreateNewBooking", "t:CreateBooking", "soap:Client"),
    ("<s:Body>", "<Body>", "soap:Client"),
    ("http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope", "soap:Client"),
    ("u:GuestName", "t:GuestName", "InvalidWSParameter"),
    ("<t:MainRoomNo>101</t:MainRoomNo>", "", "InvalidWSParameter"),
    ("<t:MainRoomNo>101<", "<t:MainRoomNo>999<", "RoomNumberNotFound"),
    ("<t:KeyCount>1", "<t:KeyCount>2", "InvalidWSParameter"),
    ("<t:eMode>GrantAccess", "<t:eMode>Grant", "InvalidWSParameter"),
    ("<t:PassLevelNo>1<", "<t:PassLevelNo>9<", "PassNumberIsInvalid"),
    ("T15:00:00</t:CheckIn>", " 15:00:00</t:CheckIn>", "InvalidWSParameter"),
    ("T11:00:00</t:CheckOut>", "T11:00:00Z</t:CheckOut>", "InvalidWSParameter"),
    ("<t:CheckOut>2026-11-24", "<t:CheckOut>2026-11-20", "CheckoutDateLessThanSystemDate"),
    ("<t:EncoderID>1<", "<t:EncoderID>8<", "EncoderNotOnlineOrNotExist"),
    (
        "<t:SiteName>MAIN</t:SiteName><t:PMSTerminalID>1</t:PMSTerminalID>",
        "<t:PMSTerminalID>1</t:PMSTerminalID><t:SiteName>MAIN</t:SiteName>",
        "InvalidWSParameter",
    ),
];

#[tokio::test(start_paused = true)]
async fn bytes_of_the_driver_that_were_broken_on_purpose_are_refused() {
    let site = Site::open().await;
    site.tell("place ada on 1").await;
    let stay = || Stay { reservation: "84711".into(), site: "MAIN".into(), terminal: "1".into() };
    let booking = Command::CreateNewBooking { stay: stay(), key: key() };
    for (part, by, wanted) in BROKEN {
        let said = site
            .say(&booking, |text| {
                assert!(text.contains(part), "{part} is not in {text}");
                text.replace(part, by)
            })
            .await;
        assert!(said.contains(wanted) && !said.contains("<bSuccess>true"), "{part} as {by}: {said}");
    }
    assert_eq!(site.openers("101").await, [""; 0]);
    let whole = site.say(&booking, |text| text).await;
    assert!(whole.contains("<bSuccess>true"), "{whole}");
    // The one operation where a guest's name lives with its neighbours.
    let duplicate = Command::MakeDuplicateKey { stay: stay(), encoder: "1".into(), guest: None };
    let utility =
        "xmlns:u=\"http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd\"";
    let said = site
        .say(&duplicate, |text| {
            text.replace("<t:GuestName>", &format!("<u:GuestName {utility}>"))
                .replace("</t:GuestName>", "</u:GuestName>")
        })
        .await;
    assert!(said.contains("InvalidWSParameter"), "{said}");
    assert!(site.say(&duplicate, |text| text).await.contains("<bSuccess>true"));
}

struct Site {
    simulator: Simulator,
    driver: KabaMessenger,
    net: MemoryNet,
    _folder: TempDir,
    serving: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Site {
    async fn open() -> Self {
        let property = Property::default();
        let starts_at = Some(at("2026-11-21T15:00:00Z"));
        let settings = Settings { property: property.clone(), starts_at, ..Settings::default() };
        let simulator = Simulator::new(settings).unwrap();
        let net = MemoryNet::default();
        let listener = net.listen("127.0.0.1:80".parse().unwrap()).await.unwrap();
        let server = simulator.clone();
        let serving = tokio::spawn(async move { server.accept(listener).await });
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        fs::write(&password, "sesame\n").unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let section = property.agent_section("front", "messenger.lan", "password");
        let text = format!(
            "[site]\nname = 'House'\ntime_zone = 'Europe/Oslo'\n[storage]\nfolder = 'store'\n{section}"
        );
        let config = AgentConfig::from_toml(&folder.path().join("latchd.toml"), &text);
        let mut config = config.unwrap_or_else(|errors| panic!("{errors}"));
        let DriverConfig::KabaMessenger(messenger) = config.systems.remove(0).driver else {
            panic!("another make")
        };
        let zone = jiff::tz::TimeZone::get("Europe/Oslo").unwrap();
        let clock = Clock::simulated(at("2026-11-21T15:00:00Z"));
        let name = SystemName::new("front").unwrap();
        let driver = KabaMessenger::start_over(
            Arc::new(net.clone()),
            &messenger,
            name,
            zone,
            Past::Answered,
            clock,
            Random::seeded(7),
        );
        let site = Self { simulator, driver, net, _folder: folder, serving };
        site.ready().await;
        site
    }

    async fn ready(&self) {
        let mut line = self.driver.line();
        timeout(PATIENCE, line.wait_for(|line| *line == Line::Ready)).await.unwrap().unwrap();
    }

    async fn tell(&self, command: &str) -> Value {
        self.simulator.command(command).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// A card is laid down, an order done, and the card taken away.
    async fn card(&self, card: &str, room: &str, reservation: &str, treatment: Treatment) -> String {
        self.tell(&format!("place {card} on 1")).await;
        let ends = self.encode(room, reservation, treatment).await;
        self.tell("remove 1").await;
        ends
    }

    async fn encode(&self, room: &str, reservation: &str, treatment: Treatment) -> String {
        self.perform(work(Order::CardEncode(order(room, reservation)), treatment)).await
    }

    fn check_out(&self, room: &str, reservation: &str) -> Order {
        Order::StayCheckout { room: door(room), reservation_key: ReservationKey::new(reservation).unwrap() }
    }

    fn extend(&self, room: &str, reservation: &str, ends_at: &str) -> Order {
        Order::StayModify(StayModify {
            room: door(room),
            to_room: None,
            reservation_key: ReservationKey::new(reservation).unwrap(),
            ends_at: at(ends_at),
        })
    }

    async fn stay(&self, order: Order) -> String {
        self.perform(work(order, Treatment::Plain)).await
    }

    async fn perform(&self, work: Work) -> String {
        end(&timeout(PATIENCE, self.driver.perform(work, &|_: Stage| {})).await.unwrap())
    }

    async fn openers(&self, door: &str) -> Vec<String> {
        let ledger = self.tell("ledger").await;
        serde_json::from_value(ledger["doors"][door].clone()).unwrap()
    }

    /// Says a command in the driver's own bytes, after `change` had its way with them, and hears the answer.
    async fn say(&self, command: &Command, change: impl FnOnce(String) -> String) -> String {
        let password = Private::new("sesame");
        let header = Header {
            from: "LATCHD",
            message_id: Uuid::from_u128(1),
            timestamp_id: Uuid::from_u128(2),
            token_id: Uuid::from_u128(3),
            user: "pms",
            password: &password,
            created: date(2026, 11, 21).at(15, 0, 5, 0),
            expires: date(2026, 11, 21).at(15, 5, 5, 0),
        };
        let body = change(String::from_utf8(envelope(command, &header)).unwrap());
        let request = format!(
            "POST /lenspmswebservice/MessengerPMSService.asmx HTTP/1.1\r\nHost: x\r\nSOAPAction: {}\r\nContent-Length: {}\r\n\r\n{body}",
            action(command),
            body.len()
        );
        let mut stream = self.net.connect("messenger.lan", 80).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut heard = String::new();
        while !heard.contains("Envelope>") {
            let mut part = [0; 4096];
            let count = timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap();
            assert_ne!(count, 0, "{heard}");
            heard.push_str(std::str::from_utf8(&part[..count]).unwrap());
        }
        heard
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn door(name: &str) -> DoorName {
    DoorName::new(name).unwrap()
}

/// A card for a room and the pool, from now until 11:00 local time three days on.
fn order(room: &str, reservation: &str) -> CardEncode {
    CardEncode {
        encoder: EncoderName::new("1").unwrap(),
        doors: vec![door(room), door("pool")],
        reservation_key: Some(ReservationKey::new(reservation).unwrap()),
        window: Window::new(at("2026-11-21T14:00:00Z"), Some(at("2026-11-24T10:00:00Z"))).unwrap(),
        access_method_id: AccessMethodId(Uuid::nil()),
        guest_name: Some(Private::new("Doe & Sons <Jane>")),
        card_wait_seconds: 60,
        begin_again: false,
    }
}

fn key() -> Key {
    Key {
        encoder: "1".into(),
        check_in: date(2026, 11, 21).at(15, 0, 0, 0),
        check_out: date(2026, 11, 24).at(11, 0, 0, 0),
        guest: None,
        room: "101".into(),
        more_rooms: Vec::new(),
        common: vec![1],
    }
}

fn work(order: Order, treatment: Treatment) -> Work {
    Work { job_id: JobId(Uuid::from_u128(7)), order, treatment, to_see: None, slot: None }
}

/// How it ended, in one word and the code.
fn end(performed: &Performed) -> String {
    match performed {
        Performed::NothingSent(refusal) => format!("nothing_sent {}", refusal.code),
        Performed::MayRepeat(refusal) => format!("may_repeat {}", refusal.code),
        Performed::Ended(Outcome::Failed(refusal)) => format!("failed {}", refusal.code),
        Performed::Ended(Outcome::Unknown(refusal)) => format!("unknown {}", refusal.code),
        Performed::Ended(other) => other.state().to_string(),
    }
}
