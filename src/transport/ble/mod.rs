//! Bluetooth Low Energy: one thread with everything of btleplug, and the shell that runs a conversation over GATT.

pub mod gatt;
