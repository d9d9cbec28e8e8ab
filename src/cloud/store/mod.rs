//! The cloud's database: what should be true, what was asked, what bridges reported.
//!
//! Synchronous and without threads; [`crate::store::Writer`] is the shell around it. Every row carries its
//! `workspace_id`. People's names, addresses, PINs and the requests that carry them are sealed.

mod bridges;
mod reports;

use std::collections::BTreeMap;

use rusqlite::Connection;

pub use bridges::{Cancel, Meeting, Standing, Taken};

use crate::{
    model::BridgeId,
    seal::SealKey,
    seams::{Random, Storage},
    store::{Store, StoreError},
};

/// The database's file name.
pub const FILE: &str = "cloud.db";

/// Schema steps; a released one is never edited.
const MIGRATIONS: &[&str] = &[concat!(include_str!("api.sql"), include_str!("bridges.sql"))];

/// The cloud's database.
#[derive(Debug)]
pub struct Db {
    connection: Connection,
    seal: SealKey,
    random: Random,
    /// Who is connected in this process; never in a row, so that it cannot outlive the process.
    live: BTreeMap<BridgeId, bridges::Live>,
}

impl Store for Db {
    fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Db {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// See [`crate::store::open`].
    pub fn open(storage: &Storage, seal: SealKey, random: Random) -> Result<Self, StoreError> {
        Ok(Self {
            connection: crate::store::open(storage, FILE, MIGRATIONS)?,
            seal,
            random,
            live: BTreeMap::new(),
        })
    }
}
