//! Changes of grants that are there, and lists of them.

use jiff::Timestamp;
use rusqlite::params;
use serde_json::json;

use crate::{
    grants::{
        Event, Mode, MoreMethods, Refused, ReservationFacts, Resource, Targets, UpdateFacts, Updated,
        plan_checkouts, plan_more_methods, plan_update,
    },
    model::{AccessGrantId, AccessMethodId, AcsEntranceId, AcsSystemId, DeviceId, SpaceId, Window},
    store::StoreError,
};

use super::{
    Fault, Grant, GrantChange, GrantFilter, GrantName, Listed, Method, MethodFilter, Page, Requested, Tenant,
    question::Question,
    rows::{id, id_list, ms},
    split,
};

impl Tenant<'_> {
    /// Changes times, name or doors of a grant.
    pub(crate) fn update_grant(
        &mut self,
        now: Timestamp,
        name: &GrantName,
        change: &GrantChange,
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_update_grant(now, name, change))
    }

    fn try_update_grant(
        &mut self,
        now: Timestamp,
        name: &GrantName,
        change: &GrantChange,
    ) -> Result<(), Fault> {
        let grant = self.live_grant(name)?;
        let spaces = match &change.spaces {
            Some(spaces) => none_twice(spaces),
            None => grant.spaces.clone(),
        };
        let own_doors = match &change.entrances {
            Some(doors) => none_twice(doors),
            None => self.own_doors(grant.id)?,
        };
        let own_devices = match &change.devices {
            Some(devices) => self.known_devices(devices)?,
            None => self.own_devices(grant.id)?,
        };
        let (mut doors, mut devices) = (Vec::new(), own_devices.clone());
        for space in &spaces {
            let members =
                self.doors_of_space(*space)?.ok_or_else(|| Refused::not_found(Resource::Space, space))?;
            doors.extend(members);
            devices.extend(self.devices_of_space(*space)?);
        }
        // A door that was named by the call must be there; one of before may have gone meanwhile.
        let named = if change.entrances.is_some() { own_doors.clone() } else { Vec::new() };
        self.targets(&named)?;
        let here = self.doors_still_there(&own_doors)?;
        let targets = self.targets(&[here, doors].concat())?;
        let others = self.others_of_stay(&grant)?;
        let modes: Vec<_> = grant.requested.iter().map(|(mode, ..)| *mode).collect();
        let facts = UpdateFacts {
            window: grant.window,
            reservation_key: grant.reservation_key.as_ref(),
            others: &others,
            targets: &targets,
            has_devices: !devices.is_empty(),
            modes: &modes,
        };
        let updated = plan_update(&facts, change.starts_at, change.ends_at, now)?;

        let before = self.targets_of(grant.id)?;
        let rooms_before = match &grant.reservation_key {
            Some(key) => self.reservation_rooms(key)?,
            None => Vec::new(),
        };
        self.write_change(&grant, change, &updated)?;
        self.leave_rooms(now, &grant, &updated, rooms_before)?;
        if change.entrances.is_some() || change.devices.is_some() || change.spaces.is_some() {
            self.write_targets(&grant, &own_doors, &own_devices, &spaces)?;
        }
        if updated.window != grant.window {
            let more = json!({
                "starts_at": crate::cloud::time_text(updated.window.starts_at()),
                "ends_at": updated.window.ends_at().map(crate::cloud::time_text),
            });
            self.tell_more(now, &Event::grant("access_grant.access_times_changed", grant.id), more)?;
        }
        self.update_cards(now, &grant, &updated, &before, &targets)?;
        if updated.window != grant.window {
            self.update_keys(now, &grant)?;
            if let Some(key) = &grant.reservation_key {
                self.follow_stay_end(now, key)?;
            }
        }
        if grant.requested.iter().any(|(mode, ..)| *mode == Mode::Code) {
            self.with_book(now, grant.id, |book, at| {
                let devices = book.grants.get(&grant.id).map(|own| own.devices.clone()).unwrap_or_default();
                // `with_book` has loaded the new window: what is in the devices is of the old one.
                if let Some(own) = book.grants.get_mut(&grant.id) {
                    own.window = grant.window;
                }
                book.retime(at, grant.id, updated.window);
                book.retarget(at, grant.id, devices);
            })?;
        }
        Ok(())
    }

    fn live_grant(&mut self, name: &GrantName) -> Result<Grant, Fault> {
        let shown = match name {
            GrantName::Id(id) => id.to_string(),
            GrantName::Key(key) => key.clone(),
        };
        let grant = self.grant(name)?.filter(|grant| grant.deleted_at.is_none());
        Ok(grant.ok_or_else(|| Refused::not_found(Resource::AccessGrant, shown))?)
    }

    fn own_doors(&self, grant: AccessGrantId) -> Result<Vec<AcsEntranceId>, StoreError> {
        self.db.all(
            "SELECT acs_entrance_id FROM grant_entrance WHERE access_grant_id = ?1 ORDER BY place",
            [grant.to_string()],
            |row| id(row, "acs_entrance_id"),
        )
    }

    fn own_devices(&self, grant: AccessGrantId) -> Result<Vec<DeviceId>, StoreError> {
        self.db.all(
            "SELECT device_id FROM grant_device WHERE access_grant_id = ?1 ORDER BY place",
            [grant.to_string()],
            |row| id(row, "device_id"),
        )
    }

    fn doors_still_there(&self, doors: &[AcsEntranceId]) -> Result<Vec<AcsEntranceId>, StoreError> {
        let here = self.db.all(
            "SELECT acs_entrance_id FROM acs_entrance
             WHERE workspace_id = ?1 AND removed_at IS NULL AND acs_entrance_id IN (SELECT value FROM json_each(?2))",
            params![self.workspace, id_list(Some(doors))],
            |row| id::<AcsEntranceId>(row, "acs_entrance_id"),
        )?;
        Ok(doors.iter().copied().filter(|door| here.contains(door)).collect())
    }

    fn others_of_stay(&self, grant: &Grant) -> Result<ReservationFacts, StoreError> {
        let Some(key) = &grant.reservation_key else { return Ok(ReservationFacts::default()) };
        Ok(ReservationFacts {
            rooms: self.reservation_rooms(key)?,
            windows: self.db.all(
                "SELECT starts_at, ends_at FROM access_grant
                 WHERE workspace_id = ?1 AND reservation_key = ?2 AND deleted_at IS NULL AND access_grant_id <> ?3
                 ORDER BY rowid",
                params![self.workspace, key.as_str(), grant.id.to_string()],
                super::grants::window,
            )?,
        })
    }

    fn write_change(&self, grant: &Grant, change: &GrantChange, updated: &Updated) -> Result<(), StoreError> {
        let own = grant.id.to_string();
        self.db.execute(
            "UPDATE access_grant SET starts_at = ?2, ends_at = ?3 WHERE access_grant_id = ?1",
            params![own, ms(updated.window.starts_at()), updated.window.ends_at().map(ms)],
        )?;
        if let Some(name) = &change.name {
            let place = format!("access_grant.name/{own}");
            let sealed = name.as_ref().map(|name| self.db.seal.seal(&place, name.expose().as_bytes()));
            self.db.execute(
                "UPDATE access_grant SET name = ?2 WHERE access_grant_id = ?1",
                params![own, sealed],
            )?;
        }
        if let (Some(key), Some(rooms)) = (&grant.reservation_key, &updated.reservation_rooms) {
            self.db.execute(
                "DELETE FROM reservation_entrance WHERE workspace_id = ?1 AND reservation_key = ?2",
                params![self.workspace, key.as_str()],
            )?;
            for room in rooms {
                self.db.execute(
                    "INSERT OR IGNORE INTO reservation_entrance VALUES(?1, ?2, ?3)",
                    params![self.workspace, key.as_str(), room.to_string()],
                )?;
            }
        }
        Ok(())
    }

    fn write_targets(
        &self,
        grant: &Grant,
        doors: &[AcsEntranceId],
        devices: &[DeviceId],
        spaces: &[SpaceId],
    ) -> Result<(), StoreError> {
        let own = grant.id.to_string();
        let lists: [(&str, Vec<String>); 3] = [
            ("grant_entrance", doors.iter().map(ToString::to_string).collect()),
            ("grant_device", devices.iter().map(ToString::to_string).collect()),
            ("grant_space", spaces.iter().map(ToString::to_string).collect()),
        ];
        for (table, members) in lists {
            self.db.execute(&format!("DELETE FROM {table} WHERE access_grant_id = ?1"), [&own])?;
            for (place, member) in (0_i64..).zip(members) {
                self.db.execute(
                    &format!("INSERT INTO {table} VALUES(?1, ?2, ?3, ?4)"),
                    params![self.workspace, own, place, member],
                )?;
            }
        }
        Ok(())
    }

    /// Where a grant alone decides about the rooms of its stay, the stay leaves those that it leads to no more: there
    /// it was the stay's last grant.
    fn leave_rooms(
        &mut self,
        now: Timestamp,
        grant: &Grant,
        updated: &Updated,
        rooms_before: Vec<AcsEntranceId>,
    ) -> Result<(), Fault> {
        let (Some(key), Some(rooms)) = (&grant.reservation_key, &updated.reservation_rooms) else {
            return Ok(());
        };
        let mut left = rooms_before;
        left.retain(|room| !rooms.contains(room));
        // A room that it comes back to is not freed any more.
        self.keep_rooms(now, key)?;
        if left.is_empty() {
            return Ok(());
        }
        let mut systems = self.earlier_cards(now, key)?;
        for card in grant.methods.iter().filter(|method| method.mode == Mode::Card) {
            if card.card.may_open(now) || self.is_being_written(card.id)? {
                systems.push(card.system);
            }
        }
        let left = self.still_there(&left)?;
        let random = self.db.random.clone();
        for checkout in plan_checkouts(key, &left, &systems, now, &random) {
            self.order_checkout(now, &checkout, Some(key))?;
        }
        Ok(())
    }

    /// Whether a job of a method has not ended. One that no bridge has heard of counts too: it stands before whatever is
    /// ordered now, and may still be made.
    fn is_being_written(&self, method: AccessMethodId) -> Result<bool, StoreError> {
        Ok(self.pending_job(method)?.is_some())
    }

    /// Cards cannot be told from afar: one whose times or doors changed asks to be written again.
    pub(super) fn update_cards(
        &mut self,
        now: Timestamp,
        grant: &Grant,
        updated: &Updated,
        before: &Targets,
        after: &Targets,
    ) -> Result<(), Fault> {
        let doors = |targets: &Targets, system: AcsSystemId| -> Vec<_> {
            targets.doors_of(system).iter().map(|door| door.id).collect()
        };
        let cards: Vec<_> = grant
            .methods
            .iter()
            .filter(|method| method.mode == Mode::Card && method.deleted.is_none())
            .collect();
        for card in &cards {
            let (was, is) = (doors(before, card.system), doors(after, card.system));
            if is.is_empty() && !was.is_empty() {
                self.try_delete_method(now, card.id)?;
                continue;
            }
            if updated.window == grant.window && was == is {
                continue;
            }
            if !card.is_issued {
                continue;
            }
            self.db.execute(
                "UPDATE card_state SET is_issued = 0 WHERE access_method_id = ?1",
                [card.id.to_string()],
            )?;
            self.note_written_for(now, card, grant.window)?;
            self.tell(
                now,
                &[
                    Event::method("access_method.revoked", card.id, grant.id),
                    Event::method("access_method.card_encoding_required", card.id, grant.id),
                ],
            )?;
        }
        let new: Vec<_> = after
            .systems
            .iter()
            .filter(|system| !cards.iter().any(|card| card.system == system.id))
            .cloned()
            .collect();
        let asked = (0_u32..).zip(&grant.requested).filter(|(_, (mode, ..))| *mode == Mode::Card);
        for (place, _) in asked {
            let only = Targets { systems: new.clone(), doors: after.doors.clone() };
            let key = grant.reservation_key.as_ref();
            let random = self.db.random.clone();
            let more = plan_more_methods(
                grant.id,
                &updated.window,
                key,
                place,
                if new.is_empty() { &[] } else { &[Mode::Card] },
                &only,
                &crate::grants::Means::default(),
                now,
                &random,
            )?;
            self.write_methods(now, grant.id, &more.methods)?;
            self.tell(now, &more.events)?;
        }
        Ok(())
    }

    /// A card is out there that was written for a window which its grant no longer has.
    pub(super) fn note_written_for(
        &self,
        now: Timestamp,
        card: &Method,
        window: Window,
    ) -> Result<(), StoreError> {
        self.db.execute(
            "INSERT INTO card_update VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            params![
                card.id.to_string(),
                self.workspace,
                ms(window.starts_at()),
                window.ends_at().map(ms),
                ms(now)
            ],
        )?;
        Ok(())
    }

    /// Keys that nothing is written for follow at once.
    fn update_keys(&mut self, now: Timestamp, grant: &Grant) -> Result<(), StoreError> {
        let keys = grant.methods.iter().filter(|method| {
            matches!(method.mode, Mode::MobileKey | Mode::CloudKey)
                && method.is_issued
                && method.deleted.is_none()
        });
        for key in keys {
            self.tell(
                now,
                &[
                    Event::method("access_method.revoked", key.id, grant.id),
                    Event::method("access_method.reissued", key.id, grant.id),
                ],
            )?;
        }
        Ok(())
    }

    /// Asks for more means of a grant that is there.
    pub(crate) fn request_methods(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        requested: &[Requested],
    ) -> Result<Result<Grant, Refused>, StoreError> {
        split(self.try_request_methods(now, grant, requested))
    }

    /// Asks for one more means, which must come about at once: else nothing is asked for.
    pub(crate) fn create_method(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        requested: &[Requested],
    ) -> Result<Result<Method, Refused>, StoreError> {
        self.db.connection.execute_batch("SAVEPOINT create_method")?;
        let made = split(self.try_create_method(now, grant, requested))?;
        self.db.connection.execute_batch(match made {
            Ok(_) => "RELEASE create_method",
            Err(_) => "ROLLBACK TO create_method; RELEASE create_method",
        })?;
        Ok(made)
    }

    fn try_create_method(
        &mut self,
        now: Timestamp,
        wanted: AccessGrantId,
        requested: &[Requested],
    ) -> Result<Method, Fault> {
        let grant = self.try_request_methods(now, wanted, requested)?;
        let place = u32::try_from(grant.requested.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let made = grant.methods.into_iter().find(|method| method.place == place);
        let why = || {
            let modes: Vec<_> = requested.iter().map(|requested| requested.mode.as_str()).collect();
            format!("No targeted door supports: {}", modes.join(", "))
        };
        Ok(made.ok_or_else(|| Refused::CannotCreate { why: why() })?)
    }

    fn try_request_methods(
        &mut self,
        now: Timestamp,
        wanted: AccessGrantId,
        requested: &[Requested],
    ) -> Result<Grant, Fault> {
        let grant = self.live_grant(&GrantName::Id(wanted))?;
        if grant.window.is_over(now) {
            return Err(Refused::EndsInPast.into());
        }
        let targets = self.targets_of(grant.id)?;
        let means = self.means(&grant.devices)?;
        let modes: Vec<_> = requested.iter().map(|requested| requested.mode).collect();
        let first_place = u32::try_from(grant.requested.len()).unwrap_or(u32::MAX);
        let random = self.db.random.clone();
        let key = grant.reservation_key.as_ref();
        let MoreMethods { methods, problems, events } = plan_more_methods(
            grant.id,
            &grant.window,
            key,
            first_place,
            &modes,
            &targets,
            &means,
            now,
            &random,
        )?;
        self.write_requests(now, grant.id, first_place, requested)?;
        self.write_problems(now, grant.id, &problems)?;
        self.write_methods(now, grant.id, &methods)?;
        self.tell(now, &events)?;
        self.keep_keys(now, grant.id, grant.user_identity, &methods)?;
        self.request_codes(now, grant.id, first_place, requested)?;
        let grant = self.grant(&GrantName::Id(wanted))?;
        Ok(grant.ok_or_else(|| StoreError::corrupt("access_grant", "gone while it was changed"))?)
    }

    pub(crate) fn grants(&mut self, filter: &GrantFilter, page: Page) -> Result<Listed<Grant>, StoreError> {
        let question = Question::of("SELECT g.rowid AS place, g.access_grant_id FROM access_grant g", "g")
            .among(
                "g.access_grant_id IN (SELECT value FROM json_each(?#))",
                id_list(filter.ids.as_deref()),
            )
            .within("g.access_grant_key IS ?#", filter.key.clone())
            .among("g.user_identity_id = ?#", filter.identity.clone())
            .among(&format!("g.access_grant_id IN ({OF_DEVICE})"), filter.device.clone())
            .among(&format!("g.access_grant_id IN ({OF_ENTRANCE})"), filter.entrance.clone())
            // A system may be all there is: its grants are met on the way.
            .and(
                "(EXISTS (SELECT 1 FROM grant_entrance o JOIN acs_entrance USING(acs_entrance_id)
                   WHERE o.access_grant_id = g.access_grant_id AND acs_system_id = ?#)
                  OR EXISTS (SELECT 1 FROM grant_space o JOIN space_entrance USING(space_id)
                   JOIN acs_entrance USING(acs_entrance_id)
                   WHERE o.access_grant_id = g.access_grant_id AND acs_system_id = ?#))",
                filter.system.clone(),
            )
            .among(
                "g.access_grant_id IN (SELECT access_grant_id FROM grant_space WHERE space_id = ?#)",
                filter.space.clone(),
            )
            .within("g.reservation_key = ?#", filter.reservation_key.clone())
            .among(
                "g.access_grant_id IN (
                   SELECT access_grant_id FROM space JOIN grant_space USING(space_id) WHERE customer_key = ?#)",
                filter.customer.clone(),
            );
        let listed = self.listed(question, page, |row| id::<AccessGrantId>(row, "access_grant_id"))?;
        let next = listed.next;
        let mut rows = Vec::with_capacity(listed.rows.len());
        for grant in listed.rows {
            rows.extend(self.grant(&GrantName::Id(grant))?);
        }
        Ok(Listed { rows, next })
    }

    pub(crate) fn methods(
        &mut self,
        filter: &MethodFilter,
        page: Page,
    ) -> Result<Listed<Method>, StoreError> {
        let question = Question::of("SELECT m.rowid AS place, m.access_method_id FROM access_method m", "m")
            .among("m.access_grant_id = ?#", filter.grant.map(|id| id.to_string()))
            .among(
                &format!(
                    "m.mode = 'card' AND m.access_grant_id IN ({OF_ENTRANCE}) AND EXISTS (
                       SELECT 1 FROM acs_entrance e
                       WHERE e.acs_entrance_id = ?# AND e.acs_system_id = m.acs_system_id)"
                ),
                filter.entrance.clone(),
            )
            // A code is also for a device that it has not gone from yet.
            .among(
                &format!(
                    "m.access_method_id IN (
                       SELECT access_method_id FROM access_method WHERE access_grant_id IN ({OF_DEVICE})
                       UNION SELECT access_method_id FROM desired_slot WHERE device_id = ?#)
                     AND CASE m.mode WHEN 'code' THEN EXISTS (
                           SELECT 1 FROM code_method k, json_each(k.device_ids)
                           WHERE k.access_method_id = m.access_method_id AND value = ?#)
                         WHEN 'card' THEN 0 ELSE m.access_grant_id IN ({OF_DEVICE}) END"
                ),
                filter.device.clone(),
            )
            .among(
                "m.access_grant_id IN (SELECT access_grant_id FROM grant_space WHERE space_id = ?#)",
                filter.space.clone(),
            );
        let listed = self.listed(question, page, |row| id::<AccessMethodId>(row, "access_method_id"))?;
        let next = listed.next;
        let mut rows = Vec::with_capacity(listed.rows.len());
        for method in listed.rows {
            rows.extend(self.method(method)?);
        }
        Ok(Listed { rows, next })
    }
}

/// The grants that lead to a device or a door, alone or with a space.
const OF_DEVICE: &str = "
    SELECT access_grant_id FROM grant_device WHERE device_id = ?#
    UNION SELECT access_grant_id FROM space_device JOIN grant_space USING(space_id) WHERE device_id = ?#";
const OF_ENTRANCE: &str = "
    SELECT access_grant_id FROM grant_entrance WHERE acs_entrance_id = ?#
    UNION SELECT access_grant_id FROM space_entrance JOIN grant_space USING(space_id) WHERE acs_entrance_id = ?#";

fn none_twice<T: Copy + Ord>(ids: &[T]) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}
