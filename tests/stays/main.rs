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

use model::Tally;
use mutant::Mutant;
use simulated::play::Game;

/// How many histories an ordinary run plays.
const HISTORIES: u64 = 350;
/// How many it takes to see what a broken part breaks.
const MUTANT_HISTORIES: u64 = 250;

const GAME: Game<Mutant, Tally> = Game {
    play: story::play,
    one: "LATCHD_HISTORY",
    many: "LATCHD_HISTORIES",
    first: "LATCHD_FIRST_HISTORY",
};

#[test]
fn doors_open_for_whom_they_should_and_for_nobody_else() {
    GAME.play(HISTORIES);
}

#[test]
fn a_seed_gives_the_same_history_every_time() {
    GAME.repeats();
}

/// Some seed breaks the promise in these words.
fn caught(mutant: Mutant, words: &str) {
    GAME.catches(0..MUTANT_HISTORIES, mutant, words);
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

#[test]
fn another_desks_card_that_settles_our_doubt_is_caught() {
    caught(Mutant::LetsAForeignCardSettle, "is told that a card is written, and none was");
}

#[test]
fn a_lost_card_that_stays_good_although_another_was_to_throw_it_out_is_caught() {
    caught(Mutant::JoinsInPlaceOfALostCard, "a card of a newer stay was used there");
}

#[test]
fn a_cloud_that_calls_cards_written_that_are_thrown_out_is_caught() {
    caught(Mutant::CallsThrownOutWritten, "is written to the cloud, and EncodingRequired here");
}

#[test]
fn an_agent_that_keeps_grants_of_its_desk_to_itself_is_caught() {
    caught(Mutant::KeepsGrantsToItself, "the cloud does not know of the grant of");
}

#[test]
fn a_lock_server_that_is_told_an_end_that_nobody_asked_for_is_caught() {
    caught(Mutant::TellsAnotherEnd, "asked for that");
}

#[test]
fn a_lock_server_that_does_not_hear_of_a_later_end_is_caught() {
    caught(Mutant::TellsOneEnd, "the lock server takes");
}
