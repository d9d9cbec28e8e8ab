//! What does not end at once: repeating, proof, rests, pauses, holding back. Under simulated time, the writer as a task.

use super::*;
use crate::{
    drivers::Proof,
    model::{DeviceName, Origin, SlotContent, SlotPut},
    protocol::EpochReason,
    queue::RetryRefused,
};

/// Some locks, each with a lane; the test says what comes of every call.
struct Locks {
    system: SystemName,
    locks: Vec<LaneName>,
    line: watch::Sender<Line>,
    calls: mpsc::UnboundedSender<Call>,
}

enum Call {
    Perform(Box<Work>, oneshot::Sender<Performed>),
    Prove(JobId, oneshot::Sender<Proof>),
}

impl Driver for Locks {
    fn system(&self) -> &SystemName {
        &self.system
    }

    fn inventory(&self) -> SystemInventory {
        unreachable!("the dispatcher lists nothing")
    }

    fn lanes(&self) -> Vec<LaneName> {
        self.locks.clone()
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        let device = match order {
            Order::SlotPut(put) => put.device.as_str(),
            Order::SlotRemove { device, .. }
            | Order::DeviceUnlock { device }
            | Order::DeviceRead { device } => device.as_str(),
            Order::CardEncode(card) => card.encoder.as_str(),
            _ => return Err(Refusal::new(Code::Unsupported, "locks only")),
        };
        Ok(Admission { lead: Duration::from_secs(60), ..Admission::to(of(device), Vec::new()) })
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.line.subscribe()
    }

    fn perform<'a>(&'a self, work: Work, _progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            self.calls.send(Call::Perform(Box::new(work), done)).unwrap();
            answer.await.unwrap()
        })
    }

    fn prove<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Proof> {
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            self.calls.send(Call::Prove(work.job_id, done)).unwrap();
            answer.await.unwrap()
        })
    }

    fn stop(&self) {}
}

struct Site {
    dispatch: Dispatch,
    queue: WriterHandle<Queue>,
    calls: mpsc::UnboundedReceiver<Call>,
    clock: Clock,
    folder: tempfile::TempDir,
    writer: tokio::task::JoinHandle<()>,
    n: u64,
}

fn of(device: &str) -> LaneName {
    LaneName::new(device).unwrap()
}

fn id(number: u128) -> JobId {
    // The low half stands still when the jitter turns it: the pauses here are bare.
    JobId(uuid::Uuid::from_u128(number))
}

fn queue_in(folder: &tempfile::TempDir) -> Queue {
    let random = Random::seeded(1);
    let seal = SealKey::new([1; 32], random.clone());
    Queue::open(&Storage::folder(folder.path()), seal, random, rules()).unwrap()
}

fn rules() -> Rules {
    let limits = Limits { remote_unlock: true, ..Limits::default() };
    Rules { limits, systems: BTreeMap::from([(system(), Sharing::Exclusive)]), ..Rules::default() }
}

fn locks(names: &[&str]) -> (Locks, mpsc::UnboundedReceiver<Call>) {
    let (calls, received) = mpsc::unbounded_channel();
    let locks = names.iter().map(|name| of(name)).collect();
    (Locks { system: system(), locks, line: watch::channel(Line::Ready).0, calls }, received)
}

async fn site() -> Site {
    start(tempfile::tempdir().unwrap()).await
}

async fn start(folder: tempfile::TempDir) -> Site {
    let (writer, queue) = Writer::simulated(queue_in(&folder), None, || Duration::ZERO);
    let (driver, received) = locks(&["front", "back"]);
    let clock = Clock::simulated(site_begins());
    let now = clock.now();
    let past = queue.run(move |queue: &mut Queue| queue.past(now)).await.unwrap();
    let time = TrustedTime::new(clock.clone());
    let dispatch = Dispatch::new(queue.clone(), time, vec![Arc::new(driver)], past);
    Site { dispatch, queue, calls: received, clock, folder, writer, n: 0 }
}

fn site_begins() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn order(number: u128, order: Order) -> Job {
    Job { order, priority: Priority::Background, ..job(number, "none") }
}

fn device(name: &str) -> DeviceName {
    DeviceName::new(name).unwrap()
}

fn unlock(number: u128, lock: &str) -> Job {
    order(number, Order::DeviceUnlock { device: device(lock) })
}

fn remove(number: u128, lock: &str) -> Job {
    order(number, Order::SlotRemove { device: device(lock), slot: "guest".into() })
}

fn reading(number: u128, lock: &str) -> Job {
    order(number, Order::DeviceRead { device: device(lock) })
}

fn card(number: u128, lane: &str) -> Job {
    let mut job = job(number, "101");
    let Order::CardEncode(card) = &mut job.order else { unreachable!("a card's job") };
    card.encoder = EncoderName::new(lane).unwrap();
    job
}

fn offline() -> Refusal {
    Refusal::new(Code::DeviceOffline, "the lock does not answer")
}

impl Site {
    fn order(&mut self, job: Job) {
        self.n += 1;
        let position = Position { epoch: 1, n: self.n };
        self.dispatch.order(position, &Envelope::at(position, &Message::Job(job)));
    }

    /// The next call at the driver and how long it took to come.
    async fn call(&mut self) -> (Call, Duration) {
        let begun = Instant::now();
        loop {
            tokio::select! {
                biased;
                Some(call) = self.calls.recv() => return (call, begun.elapsed()),
                _ = self.dispatch.next() => {}
                () = tokio::time::sleep(Duration::from_secs(30 * 24 * 3600)) => panic!("nothing is asked of the driver"),
            }
        }
    }

    async fn performs(&mut self) -> (JobId, oneshot::Sender<Performed>, Duration) {
        match self.call().await {
            (Call::Perform(work, done), after) => (work.job_id, done, after),
            (Call::Prove(job, _), _) => panic!("asked for proof of {job}"),
        }
    }

    async fn proves(&mut self) -> (JobId, oneshot::Sender<Proof>) {
        match self.call().await {
            (Call::Prove(job, done), _) => (job, done),
            (Call::Perform(work, _), _) => panic!("was to perform {}", work.job_id),
        }
    }

    /// Lets this much time pass in which no call may come.
    async fn quiet_for(&mut self, span: Duration) {
        let call = tokio::time::timeout(span, self.call()).await;
        assert!(call.is_err(), "nothing was to be asked of the driver");
    }

    async fn state(&mut self, number: u128) -> Option<JobState> {
        let job = id(number);
        self.queue.run(move |queue| Ok(queue.job(job)?.map(|job| job.view.state))).await.unwrap()
    }

    async fn reaches(&mut self, number: u128, wanted: JobState) {
        while self.state(number).await != Some(wanted) {
            tokio::time::timeout(Duration::from_secs(3600), self.dispatch.next())
                .await
                .expect("it gets there");
        }
    }

    /// The process ends here; another begins on what it left.
    async fn restart(self) -> Site {
        let Site { dispatch, queue, folder, writer, .. } = self;
        drop((dispatch, queue));
        writer.await.unwrap();
        start(folder).await
    }

    /// Puts another driver in the place of the one at work; gives the new one's line, and the calls of the old one.
    async fn take_over(&mut self) -> (watch::Sender<Line>, mpsc::UnboundedReceiver<Call>) {
        self.take_over_with(&["front", "back"]).await
    }

    async fn take_over_with(
        &mut self,
        names: &[&str],
    ) -> (watch::Sender<Line>, mpsc::UnboundedReceiver<Call>) {
        let (driver, received) = locks(names);
        let line = driver.line.clone();
        let reply = self.dispatch.replace(vec![Arc::new(driver)], rules());
        self.reply(reply).await;
        (line, std::mem::replace(&mut self.calls, received))
    }

    async fn reply<T>(&mut self, mut reply: Reply<T>) -> T {
        loop {
            tokio::select! {
                biased;
                answer = &mut reply => return answer.unwrap().unwrap(),
                _ = self.dispatch.next() => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_repeated_is_tried_again_and_again_under_one_mark_and_costs_its_lane_nothing() {
    let mut site = site().await;
    site.order(remove(1, "front"));
    site.order(unlock(2, "front"));
    let (first, done, _) = site.performs().await;
    assert_eq!(first, id(1));
    done.send(Performed::MayRepeat(offline())).unwrap();
    let (other, done, _) = site.performs().await;
    assert_eq!(other, id(2), "the lane works on");
    done.send(succeeded()).unwrap();
    let mut pauses = Vec::new();
    for _ in 0..2 {
        let (again, done, after) = site.performs().await;
        assert_eq!(again, id(1));
        pauses.push(after.as_secs());
        done.send(Performed::MayRepeat(Refusal::new(Code::DeviceBusy, "busy"))).unwrap();
    }
    assert_eq!(pauses, [1, 2]);
    assert_eq!(site.state(1).await, Some(JobState::Sent));
    let (_, done, _) = site.performs().await;
    done.send(succeeded()).unwrap();
    site.reaches(1, JobState::Succeeded).await;
    let job = site.queue.run(|queue| queue.job(id(1))).await.unwrap().unwrap();
    assert_eq!(job.view.attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_try_that_may_have_been_done_fails_nothing_before_the_device_was_asked() {
    let refused = || Performed::Ended(Outcome::failed(Code::SlotsFull, "no free slot"));
    for (proof, end) in
        [(Proof::Done(Success::default()), JobState::Succeeded), (Proof::None, JobState::Unknown)]
    {
        let mut site = site().await;
        site.order(remove(1, "front"));
        site.performs().await.1.send(Performed::MayRepeat(offline())).unwrap();
        site.performs().await.1.send(refused()).unwrap();
        site.proves().await.1.send(proof).unwrap();
        site.reaches(1, end).await;
    }
    let mut site = site().await;
    site.order(remove(1, "front"));
    site.performs().await.1.send(Performed::MayRepeat(offline())).unwrap();
    site.performs().await.1.send(refused()).unwrap();
    site.proves().await.1.send(Proof::NotDone(offline())).unwrap();
    let (_, done, _) = site.performs().await;
    done.send(refused()).unwrap();
    site.reaches(1, JobState::Failed).await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_job_ends_in_doubt_at_its_deadline_even_while_its_lane_is_paused() {
    let mut site = site().await;
    site.order(remove(1, "front"));
    let (_, done, _) = site.performs().await;
    done.send(Performed::MayRepeat(offline())).unwrap();
    let reply = site.dispatch.pause(&of("front"), "Ada");
    assert!(site.reply(reply).await);
    site.reaches(1, JobState::Unknown).await;
    assert_eq!(site.clock.now().to_string(), "2026-11-22T12:10:00Z");
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_is_taken_back_ends_cancelled_at_its_next_pause_and_a_removal_goes_on() {
    let aside = async |site: &mut Site, order: Job| {
        site.order(order);
        site.performs().await.1.send(Performed::MayRepeat(offline())).unwrap();
        while site.dispatch.aside.is_empty() {
            site.dispatch.next().await;
        }
    };
    let take_back = async |site: &mut Site| {
        let reply = site.dispatch.cancel_local(id(1), "Ada");
        assert_eq!(site.reply(reply).await, CancelAnswer::TooLate(JobState::Sent));
    };

    let mut site = site().await;
    aside(&mut site, reading(1, "front")).await;
    take_back(&mut site).await;
    site.reaches(1, JobState::Cancelled).await;
    site.quiet_for(Duration::from_secs(700)).await;

    let mut site = self::site().await;
    site.order(reading(1, "front"));
    let (_, done, _) = site.performs().await;
    take_back(&mut site).await;
    done.send(Performed::MayRepeat(offline())).unwrap();
    site.reaches(1, JobState::Cancelled).await;

    let mut site = self::site().await;
    site.order(reading(1, "front"));
    let (_, _done, _) = site.performs().await;
    take_back(&mut site).await;
    let mut site = site.restart().await;
    site.proves().await.1.send(Proof::None).unwrap();
    site.reaches(1, JobState::Cancelled).await;

    let mut site = self::site().await;
    aside(&mut site, remove(1, "front")).await;
    take_back(&mut site).await;
    site.performs().await.1.send(succeeded()).unwrap();
    site.reaches(1, JobState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_wants_to_repeat_what_must_not_be_is_not_obeyed() {
    let mut site = site().await;
    site.order(unlock(1, "front"));
    let (_, done, _) = site.performs().await;
    done.send(Performed::MayRepeat(offline())).unwrap();
    site.reaches(1, JobState::Unknown).await;
    site.quiet_for(Duration::from_secs(700)).await;
}

#[tokio::test(start_paused = true)]
async fn a_doubt_is_first_put_to_the_device_and_its_word_decides() {
    let unclear = || Performed::Ended(Outcome::unknown(Code::NoAnswer, "silence"));
    let mut site = site().await;
    site.order(unlock(1, "front"));
    site.performs().await.1.send(unclear()).unwrap();
    let (job, proof) = site.proves().await;
    assert_eq!((job, site.state(1).await), (id(1), Some(JobState::Sent)));
    proof.send(Proof::Done(Success::default())).unwrap();
    site.reaches(1, JobState::Succeeded).await;

    site.order(unlock(2, "front"));
    site.performs().await.1.send(unclear()).unwrap();
    site.proves().await.1.send(Proof::NotDone(offline())).unwrap();
    let (again, done, _) = site.performs().await;
    assert_eq!(again, id(2), "proven not done: it may be sent again");
    done.send(unclear()).unwrap();
    site.proves().await.1.send(Proof::None).unwrap();
    site.reaches(2, JobState::Unknown).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_each_job_that_was_at_work_is_proven_repeated_or_put_in_doubt() {
    let mut site = site().await;
    // A driver whose answer is dropped breaks down; these are still at it when the process ends.
    let mut at_it = Vec::new();
    for (number, lock) in [(1, "front"), (2, "back")] {
        site.order(unlock(number, lock));
        at_it.push(site.performs().await.1);
    }
    site.order(remove(3, "front"));
    site.order(remove(4, "back"));
    let mut site = site.restart().await;
    let mut proofs = BTreeMap::from([site.proves().await, site.proves().await]);
    proofs.remove(&id(1)).unwrap().send(Proof::Done(Success::default())).unwrap();
    proofs.remove(&id(2)).unwrap().send(Proof::None).unwrap();
    site.reaches(1, JobState::Succeeded).await;
    site.reaches(2, JobState::Unknown).await;
    // What waited goes on in both lanes.
    site.dispatch.welcomed();
    let (first, second) = (site.performs().await, site.performs().await);
    assert_eq!(BTreeSet::from([first.0, second.0]), BTreeSet::from([id(3), id(4)]));

    let mut site = site.restart().await;
    for _ in 0..2 {
        site.proves().await.1.send(Proof::None).unwrap();
    }
    let (again, done, _) = site.performs().await;
    assert!([id(3), id(4)].contains(&again), "what may be repeated is");
    done.send(succeeded()).unwrap();
    site.reaches(again.0.as_u128(), JobState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn two_jobs_of_one_lane_that_were_at_work_are_asked_after_one_by_one() {
    let mut site = site().await;
    site.order(remove(1, "front"));
    site.performs().await.1.send(Performed::MayRepeat(offline())).unwrap();
    site.order(unlock(2, "front"));
    let (second, _at_it, _) = site.performs().await;
    assert_eq!(second, id(2));
    let mut site = site.restart().await;
    let (first, proof) = site.proves().await;
    assert_eq!(first, id(1));
    site.quiet_for(Duration::from_secs(10)).await;
    proof.send(Proof::Done(Success::default())).unwrap();
    assert_eq!(site.proves().await.0, id(2));
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_does_not_come_back_with_a_proof_is_not_waited_for() {
    let mut site = site().await;
    site.order(unlock(1, "front"));
    let _at_it = site.performs().await;
    let mut site = site.restart().await;
    let (_, _proof) = site.proves().await;
    let begun = Instant::now();
    site.reaches(1, JobState::Unknown).await;
    assert_eq!(begun.elapsed(), PROOF_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn what_waited_before_a_restart_is_held_until_the_welcome_or_for_some_seconds() {
    for welcomed in [true, false] {
        let mut site = site().await;
        let reply = site.dispatch.pause(&of("front"), "Ada");
        site.reply(reply).await;
        site.order(unlock(1, "front"));
        site.reaches(1, JobState::Waiting).await;
        // Durable, but the dispatcher has not heard of it when the process ends.
        let now = site.clock.now();
        assert!(site.queue.run(move |queue| queue.resume_lane(now, &of("front"), "Ada")).await.unwrap());
        let mut site = site.restart().await;
        site.quiet_for(HELD - Duration::from_millis(100)).await;
        if welcomed {
            site.dispatch.welcomed();
        }
        let (job, _, after) = site.performs().await;
        assert_eq!(job, id(1));
        assert_eq!(after.is_zero(), welcomed, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_says_of_a_held_job_counts_only_when_the_cloud_has_told_what_was_forgotten() {
    let mut site = site().await;
    let reply = site.dispatch.pause(&of("front"), "Ada");
    site.reply(reply).await;
    site.order(unlock(1, "front"));
    site.reaches(1, JobState::Waiting).await;
    let mut site = site.restart().await;
    let mut said = site.dispatch.cancel_local(id(1), "Ada");
    site.quiet_for(HELD / 2).await;
    assert!(said.try_recv().is_err(), "nobody knows yet whether it was done");
    assert_eq!(site.state(1).await, Some(JobState::Waiting));
    // The cloud hands it out as one that may have been done.
    let now = site.clock.now();
    let behind = Some(EpochReason::ReceiverBehind);
    assert!(site.queue.run(move |queue| queue.continue_orders(now, 2, behind)).await.unwrap());
    site.dispatch.welcomed();
    assert_eq!(site.reply(said).await, CancelAnswer::TooLate(JobState::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_dead_device_has_its_lane_rest_while_the_other_lane_works() {
    let mut site = site().await;
    site.order(unlock(1, "front"));
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let (job, done, after) = site.performs().await;
        assert_eq!(job, id(1));
        pauses.push(after.as_secs());
        done.send(Performed::NothingSent(offline())).unwrap();
    }
    assert!(pauses[1] < 2 && pauses[2] < 4, "{pauses:?}");
    assert!(pauses[3] >= 5 && pauses[4] >= 10, "after the third failure the lane rests: {pauses:?}");
    while site.dispatch.lanes().iter().all(|lane| lane.rest.is_none()) {
        site.dispatch.next().await;
    }
    site.order(unlock(2, "back"));
    let (job, done, after) = site.performs().await;
    assert_eq!((job, after), (id(2), Duration::ZERO));
    done.send(succeeded()).unwrap();
    let (_, done, _) = site.performs().await;
    done.send(succeeded()).unwrap();
    site.reaches(1, JobState::Succeeded).await;
    assert!(site.dispatch.lanes().iter().all(|lane| lane.rest.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_expires_in_a_lane_that_is_paused_says_so() {
    let mut site = site().await;
    let reply = site.dispatch.pause(&of("front"), "Ada");
    site.reply(reply).await;
    site.order(unlock(1, "front"));
    site.reaches(1, JobState::Expired).await;
    let job = site.queue.run(|queue| queue.job(id(1))).await.unwrap().unwrap();
    let why = job.outcome.unwrap().reason().unwrap().message.clone();
    assert!(why.contains("paused"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_code_is_put_before_its_window_and_removed_at_its_end_by_the_clock_alone() {
    let mut site = site().await;
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let window = Window::new(at("2026-11-22T15:00:00Z"), Some(at("2026-11-23T11:00:00Z"))).unwrap();
    let content = SlotContent::Pin(crate::model::Private::new("4711"));
    let put = SlotPut { device: device("front"), slot: "guest".into(), content, window, generation: 1 };
    site.order(Job { expires_at: at("2026-11-23T11:00:00Z"), ..order(1, Order::SlotPut(put)) });
    let (job, done, _) = site.performs().await;
    assert_eq!((job, site.clock.now()), (id(1), at("2026-11-22T14:59:00Z")));
    done.send(succeeded()).unwrap();
    site.reaches(1, JobState::Succeeded).await;
    let (Call::Perform(work, done), _) = site.call().await else { panic!("nothing to prove") };
    assert!(matches!(work.order, Order::SlotRemove { .. }));
    assert_eq!(site.clock.now(), at("2026-11-23T11:00:00Z"));
    done.send(succeeded()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_right_brings_a_timer_forward_within_a_minute() {
    let mut site = site().await;
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let window = Window::new(at("2026-11-29T15:00:00Z"), Some(at("2026-11-30T11:00:00Z"))).unwrap();
    let content = SlotContent::Pin(crate::model::Private::new("4711"));
    let put = SlotPut { device: device("front"), slot: "guest".into(), content, window, generation: 1 };
    site.order(Job { expires_at: at("2026-11-30T11:00:00Z"), ..order(1, Order::SlotPut(put)) });
    site.reaches(1, JobState::Waiting).await;
    site.clock.jump_to(at("2026-11-29T15:30:00Z"));
    let (job, _, after) = site.performs().await;
    assert_eq!(job, id(1));
    assert!(after <= LOOK_AGAIN, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_local_job_is_done_like_any_other_and_a_doubt_is_done_again_only_with_its_resolution() {
    let mut site = site().await;
    let local = LocalOrder { job: unlock(1, "front"), origin: Origin::Person, retries: None };
    let reply = site.dispatch.local(local);
    assert!(matches!(site.reply(reply).await, Accepted::Sent(_)));
    site.performs().await.1.send(Performed::Ended(Outcome::unknown(Code::NoAnswer, "silence"))).unwrap();
    site.proves().await.1.send(Proof::None).unwrap();
    site.reaches(1, JobState::Unknown).await;
    let reply = site.dispatch.retry(id(1), "Ada");
    assert_eq!(site.reply(reply).await, Err(RetryRefused::Not(JobState::Unknown)));
    let reply = site.dispatch.resolve_and_retry(id(1), "Ada");
    let new = site.reply(reply).await.unwrap();
    assert_eq!(site.state(1).await, Some(JobState::Failed));
    let (job, done, _) = site.performs().await;
    assert_eq!(job, new);
    let reply = site.dispatch.cancel_local(new, "Kari");
    assert_eq!(site.reply(reply).await, CancelAnswer::TooLate(JobState::Sent));
    done.send(succeeded()).unwrap();
    site.reaches(new.0.as_u128(), JobState::Succeeded).await;
    let reply = site.dispatch.cancel_local(id(99), "Kari");
    assert_eq!(site.reply(reply).await, CancelAnswer::NotKnown);
}

#[tokio::test(start_paused = true)]
async fn another_configuration_finishes_what_is_at_work_and_hands_on_what_waits() {
    let mut site = site().await;
    site.order(unlock(1, "front"));
    site.order(unlock(2, "front"));
    let (_, done, _) = site.performs().await;
    let _old = site.take_over().await;
    site.quiet_for(Duration::from_secs(5)).await;
    done.send(succeeded()).unwrap();
    let (job, done, _) = site.performs().await;
    assert_eq!(job, id(2), "by the new driver");
    let reply = site.dispatch.replace(Vec::new(), Rules::default());
    site.reply(reply).await;
    done.send(succeeded()).unwrap();
    site.reaches(2, JobState::Succeeded).await;
    while site.dispatch.lanes().iter().next().is_some() {
        site.dispatch.next().await;
    }
    site.order(unlock(3, "front"));
    site.reaches(3, JobState::Failed).await;
}

#[tokio::test(start_paused = true)]
async fn a_code_that_comes_too_late_leaves_the_earlier_one_its_end() {
    let mut site = site().await;
    let (line, _) = site.take_over().await;
    let hour = |hour: i64| site_begins().saturating_add(jiff::SignedDuration::from_hours(hour)).unwrap();
    let put = |number: u128, generation: u64, ends: i64| {
        let content = SlotContent::Pin(crate::model::Private::new("4711"));
        let window = Window::new(hour(0), Some(hour(ends))).unwrap();
        let put = SlotPut { device: device("front"), slot: "guest".into(), content, window, generation };
        Job { expires_at: hour(72), ..order(number, Order::SlotPut(put)) }
    };
    site.order(put(1, 1, 10));
    site.performs().await.1.send(succeeded()).unwrap();
    site.reaches(1, JobState::Succeeded).await;
    line.send_replace(super::down());
    site.quiet_for(Duration::from_secs(1)).await;
    site.order(put(2, 2, 1));
    site.quiet_for(Duration::from_secs(2 * 3600)).await;
    line.send_replace(Line::Ready);
    site.reaches(2, JobState::Expired).await;
    let (Call::Perform(work, done), _) = site.call().await else { panic!("nothing to prove") };
    assert!(matches!(work.order, Order::SlotRemove { .. }));
    assert_eq!(site.clock.now(), hour(10));
    done.send(succeeded()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_lane_that_goes_and_comes_back_with_a_configuration_is_still_paused() {
    let mut site = site().await;
    let reply = site.dispatch.pause(&of("front"), "Ada");
    site.reply(reply).await;
    let reply = site.dispatch.replace(Vec::new(), rules());
    site.reply(reply).await;
    let (_line, _calls) = site.take_over().await;
    site.order(unlock(1, "front"));
    site.quiet_for(Duration::from_secs(30)).await;
    let reply = site.dispatch.resume(&of("front"), "Ada");
    site.reply(reply).await;
    assert_eq!(site.performs().await.0, id(1));
}

#[tokio::test(start_paused = true)]
async fn a_job_in_a_lane_that_is_gone_holds_up_no_other_of_its_reservation() {
    for restarted in [false, true] {
        let mut site = site().await;
        let reply = site.dispatch.pause(&of("cellar"), "Ada");
        site.reply(reply).await;
        let (_line, _calls) = site.take_over_with(&["front", "back", "cellar"]).await;
        site.order(card(1, "cellar"));
        site.reaches(1, JobState::Waiting).await;
        if restarted {
            site = site.restart().await;
            site.n = 1;
        } else {
            let (_line, _calls) = site.take_over().await;
        }
        site.order(card(2, "front"));
        let (job, _, after) = site.performs().await;
        assert_eq!(job, id(2));
        assert!(after <= HELD + Duration::from_secs(1), "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_a_stop_cut_short_is_looked_for_at_the_next_start() {
    let mut site = site().await;
    site.order(unlock(1, "front"));
    site.performs().await.1.send(Performed::Ended(Outcome::unknown(Code::NoAnswer, "silence"))).unwrap();
    let (_, proof) = site.proves().await;
    site.dispatch.stop();
    proof.send(Proof::None).unwrap();
    while !site.dispatch.is_quiet() {
        let told = tokio::time::timeout(Duration::from_secs(1), site.dispatch.next()).await;
        assert!(told.is_ok() || site.dispatch.is_quiet());
    }
    assert_eq!(site.state(1).await, Some(JobState::Sent));
    let mut site = site.restart().await;
    site.proves().await.1.send(Proof::Done(Success::default())).unwrap();
    site.reaches(1, JobState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_proven_after_a_restart_lets_nothing_that_waits_behind_it_begin_before_the_welcome() {
    let mut site = site().await;
    site.order(unlock(1, "front"));
    site.order(unlock(2, "front"));
    let (_, _done, _) = site.performs().await;
    site.reaches(2, JobState::Waiting).await;
    let mut site = site.restart().await;
    site.proves().await.1.send(Proof::Done(Success::default())).unwrap();
    site.reaches(1, JobState::Succeeded).await;
    site.quiet_for(HELD / 2).await;
    site.dispatch.welcomed();
    assert_eq!(site.performs().await.0, id(2));
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_ends_while_nobody_listens_is_over_at_the_next_turn() {
    let mut site = site().await;
    site.order(remove(1, "front"));
    let (_, done, _) = site.performs().await;
    done.send(Performed::MayRepeat(offline())).unwrap();
    while site.dispatch.aside.is_empty() {
        site.dispatch.next().await;
    }
    tokio::time::advance(Duration::from_secs(3)).await;
    let (again, _done, after) = site.performs().await;
    assert_eq!((again, after), (id(1), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_listening_again_and_again_puts_nothing_off() {
    let mut site = site().await;
    site.order(remove(1, "front"));
    let (_, done, _) = site.performs().await;
    done.send(Performed::MayRepeat(offline())).unwrap();
    let begun = Instant::now();
    while site.calls.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(3), "it was due after one second");
        // One turn, as when another branch of a loop is ready.
        let _ = futures_util::FutureExt::now_or_never(site.dispatch.next());
        tokio::time::advance(Duration::from_millis(20)).await;
    }
}
