//! The side of the command line.

use std::{io, path::Path, time::Duration};

use tokio::time::timeout;

use super::{AdminError, LONGEST_RESPONSE, Request, Response, VERSION};
use crate::local::{Conversation, NotAsked};

/// A cloud that is well answers in milliseconds; [`Request::Pairing`] it holds for some seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks the cloud at `path` one question.
///
/// # Errors
/// When nobody answers there, or the answer is a refusal.
pub async fn ask(path: &Path, request: &Request) -> Result<Response, AdminError> {
    let conversation =
        async { Conversation::begin(path, VERSION, request).await?.next(LONGEST_RESPONSE).await };
    let path = || path.to_owned();
    match timeout(PATIENCE, conversation).await {
        Err(_elapsed) => Err(AdminError::Silent { path: path() }),
        Ok(Err(NotAsked::Nobody(source))) => Err(AdminError::NoCloud { path: path(), source }),
        Ok(Err(NotAsked::Denied)) => Err(AdminError::Denied { path: path() }),
        Ok(Err(NotAsked::Broken(source))) => Err(AdminError::Broken { path: path(), source }),
        Ok(Err(NotAsked::Malformed(source))) => Err(AdminError::Malformed { path: path(), source }),
        Ok(Ok(None)) => Err(AdminError::Broken { path: path(), source: io::ErrorKind::UnexpectedEof.into() }),
        Ok(Ok(Some(Response::Refused { code, message }))) => Err(AdminError::Refused { code, message }),
        Ok(Ok(Some(response))) => Ok(response),
    }
}
