//! The line to a server: a TCP connection or an opened serial port for each command, and whether one can be had.
//!
//! While the line is not ready it is looked at again and again; a command that finds nobody, or is not answered, says
//! that it is not ready any more. Over TCP an answer that comes too late finds its connection closed. A serial port is
//! one for all: after a command without an answer it rests, until none can come any more.

use std::{
    error::Error,
    future::pending,
    sync::{
        Arc, Mutex as Lock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    io::AsyncReadExt,
    select,
    sync::{Mutex, MutexGuard, Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::session::{Conversation, Ending, Result as Came};
use crate::{
    drivers::{Line, Past, Trouble},
    model::{Code, Refusal, SystemName},
    protocol::Stage,
    seams::{Clock, Net, Random},
    transport::{LineError, Port, Target, run},
};

/// The first wait before looking again.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A server that does not know our address takes a connection and closes it within this time, it is assumed.
const CLOSED_WITHIN: Duration = Duration::from_millis(300);
/// How often a serial port that is ready is looked at; that says nothing on the line.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The line, shared by the driver and the task that looks after it.
pub(super) struct Connector {
    system: SystemName,
    target: std::result::Result<Target, LineError>,
    net: Arc<dyn Net>,
    clock: Clock,
    line: watch::Sender<Line>,
    /// Tells the task that the line may not be ready.
    doubted: Notify,
    /// How long a serial line rests after a command without an answer.
    settle: Duration,
    /// Until when it rests.
    rests_until: Lock<Option<Instant>>,
    /// A serial port serves one command at a time.
    turn: Mutex<()>,
}

impl Connector {
    pub(super) fn new(
        system: SystemName,
        target: std::result::Result<Target, LineError>,
        settle: Duration,
        past: Past,
        net: Arc<dyn Net>,
        clock: Clock,
    ) -> Self {
        let connector = Self {
            system,
            target,
            net,
            clock,
            line: watch::Sender::new(Line::Opening),
            doubted: Notify::new(),
            settle,
            rests_until: Lock::default(),
            turn: Mutex::default(),
        };
        if past == Past::AnswerMayCome {
            connector.rest_for(settle);
        }
        connector
    }

    pub(super) fn line(&self) -> watch::Receiver<Line> {
        self.line.subscribe()
    }

    /// Has whoever follows the line look again: something beside it has changed.
    pub(super) fn nudge(&self) {
        self.line.send_modify(|_line| ());
    }

    /// Looks after the line until the driver is gone.
    pub(super) async fn keep(self: Arc<Self>, random: Random, mut stopping: watch::Receiver<bool>) {
        let gone = async { while stopping.changed().await.is_ok() {} };
        select! {
            biased;
            () = gone => {}
            () = self.look_again_and_again(random) => {}
        }
    }

    async fn look_again_and_again(&self, random: Random) {
        let mut wait = FIRST_WAIT;
        loop {
            let target = match &self.target {
                Ok(target) => target,
                Err(error) => {
                    self.publish_down(error.code(), with_cause(error));
                    return pending().await;
                }
            };
            let turn = self.turn(target).await;
            if let Some(until) = self.rest() {
                drop(turn);
                self.publish_down(
                    "line_settling",
                    format!(
                        "{target} did not answer a command; the line is used again when a late answer can no longer \
                         be taken for the next one's"
                    ),
                );
                sleep_until(until).await;
                continue;
            }
            let looked = self.look(target).await;
            drop(turn);
            match looked {
                Ok(()) => {
                    wait = FIRST_WAIT;
                    self.publish(Line::Ready);
                    self.doubt(target).await;
                }
                Err((code, message)) => {
                    self.publish_down(code, message);
                    let jitter = Duration::from_millis(random.below(wait.as_millis() as u64 / 4));
                    sleep(wait + jitter).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// Waits until there is reason to look again.
    async fn doubt(&self, target: &Target) {
        if target.is_tcp() {
            return self.doubted.notified().await;
        }
        while timeout(LOOK_EVERY, self.doubted.notified()).await.is_err() {
            // Whoever holds the port may be ourselves; a command finds out.
            let looked = target.look(&*self.net).await;
            if !matches!(looked, Ok(()) | Err(LineError::Held { .. })) {
                return;
            }
        }
    }

    /// The right to use a serial port; a TCP server serves several at once.
    async fn turn(&self, target: &Target) -> Option<MutexGuard<'_, ()>> {
        match target.is_tcp() {
            true => None,
            false => Some(self.turn.lock().await),
        }
    }

    /// Whether a command would find somebody, for whoever has the turn. Says nothing on the line.
    async fn look(&self, target: &Target) -> std::result::Result<(), (&'static str, String)> {
        let mut port = target.open(&*self.net).await.map_err(|error| (error.code(), with_cause(&error)))?;
        if !target.is_tcp() {
            target.hang_up(port).await;
            return Ok(());
        }
        match timeout(CLOSED_WITHIN, port.read(&mut [0; 64])).await {
            Ok(Ok(0) | Err(_)) => Err((
                "address_refused",
                format!(
                    "{target} takes a connection and closes it before a word; enter this machine's address in \
                     Visionline's PMS settings, which serve only the addresses that stand there"
                ),
            )),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    /// Holds a conversation on a line of its own; a stop ends it if its command has not left yet.
    pub(super) async fn converse(
        &self,
        mut conversation: Conversation,
        mut stopping: watch::Receiver<bool>,
        note: impl Fn(Stage),
    ) -> Ending {
        let target = match &self.target {
            Ok(target) => target,
            Err(error) => return unsent(with_cause(error)),
        };
        let _turn = self.turn(target).await;
        if self.rest().is_some() {
            return unsent("the line rests after a command without an answer".into());
        }
        let left = AtomicBool::new(false);
        let talk = async {
            let mut port = match target.open(&*self.net).await {
                Ok(port) => port,
                Err(error) => {
                    self.publish_down(error.code(), with_cause(&error));
                    self.doubted.notify_one();
                    return unsent(with_cause(&error));
                }
            };
            if !discard_leftovers(&mut port).await {
                self.lost(target);
                return unsent(format!("the line to {target} closed before the command left"));
            }
            if !target.is_tcp() {
                // Until its end is known; whoever drops this conversation does not tell.
                self.rest_for(conversation.longest() + self.settle);
            }
            let ending = run(&mut port, &mut conversation, |stage| {
                if stage == Stage::Sent {
                    left.store(true, Ordering::Relaxed);
                } else {
                    note(stage);
                }
            })
            .await;
            target.hang_up(port).await;
            self.after(target, &ending);
            ending
        };
        let stopped = async {
            let _ = stopping.wait_for(|stop| *stop).await;
            if left.load(Ordering::Relaxed) {
                pending::<()>().await;
            }
        };
        select! {
            biased;
            // First: a command must not leave after the stop was told.
            () = stopped => unsent("latchd is stopping; nothing new is begun".into()),
            ending = talk => ending,
        }
    }

    fn after(&self, target: &Target, ending: &Ending) {
        if !target.is_tcp() {
            match ending.answer_may_come {
                true => self.rest_for(self.settle),
                false => *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = None,
            }
        }
        if ending.answer_may_come {
            self.lost(target);
        }
    }

    /// A command had no answer: the line is looked at before it counts as ready again.
    fn lost(&self, target: &Target) {
        self.publish_down(
            "line_down",
            format!("{target} did not answer a command to its end; the line is looked at again by itself"),
        );
        self.doubted.notify_one();
    }

    fn rest_for(&self, span: Duration) {
        if self.target.as_ref().is_ok_and(|target| !target.is_tcp()) {
            let until = Some(Instant::now() + span);
            *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
    }

    fn rest(&self) -> Option<Instant> {
        let until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| Instant::now() < *until)
    }

    fn publish_down(&self, code: &'static str, message: String) {
        let since = match &*self.line.borrow() {
            Line::Down(trouble) if trouble.code == code => trouble.since,
            Line::Down(_) | Line::Opening | Line::Ready => self.clock.now(),
        };
        tracing::info!(system = %self.system, code, "the line is not ready");
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

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("system", &self.system).finish_non_exhaustive()
    }
}

fn unsent(message: String) -> Ending {
    let result = Came::NothingSent(Refusal::new(Code::SystemOffline, message));
    Ending { result, answer_may_come: false, heard: false }
}

/// Throws away what has arrived already. False when the line is closed.
async fn discard_leftovers(port: &mut Port) -> bool {
    /// A bound, since a peer may never stop sending.
    const READS: usize = 64;
    let mut buffer = [0; 512];
    for _ in 0..READS {
        match port.read(&mut buffer).now_or_never() {
            Some(Ok(0) | Err(_)) => return false,
            Some(Ok(_)) => {}
            None => break,
        }
    }
    true
}

fn with_cause(error: &LineError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
