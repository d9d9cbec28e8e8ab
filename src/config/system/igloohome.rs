//! Locks whose codes their maker's cloud computes.

use std::collections::BTreeSet;

use super::{Section, Setting, list, names, pin_lengths};
use crate::model::DeviceName;

/// igloohome locks. Nothing on the property speaks to them: a lock checks by itself what its maker's cloud has computed.
#[derive(Debug, Clone, PartialEq)]
pub struct IgloohomeConfig {
    /// The locks.
    pub locks: Vec<IgloohomeLock>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct IgloohomeLock {
    /// The site's name for it; half of its local id. Never change it.
    pub name: DeviceName,
    /// What people call it.
    pub display_name: Option<String>,
    /// How many digits its maker's codes may have. Default 4 to 9.
    pub pin_lengths: Vec<u8>,
    /// As what the cloud's clients see it. Default `igloohome_lock`.
    pub device_type: String,
}

impl IgloohomeConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let setting = section.must("locks", "its locks, e.g. locks = [{ name = \"101\" }]")?;
        let locks = list(&setting, &mut BTreeSet::new(), IgloohomeLock::read, |lock| lock.name.as_str())?;
        if locks.is_empty() {
            setting.wrong("the list is empty", "a system without a lock can do nothing");
        }
        Some(Self { locks })
    }
}

impl IgloohomeLock {
    fn read(setting: &Setting<'_>) -> Option<Self> {
        let section = setting.section()?;
        let (name, display_name) = names(&section);
        let pin_lengths = pin_lengths(&section, 4..=9);
        let device_type = section.get("device_type").and_then(|setting| setting.text().map(String::from));
        Some(Self {
            name: name?,
            display_name,
            pin_lengths: pin_lengths.unwrap_or_else(|| (4..=9).collect()),
            device_type: device_type.unwrap_or_else(|| "igloohome_lock".into()),
        })
    }
}
