//! TTLock keypad locks over Bluetooth Low Energy, version 3 of the protocol.

pub mod codec;
pub mod message;
