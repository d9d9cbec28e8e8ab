//! Time passes, and things go wrong in it.

use std::time::Duration;

use super::House;
use crate::{
    simulated::net::{Host, Road},
    town::Later,
};

impl House {
    pub(super) async fn time_passes(&mut self) {
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

    /// Something goes wrong from now on, or soon.
    pub(super) fn trouble(&mut self) {
        let system = self.below(self.desk.town.systems.len() as u64) as usize;
        let soon = Duration::from_millis(self.below(20_000));
        let later = soon + Duration::from_secs(5 + self.below(60));
        let long = Duration::from_secs(self.desk.town.one(&[20_u64, 120, 900]).to_owned());
        let times = 1 + self.below(2);
        let town = &mut self.desk.town;
        let fault = match town.random.below(18) {
            0 => return town.after(soon, Later::KillCloud),
            1 => return town.after(soon, Later::KillAgent),
            2 => {
                let steps = town.random.below(400);
                return town.after(soon / 4, Later::DoomAgent(steps));
            }
            3 | 16 | 17 => {
                town.note(format_args!("the road to the cloud is down for {long:?}"));
                town.is_alone = true;
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
