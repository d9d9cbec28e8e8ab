//! Layers over SQLite's own files: one that gathers writes, one that counts them, and a disk in memory.
//!
//! The one that counts proves how many syncs a job costs and what a full or broken disk does, without root rights and
//! on any file system.

mod gather;
pub mod memory;
mod shim;

use std::{
    collections::BTreeMap,
    ffi::c_int,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_WRITE, SQLITE_OK};

pub use gather::gathering;
use shim::{Below, Passing};

/// A VFS over SQLite's own one that counts syncs and writes, and can be told to fail them. Everything else goes straight
/// through, directory syncs included: those are not counted. See [`CountingVfs::register`].
#[derive(Debug)]
pub struct CountingVfs;

/// What passes through a [`CountingVfs`], and the switch that breaks it. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Arc<FileCounts>>>,
    fault: AtomicU8,
    quota: Mutex<Option<Quota>>,
}

/// How much a folder may hold.
#[derive(Debug)]
struct Quota {
    folder: PathBuf,
    bytes: u64,
}

impl Quota {
    /// What is left, judged by all files that are in the folder, whoever wrote them; the index of a log lies in memory.
    fn free(&self) -> u64 {
        let sizes = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let counted = sizes.filter(|file| !file.file_name().to_string_lossy().ends_with("-shm"));
        let used: u64 = counted.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        self.bytes.saturating_sub(used)
    }
}

#[derive(Debug, Default)]
struct FileCounts {
    syncs: AtomicU64,
    writes: AtomicU64,
}

/// What a disk may do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Syncs fail: nobody knows what is durable.
    Syncs = 1,
    /// Writes fail.
    Writes = 2,
    /// There is no space left.
    Full = 3,
}

/// Why a VFS cannot be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VfsError {
    /// A name may not hold a zero byte.
    #[error("the name holds a zero byte")]
    Name,
    /// There is no VFS of the name that it is to lie over.
    #[error("there is no VFS of the name to lie over")]
    Missing,
    /// There is a VFS of this name already.
    #[error("there is a VFS of this name already")]
    Taken,
    /// SQLite refused, with this result code.
    #[error("SQLite refused the VFS with result code {0}")]
    Refused(i32),
}

impl Counts {
    /// Syncs of a file, by its name without the folder, e.g. `queue.db-wal`.
    #[must_use]
    pub fn syncs(&self, file: &str) -> u64 {
        self.of(file).syncs.load(Ordering::SeqCst)
    }

    /// Writes to a file, likewise.
    #[must_use]
    pub fn writes(&self, file: &str) -> u64 {
        self.of(file).writes.load(Ordering::SeqCst)
    }

    /// Syncs of all files together.
    #[must_use]
    pub fn all_syncs(&self) -> u64 {
        let files = self.0.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.values().map(|file| file.syncs.load(Ordering::SeqCst)).sum()
    }

    /// From now on the disk is broken in this way.
    pub fn break_with(&self, fault: Fault) {
        self.0.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// From now on the disk works again.
    pub fn mend(&self) {
        self.0.fault.store(0, Ordering::SeqCst);
    }

    /// From now on a folder holds so many bytes and no more, the files in it counted together: deleting one makes room.
    pub fn limit(&self, folder: &Path, bytes: u64) {
        let quota = Quota { folder: folder.into(), bytes };
        *self.0.quota.lock().unwrap_or_else(PoisonError::into_inner) = Some(quota);
    }

    /// How many bytes are left under [`Counts::limit`]; for [`crate::seams::Storage::with_free`].
    #[must_use]
    pub fn free(&self) -> u64 {
        let quota = self.0.quota.lock().unwrap_or_else(PoisonError::into_inner);
        quota.as_ref().map_or(u64::MAX, Quota::free)
    }

    fn of(&self, file: &str) -> Arc<FileCounts> {
        let mut files = self.0.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.entry(file.to_owned()).or_default().clone()
    }

    fn has(&self, fault: Fault) -> bool {
        self.0.fault.load(Ordering::SeqCst) == fault as u8
    }
}

impl CountingVfs {
    /// Registers a VFS under a name, to be used with [`crate::seams::Storage::through`]. It stays registered for the
    /// life of the process.
    ///
    /// # Errors
    /// When the name is taken or SQLite refuses.
    pub fn register(name: &str) -> Result<Counts, VfsError> {
        let counts = Counts::default();
        shim::register::<Watched>(name, None, counts.clone())?;
        Ok(counts)
    }
}

/// An open file that is counted.
struct Watched {
    counts: Counts,
    file: Arc<FileCounts>,
}

impl Passing for Watched {
    type Shared = Counts;
    const MINDS_THE_INDEX: bool = false;

    fn opened(counts: &Counts, name: &str, _flags: c_int) -> Self {
        Self { file: counts.of(name), counts: counts.clone() }
    }

    fn write(&mut self, below: Below, bytes: &[u8], offset: i64) -> c_int {
        if self.counts.has(Fault::Writes) {
            return SQLITE_IOERR_WRITE;
        }
        let end = offset.saturating_add_unsigned(bytes.len() as u64);
        let grows = || below.size().map_or(0, |size| end.saturating_sub(size));
        if self.counts.has(Fault::Full)
            || u64::try_from(grows()).is_ok_and(|grows| grows > self.counts.free())
        {
            return SQLITE_FULL;
        }
        self.file.writes.fetch_add(1, Ordering::SeqCst);
        below.write(bytes, offset)
    }

    fn sync(&mut self, below: Below, flags: c_int) -> c_int {
        if self.counts.has(Fault::Syncs) {
            return SQLITE_IOERR_FSYNC;
        }
        self.file.syncs.fetch_add(1, Ordering::SeqCst);
        below.sync(flags)
    }

    fn settle(&mut self, _below: Below) -> c_int {
        SQLITE_OK
    }
}
