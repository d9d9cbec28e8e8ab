//! The agent's one loop: link, dispatcher, administration and clock meet here. It decides nothing; it carries.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    admin::{LinkState, NewJob, Question, Request, Response, Watched, Watchers},
    answers::{self, LinkView},
    conditions::Conditions,
    desired::{Came, Inbox, TooMuch},
    doors::{self, Doors},
    notify::ServiceManager,
    pairing::{Own, Pairing, take_ledger},
    reload::{self, Reload},
    renewal::{self, Failed, Life, Renewal},
    uplink,
};
use crate::{
    config::{AfterDeletedCard, AgentConfig, Checkout, SystemConfig},
    dispatch::{self, Dispatch, Happening, LaneState, LaneView},
    drivers::{Driver, Line, Past},
    link::{self, Link, Settings},
    model::{
        DesiredGrant, DoorName, Inventory, JobId, LaneName, Origin, Severity, SystemInventory, SystemName,
    },
    protocol::{
        DESIRED_SINCE, Envelope, EpochReason, Frame, Limit, Memory, Message, Position, PublicKey, Refused,
        RefusedCode, Stage, Status, StreamName, Welcome,
    },
    queue::{
        Accepted, Barred, FILE, GrantRefused, HandedOn, Imported, LocalOrder, Queue, QueueReader, Rules,
        Unconfirmed,
    },
    seams::{Random, Storage, TrustedTime},
    store::{self, Disk, Health, ReaderHandle, Salvage, StoreError, WriterHandle},
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

/// What a person is told when this side's memory was set back.
const MEMORY_BEHIND: &str = "this agent remembers less than it once acknowledged (restored backup, rolled-back machine): \
                             what waited is in doubt, and every room's state is held for uncertain until a card was read";
/// And where it begins where another one ended.
const MEMORY_NEW: &str = "this agent's memory is new, and the cloud knows of work of this bridge from before (new hardware, \
                          or the queue's file is gone): what the old memory had under way is in doubt, and of the rooms it \
                          knows what was taken over with the pairing";
/// So many jobs that wait for a person's word are told to the cloud one by one.
const UNCONFIRMED_TOLD: usize = 100;
/// One answer of the admin socket lists no more jobs.
const MOST_JOBS: usize = 1000;
/// How many removals that may not be done are named to a person.
const MOST_BARRED: usize = 5;

type Task = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Reply = Pin<Box<dyn Future<Output = Result<Response, StoreError>> + Send>>;

/// What the queue answered to a question of this loop.
enum Answer {
    Memory(Result<Memory, StoreError>, oneshot::Sender<Memory>),
    Resumed {
        connection: u64,
        reports_limit: u64,
        result: Result<Resumed, StoreError>,
    },
    Reports {
        after: Position,
        result: Result<Vec<(Position, Message)>, StoreError>,
    },
    OrdersLimit(Result<u64, StoreError>),
    /// A frame of what is desired is durable, up to here, or is not.
    Desired(Arc<Came>, Result<Position, StoreError>),
    Unconfirmed(Result<Unconfirmed, StoreError>),
    ChangedRooms(Result<Vec<(SystemName, DoorName)>, StoreError>),
    /// What desks had taken back was judged by this configuration.
    Judged(Result<(), StoreError>),
    Barred(Result<Barred, StoreError>),
    AskAgain,
    Purged(Result<usize, StoreError>),
    /// What happened at doors was read, and so much of it is lost.
    DoorsRead(Result<u64, StoreError>),
    DoorsHandedOn(Result<HandedOn, StoreError>),
    Told,
    /// A watcher has begun; ends after this report are for it.
    Watching(Position),
    Waits(Result<Option<Watched>, StoreError>),
    /// The configuration was read again, or what is wrong with it.
    Reread(Result<Box<reload::Read>, Vec<String>>),
    Replaced(Result<(), StoreError>),
    /// The site was paired anew, and the queue took over what the cloud knew of the doors.
    PairedAnew(Box<(Pairing, Settings)>, anyhow::Result<Option<Imported>>),
    /// There is another certificate, or why not.
    Renewed(Result<Box<(Pairing, Settings)>, Failed>),
    Ends(Result<(Vec<Watched>, Position, bool), StoreError>),
}

/// How both streams go on with a cloud that has welcomed us.
struct Resumed {
    /// The last report that it holds.
    reports_after: Position,
    /// What this side holds of what the cloud desires, if that cloud tells it.
    desired: Option<Position>,
    /// What a person should know, if this side remembers less than there is to know.
    forgot: Option<(&'static str, Severity, &'static str)>,
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
    pub(super) file: QueueFile,
    pub(super) health: watch::Receiver<Health>,
    pub(super) dispatch: Dispatch,
    pub(super) link: Link,
    pub(super) time: TrustedTime,
    pub(super) random: Random,
    pub(super) requests: mpsc::Receiver<Question>,
    pub(super) watchers: Watchers,
    pub(super) reload: Option<Reload>,
    pub(super) own: Option<Own>,
    pub(super) stop: mpsc::Receiver<()>,
    pub(super) service_manager: ServiceManager,
    pub(super) started: Timestamp,
}

/// The queue's file, and what is known of it.
#[derive(Debug)]
pub struct QueueFile {
    /// Where it lies.
    pub storage: Storage,
    /// For those who look.
    pub reader: ReaderHandle<QueueReader>,
    /// Hears of damage once, if there is any.
    pub damage: Option<oneshot::Receiver<String>>,
    /// What it was saved from before this run.
    pub salvage: Option<Salvage>,
    /// Whether it was put back from a backup, and no cloud has been met since.
    pub is_restored: bool,
}

struct State {
    uplink: uplink::Uplink,
    conditions: Conditions,
    link: LinkView,
    /// The connection that stands, from its welcome on. The uplink speaks on it once the queue has said how.
    standing: Option<u64>,
    /// What the cloud desires, as far as it is not durable.
    desired: Inbox,
    asking_reports: Asking,
    asking_orders_limit: Asking,
    asking_ends: Asking,
    asking_unconfirmed: Asking,
    /// The jobs of which the cloud was told that they wait for a person's word.
    unconfirmed: BTreeSet<JobId>,
    rereading: Asking,
    /// The last report that watchers were told of, while there are any.
    watched: Option<Position>,
    /// Since when jobs at work have been waiting for a card.
    cards: BTreeMap<JobId, Timestamp>,
    tasks: FuturesUnordered<Task>,
    stop_at: Option<Instant>,
    quiet_until: Option<Instant>,
    purge_at: Instant,
    doors: Doors,
    renewal: Renewal,
    /// The last report that the cloud said to hold.
    acknowledged: Position,
    /// Why the file cannot be worked with any longer.
    damage: Option<String>,
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
            link: LinkView {
                state: LinkState::Connecting,
                since: now,
                workspace: None,
                paired: self.own.as_ref().map(|own| (own.pairing.bridge_id, own.pairing.expires_at)),
                trouble: None,
            },
            standing: None,
            desired: Inbox::default(),
            asking_reports: Asking::default(),
            asking_orders_limit: Asking::default(),
            asking_ends: Asking::default(),
            asking_unconfirmed: Asking::default(),
            unconfirmed: BTreeSet::new(),
            rereading: Asking::default(),
            watched: None,
            cards: BTreeMap::new(),
            tasks: FuturesUnordered::new(),
            stop_at: None,
            quiet_until: None,
            purge_at: Instant::now() + PURGE_SLICES,
            doors: Doors::default(),
            renewal: Renewal::new(self.random.clone(), self.own.as_ref().is_some_and(|own| own.is_renewing)),
            acknowledged: Position::default(),
            damage: None,
        };
        state.doors.follow(self.dispatch.drivers(), Instant::now());
        self.tell_of_past(&mut state, now);
        self.ask_unconfirmed(&mut state);
        self.ask_changed_rooms(&mut state);
        let judged = self.dispatch.judge_removals();
        state.tasks.push(Box::pin(async move { Answer::Judged(committed(judged).await) }));
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
                return state.damage.map_or(Ok(()), |what| Err(io::Error::other(what)));
            }
            let deadline = state.quiet_until.into_iter().chain(state.stop_at).min();
            let renew_at = self.renew_at(&state);
            let doors_at = state.doors.due_at(state.uplink.speaks_second());
            self.dispatch.let_begin().await;
            tokio::select! {
                biased;
                Some(()) = self.stop.recv() => {
                    if state.stop_at.is_some() {
                        tracing::warn!("told to stop a second time: leaving at once");
                        return Ok(());
                    }
                    let within = self.config.stop_deadline;
                    tracing::info!(?within, "stopping: nothing new begins");
                    self.stop_in_order(&mut state);
                }
                () = hung_up(&mut self.reload), if state.stop_at.is_none() => {
                    self.link.at_once.notify_one();
                    self.reread(&mut state);
                }
                // Before all that may keep the loop busy: a busy agent is alive.
                () = self.service_manager.beat() => {}
                what = found(&mut self.file.damage), if state.damage.is_none() => self.damaged(&mut state, &what),
                Ok(()) = self.health.changed() => self.health_changed(&mut state),
                happening = self.dispatch.next() => {
                    self.dispatch.let_begin().await;
                    self.happened(&mut state, happening);
                }
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
                () = at(renew_at), if state.stop_at.is_none() => self.renew(&mut state),
                () = sleep_until(state.purge_at), if state.stop_at.is_none() => self.purge(&mut state),
                () = at(doors_at), if state.stop_at.is_none() => self.look_at_doors(&mut state),
                () = at(deadline) => {}
            }
        }
    }

    fn stop_in_order(&mut self, state: &mut State) {
        self.dispatch.stop();
        self.service_manager.stopping();
        state.stop_at = Some(Instant::now() + self.config.stop_deadline);
    }

    fn tell_of_past(&self, state: &mut State, now: Timestamp) {
        if let Some(salvage) = &self.file.salvage {
            let aside = salvage.aside.as_ref().map(|aside| format!("; it is kept as {}", aside.display()));
            let message = format!(
                "the queue's file was damaged ({}): {} rows were saved into a fresh one, {} were lost{}",
                salvage.why,
                salvage.kept,
                salvage.lost,
                aside.unwrap_or_default()
            );
            state.conditions.set(now, "store", "store_salvaged", Severity::Warning, message);
        }
        if self.file.is_restored {
            state.conditions.set(now, "memory", "memory_behind", Severity::Error, MEMORY_BEHIND);
        }
        if let Some(imported) = self.own.as_ref().and_then(|own| own.imported) {
            ledger_imported(state, now, imported);
        }
    }

    /// The file is damaged: nothing new begins, and the next start saves what can be saved.
    fn damaged(&mut self, state: &mut State, what: &str) {
        let message = format!(
            "the queue's file is damaged ({what}): the agent stops, and saves what can be read when it starts again"
        );
        tracing::error!("{message}");
        if let Err(error) = store::mark_damaged(&self.file.storage, FILE, what) {
            tracing::error!(error = error.chain(), "the damaged file could not be marked");
        }
        state.conditions.set(self.time.now(), "store", "store_damaged", Severity::Error, message.clone());
        self.tell_status(state);
        state.damage = Some(message);
        if state.stop_at.is_none() {
            self.stop_in_order(state);
        }
    }

    fn health_changed(&mut self, state: &mut State) {
        let Health { disk, is_damaged } = *self.health.borrow_and_update();
        match disk {
            Disk::Full => {
                let folder = self.file.storage.path().display();
                let message = format!(
                    "the disk is full: jobs that run can still be recorded, and nothing new is taken; free space \
                     where {folder} is"
                );
                state.conditions.set(self.time.now(), "store", "disk_full", Severity::Error, message);
            }
            Disk::Room => {
                state.conditions.clear("store", "disk_full");
                state.conditions.clear("store", "store_failed");
                self.ask_orders_limit(state);
            }
        }
        self.tell_status(state);
        if is_damaged && state.damage.is_none() {
            self.damaged(state, "a statement stumbled over it");
        }
    }

    fn may_end(&self, state: &mut State) -> bool {
        let now = Instant::now();
        if state.stop_at.is_some_and(|at| at <= now) {
            for lane in self.dispatch.lanes().iter() {
                if let LaneState::Busy(job) = lane.state {
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
                retry_after_ms: None,
            })),
            Happening::Reports => {
                self.ask_reports(state);
                self.ask_ends(state);
                // A job that ended makes room.
                self.ask_orders_limit(state);
                if self.config.limits.confirm_remote_cards || !state.unconfirmed.is_empty() {
                    self.ask_unconfirmed(state);
                }
                if state.conditions.holds("rooms", "room_changed_elsewhere") {
                    self.ask_changed_rooms(state);
                }
                if state.conditions.holds("jobs", "removal_barred") {
                    self.ask_barred(state);
                }
                // Outcomes are stored again, so the disk works.
                state.conditions.clear("store", "store_failed");
            }
            Happening::Progress { job_id, stage } => {
                state.uplink.progress(job_id, stage);
                if stage == Stage::WaitingForConfirmation {
                    state.unconfirmed.insert(job_id);
                    self.ask_unconfirmed(state);
                }
                let (now, job) = (self.time.now(), self.dispatch.at_work(job_id));
                match job {
                    _ if !self.watchers.any() => {}
                    // One that waits is not held in memory.
                    None if matches!(stage, Stage::Queued | Stage::WaitingForConfirmation) => {
                        let waits =
                            self.queue.submit(move |queue: &mut Queue| answers::waits(queue, now, job_id));
                        state.tasks.push(Box::pin(async move { Answer::Waits(committed(waits).await) }));
                    }
                    job => self.watchers.tell(answers::step(now, job_id, job, stage)),
                }
                state.cards.retain(|waits, _| self.dispatch.at_work(*waits).is_some());
                if stage == Stage::WaitingForCard && job.is_some() {
                    state.cards.insert(job_id, now);
                }
            }
            Happening::LinesChanged => self.lines_changed(state),
            Happening::Stir(system) => state.doors.stir(&system, Instant::now()),
            Happening::RoomChangedElsewhere => self.ask_changed_rooms(state),
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
            let driver = self.dispatch.drivers().get(system);
            if let Some(remark) = driver.and_then(|driver| driver.remark()) {
                let subject = system.as_str();
                state.conditions.set(now, subject, remark.code, Severity::Warning, remark.message);
            }
        }
        state.conditions.clear_code("lane_resting");
        for lane in self.dispatch.lanes().iter() {
            if let Some(why) = lane.unreached {
                let message = format!("{}; it is tried again by itself", why.message);
                let subject = lane.name.as_str();
                state.conditions.set(now, subject, "lane_resting", Severity::Warning, message);
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
                    Ok(Memory {
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
            link::Event::Up { connection, welcome, further } => {
                self.link_up(state, connection, welcome);
                if let Some(address) = further {
                    let message = format!(
                        "linked by {address}: {} was not to be had; it is tried first when the link is next made",
                        self.link.settings.borrow().url()
                    );
                    state.conditions.set(
                        self.time.now(),
                        "link",
                        "link_on_further_address",
                        Severity::Warning,
                        message,
                    );
                }
            }
            link::Event::Frame { connection, frame } => {
                if state.standing == Some(connection) {
                    self.frame(state, frame);
                }
            }
            link::Event::Down(trouble) | link::Event::GaveUp(trouble) => {
                state.standing = None;
                state.uplink.down();
                state.desired.clear();
                let now = self.time.now();
                if state.link.state == LinkState::Up {
                    state.link.since = now;
                    self.queue.submit(|queue: &mut Queue| {
                        queue.parted();
                        Ok(())
                    });
                }
                state.link.state = LinkState::Down;
                state.link.trouble = Some(trouble.clone());
                if trouble.code == "link_certificate_expired" {
                    state.renewal.is_over();
                }
                self.tell_renewal(state);
                self.service_manager.status(&trouble.message);
                state.conditions.clear_subject("link");
                state.conditions.set(now, "link", trouble.code, Severity::Error, trouble.message);
            }
        }
    }

    fn link_up(&mut self, state: &mut State, connection: u64, welcome: Welcome) {
        self.time.anchor(welcome.time);
        state.standing = Some(connection);
        state.desired.clear();
        state.link = LinkView {
            state: LinkState::Up,
            since: self.time.now(),
            workspace: Some(welcome.workspace),
            trouble: None,
            paired: state.link.paired,
        };
        state.renewal.is_welcome();
        self.tell_renewal(state);
        self.service_manager.status("linked to the cloud");
        state.conditions.clear_subject("link");
        let ahead = self.time.host_is_ahead_by();
        state.conditions.clear("clock", "clock_skewed");
        if ahead.abs() > CLOCK_TOLERANCE {
            let message =
                format!("this host's clock is {ahead:#} ahead of the cloud's: set up time synchronisation");
            state.conditions.set(self.time.now(), "clock", "clock_skewed", Severity::Warning, message);
        }
        let Welcome {
            version,
            orders_resume_after,
            orders_epoch_reason,
            reports_received,
            reports_limit,
            cloud_keys,
            ..
        } = welcome;
        self.believe(state, cloud_keys);
        let now = self.time.now();
        if orders_epoch_reason == Some(EpochReason::SenderBehind) {
            let message = "the cloud remembers less than it once did (restored backup, rolled-back machine): it \
                           orders again what it knows, and is told how that ended; what it forgot is not undone";
            state.conditions.set(now, "memory", "cloud_behind", Severity::Warning, message);
        }
        let resumed = self.queue.submit(move |queue: &mut Queue| {
            let was_empty = queue.memory()?.orders_received == Position::default();
            let resumed =
                queue.resume(now, orders_resume_after.epoch, orders_epoch_reason, reports_received)?;
            let forgot = resumed.forgot.then_some(match was_empty {
                true => ("memory_new", Severity::Warning, MEMORY_NEW),
                false => ("memory_behind", Severity::Error, MEMORY_BEHIND),
            });
            let mut reports_after = resumed.reports_after;
            let desired = match version < DESIRED_SINCE {
                true => {
                    reports_after = queue.take_doors_back()?.unwrap_or(reports_after);
                    None
                }
                false => {
                    queue.ask_about_untold()?;
                    Some(queue.desired_held()?.position)
                }
            };
            Ok(Resumed { reports_after, desired, forgot })
        });
        state.tasks.push(Box::pin(async move {
            Answer::Resumed { connection, reports_limit, result: committed(resumed).await }
        }));
    }

    /// These keys speak for the cloud from the next connection on.
    fn believe(&mut self, state: &mut State, cloud_keys: Vec<PublicKey>) {
        if cloud_keys.is_empty() {
            // Taken at its word, nobody could ever welcome this site again.
            tracing::warn!("the cloud names no key of its own: those that are known go on to speak for it");
            return;
        }
        let Some(own) = self.own.as_mut().filter(|own| own.pairing.cloud_keys != cloud_keys) else { return };
        let names: Vec<_> = cloud_keys.iter().map(|key| key.id().to_string()).collect();
        tracing::info!(keys = names.join(", "), "other keys speak for the cloud from here on");
        own.pairing.cloud_keys.clone_from(&cloud_keys);
        let (pairing, path) = (own.pairing.clone(), Pairing::path(&self.config));
        let stored = tokio::task::spawn_blocking(move || pairing.store_after(&pairing, &path));
        let settings = self.link.settings.clone();
        state.tasks.push(Box::pin(async move {
            match stored.await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    tracing::info!("the site was paired anew: the new pairing says whom to believe");
                }
                // The cloud signs with a key that we say we know: it is tried again at the next connection.
                Ok(Err(error)) => {
                    tracing::error!(error = format!("{error:#}"), "the cloud's keys could not be kept");
                }
                Err(error) => tracing::error!(%error, "keeping the cloud's keys broke down"),
            }
            settings.send_modify(|settings| settings.believe(cloud_keys));
            Answer::Told
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
                    state.acknowledged = position;
                    self.queue.defer(move |queue: &mut Queue| {
                        queue.acknowledge_reports(position);
                        Ok(())
                    });
                }
                _ => tracing::warn!("a message outside the streams that is no acknowledgement was ignored"),
            },
            Frame::Limit(Limit { stream: StreamName::Reports, up_to }) => {
                state.uplink.allow_reports(up_to);
                self.ask_reports(state);
            }
            Frame::Desired(desired) => match state.desired.came(desired, state.acknowledged) {
                Ok(()) => self.take_desired(state),
                Err(too_much) => self.refuse_desired(state, too_much),
            },
            Frame::Limit(_)
            | Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Refused(_)
            | Frame::Inventory(_)
            | Frame::Status(_)
            | Frame::Progress(_)
            | Frame::Ping { .. }
            | Frame::Beacon
            | Frame::Pong { .. } => tracing::warn!("a frame that a cloud does not send was ignored"),
        }
    }

    /// Stores what the cloud desires, in a commit that no job waits for.
    fn take_desired(&self, state: &mut State) {
        let Some(came) = state.desired.next() else { return };
        let next = Arc::clone(&came);
        let taken =
            self.queue.submit(move |queue: &mut Queue| queue.take_desired_after(&next.desired, next.heard));
        state.tasks.push(Box::pin(async move { Answer::Desired(came, committed(taken).await) }));
    }

    /// The cloud does not keep to what it may have under way. Nothing is lost: what was not stored comes again.
    fn refuse_desired(&self, state: &mut State, too_much: TooMuch) {
        let message = format!("the cloud tells more than is agreed ({too_much}): its connection was ended");
        tracing::warn!(error = %too_much, "what is desired was not taken");
        state.desired.clear();
        // What still comes over it would be taken for what follows on the last picture that was stored.
        state.standing = None;
        state.conditions.set(
            self.time.now(),
            "cloud",
            "desired_exceeds_limit",
            Severity::Error,
            message.as_str(),
        );
        let (code, retry_after_ms) = (RefusedCode::LimitExceeded, None);
        state.uplink.refuse(Frame::Refused(Refused { code, message, retry_after_ms }));
    }

    fn ask_reports(&self, state: &mut State) {
        let Some(after) = state.uplink.wants_reports_after() else {
            return;
        };
        if !state.asking_reports.begin() {
            return;
        }
        let reports = self
            .queue
            .submit_soon(move |queue: &mut Queue| queue.hand_out_reports(after, uplink::REPORTS_BATCH));
        state
            .tasks
            .push(Box::pin(async move { Answer::Reports { after, result: committed(reports).await } }));
    }

    fn ask_orders_limit(&self, state: &mut State) {
        if !state.uplink.wants_orders_limit() || !state.asking_orders_limit.begin() {
            return;
        }
        let limit = self.queue.submit_soon(|queue: &mut Queue| queue.orders_limit(uplink::ORDERS_WINDOW));
        state.tasks.push(Box::pin(async move { Answer::OrdersLimit(committed(limit).await) }));
    }

    /// Looks for jobs that wait for a person's word.
    fn ask_unconfirmed(&self, state: &mut State) {
        if !state.asking_unconfirmed.begin() {
            return;
        }
        let unconfirmed = self.queue.submit(|queue: &mut Queue| queue.unconfirmed(UNCONFIRMED_TOLD));
        state.tasks.push(Box::pin(async move { Answer::Unconfirmed(committed(unconfirmed).await) }));
    }

    fn ask_changed_rooms(&self, state: &mut State) {
        let changed = self.queue.submit(|queue: &mut Queue| queue.rooms_changed_elsewhere());
        state.tasks.push(Box::pin(async move { Answer::ChangedRooms(committed(changed).await) }));
    }

    /// Says of which rooms somebody else has disposed.
    fn tell_changed_rooms(&self, state: &mut State, changed: &[(SystemName, DoorName)]) {
        if changed.is_empty() {
            return state.conditions.clear("rooms", "room_changed_elsewhere");
        }
        let rooms: Vec<_> = changed.iter().map(|(system, room)| format!("{system}/{room}")).collect();
        let message = format!(
            "the lock system has no stay in {} although one of ours holds it: somebody else checked it out or made cards \
             for it. Look who is in; if other programs make cards there, say `exclusive = false`",
            rooms.join(", ")
        );
        let now = self.time.now();
        state.conditions.set(now, "rooms", "room_changed_elsewhere", Severity::Warning, message);
    }

    fn ask_barred(&self, state: &mut State) {
        let barred = self.queue.submit(|queue: &mut Queue| queue.barred_removals(MOST_BARRED));
        state.tasks.push(Box::pin(async move { Answer::Barred(committed(barred).await) }));
    }

    /// Says which codes were taken back and may be in their locks still, as nothing may take them out.
    fn tell_barred(&self, state: &mut State, barred: &Barred) {
        let (subject, code) = ("jobs", "removal_barred");
        if barred.count == 0 {
            return state.conditions.clear(subject, code);
        }
        let message = answers::barred(barred);
        state.conditions.set(self.time.now(), subject, code, Severity::Error, message);
    }

    /// Says which jobs wait for a person's word: to the site as a condition, to the cloud of each one.
    fn tell_unconfirmed(&self, state: &mut State, unconfirmed: Unconfirmed) {
        let Unconfirmed { first, count } = unconfirmed;
        for job_id in first.iter().filter(|job_id| !state.unconfirmed.contains(job_id)) {
            state.uplink.progress(*job_id, Stage::WaitingForConfirmation);
        }
        state.unconfirmed = first.into_iter().collect();
        match count {
            0 => state.conditions.clear("jobs", "confirmation_awaited"),
            _ => {
                let what = if count == 1 { "a card waits" } else { "cards wait" };
                let message = format!(
                    "{}{what} until somebody confirms or declines: see `latchd jobs list --state waiting`, then \
                     `latchd jobs confirm JOB_ID` or `latchd jobs decline JOB_ID`",
                    if count == 1 { String::new() } else { format!("{count} ") }
                );
                state.conditions.set(
                    self.time.now(),
                    "jobs",
                    "confirmation_awaited",
                    Severity::Warning,
                    message,
                );
            }
        }
        self.tell_status(state);
    }

    /// Looks for jobs that ended since watchers were last told.
    fn ask_ends(&self, state: &mut State) {
        if !self.watchers.any() {
            state.watched = None;
        }
        let Some(after) = state.watched else {
            return;
        };
        if !state.asking_ends.begin() {
            return;
        }
        let ends = self.queue.submit(move |queue: &mut Queue| answers::ends_after(queue, after));
        state.tasks.push(Box::pin(async move { Answer::Ends(committed(ends).await) }));
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

    /// Reads what happened at doors where that is due, and hands on what was read.
    fn look_at_doors(&self, state: &mut State) {
        let now = Instant::now();
        let due = state.doors.begin(self.dispatch.drivers(), now);
        if !due.is_empty() {
            let read = doors::read(due, self.queue.clone());
            state.tasks.push(Box::pin(async move { Answer::DoorsRead(read.await) }));
        }
        if state.uplink.speaks_second() && state.doors.hands_on(now) {
            let at = self.time.now();
            let handed_on = self.queue.submit(move |queue: &mut Queue| queue.hand_on_door_events(at));
            state.tasks.push(Box::pin(async move { Answer::DoorsHandedOn(committed(handed_on).await) }));
        }
    }

    fn doors_read(&self, state: &mut State, result: &Result<u64, StoreError>) {
        let lost = result.as_ref().copied().unwrap_or_default();
        state.doors.read(lost, Instant::now());
        if let Err(error) = result {
            return self.store_failed(state, error);
        }
        if 0 < lost {
            let message = format!(
                "at least {} events of doors are lost since the start: a device or this site had no room to keep them, \
                 or a device's memory was cleared",
                state.doors.lost
            );
            state.conditions.set(self.time.now(), "doors", "door_events_lost", Severity::Warning, message);
            self.tell_status(state);
        }
    }

    fn answered(&mut self, state: &mut State, answer: Answer) {
        match answer {
            Answer::Memory(Ok(hello), reply) => {
                state.uplink.greets(hello.orders_received, hello.orders_limit);
                // The connection may be gone already; the next one asks again.
                let _ = reply.send(hello);
            }
            Answer::Resumed {
                connection,
                reports_limit,
                result: Ok(Resumed { reports_after, desired, forgot }),
            } => {
                if let Some((code, severity, message)) = forgot {
                    state.conditions.set(self.time.now(), "memory", code, severity, message);
                }
                if state.standing != Some(connection) {
                    return;
                }
                self.dispatch.welcomed();
                state.acknowledged = reports_after;
                state.uplink.up(connection, reports_after, reports_limit);
                if let Some(held) = desired {
                    state.uplink.desired_held(held);
                    state.doors.look(Instant::now());
                }
                state.uplink.inventory(self.inventory());
                state.uplink.status(Status { conditions: state.conditions.all() });
                self.ask_reports(state);
                self.ask_orders_limit(state);
                // What this cloud was told of them may be lost.
                state.unconfirmed.clear();
                self.ask_unconfirmed(state);
            }
            Answer::Resumed { connection, result: Err(error), .. } => {
                state.uplink.up_in_vain(
                    connection,
                    Frame::Refused(Refused {
                        code: RefusedCode::Restarting,
                        message: format!(
                            "the agent's queue cannot be used at the moment ({error}); try again"
                        ),
                        retry_after_ms: None,
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
            Answer::ChangedRooms(Ok(changed)) => {
                self.tell_changed_rooms(state, &changed);
                self.tell_status(state);
            }
            Answer::ChangedRooms(Err(error)) => {
                tracing::warn!(
                    error = error.chain(),
                    "which rooms others have changed could not be looked up"
                );
            }
            Answer::Desired(came, result) => {
                let counts = state.desired.stored(&came, result.is_ok());
                match result {
                    Ok(held) if counts => {
                        state.conditions.clear("cloud", "desired_exceeds_limit");
                        state.uplink.desired_held(held);
                    }
                    Ok(_) => {}
                    Err(error) => return self.ask_again_later(state, &error),
                }
                self.take_desired(state);
            }
            Answer::Unconfirmed(result) => {
                let wanted_again = state.asking_unconfirmed.end();
                match result {
                    Ok(unconfirmed) => self.tell_unconfirmed(state, unconfirmed),
                    Err(error) => self.ask_again_later(state, &error),
                }
                if wanted_again {
                    self.ask_unconfirmed(state);
                }
            }
            Answer::AskAgain => {
                self.take_desired(state);
                self.ask_unconfirmed(state);
                self.ask_reports(state);
                self.ask_orders_limit(state);
                self.ask_ends(state);
            }
            Answer::DoorsRead(result) => self.doors_read(state, &result),
            Answer::DoorsHandedOn(Ok(HandedOn { any, more })) => {
                if any {
                    self.ask_reports(state);
                }
                if more {
                    state.doors.look_again(Instant::now());
                }
            }
            Answer::DoorsHandedOn(Err(error)) => self.store_failed(state, &error),
            Answer::Purged(Ok(0)) => {}
            // A doubt may have been settled: that is a report.
            Answer::Told => {
                self.ask_reports(state);
                self.ask_ends(state);
            }
            Answer::Watching(seen) => {
                state.watched.get_or_insert(seen);
                self.ask_ends(state);
            }
            Answer::Waits(Ok(waits)) => {
                // It may have been begun while it was asked about.
                if let Some(waits) = waits.filter(|waits| self.dispatch.at_work(waits.job_id).is_none()) {
                    self.watchers.tell(waits);
                }
            }
            Answer::Reread(read) => {
                match read {
                    Ok(read) => self.take_over(state, *read),
                    Err(mistakes) => self.not_taken_over(state, &mistakes),
                }
                if state.rereading.end() {
                    self.reread(state);
                }
            }
            Answer::PairedAnew(paired, Ok(imported)) => {
                if let Some(imported) = imported {
                    ledger_imported(state, self.time.now(), imported);
                }
                let (pairing, settings) = *paired;
                let is_cut_off = false;
                state.renewal = Renewal::new(self.random.clone(), is_cut_off);
                self.go_on_as(state, pairing, settings);
                self.tell_status(state);
            }
            Answer::PairedAnew(_, Err(error)) => {
                self.not_taken_over(state, &[format!("the new pairing: {error:#}")]);
            }
            Answer::Renewed(renewed) => self.renewed(state, renewed),
            Answer::Judged(Ok(())) => self.ask_barred(state),
            Answer::Barred(Ok(barred)) => {
                self.tell_barred(state, &barred);
                self.tell_status(state);
            }
            Answer::Judged(Err(error)) | Answer::Barred(Err(error)) => {
                tracing::warn!(error = error.chain(), "what was taken back could not be looked up");
            }
            Answer::Replaced(Ok(())) => {
                self.ask_barred(state);
                state.doors.follow(self.dispatch.drivers(), Instant::now());
                tracing::info!(systems = self.config.systems.len(), "configuration taken over");
                self.service_manager.reloaded();
            }
            Answer::Replaced(Err(error)) => {
                self.store_failed(state, &error);
                self.service_manager.reloaded();
            }
            Answer::Ends(result) => {
                let wanted_again = state.asking_ends.end();
                match result {
                    Ok((ends, last, more)) => {
                        if state.watched.is_some() {
                            state.watched = Some(last);
                        }
                        for end in ends {
                            self.watchers.tell(end);
                        }
                        if more || wanted_again {
                            self.ask_ends(state);
                        }
                    }
                    Err(error) => self.ask_again_later(state, &error),
                }
            }
            Answer::Purged(Ok(rows)) => {
                tracing::debug!(rows, "old jobs and audit lines deleted");
                state.purge_at = Instant::now() + PURGE_SLICES;
            }
            Answer::Memory(Err(error), _) | Answer::Purged(Err(error)) | Answer::Waits(Err(error)) => {
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

    fn administer(&mut self, state: &mut State, request: Request, reply: oneshot::Sender<Response>) {
        let by = match request.by().map(answers::name_of).transpose() {
            Ok(by) => by.unwrap_or_default(),
            Err(refused) => {
                // Whoever asked may have gone.
                let _ = reply.send(refused);
                return;
            }
        };
        let now = self.time.now();
        let answer: Reply = match request {
            Request::Watch { job_id } => {
                let cards = state.cards.clone();
                let begun =
                    self.queue.submit(move |queue: &mut Queue| answers::watching(queue, now, job_id, &cards));
                state.tasks.push(Box::pin(async move {
                    match committed(begun).await {
                        Ok((response, seen)) => {
                            tell(reply, Ok(response));
                            Answer::Watching(seen)
                        }
                        Err(error) => {
                            tell(reply, Err(error));
                            Answer::Told
                        }
                    }
                }));
                return;
            }
            Request::Status => {
                let (config, dispatch) = (&self.config, &self.dispatch);
                let cloud = self.link.settings.borrow().url();
                let report = answers::status(
                    config,
                    cloud,
                    self.started,
                    now,
                    &state.link,
                    dispatch,
                    &state.conditions,
                );
                let acknowledged = state.acknowledged;
                self.looked(move |queue| {
                    queue.acknowledged(acknowledged);
                    Ok(Response::Status(Box::new(answers::with_queue(report, queue)?)))
                })
            }
            Request::Jobs { state, lane, limit } => self.looked(move |queue| {
                let limit = usize::from(limit).min(MOST_JOBS);
                let (jobs, more) = answers::jobs(queue, state, lane.as_ref(), limit)?;
                Ok(Response::Jobs { jobs, more })
            }),
            Request::Job { job_id } => self.looked(move |queue| {
                Ok(match answers::job(queue, job_id)? {
                    Some(job) => Response::Job(Box::new(job)),
                    None => answers::no_such_job(job_id),
                })
            }),
            Request::Grants { name, limit } => self.looked(move |queue| {
                let limit = usize::from(limit).min(MOST_JOBS);
                answers::grants(queue, name.as_deref(), limit)
            }),
            Request::Encode { card, .. } => {
                let encoded = self.dispatch.encode(*card, &by);
                Box::pin(async move { Ok(answers::encoded(committed(encoded).await?)) })
            }
            Request::MakeGrant { grant, .. } => {
                let systems = self.inventory().systems;
                let made = self.dispatch.make_grant(*grant, systems, &by);
                self.granted(made)
            }
            Request::RevokeGrant { name, .. } => {
                let revoked = self.dispatch.revoke_grant(name, &by);
                self.ask_barred(state);
                self.granted(revoked)
            }
            Request::Audit { before, limit } => {
                self.looked(move |queue| answers::audit(queue, before, usize::from(limit).min(MOST_JOBS)))
            }
            Request::Slots { system } => self.looked(move |queue| answers::slots(queue, system.as_ref())),
            Request::Lanes => {
                let lanes = answers::lanes(self.time.now(), &self.dispatch);
                self.looked(move |queue| {
                    Ok(Response::Lanes { lanes: answers::lanes_with_queue(lanes, queue)? })
                })
            }
            Request::Resolve { job_id, verdict, .. } => {
                self.asked(move |queue| answers::resolve(queue, now, job_id, verdict, &by))
            }
            Request::Cancel { job_id, .. } => self.cancel(job_id, &by),
            Request::Confirm { job_id, .. } => {
                let confirmed = self.dispatch.confirm(job_id, &by);
                Box::pin(async move {
                    Ok(answers::confirmed(job_id, committed(confirmed).await?, Response::Confirmed))
                })
            }
            Request::Decline { job_id, .. } => {
                let declined = self.dispatch.decline(job_id, &by);
                Box::pin(async move {
                    Ok(answers::confirmed(job_id, committed(declined).await?, Response::Declined))
                })
            }
            Request::Retry { job_id, not_done, .. } => {
                let retried = match not_done {
                    true => self.dispatch.resolve_and_retry(job_id, &by),
                    false => self.dispatch.retry(job_id, &by),
                };
                Box::pin(async move { Ok(answers::retried(job_id, committed(retried).await?)) })
            }
            Request::Add { job, .. } => self.add(*job, by),
            Request::PauseLane { lane, .. } => {
                self.after_lane(lane, |dispatch, lane| dispatch.pause(lane, &by))
            }
            Request::ResumeLane { lane, .. } => {
                self.after_lane(lane, |dispatch, lane| dispatch.resume(lane, &by))
            }
        };
        state.tasks.push(Box::pin(async move {
            tell(reply, answer.await);
            Answer::Told
        }));
    }

    /// What is seen in the queue, without disturbing its writer.
    fn looked(
        &self,
        question: impl FnOnce(&mut QueueReader) -> Result<Response, StoreError> + Send + 'static,
    ) -> Reply {
        Box::pin(committed(self.file.reader.submit(question)))
    }

    /// What the queue answers.
    fn asked(
        &self,
        question: impl FnOnce(&mut Queue) -> Result<Response, StoreError> + Send + 'static,
    ) -> Reply {
        Box::pin(committed(self.queue.submit(question)))
    }

    /// How a grant stands that a person made or took back.
    fn granted(&self, done: dispatch::Reply<Result<DesiredGrant, GrantRefused>>) -> Reply {
        let queue = self.queue.clone();
        Box::pin(async move {
            let done = committed(done).await?;
            committed(queue.submit(move |queue: &mut Queue| answers::granted(queue, done))).await
        })
    }

    /// Takes a job back, by a person's word.
    fn cancel(&mut self, job_id: JobId, by: &str) -> Reply {
        let queue = self.queue.clone();
        let answer = self.dispatch.cancel_local(job_id, by);
        Box::pin(async move {
            let answer = committed(answer).await?;
            let told = queue.submit(move |queue: &mut Queue| answers::cancelled(queue, job_id, answer));
            committed(told).await
        })
    }

    /// Takes a person's own job.
    fn add(&mut self, wanted: NewJob, by: String) -> Reply {
        let (now, queue) = (self.time.now(), self.queue.clone());
        let job_id = wanted.job_id.unwrap_or_else(|| JobId(self.random.uuid_at(now)));
        let job = answers::new_job(now, job_id, wanted);
        let answer = self.dispatch.local(LocalOrder { job, origin: Origin::Person, retries: None });
        Box::pin(async move {
            let accepted = committed(answer).await?;
            if accepted != Accepted::Duplicate {
                let noted = queue.submit(move |queue: &mut Queue| queue.note_ordered_here(now, job_id, &by));
                committed(noted).await?;
            }
            Ok(answers::added(job_id, accepted))
        })
    }

    /// Changes a lane, and tells how it stands then.
    fn after_lane<T: Send + 'static>(
        &mut self,
        lane: LaneName,
        change: impl FnOnce(&mut Dispatch, &LaneName) -> oneshot::Receiver<Result<T, StoreError>>,
    ) -> Reply {
        if !self.dispatch.lanes().has(&lane) {
            let refused = answers::no_such_lane(&lane, &self.dispatch);
            return Box::pin(async move { Ok(refused) });
        }
        let changed = change(&mut self.dispatch, &lane);
        let mut lanes = answers::lanes(self.time.now(), &self.dispatch);
        lanes.retain(|report| report.lane == lane);
        let queue = self.queue.clone();
        Box::pin(async move {
            committed(changed).await?;
            let lanes = queue.submit(move |queue: &mut Queue| {
                Ok(Response::Lanes { lanes: answers::lanes_with_queue(lanes, queue)? })
            });
            committed(lanes).await
        })
    }

    /// Reads the configuration again, beside all other work.
    fn reread(&self, state: &mut State) {
        let Some(reload) = &self.reload else { return };
        if !state.rereading.begin() {
            return;
        }
        tracing::info!(file = %reload.path.display(), "reading the configuration again");
        self.service_manager.reloading();
        let (path, own) = (reload.path.clone(), self.own.clone());
        let read = tokio::task::spawn_blocking(move || reload::read(&path, own.as_ref()));
        state.tasks.push(Box::pin(async move {
            let broke_down = |error| Err(vec![format!("reading the configuration broke down: {error}")]);
            Answer::Reread(read.await.unwrap_or_else(broke_down).map(Box::new))
        }));
    }

    fn not_taken_over(&self, state: &mut State, mistakes: &[String]) {
        for mistake in mistakes {
            tracing::error!(mistake, "the configuration is wrong; the one before stays in force");
        }
        let first = mistakes.first().map_or("", String::as_str);
        let more = match mistakes.len() {
            0 | 1 => String::new(),
            count => format!(" ({} more: see `latchd check-config`)", count - 1),
        };
        let message = format!(
            "the configuration is wrong, and the one before stays in force: {first}{more}; mend the file and reload"
        );
        state.conditions.set(self.time.now(), "config", "config_invalid", Severity::Error, message);
        self.tell_status(state);
        self.service_manager.reloaded();
    }

    /// Goes on with another configuration, as far as that can be without a restart.
    fn take_over(&mut self, state: &mut State, reload::Read { config: new, paired }: reload::Read) {
        if let (Some(own), Some((pairing, settings))) = (&self.own, paired) {
            let is_same = pairing.bridge_id == own.pairing.bridge_id;
            match pairing.certificate == own.pairing.certificate {
                true => self.go_on_as(state, pairing, settings),
                // It was read before a renewal ended that is in force already.
                false if is_same && pairing.issued_at < own.pairing.issued_at => self.reread(state),
                false => self.take_over_pairing(state, pairing, settings),
            }
        }
        let Some(reload) = &self.reload else { return };
        let now = self.time.now();
        let restart = reload::needs_restart(&self.config, &new);
        state.conditions.clear_subject("config");
        if !restart.is_empty() {
            let message = format!("restart the agent to change {}", restart.join(", "));
            tracing::warn!(settings = restart.join(", "), "these settings take a restart");
            state.conditions.set(now, "config", "restart_needed", Severity::Warning, message);
        }
        let unchanged = reload::unchanged(&self.config, &new);
        for system in &self.config.systems {
            if !unchanged.contains(&system.name) {
                tracing::info!(system = %system.name, "system removed or changed");
                state.conditions.clear_subject(system.name.as_str());
            }
        }
        let zone = TimeZone::get(&new.site.time_zone).unwrap_or(TimeZone::UTC);
        let busy = |name: &SystemName| {
            let busy = |lane: LaneView<'_>| lane.system == name && matches!(lane.state, LaneState::Busy(_));
            self.dispatch.lanes().iter().any(busy)
        };
        let driver = |system: &SystemConfig| match self.dispatch.drivers().get(&system.name) {
            Some(same) if unchanged.contains(&system.name) => Arc::clone(same),
            _ if busy(&system.name) => (reload.start)(system, &zone, Past::AnswerMayCome),
            _ => (reload.start)(system, &zone, Past::Answered),
        };
        let drivers = new.systems.iter().map(driver).collect();
        let rules = Rules::from(&new);
        self.config = reload::in_force(&self.config, new);
        let replaced = self.dispatch.replace(drivers, rules);
        state.tasks.push(Box::pin(async move { Answer::Replaced(committed(replaced).await) }));
        state.uplink.inventory(self.inventory());
        self.tell_status(state);
        // There may be room for more, or less.
        self.ask_orders_limit(state);
    }

    /// The site was paired anew. Its cloud orders nothing before the queue knows what it knew of the doors.
    fn take_over_pairing(&self, state: &mut State, mut pairing: Pairing, settings: Settings) {
        let Some(own) = &self.own else { return };
        tracing::info!(bridge = %pairing.bridge_id, workspace = pairing.workspace, "the site was paired anew");
        let (queue, seal, path) = (self.queue.clone(), own.seal.clone(), Pairing::path(&self.config));
        let now = self.time.now();
        state.tasks.push(Box::pin(async move {
            let taken = take_ledger(&queue, &mut pairing, &path, &seal, now).await;
            Answer::PairedAnew(Box::new((pairing, settings)), taken)
        }));
    }

    /// From the next connection on, the agent is who this pairing says; a connection as somebody else ends.
    fn go_on_as(&mut self, state: &mut State, pairing: Pairing, settings: Settings) {
        state.link.paired = Some((pairing.bridge_id, pairing.expires_at));
        if let Some(own) = &mut self.own {
            own.pairing = pairing;
        }
        self.link.settings.send_replace(settings);
        self.tell_renewal(state);
    }

    fn life(&self) -> Option<Life> {
        let Pairing { issued_at, expires_at, .. } = self.own.as_ref()?.pairing;
        Some(Life { issued_at, expires_at })
    }

    fn renew_at(&self, state: &State) -> Option<Instant> {
        state.renewal.at(self.life()?, self.time.cloud_now(), Instant::now())
    }

    /// Asks for the next certificate if it is time.
    fn renew(&self, state: &mut State) {
        let (Some(own), Some(life)) = (&self.own, self.life()) else { return };
        if !state.renewal.begin(life, self.time.cloud_now(), Instant::now()) {
            return;
        }
        tracing::info!(until = %life.expires_at, "asking for the next certificate");
        let renewing = renewal::renew(own.clone(), self.config.clone());
        state.tasks.push(Box::pin(async move { Answer::Renewed(renewing.await.map(Box::new)) }));
    }

    fn renewed(&mut self, state: &mut State, renewed: Result<Box<(Pairing, Settings)>, Failed>) {
        let now = Instant::now();
        match renewed {
            Ok(renewed) => {
                let (pairing, settings) = *renewed;
                let life = Life { issued_at: pairing.issued_at, expires_at: pairing.expires_at };
                tracing::info!(until = %life.expires_at, "the certificate was renewed");
                state.renewal.succeeded(life, now);
                self.go_on_as(state, pairing, settings);
            }
            Err(failed) if failed.is_replaced => {
                state.renewal.set_aside(now);
                self.reread(state);
            }
            Err(failed) => {
                tracing::warn!(error = failed.why, "the certificate was not renewed");
                if let Some(life) = self.life() {
                    state.renewal.failed(&failed, life, now);
                }
                self.tell_renewal(state);
            }
        }
        self.tell_status(state);
    }

    /// Says that the certificate is not renewed once that has become serious.
    fn tell_renewal(&self, state: &mut State) {
        const CODE: &str = "pairing_not_renewed";
        let trouble = self.life().and_then(|life| state.renewal.trouble(life, self.time.cloud_now()));
        match trouble {
            Some((is_over, message)) => {
                let severity = if is_over { Severity::Error } else { Severity::Warning };
                state.conditions.set(self.time.now(), "pairing", CODE, severity, message);
            }
            None => state.conditions.clear("pairing", CODE),
        }
    }

    fn store_failed(&self, state: &mut State, error: &StoreError) {
        tracing::error!(error = %error, "the queue could not be read or written");
        let message = format!("the queue cannot be read or written ({error}): free space or mend the disk");
        state.conditions.set(self.time.now(), "store", "store_failed", Severity::Error, message);
        self.tell_status(state);
    }

    fn inventory(&self) -> Inventory {
        let configured = |system: &SystemName, wants: fn(&SystemConfig) -> bool| {
            self.config.systems.iter().find(|configured| configured.name == *system).is_some_and(wants)
        };
        let system = |driver: &Arc<dyn Driver>| {
            let name = driver.system();
            let mut system = SystemInventory {
                checkout_on_last_grant: configured(name, |it| it.checkout == Checkout::LastGrant),
                override_after_deleted_card: configured(name, |it| {
                    it.after_deleted_card == AfterDeletedCard::Override
                }),
                ..driver.inventory()
            };
            let unlocks = system.capabilities.unlock.is_some();
            for device in &mut system.devices {
                device.remote_unlock = unlocks.then_some(self.config.limits.remote_unlock);
            }
            system
        };
        Inventory { systems: self.dispatch.drivers().values().map(system).collect() }
    }
}

/// Says which rooms' states are not this queue's own memory, until the next start.
fn ledger_imported(state: &mut State, now: Timestamp, imported: Imported) {
    let Imported { rooms, uncertain, kept: _ } = imported;
    if rooms == 0 {
        return;
    }
    let (severity, word) = match uncertain {
        0 => (Severity::Notice, String::new()),
        _ => (
            Severity::Warning,
            format!(
                "; nobody vouches for {uncertain} of them: there, no further card of the present stay is made, and the \
                 next stay begins as usual"
            ),
        ),
    };
    let message =
        format!("the state of {rooms} rooms was taken over from the bridge that this one replaces{word}");
    state.conditions.set(now, "memory", "ledger_imported", severity, message);
}

async fn committed<T>(
    answer: impl Future<Output = Result<Result<T, StoreError>, oneshot::error::RecvError>>,
) -> Result<T, StoreError> {
    answer.await.unwrap_or(Err(StoreError::Stopped))
}

/// Waits until damage is found.
async fn found(damage: &mut Option<oneshot::Receiver<String>>) -> String {
    if let Some(looking) = damage {
        let found = looking.await;
        *damage = None;
        if let Ok(what) = found {
            return what;
        }
    }
    std::future::pending().await
}

/// Answers whoever asked; they may have gone.
fn tell(reply: oneshot::Sender<Response>, answer: Result<Response, StoreError>) {
    let answer = answer.unwrap_or_else(|error| Response::refused("unavailable", error.chain()));
    let _ = reply.send(answer);
}

/// Waits for the wish to have the configuration read again.
async fn hung_up(reload: &mut Option<Reload>) {
    if let Some(reload) = reload
        && reload.hangups.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
