//! When to connect, and when again. Opens no socket, reads no clock, draws no numbers.

use std::time::{Duration, Instant};

/// The first retry comes within this; the bound doubles with each failure.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// And never comes later than this.
const LONGEST: Duration = Duration::from_secs(60);
/// A connection that held for this long was a success; a shorter one counts as a failure, so that a cloud that
/// welcomes and drops us is not hammered.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// Everything from the first byte of a connection to the welcome.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// Where the link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Connects again at this instant.
    Waiting {
        /// When.
        until: Instant,
    },
    /// Is connecting; gives up at this instant.
    Connecting {
        /// When.
        until: Instant,
    },
    /// Was welcomed.
    Up {
        /// When.
        since: Instant,
    },
}

/// The link's decisions.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    failures: u32,
    connections: u64,
}

impl Machine {
    /// A link that connects at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self { state: State::Waiting { until: now }, failures: 0, connections: 0 }
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// The wait is over.
    pub(crate) fn connect(&mut self, now: Instant) {
        self.state = State::Connecting { until: now + CONNECT_WITHIN };
    }

    /// The cloud welcomed us; gives the connection's number.
    pub(crate) fn up(&mut self, now: Instant) -> u64 {
        self.state = State::Up { since: now };
        self.connections += 1;
        self.connections
    }

    /// We ended the connection to make another one at once.
    pub(crate) fn again(&mut self, now: Instant) {
        self.state = State::Waiting { until: now };
    }

    /// There is no connection (any more). `jitter` is any number, each equally likely: where in the permitted time
    /// the next attempt lies.
    pub(crate) fn down(&mut self, now: Instant, jitter: u64) {
        if let State::Up { since } = self.state
            && now.saturating_duration_since(since) >= HEALTHY_AFTER
        {
            self.failures = 0;
        }
        let delay = delay(self.failures, jitter);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + delay };
    }
}

/// Uniform from zero to a bound that doubles with each failure.
fn delay(failures: u32, jitter: u64) -> Duration {
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    let bound = FIRST_WITHIN.saturating_mul(factor).min(LONGEST);
    let nanos = (bound.as_nanos() * u128::from(jitter)) >> u64::BITS;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wait(machine: &Machine, now: Instant) -> Duration {
        match machine.state() {
            State::Waiting { until } => until - now,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn a_retry_lies_within_its_bound_whatever_the_jitter(failures in 0_u32..100, jitter: u64) {
            let bound = Duration::from_secs(1 << failures.min(6)).min(LONGEST);
            prop_assert!(delay(failures, jitter) < bound);
            prop_assert!(delay(failures, u64::MAX) > bound.mul_f64(0.999));
            prop_assert_eq!(delay(failures, 0), Duration::ZERO);
        }

        #[test]
        fn no_history_of_failures_panics_or_waits_longer_than_a_minute(
            steps in prop::collection::vec((0_u64..200_000, any::<u64>(), any::<bool>()), 1..200),
        ) {
            let mut now = Instant::now();
            let mut machine = Machine::new(now);
            for (millis, jitter, welcomed) in steps {
                machine.connect(now);
                if welcomed {
                    machine.up(now);
                }
                now += Duration::from_millis(millis);
                machine.down(now, jitter);
                prop_assert!(wait(&machine, now) <= LONGEST);
            }
        }
    }

    #[test]
    fn first_retries_of_a_thousand_bridges_are_spread_evenly_over_one_second() {
        let random = crate::seams::Random::seeded(7);
        let mut tenths = [0_u32; 10];
        for _ in 0..1000 {
            let drawn = delay(0, u64::from_be_bytes(random.bytes()));
            tenths[usize::try_from(drawn.as_millis() / 100).unwrap()] += 1;
        }
        // Chi-square with nine degrees of freedom: above 27.9 once in a thousand.
        let chi: f64 = tenths.iter().map(|&count| (f64::from(count) - 100.0).powi(2) / 100.0).sum();
        assert!(chi < 27.9, "{tenths:?}");
    }

    #[test]
    fn the_bound_is_forgotten_only_after_a_healthy_minute() {
        let start = Instant::now();
        let mut machine = Machine::new(start);
        for _ in 0..8 {
            machine.connect(start);
            machine.down(start, u64::MAX);
        }
        machine.connect(start);
        machine.up(start);
        let soon = start + Duration::from_secs(59);
        machine.down(soon, u64::MAX);
        assert!(wait(&machine, soon) > Duration::from_secs(59));
        machine.connect(soon);
        machine.up(soon);
        let later = soon + Duration::from_secs(60);
        machine.down(later, u64::MAX);
        assert!(wait(&machine, later) < Duration::from_secs(1));
    }

    #[test]
    fn connections_are_counted_from_one() {
        let now = Instant::now();
        let mut machine = Machine::new(now);
        assert_eq!(machine.state(), State::Waiting { until: now });
        assert_eq!((machine.up(now), machine.up(now)), (1, 2));
    }
}
