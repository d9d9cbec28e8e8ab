//! The power goes at every acknowledgement, and while files are synced: what processes did to their files is replayed
//! from a trace of their system calls onto a disk that keeps only what was synced, and of the rest any part.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::print_stdout, reason = "a skipped test says what is missing, a replay what it saw")]

#[path = "../queue_support/mod.rs"]
mod queue_support;

mod agent;
mod cloud;
mod disk;
mod judge;
mod property;
#[expect(dead_code, unreachable_pub, reason = "another test's module, of which this one needs a part")]
#[path = "../road/site.rs"]
mod site;
mod trace;
