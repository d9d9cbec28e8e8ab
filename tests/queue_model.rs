//! The queue against a plain model of it in memory: random orders, ends, cuts and reopenings, compared after each.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use std::collections::{BTreeMap, BTreeSet};

use latchd::{
    model::{JobState, Priority, Resolution, Verdict},
    protocol::{Message, Position},
    queue::{Accepted, CancelAnswer},
};
use proptest::prelude::*;
use queue_support::*;

/// More than any pause between attempts.
const LONG: i64 = 60;

#[derive(Debug, Clone)]
enum Step {
    Accept {
        number: u128,
        lane: u8,
        desk: bool,
        lasts: i64,
        may_send: bool,
        /// Whether the message was delivered before, under the same position.
        again: bool,
    },
    Claim {
        lane: u8,
    },
    Finish {
        pick: usize,
        end: JobState,
    },
    Unsend {
        pick: usize,
    },
    Cancel {
        number: u128,
    },
    Expire,
    Wait,
    Crash,
    Resolve {
        number: u128,
        done: bool,
    },
    Acknowledge {
        part: u64,
    },
    NewEpoch,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![Just(JobState::Succeeded), Just(JobState::Failed), Just(JobState::Unknown)];
    let lasts = prop_oneof![Just(LONG), Just(3 * LONG), Just(1000 * LONG)];
    prop_oneof![
        8 => (0..16_u128, 0..2_u8, any::<bool>(), lasts, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(number, lane, desk, lasts, may_send, again)| Step::Accept { number, lane, desk, lasts, may_send, again }
        ),
        5 => (0..2_u8).prop_map(|lane| Step::Claim { lane }),
        5 => (0..4_usize, end).prop_map(|(pick, end)| Step::Finish { pick, end }),
        2 => (0..4_usize).prop_map(|pick| Step::Unsend { pick }),
        2 => (0..16_u128).prop_map(|number| Step::Cancel { number }),
        1 => Just(Step::Expire),
        2 => Just(Step::Wait),
        1 => Just(Step::Crash),
        2 => (0..16_u128, any::<bool>()).prop_map(|(number, done)| Step::Resolve { number, done }),
        2 => (0..=4_u64).prop_map(|part| Step::Acknowledge { part }),
        1 => Just(Step::NewEpoch),
    ]
}

#[derive(Debug, Clone)]
struct Known {
    state: JobState,
    lane: u8,
    desk: bool,
    arrived: usize,
    expires_at: i64,
    attempt: u32,
    /// Not to be sent before the next wait.
    pauses: bool,
    cancel_wanted: bool,
    /// What was reported of it, by revision.
    told: Vec<(u8, JobState)>,
}

#[derive(Debug, Default)]
struct Model {
    now: i64,
    jobs: BTreeMap<u128, Known>,
    ahead: BTreeSet<u128>,
    orders: u64,
    epoch: u64,
    /// Every report of this epoch: job, revision, state told.
    reports: Vec<(u128, u8, JobState)>,
    acknowledged: usize,
}

impl Model {
    fn end(&mut self, number: u128, state: JobState) {
        self.jobs.get_mut(&number).unwrap().state = state;
        self.tell(number, 1, state);
    }

    fn tell(&mut self, number: u128, revision: u8, state: JobState) {
        self.jobs.get_mut(&number).unwrap().told.push((revision, state));
        self.reports.push((number, revision, state));
    }

    /// An order for a job that the site knows: it is told again, unless it is about to be told anyway.
    fn ordered_again(&mut self, number: u128) {
        if self.reports[self.acknowledged..].iter().all(|(told, _, _)| *told != number) {
            let told = self.jobs[&number].told.iter();
            self.reports.extend(told.map(|(revision, state)| (number, *revision, *state)));
        }
    }

    fn ready(&self, lane: u8) -> Option<u128> {
        let waits = |job: &Known| job.lane == lane && job.state == JobState::Waiting && !job.pauses;
        let ready = self.jobs.iter().filter(|(_, job)| waits(job));
        ready.min_by_key(|(_, job)| (!job.desk, job.arrived)).map(|(number, _)| *number)
    }

    fn claim(&mut self, lane: u8) -> Option<(u128, u32)> {
        while let Some(number) = self.ready(lane) {
            let job = self.jobs.get_mut(&number).unwrap();
            if job.expires_at > self.now {
                job.state = JobState::Sent;
                job.attempt += 1;
                return Some((number, job.attempt));
            }
            self.end(number, JobState::Expired);
        }
        None
    }

    fn accept(&mut self, number: u128, job: Known, may_send: bool) -> JobState {
        let lane = job.lane;
        let late = job.expires_at <= self.now;
        self.jobs.insert(number, job);
        if self.ahead.remove(&number) {
            self.end(number, JobState::Cancelled);
        } else if late {
            self.end(number, JobState::Expired);
        } else if may_send && self.ready(lane) == Some(number) && self.ready_count(lane) == 1 {
            self.claim(lane);
        }
        self.jobs[&number].state
    }

    fn ready_count(&self, lane: u8) -> usize {
        let waits = |job: &&Known| job.lane == lane && job.state == JobState::Waiting && !job.pauses;
        self.jobs.values().filter(waits).count()
    }

    fn sent(&self) -> Vec<u128> {
        let mut sent: Vec<_> = self.jobs.iter().filter(|(_, job)| job.state == JobState::Sent).collect();
        sent.sort_by_key(|(_, job)| job.arrived);
        sent.into_iter().map(|(number, _)| *number).collect()
    }
}

fn state_of(accepted: &Accepted) -> JobState {
    match accepted {
        Accepted::Duplicate => panic!("a new job was taken for an old one"),
        Accepted::Ended(outcome) => outcome.state(),
        Accepted::Waiting => JobState::Waiting,
        Accepted::Sent(_) => JobState::Sent,
    }
}

fn run(site: &mut Site, model: &mut Model, step: Step) {
    let now = at(model.now);
    match step {
        Step::Accept { number, lane: line, desk, lasts, may_send, again } => {
            let again = again && model.orders > 0;
            if !again {
                model.orders += 1;
            }
            let position = Position { epoch: 1, n: model.orders };
            let mut job = job(number, card_at(&line.to_string(), &["gym"], &line.to_string()));
            job.priority = if desk { Priority::Desk } else { Priority::Background };
            job.expires_at = at(model.now + lasts);
            let admission = admission(&job.order);
            let accepted =
                site.commit(|queue| queue.accept(now, Some(position), job, Ok(admission), may_send)).unwrap();
            if again || model.jobs.contains_key(&number) {
                assert_eq!(accepted, Accepted::Duplicate);
                if !again {
                    model.ordered_again(number);
                }
                return;
            }
            let known = Known {
                state: JobState::Waiting,
                lane: line,
                desk,
                arrived: model.jobs.len(),
                expires_at: model.now + lasts,
                attempt: 0,
                pauses: false,
                cancel_wanted: false,
                told: Vec::new(),
            };
            assert_eq!(state_of(&accepted), model.accept(number, known, may_send));
        }
        Step::Claim { lane: line } => {
            let claimed = site.commit(|queue| queue.claim(now, &lane(&line.to_string()))).unwrap();
            let claimed = claimed.map(|claimed| (claimed.job.job_id.0.as_u128(), claimed.attempt));
            assert_eq!(claimed, model.claim(line));
        }
        Step::Finish { pick, end } => {
            let Some(number) = model.sent().get(pick).copied() else {
                return;
            };
            let outcome = match end {
                JobState::Succeeded => written(),
                JobState::Failed => no_card(),
                _ => no_answer(),
            };
            site.commit(|queue| queue.finish(now, id(number), outcome)).unwrap();
            model.end(number, end);
        }
        Step::Unsend { pick } => {
            let Some(number) = model.sent().get(pick).copied() else {
                return;
            };
            site.commit(|queue| queue.unsend(now, id(number), &line_down())).unwrap();
            let job = model.jobs.get_mut(&number).unwrap();
            job.pauses = true;
            job.state = JobState::Waiting;
            if job.cancel_wanted {
                model.end(number, JobState::Cancelled);
            }
        }
        Step::Cancel { number } => {
            model.orders += 1;
            let position = Position { epoch: 1, n: model.orders };
            let answer = site.commit(|queue| queue.cancel(now, Some(position), id(number))).unwrap();
            let expected = match model.jobs.get_mut(&number).map(|job| (job.state, job)) {
                None => {
                    model.ahead.insert(number);
                    CancelAnswer::NotKnown
                }
                Some((JobState::Waiting, _)) => {
                    model.end(number, JobState::Cancelled);
                    CancelAnswer::Cancelled
                }
                Some((state, job)) => {
                    job.cancel_wanted |= state == JobState::Sent;
                    CancelAnswer::TooLate(state)
                }
            };
            assert_eq!(answer, expected);
        }
        Step::Expire => {
            let expired = site.commit(|queue| queue.expire(now)).unwrap();
            let late = |job: &Known| job.state == JobState::Waiting && job.expires_at <= model.now;
            let mut due: Vec<_> = model.jobs.iter().filter(|(_, job)| late(job)).collect();
            due.sort_by_key(|(_, job)| (job.expires_at, job.arrived));
            let due: Vec<_> = due.into_iter().map(|(number, _)| *number).collect();
            assert_eq!(expired, due.iter().map(|number| id(*number)).collect::<Vec<_>>());
            for number in due {
                model.end(number, JobState::Expired);
            }
        }
        Step::Wait => {
            model.now += LONG;
            for job in model.jobs.values_mut() {
                job.pauses = false;
            }
        }
        Step::Crash => {
            // The acknowledgement may be forgotten; the cloud repeats it when both meet again.
            let acknowledged = model.acknowledged as u64;
            replace(site);
            site.queue.acknowledge_reports(Position { epoch: model.epoch, n: acknowledged });
            let sent = model.sent();
            let recovered = site.commit(|queue| queue.recover(now)).unwrap();
            assert_eq!(recovered, sent.iter().map(|number| id(*number)).collect::<Vec<_>>());
            for number in sent {
                model.end(number, JobState::Unknown);
            }
        }
        Step::Resolve { number, done } => {
            let (verdict, state) = match done {
                true => (Verdict::Done, JobState::Succeeded),
                false => (Verdict::NotDone, JobState::Failed),
            };
            let resolution = Resolution { verdict, by: "Ada".into() };
            let answer = site.commit(|queue| queue.resolve(now, id(number), resolution)).unwrap();
            let doubtful = model.jobs.get_mut(&number).filter(|job| job.state == JobState::Unknown);
            assert_eq!(answer.is_ok(), doubtful.is_some(), "{answer:?}");
            if let Some(job) = doubtful {
                job.state = state;
                model.tell(number, 2, state);
            }
        }
        Step::Acknowledge { part } => {
            let left = (model.reports.len() - model.acknowledged) as u64;
            model.acknowledged += usize::try_from(left * part / 4).unwrap();
            let n = model.acknowledged as u64;
            site.queue.acknowledge_reports(Position { epoch: model.epoch, n });
        }
        Step::NewEpoch => {
            model.epoch += 1;
            site.commit(|queue| queue.begin_reports_epoch(model.epoch)).unwrap();
            model.reports.drain(..model.acknowledged);
            model.acknowledged = 0;
        }
    }
}

/// Puts the site after a crash in the place of the one before.
fn replace(site: &mut Site) {
    let crashed = std::mem::replace(site, Site::new());
    *site = crashed.crash();
}

fn compare(site: &Site, model: &Model) {
    for number in 0..16 {
        let stored =
            site.queue.job(id(number)).unwrap().map(|detail| (detail.view.state, detail.view.attempt));
        assert_eq!(stored, model.jobs.get(&number).map(|job| (job.state, job.attempt)), "job {number}");
    }
    let memory = site.queue.memory().unwrap();
    assert_eq!(memory.orders_received.n, model.orders);
    let last = Position { epoch: model.epoch, n: model.reports.len() as u64 };
    assert_eq!((memory.reports.last, memory.reports.acknowledged), (last, model.acknowledged as u64));
    let after = Position { epoch: model.epoch, n: memory.reports.acknowledged };
    let stored: Vec<_> = site
        .queue
        .reports_after(after, 1000)
        .unwrap()
        .into_iter()
        .map(|(position, message)| {
            let (Message::Outcome(report) | Message::Resolution(report)) = message else {
                panic!("{message:?}")
            };
            (position.n, report.job_id.0.as_u128(), report.revision, report.outcome.state())
        })
        .collect();
    let expected: Vec<_> = (1..)
        .zip(&model.reports)
        .skip(model.acknowledged)
        .map(|(n, (number, revision, state))| (n, *number, *revision, *state))
        .collect();
    assert_eq!(stored, expected);
    let waiting = model.jobs.values().filter(|job| job.state == JobState::Waiting);
    assert_eq!(site.queue.next_expiry().unwrap(), waiting.map(|job| at(job.expires_at)).min());
    let counts = site.queue.counts().unwrap().by_state;
    for state in JobState::ALL {
        let expected = model.jobs.values().filter(|job| job.state == state).count() as u64;
        assert_eq!(counts.get(&state).copied().unwrap_or(0), expected, "{state}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut site = Site::new();
        let mut model = Model { epoch: 1, ..Model::default() };
        for step in steps {
            run(&mut site, &mut model, step);
            compare(&site, &model);
        }
    }
}
