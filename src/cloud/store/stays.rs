//! Stays as their lock systems know them: until when they are, and which of their cards a newer one has thrown out.
//!
//! An offline lock learns only from cards. What is kept here is what can be known from afar: the end that a lock system
//! was told, the cards that are deleted and still open, and those that open until a later card of their stay is used.

use jiff::Timestamp;
use rusqlite::params;

use crate::{
    grants::{CardEnd, CardFate, StayEnd, Targets, card_end, plan_stay_ends},
    model::{
        AccessGrantId, AccessMethodId, AcsEntranceId, AcsSystemId, BridgeId, Code, DoorKind, JobId, JobState,
        Outcome, Report, ReservationKey,
    },
    store::StoreError,
};

use super::{
    Cancel, Db, Fault, Grant, Tenant,
    grants::window,
    rows::{id, id_list, maybe_time, ms, parsed, time},
};

/// A card that was deleted and may still open.
#[derive(Debug, Clone)]
pub(crate) struct DeletedCard {
    pub(crate) grant: AccessGrantId,
    pub(crate) deleted_at: Timestamp,
    pub(crate) card: CardFate,
    /// The doors that it was written for, by their names.
    pub(crate) doors: Vec<String>,
    /// A later card of the stay has thrown it out of the rooms among them: it opens those until that card is used there.
    pub(crate) is_overridden: bool,
    system: AcsSystemId,
    rooms: Vec<AcsEntranceId>,
}

/// A room whose lock system was not told until when its stay is.
#[derive(Debug)]
pub(crate) struct StayEndTrouble {
    /// The room, by its name.
    pub(crate) room: String,
    pub(crate) ends_at: Timestamp,
    pub(crate) since: Timestamp,
    /// Why not, by name; none where it may have been told.
    pub(crate) refused: Option<String>,
}

/// A card that was written for a room before another one was.
struct EarlierCard {
    method: AccessMethodId,
    grant: AccessGrantId,
    is_in_use: bool,
}

/// Of a row `w` of `ordered_card`: its card was written, or may have been, for the cloud or at a desk.
pub(super) const WAS_WRITTEN: &str = "(
    EXISTS (SELECT 1 FROM action_attempt a
            WHERE a.job_id = w.job_id AND (a.status = 'success' OR a.error_type = 'encoding_interrupted'))
    OR EXISTS (SELECT 1 FROM local_job j WHERE j.job_id = w.job_id AND j.state IN ('succeeded', 'unknown')))";

impl Tenant<'_> {
    /// Tells lock systems until when a stay is, where that changed and it holds rooms there that it has not left.
    pub(super) fn follow_stay_end(&mut self, now: Timestamp, key: &ReservationKey) -> Result<(), StoreError> {
        let windows = self.db.all(
            "SELECT starts_at, ends_at FROM access_grant
             WHERE workspace_id = ?1 AND reservation_key = ?2 AND deleted_at IS NULL ORDER BY rowid",
            params![self.workspace, key.as_str()],
            window,
        )?;
        let rooms = self.db.all(
            "SELECT e.acs_entrance_id FROM door_ledger l
             JOIN acs_system s ON s.bridge_id = l.bridge_id AND s.name = l.system
             JOIN acs_entrance e ON e.acs_system_id = s.acs_system_id AND e.name = l.room
             JOIN reservation_entrance r ON r.workspace_id = l.workspace_id
               AND r.reservation_key = l.reservation_key AND r.acs_entrance_id = e.acs_entrance_id
             WHERE l.workspace_id = ?1 AND l.reservation_key = ?2 AND l.certain = 1 AND l.cards > 0
               AND e.removed_at IS NULL
             ORDER BY e.rowid",
            params![self.workspace, key.as_str()],
            |row| id::<AcsEntranceId>(row, "acs_entrance_id"),
        )?;
        let told = self.db.all(
            "SELECT acs_entrance_id, ends_at FROM stay_end
             WHERE workspace_id = ?1 AND reservation_key = ?2 AND (state IS NULL OR state = 'succeeded')",
            params![self.workspace, key.as_str()],
            |row| Ok((id::<AcsEntranceId>(row, "acs_entrance_id")?, time(row, "ends_at")?)),
        )?;
        let holds = match self.targets(&rooms) {
            Ok(holds) => holds,
            Err(Fault::Store(error)) => return Err(error),
            Err(Fault::Refused(_)) => return Ok(()),
        };
        let random = self.db.random.clone();
        for end in plan_stay_ends(key, &windows, &holds, &told, now, &random) {
            self.order_stay_end(now, key, &end)?;
        }
        Ok(())
    }

    /// Whether a lock system was told, or is to be told, until when a stay is.
    pub(super) fn has_told_an_end(&self, key: &ReservationKey) -> Result<bool, StoreError> {
        let told = self.db.one(
            "SELECT 1 FROM stay_end WHERE workspace_id = ?1 AND reservation_key = ?2",
            params![self.workspace, key.as_str()],
            |_| Ok(()),
        )?;
        Ok(told.is_some())
    }

    /// A card was written until an end that its grant no longer has: when that was moved, nobody could know that the stay
    /// would hold its room.
    pub(super) fn catch_up_with_stay_end(
        &mut self,
        now: Timestamp,
        method: AccessMethodId,
        written_until: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let moved = self.db.one(
            "SELECT g.reservation_key FROM access_method m JOIN access_grant g USING(access_grant_id)
             WHERE m.access_method_id = ?1 AND m.workspace_id = ?2 AND g.deleted_at IS NULL AND g.ends_at IS NOT ?3
               AND g.reservation_key IS NOT NULL",
            params![method.to_string(), self.workspace, written_until.map(ms)],
            |row| parsed::<ReservationKey>(row, "reservation_key"),
        )?;
        match moved {
            Some(key) => self.follow_stay_end(now, &key),
            None => Ok(()),
        }
    }

    fn order_stay_end(
        &mut self,
        now: Timestamp,
        key: &ReservationKey,
        end: &StayEnd,
    ) -> Result<(), StoreError> {
        let Some(bridge) = self.bridge_of(end.system)? else { return Ok(()) };
        let earlier = self.db.one(
            "SELECT job_id, state IS NULL AS is_under_way, was_told FROM stay_end
             WHERE workspace_id = ?1 AND reservation_key = ?2 AND acs_entrance_id = ?3",
            params![self.workspace, key.as_str(), end.room.to_string()],
            |row| Ok((id::<JobId>(row, "job_id")?, row.get("is_under_way")?, row.get("was_told")?)),
        )?;
        let was_told = match earlier {
            Some((earlier, true, was_told)) => {
                self.db.enqueue_cancel(now, bridge, earlier)? != Cancel::Withdrawn || was_told
            }
            Some((_, false, was_told)) => was_told,
            None => false,
        };
        self.db.execute(
            "INSERT OR REPLACE INTO stay_end(workspace_id, reservation_key, acs_entrance_id, bridge_id, job_id, ends_at,
                                             ordered_at, was_told)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                self.workspace,
                key.as_str(),
                end.room.to_string(),
                bridge.to_string(),
                end.job.job_id.to_string(),
                ms(end.ends_at),
                ms(now),
                was_told
            ],
        )?;
        // Also while a report is taken in, where nobody else tells the bridge.
        self.db.has_ordered = true;
        self.db.enqueue_job(now, bridge, &end.job)
    }

    /// The last grant of a stay goes: its lock systems are told of no end any more. What they were told, or may have been,
    /// is kept: the stay may go on with another grant.
    pub(super) fn forget_stay_ends(
        &mut self,
        now: Timestamp,
        key: &ReservationKey,
    ) -> Result<(), StoreError> {
        let of_stay = params![self.workspace, key.as_str()];
        let waiting = self.db.all(
            "SELECT job_id, bridge_id FROM stay_end
             WHERE workspace_id = ?1 AND reservation_key = ?2 AND state IS NULL",
            of_stay,
            |row| Ok((id::<JobId>(row, "job_id")?, id::<BridgeId>(row, "bridge_id")?)),
        )?;
        for (job, bridge) in waiting {
            // What is being taken back is an end that nobody may count on.
            let (state, may_be_told) = match self.db.enqueue_cancel(now, bridge, job)? {
                Cancel::Withdrawn => (JobState::Cancelled, false),
                Cancel::Ordered | Cancel::TooLate => (JobState::Unknown, true),
            };
            self.db.execute(
                "UPDATE stay_end SET state = ?2, was_told = was_told OR ?3 WHERE job_id = ?1",
                params![job.to_string(), state.as_str(), may_be_told],
            )?;
        }
        self.db.execute(
            "DELETE FROM stay_end WHERE workspace_id = ?1 AND reservation_key = ?2 AND was_told = 0",
            of_stay,
        )?;
        Ok(())
    }

    /// A grant comes to a stay whose end lock systems were told: it may end at another time now.
    pub(super) fn goes_on_with_another_grant(
        &mut self,
        now: Timestamp,
        key: &ReservationKey,
    ) -> Result<(), StoreError> {
        self.keep_rooms(now, key)?;
        match self.has_told_an_end(key)? {
            true => self.follow_stay_end(now, key),
            false => Ok(()),
        }
    }

    /// Rooms of a stay whose lock systems were not told its end, or perhaps were not.
    pub(super) fn stay_end_troubles(&self, key: &ReservationKey) -> Result<Vec<StayEndTrouble>, StoreError> {
        self.db.all(
            "SELECT coalesce(e.display_name, e.name) AS shown, x.ends_at, x.ordered_at, x.state, x.code
             FROM stay_end x JOIN acs_entrance e USING(acs_entrance_id)
             WHERE x.workspace_id = ?1 AND x.reservation_key = ?2 AND x.state <> 'succeeded' ORDER BY x.rowid",
            params![self.workspace, key.as_str()],
            |row| {
                let state: String = row.get("state")?;
                let code: Option<String> = row.get("code")?;
                let may_be_told = state == JobState::Unknown.as_str();
                Ok(StayEndTrouble {
                    room: row.get("shown")?,
                    ends_at: time(row, "ends_at")?,
                    since: time(row, "ordered_at")?,
                    refused: if may_be_told { None } else { Some(code.unwrap_or(state)) },
                })
            },
        )
    }

    /// The cards of a stay that were deleted, alone or with their grant, and may have been written.
    pub(super) fn deleted_cards(&self, key: &ReservationKey) -> Result<Vec<DeletedCard>, StoreError> {
        let cards = self.db.all(
            "SELECT m.access_method_id, m.access_grant_id, m.acs_system_id,
                    coalesce(g.deleted_at, t.deleted_at) AS deleted_at, c.opens_until,
                    o.access_method_id IS NOT NULL AS is_overridden
             FROM access_grant g JOIN access_method m USING(access_grant_id) JOIN card_state c USING(access_method_id)
             LEFT JOIN method_end t USING(access_method_id) LEFT JOIN overridden_card o USING(access_method_id)
             WHERE g.workspace_id = ?1 AND g.reservation_key = ?2 AND m.mode = 'card' AND c.may_exist = 1
               AND (g.deleted_at IS NOT NULL OR t.deleted_at IS NOT NULL)
             ORDER BY m.rowid",
            params![self.workspace, key.as_str()],
            |row| {
                let card = DeletedCard {
                    grant: id(row, "access_grant_id")?,
                    deleted_at: time(row, "deleted_at")?,
                    card: CardFate::MayExist { opens_until: maybe_time(row, "opens_until")? },
                    doors: Vec::new(),
                    is_overridden: row.get("is_overridden")?,
                    system: id(row, "acs_system_id")?,
                    rooms: Vec::new(),
                };
                Ok((id::<AccessMethodId>(row, "access_method_id")?, card))
            },
        )?;
        let with_doors = |(method, mut card): (AccessMethodId, DeletedCard)| {
            for (door, shown, kind) in self.doors_on_card(method)? {
                card.doors.push(shown);
                card.rooms.extend((kind == DoorKind::Room).then_some(door));
            }
            Ok(card)
        };
        cards.into_iter().map(with_doors).collect()
    }

    /// The doors that the last card of a method was written for, or may have been.
    fn doors_on_card(
        &self,
        method: AccessMethodId,
    ) -> Result<Vec<(AcsEntranceId, String, DoorKind)>, StoreError> {
        self.db.all(
            &format!(
                "SELECT e.acs_entrance_id, coalesce(e.display_name, e.name) AS shown, e.kind
             FROM ordered_card o JOIN json_each(o.acs_entrance_ids) d JOIN acs_entrance e ON e.acs_entrance_id = d.value
             WHERE o.rowid = (SELECT max(w.rowid) FROM ordered_card w WHERE w.access_method_id = ?1 AND {WAS_WRITTEN})
             ORDER BY d.key"
            ),
            [method.to_string()],
            |row| Ok((id(row, "acs_entrance_id")?, row.get("shown")?, super::sites::kind(row, "kind")?)),
        )
    }

    /// Whether a card that is ordered now follows one of its stay that was deleted, and still opens one of its rooms.
    pub(super) fn follows_a_deleted_card(
        &self,
        now: Timestamp,
        grant: &Grant,
        system: AcsSystemId,
        targets: &Targets,
    ) -> Result<bool, StoreError> {
        let opens_room_of = |card: &DeletedCard| {
            card.system == system
                && !card.is_overridden
                && card.card.may_open(now)
                && targets.rooms().any(|room| card.rooms.contains(&room.id))
        };
        if !grant.deleted_cards.iter().any(opens_room_of) {
            return Ok(false);
        }
        // One card that begins the stay anew is enough, also while nobody knows what becomes of it.
        let is_on_its_way = self.db.one(
            "SELECT 1 FROM access_grant g JOIN access_method m USING(access_grant_id)
             JOIN ordered_card w USING(access_method_id) JOIN action_attempt a USING(job_id)
             WHERE g.workspace_id = ?1 AND g.reservation_key = ?2 AND m.acs_system_id = ?3
               AND w.begin_again = 1 AND a.status = 'pending'",
            params![
                self.workspace,
                grant.reservation_key.as_ref().map(ReservationKey::as_str),
                system.to_string()
            ],
            |_| Ok(()),
        )?;
        Ok(is_on_its_way.is_none())
    }

    pub(super) fn stay_of(&self, grant: AccessGrantId) -> Result<Option<ReservationKey>, StoreError> {
        self.db.one(
            "SELECT reservation_key FROM access_grant
             WHERE access_grant_id = ?1 AND workspace_id = ?2 AND reservation_key IS NOT NULL",
            params![grant.to_string(), self.workspace],
            |row| parsed(row, "reservation_key"),
        )
    }

    /// A report says that a card has begun its stay, anew or at last, in those of these doors that are rooms. Cards that
    /// were written for one of them before open it only until the new one is used there: they are invalid, and the stay's own
    /// ask to be encoded again.
    pub(super) fn stay_begun_anew(
        &mut self,
        now: Timestamp,
        report: &Report,
        by: Option<AccessMethodId>,
        system: AcsSystemId,
        key: &ReservationKey,
        doors: &[AcsEntranceId],
    ) -> Result<(), StoreError> {
        for other in self.other_stays_of(now, key, doors)? {
            for card in self.cards_before(report, by, system, &other, doors)? {
                self.invalidate_card(now, card.method)?;
            }
        }
        for EarlierCard { method, grant, is_in_use } in self.cards_before(report, by, system, key, doors)? {
            self.invalidate_card(now, method)?;
            self.db.execute(
                "INSERT OR REPLACE INTO overridden_card VALUES(?1, ?2, ?3)",
                params![method.to_string(), self.workspace, ms(now)],
            )?;
            if is_in_use {
                self.ask_to_encode_again(now, method, grant)?;
            }
        }
        Ok(())
    }

    /// The cards of a stay that were written, or may have been, for one of these rooms before the card of a report.
    fn cards_before(
        &self,
        report: &Report,
        by: Option<AccessMethodId>,
        system: AcsSystemId,
        key: &ReservationKey,
        doors: &[AcsEntranceId],
    ) -> Result<Vec<EarlierCard>, StoreError> {
        // Ends are reported in their order. A doubt may be settled long after newer cards were written: it is of no
        // concern to those that were ordered after its job.
        let is_late = report.revision > 1;
        let made_at = report.local.as_ref().map(|local| ms(local.created_at)).filter(|_| is_late);
        let ordered_as = (is_late && made_at.is_none()).then(|| report.job_id.to_string());
        self.db.all(
            &format!(
                "SELECT m.access_method_id, m.access_grant_id,
                    c.is_issued AND g.deleted_at IS NULL AND t.deleted_at IS NULL AS is_in_use
             FROM access_grant g JOIN access_method m USING(access_grant_id) JOIN card_state c USING(access_method_id)
             LEFT JOIN method_end t USING(access_method_id)
             JOIN ordered_card o ON o.rowid =
               (SELECT max(w.rowid) FROM ordered_card w
                WHERE w.access_method_id = m.access_method_id AND {WAS_WRITTEN})
             WHERE g.workspace_id = ?1 AND g.reservation_key = ?2 AND m.acs_system_id = ?3 AND m.mode = 'card'
               AND c.may_exist = 1 AND m.access_method_id IS NOT ?4
               AND EXISTS (SELECT 1 FROM json_each(o.acs_entrance_ids) d
                           JOIN acs_entrance e ON e.acs_entrance_id = d.value
                           WHERE e.kind = 'room' AND d.value IN (SELECT value FROM json_each(?5)))
               AND (?6 IS NULL OR o.rowid < (SELECT l.rowid FROM ordered_card l WHERE l.job_id = ?6))
               AND (?7 IS NULL
                    OR EXISTS (SELECT 1 FROM action_attempt a WHERE a.job_id = o.job_id AND a.created_at < ?7)
                    OR EXISTS (SELECT 1 FROM local_job j WHERE j.job_id = o.job_id AND j.created_at < ?7))
             ORDER BY m.rowid"
            ),
            params![
                self.workspace,
                key.as_str(),
                system.to_string(),
                by.map(|method| method.to_string()),
                id_list(Some(doors)),
                ordered_as,
                made_at
            ],
            |row| {
                Ok(EarlierCard {
                    method: id(row, "access_method_id")?,
                    grant: id(row, "access_grant_id")?,
                    is_in_use: row.get("is_in_use")?,
                })
            },
        )
    }

    /// The same where the card was made at the site: its report says which rooms follow which stay by now.
    pub(super) fn stay_begun_at_site(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        report: &Report,
    ) -> Result<(), StoreError> {
        let Outcome::Succeeded(success) = &report.outcome else { return Ok(()) };
        if success.card.as_ref().is_none_or(|card| card.overrode != Some(true)) {
            return Ok(());
        }
        for room in &report.rooms {
            let found = self.db.one(
                "SELECT e.acs_entrance_id, e.acs_system_id FROM acs_system s JOIN acs_entrance e USING(acs_system_id)
                 WHERE s.workspace_id = ?1 AND s.bridge_id = ?2 AND s.name = ?3 AND e.name = ?4",
                params![
                    self.workspace,
                    bridge.to_string(),
                    room.system.as_str(),
                    room.room.as_str()
                ],
                |row| {
                    Ok((id::<AcsEntranceId>(row, "acs_entrance_id")?, id::<AcsSystemId>(row, "acs_system_id")?))
                },
            )?;
            if let (Some((door, system)), Some(key)) = (found, &room.reservation_key) {
                self.stay_begun_anew(now, report, None, system, key, &[door])?;
            }
        }
        Ok(())
    }

    pub(super) fn is_overridden(&self, method: AccessMethodId) -> Result<bool, StoreError> {
        let found = self.db.one(
            "SELECT 1 FROM overridden_card WHERE access_method_id = ?1",
            [method.to_string()],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// A card was written anew, or may have been.
    pub(super) fn forget_overridden(&self, method: AccessMethodId) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM overridden_card WHERE access_method_id = ?1", [method.to_string()])?;
        Ok(())
    }
}

impl Db {
    /// Takes in whether a lock system was told until when a stay is.
    pub(super) fn stay_end_reported(&mut self, bridge: BridgeId, report: &Report) -> Result<(), StoreError> {
        let state = match card_end(report) {
            CardEnd::Written { .. } => JobState::Succeeded,
            CardEnd::InDoubt => JobState::Unknown,
            CardEnd::NotWritten => JobState::Failed,
        };
        let code: Option<Code> = report.outcome.reason().map(|why| why.code);
        self.execute(
            "UPDATE stay_end SET revision = ?3, state = ?4, code = ?5, was_told = was_told OR ?6
             WHERE job_id = ?1 AND bridge_id = ?2 AND revision < ?3",
            params![
                report.job_id.to_string(),
                bridge.to_string(),
                report.revision,
                state.as_str(),
                code.map(Code::as_str),
                state != JobState::Failed
            ],
        )?;
        Ok(())
    }

    /// The bridge has forgotten that it was to tell it.
    pub(super) fn stay_end_lost(&self, bridge: BridgeId, job: JobId) -> Result<(), StoreError> {
        self.execute(
            "UPDATE stay_end SET state = ?3, was_told = 1 WHERE job_id = ?1 AND bridge_id = ?2 AND revision = 0",
            params![job.to_string(), bridge.to_string(), JobState::Unknown.as_str()],
        )?;
        Ok(())
    }
}
