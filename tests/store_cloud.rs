//! The cloud's database, damaged: what can be read goes on, and what a tenant needs is never made anew in silence.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;

use latchd::{
    cloud::{
        keys,
        store::{Db, FILE},
    },
    seal::SealKey,
    seams::{Random, Storage},
    store::{Store, StoreError, mark_damaged},
};

fn key() -> SealKey {
    SealKey::new([7; 32], Random::seeded(1))
}

fn now() -> jiff::Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn founded() -> (tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::folder(folder.path());
    let mut db = Db::open(&storage, key(), Random::seeded(2)).unwrap();
    keys::home(&mut db, now(), "Hotel", folder.path(), &Random::seeded(3)).unwrap();
    (folder, storage)
}

fn sql(storage: &Storage, text: &str) {
    let mut db = Db::open(storage, key(), Random::seeded(2)).unwrap();
    db.connection().execute_batch(text).unwrap();
}

#[test]
fn a_damaged_database_keeps_its_workspace_and_its_keys() {
    let (folder, storage) = founded();
    let api_key = fs::read_to_string(folder.path().join("api-key")).unwrap();
    // A row whose parent is gone goes with it.
    sql(
        &storage,
        "PRAGMA foreign_keys=OFF; INSERT INTO site_condition VALUES ('w', 'nobody', 's', 'c', 'error', 'm', 1)",
    );
    mark_damaged(&storage, FILE, "seen").unwrap();
    let (mut db, salvage) = Db::open_or_salvage(&storage, key(), Random::seeded(2), now()).unwrap();
    let salvage = salvage.unwrap();
    assert_eq!(salvage.lost, 1, "{salvage:?}");
    let workspace = db.workspace().unwrap().unwrap();
    assert_eq!(db.workspace_by_key(keys::digest(api_key.trim())).unwrap(), Some(workspace));
    assert_eq!(db.workspace_name(workspace).unwrap(), "Hotel");
    assert!(salvage.aside.unwrap().exists());
}

#[test]
fn without_its_workspace_it_does_not_start_and_nothing_is_touched() {
    for lost in ["DELETE FROM api_key", "PRAGMA foreign_keys=OFF; DELETE FROM workspace"] {
        let (folder, storage) = founded();
        sql(&storage, lost);
        mark_damaged(&storage, FILE, "seen").unwrap();
        let before = fs::read(storage.file(FILE)).unwrap();
        for _ in 0..2 {
            let refused = Db::open_or_salvage(&storage, key(), Random::seeded(2), now()).unwrap_err();
            assert!(matches!(refused, StoreError::Unsalvageable { .. }), "{refused}");
            assert!(refused.to_string().contains("restore a backup"), "{refused}");
        }
        assert_eq!(fs::read(storage.file(FILE)).unwrap(), before);
        assert!(folder.path().join("api-key").exists());
    }
}

#[test]
fn an_empty_file_where_a_database_was_is_not_taken_for_a_first_start() {
    let (_folder, storage) = founded();
    fs::write(storage.file(FILE), b"").unwrap();
    let refused = Db::open_or_salvage(&storage, key(), Random::seeded(2), now()).unwrap_err();
    assert!(matches!(refused, StoreError::Unsalvageable { .. }), "{refused}");
}
