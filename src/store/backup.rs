//! Whole copies of a database: written while it is in use, and checked before one takes its place.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, connect, files, migrate};
use crate::seams::Storage;

/// How every SQLite file begins.
pub(super) const HEADER: &[u8; 16] = b"SQLite format 3\0";

/// Writes a consistent copy of a database to a new file, while others may go on writing to it: all that was committed
/// before this call is in the copy. The copy is one file without a log, readable by its owner alone, and durable when
/// this returns; until then it has another name.
///
/// # Errors
/// [`StoreError::Exists`] where there is such a file already, and those of disk and database.
pub fn back_up(storage: &Storage, name: &str, to: &Path) -> Result<u64, StoreError> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(StoreError::Exists { path: to.into() });
    }
    if !storage.file(name).exists() {
        return Err(StoreError::Backup {
            path: storage.file(name),
            what: "there is no such database yet".into(),
        });
    }
    let reader = connect(storage, name, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    copy(&reader, to)
}

/// [`back_up`] from a connection that is open, over a file that may be there.
pub(super) fn copy(connection: &Connection, to: &Path) -> Result<u64, StoreError> {
    let failed = |source| StoreError::File { path: to.into(), source };
    let draft = beside(to, &format!(".{}.new", std::process::id()));
    let text = draft.to_str().ok_or_else(|| failed(io::Error::other("the path is not UTF-8")))?;
    remove(&draft).map_err(failed)?;
    let written = (|| {
        // SQLite fills an empty file and leaves its permissions as they are.
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
        let file = made.map_err(failed)?;
        connection.execute("VACUUM INTO ?1", [text])?;
        let damage = finding(&Connection::open_with_flags(&draft, OpenFlags::SQLITE_OPEN_READ_ONLY)?)?;
        if let Some(what) = damage {
            return Err(StoreError::Backup { path: to.into(), what });
        }
        file.sync_all().map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        fs::rename(&draft, to).and_then(|()| files::sync_folder_of(to)).map_err(failed)?;
        Ok(bytes)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Puts a backup in a database's place. What it is, is judged on a copy of it, before anything is touched: whether it
/// is whole, of a schema that is known, and whatever `adopt` asks of it. `adopt` also makes it fit to go on: it has the
/// copy's connection, brought up to date, inside a transaction that is committed before the copy takes its place. What
/// was there before is kept under another name, which is given back if there was anything.
///
/// # Errors
/// [`StoreError::Backup`] when it is not a backup or not whole, [`StoreError::Newer`], those of `adopt`, of disk and
/// database. The database in place is then as it was.
pub fn restore<T>(
    storage: &Storage,
    name: &str,
    migrations: &[&str],
    from: &Path,
    now: jiff::Timestamp,
    adopt: impl FnOnce(Connection) -> Result<(Connection, T), StoreError>,
) -> Result<(Option<PathBuf>, T), StoreError> {
    files::finish(storage, name)?;
    let refused = |what: String| StoreError::Backup { path: from.into(), what };
    check_header(from)?;
    if fs::metadata(beside(from, "-wal")).is_ok_and(|log| log.len() > 0) {
        let what = "a log lies beside it, so it is no backup but a database in use, and half of it may be in the \
                    log: make the backup with `latchd backup`, or `latchd cloud backup`";
        return Err(refused(what.into()));
    }
    let new = files::new_name(name);
    files::remove_all(storage, &new)?;
    let failed = |source| StoreError::File { path: storage.file(&new), source };
    let mut source = fs::File::open(from).map_err(|source| StoreError::File { path: from.into(), source })?;
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(storage.file(&new));
    let adopted = made.map_err(failed).and_then(|mut copy| {
        io::copy(&mut source, &mut copy).map_err(failed)?;
        files::give_to_folders_owner(storage, &copy).map_err(failed)?;
        let judged = connect(storage, &new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        if let Some(what) = finding(&judged).unwrap_or_else(|error| Some(error.chain())) {
            return Err(refused(what));
        }
        if judged.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))? == 0 {
            return Err(refused("it holds nothing of latchd's".into()));
        }
        drop(judged);
        let mut connection = super::ready(storage, &new)?;
        migrate(&mut connection, from, migrations, None)?;
        adopt_in_transaction(connection, adopt)
    });
    let (connection, adopted) = match adopted {
        Ok(adopted) => adopted,
        Err(error) => {
            files::remove_all(storage, &new)?;
            return Err(error);
        }
    };
    files::close(connection)?;
    let aside = files::install(storage, name, "replaced", now)?;
    Ok((aside, adopted))
}

/// Runs `adopt` in a transaction of its own and commits it.
pub(super) fn adopt_in_transaction<T>(
    connection: Connection,
    adopt: impl FnOnce(Connection) -> Result<(Connection, T), StoreError>,
) -> Result<(Connection, T), StoreError> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let (connection, adopted) = adopt(connection)?;
    connection.execute_batch("COMMIT")?;
    Ok((connection, adopted))
}

fn check_header(from: &Path) -> Result<(), StoreError> {
    let mut header = [0; HEADER.len()];
    let read = fs::File::open(from).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) if header == *HEADER => Ok(()),
        Err(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Err(StoreError::File { path: from.into(), source })
        }
        _ => Err(StoreError::Backup { path: from.into(), what: "it is not a database".into() }),
    }
}

/// What is wrong with a database's pages, if anything.
///
/// # Errors
/// Those of the database that are no finding: it cannot be read at all, for example.
pub(super) fn finding(connection: &Connection) -> Result<Option<String>, StoreError> {
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match found.map_err(StoreError::from) {
        Ok(text) if text == "ok" => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_damage() => Ok(Some(error.chain())),
        Err(error) => Err(error),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
