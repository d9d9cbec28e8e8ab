//! Who kills, whom, and when.

use std::{collections::BTreeMap, path::PathBuf, thread::sleep, time::Duration};

use latchd::seams::Random;

use crate::{
    desk::{House, control},
    keypad::Doors,
    site::{Process, Site, latchd},
};

pub(crate) struct Killer {
    folder: PathBuf,
    agent: Option<Process>,
    cloud: Option<Process>,
    random: Random,
}

/// When to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// Whatever is going on.
    Whatever,
    /// Just after somebody began to order: before and after the order is stored, sent, marked.
    Ordered,
    /// Just after the command reached the lock server.
    AtTheWire,
    /// Just after the lock server answered.
    Answered,
    /// Just after a keypad lock was asked for a change.
    AtTheDoor,
    /// While what was killed before comes back.
    Returning,
}

const MOMENTS: [Moment; 6] = [
    Moment::Whatever,
    Moment::Ordered,
    Moment::AtTheWire,
    Moment::Answered,
    Moment::AtTheDoor,
    Moment::Returning,
];

/// A moment that does not come by then is any other.
const PATIENCE: Duration = Duration::from_millis(2500);

impl Killer {
    pub(crate) fn new(site: &mut Site, random: Random) -> Self {
        let folder = site.folder.path().to_owned();
        Self { folder, agent: site.agent.take(), cloud: site.cloud.take(), random }
    }

    /// Kills so often; says how often at which moment.
    pub(crate) fn kill(
        &mut self,
        kills: u64,
        house: &House,
        doors: &Doors,
        site: &Site,
    ) -> BTreeMap<Moment, u64> {
        let mut control = control(site.folder.path());
        let mut killed = BTreeMap::new();
        for _ in 0..kills {
            let moment = MOMENTS[usize::try_from(self.random.below(MOMENTS.len() as u64)).unwrap()];
            let count = |control: &mut latchd::sim::control::BlockingClient, kind: &str| {
                control.send(&format!("wire count {kind}")).unwrap()["count"].as_u64().unwrap()
            };
            let mut see = |kind: &str| {
                let next = count(&mut control, kind) + 1;
                let within = PATIENCE.as_millis();
                // It need not come: everybody may be waiting for what was killed before.
                let _ = control.send(&format!("wait count {kind} {next} within {within}"));
            };
            let spread = match moment {
                Moment::Whatever => 600_000,
                Moment::Ordered => {
                    house.next_order(PATIENCE);
                    25_000
                }
                Moment::AtTheWire => {
                    see("CN");
                    3_000
                }
                Moment::Answered => {
                    see("sent CN");
                    8_000
                }
                Moment::AtTheDoor => {
                    doors.next_command(&self.random, PATIENCE);
                    3_000
                }
                Moment::Returning => 150_000,
            };
            sleep(Duration::from_micros(self.random.below(spread)));
            let (agent, cloud) = match self.random.below(4) {
                0 => (false, true),
                1 => (true, true),
                _ => (true, false),
            };
            if agent {
                self.agent.as_mut().unwrap().kill();
            }
            if cloud {
                self.cloud.as_mut().unwrap().kill();
            }
            *killed.entry(moment).or_default() += 1;
            self.start();
        }
        killed
    }

    /// Starts what does not run.
    fn start(&mut self) {
        let start = |process: &mut Option<Process>, name: &str, verb: &str| {
            if process.as_mut().is_some_and(Process::is_running) {
                return;
            }
            let config = self.folder.join(format!("{name}.toml"));
            *process =
                Some(Process::start(&self.folder, name, latchd().arg(verb).arg("--config").arg(config)));
        };
        start(&mut self.cloud, "cloud", "cloud");
        start(&mut self.agent, "agent", "run");
    }

    /// Both must still run: nothing but a kill ends them.
    pub(crate) fn survived(&mut self) -> bool {
        [&mut self.agent, &mut self.cloud].into_iter().all(|process| process.as_mut().unwrap().is_running())
    }

    /// A last kill, so that the databases can be read.
    pub(crate) fn end(mut self) {
        self.agent.as_mut().unwrap().kill();
        self.cloud.as_mut().unwrap().kill();
    }
}
