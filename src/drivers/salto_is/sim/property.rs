//! The property that the simulator pretends to serve.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use serde::Deserialize;

/// Rooms, common doors and encoders, by their names in the lock system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Property {
    /// IANA zone of the property: all times on the wire and on cards are local.
    pub time_zone: String,
    /// Guest rooms.
    pub rooms: Vec<String>,
    /// Common doors.
    pub common: Vec<CommonDoor>,
    /// Ethernet encoders.
    pub encoders: Vec<String>,
}

/// A door that many guests may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommonDoor {
    /// Its name.
    pub name: String,
    /// Its number on the "PMS Authorizations" screen, 1 to 62.
    pub authorisation: u8,
}

impl Default for Property {
    /// Two floors of ten rooms, five common doors, three encoders, in Oslo.
    fn default() -> Self {
        let common = ["pool", "spa", "gym", "garage", "lounge"];
        Self {
            time_zone: "Europe/Oslo".into(),
            rooms: (101..=110).chain(201..=210).map(|n| n.to_string()).collect(),
            common: common
                .into_iter()
                .zip(1..)
                .map(|(name, authorisation)| CommonDoor { name: name.into(), authorisation })
                .collect(),
            encoders: vec!["1".into(), "2".into(), "Online Encoder 1".into()],
        }
    }
}

/// Why a property cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// Nothing to check in to, or nothing to do it with.
    #[error("a property needs at least one room and one encoder")]
    Empty,
    /// A name that the wire cannot carry.
    #[error("{0:?} cannot be a name: it must be Latin-1 text without control characters or the separator")]
    Name(String),
    /// Two doors or two encoders of one name, or two doors of one authorisation.
    #[error("{0:?} stands there twice")]
    Twice(String),
    /// An authorisation that has no symbol.
    #[error("the authorisation of {door:?} is {number}; it must be 1 to 62")]
    Authorisation {
        /// The door.
        door: String,
        /// Its number.
        number: u8,
    },
    /// Not an IANA zone.
    #[error("{0:?} is not an IANA time zone")]
    TimeZone(String),
}

/// How an agent would reach the simulator.
#[derive(Debug, Clone, Copy)]
pub enum AgentLine<'a> {
    /// By TCP.
    Tcp(SocketAddr),
    /// By its serial port.
    Serial(&'a Path),
}

impl Property {
    pub(super) fn check(&self) -> Result<jiff::tz::TimeZone, PropertyError> {
        if self.rooms.is_empty() || self.encoders.is_empty() {
            return Err(PropertyError::Empty);
        }
        let mut doors = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        let mut encoders = BTreeSet::new();
        let common = self.common.iter().map(|door| &door.name);
        for name in self.rooms.iter().chain(common) {
            fits(name)?;
            if !doors.insert(name) {
                return Err(PropertyError::Twice(name.clone()));
            }
        }
        for name in &self.encoders {
            fits(name)?;
            if !encoders.insert(name) {
                return Err(PropertyError::Twice(name.clone()));
            }
        }
        for CommonDoor { name, authorisation } in &self.common {
            if !(1..=62).contains(authorisation) {
                return Err(PropertyError::Authorisation { door: name.clone(), number: *authorisation });
            }
            if !numbers.insert(*authorisation) {
                return Err(PropertyError::Twice(name.clone()));
            }
        }
        jiff::tz::TimeZone::get(&self.time_zone).map_err(|_| PropertyError::TimeZone(self.time_zone.clone()))
    }

    /// The `[[system]]` section with which an agent's configuration describes this property.
    #[must_use]
    pub fn agent_section(&self, system: &str, line: AgentLine<'_>) -> String {
        let line = match line {
            AgentLine::Tcp(address) => format!("tcp = {}", quoted(&address.to_string())),
            AgentLine::Serial(path) => format!("serial = {}", quoted(&path.to_string_lossy())),
        };
        let named = |names: &[String]| -> String {
            names.iter().map(|name| format!("    {{ name = {} }},\n", quoted(name))).collect()
        };
        let common: String = self
            .common
            .iter()
            .map(|door| {
                let name = quoted(&door.name);
                format!("    {{ name = {name}, authorisation = {} }},\n", door.authorisation)
            })
            .collect();
        format!(
            "[[system]]\nname = {}\nkind = \"salto_is\"\nexclusive = true\nline = {{ {line} }}\n\
             encoders = [\n{}]\nrooms = [\n{}]\ncommon = [\n{common}]\n",
            quoted(system),
            named(&self.encoders),
            named(&self.rooms),
        )
    }
}

fn fits(name: &str) -> Result<(), PropertyError> {
    let speakable = |c: char| u8::try_from(c).is_ok() && !c.is_control() && c != '\u{b3}';
    if name.trim().is_empty() || !name.chars().all(speakable) {
        return Err(PropertyError::Name(name.to_owned()));
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AgentConfig, DriverConfig, SystemConfig};

    fn described(property: &Property, line: AgentLine<'_>) -> SystemConfig {
        let text = property.agent_section("front desk", line);
        let head = "[site]\nname = \"House\"\ntime_zone = \"Europe/Oslo\"\n[storage]\nfolder = \"s\"\n";
        let text = format!("{head}{text}");
        let config = AgentConfig::from_toml(std::path::Path::new("/latchd.toml"), &text);
        config.unwrap_or_else(|errors| panic!("{errors}\n{text}")).systems.remove(0)
    }

    #[test]
    fn the_agents_section_names_every_door_and_encoder() {
        let mut property = Property::default();
        property.rooms.push("0\"quoted\\1".into());
        property.check().unwrap();
        let config = described(&property, AgentLine::Tcp("127.0.0.1:8090".parse().unwrap()));
        assert_eq!(config.name.as_str(), "front desk");
        let DriverConfig::SaltoIs(salto) = config.driver else { panic!("another make") };
        assert_eq!(salto.line.tcp.as_deref(), Some("127.0.0.1:8090"));
        let rooms: Vec<_> = salto.rooms.iter().map(|room| room.name.as_str()).collect();
        assert_eq!(rooms, property.rooms);
        let encoders: Vec<_> = salto.encoders.iter().map(|encoder| encoder.name.as_str()).collect();
        assert_eq!(encoders, property.encoders);
        let common: Vec<_> = salto
            .common
            .iter()
            .map(|door| CommonDoor { name: door.name.to_string(), authorisation: door.authorisation })
            .collect();
        assert_eq!(common, property.common);
    }

    #[test]
    fn a_serial_line_is_named_by_its_path() {
        let config = described(&Property::default(), AgentLine::Serial(Path::new("/tmp/a b/salto-is.tty")));
        let DriverConfig::SaltoIs(salto) = config.driver else { panic!("another make") };
        assert_eq!(salto.line.serial.as_deref(), Some(Path::new("/tmp/a b/salto-is.tty")));
        assert_eq!(salto.line.tcp, None);
    }

    #[test]
    fn a_property_that_the_wire_cannot_carry_is_refused_by_name() {
        let check = |change: fn(&mut Property), expected: PropertyError| {
            let mut property = Property::default();
            change(&mut property);
            assert_eq!(property.check().unwrap_err(), expected);
        };
        check(|it| it.rooms.clear(), PropertyError::Empty);
        check(|it| it.rooms.push("101".into()), PropertyError::Twice("101".into()));
        check(|it| it.rooms.push("pool".into()), PropertyError::Twice("pool".into()));
        check(|it| it.rooms.push("a\u{b3}b".into()), PropertyError::Name("a\u{b3}b".into()));
        check(|it| it.time_zone = "Oslo".into(), PropertyError::TimeZone("Oslo".into()));
        let authorisation = PropertyError::Authorisation { door: "pool".into(), number: 63 };
        check(|it| it.common[0].authorisation = 63, authorisation);
    }
}
