//! When access holds: half-open `[starts_at, ends_at)`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A span of real time; the end lies after the start, and no end means that it holds until it is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Wire")]
pub struct Window {
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
}

/// The end lies at or before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ends_at ({ends_at}) must be after starts_at ({starts_at})")]
pub struct WindowError {
    /// The start given.
    pub starts_at: Timestamp,
    /// The end given.
    pub ends_at: Timestamp,
}

#[derive(Deserialize, JsonSchema)]
struct Wire {
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
}

impl TryFrom<Wire> for Window {
    type Error = WindowError;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        Self::new(wire.starts_at, wire.ends_at)
    }
}

impl Window {
    /// Checks and takes a span.
    ///
    /// # Errors
    /// When the end does not lie after the start.
    pub fn new(starts_at: Timestamp, ends_at: Option<Timestamp>) -> Result<Self, WindowError> {
        match ends_at {
            Some(ends_at) if ends_at <= starts_at => Err(WindowError { starts_at, ends_at }),
            _ => Ok(Self { starts_at, ends_at }),
        }
    }

    /// The first instant inside.
    #[must_use]
    pub fn starts_at(&self) -> Timestamp {
        self.starts_at
    }

    /// The first instant after, if there is one.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.ends_at
    }

    /// Whether both hold at some instant; windows that touch do not overlap.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.ends_at.is_none_or(|end| other.starts_at < end)
            && other.ends_at.is_none_or(|end| self.starts_at < end)
    }

    /// Whether the span is over at `now`.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|end| end <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: i64, to: Option<i64>) -> Window {
        let at = |second| Timestamp::from_second(second).unwrap();
        Window::new(at(from), to.map(at)).unwrap()
    }

    #[test]
    fn touching_windows_do_not_overlap_and_an_open_end_reaches_everything() {
        assert!(!window(0, Some(10)).overlaps(&window(10, Some(20))));
        assert!(window(0, Some(11)).overlaps(&window(10, Some(20))));
        assert!(window(0, None).overlaps(&window(10, Some(20))));
        assert!(!window(20, None).overlaps(&window(10, Some(20))));
    }

    #[test]
    fn an_end_at_or_before_the_start_is_refused_also_from_the_wire() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(Window::new(at(5), Some(at(5))).is_err());
        let text = r#"{"starts_at":"2026-11-22T00:00:00Z","ends_at":"2026-11-21T00:00:00Z"}"#;
        let error = serde_json::from_str::<Window>(text).unwrap_err().to_string();
        assert!(error.contains("must be after starts_at"), "{error}");
    }
}
