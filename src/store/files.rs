//! One file in another's place, so that no crash in between leaves neither, or one with the other's log.
//!
//! The new one is made whole and durable under a name of its own. Then a note says that it is to take the place; from
//! there on every start carries the change through to its end before it opens anything.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};
use rusqlite::Connection;

use super::StoreError;
use crate::{seal::write_private, seams::Storage};

/// The name under which what is to take a database's place is made.
pub(super) fn new_name(name: &str) -> String {
    format!("{name}.new")
}

fn note_name(name: &str) -> String {
    format!("{name}.swap")
}

/// The mark of a database that was found to be damaged while it was in use.
fn mark_name(name: &str) -> String {
    format!("{name}.damaged")
}

/// Marks a database as damaged: whoever opens it next is refused with [`StoreError::Damaged`].
///
/// # Errors
/// When the mark cannot be written.
pub fn mark_damaged(storage: &Storage, name: &str, what: &str) -> Result<(), StoreError> {
    let path = storage.file(&mark_name(name));
    match write_private(&path, what.as_bytes()) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(StoreError::File { path, source })
        }
        _ => Ok(()),
    }
}

/// What the mark says, if there is one.
pub(super) fn mark(storage: &Storage, name: &str) -> Option<String> {
    let text = fs::read(storage.file(&mark_name(name))).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Folds the log of a finished file back and closes it, so that the file alone is all of it.
/// Notes beside a file that is not there yet that it is being made: a first start that is cut off leaves it empty, and
/// that is no damage.
pub(super) fn begin(storage: &Storage, name: &str) -> Result<(), StoreError> {
    let note = beginning(storage, name);
    if storage.file(name).exists() || note.exists() {
        return Ok(());
    }
    let made = fs::File::create(&note).and_then(|file| file.sync_all()).and_then(|()| sync_folder_of(&note));
    made.map_err(|source| StoreError::Folder { path: storage.path().into(), source })
}

/// Whether a first start has not come to its end.
pub(super) fn is_beginning(storage: &Storage, name: &str) -> bool {
    beginning(storage, name).exists()
}

/// The file is made. A note that stays says nothing about a file that is not empty.
pub(super) fn begun(storage: &Storage, name: &str) {
    let note = beginning(storage, name);
    if note.exists()
        && let Err(error) = fs::remove_file(&note)
    {
        tracing::warn!(error = %error, note = %note.display(), "the note of a first start could not be removed");
    }
}

fn beginning(storage: &Storage, name: &str) -> std::path::PathBuf {
    storage.file(&format!("{name}.beginning"))
}

pub(super) fn close(connection: Connection) -> Result<(), StoreError> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error.into())
}

/// Puts the new file, whole and closed, in the database's place. What was there gets a name with `why` and the time in
/// it, which is given back if there was anything.
pub(super) fn install(
    storage: &Storage,
    name: &str,
    why: &str,
    now: Timestamp,
) -> Result<Option<PathBuf>, StoreError> {
    let new = storage.file(&new_name(name));
    let synced = fs::File::open(&new).and_then(|file| file.sync_all());
    synced.map_err(|source| StoreError::File { path: new, source })?;
    let is_there = storage.file(name).exists();
    let aside = free_name(storage, &format!("{name}.{why}-{}", stamp(now)));
    let note = storage.file(&note_name(name));
    write_private(&note, aside.as_bytes()).map_err(|source| StoreError::File { path: note, source })?;
    finish(storage, name)?;
    Ok(is_there.then(|| storage.file(&aside)))
}

/// Carries a change through that a crash had cut off.
pub(super) fn finish(storage: &Storage, name: &str) -> Result<(), StoreError> {
    let note = storage.file(&note_name(name));
    let aside = match fs::read_to_string(&note) {
        Ok(aside) => aside,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StoreError::File { path: note, source }),
    };
    let new = storage.file(&new_name(name));
    let changed = (|| {
        if new.exists() {
            // The log first would leave a database that looks whole without it.
            for part in ["", "-wal"] {
                let from = storage.file(&format!("{name}{part}"));
                if from.exists() {
                    fs::rename(&from, storage.file(&format!("{aside}{part}")))?;
                }
            }
            remove(&storage.file(&format!("{name}-shm")))?;
            fs::rename(&new, storage.file(name))?;
        }
        remove(&storage.file(&mark_name(name)))?;
        sync_folder_of(&note)?;
        remove(&note)?;
        sync_folder_of(&note)
    })();
    changed.map_err(|source| StoreError::File { path: storage.file(name), source })
}

/// Deletes a database with all that belongs to it.
pub(super) fn remove_all(storage: &Storage, name: &str) -> Result<(), StoreError> {
    for part in ["", "-wal", "-shm", "-journal"] {
        let path = storage.file(&format!("{name}{part}"));
        remove(&path).map_err(|source| StoreError::File { path, source })?;
    }
    Ok(())
}

/// Gives a file that root made to whom its folder belongs: the service works under a user of its own.
pub(super) fn give_to_folders_owner(storage: &Storage, file: &fs::File) -> io::Result<()> {
    let (folder, own) = (fs::metadata(storage.path())?, file.metadata()?);
    if (folder.uid(), folder.gid()) == (own.uid(), own.gid()) {
        return Ok(());
    }
    fchown(file, Some(folder.uid()), Some(folder.gid()))
}

/// Makes the names in a file's folder durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

fn stamp(now: Timestamp) -> String {
    now.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn free_name(storage: &Storage, wanted: &str) -> String {
    let names = std::iter::once(wanted.to_owned()).chain((2..).map(|count| format!("{wanted}-{count}")));
    let mut free = names.filter(|name| !storage.file(name).exists());
    free.next().expect("there are more names than files")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(folder: &Path) -> Vec<(String, String)> {
        let mut found: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap())
            .map(|file| {
                let text = fs::read_to_string(file.path()).unwrap();
                (file.file_name().into_string().unwrap(), text)
            })
            .collect();
        found.sort();
        found
    }

    /// The steps of a change that was noted, each of which a crash may follow.
    #[test]
    fn a_change_that_a_crash_cut_off_anywhere_ends_the_same() {
        let moves: [&[(&str, &str)]; 4] = [
            &[],
            &[("t.db", "t.db.aside")],
            &[("t.db", "t.db.aside"), ("t.db-wal", "t.db.aside-wal")],
            &[("t.db", "t.db.aside"), ("t.db-wal", "t.db.aside-wal"), ("t.db.new", "t.db")],
        ];
        for done in moves {
            let folder = tempfile::tempdir().unwrap();
            let storage = Storage::folder(folder.path());
            let texts = [
                ("t.db", "old"),
                ("t.db-wal", "old log"),
                ("t.db.new", "new"),
                ("t.db.damaged", "why"),
                ("t.db.swap", "t.db.aside"),
            ];
            for (name, text) in texts {
                fs::write(storage.file(name), text).unwrap();
            }
            for (from, to) in done {
                fs::rename(storage.file(from), storage.file(to)).unwrap();
            }
            finish(&storage, "t.db").unwrap();
            let expected = [("t.db", "new"), ("t.db.aside", "old"), ("t.db.aside-wal", "old log")];
            let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
            assert_eq!(contents(folder.path()), expected, "after {done:?}");
        }
    }
}
