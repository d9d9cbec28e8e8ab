//! Devices: what sites have of them, how they are, and which are asked for.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Row, params};
use serde_json::{Value, json};

use crate::{
    grants::{Event, Refused, Resource, Subject},
    model::{
        AcsSystemId, BridgeId, ConnectedAccountId, Device, DeviceId, DeviceName, Job, JobId, Order, Priority,
        SpaceId, SystemName, WorkspaceId,
    },
    store::StoreError,
};

use super::{
    Db, Fault, Listed, Page, Tenant,
    question::Question,
    rows::{id, id_list, json, maybe_time, ms, parsed, time},
};

/// A device that holds codes is read this often, so that one which lost its memory is found out.
pub(super) const READ_EVERY: SignedDuration = SignedDuration::from_hours(24);
/// A reading that did not come about is tried again after this long.
const READ_AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// A device.
#[derive(Debug)]
pub(crate) struct DeviceRow {
    pub(crate) id: DeviceId,
    pub(crate) account: ConnectedAccountId,
    pub(crate) time_zone: String,
    /// Whether its system can put codes into devices, and open them.
    pub(crate) has_slots: bool,
    pub(crate) can_be_opened: bool,
    pub(crate) declared: Device,
    pub(crate) created_at: Timestamp,
    pub(crate) removed_at: Option<Timestamp>,
    pub(crate) spaces: Vec<SpaceId>,
    pub(crate) troubles: Vec<DeviceTrouble>,
    /// How many codes it holds or should hold.
    pub(crate) codes: u32,
}

/// What keeps a device from working.
#[derive(Debug)]
pub(crate) struct DeviceTrouble {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) since: Timestamp,
}

impl DeviceTrouble {
    pub(crate) fn to_json(&self) -> Value {
        let mut error = json!({
            "error_code": self.code,
            "message": self.message,
            "created_at": crate::cloud::time_text(self.since),
        });
        match self.code {
            "bridge_disconnected" => {
                error["is_connected_account_error"] = json!(true);
                error["is_device_error"] = json!(false);
            }
            _ => error["is_device_error"] = json!(true),
        }
        error
    }
}

/// Which devices.
#[derive(Debug, Default)]
pub(crate) struct DeviceFilter {
    pub(crate) ids: Option<Vec<DeviceId>>,
    pub(crate) accounts: Option<Vec<ConnectedAccountId>>,
    pub(crate) types: Option<Vec<String>>,
    pub(crate) manufacturer: Option<String>,
    pub(crate) space: Option<String>,
    pub(crate) search: Option<String>,
    pub(crate) customer: Option<String>,
    /// Those that a grant or a method is for.
    pub(crate) grant: Option<String>,
    pub(crate) method: Option<String>,
}

/// Where a device is reached.
pub(super) struct Reached {
    pub(super) bridge: BridgeId,
    pub(super) system: SystemName,
    pub(super) name: DeviceName,
}

impl Tenant<'_> {
    /// Makes a system's devices those that the picture shows.
    pub(super) fn keep_devices(
        &mut self,
        now: Timestamp,
        system: AcsSystemId,
        picture: &[Device],
    ) -> Result<(), StoreError> {
        let mut known: BTreeMap<String, (DeviceId, bool, String)> = self
            .db
            .all(
                "SELECT device_id, name, declared, removed_at IS NULL AS here FROM device
                 WHERE acs_system_id = ?1 AND workspace_id = ?2",
                params![system.to_string(), self.workspace],
                |row| {
                    let known = (id(row, "device_id")?, row.get("here")?, row.get("declared")?);
                    Ok((row.get("name")?, known))
                },
            )?
            .into_iter()
            .collect();
        let mut seen = std::collections::BTreeSet::new();
        for device in picture.iter().filter(|device| seen.insert(device.name.clone())) {
            let before = known.remove(device.name.as_str());
            let own = before.as_ref().map_or_else(|| DeviceId(self.db.random.uuid()), |(id, ..)| *id);
            let declared = serde_json::to_string(device)
                .map_err(|error| StoreError::corrupt("device.declared", error))?;
            if before.as_ref().is_some_and(|(_, here, known)| *here && *known == declared) {
                continue;
            }
            self.db.execute(
                "INSERT INTO device(device_id, workspace_id, acs_system_id, name, display_name, declared, connected,
                                    created_at)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)
                 ON CONFLICT(device_id) DO UPDATE SET display_name = excluded.display_name,
                   declared = excluded.declared, removed_at = NULL",
                params![
                    own.to_string(),
                    self.workspace,
                    system.to_string(),
                    device.name.as_str(),
                    device.display_name,
                    declared,
                    ms(now)
                ],
            )?;
            if before.is_none_or(|(_, here, _)| !here) {
                self.tell(now, &[Event::new("device.added", Subject::Device(own, system))])?;
            }
            self.codes_of_device_due(now, own)?;
        }
        for (gone, _, _) in known.into_values().filter(|(_, here, _)| *here) {
            self.db.execute(
                "UPDATE device SET removed_at = ?2, connected = 0 WHERE device_id = ?1",
                params![gone.to_string(), ms(now)],
            )?;
            self.tell(now, &[Event::new("device.removed", Subject::Device(gone, system))])?;
            self.codes_of_device_due(now, gone)?;
        }
        Ok(())
    }

    /// Grants that lead to a device, or have left a code there, are looked at again.
    fn codes_of_device_due(&self, now: Timestamp, device: DeviceId) -> Result<(), StoreError> {
        self.db.execute(
            "UPDATE code_grant SET due_at = ?2 WHERE workspace_id = ?3 AND access_grant_id IN (
               SELECT access_grant_id FROM (
                 SELECT access_grant_id FROM grant_device WHERE device_id = ?1
                 UNION SELECT access_grant_id FROM grant_space JOIN space_device USING(space_id) WHERE device_id = ?1)
               JOIN access_grant g USING(access_grant_id)
               WHERE g.deleted_at IS NULL AND (g.ends_at IS NULL OR g.ends_at > ?2)
               UNION SELECT access_grant_id FROM access_method JOIN desired_slot USING(access_method_id)
               WHERE device_id = ?1)",
            params![device.to_string(), ms(now), self.workspace],
        )?;
        self.strays_due(now, device)
    }

    /// What keeps a device from working now.
    pub(super) fn device_troubles(&self, device: DeviceId) -> Result<Vec<DeviceTrouble>, StoreError> {
        let away = self.db.all(
            "SELECT site.since AS since FROM device JOIN acs_system USING(acs_system_id) JOIN site USING(bridge_id)
             WHERE device_id = ?1 AND device.workspace_id = ?2 AND up = 0",
            params![device.to_string(), self.workspace],
            |row| {
                Ok(DeviceTrouble {
                    code: "bridge_disconnected",
                    message: "The property's bridge is not connected".into(),
                    since: time(row, "since")?,
                })
            },
        )?;
        let down = self.db.all(
            "SELECT message, c.since, c.subject = s.name AS whole FROM device d JOIN acs_system s USING(acs_system_id)
             JOIN site_condition c USING(bridge_id)
             WHERE d.device_id = ?1 AND d.workspace_id = ?2
               AND ((c.subject = s.name AND c.severity = 'error')
                    OR (c.subject = s.name || '/' || d.name AND c.severity <> 'notice'))
             ORDER BY c.rowid",
            params![device.to_string(), self.workspace],
            |row| {
                let whole: bool = row.get("whole")?;
                Ok(DeviceTrouble {
                    code: if whole { "device_disconnected" } else { "device_offline" },
                    message: row.get("message")?,
                    since: time(row, "since")?,
                })
            },
        )?;
        Ok(away.into_iter().chain(down).collect())
    }

    pub(crate) fn devices(
        &mut self,
        filter: &DeviceFilter,
        page: Page,
    ) -> Result<Listed<DeviceRow>, StoreError> {
        let question = Question::of(
            "SELECT d.rowid AS place, d.*, s.connected_account_id, s.time_zone, s.capabilities,
               (SELECT count(*) FROM desired_slot p LEFT JOIN observed_slot o USING(device_id, access_method_id)
                WHERE p.device_id = d.device_id AND (p.pin IS NOT NULL OR o.generation IS NOT NULL)) AS codes
             FROM device d JOIN acs_system s USING(acs_system_id)",
            "d",
        )
        .among("d.device_id IN (SELECT value FROM json_each(?#))", id_list(filter.ids.as_deref()))
        .and(
            "s.connected_account_id IN (SELECT value FROM json_each(?#))",
            id_list(filter.accounts.as_deref()),
        )
        .and(
            "json_extract(d.declared, '$.device_type') IN (SELECT value FROM json_each(?#))",
            id_list(filter.types.as_deref()),
        )
        .and("lower(json_extract(d.declared, '$.manufacturer')) = lower(?#)", filter.manufacturer.clone())
        .among("d.device_id IN (SELECT device_id FROM space_device WHERE space_id = ?#)", filter.space.clone())
        .and("instr(lower(coalesce(d.display_name, d.name)), lower(?#)) > 0", filter.search.clone())
        .among(
            "d.device_id IN (
               SELECT device_id FROM space JOIN space_device USING(space_id) WHERE customer_key = ?#)",
            filter.customer.clone(),
        )
        .among(
            "d.device_id IN (
               SELECT device_id FROM grant_device WHERE access_grant_id = ?#
               UNION SELECT device_id FROM grant_space JOIN space_device USING(space_id)
               WHERE access_grant_id = ?#)",
            filter.grant.clone(),
        )
        .among(
            "d.device_id IN (SELECT value FROM code_method, json_each(device_ids) WHERE access_method_id = ?#)",
            filter.method.clone(),
        );
        let mut listed = self.listed(question, page, device)?;
        for device in &mut listed.rows {
            device.spaces = self.db.all(
                "SELECT space_id FROM space_device WHERE device_id = ?1 ORDER BY rowid",
                [device.id.to_string()],
                |row| id(row, "space_id"),
            )?;
            device.troubles = self.device_troubles(device.id)?;
        }
        Ok(listed)
    }

    /// The same devices, none twice. One that is not there, or no longer, refuses.
    pub(super) fn known_devices(&self, devices: &[DeviceId]) -> Result<Vec<DeviceId>, Fault> {
        let mut seen = std::collections::BTreeSet::new();
        let devices: Vec<_> = devices.iter().copied().filter(|device| seen.insert(*device)).collect();
        for device in &devices {
            let here = self.db.one(
                "SELECT 1 FROM device WHERE device_id = ?1 AND workspace_id = ?2 AND removed_at IS NULL",
                params![device.to_string(), self.workspace],
                |_| Ok(()),
            )?;
            here.ok_or_else(|| Refused::not_found(Resource::Device, device))?;
        }
        Ok(devices)
    }

    /// The devices of a space, as they are now.
    pub(super) fn devices_of_space(&self, space: SpaceId) -> Result<Vec<DeviceId>, StoreError> {
        self.db.all(
            "SELECT device_id FROM space_device JOIN device USING(device_id)
             WHERE space_id = ?1 AND space_device.workspace_id = ?2 AND removed_at IS NULL ORDER BY space_device.rowid",
            params![space.to_string(), self.workspace],
            |row| id(row, "device_id"),
        )
    }

    pub(super) fn reached(&self, device: DeviceId) -> Result<Option<Reached>, StoreError> {
        self.db.one(
            "SELECT d.name AS device, s.name AS system, s.bridge_id FROM device d JOIN acs_system s USING(acs_system_id)
             WHERE d.device_id = ?1 AND d.workspace_id = ?2",
            params![device.to_string(), self.workspace],
            |row| {
                Ok(Reached {
                    bridge: id(row, "bridge_id")?,
                    system: parsed(row, "system")?,
                    name: parsed(row, "device")?,
                })
            },
        )
    }
}

impl Db {
    /// Tells which devices came or went by what is known now. One that is back is read, and what it refused is tried
    /// again.
    pub(super) fn tell_devices(
        &mut self,
        now: Timestamp,
        workspace: WorkspaceId,
        bridge: BridgeId,
    ) -> Result<(), StoreError> {
        let devices = self.all(
            "SELECT device_id, acs_system_id, device.connected AS connected
             FROM acs_system CROSS JOIN device USING(acs_system_id)
             WHERE bridge_id = ?1 AND device.removed_at IS NULL ORDER BY device.rowid",
            [bridge.to_string()],
            |row| {
                let connected: bool = row.get("connected")?;
                Ok((id::<DeviceId>(row, "device_id")?, id::<AcsSystemId>(row, "acs_system_id")?, connected))
            },
        )?;
        for (device, system, was) in devices {
            let mut tenant = self.tenant(workspace);
            let troubles = tenant.device_troubles(device)?;
            let is = troubles.is_empty();
            if is == was {
                continue;
            }
            tenant.db.execute(
                "UPDATE device SET connected = ?2 WHERE device_id = ?1",
                params![device.to_string(), is],
            )?;
            if is {
                tenant.tell(now, &[Event::new("device.connected", Subject::Device(device, system))])?;
                tenant.device_is_back(now, device)?;
                continue;
            }
            let code = match troubles.first().map(|trouble| trouble.code) {
                Some("bridge_disconnected") => "hub_disconnected",
                _ => "device_disconnected",
            };
            let errors: Vec<_> = troubles.iter().map(DeviceTrouble::to_json).collect();
            let more = json!({
                "error_code": code,
                "device_errors": errors,
                "device_warnings": [],
                "connected_account_errors": [],
                "connected_account_warnings": [],
            });
            tenant.tell_more(
                now,
                &Event::new("device.disconnected", Subject::Device(device, system)),
                more,
            )?;
        }
        Ok(())
    }

    /// Orders the readings whose time has come; says when the next one does.
    pub(super) fn read_devices(&mut self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        if self.disk_is_full {
            return Ok(None);
        }
        let due = self.all(
            "SELECT device_id, workspace_id FROM device
             WHERE read_due <= ?1 AND connected = 1 AND removed_at IS NULL ORDER BY read_due",
            [ms(now)],
            |row| Ok((id::<DeviceId>(row, "device_id")?, id::<WorkspaceId>(row, "workspace_id")?)),
        )?;
        for (device, workspace) in due {
            let reached = self.tenant(workspace).reached(device)?;
            let Some(reached) = reached else { continue };
            let job = JobId(self.random.uuid_at(now));
            let job = Job {
                job_id: job,
                system: reached.system,
                priority: Priority::Background,
                created_at: now,
                expires_at: now.saturating_add(READ_AGAIN).unwrap_or(now),
                order: Order::DeviceRead { device: reached.name },
            };
            self.execute(
                "UPDATE device SET read_job = ?2, read_due = ?3 WHERE device_id = ?1",
                params![
                    device.to_string(),
                    job.job_id.to_string(),
                    ms(now.saturating_add(READ_AGAIN).unwrap_or(now))
                ],
            )?;
            self.enqueue_job(now, reached.bridge, &job)?;
            self.has_ordered = true;
        }
        let next = self.one(
            "SELECT min(read_due) AS next FROM device WHERE read_due IS NOT NULL AND connected = 1 AND removed_at IS NULL",
            [],
            |row| maybe_time(row, "next"),
        )?;
        Ok(next.flatten())
    }
}

fn device(row: &Row<'_>) -> rusqlite::Result<DeviceRow> {
    let capabilities: crate::model::Capabilities = json(row, "capabilities")?;
    Ok(DeviceRow {
        id: id(row, "device_id")?,
        account: id(row, "connected_account_id")?,
        time_zone: row.get("time_zone")?,
        has_slots: capabilities.slots.is_some(),
        can_be_opened: capabilities.unlock.is_some(),
        declared: json(row, "declared")?,
        created_at: time(row, "created_at")?,
        removed_at: maybe_time(row, "removed_at")?,
        spaces: Vec::new(),
        troubles: Vec::new(),
        codes: row.get("codes")?,
    })
}
