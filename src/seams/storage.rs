//! Where databases live: a folder, and the SQLite VFS through which every byte of theirs passes.

use std::path::{Path, PathBuf};

/// A place for databases.
#[derive(Debug, Clone)]
pub struct Storage {
    folder: PathBuf,
    vfs: Option<String>,
}

impl Storage {
    /// A folder on disk, through SQLite's own VFS.
    #[must_use]
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), vfs: None }
    }

    /// The same, through a VFS that was registered under this name: one that counts syncs, tears writes or runs full.
    #[must_use]
    pub fn through(mut self, vfs: impl Into<String>) -> Self {
        self.vfs = Some(vfs.into());
        self
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The VFS to open databases with, if not SQLite's own.
    #[must_use]
    pub fn vfs(&self) -> Option<&str> {
        self.vfs.as_deref()
    }
}
