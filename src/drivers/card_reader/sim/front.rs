//! The reader with its lines and its control socket, in one folder.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tokio::{net::TcpListener, task::JoinSet};

use super::server::Reader;
use crate::sim::{
    Pty,
    control::{self, ControlError},
};

/// Where the reader is to be reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder for the port's link and the control socket; made if need be.
    pub folder: PathBuf,
    /// Whether there is a serial port.
    pub pty: bool,
    /// Where a TCP client is accepted, one after the other; port 0 takes a free one.
    pub tcp: Option<SocketAddr>,
}

/// Why the reader cannot be reached.
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

/// Where the reader is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Places {
    /// The serial port's link.
    pub tty: Option<PathBuf>,
    /// The TCP address.
    pub tcp: Option<SocketAddr>,
    /// The control socket.
    pub control: PathBuf,
}

/// A reader that can be reached, until this is dropped.
#[derive(Debug)]
pub struct Front {
    reader: Reader,
    places: Places,
    tasks: JoinSet<Result<(), FrontError>>,
}

impl Front {
    /// Opens the lines and the control socket.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn open(reader: Reader, options: Options) -> Result<Self, FrontError> {
        let Options { folder, pty, tcp } = options;
        if !folder.is_dir() {
            let made = std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)));
            made.map_err(|source| FrontError::Folder { path: folder.clone(), source })?;
        }
        let control = folder.join("pn532.ctl");
        let socket = control::listen(&control)?;
        let mut front = Self {
            reader: reader.clone(),
            places: Places { tty: None, tcp: None, control },
            tasks: JoinSet::new(),
        };
        if pty {
            let link = folder.join("pn532.tty");
            let first = publish(&link)?;
            front.places.tty = Some(link.clone());
            front.tasks.spawn(serial(reader.clone(), link, first));
        }
        if let Some(address) = tcp {
            let refused = |source| FrontError::Tcp { address, source };
            let listener = TcpListener::bind(address).await.map_err(refused)?;
            front.places.tcp = Some(listener.local_addr().map_err(refused)?);
            let reader = reader.clone();
            front.tasks.spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => reader.serve(stream).await,
                        Err(error) => tracing::warn!(%error, "client not accepted"),
                    }
                }
            });
        }
        front.tasks.spawn(async move {
            let obey = move |line: String| {
                let reader = reader.clone();
                async move { reader.command(&line).await }
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

    /// Waits until somebody says `quit`, or the port cannot be published again.
    ///
    /// # Errors
    /// When the port cannot be published again.
    pub async fn ended(&mut self) -> Result<(), FrontError> {
        tokio::select! {
            biased;
            () = self.reader.told_to_quit() => Ok(()),
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

fn publish(link: &Path) -> Result<Pty, FrontError> {
    Pty::open(link).map_err(|source| FrontError::Serial { path: link.to_owned(), source })
}

async fn serial(reader: Reader, link: PathBuf, first: Pty) -> Result<(), FrontError> {
    let mut pty = first;
    loop {
        reader.serve(pty).await;
        reader.until(|state| state.plugged.then_some(())).await;
        pty = publish(&link)?;
    }
}
