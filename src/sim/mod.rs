//! What simulators share: a pty that looks like a by-id serial port, a control socket with one command a line, and
//! the tape of everything that went over the wire.
//!
//! Knows no protocol. Only the drivers' own simulators and `cli` look in here.

pub mod control;
mod pty;
mod tape;

pub use pty::Pty;
pub use tape::{Direction, Entry, Tape};
