//! The side of the command line.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{AdminError, LONGEST_RESPONSE, Line, Request, Response};
use crate::model::JobId;

/// A local agent that is well answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the agent at `path` one question.
///
/// # Errors
/// When nobody answers there, or the answer is a refusal.
pub async fn ask(path: &Path, request: &Request) -> Result<Response, AdminError> {
    let conversation = async { Conversation::begin(path, request).await?.next().await };
    let answer =
        timeout(PATIENCE, conversation).await.map_err(|_| AdminError::Silent { path: path.into() })??;
    answer.ok_or_else(|| broken(path, io::ErrorKind::UnexpectedEof.into()))
}

/// Watches the steps of every job of the agent at `path`, or of one.
///
/// # Errors
/// As [`ask`].
pub async fn watch(path: &Path, job_id: Option<JobId>) -> Result<Watching, AdminError> {
    let begin = async {
        let mut conversation = Conversation::begin(path, &Request::Watch { job_id }).await?;
        let first = conversation.next().await?;
        Ok((conversation, first.ok_or_else(|| broken(path, io::ErrorKind::UnexpectedEof.into()))?))
    };
    let (conversation, first) =
        timeout(PATIENCE, begin).await.map_err(|_| AdminError::Silent { path: path.into() })??;
    Ok(Watching { conversation, first: Some(first) })
}

/// An agent that tells the steps of its jobs.
#[derive(Debug)]
pub struct Watching {
    conversation: Conversation,
    first: Option<Response>,
}

impl Watching {
    /// What the agent says next, however long that takes: at first [`Response::Watching`], then
    /// [`Response::Watched`] and [`Response::Missed`]; nothing more when the agent has stopped.
    ///
    /// # Errors
    /// As [`ask`].
    pub async fn next(&mut self) -> Result<Option<Response>, AdminError> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.conversation.next().await,
        }
    }
}

#[derive(Debug)]
struct Conversation {
    path: PathBuf,
    agent: BufReader<UnixStream>,
}

impl Conversation {
    async fn begin(path: &Path, request: &Request) -> Result<Self, AdminError> {
        let mut agent = UnixStream::connect(path).await.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => AdminError::Denied { path: path.into() },
            _ => AdminError::NoAgent { path: path.into(), source },
        })?;
        agent.write_all(&Line::of(request)).await.map_err(|source| broken(path, source))?;
        Ok(Self { path: path.into(), agent: BufReader::new(agent) })
    }

    /// The next answer; none when the agent has hung up.
    async fn next(&mut self) -> Result<Option<Response>, AdminError> {
        let path = &self.path;
        let mut answer = Vec::new();
        let limit = u64::try_from(LONGEST_RESPONSE).unwrap_or(u64::MAX);
        let mut agent = (&mut self.agent).take(limit);
        agent.read_until(b'\n', &mut answer).await.map_err(|source| broken(path, source))?;
        if answer.is_empty() {
            return Ok(None);
        }
        if !answer.ends_with(b"\n") {
            return Err(broken(path, io::ErrorKind::UnexpectedEof.into()));
        }
        let line: Line<Response> = serde_json::from_slice(&answer)
            .map_err(|source| AdminError::Malformed { path: path.clone(), source })?;
        match line.body {
            Response::Refused { code, message } => Err(AdminError::Refused { code, message }),
            response => Ok(Some(response)),
        }
    }
}

fn broken(path: &Path, source: io::Error) -> AdminError {
    AdminError::Broken { path: path.into(), source }
}
