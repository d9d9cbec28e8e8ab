//! Values about people and secrets that must never be printed by accident.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serializer};
use zeroize::Zeroize;

/// A text that shows nothing in logs: a guest's name, a PIN, a pairing code.
///
/// It has no `Serialize`; the one road that carries it says so with [`on_the_wire`]. The memory is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Private(String);

impl Private {
    /// Takes a text into custody.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the few lines that must have it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private]")
    }
}

impl<'de> Deserialize<'de> for Private {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Private {
    fn schema_name() -> Cow<'static, str> {
        "Private".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text about a person or a secret: kept out of logs.",
            "type": "string",
        })
    }
}

/// `#[serde(serialize_with = "on_the_wire")]`: this field travels inside a sealed row or a TLS connection.
///
/// # Errors
/// Those of the serializer.
pub fn on_the_wire<S: Serializer>(value: &Private, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.expose())
}

/// [`on_the_wire`] for a value that may be absent.
///
/// # Errors
/// Those of the serializer.
pub fn on_the_wire_optional<S: Serializer>(
    value: &Option<Private>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_some(value.expose()),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_is_shown() {
        assert_eq!(format!("{:?}", Private::new("Jane Doe")), "[private]");
        assert_eq!(format!("{:#?}", Some(Private::new("4711"))), "Some(\n    [private],\n)");
    }
}
