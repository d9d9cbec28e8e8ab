//! Version 1 of the language between a bridge and its cloud. A draft until every message is signed.
//!
//! This room spells messages. It opens no socket, reads no clock and stores nothing.
//!
//! # The conversation
//! The bridge dials out: TLS, then a websocket at `/bridge/v1` with `Authorization: Bearer <token>`. Each websocket
//! **text** message is one [`Frame`], a JSON object with a `type`; at most [`MAX_FRAME`] bytes, anything else ends
//! the connection with a [`Frame::Refused`] that names the reason.
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
//! # Envelopes
//! A message that changes state travels as one opaque string, [`Envelope::body`], beside the id of a key and a
//! detached signature. Both are optional in this draft. The signature covers the exact bytes of `body`, never a
//! re-serialisation.

pub mod stream;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{BridgeId, Condition, Inventory, Job, JobId, Report};
pub use stream::Position;

/// The versions of this language that this build speaks, newest first.
pub const VERSIONS: &[u16] = &[1];

/// The largest frame either side accepts, in bytes.
///
/// Room for an inventory of some thousand doors; far above any job.
pub const MAX_FRAME: usize = 512 * 1024;

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
    /// Answers a [`Frame::Ping`].
    Pong {
        /// The ping's number.
        nonce: u64,
    },
}

/// The bridge's first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions it speaks, newest first.
    pub versions: Vec<u16>,
    /// Program and version, for people.
    pub agent: String,
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
    /// A code of a newer peer.
    #[serde(other)]
    Other,
}

/// One message that changes state, as opaque bytes with room for a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The message's place in its stream; absent for acknowledgements, which are cumulative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// The JSON text of a [`Message`]; the exact bytes that a signature covers.
    pub body: String,
    /// Which key signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The detached signature, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
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
        Self { position: None, body, key_id: None, signature: None }
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
