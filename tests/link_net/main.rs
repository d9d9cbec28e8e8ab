//! The link over real TLS and real websockets, through a simulated network in simulated time: what goes wrong has its
//! name, the link is back within its bound, and the same seed tells the same story at the same times.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as the tests themselves do")]

mod herd;
mod names;
#[path = "../simulated/net.rs"]
#[expect(dead_code, reason = "another test needs more of it")]
mod net;
mod peers;
mod stories;
mod world;
