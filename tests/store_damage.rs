//! Databases that are damaged: found out, set aside, and saved as far as they can be read; never made anew in silence.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use latchd::{
    model::{Code, JobState, Outcome},
    protocol::{Message, Position},
    queue::{Accepted, FILE, JobFilter, Queue},
    seal::SealKey,
    seams::{Random, Storage},
    store::{Salvage, Store, StoreError, examine, mark_damaged, was_left_open},
};
use queue_support::*;

const PAGE: u64 = 4096;

/// A queue with jobs done, waiting and sent, closed in order.
fn filled(done: u128, waiting: u128) -> Site {
    let mut site = Site::new();
    site.commit(|queue| {
        for number in 1..=done {
            let job = job(number, card(&[&format!("{number}")], "stay"));
            let admitted = Ok(admission(&job.order));
            assert!(matches!(queue.accept(at(1), None, job, admitted, true).unwrap(), Accepted::Sent(_)));
            queue.finish(at(2), id(number), written()).unwrap();
        }
        for number in done + 1..=done + waiting {
            let job = job(number, read());
            let admitted = Ok(admission(&job.order));
            assert_eq!(queue.accept(at(3), None, job, admitted, false).unwrap(), Accepted::Waiting);
        }
    });
    site
}

fn close(site: Site) -> (tempfile::TempDir, Storage) {
    let Site { folder, storage, queue, .. } = site;
    drop(queue);
    assert!(!was_left_open(&storage, FILE));
    (folder, storage)
}

fn salvaged(storage: &Storage) -> (Queue, Salvage) {
    let random = Random::seeded(7);
    let key = SealKey::new([7; 32], random.clone());
    let (queue, salvage) = Queue::open_or_salvage(storage, key, random, rules(), at(1_700_000_000)).unwrap();
    (queue, salvage.expect("the damage is found"))
}

/// Overwrites leaf pages of a table, picked by `which`.
fn damage(storage: &Storage, table: &str, which: impl Fn(usize, usize) -> bool) -> usize {
    let file = storage.file(FILE);
    let connection = rusqlite::Connection::open(&file).unwrap();
    let pages: Vec<u64> = connection
        .prepare("SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' ORDER BY path")
        .unwrap()
        .query_map([table], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    connection.close().unwrap();
    let count = pages.len();
    let hit: Vec<u64> =
        pages.into_iter().enumerate().filter(|(at, _)| which(*at, count)).map(|(_, page)| page).collect();
    let file = fs::File::options().write(true).open(file).unwrap();
    for page in &hit {
        file.write_all_at(&[0xA5; PAGE as usize], (page - 1) * PAGE).unwrap();
    }
    hit.len()
}

/// Changes rows behind the back of an index, which keeps what was there before.
fn change_behind(storage: &Storage, index: &str, change: &str) {
    let connect = || rusqlite::Connection::open(storage.file(FILE)).unwrap();
    let schema = |sql: &str| {
        let connection = connect();
        connection.execute_batch(&format!("PRAGMA writable_schema=ON; {sql}")).unwrap();
        connection.close().unwrap();
    };
    schema(&format!(
        "CREATE TABLE kept AS SELECT * FROM sqlite_schema WHERE name = '{index}';
         DELETE FROM sqlite_schema WHERE name = '{index}'"
    ));
    connect().execute_batch(change).unwrap();
    schema("INSERT INTO sqlite_schema SELECT * FROM kept");
    connect().execute_batch("DROP TABLE kept").unwrap();
}

fn asides(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    // Whoever reads a database leaves an empty log beside it.
    let is_one = |name: &str| name.contains(".damaged-") && !name.ends_with("-wal");
    files.filter(|path| is_one(&path.to_string_lossy())).collect()
}

#[test]
fn pages_that_cannot_be_read_cost_their_own_rows_and_no_others() {
    let (folder, storage) = close(filled(200, 300));
    // Two places apart, and not at the ends.
    let hit = damage(&storage, "job", |at, count| at == count / 4 || at == count / 2);
    assert_eq!(hit, 2);
    let what = examine(&storage, FILE).unwrap().expect("it is damaged");
    // Opening alone does not stumble over it: it is the mark that keeps anybody from going on with it.
    drop(open(&storage, &rules()));
    mark_damaged(&storage, FILE, &what).unwrap();
    let (mut queue, salvage) = salvaged(&storage);

    assert_eq!(asides(folder.path()), [salvage.aside.clone().unwrap()]);
    assert_eq!(salvage.aside.as_ref().unwrap().file_name().unwrap(), "queue.db.damaged-20231114T221320Z");
    let jobs = queue.jobs(JobFilter { limit: 1000, ..JobFilter::default() }).unwrap();
    let lost = 500 - jobs.len();
    assert!((2..80).contains(&lost), "two pages hold a few jobs each: {lost} of 500 are lost");
    assert!(salvage.lost >= u64::try_from(lost).unwrap(), "{salvage:?}");
    // What was unfinished is in doubt, and every one of them is reported.
    let unknown = jobs.iter().filter(|job| job.state == JobState::Unknown).count();
    assert!(jobs.iter().all(|job| matches!(job.state, JobState::Unknown | JobState::Succeeded)));
    assert!(unknown > 200 && jobs.iter().any(|job| job.state == JobState::Succeeded));
    let Some(Outcome::Unknown(why)) = queue.job(id(500)).unwrap().unwrap().outcome else { panic!() };
    assert_eq!(why.code, Code::MemoryRestored);
    let counts = queue.counts().unwrap();
    assert_eq!(counts.by_state.get(&JobState::Waiting).copied().unwrap_or(0), 0, "lost jobs do not wait");
    assert_eq!(counts.by_state[&JobState::Unknown], u64::try_from(unknown).unwrap());
    let reports = queue.reports_after(Position::default(), 2000).unwrap();
    let doubts = reports
        .iter()
        .filter(|(_, report)| matches!(report, Message::Outcome(report) if report.at == at(1_700_000_000)));
    assert_eq!(doubts.count(), unknown);
    assert!(queue.rooms(None).unwrap().iter().all(|room| !room.certain));
    assert!(queue.is_restored().unwrap());
    let audited: Vec<_> = queue.audit(10).unwrap().into_iter().map(|entry| entry.what).collect();
    assert_eq!(audited[..2], ["store_salvaged", "memory_restored"]);

    // It goes on, and the next start finds nothing to save.
    let next = job(9_000, read());
    let admitted = Ok(admission(&next.order));
    assert!(matches!(queue.accept(at(9), None, next, admitted, true).unwrap(), Accepted::Sent(_)));
    drop(queue);
    assert_eq!(examine(&storage, FILE).unwrap(), None);
    drop(open(&storage, &rules()));
}

#[test]
fn the_end_and_the_beginning_of_a_table_can_be_lost_by_themselves() {
    for at_end in [false, true] {
        let (_folder, storage) = close(filled(0, 300));
        damage(&storage, "job", |at, count| at == if at_end { count - 1 } else { 0 });
        mark_damaged(&storage, FILE, "seen").unwrap();
        let (queue, _) = salvaged(&storage);
        let kept = queue.jobs(JobFilter { limit: 1000, ..JobFilter::default() }).unwrap().len();
        assert!((250..300).contains(&kept), "{kept}");
        let survivor = if at_end { 1 } else { 300 };
        assert!(queue.job(id(survivor)).unwrap().is_some());
    }
}

#[test]
fn a_row_that_does_not_open_any_more_stands_in_nobodys_way() {
    let mut site = filled(3, 3);
    let sql = "UPDATE job SET body = x'0102' WHERE id = 5; UPDATE room SET body = x'01' WHERE room = '2';
               UPDATE report SET body = x'01' WHERE n = 2";
    site.commit(|queue| latchd::store::Store::connection(queue).execute_batch(sql).unwrap());
    let (_folder, storage) = close(site);
    mark_damaged(&storage, FILE, "seen").unwrap();
    let (queue, salvage) = salvaged(&storage);
    assert_eq!(salvage.lost, 3);
    let states: Vec<_> = (1..=6).map(|number| queue.job(id(number)).unwrap().unwrap().view.state).collect();
    let (done, doubt) = (JobState::Succeeded, JobState::Unknown);
    assert_eq!(states, [done, done, done, doubt, doubt, doubt]);
    assert_eq!(queue.rooms(None).unwrap().len(), 2);
    assert_eq!(queue.reports_after(Position::default(), 100).unwrap().len(), 2 + 3);
}

#[test]
fn another_key_is_no_damage_and_nothing_is_thrown_away_for_it() {
    let (folder, storage) = close(filled(3, 3));
    mark_damaged(&storage, FILE, "seen").unwrap();
    let before = fs::read(storage.file(FILE)).unwrap();
    let random = Random::seeded(1);
    let other = SealKey::new([8; 32], random.clone());
    let refused = Queue::open_or_salvage(&storage, other, random, rules(), at(9)).unwrap_err();
    assert!(matches!(refused, StoreError::Sealed(_)), "{refused}");
    assert_eq!(fs::read(storage.file(FILE)).unwrap(), before);
    assert!(asides(folder.path()).is_empty());
}

#[test]
fn a_file_that_is_none_or_empty_is_set_aside_and_the_cloud_hears_of_it() {
    for text in
        [&b"this was once a database, and is a letter now, longer than a header is, by a good deal"[..], b""]
    {
        let (folder, storage) = close(filled(1, 1));
        fs::write(storage.file(FILE), text).unwrap();
        let (queue, salvage) = salvaged(&storage);
        assert_eq!((salvage.kept, queue.is_restored().unwrap()), (0, true));
        assert_eq!(fs::read(&asides(folder.path())[0]).unwrap(), text);
        assert_eq!(queue.memory().unwrap().orders_received, Position::LOST);
    }
}

#[test]
fn a_first_page_that_is_lost_costs_nothing_else() {
    for spoilt in [0x00, 0xA5] {
        let (folder, storage) = close(filled(20, 30));
        let file = fs::File::options().write(true).open(storage.file(FILE)).unwrap();
        file.write_all_at(&[spoilt; PAGE as usize], 0).unwrap();
        let (queue, salvage) = salvaged(&storage);
        assert_eq!(salvage.lost, 0, "{salvage:?}");
        let counts = queue.counts().unwrap().by_state;
        assert_eq!((counts[&JobState::Succeeded], counts[&JobState::Unknown]), (20, 30));
        assert_eq!(queue.rooms(None).unwrap().len(), 20);
        let left =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        assert!(!left.into_iter().any(|name| name.contains(".patched") || name.contains(".new")));
    }
}

#[test]
fn the_row_without_which_nothing_goes_is_put_back() {
    let mut site = filled(2, 1);
    site.commit(|queue| latchd::store::Store::connection(queue).execute_batch("DELETE FROM memory").unwrap());
    let (_folder, storage) = close(site);
    let (queue, salvage) = salvaged(&storage);
    assert!(salvage.why.contains("positions"), "{}", salvage.why);
    let reports = queue.reports_after(Position::default(), 100).unwrap();
    assert_eq!(reports.len(), 3);
    assert!(queue.memory().unwrap().reports.last.n == 3 && queue.memory().unwrap().reports.last.epoch > 1);
}

#[test]
fn what_was_in_the_log_alone_is_saved_too() {
    // As a killed process leaves it: nearly everything is in the log.
    let site = filled(0, 50);
    let copy = tempfile::tempdir().unwrap();
    for file in [FILE, "queue.db-wal"] {
        fs::copy(site.storage.file(file), copy.path().join(file)).unwrap();
    }
    let storage = Storage::folder(copy.path());
    assert!(was_left_open(&storage, FILE));
    mark_damaged(&storage, FILE, "seen").unwrap();
    let (queue, salvage) = salvaged(&storage);
    assert_eq!(salvage.lost, 0);
    assert_eq!(queue.counts().unwrap().by_state[&JobState::Unknown], 50);
    let aside = salvage.aside.unwrap().display().to_string();
    assert!(fs::metadata(format!("{aside}-wal")).unwrap().len() > 0);
}

#[test]
fn a_newer_schema_is_no_damage() {
    let mut site = filled(1, 0);
    site.commit(|queue| {
        latchd::store::Store::connection(queue).execute_batch("PRAGMA user_version=99").unwrap();
    });
    let (folder, storage) = close(site);
    mark_damaged(&storage, FILE, "seen").unwrap();
    let random = Random::seeded(7);
    let key = SealKey::new([7; 32], random.clone());
    let refused = Queue::open_or_salvage(&storage, key, random, rules(), at(9)).unwrap_err();
    assert!(matches!(refused, StoreError::Newer { found: 99, .. }), "{refused}");
    assert!(asides(folder.path()).is_empty());
}

#[test]
fn an_index_of_timers_that_names_jobs_without_one_is_damage_and_no_endless_timer() {
    let mut site = Site::new();
    assert_eq!(site.accept(0, job(1, put("a", 1, 1000, Some(2000))), true), Accepted::Waiting);
    let (_folder, storage) = close(site);
    change_behind(&storage, "job_due", "UPDATE job SET due_at = NULL");
    let mut queue = open(&storage, &rules());
    assert_eq!(queue.next_due().unwrap(), Some(at(1000 - LEAD)));
    let error = queue.come_due(at(1000)).unwrap_err();
    assert!(error.is_damage(), "{error}");
}

#[test]
fn an_index_of_what_waits_that_names_a_job_at_work_is_damage_and_no_endless_search() {
    let mut site = Site::new();
    site.send(0, job(1, card(&["101"], "stay")));
    assert_eq!(site.accept(0, job(2, card(&["101"], "stay")), false), Accepted::Waiting);
    site.commit(|queue| queue.finish(at(1), id(1), written())).unwrap();
    let (_folder, storage) = close(site);
    // The job's own row and its room are of the moment after it was begun, the index is of the one before.
    let mut queue = open(&storage, &rules());
    assert!(queue.claim(at(2), &lane("1")).unwrap().is_some());
    queue.connection().execute_batch("UPDATE job SET state = 'waiting' WHERE state = 'sent'").unwrap();
    drop(queue);
    change_behind(&storage, "job_waiting", "UPDATE job SET state = 'sent' WHERE state = 'waiting'");
    let mut queue = open(&storage, &rules());
    let error = queue.claim(at(3), &lane("1")).unwrap_err();
    assert!(error.is_damage(), "{error}");
}
