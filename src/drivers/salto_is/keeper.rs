//! Keeps the line to the lock server: opens it, holds one conversation at a time on it, notices when it closes, and
//! opens it again.
//!
//! Three things make a line unfit for work although it opens, and each ends only when the server says something:
//! nobody answers the readiness poll; the server closes it before a word, as it does when another program holds its
//! only connection; an answer was not waited for to its end and may still come. So after the first two the line is
//! probed with the poll before it counts as ready, and after the third a TCP connection is made anew while a serial
//! line is listened to until nothing can come any more.

use std::{
    error::Error,
    future::{Future, pending},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    select,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    codec::ENQ,
    session::{Conversation, Ending, LineAfter, Result as Came},
};
use crate::{
    drivers::{Line, Trouble},
    model::{Code, Refusal, SystemName},
    protocol::Stage,
    seams::{Clock, Net, Random},
    transport::{LineError, Port, Target, run},
};

/// One conversation to hold.
pub(super) struct Request {
    /// It, not begun.
    pub(super) conversation: Conversation,
    /// Where its stages are told.
    pub(super) stages: mpsc::Sender<Stage>,
    /// Where its end is told, and whether its answer may come still. If nobody waits for it any more, it is not begun.
    pub(super) came: oneshot::Sender<(Came, bool)>,
}

/// The one task that owns the line.
pub(super) struct Keeper {
    pub(super) system: SystemName,
    pub(super) ack_timeout: Duration,
    pub(super) settle: Duration,
    pub(super) net: Arc<dyn Net>,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) requests: mpsc::Receiver<Box<Request>>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) line: watch::Sender<Line>,
    /// A command left and its answer was not seen: over a serial line it may still come after the line was reopened.
    pub(super) answer_may_come: bool,
}

/// The first wait before opening a line again.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A connection that was closed sooner than this, unheard, was refused; one that lasted was a good one.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);
/// How many reads of leftovers are thrown away before a conversation; a bound, since a peer may never stop sending.
const LEFTOVER_READS: usize = 64;

/// Why a line is given up.
enum Parting {
    /// The driver is gone.
    DriverGone,
    /// The other side closed it, or it broke.
    Closed {
        /// Whether the other side had said anything.
        heard: bool,
    },
    /// The other side does not answer.
    Silent,
    /// An answer may still come on it.
    AnswerMayCome,
}

impl Keeper {
    /// Runs until the driver is dropped. A panic ends the conversation under way, whose end is then not known, and
    /// nothing else: the line is opened again.
    pub(super) async fn keep(mut self, target: std::result::Result<Target, LineError>) {
        let target = match target {
            Ok(target) => target,
            Err(error) => {
                self.publish_down(error.code(), with_cause(&error));
                self.meanwhile(pending::<()>()).await;
                return;
            }
        };
        while AssertUnwindSafe(self.keep_open(&target)).catch_unwind().await.is_err() {
            tracing::error!(system = %self.system, "the line's task panicked; it begins again");
            self.publish_down(
                "line_failed",
                format!("latchd failed at the line to {target}; it begins again"),
            );
            if self.meanwhile(sleep(LONGEST_WAIT)).await.is_none() {
                return;
            }
        }
    }

    /// Opens the line again and again.
    async fn keep_open(&mut self, target: &Target) {
        let net = Arc::clone(&self.net);
        let mut wait = FIRST_WAIT;
        let mut probe_first = false;
        loop {
            match self.meanwhile(target.open(&*net)).await {
                None => return,
                // A reset may be quicker than the end of connecting.
                Some(Err(error)) if error.is_reset() => {
                    self.closed(target, false, true);
                    probe_first = true;
                }
                Some(Err(error)) => self.publish_down(error.code(), with_cause(&error)),
                Some(Ok(mut port)) => {
                    let opened = Instant::now();
                    let parting = self.hold(&mut port, target, probe_first).await;
                    let lasted = REFUSED_WITHIN <= opened.elapsed();
                    let again_at_once = matches!(parting, Parting::AnswerMayCome);
                    match parting {
                        Parting::DriverGone => return target.hang_up(port).await,
                        Parting::AnswerMayCome => {
                            wait = FIRST_WAIT;
                            probe_first = false;
                        }
                        Parting::Silent => {
                            probe_first = true;
                            if lasted {
                                wait = FIRST_WAIT;
                            }
                        }
                        Parting::Closed { heard } => {
                            probe_first = target.is_tcp() && !heard;
                            if heard || (lasted && !probe_first) {
                                wait = FIRST_WAIT;
                            }
                        }
                    }
                    if self.meanwhile(target.hang_up(port)).await.is_none() {
                        return;
                    }
                    if again_at_once {
                        continue;
                    }
                }
            }
            let jitter = Duration::from_millis(self.random.below(wait.as_millis() as u64 / 4));
            if self.meanwhile(sleep(wait + jitter)).await.is_none() {
                return;
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Works on an open line until it is given up. What the line is then has been published.
    async fn hold(&mut self, port: &mut Port, target: &Target, probe_first: bool) -> Parting {
        let opened = Instant::now();
        let mut heard = false;
        if self.answer_may_come && !target.is_tcp() {
            self.publish_settling(target);
            match self.meanwhile(discard_for(port, self.settle)).await {
                None => return Parting::DriverGone,
                Some(false) => return self.closed(target, heard, false),
                Some(true) => {}
            }
        }
        self.answer_may_come = false;
        if probe_first {
            match self.meanwhile(probe(port, self.ack_timeout)).await {
                None => return Parting::DriverGone,
                Some(Probed::Heard) => heard = true,
                Some(Probed::Closed) => return self.closed(target, heard, true),
                Some(Probed::Silent) => return self.silent(target),
            }
        }
        self.publish(Line::Ready);
        let mut buffer = [0; 512];
        loop {
            select! {
                biased;
                request = self.requests.recv() => {
                    let Some(request) = request else { return Parting::DriverGone };
                    if *self.stopping.borrow() {
                        refuse(*request, stopping());
                        continue;
                    }
                    if request.came.is_closed() {
                        continue;
                    }
                    if !discard_leftovers(port).await {
                        let parting = self.closed(target, heard, opened.elapsed() < REFUSED_WITHIN);
                        refuse(*request, self.not_open());
                        return parting;
                    }
                    let Request { mut conversation, stages, came } = *request;
                    // Until its end is known; a panic does not tell.
                    self.answer_may_come = true;
                    let ending = self.converse(port, &mut conversation, &stages).await;
                    heard |= ending.heard;
                    self.answer_may_come = ending.line.answer_may_come();
                    let parting = match ending.line {
                        LineAfter::Quiet => None,
                        LineAfter::Closed | LineAfter::ClosedUnanswered => {
                            Some(self.closed(target, heard, true))
                        }
                        LineAfter::Silent => Some(self.silent(target)),
                        LineAfter::AnswerMayCome => {
                            self.publish_settling(target);
                            target.is_tcp().then_some(Parting::AnswerMayCome)
                        }
                    };
                    // Only now, so that nobody who knows the end still takes the line for ready.
                    let _ = came.send((ending.result, ending.line.answer_may_come()));
                    if let Some(parting) = parting {
                        return parting;
                    }
                    if ending.line == LineAfter::AnswerMayCome {
                        match self.meanwhile(discard_for(port, self.settle)).await {
                            None => return Parting::DriverGone,
                            Some(false) => return self.closed(target, heard, false),
                            Some(true) => {
                                self.answer_may_come = false;
                                self.publish(Line::Ready);
                            }
                        }
                    }
                }
                read = port.read(&mut buffer) => match read {
                    Ok(0) => return self.closed(target, heard, opened.elapsed() < REFUSED_WITHIN),
                    Ok(count) => {
                        heard = true;
                        tracing::debug!(system = %self.system, count, "bytes on the idle line were discarded");
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::debug!(system = %self.system, %error, "read failed");
                        return self.closed(target, heard, opened.elapsed() < REFUSED_WITHIN);
                    }
                },
            }
        }
    }

    /// Holds a conversation; a stop ends it if its command has not left yet.
    async fn converse(
        &self,
        port: &mut Port,
        conversation: &mut Conversation,
        stages: &mpsc::Sender<Stage>,
    ) -> Ending {
        let left = AtomicBool::new(false);
        let note = |stage| match stage {
            Stage::Sent => left.store(true, Ordering::Relaxed),
            stage => {
                let _ = stages.try_send(stage);
            }
        };
        let mut told = self.stopping.clone();
        let stopped = async {
            let _ = told.wait_for(|stop| *stop).await;
            if left.load(Ordering::Relaxed) {
                pending::<()>().await;
            }
        };
        select! {
            biased;
            ending = run(port, conversation, note) => ending,
            () = stopped => Ending {
                result: Came::NothingSent(stopping()),
                line: LineAfter::Quiet,
                heard: false,
            },
        }
    }

    fn closed(&self, target: &Target, heard: bool, refused: bool) -> Parting {
        if target.is_tcp() && !heard && refused {
            self.publish_down(
                "second_client_refused",
                format!(
                    "{target} takes the connection and closes it before a word; the lock server seems to allow one \
                     PMS connection, and another program holds it: stop that program, or give latchd a PMS channel \
                     of its own"
                ),
            );
        } else {
            self.publish_down(
                "line_down",
                format!("the line to {target} closed; it is opened again by itself"),
            );
        }
        Parting::Closed { heard: heard || !refused }
    }

    fn publish_settling(&self, target: &Target) {
        self.publish_down(
            "line_settling",
            format!(
                "{target} did not answer a command; the line is used again when a late answer can no longer be taken \
                 for the next one's"
            ),
        );
    }

    fn silent(&self, target: &Target) -> Parting {
        self.publish_down(
            "system_silent",
            format!(
                "{target} is open, but the lock server does not answer; check that its PMS interface runs and speaks \
                 the \"Industry Standard\" protocol, and the cable"
            ),
        );
        Parting::Silent
    }

    /// Waits for something while every request comes back untouched; none when the driver is gone.
    async fn meanwhile<F: Future>(&mut self, what: F) -> Option<F::Output> {
        let mut what = pin!(what);
        loop {
            select! {
                biased;
                done = &mut what => return Some(done),
                request = self.requests.recv() => refuse(*request?, self.not_open()),
            }
        }
    }

    fn not_open(&self) -> Refusal {
        let message = match &*self.line.borrow() {
            Line::Down(trouble) => trouble.message.clone(),
            Line::Opening | Line::Ready => "the line to the lock server is not open yet".into(),
        };
        Refusal::new(Code::SystemOffline, message)
    }

    fn publish_down(&self, code: &'static str, message: String) {
        let since = match &*self.line.borrow() {
            Line::Down(trouble) if trouble.code == code => trouble.since,
            Line::Down(_) | Line::Opening | Line::Ready => self.clock.now(),
        };
        self.publish(Line::Down(Trouble { code, message, since }));
    }

    fn publish(&self, line: Line) {
        self.line.send_if_modified(|now| {
            let changed = *now != line;
            *now = line;
            changed
        });
    }
}

fn with_cause(error: &LineError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn refuse(request: Request, refusal: Refusal) {
    let _ = request.came.send((Came::NothingSent(refusal), false));
}

fn stopping() -> Refusal {
    Refusal::new(Code::SystemOffline, "latchd is stopping; nothing new is begun")
}

/// What a readiness poll outside a conversation brought.
enum Probed {
    Heard,
    Closed,
    Silent,
}

/// Polls once; whatever comes back shows that somebody is there.
async fn probe(port: &mut Port, within: Duration) -> Probed {
    let exchange = async {
        port.write_all(&[ENQ]).await?;
        port.read(&mut [0; 64]).await
    };
    match timeout(within, exchange).await {
        Err(_elapsed) => Probed::Silent,
        Ok(Ok(0) | Err(_)) => Probed::Closed,
        Ok(Ok(_)) => Probed::Heard,
    }
}

/// Throws away what has come in; false when the line is closed.
async fn discard_leftovers(port: &mut Port) -> bool {
    let mut buffer = [0; 512];
    for _ in 0..LEFTOVER_READS {
        match port.read(&mut buffer).now_or_never() {
            Some(Ok(0) | Err(_)) => return false,
            Some(Ok(_)) => {}
            None => break,
        }
    }
    true
}

/// Throws away what comes in for a while; false when the line closes.
async fn discard_for(port: &mut Port, span: Duration) -> bool {
    let until = Instant::now() + span;
    let mut buffer = [0; 512];
    // A peer that never stops sending would hide the timeout.
    while Instant::now() < until {
        match timeout_at(until, port.read(&mut buffer)).await {
            Err(_elapsed) => break,
            Ok(Ok(0) | Err(_)) => return false,
            Ok(Ok(_)) => {}
        }
    }
    true
}
