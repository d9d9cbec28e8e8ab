//! A stream that notes the first attempt to write, counts what comes, and does not wait for ever for somebody who takes nothing.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::seams::Stream;

pub(super) struct Watched {
    stream: Box<dyn Stream>,
    stall: Duration,
    left: Arc<AtomicBool>,
    heard: Arc<AtomicUsize>,
    /// When the write that waits now has waited too long.
    give_up: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// `left` becomes true right before the first bytes are handed on, `heard` counts those that have come.
    pub(super) fn new(
        stream: Box<dyn Stream>,
        stall: Duration,
        left: Arc<AtomicBool>,
        heard: Arc<AtomicUsize>,
    ) -> Self {
        Self { stream, stall, left, heard, give_up: None }
    }

    /// What came of a write or a flush; one that waits too long is an error.
    fn patient<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.give_up = None;
            return polled;
        }
        let stall = self.stall;
        let give_up = self.give_up.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(give_up.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it takes nothing of the request")))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heard.fetch_add(buf.filled().len() - before, Ordering::SeqCst);
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !buf.is_empty() {
            self.left.store(true, Ordering::SeqCst);
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.patient(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.patient(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.patient(cx, polled)
    }
}
