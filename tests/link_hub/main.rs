//! Both ends of the bridge protocol over real TLS and a real websocket: the link against the hub, and each against a
//! peer that speaks hand-written text.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as the tests themselves do")]

mod desired;
mod hub;
mod link;
mod mitm;
mod peers;
mod road;
mod world;
