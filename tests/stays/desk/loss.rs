//! Cards are lost, and others take their place.
//!
//! Where the site says so, the next card of a stay begins it anew once a card of the stay was taken back. When that must be
//! so, and when it must not, is told here by what was asked for; between both, the lock server's tape says what was done.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Desk, Method, Road, Teller, Wish, said};
use crate::{
    model::{Door, Grant, Model},
    town::Town,
};

/// A card that ends so soon may be over when the next one is ordered.
const SOON: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug, Default)]
pub(super) struct Loss {
    /// Systems in which a stay has, or had, cards that were taken back.
    were_taken_back: BTreeSet<(usize, String)>,
    /// Cards that certainly were, and no order came since.
    fresh: Vec<Lost>,
}

#[derive(Debug)]
struct Lost {
    system: usize,
    stay: String,
    rooms: BTreeSet<Door>,
    until: Timestamp,
}

impl Loss {
    /// All cards of a grant are taken back.
    pub(super) fn grant_goes(&mut self, methods: &[Method], model: &Model, grant: usize) {
        let systems = methods.iter().filter(|it| it.grant == grant).map(|it| it.system);
        let stay = &model.grants[grant].stay;
        self.were_taken_back.extend(systems.map(|system| (system, stay.clone())));
    }

    /// A card is ordered at the cloud: whether it must begin its stay anew, or must not.
    pub(super) fn ordered(
        &mut self,
        methods: &[Method],
        town: &Town,
        method: usize,
        alone: bool,
    ) -> Option<bool> {
        let Method { system, grant, .. } = methods[method];
        let grant = &town.model.grants[grant];
        let is_of_stay = |it: &&Lost| it.system == system && it.stay == grant.stay;
        let follows = |it: &&Lost| !it.rooms.is_disjoint(&grant.rooms) && town.now() + SOON < it.until;
        let must = self.fresh.iter().filter(is_of_stay).any(|it| follows(&it));
        self.fresh.retain(|it| !is_of_stay(&it));
        let is_alone = alone && methods.iter().all(|it| it.order.is_none());
        match self.were_taken_back.contains(&(system, grant.stay.clone())) {
            true if !town.systems[system].overrides => Some(false),
            true if must && is_alone => Some(true),
            true => None,
            false => Some(false),
        }
    }

    /// A card has begun its stay anew.
    pub(super) fn begun_again(&mut self, system: usize, stay: &str) {
        self.fresh.retain(|it| it.system != system || it.stay != stay);
    }
}

impl Desk {
    /// A card is lost: its method is deleted, and another one asked for.
    pub(crate) async fn lose(&mut self, method: usize) {
        let Method { id, grant, system, card, .. } = self.methods[method].clone();
        if let Some(card) = &card {
            self.town.note(format_args!("{} is lost", card.1));
            self.town.model.lost(card);
        }
        let opens_until = card.as_ref().and_then(|card| self.town.model.opens_until(card, grant));
        self.methods[method].is_deleted = true;
        let was_told = |it: &super::Writing| it.method == method && it.told == Some(Teller::Cloud);
        let is_known = self.writings.iter().any(was_told);
        let answer = self.insist("/access_methods/delete", json!({ "access_method_id": id })).await;
        let Grant { stay, rooms, .. } = &self.town.model.grants[grant];
        self.loss.were_taken_back.insert((system, stay.clone()));
        if let (Some(until), Some(Ok(_)), true) = (opens_until, &answer, is_known) {
            let rooms = rooms.iter().filter(|room| room.0 == system).cloned().collect();
            self.loss.fresh.push(Lost { system, stay: stay.clone(), rooms, until });
        }
        let said = said(answer);
        let guest = self.town.model.grants[grant].guest.clone();
        self.town.note(format_args!("the card of {guest} is deleted: {said}"));
        let body = json!({
            "access_grant_id": self.grants[grant],
            "requested_access_methods": [{ "mode": "card" }],
        });
        if let Some(Ok(made)) = self.insist("/access_grants/request_access_methods", body).await {
            self.meet_methods(grant, &made["access_grant"]).await;
        }
    }

    /// A card is lost: the guest's card is written once more at the site, so that it begins the stay anew.
    pub(crate) async fn replace(&mut self, wish: Wish) {
        if let Some(card) = &self.methods[wish.method].card {
            self.town.note(format_args!("{} is lost", card.1));
            self.town.model.lost(card);
        }
        self.encode(vec![Wish { road: Road::HereAnew, ..wish }], None).await;
    }
}
