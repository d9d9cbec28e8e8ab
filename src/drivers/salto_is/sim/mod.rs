//! A pretend SALTO SPACE server with its encoders, its cards and its offline locks: **one** state behind a serial
//! line and any number of TCP clients.
//!
//! It reads frames with a parser of its own, from the published layout, and shares nothing with the driver's codec or
//! session: one misunderstanding must not pass on both sides.
//!
//! # What it does
//! ENQ polls, ACK and NAK, check bytes true or waived, `CN`, `CC`, `CO`, `MC` and `LT`, the wait for a card, every
//! error code, the final answer repeated up to three times for a client that sends NAK, and clients that never
//! acknowledge. Doors are offline: a lock knows the newest stay it has seen on a card. The first use of a newer
//! stay's card kills the earlier ones there, copies of the stay open, a check-out frees the room in the database only.
//! Common doors ask for the authorisation and never override. Times are the property's local time.
//!
//! # What is inference, not source
//! - A stay begins when its card is written, not when the command is accepted.
//! - `CO` leaves printed cards alive, and frees a free room without complaint; `MC` changes the database only, and is
//!   answered by the room. A card outside its window teaches a lock nothing.
//! - `LC` is read from a card past its end, field 6 `CO` from one whose stay is not the room's any more, `LD` from a
//!   blank card. Staff and diagnostic cards are not overwritten (`EG`).
//! - A command without expiry makes a card good until noon of the next day. An authorisation that no door has is `ES`.
//! - ENQ and frames during a card wait are answered by NAK. An acknowledged order lives on when its client hangs up:
//!   a card laid down later is still written, and until the card wait is over the encoder answers `OV`.
//! - `EO` is answered while another encoder waits with a card for the same room.
//! - With eject `E` or `T` a card that was worked on has to be taken away: to the next command it is no card, until it is
//!   laid down again. With `R` the next command works on whatever lies there.
//!
//! # Onity
//! Told to, it is an Onity server: whole hours, cards that begin at once (a start is `ES`), one room a card (a second one
//! is `ES`), encoders by their numbers, operators of at most 20 characters, tracks of at most 62 and 14, and `0D` behind
//! its answers. All of it is known from a client alone; what a real server does with a start is inference.
//!
//! # Amadeus ST40
//! Told to, it is an Amadeus server: as Onity's, but that the eject field has to be empty, a card is read by `LTE`, a
//! check-out has no field for an encoder, any text names an encoder, and a change of a stay is not known. All of it from a
//! client again, and no whole message of it is published.
//!
//! # What it does not imitate
//! More than one card a command; cards to phones (`CNM`, `CCM`); track text (`L1`…, `P1`…); audit trails (`WF`,
//! `WN`); `INFO`, `CP` (all answered `ES`). With eject `E` the answer comes when the card is written, not when
//! it is taken away. Denied authorisations only take away from the granted ones of the same command. Online doors,
//! updaters, blacklists and key expiry by SPACE itself; RTS/CTS, parity and a wrong baud rate; pacing applies to what
//! the server sends only.

mod cards;
mod command;
mod control;
mod conversation;
mod faults;
mod front;
mod property;
mod server;
mod show;
mod state;
mod wire;
mod world;

pub use command::{Dates, Dialect};
pub use front::{Front, FrontError, Options, Places};
pub use property::{AgentLine, CommonDoor, Property, PropertyError};
pub use server::{Ended, Line, Settings, Simulator};
pub use wire::Style;
