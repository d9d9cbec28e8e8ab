//! The core over a real queue file, between a link and a driver that do what the test says.

use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::{
    drivers::{Performed, ProgressSink, Work},
    model::{
        AccessMethodId, Admission, BridgeId, Capabilities, CardEncode, DoorName, EncoderName, Job, JobId,
        JobState, LaneName, Order, Outcome, Priority, Refusal, ReservationKey, Success, SystemKind, Window,
    },
    queue::{Past, Rules, Sharing},
    seal::SealKey,
    seams::{BoxFuture, Clock, Random, Storage},
    store::{Reserve, Store, Writer},
};

/// A driver with one lane, whose line is open; each job waits until the test says what came of it.
struct Scripted {
    line: tokio::sync::watch::Sender<Line>,
    begun: mpsc::UnboundedSender<(Work, oneshot::Sender<Performed>)>,
}

impl Driver for Scripted {
    fn system(&self) -> &SystemName {
        static SYSTEM: std::sync::OnceLock<SystemName> = std::sync::OnceLock::new();
        SYSTEM.get_or_init(system)
    }

    fn inventory(&self) -> SystemInventory {
        SystemInventory {
            name: system(),
            kind: SystemKind::SaltoIs,
            time_zone: "Europe/Oslo".into(),
            capabilities: Capabilities {
                r#override: None,
                join: None,
                future_start: None,
                checkout: None,
                modify_stay: None,
                read_card: None,
                open_end: None,
                slots: None,
                unlock: None,
                chip_numbers: None,
                max_rooms: 1,
                max_common: 0,
                answer_means_written: true,
                parallel_encoders: false,
            },
            checkout_on_last_grant: false,
            override_after_deleted_card: false,
            doors: Vec::new(),
            encoders: Vec::new(),
            devices: Vec::new(),
        }
    }

    fn lanes(&self) -> Vec<LaneName> {
        vec![LaneName::new("desk").unwrap()]
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        let Order::CardEncode(card) = order else { unreachable!("cards only") };
        Ok(Admission::to(LaneName::new("desk").unwrap(), card.doors.clone()))
    }

    fn line(&self) -> tokio::sync::watch::Receiver<Line> {
        self.line.subscribe()
    }

    fn perform<'a>(&'a self, work: Work, _progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            self.begun.send((work, done)).unwrap();
            answer.await.unwrap()
        })
    }

    fn stop(&self) {}
}

/// The world around a core that runs.
struct World {
    queue: WriterHandle<Queue>,
    begun: mpsc::UnboundedReceiver<(Work, oneshot::Sender<Performed>)>,
    events: mpsc::Sender<link::Event>,
    frames: mpsc::Receiver<(u64, Frame)>,
    stop: mpsc::Sender<()>,
    core: tokio::task::JoinHandle<io::Result<()>>,
    tell_damage: Option<oneshot::Sender<String>>,
    questions: mpsc::Sender<Question>,
    folder: tempfile::TempDir,
    _writer: Writer,
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn noon() -> Timestamp {
    time("2026-11-22T12:00:00Z")
}

fn system() -> SystemName {
    SystemName::new("house").unwrap()
}

fn at(epoch: u64, n: u64) -> Position {
    Position { epoch, n }
}

fn id(number: u128) -> JobId {
    JobId(uuid::Uuid::from_u128(number))
}

fn job(number: u128, room: &str) -> Job {
    Job {
        job_id: id(number),
        system: system(),
        priority: Priority::Desk,
        created_at: noon(),
        expires_at: time("2026-11-22T12:10:00Z"),
        order: Order::CardEncode(CardEncode {
            encoder: EncoderName::new("1").unwrap(),
            doors: vec![DoorName::new(room).unwrap()],
            reservation_key: Some(ReservationKey::new(format!("stay-{room}")).unwrap()),
            window: Window::new(noon(), Some(time("2026-11-24T10:00:00Z"))).unwrap(),
            access_method_id: AccessMethodId(uuid::Uuid::from_u128(number)),
            guest_name: None,
            card_wait_seconds: 60,
            begin_again: false,
        }),
    }
}

fn written() -> Outcome {
    Outcome::Succeeded(Success::default())
}

fn config() -> AgentConfig {
    let text = r#"
        stop_deadline = "5s"
        [site]
        name = "Hotel"
        time_zone = "Europe/Oslo"
        [cloud]
        url = "wss://cloud.example"
        [storage]
        folder = "queue"
        [[system]]
        name = "house"
        kind = "salto_is"
        exclusive = true
        line = { tcp = "salto.lan:8090" }
        encoders = ["1"]
        rooms = ["101", "102"]
    "#;
    AgentConfig::from_toml(Path::new("/etc/latchd/latchd.toml"), text)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

/// Long enough for any machine; what is waited for comes within two seconds.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it happens soon")
}

impl World {
    fn new() -> Self {
        Self::begin(noon(), |_| {})
    }

    /// A core that starts at `now` with what `before` left in the queue.
    fn begin(now: Timestamp, before: impl FnOnce(&mut Queue)) -> Self {
        Self::on_a_disk(now, || u64::MAX, before)
    }

    /// The same, on a disk that has so many bytes free.
    fn on_a_disk(
        now: Timestamp,
        free: impl Fn() -> u64 + Send + Sync + 'static,
        before: impl FnOnce(&mut Queue),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let random = Random::seeded(1);
        let config = config();
        let rules = Rules {
            limits: config.limits.clone(),
            systems: BTreeMap::from([(system(), Sharing::Exclusive)]),
            ..Rules::default()
        };
        let seal = SealKey::new([1; 32], random.clone());
        let mut queue = Queue::open(&Storage::folder(folder.path()), seal, random, rules).unwrap();
        before(&mut queue);
        let storage = Storage::folder(folder.path()).with_free(free);
        let reserve = Reserve::new(storage.clone(), 4096);
        let (writer, queue) = Writer::start_with("queue", queue, Some(reserve));
        let (tell_damage, damage) = oneshot::channel();
        let (of_reader, rules) = (storage.clone(), Rules::default());
        let reader = ReaderHandle::new("reader", move || {
            let random = Random::seeded(1);
            QueueReader::open(&of_reader, SealKey::new([1; 32], random.clone()), random, rules.clone())
        });
        let file = QueueFile { storage, reader, damage: Some(damage), salvage: None, is_restored: false };
        let (begins, begun) = mpsc::unbounded_channel();
        let driver = Scripted { line: tokio::sync::watch::channel(Line::Ready).0, begun: begins };
        let trusted = TrustedTime::new(Clock::simulated(now));
        let dispatch = Dispatch::new(queue.clone(), trusted.clone(), vec![Arc::new(driver)], Past::default());
        let (events, agent_events) = mpsc::channel(64);
        let (agent_frames, frames) = mpsc::channel(64);
        let (questions, requests) = mpsc::channel(1);
        let (stop, stopped) = mpsc::channel(2);
        let core = Core {
            config,
            queue: queue.clone(),
            file,
            health: queue.health(),
            dispatch,
            link: Link {
                events: agent_events,
                frames: agent_frames,
                settings: watch::Sender::new(link::of_nobody("wss://cloud.lan").unwrap()),
                at_once: Arc::default(),
            },
            time: trusted,
            random: Random::seeded(2),
            requests,
            watchers: Watchers::default(),
            reload: None,
            own: None,
            stop: stopped,
            service_manager: ServiceManager::from_environment(),
            started: now,
        };
        let core = tokio::spawn(core.run());
        Self {
            queue,
            begun,
            events,
            frames,
            stop,
            core,
            tell_damage: Some(tell_damage),
            questions,
            folder,
            _writer: writer,
        }
    }

    /// Connects as the cloud would welcome it; gives what the agent had said.
    async fn connects(&self, connection: u64, orders: Position, reports: Position) -> Memory {
        let (ask, memory) = oneshot::channel();
        self.events.send(link::Event::Connecting(ask)).await.unwrap();
        let memory = soon(memory).await.unwrap();
        self.welcomes(connection, orders, reports).await;
        memory
    }

    async fn welcomes(&self, connection: u64, orders: Position, reports: Position) {
        self.welcomes_at(None, connection, orders, reports).await;
    }

    /// Welcomes an agent whose memory the cloud finds behind its own.
    async fn finds_behind(&self, connection: u64, orders: Position) {
        let (ask, memory) = oneshot::channel();
        self.events.send(link::Event::Connecting(ask)).await.unwrap();
        soon(memory).await.unwrap();
        let reason = Some(EpochReason::ReceiverBehind);
        let welcome = Welcome { orders_epoch_reason: reason, ..Self::welcome(orders, at(0, 0)) };
        self.events.send(link::Event::Up { connection, welcome, further: None }).await.unwrap();
    }

    /// Welcomes at an address that is not the preferred one.
    async fn welcomes_at(&self, further: Option<&str>, connection: u64, orders: Position, reports: Position) {
        let welcome = Self::welcome(orders, reports);
        self.events
            .send(link::Event::Up { connection, welcome, further: further.map(Into::into) })
            .await
            .unwrap();
    }

    fn welcome(orders: Position, reports: Position) -> Welcome {
        Welcome {
            version: 1,
            bridge_id: BridgeId(uuid::Uuid::nil()),
            workspace: "Hotel".into(),
            time: noon(),
            orders_resume_after: orders,
            reports_received: reports,
            reports_limit: reports.n + 100,
            orders_epoch_reason: None,
            cloud_keys: Vec::new(),
        }
    }

    async fn parts(&self) {
        let trouble = link::Trouble { code: "link_closed", message: "closed".into() };
        self.events.send(link::Event::Down(trouble)).await.unwrap();
    }

    async fn orders(&self, connection: u64, position: Position, job: Job) {
        let frame = Frame::Envelope(Envelope::at(position, &Message::Job(job)));
        self.events.send(link::Event::Frame { connection, frame }).await.unwrap();
    }

    /// Waits for a job to begin and ends it.
    async fn does(&mut self, number: u128) {
        let (work, done) = soon(self.begun.recv()).await.unwrap();
        assert_eq!(work.job_id, id(number));
        done.send(Performed::Ended(written())).unwrap();
    }

    /// The next frame for this connection that `wanted` takes something from.
    async fn says<T>(&mut self, connection: u64, wanted: impl Fn(Frame) -> Option<T>) -> T {
        loop {
            let (meant_for, frame) = soon(self.frames.recv()).await.unwrap();
            if meant_for == connection
                && let Some(found) = wanted(frame)
            {
                return found;
            }
        }
    }

    /// The next report: its place and its job.
    async fn reports(&mut self, connection: u64) -> (Position, JobId) {
        self.says(connection, |frame| {
            let Frame::Envelope(envelope) = frame else { return None };
            match (envelope.position, envelope.message()) {
                (Some(position), Ok(Message::Outcome(report))) => Some((position, report.job_id)),
                _ => None,
            }
        })
        .await
    }

    async fn acknowledges(&self, connection: u64, position: Position) {
        let message = Message::Acknowledgement { stream: StreamName::Reports, position };
        let frame = Frame::Envelope(Envelope::loose(&message));
        self.events.send(link::Event::Frame { connection, frame }).await.unwrap();
    }

    /// Waits until the core has taken all events, so that what it asked of the queue is under way.
    async fn heard(&self) {
        let all = async {
            while self.events.capacity() < self.events.max_capacity() {
                tokio::task::yield_now().await;
            }
        };
        soon(all).await;
    }

    /// Lets the queue answer nothing until the sender that this gives is used or dropped.
    fn holds_the_queue(&self) -> std::sync::mpsc::Sender<()> {
        let (go, held) = std::sync::mpsc::channel();
        drop(self.queue.submit(move |_: &mut Queue| Ok(held.recv().is_ok())));
        go
    }

    async fn sql(&self, text: &'static str) {
        self.queue.run(move |queue| Ok(queue.connection().execute_batch(text)?)).await.unwrap();
    }

    async fn asks(&self, request: Request) -> Response {
        let (way_back, answer) = oneshot::channel();
        self.questions.send((request, way_back)).await.unwrap();
        soon(answer).await.unwrap()
    }

    async fn unacknowledged(&self) -> u64 {
        let Response::Status(status) = self.asks(Request::Status).await else { panic!("it is a status") };
        status.unacknowledged
    }

    /// Waits until the cloud is told conditions with or without this one.
    async fn tells(&mut self, connection: u64, code: &str, holds: bool) {
        let told = |frame| match frame {
            Frame::Status(status) => {
                (status.conditions.iter().any(|held| held.code == code) == holds).then_some(())
            }
            _ => None,
        };
        self.says(connection, told).await;
    }

    /// Waits until a person is shown this condition, or is no longer.
    async fn shows(&self, code: &str, holds: bool) {
        let shown = async {
            loop {
                let Response::Status(status) = self.asks(Request::Status).await else {
                    panic!("it is a status")
                };
                if status.conditions.iter().any(|held| held.code == code) == holds {
                    return;
                }
            }
        };
        soon(shown).await;
    }

    async fn state(&self, number: u128) -> Option<JobState> {
        let job = self.queue.run(move |queue| queue.job(id(number))).await.unwrap();
        job.map(|job| job.view.state)
    }
}

#[tokio::test]
async fn a_report_is_sent_until_it_is_acknowledged_and_never_again() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    world.does(1).await;
    assert_eq!(world.reports(1).await, (at(1, 1), id(1)));
    world.parts().await;
    let hello = world.connects(2, at(1, 1), at(0, 0)).await;
    assert_eq!((hello.orders_received, hello.reports_sent), (at(1, 1), at(1, 1)));
    assert_eq!(world.reports(2).await, (at(1, 1), id(1)));
    world.acknowledges(2, at(1, 1)).await;
    world.parts().await;
    let hello = world.connects(3, at(1, 1), at(1, 1)).await;
    assert_eq!(hello.reports_acknowledged, at(1, 1));
    world.orders(3, at(1, 2), job(2, "102")).await;
    world.does(2).await;
    assert_eq!(world.reports(3).await, (at(1, 2), id(2)));
}

#[tokio::test]
async fn a_report_that_the_cloud_says_it_holds_waits_no_more_though_nobody_acknowledged_it() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    world.does(1).await;
    assert_eq!(world.reports(1).await, (at(1, 1), id(1)));
    world.parts().await;
    world.connects(2, at(1, 1), at(1, 1)).await;
    world.parts().await;
    let hello = world.connects(3, at(1, 1), at(1, 1)).await;
    assert_eq!(hello.reports_acknowledged, at(1, 1));
    assert_eq!(world.queue.run(|queue| queue.counts()).await.unwrap().reports_waiting, 0);
}

#[tokio::test]
async fn an_order_is_acknowledged_when_it_is_durable() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    let acknowledged = world
        .says(1, |frame| match frame {
            Frame::Envelope(envelope) => envelope.message().ok(),
            _ => None,
        })
        .await;
    assert_eq!(acknowledged, Message::Acknowledgement { stream: StreamName::Orders, position: at(1, 1) });
    assert_eq!(world.state(1).await, Some(JobState::Sent));
}

#[tokio::test]
async fn nothing_is_said_to_a_connection_that_was_gone_before_the_queue_had_answered() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.says(1, |frame| matches!(frame, Frame::Status(_)).then_some(())).await;
    world.parts().await;
    let go = world.holds_the_queue();
    world.welcomes(2, at(1, 0), at(0, 0)).await;
    world.parts().await;
    world.heard().await;
    go.send(()).unwrap();
    world.connects(3, at(1, 0), at(0, 0)).await;
    let said = async {
        while let Some((meant_for, _)) = world.frames.recv().await
            && meant_for != 3
        {
            assert_ne!(meant_for, 2);
        }
    };
    soon(said).await;
    world.orders(2, at(1, 1), job(1, "101")).await;
    world.orders(3, at(1, 1), job(2, "102")).await;
    world.does(2).await;
    assert_eq!(world.reports(3).await, (at(1, 1), id(2)));
}

#[tokio::test]
async fn a_cloud_that_remembers_more_reports_than_were_sent_is_given_them_in_a_new_epoch() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    world.does(1).await;
    assert_eq!(world.reports(1).await, (at(1, 1), id(1)));
    world.parts().await;
    world.connects(2, at(1, 1), at(5, 3)).await;
    assert_eq!(world.reports(2).await, (at(6, 1), id(1)));
    // One of the old epoch proves nothing about the new one.
    world.acknowledges(2, at(1, 1)).await;
    world.parts().await;
    world.connects(3, at(1, 1), at(5, 3)).await;
    assert_eq!(world.reports(3).await, (at(6, 1), id(1)));
}

#[tokio::test]
async fn an_agent_whose_orders_begin_anew_doubts_its_rooms_even_if_nobody_said_why() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    world.does(1).await;
    world.reports(1).await;
    world.parts().await;
    world.connects(2, at(2, 0), at(1, 1)).await;
    let conditions = world
        .says(2, |frame| match frame {
            Frame::Status(status) => Some(status.conditions),
            _ => None,
        })
        .await;
    assert!(conditions.iter().any(|condition| condition.code == "memory_behind"), "{conditions:?}");
    let rooms = world.queue.run(|queue| queue.rooms(None)).await.unwrap();
    assert!(rooms.iter().all(|room| !room.certain), "{rooms:?}");
    world.parts().await;
    let hello = world.connects(3, at(2, 0), at(1, 1)).await;
    assert_eq!(hello.orders_received, at(2, 0));
}

#[tokio::test]
async fn an_agent_that_begins_where_another_one_ended_says_so_and_not_that_it_forgot_anything() {
    let mut world = World::new();
    world.finds_behind(1, at(2, 0)).await;
    world.shows("memory_new", true).await;
    let Response::Status(status) = world.asks(Request::Status).await else { panic!("it is a status") };
    assert!(status.conditions.iter().all(|condition| condition.code != "memory_behind"), "{status:?}");
    // The same agent, once it has a past. What was made before both met may have been done from another memory.
    let later = Job { created_at: time("2026-11-22T12:00:01Z"), ..job(1, "101") };
    world.orders(1, at(2, 1), later).await;
    world.does(1).await;
    world.parts().await;
    world.finds_behind(2, at(3, 0)).await;
    world.shows("memory_behind", true).await;
}

#[tokio::test]
async fn what_is_numbered_while_nobody_hears_is_remembered_as_that() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    let unheard_after = |queue: &mut Queue| {
        let unmet = "SELECT unmet_after FROM memory";
        Ok(queue.connection().query_row(unmet, [], |row| row.get::<_, Option<i64>>(0))?)
    };
    world.does(1).await;
    assert_eq!(world.reports(1).await, (at(1, 1), id(1)));
    assert_eq!(world.queue.run(unheard_after).await.unwrap(), None);
    world.orders(1, at(1, 2), job(2, "102")).await;
    let (_, done) = soon(world.begun.recv()).await.unwrap();
    world.parts().await;
    world.heard().await;
    done.send(Performed::Ended(written())).unwrap();
    soon(async { while world.state(2).await != Some(JobState::Succeeded) {} }).await;
    assert_eq!(world.queue.run(unheard_after).await.unwrap(), Some(1));
    world.connects(2, at(1, 2), at(1, 1)).await;
    assert_eq!(world.reports(2).await, (at(1, 2), id(2)));
    assert_eq!(world.queue.run(unheard_after).await.unwrap(), None);
}

#[tokio::test]
async fn every_connection_is_told_which_cards_wait_for_a_persons_word_until_none_does() {
    let mut world = World::begin(noon(), |queue| {
        queue.set_rules(Rules {
            limits: crate::config::Limits { confirm_remote_cards: true, ..Default::default() },
            systems: BTreeMap::from([(system(), Sharing::Exclusive)]),
            ..Rules::default()
        });
    });
    let awaits = |frame| match frame {
        Frame::Progress(progress) if progress.stage == Stage::WaitingForConfirmation => Some(progress.job_id),
        _ => None,
    };
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    assert_eq!(world.says(1, awaits).await, id(1));
    world.shows("confirmation_awaited", true).await;
    world.parts().await;
    world.connects(2, at(1, 1), at(0, 0)).await;
    assert_eq!(world.says(2, awaits).await, id(1));
    let by = || "Kari".to_owned();
    let response = world.asks(Request::Confirm { job_id: id(1), by: by() }).await;
    assert_eq!(response, Response::Confirmed);
    let goes_on = world
        .says(2, |frame| match frame {
            Frame::Progress(progress) => Some((progress.job_id, progress.stage)),
            _ => None,
        })
        .await;
    assert_eq!(goes_on, (id(1), Stage::Queued));
    world.does(1).await;
    assert_eq!(world.reports(2).await, (at(1, 1), id(1)));

    world.orders(2, at(1, 2), job(2, "102")).await;
    assert_eq!(world.says(2, awaits).await, id(2));
    assert_eq!(world.asks(Request::Decline { job_id: id(2), by: by() }).await, Response::Declined);
    assert_eq!(world.reports(2).await, (at(1, 2), id(2)));
    world.shows("confirmation_awaited", false).await;
    let late = world.asks(Request::Confirm { job_id: id(2), by: by() }).await;
    assert!(matches!(&late, Response::Refused { code, .. } if code == "not_awaited"), "{late:?}");
}

#[tokio::test]
async fn a_queue_that_cannot_say_how_to_go_on_ends_the_connection_and_the_next_one_works() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    world.does(1).await;
    world.reports(1).await;
    world.parts().await;
    world.sql("ALTER TABLE memory RENAME TO elsewhere").await;
    world.welcomes(2, at(1, 1), at(0, 0)).await;
    let code = world
        .says(2, |frame| match frame {
            Frame::Refused(refused) => Some(refused.code),
            _ => None,
        })
        .await;
    assert_eq!(code, RefusedCode::Restarting);
    world.parts().await;
    world.sql("ALTER TABLE elsewhere RENAME TO memory").await;
    world.connects(3, at(1, 1), at(0, 0)).await;
    assert_eq!(world.reports(3).await, (at(1, 1), id(1)));
}

#[tokio::test]
async fn an_outbox_that_could_not_be_read_is_read_again() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    let (_, done) = soon(world.begun.recv()).await.unwrap();
    // A report that is lost from view for as long as its table has another name.
    world.sql("ALTER TABLE report RENAME TO elsewhere").await;
    done.send(Performed::Ended(written())).unwrap();
    let failed = |frame| match frame {
        Frame::Status(status) => {
            status.conditions.iter().any(|held| held.code == "store_failed").then_some(())
        }
        _ => None,
    };
    world.says(1, failed).await;
    assert_eq!(world.state(1).await, Some(JobState::Sent));
    world.sql("ALTER TABLE elsewhere RENAME TO report").await;
    assert_eq!(world.reports(1).await, (at(1, 1), id(1)));
    assert_eq!(world.state(1).await, Some(JobState::Succeeded));
}

#[tokio::test]
async fn a_stop_waits_for_what_is_at_work_and_for_its_report() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    let (_, done) = soon(world.begun.recv()).await.unwrap();
    world.stop.send(()).await.unwrap();
    world.orders(1, at(1, 2), job(2, "102")).await;
    world.heard().await;
    done.send(Performed::Ended(written())).unwrap();
    soon(&mut world.core).await.unwrap().unwrap();
    assert_eq!(world.reports(1).await, (at(1, 1), id(1)));
    assert_eq!(world.state(2).await, None);
}

#[tokio::test]
async fn a_stop_without_a_connection_waits_for_nobody_and_keeps_the_report() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    let (_, done) = soon(world.begun.recv()).await.unwrap();
    world.parts().await;
    world.heard().await;
    world.stop.send(()).await.unwrap();
    done.send(Performed::Ended(written())).unwrap();
    soon(&mut world.core).await.unwrap().unwrap();
    let reports = world.queue.run(|queue| queue.reports_after(at(1, 0), 10)).await.unwrap();
    assert_eq!(reports.len(), 1);
}

#[tokio::test]
async fn a_second_signal_leaves_at_once_and_the_job_stays_sent() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    let (_, _done) = soon(world.begun.recv()).await.unwrap();
    world.stop.send(()).await.unwrap();
    world.stop.send(()).await.unwrap();
    soon(&mut world.core).await.unwrap().unwrap();
    assert_eq!(world.state(1).await, Some(JobState::Sent));
}

#[tokio::test]
async fn finished_jobs_are_deleted_after_their_time() {
    let world = World::begin(time("2026-12-30T12:00:00Z"), |queue| {
        let old = job(1, "101");
        let admission = Admission::to(LaneName::new("desk").unwrap(), Vec::new());
        queue.accept(noon(), None, old, Ok(admission), true).unwrap();
        queue.finish(noon(), id(1), written()).unwrap();
    });
    let gone = async {
        while world.state(1).await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(gone).await;
}

#[test]
fn what_happens_while_a_question_is_under_way_is_asked_afterwards() {
    let mut asking = Asking::default();
    assert!(asking.begin());
    assert!(!asking.end());
    assert!(asking.begin());
    assert!(!asking.begin());
    assert!(!asking.begin());
    assert!(asking.end());
    assert!(asking.begin());
    assert!(!asking.end());
}

#[tokio::test]
async fn whoever_looks_waits_for_no_writer_and_sees_what_was_written() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    world.does(1).await;
    world.reports(1).await;
    assert_eq!(world.unacknowledged().await, 1);
    // What was acknowledged is in the writer's memory only; its row goes with a later commit.
    world.acknowledges(1, at(1, 1)).await;
    world.heard().await;
    assert_eq!(world.unacknowledged().await, 0);
    let go = world.holds_the_queue();
    let Response::Job(job) = world.asks(Request::Job { job_id: id(1) }).await else { panic!("it is there") };
    assert_eq!(job.job.state, JobState::Succeeded);
    let listed = world.asks(Request::Jobs { state: None, lane: None, limit: 9 }).await;
    assert!(matches!(listed, Response::Jobs { jobs, .. } if jobs.len() == 1));
    drop(go);
}

#[tokio::test]
async fn damage_that_is_found_stops_the_agent_in_order_and_marks_the_file() {
    let mut world = World::new();
    world.connects(1, at(1, 0), at(0, 0)).await;
    world.orders(1, at(1, 1), job(1, "101")).await;
    let (_, done) = soon(world.begun.recv()).await.unwrap();
    world.tell_damage.take().unwrap().send("page 7 is torn".into()).unwrap();
    world.tells(1, "store_damaged", true).await;
    // What is at work may end, and nothing new begins.
    done.send(Performed::Ended(written())).unwrap();
    world.orders(1, at(1, 2), job(2, "102")).await;
    let why = soon(&mut world.core).await.unwrap().unwrap_err().to_string();
    assert!(why.contains("page 7 is torn"), "{why}");
    assert_eq!((world.state(1).await, world.state(2).await), (Some(JobState::Succeeded), None));
    let mark = std::fs::read_to_string(world.folder.path().join("queue.db.damaged")).unwrap();
    assert_eq!(mark, "page 7 is torn");
}

#[tokio::test]
async fn a_full_disk_is_a_condition_while_the_cloud_keeps_its_orders() {
    let free = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let left = Arc::clone(&free);
    let mut world = World::on_a_disk(noon(), move || left.load(std::sync::atomic::Ordering::SeqCst), |_| {});
    let hello = world.connects(1, at(1, 0), at(0, 0)).await;
    assert_eq!(hello.orders_limit, 0);
    world.tells(1, "disk_full", true).await;
    // One that comes all the same is not taken, and not lost: it has to be sent again.
    world.orders(1, at(1, 1), job(1, "101")).await;
    let refused = |frame| match frame {
        Frame::Refused(refused) => Some(refused.message),
        _ => None,
    };
    let message = world.says(1, refused).await;
    assert!(message.contains("disk is full"), "{message}");
    assert_eq!(world.state(1).await, None);
    world.parts().await;
    free.store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
    world.queue.health().wait_for(|health| health.disk == Disk::Room).await.unwrap();
    let hello = world.connects(2, at(1, 0), at(0, 0)).await;
    assert!(hello.orders_limit > 0 && hello.orders_received == at(1, 0));
    world.tells(2, "disk_full", false).await;
    world.orders(2, at(1, 1), job(1, "101")).await;
    world.does(1).await;
}

#[tokio::test]
async fn a_link_by_another_address_than_the_first_is_a_condition_while_it_stands() {
    let mut world = World::new();
    world.welcomes_at(Some("cloud-2.example:443"), 1, at(1, 0), at(0, 0)).await;
    world.tells(1, "link_on_further_address", true).await;
    world.parts().await;
    world.welcomes(2, at(1, 0), at(0, 0)).await;
    world.tells(2, "link_on_further_address", false).await;
}
