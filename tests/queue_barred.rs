//! Codes that a desk took back and that may not be taken out of their locks: they are told, kept, and taken out once the
//! configuration lets them.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod queue_support;

use std::collections::BTreeSet;

use jiff::Timestamp;
use latchd::{
    model::{
        Admission, Code, Job, JobState, Kind, LaneName, Order, Origin, Outcome, Refusal, Resolution, Success,
        SystemName, Verdict,
    },
    queue::{Accepted, BarredRemoval, JobFilter, LocalOrder, Rules},
};
use queue_support::*;

/// As far away as a removal's deadline is.
const NEVER: i64 = 221_845_392_000;

fn done() -> Outcome {
    Outcome::Succeeded(Success::default())
}

fn forbidding(mut rules: Rules) -> Rules {
    rules.limits.forbidden_kinds = vec![Kind::SlotRemove];
    rules
}

/// A site whose lock holds a code until second 900.
fn with_a_code() -> Site {
    let mut site = Site::new();
    site.done_with(1, job(1, put("a", 1, 0, Some(900))));
    site
}

fn gone(system: &SystemName) -> Refusal {
    Refusal::new(Code::SystemUnknown, format!("this site has no system {system}"))
}

impl Site {
    fn done_with(&mut self, now: i64, job: Job) {
        let job_id = self.send(now, job).job.job_id;
        self.commit(|queue| queue.finish(at(now), job_id, done())).unwrap();
    }

    /// A desk takes a code back; its system is in the configuration, or is not.
    fn takes_back(&mut self, now: i64, number: u128, is_there: bool) -> Accepted {
        let never = Timestamp::from_second(NEVER).unwrap();
        let job = Job { created_at: at(now), expires_at: never, ..job(number, remove("a")) };
        let admission = if is_there { Ok(admission(&job.order)) } else { Err(gone(&job.system)) };
        let order = LocalOrder { job, origin: Origin::Person, retries: None };
        self.commit(|queue| queue.take_out(at(now), order, admission)).unwrap()
    }

    /// The site is configured anew.
    fn is_configured(&mut self, now: i64, rules: Rules, is_there: bool) -> BTreeSet<LaneName> {
        let admit = |system: &SystemName, order: &Order| -> Result<Admission, Refusal> {
            if is_there { Ok(admission(order)) } else { Err(gone(system)) }
        };
        self.rules = rules;
        let rules = self.rules.clone();
        self.commit(|queue| {
            queue.set_rules(rules);
            queue.judge_removals(at(now), admit)
        })
        .unwrap()
    }

    fn barred(&self) -> Vec<(u128, Code)> {
        let barred = self.queue.barred_removals(5).unwrap();
        assert_eq!(barred.count, barred.first.len() as u64);
        let named = |removal: BarredRemoval| {
            assert_eq!((removal.system, removal.device.as_str()), (system(), "door"));
            (removal.job_id.0.as_u128(), removal.why)
        };
        barred.first.into_iter().map(named).collect()
    }

    /// What is done next, once its time has come; it goes well.
    fn works(&mut self, now: i64) -> Vec<Order> {
        self.commit(|queue| queue.come_due(at(now))).unwrap();
        let mut orders = Vec::new();
        while let Some(claimed) = self.commit(|queue| queue.claim(at(now), &lane("1"))).unwrap() {
            self.commit(|queue| queue.finish(at(now), claimed.job.job_id, done())).unwrap();
            orders.push(claimed.job.order);
        }
        orders
    }

    fn may_open(&self) -> bool {
        self.queue.slots().unwrap().iter().any(|slot| slot.may_open)
    }

    fn unfinished(&self) -> usize {
        let jobs = self.queue.jobs(JobFilter::default()).unwrap();
        jobs.iter().filter(|job| job.state == JobState::Waiting).count()
    }
}

#[test]
fn what_may_not_be_taken_out_is_told_and_taken_out_once_the_configuration_lets_it() {
    let open = rules();
    for (barred_by, is_there, why) in
        [(forbidding(open.clone()), true, Code::SiteForbidsKind), (open.clone(), false, Code::SystemUnknown)]
    {
        let mut site = with_a_code();
        assert!(site.is_configured(2, barred_by, is_there).is_empty());
        assert_eq!(site.takes_back(2, 2, is_there), Accepted::Waiting, "{why:?}");
        assert_eq!(site.barred(), [(2, why)]);
        assert!(site.audited().contains(&why.as_str().to_owned()));
        site = site.crash();
        assert_eq!(site.barred(), [(2, why)], "it is known after a restart");
        assert_eq!(site.works(3), [], "{why:?}");
        assert!(site.may_open());
        assert_eq!(site.is_configured(4, open.clone(), true), BTreeSet::from([lane("1")]));
        assert_eq!(site.barred(), []);
        assert_eq!(site.works(5), [remove("a")]);
        assert_eq!((site.state(2), site.may_open()), (JobState::Succeeded, false));
        assert_eq!(site.unfinished(), 0, "nothing is left to be done at its end");
        assert_eq!(site.works(900), []);
    }
}

#[test]
fn what_waits_is_held_where_the_configuration_stops_letting_it_be_done() {
    for is_there in [true, false] {
        let mut site = with_a_code();
        assert_eq!(site.takes_back(2, 2, true), Accepted::Waiting);
        let rules = if is_there { forbidding(rules()) } else { rules() };
        site.is_configured(3, rules, is_there);
        let why = if is_there { Code::SiteForbidsKind } else { Code::SystemUnknown };
        assert_eq!(site.barred(), [(2, why)]);
        // Its own removal had gone with the desk's word, and is there again: the end holds whatever the site forbids.
        assert_eq!(site.works(899), []);
        assert_eq!(site.works(900), [remove("a")]);
        assert_eq!((site.barred(), site.may_open()), (vec![], false));
        assert_eq!(site.state(2), JobState::Superseded, "another took out what it was to");
    }
}

#[test]
fn why_it_may_not_be_done_is_told_as_it_is_by_now() {
    let mut site = with_a_code();
    site.is_configured(2, forbidding(rules()), true);
    site.takes_back(2, 2, true);
    site.is_configured(3, rules(), false);
    assert_eq!(site.barred(), [(2, Code::SystemUnknown)]);
    site.is_configured(4, rules(), false);
    assert_eq!(site.barred(), [(2, Code::SystemUnknown)]);
}

#[test]
fn a_code_that_is_on_its_way_into_a_lock_is_held_for_and_one_that_waits_is_never_put() {
    for (is_put, state) in [(true, JobState::Waiting), (false, JobState::Superseded)] {
        let mut site = Site::new();
        let claimed = site.send(0, job(1, put("a", 1, 0, Some(900))));
        site.is_configured(1, forbidding(rules()), true);
        assert_eq!(site.takes_back(1, 2, true), Accepted::Waiting);
        let outcome = if is_put { done() } else { Outcome::failed(Code::DeviceBusy, "at work") };
        site.commit(|queue| queue.finish(at(2), claimed.job.job_id, outcome)).unwrap();
        assert_eq!((site.state(2), site.may_open()), (state, is_put));
        let at_end = if is_put { vec![remove("a")] } else { vec![] };
        assert_eq!((site.works(3), site.works(900)), (vec![], at_end));
    }
    let mut site = Site::new();
    site.is_configured(0, forbidding(rules()), true);
    assert_eq!(site.accept(0, job(1, put("a", 1, 0, Some(900))), false), Accepted::Waiting);
    assert!(matches!(site.takes_back(1, 2, true), Accepted::Ended(Outcome::Failed(_))));
    assert_eq!((site.state(1), site.works(2), site.barred()), (JobState::Superseded, vec![], vec![]));
}

#[test]
fn a_put_that_was_superseded_leaves_the_end_of_what_was_there_in_force() {
    let mut site = with_a_code();
    assert_eq!(site.accept(2, job(2, put("a", 2, 0, Some(1900))), false), Accepted::Waiting);
    site.is_configured(3, forbidding(rules()), true);
    assert_eq!(site.takes_back(3, 3, true), Accepted::Waiting);
    assert_eq!(site.state(2), JobState::Superseded);
    assert_eq!((site.works(899), site.works(900)), (vec![], vec![remove("a")]));
}

#[test]
fn a_doubt_that_is_settled_as_not_done_ends_what_is_held_for_it() {
    let mut site = Site::new();
    let claimed = site.send(0, job(1, put("a", 1, 0, Some(900))));
    let silent = Outcome::unknown(Code::NoAnswer, "silent");
    site.commit(|queue| queue.finish(at(1), claimed.job.job_id, silent)).unwrap();
    site.is_configured(2, forbidding(rules()), true);
    assert_eq!(site.takes_back(2, 2, true), Accepted::Waiting);
    let word = Resolution { verdict: Verdict::NotDone, by: "Ada".into() };
    site.commit(|queue| queue.resolve(at(3), id(1), word)).unwrap().unwrap();
    assert_eq!((site.state(2), site.barred()), (JobState::Superseded, vec![]));
}

#[test]
fn the_clouds_newer_order_takes_the_place_of_what_is_held() {
    let mut site = with_a_code();
    site.is_configured(2, forbidding(rules()), true);
    site.takes_back(2, 2, true);
    // It has not heard of the desk's word.
    let early = site.accept(3, job(3, put("a", 2, 0, Some(900))), false);
    assert_eq!(early, Accepted::Ended(Outcome::Superseded));
    assert_eq!(site.barred(), [(2, Code::SiteForbidsKind)]);
    site.commit(|queue| queue.cancel(at(4), None, id(2))).unwrap();
    assert_eq!((site.state(2), site.barred()), (JobState::Cancelled, vec![]), "a person may call it off");
}

#[test]
fn removals_that_never_expire_are_purged_once_their_slots_are_long_empty() {
    let mut site = with_a_code();
    assert_eq!(site.takes_back(2, 2, true), Accepted::Waiting);
    let never = Timestamp::from_second(NEVER).unwrap();
    let purge = |site: &mut Site, before: i64| {
        while site.commit(|queue| queue.purge(at(before))).unwrap() > 0 {}
    };
    purge(&mut site, 100_000);
    assert_eq!(site.state(2), JobState::Waiting, "what is to be done is kept");
    site.works(1000);
    let by_cloud = Job { expires_at: never, ..job(3, remove("b")) };
    site.accept(1000, by_cloud, false);
    site.works(1000);
    purge(&mut site, 1000);
    assert_eq!(site.state(2), JobState::Succeeded, "it says who had the slot emptied");
    purge(&mut site, 120_000);
    assert_eq!(
        (site.queue.jobs(JobFilter::default()).unwrap(), site.queue.slots().unwrap()),
        (vec![], vec![])
    );
    // Its far deadline says nothing of other jobs: one that comes late simply comes late.
    let late = Job { expires_at: at(150_000), ..job(4, unlock("door")) };
    assert_eq!(site.refused_state(200_000, late), JobState::Expired);
}

#[test]
fn many_removals_go_in_slices() {
    let mut site = Site::new();
    let never = Timestamp::from_second(NEVER).unwrap();
    for number in 1..=600 {
        let removal = Job { expires_at: never, ..job(number, remove(&format!("slot {number}"))) };
        let order = LocalOrder { job: removal, origin: Origin::Person, retries: None };
        let admission = admission(&order.job.order);
        site.commit(|queue| queue.take_out(at(1), order, Ok(admission))).unwrap();
    }
    assert_eq!(site.works(2).len(), 600);
    let jobs = |site: &Site| site.queue.jobs(JobFilter::default()).unwrap().len();
    let mut left = vec![jobs(&site)];
    while site.commit(|queue| queue.purge(at(100_000))).unwrap() > 0 {
        let now = jobs(&site);
        assert!(left[left.len() - 1] - now <= 500, "one commit holds nobody up");
        left.push(now);
    }
    assert_eq!(left.last(), Some(&0));
}

impl Site {
    fn refused_state(&mut self, now: i64, job: Job) -> JobState {
        match self.accept(now, job, true) {
            Accepted::Ended(outcome) => outcome.state(),
            other => panic!("{other:?}"),
        }
    }
}
