//! The port at which a record is played.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::JoinSet,
};

use super::Script;
use crate::{
    seams::{Listener, Net, Stream},
    sim::control::{self, ControlError},
};

const HELP: &str = "\
ledger    how far the story is, how many requests were answered, and what was refused
quit";

/// The longest request over HTTP.
const LONGEST: usize = 64 * 1024;
/// How many refusals the ledger keeps.
const KEPT: usize = 100;

/// Where the record is to be played.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder for the control socket; made if need be.
    pub folder: PathBuf,
    /// Where clients are accepted; port 0 takes a free one.
    pub tcp: SocketAddr,
}

/// Where it is played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Places {
    /// Which make was recorded.
    pub protocol: String,
    /// The TCP address.
    pub tcp: SocketAddr,
    /// The control socket.
    pub control: PathBuf,
}

/// Why it cannot be played there.
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

#[derive(Debug)]
struct Player {
    script: Script,
    state: Mutex<State>,
    told_to_quit: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The next step of the story.
    at: usize,
    /// Lines that are open.
    open: u64,
    answered: u64,
    refused: Vec<String>,
}

impl Player {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = clients.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _from)) => {
                        let player = Arc::clone(&self);
                        clients.spawn(async move { player.serve(stream).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "client not accepted");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }

    async fn serve(&self, mut stream: Box<dyn Stream>) {
        {
            let mut state = self.state();
            if state.open == 0 {
                state.at = 0;
            }
            state.open += 1;
        }
        let ended = match self.script.is_http {
            true => self.answer(&mut stream).await,
            false => self.tell(&mut stream).await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a client's line broke");
        }
        self.state().open -= 1;
    }

    /// The story, over a plain line, until the client hangs up or says what was not recorded.
    async fn tell(&self, stream: &mut Box<dyn Stream>) -> io::Result<()> {
        let mut heard = Vec::new();
        let mut part = [0; 1024];
        loop {
            let turn = self.script.go_on(&mut self.state().at, &mut heard);
            stream.write_all(&turn.say).await?;
            if let Some(why) = turn.refused {
                self.refuse(why);
                return Ok(());
            }
            match stream.read(&mut part).await? {
                0 => return Ok(()),
                count => heard.extend_from_slice(&part[..count]),
            }
        }
    }

    /// One request over HTTP.
    async fn answer(&self, stream: &mut Box<dyn Stream>) -> io::Result<()> {
        let Some((query, body)) = request(stream).await? else {
            self.refuse("no request over HTTP, or one that is too long".into());
            return Ok(());
        };
        let answer = match self.script.answer(&query, &body) {
            Some((status, body)) => {
                self.state().answered += 1;
                [&head(status, body.len())[..], body].concat()
            }
            None => {
                let what = if body.is_empty() { query.into_bytes() } else { body };
                self.refuse(format!("was not recorded: {}", super::shown(&what)));
                head(404, 0)
            }
        };
        stream.write_all(&answer).await?;
        let _closed_by_the_client = stream.read(&mut [0; 64]).await;
        Ok(())
    }

    fn refuse(&self, why: String) {
        tracing::info!(why, "refused");
        let mut state = self.state();
        if state.refused.len() < KEPT {
            state.refused.push(why);
        }
    }

    fn command(&self, line: &str) -> Result<Value, String> {
        match line {
            "help" => Ok(json!({ "help": HELP.lines().collect::<Vec<_>>() })),
            "ledger" => {
                let state = self.state();
                Ok(json!({
                    "step": state.at,
                    "steps": self.script.steps.len(),
                    "answered": state.answered,
                    "refused": state.refused,
                }))
            }
            "quit" => {
                self.told_to_quit.notify_one();
                Ok(json!({}))
            }
            _ => Err("not understood; see help".into()),
        }
    }
}

fn head(status: u16, length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} Recorded\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// A request's query and its body; none where it is no request.
async fn request(stream: &mut Box<dyn Stream>) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut part = [0; 1024];
    loop {
        let count = stream.read(&mut part).await?;
        bytes.extend_from_slice(&part[..count]);
        if count == 0 || LONGEST < bytes.len() {
            return Ok(None);
        }
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.lines();
        let Some(target) = lines.next().and_then(|line| line.split(' ').nth(1)) else { return Ok(None) };
        let query = target.split_once('?').map_or(String::new(), |(_, query)| query.to_owned());
        let length = lines.filter_map(|line| line.split_once(':'));
        let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let Ok(length) = length.next().map_or(Ok(0), |(_, value)| value.trim().parse::<usize>()) else {
            return Ok(None);
        };
        let body = &bytes[end + 4..];
        if body.len() >= length {
            return Ok(Some((query, body[..length].to_vec())));
        }
    }
}

/// A record that is played, until this is dropped.
#[derive(Debug)]
pub struct Front {
    player: Arc<Player>,
    places: Places,
    tasks: JoinSet<()>,
}

impl Front {
    /// Opens the port and the control socket.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn open(script: Script, net: &dyn Net, options: Options) -> Result<Self, FrontError> {
        let Options { folder, tcp } = options;
        std::fs::create_dir_all(&folder)
            .map_err(|source| FrontError::Folder { path: folder.clone(), source })?;
        let listener = net.listen(tcp).await.map_err(|source| FrontError::Tcp { address: tcp, source })?;
        let control = folder.join("script.ctl");
        let socket = control::listen(&control)?;
        let places = Places { protocol: script.protocol().to_owned(), tcp: listener.address(), control };
        let player = Arc::new(Player { script, state: Mutex::default(), told_to_quit: Notify::new() });
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&player).accept(listener));
        let obeying = Arc::clone(&player);
        tasks.spawn(async move {
            let obey = move |line: String| {
                let player = Arc::clone(&obeying);
                async move { player.command(&line) }
            };
            control::serve(socket, obey).await;
        });
        Ok(Self { player, places, tasks })
    }

    /// Where it is reached.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Waits until somebody says `quit`.
    pub async fn ended(&self) {
        self.player.told_to_quit.notified().await;
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
