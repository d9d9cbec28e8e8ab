//! A network between machines that each may lose its power, over lines that each may be cut, stall, or swallow.
//!
//! Every connection is two queues of bytes, each chunk with the instant at which it arrives. As with TCP, what arrives
//! arrives whole and in order, or the connection ends; as with TCP, neither side need ever learn that it has ended.
//! While a line is down, what was sent waits and may come through later, long after its sender has given up: so bytes
//! of an old connection arrive beside those of a new one. Loss, repetition and reordering of packets are what TCP hides
//! and are not imitated.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use latchd::seams::{BoxFuture, Listener, Net, Random, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, mpsc},
    time::{Instant, Sleep, sleep, sleep_until},
};

/// How many bytes may be under way in one direction before a writer waits.
const WINDOW: usize = 64 * 1024;

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    Agent,
    Cloud,
    Salto,
    /// The keypad locks, each at a port of its own.
    Locks,
    /// Those who use the cloud's API.
    People,
}

/// How a line between two machines is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    /// Bytes arrive after about this long.
    Open(Duration),
    /// Nothing arrives, nobody is told; what was sent comes through if the line is mended.
    Down,
}

/// The network; all clones are one.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

struct State {
    random: Random,
    listeners: BTreeMap<u16, (Host, mpsc::UnboundedSender<Knock>)>,
    roads: BTreeMap<(Host, Host), Road>,
    mended: Arc<Notify>,
    connections: BTreeMap<u64, Connection>,
    last: u64,
    /// Of connections made from now on: after how many bytes they end, drawn below this.
    fragile: Option<u64>,
}

struct Knock {
    connection: u64,
}

struct Connection {
    /// Who called, and who was called.
    hosts: [Host; 2],
    /// From the caller, and to it.
    pipes: [Pipe; 2],
    /// Bytes vanish from now on, in both directions.
    swallows: bool,
    /// Bytes in both directions together after which it is reset.
    cut_after: Option<u64>,
}

#[derive(Default)]
struct Pipe {
    chunks: VecDeque<(Instant, Chunk)>,
    bytes: usize,
    last: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The reader is gone, or its machine said so: writing fails.
    broken: bool,
    /// The reader has heard the end.
    ended: bool,
    /// The reader's own end is dropped.
    unread: bool,
    /// The writer's own end is dropped or shut.
    unwritten: bool,
}

enum Chunk {
    Bytes(VecDeque<u8>),
    End,
    Reset,
}

impl Network {
    pub(crate) fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(State {
            random,
            listeners: BTreeMap::new(),
            roads: BTreeMap::new(),
            mended: Arc::default(),
            connections: BTreeMap::new(),
            last: 0,
            fragile: None,
        })))
    }

    /// The network as one machine sees it.
    pub(crate) fn at(&self, host: Host) -> Arc<dyn Net> {
        Arc::new(Seat { network: self.clone(), host })
    }

    pub(crate) fn set_road(&self, one: Host, other: Host, road: Road) {
        let mut state = self.lock();
        state.roads.insert(pair(one, other), road);
        if road != Road::Down {
            let now = Instant::now();
            for connection in state.connections.values_mut() {
                if pair(connection.hosts[0], connection.hosts[1]) == pair(one, other) {
                    connection.delay(now + latency(road));
                }
            }
            state.mended.notify_waiters();
        }
    }

    /// Ends every connection between two machines. Their ends are told.
    pub(crate) fn reset(&self, one: Host, other: Host) {
        self.each(one, other, Connection::reset);
    }

    /// Every connection between two machines swallows its bytes from now on, and nobody is told.
    pub(crate) fn swallow(&self, one: Host, other: Host) {
        self.each(one, other, |connection, _| connection.swallows = true);
    }

    /// Every connection between two machines ends after so many more bytes.
    pub(crate) fn cut_after(&self, one: Host, other: Host, bytes: u64) {
        self.each(one, other, |connection, _| connection.cut_after = Some(bytes));
    }

    /// Whether nothing is under way any more between two machines.
    pub(crate) fn is_quiet(&self, one: Host, other: Host) -> bool {
        let state = self.lock();
        let between = |it: &&Connection| pair(it.hosts[0], it.hosts[1]) == pair(one, other) && !it.swallows;
        let mut pipes = state.connections.values().filter(between).flat_map(|it| &it.pipes);
        pipes.all(|pipe| pipe.chunks.is_empty())
    }

    /// Connections made from now on end after some bytes, fewer than this.
    pub(crate) fn make_fragile(&self, bytes: Option<u64>) {
        self.lock().fragile = bytes;
    }

    /// A machine's process has ended; the power may have gone with it, then nobody is told.
    pub(crate) fn crashed(&self, host: Host, with_power: bool) {
        let mut state = self.lock();
        state.listeners.retain(|_, (of, _)| *of != host);
        let now = Instant::now();
        for connection in state.connections.values_mut().filter(|it| it.hosts.contains(&host)) {
            if with_power {
                connection.swallows = true;
            } else {
                connection.reset(now);
            }
        }
    }

    fn each(&self, one: Host, other: Host, mut change: impl FnMut(&mut Connection, Instant)) {
        let now = Instant::now();
        for connection in self.lock().connections.values_mut() {
            if pair(connection.hosts[0], connection.hosts[1]) == pair(one, other) {
                change(connection, now);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn pair(one: Host, other: Host) -> (Host, Host) {
    (one.min(other), one.max(other))
}

fn latency(road: Road) -> Duration {
    match road {
        Road::Open(latency) => latency,
        Road::Down => Duration::ZERO,
    }
}

impl Connection {
    fn reset(&mut self, now: Instant) {
        for pipe in &mut self.pipes {
            pipe.broken = true;
            pipe.push(now, Chunk::Reset);
            wake(&mut pipe.writer);
        }
    }

    /// Nothing that is under way arrives before an instant.
    fn delay(&mut self, until: Instant) {
        for pipe in &mut self.pipes {
            for (at, _) in &mut pipe.chunks {
                *at = (*at).max(until);
            }
            pipe.last = pipe.last.max(Some(until));
            wake(&mut pipe.reader);
        }
    }
}

impl Pipe {
    fn push(&mut self, at: Instant, chunk: Chunk) {
        let at = self.last.map_or(at, |last| last.max(at));
        self.last = Some(at);
        self.chunks.push_back((at, chunk));
        wake(&mut self.reader);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl State {
    fn road(&self, hosts: [Host; 2]) -> Road {
        let known = self.roads.get(&pair(hosts[0], hosts[1])).copied();
        known.unwrap_or(Road::Open(Duration::from_millis(1)))
    }

    /// When something sent now arrives.
    fn arrival(&self, hosts: [Host; 2]) -> Instant {
        let latency = latency(self.road(hosts));
        let jitter = self.random.below(1 + latency.as_micros() as u64);
        Instant::now() + latency / 2 + Duration::from_micros(jitter)
    }
}

struct Seat {
    network: Network,
    host: Host,
}

impl Net for Seat {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let to = match host {
                "salto" => Host::Salto,
                "locks" => Host::Locks,
                _ => Host::Cloud,
            };
            loop {
                let (road, mended) = {
                    let state = self.network.lock();
                    (state.road([self.host, to]), Arc::clone(&state.mended))
                };
                let mended = mended.notified();
                match road {
                    Road::Open(latency) => break sleep(latency).await,
                    Road::Down => mended.await,
                }
            }
            let mut state = self.network.lock();
            let refused =
                || io::Error::new(io::ErrorKind::ConnectionRefused, format!("nobody at {host}:{port}"));
            let (_, knocks) = state.listeners.get(&port).filter(|(at, _)| *at == to).ok_or_else(refused)?;
            let knocks = knocks.clone();
            state.last += 1;
            let number = state.last;
            knocks.send(Knock { connection: number }).map_err(|_| refused())?;
            let cut_after = state.fragile.map(|below| state.random.below(below));
            let hosts = [self.host, to];
            let pipes = [Pipe::default(), Pipe::default()];
            let connection = Connection { hosts, pipes, swallows: false, cut_after };
            state.connections.insert(number, connection);
            drop(state);
            Ok(Box::new(End::new(&self.network, number, 0)) as Box<dyn Stream>)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (sender, knocks) = mpsc::unbounded_channel();
            self.network.lock().listeners.insert(address.port(), (self.host, sender));
            Ok(Box::new(Door { network: self.network.clone(), address, knocks }) as Box<dyn Listener>)
        })
    }
}

struct Door {
    network: Network,
    address: SocketAddr,
    knocks: mpsc::UnboundedReceiver<Knock>,
}

impl Listener for Door {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let knock = self.knocks.recv().await.ok_or(io::ErrorKind::NotConnected)?;
            let end = End::new(&self.network, knock.connection, 1);
            Ok((Box::new(end) as Box<dyn Stream>, SocketAddr::new(self.address.ip(), 0)))
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Who knocked and was not let in is told as a kernel does; a crash has told nobody before.
        self.knocks.close();
        while let Ok(knock) = self.knocks.try_recv() {
            drop(End::new(&self.network, knock.connection, 1));
        }
    }
}

/// One end of a connection.
struct End {
    network: Network,
    connection: u64,
    /// 0 for who called, 1 for who was called.
    side: usize,
    sleep: Pin<Box<Sleep>>,
}

impl End {
    fn new(network: &Network, connection: u64, side: usize) -> Self {
        let sleep = Box::pin(sleep_until(Instant::now()));
        Self { network: network.clone(), connection, side, sleep }
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = Instant::now();
        let this = &mut *self;
        let mut state = this.network.lock();
        let Some(hosts) = state.connections.get(&this.connection).map(|it| it.hosts) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let down = state.road(hosts) == Road::Down;
        let connection = state.connections.get_mut(&this.connection).unwrap();
        let swallows = connection.swallows;
        let pipe = &mut connection.pipes[1 - this.side];
        if pipe.ended {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(context.waker().clone());
        if down || swallows {
            return Poll::Pending;
        }
        let Some((at, chunk)) = pipe.chunks.front_mut() else {
            return Poll::Pending;
        };
        let at = *at;
        if now < at {
            drop(state);
            this.sleep.as_mut().reset(at);
            if this.sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match chunk {
            Chunk::Bytes(bytes) => {
                let count = bytes.len().min(buffer.remaining());
                let taken: Vec<u8> = bytes.drain(..count).collect();
                buffer.put_slice(&taken);
                if bytes.is_empty() {
                    pipe.chunks.pop_front();
                }
                pipe.bytes -= count;
                wake(&mut pipe.writer);
                Poll::Ready(Ok(()))
            }
            Chunk::End => {
                pipe.ended = true;
                Poll::Ready(Ok(()))
            }
            Chunk::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.network.lock();
        let Some(hosts) = state.connections.get(&self.connection).map(|it| it.hosts) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let at = state.arrival(hosts);
        let connection = state.connections.get_mut(&self.connection).unwrap();
        let pipe = &mut connection.pipes[self.side];
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if WINDOW <= pipe.bytes {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut count = bytes.len().min(WINDOW - pipe.bytes);
        let mut cut = false;
        if let Some(left) = &mut connection.cut_after {
            count = count.min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= count as u64;
            cut = *left == 0;
        }
        pipe.bytes += count;
        if !connection.swallows && 0 < count {
            pipe.push(at, Chunk::Bytes(bytes[..count].iter().copied().collect()));
        }
        if cut {
            connection.cut_after = None;
            connection.reset(at);
        }
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.network.lock();
        let Some(hosts) = state.connections.get(&self.connection).map(|it| it.hosts) else {
            return Poll::Ready(Ok(()));
        };
        let at = state.arrival(hosts);
        let connection = state.connections.get_mut(&self.connection).unwrap();
        let pipe = &mut connection.pipes[self.side];
        if !std::mem::replace(&mut pipe.unwritten, true) {
            pipe.push(at, Chunk::End);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.network.lock();
        let Some(hosts) = state.connections.get(&self.connection).map(|it| it.hosts) else { return };
        let at = state.arrival(hosts);
        let Some(connection) = state.connections.get_mut(&self.connection) else { return };
        let pipe = &mut connection.pipes[self.side];
        if !std::mem::replace(&mut pipe.unwritten, true) {
            pipe.push(at, Chunk::End);
        }
        let inward = &mut connection.pipes[1 - self.side];
        inward.unread = true;
        inward.broken |= !connection.swallows;
        wake(&mut inward.writer);
        if connection.pipes.iter().all(|pipe| pipe.unread) {
            state.connections.remove(&self.connection);
        }
    }
}
