//! What is left of a person who was erased: searched for in the bytes of the database and of its log.

use latchd::{
    model::{Code, KeyTemplate, Outcome, Written},
    seams::Storage,
    store::{Store, open_reader},
};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{Cloud, in_hours, inventory_with_a_lock, text, with_serial, written};

/// What tells of the person: wherever it is sealed, and by what it is found again.
const TELLING: &[&str] = &[
    "SELECT person FROM user_identity",
    "SELECT key_index FROM user_identity",
    "SELECT email_index FROM user_identity",
    "SELECT phone_index FROM user_identity",
    "SELECT name FROM access_grant",
    "SELECT code FROM requested_method",
    "SELECT pin FROM code_method",
    "SELECT wish FROM code_method",
    "SELECT pin FROM desired_slot",
    "SELECT url FROM key_method",
    "SELECT card_number FROM acs_credential",
    "SELECT error_sealed FROM action_attempt",
    "SELECT seen FROM scan_attempt WHERE acs_credential_id IS NOT NULL",
    "SELECT body FROM bridge_order WHERE what = 'job' AND job_id IN (
       SELECT job_id FROM ordered_card UNION SELECT job_id FROM ordered_slot)",
    // All of a grant with a key of the caller's; of any other, those with a code.
    "SELECT fields FROM event JOIN access_grant USING(access_grant_id) WHERE access_grant_key IS NOT NULL",
];

fn is_in(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The database and its log, after all of the log was folded in.
fn bytes(cloud: &Cloud) -> Vec<u8> {
    let path = cloud.folder.path().join("cloud.db");
    let other = Connection::open(&path).unwrap();
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let log = std::fs::read(path.with_extension("db-wal")).unwrap_or_default();
    [std::fs::read(&path).unwrap(), log].concat()
}

#[test]
fn nothing_of_an_erased_person_is_left_in_the_file_or_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = super::config(&folder, true);
    config.api.instant_key_url = Some(KeyTemplate::new("https://keys.example/{token}").unwrap());
    let cloud = Cloud::start_with(folder, config);
    cloud.furnish_with(cloud.bridge, inventory_with_a_lock());
    let jane = json!({
        "full_name": "Jane Quicksilver", "email_address": "quicksilver@example.com",
        "phone_number": "+4799887766", "user_identity_key": "quicksilver-key",
    });
    let jane = cloud.ok("/user_identities/create", &jane)["user_identity"]["user_identity_id"].clone();
    let door = cloud.entrance("101");
    let device = cloud.ok("/devices/list", &json!({}))["devices"][0]["device_id"].clone();
    let of = |key: &str, stay: &str, code: &str| {
        let body = json!({
            "user_identity_id": jane, "acs_entrance_ids": [door], "device_ids": [device], "name": "Quicksilver suite",
            "requested_access_methods": [{"mode": "card"}, {"mode": "code", "code": code}, {"mode": "mobile_key"}],
            "access_grant_key": key, "reservation_key": stay, "ends_at": in_hours(24),
        });
        cloud.ok("/access_grants/create", &body)["access_grant"].clone()
    };
    let (first, second) = (of("quicksilver-1", "stay-1", "9317"), of("quicksilver-2", "stay-2", "582046"));
    let link = json!({"user_identity_id": jane});
    let link =
        text(&cloud.ok("/user_identities/generate_instant_key", &link)["instant_key"]["instant_key_url"]);
    assert!(link.starts_with("https://keys.example/"), "{link}");
    let card = |grant: &Value| {
        let order =
            json!({"access_method_id": grant["access_method_ids"][0], "acs_encoder_id": cloud.encoder()});
        cloud.ok("/access_methods/encode", &order)["action_attempt"].clone()
    };
    let attempt = card(&first);
    cloud.report(&attempt, with_serial(written(Written::Proven), "0CAFE0"));
    let refused = card(&second);
    let message = "Quicksilver's room is closed";
    cloud.report(&refused, Outcome::failed(Code::Rejected, message));
    let shown = cloud.attempt(&refused)["error"]["message"].to_string();
    assert!(shown.contains(message), "{shown}");

    let reader = open_reader(&Storage::folder(cloud.folder.path()), "cloud.db").unwrap();
    let mut telling: Vec<(&str, Vec<u8>)> = Vec::new();
    for sql in TELLING {
        let mut statement = reader.prepare(sql).unwrap();
        let found = statement.query_map([], |row| row.get::<_, Option<Vec<u8>>>(0)).unwrap();
        telling.extend(found.filter_map(|blob| Some((*sql, blob.unwrap()?))));
    }
    drop(reader);
    // The middle of each: its ends may lie on different pages.
    for (_, blob) in &mut telling {
        *blob = blob[..blob.len().min(40)].to_vec();
    }
    let before = bytes(&cloud);
    for (sql, blob) in &telling {
        assert!(is_in(&before, blob), "{sql}");
    }
    let said: std::collections::BTreeSet<_> = telling.iter().map(|(sql, _)| sql).collect();
    let expected = TELLING.iter().filter(|sql| !sql.contains("scan_attempt")).collect();
    assert!(said.is_superset(&expected), "{said:?}");

    // What the hub notes when a bridge's report comes.
    cloud.apply(|db| {
        let over = "UPDATE bridge_order SET over_at = created_at
                    WHERE job_id IN (SELECT job_id FROM action_attempt WHERE status <> 'pending')";
        db.connection().execute(over, [])?;
        Ok(())
    });
    // One of the grants is gone altogether, the other is shown while its card opens.
    for grant in [&first, &second] {
        cloud.ok("/access_grants/delete", &json!({"access_grant_id": grant["access_grant_id"]}));
    }
    cloud.ok("/user_identities/delete", &json!({"user_identity_id": jane}));
    let after = bytes(&cloud);
    for (sql, blob) in &telling {
        assert!(!is_in(&after, blob), "{sql}: still there");
    }
    let clear =
        ["Quicksilver", "quicksilver", "99887766", "9317", "582046", "0CAFE0", link.as_str(), message];
    for word in clear {
        assert!(!is_in(&after, word.as_bytes()), "{word}");
    }
    // What the audit keeps: ids and times, and the stay by which a room is judged.
    let kept = cloud.ok("/access_grants/get", &json!({"access_grant_id": first["access_grant_id"]}));
    assert_eq!(
        (&kept["access_grant"]["user_identity_id"], &kept["access_grant"]["reservation_key"]),
        (&jane, &json!("stay-1"))
    );
    let told = json!({"since": "2020-01-01T00:00:00Z", "access_grant_id": second["access_grant_id"]});
    let told = cloud.ok("/events/list", &told)["events"].as_array().unwrap().len();
    assert!(told > 2, "{told}");
    assert_eq!(cloud.attempt(&attempt)["status"], "success");
    assert_eq!(cloud.attempt(&refused)["error"]["message"], "");
}
