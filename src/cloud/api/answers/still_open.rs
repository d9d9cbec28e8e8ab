//! Cards that open more, or longer, than they should: offline locks cannot be told. Each warning says what still opens,
//! until when, and what ends it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    cloud::{
        store::{DeletedCard, Grant, Method},
        time_text,
    },
    grants::CardFate,
};

/// What a grant has to say of its cards, and of the deleted ones of its stay.
pub(super) fn of_grant(grant: &Grant, now: Timestamp) -> Vec<Value> {
    [deleted_of_grant(grant, now), left_doors(grant, now), earlier_ends(grant, now)]
        .into_iter()
        .flatten()
        .chain(deleted_of_stay(grant, now))
        .collect()
}

/// What a deleted method has to say of its card, if that may still open.
pub(super) fn deleted(method: &Method, now: Timestamp) -> Option<String> {
    method.card.may_open(now).then(|| {
        format!(
            "This card is deleted and still opens {}: offline locks cannot be told. {}",
            until([method.card]),
            CURES
        )
    })
}

/// What ends a card for which nobody comes back.
const CURES: &str = "Take the card back, have the room checked out, or let a card that begins the stay anew or the next \
                     guest's be used at the door";

fn overprovisioned(message: String, since: Timestamp) -> Value {
    super::warning("overprovisioned_access", message, since)
}

/// The latest end of these cards, in words.
fn until(cards: impl IntoIterator<Item = CardFate>) -> String {
    let ends: Option<Vec<_>> = cards
        .into_iter()
        .map(|card| match card {
            CardFate::MayExist { opens_until } => opens_until,
            CardFate::Never => None,
        })
        .collect();
    match ends.and_then(|ends| ends.into_iter().max()) {
        Some(end) => format!("until {}", time_text(end)),
        None => "until it is taken back".into(),
    }
}

fn deleted_of_grant(grant: &Grant, now: Timestamp) -> Option<Value> {
    let opens = |method: &&Method| method.deleted.is_some() && method.card.may_open(now);
    let opening: Vec<_> = grant.methods.iter().filter(opens).collect();
    let since = opening.iter().filter_map(|method| method.deleted).min()?;
    let until = until(opening.iter().map(|method| method.card));
    let own = grant.deleted_cards.iter().filter(|card| card.grant == grant.id && card.card.may_open(now));
    let doors: BTreeSet<_> = own.flat_map(|card| card.doors.iter().map(String::as_str)).collect();
    let which = match doors.is_empty() {
        true => String::new(),
        false => format!(" ({})", doors.into_iter().collect::<Vec<_>>().join(", ")),
    };
    let message = format!(
        "A card of this access grant still opens {until}{which}: offline locks cannot be told. {CURES}"
    );
    Some(overprovisioned(message, since))
}

/// Cards that asked to be written again and open, until they are, doors that the grant leads to no more.
fn left_doors(grant: &Grant, now: Timestamp) -> Option<Value> {
    let opens = |method: &&Method| {
        method.deleted.is_none() && method.card.may_open(now) && !method.left_doors.is_empty()
    };
    let opening: Vec<_> = grant.methods.iter().filter(opens).collect();
    let since = opening.iter().filter_map(|method| method.written_for).map(|(_, since)| since).min()?;
    let doors: BTreeSet<_> =
        opening.iter().flat_map(|method| method.left_doors.iter().map(String::as_str)).collect();
    let until = until(opening.iter().map(|method| method.card));
    let message = format!(
        "A card of this access grant still opens {} {until}, to which it leads no more: offline locks cannot be told. \
         Encode the same card again, or take it back",
        doors.into_iter().collect::<Vec<_>>().join(", ")
    );
    Some(overprovisioned(message, since))
}

/// Cards that asked to be written again and open, until they are, after the end of their grant.
fn earlier_ends(grant: &Grant, now: Timestamp) -> Option<Value> {
    let ends_at = grant.window.ends_at()?;
    let opens = |method: &&Method| {
        let opens_longer = match method.card {
            CardFate::MayExist { opens_until } => opens_until.is_none_or(|end| end > ends_at.max(now)),
            CardFate::Never => false,
        };
        method.deleted.is_none() && !method.is_issued && opens_longer && method.written_for.is_some()
    };
    let opening: Vec<_> = grant.methods.iter().filter(opens).collect();
    let since = opening.iter().filter_map(|method| method.written_for).map(|(_, since)| since).min()?;
    let message = format!(
        "A card of this access grant still opens {}, and not only until {}: offline locks cannot be told. Encode the \
         same card again, or take it back",
        until(opening.iter().map(|method| method.card)),
        time_text(ends_at)
    );
    Some(overprovisioned(message, since))
}

/// Deleted cards of other grants of the stay: whoever looks after the stay looks here.
fn deleted_of_stay<'a>(grant: &'a Grant, now: Timestamp) -> impl Iterator<Item = Value> + 'a {
    let of_others = grant
        .deleted_cards
        .iter()
        .filter(move |card| card.grant != grant.id && card.card.may_open(now) && !card.doors.is_empty());
    of_others.map(|card| overprovisioned(deleted_of_another(card), card.deleted_at))
}

fn deleted_of_another(card: &DeletedCard) -> String {
    let (doors, until) = (card.doors.join(", "), until([card.card]));
    if card.is_overridden {
        return format!(
            "A deleted card of this stay still opens {doors} {until}, its room only until a card that was written since \
             is used there: use one at the door, or take the deleted card back"
        );
    }
    format!("A deleted card of this stay still opens {doors} {until}: offline locks cannot be told. {CURES}")
}
