//! What survives on a disk in memory.

use rusqlite::Connection;

use super::*;

const TABLE: &str = "CREATE TABLE t(x INTEGER, filler BLOB)";

fn open(disk: &Disk) -> Connection {
    crate::store::open(&disk.storage(), "t.db", &[TABLE]).unwrap()
}

fn rows(connection: &Connection) -> Vec<i64> {
    let check: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let mut statement = connection.prepare("SELECT x FROM t ORDER BY x").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(|row| row.unwrap()).collect()
}

/// Commits rows until the disk dies, cuts the power, and opens it again, many times over. Gives how many rows were
/// acknowledged and lost.
fn lost(synchronous: &str, cuts: u64, seed: u64) -> usize {
    let random = Random::seeded(seed);
    let disk = Disk::new().unwrap();
    let (mut next, mut acknowledged, mut lost) = (0, Vec::new(), 0);
    for _ in 0..cuts {
        disk.die_after(random.below(200));
        let _died = (|| -> Result<(), crate::store::StoreError> {
            let connection = crate::store::open(&disk.storage(), "t.db", &[TABLE])?;
            connection.execute_batch(&format!("PRAGMA synchronous={synchronous}"))?;
            loop {
                next += 1;
                let filler = vec![7_u8; random.below(3000) as usize];
                connection.execute("INSERT INTO t VALUES(?1, ?2)", (next, filler))?;
                acknowledged.push(next);
                if random.below(20) == 0 {
                    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
                }
            }
        })();
        assert!(disk.is_dead());
        let cut = [Cut::Power, Cut::PowerAndCache, Cut::Killed][random.below(3) as usize];
        disk.cut(cut, &random);
        let found = rows(&open(&disk));
        let gone: Vec<i64> = acknowledged.iter().filter(|row| !found.contains(row)).copied().collect();
        lost += gone.len();
        // What was not acknowledged may have been committed all the same: the answer was lost, the work not.
        acknowledged = found;
    }
    lost
}

#[test]
fn what_full_acknowledged_survives_a_thousand_power_cuts() {
    assert_eq!((0..20).map(|seed| lost("FULL", 50, seed)).sum::<usize>(), 0);
}

#[test]
fn what_normal_acknowledged_does_not() {
    assert!(lost("NORMAL", 50, 1) > 0, "the disk loses nothing at all");
}

#[test]
fn a_killed_process_loses_nothing_and_its_files_are_of_no_use_any_more() {
    let disk = Disk::new().unwrap();
    let connection = open(&disk);
    connection.execute_batch("PRAGMA synchronous=OFF; INSERT INTO t VALUES(1, NULL)").unwrap();
    disk.cut(Cut::Killed, &Random::seeded(1));
    assert!(connection.execute("INSERT INTO t VALUES(2, NULL)", []).is_err());
    assert_eq!(rows(&open(&disk)), [1]);
    drop(connection);
    assert_eq!(rows(&open(&disk)), [1]);
}

#[test]
fn a_full_disk_says_so_and_works_again_when_it_has_room() {
    let disk = Disk::new().unwrap();
    let connection = open(&disk);
    disk.limit(Some(disk.used()));
    let full = connection.execute("INSERT INTO t VALUES(1, zeroblob(100000))", []).unwrap_err();
    assert_eq!(full.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
    disk.limit(None);
    connection.execute("INSERT INTO t VALUES(2, zeroblob(100000))", []).unwrap();
    assert_eq!(rows(&connection), [2]);
}

#[test]
fn a_failed_sync_is_told() {
    let disk = Disk::new().unwrap();
    let connection = open(&disk);
    disk.fail_syncs(1);
    assert!(connection.execute("INSERT INTO t VALUES(1, NULL)", []).is_err());
    connection.execute("INSERT INTO t VALUES(2, NULL)", []).unwrap();
    assert_eq!(rows(&connection), [2]);
}

#[test]
fn a_reader_beside_the_writer_sees_what_is_committed() {
    let disk = Disk::new().unwrap();
    let connection = open(&disk);
    let reader = crate::store::open_reader(&disk.storage(), "t.db").unwrap();
    let count = || -> i64 { reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap() };
    connection.execute_batch("BEGIN; INSERT INTO t VALUES(1, NULL)").unwrap();
    assert_eq!(count(), 0);
    connection.execute_batch("COMMIT").unwrap();
    assert_eq!(count(), 1);
}

#[test]
fn a_copy_put_back_is_the_disk_of_that_moment() {
    let disk = Disk::new().unwrap();
    let connection = open(&disk);
    connection.execute("INSERT INTO t VALUES(1, NULL)", []).unwrap();
    let image = disk.image();
    connection.execute("INSERT INTO t VALUES(2, NULL)", []).unwrap();
    disk.restore(&image);
    assert_eq!(rows(&open(&disk)), [1]);
}

#[test]
fn a_disk_that_nobody_has_is_gone() {
    let number = {
        let disk = Disk::new().unwrap();
        drop(open(&disk));
        disk.0.number
    };
    assert!(!disks().contains_key(&number));
}

#[test]
fn a_file_that_takes_up_room_gives_it_back() {
    let disk = Disk::new().unwrap();
    let storage = disk.storage();
    disk.limit(Some(100));
    assert_eq!(storage.fill("f", 101).unwrap_err().kind(), io::ErrorKind::StorageFull);
    storage.remove("f").unwrap();
    storage.fill("f", 100).unwrap();
    assert_eq!((storage.size("f").unwrap(), storage.free_bytes().unwrap()), (Some(100), 0));
    storage.remove("f").unwrap();
    assert_eq!((storage.size("f").unwrap(), storage.free_bytes().unwrap()), (None, 100));
    assert_eq!(storage.remove("f").unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_file_that_was_removed_may_be_there_again_after_a_power_cut() {
    let disk = Disk::new().unwrap();
    let storage = disk.storage();
    storage.fill("f", 100).unwrap();
    drop(open(&disk));
    storage.remove("f").unwrap();
    disk.cut(Cut::PowerAndCache, &Random::seeded(1));
    assert_eq!(storage.size("f").unwrap(), Some(100));
}
