//! Whether a database is whole.
//!
//! Opening one stays fast: what opening itself stumbles over is damage at once, and the rest is looked through on a
//! connection of its own while the work goes on, after an unclean stop only.

use std::{fs, thread};

use tokio::sync::oneshot;

use super::{StoreError, backup::finding, open_reader};
use crate::seams::Storage;

/// Whether the last process that had this database open ended without closing it. To be asked before it is opened.
#[must_use]
pub fn was_left_open(storage: &Storage, name: &str) -> bool {
    fs::metadata(storage.file(&format!("{name}-wal"))).is_ok_and(|log| log.len() > 0)
}

/// Looks through a whole database and says what is damaged, if anything. Others may write to it meanwhile.
///
/// # Errors
/// When it cannot be looked through.
pub fn examine(storage: &Storage, name: &str) -> Result<Option<String>, StoreError> {
    match open_reader(storage, name) {
        Ok(reader) => finding(&reader),
        Err(error) if error.is_damage() => Ok(Some(error.chain())),
        Err(error) => Err(error),
    }
}

/// [`examine`] on a thread of its own. The receiver hears of damage only; it is dropped where there is none.
pub fn examine_aside(storage: Storage, name: &'static str) -> oneshot::Receiver<String> {
    let (tell, found) = oneshot::channel();
    let looked = thread::Builder::new().name("store-check".into()).spawn(move || {
        match examine(&storage, name) {
            Ok(None) => tracing::debug!(name, "the database was left open and is whole"),
            Ok(Some(what)) => {
                // Whoever asked may have gone; the next start asks again.
                let _ = tell.send(what);
            }
            Err(error) => {
                tracing::warn!(name, error = error.chain(), "the database could not be looked through");
            }
        }
    });
    if let Err(error) = looked {
        tracing::warn!(%error, "no thread to look through the database with");
    }
    found
}
