//! The pretend locks over real sockets, and what they keep.

use std::{path::Path, sync::Arc, time::Duration};

use latchd::{
    config::{LockConfig, SimLockConfig},
    drivers::{
        Driver, Performed,
        sim_lock::{
            SimLock,
            sim::{Front, House, Options, Settings, Simulator},
        },
    },
    model::{Outcome, SystemName},
    seams::{Clock, SystemNet},
    sim::control::Client,
};

use crate::house::{front, put, stay, unlock};

#[tokio::test]
async fn locks_are_reached_by_tcp_and_told_things_at_one_socket() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::new(3, &Settings::default(), None, &Clock::system()).unwrap();
    let options = Options { folder: folder.path().join("run"), tcp: "127.0.0.1:0".parse().unwrap() };
    let open = Front::open(house, &SystemNet, &options).await.unwrap();
    let places = open.places().clone();
    assert_eq!(
        places.locks.iter().map(|lock| lock.name.as_str()).collect::<Vec<_>>(),
        ["lock-1", "lock-2", "lock-3"]
    );
    let config = SimLockConfig {
        locks: vec![LockConfig::new(front(), places.locks[1].address.to_string())],
        lead: Duration::ZERO,
        answer_timeout: Duration::from_secs(20),
        read_events_every: None,
    };
    let system = SystemName::new("locks").unwrap();
    let oslo = jiff::tz::TimeZone::get("Europe/Oslo").unwrap();
    let driver = SimLock::start_over(Arc::new(SystemNet), &config, system, oslo, Clock::system());
    for work in [put(stay()), unlock()] {
        let performed = driver.perform(work, &|_| {}).await;
        assert!(matches!(performed, Performed::Ended(Outcome::Succeeded(_))), "{performed:?}");
    }
    let mut client = Client::connect(&places.control).await.unwrap();
    assert_eq!(client.send("at lock-2 ledger").await.unwrap()["ledger"][2]["what"], "unlocked");
    assert_eq!(client.send("table").await.unwrap()["table"].as_array().unwrap().len(), 0, "the first one's");
    assert_eq!(client.send("locks").await.unwrap()["locks"].as_array().unwrap().len(), 3);
    for wrong in [
        "at lock-9 table",
        "at lock-1",
        "sing",
        "fault sing",
        "fault slow",
        "wait requests",
        "clock set noon",
    ] {
        assert!(client.send(wrong).await.is_err(), "{wrong}");
    }
    let late = client.send("wait slot never within 1").await.unwrap_err().to_string();
    assert!(late.contains("did not happen"), "{late}");
    let section = client.send("agent-config").await.unwrap()["toml"].as_str().unwrap().to_owned();
    let text = format!(
        "[site]\nname = \"House\"\ntime_zone = \"Europe/Oslo\"\n[cloud]\nurl = \"wss://localhost:1\"\n\
         [storage]\nfolder = \"s\"\n{section}"
    );
    let config = latchd::config::AgentConfig::from_toml(Path::new("/latchd.toml"), &text).unwrap();
    assert_eq!(config.systems[0].door_count(), 3);
    client.send("quit").await.unwrap();
    open.ended().await;
    open.close().await;
    assert!(!places.control.exists());
}

fn kept(folder: &Path) -> Simulator {
    let settings = Settings { journal: Some(folder.join("lock-1.journal")), ..Settings::default() };
    Simulator::new(&settings, Clock::simulated("2026-11-20T08:00:00Z".parse().unwrap())).unwrap()
}

async fn tell(lock: &Simulator, command: &str) -> serde_json::Value {
    lock.command(command).await.unwrap()
}

/// Puts by hand, without a driver.
async fn put_by_hand(lock: &Simulator, key: &str, pin: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut ours, theirs) = tokio::io::duplex(4096);
    let serving = tokio::spawn({
        let lock = lock.clone();
        async move { lock.serve(theirs).await }
    });
    let job = crate::house::JOB;
    let body = format!("1 PUT {job} {key} PIN {pin} 20261120T000000 - 1");
    ours.write_all(&crate::house::frame(&body)).await.unwrap();
    let mut answer = [0; 6];
    ours.read_exact(&mut answer).await.unwrap();
    drop(ours);
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_lock_holds_survives_its_restart_and_a_torn_line_loses_only_that_deed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("lock-1.journal");
    let lock = kept(folder.path());
    put_by_hand(&lock, "a", "1111").await;
    put_by_hand(&lock, "b", "2222").await;
    assert_eq!(tell(&lock, "use 1111").await["key"], "a");
    let (table, ledger) = (tell(&lock, "table").await, tell(&lock, "ledger").await);
    drop(lock);
    let lock = kept(folder.path());
    assert_eq!((tell(&lock, "table").await, tell(&lock, "ledger").await), (table, ledger));
    drop(lock);

    // Torn inside the last line: the door's opening is forgotten, the entries are not.
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, &text[..text.len() - 9]).unwrap();
    let lock = kept(folder.path());
    assert_eq!((lock.done("opened", None), lock.done("put", None)), (0, 2));
    put_by_hand(&lock, "c", "3333").await;
    drop(lock);
    let lock = kept(folder.path());
    assert_eq!(tell(&lock, "table").await["table"].as_array().unwrap().len(), 3);
    tell(&lock, "clear").await;
    drop(lock);
    let lock = kept(folder.path());
    assert!(tell(&lock, "table").await["table"].as_array().unwrap().is_empty());
    assert_eq!((lock.done("begun", None), lock.done("put", None)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn names_and_addresses_that_cannot_be_are_refused() {
    let zone = Settings { time_zone: "Oslo".into(), ..Settings::default() };
    let refused = Simulator::new(&zone, Clock::system()).unwrap_err().to_string();
    assert!(refused.contains("\"Oslo\""), "{refused}");
    let folder = tempfile::tempdir().unwrap();
    let journal = Settings { journal: Some(folder.path().join("no/where")), ..Settings::default() };
    assert!(Simulator::new(&journal, Clock::system()).unwrap_err().to_string().contains("no/where"));
    let house = House::new(2, &Settings::default(), None, &Clock::system()).unwrap();
    let options = Options { folder: folder.path().into(), tcp: "127.0.0.1:65535".parse().unwrap() };
    let net = latchd::seams::MemoryNet::default();
    let refused = Front::open(house, &net, &options).await.unwrap_err().to_string();
    assert!(refused.contains("above 65535"), "{refused}");
}
