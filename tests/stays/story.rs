//! What happens in a house, as one seed has it: people come, change their minds, use their cards and go.

mod cards;
mod guests;
mod others;
mod trouble;

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{
    desk::{Desk, Method},
    model::{Door, Tally},
    mutant::Mutant,
    simulated::play,
    town::Town,
};

/// Stays in one history.
const MOST_STAYS: usize = 5;
/// What one seed came to, and what was compared in it.
pub(super) type Story = play::Story<Tally>;

/// Plays one seed.
pub(super) fn play(seed: u64, mutant: Mutant) -> Story {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async move {
        let mut house = House { desk: Desk::new(Town::new(seed, mutant)), stays: Vec::new() };
        let begun = house.desk.town.now();
        house.live().await;
        let town = house.desk.town;
        let simulated = Duration::try_from(town.now().duration_since(begun)).unwrap();
        let verdict = if town.wrong.is_empty() { Ok(town.model.tally) } else { Err(town.wrong) };
        Story { history: town.history, simulated, verdict }
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
                "{}: {} with {} encoders, {:?}, check-out {}, a deleted card {}",
                system.name,
                system.rooms.join("+"),
                system.encoders.len(),
                system.sharing,
                if system.checks_out { "with the last grant" } else { "never" },
                if system.overrides { "is thrown out" } else { "stays good" },
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
        self.desk.come_to_rest().await;
        self.desk.judge().await;
        if self.desk.town.wrong.is_empty() {
            self.go_round().await;
        }
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
            75..89 if self.desk.town.mutant == Mutant::LetsAForeignCardSettle => {
                self.foreign_card_at_a_doubt().await;
            }
            75..78 => self.leave_early().await,
            81 | 82 if !settled.is_empty() => self.replace_a_card(&settled).await,
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
        let live = |it: &Method| !it.is_deleted && it.order.is_none();
        let all = self.desk.methods.iter().enumerate();
        all.filter(|(_, it)| live(it) && are(it)).map(|(number, _)| number).collect()
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
}
