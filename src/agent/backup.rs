//! Copies of the queue: made while the agent works, and put back while it does not.

use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;

use super::open_storage;
use crate::{
    config::{AgentConfig, StorageConfig},
    queue::{FILE, Queue, Restored},
    seams::{Random, Storage},
    store,
};

/// Writes a consistent copy of the queue to a new file, whether the agent runs or not. Says how many bytes it has, and
/// which file holds the key that opens it: the copy does not.
///
/// # Errors
/// When there is no queue, the file is there already, or it cannot be written.
pub fn back_up(config: &AgentConfig, to: &Path) -> anyhow::Result<(u64, PathBuf)> {
    let bytes = store::back_up(&Storage::folder(&config.storage.folder), FILE, to)?;
    Ok((bytes, key_file(&config.storage)))
}

/// Puts a copy back in the queue's place; the agent must not run. Says where the present queue was put, if there was
/// one, and what the restored one was brought to.
///
/// # Errors
/// When the agent runs, the key is not there or another one, or the copy is not one, not whole, or of a newer program;
/// the present queue is then as it was.
pub fn restore(
    config: &AgentConfig,
    random: &Random,
    from: &Path,
    now: Timestamp,
) -> anyhow::Result<(Option<PathBuf>, Restored)> {
    let key = key_file(&config.storage);
    anyhow::ensure!(
        key.exists(),
        "there is no seal key at {}: a backup does not hold it; put the copy of it there that was kept elsewhere",
        key.display()
    );
    let (_lock, storage, seal) = open_storage(&config.storage, random)?;
    Queue::restore(&storage, seal, random.clone(), from, now)
        .with_context(|| format!("restore {} with the seal key {}", from.display(), key.display()))
}

fn key_file(config: &StorageConfig) -> PathBuf {
    config.key_file.clone().unwrap_or_else(|| config.folder.join("seal.key"))
}
