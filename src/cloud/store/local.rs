//! Jobs that were made at a site, as its bridge reports them. What was done there is a fact: it is taken in, shown, and
//! where it takes the place of an ordered card, the card's method follows it.

use jiff::Timestamp;
use rusqlite::params;
use serde_json::{Value, json};

use crate::{
    grants::{CardEnd, Event, Subject, card_end},
    model::{AcsSystemId, BridgeId, JobId, LocalCard, LocalJob, Origin, Report, SystemName, WorkspaceId},
    store::StoreError,
};

use super::{
    Db,
    rows::{id, maybe_id, ms},
};

impl Db {
    /// Takes in how a job ended that the cloud never ordered. A report that was taken in before changes nothing. Says
    /// whether it was new.
    pub(super) fn local_job_reported(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
        local: &LocalJob,
    ) -> Result<bool, StoreError> {
        let workspace =
            self.one("SELECT workspace_id FROM bridge WHERE id = ?1", [bridge.to_string()], |row| {
                id::<WorkspaceId>(row, "workspace_id")
            })?;
        let Some(workspace) = workspace else { return Ok(false) };
        let card = match local.retries {
            Some(retried) => self.card_behind(bridge, retried)?,
            None => None,
        };
        let reason = report.outcome.reason();
        let message = reason.map(|why| self.seal.seal(&place(report.job_id), why.message.as_bytes()));
        let taken = self.execute(
            "INSERT INTO local_job(job_id, workspace_id, bridge_id, origin, system, kind, device, created_at, retries,
                                   card_job_id, state, code, message, reported_at, revision)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
             ON CONFLICT(job_id) DO UPDATE SET state = excluded.state, code = excluded.code,
               message = excluded.message, reported_at = excluded.reported_at, revision = excluded.revision
             WHERE excluded.revision > revision AND excluded.bridge_id = bridge_id",
            params![
                report.job_id.to_string(),
                workspace.to_string(),
                bridge.to_string(),
                origin(local.origin),
                local.system.as_str(),
                local.kind.as_str(),
                local.device,
                ms(local.created_at),
                local.retries.map(|job| job.to_string()),
                card.map(|job| job.to_string()),
                report.outcome.state().as_str(),
                reason.map(|why| why.code.as_str()),
                message,
                ms(now),
                report.revision
            ],
        )?;
        if taken == 0 {
            return Ok(false);
        }
        // What follows from a card asks whose room it is now.
        self.copy_ledger(now, bridge, report)?;
        let adopted = match (&local.card, card) {
            (Some(wanted), None) => {
                if !matches!(card_end(report), CardEnd::NotWritten) {
                    self.tenant(workspace).bring_back_deleted(now, bridge, report, &local.system, wanted)?;
                }
                self.adopt_card(workspace, bridge, report.job_id, &local.system, wanted)?
            }
            _ => card,
        };
        match adopted {
            Some(card) => self.card_done_by_another(now, bridge, card, report)?,
            None => self.tenant(workspace).stay_begun_at_site(now, bridge, report)?,
        }
        self.slot_changed_at_site(now, workspace, bridge, report, local)?;
        self.tell_local_job(now, workspace, bridge, report, local)?;
        Ok(true)
    }

    /// A desk had the card of an access method written: from here on its job counts as one that was ordered for it, and is
    /// given. A method that is not, or no longer, of that system is left alone: the desk's card is shown as a job of the
    /// site's own.
    fn adopt_card(
        &self,
        workspace: WorkspaceId,
        bridge: BridgeId,
        job: JobId,
        system: &SystemName,
        card: &LocalCard,
    ) -> Result<Option<JobId>, StoreError> {
        let doors = serde_json::to_string(&card.doors).expect("names are texts");
        self.execute(
            "INSERT OR IGNORE INTO ordered_card(job_id, workspace_id, bridge_id, access_method_id, acs_entrance_ids,
                                                starts_at, ends_at)
             SELECT ?1, m.workspace_id, s.bridge_id, m.access_method_id,
                    (SELECT json_group_array(e.acs_entrance_id) FROM json_each(?6) d CROSS JOIN acs_entrance e
                     WHERE e.acs_system_id = s.acs_system_id AND e.name = d.value),
                    ?7, ?8
             FROM access_method m CROSS JOIN acs_system s USING(acs_system_id)
             WHERE m.access_method_id = ?4 AND m.workspace_id = ?2 AND m.mode = 'card' AND s.bridge_id = ?3
               AND s.name = ?5",
            params![
                job.to_string(),
                workspace.to_string(),
                bridge.to_string(),
                card.access_method_id.to_string(),
                system.as_str(),
                doors,
                ms(card.window.starts_at()),
                card.window.ends_at().map(ms)
            ],
        )?;
        Ok(self.ordered_card(bridge, job)?.map(|_| job))
    }

    /// The card job that the cloud ordered and whose place a retried job has in the end.
    fn card_behind(&self, bridge: BridgeId, retried: JobId) -> Result<Option<JobId>, StoreError> {
        self.one(
            "SELECT job_id FROM ordered_card WHERE job_id = ?1 AND bridge_id = ?2
             UNION ALL
             SELECT card_job_id FROM local_job
             WHERE job_id = ?1 AND bridge_id = ?2 AND card_job_id IS NOT NULL",
            params![retried.to_string(), bridge.to_string()],
            |row| maybe_id(row, "job_id"),
        )
        .map(Option::flatten)
    }

    /// Shows it in the feed, with what the site said of it.
    fn tell_local_job(
        &mut self,
        now: Timestamp,
        workspace: WorkspaceId,
        bridge: BridgeId,
        report: &Report,
        local: &LocalJob,
    ) -> Result<(), StoreError> {
        let system = self.one(
            "SELECT acs_system_id FROM acs_system WHERE bridge_id = ?1 AND name = ?2 AND workspace_id = ?3",
            params![bridge.to_string(), local.system.as_str(), workspace.to_string()],
            |row| id::<AcsSystemId>(row, "acs_system_id"),
        )?;
        // The inventory comes before any report; only a system that is gone from the site has no row.
        let Some(system) = system else { return Ok(()) };
        let event = Event::new(
            match report.revision {
                1 => "latchd.local_job.ended",
                _ => "latchd.local_job.resolved",
            },
            Subject::System(system),
        );
        let more = json!({
            "job_id": report.job_id,
            "origin": origin(local.origin),
            "kind": local.kind,
            "device": local.device,
            "made_at": local.created_at,
            "retries": local.retries,
            "state": report.outcome.state(),
            "code": report.outcome.reason().map(|why| why.code),
            "message": report.outcome.reason().map(|why| &why.message),
            "resolved_by": report.resolution.as_ref().map(|resolution| &resolution.by),
        });
        self.tenant(workspace).tell_more(now, &event, more)
    }

    /// Forgets local jobs that were reported before an instant. One that wrote a card goes with what was known of the card,
    /// once that opens no longer and nobody doubts it.
    pub(super) fn forget_local_jobs(
        &self,
        now: Timestamp,
        before: i64,
        most: u32,
    ) -> Result<usize, StoreError> {
        let jobs = self.all(
            "DELETE FROM local_job WHERE rowid IN (
               SELECT j.rowid FROM local_job j
               WHERE reported_at < ?1
                 AND NOT EXISTS (SELECT 1 FROM ordered_card w JOIN card_state c USING(access_method_id)
                                 WHERE w.job_id = j.job_id
                                   AND (c.in_doubt = 1
                                        OR (j.state IN ('succeeded', 'unknown') AND c.may_exist = 1
                                            AND (c.opens_until IS NULL OR c.opens_until > ?3))))
               LIMIT ?2)
             RETURNING job_id",
            params![before, most, ms(now)],
            |row| row.get::<_, String>("job_id"),
        )?;
        for job in &jobs {
            self.execute("DELETE FROM ordered_card WHERE job_id = ?1", [job])?;
        }
        Ok(jobs.len())
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Cloud => "cloud",
        Origin::Person => "person",
        Origin::Timer => "timer",
    }
}

fn place(job: JobId) -> String {
    format!("local_job.message/{job}")
}

/// What stands beside the fields of an event's type, without what is absent.
pub(super) fn merged(mut fields: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    fields
}
