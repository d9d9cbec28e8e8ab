//! What bridges say of slots.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

use crate::{
    grants::codes::{Book, Deed, MOST_DOUBTS, Moment, Told},
    model::{
        AccessMethodId, BridgeId, Code, DeviceId, JobId, Kind, LocalJob, Outcome, Report, SlotSeen, Verdict,
        WorkspaceId,
    },
    store::StoreError,
};

use super::{
    super::{
        Db, Tenant,
        devices::READ_EVERY,
        rows::{id, ms},
    },
    Known,
    load::content,
};

/// What could not be noted of a slot is not ordered anew before: where its rows refuse only what is reported, it would go
/// round and round.
const ONCE_MORE: SignedDuration = SignedDuration::from_mins(1);

/// What a job was ordered for.
struct OrderedSlot {
    workspace: WorkspaceId,
    device: DeviceId,
    method: AccessMethodId,
    deed: Deed,
    revision: u8,
}

impl Db {
    /// Takes in how a job on a slot ended. False where it is no such job.
    pub(in crate::cloud::store) fn slot_reported(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<bool, StoreError> {
        let Some(ordered) = self.ordered_slot(bridge, report.job_id)? else {
            return Ok(false);
        };
        if report.revision <= ordered.revision {
            return Ok(true);
        }
        self.execute(
            "UPDATE ordered_slot SET revision = ?2 WHERE job_id = ?1",
            params![report.job_id.to_string(), report.revision],
        )?;
        let told = told(report);
        let known = match &told {
            Told::NotDone { code: Code::ContentTaken, .. } => Known::Pins,
            Told::Done | Told::NotDone { .. } | Told::Doubt => Known::Slots,
        };
        let OrderedSlot { workspace, device, method, deed, .. } = ordered;
        let noted = self.tenant(workspace).with_slot(now, method, device, known, |book, at| match report
            .resolution
        {
            None => book.reported(at, device, method, report.job_id, deed, &told),
            Some(_) => book.resolved(at, device, method, report.job_id, deed, &told),
        })?;
        if !noted {
            let is_newly_in_doubt =
                report.resolution.is_none() || self.is_at_work(report.job_id, &ordered)?;
            self.not_noted(now, report.job_id, &ordered, is_newly_in_doubt)?;
        }
        Ok(true)
    }

    /// Whether a slot still waits for the end of a job.
    fn is_at_work(&self, job: JobId, ordered: &OrderedSlot) -> Result<bool, StoreError> {
        let found = self.one(
            "SELECT 1 FROM slot_work WHERE device_id = ?1 AND access_method_id = ?2
               AND (job_id = ?3 OR instr(earlier_job_ids, ?3) > 0)",
            params![ordered.device.to_string(), ordered.method.to_string(), job.to_string()],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// The end of a job on a slot cannot be noted, and will not be told again. Nothing waits for it any more: its slot is
    /// in doubt, and is looked at and read again. Nothing that may be what cannot be read is looked at for that.
    fn not_noted(
        &self,
        now: Timestamp,
        job: JobId,
        ordered: &OrderedSlot,
        is_in_doubt: bool,
    ) -> Result<(), StoreError> {
        let (device, method, job) = (ordered.device.to_string(), ordered.method.to_string(), job.to_string());
        if is_in_doubt {
            let may_hold_since = matches!(ordered.deed, Deed::Put(_)).then(|| ms(now));
            let most = i64::try_from(MOST_DOUBTS).unwrap_or(i64::MAX);
            self.execute(
                "UPDATE observed_slot SET since = coalesce(since, ?4), doubt_job_ids = json_insert(
                   CASE WHEN json_array_length(doubt_job_ids) >= ?5 THEN json_remove(doubt_job_ids, '$[0]')
                        ELSE doubt_job_ids END, '$[#]', ?3)
                 WHERE device_id = ?1 AND access_method_id = ?2
                   AND CASE WHEN json_valid(doubt_job_ids) THEN instr(doubt_job_ids, ?3) = 0 ELSE 0 END",
                params![device, method, job, may_hold_since, most],
            )?;
            let once_more = now.saturating_add(ONCE_MORE).unwrap_or(now);
            self.execute(
                "UPDATE slot_work SET failures = failures + 1, not_before = max(coalesce(not_before, 0), ?4)
                 WHERE device_id = ?1 AND access_method_id = ?2 AND job_id = ?3",
                params![device, method, job, ms(once_more)],
            )?;
        }
        self.execute(
            "UPDATE slot_work SET job_id = nullif(job_id, ?3),
               earlier_job_ids = CASE WHEN json_valid(earlier_job_ids)
                 THEN (SELECT json_group_array(e.value) FROM json_each(earlier_job_ids) e WHERE e.value <> ?3)
                 ELSE earlier_job_ids END
             WHERE device_id = ?1 AND access_method_id = ?2",
            params![device, method, job],
        )?;
        self.execute(
            "UPDATE code_grant SET due_at = ?2 WHERE access_grant_id =
               (SELECT access_grant_id FROM access_method WHERE access_method_id = ?1)",
            params![method, ms(now)],
        )?;
        self.execute(
            "INSERT INTO stray_slot SELECT ?1, ?2, ?3, ?4
             WHERE NOT EXISTS (SELECT 1 FROM access_method WHERE access_method_id = ?2)
             ON CONFLICT(device_id, access_method_id) DO UPDATE SET due_at = excluded.due_at",
            params![device, method, ordered.workspace.to_string(), ms(now)],
        )?;
        self.execute("UPDATE device SET read_due = ?2 WHERE device_id = ?1", params![device, ms(now)])?;
        Ok(())
    }

    /// A job on a slot was taken back that its bridge never heard of: what it was for is still to be done.
    pub(in crate::cloud::store) fn slot_withdrawn(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job: JobId,
    ) -> Result<(), StoreError> {
        self.slot_unheard(now, bridge, job, false, |book, at, slot| {
            book.withdrawn(at, slot.device, slot.method, job);
        })
    }

    /// The bridge has forgotten a job on a slot.
    pub(in crate::cloud::store) fn slot_lost(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job: JobId,
    ) -> Result<(), StoreError> {
        self.slot_unheard(now, bridge, job, true, |book, at, slot| {
            book.lost(at, slot.device, slot.method, job, slot.deed);
        })
    }

    /// Nobody will ever say how a job on a slot ended, if nobody has.
    fn slot_unheard(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job: JobId,
        is_in_doubt: bool,
        change: impl FnOnce(&mut Book, &Moment<'_>, &OrderedSlot),
    ) -> Result<(), StoreError> {
        let Some(ordered) = self.ordered_slot(bridge, job)?.filter(|ordered| ordered.revision == 0) else {
            return Ok(());
        };
        let (workspace, method, device) = (ordered.workspace, ordered.method, ordered.device);
        let noted = self.tenant(workspace).with_slot(now, method, device, Known::Slots, |book, at| {
            change(book, at, &ordered);
        })?;
        if noted { Ok(()) } else { self.not_noted(now, job, &ordered, is_in_doubt) }
    }

    fn ordered_slot(&self, bridge: BridgeId, job: JobId) -> Result<Option<OrderedSlot>, StoreError> {
        self.one(
            "SELECT * FROM ordered_slot WHERE job_id = ?1 AND bridge_id = ?2",
            params![job.to_string(), bridge.to_string()],
            |row| {
                Ok(OrderedSlot {
                    workspace: id(row, "workspace_id")?,
                    device: id(row, "device_id")?,
                    method: id(row, "access_method_id")?,
                    deed: content(row, "generation", "mark", "opens_until")?.map_or(Deed::Remove, Deed::Put),
                    revision: row.get("revision")?,
                })
            },
        )
    }

    /// A job of the site's own changed a slot.
    pub(in crate::cloud::store) fn slot_changed_at_site(
        &mut self,
        now: Timestamp,
        workspace: WorkspaceId,
        bridge: BridgeId,
        report: &Report,
        local: &LocalJob,
    ) -> Result<(), StoreError> {
        let (Some(device), Some(slot)) = (&local.device, &local.slot) else {
            return Ok(());
        };
        let Ok(method) = slot.parse::<AccessMethodId>() else { return Ok(()) };
        if !matches!(told(report), Told::Done) {
            return Ok(());
        }
        let device = self.one(
            "SELECT device_id FROM device JOIN acs_system s USING(acs_system_id)
             WHERE s.bridge_id = ?1 AND s.name = ?2 AND device.name = ?3",
            params![bridge.to_string(), local.system.as_str(), device],
            |row| id::<DeviceId>(row, "device_id"),
        )?;
        let Some(device) = device else { return Ok(()) };
        let noted = self.tenant(workspace).with_slot(now, method, device, Known::Slots, |book, at| {
            match local.kind {
                Kind::SlotPut => book.filled(at, device, method),
                _ => book.emptied(at, device, method),
            }
        })?;
        // The site says it once: what it did is to be read from the device.
        if !noted {
            self.execute(
                "UPDATE device SET read_due = ?2 WHERE device_id = ?1",
                params![device.to_string(), ms(now)],
            )?;
        }
        Ok(())
    }

    /// Takes in what a reading shows. False where the job was no reading of ours.
    pub(in crate::cloud::store) fn device_read(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<bool, StoreError> {
        let found = self.one(
            "SELECT device_id, device.workspace_id FROM device JOIN acs_system USING(acs_system_id)
             WHERE read_job = ?1 AND bridge_id = ?2",
            params![report.job_id.to_string(), bridge.to_string()],
            |row| Ok((id::<DeviceId>(row, "device_id")?, id::<WorkspaceId>(row, "workspace_id")?)),
        )?;
        let Some((device, workspace)) = found else { return Ok(false) };
        self.execute("UPDATE device SET read_job = NULL WHERE device_id = ?1", [device.to_string()])?;
        if let Outcome::Succeeded(success) = &report.outcome
            && let Some(seen) = &success.slots
        {
            self.tenant(workspace).compare_with(now, device, seen)?;
            let again = now.saturating_add(READ_EVERY).unwrap_or(now);
            self.execute(
                "UPDATE device SET read_due = CASE WHEN EXISTS
                   (SELECT 1 FROM desired_slot d WHERE d.device_id = device.device_id) THEN ?2 END
                 WHERE device_id = ?1",
                params![device.to_string(), ms(again)],
            )?;
        }
        Ok(true)
    }

    /// Forgets what jobs on slots were ordered for, long after it could matter.
    pub(in crate::cloud::store) fn forget_ordered_slots(
        &self,
        before: i64,
        most: u32,
    ) -> Result<usize, StoreError> {
        self.execute(
            "DELETE FROM ordered_slot WHERE rowid IN (
               SELECT o.rowid FROM ordered_slot o
               WHERE ordered_at < ?1 AND revision > 0
                 AND NOT EXISTS (SELECT 1 FROM bridge_order b WHERE b.job_id = o.job_id)
                 AND NOT EXISTS (SELECT 1 FROM slot_work w
                                 WHERE w.device_id = o.device_id AND w.access_method_id = o.access_method_id
                                   AND (w.job_id = o.job_id OR instr(w.earlier_job_ids, o.job_id) > 0))
                 AND NOT EXISTS (SELECT 1 FROM observed_slot s
                                 WHERE s.device_id = o.device_id AND s.access_method_id = o.access_method_id
                                   AND instr(s.doubt_job_ids, o.job_id) > 0)
               LIMIT ?2)",
            params![before, most],
        )
    }
}

impl Tenant<'_> {
    /// Compares a device's table with what is known of its slots.
    fn compare_with(
        &mut self,
        now: Timestamp,
        device: DeviceId,
        seen: &[SlotSeen],
    ) -> Result<(), StoreError> {
        let known = self.db.all(
            "SELECT access_method_id, o.generation, coalesce(o.doubt_job_ids, '[]') <> '[]' AS in_doubt
             FROM desired_slot d LEFT JOIN observed_slot o USING(device_id, access_method_id)
             WHERE d.device_id = ?1 AND d.workspace_id = ?2",
            params![device.to_string(), self.workspace],
            |row| {
                Ok((
                    id::<AccessMethodId>(row, "access_method_id")?,
                    row.get::<_, Option<i64>>("generation")?,
                    row.get::<_, bool>("in_doubt")?,
                ))
            },
        )?;
        let shown: BTreeMap<AccessMethodId, u64> =
            seen.iter().filter_map(|seen| Some((seen.slot.parse().ok()?, seen.generation))).collect();
        // What is shown and not known is a method's of before: this memory was set back, or the lock's was.
        let mut other: BTreeSet<_> = shown.keys().copied().collect();
        for (method, generation, in_doubt) in known {
            let is_so = shown.get(&method).copied() == generation.and_then(|of| u64::try_from(of).ok());
            if in_doubt || !is_so {
                other.insert(method);
            } else {
                other.remove(&method);
            }
        }
        for method in other {
            self.with_slot(now, method, device, Known::Slots, |book, at| {
                book.slots.entry((device, method)).or_default();
                book.read(at, device, seen);
            })?;
        }
        Ok(())
    }
}

/// How a job on a slot ended, by its report; what settled a doubt counts more than the doubt.
fn told(report: &Report) -> Told {
    let not_done = |code: Code, message: &str| Told::NotDone { code, message: message.to_owned() };
    if let Some(resolution) = &report.resolution {
        return match resolution.verdict {
            Verdict::Done => Told::Done,
            Verdict::NotDone => not_done(Code::Rejected, "it had not been done"),
        };
    }
    match &report.outcome {
        Outcome::Succeeded(_) => Told::Done,
        Outcome::Failed(why) | Outcome::Expired(why) => not_done(why.code, &why.message),
        Outcome::Unknown(_) => Told::Doubt,
        Outcome::Cancelled => not_done(Code::Cancelled, "it was taken back at the site"),
        Outcome::Superseded => not_done(Code::Superseded, "a newer order took its place"),
    }
}
