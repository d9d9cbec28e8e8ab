//! The lanes' states: pure, in memory.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::model::{JobId, LaneName, SystemName};

/// What a lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneState {
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
    /// When a job that waits for another attempt becomes ready.
    retry_at: Option<Timestamp>,
}

/// All lanes of the site, in the order of their names.
#[derive(Debug, Default)]
pub struct Lanes(BTreeMap<LaneName, Lane>);

impl Lanes {
    pub(super) fn add(&mut self, lane: LaneName, system: SystemName) {
        self.0.insert(lane, Lane { system, state: LaneState::Free, retry_at: None });
    }

    /// Every lane with its system and state.
    pub fn iter(&self) -> impl Iterator<Item = (&LaneName, &SystemName, LaneState)> {
        self.0.iter().map(|(name, lane)| (name, &lane.system, lane.state))
    }

    /// Reserves a free lane whose line is ready.
    pub(super) fn reserve(&mut self, lane: &LaneName, ready: impl Fn(&SystemName) -> bool) -> bool {
        match self.0.get_mut(lane) {
            Some(lane) if lane.state == LaneState::Free && ready(&lane.system) => {
                lane.state = LaneState::Reserved;
                lane.retry_at = None;
                true
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

    pub(super) fn free(&mut self, lane: &LaneName, retry_at: Option<Timestamp>) {
        self.set(lane, LaneState::Free);
        if let Some(lane) = self.0.get_mut(lane) {
            lane.retry_at = retry_at;
        }
    }

    pub(super) fn free_all<'a>(&mut self, lanes: impl IntoIterator<Item = &'a LaneName>) {
        for lane in lanes {
            self.free(lane, None);
        }
    }

    pub(super) fn of(&self, system: &SystemName) -> Vec<LaneName> {
        self.0.iter().filter(|(_, lane)| lane.system == *system).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn next_retry(&self) -> Option<Timestamp> {
        self.0.values().filter(|lane| lane.state == LaneState::Free).filter_map(|lane| lane.retry_at).min()
    }

    /// Lanes whose retry is due; each is given once.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<LaneName> {
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
        let at = Timestamp::from_second(100).unwrap();
        lanes.free(&lane("desk"), Some(at));
        assert_eq!(lanes.next_retry(), Some(at));
        assert!(lanes.due(Timestamp::from_second(99).unwrap()).is_empty());
        assert_eq!(lanes.due(at), [lane("desk")]);
        assert_eq!(lanes.next_retry(), None);
        lanes.free(&lane("desk"), Some(at));
        assert!(lanes.reserve(&lane("desk"), |_| true));
        assert_eq!(lanes.next_retry(), None);
    }
}
