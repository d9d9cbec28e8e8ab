//! Ordering cards to be written, and rooms to be freed.

use jiff::Timestamp;
use rusqlite::params;

use crate::{
    grants::{Checkout, Encode, EncodeFacts, Mode, Refused, Resource, plan_encode},
    model::{
        AccessMethodId, AcsEncoderId, AcsSystemId, BridgeId, EncoderName, JobId, Order, Private,
        ReservationKey,
    },
    store::StoreError,
};

use super::{
    Attempt, Cancel, Fault, Tenant,
    grants::target_system,
    rows::{id, id_list, ms, parsed},
    split,
};

impl Tenant<'_> {
    /// Orders a card to be written. The attempt may be one that is under way already; then nothing new was ordered.
    pub(crate) fn encode(
        &mut self,
        now: Timestamp,
        method: AccessMethodId,
        encoder: AcsEncoderId,
    ) -> Result<Result<Attempt, Refused>, StoreError> {
        split(self.try_encode(now, method, encoder))
    }

    fn try_encode(
        &mut self,
        now: Timestamp,
        wanted: AccessMethodId,
        encoder: AcsEncoderId,
    ) -> Result<Attempt, Fault> {
        let method =
            self.method(wanted)?.ok_or_else(|| Refused::not_found(Resource::AccessMethod, wanted))?;
        if method.mode == Mode::Card && method.code.is_some() {
            let attempt = self.enrol(now, &method, encoder)?;
            let attempt = self.attempt(attempt)?;
            return Ok(
                attempt.ok_or_else(|| StoreError::corrupt("action_attempt", "gone while it was made"))?
            );
        }
        let at = self
            .db
            .one(
                "SELECT name, acs_system_id FROM acs_encoder
                 WHERE acs_encoder_id = ?1 AND workspace_id = ?2 AND removed_at IS NULL",
                params![encoder.to_string(), self.workspace],
                |row| Ok((parsed::<EncoderName>(row, "name")?, id::<AcsSystemId>(row, "acs_system_id")?)),
            )?
            .ok_or_else(|| Refused::not_found(Resource::AcsEncoder, encoder))?;
        let (encoder_name, encoder_system) = at;
        let grant = self
            .grant(&super::GrantName::Id(method.grant))?
            .ok_or_else(|| Refused::not_found(Resource::AccessMethod, wanted))?;
        let (system, bridge) = self
            .db
            .one(
                "SELECT * FROM acs_system WHERE acs_system_id = ?1 AND workspace_id = ?2",
                params![method.system.to_string(), self.workspace],
                |row| Ok((target_system(row)?, id::<BridgeId>(row, "bridge_id")?)),
            )?
            .ok_or_else(|| Refused::not_found(Resource::AcsSystem, method.system))?;
        let targets = self.targets_of(grant.id)?;
        let pending = self.db.one(
            "SELECT action_attempt_id, acs_encoder_id FROM action_attempt
             WHERE access_method_id = ?1 AND workspace_id = ?2 AND status = 'pending'",
            params![wanted.to_string(), self.workspace],
            |row| Ok((id(row, "action_attempt_id")?, id(row, "acs_encoder_id")?)),
        )?;
        let guest_name = self
            .identity(grant.user_identity)?
            .and_then(|identity| identity.person.full_name)
            .map(Private::new);
        let facts = EncodeFacts {
            method: method.id,
            mode: method.mode,
            system: &system,
            targets: &targets,
            lost_room: self.lost_room(grant.id, method.system)?,
            reservation_key: grant.reservation_key.as_ref(),
            window: grant.window,
            deleted: grant.deleted_at.is_some(),
            is_issued: method.is_issued,
            in_doubt: method.in_doubt,
            after_deleted_card: self.follows_a_deleted_card(now, &grant, method.system, &targets)?,
            pending,
            guest_name,
            encoder,
            encoder_name: &encoder_name,
            encoder_system,
        };
        let attempt = match plan_encode(facts, now, &self.db.random)? {
            Encode::Same(attempt) => attempt,
            Encode::New { attempt, job, doors, unsent_at, silent_at } => {
                let begin_again = matches!(&job.order, Order::CardEncode(card) if card.begin_again);
                self.db.execute(
                    "INSERT INTO action_attempt VALUES(?1, ?2, ?3, ?4, ?5, 'pending', NULL, NULL, NULL, ?6, ?7, ?8, NULL, NULL)",
                    params![
                        attempt.to_string(),
                        self.workspace,
                        wanted.to_string(),
                        encoder.to_string(),
                        job.job_id.to_string(),
                        ms(now),
                        ms(unsent_at),
                        ms(silent_at)
                    ],
                )?;
                self.db.execute(
                    "INSERT INTO ordered_card(job_id, workspace_id, bridge_id, access_method_id, acs_entrance_ids,
                                              starts_at, ends_at, begin_again)
                     VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        job.job_id.to_string(),
                        self.workspace,
                        bridge.to_string(),
                        wanted.to_string(),
                        id_list(Some(&doors)),
                        ms(grant.window.starts_at()),
                        grant.window.ends_at().map(ms),
                        begin_again
                    ],
                )?;
                self.db.enqueue_job(now, bridge, &job)?;
                attempt
            }
        };
        let attempt = self.attempt(attempt)?;
        Ok(attempt.ok_or_else(|| StoreError::corrupt("action_attempt", "gone while it was made"))?)
    }

    pub(super) fn order_checkout(
        &mut self,
        now: Timestamp,
        checkout: &Checkout,
        key: Option<&ReservationKey>,
    ) -> Result<(), StoreError> {
        let Some(bridge) = self.bridge_of(checkout.system)? else { return Ok(()) };
        // What became of an earlier check-out of this stay says nothing any more.
        self.db.execute(
            "DELETE FROM ordered_checkout
             WHERE workspace_id = ?1 AND reservation_key = ?2 AND acs_entrance_id = ?3",
            params![self.workspace, key.map(ReservationKey::as_str), checkout.room.to_string()],
        )?;
        self.db.execute(
            "INSERT INTO ordered_checkout(job_id, workspace_id, bridge_id, acs_system_id, acs_entrance_id,
                                          reservation_key)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                checkout.job.job_id.to_string(),
                self.workspace,
                bridge.to_string(),
                checkout.system.to_string(),
                checkout.room.to_string(),
                key.map(ReservationKey::as_str)
            ],
        )?;
        self.db.enqueue_job(now, bridge, &checkout.job)
    }

    pub(super) fn bridge_of(&self, system: AcsSystemId) -> Result<Option<BridgeId>, StoreError> {
        self.db.one(
            "SELECT bridge_id FROM acs_system WHERE acs_system_id = ?1 AND workspace_id = ?2",
            params![system.to_string(), self.workspace],
            |row| id(row, "bridge_id"),
        )
    }

    /// A stay that lives again must not lose its rooms to the check-out that its former last grant ordered.
    pub(super) fn keep_rooms(&mut self, now: Timestamp, key: &ReservationKey) -> Result<(), StoreError> {
        let ordered = self.db.all(
            "SELECT job_id, bridge_id FROM ordered_checkout
             WHERE workspace_id = ?1 AND reservation_key = ?2 AND revision = 0 AND acs_entrance_id IN
               (SELECT acs_entrance_id FROM reservation_entrance WHERE workspace_id = ?1 AND reservation_key = ?2)",
            params![self.workspace, key.as_str()],
            |row| Ok((id::<JobId>(row, "job_id")?, id::<BridgeId>(row, "bridge_id")?)),
        )?;
        for (job, bridge) in ordered {
            match self.db.enqueue_cancel(now, bridge, job)? {
                Cancel::Withdrawn => {
                    self.db.execute("DELETE FROM ordered_checkout WHERE job_id = ?1", [job.to_string()])?;
                }
                Cancel::Ordered | Cancel::TooLate => {}
            }
        }
        Ok(())
    }

    /// Takes a card job back, if nothing was sent yet.
    pub(super) fn cancel(&mut self, now: Timestamp, job: JobId) -> Result<(), StoreError> {
        let bridge = self.db.one(
            "SELECT bridge_id FROM ordered_card WHERE job_id = ?1 AND workspace_id = ?2
             UNION ALL SELECT bridge_id FROM ordered_chip WHERE job_id = ?1 AND workspace_id = ?2",
            params![job.to_string(), self.workspace],
            |row| id::<BridgeId>(row, "bridge_id"),
        )?;
        let Some(bridge) = bridge else { return Ok(()) };
        match self.db.enqueue_cancel(now, bridge, job)? {
            // The bridge never heard of it, so nobody else will say how it ended.
            Cancel::Withdrawn => self.db.job_withdrawn(now, bridge, job),
            Cancel::Ordered | Cancel::TooLate => Ok(()),
        }
    }
}
