//! The SALTO driver against lock servers played byte by byte: in memory under a paused clock, over TCP, and over
//! pseudo-terminals.

#![expect(clippy::unwrap_used, reason = "a test's helpers may stop it")]

mod admission;
mod desk;
mod dialects;
mod memory;
mod serial;
mod tcp;
