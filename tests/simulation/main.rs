//! The whole system in one process, under simulated time, network and disks: one seed in, one history out.
//!
//! Cloud and agent are killed, lose their power, are put back from backups, have wrong clocks and full disks; roads break;
//! devices are silent, slow or wrong. People order at the cloud and at the site, take back, pause lanes and settle doubts.
//! In some seeds cards are ordered at the cloud's HTTP API as well, and in some others make cards at the same lock server.
//!
//! In one of eight the agent's machine is put back to an older moment without anybody saying so: where the cloud can know it,
//! and says it within the time for which an agent that starts holds its jobs, at its first start or at the next one.
//!
//! `LATCHD_SEEDS=N` plays N seeds, from `LATCHD_FIRST_SEED` on; `LATCHD_SEED=S` plays one and prints its history, with
//! `LATCHD_MUTANT=NAME` with that part broken. A seed that takes more steps than any that ends well is ended and fails.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as the tests themselves do")]

mod desk;
mod judge;
mod mutant;
#[path = "../simulated/mod.rs"]
mod simulated;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use judge::Tally;
use mutant::Mutant;
use world::{Story, play};

/// How many seeds an ordinary run plays, and on how many threads.
const SEEDS: u64 = 300;
const THREADS: usize = 2;
/// How many it takes to see what a broken part breaks.
const MUTANT_SEEDS: u64 = 128;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// Plays seeds, and gives those that broke the promise.
fn play_all(seeds: std::ops::Range<u64>, mutant: Mutant) -> (Tally, Duration, Vec<(u64, Story)>) {
    let next = AtomicU64::new(seeds.start);
    let mut total = (Tally::default(), Duration::ZERO, Vec::new());
    thread::scope(|scope| {
        let played: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut stories = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seeds.end <= seed {
                            return stories;
                        }
                        stories.push((seed, play(seed, mutant)));
                    }
                })
            })
            .collect();
        for (seed, story) in played.into_iter().flat_map(|thread| thread.join().unwrap()) {
            total.1 += story.simulated;
            match &story.verdict {
                Ok(tally) => total.0.add(tally),
                Err(_) => total.2.push((seed, story)),
            }
        }
    });
    total.2.sort_by_key(|(seed, _)| *seed);
    total
}

#[test]
fn whatever_goes_wrong_no_job_is_lost_done_twice_or_reported_as_it_was_not() {
    if let Some(seed) = from_environment("LATCHD_SEED") {
        let _ = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing::Level::DEBUG)
            .try_init();
        let mutant =
            std::env::var("LATCHD_MUTANT").map_or(Mutant::None, |name| Mutant::named(&name).unwrap());
        let story = play(seed, mutant);
        println!("{}", story.history.join("\n"));
        println!("{:#?}", story.verdict.as_ref());
        assert!(story.verdict.is_ok());
        return;
    }
    let seeds = from_environment("LATCHD_SEEDS").unwrap_or(SEEDS);
    let first = from_environment("LATCHD_FIRST_SEED").unwrap_or(0);
    let begun = std::time::Instant::now();
    let (tally, simulated, broken) = play_all(first..first + seeds, Mutant::None);
    println!(
        "{seeds} seeds in {:.1} s: {:.1} hours simulated, {tally:?}",
        begun.elapsed().as_secs_f64(),
        simulated.as_secs_f64() / 3600.0,
    );
    for (seed, story) in &broken {
        println!("LATCHD_SEED={seed}: {:#?}", story.verdict.as_ref().err());
    }
    assert!(broken.is_empty(), "{} of {seeds} seeds break the promise", broken.len());
}

#[test]
fn a_seed_gives_the_same_history_every_time() {
    for seed in [1, 2, 3] {
        let (one, other) = (play(seed, Mutant::None), play(seed, Mutant::None));
        let differs = one.history.iter().zip(&other.history).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.history.len(), other.history.len());
    }
    assert_ne!(play(1, Mutant::None).history, play(2, Mutant::None).history);
}

/// Some seed of these breaks the promise in these words.
fn caught(mutant: Mutant, words: &str) {
    caught_from(0, mutant, words);
}

fn caught_from(first: u64, mutant: Mutant, words: &str) {
    let is_caught = |seed| match play(seed, mutant).verdict {
        Ok(_) => false,
        Err(wrongs) => wrongs.iter().any(|wrong| wrong.contains(words)),
    };
    assert!((first..first + MUTANT_SEEDS).any(is_caught), "{mutant:?} is not caught: {words}");
}

#[test]
fn a_driver_that_repeats_what_is_in_doubt_is_caught() {
    caught(Mutant::RepeatsInDoubt, "was written 2 times");
}

#[test]
fn a_driver_that_calls_a_doubt_a_failure_is_caught() {
    caught(Mutant::CallsDoubtFailure, "is failed, and its card was written 1 times");
}

#[test]
fn a_driver_that_says_done_what_was_not_is_caught() {
    caught(Mutant::SaysDone, "is succeeded, and its card was written 0 times");
}

#[test]
fn a_cloud_that_drops_reports_is_caught() {
    caught(Mutant::DropsReports, "has no outcome");
}

#[test]
fn a_database_that_does_not_wait_for_its_disk_is_caught() {
    caught(Mutant::DoesNotSync, "was forgotten by the agent");
}

#[test]
fn what_turns_in_a_circle_is_ended_and_told() {
    caught(Mutant::NeverRests, "the agent takes steps without end");
    caught(Mutant::NeverEnds, "the database of the agent works without end");
}

#[test]
fn a_cloud_that_drops_what_was_ordered_at_the_site_is_caught() {
    caught(Mutant::DropsLocalJobs, "which the agent had taken at the site");
}

#[test]
fn a_cloud_that_ends_attempts_otherwise_than_they_ended_is_caught() {
    caught(Mutant::EndsTwice, "had ended encoding_interrupted and is success now");
    caught(Mutant::CallsFailureSuccess, "is success and its job");
}

#[test]
fn a_cloud_that_forgets_doubts_about_cards_is_caught() {
    caught(Mutant::ForgetsDoubts, "and its method is not in doubt");
}

#[test]
fn a_side_without_room_for_what_is_under_way_on_a_full_disk_is_caught() {
    caught(Mutant::KeepsNoReserve, "has no room on its full disk for what is under way");
}

#[test]
fn a_side_that_never_sees_that_there_is_room_again_is_caught() {
    caught(Mutant::SeesNoRoom, "takes its disk for full");
}

#[test]
fn an_agent_that_takes_foreign_stays_for_its_own_is_caught() {
    caught(Mutant::BelievesItIsAlone, "joined a stay in");
}

#[test]
fn an_agent_that_forgets_a_pause_is_caught() {
    caught(Mutant::ForgetsPauses, "while it was paused");
}

#[test]
fn an_agent_that_forgets_with_its_next_start_that_its_memory_may_be_an_old_one_is_caught() {
    // Few histories put an agent back and start it twice before it meets its cloud; one of these does.
    caught_from(440, Mutant::ForgetsItMetNobody, "which the agent had taken at the site");
}
