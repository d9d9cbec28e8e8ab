//! How often strangers may guess: from one place, and in all.
//!
//! Only what fails counts, so that many sites behind one address do not stand in each other's way. In all there is about
//! one guess a second: a code of 40 bits that counts for a day is met by one such day in ten million.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Failures that are forgiven at once, and the time after which one more is.
const FROM_ONE_PLACE: Bucket = Bucket { size: 10, every: Duration::from_secs(6) };
const IN_ALL: Bucket = Bucket { size: 60, every: Duration::from_secs(1) };
/// How many places are remembered; of more, the one whose last attempt is the oldest is forgotten.
const PLACES: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    size: u32,
    every: Duration,
}

/// How much of a bucket is used: it is empty at `empty_at`, and each attempt moves that on.
#[derive(Debug, Clone, Copy)]
struct Level {
    empty_at: Instant,
}

impl Level {
    fn take(&mut self, bucket: Bucket, now: Instant) -> Result<(), Duration> {
        let empty_at = self.empty_at.max(now) + bucket.every;
        let full = now + bucket.every * bucket.size;
        if empty_at > full {
            return Err(empty_at - full);
        }
        self.empty_at = empty_at;
        Ok(())
    }

    fn give_back(&mut self, bucket: Bucket) {
        self.empty_at = self.empty_at.checked_sub(bucket.every).unwrap_or(self.empty_at);
    }
}

/// Who has failed how often.
#[derive(Debug, Default)]
pub(super) struct Limits(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    in_all: Option<Level>,
    places: BTreeMap<Place, Level>,
}

/// An IPv4 address, or the network of a site that has IPv6.
type Place = [u8; 8];

impl Limits {
    /// Counts an attempt that fails unless the opposite is said.
    ///
    /// # Errors
    /// After how long the next one is let through.
    pub(super) fn attempt(&self, from: IpAddr) -> Result<Attempt<'_>, Duration> {
        let now = Instant::now();
        let place = place(from);
        let state = &mut *self.state();
        let fresh = Level { empty_at: now };
        if !state.places.contains_key(&place) && state.places.len() >= PLACES {
            let oldest = state.places.iter().min_by_key(|(_, level)| level.empty_at).map(|(place, _)| *place);
            oldest.map(|oldest| state.places.remove(&oldest));
        }
        state.places.entry(place).or_insert(fresh).take(FROM_ONE_PLACE, now).map_err(in_seconds)?;
        if let Err(wait) = state.in_all.get_or_insert(fresh).take(IN_ALL, now) {
            // It was not let through, so it was no attempt.
            state.places.entry(place).and_modify(|level| level.give_back(FROM_ONE_PLACE));
            return Err(in_seconds(wait));
        }
        Ok(Attempt { limits: self, place })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that was let through.
#[derive(Debug)]
#[must_use]
pub(super) struct Attempt<'a> {
    limits: &'a Limits,
    place: Place,
}

impl Attempt<'_> {
    /// It did not fail, and so counts for nothing.
    pub(super) fn succeeded(self) {
        let mut state = self.limits.state();
        state.places.entry(self.place).and_modify(|level| level.give_back(FROM_ONE_PLACE));
        if let Some(level) = &mut state.in_all {
            level.give_back(IN_ALL);
        }
    }
}

fn place(from: IpAddr) -> Place {
    let mut place = [0; 8];
    match from.to_canonical() {
        // No network of IPv6 begins with zeros.
        IpAddr::V4(address) => place[4..].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => place.copy_from_slice(&address.octets()[..8]),
    }
    place
}

fn in_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + last).into()
    }

    fn fails(limits: &Limits, from: IpAddr) -> Result<(), Duration> {
        limits.attempt(from).map(drop)
    }

    #[tokio::test(start_paused = true)]
    async fn failures_from_one_place_are_limited_and_others_go_on() {
        let limits = Limits::default();
        for _ in 0..10 {
            fails(&limits, address(1)).unwrap();
        }
        assert_eq!(fails(&limits, address(1)), Err(Duration::from_secs(6)));
        fails(&limits, address(2)).unwrap();
        tokio::time::advance(Duration::from_secs(6)).await;
        fails(&limits, address(1)).unwrap();
        assert!(fails(&limits, address(1)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_all_are_limited_whereever_they_come_from() {
        let limits = Limits::default();
        for from in 0..60 {
            fails(&limits, address(from)).unwrap();
        }
        assert_eq!(fails(&limits, address(100)), Err(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        fails(&limits, address(100)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fail_counts_for_nothing() {
        let limits = Limits::default();
        for _ in 0..1000 {
            limits.attempt(address(1)).unwrap().succeeded();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_a_site_of_ipv6_is_one_place() {
        let limits = Limits::default();
        for from in 0..3 * u32::try_from(PLACES).unwrap() {
            limits.attempt(address(from)).unwrap().succeeded();
        }
        assert!(limits.state().places.len() <= PLACES);
        for host in 0..10_u16 {
            fails(&limits, std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, host).into()).unwrap();
        }
        assert!(fails(&limits, std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 9, 9, 9, 9).into()).is_err());
        fails(&limits, std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 1).into()).unwrap();
    }
}
