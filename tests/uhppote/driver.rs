//! The driver with pretend boards: what is ordered for doors, judged by swipes at their readers minute by minute.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, SocketAddrV4},
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use latchd::{
    config::{AgentConfig, DriverConfig},
    drivers::{
        Driver, Performed, Proof, Work,
        uhppote::{
            Uhppote,
            sim::{House, Settings},
        },
    },
    model::{
        Code, DeviceName, JobId, Order, Outcome, Private, SlotContent, SlotNow, SlotPut, SystemName,
        Treatment, Window,
    },
    seams::{BoxFuture, Clock, Datagrams, Listener, Net, Stream},
};
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use super::pump::{BOARD, OTHER, say};

const ADDRESS: &str = "10.0.0.7:60000";
const ZONE: &str = "Europe/Oslo";

/// Says of a request whether it arrives.
type Arrives = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// A network on which there are the boards, and nobody else.
#[derive(Clone)]
struct Wire {
    house: House,
    arrives: Arc<Mutex<Arrives>>,
}

struct Socket {
    wire: Wire,
    port: u16,
    inbox: Mutex<VecDeque<Vec<u8>>>,
    told: Notify,
}

impl Net for Wire {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn datagrams(&self, address: SocketAddrV4) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        let port = if address.port() == 0 { 50_000 } else { address.port() };
        let (wire, inbox, told) = (self.clone(), Mutex::default(), Notify::new());
        Box::pin(async move { Ok(Box::new(Socket { wire, port, inbox, told }) as Box<dyn Datagrams>) })
    }
}

impl Datagrams for Socket {
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 2], self.port))
    }

    fn send<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>> {
        assert_eq!(to, ADDRESS.parse().unwrap());
        Box::pin(async move {
            if (self.wire.arrives.lock().unwrap())(bytes) {
                self.inbox.lock().unwrap().extend(self.wire.house.answers(bytes));
                self.told.notify_one();
            }
            Ok(())
        })
    }

    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(async move {
            loop {
                if let Some(packet) = self.inbox.lock().unwrap().pop_front() {
                    let count = packet.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&packet[..count]);
                    return Ok((count, ADDRESS.parse().unwrap()));
                }
                self.told.notified().await;
            }
        })
    }
}

/// Boards, the driver that has them in hand, and what each slot may hold as the queue would keep it.
struct Site {
    house: House,
    wire: Wire,
    driver: Arc<Uhppote>,
    clock: Clock,
}

impl Site {
    async fn new() -> Self {
        Self::with("").await
    }

    /// Two doors of the first board and one of the second; `more` are further settings.
    async fn with(more: &str) -> Self {
        let starts_at: Timestamp = "2026-11-20T11:00:00Z".parse().unwrap();
        let settings = Settings {
            serials: vec![BOARD, OTHER],
            cards: 100,
            events: 1000,
            starts_at: TimeZone::get(ZONE).unwrap().to_datetime(starts_at),
        };
        let house = House::new(&settings);
        let text = format!(
            "[site]\nname = \"House\"\ntime_zone = \"{ZONE}\"\n[storage]\nfolder = \"s\"\n\
             [[system]]\nname = \"house\"\nkind = \"uhppote\"\n{more}\n\
             [[system.boards]]\nserial = {BOARD}\naddress = \"{ADDRESS}\"\n\
             doors = [{{ name = \"front\", door = 1, keypad = true }}, {{ name = \"flat\", door = 3 }}]\n\
             [[system.boards]]\nserial = {OTHER}\naddress = \"{ADDRESS}\"\ndoors = [{{ name = \"garage\", door = 1 }}]\n"
        );
        // Both are at one address here, which no site would say.
        let text = text.replacen(ADDRESS, "10.0.0.8:60000", 1).replacen(ADDRESS, "10.0.0.7:60000", 1);
        let config = AgentConfig::from_toml(std::path::Path::new("/latchd.toml"), &text);
        let mut config = config.unwrap_or_else(|error| panic!("{error}"));
        let DriverConfig::Uhppote(boards) = &mut config.systems[0].driver else { panic!("another make") };
        for board in &mut boards.boards {
            board.address = Some(ADDRESS.parse().unwrap());
        }
        let clock = Clock::simulated(starts_at);
        let wire = Wire { house: house.clone(), arrives: Arc::new(Mutex::new(Box::new(|_| true))) };
        let (zone, system) = (TimeZone::get(ZONE).unwrap(), SystemName::new("house").unwrap());
        let driver = Uhppote::start_over(Arc::new(wire.clone()), boards, system, zone, clock.clone());
        // Its clocks are set first.
        say(&house, "wait requests 32 1").await;
        Self { house, wire, driver, clock }
    }

    /// From now on requests arrive as this says.
    fn arrives(&self, so: impl FnMut(&[u8]) -> bool + Send + 'static) {
        *self.wire.arrives.lock().unwrap() = Box::new(so);
    }

    async fn perform(&self, order: Order, slot: &SlotNow) -> Performed {
        self.driver.perform(work(order, slot), &|_| {}).await
    }

    /// Puts a number where the slot holds nothing yet; it must be done.
    async fn puts(&self, door: &str, number: &str, hours: (&str, &str)) {
        let put = self.perform(put(door, card(number), hours), &SlotNow::default()).await;
        assert!(matches!(put, Performed::Ended(Outcome::Succeeded(_))), "{put:?}");
    }

    async fn removes(&self, door: &str, number: &str) {
        let removed = self.perform(remove(door), &holds(&[card(number)])).await;
        assert!(matches!(removed, Performed::Ended(Outcome::Succeeded(_))), "{removed:?}");
    }

    /// Whether a board lets a number in at a door at this minute of its own clock.
    async fn opens(&self, board: u32, door: u8, number: u32, at: &str) -> bool {
        say(&self.house, &format!("at {board} clock set {at}")).await;
        say(&self.house, &format!("at {board} swipe {number} {door}")).await["granted"] == true
    }

    async fn cards(&self, board: u32) -> Vec<Value> {
        say(&self.house, &format!("at {board} cards")).await["cards"].as_array().unwrap().clone()
    }

    async fn asked(&self, function: &str) -> u64 {
        let requests = say(&self.house, "requests").await;
        requests["requests"][function].as_u64().unwrap_or_default()
    }
}

fn work(order: Order, slot: &SlotNow) -> Work {
    Work {
        job_id: JobId(Uuid::from_u128(1)),
        order,
        treatment: Treatment::Override,
        to_see: None,
        slot: Some(slot.clone()),
    }
}

/// A chip's number: hexadecimal, as a reader of Wiegand 34 tells it.
fn card(number: &str) -> SlotContent {
    SlotContent::CardNumber(Private::new(format!("{:08X}", number.parse::<u32>().unwrap())))
}

fn put(door: &str, content: SlotContent, (from, until): (&str, &str)) -> Order {
    let at = |text: &str| text.parse().unwrap();
    Order::SlotPut(SlotPut {
        device: DeviceName::new(door).unwrap(),
        slot: "stay".into(),
        content,
        window: Window::new(at(from), Some(at(until))).unwrap(),
        generation: 1,
    })
}

fn remove(door: &str) -> Order {
    Order::SlotRemove { device: DeviceName::new(door).unwrap(), slot: "stay".into() }
}

fn holds(contents: &[SlotContent]) -> SlotNow {
    SlotNow { may_hold: contents.to_vec(), ..SlotNow::default() }
}

fn code(performed: &Performed) -> (&'static str, Code) {
    match performed {
        Performed::Ended(outcome) => {
            let word = match outcome {
                Outcome::Failed(_) => "failed",
                Outcome::Unknown(_) => "unknown",
                other => panic!("{other:?}"),
            };
            (word, outcome.reason().unwrap().code)
        }
        Performed::NothingSent(refusal) => ("nothing sent", refusal.code),
        Performed::MayRepeat(refusal) => ("may repeat", refusal.code),
    }
}

#[tokio::test(start_paused = true)]
async fn a_card_opens_in_its_window_to_the_minute_at_its_door_alone() {
    let site = Site::new().await;
    // 15:00 of the 21st to 11:00 of the 24th, by the clocks of the property.
    site.puts("front", "10058400", ("2026-11-21T14:00:00Z", "2026-11-24T10:00:00Z")).await;
    for (at, opens) in [
        ("2026-11-20T23:59:00", false),
        ("2026-11-21T14:59:00", false),
        ("2026-11-21T15:00:00", true),
        ("2026-11-21T23:59:00", true),
        ("2026-11-22T00:00:00", true),
        ("2026-11-23T03:00:00", true),
        ("2026-11-24T10:59:00", true),
        // The last minute counts whole; the agent takes the card out before.
        ("2026-11-24T11:00:00", true),
        ("2026-11-24T11:01:00", false),
        ("2026-11-25T00:00:00", false),
    ] {
        assert_eq!(site.opens(BOARD, 1, 10_058_400, at).await, opens, "{at}");
        assert!(!site.opens(BOARD, 3, 10_058_400, at).await, "{at}");
        assert!(!site.opens(OTHER, 1, 10_058_400, at).await, "{at}");
    }
    site.removes("front", "10058400").await;
    assert!(!site.opens(BOARD, 1, 10_058_400, "2026-11-22T12:00:00").await);
    assert_eq!(site.cards(BOARD).await.len(), 0);
}

/// Every minute of two days, and what was granted of it: the board opens in all of that, and at most a minute more.
#[tokio::test(start_paused = true)]
async fn windows_within_a_day_across_days_and_across_changes_of_clocks_are_kept_to_the_minute() {
    let zone = TimeZone::get(ZONE).unwrap();
    for (from, until) in [
        ("2026-11-21T08:15:00Z", "2026-11-21T16:45:00Z"),
        ("2026-11-21T22:59:00Z", "2026-11-21T23:01:00Z"),
        ("2026-11-21T20:00:00Z", "2026-11-22T05:30:00Z"),
        ("2026-11-21T23:00:00Z", "2026-11-22T23:00:00Z"),
        // The hour from two to three comes twice, or not at all.
        ("2026-10-24T20:00:00Z", "2026-10-25T06:00:00Z"),
        ("2026-10-24T20:00:00Z", "2026-10-25T00:30:00Z"),
        ("2026-10-25T00:30:00Z", "2026-10-25T06:00:00Z"),
        ("2027-03-27T20:00:00Z", "2027-03-28T06:00:00Z"),
        ("2027-03-28T00:30:00Z", "2027-03-28T01:30:00Z"),
    ] {
        let site = Site::new().await;
        site.puts("front", "7", (from, until)).await;
        let (from, until): (Timestamp, Timestamp) = (from.parse().unwrap(), until.parse().unwrap());
        let day = zone.to_datetime(from).date();
        let midnight = zone.to_timestamp(day.at(0, 0, 0, 0)).unwrap();
        for minute in 0..50 * 60 {
            let at = midnight + SignedDuration::from_mins(minute);
            let shown: DateTime = zone.to_datetime(at);
            let opens = site.opens(BOARD, 1, 7, &shown.to_string()).await;
            if from <= at && at < until {
                assert!(opens, "{from} to {until}: shut at {shown}");
            }
            // What shows twice may be either of the two, and a start or an end there takes in the whole of that hour.
            let either = [zone.to_ambiguous_zoned(shown).earlier(), zone.to_ambiguous_zoned(shown).later()];
            let is_near = either.into_iter().any(|meant| {
                let meant = meant.unwrap().timestamp();
                from - SignedDuration::from_hours(1) <= meant
                    && meant <= until + SignedDuration::from_hours(2)
            });
            let is_granted = |at: Timestamp| from <= at && at < until;
            let has_change = zone
                .preceding(until + SignedDuration::from_hours(12))
                .next()
                .is_some_and(|change| from - SignedDuration::from_hours(12) <= change.timestamp());
            match has_change {
                true => assert!(!opens || is_near, "{from} to {until}: open at {shown}"),
                // The last minute counts whole, but of a day.
                false if at == until => {}
                false => assert_eq!(opens, is_granted(at), "{from} to {until}: at {shown}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_card_at_two_doors_keeps_the_hours_of_each() {
    let site = Site::new().await;
    site.puts("front", "7", ("2026-11-21T14:00:00Z", "2026-11-24T10:00:00Z")).await;
    site.puts("flat", "7", ("2026-11-23T23:00:00Z", "2026-11-30T23:00:00Z")).await;
    site.puts("garage", "7", ("2026-11-22T11:00:00Z", "2026-11-22T12:00:00Z")).await;
    for (at, front, flat, garage) in [
        ("2026-11-21T14:59:00", false, false, false),
        ("2026-11-21T15:00:00", true, false, false),
        ("2026-11-22T12:30:00", true, false, true),
        ("2026-11-23T23:59:00", true, false, false),
        ("2026-11-24T00:00:00", true, true, false),
        ("2026-11-24T11:01:00", false, true, false),
        ("2026-11-30T23:59:00", false, true, false),
        ("2026-12-01T00:00:00", false, false, false),
    ] {
        assert_eq!(site.opens(BOARD, 1, 7, at).await, front, "front at {at}");
        assert_eq!(site.opens(BOARD, 3, 7, at).await, flat, "flat at {at}");
        assert_eq!(site.opens(OTHER, 1, 7, at).await, garage, "garage at {at}");
    }
    site.removes("front", "7").await;
    assert!(!site.opens(BOARD, 1, 7, "2026-11-24T10:00:00").await);
    assert!(site.opens(BOARD, 3, 7, "2026-11-24T10:00:00").await);
    site.removes("flat", "7").await;
    assert_eq!((site.cards(BOARD).await.len(), site.cards(OTHER).await.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_typed_number_is_a_pin_where_there_are_keys_and_another_one_takes_its_place() {
    let site = Site::new().await;
    let hours = ("2026-11-21T14:00:00Z", "2026-11-24T10:00:00Z");
    let pin = |digits: &str| SlotContent::Pin(Private::new(digits));
    let first = site.perform(put("front", pin("471108"), hours), &SlotNow::default()).await;
    assert!(matches!(first, Performed::Ended(Outcome::Succeeded(_))), "{first:?}");
    let second = site.perform(put("front", pin("250912"), hours), &holds(&[pin("471108")])).await;
    assert!(matches!(second, Performed::Ended(Outcome::Succeeded(_))), "{second:?}");
    assert!(site.opens(BOARD, 1, 250_912, "2026-11-22T12:00:00").await);
    assert!(!site.opens(BOARD, 1, 471_108, "2026-11-22T12:00:00").await);
    let nowhere = site.perform(put("flat", pin("471108"), hours), &SlotNow::default()).await;
    assert_eq!(code(&nowhere), ("failed", Code::Unsupported));
    // What another slot has is not taken from it.
    let taken = site.perform(put("front", pin("250912"), hours), &SlotNow::default()).await;
    assert_eq!(code(&taken), ("failed", Code::ContentTaken));
}

#[tokio::test(start_paused = true)]
async fn whatever_gets_lost_a_card_is_as_ordered_in_the_end() {
    let hours = ("2026-11-21T14:00:00Z", "2026-11-24T10:00:00Z");
    for fault in ["deaf", "silent", "double", "foreign", "noise"] {
        for function in ["88", "98", "50", "5a", "58"] {
            let site = Site::new().await;
            say(&site.house, &format!("fault {fault} on {function} 2")).await;
            let performed = site.perform(put("front", card("7"), hours), &SlotNow::default()).await;
            assert!(
                matches!(performed, Performed::Ended(Outcome::Succeeded(_))),
                "{fault} on {function}: {performed:?}"
            );
            assert!(site.opens(BOARD, 1, 7, "2026-11-22T12:00:00").await, "{fault} on {function}");
            assert!(!site.opens(BOARD, 1, 7, "2026-11-21T14:59:00").await, "{fault} on {function}");
            assert_eq!(site.cards(BOARD).await.len(), 1);
        }
    }
}

/// Whichever request is the last one to arrive, nothing is told that is not so, and once all arrive again the same order
/// comes to its end.
#[tokio::test(start_paused = true)]
async fn a_board_that_goes_away_at_any_request_makes_no_lie() {
    let hours = ("2026-11-21T14:00:00Z", "2026-11-24T10:00:00Z");
    let (mut nothing, mut repeated) = (0, 0);
    for last in 0..60 {
        let site = Site::with("profiles = [40, 49]").await;
        let mut arrived = 0;
        site.arrives(move |_| {
            arrived += 1;
            arrived <= last
        });
        let order = put("front", card("7"), hours);
        let performed = site.perform(order.clone(), &SlotNow::default()).await;
        match &performed {
            Performed::Ended(Outcome::Succeeded(_)) => {
                assert!(site.opens(BOARD, 1, 7, "2026-11-22T12:00:00").await);
                assert!(3 < nothing && 3 < repeated, "{nothing} and {repeated}");
                return;
            }
            Performed::NothingSent(_) => nothing += 1,
            Performed::MayRepeat(_) => repeated += 1,
            other => panic!("{last}: {other:?}"),
        }
        if matches!(performed, Performed::NothingSent(_)) {
            assert_eq!(site.cards(BOARD).await.len(), 0, "{last}");
        }
        site.arrives(|_| true);
        let again = site.perform(order, &holds(&[card("7")])).await;
        assert!(matches!(again, Performed::Ended(Outcome::Succeeded(_))), "{last}: {again:?}");
        assert!(site.opens(BOARD, 1, 7, "2026-11-21T15:00:00").await, "{last}");
        assert!(!site.opens(BOARD, 1, 7, "2026-11-21T14:59:00").await, "{last}");
    }
    panic!("it never came to its end");
}

#[tokio::test(start_paused = true)]
async fn a_board_that_forgot_everything_is_read_anew_and_filled_again() {
    let site = Site::new().await;
    let hours = ("2026-11-21T14:00:00Z", "2026-11-24T10:00:00Z");
    for number in ["7", "8", "9"] {
        site.puts("front", number, hours).await;
    }
    say(&site.house, "forget").await;
    let proof = site.driver.prove(&work(put("front", card("7"), hours), &holds(&[card("7")]))).await;
    assert!(matches!(proof, Proof::NotDone(_)), "{proof:?}");
    for number in ["7", "8", "9"] {
        let again = site.perform(put("front", card(number), hours), &holds(&[card(number)])).await;
        assert!(matches!(again, Performed::Ended(Outcome::Succeeded(_))), "{again:?}");
    }
    assert_eq!(site.cards(BOARD).await.len(), 3);
    assert!(!site.opens(BOARD, 1, 8, "2026-11-21T14:59:00").await, "its profiles are there again");
    assert!(site.opens(BOARD, 1, 8, "2026-11-21T15:00:00").await);
    let proof = site.driver.prove(&work(put("front", card("7"), hours), &holds(&[card("7")]))).await;
    assert!(matches!(proof, Proof::Done(_)), "{proof:?}");
    let other = ("2026-11-21T14:00:00Z", "2026-11-25T10:00:00Z");
    let proof = site.driver.prove(&work(put("front", card("7"), other), &holds(&[card("7")]))).await;
    assert!(matches!(proof, Proof::None), "the same card in other hours proves nothing: {proof:?}");
    let proof = site.driver.prove(&work(remove("front"), &holds(&[card("7")]))).await;
    assert!(matches!(proof, Proof::NotDone(_)), "{proof:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_board_is_told_as_that() {
    let site = Site::new().await;
    say(&site.house, "room 2").await;
    let hours = ("2026-11-21T14:00:00Z", "2026-11-24T10:00:00Z");
    for number in ["7", "8"] {
        site.puts("front", number, hours).await;
    }
    let full = site.perform(put("front", card("9"), hours), &SlotNow::default()).await;
    assert_eq!(code(&full), ("failed", Code::Rejected));
    site.removes("front", "7").await;
    site.puts("front", "9", hours).await;
}

#[tokio::test(start_paused = true)]
async fn where_the_profiles_are_spent_days_are_kept_and_it_is_said() {
    let site = Site::with("profiles = [40, 45]").await;
    assert_eq!(site.driver.remark(), None);
    site.puts("front", "7", ("2026-11-21T14:00:00Z", "2026-11-24T10:00:00Z")).await;
    site.puts("front", "8", ("2026-11-22T14:00:00Z", "2026-11-25T09:00:00Z")).await;
    assert_eq!(site.driver.remark(), None);
    site.puts("front", "9", ("2026-11-22T12:00:00Z", "2026-11-26T08:00:00Z")).await;
    assert_eq!(site.driver.remark().unwrap().code, "time_profiles_spent");
    assert!(site.opens(BOARD, 1, 9, "2026-11-22T00:00:00").await, "days are all that is kept");
    assert!(!site.opens(BOARD, 1, 9, "2026-11-27T00:00:00").await);
    // What was there before is not touched.
    assert!(!site.opens(BOARD, 1, 7, "2026-11-21T14:59:00").await);
    site.removes("front", "8").await;
    site.puts("front", "10", ("2026-11-22T12:00:00Z", "2026-11-26T08:00:00Z")).await;
    assert_eq!(site.driver.remark(), None);
    assert!(!site.opens(BOARD, 1, 10, "2026-11-22T12:59:00").await);
}

#[tokio::test(start_paused = true)]
async fn a_door_is_opened_once_and_silence_is_a_doubt() {
    let site = Site::new().await;
    let unlock = || Order::DeviceUnlock { device: DeviceName::new("flat").unwrap() };
    let opened = site.perform(unlock(), &SlotNow::default()).await;
    assert!(matches!(opened, Performed::Ended(Outcome::Succeeded(_))), "{opened:?}");
    assert_eq!(site.asked("40").await, 1);
    for (fault, asked) in [("silent", 2), ("deaf", 2)] {
        say(&site.house, &format!("fault {fault} on 40")).await;
        let doubt = site.perform(unlock(), &SlotNow::default()).await;
        assert_eq!(code(&doubt), ("unknown", Code::NoAnswer), "{fault}");
        assert_eq!(site.asked("40").await, asked, "{fault}");
    }
    // Nobody was there before it was asked.
    say(&site.house, "fault deaf 0").await;
    let nobody = site.perform(unlock(), &SlotNow::default()).await;
    assert_eq!(code(&nobody), ("nothing sent", Code::DeviceOffline));
}

#[tokio::test(start_paused = true)]
async fn what_happens_at_a_door_is_told_once_and_at_that_door() {
    let site = Site::new().await;
    site.puts("front", "7", ("2026-11-20T00:00:00Z", "2026-11-24T10:00:00Z")).await;
    for words in ["swipe 7 1", "swipe 7 3", "swipe 99 1", "swipe 7 1"] {
        say(&site.house, words).await;
    }
    let (front, flat) = (DeviceName::new("front").unwrap(), DeviceName::new("flat").unwrap());
    let read = site.driver.observe(&front, None).await.unwrap();
    let what: Vec<_> = read.events.iter().map(|event| format!("{:?}", event.what)).collect();
    assert_eq!(what, ["Unlocked", "AccessDenied", "Unlocked"]);
    assert_eq!((read.lost, read.more), (0, false));
    let other = site.driver.observe(&flat, None).await.unwrap();
    assert_eq!(other.events.len(), 1);
    let again = site.driver.observe(&front, Some(&read.mark)).await.unwrap();
    assert_eq!((again.events.len(), again.lost, &again.mark), (0, 0, &read.mark));
    // The same events have the same names, however often they are read.
    let anew = site.driver.observe(&front, None).await.unwrap();
    assert_eq!(anew.events, read.events);
    say(&site.house, "swipe 7 1").await;
    let next = site.driver.observe(&front, Some(&read.mark)).await.unwrap();
    assert_eq!(next.events.len(), 1);
    say(&site.house, "forget").await;
    let lost = site.driver.observe(&front, Some(&next.mark)).await.unwrap();
    assert_eq!((lost.events.len(), lost.lost), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn clocks_are_set_at_the_start_every_hour_and_when_the_zone_changes_its_own() {
    let site = Site::new().await;
    let off = async |site: &Site| {
        let shown =
            say(&site.house, "clock show").await["local"].as_str().unwrap().parse::<DateTime>().unwrap();
        let right = TimeZone::get(ZONE).unwrap().to_datetime(site.clock.now());
        shown.duration_since(right).abs()
    };
    let second = SignedDuration::from_secs(1);
    say(&site.house, "clock advance 20m").await;
    assert!(second < off(&site).await);
    tokio::time::sleep(Duration::from_secs(3700)).await;
    assert!(off(&site).await <= second);
    // In four months the clocks are put forward; nothing else happens.
    let change: Timestamp = "2027-03-28T01:00:00Z".parse().unwrap();
    let until = change.duration_since(site.clock.now()) + SignedDuration::from_secs(20);
    tokio::time::sleep(Duration::try_from(until).unwrap()).await;
    assert!(off(&site).await <= second);
}

#[tokio::test(start_paused = true)]
async fn a_card_that_a_board_takes_for_another_one_is_refused_at_all_its_doors() {
    let site = Site::new().await;
    let hours = ("2026-11-21T14:00:00Z", "2026-11-24T10:00:00Z");
    // A board is told the first four bytes.
    let chip = |number: &str| SlotContent::CardNumber(Private::new(number));
    let (one, other) = (chip("04A1B2C3D4E580"), chip("04A1B2C3D4E581"));
    let ended = |performed: &Performed| matches!(performed, Performed::Ended(Outcome::Succeeded(_)));
    assert!(ended(&site.perform(put("front", one.clone(), hours), &SlotNow::default()).await));
    for door in ["front", "flat"] {
        let refused = site.perform(put(door, other.clone(), hours), &SlotNow::default()).await;
        assert_eq!(code(&refused), ("failed", Code::ContentTaken), "{door}");
    }
    // The same card at another door is no other one, and another board never heard of it.
    assert!(ended(&site.perform(put("flat", one.clone(), hours), &SlotNow::default()).await));
    assert!(ended(&site.perform(put("garage", other.clone(), hours), &SlotNow::default()).await));
    for door in ["front", "flat"] {
        assert!(ended(&site.perform(remove(door), &holds(std::slice::from_ref(&one))).await));
    }
    assert!(ended(&site.perform(put("flat", other, hours), &SlotNow::default()).await), "it is free again");
}
