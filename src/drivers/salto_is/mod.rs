//! SALTO SPACE by its "Industry Standard" PMS interface (v1.16).
//!
//! The lock server listens, on a serial port or a TCP port, and serves all its Ethernet encoders over that one line.
//! A conversation is: a readiness poll, a frame, its acknowledgement, and, when the card is done or refused, the
//! answer. Answers carry no request id, so there is one request in flight per line.
//!
//! [`codec`] spells frames, [`command`] and [`answer`] what stands in them, [`session`] holds one conversation,
//! [`driver`] turns orders into sessions and keeps the line open. None of the first four does IO or reads a clock.

pub mod answer;
pub mod codec;
pub mod command;
mod desk;
pub mod driver;
mod keeper;
pub(super) mod probe;
pub mod session;
pub mod sim;

pub use driver::SaltoIs;

pub use super::Past;
