//! Cards are written, read and used.

use jiff::SignedDuration;

use super::House;
use crate::{
    desk::{Laid, Meanwhile, Method, Road, Wish},
    model::{Door, Expected, Plastic},
    site::{COMMON, Sharing},
};

impl House {
    pub(super) async fn write_cards(&mut self, open: &[usize]) {
        let Some(method) = self.pick(open) else { return };
        let system = self.desk.methods[method].system;
        let mut wishes = vec![self.wish(method)];
        // Another guest at the other encoder, at the same time.
        let at_once = 1 < self.desk.town.systems[system].encoders.len() && self.chance(25);
        let others: Vec<_> = self
            .methods(|it| !it.is_written && !it.is_in_doubt && it.system == system)
            .into_iter()
            .filter(|other| self.desk.methods[*other].grant != self.desk.methods[method].grant)
            .collect();
        if let Some(other) = self.pick(&others).filter(|_| at_once) {
            let mut other = self.wish(other);
            other.encoder = 1 - wishes[0].encoder;
            wishes.push(other);
        }
        if self.desk.town.systems[system].sharing == Sharing::Shared && self.chance(70) {
            self.read_a_live_card(method).await;
            self.desk.judge().await;
        }
        if self.chance(35) {
            self.trouble();
        }
        let grant = self.desk.methods[method].grant;
        let meanwhile = match self.below(16) {
            0 => Some(Meanwhile::Leaves(grant)),
            1 => {
                let (_, until) = *self.desk.town.model.grants[grant].windows.last().unwrap();
                Some(Meanwhile::StaysUntil(grant, self.desk.own_end(until + SignedDuration::from_hours(1))))
            }
            _ => None,
        };
        self.desk.encode(wishes, meanwhile).await;
    }

    pub(super) fn wish(&mut self, method: usize) -> Wish {
        let Method { system, card, .. } = self.desk.methods[method].clone();
        let encoders = self.desk.town.systems[system].encoders.len() as u64;
        let fresh = self.desk.new_card();
        let laid = match self.below(20) {
            0 => Laid::Nothing,
            1 => Laid::TakenAway(fresh, self.below(4_000)),
            2 => Laid::Staff,
            3 => Laid::Card(self.some_card(system).unwrap_or(fresh)),
            4..10 => Laid::Card(card.map_or(fresh, |card| card.1)),
            _ => Laid::Card(fresh),
        };
        let road = if self.is_at_the_site() { Road::Here } else { Road::Cloud };
        Wish { method, road, encoder: self.below(encoders) as usize, laid }
    }

    /// Whether the desk asks the agent at the site, and not the cloud: mostly where the site does not reach it.
    pub(super) fn is_at_the_site(&self) -> bool {
        self.chance(if self.desk.town.is_alone { 70 } else { 20 })
    }

    /// A card is lost, and the next one of the stay is to throw it out.
    pub(super) async fn replace_a_card(&mut self, written: &[usize]) {
        let Some(method) = self.pick(written) else { return };
        if self.desk.town.systems[self.desk.methods[method].system].sharing == Sharing::Shared {
            self.read_a_live_card(method).await;
            self.desk.judge().await;
        }
        if self.chance(25) {
            self.trouble();
        }
        let mut wish = self.wish(method);
        if let (Laid::Card(laid), Some(lost)) = (&wish.laid, &self.desk.methods[method].card)
            && *laid == lost.1
        {
            wish.laid = Laid::Card(self.desk.new_card());
        }
        self.desk.replace(wish).await;
    }

    fn some_card(&self, system: usize) -> Option<String> {
        let cards: Vec<_> = self
            .desk
            .town
            .model
            .cards()
            .filter(|(card, _)| card.0 == system)
            .map(|(card, _)| card.1.clone())
            .collect();
        self.pick(&cards)
    }

    /// On a system that others use as well, a live card of the stay shows that it is still the room's.
    async fn read_a_live_card(&mut self, method: usize) {
        let Method { grant, system, .. } = self.desk.methods[method];
        let grants = &self.desk.town.model.grants;
        let of_stay = |card: &Plastic, of: Option<usize>| {
            card.0 == system && of.is_some_and(|of| grants[of].stay == grants[grant].stay)
        };
        let cards: Vec<_> = self
            .desk
            .town
            .model
            .cards()
            .filter(|(card, of)| of_stay(card, *of))
            .map(|(card, _)| card.clone())
            .collect();
        if let Some(card) = self.pick(&cards) {
            self.desk.read(&card, 0).await;
        }
    }

    /// Somebody comes to the desk with a card: their own, an old one, or another desk's.
    pub(super) async fn read_some_card(&mut self) {
        let cards: Vec<_> = self.desk.town.model.cards().map(|(card, _)| card.clone()).collect();
        if let Some(card) = self.pick(&cards) {
            self.desk.read(&card, 0).await;
        }
    }

    pub(super) async fn use_a_card(&mut self) {
        let cards: Vec<_> = self.desk.town.model.cards().map(|(card, grant)| (card.clone(), grant)).collect();
        let told: Vec<_> = cards.iter().filter(|(_, grant)| grant.is_some()).cloned().collect();
        let some = if self.chance(80) && !told.is_empty() { told } else { cards };
        let Some((card, grant)) = self.pick(&some) else { return };
        let system = &self.desk.town.systems[card.0];
        let any: Vec<Door> = system
            .rooms
            .iter()
            .map(String::as_str)
            .chain(COMMON)
            .map(|name| (card.0, name.to_owned()))
            .collect();
        let own: Vec<Door> = match grant.map(|grant| &self.desk.town.model.grants[grant]) {
            Some(grant) => {
                grant.rooms.iter().chain(&grant.common).filter(|door| door.0 == card.0).cloned().collect()
            }
            None => any.clone(),
        };
        let Some(door) = self.pick(if self.chance(75) { &own } else { &any }) else { return };
        self.hold(&card, &door).await;
    }

    /// Holds a card to a door, and judges what comes of it.
    pub(super) async fn hold(&mut self, card: &Plastic, door: &Door) {
        let town = &mut self.desk.town;
        let expected = town.model.expected(card, door, town.now());
        let held = town.systems[card.0].say(&format!("use {} at {}", card.1, door.1)).await;
        let opened = held["opened"] == true;
        let why = held["why"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
        let seen = if opened { "opens" } else { "stays shut" };
        town.note(format_args!("{} at {}: {expected}; it {seen}{why}", card.1, door.1));
        match expected {
            Expected::Opens(why) if !opened => {
                town.wrong.push(format!("{} does not open {}: {why}", card.1, door.1));
            }
            Expected::StaysShut(why) if opened => {
                town.wrong.push(format!("{} opens {}: {why}", card.1, door.1));
            }
            _ => {}
        }
        if opened {
            town.model.opened(card, door);
        }
    }

    /// By a person's word, or by reading the card.
    pub(super) async fn settle(&mut self, doubts: &[usize]) {
        let Some(method) = self.pick(doubts) else { return };
        let Method { grant, system, .. } = self.desk.methods[method];
        let on = |card: &Plastic| card.0 == system && self.desk.town.model.grant_on(card) == Some(grant);
        let cards: Vec<_> =
            self.desk.town.model.cards().map(|(card, _)| card.clone()).filter(|card| on(card)).collect();
        match self.pick(&cards) {
            Some(card) if self.chance(50) => self.desk.read(&card, 0).await,
            _ => self.desk.settle_doubts().await,
        }
    }
}
