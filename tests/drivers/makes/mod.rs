//! What the suite has to know of a make of access system: where its simulator is, and what it says and shows. What its
//! driver can do is not told here; the suite asks the driver.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use latchd::{
    config::SystemConfig,
    drivers::{Driver, Past},
    seams::{BoxFuture, Clock, Listener, Net, Random},
};
use serde_json::Value;

pub(crate) mod kaba_messenger;
pub(crate) mod salto_is;

/// As SALTO SPACE, with whole hours.
pub(crate) use salto_is::hours as salto_hours;
pub(crate) use salto_is::{amadeus_st40, onity};

pub(crate) mod visionline;
pub(crate) mod visionline_web;

/// A make of access system, by its simulator.
///
/// Every simulator knows the words `place CARD [KIND] on ENCODER`, `remove ENCODER`, `use CARD at DOOR`,
/// `unplug encoder ENCODER`, `replug encoder ENCODER`, `foreign-card-made ROOM`, `set card-wait MILLIS`, `fault clear` and `clock set TIME`.
pub(crate) trait Make {
    /// Serves the agent until dropped.
    fn serve(&self, listener: Box<dyn Listener>) -> BoxFuture<'static, ()>;

    /// Serves the agent at its second interface until dropped, where it has one.
    fn serve_web(&self, listener: Box<dyn Listener>) -> Option<BoxFuture<'static, ()>> {
        drop(listener);
        None
    }

    /// The settings of a system of this make at `HOST:PORT`, beside those that all have.
    fn section(&self, layout: &Layout, address: &str) -> String;

    /// What starts its driver.
    fn starter(&self) -> StartDriver;

    /// Says something to the simulator.
    fn say<'a>(&'a self, words: &'a str) -> BoxFuture<'a, Result<Value, String>>;

    /// What the simulator's `ledger` shows, in words that all share.
    fn ledger(&self, shown: &Value) -> Ledger;

    /// How many cards these bytes of the agent's on one connection ask to be made.
    fn ordered(&self, said: &[u8]) -> usize;

    /// About how many bytes a command and its answer take together.
    fn exchange(&self) -> usize {
        400
    }

    /// Whether its cards carry whole hours, without minutes.
    fn has_hours_only(&self) -> bool {
        false
    }

    /// The simulator's words for a fault.
    fn fault(&self, fault: Fault) -> String;
}

pub(crate) type StartMake = fn(&Layout, Timestamp) -> Box<dyn Make>;
pub(crate) type StartDriver = fn(&SystemConfig, Site) -> Arc<dyn Driver>;

/// What a driver is started with.
pub(crate) struct Site {
    pub(crate) net: Arc<dyn Net>,
    pub(crate) zone: TimeZone,
    pub(crate) past: Past,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
}

/// What a system does wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The next command finds its encoder at work.
    Busy,
    /// The next card is written, and nothing is said of it.
    WritesInSilence,
    /// The next answer comes so much later.
    Late(Duration),
}

/// A property.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) zone: &'static str,
    /// The system's own; the agent knows one more, [`NO_ROOM`].
    pub(crate) rooms: Vec<String>,
    pub(crate) common: Vec<String>,
    pub(crate) encoders: Vec<String>,
}

/// A room that the site's configuration has and the system has not.
pub(crate) const NO_ROOM: &str = "999";

impl Default for Layout {
    fn default() -> Self {
        Self {
            zone: "Europe/Oslo",
            rooms: (101..=116).map(|number| number.to_string()).collect(),
            common: ["pool", "gym"].map(String::from).into(),
            encoders: (1..=8).map(|number| number.to_string()).collect(),
        }
    }
}

impl Layout {
    /// What stands in most makes' settings: how it is reached, its encoders and its rooms.
    pub(crate) fn shared(&self, kind: &str, address: &str) -> String {
        let names =
            |names: &[String]| names.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ");
        format!(
            "kind = \"{kind}\"\nline = {{ tcp = \"{address}\" }}\nencoders = [{}]\nrooms = [{}, \"{NO_ROOM}\"]\n",
            names(&self.encoders),
            names(&self.rooms),
        )
    }
}

/// What is true at a system.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    /// Every card that a command of the agent's has written, oldest first.
    pub(crate) written: Vec<Written>,
    /// Which cards open each door now.
    pub(crate) doors: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// The plastic.
    pub(crate) card: String,
    pub(crate) rooms: Vec<String>,
    /// Whether it joined the stay in its rooms; otherwise it began one.
    pub(crate) joins: bool,
    /// The end that was ordered, by which it is known whose it is.
    pub(crate) end: DateTime,
}

/// The doors of a simulator's ledger.
pub(crate) fn doors(shown: &Value) -> BTreeMap<String, BTreeSet<String>> {
    serde_json::from_value(shown["doors"].clone()).unwrap()
}

pub(crate) fn minutes(form: &str, text: &str) -> DateTime {
    DateTime::strptime(form, text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
