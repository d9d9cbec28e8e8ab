//! The server's doors as rows of a configuration.

use std::sync::Arc;

use super::{
    answer::Door,
    server::Web,
    visit::{Errand, Result as Came},
};
use crate::{
    config::{ImportKind, ImportRow, VisionlineWebConfig},
    drivers::{discover::Discovered, probe::Tools, wall::Wall},
    model::{Refusal, SystemName},
};

pub(in crate::drivers) async fn discover(
    web: &VisionlineWebConfig,
    system: &SystemName,
    tools: &Tools,
) -> Result<Discovered, Refusal> {
    let (net, wall) = (Arc::clone(&tools.net), Wall::new(tools.time_zone.clone()));
    let server = Web::new(net, web, system.clone(), Vec::new(), wall, tools.clock.clone());
    match server.visit(Errand::Doors).await {
        Came::Doors(doors) => Ok(rows(&doors)),
        Came::Refused(refusal) | Came::Doubt(refusal) => Err(refusal),
        other => unreachable!("a visit for doors does not end with {other:?}"),
    }
}

/// Guest doors are rooms. Of a common door the number in the text interface is not told, so it cannot be taken over. How
/// the categories are spelled is not published: whatever has the word guest in it is a guest's.
fn rows(doors: &[Door]) -> Discovered {
    let is_room = |door: &&Door| door.category.to_ascii_lowercase().contains("guest");
    let (rooms, others): (Vec<_>, Vec<_>) = doors.iter().partition(is_room);
    let row = |(line, door): (u64, &Door)| ImportRow {
        line,
        kind: ImportKind::Room,
        name: door.id.clone(),
        display_name: (!door.name.is_empty() && door.name != door.id).then(|| door.name.clone()),
        number: None,
    };
    Discovered {
        rows: (1..).zip(rooms).map(row).collect(),
        others: others.into_iter().map(|door| door.id.clone()).collect(),
    }
}
