//! What the tests share: a lock, its driver, their orders, and frames made without the driver's codec.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use latchd::{
    config::{LockConfig, SimLockConfig},
    drivers::{
        Driver, Performed, Proof, Work,
        sim_lock::{
            SimLock,
            sim::{Settings, Simulator},
        },
    },
    model::{
        DeviceName, JobId, Order, Outcome, Private, SlotContent, SlotPut, SystemName, Treatment, Window,
    },
    seams::{Clock, MemoryNet, Net},
};
use serde_json::Value;
use uuid::Uuid;

/// One lock and the driver that knows it, over a network in memory.
pub(crate) struct House {
    pub(crate) driver: SimLock,
    pub(crate) lock: Simulator,
    pub(crate) clock: Clock,
}

pub(crate) const PORT: u16 = 4801;
pub(crate) const JOB: &str = "11111111-2222-4333-8444-555555555555";
pub(crate) const OTHER_JOB: &str = "99999999-2222-4333-8444-555555555555";
/// The day before the guests of these tests arrive.
pub(crate) const NOW: &str = "2026-11-20T08:00:00Z";

impl House {
    pub(crate) async fn open() -> Self {
        Self::open_with(NOW, Settings::default()).await
    }

    pub(crate) async fn open_with(now: &str, settings: Settings) -> Self {
        let (net, clock) = (MemoryNet::default(), Clock::simulated(at(now)));
        let lock = Simulator::new(&settings, clock.clone()).unwrap();
        let listener = net.listen(format!("127.0.0.1:{PORT}").parse().unwrap()).await.unwrap();
        let accepting = lock.clone();
        tokio::spawn(async move { accepting.accept(listener).await });
        let driver = driver(net, &clock);
        Self { driver, lock, clock }
    }

    pub(crate) async fn perform(&self, work: &Work) -> Performed {
        self.driver.perform(work.clone(), &|_| {}).await
    }

    pub(crate) async fn prove(&self, work: &Work) -> Proof {
        self.driver.prove(work).await
    }

    #[track_caller]
    pub(crate) fn succeeded(&self, performed: &Performed) {
        assert!(matches!(performed, Performed::Ended(Outcome::Succeeded(_))), "{performed:?}");
    }

    /// A command of the control socket.
    pub(crate) async fn tell(&self, command: &str) -> Value {
        self.lock.command(command).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub(crate) async fn table(&self) -> Vec<Value> {
        self.tell("table").await["table"].as_array().unwrap().clone()
    }

    /// Whether a PIN or a card opens the lock now.
    pub(crate) async fn opens(&self, content: &str) -> bool {
        self.tell(&format!("use {content}")).await["opened"].as_bool().unwrap()
    }

    pub(crate) async fn asked(&self, verb: &str) -> u64 {
        self.tell("requests").await["requests"][verb].as_u64().unwrap_or_default()
    }
}

pub(crate) fn config() -> SimLockConfig {
    let lock = |name: &str, port| LockConfig::new(DeviceName::new(name).unwrap(), format!("lock.lan:{port}"));
    SimLockConfig {
        // Nobody listens at the second one's port.
        locks: vec![lock("front", PORT), lock("gone", 9)],
        lead: Duration::from_secs(900),
        answer_timeout: Duration::from_secs(5),
        read_events_every: Some(Duration::from_secs(10)),
    }
}

pub(crate) fn driver(net: MemoryNet, clock: &Clock) -> SimLock {
    let system = SystemName::new("locks").unwrap();
    let oslo = TimeZone::get("Europe/Oslo").unwrap();
    SimLock::start_over(Arc::new(net), &config(), system, oslo, clock.clone())
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn window(starts_at: &str, ends_at: Option<&str>) -> Window {
    Window::new(at(starts_at), ends_at.map(at)).unwrap()
}

/// The PIN 4711 under "stay 7", from 15:00 to 11:00 local time.
pub(crate) fn stay() -> SlotPut {
    SlotPut {
        device: front(),
        slot: "stay 7".into(),
        content: pin("4711"),
        window: window("2026-11-21T14:00:00Z", Some("2026-11-24T10:00:00Z")),
        generation: 3,
    }
}

pub(crate) fn pin(digits: &str) -> SlotContent {
    SlotContent::Pin(Private::new(digits))
}

pub(crate) fn front() -> DeviceName {
    DeviceName::new("front").unwrap()
}

pub(crate) fn put(put: SlotPut) -> Work {
    work(Order::SlotPut(put))
}

pub(crate) fn remove(slot: &str) -> Work {
    work(Order::SlotRemove { device: front(), slot: slot.into() })
}

pub(crate) fn unlock() -> Work {
    work(Order::DeviceUnlock { device: front() })
}

pub(crate) fn work(order: Order) -> Work {
    Work {
        job_id: JobId(Uuid::parse_str(JOB).unwrap()),
        order,
        treatment: Treatment::Plain,
        to_see: None,
        slot: None,
    }
}

pub(crate) fn other_job(work: Work) -> Work {
    Work { job_id: JobId(Uuid::parse_str(OTHER_JOB).unwrap()), ..work }
}

/// How work came out, in one word and its code.
pub(crate) fn word(performed: &Performed) -> String {
    match performed {
        Performed::Ended(outcome) => {
            let code = outcome.reason().map(|why| format!(" {}", why.code)).unwrap_or_default();
            format!("{}{code}", outcome.state())
        }
        Performed::NothingSent(why) => format!("nothing_sent {}", why.code),
        Performed::MayRepeat(why) => format!("may_repeat {}", why.code),
    }
}

/// A frame, with the check of the CRC-16 that begins with FFFF done bit by bit over a remainder of 17 bits.
pub(crate) fn frame(body: &str) -> Vec<u8> {
    let checked = format!("{:04X}{body}", body.len());
    let mut remainder: u32 = 0xFFFF;
    for bit in checked.bytes().flat_map(|byte| (0..8).rev().map(move |at| u32::from(byte >> at & 1))) {
        let carry = (remainder >> 15 & 1) ^ bit;
        remainder = (remainder << 1 & 0xFFFF) ^ (carry * 0x1021);
    }
    format!(":{checked}{remainder:04X}\n").into_bytes()
}
