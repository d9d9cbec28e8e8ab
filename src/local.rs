//! Local administration: a Unix socket whose file permissions decide who may use it, and one JSON object a line each way,
//! each with the version of its language as `latchd`.
//!
//! This room carries lines. It knows neither a question nor an answer.

use std::{
    fs,
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};

use crate::seams;

/// More wait in the kernel's backlog until one of these is done.
const CLIENTS: usize = 16;
/// A client that says nothing, or does not read, makes room for others.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One line of a language.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line<T> {
    /// The version of the language.
    #[serde(rename = "latchd")]
    pub version: u16,
    /// What is said.
    #[serde(flatten)]
    pub body: T,
}

impl<T: Serialize> Line<T> {
    /// The bytes of a line.
    ///
    /// # Panics
    /// Where the body is not of what JSON can carry.
    pub fn bytes(version: u16, body: T) -> Vec<u8> {
        let line = Self { version, body };
        let mut line = serde_json::to_vec(&line).expect("a line has string keys only");
        line.push(b'\n');
        line
    }
}

/// Why a line is not a question that can be answered.
#[derive(Debug, thiserror::Error)]
pub enum NotUnderstood {
    /// It is of another version.
    #[error("the question is of version {0}")]
    Version(u16),
    /// It is no question of this version.
    #[error("not a question: {0}")]
    Malformed(serde_json::Error),
}

/// Reads a question of this version.
///
/// # Errors
/// Why it is none.
pub fn understood<T: DeserializeOwned>(line: &[u8], version: u16) -> Result<T, NotUnderstood> {
    #[derive(Deserialize)]
    struct Any {
        #[serde(rename = "latchd")]
        version: u16,
    }
    // The version first: a newer client may ask what this one cannot parse.
    let Any { version: found } = serde_json::from_slice(line).map_err(NotUnderstood::Malformed)?;
    if found != version {
        return Err(NotUnderstood::Version(found));
    }
    let line: Line<T> = serde_json::from_slice(line).map_err(NotUnderstood::Malformed)?;
    Ok(line.body)
}

/// What a client has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line, or its beginning where the client hung up in the middle.
    Line(Vec<u8>),
    /// More than a line may have.
    TooLong,
    /// Nothing, for too long or for ever.
    Nothing,
}

/// Waits for a client's next line of at most `longest` bytes.
pub async fn hear(client: &mut (impl AsyncBufRead + Unpin), longest: usize) -> Heard {
    let mut line = Vec::new();
    let limit = u64::try_from(longest).unwrap_or(u64::MAX);
    let heard = timeout(PATIENCE, client.take(limit).read_until(b'\n', &mut line)).await;
    match heard {
        Err(_) | Ok(Err(_) | Ok(0)) => Heard::Nothing,
        Ok(Ok(_)) if !line.ends_with(b"\n") && line.len() >= longest => Heard::TooLong,
        Ok(Ok(_)) => Heard::Line(line),
    }
}

/// Why a socket cannot be made.
#[derive(Debug)]
pub enum NotBound {
    /// The system says no.
    Failed(io::Error),
    /// Somebody answers there.
    Occupied,
    /// Something that is not a socket stands in its place.
    NotASocket,
}

/// A socket, bound; its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Binds a socket with this mode and puts it in its place, over one that a dead process left behind.
    ///
    /// # Errors
    /// When somebody answers there, something else stands there, or the system says no.
    pub async fn bind(path: &Path, mode: u32) -> Result<Self, NotBound> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(NotBound::NotASocket),
            Ok(_) => match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(NotBound::Failed(error));
                }
                // A full backlog is somebody too.
                _ => return Err(NotBound::Occupied),
            },
            Err(_) => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).map_err(NotBound::Failed)?;
                }
            }
        }
        // Made under another name, then renamed: nobody ever meets it with other permissions, and there is no moment
        // without a socket.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let made = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let _ = fs::remove_file(&made);
        let listener = UnixListener::bind(&made).map_err(NotBound::Failed)?;
        let placed = fs::set_permissions(&made, fs::Permissions::from_mode(mode))
            .and_then(|()| fs::rename(&made, path))
            .and_then(|()| fs::symlink_metadata(path));
        match placed {
            Ok(placed) => Ok(Self { listener, path: path.into(), inode: placed.ino() }),
            Err(error) => {
                let _ = fs::remove_file(&made);
                Err(NotBound::Failed(error))
            }
        }
    }

    /// Has each client conversed with until `shutdown`; then conversations end and the socket's file goes.
    pub async fn serve<F>(self, converse: impl Fn(UnixStream) -> F, shutdown: impl Future<Output = ()>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut shutdown = pin!(shutdown);
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(_) = clients.join_next() => {}
                accepted = self.listener.accept(), if clients.len() < CLIENTS => match accepted {
                    Ok((client, _)) => {
                        clients.spawn(seams::task(converse(client)));
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: accepting again at once would spin.
                        tracing::warn!(error = %error, "admin socket cannot accept");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                },
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Why a question was not asked, or not answered.
#[derive(Debug)]
pub enum NotAsked {
    /// Nobody listens there.
    Nobody(io::Error),
    /// The file's permissions say no.
    Denied,
    /// The conversation broke off.
    Broken(io::Error),
    /// The answer is not of this language.
    Malformed(serde_json::Error),
}

/// A conversation, as the side that asks has it.
#[derive(Debug)]
pub struct Conversation {
    peer: BufReader<UnixStream>,
}

impl Conversation {
    /// Begins with a question.
    ///
    /// # Errors
    /// When nobody hears it.
    pub async fn begin(path: &Path, version: u16, request: &impl Serialize) -> Result<Self, NotAsked> {
        let mut peer = UnixStream::connect(path).await.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => NotAsked::Denied,
            _ => NotAsked::Nobody(source),
        })?;
        peer.write_all(&Line::bytes(version, request)).await.map_err(NotAsked::Broken)?;
        Ok(Self { peer: BufReader::new(peer) })
    }

    /// The next answer of at most `longest` bytes; none when the other side has hung up.
    ///
    /// # Errors
    /// When it breaks off, or is not of this language.
    pub async fn next<T: DeserializeOwned>(&mut self, longest: usize) -> Result<Option<T>, NotAsked> {
        let mut answer = Vec::new();
        let limit = u64::try_from(longest).unwrap_or(u64::MAX);
        let mut peer = (&mut self.peer).take(limit);
        peer.read_until(b'\n', &mut answer).await.map_err(NotAsked::Broken)?;
        if answer.is_empty() {
            return Ok(None);
        }
        if !answer.ends_with(b"\n") {
            return Err(NotAsked::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let line: Line<T> = serde_json::from_slice(&answer).map_err(NotAsked::Malformed)?;
        Ok(Some(line.body))
    }
}
