//! The only part of a conversation that does IO; the same for every session and every stream.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{timeout, timeout_at},
};

/// What a session is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// Bytes arrived.
    Bytes(&'a [u8]),
    /// The instant of the last [`Output::Wait`] has passed.
    Timeout,
    /// The line hung up, or a write did not go through: some of its bytes may have left.
    Closed,
}

/// What a session wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<D, N> {
    /// Write this, then poll again.
    Write(Vec<u8>),
    /// Nothing before this instant, unless bytes arrive.
    Wait {
        /// Until when.
        until: Instant,
    },
    /// Something worth telling; poll again.
    Note(N),
    /// The conversation is over.
    Done(D),
}

/// One conversation with a device as a state machine: no IO, no clock, no tasks.
pub trait Session {
    /// How it ends.
    type Done;
    /// What it tells on the way.
    type Note;
    /// Whether its bytes hold secrets: then only their number is traced.
    const PRIVATE: bool = false;

    /// What to do now.
    fn poll(&mut self, now: Instant) -> Output<Self::Done, Self::Note>;

    /// Something happened.
    fn handle(&mut self, now: Instant, input: Input<'_>);
}

/// A write may take this long beyond the time its bytes need on the slowest line.
const WRITE_MARGIN: Duration = Duration::from_secs(1);
/// 9600 baud, ten bits a byte, times three.
const WRITE_PER_BYTE: Duration = Duration::from_micros(3 * 1042);

/// Runs a conversation over any byte stream until it is done.
///
/// Never flushes: on a serial port that blocks the thread until the bytes are out.
pub async fn run<P, S>(port: &mut P, session: &mut S, mut note: impl FnMut(S::Note)) -> S::Done
where
    P: AsyncRead + AsyncWrite + Unpin + ?Sized,
    S: Session,
{
    let now = || tokio::time::Instant::now().into_std();
    let mut buffer = [0; 512];
    loop {
        match session.poll(now()) {
            Output::Write(bytes) => {
                if S::PRIVATE {
                    tracing::trace!(target: "wire", out_bytes = bytes.len());
                } else {
                    tracing::trace!(target: "wire", out = %bytes.escape_ascii());
                }
                let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let within = WRITE_MARGIN + WRITE_PER_BYTE.saturating_mul(count);
                let written = match timeout(within, port.write_all(&bytes)).await {
                    Ok(result) => result,
                    Err(_elapsed) => Err(std::io::ErrorKind::TimedOut.into()),
                };
                if let Err(error) = written {
                    tracing::debug!(error = %error, "write did not go through");
                    session.handle(now(), Input::Closed);
                }
            }
            Output::Wait { until } => {
                let read = timeout_at(until.into(), port.read(&mut buffer)).await;
                match read {
                    Err(_elapsed) => session.handle(now(), Input::Timeout),
                    Ok(Ok(0)) => session.handle(now(), Input::Closed),
                    Ok(Ok(count)) => {
                        if S::PRIVATE {
                            tracing::trace!(target: "wire", in_bytes = count);
                        } else {
                            tracing::trace!(target: "wire", in = %buffer[..count].escape_ascii());
                        }
                        session.handle(now(), Input::Bytes(&buffer[..count]));
                    }
                    Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Ok(Err(error)) => {
                        tracing::debug!(error = %error, "read failed");
                        session.handle(now(), Input::Closed);
                    }
                }
            }
            Output::Note(what) => note(what),
            Output::Done(done) => return done,
        }
    }
}
