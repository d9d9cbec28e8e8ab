//! The whole system in one process, under simulated time, network and disks: one seed in, one history out.
//!
//! Cloud and agent are killed, lose their power, are put back from backups, have wrong clocks and full disks; roads break;
//! devices are silent, slow or wrong. People order at the cloud and at the site, take back, pause lanes and settle doubts.
//! In some seeds cards are ordered at the cloud's HTTP API as well, and in some others make cards at the same lock server.
//!
//! In one of eight the agent's machine is put back to an older moment without anybody saying so: where the cloud can know it,
//! and says it within the time for which an agent that starts holds its jobs, at its first start or at the next one.
//!
//! In one of sixteen the agent is put back and told so, and the cloud soon after it and not: then it orders again what both
//! have forgotten. All of that may happen more than once in a history. In one of sixteen the agent's box may be replaced by a
//! blank one as well, which is paired anew and takes over what the cloud knows of the doors: half of these are among those
//! where the cloud follows.
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

use judge::Tally;
use mutant::Mutant;
use simulated::play::Game;

/// How many seeds an ordinary run plays.
const SEEDS: u64 = 300;
/// How many it takes to see what a broken part breaks.
const MUTANT_SEEDS: u64 = 128;

const GAME: Game<Mutant, Tally> =
    Game { play: world::play, one: "LATCHD_SEED", many: "LATCHD_SEEDS", first: "LATCHD_FIRST_SEED" };

#[test]
fn whatever_goes_wrong_no_job_is_lost_done_twice_or_reported_as_it_was_not() {
    GAME.play(SEEDS);
}

#[test]
fn a_seed_gives_the_same_history_every_time() {
    GAME.repeats();
}

/// Some seed breaks the promise in these words.
fn caught(mutant: Mutant, words: &str) {
    GAME.catches(0..MUTANT_SEEDS, mutant, words);
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
fn an_agent_that_forgets_that_its_memory_was_set_back_is_caught() {
    // Only in these is the cloud put back after the agent, and in few of them is a card ordered again of which nobody
    // knows any more.
    GAME.catches(
        (9..).step_by(16).take(MUTANT_SEEDS as usize),
        Mutant::ForgetsItWasSetBack,
        "was written 2 times",
    );
}

#[test]
fn an_agent_that_forgets_with_its_next_start_that_its_memory_may_be_an_old_one_is_caught() {
    // Only these put an agent back unnoticed, and few of them start it twice before it meets its cloud.
    GAME.catches(
        (445..).step_by(8).take(MUTANT_SEEDS as usize),
        Mutant::ForgetsItMetNobody,
        "which the agent had taken at the site",
    );
}
