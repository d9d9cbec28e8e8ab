//! A pretend PN532 with cards in its field, on a serial port or at a TCP port.
//!
//! It reads frames with a parser of its own, and shares nothing with the driver's codec or session: one misunderstanding
//! must not pass on both sides. Debian's libnfc takes it for a PN532.
//!
//! # What it does
//! It sleeps until it is woken, is set up, calls cards and lets go of them; a call without an end waits for a card.
//! `place` and `lift` lay cards down, `fault` makes the chip misbehave; see `help` at the control socket.
//!
//! # What it does not imitate
//! What cards hold: they tell their numbers, and answer nothing else. Speeds other than the first, other kinds of radio than
//! ISO 14443 A at 106 kbit/s, and the chip as a card.

mod chip;
mod control;
mod front;
mod server;

pub use chip::Card;
pub use front::{Front, FrontError, Options, Places};
pub use server::Reader;
