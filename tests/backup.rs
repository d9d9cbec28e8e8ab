//! Backups of a property that works, and what happens when an older one is put back: nothing is lost that was
//! acknowledged before the copy began, and nothing is done twice for what was done after it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;
#[path = "road/site.rs"]
#[expect(dead_code, unreachable_pub, reason = "the property of the road's tests, of which this uses a part")]
mod site;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Output,
};

use latchd::{
    protocol::Position,
    queue::{Accepted, FILE, Queue, QueueReader, Rules},
    seal::SealKey,
    seams::{Random, Storage},
    store::{Writer, back_up, restore},
};
use serde_json::{Value, json};
use site::{Site, latchd, until};

fn run(words: &[&str], files: &[&Path]) -> Output {
    latchd().args(words).args(files).output().unwrap()
}

fn fine(output: Output) -> String {
    let (told, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{told}{error}");
    told
}

fn refused(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn agent_toml(site: &Site) -> PathBuf {
    site.folder.path().join("agent.toml")
}

fn cloud_toml(site: &Site) -> PathBuf {
    site.folder.path().join("cloud.toml")
}

fn agent_backup(site: &Site, to: &Path) -> Output {
    run(&["backup", "--config"], &[&agent_toml(site), Path::new("--to"), to])
}

fn agent_restore(site: &Site, from: &Path) -> Output {
    run(&["restore", "--config"], &[&agent_toml(site), from])
}

fn cloud_backup(site: &Site, to: &Path) -> Output {
    run(&["cloud", "backup", "--config"], &[&cloud_toml(site), Path::new("--to"), to])
}

fn cloud_restore(site: &Site, from: &Path) -> Output {
    run(&["cloud", "restore", "--config"], &[&cloud_toml(site), from])
}

/// The agent's queue, for looking.
fn queue(site: &Site) -> QueueReader {
    let folder = site.folder.path().join("agent");
    let key = SealKey::from_file(&folder.join("seal.key"), Random::seeded(1)).unwrap();
    QueueReader::open(&Storage::folder(folder), key, Random::seeded(1), Rules::default()).unwrap()
}

fn condition(site: &Site, code: &str) -> Value {
    until(code, || {
        let status = site.status();
        let conditions = status["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["code"] == code)
    })
}

fn no_reports_wait(site: &Site) {
    until("every report is acknowledged", || (site.status()["unacknowledged"] == 0).then_some(()));
}

#[test]
fn a_backup_under_load_holds_all_that_was_acknowledged_before_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::folder(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (writer, handle) = Writer::start("queue", queue_support::open(&storage, &queue_support::rules()));
    let (told, acknowledged) = std::sync::mpsc::channel();
    let load = std::thread::spawn(move || {
        runtime.block_on(async {
            for number in 1..=u64::MAX {
                let job = queue_support::job(number.into(), queue_support::read());
                let admission = queue_support::admission(&job.order);
                let position = Some(Position { epoch: 1, n: number });
                let taken = handle
                    .run(move |queue: &mut Queue| {
                        queue.accept(queue_support::at(1), position, job, Ok(admission), false)
                    })
                    .await
                    .unwrap();
                assert!(matches!(taken, Accepted::Waiting | Accepted::Ended(_)));
                if told.send(number).is_err() {
                    return;
                }
            }
        });
    });
    let mut last = 0;
    for round in 0..5 {
        while last < (round + 1) * 50 {
            last = acknowledged.recv().unwrap();
        }
        last = acknowledged.try_iter().last().unwrap_or(last);
        let copy = folder.path().join(format!("copy-{round}"));
        back_up(&storage, FILE, &copy).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let there = Storage::folder(elsewhere.path());
        fs::rename(copy, there.file(FILE)).unwrap();
        let copied = queue_support::open(&there, &queue_support::rules());
        let held = copied.memory().unwrap().orders_received.n;
        assert!(held >= last, "{held} of {last}");
        let jobs = copied.counts().unwrap().by_state.values().sum::<u64>();
        assert_eq!(jobs, held, "of one moment");
        last = held;
    }
    drop(acknowledged);
    load.join().unwrap();
    writer.join();
}

#[test]
fn what_an_older_backup_forgot_is_not_done_again() {
    let mut site = Site::start();
    let copy = site.folder.path().join("queue.backup");
    site.card("jane", "stay-1", &["101"]);
    no_reports_wait(&site);
    // Under way at the moment of the copy, and done afterwards.
    let (_, method) = site.grant("Ada", "stay-2", &["102"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    let told = fine(agent_backup(&site, &copy));
    assert!(told.contains("seal.key"), "{told}");
    let again = refused(agent_backup(&site, &copy));
    assert!(again.contains("is there already"), "{again}");
    site.control("place ada on 1");
    assert_eq!(site.ended(&attempt)["status"], "success");
    site.control("remove 1");
    // Of this one the copy knows nothing.
    site.card("bob", "stay-3", &["103"]);
    no_reports_wait(&site);
    assert_eq!(site.writing_frames(), 3);

    let busy = refused(agent_restore(&site, &copy));
    assert!(busy.contains("in use by another latchd"), "{busy}");
    site.agent().signal(rustix::process::Signal::TERM);
    assert_eq!(site.agent().ended(), Some(0));
    let told = fine(agent_restore(&site, &copy));
    assert!(told.contains("1 jobs were under way") && told.contains("queue.db.replaced-"), "{told}");
    site.restart_agent();
    site.healthy();
    assert!(condition(&site, "memory_behind")["message"].as_str().unwrap().contains("restored backup"));
    no_reports_wait(&site);
    assert_eq!(site.writing_frames(), 3, "nothing was done again");
    assert_eq!(site.jobs("unknown"), Some(1));
    let memory = queue(&site).memory().unwrap();
    assert_eq!(memory.orders_received.epoch, 2, "the cloud began a new epoch");
    assert!(memory.reports.last.epoch > 1, "and so did the agent: {memory:?}");
    // The doubt of one that forgot takes back nothing that the cloud was told before.
    assert_eq!(site.ended(&attempt)["status"], "success");
    // Whose stay a room follows is not known any more, so a further card is refused before any byte.
    let (_, further) = site.grant("Jane", "stay-1", &["101"]);
    let ended = site.ended(&site.encode(&further, "1"));
    assert!(ended["error"]["message"].as_str().unwrap().contains("room_state_unknown"), "{ended}");
    // It works: a new stay begins.
    site.card("eve", "stay-9", &["105"]);
    assert_eq!(site.writing_frames(), 4);
}

#[test]
fn an_order_whose_end_the_cloud_never_heard_of_is_not_done_again_either() {
    let mut site = Site::without_agent();
    let copy = site.folder.path().join("queue.backup");
    let gate = site::Gate::new(&site, "cloud-gate");
    site.restart_cloud_with(|command| gate.on(command));
    site.start_agent();
    site.healthy();
    fine(agent_backup(&site, &copy));
    let (_, method) = site.grant("Jane", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    // From here on the cloud makes nothing durable: it never hears how this ended.
    gate.close();
    site.control("place jane on 1");
    until("the card is made", || (site.jobs("succeeded") == Some(1)).then_some(()));
    site.agent().kill();
    site.cloud().kill();
    gate.open();
    fine(agent_restore(&site, &copy));
    site.restart_cloud();
    site.start_agent();
    site.healthy();
    let ended = site.ended(&attempt);
    assert_eq!(site.writing_frames(), 1, "{ended}");
    assert!(ended["status"] == "success" || ended["error"]["type"] == "encoding_interrupted", "{ended}");
}

#[test]
fn what_is_no_backup_of_this_queue_is_refused_and_nothing_is_touched() {
    let mut site = Site::start();
    site.card("jane", "stay-1", &["101"]);
    let copy = site.folder.path().join("queue.backup");
    fine(agent_backup(&site, &copy));
    site.agent().signal(rustix::process::Signal::TERM);
    assert_eq!(site.agent().ended(), Some(0));
    let folder = site.folder.path().join("agent");
    let before = fs::read(folder.join(FILE)).unwrap();

    let letter = site.folder.path().join("letter");
    fs::write(&letter, "Dear guest, this is a letter and not a database.").unwrap();
    assert!(refused(agent_restore(&site, &letter)).contains("it is not a database"));

    let torn = site.folder.path().join("torn");
    let whole = fs::read(&copy).unwrap();
    let mut bytes = whole.clone();
    let at = bytes.len() / 2 / 4096 * 4096;
    bytes[at..at + 4096].fill(0xA5);
    fs::write(&torn, bytes).unwrap();
    let error = refused(agent_restore(&site, &torn));
    assert!(error.contains("torn"), "{error}");

    let others = site.folder.path().join("others");
    fine(cloud_backup(&site, &others));
    let error = refused(agent_restore(&site, &others));
    assert!(error.contains("others"), "{error}");

    let key = folder.join("seal.key");
    let kept = fs::read(&key).unwrap();
    fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
    let error = refused(agent_restore(&site, &copy));
    assert!(error.contains("wrong key") && error.contains("seal.key"), "{error}");
    fs::remove_file(&key).unwrap();
    let error = refused(agent_restore(&site, &copy));
    assert!(error.contains("there is no seal key"), "{error}");

    assert_eq!(fs::read(folder.join(FILE)).unwrap(), before);
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    let left: Vec<_> = names.iter().filter(|name| name.to_string_lossy().contains(".new")).collect();
    assert!(left.is_empty(), "{left:?}");

    // With the key at hand it is taken, and belongs to whom the folder belongs.
    let elsewhere = site.folder.path().join("kept.key");
    latchd::seal::write_private(&elsewhere, &kept).unwrap();
    let owner = rustix::process::geteuid().is_root().then_some(1234);
    std::os::unix::fs::chown(&folder, owner, owner).unwrap();
    let with_key = [&agent_toml(&site), Path::new("--key-file"), &elsewhere, &copy];
    fine(run(&["restore", "--config"], &with_key));
    let (of_folder, of_file) = (fs::metadata(&folder).unwrap(), fs::metadata(folder.join(FILE)).unwrap());
    assert_eq!((of_folder.uid(), of_folder.gid()), (of_file.uid(), of_file.gid()));
    assert_eq!(of_file.mode() & 0o777, 0o600);
}

#[test]
fn a_cloud_that_was_set_back_is_told_how_things_ended_and_orders_nothing_twice() {
    let mut site = Site::start();
    let copy = site.folder.path().join("cloud.backup");
    site.card("jane", "stay-1", &["101"]);
    // Ordered and under way at the moment of the copy, done afterwards.
    let (_, method) = site.grant("Ada", "stay-2", &["102"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    let told = fine(cloud_backup(&site, &copy));
    for name in ["seal.key", "api-key", "ca.key", "bridges-ca.key"] {
        assert!(told.contains(name), "{name}: {told}");
    }
    site.control("place ada on 1");
    assert_eq!(site.ended(&attempt)["status"], "success");
    site.control("remove 1");
    // Nothing of this one is in the copy.
    let (_, later) = site.card("bob", "stay-3", &["103"]);
    no_reports_wait(&site);

    let busy = refused(cloud_restore(&site, &copy));
    assert!(busy.contains("in use by another latchd"), "{busy}");
    site.cloud().signal(rustix::process::Signal::TERM);
    assert_eq!(site.cloud().ended(), Some(0));
    let told = fine(cloud_restore(&site, &copy));
    assert!(told.contains("1 orders are unfinished"), "{told}");
    site.restart_cloud();
    site.healthy();
    // The order goes out again, and the bridge says what it knows.
    let ended = site.ended(&attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(site.writing_frames(), 3, "nothing was done again");
    let (status, _) = site.call("/access_methods/get", json!({ "access_method_id": later }));
    assert_eq!(status, 404, "what was ordered after the copy is forgotten");
    condition(&site, "cloud_behind");
    no_reports_wait(&site);
    let memory = queue(&site).memory().unwrap();
    assert_eq!((memory.orders_received.epoch, memory.reports.last.epoch), (2, 2), "both streams began anew");
    let certain = queue(&site).rooms(None).unwrap().iter().all(|room| room.certain);
    assert!(certain, "the agent has forgotten nothing");
    site.card("eve", "stay-9", &["105"]);
    assert_eq!(site.writing_frames(), 4);
}

#[test]
fn a_queue_that_turns_out_to_be_damaged_is_saved_by_the_next_start() {
    let mut site = Site::start();
    for (number, room) in ["101", "102", "103"].iter().enumerate() {
        site.card(&format!("card{number}"), &format!("stay-{number}"), &[room]);
    }
    no_reports_wait(&site);
    site.agent().kill();
    let file = site.folder.path().join("agent").join(FILE);
    // Folded back, so that the page that is spoilt below is the one that is read.
    let connection = rusqlite::Connection::open(&file).unwrap();
    let page: i64 = connection
        .query_row("SELECT max(pageno) FROM dbstat WHERE name = 'audit_at' OR name = 'stay'", [], |row| {
            row.get(0)
        })
        .unwrap();
    connection.close().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let from = usize::try_from(page - 1).unwrap() * 4096;
    bytes[from..from + 4096].fill(0xA5);
    fs::write(&file, bytes).unwrap();
    // As after a kill: a log that is not empty makes the start look.
    fs::write(file.with_file_name(format!("{FILE}-wal")), [0; 64]).unwrap();

    site.start_agent();
    assert_eq!(site.agent().ended(), Some(1), "{}", site.agent().errors());
    assert!(site.agent().errors().contains("is damaged"), "{}", site.agent().errors());
    site.restart_agent();
    site.healthy();
    let told = condition(&site, "store_salvaged");
    assert!(told["message"].as_str().unwrap().contains("queue.db.damaged-"), "{told}");
    condition(&site, "memory_behind");
    assert_eq!(site.jobs("succeeded"), Some(3));
    assert_eq!(site.writing_frames(), 3);
    site.card("eve", "stay-9", &["105"]);
}

#[test]
fn restoring_twice_is_never_mistaken_for_having_gone_on() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::folder(folder.path());
    drop(queue_support::open(&storage, &queue_support::rules()));
    let copy = folder.path().join("copy");
    back_up(&storage, FILE, &copy).unwrap();
    let key = || SealKey::new([7; 32], Random::seeded(7));
    let mut epochs = Vec::new();
    for second in [1_800_000_000, 1_800_000_100] {
        let now = queue_support::at(second);
        let (_, restored) = Queue::restore(&storage, key(), Random::seeded(7), &copy, now).unwrap();
        epochs.push(restored.reports_epoch);
    }
    assert!(epochs[1] > epochs[0] && epochs[0] > 1, "{epochs:?}");
    // A crash before the copy took the place leaves everything as it was.
    let gone = restore(&storage, FILE, &[""], &copy, queue_support::at(1), |_| {
        Err::<(_, ()), _>(latchd::store::StoreError::Stopped)
    });
    assert!(gone.is_err());
    assert_eq!(
        queue_support::open(&storage, &queue_support::rules()).memory().unwrap().reports.last.epoch,
        epochs[1]
    );
}
