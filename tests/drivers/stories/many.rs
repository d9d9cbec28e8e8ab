//! Many cards at many encoders, while faults come and go.

use std::{collections::BTreeMap, time::Duration};

use latchd::{model::JobId, seams::Random};
use tokio::time::{Instant, sleep};

use crate::{
    house::{Card, House, plastic},
    makes::{Fault, StartMake},
    simulated::side::End,
    wire::Faults,
};

const CARDS: usize = 1000;
const ENCODERS: usize = 8;
/// All of it takes less time than this.
const LONGEST: Duration = Duration::from_secs(48 * 3600);
/// After so many the agent dies and is started again.
const ONE_LIFE: usize = 90;

/// A desk at each encoder makes its cards one after the other; all share the rooms.
pub(crate) async fn a_thousand_cards(make: StartMake) {
    let random = Random::seeded(7);
    let mut house = House::open(&[make]).await;
    // By encoder: what is under way there.
    let mut under_way: BTreeMap<usize, JobId> = BTreeMap::new();
    let (begun, mut mended_at) = (Instant::now(), Instant::now());
    let (mut faults, mut lived) = (0, 0);
    while house.jobs.len() < CARDS || !under_way.is_empty() {
        assert!(
            begun.elapsed() < LONGEST,
            "{} cards were ordered, {} are under way",
            house.jobs.len(),
            under_way.len()
        );
        if lived + ONE_LIFE <= house.jobs.len() || house.is_dead() {
            lived = house.jobs.len();
            house.crash([End::Killed, End::Power, End::PowerAndCache][random.below(3) as usize]).await;
        }
        if mended_at <= Instant::now() {
            house.systems[0].wire.set(Faults::default());
            house.systems[0].say("fault clear").await;
            mended_at = Instant::now() + Duration::from_secs(20 + random.below(60));
            faults += usize::from(house.breaks(&random, mended_at).await);
        }
        for encoder in 0..ENCODERS {
            if let Some(id) = under_way.get(&encoder) {
                // What was not durable when the agent died it has never heard of.
                if house.job(*id).await.is_none_or(|it| it.view.state.is_over()) {
                    under_way.remove(&encoder);
                }
                continue;
            }
            if house.jobs.len() < CARDS {
                let number = house.lays_some(&random, encoder).await;
                under_way.insert(encoder, house.jobs[number].id);
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
    let tally = house.judge().await;
    assert!(20 < faults && 0 < tally.unknown && 0 < tally.not_done, "{faults} faults, {tally:?}");
    assert!(CARDS / 2 < tally.succeeded, "{tally:?}");
}

impl House {
    /// Somebody comes to a desk, mostly with a card, and orders one.
    async fn lays_some(&mut self, random: &Random, encoder: usize) -> usize {
        let (number, encoder) = (self.jobs.len(), (encoder + 1).to_string());
        self.systems[0].say(&format!("remove {encoder}")).await;
        let kind = match random.below(40) {
            0 => None,
            1 => Some("damaged"),
            2 => Some("foreign"),
            _ => Some("blank"),
        };
        if let Some(kind) = kind {
            self.systems[0].say(&format!("place {} {kind} on {encoder}", plastic(number))).await;
        }
        let room = (101 + random.below(16)).to_string();
        // Stays follow one another, each with some cards.
        let card = self.card(&room, &format!("stay-{}-{room}", number / 100));
        self.order(Card { encoder, expires_in: 900, ..card }).await
    }

    /// Whether anything is broken.
    async fn breaks(&self, random: &Random, until: Instant) -> bool {
        let system = &self.systems[0];
        let cut_after = Some(random.below(system.make.exchange() as u64) as usize);
        match random.below(9) {
            0 => system.wire.set(Faults { cut_after, ..Faults::default() }),
            1 => system.wire.set(Faults { is_down: true, ..Faults::default() }),
            2 => system.wire.set(Faults { slow: Duration::from_millis(50), ..Faults::default() }),
            3 => system.wire.set(Faults { late_until: Some(until), ..Faults::default() }),
            4 => drop(system.say(&system.make.fault(Fault::Busy)).await),
            5 => drop(system.say(&system.make.fault(Fault::WritesInSilence)).await),
            6 => {
                let late = Fault::Late(Duration::from_secs(random.below(120)));
                system.say(&system.make.fault(late)).await;
            }
            _ => return false,
        }
        true
    }
}
