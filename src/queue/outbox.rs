//! Both streams as the agent remembers them: the orders it took, and the reports it has to deliver.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::{Memory, Queue, doors, facts, owed::Streams};
use crate::{
    model::{AccessGrantId, JobId, JobState, Report},
    protocol::{
        EpochReason, Message, Position,
        stream::{self, Arrival, Resume, Sent},
    },
    store::StoreError,
};

/// How both streams go on with a cloud that has welcomed the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// The last report that the cloud holds.
    pub reports_after: Position,
    /// Whether this side's memory proved to be an old one.
    pub forgot: bool,
}

/// Jobs of the site's own whose ends are told once more to a cloud that was set back.
const TOLD_AGAIN: i64 = 10_000;
/// Acknowledged reports deleted along with one change.
const DROPPED_AT_ONCE: i64 = 256;

impl Queue {
    /// What the agent remembers of both streams.
    ///
    /// # Errors
    /// Those of the database.
    pub fn memory(&self) -> Result<Memory, StoreError> {
        let mut memory = self.memory_of_transaction()?;
        if self.acknowledged.epoch == memory.reports.last.epoch {
            memory.reports.acknowledged = memory.reports.acknowledged.max(self.acknowledged.n);
        }
        Ok(memory)
    }

    /// Both positions as the transaction will leave them.
    pub(super) fn memory_of_transaction(&self) -> Result<Memory, StoreError> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        let mut memory = self
            .connection
            .prepare_cached(
                "SELECT orders_epoch, orders_n, reports_epoch, reports_n, reports_acknowledged FROM memory",
            )?
            .query_row([], |row| {
                let number = |column| row.get(column).map(i64::cast_unsigned);
                Ok(Memory {
                    orders_received: Position { epoch: number(0)?, n: number(1)? },
                    reports: Sent {
                        last: Position { epoch: number(2)?, n: number(3)? },
                        acknowledged: number(4)?,
                    },
                })
            })?;
        memory.orders_received = memory.orders_received.max(self.last_order_at_work()?);
        self.memory.set(Some(memory));
        Ok(memory)
    }

    /// The last order among those whose position stands in the row of a job at work.
    fn last_order_at_work(&self) -> Result<Position, StoreError> {
        let last = self
            .connection
            .prepare_cached(
                "SELECT order_epoch, order_n FROM job INDEXED BY job_state WHERE state = 'sent' \
                 AND state NOT IN ('waiting', 'succeeded') AND order_n IS NOT NULL \
                 ORDER BY order_epoch DESC, order_n DESC LIMIT 1",
            )?
            .query_row([], |row| {
                let number = |column| row.get(column).map(i64::cast_unsigned);
                Ok(Position { epoch: number(0)?, n: number(1)? })
            })
            .optional()?;
        Ok(last.unwrap_or_default())
    }

    /// How far the cloud may send orders: `window` beyond the last one held, but never more than have room to wait; jobs
    /// whose time has not come take up none of it. It only grows inside an epoch.
    ///
    /// # Errors
    /// Those of the database.
    pub fn orders_limit(&self, window: u64) -> Result<u64, StoreError> {
        // A job that is at work may come back to wait.
        let room = match self.disk_is_full {
            true => 0,
            false => {
                let most = u64::from(self.rules.limits.waiting_jobs);
                let unfinished = self.unfinished()?;
                // Only so many as make the difference are counted.
                let beyond = unfinished.saturating_sub(most.saturating_sub(window));
                most.saturating_sub(unfinished - self.scheduled(beyond)?)
            }
        };
        Ok(self.memory()?.orders_received.n + window.min(room))
    }

    /// The cloud's orders go on in this epoch. If it is a newer one, and it is not certain that it was the cloud that
    /// had forgotten something, then this side may have: what waits may have been done since and ends `unknown`, and see
    /// [`Queue::forgot`]. What is at work is proven or not as ever. Says whether it was taken so.
    ///
    /// # Errors
    /// Those of the database.
    pub fn continue_orders(
        &mut self,
        now: Timestamp,
        epoch: u64,
        reason: Option<EpochReason>,
    ) -> Result<bool, StoreError> {
        let held = self.memory()?.orders_received;
        if epoch <= held.epoch {
            return Ok(false);
        }
        self.hold_orders(Position { epoch, n: 0 })?;
        // The reason is said once; the connection may have broken before it was heard or stored. The first epoch of all
        // needs none.
        let is_behind = match reason {
            Some(EpochReason::ReceiverBehind) => true,
            Some(EpochReason::SenderBehind) => false,
            None => held.epoch > 0 || epoch > 1,
        };
        if is_behind || held == Position::LOST {
            self.note_set_back(now)?;
        }
        if is_behind {
            // One that was empty, or set back on purpose, holds nothing from before but what came after, or what was
            // judged when it came: the rooms of a copy of the ledger, and those of a backup.
            if held.epoch > 0 {
                self.doubt_unfinished(now, &[JobState::Received, JobState::Waiting])?;
                self.forgot(now)?;
            }
        }
        Ok(is_behind)
    }

    /// A cloud says how it goes on with its orders, see [`Queue::continue_orders`], and what it holds of the reports. One
    /// that holds more of them than were handed out has heard them of a memory that is gone: this one was set back, and
    /// what it numbered since has numbers that were given before.
    ///
    /// # Errors
    /// Those of the database.
    pub fn resume(
        &mut self,
        now: Timestamp,
        orders_epoch: u64,
        reason: Option<EpochReason>,
        reports_received: Position,
    ) -> Result<Resumed, StoreError> {
        self.note_set_back_no_later(now)?;
        let mut forgot = self.continue_orders(now, orders_epoch, reason)?;
        let mut reports = self.memory()?.reports;
        reports.last.n = match self.handed_out.epoch.cmp(&reports.last.epoch) {
            std::cmp::Ordering::Equal => reports.last.n.min(self.handed_out.n),
            _ => reports.acknowledged,
        };
        match stream::resume(&reports, reports_received) {
            Resume::Continue { after } => {
                // Its acknowledgement may have been lost on the way.
                self.acknowledge_reports(after);
                self.meet()?;
                Ok(Resumed { reports_after: after, forgot })
            }
            Resume::NewEpoch { epoch, reason } => {
                tracing::warn!(epoch, ?reason, "reports begin a new epoch");
                if reason == EpochReason::SenderBehind && !forgot {
                    // The orders agree: none came since, and those that wait here may have been done.
                    self.doubt_unfinished(now, &[JobState::Received, JobState::Waiting])?;
                    self.forgot(now)?;
                    self.note_set_back(now)?;
                    forgot = true;
                }
                self.begin_reports_epoch(epoch)?;
                self.meet()?;
                if reason == EpochReason::ReceiverBehind {
                    self.report_local_again(now)?;
                    self.read_doors_again()?;
                }
                Ok(Resumed { reports_after: Position { epoch, n: 0 }, forgot })
            }
        }
    }

    /// The connection to the cloud is gone. What is numbered from here on no cloud can have heard of this memory until both
    /// meet again, and that is remembered with it: also an agent that is a copy of a running one, and is opened again
    /// before it meets its cloud, is known for an old one by a cloud that holds such numbers.
    pub fn parted(&mut self) {
        self.life = i64::from_le_bytes(self.random.bytes());
    }

    /// The cloud has compared what it heard with what this memory holds: from here on what is numbered is new to it.
    fn meet(&mut self) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE memory SET met_in = ?1, unmet_after = NULL WHERE met_in <> ?1 OR unmet_after IS NOT NULL",
            )?
            .execute([self.life])?;
        Ok(())
    }

    /// The last report that was numbered before those that no cloud has been compared with, if there are any of these.
    pub(super) fn unmet_after(&self) -> Result<Option<u64>, StoreError> {
        let after: Option<i64> =
            self.connection.query_row("SELECT unmet_after FROM memory", [], |row| row.get(0))?;
        Ok(after.map(i64::cast_unsigned))
    }

    /// Remembers what the cloud holds of the reports. The rows go with a later change, never in a commit of their
    /// own. What was never numbered cannot be acknowledged: such a position is ignored.
    pub fn acknowledge_reports(&mut self, up_to: Position) {
        let last = match self.memory() {
            Ok(memory) => memory.reports.last,
            Err(error) => {
                // The cloud acknowledges cumulatively: the next one makes up for this.
                tracing::warn!(error = %error, "an acknowledgement could not be judged");
                return;
            }
        };
        let is_ours = up_to.epoch == last.epoch && up_to.n <= last.n;
        if is_ours && (up_to.epoch != self.acknowledged.epoch || up_to.n > self.acknowledged.n) {
            self.acknowledged = up_to;
        }
    }

    /// Begins a new epoch of the reports: what was not acknowledged is numbered anew, from 1.
    ///
    /// # Errors
    /// When the epoch is not a newer one, and those of the database.
    pub fn begin_reports_epoch(&mut self, epoch: u64) -> Result<(), StoreError> {
        let Memory { reports, .. } = self.memory()?;
        if epoch <= reports.last.epoch {
            let what = format!("epoch {epoch} is not newer than {}", reports.last.epoch);
            return Err(StoreError::corrupt("the stream of reports", what));
        }
        self.connection
            .prepare_cached("DELETE FROM report WHERE n <= ?1")?
            .execute([reports.acknowledged.cast_signed()])?;
        let left: Vec<i64> = self
            .connection
            .prepare_cached("SELECT n FROM report ORDER BY n")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut last = 0;
        for (new, old) in (1..).zip(left) {
            // In ascending order the new number is never above the old one, and never taken.
            self.connection.prepare_cached("UPDATE report SET n = ?2 WHERE n = ?1")?.execute([old, new])?;
            last = new;
        }
        let last = Position { epoch, n: last.cast_unsigned() };
        let memory = self.memory_of_transaction()?;
        self.owe_memory(Memory { reports: Sent { last, acknowledged: 0 }, ..memory }, Streams::Both)?;
        self.acknowledged = Position { epoch, n: 0 };
        Ok(())
    }

    /// The cloud has forgotten reports that it had acknowledged. What it orders again is answered as it comes. What it cannot
    /// ask for goes into the outbox once more, before all that it was never told: what the desk did to grants, then the ends
    /// of jobs that were made at the site, those of the newest ten thousand that are kept. What it knows already changes
    /// nothing there.
    fn report_local_again(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let waiting = self.memory()?.reports.last.n;
        self.report_facts_again()?;
        let forgotten = self.ids(
            "SELECT job_id FROM (SELECT id, job_id FROM job WHERE ended_at IS NOT NULL AND origin <> 'cloud' \
             AND job_id NOT IN (SELECT job_id FROM report) ORDER BY id DESC LIMIT ?1) ORDER BY id",
            [TOLD_AGAIN],
        )?;
        forgotten.into_iter().try_for_each(|job_id| self.report_anew(now, job_id))?;
        self.put_behind(waiting)
    }

    /// What the desk did to grants goes into the outbox of an epoch that has just begun, before all that stands there.
    pub(super) fn put_facts_first(&mut self) -> Result<(), StoreError> {
        let waiting = self.memory()?.reports.last.n;
        self.report_facts_again()?;
        self.put_behind(waiting)
    }

    /// Numbers the first so many reports of an epoch that has just begun behind all others.
    fn put_behind(&mut self, first: u64) -> Result<(), StoreError> {
        let others = self.memory()?.reports.last.n - first;
        if first == 0 || others == 0 {
            return Ok(());
        }
        // By way of numbers that none of them has.
        self.connection.prepare_cached("UPDATE report SET n = -n")?.execute([])?;
        self.connection
            .prepare_cached("UPDATE report SET n = CASE WHEN -n <= ?1 THEN ?2 - n ELSE -n - ?1 END")?
            .execute([first.cast_signed(), others.cast_signed()])?;
        Ok(())
    }

    /// [`Queue::reports_after`] for a cloud: from then on it may hold them.
    ///
    /// # Errors
    /// Those of the database.
    pub fn hand_out_reports(
        &mut self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Message)>, StoreError> {
        let reports = self.reports_after(after, limit)?;
        if let Some((last, _)) = reports.last() {
            self.handed_out = self.handed_out.max(*last);
        }
        Ok(reports)
    }

    /// What follows a position in the stream of reports, at most `limit` messages.
    ///
    /// # Errors
    /// Those of the database.
    pub fn reports_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<(Position, Message)>, StoreError> {
        let epoch = self.memory()?.reports.last.epoch;
        let from = match after.epoch.cmp(&epoch) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => after.n,
            std::cmp::Ordering::Greater => return Ok(Vec::new()),
        };
        let mut statement = self.connection.prepare_cached(
            "SELECT n, job_id, revision, body FROM report WHERE n > ?1 ORDER BY n LIMIT ?2",
        )?;
        let mut rows = statement.query(params![
            i64::try_from(from).unwrap_or(i64::MAX),
            i64::try_from(limit).unwrap_or(i64::MAX)
        ])?;
        let mut reports = Vec::new();
        while let Some(row) = rows.next()? {
            let n: i64 = row.get(0)?;
            let job_id = JobId(uuid::Uuid::from_bytes(row.get(1)?));
            let revision: u8 = row.get(2)?;
            let sealed: Vec<u8> = row.get(3)?;
            let grant = AccessGrantId(job_id.0);
            let message = match revision {
                1 => Message::Outcome(self.unseal(&place(job_id, revision), &sealed)?),
                doors::HAPPENED => Message::DoorEvents(self.unseal(&place(job_id, revision), &sealed)?),
                facts::MADE => Message::GrantMade(self.unseal(&facts::place(grant, revision), &sealed)?),
                facts::REVOKED => {
                    Message::GrantRevoked(self.unseal(&facts::place(grant, revision), &sealed)?)
                }
                _ => Message::Resolution(self.unseal(&place(job_id, revision), &sealed)?),
            };
            let n = n.cast_unsigned();
            reports.push((Position { epoch, n }, message));
        }
        Ok(reports)
    }

    /// Numbers a report and puts it into the outbox. Reports that the cloud holds go along.
    ///
    /// Nothing here relies on what an earlier call did: its transaction may have been rolled back.
    pub(super) fn report(&mut self, report: &Report) -> Result<(), StoreError> {
        let body = self.sealed(&place(report.job_id, report.revision), report);
        self.put_report(report.job_id.0, report.revision, &body)
    }

    /// Puts what was sealed into the outbox, about a job or a grant.
    pub(super) fn put_report(&mut self, about: uuid::Uuid, what: u8, body: &[u8]) -> Result<(), StoreError> {
        let mut memory = self.memory()?;
        memory.reports.last.n += 1;
        let (n, acknowledged) =
            (memory.reports.last.n.cast_signed(), memory.reports.acknowledged.cast_signed());
        self.owe_memory(memory, Streams::Both)?;
        self.drop_reports(acknowledged)?;
        self.connection
            .prepare_cached("INSERT INTO report(n, job_id, revision, body) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![n, about.as_bytes(), what, body])?;
        Ok(())
    }

    /// Deletes a bounded number of reports up to one that the cloud holds.
    fn drop_reports(&mut self, acknowledged: i64) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM report WHERE n <= min(?1, (SELECT min(n) FROM report) + ?2)")?
            .execute([acknowledged, DROPPED_AT_ONCE - 1])?;
        Ok(())
    }

    /// Whether a report about a job is in the outbox that the cloud does not hold.
    pub(super) fn has_report(&self, job_id: JobId) -> Result<bool, StoreError> {
        let acknowledged = self.memory()?.reports.acknowledged.cast_signed();
        let mut statement =
            self.connection.prepare_cached("SELECT 1 FROM report WHERE n > ?1 AND job_id = ?2")?;
        Ok(statement.exists(params![acknowledged, job_id.0.as_bytes()])?)
    }

    /// Takes the position of an order. Says whether the order is new.
    pub(super) fn take_order(
        &mut self,
        now: Timestamp,
        position: Option<Position>,
    ) -> Result<bool, StoreError> {
        let Some(position) = position else {
            return Ok(true);
        };
        let held = self.memory()?.orders_received;
        match stream::arrival(held, position) {
            Arrival::Duplicate => return Ok(false),
            Arrival::Gap { expected } => {
                return Err(StoreError::Gap {
                    expected: (expected.epoch, expected.n),
                    found: (position.epoch, position.n),
                });
            }
            Arrival::Next => {}
        }
        if held.epoch < position.epoch {
            // Nobody announced it: the welcome's words were not stored.
            self.continue_orders(now, position.epoch, None)?;
        }
        self.hold_orders(position)?;
        Ok(true)
    }

    pub(super) fn hold_orders(&mut self, position: Position) -> Result<(), StoreError> {
        let memory = self.memory_of_transaction()?;
        self.owe_memory(Memory { orders_received: position, ..memory }, Streams::Orders)
    }

    /// Remembers that a job was taken back before it came.
    pub(super) fn cancel_ahead(&mut self, now: Timestamp, job_id: JobId) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO cancelled_ahead(job_id, at) VALUES (?1, ?2)")?
            .execute(params![job_id.0.as_bytes(), now.as_millisecond()])?;
        Ok(())
    }

    /// The job has come; nothing else is to be remembered of it.
    pub(super) fn forget_cancelled_ahead(&mut self, job_id: JobId) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM cancelled_ahead WHERE job_id = ?1")?
            .execute([job_id.0.as_bytes()])?;
        Ok(())
    }
}

pub(super) fn place(job_id: JobId, revision: u8) -> String {
    format!("report.body/{job_id}/{revision}")
}
