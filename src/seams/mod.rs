//! The places where the outside comes in: time, randomness, the network, storage; and where tasks begin.
//!
//! Nothing else in the crate asks the operating system for the time or for random numbers, opens a connection to a
//! peer of the link, or chooses where a database lives. So a whole system can run in one process under simulated
//! time from one seed.

mod clock;
mod net;
mod random;
mod storage;
mod tasks;
mod trusted;

pub use clock::Clock;
pub use net::{BoxFuture, Datagrams, Listener, MemoryNet, Net, ResolveError, Stream, SystemNet};
pub use random::Random;
pub use storage::{Files, Storage};
pub use tasks::{Process, spawn, task};
pub use trusted::TrustedTime;
