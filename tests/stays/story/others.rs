//! The hotel's own desk makes cards at the same lock servers.

use std::time::Duration;

use jiff::SignedDuration;

use super::House;
use crate::{
    model::{Door, Plastic},
    site::Sharing,
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
        for grant in &self.desk.town.model.grants {
            let (_, until) = grant.windows[grant.windows.len() - 1];
            let made_at = until - hours(24) + SignedDuration::from_secs(1);
            for room in grant.rooms.iter().filter(|_| now < made_at && made_at < now + hours(20)) {
                if self.desk.town.systems[room.0].sharing == Sharing::Shared {
                    twins.push((room.clone(), made_at, grant.stay.clone()));
                }
            }
        }
        let Some((room, made_at, stay)) = self.pick(&twins) else { return };
        let minute = Duration::from_secs(59);
        self.desk.town.pass(Duration::try_from(made_at.duration_since(now)).unwrap() + minute).await;
        let Some(card) = self.make_a_foreign_card(&room, false).await else { return };
        if self.chance(50) {
            self.hold(&card, &room).await;
        }
        self.desk.read(&card, 0).await;
        let grants = self.grants_of(&stay);
        let open = self.methods(|it| !it.is_written && !it.is_in_doubt && grants.contains(&it.grant));
        if let Some(method) = self.pick(&open) {
            let wish = self.wish(method);
            self.desk.encode(vec![wish], None).await;
        }
    }
}
