//! Control sockets of pretend access systems: the hands that lay cards down, for clients under test.
//!
//! Only where the operator names such sockets, and never by way of a bridge: what a bridge may be told is a job, and
//! laying a card down is none.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

/// A simulator answers at once what is asked of it here.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer: all cards of a busy day.
const LONGEST: u64 = 4 * 1024 * 1024;

/// The simulators there are, by the access systems' names.
#[derive(Debug, Clone, Default)]
pub struct Simulators(BTreeMap<String, PathBuf>);

/// Why a simulator did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SimulatorError {
    /// It cannot be reached, or says nothing.
    #[error("talk to the simulator at {}", path.display())]
    Io {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It refused.
    #[error("the simulator refused: {0}")]
    Refused(String),
}

impl Simulators {
    /// Simulators by the names of their access systems, with their control sockets.
    #[must_use]
    pub fn new(sockets: impl IntoIterator<Item = (String, PathBuf)>) -> Self {
        Self(sockets.into_iter().collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The socket for an access system.
    pub(crate) fn of(&self, system: &str) -> Option<&Path> {
        self.0.get(system).map(PathBuf::as_path)
    }
}

/// Gives a simulator orders, in order; says what it answered to the last.
pub(crate) async fn order(path: &Path, orders: &[String]) -> Result<Value, SimulatorError> {
    let failed = |source| SimulatorError::Io { path: path.into(), source };
    let conversation = async {
        let mut stream = BufReader::new(UnixStream::connect(path).await?);
        let mut last = Value::Null;
        for order in orders {
            stream.write_all(format!("{order}\n").as_bytes()).await?;
            let mut line = String::new();
            (&mut stream).take(LONGEST).read_line(&mut line).await?;
            last = serde_json::from_str(&line)?;
            if last["ok"] != true {
                break;
            }
        }
        Ok::<_, io::Error>(last)
    };
    let last = match timeout(PATIENCE, conversation).await {
        Ok(answered) => answered.map_err(failed)?,
        Err(_elapsed) => return Err(failed(io::ErrorKind::TimedOut.into())),
    };
    match last["error"].as_str() {
        Some(error) if last["ok"] != true => Err(SimulatorError::Refused(error.to_owned())),
        _ => Ok(last),
    }
}
