//! Another configuration while the agent runs: what it must hold to be taken over, and what it changes.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::tz::TimeZone;
use tokio::signal::unix::Signal;

use super::{
    mistakes,
    pairing::{Own, Pairing},
};
use crate::{
    config::{AgentConfig, ConfigErrors, Mistake, SystemConfig},
    drivers::{Driver, Past},
    link::Settings,
    model::SystemName,
};

/// How an agent is given another configuration.
pub(super) struct Reload {
    /// Where it stands.
    pub(super) path: PathBuf,
    /// Each asks for it to be read again.
    pub(super) hangups: Signal,
    /// Starts a driver.
    pub(super) start: Box<Start>,
}

/// Starts the driver of a system in a zone.
pub(super) type Start = dyn Fn(&SystemConfig, &TimeZone, Past) -> Arc<dyn Driver> + Send;

/// What was read.
pub(super) struct Read {
    pub(super) config: AgentConfig,
    /// How the site is paired now, and what the link needs of that; nothing where the agent was not started from a file.
    pub(super) paired: Option<(Pairing, Settings)>,
}

/// Reads the file and the pairing again, and judges them as the start does.
///
/// # Errors
/// Every mistake that could be found, each with its place; never none.
pub(super) fn read(path: &Path, own: Option<&Own>) -> Result<Read, Vec<String>> {
    let config = AgentConfig::load(path).map_err(|errors| match &errors {
        ConfigErrors::Unreadable { source, .. } => vec![format!("{errors}: {source}")],
        ConfigErrors::Mistakes { mistakes, .. } => {
            mistakes.iter().map(|mistake| in_a_line(path, mistake)).collect()
        }
    })?;
    let wrong = mistakes(&config);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let paired = own.map(|own| {
        let pairing = Pairing::load(&Pairing::path(&config))?;
        let settings = pairing.settings(&config, &own.seal)?;
        anyhow::Ok((pairing, settings))
    });
    match paired.transpose() {
        Ok(paired) => Ok(Read { config, paired }),
        Err(error) => Err(vec![format!("{}: {error:#}", path.display())]),
    }
}

fn in_a_line(path: &Path, mistake: &Mistake) -> String {
    let mut text = path.display().to_string();
    if let Some(place) = &mistake.place {
        text += &format!(":{}:{}", place.line, place.column);
    }
    for part in [Some(&mistake.setting), Some(&mistake.problem), mistake.help.as_ref()].into_iter().flatten()
    {
        if !part.is_empty() {
            text += &format!(": {part}");
        }
    }
    text
}

/// Settings that differ and take a restart, by name.
pub(super) fn needs_restart(old: &AgentConfig, new: &AgentConfig) -> Vec<&'static str> {
    let differs = [("storage", old.storage != new.storage), ("admin.socket", old.admin != new.admin)];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// The new configuration as far as it can be in force without a restart.
pub(super) fn in_force(old: &AgentConfig, new: AgentConfig) -> AgentConfig {
    AgentConfig { storage: old.storage.clone(), admin: old.admin.clone(), ..new }
}

/// Systems whose drivers go on as they are. Who else makes cards there, and when rooms are freed, is no driver's
/// matter.
pub(super) fn unchanged(old: &AgentConfig, new: &AgentConfig) -> BTreeSet<SystemName> {
    if old.site.time_zone != new.site.time_zone {
        return BTreeSet::new();
    }
    let same = |name: &SystemName| {
        let driver = |config: &AgentConfig| {
            config.systems.iter().find(|system| system.name == *name).map(|system| system.driver.clone())
        };
        driver(old) == driver(new)
    };
    new.systems.iter().map(|system| system.name.clone()).filter(same).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl Fn(String) -> String) -> AgentConfig {
        let text = change(include_str!("../../config/latchd.example.toml").to_string());
        AgentConfig::from_toml(Path::new("/etc/latchd/latchd.toml"), &text)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn only_systems_whose_line_or_doors_differ_get_another_driver() {
        let old = config(|text| text);
        let names = |new: &AgentConfig| {
            unchanged(&old, new).into_iter().map(|name| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&old), ["annex", "salto"]);
        let other_sharing = config(|text| text.replacen("exclusive = true", "exclusive = false", 1));
        assert_eq!(names(&other_sharing), ["annex", "salto"]);
        let other_room = config(|text| text.replacen("rooms = [", "rooms = [\"9001\", ", 1));
        assert_eq!(names(&other_room).len(), 1);
        let other_zone = config(|text| text.replace("Europe/Oslo", "Europe/Berlin"));
        assert!(names(&other_zone).is_empty());
    }

    #[test]
    fn what_takes_a_restart_is_named_and_stays_as_it_was() {
        let old = config(|text| text);
        let new = config(|text| {
            text.replace("#socket = \"/run/latchd/", "socket = \"/run/elsewhere/")
                .replace("Hotel Fjord", "Hotel Fjell")
        });
        assert_eq!(needs_restart(&old, &old), [] as [&str; 0]);
        assert_eq!(needs_restart(&old, &new), ["admin.socket"]);
        let now = in_force(&old, new);
        assert_eq!((now.admin, now.site.name.as_str()), (old.admin, "Hotel Fjell"));
    }
}
