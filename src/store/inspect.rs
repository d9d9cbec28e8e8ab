//! Looking at a database without changing it, for a person who asks whether it is well.

use std::{
    fs,
    path::Path,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;

/// Mistakes of the file that are told at most.
const TOLD: usize = 5;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its schema.
    pub schema: u32,
    /// What SQLite's quick check has against it; empty where nothing.
    pub damage: Vec<String>,
    /// Whether that check came to its end in time.
    pub whole: bool,
}

/// Looks at a database, for at most `within`. `in_use` says that a process has it open; only then its index beside it
/// is used, and otherwise nothing is written anywhere.
///
/// # Errors
/// When it cannot be opened or read.
pub fn inspect(path: &Path, in_use: bool, within: Duration) -> Result<Inspection, StoreError> {
    let connection = open(path, in_use).map_err(|source| StoreError::Open { path: path.into(), source })?;
    let schema = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let interrupt = connection.get_interrupt_handle();
    let (done, is_done) = sync_channel::<()>(0);
    let watch = thread::spawn(move || {
        if is_done.recv_timeout(within) == Err(RecvTimeoutError::Timeout) {
            interrupt.interrupt();
        }
    });
    let checked = quick_check(&connection);
    drop(done);
    // It only waits.
    let _ = watch.join();
    match checked {
        Ok(damage) => Ok(Inspection { schema, damage, whole: true }),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok(Inspection { schema, damage: Vec::new(), whole: false })
        }
        Err(error) => Err(error.into()),
    }
}

fn open(path: &Path, in_use: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let has_log = fs::metadata(log).is_ok_and(|log| log.len() > 0);
    match (in_use || has_log, path.to_str()) {
        (false, Some(path)) => {
            // Nobody writes to it and it has no log: so SQLite need not make one to read it.
            let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            Connection::open_with_flags(
                format!("file:{path}?immutable=1"),
                flags | OpenFlags::SQLITE_OPEN_URI,
            )
        }
        _ => Connection::open_with_flags(path, flags),
    }
}

fn quick_check(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({TOLD})"))?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut told: Vec<String> = rows.collect::<Result<_, _>>()?;
    told.retain(|line| line != "ok");
    Ok(told)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::FileExt};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    fn files(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_sound_database_is_found_sound_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let storage = crate::seams::Storage::folder(folder.path());
        drop(crate::store::open(&storage, "a?b.db", &["CREATE TABLE a(x)"]).unwrap());
        let before = files(folder.path());
        let found = inspect(&folder.path().join("a?b.db"), false, WITHIN).unwrap();
        assert_eq!(found, Inspection { schema: 1, damage: Vec::new(), whole: true });
        assert_eq!(files(folder.path()), before);
    }

    #[test]
    fn a_damaged_database_and_a_file_that_is_none_are_told_apart_from_sound_ones() {
        let folder = tempfile::tempdir().unwrap();
        let storage = crate::seams::Storage::folder(folder.path());
        let sql = "CREATE TABLE a(x); CREATE INDEX i ON a(x);
                   WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000)
                   INSERT INTO a SELECT hex(randomblob(50)) FROM n;";
        drop(crate::store::open(&storage, "t.db", &[sql]).unwrap());
        let path = folder.path().join("t.db");
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xAA; 4096], 20 * 4096).unwrap();
        match inspect(&path, false, WITHIN) {
            Ok(found) => assert!(!found.damage.is_empty(), "{found:?}"),
            Err(error) => assert!(error.chain().contains("malformed"), "{}", error.chain()),
        }
        fs::File::create(&path).unwrap().write_all(&[b'x'; 9000]).unwrap();
        assert!(inspect(&path, false, WITHIN).is_err());
        assert!(inspect(&folder.path().join("none.db"), false, WITHIN).is_err());
    }
}
