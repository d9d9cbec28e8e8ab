//! The house: its lock servers with their rooms, and how its agent is configured.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use jiff::{Timestamp, tz::TimeZone};
use latchd::{
    agent,
    config::{AgentConfig, DriverConfig},
    drivers::{
        Driver,
        salto_is::{
            Past, SaltoIs,
            sim::{CommonDoor, Property, Settings, Simulator},
        },
    },
    model::SystemName,
    seams::{Net, Random},
};
use serde_json::Value;

use super::mutant::{Mutant, spoil_driver};

pub(super) const ZONE: &str = "Europe/Oslo";
/// The first lock server's port; the others follow.
pub(super) const SALTO: u16 = 8090;
/// The common doors of every system.
pub(super) const COMMON: [&str; 2] = ["pool", "gym"];

/// What the site says of others who make cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// There is nobody else.
    Exclusive,
    /// There are others.
    Shared,
    /// There are others, and what they do may be overlooked.
    AssumeUnchanged,
}

/// An access system of the house.
pub(super) struct System {
    pub(super) name: &'static str,
    pub(super) sharing: Sharing,
    pub(super) rooms: Vec<String>,
    pub(super) encoders: Vec<String>,
    /// Whether the last grant of a stay frees its room.
    pub(super) checks_out: bool,
    /// Whether the card that follows a deleted one of its stay begins it anew.
    pub(super) overrides: bool,
    pub(super) server: Simulator,
    /// Orders of the server's tape that have been taken note of.
    pub(super) noted: BTreeSet<u64>,
    /// Until when a room's stay may count as proven by a card that was read.
    pub(super) proven_until: BTreeMap<String, Timestamp>,
}

impl System {
    /// One that chance furnished.
    pub(super) fn new(place: usize, now: Timestamp, random: &Random, mutant: Mutant) -> Self {
        let rooms: Vec<_> = (1..=2 + random.below(3)).map(|n| format!("{}0{n}", place + 1)).collect();
        let encoders: Vec<_> = (1..=1 + random.below(2)).map(|n| n.to_string()).collect();
        let common = (1..).zip(COMMON);
        let mut property = Property {
            time_zone: ZONE.into(),
            rooms: rooms.clone(),
            common: common
                .map(|(authorisation, name)| CommonDoor { name: name.into(), authorisation })
                .collect(),
            encoders: encoders.clone(),
        };
        if mutant == Mutant::CommonDoorsAreRooms {
            property.rooms.extend(property.common.drain(..).map(|door| door.name));
        }
        let settings = Settings { property, starts_at: Some(now), ..Settings::default() };
        let sharing = match random.below(10) {
            _ if mutant == Mutant::TrustsAnEnd => Sharing::Shared,
            _ if mutant == Mutant::LetsAForeignCardSettle => Sharing::Exclusive,
            0..5 => Sharing::Exclusive,
            5..8 => Sharing::Shared,
            _ => Sharing::AssumeUnchanged,
        };
        Self {
            name: ["main", "annex"][place],
            sharing,
            rooms,
            encoders,
            checks_out: random.below(3) == 0,
            overrides: random.below(3) == 0,
            server: Simulator::new(settings).unwrap(),
            noted: BTreeSet::new(),
            proven_until: BTreeMap::new(),
        }
    }

    /// Says something to the lock server or does something there.
    pub(super) async fn say(&self, command: &str) -> Value {
        self.server.command(command).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    fn section(&self, place: usize) -> String {
        let named = |names: &[String]| {
            let names: Vec<_> = names.iter().map(|name| format!("{{ name = \"{name}\" }}")).collect();
            names.join(", ")
        };
        let common: Vec<_> = (1..)
            .zip(COMMON)
            .map(|(number, name)| format!("{{ name = \"{name}\", authorisation = {number} }}"))
            .collect();
        format!(
            "[[system]]\nname = \"{}\"\nkind = \"salto_is\"\nexclusive = {}\n{}checkout = \"{}\"\n\
             after_deleted_card = \"{}\"\n\
             line = {{ tcp = \"salto:{}\" }}\nencoders = [{}]\nrooms = [{}]\ncommon = [{}]\n",
            self.name,
            self.sharing == Sharing::Exclusive,
            if self.sharing == Sharing::AssumeUnchanged { "assume_unchanged = true\n" } else { "" },
            if self.checks_out { "last_grant" } else { "never" },
            if self.overrides { "override" } else { "join" },
            SALTO + u16::try_from(place).unwrap(),
            named(&self.encoders),
            named(&self.rooms),
            common.join(", "),
        )
    }
}

/// How the agent of a house with these systems is configured.
pub(super) fn agent_config(systems: &[System]) -> AgentConfig {
    let sections: Vec<_> = systems.iter().enumerate().map(|(place, system)| system.section(place)).collect();
    let text = format!(
        "[site]\nname = \"House\"\ntime_zone = \"{ZONE}\"\n[storage]\nfolder = \"s\"\n\
         [limits]\ncards_per_hour = 100000\n{}",
        sections.concat(),
    );
    AgentConfig::from_toml(Path::new("/latchd.toml"), &text).unwrap_or_else(|error| panic!("{error}"))
}

/// The agent's drivers.
pub(super) fn drivers(
    parts: &agent::Parts,
    config: &AgentConfig,
    in_doubt: &BTreeSet<SystemName>,
    mutant: Mutant,
) -> Vec<Arc<dyn Driver>> {
    let zone = TimeZone::get(ZONE).unwrap();
    let start = |system: &latchd::config::SystemConfig| {
        let past = match in_doubt.contains(&system.name) {
            true => Past::AnswerMayCome,
            false => Past::Answered,
        };
        let DriverConfig::SaltoIs(salto) = &system.driver else {
            unreachable!("all systems are lock servers")
        };
        spoil_driver(mutant, salto, |salto| {
            let net: Arc<dyn Net> = Arc::clone(&parts.net);
            let (clock, random) = (parts.clock.clone(), parts.random.clone());
            Arc::new(SaltoIs::start_over(net, salto, system.name.clone(), zone.clone(), past, clock, random))
        })
    };
    config.systems.iter().map(start).collect()
}
