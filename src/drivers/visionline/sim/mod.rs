//! A pretend Visionline server with its encoders, its cards and its offline locks, over TCP.
//!
//! It reads commands with a parser of its own, from the published layout, and shares nothing with the driver's codec or
//! session: one misunderstanding must not pass on both sides.
//!
//! # What it does
//! `CCA` and `CCB`, joiners, the wait for a card, one command a connection, any result code on demand, 85 with its later
//! answer, half lines, answers without a line end, a lone NAK, clients whose address is not entered. Doors are offline: a
//! lock knows the newest stay it has seen on a card, and the first use of a newer one's kills the earlier cards there.
//! Common rooms never override. Times are the property's local time.
//!
//! # What is inference, not source
//! - Items must stand in the order that a known client uses, each once; whatever is not as published is answered by 128
//!   with a text, as are an unknown room, a joiner in a room that nobody holds, and dates that cannot be. Which codes a
//!   real server uses there is not published.
//! - A stay begins when its card is written. A blank card is read as 43, a foreign one as 17, a damaged one as 38.
//! - A client whose address is not entered is hung up on at once.
//! - An order lives on when its client hangs up: a card laid down later is still written.
//!
//! # What it does not imitate
//! Faults but `nak` and silence on the serial line, where no speed or parity is kept either; several rooms or cards a command; user groups and card types (taken, and ignored); online doors, blacklists and key expiry by the server itself.

mod control;
mod front;
mod serial;
mod server;
mod web;
mod wire;
mod world;

pub use front::{Front, FrontError, Options, Places};
pub use server::{Settings, Simulator};
pub use world::{CommonRoom, Property, PropertyError};
