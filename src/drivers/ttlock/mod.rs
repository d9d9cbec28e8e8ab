//! TTLock keypad locks over Bluetooth Low Energy, version 3 of the protocol.

pub mod advertisement;
pub mod codec;
pub mod message;
pub mod record;
pub mod session;
pub mod sim;
