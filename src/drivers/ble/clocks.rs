//! Clocks of locks that keep local time without a zone. Where a zone's clocks are changed, such a lock is wrong by as much
//! until it is told, and so are the windows in it: it is told at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Weak,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio::sync::watch;

use super::{BleLocks, make::Task};
use crate::{drivers::Came, model::DeviceName};

/// A lock that could not be told is tried again so long after.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// A change that may have been missed while nothing ran here: nobody knows when the lock was told last.
const MISSED: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Wall time may be put forward or back; it is looked at this often.
const LOOK: Duration = Duration::from_secs(3600);

/// Which locks are to be told the time.
struct Clocks {
    zones: BTreeMap<DeviceName, TimeZone>,
    /// Until when changes are known.
    seen: Timestamp,
    wrong: BTreeSet<DeviceName>,
    not_before: Timestamp,
}

impl Clocks {
    fn new(zones: BTreeMap<DeviceName, TimeZone>, now: Timestamp) -> Self {
        let seen = now.saturating_sub(MISSED).unwrap_or(now);
        Self { zones, seen, wrong: BTreeSet::new(), not_before: now }
    }

    /// Those that are wrong, if it is time to tell them.
    fn due(&mut self, now: Timestamp) -> Vec<DeviceName> {
        for (name, zone) in &self.zones {
            if zone.following(self.seen).next().is_some_and(|change| change.timestamp() <= now) {
                self.wrong.insert(name.clone());
                self.not_before = now;
            }
        }
        self.seen = now;
        if now < self.not_before { Vec::new() } else { self.wrong.iter().cloned().collect() }
    }

    fn told(&mut self, name: &DeviceName) {
        self.wrong.remove(name);
    }

    /// When to look again.
    fn next(&mut self, now: Timestamp) -> Option<Timestamp> {
        let changes = self.zones.values().filter_map(|zone| zone.following(now).next());
        let next = changes.map(|change| change.timestamp()).min();
        if self.wrong.is_empty() {
            return next;
        }
        self.not_before = now.saturating_add(AGAIN).unwrap_or(now);
        next.into_iter().chain([self.not_before]).min()
    }
}

/// Tells locks the time for as long as their driver lives.
pub(super) async fn keep(locks: Weak<BleLocks>, mut stopping: watch::Receiver<bool>) {
    let Some(mut clocks) = locks.upgrade().map(|locks| {
        let keeps_local_time = |lock: &super::Lock| lock.make.keeps_local_time() && lock.config.windows;
        let kept = locks.locks.iter().filter(|(_, lock)| keeps_local_time(lock));
        let zones = kept.map(|(name, lock)| (name.clone(), lock.time_zone.clone())).collect();
        Clocks::new(zones, locks.clock.now())
    }) else {
        return;
    };
    if clocks.zones.is_empty() {
        return;
    }
    loop {
        let Some(driver) = locks.upgrade() else { return };
        for name in clocks.due(driver.clock.now()) {
            let Some(lock) = driver.locks.get(&name) else { continue };
            match driver.hold(&name, lock, Task::Look).await.came {
                Came::Done => {
                    clocks.told(&name);
                    tracing::info!(system = %driver.system, lock = %name, "the clocks were changed; the lock was told");
                }
                _ if *stopping.borrow() => return,
                Came::NothingSent(refusal) | Came::NotDone(refusal) | Came::Doubt(refusal) => {
                    tracing::warn!(
                        system = %driver.system, lock = %name, error = %refusal,
                        "the clocks were changed, and the lock could not be told yet"
                    );
                }
            }
        }
        let now = driver.clock.now();
        let wait = clocks.next(now).map(|next| next.duration_since(now));
        let wait = wait.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or(LOOK).min(LOOK);
        drop(driver);
        tokio::select! {
            // The sender goes with the driver.
            changed = stopping.wait_for(|stop| *stop) => return drop(changed),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn name(text: &str) -> DeviceName {
        DeviceName::new(text).unwrap()
    }

    fn clocks(now: &str) -> Clocks {
        let zone = |zone: &str| TimeZone::get(zone).unwrap();
        let zones = [("101", zone("Europe/Oslo")), ("102", zone("America/New_York")), ("103", TimeZone::UTC)];
        Clocks::new(zones.map(|(lock, zone)| (name(lock), zone)).into(), at(now))
    }

    #[test]
    fn each_lock_is_told_when_its_own_zone_changes_and_again_until_it_was_reached() {
        let mut clocks = clocks("2026-10-01T00:00:00Z");
        assert_eq!(clocks.due(at("2026-10-01T00:00:00Z")), []);
        let next = clocks.next(at("2026-10-01T00:00:00Z")).unwrap();
        assert_eq!(next, at("2026-10-25T01:00:00Z"));
        assert_eq!(clocks.due(next), [name("101")]);
        // It was out of reach.
        assert_eq!(clocks.next(next), Some(next + AGAIN));
        assert_eq!(clocks.due(at("2026-10-25T01:05:00Z")), []);
        assert_eq!(clocks.due(next + AGAIN), [name("101")]);
        clocks.told(&name("101"));
        let next = clocks.next(next + AGAIN).unwrap();
        assert_eq!(next, at("2026-11-01T06:00:00Z"));
        assert_eq!(clocks.due(next), [name("102")]);
        clocks.told(&name("102"));
        assert_eq!(clocks.due(at("2027-01-01T00:00:00Z")), []);
    }

    #[test]
    fn a_change_that_fell_into_a_pause_is_made_up_for() {
        assert_eq!(clocks("2026-10-30T12:00:00Z").due(at("2026-10-30T12:00:00Z")), [name("101")]);
        assert_eq!(clocks("2026-11-15T12:00:00Z").due(at("2026-11-15T12:00:00Z")), []);
        // The host slept.
        let mut asleep = clocks("2026-10-01T00:00:00Z");
        assert_eq!(asleep.due(at("2026-11-02T00:00:00Z")), [name("101"), name("102")]);
        // Wall time was put back, and comes there again.
        asleep.told(&name("101"));
        asleep.told(&name("102"));
        assert_eq!(asleep.due(at("2026-10-20T00:00:00Z")), []);
        assert_eq!(asleep.due(at("2026-10-25T02:00:00Z")), [name("101")]);
    }
}
