//! The side of the command line.

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{AdminError, LONGEST_RESPONSE, Line, Request, Response};

/// A local agent that is well answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the agent at `path` one question.
///
/// # Errors
/// When nobody answers there, or the answer is a refusal.
pub async fn ask(path: &Path, request: &Request) -> Result<Response, AdminError> {
    let broken = |source| AdminError::Broken { path: path.into(), source };
    let conversation = async {
        let mut agent = UnixStream::connect(path).await.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => AdminError::Denied { path: path.into() },
            _ => AdminError::NoAgent { path: path.into(), source },
        })?;
        agent.write_all(&Line::of(request)).await.map_err(broken)?;
        let mut answer = Vec::new();
        let limit = u64::try_from(LONGEST_RESPONSE).unwrap_or(u64::MAX);
        let mut agent = BufReader::new(agent).take(limit);
        agent.read_until(b'\n', &mut answer).await.map_err(broken)?;
        if !answer.ends_with(b"\n") {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(answer)
    };
    let answer =
        timeout(PATIENCE, conversation).await.map_err(|_| AdminError::Silent { path: path.into() })??;
    let line: Line<Response> = serde_json::from_slice(&answer)
        .map_err(|source| AdminError::Malformed { path: path.into(), source })?;
    match line.body {
        Response::Refused { code, message } => Err(AdminError::Refused { code, message }),
        response => Ok(response),
    }
}
