//! Bridges: who they are, what was ordered of them, and what both ends remember of the two streams.
//!
//! An order gets its position when it is handed out, in a commit that ends before its frame is written to a socket.
//! So "has a position or ever had one" is the same as "the bridge may know of it", and what was never handed out has
//! nothing to be renumbered. While the bridge is connected and within its limit, the commit that makes an order is
//! also the one that hands it out.
//!
//! What a connection does to a stream carries the connection's number; once a newer one has met the cloud, the older
//! one's operations change nothing.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, named_params, params};

use super::{Db, desired::Told};
use crate::{
    model::{BridgeId, Code, Job, JobId, JobState, Outcome, Report, WorkspaceId},
    protocol::{
        Envelope, EpochReason, Memory, Message, Ordered, Position,
        stream::{self, Arrival, Resume, Sent},
    },
    store::StoreError,
};

/// How many orders are handed out in one commit.
const HANDED_AT_ONCE: u64 = 64;

/// The connection that speaks for a bridge.
#[derive(Debug)]
pub(super) struct Live {
    connection: u64,
    /// The last order that the bridge lets us send.
    orders_limit: u64,
    /// What it was told of what is desired.
    desired: Told,
}

/// What came of a bridge's hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// The position before the next order to send.
    pub orders_resume_after: Position,
    /// Why the orders began a new epoch, if they did.
    pub orders_epoch_reason: Option<EpochReason>,
    /// The last report held.
    pub reports_received: Position,
    /// Jobs that end in doubt because the bridge forgot what it had been handed.
    pub lost: Vec<JobId>,
}

/// What became of the wish to take an order back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Cancel {
    /// The bridge never heard of the job and never will: it is over now, and no report will come.
    Withdrawn,
    /// The bridge is asked; its report tells.
    Ordered,
    /// The job was over, or is not known.
    TooLate,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was the next one and is applied.
    Applied,
    /// It was held already.
    Held,
    /// Something is missing before it.
    Gap {
        /// What was due.
        expected: Position,
    },
    /// A newer connection speaks for the bridge.
    Fenced,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// 0 for the cloud's own word, 1 for the bridge's, 2 for what settled a doubt.
    pub revision: u8,
    /// The state it ended in.
    pub state: JobState,
    /// Why it did not simply succeed.
    pub code: Option<String>,
    /// When that was decided, by the clock of who decided it.
    pub at: Timestamp,
}

/// Where an order stands on its way to the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody but the cloud knows of it.
    Waiting,
    /// The bridge may know of it.
    Handed,
    /// The bridge holds it durably.
    Acknowledged,
    /// Its job's end is known.
    Over,
}

impl Db {
    /// The bridge of a workspace; made when there is none yet.
    ///
    /// # Errors
    /// Those of the database.
    pub fn the_bridge(&mut self, now: Timestamp, workspace: WorkspaceId) -> Result<BridgeId, StoreError> {
        let found: Option<String> = self
            .connection
            .prepare_cached("SELECT id FROM bridge WHERE workspace_id = ? ORDER BY created_at, id LIMIT 1")?
            .query_row([workspace.to_string()], |row| row.get(0))
            .optional()?;
        if let Some(id) = found {
            return parsed(&id, "bridge");
        }
        let bridge = BridgeId(self.random.uuid());
        self.connection
            .prepare_cached("INSERT INTO bridge (id, workspace_id, created_at) VALUES (?, ?, ?)")?
            .execute(params![bridge.to_string(), workspace.to_string(), now.as_millisecond()])?;
        Ok(bridge)
    }

    /// Orders a job. A job that is ordered already stays as it is.
    ///
    /// # Errors
    /// Those of the database; also when there is no such bridge.
    pub fn enqueue_job(&mut self, now: Timestamp, bridge: BridgeId, job: &Job) -> Result<(), StoreError> {
        self.enqueue(now, bridge, job.job_id, "job", &Message::Job(job.clone()))
    }

    /// Takes a job back, if nothing was sent for it yet.
    ///
    /// # Errors
    /// Those of the database.
    pub fn enqueue_cancel(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job_id: JobId,
    ) -> Result<Cancel, StoreError> {
        match self.standing(job_id)? {
            None | Some(Standing::Over) => Ok(Cancel::TooLate),
            Some(Standing::Waiting) => {
                self.end_orders(now, bridge, job_id)?;
                self.keep_end(now, bridge, job_id, &JobEnd::of_ours(now, Outcome::Cancelled))?;
                // It is never asked for, and carries names and codes.
                self.execute(
                    "UPDATE bridge_order SET body = x'' WHERE job_id = ?1 AND what = 'job' AND position IS NULL",
                    [job_id.to_string()],
                )?;
                Ok(Cancel::Withdrawn)
            }
            Some(Standing::Handed | Standing::Acknowledged) => {
                let ordered = self.ordered(job_id)?;
                self.enqueue(now, bridge, job_id, "cancel", &Message::Cancel { job_id, ordered })?;
                Ok(Cancel::Ordered)
            }
        }
    }

    /// What a job was, as far as it can still be read: who is erased takes what was ordered for them along.
    fn ordered(&self, job_id: JobId) -> Result<Option<Ordered>, StoreError> {
        let body: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT body FROM bridge_order WHERE job_id = ? AND what = 'job'")?
            .query_row([job_id.to_string()], |row| row.get(0))
            .optional()?;
        let place = body_place(&job_id.to_string(), "job");
        let Some(body) = body.and_then(|body| self.seal.open(&place, &body).ok()) else { return Ok(None) };
        match serde_json::from_slice(&body) {
            Ok(Message::Job(job)) => Ok(Some(Ordered::of(&job))),
            _ => Err(StoreError::corrupt(place, "it is no job")),
        }
    }

    /// Whether the bridge may know of a job. False for a job that was never ordered or whose order is long over.
    ///
    /// # Errors
    /// Those of the database.
    pub fn was_handed(&mut self, job_id: JobId) -> Result<bool, StoreError> {
        let handed = self
            .connection
            .prepare_cached("SELECT handed FROM bridge_order WHERE job_id = ? AND what = 'job'")?
            .query_row([job_id.to_string()], |row| row.get(0))
            .optional()?;
        Ok(handed.unwrap_or(false))
    }

    /// Where the order of a job stands; nothing for a job that was never ordered or whose order is long over.
    ///
    /// # Errors
    /// Those of the database.
    pub fn standing(&mut self, job_id: JobId) -> Result<Option<Standing>, StoreError> {
        let standing = self
            .connection
            .prepare_cached(
                "SELECT handed, coalesce(position <= orders_acknowledged, 0), over_at IS NOT NULL
                 FROM bridge_order JOIN bridge ON bridge.id = bridge_id
                 WHERE job_id = ? AND what = 'job'",
            )?
            .query_row([job_id.to_string()], |row| {
                let (handed, acknowledged, over) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(match (over, acknowledged, handed) {
                    (true, _, _) => Standing::Over,
                    (false, true, _) => Standing::Acknowledged,
                    (false, false, true) => Standing::Handed,
                    (false, false, false) => Standing::Waiting,
                })
            })
            .optional()?;
        Ok(standing)
    }

    /// Compares memories with a bridge that said hello; from now on `connection` speaks for it.
    ///
    /// # Errors
    /// Those of the database; also when there is no such bridge.
    pub fn meet(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        connection: u64,
        memory: &Memory,
    ) -> Result<Meeting, StoreError> {
        let (sent, reports_received) = self.memory(bridge)?;
        let new_epoch = |reason| {
            let epoch = sent.last.epoch.max(memory.orders_received.epoch) + 1;
            Resume::NewEpoch { epoch, reason }
        };
        let resume = match stream::resume(&sent, memory.orders_received) {
            // The orders agree, and yet outcomes are forgotten here that the bridge need not keep any more. It tells
            // them again when the orders come again.
            Resume::Continue { .. }
                if 0 < memory.reports_acknowledged.n && reports_received < memory.reports_acknowledged =>
            {
                new_epoch(EpochReason::SenderBehind)
            }
            // It never held an order, and another memory may have: what was handed out, acknowledged or not, was to that one.
            Resume::Continue { .. }
                if memory.orders_received == Position::default()
                    && (self.memory_may_be_new(bridge)?
                        || sent.last.n == 0 && self.is_handed_without_a_place(bridge)?) =>
            {
                new_epoch(EpochReason::ReceiverBehind)
            }
            resume => resume,
        };
        let (orders_resume_after, orders_epoch_reason, lost) = match resume {
            Resume::Continue { after } => {
                self.acknowledge(bridge, after)?;
                self.put_cancels_first(bridge, after)?;
                (after, None, Vec::new())
            }
            Resume::NewEpoch { epoch, reason } => {
                let lost = self.begin_epoch(now, bridge, epoch, reason)?;
                (Position { epoch, n: 0 }, Some(reason), lost)
            }
        };
        if !lost.is_empty() {
            self.orders_lost(now, bridge, &lost)?;
        }
        self.expect_memory(bridge, false)?;
        self.seen(now, bridge)?;
        self.bridge_up(now, bridge)?;
        let (orders_limit, desired) = (memory.orders_limit, Told::default());
        self.live.insert(bridge, Live { connection, orders_limit, desired });
        Ok(Meeting { orders_resume_after, orders_epoch_reason, reports_received, lost })
    }

    /// Whether an empty memory that says hello next may be another one than was met before.
    pub(super) fn expect_memory(&self, bridge: BridgeId, may_be_new: bool) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE bridge SET memory_may_be_new = ?2 WHERE id = ?1 AND memory_may_be_new <> ?2",
            )?
            .execute(params![bridge.to_string(), may_be_new])?;
        Ok(())
    }

    fn memory_may_be_new(&self, bridge: BridgeId) -> Result<bool, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT memory_may_be_new FROM bridge WHERE id = ?")?
            .query_row([bridge.to_string()], |row| row.get(0))?)
    }

    /// A connection is gone. Nothing, if a newer one speaks for the bridge.
    ///
    /// # Errors
    /// Those of the database.
    pub fn part(&mut self, now: Timestamp, bridge: BridgeId, connection: u64) -> Result<(), StoreError> {
        if !self.speaks_for(bridge, connection) {
            return Ok(());
        }
        self.live.remove(&bridge);
        self.seen(now, bridge)?;
        self.bridge_down(now, bridge)
    }

    /// The bridge takes orders up to `up_to` from now on. A limit never shrinks.
    pub fn limit_orders(&mut self, bridge: BridgeId, connection: u64, up_to: u64) {
        if let Some(live) = self.live.get_mut(&bridge)
            && live.connection == connection
        {
            live.orders_limit = live.orders_limit.max(up_to);
        }
    }

    /// Hands out: the next orders after `n` of the current epoch, at most `most`, each with its position; nothing at
    /// all for a connection that no longer speaks for the bridge. They may be sent once this is committed.
    ///
    /// A job whose end is known is never ordered again, not even of a bridge that was set back and no longer knows
    /// that it did it: its place in the stream is filled by a cancel.
    ///
    /// # Errors
    /// Those of the database; also when an order's row does not open.
    pub fn orders_to_send(
        &mut self,
        bridge: BridgeId,
        connection: u64,
        after: u64,
        most: u32,
    ) -> Result<Option<Vec<Envelope>>, StoreError> {
        let Some(live) = self.live.get(&bridge).filter(|live| live.connection == connection) else {
            return Ok(None);
        };
        // What was handed out under an earlier limit waits for the present one to reach it.
        let up_to = signed(live.orders_limit);
        self.hand_out(bridge)?;
        let mut statement = self.connection.prepare_cached(
            "SELECT orders_epoch, position, job_id, what, body, over_at IS NOT NULL
             FROM bridge_order JOIN bridge ON bridge.id = bridge_id
             WHERE bridge_id = ? AND position > ? AND position <= ? ORDER BY position LIMIT ?",
        )?;
        let mut rows = statement.query(params![bridge.to_string(), signed(after), up_to, most])?;
        let mut orders = Vec::new();
        while let Some(row) = rows.next()? {
            let position = Position { epoch: number(row, 0)?, n: number(row, 1)? };
            let job_id: String = row.get(2)?;
            if row.get(5)? {
                let job_id = parsed(&job_id, "bridge_order")?;
                let cancel = Message::Cancel { job_id, ordered: self.ordered(job_id)? };
                orders.push(Envelope::at(position, &cancel));
                continue;
            }
            let place = body_place(&job_id, &row.get::<_, String>(3)?);
            let body = self.seal.open(&place, row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?)?;
            orders.push(Envelope {
                position: Some(position),
                body: String::from_utf8(body).map_err(|error| StoreError::corrupt(place, error))?,
            });
        }
        Ok(Some(orders))
    }

    /// The bridge holds all orders up to a position. False when it cannot: that one was never sent.
    ///
    /// # Errors
    /// Those of the database.
    pub fn orders_acknowledged(
        &mut self,
        bridge: BridgeId,
        connection: u64,
        position: Position,
    ) -> Result<bool, StoreError> {
        if !self.speaks_for(bridge, connection) {
            return Ok(true);
        }
        let (sent, _) = self.memory(bridge)?;
        if position > sent.last {
            return Ok(false);
        }
        self.acknowledge(bridge, position)?;
        Ok(true)
    }

    /// Takes what a bridge says in the stream of reports if it is the next one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn take_said(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        connection: u64,
        position: Position,
        message: &Message,
    ) -> Result<Taken, StoreError> {
        match message {
            Message::Outcome(report) | Message::Resolution(report) => {
                self.take_report(now, bridge, connection, position, report)
            }
            Message::GrantMade(made) => {
                self.take_next(bridge, connection, position, |db| db.adopt_made(now, bridge, made))
            }
            Message::GrantRevoked(revoked) => {
                self.take_next(bridge, connection, position, |db| db.adopt_revoked(now, bridge, revoked))
            }
            Message::DoorEvents(seen) => {
                self.take_next(bridge, connection, position, |db| db.take_door_events(now, bridge, seen))
            }
            Message::Job(_) | Message::Cancel { .. } | Message::Acknowledgement { .. } => {
                Err(StoreError::corrupt("the stream of reports", "what a bridge does not report"))
            }
        }
    }

    /// Takes a report if it is the next one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn take_report(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        connection: u64,
        position: Position,
        report: &Report,
    ) -> Result<Taken, StoreError> {
        self.take_next(bridge, connection, position, |db| {
            db.apply_report(now, bridge, report)?;
            db.end_orders(now, bridge, report.job_id)?;
            db.keep_end(now, bridge, report.job_id, &JobEnd::of(report))
        })
    }

    fn take_next(
        &mut self,
        bridge: BridgeId,
        connection: u64,
        position: Position,
        apply: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<Taken, StoreError> {
        if !self.speaks_for(bridge, connection) {
            return Ok(Taken::Fenced);
        }
        let (_, held) = self.memory(bridge)?;
        match stream::arrival(held, position) {
            Arrival::Duplicate => Ok(Taken::Held),
            Arrival::Gap { expected } => Ok(Taken::Gap { expected }),
            Arrival::Next => {
                apply(self)?;
                self.connection
                    .prepare_cached("UPDATE bridge SET reports_epoch = ?, reports_n = ? WHERE id = ?")?
                    .execute(params![signed(position.epoch), signed(position.n), bridge.to_string()])?;
                Ok(Taken::Applied)
            }
        }
    }

    fn speaks_for(&self, bridge: BridgeId, connection: u64) -> bool {
        self.live.get(&bridge).is_some_and(|live| live.connection == connection)
    }

    /// What the connection was told of what is desired, if it still speaks for the bridge.
    pub(super) fn told_to(&mut self, bridge: BridgeId, connection: u64) -> Option<&mut Told> {
        let live = self.live.get_mut(&bridge).filter(|live| live.connection == connection)?;
        Some(&mut live.desired)
    }

    fn memory(&self, bridge: BridgeId) -> Result<(Sent, Position), StoreError> {
        self.connection
            .prepare_cached(
                "SELECT orders_epoch, orders_last, orders_acknowledged, reports_epoch, reports_n
                 FROM bridge WHERE id = ?",
            )?
            .query_row([bridge.to_string()], |row| {
                let sent = Sent {
                    last: Position { epoch: number(row, 0)?, n: number(row, 1)? },
                    acknowledged: number(row, 2)?,
                };
                let received = Position { epoch: number(row, 3)?, n: number(row, 4)? };
                Ok((sent, received))
            })
            .map_err(StoreError::from)
    }

    fn seen(&self, now: Timestamp, bridge: BridgeId) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE bridge SET seen_at = ? WHERE id = ?")?
            .execute(params![now.as_millisecond(), bridge.to_string()])?;
        Ok(())
    }

    fn enqueue(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job_id: JobId,
        what: &str,
        message: &Message,
    ) -> Result<(), StoreError> {
        if self.disk_is_full && what == "job" {
            return Err(StoreError::DiskFull);
        }
        let body = Envelope::loose(message).body;
        let sealed = self.seal.seal(&body_place(&job_id.to_string(), what), body.as_bytes());
        let workspace: String = self
            .connection
            .prepare_cached("SELECT workspace_id FROM bridge WHERE id = ?")?
            .query_row([bridge.to_string()], |row| row.get(0))?;
        self.connection
            .prepare_cached(
                "INSERT INTO bridge_order (workspace_id, bridge_id, job_id, what, body, created_at)
                 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job_id, what) DO NOTHING",
            )?
            .execute(params![
                workspace,
                bridge.to_string(),
                job_id.to_string(),
                what,
                sealed,
                now.as_millisecond()
            ])?;
        self.hand_out(bridge)
    }

    /// Gives positions to waiting orders, as far as the connected bridge lets us; cancels first, as they may be of
    /// jobs that wait as well.
    fn hand_out(&mut self, bridge: BridgeId) -> Result<(), StoreError> {
        let Some(live) = self.live.get(&bridge) else {
            return Ok(());
        };
        let (sent, _) = self.memory(bridge)?;
        let room = live.orders_limit.saturating_sub(sent.last.n).min(HANDED_AT_ONCE);
        if room == 0 {
            return Ok(());
        }
        let mut last = sent.last.n;
        let waiting: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT id FROM bridge_order WHERE bridge_id = ? AND position IS NULL AND over_at IS NULL
                 ORDER BY what = 'job', id LIMIT ?",
            )?
            .query_map(params![bridge.to_string(), signed(room)], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if waiting.is_empty() {
            return Ok(());
        }
        for id in waiting {
            last += 1;
            self.connection
                .prepare_cached("UPDATE bridge_order SET position = ?, handed = 1 WHERE id = ?")?
                .execute(params![signed(last), id])?;
        }
        self.connection
            .prepare_cached("UPDATE bridge SET orders_last = ? WHERE id = ?")?
            .execute(params![signed(last), bridge.to_string()])?;
        Ok(())
    }

    /// Where a bridge holds neither a job nor its cancel yet, the cancel goes first: sent behind the job, it would come
    /// after an idle lane has begun.
    fn put_cancels_first(&self, bridge: BridgeId, held: Position) -> Result<(), StoreError> {
        let overtaken: Vec<(i64, i64, i64, Option<i64>)> = self
            .connection
            .prepare_cached(
                "SELECT job.id, job.position, cancel.id, cancel.position
                 FROM bridge_order AS cancel CROSS JOIN bridge_order AS job USING (job_id)
                 WHERE cancel.bridge_id = ? AND cancel.what = 'cancel' AND cancel.over_at IS NULL
                   AND job.what = 'job' AND job.position > ?
                   AND (cancel.position IS NULL OR cancel.position > job.position)",
            )?
            .query_map(params![bridge.to_string(), signed(held.n)], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect::<Result<_, _>>()?;
        let mut place = self
            .connection
            .prepare_cached("UPDATE bridge_order SET position = ?, handed = 1 WHERE id = ?")?;
        for (job, of_job, cancel, of_cancel) in overtaken {
            place.execute(params![None::<i64>, job])?;
            place.execute(params![of_job, cancel])?;
            place.execute(params![of_cancel, job])?;
        }
        Ok(())
    }

    fn acknowledge(&self, bridge: BridgeId, position: Position) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE bridge SET orders_acknowledged = :n
                 WHERE id = :bridge AND orders_epoch = :epoch AND orders_acknowledged < :n",
            )?
            .execute(named_params! {
                ":n": signed(position.n),
                ":bridge": bridge.to_string(),
                ":epoch": signed(position.epoch),
            })?;
        Ok(())
    }

    /// Numbers what is left anew. Where the bridge forgot, what it may once have known is lost: sending it again
    /// could do it twice. Where the cloud forgot, everything unfinished goes out again, and the bridge knows by the
    /// job's id what it has had. That it was handed out may be among what is forgotten, so from then on it counts as that:
    /// only the bridge can say that nothing came of it.
    fn begin_epoch(
        &self,
        now: Timestamp,
        bridge: BridgeId,
        epoch: u64,
        reason: EpochReason,
    ) -> Result<Vec<JobId>, StoreError> {
        let lost = match reason {
            EpochReason::SenderBehind => {
                self.connection
                    .prepare_cached(
                        "UPDATE bridge_order SET handed = 1 WHERE bridge_id = ? AND over_at IS NULL",
                    )?
                    .execute([bridge.to_string()])?;
                Vec::new()
            }
            EpochReason::ReceiverBehind => self.handed_and_open(bridge)?,
        };
        let doubt = Outcome::unknown(Code::MemoryRestored, "the bridge has lost its memory of it");
        for job_id in &lost {
            self.end_orders(now, bridge, *job_id)?;
            self.keep_end(now, bridge, *job_id, &JobEnd::of_ours(now, doubt.clone()))?;
        }
        self.connection
            .prepare_cached(
                "UPDATE bridge_order SET position = NULL WHERE bridge_id = ? AND position IS NOT NULL",
            )?
            .execute([bridge.to_string()])?;
        self.connection
            .prepare_cached(
                "UPDATE bridge SET orders_epoch = ?, orders_last = 0, orders_acknowledged = 0 WHERE id = ?",
            )?
            .execute(params![signed(epoch), bridge.to_string()])?;
        Ok(lost)
    }

    /// Whether an earlier epoch gave a bridge what has not ended. In an epoch that has handed out nothing yet, that is
    /// whatever was handed out at all.
    fn is_handed_without_a_place(&self, bridge: BridgeId) -> Result<bool, StoreError> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT EXISTS(SELECT 1 FROM bridge_order
                 WHERE bridge_id = ? AND position IS NULL AND over_at IS NULL AND what = 'job' AND handed = 1)",
            )?
            .query_row([bridge.to_string()], |row| row.get(0))?)
    }

    /// The jobs that a bridge was once given and that have not ended.
    fn handed_and_open(&self, bridge: BridgeId) -> Result<Vec<JobId>, StoreError> {
        self.connection
            .prepare_cached(
                "SELECT job_id FROM bridge_order
                 WHERE bridge_id = ? AND what = 'job' AND handed = 1 AND over_at IS NULL ORDER BY id",
            )?
            .query_map([bridge.to_string()], |row| row.get::<_, String>(0))?
            .map(|id| parsed(&id?, "bridge_order"))
            .collect()
    }

    pub(super) fn end_orders(
        &self,
        now: Timestamp,
        bridge: BridgeId,
        job_id: JobId,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "UPDATE bridge_order SET over_at = ? WHERE job_id = ? AND bridge_id = ? AND over_at IS NULL",
            )?
            .execute(params![now.as_millisecond(), job_id.to_string(), bridge.to_string()])?;
        Ok(())
    }
}

impl Db {
    /// How a job ended, as far as is known: what settled a doubt before the doubt, and the bridge's word before the
    /// cloud's own.
    ///
    /// # Errors
    /// Those of the database.
    pub fn job_end(&mut self, job_id: JobId) -> Result<Option<JobEnd>, StoreError> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT revision, state, code, decided_at FROM job_end
                 WHERE job_id = ? ORDER BY revision DESC LIMIT 1",
            )?
            .query_row([job_id.to_string()], |row| {
                let (revision, state, code, at) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                Ok((revision, state, code, at))
            })
            .optional()?;
        let Some((revision, state, code, at)) = found else { return Ok(None) };
        let (state, code): (String, Option<String>) = (state, code);
        let at = Timestamp::from_millisecond(at).map_err(|error| StoreError::corrupt("job_end", error))?;
        let state = JobState::ALL.into_iter().find(|known| known.as_str() == state);
        let state = state.ok_or_else(|| StoreError::corrupt("job_end", "a state that is none"))?;
        Ok(Some(JobEnd { revision, state, code, at }))
    }

    /// The first word of a revision stands.
    fn keep_end(
        &self,
        now: Timestamp,
        bridge: BridgeId,
        job_id: JobId,
        end: &JobEnd,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO job_end (job_id, revision, workspace_id, bridge_id, state, code, decided_at, taken_at)
                 SELECT ?1, ?2, workspace_id, id, ?4, ?5, ?6, ?7 FROM bridge WHERE id = ?3
                 ON CONFLICT (job_id, revision) DO NOTHING",
            )?
            .execute(params![
                job_id.to_string(),
                end.revision,
                bridge.to_string(),
                end.state.as_str(),
                end.code,
                end.at.as_millisecond(),
                now.as_millisecond()
            ])?;
        Ok(())
    }
}

impl JobEnd {
    fn of(report: &Report) -> Self {
        let Report { revision, at, ref outcome, .. } = *report;
        let code = outcome.reason().map(|why| why.code.as_str().to_owned());
        Self { revision, state: outcome.state(), code, at }
    }

    fn of_ours(at: Timestamp, outcome: Outcome) -> Self {
        let code = outcome.reason().map(|why| why.code.as_str().to_owned());
        Self { revision: 0, state: outcome.state(), code, at }
    }
}

pub(super) fn body_place(job_id: &str, what: &str) -> String {
    format!("bridge_order.body/{job_id}/{what}")
}

pub(super) fn parsed<T: std::str::FromStr>(id: &str, table: &str) -> Result<T, StoreError>
where
    T::Err: ToString,
{
    id.parse().map_err(|error: T::Err| StoreError::corrupt(table, error.to_string()))
}

pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0))
}

/// SQLite's integers are signed; positions and limits are far below that, and a limit of "any" saturates.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
