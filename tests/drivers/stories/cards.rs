//! Cards and doors, where nothing is broken.

use jiff::{SignedDuration, Timestamp};
use latchd::model::{CardSeen, Code, Outcome};

use crate::{
    house::{Card, House, code, plastic, seen, word},
    makes::{NO_ROOM, StartMake},
    simulated::side::End,
};

pub(crate) async fn a_stay_after_another(make: StartMake) {
    let mut house = House::open(&[make]).await;
    let (first, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(word(&outcome), "succeeded");
    let (joiner, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(word(&outcome), "succeeded");
    let system = &house.systems[0];
    for card in [first, joiner] {
        assert!(system.opens(&plastic(card), "101").await);
        assert!(system.opens(&plastic(card), "pool").await);
        assert!(!system.opens(&plastic(card), "102").await);
        assert!(!system.opens(&plastic(card), "gym").await);
    }
    let (next, outcome) = house.make(house.card("101", "grace")).await;
    assert_eq!(word(&outcome), "succeeded");
    let system = &house.systems[0];
    // An offline lock learns of the next stay from its card.
    assert!(system.opens(&plastic(joiner), "101").await);
    assert!(system.opens(&plastic(next), "101").await);
    for card in [first, joiner] {
        assert!(!system.opens(&plastic(card), "101").await);
    }
    assert_eq!(house.judge().await.succeeded, 3);
}

pub(crate) async fn no_such_room(make: StartMake) {
    let mut house = House::open(&[make]).await;
    // The site does not know it: nobody is asked.
    let (_, outcome) = house.make(house.card("no room", "ada")).await;
    assert_eq!(word(&outcome), "failed entrance_unknown");
    assert_eq!(house.systems[0].ordered(), 0);
    // The system does not know it; where it has no word for that, its answer is a doubt.
    let (_, outcome) = house.make(house.card(NO_ROOM, "ada")).await;
    assert!(matches!(outcome, Outcome::Failed(_) | Outcome::Unknown(_)), "{outcome:?}");
    let (_, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(word(&outcome), "succeeded");
    assert_eq!(house.judge().await.succeeded, 1);
}

pub(crate) async fn no_card(make: StartMake) {
    let mut house = House::open(&[make]).await;
    let nobody_comes = house.order(house.card("101", "ada")).await;
    assert_eq!(word(&house.end(nobody_comes).await), "failed no_card");
    let (_, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(word(&outcome), "succeeded");
    house.judge().await;
}

pub(crate) async fn wrong_cards(make: StartMake) {
    let mut house = House::open(&[make]).await;
    for kind in ["foreign", "damaged"] {
        let number = house.jobs.len();
        house.systems[0].say(&format!("place {} {kind} on 1", plastic(number))).await;
        house.order(house.card("101", "ada")).await;
        let outcome = house.end(number).await;
        assert_eq!(code(&outcome), Some(Code::BadCard), "{kind}: {outcome:?}");
        assert_eq!(outcome.state().to_string(), "failed");
        house.take_away(number).await;
    }
    let (_, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(word(&outcome), "succeeded");
    house.judge().await;
}

pub(crate) async fn made_behind_our_back(make: StartMake) {
    let mut house = House::open_at(&[make], "2026-11-22T12:00:00Z", true).await;
    let (first, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(word(&outcome), "succeeded");
    // The hotel's own desk gives the room to somebody else.
    let theirs = house.systems[0].say("foreign-card-made 101").await["card"].as_str().unwrap().to_owned();
    assert!(house.systems[0].opens(&theirs, "101").await);
    let asked = house.systems[0].ordered();
    let (_, outcome) = house.make(house.card("101", "ada")).await;
    assert_eq!(outcome.state().to_string(), "failed", "{outcome:?}");
    if house.declares(0).read_card.is_some() {
        house.lay(first).await;
        assert!(matches!(
            seen(house.read("1").await),
            CardSeen::Guest { valid: false, .. } | CardSeen::Invalid
        ));
        house.take_away(first).await;
        let (_, outcome) = house.make(house.card("101", "ada")).await;
        assert_eq!(outcome.state().to_string(), "failed", "{outcome:?}");
    }
    assert_eq!(house.systems[0].ordered(), asked, "nothing was asked");
    assert!(house.systems[0].opens(&theirs, "101").await, "the other guest's card is good");
    house.judge().await;
}

/// Others make cards too, and the system says of each room which cards are good there.
pub(crate) async fn looked_at_before_a_join(make: StartMake) {
    let mut house = House::open_at(&[make], "2026-11-22T12:00:00Z", true).await;
    for stay in ["ada", "ada", "grace", "grace"] {
        let (_, outcome) = house.make(house.card("101", stay)).await;
        assert_eq!(word(&outcome), "succeeded", "{stay}: {outcome:?}");
    }
    // While it cannot be asked, nobody joins; the next stay begins.
    house.systems[0].say("web status 503").await;
    let (_, outcome) = house.make(house.card("101", "grace")).await;
    assert_eq!(code(&outcome), Some(Code::RoomStateUnknown), "{outcome:?}");
    house.crash(End::Killed).await;
    let (_, outcome) = house.make(house.card("101", "grace")).await;
    assert_eq!(word(&outcome), "succeeded", "after a restart: {outcome:?}");
    house.systems[0].say("foreign-card-made 101").await;
    let (_, outcome) = house.make(house.card("101", "grace")).await;
    assert_eq!(code(&outcome), Some(Code::NoStayToJoin), "{outcome:?}");
    let (_, outcome) = house.make(house.card("101", "grace")).await;
    assert_eq!(code(&outcome), Some(Code::RoomStateUnknown), "it is known by now: {outcome:?}");
    let (_, outcome) = house.make(house.card("101", "linus")).await;
    assert_eq!(word(&outcome), "succeeded");
    house.judge().await;
}

/// Cards over the hour that comes twice, and over the one that is left out.
pub(crate) async fn in_a_night_of_changes(make: StartMake) {
    for (evening, hour) in
        [("2026-10-24T20:00:00Z", "2026-10-25T00:00:00Z"), ("2027-03-27T20:00:00Z", "2027-03-28T00:00:00Z")]
    {
        let hour: Timestamp = hour.parse().unwrap();
        for quarter in 0..16 {
            let at = hour + SignedDuration::from_mins(quarter * 15);
            // One card ends there, the other begins there.
            let mut house = House::open_at(&[make], evening, false).await;
            let evening = house.clock.now();
            let card = house.card("101", "ada");
            let (ends, outcome) = house.make(Card { span: Some(at.duration_since(evening)), ..card }).await;
            assert_eq!(word(&outcome), "succeeded");
            let Outcome::Succeeded(success) = outcome else { unreachable!() };
            let printed_end = success.card.unwrap().printed_end.unwrap();
            let ends_at = house.jobs[ends].ends_at.unwrap();
            // To the minute, or to the hour; of an hour that comes twice, to its end.
            let most = SignedDuration::from_hours(1 + i64::from(house.systems[0].make.has_hours_only()));
            assert!(ends_at <= printed_end && printed_end <= ends_at + most, "{printed_end}");
            // Where cards open at once, none is made for later.
            let mut begins = None;
            if house.declares(0).future_start.is_some() {
                let card = Card { starts_at: at, ..house.card("102", "grace") };
                let (number, outcome) = house.make(card).await;
                assert_eq!(word(&outcome), "succeeded");
                begins = Some(number);
            }
            house.judge().await;
            let (system, after) = (&house.systems[0], SignedDuration::from_secs(1));
            system.say(&format!("clock set {}", printed_end + after)).await;
            assert!(!system.opens(&plastic(ends), "101").await, "still good after {printed_end}");
            let Some(begins) = begins else { continue };
            for later in (0..8).map(|quarter| at + SignedDuration::from_mins(15 * quarter)) {
                system.say(&format!("clock set {later}")).await;
                assert!(system.opens(&plastic(begins), "102").await, "not good at {later}, from {at} on");
            }
        }
    }
}
