//! Readers on desks, for devices that know cards by the numbers of their chips.

use std::collections::BTreeSet;

use super::{LineConfig, Section, Setting, list, names};
use crate::model::EncoderName;

/// Readers on desks.
#[derive(Debug, Clone, PartialEq)]
pub struct CardReaderConfig {
    /// The readers.
    pub encoders: Vec<ReaderConfig>,
}

/// One reader: a PN532 on a serial line.
#[derive(Debug, Clone, PartialEq)]
pub struct ReaderConfig {
    /// The site's name for it; half of its local id. Never change it.
    pub name: EncoderName,
    /// What people call it.
    pub display_name: Option<String>,
    /// Its line. Default 115200 baud, `8N1`, without a handshake.
    pub line: LineConfig,
}

impl CardReaderConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let encoders = section
            .must(
                "encoders",
                "its readers, e.g. encoders = [{ name = \"desk\", line = { serial = \"/dev/serial/by-id/…\" } }]",
            )
            .and_then(|setting| {
                let encoders =
                    list(&setting, &mut BTreeSet::new(), ReaderConfig::read, |encoder| encoder.name.as_str())?;
                if encoders.is_empty() {
                    setting.wrong("the list is empty", "without a reader no card can be read");
                }
                let mut lines = BTreeSet::new();
                for encoder in &encoders {
                    let line = encoder.line.to_string();
                    if !lines.insert(line.clone()) {
                        setting.wrong(format!("two readers share the line {line}"), "each has its own");
                    }
                }
                Some(encoders)
            });
        Some(Self { encoders: encoders? })
    }
}

impl ReaderConfig {
    fn read(setting: &Setting<'_>) -> Option<Self> {
        let section = setting.section()?;
        let (name, display_name) = names(&section);
        let line = section
            .must("line", "how it is reached, e.g. line = { serial = \"/dev/serial/by-id/…\" }")
            .and_then(|setting| LineConfig::read(&setting.section()?, 115_200, "8N1", false));
        Some(Self { name: name?, display_name, line: line? })
    }
}
