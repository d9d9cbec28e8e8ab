//! Room on the disk that is kept for the day when there is none.
//!
//! A file that is there only to be deleted: when a commit finds the disk full, it goes, and in its room the ends of
//! jobs that run can still be recorded. While it is gone nothing new is taken. It is made again once there is room.

use std::{io, path::PathBuf, time::Duration};

use tokio::time::Instant;

use crate::seams::Storage;

/// The reserve's name in its folder.
const FILE: &str = "reserve";
/// How often it is looked whether there is room again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What must be free beyond the reserve itself, so that it is not given up again with the next commit.
const SLACK: u64 = 1024 * 1024;

/// The reserve of a store.
#[derive(Debug)]
pub struct Reserve {
    storage: Storage,
    bytes: u64,
    looked_at: Option<Instant>,
}

impl Reserve {
    /// A reserve of so many bytes, made with [`Reserve::refill`]. One of none still tells when there is room again.
    #[must_use]
    pub fn new(storage: Storage, bytes: u64) -> Self {
        Self { storage, bytes, looked_at: None }
    }

    /// Makes the reserve if it is not there and there is room for it. Says whether it is there.
    pub fn refill(&mut self) -> bool {
        match self.make() {
            Ok(is_there) => is_there,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => false,
            Err(error) => {
                // Not a reason to stop work: the disk has room as far as anybody knows.
                tracing::warn!(path = %self.path().display(), %error, "no room on the disk could be kept in reserve");
                true
            }
        }
    }

    /// [`Reserve::refill`], if it was not tried just now.
    pub(super) fn refill_sometimes(&mut self) -> bool {
        let now = Instant::now();
        if self.looked_at.is_some_and(|at| now.saturating_duration_since(at) < LOOK_AGAIN) {
            return false;
        }
        self.looked_at = Some(now);
        self.refill()
    }

    /// Gives the room free.
    pub fn release(&mut self) {
        self.looked_at = Some(Instant::now());
        match self.storage.remove(FILE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(path = %self.path().display(), %error, "the reserve could not be given free");
            }
            _ => {}
        }
    }

    fn path(&self) -> PathBuf {
        self.storage.file(FILE)
    }

    fn make(&self) -> io::Result<bool> {
        let found = self.storage.size(FILE)?;
        if found == Some(self.bytes) && self.bytes > 0 {
            return Ok(true);
        }
        // Of another size, or half made.
        if found.is_some() {
            self.storage.remove(FILE)?;
        }
        if self.storage.free_bytes()? < self.bytes.saturating_add(SLACK) {
            return Ok(false);
        }
        if self.bytes == 0 {
            return Ok(true);
        }
        let filled = self.storage.fill(FILE, self.bytes);
        if filled.is_err() {
            self.storage.remove(FILE)?;
        }
        filled.map(|()| true)
    }
}
