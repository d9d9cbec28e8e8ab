//! What both databases share: how a SQLite file is opened, migrated and written.
//!
//! A store is a plain synchronous struct around one connection; it starts no thread and reads no clock. [`Writer`] is
//! the thread around it: it runs operations in the order they came, many in one transaction, and answers each caller
//! only after the commit that holds its work.
//!
//! WAL with `synchronous=FULL`, nothing less: a commit costs exactly one sync, and what was acknowledged survives a
//! power cut. Every pragma is read back, because SQLite may ignore one without an error.

mod lock;
#[expect(
    unsafe_code,
    reason = "SQLite's file layer is C; counting its syncs needs a VFS, and this is the only place with one"
)]
pub mod vfs;
mod writer;

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::PathBuf};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

pub use lock::FolderLock;
pub use writer::{Writer, WriterHandle};

use crate::seams::Storage;

/// A synchronous store around one connection.
pub trait Store: Send + 'static {
    /// The connection that the writer begins and commits transactions on.
    fn connection(&mut self) -> &mut Connection;
}

/// Why a store cannot be used, or why an operation on it failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made.
    #[error("create folder {}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error(
        "the folder {} is in use by another latchd{}: one folder belongs to one process; stop that one, or give this \
         one a folder of its own (storage.folder)", path.display(), holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// Which folder.
        path: PathBuf,
        /// Who has it, if it said so.
        holder: Option<u32>,
    },
    /// The folder cannot be locked.
    #[error("lock folder {}", path.display())]
    Lock {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file cannot be opened.
    #[error("open database {}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// A setting that durability rests on is not in force.
    #[error("database {}: {pragma} is {found:?} where {wanted:?} is needed (a network file system?)", path.display())]
    Pragma {
        /// Which file.
        path: PathBuf,
        /// Which setting.
        pragma: &'static str,
        /// What it should be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// A newer program wrote the file.
    #[error(
        "database {} has schema {found}, this program knows up to {known}: run the newer program, or restore a \
         backup made before the upgrade", path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A statement failed.
    #[error("database statement")]
    Sql(#[from] rusqlite::Error),
    /// A row does not hold what it should.
    #[error("database row in {place}: {what}")]
    Corrupt {
        /// Which table and row.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// A sealed value does not open.
    #[error("sealed row")]
    Sealed(#[from] crate::seal::SealError),
    /// A message of a stream after which something is missing; nothing of it is stored.
    #[error("position {found:?} leaves a gap in the stream: {expected:?} was due (epoch, n)")]
    Gap {
        /// The position that was due: epoch and number.
        expected: (u64, u64),
        /// The position that came.
        found: (u64, u64),
    },
    /// The commit that should have held the work failed; nothing of it is stored.
    #[error("commit failed: {0}")]
    Commit(String),
    /// The writer thread has ended.
    #[error("the database writer has stopped")]
    Stopped,
}

impl StoreError {
    /// The whole story: what was being done, and what was behind it.
    #[must_use]
    pub fn chain(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    /// A row that does not hold what it should.
    pub fn corrupt(place: impl Into<String>, what: impl ToString) -> Self {
        Self::Corrupt { place: place.into(), what: what.to_string() }
    }
}

/// Opens a database for writing, makes its settings durable ones, and brings its schema up to date.
///
/// `migrations[i]` is the SQL that leads from schema `i` to schema `i + 1`; once released, an entry is never edited.
///
/// # Errors
/// When the file cannot be opened, a setting is not in force, or a newer program wrote it.
pub fn open(storage: &Storage, name: &str, migrations: &[&str]) -> Result<Connection, StoreError> {
    fs::create_dir_all(storage.path())
        .map_err(|source| StoreError::Folder { path: storage.path().into(), source })?;
    keep_private(&storage.file(name))
        .map_err(|source| StoreError::Folder { path: storage.path().into(), source })?;
    let mut connection =
        connect(storage, name, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    let path = storage.file(name);
    let pragma = |statement: &str, pragma: &'static str, wanted: &'static str| {
        connection.execute_batch(statement)?;
        let found: rusqlite::types::Value = connection.pragma_query_value(None, pragma, |row| row.get(0))?;
        let found = match found {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        };
        if found == wanted {
            return Ok(());
        }
        Err(StoreError::Pragma { path: path.clone(), pragma, wanted, found })
    };
    pragma("PRAGMA auto_vacuum=INCREMENTAL", "auto_vacuum", "2")?;
    pragma("PRAGMA journal_mode=WAL", "journal_mode", "wal")?;
    pragma("PRAGMA synchronous=FULL", "synchronous", "2")?;
    pragma("PRAGMA foreign_keys=ON", "foreign_keys", "1")?;
    pragma("PRAGMA secure_delete=ON", "secure_delete", "1")?;
    pragma("PRAGMA wal_autocheckpoint=1000", "wal_autocheckpoint", "1000")?;
    pragma("PRAGMA temp_store=MEMORY", "temp_store", "2")?;
    connection.set_prepared_statement_cache_capacity(128);
    // Without it SQLite compiles a statement with `LIMIT ?` anew each time it is run, in case another plan suits the
    // number better.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    migrate(&mut connection, &path, migrations)?;
    Ok(connection)
}

/// Makes a database's file, where there is none yet, for its owner alone: its log and index take over the permission
/// bits, and not every row is sealed.
fn keep_private(file: &std::path::Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Opens a second connection that only reads.
///
/// # Errors
/// When the file cannot be opened.
pub fn open_reader(storage: &Storage, name: &str) -> Result<Connection, StoreError> {
    connect(storage, name, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn connect(storage: &Storage, name: &str, flags: OpenFlags) -> Result<Connection, StoreError> {
    let path = storage.file(name);
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match storage.vfs() {
        Some(vfs) => Connection::open_with_flags_and_vfs(&path, flags, vfs),
        None => Connection::open_with_flags(&path, flags),
    }
    .map_err(|source| StoreError::Open { path, source })
}

fn migrate(
    connection: &mut Connection,
    path: &std::path::Path,
    migrations: &[&str],
) -> Result<(), StoreError> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(migrations.len()).expect("there are few migrations");
    if found > known {
        return Err(StoreError::Newer { path: path.into(), found, known });
    }
    for (index, sql) in (0..known).zip(migrations).skip(found as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", index + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_migrated_once_and_a_newer_one_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let first = "CREATE TABLE a(x)";
        drop(open(&storage, "t.db", &[first]).unwrap());
        drop(open(&storage, "t.db", &[first, "ALTER TABLE a ADD y"]).unwrap());
        let error = open(&storage, "t.db", &[first]).err().unwrap().to_string();
        assert!(error.contains("schema 2") && error.contains("up to 1"), "{error}");
    }

    #[test]
    fn only_its_owner_may_read_a_database_and_its_log() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let _open = open(&Storage::folder(folder.path()), "t.db", &["CREATE TABLE a(x)"]).unwrap();
        for file in fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }

    #[test]
    fn a_failed_migration_leaves_the_schema_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        assert!(open(&storage, "t.db", &["CREATE TABLE a(x); CREATE TABLE a(x)"]).is_err());
        drop(open(&storage, "t.db", &["CREATE TABLE a(x)"]).unwrap());
    }
}
