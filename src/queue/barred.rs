//! Removals that a desk has ordered and that may not be done: the site forbids them, or the lock's system is not in the
//! configuration any more. A code that was taken back and is in its lock still is no matter that ends with a refusal, so
//! such a removal waits, is told as a condition, and is judged again with every configuration.
//!
//! It waits like any other job, but for no time: `due_at` is [`BARRED`], which no clock reaches, and `code` says why. Until
//! it may be done the agent's own removal at the end of what is in the slot stays in force.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::params;

use super::{Accepted, LocalOrder, Queue, limits, slots::slot_of, store::Row};
use crate::{
    model::{Admission, Code, DeviceName, JobId, LaneName, Order, Outcome, Refusal, SystemName},
    store::StoreError,
};

/// The `due_at` of what waits for another configuration and not for a time; no instant has this number.
pub(super) const BARRED: i64 = i64::MAX - 1;

/// A removal that may not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BarredRemoval {
    /// The job that waits.
    pub job_id: JobId,
    /// The lock's system.
    pub system: SystemName,
    /// The lock.
    pub device: DeviceName,
    /// Why it may not be done.
    pub why: Code,
}

/// Removals that may not be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Barred {
    /// The first of them, oldest first.
    pub first: Vec<BarredRemoval>,
    /// How many there are.
    pub count: u64,
}

impl Queue {
    /// Takes the removal of what a desk has taken back. One that may not be done waits until it may.
    ///
    /// # Errors
    /// Those of the database.
    pub fn take_out(
        &mut self,
        now: Timestamp,
        order: LocalOrder,
        admission: Result<Admission, Refusal>,
    ) -> Result<Accepted, StoreError> {
        let Err(refusal) = self.judge(now, &order, admission.as_ref()) else {
            return self.accept_local(now, order, admission, false);
        };
        if self.disk_is_full {
            return Err(StoreError::DiskFull);
        }
        let LocalOrder { job, origin, retries } = order;
        let mut row = self.received_row(job, admission.ok(), origin, retries, None)?;
        Ok(match self.order_barred(now, &mut row, &refusal)? {
            true => Accepted::Waiting,
            false => Accepted::Ended(Outcome::Failed(refusal)),
        })
    }

    /// Judges what desks have taken back by the rules in force and by what the drivers say of it: what may be done by now
    /// waits for its lane, and what may not be done any more is held. Gives the lanes that have work.
    ///
    /// # Errors
    /// Those of the database.
    pub fn judge_removals(
        &mut self,
        now: Timestamp,
        admit: impl Fn(&SystemName, &Order) -> Result<Admission, Refusal>,
    ) -> Result<BTreeSet<LaneName>, StoreError> {
        let mut lanes = BTreeSet::new();
        let barred: BTreeSet<_> = self.barred_ids(i64::MAX)?.into_iter().collect();
        let waiting = self.ids(
            "SELECT job_id FROM job WHERE slot IS NOT NULL AND ended_at IS NULL AND state = 'waiting' \
             AND kind = 'slot.remove' AND origin = 'person' ORDER BY id",
            [],
        )?;
        for job_id in waiting {
            let row = self.known(job_id)?;
            let Some(body) = &row.body else { continue };
            let admission = admit(&body.job.system, &body.job.order);
            let order = LocalOrder { job: body.job.clone(), origin: row.origin, retries: row.retries };
            match (self.judge(now, &order, admission.as_ref()), barred.contains(&job_id)) {
                (Ok(lane), true) => {
                    self.release_removal(now, &row, &lane)?;
                    lanes.insert(lane);
                }
                (Ok(_), false) => {}
                (Err(refusal), true) if row.code == Some(refusal.code) => {}
                (Err(refusal), _) => self.hold_removal(now, &row, &refusal)?,
            }
        }
        Ok(lanes)
    }

    /// Removals that may not be done; names at most `most` of them.
    ///
    /// # Errors
    /// Those of the database.
    pub fn barred_removals(&self, most: usize) -> Result<Barred, StoreError> {
        let count: i64 = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM job INDEXED BY job_due WHERE state = 'waiting' AND due_at IS NOT NULL \
                 AND due_at = ?1",
            )?
            .query_row([BARRED], |row| row.get(0))?;
        let mut first = Vec::new();
        for job_id in self.barred_ids(i64::try_from(most).unwrap_or(i64::MAX))? {
            let row = self.known(job_id)?;
            let why = row.code.unwrap_or(Code::Other);
            let Some((job, (device, _))) =
                row.body.as_ref().and_then(|body| Some((&body.job, slot_of(&body.job.order)?)))
            else {
                continue;
            };
            let (system, device) = (job.system.clone(), device.clone());
            first.push(BarredRemoval { job_id, system, device, why });
        }
        Ok(Barred { first, count: count.cast_unsigned() })
    }

    /// The removals that are held for a slot, other than one.
    pub(super) fn barred_for(&self, index: &[u8; 32], but: JobId) -> Result<Vec<JobId>, StoreError> {
        self.ids(
            "SELECT job_id FROM job WHERE slot = ?1 AND ended_at IS NULL AND state = 'waiting' AND due_at = ?2 \
             AND job_id <> ?3 ORDER BY id",
            params![index, BARRED, but.0.as_bytes()],
        )
    }

    /// Has a removal wait until the configuration lets it be done.
    pub(super) fn bar(&mut self, now: Timestamp, row: &Row, refusal: &Refusal) -> Result<(), StoreError> {
        self.mark_held(now, row, BARRED, refusal.code)?;
        let detail =
            format!("a code that was taken back stays in its lock until this may be done: {refusal}");
        self.audit_line(now, refusal.code.as_str(), Some(row.job_id), &detail)
    }

    /// Has a removal wait for its lane, which it may not have had so far.
    pub(super) fn unbar(&mut self, row: &Row, lane: &LaneName) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE job SET lane = ?2, due_at = NULL, retry_at = NULL, code = '' WHERE job_id = ?1",
            )?
            .execute(params![row.job_id.0.as_bytes(), lane.as_str()])?;
        self.count_moved(row, row.state, "")
    }

    /// The lane of an order of this site's that the configuration lets through.
    pub(crate) fn judge(
        &self,
        now: Timestamp,
        order: &LocalOrder,
        admission: Result<&Admission, &Refusal>,
    ) -> Result<LaneName, Refusal> {
        let admission = admission.map_err(Clone::clone)?;
        limits::standing(&self.rules.limits, now, &order.job, &admission.rooms)?;
        Ok(admission.lane.clone())
    }

    fn barred_ids(&self, most: i64) -> Result<Vec<JobId>, StoreError> {
        self.ids(
            "SELECT job_id FROM job INDEXED BY job_due WHERE state = 'waiting' AND due_at IS NOT NULL \
             AND due_at = ?1 ORDER BY id LIMIT ?2",
            [BARRED, most],
        )
    }
}
