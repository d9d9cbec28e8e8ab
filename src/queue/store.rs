//! Rows of jobs, rooms and stays: the SQL of the queue. It decides nothing.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroize;

use super::{
    FILE, LONGEST_PAUSE, Queue, ledger,
    owed::Streams,
    policy::{self, Event},
    restore::SetBack,
    slots::REMOVE_AGAIN,
};
use crate::{
    model::{
        AccessMethodId, Admission, Code, DoorName, Job, JobId, JobState, LaneName, Order, Origin, Outcome,
        Priority, Refusal, ReservationKey, Resolution, SystemName, Treatment,
    },
    protocol::Position,
    store::StoreError,
};

/// Rows that one call of [`Queue::purge`] deletes of each kind, so that no commit is held up.
const PURGED_AT_ONCE: i64 = 500;

/// Jobs that one call of [`Queue::come_due`] makes ready.
const DUE_AT_ONCE: i64 = 256;

/// A job's row.
#[derive(Debug)]
pub(super) struct Row {
    /// Absent until it is stored: a job that has just arrived is written once, in the state in which its arrival
    /// leaves it.
    id: Option<i64>,
    pub(super) job_id: JobId,
    pub(super) state: JobState,
    /// Why it did not simply succeed, or waits again.
    pub(super) code: Option<Code>,
    pub(super) attempt: u32,
    pub(super) treatment: Option<Treatment>,
    pub(super) cancel_wanted: bool,
    pub(super) is_resolved: bool,
    /// Absent where the job was refused before it had one.
    pub(super) lane: Option<LaneName>,
    pub(super) origin: Origin,
    /// The job whose place it takes.
    pub(super) retries: Option<JobId>,
    /// Absent where the job could not be read.
    pub(super) body: Option<Body>,
    /// The rooms whose stay the job touches.
    pub(super) rooms: Vec<DoorName>,
    /// The card that it is about, if its arrival was noted with that; nothing for one that is stored.
    card: Option<AccessMethodId>,
    /// Its place in the stream of orders, for one that has just arrived.
    pub(super) position: Option<Position>,
}

/// What of a job is sealed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Body {
    pub(super) job: Job,
    /// Its doors that follow reservations, as its driver named them.
    pub(super) rooms: Vec<DoorName>,
    /// The end that its card will carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) printed_end: Option<Timestamp>,
    /// Who at the site let it be done, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) confirmed_by: Option<String>,
    /// Not before this instant, whatever the clock once showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<Timestamp>,
}

impl Row {
    pub(super) fn job(&self) -> Result<&Job, StoreError> {
        let body = self.body.as_ref();
        body.map(|body| &body.job).ok_or_else(|| {
            StoreError::corrupt(place(self.job_id), "a job that could not be read was to be sent")
        })
    }

    /// The job counts among those about its card.
    pub(super) fn note_card(&mut self) {
        if let Some(Order::CardEncode(card)) = self.body.as_ref().map(|body| &body.job.order) {
            self.card = Some(card.access_method_id);
        }
    }

    /// Its code as it is stored.
    pub(super) fn code_text(&self) -> &'static str {
        self.code.map_or("", Code::as_str)
    }

    fn id(&self) -> Result<i64, StoreError> {
        self.id
            .ok_or_else(|| StoreError::corrupt(place(self.job_id), "a row that is not stored was asked for"))
    }

    fn next(&self, event: Event) -> Result<JobState, StoreError> {
        policy::next(self.state, event).map_err(|illegal| StoreError::corrupt(place(self.job_id), illegal))
    }
}

/// What the queue has to know of a job's id before it takes the job.
pub(super) struct Arrived {
    pub(super) is_held: bool,
    /// It was taken back before it came.
    pub(super) is_cancelled: bool,
    /// Until when jobs were made that may have been here and be forgotten.
    pub(super) set_back: SetBack,
    /// How many others wait.
    pub(super) waiting: u64,
}

/// What a job's arrival came to, where its row is written for the first time.
#[derive(Default)]
struct First {
    code: &'static str,
    attempt: u32,
    due_at: Option<i64>,
    retry_at: Option<i64>,
    sent_at: Option<i64>,
    position: Option<Position>,
    treatment: Option<&'static str>,
    ended_at: Option<i64>,
    outcome: Option<Vec<u8>>,
}

const COLUMNS: &str = "id, job_id, state, code, attempt, treatment, cancel_wanted, resolution IS NOT NULL, body, \
     lane, origin, retries";

impl Queue {
    /// When the next waiting job comes too late.
    ///
    /// # Errors
    /// Those of the database.
    pub fn next_expiry(&self) -> Result<Option<Timestamp>, StoreError> {
        let at = self
            .connection
            .prepare_cached("SELECT min(expires_at) FROM job INDEXED BY job_expiry WHERE state = 'waiting'")?
            .query_row([], |row| row.get(0))?;
        Ok(instant(at))
    }

    /// When the next job whose time has not come becomes ready.
    ///
    /// # Errors
    /// Those of the database.
    pub fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let at = self
            .connection
            .prepare_cached(
                "SELECT min(due_at) FROM job INDEXED BY job_due WHERE state = 'waiting' AND due_at IS NOT NULL",
            )?
            .query_row([], |row| row.get(0))?;
        Ok(instant(at))
    }

    /// Makes jobs ready whose time has come, a bounded number; gives their lanes.
    ///
    /// # Errors
    /// Those of the database; [`StoreError::Damaged`] when its index names jobs that wait for no time, as it would again
    /// and again.
    pub fn come_due(&mut self, now: Timestamp) -> Result<BTreeSet<LaneName>, StoreError> {
        self.shorten_pauses(now)?;
        let mut statement = self.connection.prepare_cached(
            "UPDATE job SET due_at = NULL, retry_at = NULL WHERE id IN (SELECT id FROM job INDEXED BY job_due WHERE state = 'waiting' \
             AND due_at IS NOT NULL AND due_at <= ?1 ORDER BY due_at LIMIT ?2) AND due_at IS NOT NULL RETURNING lane",
        )?;
        let mut rows = statement.query([now.as_millisecond(), DUE_AT_ONCE])?;
        let (mut lanes, mut moved) = (BTreeSet::new(), 0);
        while let Some(row) = rows.next()? {
            moved += 1;
            lanes.extend(row.get::<_, Option<String>>(0)?.and_then(|lane| LaneName::new(lane).ok()));
        }
        if moved < DUE_AT_ONCE && self.next_due()?.is_some_and(|due| due <= now) {
            return Err(self.damaged("the index of timers names jobs that have none"));
        }
        Ok(lanes)
    }

    /// A removal that pauses for longer than any does was put off by a clock that has since been put back.
    fn shorten_pauses(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let latest = now.saturating_add(REMOVE_AGAIN).unwrap_or(Timestamp::MAX);
        let longer = self.ids(
            "SELECT job_id FROM job INDEXED BY job_pause WHERE state = 'waiting' AND due_at IS NOT NULL \
             AND retry_at IS NOT NULL AND due_at > ?1 ORDER BY due_at",
            [latest.as_millisecond()],
        )?;
        for job_id in longer {
            let row = self.known(job_id)?;
            let end = row.body.as_ref().and_then(|body| body.not_before).filter(|end| *end > latest);
            let (due_at, retry_at) = end.map_or((latest, Some(latest)), |end| (end, None));
            self.connection
                .prepare_cached("UPDATE job SET due_at = ?2, retry_at = ?3 WHERE id = ?1")?
                .execute(params![
                    row.id()?,
                    due_at.as_millisecond(),
                    retry_at.map(Timestamp::as_millisecond)
                ])?;
        }
        Ok(())
    }

    /// The file contradicts itself.
    pub(super) fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { path: self.connection.path().unwrap_or(FILE).into(), what: what.into() }
    }

    /// When a job of the lane that pauses between two attempts may be tried again.
    ///
    /// # Errors
    /// Those of the database.
    pub fn next_retry(&self, lane: &LaneName) -> Result<Option<Timestamp>, StoreError> {
        let at = self
            .connection
            .prepare_cached(
                "SELECT min(retry_at) FROM job WHERE lane = ?1 AND state = 'waiting' AND due_at IS NULL \
                 AND retry_at IS NOT NULL",
            )?
            .query_row([lane.as_str()], |row| row.get(0))?;
        Ok(instant(at))
    }

    /// Deletes what nobody asks for any more: jobs that ended before an instant, audit lines and early cancellations
    /// from before it. A bounded number of each; says how many rows went, so call it until it says none. A job in
    /// doubt stays, and so does one whose deadline lies ahead: were it delivered again, it would be done again. Nobody
    /// delivers the agent's own. A removal has no deadline to speak of: its end is that of its slot, which goes once it
    /// has long been empty. Until then it says who had the slot emptied, and delivered again it would harm nobody.
    ///
    /// # Errors
    /// Those of the database.
    pub fn purge(&mut self, before: Timestamp) -> Result<usize, StoreError> {
        let before = before.as_millisecond();
        let (mut gone, forgotten) = self.purge_jobs(before)?;
        for sql in [
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 LIMIT ?2)",
            "DELETE FROM slot WHERE slot IN (SELECT slot FROM slot WHERE empty AND changed_at < ?1 AND NOT EXISTS \
             (SELECT 1 FROM job WHERE job.slot = slot.slot AND job.ended_at IS NULL) LIMIT ?2)",
            "DELETE FROM cancelled_ahead WHERE job_id IN (SELECT job_id FROM cancelled_ahead WHERE at < ?1 LIMIT ?2)",
        ] {
            gone += self.connection.prepare_cached(sql)?.execute([before, PURGED_AT_ONCE])?;
        }
        gone += self.drop_outdated_desired()?;
        gone += self.forget_facts(before)?;
        // Only as far as what is really gone: it never goes back, even where the clock was ahead.
        if let Some(latest) = forgotten {
            self.connection
                .prepare_cached("UPDATE memory SET purged_before = ?1 WHERE purged_before < ?1")?
                .execute([latest.saturating_add(1)])?;
        }
        Ok(gone)
    }

    /// How many jobs went, and the latest deadline among those that somebody could deliver again.
    fn purge_jobs(&mut self, before: i64) -> Result<(usize, Option<i64>), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM job WHERE id IN (SELECT id FROM job INDEXED BY job_over \
             WHERE ended_at IS NOT NULL AND max(ended_at, coalesce(sent_at, 0)) < ?1 AND (expires_at < ?1 OR origin = 'timer' \
             OR kind = 'slot.remove' AND NOT EXISTS (SELECT 1 FROM slot WHERE slot.slot = job.slot)) \
             AND state <> 'unknown' LIMIT ?2) \
             RETURNING CASE WHEN origin = 'timer' OR kind = 'slot.remove' THEN NULL ELSE expires_at END",
        )?;
        let mut rows = statement.query([before, PURGED_AT_ONCE])?;
        let (mut gone, mut latest) = (0, None);
        while let Some(row) = rows.next()? {
            gone += 1;
            latest = latest.max(row.get::<_, Option<i64>>(0)?);
        }
        Ok((gone, latest))
    }

    /// Whether a job that this memory would have kept until its deadline may have ended here and been purged since.
    pub(super) fn may_be_purged(&self, expires_at: Timestamp) -> Result<bool, StoreError> {
        let purged_before: i64 = self
            .connection
            .prepare_cached("SELECT purged_before FROM memory")?
            .query_row([], |row| row.get(0))?;
        Ok(expires_at.as_millisecond() < purged_before)
    }

    pub(super) fn holds(&self, job_id: JobId) -> Result<bool, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM job WHERE job_id = ?1")?
            .exists([job_id.0.as_bytes()])?)
    }

    pub(super) fn arrived(&self, job_id: JobId) -> Result<Arrived, StoreError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT EXISTS(SELECT 1 FROM job WHERE job_id = ?1), \
                 EXISTS(SELECT 1 FROM cancelled_ahead WHERE job_id = ?1), \
                 set_back_at, set_back_latest, \
                 (SELECT coalesce(sum(jobs), 0) FROM tally WHERE state = 'waiting') FROM memory",
            )?
            .query_row([job_id.0.as_bytes()], |row| {
                Ok(Arrived {
                    is_held: row.get(0)?,
                    is_cancelled: row.get(1)?,
                    set_back: SetBack { at: row.get(2)?, latest: row.get(3)? },
                    waiting: self.with_those_that_moved(row.get(4)?),
                })
            })?)
    }

    /// The row of a job that has just arrived. It is stored by what its arrival comes to.
    pub(super) fn received_row(
        &self,
        job: Job,
        admission: Option<Admission>,
        origin: Origin,
        retries: Option<JobId>,
        not_before: Option<Timestamp>,
    ) -> Result<Row, StoreError> {
        let job_id = job.job_id;
        let lane = admission.as_ref().map(|admission| admission.lane.clone());
        let (rooms, printed_end) =
            admission.map(|admission| (admission.rooms, admission.printed_end)).unwrap_or_default();
        let body = Body { job, rooms, printed_end, confirmed_by: None, not_before };
        Ok(Row {
            rooms: ledger::rooms_of(&body.job.order, &body.rooms),
            body: Some(body),
            lane,
            origin,
            retries,
            ..Self::received(None, job_id)
        })
    }

    /// Stores a job that has just arrived as one that is received, where its place among others has to be taken before
    /// it is known what becomes of it.
    pub(super) fn store_received(&mut self, now: Timestamp, row: &mut Row) -> Result<(), StoreError> {
        if row.id.is_none() {
            row.id = Some(self.insert(now, row, JobState::Received, First::default())?);
        }
        Ok(())
    }

    fn insert(
        &mut self,
        now: Timestamp,
        row: &Row,
        state: JobState,
        first: First,
    ) -> Result<i64, StoreError> {
        let job = row.job()?;
        let sealed = self.sealed(&body_place(row.job_id), &row.body);
        let reservation = ledger::reservation_of(&job.order);
        self.connection
            .prepare_cached(
                "INSERT INTO job(job_id, system, kind, lane, state, code, priority, attempt, received_at, expires_at, \
                 due_at, retry_at, sent_at, ended_at, treatment, body, outcome, origin, retries, slot, reservation, card, \
                 order_epoch, order_n) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, \
                 ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
            )?
            .execute(params![
                row.job_id.0.as_bytes(),
                job.system.as_str(),
                job.order.kind().as_str(),
                row.lane.as_ref().map(LaneName::as_str),
                state.as_str(),
                first.code,
                job.priority as u8,
                first.attempt,
                now.as_millisecond(),
                job.expires_at.as_millisecond(),
                first.due_at,
                first.retry_at,
                first.sent_at,
                first.ended_at,
                first.treatment,
                sealed,
                first.outcome,
                row.origin.as_str(),
                row.retries.as_ref().map(|retries| retries.0.as_bytes()),
                self.slot_index(&job.system, &job.order),
                reservation.map(|key| self.reservation_index(&job.system, key)),
                row.card.as_ref().map(|card| card.0.as_bytes()),
                first.position.map(|at| at.epoch.cast_signed()),
                first.position.map(|at| at.n.cast_signed()),
            ])?;
        let id = self.connection.last_insert_rowid();
        self.count_in(state, first.code)?;
        Ok(id)
    }

    fn reservation_index(&self, system: &SystemName, key: &ReservationKey) -> [u8; 32] {
        self.seal.blind_index("job.reservation", &format!("{system}\0{}", key.as_str()))
    }

    /// The earliest unfinished job that works in the name of the same reservation and was ordered before, among those
    /// that can be worked off at all: `stuck` lanes hold up nobody else, nor does what waits for a person's word.
    pub(super) fn ordered_before(
        &self,
        row: &Row,
        stuck: &BTreeSet<LaneName>,
    ) -> Result<Option<Row>, StoreError> {
        let job = row.job()?;
        let Some(key) = ledger::reservation_of(&job.order) else {
            return Ok(None);
        };
        let index = self.reservation_index(&job.system, key);
        let mut after = 0;
        loop {
            let sql = format!(
                "SELECT {COLUMNS} FROM job WHERE id = (SELECT min(id) FROM \
                 (SELECT min(id) AS id FROM job INDEXED BY job_reservation \
                 WHERE reservation = ?1 AND state = 'waiting' AND due_at IS NULL AND id > ?2 AND id < ?3 \
                 UNION ALL SELECT min(id) FROM job INDEXED BY job_state \
                 WHERE state = 'sent' AND state NOT IN ('waiting', 'succeeded') AND reservation = ?1 AND id > ?2 AND id < ?3))"
            );
            let Some(earlier) = self.row(&sql, params![index, after, row.id.unwrap_or(i64::MAX)])? else {
                return Ok(None);
            };
            if earlier.state == JobState::Sent
                || !earlier.lane.as_ref().is_some_and(|lane| stuck.contains(lane))
            {
                return Ok(Some(earlier));
            }
            after = earlier.id()?;
        }
    }

    /// The jobs that wait and work in the name of the same reservation as one that was ordered later.
    pub(super) fn waiting_before(&self, row: &Row) -> Result<Vec<JobId>, StoreError> {
        let job = row.job()?;
        let Some(key) = ledger::reservation_of(&job.order) else {
            return Ok(Vec::new());
        };
        self.ids(
            "SELECT job_id FROM job INDEXED BY job_reservation \
             WHERE reservation = ?1 AND state = 'waiting' AND id < ?2 ORDER BY id",
            params![self.reservation_index(&job.system, key), row.id.unwrap_or(i64::MAX)],
        )
    }

    /// Whether a job stands in its lane, to be sent at once.
    pub(super) fn is_ready(&self, row: &Row) -> Result<bool, StoreError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT 1 FROM job WHERE id = ?1 AND state = 'waiting' AND due_at IS NULL AND retry_at IS NULL",
            )?
            .exists([row.id()?])?)
    }

    /// Stores the id of a job that could not be read.
    pub(super) fn insert_unreadable(&mut self, now: Timestamp, job_id: JobId) -> Result<Row, StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO job(job_id, state, received_at, expires_at) VALUES (?1, 'received', ?2, ?2)",
            )?
            .execute(params![job_id.0.as_bytes(), now.as_millisecond()])?;
        let id = self.connection.last_insert_rowid();
        self.count_in(JobState::Received, "")?;
        Ok(Self::received(Some(id), job_id))
    }

    fn received(id: Option<i64>, job_id: JobId) -> Row {
        Row {
            id,
            job_id,
            state: JobState::Received,
            code: None,
            attempt: 0,
            treatment: None,
            cancel_wanted: false,
            is_resolved: false,
            lane: None,
            origin: Origin::Cloud,
            retries: None,
            body: None,
            rooms: Vec::new(),
            card: None,
            position: None,
        }
    }

    pub(super) fn find(&self, job_id: JobId) -> Result<Option<Row>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM job WHERE job_id = ?1");
        self.row(&sql, params![job_id.0.as_bytes()])
    }

    pub(super) fn known(&self, job_id: JobId) -> Result<Row, StoreError> {
        self.find(job_id)?.ok_or_else(|| StoreError::corrupt(place(job_id), "there is no such job"))
    }

    /// The first job of a lane that may be sent.
    pub(super) fn next_of(&self, lane: &LaneName) -> Result<Option<Row>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM job WHERE id = (SELECT id FROM job WHERE lane = ?1 AND state = 'waiting' \
             AND due_at IS NULL AND retry_at IS NULL ORDER BY priority DESC, id LIMIT 1)"
        );
        self.row(&sql, params![lane.as_str()])
    }

    /// The first job of a lane that nobody stands and waits for.
    pub(super) fn next_in_background(&self, lane: &LaneName) -> Result<Option<Row>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM job WHERE id = (SELECT id FROM job WHERE lane = ?1 AND state = 'waiting' \
             AND due_at IS NULL AND retry_at IS NULL AND priority = ?2 ORDER BY id LIMIT 1)"
        );
        self.row(&sql, params![lane.as_str(), Priority::Background as u8])
    }

    /// Whether a job of the lane may be sent.
    pub(super) fn has_ready(&mut self, now: Timestamp, lane: &LaneName) -> Result<bool, StoreError> {
        // Nothing comes before null.
        let first: Option<Option<i64>> = self
            .connection
            .prepare_cached(
                "SELECT retry_at FROM job WHERE lane = ?1 AND state = 'waiting' AND due_at IS NULL \
                 ORDER BY retry_at LIMIT 1",
            )?
            .query_row([lane.as_str()], |row| row.get(0))
            .optional()?;
        match first {
            None => Ok(false),
            Some(None) => Ok(true),
            Some(Some(_)) => Ok(self.promote(now, lane)? > 0),
        }
    }

    /// Lets jobs be sent whose pause is over, or cannot be one; says how many.
    pub(super) fn promote(&mut self, now: Timestamp, lane: &LaneName) -> Result<usize, StoreError> {
        let latest = now.saturating_add(LONGEST_PAUSE).unwrap_or(Timestamp::MAX);
        // Two ranges of the index: with one condition for both, every waiting job of the lane would be looked at.
        let mut ready = 0;
        for (sql, than) in [
            (
                "UPDATE job SET retry_at = NULL \
                 WHERE lane = ?1 AND state = 'waiting' AND due_at IS NULL AND retry_at <= ?2",
                now,
            ),
            (
                "UPDATE job SET retry_at = NULL \
                 WHERE lane = ?1 AND state = 'waiting' AND due_at IS NULL AND retry_at > ?2",
                latest,
            ),
        ] {
            ready += self
                .connection
                .prepare_cached(sql)?
                .execute(params![lane.as_str(), than.as_millisecond()])?;
        }
        Ok(ready)
    }

    /// Takes a job out of those that are ready until its own time comes.
    pub(super) fn put_off(&mut self, row: &Row, until: Timestamp) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE job SET due_at = ?2 WHERE id = ?1")?
            .execute([row.id()?, until.as_millisecond()])?;
        Ok(())
    }

    pub(super) fn postpone(&mut self, row: &Row, until: Timestamp) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE job SET retry_at = ?2 WHERE id = ?1")?
            .execute([row.id()?, until.as_millisecond()])?;
        Ok(())
    }

    /// Lets a job that was just received take its place in its lane.
    pub(super) fn mark_queued(
        &mut self,
        now: Timestamp,
        row: &Row,
        due_at: Option<Timestamp>,
        retry_at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let state = row.next(Event::Queue)?;
        let (due_at, retry_at) =
            (due_at.map(Timestamp::as_millisecond), retry_at.map(Timestamp::as_millisecond));
        let Some(id) = row.id else {
            return self.insert(now, row, state, First { due_at, retry_at, ..First::default() }).map(drop);
        };
        self.connection
            .prepare_cached("UPDATE job SET state = ?2, due_at = ?3, retry_at = ?4 WHERE id = ?1")?
            .execute(params![id, state.as_str(), due_at, retry_at])?;
        self.count_moved(row, state, row.code_text())
    }

    /// Has a job wait for no time, but for what the code says.
    pub(super) fn mark_held(
        &mut self,
        now: Timestamp,
        row: &Row,
        held: i64,
        why: Code,
    ) -> Result<(), StoreError> {
        let state = match row.state {
            JobState::Waiting => JobState::Waiting,
            _ => row.next(Event::Queue)?,
        };
        let Some(id) = row.id else {
            let first = First { code: why.as_str(), due_at: Some(held), ..First::default() };
            return self.insert(now, row, state, first).map(drop);
        };
        self.connection
            .prepare_cached(
                "UPDATE job SET state = ?4, due_at = ?2, retry_at = NULL, code = ?3 WHERE id = ?1",
            )?
            .execute(params![id, held, why.as_str(), state.as_str()])?;
        self.count_moved(row, state, why.as_str())
    }

    pub(super) fn mark_waiting(
        &mut self,
        row: &Row,
        event: Event,
        retry_at: Option<Timestamp>,
        why: Option<Code>,
    ) -> Result<(), StoreError> {
        // Its row may be where the last order's position stands, and it is not looked for there any more.
        self.owe_memory(self.memory_of_transaction()?, Streams::Both)?;
        let (state, code) = (row.next(event)?, why.map_or("", Code::as_str));
        self.connection
            .prepare_cached(
                "UPDATE job SET state = ?2, retry_at = ?3, code = ?4, sent_at = NULL, treatment = NULL WHERE id = ?1",
            )?
            .execute(params![
                row.id()?,
                state.as_str(),
                retry_at.map(Timestamp::as_millisecond),
                code
            ])?;
        self.count_moved(row, state, code)
    }

    /// Marks a job `sent`; gives the number of the attempt.
    pub(super) fn mark_sent(
        &mut self,
        row: &Row,
        now: Timestamp,
        treatment: Treatment,
    ) -> Result<u32, StoreError> {
        let state = row.next(Event::Send)?;
        let (sent_at, treatment) = (now.as_millisecond(), text_of(treatment));
        let Some(id) = row.id else {
            let attempt = 1;
            let (sent_at, treatment, position) = (Some(sent_at), Some(treatment), row.position);
            self.insert(
                now,
                row,
                state,
                First { attempt, sent_at, position, treatment, ..First::default() },
            )?;
            if let Some(position) = position {
                self.stands_in_job(position);
            }
            return Ok(attempt);
        };
        let attempt = row.attempt + 1;
        self.connection
            .prepare_cached(
                "UPDATE job SET state = ?2, attempt = ?5, sent_at = ?3, treatment = ?4, retry_at = NULL, \
                 due_at = NULL, code = '' WHERE id = ?1",
            )?
            .execute(params![id, state.as_str(), sent_at, treatment, attempt])?;
        self.count_moved(row, state, "")?;
        Ok(attempt)
    }

    pub(super) fn want_cancelled(&mut self, row: &Row) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE job SET cancel_wanted = 1 WHERE id = ?1")?
            .execute([row.id()?])?;
        Ok(())
    }

    pub(super) fn mark_over(
        &mut self,
        row: &Row,
        now: Timestamp,
        outcome: &Outcome,
        event: Event,
    ) -> Result<(), StoreError> {
        let state = row.next(event)?;
        let sealed = self.sealed(&outcome_place(row.job_id), outcome);
        let (code, ended_at) =
            (refusal_of(outcome).map_or("", |refusal| refusal.code.as_str()), now.as_millisecond());
        let Some(id) = row.id else {
            let (ended_at, outcome) = (Some(ended_at), Some(sealed));
            let first = First { code, ended_at, outcome, ..First::default() };
            return self.insert(now, row, state, first).map(drop);
        };
        self.connection
            .prepare_cached(
                "UPDATE job SET state = ?2, code = ?3, ended_at = ?4, outcome = ?5, retry_at = NULL, due_at = NULL WHERE id = ?1",
            )?
            .execute(params![id, state.as_str(), code, ended_at, sealed])?;
        self.count_moved(row, state, code)
    }

    pub(super) fn mark_resolved(
        &mut self,
        row: &Row,
        state: JobState,
        resolution: &Resolution,
    ) -> Result<(), StoreError> {
        let sealed = self.sealed(&resolution_place(row.job_id), resolution);
        self.connection
            .prepare_cached("UPDATE job SET state = ?2, resolution = ?3 WHERE id = ?1")?
            .execute(params![row.id()?, state.as_str(), sealed])?;
        self.count_moved(row, state, row.code_text())
    }

    /// The lanes in which jobs wait.
    pub(super) fn lanes_with_work(&self) -> Result<BTreeSet<LaneName>, StoreError> {
        // From each lane to the next one by the index, however many jobs wait in it.
        let mut statement = self
            .connection
            .prepare_cached("SELECT min(lane) FROM job WHERE state = 'waiting' AND lane > ?1")?;
        let mut lanes = BTreeSet::new();
        let mut last = String::new();
        while let Some(lane) = statement.query_row([&last], |row| row.get::<_, Option<String>>(0))? {
            lanes.extend(LaneName::new(lane.as_str()).ok());
            last = lane;
        }
        Ok(lanes)
    }

    pub(super) fn waiting(&self) -> Result<u64, StoreError> {
        let count: i64 = self
            .connection
            .prepare_cached("SELECT coalesce(sum(jobs), 0) FROM tally WHERE state = 'waiting'")?
            .query_row([], |row| row.get(0))?;
        Ok(self.with_those_that_moved(count))
    }

    /// How many jobs wait, where the tally says so many.
    fn with_those_that_moved(&self, waiting: i64) -> u64 {
        let moved = self.owed.moved().filter(|(state, _, _)| *state == JobState::Waiting);
        moved.fold(waiting, |waiting, (_, _, jobs)| waiting + jobs).max(0).cast_unsigned()
    }

    /// How many jobs wait for their time; counts no further than `most`.
    pub(super) fn scheduled(&self, most: u64) -> Result<u64, StoreError> {
        if most == 0 {
            return Ok(0);
        }
        let count: i64 = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM job INDEXED BY job_due WHERE state = 'waiting' \
                 AND due_at IS NOT NULL LIMIT ?1)",
            )?
            .query_row([i64::try_from(most).unwrap_or(i64::MAX)], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    /// How many jobs are at work: no more than there are lanes, and those that stand aside.
    pub(super) fn at_work(&self) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) FROM job {}", in_state(JobState::Sent));
        let count: i64 = self.connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    /// How many jobs wait or are at work.
    pub(super) fn unfinished(&self) -> Result<u64, StoreError> {
        Ok(self.waiting()? + self.at_work()?)
    }

    /// How many cards were sent since an instant; counts no further than `limit`.
    pub(super) fn cards_sent_since(&self, since: Timestamp, limit: u32) -> Result<u32, StoreError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM job INDEXED BY job_over WHERE ended_at IS NOT NULL \
                 AND max(ended_at, coalesce(sent_at, 0)) > ?1 AND kind = 'card.encode' AND sent_at > ?1 \
                 UNION ALL SELECT 1 FROM job INDEXED BY job_state WHERE state = 'sent' \
                 AND state NOT IN ('waiting', 'succeeded') AND kind = 'card.encode' AND sent_at > ?1 LIMIT ?2)",
            )?
            .query_row([since.as_millisecond(), i64::from(limit)], |row| row.get(0))?)
    }

    pub(super) fn ids_in(&self, state: JobState) -> Result<Vec<JobId>, StoreError> {
        self.ids(&format!("SELECT job_id FROM job {} ORDER BY id", in_state(state)), [])
    }

    pub(super) fn ids_expired(&self, now: Timestamp, limit: usize) -> Result<Vec<JobId>, StoreError> {
        self.ids(
            "SELECT job_id FROM job INDEXED BY job_expiry WHERE state = 'waiting' AND expires_at <= ?1 \
             ORDER BY expires_at, id LIMIT ?2",
            params![now.as_millisecond(), i64::try_from(limit).unwrap_or(i64::MAX)],
        )
    }

    pub(super) fn ids(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<JobId>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let ids = statement.query_map(params, |row| Ok(JobId(uuid::Uuid::from_bytes(row.get(0)?))))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    fn row(&self, sql: &str, params: impl rusqlite::Params) -> Result<Option<Row>, StoreError> {
        type Read = (Row, String, Option<String>, Option<Vec<u8>>, String);
        let read: Option<Read> = self
            .connection
            .prepare_cached(sql)?
            .query_row(params, |row| {
                let code: String = row.get(3)?;
                let retries: Option<[u8; 16]> = row.get(11)?;
                let read = Row {
                    id: Some(row.get(0)?),
                    job_id: JobId(uuid::Uuid::from_bytes(row.get(1)?)),
                    state: JobState::Received,
                    code: Some(code).filter(|code| !code.is_empty()).map(|code| code_named(&code)),
                    attempt: row.get(4)?,
                    treatment: None,
                    cancel_wanted: row.get(6)?,
                    is_resolved: row.get(7)?,
                    lane: row.get::<_, Option<String>>(9)?.and_then(|lane| LaneName::new(lane).ok()),
                    origin: Origin::Cloud,
                    retries: retries.map(|bytes| JobId(uuid::Uuid::from_bytes(bytes))),
                    body: None,
                    rooms: Vec::new(),
                    card: None,
                    position: None,
                };
                Ok((read, row.get(2)?, row.get(5)?, row.get(8)?, row.get(10)?))
            })
            .optional()?;
        let Some((mut row, state, treatment, sealed, origin)) = read else {
            return Ok(None);
        };
        row.state = state_named(&state).ok_or_else(|| StoreError::corrupt(place(row.job_id), "its state"))?;
        row.origin =
            origin_named(&origin).ok_or_else(|| StoreError::corrupt(place(row.job_id), "its origin"))?;
        row.treatment = treatment.as_deref().and_then(treatment_named);
        if let Some(sealed) = sealed {
            let body: Body = self.unseal(&body_place(row.job_id), &sealed)?;
            row.rooms = ledger::rooms_of(&body.job.order, &body.rooms);
            row.body = Some(body);
        }
        Ok(Some(row))
    }

    pub(super) fn room(
        &self,
        system: &SystemName,
        room: &DoorName,
    ) -> Result<Option<ledger::Room>, StoreError> {
        let sealed: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT body FROM room WHERE system = ?1 AND room = ?2")?
            .query_row([system.as_str(), room.as_str()], |row| row.get(0))
            .optional()?;
        sealed.map(|sealed| self.unseal(&room_place(system, room), &sealed)).transpose()
    }

    pub(super) fn put_room(
        &mut self,
        system: &SystemName,
        name: &DoorName,
        room: &ledger::Room,
    ) -> Result<(), StoreError> {
        let sealed = self.sealed(&room_place(system, name), room);
        self.connection
            .prepare_cached(
                "INSERT INTO room(system, room, body) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET body = excluded.body",
            )?
            .execute(params![system.as_str(), name.as_str(), sealed])?;
        Ok(())
    }

    /// Every room of the ledger, or of one system.
    pub(super) fn all_rooms(
        &self,
        system: Option<&SystemName>,
    ) -> Result<Vec<(SystemName, DoorName, ledger::Room)>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT system, room, body FROM room WHERE ?1 IS NULL OR system = ?1 ORDER BY system, room",
        )?;
        let mut rows = statement.query([system.map(SystemName::as_str)])?;
        let mut rooms = Vec::new();
        while let Some(row) = rows.next()? {
            let corrupt = |error| StoreError::corrupt("room", error);
            let system = SystemName::new(row.get::<_, String>(0)?).map_err(corrupt)?;
            let name = DoorName::new(row.get::<_, String>(1)?).map_err(corrupt)?;
            let sealed: Vec<u8> = row.get(2)?;
            let room = self.unseal(&room_place(&system, &name), &sealed)?;
            rooms.push((system, name, room));
        }
        Ok(rooms)
    }

    pub(super) fn was_here(
        &self,
        system: &SystemName,
        room: &DoorName,
        key: &ReservationKey,
    ) -> Result<bool, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM stay WHERE system = ?1 AND room = ?2 AND reservation = ?3")?
            .exists(params![system.as_str(), room.as_str(), self.stay_index(key)])?)
    }

    pub(super) fn put_stay(
        &mut self,
        system: &SystemName,
        room: &DoorName,
        key: &ReservationKey,
        job_id: JobId,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT OR IGNORE INTO stay(system, room, reservation, job_id) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![system.as_str(), room.as_str(), self.stay_index(key), job_id.0.as_bytes()])?;
        Ok(())
    }

    /// Takes back that a job began its reservation's stay in a room.
    pub(super) fn drop_stay_begun_by(
        &mut self,
        system: &SystemName,
        room: &DoorName,
        key: &ReservationKey,
        job_id: JobId,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "DELETE FROM stay WHERE system = ?1 AND room = ?2 AND reservation = ?3 AND job_id = ?4",
            )?
            .execute(params![system.as_str(), room.as_str(), self.stay_index(key), job_id.0.as_bytes()])?;
        Ok(())
    }

    pub(super) fn drop_stays_in(&mut self, system: &SystemName, room: &DoorName) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM stay WHERE system = ?1 AND room = ?2")?
            .execute([system.as_str(), room.as_str()])?;
        Ok(())
    }

    fn stay_index(&self, key: &ReservationKey) -> [u8; 32] {
        self.seal.blind_index("stay.reservation", key.as_str())
    }

    pub(super) fn sealed(&self, place: &str, value: &impl Serialize) -> Vec<u8> {
        let mut plain = serde_json::to_vec(value).expect("rows have string keys only");
        let sealed = self.seal.seal(place, &plain);
        plain.zeroize();
        sealed
    }

    pub(super) fn unseal<T: DeserializeOwned>(&self, place: &str, sealed: &[u8]) -> Result<T, StoreError> {
        let mut plain = self.seal.open(place, sealed)?;
        let value = serde_json::from_slice(&plain).map_err(|error| StoreError::corrupt(place, error));
        plain.zeroize();
        value
    }
}

/// How the jobs of one state are found. The states that most jobs are in have no entry in `job_state`, so that a job on
/// its way costs no page of it.
pub(super) fn in_state(state: JobState) -> &'static str {
    match state {
        JobState::Received => {
            "INDEXED BY job_state WHERE state = 'received' AND state NOT IN ('waiting', 'succeeded')"
        }
        JobState::Waiting => "INDEXED BY job_expiry WHERE state = 'waiting'",
        JobState::Sent => {
            "INDEXED BY job_state WHERE state = 'sent' AND state NOT IN ('waiting', 'succeeded')"
        }
        JobState::Succeeded => "NOT INDEXED WHERE state = 'succeeded'",
        JobState::Failed => {
            "INDEXED BY job_state WHERE state = 'failed' AND state NOT IN ('waiting', 'succeeded')"
        }
        JobState::Unknown => {
            "INDEXED BY job_state WHERE state = 'unknown' AND state NOT IN ('waiting', 'succeeded')"
        }
        JobState::Cancelled => {
            "INDEXED BY job_state WHERE state = 'cancelled' AND state NOT IN ('waiting', 'succeeded')"
        }
        JobState::Expired => {
            "INDEXED BY job_state WHERE state = 'expired' AND state NOT IN ('waiting', 'succeeded')"
        }
        JobState::Superseded => {
            "INDEXED BY job_state WHERE state = 'superseded' AND state NOT IN ('waiting', 'succeeded')"
        }
    }
}

pub(super) fn refusal_of(outcome: &Outcome) -> Option<&Refusal> {
    match outcome {
        Outcome::Failed(refusal) | Outcome::Unknown(refusal) | Outcome::Expired(refusal) => Some(refusal),
        Outcome::Succeeded(_) | Outcome::Cancelled | Outcome::Superseded => None,
    }
}

pub(super) fn instant(millisecond: Option<i64>) -> Option<Timestamp> {
    millisecond.and_then(|at| Timestamp::from_millisecond(at).ok())
}

pub(super) fn state_named(text: &str) -> Option<JobState> {
    JobState::ALL.into_iter().find(|state| state.as_str() == text)
}

pub(super) fn code_named(text: &str) -> Code {
    let known = Code::ALL.iter().find(|code| code.as_str() == text);
    known.copied().unwrap_or(Code::Other)
}

pub(super) fn origin_named(text: &str) -> Option<Origin> {
    Origin::ALL.into_iter().find(|origin| origin.as_str() == text)
}

const TREATMENTS: [Treatment; 3] = [Treatment::Plain, Treatment::Override, Treatment::Join];

fn text_of(treatment: Treatment) -> &'static str {
    match treatment {
        Treatment::Plain => "plain",
        Treatment::Override => "override",
        Treatment::Join => "join",
    }
}

pub(super) fn treatment_named(text: &str) -> Option<Treatment> {
    TREATMENTS.into_iter().find(|treatment| text_of(*treatment) == text)
}

pub(super) fn place(job_id: JobId) -> String {
    format!("job/{job_id}")
}

pub(super) fn body_place(job_id: JobId) -> String {
    format!("job.body/{job_id}")
}

pub(super) fn outcome_place(job_id: JobId) -> String {
    format!("job.outcome/{job_id}")
}

pub(super) fn resolution_place(job_id: JobId) -> String {
    format!("job.resolution/{job_id}")
}

fn room_place(system: &SystemName, room: &DoorName) -> String {
    format!("room.body/{system}/{room}")
}
