//! The lanes' states: pure, in memory.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::model::{JobId, LaneName, SystemName};

/// What a lane is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneState {
    /// A person paused it. STAND-IN
    Paused,
    /// Its device could not be reached. STAND-IN
    Resting {
        /// Until then.
        until: jiff::Timestamp,
        /// What was wrong.
        why: String,
    },
    /// Nothing.
    Free,
    /// The queue was asked for its next job.
    Reserved,
    /// A job is at work.
    Busy(JobId),
}

#[derive(Debug)]
struct Lane {
    system: SystemName,
    state: LaneState,
    /// When a job that waits for another attempt becomes ready. Monotonic: a clock that is put right moves no retry.
    retry_at: Option<Instant>,
    /// Somebody wanted it while it was reserved: the answer under way may not know of the latest job.
    wanted: bool,
    paused: bool, // STAND-IN
}

/// All lanes of the site, in the order of their names.
#[derive(Debug, Default)]
pub struct Lanes(BTreeMap<LaneName, Lane>);

impl Lanes {
    pub(super) fn add(&mut self, lane: LaneName, system: SystemName) {
        self.0.insert(
            lane,
            Lane { system, state: LaneState::Free, retry_at: None, wanted: false, paused: false },
        );
    }

    /// Every lane with its system and state.
    pub fn iter(&self) -> impl Iterator<Item = (&LaneName, &SystemName, LaneState)> {
        self.0.iter().map(|(name, lane)| {
            (
                name,
                &lane.system,
                if lane.paused && lane.state == LaneState::Free {
                    LaneState::Paused
                } else {
                    lane.state.clone()
                },
            )
        })
    }

    /// Reserves a free lane whose line is ready. One that is reserved already is remembered as wanted.
    pub(super) fn reserve(&mut self, lane: &LaneName, ready: impl Fn(&SystemName) -> bool) -> bool {
        match self.0.get_mut(lane) {
            Some(lane) if lane.state == LaneState::Free && !lane.paused && ready(&lane.system) => {
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

    pub(super) fn reserve_again(&mut self, lane: &LaneName) {
        self.set(lane, LaneState::Reserved);
    }

    pub(super) fn begin(&mut self, lane: &LaneName, job_id: JobId) {
        self.set(lane, LaneState::Busy(job_id));
    }

    /// Frees a lane. Says whether it was wanted meanwhile, so that the queue has to be asked again.
    pub(super) fn free(&mut self, lane: &LaneName, retry_at: Option<Instant>) -> bool {
        self.set(lane, LaneState::Free);
        self.0.get_mut(lane).is_some_and(|lane| {
            lane.retry_at = retry_at;
            std::mem::take(&mut lane.wanted)
        })
    }

    // STAND-IN
    pub(super) fn pause(&mut self, lane: &LaneName, paused: bool) {
        if let Some(lane) = self.0.get_mut(lane) {
            lane.paused = paused;
        }
    }

    // STAND-IN
    pub(super) fn remove_of(&mut self, system: &SystemName) {
        self.0.retain(|_, lane| lane.system != *system);
    }

    pub(super) fn of(&self, system: &SystemName) -> Vec<LaneName> {
        self.0.iter().filter(|(_, lane)| lane.system == *system).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.0.values().filter(|lane| lane.state == LaneState::Free).filter_map(|lane| lane.retry_at).min()
    }

    /// Lanes whose retry is due; each is given once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<LaneName> {
        let mut due = Vec::new();
        for (name, lane) in &mut self.0 {
            if lane.state == LaneState::Free && lane.retry_at.is_some_and(|at| at <= now) {
                lane.retry_at = None;
                due.push(name.clone());
            }
        }
        due
    }

    fn set(&mut self, lane: &LaneName, state: LaneState) {
        if let Some(lane) = self.0.get_mut(lane) {
            lane.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str) -> LaneName {
        LaneName::new(name).unwrap()
    }

    fn one() -> Lanes {
        let mut lanes = Lanes::default();
        lanes.add(lane("desk"), SystemName::new("salto").unwrap());
        lanes
    }

    #[test]
    fn a_lane_is_reserved_once_and_only_while_its_line_is_ready() {
        let mut lanes = one();
        assert!(!lanes.reserve(&lane("desk"), |_| false));
        assert!(lanes.reserve(&lane("desk"), |_| true));
        assert!(!lanes.reserve(&lane("desk"), |_| true));
        assert!(!lanes.reserve(&lane("elsewhere"), |_| true));
        lanes.free(&lane("desk"), None);
        assert!(lanes.reserve(&lane("desk"), |_| true));
    }

    #[test]
    fn a_retry_is_due_once_and_forgotten_when_the_lane_takes_work() {
        let mut lanes = one();
        let now = Instant::now();
        let at = now + std::time::Duration::from_secs(1);
        lanes.free(&lane("desk"), Some(at));
        assert_eq!(lanes.next_retry(), Some(at));
        assert!(lanes.due(now).is_empty());
        assert_eq!(lanes.due(at), [lane("desk")]);
        assert_eq!(lanes.next_retry(), None);
        lanes.free(&lane("desk"), Some(at));
        assert!(lanes.reserve(&lane("desk"), |_| true));
        assert_eq!(lanes.next_retry(), None);
    }

    #[test]
    fn a_lane_that_is_wanted_while_it_is_reserved_says_so_once_when_it_is_freed() {
        let mut lanes = one();
        assert!(lanes.reserve(&lane("desk"), |_| true));
        assert!(!lanes.reserve(&lane("desk"), |_| true));
        assert!(lanes.free(&lane("desk"), None));
        assert!(lanes.reserve(&lane("desk"), |_| true));
        assert!(!lanes.free(&lane("desk"), None));
    }
}
