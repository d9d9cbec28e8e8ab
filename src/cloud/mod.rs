//! The self-hosted cloud: the Access Grants HTTP API and the bridges' websocket, on SQLite.
//!
//! No room of the agent knows this one. Two front doors, one store: HTTP requests (`api`) and bridge frames (`hub`)
//! both end in functions of [`store::Db`].

pub mod api;
pub mod hub;
mod signals;
pub mod store;

pub use signals::Signals;
