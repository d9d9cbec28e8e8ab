//! The simulated property, as somebody standing in it would use it: by its control socket.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// How often an order is waited for until it reaches its encoder; a simulator waits up to ten seconds each time.
const CARD_WAITS: u32 = 4;

/// Where the simulated property can be reached.
pub(super) struct Property {
    pub(super) tty: Option<String>,
    pub(super) tcp: String,
    pub(super) control: PathBuf,
    /// The message bus of its radio, where it has one.
    pub(super) bus: String,
    /// Its locks with a radio.
    pub(super) locks: Value,
}

impl Property {
    /// One command; its answer, if it was done.
    pub(super) async fn control(&self, command: &str) -> anyhow::Result<Value> {
        let mut stream =
            UnixStream::connect(&self.control).await.context("reach the simulator's control socket")?;
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        let answer: Value =
            serde_json::from_str(&answer).with_context(|| format!("{command}: {answer:?}"))?;
        if answer["ok"] != true {
            bail!("{command}: {}", answer["error"].as_str().unwrap_or("refused without a reason"));
        }
        Ok(answer)
    }

    /// Waits until an encoder waits for a card.
    pub(super) async fn waits_for_card(&self, encoder: &str) -> anyhow::Result<()> {
        let wait = format!("wait card-wait {encoder}");
        for _ in 1..CARD_WAITS {
            if self.control(&wait).await.is_ok() {
                return Ok(());
            }
        }
        self.control(&wait).await.map(drop)
    }
}
