//! Stays: whatever guests, desks and failures do, the doors open for those who were told so and for nobody else.
//!
//! Each seed is a short history of one house: reservations with their guests, cards written at the cloud's HTTP API,
//! changes, departures, lost cards, a hotel's own desk at the same lock servers, crashes, cut roads and doubts. It goes
//! the whole road to simulated lock servers, whose doors judge every card after every step. What must be so is said by
//! a model that knows only what people know (see `model`).
//!
//! `LATCHD_HISTORIES=N` plays N seeds, from `LATCHD_FIRST_HISTORY` on; `LATCHD_HISTORY=S` plays one and prints it, with
//! `LATCHD_MUTANT=NAME` with that part broken.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as the tests themselves do")]

mod desk;
mod model;
mod mutant;
#[path = "../simulated/mod.rs"]
#[expect(dead_code, reason = "another test needs more of it")]
mod simulated;
mod site;
mod story;
mod town;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use model::Tally;
use mutant::Mutant;
use story::{Story, play};

/// How many histories an ordinary run plays, and on how many threads.
const HISTORIES: u64 = 350;
const THREADS: usize = 2;
/// How many it takes to see what a broken part breaks.
const MUTANT_HISTORIES: u64 = 250;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// Plays seeds, and gives those that broke the promise.
fn play_all(seeds: std::ops::Range<u64>) -> (Tally, Vec<(u64, Story)>) {
    let next = AtomicU64::new(seeds.start);
    let play_some = || {
        let (mut tally, mut broken) = (Tally::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seeds.end <= seed {
                return (tally, broken);
            }
            let story = play(seed, Mutant::None);
            match &story.verdict {
                Ok(compared) => tally.add(compared),
                Err(_) => broken.push((seed, story)),
            }
        }
    };
    let mut total = (Tally::default(), Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(play_some)).collect();
        for (tally, broken) in threads.into_iter().map(|thread| thread.join().unwrap()) {
            total.0.add(&tally);
            total.1.extend(broken);
        }
    });
    total.1.sort_by_key(|(seed, _)| *seed);
    total
}

#[test]
fn doors_open_for_whom_they_should_and_for_nobody_else() {
    if let Some(seed) = from_environment("LATCHD_HISTORY") {
        let _ = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing::Level::DEBUG)
            .try_init();
        let mutant =
            std::env::var("LATCHD_MUTANT").map_or(Mutant::None, |name| Mutant::named(&name).unwrap());
        let story = play(seed, mutant);
        println!("{}\n{:#?}", story.history.join("\n"), story.verdict);
        assert!(story.verdict.is_ok());
        return;
    }
    let histories = from_environment("LATCHD_HISTORIES").unwrap_or(HISTORIES);
    let first = from_environment("LATCHD_FIRST_HISTORY").unwrap_or(0);
    let begun = Instant::now();
    let (tally, broken) = play_all(first..first + histories);
    println!("{histories} histories in {:.1} s: {tally:?}", begun.elapsed().as_secs_f64());
    for (seed, story) in &broken {
        println!("LATCHD_HISTORY={seed}: {:#?}", story.verdict.as_ref().err());
    }
    assert!(broken.is_empty(), "{} of {histories} histories break the promise", broken.len());
}

#[test]
fn a_seed_gives_the_same_history_every_time() {
    for seed in [1, 2, 3] {
        assert_eq!(play(seed, Mutant::None).history, play(seed, Mutant::None).history, "seed {seed}");
    }
    assert_ne!(play(1, Mutant::None).history, play(2, Mutant::None).history);
}

/// Some seed of these breaks the promise in these words.
fn caught(mutant: Mutant, words: &str) {
    let is_caught = |seed| match play(seed, mutant).verdict {
        Ok(_) => false,
        Err(wrongs) => wrongs.iter().any(|wrong| wrong.contains(words)),
    };
    assert!((0..MUTANT_HISTORIES).any(is_caught), "{mutant:?} is not caught: {words}");
}

#[test]
fn a_new_stay_that_joins_the_one_before_it_is_caught() {
    caught(Mutant::JoinsForANewStay, "a card of a newer stay was used there");
}

#[test]
fn a_second_guest_who_throws_the_first_one_out_is_caught() {
    caught(Mutant::OverridesForAGuest, "and it is a room of theirs");
}

#[test]
fn a_card_that_joins_after_a_doubtful_beginning_is_caught() {
    caught(Mutant::JoinsAfterADoubt, "a card of a newer stay was used there");
}

#[test]
fn common_doors_that_are_taken_over_with_the_room_are_caught() {
    caught(Mutant::CommonDoorsAreRooms, "and it is a common door of theirs");
}

#[test]
fn a_card_for_another_room_is_caught() {
    caught(Mutant::WrongRoom, "it is not a door of");
}

#[test]
fn a_doubt_that_is_told_as_written_is_caught() {
    caught(Mutant::CallsDoubtSuccess, "is told that a card is written, and none was");
}

#[test]
fn cards_that_are_good_for_longer_than_was_granted_are_caught() {
    caught(Mutant::EndsLate, "and nobody asked for that");
}

#[test]
fn another_desks_card_that_is_taken_for_ours_by_its_end_is_caught() {
    caught(Mutant::TrustsAnEnd, "a card of a newer stay was used there");
}
