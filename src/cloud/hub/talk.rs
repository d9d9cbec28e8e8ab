//! What a bridge and its cloud say to each other once the bridge is in.

use std::{
    collections::btree_map::Entry,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{Hub, door::Guest, stopping};
use crate::{
    cloud::store::{DesiredTurn, Meeting, Paired, Taken},
    link::wire::{self, Pulse, WireError},
    model::BridgeId,
    protocol::{
        DESIRED_SINCE, Envelope, Frame, Hello, KeyId, Limit, Memory, Message, Position, PublicKey, Refused,
        RefusedCode, Session, SigningKey, StreamName, VERSIONS, Welcome,
        signing::{self, Listener, Party},
    },
    seams::TrustedTime,
    store::StoreError,
};

/// How many reports a bridge may have under way beyond the last one that is held.
const REPORTS_AHEAD: u64 = 1000;
/// How many operations of one bridge may wait for their commit; then it is not read from. Each holds at most a frame.
const COMMITS_WAITING: usize = 16;
/// A clock that is put forward ends certificates; it is looked at this often.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);
/// How many orders are fetched and sent at a time.
const ORDERS_AT_ONCE: u32 = 16;

type Reader = wire::Reader<TokioIo<Upgraded>>;
type Writer = wire::Writer<TokioIo<Upgraded>>;

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("no hello came in time")]
    NoHello,
    #[error("no version in common; this cloud speaks {VERSIONS:?}")]
    VersionUnknown,
    #[error("the bridge knows none of this cloud's keys: it has to be paired again")]
    NoCommonKey,
    #[error("the bridge was revoked")]
    Revoked,
    #[error(
        "the cloud was put back from a backup and does not know whether this bridge was revoked since: a person there \
         has to vouch for it"
    )]
    Unvouched,
    #[error("the certificate with which the bridge connected ended at {0}")]
    CertificateEnded(Timestamp),
    #[error("a frame out of turn")]
    Unexpected,
    #[error("what was never sent was acknowledged")]
    NeverSent,
    #[error("report {}/{} leaves a gap; due was {}/{}", .found.epoch, .found.n, .expected.epoch, .expected.n)]
    Gap { found: Position, expected: Position },
    #[error("report {n} is above the limit {limit}")]
    LimitExceeded { n: u64, limit: u64 },
    #[error("a newer connection of this bridge took over")]
    Fenced,
    #[error("others needed the place more")]
    Crowded,
    #[error("the cloud is stopping; try again")]
    Stopping { again_after: Duration },
    #[error("the cloud has a new key, which the next welcome names")]
    NewKey,
    #[error("the cloud cannot store anything at the moment; try again")]
    Store(#[source] StoreError),
    #[error("the bridge said: {}", wire::shown(&.0.message))]
    Refused(Refused),
}

impl End {
    /// What the bridge is told, where it can still hear.
    fn refusal(&self) -> Option<Refused> {
        let code = match self {
            Self::Wire(error) => return error.refusal(),
            Self::NoHello | Self::Crowded | Self::Refused(_) => return None,
            Self::VersionUnknown => RefusedCode::VersionUnknown,
            Self::NoCommonKey => RefusedCode::KeyUnknown,
            Self::Revoked => RefusedCode::Revoked,
            Self::Unvouched => RefusedCode::StandingUnknown,
            Self::CertificateEnded(_) => RefusedCode::CertificateEnded,
            Self::Unexpected | Self::NeverSent => RefusedCode::FrameUnexpected,
            Self::Gap { .. } => RefusedCode::StreamGap,
            Self::LimitExceeded { .. } => RefusedCode::LimitExceeded,
            Self::Fenced => RefusedCode::Fenced,
            Self::Stopping { .. } | Self::NewKey | Self::Store(_) => RefusedCode::Restarting,
        };
        let retry_after_ms = match self {
            Self::Stopping { again_after } => u32::try_from(again_after.as_millis()).ok(),
            _ => None,
        };
        Some(Refused { code, message: self.to_string(), retry_after_ms })
    }
}

/// Speaks with a bridge until either side ends it.
pub(super) async fn converse(hub: &Hub, guest: Guest, from: SocketAddr, until: Instant) {
    let Guest { paired, nonce, socket, place: (place, must_go) } = guest;
    let Paired { bridge, workspace, workspace_name, key, until: certificate_ends, is_unvouched, cloud_keys } =
        paired;
    let hear = |session| Listener::new(Party::Bridge, [key], bridge, session);
    let speak_with =
        |key: &SigningKey, session| signing::Speaker::new(Party::Cloud, key.clone(), bridge, session);
    let newest = cloud_keys.first().expect("a cloud has a key from its first start on");
    let (mut reader, mut writer) =
        wire::split(socket, TrustedTime::new(hub.clock.clone()), hear(nonce), speak_with(newest, nonce));
    let greeted = tokio::select! {
        biased;
        greeted = timeout_at(until, hello(&mut reader, &cloud_keys)) => {
            greeted.unwrap_or(Err(End::NoHello))
        }
        _ = must_go => Err(End::Crowded),
    };
    let end = match greeted {
        Err(end) => end,
        Ok(_) if is_unvouched => End::Unvouched,
        Ok(Greeting { version, hello, session, cloud_key }) => {
            drop(place);
            reader.listen_to(hear(session));
            writer.speak_as(speak_with(&cloud_key, session));
            tracing::info!(%bridge, %workspace, %from, agent = wire::shown(&hello.agent), "bridge connected");
            let cloud_keys = cloud_keys.iter().map(SigningKey::public).collect();
            let introduced = Introduced {
                bridge,
                key,
                certificate_ends,
                workspace_name,
                version,
                memory: hello.memory,
                cloud_keys,
            };
            speak(hub, introduced, &mut reader, &mut writer).await
        }
    };
    tracing::info!(%bridge, %from, reason = %end, "bridge parted");
    if let End::Store(error) = &end {
        tracing::error!(%bridge, error = error as &dyn std::error::Error, "a bridge's frame could not be stored");
    }
    let refusal = end.refusal();
    wire::farewell(reader, writer, refusal).await;
}

/// A hello, and what follows from it.
struct Greeting {
    version: u16,
    hello: Hello,
    session: Session,
    /// The newest key of ours that the bridge knows.
    cloud_key: SigningKey,
}

async fn hello(reader: &mut Reader, cloud_keys: &[SigningKey]) -> Result<Greeting, End> {
    match reader.next_said().await? {
        (Frame::Hello(hello), Some(said)) => {
            let common = VERSIONS.iter().find(|version| hello.versions.contains(version));
            let version = *common.ok_or(End::VersionUnknown)?;
            let known = |key: &&SigningKey| hello.cloud_keys.contains(&key.public().id());
            let cloud_key = cloud_keys.iter().find(known).ok_or(End::NoCommonKey)?.clone();
            Ok(Greeting { version, session: Session::of_hello(&said), hello, cloud_key })
        }
        (Frame::Refused(refused), _) => Err(End::Refused(refused)),
        _ => Err(End::Unexpected),
    }
}

/// A bridge that has said hello.
struct Introduced {
    bridge: BridgeId,
    /// What signs on its connection.
    key: PublicKey,
    certificate_ends: Timestamp,
    workspace_name: String,
    version: u16,
    memory: Memory,
    cloud_keys: Vec<PublicKey>,
}

/// Takes over the bridge, speaks with it, and lets go of it.
async fn speak(hub: &Hub, introduced: Introduced, reader: &mut Reader, writer: &mut Writer) -> End {
    let (bridge, key) = (introduced.bridge, introduced.key);
    let newest = introduced.cloud_keys.first().expect("a cloud has a key from its first start on").id();
    let now = hub.clock.now();
    let memory = introduced.memory;
    // Before the store is asked, so that no revocation falls in between.
    let mut changes = hub.signals.trust_changes();
    // Number and operation are given out under one lock, so that the store sees connections in their order.
    let (mut speaker, met, fenced) = {
        let mut speakers = hub.speakers.lock().expect("no panic while held");
        speakers.connections += 1;
        let connection = speakers.connections;
        let (fence, fenced) = oneshot::channel();
        speakers.fences.insert(bridge, (connection, fence));
        let met = hub.db.submit(move |db| match db.counts(&key)? {
            true => db.meet(now, bridge, connection, &memory).map(Some),
            false => Ok(None),
        });
        (Speaker { hub, bridge, connection, parted: false }, met, fenced)
    };
    let connection = speaker.connection;
    let end = match committed(met).await {
        Err(error) => End::Store(error),
        Ok(None) => End::Revoked,
        Ok(Some(meeting)) => {
            hub.signals.state_changed();
            let mut shutdown = hub.shutdown.clone();
            tokio::select! {
                biased;
                _ = fenced => End::Fenced,
                () = stopping(&mut shutdown) => End::Stopping { again_after: hub.come_again_after() },
                end = distrusted(hub, &key, &newest, &mut changes) => end,
                end = certificate_ends(hub, introduced.certificate_ends) => end,
                end = welcome_and_pump(hub, introduced, connection, &meeting, reader, writer) => end,
            }
        }
    };
    if let Err(error) = committed(speaker.part()).await {
        tracing::error!(%bridge, %error, "note that a bridge parted");
    }
    hub.signals.state_changed();
    end
}

/// Waits until a bridge's keys count no more, or the cloud has a newer key than the bridge was told.
async fn distrusted(hub: &Hub, key: &PublicKey, newest: &KeyId, changes: &mut watch::Receiver<u64>) -> End {
    let key = *key;
    let mut comes_again_at: Option<Instant> = None;
    loop {
        let comes_again = async {
            match comes_again_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() {
                return End::Stopping { again_after: hub.come_again_after() };
            },
            () = comes_again => return End::NewKey,
        }
        match hub.db.run(move |db| db.trust(&key)).await {
            Err(error) => return End::Store(error),
            Ok(trust) if !trust.counts => return End::Revoked,
            // Each at its own time, and each comes back at once: no property is without its cloud for long.
            Ok(trust) if trust.newest_cloud_key.as_deref() != Some(newest.as_str()) => {
                comes_again_at.get_or_insert_with(|| Instant::now() + hub.come_again_after());
            }
            Ok(_) => {}
        }
    }
}

/// Waits until a certificate ends, by whatever the clock shows by then.
async fn certificate_ends(hub: &Hub, at: Timestamp) -> End {
    loop {
        let left = at.duration_since(hub.clock.now());
        if left <= SignedDuration::ZERO {
            return End::CertificateEnded(at);
        }
        sleep(left.unsigned_abs().min(LOOK_AT_CLOCK)).await;
    }
}

/// The connection that speaks for a bridge, until it is fenced or goes. It parts however its task ends, so that no
/// bridge is taken for connected that is not.
struct Speaker<'a> {
    hub: &'a Hub,
    bridge: BridgeId,
    connection: u64,
    parted: bool,
}

impl Speaker<'_> {
    fn part(&mut self) -> oneshot::Receiver<Result<(), StoreError>> {
        self.parted = true;
        let (bridge, connection) = (self.bridge, self.connection);
        if let Ok(mut speakers) = self.hub.speakers.lock()
            && let Entry::Occupied(entry) = speakers.fences.entry(bridge)
            && entry.get().0 == connection
        {
            entry.remove();
        }
        let now = self.hub.clock.now();
        self.hub.db.submit(move |db| db.part(now, bridge, connection))
    }
}

impl Drop for Speaker<'_> {
    fn drop(&mut self) {
        if !self.parted {
            // Nobody is left to wait for it.
            drop(self.part());
            self.hub.signals.state_changed();
        }
    }
}

async fn welcome_and_pump(
    hub: &Hub,
    introduced: Introduced,
    connection: u64,
    meeting: &Meeting,
    reader: &mut Reader,
    writer: &mut Writer,
) -> End {
    let bridge = introduced.bridge;
    if let Some(reason) = meeting.orders_epoch_reason {
        let epoch = meeting.orders_resume_after.epoch;
        tracing::warn!(%bridge, epoch, ?reason, lost = meeting.lost.len(), "the orders begin a new epoch");
    }
    let newest = introduced.cloud_keys.first().map(PublicKey::id);
    let reports_limit = meeting.reports_received.n.saturating_add(REPORTS_AHEAD);
    let welcome = Frame::Welcome(Welcome {
        version: introduced.version,
        bridge_id: bridge,
        workspace: introduced.workspace_name,
        time: hub.clock.now(),
        orders_resume_after: meeting.orders_resume_after,
        reports_received: meeting.reports_received,
        reports_limit,
        orders_epoch_reason: meeting.orders_epoch_reason,
        cloud_keys: introduced.cloud_keys,
    });
    if let Err(error) = writer.send(welcome).await {
        return error.into();
    }
    let talk = Talk {
        hub,
        bridge,
        connection,
        version: introduced.version,
        reports_limit: AtomicU64::new(reports_limit),
        owed: Mutex::default(),
        pulse: reader.pulse(),
        told: Mutex::new(newest),
    };
    let (begun, commits) = mpsc::channel(COMMITS_WAITING);
    tokio::select! {
        biased;
        end = talk.settle(commits) => end,
        end = talk.send(meeting.orders_resume_after.n, writer) => end,
        end = talk.read(reader, &begun) => end,
    }
}

/// One conversation, as its three loops see it.
struct Talk<'a> {
    hub: &'a Hub,
    bridge: BridgeId,
    connection: u64,
    version: u16,
    reports_limit: AtomicU64,
    owed: Mutex<Owed>,
    pulse: Arc<Pulse>,
    /// The newest of the cloud's keys, until the bridge shows that it has heard the welcome that named it.
    told: Mutex<Option<KeyId>>,
}

/// What the writing loop has to say when it comes to it; only the latest of each matters.
#[derive(Default)]
struct Owed {
    acknowledgement: Option<Position>,
    reports_limit: Option<u64>,
    /// The bridge takes more orders than before.
    orders: bool,
    /// It holds more of what is desired.
    desired: bool,
}

/// An operation under way.
enum Commit {
    Report { position: Position, taken: oneshot::Receiver<Result<Taken, StoreError>> },
    Acknowledgement(oneshot::Receiver<Result<bool, StoreError>>),
    Desired(oneshot::Receiver<Result<bool, StoreError>>),
    Limit(oneshot::Receiver<Result<(), StoreError>>),
    Picture(oneshot::Receiver<Result<(), StoreError>>),
    Noted(oneshot::Receiver<Result<(), StoreError>>),
}

impl Talk<'_> {
    /// Reads frames and begins what they ask for.
    async fn read(&self, reader: &mut Reader, begun: &mpsc::Sender<Commit>) -> End {
        loop {
            let frame = match reader.next().await {
                Ok(frame) => frame,
                Err(error) => return error.into(),
            };
            let is_signed = !matches!(frame, Frame::Ping { .. } | Frame::Pong { .. } | Frame::Refused(_));
            let told = self.told.lock().expect("no panic while held").take_if(|_| is_signed);
            if let Some(key) = told {
                let bridge = self.bridge;
                let noted =
                    Commit::Noted(self.hub.db.submit(move |db| db.note_cloud_key_known(bridge, &key)));
                if self.pulse.hold(begun.send(noted)).await.is_err() {
                    return End::Store(StoreError::Stopped);
                }
            }
            let commit = match self.begin(frame) {
                Ok(Some(commit)) => commit,
                Ok(None) => continue,
                Err(end) => return end,
            };
            if self.pulse.hold(begun.send(commit)).await.is_err() {
                return End::Store(StoreError::Stopped);
            }
        }
    }

    fn begin(&self, frame: Frame) -> Result<Option<Commit>, End> {
        let (bridge, connection) = (self.bridge, self.connection);
        let db = &self.hub.db;
        let now = self.hub.clock.now();
        Ok(Some(match frame {
            Frame::Envelope(envelope) => return self.open(envelope).map(Some),
            Frame::Inventory(inventory) => {
                Commit::Picture(db.submit(move |db| db.apply_inventory(now, bridge, &inventory)))
            }
            Frame::Status(status) => {
                Commit::Picture(db.submit(move |db| db.apply_status(now, bridge, &status.conditions)))
            }
            Frame::Limit(Limit { stream: StreamName::Orders, up_to }) => {
                Commit::Limit(db.submit(move |db| {
                    db.limit_orders(bridge, connection, up_to);
                    Ok(())
                }))
            }
            Frame::Progress(progress) => {
                tracing::info!(%bridge, job = %progress.job_id, stage = ?progress.stage, "job at a stage");
                self.hub.signals.set_stage(progress.job_id, progress.stage);
                self.hub.signals.state_changed();
                return Ok(None);
            }
            Frame::Ping { nonce } => {
                self.pulse.pinged(nonce);
                return Ok(None);
            }
            Frame::Pong { .. } | Frame::Beacon => return Ok(None),
            Frame::Refused(refused) => return Err(End::Refused(refused)),
            Frame::Hello(_) | Frame::Welcome(_) | Frame::Limit(_) | Frame::Desired(_) => {
                return Err(End::Unexpected);
            }
        }))
    }

    fn open(&self, envelope: Envelope) -> Result<Commit, End> {
        let (bridge, connection) = (self.bridge, self.connection);
        let db = &self.hub.db;
        let now = self.hub.clock.now();
        match (wire::message(&envelope.body)?, envelope.position) {
            (
                message @ (Message::Outcome(_)
                | Message::Resolution(_)
                | Message::GrantMade(_)
                | Message::GrantRevoked(_)
                | Message::DoorEvents(_)),
                Some(position),
            ) if message.since() <= self.version => {
                let limit = self.reports_limit.load(Ordering::Relaxed);
                if position.n > limit {
                    return Err(End::LimitExceeded { n: position.n, limit });
                }
                let taken = db.submit(move |db| db.take_said(now, bridge, connection, position, &message));
                Ok(Commit::Report { position, taken })
            }
            (Message::Acknowledgement { stream: StreamName::Orders, position }, None) => {
                Ok(Commit::Acknowledgement(
                    db.submit(move |db| db.orders_acknowledged(bridge, connection, position)),
                ))
            }
            (Message::Acknowledgement { stream: StreamName::Desired, position }, None)
                if self.version >= DESIRED_SINCE =>
            {
                let held = db.submit(move |db| db.desired_acknowledged(bridge, connection, position));
                Ok(Commit::Desired(held))
            }
            _ => Err(End::Unexpected),
        }
    }

    /// Waits for commits in the order of their operations.
    async fn settle(&self, mut commits: mpsc::Receiver<Commit>) -> End {
        while let Some(commit) = commits.recv().await {
            if let Err(end) = self.settle_one(commit).await {
                return end;
            }
        }
        End::Store(StoreError::Stopped)
    }

    async fn settle_one(&self, commit: Commit) -> Result<(), End> {
        match commit {
            Commit::Report { position, taken } => {
                match committed(taken).await.map_err(End::Store)? {
                    Taken::Applied => self.hub.signals.state_changed(),
                    Taken::Held => {}
                    Taken::Gap { expected } => {
                        return Err(End::Gap { found: position, expected });
                    }
                    Taken::Fenced => return Err(End::Fenced),
                }
                self.owe_acknowledgement(position);
            }
            Commit::Acknowledgement(known) => {
                if !committed(known).await.map_err(End::Store)? {
                    return Err(End::NeverSent);
                }
            }
            Commit::Desired(known) => {
                if !committed(known).await.map_err(End::Store)? {
                    return Err(End::NeverSent);
                }
                self.owed.lock().expect("no panic while held").desired = true;
                self.pulse.wake();
            }
            Commit::Limit(done) => {
                committed(done).await.map_err(End::Store)?;
                self.owed.lock().expect("no panic while held").orders = true;
                self.pulse.wake();
            }
            Commit::Noted(done) => committed(done).await.map_err(End::Store)?,
            Commit::Picture(done) => {
                committed(done).await.map_err(End::Store)?;
                self.hub.signals.state_changed();
            }
        }
        Ok(())
    }

    fn owe_acknowledgement(&self, position: Position) {
        let mut owed = self.owed.lock().expect("no panic while held");
        owed.acknowledgement = owed.acknowledgement.max(Some(position));
        let limit = self.reports_limit.load(Ordering::Relaxed);
        let wanted = position.n.saturating_add(REPORTS_AHEAD);
        if wanted.saturating_sub(limit) >= REPORTS_AHEAD / 2 {
            self.reports_limit.store(wanted, Ordering::Relaxed);
            owed.reports_limit = Some(wanted);
        }
        self.pulse.wake();
    }

    /// Sends what is owed, orders from `sent` on, what is desired, and signs of life.
    async fn send(&self, mut sent: u64, writer: &mut Writer) -> End {
        let mut queued = Box::pin(self.hub.signals.orders());
        queued.as_mut().enable();
        let (mut look, mut look_at_desired) = (true, false);
        loop {
            match self.pay(writer).await {
                Ok(Owed { orders, desired, .. }) => {
                    look |= orders;
                    look_at_desired |= desired;
                }
                Err(error) => return error.into(),
            }
            // Also between two turns of what is desired: nobody stands and waits for that.
            if queued.as_mut().now_or_never().is_some() {
                queued.set(self.hub.signals.orders());
                queued.as_mut().enable();
                (look, look_at_desired) = (true, true);
            }
            let quiet_until = match writer.keep_alive().await {
                Ok(until) => until,
                Err(error) => return error.into(),
            };
            if look {
                match self.send_orders(&mut sent, writer).await {
                    Ok(all) => look = !all,
                    Err(end) => return end,
                }
                continue;
            }
            if look_at_desired && self.version >= DESIRED_SINCE {
                match self.send_desired(writer).await {
                    Ok(more) => look_at_desired = more,
                    Err(end) => return end,
                }
                continue;
            }
            tokio::select! {
                biased;
                () = writer.called() => {}
                () = &mut queued => {
                    queued.set(self.hub.signals.orders());
                    queued.as_mut().enable();
                    (look, look_at_desired) = (true, true);
                }
                () = sleep_until(quiet_until) => {}
            }
        }
    }

    /// Says what is owed; gives it, for what is to be looked for then.
    async fn pay(&self, writer: &mut Writer) -> Result<Owed, WireError> {
        let owed = std::mem::take(&mut *self.owed.lock().expect("no panic while held"));
        if let Some(position) = owed.acknowledgement {
            let message = Message::Acknowledgement { stream: StreamName::Reports, position };
            writer.send(Frame::Envelope(Envelope::loose(&message))).await?;
        }
        if let Some(up_to) = owed.reports_limit {
            let stream = StreamName::Reports;
            writer.send(Frame::Limit(Limit { stream, up_to })).await?;
        }
        Ok(owed)
    }

    /// Sends the next few orders; gives whether these were all.
    async fn send_orders(&self, sent: &mut u64, writer: &mut Writer) -> Result<bool, End> {
        let (bridge, connection, after) = (self.bridge, self.connection, *sent);
        let orders = self
            .hub
            .db
            .run(move |db| db.orders_to_send(bridge, connection, after, ORDERS_AT_ONCE))
            .await
            .map_err(End::Store)?
            .ok_or(End::Fenced)?;
        let all = orders.len() < ORDERS_AT_ONCE as usize;
        for order in orders {
            let n = order.position.map_or(*sent, |position| position.n);
            writer.send(Frame::Envelope(order)).await?;
            *sent = n;
        }
        Ok(all)
    }

    /// Sends the next few changes of what is desired; gives whether there may be more to send now.
    async fn send_desired(&self, writer: &mut Writer) -> Result<bool, End> {
        let (bridge, connection) = (self.bridge, self.connection);
        let turn = self.hub.db.run(move |db| db.desired_to_send(bridge, connection)).await;
        let DesiredTurn { frame, more, concerns_others } = turn.map_err(End::Store)?;
        if concerns_others {
            self.hub.signals.orders_queued();
        }
        if let Some(frame) = frame {
            writer.send(Frame::Desired(frame)).await?;
        }
        Ok(more)
    }
}

/// The result of an operation whose transaction has ended.
async fn committed<T>(operation: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    operation.await.unwrap_or(Err(StoreError::Stopped))
}
