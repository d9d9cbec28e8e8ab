//! The self-hosted cloud: the Access Grants HTTP API and the bridges' websocket, on SQLite.
//!
//! No room of the agent knows this one. Two front doors, one store: HTTP requests (`api`) and bridge frames (`hub`)
//! both end in functions of [`store::Db`].

pub mod api;
mod backup;
pub mod hub;
pub mod keys;
mod serve;
mod signals;
pub mod store;
pub mod tls;

pub use backup::{back_up, restore};
pub use serve::{CloudError, Parts, Running, start, work};
pub use signals::Signals;

/// A time as answers carry it: UTC, with milliseconds.
pub(crate) fn time_text(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}
