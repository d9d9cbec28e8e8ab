//! What goes wrong on the road and at the system.

use std::time::Duration;

use latchd::model::{Code, JobState};
use tokio::time::{Instant, sleep};

use crate::{
    house::{CARD_WAIT, Card, House, code, word},
    makes::{Fault, StartMake},
    simulated::side::{End, MOST_STEPS},
    wire::Faults,
};

/// Longer than any driver waits for an answer.
const TOO_LATE: Duration = Duration::from_secs(100);

/// How long every make rests after a command without an answer, where nothing else is said.
const REST: Duration = Duration::from_secs(30);

pub(crate) async fn busy(make: StartMake) {
    let mut house = House::open(&[make]).await;
    house.systems[0].say(&house.systems[0].make.fault(Fault::Busy)).await;
    let (_, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(word(&outcome), "failed encoder_busy");
    let (_, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(word(&outcome), "succeeded");
    assert_eq!(house.judge().await.not_done, 1);
}

pub(crate) async fn an_encoder_away(make: StartMake) {
    let mut house = House::open(&[make]).await;
    house.systems[0].say("unplug encoder 1").await;
    let away = house.order(house.card("101", "ada")).await;
    let there = Card { encoder: "2".into(), ..house.card("102", "grace") };
    let there = house.order(there).await;
    for card in [away, there] {
        house.lay(card).await;
    }
    assert_eq!(word(&house.end(away).await), "failed encoder_offline");
    assert_eq!(word(&house.end(there).await), "succeeded");
    house.take_away(away).await;
    house.systems[0].say("replug encoder 1").await;
    let (_, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(word(&outcome), "succeeded");
    house.judge().await;
}

pub(crate) async fn away(make: StartMake) {
    let mut house = House::open(&[make]).await;
    house.systems[0].wire.set(Faults { is_down: true, ..Faults::default() });
    let in_time = house.order(house.card("101", "ada")).await;
    let too_late = Card { expires_in: 20, ..house.card("102", "grace") };
    let too_late = house.order(too_late).await;
    assert_eq!(house.end(too_late).await.state(), JobState::Expired);
    assert_eq!(house.systems[0].ordered(), 0);
    house.systems[0].wire.set(Faults::default());
    house.lay(in_time).await;
    assert_eq!(word(&house.end(in_time).await), "succeeded");
    house.judge().await;
}

pub(crate) async fn slow(make: StartMake) {
    let mut house = House::open(&[make]).await;
    house.systems[0].wire.set(Faults { slow: Duration::from_millis(200), ..Faults::default() });
    for room in ["101", "102"] {
        let (_, outcome) = house.make(house.card(room, room)).await;
        assert_eq!(word(&outcome), "succeeded");
    }
    house.judge().await;
}

/// The bytes both ways are counted; whichever of them is the last one to pass, nobody is told what is not so.
pub(crate) async fn cut_at_every_byte(make: StartMake) {
    let (mut before, mut doubts, mut ends) = (0, 0, 0);
    for bytes in 0.. {
        let mut house = House::open(&[make]).await;
        house.systems[0].wire.set(Faults { cut_after: Some(bytes), ..Faults::default() });
        let (number, outcome) = house.make(house.card("101", "ada")).await;
        // Whatever was heard of the first card, the next stay's comes to a good end.
        let is_cut = house.systems[0].wire.is_cut();
        house.systems[0].wire.set(Faults::default());
        let attempts = house.job(house.jobs[number].id).await.unwrap().view.attempt;
        assert!(
            matches!(outcome.state(), JobState::Succeeded | JobState::Unknown),
            "cut at {bytes}: {outcome:?}"
        );
        before += usize::from(1 < attempts);
        doubts += usize::from(outcome.state() == JobState::Unknown);
        let (_, next) = house.make(house.card("102", "grace")).await;
        assert_eq!(word(&next), "succeeded", "after a cut at {bytes}");
        house.judge().await;
        ends += usize::from(!is_cut);
        // Those that lie behind the conversation cut none of it.
        if ends == 3 {
            break;
        }
    }
    assert!(40 < doubts, "only {doubts} doubts, {before} times nothing had left");
}

pub(crate) async fn late_answers(make: StartMake) {
    // Nothing at all comes in time, or the last word is late.
    for is_deaf in [true, false] {
        let mut house = House::open(&[make]).await;
        if is_deaf {
            let late_until = Some(Instant::now() + TOO_LATE);
            house.systems[0].wire.set(Faults { late_until, ..Faults::default() });
        } else {
            house.systems[0].say(&house.systems[0].make.fault(Fault::Late(TOO_LATE))).await;
        }
        let (_, outcome) = house.make(house.card("101", "ada")).await;
        // Where nothing left before somebody answered, it was tried again.
        assert!(is_deaf || outcome.state() == JobState::Unknown, "{outcome:?}");
        // Nobody lays a card down for the next one: whatever says that it is written speaks of the first.
        let next = house.order(house.card("102", "grace")).await;
        assert_eq!(code(&house.end(next).await), Some(Code::NoCard));
        house.judge().await;
    }
}

/// While an encoder may still be at work on a command without an answer, nothing is marked as sent to it.
pub(crate) async fn rests_without_a_mark(make: StartMake) {
    let mut house = House::open(&[make]).await;
    house.systems[0].say(&house.systems[0].make.fault(Fault::Late(TOO_LATE))).await;
    let (doubted, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(outcome.state(), JobState::Unknown, "{outcome:?}");
    let (number, outcome) = house.make(house.card("102", "grace")).await;
    assert_eq!(word(&outcome), "succeeded");
    let doubted_at = house.job(house.jobs[doubted].id).await.unwrap().view.ended_at.unwrap();
    let next = house.job(house.jobs[number].id).await.unwrap().view;
    let rested = next.sent_at.unwrap().duration_since(doubted_at);
    assert!(REST <= rested.unsigned_abs(), "after {rested}");
    assert_eq!(next.attempt, 1);
    house.judge().await;
}

/// The system waits longer for a card than the agent does for its answer. What is asked of the encoder meanwhile waits or
/// is refused as busy; what is laid down for the next guest is never written as the last one's.
pub(crate) async fn late_cards(make: StartMake) {
    let mut house = House::open(&[make]).await;
    let longer = u64::from(CARD_WAIT) * 1000 + 20_000;
    house.systems[0].say(&format!("set card-wait {longer}")).await;
    let first = house.order(house.card("101", "ada")).await;
    assert_eq!(house.end(first).await.state(), JobState::Unknown);
    let next = house.order(house.card("102", "grace")).await;
    house.is_busy(0, "1", false).await;
    let is_refused = house.job(house.jobs[next].id).await.unwrap().view.state.is_over();
    if !is_refused {
        house.is_busy(0, "1", true).await;
        house.lay(next).await;
    }
    let wanted = if is_refused { "failed encoder_busy" } else { "succeeded" };
    assert_eq!(word(&house.end(next).await), wanted);
    let tally = house.judge().await;
    assert_eq!((tally.unknown, tally.unknown_written), (1, 0));
}

pub(crate) async fn two_systems(make: StartMake) {
    let mut house = House::open(&[make, make]).await;
    house.systems[0].wire.set(Faults { is_down: true, ..Faults::default() });
    let waits = house.order(house.card("101", "ada")).await;
    let there = Card { system: 1, ..house.card("101", "grace") };
    let (_, outcome) = house.make(there.clone()).await;
    assert_eq!(word(&outcome), "succeeded");
    // Both at once.
    house.systems[0].wire.set(Faults::default());
    let other = house.order(Card { doors: vec!["102".into()], stay: "barbara".into(), ..there }).await;
    house.lay(waits).await;
    house.lay(other).await;
    for card in [waits, other] {
        assert_eq!(word(&house.end(card).await), "succeeded");
    }
    assert_eq!(house.judge().await.succeeded, 3);
}

/// The agent dies while a card is made, at one of its steps or another, and is started again.
pub(crate) async fn deaths(make: StartMake) {
    let ends = [End::Killed, End::Power, End::PowerAndCache];
    let mut doubts = 0;
    for steps in (0..240).step_by(4) {
        let mut house = House::open(&[make]).await;
        house.doom(steps);
        let number = house.order(house.card("101", "ada")).await;
        sleep(Duration::from_secs(1)).await;
        house.lay(number).await;
        sleep(Duration::from_secs(5)).await;
        match house.is_dead() {
            true => house.crash(ends[steps as usize / 4 % ends.len()]).await,
            false => house.doom(MOST_STEPS),
        }
        house.rest().await;
        if let Some(detail) = house.job(house.jobs[number].id).await {
            doubts += usize::from(detail.view.state == JobState::Unknown);
        }
        house.take_away(number).await;
        let (_, outcome) = house.make(house.card("102", "grace")).await;
        assert_eq!(word(&outcome), "succeeded", "after a death at step {steps}");
        house.judge().await;
        if !house.has_crashed && 40 < steps {
            break;
        }
    }
    assert!(0 < doubts, "the agent never died while a command was under way");
}
