//! API keys, and what the first start makes: one of them, in a file that only its owner may read, and as a digest in the
//! database.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use ring::digest::SHA256;

use super::store::Db;
use crate::{
    model::{Private, WorkspaceId},
    seal::write_private,
    seams::Random,
    store::StoreError,
};

/// The letters of a key.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 40 of them are 238 bits.
const LENGTH: usize = 40;

/// Why the first start failed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A secret's file cannot be written.
    #[error("write {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The workspace, and where its first secrets were put.
#[derive(Debug)]
pub struct Home {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The file with the API key.
    pub api_key_file: PathBuf,
    /// The secrets themselves, on the first start only.
    pub fresh: Option<Fresh>,
}

/// Secrets that were made just now.
#[derive(Debug)]
pub struct Fresh {
    /// The API key.
    pub api_key: Private,
}

/// Finds the workspace, or makes it with its first secrets.
///
/// # Errors
/// When a file cannot be written or the database refuses.
pub fn home(
    db: &mut Db,
    now: Timestamp,
    name: &str,
    folder: &Path,
    random: &Random,
) -> Result<Home, KeyError> {
    let api_key_file = folder.join("api-key");
    if let Some(workspace) = db.workspace()? {
        db.rename_workspace(workspace, name)?;
        return Ok(Home { workspace, api_key_file, fresh: None });
    }
    let api_key = new_api_key(random);
    // Files first: a key whose digest is stored but which nobody knows could never be used.
    keep(&api_key_file, api_key.expose())?;
    let workspace = db.found(now, name, digest(api_key.expose()))?;
    Ok(Home { workspace, api_key_file, fresh: Some(Fresh { api_key }) })
}

/// An API key nobody has seen yet.
///
/// Client programs look at the beginning of a key: `seam_cst`, `seam_at` and `seam_pk` are other things, so the first
/// letter after the underscore is a digit.
#[must_use]
pub fn new_api_key(random: &Random) -> Private {
    Private::new(format!("seam_{}{}", random.below(10), letters(random)))
}

/// SHA-256: secrets of full entropy need no slow hash.
#[must_use]
pub fn digest(secret: &str) -> [u8; 32] {
    ring::digest::digest(&SHA256, secret.as_bytes())
        .as_ref()
        .try_into()
        .expect("a SHA-256 digest has 32 bytes")
}

fn letters(random: &Random) -> String {
    (0..LENGTH)
        .map(|_| {
            let index = usize::try_from(random.below(62)).unwrap_or(0);
            char::from(BASE62[index])
        })
        .collect()
}

/// What an interrupted first start left there was never stored, so it may go.
fn keep(path: &Path, secret: &str) -> Result<(), KeyError> {
    let failed = |source| KeyError::File { path: path.into(), source };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    write_private(path, format!("{secret}\n").as_bytes()).map_err(failed)
}
