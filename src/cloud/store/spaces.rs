//! Spaces: named groups of doors.

use jiff::Timestamp;
use rusqlite::{Row, params};
use serde_json::Value;

use crate::{
    grants::{Mode, Refused, Resource, Targets, Updated, plan_space_change},
    model::{AccessGrantId, AcsEntranceId, DeviceId, SpaceId},
    store::StoreError,
};

use super::{
    Fault, GrantName, Listed, Page, Tenant,
    question::Question,
    rows::{id, maybe_id, ms, time},
    split,
};

/// A space as it is asked for.
#[derive(Debug)]
pub(crate) struct NewSpace {
    pub(crate) name: String,
    pub(crate) space_key: Option<String>,
    pub(crate) customer_key: Option<String>,
    /// What the caller keeps about whom the space is for, as JSON.
    pub(crate) customer_data: Option<Value>,
    pub(crate) entrances: Vec<AcsEntranceId>,
    pub(crate) devices: Vec<DeviceId>,
}

/// A space.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) id: SpaceId,
    pub(crate) name: String,
    pub(crate) space_key: Option<String>,
    pub(crate) customer_key: Option<String>,
    pub(crate) customer_data: Option<Value>,
    pub(crate) parent: Option<(SpaceId, Option<String>)>,
    pub(crate) created_at: Timestamp,
    pub(crate) entrance_count: usize,
    pub(crate) device_count: usize,
}

/// By what a space is asked for.
#[derive(Debug, Clone)]
pub(crate) enum SpaceName {
    Id(SpaceId),
    Key(String),
}

impl std::fmt::Display for SpaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Key(key) => key.fmt(f),
        }
    }
}

/// Which spaces.
#[derive(Debug, Default)]
pub(crate) struct SpaceFilter {
    pub(crate) key: Option<String>,
    pub(crate) parent: Option<String>,
    pub(crate) parent_key: Option<String>,
    /// Those with a door of this account.
    pub(crate) account: Option<String>,
    pub(crate) customer: Option<String>,
    pub(crate) search: Option<String>,
}

/// What becomes of a space: what is `None` stays as it is.
#[derive(Debug, Default)]
pub(crate) struct SpaceChange {
    pub(crate) name: Option<String>,
    pub(crate) entrances: Option<Vec<AcsEntranceId>>,
    pub(crate) devices: Option<Vec<DeviceId>>,
    /// Another parent, or none.
    pub(crate) parent: Option<Option<SpaceName>>,
    pub(crate) customer_key: Option<String>,
    pub(crate) customer_data: Option<Option<Value>>,
}

/// What becomes of the members of a space: its doors or its devices.
#[derive(Debug)]
pub(crate) enum Members {
    Add(Vec<AcsEntranceId>),
    Remove(Vec<AcsEntranceId>),
    AddDevices(Vec<DeviceId>),
    RemoveDevices(Vec<DeviceId>),
}

/// How deep spaces may lie in each other.
const DEEPEST: usize = 32;

impl Tenant<'_> {
    pub(crate) fn create_space(
        &mut self,
        now: Timestamp,
        new: NewSpace,
    ) -> Result<Result<Space, Refused>, StoreError> {
        split(self.try_create_space(now, new))
    }

    fn try_create_space(&mut self, now: Timestamp, new: NewSpace) -> Result<Space, Fault> {
        if let Some(key) = &new.space_key
            && let Some(holder) = self.space_by_key(key)?
        {
            return Err(Fault::Refused(Refused::Taken {
                resource: Resource::Space,
                message: format!("This space_key belongs to space {holder}"),
            }));
        }
        self.targets(&new.entrances)?;
        let devices = self.known_devices(&new.devices)?;
        let own = SpaceId(self.db.random.uuid());
        self.db.execute(
            "INSERT INTO space(space_id, workspace_id, name, space_key, customer_key, customer_data, created_at)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                own.to_string(),
                self.workspace,
                new.name,
                new.space_key,
                new.customer_key,
                self.sealed_customer(own, new.customer_data.as_ref()),
                ms(now)
            ],
        )?;
        self.put_members(own, &new.entrances)?;
        self.put_devices(own, &devices)?;
        let space = self.the_space(&SpaceName::Id(own))?;
        self.tell_space(now, "space.created", &space)?;
        Ok(space)
    }

    /// The space of an id or a key.
    fn space(&self, name: &SpaceName) -> Result<Option<Space>, StoreError> {
        let (column, value) = match name {
            SpaceName::Id(id) => ("space_id", id.to_string()),
            SpaceName::Key(key) => ("space_key", key.clone()),
        };
        let found = self.db.one(
            &format!("{SPACES} WHERE s.workspace_id = ?1 AND s.{column} = ?2 AND s.deleted_at IS NULL"),
            params![self.workspace, value],
            space,
        )?;
        found.map(|found| self.open_space(found)).transpose()
    }

    pub(crate) fn space_named(&mut self, name: &SpaceName) -> Result<Result<Space, Refused>, StoreError> {
        split(self.the_space(name))
    }

    fn the_space(&self, name: &SpaceName) -> Result<Space, Fault> {
        let known = self.space(name)?;
        known.ok_or_else(|| Fault::Refused(Refused::not_found(Resource::Space, name)))
    }

    /// Spaces in the order of their making.
    pub(crate) fn spaces(&mut self, filter: &SpaceFilter, page: Page) -> Result<Listed<Space>, StoreError> {
        let question = Question::of(SPACES, "s")
            .within("s.space_key = ?#", filter.key.clone())
            .among("s.parent_space_id = ?#", filter.parent.clone())
            .and("parent.space_key = ?#", filter.parent_key.clone())
            .and(
                "EXISTS (SELECT 1 FROM space_entrance o JOIN acs_entrance USING(acs_entrance_id)
                         JOIN acs_system USING(acs_system_id)
                         WHERE o.space_id = s.space_id AND connected_account_id = ?#)",
                filter.account.clone(),
            )
            .among("s.customer_key = ?#", filter.customer.clone())
            .and(
                "(instr(lower(s.name), lower(?#)) > 0 OR instr(lower(coalesce(s.space_key, '')), lower(?#)) > 0)",
                filter.search.clone(),
            )
            .only("s.deleted_at IS NULL");
        self.listed(question, page, space)?.try_map(|found| self.open_space(found))
    }

    fn open_space(&self, (mut space, sealed): (Space, Option<Vec<u8>>)) -> Result<Space, StoreError> {
        if let Some(sealed) = sealed {
            let place = customer_place(space.id);
            let plain = self.db.seal.open(&place, &sealed)?;
            space.customer_data =
                serde_json::from_slice(&plain).map_err(|error| StoreError::corrupt(place, error))?;
        }
        Ok(space)
    }

    fn sealed_customer(&self, own: SpaceId, data: Option<&Value>) -> Option<Vec<u8>> {
        data.map(|data| self.db.seal.seal(&customer_place(own), data.to_string().as_bytes()))
    }

    pub(crate) fn change_space(
        &mut self,
        now: Timestamp,
        name: &SpaceName,
        change: SpaceChange,
    ) -> Result<Result<Space, Refused>, StoreError> {
        split(self.try_change_space(now, name, change))
    }

    fn try_change_space(
        &mut self,
        now: Timestamp,
        name: &SpaceName,
        change: SpaceChange,
    ) -> Result<Space, Fault> {
        let before = self.the_space(name)?;
        let parent = match &change.parent {
            None => before.parent.as_ref().map(|(parent, _)| *parent),
            Some(None) => None,
            Some(Some(parent)) => Some(self.parent_for(before.id, parent)?),
        };
        if let Some(doors) = &change.entrances {
            self.targets(doors)?;
        }
        let devices = change.devices.map(|devices| self.known_devices(&devices)).transpose()?;
        let customer_data = change.customer_data.unwrap_or(before.customer_data);
        self.db.execute(
            "UPDATE space SET name = ?3, parent_space_id = ?4, customer_key = ?5, customer_data = ?6
             WHERE space_id = ?1 AND workspace_id = ?2",
            params![
                before.id.to_string(),
                self.workspace,
                change.name.unwrap_or(before.name),
                parent.map(|parent| parent.to_string()),
                change.customer_key.or(before.customer_key),
                self.sealed_customer(before.id, customer_data.as_ref()),
            ],
        )?;
        // A new name leads nobody elsewhere.
        let led_to = match (&devices, &change.entrances) {
            (None, None) => Vec::new(),
            _ => self.led_to(now, before.id)?,
        };
        let mut changed = 0;
        if let Some(devices) = devices {
            let held = self.devices_of_space(before.id)?;
            let gone: Vec<_> = held.into_iter().filter(|device| !devices.contains(device)).collect();
            changed += self.drop_devices(before.id, &gone)? + self.put_devices(before.id, &devices)?;
        }
        if let Some(doors) = change.entrances {
            let held = self.doors_of_space(before.id)?.unwrap_or_default();
            let gone: Vec<_> = held.iter().copied().filter(|door| !doors.contains(door)).collect();
            changed += self.drop_members(before.id, &gone)? + self.put_members(before.id, &doors)?;
        }
        if changed > 0 {
            self.members_changed(now, before.id, &led_to)?;
        }
        self.the_space(&SpaceName::Id(before.id))
    }

    /// A space that may be the parent of another: it is there, and does not lie in it.
    fn parent_for(&self, own: SpaceId, parent: &SpaceName) -> Result<SpaceId, Fault> {
        let parent = self.the_space(parent)?.id;
        let mut above = Some(parent);
        for _ in 0..DEEPEST {
            match above {
                None => return Ok(parent),
                Some(id) if id == own => break,
                Some(id) => {
                    above = self.space(&SpaceName::Id(id))?.and_then(|space| space.parent).map(|(id, _)| id);
                }
            }
        }
        Err(Fault::Refused(Refused::ParentInside))
    }

    /// Deletes a space that no live grant names.
    pub(crate) fn delete_space(
        &mut self,
        now: Timestamp,
        wanted: SpaceId,
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_delete_space(now, wanted))
    }

    fn try_delete_space(&mut self, now: Timestamp, wanted: SpaceId) -> Result<(), Fault> {
        let space = self.the_space(&SpaceName::Id(wanted))?;
        let own = space.id.to_string();
        let live = self.db.one(
            "SELECT access_grant_id FROM grant_space JOIN access_grant g USING(access_grant_id)
             WHERE space_id = ?1 AND g.workspace_id = ?2 AND deleted_at IS NULL
               AND (ends_at IS NULL OR ends_at > ?3) LIMIT 1",
            params![own, self.workspace, ms(now)],
            |row| id::<AccessGrantId>(row, "access_grant_id"),
        )?;
        if let Some(grant) = live {
            return Err(Fault::Refused(Refused::StillNeeded {
                resource: Resource::Space,
                message: format!(
                    "Access grant {grant} names this space: delete the grant first, or take doors out of the space"
                ),
            }));
        }
        self.tell_space(now, "space.deleted", &space)?;
        self.db.execute("DELETE FROM space_entrance WHERE space_id = ?1", [&own])?;
        self.db.execute("DELETE FROM space_device WHERE space_id = ?1", [&own])?;
        self.db.execute("UPDATE space SET parent_space_id = NULL WHERE parent_space_id = ?1", [&own])?;
        // What is over may still name it.
        self.db.execute(
            "UPDATE space SET deleted_at = ?2, space_key = NULL, customer_data = NULL WHERE space_id = ?1",
            params![own, ms(now)],
        )?;
        Ok(())
    }

    /// Adds doors to a space, or takes them out. Grants that name the space follow it: a card that was written asks to be
    /// written again, and one that cannot carry the doors any more says so.
    pub(crate) fn change_members(
        &mut self,
        now: Timestamp,
        space: SpaceId,
        members: &Members,
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_change_members(now, space, members))
    }

    fn try_change_members(&mut self, now: Timestamp, space: SpaceId, members: &Members) -> Result<(), Fault> {
        self.the_space(&SpaceName::Id(space))?;
        let led_to = self.led_to(now, space)?;
        let changed = match members {
            Members::Add(doors) => {
                self.targets(doors)?;
                self.put_members(space, doors)?
            }
            Members::Remove(doors) => {
                for door in doors {
                    // Also one that the site no longer has.
                    let known = self.db.one(
                        "SELECT 1 FROM acs_entrance WHERE acs_entrance_id = ?1 AND workspace_id = ?2",
                        params![door.to_string(), self.workspace],
                        |_| Ok(()),
                    )?;
                    known.ok_or_else(|| Refused::not_found(Resource::AcsEntrance, door))?;
                }
                self.drop_members(space, doors)?
            }
            Members::AddDevices(devices) => {
                let devices = self.known_devices(devices)?;
                self.put_devices(space, &devices)?
            }
            Members::RemoveDevices(devices) => {
                for device in devices {
                    let known = self.db.one(
                        "SELECT 1 FROM device WHERE device_id = ?1 AND workspace_id = ?2",
                        params![device.to_string(), self.workspace],
                        |_| Ok(()),
                    )?;
                    known.ok_or_else(|| Refused::not_found(Resource::Device, device))?;
                }
                self.drop_devices(space, devices)?
            }
        };
        if changed > 0 {
            self.members_changed(now, space, &led_to)?;
        }
        Ok(())
    }

    /// Says how many came in.
    fn put_members(&self, space: SpaceId, doors: &[AcsEntranceId]) -> Result<usize, StoreError> {
        let mut put = 0;
        for door in doors {
            put += self.db.execute(
                "INSERT INTO space_entrance VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![self.workspace, space.to_string(), door.to_string()],
            )?;
        }
        Ok(put)
    }

    /// Says how many went out.
    fn drop_members(&self, space: SpaceId, doors: &[AcsEntranceId]) -> Result<usize, StoreError> {
        let mut dropped = 0;
        for door in doors {
            dropped += self.db.execute(
                "DELETE FROM space_entrance WHERE workspace_id = ?1 AND space_id = ?2 AND acs_entrance_id = ?3",
                params![self.workspace, space.to_string(), door.to_string()],
            )?;
        }
        Ok(dropped)
    }

    /// Says how many came in.
    fn put_devices(&self, space: SpaceId, devices: &[DeviceId]) -> Result<usize, StoreError> {
        let mut put = 0;
        for device in devices {
            put += self.db.execute(
                "INSERT INTO space_device VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![self.workspace, space.to_string(), device.to_string()],
            )?;
        }
        Ok(put)
    }

    /// Says how many went out.
    fn drop_devices(&self, space: SpaceId, devices: &[DeviceId]) -> Result<usize, StoreError> {
        let mut dropped = 0;
        for device in devices {
            dropped += self.db.execute(
                "DELETE FROM space_device WHERE workspace_id = ?1 AND space_id = ?2 AND device_id = ?3",
                params![self.workspace, space.to_string(), device.to_string()],
            )?;
        }
        Ok(dropped)
    }

    fn tell_space(&mut self, now: Timestamp, kind: &'static str, space: &Space) -> Result<(), StoreError> {
        let doors = self.doors_of_space(space.id)?.unwrap_or_default();
        let devices = self.devices_of_space(space.id)?;
        self.tell_of_space(now, kind, space, &doors, &devices)
    }

    /// The live grants that name a space.
    pub(crate) fn grants_of_space(&self, space: SpaceId) -> Result<Vec<AccessGrantId>, StoreError> {
        self.db.all(
            "SELECT access_grant_id FROM grant_space JOIN access_grant USING(access_grant_id)
             WHERE space_id = ?1 AND access_grant.workspace_id = ?2 AND deleted_at IS NULL
             ORDER BY access_grant.rowid",
            params![space.to_string(), self.workspace],
            |row| id(row, "access_grant_id"),
        )
    }

    /// The doors of a grant that are still there, those of its spaces included.
    pub(crate) fn doors_of_grant(&self, grant: AccessGrantId) -> Result<Vec<AcsEntranceId>, StoreError> {
        self.db.all(
            "SELECT acs_entrance_id FROM acs_entrance e
             WHERE workspace_id = ?2 AND removed_at IS NULL AND acs_entrance_id IN (
               SELECT acs_entrance_id FROM grant_entrance WHERE access_grant_id = ?1
               UNION ALL SELECT acs_entrance_id FROM grant_space JOIN space_entrance USING(space_id)
               WHERE access_grant_id = ?1)
             ORDER BY e.rowid",
            params![grant.to_string(), self.workspace],
            |row| id(row, "acs_entrance_id"),
        )
    }

    /// The live grants that name a space, and where each of them leads. What is over follows nothing; should it begin anew,
    /// it finds the members of then.
    fn led_to(&self, now: Timestamp, space: SpaceId) -> Result<Vec<(AccessGrantId, Targets)>, Fault> {
        let live = self.db.all(
            "SELECT access_grant_id FROM grant_space JOIN access_grant g USING(access_grant_id)
             WHERE space_id = ?1 AND g.workspace_id = ?2 AND deleted_at IS NULL AND (ends_at IS NULL OR ends_at > ?3)
             ORDER BY g.rowid",
            params![space.to_string(), self.workspace, ms(now)],
            |row| id(row, "access_grant_id"),
        )?;
        live.into_iter().map(|grant| Ok((grant, self.targets_of(grant)?))).collect()
    }

    fn members_changed(
        &mut self,
        now: Timestamp,
        space: SpaceId,
        led_to: &[(AccessGrantId, Targets)],
    ) -> Result<(), Fault> {
        let changed = self.the_space(&SpaceName::Id(space))?;
        self.tell_space(now, "space.device_membership_changed", &changed)?;
        led_to.iter().try_for_each(|(grant, before)| self.space_changed(now, *grant, before))
    }

    fn space_changed(&mut self, now: Timestamp, grant: AccessGrantId, before: &Targets) -> Result<(), Fault> {
        self.follow_devices(now, grant)?;
        let Some(known) = self.grant(&GrantName::Id(grant))? else { return Ok(()) };
        if known.methods.iter().all(|method| method.mode != Mode::Card) {
            return Ok(());
        }
        let targets = self.targets_of(grant)?;
        let key = known.reservation_key.as_ref();
        let change = plan_space_change(grant, &known.window, key, &targets, !known.errors.is_empty());
        match change.problem {
            Some(problem) => {
                self.db.execute(
                    "INSERT INTO grant_error VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                    params![self.workspace, grant.to_string(), problem.code, problem.message, ms(now)],
                )?;
            }
            // Nobody writes a card for what is over.
            None if known.window.is_over(now) => {}
            None => {
                let as_before = Updated { window: known.window, reservation_rooms: None };
                self.update_cards(now, &known, &as_before, before, &targets)?;
            }
        }
        Ok(self.tell(now, &change.events)?)
    }

    pub(super) fn space_by_key(&self, key: &str) -> Result<Option<SpaceId>, StoreError> {
        self.db.one(
            "SELECT space_id FROM space WHERE workspace_id = ?1 AND space_key = ?2",
            params![self.workspace, key],
            |row| id(row, "space_id"),
        )
    }

    /// The doors of a space; `None` where there is no such space.
    pub(super) fn doors_of_space(&self, space: SpaceId) -> Result<Option<Vec<AcsEntranceId>>, StoreError> {
        let known = self.db.one(
            "SELECT 1 FROM space WHERE space_id = ?1 AND workspace_id = ?2 AND deleted_at IS NULL",
            params![space.to_string(), self.workspace],
            |_| Ok(()),
        )?;
        if known.is_none() {
            return Ok(None);
        }
        let doors = self.db.all(
            "SELECT acs_entrance_id FROM space_entrance JOIN acs_entrance USING(acs_entrance_id)
             WHERE space_id = ?1 AND removed_at IS NULL ORDER BY space_entrance.rowid",
            [space.to_string()],
            |row| id(row, "acs_entrance_id"),
        )?;
        Ok(Some(doors))
    }
}

const SPACES: &str = "
    SELECT s.rowid AS place, s.*, parent.space_key AS parent_space_key,
           (SELECT count(*) FROM space_entrance e JOIN acs_entrance a USING(acs_entrance_id)
            WHERE e.space_id = s.space_id AND a.removed_at IS NULL) AS entrance_count,
           (SELECT count(*) FROM space_device d JOIN device USING(device_id)
            WHERE d.space_id = s.space_id AND device.removed_at IS NULL) AS device_count
    FROM space s LEFT JOIN space parent ON parent.space_id = s.parent_space_id";

fn space(row: &Row<'_>) -> rusqlite::Result<(Space, Option<Vec<u8>>)> {
    let parent: Option<SpaceId> = maybe_id(row, "parent_space_id")?;
    let parent_key: Option<String> = row.get("parent_space_key")?;
    let space = Space {
        id: id(row, "space_id")?,
        name: row.get("name")?,
        space_key: row.get("space_key")?,
        customer_key: row.get("customer_key")?,
        customer_data: None,
        parent: parent.map(|parent| (parent, parent_key)),
        created_at: time(row, "created_at")?,
        entrance_count: usize::try_from(row.get::<_, i64>("entrance_count")?).unwrap_or(0),
        device_count: usize::try_from(row.get::<_, i64>("device_count")?).unwrap_or(0),
    };
    Ok((space, row.get("customer_data")?))
}

fn customer_place(space: SpaceId) -> String {
    format!("space.customer_data/{space}")
}
