//! Two kinds of time. Wall time is a [`jiff::Timestamp`], from here; monotonic time is tokio's `Instant`, which
//! tests own by pausing the runtime's clock.

use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::UnixTime;
use tokio::time::Instant;

/// Where wall time comes from. Cheap to clone; all clones agree.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    /// Wall time that moves with tokio's clock and can be put forward or back.
    Simulated(Arc<Mutex<Simulated>>),
}

#[derive(Debug)]
struct Simulated {
    base: Timestamp,
    from: Instant,
}

impl Clock {
    /// The host's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `start` now and then moves with tokio's clock. Needs a running tokio runtime.
    #[must_use]
    pub fn simulated(start: Timestamp) -> Self {
        Self(Source::Simulated(Arc::new(Mutex::new(Simulated { base: start, from: Instant::now() }))))
    }

    /// Wall time, in whole milliseconds: what rows and wire carry.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let exact = match &self.0 {
            Source::System => Timestamp::now(),
            Source::Simulated(state) => {
                let state = state.lock().expect("no panic while the clock is held");
                let passed = SignedDuration::try_from(state.from.elapsed()).unwrap_or(SignedDuration::MAX);
                state.base.saturating_add(passed).unwrap_or(Timestamp::MAX)
            }
        };
        Timestamp::from_millisecond(exact.as_millisecond()).unwrap_or(exact)
    }

    /// Puts a simulated clock to another time, as an operator or a bad battery would. The host's clock is not ours
    /// to set: nothing happens to it.
    pub fn jump_to(&self, to: Timestamp) {
        if let Source::Simulated(state) = &self.0 {
            *state.lock().expect("no panic while the clock is held") =
                Simulated { base: to, from: Instant::now() };
        }
    }
}

/// Certificates are judged by this clock too.
impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.now().duration_since(Timestamp::UNIX_EPOCH);
        Some(UnixTime::since_unix_epoch(std::time::Duration::try_from(since).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_moves_with_tokio_and_jumps_when_told() {
        let start: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let clock = Clock::simulated(start);
        let other = clock.clone();
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().to_string(), "2026-11-22T12:01:30Z");
        other.jump_to("2026-11-20T00:00:00Z".parse().unwrap());
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(clock.now().to_string(), "2026-11-20T00:00:00.005Z");
    }
}
