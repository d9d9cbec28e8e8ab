//! Where grants lead.

use rusqlite::params;

use crate::{
    grants::{Means, Refused, ReservationFacts, Resource, TargetDoor, Targets},
    model::{AccessGrantId, AcsEntranceId, AcsSystemId, DeviceId, DoorName, ReservationKey},
    store::StoreError,
};

use super::{
    super::{
        Fault, Tenant,
        rows::{id, parsed},
        sites,
    },
    DOORS_OF_GRANT, target_system, window,
};

impl Tenant<'_> {
    /// The doors with their systems, none twice. A door that is not there, or no longer, refuses.
    pub(in crate::cloud::store) fn targets(&self, doors: &[AcsEntranceId]) -> Result<Targets, Fault> {
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
    pub(in crate::cloud::store) fn targets_of(&self, grant: AccessGrantId) -> Result<Targets, Fault> {
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

    /// Of these rooms, those that their sites have.
    pub(in crate::cloud::store) fn still_there(&self, wanted: &[AcsEntranceId]) -> Result<Targets, Fault> {
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

    /// A room of a grant that its system no longer has.
    pub(in crate::cloud::store) fn lost_room(
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

    /// What devices offer beside cards.
    pub(in crate::cloud::store) fn means(&self, devices: &[DeviceId]) -> Result<Means, StoreError> {
        let mut means = Means {
            devices: !devices.is_empty(),
            mobile_keys: self.db.has_mobile_keys(),
            ..Means::default()
        };
        for device in devices {
            means.card_numbers |= self.takes_cards(*device)?;
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

    /// What is known of a stay, apart from a grant of it.
    pub(in crate::cloud::store) fn reservation(
        &self,
        key: Option<&ReservationKey>,
        but: Option<AccessGrantId>,
    ) -> Result<ReservationFacts, StoreError> {
        let Some(key) = key else {
            return Ok(ReservationFacts::default());
        };
        Ok(ReservationFacts {
            rooms: self.reservation_rooms(key)?,
            windows: self.db.all(
                "SELECT starts_at, ends_at FROM access_grant
                 WHERE workspace_id = ?1 AND reservation_key = ?2 AND deleted_at IS NULL
                   AND access_grant_id IS NOT ?3 ORDER BY rowid",
                params![self.workspace, key.as_str(), but.map(|grant| grant.to_string())],
                window,
            )?,
        })
    }

    pub(in crate::cloud::store) fn reservation_rooms(
        &self,
        key: &ReservationKey,
    ) -> Result<Vec<AcsEntranceId>, StoreError> {
        self.db.all(
            "SELECT acs_entrance_id FROM reservation_entrance WHERE workspace_id = ?1 AND reservation_key = ?2
             ORDER BY rowid",
            params![self.workspace, key.as_str()],
            |row| id(row, "acs_entrance_id"),
        )
    }
}
