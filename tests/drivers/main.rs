//! One suite for every driver that makes cards, whatever its wire: what a desk orders goes through the agent's own queue,
//! dispatcher and driver to the system's simulator, and is judged there, by which cards were written and which doors they
//! open. What a driver declares must be so; what it does not declare is refused before a byte of it leaves.
//!
//! The verdict after each story: success only where exactly that card was written, once; `unknown` only where bytes may
//! have left; never failed and done; never done twice.
//!
//! A further make is described in `makes`, and gets the whole suite by one line at the end of this file.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as the tests themselves do")]

mod house;
mod makes;
#[path = "../simulated/mod.rs"]
#[expect(dead_code, reason = "another test needs more of it")]
mod simulated;
mod stories;
mod wire;

/// Plays a story under simulated time.
fn play(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(story);
}

macro_rules! behaves {
    ($make:ident) => {
        mod $make {
            use crate::{makes::$make::start, play, stories::*};

            #[test]
            fn a_first_card_overrides_and_further_ones_join() {
                play(cards::a_stay_after_another(start));
            }

            #[test]
            fn a_room_that_is_not_there_gets_no_card() {
                play(cards::no_such_room(start));
            }

            #[test]
            fn without_a_card_nothing_is_done_and_the_next_one_is() {
                play(cards::no_card(start));
            }

            #[test]
            fn a_card_that_is_no_guests_is_not_written() {
                play(cards::wrong_cards(start));
            }

            #[test]
            fn cards_of_another_desk_are_not_joined() {
                play(cards::made_behind_our_back(start));
            }

            #[test]
            fn in_the_night_of_a_change_of_clocks_cards_open_when_they_should() {
                play(cards::in_a_night_of_changes(start));
            }

            #[test]
            fn what_is_declared_is_done_and_what_is_not_is_refused_before_any_byte() {
                play(declared::everything(start));
            }

            #[test]
            fn encoders_work_side_by_side_only_where_that_is_declared() {
                play(declared::encoders_side_by_side(start));
            }

            #[test]
            fn a_busy_encoder_is_told_and_nothing_is_written() {
                play(trouble::busy(start));
            }

            #[test]
            fn an_encoder_that_is_away_holds_up_no_other() {
                play(trouble::an_encoder_away(start));
            }

            #[test]
            fn a_system_that_is_away_gets_its_cards_when_it_is_back() {
                play(trouble::away(start));
            }

            #[test]
            fn a_slow_line_is_no_doubt() {
                play(trouble::slow(start));
            }

            #[test]
            fn a_line_that_is_cut_at_any_byte_makes_no_lie() {
                play(trouble::cut_at_every_byte(start));
            }

            #[test]
            fn an_answer_after_the_deadline_is_nobodys() {
                play(trouble::late_answers(start));
            }

            #[test]
            fn an_encoder_in_doubt_rests_and_no_job_is_marked_as_sent_to_it() {
                play(trouble::rests_without_a_mark(start));
            }

            #[test]
            fn a_card_laid_down_after_the_deadline_is_not_the_next_guests() {
                play(trouble::late_cards(start));
            }

            #[test]
            fn one_system_knows_nothing_of_another_ones_trouble() {
                play(trouble::two_systems(start));
            }

            #[test]
            fn an_agent_that_dies_at_any_step_does_nothing_twice() {
                play(trouble::deaths(start));
            }

            #[test]
            fn a_thousand_cards_under_random_faults_end_as_they_were() {
                play(many::a_thousand_cards(start));
            }
        }
    };
}

behaves!(kaba_messenger);
behaves!(salto_is);
behaves!(salto_hours);
behaves!(onity);
behaves!(amadeus_st40);
behaves!(visionline);
behaves!(visionline_web);

#[test]
fn where_the_system_lists_its_cards_others_may_make_some_and_further_cards_join() {
    play(stories::cards::looked_at_before_a_join(makes::visionline_web::start));
}
