//! The cloud put together: database, certificates, two listeners, and the clock that ends what nobody else ends.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Signals, Simulators,
    admin::{self, AdminError, Desk},
    api::{self, Api},
    enrol::{Enrolment, Lifetimes},
    hub::{self, Entrance},
    keys::{self, Fresh, KeyError},
    store::{Db, FILE, Retention},
    tls::{self, Authority, Clients, For, Leaf, TlsError},
    webhooks::{self, Post, Reach},
};
use crate::{
    config::{CloudConfig, RetentionConfig, TlsFiles},
    seal::{SealError, SealKey},
    seams::{self, Clock, Listener, Net, Random, Storage, SystemNet},
    store::{self, FolderLock, Reserve, StoreError, Writer, WriterHandle, make_folder},
};

/// A held request must be answered before clients give up, at 30 s.
const LONGEST_HOLD: Duration = Duration::from_secs(25);
/// How often certificates of ours are looked at: a clock that is set after the start must not keep bridges out for
/// long.
const RENEWAL: Duration = Duration::from_secs(60);
/// How often what is long over is looked for.
const FORGETTING: Duration = Duration::from_secs(3600);
/// And how long others have the database to themselves while there is much of it.
const BETWEEN_SLICES: Duration = Duration::from_secs(1);
/// Deadlines are by the wall clock, which may be set; so none is slept for longer than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// After the database refused, it is asked again this much later.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);

/// Why the cloud does not start.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// The API was to be in the clear where others can listen.
    #[error(
        "api.plain = true needs a loopback address, and {0} is none: use TLS, or listen on 127.0.0.1 behind a reverse proxy"
    )]
    PlainInPublic(SocketAddr),
    /// The database's folder cannot be made.
    #[error("create folder {}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An address cannot be listened at.
    #[error("listen at {address} for the {what}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// For whom.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The seal key.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first secrets.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket for administration.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// A running cloud.
#[derive(Debug)]
pub struct Running {
    /// Base address of the API.
    pub api: String,
    /// Address for bridges.
    pub bridges: String,
    /// The certificate of our own authority, where one is in use.
    pub ca_file: Option<PathBuf>,
    /// The file with the API key.
    pub api_key_file: PathBuf,
    /// The socket for local administration.
    pub admin_socket: PathBuf,
    /// The secrets that this start made, if it was the first.
    pub fresh: Option<Fresh>,
    /// The database.
    pub db: WriterHandle<Db>,
    /// What wakes hub and held requests.
    pub signals: Signals,
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<()>,
    writer: Writer,
    storage: Storage,
    damage: Option<oneshot::Receiver<String>>,
    _lock: FolderLock,
}

/// Opens everything and starts to serve.
///
/// # Errors
/// When the configuration cannot be followed; nothing is left running then.
pub async fn start(
    config: &CloudConfig,
    net: &dyn Net,
    clock: Clock,
    random: Random,
) -> Result<Running, CloudError> {
    if config.api.plain && !config.api.listen.ip().is_loopback() {
        return Err(CloudError::PlainInPublic(config.api.listen));
    }
    let folder = &config.storage.folder;
    make_folder(folder, 0o700).map_err(|source| CloudError::Folder { path: folder.clone(), source })?;
    let lock = FolderLock::take(folder)?;
    let now = clock.now();
    let key_file = config.storage.key_file.clone().unwrap_or_else(|| folder.join("seal.key"));
    let seal = SealKey::from_file_or_new(&key_file, random.clone())?;
    let storage = Storage::folder(folder);
    let was_left_open = store::was_left_open(&storage, FILE);
    let mut reserve = Reserve::new(storage.clone(), config.storage.reserve);
    let open = || Db::open_or_salvage(&storage, seal.clone(), random.clone(), now);
    let (mut db, salvage) = match open() {
        Err(error) if error.is_disk_full() => {
            reserve.release();
            open()?
        }
        opened => opened?,
    };
    db.hand_out_keys_at(config.api.instant_key_url.clone());
    db.keep_for(retention(&config.retention));
    let signals = Signals::default();
    db.wake_deliveries(signals.clone());
    let home = keys::home(&mut db, now, &config.workspace.name, folder, &random)?;

    let mut certificates = Certificates {
        folder: folder.clone(),
        now,
        random: random.clone(),
        clock: clock.clone(),
        authority: None,
        leaves: Vec::new(),
    };
    let bridges_authority = Arc::new(Authority::open(folder, For::Bridges, now, &random)?);
    let api_tls = match config.api.plain {
        true => None,
        false => Some(certificates.acceptor(
            config.api.tls.as_ref(),
            &config.api.names,
            config.api.listen,
            None,
        )?),
    };
    let bridges = &config.bridges;
    let bridges_tls = certificates.acceptor(
        bridges.tls.as_ref(),
        &bridges.names,
        bridges.listen,
        Some(bridges_authority.verifier()?),
    )?;
    let listen = async |address, what| {
        net.listen(address).await.map_err(|source| CloudError::Listen { address, what, source })
    };
    let api_listener = listen(config.api.listen, "API").await?;
    let bridges_listener = listen(bridges.listen, "bridges").await?;
    // Not before both addresses are ours: whoever holds them may be serving from this database.
    db.all_bridges_down(now)?;
    let scheme = if config.api.plain { "http" } else { "https" };
    let api_url = format!("{scheme}://{}", reachable(api_listener.address()));
    let bridges_url = format!("wss://{}", reachable(bridges_listener.address()));

    let damage = (was_left_open && salvage.is_none()).then(|| store::examine_aside(storage.clone(), FILE));
    let (writer, handle) = Writer::start_with("cloud-db", db, Some(reserve));
    let (shutdown, stop) = watch::channel(false);
    let authority = match (&bridges.tls, &certificates.authority) {
        (None, Some(authority)) => Some(authority.pem()?),
        _ => None,
    };
    let desk = Desk {
        db: handle.clone(),
        signals: signals.clone(),
        clock: clock.clone(),
        random: random.clone(),
        workspace: home.workspace,
        authority: authority.clone(),
        url: address_for_sites(&bridges.names, bridges_listener.address()),
    };
    let admin_socket = folder.join(admin::SOCKET);
    let administration = admin::serve(&admin_socket, desk, stop.clone()).await?;
    let lifetimes = Lifetimes { certificate: bridges.certificate_lifetime, grace: bridges.renewal_grace };
    let enrolment = Enrolment::new(
        handle.clone(),
        signals.clone(),
        clock.clone(),
        bridges_authority,
        authority,
        lifetimes,
    );
    let reach = Reach { private: config.webhooks.private, loopback: config.webhooks.loopback };
    let post =
        Post { net: Arc::new(SystemNet), tls: tls::receivers(config.webhooks.ca_file.as_deref())?, reach };
    let deliveries =
        webhooks::deliver(handle.clone(), signals.clone(), clock.clone(), Arc::new(post), stop.clone());
    let parts = Parts {
        db: handle.clone(),
        signals: signals.clone(),
        api: (api_listener, api_tls),
        bridges: (bridges_listener, bridges_tls),
        clock: clock.clone(),
        random,
        settings: api::Settings {
            hold: config.api.hold.min(LONGEST_HOLD),
            hold_orders: config.api.hold_orders,
            reach,
            simulators: Simulators::new(
                config
                    .simulators
                    .iter()
                    .map(|simulator| (simulator.system.to_string(), simulator.control.clone())),
            ),
        },
        keep_idle_people: config.retention.identities,
    };
    let mut tasks = work_with(parts, Some(enrolment), &stop);
    tasks.spawn(administration);
    tasks.spawn(seams::task(deliveries));
    tasks.spawn(renew(certificates.leaves, clock, stop));
    Ok(Running {
        api: api_url,
        bridges: bridges_url,
        ca_file: certificates.authority.map(|authority| authority.file.clone()),
        api_key_file: home.api_key_file,
        admin_socket,
        fresh: home.fresh,
        db: handle,
        signals,
        shutdown,
        tasks,
        writer,
        storage,
        damage,
        _lock: lock,
    })
}

fn retention(config: &RetentionConfig) -> Retention {
    let length = |length: Duration| SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
    Retention {
        events: length(config.events),
        attempts: length(config.attempts),
        codes: length(config.codes),
        grants: Some(length(config.grants)),
    }
}

/// What a cloud works with.
pub struct Parts {
    /// The database, in which [`Db::all_bridges_down`] was noted.
    pub db: WriterHandle<Db>,
    /// What wakes hub and held requests.
    pub signals: Signals,
    /// Where the API is served, with TLS or in the clear.
    pub api: (Box<dyn Listener>, Option<TlsAcceptor>),
    /// Where bridges come in.
    pub bridges: (Box<dyn Listener>, TlsAcceptor),
    /// The host's clock.
    pub clock: Clock,
    /// For ids and nonces.
    pub random: Random,
    /// How the API answers.
    pub settings: api::Settings,
    /// For how long people without any access are kept; without it, until somebody deletes them.
    pub keep_idle_people: Option<Duration>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

/// Starts to serve, until `stop` turns true.
///
/// # Panics
/// Outside a tokio runtime.
pub fn work(parts: Parts, stop: &watch::Receiver<bool>) -> JoinSet<()> {
    work_with(parts, None, stop)
}

/// [`work`], where new bridges may be taken in.
///
/// # Panics
/// Outside a tokio runtime.
pub fn work_with(parts: Parts, enrolment: Option<Enrolment>, stop: &watch::Receiver<bool>) -> JoinSet<()> {
    let Parts { db, signals, api, bridges, clock, random, settings, keep_idle_people } = parts;
    let ((api_listener, api_tls), (bridges_listener, bridges_tls)) = (api, bridges);
    let api = Api::new(db.clone(), signals.clone(), clock.clone(), random.clone(), settings, stop.clone());
    let hub = hub::serve_at(
        Entrance { listener: bridges_listener, tls: bridges_tls, enrolment },
        db.clone(),
        signals.clone(),
        clock.clone(),
        random.clone(),
        stop.clone(),
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(seams::task(api::serve(api_listener, api_tls, Arc::new(api), stop.clone())));
    tasks.spawn(seams::task(hub));
    tasks.spawn(seams::task(end_overdue(db.clone(), signals, clock.clone(), stop.clone())));
    tasks.spawn(seams::task(forget(db, clock, keep_idle_people, stop.clone())));
    tasks
}

/// An address that a program on this machine can connect to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// What a person types at a site to reach the bridges' listener: as far as it can be known here.
fn address_for_sites(names: &[String], address: SocketAddr) -> String {
    let port = address.port();
    match names.first() {
        Some(name) => format!("https://{name}:{port}"),
        None if address.ip().is_unspecified() => format!("https://ADDRESS-OF-THIS-MACHINE:{port}"),
        None => format!("https://{address}"),
    }
}

impl Running {
    /// Waits until the database is found to be damaged, and gives how. It is marked then, so that the next start saves
    /// what can be read; this one has to be stopped.
    pub async fn damaged(&mut self) -> String {
        let mut health = self.db.health();
        let stumbled = async {
            match health.wait_for(|health| health.is_damaged).await {
                Ok(_) => "a statement stumbled over it".to_owned(),
                Err(_) => std::future::pending().await,
            }
        };
        let found = async {
            match &mut self.damage {
                Some(damage) => match damage.await {
                    Ok(what) => what,
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        let what = tokio::select! {
            biased;
            what = found => what,
            what = stumbled => what,
        };
        if let Err(error) = store::mark_damaged(&self.storage, FILE, &what) {
            tracing::error!(error = error.chain(), "the damaged file could not be marked");
        }
        what
    }

    /// Stops: requests under way end, the database is closed.
    pub async fn stop(mut self) {
        // Every receiver may be gone already: then there is nobody to tell.
        let _ = self.shutdown.send(true);
        while self.tasks.join_next().await.is_some() {}
        drop(self.db);
        let writer = self.writer;
        // The writer may be at a sync: not on the runtime's thread.
        let _ = tokio::task::spawn_blocking(move || writer.join()).await;
    }
}

/// Certificates as they are asked for; our own authority is made only if somebody needs it.
struct Certificates {
    folder: PathBuf,
    now: Timestamp,
    random: Random,
    clock: Clock,
    authority: Option<Arc<Authority>>,
    leaves: Vec<Arc<Leaf>>,
}

impl Certificates {
    fn acceptor(
        &mut self,
        operators: Option<&TlsFiles>,
        names: &[String],
        listen: SocketAddr,
        clients: Clients,
    ) -> Result<TlsAcceptor, TlsError> {
        let config = match operators {
            Some(files) => tls::operators(files, clients, self.clock.clone())?,
            None => {
                let authority = match &self.authority {
                    Some(authority) => Arc::clone(authority),
                    None => {
                        let made =
                            Arc::new(Authority::open(&self.folder, For::Servers, self.now, &self.random)?);
                        self.authority.insert(made).clone()
                    }
                };
                let leaf = Leaf::new(&authority, tls::default_names(names, listen.ip()), self.now)?;
                self.leaves.push(Arc::clone(&leaf));
                tls::server(leaf, clients, self.clock.clone())?
            }
        };
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Sleeps until the next deadline, or until something changed that may have brought a nearer one.
async fn end_overdue(db: WriterHandle<Db>, signals: Signals, clock: Clock, mut stop: watch::Receiver<bool>) {
    let mut changes = signals.changes();
    while !*stop.borrow() {
        changes.mark_unchanged();
        let now = clock.now();
        let pause = match db.run(move |db| db.end_overdue(now)).await {
            Ok(overdue) => {
                if overdue.changed {
                    signals.state_changed();
                }
                if overdue.changed || overdue.concerns_bridges {
                    signals.orders_queued();
                }
                let left = overdue
                    .next
                    .map(|next| Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO));
                left.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
            }
            Err(StoreError::Stopped) => return,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "overdue attempts could not be ended"
                );
                AFTER_TROUBLE
            }
        };
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

/// Forgets what is long over, slice by slice, with room for others in between.
async fn forget(
    db: WriterHandle<Db>,
    clock: Clock,
    keep_idle_people: Option<Duration>,
    mut stop: watch::Receiver<bool>,
) {
    while !*stop.borrow() {
        let now = clock.now();
        let idle_since = keep_idle_people.and_then(|kept| now.checked_sub(kept).ok());
        let forget = move |db: &mut Db| {
            let people = db.forget_people(now, idle_since)?;
            Ok(db.forget(now)? || people)
        };
        let pause = match db.run(forget).await {
            Ok(true) => BETWEEN_SLICES,
            Ok(false) => FORGETTING,
            Err(StoreError::Stopped) => return,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "what is long over could not be forgotten"
                );
                FORGETTING
            }
        };
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            () = sleep(pause) => {}
        }
    }
}

async fn renew(leaves: Vec<Arc<Leaf>>, clock: Clock, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        for leaf in &leaves {
            match leaf.renew(clock.now()) {
                Ok(false) => {}
                Ok(true) => tracing::info!("a certificate was made anew"),
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a certificate could not be made anew"
                ),
            }
        }
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            () = sleep(RENEWAL) => {}
        }
    }
}
