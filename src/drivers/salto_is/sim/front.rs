//! The simulator with its lines and its control socket, in one folder.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tokio::{net::TcpListener, task::JoinSet};

use super::server::{Ended, Line, Simulator};
use crate::sim::{
    Pty,
    control::{self, ControlError},
};

/// Where the simulator is to be reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder for the port's link and the control socket; made if need be.
    pub folder: PathBuf,
    /// Whether there is a serial port.
    pub pty: bool,
    /// Where TCP clients are accepted; port 0 takes a free one.
    pub tcp: Option<SocketAddr>,
}

/// Why the simulator cannot be reached.
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
    /// The serial port cannot be made.
    #[error("publish a serial port at {}", path.display())]
    Serial {
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The TCP port cannot be had.
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

/// Where the simulator is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Places {
    /// The serial port's link.
    pub tty: Option<PathBuf>,
    /// The TCP address.
    pub tcp: Option<SocketAddr>,
    /// The control socket.
    pub control: PathBuf,
}

/// A simulator that can be reached. Dropping it unplugs everything; [`Front::close`] also waits until it is unplugged.
#[derive(Debug)]
pub struct Front {
    simulator: Simulator,
    places: Places,
    tasks: JoinSet<Result<(), FrontError>>,
}

impl Front {
    /// Opens the lines and the control socket.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn open(simulator: Simulator, options: Options) -> Result<Self, FrontError> {
        let Options { folder, pty, tcp } = options;
        if !folder.is_dir() {
            make_private(&folder).map_err(|source| FrontError::Folder { path: folder.clone(), source })?;
        }
        let control = folder.join("salto-is.ctl");
        let socket = control::listen(&control)?;
        let mut front = Self {
            simulator: simulator.clone(),
            places: Places { tty: None, tcp: None, control },
            tasks: JoinSet::new(),
        };
        if pty {
            let link = folder.join("salto-is.tty");
            let first = publish(&simulator, &link)?;
            front.places.tty = Some(link.clone());
            simulator.change(|state, _| state.tty = Some(link.clone()));
            front.tasks.spawn(serial(simulator.clone(), link, first));
        }
        if let Some(address) = tcp {
            let refused = |source| FrontError::Tcp { address, source };
            let listener = TcpListener::bind(address).await.map_err(refused)?;
            let address = listener.local_addr().map_err(refused)?;
            front.places.tcp = Some(address);
            simulator.change(|state, _| state.address = Some(address));
            let simulator = simulator.clone();
            front.tasks.spawn(async move {
                simulator.accept(listener).await;
                Ok(())
            });
        }
        front.tasks.spawn(async move {
            let obey = move |line: String| {
                let simulator = simulator.clone();
                async move { simulator.command(&line).await }
            };
            control::serve(socket, obey).await;
            Ok(())
        });
        Ok(front)
    }

    /// Where it is reached.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The server behind it.
    #[must_use]
    pub fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    /// Waits until somebody says `quit`, or a line cannot be published again.
    ///
    /// # Errors
    /// When a line cannot be published again.
    pub async fn ended(&mut self) -> Result<(), FrontError> {
        tokio::select! {
            biased;
            () = self.simulator.told_to_quit() => Ok(()),
            Some(Ok(ended)) = self.tasks.join_next() => ended,
        }
    }

    /// Unplugs everything and removes the link and the socket.
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

fn publish(simulator: &Simulator, link: &Path) -> Result<Pty, FrontError> {
    let pty = Pty::open(link).map_err(|source| FrontError::Serial { path: link.to_owned(), source })?;
    simulator.change(|state, _| state.serial.published = Some(true));
    Ok(pty)
}

async fn serial(simulator: Simulator, link: PathBuf, first: Pty) -> Result<(), FrontError> {
    let mut pty = first;
    loop {
        let ended = simulator.serve(pty, Line::Serial).await;
        simulator.change(|state, _| {
            state.serial.published = Some(false);
            // Whoever was told to hang up stays away until plugged in again.
            state.serial.up &= ended == Ended::Unplugged;
        });
        simulator.until(|state| state.serial.up.then_some(())).await;
        pty = publish(&simulator, &link)?;
    }
}
