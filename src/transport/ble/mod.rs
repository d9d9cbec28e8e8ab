//! Bluetooth Low Energy: one thread with everything of btleplug, and the shell that runs a conversation over GATT.
//!
//! This room knows no lock.

mod agent;
mod errors;
pub mod gatt;
mod link;
mod radio;
mod session;
mod watch;

pub use link::{Link, run};
pub use radio::{Radio, RadioSettings, RadioState, Unreachable, Wanted, WeakRadio};
