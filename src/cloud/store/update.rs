//! Changes of grants that are there.

use jiff::Timestamp;
use rusqlite::params;
use serde_json::json;

use crate::{
    grants::{
        Event, Mode, MoreMethods, Refused, Resource, UpdateFacts, Updated, plan_more_methods, plan_update,
        wanted_modes,
    },
    model::{AccessGrantId, AcsEntranceId, DeviceId, SpaceId},
    store::StoreError,
};

use super::{
    Fault, Grant, GrantChange, GrantName, Method, Requested, Tenant,
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
        let grant = self.live_grant(now, name)?;
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
        let others = self.reservation(grant.reservation_key.as_ref(), Some(grant.id))?;
        let modes = wanted_modes(&self.wishes(&grant)?);
        let facts = UpdateFacts {
            window: grant.window,
            reservation_key: grant.reservation_key.as_ref(),
            others: &others,
            targets: &targets,
            has_devices: !devices.is_empty(),
            modes: &modes,
        };
        let updated = plan_update(&facts, change.starts_at, change.ends_at, now)?;

        let before = self.doors_before(grant.id)?;
        let rooms_before = match &grant.reservation_key {
            Some(key) => self.reservation_rooms(key)?,
            None => Vec::new(),
        };
        self.write_change(&grant, change, &updated)?;
        // Where it alone decides about the rooms of its stay, it was the last grant in those that it leads to no more.
        if let (Some(key), Some(rooms)) = (&grant.reservation_key, &updated.reservation_rooms) {
            let mut left = rooms_before;
            left.retain(|room| !rooms.contains(room));
            self.leave_rooms(now, key, &left)?;
        }
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
        self.follow_methods(now, &grant, updated.window, &before, &targets)?;
        if updated.window != grant.window {
            self.update_keys(now, &grant)?;
            if let Some(key) = &grant.reservation_key {
                self.follow_stay_end(now, key)?;
            }
        }
        if self.has_requests(grant.id)? || grant.requested.iter().any(|(mode, ..)| *mode == Mode::Code) {
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
        self.request_wanted_cards(now, grant.id)?;
        // What devices know by its number has no times on it: it is valid as long as the grant.
        self.db.execute(
            "UPDATE acs_credential SET starts_at = ?2, ends_at = ?3 WHERE access_method_id IN (
               SELECT access_method_id FROM access_method JOIN code_method USING(access_method_id)
               WHERE access_grant_id = ?1)",
            params![grant.id.to_string(), ms(updated.window.starts_at()), updated.window.ends_at().map(ms)],
        )?;
        Ok(())
    }

    /// A grant that may be changed: it is not deleted, and has followed whatever was changed before.
    pub(super) fn live_grant(&mut self, now: Timestamp, name: &GrantName) -> Result<Grant, Fault> {
        let shown = match name {
            GrantName::Id(id) => id.to_string(),
            GrantName::Key(key) => key.clone(),
        };
        let mut grant = self.grant(name)?;
        if let Some(known) = &grant
            && self.follow(now, known.id)?
        {
            grant = self.grant(name)?;
        }
        let grant = grant.filter(|grant| grant.deleted_at.is_none());
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
            self.write_stay_rooms(key, rooms)?;
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
        let grant = self.live_grant(now, &GrantName::Id(wanted))?;
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
}

fn none_twice<T: Copy + Ord>(ids: &[T]) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}
