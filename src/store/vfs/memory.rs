//! A disk in memory, for simulations: what was not synced may be lost, in part, when the power goes.
//!
//! Each file is a durable image and the writes since its last sync. A power cut keeps the image and, of the writes,
//! whatever chance leaves: each sector of 512 bytes by itself. A folder's entries are durable when the folder was
//! synced; SQLite does that, as on Unix, with the first sync of a new log and after deleting a file. Every change is
//! counted, so that a simulation can let any of them be a process's last.
//!
//! What it does not imitate: writes that change bytes beside their own, bits that rot, a disk that lies about syncs.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char, c_int, c_void},
    io, ptr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::ffi::{
    SQLITE_BUSY, SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOCAP_POWERSAFE_OVERWRITE, SQLITE_IOERR,
    SQLITE_IOERR_DELETE_NOENT, SQLITE_IOERR_FSYNC, SQLITE_IOERR_SHORT_READ, SQLITE_LOCK_EXCLUSIVE,
    SQLITE_LOCK_NONE, SQLITE_LOCK_PENDING, SQLITE_LOCK_RESERVED, SQLITE_LOCK_SHARED, SQLITE_NOTFOUND,
    SQLITE_OK, SQLITE_OPEN_CREATE, SQLITE_OPEN_DELETEONCLOSE, SQLITE_OPEN_EXCLUSIVE,
    SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_WAL, SQLITE_SHM_LOCK, SQLITE_SHM_NLOCK, SQLITE_SHM_SHARED,
    SQLITE_SHM_UNLOCK, sqlite3_file, sqlite3_filename, sqlite3_initialize, sqlite3_int64, sqlite3_io_methods,
    sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

use super::VfsError;
use crate::seams::{Files, Random, Storage};

/// The one VFS behind all disks; the first folder of a path is the disk.
const NAME: &CStr = c"latchd-memory";
/// What a disk writes as a whole or not at all.
const SECTOR: usize = 512;

/// A disk in memory. Cheap to clone; all clones are one. It is gone with the last of them and of its storages.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    number: u64,
    state: Mutex<State>,
}

/// Everything on a disk at one moment; see [`Disk::image`].
#[derive(Debug, Clone)]
pub struct Image(BTreeMap<String, Vec<u8>>);

/// How a process ends, as its disk sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The process is killed: what it has written is kept by the operating system.
    Killed,
    /// The power goes: what was not synced is kept or lost, sector by sector, as chance has it.
    Power,
    /// The power goes, and nothing that was not synced had reached the disk.
    PowerAndCache,
}

#[derive(Debug, Default)]
struct State {
    /// Counts processes; a file that an earlier one opened is of no use any more.
    life: u64,
    dead: bool,
    entries: BTreeMap<String, u64>,
    durable_entries: BTreeMap<String, u64>,
    inodes: BTreeMap<u64, Inode>,
    /// The number given out last, to an inode or an open file.
    last: u64,
    indexes: BTreeMap<String, Arc<Mutex<Index>>>,
    changes: u64,
    last_change: Option<u64>,
    quota: Option<usize>,
    failing_syncs: u32,
    syncs: u64,
}

#[derive(Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// The level each open file holds it at.
    locks: BTreeMap<u64, c_int>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(content, *offset, bytes),
            Self::Truncate(size) => content.truncate(*size),
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

/// The shared memory beside a database: the index of its log.
#[derive(Debug, Default)]
struct Index {
    regions: Vec<Region>,
    users: u32,
    /// How many hold each lock, or -1 for one that holds it alone.
    locks: [i32; SQLITE_SHM_NLOCK as usize],
}

/// Memory that SQLite keeps pointers to.
#[derive(Debug)]
struct Region(*mut [u64]);

// SAFETY: the pointer is the only one but SQLite's own, and a database is used by one thread at a time.
unsafe impl Send for Region {}

impl Region {
    fn new(bytes: usize) -> Self {
        Self(Box::into_raw(vec![0_u64; bytes.div_ceil(8)].into_boxed_slice()))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it came from `Box::into_raw`; SQLite uses it no more once the last user has let go.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

fn disks() -> MutexGuard<'static, BTreeMap<u64, Weak<Shared>>> {
    static DISKS: Mutex<BTreeMap<u64, Weak<Shared>>> = Mutex::new(BTreeMap::new());
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// An empty disk.
    ///
    /// # Errors
    /// When SQLite refuses the VFS.
    pub fn new() -> Result<Self, VfsError> {
        static REGISTERED: OnceLock<Result<(), VfsError>> = OnceLock::new();
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        (*REGISTERED.get_or_init(register))?;
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared { number, state: Mutex::default() });
        disks().insert(number, Arc::downgrade(&shared));
        Ok(Self(shared))
    }

    /// Where databases on it live.
    #[must_use]
    pub fn storage(&self) -> Storage {
        Storage::inside(NAME.to_string_lossy(), format!("/{}", self.0.number), Arc::new(self.clone()))
    }

    /// Ends the process that uses the disk, and makes it ready for the next one: every file that is open now fails
    /// from here on.
    pub fn cut(&self, cut: Cut, random: &Random) {
        let mut state = self.lock();
        state.life += 1;
        state.dead = false;
        state.last_change = None;
        state.failing_syncs = 0;
        // Open files of the old life keep theirs until they are closed.
        state.indexes.clear();
        state.survive(cut, random);
    }

    /// Everything as a copy of the folder would hold it now.
    #[must_use]
    pub fn image(&self) -> Image {
        let state = self.lock();
        let content = |(name, inode): (&String, &u64)| (name.clone(), state.inodes[inode].content.clone());
        Image(state.entries.iter().map(content).collect())
    }

    /// Puts a copy back, in place of everything. Only while no process uses the disk.
    pub fn restore(&self, image: &Image) {
        let mut state = self.lock();
        state.life += 1;
        state.dead = false;
        state.last_change = None;
        state.indexes.clear();
        state.entries.clear();
        state.inodes.clear();
        for (name, content) in &image.0 {
            state.last += 1;
            let inode = state.last;
            let content = content.clone();
            state.inodes.insert(inode, Inode { durable: content.clone(), content, ..Inode::default() });
            state.entries.insert(name.clone(), inode);
        }
        state.durable_entries = state.entries.clone();
    }

    /// The change after `more` further ones is never made: with it the process dies.
    pub fn die_after(&self, more: u64) {
        let mut state = self.lock();
        state.last_change = Some(state.changes + more);
    }

    /// Whether the process has died of [`Disk::die_after`]. [`Disk::cut`] begins the next one.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// How many bytes all files together may have.
    pub fn limit(&self, quota: Option<usize>) {
        self.lock().quota = quota;
    }

    /// How many bytes all files together have.
    #[must_use]
    pub fn used(&self) -> usize {
        self.lock().used()
    }

    /// The next so many syncs fail; nobody knows then what is durable.
    pub fn fail_syncs(&self, times: u32) {
        self.lock().failing_syncs = times;
    }

    /// How many syncs there have been.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many changes there have been: writes, truncations, syncs, files made and deleted.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Files for Disk {
    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        let state = self.lock();
        let inode = state.entries.get(name).and_then(|inode| state.inodes.get(inode));
        Ok(inode.map(|inode| inode.content.len() as u64))
    }

    fn fill(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.change().map_err(|_| io::ErrorKind::Other)?;
        let inode = state.number();
        state.inodes.insert(inode, Inode::default());
        state.entries.insert(name.to_owned(), inode);
        if state.free_bytes() < bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.change().map_err(|_| io::ErrorKind::Other)?;
        let content = vec![0; usize::try_from(bytes).map_err(|_| io::ErrorKind::StorageFull)?];
        state.inodes.insert(inode, Inode { durable: content.clone(), content, ..Inode::default() });
        Ok(())
    }

    /// The name may be there again after a power cut.
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        if !state.entries.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change().map_err(|_| io::ErrorKind::Other)?;
        state.entries.remove(name);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.lock().free_bytes())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        disks().remove(&self.number);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a change; none is made by a dead process.
    fn change(&mut self) -> Result<(), c_int> {
        if self.dead || self.last_change.is_some_and(|last| last <= self.changes) {
            self.dead = true;
            return Err(SQLITE_IOERR);
        }
        self.changes += 1;
        Ok(())
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn used(&self) -> usize {
        self.entries
            .values()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|inode| inode.content.len())
            .sum()
    }

    fn free_bytes(&self) -> u64 {
        self.quota.map_or(u64::MAX, |quota| quota.saturating_sub(self.used()) as u64)
    }

    fn sync_folder(&mut self) {
        self.durable_entries = self.entries.clone();
        let Self { inodes, entries, .. } = self;
        // What has no name and is open nowhere is gone.
        inodes
            .retain(|number, inode| !inode.locks.is_empty() || entries.values().any(|named| named == number));
    }

    fn survive(&mut self, cut: Cut, random: &Random) {
        let coin = || random.below(2) == 0;
        // Some power cuts lose nearly all, some nearly nothing.
        let kept = match cut {
            Cut::Killed | Cut::PowerAndCache => 0,
            Cut::Power => [5, 50, 95][random.below(3) as usize],
        };
        for inode in self.inodes.values_mut() {
            inode.locks.clear();
            let unsynced = std::mem::take(&mut inode.unsynced);
            match cut {
                Cut::Killed => {
                    // Still in the cache, and still not on the disk.
                    inode.unsynced = unsynced;
                    continue;
                }
                Cut::PowerAndCache => {}
                Cut::Power => {
                    for change in unsynced {
                        survive(change, &mut inode.durable, || random.below(100) < kept);
                    }
                }
            }
            inode.content = inode.durable.clone();
        }
        if cut == Cut::Killed {
            return;
        }
        let before = std::mem::take(&mut self.entries);
        let names: Vec<_> = before.keys().chain(self.durable_entries.keys()).cloned().collect();
        for name in names {
            let (cached, durable) = (before.get(&name), self.durable_entries.get(&name));
            let survivor = if cut == Cut::Power && coin() { cached } else { durable };
            if let Some(inode) = survivor {
                self.entries.insert(name, *inode);
            }
        }
        self.sync_folder();
    }
}

/// Applies what chance leaves of a change.
fn survive(change: Change, durable: &mut Vec<u8>, mut kept: impl FnMut() -> bool) {
    match change {
        Change::Write { offset, bytes } => {
            let mut from = 0;
            while from < bytes.len() {
                let to = (((offset + from) / SECTOR + 1) * SECTOR - offset).min(bytes.len());
                if kept() {
                    put(durable, offset + from, &bytes[from..to]);
                }
                from = to;
            }
        }
        truncate @ Change::Truncate(_) => {
            if kept() {
                truncate.apply(durable);
            }
        }
    }
}

/// An open file.
struct Open {
    shared: Arc<Shared>,
    life: u64,
    inode: u64,
    /// Of this open file, among all.
    number: u64,
    name: String,
    /// Whether its first sync makes the folder's entries durable.
    folder_due: bool,
    delete_on_close: bool,
    index: Option<Arc<Mutex<Index>>>,
    /// Locks of the index held with others, and alone.
    held_shared: u32,
    held_alone: u32,
}

impl Open {
    /// The state, for as long as the process lives.
    fn state(&self) -> Result<MutexGuard<'_, State>, c_int> {
        let state = self.shared.lock();
        if state.life == self.life && !state.dead { Ok(state) } else { Err(SQLITE_IOERR) }
    }

    fn read(&self, into: &mut [u8], offset: usize) -> Result<(), c_int> {
        let state = self.state()?;
        let inode = state.inodes.get(&self.inode).ok_or(SQLITE_IOERR)?;
        let there = inode.content.get(offset..).unwrap_or_default();
        let count = there.len().min(into.len());
        into[..count].copy_from_slice(&there[..count]);
        into[count..].fill(0);
        if count == into.len() { Ok(()) } else { Err(SQLITE_IOERR_SHORT_READ) }
    }

    fn write(&self, bytes: &[u8], offset: usize) -> Result<(), c_int> {
        let mut state = self.state()?;
        state.change()?;
        let (quota, used) = (state.quota, state.used());
        let inode = state.inodes.get_mut(&self.inode).ok_or(SQLITE_IOERR)?;
        let grows = (offset + bytes.len()).saturating_sub(inode.content.len());
        if 0 < grows && quota.is_some_and(|quota| quota < used + grows) {
            return Err(SQLITE_FULL);
        }
        put(&mut inode.content, offset, bytes);
        inode.unsynced.push(Change::Write { offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn truncate(&self, size: usize) -> Result<(), c_int> {
        let mut state = self.state()?;
        state.change()?;
        let inode = state.inodes.get_mut(&self.inode).ok_or(SQLITE_IOERR)?;
        inode.content.truncate(size);
        inode.unsynced.push(Change::Truncate(size));
        Ok(())
    }

    fn sync(&mut self) -> Result<(), c_int> {
        let mut state = self.state()?;
        state.change()?;
        if 0 < state.failing_syncs {
            state.failing_syncs -= 1;
            return Err(SQLITE_IOERR_FSYNC);
        }
        state.syncs += 1;
        let inode = state.inodes.get_mut(&self.inode).ok_or(SQLITE_IOERR)?;
        for change in std::mem::take(&mut inode.unsynced) {
            change.apply(&mut inode.durable);
        }
        if self.folder_due {
            state.sync_folder();
        }
        drop(state);
        self.folder_due = false;
        Ok(())
    }

    fn size(&self) -> Result<usize, c_int> {
        let state = self.state()?;
        state.inodes.get(&self.inode).map(|inode| inode.content.len()).ok_or(SQLITE_IOERR)
    }

    /// The levels as SQLite means them: one writer reserves, waits for readers, and has the file alone.
    fn lock(&self, level: c_int) -> Result<(), c_int> {
        let mut state = self.state()?;
        let locks = &mut state.inodes.get_mut(&self.inode).ok_or(SQLITE_IOERR)?.locks;
        let others = || locks.iter().filter(|(number, _)| **number != self.number).map(|(_, held)| *held);
        let (most, held) = (others().max().unwrap_or(SQLITE_LOCK_NONE), locks.get(&self.number).copied());
        if level <= held.unwrap_or(SQLITE_LOCK_NONE) {
            return Ok(());
        }
        let free = match level {
            SQLITE_LOCK_SHARED => most < SQLITE_LOCK_PENDING,
            SQLITE_LOCK_RESERVED => most < SQLITE_LOCK_RESERVED,
            _ => most == SQLITE_LOCK_NONE,
        };
        if free {
            locks.insert(self.number, level);
            return Ok(());
        }
        if level == SQLITE_LOCK_EXCLUSIVE && most < SQLITE_LOCK_RESERVED {
            locks.insert(self.number, SQLITE_LOCK_PENDING);
        }
        Err(SQLITE_BUSY)
    }

    fn unlock(&self, level: c_int) {
        if let Ok(mut state) = self.state()
            && let Some(inode) = state.inodes.get_mut(&self.inode)
        {
            // The entry stays while the file is open.
            inode.locks.insert(self.number, level);
        }
    }

    fn is_reserved(&self) -> Result<bool, c_int> {
        let state = self.state()?;
        let inode = state.inodes.get(&self.inode).ok_or(SQLITE_IOERR)?;
        Ok(inode.locks.values().any(|held| SQLITE_LOCK_RESERVED <= *held))
    }

    fn region(&mut self, number: usize, size: usize, extend: bool) -> Result<*mut c_void, c_int> {
        if self.index.is_none() {
            let index = {
                let mut state = self.state()?;
                let index = Arc::clone(state.indexes.entry(self.name.clone()).or_default());
                index.lock().unwrap_or_else(PoisonError::into_inner).users += 1;
                index
            };
            self.index = Some(index);
        }
        drop(self.state()?);
        let Some(index) = &self.index else { return Err(SQLITE_IOERR) };
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        while extend && index.regions.len() <= number {
            index.regions.push(Region::new(size));
        }
        Ok(index.regions.get(number).map_or(ptr::null_mut(), |region| region.0.cast()))
    }

    fn lock_index(&mut self, offset: usize, count: usize, flags: c_int) -> Result<(), c_int> {
        let alone = flags & SQLITE_SHM_SHARED == 0;
        let index = self.index.clone().ok_or(SQLITE_IOERR)?;
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        let mask = ((1_u32 << count) - 1) << offset;
        let Some(locks) = index.locks.get_mut(offset..offset + count) else { return Err(SQLITE_IOERR) };
        if flags & SQLITE_SHM_UNLOCK != 0 {
            for (place, lock) in locks.iter_mut().enumerate() {
                let bit = 1 << (offset + place);
                if self.held_alone & bit != 0 {
                    *lock = 0;
                } else if self.held_shared & bit != 0 {
                    *lock -= 1;
                }
            }
            self.held_alone &= !mask;
            self.held_shared &= !mask;
            return Ok(());
        }
        debug_assert!(flags & SQLITE_SHM_LOCK != 0);
        drop(self.state()?);
        if alone {
            if locks.iter().any(|lock| *lock != 0) {
                return Err(SQLITE_BUSY);
            }
            locks.fill(-1);
            self.held_alone |= mask;
        } else if self.held_shared & mask == 0 {
            if locks.iter().any(|lock| *lock < 0) {
                return Err(SQLITE_BUSY);
            }
            locks.iter_mut().for_each(|lock| *lock += 1);
            self.held_shared |= mask;
        }
        Ok(())
    }

    fn close(&mut self) {
        self.let_index_go();
        if let Ok(mut state) = self.state() {
            let named = state.entries.values().any(|inode| *inode == self.inode);
            if let Some(inode) = state.inodes.get_mut(&self.inode) {
                inode.locks.remove(&self.number);
                if inode.locks.is_empty() && !named && self.delete_on_close {
                    state.inodes.remove(&self.inode);
                }
            }
        }
    }

    /// The last one to let go takes the index along; whoever opens the database next builds it anew from the log.
    fn let_index_go(&mut self) {
        let Some(index) = self.index.clone() else { return };
        for place in 0..SQLITE_SHM_NLOCK as usize {
            if (self.held_alone | self.held_shared) & (1 << place) != 0 {
                let _unlocked = self.lock_index(place, 1, SQLITE_SHM_UNLOCK);
            }
        }
        let users = {
            let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
            index.users -= 1;
            index.users
        };
        if users == 0
            && let Ok(mut state) = self.state()
        {
            state.indexes.remove(&self.name);
        }
        self.index = None;
    }
}

/// A disk and a file's name on it.
fn place(path: &str) -> Option<(Arc<Shared>, String)> {
    let (disk, name) = path.strip_prefix('/')?.split_once('/')?;
    let shared = disks().get(&disk.parse::<u64>().ok()?)?.upgrade()?;
    Some((shared, name.to_owned()))
}

fn open_file(path: Option<&str>, flags: c_int) -> Result<Open, c_int> {
    // A file without a name is for its opener alone: a disk of its own does.
    let Some(path) = path else {
        let shared = Arc::<Shared>::default();
        let mut state = shared.lock();
        let (inode, number) = (state.number(), state.number());
        state.inodes.insert(inode, Inode::default());
        drop(state);
        return Ok(Open::new(shared, 0, inode, number, String::new(), flags));
    };
    let (shared, name) = place(path).ok_or(SQLITE_CANTOPEN)?;
    let mut state = shared.lock();
    if state.dead {
        return Err(SQLITE_IOERR);
    }
    let inode = match state.entries.get(&name) {
        Some(_) if flags & SQLITE_OPEN_EXCLUSIVE != 0 && flags & SQLITE_OPEN_CREATE != 0 => {
            return Err(SQLITE_CANTOPEN);
        }
        Some(inode) => *inode,
        None if flags & SQLITE_OPEN_CREATE == 0 => return Err(SQLITE_CANTOPEN),
        None => {
            state.change()?;
            let inode = state.number();
            state.inodes.insert(inode, Inode::default());
            state.entries.insert(name.clone(), inode);
            inode
        }
    };
    let (life, number) = (state.life, state.number());
    if let Some(inode) = state.inodes.get_mut(&inode) {
        inode.locks.insert(number, SQLITE_LOCK_NONE);
    }
    drop(state);
    let mut open = Open::new(shared, life, inode, number, name, flags);
    // Whether it was there before or not: as SQLite on Unix does it.
    open.folder_due =
        flags & SQLITE_OPEN_CREATE != 0 && flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL) != 0;
    Ok(open)
}

impl Open {
    fn new(shared: Arc<Shared>, life: u64, inode: u64, number: u64, name: String, flags: c_int) -> Self {
        Self {
            shared,
            life,
            inode,
            number,
            name,
            folder_due: false,
            delete_on_close: flags & SQLITE_OPEN_DELETEONCLOSE != 0,
            index: None,
            held_shared: 0,
            held_alone: 0,
        }
    }
}

fn register() -> Result<(), VfsError> {
    // SAFETY: `sqlite3_initialize` may be called at any time, and a null pointer asks for the default VFS, which
    // lives as long as the process.
    let parent = unsafe {
        match sqlite3_initialize() {
            SQLITE_OK => sqlite3_vfs_find(ptr::null()),
            refused => return Err(VfsError::Refused(refused)),
        }
    };
    if parent.is_null() {
        return Err(VfsError::Refused(SQLITE_IOERR));
    }
    // SAFETY: `parent` was checked. Its functions for time and randomness take any VFS of its own kind, which our
    // copy is: they look at nothing of it.
    let mut vfs = unsafe { *parent };
    vfs.iVersion = 2;
    vfs.szOsFile = c_int::try_from(size_of::<MemoryFile>()).expect("a few words fit");
    vfs.pNext = ptr::null_mut();
    vfs.zName = NAME.as_ptr();
    vfs.pAppData = ptr::null_mut();
    vfs.xOpen = Some(open);
    vfs.xDelete = Some(delete);
    vfs.xAccess = Some(access);
    vfs.xFullPathname = Some(full_pathname);
    vfs.xSleep = Some(sleep);
    vfs.xDlOpen = None;
    vfs.xDlError = None;
    vfs.xDlSym = None;
    vfs.xDlClose = None;
    vfs.xSetSystemCall = None;
    vfs.xGetSystemCall = None;
    vfs.xNextSystemCall = None;
    // SAFETY: the struct is leaked and its name is static, so both outlive every use.
    match unsafe { sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0) } {
        SQLITE_OK => Ok(()),
        refused => Err(VfsError::Refused(refused)),
    }
}

/// An open file as SQLite allots it.
#[repr(C)]
struct MemoryFile {
    base: sqlite3_file,
    /// From `Box::into_raw` while the file is open.
    open: *mut Open,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
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
    xFetch: None,
    xUnfetch: None,
};

// SAFETY, for every function below: SQLite calls them with a file that `open` opened, with buffers as long as it says,
// and with places to put answers in that are good to write to.

unsafe fn opened<'a>(file: *mut sqlite3_file) -> &'a mut Open {
    unsafe { &mut *(*file.cast::<MemoryFile>()).open }
}

unsafe fn text<'a>(name: *const c_char) -> Option<std::borrow::Cow<'a, str>> {
    if name.is_null() { None } else { Some(unsafe { CStr::from_ptr(name) }.to_string_lossy()) }
}

fn code(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(SQLITE_OK)
}

fn length(number: sqlite3_int64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

unsafe extern "C" fn open(
    _vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    unsafe { (*file).pMethods = ptr::null() };
    let name = unsafe { text(name) };
    match open_file(name.as_deref(), flags) {
        Err(refused) => refused,
        Ok(open) => unsafe {
            (*file.cast::<MemoryFile>()).open = Box::into_raw(Box::new(open));
            (*file).pMethods = &raw const METHODS;
            if !out_flags.is_null() {
                *out_flags = flags;
            }
            SQLITE_OK
        },
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    unsafe {
        let mut open = Box::from_raw((*file.cast::<MemoryFile>()).open);
        (*file).pMethods = ptr::null();
        open.close();
    }
    SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    into: *mut c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    unsafe {
        let into = std::slice::from_raw_parts_mut(into.cast::<u8>(), length(amount.into()));
        code(opened(file).read(into, length(offset)))
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    unsafe {
        let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), length(amount.into()));
        code(opened(file).write(bytes, length(offset)))
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    code(unsafe { opened(file) }.truncate(length(size)))
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    code(unsafe { opened(file) }.sync())
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    match unsafe { opened(file) }.size() {
        Err(refused) => refused,
        Ok(found) => {
            unsafe { *size = sqlite3_int64::try_from(found).unwrap_or(sqlite3_int64::MAX) };
            SQLITE_OK
        }
    }
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    code(unsafe { opened(file) }.lock(level))
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    unsafe { opened(file) }.unlock(level);
    SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    match unsafe { opened(file) }.is_reserved() {
        Err(refused) => refused,
        Ok(reserved) => {
            unsafe { *held = c_int::from(reserved) };
            SQLITE_OK
        }
    }
}

unsafe extern "C" fn file_control(_file: *mut sqlite3_file, _what: c_int, _argument: *mut c_void) -> c_int {
    SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_file: *mut sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(_file: *mut sqlite3_file) -> c_int {
    SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let mapped = unsafe { opened(file) }.region(length(region.into()), length(size.into()), extend != 0);
    unsafe { *out = mapped.unwrap_or(ptr::null_mut()) };
    code(mapped.map(drop))
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    code(unsafe { opened(file) }.lock_index(length(offset.into()), length(count.into()), flags))
}

unsafe extern "C" fn shm_barrier(_file: *mut sqlite3_file) {
    std::sync::atomic::fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, _delete: c_int) -> c_int {
    unsafe { opened(file) }.let_index_go();
    SQLITE_OK
}

unsafe extern "C" fn delete(_vfs: *mut sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    let Some((shared, name)) = unsafe { text(name) }.as_deref().and_then(place) else {
        return SQLITE_IOERR_DELETE_NOENT;
    };
    let mut state = shared.lock();
    if !state.entries.contains_key(&name) {
        return SQLITE_IOERR_DELETE_NOENT;
    }
    if let Err(refused) = state.change() {
        return refused;
    }
    state.entries.remove(&name);
    if sync_folder != 0 {
        state.sync_folder();
    }
    SQLITE_OK
}

unsafe extern "C" fn access(
    _vfs: *mut sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    let there = unsafe { text(name) }.as_deref().and_then(place);
    let there = there.is_some_and(|(shared, name)| shared.lock().entries.contains_key(&name));
    unsafe { *out = c_int::from(there) };
    SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if length(size.into()) < name.len() {
        return SQLITE_CANTOPEN;
    }
    unsafe { ptr::copy_nonoverlapping(name.as_ptr().cast::<c_char>(), out, name.len()) };
    SQLITE_OK
}

/// Simulated time does not pass while a thread sleeps; whoever waits for a lock looks again at once.
unsafe extern "C" fn sleep(_vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    microseconds
}

#[cfg(test)]
mod tests;
