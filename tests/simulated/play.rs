//! Playing seeds: many of them, one for a person to look at, and some with a part broken.

#![expect(clippy::print_stdout, reason = "a test prints what it came to")]

use std::{
    fmt::Debug,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How many seeds are played at once.
const THREADS: usize = 2;

/// What one seed came to.
pub(crate) struct Story<T> {
    pub(crate) history: Vec<String>,
    /// How much time has passed in it.
    pub(crate) simulated: Duration,
    /// What was compared, or what broke the promise.
    pub(crate) verdict: Result<T, Vec<String>>,
}

/// What was compared in seeds that keep the promise.
pub(crate) trait Tally: Debug + Default + Send {
    fn add(&mut self, other: &Self);
}

/// What is broken, if anything.
pub(crate) trait Mutant: Copy + Debug + 'static {
    const NONE: Self;
    const ALL: &'static [Self];

    /// By the name it has in the code.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| format!("{mutant:?}") == name)
    }
}

/// What is played, and the variables of the environment that say which seeds.
pub(crate) struct Game<M, T> {
    pub(crate) play: fn(u64, M) -> Story<T>,
    /// Names one seed, which is printed.
    pub(crate) one: &'static str,
    /// How many seeds.
    pub(crate) many: &'static str,
    /// The first of them.
    pub(crate) first: &'static str,
}

impl<M: Mutant, T: Tally> Game<M, T> {
    /// Plays what the environment asks for, else this many seeds. None may break the promise.
    pub(crate) fn play(&self, usually: u64) {
        if let Some(seed) = from_environment(self.one) {
            return self.show(seed);
        }
        let count = from_environment(self.many).unwrap_or(usually);
        let first = from_environment(self.first).unwrap_or(0);
        let begun = Instant::now();
        let mut tally = T::default();
        let (mut simulated, mut broken) = (Duration::ZERO, Vec::new());
        for (seed, story) in self.play_all(first..first + count) {
            simulated += story.simulated;
            match story.verdict {
                Ok(compared) => tally.add(&compared),
                Err(wrongs) => broken.push((seed, wrongs)),
            }
        }
        println!(
            "{count} seeds in {:.1} s: {:.1} hours simulated, {tally:?}",
            begun.elapsed().as_secs_f64(),
            simulated.as_secs_f64() / 3600.0,
        );
        for (seed, wrongs) in &broken {
            println!("{}={seed}: {wrongs:#?}", self.one);
        }
        assert!(broken.is_empty(), "{} of {count} seeds break the promise", broken.len());
    }

    /// Plays one seed, with a part broken if the environment says so, and prints it.
    fn show(&self, seed: u64) {
        let _ = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing::Level::DEBUG)
            .try_init();
        let mutant = std::env::var("LATCHD_MUTANT").map_or(M::NONE, |name| M::named(&name).unwrap());
        let story = (self.play)(seed, mutant);
        println!("{}\n{:#?}", story.history.join("\n"), story.verdict);
        assert!(story.verdict.is_ok());
    }

    /// The stories of these seeds, in their order, without their histories.
    fn play_all(&self, seeds: Range<u64>) -> Vec<(u64, Story<T>)> {
        let (next, play) = (AtomicU64::new(seeds.start), self.play);
        let play_some = || {
            let mut stories = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seeds.end <= seed {
                    return stories;
                }
                stories.push((seed, Story { history: Vec::new(), ..play(seed, M::NONE) }));
            }
        };
        let mut stories: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(play_some)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        stories.sort_by_key(|(seed, _)| *seed);
        stories
    }

    /// A seed gives the same history every time, and another one another.
    pub(crate) fn repeats(&self) {
        let history = |seed| (self.play)(seed, M::NONE).history;
        for seed in [1, 2, 3] {
            let (one, other) = (history(seed), history(seed));
            let differs = one.iter().zip(&other).find(|(one, other)| one != other);
            assert_eq!(differs, None, "seed {seed}");
            assert_eq!(one.len(), other.len(), "seed {seed}");
        }
        assert_ne!(history(1), history(2));
    }

    /// Some seed of these breaks the promise in these words.
    pub(crate) fn catches(&self, mut seeds: impl Iterator<Item = u64>, mutant: M, words: &str) {
        let is_caught = |seed| match (self.play)(seed, mutant).verdict {
            Ok(_) => false,
            Err(wrongs) => wrongs.iter().any(|wrong| wrong.contains(words)),
        };
        assert!(seeds.any(is_caught), "{mutant:?} is not caught: {words}");
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}
