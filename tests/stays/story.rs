//! What happens in a house, as one seed has it: people come, change their minds, use their cards and go.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    desk::{Desk, Laid, Meanwhile, Method, Wish},
    model::{Door, Expected, Grant, Plastic, Tally},
    mutant::Mutant,
    simulated::net::{Host, Road},
    site::{COMMON, Sharing},
    town::{Later, Town},
};

/// Stays in one history.
const MOST_STAYS: usize = 5;
const NAMES: [&str; 15] = [
    "Ada", "Ben", "Cleo", "Dag", "Eva", "Finn", "Gro", "Hugo", "Ida", "Jon", "Kai", "Liv", "Mia", "Nils",
    "Odd",
];

/// What one seed came to.
pub(super) struct Story {
    pub(super) history: Vec<String>,
    /// What was compared, or what broke the promise.
    pub(super) verdict: Result<Tally, Vec<String>>,
}

/// Plays one seed.
pub(super) fn play(seed: u64, mutant: Mutant) -> Story {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async move {
        let mut house = House { desk: Desk::new(Town::new(seed, mutant)), stays: Vec::new() };
        house.live().await;
        let town = house.desk.town;
        let verdict = if town.wrong.is_empty() { Ok(town.model.tally) } else { Err(town.wrong) };
        Story { history: town.history, verdict }
    })
}

/// A stay: its name and its rooms.
struct Stay {
    name: String,
    rooms: BTreeSet<Door>,
    window: (Timestamp, Timestamp),
}

struct House {
    desk: Desk,
    stays: Vec<Stay>,
}

impl House {
    async fn live(&mut self) {
        for system in &self.desk.town.systems {
            let line = format!(
                "{}: {} with {} encoders, {:?}, check-out {}",
                system.name,
                system.rooms.join("+"),
                system.encoders.len(),
                system.sharing,
                if system.checks_out { "with the last grant" } else { "never" }
            );
            self.desk.town.history.push(line);
        }
        self.desk.open().await;
        let actions = 10 + self.below(31);
        for _ in 0..actions {
            self.act().await;
            self.desk.judge().await;
            if !self.desk.town.wrong.is_empty() {
                return;
            }
        }
        self.go_round().await;
    }

    fn below(&self, below: u64) -> u64 {
        self.desk.town.random.below(below)
    }

    fn chance(&self, percent: u64) -> bool {
        self.desk.town.chance(percent)
    }

    fn pick<T: Clone>(&self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| self.desk.town.one(of).clone())
    }

    async fn act(&mut self) {
        let settled = self.methods(|it| it.is_written);
        let open = self.methods(|it| !it.is_written && !it.is_in_doubt);
        let doubts = self.methods(|it| it.is_in_doubt);
        match self.below(100) {
            0..12 if self.stays.len() < MOST_STAYS => self.new_stay().await,
            0..38 if !open.is_empty() => self.write_cards(&open).await,
            38..62 => self.use_a_card().await,
            62..70 => self.time_passes().await,
            70..75 if !settled.is_empty() => self.change_times(&settled).await,
            75..89 if self.desk.town.mutant == Mutant::TrustsAnEnd => self.foreign_twin().await,
            75..78 => self.leave_early().await,
            78..81 => self.move_rooms().await,
            81..84 if !settled.is_empty() => {
                let method = self.pick(&settled).unwrap();
                self.desk.lose(method).await;
            }
            84..86 => self.foreign_twin().await,
            86..89 => self.foreign_desk().await,
            89..93 if !doubts.is_empty() => self.settle(&doubts).await,
            93..96 => self.trouble(),
            96..98 => self.read_some_card().await,
            98 => self.desk.settle_doubts().await,
            _ if !doubts.is_empty() => self.settle(&doubts).await,
            _ if self.stays.is_empty() => self.new_stay().await,
            _ => self.use_a_card().await,
        }
    }

    /// Live methods that are so.
    fn methods(&self, are: impl Fn(&Method) -> bool) -> Vec<usize> {
        let live = |it: &Method| !it.is_deleted && it.attempt.is_none();
        let all = self.desk.methods.iter().enumerate();
        all.filter(|(_, it)| live(it) && are(it)).map(|(number, _)| number).collect()
    }

    // Stays.

    async fn new_stay(&mut self) {
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
        self.desk.check_in(grant).await;
    }

    async fn change_times(&mut self, methods: &[usize]) {
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

    fn grants_of(&self, stay: &str) -> Vec<usize> {
        let grants = self.desk.town.model.grants.iter().enumerate();
        grants.filter(|(_, it)| it.is_live && it.stay == stay).map(|(number, _)| number).collect()
    }

    /// One guest of a stay goes, or all of them.
    async fn leave_early(&mut self) {
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
            self.desk.delete(grant).await;
        }
        self.desk.town.pass(Duration::from_secs(20)).await;
    }

    /// All grants of a stay are deleted, and another room has the stay's name from then on.
    async fn move_rooms(&mut self) {
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

    // Cards.

    async fn write_cards(&mut self, open: &[usize]) {
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

    fn wish(&mut self, method: usize) -> Wish {
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
        Wish { method, encoder: self.below(encoders) as usize, laid }
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
    async fn read_some_card(&mut self) {
        let cards: Vec<_> = self.desk.town.model.cards().map(|(card, _)| card.clone()).collect();
        if let Some(card) = self.pick(&cards) {
            self.desk.read(&card, 0).await;
        }
    }

    async fn use_a_card(&mut self) {
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
    async fn hold(&mut self, card: &Plastic, door: &Door) {
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

    /// In the end all who were told of a card try it at their doors, those who came last first.
    async fn go_round(&mut self) {
        let told = self.desk.town.model.cards().filter_map(|(card, grant)| Some((card.clone(), grant?)));
        let told: Vec<_> = told.collect();
        for (card, grant) in told.into_iter().rev() {
            let grant = &self.desk.town.model.grants[grant];
            let doors: Vec<_> =
                grant.rooms.iter().chain(&grant.common).filter(|door| door.0 == card.0).cloned().collect();
            for door in doors {
                self.hold(&card, &door).await;
                self.desk.judge().await;
                if !self.desk.town.wrong.is_empty() {
                    return;
                }
            }
        }
    }

    // What else happens.

    async fn time_passes(&mut self) {
        let now = self.desk.town.now();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        // The next start or end of a grant, seen from just before it or just after.
        let edges = self.desk.town.model.grants.iter().flat_map(|grant| &grant.windows);
        let next = edges.flat_map(|(from, until)| [*from, *until]).filter(|edge| now < *edge).min();
        let to_edge = next.map(|edge| Duration::try_from(edge.duration_since(now)).unwrap());
        let span = match (self.below(8), to_edge) {
            (0..2, Some(span)) => span.saturating_sub(Duration::from_secs(self.below(40))),
            (2..4, Some(span)) => span + Duration::from_secs(self.below(90)),
            (4, _) => minutes(1),
            (5, _) => minutes(15),
            (6, _) => minutes(50),
            _ => minutes(60 * (1 + self.below(5))),
        };
        self.desk.town.pass(span).await;
        self.desk.town.note(format_args!("{} minutes later", span.as_secs() / 60));
        self.desk.look().await;
    }

    async fn foreign_desk(&mut self) {
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
    async fn foreign_twin(&mut self) {
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

    /// By a person's word, or by reading the card.
    async fn settle(&mut self, doubts: &[usize]) {
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

    /// Something goes wrong from now on, or soon.
    fn trouble(&mut self) {
        let system = self.below(self.desk.town.systems.len() as u64) as usize;
        let soon = Duration::from_millis(self.below(20_000));
        let later = soon + Duration::from_secs(5 + self.below(60));
        let long = Duration::from_secs(self.desk.town.one(&[20_u64, 120, 900]).to_owned());
        let times = 1 + self.below(2);
        let town = &mut self.desk.town;
        let fault = match town.random.below(16) {
            0 => return town.after(soon, Later::KillCloud),
            1 => return town.after(soon, Later::KillAgent),
            2 => {
                let steps = town.random.below(400);
                return town.after(soon / 4, Later::DoomAgent(steps));
            }
            3 => {
                town.note(format_args!("the road to the cloud is down for {long:?}"));
                town.network.set_road(Host::Agent, Host::Cloud, Road::Down);
                return town.after(long, Later::MendRoad(Host::Agent, Host::Cloud));
            }
            4 => {
                town.note("the road to the lock server is down");
                town.network.set_road(Host::Agent, Host::Salto, Road::Down);
                return town.after(later, Later::MendRoad(Host::Agent, Host::Salto));
            }
            5 => {
                town.note("connections to the lock server swallow");
                return town.network.swallow(Host::Agent, Host::Salto);
            }
            6 => format!("silent-answer {times}"),
            7..10 => format!("write-then-silent {times}"),
            10 => format!("close-after-ack {times}"),
            11 => format!("late-answer {}", 500 + town.random.below(90_000)),
            12 => format!("close-after-bytes {}", town.random.below(200)),
            13 => format!("silent-ack {times}"),
            14 => format!("busy {times}"),
            _ => "error EV 1".to_owned(),
        };
        town.break_later(system, fault, later);
    }
}
