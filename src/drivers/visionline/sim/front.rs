//! The simulator with its port and its control socket, in one folder.

use std::{io, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf};

use serde::Serialize;
use tokio::task::JoinSet;

use super::server::Simulator;
use crate::{
    seams::Net,
    sim::control::{self, ControlError},
};

/// Where the simulator is to be reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder for the control socket and the Web API's password; made if need be.
    pub folder: PathBuf,
    /// Where clients are accepted; port 0 takes a free one.
    pub tcp: SocketAddr,
    /// Where clients of the Web API are accepted, if anywhere.
    pub web: Option<SocketAddr>,
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
    /// The port cannot be had.
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
    /// The TCP address.
    pub tcp: SocketAddr,
    /// The Web API's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web: Option<SocketAddr>,
    /// The control socket.
    pub control: PathBuf,
}

/// A simulator that can be reached, until it is dropped.
#[derive(Debug)]
pub struct Front {
    simulator: Simulator,
    places: Places,
    tasks: JoinSet<()>,
}

impl Front {
    /// Opens the port and the control socket.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn open(simulator: Simulator, net: &dyn Net, options: Options) -> Result<Self, FrontError> {
        let Options { folder, tcp, web } = options;
        if !folder.is_dir() {
            let made = std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)));
            made.map_err(|source| FrontError::Folder { path: folder.clone(), source })?;
        }
        let listener = net.listen(tcp).await.map_err(|source| FrontError::Tcp { address: tcp, source })?;
        let web = match web {
            Some(web) => {
                let listened = net.listen(web).await;
                Some(listened.map_err(|source| FrontError::Tcp { address: web, source })?)
            }
            None => None,
        };
        let control = folder.join("visionline.ctl");
        let socket = control::listen(&control)?;
        let tcp = listener.address();
        let web_address = web.as_ref().map(|listener| listener.address());
        if let Some(address) = web_address {
            let path = folder.join("visionline-web-password");
            let password = simulator.look(|state| state.property.web_password.clone());
            std::fs::write(&path, password)
                .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)))
                .map_err(|source| FrontError::Folder { path: folder.clone(), source })?;
            simulator.change(|state, _| state.web_at = Some((address, path)));
        }
        simulator.change(|state, _| state.address = Some(tcp));
        let mut tasks = JoinSet::new();
        let (server, obeying) = (simulator.clone(), simulator.clone());
        tasks.spawn(async move { server.accept(listener).await });
        if let Some(listener) = web {
            let server = simulator.clone();
            tasks.spawn(async move { server.accept_web(listener).await });
        }
        tasks.spawn(async move {
            let obey = move |line: String| {
                let simulator = obeying.clone();
                async move { simulator.command(&line).await }
            };
            control::serve(socket, obey).await;
        });
        Ok(Self { simulator, places: Places { tcp, web: web_address, control }, tasks })
    }

    /// Where it is reached.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Waits until somebody says `quit`.
    pub async fn ended(&self) {
        self.simulator.told_to_quit().await;
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
