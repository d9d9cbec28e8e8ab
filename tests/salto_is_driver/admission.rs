//! Which orders are possible, and why the others are not.

use jiff::Timestamp;
use latchd::{
    drivers::Driver,
    drivers::salto_is::{Past, SaltoIs},
    model::{
        CardEncode, Code, DeviceName, DoorKind, EncoderName, Order, ProofLevel, ReservationKey, SlotContent,
        SlotPut, StayModify, Treatment, Window,
    },
    seams::Random,
};

use crate::desk::*;

#[tokio::test]
async fn a_card_is_admitted_to_the_one_lane_with_its_rooms_in_order_and_no_common_door_among_them() {
    let driver = driver("");
    let mut card = card();
    card.doors = ["pool", "103", "101", "103", "spa"].map(door).into();
    let admission = driver.admit(&Order::CardEncode(card)).unwrap();
    assert_eq!(admission.lane.as_str(), "salto");
    assert_eq!(driver.lanes(), [admission.lane]);
    assert_eq!(admission.rooms, ["103", "101"].map(door));
}

#[tokio::test]
async fn what_the_protocol_cannot_carry_is_refused_by_name_and_says_which_limit() {
    let check = |change: fn(&mut CardEncode), code: Code, says: &str| {
        let driver = driver("");
        let mut card = card();
        change(&mut card);
        let refusal = driver.admit(&Order::CardEncode(card)).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(says), "{refusal}");
    };
    check(|card| card.encoder = EncoderName::new("9").unwrap(), Code::EncoderUnknown, "encoder 9");
    check(|card| card.doors.push(door("0101")), Code::EntranceUnknown, "door 0101");
    check(
        |card| card.doors = ["101", "102", "103", "104", "105"].map(door).into(),
        Code::TooManyDoors,
        "at most 4 rooms",
    );
    check(|card| card.doors = ["pool", "spa"].map(door).into(), Code::Unsupported, "at least one room");
    check(|card| card.doors.clear(), Code::Unsupported, "at least one room");
    check(|card| card.doors = vec![door("10³")], Code::Unsupported, "10³");
    check(
        |card| card.window = Window::new(card.window.starts_at(), None).unwrap(),
        Code::OpenEndUnsupported,
        "ends_at",
    );
    check(
        |card| card.window = Window::new(card.window.starts_at(), Some(Timestamp::MAX)).unwrap(),
        Code::BadDates,
        "2099",
    );
}

#[tokio::test]
async fn a_common_door_with_an_impossible_number_is_refused_and_leaves_the_others_alone() {
    let mut config = config("tcp = \"127.0.0.1:1\"", "");
    config.common[0].authorisation = 63;
    let driver = SaltoIs::start(&config, name(), oslo(), Past::Answered, clock(), Random::seeded(1));
    let refusal = driver.admit(&Order::CardEncode(card())).unwrap_err();
    assert_eq!(refusal.code, Code::Unsupported);
    assert!(refusal.message.contains("1 to 62"), "{refusal}");
    let mut card = card();
    card.doors = ["101", "spa"].map(door).into();
    driver.admit(&Order::CardEncode(card)).unwrap();
}

#[tokio::test]
async fn a_card_that_would_neither_begin_nor_join_a_stay_is_not_written() {
    let driver = driver("");
    let plain = work(Order::CardEncode(card()), Treatment::Plain);
    assert_eq!(end(&perform(&driver, plain, async {}).await), "failed unsupported");
}

#[tokio::test]
async fn readings_check_outs_and_refreshes_are_possible_and_other_kinds_are_not() {
    let driver = driver("");
    let stay = ReservationKey::new("stay-1").unwrap();
    let device = DeviceName::new("lobby").unwrap();
    let check_out = |room: &str| Order::StayCheckout { room: door(room), reservation_key: stay.clone() };
    assert!(driver.admit(&read().order).unwrap().rooms.is_empty());
    assert_eq!(driver.admit(&check_out("101")).unwrap().rooms, [door("101")]);
    assert_eq!(driver.admit(&check_out("999")).unwrap_err().code, Code::EntranceUnknown);
    assert_eq!(driver.admit(&check_out("pool")).unwrap_err().code, Code::Unsupported);
    driver.admit(&Order::InventoryRefresh).unwrap();
    let refresh = work(Order::InventoryRefresh, Treatment::Plain);
    assert_eq!(end(&perform(&driver, refresh, async {}).await), "succeeded");
    let window = card().window;
    for order in [
        Order::SlotPut(SlotPut {
            device: device.clone(),
            slot: "1".into(),
            content: SlotContent::Pin(latchd::model::Private::new("4711")),
            window,
            generation: 1,
        }),
        Order::SlotRemove { device: device.clone(), slot: "1".into() },
        Order::DeviceUnlock { device: device.clone() },
        Order::DeviceRead { device },
    ] {
        let refusal = driver.admit(&order).unwrap_err();
        assert_eq!(refusal.code, Code::Unsupported);
        assert!(refusal.message.contains(order.kind().as_str()), "{refusal}");
        assert_eq!(
            end(&perform(&driver, work(order, Treatment::Plain), async {}).await),
            "failed unsupported"
        );
    }
}

#[tokio::test]
async fn the_end_of_a_stay_can_be_changed_and_a_move_is_a_new_first_card() {
    let driver = driver("");
    let modify = |room: &str, to_room: Option<&str>, ends_at: &str| {
        Order::StayModify(StayModify {
            room: door(room),
            to_room: to_room.map(door),
            reservation_key: ReservationKey::new("stay-1").unwrap(),
            ends_at: at(ends_at),
        })
    };
    let later = "2026-11-25T10:00:00Z";
    assert_eq!(driver.admit(&modify("101", None, later)).unwrap().rooms, [door("101")]);
    assert_eq!(driver.admit(&modify("101", Some("101"), later)).unwrap().rooms, [door("101")]);
    for (order, code) in [
        (modify("999", None, later), Code::EntranceUnknown),
        (modify("pool", None, later), Code::Unsupported),
        (modify("101", None, "2100-01-01T00:00:00Z"), Code::BadDates),
        (modify("101", Some("102"), later), Code::Unsupported),
    ] {
        assert_eq!(driver.admit(&order).unwrap_err().code, code);
        let performed = perform(&driver, work(order, Treatment::Plain), async {}).await;
        assert_eq!(end(&performed), format!("failed {code}"));
    }
    let moving = driver.admit(&modify("101", Some("102"), later)).unwrap_err();
    assert!(moving.message.contains("grant the new room"), "{moving}");
}

#[tokio::test]
async fn the_inventory_lists_the_site_and_how_well_each_thing_is_proven() {
    let inventory = driver("").inventory();
    assert_eq!(inventory.time_zone, "Europe/Oslo");
    assert_eq!(inventory.encoders.len(), 2);
    let common = inventory.doors.iter().filter(|door| door.kind == DoorKind::Common);
    assert_eq!((inventory.doors.len(), common.count()), (8, 2));
    let can = inventory.capabilities;
    assert_eq!((can.max_rooms, can.max_common), (4, 62));
    assert_eq!((can.join, can.open_end), (Some(ProofLevel::Vector), None));
    assert_eq!(can.modify_stay, Some(ProofLevel::Vector));
    assert!(can.answer_means_written && !can.parallel_encoders);
}

#[test]
fn every_name_that_the_protocol_cannot_say_is_shown_at_once() {
    let mut config = config("tcp = \"salto.lan:1\"", "");
    config.rooms.truncate(2);
    assert_eq!(SaltoIs::mistakes(&config), [] as [String; 0]);
    config.rooms[1].name = door("10³");
    config.encoders[0].name = EncoderName::new("Desk №1").unwrap();
    let mistakes = SaltoIs::mistakes(&config);
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    assert!(mistakes[0].contains("10³") && mistakes[1].contains("Desk №1"), "{mistakes:#?}");
}

fn driver(more: &str) -> SaltoIs {
    let config = config("tcp = \"127.0.0.1:1\"", more);
    SaltoIs::start(&config, name(), oslo(), Past::Answered, clock(), Random::seeded(1))
}
