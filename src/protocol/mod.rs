//! Version 1 of the language between a bridge and its cloud.
//!
//! This room spells messages. It opens no socket, reads no clock and stores nothing.
//!
//! # The conversation
//! The bridge dials out: TLS, in which both sides show certificates, then a websocket at `/bridge/v1`. Each websocket
//! **text** message is one [`Frame`], a JSON object with a `type`, most of them inside a
//! [`Packet`](signing::Packet) of type `signed`; at most [`MAX_FRAME`] bytes, anything else ends the connection with a
//! [`Frame::Refused`] that names the reason.
//!
//! ```text
//! bridge                                         cloud
//!   hello {versions, orders received, reports sent}  ->
//!                      <-  welcome {version, orders sent, reports received, time, limits}
//!   inventory, status                                ->
//!                      <-  envelope(job), envelope(cancel)            stream `orders`
//!   envelope(acknowledgement orders)                 ->               after the commit that holds them
//!   progress                                         ->               not durable, for screens only
//!   envelope(outcome), envelope(resolution)          ->               stream `reports`
//!                      <-  envelope(acknowledgement reports)          after the commit that holds them
//!   limit {orders}                                   ->               the cloud may send up to this number
//!                      <-  limit {reports}
//!   ping                                            <->  pong
//! ```
//!
//! # Streams
//! There are two durable streams: `orders` (cloud to bridge) and `reports` (bridge to cloud). Every message of a
//! stream has a [`Position`] `(epoch, n)`; `n` counts from 1 without gaps inside an epoch. The receiver makes a
//! message durable, then acknowledges it cumulatively. Hello and welcome compare what both sides remember; the
//! **sender** of a stream decides by [`stream::resume`] how it goes on. A side that turns out to be behind (a restored
//! backup, a rolled-back machine) makes the sender start a new epoch, and nothing runs twice for it: jobs are known
//! by their `job_id`, and what had been handed to a bridge that lost its memory ends as a doubt, not as a repetition.
//!
//! # Signatures
//! Every frame but ping, pong and refused is signed by its sender; see [`signing`]. A message that changes state and
//! belongs to a stream travels inside as one opaque string, [`Envelope::body`], so that a kind of message which an older
//! receiver does not know can still be refused by its position and its job.

pub mod enrol;
pub mod signing;
pub mod stream;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{BridgeId, Condition, Inventory, Job, JobId, Report};
pub use signing::{KeyId, PublicKey, Session, SigningKey};
pub use stream::Position;

/// The versions of this language that this build speaks, newest first.
pub const VERSIONS: &[u16] = &[1];

/// The largest frame either side accepts, in bytes.
///
/// Room for an inventory of some thousand doors; far above any job.
pub const MAX_FRAME: usize = 512 * 1024;

/// The longest time for which a peer lets itself be sent away, by [`Refused::retry_after_ms`].
pub const MAX_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(300);

/// The path of the websocket.
pub const PATH: &str = "/bridge/v1";

/// One websocket text message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Frame {
    /// The bridge's first frame.
    Hello(Hello),
    /// The cloud's answer.
    Welcome(Welcome),
    /// Either side ends the conversation and says why.
    Refused(Refused),
    /// One message that changes state.
    Envelope(Envelope),
    /// What the site has; a whole picture each time.
    Inventory(Inventory),
    /// The bridge's health; a whole picture each time.
    Status(Status),
    /// Where a job stands, for screens; may be lost.
    Progress(Progress),
    /// How far the other side may send.
    Limit(Limit),
    /// Asks for a [`Frame::Pong`] with the same number.
    Ping {
        /// Any number.
        nonce: u64,
    },
    /// A signed sign of life, so that nobody on the way can let pings through and keep the rest back.
    Beacon,
    /// Answers a [`Frame::Ping`].
    Pong {
        /// The ping's number.
        nonce: u64,
    },
}

impl Frame {
    /// The `type` on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Welcome(_) => "welcome",
            Self::Refused(_) => "refused",
            Self::Envelope(_) => "envelope",
            Self::Inventory(_) => "inventory",
            Self::Status(_) => "status",
            Self::Progress(_) => "progress",
            Self::Limit(_) => "limit",
            Self::Ping { .. } => "ping",
            Self::Beacon => "beacon",
            Self::Pong { .. } => "pong",
        }
    }
}

/// The bridge's first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions it speaks, newest first.
    pub versions: Vec<u16>,
    /// Program and version, for people.
    pub agent: String,
    /// What it remembers of the streams.
    #[serde(flatten)]
    pub memory: Memory,
    /// What makes this conversation unlike any other.
    pub nonce: Session,
    /// The keys that the bridge knows as the cloud's: the welcome is signed with one of them.
    pub cloud_keys: Vec<KeyId>,
}

/// What a bridge remembers of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The last order it holds durably.
    pub orders_received: Position,
    /// The last report it has numbered.
    pub reports_sent: Position,
    /// The last report whose acknowledgement it remembers.
    pub reports_acknowledged: Position,
    /// How far the cloud may send orders, in the epoch of `orders_received` and in any new one.
    pub orders_limit: u64,
}

/// The cloud's first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both speak from here on.
    pub version: u16,
    /// Who the bridge is to the cloud.
    pub bridge_id: BridgeId,
    /// The workspace's name, for people: to whom this site belongs.
    pub workspace: String,
    /// The cloud's time; expiry is judged by it and a monotonic clock.
    pub time: Timestamp,
    /// The position before the next order that will be sent.
    pub orders_resume_after: Position,
    /// The last report it holds durably.
    pub reports_received: Position,
    /// How far the bridge may send reports.
    pub reports_limit: u64,
    /// What the cloud found wrong with the bridge's memory, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders_epoch_reason: Option<EpochReason>,
    /// The keys that speak for the cloud from here on: all of them; those that are not named speak for it no more.
    pub cloud_keys: Vec<PublicKey>,
}

/// Why a stream began a new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochReason {
    /// The receiver remembers less than it once acknowledged.
    ReceiverBehind,
    /// The receiver remembers more than the sender ever sent.
    SenderBehind,
}

/// The end of a conversation, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The stable name.
    pub code: RefusedCode,
    /// For a person.
    pub message: String,
    /// In how many milliseconds the peer is to come again, if it is told; at most [`MAX_RETRY_AFTER`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
}

/// Why a conversation was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedCode {
    /// No version in common.
    VersionUnknown,
    /// A frame that is not of this language.
    FrameMalformed,
    /// A frame above [`MAX_FRAME`].
    FrameTooLarge,
    /// A frame where another was due.
    FrameUnexpected,
    /// A position that leaves a gap.
    StreamGap,
    /// More than the limit allowed.
    LimitExceeded,
    /// A newer connection of the same bridge took over.
    Fenced,
    /// The peer is going down on purpose; try again.
    Restarting,
    /// A frame that has to be signed was not.
    SignatureMissing,
    /// A signature that does not fit its bytes.
    SignatureInvalid,
    /// A key that does not speak for the peer, or none in common.
    KeyUnknown,
    /// A message that came before, of another conversation, or meant for another bridge.
    MessageReplayed,
    /// A message is missing before one.
    MessageMissing,
    /// A message that counts no more.
    MessageExpired,
    /// Nothing signed came for too long, though the connection lives.
    MessagesWithheld,
    /// The bridge was revoked: it has to be paired again.
    Revoked,
    /// A code of a newer peer.
    #[serde(other)]
    Other,
}

/// One message that changes state, as opaque bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The message's place in its stream; absent for acknowledgements, which are cumulative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// The JSON text of a [`Message`].
    pub body: String,
}

impl Envelope {
    /// Wraps a message of a stream.
    #[must_use]
    pub fn at(position: Position, message: &Message) -> Self {
        Self { position: Some(position), ..Self::loose(message) }
    }

    /// Wraps a message outside the streams.
    #[must_use]
    pub fn loose(message: &Message) -> Self {
        let body = serde_json::to_string(message).expect("a message has string keys only");
        Self { position: None, body }
    }

    /// Reads the message inside.
    ///
    /// # Errors
    /// When the body is not a message of this version.
    pub fn message(&self) -> Result<Message, serde_json::Error> {
        serde_json::from_str(&self.body)
    }
}

/// What an envelope holds. The list is closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// Orders: do this.
    Job(Job),
    /// Orders: do not do it, if nothing was sent yet.
    Cancel {
        /// Which job.
        job_id: JobId,
    },
    /// Reports: how a job ended.
    Outcome(Report),
    /// Reports: what settled a doubt.
    Resolution(Report),
    /// Everything of this stream up to here is durable.
    Acknowledgement {
        /// Which stream.
        stream: StreamName,
        /// Up to where.
        position: Position,
    },
}

/// The streams of this language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamName {
    /// Cloud to bridge.
    Orders,
    /// Bridge to cloud.
    Reports,
}

/// The bridge's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Everything an operator should know, sorted by subject and code.
    pub conditions: Vec<Condition>,
}

/// Where a job stands, for screens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which job.
    pub job_id: JobId,
    /// Where it stands.
    pub stage: Stage,
}

/// Stages of a job that a person may want to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// In its lane's queue.
    Queued,
    /// The mark is durable; bytes leave.
    Sent,
    /// The device took the order: lay a card down.
    WaitingForCard,
    /// A stage of a newer peer.
    #[serde(other)]
    Other,
}

impl Stage {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::WaitingForCard => "waiting_for_card",
            Self::Other => "other",
        }
    }
}

/// How far the other side may send: a number that only grows inside an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Which stream.
    pub stream: StreamName,
    /// The last `n` that may be sent.
    pub up_to: u64,
}

/// Where a text went wrong, in words that hold nothing of it but the name of its type.
pub(crate) fn place(text: &str, error: &serde_json::Error) -> String {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow, alias = "message")]
        r#type: &'a str,
    }
    let what = match error.classify() {
        serde_json::error::Category::Data => "unexpected content",
        serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Eof | serde_json::error::Category::Io => "cut off",
    };
    let (line, column) = (error.line(), error.column());
    let known =
        |name: &&str| name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    match serde_json::from_str::<Head<'_>>(text).ok().map(|head| head.r#type).filter(known) {
        Some(name) => format!("type {name}, {what} at line {line} column {column}"),
        None => format!("{what} at line {line} column {column}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_carries_the_exact_bytes_of_its_message() {
        let message = Message::Cancel { job_id: JobId(uuid::Uuid::nil()) };
        let envelope = Envelope::at(Position { epoch: 1, n: 7 }, &message);
        let wire = serde_json::to_string(&Frame::Envelope(envelope.clone())).unwrap();
        let Frame::Envelope(read) = serde_json::from_str(&wire).unwrap() else { panic!("{wire}") };
        assert_eq!(read.body.as_bytes(), envelope.body.as_bytes());
        assert_eq!(read.message().unwrap(), message);
    }

    #[test]
    fn the_name_of_a_stage_is_the_one_on_the_wire() {
        for stage in [Stage::Queued, Stage::Sent, Stage::WaitingForCard, Stage::Other] {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
        }
    }

    #[test]
    fn an_unknown_frame_or_message_does_not_parse() {
        assert!(serde_json::from_str::<Frame>(r#"{"type":"open_sesame"}"#).is_err());
        assert!(serde_json::from_str::<Message>(r#"{"message":"erase"}"#).is_err());
    }
}
