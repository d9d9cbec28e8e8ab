use std::{io, net::SocketAddr, sync::Mutex};

use rustls::RootCertStore;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    cloud::store::NewSpace,
    model::Private,
    seal::SealKey,
    seams::{BoxFuture, Listener, MemoryNet, Net, Process, Random, ResolveError, Stream},
    store::{
        Writer,
        vfs::memory::{Cut, Disk, Image},
    },
};

/// Longer than any pause before a delivery is made again.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
const NOW: &str = "2026-11-22T12:00:00Z";

#[tokio::test]
async fn a_delivery_that_panics_has_failed_and_takes_no_place_any_more() {
    let place = (WebhookId(uuid::Uuid::from_u128(1)), 7);
    let (mut under_way, mut busy) = (JoinSet::new(), HashMap::new());
    let broken = async { panic!("the delivery's own fault") };
    busy.insert(under_way.spawn(broken).id(), place);
    let ended = under_way.join_next_with_id().await.unwrap();
    let (webhook, n, end) = end_of(ended, &mut busy).unwrap();
    assert_eq!((webhook, n), place);
    assert!(matches!(end, Delivered::Failed { whatever_it_was: false, .. }), "{end:?}");
    assert!(busy.is_empty());
}

/// A network on which every name is this machine's.
#[derive(Clone, Default)]
struct Loopback(MemoryNet);

impl Net for Loopback {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        self.0.connect(host, port)
    }

    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Vec<SocketAddr>, ResolveError>> {
        Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]) })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.0.listen(address)
    }
}

/// An event as it came: its resource, its id in the header, its type.
type Came = (String, String, String);

/// A property whose webhook is owed five events of three spaces, and the receiver.
struct House {
    disk: Disk,
    owing: Image,
    net: Loopback,
    clock: Clock,
    random: Random,
    came: Arc<Mutex<Vec<Came>>>,
    /// The events of each space, in the order in which they came about.
    owed: Vec<(String, Vec<&'static str>)>,
}

impl House {
    async fn new() -> Self {
        let (disk, random, now) = (Disk::new().unwrap(), Random::seeded(3), NOW.parse().unwrap());
        let mut db = open(&disk, &random);
        let workspace = db.found(now, "Home", [1; 32]).unwrap();
        let mut tenant = db.tenant(workspace);
        let url = Private::new("http://127.0.0.1:9000/events");
        tenant.create_webhook(now, &url, &["*".into()]).unwrap().unwrap();
        let mut owed = Vec::new();
        for name in ["Unit 1", "Unit 2", "Unit 3"] {
            let new = NewSpace {
                name: name.into(),
                space_key: None,
                customer_key: None,
                customer_data: None,
                entrances: Vec::new(),
                devices: Vec::new(),
            };
            let space = tenant.create_space(now, new).unwrap().unwrap().id;
            owed.push((space.to_string(), vec!["space.created"]));
            if name != "Unit 3" {
                tenant.delete_space(now, space).unwrap().unwrap();
                owed.last_mut().unwrap().1.push("space.deleted");
            }
        }
        drop(db);
        let net = Loopback::default();
        let came = Arc::new(Mutex::new(Vec::new()));
        let mut listener = net.listen(SocketAddr::from(([127, 0, 0, 1], 9000))).await.unwrap();
        let noted = Arc::clone(&came);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(stream, Arc::clone(&noted)));
            }
        });
        let clock = Clock::simulated(now);
        Self { owing: disk.image(), disk, net, clock, random, came, owed }
    }

    /// A cloud at work on what is owed; nothing else of a cloud runs.
    fn start(&self) -> Process {
        let process = Process::new({
            let disk = self.disk.clone();
            move || disk.is_dead()
        });
        let (disk, clock, random) = (self.disk.clone(), self.clock.clone(), self.random.clone());
        let tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
        let reach = Reach { private: false, loopback: true };
        let post = Arc::new(Post { net: Arc::new(self.net.clone()), tls: Arc::new(tls), reach });
        process.spawn(async move {
            let seal = SealKey::new([7; 32], random.clone());
            // A disk that dies while the database is opened is a death like any other.
            let Ok(db) = Db::open(&disk.storage(), seal, random) else { return };
            let (_task, db) = Writer::simulated(db, None, || Duration::from_millis(1));
            let (_stop, stopped) = watch::channel(false);
            deliver(db, Signals::default(), clock, post, stopped).await;
        });
        process
    }

    /// Lets a cloud work that dies as `doom` says, and another one after it; says whether the first one died.
    async fn survives(&self, cut: Cut, doom: impl FnOnce(&Process)) -> bool {
        self.disk.restore(&self.owing);
        self.came.lock().unwrap().clear();
        let first = self.start();
        doom(&first);
        let all = self.all_came();
        tokio::select! {
            biased;
            () = first.ended() => {}
            () = all => {}
        }
        let has_died = first.is_dead();
        first.kill();
        first.ended().await;
        self.disk.cut(cut, &self.random);
        let second = self.start();
        self.all_came().await;
        self.nothing_is_owed().await;
        second.kill();
        second.ended().await;
        self.disk.cut(Cut::Killed, &self.random);
        self.judge();
        has_died
    }

    async fn all_came(&self) {
        let wanted: usize = self.owed.iter().map(|(_, kinds)| kinds.len()).sum();
        tokio::time::timeout(PATIENCE, async {
            loop {
                let mut ids: Vec<_> = self
                    .came
                    .lock()
                    .unwrap()
                    .iter()
                    .map(|(_, id, kind)| (id.clone(), kind.clone()))
                    .collect();
                ids.sort();
                ids.dedup();
                if ids.len() == wanted {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap_or_else(|_elapsed| panic!("in vain: {:?}", self.came.lock().unwrap()));
    }

    /// Waits out what is under way; whatever came again after that would be seen by the judge.
    async fn nothing_is_owed(&self) {
        sleep(Duration::from_secs(600)).await;
    }

    /// Each event came under one id, those of a space in their order, and no old one after a newer one.
    fn judge(&self) {
        let came = self.came.lock().unwrap();
        for (space, kinds) in &self.owed {
            let mut of_space: Vec<_> =
                came.iter().filter(|(it, ..)| it == space).map(|(_, id, kind)| (id, kind.as_str())).collect();
            of_space.dedup();
            let told: Vec<_> = of_space.iter().map(|(_, kind)| *kind).collect();
            assert_eq!(told, *kinds, "{came:?}");
        }
    }
}

fn open(disk: &Disk, random: &Random) -> Db {
    Db::open(&disk.storage(), SealKey::new([7; 32], random.clone()), random.clone()).unwrap()
}

/// Takes one delivery, as far as it comes.
async fn receive(mut stream: Box<dyn Stream>, came: Arc<Mutex<Vec<Came>>>) {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let Ok(byte) = stream.read_u8().await else { return };
        bytes.push(byte);
        let Some(at) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
        let length: usize = header(&head, "content-length").parse().unwrap();
        if bytes.len() == at + 4 + length {
            break (head, bytes.split_off(at + 4));
        }
    };
    let event: Value = serde_json::from_slice(&body).unwrap();
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    let id = header(&head, "svix-id").to_owned();
    came.lock().unwrap().push((text("space_id"), id, text("event_type")));
    let _may_be_dead = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
}

fn header<'a>(head: &'a str, wanted: &str) -> &'a str {
    let pairs = head.lines().filter_map(|line| line.split_once(':'));
    let mut found = pairs.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
    found.next().unwrap().1.trim()
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_dies_at_any_step_of_its_deliveries_delivers_each_at_least_once_and_in_order() {
    let house = House::new().await;
    let mut deaths = 0;
    for cut in [Cut::Killed, Cut::Power] {
        for step in 0.. {
            if !house.survives(cut, |process| process.die_after(step)).await {
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths > 40, "the deliveries took {deaths} steps in two lives");
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_dies_between_any_two_changes_of_its_disk_delivers_each_at_least_once_and_in_order() {
    let house = House::new().await;
    let mut deaths = 0;
    for cut in [Cut::Power, Cut::PowerAndCache] {
        for change in 0.. {
            if !house.survives(cut, |_| house.disk.die_after(change)).await {
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths > 10, "the deliveries took {deaths} changes in two lives");
}
