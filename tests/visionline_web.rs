//! Visionline's Web API against the pretend server, under a paused clock.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use jiff::{Timestamp, civil::date};
use latchd::{
    config::{AgentConfig, DriverConfig, VisionlineConfig},
    drivers::{
        Driver, Line, Past, Performed, Work,
        visionline::{
            Visionline,
            sim::{Property, Settings, Simulator},
            web::{
                answer,
                call::{Call, PhoneKey, Standing},
                codec::{self, SessionKey},
                visit::{Errand, Result as Came},
            },
        },
    },
    model::{
        AccessMethodId, CardEncode, Code, DoorName, EncoderName, JobId, Order, Outcome, Private, StayCards,
        SystemName, Treatment, Window,
    },
    seams::{Clock, MemoryNet, Net, Random},
    transport::http::{Ask, Method},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::timeout,
};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(600);
const PMS: &str = "127.0.0.1:4000";
const WEB: &str = "127.0.0.1:8080";
const NOW: &str = "2026-11-21T14:00:05Z";
/// The end of [`card`] as it is printed.
const END: &str = "2026-11-24T10:00:00Z";

struct Site {
    simulator: Simulator,
    net: MemoryNet,
    driver: Visionline,
    _folder: tempfile::TempDir,
    serving: [JoinHandle<()>; 2],
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

impl Site {
    async fn open() -> Self {
        Self::open_with(NOW, "secret", "").await
    }

    /// A site whose own clock shows `now`, whose password file has `password`, and whose configuration has `more` rooms.
    async fn open_with(now: &str, password: &str, more: &str) -> Self {
        let property = Property::default();
        let settings =
            Settings { property: property.clone(), starts_at: Some(at(NOW)), ..Settings::default() };
        let simulator = Simulator::new(settings).unwrap();
        let net = MemoryNet::default();
        let (pms, web) = (net.listen(PMS.parse().unwrap()).await, net.listen(WEB.parse().unwrap()).await);
        let (first, second) = (simulator.clone(), simulator.clone());
        let serving = [
            tokio::spawn(async move { first.accept(pms.unwrap()).await }),
            tokio::spawn(async move { second.accept_web(web.unwrap()).await }),
        ];
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, format!("{password}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let section = property.agent_section("front", PMS, Some((WEB, file.to_str().unwrap())));
        let section = section.replace("rooms = [", &format!("rooms = [{more}"));
        let section = section.replace("exclusive = true", "exclusive = false");
        let driver = Visionline::start_over(
            Arc::new(net.clone()),
            &config(&section),
            SystemName::new("front").unwrap(),
            jiff::tz::TimeZone::get("Europe/Oslo").unwrap(),
            Past::Answered,
            Clock::simulated(at(now)),
            Random::seeded(7),
        );
        let mut line = driver.line();
        timeout(PATIENCE, line.wait_for(|line| *line == Line::Ready)).await.unwrap().unwrap();
        Self { simulator, net, driver, _folder: folder, serving }
    }

    async fn tell(&self, command: &str) -> Value {
        self.simulator.command(command).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Writes a card on a fresh chip; `to_see` as the ledger has it.
    async fn encode(&self, chip: &str, treatment: Treatment, to_see: Option<StayCards>) -> Performed {
        self.tell("remove 1").await;
        self.tell(&format!("place {chip} on 1")).await;
        let work = Work { job_id: JobId(Uuid::nil()), order: card(chip), treatment, to_see, slot: None };
        timeout(PATIENCE, self.driver.perform(work, &|_| ())).await.unwrap()
    }

    /// Writes the stay's first card, and gives what the ledger then knows of it.
    async fn first_card(&self) -> StayCards {
        let performed = self.encode("ada", Treatment::Override, None).await;
        let Performed::Ended(Outcome::Succeeded(success)) = performed else { panic!("{performed:?}") };
        let facts = success.card.unwrap();
        StayCards {
            chips: facts.serial.into_iter().collect(),
            printed_ends: facts.printed_end.into_iter().collect(),
        }
    }

    async fn join(&self, stay: &StayCards) -> std::result::Result<(), Code> {
        match self.encode("ben", Treatment::Join, Some(stay.clone())).await {
            Performed::Ended(Outcome::Succeeded(_)) => Ok(()),
            Performed::Ended(Outcome::Failed(refusal)) => Err(refusal.code),
            other => panic!("{other:?}"),
        }
    }

    /// How many commands came over the PMS text interface.
    async fn orders(&self) -> usize {
        self.tell("ledger").await["orders"].as_array().unwrap().len()
    }

    /// Says a request to the Web API as it is, and gives the status and the body of the answer.
    async fn say(&self, head: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = self.net.connect("127.0.0.1", 8080).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        let (head, length) = loop {
            answer.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
            if answer.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8(answer).unwrap();
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
                let length: usize = length.parse().unwrap();
                break (head, length);
            }
        };
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn ask(&self, ask: &Ask) -> (u16, Value) {
        self.say(&head(ask), &ask.body).await
    }

    async fn signed_in(&self) -> SessionKey {
        let call = Call::SignIn { user: "bridge".into(), password: Private::new("secret") };
        let (status, body) = self.ask(&codec::ask(&call, at(NOW), None)).await;
        assert_eq!(status, 201);
        answer::session(body.to_string().as_bytes()).unwrap()
    }
}

/// A request's head, as a client without the product's transport has it.
fn head(ask: &Ask) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\nHost: visionline\r\n", ask.method, ask.resource);
    for (name, value) in &ask.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", ask.body.len()));
    head
}

fn config(section: &str) -> VisionlineConfig {
    let head = "[site]\nname = \"House\"\ntime_zone = \"Europe/Oslo\"\n[storage]\nfolder = \"s\"\n";
    let text = format!("{head}{section}");
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

/// A card for 101; each chip's is another guest's.
fn card(chip: &str) -> Order {
    Order::CardEncode(CardEncode {
        encoder: EncoderName::new("1").unwrap(),
        doors: vec![DoorName::new("101").unwrap()],
        reservation_key: None,
        window: Window::new(at("2026-11-21T14:00:00Z"), Some(at(END))).unwrap(),
        access_method_id: AccessMethodId(Uuid::from_slice(format!("{chip:>16}").as_bytes()).unwrap()),
        guest_name: None,
        card_wait_seconds: 60,
        begin_again: false,
    })
}

fn phone(standing: Standing) -> Errand {
    Errand::PhoneKey(PhoneKey {
        standing,
        endpoint: "guest-84711".into(),
        label: "%ROOMRANGE%".into(),
        description: "Hôtel Example".into(),
        doors: vec!["101".into()],
        start: None,
        end: date(2026, 11, 24).at(11, 0, 0, 0),
    })
}

fn cards_of_101(day: i8) -> Errand {
    Errand::Cards(Call::CardsOfDoor { door: "101".into(), at: date(2026, 11, day).at(15, 0, 0, 0) })
}

#[tokio::test(start_paused = true)]
async fn a_card_joins_while_the_server_lists_a_good_card_of_the_stay() {
    let site = Site::open().await;
    let stay = site.first_card().await;
    assert_eq!(stay.printed_ends, [at(END)]);
    assert_eq!(site.join(&stay).await, Ok(()));
    assert_eq!(site.tell("ledger").await["web_sessions"], 0, "no session is left open");
}

#[tokio::test(start_paused = true)]
async fn a_room_that_somebody_else_changed_is_not_joined_and_nothing_is_written() {
    let site = Site::open().await;
    let stay = site.first_card().await;
    site.tell("foreign-card-made 101").await;
    let before = site.orders().await;
    assert_eq!(site.join(&stay).await, Err(Code::NoStayToJoin));
    assert_eq!(site.orders().await, before);
    // A stay in another room says nothing of this one.
    let none = StayCards { chips: vec!["04A1B2C3D4E5FFFF".into()], ..stay.clone() };
    assert_eq!(site.join(&none).await, Err(Code::NoStayToJoin));
    let other_end = StayCards { printed_ends: vec![at("2026-11-25T10:00:00Z")], ..stay };
    assert_eq!(site.join(&other_end).await, Err(Code::NoStayToJoin));
    assert_eq!(site.orders().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_chip_that_holds_another_card_by_now_proves_nothing() {
    let site = Site::open().await;
    let stay = site.first_card().await;
    // The same chip, written anew for the next stay.
    let Performed::Ended(Outcome::Succeeded(_)) = site.encode("ben", Treatment::Override, None).await else {
        panic!()
    };
    assert_eq!(site.join(&stay).await, Err(Code::NoStayToJoin));
}

#[tokio::test(start_paused = true)]
async fn where_the_server_cannot_be_asked_nothing_is_written() {
    let site = Site::open().await;
    let stay = site.first_card().await;
    let before = site.orders().await;
    for trouble in ["web status 500", "web status 404", "web silent", "web close-after 0"] {
        site.tell(trouble).await;
        assert_eq!(site.join(&stay).await, Err(Code::RoomStateUnknown), "{trouble}");
        assert_eq!(site.orders().await, before, "{trouble}");
    }
    assert_eq!(site.join(&stay).await, Ok(()));
    let locked_out = Site::open_with(NOW, "wrong", "").await;
    let stay = locked_out.first_card().await;
    assert_eq!(locked_out.join(&stay).await, Err(Code::RoomStateUnknown));
}

#[tokio::test(start_paused = true)]
async fn a_card_that_is_looked_for_when_the_agent_stops_is_not_begun() {
    let site = Site::open().await;
    let stay = site.first_card().await;
    let before = site.orders().await;
    site.tell("web silent").await;
    let stop = async {
        site.tell("wait count cards 1").await;
        site.driver.stop();
    };
    let (performed, ()) = tokio::join!(site.encode("ben", Treatment::Join, Some(stay)), stop);
    assert!(
        matches!(&performed, Performed::NothingSent(why) if why.code == Code::SystemOffline),
        "{performed:?}"
    );
    assert_eq!(site.orders().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_is_cut_at_any_byte_joins_nothing() {
    let site = Site::open().await;
    let stay = site.first_card().await;
    let before = site.orders().await;
    let mut cut = 0;
    // Until the connection that it strikes is that of signing out, whose end changes nothing.
    loop {
        site.tell(&format!("web close-after {cut}")).await;
        let joined = site.join(&stay).await;
        if joined.is_ok() {
            break;
        }
        assert_eq!(joined, Err(Code::RoomStateUnknown), "cut at {cut}");
        assert_eq!(site.orders().await, before, "cut at {cut}");
        cut += 1;
    }
    assert!(cut > 1200, "three calls and their answers passed: {cut}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ended_meanwhile_is_opened_again_and_a_clock_that_is_off_is_followed() {
    let site = Site::open().await;
    let stay = site.first_card().await;
    site.tell("web status 401").await;
    assert_eq!(site.join(&stay).await, Ok(()));

    // Two hours behind the server: its own word of the time dates the calls.
    let behind = Site::open_with("2026-11-21T12:00:05Z", "secret", "").await;
    let stay = behind.first_card().await;
    assert_eq!(behind.join(&stay).await, Ok(()));
    assert_eq!(behind.driver.remark(), None, "the doors were listed all the same");
}

#[tokio::test(start_paused = true)]
async fn a_room_that_the_server_does_not_know_is_told() {
    let site = Site::open_with(NOW, "secret", "\"999\", ").await;
    let mut line = site.driver.line();
    let remark = loop {
        if let Some(remark) = site.driver.remark() {
            break remark;
        }
        timeout(PATIENCE, line.changed()).await.unwrap().unwrap();
    };
    assert_eq!(remark.code, "rooms_unknown");
    assert!(remark.message.contains("999"), "{}", remark.message);

    let locked_out = Site::open_with(NOW, "wrong", "").await;
    let mut line = locked_out.driver.line();
    let remark = loop {
        if let Some(remark) = locked_out.driver.remark() {
            break remark;
        }
        timeout(PATIENCE, line.changed()).await.unwrap().unwrap();
    };
    assert_eq!(remark.code, "web_api_down");
    assert!(!remark.message.contains("wrong user\n") && remark.message.contains("does not let this user in"));
}

#[tokio::test(start_paused = true)]
async fn a_telephones_key_overrides_joins_and_names_whom_it_joins() {
    let site = Site::open().await;
    site.first_card().await;
    let Came::Made(_) = site.driver.visit_web(phone(Standing::AutoJoin)).await.unwrap() else { panic!() };
    site.tell("clock set 2026-11-22T10:00").await;
    let site = &site;
    let opens =
        |card: &'static str| async move { site.tell(&format!("use {card} at 101")).await["opened"].clone() };
    assert_eq!((opens("phone-guest-84711").await, opens("ada").await), (true.into(), true.into()));

    let Came::Made(_) = site.driver.visit_web(phone(Standing::Override)).await.unwrap() else { panic!() };
    assert_eq!((opens("phone-guest-84711").await, opens("ada").await), (true.into(), false.into()));

    let Came::Cards(cards) = site.driver.visit_web(cards_of_101(22)).await.unwrap() else { panic!() };
    let (live, dead): (Vec<_>, Vec<_>) = cards.into_iter().partition(|card| card.is_live);
    assert_eq!((live.len(), dead.len()), (1, 2));
    let of = |cards: &[answer::Card]| cards.iter().map(|card| card.id.clone()).collect::<Vec<_>>();
    let Came::Made(_) = site.driver.visit_web(phone(Standing::Joiners(of(&live)))).await.unwrap() else {
        panic!()
    };
    let refused = site.driver.visit_web(phone(Standing::Joiners(of(&dead)))).await.unwrap();
    assert!(matches!(&refused, Came::Refused(why) if why.code == Code::Rejected), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_answer_is_lost_is_a_doubt_and_never_asked_for_again() {
    let site = Site::open().await;
    site.tell("web silent").await;
    let came = site.driver.visit_web(phone(Standing::Override)).await.unwrap();
    assert!(matches!(came, Came::Doubt(_)), "{came:?}");
    let Came::Cards(cards) = site.driver.visit_web(cards_of_101(21)).await.unwrap() else { panic!() };
    assert_eq!(cards.len(), 1, "it was made, and once");
    site.tell("web status 503").await;
    let came = site.driver.visit_web(phone(Standing::Override)).await.unwrap();
    assert!(matches!(came, Came::Doubt(_)), "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_spelled_or_signed_in_any_other_way_is_refused() {
    let site = Site::open().await;
    let key = site.signed_in().await;
    let Errand::PhoneKey(phone) = phone(Standing::Override) else { unreachable!() };
    let right = || codec::ask(&Call::PhoneKey(phone.clone()), at(NOW), Some(&key));
    let mut broken: Vec<(&str, u16, Ask)> = Vec::new();
    let mut breaks = |what, status, change: &dyn Fn(&mut Ask)| {
        let mut ask = right();
        change(&mut ask);
        broken.push((what, status, ask));
    };
    breaks("a changed byte of the body", 400, &|ask| ask.body[3] ^= 1);
    breaks("another type", 400, &|ask| set(ask, "content-type", "application/json;charset=utf-8"));
    breaks("no digest", 400, &|ask| ask.headers.retain(|(name, _)| *name != "content-md5"));
    breaks("another order of the query", 401, &|ask| {
        ask.resource = "/api/v1/cards?override=true&action=mobileAccess".into();
    });
    breaks("a changed query", 401, &|ask| {
        ask.resource = "/api/v1/cards?action=mobileAccess&autoJoin=true".into();
    });
    breaks("another second", 401, &|ask| set(ask, "date", "Sat, 21 Nov 2026 14:00:06 GMT"));
    breaks("no signature", 401, &|ask| ask.headers.retain(|(name, _)| *name != "authorization"));
    breaks("another session", 401, &|ask| set(ask, "authorization", "AWS 5f0c2a9e-9999:AAAA"));
    let sign = |text: &str| format!("AWS {}:{}", key.id, codec::signature(&key.access_key, text));
    breaks("a signature without the query", 401, &|ask| {
        let (digest, date) = (header(ask, "content-md5"), header(ask, "date"));
        let text = codec::text_to_sign(&Method::POST, &digest, &date, "/api/v1/cards");
        set(ask, "authorization", &sign(&text));
    });
    for (what, expected, ask) in &broken {
        let (status, body) = site.ask(ask).await;
        assert_eq!(status, *expected, "{what}: {body}");
    }

    // A call without a body, signed as if it had no lines for digest and type.
    let mut doors = codec::ask(&Call::Doors { details: false }, at(NOW), Some(&key));
    let text = format!("GET\n{}\n{}", header(&doors, "date"), doors.resource);
    set(&mut doors, "authorization", &sign(&text));
    assert_eq!(site.ask(&doors).await.0, 401);
    // The date is signed, and too far off.
    let late = codec::ask(&Call::Doors { details: false }, at("2026-11-21T15:00:05Z"), Some(&key));
    assert_eq!(site.ask(&late).await.0, 401);
    assert_eq!(site.ask(&right()).await.0, 201, "the unbroken one is taken");
    site.tell("web expire").await;
    assert_eq!(site.ask(&right()).await.0, 401, "the session is over");
}

fn header(ask: &Ask, wanted: &str) -> String {
    ask.headers.iter().find(|(name, _)| *name == wanted).unwrap().1.clone()
}

fn set(ask: &mut Ask, wanted: &str, to: &str) {
    ask.headers.iter_mut().find(|(name, _)| *name == wanted).unwrap().1 = to.into();
}
