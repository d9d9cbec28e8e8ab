//! Lines to devices: serial ports and TCP sockets, the one shell that runs a pure session over any of them, and HTTP to
//! servers on the property.
//!
//! This room knows no protocol of a device.

pub mod ble;
pub mod http;
mod line;
mod shell;

pub use line::{LineError, Port, Target};
pub use shell::{Input, Output, Session, run};
