//! Bluetooth Low Energy without a radio: pretend peripherals, and a BlueZ that carries them on a message bus of its own.
//!
//! Whoever is to meet them is started with `DBUS_SYSTEM_BUS_ADDRESS` set to the bus's address. What is imitated is what
//! clients meet: the objects, their order, and each refusal of the real daemon. See [`bluez`] for its commands.

pub mod bluez;
mod bus;
mod objects;
pub mod peripheral;
mod world;

pub use bluez::{Bluez, Place, Timing};
pub use bus::{Bus, BusError};
