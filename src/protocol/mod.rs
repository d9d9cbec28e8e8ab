//! The language between a bridge and its cloud, in its versions 1 and 2.
//!
//! This room spells messages. It opens no socket, reads no clock and stores nothing.
//!
//! What follows, with [`signing`], [`enrol`] and [`stream`], is the specification: whoever keeps to it can put another
//! cloud or another agent in place of ours. `latchd schema` prints the form of every message as a JSON Schema;
//! `tests/golden/v1` holds one file of examples for each kind, and a whole conversation; these files are never edited.
//! `tests/golden/v2` holds what version 2 has beside them.
//!
//! # The conversation
//! The bridge dials out: TLS, in which both sides show certificates, then a websocket at [`PATH`]. The cloud's answer to
//! the websocket request carries a nonce ([`signing::NONCE_HEADER`]). Each websocket **text** message is one [`Frame`],
//! a JSON object with a `type`, most of them inside a [`Packet`](signing::Packet) of type `signed` ([`Said`]).
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
//!   envelope(acknowledgement desired)                ->               version 2: what the bridge holds of it
//!                      <-  desired {up_to, grants, gone, complete}    version 2
//!   ping                                            <->  pong
//!   beacon                                          <->
//!   refused                                         <->               the last word
//! ```
//!
//! Hello is the first frame of a connection and welcome the second; each comes once. Before the welcome the bridge says
//! nothing else, and the cloud nothing at all but `refused`. Everything from the first byte of a connection to the
//! welcome is done within 30 seconds. A bridge has one connection: a later one ends the earlier one (`fenced`).
//!
//! | frame | by | when | signed |
//! | --- | --- | --- | --- |
//! | [`hello`](Hello) | bridge | first | yes |
//! | [`welcome`](Welcome) | cloud | answers a hello | yes |
//! | [`inventory`](Inventory) | bridge | after the welcome, and when it changes; replaces the earlier one | yes |
//! | [`status`](Status) | bridge | after the welcome, and when it changes; replaces the earlier one | yes |
//! | [`envelope`](Envelope) | both | carries a [`Message`] | yes |
//! | [`progress`](Progress) | bridge | at any time; may be left out | yes |
//! | [`limit`](Limit) | both | of the stream that the sender of the frame receives | yes |
//! | [`desired`](Desired) | cloud | version 2, once the bridge has said what it holds of it | yes |
//! | [`ping`](Frame::Ping) | both | when nothing came for 15 seconds | no |
//! | [`pong`](Frame::Pong) | both | answers a ping with its number; of several that wait, the last is enough | no |
//! | [`beacon`](Frame::Beacon) | both | when nothing signed was sent for [`signing::BEACON_AFTER`] | yes |
//! | [`refused`](Refused) | both | before the sender closes the connection | no |
//!
//! Moments are texts of RFC 3339 in UTC (`Z`), with up to nine digits of a second. UUIDs are written with lower case
//! letters and hyphens.
//!
//! # Before the first frame
//! TLS is 1.2 or 1.3. The bridge takes a certificate in the name of the host it dialled, from the authority that pairing
//! brought ([`enrol::Admission::authority`]) or, where it brought none, from one that its machine trusts. It shows the
//! certificate that it got for its key; the cloud knows the bridge by that key.
//!
//! The websocket (RFC 6455, version 13, no extensions and no subprotocol) is asked for over HTTP/1.1. An answer other than
//! 101 has the form of a refusal of [`enrol`]:
//!
//! | status | means |
//! | --- | --- |
//! | 401 | no certificate was shown, or one of no bridge that is paired here: it was revoked, or is another cloud's |
//! | 404 | another path than [`PATH`] and those of [`enrol`] |
//! | 426 | not the request for such a websocket |
//! | 429, 503 | not now; `Retry-After` says when, in seconds |
//!
//! # Streams
//! There are two durable streams: `orders` (cloud to bridge: [`Message::Job`], [`Message::Cancel`]) and `reports` (bridge
//! to cloud: [`Message::Outcome`], [`Message::Resolution`], and since version 2 [`Message::GrantMade`],
//! [`Message::GrantRevoked`] and [`Message::DoorEvents`]). Every message of a stream has a [`Position`] `(epoch, n)`;
//! `n` counts from 1 without gaps inside an epoch, and neither number is above [`stream::LARGEST`]. The receiver makes a
//! message durable, then acknowledges it cumulatively, in an envelope without a position. What is acknowledged is never
//! sent again, and what is not is sent again at the next connection.
//!
//! Before anything was ever said, a receiver holds `(0, 0)` and a sender stands at `(1, 0)`: its first message is
//! `(1, 1)`.
//!
//! A receiver judges each position against the last one it holds ([`stream::arrival`]): the next one is taken; one at
//! or before is a duplicate, of which nothing is done but that it is acknowledged again; any other leaves a gap, and the
//! conversation ends (`stream_gap`). The next one is `n + 1` of the same epoch, or `n = 1` of a later one.
//!
//! A sender sends nothing above the limit that the receiver named: in hello (`orders_limit`) or welcome
//! (`reports_limit`), and then in [`Frame::Limit`], where it only grows inside an epoch. What is above it ends the
//! conversation (`limit_exceeded`).
//!
//! # Resuming
//! Hello and welcome compare what both sides remember. Of each stream the **sender** decides how it goes on
//! ([`stream::resume`]), the cloud of `orders` before it says welcome, the bridge of `reports` after it:
//!
//! | the receiver holds | the sender |
//! | --- | --- |
//! | `(0, 1)`, which means that its memory was set back | begins a new epoch (`receiver_behind`) |
//! | `(0, 0)`, and was paired in another one's place since both met | begins a new epoch (`receiver_behind`) |
//! | a later epoch than the sender's, or a later `n` of the same | begins a new epoch (`sender_behind`) |
//! | an earlier epoch, and the sender knows of an acknowledgement in its own | begins a new epoch (`receiver_behind`) |
//! | an earlier epoch, and it does not | goes on with `n = 1` of its own epoch |
//! | an `n` before one that it has acknowledged | begins a new epoch (`receiver_behind`) |
//! | any other | goes on after it |
//!
//! A new epoch is one above the greater of both; what is not acknowledged is numbered anew in it from `n = 1`, and the
//! limit that the receiver named holds in it. The cloud names the place before its next order
//! (`orders_resume_after`) and the reason (`orders_epoch_reason`) in the welcome. Nothing runs twice for a new epoch:
//! jobs are known by their `job_id`, and what had been handed to a bridge that lost its memory ends as a doubt
//! (`unknown`), not as a repetition. A cancel of a job that is not there is answered with `cancelled`, unless the job may
//! have been there and be forgotten: the cancel says what it was (`ordered`), and then the answer is `unknown`.
//!
//! # What is desired
//! From version 2 on the cloud also tells the bridge what it wants of the site: its grants ([`Frame::Desired`]), so that
//! a desk can go on without the cloud. That is a state and not a list of things to do: a picture of a grant replaces
//! the one before, and one that is outdated is never sent. Its positions grow and have gaps; a frame is taken whole or not
//! at all.
//!
//! The bridge opens it: after the welcome it acknowledges in an envelope what it holds of `desired`, `(0, 0)` if nothing,
//! and `(0, 1)` if its memory was set back. Before that the cloud says nothing of it, and it says nothing of it to a
//! bridge of version 1. The cloud then goes on or begins a new epoch by the table above. It never has more than
//! [`DESIRED_AHEAD`] changes under way that are not acknowledged, and orders go before them.
//!
//! A frame that is `complete` says that nothing is left unsaid: of a new epoch, that every grant of the site was named
//! in it. Only then the bridge drops what was not, so that it is never without a picture. The first frames of a
//! conversation end with one that is complete, if need be an empty one.
//!
//! A desk may make a grant itself, and take one back, while the cloud is away. It gives the grant and its cards their ids,
//! and reports what was done ([`Message::GrantMade`], [`Message::GrantRevoked`]) in its turn among the reports, before any
//! card of it. That is a fact to the cloud: it takes it over, and where it does not fit beside what is there, the grant
//! says so. A bridge that has such a report for a cloud of version 1 keeps it, and what follows it, until the cloud
//! speaks version 2.
//!
//! A grant names its codes with the devices they are for. A cloud does not tell PINs in a picture; a desk that gives a code
//! out tells the PIN in its report. The cloud takes both over, and orders the slots again that the desk has filled: keyed
//! by the code's id, with a later generation. A cloud that does not know of codes takes them out of the devices again, as
//! entries that nobody wanted.
//!
//! # What happens at doors
//! A bridge whose devices remember what happened at them reports that ([`Message::DoorEvents`]), in order for each device.
//! An event has one id however often its device is read; a cloud tells of each id once. What is under way to no cloud of
//! version 2 is kept at the site, as far as there is room, and what is lost is counted.
//!
//! # Envelopes
//! A message that changes state travels as one opaque string, [`Envelope::body`], beside its position. A bridge that
//! cannot read an order still takes its position, acknowledges it, and reports the job, if the text names one, as
//! `failed` with a code. A cloud that cannot read a report ends the conversation (`frame_malformed`): nothing that
//! happened at a site is passed over.
//!
//! A job is done once however often it is delivered. Its outcome has `revision` 1. After `unknown` there is at most one
//! resolution, with `revision` 2.
//!
//! # Trust
//! Who is on which end is settled once, by [`enrol`]. A connection counts no longer than the certificate with which it was
//! made; then the cloud ends it (`certificate_ended`). Every frame but ping, pong and refused is signed by its sender and
//! counts in one conversation, once, in its order: see [`signing`]. What is not believed is not looked at, and ends the
//! conversation with the reason. Expiry, of frames and of jobs, is judged by the time in the cloud's signed welcome and a
//! monotonic clock from then on, never by the wall clock of the bridge's host.
//!
//! # Limits
//! | what | limit |
//! | --- | --- |
//! | a websocket message, either way | [`MAX_FRAME`] bytes |
//! | a request of enrolment | [`enrol::MAX_BODY`] bytes |
//! | an answer to one | [`enrol::MAX_ANSWER`] bytes |
//! | epoch and `n` of a position | [`stream::LARGEST`] |
//! | a connection until its welcome | 30 seconds |
//! | nothing at all received | 40 seconds: the peer is gone |
//! | nothing signed received | [`signing::WITHHELD_AFTER`]: something keeps it back |
//! | a peer that does not read | 30 seconds |
//!
//! Sizes are judged before anything is parsed. Binary messages and compression are not used.
//!
//! # The end of a conversation
//! Whoever ends it for a reason says [`Frame::Refused`] with a [`RefusedCode`], closes the websocket, and reads on for a
//! moment, so that its last words are not lost on the way. `refused` is not signed: whoever is on the way can end a
//! conversation anyway, and no more than that follows from it. A peer that is gone is told nothing. What was not
//! acknowledged is not lost by any of this.
//!
//! The bridge connects again by itself: within a second at first, then in a random moment of a time that doubles up to a
//! minute, and begins anew after a connection that held for a minute. Where it is told when to come again, it does not
//! come earlier, and not later than [`MAX_RETRY_AFTER`] for it: by `retry_after_ms` in `refused`, by `Retry-After` in an
//! HTTP answer, or by a close code of the websocket (1012: after 5 to 30 seconds; 1013: after 30 to 60). It tries again
//! after every code: also after `revoked`, whose cure is to pair again, `certificate_ended`, whose cure is to renew,
//! `standing_unknown`, whose cure is a person's word at the cloud, and `version_unknown`, whose cure is a newer program. A cloud that restarts gives each bridge a time of its own.
//!
//! # Versions
//! Version 2 is version 1 with what is desired: the frame `desired`, the stream `desired` in acknowledgements, and the
//! reports `grant_made` and `grant_revoked`. The
//! report of a card that the site itself had written says which one it is (`card` in `local`); the access method follows it.
//!
//! Hello names the versions that the bridge speaks; welcome the one that both speak from then on, the newest in common.
//! Without one the cloud says `version_unknown`. Hello, welcome, refused and packet have the same form in all versions,
//! so that this much is understood.
//!
//! Within a version there may be added: a field that may be left out; a name in a list that the schema leaves open
//! (codes and stages). So a receiver ignores fields that it does not know, and reads such a name as `other`.
//! Everything else is another version: nothing is taken away, renamed or given another meaning, and no frame, message,
//! order or state is added. A receiver refuses by name what it does not know: a frame ends the conversation
//! (`frame_malformed`), an order fails.

pub mod enrol;
mod said;
pub mod schema;
pub mod signing;
pub mod stream;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{
    AccessGrantId, BridgeId, Condition, DesiredGrant, DoorEvents, GrantMade, GrantRevoked, Inventory, Job,
    JobId, Kind, Report,
};
pub use said::{NotTaken, Said};
pub use signing::{KeyId, PublicKey, Session, SigningKey};
pub use stream::Position;

/// The versions of this language that this build speaks, newest first.
pub const VERSIONS: &[u16] = &[2, 1];

/// The first version in which the cloud tells what it desires.
pub const DESIRED_SINCE: u16 = 2;

/// How many changes of what is desired the cloud may have under way that are not acknowledged.
pub const DESIRED_AHEAD: u64 = 64;

/// The largest frame either side accepts, in bytes.
///
/// Room for an inventory of some thousand doors; far above any job.
pub const MAX_FRAME: usize = 512 * 1024;

/// The longest time for which a peer lets itself be sent away, by [`Refused::retry_after_ms`].
pub const MAX_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(300);

/// The path of the websocket.
pub const PATH: &str = "/bridge/v1";

/// One websocket text message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What should be so, as far as it changed; since version 2.
    Desired(Desired),
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
            Self::Desired(_) => "desired",
            Self::Ping { .. } => "ping",
            Self::Beacon => "beacon",
            Self::Pong { .. } => "pong",
        }
    }
}

/// The bridge's first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EpochReason {
    /// The receiver remembers less than it once acknowledged.
    ReceiverBehind,
    /// The receiver remembers more than the sender ever sent.
    SenderBehind,
}

/// The end of a conversation, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// The stable name.
    pub code: RefusedCode,
    /// For a person.
    pub message: String,
    /// In how many milliseconds the peer is to come again, if it is told; at most [`MAX_RETRY_AFTER`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 300_000))]
    pub retry_after_ms: Option<u32>,
}

/// Why a conversation was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// The certificate with which the bridge connected has ended: it connects again with a newer one, or renews it.
    CertificateEnded,
    /// The cloud was put back from a backup and does not know whether the bridge was revoked since: a person there has
    /// to vouch for it.
    StandingUnknown,
    /// A code of a newer peer.
    #[serde(other)]
    Other,
}

/// One message that changes state, as opaque bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// The message's place in its stream; absent for acknowledgements, which are cumulative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// The JSON text of a [`Message`].
    #[schemars(transform = schema::text_of::<Message>)]
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

/// What of a job tells whether a bridge may once have had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ordered {
    /// What it was about.
    pub kind: Kind,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it must not be begun.
    pub expires_at: Timestamp,
}

impl Ordered {
    /// That of a job.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self { kind: job.order.kind(), created_at: job.created_at, expires_at: job.expires_at }
    }
}

/// What an envelope holds. The list is closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// Orders: do this.
    Job(Job),
    /// Orders: do not do it, if nothing was sent yet.
    Cancel {
        /// Which job.
        job_id: JobId,
        /// What it was, for a bridge that no longer holds it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ordered: Option<Ordered>,
    },
    /// Reports: how a job ended.
    Outcome(Report),
    /// Reports: what settled a doubt.
    Resolution(Report),
    /// Reports: a grant was made at the site; since version 2.
    GrantMade(GrantMade),
    /// Reports: a grant was taken back at the site; since version 2.
    GrantRevoked(GrantRevoked),
    /// Reports: what happened at a door; since version 2.
    DoorEvents(DoorEvents),
    /// Everything of this stream up to here is durable.
    Acknowledgement {
        /// Which stream.
        stream: StreamName,
        /// Up to where.
        position: Position,
    },
}

impl Message {
    /// The first version of the language that has it.
    #[must_use]
    pub fn since(&self) -> u16 {
        match self {
            Self::Job(_) | Self::Cancel { .. } | Self::Outcome(_) | Self::Resolution(_) => 1,
            Self::GrantMade(_) | Self::GrantRevoked(_) | Self::DoorEvents(_) => DESIRED_SINCE,
            Self::Acknowledgement { stream: StreamName::Orders | StreamName::Reports, .. } => 1,
            Self::Acknowledgement { stream: StreamName::Desired, .. } => DESIRED_SINCE,
        }
    }
}

/// The streams of this language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamName {
    /// Cloud to bridge.
    Orders,
    /// Bridge to cloud.
    Reports,
    /// Cloud to bridge: what should be so; since version 2, and only in acknowledgements.
    Desired,
}

/// What should be so at a site, as far as it changed: taken whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Desired {
    /// Where the bridge stands once it has taken this.
    pub up_to: Position,
    /// Grants as they are now; each takes the place of what was known of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<DesiredGrant>,
    /// Grants that are over, or lead to the site no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<AccessGrantId>,
    /// Whether nothing is left unsaid: what was not named in this epoch is gone.
    pub complete: bool,
}

/// The bridge's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Everything an operator should know, sorted by subject and code.
    pub conditions: Vec<Condition>,
}

/// Where a job stands, for screens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Which job.
    pub job_id: JobId,
    /// Where it stands.
    pub stage: Stage,
}

/// Stages of a job that a person may want to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// In its lane's queue.
    Queued,
    /// The mark is durable; bytes leave.
    Sent,
    /// The device took the order: lay a card down.
    WaitingForCard,
    /// A person at the site has to confirm the card first.
    WaitingForConfirmation,
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
            Self::WaitingForConfirmation => "waiting_for_confirmation",
            Self::Other => "other",
        }
    }
}

/// How far the other side may send: a number that only grows inside an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
        let message = Message::Cancel { job_id: JobId(uuid::Uuid::nil()), ordered: None };
        let envelope = Envelope::at(Position { epoch: 1, n: 7 }, &message);
        let wire = serde_json::to_string(&Frame::Envelope(envelope.clone())).unwrap();
        let Frame::Envelope(read) = serde_json::from_str(&wire).unwrap() else { panic!("{wire}") };
        assert_eq!(read.body.as_bytes(), envelope.body.as_bytes());
        assert_eq!(read.message().unwrap(), message);
    }

    #[test]
    fn the_name_of_a_stage_is_the_one_on_the_wire() {
        for stage in
            [Stage::Queued, Stage::Sent, Stage::WaitingForCard, Stage::WaitingForConfirmation, Stage::Other]
        {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
        }
    }

    #[test]
    fn an_unknown_frame_or_message_does_not_parse() {
        assert!(serde_json::from_str::<Frame>(r#"{"type":"open_sesame"}"#).is_err());
        assert!(serde_json::from_str::<Message>(r#"{"message":"erase"}"#).is_err());
    }
}
