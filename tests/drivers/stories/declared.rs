//! What a driver declares, and what it does not.

use std::time::Duration;

use jiff::SignedDuration;
use latchd::model::{DeviceName, DoorName, Kind, Order, Outcome, ReservationKey, StayModify};
use tokio::time::sleep;

use crate::{
    house::{Card, House, plastic, word},
    makes::StartMake,
};

/// Longer than an idle line is left alone.
const A_WHILE: Duration = Duration::from_secs(5);

pub(crate) async fn everything(make: StartMake) {
    let mut house = House::open(&[make]).await;
    let can = house.declares(0);
    assert!(can.r#override.is_some(), "every make begins stays");
    let (_, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(word(&outcome), "succeeded");
    let (_, outcome) = house.make(house.card("101", "ada")).await;
    agrees("join", can.join.is_some(), &outcome);
    let room = DoorName::new("101").unwrap();
    let stay = ReservationKey::new("ada").unwrap();
    let device = DeviceName::new("lock").unwrap();
    let ends_at = house.clock.now() + SignedDuration::from_hours(60);
    let modify = StayModify { room: room.clone(), to_room: None, reservation_key: stay.clone(), ends_at };
    for (order, is_declared) in [
        (Order::StayModify(modify), can.modify_stay.is_some()),
        (Order::StayCheckout { room, reservation_key: stay }, can.checkout.is_some()),
        (Order::DeviceUnlock { device: device.clone() }, can.unlock.is_some()),
        (Order::SlotRemove { device, slot: "1".into() }, can.slots.is_some()),
        (Order::InventoryRefresh, true),
    ] {
        let (kind, before) = (order.kind(), house.quiet().await);
        let outcome = house.has(0, order).await;
        agrees(kind.as_str(), is_declared, &outcome);
        if !is_declared || kind == Kind::InventoryRefresh {
            assert_eq!(house.quiet().await, before, "{}: bytes have left", kind.as_str());
        }
    }
    house.systems[0].say("place some-card on 1").await;
    let outcome = house.read("1").await;
    // A blank card may be a bad one, but nobody says that it cannot be read.
    let is_read = !matches!(&outcome, Outcome::Failed(why) if why.code == latchd::model::Code::Unsupported);
    assert_eq!(is_read, can.read_card.is_some(), "{outcome:?}");
    house.systems[0].say("remove 1").await;

    let soon = house.clock.now() + SignedDuration::from_hours(3);
    // It ends when it would have, so that no two cards end in one hour.
    let span = house.card("102", "grace").span.map(|span| span - SignedDuration::from_hours(3));
    let future = Card { starts_at: soon, span, ..house.card("102", "grace") };
    let for_ever = Card { span: None, ..house.card("103", "barbara") };
    let rooms = |count: u16| (0..count).map(|number| (104 + number).to_string()).collect();
    let most_rooms = Card { doors: rooms(can.max_rooms), ..house.card("104", "edsger") };
    let one_more = Card { doors: rooms(can.max_rooms + 1), ..house.card("104", "donald") };
    for (what, card, is_declared) in [
        ("a start to come", future, can.future_start.is_some()),
        ("no end", for_ever, can.open_end.is_some()),
        ("as many rooms as it says", most_rooms, true),
        ("a room more", one_more, false),
    ] {
        let before = house.quiet().await;
        let rooms = card.doors.clone();
        let (number, outcome) = house.make(card).await;
        agrees(what, is_declared, &outcome);
        match is_declared {
            false => assert_eq!(house.quiet().await, before, "{what}: bytes have left"),
            true if what == "a start to come" => {
                assert!(!house.systems[0].opens(&plastic(number), "102").await, "it opens too early");
            }
            true => {
                for room in rooms {
                    assert!(
                        house.systems[0].opens(&plastic(number), &room).await,
                        "{what}: {room} stays shut"
                    );
                }
            }
        }
    }
    house.judge().await;
}

/// An outcome is a success where it was declared, else a refusal.
fn agrees(what: &str, is_declared: bool, outcome: &Outcome) {
    let wanted = if is_declared { "succeeded" } else { "failed" };
    assert_eq!(outcome.state().to_string(), wanted, "{what}: {outcome:?}");
}

impl House {
    /// How many bytes have passed once nobody says anything by himself.
    async fn quiet(&self) -> usize {
        sleep(A_WHILE).await;
        self.systems[0].wire.bytes()
    }
}

pub(crate) async fn encoders_side_by_side(make: StartMake) {
    let mut house = House::open(&[make]).await;
    let is_parallel = house.declares(0).parallel_encoders;
    let mut cards = Vec::new();
    for (room, encoder) in [("101", "1"), ("102", "2")] {
        let card = Card { encoder: encoder.into(), ..house.card(room, room) };
        cards.push(house.order(card).await);
    }
    sleep(A_WHILE).await;
    assert_eq!(house.systems[0].ordered(), if is_parallel { 2 } else { 1 });
    for card in cards {
        house.lay(card).await;
        assert_eq!(word(&house.end(card).await), "succeeded");
    }
    house.judge().await;
}
