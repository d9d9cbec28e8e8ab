//! A client of the cloud's HTTP API, over the simulated network.

use std::{sync::Arc, time::Duration};

use latchd::seams::Net;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::side::{API, KEY};

/// A client that is not answered gives up.
const PATIENCE: Duration = Duration::from_secs(40);

/// An answer of the API.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// The body, unless it is a refusal.
    pub(crate) fn granted(self) -> Option<Value> {
        (self.status == 200).then_some(self.body)
    }
}

/// Calls the API; nothing where no whole answer came in time.
pub(crate) async fn call(net: &Arc<dyn Net>, path: &str, body: &Value) -> Option<Answer> {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: cloud\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = net.connect("cloud", API).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(PATIENCE, exchange).await.ok()?.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    tracing::debug!(target: "simulation", path, body, "the API answered");
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Answer { status, body: serde_json::from_str(body).ok()? })
}
