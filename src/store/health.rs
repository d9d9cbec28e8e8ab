//! How a store's disk and file are, as the writer finds while it works.

use std::sync::Arc;

use tokio::sync::watch;

use super::StoreError;

/// How a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Whether there is room.
    pub disk: Disk,
    /// Whether a statement stumbled over damage in the file.
    pub is_damaged: bool,
}

/// Whether there is room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Disk {
    /// There is.
    #[default]
    Room,
    /// There is none: what was kept in reserve is used for what is under way, and nothing new is taken.
    Full,
}

/// What operations and the writer have seen. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Watched(Arc<watch::Sender<Health>>);

impl Default for Watched {
    fn default() -> Self {
        Self(Arc::new(watch::channel(Health::default()).0))
    }
}

impl Watched {
    pub(super) fn subscribe(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }

    pub(super) fn disk(&self) -> Disk {
        self.0.borrow().disk
    }

    pub(super) fn set_disk(&self, disk: Disk) {
        self.0.send_if_modified(|health| std::mem::replace(&mut health.disk, disk) != disk);
    }

    pub(super) fn note_damage(&self, error: &StoreError) {
        if error.is_damage() {
            self.0.send_if_modified(|health| !std::mem::replace(&mut health.is_damaged, true));
        }
    }
}
