//! The time by which deadlines are judged: the cloud's, carried on by the monotonic clock.

use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::Clock;

/// The cloud's time as of its last welcome plus what the monotonic clock has counted since; the host's wall clock
/// until there was one. Cheap to clone; all clones agree.
#[derive(Debug, Clone)]
pub struct TrustedTime {
    clock: Clock,
    anchor: Arc<Mutex<Option<(Timestamp, Instant)>>>,
}

impl TrustedTime {
    /// Starts from the host's clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, anchor: Arc::default() }
    }

    /// The cloud has just said what time it is.
    pub fn anchor(&self, cloud: Timestamp) {
        *self.anchor.lock().expect("no panic while held") = Some((cloud, Instant::now()));
    }

    /// The time to judge by, in whole milliseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let anchor = *self.anchor.lock().expect("no panic while held");
        let Some((cloud, since)) = anchor else {
            return self.clock.now();
        };
        let passed = SignedDuration::try_from(since.elapsed()).unwrap_or(SignedDuration::MAX);
        let exact = cloud.saturating_add(passed).unwrap_or(Timestamp::MAX);
        Timestamp::from_millisecond(exact.as_millisecond()).unwrap_or(exact)
    }

    /// The cloud's time, if it has ever told.
    #[must_use]
    pub fn of_cloud(&self) -> Option<Timestamp> {
        let is_told = self.anchor.lock().expect("no panic while held").is_some();
        is_told.then(|| self.now())
    }

    /// What the host's own clock says.
    #[must_use]
    pub fn host_now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How far the host's clock is ahead of the cloud's; negative when it is behind.
    #[must_use]
    pub fn host_is_ahead_by(&self) -> SignedDuration {
        self.clock.now().duration_since(self.now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_host_clock_moves_no_deadline_once_the_cloud_has_spoken() {
        let clock = Clock::simulated("2020-01-01T00:00:00Z".parse().unwrap());
        let time = TrustedTime::new(clock.clone());
        assert_eq!(time.now().to_string(), "2020-01-01T00:00:00Z");
        time.anchor("2026-11-22T12:00:00Z".parse().unwrap());
        clock.jump_to("2030-01-01T00:00:00Z".parse().unwrap());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(time.now().to_string(), "2026-11-22T12:00:05Z");
        assert!(time.host_is_ahead_by() > SignedDuration::from_hours(24 * 365 * 3));
    }
}
