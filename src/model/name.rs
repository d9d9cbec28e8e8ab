//! Names that sites and vendors give to things. A name is text without control characters, of bounded length, and
//! never empty; it is compared exactly as written (leading zeros of a room count).

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or only blanks.
    #[error("{what} is empty")]
    Empty {
        /// Which kind of name.
        what: &'static str,
    },
    /// Longer than the limit.
    #[error("{what} has {length} characters, at most {limit} are allowed")]
    TooLong {
        /// Which kind of name.
        what: &'static str,
        /// How many it has.
        length: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A character that no device could be told.
    #[error("{what} contains a control character (U+{code:04X})")]
    Control {
        /// Which kind of name.
        what: &'static str,
        /// The character's code point.
        code: u32,
    },
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $limit:literal);* $(;)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When the text is empty, too long, or holds a control character.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check($what, $limit, &text)?;
                Ok(Self(text))
            }

            /// The name as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": concat!("A ", $what, ": not blank, and without control characters."),
                    "type": "string",
                    "minLength": 1,
                    "maxLength": $limit,
                    "pattern": PATTERN,
                })
            }
        }
    )*};
}

names! {
    /// The site's name for an access system, from the agent's configuration; the first half of every local id.
    SystemName, "system name", 64;
    /// A door's name in its own access system.
    DoorName, "door name", 64;
    /// An encoder's name or number in its own access system.
    EncoderName, "encoder name", 64;
    /// A standalone device's name on the site.
    DeviceName, "device name", 64;
    /// A lane: one queue of work at one device or one shared line.
    LaneName, "lane name", 160;
    /// The caller's name for a stay; grants that share it share the room.
    ReservationKey, "reservation_key", 255;
}

/// What [`check`] asks for, apart from the length, as a regular expression of ECMA-262.
const PATTERN: &str =
    r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";

fn check(what: &'static str, limit: usize, text: &str) -> Result<(), NameError> {
    if text.trim().is_empty() {
        return Err(NameError::Empty { what });
    }
    let length = text.chars().count();
    if length > limit {
        return Err(NameError::TooLong { what, length, limit });
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(NameError::Control { what, code: u32::from(c) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_exactly_as_written() {
        assert_eq!(DoorName::new("0101").unwrap().as_str(), "0101");
        assert_ne!(DoorName::new("0101").unwrap(), DoorName::new("101").unwrap());
    }

    #[test]
    fn empty_long_and_control_characters_are_refused_by_name() {
        assert_eq!(DoorName::new("  "), Err(NameError::Empty { what: "door name" }));
        assert_eq!(
            DoorName::new("x".repeat(65)),
            Err(NameError::TooLong { what: "door name", length: 65, limit: 64 })
        );
        assert_eq!(DoorName::new("10\u{2}1"), Err(NameError::Control { what: "door name", code: 2 }));
        assert!(serde_json::from_str::<EncoderName>("\"\"").is_err());
    }
}
