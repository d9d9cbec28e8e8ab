//! The boards with their ports and their control socket, in one folder.

use std::{io, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use serde::Serialize;
use tokio::{net::UdpSocket, task::JoinSet};

use super::server::House;
use crate::{
    seams::Net,
    sim::control::{self, ControlError},
};

/// With a free port for UDP, the same may be taken for TCP: so many are tried.
const TRIES: u32 = 20;

/// Where the boards are to be reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder for the control socket; made if need be.
    pub folder: PathBuf,
    /// Where all of them are reached, by UDP and by TCP; port 0 takes a free one.
    pub address: SocketAddr,
}

/// Why the boards cannot be reached.
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
    /// The port cannot be had.
    #[error("listen at {address}")]
    Port {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The control socket cannot be had.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Where the boards are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Places {
    /// By UDP and by TCP.
    pub address: SocketAddr,
    /// Their serial numbers.
    pub boards: Vec<u32>,
    /// The control socket.
    pub control: PathBuf,
}

/// Boards that can be reached, until this is dropped.
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
    pub async fn open(house: House, net: &dyn Net, options: Options) -> Result<Self, FrontError> {
        let Options { folder, address } = options;
        if !folder.is_dir() {
            let made = std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)));
            made.map_err(|source| FrontError::Folder { path: folder.clone(), source })?;
        }
        let control = folder.join("uhppote.ctl");
        let commands = control::listen(&control)?;
        let mut tried = 1;
        let (udp, tcp) = loop {
            let port = |source| FrontError::Port { address, source };
            let udp = UdpSocket::bind(address).await.map_err(port)?;
            let bound = udp.local_addr().map_err(port)?;
            match net.listen(bound).await {
                Ok(tcp) => break (udp, tcp),
                Err(_taken) if address.port() == 0 && tried < TRIES => tried += 1,
                Err(source) => return Err(port(source)),
            }
        };
        let places = Places { address: tcp.address(), boards: house.serials(), control };
        let mut tasks = JoinSet::new();
        let boards = house.clone();
        tasks.spawn(async move { boards.serve_udp(Arc::new(udp)).await });
        let boards = house.clone();
        tasks.spawn(async move { boards.serve_tcp(tcp).await });
        let boards = house.clone();
        tasks.spawn(control::serve(commands, move |line: String| {
            let boards = boards.clone();
            async move { boards.command(&line).await }
        }));
        Ok(Self { house, places, tasks })
    }

    /// Where they are reached.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Waits until somebody says `quit`.
    pub async fn ended(&self) {
        self.house.told_to_quit().await;
    }

    /// Hangs up on everybody, and removes the socket.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _gone_is_fine = std::fs::remove_file(&self.places.control);
    }
}
