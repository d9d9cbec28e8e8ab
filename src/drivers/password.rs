//! Secrets in files of their own: passwords of a system's users, keys of locks.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::{model::Private, seal::is_exposed};

/// Reads a password anew, so that a new one needs no restart. A line end behind it is not part of it.
///
/// # Errors
/// In words for a person, when there is none, it is empty, or others may read it.
pub(super) fn read(path: &Path) -> Result<Private, String> {
    read_secret(path, "the password")
}

/// The same of any secret, by what it is called.
///
/// # Errors
/// See [`read`].
pub(super) fn read_secret(path: &Path, what: &str) -> Result<Private, String> {
    let wrong = |why: String| format!("{what} in {}: {why}", path.display());
    let mode = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.permissions().mode() & 0o777;
    if is_exposed(mode, path.starts_with("/run/credentials")) {
        return Err(wrong(format!("others may read it (mode {mode:o}): chmod 0600")));
    }
    let text = fs::read_to_string(path).map(Private::new).map_err(|error| wrong(error.to_string()))?;
    match text.expose().trim_end_matches(['\r', '\n']) {
        "" => Err(wrong("it is empty".into())),
        secret => Ok(Private::new(secret)),
    }
}
