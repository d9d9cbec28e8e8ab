//! The road between the agent and one system: it keeps what was said on it, and goes wrong as a story wants.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use latchd::seams::{BoxFuture, Listener, MemoryNet, Net, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// Where every system listens; each has a road, and so a network, of its own.
pub(crate) const PORT: u16 = 4000;
/// Where one that has a second interface listens for that.
pub(crate) const WEB_PORT: u16 = 8080;

/// What goes wrong. Nothing by default.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Nobody is there: connections are refused, and those that stand have ended.
    pub(crate) is_down: bool,
    /// So many bytes more, both ways together, then the connection that carries the last of them ends. What the agent says
    /// beyond is lost, and it does not learn that: once.
    pub(crate) cut_after: Option<usize>,
    /// What the system says arrives only then.
    pub(crate) late_until: Option<Instant>,
    /// What the system says arrives byte by byte, each so long after the last.
    pub(crate) slow: Duration,
}

/// What was said on one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    /// What the agent said, whether or not it arrived.
    pub(crate) by_agent: Vec<u8>,
    /// What reached the agent.
    pub(crate) to_agent: Vec<u8>,
}

/// One road; all clones are one.
#[derive(Clone, Default)]
pub(crate) struct Wire {
    net: MemoryNet,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    said: BTreeMap<u64, Said>,
}

impl Wire {
    pub(crate) fn set(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Whether the connection was cut that was to be cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.lock().faults.cut_after.is_none()
    }

    /// Every connection so far, oldest first.
    pub(crate) fn said(&self) -> Vec<Said> {
        self.lock().said.values().cloned().collect()
    }

    /// How many bytes have passed, both ways together.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().said.values().map(|it| it.by_agent.len() + it.to_agent.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Net for Wire {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            if self.lock().faults.is_down {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let stream = self.net.connect(host, port).await?;
            let mut state = self.lock();
            let number = state.said.len() as u64;
            state.said.insert(number, Said::default());
            let wire = self.clone();
            Ok(Box::new(Line { wire, number, stream: Some(stream), wait: None }) as Box<dyn Stream>)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.net.listen(address)
    }
}

/// The agent's end of a connection.
struct Line {
    wire: Wire,
    number: u64,
    /// None once it was cut.
    stream: Option<Box<dyn Stream>>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Line {
    /// How many of `count` bytes pass; the connection ends with the last one that may.
    fn pass(&mut self, count: usize) -> usize {
        let mut state = self.wire.lock();
        let Some(left) = &mut state.faults.cut_after else { return count };
        let passed = count.min(*left);
        *left -= passed;
        if *left == 0 {
            state.faults.cut_after = None;
            drop(state);
            self.stream = None;
        }
        passed
    }

    fn note(&self, note: impl FnOnce(&mut Said)) {
        note(self.wire.lock().said.entry(self.number).or_default());
    }

    /// Waits until what the system says may arrive.
    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let late_until = self.wire.lock().faults.late_until;
        if let Some(late) = late_until.filter(|late| Instant::now() < *late) {
            self.wait = Some(Box::pin(sleep_until(late)));
        }
        let Some(wait) = &mut self.wait else { return Poll::Ready(()) };
        std::task::ready!(wait.as_mut().poll(context));
        self.wait = None;
        Poll::Ready(())
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Faults { is_down, slow, cut_after, .. } = this.wire.lock().faults;
        if is_down {
            this.stream = None;
        }
        std::task::ready!(this.poll_wait(context));
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let most = if slow.is_zero() { buffer.remaining() } else { 1 };
        let most = most.min(buffer.remaining()).min(cut_after.unwrap_or(usize::MAX).max(1));
        let mut bytes = vec![0; most];
        let mut part = ReadBuf::new(&mut bytes);
        std::task::ready!(Pin::new(stream).poll_read(context, &mut part))?;
        let count = part.filled().len();
        let passed = this.pass(count);
        this.note(|said| said.to_agent.extend_from_slice(&bytes[..passed]));
        buffer.put_slice(&bytes[..passed]);
        if passed < count {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if !slow.is_zero() && 0 < passed {
            this.wait = Some(Box::pin(sleep_until(Instant::now() + slow)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            // Whoever tries to say something on a line that broke cannot know how much of it was taken.
            this.note(|said| said.by_agent.extend_from_slice(bytes));
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let left = this.wire.lock().faults.cut_after.unwrap_or(usize::MAX);
        let part = &bytes[..bytes.len().min(left)];
        let mut taken = 0;
        if !part.is_empty() {
            taken = std::task::ready!(Pin::new(stream).poll_write(context, part))?;
        }
        let is_cut = bytes.len() > left && taken == part.len();
        let count = if is_cut { bytes.len() } else { taken };
        this.note(|said| said.by_agent.extend_from_slice(&bytes[..count]));
        this.pass(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}
