//! Guests come, change their minds, move and go.

use std::{collections::BTreeSet, time::Duration};

use jiff::SignedDuration;

use super::{House, Stay};
use crate::{
    model::{Door, Grant},
    site::COMMON,
};

const NAMES: [&str; 15] = [
    "Ada", "Ben", "Cleo", "Dag", "Eva", "Finn", "Gro", "Hugo", "Ida", "Jon", "Kai", "Liv", "Mia", "Nils",
    "Odd",
];

impl House {
    pub(super) async fn new_stay(&mut self) {
        let name = format!("stay-{}", self.stays.len() + 1);
        let rooms = self.some_rooms();
        let now = self.desk.town.now();
        let last_end = self.stays.last().map(|stay| stay.window.1);
        let hours = |hours: i64| SignedDuration::from_hours(hours);
        let mut from = match self.below(8) {
            0..4 => now - hours(1),
            4 => now + hours(2),
            5 => now + hours(9),
            6 => now + SignedDuration::from_mins(5),
            _ => last_end.unwrap_or(now),
        };
        from = from.max(now - hours(1));
        let until = from.max(now)
            + hours(3 + self.below(30) as i64)
            + SignedDuration::from_secs(self.below(90) as i64);
        let window = (from, until);
        self.stays.push(Stay { name, rooms, window });
        let stay = self.stays.len() - 1;
        for _ in 0..1 + self.below(3) {
            self.new_guest(stay).await;
        }
        let open = self.methods(|it| !it.is_written && !it.is_in_doubt);
        if self.chance(70) && !open.is_empty() {
            self.desk.judge().await;
            self.write_cards(&open[open.len() - 1..]).await;
        }
    }

    fn some_rooms(&self) -> BTreeSet<Door> {
        let systems = &self.desk.town.systems;
        let some = |system: usize| (system, self.desk.town.one(&systems[system].rooms).clone());
        let system = self.below(systems.len() as u64) as usize;
        let mut rooms = BTreeSet::from([some(system)]);
        if self.chance(20) {
            rooms.insert(some(system));
        }
        if 1 < systems.len() && self.chance(40) {
            rooms.insert(some(1 - system));
        }
        rooms
    }

    async fn new_guest(&mut self, stay: usize) {
        let Stay { name, rooms, window } = &self.stays[stay];
        let (name, mut rooms, (from, until)) = (name.clone(), rooms.clone(), *window);
        if 1 < rooms.len() && self.chance(25) {
            rooms.pop_last();
        }
        let until = match self.below(10) {
            0..6 => until,
            6..8 => until + SignedDuration::from_hours(2),
            _ => until - SignedDuration::from_mins(50),
        };
        let until = self.desk.own_end(until);
        let systems: BTreeSet<usize> = rooms.iter().map(|(system, _)| *system).collect();
        let common = COMMON.iter().filter(|_| self.chance(60));
        let common =
            common.flat_map(|door| systems.iter().map(|system| (*system, (*door).to_owned()))).collect();
        let number = self.desk.town.model.grants.len();
        let guest = format!("{}{}", NAMES[number % NAMES.len()], if number < NAMES.len() { "" } else { "2" });
        let grant = Grant { guest, stay: name, rooms, common, windows: vec![(from, until)], is_live: true };
        match self.is_at_the_site() {
            true => self.desk.check_in_here(grant).await,
            false => drop(self.desk.check_in(grant).await),
        }
    }

    pub(super) async fn change_times(&mut self, methods: &[usize]) {
        let Some(method) = self.pick(methods) else { return };
        let grant = self.desk.methods[method].grant;
        let (from, until) = *self.desk.town.model.grants[grant].windows.last().unwrap();
        let now = self.desk.town.now();
        let wanted = match self.below(3) {
            0 => until + SignedDuration::from_hours(1 + self.below(20) as i64),
            1 => until - SignedDuration::from_mins(30 + self.below(90) as i64),
            _ => until + SignedDuration::from_mins(1),
        };
        let until = self.desk.own_end(wanted.max(now.max(from) + SignedDuration::from_mins(10)));
        let from = self.chance(20).then(|| from - SignedDuration::from_hours(1));
        self.desk.change(grant, from, until).await;
        if self.chance(60) {
            self.desk.judge().await;
            self.write_cards(&[method]).await;
        }
    }

    pub(super) fn grants_of(&self, stay: &str) -> Vec<usize> {
        let grants = self.desk.town.model.grants.iter().enumerate();
        grants.filter(|(_, it)| it.is_live && it.stay == stay).map(|(number, _)| number).collect()
    }

    /// One guest of a stay goes, or all of them.
    pub(super) async fn leave_early(&mut self) {
        let Some(stay) = self.pick(&self.stays.iter().map(|it| it.name.clone()).collect::<Vec<_>>()) else {
            return;
        };
        let mut grants = self.grants_of(&stay);
        if self.chance(50) {
            grants.truncate(1);
        }
        if self.chance(35) {
            self.trouble();
        }
        for grant in grants {
            match self.is_at_the_site() {
                true => self.desk.delete_here(grant).await,
                false => self.desk.delete(grant).await,
            }
        }
        self.desk.town.pass(Duration::from_secs(20)).await;
    }

    /// All grants of a stay are deleted, and another room has the stay's name from then on.
    pub(super) async fn move_rooms(&mut self) {
        if self.stays.is_empty() {
            return;
        }
        let stay = self.below(self.stays.len() as u64) as usize;
        for grant in self.grants_of(&self.stays[stay].name) {
            self.desk.delete(grant).await;
        }
        let now = self.desk.town.now();
        let rooms = self.some_rooms();
        let it = &mut self.stays[stay];
        it.rooms = rooms;
        it.window.1 = it.window.1.max(now + SignedDuration::from_hours(3));
        let name = it.name.clone();
        self.desk.town.note(format_args!("{name} moves"));
        self.new_guest(stay).await;
    }
}
