//! What people may see of the queue: jobs, counts, rooms, the audit.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    FILE, Queue, Rules,
    slots::Slot,
    store::{
        Body, body_place, code_named, in_state, instant, origin_named, outcome_place, place,
        resolution_place, state_named, treatment_named,
    },
};
use crate::{
    model::{
        Code, DeviceName, DoorName, Job, JobId, JobState, Kind, LaneName, Origin, Outcome, Resolution,
        RoomState, SystemName, Treatment,
    },
    protocol::Position,
    seal::SealKey,
    seams::{Random, Storage},
    store::{Store, StoreError},
};

/// Which jobs to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFilter {
    /// Only those that stand here.
    pub state: Option<JobState>,
    /// Only those of this lane.
    pub lane: Option<LaneName>,
    /// At most so many.
    pub limit: usize,
}

impl Default for JobFilter {
    fn default() -> Self {
        Self { state: None, lane: None, limit: 50 }
    }
}

/// A job in a list; nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its name.
    pub job_id: JobId,
    /// Its system; absent where the job could not be read.
    pub system: Option<SystemName>,
    /// What it asks for, likewise.
    pub kind: Option<Kind>,
    /// Its lane, once a driver has admitted it.
    pub lane: Option<LaneName>,
    /// Where it stands.
    pub state: JobState,
    /// Why it did not simply succeed, or why it waits again.
    pub code: Option<Code>,
    /// How often it was marked `sent`.
    pub attempt: u32,
    /// When it arrived.
    pub received_at: Timestamp,
    /// When it was last marked.
    pub sent_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Before when it is not begun, while that lies ahead; none where it waits for a person's word instead.
    pub due_at: Option<Timestamp>,
    /// Who wanted it.
    pub origin: Origin,
    /// The job whose place it takes.
    pub retries: Option<JobId>,
}

/// A slot of a device; nothing of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotView {
    /// The device's system.
    pub system: SystemName,
    /// The device.
    pub device: DeviceName,
    /// The slot's key.
    pub slot: String,
    /// The order that decides it.
    pub decided_by: JobId,
    /// Whether anything may be in it.
    pub may_open: bool,
    /// Whether nobody knows what it holds: a job is at work on it, or ended in doubt.
    pub uncertain: bool,
    /// When it has to be empty, if what it may hold has an end.
    pub ends_at: Option<Timestamp>,
    /// The earlier end of an older code that may be in it still, because nobody knows whether the newer one was put: until
    /// that is settled it may open beyond this, up to `ends_at`.
    pub may_outlive: Option<Timestamp>,
    /// When this was last changed.
    pub changed_at: Timestamp,
}

/// All about one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDetail {
    /// What a list shows of it.
    pub view: JobView,
    /// The job; absent where it could not be read.
    pub job: Option<Job>,
    /// Its doors that follow reservations.
    pub rooms: Vec<DoorName>,
    /// What its card does to them, once marked.
    pub treatment: Option<Treatment>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What settled its doubt.
    pub resolution: Option<Resolution>,
}

/// How many jobs there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// By state. Ends are totals since the file was made, purged jobs included.
    pub by_state: BTreeMap<JobState, u64>,
    /// By why they did not simply succeed, or wait again; likewise.
    pub by_code: BTreeMap<Code, u64>,
    /// Reports that the cloud does not hold yet.
    pub reports_waiting: u64,
}

/// A line of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number, which grows.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Stable name of what happened: a refusal's code, `resolved`, `confirmed`, `assumed_unchanged`, `memory_out_of_date`.
    pub what: String,
    /// The job it is about.
    pub job_id: Option<JobId>,
    /// For a person.
    pub detail: String,
}

/// The queue on a connection that only reads, for those who look; to be used with [`crate::store::ReaderHandle`].
#[derive(Debug)]
pub struct QueueReader(Queue);

impl QueueReader {
    /// Opens the queue for reading. The file must be there and up to date.
    ///
    /// # Errors
    /// Those of the database.
    pub fn open(storage: &Storage, seal: SealKey, random: Random, rules: Rules) -> Result<Self, StoreError> {
        let connection = crate::store::open_reader(storage, FILE)?;
        Ok(Self(Queue::around(connection, seal, random, rules)?))
    }

    /// The cloud holds the reports up to here, as the writer was told; its rows may not show it yet.
    pub fn acknowledged(&mut self, up_to: Position) {
        self.0.acknowledge_reports(up_to);
    }
}

/// What reads of the queue needs no more than a look at it.
impl std::ops::Deref for QueueReader {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.0
    }
}

impl Store for QueueReader {
    fn connection(&mut self) -> &mut Connection {
        &mut self.0.connection
    }

    fn undone(&mut self) {
        self.0.undone();
    }
}

const COLUMNS: &str = "job_id, system, kind, lane, state, code, attempt, received_at, sent_at, ended_at, due_at, origin, \
     retries";

impl Queue {
    /// Jobs, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn jobs(&self, filter: JobFilter) -> Result<Vec<JobView>, StoreError> {
        let which = filter.state.map_or("WHERE true", in_state);
        let sql = format!(
            "SELECT {COLUMNS} FROM job {which} AND (?1 IS NULL OR lane = ?1) ORDER BY id DESC LIMIT ?2"
        );
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![filter.lane.as_ref().map(LaneName::as_str), limit])?;
        let mut views = Vec::new();
        while let Some(row) = rows.next()? {
            views.push(view(row)?);
        }
        Ok(views)
    }

    /// All about one job.
    ///
    /// # Errors
    /// Those of the database.
    pub fn job(&self, job_id: JobId) -> Result<Option<JobDetail>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS}, treatment, body, outcome, resolution FROM job WHERE job_id = ?1");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([job_id.0.as_bytes()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let sealed = |column| row.get::<_, Option<Vec<u8>>>(column);
        let body: Option<Body> = self.opened(body_place(job_id), sealed(14)?)?;
        let (job, rooms) = body.map(|body| (body.job, body.rooms)).unzip();
        Ok(Some(JobDetail {
            view: view(row)?,
            job,
            rooms: rooms.unwrap_or_default(),
            treatment: row.get::<_, Option<String>>(13)?.as_deref().and_then(treatment_named),
            outcome: self.opened(outcome_place(job_id), sealed(15)?)?,
            resolution: self.opened(resolution_place(job_id), sealed(16)?)?,
        }))
    }

    /// How many jobs there are; costs the same however many.
    ///
    /// # Errors
    /// Those of the database.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let mut counts = Counts::default();
        let mut statement =
            self.connection.prepare_cached("SELECT state, code, jobs FROM tally WHERE jobs <> 0")?;
        let mut rows = statement.query([])?;
        let mut tally: BTreeMap<(JobState, String), i64> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let state: String = row.get(0)?;
            let state = state_named(&state).ok_or_else(|| StoreError::corrupt("tally", state))?;
            tally.insert((state, row.get(1)?), row.get(2)?);
        }
        for (state, code, jobs) in self.owed.moved() {
            *tally.entry((state, code.to_owned())).or_default() += jobs;
        }
        for ((state, code), jobs) in tally {
            let Some(jobs) = u64::try_from(jobs).ok().filter(|jobs| 0 < *jobs) else { continue };
            *counts.by_state.entry(state).or_default() += jobs;
            if !code.is_empty() {
                *counts.by_code.entry(code_named(&code)).or_default() += jobs;
            }
        }
        // Those are not in the tally.
        if let at_work @ 1.. = self.at_work()? {
            counts.by_state.insert(JobState::Sent, at_work);
        }
        let reports = self.memory()?.reports;
        counts.reports_waiting = reports.last.n.saturating_sub(reports.acknowledged);
        Ok(counts)
    }

    /// How many jobs wait in a lane.
    ///
    /// # Errors
    /// Those of the database.
    pub fn waiting_in(&self, lane: &LaneName) -> Result<u64, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT count(*) FROM job WHERE lane = ?1 AND state = 'waiting'")?;
        Ok(statement.query_row([lane.as_str()], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// The door ledger.
    ///
    /// # Errors
    /// Those of the database.
    pub fn rooms(&self, system: Option<&SystemName>) -> Result<Vec<RoomState>, StoreError> {
        let rooms = self.all_rooms(system)?;
        Ok(rooms.iter().map(|(system, name, room)| room.state(system, name)).collect())
    }

    /// The rooms that should follow a stay of ours, and of which the lock system said that they have none.
    ///
    /// # Errors
    /// Those of the database.
    pub fn rooms_changed_elsewhere(&self) -> Result<Vec<(SystemName, DoorName)>, StoreError> {
        let rooms = self.all_rooms(None)?.into_iter();
        let changed = rooms.filter(|(.., room)| room.changed_elsewhere.is_some());
        Ok(changed.map(|(system, name, _)| (system, name)).collect())
    }

    /// The slots of devices, by system, device and key.
    ///
    /// # Errors
    /// Those of the database.
    pub fn slots(&self) -> Result<Vec<SlotView>, StoreError> {
        let view = |slot: Slot| SlotView {
            may_open: slot.may_open(),
            uncertain: slot.is_uncertain() || slot.at_work.is_some(),
            ends_at: slot.ends_at(),
            may_outlive: slot.may_outlive(),
            system: slot.system,
            device: slot.device,
            slot: slot.key,
            decided_by: slot.decided_by,
            changed_at: slot.changed_at,
        };
        Ok(self.all_slots()?.into_iter().map(view).collect())
    }

    /// The audit, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.audit_before(None, limit)
    }

    /// The audit, newest first, behind the entry of a number.
    ///
    /// # Errors
    /// Those of the database.
    pub fn audit_before(&self, before: Option<u64>, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, at, what, job_id, detail FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let mut rows = statement.query([before, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let sealed: Vec<u8> = row.get(4)?;
            entries.push(AuditEntry {
                number: id.cast_unsigned(),
                at: instant(row.get(1)?).ok_or_else(|| StoreError::corrupt(audit_place(id), "its time"))?,
                what: row.get(2)?,
                job_id: row.get::<_, Option<[u8; 16]>>(3)?.map(|bytes| JobId(uuid::Uuid::from_bytes(bytes))),
                detail: self.unseal(&audit_place(id), &sealed)?,
            });
        }
        Ok(entries)
    }

    /// Writes a line of the audit. Its detail may name a room or a person, so it is sealed.
    pub(super) fn audit_line(
        &mut self,
        now: Timestamp,
        what: &str,
        job_id: Option<JobId>,
        detail: &str,
    ) -> Result<(), StoreError> {
        let last: Option<i64> = self
            .connection
            .prepare_cached("SELECT id FROM audit ORDER BY id DESC LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let id = last.unwrap_or(0) + 1;
        let sealed = self.sealed(&audit_place(id), &detail);
        self.connection
            .prepare_cached("INSERT INTO audit(id, at, what, job_id, detail) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                id,
                now.as_millisecond(),
                what,
                job_id.as_ref().map(|job_id| job_id.0.as_bytes()),
                sealed
            ])?;
        Ok(())
    }

    fn opened<T: serde::de::DeserializeOwned>(
        &self,
        place: String,
        sealed: Option<Vec<u8>>,
    ) -> Result<Option<T>, StoreError> {
        sealed.map(|sealed| self.unseal(&place, &sealed)).transpose()
    }
}

fn view(row: &rusqlite::Row<'_>) -> Result<JobView, StoreError> {
    let job_id = JobId(uuid::Uuid::from_bytes(row.get(0)?));
    let corrupt = |what: &str| StoreError::corrupt(place(job_id), what);
    let state: String = row.get(4)?;
    let code: String = row.get(5)?;
    let kind: Option<String> = row.get(2)?;
    Ok(JobView {
        job_id,
        system: row.get::<_, Option<String>>(1)?.and_then(|name| SystemName::new(name).ok()),
        kind: kind.and_then(|text| Kind::ALL.into_iter().find(|kind| kind.as_str() == text)),
        lane: row.get::<_, Option<String>>(3)?.and_then(|name| LaneName::new(name).ok()),
        state: state_named(&state).ok_or_else(|| corrupt("its state"))?,
        code: (!code.is_empty()).then(|| code_named(&code)),
        attempt: row.get(6)?,
        received_at: instant(row.get(7)?).ok_or_else(|| corrupt("its arrival"))?,
        sent_at: instant(row.get(8)?),
        ended_at: instant(row.get(9)?),
        due_at: instant(row.get(10)?),
        origin: origin_named(&row.get::<_, String>(11)?).ok_or_else(|| corrupt("its origin"))?,
        retries: row.get::<_, Option<[u8; 16]>>(12)?.map(|bytes| JobId(uuid::Uuid::from_bytes(bytes))),
    })
}

fn audit_place(id: i64) -> String {
    format!("audit.detail/{id}")
}
