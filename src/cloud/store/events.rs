//! The feed.

use jiff::Timestamp;
use rusqlite::params;
use serde_json::{Map, Value, json};

use crate::{
    grants::{Event, Subject},
    model::{
        AccessGrantId, AccessMethodId, AcsCredentialId, AcsEncoderId, AcsEntranceId, AcsSystemId, DeviceId,
        EventId, SpaceId, WorkspaceId,
    },
    seal::SealKey,
    store::StoreError,
};

use super::{
    Db, Space, Tenant,
    question::Question,
    rows::{id, id_list, ms, time},
};

/// An event as it stands in the feed.
#[derive(Debug)]
pub(crate) struct TimedEvent {
    pub(crate) id: EventId,
    pub(crate) kind: String,
    pub(crate) occurred_at: Timestamp,
    /// The fields of its type.
    pub(crate) fields: Map<String, Value>,
}

/// Which events.
#[derive(Debug, Default)]
pub(crate) struct EventFilter {
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) ids: Option<Vec<EventId>>,
    pub(crate) kinds: Option<Vec<String>>,
    pub(crate) grants: Option<Vec<AccessGrantId>>,
    pub(crate) methods: Option<Vec<AccessMethodId>>,
    pub(crate) systems: Option<Vec<AcsSystemId>>,
    pub(crate) account: Option<String>,
    pub(crate) entrance: Option<AcsEntranceId>,
    pub(crate) encoder: Option<AcsEncoderId>,
    pub(crate) credential: Option<AcsCredentialId>,
    pub(crate) spaces: Option<Vec<SpaceId>>,
    pub(crate) devices: Option<Vec<DeviceId>>,
    pub(crate) limit: u32,
}

impl EventFilter {
    /// By an index of what it is about and, where that is not asked, by the one of time; either holds what follows an
    /// instant, and nothing that came before is looked at.
    pub(super) fn question(&self) -> Question {
        Question::of("SELECT e.event_id, e.event_type, e.occurred_at, e.fields FROM event e", "e")
            .among("e.event_id IN (SELECT value FROM json_each(?#))", id_list(self.ids.as_deref()))
            .among("e.access_grant_id IN (SELECT value FROM json_each(?#))", id_list(self.grants.as_deref()))
            .among(
                "e.access_method_id IN (SELECT value FROM json_each(?#))",
                id_list(self.methods.as_deref()),
            )
            .among("e.acs_system_id IN (SELECT value FROM json_each(?#))", id_list(self.systems.as_deref()))
            .among(
                "e.acs_system_id IN (SELECT acs_system_id FROM acs_system WHERE connected_account_id = ?#)",
                self.account.clone(),
            )
            .among("e.acs_entrance_id = ?#", self.entrance.map(|id| id.to_string()))
            .among("e.acs_encoder_id = ?#", self.encoder.map(|id| id.to_string()))
            .among("e.acs_credential_id = ?#", self.credential.map(|id| id.to_string()))
            .among("e.space_id IN (SELECT value FROM json_each(?#))", id_list(self.spaces.as_deref()))
            .among("e.device_id IN (SELECT value FROM json_each(?#))", id_list(self.devices.as_deref()))
            .and("e.event_type IN (SELECT value FROM json_each(?#))", id_list(self.kinds.as_deref()))
            .within("e.occurred_at >= ?#", Some(self.since.map_or(i64::MIN, ms)))
            .and("e.occurred_at <= ?#", self.until.map(ms))
    }
}

/// The ids by which an event is found.
#[derive(Default)]
struct Found {
    grant: Option<AccessGrantId>,
    method: Option<AccessMethodId>,
    system: Option<AcsSystemId>,
    entrance: Option<AcsEntranceId>,
    encoder: Option<AcsEncoderId>,
    credential: Option<AcsCredentialId>,
    space: Option<SpaceId>,
    device: Option<DeviceId>,
}

impl Found {
    /// What the event is about, in the widest sense whose events have an order that a receiver relies on: those of a
    /// method are in one order with those of its grant, and all that happens at a device is in one order.
    fn resource(&self) -> String {
        let Self { grant, method, system, entrance, encoder, credential, space, device } = self;
        None.or_else(|| device.map(|id| format!("device/{id}")))
            .or_else(|| grant.map(|id| format!("grant/{id}")))
            .or_else(|| method.map(|id| format!("method/{id}")))
            .or_else(|| credential.map(|id| format!("credential/{id}")))
            .or_else(|| encoder.map(|id| format!("encoder/{id}")))
            .or_else(|| entrance.map(|id| format!("entrance/{id}")))
            .or_else(|| space.map(|id| format!("space/{id}")))
            .or_else(|| system.map(|id| format!("system/{id}")))
            .unwrap_or_default()
    }

    fn of(subject: Subject) -> Self {
        let mut found = Self::default();
        match subject {
            Subject::Grant(grant) => found.grant = Some(grant),
            Subject::GrantAtDoor(grant, door) => {
                found.grant = Some(grant);
                found.entrance = Some(door);
            }
            Subject::Method(method, grant) => {
                found.grant = Some(grant);
                found.method = Some(method);
            }
            Subject::System(system) => found.system = Some(system),
            Subject::Entrance(entrance, system) => {
                found.entrance = Some(entrance);
                found.system = Some(system);
            }
            Subject::Encoder(encoder, system) => {
                found.encoder = Some(encoder);
                found.system = Some(system);
            }
            Subject::Credential(credential, system) => {
                found.credential = Some(credential);
                found.system = Some(system);
            }
            Subject::Device(device, system) => {
                found.device = Some(device);
                found.system = Some(system);
            }
        }
        found
    }
}

impl Tenant<'_> {
    /// Adds events to the feed.
    pub(super) fn tell(&mut self, now: Timestamp, events: &[Event]) -> Result<(), StoreError> {
        for event in events {
            let fields = self.fields(event)?;
            self.db.tell(self.id, now, event.kind, &Found::of(event.subject), &fields)?;
            if let ("access_method.deleted", Subject::Method(method, _)) = (event.kind, event.subject) {
                self.tell_of_card(now, "acs_credential.deleted", method)?;
            }
        }
        Ok(())
    }

    /// Adds one event about the card that was written for a method, if one was.
    pub(super) fn tell_of_card(
        &mut self,
        now: Timestamp,
        kind: &'static str,
        method: AccessMethodId,
    ) -> Result<(), StoreError> {
        let card = self.db.one(
            "SELECT acs_credential_id, acs_system_id FROM acs_credential WHERE access_method_id = ?1 AND workspace_id = ?2",
            params![method.to_string(), self.workspace],
            |row| Ok(Subject::Credential(id(row, "acs_credential_id")?, id(row, "acs_system_id")?)),
        )?;
        match card {
            Some(card) => self.tell(now, &[Event::new(kind, card)]),
            None => Ok(()),
        }
    }

    /// Adds one event that carries more than the fields of its subject.
    pub(super) fn tell_more(&mut self, now: Timestamp, event: &Event, more: Value) -> Result<(), StoreError> {
        let fields = super::local::merged(self.fields(event)?, more);
        self.db.tell(self.id, now, event.kind, &Found::of(event.subject), &fields)
    }

    /// Adds one event about a device's door, with whose code or card was used there: it is found, and forgotten, with
    /// these.
    pub(super) fn tell_at_door(
        &mut self,
        now: Timestamp,
        event: &Event,
        whose: Option<(AccessMethodId, AccessGrantId)>,
        more: Value,
    ) -> Result<(), StoreError> {
        let fields = super::local::merged(self.fields(event)?, more);
        let (method, grant) = whose.unzip();
        let found = Found { method, grant, ..Found::of(event.subject) };
        self.db.tell(self.id, now, event.kind, &found, &fields)
    }

    /// Adds one event about a space, with the members it has now.
    pub(super) fn tell_of_space(
        &mut self,
        now: Timestamp,
        kind: &'static str,
        space: &Space,
        doors: &[AcsEntranceId],
        devices: &[DeviceId],
    ) -> Result<(), StoreError> {
        let mut fields = json!({"space_id": space.id, "acs_entrance_ids": doors, "device_ids": devices});
        if let Some(key) = &space.space_key {
            fields["space_key"] = json!(key);
        }
        let found = Found { space: Some(space.id), ..Found::default() };
        self.db.tell(self.id, now, kind, &found, &fields)
    }

    fn fields(&self, event: &Event) -> Result<Value, StoreError> {
        let key = |grant: AccessGrantId| {
            self.db.one(
                "SELECT access_grant_key FROM access_grant WHERE access_grant_id = ?1 AND workspace_id = ?2",
                params![grant.to_string(), self.workspace],
                |row| row.get::<_, Option<String>>(0),
            )
        };
        let account = |system: AcsSystemId| {
            self.db.one(
                "SELECT connected_account_id FROM acs_system WHERE acs_system_id = ?1 AND workspace_id = ?2",
                params![system.to_string(), self.workspace],
                |row| row.get::<_, String>(0),
            )
        };
        let mut fields = match event.subject {
            Subject::Grant(grant) => {
                json!({"access_grant_id": grant, "access_grant_key": key(grant)?.flatten()})
            }
            Subject::GrantAtDoor(grant, door) => json!({
                "access_grant_id": grant,
                "acs_entrance_id": door,
                "access_grant_key": key(grant)?.flatten(),
            }),
            Subject::Method(method, grant) => json!({
                "access_method_id": method,
                "access_grant_ids": [grant],
                "access_grant_keys": key(grant)?.flatten().map(|key| vec![key]),
            }),
            Subject::System(system) => {
                json!({"acs_system_id": system, "connected_account_id": account(system)?})
            }
            Subject::Entrance(entrance, system) => json!({
                "acs_entrance_id": entrance,
                "acs_system_id": system,
                "connected_account_id": account(system)?,
            }),
            Subject::Encoder(encoder, system) => json!({
                "acs_encoder_id": encoder,
                "acs_system_id": system,
                "connected_account_id": account(system)?,
            }),
            Subject::Credential(credential, system) => json!({
                "acs_credential_id": credential,
                "acs_system_id": system,
                "connected_account_id": account(system)?,
            }),
            Subject::Device(device, system) => json!({
                "device_id": device,
                "connected_account_id": account(system)?,
            }),
        };
        if let Some(message) = &event.message {
            fields["error_message"] = json!(message);
        }
        if let Some(code) = &event.code {
            fields["code"] = json!(code.expose());
        }
        if event.kind == "acs_system.disconnected" {
            for list in [
                "acs_system_errors",
                "acs_system_warnings",
                "connected_account_errors",
                "connected_account_warnings",
            ] {
                fields[list] = json!([]);
            }
            if let Subject::System(system) = event.subject {
                let troubles = self.system_troubles(system)?;
                fields["acs_system_errors"] = troubles.iter().map(super::SystemTrouble::to_json).collect();
            }
        }
        if let Value::Object(fields) = &mut fields {
            fields.retain(|_, value| !value.is_null());
        }
        Ok(fields)
    }

    /// Events in the order they happened.
    pub(crate) fn events(&mut self, filter: &EventFilter) -> Result<Vec<TimedEvent>, StoreError> {
        let (sql, values) = filter.question().in_order(&self.workspace, "e.occurred_at, e.n", filter.limit);
        let rows = self.db.all(&sql, rusqlite::params_from_iter(values), |row| {
            Ok((
                id::<EventId>(row, "event_id")?,
                row.get::<_, String>("event_type")?,
                time(row, "occurred_at")?,
                row.get::<_, Vec<u8>>("fields")?,
            ))
        })?;
        rows.into_iter()
            .map(|(id, kind, occurred_at, sealed)| {
                Ok(TimedEvent { id, kind, occurred_at, fields: opened(&self.db.seal, id, &sealed)? })
            })
            .collect()
    }
}

impl Db {
    fn tell(
        &mut self,
        workspace: WorkspaceId,
        now: Timestamp,
        kind: &'static str,
        found: &Found,
        fields: &Value,
    ) -> Result<(), StoreError> {
        let id = EventId(self.random.uuid_at(now));
        let sealed = self.seal.seal(&place(id), fields.to_string().as_bytes());
        let workspace = workspace.to_string();
        self.execute(
            "INSERT INTO event(event_id, workspace_id, event_type, occurred_at, access_grant_id, access_method_id,
                               acs_system_id, acs_entrance_id, acs_encoder_id, fields, space_id, device_id,
                               acs_credential_id)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                id.to_string(),
                workspace,
                kind,
                ms(now),
                found.grant.map(|id| id.to_string()),
                found.method.map(|id| id.to_string()),
                found.system.map(|id| id.to_string()),
                found.entrance.map(|id| id.to_string()),
                found.encoder.map(|id| id.to_string()),
                sealed,
                found.space.map(|id| id.to_string()),
                found.device.map(|id| id.to_string()),
                found.credential.map(|id| id.to_string()),
            ],
        )?;
        self.owe(&workspace, now, kind, &found.resource())
    }
}

/// The fields of an event as its row has them.
pub(super) fn opened(seal: &SealKey, id: EventId, sealed: &[u8]) -> Result<Map<String, Value>, StoreError> {
    let plain = seal.open(&place(id), sealed)?;
    serde_json::from_slice(&plain).map_err(|error| StoreError::corrupt(place(id), error))
}

pub(super) fn place(id: EventId) -> String {
    format!("event.fields/{id}")
}
