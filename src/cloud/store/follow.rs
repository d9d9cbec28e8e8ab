//! Grants follow their spaces and their sites.
//!
//! Whoever changes a space notes, in the same transaction, which live grants name it and where they led before. Some of
//! them follow at once, and the others by the clock, a few at a time: nobody at a desk waits behind a whole house, and a
//! crash on the way is made good afterwards. A grant that is changed or deleted has followed before.

use jiff::Timestamp;
use rusqlite::{Params, Row, params};

use crate::{
    grants::{
        Event, FollowFacts, GrantProblem, HeldMethod, Request, Subject, TargetDoor, Targets, plan_checkouts,
        plan_follow,
    },
    model::{
        AccessGrantId, AccessMethodId, AcsEntranceId, AcsSystemId, ReservationKey, SpaceId, Window,
        WorkspaceId,
    },
    store::StoreError,
};

use super::{
    Db, Fault, Grant, GrantName, Method, Tenant,
    codes::PUT_OFF,
    grants::DOORS_OF_GRANT,
    rows::{id, id_list, json, maybe_id, maybe_time, ms, parsed},
    sites, split,
};

/// How many grants follow in one go: some tens of milliseconds.
pub(super) const AT_ONCE: u32 = 32;

impl Db {
    /// Lets some of the grants follow that have to. Says whether there were any, and when the next one's time comes.
    pub(super) fn run_due_grants(&mut self, now: Timestamp) -> Result<(bool, Option<Timestamp>), StoreError> {
        let due = self.all(
            "SELECT access_grant_id, workspace_id FROM grant_due WHERE due_at <= ?1 ORDER BY due_at, rowid LIMIT ?2",
            params![ms(now), AT_ONCE],
            |row| Ok((id::<AccessGrantId>(row, "access_grant_id")?, id::<WorkspaceId>(row, "workspace_id")?)),
        )?;
        for (grant, workspace) in &due {
            self.follow_apart(now, *workspace, *grant)?;
        }
        let next =
            self.one("SELECT min(due_at) AS next FROM grant_due WHERE due_at IS NOT NULL", [], |row| {
                maybe_time(row, "next")
            })?;
        Ok((!due.is_empty(), next.flatten()))
    }

    /// A grant that cannot be read is put off, and keeps nobody else waiting.
    fn follow_apart(
        &mut self,
        now: Timestamp,
        workspace: WorkspaceId,
        grant: AccessGrantId,
    ) -> Result<(), StoreError> {
        let followed = self.apart(|db| {
            let followed = split(db.tenant(workspace).follow(now, grant))?;
            followed.map_err(|refused| StoreError::corrupt("access_grant", refused))
        })?;
        if let Err(error) = followed {
            tracing::error!(
                %grant,
                error = error.chain(),
                "a grant cannot follow where it leads, and is put off"
            );
            self.execute(
                "UPDATE grant_due SET due_at = ?2 WHERE access_grant_id = ?1",
                params![grant.to_string(), ms(now.saturating_add(PUT_OFF).unwrap_or(now))],
            )?;
        }
        Ok(())
    }
}

impl Tenant<'_> {
    /// The members of a space are about to change: its live grants have to follow. What is over follows nothing; should it
    /// begin anew, it finds the members of then.
    pub(super) fn space_is_changing(&self, now: Timestamp, space: SpaceId) -> Result<(), StoreError> {
        self.grants_are_due(
            now,
            "SELECT access_grant_id FROM grant_space WHERE space_id = ?3",
            &space.to_string(),
        )
    }

    /// A system has what it had not, or can what it could not: the live grants that lead to it have to follow.
    pub(super) fn system_has_changed(&self, now: Timestamp, system: AcsSystemId) -> Result<(), StoreError> {
        self.grants_are_due(
            now,
            "SELECT access_grant_id FROM acs_entrance JOIN grant_entrance USING(acs_entrance_id)
             WHERE acs_system_id = ?3
             UNION SELECT access_grant_id FROM acs_entrance JOIN space_entrance USING(acs_entrance_id)
             JOIN grant_space USING(space_id) WHERE acs_system_id = ?3
             UNION SELECT access_grant_id FROM device JOIN grant_device USING(device_id) WHERE acs_system_id = ?3
             UNION SELECT access_grant_id FROM device JOIN space_device USING(device_id)
             JOIN grant_space USING(space_id) WHERE acs_system_id = ?3",
            &system.to_string(),
        )
    }

    /// `which` asks for the grants, by a value that is `?3` there.
    fn grants_are_due(&self, now: Timestamp, which: &str, value: &str) -> Result<(), StoreError> {
        let doors = DOORS_OF_GRANT.replace("?1", "g.access_grant_id");
        self.db.execute(
            &format!(
                "INSERT INTO grant_due
                 SELECT g.access_grant_id, g.workspace_id, ?2,
                   (SELECT json_group_array(acs_entrance_id) FROM (
                      SELECT acs_entrance_id FROM ({doors}) ORDER BY part, place, member))
                 FROM ({which}) n CROSS JOIN access_grant g USING(access_grant_id)
                 WHERE g.workspace_id = ?1 AND g.deleted_at IS NULL AND (g.ends_at IS NULL OR g.ends_at > ?2)
                 ON CONFLICT(access_grant_id) DO UPDATE SET due_at = excluded.due_at"
            ),
            params![self.workspace, ms(now), value],
        )?;
        Ok(())
    }

    /// Lets the first grants of a space follow at once.
    pub(super) fn follow_space(&mut self, now: Timestamp, space: SpaceId) -> Result<(), StoreError> {
        self.follow_those(
            now,
            "SELECT access_grant_id FROM grant_space CROSS JOIN grant_due USING(access_grant_id)
             WHERE space_id = ?1 AND due_at IS NOT NULL ORDER BY grant_due.rowid LIMIT ?2",
            params![space.to_string(), AT_ONCE],
        )
    }

    /// Lets all grants of a stay follow, so that it is in the rooms that it is said to be in.
    pub(super) fn follow_stay(&mut self, now: Timestamp, key: &ReservationKey) -> Result<(), StoreError> {
        let workspace = self.workspace.clone();
        self.follow_those(
            now,
            "SELECT access_grant_id FROM access_grant g CROSS JOIN grant_due USING(access_grant_id)
             WHERE g.workspace_id = ?1 AND reservation_key = ?2 AND due_at IS NOT NULL ORDER BY g.rowid",
            params![workspace, key.as_str()],
        )
    }

    fn follow_those(&mut self, now: Timestamp, which: &str, values: impl Params) -> Result<(), StoreError> {
        let due = self.db.all(which, values, |row| id::<AccessGrantId>(row, "access_grant_id"))?;
        due.into_iter().try_for_each(|grant| self.db.follow_apart(now, self.id, grant))
    }

    /// Brings a grant to where it leads now, if it has still to follow. Says whether it had.
    pub(super) fn follow(&mut self, now: Timestamp, grant: AccessGrantId) -> Result<bool, Fault> {
        let is_due = self.db.one(
            "SELECT 1 FROM grant_due WHERE access_grant_id = ?1 AND workspace_id = ?2 AND due_at IS NOT NULL",
            params![grant.to_string(), self.workspace],
            |_| Ok(()),
        )?;
        if is_due.is_none() {
            return Ok(false);
        }
        let before = self.doors_before(grant)?;
        self.follow_devices(now, grant)?;
        let known = self.grant(&GrantName::Id(grant))?;
        match known.filter(|known| known.deleted_at.is_none() && !known.window.is_over(now)) {
            Some(known) => {
                let targets = self.targets_of(grant)?;
                self.follow_methods(now, &known, known.window, &before, &targets)?;
                if !self.cards_wait(grant)? {
                    self.move_rooms(now, &known, &before, &targets)?;
                }
            }
            // Nobody writes a card for what is over.
            None => self.has_followed(grant)?,
        }
        Ok(true)
    }

    /// Whether the cards of a grant are still for the doors where it led before: so long its stay stays in its rooms.
    fn cards_wait(&self, grant: AccessGrantId) -> Result<bool, StoreError> {
        let waits = self.db.one(
            "SELECT 1 FROM grant_due WHERE access_grant_id = ?1 AND workspace_id = ?2",
            params![grant.to_string(), self.workspace],
            |_| Ok(()),
        )?;
        Ok(waits.is_some())
    }

    fn has_followed(&self, grant: AccessGrantId) -> Result<(), StoreError> {
        self.db.execute("DELETE FROM grant_due WHERE access_grant_id = ?1", [grant.to_string()])?;
        Ok(())
    }

    /// The doors that a grant's cards were made for, whether their sites have them or not.
    pub(super) fn doors_before(&self, grant: AccessGrantId) -> Result<Vec<TargetDoor>, StoreError> {
        let noted = self.db.one(
            "SELECT doors FROM grant_due WHERE access_grant_id = ?1 AND workspace_id = ?2",
            params![grant.to_string(), self.workspace],
            |row| json::<Vec<AcsEntranceId>>(row, "doors"),
        )?;
        let Some(noted) = noted else { return self.named_doors(grant) };
        let doors = self.db.all(
            "SELECT e.* FROM json_each(?1) i CROSS JOIN acs_entrance e ON e.acs_entrance_id = i.value
             WHERE e.workspace_id = ?2 ORDER BY i.key",
            params![id_list(Some(&noted)), self.workspace],
            door,
        )?;
        Ok(each_once(doors))
    }

    /// The doors that a grant names, alone or with its spaces, whether their sites have them or not.
    pub(super) fn named_doors(&self, grant: AccessGrantId) -> Result<Vec<TargetDoor>, StoreError> {
        let doors = self.db.all(
            &format!(
                "SELECT e.* FROM ({DOORS_OF_GRANT}) JOIN acs_entrance e USING(acs_entrance_id)
                 WHERE e.workspace_id = ?2 ORDER BY part, place, member"
            ),
            params![grant.to_string(), self.workspace],
            door,
        )?;
        Ok(each_once(doors))
    }

    /// The stay comes into the rooms that its grant leads to, and leaves those that none of its grants leads to any more.
    fn move_rooms(
        &mut self,
        now: Timestamp,
        grant: &Grant,
        before: &[TargetDoor],
        targets: &Targets,
    ) -> Result<(), Fault> {
        let Some(key) = &grant.reservation_key else { return Ok(()) };
        let after = self.named_doors(grant.id)?;
        let has = |doors: &[TargetDoor], room: AcsEntranceId| doors.iter().any(|door| door.id == room);
        let mut left = Vec::new();
        for room in self.reservation_rooms(key)? {
            if has(before, room) && !has(&after, room) && !self.stay_leads_to(key, room)? {
                left.push(room);
            }
        }
        for room in &left {
            self.db.execute(
                "DELETE FROM reservation_entrance
                 WHERE workspace_id = ?1 AND reservation_key = ?2 AND acs_entrance_id = ?3",
                params![self.workspace, key.as_str(), room.to_string()],
            )?;
        }
        let rooms: Vec<_> = targets.rooms().map(|room| room.id).collect();
        self.write_stay_rooms(key, &rooms)?;
        self.leave_rooms(now, key, &left)
    }

    pub(super) fn write_stay_rooms(
        &self,
        key: &ReservationKey,
        rooms: &[AcsEntranceId],
    ) -> Result<(), StoreError> {
        for room in rooms {
            self.db.execute(
                "INSERT OR IGNORE INTO reservation_entrance VALUES(?1, ?2, ?3)",
                params![self.workspace, key.as_str(), room.to_string()],
            )?;
        }
        Ok(())
    }

    /// Whether a live grant of a stay leads to a room.
    fn stay_leads_to(&self, key: &ReservationKey, room: AcsEntranceId) -> Result<bool, StoreError> {
        let found = self.db.one(
            "SELECT 1 FROM access_grant g
             WHERE g.workspace_id = ?1 AND g.reservation_key = ?2 AND g.deleted_at IS NULL
               AND (EXISTS (SELECT 1 FROM grant_entrance o
                            WHERE o.access_grant_id = g.access_grant_id AND o.acs_entrance_id = ?3)
                    OR EXISTS (SELECT 1 FROM grant_space o JOIN space_entrance s USING(space_id)
                               WHERE o.access_grant_id = g.access_grant_id AND s.acs_entrance_id = ?3))
             LIMIT 1",
            params![self.workspace, key.as_str(), room.to_string()],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// A stay has left rooms altogether: they are freed where it may have left cards, and where the site allows it. One
    /// that it has come back to is not freed any more.
    pub(super) fn leave_rooms(
        &mut self,
        now: Timestamp,
        key: &ReservationKey,
        left: &[AcsEntranceId],
    ) -> Result<(), Fault> {
        self.keep_rooms(now, key)?;
        if left.is_empty() {
            return Ok(());
        }
        let systems = self.systems_with_cards(now, key)?;
        let left = self.still_there(left)?;
        let random = self.db.random.clone();
        for checkout in plan_checkouts(key, &left, &systems, now, &random) {
            self.order_checkout(now, &checkout, Some(key))?;
        }
        Ok(())
    }

    /// Where cards of a stay still open, or are being written. A job that no bridge has heard of counts too: it stands
    /// before whatever is ordered now, and may still be made.
    fn systems_with_cards(
        &self,
        now: Timestamp,
        key: &ReservationKey,
    ) -> Result<Vec<AcsSystemId>, StoreError> {
        self.db.all(
            "SELECT DISTINCT m.acs_system_id FROM access_grant g JOIN access_method m USING(access_grant_id)
             LEFT JOIN card_state c ON c.access_method_id = m.access_method_id
             WHERE g.workspace_id = ?1 AND g.reservation_key = ?2 AND m.mode = 'card'
               AND ((c.may_exist = 1 AND (c.opens_until IS NULL OR c.opens_until > ?3))
                    OR EXISTS (SELECT 1 FROM action_attempt a
                               WHERE a.access_method_id = m.access_method_id AND a.status = 'pending'))",
            params![self.workspace, key.as_str(), ms(now)],
            |row| id(row, "acs_system_id"),
        )
    }

    /// Brings the cards and keys of a grant, as it was read, to what it says now, and notes what is wrong with it.
    pub(super) fn follow_methods(
        &mut self,
        now: Timestamp,
        grant: &Grant,
        window: Window,
        before: &[TargetDoor],
        targets: &Targets,
    ) -> Result<(), Fault> {
        let devices = self.devices_of_grant(grant.id)?;
        let live = grant.methods.iter().filter(|method| method.deleted.is_none());
        // Codes, and cards that devices know by number, have a book of their own.
        let methods: Vec<_> = live.filter(|method| method.code.is_none()).map(held).collect();
        let facts = FollowFacts {
            grant: grant.id,
            window_before: grant.window,
            window,
            reservation_key: grant.reservation_key.as_ref(),
            before,
            after: &self.named_doors(grant.id)?,
            targets,
            means: &self.means(&devices)?,
            requests: &self.wishes(grant)?,
            methods: &methods,
            had_problem: grant.errors.iter().any(|(code, ..)| code == GrantProblem::CANNOT_CREATE),
        };
        let random = self.db.random.clone();
        let plan = plan_follow(&facts, now, &random);
        for card in &plan.gone {
            self.take_back_method(now, *card)?;
        }
        for card in &plan.outdated {
            self.db.execute(
                "UPDATE card_state SET is_issued = 0 WHERE access_method_id = ?1",
                [card.to_string()],
            )?;
            self.note_written_for(now, *card, grant.window)?;
        }
        self.write_methods(now, grant.id, &plan.new)?;
        self.tell_lost_doors(now, grant.id, facts.after)?;
        self.tell(now, &plan.events)?;
        self.keep_keys(now, grant.id, grant.user_identity, &plan.new)?;
        self.write_problem(now, grant.id, plan.problem)?;
        match plan.cards_wait {
            true => {
                self.db.execute(
                    "UPDATE grant_due SET due_at = NULL WHERE access_grant_id = ?1",
                    [grant.id.to_string()],
                )?;
            }
            false => self.has_followed(grant.id)?,
        }
        Ok(())
    }

    /// Tells of the doors that opened for a grant and that it leads to no more.
    fn tell_lost_doors(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        doors: &[TargetDoor],
    ) -> Result<(), StoreError> {
        let opened = self.db.all(
            "SELECT acs_entrance_id FROM opened_entrance WHERE access_grant_id = ?1 ORDER BY rowid",
            [grant.to_string()],
            |row| id::<AcsEntranceId>(row, "acs_entrance_id"),
        )?;
        for lost in opened.into_iter().filter(|opened| doors.iter().all(|door| door.id != *opened)) {
            self.db.execute(
                "DELETE FROM opened_entrance WHERE access_grant_id = ?1 AND acs_entrance_id = ?2",
                params![grant.to_string(), lost.to_string()],
            )?;
            let kind = "access_grant.access_to_door_lost";
            self.tell(now, &[Event::new(kind, Subject::GrantAtDoor(grant, lost))])?;
        }
        Ok(())
    }

    /// What is wrong with a grant, and nothing else.
    fn write_problem(
        &self,
        now: Timestamp,
        grant: AccessGrantId,
        problem: Option<GrantProblem>,
    ) -> Result<(), StoreError> {
        match problem {
            Some(problem) => self.write_problems(now, grant, &[problem]),
            None => {
                self.db.execute(
                    "DELETE FROM grant_error WHERE access_grant_id = ?1 AND code = ?2",
                    [grant.to_string().as_str(), GrantProblem::CANNOT_CREATE],
                )?;
                Ok(())
            }
        }
    }

    /// A card is out there that was written for a window which its grant no longer has, or for other doors.
    pub(super) fn note_written_for(
        &self,
        now: Timestamp,
        card: AccessMethodId,
        window: Window,
    ) -> Result<(), StoreError> {
        self.db.execute(
            "INSERT INTO card_update VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            params![
                card.to_string(),
                self.workspace,
                ms(window.starts_at()),
                window.ends_at().map(ms),
                ms(now)
            ],
        )?;
        Ok(())
    }

    /// What a grant asks for, and what of it was taken back by name.
    pub(super) fn wishes(&self, grant: &Grant) -> Result<Vec<Request>, StoreError> {
        let declined = self.db.all(
            "SELECT place, acs_system_id FROM declined_method WHERE access_grant_id = ?1",
            [grant.id.to_string()],
            |row| Ok((row.get::<_, u32>("place")?, maybe_id::<AcsSystemId>(row, "acs_system_id")?)),
        )?;
        let request = |(place, mode)| {
            let of_place =
                || declined.iter().filter(move |(own, _)| *own == place).map(|(_, system)| *system);
            Request {
                place,
                mode,
                is_declined: of_place().any(|system| system.is_none()),
                declined: of_place().flatten().collect(),
            }
        };
        Ok((0_u32..).zip(grant.requested.iter().map(|(mode, ..)| *mode)).map(request).collect())
    }

    /// A card or a key is taken back by name: nobody who does that wants the next change of the grant to make another one.
    pub(super) fn decline(&self, now: Timestamp, method: &Method) -> Result<(), StoreError> {
        let has_others = self.db.one(
            "SELECT 1 FROM access_method m
             WHERE m.access_grant_id = ?1 AND m.place = ?2 AND m.access_method_id <> ?3
               AND NOT EXISTS (SELECT 1 FROM method_end e WHERE e.access_method_id = m.access_method_id)",
            params![method.grant.to_string(), method.place, method.id.to_string()],
            |_| Ok(()),
        )?;
        self.db.execute(
            "INSERT INTO declined_method VALUES(?1, ?2, ?3, ?4)",
            params![
                method.grant.to_string(),
                self.workspace,
                method.place,
                has_others.map(|()| method.system.to_string())
            ],
        )?;
        // What it lacked it may lack no more.
        self.grants_are_due(
            now,
            "SELECT access_grant_id FROM grant_error WHERE access_grant_id = ?3",
            &method.grant.to_string(),
        )
    }
}

fn held(method: &Method) -> HeldMethod {
    let Method { id, place, mode, system, is_issued, .. } = *method;
    HeldMethod { id, place, mode, system, is_issued }
}

fn door(row: &Row<'_>) -> rusqlite::Result<TargetDoor> {
    Ok(TargetDoor {
        id: id(row, "acs_entrance_id")?,
        system: id(row, "acs_system_id")?,
        name: parsed(row, "name")?,
        kind: sites::kind(row, "kind")?,
    })
}

fn each_once(doors: Vec<TargetDoor>) -> Vec<TargetDoor> {
    let mut seen = std::collections::BTreeSet::new();
    doors.into_iter().filter(|door| seen.insert(door.id)).collect()
}
