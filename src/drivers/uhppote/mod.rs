//! UHPPOTE door controllers (UT0311-L01, -L02, -L04): boards for one, two and four doors, spoken to by datagrams of 64
//! bytes.
//!
//! # The line
//! UDP port 60000 of a board, or TCP there with one request a connection. Nothing is authenticated and nothing encrypted:
//! whoever reaches the port opens the doors, so a board belongs on a network of its own. A board answers with the function
//! and the serial number it was asked with, and says nothing to what it does not understand. Replies carry nothing else
//! that tells them apart: one request at a time.
//!
//! # Repetition
//! To put a card or a profile, to delete a card, to set the clock: the same however often it is asked, and read back
//! afterwards. To open a door is done as often as it is asked: asked once, and silence after that is a doubt.

pub mod codec;
mod driver;
pub mod events;
mod keeper;
mod line;
mod listener;
mod number;
pub mod plan;
pub mod reply;
pub mod request;
pub mod session;
pub mod sim;
mod task;
pub mod values;

pub use driver::Uhppote;
