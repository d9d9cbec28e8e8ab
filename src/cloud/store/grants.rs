//! Grants and their methods.

use jiff::Timestamp;
use rusqlite::{Row, params};

use crate::{
    grants::{
        CardFate, Created, DeleteFacts, Deleted, GrantRequest, MethodFacts, Mode, PendingJob, Refused,
        ReservationFacts, Resource, TargetDoor, TargetSystem, Targets, plan_create, plan_delete,
    },
    model::{
        AccessGrantId, AccessMethodId, AcsEntranceId, AcsSystemId, ActionAttemptId, DoorName, JobId, Private,
        ReservationKey, SpaceId, UserIdentityId, Window,
    },
    store::StoreError,
};

use super::{
    Db, Fault, Person, Tenant,
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
    /// Modes asked for, each with the code that was wished.
    pub(crate) requested: Vec<(Mode, Option<Private>)>,
    pub(crate) methods: Vec<Method>,
    pub(crate) errors: Vec<(String, String, Timestamp)>,
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
        let reservation = self.reservation(command.reservation_key.as_ref())?;
        let request = GrantRequest {
            reservation_key: command.reservation_key.clone(),
            starts_at: command.starts_at,
            ends_at: command.ends_at,
            modes: command.requested.iter().map(|requested| requested.mode).collect(),
        };
        let random = self.db.random.clone();
        let plan = plan_create(&request, &targets, &reservation, now, &random)?;

        let identity = match &command.identity {
            // Also by an id that leads to this person.
            IdentityRef::Known(known) => self.identity(*known)?.map_or(*known, |identity| identity.id),
            IdentityRef::New(person) => self.add_person(now, person)?.id,
        };
        self.write_grant(now, command, identity, &spaces, &plan)?;
        if let Some(key) = &command.reservation_key {
            self.keep_rooms(now, key)?;
        }
        self.tell(now, &plan.events)?;
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

    fn write_grant(
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
        for (place, requested) in (0_i64..).zip(&command.requested) {
            let code = sealed(format!("requested_method.code/{own}/{place}"), &requested.code);
            db.execute(
                "INSERT INTO requested_method VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                params![workspace, own, place, requested.mode.as_str(), code, ms(now)],
            )?;
        }
        for problem in &plan.problems {
            db.execute(
                "INSERT INTO grant_error VALUES(?1, ?2, ?3, ?4, ?5)",
                params![workspace, own, problem.code, problem.message, ms(now)],
            )?;
        }
        for method in &plan.methods {
            db.execute(
                "INSERT INTO access_method VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    method.id.to_string(),
                    workspace,
                    own,
                    method.place,
                    method.system.to_string(),
                    method.mode.as_str(),
                    ms(now)
                ],
            )?;
        }
        let key = command.reservation_key.as_ref().map(ReservationKey::as_str);
        for room in &plan.reservation_rooms {
            db.execute(
                "INSERT OR IGNORE INTO reservation_entrance VALUES(?1, ?2, ?3)",
                params![workspace, key, room.to_string()],
            )?;
        }
        Ok(())
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

    fn reservation(&self, key: Option<&ReservationKey>) -> Result<ReservationFacts, StoreError> {
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

    fn reservation_rooms(&self, key: &ReservationKey) -> Result<Vec<AcsEntranceId>, StoreError> {
        self.db.all(
            "SELECT acs_entrance_id FROM reservation_entrance WHERE workspace_id = ?1 AND reservation_key = ?2
             ORDER BY rowid",
            params![self.workspace, key.as_str()],
            |row| id(row, "acs_entrance_id"),
        )
    }

    fn live_grant_by_key(&self, key: &str) -> Result<Option<AccessGrantId>, StoreError> {
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
                    requested: Vec::new(),
                    methods: Vec::new(),
                    errors: Vec::new(),
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
            "SELECT place, mode, code FROM requested_method WHERE access_grant_id = ?1 ORDER BY place",
            [&own],
            |row| Ok((row.get::<_, i64>("place")?, mode(row)?, row.get::<_, Option<Vec<u8>>>("code")?)),
        )?;
        for (place, mode, code) in requested {
            let code = self.unseal(&format!("requested_method.code/{own}/{place}"), code)?;
            grant.requested.push((mode, code));
        }
        grant.methods = self.methods_of(grant.id)?;
        grant.errors = self.db.all(
            "SELECT code, message, created_at FROM grant_error WHERE access_grant_id = ?1 ORDER BY rowid",
            [&own],
            |row| Ok((row.get("code")?, row.get("message")?, time(row, "created_at")?)),
        )?;
        Ok(Some(grant))
    }

    fn unseal(&self, place: &str, sealed: Option<Vec<u8>>) -> Result<Option<Private>, StoreError> {
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let plain = self.db.seal.open(place, &sealed)?;
        let text =
            String::from_utf8(plain).map_err(|error| StoreError::corrupt(place, error.utf8_error()))?;
        Ok(Some(Private::new(text)))
    }

    pub(crate) fn methods_of(&self, grant: AccessGrantId) -> Result<Vec<Method>, StoreError> {
        self.db.all(
            &format!("{METHODS} AND m.access_grant_id = ?2 ORDER BY m.rowid"),
            params![self.workspace, grant.to_string()],
            method,
        )
    }

    pub(crate) fn method(&mut self, wanted: AccessMethodId) -> Result<Option<Method>, StoreError> {
        self.db.one(
            &format!("{METHODS} AND m.access_method_id = ?2"),
            params![self.workspace, wanted.to_string()],
            method,
        )
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
        let mut methods = Vec::new();
        for method in &grant.methods {
            let pending = self.pending_job(method.id)?;
            methods.push(MethodFacts {
                id: method.id,
                system: method.system,
                card: method.card,
                pending: match pending {
                    Some((attempt, job)) => {
                        Some(PendingJob { job, attempt, handed: self.db.was_handed(job)? })
                    }
                    None => None,
                },
            });
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
        let plan = plan_delete(&facts, now, &self.db.random);
        self.tell(now, &plan.events)?;
        self.write_delete(now, &grant, last_of, &plan)?;
        Ok(())
    }

    fn rooms_still_there(&self, key: &ReservationKey) -> Result<Targets, Fault> {
        let mut rooms = Targets::default();
        for room in self.reservation_rooms(key)? {
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

    fn earlier_cards(&self, now: Timestamp, key: &ReservationKey) -> Result<Vec<AcsSystemId>, StoreError> {
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
        for attempt in &plan.ended {
            self.end_attempt(now, *attempt, &Err(crate::grants::AttemptError::deleted()))?;
        }
        for job in &plan.cancel {
            self.cancel(now, *job)?;
        }
        for method in &plan.gone {
            self.remove_method(*method)?;
        }
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

    pub(super) fn remove_method(&self, method: AccessMethodId) -> Result<(), StoreError> {
        self.db.execute(
            "DELETE FROM access_method WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method.to_string(), self.workspace],
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

    fn pending_job(&self, method: AccessMethodId) -> Result<Option<(ActionAttemptId, JobId)>, StoreError> {
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
            "SELECT g.workspace_id, g.access_grant_id, m.access_method_id FROM access_grant g
             JOIN access_method m USING(access_grant_id) JOIN card_state c USING(access_method_id)
             WHERE g.deleted_at IS NOT NULL AND c.opens_until <= ?1
               AND NOT EXISTS (SELECT 1 FROM action_attempt a
                               WHERE a.access_method_id = m.access_method_id AND a.status = 'pending')",
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
            "SELECT min(c.opens_until) AS next FROM access_grant g JOIN access_method m USING(access_grant_id)
             JOIN card_state c USING(access_method_id) WHERE g.deleted_at IS NOT NULL AND c.opens_until > ?1",
            [ms(now)],
            |row| maybe_time(row, "next"),
        )?;
        Ok((changed, next.flatten()))
    }
}

/// Every door that a grant names, and those of its spaces, in its order.
const DOORS_OF_GRANT: &str = "
    SELECT 0 AS part, place, 0 AS member, acs_entrance_id FROM grant_entrance WHERE access_grant_id = ?1
    UNION ALL
    SELECT 1, place, s.rowid, s.acs_entrance_id FROM grant_space JOIN space_entrance s USING(space_id)
    WHERE access_grant_id = ?1";

const METHODS: &str = "
    SELECT m.access_method_id, m.access_grant_id, m.place, m.acs_system_id, m.mode, m.created_at,
           g.deleted_at,
           coalesce(c.is_issued, 0) AS is_issued, c.issued_at, coalesce(c.in_doubt, 0) AS in_doubt,
           coalesce(c.may_exist, 0) AS may_exist, c.opens_until
    FROM access_method m JOIN access_grant g USING(access_grant_id) LEFT JOIN card_state c USING(access_method_id)
    WHERE m.workspace_id = ?1";

fn method(row: &Row<'_>) -> rusqlite::Result<Method> {
    let opens_until = maybe_time(row, "opens_until")?;
    Ok(Method {
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
