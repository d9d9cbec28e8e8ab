//! What people at the site wish: jobs of their own, taking back, doing again, pausing, and another configuration.

use super::*;
use crate::{
    model::{DesiredGrant, DoorKind, DoorName, Resolution, SystemInventory, Verdict},
    queue::{
        Changed, ConfirmRefused, DeskCard, DeskGrant, DeskRefused, GrantRefused, ResolveRefused,
        RetryRefused, Rules,
    },
};

/// What follows from a wish.
#[derive(Default)]
struct Wished {
    /// The lanes that should look for work.
    lanes: Vec<LaneName>,
    /// The job that waits for its lane from now on.
    queued: Option<JobId>,
}

/// What the queue said to a wish, once it is durable.
pub type Reply<T> = oneshot::Receiver<Result<T, StoreError>>;

/// To whom it is said.
type ReplyTo<T> = oneshot::Sender<Result<T, StoreError>>;

/// A word about a job, to be taken later.
pub(super) type Word = Box<dyn FnOnce(&mut Dispatch) + Send>;

impl Dispatch {
    /// Takes a job that was made at the site, on equal terms with the cloud's.
    pub fn local(&mut self, order: LocalOrder) -> Reply<Accepted> {
        let (reply, answered_later) = oneshot::channel();
        let (job_id, has_timer) = (order.job.job_id, has_timer(&order.job.order));
        let (admission, lane, reserved) = self.admitted(&order.job);
        let now = self.time.now();
        let answer = self.queue.submit_soon(move |queue: &mut Queue| {
            queue.accept_local(now, order.clone(), admission.clone(), reserved)
        });
        self.answers.push(Box::pin(async move {
            let result = answered(answer).await;
            Answer::Accepted { job_id, position: None, lane, reserved, has_timer, result, reply: Some(reply) }
        }));
        answered_later
    }

    /// Takes a job back, if nothing of it was sent.
    pub fn cancel_local(&mut self, job_id: JobId, by: &str) -> Reply<CancelAnswer> {
        let by = by.to_owned();
        self.once_met(move |dispatch, reply| dispatch.cancel_for(reply, job_id, by))
    }

    fn cancel_for(&mut self, reply: ReplyTo<CancelAnswer>, job_id: JobId, by: String) {
        let now = self.time.now();
        let answer = self.queue.submit(move |queue: &mut Queue| match queue.job(job_id)? {
            // A person means a job that is here, not one that may come.
            None => Ok(CancelAnswer::NotKnown),
            Some(_) => {
                let answer = queue.cancel(now, None, job_id)?;
                if answer == CancelAnswer::Cancelled {
                    queue.note_cancelled_here(now, job_id, &by)?;
                }
                Ok(answer)
            }
        });
        self.answers.push(Box::pin(async move {
            let result = answered(answer).await;
            Answer::Cancelled { position: None, job_id, result, reply: Some(reply) }
        }));
    }

    /// Does a job again that ended without being done. Gives the new job that takes its place.
    pub fn retry(&mut self, job_id: JobId, by: &str) -> Reply<Result<JobId, RetryRefused>> {
        self.again(job_id, by, false)
    }

    /// A person says that a job in doubt was not done, and has it done again: both in one commit.
    pub fn resolve_and_retry(&mut self, job_id: JobId, by: &str) -> Reply<Result<JobId, RetryRefused>> {
        self.again(job_id, by, true)
    }

    fn again(&mut self, job_id: JobId, by: &str, settle: bool) -> Reply<Result<JobId, RetryRefused>> {
        let by = by.to_owned();
        self.once_met(move |dispatch, reply| dispatch.again_for(reply, job_id, by, settle))
    }

    fn again_for(
        &mut self,
        reply: ReplyTo<Result<JobId, RetryRefused>>,
        job_id: JobId,
        by: String,
        settle: bool,
    ) {
        let (now, drivers) = (self.time.now(), self.drivers.clone());
        self.wish_for(
            reply,
            move |queue| {
                if settle {
                    let resolution = Resolution { verdict: Verdict::NotDone, by: by.clone() };
                    match queue.resolve(now, job_id, resolution)? {
                        Ok(()) => {}
                        Err(ResolveRefused::NotKnown) => return Ok(Err(RetryRefused::NotKnown)),
                        Err(ResolveRefused::NotInDoubt(state) | ResolveRefused::Resolved(state)) => {
                            return Ok(Err(RetryRefused::Not(state)));
                        }
                    }
                }
                let order = match queue.retry_of(now, job_id)? {
                    Ok(order) => order,
                    Err(refused) => return Ok(Err(refused)),
                };
                let new = order.job.job_id;
                let admission = admit(&drivers, &order.job.system, &order.job.order);
                queue.accept_local(now, order, admission, false)?;
                queue.note_retried(now, job_id, new, &by)?;
                let lane = queue.job(new)?.and_then(|job| job.view.lane);
                Ok(Ok((new, lane)))
            },
            |done| match done {
                Ok((new, lane)) => (Ok(new), Wished { lanes: lane.into_iter().collect(), queued: None }),
                Err(refused) => (Err(refused), Wished::default()),
            },
        );
    }

    /// Has a card written that the cloud told of, by a person's wish.
    pub fn encode(&mut self, wish: DeskCard, by: &str) -> Reply<Result<(JobId, Accepted), DeskRefused>> {
        let by = by.to_owned();
        self.once_met(move |dispatch, reply| dispatch.encode_for(reply, wish, by))
    }

    fn encode_for(
        &mut self,
        reply: ReplyTo<Result<(JobId, Accepted), DeskRefused>>,
        wish: DeskCard,
        by: String,
    ) {
        let (now, drivers) = (self.time.now(), self.drivers.clone());
        self.wish_for(
            reply,
            move |queue| {
                let is_room = |system: &SystemName, name: &DoorName| {
                    let doors =
                        drivers.get(system).map(|driver| driver.inventory().doors).unwrap_or_default();
                    doors.iter().any(|door| door.name == *name && door.kind == DoorKind::Room)
                };
                let order = match queue.desk_card(now, wish, is_room)? {
                    Ok(order) => order,
                    Err(refused) => return Ok(Err(refused)),
                };
                let job_id = order.job.job_id;
                let admission = admit(&drivers, &order.job.system, &order.job.order);
                let accepted = queue.accept_local(now, order, admission, false)?;
                if accepted != Accepted::Duplicate {
                    queue.note_ordered_here(now, job_id, &by)?;
                }
                let lane = queue.job(job_id)?.and_then(|job| job.view.lane);
                Ok(Ok((job_id, accepted, lane)))
            },
            |done| match done {
                Ok((job_id, accepted, lane)) => {
                    let queued = (accepted == Accepted::Waiting).then_some(job_id);
                    (Ok((job_id, accepted)), Wished { lanes: lane.into_iter().collect(), queued })
                }
                Err(refused) => (Err(refused), Wished::default()),
            },
        );
    }

    /// Makes a grant by a person's wish, and puts its codes into their devices.
    pub fn make_grant(
        &mut self,
        wish: DeskGrant,
        systems: Vec<SystemInventory>,
        by: &str,
    ) -> Reply<Result<DesiredGrant, GrantRefused>> {
        let (now, drivers, by) = (self.time.now(), self.drivers.clone(), by.to_owned());
        let make = move |queue: &mut Queue| {
            let changed = match queue.plan_grant(now, &wish, &systems)? {
                Ok(changed) => changed,
                Err(refused) => return Ok(Err(refused)),
            };
            // What the site's own rules refuse is no grant either: nobody would ever be let in by it.
            let judge = |order: &LocalOrder| {
                let admission = admit(&drivers, &order.job.system, &order.job.order);
                queue.judge(now, order, admission.as_ref())
            };
            if let Some(refusal) = changed.orders.iter().find_map(|order| judge(order).err()) {
                return Ok(Err(GrantRefused::NotTaken(refusal)));
            }
            queue.make_grant(now, &changed.grant, &by)?;
            follow_up(queue, now, &drivers, changed, &by).map(Ok)
        };
        self.wish(make, told_of_grant)
    }

    /// Takes a grant back by a person's wish, and its codes out of their devices.
    pub fn revoke_grant(&mut self, name: String, by: &str) -> Reply<Result<DesiredGrant, GrantRefused>> {
        let (now, drivers, by) = (self.time.now(), self.drivers.clone(), by.to_owned());
        let revoke = move |queue: &mut Queue| match queue.revoke_grant(now, &name, &by)? {
            Ok(changed) => follow_up(queue, now, &drivers, changed, &by).map(Ok),
            Err(refused) => Ok(Err(refused)),
        };
        self.wish(revoke, told_of_grant)
    }

    /// A person lets a card be made that the cloud ordered.
    pub fn confirm(&mut self, job_id: JobId, by: &str) -> Reply<Result<(), ConfirmRefused>> {
        let by = by.to_owned();
        self.once_met(move |dispatch, reply| {
            let now = dispatch.time.now();
            dispatch.wish_for(
                reply,
                move |queue| queue.confirm(now, job_id, &by),
                move |done| match done {
                    Ok(lane) => (Ok(()), Wished { lanes: lane.into_iter().collect(), queued: Some(job_id) }),
                    Err(refused) => (Err(refused), Wished::default()),
                },
            );
        })
    }

    /// A person does not let a card be made that the cloud ordered.
    pub fn decline(&mut self, job_id: JobId, by: &str) -> Reply<Result<(), ConfirmRefused>> {
        let by = by.to_owned();
        self.once_met(move |dispatch, reply| {
            let now = dispatch.time.now();
            let decline = move |queue: &mut Queue| queue.decline(now, job_id, &by);
            dispatch.wish_for(reply, decline, |done| (done, Wished::default()));
        })
    }

    /// Takes a word that may end a job or have it done again. What is held after a start may have been done from a memory
    /// that is gone, which the cloud tells: the word waits as long as the job does.
    fn once_met<T: Send + 'static>(
        &mut self,
        word: impl FnOnce(&mut Self, ReplyTo<T>) + Send + 'static,
    ) -> Reply<T> {
        let (reply, answered_later) = oneshot::channel();
        match self.held_until {
            None => word(self, reply),
            Some(_) => self.words.push(Box::new(move |dispatch| word(dispatch, reply))),
        }
        answered_later
    }

    /// Gives a lane no more work until it is resumed, restarts included. Says whether that is new.
    pub fn pause(&mut self, lane: &LaneName, by: &str) -> Reply<bool> {
        // From now on, whatever the disk says: a person who pauses a lane has a reason.
        self.lanes.pause(lane, true);
        let (now, name, by) = (self.time.now(), lane.clone(), by.to_owned());
        self.wish(move |queue| queue.pause_lane(now, &name, &by), |new| (new, Wished::default()))
    }

    /// Lets a lane work again. Says whether it was paused.
    pub fn resume(&mut self, lane: &LaneName, by: &str) -> Reply<bool> {
        self.lanes.pause(lane, false);
        let (now, name, by) = (self.time.now(), lane.clone(), by.to_owned());
        let asked = lane.clone();
        let wished = Wished { lanes: vec![asked], queued: None };
        self.wish(move |queue| queue.resume_lane(now, &name, &by), move |was| (was, wished))
    }

    /// Goes on with other drivers and rules. A driver that stays is the same one; of all others the jobs at work are
    /// finished by the driver that began them, and what waits goes to its successor or, where its system is gone, ends
    /// at its deadline.
    pub fn replace(&mut self, drivers: Vec<Arc<dyn Driver>>, rules: Rules) -> Reply<()> {
        let mut left = std::mem::take(&mut self.drivers);
        for driver in drivers {
            let system = driver.system().clone();
            match left.remove(&system) {
                Some(same) if Arc::ptr_eq(&same, &driver) => {
                    self.drivers.insert(system, driver);
                }
                Some(old) => {
                    old.stop();
                    self.lanes.retire(&system, &driver.lanes());
                    self.add_driver(driver);
                }
                None => self.add_driver(driver),
            }
        }
        for (system, old) in left {
            old.stop();
            self.lanes.retire(&system, &[]);
            self.lines.remove(&system);
            self.line_of.remove(&system);
        }
        let lanes = self.lanes.names();
        self.told.push_back(Happening::LinesChanged);
        let (now, drivers) = (self.time.now(), self.drivers.clone());
        let reply = self.wish(
            move |queue| {
                queue.set_rules(rules);
                queue.judge_removals(now, |system, order| admit(&drivers, system, order))
            },
            |lanes| ((), Wished { lanes: lanes.into_iter().collect(), queued: None }),
        );
        for lane in lanes {
            self.ask(&lane);
        }
        reply
    }

    /// Judges anew, by the configuration of this start, what desks had taken back before it.
    pub fn judge_removals(&mut self) -> Reply<()> {
        let (now, drivers) = (self.time.now(), self.drivers.clone());
        self.wish(
            move |queue| queue.judge_removals(now, |system, order| admit(&drivers, system, order)),
            |lanes| ((), Wished { lanes: lanes.into_iter().collect(), queued: None }),
        )
    }

    fn wish<T, R>(
        &mut self,
        operation: impl FnOnce(&mut Queue) -> Result<T, StoreError> + Send + 'static,
        split: impl FnOnce(T) -> (R, Wished) + Send + 'static,
    ) -> Reply<R>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let (reply, answered_later) = oneshot::channel();
        self.wish_for(reply, operation, split);
        answered_later
    }

    /// Runs a wish on the queue. `split` parts what it gives into the reply and what follows from it here.
    fn wish_for<T, R>(
        &mut self,
        reply: ReplyTo<R>,
        operation: impl FnOnce(&mut Queue) -> Result<T, StoreError> + Send + 'static,
        split: impl FnOnce(T) -> (R, Wished) + Send + 'static,
    ) where
        T: Send + 'static,
        R: Send + 'static,
    {
        let answer = self.queue.submit(operation);
        self.answers.push(Box::pin(async move {
            let (result, wished, failed) = match answered(answer).await {
                Ok(done) => {
                    let (result, wished) = split(done);
                    (Ok(result), wished, None)
                }
                Err(error) => {
                    let why = error.chain();
                    (Err(error), Wished::default(), Some(why))
                }
            };
            // Whoever asked may have gone.
            let _ = reply.send(result);
            let Wished { lanes, queued } = wished;
            Answer::Wished { ask: lanes, queued, failed }
        }));
    }
}

/// Takes the jobs that follow from what a desk did to a grant. Gives the lanes that should look for work.
fn follow_up(
    queue: &mut Queue,
    now: Timestamp,
    drivers: &BTreeMap<SystemName, Arc<dyn Driver>>,
    changed: Changed,
    by: &str,
) -> Result<(DesiredGrant, Vec<LaneName>), StoreError> {
    let mut lanes = Vec::new();
    for order in changed.orders {
        let job_id = order.job.job_id;
        let admission = admit(drivers, &order.job.system, &order.job.order);
        lanes.extend(admission.as_ref().ok().map(|admission| admission.lane.clone()));
        match order.job.order.kind() {
            Kind::SlotRemove => queue.take_out(now, order, admission)?,
            _ => queue.accept_local(now, order, admission, false)?,
        };
        queue.note_ordered_here(now, job_id, by)?;
    }
    Ok((changed.grant, lanes))
}

fn told_of_grant(
    done: Result<(DesiredGrant, Vec<LaneName>), GrantRefused>,
) -> (Result<DesiredGrant, GrantRefused>, Wished) {
    match done {
        Ok((grant, lanes)) => (Ok(grant), Wished { lanes, queued: None }),
        Err(refused) => (Err(refused), Wished::default()),
    }
}
