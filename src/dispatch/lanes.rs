//! The lanes' states: pure, in memory. Time comes in as `now`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::{JobId, LaneName, Priority, Refusal, SystemName};

/// So many failures to reach the device in a row, and the lane rests.
const FAILURES: u32 = 3;
/// The first rest; each further failure doubles it,
const FIRST_REST: Duration = Duration::from_secs(5);
/// up to this.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// After so many jobs for people in a row, one that nobody waits for has its turn.
const DESK_TURNS: u32 = 4;

/// What a lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneState {
    /// Nothing.
    Free,
    /// The queue was asked for its next job.
    Reserved,
    /// A job is at work, or it is being found out what became of it.
    Busy(JobId),
}

/// Why a lane gets no work for a while: its device could not be reached several times in a row. When the time is over
/// one job is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// Until when.
    pub until: Instant,
    /// What the last job failed for.
    pub why: Refusal,
}

/// A lane as it stands.
#[derive(Debug, Clone, Copy)]
pub struct LaneView<'a> {
    /// Its name.
    pub name: &'a LaneName,
    /// The system whose driver declared it.
    pub system: &'a SystemName,
    /// What it is doing.
    pub state: LaneState,
    /// Whether a person has paused it.
    pub paused: bool,
    /// Whether it rests because its device cannot be reached.
    pub rest: Option<&'a Rest>,
    /// Why its device could not be reached the last times, from its first rest until it is reached.
    pub unreached: Option<&'a Refusal>,
    /// Whether its driver holds it back, because a command was not answered.
    pub held: Option<&'a Rest>,
}

#[derive(Debug)]
struct Lane {
    system: SystemName,
    state: LaneState,
    /// When a job that waits for another attempt becomes ready. Monotonic: a clock that is put right moves no retry.
    retry_at: Option<Instant>,
    /// Somebody wanted it while it was reserved: the answer under way may not know of the latest job.
    wanted: bool,
    paused: bool,
    failures: u32,
    rest: Option<Rest>,
    unreached: Option<Refusal>,
    /// Its driver's wish.
    held: Option<Rest>,
    desk_turns: u32,
    /// No driver declares it any more; it goes when its job has ended.
    retired: bool,
}

/// All lanes of the site, in the order of their names.
#[derive(Debug, Default)]
pub struct Lanes {
    all: BTreeMap<LaneName, Lane>,
    /// Those that a person has paused, whether a driver declares them at present or not.
    paused: BTreeSet<LaneName>,
    /// Lanes that no driver declares any more and where jobs may wait.
    gone: BTreeSet<LaneName>,
}

impl Lanes {
    /// Adds a lane, or hands one that stands to the driver that declares it now.
    pub(super) fn add(&mut self, lane: LaneName, system: SystemName) {
        self.gone.remove(&lane);
        let paused = self.paused.contains(&lane);
        let lane = self.all.entry(lane).or_insert_with(|| Lane {
            system: system.clone(),
            state: LaneState::Free,
            retry_at: None,
            wanted: false,
            paused,
            failures: 0,
            rest: None,
            unreached: None,
            held: None,
            desk_turns: 0,
            retired: false,
        });
        lane.system = system;
        lane.retired = false;
    }

    /// No driver declares these lanes any more.
    pub(super) fn retire(&mut self, system: &SystemName, kept: &[LaneName]) {
        for (name, lane) in &mut self.all {
            lane.retired |= lane.system == *system && !kept.contains(name);
            if lane.retired {
                self.gone.insert(name.clone());
            }
        }
        self.all.retain(|_, lane| !lane.retired || lane.state != LaneState::Free);
    }

    /// Jobs wait in a lane.
    pub(super) fn waits_in(&mut self, lane: LaneName) {
        if !self.has(&lane) {
            self.gone.insert(lane);
        }
    }

    /// Lanes that no driver declares any more and where jobs may wait.
    pub(super) fn gone(&self) -> impl Iterator<Item = &LaneName> {
        self.gone.iter()
    }

    /// Every lane as it stands.
    pub fn iter(&self) -> impl Iterator<Item = LaneView<'_>> {
        self.all.iter().map(|(name, lane)| LaneView {
            name,
            system: &lane.system,
            state: lane.state,
            paused: lane.paused,
            rest: lane.rest.as_ref(),
            unreached: lane.unreached.as_ref(),
            held: lane.held.as_ref(),
        })
    }

    /// Whether there is such a lane.
    #[must_use]
    pub fn has(&self, lane: &LaneName) -> bool {
        self.all.contains_key(lane)
    }

    /// Whether a job is under way in a lane.
    pub(super) fn is_busy(&self, lane: &LaneName) -> bool {
        self.all.get(lane).is_some_and(|lane| matches!(lane.state, LaneState::Busy(_)))
    }

    /// The system whose driver declared a lane.
    pub(super) fn system_of(&self, lane: &LaneName) -> Option<&SystemName> {
        self.all.get(lane).map(|lane| &lane.system)
    }

    /// What a lane's driver wishes now: that it is held back, or that it is not. Says whether that is new.
    pub(super) fn hold(&mut self, lane: &LaneName, held: Option<Rest>) -> bool {
        let Some(lane) = self.all.get_mut(lane) else { return false };
        let until = |rest: &Option<Rest>| rest.as_ref().map(|rest| rest.until);
        let is_new = until(&lane.held) != until(&held);
        lane.held = held;
        is_new
    }

    /// The lanes of a system that its driver holds back.
    pub(super) fn held_of(&self, system: &SystemName) -> Vec<LaneName> {
        let held = self.all.iter().filter(|(_, lane)| lane.system == *system && lane.held.is_some());
        held.map(|(name, _)| name.clone()).collect()
    }

    /// Reserves a free lane whose line is ready. One that is reserved already is remembered as wanted.
    pub(super) fn reserve(
        &mut self,
        lane: &LaneName,
        now: Instant,
        ready: impl Fn(&SystemName) -> bool,
    ) -> bool {
        match self.all.get_mut(lane) {
            Some(lane) if lane.state == LaneState::Free && lane.may_work(now) && ready(&lane.system) => {
                lane.state = LaneState::Reserved;
                lane.retry_at = None;
                lane.wanted = false;
                true
            }
            Some(lane) if lane.state == LaneState::Reserved => {
                lane.wanted = true;
                false
            }
            _ => false,
        }
    }

    /// Whether a lane may go on with another job right after one.
    pub(super) fn may_go_on(&self, lane: &LaneName, now: Instant) -> bool {
        self.all.get(lane).is_some_and(|lane| lane.may_work(now))
    }

    pub(super) fn reserve_again(&mut self, lane: &LaneName) {
        self.set(lane, LaneState::Reserved);
    }

    pub(super) fn begin(&mut self, lane: &LaneName, job_id: JobId) {
        self.set(lane, LaneState::Busy(job_id));
    }

    /// Takes a lane for a job that is at work there whatever its line is like. False when another one is.
    pub(super) fn take(&mut self, lane: &LaneName, job_id: JobId) -> bool {
        match self.all.get_mut(lane) {
            Some(lane) if lane.state == LaneState::Free => {
                lane.state = LaneState::Busy(job_id);
                true
            }
            _ => false,
        }
    }

    /// Counts whose turn it was.
    pub(super) fn had_turn(&mut self, lane: &LaneName, priority: Priority) {
        if let Some(lane) = self.all.get_mut(lane) {
            lane.desk_turns = match priority {
                Priority::Desk => lane.desk_turns.saturating_add(1),
                Priority::Background => 0,
            };
        }
    }

    /// Whether a job that nobody waits for should have the next turn.
    pub(super) fn owes_background(&self, lane: &LaneName) -> bool {
        self.all.get(lane).is_some_and(|lane| lane.desk_turns >= DESK_TURNS)
    }

    /// Frees a lane. Says whether it was wanted meanwhile, so that the queue has to be asked again.
    pub(super) fn free(&mut self, lane: &LaneName, retry_at: Option<Instant>) -> bool {
        let name = lane;
        let Some(lane) = self.all.get_mut(name) else { return false };
        lane.state = LaneState::Free;
        lane.retry_at = retry_at;
        let wanted = std::mem::take(&mut lane.wanted);
        if lane.retired {
            self.all.remove(name);
            return false;
        }
        wanted
    }

    pub(super) fn pause(&mut self, lane: &LaneName, paused: bool) {
        match paused {
            true => drop(self.paused.insert(lane.clone())),
            false => drop(self.paused.remove(lane)),
        }
        if let Some(lane) = self.all.get_mut(lane) {
            lane.paused = paused;
        }
    }

    /// The device was reached. Says whether that ends a row of failures that had the lane rest.
    pub(super) fn reached(&mut self, lane: &LaneName) -> bool {
        let Some(lane) = self.all.get_mut(lane) else { return false };
        lane.failures = 0;
        lane.rest = None;
        lane.unreached.take().is_some()
    }

    /// The device could not be reached. Gives the rest that begins with it, if one does.
    pub(super) fn not_reached(&mut self, lane: &LaneName, now: Instant, why: &Refusal) -> Option<Duration> {
        let lane = self.all.get_mut(lane)?;
        lane.failures = lane.failures.saturating_add(1);
        let doublings = lane.failures.checked_sub(FAILURES)?.min(8);
        let span = (FIRST_REST * (1 << doublings)).min(LONGEST_REST);
        lane.rest = Some(Rest { until: now + span, why: why.clone() });
        lane.unreached = Some(why.clone());
        Some(span)
    }

    pub(super) fn of(&self, system: &SystemName) -> Vec<LaneName> {
        self.all.iter().filter(|(_, lane)| lane.system == *system).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn names(&self) -> Vec<LaneName> {
        self.all.keys().cloned().collect()
    }

    /// When the next lane that does nothing should look for work again.
    pub(super) fn next_retry(&self, now: Instant) -> Option<Instant> {
        self.all.values().filter_map(|lane| lane.wakes_at(now)).min()
    }

    /// Lanes that should look for work again; each is given once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<LaneName> {
        let mut due = Vec::new();
        for (name, lane) in &mut self.all {
            let rested = lane.rest_until().is_some();
            let retries = lane.retry_at.is_some_and(|at| at <= now);
            if lane.state == LaneState::Free && lane.may_work(now) && (rested || retries) {
                lane.retry_at = None;
                lane.rest = None;
                lane.held = None;
                due.push(name.clone());
            }
        }
        due
    }

    fn set(&mut self, lane: &LaneName, state: LaneState) {
        if let Some(lane) = self.all.get_mut(lane) {
            lane.state = state;
        }
    }
}

impl Lane {
    fn may_work(&self, now: Instant) -> bool {
        !self.paused && !self.retired && self.rest_until().is_none_or(|until| until <= now)
    }

    /// When it rests no more, whoever wants it to.
    fn rest_until(&self) -> Option<Instant> {
        self.rest.iter().chain(&self.held).map(|rest| rest.until).max()
    }

    fn wakes_at(&self, now: Instant) -> Option<Instant> {
        if self.state != LaneState::Free || self.paused {
            return None;
        }
        self.rest_until().or_else(|| self.retry_at.map(|at| at.max(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Code;

    fn lane(name: &str) -> LaneName {
        LaneName::new(name).unwrap()
    }

    fn one() -> Lanes {
        let mut lanes = Lanes::default();
        lanes.add(lane("desk"), SystemName::new("salto").unwrap());
        lanes
    }

    fn offline() -> Refusal {
        Refusal::new(Code::DeviceOffline, "no answer")
    }

    #[test]
    fn a_lane_is_reserved_once_and_only_while_its_line_is_ready() {
        let mut lanes = one();
        let now = Instant::now();
        assert!(!lanes.reserve(&lane("desk"), now, |_| false));
        assert!(lanes.reserve(&lane("desk"), now, |_| true));
        assert!(!lanes.reserve(&lane("desk"), now, |_| true));
        assert!(!lanes.reserve(&lane("elsewhere"), now, |_| true));
        lanes.free(&lane("desk"), None);
        assert!(lanes.reserve(&lane("desk"), now, |_| true));
    }

    #[test]
    fn a_retry_is_due_once_and_forgotten_when_the_lane_takes_work() {
        let mut lanes = one();
        let now = Instant::now();
        let at = now + Duration::from_secs(1);
        lanes.free(&lane("desk"), Some(at));
        assert_eq!(lanes.next_retry(now), Some(at));
        assert!(lanes.due(now).is_empty());
        assert_eq!(lanes.due(at), [lane("desk")]);
        assert_eq!(lanes.next_retry(now), None);
        lanes.free(&lane("desk"), Some(at));
        assert!(lanes.reserve(&lane("desk"), now, |_| true));
        assert_eq!(lanes.next_retry(now), None);
    }

    #[test]
    fn a_lane_that_is_wanted_while_it_is_reserved_says_so_once_when_it_is_freed() {
        let mut lanes = one();
        let now = Instant::now();
        assert!(lanes.reserve(&lane("desk"), now, |_| true));
        assert!(!lanes.reserve(&lane("desk"), now, |_| true));
        assert!(lanes.free(&lane("desk"), None));
        assert!(lanes.reserve(&lane("desk"), now, |_| true));
        assert!(!lanes.free(&lane("desk"), None));
    }

    #[test]
    fn a_paused_lane_takes_nothing_and_wakes_nobody_until_it_is_resumed() {
        let mut lanes = one();
        let now = Instant::now();
        lanes.free(&lane("desk"), Some(now));
        lanes.pause(&lane("desk"), true);
        assert!(!lanes.reserve(&lane("desk"), now, |_| true));
        assert_eq!((lanes.next_retry(now), lanes.due(now)), (None, Vec::new()));
        lanes.pause(&lane("desk"), false);
        assert_eq!(lanes.due(now), [lane("desk")]);
    }

    #[test]
    fn the_third_failure_in_a_row_has_the_lane_rest_and_each_further_one_twice_as_long_up_to_a_minute() {
        let mut lanes = one();
        let mut now = Instant::now();
        let rests: Vec<_> = (0..8)
            .map(|_| {
                let rest = lanes.not_reached(&lane("desk"), now, &offline());
                now += rest.unwrap_or_default();
                rest.map(|rest| rest.as_secs())
            })
            .collect();
        assert_eq!(rests, [None, None, Some(5), Some(10), Some(20), Some(40), Some(60), Some(60)]);
        assert!(lanes.reached(&lane("desk")));
        assert_eq!(lanes.not_reached(&lane("desk"), now, &offline()), None);
    }

    #[test]
    fn a_lane_that_rests_takes_nothing_and_tries_one_job_when_the_rest_is_over() {
        let mut lanes = one();
        let now = Instant::now();
        for _ in 0..FAILURES {
            lanes.not_reached(&lane("desk"), now, &offline());
        }
        assert!(!lanes.reserve(&lane("desk"), now, |_| true));
        let then = now + FIRST_REST;
        assert_eq!(lanes.next_retry(now), Some(then));
        assert_eq!(lanes.due(then), [lane("desk")]);
        assert!(lanes.reserve(&lane("desk"), then, |_| true));
        assert_eq!(lanes.not_reached(&lane("desk"), then, &offline()), Some(FIRST_REST * 2));
    }

    #[test]
    fn a_lane_that_its_driver_holds_takes_nothing_until_then_and_at_once_when_it_is_let_go() {
        let mut lanes = one();
        let now = Instant::now();
        let then = now + FIRST_REST;
        let held = || Some(Rest { until: then, why: offline() });
        assert!(lanes.hold(&lane("desk"), held()) && !lanes.hold(&lane("desk"), held()));
        assert!(!lanes.reserve(&lane("desk"), now, |_| true));
        assert_eq!((lanes.next_retry(now), lanes.due(now)), (Some(then), Vec::new()));
        assert_eq!(lanes.due(then), [lane("desk")]);
        assert_eq!(lanes.next_retry(then), None);
        lanes.hold(&lane("desk"), held());
        assert!(lanes.hold(&lane("desk"), None));
        assert!(lanes.reserve(&lane("desk"), now, |_| true));
    }

    #[test]
    fn after_four_jobs_for_people_the_background_has_a_turn() {
        let mut lanes = one();
        for _ in 0..4 {
            assert!(!lanes.owes_background(&lane("desk")));
            lanes.had_turn(&lane("desk"), Priority::Desk);
        }
        assert!(lanes.owes_background(&lane("desk")));
        lanes.had_turn(&lane("desk"), Priority::Background);
        assert!(!lanes.owes_background(&lane("desk")));
    }

    #[test]
    fn a_lane_that_no_driver_declares_any_more_goes_when_its_job_has_ended() {
        let mut lanes = one();
        let system = SystemName::new("salto").unwrap();
        let now = Instant::now();
        lanes.begin(&lane("desk"), JobId(uuid::Uuid::nil()));
        lanes.retire(&system, &[]);
        assert!(lanes.has(&lane("desk")));
        assert!(!lanes.reserve(&lane("desk"), now, |_| true));
        lanes.free(&lane("desk"), None);
        assert!(!lanes.has(&lane("desk")));
    }
}
