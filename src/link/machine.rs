//! When to connect, and when again. Opens no socket, reads no clock, draws no numbers.

use std::time::{Duration, Instant};

/// The first retry comes within this; the bound doubles with each failure.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// And never comes later than this.
const LONGEST: Duration = Duration::from_secs(60);
/// A connection that held for this long was a success; a shorter one counts as a failure, so that a cloud that
/// welcomes and drops us is not hammered.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// Everything from the first look at a name to the welcome, for each address.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// What a peer asks for is honoured up to this: nobody keeps a site offline for longer with one answer. Together with
/// [`LONGEST`], which is added so that not all come at once, five minutes.
const LONGEST_WISH: Duration = Duration::from_secs(240);

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
    /// Nothing that trying again could cure, and nobody who would wait for it.
    Over,
}

/// When a peer wants to be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Again {
    /// It said nothing about that.
    Soon,
    /// Not before a time, and then not all at once.
    NotBefore {
        /// After this.
        after: Duration,
        /// Anywhere within this, where the usual wait is not longer.
        spread: Duration,
    },
}

/// A failure, as far as it matters for what comes next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    /// When the peer wants to be asked again.
    pub(crate) again: Again,
    /// Whether trying again could help without a person's doing.
    pub(crate) is_curable: bool,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next address is tried at once.
    Address,
    /// There is no connection for now.
    Wait,
    /// There will be none.
    End,
}

/// The link's decisions.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    failures: u32,
    connections: u64,
    addresses: usize,
    address: usize,
    /// Ends with failures that nothing cures, until it was welcomed once.
    is_first_setup: bool,
    /// What the addresses of this round have said.
    round: Option<Failure>,
}

impl Machine {
    /// A link that connects at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Waiting { until: now },
            failures: 0,
            connections: 0,
            addresses: 1,
            address: 0,
            is_first_setup: false,
            round: None,
        }
    }

    /// The same for a site that is being set up: a person waits for the reason, and nothing is lost yet.
    pub(crate) fn first_setup(mut self) -> Self {
        self.is_first_setup = true;
        self
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Which of so many addresses is to be tried. When there are others than before, they begin anew.
    pub(crate) fn address_of(&mut self, addresses: usize) -> usize {
        if self.addresses != addresses {
            (self.addresses, self.address, self.round) = (addresses, 0, None);
        }
        self.address
    }

    /// The wait is over.
    pub(crate) fn connect(&mut self, now: Instant) {
        self.state = State::Connecting { until: now + CONNECT_WITHIN };
    }

    /// The cloud welcomed us; gives the connection's number.
    pub(crate) fn up(&mut self, now: Instant) -> u64 {
        self.state = State::Up { since: now };
        self.is_first_setup = false;
        self.round = None;
        self.connections += 1;
        self.connections
    }

    /// We ended the connection to make another one at once.
    pub(crate) fn again(&mut self, now: Instant) -> Next {
        self.state = State::Waiting { until: now };
        (self.address, self.round) = (0, None);
        Next::Wait
    }

    /// There is no connection (any more). `jitter` is any number, each equally likely: where in the permitted time
    /// the next attempt lies.
    pub(crate) fn down(&mut self, now: Instant, jitter: u64, failure: Failure) -> Next {
        if let State::Up { since } = self.state {
            let is_healthy = now.saturating_duration_since(since) >= HEALTHY_AFTER;
            if is_healthy {
                self.failures = 0;
            }
            // An address that welcomes and drops us has failed; the others get their chance.
            self.address = if is_healthy { 0 } else { (self.address + 1) % self.addresses };
            self.wait(now, jitter, failure.again);
            return Next::Wait;
        }
        let round = self.round.map_or(failure, |round| Failure {
            // An address that asks for patience does not speak for the others.
            again: round.again.min(failure.again),
            is_curable: round.is_curable || failure.is_curable,
        });
        if self.address + 1 < self.addresses {
            self.address += 1;
            self.round = Some(round);
            self.state = State::Waiting { until: now };
            return Next::Address;
        }
        self.address = 0;
        self.round = None;
        if self.is_first_setup && !round.is_curable {
            self.state = State::Over;
            return Next::End;
        }
        self.wait(now, jitter, round.again);
        Next::Wait
    }

    fn wait(&mut self, now: Instant, jitter: u64, again: Again) {
        let delay = delay(self.failures, again, jitter);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + delay };
    }
}

/// Uniform from zero to a bound that doubles with each failure; later where the peer has asked for it.
fn delay(failures: u32, again: Again, jitter: u64) -> Duration {
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    let bound = FIRST_WITHIN.saturating_mul(factor).min(LONGEST);
    let (after, bound) = match again {
        Again::Soon => (Duration::ZERO, bound),
        Again::NotBefore { after, spread } => (after.min(LONGEST_WISH), bound.max(spread.min(LONGEST))),
    };
    let nanos = (bound.as_nanos() * u128::from(jitter)) >> u64::BITS;
    after + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn machine_of(now: Instant, addresses: usize) -> Machine {
        let mut machine = Machine::new(now);
        machine.address_of(addresses);
        machine
    }

    fn wait(machine: &Machine, now: Instant) -> Duration {
        match machine.state() {
            State::Waiting { until } => until - now,
            other => panic!("{other:?}"),
        }
    }

    const CURABLE: Failure = Failure { again: Again::Soon, is_curable: true };
    const INCURABLE: Failure = Failure { again: Again::Soon, is_curable: false };

    fn asks(after: u64, spread: u64) -> Failure {
        let again =
            Again::NotBefore { after: Duration::from_secs(after), spread: Duration::from_secs(spread) };
        Failure { again, is_curable: true }
    }

    /// Fails at connecting.
    fn fails(machine: &mut Machine, now: Instant, jitter: u64, failure: Failure) -> Next {
        machine.connect(now);
        machine.down(now, jitter, failure)
    }

    proptest! {
        #[test]
        fn a_retry_lies_within_its_bound_whatever_the_jitter(failures in 0_u32..100, jitter: u64) {
            let bound = Duration::from_secs(1 << failures.min(6)).min(LONGEST);
            prop_assert!(delay(failures, Again::Soon, jitter) < bound);
            prop_assert!(delay(failures, Again::Soon, u64::MAX) > bound.mul_f64(0.999));
            prop_assert_eq!(delay(failures, Again::Soon, 0), Duration::ZERO);
        }

        #[test]
        fn no_history_of_failures_panics_or_waits_longer_than_a_minute(
            steps in prop::collection::vec((0_u64..200_000, any::<u64>(), any::<bool>()), 1..200),
        ) {
            let mut now = Instant::now();
            let mut machine = machine_of(now, 1);
            for (millis, jitter, welcomed) in steps {
                machine.connect(now);
                if welcomed {
                    machine.up(now);
                }
                now += Duration::from_millis(millis);
                machine.down(now, jitter, CURABLE);
                prop_assert!(wait(&machine, now) <= LONGEST);
            }
        }

        #[test]
        fn no_wish_of_a_peer_keeps_a_site_offline_for_more_than_five_minutes(
            failures in 0_u32..100, after: u64, spread: u64, jitter: u64,
        ) {
            let asked = Duration::from_secs(after);
            let again = Again::NotBefore { after: asked, spread: Duration::from_secs(spread) };
            let waited = delay(failures, again, jitter);
            prop_assert!(waited >= asked.min(Duration::from_secs(240)));
            prop_assert!(waited <= Duration::from_secs(300));
        }
    }

    #[test]
    fn first_retries_of_a_thousand_bridges_are_spread_evenly_over_one_second() {
        let random = crate::seams::Random::seeded(7);
        let mut tenths = [0_u32; 10];
        for _ in 0..1000 {
            let drawn = delay(0, Again::Soon, u64::from_be_bytes(random.bytes()));
            tenths[usize::try_from(drawn.as_millis() / 100).unwrap()] += 1;
        }
        // Chi-square with nine degrees of freedom: above 27.9 once in a thousand.
        let chi: f64 = tenths.iter().map(|&count| (f64::from(count) - 100.0).powi(2) / 100.0).sum();
        assert!(chi < 27.9, "{tenths:?}");
    }

    #[test]
    fn the_bound_is_forgotten_only_after_a_healthy_minute() {
        let start = Instant::now();
        let mut machine = machine_of(start, 1);
        for _ in 0..8 {
            fails(&mut machine, start, u64::MAX, CURABLE);
        }
        machine.connect(start);
        machine.up(start);
        let soon = start + Duration::from_secs(59);
        machine.down(soon, u64::MAX, CURABLE);
        assert!(wait(&machine, soon) > Duration::from_secs(59));
        machine.connect(soon);
        machine.up(soon);
        let later = soon + Duration::from_secs(60);
        machine.down(later, u64::MAX, CURABLE);
        assert!(wait(&machine, later) < Duration::from_secs(1));
    }

    #[test]
    fn connections_are_counted_from_one() {
        let now = Instant::now();
        let mut machine = machine_of(now, 1);
        assert_eq!(machine.state(), State::Waiting { until: now });
        assert_eq!((machine.up(now), machine.up(now)), (1, 2));
    }

    #[test]
    fn addresses_are_tried_in_order_at_once_and_then_there_is_a_wait() {
        let now = Instant::now();
        let mut machine = machine_of(now, 3);
        for round in 0..3 {
            for address in 0..2 {
                assert_eq!(machine.address, address);
                assert_eq!(fails(&mut machine, now, u64::MAX, CURABLE), Next::Address);
                assert_eq!(wait(&machine, now), Duration::ZERO);
            }
            assert_eq!(fails(&mut machine, now, u64::MAX, CURABLE), Next::Wait);
            assert_eq!(wait(&machine, now).as_secs_f64().round() as u64, 1 << round);
        }
    }

    #[test]
    fn the_first_address_is_preferred_again_after_a_healthy_connection_and_not_after_a_short_one() {
        let now = Instant::now();
        let mut machine = machine_of(now, 3);
        fails(&mut machine, now, 0, CURABLE);
        machine.connect(now);
        machine.up(now);
        assert_eq!(machine.address, 1);
        let later = now + HEALTHY_AFTER;
        assert_eq!(machine.down(later, 0, CURABLE), Next::Wait);
        assert_eq!(machine.address, 0);
        machine.connect(later);
        machine.up(later);
        assert_eq!(machine.down(later, 0, CURABLE), Next::Wait);
        assert_eq!(machine.address, 1);
    }

    #[test]
    fn patience_that_one_address_asks_for_does_not_bind_the_others() {
        let now = Instant::now();
        let mut machine = machine_of(now, 2);
        fails(&mut machine, now, 0, asks(200, 0));
        fails(&mut machine, now, 0, CURABLE);
        assert_eq!(wait(&machine, now), Duration::ZERO);
        fails(&mut machine, now, 0, asks(200, 0));
        fails(&mut machine, now, 0, asks(100, 0));
        assert_eq!(wait(&machine, now), Duration::from_secs(100));
        fails(&mut machine, now, 0, CURABLE);
        fails(&mut machine, now, 0, asks(100, 0));
        assert_eq!(wait(&machine, now), Duration::ZERO, "nothing is left of an earlier round");
    }

    #[test]
    fn a_first_setup_ends_when_no_address_can_be_cured_and_never_after_a_welcome() {
        let now = Instant::now();
        let mut machine = machine_of(now, 2).first_setup();
        fails(&mut machine, now, 0, INCURABLE);
        assert_eq!(fails(&mut machine, now, 0, CURABLE), Next::Wait);
        fails(&mut machine, now, 0, INCURABLE);
        assert_eq!(fails(&mut machine, now, 0, INCURABLE), Next::End);
        assert_eq!(machine.state(), State::Over);
        let mut machine = machine_of(now, 1).first_setup();
        machine.up(now);
        machine.down(now, 0, INCURABLE);
        assert_eq!(fails(&mut machine, now, 0, INCURABLE), Next::Wait);
        assert_eq!(fails(&mut machine_of(now, 1), now, 0, INCURABLE), Next::Wait);
    }
}
