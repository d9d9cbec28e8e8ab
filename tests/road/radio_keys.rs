//! What gives rights at locks with a radio: paired here or handed over, kept sealed, used by the agent.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::radio_house::House;

/// A house without keys in its configuration.
fn house() -> Option<House> {
    House::prepare(&["--fresh", "1"], |_| String::new())
}

fn is_told(told: (bool, String), what: &str) {
    assert!(told.0 && told.1.contains(what), "{told:?}");
}

#[track_caller]
fn is_refused(told: (bool, String), what: &str) {
    assert!(!told.0 && told.1.contains(what), "{told:?}");
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    });
    below.filter(|path| path.is_file()).collect()
}

#[test]
fn a_lock_of_nobody_is_paired_and_the_makers_keys_are_imported_and_all_of_them_are_kept_sealed() {
    let Some(mut house) = house() else { return };
    let listed = house.told_with_radio(&["devices", "list"]);
    assert_eq!(listed.1.matches("none").count(), 4, "{listed:?}");
    is_refused(house.told_with_radio(&["doctor"]), "pair doors/101");

    // The first one has nobody's name yet; what the others' makers know comes as files.
    is_told(house.told_with_radio(&["devices", "pair", "doors/901"]), "belongs to this site now");
    let mut secrets = Vec::new();
    for (lock, at) in [("doors/101", 0), ("doors/102", 1), ("flats/201", 3)] {
        let file = house.locks[at]["keys_file"].as_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let fields: Value = serde_json::from_str(&text).unwrap();
        secrets.extend(fields.as_object().unwrap().values().filter_map(|field| match field {
            Value::String(key) => Some(key.clone()),
            Value::Number(number) if 99_999 < number.as_u64().unwrap() => Some(number.to_string()),
            _ => None,
        }));
        is_told(house.told_with_radio(&["devices", "import", lock, &file]), "sealed");
        fs::remove_file(file).unwrap();
    }
    assert!(5 <= secrets.len(), "{secrets:?}");
    let listed = house.told_with_radio(&["devices", "list"]);
    assert_eq!(listed.1.matches("sealed").count(), 4, "{listed:?}");
    is_refused(house.told_with_radio(&["devices", "pair", "doors/901"]), "--replace");
    is_refused(house.told_with_radio(&["devices", "pair", "flats/201"]), "latchd devices import flats/201");
    is_refused(house.told_with_radio(&["devices", "pair", "doors/903"]), "it has: doors/101");

    house.start_agent();
    house.site.healthy();
    let puts = [
        ("doors", "901", "fresh-1", "246813"),
        ("doors", "101", "ttlock-1", "135724"),
        ("flats", "201", "august-1", "975310"),
    ];
    for (system, lock, label, pin) in puts {
        let put = house.put(system, lock, "guest", pin, (-60, 3600));
        house.reaches(&put, "succeeded");
        assert!(house.opens(label, pin), "{label}");
    }
    house.is_discreet(&puts.map(|(.., pin)| pin));

    // Neither a key nor a PIN is in any file of the site, the database and its log among them.
    let folder = house.site.folder.path().to_owned();
    let all = files(&folder);
    assert!(all.iter().any(|path| path.ends_with("agent/locks/doors.901.json")), "{all:?}");
    assert!(all.iter().any(|path| path.ends_with("agent/queue.db")), "{all:?}");
    for path in all {
        let bytes = fs::read(&path).unwrap();
        for secret in secrets.iter().map(String::as_str).chain(puts.map(|(.., pin)| pin)) {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds {secret}", path.display());
        }
    }
}

#[test]
fn a_pairing_that_breaks_off_is_carried_on_and_a_lock_that_was_set_back_is_paired_again() {
    let Some(mut house) = house() else { return };
    // The third frame makes the administrator: it is done, and the answer is lost.
    house.sim("lock fresh-1 fault drop_after 3");
    is_refused(house.told_with_radio(&["devices", "pair", "doors/901"]), "may be paired");
    is_told(house.told_with_radio(&["devices", "pair", "doors/901"]), "since the try before");
    // A stranger takes it over.
    house.sim("lock fresh-1 reset");
    house.start_agent();
    house.site.healthy();
    let put = house.put("doors", "901", "guest", "246813", (-60, 3600));
    let shown = house.reaches(&put, "failed");
    assert!(shown.to_string().contains("pair it again"), "{shown}");
    is_told(
        house.told_with_radio(&["devices", "pair", "doors/901", "--replace"]),
        "belongs to this site now",
    );
    // The running agent takes the new keys without being told.
    let put = house.put("doors", "901", "guest", "246814", (-60, 3600));
    house.reaches(&put, "succeeded");
    assert!(house.opens("fresh-1", "246814"));
}
