//! Pretend keypad locks: each one with its table, its clock, its ledger and its door.
//!
//! A lock reads frames with a parser of its own, from the protocol's description, and shares nothing with the driver's
//! codec, messages or session: one misunderstanding must not pass on both sides.
//!
//! # What it does
//! Everything the protocol says, and the door: `use 4711` types a PIN (or holds a card) and the lock opens or refuses by
//! its own table, clock and zone. Its clock can be set, drifts and jumps. What it holds survives a restart when it is
//! given a folder: every deed is one line of a journal there, written before it is answered, and the table is what the
//! journal says. `fault` makes it misbehave; see `help` at the control socket.
//!
//! # What it does not imitate
//! Radio and battery life, wrong-code lockouts, relocking, people who turn the handle; a power cut that tears the
//! journal's last line loses that deed and nothing else.

mod control;
mod faults;
mod front;
mod lock;
mod server;
mod wire;

pub use front::{Front, FrontError, House, LockPlace, Options, Places};
pub use lock::SettingsError;
pub use server::{Ended, Settings, Simulator};
