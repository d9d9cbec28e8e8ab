//! What gives rights at a lock: files that nobody else may read, each one JSON object.
//!
//! ```text
//! {"sealed": "base64"}     what `latchd devices` keeps: one of the following, sealed with the site's own key for this one lock
//! ttlock                   {"aes_key": "32 hexadecimal digits", "admin": 970456745, "unlock": 344382141}
//!                          and, where they are known: "flag_position", "scene", "group", "organisation"
//! august_yale              {"offline_key": "32 hexadecimal digits", "slot": 3}
//! ```
//! `admin` and `unlock` may be in the vendor's own text form. To be imported, the vendors' own records will do as well:
//! `aesKeyStr`, `adminPwd`, `lockKey`, `lockFlagPos` and `lockVersion` of TTLock's, `OfflineKeys` of August's; that they
//! look so is taken from programs that read them, not from a record of a real lock.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroize;

use super::make::LockKeys;
use crate::{
    config::{BleLockConfig, BleMake},
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
    model::{Private, SystemName},
    seal::{SealKey, hand_over, replace_private},
};

/// Why a lock's keys cannot be used, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeysError(String);

/// A TTLock's keys.
pub(super) type TtLockKeys = Keys;
/// An August or Yale lock's keys.
pub(super) type AugustKeys = OfflineKey;

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

/// The vendor's own record, as its interface tells it; everything else in it is of no use here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TtLockRecord {
    aes_key_str: Private,
    admin_pwd: Number,
    lock_key: Number,
    #[serde(default)]
    lock_flag_pos: u32,
    lock_version: Option<TtLockVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TtLockVersion {
    protocol_type: u8,
    protocol_version: u8,
    scene: u8,
    group_id: u16,
    org_id: u16,
}

#[derive(Deserialize)]
struct AugustRecord {
    #[serde(rename = "OfflineKeys")]
    offline_keys: AugustLoaded,
}

#[derive(Deserialize)]
struct AugustLoaded {
    loaded: Vec<AugustOfflineKey>,
}

#[derive(Deserialize)]
struct AugustOfflineKey {
    key: Private,
    slot: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedFile {
    sealed: String,
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

/// What serde quotes of the text may be a key: it is told by its place.
fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| {
        format!(
            "line {}, column {}: {}",
            error.line(),
            error.column(),
            match error.classify() {
                serde_json::error::Category::Data => "a field is missing, unknown or of another type",
                _ => "it is not JSON",
            }
        )
    })
}

/// Whether an object has this field.
fn has(text: &str, field: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
        .is_ok_and(|fields| fields.contains_key(field))
}

fn ttlock(text: &str) -> Result<TtLockKeys, String> {
    let file: TtLockFile = parse(text)?;
    let mut key = sixteen("aes_key", &file.aes_key)?;
    let numbers = Numbers { admin: file.admin.read("admin")?, unlock: file.unlock.read("unlock")? };
    let TtLockFile { scene, group, organisation, flag_position, .. } = file;
    let header = Header { scene, group, organisation, ..Header::UNKNOWN };
    let keys = Keys { header, key: Key::new(key), numbers, flag_position };
    key.zeroize();
    Ok(keys)
}

fn ttlock_record(text: &str) -> Result<TtLockKeys, String> {
    let record: TtLockRecord = parse(text)?;
    let digits = Private::new(record.aes_key_str.expose().replace([',', ' '], ""));
    let mut key = sixteen("aesKeyStr", &digits)?;
    let numbers =
        Numbers { admin: record.admin_pwd.read("adminPwd")?, unlock: record.lock_key.read("lockKey")? };
    let header = match record.lock_version {
        None => Header { scene: usual_scene(), ..Header::UNKNOWN },
        Some(version) if (version.protocol_type, version.protocol_version) != (5, 3) => {
            return Err(format!(
                "`lockVersion`: the lock speaks version {}.{} of the protocol, and only 5.3 is known here",
                version.protocol_type, version.protocol_version
            ));
        }
        Some(TtLockVersion { scene, group_id, org_id, .. }) => {
            Header { scene, group: group_id, organisation: org_id, ..Header::UNKNOWN }
        }
    };
    let keys = Keys { header, key: Key::new(key), numbers, flag_position: record.lock_flag_pos };
    key.zeroize();
    Ok(keys)
}

fn august(text: &str) -> Result<AugustKeys, String> {
    let file: AugustFile = parse(text)?;
    let key = sixteen("offline_key", &file.offline_key)?;
    Ok(OfflineKey { key: AugustKey::new(key), slot: file.slot })
}

fn august_record(text: &str) -> Result<AugustKeys, String> {
    let record: AugustRecord = parse(text)?;
    let Some(loaded) = record.offline_keys.loaded.first() else {
        return Err(
            "`OfflineKeys.loaded` is empty: the lock has none; open it once with the maker's app".into()
        );
    };
    let key = sixteen("OfflineKeys.loaded[0].key", &loaded.key)?;
    Ok(OfflineKey { key: AugustKey::new(key), slot: loaded.slot })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl LockKeys {
    fn read(make: BleMake, text: &str) -> Result<Self, String> {
        match make {
            BleMake::TtLock => ttlock(text).map(Self::TtLock),
            BleMake::AugustYale => august(text).map(Self::August),
        }
    }

    /// Also where it is the vendor's own record.
    fn import(make: BleMake, text: &str) -> Result<Self, String> {
        match make {
            BleMake::TtLock if has(text, "aesKeyStr") => ttlock_record(text).map(Self::TtLock),
            BleMake::AugustYale if has(text, "OfflineKeys") => august_record(text).map(Self::August),
            _ => Self::read(make, text),
        }
    }

    fn text(&self) -> Private {
        Private::new(match self {
            Self::TtLock(keys) => json!({
                "aes_key": hex(keys.key.expose()),
                "admin": keys.numbers.admin,
                "unlock": keys.numbers.unlock,
                "flag_position": keys.flag_position,
                "scene": keys.header.scene,
                "group": keys.header.group,
                "organisation": keys.header.organisation,
            })
            .to_string(),
            Self::August(keys) => {
                json!({ "offline_key": hex(keys.key.expose()), "slot": keys.slot }).to_string()
            }
        })
    }
}

/// Where the keys of a site's locks are, and what opens those that are sealed.
#[derive(Debug, Clone)]
pub struct KeyRing {
    folder: PathBuf,
    seal: Option<SealKey>,
}

/// How a lock's keys are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Sealed with the site's own key.
    Sealed,
    /// In a file that nobody else may read.
    Plain,
    /// Not at all.
    Missing,
}

impl KeyRing {
    /// Of a site whose agent has this folder and this key; without the key, sealed files cannot be used.
    #[must_use]
    pub fn new(folder: &Path, seal: Option<SealKey>) -> Self {
        Self { folder: folder.join("locks"), seal }
    }

    /// Where a lock's keys are, or will be.
    #[must_use]
    pub fn path(&self, system: &SystemName, lock: &BleLockConfig) -> PathBuf {
        match &lock.keys_file {
            Some(path) => path.clone(),
            None => self.folder.join(format!("{system}.{}.json", lock.name)),
        }
    }

    /// How a lock's keys are kept.
    #[must_use]
    pub fn kept(&self, system: &SystemName, lock: &BleLockConfig) -> Kept {
        match fs::read_to_string(self.path(system, lock)).map(Private::new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::Missing,
            Ok(text) if has(text.expose(), "sealed") => Kept::Sealed,
            _ => Kept::Plain,
        }
    }

    fn place(system: &SystemName, lock: &BleLockConfig) -> String {
        format!("lock_keys/{system}/{}", lock.name)
    }

    /// Reads a lock's keys.
    ///
    /// # Errors
    /// When they are not there, others may read them, the site's key does not open them, or something is wrong with them.
    pub(super) fn read(
        &self,
        make: BleMake,
        system: &SystemName,
        lock: &BleLockConfig,
    ) -> Result<LockKeys, KeysError> {
        self.read_from(&self.path(system, lock), make, system, lock)
    }

    pub(super) fn read_from(
        &self,
        path: &Path,
        make: BleMake,
        system: &SystemName,
        lock: &BleLockConfig,
    ) -> Result<LockKeys, KeysError> {
        let wrong = |why: String| KeysError(format!("the lock's keys in {}: {why}", path.display()));
        if lock.keys_file.is_none() && !path.exists() {
            let next = match make {
                BleMake::TtLock => format!("latchd devices pair {system}/{}`, or `import", lock.name),
                BleMake::AugustYale => format!("latchd devices import {system}/{}", lock.name),
            };
            return Err(KeysError(format!("there are no keys of lock {system}/{} yet: `{next}`", lock.name)));
        }
        let text = password::read_secret(path, "the lock's keys").map_err(KeysError)?;
        if !has(text.expose(), "sealed") {
            return LockKeys::read(make, text.expose()).map_err(wrong);
        }
        let file: SealedFile = parse(text.expose()).map_err(wrong)?;
        let sealed =
            BASE64_STANDARD.decode(file.sealed).map_err(|_| wrong("`sealed` is not base64".into()))?;
        let Some(seal) = &self.seal else {
            return Err(wrong("they are sealed, and the site's seal key cannot be used".into()));
        };
        let clear = seal.open(&Self::place(system, lock), &sealed).map_err(|_| {
            wrong(format!(
                "they do not open: they were sealed by another site, or for another lock than {system}/{}, or altered; \
                 import them again",
                lock.name
            ))
        })?;
        let clear =
            String::from_utf8(clear).map(Private::new).map_err(|_| wrong("they are no text".into()))?;
        LockKeys::read(make, clear.expose()).map_err(wrong)
    }

    /// Keeps a lock's keys, sealed, in the place of what was there.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn keep(
        &self,
        path: &Path,
        system: &SystemName,
        lock: &BleLockConfig,
        keys: &LockKeys,
    ) -> Result<(), KeysError> {
        let wrong = |why: &dyn std::fmt::Display| KeysError(format!("write {}: {why}", path.display()));
        let Some(seal) = &self.seal else {
            return Err(wrong(&"there is no seal key"));
        };
        let sealed = seal.seal(&Self::place(system, lock), keys.text().expose().as_bytes());
        let text = json!({ "sealed": BASE64_STANDARD.encode(sealed) }).to_string();
        if let Some(folder) = path.parent()
            && !folder.as_os_str().is_empty()
            && !folder.exists()
        {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .and_then(|()| hand_over(folder))
                .map_err(|error| wrong(&error))?;
        }
        replace_private(path, text.as_bytes()).and_then(|()| hand_over(path)).map_err(|error| wrong(&error))
    }

    /// Takes over a lock's keys from a text: a file as it is described above, or the vendor's own record. Says where they
    /// are kept, sealed, from now on.
    ///
    /// # Errors
    /// When something is wrong with the text, or it cannot be kept.
    pub fn import(
        &self,
        make: BleMake,
        system: &SystemName,
        lock: &BleLockConfig,
        text: &Private,
    ) -> Result<PathBuf, KeysError> {
        let keys = LockKeys::import(make, text.expose()).map_err(KeysError)?;
        let path = self.path(system, lock);
        self.keep(&path, system, lock, &keys)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{model::DeviceName, seams::Random};

    const KEY: &str = "c0157a26893ade25c8c4717eb8df0b84";

    fn site(folder: &Path) -> (KeyRing, SystemName) {
        let seal = SealKey::new([7; 32], Random::system());
        (KeyRing::new(folder, Some(seal)), SystemName::new("doors").unwrap())
    }

    fn lock(make: BleMake, name: &str, keys_file: Option<PathBuf>) -> BleLockConfig {
        BleLockConfig {
            keys_file,
            ..BleLockConfig::usual(make, DeviceName::new(name).unwrap(), "C0:FF:EE:00:00:01")
        }
    }

    fn read(text: &str, mode: u32) -> Result<LockKeys, KeysError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let (ring, system) = site(folder.path());
        ring.read(BleMake::TtLock, &system, &lock(BleMake::TtLock, "101", Some(path)))
    }

    #[test]
    fn plain_numbers_and_the_vendors_text_are_read() {
        let plain = format!(r#"{{"aes_key": "{KEY}", "admin": 659525046, "unlock": 2, "scene": 2}}"#);
        let text = format!(
            r#"{{"aes_key": "{KEY}", "admin": "NjgsNjYsNjUsNzcsNjUsNzAsNjUsNjgsNjQsNjYsMTA=", "unlock": "2", "scene": 2}}"#
        );
        let keys = read(&plain, 0o600).unwrap();
        assert_eq!(keys, read(&text, 0o600).unwrap());
        let LockKeys::TtLock(keys) = keys else { panic!("{keys:?}") };
        assert_eq!((keys.header.scene, keys.numbers), (2, Numbers { admin: 659_525_046, unlock: 2 }));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_key_is_told() {
        let short = format!(r#"{{"aes_key": "{}", "admin": 1, "unlock": 2}}"#, &KEY[1..]);
        let missing = format!(r#"{{"aes_key": "{KEY}", "unlock": 2}}"#);
        let altered = format!(r#"{{"sealed": "{KEY}"}}"#);
        for (text, mode, why) in [
            (short.as_str(), 0o600, "`aes_key` must have 32 hexadecimal digits"),
            (&missing, 0o600, "a field is missing"),
            (KEY, 0o600, "it is not JSON"),
            (&missing, 0o644, "chmod 0600"),
            (&altered, 0o600, "do not open"),
        ] {
            let error = read(text, mode).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains(&KEY[1..9]), "{error}");
        }
    }

    #[test]
    fn the_vendors_own_records_are_imported_and_kept_sealed_for_their_lock_alone() {
        let commas = KEY.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
        let commas = commas.collect::<Vec<_>>().join(",");
        let tt = format!(
            r#"{{"lockId": 1, "lockAlias": "x", "aesKeyStr": "{commas}", "adminPwd": "970456745", "lockKey":
            "NjgsNjYsNjUsNzcsNjUsNzAsNjUsNjgsNjQsNjYsMTA=", "lockFlagPos": 5, "lockVersion": {{"protocolType": 5,
            "protocolVersion": 3, "scene": 2, "groupId": 1, "orgId": 3}}}}"#
        );
        let plain = format!(
            r#"{{"aes_key": "{KEY}", "admin": 970456745, "unlock": 659525046, "flag_position": 5, "scene": 2, "organisation": 3}}"#
        );
        let august =
            format!(r#"{{"LockID": "A", "OfflineKeys": {{"loaded": [{{"key": "{KEY}", "slot": 9}}]}}}}"#);
        let august_plain = format!(r#"{{"offline_key": "{KEY}", "slot": 9}}"#);
        for (make, texts) in [(BleMake::TtLock, [tt, plain]), (BleMake::AugustYale, [august, august_plain])] {
            let [record, plain] = texts.map(Private::new);
            let folder = tempfile::tempdir().unwrap();
            let (ring, system) = site(folder.path());
            let (mine, other) = (lock(make, "101", None), lock(make, "102", None));
            assert_eq!(ring.kept(&system, &mine), Kept::Missing);
            assert!(ring.read(make, &system, &mine).unwrap_err().to_string().contains("latchd devices"));
            let path = ring.import(make, &system, &mine, &record).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(ring.kept(&system, &mine), Kept::Sealed);
            let kept = fs::read_to_string(&path).unwrap();
            assert!(!kept.contains(&KEY[..8]) && !kept.contains("970456745"), "{kept}");
            let keys = ring.read(make, &system, &mine).unwrap();
            assert_eq!(keys, LockKeys::read(make, plain.expose()).unwrap());
            fs::copy(&path, ring.path(&system, &other)).unwrap();
            let error = ring.read(make, &system, &other).unwrap_err().to_string();
            assert!(error.contains("for another lock"), "{error}");
            // A copy of the disk without the key shows nothing.
            let error = KeyRing { seal: None, ..ring }.read(make, &system, &mine).unwrap_err().to_string();
            assert!(error.contains("seal key cannot be used"), "{error}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_used_is_refused_and_what_was_kept_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (ring, system) = site(folder.path());
        let mine = lock(BleMake::TtLock, "101", None);
        let import = |text: &str| ring.import(BleMake::TtLock, &system, &mine, &Private::new(text));
        import(&format!(r#"{{"aes_key": "{KEY}", "admin": 1, "unlock": 2}}"#)).unwrap();
        let before = fs::read(ring.path(&system, &mine)).unwrap();
        let version = r#"{"protocolType": 5, "protocolVersion": 4, "scene": 2, "groupId": 1, "orgId": 3}"#;
        for (text, why) in [
            (
                format!(
                    r#"{{"aesKeyStr": "{KEY}", "adminPwd": "1", "lockKey": "2", "lockVersion": {version}}}"#
                ),
                "version 5.4",
            ),
            (format!(r#"{{"aesKeyStr": "{KEY}", "adminPwd": "x", "lockKey": "2"}}"#), "`adminPwd`"),
            (format!(r#"{{"aesKeyStr": "{}", "adminPwd": "1", "lockKey": "2"}}"#, &KEY[2..]), "`aesKeyStr`"),
            ("{}".into(), "a field is missing"),
        ] {
            let error = import(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(fs::read(ring.path(&system, &mine)).unwrap(), before);
        let empty = Private::new(r#"{"OfflineKeys": {"loaded": []}}"#);
        let error = ring.import(BleMake::AugustYale, &system, &mine, &empty).unwrap_err().to_string();
        assert!(error.contains("`OfflineKeys.loaded` is empty"), "{error}");
    }
}
