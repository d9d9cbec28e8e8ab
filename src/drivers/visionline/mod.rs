//! ASSA ABLOY Visionline by its PMS text interface, over TCP or a serial line.
//!
//! The server listens. A conversation is one command and its answer; over TCP it has a connection of its own, so that an
//! answer that comes late finds nobody.
//!
//! # What stands on what
//! Nothing here was ever tried against a real server. Commands, their order of items, the result codes and one success
//! answer agree with what a PMS and a PMS maker publish. Guesses of ours, to be looked at on a first visit: what ends an
//! answer over TCP where no line end does; how answers are framed and checked on a serial line; that a lone NAK refuses;
//! that one room stands on a card; that encoders work side by side over connections of their own; that success means
//! that the card was written. Not known at all, and so not offered: freeing a room, changing a stay, cancelling a card.
//!
//! [`codec`] spells texts, [`command`] and [`answer`] what stands in them, [`session`] holds one conversation,
//! [`driver`] turns orders into sessions. None of the first four does IO or reads a clock.

pub mod answer;
pub mod codec;
pub mod command;
mod desk;
pub mod driver;
mod line;
pub(super) mod probe;
pub mod session;
pub mod sim;
pub mod web;

pub use driver::Visionline;
