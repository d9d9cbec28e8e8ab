//! Where databases live: a folder, and the SQLite VFS through which every byte of theirs passes; and the few plain files
//! beside them.

use std::{
    fmt, fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The plain files of a folder, those that are only there to take up room.
pub trait Files: Send + Sync {
    /// How many bytes a file has; none where it is not there.
    ///
    /// # Errors
    /// When the file system does not say.
    fn size(&self, name: &str) -> io::Result<Option<u64>>;

    /// Makes a file that takes up so many bytes, durably. What fails may leave a part of it.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is no room for it; the file system's own.
    fn fill(&self, name: &str, bytes: u64) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is not there; the file system's own.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// How many bytes more the folder can take.
    ///
    /// # Errors
    /// When the file system does not say.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// A place for databases.
#[derive(Clone)]
pub struct Storage {
    folder: PathBuf,
    vfs: Option<String>,
    /// Where they are not the file system's.
    files: Option<Arc<dyn Files>>,
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
        Self { folder: folder.into(), vfs: None, files: None, free: None }
    }

    /// The same, through a VFS that was registered under this name: one that counts syncs, tears writes or runs full.
    #[must_use]
    pub fn through(mut self, vfs: impl Into<String>) -> Self {
        self.vfs = Some(vfs.into());
        self
    }

    /// A folder that only a VFS of this name knows of, with these files beside its databases: the file system has
    /// nothing of it.
    #[must_use]
    pub fn inside(vfs: impl Into<String>, folder: impl Into<PathBuf>, files: Arc<dyn Files>) -> Self {
        Self { folder: folder.into(), vfs: Some(vfs.into()), files: Some(files), free: None }
    }

    /// Whether the file system has it.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.files.is_none()
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
        match &self.free {
            Some(free) => Ok(free()),
            None => self.files(|files| files.free_bytes()),
        }
    }

    /// [`Files::size`].
    ///
    /// # Errors
    /// As there.
    pub fn size(&self, name: &str) -> io::Result<Option<u64>> {
        self.files(|files| files.size(name))
    }

    /// [`Files::fill`].
    ///
    /// # Errors
    /// As there.
    pub fn fill(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.files(|files| files.fill(name, bytes))
    }

    /// [`Files::remove`].
    ///
    /// # Errors
    /// As there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.files(|files| files.remove(name))
    }

    fn files<T>(&self, ask: impl FnOnce(&dyn Files) -> io::Result<T>) -> io::Result<T> {
        match &self.files {
            Some(files) => ask(files.as_ref()),
            None => ask(&Folder(&self.folder)),
        }
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

/// A folder of the file system.
struct Folder<'a>(&'a Path);

impl Files for Folder<'_> {
    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        match fs::metadata(self.0.join(name)) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn fill(&self, name: &str, bytes: u64) -> io::Result<()> {
        let path = self.0.join(name);
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // Not every file system can; writing does the same.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file)?;
            }
            Err(error) => return Err(error.into()),
        }
        file.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(self.0)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
