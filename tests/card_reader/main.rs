//! Readers on desks: every published frame of a PN532, conversations with the pretend one whatever goes wrong on the line,
//! and libnfc, which judges that one.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers may stop it, and a skip says what is missing"
)]

mod judge;
mod talk;
mod vectors;
