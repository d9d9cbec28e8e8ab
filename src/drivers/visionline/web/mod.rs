//! Visionline's Web API: what the PMS text interface beside it cannot say.
//!
//! The server's own pictures of its doors and cards, and keys for telephones. Each piece of work is a *visit*: a session is
//! opened, calls are made with its key, and it is closed again.
//!
//! # What stands on what
//! The signature, the sessions, the body of a telephone's key and the names of most members agree byte for byte in the
//! lock maker's own example and two other programs. Path and members of a single card or door, and the search for a chip,
//! are known from one program that speaks to a gateway in front of the server, and so are guesses. Not known at all: how a
//! card is ordered on an encoder, how a key is discarded, what common doors are called in a key, how errors are spelled.
//! None of that is offered.
//!
//! # What it is used for
//! The server's doors are compared with the configuration, and taken over by `latchd setup`. Where others make cards too, a
//! card that goes on with a stay is written only while the server lists a good card of that stay: one on a chip that was
//! written here for it, with an end that was printed for it. A card that another program writes on such a chip, for the
//! same room until the same minute, would pass for one of the stay's; and what another program does between the look and
//! the card is not seen.
//!
//! Telephones' keys can be made and joined by a visit, but no order of the cloud asks for one: which telephone is whose is
//! known to the lock maker's app alone. A card for a reader of ours can be computed; there is no such reader yet.
//!
//! [`codec`] spells and signs, [`call`] is what can be asked, [`answer`] what stands in answers, [`visit`] holds one
//! piece of work. None of them does IO or reads a clock.

pub mod answer;
pub mod call;
pub mod codec;
pub(in crate::drivers) mod discover;
pub(super) mod probe;
pub(super) mod server;
pub mod visit;
