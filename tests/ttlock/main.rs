//! TTLock: every published frame against the codec, and conversations with the pretend lock, cut at every byte.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

mod pairing;
mod pump;
mod talk;
mod vectors;
