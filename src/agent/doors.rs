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
