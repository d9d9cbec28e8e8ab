//! The pretend BlueZ, asked by plain messages on its bus: each answer, refusal and signal of the real daemon that clients go
//! by, in its order.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod adapter;
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod client;
mod daemon;
mod links;
mod pairing;
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod probe;
mod values;
