//! The hotel's own desk makes cards at the same lock servers.

use std::time::Duration;

use jiff::SignedDuration;

use super::House;
use crate::{
    desk::{Laid, Method},
    model::{Door, Plastic},
    site::Sharing,
    town::Later,
};

impl House {
    pub(super) async fn foreign_desk(&mut self) {
        let system = self.below(self.desk.town.systems.len() as u64) as usize;
        let it = &self.desk.town.systems[system];
        let room = self.desk.town.one(&it.rooms).clone();
        // Where the site says that nobody else makes cards, there are copies at most.
        let copies = it.sharing == Sharing::Exclusive || self.chance(20);
        self.make_a_foreign_card(&(system, room), copies).await;
    }

    /// The hotel's own desk makes a card, unless it keeps away from the room. Says which.
    async fn make_a_foreign_card(&mut self, room: &Door, copies: bool) -> Option<Plastic> {
        let system = room.0;
        let it = &self.desk.town.systems[system];
        // Where a stay counts as proven, the hotel's own desk keeps away for so long.
        let is_proven = it.proven_until.get(&room.1).is_some_and(|until| self.desk.town.now() < *until);
        let keeps_away = it.sharing == Sharing::Shared && (is_proven || !self.desk.is_quiet(system).await);
        if copies && it.checks_out || !copies && keeps_away {
            return None;
        }
        self.desk.read_tapes().await;
        let is_lost = self.desk.town.systems[system].sharing == Sharing::AssumeUnchanged;
        let command = format!("foreign-card-made {}{}", room.1, if copies { " one-shot" } else { "" });
        let made = self.desk.town.systems[system].say(&command).await;
        let card = (system, made["card"].as_str().unwrap().to_owned());
        let kind = if copies { "a copy" } else { "a new card" };
        self.desk.town.note(format_args!("the hotel's own desk makes {}, {kind} for {}", card.1, room.1));
        self.desk.town.model.foreign_made(&card, room, copies, is_lost);
        Some(card)
    }

    /// The hotel's own desk gives a room of ours away until the very minute that is printed on our guest's cards, and
    /// that card comes to our desk.
    pub(super) async fn foreign_twin(&mut self) {
        let now = self.desk.town.now();
        let hours = SignedDuration::from_hours;
        let mut twins = Vec::new();
        for (number, grant) in self.desk.town.model.grants.iter().enumerate() {
            let (_, until) = grant.windows[grant.windows.len() - 1];
            let made_at = until - hours(24) + SignedDuration::from_secs(1);
            for room in grant.rooms.iter().filter(|_| now < made_at && made_at < now + hours(20)) {
                if self.desk.town.systems[room.0].sharing == Sharing::Shared {
                    twins.push((room.clone(), made_at, number));
                }
            }
        }
        let Some((room, made_at, grant)) = self.pick(&twins) else {
            return self.foreign_card_at_a_doubt().await;
        };
        if self.chance(50) {
            self.leave_a_doubt(&room, grant).await;
        }
        let minute = Duration::from_secs(59);
        let left = made_at.duration_since(self.desk.town.now()).max(SignedDuration::ZERO);
        self.desk.town.pass(Duration::try_from(left).unwrap() + minute).await;
        let Some(card) = self.make_a_foreign_card(&room, false).await else { return };
        if self.chance(50) {
            self.hold(&card, &room).await;
        }
        if self.chance(30) {
            let soon = Duration::from_millis(self.below(6_000));
            self.desk.town.after(soon, Later::KillAgent);
        }
        self.desk.read(&card, 0).await;
        let grants = self.grants_of(&self.desk.town.model.grants[grant].stay);
        let open = self.methods(|it| !it.is_written && !it.is_in_doubt && grants.contains(&it.grant));
        if let Some(method) = self.pick(&open) {
            let wish = self.wish(method);
            self.desk.encode(vec![wish], None).await;
        }
    }

    /// Nobody knows whether a guest's card was written, and another desk's card for the room comes to our desk.
    pub(super) async fn foreign_card_at_a_doubt(&mut self) {
        let mut rooms = Vec::new();
        for method in self.methods(|it| !it.is_written && !it.is_in_doubt) {
            let Method { grant, system, .. } = self.desk.methods[method];
            let of_grant = self.desk.town.model.grants[grant].rooms.iter();
            rooms.extend(of_grant.filter(|room| room.0 == system).map(|room| (room.clone(), grant)));
        }
        let Some((room, grant)) = self.pick(&rooms) else { return };
        self.leave_a_doubt(&room, grant).await;
        let copies = self.desk.town.systems[room.0].sharing == Sharing::Exclusive;
        let Some(card) = self.make_a_foreign_card(&room, copies).await else { return };
        self.desk.town.tally(|tally| tally.foreign_at_a_doubt += 1);
        self.desk.read(&card, 0).await;
    }

    /// A card for a guest is ordered, and nobody knows what became of it.
    async fn leave_a_doubt(&mut self, room: &Door, grant: usize) {
        let is_it =
            |it: &Method| it.grant == grant && it.system == room.0 && !it.is_written && !it.is_in_doubt;
        let Some(method) = self.pick(&self.methods(is_it)) else { return };
        let fault = *self.desk.town.one(&["silent-answer 1", "write-then-silent 1"]);
        self.desk.town.note(fault);
        self.desk.town.systems[room.0].say(&format!("fault {fault}")).await;
        let mut wish = self.wish(method);
        wish.laid = Laid::Card(self.desk.new_card());
        self.desk.encode(vec![wish], None).await;
        self.desk.town.systems[room.0].say("fault clear").await;
    }
}
