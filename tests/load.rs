//! Two thousand bridges at one cloud: real processes, TCP and TLS. What an idle one costs in memory, and what a restart
//! of the cloud does to all of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test, as the tests themselves do")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use latchd::{
    cloud::{
        store::{BridgeKeys, Db, FILE},
        tls::{Authority, For, public_key_hash},
    },
    link::{Event, Identity, Link, Settings, Trust},
    protocol::{Memory, Position, PublicKey, SigningKey},
    seal::SealKey,
    seams::{Clock, Random, Storage, SystemNet, TrustedTime},
};
use rcgen::KeyPair;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::sync::mpsc;

/// How many bridges.
const BRIDGES: usize = 2000;
/// What an idle one may cost the cloud, in bytes.
const EACH: u64 = 40 * 1024;
/// Nothing here takes longer, whatever the machine.
const PATIENCE: Duration = Duration::from_secs(150);

/// A running cloud.
struct Cloud {
    child: Child,
    bridges: String,
    ca_file: String,
}

impl Cloud {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_latchd"))
            .args(["cloud", "--config"])
            .arg(folder.join("cloud.toml"))
            .stdout(Stdio::piped())
            .stderr(fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        let text = |key: &str| said[key].as_str().unwrap().to_owned();
        Self { child, bridges: text("bridges"), ca_file: text("ca_file") }
    }

    /// Resident memory that is the process's own, in bytes.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// What a bridge needs to knock.
struct Bridge {
    identity: Arc<Identity>,
}

/// Makes the cloud's folder with so many bridges.
fn found(folder: &Path) -> (Vec<Bridge>, Vec<PublicKey>) {
    let (now, random) = (Timestamp::now(), Random::system());
    let store = folder.join("cloud");
    fs::create_dir(&store).unwrap();
    let seal = SealKey::from_file_or_new(&store.join("seal.key"), random.clone()).unwrap();
    let mut db = Db::open(&Storage::folder(&store), seal, random.clone()).unwrap();
    let authority = Authority::open(&store, For::Bridges, now, &random).unwrap();
    let until = now + jiff::SignedDuration::from_hours(24);
    let bridges = (0..BRIDGES).map(|number| {
        let workspace = db.found(now, &format!("House {number}"), random.bytes()).unwrap();
        let bridge_id = db.the_bridge(now, workspace).unwrap();
        let tls_key = KeyPair::generate().unwrap();
        let (key, _) = SigningKey::generate(&random);
        let certificate = authority.issue(&tls_key, bridge_id, now, until).unwrap();
        let tls = public_key_hash(&certificate).unwrap();
        db.admit(now, bridge_id, &BridgeKeys { tls, signing: key.public(), expires_at: until }).unwrap();
        let tls_key = PrivateKeyDer::try_from(tls_key.serialize_der()).unwrap();
        Bridge { identity: Arc::new(Identity { bridge_id, key, certificate: vec![certificate], tls_key }) }
    });
    let bridges = bridges.collect();
    let keys = db.cloud_keys(now).unwrap().iter().map(SigningKey::public).collect();
    drop(db);
    assert!(store.join(FILE).exists());
    (bridges, keys)
}

/// What the bridges tell: which one, and whether it is up or why not.
type Told = (usize, Result<(), &'static str>);

async fn follow(number: usize, mut link: Link, tell: mpsc::UnboundedSender<Told>) {
    while let Some(event) = link.events.recv().await {
        let told = match event {
            Event::Connecting(answer) => {
                let nothing = Position::default();
                let _ = answer.send(Memory {
                    orders_received: nothing,
                    reports_sent: nothing,
                    reports_acknowledged: nothing,
                    orders_limit: 100,
                });
                continue;
            }
            Event::Up { .. } => Ok(()),
            Event::Down(trouble) | Event::GaveUp(trouble) => Err(trouble.code),
            Event::Frame { .. } => continue,
        };
        if tell.send((number, told)).is_err() {
            return;
        }
    }
}

/// Waits until all are up; gives how often each reason was heard before.
async fn all_up(told: &mut mpsc::UnboundedReceiver<Told>, up: &mut [bool]) -> BTreeMap<&'static str, usize> {
    let mut reasons = BTreeMap::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (number, what) = match tokio::time::timeout_at(deadline, told.recv()).await {
            Ok(told) => told.unwrap(),
            Err(_) => {
                let missing = up.iter().filter(|up| !**up).count();
                panic!("{missing} bridges did not come, for {reasons:?}");
            }
        };
        up[number] = what.is_ok();
        if let Err(reason) = what {
            *reasons.entry(reason).or_default() += 1;
        }
        if up.iter().all(|up| *up) {
            return reasons;
        }
    }
}

#[test]
fn two_thousand_bridges_cost_little_and_all_come_back_after_a_restart() {
    // Each connection is a file on either side.
    let limit = getrlimit(Resource::Nofile);
    let wanted = Some(u64::try_from(BRIDGES).unwrap() + 500);
    if limit.maximum.is_some_and(|most| Some(most) < wanted) {
        println!("missing: {wanted:?} open files (the limit is {:?})", limit.maximum);
        assert!(std::env::var_os("LATCHD_NO_SKIPS").is_none(), "nothing may be skipped");
        return;
    }
    if limit.current.is_some_and(|now| Some(now) < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: limit.maximum }).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "[storage]\nfolder = \"cloud\"\n[api]\nlisten = \"127.0.0.1:0\"\n[bridges]\nlisten = \"127.0.0.1:{port}\"\n"
    );
    fs::write(path.join("cloud.toml"), config).unwrap();
    let (bridges, cloud_keys) = found(path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cloud = Cloud::start(path);
        let ca_file = Path::new(&cloud.ca_file);
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut up = vec![false; BRIDGES];
        let connect = |number: usize| {
            let identity = Arc::clone(&bridges[number].identity);
            let trust = Trust::open(Some(ca_file)).unwrap();
            let settings = Settings::new(&cloud.bridges, identity, cloud_keys.clone(), trust).unwrap();
            let time = TrustedTime::new(Clock::system());
            let link = latchd::link::start(settings, Arc::new(SystemNet), time, Random::system());
            tokio::spawn(follow(number, link, tell.clone()));
        };
        // What the first few cost is what a cloud costs at all.
        let few = BRIDGES / 20;
        (0..few).for_each(connect);
        all_up(&mut told, &mut up[..few]).await;
        let before = cloud.resident();
        let begun = Instant::now();
        (few..BRIDGES).for_each(connect);
        let reasons = all_up(&mut told, &mut up).await;
        let each = cloud.resident().saturating_sub(before) / u64::try_from(BRIDGES - few).unwrap();
        println!("{BRIDGES} bridges: {each} bytes each, up after {:?}, {reasons:?}", begun.elapsed());
        assert!(each <= EACH, "{each} bytes for an idle bridge");

        let begun = Instant::now();
        cloud.stop();
        up.fill(false);
        let cloud = Cloud::start(path);
        let reasons = all_up(&mut told, &mut up).await;
        println!("back after {:?}, {reasons:?}", begun.elapsed());
        // Every one hears that the cloud restarts; meanwhile some find nobody there, and none is refused.
        let heard = reasons.get("link_cloud_restarting").copied().unwrap_or(0);
        assert!(heard * 10 >= BRIDGES * 9, "{reasons:?}");
        let storm: usize = reasons.values().sum();
        assert!(storm <= 4 * BRIDGES, "an error storm: {reasons:?}");
        cloud.stop();
    });
    let log = fs::read_to_string(path.join("log")).unwrap();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).take(5).collect();
    assert_eq!(errors, [] as [&str; 0]);
}
