//! A pretend lock with a keypad: its keys, its table, its clock, its bolt and its log.
//!
//! It reads and writes values with ciphers and checks of its own, from the protocol's description, and shares nothing
//! with the driver's codec, messages or session: one misunderstanding must not pass on both sides.
//!
//! # What it does
//! The handshake, and every command whose layout is known. A PIN is typed with `type` and opens by the lock's own table
//! and clock; `try` asks the same without touching anything. `fault` makes it misbehave; see `help`.
//!
//! # What it does not imitate
//! Its nonces count up, since a pretend lock keeps no secret. Days of the week are those of UTC. A keypad never locks
//! itself out, and nothing survives a restart. How a lock without a keypad refuses is a guess, as is that what is held
//! ready for a slot is gone when the connection is.

mod control;
mod faults;
mod lock;
mod table;
mod wire;

pub use lock::{AugustLock, Settings};
