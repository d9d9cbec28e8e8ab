//! A VFS over another one: what every file of it passes on, and where a layer may step in.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::Path,
    ptr,
    sync::{Mutex, PoisonError},
};

use rusqlite::ffi::{
    SQLITE_IOERR, SQLITE_NOMEM, SQLITE_NOTFOUND, SQLITE_OK, SQLITE_OPEN_WAL, sqlite3_database_file_object,
    sqlite3_file, sqlite3_filename, sqlite3_initialize, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs,
    sqlite3_vfs_find, sqlite3_vfs_register,
};

use super::VfsError;

/// Calls a function of an open file, or says `$missing` where it has none.
macro_rules! pass {
    ($file:expr, $method:ident ($($argument:expr),*) else $missing:expr) => {{
        let file: *mut sqlite3_file = $file;
        match (*(*file).pMethods).$method {
            Some(method) => method(file $(, $argument)*),
            None => $missing,
        }
    }};
}
/// An open file of a layer. What a layer does not step into goes through as it comes.
pub(super) trait Passing: Sized + 'static {
    /// What all files of one VFS share.
    type Shared: Send + Sync + 'static;

    /// Whether a log is to be settled before its index says what it holds. Only for the layer that SQLite itself calls:
    /// the files of a database that it knows of are that layer's.
    const MINDS_THE_INDEX: bool;

    /// A file was opened: its name without the folder, empty for one without a name, and SQLite's `SQLITE_OPEN_*`.
    fn opened(shared: &Self::Shared, name: &str, flags: c_int) -> Self;

    /// Bytes are written.
    fn write(&mut self, below: Below, bytes: &[u8], offset: i64) -> c_int;

    /// The file is synced.
    fn sync(&mut self, below: Below, flags: c_int) -> c_int;

    /// Something looks at the file or changes it in another way than by writing; it goes through if this is
    /// `SQLITE_OK`.
    fn settle(&mut self, below: Below) -> c_int;
}

/// The same file in the VFS below.
#[derive(Clone, Copy)]
pub(super) struct Below(*mut sqlite3_file);

impl Below {
    pub(super) fn write(self, bytes: &[u8], offset: i64) -> c_int {
        let Ok(amount) = c_int::try_from(bytes.len()) else { return SQLITE_IOERR };
        // SAFETY: the file below is open as long as the one above, and the slice is good for its length.
        unsafe { pass!(self.0, xWrite(bytes.as_ptr().cast(), amount, offset) else SQLITE_IOERR) }
    }

    pub(super) fn sync(self, flags: c_int) -> c_int {
        // SAFETY: as above.
        unsafe { pass!(self.0, xSync(flags) else SQLITE_IOERR) }
    }

    /// How long the file is.
    pub(super) fn size(self) -> Result<i64, c_int> {
        let mut size = 0;
        // SAFETY: as above, with a place for the answer.
        match unsafe { pass!(self.0, xFileSize(&raw mut size) else SQLITE_IOERR) } {
            SQLITE_OK => Ok(size),
            refused => Err(refused),
        }
    }
}

/// The same for a function of the VFS below.
macro_rules! pass_vfs {
    ($vfs:ident . $method:ident ($($argument:expr),*) else $missing:expr) => {{
        unsafe {
            let parent = *(*$vfs).pAppData.cast::<*mut sqlite3_vfs>();
            match (*parent).$method {
                Some(method) => method(parent $(, $argument)*),
                None => $missing,
            }
        }
    }};
}

/// Registers a layer under a name over the VFS of another name, the default one if there is none given. It stays for
/// the life of the process.
///
/// # Errors
/// When the name is taken, there is nothing to lay it over, or SQLite refuses.
pub(super) fn register<P: Passing>(
    name: &str,
    over: Option<&str>,
    shared: P::Shared,
) -> Result<(), VfsError> {
    let c_name = CString::new(name).map_err(|_| VfsError::Name)?;
    let over = over.map(CString::new).transpose().map_err(|_| VfsError::Name)?;
    // Looking a name up and registering it are two steps.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: `sqlite3_initialize` may be called at any time; `sqlite3_vfs_find` takes a null pointer for "the default
    // one" or a zero-terminated name, and what it gives lives as long as the process, for nobody unregisters a VFS
    // here.
    let (parent, taken) = unsafe {
        match sqlite3_initialize() {
            SQLITE_OK => {}
            refused => return Err(VfsError::Refused(refused)),
        }
        let over = over.as_ref().map_or(ptr::null(), |over| over.as_ptr());
        (sqlite3_vfs_find(over), sqlite3_vfs_find(c_name.as_ptr()))
    };
    if !taken.is_null() {
        return Err(VfsError::Taken);
    }
    if parent.is_null() {
        return Err(VfsError::Missing);
    }
    // SAFETY: `parent` was checked, and points to a VFS that lives on.
    let mut vfs = unsafe { *parent };
    let shim = Box::leak(Box::new(Shim { parent, shared }));
    let own = c_int::try_from(size_of::<ShimFile<P>>()).expect("a few words fit");
    vfs.szOsFile += own;
    vfs.pNext = ptr::null_mut();
    vfs.zName = c_name.into_raw();
    vfs.pAppData = ptr::from_mut(shim).cast();
    vfs.xOpen = Some(open::<P>);
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
    match unsafe { sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0) } {
        SQLITE_OK => Ok(()),
        refused => Err(VfsError::Refused(refused)),
    }
}

/// What `pAppData` of our VFS points to; `parent` comes first, for the functions that know nothing of the layer.
#[repr(C)]
struct Shim<S> {
    parent: *mut sqlite3_vfs,
    shared: S,
}

/// An open file: SQLite allots `szOsFile` bytes for it, ours first, the one below behind.
#[repr(C)]
struct ShimFile<P> {
    base: sqlite3_file,
    /// From `Box::into_raw` while the file is open.
    passing: *mut P,
    /// Of a database: its log, while that is open too; of a log, its database.
    other: *mut Self,
    /// What went wrong in a call that cannot fail.
    untold: c_int,
}

/// What SQLite calls an open file by.
struct Methods<P>(P);

impl<P: Passing> Methods<P> {
    const TABLE: &'static sqlite3_io_methods = &sqlite3_io_methods {
        iVersion: 3,
        xClose: Some(close::<P>),
        xRead: Some(read::<P>),
        xWrite: Some(write::<P>),
        xTruncate: Some(truncate::<P>),
        xSync: Some(sync::<P>),
        xFileSize: Some(file_size::<P>),
        xLock: Some(lock::<P>),
        xUnlock: Some(unlock::<P>),
        xCheckReservedLock: Some(check_reserved_lock::<P>),
        xFileControl: Some(file_control::<P>),
        xSectorSize: Some(sector_size::<P>),
        xDeviceCharacteristics: Some(device_characteristics::<P>),
        xShmMap: Some(shm_map::<P>),
        xShmLock: Some(shm_lock::<P>),
        xShmBarrier: Some(shm_barrier::<P>),
        xShmUnmap: Some(shm_unmap::<P>),
        xFetch: Some(fetch::<P>),
        xUnfetch: Some(unfetch::<P>),
    };
}

// SAFETY, for every function below: SQLite calls them with the VFS that was registered above or with a file that
// `open` opened, and with arguments that are good for the function of the same name below; one file is used by one
// thread at a time, and a log by the connection of its database. `real` and `passing` only follow the pointers that
// `register` and `open` laid.

unsafe fn real<P>(file: *mut sqlite3_file) -> *mut sqlite3_file {
    unsafe { file.cast::<ShimFile<P>>().add(1).cast() }
}

unsafe fn below<P>(file: *mut sqlite3_file) -> Below {
    Below(unsafe { real::<P>(file) })
}

unsafe fn passing<'a, P>(file: *mut sqlite3_file) -> &'a mut P {
    unsafe { &mut *(*file.cast::<ShimFile<P>>()).passing }
}

/// What is still to be told of a file, once.
unsafe fn untold<P>(file: *mut sqlite3_file) -> c_int {
    unsafe { std::mem::replace(&mut (*file.cast::<ShimFile<P>>()).untold, SQLITE_OK) }
}

unsafe fn settle<P: Passing>(file: *mut sqlite3_file) -> c_int {
    match unsafe { untold::<P>(file) } {
        SQLITE_OK => unsafe { passing::<P>(file).settle(below::<P>(file)) },
        refused => refused,
    }
}

/// Passes a call to the file below.
macro_rules! through {
    ($file:ident . $method:ident ($($argument:expr),*) else $missing:expr) => {
        unsafe { pass!(real::<P>($file), $method($($argument),*) else $missing) }
    };
}

/// The same once the layer has nothing open about the file.
macro_rules! settled {
    ($file:ident . $method:ident ($($argument:expr),*)) => {
        match unsafe { settle::<P>($file) } {
            SQLITE_OK => through!($file.$method($($argument),*) else SQLITE_IOERR),
            refused => refused,
        }
    };
}

unsafe extern "C" fn open<P: Passing>(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    unsafe { (*file).pMethods = ptr::null() };
    let real = unsafe { real::<P>(file) };
    let opened = pass_vfs!(vfs.xOpen(name, real, flags, out_flags) else SQLITE_IOERR);
    if opened != SQLITE_OK {
        return opened;
    }
    let file_name = if name.is_null() {
        // A temporary file has no name.
        String::new()
    } else {
        let path = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let file_name = Path::new(path.as_ref()).file_name();
        file_name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let shared = unsafe { &(*(*vfs).pAppData.cast::<Shim<P::Shared>>()).shared };
    let own = file.cast::<ShimFile<P>>();
    unsafe {
        (*own).passing = Box::into_raw(Box::new(P::opened(shared, &file_name, flags)));
        (*own).other = ptr::null_mut();
        (*own).untold = SQLITE_OK;
        if P::MINDS_THE_INDEX && flags & SQLITE_OPEN_WAL != 0 {
            // A log is opened by its database's connection, through the same VFS.
            let database = sqlite3_database_file_object(name).cast::<ShimFile<P>>();
            (*own).other = database;
            (*database).other = own;
        }
        (*file).pMethods = Methods::<P>::TABLE;
    }
    SQLITE_OK
}

unsafe extern "C" fn close<P: Passing>(file: *mut sqlite3_file) -> c_int {
    let settled = unsafe { settle::<P>(file) };
    let closed = through!(file.xClose() else SQLITE_OK);
    unsafe {
        let own = file.cast::<ShimFile<P>>();
        if !(*own).other.is_null() {
            (*(*own).other).other = ptr::null_mut();
        }
        drop(Box::from_raw((*own).passing));
        (*file).pMethods = ptr::null();
    }
    if settled == SQLITE_OK { closed } else { settled }
}

unsafe extern "C" fn write<P: Passing>(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let Ok(amount) = usize::try_from(amount) else { return SQLITE_IOERR };
    unsafe {
        match untold::<P>(file) {
            SQLITE_OK => {}
            refused => return refused,
        }
        let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), amount);
        passing::<P>(file).write(below::<P>(file), bytes, offset)
    }
}

unsafe extern "C" fn sync<P: Passing>(file: *mut sqlite3_file, flags: c_int) -> c_int {
    match unsafe { untold::<P>(file) } {
        SQLITE_OK => unsafe { passing::<P>(file).sync(below::<P>(file), flags) },
        refused => refused,
    }
}

unsafe extern "C" fn read<P: Passing>(
    file: *mut sqlite3_file,
    into: *mut c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    settled!(file.xRead(into, amount, offset))
}

unsafe extern "C" fn truncate<P: Passing>(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    settled!(file.xTruncate(size))
}

unsafe extern "C" fn file_size<P: Passing>(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    settled!(file.xFileSize(size))
}

unsafe extern "C" fn lock<P: Passing>(file: *mut sqlite3_file, level: c_int) -> c_int {
    through!(file.xLock(level) else SQLITE_IOERR)
}

unsafe extern "C" fn unlock<P: Passing>(file: *mut sqlite3_file, level: c_int) -> c_int {
    through!(file.xUnlock(level) else SQLITE_IOERR)
}

unsafe extern "C" fn check_reserved_lock<P: Passing>(file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    through!(file.xCheckReservedLock(held) else SQLITE_IOERR)
}

unsafe extern "C" fn file_control<P: Passing>(
    file: *mut sqlite3_file,
    what: c_int,
    argument: *mut c_void,
) -> c_int {
    through!(file.xFileControl(what, argument) else SQLITE_NOTFOUND)
}

unsafe extern "C" fn sector_size<P: Passing>(file: *mut sqlite3_file) -> c_int {
    through!(file.xSectorSize() else 4096)
}

unsafe extern "C" fn device_characteristics<P: Passing>(file: *mut sqlite3_file) -> c_int {
    through!(file.xDeviceCharacteristics() else 0)
}

unsafe extern "C" fn shm_map<P: Passing>(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    through!(file.xShmMap(region, size, extend, out) else SQLITE_IOERR)
}

unsafe extern "C" fn shm_lock<P: Passing>(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    through!(file.xShmLock(offset, count, flags) else SQLITE_IOERR)
}

unsafe extern "C" fn shm_barrier<P: Passing>(file: *mut sqlite3_file) {
    // What the index says the log holds is to be there. This call cannot fail; the log's next one does.
    unsafe {
        let log = (*file.cast::<ShimFile<P>>()).other;
        if !log.is_null() {
            (*log).untold = settle::<P>(log.cast());
        }
    }
    through!(file.xShmBarrier() else ());
}

unsafe extern "C" fn shm_unmap<P: Passing>(file: *mut sqlite3_file, delete: c_int) -> c_int {
    through!(file.xShmUnmap(delete) else SQLITE_IOERR)
}

unsafe extern "C" fn fetch<P: Passing>(
    file: *mut sqlite3_file,
    offset: sqlite3_int64,
    amount: c_int,
    out: *mut *mut c_void,
) -> c_int {
    through!(file.xFetch(offset, amount, out) else {
        *out = ptr::null_mut();
        SQLITE_OK
    })
}

unsafe extern "C" fn unfetch<P: Passing>(
    file: *mut sqlite3_file,
    offset: sqlite3_int64,
    page: *mut c_void,
) -> c_int {
    through!(file.xUnfetch(offset, page) else SQLITE_OK)
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
