//! Cards that were written and are not what they were: a later card has thrown them out of a room, or was written over them.

use jiff::Timestamp;
use rusqlite::params;

use crate::{
    grants::Event,
    model::{AccessGrantId, AccessMethodId, AcsEntranceId, JobId, ReservationKey},
    store::StoreError,
};

use super::{
    Method, Tenant,
    rows::{id, id_list, ms, parsed},
};

impl Tenant<'_> {
    /// The card of a method is not valid any more: told once, until it is written again. One of a method that goes, or has
    /// gone, is deleted and not invalid. Says whether that is new.
    pub(super) fn invalidate_card(
        &mut self,
        now: Timestamp,
        method: AccessMethodId,
    ) -> Result<bool, StoreError> {
        let is_new = self.db.execute(
            "INSERT OR IGNORE INTO invalid_card
             SELECT c.access_method_id, c.workspace_id, ?3
             FROM acs_credential c JOIN access_method m USING(access_method_id) JOIN access_grant g USING(access_grant_id)
             WHERE c.access_method_id = ?1 AND c.workspace_id = ?2 AND g.deleted_at IS NULL
               AND NOT EXISTS (SELECT 1 FROM method_end t WHERE t.access_method_id = c.access_method_id)",
            params![method.to_string(), self.workspace, ms(now)],
        )?;
        if is_new > 0 {
            self.tell_of_card(now, "acs_credential.invalidated", method)?;
        }
        Ok(is_new > 0)
    }

    /// A card that was written is not in use any more: its method asks to be encoded again.
    pub(super) fn ask_to_encode_again(
        &mut self,
        now: Timestamp,
        method: AccessMethodId,
        grant: AccessGrantId,
    ) -> Result<(), StoreError> {
        self.db.execute(
            "UPDATE card_state SET is_issued = 0 WHERE access_method_id = ?1",
            [method.to_string()],
        )?;
        let told = ["access_method.revoked", "access_method.card_encoding_required"];
        self.tell(now, &told.map(|kind| Event::method(kind, method, grant)))
    }

    /// The card of a method was written again.
    pub(super) fn card_is_valid(&self, method: AccessMethodId) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM invalid_card WHERE access_method_id = ?1", [method.to_string()])?;
        Ok(())
    }

    /// A piece of plastic was written for a method: whose card of the same system it was before has none any more.
    pub(super) fn card_written_over(
        &mut self,
        now: Timestamp,
        method: &Method,
        serial: &str,
    ) -> Result<(), StoreError> {
        let (system, method) = (method.system, method.id);
        let index = self.db.seal.blind_index("card_serial", &format!("{system}/{serial}"));
        let before = self.db.all(
            "DELETE FROM card_serial WHERE serial = ?1 AND access_method_id <> ?2 RETURNING access_method_id",
            params![index, method.to_string()],
            |row| id::<AccessMethodId>(row, "access_method_id"),
        )?;
        self.db.execute(
            "INSERT OR REPLACE INTO card_serial
             SELECT m.access_method_id, m.workspace_id, ?3
             FROM access_method m JOIN access_grant g USING(access_grant_id) JOIN user_identity i USING(user_identity_id)
             WHERE m.access_method_id = ?1 AND m.workspace_id = ?2 AND i.erased_at IS NULL",
            params![method.to_string(), self.workspace, index],
        )?;
        for of in before {
            // Another stay may have made it invalid in one of its rooms before.
            self.invalidate_card(now, of)?;
            if let Some(Method { grant, is_issued: true, deleted: None, .. }) = self.method(of)? {
                self.ask_to_encode_again(now, of, grant)?;
            }
        }
        Ok(())
    }

    /// A card of a method was written, and nobody knows on which piece of plastic: not on that which it had before, unless a
    /// later card of the method was.
    pub(super) fn forget_serial(&self, method: AccessMethodId, job: JobId) -> Result<(), StoreError> {
        self.db.execute(
            "DELETE FROM card_serial
             WHERE access_method_id = ?1 AND workspace_id = ?2
               AND NOT EXISTS (SELECT 1 FROM ordered_card v
                               WHERE v.access_method_id = ?1 AND v.ended = 'written'
                                 AND v.rowid > (SELECT o.rowid FROM ordered_card o WHERE o.job_id = ?3))",
            params![method.to_string(), self.workspace, job.to_string()],
        )?;
        Ok(())
    }

    /// Other stays that have one of these rooms, and grants that are not over.
    pub(super) fn other_stays_of(
        &self,
        now: Timestamp,
        key: &ReservationKey,
        doors: &[AcsEntranceId],
    ) -> Result<Vec<ReservationKey>, StoreError> {
        self.db.all(
            "SELECT DISTINCT r.reservation_key FROM json_each(?3) d
             JOIN reservation_entrance r ON r.acs_entrance_id = d.value
             JOIN access_grant g USING(workspace_id, reservation_key)
             WHERE r.workspace_id = ?1 AND r.reservation_key <> ?2 AND g.deleted_at IS NULL
               AND (g.ends_at IS NULL OR g.ends_at > ?4)
             ORDER BY r.reservation_key",
            params![self.workspace, key.as_str(), id_list(Some(doors)), ms(now)],
            |row| parsed(row, "reservation_key"),
        )
    }
}
