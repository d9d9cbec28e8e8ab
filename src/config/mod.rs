//! The two configuration files, as types. Each field's text here is its reference.
//!
//! A file is read whole: every mistake that can be found is told at once, each with its place and a way out. A
//! setting that nobody reads is a mistake too. Secrets are never values here, only names of files. Relative paths
//! begin at the folder of the file they stand in.

mod agent;
mod cloud;
mod http;
mod import;
mod mistakes;
mod route;
mod section;
mod system;

use std::{fs, path::Path};

pub use agent::{Admin, AgentConfig, CloudLink, Limits, Site, StorageConfig};
pub use cloud::{
    ApiConfig, BridgesConfig, CloudConfig, RetentionConfig, SimulatorConfig, TlsFiles, WebhooksConfig,
    WorkspaceConfig,
};
pub use http::{HttpConfig, HttpUrl, HttpUrlError};
pub use import::{Change, ImportError, Imported, Kind as ImportKind, Row as ImportRow, import, rows};
pub use mistakes::{ConfigErrors, Mistake, Place};
pub use route::{Bypass, BypassError, Pins, PinsError, ProxyAt, ProxyConfig, RouteConfig, SpkiPin};
pub use system::{
    AfterDeletedCard, BleConfig, BleLockConfig, BleMake, BoardConfig, BoardDoor, COMMUNITY, CardNumbers,
    CardReaderConfig, Checkout, CheckoutOf, CommonConfig, Dialect, DoorConfig, DriverConfig, EncoderConfig,
    HourRounding, IgloohomeConfig, IgloohomeLock, KabaMessengerConfig, KabaProduct, LineConfig, LockConfig,
    LrcConfig, NumberedConfig, PassLevelConfig, ReaderConfig, SaltoIsConfig, SimLockConfig, SystemConfig,
    TerminalConfig, UhppoteConfig, VisionlineConfig, VisionlineWebConfig,
};

impl AgentConfig {
    /// Reads and judges the agent's file.
    ///
    /// # Errors
    /// When it cannot be read, or with every mistake in it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::from_toml(path, &read(path)?)
    }

    /// The same with the text at hand; `path` is where it would stand.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn from_toml(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        section::read_file(path, text, Self::read)
    }
}

impl CloudConfig {
    /// Reads and judges the cloud's file.
    ///
    /// # Errors
    /// When it cannot be read, or with every mistake in it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::from_toml(path, &read(path)?)
    }

    /// The same with the text at hand; `path` is where it would stand.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn from_toml(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        section::read_file(path, text, Self::read)
    }
}

impl SystemConfig {
    /// Reads and judges the `[[system]]` tables of a text that holds nothing else.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn all_from_toml(path: &Path, text: &str) -> Result<Vec<Self>, ConfigErrors> {
        section::read_file(path, text, Self::read_all)
    }
}

/// Either file.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyConfig {
    /// The agent's.
    Agent(Box<AgentConfig>),
    /// The cloud's.
    Cloud(Box<CloudConfig>),
}

impl AnyConfig {
    /// Reads and judges a file, telling by its content whose it is: only the cloud's has `[api]` or `[bridges]`.
    ///
    /// # Errors
    /// As [`AgentConfig::load`].
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = read(path)?;
        let (root, _) = toml::de::DeTable::parse_recoverable(&text);
        let has = |key: &str| root.get_ref().contains_key(key);
        let cloud = (has("api") || has("bridges")) && !has("site") && !has("system");
        Ok(match cloud {
            true => Self::Cloud(Box::new(CloudConfig::from_toml(path, &text)?)),
            false => Self::Agent(Box::new(AgentConfig::from_toml(path, &text)?)),
        })
    }
}

fn read(path: &Path) -> Result<String, ConfigErrors> {
    fs::read_to_string(path).map_err(|source| ConfigErrors::Unreadable { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{section::settings_asked, *};

    const AGENT: &str = include_str!("../../config/latchd.example.toml");
    const CLOUD: &str = include_str!("../../config/cloud.example.toml");

    /// The example with every setting that is commented out (`#key = …`, without a blank) put into force.
    fn in_force(example: &str) -> String {
        let line = |line: &str| match line.trim_start().strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                format!("{setting}\n")
            }
            _ => format!("{line}\n"),
        };
        example.lines().map(line).collect()
    }

    #[test]
    fn the_examples_load_as_they_are_and_with_every_setting_in_force() {
        let path = Path::new("/etc/latchd/latchd.toml");
        for text in [AGENT.to_string(), in_force(AGENT)] {
            AgentConfig::from_toml(path, &text).unwrap_or_else(|errors| panic!("{errors}"));
        }
        for text in [CLOUD.to_string(), in_force(CLOUD)] {
            CloudConfig::from_toml(path, &text).unwrap_or_else(|errors| panic!("{errors}"));
        }
    }

    #[test]
    fn every_setting_there_is_stands_in_its_example() {
        let agent = settings_asked(&in_force(AGENT), AgentConfig::read);
        let cloud = settings_asked(&in_force(CLOUD), CloudConfig::read);
        assert!(agent.len() > 40 && cloud.len() > 10, "{agent:?} {cloud:?}");
        for (setting, stands) in agent.into_iter().chain(cloud) {
            assert!(stands, "{setting} is in no example");
        }
    }

    #[test]
    fn what_an_example_shows_commented_out_is_the_default() {
        let path = Path::new("/etc/latchd/latchd.toml");
        let plain = AgentConfig::from_toml(path, AGENT).unwrap();
        let spelt = AgentConfig::from_toml(path, &in_force(AGENT)).unwrap();
        assert_eq!(plain.stop_deadline, spelt.stop_deadline);
        assert_eq!(plain.admin, spelt.admin);
        assert_eq!(plain.limits.cards_per_hour, spelt.limits.cards_per_hour);
        assert_eq!(plain.limits.longest_validity, spelt.limits.longest_validity);
        assert_eq!(plain.limits.waiting_jobs, spelt.limits.waiting_jobs);
    }
}
