//! Spaces: named groups of doors.

use jiff::Timestamp;
use rusqlite::{Row, params};
use serde_json::Value;

use crate::{
    grants::{Refused, Resource},
    model::{AccessGrantId, AcsEntranceId, DeviceId, SpaceId},
    store::StoreError,
};

use super::{
    Fault, Listed, Page, Tenant,
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

/// What comes into a space, and what leaves it.
#[derive(Debug)]
struct Moved {
    /// The table of such members, and its column for them.
    table: (&'static str, &'static str),
    put: Vec<String>,
    drop: Vec<String>,
}

const DOORS: (&str, &str) = ("space_entrance", "acs_entrance_id");
const DEVICES: (&str, &str) = ("space_device", "device_id");

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
        self.write_members(own, &self.moved(own, DOORS, &new.entrances, &[])?)?;
        self.write_members(own, &self.moved(own, DEVICES, &devices, &[])?)?;
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
        let mut moved = Vec::new();
        if let Some(devices) = devices {
            moved.push(self.replaced(before.id, DEVICES, &devices)?);
        }
        if let Some(doors) = change.entrances {
            moved.push(self.replaced(before.id, DOORS, &doors)?);
        }
        self.move_members(now, before.id, &moved)?;
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
        let moved = match members {
            Members::Add(doors) => {
                self.targets(doors)?;
                self.moved(space, DOORS, doors, &[])?
            }
            Members::Remove(doors) => {
                self.were_there("acs_entrance", DOORS.1, Resource::AcsEntrance, doors)?;
                self.moved(space, DOORS, &[], doors)?
            }
            Members::AddDevices(devices) => {
                let devices = self.known_devices(devices)?;
                self.moved(space, DEVICES, &devices, &[])?
            }
            Members::RemoveDevices(devices) => {
                self.were_there("device", DEVICES.1, Resource::Device, devices)?;
                self.moved(space, DEVICES, &[], devices)?
            }
        };
        self.move_members(now, space, &[moved])
    }

    /// Refuses what no site ever had; what its site no longer has may be taken out all the same.
    fn were_there<T: ToString>(
        &self,
        table: &str,
        column: &str,
        resource: Resource,
        wanted: &[T],
    ) -> Result<(), Fault> {
        for id in wanted {
            let known = self.db.one(
                &format!("SELECT 1 FROM {table} WHERE {column} = ?1 AND workspace_id = ?2"),
                params![id.to_string(), self.workspace],
                |_| Ok(()),
            )?;
            known.ok_or_else(|| Refused::not_found(resource, id.to_string()))?;
        }
        Ok(())
    }

    /// These come in, as far as they are not members yet, and those leave, as far as they are.
    fn moved<T: ToString>(
        &self,
        space: SpaceId,
        table: (&'static str, &'static str),
        put: &[T],
        drop: &[T],
    ) -> Result<Moved, StoreError> {
        let held = self.members(space, table)?;
        let texts = |ids: &[T]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (mut put, mut drop) = (texts(put), texts(drop));
        put.retain(|id| !held.contains(id));
        drop.retain(|id| held.contains(id));
        Ok(Moved { table, put, drop })
    }

    /// The members become these and no others.
    fn replaced<T: ToString>(
        &self,
        space: SpaceId,
        table: (&'static str, &'static str),
        by: &[T],
    ) -> Result<Moved, StoreError> {
        let moved = self.moved(space, table, by, &[])?;
        let kept: Vec<_> = by.iter().map(ToString::to_string).collect();
        let mut drop = self.members(space, table)?;
        drop.retain(|id| !kept.contains(id));
        Ok(Moved { drop, ..moved })
    }

    /// The ids of the members, also of those that their sites no longer have.
    fn members(
        &self,
        space: SpaceId,
        (table, column): (&'static str, &'static str),
    ) -> Result<Vec<String>, StoreError> {
        self.db.all(
            &format!("SELECT {column} FROM {table} WHERE space_id = ?1 AND workspace_id = ?2"),
            params![space.to_string(), self.workspace],
            |row| row.get(0),
        )
    }

    fn write_members(&self, space: SpaceId, moved: &Moved) -> Result<(), StoreError> {
        let (table, column) = moved.table;
        for id in &moved.drop {
            self.db.execute(
                &format!("DELETE FROM {table} WHERE workspace_id = ?1 AND space_id = ?2 AND {column} = ?3"),
                params![self.workspace, space.to_string(), id],
            )?;
        }
        for id in &moved.put {
            self.db.execute(
                &format!("INSERT INTO {table} VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING"),
                params![self.workspace, space.to_string(), id],
            )?;
        }
        Ok(())
    }

    /// Moves members, and lets the grants that name the space follow.
    fn move_members(&mut self, now: Timestamp, space: SpaceId, moved: &[Moved]) -> Result<(), Fault> {
        if moved.iter().all(|moved| moved.put.is_empty() && moved.drop.is_empty()) {
            return Ok(());
        }
        self.space_is_changing(now, space)?;
        for moved in moved {
            self.write_members(space, moved)?;
        }
        let changed = self.the_space(&SpaceName::Id(space))?;
        self.tell_space(now, "space.device_membership_changed", &changed)?;
        Ok(self.follow_space(now, space)?)
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
