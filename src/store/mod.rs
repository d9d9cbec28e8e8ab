//! What both databases share: how a SQLite file is opened, migrated and written.
//!
//! A store is a plain synchronous struct around one connection; it starts no thread and reads no clock. [`Writer`] is
//! the thread around it: it runs operations in the order they came, many in one transaction, and answers each caller
//! only after the commit that holds its work. A caller in a hurry does a small operation itself while the disk is quick.
//!
//! WAL with `synchronous=FULL`, nothing less: a commit costs exactly one sync, and what was acknowledged survives a
//! power cut. Every pragma is read back, because SQLite may ignore one without an error.

mod backup;
mod check;
mod files;
mod group;
mod health;
mod inspect;
mod lock;
mod pace;
mod reader;
mod reserve;
mod salvage;
#[expect(
    unsafe_code,
    reason = "SQLite's file layer is C; counting its syncs needs a VFS, and this is the only place with one"
)]
pub mod vfs;
mod writer;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

pub use backup::{back_up, restore};
pub use check::{examine, examine_aside, was_left_open};
pub use files::mark_damaged;
pub use health::{Disk, Health};
pub use inspect::{Inspection, inspect};
pub use lock::FolderLock;
pub use reader::ReaderHandle;
pub use reserve::Reserve;
pub use salvage::{Salvage, salvage};
pub use writer::{Writer, WriterHandle};

use crate::seams::Storage;

/// A synchronous store around one connection.
pub trait Store: Send + 'static {
    /// The connection that the writer begins and commits transactions on.
    fn connection(&mut self) -> &mut Connection;

    /// Hears whether the disk is full. A full one still takes what ends work that is under way, as long as the room
    /// that was kept for that lasts; nothing new is to be begun.
    fn disk_is_full(&mut self, _full: bool) {}

    /// Hears that operations were rolled back: what it knows of the file from before that may be wrong, and what it put
    /// off is not to be written any more.
    fn undone(&mut self) {}

    /// Whether it has put off a change to the end of the transaction, because most operations of one make the same.
    fn owes(&self) -> bool {
        false
    }

    /// Writes what it has put off.
    ///
    /// # Errors
    /// Those of the database.
    fn settle_up(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Ends a transaction, with what was put off to its end.
    ///
    /// # Errors
    /// Those of the database. The transaction may still be open then, as after any `COMMIT` that failed.
    fn commit(&mut self) -> Result<(), StoreError> {
        self.settle_up()?;
        self.connection().prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
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
    /// SQLite refuses the layer between it and its files.
    #[error("SQLite's files")]
    Vfs(#[from] vfs::VfsError),
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
    /// There is no room for anything new.
    #[error("the disk is full: what runs can still be recorded, and nothing new is taken; free some space")]
    DiskFull,
    /// The file cannot be what it was.
    #[error("database {} is damaged: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How that shows.
        what: String,
    },
    /// What was saved of a damaged file is not enough to go on with.
    #[error(
        "database {} is damaged and lacks {missing}, without which it cannot be used: restore a backup; it was left as \
         it is", path.display()
    )]
    Unsalvageable {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// A file beside the database cannot be read or written.
    #[error("file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that must not be there is.
    #[error("{} is there already: choose another name; nothing is overwritten", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// A backup cannot be made or used.
    #[error("backup {}: {what}", path.display())]
    Backup {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The reader's connection cannot be opened.
    #[error("the database cannot be read: {0}")]
    Unreadable(String),
    /// Too many questions wait.
    #[error("too many questions wait for the database: ask again")]
    Busy,
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

    /// Whether the file itself is damaged, as opposed to a disk that is full or away.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Sql(error) | Self::Open { source: error, .. } => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
            _ => false,
        }
    }

    /// Whether there was no room on the disk.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull => true,
            Self::Sql(error) | Self::Open { source: error, .. } => {
                error.sqlite_error_code() == Some(ErrorCode::DiskFull)
            }
            Self::Folder { source, .. } | Self::File { source, .. } | Self::Lock { source, .. } => {
                source.kind() == io::ErrorKind::StorageFull
            }
            _ => false,
        }
    }

    /// A row that does not hold what it should.
    pub fn corrupt(place: impl Into<String>, what: impl ToString) -> Self {
        Self::Corrupt { place: place.into(), what: what.to_string() }
    }
}

/// Opens a database for writing, makes its settings durable ones, and brings its schema up to date. A file of an older
/// schema is copied first, to `NAME.schema-N.backup`; the copy is kept.
///
/// `migrations[i]` is the SQL that leads from schema `i` to schema `i + 1`; once released, an entry is never edited.
///
/// # Errors
/// When the file cannot be opened, a setting is not in force, or a newer program wrote it; [`StoreError::Damaged`] and
/// those of [`StoreError::is_damage`] when it is to be salvaged.
pub fn open(storage: &Storage, name: &str, migrations: &[&str]) -> Result<Connection, StoreError> {
    let path = storage.file(name);
    if storage.is_on_disk() {
        make_folder(storage.path(), 0o777)
            .map_err(|source| StoreError::Folder { path: storage.path().into(), source })?;
        files::finish(storage, name)?;
        if let Some(what) = files::mark(storage, name) {
            return Err(StoreError::Damaged { path, what });
        }
        files::begin(storage, name)?;
        let is_empty = fs::metadata(&path).is_ok_and(|file| file.len() == 0);
        if is_empty && !files::is_beginning(storage, name) && !was_left_open(storage, name) {
            return Err(StoreError::Damaged { path, what: "the file is empty".into() });
        }
    }
    let mut connection = ready(storage, name)?;
    migrate(&mut connection, &path, migrations, Some(storage).filter(|storage| storage.is_on_disk()))?;
    if storage.is_on_disk() {
        files::begun(storage, name);
    }
    Ok(connection)
}

/// A connection for writing, with settings that are durable ones.
fn ready(storage: &Storage, name: &str) -> Result<Connection, StoreError> {
    let path = storage.file(name);
    if storage.is_on_disk() {
        keep_private(&path).map_err(|source| StoreError::Folder { path: storage.path().into(), source })?;
    }
    let connection =
        connect(storage, name, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
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
    Ok(connection)
}

/// Makes a folder, and those it lies in, where they are not there yet, with these permission bits; and makes their names
/// durable: what is synced in a folder whose name is lost in a power cut is lost with it.
///
/// # Errors
/// Those of the file system.
pub fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new(""));
    make_folder(parent, mode)?;
    match fs::DirBuilder::new().mode(mode).create(folder) {
        // Somebody else may have been quicker.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => return Err(error),
        _ => {}
    }
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    fs::File::open(parent)?.sync_all()
}

/// Makes a database's file, where there is none yet, for its owner alone: its log and index take over the permission
/// bits, and not every row is sealed.
fn keep_private(file: &Path) -> io::Result<()> {
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
    let vfs = vfs::gathering(storage.vfs())?;
    Connection::open_with_flags_and_vfs(&path, flags, vfs.as_str())
        .map_err(|source| StoreError::Open { path, source })
}

/// Brings a schema up to date, after a copy of what there was where that is wanted.
fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
    keep_copy: Option<&Storage>,
) -> Result<(), StoreError> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(migrations.len()).expect("there are few migrations");
    if found > known {
        return Err(StoreError::Newer { path: path.into(), found, known });
    }
    if let Some(storage) = keep_copy.filter(|_| (1..known).contains(&found)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let copy = storage.file(&format!("{name}.schema-{found}.backup"));
        backup::copy(connection, &copy)?;
        tracing::info!(copy = %copy.display(), found, known, "the database is of an older schema; a copy was made");
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
    fn a_file_of_an_older_schema_is_copied_before_it_is_changed_and_the_copy_can_be_put_back() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::folder(folder.path());
        let migrations = [
            "CREATE TABLE a(x); INSERT INTO a VALUES (1)",
            "DROP TABLE a; CREATE TABLE b(y)",
            "DROP TABLE b",
        ];
        let copy = |schema: u32| storage.file(&format!("t.db.schema-{schema}.backup"));
        let tables = |connection: &Connection| -> Vec<String> {
            let mut tables =
                connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
            tables.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        };
        drop(open(&storage, "t.db", &migrations[..1]).unwrap());
        drop(open(&storage, "t.db", &migrations[..1]).unwrap());
        assert!(!copy(0).exists() && !copy(1).exists(), "nothing was changed yet");
        // The change after the next one fails: what it would have changed is there twice.
        let broken = [migrations[0], migrations[1], "nonsense"];
        assert!(open(&storage, "t.db", &broken).is_err());
        assert_eq!(tables(&open(&storage, "t.db", &migrations[..2]).unwrap()), ["b"]);
        assert_eq!(copy(1).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(tables(&Connection::open(copy(1)).unwrap()), ["a"]);
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let (aside, ()) =
            restore(&storage, "t.db", &migrations[..1], &copy(1), now, |copy| Ok((copy, ()))).unwrap();
        assert_eq!(aside.unwrap(), storage.file("t.db.replaced-20261122T120000Z"));
        let restored = open(&storage, "t.db", &migrations[..1]).unwrap();
        assert_eq!(restored.query_row("SELECT x FROM a", [], |row| row.get(0)), Ok(1));
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
