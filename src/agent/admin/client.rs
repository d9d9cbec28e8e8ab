//! The side of the command line.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::timeout;

use super::{AdminError, LONGEST_RESPONSE, Request, Response, VERSION};
use crate::{local, model::JobId};

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
    agent: local::Conversation,
}

impl Conversation {
    async fn begin(path: &Path, request: &Request) -> Result<Self, AdminError> {
        let agent = local::Conversation::begin(path, VERSION, request).await;
        Ok(Self { path: path.into(), agent: agent.map_err(|error| AdminError::of_ask(path, error))? })
    }

    /// The next answer; none when the agent has hung up.
    async fn next(&mut self) -> Result<Option<Response>, AdminError> {
        let answer = self.agent.next(LONGEST_RESPONSE).await;
        match answer.map_err(|error| AdminError::of_ask(&self.path, error))? {
            Some(Response::Refused { code, message }) => Err(AdminError::Refused { code, message }),
            response => Ok(response),
        }
    }
}

fn broken(path: &Path, source: io::Error) -> AdminError {
    AdminError::Broken { path: path.into(), source }
}
