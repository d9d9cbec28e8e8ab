//! Nothing that the processes write shows a guest's name, an address, a key or a pairing code.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use latchd::{protocol::SigningKey, seal::SealKey, seams::Random};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::json;

use crate::site::Site;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            files(&path, found);
        } else if kind.is_file() {
            found.push(path);
        }
    }
}

/// The secret itself in a key for NIST P-256, as PKCS #8 holds it (RFC 5915, RFC 5958).
fn scalar<'a>(key: &'a PrivateKeyDer<'_>) -> &'a [u8] {
    let der = key.secret_der();
    let head = [0x02, 0x01, 0x01, 0x04, 0x20];
    let at = der.windows(head.len()).position(|window| window == head).unwrap() + head.len();
    &der[at..at + 32]
}

/// How bytes may be written down: as they are, as hexadecimal digits, and inside longer base64 wherever they begin there.
fn forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![bytes.to_vec(), hex.into_bytes()];
    for skipped in 0..3 {
        let whole = (bytes.len() - skipped) / 3 * 3;
        forms.push(STANDARD_NO_PAD.encode(&bytes[skipped..skipped + whole]).into_bytes());
    }
    forms
}

/// The first of these that is in the bytes, in whatever case.
fn first_shown<'a>(bytes: &[u8], secrets: &'a [Vec<u8>]) -> Option<&'a [u8]> {
    let mut beginnings = [false; 256];
    for secret in secrets {
        beginnings[usize::from(secret[0].to_ascii_lowercase())] = true;
    }
    let places = (0..bytes.len()).filter(|at| beginnings[usize::from(bytes[*at].to_ascii_lowercase())]);
    let at = |at: usize, secret: &[u8]| {
        bytes[at..].get(..secret.len()).is_some_and(|bytes| bytes.eq_ignore_ascii_case(secret))
    };
    places.into_iter().find_map(|place| secrets.iter().map(Vec::as_slice).find(|secret| at(place, secret)))
}

/// What the cloud signs with.
fn cloud_seed(folder: &Path) -> Vec<u8> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(folder.join("cloud.db"), flags).unwrap();
    let (key, sealed): (String, Vec<u8>) = database
        .query_row("SELECT key_id, secret FROM cloud_key", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let seal = SealKey::from_file(&folder.join("seal.key"), Random::seeded(1)).unwrap();
    let seed = seal.open(&format!("cloud_key.secret/{key}"), &sealed).unwrap();
    let public = SigningKey::from_seed(&seed.as_slice().try_into().unwrap()).public();
    assert_eq!(public.id().to_string(), key, "it is the seed that is looked for");
    seed
}

#[test]
fn what_is_looked_for_is_found_in_every_form() {
    let key: Vec<u8> = (100..132).collect();
    let hex: String = key.iter().map(|byte| format!("{byte:02X}")).collect();
    let inside = |skipped: usize| STANDARD_NO_PAD.encode([&[7; 3][..skipped], &key, &[9; 4]].concat());
    for shown in [key.clone(), hex.into_bytes(), inside(0).into(), inside(1).into(), inside(2).into()] {
        let bytes = [b"before ".as_slice(), &shown, b" after"].concat();
        assert!(first_shown(&bytes, &forms(&key)).is_some(), "{}", bytes.escape_ascii());
    }
    assert!(first_shown(&key[1..], &forms(&key)).is_none());
}

#[test]
fn databases_logs_and_output_show_no_name_no_address_and_no_key() {
    let mut site = Site::without_agent();
    // The chattiest logs there are, bytes of the wire included.
    site.restart_cloud_with(|command| command.env("LATCHD_LOG", "trace"));
    site.start_agent_with(|command| command.env("LATCHD_LOG", "trace"));
    site.healthy();
    let identity = json!({
        "full_name": "Guestname Secretsson",
        "email_address": "guest.secretsson@example.org",
        "phone_number": "+4791234567",
    });
    let identity = site.ok("/user_identities/create", identity, "user_identity");
    let now = jiff::Timestamp::now();
    let grant = json!({
        "user_identity_id": identity["user_identity_id"],
        "acs_entrance_ids": site.entrances(&["101"]),
        "requested_access_methods": [{ "mode": "card" }],
        "reservation_key": "stay-1",
        "ends_at": now + jiff::SignedDuration::from_hours(24),
        "name": "Grant of Secretsson",
    });
    let grant = site.ok("/access_grants/create", grant, "access_grant");
    let attempt = site.encode(&grant["access_method_ids"][0], "1");
    site.waits_for_card("1");
    site.control("place jane on 1");
    assert_eq!(site.ended(&attempt)["status"], "success");
    let api_key = PathBuf::from(site.said["api_key_file"].as_str().unwrap());
    let of_folder = |name: &str| site.folder.path().join(name);
    let authorities = ["cloud/ca.key", "cloud/bridges-ca.key"].map(of_folder);
    let seals = ["cloud/seal.key", "agent/seal.key"].map(of_folder);
    let private_files = [vec![api_key], authorities.to_vec(), seals.to_vec()].concat();
    let code = &site.paired.code;
    let words = ["Secretsson", "guest.secretsson", "4791234567", code, &code.replace('-', "")];
    let mut secrets: Vec<Vec<u8>> = words.map(|word| word.as_bytes().to_vec()).to_vec();
    secrets.push(fs::read_to_string(&private_files[0]).unwrap().trim().into());
    for seal in &seals {
        secrets.push(fs::read_to_string(seal).unwrap().trim().into());
    }
    let (identity, signing) = site.identity();
    secrets.extend(forms(&signing));
    secrets.extend(forms(&cloud_seed(&site.folder.path().join("cloud"))));
    secrets.extend(forms(scalar(&identity.tls_key)));
    for file in &authorities {
        secrets.extend(forms(scalar(&PrivateKeyDer::from_pem_file(file).unwrap())));
    }
    // While they run, with their logs still open, and after a clean end.
    for round in ["running", "stopped"] {
        if round == "stopped" {
            site.agent().signal(rustix::process::Signal::TERM);
            site.agent().ended();
            site.cloud().signal(rustix::process::Signal::TERM);
            site.cloud().ended();
        }
        let mut written = Vec::new();
        files(site.folder.path(), &mut written);
        assert!(written.iter().any(|path| path.ends_with("queue.db")), "{written:?}");
        assert!(written.iter().any(|path| path.ends_with("cloud.db")), "{written:?}");
        for path in written.iter().filter(|path| !private_files.contains(path)) {
            let shown = first_shown(&fs::read(path).unwrap(), &secrets).map(|secret| secret.escape_ascii());
            assert!(shown.is_none(), "{} shows {} ({round})", path.display(), shown.unwrap());
        }
    }
    for path in [private_files, vec![site.pairing_file()]].concat() {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}
