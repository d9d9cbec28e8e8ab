//! Readers on desks: they read the number of a card's chip, for devices that know cards by it.
//!
//! To encode a card here is to read its number: nothing is written to the card. The number is what the cloud then has put
//! into the devices.
//!
//! A reader is a PN532 on a serial line, 115200 baud. Its frames agree with published vectors, and the pretend one is taken
//! for a PN532 by libnfc; no real one has been tried.

pub mod codec;
mod driver;
pub mod session;
pub mod sim;

pub use driver::CardReaders;
