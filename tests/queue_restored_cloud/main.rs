//! A cloud that is put back to an earlier moment, and the queue of a bridge that went on, or was put back as well: every
//! order ends on both sides, and nothing is done twice.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod again;
#[path = "../queue_support/mod.rs"]
mod queue_support;

use latchd::{
    cloud::store::{Cancel, Db, Meeting, Standing},
    model::{BridgeId, Code, Job, JobId, JobState, Order, Origin, Outcome, Refusal},
    protocol::{EpochReason, Memory, Message, Position},
    queue::{Accepted, LocalOrder, Queue},
    seal::SealKey,
    seams::{Random, Storage},
    store::Store,
};
use queue_support::*;

/// Both sides, and what would go over the line between them.
struct Both {
    site: Site,
    folder: tempfile::TempDir,
    db: Db,
    bridge: BridgeId,
    connection: u64,
    /// When both meet, and orders arrive.
    now: i64,
    /// What its driver refuses by now.
    refused: Option<JobId>,
}

fn open_cloud(folder: &std::path::Path) -> (Db, BridgeId) {
    let seal = SealKey::new([7; 32], Random::seeded(1));
    let mut db = Db::open(&Storage::folder(folder), seal, Random::seeded(2)).unwrap();
    let workspace = match db.workspace().unwrap() {
        Some(workspace) => workspace,
        None => db.found(at(0), "House", [1; 32]).unwrap(),
    };
    let bridge = db.the_bridge(at(0), workspace).unwrap();
    (db, bridge)
}

fn copy_of(folder: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

impl Both {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (db, bridge) = open_cloud(folder.path());
        Self { site: Site::new(), folder, db, bridge, connection: 0, now: 1, refused: None }
    }

    /// A copy of what the cloud knows.
    fn backup(&self) -> tempfile::TempDir {
        copy_of(self.folder.path())
    }

    fn put_back(&mut self, backup: &tempfile::TempDir) {
        self.folder = copy_of(backup.path());
        (self.db, self.bridge) = open_cloud(self.folder.path());
    }

    /// The site's memory becomes a copy of an older one.
    fn site_is_put_back(&mut self, copy: &tempfile::TempDir) {
        let folder = copy_of(copy.path());
        let storage = Storage::folder(folder.path());
        self.site = Site::at(folder, storage, |_| {});
    }

    /// An order is given at a moment, arrives, and is done if its lane is idle. Says how it then stands at the site.
    fn order_at(&mut self, second: i64, number: u128, order: Order) -> JobState {
        let job = Job { created_at: at(second), ..job(number, order) };
        self.db.enqueue_job(at(second), self.bridge, &job).unwrap();
        self.orders_arrive(100);
        let state = self.site.state(number);
        if state == JobState::Sent {
            self.site.commit(|queue| queue.finish(at(self.now), id(number), written())).unwrap();
        }
        self.reports_arrive();
        state
    }

    /// The agent is killed and starts again.
    fn restart(&mut self) {
        let folder = copy_of(self.site.folder.path());
        let storage = Storage::folder(folder.path());
        self.site = Site::at(folder, storage, |_| {});
    }

    /// Both say hello; what was not acknowledged is told from here on.
    fn meet(&mut self) {
        let met = self.cloud_meets();
        let (epoch, reason, reports) =
            (met.orders_resume_after.epoch, met.orders_epoch_reason, met.reports_received);
        let now = at(self.now);
        self.site.commit(|queue| queue.resume(now, epoch, reason, reports)).unwrap();
    }

    /// The site says hello, and the connection breaks before it hears an answer.
    fn cloud_meets(&mut self) -> Meeting {
        self.connection += 1;
        let memory = self.site.queue.memory().unwrap();
        let memory_of_agent = Memory {
            orders_received: memory.orders_received,
            reports_sent: memory.reports.last,
            reports_acknowledged: Position { n: memory.reports.acknowledged, ..memory.reports.last },
            orders_limit: 1000,
        };
        self.db.meet(at(self.now), self.bridge, self.connection, &memory_of_agent).unwrap()
    }

    /// The orders arrive, `most` of them, and are acknowledged.
    fn orders_arrive(&mut self, most: u32) {
        let after = self.site.queue.memory().unwrap().orders_received.n;
        let orders = self.db.orders_to_send(self.bridge, self.connection, after, most).unwrap().unwrap();
        for order in orders {
            let position = order.position.unwrap();
            match order.message().unwrap() {
                Message::Job(job) => {
                    let admission = match self.refused {
                        Some(refused) if refused == job.job_id => {
                            Err(Refusal::new(Code::RoomUnknown, "there is no such room"))
                        }
                        _ => Ok(admission(&job.order)),
                    };
                    let now = at(self.now);
                    let accept = |queue: &mut Queue| queue.accept(now, Some(position), job, admission, true);
                    self.site.commit(accept).unwrap();
                }
                Message::Cancel { job_id, ordered } => {
                    let now = at(self.now);
                    let cancel = |queue: &mut Queue| {
                        queue.cancel_ordered(now, Some(position), job_id, ordered.as_ref())
                    };
                    self.site.commit(cancel).unwrap();
                }
                other => panic!("{other:?}"),
            }
            self.db.orders_acknowledged(self.bridge, self.connection, position).unwrap();
        }
    }

    /// The reports arrive and are acknowledged.
    fn reports_arrive(&mut self) {
        let reports = self.site.queue.memory().unwrap().reports;
        let after = Position { n: reports.acknowledged, ..reports.last };
        for (position, message) in self.site.queue.hand_out_reports(after, 100).unwrap() {
            let Message::Outcome(report) = message else { panic!("{message:?}") };
            self.db.take_report(at(1), self.bridge, self.connection, position, &report).unwrap();
            self.site.queue.acknowledge_reports(position);
        }
    }

    fn order(&mut self, number: u128) {
        self.db.enqueue_job(at(1), self.bridge, &job(number, read())).unwrap();
    }

    fn cancel(&mut self, number: u128) {
        assert_eq!(self.db.enqueue_cancel(at(1), self.bridge, id(number)).unwrap(), Cancel::Ordered);
    }

    /// A person at the site has a card read.
    fn local_job_ends(&mut self, number: u128) {
        let job = job(number, read());
        let admission = admission(&job.order);
        self.site
            .commit(|queue| {
                let order = LocalOrder { job, origin: Origin::Person, retries: None };
                queue.accept_local(at(1), order, Ok(admission), true)
            })
            .unwrap();
        self.site.commit(|queue| queue.finish(at(2), id(number), written())).unwrap();
    }

    /// The jobs of the site's own that the cloud knows of.
    fn told(&mut self) -> Vec<String> {
        let mut statement =
            self.db.connection().prepare("SELECT job_id FROM local_job ORDER BY job_id").unwrap();
        let told = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        told.map(|job| job.unwrap().trim_start_matches(['0', '-']).to_owned()).collect()
    }

    /// The order is over in the cloud, and ended so.
    fn ended(&mut self, number: u128) -> JobState {
        assert_eq!(self.db.standing(id(number)).unwrap(), Some(Standing::Over));
        self.db.job_end(id(number)).unwrap().unwrap().state
    }
}

#[test]
fn a_cancel_that_took_its_jobs_place_ends_the_order_of_a_cloud_that_remembers_only_the_job() {
    let mut both = Both::new();
    both.meet();
    both.order(1);
    let backup = both.backup();
    // The line broke before the job arrived, so the cancel goes first, and takes its place in the stream.
    both.cancel(1);
    both.meet();
    both.orders_arrive(1);
    assert_eq!(both.site.queue.memory().unwrap().orders_received, Position { epoch: 1, n: 1 });
    both.put_back(&backup);
    // The cloud takes its job for the order that the bridge holds.
    both.meet();
    both.orders_arrive(100);
    both.reports_arrive();
    assert_eq!(both.ended(1), JobState::Cancelled);
}

#[test]
fn a_cancel_that_is_ordered_again_by_a_cloud_that_forgot_the_end_is_answered_with_it() {
    let mut both = Both::new();
    both.meet();
    both.order(1);
    let backup = both.backup();
    both.cancel(1);
    both.meet();
    both.orders_arrive(1);
    both.reports_arrive();
    both.put_back(&backup);
    both.meet();
    both.cancel(1);
    both.orders_arrive(100);
    both.reports_arrive();
    assert_eq!(both.ended(1), JobState::Cancelled);
}

#[test]
fn an_order_that_comes_again_after_this_side_forgot_it_is_not_called_expired() {
    let mut both = Both::new();
    both.meet();
    both.db.enqueue_job(at(1), both.bridge, &job(1, card(&["101"], "guest"))).unwrap();
    both.order(2);
    both.db.enqueue_job(at(1), both.bridge, &job(3, card(&["102"], "other"))).unwrap();
    both.db.enqueue_job(at(1), both.bridge, &job(5, card(&["103"], "third"))).unwrap();
    let backup = both.backup();
    both.orders_arrive(4);
    for number in [1, 2, 3, 5] {
        both.site.commit(|queue| queue.finish(at(2), id(number), written())).unwrap();
    }
    both.reports_arrive();
    // The reports that were acknowledged go with a later one.
    both.local_job_ends(9);
    // The deadline of every job was at 100 000.
    while 0 < both.site.commit(|queue| queue.purge(at(200_000))).unwrap() {}
    assert_eq!(both.site.queue.job(id(1)).unwrap(), None);
    both.put_back(&backup);
    both.restart();
    both.meet();
    both.now = 200_000;
    // What would end these today says nothing of what was done in their time.
    both.refused = Some(id(3));
    both.site.commit(|queue| queue.cancel(at(200_000), None, id(5))).unwrap();
    both.orders_arrive(100);
    both.reports_arrive();
    assert_eq!(both.site.claim(200_000), None, "nothing is done again");
    for number in [1, 3, 5] {
        assert_eq!(both.ended(number), JobState::Unknown, "{number}");
    }
    assert_eq!(both.ended(2), JobState::Expired, "to read a card once more, or not, is all the same");
    // What it cannot have forgotten, it calls by its name.
    let late = Job { expires_at: at(200_000), ..job(4, card(&["101"], "late")) };
    both.db.enqueue_job(at(1), both.bridge, &late).unwrap();
    both.orders_arrive(100);
    both.reports_arrive();
    assert_eq!(both.ended(4), JobState::Expired);
}

#[test]
fn an_order_that_comes_late_after_both_sides_were_set_back_is_not_called_expired() {
    let mut site = Site::new();
    site.commit(|queue| queue.restored(at(10))).unwrap();
    let made =
        |number, second, order| Job { created_at: at(second), expires_at: at(60), ..job(number, order) };
    let ended = |accepted| match accepted {
        Accepted::Ended(outcome) => outcome.state(),
        other => panic!("{other:?}"),
    };
    let guest = || card(&["101"], "guest");
    assert_eq!(ended(site.accept(100, made(1, 9, guest()), true)), JobState::Unknown);
    assert_eq!(ended(site.accept(100, made(2, 9, read()), true)), JobState::Expired);
    assert_eq!(ended(site.accept(100, made(3, 11, guest()), true)), JobState::Expired);
}

/// How a site's memory comes to be an older one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum SetBack {
    /// It is put back and told so, by a clock that says this.
    Told { second: i64 },
    /// It is put back, and its cloud finds out.
    FoundOut,
    /// It is another one, which is empty.
    Replaced,
    /// The same, before the cloud had heard a report; and what the cloud says at first is lost on the way.
    ReplacedAndCutOff,
}

/// Cards, a check-out and a door were ordered, done and reported; then the site's memory is set back to before that, and
/// goes on; then the cloud's is, to the moment when they were on their way. They are ordered again, and are not late.
fn both_are_set_back(set_back: SetBack) -> Both {
    let mut both = Both::new();
    let older = match set_back {
        SetBack::Replaced | SetBack::ReplacedAndCutOff => copy_of(both.site.folder.path()),
        SetBack::Told { .. } | SetBack::FoundOut => {
            both.meet();
            both.order_at(1, 7, read());
            copy_of(both.site.folder.path())
        }
    };
    both.meet();
    let orders = [card(&["101"], "guest"), checkout("101", "guest"), unlock("door"), read()];
    for (number, order) in (1..).zip(&orders) {
        both.db.enqueue_job(at(1), both.bridge, &job(number, order.clone())).unwrap();
    }
    let backup = both.backup();
    both.orders_arrive(100);
    for number in 1..=4 {
        if both.site.state(number) != JobState::Sent {
            assert_eq!(both.site.claim(2).unwrap().job.job_id, id(number));
        }
        both.site.commit(|queue| queue.finish(at(2), id(number), written())).unwrap();
    }
    if set_back != SetBack::ReplacedAndCutOff {
        both.reports_arrive();
    }
    both.site_is_put_back(&older);
    if let SetBack::Told { second } = set_back {
        both.site.commit(|queue| queue.restored(at(second))).unwrap();
    }
    both.now = 10;
    if set_back == SetBack::ReplacedAndCutOff {
        both.cloud_meets();
    }
    both.meet();
    both.reports_arrive();
    both.put_back(&backup);
    both.now = 20;
    both.meet();
    both.orders_arrive(100);
    both.reports_arrive();
    both
}

#[test]
fn what_a_memory_forgot_that_was_set_back_is_in_doubt_when_a_cloud_that_was_too_orders_it_again() {
    let clocks = [10, -1_000_000, 1_000_000].map(|second| SetBack::Told { second });
    for set_back in
        clocks.into_iter().chain([SetBack::FoundOut, SetBack::Replaced, SetBack::ReplacedAndCutOff])
    {
        let mut both = both_are_set_back(set_back);
        for number in 1..=3 {
            assert_eq!(both.ended(number), JobState::Unknown, "{number}, {set_back:?}");
        }
        // To read a card once more harms nobody.
        assert_eq!(both.site.state(4), JobState::Sent, "{set_back:?}");
    }
}

#[test]
fn a_memory_that_is_new_is_not_given_what_a_cloud_that_was_put_back_had_handed_to_another() {
    let mut both = Both::new();
    let empty = copy_of(both.site.folder.path());
    both.meet();
    both.db.enqueue_job(at(1), both.bridge, &job(1, card(&["101"], "guest"))).unwrap();
    both.db.orders_to_send(both.bridge, both.connection, 0, 1).unwrap().unwrap();
    let backup = both.backup();
    both.orders_arrive(1);
    both.site.commit(|queue| queue.finish(at(2), id(1), written())).unwrap();
    both.reports_arrive();
    both.put_back(&backup);
    both.db.restored().unwrap();
    both.site_is_put_back(&empty);
    both.now = 10;
    both.meet();
    both.orders_arrive(100);
    both.reports_arrive();
    assert_eq!(both.ended(1), JobState::Unknown);
    assert_eq!(both.order_at(11, 2, card(&["102"], "guest")), JobState::Sent);
}

#[test]
fn what_is_ordered_after_a_memory_that_was_set_back_met_its_cloud_is_done_whatever_its_host_took_the_time_for()
 {
    for second in [10, -1_000_000, 1_000_000] {
        let mut both = Both::new();
        both.meet();
        both.site.commit(|queue| queue.restored(at(second))).unwrap();
        both.now = 10;
        both.meet();
        assert_eq!(both.order_at(10, 1, card(&["101"], "guest")), JobState::Unknown, "{second}");
        assert_eq!(both.order_at(11, 2, card(&["102"], "guest")), JobState::Sent, "{second}");
        // The cloud alone forgets that: the site knows.
        let backup = both.backup();
        assert_eq!(both.order_at(12, 3, card(&["103"], "guest")), JobState::Sent, "{second}");
        both.put_back(&backup);
        both.meet();
        both.db.enqueue_job(at(12), both.bridge, &job(3, card(&["103"], "guest"))).unwrap();
        both.orders_arrive(100);
        both.reports_arrive();
        assert_eq!(both.ended(3), JobState::Succeeded, "{second}");
    }
}

#[test]
fn a_cloud_whose_clock_was_ahead_when_a_memory_that_was_set_back_met_it_makes_nothing_doubtful_for_longer() {
    let mut both = Both::new();
    both.meet();
    both.site.commit(|queue| queue.restored(at(10))).unwrap();
    both.now = 90_000;
    both.meet();
    both.now = 20;
    assert_eq!(both.order_at(20, 1, card(&["101"], "guest")), JobState::Unknown);
    both.meet();
    assert_eq!(both.order_at(21, 2, card(&["102"], "guest")), JobState::Sent);
}

#[test]
fn a_clock_that_ran_ahead_while_no_job_was_purged_makes_no_order_doubtful() {
    let mut site = Site::new();
    site.commit(|queue| queue.cancel(at(1), None, id(9))).unwrap();
    site.done(1, job(1, read()));
    assert_eq!(site.commit(|queue| queue.purge(at(90_000))).unwrap(), 1, "only the cancel that came ahead");
    assert_eq!(
        site.commit(|queue| queue.purge(at(500_000))).unwrap(),
        1,
        "the job, whose deadline was at 100 000"
    );
    let late = |number, deadline| Job { expires_at: at(deadline), ..job(number, card(&["101"], "guest")) };
    let ended = |accepted| match accepted {
        Accepted::Ended(outcome) => outcome.state(),
        other => panic!("{other:?}"),
    };
    assert_eq!(ended(site.accept(200_000, late(2, 100_001), true)), JobState::Expired);
    assert_eq!(ended(site.accept(200_000, late(3, 100_000), true)), JobState::Unknown);
}

#[test]
fn a_cloud_that_forgot_what_the_site_did_of_its_own_is_told_again() {
    let mut both = Both::new();
    both.meet();
    both.local_job_ends(1);
    both.reports_arrive();
    let backup = both.backup();
    both.local_job_ends(2);
    both.local_job_ends(3);
    both.reports_arrive();
    both.put_back(&backup);
    // It was not told of by the cloud that forgot the others.
    both.local_job_ends(4);
    assert_eq!(both.told(), ["1"]);
    both.meet();
    both.reports_arrive();
    assert_eq!(both.told(), ["1", "2", "3", "4"]);
}

/// A card was ordered, and then written and reported from a memory that is gone: the machine was put back to before that.
fn put_back_after_a_card(both: &mut Both) {
    both.meet();
    let accept = |queue: &mut Queue| {
        let job = job(1, card_at("2", &["101"], "guest"));
        let admission = admission(&job.order);
        queue.accept(at(1), Some(Position { epoch: 1, n: 1 }), job, Ok(admission), false)
    };
    both.db.enqueue_job(at(1), both.bridge, &job(1, card_at("2", &["101"], "guest"))).unwrap();
    both.db.orders_to_send(both.bridge, both.connection, 0, 1).unwrap().unwrap();
    both.site.commit(accept).unwrap();
    both.db.orders_acknowledged(both.bridge, both.connection, Position { epoch: 1, n: 1 }).unwrap();
    let old = copy_of(both.site.folder.path());
    let lane = admission(&card_at("2", &["101"], "guest")).lane;
    both.site.commit(|queue| queue.claim(at(2), &lane)).unwrap().unwrap();
    both.site.commit(|queue| queue.finish(at(2), id(1), written())).unwrap();
    both.reports_arrive();
    let storage = Storage::folder(old.path());
    both.site = Site::at(old, storage, |_| {});
}

#[test]
fn an_old_memory_that_no_order_shows_is_known_by_the_reports_that_the_cloud_holds() {
    let mut both = Both::new();
    put_back_after_a_card(&mut both);
    // What is numbered before both meet has a number that the cloud already holds.
    both.local_job_ends(2);
    both.meet();
    assert_eq!(both.site.queue.job(id(1)).unwrap().unwrap().view.state, JobState::Unknown);
    both.reports_arrive();
    assert_eq!(both.ended(1), JobState::Succeeded);
    assert_eq!(both.told(), ["2"]);
}

#[test]
fn an_old_memory_is_known_however_often_it_was_opened_before_it_met_its_cloud() {
    let mut both = Both::new();
    put_back_after_a_card(&mut both);
    both.local_job_ends(2);
    both.restart();
    both.local_job_ends(3);
    both.restart();
    both.meet();
    assert_eq!(both.site.queue.job(id(1)).unwrap().unwrap().view.state, JobState::Unknown);
    both.reports_arrive();
    assert_eq!(both.ended(1), JobState::Succeeded);
    assert_eq!(both.told(), ["2", "3"]);
}

#[test]
fn an_old_memory_with_its_running_agent_is_known_although_it_was_opened_again_before_it_met_its_cloud() {
    let mut both = Both::new();
    both.meet();
    both.local_job_ends(1);
    both.reports_arrive();
    // The machine goes on, and then its agent is back where it was, as it ran: its connection is none any more.
    let copy = copy_of(both.site.folder.path());
    let storage = Storage::folder(copy.path());
    let snapshot = std::mem::replace(&mut both.site, Site::at(copy, storage, |_| {}));
    both.meet();
    both.local_job_ends(2);
    both.reports_arrive();
    both.site = snapshot;
    both.site.queue.parted();
    both.local_job_ends(3);
    both.restart();
    both.meet();
    assert_eq!(both.site.queue.memory().unwrap().reports.last.epoch, 2);
    both.reports_arrive();
    assert_eq!(both.told(), ["1", "2", "3"]);
}

#[test]
fn a_memory_that_went_on_is_never_taken_for_an_old_one() {
    let mut both = Both::new();
    both.meet();
    let mut epochs = Vec::new();
    for number in (1..).step_by(5).take(3) {
        // Numbered alone, alone after another start, met with it unsaid, and once it was said.
        both.local_job_ends(number);
        both.restart();
        both.local_job_ends(number + 1);
        both.meet();
        both.local_job_ends(number + 2);
        both.restart();
        both.meet();
        both.reports_arrive();
        both.local_job_ends(number + 3);
        both.reports_arrive();
        // The connection broke, and what was numbered since is told over the next one.
        both.site.queue.parted();
        both.local_job_ends(number + 4);
        both.meet();
        both.reports_arrive();
        both.site.queue.parted();
        both.restart();
        epochs.push(both.site.queue.memory().unwrap().reports.last.epoch);
    }
    assert_eq!(epochs, [1, 1, 1]);
    assert_eq!(both.told().len(), 15);
}
