//! Where databases live: a folder, and the SQLite VFS through which every byte of theirs passes.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A place for databases.
#[derive(Clone)]
pub struct Storage {
    folder: PathBuf,
    vfs: Option<String>,
    is_on_disk: bool,
    free: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("folder", &self.folder)
            .field("vfs", &self.vfs)
            .finish_non_exhaustive()
    }
}

impl Storage {
    /// A folder on disk, through SQLite's own VFS.
    #[must_use]
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), vfs: None, is_on_disk: true, free: None }
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
        Self { folder: folder.into(), vfs: Some(vfs.into()), is_on_disk: false, free: None }
    }

    /// Whether the file system has it.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.is_on_disk
    }

    /// The same, with somebody else than the file system to say how many bytes are free.
    #[must_use]
    pub fn with_free(mut self, free: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.free = Some(Arc::new(free));
        self
    }

    /// How many bytes more the folder can take.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free_bytes(&self) -> io::Result<u64> {
        if let Some(free) = &self.free {
            return Ok(free());
        }
        let found = rustix::fs::statvfs(&self.folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
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
