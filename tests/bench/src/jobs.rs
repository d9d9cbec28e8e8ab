//! Jobs, and a queue to put them into.

use std::{collections::BTreeMap, path::Path, time::Duration};

use jiff::{SignedDuration, Timestamp};
use latchd::{
    config::Limits,
    model::{
        AccessMethodId, Admission, CardEncode, CardRead, DeviceName, DoorName, EncoderName, Job, JobId,
        LaneName, Order, Outcome, Priority, Private, ReservationKey, SlotContent, SlotPut, Success,
        SystemName, Window,
    },
    queue::{Queue, Rules, Sharing},
    seal::SealKey,
    seams::{Random, Storage},
    store::{Store, StoreError},
};

/// The rooms that cards are made for, in turn.
pub const ROOMS: u64 = 100;

pub fn room(number: u64) -> String {
    format!("{}", 100 + number % ROOMS)
}

/// A card for one guest: a first one, so that it overrides what its room held.
pub fn card(system: &str, number: u64, now: Timestamp) -> Job {
    let order = Order::CardEncode(CardEncode {
        encoder: EncoderName::new("1").expect("a name"),
        doors: vec![DoorName::new(room(number)).expect("a name")],
        reservation_key: Some(ReservationKey::new(format!("stay {number}")).expect("a key")),
        window: Window::new(now, Some(now + SignedDuration::from_hours(24))).expect("a window"),
        access_method_id: AccessMethodId(uuid::Uuid::from_u128(u128::from(number))),
        guest_name: Some(Private::new("Jane Doe")),
        card_wait_seconds: 30,
        begin_again: false,
    });
    job(system, number, now, order)
}

/// The reading of a card. It touches no room and counts for no limit, so a hundred thousand of them cost what one does.
pub fn read(system: &str, number: u64, now: Timestamp) -> Job {
    let order =
        Order::CardRead(CardRead { encoder: EncoderName::new("1").expect("a name"), card_wait_seconds: 30 });
    job(system, number, now, order)
}

/// A PIN in a slot of a lock.
pub fn put(system: &str, lock: &str, pin: &str, number: u64, now: Timestamp) -> Job {
    let order = Order::SlotPut(SlotPut {
        device: DeviceName::new(lock).expect("a name"),
        slot: "stay".into(),
        content: SlotContent::Pin(Private::new(pin)),
        window: Window::new(now, Some(now + SignedDuration::from_hours(24))).expect("a window"),
        generation: number,
    });
    job(system, number, now, order)
}

/// The slot empty again.
pub fn remove(system: &str, lock: &str, number: u64, now: Timestamp) -> Job {
    let device = DeviceName::new(lock).expect("a name");
    job(system, number, now, Order::SlotRemove { device, slot: "stay".into() })
}

pub fn job_id(number: u64) -> JobId {
    JobId(uuid::Uuid::from_u128(u128::from(number) << 64 | 1 << 62))
}

fn job(system: &str, number: u64, now: Timestamp, order: Order) -> Job {
    Job {
        job_id: job_id(number),
        system: SystemName::new(system).expect("a name"),
        priority: Priority::Desk,
        created_at: now,
        expires_at: now + SignedDuration::from_hours(1),
        order,
    }
}

pub fn lane(number: u64) -> LaneName {
    LaneName::new(format!("bench/{number}")).expect("a name")
}

/// What a driver would say of a reading.
pub fn admission(lane_number: u64) -> Admission {
    Admission::to(lane(lane_number), Vec::new())
}

pub fn done() -> Outcome {
    Outcome::Succeeded(Success::default())
}

/// Opens the queue of a folder as the agent does.
pub fn open(folder: &Path) -> Result<Queue, StoreError> {
    let random = Random::system();
    let rules = Rules {
        limits: Limits {
            cards_per_hour: 100_000,
            waiting_jobs: 10_000_000,
            longest_validity: Duration::from_secs(90 * 24 * 3600),
            ..Limits::default()
        },
        systems: BTreeMap::from([(SystemName::new("bench").expect("a name"), Sharing::Exclusive)]),
        ..Rules::default()
    };
    Queue::open(&Storage::folder(folder), SealKey::new([7; 32], random.clone()), random, rules)
}

/// Runs operations in one transaction, as the writer does.
pub fn commit<T>(
    queue: &mut Queue,
    work: impl FnOnce(&mut Queue) -> Result<T, StoreError>,
) -> anyhow::Result<T> {
    queue.connection().prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let done = work(queue)?;
    queue.commit()?;
    Ok(done)
}

/// Fills without waiting for the disk, then makes all of it durable and goes on as before.
pub fn unsynced<T>(
    queue: &mut Queue,
    fill: impl FnOnce(&mut Queue) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    queue.connection().execute_batch("PRAGMA synchronous = OFF")?;
    let filled = fill(queue)?;
    let folded = "PRAGMA synchronous = FULL; PRAGMA wal_checkpoint(TRUNCATE)";
    queue.connection().execute_batch(folded)?;
    Ok(filled)
}

/// Adds copies of a job's row until there are so many. Their bodies are sealed for another id, so they are ballast:
/// only what stands before them in the lane can be claimed.
pub fn multiply(queue: &mut Queue, of: JobId, copies: u64) -> anyhow::Result<()> {
    let connection = queue.connection();
    let columns: String = connection.query_row(
        "SELECT group_concat(name, ', ') FROM pragma_table_info('job') WHERE name NOT IN ('id', 'job_id')",
        [],
        |row| row.get(0),
    )?;
    let sql = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2) \
         INSERT INTO job(job_id, {columns}) SELECT randomblob(16), {columns} FROM n JOIN job ON job_id = ?1"
    );
    let mut left = copies;
    while left > 0 {
        let some = left.min(20_000);
        connection.prepare_cached(&sql)?.execute((of.0.as_bytes(), some.cast_signed()))?;
        left -= some;
    }
    Ok(())
}
