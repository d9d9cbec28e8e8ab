//! Networks, certificates, a cloud, and time that the test owns.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
        mpsc as std_mpsc,
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use jiff::Timestamp;
use latchd::{
    cloud::{
        Signals, hub,
        store::{BridgeKeys, Db, Standing},
        tls::{self, For, public_key_hash},
    },
    link::{Event, Identity, Link, Settings, Trouble, Trust},
    model::{BridgeId, Job, JobId, JobState, Order, Outcome, Priority, Report, SystemName, WorkspaceId},
    protocol::{Frame, Memory, Position, PublicKey, SigningKey, Welcome},
    seal::SealKey,
    seams::{BoxFuture, Clock, Listener, MemoryNet, Net, Random, Storage, Stream, SystemNet, TrustedTime},
    store::{StoreError, Writer, WriterHandle},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

/// What signs for the bridge of this world, and for a cloud that is written by hand.
pub(super) const BRIDGE_SEED: [u8; 32] = [3; 32];
pub(super) const CLOUD_SEED: [u8; 32] = [9; 32];
/// The bridge as a cloud knows it that is written by hand.
pub(super) const BRIDGE_ID: &str = "00000000-0000-4000-8000-000000000001";

/// How far simulated time goes at each look, at first and later.
const STEP: Duration = Duration::from_millis(50);
const STRIDE: Duration = Duration::from_millis(500);
const SLOW_FOR: Duration = Duration::from_secs(1);
/// How long a wait may take where time is real.
const REAL: Duration = Duration::from_secs(20);

/// Where a test takes place.
pub(super) struct World {
    pub(super) net: Arc<dyn Net>,
    pub(super) clock: Clock,
    pub(super) authority: Authority,
    /// Vouches for bridges.
    bridges: tls::Authority,
    _folder: tempfile::TempDir,
    /// The keys of the bridge's certificate.
    bridge_key: KeyPair,
    /// Who it is to the cloud that was started last, and which keys speak for that.
    cloud: Mutex<(BridgeId, Vec<PublicKey>)>,
    wire: Wire,
    /// Whose work counts as work while time stands still.
    stores: Mutex<Vec<WriterHandle<Db>>>,
    /// While this stands, simulated time moves only when the test says so: a runtime that waits for the database's
    /// thread would otherwise leap to its next timer.
    still: Option<std_mpsc::Sender<()>>,
}

impl World {
    /// In memory, with time that moves when the test says so. Needs a runtime that was started with paused time.
    pub(super) fn simulated() -> Self {
        let (still, released) = std_mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || released.recv());
        let wire = Wire::default();
        let net = Faulty { inner: MemoryNet::default(), wire: wire.clone() };
        let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
        Self::new(Arc::new(net), clock, wire, Some(still))
    }

    fn new(net: Arc<dyn Net>, clock: Clock, wire: Wire, still: Option<std_mpsc::Sender<()>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let random = Random::seeded(4);
        let bridges = tls::Authority::open(folder.path(), For::Bridges, clock.now(), &random).unwrap();
        let by_hand = (BRIDGE_ID.parse().unwrap(), vec![SigningKey::from_seed(&CLOUD_SEED).public()]);
        Self {
            net,
            clock,
            authority: Authority::new(),
            bridges,
            _folder: folder,
            bridge_key: KeyPair::generate().unwrap(),
            cloud: Mutex::new(by_hand),
            wire,
            stores: Mutex::default(),
            still,
        }
    }

    /// Over TCP on this machine, in real time.
    pub(super) fn real() -> Self {
        Self::new(Arc::new(SystemNet), Clock::system(), Wire::default(), None)
    }

    /// Cuts every connection that was dialled so far and every later one, until [`World::mend`].
    pub(super) fn cut(&self) {
        self.wire.set(Wire::CUT);
    }

    /// From now on bytes vanish, and nobody is told.
    pub(super) fn swallow(&self) {
        self.wire.set(Wire::SWALLOWED);
    }

    /// New connections work again.
    pub(super) fn mend(&self) {
        self.wire.set(Wire::WHOLE);
    }

    /// Waits for something, for at most this much of simulated time; `None` when it did not come.
    pub(super) async fn within<T>(&self, span: Duration, what: impl Future<Output = T>) -> Option<T> {
        let mut what = std::pin::pin!(what);
        if self.still.is_none() {
            return timeout(span.min(REAL), what).await.ok();
        }
        let begun = tokio::time::Instant::now();
        let until = begun + span;
        loop {
            for _ in 0..2 {
                let polled = std::future::poll_fn(|context| Poll::Ready(what.as_mut().poll(context))).await;
                if let Poll::Ready(value) = polled {
                    return Some(value);
                }
                self.settle().await;
            }
            let now = tokio::time::Instant::now();
            if now >= until {
                return None;
            }
            let step = if now.duration_since(begun) < SLOW_FOR { STEP } else { STRIDE };
            tokio::time::advance(step).await;
        }
    }

    /// Waits for something that must come soon.
    pub(super) async fn soon<T>(&self, what: impl Future<Output = T>) -> T {
        self.within(Duration::from_secs(5), what).await.expect("it comes soon")
    }

    /// Lets everything happen that can happen without time passing.
    async fn settle(&self) {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        let stores = self.stores.lock().unwrap().clone();
        for store in stores {
            store.run(|_| Ok(())).await.unwrap();
        }
    }

    /// Lets time pass, with everything that happens in it.
    pub(super) async fn pass(&self, span: Duration) {
        let nothing = std::future::pending::<()>();
        assert!(self.within(span, nothing).await.is_none());
    }

    pub(super) async fn cloud(&self) -> Cloud {
        Cloud::start(self, tempfile::tempdir().unwrap(), None).await
    }

    /// A link to a port on this machine, trusting this world's authority.
    pub(super) fn link(&self, port: u16) -> Link {
        self.link_as(port, self.identity(BRIDGE_SEED, &self.bridge_key))
    }

    /// The same, for a bridge with other keys than those that its cloud knows.
    pub(super) fn link_of_a_stranger(&self, port: u16) -> Link {
        self.link_as(port, self.identity(BRIDGE_SEED, &KeyPair::generate().unwrap()))
    }

    /// The same, for one whose certificate is good and who signs with another key.
    pub(super) fn link_of_a_thief(&self, port: u16) -> Link {
        self.link_as(port, self.identity([66; 32], &self.bridge_key))
    }

    fn link_as(&self, port: u16, identity: Identity) -> Link {
        let settings = self.settings(&format!("wss://localhost:{port}"), identity);
        let time = TrustedTime::new(self.clock.clone());
        latchd::link::start(settings, Arc::clone(&self.net), time, Random::seeded(5))
    }

    /// What a link starts with that trusts this world's authority.
    pub(super) fn settings(&self, url: &str, identity: Identity) -> Settings {
        let cloud_keys = self.cloud.lock().unwrap().1.clone();
        let trust = Trust::of_pairing(&self.authority.pem).unwrap();
        Settings::new(url, Arc::new(identity), cloud_keys, trust).unwrap()
    }

    /// The bridge as the cloud knows it that was started last.
    pub(super) fn ours(&self) -> Identity {
        self.identity(BRIDGE_SEED, &self.bridge_key)
    }

    fn identity(&self, seed: [u8; 32], key: &KeyPair) -> Identity {
        let bridge_id = self.cloud.lock().unwrap().0;
        self.identity_of(bridge_id, seed, key)
    }

    /// A bridge with a certificate of this world's.
    pub(super) fn identity_of(&self, bridge_id: BridgeId, seed: [u8; 32], key: &KeyPair) -> Identity {
        let (now, until) = (self.clock.now(), "2200-01-01T00:00:00Z".parse().unwrap());
        Identity {
            bridge_id,
            key: SigningKey::from_seed(&seed),
            certificate: vec![self.bridges.issue(key, bridge_id, now, until).unwrap()],
            tls_key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    /// The names of the keys that speak for the cloud that was started last.
    pub(super) fn cloud_key_ids(&self) -> Vec<String> {
        self.cloud.lock().unwrap().1.iter().map(|key| key.id().to_string()).collect()
    }

    /// The newest of them.
    pub(super) fn cloud_key(&self) -> Option<[u8; 32]> {
        self.cloud.lock().unwrap().1.first().map(|key| *key.as_bytes())
    }

    /// TLS for a server with this name, valid in these years, that asks for certificates of bridges.
    pub(super) fn acceptor(&self, name: &str, years: std::ops::Range<i32>) -> TlsAcceptor {
        self.authority.acceptor(name, years, self.bridges.verifier().unwrap(), self.clock.clone())
    }

    pub(super) fn localhost(&self) -> TlsAcceptor {
        self.acceptor("localhost", 2000..2100)
    }

    /// The same with a certificate of an authority that nobody here trusts.
    pub(super) fn untrusted_localhost(&self) -> TlsAcceptor {
        Authority::new().acceptor(
            "localhost",
            2000..2100,
            self.bridges.verifier().unwrap(),
            self.clock.clone(),
        )
    }

    /// The next thing the link tells, which must come soon.
    pub(super) async fn event(&self, link: &mut Link) -> Event {
        self.soon(link.events.recv()).await.expect("the link lives")
    }

    /// Answers the link's question and waits for the welcome; a few attempts may fail before.
    pub(super) async fn up(&self, link: &mut Link, memory: &Memory) -> (u64, Welcome) {
        let mut troubles = Vec::new();
        while troubles.len() < 5 {
            match self.within(Duration::from_secs(61), link.events.recv()).await.unwrap().unwrap() {
                Event::Connecting(answer) => answer.send(*memory).unwrap(),
                Event::Up { connection, welcome, .. } => return (connection, welcome),
                Event::Down(trouble) | Event::GaveUp(trouble) => troubles.push(trouble),
                Event::Frame { .. } => {}
            }
        }
        panic!("{troubles:#?}");
    }

    /// The next frame of a connection.
    pub(super) async fn frame(&self, link: &mut Link) -> Frame {
        match self.event(link).await {
            Event::Frame { frame, .. } => frame,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the link says why there is no connection, answering its questions meanwhile.
    pub(super) async fn trouble(&self, link: &mut Link) -> Trouble {
        loop {
            match self.within(Duration::from_secs(120), link.events.recv()).await.unwrap().unwrap() {
                Event::Down(trouble) | Event::GaveUp(trouble) => return trouble,
                // An agent that is gone from its question has nothing to say either.
                Event::Connecting(answer) => drop(answer.send(memory(Position::default(), 100))),
                Event::Up { .. } | Event::Frame { .. } => {}
            }
        }
    }
}

/// A certificate authority and what it signs.
pub(super) struct Authority {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "latchd test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn acceptor(
        &self,
        name: &str,
        years: std::ops::Range<i32>,
        clients: Arc<dyn rustls::server::danger::ClientCertVerifier>,
        clock: Clock,
    ) -> TlsAcceptor {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate: CertificateDer<'static> =
            params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_details(provider, Arc::new(clock))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A cloud's hub on a database of its own.
pub(super) struct Cloud {
    pub(super) port: u16,
    pub(super) bridge: BridgeId,
    pub(super) signals: Signals,
    db: WriterHandle<Db>,
    folder: tempfile::TempDir,
    shutdown: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    writer: Writer,
}

impl Cloud {
    async fn start(world: &World, folder: tempfile::TempDir, port: Option<u16>) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port.unwrap_or(0)));
        let listener = world.net.listen(address).await.unwrap();
        let port = listener.address().port();
        let seal = SealKey::new([7; 32], Random::seeded(1));
        // Random ids differ from life to life.
        let random = Random::seeded(u64::from(port));
        let store = Db::open(&Storage::folder(folder.path()), seal, random).unwrap();
        let (writer, db) = Writer::start("test-store", store);
        world.stores.lock().unwrap().push(db.clone());
        let now = world.clock.now();
        let bridge =
            world.soon(db.run(move |db| db.the_bridge(now, WorkspaceId(Uuid::from_u128(1))))).await.unwrap();
        let cloud_keys = world.soon(db.run(move |db| db.cloud_keys(now))).await.unwrap();
        *world.cloud.lock().unwrap() = (bridge, cloud_keys.iter().map(SigningKey::public).collect());
        let keys = keys_of(&world.ours());
        let known = world.soon(db.run(move |db| db.bridge_by_certificate(now, keys.tls))).await.unwrap();
        if known.is_none() {
            world.soon(db.run(move |db| db.admit(now, bridge, &keys))).await.unwrap();
        }
        let signals = Signals::default();
        let (shutdown, stop) = watch::channel(false);
        let task = tokio::spawn(hub::serve(
            listener,
            world.localhost(),
            db.clone(),
            signals.clone(),
            world.clock.clone(),
            Random::seeded(6),
            stop,
        ));
        Self { port, bridge, signals, db, folder, shutdown, task, writer }
    }

    /// Stops serving and gives what is left: the folder with the database.
    pub(super) async fn stop(self, world: &World) -> (tempfile::TempDir, u16) {
        self.shutdown.send_replace(true);
        world.within(Duration::from_secs(15), self.task).await.unwrap().unwrap();
        drop(self.db);
        world.stores.lock().unwrap().clear();
        self.writer.join();
        (self.folder, self.port)
    }

    /// Ends the hub's task as a panic or a runtime that goes would: nothing of it runs on.
    pub(super) fn abort(&self) {
        self.task.abort();
    }

    pub(super) async fn restart(self, world: &World) -> Self {
        let (folder, port) = self.stop(world).await;
        Self::start(world, folder, Some(port)).await
    }

    /// Starts a cloud on a database that was kept.
    pub(super) async fn on(world: &World, folder: tempfile::TempDir, port: u16) -> Self {
        Self::start(world, folder, Some(port)).await
    }

    /// Asks hub and connections to stop; [`Cloud::stop`] waits for them.
    pub(super) fn ask_to_stop(&self) {
        self.shutdown.send_replace(true);
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        world: &World,
        operation: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        world.soon(self.db.run(operation)).await.unwrap()
    }

    /// Orders jobs with these numbers.
    pub(super) async fn order(&self, world: &World, numbers: impl IntoIterator<Item = u128>) {
        for number in numbers {
            self.order_job(world, self.bridge, job(number)).await;
        }
    }

    pub(super) async fn order_job(&self, world: &World, bridge: BridgeId, job: Job) {
        let now = world.clock.now();
        self.run(world, move |db| db.enqueue_job(now, bridge, &job)).await;
        self.signals.orders_queued();
    }

    pub(super) async fn standing(&self, world: &World, number: u128) -> Option<Standing> {
        self.run(world, move |db| db.standing(job_id(number))).await
    }

    /// Takes a job back.
    pub(super) async fn cancel(&self, world: &World, number: u128) {
        let (now, bridge) = (world.clock.now(), self.bridge);
        let _ = self.run(world, move |db| db.enqueue_cancel(now, bridge, job_id(number))).await;
        self.signals.orders_queued();
    }

    /// How a job ended: which revision, in which state.
    pub(super) async fn end_of(&self, world: &World, number: u128) -> Option<(u8, JobState)> {
        let end = self.run(world, move |db| db.job_end(job_id(number))).await;
        end.map(|end| (end.revision, end.state))
    }

    /// Waits until an order stands like this.
    pub(super) async fn until(&self, world: &World, number: u128, wanted: Standing) {
        let reached = world.within(Duration::from_secs(5), async {
            loop {
                match self.db.run(move |db| db.standing(job_id(number))).await.unwrap() {
                    Some(standing) if standing == wanted => return,
                    _ => tokio::task::yield_now().await,
                }
            }
        });
        if reached.await.is_none() {
            panic!("job {number} is {:?}", self.standing(world, number).await);
        }
    }
}

pub(super) fn job_id(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

pub(super) fn job(number: u128) -> Job {
    let created_at: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    Job {
        job_id: job_id(number),
        system: SystemName::new("salto").unwrap(),
        priority: Priority::Desk,
        created_at,
        expires_at: "2026-11-22T13:00:00Z".parse().unwrap(),
        order: Order::InventoryRefresh,
    }
}

pub(super) fn report(number: u128) -> Report {
    Report {
        job_id: job_id(number),
        revision: 1,
        at: "2026-11-22T12:00:05Z".parse().unwrap(),
        outcome: Outcome::Cancelled,
        resolution: None,
        rooms: Vec::new(),
        local: None,
    }
}

pub(super) fn at(epoch: u64, n: u64) -> Position {
    Position { epoch, n }
}

/// What a cloud keeps of a bridge's keys.
pub(super) fn keys_of(identity: &Identity) -> BridgeKeys {
    BridgeKeys {
        tls: public_key_hash(&identity.certificate[0]).unwrap(),
        signing: identity.key.public(),
        expires_at: "2200-01-01T00:00:00Z".parse().unwrap(),
    }
}

pub(super) fn memory(orders_received: Position, orders_limit: u64) -> Memory {
    Memory {
        orders_received,
        reports_sent: Position::default(),
        reports_acknowledged: Position::default(),
        orders_limit,
    }
}

/// What happens to the bytes of every connection that is dialled.
#[derive(Clone, Default)]
struct Wire(Arc<(AtomicU8, Mutex<Vec<Waker>>)>);

impl Wire {
    const WHOLE: u8 = 0;
    const CUT: u8 = 1;
    const SWALLOWED: u8 = 2;

    fn set(&self, state: u8) {
        self.0.0.store(state, Ordering::Relaxed);
        self.0.1.lock().unwrap().drain(..).for_each(Waker::wake);
    }

    fn is(&self, state: u8) -> bool {
        self.0.0.load(Ordering::Relaxed) == state
    }
}

/// A network in memory that can be cut, and that can swallow bytes as a dead NAT entry does. It imitates neither
/// latency nor loss of single packets.
struct Faulty {
    inner: MemoryNet,
    wire: Wire,
}

impl Net for Faulty {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            if self.wire.is(Wire::CUT) {
                return Err(io::ErrorKind::NetworkUnreachable.into());
            }
            let inner = self.inner.connect(host, port).await?;
            // A connection that was once cut or swallowed stays so: a new one gets a new wire.
            let stream = FaultyStream { inner, wire: self.wire.clone(), dead: false, swallows: false };
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.inner.listen(address)
    }
}

struct FaultyStream {
    inner: Box<dyn Stream>,
    wire: Wire,
    dead: bool,
    swallows: bool,
}

impl FaultyStream {
    fn look(&mut self) {
        self.dead |= self.wire.is(Wire::CUT);
        self.swallows |= self.wire.is(Wire::SWALLOWED);
    }
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.look();
        if self.dead {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.swallows {
            return Poll::Pending;
        }
        self.wire.0.1.lock().unwrap().push(context.waker().clone());
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.look();
        if self.dead {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.swallows {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
