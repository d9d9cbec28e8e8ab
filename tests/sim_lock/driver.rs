//! The driver against a lock: orders, admission, repetition, stopping.

use std::time::Duration;

use latchd::{
    drivers::{Driver, Line, Performed, Proof, sim_lock::SimLock, sim_lock::sim::Settings},
    model::{
        CardRead, Code, DeviceName, EncoderName, Order, Outcome, Private, ProofLevel, SlotContent,
        SystemKind, Written,
    },
};
use serde_json::json;
use tokio::time::Instant;

use crate::house::*;

#[tokio::test(start_paused = true)]
async fn a_pin_opens_the_door_within_its_window_and_not_after_its_removal() {
    let house = House::open().await;
    let performed = house.perform(&put(stay())).await;
    let Performed::Ended(Outcome::Succeeded(success)) = performed else { panic!("{performed:?}") };
    assert_eq!(success.written, Some(Written::Proven));
    assert_eq!(
        house.table().await,
        [json!({
            "slot": 1, "key": "stay 7", "kind": "PIN", "content": "4711", "generation": 3,
            "start": "2026-11-21T15:00:00", "end": "2026-11-24T11:00:00",
        })]
    );
    assert!(!house.opens("4711").await);
    house.tell("clock set 2026-11-21T14:00:00Z").await;
    assert!(house.opens("4711").await && !house.opens("4712").await);
    house.tell("clock set 2026-11-24T10:00:00Z").await;
    assert!(!house.opens("4711").await);
    house.tell("clock set 2026-11-22T10:00:00Z").await;
    house.succeeded(&house.perform(&remove("stay 7")).await);
    assert!(house.table().await.is_empty() && !house.opens("4711").await);
    assert_eq!((house.lock.done("put", Some(JOB)), house.lock.done("removed", Some(JOB))), (1, 1));
    // What is not there needs no removing.
    house.succeeded(&house.perform(&remove("stay 7")).await);
}

#[tokio::test(start_paused = true)]
async fn a_card_and_an_open_end_go_in_and_a_newer_generation_replaces_the_older() {
    let house = House::open().await;
    let mut card = stay();
    card.content = SlotContent::CardNumber(Private::new("0A1B2C3D"));
    card.window = window("2026-11-20T07:00:00Z", None);
    house.succeeded(&house.perform(&put(card.clone())).await);
    assert!(house.opens("0A1B2C3D").await);
    card.generation = 4;
    card.content = pin("990011");
    house.succeeded(&house.perform(&put(card.clone())).await);
    assert!(house.opens("990011").await && !house.opens("0A1B2C3D").await);
    card.generation = 3;
    assert_eq!(word(&house.perform(&put(card)).await), "failed superseded");
    assert!(house.opens("990011").await);
    assert_eq!(house.table().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn repeating_a_put_or_a_removal_leaves_the_same_table() {
    let house = House::open().await;
    house.succeeded(&house.perform(&put(stay())).await);
    let once = house.table().await;
    house.succeeded(&house.perform(&put(stay())).await);
    assert_eq!(house.table().await, once);
    for _ in 0..2 {
        house.succeeded(&house.perform(&remove("stay 7")).await);
    }
    assert!(house.table().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_table_of_many_pages_is_read_to_its_end() {
    let house = House::open().await;
    for number in 0..100 {
        let mut one = stay();
        (one.slot, one.content) =
            (format!("a rather long key, number {number}"), pin(&format!("{:05}", 10_000 + number)));
        house.succeeded(&house.perform(&put(one)).await);
    }
    assert!(house.asked("TABLE").await > 300, "several pages each");
    let mut another = stay();
    another.slot = "one more".into();
    assert_eq!(word(&house.perform(&put(another)).await), "failed slots_full");
    house.succeeded(&house.perform(&remove("a rather long key, number 99")).await);
    let mut taken = stay();
    (taken.slot, taken.content) = ("one more".into(), pin("10007"));
    assert_eq!(word(&house.perform(&put(taken)).await), "failed content_taken");
    assert_eq!(house.table().await.len(), 99);
}

#[tokio::test(start_paused = true)]
async fn a_door_opens_once_for_each_job() {
    let house = House::open().await;
    house.succeeded(&house.perform(&unlock()).await);
    house.succeeded(&house.perform(&other_job(unlock())).await);
    assert_eq!((house.lock.done("unlocked", Some(JOB)), house.lock.done("unlocked", None)), (1, 2));
    assert!(matches!(house.prove(&unlock()).await, Proof::Done(_)));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_not_there_stops_nobody_else() {
    let house = House::open().await;
    let gone = work(Order::DeviceUnlock { device: DeviceName::new("gone").unwrap() });
    let performed = house.perform(&gone).await;
    assert_eq!(word(&performed), "nothing_sent device_offline");
    let Performed::NothingSent(why) = performed else { unreachable!() };
    assert!(why.message.contains("lock gone") && why.message.contains("lock.lan:9"), "{why}");
    assert_eq!(house.prove(&gone).await, Proof::None);
    house.succeeded(&house.perform(&unlock()).await);
    assert_eq!(*house.driver.line().borrow(), Line::Ready);
    house.tell("unplug").await;
    assert_eq!(word(&house.perform(&unlock()).await), "nothing_sent device_offline");
    house.tell("replug").await;
    house.succeeded(&house.perform(&unlock()).await);
}

#[tokio::test(start_paused = true)]
async fn no_connection_is_kept_between_jobs() {
    let house = House::open().await;
    house.succeeded(&house.perform(&put(stay())).await);
    house.tell("wait idle").await;
    house.succeeded(&house.perform(&remove("stay 7")).await);
    house.tell("wait idle").await;
}

#[tokio::test(start_paused = true)]
async fn jobs_at_one_lock_wait_for_each_other_and_never_cut_each_other_off() {
    let house = House::open().await;
    house.tell("fault slow 3000 on OPEN").await;
    let (unlock, put) = (unlock(), other_job(put(stay())));
    let (first, second) = tokio::join!(house.perform(&unlock), house.perform(&put));
    house.succeeded(&first);
    house.succeeded(&second);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_asks_every_lock_how_many_slots_it_has_and_names_who_is_silent() {
    let house = House::open_with(NOW, Settings { slots: 30, ..Settings::default() }).await;
    let slots = |house: &House| {
        house.driver.inventory().devices.iter().map(|device| device.slots).collect::<Vec<_>>()
    };
    assert_eq!(slots(&house), [0, 0]);
    let refreshed = house.perform(&work(Order::InventoryRefresh)).await;
    assert_eq!(word(&refreshed), "failed device_offline");
    let Performed::Ended(outcome) = refreshed else { unreachable!() };
    assert!(outcome.reason().unwrap().message.contains("lock gone"), "{outcome:?}");
    assert_eq!(slots(&house), [30, 0]);
}

#[tokio::test(start_paused = true)]
async fn reading_a_device_sets_its_clock_and_succeeds() {
    let house = House::open().await;
    let read = work(Order::DeviceRead { device: front() });
    house.succeeded(&house.perform(&read).await);
    assert_eq!(house.lock.done("clock_set", None), 0);
    house.tell("clock advance 10m").await;
    house.succeeded(&house.perform(&read).await);
    assert_eq!(house.lock.done("clock_set", None), 1);
    let now = house.tell("clock show").await["now"].as_str().unwrap().to_owned();
    let off = at(&now).duration_since(house.clock.now());
    assert!(off.as_secs().abs() < 2, "{now}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_drifts_is_set_with_the_next_window() {
    let house = House::open().await;
    house.tell("clock drift 100").await;
    house.succeeded(&house.perform(&put(stay())).await);
    assert_eq!(house.lock.done("clock_set", None), 0);
    // 100 millionths of four days are 34.56 seconds.
    tokio::time::advance(Duration::from_secs(4 * 24 * 3600)).await;
    house.succeeded(&house.perform(&put(stay())).await);
    assert_eq!(house.lock.done("clock_set", None), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_before_the_command_left_sends_nothing_and_one_after_it_waits_for_the_end() {
    let house = House::open().await;
    house.tell("fault slow 3000 on STATE").await;
    let stop = async {
        house.tell("wait requests STATE 1").await;
        house.driver.stop();
    };
    let work = unlock();
    let (performed, ()) = tokio::join!(house.perform(&work), stop);
    assert_eq!(word(&performed), "nothing_sent system_offline");
    assert_eq!(word(&house.perform(&unlock()).await), "nothing_sent system_offline");
    assert_eq!(house.asked("OPEN").await, 0);

    let house = House::open().await;
    house.tell("fault slow 3000 on OPEN").await;
    let stop = async {
        house.tell("wait requests OPEN 1").await;
        house.driver.stop();
    };
    let work = unlock();
    let (performed, ()) = tokio::join!(house.perform(&work), stop);
    house.succeeded(&performed);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_never_says_anything_costs_one_answers_time() {
    let house = House::open().await;
    house.tell("fault deaf on STATE").await;
    let begun = Instant::now();
    assert_eq!(word(&house.perform(&unlock()).await), "nothing_sent device_offline");
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_in_a_memory_that_was_cleared_may_have_been_done() {
    let house = House::open().await;
    assert!(matches!(house.prove(&unlock()).await, Proof::NotDone(_)));
    house.succeeded(&house.perform(&unlock()).await);
    house.tell("clear").await;
    assert_eq!(house.prove(&unlock()).await, Proof::None);
    let short = House::open_with(NOW, Settings { ledger: 3, ..Settings::default() }).await;
    house.succeeded(&short.perform(&unlock()).await);
    for _ in 0..3 {
        house.succeeded(&short.perform(&other_job(unlock())).await);
    }
    assert_eq!(short.prove(&unlock()).await, Proof::None, "its ledger does not reach back any more");
}

#[tokio::test(start_paused = true)]
async fn what_a_table_shows_proves_puts_and_removals() {
    let house = House::open().await;
    assert!(matches!(house.prove(&put(stay())).await, Proof::NotDone(_)));
    assert!(matches!(house.prove(&remove("stay 7")).await, Proof::Done(_)));
    house.succeeded(&house.perform(&put(stay())).await);
    let Proof::Done(success) = house.prove(&put(stay())).await else { panic!("proven") };
    assert_eq!(success.written, Some(Written::Proven));
    assert!(matches!(house.prove(&remove("stay 7")).await, Proof::NotDone(_)));
    let mut newer = stay();
    newer.generation = 4;
    assert!(matches!(house.prove(&put(newer)).await, Proof::NotDone(_)));
    assert_eq!(house.prove(&work(Order::DeviceRead { device: front() })).await, Proof::None);
    let asked = house.tell("requests").await["requests"].clone();
    assert_eq!((&asked["PUT"], asked.get("DEL")), (&json!(1), None), "proving only reads");
}

#[tokio::test]
async fn every_lock_is_a_lane_and_the_refresh_has_one_of_its_own() {
    let driver = driver(Default::default(), &latchd::seams::Clock::simulated(at(NOW)));
    let lanes: Vec<_> = driver.lanes().iter().map(ToString::to_string).collect();
    assert_eq!(lanes, ["locks", "locks/front", "locks/gone"]);
    let admitted = driver.admit(&put(stay()).order).unwrap();
    assert_eq!((admitted.lane.as_str(), admitted.lead), ("locks/front", Duration::from_secs(900)));
    assert!(admitted.rooms.is_empty());
    for work in [remove("stay 7"), unlock(), work(Order::DeviceRead { device: front() })] {
        let admitted = driver.admit(&work.order).unwrap();
        assert_eq!((admitted.lane.as_str(), admitted.lead), ("locks/front", Duration::ZERO));
    }
    assert_eq!(driver.admit(&Order::InventoryRefresh).unwrap().lane.as_str(), "locks");
    let inventory = driver.inventory();
    assert_eq!((inventory.kind, inventory.time_zone.as_str()), (SystemKind::SimLock, "Europe/Oslo"));
    let names: Vec<_> = inventory.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["front", "gone"]);
    let can = SimLock::capabilities();
    assert_eq!(
        (can.slots, can.unlock, can.join),
        (Some(ProofLevel::Simulator), Some(ProofLevel::Simulator), None)
    );
}

#[tokio::test]
async fn what_no_lock_could_keep_is_refused_by_name_and_says_nothing_of_the_pin() {
    let driver = driver(Default::default(), &latchd::seams::Clock::simulated(at(NOW)));
    let check = |change: fn(&mut latchd::model::SlotPut), code: Code, says: &str| {
        let mut order = stay();
        change(&mut order);
        let refusal = driver.admit(&Order::SlotPut(order)).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(says), "{refusal}");
        assert!(!refusal.message.contains("47"), "{refusal}");
    };
    let unknown = |order: &mut latchd::model::SlotPut| order.device = DeviceName::new("attic").unwrap();
    check(unknown, Code::DeviceUnknown, "no lock attic");
    check(|order| order.content = pin("471"), Code::Unsupported, "4 to 8 digits");
    check(|order| order.content = pin("47110815471"), Code::Unsupported, "4 to 8 digits");
    check(|order| order.content = pin("47a1"), Code::Unsupported, "4 to 8 digits");
    check(
        |order| order.content = SlotContent::CardNumber(Private::new("47-11")),
        Code::Unsupported,
        "hexadecimal digits",
    );
    check(|order| order.slot = String::new(), Code::Unsupported, "1 to 64");
    check(|order| order.slot = "x".repeat(65), Code::Unsupported, "65 characters");
    check(|order| order.slot = "a\nb".into(), Code::Unsupported, "control characters");
    check(|order| order.window = window("2110-01-01T00:00:00Z", None), Code::BadDates, "2000 to 2099");
    check(|order| order.window = window(NOW, Some("9999-01-01T00:00:00Z")), Code::BadDates, "2000 to 2099");
    let mut longest = stay();
    longest.slot = "\u{1f511}".repeat(64);
    driver.admit(&Order::SlotPut(longest)).unwrap();
    let read = CardRead { encoder: EncoderName::new("1").unwrap(), card_wait_seconds: 1 };
    let refusal = driver.admit(&Order::CardRead(read)).unwrap_err();
    assert_eq!(refusal.code, Code::Unsupported);
    assert!(refusal.message.contains("card.read"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn the_longest_key_there_can_be_is_put_and_read_back() {
    let house = House::open().await;
    let mut longest = stay();
    longest.slot = "\u{1f511}".repeat(64);
    house.succeeded(&house.perform(&put(longest.clone())).await);
    house.succeeded(&house.perform(&remove(&longest.slot)).await);
}
