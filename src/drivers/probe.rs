//! Asking a system what it is, without changing anything: harmless questions one after the other, each with what was
//! expected and what was seen. Bytes that passed are kept scrubbed, in the form of the published vectors.
//!
//! A driver's own questions stand beside it (`probe`). None of them writes a card or changes a stay, a room or a door.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{kaba_messenger, salto_is, visionline};
use crate::{
    config::{DriverConfig, SystemConfig},
    model::EncoderName,
    seams::{Clock, Net, Random},
    transport::Port,
};

/// What a probe needs.
pub struct Tools {
    /// The network.
    pub net: Arc<dyn Net>,
    /// The clock.
    pub clock: Clock,
    /// For names of messages.
    pub random: Random,
    /// The property's.
    pub time_zone: TimeZone,
}

/// A card that a person lays down to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardToRead {
    /// On which encoder.
    pub encoder: EncoderName,
    /// How long that may take.
    pub within: Duration,
}

/// What came of a probe.
#[derive(Debug, Default)]
pub struct Probed {
    /// What was asked, in its order.
    pub steps: Vec<Step>,
    /// What passed, scrubbed.
    pub exchanges: Vec<Exchange>,
    /// What passed at a second interface of the system, which has a protocol of its own.
    pub beside: Option<(&'static str, Vec<Exchange>)>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was asked.
    pub what: &'static str,
    /// What a system as it should be says.
    pub expected: String,
    /// What this one said.
    pub seen: String,
    /// What to think of that.
    pub verdict: Verdict,
}

/// What to think of what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As expected.
    AsExpected,
    /// Possible, and worth a look.
    Odd,
    /// It cannot be worked with.
    Wrong,
}

/// Bytes that passed, scrubbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Whether they are ours.
    pub is_ours: bool,
    /// What they are.
    pub what: String,
    /// They, without names, card numbers and secrets.
    pub bytes: Vec<u8>,
    /// What they say.
    pub decoded: Value,
}

/// A line of a record, in the form of the published vectors.
#[derive(Debug, Serialize)]
struct Recorded {
    id: String,
    protocol: &'static str,
    direction: &'static str,
    description: String,
    bytes_hex: String,
    decoded: Value,
    source: String,
    confidence: &'static str,
}

impl Probed {
    /// Notes a question. Says whether to go on.
    pub(super) fn step(
        &mut self,
        what: &'static str,
        expected: impl Into<String>,
        seen: impl Into<String>,
        verdict: Verdict,
    ) -> bool {
        self.steps.push(Step { what, expected: expected.into(), seen: seen.into(), verdict });
        verdict != Verdict::Wrong
    }

    /// The worst of what was seen.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.steps.iter().map(|step| step.verdict).max().unwrap_or(Verdict::AsExpected)
    }

    /// The record: a JSON list of vectors, one a line.
    #[must_use]
    pub fn record(&self, kind: &'static str, source: &str) -> String {
        let line = |(at, (protocol, exchange)): (usize, (&'static str, &Exchange))| {
            let recorded = Recorded {
                id: format!("site-{kind}-{:03}", at + 1),
                protocol,
                direction: if exchange.is_ours { "bridge->server" } else { "server->bridge" },
                description: exchange.what.clone(),
                bytes_hex: exchange.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                decoded: exchange.decoded.clone(),
                source: source.to_owned(),
                confidence: "site",
            };
            format!("  {}", serde_json::to_string(&recorded).expect("a record is JSON"))
        };
        let own = self.exchanges.iter().map(|exchange| (kind, exchange));
        let beside = self.beside.iter().flat_map(|(protocol, all)| all.iter().map(|it| (*protocol, it)));
        let lines: Vec<_> = own.chain(beside).enumerate().map(line).collect();
        if lines.is_empty() { "[]\n".into() } else { format!("[\n{}\n]\n", lines.join(",\n")) }
    }
}

/// Asks a system; none where nothing is known that could be asked of it. With a card that a person lays down it is read
/// as well.
pub async fn probe(system: &SystemConfig, tools: &Tools, card: Option<&CardToRead>) -> Option<Probed> {
    match &system.driver {
        DriverConfig::SaltoIs(config) => Some(salto_is::probe::probe(config, tools, card).await),
        DriverConfig::Visionline(config) => {
            Some(visionline::probe::probe(config, &system.name, tools, card).await)
        }
        DriverConfig::KabaMessenger(config) => {
            Some(kaba_messenger::probe::probe(config, system.name.clone(), tools).await)
        }
        DriverConfig::Ble(_)
        | DriverConfig::Igloohome(_)
        | DriverConfig::Uhppote(_)
        | DriverConfig::CardReader(_)
        | DriverConfig::SimLock(_) => None,
    }
}

/// The most bytes that are shown of what is not understood.
const SHOWN: usize = 24;

/// The front of bytes that are not understood, for a person.
pub(super) fn shown(bytes: &[u8]) -> String {
    let front = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    let more = if SHOWN < bytes.len() { "…" } else { "" };
    format!("{} bytes that this protocol does not have: \"{front}{more}\"", bytes.len())
}

/// Hides what bytes say and keeps their shape: digits become `0`, letters `x` and `X`.
pub(super) fn masked(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => b'0',
        b'A'..=b'Z' => b'X',
        b'a'..=b'z' | 0x80..=0xff => b'x',
        other => other,
    }
}

/// [`masked`], of a text.
pub(super) fn masked_text(text: &str) -> String {
    text.chars().map(|letter| u8::try_from(letter).map_or('x', |byte| char::from(masked(byte)))).collect()
}

/// A line on which everything that passes is kept, as far as a conversation may be long.
pub(super) struct Listened {
    port: Port,
    /// What passed, and whether it was ours.
    pub(super) heard: Vec<(bool, Vec<u8>)>,
    kept: usize,
}

/// The most that is kept of one line; a peer may never stop sending.
const KEPT: usize = 16 * 1024;

impl Listened {
    pub(super) fn new(port: Port) -> Self {
        Self { port, heard: Vec::new(), kept: 0 }
    }

    pub(super) fn into_port(self) -> Port {
        self.port
    }

    fn keep(&mut self, is_ours: bool, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(KEPT - self.kept)];
        self.kept += bytes.len();
        match self.heard.last_mut() {
            Some((last, so_far)) if *last == is_ours => so_far.extend_from_slice(bytes),
            _ if bytes.is_empty() => {}
            _ => self.heard.push((is_ours, bytes.to_vec())),
        }
    }
}

impl AsyncRead for Listened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.port).poll_read(context, buffer);
        let new = buffer.filled()[before..].to_vec();
        self.keep(false, &new);
        polled
    }
}

impl AsyncWrite for Listened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.port).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            self.keep(true, &bytes[..*count]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_shutdown(context)
    }
}
