//! The dialects of whole hours: every byte of a frame written by hand, after the published ones.

use std::time::Duration;

use jiff::Timestamp;
use latchd::{
    drivers::{Driver, Work, salto_is::SaltoIs},
    model::{CardEncode, CardFacts, DoorName, Order, ReservationKey, StayModify, Treatment, Window},
};

use crate::{desk::*, memory::Site};

/// A first card of Onity's, as it is published: no start, the end in whole hours, `0D` in the place of the check.
const ONITY_FIRST: &[u8] =
    b"\x02\xb3CN\xb31\xb3E\xb3101\xb3\xb3\xb3\xb312\xb3\xb3\xb311241126\xb3BRIDGE\xb3\xb3\xb3\x03\x0d";

/// How long is waited for bytes that must not come.
const A_WHILE: Duration = Duration::from_secs(20);

/// A card whose time has come, and its end.
fn begun(ends_at: &str) -> CardEncode {
    CardEncode { window: Window::new(at("2026-11-20T07:00:00Z"), Some(at(ends_at))).unwrap(), ..card() }
}

/// A frame that nobody checks.
fn unchecked(fields: &str) -> Vec<u8> {
    let mut bytes = frame(fields);
    *bytes.last_mut().unwrap() = 0x0d;
    bytes
}

/// The end that is told of a card, if these are the bytes of an order's command.
async fn done(dialect: &str, work: Work, command: &[u8], answer: &str) -> Option<Timestamp> {
    told(dialect, work, command, answer).await.and_then(|card| card.printed_end)
}

/// What is told of a card.
async fn told(dialect: &str, work: Work, command: &[u8], answer: &str) -> Option<CardFacts> {
    let mut site = Site::open_with(dialect).await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    let performed = perform(&site.driver, work, server.serve(command, answer)).await;
    success(performed).card
}

/// How an order ends of which no byte may leave, and what its driver says before.
async fn refused(dialect: &str, work: Work) -> String {
    let mut site = Site::open_with(dialect).await;
    let mut server = site.accept().await;
    ready(&site.driver).await;
    assert!(site.driver.admit(&work.order).is_err(), "{work:?}");
    let performed = perform(&site.driver, work, async {}).await;
    let heard = tokio::time::timeout(A_WHILE, server.expect(ENQ)).await;
    assert!(heard.is_err(), "a byte has left");
    end(&performed)
}

fn two_rooms() -> CardEncode {
    CardEncode { doors: ["101", "102"].map(door).into(), ..begun("2026-11-24T10:00:00Z") }
}

fn modify(ends_at: &str) -> Work {
    let stay = StayModify {
        room: DoorName::new("101").unwrap(),
        to_room: None,
        reservation_key: ReservationKey::new("stay").unwrap(),
        ends_at: at(ends_at),
    };
    work(Order::StayModify(stay), Treatment::Plain)
}

fn check_out() -> Work {
    let (room, reservation_key) = (door("101"), ReservationKey::new("stay").unwrap());
    work(Order::StayCheckout { room, reservation_key }, Treatment::Plain)
}

const ONITY: &str = "dialect = \"onity\"";

#[tokio::test(start_paused = true)]
async fn onity_gets_its_cards_as_they_are_published_and_what_is_printed_is_told() {
    let eleven = at("2026-11-24T10:00:00Z");
    for (ends_at, rounding, printed) in [
        ("2026-11-24T10:00:00Z", "inside", eleven),
        ("2026-11-24T10:59:59Z", "inside", eleven),
        ("2026-11-24T09:30:00Z", "outside", eleven),
    ] {
        let more = format!("{ONITY}\nhour_rounding = \"{rounding}\"");
        let told = done(&more, override_with(begun(ends_at)), ONITY_FIRST, "CN|1").await;
        assert_eq!(told, Some(printed), "{ends_at} {rounding}");
    }
    let join = work(Order::CardEncode(begun("2026-11-24T09:20:00Z")), Treatment::Join);
    let mut copy = ONITY_FIRST.to_vec();
    copy[3] = b'C';
    assert_eq!(done(ONITY, join, &copy, "CC|1").await, Some(eleven));
    done(ONITY, modify("2026-11-24T09:20:00Z"), &unchecked("MC|101||11241126"), "MC|101").await;
    done(ONITY, check_out(), &unchecked("CO|0|101"), "CO|0").await;
    done(ONITY, read(), &unchecked("LT|1|E"), "LT|1|101||||CI|0|12|15211126|11241126|BRIDGE").await;
}

#[tokio::test(start_paused = true)]
async fn what_onity_cannot_say_is_refused_before_a_byte_leaves() {
    // It would open at once.
    assert_eq!(refused(ONITY, override_with(card())).await, "failed bad_dates");
    assert_eq!(refused(ONITY, override_with(two_rooms())).await, "failed too_many_doors");
    // Not one whole hour: it is nine o'clock there.
    let short = begun("2026-11-20T08:59:00Z");
    let inside = format!("{ONITY}\nhour_rounding = \"inside\"");
    assert_eq!(refused(&inside, override_with(short.clone())).await, "failed bad_dates");
    let frame = unchecked("CN|1|E|101||||12|||10201126|BRIDGE||");
    let told = done(ONITY, override_with(short), &frame, "CN|1").await;
    assert_eq!(told, Some(at("2026-11-20T09:00:00Z")));
}

#[tokio::test(start_paused = true)]
async fn salto_in_whole_hours_opens_within_what_was_granted_or_in_all_of_it() {
    let granted = Window::new(at("2026-11-21T13:30:00Z"), Some(at("2026-11-24T10:30:00Z"))).unwrap();
    for (rounding, start, end, printed) in [
        ("inside", "15211126", "11241126", "2026-11-24T10:00:00Z"),
        ("outside", "14211126", "12241126", "2026-11-24T11:00:00Z"),
    ] {
        let command = frame(&format!("CN1|1|E|101||||12||{start}|{end}|BRIDGE||||1"));
        let dialect = format!("dialect = \"salto_hours\"\nhour_rounding = \"{rounding}\"");
        let work = override_with(CardEncode { window: granted, ..card() });
        assert_eq!(done(&dialect, work, &command, "CN1|1").await, Some(at(printed)), "{rounding}");
    }
    // Its hours begin and end within one.
    let hour = Window::new(at("2026-11-21T13:30:00Z"), Some(at("2026-11-21T14:30:00Z"))).unwrap();
    let hour = override_with(CardEncode { window: hour, ..card() });
    let inside = "dialect = \"salto_hours\"\nhour_rounding = \"inside\"";
    assert_eq!(refused(inside, hour).await, "failed bad_dates");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_rounded_is_told_as_it_is_printed() {
    let granted = Window::new(at("2026-11-21T13:30:00Z"), Some(at("2026-11-24T10:30:00Z"))).unwrap();
    let to_come = override_with(CardEncode { window: granted, ..card() });
    for (rounding, start, end, opens_at) in [
        ("inside", "15211126", "11241126", "2026-11-21T14:00:00Z"),
        ("outside", "14211126", "12241126", "2026-11-21T13:00:00Z"),
    ] {
        let command = frame(&format!("CN1|1|E|101||||12||{start}|{end}|BRIDGE||||1"));
        let dialect = format!("dialect = \"salto_hours\"\nhour_rounding = \"{rounding}\"");
        let card = told(&dialect, to_come.clone(), &command, "CN1|1").await.unwrap();
        assert_eq!(card.printed_start, Some(at(opens_at)), "{rounding}");
    }
    // In minutes: the seconds are gone.
    let seconds = Window::new(at("2026-11-21T13:30:59Z"), Some(at("2026-11-24T10:30:00Z"))).unwrap();
    let work = override_with(CardEncode { window: seconds, ..card() });
    let command = frame("CN1|1|E|101||||12||1430211126|1130241126|BRIDGE||||1");
    let card = told("", work, &command, "CN1|1").await.unwrap();
    assert_eq!(card.printed_start, Some(at("2026-11-21T13:30:00Z")));
    // Once it has come, no start stands on the wire, and the card opens at once.
    let card = told(ONITY, override_with(begun("2026-11-24T10:00:00Z")), ONITY_FIRST, "CN|1").await.unwrap();
    assert_eq!(card.printed_start, None);
}

const AMADEUS: &str = "dialect = \"amadeus_st40\"";

#[tokio::test(start_paused = true)]
async fn amadeus_has_no_eject_field_and_a_reading_of_its_own() {
    let card = begun("2026-11-24T10:00:00Z");
    let command = unchecked("CN|1||101||||12|||11241126|BRIDGE||");
    let told = done(AMADEUS, override_with(card), &command, "CN|1").await;
    assert_eq!(told, Some(at("2026-11-24T10:00:00Z")));
    done(AMADEUS, check_out(), &unchecked("CO|101"), "CO|101").await;
    let shown = "|1|101||||CI|0|12|15211126|11241126|BRIDGE";
    for name in ["LT", "LTE"] {
        done(AMADEUS, read(), &unchecked("LTE|1|"), &format!("{name}{shown}")).await;
    }
    assert_eq!(refused(AMADEUS, modify("2026-11-24T10:00:00Z")).await, "failed unsupported");
}

#[tokio::test(start_paused = true)]
async fn only_amadeus_may_refuse_a_frame_with_0f() {
    for (dialect, command, expected) in [
        (AMADEUS, unchecked("CN|1||101||||12|||11241126|BRIDGE||"), true),
        (ONITY, ONITY_FIRST.to_vec(), false),
    ] {
        let mut site = Site::open_with(dialect).await;
        let mut server = site.accept().await;
        ready(&site.driver).await;
        let script = async {
            server.answer_poll().await;
            server.expect(&command).await;
            server.say(b"\x0f").await;
            if expected {
                server.serve(&command, "CN|1").await;
            }
        };
        let work = override_with(begun("2026-11-24T10:00:00Z"));
        let performed = perform(&site.driver, work, script).await;
        let ends = if expected { "succeeded" } else { "unknown no_answer" };
        assert_eq!(end(&performed), ends, "{dialect}");
    }
}

#[tokio::test]
async fn names_and_settings_that_a_dialect_cannot_have_are_told() {
    let config = config("tcp = \"salto.lan:8090\"", ONITY);
    let mistakes = SaltoIs::mistakes(&config);
    assert!(mistakes.iter().any(|it| it.contains("\"Desk 2\"") && it.contains("number")), "{mistakes:?}");
}
