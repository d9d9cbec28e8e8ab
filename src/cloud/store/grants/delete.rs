//! Grants and methods that are taken back, as far as that is possible.

use jiff::Timestamp;
use rusqlite::params;

use crate::{
    grants::{
        AttemptError, DeleteFacts, Deleted, Event, MethodFacts, Mode, PendingJob, Refused, Resource, Targets,
        plan_delete,
    },
    model::{AccessGrantId, AccessMethodId, AcsSystemId, ActionAttemptId, JobId, ReservationKey},
    store::StoreError,
};

use super::{
    super::{
        Db, Fault, Tenant,
        rows::{id, maybe_time, ms},
        split,
    },
    Grant, GrantName, Method,
};

impl Tenant<'_> {
    /// Takes a grant back, as far as that is possible.
    pub(crate) fn delete_grant(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_delete_grant(now, grant))
    }

    fn try_delete_grant(&mut self, now: Timestamp, wanted: AccessGrantId) -> Result<(), Fault> {
        let grant = self.live_grant(now, &GrantName::Id(wanted))?;
        let has_codes = grant.methods.iter().any(|method| method.code.is_some());
        let mut methods = Vec::new();
        // One that is being deleted was told of already.
        let others = grant.methods.iter().filter(|method| method.code.is_none() && method.deleted.is_none());
        for method in others {
            methods.push(self.method_facts(method)?);
        }
        let key = grant.reservation_key.as_ref();
        let last_of = match key {
            Some(key) if self.reservation(Some(key), Some(wanted))?.windows.is_empty() => Some(key),
            _ => None,
        };
        let (rooms, earlier_cards) = match last_of {
            Some(key) => (self.rooms_still_there(key)?, self.earlier_cards(now, key)?),
            None => (Targets::default(), Vec::new()),
        };
        let facts = DeleteFacts {
            grant: grant.id,
            methods: &methods,
            last_of,
            rooms: &rooms,
            earlier_cards: &earlier_cards,
        };
        let mut plan = plan_delete(&facts, now, &self.db.random);
        if has_codes {
            // The grant is told of when the last of its codes is gone.
            plan.events.remove(0);
            for method in grant.methods.iter().filter(|method| method.code.is_some()) {
                self.cancel_chip(now, method.id)?;
            }
            self.with_book(now, grant.id, |book, at| book.delete_grant(at, wanted))?;
        }
        self.tell(now, &plan.events)?;
        self.write_delete(now, &grant, last_of, &plan)?;
        Ok(())
    }

    fn method_facts(&mut self, method: &Method) -> Result<MethodFacts, StoreError> {
        let pending = match self.pending_job(method.id)? {
            Some((attempt, job)) => Some(PendingJob { job, attempt, handed: self.db.was_handed(job)? }),
            None => None,
        };
        Ok(MethodFacts { id: method.id, system: method.system, card: method.card, pending })
    }

    /// Takes one method back, as far as that is possible.
    pub(crate) fn delete_method(
        &mut self,
        now: Timestamp,
        method: AccessMethodId,
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_delete_method(now, method))
    }

    fn try_delete_method(&mut self, now: Timestamp, wanted: AccessMethodId) -> Result<(), Fault> {
        let method =
            self.method(wanted)?.ok_or_else(|| Refused::not_found(Resource::AccessMethod, wanted))?;
        if method.mode != Mode::Code && method.deleted.is_none() {
            self.decline(now, &method)?;
        }
        Ok(self.take_back_method(now, wanted)?)
    }

    /// Takes a method back that need not be wanted less for it.
    pub(in crate::cloud::store) fn take_back_method(
        &mut self,
        now: Timestamp,
        wanted: AccessMethodId,
    ) -> Result<(), StoreError> {
        let Some(method) = self.method(wanted)?.filter(|method| method.deleted.is_none()) else {
            return Ok(());
        };
        if method.code.is_some() {
            self.cancel_chip(now, wanted)?;
            self.with_book(now, method.grant, |book, at| book.delete_method(at, wanted))?;
            return Ok(());
        }
        let facts = DeleteFacts {
            grant: method.grant,
            methods: &[self.method_facts(&method)?],
            last_of: None,
            rooms: &Targets::default(),
            earlier_cards: &[],
        };
        let mut plan = plan_delete(&facts, now, &self.db.random);
        // The grant stays.
        plan.events.remove(0);
        self.tell(now, &plan.events)?;
        for kept in &plan.kept {
            self.db.execute(
                "INSERT INTO method_end VALUES(?1, ?2, ?3)",
                params![kept.to_string(), self.workspace, ms(now)],
            )?;
        }
        self.write_method_ends(now, &plan)?;
        Ok(())
    }

    /// Takes back every method of a grant, or of all grants of a reservation.
    pub(crate) fn delete_methods(
        &mut self,
        now: Timestamp,
        grant: Option<AccessGrantId>,
        reservation: Option<&str>,
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_delete_methods(now, grant, reservation))
    }

    fn try_delete_methods(
        &mut self,
        now: Timestamp,
        grant: Option<AccessGrantId>,
        reservation: Option<&str>,
    ) -> Result<(), Fault> {
        let grants = self.db.all(
            "SELECT access_grant_id FROM access_grant
             WHERE +workspace_id = ?1 AND deleted_at IS NULL
               AND (access_grant_id = ?2 OR (workspace_id = ?1 AND reservation_key = ?3))
             ORDER BY rowid",
            params![self.workspace, grant.map(|id| id.to_string()), reservation],
            |row| id::<AccessGrantId>(row, "access_grant_id"),
        )?;
        if let (Some(grant), true) = (grant, grants.is_empty()) {
            return Err(Refused::not_found(Resource::AccessGrant, grant).into());
        }
        for grant in grants {
            for method in self.methods_of(grant)? {
                self.try_delete_method(now, method.id)?;
            }
        }
        Ok(())
    }

    fn rooms_still_there(&self, key: &ReservationKey) -> Result<Targets, Fault> {
        self.still_there(&self.reservation_rooms(key)?)
    }

    pub(in crate::cloud::store) fn earlier_cards(
        &self,
        now: Timestamp,
        key: &ReservationKey,
    ) -> Result<Vec<AcsSystemId>, StoreError> {
        self.db.all(
            "SELECT DISTINCT m.acs_system_id FROM access_grant g JOIN access_method m USING(access_grant_id)
             JOIN card_state c USING(access_method_id)
             WHERE g.workspace_id = ?1 AND g.reservation_key = ?2 AND g.deleted_at IS NOT NULL
               AND c.may_exist = 1 AND (c.opens_until IS NULL OR c.opens_until > ?3)",
            params![self.workspace, key.as_str(), ms(now)],
            |row| id(row, "acs_system_id"),
        )
    }

    fn write_delete(
        &mut self,
        now: Timestamp,
        grant: &Grant,
        last_of: Option<&ReservationKey>,
        plan: &Deleted,
    ) -> Result<(), StoreError> {
        // Its key is free for a new grant at once, also while a card of the old one still opens.
        self.db.execute(
            "UPDATE access_grant SET deleted_at = ?2, access_grant_key = NULL WHERE access_grant_id = ?1",
            params![grant.id.to_string(), ms(now)],
        )?;
        self.write_method_ends(now, plan)?;
        for checkout in &plan.checkouts {
            self.order_checkout(now, checkout, last_of)?;
        }
        match (last_of, &grant.reservation_key) {
            (Some(key), _) => {
                self.forget_stay_ends(now, key)?;
                self.db.execute(
                    "DELETE FROM reservation_entrance WHERE workspace_id = ?1 AND reservation_key = ?2",
                    params![self.workspace, key.as_str()],
                )?;
            }
            // Without it the stay may end earlier than was told.
            (None, Some(key)) if self.has_told_an_end(key)? => self.follow_stay_end(now, key)?,
            (None, Some(_)) => {}
            (None, None) => {}
        }
        self.sweep(grant.id)
    }

    fn write_method_ends(&mut self, now: Timestamp, plan: &Deleted) -> Result<(), StoreError> {
        for attempt in &plan.ended {
            self.end_attempt(now, *attempt, &Err(AttemptError::deleted()))?;
        }
        for job in &plan.cancel {
            self.cancel(now, *job)?;
        }
        for method in &plan.gone {
            self.remove_method(*method)?;
        }
        Ok(())
    }

    pub(in crate::cloud::store) fn remove_method(&self, method: AccessMethodId) -> Result<(), StoreError> {
        self.db.execute(
            "DELETE FROM access_method WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method.to_string(), self.workspace],
        )?;
        Ok(())
    }

    /// Removes a grant that ended long ago and of which nothing is left anywhere.
    pub(in crate::cloud::store) fn remove_grant(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
    ) -> Result<(), StoreError> {
        self.tell(now, &[Event::grant("access_grant.deleted", grant)])?;
        let own = grant.to_string();
        // With the last grant of its stay.
        self.db.execute(
            "DELETE FROM reservation_entrance AS r
             WHERE workspace_id = ?2 AND reservation_key = (
                 SELECT reservation_key FROM access_grant WHERE access_grant_id = ?1 AND workspace_id = ?2)
               AND NOT EXISTS (SELECT 1 FROM access_grant g WHERE g.workspace_id = ?2
                 AND g.reservation_key = r.reservation_key AND g.access_grant_id <> ?1)",
            params![own, self.workspace],
        )?;
        // Before the grant, for what is kept of methods that are gone to know whose they were.
        self.db.execute(
            "DELETE FROM access_method WHERE access_grant_id = ?1 AND workspace_id = ?2",
            params![own, self.workspace],
        )?;
        self.db.execute(
            "DELETE FROM access_grant WHERE access_grant_id = ?1 AND workspace_id = ?2",
            params![own, self.workspace],
        )?;
        Ok(())
    }

    /// A deleted grant is gone with its last method.
    pub(in crate::cloud::store) fn sweep(&self, grant: AccessGrantId) -> Result<(), StoreError> {
        self.db.execute(
            "DELETE FROM access_grant WHERE access_grant_id = ?1 AND workspace_id = ?2 AND deleted_at IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM access_method m WHERE m.access_grant_id = access_grant.access_grant_id)",
            params![grant.to_string(), self.workspace],
        )?;
        Ok(())
    }

    pub(in crate::cloud::store) fn pending_job(
        &self,
        method: AccessMethodId,
    ) -> Result<Option<(ActionAttemptId, JobId)>, StoreError> {
        self.db.one(
            "SELECT action_attempt_id, job_id FROM action_attempt
             WHERE access_method_id = ?1 AND workspace_id = ?2 AND status = 'pending'",
            params![method.to_string(), self.workspace],
            |row| Ok((id(row, "action_attempt_id")?, id(row, "job_id")?)),
        )
    }
}

impl Db {
    /// Removes what was deleted and whose cards open no longer; says when the next will be.
    pub(in crate::cloud::store) fn sweep_ended_cards(
        &mut self,
        now: Timestamp,
    ) -> Result<(bool, Option<Timestamp>), StoreError> {
        let ended = self.all(
            &format!(
                "SELECT workspace_id, access_grant_id, access_method_id FROM ({GOING})
                 CROSS JOIN (SELECT access_method_id, opens_until FROM card_state) c USING(access_method_id)
                 WHERE c.opens_until <= ?1
                   AND NOT EXISTS (SELECT 1 FROM action_attempt a
                                   WHERE a.access_method_id = c.access_method_id AND a.status = 'pending')"
            ),
            [ms(now)],
            |row| Ok((id(row, "workspace_id")?, id(row, "access_grant_id")?, id(row, "access_method_id")?)),
        )?;
        let changed = !ended.is_empty();
        for (workspace, grant, method) in ended {
            let tenant = self.tenant(workspace);
            tenant.remove_method(method)?;
            tenant.sweep(grant)?;
        }
        let next = self.one(
            &format!(
                "SELECT min(opens_until) AS next FROM ({GOING})
                 CROSS JOIN (SELECT access_method_id, opens_until FROM card_state) USING(access_method_id)
                 WHERE opens_until > ?1"
            ),
            [ms(now)],
            |row| maybe_time(row, "next"),
        )?;
        Ok((changed, next.flatten()))
    }
}

/// Methods that are being deleted, alone or with their grant; each half by an index, in this order of tables. One may be
/// in both.
const GOING: &str = "
    SELECT m.workspace_id, m.access_grant_id, m.access_method_id FROM access_grant g
    CROSS JOIN access_method m USING(access_grant_id) WHERE g.deleted_at IS NOT NULL
    UNION ALL
    SELECT m.workspace_id, m.access_grant_id, m.access_method_id FROM method_end
    CROSS JOIN access_method m USING(access_method_id)";
