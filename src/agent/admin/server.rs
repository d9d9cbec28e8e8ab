//! The agent's side of the socket.

use std::{
    fs,
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{broadcast::error::RecvError, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{AdminError, LONGEST_REQUEST, Line, Request, Response, VERSION, Watchers};

/// A question and the way back for its answer.
pub type Question = (Request, oneshot::Sender<Response>);

/// More wait in the kernel's backlog until one of these is done.
const CLIENTS: usize = 16;

/// A client that says nothing, or does not read, makes room for others.
const PATIENCE: Duration = Duration::from_secs(30);

/// Binds the socket and answers until `shutdown`.
///
/// # Errors
/// See [`Server::bind`].
pub async fn serve(
    path: &Path,
    questions: mpsc::Sender<Question>,
    watchers: Watchers,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AdminError> {
    Server::bind(path).await?.run(questions, watchers, shutdown).await;
    Ok(())
}

/// The socket, bound; its file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Server {
    /// Binds the socket with mode 0660 and puts it in its place, over one that a dead agent left behind.
    ///
    /// # Errors
    /// When another agent answers there, something else stands there, or the system says no.
    pub async fn bind(path: &Path) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Bind { path: path.into(), source };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(AdminError::NotASocket { path: path.into() });
            }
            Ok(_) => match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(failed(error)),
                // A full backlog is an agent too.
                _ => return Err(AdminError::Occupied { path: path.into() }),
            },
            Err(_) => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).map_err(failed)?;
                }
            }
        }
        // Made under another name, then renamed: nobody ever meets it with other permissions, and there is no moment
        // without a socket.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let made = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let _ = fs::remove_file(&made);
        let listener = UnixListener::bind(&made).map_err(failed)?;
        let placed = fs::set_permissions(&made, fs::Permissions::from_mode(0o660))
            .and_then(|()| fs::rename(&made, path))
            .and_then(|()| fs::symlink_metadata(path));
        match placed {
            Ok(placed) => Ok(Self { listener, path: path.into(), inode: placed.ino() }),
            Err(error) => {
                let _ = fs::remove_file(&made);
                Err(failed(error))
            }
        }
    }

    /// Answers until `shutdown`; then conversations end and the socket's file goes.
    pub async fn run(
        self,
        questions: mpsc::Sender<Question>,
        watchers: Watchers,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = pin!(shutdown);
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(_) = clients.join_next() => {}
                accepted = self.listener.accept(), if clients.len() < CLIENTS => match accepted {
                    Ok((client, _)) => {
                        clients.spawn(converse(client, questions.clone(), watchers.clone()));
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

impl Drop for Server {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Answers one client, question by question, until it goes, is silent for too long, or breaks the language.
async fn converse(mut client: UnixStream, questions: mpsc::Sender<Question>, watchers: Watchers) {
    let (read, mut write) = client.split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(LONGEST_REQUEST).unwrap_or(u64::MAX);
        let asked = timeout(PATIENCE, (&mut read).take(limit).read_until(b'\n', &mut line)).await;
        let (response, goes_on) = match asked {
            Err(_) | Ok(Err(_) | Ok(0)) => return,
            Ok(Ok(_)) if !line.ends_with(b"\n") && line.len() >= LONGEST_REQUEST => {
                let message = format!("a question has at most {LONGEST_REQUEST} bytes");
                (Response::refused("request_too_long", message), false)
            }
            Ok(Ok(_)) => match understood(&line) {
                Ok(request @ Request::Watch { .. }) => {
                    return tell_steps(&mut read, &mut write, &questions, &watchers, request).await;
                }
                Ok(request) => (answer(&questions, request).await, true),
                Err(refused) => (refused, false),
            },
        };
        let written = timeout(PATIENCE, write.write_all(&Line::of(response))).await;
        if !goes_on || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// Tells what stands and then every step, until the client goes or does not read for too long.
async fn tell_steps<R, W>(
    read: &mut R,
    write: &mut W,
    questions: &mpsc::Sender<Question>,
    watchers: &Watchers,
    request: Request,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Request::Watch { job_id: only } = request else { return };
    // Before it is asked what stands: no step falls in between.
    let mut steps = watchers.join();
    let mut response = answer(questions, Request::Watch { job_id: only }).await;
    let mut more = [0; 64];
    loop {
        let refused = matches!(response, Response::Refused { .. });
        let written = timeout(PATIENCE, write.write_all(&Line::of(response))).await;
        if refused || !matches!(written, Ok(Ok(()))) {
            return;
        }
        response = loop {
            tokio::select! {
                biased;
                step = steps.recv() => match step {
                    Ok(step) if only.is_none_or(|only| only == step.job_id) => {
                        break Response::Watched(Box::new(step));
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(steps)) => break Response::Missed { steps },
                    Err(RecvError::Closed) => return,
                },
                // Nothing more is asked on this connection; its end is what is waited for.
                heard = read.read(&mut more) => if matches!(heard, Ok(0) | Err(_)) {
                    return;
                },
            }
        };
    }
}

fn understood(line: &[u8]) -> Result<Request, Response> {
    #[derive(serde::Deserialize)]
    struct Any {
        #[serde(rename = "latchd")]
        version: u16,
    }
    let malformed = |error| Response::refused("request_malformed", format!("not a question: {error}"));
    // The version first: a newer client may ask what this one cannot parse.
    let Any { version } = serde_json::from_slice(line).map_err(malformed)?;
    if version != VERSION {
        let message = format!("this agent speaks version {VERSION}, the question is of version {version}");
        return Err(Response::refused("version_unknown", message));
    }
    let line: Line<Request> = serde_json::from_slice(line).map_err(malformed)?;
    Ok(line.body)
}

async fn answer(questions: &mpsc::Sender<Question>, request: Request) -> Response {
    let (way_back, answer) = oneshot::channel();
    let asked = async {
        questions.send((request, way_back)).await.ok()?;
        answer.await.ok()
    };
    let unavailable = |message| Response::refused("unavailable", message);
    match timeout(PATIENCE, asked).await {
        Ok(Some(response)) => response,
        Ok(None) => unavailable("the agent is stopping"),
        Err(_) => unavailable("the agent's core does not answer"),
    }
}
