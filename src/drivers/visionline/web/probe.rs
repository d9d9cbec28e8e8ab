//! Harmless questions to the Web API: whether it lets the user in, which doors it has, and what it lists for one of them.

use std::sync::Arc;

use super::{
    call::Call,
    server::{Web, unknown_rooms},
    visit::{Errand, Result as Came},
};
use crate::{
    config::{VisionlineConfig, VisionlineWebConfig},
    drivers::{
        probe::{Probed, Tools, Verdict},
        wall::Wall,
    },
    model::{Refusal, SystemName},
};

const GREET: &str = "open a session of the Web API";
const DOORS: &str = "list the doors (Web API)";
const CARDS: &str = "list the cards of one room (Web API)";
/// Most rooms that are named.
const NAMED: usize = 5;

/// Asks, and notes what was seen. What passes here is not recorded.
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
    let refused = |refusal: Refusal| (refusal.to_string(), Verdict::Wrong);
    let expected = format!("{} lets the user {:?} in", web.http.url, web.user);
    let (seen, verdict) = match server.visit(Errand::Greet).await {
        Came::LetIn => ("it does".to_owned(), Verdict::AsExpected),
        Came::Refused(refusal) | Came::Doubt(refusal) => refused(refusal),
        other => unreachable!("a visit for nothing does not end with {other:?}"),
    };
    if !probed.step(GREET, expected, seen, verdict) {
        return;
    }
    let expected = format!("a door for each of the {} rooms", rooms.len());
    let (seen, verdict) = match server.visit(Errand::Doors).await {
        Came::Doors(doors) => {
            let unknown = unknown_rooms(&rooms, &doors);
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
    let (seen, verdict) = match server.visit(errand).await {
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
