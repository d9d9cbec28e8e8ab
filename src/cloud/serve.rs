//! The cloud put together: database, certificates, two listeners, and the clock that ends what nobody else ends.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_rustls::TlsAcceptor;

use super::{
    Signals,
    api::{self, Api},
    hub,
    keys::{self, Fresh, KeyError},
    store::Db,
    tls::{self, Authority, Leaf, TlsError},
};
use crate::{
    config::{CloudConfig, TlsFiles},
    seal::{SealError, SealKey},
    seams::{Clock, Net, Random, Storage},
    store::{FolderLock, StoreError, Writer, WriterHandle, make_folder},
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
    /// The file with the bridge's token.
    pub bridge_token_file: PathBuf,
    /// The secrets that this start made, if it was the first.
    pub fresh: Option<Fresh>,
    /// The database.
    pub db: WriterHandle<Db>,
    /// What wakes hub and held requests.
    pub signals: Signals,
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<()>,
    writer: Writer,
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
    let mut db = Db::open(&Storage::folder(folder), seal, random.clone())?;
    let home = keys::home(&mut db, now, &config.workspace.name, folder, &random)?;

    let mut certificates = Certificates {
        folder: folder.clone(),
        now,
        random: random.clone(),
        authority: None,
        leaves: Vec::new(),
    };
    let api_tls = match config.api.plain {
        true => None,
        false => {
            Some(certificates.acceptor(config.api.tls.as_ref(), &config.api.names, config.api.listen)?)
        }
    };
    let bridges = &config.bridges;
    let bridges_tls = certificates.acceptor(bridges.tls.as_ref(), &bridges.names, bridges.listen)?;
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

    let (writer, handle) = Writer::start("cloud-db", db);
    let signals = Signals::default();
    let (shutdown, stop) = watch::channel(false);
    let api = Arc::new(Api::new(
        handle.clone(),
        signals.clone(),
        clock.clone(),
        random,
        config.api.hold.min(LONGEST_HOLD),
        stop.clone(),
    ));
    let mut tasks = JoinSet::new();
    tasks.spawn(api::serve(api_listener, api_tls, api, stop.clone()));
    tasks.spawn(hub::serve(
        bridges_listener,
        bridges_tls,
        handle.clone(),
        signals.clone(),
        clock.clone(),
        stop.clone(),
    ));
    tasks.spawn(end_overdue(handle.clone(), signals.clone(), clock.clone(), stop.clone()));
    tasks.spawn(forget(handle.clone(), clock.clone(), stop.clone()));
    tasks.spawn(renew(certificates.leaves, clock, stop));
    Ok(Running {
        api: api_url,
        bridges: bridges_url,
        ca_file: certificates.authority.map(|authority| authority.file.clone()),
        api_key_file: home.api_key_file,
        bridge_token_file: home.bridge_token_file,
        fresh: home.fresh,
        db: handle,
        signals,
        shutdown,
        tasks,
        writer,
        _lock: lock,
    })
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

impl Running {
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
    authority: Option<Arc<Authority>>,
    leaves: Vec<Arc<Leaf>>,
}

impl Certificates {
    fn acceptor(
        &mut self,
        operators: Option<&TlsFiles>,
        names: &[String],
        listen: SocketAddr,
    ) -> Result<TlsAcceptor, TlsError> {
        let config = match operators {
            Some(files) => tls::operators(files)?,
            None => {
                let authority = match &self.authority {
                    Some(authority) => Arc::clone(authority),
                    None => {
                        let made = Arc::new(Authority::open(&self.folder, self.now, &self.random)?);
                        self.authority.insert(made).clone()
                    }
                };
                let leaf = Leaf::new(&authority, tls::default_names(names, listen.ip()), self.now)?;
                self.leaves.push(Arc::clone(&leaf));
                tls::server(leaf)?
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
async fn forget(db: WriterHandle<Db>, clock: Clock, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let now = clock.now();
        let pause = match db.run(move |db| db.forget(now)).await {
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
