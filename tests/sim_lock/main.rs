//! The pretend keypad lock and its driver: the bytes, one conversation, and both against each other.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod control;
mod driver;
mod events;
mod faults;
mod house;
mod secrets;
mod session;
mod wire;
mod zones;
