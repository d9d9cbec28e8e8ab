//! A VFS over SQLite's own one that counts syncs and writes, and can be told to fail them.
//!
//! It proves how many syncs a job costs and what a full or broken disk does, without root rights and on any file
//! system. Everything but syncs and writes goes straight through to SQLite's default VFS, directory syncs included:
//! those are not counted.

pub mod memory;

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use rusqlite::ffi::{
    SQLITE_FULL, SQLITE_IOERR, SQLITE_IOERR_FSYNC, SQLITE_IOERR_WRITE, SQLITE_NOMEM, SQLITE_NOTFOUND,
    SQLITE_OK, sqlite3_file, sqlite3_filename, sqlite3_initialize, sqlite3_int64, sqlite3_io_methods,
    sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

/// The VFS; see [`CountingVfs::register`].
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
        let c_name = CString::new(name).map_err(|_| VfsError::Name)?;
        // Looking a name up and registering it are two steps.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = Counts::default();
        // SAFETY: `sqlite3_initialize` may be called at any time; `sqlite3_vfs_find` takes a null pointer for "the
        // default one" or a zero-terminated name, and what it gives lives as long as the process, for nobody
        // unregisters a VFS here.
        let (parent, taken) = unsafe {
            match sqlite3_initialize() {
                SQLITE_OK => {}
                refused => return Err(VfsError::Refused(refused)),
            }
            (sqlite3_vfs_find(ptr::null()), sqlite3_vfs_find(c_name.as_ptr()))
        };
        if !taken.is_null() {
            return Err(VfsError::Taken);
        }
        if parent.is_null() {
            return Err(VfsError::Refused(SQLITE_IOERR));
        }
        // SAFETY: `parent` was checked, and points to a VFS that lives on.
        let mut vfs = unsafe { *parent };
        let shim = Box::leak(Box::new(Shim { parent, counts: counts.clone() }));
        let own = c_int::try_from(size_of::<ShimFile>()).expect("a few words fit");
        vfs.szOsFile += own;
        vfs.pNext = ptr::null_mut();
        vfs.zName = c_name.into_raw();
        vfs.pAppData = ptr::from_mut(shim).cast();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        vfs.xAccess = Some(access);
        vfs.xFullPathname = Some(full_pathname);
        vfs.xRandomness = Some(randomness);
        vfs.xSleep = Some(sleep);
        vfs.xCurrentTime = Some(current_time);
        vfs.xCurrentTimeInt64 = Some(current_time_int64);
        vfs.xGetLastError = Some(last_error);
        // Neither extensions nor replaced system calls are wanted here.
        vfs.iVersion = 2;
        vfs.xDlOpen = None;
        vfs.xDlError = None;
        vfs.xDlSym = None;
        vfs.xDlClose = None;
        vfs.xSetSystemCall = None;
        vfs.xGetSystemCall = None;
        vfs.xNextSystemCall = None;
        // SAFETY: the struct and its name are leaked, so they outlive every use.
        let registered = unsafe { sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0) };
        match registered {
            SQLITE_OK => Ok(counts),
            refused => Err(VfsError::Refused(refused)),
        }
    }
}

/// What `pAppData` of our VFS points to.
struct Shim {
    parent: *mut sqlite3_vfs,
    counts: Counts,
}

/// An open file: SQLite allots `szOsFile` bytes for it, ours first, the parent's behind.
#[repr(C)]
struct ShimFile {
    base: sqlite3_file,
    /// From `Box::into_raw` while the file is open.
    watch: *mut Watch,
}

struct Watch {
    counts: Counts,
    file: Arc<FileCounts>,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};

// SAFETY, for every function below: SQLite calls them with the VFS that was registered above or with a file that
// `open` opened, and with arguments that are good for the parent's function of the same name. `shim` and `real`
// only follow the pointers that `register` and `open` laid.

unsafe fn shim<'a>(vfs: *mut sqlite3_vfs) -> &'a Shim {
    unsafe { &*(*vfs).pAppData.cast::<Shim>() }
}

unsafe fn real(file: *mut sqlite3_file) -> *mut sqlite3_file {
    unsafe { file.cast::<ShimFile>().add(1).cast() }
}

unsafe fn watch<'a>(file: *mut sqlite3_file) -> &'a Watch {
    unsafe { &*(*file.cast::<ShimFile>()).watch }
}

/// Calls the parent's function of an open file, or says `$missing` where it has none.
macro_rules! pass {
    ($file:ident . $method:ident ($($argument:expr),*) else $missing:expr) => {{
        unsafe {
            let real = real($file);
            match (*(*real).pMethods).$method {
                Some(method) => method(real $(, $argument)*),
                None => $missing,
            }
        }
    }};
}

/// The same for a function of the VFS.
macro_rules! pass_vfs {
    ($vfs:ident . $method:ident ($($argument:expr),*) else $missing:expr) => {{
        unsafe {
            let parent = shim($vfs).parent;
            match (*parent).$method {
                Some(method) => method(parent $(, $argument)*),
                None => $missing,
            }
        }
    }};
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    unsafe { (*file).pMethods = ptr::null() };
    let real = unsafe { real(file) };
    let opened = pass_vfs!(vfs.xOpen(name, real, flags, out_flags) else SQLITE_IOERR);
    if opened != SQLITE_OK {
        return opened;
    }
    let name = if name.is_null() {
        // A temporary file has no name.
        String::new()
    } else {
        let path = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let file_name = Path::new(path.as_ref()).file_name();
        file_name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let counts = unsafe { shim(vfs) }.counts.clone();
    let watch = Box::new(Watch { file: counts.of(&name), counts });
    unsafe {
        (*file.cast::<ShimFile>()).watch = Box::into_raw(watch);
        (*file).pMethods = &raw const METHODS;
    }
    SQLITE_OK
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let closed = pass!(file.xClose() else SQLITE_OK);
    unsafe {
        drop(Box::from_raw((*file.cast::<ShimFile>()).watch));
        (*file).pMethods = ptr::null();
    }
    closed
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    let watch = unsafe { watch(file) };
    if watch.counts.has(Fault::Syncs) {
        return SQLITE_IOERR_FSYNC;
    }
    watch.file.syncs.fetch_add(1, Ordering::SeqCst);
    pass!(file.xSync(flags) else SQLITE_IOERR)
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let watch = unsafe { watch(file) };
    if watch.counts.has(Fault::Writes) {
        return SQLITE_IOERR_WRITE;
    }
    let end = offset.saturating_add(amount.into());
    let grows = || {
        let mut size = 0;
        // SAFETY: as for every call here; the size is asked of the same open file.
        let asked = unsafe { file_size(file, &raw mut size) };
        if asked == SQLITE_OK { end.saturating_sub(size) } else { 0 }
    };
    if watch.counts.has(Fault::Full) || u64::try_from(grows()).is_ok_and(|grows| grows > watch.counts.free())
    {
        return SQLITE_FULL;
    }
    watch.file.writes.fetch_add(1, Ordering::SeqCst);
    pass!(file.xWrite(bytes, amount, offset) else SQLITE_IOERR)
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    into: *mut c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    pass!(file.xRead(into, amount, offset) else SQLITE_IOERR)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    pass!(file.xTruncate(size) else SQLITE_IOERR)
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    pass!(file.xFileSize(size) else SQLITE_IOERR)
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file.xLock(level) else SQLITE_IOERR)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file.xUnlock(level) else SQLITE_IOERR)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    pass!(file.xCheckReservedLock(held) else SQLITE_IOERR)
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    pass!(file.xFileControl(what, argument) else SQLITE_NOTFOUND)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    pass!(file.xSectorSize() else 4096)
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    pass!(file.xDeviceCharacteristics() else 0)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass!(file.xShmMap(region, size, extend, out) else SQLITE_IOERR)
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    pass!(file.xShmLock(offset, count, flags) else SQLITE_IOERR)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    pass!(file.xShmBarrier() else ());
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    pass!(file.xShmUnmap(delete) else SQLITE_IOERR)
}

unsafe extern "C" fn fetch(
    file: *mut sqlite3_file,
    offset: sqlite3_int64,
    amount: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass!(file.xFetch(offset, amount, out) else {
        *out = ptr::null_mut();
        SQLITE_OK
    })
}

unsafe extern "C" fn unfetch(file: *mut sqlite3_file, offset: sqlite3_int64, page: *mut c_void) -> c_int {
    pass!(file.xUnfetch(offset, page) else SQLITE_OK)
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    pass_vfs!(vfs.xDelete(name, sync_folder) else SQLITE_IOERR)
}

unsafe extern "C" fn access(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    pass_vfs!(vfs.xAccess(name, flags, out) else SQLITE_IOERR)
}

unsafe extern "C" fn full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    pass_vfs!(vfs.xFullPathname(name, size, out) else SQLITE_NOMEM)
}

unsafe extern "C" fn randomness(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    pass_vfs!(vfs.xRandomness(size, out) else 0)
}

unsafe extern "C" fn sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    pass_vfs!(vfs.xSleep(microseconds) else 0)
}

unsafe extern "C" fn current_time(vfs: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    pass_vfs!(vfs.xCurrentTime(out) else SQLITE_IOERR)
}

unsafe extern "C" fn current_time_int64(vfs: *mut sqlite3_vfs, out: *mut sqlite3_int64) -> c_int {
    pass_vfs!(vfs.xCurrentTimeInt64(out) else SQLITE_IOERR)
}

unsafe extern "C" fn last_error(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    pass_vfs!(vfs.xGetLastError(size, out) else 0)
}
