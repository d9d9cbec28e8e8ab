//! A site is paired with a cloud and stays so: the program as processes, before a hand-written cloud.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod cloud;
mod paired;
mod renewed;
mod site;
