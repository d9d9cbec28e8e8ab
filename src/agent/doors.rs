//! Reading what happened at doors, device by device, each as often as its system wants.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::{
    drivers::Driver,
    model::{DeviceName, DoorEvents, SystemName},
    queue::Queue,
    seams::BoxFuture,
    store::{StoreError, WriterHandle},
};

/// How many devices are read side by side.
const SIDE_BY_SIDE: usize = 8;
/// How often one device is asked for more in a turn. What is left is read in its next turn, so that one with much to tell
/// keeps no other waiting.
const ASKED_IN_A_TURN: usize = 32;
/// How long until the outbox is looked at again that had no room for all of it.
const ROOM_AGAIN: Duration = Duration::from_secs(1);

/// Which system's devices are read when.
#[derive(Debug, Default)]
pub(super) struct Doors {
    next: BTreeMap<SystemName, Instant>,
    reading: bool,
    /// When something is to be put into the outbox, if a cloud is there that can read it.
    hand_on_at: Option<Instant>,
    /// Events that nobody will hear of, since the start.
    pub(super) lost: u64,
}

impl Doors {
    /// Takes in which systems there are by now: new ones are read at once.
    pub(super) fn follow(&mut self, drivers: &BTreeMap<SystemName, Arc<dyn Driver>>, now: Instant) {
        let observed =
            |name: &SystemName| drivers.get(name).is_some_and(|driver| driver.observed().is_some());
        self.next.retain(|name, _| observed(name));
        for name in drivers.keys().filter(|name| observed(name)) {
            self.next.entry(name.clone()).or_insert(now);
        }
    }

    /// Something happened at devices of a system: they are read at once, or again once they have been read.
    pub(super) fn stir(&mut self, system: &SystemName, now: Instant) {
        if let Some(next) = self.next.get_mut(system) {
            *next = now.min(*next);
        }
    }

    /// When to come back; `can_hand_on` says that a cloud is there that can read what happened.
    pub(super) fn due_at(&self, can_hand_on: bool) -> Option<Instant> {
        let read_at = self.next.values().min().filter(|_| !self.reading);
        read_at.copied().into_iter().chain(self.hand_on_at.filter(|_| can_hand_on)).min()
    }

    /// Which drivers are to be asked now.
    pub(super) fn begin(
        &mut self,
        drivers: &BTreeMap<SystemName, Arc<dyn Driver>>,
        now: Instant,
    ) -> Vec<(Arc<dyn Driver>, Vec<DeviceName>)> {
        if self.reading {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (name, at) in self.next.iter_mut().filter(|(_, at)| **at <= now) {
            // One that is being replaced is looked for a little later.
            *at = now + ROOM_AGAIN;
            if let Some(driver) = drivers.get(name)
                && let Some((devices, every)) = driver.observed()
            {
                *at = now + every;
                due.push((Arc::clone(driver), devices));
            }
        }
        self.reading = !due.is_empty();
        due
    }

    /// All that were asked have answered.
    pub(super) fn read(&mut self, lost: u64, now: Instant) {
        self.reading = false;
        self.lost += lost;
        self.hand_on_at = Some(now);
    }

    /// There may be something to hand on now.
    pub(super) fn look(&mut self, now: Instant) {
        self.hand_on_at = Some(now);
    }

    /// Whether it is time to hand on; it is looked at again when `handed_on` says so.
    pub(super) fn hands_on(&mut self, now: Instant) -> bool {
        self.hand_on_at.take_if(|at| *at <= now).is_some()
    }

    /// There was no room for all of it.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.hand_on_at = Some(now + ROOM_AGAIN);
    }
}

/// Reads all these devices, each to its end or as far as one turn goes. Gives how many events are lost.
pub(super) async fn read(
    due: Vec<(Arc<dyn Driver>, Vec<DeviceName>)>,
    queue: WriterHandle<Queue>,
) -> Result<u64, StoreError> {
    let mut looks: Vec<BoxFuture<'_, Result<u64, StoreError>>> = Vec::new();
    for (driver, devices) in &due {
        for device in devices {
            looks.push(Box::pin(read_one(&**driver, device, &queue)));
        }
    }
    // In no order: one that is slow has no other wait behind it.
    let looked: Vec<_> = stream::iter(looks).buffer_unordered(SIDE_BY_SIDE).collect().await;
    looked.into_iter().sum()
}

async fn read_one(
    driver: &dyn Driver,
    device: &DeviceName,
    queue: &WriterHandle<Queue>,
) -> Result<u64, StoreError> {
    let system = driver.system();
    let mut lost = 0;
    for _ in 0..ASKED_IN_A_TURN {
        let of = (system.clone(), device.clone());
        let after = queue.run(move |queue: &mut Queue| queue.door_mark(&of.0, &of.1)).await?;
        let observed = match driver.observe(device, after.as_deref()).await {
            Ok(observed) => observed,
            Err(error) => {
                // Its jobs say it loudly enough; what it remembers it remembers later as well.
                tracing::debug!(%system, %device, %error, "what happened at a door could not be read");
                return Ok(lost);
            }
        };
        if after.as_ref() == Some(&observed.mark) && observed.events.is_empty() && observed.lost == 0 {
            return Ok(lost);
        }
        let (up_to, more) = (observed.mark, observed.more);
        let (system, device) = (system.clone(), device.clone());
        let seen = DoorEvents { system, device, lost: observed.lost, events: observed.events };
        lost += queue
            .run(move |queue: &mut Queue| queue.take_door_events(&seen, after.as_deref(), &up_to))
            .await?;
        if !more {
            break;
        }
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::{
        config::{LockConfig, SimLockConfig},
        drivers::sim_lock::{
            SimLock,
            sim::{Settings, Simulator},
        },
        queue::Rules,
        seal::SealKey,
        seams::{Clock, MemoryNet, Net, Random, Storage},
        store::{Store, Writer},
    };

    /// What one turn reads of a lock at most, in the lock's own pages.
    const PAGES_OF_A_TURN: u64 = 128;

    /// Locks of one system, and the queue that what happens at them comes into.
    struct House {
        driver: Arc<dyn Driver>,
        locks: Vec<(DeviceName, Simulator)>,
        queue: WriterHandle<Queue>,
        _writer: Writer,
        _folder: tempfile::TempDir,
    }

    impl House {
        async fn with(names: &[&str]) -> Self {
            let (net, clock) =
                (MemoryNet::default(), Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap()));
            let (mut locks, mut configured) = (Vec::new(), Vec::new());
            for (name, port) in names.iter().zip(4801..) {
                let settings = Settings { ledger: 5_000, ..Settings::default() };
                let lock = Simulator::new(&settings, clock.clone()).unwrap();
                let listener = net.listen(format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap();
                let accepting = lock.clone();
                tokio::spawn(async move { accepting.accept(listener).await });
                let name = DeviceName::new(*name).unwrap();
                configured.push(LockConfig::new(name.clone(), format!("lock.lan:{port}")));
                locks.push((name, lock));
            }
            let config = SimLockConfig {
                locks: configured,
                lead: Duration::from_secs(900),
                answer_timeout: Duration::from_secs(5),
                read_events_every: Some(Duration::from_secs(10)),
            };
            let (system, zone) = (SystemName::new("locks").unwrap(), TimeZone::get("Europe/Oslo").unwrap());
            let driver = Arc::new(SimLock::start_over(Arc::new(net), &config, system, zone, clock));
            let folder = tempfile::tempdir().unwrap();
            let random = Random::seeded(1);
            let key = SealKey::new([7; 32], random.clone());
            let queue = Queue::open(&Storage::folder(folder.path()), key, random, Rules::default()).unwrap();
            let (writer, queue) = Writer::start_with("queue", queue, None);
            Self { driver, locks, queue, _writer: writer, _folder: folder }
        }

        async fn tell(&self, lock: usize, command: &str) -> serde_json::Value {
            self.locks[lock].1.command(command).await.unwrap()
        }

        /// Somebody tries the door of a lock so often.
        async fn happens(&self, lock: usize, times: u64) {
            for _ in 0..times {
                self.tell(lock, "use 0000").await;
            }
        }

        async fn pages_asked(&self, lock: usize) -> u64 {
            self.tell(lock, "requests").await["requests"]["LEDGER"].as_u64().unwrap_or_default()
        }

        /// One turn; says how long it took.
        async fn turn(&self) -> Duration {
            let names = self.locks.iter().map(|(name, _)| name.clone()).collect();
            let begun = Instant::now();
            assert_eq!(read(vec![(Arc::clone(&self.driver), names)], self.queue.clone()).await.unwrap(), 0);
            begun.elapsed()
        }

        /// What is kept: of which lock, and how many events, in the order in which it came.
        async fn kept(&self) -> Vec<(String, u64)> {
            let look = |queue: &mut Queue| {
                let sql = "SELECT device, events FROM door_event ORDER BY n";
                let mut statement = Store::connection(queue).prepare(sql)?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
                let rows = rows.collect::<Result<Vec<(String, i64)>, _>>()?;
                Ok(rows.into_iter().map(|(lock, events)| (lock, events.cast_unsigned())).collect())
            };
            self.queue.run(look).await.unwrap()
        }

        async fn kept_of(&self, lock: usize) -> u64 {
            let name = self.locks[lock].0.as_str();
            self.kept().await.iter().filter(|(of, _)| of == name).map(|(_, events)| events).sum()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_with_much_to_tell_is_read_so_far_in_a_turn_and_on_from_there_in_the_next() {
        let house = House::with(&["chatty", "quiet"]).await;
        house.happens(0, 3_000).await;
        house.happens(1, 1).await;
        house.turn().await;
        let (first, asked) = (house.kept_of(0).await, house.pages_asked(0).await);
        assert!(0 < first && first < 3_000, "{first}");
        assert!(asked <= PAGES_OF_A_TURN, "{asked}");
        assert_eq!(house.kept_of(1).await, 1);
        // What happens meanwhile at the other door is read in the next turn, and nothing twice or never.
        house.happens(1, 1).await;
        house.turn().await;
        assert_eq!((house.kept_of(0).await, house.kept_of(1).await), (3_000, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_lock_holds_up_no_other_of_its_turn_and_the_next_turn_only_so_long() {
        let house = House::with(&["slow", "quick"]).await;
        house.happens(0, 3_000).await;
        house.happens(1, 1).await;
        house.tell(0, "fault slow 1000 on LEDGER 0").await;
        let took = house.turn().await;
        assert!(took <= Duration::from_secs(PAGES_OF_A_TURN), "{took:?}");
        assert!(house.kept_of(0).await < 3_000);
        // Both ask the same writer in turn, so the quick one's is there before the slow one's second.
        let kept = house.kept().await;
        let place = kept.iter().position(|(of, _)| of == "quick").unwrap();
        let before: u64 = kept[..place].iter().map(|(_, events)| events).sum();
        assert!(before < 200, "{before} of the slow one's were read first");
    }
}
