//! What goes with a person, and what goes by itself when it is long enough over.
//!
//! A person who is erased leaves ids, times and doors behind, and nothing that tells who it was: names, keys, codes, links,
//! card numbers and what systems said go, also out of the feed and out of orders that are over. The key of the
//! reservation stays: a room's ledger is judged by it. So does, while a lock may still hold a code, the digest by which
//! the same code is not given to somebody else; and an order that its bridge may still ask for, until it has.

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;
use serde_json::{Map, Value};

use crate::{
    model::{AccessGrantId, EventId, UserIdentityId, WorkspaceId},
    store::StoreError,
};

use super::{
    Db, Tenant, events,
    rows::{id, ms},
};

/// For how long what is over is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// What happened.
    pub events: SignedDuration,
    /// Attempts that ended, and the cards that they made.
    pub attempts: SignedDuration,
    /// PINs and links, after the end of their grant.
    pub codes: SignedDuration,
    /// Grants after their end; without it, until somebody deletes them.
    pub grants: Option<SignedDuration>,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: i64| SignedDuration::from_hours(days * 24);
        Self { events: days(90), attempts: days(90), codes: days(30), grants: Some(days(365)) }
    }
}

/// Grants that are looked at together: some milliseconds, so that nobody at a desk waits behind them.
const SLICE: u32 = 100;

/// What an event says of a person, beside the ids.
const OF_PEOPLE: &[&str] = &["code", "access_grant_key", "access_grant_keys", "error_message"];
const SECRETS: &[&str] = &["code"];

impl Tenant<'_> {
    /// What tells of a person goes.
    pub(super) fn erase_identity(&mut self, now: Timestamp, own: UserIdentityId) -> Result<(), StoreError> {
        let text = own.to_string();
        let grants = self.db.all(
            "SELECT access_grant_id FROM access_grant WHERE user_identity_id = ?1 AND workspace_id = ?2
             UNION SELECT access_grant_id FROM past_grant WHERE user_identity_id = ?1 AND workspace_id = ?2",
            params![text, self.workspace],
            |row| id::<AccessGrantId>(row, "access_grant_id"),
        )?;
        for grant in grants {
            self.forget_secrets(grant, OF_PEOPLE)?;
            self.forget_what_was_said(grant)?;
            self.db.execute(
                "UPDATE access_grant SET name = NULL, access_grant_key = NULL WHERE access_grant_id = ?1",
                [grant.to_string()],
            )?;
        }
        self.db.execute(
            "DELETE FROM scan_attempt WHERE status <> 'pending' AND acs_credential_id IN (
               SELECT acs_credential_id FROM acs_credential WHERE user_identity_id = ?1 AND workspace_id = ?2)",
            params![text, self.workspace],
        )?;
        self.db.execute(
            "UPDATE acs_credential SET card_number = NULL WHERE user_identity_id = ?1 AND workspace_id = ?2",
            params![text, self.workspace],
        )?;
        self.db.execute(
            "DELETE FROM card_serial WHERE access_method_id IN (
               SELECT access_method_id FROM acs_credential WHERE user_identity_id = ?1 AND workspace_id = ?2)",
            params![text, self.workspace],
        )?;
        self.db.execute(
            "DELETE FROM merged_identity WHERE user_identity_id = ?1 AND workspace_id = ?2",
            params![text, self.workspace],
        )?;
        self.db.execute(
            "UPDATE user_identity SET person = x'', key_index = NULL, email_index = NULL, phone_index = NULL,
               customer_key = NULL, erased_at = ?3
             WHERE user_identity_id = ?1 AND workspace_id = ?2",
            params![text, self.workspace, ms(now)],
        )?;
        Ok(())
    }

    /// Codes, wishes and links of a grant that is over go, out of the feed as well, where these fields do.
    fn forget_secrets(&mut self, grant: AccessGrantId, fields: &[&str]) -> Result<(), StoreError> {
        let own = grant.to_string();
        for sql in [
            "UPDATE requested_method SET code = NULL WHERE access_grant_id = ?1 AND code IS NOT NULL",
            "UPDATE code_method SET pin = x'', wish = NULL
             WHERE access_method_id IN (SELECT access_method_id FROM access_method WHERE access_grant_id = ?1)",
            // A slot without a PIN is one that should be empty, and that it should since the grant ended.
            "UPDATE desired_slot SET pin = NULL, mark = NULL, starts_at = NULL, ends_at = NULL
             WHERE access_method_id IN (SELECT access_method_id FROM access_method WHERE access_grant_id = ?1
                                        UNION SELECT access_method_id FROM past_method WHERE access_grant_id = ?1)",
            "UPDATE key_method SET url = NULL
             WHERE access_method_id IN (SELECT access_method_id FROM access_method WHERE access_grant_id = ?1)",
        ] {
            self.db.execute(sql, [&own])?;
        }
        let told =
            self.db.all("SELECT event_id, fields FROM event WHERE access_grant_id = ?1", [&own], |row| {
                Ok((id::<EventId>(row, "event_id")?, row.get::<_, Vec<u8>>("fields")?))
            })?;
        for (event, sealed) in told {
            let place = events::place(event);
            let (mut of_event, is_readable) = match events::opened(&self.db.seal, event, &sealed) {
                Ok(fields) => (fields, true),
                // What nobody can read nobody can search either: it goes whole.
                Err(error) => {
                    tracing::error!(%event, error = error.chain(), "an event cannot be read, and is emptied");
                    (Map::new(), false)
                }
            };
            let before = of_event.len();
            of_event.retain(|name, _| !fields.contains(&name.as_str()));
            if of_event.len() < before || !is_readable {
                let sealed = self.db.seal.seal(&place, Value::Object(of_event).to_string().as_bytes());
                self.db.execute(
                    "UPDATE event SET fields = ?2 WHERE event_id = ?1",
                    params![event.to_string(), sealed],
                )?;
            }
        }
        Ok(())
    }

    /// Orders for a grant that are over, which carry names and codes, and what systems said of attempts.
    fn forget_what_was_said(&self, grant: AccessGrantId) -> Result<(), StoreError> {
        const METHODS: &str = "SELECT access_method_id FROM access_method WHERE access_grant_id = ?1
                               UNION SELECT access_method_id FROM past_method WHERE access_grant_id = ?1";
        let own = grant.to_string();
        self.db.execute(
            &format!(
                "DELETE FROM bridge_order
                 WHERE over_at IS NOT NULL AND (position IS NULL OR position <=
                     (SELECT orders_acknowledged FROM bridge WHERE bridge.id = bridge_order.bridge_id))
                   AND job_id IN (
                     SELECT job_id FROM ordered_card WHERE access_method_id IN ({METHODS})
                     UNION ALL SELECT job_id FROM ordered_chip WHERE access_method_id IN ({METHODS})
                     UNION ALL SELECT job_id FROM ordered_slot WHERE access_method_id IN ({METHODS}))"
            ),
            [&own],
        )?;
        self.db.execute(
            &format!("UPDATE slot_work SET message = NULL WHERE access_method_id IN ({METHODS})"),
            [&own],
        )?;
        for table in ["action_attempt", "unlock_attempt"] {
            self.db.execute(
                &format!(
                    "UPDATE {table} SET error_message = NULL, error_sealed = NULL
                     WHERE status <> 'pending' AND access_method_id IN ({METHODS})"
                ),
                [&own],
            )?;
        }
        Ok(())
    }
}

impl Db {
    /// What is over is kept for so long from now on.
    pub fn keep_for(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// Takes codes and links out of some of the grants that ended long enough ago. Says whether more may be left.
    pub(super) fn forget_codes(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let before = ms(now.saturating_sub(self.retention.codes).unwrap_or(Timestamp::MIN));
        let (ended_at, place) = self.codes_forgotten;
        let ended = self.all(
            "SELECT workspace_id, access_grant_id, ends_at, rowid AS place FROM access_grant
             WHERE ends_at < ?1 AND (ends_at, rowid) > (?2, ?3) ORDER BY ends_at, rowid LIMIT ?4",
            params![before, ended_at, place, SLICE],
            |row| {
                let whose: WorkspaceId = id(row, "workspace_id")?;
                Ok((
                    whose,
                    id::<AccessGrantId>(row, "access_grant_id")?,
                    (row.get("ends_at")?, row.get("place")?),
                ))
            },
        )?;
        for (workspace, grant, place) in &ended {
            self.tenant(*workspace).forget_secrets(*grant, SECRETS)?;
            self.codes_forgotten = *place;
        }
        let gone = self.all(
            "SELECT workspace_id, access_grant_id FROM past_grant WHERE is_bare = 0 AND told_at < ?1 LIMIT ?2",
            params![before, SLICE],
            |row| Ok((id::<WorkspaceId>(row, "workspace_id")?, id::<AccessGrantId>(row, "access_grant_id")?)),
        )?;
        for (workspace, grant) in &gone {
            self.tenant(*workspace).forget_secrets(*grant, SECRETS)?;
            self.execute(
                "UPDATE past_grant SET is_bare = 1 WHERE access_grant_id = ?1",
                [grant.to_string()],
            )?;
        }
        Ok(ended.len().max(gone.len()) == SLICE as usize)
    }

    /// Removes some of the grants that ended long enough ago and of which nothing is left anywhere: no card that opens or
    /// may have been written, no code in a lock, nothing under way. Says whether more may be left.
    pub(super) fn forget_grants(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let Some(kept) = self.retention.grants else { return Ok(false) };
        let before = ms(now.saturating_sub(kept).unwrap_or(Timestamp::MIN));
        let ended = self.all(
            "SELECT workspace_id, access_grant_id FROM access_grant g
             WHERE ends_at < ?1
               AND NOT EXISTS (
                 SELECT 1 FROM access_method m LEFT JOIN card_state c USING(access_method_id)
                 WHERE m.access_grant_id = g.access_grant_id AND (
                   coalesce(c.in_doubt, 0) = 1
                   OR (coalesce(c.may_exist, 0) = 1 AND (c.opens_until IS NULL OR c.opens_until > ?2))
                   -- A slot that nothing is in, may be in or is on its way to has no rows.
                   OR EXISTS (SELECT 1 FROM desired_slot d WHERE d.access_method_id = m.access_method_id)
                   OR EXISTS (SELECT 1 FROM observed_slot o WHERE o.access_method_id = m.access_method_id)
                   OR EXISTS (SELECT 1 FROM slot_work w WHERE w.access_method_id = m.access_method_id)
                   OR EXISTS (SELECT 1 FROM action_attempt a WHERE a.access_method_id = m.access_method_id
                                AND a.status = 'pending')
                   OR EXISTS (SELECT 1 FROM unlock_attempt a WHERE a.access_method_id = m.access_method_id
                                AND a.status = 'pending')))
             ORDER BY ends_at LIMIT ?3",
            params![before, ms(now), SLICE],
            |row| Ok((id::<WorkspaceId>(row, "workspace_id")?, id::<AccessGrantId>(row, "access_grant_id")?)),
        )?;
        for (workspace, grant) in &ended {
            self.tenant(*workspace).remove_grant(now, *grant)?;
        }
        let before = now.saturating_sub(self.retention.events.max(self.retention.attempts));
        let before = ms(before.unwrap_or(Timestamp::MIN));
        let past = self.all(
            "DELETE FROM past_grant WHERE rowid IN (SELECT rowid FROM past_grant WHERE told_at < ?1 LIMIT ?2)
             RETURNING access_grant_id",
            params![before, SLICE],
            |row| row.get::<_, String>("access_grant_id"),
        )?;
        for grant in &past {
            self.execute("DELETE FROM past_method WHERE access_grant_id = ?1", [grant])?;
        }
        Ok(ended.len().max(past.len()) == SLICE as usize)
    }
}
