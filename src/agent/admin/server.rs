//! The agent's side of the socket.

use std::{future::Future, path::Path};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::{broadcast::error::RecvError, mpsc, oneshot},
    time::timeout,
};

use super::{AdminError, LONGEST_REQUEST, Request, Response, VERSION, Watchers};
use crate::local::{self, Heard, Line, NotUnderstood, PATIENCE, Socket};

/// A question and the way back for its answer.
pub type Question = (Request, oneshot::Sender<Response>);

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
pub struct Server(Socket);

impl Server {
    /// Binds the socket with mode 0660 and puts it in its place, over one that a dead agent left behind.
    ///
    /// # Errors
    /// When another agent answers there, something else stands there, or the system says no.
    pub async fn bind(path: &Path) -> Result<Self, AdminError> {
        let bound = Socket::bind(path, 0o660).await;
        bound.map(Self).map_err(|error| AdminError::of_bind(path, error))
    }

    /// Answers until `shutdown`; then conversations end and the socket's file goes.
    pub async fn run(
        self,
        questions: mpsc::Sender<Question>,
        watchers: Watchers,
        shutdown: impl Future<Output = ()>,
    ) {
        self.0.serve(|client| converse(client, questions.clone(), watchers.clone()), shutdown).await;
    }
}

/// Answers one client, question by question, until it goes, is silent for too long, or breaks the language.
async fn converse(mut client: UnixStream, questions: mpsc::Sender<Question>, watchers: Watchers) {
    let (read, mut write) = client.split();
    let mut read = BufReader::new(read);
    loop {
        let (response, goes_on) = match local::hear(&mut read, LONGEST_REQUEST).await {
            Heard::Nothing => return,
            Heard::TooLong => {
                let message = format!("a question has at most {LONGEST_REQUEST} bytes");
                (Response::refused("request_too_long", message), false)
            }
            Heard::Line(line) => match understood(&line) {
                Ok(request @ Request::Watch { .. }) => {
                    return tell_steps(&mut read, &mut write, &questions, &watchers, request).await;
                }
                Ok(request) => (answer(&questions, request).await, true),
                Err(refused) => (refused, false),
            },
        };
        let written = timeout(PATIENCE, write.write_all(&Line::bytes(VERSION, response))).await;
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
        let written = timeout(PATIENCE, write.write_all(&Line::bytes(VERSION, response))).await;
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
    local::understood(line, VERSION).map_err(|error| match error {
        NotUnderstood::Version(version) => {
            let message =
                format!("this agent speaks version {VERSION}, the question is of version {version}");
            Response::refused("version_unknown", message)
        }
        NotUnderstood::Malformed(_) => Response::refused("request_malformed", error.to_string()),
    })
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
