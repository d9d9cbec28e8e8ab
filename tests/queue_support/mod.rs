//! A queue in a folder of its own, and orders to put into it.

#![expect(dead_code, reason = "each test target uses its own part of this")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use latchd::{
    config::Limits,
    model::{
        AccessMethodId, Admission, CardEncode, CardFacts, CardRead, CardSeen, Code, DeviceName, DoorName,
        EncoderName, Job, JobId, LaneName, Order, Outcome, Priority, Private, Refusal, ReservationKey,
        RoomState, SlotContent, SlotPut, Success, SystemName, Window, Written,
    },
    protocol::{Message, Position},
    queue::{Accepted, Claimed, Queue, Rules, Sharing},
    seal::SealKey,
    seams::{Random, Storage},
    store::Store,
};

pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) storage: Storage,
    pub(crate) rules: Rules,
    pub(crate) queue: Queue,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Rules)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        Self::at(folder, storage, change)
    }

    pub(crate) fn at(folder: tempfile::TempDir, storage: Storage, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = rules();
        change(&mut rules);
        let queue = open(&storage, &rules);
        Self { folder, storage, rules, queue }
    }

    /// What a killed process leaves behind: the files as they are, log not folded back, nothing in memory.
    pub(crate) fn crash(self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let entry = entry.unwrap();
            // The index of the log is rebuilt by whoever opens it first.
            if !entry.file_name().to_string_lossy().ends_with("-shm") {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        let storage = Storage::folder(copy.path());
        let queue = open(&storage, &self.rules);
        Self { folder: copy, storage, rules: self.rules, queue }
    }

    /// Runs operations in one transaction, as the writer does.
    pub(crate) fn commit<T>(&mut self, operations: impl FnOnce(&mut Queue) -> T) -> T {
        self.queue.connection().execute_batch("BEGIN IMMEDIATE").unwrap();
        let answer = operations(&mut self.queue);
        self.queue.commit().unwrap();
        answer
    }

    pub(crate) fn accept(&mut self, now: i64, job: Job, may_send: bool) -> Accepted {
        let admission = admission(&job.order);
        self.commit(|queue| queue.accept(at(now), None, job, Ok(admission), may_send)).unwrap()
    }

    pub(crate) fn send(&mut self, now: i64, job: Job) -> Claimed {
        match self.accept(now, job, true) {
            Accepted::Sent(claimed) => claimed,
            other => panic!("{other:?}"),
        }
    }

    /// Sends a job and ends it well.
    pub(crate) fn done(&mut self, now: i64, job: Job) -> Claimed {
        let claimed = self.send(now, job);
        self.commit(|queue| queue.finish(at(now), claimed.job.job_id, written())).unwrap();
        claimed
    }

    /// Sends a job that must be refused.
    pub(crate) fn refused(&mut self, now: i64, job: Job) -> Code {
        match self.accept(now, job, true) {
            Accepted::Ended(Outcome::Failed(refusal)) => refusal.code,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn claim(&mut self, now: i64) -> Option<Claimed> {
        self.queue.claim(at(now), &lane("1")).unwrap()
    }

    pub(crate) fn room(&self, room: &str) -> RoomState {
        let rooms = self.queue.rooms(None).unwrap();
        rooms.into_iter().find(|state| state.room.as_str() == room).unwrap()
    }

    pub(crate) fn state(&self, number: u128) -> latchd::model::JobState {
        self.queue.job(id(number)).unwrap().unwrap().view.state
    }

    pub(crate) fn reports(&self) -> Vec<(Position, Message)> {
        self.queue.reports_after(Position::default(), 1000).unwrap()
    }

    pub(crate) fn audited(&self) -> Vec<String> {
        let entries = self.queue.audit(100).unwrap();
        entries.into_iter().map(|entry| entry.what).collect()
    }
}

pub(crate) fn open(storage: &Storage, rules: &Rules) -> Queue {
    // Each opening is a process of its own, and no two draw the same ids.
    static OPENED: AtomicU64 = AtomicU64::new(0);
    let random = Random::seeded(OPENED.fetch_add(1, Ordering::Relaxed));
    Queue::open(storage, SealKey::new([7; 32], random.clone()), random, rules.clone()).unwrap()
}

pub(crate) fn rules() -> Rules {
    Rules {
        limits: Limits {
            cards_per_hour: 1000,
            longest_validity: Duration::from_secs(90 * 24 * 3600),
            remote_unlock: true,
            ..Limits::default()
        },
        systems: BTreeMap::from([(system(), Sharing::Exclusive)]),
        numbered: std::collections::BTreeSet::from([system()]),
    }
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn id(number: u128) -> JobId {
    JobId(uuid::Uuid::from_u128(number))
}

pub(crate) fn system() -> SystemName {
    SystemName::new("salto").unwrap()
}

pub(crate) fn lane(encoder: &str) -> LaneName {
    LaneName::new(format!("salto/{encoder}")).unwrap()
}

/// Rooms are the doors whose name is a number.
pub(crate) fn admission(order: &Order) -> Admission {
    let (encoder, rooms) = match order {
        Order::CardEncode(card) => {
            let rooms = card.doors.iter().filter(|door| door.as_str().parse::<u32>().is_ok());
            (card.encoder.as_str(), rooms.cloned().collect())
        }
        Order::CardRead(read) => (read.encoder.as_str(), Vec::new()),
        _ => ("1", Vec::new()),
    };
    let printed_end = match order {
        Order::CardEncode(card) => card.window.ends_at(),
        _ => None,
    };
    Admission { printed_end, lead: Duration::from_secs(LEAD as u64), ..Admission::to(lane(encoder), rooms) }
}

/// How many seconds before its window a slot's content is put.
pub(crate) const LEAD: i64 = 100;

pub(crate) fn job(number: u128, order: Order) -> Job {
    Job {
        job_id: id(number),
        system: system(),
        priority: Priority::Desk,
        created_at: at(0),
        expires_at: at(100_000),
        order,
    }
}

pub(crate) fn expiring(number: u128, expires_at: i64) -> Job {
    Job { expires_at: at(expires_at), ..job(number, read()) }
}

pub(crate) fn read() -> Order {
    Order::CardRead(CardRead { encoder: EncoderName::new("1").unwrap(), card_wait_seconds: 30 })
}

pub(crate) fn card(doors: &[&str], reservation: &str) -> Order {
    card_at("1", doors, reservation)
}

pub(crate) fn card_at(encoder: &str, doors: &[&str], reservation: &str) -> Order {
    Order::CardEncode(CardEncode {
        encoder: EncoderName::new(encoder).unwrap(),
        doors: doors.iter().map(|door| DoorName::new(*door).unwrap()).collect(),
        reservation_key: Some(ReservationKey::new(reservation).unwrap()),
        window: Window::new(at(0), Some(at(CARD_END))).unwrap(),
        access_method_id: AccessMethodId(uuid::Uuid::nil()),
        guest_name: Some(Private::new("Jane Doe")),
        card_wait_seconds: 30,
        begin_again: false,
    })
}

/// The end of every card's window here.
pub(crate) const CARD_END: i64 = 86_400;

pub(crate) fn checkout(room: &str, reservation: &str) -> Order {
    Order::StayCheckout {
        room: DoorName::new(room).unwrap(),
        reservation_key: ReservationKey::new(reservation).unwrap(),
    }
}

/// A PIN for a slot of the lock `door`, from one second to another.
pub(crate) fn put(slot: &str, generation: u64, starts_at: i64, ends_at: Option<i64>) -> Order {
    Order::SlotPut(SlotPut {
        device: DeviceName::new("door").unwrap(),
        slot: slot.into(),
        content: SlotContent::Pin(Private::new("4711")),
        window: Window::new(at(starts_at), ends_at.map(at)).unwrap(),
        generation,
    })
}

pub(crate) fn remove(slot: &str) -> Order {
    Order::SlotRemove { device: DeviceName::new("door").unwrap(), slot: slot.into() }
}

pub(crate) fn unlock(device: &str) -> Order {
    Order::DeviceUnlock { device: DeviceName::new(device).unwrap() }
}

pub(crate) fn written() -> Outcome {
    Outcome::Succeeded(Success {
        written: Some(Written::Proven),
        card: Some(CardFacts::default()),
        ..Success::default()
    })
}

pub(crate) fn no_card() -> Outcome {
    Outcome::failed(Code::NoCard, "nobody laid a card down")
}

pub(crate) fn no_answer() -> Outcome {
    Outcome::unknown(Code::NoAnswer, "the encoder fell silent")
}

pub(crate) fn line_down() -> Refusal {
    Refusal::new(Code::SystemOffline, "the line is down")
}

pub(crate) fn guest_card(room: &str, ends_at: i64) -> CardSeen {
    CardSeen::Guest {
        rooms: vec![room.into()],
        valid: true,
        original: true,
        common: Vec::new(),
        starts_at: None,
        ends_at: Some(at(ends_at)),
        made_here: Some(true),
    }
}
