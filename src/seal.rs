//! Sealing of what must not be read from a stolen disk: XChaCha20-Poly1305 with a key from a file.
//!
//! Every sealed value names its place (table, column, row) as associated data, so that a value moved to another row
//! does not open. The key is 32 bytes, kept as 64 hexadecimal digits in a file that only its owner may read; systemd
//! credentials arrive as such a file.

use std::{
    env, fmt, fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use chacha20::{R20, hchacha};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use zeroize::{Zeroize, Zeroizing};

use crate::seams::Random;

const NONCE: usize = 24;
const TAG: usize = 16;
/// First byte of every sealed value, so that another scheme can follow one day.
const SCHEME: u8 = 1;

/// The key that seals rows of one store. Shows nothing of itself.
#[derive(Clone)]
pub struct SealKey {
    key: Zeroizing<[u8; 32]>,
    index: hmac::Key,
    random: Random,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

/// Why a key or a sealed value cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or made.
    #[error("seal key file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others may read the key file.
    #[error("seal key file {} may be read by others (mode {mode:o}): run `chmod 600` on it", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold a key.
    #[error("seal key file {} must hold 64 hexadecimal digits", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// Another key sealed it, it stood elsewhere, or it was altered.
    #[error("a sealed value in {place} does not open: wrong key, or altered")]
    Unopenable {
        /// Where it stands.
        place: String,
    },
}

impl SealKey {
    /// A key from its bytes.
    #[must_use]
    pub fn new(mut bytes: [u8; 32], random: Random) -> Self {
        // The index key is derived, so that a blind index says nothing about the cipher's key.
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), b"latchd blind index v1");
        let index = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        let key = Zeroizing::new(bytes);
        bytes.zeroize();
        Self { key, index, random }
    }

    /// Reads the key from a file that only its owner may read.
    ///
    /// # Errors
    /// When the file is absent, open to others, or holds no key.
    pub fn from_file(path: &Path, random: Random) -> Result<Self, SealError> {
        let file_error = |source| SealError::File { path: path.into(), source };
        let mode = fs::metadata(path).map_err(file_error)?.permissions().mode() & 0o777;
        let credentials = env::var_os("CREDENTIALS_DIRECTORY");
        let is_credential = credentials.is_some_and(|folder| path.starts_with(folder));
        if is_exposed(mode, is_credential) {
            return Err(SealError::Exposed { path: path.into(), mode });
        }
        let mut text = fs::read_to_string(path).map_err(file_error)?;
        let bytes = decode_hex(text.trim());
        text.zeroize();
        let bytes = bytes.ok_or_else(|| SealError::Malformed { path: path.into() })?;
        Ok(Self::new(bytes, random))
    }

    /// Reads the key, or makes one with mode 0600 where there is no file yet.
    ///
    /// # Errors
    /// As [`SealKey::from_file`], and when the file cannot be made.
    pub fn from_file_or_new(path: &Path, random: Random) -> Result<Self, SealError> {
        let mut bytes = random.bytes::<32>();
        let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.zeroize();
        text.push('\n');
        let made = write_private(path, text.as_bytes());
        text.zeroize();
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(SealError::File { path: path.into(), source });
            }
        }
        Self::from_file(path, random)
    }

    /// Seals a value for its place, e.g. `job.body/6d0c…`.
    #[must_use]
    pub fn seal(&self, place: &str, plain: &[u8]) -> Vec<u8> {
        let nonce = self.random.bytes::<NONCE>();
        let mut out = Vec::with_capacity(1 + NONCE + plain.len() + TAG);
        out.push(SCHEME);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let (key, nonce) = self.of_nonce(&nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(place), &mut out[1 + NONCE..])
            .expect("values are far below the cipher's limit of 256 GiB");
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// Opens a value that [`SealKey::seal`] made for the same place.
    ///
    /// # Errors
    /// When another key sealed it, it stood elsewhere, or it was altered.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let unopenable = || SealError::Unopenable { place: place.to_owned() };
        let (&scheme, rest) = sealed.split_first().ok_or_else(unopenable)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE>().ok_or_else(unopenable)?;
        if scheme != SCHEME {
            return Err(unopenable());
        }
        let (key, nonce) = self.of_nonce(nonce);
        let mut body = body.to_vec();
        match key.open_in_place(nonce, Aad::from(place), &mut body).map(|plain| plain.len()) {
            Ok(length) => {
                body.truncate(length);
                Ok(body)
            }
            Err(ring::error::Unspecified) => {
                body.zeroize();
                Err(unopenable())
            }
        }
    }

    /// The key and nonce of ChaCha20-Poly1305 that XChaCha20 derives from its own: the first sixteen bytes go into the key,
    /// the others are left.
    fn of_nonce(&self, nonce: &[u8; NONCE]) -> (LessSafeKey, Nonce) {
        let (first, rest) = nonce.split_first_chunk::<16>().expect("a nonce is longer");
        let mut derived = hchacha::<R20>((&*self.key).into(), first.into());
        let key = UnboundKey::new(&CHACHA20_POLY1305, &derived).expect("the cipher's keys are as long");
        derived.as_mut_slice().zeroize();
        let mut short = [0; NONCE_LEN];
        short[NONCE_LEN - rest.len()..].copy_from_slice(rest);
        (LessSafeKey::new(key), Nonce::assume_unique_for_key(short))
    }

    /// A keyed digest by which a sealed value can be found again without being readable, e.g. for "is this e-mail
    /// address taken". Equal values of one `place` have equal digests.
    #[must_use]
    pub fn blind_index(&self, place: &str, plain: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.index);
        context.update(place.as_bytes());
        context.update(&[0]);
        context.update(plain.as_bytes());
        context.sign().as_ref().try_into().expect("an HMAC-SHA256 tag has 32 bytes")
    }

    /// Whether a blind index is this value's. Takes as long for one that differs early as for one that differs late.
    #[must_use]
    pub fn is_blind_index(&self, place: &str, plain: &str, index: &[u8]) -> bool {
        let value = [place.as_bytes(), &[0], plain.as_bytes()].concat();
        hmac::verify(&self.index, &value, index).is_ok()
    }
}

/// Writes a new file that only its owner may read, and makes it durable.
///
/// # Errors
/// `AlreadyExists` where there is one, and those of the file system.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_new(path, bytes, 0o600)
}

/// Writes a new file whole or not at all, with these permission bits, and makes it and its name durable: what is cut
/// off half-way leaves no file that the next start would take for the real one.
///
/// # Errors
/// `AlreadyExists` where there is one, and those of the file system.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use io::Write;
    // Asked first, because the folder of a file that is there may be one where nothing can be written.
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces a file that somebody else has made meanwhile.
        fs::hard_link(&draft, path)
    })();
    let removed = fs::remove_file(&draft);
    written.and(removed)?;
    fs::File::open(folder)?.sync_all()
}

/// Puts a file with mode 0600 in the place of another, or where there is none, whole and durably: a power cut leaves the
/// one or the other.
///
/// # Errors
/// Those of the file system.
pub fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use io::Write;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist(path)?;
    fs::File::open(folder)?.sync_all()
}

/// Gives a file that the system's administrator made to the user whose folder it is in: that is who runs the agent.
pub(crate) fn hand_over(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent().filter(|_| rustix::process::geteuid().is_root()) else { return Ok(()) };
    let owner = fs::metadata(folder)?;
    chown(path, Some(owner.uid()), Some(owner.gid()))
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

/// Whether a secret's file of this mode may be read by others. A service manager's credential lies in a folder that only the
/// service can enter, and what looks like its group's right there is the mask of the access list that lets us in.
pub(crate) fn is_exposed(mode: u32, is_credential: bool) -> bool {
    let forbidden = if is_credential { 0o037 } else { 0o077 };
    mode & forbidden != 0
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::{
        KeyInit, XChaCha20Poly1305, XNonce,
        aead::{Aead, Payload},
    };

    use super::*;

    fn key() -> SealKey {
        SealKey::new([7; 32], Random::seeded(1))
    }

    #[test]
    fn a_sealed_value_opens_in_its_place_only_and_shows_nothing() {
        let sealed = key().seal("guest/1", b"Jane Doe");
        assert!(!sealed.windows(4).any(|part| part == b"Jane"));
        assert_eq!(key().open("guest/1", &sealed).unwrap(), b"Jane Doe");
        assert!(key().open("guest/2", &sealed).is_err());
        assert!(SealKey::new([8; 32], Random::seeded(1)).open("guest/1", &sealed).is_err());
    }

    #[test]
    fn what_is_sealed_is_what_another_implementation_of_the_cipher_seals_and_opens() {
        let theirs = XChaCha20Poly1305::new(&[7; 32].into());
        for length in [0, 1, 15, 16, 17, 63, 64, 65, 450, 5000] {
            let plain: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let payload = |msg| Payload { msg, aad: b"job.body/1" };
            let ours = key().seal("job.body/1", &plain);
            let (nonce, sealed) = ours[1..].split_first_chunk::<NONCE>().unwrap();
            assert_eq!(theirs.decrypt(&XNonce::from(*nonce), payload(sealed)).unwrap(), plain);
            let mut opens = vec![SCHEME];
            opens.extend([9; NONCE]);
            opens.extend(theirs.encrypt(&XNonce::from([9; NONCE]), payload(&plain)).unwrap());
            assert_eq!(key().open("job.body/1", &opens).unwrap(), plain);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let sealed = key().seal("x", b"4711");
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(key().open("x", &altered).is_err(), "byte {at}");
            assert!(key().open("x", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_key_file_is_made_once_and_refused_when_others_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let sealed = SealKey::from_file_or_new(&path, Random::seeded(1)).unwrap().seal("x", b"y");
        let again = SealKey::from_file_or_new(&path, Random::seeded(2)).unwrap();
        assert_eq!(again.open("x", &sealed).unwrap(), b"y");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = SealKey::from_file(&path, Random::seeded(1)).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_private_file_is_there_whole_or_not_at_all_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let draft = folder.path().join(format!("key.{}.new", std::process::id()));
        fs::write(&draft, b"cut off half-w").unwrap();
        write_private(&path, b"whole").unwrap();
        let error = write_private(&path, b"another").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["key"]);
    }

    #[test]
    fn a_file_without_a_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        write_private(&path, b"hello").unwrap();
        let error = SealKey::from_file(&path, Random::seeded(1)).unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal digits"), "{error}");
    }

    #[test]
    fn equal_values_have_equal_blind_indexes_within_one_place() {
        assert_eq!(key().blind_index("email", "a@b.c"), key().blind_index("email", "a@b.c"));
        assert_ne!(key().blind_index("email", "a@b.c"), key().blind_index("phone", "a@b.c"));
        assert!(key().is_blind_index("email", "a@b.c", &key().blind_index("email", "a@b.c")));
        assert!(!key().is_blind_index("email", "a@b.d", &key().blind_index("email", "a@b.c")));
    }

    #[test]
    fn a_credential_may_show_the_mask_of_its_access_list_and_nothing_more() {
        assert!(!is_exposed(0o440, true) && !is_exposed(0o400, false));
        assert!(is_exposed(0o440, false) && is_exposed(0o444, true) && is_exposed(0o460, true));
    }
}
