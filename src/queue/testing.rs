//! Orders, names and a queue for this room's unit tests.

use jiff::Timestamp;

use super::{Queue, Rules};
use crate::{
    model::{
        AccessMethodId, CardEncode, DeviceName, DoorName, EncoderName, Job, JobId, Order, Priority,
        ReservationKey, SystemName, Window,
    },
    seal::SealKey,
    seams::{Random, Storage},
};

/// The queue that lies in a folder.
pub(super) fn opened(folder: &tempfile::TempDir, rules: Rules) -> Queue {
    let random = Random::seeded(1);
    let seal = SealKey::new([7; 32], random.clone());
    Queue::open(&Storage::folder(folder.path()), seal, random, rules).unwrap()
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn id(number: u128) -> JobId {
    JobId(uuid::Uuid::from_u128(number))
}

pub(super) fn key(text: &str) -> ReservationKey {
    ReservationKey::new(text).unwrap()
}

pub(super) fn job(number: u128, order: Order) -> Job {
    Job {
        job_id: id(number),
        system: SystemName::new("salto").unwrap(),
        priority: Priority::Desk,
        created_at: at(0),
        expires_at: at(3600),
        order,
    }
}

pub(super) fn card(doors: &[&str], reservation: &str) -> Order {
    Order::CardEncode(CardEncode {
        encoder: EncoderName::new("1").unwrap(),
        doors: doors.iter().map(|door| DoorName::new(*door).unwrap()).collect(),
        reservation_key: Some(key(reservation)),
        window: Window::new(at(0), Some(at(86_400))).unwrap(),
        access_method_id: AccessMethodId(uuid::Uuid::nil()),
        guest_name: None,
        card_wait_seconds: 30,
        begin_again: false,
    })
}

pub(super) fn checkout(room: &str, reservation: &str) -> Order {
    Order::StayCheckout { room: DoorName::new(room).unwrap(), reservation_key: key(reservation) }
}

pub(super) fn unlock(device: &str) -> Order {
    Order::DeviceUnlock { device: DeviceName::new(device).unwrap() }
}
