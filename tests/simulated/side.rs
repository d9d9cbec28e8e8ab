//! Both sides, each with its disk and, while it runs, its process: the product's own code on the real SQLite.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use latchd::{
    agent::{self, QueueFile, admin},
    cloud::{self, Signals, store::Db},
    config::AgentConfig,
    drivers::Driver,
    model::{BridgeId, SystemName},
    queue::{Queue, QueueReader, Rules},
    seal::SealKey,
    seams::{Clock, Net, Process, Random},
    store::{
        ReaderHandle, Reserve, Store, StoreError, Writer, WriterHandle,
        vfs::memory::{Cut, Disk, Image},
    },
};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::authority::{Authority, found};

/// Where the cloud listens for bridges, and for those who use its API.
pub(crate) const BRIDGES: u16 = 7443;
pub(crate) const API: u16 = 7080;
/// What users of the API show there.
pub(crate) const KEY: &str = "seam_simulation";

/// What each side keeps in reserve on its disk: more than a log grows to before it is folded back.
pub(crate) const RESERVE: u64 = 4 * 1024 * 1024;

/// Nothing that works well takes more steps in one life of a process. What does turns in a circle: it is ended there and
/// told, so that it is never taken for slowness.
pub(crate) const MOST_STEPS: u64 = 100_000;
/// And no life of a database works more than so many times [`STRIDE`] of SQLite's own instructions.
const MOST_STRIDES: u64 = 5_000;
const STRIDE: i32 = 10_000;

/// What turned in a circle; all clones are one.
#[derive(Clone, Default)]
pub(crate) struct Circles(pub(crate) Arc<Mutex<Vec<String>>>);

impl Circles {
    pub(crate) fn add(&self, what: impl Into<String>) {
        let (what, mut all) = (what.into(), self.0.lock().unwrap());
        if !all.contains(&what) {
            all.push(what);
        }
    }

    /// Interrupts a connection that works without end.
    fn watch(&self, whose: &'static str, connection: &mut Connection) -> Result<(), StoreError> {
        let (mut strides, circles) = (0, self.clone());
        let works_on = move || {
            strides += 1;
            if MOST_STRIDES < strides {
                circles.add(format!("the database of {whose} works without end"));
            }
            MOST_STRIDES < strides
        };
        Ok(connection.progress_handler(STRIDE, Some(works_on))?)
    }
}

/// Lets a process take so many steps more, as far as it may.
pub(crate) fn doom(process: &Process, steps: u64) {
    process.die_after(steps.min(MOST_STEPS.saturating_sub(process.polls())));
}

/// One of both sides: its disk, and its process while it runs.
pub(crate) struct Side<L> {
    pub(crate) disk: Disk,
    pub(crate) life: Option<L>,
    pub(crate) lives: u64,
    /// How the present process ends if it ends by itself.
    pub(crate) end: End,
    pub(crate) backup: Option<Image>,
    pub(crate) crashes: u64,
}

impl<L> Side<L> {
    pub(crate) fn new() -> Self {
        let disk = Disk::new().unwrap();
        Self { disk, life: None, lives: 0, end: End::Killed, backup: None, crashes: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Killed,
    Power,
    PowerAndCache,
}

impl End {
    pub(crate) fn cut(self) -> Cut {
        match self {
            Self::Killed => Cut::Killed,
            Self::Power => Cut::Power,
            Self::PowerAndCache => Cut::PowerAndCache,
        }
    }
}

/// A cloud that runs.
pub(crate) struct CloudLife {
    pub(crate) process: Process,
    pub(crate) db: WriterHandle<Db>,
    pub(crate) signals: Signals,
    pub(crate) bridge: BridgeId,
    _stop: watch::Sender<bool>,
}

/// What a cloud starts with.
pub(crate) struct CloudStart<R, S, P> {
    pub(crate) disk: Disk,
    /// Its room in reserve.
    pub(crate) reserve: R,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) net: Arc<dyn Net>,
    /// How long a sync takes on its disk.
    pub(crate) pace: P,
    pub(crate) circles: Circles,
    /// Its disk was put back from a backup, and it is to be told with this start.
    pub(crate) is_set_back: Arc<AtomicBool>,
    /// What breaks it, if anything.
    pub(crate) spoil: S,
}

impl<R, S, P> CloudStart<R, S, P>
where
    R: FnOnce(&Disk) -> Reserve + Send + 'static,
    S: FnOnce(&mut Db) -> Result<(), StoreError> + Send + 'static,
    P: FnMut() -> Duration + Send + 'static,
{
    /// Starts it; nothing where it died before it was ready.
    pub(crate) async fn begin(self) -> Option<CloudLife> {
        let Self { disk, reserve, clock, random, net, pace, circles, is_set_back, spoil } = self;
        let process = mortal(&disk);
        let (stop, stopped) = watch::channel(false);
        let signals = Signals::default();
        let (tell, told) = oneshot::channel();
        let spoken = signals.clone();
        let run = async move {
            let now = clock.now();
            let open = || Db::open(&disk.storage(), SealKey::new([7; 32], random.clone()), random.clone());
            let mut reserve = reserve(&disk);
            open_at_any_rate(&mut reserve, || found(&disk.storage(), now, Some(Authority::get())))?;
            let mut db = open_at_any_rate(&mut reserve, open)?;
            circles.watch("the cloud", db.connection())?;
            spoil(&mut db)?;
            if is_set_back.load(Ordering::Relaxed) {
                db.connection().execute_batch("BEGIN IMMEDIATE")?;
                db.restored()?;
                db.connection().execute_batch("COMMIT")?;
            }
            is_set_back.store(false, Ordering::Relaxed);
            db.all_bridges_down(now)?;
            let workspace = db.workspace()?.expect("it was founded");
            let bridge = db.the_bridge(now, workspace)?;
            let (_task, db) = Writer::simulated(db, Some(reserve), pace);
            let bridges = net.listen(address(BRIDGES)).await.unwrap();
            let api = net.listen(address(API)).await.unwrap();
            let _ = tell.send((db.clone(), bridge));
            let parts = cloud::Parts {
                db,
                signals: spoken,
                api: (api, None),
                bridges: (bridges, Authority::get().acceptor()),
                clock,
                random,
                settings: cloud::api::Settings {
                    hold: Duration::from_secs(1),
                    ..cloud::api::Settings::default()
                },
                keep_idle_people: None,
            };
            let mut tasks = cloud::work(parts, &stopped);
            while tasks.join_next().await.is_some() {}
            Ok::<_, StoreError>(())
        };
        doom(&process, MOST_STEPS);
        start(&process, run);
        let (db, bridge) = told.await.ok()?;
        Some(CloudLife { process, db, signals, bridge, _stop: stop })
    }
}

/// An agent that runs.
pub(crate) struct AgentLife {
    pub(crate) process: Process,
    pub(crate) queue: WriterHandle<Queue>,
    pub(crate) stop: mpsc::Sender<()>,
    pub(crate) questions: mpsc::Sender<admin::Question>,
}

/// What an agent starts with; see [`CloudStart`].
pub(crate) struct AgentStart<R, S, P, D> {
    pub(crate) disk: Disk,
    pub(crate) reserve: R,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) pace: P,
    pub(crate) circles: Circles,
    pub(crate) is_set_back: Arc<AtomicBool>,
    pub(crate) spoil: S,
    pub(crate) config: AgentConfig,
    pub(crate) drivers: D,
}

impl<R, S, P, D> AgentStart<R, S, P, D>
where
    R: FnOnce(&Disk) -> Reserve + Send + 'static,
    S: FnOnce(&mut Connection) -> Result<(), StoreError> + Send + 'static,
    P: FnMut() -> Duration + Send + 'static,
    D: FnOnce(&agent::Parts, &AgentConfig, &BTreeSet<SystemName>) -> Vec<Arc<dyn Driver>> + Send + 'static,
{
    /// Starts it; nothing where it died before it was ready.
    pub(crate) async fn begin(self) -> Option<AgentLife> {
        let Self { disk, reserve, clock, random, net, pace, circles, is_set_back, spoil, config, drivers } =
            self;
        let process = mortal(&disk);
        let settings = Authority::get().settings();
        let (stop, stopped) = mpsc::channel(2);
        let (questions, requests) = mpsc::channel(16);
        let (tell, told) = oneshot::channel();
        let run = async move {
            let seal = SealKey::new([9; 32], random.clone());
            let rules = Rules::from(&config);
            let mut reserve = reserve(&disk);
            let open = || Queue::open(&disk.storage(), seal.clone(), random.clone(), rules.clone());
            let mut queue = open_at_any_rate(&mut reserve, open)?;
            if is_set_back.load(Ordering::Relaxed) {
                queue.connection().execute_batch("BEGIN IMMEDIATE")?;
                queue.restored(clock.now())?;
                queue.commit()?;
            }
            is_set_back.store(false, Ordering::Relaxed);
            let is_restored = queue.is_restored()?;
            circles.watch("the agent", queue.connection())?;
            spoil(queue.connection())?;
            let (_task, queue) = Writer::simulated(queue, Some(reserve), pace);
            let _ = tell.send(queue.clone());
            let (storage, for_reader) = (disk.storage(), random.clone());
            let reader = ReaderHandle::inline(move || {
                QueueReader::open(&storage, seal.clone(), for_reader.clone(), rules.clone())
            });
            let file =
                QueueFile { storage: disk.storage(), reader, damage: None, salvage: None, is_restored };
            let parts = agent::Parts {
                queue: queue.clone(),
                file,
                settings,
                net,
                clock,
                random,
                requests,
                stop: stopped,
            };
            if let Err(error) = agent::work(config, parts, drivers).await {
                tracing::warn!(%error, "the agent ended");
            }
            // What was submitted before is durable after this.
            queue.run(|_| Ok(())).await
        };
        doom(&process, MOST_STEPS);
        start(&process, run);
        let queue = told.await.ok()?;
        Some(AgentLife { process, queue, stop, questions })
    }
}

/// A process that ends with its disk.
fn mortal(disk: &Disk) -> Process {
    let disk = disk.clone();
    Process::new(move || disk.is_dead())
}

/// Opens a database; where its disk is full, in the room that was kept for that.
fn open_at_any_rate<T>(
    reserve: &mut Reserve,
    open: impl Fn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match open() {
        Err(error) if error.is_disk_full() => {
            reserve.release();
            open()
        }
        opened => opened,
    }
}

/// Runs something as a process's first task; the process ends with it, however it ends.
fn start(process: &Process, run: impl Future<Output = Result<(), StoreError>> + Send + 'static) {
    struct Ends(Process);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.kill();
        }
    }
    let ends = Ends(process.clone());
    process.spawn(async move {
        let ends = ends;
        if let Err(error) = run.await {
            tracing::warn!(%error, "a process ended");
        }
        drop(ends);
    });
}

/// Waits until a process has ended; without one, for ever.
pub(crate) async fn ended(process: Option<Process>) {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

pub(crate) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
