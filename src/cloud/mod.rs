//! The self-hosted cloud: the Access Grants HTTP API and the bridges' websocket, on SQLite.
//!
//! No room of the agent knows this one. Three doors, one store: HTTP requests (`api`), bridge frames (`hub`, with [`enrol`]
//! for those that are not bridges yet) and local administration ([`admin`]) all end in functions of [`store::Db`].

pub mod admin;
pub mod api;
mod backup;
pub mod enrol;
pub mod hub;
pub mod keys;
mod serve;
mod signals;
mod simulators;
pub mod store;
pub mod tls;
mod webhooks;

pub use backup::{back_up, restore};
pub use serve::{CloudError, Parts, Running, start, work, work_with};
pub use signals::Signals;
pub use simulators::Simulators;
pub use webhooks::Reach;

/// A time as answers carry it: UTC, with milliseconds.
pub(crate) fn time_text(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}
