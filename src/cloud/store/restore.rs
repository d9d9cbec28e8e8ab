//! A database that was set back: restored from a backup, or saved from a damaged file.
//!
//! What was ordered in the meantime is forgotten here and known at the sites. So every unfinished order counts as one
//! that its bridge may know of, and the streams of orders are numbered from the beginning: a bridge that remembers more
//! than that shows it in its next hello, a new epoch begins, and the orders go out again. A bridge knows by a job's id
//! what it has had and says once more how it ended; one that was set back as well says so, and its orders end in doubt.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::Connection;

use super::{
    Db, FILE, MIGRATIONS,
    bridges::{body_place, parsed},
    events, people,
    rows::id,
    standing::{Known, Unvouched},
};
use crate::{
    seal::{SealError, SealKey},
    seams::{Random, Storage},
    store::{self, Salvage, StoreError},
};

/// What came of putting a backup back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Where the database lies that was there before, if there was one.
    pub aside: Option<PathBuf>,
    /// How many orders are unfinished and go out again.
    pub unfinished: u64,
    /// Bridges that may have been revoked since: somebody has to vouch for them.
    pub unvouched: Vec<Unvouched>,
    /// Whether the replaced database could say which API keys were revoked since; they count no more then.
    pub knows_api_keys: bool,
}

impl Db {
    /// [`Db::open`], and where the file proves to be damaged, what can be saved of it instead, set back as by
    /// [`Db::restored`].
    ///
    /// # Errors
    /// See [`crate::store::open`] and [`crate::store::salvage`]; [`StoreError::Unsalvageable`] when the workspace, its
    /// keys or its bridges are lost.
    pub fn open_or_salvage(
        storage: &Storage,
        seal: SealKey,
        random: Random,
        now: Timestamp,
    ) -> Result<(Self, Option<Salvage>), StoreError> {
        let damage = match Self::open(storage, seal.clone(), random.clone()) {
            Ok(db) => return Ok((db, None)),
            Err(error) if error.is_damage() => error,
            Err(error) => return Err(error),
        };
        let (of_db, of_random) = (seal.clone(), random.clone());
        let adopt = move |connection: Connection| {
            let mut db = Self::around(connection, of_db, of_random);
            for table in ["workspace", "api_key", "bridge"] {
                let sql = format!("SELECT 1 FROM {table} LIMIT 1");
                if !db.connection.prepare(&sql)?.exists([])? {
                    let missing = format!("the table {table}");
                    return Err(StoreError::Unsalvageable { path: storage.file(FILE), missing });
                }
            }
            if let (0, Some(error)) = db.try_key()? {
                return Err(error.into());
            }
            let unreadable = db.drop_unreadable(now)?;
            db.restored()?;
            Ok((db.connection, unreadable))
        };
        let (mut salvage, unreadable) = store::salvage(storage, FILE, MIGRATIONS, &damage, now, adopt)?;
        salvage.kept = salvage.kept.saturating_sub(unreadable);
        salvage.lost += unreadable;
        Ok((Self::open(storage, seal, random)?, Some(salvage)))
    }

    /// Puts a backup in the database's place, as [`crate::store::restore`] does, set back as by [`Db::restored`]. Who may
    /// come in is taken from the database that is replaced, as far as it can say.
    ///
    /// # Errors
    /// See [`crate::store::restore`]; [`StoreError::Sealed`] when its rows were sealed with another key.
    pub fn restore(
        storage: &Storage,
        seal: SealKey,
        random: Random,
        from: &Path,
        now: Timestamp,
    ) -> Result<Restored, StoreError> {
        let known = Known::of(storage);
        let (aside, (unfinished, unvouched)) =
            store::restore(storage, FILE, MIGRATIONS, from, now, |connection| {
                let mut db = Self::around(connection, seal, random);
                db.workspace()
                    .map_err(|error| StoreError::Backup { path: from.into(), what: error.chain() })?
                    .ok_or_else(|| StoreError::Backup {
                        path: from.into(),
                        what: "it has no workspace".into(),
                    })?;
                if let (_, Some(error)) = db.try_key()? {
                    return Err(error.into());
                }
                let unfinished = db.restored()?;
                let unvouched = db.take_standing(now, &known)?;
                Ok((db.connection, (unfinished, unvouched)))
            })?;
        Ok(Restored { aside, unfinished, unvouched, knows_api_keys: known.has_api_keys() })
    }

    /// This database was set back: bridges may know of every unfinished order, and of more. Says how many orders are
    /// unfinished; they go out again.
    ///
    /// # Errors
    /// Those of the database.
    pub fn restored(&mut self) -> Result<u64, StoreError> {
        self.execute("UPDATE bridge_order SET position = NULL WHERE position IS NOT NULL", [])?;
        let unfinished = self.execute("UPDATE bridge_order SET handed = 1 WHERE over_at IS NULL", [])?;
        self.execute(
            "UPDATE bridge SET orders_last = 0, orders_acknowledged = 0, memory_may_be_new = 1",
            [],
        )?;
        // Every bridge is told anew what is desired.
        self.execute(
            "UPDATE bridge SET desired_epoch = desired_epoch + 1, desired_last = 0, desired_acknowledged = 0",
            [],
        )?;
        // Devices may hold codes that nobody here knows of.
        self.execute("UPDATE device SET read_due = 0", [])?;
        // And rooms the cards of later stays.
        self.execute("UPDATE door_ledger SET certain = 0", [])?;
        Ok(unfinished.try_into().unwrap_or(u64::MAX))
    }

    /// Opens a sealed row of each kind there is, and says which do and which do not: with another key none does.
    fn try_key(&self) -> Result<(usize, Option<SealError>), StoreError> {
        let order = "SELECT job_id, what, body FROM bridge_order ORDER BY id DESC LIMIT 1";
        let event = "SELECT event_id, fields FROM event ORDER BY n DESC LIMIT 1";
        let person = "SELECT user_identity_id, person FROM user_identity WHERE length(person) > 0 ORDER BY created_at DESC LIMIT 1";
        let order = self.one(order, [], |row| {
            let place = body_place(&row.get::<_, String>("job_id")?, &row.get::<_, String>("what")?);
            Ok((place, row.get::<_, Vec<u8>>("body")?))
        })?;
        let event =
            self.one(event, [], |row| Ok((events::place(id(row, "event_id")?), row.get("fields")?)))?;
        let person = self
            .one(person, [], |row| Ok((people::place(id(row, "user_identity_id")?), row.get("person")?)))?;
        let (mut opened, mut failed) = (0, None);
        for (place, sealed) in [order, event, person].into_iter().flatten() {
            match self.seal.open(&place, &sealed) {
                Ok(_) => opened += 1,
                Err(error) => failed = Some(error),
            }
        }
        Ok((opened, failed))
    }

    /// Ends orders whose sealed part does not open any more: nobody can say what they asked for.
    fn drop_unreadable(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        let unfinished = self.all(
            "SELECT bridge_id, job_id, what, body FROM bridge_order WHERE over_at IS NULL ORDER BY id",
            [],
            |row| {
                let (bridge, job): (String, String) = (row.get(0)?, row.get(1)?);
                Ok((bridge, job, row.get::<_, String>(2)?, row.get::<_, Vec<u8>>(3)?))
            },
        )?;
        let mut gone = 0;
        for (bridge, job, what, body) in unfinished {
            if self.seal.open(&body_place(&job, &what), &body).is_ok() {
                continue;
            }
            let (bridge, job) = (parsed(&bridge, "bridge_order")?, parsed(&job, "bridge_order")?);
            self.end_orders(now, bridge, job)?;
            self.orders_lost(now, bridge, &[job])?;
            gone += 1;
        }
        Ok(gone)
    }
}
