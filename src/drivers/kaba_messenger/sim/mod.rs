//! A pretend Messenger service with its encoders, its cards and its offline locks, over plain HTTP.
//!
//! It reads requests with eyes of its own, from the published description: which fields, in which order, in which
//! namespace. It shares nothing with the driver's codec but the reader of XML: one misunderstanding must not pass on both
//! sides.
//!
//! # What it does
//! New bookings, shared guests, duplicates, new ends, check-outs of a guest and of a room, the test operation, the list of faults and `?wsdl`; the
//! wait for a card; one open command for a terminal and for an encoder; any fault on demand, in its two shapes, and
//! answers that are none. Doors are offline: a lock knows the newest stay it has seen on a card, and the first use of a
//! newer one's kills the earlier cards there. Common areas never override. Times are the property's local time.
//!
//! # What is inference, not source
//! - A field that is missing, in another place or in another namespace is answered by `InvalidWSParameter`; a request
//!   whose `SOAPAction`, wrapper or envelope is not as published by a fault `soap:Client`. A real server may well overlook
//!   what it does not await.
//! - Which fault answers what: an unknown room, a stay that is over, a name that is taken. To end
//!   the stays of a room that nobody is left in is a success.
//! - A stay begins when its card is written. An order lives on when its client hangs up.
//!
//! # What it does not imitate
//! Other operations (answered as not supported); several rooms or keys a command; grace periods; online locks; TLS; SOAP
//! 1.2.

mod control;
mod front;
mod server;
mod wire;
mod world;

pub use front::{Front, FrontError, Options, Places};
pub use server::{Settings, Simulator};
pub use world::{CommonArea, Property, PropertyError};
