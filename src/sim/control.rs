//! A simulator's control socket: one command a line, one JSON object a line as answer, `"ok": true` or
//! `"ok": false, "error": "…"`. Made for people with `socat` as much as for tests.

use std::{
    future::Future,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

/// Longest command line.
const LONGEST: u64 = 4096;
/// A simulator that took a command must answer in this time, unless the command itself says how long it waits.
const PATIENCE: Duration = Duration::from_secs(660);

/// Why a control conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens, or the conversation broke.
    #[error("talk to the simulator at {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The answer is not what a simulator says.
    #[error("the simulator answered {0:?}")]
    Garbled(String),
    /// It understood, and refused.
    #[error("the simulator refused {command:?}: {error}")]
    Refused {
        /// The command.
        command: String,
        /// Its words.
        error: String,
    },
    /// Another simulator listens there.
    #[error("another simulator already listens at {}", .0.display())]
    Taken(PathBuf),
}

/// Listens at a path, replacing what a simulator that died left behind.
///
/// # Errors
/// When another simulator listens there, and those of the operating system.
pub fn listen(path: &Path) -> Result<UnixListener, ControlError> {
    let io = |source| ControlError::Io { path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ControlError::Taken(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    UnixListener::bind(path).map_err(io)
}

/// Answers commands until dropped. Connections are served side by side; the commands of one, in order.
pub async fn serve<H, F>(listener: UnixListener, handle: H)
where
    H: Fn(String) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Value, String>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(converse(stream, handle.clone())); }
                Err(error) => {
                    tracing::warn!(%error, "control connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse<H, F>(stream: UnixStream, handle: H)
where
    H: Fn(String) -> F,
    F: Future<Output = Result<Value, String>>,
{
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match (&mut stream).take(LONGEST).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let too_long = !line.ends_with(b"\n") && line.len() as u64 == LONGEST;
        let command = String::from_utf8_lossy(&line).trim().to_owned();
        let answer = match command.as_str() {
            _ if too_long => Err(format!("a command has at most {LONGEST} bytes")),
            "" => continue,
            _ => handle(command).await,
        };
        let mut text = render(answer).to_string();
        text.push('\n');
        if stream.write_all(text.as_bytes()).await.is_err() || too_long {
            return;
        }
    }
}

fn render(answer: Result<Value, String>) -> Value {
    match answer {
        Ok(Value::Object(mut fields)) => {
            fields.insert("ok".into(), Value::Bool(true));
            Value::Object(fields)
        }
        Ok(other) => json!({ "ok": true, "value": other }),
        Err(error) => json!({ "ok": false, "error": error }),
    }
}

fn judge(command: &str, answer: &str) -> Result<Value, ControlError> {
    let garbled = || ControlError::Garbled(answer.to_owned());
    let value: Value = serde_json::from_str(answer).map_err(|_| garbled())?;
    match (value["ok"].as_bool(), value["error"].as_str()) {
        (Some(true), _) => Ok(value),
        (Some(false), Some(error)) => {
            Err(ControlError::Refused { command: command.to_owned(), error: error.to_owned() })
        }
        _ => Err(garbled()),
    }
}

/// The other end of a control socket, for async callers.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(path: impl Into<PathBuf>) -> Result<Self, ControlError> {
        let path = path.into();
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Self { path, stream: BufReader::new(stream) }),
            Err(source) => Err(ControlError::Io { path, source }),
        }
    }

    /// Sends one command and returns its answer.
    ///
    /// # Errors
    /// When the simulator refuses, hangs up, or does not answer.
    pub async fn send(&mut self, command: &str) -> Result<Value, ControlError> {
        let exchange = async {
            self.stream.write_all(format!("{command}\n").as_bytes()).await?;
            let mut answer = String::new();
            match self.stream.read_line(&mut answer).await? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(answer),
            }
        };
        let answer = match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(result) => result,
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        };
        let answer = answer.map_err(|source| ControlError::Io { path: self.path.clone(), source })?;
        judge(command, &answer)
    }
}

/// The other end of a control socket, for callers without a runtime.
#[derive(Debug)]
pub struct BlockingClient {
    path: PathBuf,
    stream: io::BufReader<std::os::unix::net::UnixStream>,
}

impl BlockingClient {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(path: impl Into<PathBuf>) -> Result<Self, ControlError> {
        let path = path.into();
        let connected = std::os::unix::net::UnixStream::connect(&path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => Ok(Self { path, stream: io::BufReader::new(stream) }),
            Err(source) => Err(ControlError::Io { path, source }),
        }
    }

    /// Sends one command and returns its answer.
    ///
    /// # Errors
    /// When the simulator refuses, hangs up, or does not answer.
    pub fn send(&mut self, command: &str) -> Result<Value, ControlError> {
        let mut exchange = || {
            self.stream.get_mut().write_all(format!("{command}\n").as_bytes())?;
            let mut answer = String::new();
            match self.stream.read_line(&mut answer)? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(answer),
            }
        };
        let answer = exchange().map_err(|source| ControlError::Io { path: self.path.clone(), source })?;
        judge(command, &answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo(command: String) -> Result<Value, String> {
        match command.as_str() {
            "no" => Err("not today".into()),
            _ => Ok(json!({ "said": command })),
        }
    }

    #[tokio::test]
    async fn a_command_gets_one_line_back_and_a_refusal_keeps_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.ctl");
        let _server = tokio::spawn(serve(listen(&path).unwrap(), echo));
        let mut client = Client::connect(&path).await.unwrap();
        assert_eq!(client.send("hello there").await.unwrap()["said"], "hello there");
        let refused = client.send("no").await.unwrap_err();
        assert_eq!(refused.to_string(), r#"the simulator refused "no": not today"#);
        let there = path.clone();
        let said = tokio::task::spawn_blocking(move || {
            BlockingClient::connect(there).unwrap().send("from a thread").unwrap()["said"].clone()
        });
        assert_eq!(said.await.unwrap(), "from a thread");
    }

    #[tokio::test]
    async fn an_endless_line_is_refused_and_the_connection_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.ctl");
        let _server = tokio::spawn(serve(listen(&path).unwrap(), echo));
        let mut client = Client::connect(&path).await.unwrap();
        let refused = client.send(&"x".repeat(5000)).await.unwrap_err().to_string();
        assert!(refused.contains("at most 4096 bytes"), "{refused}");
        assert!(client.send("hello").await.is_err());
    }

    #[tokio::test]
    async fn a_socket_in_use_is_named_and_a_dead_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.ctl");
        let alive = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(ControlError::Taken(_))));
        drop(alive);
        assert!(path.exists());
        listen(&path).unwrap();
    }
}
