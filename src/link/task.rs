//! The link's task: does what the machine says, and pumps frames both ways while a connection stands.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::client::TlsStream;

use super::{
    Event, Link, Settings, Trouble,
    dial::{End, Moment, dial},
    machine::{Machine, Next, State},
    merged,
    route::Endpoint,
    wire::{self, WireError},
};
use crate::{
    protocol::{
        DESIRED_SINCE, Frame, Hello, Memory, PublicKey, RefusedCode, Session, VERSIONS, Welcome,
        signing::{Listener, Party, Speaker},
    },
    seams::{self, Net, Random, Stream, TrustedTime},
};

/// How many events, and how many frames, may wait.
const WAITING: usize = 64;
/// How long to listen after a write that failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

type Reader = wire::Reader<TlsStream<Box<dyn Stream>>>;
type Writer = wire::Writer<TlsStream<Box<dyn Stream>>>;

/// Starts the link. It ends when the agent drops its end; what the agent had sent before still leaves. `time` is
/// anchored at each welcome.
///
/// # Panics
/// Outside a tokio runtime.
pub fn start(settings: Settings, net: Arc<dyn Net>, time: TrustedTime, random: Random) -> Link {
    let (events, agent_events) = mpsc::channel(WAITING);
    let (agent_frames, frames) = mpsc::channel(WAITING);
    let (replace, settings) = watch::channel(settings);
    let agent = Agent { events, frames };
    let at_once = Arc::new(Notify::new());
    let (wanted, troubles) = (Arc::clone(&at_once), Vec::new());
    seams::spawn(Task { settings, tried: None, at_once, net, time, random, agent, troubles }.run());
    Link { events: agent_events, frames: agent_frames, settings: replace, at_once: wanted }
}

/// A connection whose welcome was heard.
struct Up {
    reader: Reader,
    writer: Writer,
    welcome: Welcome,
}

struct Task {
    settings: watch::Receiver<Settings>,
    /// What the last attempt was made with.
    tried: Option<Settings>,
    /// Somebody does not want to wait for the next attempt.
    at_once: Arc<Notify>,
    net: Arc<dyn Net>,
    time: TrustedTime,
    random: Random,
    agent: Agent,
    /// What was in the way at which address, since a connection stood or all addresses were tried.
    troubles: Vec<(Endpoint, Trouble)>,
}

/// The task's end of [`Link`].
struct Agent {
    events: mpsc::Sender<Event>,
    frames: mpsc::Receiver<(u64, Frame)>,
}

impl Agent {
    /// Does something while no connection stands. Frames that the agent sends meanwhile are for a connection that is
    /// gone; they are dropped, so that an agent which waits to send one does not wait for ever. Gives nothing when
    /// the agent has stopped.
    async fn aside<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return Some(done),
                frame = self.frames.recv() => {
                    frame?;
                }
            }
        }
    }

    async fn tell(&mut self, event: Event) -> Option<()> {
        let events = self.events.clone();
        self.aside(events.send(event)).await?.ok()
    }
}

impl Task {
    async fn run(mut self) {
        let mut machine = Machine::new(now());
        if self.settings.borrow().route.is_first_setup {
            machine = machine.first_setup();
        }
        while self.step(&mut machine).await.is_some() {}
        tracing::debug!("link ended");
    }

    /// One step of the machine; nothing when the agent has stopped.
    async fn step(&mut self, machine: &mut Machine) -> Option<()> {
        match machine.state() {
            State::Waiting { until } => {
                let Self { settings, tried, at_once, agent, .. } = self;
                let events = agent.events.clone();
                let waited = async {
                    tokio::select! {
                        biased;
                        () = events.closed() => None,
                        () = sleep_until(until.into()) => Some(()),
                        // The pause was for whoever we were.
                        () = renewed(settings, tried.as_ref()) => Some(()),
                        () = at_once.notified() => Some(()),
                    }
                };
                agent.aside(waited).await??;
                machine.connect(now());
                Some(())
            }
            State::Connecting { until } => {
                let settings = self.settings.borrow_and_update().clone();
                self.tried = Some(settings.clone());
                let address = machine.address_of(settings.route.endpoints.len());
                let endpoint = &settings.route.endpoints[address];
                let end = match self.connect(&settings, endpoint, until.into()).await {
                    Ok(Up { reader, writer, welcome }) => {
                        let connection = machine.up(now());
                        tracing::info!(
                            connection, address = %endpoint, workspace = welcome.workspace,
                            "connected to the cloud"
                        );
                        let further = (address > 0).then(|| endpoint.to_string());
                        self.troubles.clear();
                        // Whoever could not wait has what they wanted.
                        self.at_once.notified().now_or_never();
                        let version = welcome.version;
                        self.agent.tell(Event::Up { connection, welcome, further }).await?;
                        self.carry((connection, version), &settings, reader, writer).await
                    }
                    Err(end) => end,
                };
                if let End::AgentStopped = end {
                    return None;
                }
                let next = match end {
                    End::Renewed => machine.again(now()),
                    _ => machine.down(now(), u64::from_be_bytes(self.random.bytes()), end.failure()),
                };
                let trouble = end.trouble();
                tracing::info!(
                    address = %endpoint, code = trouble.code, error = trouble.message,
                    "no connection to the cloud"
                );
                self.troubles.push((endpoint.clone(), trouble));
                match next {
                    // The others may be well.
                    Next::Address => Some(()),
                    Next::Wait => {
                        let trouble = self.trouble();
                        self.agent.tell(Event::Down(trouble)).await
                    }
                    Next::End => {
                        let trouble = self.trouble();
                        self.agent.tell(Event::GaveUp(trouble)).await
                    }
                }
            }
            // A step ends a connection before it returns.
            State::Up { .. } | State::Over => None,
        }
    }

    /// What has been in the way, at all addresses together.
    fn trouble(&mut self) -> Trouble {
        let troubles = std::mem::take(&mut self.troubles);
        let troubles: Vec<_> =
            troubles.iter().map(|(endpoint, trouble)| (endpoint, trouble.clone())).collect();
        merged(&troubles)
    }

    /// Connects to an address, says hello and is welcomed, all before one instant.
    async fn connect(&mut self, settings: &Settings, endpoint: &Endpoint, until: Instant) -> Result<Up, End> {
        let Self { net, time, random, agent, .. } = self;
        let moment = Moment { host: time.host_now(), cloud: time.cloud_now() };
        let events = agent.events.clone();
        let connected = async {
            let (socket, nonce) = dial(settings, endpoint, &**net, moment, until).await?;
            let identity = &settings.identity;
            let bridge = identity.bridge_id;
            let hear = |session| Listener::new(Party::Cloud, settings.cloud_keys.clone(), bridge, session);
            let speak = |session| Speaker::new(Party::Bridge, identity.key.clone(), bridge, session);
            let (mut reader, mut writer) = wire::split(socket, time.clone(), hear(nonce), speak(nonce));
            let welcomed = async {
                let hello = Hello {
                    versions: VERSIONS.to_vec(),
                    agent: concat!("latchd/", env!("CARGO_PKG_VERSION")).into(),
                    memory: asked(&events).await?,
                    nonce: Session::fresh(random),
                    cloud_keys: settings.cloud_keys.iter().map(PublicKey::id).collect(),
                };
                let said = writer.say(Frame::Hello(hello)).await?;
                let session = Session::of_hello(&said.unwrap_or_default());
                reader.listen_to(hear(session));
                writer.speak_as(speak(session));
                welcome(&mut reader).await
            };
            match welcomed.await {
                Ok(welcome) => {
                    time.anchor(welcome.time);
                    Ok(Up { reader, writer, welcome })
                }
                Err(end) => {
                    wire::farewell(reader, writer, end.refusal()).await;
                    Err(end)
                }
            }
        };
        match agent.aside(timeout_at(until, connected)).await {
            None => Err(End::AgentStopped),
            Some(Err(_elapsed)) => Err(End::NotWelcomed),
            Some(Ok(result)) => result,
        }
    }

    /// Pumps frames until the connection ends.
    async fn carry(
        &mut self,
        (connection, version): (u64, u16),
        connected: &Settings,
        mut reader: Reader,
        mut writer: Writer,
    ) -> End {
        let Agent { events, frames } = &mut self.agent;
        let mut inward = Box::pin(inward((connection, version), events, &mut reader));
        let end = tokio::select! {
            biased;
            end = &mut inward => end,
            () = renewed(&mut self.settings, Some(connected)) => End::Renewed,
            end = outward(connection, frames, &mut writer) => match end {
                // A cloud that refuses closes behind its words: they may still be on their way to us.
                End::Wire(WireError::Closed | WireError::Broken(_)) => {
                    timeout(LAST_WORDS, &mut inward).await.unwrap_or(end)
                }
                end => end,
            },
        };
        drop(inward);
        let refusal = end.refusal();
        let farewell = wire::farewell(reader, writer, refusal);
        match self.agent.aside(farewell).await {
            Some(()) => end,
            None => End::AgentStopped,
        }
    }
}

/// Waits until we are somebody else to the cloud, or it is somewhere else, than when we tried to connect.
async fn renewed(settings: &mut watch::Receiver<Settings>, tried: Option<&Settings>) {
    let is_renewed = match tried {
        Some(tried) => settings.wait_for(|settings| !settings.is_as(tried)).await.is_ok(),
        None => false,
    };
    if !is_renewed {
        // Nobody is left who could renew anything.
        std::future::pending::<()>().await;
    }
}

/// What the agent remembers.
async fn asked(events: &mpsc::Sender<Event>) -> Result<Memory, End> {
    let (ask, answer) = oneshot::channel();
    events.send(Event::Connecting(ask)).await.map_err(|_| End::AgentStopped)?;
    // An agent that drops the question is stopping, or will be asked again at the next attempt.
    answer.await.map_err(|_| End::Wire(WireError::Closed))
}

async fn welcome(reader: &mut Reader) -> Result<Welcome, End> {
    match reader.next().await? {
        Frame::Welcome(welcome) if VERSIONS.contains(&welcome.version) => Ok(welcome),
        Frame::Welcome(_) => Err(End::VersionUnknown),
        Frame::Refused(refused) if refused.code == RefusedCode::VersionUnknown => Err(End::VersionUnknown),
        Frame::Refused(refused) => Err(End::Refused(refused)),
        _ => Err(End::Unexpected),
    }
}

/// From the agent to the cloud.
async fn outward(connection: u64, frames: &mut mpsc::Receiver<(u64, Frame)>, writer: &mut Writer) -> End {
    loop {
        let quiet_until = match writer.keep_alive().await {
            Ok(until) => until,
            Err(error) => return error.into(),
        };
        let frame = tokio::select! {
            biased;
            () = writer.called() => continue,
            frame = frames.recv() => frame,
            () = sleep_until(quiet_until) => continue,
        };
        let sent = match frame {
            None => return End::AgentStopped,
            Some((meant_for, frame)) if meant_for == connection => writer.send(frame).await,
            Some(_) => Ok(()),
        };
        match sent {
            Ok(()) => {}
            // Nothing else can be done with it, and the next attempt would be the same.
            Err(WireError::TooLarge) => {
                tracing::error!("a frame of ours is too large for the cloud; dropped");
            }
            Err(error) => return error.into(),
        }
    }
}

/// From the cloud to the agent.
async fn inward((connection, version): (u64, u16), events: &mpsc::Sender<Event>, reader: &mut Reader) -> End {
    let pulse = reader.pulse();
    loop {
        let frame = match reader.next().await {
            Ok(Frame::Ping { nonce }) => {
                pulse.pinged(nonce);
                continue;
            }
            Ok(Frame::Pong { .. } | Frame::Beacon) => continue,
            Ok(Frame::Refused(refused)) => return End::Refused(refused),
            Ok(Frame::Hello(_) | Frame::Welcome(_)) => return End::Unexpected,
            Ok(Frame::Desired(_)) if version < DESIRED_SINCE => return End::Unexpected,
            Ok(
                frame @ (Frame::Envelope(_)
                | Frame::Inventory(_)
                | Frame::Status(_)
                | Frame::Progress(_)
                | Frame::Limit(_)
                | Frame::Desired(_)),
            ) => frame,
            Err(error) => return error.into(),
        };
        let told = pulse.hold(events.send(Event::Frame { connection, frame })).await;
        if told.is_err() {
            return End::AgentStopped;
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rustls::{RootCertStore, pki_types::PrivateKeyDer};

    use super::*;
    use crate::{
        link::{Identity, Trust},
        model::BridgeId,
        protocol::SigningKey,
        seams::{Clock, MemoryNet},
    };

    fn settings(port: u16, key: u8) -> Settings {
        let tls_key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&tls_key).unwrap();
        let identity = Identity {
            bridge_id: BridgeId(uuid::Uuid::nil()),
            key: SigningKey::from_seed(&[key; 32]),
            certificate: vec![certificate.der().clone()],
            tls_key: PrivateKeyDer::try_from(tls_key.serialize_der()).unwrap(),
        };
        let url = format!("wss://cloud.example:{port}");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Settings::new(&url, Arc::new(identity), Vec::new(), Trust::private(roots)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_becomes_somebody_else_waits_no_longer_for_what_the_other_did() {
        let net = MemoryNet::default();
        let mut listener = net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.address().port();
        let clock = Clock::simulated(Timestamp::UNIX_EPOCH);
        let time = TrustedTime::new(clock);
        let mut link = start(settings(port + 1, 1), Arc::new(net.clone()), time, Random::seeded(1));
        // Nobody is there: the pauses grow to a minute.
        for _ in 0..12 {
            assert!(matches!(link.events.recv().await, Some(Event::Down(_))));
        }
        let now = Instant::now();
        link.settings.send_modify(|settings| settings.believe(Vec::new()));
        assert!(matches!(link.events.recv().await, Some(Event::Down(_))));
        assert!(now.elapsed() > Duration::ZERO, "keys of the cloud end no pause");
        let now = Instant::now();
        link.settings.send_replace(settings(port, 1));
        listener.accept().await.unwrap();
        assert_eq!(now.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_want_to_wait_is_heard_in_a_pause_and_during_an_attempt() {
        let net = MemoryNet::default();
        let mut listener = net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.address().port();
        let time = TrustedTime::new(Clock::simulated(Timestamp::UNIX_EPOCH));
        let mut link = start(settings(port, 1), Arc::new(net), time, Random::seeded(1));
        for _ in 0..12 {
            drop(listener.accept().await.unwrap());
            assert!(matches!(link.events.recv().await, Some(Event::Down(_))));
        }
        let now = Instant::now();
        link.at_once.notify_one();
        // Another time, while it tries; and nobody is heard twice.
        let attempt = listener.accept().await.unwrap();
        link.at_once.notify_one();
        drop(attempt);
        assert!(matches!(link.events.recv().await, Some(Event::Down(_))));
        drop(listener.accept().await.unwrap());
        assert!(matches!(link.events.recv().await, Some(Event::Down(_))));
        assert_eq!(now.elapsed(), Duration::ZERO);
        drop(listener.accept().await.unwrap());
        assert!(now.elapsed() > Duration::ZERO, "the pauses are back");
    }
}
