//! The property, and how its agent is configured.

use std::{collections::BTreeSet, sync::Arc};

use jiff::tz::TimeZone;
use latchd::{
    agent,
    config::{AgentConfig, DriverConfig},
    drivers::{
        Driver,
        kaba_messenger::KabaMessenger,
        salto_is::{Past, SaltoIs, sim::Property},
        sim_lock::SimLock,
        visionline::Visionline,
    },
    model::SystemName,
    seams::Net,
};

use super::{ENCODERS, LOCK_COUNT, LOCKS, ROOMS, SALTO};
use crate::{
    judge,
    mutant::{self, Mutant},
};

pub(super) fn property() -> Property {
    Property {
        time_zone: "Etc/UTC".into(),
        rooms: (101..101 + ROOMS).map(|room| room.to_string()).collect(),
        common: Vec::new(),
        encoders: (1..=ENCODERS).map(|encoder| encoder.to_string()).collect(),
    }
}

/// The agent's, which may be the only one that makes cards.
pub(super) fn agent_config(exclusive: bool) -> AgentConfig {
    let names = |names: &[String]| {
        let names: Vec<_> = names.iter().map(|name| format!("{{ name = \"{name}\" }}")).collect();
        names.join(", ")
    };
    let Property { rooms, encoders, .. } = property();
    let lock = |(number, port)| format!("{{ name = \"k{number}\", address = \"locks:{port}\" }}");
    let locks: Vec<_> = (1..=LOCK_COUNT).zip(LOCKS..).map(lock).collect();
    let text = format!(
        "[site]\nname = \"House\"\ntime_zone = \"Etc/UTC\"\n\
         [storage]\nfolder = \"s\"\n\
         [limits]\ncards_per_hour = 100000\nremote_unlock = true\n\
         [[system]]\nname = \"salto\"\nkind = \"salto_is\"\nexclusive = {exclusive}\nline = {{ tcp = \"salto:{SALTO}\" }}\n\
         encoders = [{}]\nrooms = [{}]\n\
         [[system]]\nname = \"keys\"\nkind = \"sim_lock\"\nlead = \"{}s\"\nlocks = [{}]\n",
        names(&encoders),
        names(&rooms),
        judge::LEAD.as_secs(),
        locks.join(", "),
    );
    AgentConfig::from_toml(std::path::Path::new("/latchd.toml"), &text)
        .unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn drivers(
    parts: &agent::Parts,
    config: &AgentConfig,
    in_doubt: &BTreeSet<SystemName>,
    mutant: Mutant,
) -> Vec<Arc<dyn Driver>> {
    let start = |system: &latchd::config::SystemConfig| {
        let past = match in_doubt.contains(&system.name) {
            true => Past::AnswerMayCome,
            false => Past::Answered,
        };
        let (name, clock, random) = (system.name.clone(), parts.clock.clone(), parts.random.clone());
        let net: Arc<dyn Net> = Arc::clone(&parts.net);
        match &system.driver {
            DriverConfig::SaltoIs(salto) => {
                let driver = SaltoIs::start_over(net, salto, name, TimeZone::UTC, past, clock, random);
                mutant::spoil_driver(mutant, Arc::new(driver))
            }
            DriverConfig::Visionline(visionline) => {
                let driver =
                    Visionline::start_over(net, visionline, name, TimeZone::UTC, past, clock, random);
                mutant::spoil_driver(mutant, Arc::new(driver))
            }
            DriverConfig::KabaMessenger(messenger) => {
                let driver =
                    KabaMessenger::start_over(net, messenger, name, TimeZone::UTC, past, clock, random);
                mutant::spoil_driver(mutant, Arc::new(driver))
            }
            DriverConfig::Ble(_)
            | DriverConfig::Igloohome(_)
            | DriverConfig::Uhppote(_)
            | DriverConfig::CardReader(_) => {
                unreachable!("no simulated site has one")
            }
            DriverConfig::SimLock(locks) => {
                let driver = SimLock::start_over(net, locks, name, TimeZone::UTC, clock);
                mutant::spoil_driver(mutant, Arc::new(driver))
            }
        }
    };
    config.systems.iter().map(start).collect()
}
