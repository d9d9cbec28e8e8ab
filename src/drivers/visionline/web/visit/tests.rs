//! Visits, played by hand.

use std::io;

use jiff::civil::date;

use super::*;
use crate::drivers::visionline::web::call::Standing;

fn visit(errand: Errand) -> Visit {
    Visit::new("bridge", Private::new("secret"), errand)
}

fn says(status: u16, body: &str) -> std::result::Result<http::Answer, HttpError> {
    Ok(http::Answer { status, content_type: None, date: None, body: body.into() })
}

fn breaks(may_have_left: bool) -> std::result::Result<http::Answer, HttpError> {
    let why = Failure::Lost(io::ErrorKind::ConnectionReset.into());
    Err(HttpError { url: "https://visionline/".into(), may_have_left, why })
}

/// Plays answers, and gives the calls that were made, by verb and path, each with the session that signed it.
fn played(
    errand: Errand,
    answers: &[std::result::Result<http::Answer, HttpError>],
) -> (Vec<String>, Option<Result>) {
    let mut visit = visit(errand);
    let mut calls = Vec::new();
    for answer in answers {
        let (call, key) = visit.next().expect("it asks for every answer that is played");
        let signed = key.map_or("-", |key| key.id.as_str());
        calls.push(format!("{signed} {} {}", call.method(), call.resource()));
        visit.heard(answer);
    }
    assert!(visit.next().is_none(), "it is over, and asks {:?}", visit.next());
    (calls, visit.result())
}

const OPENED: &str = r#"{"id":"s1","accessKey":"k1"}"#;
const OPENED_AGAIN: &str = r#"{"id":"s2","accessKey":"k2"}"#;

fn phone_key() -> Errand {
    Errand::PhoneKey(PhoneKey {
        standing: Standing::Override,
        endpoint: "guest-84711".into(),
        label: "%ROOMRANGE%".into(),
        description: "Example Hotel".into(),
        doors: vec!["101".into()],
        start: None,
        end: date(2026, 11, 24).at(11, 0, 0, 0),
    })
}

fn cards() -> Errand {
    Errand::Cards(Call::CardsOfDoor { door: "101".into(), at: date(2026, 11, 21).at(15, 0, 0, 0) })
}

#[test]
fn a_session_is_opened_for_the_work_and_closed_behind_it() {
    let (calls, result) =
        played(phone_key(), &[says(201, OPENED), says(201, r#"{"credentialId":"7042"}"#), says(201, "")]);
    assert_eq!(
        calls,
        [
            "- POST /api/v1/sessions",
            "s1 POST /api/v1/cards?action=mobileAccess&override=true",
            "s1 DELETE /api/v1/sessions/s1",
        ]
    );
    assert_eq!(result, Some(Result::Made("7042".into())));
    let (calls, result) = played(Errand::Greet, &[says(201, OPENED), breaks(true)]);
    assert_eq!((calls.len(), result), (2, Some(Result::LetIn)), "a session that is not closed harms nobody");
}

#[test]
fn every_listed_card_is_looked_at() {
    let card = |id: &str, overridden: bool| {
        says(200, &format!(r#"{{"id":"{id}","overridden":{overridden},"expireTime":"20261124T1100"}}"#))
    };
    let (calls, result) = played(
        cards(),
        &[
            says(201, OPENED),
            says(200, r#"[{"id":"1"},{"id":"2"}]"#),
            card("1", true),
            card("2", false),
            says(200, ""),
        ],
    );
    assert_eq!(calls[2..4], ["s1 GET /api/v1/cards/1", "s1 GET /api/v1/cards/2"]);
    let Some(Result::Cards(seen)) = result else { panic!("{result:?}") };
    assert_eq!(
        seen.iter().map(|card| (card.id.as_str(), card.is_live)).collect::<Vec<_>>(),
        [("1", false), ("2", true)]
    );
    let (_, result) = played(cards(), &[says(201, OPENED), says(200, "[]"), says(200, "")]);
    assert_eq!(result, Some(Result::Cards(Vec::new())));
    let wrong = [says(201, OPENED), says(200, r#"[{"id":"1"}]"#), card("2", false), says(200, "")];
    let (_, result) = played(cards(), &wrong);
    assert!(matches!(result, Some(Result::Refused(_))), "another card is no answer: {result:?}");
}

#[test]
fn a_session_that_is_no_longer_good_is_opened_once_more_and_not_twice() {
    let gone = || says(401, "");
    let (calls, result) = played(
        phone_key(),
        &[
            says(201, OPENED),
            gone(),
            says(201, OPENED_AGAIN),
            says(201, r#"{"credentialId":"7042"}"#),
            says(201, ""),
        ],
    );
    assert_eq!(calls[3], "s2 POST /api/v1/cards?action=mobileAccess&override=true");
    assert_eq!(calls[4], "s2 DELETE /api/v1/sessions/s2");
    assert_eq!(result, Some(Result::Made("7042".into())));

    let (_, result) =
        played(phone_key(), &[says(201, OPENED), gone(), says(201, OPENED_AGAIN), gone(), says(201, "")]);
    assert!(matches!(&result, Some(Result::Refused(why)) if why.code == Code::Auth), "{result:?}");
    let (_, result) = played(phone_key(), &[gone()]);
    assert!(matches!(&result, Some(Result::Refused(why)) if why.code == Code::Auth), "{result:?}");
}

#[test]
fn silence_after_a_key_was_asked_for_is_a_doubt_and_before_it_is_none() {
    let doubt = |answers: &[_]| {
        let (_, result) = played(phone_key(), answers);
        match result {
            Some(Result::Doubt(_)) => true,
            Some(Result::Refused(_)) => false,
            other => panic!("{other:?}"),
        }
    };
    assert!(doubt(&[says(201, OPENED), breaks(true)]));
    assert!(doubt(&[says(201, OPENED), says(500, ""), says(200, "")]));
    assert!(doubt(&[says(201, OPENED), says(201, "{}"), says(200, "")]), "made, but nobody knows what");
    assert!(!doubt(&[says(201, OPENED), breaks(false)]));
    assert!(!doubt(&[breaks(true)]), "a session is not a key");
    assert!(!doubt(&[says(201, OPENED), says(409, ""), says(200, "")]));
    assert!(!doubt(&[says(201, "<html>")]));
    let (_, result) = played(cards(), &[says(201, OPENED), breaks(true)]);
    assert!(matches!(result, Some(Result::Refused(_))), "reading leaves no doubt: {result:?}");
}

#[test]
fn a_list_without_end_is_not_followed() {
    let many: Vec<_> = (0..=MOST_CARDS).map(|id| format!(r#"{{"id":"{id}"}}"#)).collect();
    let list = format!("[{}]", many.join(","));
    let (calls, result) = played(cards(), &[says(201, OPENED), says(200, &list), says(200, "")]);
    assert_eq!(calls.len(), 3);
    assert!(matches!(result, Some(Result::Refused(_))));
}
