//! Grants and their methods.

use jiff::Timestamp;
use rusqlite::{Row, params};

use crate::{
    grants::{
        CardFate, Created, DeleteFacts, Deleted, Event, GrantProblem, GrantRequest, Means, MethodFacts, Mode,
        NewMethod, PendingJob, Refused, ReservationFacts, Resource, TargetDoor, TargetSystem, Targets,
        codes::{CodeMethod, Lack, Trouble},
        plan_create, plan_delete,
    },
    model::{
        AccessGrantId, AccessMethodId, AcsEntranceId, AcsSystemId, ActionAttemptId, DeviceId, DoorName,
        JobId, Private, ReservationKey, SpaceId, UserIdentityId, Window,
    },
    store::StoreError,
};

use super::{
    Db, Fault, Person, Tenant,
    keys::KeyView,
    rows::{id, json, maybe_time, ms, parsed, time},
    sites, split,
};

/// A grant as it is asked for.
#[derive(Debug)]
pub(crate) struct GrantCommand {
    pub(crate) identity: IdentityRef,
    pub(crate) key: Option<String>,
    pub(crate) reservation_key: Option<ReservationKey>,
    pub(crate) name: Option<Private>,
    pub(crate) starts_at: Option<Timestamp>,
    pub(crate) ends_at: Option<Timestamp>,
    pub(crate) entrances: Vec<AcsEntranceId>,
    pub(crate) devices: Vec<DeviceId>,
    pub(crate) spaces: Vec<SpaceId>,
    pub(crate) space_keys: Vec<String>,
    pub(crate) requested: Vec<Requested>,
}

/// Whose grant.
#[derive(Debug)]
pub(crate) enum IdentityRef {
    Known(UserIdentityId),
    New(Person),
}

/// A means asked for.
#[derive(Debug)]
pub(crate) struct Requested {
    pub(crate) mode: Mode,
    pub(crate) code: Option<Private>,
}

/// By what a grant is asked for.
#[derive(Debug)]
pub(crate) enum GrantName {
    Id(AccessGrantId),
    Key(String),
}

/// A grant as it stands.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) id: AccessGrantId,
    pub(crate) user_identity: UserIdentityId,
    pub(crate) key: Option<String>,
    pub(crate) reservation_key: Option<ReservationKey>,
    pub(crate) name: Option<Private>,
    pub(crate) window: Window,
    pub(crate) created_at: Timestamp,
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) spaces: Vec<SpaceId>,
    /// The devices it leads to, as they are now; of those, the ones that take codes.
    pub(crate) devices: Vec<DeviceId>,
    pub(crate) coded: Vec<DeviceId>,
    /// Modes asked for, each with the code that was wished, and when.
    pub(crate) requested: Vec<(Mode, Option<Private>, Timestamp)>,
    pub(crate) methods: Vec<Method>,
    pub(crate) errors: Vec<(String, String, Timestamp)>,
    /// What cannot be had of the codes that are asked for.
    pub(crate) lacks: Vec<Lack>,
}

/// A method as it stands, desired and observed.
#[derive(Debug, Clone)]
pub(crate) struct Method {
    pub(crate) id: AccessMethodId,
    pub(crate) grant: AccessGrantId,
    pub(crate) place: u32,
    pub(crate) system: AcsSystemId,
    pub(crate) mode: Mode,
    pub(crate) created_at: Timestamp,
    /// Its grant is deleted; it is shown because a card still opens or is being written.
    pub(crate) deleted: Option<Timestamp>,
    pub(crate) is_issued: bool,
    pub(crate) issued_at: Option<Timestamp>,
    pub(crate) in_doubt: bool,
    pub(crate) card: CardFate,
    /// The window that a card was written with, where its grant has another one since.
    pub(crate) written_for: Option<(Window, Timestamp)>,
    /// Doors that the card in the guest's pocket opens, and its grant leads to no more.
    pub(crate) left_doors: Vec<String>,
    /// When its grant holds.
    pub(crate) window: Option<Window>,
    pub(crate) code: Option<Box<CodeView>>,
    pub(crate) key: Option<KeyView>,
}

/// What is shown of a code.
#[derive(Debug, Clone)]
pub(crate) struct CodeView {
    pub(crate) code: CodeMethod,
    /// Devices that it is not read back from yet.
    pub(crate) coming: Vec<DeviceId>,
    /// Devices that it should be gone from and may still be in, each with since when it was there.
    pub(crate) leaving: Vec<(DeviceId, Option<Timestamp>)>,
    /// What a device said that refused it.
    pub(crate) trouble: Option<Trouble>,
}

/// Which grants.
#[derive(Debug, Default)]
pub(crate) struct GrantFilter {
    pub(crate) ids: Option<Vec<AccessGrantId>>,
    /// With this key; with none at all where it is `Some(None)`.
    pub(crate) key: Option<Option<String>>,
    pub(crate) identity: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) entrance: Option<String>,
    pub(crate) system: Option<String>,
    pub(crate) space: Option<String>,
    pub(crate) reservation_key: Option<String>,
    pub(crate) customer: Option<String>,
}

/// Which methods.
#[derive(Debug, Default)]
pub(crate) struct MethodFilter {
    pub(crate) grant: Option<AccessGrantId>,
    pub(crate) entrance: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) space: Option<String>,
}

/// What is to change about a grant; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct GrantChange {
    pub(crate) starts_at: Option<Timestamp>,
    /// `Some(None)` opens the end.
    pub(crate) ends_at: Option<Option<Timestamp>>,
    /// `Some(None)` takes the name away.
    pub(crate) name: Option<Option<Private>>,
    pub(crate) entrances: Option<Vec<AcsEntranceId>>,
    pub(crate) devices: Option<Vec<DeviceId>>,
    pub(crate) spaces: Option<Vec<SpaceId>>,
}

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
        let reservation = self.reservation(command.reservation_key.as_ref())?;
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
        for (place, device) in (0_i64..).zip(&own_devices) {
            self.db.execute(
                "INSERT INTO grant_device VALUES(?1, ?2, ?3, ?4)",
                params![self.workspace, plan.id.to_string(), place, device.to_string()],
            )?;
        }
        if let Some(key) = &command.reservation_key {
            self.keep_rooms(now, key)?;
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

    pub(super) fn write_grant(
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
        let key = command.reservation_key.as_ref().map(ReservationKey::as_str);
        for room in &plan.reservation_rooms {
            db.execute(
                "INSERT OR IGNORE INTO reservation_entrance VALUES(?1, ?2, ?3)",
                params![workspace, key, room.to_string()],
            )?;
        }
        Ok(())
    }

    pub(super) fn write_requests(
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

    pub(super) fn write_problems(
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

    pub(super) fn write_methods(
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

    pub(super) fn keep_keys(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        identity: UserIdentityId,
        methods: &[NewMethod],
    ) -> Result<(), StoreError> {
        let keys = methods.iter().filter(|method| matches!(method.mode, Mode::MobileKey | Mode::CloudKey));
        keys.into_iter().try_for_each(|method| self.keep_key(now, grant, identity, method))
    }

    /// What devices offer beside cards.
    pub(super) fn means(&self, devices: &[DeviceId]) -> Result<Means, StoreError> {
        let mut means = Means {
            devices: !devices.is_empty(),
            mobile_keys: self.db.has_mobile_keys(),
            ..Means::default()
        };
        for device in devices {
            means.cloud_keys |= self.can_be_opened(*device)?;
            if means.system.is_none() {
                means.system = self.db.one(
                    "SELECT acs_system_id FROM device WHERE device_id = ?1 AND workspace_id = ?2",
                    params![device.to_string(), self.workspace],
                    |row| id(row, "acs_system_id"),
                )?;
            }
        }
        Ok(means)
    }

    /// Makes the codes that were asked for, behind the `first_place` means that were asked for before.
    pub(super) fn request_codes(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
        first_place: u32,
        requested: &[Requested],
    ) -> Result<(), StoreError> {
        let places = (first_place..).zip(requested).filter(|(_, requested)| requested.mode == Mode::Code);
        let places: Vec<_> = places.collect();
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

    /// The doors with their systems, none twice. A door that is not there, or no longer, refuses.
    pub(super) fn targets(&self, doors: &[AcsEntranceId]) -> Result<Targets, Fault> {
        let mut targets = Targets::default();
        let mut seen = std::collections::HashSet::new();
        for door in doors.iter().filter(|door| seen.insert(**door)) {
            let found = self.db.one(
                "SELECT e.acs_entrance_id, e.name AS door, e.kind AS door_kind, s.* FROM acs_entrance e
                 JOIN acs_system s USING(acs_system_id)
                 WHERE e.acs_entrance_id = ?1 AND e.workspace_id = ?2 AND e.removed_at IS NULL",
                params![door.to_string(), self.workspace],
                |row| {
                    let system: AcsSystemId = id(row, "acs_system_id")?;
                    let door = TargetDoor {
                        id: id(row, "acs_entrance_id")?,
                        system,
                        name: parsed(row, "door")?,
                        kind: sites::kind(row, "door_kind")?,
                    };
                    Ok((door, target_system(row)?))
                },
            )?;
            let (door, system) = found.ok_or_else(|| Refused::not_found(Resource::AcsEntrance, door))?;
            if !targets.systems.iter().any(|known| known.id == system.id) {
                targets.systems.push(system);
            }
            targets.doors.push(door);
        }
        Ok(targets)
    }

    /// The doors of a grant as they are now; doors that have been removed are left out.
    pub(super) fn targets_of(&self, grant: AccessGrantId) -> Result<Targets, Fault> {
        let grant = grant.to_string();
        let doors = self.db.all(
            &format!(
                "SELECT acs_entrance_id FROM ({DOORS_OF_GRANT}) JOIN acs_entrance USING(acs_entrance_id)
                 WHERE removed_at IS NULL AND workspace_id = ?2 ORDER BY part, place, member"
            ),
            params![grant, self.workspace],
            |row| id(row, "acs_entrance_id"),
        )?;
        self.targets(&doors)
    }

    /// A room of a grant that its system no longer has.
    pub(super) fn lost_room(
        &self,
        grant: AccessGrantId,
        system: AcsSystemId,
    ) -> Result<Option<DoorName>, StoreError> {
        self.db.one(
            &format!(
                "SELECT name FROM ({DOORS_OF_GRANT}) JOIN acs_entrance USING(acs_entrance_id)
                 WHERE removed_at IS NOT NULL AND kind = 'room' AND acs_system_id = ?3 AND workspace_id = ?2
                 ORDER BY part, place, member LIMIT 1"
            ),
            params![grant.to_string(), self.workspace, system.to_string()],
            |row| parsed(row, "name"),
        )
    }

    pub(super) fn reservation(&self, key: Option<&ReservationKey>) -> Result<ReservationFacts, StoreError> {
        let Some(key) = key else {
            return Ok(ReservationFacts::default());
        };
        Ok(ReservationFacts {
            rooms: self.reservation_rooms(key)?,
            windows: self.db.all(
                "SELECT starts_at, ends_at FROM access_grant
                 WHERE workspace_id = ?1 AND reservation_key = ?2 AND deleted_at IS NULL ORDER BY rowid",
                params![self.workspace, key.as_str()],
                window,
            )?,
        })
    }

    pub(super) fn reservation_rooms(&self, key: &ReservationKey) -> Result<Vec<AcsEntranceId>, StoreError> {
        self.db.all(
            "SELECT acs_entrance_id FROM reservation_entrance WHERE workspace_id = ?1 AND reservation_key = ?2
             ORDER BY rowid",
            params![self.workspace, key.as_str()],
            |row| id(row, "acs_entrance_id"),
        )
    }

    pub(super) fn live_grant_by_key(&self, key: &str) -> Result<Option<AccessGrantId>, StoreError> {
        self.db.one(
            "SELECT access_grant_id FROM access_grant WHERE workspace_id = ?1 AND access_grant_key = ?2",
            params![self.workspace, key],
            |row| id(row, "access_grant_id"),
        )
    }

    pub(crate) fn grant(&mut self, name: &GrantName) -> Result<Option<Grant>, StoreError> {
        let (column, value) = match name {
            GrantName::Id(id) => ("access_grant_id", id.to_string()),
            GrantName::Key(key) => ("access_grant_key", key.clone()),
        };
        let found = self.db.one(
            &format!("SELECT * FROM access_grant WHERE workspace_id = ?1 AND {column} = ?2"),
            params![self.workspace, value],
            |row| {
                let grant = Grant {
                    id: id(row, "access_grant_id")?,
                    user_identity: id(row, "user_identity_id")?,
                    key: row.get("access_grant_key")?,
                    reservation_key: row
                        .get::<_, Option<String>>("reservation_key")?
                        .and_then(|key| ReservationKey::new(key).ok()),
                    name: None,
                    window: window(row)?,
                    created_at: time(row, "created_at")?,
                    deleted_at: maybe_time(row, "deleted_at")?,
                    spaces: Vec::new(),
                    devices: Vec::new(),
                    coded: Vec::new(),
                    requested: Vec::new(),
                    methods: Vec::new(),
                    errors: Vec::new(),
                    lacks: Vec::new(),
                };
                Ok((grant, row.get::<_, Option<Vec<u8>>>("name")?))
            },
        )?;
        let Some((mut grant, name)) = found else {
            return Ok(None);
        };
        let own = grant.id.to_string();
        grant.name = self.unseal(&format!("access_grant.name/{own}"), name)?;
        grant.spaces = self.db.all(
            "SELECT space_id FROM grant_space WHERE access_grant_id = ?1 ORDER BY place",
            [&own],
            |row| id(row, "space_id"),
        )?;
        let requested = self.db.all(
            "SELECT place, mode, code, created_at FROM requested_method WHERE access_grant_id = ?1 ORDER BY place",
            [&own],
            |row| {
                let code: Option<Vec<u8>> = row.get("code")?;
                Ok((row.get::<_, i64>("place")?, mode(row)?, code, time(row, "created_at")?))
            },
        )?;
        for (place, mode, code, at) in requested {
            let code = self.unseal(&format!("requested_method.code/{own}/{place}"), code)?;
            grant.requested.push((mode, code, at));
        }
        grant.devices = self.devices_of_grant(grant.id)?;
        for device in &grant.devices {
            if self.takes_codes(*device)? {
                grant.coded.push(*device);
            }
        }
        grant.methods = self.methods_of(grant.id)?;
        grant.errors = self.db.all(
            "SELECT code, message, created_at FROM grant_error WHERE access_grant_id = ?1 ORDER BY rowid",
            [&own],
            |row| Ok((row.get("code")?, row.get("message")?, time(row, "created_at")?)),
        )?;
        grant.lacks = self.lacks(grant.id)?;
        Ok(Some(grant))
    }

    pub(super) fn unseal(&self, place: &str, sealed: Option<Vec<u8>>) -> Result<Option<Private>, StoreError> {
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let plain = self.db.seal.open(place, &sealed)?;
        let text =
            String::from_utf8(plain).map_err(|error| StoreError::corrupt(place, error.utf8_error()))?;
        Ok(Some(Private::new(text)))
    }

    pub(crate) fn methods_of(&self, grant: AccessGrantId) -> Result<Vec<Method>, StoreError> {
        let mut methods = self.db.all(
            &format!("{METHODS} AND m.access_grant_id = ?2 ORDER BY m.rowid"),
            params![self.workspace, grant.to_string()],
            method,
        )?;
        methods.iter_mut().try_for_each(|method| self.fill(method))?;
        Ok(methods)
    }

    /// Adds what is sealed, and what is known of slots.
    fn fill(&self, method: &mut Method) -> Result<(), StoreError> {
        match method.mode {
            Mode::Card => {
                if method.written_for.is_some() && !method.is_issued {
                    method.left_doors = self.left_doors(method)?;
                }
            }
            Mode::Code => method.code = self.code_view(method.grant, method.id)?.map(Box::new),
            Mode::MobileKey | Mode::CloudKey => method.key = self.key_view(method.id)?,
        }
        Ok(())
    }

    /// The doors that the last card of a method was written for, and to which its grant leads no more; without rooms
    /// that were freed since.
    fn left_doors(&self, method: &Method) -> Result<Vec<String>, StoreError> {
        let doors = self.doors_of_grant(method.grant)?;
        let written = self.db.all(
            "SELECT e.acs_entrance_id, coalesce(e.display_name, e.name) AS shown
             FROM ordered_card o JOIN json_each(o.acs_entrance_ids) d JOIN acs_entrance e ON e.acs_entrance_id = d.value
             WHERE o.rowid = (SELECT max(w.rowid) FROM ordered_card w JOIN action_attempt a USING(job_id)
                              WHERE w.access_method_id = ?1 AND w.workspace_id = ?2
                                AND (a.status = 'success' OR a.error_type = 'encoding_interrupted'))
               AND NOT EXISTS (SELECT 1 FROM ordered_checkout c JOIN access_grant g USING(reservation_key)
                               WHERE g.access_grant_id = ?3 AND c.workspace_id = ?2 AND c.freed = 1
                                 AND c.acs_entrance_id = e.acs_entrance_id)
             ORDER BY d.key",
            params![method.id.to_string(), self.workspace, method.grant.to_string()],
            |row| Ok((id::<AcsEntranceId>(row, "acs_entrance_id")?, row.get::<_, String>("shown")?)),
        )?;
        Ok(written.into_iter().filter(|(door, _)| !doors.contains(door)).map(|(_, shown)| shown).collect())
    }

    pub(crate) fn method(&mut self, wanted: AccessMethodId) -> Result<Option<Method>, StoreError> {
        let mut found = self.db.one(
            &format!("{METHODS} AND m.access_method_id = ?2"),
            params![self.workspace, wanted.to_string()],
            method,
        )?;
        found.iter_mut().try_for_each(|method| self.fill(method))?;
        Ok(found)
    }

    /// Takes a grant back, as far as that is possible.
    pub(crate) fn delete_grant(
        &mut self,
        now: Timestamp,
        grant: AccessGrantId,
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_delete_grant(now, grant))
    }

    fn try_delete_grant(&mut self, now: Timestamp, wanted: AccessGrantId) -> Result<(), Fault> {
        let grant = self
            .grant(&GrantName::Id(wanted))?
            .filter(|grant| grant.deleted_at.is_none())
            .ok_or_else(|| Refused::not_found(Resource::AccessGrant, wanted))?;
        let has_codes = grant.methods.iter().any(|method| method.mode == Mode::Code);
        let mut methods = Vec::new();
        // One that is being deleted was told of already.
        let others =
            grant.methods.iter().filter(|method| method.mode != Mode::Code && method.deleted.is_none());
        for method in others {
            methods.push(self.method_facts(method)?);
        }
        let key = grant.reservation_key.as_ref();
        let last_of = match key {
            Some(key) if self.reservation(Some(key))?.windows.len() == 1 => Some(key),
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

    pub(super) fn try_delete_method(&mut self, now: Timestamp, wanted: AccessMethodId) -> Result<(), Fault> {
        let method =
            self.method(wanted)?.ok_or_else(|| Refused::not_found(Resource::AccessMethod, wanted))?;
        if method.deleted.is_some() {
            return Ok(());
        }
        if method.mode == Mode::Code {
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

    /// Of these rooms, those that their sites have.
    pub(super) fn still_there(&self, wanted: &[AcsEntranceId]) -> Result<Targets, Fault> {
        let mut rooms = Targets::default();
        for &room in wanted {
            match self.targets(&[room]) {
                Ok(found) => {
                    for system in found.systems {
                        if !rooms.systems.contains(&system) {
                            rooms.systems.push(system);
                        }
                    }
                    rooms.doors.extend(found.doors);
                }
                // A room that the site no longer has needs no check-out.
                Err(Fault::Refused(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(rooms)
    }

    pub(super) fn earlier_cards(
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
        if let Some(key) = last_of {
            self.db.execute(
                "DELETE FROM reservation_entrance WHERE workspace_id = ?1 AND reservation_key = ?2",
                params![self.workspace, key.as_str()],
            )?;
        }
        self.sweep(grant.id)
    }

    fn write_method_ends(&mut self, now: Timestamp, plan: &Deleted) -> Result<(), StoreError> {
        for attempt in &plan.ended {
            self.end_attempt(now, *attempt, &Err(crate::grants::AttemptError::deleted()))?;
        }
        for job in &plan.cancel {
            self.cancel(now, *job)?;
        }
        for method in &plan.gone {
            self.remove_method(*method)?;
        }
        Ok(())
    }

    pub(super) fn remove_method(&self, method: AccessMethodId) -> Result<(), StoreError> {
        self.db.execute(
            "DELETE FROM access_method WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method.to_string(), self.workspace],
        )?;
        Ok(())
    }

    /// Removes a grant that ended long ago and of which nothing is left anywhere.
    pub(super) fn remove_grant(&mut self, now: Timestamp, grant: AccessGrantId) -> Result<(), StoreError> {
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
    pub(super) fn sweep(&self, grant: AccessGrantId) -> Result<(), StoreError> {
        self.db.execute(
            "DELETE FROM access_grant WHERE access_grant_id = ?1 AND workspace_id = ?2 AND deleted_at IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM access_method m WHERE m.access_grant_id = access_grant.access_grant_id)",
            params![grant.to_string(), self.workspace],
        )?;
        Ok(())
    }

    pub(super) fn pending_job(
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
    pub(super) fn sweep_ended_cards(
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

/// Every door that a grant names, and those of its spaces, in its order.
pub(super) const DOORS_OF_GRANT: &str = "
    SELECT 0 AS part, place, 0 AS member, acs_entrance_id FROM grant_entrance WHERE access_grant_id = ?1
    UNION ALL
    SELECT 1, place, s.rowid, s.acs_entrance_id FROM grant_space JOIN space_entrance s USING(space_id)
    WHERE access_grant_id = ?1";

const METHODS: &str = "
    SELECT m.access_method_id, m.access_grant_id, m.place, m.acs_system_id, m.mode, m.created_at,
           coalesce(g.deleted_at, e.deleted_at, k.deleted_at) AS deleted_at,
           coalesce(c.is_issued, k.is_issued, y.is_issued, 0) AS is_issued,
           coalesce(c.issued_at, k.issued_at, y.issued_at) AS issued_at, coalesce(c.in_doubt, 0) AS in_doubt,
           coalesce(c.may_exist, 0) AS may_exist, c.opens_until,
           u.starts_at, u.ends_at, u.since AS changed_since,
           g.starts_at AS grant_starts_at, g.ends_at AS grant_ends_at
    FROM access_method m JOIN access_grant g USING(access_grant_id) LEFT JOIN card_state c USING(access_method_id)
    LEFT JOIN code_method k USING(access_method_id) LEFT JOIN key_method y USING(access_method_id)
    LEFT JOIN method_end e USING(access_method_id) LEFT JOIN card_update u USING(access_method_id)
    WHERE m.workspace_id = ?1";

fn method(row: &Row<'_>) -> rusqlite::Result<Method> {
    let opens_until = maybe_time(row, "opens_until")?;
    let written_for = match maybe_time(row, "changed_since")? {
        Some(since) => Some((self::window(row)?, since)),
        None => None,
    };
    let window = Window::new(time(row, "grant_starts_at")?, maybe_time(row, "grant_ends_at")?).ok();
    Ok(Method {
        written_for,
        left_doors: Vec::new(),
        window,
        code: None,
        key: None,
        id: id(row, "access_method_id")?,
        grant: id(row, "access_grant_id")?,
        place: row.get("place")?,
        system: id(row, "acs_system_id")?,
        mode: mode(row)?,
        created_at: time(row, "created_at")?,
        deleted: maybe_time(row, "deleted_at")?,
        is_issued: row.get("is_issued")?,
        issued_at: maybe_time(row, "issued_at")?,
        in_doubt: row.get("in_doubt")?,
        card: if row.get("may_exist")? { CardFate::MayExist { opens_until } } else { CardFate::Never },
    })
}

fn mode(row: &Row<'_>) -> rusqlite::Result<Mode> {
    let name: String = row.get("mode")?;
    Mode::from_name(&name).ok_or(rusqlite::Error::InvalidQuery)
}

pub(super) fn window(row: &Row<'_>) -> rusqlite::Result<Window> {
    Window::new(time(row, "starts_at")?, maybe_time(row, "ends_at")?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Integer, Box::new(error))
    })
}

pub(super) fn target_system(row: &Row<'_>) -> rusqlite::Result<TargetSystem> {
    Ok(TargetSystem {
        id: id(row, "acs_system_id")?,
        name: parsed(row, "name")?,
        capabilities: json(row, "capabilities")?,
        checkout_on_last_grant: row.get("checkout_on_last_grant")?,
    })
}
