//! A driver that is broken.

use std::sync::Arc;

use latchd::{
    drivers::{Driver, Line, Performed, ProgressSink, Proof, Work},
    model::{Admission, LaneName, Order, Refusal, SystemInventory, SystemName},
    seams::BoxFuture,
};
use tokio::sync::watch;

/// How a driver's work is spoilt.
pub(crate) trait Spoils: Send + Sync {
    fn perform<'a>(
        &'a self,
        worker: &'a dyn Driver,
        work: Work,
        progress: &'a ProgressSink,
    ) -> BoxFuture<'a, Performed>;
}

pub(crate) struct Spoilt<S> {
    pub(crate) spoils: S,
    pub(crate) driver: Arc<dyn Driver>,
    /// Which does the work; mostly the same.
    pub(crate) worker: Arc<dyn Driver>,
}

impl<S: Spoils> Driver for Spoilt<S> {
    fn system(&self) -> &SystemName {
        self.driver.system()
    }

    fn inventory(&self) -> SystemInventory {
        self.driver.inventory()
    }

    fn lanes(&self) -> Vec<LaneName> {
        self.driver.lanes()
    }

    fn admit(&self, order: &Order) -> Result<Admission, Refusal> {
        self.driver.admit(order)
    }

    fn line(&self) -> watch::Receiver<Line> {
        self.worker.line()
    }

    fn perform<'a>(&'a self, work: Work, progress: &'a ProgressSink) -> BoxFuture<'a, Performed> {
        self.spoils.perform(&*self.worker, work, progress)
    }

    fn prove<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Proof> {
        self.driver.prove(work)
    }

    fn stop(&self) {
        self.driver.stop();
        self.worker.stop();
    }
}
