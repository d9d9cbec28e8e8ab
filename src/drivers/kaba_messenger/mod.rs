//! dormakaba Saflok System 6000 (Messenger LENS) and Ambiance by the Messenger PMS web service, SOAP over HTTP.
//!
//! # What stands on what
//! Nothing here was ever tried against a real server. Operations, their fields' order, the namespaces and the names of
//! faults agree with the service's published description and with two clients that use it. Guesses of ours, to be looked
//! at on a first visit: that Ambiance serves the same description (it is compared when the driver starts, and differences
//! are a condition); that times are the property's local time; which of a fault's strings names its reason (all are
//! searched); that a terminal has one command open at a time; that success means that the card was written; what
//! `KeySize` means. Not in the interface at all: reading a card. So nothing is ever proven by reading.
//!
//! Community has no public interface description. It is asked whether it serves this one, and is never presented as
//! working.
//!
//! [`codec`] spells envelopes, [`command`] what stands in them, [`answer`] and [`fault`] read what comes back, [`wsdl`]
//! what the service says of itself, [`session`] says what an exchange came to; none of these does IO or reads a clock.
//! [`driver`] turns orders into commands.

pub mod answer;
pub mod codec;
pub mod command;
pub mod driver;
pub mod fault;
pub(super) mod probe;
mod server;
pub mod session;
pub mod sim;
mod stays;
pub mod wsdl;

pub use driver::{KabaMessenger, REST};
