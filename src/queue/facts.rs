//! What a desk did to grants, as facts for the cloud: in the outbox until the cloud has them, and beyond that for as long as
//! the grant matters. A cloud that was set back is told again, and a picture that it made before it heard of a grant's end
//! does not bring the grant back.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::Queue;
use crate::{
    model::{AccessGrantId, DesiredGrant, GrantMade, GrantRevoked},
    protocol::Position,
    store::StoreError,
};

/// In the outbox, beside the revisions of jobs' reports: a grant that was made, and one that was taken back.
pub(super) const MADE: u8 = 3;
pub(super) const REVOKED: u8 = 4;

/// How long it is remembered that a grant without an end was taken back: longer than anybody keeps a backup that knows of it.
const OPEN_END_KEPT: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Facts that one call forgets.
const FORGOTTEN_AT_ONCE: i64 = 500;
/// Grants that a cloud is asked about in a conversation.
const ASKED_AT_ONCE: i64 = 500;
/// Facts that are told once more at most, the newest.
const TOLD_AGAIN: i64 = 10_000;

impl Queue {
    /// Tells the cloud of a grant that the site made.
    pub(super) fn report_made(&mut self, made: &GrantMade) -> Result<(), StoreError> {
        let grant = made.grant.access_grant_id;
        let body = self.sealed(&place(grant, MADE), made);
        self.keep_fact(grant, MADE, made.grant.window.ends_at(), &body)?;
        self.put_report(grant.0, MADE, &body)
    }

    /// Tells the cloud that the site took a grant back, which would have ended then.
    pub(super) fn report_revoked(
        &mut self,
        revoked: &GrantRevoked,
        ends_at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let grant = revoked.access_grant_id;
        let body = self.sealed(&place(grant, REVOKED), revoked);
        let until = ends_at.or_else(|| revoked.at.saturating_add(OPEN_END_KEPT).ok());
        self.keep_fact(grant, REVOKED, until, &body)?;
        self.put_report(grant.0, REVOKED, &body)
    }

    /// The cloud has forgotten reports that it had acknowledged: what the desk did goes into the outbox once more, as far as
    /// it is not there. Until the cloud tells such a grant itself, it counts as one that only the site knows.
    pub(super) fn report_facts_again(&mut self) -> Result<(), StoreError> {
        let forgotten: Vec<([u8; 16], u8, Vec<u8>)> = self
            .connection
            .prepare_cached(
                "SELECT grant_id, what, body FROM (SELECT n, grant_id, what, body FROM desk_fact \
                 WHERE (grant_id, what) NOT IN (SELECT job_id, revision FROM report) ORDER BY n DESC LIMIT ?1) \
                 ORDER BY n",
            )?
            .query_map([TOLD_AGAIN], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        for (grant, what, body) in forgotten {
            let id = AccessGrantId(uuid::Uuid::from_bytes(grant));
            // In the outbox one that cannot be read would hold up all that comes after it.
            let body = match what {
                MADE => match self.readable::<GrantMade>(id, what, &body)? {
                    Some(made) => self.renewed(made, body)?,
                    None => continue,
                },
                _ if self.readable::<serde_json::Value>(id, what, &body)?.is_none() => continue,
                _ => body,
            };
            self.connection
                .prepare_cached("UPDATE desired_grant SET made_here = 1 WHERE grant_id = ?1")?
                .execute([grant])?;
            self.put_report(uuid::Uuid::from_bytes(grant), what, &body)?;
        }
        Ok(())
    }

    /// Asks the cloud, which reads such reports, about grants of the desk's that it holds the report of and has not told: it
    /// says how they are, or that they are gone. Once in a conversation; those that are told meanwhile change nothing.
    ///
    /// # Errors
    /// Those of the database.
    pub fn ask_about_untold(&mut self) -> Result<(), StoreError> {
        let untold: Vec<[u8; 16]> = self
            .connection
            .prepare_cached(
                "SELECT grant_id FROM desired_grant WHERE made_here = 1 \
                 AND grant_id NOT IN (SELECT job_id FROM report WHERE revision = ?1) LIMIT ?2",
            )?
            .query_map(params![MADE, ASKED_AT_ONCE], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in untold {
            let id = AccessGrantId(uuid::Uuid::from_bytes(id));
            let Some(grant) = self.desired_grant(id)? else { continue };
            let kept = match self.fact(id, MADE)? {
                Some(body) => self.readable::<GrantMade>(id, MADE, &body)?,
                None => None,
            };
            // Who made it is not known of every one: it was told long ago.
            let mut made =
                kept.unwrap_or_else(|| GrantMade { at: grant.window.starts_at(), by: String::new(), grant });
            self.renew_pins(&mut made.grant)?;
            self.report_made(&made)?;
        }
        Ok(())
    }

    /// A grant that the site made, with the PINs that its codes have by now; `body` is as it was kept.
    fn renewed(&mut self, made: GrantMade, body: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let mut grant = made.grant.clone();
        self.renew_pins(&mut grant)?;
        if grant == made.grant {
            return Ok(body);
        }
        let (id, ends_at) = (grant.access_grant_id, grant.window.ends_at());
        let body = self.sealed(&place(id, MADE), &GrantMade { grant, ..made });
        self.keep_fact(id, MADE, ends_at, &body)?;
        Ok(body)
    }

    /// Whether the desk took a grant back and the cloud, when it said what arrived after the acknowledgement `heard`, may not
    /// have known that.
    pub(super) fn is_revoked_unheard(
        &self,
        grant: AccessGrantId,
        heard: Position,
    ) -> Result<bool, StoreError> {
        if self.fact(grant, REVOKED)?.is_none() {
            return Ok(false);
        }
        let reports = self.memory()?.reports;
        let held = Position { n: reports.acknowledged, ..reports.last };
        let in_outbox = "SELECT 1 FROM report WHERE n > ?1 AND job_id = ?2 AND revision = ?3";
        let is_waiting = self.connection.prepare_cached(in_outbox)?.exists(params![
            held.n.cast_signed(),
            grant.0.as_bytes(),
            REVOKED
        ])?;
        Ok(is_waiting || heard < held)
    }

    /// The cloud tells a grant: should it ever forget that the desk made it, it is told as it is now.
    pub(super) fn keep_told(&mut self, grant: &DesiredGrant) -> Result<(), StoreError> {
        let id = grant.access_grant_id;
        let Some(body) = self.fact(id, MADE)? else { return Ok(()) };
        let Some(made) = self.readable::<GrantMade>(id, MADE, &body)? else { return Ok(()) };
        let mut grant = grant.clone();
        for code in &mut grant.codes {
            let given_out =
                made.grant.codes.iter().find(|known| known.access_method_id == code.access_method_id);
            code.pin = code.pin.take().or_else(|| given_out.and_then(|known| known.pin.clone()));
        }
        if made.grant == grant {
            return Ok(());
        }
        let body = self.sealed(&place(id, MADE), &GrantMade { grant: grant.clone(), ..made });
        self.keep_fact(id, MADE, grant.window.ends_at(), &body)
    }

    /// The cloud has said that a grant is gone: that the desk once made it need not be told any more.
    pub(super) fn forget_made(&mut self, grant: AccessGrantId) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM desk_fact WHERE grant_id = ?1 AND what = ?2")?
            .execute(params![grant.0.as_bytes(), MADE])?;
        Ok(())
    }

    /// Deletes a bounded number of facts about grants that were over before then. Says how many.
    pub(super) fn forget_facts(&mut self, before: i64) -> Result<usize, StoreError> {
        let sql = "DELETE FROM desk_fact WHERE n IN (SELECT n FROM desk_fact WHERE until < ?1 LIMIT ?2)";
        Ok(self.connection.prepare_cached(sql)?.execute([before, FORGOTTEN_AT_ONCE])?)
    }

    /// What a fact says. One that cannot be read any more is forgotten.
    fn readable<T: serde::de::DeserializeOwned>(
        &self,
        grant: AccessGrantId,
        what: u8,
        body: &[u8],
    ) -> Result<Option<T>, StoreError> {
        match self.unseal(&place(grant, what), body) {
            Ok(said) => Ok(Some(said)),
            Err(error @ (StoreError::Sealed(_) | StoreError::Corrupt { .. })) => {
                tracing::error!(%grant, error = error.chain(), "what a desk did to a grant cannot be read any more");
                self.connection
                    .prepare_cached("DELETE FROM desk_fact WHERE grant_id = ?1 AND what = ?2")?
                    .execute(params![grant.0.as_bytes(), what])?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn fact(&self, grant: AccessGrantId, what: u8) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT body FROM desk_fact WHERE grant_id = ?1 AND what = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row(params![grant.0.as_bytes(), what], |row| row.get(0)).optional()?)
    }

    fn keep_fact(
        &mut self,
        grant: AccessGrantId,
        what: u8,
        until: Option<Timestamp>,
        body: &[u8],
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO desk_fact(grant_id, what, until, body) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT(grant_id, what) DO UPDATE SET until = excluded.until, body = excluded.body",
            )?
            .execute(params![grant.0.as_bytes(), what, until.map(Timestamp::as_millisecond), body])?;
        Ok(())
    }
}

pub(super) fn place(grant: AccessGrantId, what: u8) -> String {
    format!("report.body/grant/{grant}/{what}")
}
