//! The dispatcher over a real queue file and a driver that does what the test says.

mod patience;

use std::{future::Future, sync::Mutex};

use tokio::sync::watch;

use super::*;
use crate::{
    config::Limits,
    drivers::{ProgressSink, Trouble},
    model::{
        AccessMethodId, CardEncode, DoorName, EncoderName, Job, JobState, Priority, ReservationKey,
        SystemInventory, Window,
    },
    queue::{Rules, Sharing},
    seal::SealKey,
    seams::{BoxFuture, Clock, Random, Storage},
    store::Writer,
};

/// A driver with one lane; each job waits until the test says what came of it.
struct Scripted {
    system: SystemName,
    line: watch::Sender<Line>,
    begun: mpsc::UnboundedSender<(Work, oneshot::Sender<Performed>)>,
    stopped: Mutex<bool>,
    rests: Mutex<Vec<Resting>>,
}

impl Driver for Scripted {
    fn system(&self) -> &SystemName {
        &self.system
    }

    fn inventory(&self) -> SystemInventory {
        unreachable!("the dispatcher lists nothing")
    }

    fn lanes(&self) -> Vec<LaneName> {
        vec![lane()]
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        match order {
            Order::CardEncode(card) => Ok(Admission::to(lane(), card.doors.clone())),
            _ => Err(Refusal::new(Code::Unsupported, "cards only")),
        }
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.line.subscribe()
    }

    fn rests(&self) -> Vec<Resting> {
        let now = Instant::now();
        self.rests.lock().unwrap().iter().filter(|resting| now < resting.until).cloned().collect()
    }

    fn perform<'a>(&'a self, work: Work, progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        Box::pin(async move {
            progress(Stage::WaitingForCard);
            let (done, answer) = oneshot::channel();
            self.begun.send((work, done)).unwrap();
            // A test that drops its end plays a driver with a bug.
            answer.await.expect("the test says what came of it")
        })
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap() = true;
    }
}

struct House {
    dispatch: Dispatch,
    queue: WriterHandle<Queue>,
    driver: Arc<Scripted>,
    clock: Clock,
    begun: mpsc::UnboundedReceiver<(Work, oneshot::Sender<Performed>)>,
    n: u64,
    _folder: tempfile::TempDir,
    _writer: Writer,
}

fn lane() -> LaneName {
    LaneName::new("desk").unwrap()
}

fn system() -> SystemName {
    SystemName::new("house").unwrap()
}

fn succeeded() -> Performed {
    Performed::Ended(Outcome::Succeeded(Success::default()))
}

fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let random = Random::seeded(1);
    let rules = Rules {
        limits: Limits::default(),
        systems: BTreeMap::from([(system(), Sharing::Exclusive)]),
        ..Rules::default()
    };
    let seal = SealKey::new([1; 32], random.clone());
    let queue = Queue::open(&Storage::folder(folder.path()), seal, random, rules).unwrap();
    let (writer, queue) = Writer::start("queue", queue);
    let (sender, begun) = mpsc::unbounded_channel();
    let driver = Arc::new(Scripted {
        system: system(),
        line: watch::channel(Line::Ready).0,
        begun: sender,
        stopped: Mutex::default(),
        rests: Mutex::default(),
    });
    let clock = Clock::simulated("2026-11-22T12:00:00Z".parse().unwrap());
    let time = TrustedTime::new(clock.clone());
    let dispatch =
        Dispatch::new(queue.clone(), time, vec![Arc::clone(&driver) as Arc<dyn Driver>], Past::default());
    House { dispatch, queue, driver, clock, begun, n: 0, _folder: folder, _writer: writer }
}

fn job(number: u128, room: &str) -> Job {
    let at = |text: &str| text.parse().unwrap();
    Job {
        job_id: JobId(uuid::Uuid::from_u128(number)),
        system: system(),
        priority: Priority::Desk,
        created_at: at("2026-11-22T12:00:00Z"),
        expires_at: at("2026-11-22T12:10:00Z"),
        order: Order::CardEncode(CardEncode {
            encoder: EncoderName::new("1").unwrap(),
            doors: vec![DoorName::new(room).unwrap()],
            reservation_key: Some(ReservationKey::new(format!("stay-{room}")).unwrap()),
            window: Window::new(at("2026-11-22T12:00:00Z"), Some(at("2026-11-24T10:00:00Z"))).unwrap(),
            access_method_id: AccessMethodId(uuid::Uuid::from_u128(number)),
            guest_name: None,
            card_wait_seconds: 60,
            begin_again: false,
        }),
    }
}

impl House {
    fn order(&mut self, message: &Message) {
        self.n += 1;
        let position = Position { epoch: 1, n: self.n };
        self.dispatch.order(position, &Envelope::at(position, message));
    }

    /// Lets the dispatcher work until a job begins at the driver.
    async fn begins(&mut self) -> (Work, oneshot::Sender<Performed>) {
        loop {
            tokio::select! {
                biased;
                Some(begun) = self.begun.recv() => return begun,
                _ = self.dispatch.next() => {}
            }
        }
    }

    /// Lets the dispatcher work until a job is in this state.
    async fn reaches(&mut self, number: u128, wanted: JobState) {
        let id = JobId(uuid::Uuid::from_u128(number));
        loop {
            let state =
                self.queue.run(move |queue| Ok(queue.job(id)?.map(|job| job.view.state))).await.unwrap();
            if state == Some(wanted) {
                return;
            }
            self.dispatch.next().await;
        }
    }

    /// Lets the dispatcher work until the lane is free and nothing is asked.
    async fn rests(&mut self) {
        let rests = |dispatch: &Dispatch| {
            dispatch.is_quiet() && dispatch.lanes().iter().all(|lane| lane.state == LaneState::Free)
        };
        while !rests(&self.dispatch) {
            // What makes it rest may be nothing worth telling: then the state is looked at again.
            let _ = tokio::time::timeout(Duration::from_millis(20), self.dispatch.next()).await;
        }
    }

    /// The only job waits for another attempt.
    async fn waits_again(&mut self) {
        self.order(&Message::Job(job(1, "101")));
        let (_, done) = self.begins().await;
        done.send(Performed::NothingSent(Refusal::new(Code::SystemOffline, "the port closed first")))
            .unwrap();
        self.reaches(1, JobState::Waiting).await;
        self.rests().await;
    }

    async fn outcomes(&self) -> Vec<(JobId, Outcome)> {
        let after = Position { epoch: 1, n: 0 };
        let reports = self.queue.run(move |queue| queue.reports_after(after, 100)).await.unwrap();
        let outcome = |(_, message)| match message {
            Message::Outcome(report) => (report.job_id, report.outcome),
            other => panic!("{other:?}"),
        };
        reports.into_iter().map(outcome).collect()
    }
}

/// Long enough for any machine; what is waited for comes within two seconds.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it happens soon")
}

fn down() -> Line {
    let since = "2026-11-22T12:00:00Z".parse().unwrap();
    Line::Down(Trouble { code: "line_down", message: "unplugged".into(), since })
}

#[tokio::test]
async fn an_order_on_an_idle_lane_begins_at_once_and_its_outcome_is_in_the_outbox() {
    let mut house = house();
    house.order(&Message::Job(job(1, "101")));
    let (work, done) = house.begins().await;
    assert_eq!(work.treatment, crate::model::Treatment::Override);
    done.send(succeeded()).unwrap();
    house.reaches(1, JobState::Succeeded).await;
    assert_eq!(house.outcomes().await.len(), 1);
}

#[tokio::test]
async fn a_lane_does_one_job_at_a_time_in_the_order_of_arrival() {
    let mut house = house();
    for number in 1..=3 {
        house.order(&Message::Job(job(number, &format!("10{number}"))));
    }
    for number in 1..=3 {
        let (work, done) = house.begins().await;
        assert_eq!(work.job_id, JobId(uuid::Uuid::from_u128(number)));
        assert!(house.begun.try_recv().is_err());
        done.send(succeeded()).unwrap();
    }
    house.reaches(3, JobState::Succeeded).await;
}

#[tokio::test]
async fn a_line_that_is_down_gets_no_work_until_it_opens() {
    let mut house = house();
    house.driver.line.send_replace(down());
    house.order(&Message::Job(job(1, "101")));
    house.reaches(1, JobState::Waiting).await;
    assert!(house.begun.try_recv().is_err());
    house.driver.line.send_replace(Line::Ready);
    let (_, done) = house.begins().await;
    done.send(succeeded()).unwrap();
    house.reaches(1, JobState::Succeeded).await;
}

#[tokio::test]
async fn a_driver_that_panics_leaves_a_doubt_and_a_lane_that_goes_on() {
    let mut house = house();
    house.order(&Message::Job(job(1, "101")));
    house.order(&Message::Job(job(2, "102")));
    let (_, done) = house.begins().await;
    drop(done);
    let (work, done) = house.begins().await;
    assert_eq!(work.job_id, JobId(uuid::Uuid::from_u128(2)));
    done.send(succeeded()).unwrap();
    house.reaches(2, JobState::Succeeded).await;
    house.reaches(1, JobState::Unknown).await;
}

#[tokio::test]
async fn nothing_sent_means_that_the_same_job_is_tried_again() {
    let mut house = house();
    house.order(&Message::Job(job(1, "101")));
    let (_, done) = house.begins().await;
    done.send(Performed::NothingSent(Refusal::new(Code::SystemOffline, "the port closed first"))).unwrap();
    let (work, done) = house.begins().await;
    assert_eq!(work.job_id, JobId(uuid::Uuid::from_u128(1)));
    done.send(succeeded()).unwrap();
    house.reaches(1, JobState::Succeeded).await;
    assert_eq!(house.outcomes().await.len(), 1);
}

#[tokio::test]
async fn a_doubt_is_never_repeated_and_the_next_job_goes_on() {
    let mut house = house();
    house.order(&Message::Job(job(1, "101")));
    house.order(&Message::Job(job(2, "102")));
    let (_, done) = house.begins().await;
    done.send(Performed::Ended(Outcome::unknown(Code::NoAnswer, "silence"))).unwrap();
    let (work, done) = house.begins().await;
    assert_eq!(work.job_id, JobId(uuid::Uuid::from_u128(2)));
    done.send(succeeded()).unwrap();
    house.reaches(2, JobState::Succeeded).await;
    house.reaches(1, JobState::Unknown).await;
    assert!(house.begun.try_recv().is_err());
}

#[tokio::test]
async fn orders_that_cannot_be_are_refused_by_name_and_the_stream_goes_on() {
    let mut house = house();
    let mut elsewhere = job(1, "101");
    elsewhere.system = SystemName::new("annex").unwrap();
    house.order(&Message::Job(elsewhere));
    let unlock = Order::DeviceUnlock { device: crate::model::DeviceName::new("x").unwrap() };
    house.order(&Message::Job(Job { order: unlock, ..job(2, "101") }));
    house.n += 1;
    let position = Position { epoch: 1, n: house.n };
    let id = uuid::Uuid::from_u128(3);
    let body = format!(r#"{{"message":"job","job_id":"{id}","order":{{"kind":"card.staff"}}}}"#);
    house.dispatch.order(position, &Envelope { position: Some(position), body });
    house.order(&Message::Job(job(4, "101")));
    let (work, done) = house.begins().await;
    assert_eq!(work.job_id, JobId(uuid::Uuid::from_u128(4)));
    done.send(succeeded()).unwrap();
    house.reaches(4, JobState::Succeeded).await;
    let codes: Vec<_> = house
        .outcomes()
        .await
        .into_iter()
        .filter_map(|(_, outcome)| match outcome {
            Outcome::Failed(why) => Some(why.code),
            _ => None,
        })
        .collect();
    assert_eq!(codes, [Code::SystemUnknown, Code::Unsupported, Code::Unsupported]);
}

#[tokio::test]
async fn after_stop_nothing_begins_and_what_runs_is_still_recorded() {
    let mut house = house();
    house.order(&Message::Job(job(1, "101")));
    house.order(&Message::Job(job(2, "102")));
    let (_, done) = house.begins().await;
    house.dispatch.stop();
    assert!(*house.driver.stopped.lock().unwrap());
    house.order(&Message::Job(job(3, "103")));
    done.send(succeeded()).unwrap();
    house.reaches(1, JobState::Succeeded).await;
    while !house.dispatch.is_quiet() {
        house.dispatch.next().await;
    }
    assert!(house.begun.try_recv().is_err());
    house.reaches(2, JobState::Waiting).await;
}

#[tokio::test]
async fn an_order_that_cannot_be_stored_does_not_cost_another_job_its_retry() {
    let mut house = house();
    house.waits_again().await;
    // Leaves a gap.
    house.n += 1;
    house.order(&Message::Job(job(2, "102")));
    let (work, _done) = soon(house.begins()).await;
    assert_eq!(work.job_id, JobId(uuid::Uuid::from_u128(1)));
}

#[tokio::test]
async fn a_clock_that_is_put_back_strands_no_job_that_waits_for_another_attempt() {
    let mut house = house();
    house.waits_again().await;
    house.clock.jump_to("2026-11-22T09:00:00Z".parse().unwrap());
    let (work, _done) = soon(house.begins()).await;
    assert_eq!(work.job_id, JobId(uuid::Uuid::from_u128(1)));
}

#[tokio::test]
async fn a_line_that_went_down_with_a_job_is_not_given_the_next_one() {
    let mut house = house();
    house.order(&Message::Job(job(1, "101")));
    house.order(&Message::Job(job(2, "102")));
    let (_, done) = house.begins().await;
    house.reaches(2, JobState::Waiting).await;
    house.driver.line.send_replace(down());
    done.send(Performed::Ended(Outcome::unknown(Code::LineLost, "unplugged"))).unwrap();
    soon(house.reaches(1, JobState::Unknown)).await;
    soon(house.rests()).await;
    assert!(house.begun.try_recv().is_err());
    house.reaches(2, JobState::Waiting).await;
}

#[tokio::test]
async fn a_gap_is_no_trouble_of_the_disk() {
    let mut house = house();
    house.n += 1;
    house.order(&Message::Job(job(1, "101")));
    loop {
        match house.dispatch.next().await {
            Happening::OrdersInterrupted { .. } => break,
            Happening::StoreFailed { why } => panic!("{why}"),
            _ => {}
        }
    }
    house.rests().await;
    assert!(!house.dispatch.told.iter().any(|told| matches!(told, Happening::StoreFailed { .. })));
}

#[tokio::test]
async fn a_job_that_waited_in_vain_for_its_line_says_so() {
    let mut house = house();
    house.driver.line.send_replace(down());
    house.order(&Message::Job(job(1, "101")));
    house.reaches(1, JobState::Waiting).await;
    house.rests().await;
    house.clock.jump_to("2026-11-22T12:11:00Z".parse().unwrap());
    // As when its wait is over.
    house.dispatch.next_expiry = Some(Timestamp::MIN);
    soon(house.reaches(1, JobState::Expired)).await;
    let outcomes = house.outcomes().await;
    let Some((_, Outcome::Expired(why))) = outcomes.first() else { panic!("{outcomes:?}") };
    assert!(why.message.ends_with(": unplugged"), "{}", why.message);
}

impl House {
    /// Has the driver hold its lane, or one encoder of it, back from now on.
    fn rest(&self, encoder: Option<&str>, span: Duration) {
        let encoder = encoder.map(|name| EncoderName::new(name).unwrap());
        let why = Refusal::new(Code::EncoderBusy, "it may still be at work");
        let resting = Resting { lane: lane(), encoder, until: Instant::now() + span, why };
        self.driver.rests.lock().unwrap().push(resting);
    }

    async fn attempts(&self, number: u128) -> u32 {
        let id = JobId(uuid::Uuid::from_u128(number));
        self.queue.run(move |queue| Ok(queue.job(id)?.unwrap().view.attempt)).await.unwrap()
    }
}

const REST: Duration = Duration::from_millis(700);

#[tokio::test]
async fn a_lane_that_its_driver_holds_marks_nothing_as_sent_before_that_is_over() {
    let mut house = house();
    house.rest(None, REST);
    let before = Instant::now();
    for number in 1..=2 {
        house.order(&Message::Job(job(number, &format!("10{number}"))));
    }
    house.reaches(2, JobState::Waiting).await;
    house.rests().await;
    assert!(house.begun.try_recv().is_err());
    assert!(house.dispatch.lanes().iter().all(|lane| lane.held.is_some() && lane.rest.is_none()));
    for number in 1..=2 {
        let (_, done) = soon(house.begins()).await;
        assert!(REST <= before.elapsed());
        done.send(succeeded()).unwrap();
        house.reaches(number, JobState::Succeeded).await;
        assert_eq!(house.attempts(number).await, 1);
    }
    assert!(house.dispatch.lanes().iter().all(|lane| lane.held.is_none()));
}

#[tokio::test]
async fn a_lane_at_work_is_not_at_rest_whatever_its_driver_says_for_later() {
    let mut house = house();
    house.order(&Message::Job(job(1, "101")));
    let (_, done) = house.begins().await;
    house.rest(None, REST);
    house.order(&Message::Job(job(2, "102")));
    house.reaches(2, JobState::Waiting).await;
    assert!(house.dispatch.lanes().iter().all(|lane| lane.held.is_none()));
    let before = Instant::now();
    done.send(Performed::Ended(Outcome::unknown(Code::NoAnswer, "silence"))).unwrap();
    house.rests().await;
    let (work, done) = soon(house.begins()).await;
    assert!(REST <= before.elapsed());
    assert_eq!(work.job_id, JobId(uuid::Uuid::from_u128(2)));
    done.send(succeeded()).unwrap();
    house.reaches(2, JobState::Succeeded).await;
    assert_eq!(house.attempts(2).await, 1);
}

#[tokio::test]
async fn an_encoder_that_rests_marks_nothing_as_sent_while_the_others_of_its_lane_go_on() {
    let mut house = house();
    house.order(&Message::Job(job(1, "101")));
    let (_, done) = house.begins().await;
    let mut elsewhere = job(3, "103");
    let Order::CardEncode(card) = &mut elsewhere.order else { unreachable!("it is a card") };
    card.encoder = EncoderName::new("2").unwrap();
    house.order(&Message::Job(job(2, "102")));
    house.order(&Message::Job(elsewhere));
    house.reaches(3, JobState::Waiting).await;
    house.rest(Some("1"), REST);
    let before = Instant::now();
    done.send(Performed::Ended(Outcome::unknown(Code::NoAnswer, "silence"))).unwrap();
    let (work, done) = soon(house.begins()).await;
    assert_eq!(work.job_id, JobId(uuid::Uuid::from_u128(3)));
    done.send(succeeded()).unwrap();
    house.reaches(3, JobState::Succeeded).await;
    // One that comes meanwhile waits as well.
    house.order(&Message::Job(job(4, "104")));
    house.reaches(4, JobState::Waiting).await;
    for number in [2, 4] {
        let (work, done) = soon(house.begins()).await;
        assert_eq!(work.job_id, JobId(uuid::Uuid::from_u128(number)));
        assert!(REST <= before.elapsed());
        done.send(succeeded()).unwrap();
        house.reaches(number, JobState::Succeeded).await;
        assert_eq!(house.attempts(number).await, 1);
    }
}
