//! UHPPOTE boards: every published frame against the codec, conversations with the pretend board whatever goes wrong, and
//! an independent client that judges that board and what we send it.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

mod codec;
mod door;
mod driver;
mod judge;
mod log;
mod pump;
mod talk;
mod vectors;
