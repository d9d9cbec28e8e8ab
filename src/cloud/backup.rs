//! Copies of the cloud's database: made while the cloud works, and put back while it does not.

use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;

use super::store::{Db, FILE, Restored};
use crate::{
    config::CloudConfig,
    seal::SealKey,
    seams::{Random, Storage},
    store::{self, FolderLock},
};

/// Writes a consistent copy of the database to a new file, whether the cloud runs or not. Says how many bytes it has,
/// and which file holds the key that opens it: the copy does not.
///
/// # Errors
/// When there is no database, the file is there already, or it cannot be written.
pub fn back_up(config: &CloudConfig, to: &Path) -> anyhow::Result<(u64, PathBuf)> {
    let bytes = store::back_up(&Storage::folder(&config.storage.folder), FILE, to)?;
    Ok((bytes, key_file(config)))
}

/// Puts a copy back in the database's place; the cloud must not run. Who may come in is taken from the present database
/// as far as that can be read.
///
/// # Errors
/// When the cloud runs, the key is not there or another one, or the copy is not one, not whole, or of a newer program;
/// the present database is then as it was.
pub fn restore(
    config: &CloudConfig,
    random: &Random,
    from: &Path,
    now: Timestamp,
) -> anyhow::Result<Restored> {
    let (folder, key) = (&config.storage.folder, key_file(config));
    anyhow::ensure!(
        key.exists(),
        "there is no seal key at {}: a backup does not hold it; put the copy of it there that was kept elsewhere",
        key.display()
    );
    std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let _lock = FolderLock::take(folder)?;
    let seal = SealKey::from_file(&key, random.clone())?;
    Db::restore(&Storage::folder(folder), seal, random.clone(), from, now)
        .with_context(|| format!("restore {} with the seal key {}", from.display(), key.display()))
}

fn key_file(config: &CloudConfig) -> PathBuf {
    config.storage.key_file.clone().unwrap_or_else(|| config.storage.folder.join("seal.key"))
}
