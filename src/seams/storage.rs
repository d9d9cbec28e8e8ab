//! Where databases live: a folder, and the SQLite VFS through which every byte of theirs passes.

use std::path::{Path, PathBuf};

/// A place for databases.
#[derive(Debug, Clone)]
pub struct Storage {
    folder: PathBuf,
    vfs: Option<String>,
    is_on_disk: bool,
}

impl Storage {
    /// A folder on disk, through SQLite's own VFS.
    #[must_use]
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), vfs: None, is_on_disk: true }
    }

    /// The same, through a VFS that was registered under this name: one that counts syncs, tears writes or runs full.
    #[must_use]
    pub fn through(mut self, vfs: impl Into<String>) -> Self {
        self.vfs = Some(vfs.into());
        self
    }

    /// A folder that only a VFS of this name knows of: the file system has nothing of it.
    #[must_use]
    pub fn inside(vfs: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), vfs: Some(vfs.into()), is_on_disk: false }
    }

    /// Whether the file system has it.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.is_on_disk
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
