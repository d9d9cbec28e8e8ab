//! August and Yale locks over Bluetooth Low Energy, without the maker's cloud.
//!
//! The lock knows a key of 16 bytes and the number under which it keeps it; whoever has both may talk to it. A
//! conversation begins with a handshake that gives both ends a session key, and is one command after another then:
//! each is received at once and done a little later, and only the latter counts.
//!
//! A PIN is put in three steps after its slot is emptied: the PIN, when it holds, and what makes both hold. So a slot
//! that is changed is empty for a moment, and stays so when something goes wrong between. The lock shows which PIN a
//! slot holds, and never when it holds.

pub mod codec;
pub mod message;
pub mod session;
pub mod sim;
pub mod task;
