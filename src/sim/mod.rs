//! What simulators share: a pty that looks like a by-id serial port, a control socket with one command a line, and
//! the tape of everything that went over the wire, and a player of what was recorded of a real system.
//!
//! Knows no protocol, but that one is over HTTP. Only the drivers' own simulators and `cli` look in here.

pub mod ble;
pub mod control;
mod pty;
pub mod script;
mod tape;

pub use pty::Pty;
pub use tape::{Direction, Entry, Tape};
