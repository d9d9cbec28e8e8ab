//! One process to a folder.
//!
//! Two processes on one database would each be right by its own memory and wrong together: the second one would settle
//! the jobs that the first one has at work. SQLite keeps their statements apart, not their decisions; the lock does.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::StoreError;

/// The lock's file. It stays behind; what counts is the lock on it, which ends with its process.
const FILE: &str = "lock";

/// The right to use a folder, for as long as this lives.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder, which has to be there.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it, [`StoreError::Lock`] when it cannot be locked at all.
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Lock { path: folder.into(), source };
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(FILE));
        let mut file = open.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: folder.into(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // For the message of whoever comes second, and for nothing else.
        if let Err(error) = sign(&mut file) {
            tracing::debug!(%error, "the lock could not be signed");
        }
        Ok(Self { _file: file })
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_once_and_again_when_it_was_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err();
        let StoreError::InUse { path, holder } = &refused else { panic!("{refused:?}") };
        assert_eq!((path.as_path(), *holder), (folder.path(), Some(std::process::id())));
        drop(first);
        drop(FolderLock::take(folder.path()).unwrap());
    }

    #[test]
    fn a_folder_that_cannot_be_locked_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        assert!(matches!(FolderLock::take(&gone), Err(StoreError::Lock { .. })));
    }
}
