//! How a cloud takes bridges in, lets them go on, and lets go of them: over real TLS, by hand-written HTTP.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod cli;
mod keys;
mod pair;
mod person;
mod renew;
mod restore;
mod revoke;
mod world;
