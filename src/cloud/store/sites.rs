//! What sites have, and how they are: systems, doors, encoders, conditions.
//!
//! Ids are made once for (bridge, system name, own name) and kept: what disappears is marked, and comes back as what
//! it was.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Row, params};
use serde_json::{Value, json};

use crate::{
    grants::{Event, Subject},
    model::{
        AcsEncoderId, AcsEntranceId, AcsSystemId, BridgeId, Condition, ConnectedAccountId, DoorKind,
        Inventory, Severity, SpaceId, SystemInventory, WorkspaceId,
    },
    store::StoreError,
};

use super::{
    Db, Listed, Page, Tenant,
    question::Question,
    rows::{id, id_list, maybe_time, ms, time},
};

/// An access system.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) id: AcsSystemId,
    pub(crate) account: ConnectedAccountId,
    pub(crate) name: String,
    /// Its make, by the name that bridges give it.
    pub(crate) kind: String,
    pub(crate) time_zone: String,
    pub(crate) created_at: Timestamp,
    pub(crate) removed_at: Option<Timestamp>,
    pub(crate) troubles: Vec<SystemTrouble>,
}

/// What keeps an access system from working.
#[derive(Debug)]
pub(crate) struct SystemTrouble {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) since: Timestamp,
}

impl SystemTrouble {
    pub(crate) fn to_json(&self) -> Value {
        let mut error = json!({
            "error_code": self.code,
            "message": self.message,
            "created_at": crate::cloud::time_text(self.since),
        });
        if self.code == "bridge_disconnected" {
            error["is_bridge_error"] = json!(true);
        }
        error
    }
}

/// A door.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) id: AcsEntranceId,
    pub(crate) system: AcsSystemId,
    pub(crate) account: ConnectedAccountId,
    pub(crate) name: String,
    pub(crate) display_name: Option<String>,
    pub(crate) kind: DoorKind,
    pub(crate) created_at: Timestamp,
    pub(crate) removed_at: Option<Timestamp>,
    pub(crate) spaces: Vec<SpaceId>,
}

/// Which doors.
#[derive(Debug, Default)]
pub(crate) struct EntranceFilter {
    pub(crate) system: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) ids: Option<Vec<AcsEntranceId>>,
    pub(crate) space: Option<String>,
    pub(crate) search: Option<String>,
    /// The doors that a card of this method opens.
    pub(crate) method: Option<String>,
    /// The doors of the card with this id.
    pub(crate) credential: Option<String>,
    /// The doors in spaces of this customer.
    pub(crate) customer: Option<String>,
}

/// An encoder.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) id: AcsEncoderId,
    pub(crate) system: AcsSystemId,
    pub(crate) account: ConnectedAccountId,
    pub(crate) name: String,
    pub(crate) display_name: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) removed_at: Option<Timestamp>,
}

/// Doors and encoders are kept alike.
struct Kept {
    table: &'static str,
    key: &'static str,
    added: &'static str,
    removed: &'static str,
    subject: fn(uuid::Uuid, AcsSystemId) -> Subject,
}

const ENTRANCES: Kept = Kept {
    table: "acs_entrance",
    key: "acs_entrance_id",
    added: "acs_entrance.added",
    removed: "acs_entrance.removed",
    subject: |id, system| Subject::Entrance(id.into(), system),
};
const ENCODERS: Kept = Kept {
    table: "acs_encoder",
    key: "acs_encoder_id",
    added: "acs_encoder.added",
    removed: "acs_encoder.removed",
    subject: |id, system| Subject::Encoder(id.into(), system),
};

impl Db {
    /// Every bridge is away until it says hello: to be called when the cloud starts.
    ///
    /// # Errors
    /// Those of the database.
    pub fn all_bridges_down(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.live.clear();
        self.silent_bridges_down(now)?;
        Ok(())
    }

    /// Notes of bridges for which no connection speaks that they are away, where that could not be stored when they
    /// parted. Says whether there were any.
    pub(super) fn silent_bridges_down(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let mut up =
            self.all("SELECT bridge_id FROM site WHERE up = 1", [], |row| id::<BridgeId>(row, "bridge_id"))?;
        up.retain(|bridge| !self.live.contains_key(bridge));
        for bridge in &up {
            self.bridge_down(now, *bridge)?;
        }
        Ok(!up.is_empty())
    }

    /// A bridge has said hello.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn bridge_up(&mut self, now: Timestamp, bridge: BridgeId) -> Result<(), StoreError> {
        self.set_up(now, bridge, true)
    }

    /// A bridge has gone.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn bridge_down(&mut self, now: Timestamp, bridge: BridgeId) -> Result<(), StoreError> {
        self.set_up(now, bridge, false)
    }

    fn set_up(&mut self, now: Timestamp, bridge: BridgeId, up: bool) -> Result<(), StoreError> {
        self.execute(
            "UPDATE site SET up = ?2, since = ?3 WHERE bridge_id = ?1 AND up <> ?2",
            params![bridge.to_string(), up, ms(now)],
        )?;
        self.tell_connections(now, bridge)
    }

    /// Takes over the whole picture of a bridge's health.
    ///
    /// # Errors
    /// Those of the database.
    pub fn apply_status(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        conditions: &[Condition],
    ) -> Result<(), StoreError> {
        self.execute("DELETE FROM site_condition WHERE bridge_id = ?1", [bridge.to_string()])?;
        for condition in conditions {
            let severity = match condition.severity {
                Severity::Notice => "notice",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            self.execute(
                "INSERT INTO site_condition SELECT workspace_id, bridge_id, ?2, ?3, ?4, ?5, ?6 FROM site
                 WHERE bridge_id = ?1",
                params![
                    bridge.to_string(),
                    condition.subject,
                    condition.code,
                    severity,
                    condition.message,
                    ms(condition.since)
                ],
            )?;
        }
        self.tell_connections(now, bridge)
    }

    /// Takes over the whole picture of what a site has.
    ///
    /// # Errors
    /// Those of the database.
    pub fn apply_inventory(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        inventory: &Inventory,
    ) -> Result<(), StoreError> {
        let Some(workspace) = self.workspace_of(bridge)? else {
            return Ok(());
        };
        for system in &inventory.systems {
            let (id, mut has_changed) = self.tenant(workspace).keep_system(now, bridge, system)?;
            let doors = system.doors.iter().map(|door| {
                let kind = match door.kind {
                    DoorKind::Room => "room",
                    DoorKind::Common => "common",
                };
                (door.name.as_str(), door.display_name.as_deref(), Some(kind))
            });
            let encoders = system
                .encoders
                .iter()
                .map(|encoder| (encoder.name.as_str(), encoder.display_name.as_deref(), None));
            let mut tenant = self.tenant(workspace);
            has_changed |= tenant.keep(now, id, &ENTRANCES, doors.collect())?;
            tenant.keep(now, id, &ENCODERS, encoders.collect())?;
            has_changed |= tenant.keep_devices(now, id, &system.devices)?;
            if has_changed {
                tenant.system_has_changed(now, id)?;
            }
        }
        let named: BTreeSet<_> = inventory.systems.iter().map(|system| system.name.as_str()).collect();
        let known = self.all(
            "SELECT acs_system_id, name FROM acs_system WHERE bridge_id = ?1 AND removed_at IS NULL",
            [bridge.to_string()],
            |row| Ok((id::<AcsSystemId>(row, "acs_system_id")?, row.get::<_, String>("name")?)),
        )?;
        for (system, _) in known.into_iter().filter(|(_, name)| !named.contains(name.as_str())) {
            self.execute(
                "UPDATE acs_system SET removed_at = ?2 WHERE acs_system_id = ?1",
                params![system.to_string(), ms(now)],
            )?;
            self.tenant(workspace).keep(now, system, &ENTRANCES, Vec::new())?;
            self.tenant(workspace).keep(now, system, &ENCODERS, Vec::new())?;
            self.tenant(workspace).keep_devices(now, system, &[])?;
        }
        self.tell_connections(now, bridge)
    }

    pub(super) fn workspace_of(&self, bridge: BridgeId) -> Result<Option<WorkspaceId>, StoreError> {
        self.one("SELECT workspace_id FROM site WHERE bridge_id = ?1", [bridge.to_string()], |row| {
            id(row, "workspace_id")
        })
    }

    /// Tells which systems came or went by what is known now.
    fn tell_connections(&mut self, now: Timestamp, bridge: BridgeId) -> Result<(), StoreError> {
        let Some(workspace) = self.workspace_of(bridge)? else {
            return Ok(());
        };
        let systems = self.all(
            "SELECT acs_system_id, connected FROM acs_system WHERE bridge_id = ?1 ORDER BY rowid",
            [bridge.to_string()],
            |row| Ok((id::<AcsSystemId>(row, "acs_system_id")?, row.get::<_, bool>("connected")?)),
        )?;
        for (system, was) in systems {
            let mut tenant = self.tenant(workspace);
            let is = tenant.system_troubles(system)?.is_empty();
            if is == was {
                continue;
            }
            tenant.db.execute(
                "UPDATE acs_system SET connected = ?2 WHERE acs_system_id = ?1",
                params![system.to_string(), is],
            )?;
            let kind = if is { "acs_system.connected" } else { "acs_system.disconnected" };
            tenant.tell(now, &[Event::new(kind, Subject::System(system))])?;
        }
        self.tell_devices(now, workspace, bridge)
    }
}

impl Tenant<'_> {
    /// The system, and whether it can by now what it could not.
    fn keep_system(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        system: &SystemInventory,
    ) -> Result<(AcsSystemId, bool), StoreError> {
        let known = self.db.one(
            "SELECT acs_system_id, capabilities FROM acs_system
             WHERE workspace_id = ?1 AND bridge_id = ?2 AND name = ?3",
            params![self.workspace, bridge.to_string(), system.name.as_str()],
            |row| Ok((id::<AcsSystemId>(row, "acs_system_id")?, row.get::<_, String>("capabilities")?)),
        )?;
        let key = known.as_ref().map_or_else(|| AcsSystemId(self.db.random.uuid()), |(key, _)| *key);
        let kind = system.kind.as_str();
        let capabilities = serde_json::to_string(&system.capabilities)
            .map_err(|error| StoreError::corrupt("acs_system.capabilities", error))?;
        self.db.execute(
            "INSERT INTO acs_system VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10, NULL, ?11)
             ON CONFLICT(acs_system_id) DO UPDATE SET kind = excluded.kind, time_zone = excluded.time_zone,
               capabilities = excluded.capabilities, checkout_on_last_grant = excluded.checkout_on_last_grant,
               override_after_deleted_card = excluded.override_after_deleted_card, removed_at = NULL",
            params![
                key.to_string(),
                self.workspace,
                bridge.to_string(),
                self.db.random.uuid().to_string(),
                system.name.as_str(),
                kind,
                system.time_zone,
                capabilities,
                system.checkout_on_last_grant,
                ms(now),
                system.override_after_deleted_card
            ],
        )?;
        if known.is_none() {
            self.tell(now, &[Event::new("acs_system.added", Subject::System(key))])?;
        }
        Ok((key, known.is_some_and(|(_, before)| before != capabilities)))
    }

    /// Makes a system's doors or encoders those that the picture shows. Says whether one has come back.
    fn keep(
        &mut self,
        now: Timestamp,
        system: AcsSystemId,
        kept: &Kept,
        picture: Vec<(&str, Option<&str>, Option<&str>)>,
    ) -> Result<bool, StoreError> {
        let Kept { table, key, .. } = kept;
        let mut known: std::collections::BTreeMap<String, (uuid::Uuid, bool)> = self
            .db
            .all(
                &format!(
                    "SELECT {key} AS id, name, removed_at IS NULL AS here FROM {table}
                     WHERE acs_system_id = ?1 AND workspace_id = ?2"
                ),
                params![system.to_string(), self.workspace],
                |row| Ok((row.get("name")?, (id(row, "id")?, row.get("here")?))),
            )?
            .into_iter()
            .collect();
        let (kind_column, kind_value) = match kept.table {
            "acs_entrance" => ("kind, ", "?7, "),
            _ => ("", ""),
        };
        let kind_update = match kept.table {
            "acs_entrance" => "kind = excluded.kind, ",
            _ => "",
        };
        let mut seen = BTreeSet::new();
        let mut came_back = false;
        for (name, display_name, kind) in picture {
            // A lock system's list may name a door twice; it is one door all the same.
            if !seen.insert(name) {
                continue;
            }
            let before = known.remove(name);
            came_back |= before.is_some_and(|(_, here)| !here);
            let own = before.map_or_else(|| self.db.random.uuid(), |(id, _)| id);
            let sql = format!(
                "INSERT INTO {table}({key}, workspace_id, acs_system_id, name, display_name, {kind_column}created_at)
                 VALUES(?1, ?2, ?3, ?4, ?5, {kind_value}?6)
                 ON CONFLICT({key}) DO UPDATE SET {kind_update}display_name = excluded.display_name,
                   removed_at = NULL"
            );
            let (own_text, system_text) = (own.to_string(), system.to_string());
            match kind {
                Some(kind) => self.db.execute(
                    &sql,
                    params![own_text, self.workspace, system_text, name, display_name, ms(now), kind],
                )?,
                None => self.db.execute(
                    &sql,
                    params![own_text, self.workspace, system_text, name, display_name, ms(now)],
                )?,
            };
            if before.is_none_or(|(_, here)| !here) {
                self.tell(now, &[Event::new(kept.added, (kept.subject)(own, system))])?;
                self.db.note_door_changed(own)?;
            }
        }
        for (gone, here) in known.into_values() {
            if here {
                self.db.execute(
                    &format!("UPDATE {table} SET removed_at = ?2 WHERE {key} = ?1"),
                    params![gone.to_string(), ms(now)],
                )?;
                self.tell(now, &[Event::new(kept.removed, (kept.subject)(gone, system))])?;
                self.db.note_door_changed(gone)?;
            }
        }
        Ok(came_back)
    }

    /// What keeps a system from working now.
    pub(super) fn system_troubles(&self, system: AcsSystemId) -> Result<Vec<SystemTrouble>, StoreError> {
        let away = self.db.all(
            "SELECT site.since AS since FROM acs_system JOIN site USING(bridge_id)
             WHERE acs_system_id = ?1 AND acs_system.workspace_id = ?2 AND up = 0",
            params![system.to_string(), self.workspace],
            |row| {
                Ok(SystemTrouble {
                    code: "bridge_disconnected",
                    message: "The property's bridge is not connected".into(),
                    since: time(row, "since")?,
                })
            },
        )?;
        let down = self.db.all(
            "SELECT message, since FROM site_condition JOIN acs_system USING(bridge_id)
             WHERE acs_system_id = ?1 AND acs_system.workspace_id = ?2 AND subject = name AND severity = 'error'
             ORDER BY site_condition.rowid",
            params![system.to_string(), self.workspace],
            |row| {
                Ok(SystemTrouble {
                    code: "acs_system_disconnected",
                    message: row.get("message")?,
                    since: time(row, "since")?,
                })
            },
        )?;
        Ok(away.into_iter().chain(down).collect())
    }

    pub(crate) fn systems(
        &mut self,
        account: Option<&str>,
        search: Option<&str>,
        customer: Option<&str>,
    ) -> Result<Vec<System>, StoreError> {
        let mut systems = self.db.all(
            "SELECT * FROM acs_system WHERE workspace_id = ?1 AND (?2 IS NULL OR connected_account_id = ?2)
               AND (?3 IS NULL OR instr(lower(name), lower(?3)) > 0)
               AND (?4 IS NULL OR acs_system_id IN (
                     SELECT e.acs_system_id FROM space JOIN space_entrance USING(space_id)
                     JOIN acs_entrance e USING(acs_entrance_id)
                     WHERE customer_key = ?4 AND space.workspace_id = ?1))
             ORDER BY rowid",
            params![self.workspace, account, search, customer],
            |row| {
                Ok(System {
                    id: id(row, "acs_system_id")?,
                    account: id(row, "connected_account_id")?,
                    name: row.get("name")?,
                    kind: row.get("kind")?,
                    time_zone: row.get("time_zone")?,
                    created_at: time(row, "created_at")?,
                    removed_at: maybe_time(row, "removed_at")?,
                    troubles: Vec::new(),
                })
            },
        )?;
        for system in &mut systems {
            system.troubles = self.system_troubles(system.id)?;
        }
        Ok(systems)
    }

    pub(crate) fn system(&mut self, wanted: AcsSystemId) -> Result<Option<System>, StoreError> {
        Ok(self.systems(None, None, None)?.into_iter().find(|system| system.id == wanted))
    }

    pub(crate) fn entrance(&mut self, wanted: AcsEntranceId) -> Result<Option<Entrance>, StoreError> {
        let filter = EntranceFilter { ids: Some(vec![wanted]), ..EntranceFilter::default() };
        Ok(self.entrances(&filter, Page { limit: 1, after: 0 })?.rows.pop())
    }

    pub(crate) fn encoder(&mut self, wanted: AcsEncoderId) -> Result<Option<Encoder>, StoreError> {
        Ok(self.encoders(None, Some(&[wanted]), Page { limit: 1, after: 0 })?.rows.pop())
    }

    pub(crate) fn entrances(
        &mut self,
        filter: &EntranceFilter,
        page: Page,
    ) -> Result<Listed<Entrance>, StoreError> {
        let method = match &filter.credential {
            Some(credential) => Some(self.method_of_credential(credential)?),
            None => filter.method.clone(),
        };
        let question = Question::of(
            "SELECT e.rowid AS place, e.*, s.connected_account_id FROM acs_entrance e
             JOIN acs_system s USING(acs_system_id)",
            "e",
        )
        .among("e.acs_entrance_id IN (SELECT value FROM json_each(?#))", id_list(filter.ids.as_deref()))
        .among("e.acs_system_id = ?#", filter.system.clone())
        .and("s.connected_account_id = ?#", filter.account.clone())
        .among(
            "e.acs_entrance_id IN (SELECT acs_entrance_id FROM space_entrance WHERE space_id = ?#)",
            filter.space.clone(),
        )
        .and("instr(lower(coalesce(e.display_name, e.name)), lower(?#)) > 0", filter.search.clone())
        .among(
            "e.acs_entrance_id IN (
               SELECT acs_entrance_id FROM access_method JOIN grant_entrance USING(access_grant_id)
               WHERE access_method_id = ?#
               UNION SELECT acs_entrance_id FROM access_method JOIN grant_space USING(access_grant_id)
               JOIN space_entrance USING(space_id) WHERE access_method_id = ?#)
             AND +e.acs_system_id = (SELECT acs_system_id FROM access_method WHERE access_method_id = ?#)",
            method,
        )
        .among(
            "e.acs_entrance_id IN (
               SELECT acs_entrance_id FROM space JOIN space_entrance USING(space_id) WHERE customer_key = ?#)",
            filter.customer.clone(),
        );
        let mut listed = self.listed(question, page, entrance)?;
        for entrance in &mut listed.rows {
            entrance.spaces = self.db.all(
                "SELECT space_id FROM space_entrance WHERE acs_entrance_id = ?1 ORDER BY rowid",
                [entrance.id.to_string()],
                |row| id(row, "space_id"),
            )?;
        }
        Ok(listed)
    }

    /// An unknown card is the card of no method.
    fn method_of_credential(&self, credential: &str) -> Result<String, StoreError> {
        let method = self.db.one(
            "SELECT access_method_id FROM acs_credential WHERE acs_credential_id = ?1 AND workspace_id = ?2",
            params![credential, self.workspace],
            |row| row.get(0),
        )?;
        Ok(method.unwrap_or_default())
    }

    pub(crate) fn encoders(
        &mut self,
        systems: Option<&[AcsSystemId]>,
        ids: Option<&[AcsEncoderId]>,
        page: Page,
    ) -> Result<Listed<Encoder>, StoreError> {
        let question = Question::of(
            "SELECT e.rowid AS place, e.*, s.connected_account_id FROM acs_encoder e
             JOIN acs_system s USING(acs_system_id)",
            "e",
        )
        .among("e.acs_system_id IN (SELECT value FROM json_each(?#))", id_list(systems))
        .among("e.acs_encoder_id IN (SELECT value FROM json_each(?#))", id_list(ids));
        self.listed(question, page, |row| {
            Ok(Encoder {
                id: id(row, "acs_encoder_id")?,
                system: id(row, "acs_system_id")?,
                account: id(row, "connected_account_id")?,
                name: row.get("name")?,
                display_name: row.get("display_name")?,
                created_at: time(row, "created_at")?,
                removed_at: maybe_time(row, "removed_at")?,
            })
        })
    }
}

fn entrance(row: &Row<'_>) -> rusqlite::Result<Entrance> {
    Ok(Entrance {
        id: id(row, "acs_entrance_id")?,
        system: id(row, "acs_system_id")?,
        account: id(row, "connected_account_id")?,
        name: row.get("name")?,
        display_name: row.get("display_name")?,
        kind: kind(row, "kind")?,
        created_at: time(row, "created_at")?,
        removed_at: maybe_time(row, "removed_at")?,
        spaces: Vec::new(),
    })
}

pub(super) fn kind(row: &Row<'_>, column: &str) -> rusqlite::Result<DoorKind> {
    Ok(match row.get::<_, String>(column)?.as_str() {
        "room" => DoorKind::Room,
        _ => DoorKind::Common,
    })
}
