//! Bluetooth Low Energy without a radio: pretend peripherals, and the daemon that carries them on a message bus of its own.

pub mod peripheral;
