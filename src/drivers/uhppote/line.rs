//! The way to a board: each request leaves by a socket of its own, so that a late answer to an earlier one finds nobody.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use super::session::{Came, Conversation, Note};
use crate::{
    seams::{Datagrams, Net, Stream},
    transport::{Input, Output, Session},
};

/// The boards' own port. Whoever sends from it hears his own words, where he sends to everybody.
pub(super) const PORT: u16 = 60000;
/// A free port is asked for again so often, where the boards' own is given.
const TRIES: u32 = 8;
/// Every message, both ways.
const FRAME: usize = 64;
/// A longer datagram is no message, and is seen to be longer.
const LONGEST: usize = 2 * FRAME;

/// How a board is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// By datagrams to its address. What comes from anywhere else is not heard.
    Udp(SocketAddrV4),
    /// By datagrams to everybody: its address is not known.
    Broadcast(SocketAddrV4),
    /// By TCP, with a connection for each request.
    Tcp(SocketAddrV4),
}

/// What a request left by.
enum Open {
    Datagrams(Box<dyn Datagrams>),
    Stream(Box<dyn Stream>),
}

impl Way {
    /// Whether a datagram may be the board's.
    pub(super) fn is_from(&self, from: SocketAddr) -> bool {
        match self {
            Self::Udp(at) | Self::Tcp(at) => from.ip() == *at.ip(),
            Self::Broadcast(_) => true,
        }
    }

    async fn send(&self, net: &dyn Net, frame: &[u8]) -> io::Result<Open> {
        match self {
            Self::Udp(to) | Self::Broadcast(to) => {
                let socket = socket(net).await?;
                socket.send(frame, SocketAddr::V4(*to)).await?;
                Ok(Open::Datagrams(socket))
            }
            Self::Tcp(to) => {
                let mut stream = net.connect(&to.ip().to_string(), to.port()).await?;
                // A board may take what comes in two pieces for two requests.
                stream.write_all(frame).await?;
                Ok(Open::Stream(stream))
            }
        }
    }
}

/// A socket at a free port, which is not the boards' own.
pub(super) async fn socket(net: &dyn Net) -> io::Result<Box<dyn Datagrams>> {
    for _ in 0..TRIES {
        let socket = net.datagrams(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).await?;
        if socket.address().port() != PORT {
            return Ok(socket);
        }
    }
    Err(io::Error::other("the operating system gives out no port but the boards' own"))
}

impl Open {
    /// The next words of the board.
    async fn hear(&mut self, way: &Way, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Datagrams(socket) => loop {
                let (count, from) = socket.receive(buffer).await?;
                if way.is_from(from) {
                    return Ok(count);
                }
                tracing::debug!(%from, "a datagram that is not the board's");
            },
            Self::Stream(stream) => {
                let frame = &mut buffer[..FRAME];
                let mut count = 0;
                while count < FRAME {
                    match stream.read(&mut frame[count..]).await? {
                        0 => return Ok(0),
                        more => count += more,
                    }
                }
                Ok(count)
            }
        }
    }
}

/// Holds a conversation with a board to its end.
pub(super) async fn run(
    net: &dyn Net,
    way: &Way,
    talk: &mut Conversation,
    mut note: impl FnMut(Note),
) -> Came {
    let now = || Instant::now().into_std();
    let (mut open, mut buffer) = (None, [0; LONGEST]);
    loop {
        match talk.poll(now()) {
            Output::Write(frame) => {
                // The one before ends first: nothing more is heard by it.
                drop(open.take());
                match way.send(net, &frame).await {
                    Ok(sent) => open = Some(sent),
                    Err(error) => {
                        tracing::debug!(%error, "the request did not go out, or not all of it");
                        talk.handle(now(), Input::Closed);
                    }
                }
            }
            Output::Wait { until } => {
                let Some(line) = &mut open else {
                    tokio::time::sleep_until(until.into()).await;
                    talk.handle(now(), Input::Timeout);
                    continue;
                };
                match timeout_at(until.into(), line.hear(way, &mut buffer)).await {
                    Err(_elapsed) => talk.handle(now(), Input::Timeout),
                    Ok(Ok(0)) => {
                        // A connection that ended says nothing more; an empty datagram says nothing at all.
                        if matches!(line, Open::Stream(_)) {
                            open = None;
                            talk.handle(now(), Input::Closed);
                        }
                    }
                    Ok(Ok(count)) => talk.handle(now(), Input::Bytes(&buffer[..count])),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "nothing is heard");
                        open = None;
                        talk.handle(now(), Input::Closed);
                    }
                }
            }
            Output::Note(what) => note(what),
            Output::Done(came) => return came,
        }
    }
}
