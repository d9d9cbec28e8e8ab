//! Frames over a websocket, the same at both ends of the bridge.
//!
//! Everything is limited before it is parsed, every write has a deadline, and reading goes on while a write waits. What
//! is said is signed here, and what is heard is believed here or ends the connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

use super::{Beat, Heartbeat};
use crate::{
    protocol::{
        Frame, MAX_FRAME, Memory, Message as Body, NotTaken, Position, Refused, RefusedCode, Said, place,
        signing::{BEACON_AFTER, COUNTS_FOR, Distrust, Listener, Speaker, WITHHELD_AFTER},
    },
    seams::TrustedTime,
};

/// A peer that takes nothing for this long is given up.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// The last words to a peer get less time: it has no claim to more.
const FAREWELL_WITHIN: Duration = Duration::from_secs(5);
/// After them, its bytes are still taken for a moment: closing on unread bytes resets a TCP connection, and a reset
/// may destroy what the peer has not read yet.
const LINGER: Duration = Duration::from_secs(2);

/// Why no frame came, or why one did not leave.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The peer closed the connection.
    #[error("the other side closed the connection")]
    Closed,
    /// The peer closed the connection and said why.
    #[error("the other side closed the connection with {code}{}", in_brackets(.reason))]
    ClosedWith {
        /// The number of the reason.
        code: u16,
        /// Its words.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] tungstenite::Error),
    /// The peer is silent.
    #[error("the other side has been silent for too long")]
    Silent,
    /// The peer takes nothing.
    #[error("the other side does not read")]
    NotRead,
    /// A frame above the limit.
    #[error("a frame above {MAX_FRAME} bytes")]
    TooLarge,
    /// A frame that is not of this language. Names the place, never the content: it may be private.
    #[error("a frame that is not of this language: {0}")]
    Malformed(String),
    /// A frame that is not believed.
    #[error(transparent)]
    Distrusted(#[from] Distrust),
    /// The connection lives, and yet nothing signed comes.
    #[error("only unsigned signs of life for too long: something on the way keeps the rest back")]
    Withheld,
}

impl WireError {
    /// What the peer is told, where it is to blame and can still hear.
    pub(crate) fn refusal(&self) -> Option<Refused> {
        let code = match self {
            Self::TooLarge => RefusedCode::FrameTooLarge,
            Self::Malformed(_) => RefusedCode::FrameMalformed,
            Self::Distrusted(distrust) => distrust.code(),
            Self::Withheld => RefusedCode::MessagesWithheld,
            Self::Closed | Self::ClosedWith { .. } | Self::Broken(_) | Self::Silent | Self::NotRead => {
                return None;
            }
        };
        Some(Refused { code, message: self.to_string(), retry_after_ms: None })
    }
}

fn in_brackets(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" (\"{}\")", shown(words)) }
}

/// The websocket's limits. A read buffer of 4 KiB instead of the default 128 KiB keeps a connection of a large fleet
/// at about 30 KiB; frames leave as soon as they are written.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_FRAME)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
}

/// What the two halves of a connection know of each other.
#[derive(Debug)]
pub(crate) struct Pulse {
    began: Instant,
    heard_after: AtomicU64,
    believed_after: AtomicU64,
    holding: AtomicBool,
    pong: Mutex<Option<u64>>,
    /// Wakes the writing half when something is due.
    due: Notify,
}

impl Pulse {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            heard_after: AtomicU64::new(0),
            believed_after: AtomicU64::new(0),
            holding: AtomicBool::new(false),
            pong: Mutex::new(None),
            due: Notify::new(),
        })
    }

    /// The reading half waits for our own side, not for the peer: its silence means nothing meanwhile.
    pub(crate) async fn hold<T>(&self, what: impl Future<Output = T>) -> T {
        self.holding.store(true, Ordering::Relaxed);
        let result = what.await;
        self.heard();
        self.believed();
        self.holding.store(false, Ordering::Relaxed);
        result
    }

    /// Remembers a ping. Of several that came while nothing could be sent, the last is answered.
    pub(crate) fn pinged(&self, nonce: u64) {
        *self.pong.lock().expect("no panic while held") = Some(nonce);
        self.due.notify_one();
    }

    /// Wakes the writing half.
    pub(crate) fn wake(&self) {
        self.due.notify_one();
    }

    fn heard(&self) {
        self.heard_after.store(self.millis(), Ordering::Relaxed);
    }

    fn believed(&self) {
        self.believed_after.store(self.millis(), Ordering::Relaxed);
    }

    fn heard_at(&self) -> Instant {
        self.at(&self.heard_after)
    }

    fn believed_at(&self) -> Instant {
        self.at(&self.believed_after)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, after: &AtomicU64) -> Instant {
        match self.holding.load(Ordering::Relaxed) {
            true => Instant::now(),
            false => self.began + Duration::from_millis(after.load(Ordering::Relaxed)),
        }
    }
}

/// The byte stream below; notes when a byte arrived.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    inner: S,
    pulse: Arc<Pulse>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.pulse.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// A byte stream whose arrivals are noted.
pub(crate) fn watch<S>(inner: S) -> Watched<S> {
    Watched { inner, pulse: Pulse::new() }
}

/// Takes a websocket apart into its two directions. `time` is the cloud's.
pub(crate) fn split<S>(
    socket: WebSocketStream<Watched<S>>,
    time: TrustedTime,
    listener: Listener,
    speaker: Speaker,
) -> (Reader<S>, Writer<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let pulse = Arc::clone(&socket.get_ref().pulse);
    let (sink, stream) = socket.split();
    let reader = Reader { stream, pulse: Arc::clone(&pulse), listener, time: time.clone() };
    let now = Instant::now();
    let heartbeat = Heartbeat::new(now.into_std());
    (reader, Writer { sink, heartbeat, pings: 0, pulse, speaker, time, signed_at: now })
}

/// The direction towards us.
#[derive(Debug)]
pub(crate) struct Reader<S> {
    stream: SplitStream<WebSocketStream<Watched<S>>>,
    pulse: Arc<Pulse>,
    listener: Listener,
    time: TrustedTime,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    /// The next frame. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Frame, WireError> {
        self.next_said().await.map(|(frame, _)| frame)
    }

    /// The next frame, with the signed body that it came in.
    pub(crate) async fn next_said(&mut self) -> Result<(Frame, Option<String>), WireError> {
        loop {
            return match self.stream.next().await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    Err(WireError::ClosedWith { code: frame.code.into(), reason: frame.reason.to_string() })
                }
                None | Some(Ok(Message::Close(None))) => Err(WireError::Closed),
                Some(Ok(Message::Text(text))) => self.heard(&text),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Binary(_))) => Err(WireError::Malformed("a binary message".into())),
                Some(Err(tungstenite::Error::Capacity(_))) => Err(WireError::TooLarge),
                Some(Err(tungstenite::Error::Utf8(_))) => {
                    Err(WireError::Malformed("text that is not UTF-8".into()))
                }
                Some(Err(tungstenite::Error::Protocol(
                    tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
                ))) => Err(WireError::Closed),
                Some(Err(tungstenite::Error::Protocol(error))) => {
                    Err(WireError::Malformed(error.to_string()))
                }
                Some(Err(error)) => Err(WireError::Broken(error)),
            };
        }
    }

    fn heard(&mut self, text: &str) -> Result<(Frame, Option<String>), WireError> {
        let said = match parse(text)? {
            Said::Bare(frame) => (frame, None),
            Said::Signed(packet) => {
                let frame = self.listener.hear(&packet, self.time.now())?;
                self.pulse.believed();
                (frame, Some(packet.body))
            }
        };
        match positions(&said.0).into_iter().flatten().all(Position::is_plausible) {
            true => Ok(said),
            false => Err(WireError::Malformed("a position beyond all bounds".into())),
        }
    }

    /// From here on another session is heard, or others speak.
    pub(crate) fn listen_to(&mut self, listener: Listener) {
        self.listener = listener;
    }

    /// What both halves share.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }
}

/// The direction away from us.
#[derive(Debug)]
pub(crate) struct Writer<S> {
    sink: SplitSink<WebSocketStream<Watched<S>>, Message>,
    heartbeat: Heartbeat,
    pings: u64,
    pulse: Arc<Pulse>,
    speaker: Speaker,
    time: TrustedTime,
    signed_at: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<S> {
    /// Sends a frame, signed if its kind is. One that turns out to be too large was never said.
    pub(crate) async fn send(&mut self, frame: Frame) -> Result<(), WireError> {
        self.say(frame).await.map(drop)
    }

    /// Sends a frame, and gives the signed body that it went in.
    pub(crate) async fn say(&mut self, frame: Frame) -> Result<Option<String>, WireError> {
        let is_bare = matches!(frame, Frame::Ping { .. } | Frame::Pong { .. } | Frame::Refused(_));
        if is_bare {
            self.put(Said::Bare(frame).to_text()).await?;
            return Ok(None);
        }
        let begins = matches!(frame, Frame::Hello(_) | Frame::Welcome(_));
        let expires_at = || self.time.now().saturating_add(COUNTS_FOR).unwrap_or(Timestamp::MAX);
        let expires_at = (!begins).then(expires_at);
        // What is not sent was not said: it must leave no gap.
        let mut speaker = self.speaker.clone();
        let said = Said::Signed(speaker.say(frame, expires_at));
        let text = said.to_text();
        if text.len() > MAX_FRAME {
            return Err(WireError::TooLarge);
        }
        self.speaker = speaker;
        self.signed_at = Instant::now();
        self.put(text).await?;
        Ok(said.into_body())
    }

    async fn put(&mut self, text: String) -> Result<(), WireError> {
        match timeout(WRITE_WITHIN, self.sink.send(Message::text(text))).await {
            Err(_elapsed) => Err(WireError::NotRead),
            Ok(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed)) => {
                Err(WireError::Closed)
            }
            Ok(Err(error)) => Err(WireError::Broken(error)),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// Sends what the connection itself owes: a pong, a ping. Returns until when there is nothing more of that.
    pub(crate) async fn keep_alive(&mut self) -> Result<Instant, WireError> {
        loop {
            let pong = self.pulse.pong.lock().expect("no panic while held").take();
            if let Some(nonce) = pong {
                self.send(Frame::Pong { nonce }).await?;
            }
            let now = Instant::now();
            let withheld_at = self.pulse.believed_at() + WITHHELD_AFTER;
            self.heartbeat.heard(self.pulse.heard_at().into_std());
            match self.heartbeat.poll(now.into_std()) {
                Beat::Dead => return Err(WireError::Silent),
                _ if withheld_at <= now => return Err(WireError::Withheld),
                Beat::Ping => {
                    self.pings += 1;
                    self.send(Frame::Ping { nonce: self.pings }).await?;
                }
                Beat::Wait { .. } if self.signed_at + BEACON_AFTER <= now => self.send(Frame::Beacon).await?,
                Beat::Wait { until } => {
                    return Ok(withheld_at.min(self.signed_at + BEACON_AFTER).min(until.into()));
                }
            }
        }
    }

    /// From here on it is said in another session.
    pub(crate) fn speak_as(&mut self, speaker: Speaker) {
        self.speaker = speaker;
    }

    /// Waits until the reading half, or whoever has something to send, calls.
    pub(crate) async fn called(&self) {
        self.pulse.due.notified().await;
    }
}

/// Ends a connection: says why, closes, and listens to the end of the peer's words.
pub(crate) async fn farewell<S>(reader: Reader<S>, mut writer: Writer<S>, refused: Option<Refused>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let last_words = async {
        if let Some(refused) = refused {
            writer.send(Frame::Refused(refused)).await?;
        }
        let _ = writer.sink.close().await;
        Ok::<_, WireError>(())
    };
    let said = timeout(FAREWELL_WITHIN, last_words).await;
    let Ok(mut socket) = reader.stream.reunite(writer.sink) else {
        return;
    };
    if !matches!(said, Ok(Ok(()))) {
        return;
    }
    let bytes = socket.get_mut();
    let mut drain = vec![0; 4096];
    let _ = timeout(LINGER, async {
        bytes.shutdown().await?;
        while bytes.read(&mut drain).await? > 0 {}
        Ok::<_, io::Error>(())
    })
    .await;
}

/// A peer's words as they may stand in a log: short, and without anything that a terminal obeys.
pub(crate) fn shown(words: &str) -> String {
    words.chars().take(200).flat_map(char::escape_debug).collect()
}

fn parse(text: &str) -> Result<Said, WireError> {
    Said::read(text).map_err(|why| match why {
        NotTaken::Malformed(place) => WireError::Malformed(place),
        NotTaken::Unsigned(kind) => Distrust::Unsigned(kind).into(),
    })
}

/// Reads the message inside an envelope.
pub(crate) fn message(body: &str) -> Result<Body, WireError> {
    let message = serde_json::from_str(body)
        .map_err(|error| WireError::Malformed(format!("in an envelope, {}", place(body, &error))))?;
    match &message {
        Body::Acknowledgement { position, .. } if !position.is_plausible() => {
            Err(WireError::Malformed("a position beyond all bounds".into()))
        }
        _ => Ok(message),
    }
}

fn positions(frame: &Frame) -> [Option<Position>; 3] {
    match frame {
        Frame::Hello(hello) => {
            let Memory { orders_received, reports_sent, reports_acknowledged, .. } = hello.memory;
            [Some(orders_received), Some(reports_sent), Some(reports_acknowledged)]
        }
        Frame::Welcome(welcome) => [Some(welcome.orders_resume_after), Some(welcome.reports_received), None],
        Frame::Envelope(envelope) => [envelope.position, None, None],
        Frame::Desired(desired) => [Some(desired.up_to), None, None],
        Frame::Refused(_)
        | Frame::Inventory(_)
        | Frame::Status(_)
        | Frame::Progress(_)
        | Frame::Limit(_)
        | Frame::Ping { .. }
        | Frame::Beacon
        | Frame::Pong { .. } => [None; 3],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn malformed(text: &str) -> String {
        match parse(text) {
            Err(WireError::Malformed(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_with_a_frame_is_said_without_its_content() {
        assert_eq!(malformed("{"), "cut off at line 1 column 1");
        assert_eq!(malformed("knock knock"), "not JSON at line 1 column 1");
        let unknown = malformed(r#"{"type":"open_sesame"}"#);
        assert!(unknown.starts_with("type open_sesame, unexpected content"), "{unknown}");
        let private = malformed(r#"{"type":"Jane Doe","guest":"Jane Doe"}"#);
        assert!(!private.contains("Jane"), "{private}");
        let private = malformed(r#"{"type":"ping","nonce":"Jane Doe"}"#);
        assert!(!private.contains("Jane"), "{private}");
    }

    #[test]
    fn a_frame_that_must_be_signed_is_not_taken_without() {
        for bare in [r#"{"type":"limit","stream":"orders","up_to":9}"#, r#"{"type":"beacon"}"#] {
            assert!(matches!(parse(bare), Err(WireError::Distrusted(Distrust::Unsigned(_)))), "{bare}");
        }
        for bare in [r#"{"type":"ping","nonce":1}"#, r#"{"type":"refused","code":"fenced","message":""}"#] {
            assert!(matches!(parse(bare), Ok(Said::Bare(_))), "{bare}");
        }
    }

    #[test]
    fn a_position_that_nobody_can_have_come_to_is_malformed() {
        let body =
            r#"{"message":"acknowledgement","stream":"orders","position":{"epoch":1,"n":9007199254740992}}"#;
        assert!(matches!(message(body), Err(WireError::Malformed(_))));
    }

    #[test]
    fn a_peers_words_are_shown_short_and_harmless() {
        assert_eq!(shown("be right back\u{1b}[2J"), "be right back\\u{1b}[2J");
        assert!(shown(&"\u{7}".repeat(100_000)).len() < 2_000);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = parse(&text);
            let _ = message(&text);
        }
    }
}
