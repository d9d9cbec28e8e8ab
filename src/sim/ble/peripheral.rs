//! What a pretend peripheral is to the daemon that carries it. Knows no lock.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use uuid::Uuid;

/// What a peripheral shows to whoever listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// The local name; empty where it has none.
    pub name: String,
    /// Services that it names.
    pub services: Vec<Uuid>,
    /// By company.
    pub manufacturer_data: BTreeMap<u16, Vec<u8>>,
}

/// A service of the peripheral's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its characteristics.
    pub characteristics: Vec<Characteristic>,
}

/// A characteristic of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Characteristic {
    /// Its UUID.
    pub uuid: Uuid,
    /// As BlueZ names them: `read`, `write`, `write-without-response`, `notify`, `indicate`.
    pub flags: Vec<&'static str>,
}

/// What a peripheral does, at once or a little later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// It notifies a value, if somebody has subscribed to it by then.
    Notify {
        /// Of which characteristic.
        from: Uuid,
        /// The value.
        value: Vec<u8>,
        /// After how long.
        after: Duration,
    },
    /// It ends the connection.
    HangUp {
        /// After how long.
        after: Duration,
    },
}

/// An error of the attribute protocol, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttError(pub u8);

/// One pretend device with a radio.
pub trait Peripheral: Send {
    /// What it shows at present.
    fn advertisement(&self) -> Advertisement;

    /// Its table; the same for its whole life.
    fn services(&self) -> Vec<Service>;

    /// Somebody connected.
    fn connected(&mut self, now: Timestamp);

    /// The link is gone.
    fn disconnected(&mut self, now: Timestamp);

    /// A value is written.
    ///
    /// # Errors
    /// What the peripheral answers instead; a write that asks for no answer gets none.
    fn write(&mut self, now: Timestamp, to: Uuid, value: &[u8]) -> Result<Vec<Act>, AttError>;

    /// A value is read.
    ///
    /// # Errors
    /// What the peripheral answers instead.
    fn read(&mut self, now: Timestamp, from: Uuid) -> Result<Vec<u8>, AttError>;

    /// One command of the control socket: a verb and its arguments.
    ///
    /// # Errors
    /// What is wrong with it.
    fn control(&mut self, now: Timestamp, command: &str) -> Result<String, String>;
}
