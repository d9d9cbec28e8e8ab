//! The agent's one loop: link, dispatcher, administration and clock meet here. It decides nothing; it carries.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    admin::{LinkState, Question, Request, Response},
    answers::{self, LinkView},
    conditions::Conditions,
    notify::ServiceManager,
    uplink,
};
use crate::{
    config::{AgentConfig, Checkout},
    dispatch::{Dispatch, Happening},
    drivers::{Driver, Line},
    link::{self, Link},
    model::{Inventory, Severity, SystemInventory, SystemName},
    protocol::{
        Envelope, Frame, Hello, Limit, Message, Position, Refused, RefusedCode, Status, StreamName, VERSIONS,
        Welcome,
        stream::{self, Resume},
    },
    queue::Queue,
    seams::TrustedTime,
    store::{StoreError, WriterHandle},
};

/// How long the last outcomes may take to reach the cloud once all lanes are quiet.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long until the queue is asked again after it could not answer.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// How long finished jobs and audit lines are kept. An order that comes again is known by its job for as long, and for
/// as long as its deadline lies ahead.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How often it is looked for what need not be kept.
const PURGE_EVERY: Duration = Duration::from_secs(60 * 60);
/// And how long the queue is left to others between two slices of it.
const PURGE_SLICES: Duration = Duration::from_secs(1);
/// A host clock further off than this is worth a condition.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// One answer of the admin socket lists no more jobs.
const MOST_JOBS: usize = 1000;

type Task = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What the queue answered to a question of this loop.
enum Answer {
    Memory(Result<Hello, StoreError>, oneshot::Sender<Hello>),
    Resumed { connection: u64, reports_limit: u64, result: Result<Resumed, StoreError> },
    Reports { after: Position, result: Result<Vec<(Position, Message)>, StoreError> },
    OrdersLimit(Result<u64, StoreError>),
    AskAgain,
    Purged(Result<usize, StoreError>),
    Done(Result<(), StoreError>),
    Told,
}

/// How both streams go on with a cloud that has welcomed us.
struct Resumed {
    /// The last report that it holds.
    reports_after: Position,
    /// Whether this side may remember less than it once did.
    forgot: bool,
}

/// One question to the queue at a time. What happens while it is under way may be missing from its answer, so it is
/// asked again.
#[derive(Default)]
struct Asking {
    under_way: bool,
    again: bool,
}

impl Asking {
    /// Whether it is to be asked now.
    fn begin(&mut self) -> bool {
        self.again = self.under_way;
        !std::mem::replace(&mut self.under_way, true)
    }

    /// It was answered. Says whether it was wanted again meanwhile.
    fn end(&mut self) -> bool {
        self.under_way = false;
        std::mem::take(&mut self.again)
    }
}

/// Everything the loop owns.
pub(super) struct Core {
    pub(super) config: AgentConfig,
    pub(super) queue: WriterHandle<Queue>,
    pub(super) dispatch: Dispatch,
    pub(super) link: Link,
    pub(super) time: TrustedTime,
    pub(super) requests: mpsc::Receiver<Question>,
    pub(super) stop: mpsc::Receiver<()>,
    pub(super) service_manager: ServiceManager,
    pub(super) started: Timestamp,
}

struct State {
    uplink: uplink::Uplink,
    conditions: Conditions,
    link: LinkView,
    /// The connection that stands, from its welcome on. The uplink speaks on it once the queue has said how.
    standing: Option<u64>,
    asking_reports: Asking,
    asking_orders_limit: Asking,
    tasks: FuturesUnordered<Task>,
    stop_at: Option<Instant>,
    quiet_until: Option<Instant>,
    purge_at: Instant,
}

impl Core {
    /// Runs until told to stop and all that runs has ended or the deadline has passed.
    ///
    /// # Errors
    /// When the link's task is gone.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let now = self.time.now();
        let mut state = State {
            uplink: uplink::Uplink::default(),
            conditions: Conditions::default(),
            link: LinkView { state: LinkState::Connecting, since: now, workspace: None, trouble: None },
            standing: None,
            asking_reports: Asking::default(),
            asking_orders_limit: Asking::default(),
            tasks: FuturesUnordered::new(),
            stop_at: None,
            quiet_until: None,
            purge_at: Instant::now() + PURGE_SLICES,
        };
        state.conditions.set(
            now,
            "link",
            "link_connecting",
            Severity::Warning,
            "no connection to the cloud yet",
        );
        let frames = self.link.frames.clone();
        loop {
            if state.stop_at.is_some() && self.may_end(&mut state) {
                return Ok(());
            }
            let deadline = state.quiet_until.into_iter().chain(state.stop_at).min();
            tokio::select! {
                biased;
                Some(()) = self.stop.recv() => {
                    if state.stop_at.is_some() {
                        tracing::warn!("told to stop a second time: leaving at once");
                        return Ok(());
                    }
                    let within = self.config.stop_deadline;
                    tracing::info!(?within, "stopping: nothing new begins");
                    self.dispatch.stop();
                    self.service_manager.stopping();
                    state.stop_at = Some(Instant::now() + within);
                }
                // Before all that may keep the loop busy: a busy agent is alive.
                () = self.service_manager.beat() => {}
                happening = self.dispatch.next() => self.happened(&mut state, happening),
                event = self.link.events.recv(), if self.dispatch.takes_orders() => match event {
                    Some(event) => self.link_event(&mut state, event),
                    None => return Err(io::Error::other("the link's task has ended")),
                },
                Some(answer) = state.tasks.next(), if !state.tasks.is_empty() => self.answered(&mut state, answer),
                permit = frames.reserve(), if state.uplink.has_next() => {
                    let permit = permit.map_err(|_| io::Error::other("the link's task has ended"))?;
                    if let Some(frame) = state.uplink.next() {
                        permit.send(frame);
                    }
                    self.ask_reports(&mut state);
                }
                Some((request, reply)) = self.requests.recv() => self.administer(&mut state, request, reply),
                () = sleep_until(state.purge_at), if state.stop_at.is_none() => self.purge(&mut state),
                () = at(deadline) => {}
            }
        }
    }

    fn may_end(&self, state: &mut State) -> bool {
        let now = Instant::now();
        if state.stop_at.is_some_and(|at| at <= now) {
            for lane in self.dispatch.lanes().iter() {
                if let crate::dispatch::LaneState::Busy(job) = lane.state {
                    tracing::warn!(
                        job = %job, lane = %lane.name,
                        "stopped with the job at work: it stays `sent` and is settled at the next start"
                    );
                }
            }
            return true;
        }
        if !self.dispatch.is_quiet() {
            return false;
        }
        let until = *state.quiet_until.get_or_insert(now + LAST_WORDS);
        let nothing_to_say = !state.uplink.has_next() && state.tasks.is_empty();
        state.uplink.connection().is_none() || nothing_to_say || until <= now
    }

    fn happened(&mut self, state: &mut State, happening: Happening) {
        match happening {
            Happening::Held(position) => {
                state.uplink.held(position);
                self.ask_orders_limit(state);
            }
            Happening::OrdersInterrupted { code, why } => state.uplink.refuse(Frame::Refused(Refused {
                code,
                message: format!("an order could not be stored ({why}); it has to be sent again"),
            })),
            Happening::Reports => {
                self.ask_reports(state);
                // A job that ended makes room.
                self.ask_orders_limit(state);
                // Outcomes are stored again, so the disk works.
                state.conditions.clear("store", "store_failed");
            }
            Happening::Progress { job_id, stage } => state.uplink.progress(job_id, stage),
            Happening::LinesChanged => self.lines_changed(state),
            Happening::StoreFailed { why } => {
                let message = format!("the queue cannot be written ({why}): free space or mend the disk");
                state.conditions.set(self.time.now(), "store", "store_failed", Severity::Error, message);
            }
        }
        self.tell_status(state);
    }

    fn lines_changed(&mut self, state: &mut State) {
        let now = self.time.now();
        for (system, line) in self.dispatch.lines() {
            state.conditions.clear_subject(system.as_str());
            if let Line::Down(trouble) = line {
                let (subject, message) = (system.as_str(), trouble.message.clone());
                state.conditions.set(now, subject, trouble.code, Severity::Error, message);
            }
        }
    }

    fn tell_status(&self, state: &mut State) {
        if let Some(conditions) = state.conditions.changed() {
            state.uplink.status(Status { conditions });
        }
    }

    fn link_event(&mut self, state: &mut State, event: link::Event) {
        match event {
            link::Event::Connecting(reply) => {
                let memory = self.queue.submit(|queue: &mut Queue| {
                    let memory = queue.memory()?;
                    Ok(Hello {
                        versions: VERSIONS.to_vec(),
                        agent: concat!("latchd/", env!("CARGO_PKG_VERSION")).into(),
                        orders_received: memory.orders_received,
                        reports_sent: memory.reports.last,
                        reports_acknowledged: Position {
                            epoch: memory.reports.last.epoch,
                            n: memory.reports.acknowledged,
                        },
                        orders_limit: queue.orders_limit(uplink::ORDERS_WINDOW)?,
                    })
                });
                state.tasks.push(Box::pin(async move { Answer::Memory(committed(memory).await, reply) }));
            }
            link::Event::Up { connection, welcome } => self.link_up(state, connection, welcome),
            link::Event::Frame { connection, frame } => {
                if state.standing == Some(connection) {
                    self.frame(state, frame);
                }
            }
            link::Event::Down(trouble) => {
                state.standing = None;
                state.uplink.down();
                let now = self.time.now();
                if state.link.state == LinkState::Up {
                    state.link.since = now;
                }
                state.link.state = LinkState::Down;
                state.link.trouble = Some(trouble.clone());
                self.service_manager.status(&trouble.message);
                state.conditions.clear_subject("link");
                state.conditions.set(now, "link", trouble.code, Severity::Error, trouble.message);
            }
        }
    }

    fn link_up(&mut self, state: &mut State, connection: u64, welcome: Welcome) {
        self.time.anchor(welcome.time);
        state.standing = Some(connection);
        state.link = LinkView {
            state: LinkState::Up,
            since: self.time.now(),
            workspace: Some(welcome.workspace),
            trouble: None,
        };
        self.service_manager.status("linked to the cloud");
        state.conditions.clear_subject("link");
        let ahead = self.time.host_is_ahead_by();
        state.conditions.clear("clock", "clock_skewed");
        if ahead.abs() > CLOCK_TOLERANCE {
            let message =
                format!("this host's clock is {ahead:#} ahead of the cloud's: set up time synchronisation");
            state.conditions.set(self.time.now(), "clock", "clock_skewed", Severity::Warning, message);
        }
        let Welcome { orders_resume_after, orders_epoch_reason, reports_received, reports_limit, .. } =
            welcome;
        let now = self.time.now();
        let resumed = self.queue.submit(move |queue: &mut Queue| {
            let forgot = queue.continue_orders(now, orders_resume_after.epoch, orders_epoch_reason)?;
            let reports_after = match stream::resume(&queue.memory()?.reports, reports_received) {
                Resume::Continue { after } => after,
                Resume::NewEpoch { epoch, reason } => {
                    tracing::warn!(epoch, ?reason, "reports begin a new epoch");
                    queue.begin_reports_epoch(epoch)?;
                    Position { epoch, n: 0 }
                }
            };
            Ok(Resumed { reports_after, forgot })
        });
        state.tasks.push(Box::pin(async move {
            Answer::Resumed { connection, reports_limit, result: committed(resumed).await }
        }));
    }

    fn frame(&mut self, state: &mut State, frame: Frame) {
        match frame {
            Frame::Envelope(envelope @ Envelope { position: Some(position), .. }) => {
                self.dispatch.order(position, &envelope);
            }
            Frame::Envelope(envelope) => match envelope.message() {
                Ok(Message::Acknowledgement { stream: StreamName::Reports, position }) => {
                    // Remembered only; the rows go with a later commit.
                    let done = self.queue.submit(move |queue: &mut Queue| {
                        queue.acknowledge_reports(position);
                        Ok(())
                    });
                    state.tasks.push(Box::pin(async move { Answer::Done(committed(done).await) }));
                }
                _ => tracing::warn!("a message outside the streams that is no acknowledgement was ignored"),
            },
            Frame::Limit(Limit { stream: StreamName::Reports, up_to }) => {
                state.uplink.allow_reports(up_to);
                self.ask_reports(state);
            }
            Frame::Limit(_)
            | Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Refused(_)
            | Frame::Inventory(_)
            | Frame::Status(_)
            | Frame::Progress(_)
            | Frame::Ping { .. }
            | Frame::Pong { .. } => tracing::warn!("a frame that a cloud does not send was ignored"),
        }
    }

    fn ask_reports(&self, state: &mut State) {
        let Some(after) = state.uplink.wants_reports_after() else {
            return;
        };
        if !state.asking_reports.begin() {
            return;
        }
        let reports =
            self.queue.submit(move |queue: &mut Queue| queue.reports_after(after, uplink::REPORTS_BATCH));
        state
            .tasks
            .push(Box::pin(async move { Answer::Reports { after, result: committed(reports).await } }));
    }

    fn ask_orders_limit(&self, state: &mut State) {
        if !state.uplink.wants_orders_limit() || !state.asking_orders_limit.begin() {
            return;
        }
        let limit = self.queue.submit(|queue: &mut Queue| queue.orders_limit(uplink::ORDERS_WINDOW));
        state.tasks.push(Box::pin(async move { Answer::OrdersLimit(committed(limit).await) }));
    }

    /// Deletes a slice of what nobody asks for any more.
    fn purge(&self, state: &mut State) {
        // Not before the answer.
        state.purge_at = Instant::now() + PURGE_EVERY;
        // The earlier of both clocks: one that is ahead must not cost what is still of use.
        let now = self.time.now();
        let earlier =
            now.saturating_add(self.time.host_is_ahead_by().min(SignedDuration::ZERO)).unwrap_or(now);
        let before = earlier.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
        let purged = self.queue.submit(move |queue: &mut Queue| queue.purge(before));
        state.tasks.push(Box::pin(async move { Answer::Purged(committed(purged).await) }));
    }

    fn answered(&mut self, state: &mut State, answer: Answer) {
        match answer {
            Answer::Memory(Ok(hello), reply) => {
                state.uplink.greets(hello.orders_received, hello.orders_limit);
                // The connection may be gone already; the next one asks again.
                let _ = reply.send(hello);
            }
            Answer::Resumed { connection, reports_limit, result: Ok(Resumed { reports_after, forgot }) } => {
                if forgot {
                    let message = "this agent remembers less than it once acknowledged (restored backup, \
                                   rolled-back machine): every room's state is held for uncertain until a card \
                                   was read";
                    state.conditions.set(
                        self.time.now(),
                        "memory",
                        "memory_behind",
                        Severity::Error,
                        message,
                    );
                }
                if state.standing != Some(connection) {
                    return;
                }
                self.dispatch.welcomed();
                state.uplink.up(connection, reports_after, reports_limit);
                state.uplink.inventory(self.inventory());
                state.uplink.status(Status { conditions: state.conditions.all() });
                self.ask_reports(state);
                self.ask_orders_limit(state);
            }
            Answer::Resumed { connection, result: Err(error), .. } => {
                state.uplink.up_in_vain(
                    connection,
                    Frame::Refused(Refused {
                        code: RefusedCode::Restarting,
                        message: format!(
                            "the agent's queue cannot be used at the moment ({error}); try again"
                        ),
                    }),
                );
                self.store_failed(state, &error);
            }
            Answer::Reports { after, result } => {
                let wanted_again = state.asking_reports.end();
                match result {
                    Ok(reports) => {
                        if !state.uplink.reports(after, reports) || wanted_again {
                            self.ask_reports(state);
                        }
                    }
                    Err(error) => self.ask_again_later(state, &error),
                }
            }
            Answer::OrdersLimit(result) => {
                let wanted_again = state.asking_orders_limit.end();
                match result {
                    Ok(limit) => {
                        state.uplink.orders_limit(limit);
                        if wanted_again {
                            self.ask_orders_limit(state);
                        }
                    }
                    Err(error) => self.ask_again_later(state, &error),
                }
            }
            Answer::AskAgain => {
                self.ask_reports(state);
                self.ask_orders_limit(state);
            }
            Answer::Purged(Ok(0)) | Answer::Done(Ok(())) => {}
            // A doubt may have been settled: that is a report.
            Answer::Told => self.ask_reports(state),
            Answer::Purged(Ok(rows)) => {
                tracing::debug!(rows, "old jobs and audit lines deleted");
                state.purge_at = Instant::now() + PURGE_SLICES;
            }
            Answer::Memory(Err(error), _) | Answer::Purged(Err(error)) | Answer::Done(Err(error)) => {
                self.store_failed(state, &error);
            }
        }
    }

    fn ask_again_later(&self, state: &mut State, error: &StoreError) {
        self.store_failed(state, error);
        state.tasks.push(Box::pin(async {
            tokio::time::sleep(STORE_AGAIN).await;
            Answer::AskAgain
        }));
    }

    fn administer(&self, state: &mut State, request: Request, reply: oneshot::Sender<Response>) {
        let now = self.time.now();
        let answer = match request {
            Request::Status => {
                let (config, dispatch) = (&self.config, &self.dispatch);
                let report =
                    answers::status(config, self.started, now, &state.link, dispatch, &state.conditions);
                self.queue.submit(move |queue: &mut Queue| {
                    Ok(Response::Status(Box::new(answers::with_queue(report, queue)?)))
                })
            }
            Request::Jobs { state, lane, limit } => self.queue.submit(move |queue: &mut Queue| {
                let limit = usize::from(limit).min(MOST_JOBS);
                let (jobs, more) = answers::jobs(queue, state, lane.as_ref(), limit)?;
                Ok(Response::Jobs { jobs, more })
            }),
            Request::Job { job_id } => self.queue.submit(move |queue: &mut Queue| {
                Ok(match answers::job(queue, job_id)? {
                    Some(job) => Response::Job(Box::new(job)),
                    None => Response::refused("no_such_job", format!("there is no job {job_id}")),
                })
            }),
            Request::Resolve { job_id, verdict, by } => {
                self.queue.submit(move |queue: &mut Queue| answers::resolve(queue, now, job_id, verdict, &by))
            }
        };
        state.tasks.push(Box::pin(async move {
            let answer = committed(answer).await;
            let answer = answer.unwrap_or_else(|error| Response::refused("unavailable", error.to_string()));
            // Whoever asked may have gone.
            let _ = reply.send(answer);
            Answer::Told
        }));
    }

    fn store_failed(&self, state: &mut State, error: &StoreError) {
        tracing::error!(error = %error, "the queue could not be read or written");
        let message = format!("the queue cannot be read or written ({error}): free space or mend the disk");
        state.conditions.set(self.time.now(), "store", "store_failed", Severity::Error, message);
        self.tell_status(state);
    }

    fn inventory(&self) -> Inventory {
        let wanted = |system: &SystemName| {
            let configured = self.config.systems.iter().find(|configured| configured.name == *system);
            configured.is_some_and(|configured| configured.checkout == Checkout::LastGrant)
        };
        let system = |driver: &Arc<dyn Driver>| SystemInventory {
            checkout_on_last_grant: wanted(driver.system()),
            ..driver.inventory()
        };
        Inventory { systems: self.dispatch.drivers().values().map(system).collect() }
    }
}

async fn committed<T>(answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    answer.await.unwrap_or(Err(StoreError::Stopped))
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
