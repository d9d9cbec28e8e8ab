//! Where randomness comes from: ids, jitter, PINs, nonces.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use uuid::Uuid;

/// A source of randomness. Cheap to clone; all clones draw from the same stream.
#[derive(Clone)]
pub struct Random(Arc<Mutex<StdRng>>);

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

impl Random {
    /// A cryptographic generator, seeded by the operating system.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// The same stream for the same seed; for tests and simulations only.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A version 4 UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }

    /// A version 7 UUID: later ones are greater, to the millisecond, so what is stored by them lies in the order of time
    /// and new rows share a page. For what says when it was made anyway; otherwise it is as random as [`Self::uuid`].
    #[must_use]
    pub fn uuid_at(&self, now: Timestamp) -> Uuid {
        let since_1970 = u64::try_from(now.as_millisecond()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(since_1970, &self.bytes()).into_uuid()
    }

    /// Random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.lock().expect("no panic while drawing").fill_bytes(&mut bytes);
        bytes
    }

    /// A number in `0..below`, each equally likely; 0 where `below` is 0.
    #[must_use]
    pub fn below(&self, below: u64) -> u64 {
        match below {
            0 => 0,
            _ => self.0.lock().expect("no panic while drawing").random_range(0..below),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_later_moments_are_greater_and_those_of_one_differ() {
        let random = Random::seeded(1);
        let at = |ms| random.uuid_at(Timestamp::from_millisecond(ms).unwrap());
        let (early, late, twin) = (at(1_795_262_400_000), at(1_795_262_400_001), at(1_795_262_400_001));
        assert!(early < late && early < twin && late != twin, "{early} {late} {twin}");
        assert_eq!(early.get_version_num(), 7);
        assert_eq!(early.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(at(-1).get_version_num(), 7);
    }

    #[test]
    fn the_same_seed_gives_the_same_ids() {
        let draw = |seed| (Random::seeded(seed).uuid(), Random::seeded(seed).below(1000));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7).0, draw(8).0);
        assert_eq!(Random::seeded(1).uuid().get_version_num(), 4);
    }
}
