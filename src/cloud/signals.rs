//! Who is woken when something was committed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::sync::{Notify, watch};

use crate::{model::JobId, protocol::Stage};

/// Of how many jobs the stage is remembered.
const STAGES: usize = 1024;

/// Wakes hub and held requests after a commit. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Signals {
    orders: Arc<Notify>,
    changes: Arc<watch::Sender<u64>>,
    trust: Arc<watch::Sender<u64>>,
    pairings: Arc<watch::Sender<u64>>,
    deliveries: Arc<watch::Sender<u64>>,
    stages: Arc<Mutex<VecDeque<(JobId, Stage)>>>,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            orders: Arc::default(),
            changes: Arc::new(watch::channel(0).0),
            trust: Arc::new(watch::channel(0).0),
            pairings: Arc::new(watch::channel(0).0),
            deliveries: Arc::new(watch::channel(0).0),
            stages: Arc::default(),
        }
    }
}

impl Signals {
    /// New orders for some bridge are durable: the hub looks.
    pub fn orders_queued(&self) {
        self.orders.notify_waiters();
    }

    /// Waits for the next [`Signals::orders_queued`]. Create the future first, then look at the store, then await it:
    /// a signal in between is not lost (call `enable` on the pinned future).
    pub fn orders(&self) -> tokio::sync::futures::Notified<'_> {
        self.orders.notified()
    }

    /// Attempts, methods or events changed: held requests look again.
    pub fn state_changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Sees every [`Signals::state_changed`] from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Keys of bridges were revoked, or the cloud's own changed: every connection looks whether it may go on. That is work
    /// for all of them, so nothing that happens every day calls this.
    pub fn trust_changed(&self) {
        self.trust.send_modify(|count| *count += 1);
    }

    /// Sees every [`Signals::trust_changed`] from now on.
    #[must_use]
    pub fn trust_changes(&self) -> watch::Receiver<u64> {
        self.trust.subscribe()
    }

    /// Somebody asks to be paired, or was answered: whoever waits for that looks again.
    pub fn pairings_changed(&self) {
        self.pairings.send_modify(|count| *count += 1);
    }

    /// Sees every [`Signals::pairings_changed`] from now on.
    #[must_use]
    pub fn pairing_changes(&self) -> watch::Receiver<u64> {
        self.pairings.subscribe()
    }

    /// Something is owed to a webhook, or one was enabled: what is due is looked for.
    pub fn deliveries_owed(&self) {
        self.deliveries.send_modify(|count| *count += 1);
    }

    /// Sees every [`Signals::deliveries_owed`] from now on.
    #[must_use]
    pub fn deliveries(&self) -> watch::Receiver<u64> {
        self.deliveries.subscribe()
    }

    /// Remembers where a job stands, for screens. Only the latest jobs are remembered, and only in memory.
    pub fn set_stage(&self, job: JobId, stage: Stage) {
        let mut stages = self.stages.lock().expect("no panic while held");
        stages.retain(|(known, _)| *known != job);
        if stages.len() == STAGES {
            stages.pop_front();
        }
        stages.push_back((job, stage));
    }

    /// Where a job stands on the site, as far as its bridge told.
    #[must_use]
    pub fn stage(&self, job: JobId) -> Option<Stage> {
        let stages = self.stages.lock().expect("no panic while held");
        stages.iter().rev().find(|(known, _)| *known == job).map(|(_, stage)| *stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_of_the_latest_jobs_are_remembered_and_no_more() {
        let signals = Signals::default();
        let job = |number| JobId(uuid::Uuid::from_u128(number));
        for number in 0..=STAGES as u128 {
            signals.set_stage(job(number), Stage::Queued);
        }
        signals.set_stage(job(1), Stage::Sent);
        assert_eq!(signals.stage(job(0)), None);
        assert_eq!(signals.stage(job(1)), Some(Stage::Sent));
        assert_eq!(signals.stages.lock().unwrap().len(), STAGES);
    }
}
