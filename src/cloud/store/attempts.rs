//! Action attempts and the cards they leave behind.

use jiff::Timestamp;
use rusqlite::{Row, params};

use crate::{
    grants::AttemptError,
    model::{
        AccessMethodId, AcsCredentialId, AcsSystemId, ActionAttemptId, ConnectedAccountId, JobId,
        UserIdentityId, Window, WorkspaceId,
    },
    store::StoreError,
};

use super::{
    Db, Listed, Overdue, Page, Tenant,
    grants::window,
    question::Question,
    rows::{id, id_list, maybe_id, maybe_time, ms, time},
};

/// An attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) id: ActionAttemptId,
    /// The job that does it.
    pub(crate) job: JobId,
    pub(crate) state: AttemptState,
    /// What is attempted, as clients know it.
    pub(crate) action: &'static str,
}

/// Where an attempt stands.
#[derive(Debug)]
pub(crate) enum AttemptState {
    Pending,
    Success(Box<Credential>),
    /// A door was opened.
    Unlocked,
    Error {
        kind: String,
        message: String,
    },
}

/// A card that was written.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) id: AcsCredentialId,
    pub(crate) system: AcsSystemId,
    pub(crate) account: ConnectedAccountId,
    pub(crate) user_identity: UserIdentityId,
    pub(crate) window: Window,
    pub(crate) card_number: Option<String>,
    /// Whether the system said that the card was physically written.
    pub(crate) proven: bool,
    pub(crate) issued_at: Timestamp,
    /// Since when it is not what it was, if it is not.
    pub(crate) invalid_since: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
}

/// A card as it was written.
pub(super) struct WrittenCard {
    pub(super) method: AccessMethodId,
    pub(super) window: Window,
    pub(super) card_number: Option<String>,
    pub(super) proven: bool,
}

impl Tenant<'_> {
    pub(crate) fn attempt(&mut self, wanted: ActionAttemptId) -> Result<Option<Attempt>, StoreError> {
        let found = self.db.one(
            "SELECT job_id, status, error_type, error_message, error_sealed, acs_credential_id FROM action_attempt
             WHERE action_attempt_id = ?1 AND workspace_id = ?2",
            params![wanted.to_string(), self.workspace],
            |row| {
                let error = (row.get::<_, Option<String>>("error_type")?, ErrorText::of(row)?);
                let card: Option<AcsCredentialId> = maybe_id(row, "acs_credential_id")?;
                Ok((id::<JobId>(row, "job_id")?, row.get::<_, String>("status")?, error, card))
            },
        )?;
        let Some((job, status, (kind, message), card)) = found else {
            return self.unlock_attempt(wanted);
        };
        let state = match (status.as_str(), card) {
            ("pending", _) => AttemptState::Pending,
            ("success", Some(card)) => AttemptState::Success(Box::new(self.credential(card)?)),
            _ => AttemptState::Error {
                kind: kind.unwrap_or_else(|| "uncategorized_error".into()),
                message: self.open_error(wanted, message)?,
            },
        };
        Ok(Some(Attempt { id: wanted, job, state, action: "ENCODE_CREDENTIAL" }))
    }

    fn unlock_attempt(&self, wanted: ActionAttemptId) -> Result<Option<Attempt>, StoreError> {
        let found = self.db.one(
            "SELECT job_id, status, error_type, error_message, error_sealed FROM unlock_attempt
             WHERE action_attempt_id = ?1 AND workspace_id = ?2",
            params![wanted.to_string(), self.workspace],
            |row| {
                let error = (row.get::<_, Option<String>>("error_type")?, ErrorText::of(row)?);
                Ok((id(row, "job_id")?, row.get::<_, String>("status")?, error))
            },
        )?;
        let Some((job, status, (kind, message))) = found else { return Ok(None) };
        let state = match status.as_str() {
            "pending" => AttemptState::Pending,
            "success" => AttemptState::Unlocked,
            _ => AttemptState::Error {
                kind: kind.unwrap_or_else(|| "uncategorized_error".into()),
                message: self.open_error(wanted, message)?,
            },
        };
        Ok(Some(Attempt { id: wanted, job, state, action: "UNLOCK_DOOR" }))
    }

    /// What a system said of an attempt may name anything, so it is sealed.
    pub(super) fn seal_error(&self, attempt: ActionAttemptId, message: &str) -> Vec<u8> {
        self.db.seal.seal(&error_place(attempt), message.as_bytes())
    }

    /// Empty where it was forgotten.
    pub(super) fn open_error(&self, attempt: ActionAttemptId, text: ErrorText) -> Result<String, StoreError> {
        let sealed = self.unseal(&error_place(attempt), text.sealed)?;
        Ok(sealed.map(|text| text.expose().to_owned()).or(text.clear).unwrap_or_default())
    }

    fn credential(&self, wanted: AcsCredentialId) -> Result<Credential, StoreError> {
        let found = self.maybe_credential(wanted)?;
        found.ok_or_else(|| StoreError::corrupt("acs_credential", "an attempt names one that is not there"))
    }

    pub(super) fn maybe_credential(&self, wanted: AcsCredentialId) -> Result<Option<Credential>, StoreError> {
        let found = self.db.one(
            "SELECT c.*, s.connected_account_id, i.since AS invalid_since
             FROM acs_credential c JOIN acs_system s USING(acs_system_id)
             LEFT JOIN invalid_card i USING(access_method_id)
             WHERE acs_credential_id = ?1 AND c.workspace_id = ?2",
            params![wanted.to_string(), self.workspace],
            |row| {
                let card = Credential {
                    id: wanted,
                    system: id(row, "acs_system_id")?,
                    account: id(row, "connected_account_id")?,
                    user_identity: id(row, "user_identity_id")?,
                    window: window(row)?,
                    card_number: None,
                    proven: row.get("proven")?,
                    issued_at: time(row, "issued_at")?,
                    invalid_since: maybe_time(row, "invalid_since")?,
                    created_at: time(row, "created_at")?,
                };
                Ok((card, row.get::<_, Option<Vec<u8>>>("card_number")?))
            },
        )?;
        let Some((mut card, number)) = found else {
            return Ok(None);
        };
        if let Some(sealed) = number {
            let plain = self.db.seal.open(&number_place(wanted), &sealed)?;
            card.card_number = Some(String::from_utf8_lossy(&plain).into_owned());
        }
        Ok(Some(card))
    }

    /// Attempts of every kind, each kind in the order of its making.
    pub(crate) fn attempts(
        &mut self,
        ids: Option<&[ActionAttemptId]>,
        device: Option<&str>,
        page: Page,
    ) -> Result<Listed<ActionAttemptId>, StoreError> {
        let device = device.map(str::to_owned);
        let mut rows = Vec::new();
        for (kind, (table, is_of_devices)) in
            (0..).zip([("action_attempt", false), ("scan_attempt", false), ("unlock_attempt", true)])
        {
            if device.is_some() && !is_of_devices {
                continue;
            }
            let select = format!("SELECT a.rowid * 3 + {kind} AS place, a.action_attempt_id FROM {table} a");
            let question = Question::of(select, "a")
                .among("a.action_attempt_id IN (SELECT value FROM json_each(?#))", id_list(ids))
                .among("a.device_id = ?#", device.clone())
                .and("a.rowid > ?#", Some((page.after - kind).div_euclid(3)));
            let (sql, values) = question.in_order(&self.workspace, "a.rowid", page.limit + 1);
            rows.extend(self.db.all(&sql, rusqlite::params_from_iter(values), |row| {
                Ok((row.get::<_, i64>("place")?, id(row, "action_attempt_id")?))
            })?);
        }
        rows.sort_unstable_by_key(|(place, _)| *place);
        Ok(Listed::cut(rows, page))
    }

    /// The serial number of a card, as its system wrote it.
    pub(crate) fn serial_of_card(&self, card: AcsCredentialId) -> Result<Option<String>, StoreError> {
        Ok(self.maybe_credential(card)?.and_then(|card| card.card_number))
    }

    /// The method whose card a card is.
    pub(crate) fn method_of_card(&self, card: AcsCredentialId) -> Result<Option<AccessMethodId>, StoreError> {
        self.db.one(
            "SELECT access_method_id FROM acs_credential WHERE acs_credential_id = ?1 AND workspace_id = ?2",
            params![card.to_string(), self.workspace],
            |row| id(row, "access_method_id"),
        )
    }

    /// The card that was written for a method.
    pub(crate) fn card_of_method(&self, method: AccessMethodId) -> Result<Option<Credential>, StoreError> {
        let card = self.db.one(
            "SELECT acs_credential_id FROM acs_credential WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method.to_string(), self.workspace],
            |row| id(row, "acs_credential_id"),
        )?;
        card.map(|card| self.credential(card)).transpose()
    }

    /// Records a card that was written: one for each method, renewed when the method is written again.
    pub(super) fn keep_credential(
        &mut self,
        now: Timestamp,
        card: &WrittenCard,
    ) -> Result<Option<AcsCredentialId>, StoreError> {
        let method = card.method.to_string();
        let known = self.db.one(
            "SELECT acs_credential_id FROM acs_credential WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method, self.workspace],
            |row| id(row, "acs_credential_id"),
        )?;
        let own = known.unwrap_or_else(|| AcsCredentialId(self.db.random.uuid_at(now)));
        let number =
            card.card_number.as_ref().map(|number| self.db.seal.seal(&number_place(own), number.as_bytes()));
        let kept = self.db.execute(
            "INSERT INTO acs_credential
             SELECT ?1, m.workspace_id, access_method_id, acs_system_id, user_identity_id, ?4, ?5,
               CASE WHEN i.erased_at IS NULL THEN ?6 END, ?7, ?8, ?8
             FROM access_method m JOIN (SELECT access_grant_id, user_identity_id FROM access_grant)
               USING(access_grant_id) JOIN user_identity i USING(user_identity_id)
             WHERE access_method_id = ?2 AND m.workspace_id = ?3
             ON CONFLICT(acs_credential_id) DO UPDATE SET starts_at = excluded.starts_at, ends_at = excluded.ends_at,
               card_number = excluded.card_number, proven = excluded.proven, issued_at = excluded.issued_at",
            params![
                own.to_string(),
                method,
                self.workspace,
                ms(card.window.starts_at()),
                card.window.ends_at().map(ms),
                number,
                card.proven,
                ms(now)
            ],
        )?;
        if kept == 0 {
            return Ok(None);
        }
        let kind = if known.is_some() { "acs_credential.reissued" } else { "acs_credential.issued" };
        self.tell_of_card(now, kind, card.method)?;
        Ok(Some(own))
    }

    /// Ends an attempt, if it has not ended; a finished one never changes. Says whether it did.
    pub(super) fn end_attempt(
        &mut self,
        now: Timestamp,
        attempt: ActionAttemptId,
        end: &Result<AcsCredentialId, AttemptError>,
    ) -> Result<bool, StoreError> {
        let (status, kind, message, card) = match end {
            Ok(card) => ("success", None, None, Some(card.to_string())),
            Err(error) => ("error", Some(error.kind), Some(self.seal_error(attempt, &error.message)), None),
        };
        let ended = self.db.execute(
            "UPDATE action_attempt SET status = ?3, error_type = ?4, acs_credential_id = ?6, ended_at = ?7,
               error_sealed = CASE WHEN EXISTS (
                 SELECT 1 FROM access_method m JOIN access_grant g USING(access_grant_id) JOIN user_identity i USING(user_identity_id)
                 WHERE m.access_method_id = action_attempt.access_method_id AND i.erased_at IS NOT NULL)
               THEN NULL ELSE ?5 END
             WHERE action_attempt_id = ?1 AND workspace_id = ?2 AND status = 'pending'",
            params![attempt.to_string(), self.workspace, status, kind, message, card, ms(now)],
        )?;
        Ok(ended > 0)
    }
}

/// Grants that are looked at after a change for the bridges they concern.
const DESIRED_AT_ONCE: u32 = 64;

struct PendingAttempt {
    attempt: ActionAttemptId,
    workspace: WorkspaceId,
    job: JobId,
    silent_at: Timestamp,
}

impl Db {
    /// Ends attempts that nobody else will end, forgets deleted grants whose cards open no longer, and sees to it that
    /// no bridge is taken for connected that is not.
    ///
    /// A job that never reached its bridge ends `bridge_disconnected`; one that did, and of which nothing was heard,
    /// ends `encoding_interrupted`, and its late outcome will move only the method.
    ///
    /// # Errors
    /// Those of the database.
    pub fn end_overdue(&mut self, now: Timestamp) -> Result<Overdue, StoreError> {
        let (mut changed, mut next) = self.sweep_ended_cards(now)?;
        changed |= self.silent_bridges_down(now)?;
        let (scans_ended, scan_due) = self.end_overdue_scans(now)?;
        let (unlocks_changed, next_unlock) = self.end_overdue_unlocks(now)?;
        changed |= scans_ended | unlocks_changed;
        next = [next, scan_due, next_unlock].into_iter().flatten().min();
        // Those whose first deadline is still to come may be many, and this runs after every change.
        let first = self.one(
            "SELECT min(unsent_at) AS unsent_at FROM action_attempt WHERE status = 'pending' AND unsent_at > ?1",
            [ms(now)],
            |row| maybe_time(row, "unsent_at"),
        )?;
        next = next.into_iter().chain(first.flatten()).min();
        let pending = self.all(
            "SELECT * FROM action_attempt WHERE status = 'pending' AND unsent_at <= ?1 ORDER BY unsent_at, rowid",
            [ms(now)],
            |row: &Row<'_>| {
                Ok(PendingAttempt {
                    attempt: id(row, "action_attempt_id")?,
                    workspace: id(row, "workspace_id")?,
                    job: id(row, "job_id")?,
                    silent_at: time(row, "silent_at")?,
                })
            },
        )?;
        for pending in pending {
            if !self.was_handed(pending.job)? {
                let mut tenant = self.tenant(pending.workspace);
                changed |= tenant.end_attempt(now, pending.attempt, &Err(AttemptError::bridge_away()))?;
                tenant.cancel(now, pending.job)?;
            } else if pending.silent_at > now {
                next = next.into_iter().chain([pending.silent_at]).min();
            } else {
                self.tenant(pending.workspace).doubt(
                    now,
                    pending.job,
                    "the bridge has not said how it ended",
                )?;
                changed = true;
            }
        }
        // What somebody waits for has been told by now.
        let (grants_changed, next_grant) = self.run_due_grants(now)?;
        let (codes_changed, next_codes) = self.run_due_codes(now)?;
        let next_read = self.read_devices(now)?;
        let next_drop = self.drop_deleted_webhooks()?.then_some(now);
        next = [next, next_grant, next_codes, next_read, next_drop].into_iter().flatten().min();
        changed |= grants_changed | codes_changed | std::mem::take(&mut self.has_ordered);
        let concerns_bridges = !self.settle_desired(DESIRED_AT_ONCE)?.is_empty();
        if self.has_desired_changes()? {
            next = Some(now);
        }
        Ok(Overdue { changed, concerns_bridges, next })
    }
}

/// What a row has of a system's words: sealed or, from before that, in the clear.
pub(super) struct ErrorText {
    clear: Option<String>,
    sealed: Option<Vec<u8>>,
}

impl ErrorText {
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { clear: row.get("error_message")?, sealed: row.get("error_sealed")? })
    }
}

fn error_place(attempt: ActionAttemptId) -> String {
    format!("attempt.error/{attempt}")
}

fn number_place(card: AcsCredentialId) -> String {
    format!("acs_credential.card_number/{card}")
}
