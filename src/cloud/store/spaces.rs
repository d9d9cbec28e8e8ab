//! Spaces: named groups of doors.

use jiff::Timestamp;
use rusqlite::params;

use crate::{
    grants::{Mode, Refused, Resource, plan_space_change},
    model::{AccessGrantId, AcsEntranceId, DeviceId, SpaceId},
    store::StoreError,
};

use super::{
    Fault, GrantName, Tenant,
    rows::{id, ms},
    split,
};

/// A space as it is asked for.
#[derive(Debug)]
pub(crate) struct NewSpace {
    pub(crate) name: String,
    pub(crate) space_key: Option<String>,
    pub(crate) customer_key: Option<String>,
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
    pub(crate) created_at: Timestamp,
    pub(crate) entrance_count: usize,
    pub(crate) device_count: usize,
}

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
        let mut doors = new.entrances;
        doors.sort_unstable();
        doors.dedup();
        self.targets(&doors)?;
        let devices = self.known_devices(&new.devices)?;
        let own = SpaceId(self.db.random.uuid());
        self.db.execute(
            "INSERT INTO space VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            params![own.to_string(), self.workspace, new.name, new.space_key, new.customer_key, ms(now)],
        )?;
        for door in &doors {
            self.db.execute(
                "INSERT INTO space_entrance VALUES(?1, ?2, ?3)",
                params![self.workspace, own.to_string(), door.to_string()],
            )?;
        }
        for device in &devices {
            self.db.execute(
                "INSERT INTO space_device VALUES(?1, ?2, ?3)",
                params![self.workspace, own.to_string(), device.to_string()],
            )?;
        }
        Ok(Space {
            id: own,
            name: new.name,
            space_key: new.space_key,
            customer_key: new.customer_key,
            created_at: now,
            entrance_count: doors.len(),
            device_count: devices.len(),
        })
    }

    /// Adds doors to a space. Grants that name the space follow it at their next encoding; one whose card cannot carry
    /// the doors any more says so.
    pub(crate) fn add_doors(
        &mut self,
        now: Timestamp,
        space: SpaceId,
        doors: &[AcsEntranceId],
    ) -> Result<Result<(), Refused>, StoreError> {
        split(self.try_add_doors(now, space, doors))
    }

    fn try_add_doors(
        &mut self,
        now: Timestamp,
        space: SpaceId,
        doors: &[AcsEntranceId],
    ) -> Result<(), Fault> {
        self.doors_of_space(space)?.ok_or_else(|| Refused::not_found(Resource::Space, space))?;
        self.targets(doors)?;
        for door in doors {
            self.db.execute(
                "INSERT INTO space_entrance VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![self.workspace, space.to_string(), door.to_string()],
            )?;
        }
        let grants = self.db.all(
            "SELECT access_grant_id FROM grant_space JOIN access_grant USING(access_grant_id)
             WHERE space_id = ?1 AND access_grant.workspace_id = ?2 AND deleted_at IS NULL
             ORDER BY access_grant.rowid",
            params![space.to_string(), self.workspace],
            |row| id::<AccessGrantId>(row, "access_grant_id"),
        )?;
        grants.into_iter().try_for_each(|grant| self.space_changed(now, grant))
    }

    fn space_changed(&mut self, now: Timestamp, grant: AccessGrantId) -> Result<(), Fault> {
        self.follow_devices(now, grant)?;
        let Some(known) = self.grant(&GrantName::Id(grant))? else { return Ok(()) };
        if known.methods.iter().all(|method| method.mode != Mode::Card) {
            return Ok(());
        }
        let targets = self.targets_of(grant)?;
        let key = known.reservation_key.as_ref();
        let change = plan_space_change(grant, &known.window, key, &targets, !known.errors.is_empty());
        if let Some(problem) = change.problem {
            self.db.execute(
                "INSERT INTO grant_error VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                params![self.workspace, grant.to_string(), problem.code, problem.message, ms(now)],
            )?;
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
            "SELECT 1 FROM space WHERE space_id = ?1 AND workspace_id = ?2",
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
