//! Health is a list of named conditions, not a boolean.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something an operator should know, for as long as it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Condition {
    /// Stable name, e.g. `line_down`.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// What it is about: `salto`, `link`, `store`.
    pub subject: String,
    /// For a person: what is wrong, and what to do.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// How bad a condition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Notice,
    /// Works, but not as it should.
    Warning,
    /// Something does not work until somebody acts or it comes back.
    Error,
}
