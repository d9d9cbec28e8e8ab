//! Lines to devices: serial ports and TCP sockets, and the one shell that runs a pure session over any of them.
//!
//! This room knows no protocol.

mod line;
mod shell;

pub use line::{LineError, Port, Target};
pub use shell::{Input, Output, Session, run};
