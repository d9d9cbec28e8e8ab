//! Files with what gives rights at a lock: JSON, one object, readable by nobody else.
//!
//! ```text
//! ttlock        {"aes_key": "32 hexadecimal digits", "admin": 970456745, "unlock": 344382141}
//!               and, where the vendor's record has them: "flag_position", "scene", "group", "organisation"
//! august_yale   {"offline_key": "32 hexadecimal digits", "slot": 3}
//! ```
//! `admin` and `unlock` may be in the vendor's own text form (`adminPwd`, `lockKey` of its record).

use std::path::Path;

use serde::Deserialize;
use zeroize::Zeroize;

use crate::{
    drivers::{
        august_yale::codec::{Key as AugustKey, OfflineKey},
        password,
        ttlock::{
            codec::{Header, Key},
            message::Numbers,
            record,
            session::Keys,
        },
    },
    model::Private,
};

/// Why a lock's keys cannot be used, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeysError(String);

/// A TTLock's keys.
pub type TtLockKeys = Keys;
/// An August or Yale lock's keys.
pub type AugustKeys = OfflineKey;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TtLockFile {
    aes_key: Private,
    admin: Number,
    unlock: Number,
    #[serde(default)]
    flag_position: u32,
    #[serde(default = "usual_scene")]
    scene: u8,
    #[serde(default = "one")]
    group: u16,
    #[serde(default = "one")]
    organisation: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AugustFile {
    offline_key: Private,
    slot: u8,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u32),
    Text(Private),
}

fn usual_scene() -> u8 {
    7
}

fn one() -> u16 {
    1
}

impl Number {
    fn read(&self, field: &str) -> Result<u32, String> {
        match self {
            Self::Plain(number) => Ok(*number),
            Self::Text(text) => record::number(text.expose()).map_err(|error| format!("`{field}`: {error}")),
        }
    }
}

fn sixteen(field: &str, text: &Private) -> Result<[u8; 16], String> {
    let wrong = || format!("`{field}` must have 32 hexadecimal digits");
    let digits = text.expose();
    if digits.len() != 32 || !digits.is_ascii() {
        return Err(wrong());
    }
    let mut bytes = [0; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

fn file<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, KeysError> {
    let text = password::read_secret(path, "the lock's keys").map_err(KeysError)?;
    // What serde quotes of the text may be a key.
    serde_json::from_str(text.expose()).map_err(|error| {
        KeysError(format!(
            "the lock's keys in {}: line {}, column {}: {}",
            path.display(),
            error.line(),
            error.column(),
            match error.classify() {
                serde_json::error::Category::Data => "a field is missing, unknown or of another type",
                _ => "it is not JSON",
            }
        ))
    })
}

/// Reads a TTLock's keys.
///
/// # Errors
/// When they are not there, others may read them, or something is wrong with them.
pub(super) fn read_ttlock(path: &Path) -> Result<TtLockKeys, KeysError> {
    let wrong = |why: String| KeysError(format!("the lock's keys in {}: {why}", path.display()));
    let file: TtLockFile = file(path)?;
    let mut key = sixteen("aes_key", &file.aes_key).map_err(wrong)?;
    let numbers = Numbers {
        admin: file.admin.read("admin").map_err(wrong)?,
        unlock: file.unlock.read("unlock").map_err(wrong)?,
    };
    let TtLockFile { scene, group, organisation, flag_position, .. } = file;
    let header = Header { scene, group, organisation, ..Header::UNKNOWN };
    let keys = Keys { header, key: Key::new(key), numbers, flag_position };
    key.zeroize();
    Ok(keys)
}

/// Reads an August or Yale lock's keys.
///
/// # Errors
/// As [`read_ttlock`].
pub(super) fn read_august(path: &Path) -> Result<AugustKeys, KeysError> {
    let wrong = |why: String| KeysError(format!("the lock's keys in {}: {why}", path.display()));
    let file: AugustFile = file(path)?;
    let key = sixteen("offline_key", &file.offline_key).map_err(wrong)?;
    Ok(OfflineKey { key: AugustKey::new(key), slot: file.slot })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<TtLockKeys, KeysError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        read_ttlock(&path)
    }

    const KEY: &str = "c0157a26893ade25c8c4717eb8df0b84";

    #[test]
    fn plain_numbers_and_the_vendors_text_are_read() {
        let plain = format!(r#"{{"aes_key": "{KEY}", "admin": 659525046, "unlock": 2, "scene": 2}}"#);
        let text = format!(
            r#"{{"aes_key": "{KEY}", "admin": "NjgsNjYsNjUsNzcsNjUsNzAsNjUsNjgsNjQsNjYsMTA=", "unlock": "2", "scene": 2}}"#
        );
        let keys = read(&plain, 0o600).unwrap();
        assert_eq!(keys, read(&text, 0o600).unwrap());
        assert_eq!((keys.header.scene, keys.numbers), (2, Numbers { admin: 659_525_046, unlock: 2 }));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_key_is_told() {
        let short = format!(r#"{{"aes_key": "{}", "admin": 1, "unlock": 2}}"#, &KEY[1..]);
        let missing = format!(r#"{{"aes_key": "{KEY}", "unlock": 2}}"#);
        for (text, mode, why) in [
            (short.as_str(), 0o600, "`aes_key` must have 32 hexadecimal digits"),
            (&missing, 0o600, "a field is missing"),
            (KEY, 0o600, "it is not JSON"),
            (&missing, 0o644, "chmod 0600"),
        ] {
            let error = read(text, mode).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains(&KEY[1..9]), "{error}");
        }
    }
}
