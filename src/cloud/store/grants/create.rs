//! Grants that are asked for, and what is written of them.

use jiff::Timestamp;
use rusqlite::params;

use crate::{
    grants::{Created, GrantProblem, GrantRequest, Mode, NewMethod, Refused, Resource, plan_create},
    model::{AccessGrantId, DeviceId, Private, ReservationKey, SpaceId, UserIdentityId},
    store::StoreError,
};

use super::{
    super::{
        Fault, Tenant,
        rows::{id, ms},
        split,
    },
    Grant, GrantCommand, GrantName, IdentityRef, Requested,
};

impl Tenant<'_> {
    pub(crate) fn create_grant(
        &mut self,
        now: Timestamp,
        command: &GrantCommand,
    ) -> Result<Result<Grant, Refused>, StoreError> {
        split(self.try_create_grant(now, command))
    }

    fn try_create_grant(&mut self, now: Timestamp, command: &GrantCommand) -> Result<Grant, Fault> {
        match &command.identity {
            IdentityRef::Known(known) => {
                self.identity(*known)?.ok_or_else(|| Refused::not_found(Resource::UserIdentity, known))?;
            }
            IdentityRef::New(person) => self.check_person(person)?,
        }
        if let Some(key) = &command.key
            && let Some(holder) = self.live_grant_by_key(key)?
        {
            return Err(Fault::Refused(Refused::Taken {
                resource: Resource::AccessGrant,
                message: format!("This access_grant_key belongs to access grant {holder}"),
            }));
        }
        let spaces = self.spaces_named(command)?;
        let mut doors = command.entrances.clone();
        for space in &spaces {
            let members =
                self.doors_of_space(*space)?.ok_or_else(|| Refused::not_found(Resource::Space, space))?;
            doors.extend(members);
        }
        let targets = self.targets(&doors)?;
        let own_devices = self.known_devices(&command.devices)?;
        let mut devices = own_devices.clone();
        for space in &spaces {
            devices.extend(self.devices_of_space(*space)?);
        }
        if let Some(key) = &command.reservation_key {
            self.follow_stay(now, key)?;
        }
        let reservation = self.reservation(command.reservation_key.as_ref(), None)?;
        let request = GrantRequest {
            reservation_key: command.reservation_key.clone(),
            starts_at: command.starts_at,
            ends_at: command.ends_at,
            modes: command.requested.iter().map(|requested| requested.mode).collect(),
            means: self.means(&devices)?,
        };
        let random = self.db.random.clone();
        let plan = plan_create(&request, &targets, &reservation, now, &random)?;

        let identity = match &command.identity {
            // Also by an id that leads to this person.
            IdentityRef::Known(known) => self.identity(*known)?.map_or(*known, |identity| identity.id),
            IdentityRef::New(person) => self.add_person(now, person)?.id,
        };
        self.write_grant(now, command, identity, &spaces, &plan)?;
        self.write_devices(plan.id, own_devices)?;
        if let Some(key) = &command.reservation_key {
            self.goes_on_with_another_grant(now, key)?;
        }
        self.tell(now, &plan.events)?;
        self.keep_keys(now, plan.id, identity, &plan.methods)?;
        self.request_codes(now, plan.id, 0, &command.requested)?;
        let grant = self.grant(&GrantName::Id(plan.id))?;
        Ok(grant.ok_or_else(|| StoreError::corrupt("access_grant", "gone while it was made"))?)
    }

    fn spaces_named(&self, command: &GrantCommand) -> Result<Vec<SpaceId>, Fault> {
        let mut spaces = command.spaces.clone();
        for key in &command.space_keys {
            let space = self.space_by_key(key)?;
            spaces.push(space.ok_or_else(|| Refused::not_found(Resource::Space, key))?);
        }
        let mut seen = std::collections::HashSet::new();
        spaces.retain(|space| seen.insert(*space));
        Ok(spaces)
    }

    pub(in crate::cloud::store) fn live_grant_by_key(
        &self,
        key: &str,
    ) -> Result<Option<AccessGrantId>, StoreError> {
        self.db.one(
            "SELECT access_grant_id FROM access_grant WHERE workspace_id = ?1 AND access_grant_key = ?2",
            params![self.workspace, key],
            |row| id(row, "access_grant_id"),
        )
    }

    pub(in crate::cloud::store) fn write_grant(
        &mut self,
        now: Timestamp,
        command: &GrantCommand,
        identity: UserIdentityId,
        spaces: &[SpaceId],
        plan: &Created,
    ) -> Result<(), StoreError> {
        let own = plan.id.to_string();
        let sealed = |place: String, text: &Option<Private>| {
            text.as_ref().map(|text| self.db.seal.seal(&place, text.expose().as_bytes()))
        };
        let db = &*self.db;
        let workspace = &self.workspace;
        db.execute(
            "INSERT INTO access_grant VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL)",
            params![
                own,
                workspace,
                identity.to_string(),
                command.key,
                command.reservation_key.as_ref().map(ReservationKey::as_str),
                sealed(format!("access_grant.name/{own}"), &command.name),
                ms(plan.window.starts_at()),
                plan.window.ends_at().map(ms),
                ms(now)
            ],
        )?;
        let mut doors = std::collections::HashSet::new();
        let doors = command.entrances.iter().filter(|door| doors.insert(**door));
        for (place, door) in (0_i64..).zip(doors) {
            db.execute(
                "INSERT INTO grant_entrance VALUES(?1, ?2, ?3, ?4)",
                params![workspace, own, place, door.to_string()],
            )?;
        }
        for (place, space) in (0_i64..).zip(spaces) {
            db.execute(
                "INSERT INTO grant_space VALUES(?1, ?2, ?3, ?4)",
                params![workspace, own, place, space.to_string()],
            )?;
        }
        self.write_requests(now, plan.id, 0, &command.requested)?;
        self.write_problems(now, plan.id, &plan.problems)?;
        self.write_methods(now, plan.id, &plan.methods)?;
        match &command.reservation_key {
            Some(key) => self.write_stay_rooms(key, &plan.reservation_rooms),
            None => Ok(()),
        }
    }

    /// The devices that a grant names itself, none twice.
    pub(in crate::cloud::store) fn write_devices(
        &self,
        grant: AccessGrantId,
        devices: impl IntoIterator<Item = DeviceId>,
    ) -> Result<(), StoreError> {
        for (place, device) in (0_i64..).zip(devices) {
            self.db.execute(
                "INSERT INTO grant_device VALUES(?1, ?2, ?3, ?4)",
                params![self.workspace, grant.to_string(), place, device.to_string()],
            )?;
        }
        Ok(())
    }

    pub(in crate::cloud::store) fn write_requests(
        &self,
        now: Timestamp,
        grant: AccessGrantId,
        first_place: u32,
        requested: &[Requested],
    ) -> Result<(), StoreError> {
        for (place, requested) in (first_place..).zip(requested) {
            let code = requested.code.as_ref().map(|code| {
                self.db.seal.seal(&format!("requested_method.code/{grant}/{place}"), code.expose().as_bytes())
            });
            self.db.execute(
                "INSERT INTO requested_method VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                params![self.workspace, grant.to_string(), place, requested.mode.as_str(), code, ms(now)],
            )?;
        }
        Ok(())
    }

    pub(in crate::cloud::store) fn write_problems(
        &self,
        now: Timestamp,
        grant: AccessGrantId,
        problems: &[GrantProblem],
    ) -> Result<(), StoreError> {
        for problem in problems {
            self.db.execute(
                "INSERT INTO grant_error VALUES(?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET message = excluded.message",
                params![self.workspace, grant.to_string(), problem.code, problem.message, ms(now)],
            )?;
        }
        Ok(())
    }

    pub(in crate::cloud::store) fn write_methods(
        &self,
        now: Timestamp,
        grant: AccessGrantId,
        methods: &[NewMethod],
    ) -> Result<(), StoreError> {
        for method in methods {
            self.db.execute(
                "INSERT INTO access_method VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    method.id.to_string(),
                    self.workspace,
                    grant.to_string(),
                    method.place,
                    method.system.to_string(),
                    method.mode.as_str(),
                    ms(now)
                ],
            )?;
        }
        Ok(())
    }

    pub(in crate::cloud::store) fn keep_keys(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        identity: UserIdentityId,
        methods: &[NewMethod],
    ) -> Result<(), StoreError> {
        let keys = methods.iter().filter(|method| matches!(method.mode, Mode::MobileKey | Mode::CloudKey));
        keys.into_iter().try_for_each(|method| self.keep_key(now, grant, identity, method))
    }

    /// Makes the codes that were asked for, and the cards that devices know by number, behind the `first_place` means that were asked for before.
    pub(in crate::cloud::store) fn request_codes(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        first_place: u32,
        requested: &[Requested],
    ) -> Result<(), StoreError> {
        let placed =
            |mode| (first_place..).zip(requested).filter(move |(_, requested)| requested.mode == mode);
        let cards: Vec<_> = placed(Mode::Card).map(|(place, _)| place).collect();
        self.request_cards(now, grant, &cards)?;
        let places: Vec<_> = placed(Mode::Code).collect();
        if places.is_empty() {
            return Ok(());
        }
        self.with_book(now, grant, |book, at| {
            for (place, wish) in places {
                book.request(at, grant, place, wish.code.as_ref());
            }
        })
        .map(drop)
    }
}
