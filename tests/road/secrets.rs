//! Nothing that the processes write shows a guest's name, an address, a key or a token.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

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
    let private_files: Vec<_> = ["api_key_file", "bridge_token_file"]
        .iter()
        .map(|key| PathBuf::from(site.said[*key].as_str().unwrap()))
        .collect();
    let mut secrets: Vec<String> =
        private_files.iter().map(|path| fs::read_to_string(path).unwrap().trim().to_owned()).collect();
    secrets.extend(["Secretsson", "guest.secretsson", "4791234567"].map(str::to_owned));
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
            let bytes = fs::read(path).unwrap();
            for secret in &secrets {
                let shown =
                    bytes.windows(secret.len()).any(|window| window.eq_ignore_ascii_case(secret.as_bytes()));
                assert!(!shown, "{} shows {secret:?} ({round})", path.display());
            }
        }
    }
    for path in private_files {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}
