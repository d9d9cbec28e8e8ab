//! What is forgotten, and when.
//!
//! Nothing here decides about access: what may still open a door, and doubts that nobody has settled, stay until somebody
//! asks for their end. What goes is the record of what is over, for as long as the operator says.

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

use crate::store::StoreError;

use super::{Db, rows::ms, trust::PAIRINGS_KEPT};

/// How long an order is kept after its job's end: long enough to look at, and to know a late repetition. It carries
/// the guest's name, so not longer.
const ORDERS_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Rows of one kind that go at once: some milliseconds, so that nobody at a desk waits behind them.
const SLICE: u32 = 500;

impl Db {
    /// Forgets some of what is long over. Says whether more may be left; then it wants to be called again.
    ///
    /// # Errors
    /// Those of the database.
    pub fn forget(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let before = |kept: SignedDuration| ms(now.saturating_sub(kept).unwrap_or(Timestamp::MIN));
        let (events, attempts) = (before(self.retention.events), before(self.retention.attempts));
        let more = self.forget_codes(now)? | self.forget_grants(now)?;
        // Orders before check-outs, attempts before cards: the later ones go when nothing speaks of them any more.
        let forgotten = [
            self.forget_deliveries(now, events, SLICE)?,
            self.execute(
                "DELETE FROM event WHERE n IN (
                   SELECT n FROM workspace CROSS JOIN event USING(workspace_id)
                   WHERE occurred_at < ?1 AND NOT EXISTS (SELECT 1 FROM webhook_delivery d WHERE d.event_n = n)
                   LIMIT ?2)",
                params![events, SLICE],
            )?,
            // What a resumption could still ask for leaves no gap.
            self.execute(
                "DELETE FROM bridge_order WHERE id IN (
                   SELECT bridge_order.id FROM bridge_order JOIN bridge ON bridge.id = bridge_id
                   WHERE over_at < ?1 AND (position IS NULL OR position <= orders_acknowledged) LIMIT ?2)",
                params![before(ORDERS_KEPT), SLICE],
            )?,
            self.execute(
                "DELETE FROM ordered_checkout WHERE rowid IN (
                   SELECT o.rowid FROM ordered_checkout o
                   WHERE revision > 0
                     AND NOT EXISTS (SELECT 1 FROM bridge_order b WHERE b.job_id = o.job_id)
                     AND NOT EXISTS (SELECT 1 FROM access_grant g WHERE g.workspace_id = o.workspace_id
                                       AND g.reservation_key = o.reservation_key AND g.deleted_at IS NOT NULL)
                   LIMIT ?1)",
                [SLICE],
            )?,
            self.execute(
                "DELETE FROM stay_end WHERE rowid IN (SELECT rowid FROM stay_end WHERE ends_at < ?1 LIMIT ?2)",
                params![attempts, SLICE],
            )?,
            self.execute(
                "DELETE FROM job_end WHERE rowid IN (SELECT rowid FROM job_end WHERE taken_at < ?1 LIMIT ?2)",
                params![before(ORDERS_KEPT), SLICE],
            )?,
            self.execute(
                "DELETE FROM pairing WHERE rowid IN (SELECT rowid FROM pairing WHERE expires_at < ?1 LIMIT ?2)",
                params![before(PAIRINGS_KEPT), SLICE],
            )?,
            self.forget_door_events(events, SLICE)?,
            self.forget_ordered_slots(before(ORDERS_KEPT), SLICE)?,
            self.forget_ordered_chips(before(ORDERS_KEPT), SLICE)?,
            self.forget_unlocks(attempts, SLICE)?,
            self.forget_attempts(now, attempts)?,
            self.forget_scans(attempts)?,
            self.forget_local_jobs(now, attempts, SLICE)?,
            self.execute(
                "DELETE FROM acs_credential WHERE rowid IN (
                   SELECT c.rowid FROM acs_credential c
                   WHERE issued_at < ?1
                     AND NOT EXISTS (SELECT 1 FROM access_method m WHERE m.access_method_id = c.access_method_id)
                     AND NOT EXISTS (SELECT 1 FROM action_attempt a
                                     WHERE a.acs_credential_id = c.acs_credential_id)
                   LIMIT ?2)",
                params![attempts, SLICE],
            )?,
        ];
        Ok(more || forgotten.contains(&(SLICE as usize)))
    }

    /// An attempt goes with what its job was ordered for, unless its card is still in doubt: then what settles the
    /// doubt must find its way to the method, however late it comes. What wrote a card that may still open is kept as well:
    /// it says which doors that card opens.
    fn forget_attempts(&self, now: Timestamp, ended_before: i64) -> Result<usize, StoreError> {
        let jobs = self.all(
            "DELETE FROM action_attempt WHERE rowid IN (
               SELECT a.rowid FROM action_attempt a
               WHERE ended_at < ?1
                 AND NOT EXISTS (SELECT 1 FROM card_state c
                                 WHERE c.access_method_id = a.access_method_id
                                   AND (c.in_doubt = 1
                                        OR ((a.status = 'success' OR a.error_type = 'encoding_interrupted')
                                            AND c.may_exist = 1
                                            AND (c.opens_until IS NULL OR c.opens_until > ?3))))
               LIMIT ?2)
             RETURNING job_id",
            params![ended_before, SLICE, ms(now)],
            |row| row.get::<_, String>("job_id"),
        )?;
        for job in &jobs {
            self.execute("DELETE FROM ordered_card WHERE job_id = ?1", [job])?;
        }
        Ok(jobs.len())
    }
}
