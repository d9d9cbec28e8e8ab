//! Pretend boards: several on one UDP port and the TCP port of the same number.
//!
//! They read frames with a parser of their own, from the published description, and share nothing with the driver's codec
//! or session: one misunderstanding must not pass on both sides.
//!
//! # What it does
//! Every function; cards, time profiles and their links, doors with their mode, door codes, a log of events that drops its
//! oldest by the block, a clock that is steered, events sent to the listener. `swipe` holds a card to a reader: granted or
//! refused as the board's lists and clock say. `fault` makes a board misbehave; see `help` at the control socket.
//!
//! # What is inference, not source
//! - A card outside its dates is refused with reason 6. A card that names a profile which is not there is let in. The last
//!   day counts whole, and so does the last minute of a segment.
//!
//! # What it does not imitate
//! First cards, anti-passback, interlocks and tasks are kept and read back, and change nothing at the door; no event comes
//! by itself after an interval; the host deciding about cards refuses them without end; a new network address is shown and
//! not moved to.

mod board;
mod control;
mod door;
mod front;
mod server;

pub use front::{Front, FrontError, Options, Places};
pub use server::{House, Settings};
