//! Harmless questions to the Web API: whether it lets the user in, which doors it has, and what it lists for one of them.

use std::sync::Arc;

use jiff::civil::DateTime;
use serde_json::{Value, json};

use super::{
    call::Call,
    server::{Web, unknown_rooms},
    visit::{Errand, Result as Came},
};
use crate::{
    config::{VisionlineConfig, VisionlineWebConfig},
    drivers::{
        probe::{Exchange, Probed, Tools, Verdict, masked_text},
        wall::Wall,
    },
    model::{DoorName, Refusal, SystemName},
    transport::http::Answer,
};

const GREET: &str = "open a session of the Web API";
const DOORS: &str = "list the doors (Web API)";
const CARDS: &str = "list the cards of one room (Web API)";
/// What these exchanges are called in a record.
const PROTOCOL: &str = "visionline_web";
/// Members whose values are the lock maker's own words.
const WORDS: [&str; 3] = ["doorCategory", "operation", "format"];
/// Of a list so much is kept.
const KEPT: usize = 3;
/// Most that is kept of an answer that is no JSON, in bytes.
const KEPT_BYTES: usize = 200;
/// Most rooms that are named.
const NAMED: usize = 5;

/// Asks, and notes what was seen and what passed.
pub(in crate::drivers::visionline) async fn probe(
    probed: &mut Probed,
    config: &VisionlineConfig,
    web: &VisionlineWebConfig,
    system: &SystemName,
    tools: &Tools,
) {
    let rooms: Vec<_> = config.rooms.iter().map(|room| room.name.clone()).collect();
    let wall = Wall::new(tools.time_zone.clone());
    let now = wall.now(tools.clock.now());
    let net = Arc::clone(&tools.net);
    let server = Web::new(net, web, system.clone(), rooms.clone(), wall, tools.clock.clone());
    let mut passed = Vec::new();
    let mut keep = |call: &Call, answer: &Answer| passed.extend(scrubbed(call, answer));
    ask(probed, &server, &rooms, web, now, &mut keep).await;
    probed.beside = Some((PROTOCOL, passed));
}

async fn ask(
    probed: &mut Probed,
    server: &Web,
    rooms: &[DoorName],
    web: &VisionlineWebConfig,
    now: DateTime,
    keep: &mut (impl FnMut(&Call, &Answer) + Send),
) {
    let refused = |refusal: Refusal| (refusal.to_string(), Verdict::Wrong);
    let expected = format!("{} lets the user {:?} in", web.http.url, web.user);
    let (seen, verdict) = match server.visit_telling(Errand::Greet, &mut *keep).await {
        Came::LetIn => ("it does".to_owned(), Verdict::AsExpected),
        Came::Refused(refusal) | Came::Doubt(refusal) => refused(refusal),
        other => unreachable!("a visit for nothing does not end with {other:?}"),
    };
    if !probed.step(GREET, expected, seen, verdict) {
        return;
    }
    let expected = format!("a door for each of the {} rooms", rooms.len());
    let (seen, verdict) = match server.visit_telling(Errand::Doors, &mut *keep).await {
        Came::Doors(doors) => {
            let unknown = unknown_rooms(rooms, &doors);
            let names: Vec<_> = unknown.iter().take(NAMED).map(|room| room.as_str()).collect();
            match unknown.len() {
                0 => (format!("{} doors, all rooms among them", doors.len()), Verdict::AsExpected),
                count => (
                    format!("{} doors, and not {count} of the rooms: {}", doors.len(), names.join(", ")),
                    Verdict::Odd,
                ),
            }
        }
        Came::Refused(refusal) | Came::Doubt(refusal) => refused(refusal),
        other => unreachable!("a visit for doors does not end with {other:?}"),
    };
    if !probed.step(DOORS, expected, seen, verdict) {
        return;
    }
    let Some(room) = rooms.first() else { return };
    let errand = Errand::Cards(Call::CardsOfDoor { door: room.as_str().into(), at: now });
    let (seen, verdict) = match server.visit_telling(errand, &mut *keep).await {
        Came::Cards(cards) => {
            let live = cards.iter().filter(|card| card.is_live).count();
            let whole = cards.iter().all(|card| card.end.is_some() && !card.serials.is_empty());
            match whole {
                true => (format!("{} cards, {live} of them live", cards.len()), Verdict::AsExpected),
                false => (
                    format!(
                        "{} cards, {live} of them live, and some without an end or a chip: further cards cannot be \
                         checked by them",
                        cards.len()
                    ),
                    Verdict::Odd,
                ),
            }
        }
        Came::Refused(refusal) | Came::Doubt(refusal) => refused(refusal),
        other => unreachable!("a visit for cards does not end with {other:?}"),
    };
    probed.step(CARDS, format!("the cards that are good for room {room} now"), seen, verdict);
}

/// A call and its answer without names, numbers and secrets: names of members and the shape of their values are kept.
fn scrubbed(call: &Call, answer: &Answer) -> [Exchange; 2] {
    let exchange = |is_ours, what: String, bytes: String, decoded| Exchange {
        is_ours,
        what,
        bytes: bytes.into_bytes(),
        decoded,
    };
    let resource = call.resource();
    let resource = match (call, resource.split_once('?')) {
        (Call::SignOut { .. } | Call::Card { .. }, _) => {
            let (path, id) = resource.rsplit_once('/').unwrap_or_default();
            format!("{path}/{}", masked_text(id))
        }
        (_, Some((path, query))) => {
            let pairs: Vec<_> = query
                .split('&')
                .map(|pair| match pair.split_once('=') {
                    Some((name, "true" | "false")) => format!("{name}={}", &pair[name.len() + 1..]),
                    Some((name, value)) => format!("{name}={}", masked_text(value)),
                    None => masked_text(pair),
                })
                .collect();
            format!("{path}?{}", pairs.join("&"))
        }
        (_, None) => resource,
    };
    let asked = format!("{} {resource}", call.method());
    let body = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(body) => masked_json(&body, None),
        Err(_) => {
            masked_text(&String::from_utf8_lossy(&answer.body[..answer.body.len().min(KEPT_BYTES)])).into()
        }
    };
    let said = format!("HTTP {}\n{body}", answer.status);
    let heads = json!({ "status": answer.status, "content_type": answer.content_type, "body": body });
    [
        exchange(true, asked.clone(), asked.clone(), json!({ "asked": asked })),
        exchange(false, format!("HTTP {}", answer.status), said, heads),
    ]
}

fn masked_json(value: &Value, name: Option<&str>) -> Value {
    match value {
        Value::String(text) if name.is_some_and(|name| WORDS.contains(&name)) => text.clone().into(),
        Value::String(text) => masked_text(text).into(),
        Value::Number(_) => 0.into(),
        Value::Array(all) => all.iter().take(KEPT).map(|one| masked_json(one, name)).collect(),
        Value::Object(all) => {
            all.iter().map(|(name, value)| (name.clone(), masked_json(value, Some(name)))).collect()
        }
        Value::Bool(_) | Value::Null => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_call_and_its_answer_says_nothing_of_guests_and_secrets() {
        let answer =
            |status, body: &str| Answer { status, content_type: None, date: None, body: body.into() };
        let check = |call: Call, body: &str, asked: &str, said: &str| {
            let [ours, theirs] = scrubbed(&call, &answer(200, body));
            assert_eq!(String::from_utf8(ours.bytes).unwrap(), asked);
            assert_eq!(String::from_utf8(theirs.bytes).unwrap(), format!("HTTP 200\n{said}"));
        };
        check(Call::SignOut { session: "5f0c-Zz".into() }, "", "DELETE /api/v1/sessions/0x0x-Xx", r#""""#);
        check(
            Call::CardsOfDoor { door: "Ada's".into(), at: jiff::civil::date(2026, 11, 21).at(15, 0, 0, 0) },
            r#"[{"id":"100060"},{"id":"100061"},{"id":"1"},{"id":"2"}]"#,
            "GET /api/v1/cards?guestDoor=Xxx%00x&validTime=00000000X0000",
            r#"[{"id":"000000"},{"id":"000000"},{"id":"0"}]"#,
        );
        check(
            Call::Card { id: "100060".into() },
            r#"{"cardHolder":"Lovelace, Ada","doorOperations":[{"doors":["101"],"operation":"guest"}],"n":42,"overridden":false}"#,
            "GET /api/v1/cards/000000",
            r#"{"cardHolder":"Xxxxxxxx, Xxx","doorOperations":[{"doors":["000"],"operation":"guest"}],"n":0,"overridden":false}"#,
        );
    }
}
