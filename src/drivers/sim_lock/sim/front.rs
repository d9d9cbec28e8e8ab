//! Several locks with their ports and one control socket, in one folder.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

use super::{
    control::HELP,
    lock::SettingsError,
    server::{Settings, Simulator},
};
use crate::{
    seams::{Clock, Net},
    sim::control::{self, ControlError},
};

/// Where the locks are to be reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the control socket; made if need be.
    pub folder: PathBuf,
    /// Where the first lock is reached; the others at the ports behind it, or at free ones for port 0.
    pub tcp: SocketAddr,
}

/// Why the locks cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The folder cannot be used.
    #[error("use folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There are more locks than ports behind the first one's.
    #[error("{locks} locks from {from} on need ports above 65535")]
    Ports {
        /// How many locks there are.
        locks: usize,
        /// Where the first is to be.
        from: SocketAddr,
    },
    /// A port cannot be had.
    #[error("listen at {address}")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Where the locks are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Places {
    /// Each lock.
    pub locks: Vec<LockPlace>,
    /// The control socket.
    pub control: PathBuf,
}

/// Where one lock is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockPlace {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
}

/// Several locks. Cheap to clone; all clones are one house.
#[derive(Debug, Clone)]
pub struct House(Arc<Rooms>);

#[derive(Debug)]
struct Rooms {
    locks: Vec<Simulator>,
    places: Mutex<Vec<LockPlace>>,
    quit: watch::Sender<bool>,
}

impl House {
    /// `count` locks like `first`, named and numbered from 1; with a folder, each with its journal there.
    ///
    /// # Errors
    /// Those of [`Simulator::new`].
    pub fn new(
        count: usize,
        first: &Settings,
        folder: Option<&Path>,
        clock: &Clock,
    ) -> Result<Self, SettingsError> {
        let lock = |number: usize| {
            let name = format!("lock-{number}");
            let settings = Settings {
                serial: format!("SL-{number:04}"),
                journal: folder.map(|folder| folder.join(format!("{name}.journal"))),
                name,
                ..first.clone()
            };
            Simulator::new(&settings, clock.clone())
        };
        Ok(Self(Arc::new(Rooms {
            locks: (1..=count).map(lock).collect::<Result<_, _>>()?,
            places: Mutex::default(),
            quit: watch::Sender::new(false),
        })))
    }

    /// Its locks.
    #[must_use]
    pub fn locks(&self) -> &[Simulator] {
        &self.0.locks
    }

    /// Carries out one command of the control socket. `help` lists them.
    ///
    /// # Errors
    /// What went wrong, in words for a person.
    pub async fn command(&self, line: &str) -> Result<Value, String> {
        let line = line.trim();
        match line {
            "help" => return Ok(json!({ "help": HELP.lines().collect::<Vec<_>>() })),
            "locks" => {
                return Ok(json!({ "locks": self.locks().iter().map(Simulator::name).collect::<Vec<_>>() }));
            }
            "agent-config" => return Ok(json!({ "toml": self.agent_section() })),
            "quit" => {
                self.0.quit.send_replace(true);
                return Ok(json!({}));
            }
            _ => {}
        }
        let Some(rest) = line.strip_prefix("at ") else {
            let first = self.locks().first().ok_or("there is no lock")?;
            return first.command(line).await;
        };
        let (name, command) = rest.trim().split_once(' ').ok_or("usage: at LOCK COMMAND")?;
        let lock = self.locks().iter().find(|lock| lock.name() == name);
        lock.ok_or_else(|| format!("there is no lock {name:?}"))?.command(command).await
    }

    /// The `[[system]]` section for an agent.
    fn agent_section(&self) -> String {
        let places = self.0.places.lock().expect("no panic while held");
        let locks: Vec<_> = places
            .iter()
            .map(|place| format!("    {{ name = \"{}\", address = \"{}\" }},\n", place.name, place.address))
            .collect();
        format!("[[system]]\nname = \"locks\"\nkind = \"sim_lock\"\nlocks = [\n{}]\n", locks.concat())
    }
}

/// Locks that can be reached. Dropping it hangs up on everybody; [`Front::close`] also waits for that.
#[derive(Debug)]
pub struct Front {
    house: House,
    places: Places,
    tasks: JoinSet<()>,
}

impl Front {
    /// Opens the ports and the control socket.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn open(house: House, net: &dyn Net, options: &Options) -> Result<Self, FrontError> {
        let Options { folder, tcp } = options;
        if !folder.is_dir() {
            make_private(folder).map_err(|source| FrontError::Folder { path: folder.clone(), source })?;
        }
        let control = folder.join("lock.ctl");
        let socket = control::listen(&control)?;
        let mut front = Self {
            house: house.clone(),
            places: Places { locks: Vec::new(), control },
            tasks: JoinSet::new(),
        };
        for (number, lock) in house.locks().iter().enumerate() {
            let port = match tcp.port() {
                0 => 0,
                first => u16::try_from(number)
                    .ok()
                    .and_then(|number| first.checked_add(number))
                    .ok_or(FrontError::Ports { locks: house.locks().len(), from: *tcp })?,
            };
            let address = SocketAddr::new(tcp.ip(), port);
            let listener = net.listen(address).await.map_err(|source| FrontError::Tcp { address, source })?;
            let place = LockPlace { name: lock.name().to_owned(), address: listener.address() };
            front.places.locks.push(place);
            let lock = lock.clone();
            front.tasks.spawn(async move { lock.accept(listener).await });
        }
        house.0.places.lock().expect("no panic while held").clone_from(&front.places.locks);
        front.tasks.spawn(async move {
            let obey = move |line: String| {
                let house = house.clone();
                async move { house.command(&line).await }
            };
            control::serve(socket, obey).await;
        });
        Ok(front)
    }

    /// Where they are reached.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Waits until somebody says `quit`.
    pub async fn ended(&self) {
        let mut quit = self.house.0.quit.subscribe();
        // The sender lives as long as the house.
        let _ = quit.wait_for(|quit| *quit).await;
    }

    /// Hangs up on everybody and removes the socket.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _gone_is_fine = std::fs::remove_file(&self.places.control);
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}
