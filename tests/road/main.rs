//! The whole road as separate processes: `latchd cloud`, `latchd run` and `latchd sim salto-is`, over TLS, a websocket,
//! a pty and SQLite files, asked by a plain HTTPS client and judged by what went over the simulated wire; and
//! `latchd sim lock`, judged by the locks' tables and ledgers.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod alone;
mod bad_input;
mod boards;
mod checkout;
mod chips;
mod desk;
mod devices;
mod doctor;
mod doors;
mod frames;
mod happy;
mod hours;
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod keypads;
mod kill;
mod ledger;
mod locks;
mod makes;
mod offline;
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod peers;
mod people;
mod radio;
mod radio_batch;
mod radio_clocks;
mod radio_crowd;
mod radio_doors;
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod radio_house;
mod radio_keyed;
mod radio_keys;
mod radio_left;
mod radio_long;
mod radio_three;
mod reload;
mod secrets;
mod service;
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod site;
mod stays;
mod stop;
mod tcp;
mod trust;
mod unplug;
