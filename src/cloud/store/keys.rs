//! Keys that are no card and no code: links to mobile keys, and doors opened from afar.

use jiff::Timestamp;
use rusqlite::params;
use serde_json::json;
use uuid::Uuid;

use crate::{
    grants::{
        AttemptError, Event, Mode, NewMethod, Refused, Resource, Subject, Unlock, UnlockFacts, plan_unlock,
        unlock_end,
    },
    model::{
        AccessGrantId, AccessMethodId, AcsSystemId, ActionAttemptId, BridgeId, DeviceId, JobId, KeyLink,
        KeyTemplate, Outcome, Private, Report, UserIdentityId, WorkspaceId,
    },
    store::StoreError,
};

use super::{
    Attempt, Db, Fault, GrantName, Tenant,
    rows::{id, maybe_time, ms, time},
    split,
};

/// What is shown of a key.
#[derive(Debug, Clone)]
pub(crate) struct KeyView {
    pub(crate) url: Option<Private>,
    /// Why there is none to give out.
    pub(crate) problem: Option<String>,
}

/// A link by which a person gets a key.
#[derive(Debug)]
pub(crate) struct InstantKey {
    pub(crate) method: AccessMethodId,
    pub(crate) url: Private,
    pub(crate) created_at: Timestamp,
    pub(crate) ends_at: Option<Timestamp>,
}

/// Why there is none to give out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoInstantKey {
    /// No address for mobile keys is configured.
    NoAddress,
    /// No live grant of the person asks for a mobile key.
    NoMobileKey,
}

impl Db {
    /// Mobile keys are handed out at these addresses from now on; without a template there are none.
    pub fn hand_out_keys_at(&mut self, template: Option<KeyTemplate>) {
        self.key_template = template;
    }

    /// Whether mobile keys can be handed out.
    pub(super) fn has_mobile_keys(&self) -> bool {
        self.key_template.is_some()
    }
}

impl Tenant<'_> {
    /// Stores a new mobile or cloud key.
    pub(super) fn keep_key(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        identity: UserIdentityId,
        method: &NewMethod,
    ) -> Result<(), StoreError> {
        let (is_issued, url, problem) = match (method.mode, &self.db.key_template) {
            (Mode::MobileKey, None) => {
                let problem = "This cloud hands out no mobile keys: no address for them is configured";
                (false, None, Some(problem))
            }
            (Mode::MobileKey, Some(template)) => {
                let token: String =
                    self.db.random.bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
                let link = template.link(&KeyLink { method: method.id, grant, identity, token: &token });
                (true, Some(self.db.seal.seal(&url_place(method.id), link.expose().as_bytes())), None)
            }
            _ => (true, None, None),
        };
        self.db.execute(
            "INSERT INTO key_method VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                method.id.to_string(),
                self.workspace,
                is_issued,
                is_issued.then(|| ms(now)),
                url,
                problem
            ],
        )?;
        Ok(())
    }

    pub(super) fn key_view(&self, method: AccessMethodId) -> Result<Option<KeyView>, StoreError> {
        let found = self.db.one(
            "SELECT url, problem FROM key_method WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method.to_string(), self.workspace],
            |row| Ok((row.get::<_, Option<Vec<u8>>>("url")?, row.get("problem")?)),
        )?;
        let Some((url, problem)) = found else { return Ok(None) };
        Ok(Some(KeyView { url: self.unseal(&url_place(method), url)?, problem }))
    }

    /// The mobile key that a person may use now, or next: of several, the one that was made last.
    pub(crate) fn key_of_identity(
        &mut self,
        now: Timestamp,
        identity: UserIdentityId,
    ) -> Result<Result<InstantKey, NoInstantKey>, StoreError> {
        let found = self.db.one(
            "SELECT m.access_method_id, m.created_at, g.ends_at, k.url
             FROM access_grant g CROSS JOIN access_method m USING(access_grant_id)
             CROSS JOIN key_method k USING(access_method_id)
             WHERE g.user_identity_id = ?1 AND g.workspace_id = ?2 AND g.deleted_at IS NULL
               AND (g.ends_at IS NULL OR g.ends_at > ?3) AND k.url IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM method_end e WHERE e.access_method_id = m.access_method_id)
             ORDER BY m.rowid DESC LIMIT 1",
            params![identity.to_string(), self.workspace, ms(now)],
            |row| {
                let times = (time(row, "created_at")?, maybe_time(row, "ends_at")?);
                Ok((id::<AccessMethodId>(row, "access_method_id")?, times, row.get::<_, Vec<u8>>("url")?))
            },
        )?;
        let Some((method, (created_at, ends_at), url)) = found else {
            let why =
                if self.db.has_mobile_keys() { NoInstantKey::NoMobileKey } else { NoInstantKey::NoAddress };
            return Ok(Err(why));
        };
        let url = self.unseal(&url_place(method), Some(url))?;
        let url = url.ok_or_else(|| StoreError::corrupt("key_method.url", "gone while it was read"))?;
        Ok(Ok(InstantKey { method, url, created_at, ends_at }))
    }

    /// Opens a door with a cloud key. `door` names a device; the attempt may be one that is under way already.
    pub(crate) fn unlock_door(
        &mut self,
        now: Timestamp,
        method: AccessMethodId,
        door: Uuid,
    ) -> Result<Result<Attempt, Refused>, StoreError> {
        split(self.try_unlock_door(now, method, door))
    }

    fn try_unlock_door(
        &mut self,
        now: Timestamp,
        wanted: AccessMethodId,
        door: Uuid,
    ) -> Result<Attempt, Fault> {
        let method =
            self.method(wanted)?.ok_or_else(|| Refused::not_found(Resource::AccessMethod, wanted))?;
        let grant = self
            .grant(&GrantName::Id(method.grant))?
            .ok_or_else(|| Refused::not_found(Resource::AccessMethod, wanted))?;
        let device = DeviceId(door);
        let not_there = || Refused::not_found(Resource::AcsEntrance, door);
        let leads_there = self.devices_of_grant(grant.id)?.contains(&device)
            || self.targets_of(grant.id)?.doors.iter().any(|known| known.id.0 == door);
        if method.mode == Mode::CloudKey && !leads_there {
            return Err(not_there().into());
        }
        let reached = self.reached(device)?;
        let (system, name, bridge) = match &reached {
            Some(reached) => (reached.system.clone(), reached.name.clone(), Some(reached.bridge)),
            // A door that no device is: nothing opens it from afar yet, and what else is wrong is said first.
            None => (named("none")?, named("none")?, None),
        };
        let can_be_opened = reached.is_some() && self.can_be_opened(device)?;
        let pending = self.db.one(
            "SELECT action_attempt_id FROM unlock_attempt
             WHERE access_method_id = ?1 AND device_id = ?2 AND workspace_id = ?3 AND status = 'pending'",
            params![wanted.to_string(), door.to_string(), self.workspace],
            |row| id(row, "action_attempt_id"),
        )?;
        let facts = UnlockFacts {
            mode: method.mode,
            window: grant.window,
            is_deleted: method.deleted.is_some(),
            system: &system,
            device: &name,
            can_be_opened,
            pending,
        };
        let attempt = match (plan_unlock(&facts, now, &self.db.random)?, bridge) {
            (Unlock::Same(attempt), _) => attempt,
            (Unlock::New { attempt, job, unsent_at, silent_at }, Some(bridge)) => {
                self.db.execute(
                    "INSERT INTO unlock_attempt VALUES(?1, ?2, ?3, ?4, ?5, 'pending', NULL, NULL, ?6, ?7, ?8, NULL, NULL)",
                    params![
                        attempt.to_string(),
                        self.workspace,
                        wanted.to_string(),
                        door.to_string(),
                        job.job_id.to_string(),
                        ms(now),
                        ms(unsent_at),
                        ms(silent_at)
                    ],
                )?;
                self.db.enqueue_job(now, bridge, &job)?;
                attempt
            }
            (Unlock::New { .. }, None) => return Err(not_there().into()),
        };
        let attempt = self.attempt(attempt)?;
        Ok(attempt.ok_or_else(|| StoreError::corrupt("unlock_attempt", "gone while it was made"))?)
    }

    /// Whether a device can be opened from afar, should its site allow it.
    pub(super) fn can_be_opened(&self, device: DeviceId) -> Result<bool, StoreError> {
        let declared = self.declared(device)?;
        Ok(declared.is_some_and(|(device, can)| can.unlock.is_some() && device.remote_unlock.is_some()))
    }

    /// Ends an attempt to open a door, if it has not ended; tells the feed.
    fn end_unlock(
        &mut self,
        now: Timestamp,
        attempt: ActionAttemptId,
        end: &Result<(), AttemptError>,
    ) -> Result<bool, StoreError> {
        let (status, kind, message) = match end {
            Ok(()) => ("success", None, None),
            Err(error) => ("error", Some(error.kind), Some(self.seal_error(attempt, &error.message))),
        };
        let ended = self.db.one(
            "UPDATE unlock_attempt SET status = ?3, error_type = ?4, error_sealed = ?5, ended_at = ?6
             WHERE action_attempt_id = ?1 AND workspace_id = ?2 AND status = 'pending'
             RETURNING device_id, (SELECT acs_system_id FROM device d WHERE d.device_id = unlock_attempt.device_id)
               AS acs_system_id",
            params![attempt.to_string(), self.workspace, status, kind, message, ms(now)],
            |row| Ok((id::<DeviceId>(row, "device_id")?, id::<AcsSystemId>(row, "acs_system_id")?)),
        )?;
        let Some((device, system)) = ended else { return Ok(false) };
        let subject = Subject::Device(device, system);
        let event = match end {
            Ok(()) => "action_attempt.unlock_door.succeeded",
            Err(_) => "action_attempt.unlock_door.failed",
        };
        let more = json!({"action_attempt_id": attempt, "action_type": "UNLOCK_DOOR", "status": status});
        self.tell_more(now, &Event::new(event, subject), more)?;
        if end.is_ok() {
            let more = json!({"method": "remote", "action_attempt_id": attempt});
            self.tell_more(now, &Event::new("lock.unlocked", subject), more)?;
        }
        Ok(true)
    }
}

impl Db {
    fn unlock_of(
        &self,
        bridge: BridgeId,
        job: JobId,
    ) -> Result<Option<(WorkspaceId, ActionAttemptId)>, StoreError> {
        self.one(
            "SELECT a.workspace_id, action_attempt_id FROM unlock_attempt a JOIN device USING(device_id)
             JOIN acs_system USING(acs_system_id) WHERE job_id = ?1 AND bridge_id = ?2",
            params![job.to_string(), bridge.to_string()],
            |row| Ok((id(row, "workspace_id")?, id(row, "action_attempt_id")?)),
        )
    }

    /// Takes in how the opening of a door ended. False where the job was none.
    pub(super) fn unlock_reported(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<bool, StoreError> {
        let Some((workspace, attempt)) = self.unlock_of(bridge, report.job_id)? else { return Ok(false) };
        // A finished attempt never changes: what settles a doubt is in the feed of the site's own jobs.
        self.tenant(workspace).end_unlock(now, attempt, &unlock_end(&report.outcome))?;
        Ok(true)
    }

    /// The bridge has forgotten it.
    pub(super) fn unlock_lost(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        job: JobId,
    ) -> Result<(), StoreError> {
        let Some((workspace, attempt)) = self.unlock_of(bridge, job)? else { return Ok(()) };
        let end = unlock_end(&Outcome::unknown(
            crate::model::Code::MemoryRestored,
            "the bridge has lost its memory of it",
        ));
        self.tenant(workspace).end_unlock(now, attempt, &end).map(drop)
    }

    /// Ends attempts to open doors that nobody else will end; says when the next one is due.
    pub(super) fn end_overdue_unlocks(
        &mut self,
        now: Timestamp,
    ) -> Result<(bool, Option<Timestamp>), StoreError> {
        let pending = self.all(
            "SELECT * FROM unlock_attempt WHERE status = 'pending' ORDER BY unsent_at, rowid",
            [],
            |row| {
                let workspace: WorkspaceId = id(row, "workspace_id")?;
                let (attempt, job): (ActionAttemptId, JobId) =
                    (id(row, "action_attempt_id")?, id(row, "job_id")?);
                Ok((workspace, attempt, job, time(row, "unsent_at")?, time(row, "silent_at")?))
            },
        )?;
        let (mut changed, mut next) = (false, None::<Timestamp>);
        for (workspace, attempt, job, unsent_at, silent_at) in pending {
            let due = if unsent_at > now { Some(unsent_at) } else { Some(silent_at).filter(|at| *at > now) };
            let was_handed = self.was_handed(job)?;
            let end = match due {
                _ if unsent_at <= now && !was_handed => AttemptError {
                    kind: "bridge_disconnected",
                    message: "The property's bridge was not connected; the door was not opened".into(),
                },
                Some(due) => {
                    next = Some(next.map_or(due, |next| next.min(due)));
                    continue;
                }
                None => AttemptError {
                    kind: "uncategorized_error",
                    message: "The door may have been opened: the bridge has not said how it ended".into(),
                },
            };
            if !was_handed {
                let bridge = self.one(
                    "SELECT bridge_id FROM bridge_order WHERE job_id = ?1 AND what = 'job'",
                    [job.to_string()],
                    |row| id::<BridgeId>(row, "bridge_id"),
                )?;
                if let Some(bridge) = bridge {
                    let _withdrawn = self.enqueue_cancel(now, bridge, job)?;
                }
            }
            changed |= self.tenant(workspace).end_unlock(now, attempt, &Err(end))?;
        }
        Ok((changed, next))
    }

    pub(super) fn forget_unlocks(&self, ended_before: i64, most: u32) -> Result<usize, StoreError> {
        self.execute(
            "DELETE FROM unlock_attempt WHERE rowid IN (
               SELECT rowid FROM unlock_attempt WHERE ended_at < ?1 LIMIT ?2)",
            params![ended_before, most],
        )
    }
}

fn named<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    text: &str,
) -> Result<T, StoreError> {
    text.parse().map_err(|error| StoreError::corrupt("a name", error))
}

fn url_place(method: AccessMethodId) -> String {
    format!("key_method.url/{method}")
}
