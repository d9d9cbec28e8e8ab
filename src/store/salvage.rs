//! What can still be read of a damaged file, carried over into a fresh one.
//!
//! Table by table and row by row: where a page cannot be read, the rows on it are lost and those behind it are not. The
//! fresh file is of the damaged one's schema first, so that rows fit, and then brought up to date. The damaged file is
//! kept, with its log, under another name.

use std::{fs, os::unix::fs::FileExt, path::PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, config::DbConfig, types::Value};

use super::{StoreError, backup, files, migrate, open_reader, ready};
use crate::seams::Storage;

/// What became of a damaged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvage {
    /// How the damage showed.
    pub why: String,
    /// Where the damaged file is now; nothing where there was none.
    pub aside: Option<PathBuf>,
    /// Rows carried over.
    pub kept: u64,
    /// Rows known to be lost; of a place that cannot be read, at least one.
    pub lost: u64,
}

/// Carries what can be read of a damaged database over into a fresh one and puts that in its place. `adopt` makes it
/// fit to go on, as in [`super::restore`].
///
/// # Errors
/// [`StoreError::Newer`], those of `adopt` and of the disk; the damaged file is then where it was.
pub fn salvage<T>(
    storage: &Storage,
    name: &str,
    migrations: &[&str],
    why: &StoreError,
    now: Timestamp,
    adopt: impl FnOnce(Connection) -> Result<(Connection, T), StoreError>,
) -> Result<(Salvage, T), StoreError> {
    files::finish(storage, name)?;
    let path = storage.file(name);
    let known = u32::try_from(migrations.len()).expect("there are few migrations");
    let mut damaged = open_reader(storage, name).ok().filter(has_tables);
    let found = damaged.as_ref().and_then(version).or_else(|| version_in_header(storage, name));
    if let Some(found) = found.filter(|found| *found > known) {
        return Err(StoreError::Newer { path, found, known });
    }
    let schema = found.filter(|found| *found > 0).unwrap_or(known);
    let new = files::new_name(name);
    files::remove_all(storage, &new)?;
    let mut fresh = ready(storage, &new)?;
    migrate(&mut fresh, &path, &migrations[..schema as usize], None)?;
    if damaged.is_none() {
        damaged = with_first_page_of(storage, name, &fresh)?.filter(has_tables);
    }
    let mut salvaged = Salvage { why: why.chain(), aside: None, kept: 0, lost: 0 };
    if let Some(damaged) = damaged {
        carry_over(&damaged, &fresh, &mut salvaged)?;
    }
    files::remove_all(storage, &patched_name(name))?;
    migrate(&mut fresh, &path, migrations, None)?;
    let (fresh, adopted) = backup::adopt_in_transaction(fresh, adopt)?;
    files::close(fresh)?;
    salvaged.aside = files::install(storage, name, "damaged", now)?;
    tracing::error!(
        why = salvaged.why,
        aside = salvaged.aside.as_ref().map(|aside| tracing::field::display(aside.display())),
        kept = salvaged.kept,
        lost = salvaged.lost,
        "the database {} was damaged; what could be read was carried over into a fresh one",
        path.display()
    );
    Ok((salvaged, adopted))
}

/// Whether the first page, where a file says what is in it, can be read.
fn has_tables(damaged: &Connection) -> bool {
    damaged
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .is_ok_and(|tables: i64| tables > 0)
}

fn patched_name(name: &str) -> String {
    format!("{name}.patched")
}

/// A copy of a damaged file whose first page is the fresh one's. With vacuuming on, SQLite keeps the roots of tables and
/// indexes at the beginning of the file in the order of their making, so that they are where the fresh file has them.
fn with_first_page_of(
    storage: &Storage,
    name: &str,
    fresh: &Connection,
) -> Result<Option<Connection>, StoreError> {
    let (new, patched) = (files::new_name(name), patched_name(name));
    if !storage.file(name).exists() {
        return Ok(None);
    }
    fresh.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let size: u32 = fresh.pragma_query_value(None, "page_size", |row| row.get(0))?;
    files::remove_all(storage, &patched)?;
    let copied = (|| {
        let mut page = vec![0; size as usize];
        fs::File::open(storage.file(&new))?.read_exact_at(&mut page, 0)?;
        // The size and the free pages that it tells of are those of the fresh file: a change counter that does not
        // match says not to believe the one, and none is the other.
        page[24..28].copy_from_slice(&1_u32.to_be_bytes());
        page[32..40].fill(0);
        page[92..96].fill(0);
        for part in ["", "-wal"] {
            let from = storage.file(&format!("{name}{part}"));
            if from.exists() {
                fs::copy(from, storage.file(&format!("{patched}{part}")))?;
            }
        }
        let file = fs::File::options().write(true).open(storage.file(&patched))?;
        if file.metadata()?.len() <= page.len() as u64 {
            return Ok(false);
        }
        file.write_all_at(&page, 0)?;
        Ok(true)
    })();
    let is_one = copied.map_err(|source| StoreError::File { path: storage.file(&patched), source })?;
    Ok(is_one.then(|| open_reader(storage, &patched).ok()).flatten())
}

fn version(damaged: &Connection) -> Option<u32> {
    damaged.pragma_query_value(None, "user_version", |row| row.get(0)).ok()
}

/// The schema's number where SQLite keeps it in a file, big-endian at byte 60, if that is one at all.
fn version_in_header(storage: &Storage, name: &str) -> Option<u32> {
    let mut header = [0; 64];
    fs::File::open(storage.file(name)).ok()?.read_exact_at(&mut header, 0).ok()?;
    let (_, number) = header.split_last_chunk::<4>()?;
    header.starts_with(backup::HEADER).then(|| u32::from_be_bytes(*number))
}

fn carry_over(damaged: &Connection, fresh: &Connection, salvaged: &mut Salvage) -> Result<(), StoreError> {
    fresh.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    fresh.execute_batch("PRAGMA foreign_keys=OFF; BEGIN")?;
    for table in Table::all(fresh)? {
        let kept = table.carry_over(damaged, fresh, salvaged)?;
        salvaged.kept += kept;
    }
    salvaged.lost += drop_orphans(fresh)?;
    fresh.execute_batch("COMMIT; PRAGMA foreign_keys=ON")?;
    fresh.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
    Ok(())
}

/// Deletes rows that refer to rows which are lost, and says how many.
fn drop_orphans(fresh: &Connection) -> Result<u64, StoreError> {
    let mut gone = 0;
    loop {
        let orphans: Vec<(String, Option<i64>)> = fresh
            .prepare("PRAGMA foreign_key_check")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let before = gone;
        for (table, rowid) in orphans {
            let sql = format!("DELETE FROM \"{table}\" WHERE rowid = ?1");
            gone += u64::try_from(fresh.execute(&sql, [rowid])?).unwrap_or(0);
        }
        // Who goes may leave orphans in turn.
        if gone == before {
            return Ok(gone);
        }
    }
}

struct Table {
    name: String,
    columns: Vec<String>,
    /// What its rows are in the order of.
    key: Vec<String>,
    has_rowid: bool,
}

impl Table {
    fn all(fresh: &Connection) -> Result<Vec<Self>, StoreError> {
        let list: Vec<(String, bool)> = fresh
            .prepare("SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")?
            .query_map([], |row| Ok((row.get(0)?, !row.get::<_, bool>(1)?)))?
            .collect::<Result<_, _>>()?;
        let table = |(name, has_rowid): (String, bool)| {
            let columns: Vec<(String, i64)> = fresh
                .prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid")?
                .query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            let mut key: Vec<_> = columns.iter().filter(|(_, pk)| *pk > 0).cloned().collect();
            key.sort_by_key(|(_, pk)| *pk);
            let names = |columns: Vec<(String, i64)>| columns.into_iter().map(|(name, _)| name).collect();
            Ok(Self { name, columns: names(columns), key: names(key), has_rowid })
        };
        list.into_iter().map(table).collect()
    }

    /// Copies what can be read and says how many rows that were; what cannot is counted as lost.
    fn carry_over(
        &self,
        damaged: &Connection,
        fresh: &Connection,
        salvaged: &mut Salvage,
    ) -> Result<u64, StoreError> {
        // What the migrations put there is there already.
        fresh.execute(&format!("DELETE FROM \"{}\"", self.name), [])?;
        let mut into = Into {
            insert: fresh.prepare(&format!(
                "INSERT OR IGNORE INTO \"{}\"({}) VALUES ({})",
                self.name,
                quoted(&self.columns),
                vec!["?"; self.columns.len()].join(", ")
            ))?,
            columns: self.columns.len(),
            kept: 0,
            refused: 0,
            failed: None,
        };
        let breaks = if self.has_rowid {
            self.by_rowid(damaged, &mut into)
        } else {
            self.both_ends(damaged, &mut into)
        };
        if let Some(failed) = into.failed {
            return Err(failed.into());
        }
        let (kept, refused) = (into.kept, into.refused);
        // An index may know how many there were.
        let count =
            damaged.query_row(&format!("SELECT count(*) FROM \"{}\"", self.name), [], |row| row.get(0));
        let missing = count.map_or(0, |count: i64| count.cast_unsigned().saturating_sub(kept));
        let lost = missing.max(breaks).max(refused);
        if lost > 0 {
            tracing::warn!(table = self.name, kept, lost, "rows of a damaged table were lost");
        }
        salvaged.lost += lost;
        Ok(kept)
    }

    /// Reads in the order of the rowid; behind a place that cannot be read, goes on at the first that can.
    fn by_rowid(&self, damaged: &Connection, into: &mut Into<'_>) -> u64 {
        let sql = format!(
            "SELECT {}, rowid FROM \"{}\" NOT INDEXED WHERE rowid >= ?1 ORDER BY rowid",
            quoted(&self.columns),
            self.name
        );
        let (mut from, mut breaks) = (i64::MIN, 0);
        loop {
            let mut next = from;
            let read = into.all(damaged, &sql, [from], |rowid| next = rowid.saturating_add(1));
            if read.is_ok() || into.failed.is_some() {
                return breaks;
            }
            breaks += 1;
            let Some(readable) = self.readable_from(damaged, &sql, next) else { return breaks };
            from = readable;
        }
    }

    /// The first place behind one that cannot be read from which rows can be read again.
    fn readable_from(&self, damaged: &Connection, sql: &str, unreadable: i64) -> Option<i64> {
        let can_read = |from: i64| {
            let mut statement = damaged.prepare_cached(sql)?;
            let mut rows = statement.query([from])?;
            let Some(row) = rows.next()? else { return Ok::<_, rusqlite::Error>(()) };
            // The whole of it: long values lie on pages of their own.
            (0..=self.columns.len()).try_for_each(|column| row.get::<_, Value>(column).map(drop))
        };
        // Rowids begin at one, but for those that somebody chose.
        let (mut bad, mut step) = (unreadable.max(0), 1_i64);
        let mut good = loop {
            let candidate = bad.checked_add(step)?;
            if can_read(candidate).is_ok() {
                break candidate;
            }
            bad = candidate;
            step = step.checked_mul(2)?;
        };
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            match can_read(middle) {
                Ok(()) => good = middle,
                Err(_) => bad = middle,
            }
        }
        Some(good)
    }

    /// Reads from the first row on, and where that ends early, from the last one back.
    fn both_ends(&self, damaged: &Connection, into: &mut Into<'_>) -> u64 {
        let (columns, name) = (quoted(&self.columns), &self.name);
        let order = |direction: &str| {
            let key: Vec<_> = self.key.iter().map(|column| format!("\"{column}\" {direction}")).collect();
            format!("SELECT {columns}, 0 FROM \"{name}\" NOT INDEXED ORDER BY {}", key.join(", "))
        };
        if into.all(damaged, &order("ASC"), [], |_| {}).is_ok() || into.failed.is_some() {
            return 0;
        }
        // What was read before is there already. That this ends early too is what was to be expected.
        let _ = into.all(damaged, &order("DESC"), [], |_| {});
        1
    }
}

/// Where rows go.
struct Into<'c> {
    insert: rusqlite::Statement<'c>,
    columns: usize,
    kept: u64,
    refused: u64,
    /// Why the fresh file takes no more.
    failed: Option<rusqlite::Error>,
}

impl Into<'_> {
    /// Copies all rows of a query; `at` hears of each row that was read by the number behind its columns.
    fn all(
        &mut self,
        damaged: &Connection,
        sql: &str,
        params: impl rusqlite::Params,
        mut at: impl FnMut(i64),
    ) -> Result<(), rusqlite::Error> {
        let mut statement = damaged.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            let values =
                (0..self.columns).map(|column| row.get(column)).collect::<Result<Vec<Value>, _>>()?;
            match self.insert.execute(rusqlite::params_from_iter(values)) {
                Ok(1) => self.kept += 1,
                Ok(_) => {}
                // A value that the table does not take is not what was once stored.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    self.refused += 1;
                }
                Err(error) => {
                    self.failed = Some(error);
                    return Ok(());
                }
            }
            at(row.get(self.columns)?);
        }
        Ok(())
    }
}

fn quoted(columns: &[String]) -> String {
    columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ")
}
