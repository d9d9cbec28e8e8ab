//! When to ask a silent peer for a sign of life, and when to give it up.

use std::time::{Duration, Instant};

/// A silent peer is asked this often: below the minute after which NAT tables forget a connection.
const PING_AFTER: Duration = Duration::from_secs(15);
/// And given up after this much silence: two unanswered pings, and noticed within 45 s.
const DEAD_AFTER: Duration = Duration::from_secs(40);

/// What silence asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing before this instant.
    Wait {
        /// Until when.
        until: Instant,
    },
    /// Send a ping now.
    Ping,
    /// The peer is gone.
    Dead,
}

/// Watches one connection. Time comes in as values.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    heard_at: Instant,
    pinged_at: Instant,
}

impl Heartbeat {
    /// A connection that was alive at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { heard_at: now, pinged_at: now }
    }

    /// A byte of the peer arrived.
    pub(crate) fn heard(&mut self, at: Instant) {
        self.heard_at = self.heard_at.max(at);
    }

    /// What to do now.
    pub(crate) fn poll(&mut self, now: Instant) -> Beat {
        let dead_at = self.heard_at + DEAD_AFTER;
        if now >= dead_at {
            return Beat::Dead;
        }
        let ping_at = self.heard_at.max(self.pinged_at) + PING_AFTER;
        if now >= ping_at {
            self.pinged_at = now;
            return Beat::Ping;
        }
        Beat::Wait { until: ping_at.min(dead_at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn silence_is_pinged_twice_and_then_dead_at_forty_seconds() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start);
        let mut seen = Vec::new();
        let mut now = start;
        let dead = loop {
            match heartbeat.poll(now) {
                Beat::Wait { until } => now = until,
                Beat::Ping => seen.push(now - start),
                Beat::Dead => break now - start,
            }
        };
        assert_eq!(seen, [15, 30].map(Duration::from_secs));
        assert_eq!(dead, Duration::from_secs(40));
    }

    #[test]
    fn a_peer_that_talks_is_not_pinged() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start);
        for second in (0..600).step_by(10) {
            heartbeat.heard(after(start, second));
            assert_eq!(heartbeat.poll(after(start, second)), Beat::Wait { until: after(start, second + 15) });
        }
    }
}
