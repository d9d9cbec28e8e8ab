//! The link's task: does what the machine says, and pumps frames both ways while a connection stands.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::client::TlsStream;

use super::{
    Event, Link, Settings, Trouble,
    dial::{End, Moment, dial},
    machine::{Machine, Next, State},
    merged,
    wire::{self, WireError},
};
use crate::{
    protocol::{Frame, RefusedCode, VERSIONS, Welcome},
    seams::{self, Clock, Net, Random, Stream},
};

/// How many events, and how many frames, may wait.
const WAITING: usize = 64;
/// How long to listen after a write that failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

type Reader = wire::Reader<TlsStream<Box<dyn Stream>>>;
type Writer = wire::Writer<TlsStream<Box<dyn Stream>>>;

/// Starts the link. It ends when the agent drops its end; what the agent had sent before still leaves.
///
/// # Panics
/// Outside a tokio runtime.
pub fn start(settings: Settings, net: Arc<dyn Net>, clock: Clock, random: Random) -> Link {
    let (events, agent_events) = mpsc::channel(WAITING);
    let (agent_frames, frames) = mpsc::channel(WAITING);
    let agent = Agent { events, frames };
    let task = Task { settings, net, clock, random, agent, cloud_time: None, troubles: Vec::new() };
    seams::spawn(task.run());
    Link { events: agent_events, frames: agent_frames }
}

struct Task {
    settings: Settings,
    net: Arc<dyn Net>,
    clock: Clock,
    random: Random,
    agent: Agent,
    /// What time the cloud said it was, and when.
    cloud_time: Option<(Timestamp, Instant)>,
    /// What was in the way at which address, since a connection stood or all addresses were tried.
    troubles: Vec<(usize, Trouble)>,
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
        let route = &self.settings.route;
        let mut machine = Machine::new(now(), route.endpoints.len());
        if route.is_first_setup {
            machine = machine.first_setup();
        }
        while self.step(&mut machine).await.is_some() {}
        tracing::debug!("link ended");
    }

    /// One step of the machine; nothing when the agent has stopped.
    async fn step(&mut self, machine: &mut Machine) -> Option<()> {
        match machine.state() {
            State::Waiting { until } => {
                let events = self.agent.events.clone();
                let waited = async {
                    tokio::select! {
                        biased;
                        () = events.closed() => None,
                        () = sleep_until(until.into()) => Some(()),
                    }
                };
                self.agent.aside(waited).await??;
                machine.connect(now());
                Some(())
            }
            State::Connecting { until } => {
                let address = machine.address();
                let end = match self.connect(address, until.into()).await {
                    Ok((reader, writer, welcome)) => {
                        let connection = machine.up(now());
                        let endpoint = &self.settings.route.endpoints[address];
                        tracing::info!(
                            connection, address = %endpoint, workspace = welcome.workspace,
                            "connected to the cloud"
                        );
                        let further = (address > 0).then(|| endpoint.to_string());
                        self.cloud_time = Some((welcome.time, Instant::now()));
                        self.troubles.clear();
                        self.agent.tell(Event::Up { connection, welcome, further }).await?;
                        self.carry(connection, reader, writer).await
                    }
                    Err(end) => end,
                };
                if let End::AgentStopped = end {
                    return None;
                }
                let next = machine.down(now(), u64::from_be_bytes(self.random.bytes()), end.failure());
                let trouble = end.trouble();
                let endpoint = &self.settings.route.endpoints[address];
                tracing::info!(
                    address = %endpoint, code = trouble.code, error = trouble.message,
                    "no connection to the cloud"
                );
                self.troubles.push((address, trouble));
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
        let endpoints = &self.settings.route.endpoints;
        let troubles: Vec<_> =
            troubles.into_iter().map(|(address, trouble)| (&endpoints[address], trouble)).collect();
        merged(&troubles)
    }

    /// Connects to an address, says hello and is welcomed, all before one instant.
    async fn connect(&mut self, address: usize, until: Instant) -> Result<(Reader, Writer, Welcome), End> {
        let cloud = self.cloud_time.map(|(said, at)| {
            let passed = SignedDuration::try_from(at.elapsed()).unwrap_or(SignedDuration::MAX);
            said.saturating_add(passed).unwrap_or(Timestamp::MAX)
        });
        let Self { settings, net, clock, agent, .. } = self;
        let moment = Moment { host: clock.now(), cloud };
        let endpoint = &settings.route.endpoints[address];
        let events = agent.events.clone();
        let connected = async {
            let socket = dial(settings, endpoint, &**net, moment, until).await?;
            let (mut reader, mut writer) = wire::split(socket);
            match welcomed(&events, &mut reader, &mut writer).await {
                Ok(welcome) => Ok((reader, writer, welcome)),
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
    async fn carry(&mut self, connection: u64, mut reader: Reader, mut writer: Writer) -> End {
        let Agent { events, frames } = &mut self.agent;
        let mut inward = Box::pin(inward(connection, events, &mut reader));
        let end = tokio::select! {
            biased;
            end = &mut inward => end,
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

async fn welcomed(
    events: &mpsc::Sender<Event>,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<Welcome, End> {
    let (ask, answer) = oneshot::channel();
    events.send(Event::Connecting(ask)).await.map_err(|_| End::AgentStopped)?;
    // An agent that drops the question is stopping, or will be asked again at the next attempt.
    let hello = answer.await.map_err(|_| End::Wire(WireError::Closed))?;
    writer.send(&Frame::Hello(hello)).await?;
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
            Some((meant_for, frame)) if meant_for == connection => writer.send(&frame).await,
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
async fn inward(connection: u64, events: &mpsc::Sender<Event>, reader: &mut Reader) -> End {
    let pulse = reader.pulse();
    loop {
        let frame = match reader.next().await {
            Ok(Frame::Ping { nonce }) => {
                pulse.pinged(nonce);
                continue;
            }
            Ok(Frame::Pong { .. }) => continue,
            Ok(Frame::Refused(refused)) => return End::Refused(refused),
            Ok(Frame::Hello(_) | Frame::Welcome(_)) => return End::Unexpected,
            Ok(
                frame @ (Frame::Envelope(_)
                | Frame::Inventory(_)
                | Frame::Status(_)
                | Frame::Progress(_)
                | Frame::Limit(_)),
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
