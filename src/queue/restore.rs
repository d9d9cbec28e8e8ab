//! A memory that was set back: restored from a backup, or saved from a damaged file.
//!
//! Between the moment it is of and now, jobs may have been done that it knows nothing of, or knows as waiting. So
//! nothing unfinished in it is ever done: it ends `unknown`. No room's state is certain, the reports begin a new epoch,
//! and the cloud is told that what it once handed over may be gone, so that it ends that in doubt rather than sending
//! it again. A cloud that was set back as well may have forgotten that it handed it over: so whatever was made before both
//! met again, must not be repeated and is not known here, is in doubt as well. That takes in orders which never left their
//! cloud, made while the site was away: nothing that a memory without a past could be shown tells them from those that did.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use super::{FILE, MIGRATIONS, Queue, Rules, after, policy::Event, store::place};
use crate::{
    model::{Code, DoorName, JobId, JobState, Origin, Outcome, SystemName},
    protocol::Position,
    seal::SealKey,
    seams::{Random, Storage},
    store::{self, Salvage, StoreError},
};

/// Of how many rows of each kind it is looked whether a key opens them.
const LOOKED_AT: usize = 100;

/// What a restored memory was brought to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Jobs that were unfinished and are `unknown` now.
    pub in_doubt: u64,
    /// The epoch that the reports began.
    pub reports_epoch: u64,
}

/// How long a clock may have been ahead without any harm: so long are new orders in doubt after it was put right.
const AHEAD_AT_MOST: SignedDuration = SignedDuration::from_mins(10);
/// How much later than now an order may seem to be made, by two readings of one clock over a slow road.
const AT_ONCE: SignedDuration = SignedDuration::from_mins(1);

/// When this memory was set back, in milliseconds by the clock by which orders are made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SetBack {
    /// By what that clock has said since.
    pub(super) at: Option<i64>,
    /// At the latest that it ever said.
    pub(super) latest: Option<i64>,
}

impl SetBack {
    /// Whether a job that was made at a moment may have been here and be forgotten. One that is made later than now was made
    /// by a clock that was ahead, and so was what it forgot up to the latest that this clock said.
    pub(super) fn may_have_forgotten(&self, now: Timestamp, made_at: Timestamp) -> bool {
        let made_at_ms = made_at.as_millisecond();
        let is_ahead = after(now, AT_ONCE) < made_at;
        self.at.is_some_and(|at| made_at_ms <= at)
            || is_ahead && self.latest.is_some_and(|latest| made_at_ms <= latest)
    }
}

/// Rows whose sealed part does not open.
#[derive(Default)]
struct Unreadable {
    jobs: Vec<JobId>,
    rooms: Vec<(SystemName, DoorName)>,
    reports: Vec<i64>,
}

impl Queue {
    /// [`Queue::open`], and where the file proves to be damaged, what can be saved of it instead, set back as by
    /// [`Queue::restored`].
    ///
    /// # Errors
    /// See [`crate::store::open`] and [`crate::store::salvage`].
    pub fn open_or_salvage(
        storage: &Storage,
        seal: SealKey,
        random: Random,
        rules: Rules,
        now: Timestamp,
    ) -> Result<(Self, Option<Salvage>), StoreError> {
        let damage = match Self::open(storage, seal.clone(), random.clone(), rules.clone()) {
            Ok(queue) => return Ok((queue, None)),
            // The one row that is always there.
            Err(StoreError::Sql(rusqlite::Error::QueryReturnedNoRows)) => StoreError::Damaged {
                path: storage.file(FILE),
                what: "the row with the streams' positions is missing".into(),
            },
            Err(error) if error.is_damage() => error,
            Err(error) => return Err(error),
        };
        let (of_queue, of_random, of_rules) = (seal.clone(), random.clone(), rules.clone());
        let adopt = move |connection: Connection| {
            connection.execute(
                "INSERT OR IGNORE INTO memory(one, orders_epoch, orders_n, reports_epoch, reports_n, \
                 reports_acknowledged) VALUES (1, 0, 0, 1, (SELECT coalesce(max(n), 0) FROM report), 0)",
                [],
            )?;
            let mut queue = Self::around(connection, of_queue, of_random, of_rules)?;
            queue.count_anew()?;
            queue.forget_door_event_ids()?;
            let unreadable = queue.drop_unreadable()?;
            queue.restored(now)?;
            queue.write_owed()?;
            Ok((queue.connection, unreadable))
        };
        let (mut salvage, unreadable) = store::salvage(storage, FILE, MIGRATIONS, &damage, now, adopt)?;
        salvage.kept = salvage.kept.saturating_sub(unreadable);
        salvage.lost += unreadable;
        let mut queue = Self::open(storage, seal, random, rules)?;
        let detail = format!(
            "{}: {} rows were carried over, {} were lost; the damaged file is kept: {}",
            salvage.why,
            salvage.kept,
            salvage.lost,
            salvage.aside.as_deref().map_or_else(String::new, |aside| aside.display().to_string()),
        );
        queue.audit_line(now, "store_salvaged", None, &detail)?;
        Ok((queue, Some(salvage)))
    }

    /// Puts a backup in the queue's place, as [`crate::store::restore`] does, set back as by [`Queue::restored`].
    ///
    /// # Errors
    /// See [`crate::store::restore`]; [`StoreError::Sealed`] when its rows were sealed with another key.
    pub fn restore(
        storage: &Storage,
        seal: SealKey,
        random: Random,
        from: &Path,
        now: Timestamp,
    ) -> Result<(Option<PathBuf>, Restored), StoreError> {
        store::restore(storage, FILE, MIGRATIONS, from, now, |connection| {
            let not_ours = |error: StoreError| StoreError::Backup { path: from.into(), what: error.chain() };
            let mut queue = Self::around(connection, seal, random, Rules::default()).map_err(not_ours)?;
            queue.try_key()?;
            let restored = queue.restored(now)?;
            queue.write_owed()?;
            Ok((queue.connection, restored))
        })
    }

    /// This memory was set back: nothing unfinished in it is done any more, whatever became of it since.
    ///
    /// # Errors
    /// Those of the database.
    pub fn restored(&mut self, now: Timestamp) -> Result<Restored, StoreError> {
        let in_doubt =
            self.doubt_unfinished(now, &[JobState::Received, JobState::Waiting, JobState::Sent])?;
        self.forgot(now)?;
        // The present memory may have been set back before, to the same backup: by the clock, two epochs are never one.
        let epoch = self.memory()?.reports.last.epoch + 1;
        let epoch = epoch.max(now.as_second().try_into().unwrap_or(0));
        self.begin_reports_epoch(epoch)?;
        // The cloud may have told since that such a grant is gone: it is asked, and not only about what it never heard.
        self.put_facts_first()?;
        self.hold_orders(Position::LOST)?;
        self.doubt_desired()?;
        // Noted again when the cloud is met, by whose clock orders are made: until then there is only that of the host, and
        // nobody orders.
        self.connection.execute("UPDATE memory SET set_back_at = ?1", [now.as_millisecond()])?;
        let detail = format!("{in_doubt} unfinished jobs are in doubt; reports go on in epoch {epoch}");
        self.audit_line(now, "memory_restored", None, &detail)?;
        Ok(Restored { in_doubt, reports_epoch: epoch })
    }

    /// Of what was made up to now this memory may have forgotten anything.
    ///
    /// That holds for orders too which the cloud never handed out, as far as it knows: see where it is judged.
    pub(super) fn note_set_back(&self, now: Timestamp) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE memory SET set_back_at = ?1, set_back_latest = max(coalesce(set_back_latest, ?1), ?1)",
            [now.as_millisecond()],
        )?;
        Ok(())
    }

    /// The cloud's clock was ahead when that was noted, and by much: what is made from now on is made earlier than that, and
    /// must not be in doubt until the clock is there again. What was forgotten may still have been made by the clock as it
    /// was, so the latest that it said stays noted, and is held against what comes from there.
    ///
    /// What remains is a job that was forgotten, made by a clock more than [`AHEAD_AT_MOST`] ahead, and ordered again by a
    /// cloud that was put back just when the right clock comes to the time at which it was made.
    pub(super) fn note_set_back_no_later(&self, now: Timestamp) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE memory SET set_back_at = ?1 WHERE set_back_at > ?2")?
            .execute([now.as_millisecond(), after(now, AHEAD_AT_MOST).as_millisecond()])?;
        Ok(())
    }

    pub(super) fn set_back(&self) -> Result<SetBack, StoreError> {
        Ok(self
            .connection
            .prepare_cached("SELECT set_back_at, set_back_latest FROM memory")?
            .query_row([], |row| Ok(SetBack { at: row.get(0)?, latest: row.get(1)? }))?)
    }

    /// Ends in doubt what this memory holds for unfinished: it may have been done since the moment the memory is of.
    /// Says how many jobs that were.
    pub(super) fn doubt_unfinished(
        &mut self,
        now: Timestamp,
        states: &[JobState],
    ) -> Result<u64, StoreError> {
        let mut in_doubt = 0;
        for &state in states {
            for job_id in self.ids_in(state)? {
                let row = self.known(job_id)?;
                if state == JobState::Waiting && row.origin == Origin::Timer {
                    // To empty a slot once more is harmless; to leave a code in it is not.
                    continue;
                }
                let why = "the agent's memory was set back to before the end of this job: it may have been done since";
                self.end_by(now, &row, &Outcome::unknown(Code::MemoryRestored, why), Event::SetBack)?;
                in_doubt += 1;
            }
        }
        Ok(in_doubt)
    }

    /// Whether it was set back and no cloud has been met since.
    ///
    /// # Errors
    /// Those of the database.
    pub fn is_restored(&self) -> Result<bool, StoreError> {
        Ok(self.memory()?.orders_received == Position::LOST)
    }

    /// The tally as the rows have it. What ended is counted since the file was made, so there the larger number stands.
    fn count_anew(&mut self) -> Result<(), StoreError> {
        self.connection.execute_batch(
            "DELETE FROM tally WHERE state IN ('received', 'waiting', 'sent');
             INSERT INTO tally SELECT state, code, count(*) FROM job WHERE state <> 'sent' GROUP BY state, code
             ON CONFLICT DO UPDATE SET jobs = max(jobs, excluded.jobs);",
        )?;
        Ok(())
    }

    /// Takes out what does not open any more, so that it stands in nobody's way: rooms and reports go, of a job its id
    /// stays. Says how many rows that were.
    fn drop_unreadable(&mut self) -> Result<u64, StoreError> {
        let mut opened = 0;
        let mut unreadable = Unreadable::default();
        let mut note = |result: Result<(), StoreError>| match result {
            Ok(()) => {
                opened += 1;
                Ok(false)
            }
            Err(StoreError::Sealed(_) | StoreError::Corrupt { .. }) => Ok(true),
            Err(error) => Err(error),
        };
        let jobs = [JobState::Received, JobState::Waiting, JobState::Sent].map(|state| self.ids_in(state));
        for job_id in jobs.into_iter().collect::<Result<Vec<_>, _>>()?.concat() {
            if note(self.find(job_id).map(drop))? {
                unreadable.jobs.push(job_id);
            }
        }
        for (system, room) in self.room_names()? {
            if note(self.room(&system, &room).map(drop))? {
                unreadable.rooms.push((system, room));
            }
        }
        for n in self.report_numbers()? {
            let before = Position { epoch: self.memory()?.reports.last.epoch, n: n.cast_unsigned() - 1 };
            if note(self.reports_after(before, 1).map(drop))? {
                unreadable.reports.push(n);
            }
        }
        let rows = unreadable.jobs.len() + unreadable.rooms.len() + unreadable.reports.len();
        if opened == 0 && rows > 0 {
            return Err(crate::seal::SealError::Unopenable { place: "every row".into() }.into());
        }
        for job_id in &unreadable.jobs {
            let sql = "UPDATE job SET body = NULL WHERE job_id = ?1";
            self.connection.execute(sql, [job_id.0.as_bytes()])?;
        }
        for (system, room) in &unreadable.rooms {
            let sql = "DELETE FROM room WHERE system = ?1 AND room = ?2";
            self.connection.execute(sql, [system.as_str(), room.as_str()])?;
        }
        for n in &unreadable.reports {
            self.connection.execute("DELETE FROM report WHERE n = ?1", [n])?;
        }
        Ok(rows.try_into().unwrap_or(u64::MAX))
    }

    fn room_names(&self) -> Result<Vec<(SystemName, DoorName)>, StoreError> {
        let mut statement = self.connection.prepare("SELECT system, room FROM room ORDER BY system, room")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let mut names = Vec::new();
        for row in rows {
            let (system, room) = row?;
            let corrupt = |error| StoreError::corrupt("room", error);
            names.push((SystemName::new(system).map_err(corrupt)?, DoorName::new(room).map_err(corrupt)?));
        }
        Ok(names)
    }

    fn report_numbers(&self) -> Result<Vec<i64>, StoreError> {
        let mut statement = self.connection.prepare("SELECT n FROM report ORDER BY n")?;
        let numbers = statement.query_map([], |row| row.get(0))?;
        Ok(numbers.collect::<Result<_, _>>()?)
    }

    /// Opens some rows of each kind: with another key none does.
    fn try_key(&self) -> Result<(), StoreError> {
        self.all_rooms(None)?;
        self.audit(LOOKED_AT)?;
        self.reports_after(Position::default(), LOOKED_AT)?;
        let newest: Vec<Vec<u8>> = self
            .connection
            .prepare("SELECT job_id FROM job ORDER BY id DESC LIMIT ?1")?
            .query_map([i64::try_from(LOOKED_AT).unwrap_or(i64::MAX)], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in newest {
            let id = uuid::Uuid::from_slice(&id).map_err(|error| StoreError::corrupt("job", error))?;
            self.job(JobId(id))?.ok_or_else(|| StoreError::corrupt(place(JobId(id)), "it is gone"))?;
        }
        Ok(())
    }
}
