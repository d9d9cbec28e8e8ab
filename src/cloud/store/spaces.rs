//! Spaces: named groups of doors.

use jiff::Timestamp;
use rusqlite::params;

use crate::{
    grants::{Refused, Resource},
    model::{AcsEntranceId, SpaceId},
    store::StoreError,
};

use super::{
    Fault, Tenant,
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
        Ok(Space {
            id: own,
            name: new.name,
            space_key: new.space_key,
            customer_key: new.customer_key,
            created_at: now,
            entrance_count: doors.len(),
        })
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
