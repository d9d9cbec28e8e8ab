//! STAND-IN until the engine's own: drop this file, `mod standin` in `dispatch/mod.rs` and `queue/mod.rs`, the lines
//! marked STAND-IN there and in `lanes.rs`, and `queue/standin.rs`.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::oneshot;

use super::{Accepted, Answer, CancelAnswer, Dispatch, Happening, Line, StoreError, answered};
use crate::{
    drivers::Driver,
    model::{Job, JobId, LaneName, Origin, Resolution, Verdict},
    queue::{Queue, RetryRefused, Rules},
};

/// A job that the cloud did not order.
#[derive(Debug, Clone)]
pub struct LocalOrder {
    /// The job.
    pub job: Job,
    /// Who wants it.
    pub origin: Origin,
    /// The job whose place it takes.
    pub retries: Option<JobId>,
}

impl Dispatch {
    /// Takes a job of the site's own.
    pub fn local(&mut self, order: LocalOrder) -> oneshot::Receiver<Result<Accepted, StoreError>> {
        let job = order.job;
        let admission = self.admit(&job.system, &job.order);
        let lane = admission.as_ref().ok().map(|admission| admission.lane.clone());
        let now = self.time.now();
        let answer =
            self.queue.submit(move |queue: &mut Queue| queue.accept(now, None, job, admission, false));
        if let Some(lane) = lane {
            self.ask(&lane);
        }
        self.next_expiry = Some(jiff::Timestamp::MIN);
        self.told.push_back(Happening::Reports);
        answer
    }

    /// Takes a job back.
    pub fn cancel_local(&mut self, job_id: JobId) -> oneshot::Receiver<Result<CancelAnswer, StoreError>> {
        let now = self.time.now();
        let answer = self.queue.submit(move |queue: &mut Queue| match queue.job(job_id)? {
            Some(_) => queue.cancel(now, None, job_id),
            None => Ok(CancelAnswer::NotKnown),
        });
        self.told.push_back(Happening::Reports);
        answer
    }

    /// Does an ended job once more.
    pub fn retry(
        &mut self,
        job_id: JobId,
        by: &str,
    ) -> oneshot::Receiver<Result<Result<JobId, RetryRefused>, StoreError>> {
        self.again(job_id, by, false)
    }

    /// Settles a doubt as not done, and does the job once more.
    pub fn resolve_and_retry(
        &mut self,
        job_id: JobId,
        by: &str,
    ) -> oneshot::Receiver<Result<Result<JobId, RetryRefused>, StoreError>> {
        self.again(job_id, by, true)
    }

    fn again(
        &mut self,
        job_id: JobId,
        by: &str,
        not_done: bool,
    ) -> oneshot::Receiver<Result<Result<JobId, RetryRefused>, StoreError>> {
        let (now, by) = (self.time.now(), by.to_owned());
        let drivers = self.drivers.clone();
        let answer = self.queue.submit(move |queue: &mut Queue| {
            if not_done {
                let resolution = Resolution { verdict: Verdict::NotDone, by };
                if let Err(why) = queue.resolve(now, job_id, resolution)? {
                    return Ok(Err(RetryRefused::from(why)));
                }
            }
            let job = match queue.to_retry(now, job_id)? {
                Ok(job) => job,
                Err(why) => return Ok(Err(why)),
            };
            let new = job.job_id;
            let admission = drivers[&job.system].admit(&job.order);
            queue.accept(now, None, job, admission, false)?;
            Ok(Ok(new))
        });
        let lanes: Vec<_> = self.lanes.iter().map(|(lane, _, _)| lane.clone()).collect();
        for lane in lanes {
            self.ask(&lane);
        }
        self.told.push_back(Happening::Reports);
        answer
    }

    /// A lane begins nothing new.
    pub fn pause(&mut self, lane: LaneName, by: &str) -> oneshot::Receiver<Result<(), StoreError>> {
        let (now, by) = (self.time.now(), by.to_owned());
        self.lanes.pause(&lane, true);
        self.told.push_back(Happening::LinesChanged);
        self.queue.submit(move |queue: &mut Queue| queue.pause_lane(now, &lane, &by))
    }

    /// A lane goes on.
    pub fn resume(&mut self, lane: LaneName, _by: &str) -> oneshot::Receiver<Result<(), StoreError>> {
        self.lanes.pause(&lane, false);
        self.told.push_back(Happening::LinesChanged);
        self.ask(&lane);
        self.queue.submit(move |queue: &mut Queue| queue.resume_lane(&lane))
    }

    /// Other systems and rules from now on.
    pub fn replace(&mut self, drivers: Vec<Arc<dyn Driver>>, rules: Rules) {
        let new: BTreeMap<_, _> =
            drivers.into_iter().map(|driver| (driver.system().clone(), driver)).collect();
        for (system, old) in &self.drivers {
            if new.get(system).is_none_or(|new| !Arc::ptr_eq(old, new)) {
                old.stop();
                self.lines.remove(system);
                self.lanes.remove_of(system);
            }
        }
        for (system, driver) in &new {
            if self.lines.contains_key(system) {
                continue;
            }
            for lane in driver.lanes() {
                self.lanes.add(lane, system.clone());
            }
            self.lines.insert(system.clone(), Line::Opening);
            let (mut line, system, changed) = (driver.line(), system.clone(), self.line_changed_to.clone());
            line.mark_changed();
            tokio::spawn(async move {
                while line.changed().await.is_ok() {
                    let now = line.borrow_and_update().clone();
                    if changed.send((system.clone(), now)).is_err() {
                        return;
                    }
                }
            });
        }
        self.drivers = new;
        let answer = self.queue.submit(move |queue: &mut Queue| {
            queue.set_rules(rules);
            Ok((Vec::new(), None))
        });
        self.answers.push(Box::pin(async move { Answer::Expired(answered(answer).await) }));
        self.told.push_back(Happening::LinesChanged);
    }

    /// The job at work under this id.
    #[must_use]
    pub fn at_work(&self, job_id: JobId) -> Option<&Job> {
        self.at_work.values().map(|(_, claimed)| &claimed.job).find(|job| job.job_id == job_id)
    }
}
