//! What happened at doors, as the devices there remember it: told once each, in the order of each device.
//!
//! A site may tell of the same event twice, when one of the two sides was put back from a backup; its id says so. Ids are
//! remembered as long as events are kept, and what is older than that is not told at all.

use jiff::Timestamp;
use rusqlite::params;
use serde_json::json;

use crate::{
    cloud::time_text,
    grants::{Event, Subject},
    model::{
        AccessGrantId, AccessMethodId, ActionAttemptId, BridgeId, DeviceId, DoorAct, DoorEvent, DoorEvents,
        DoorMeans, JobId, UserIdentityId,
    },
    store::StoreError,
};

use super::{
    Db, Tenant,
    rows::{id, ms},
};

/// Whose code or card was used.
struct User {
    grant: AccessGrantId,
    method: AccessMethodId,
    identity: UserIdentityId,
}

impl Db {
    /// Tells what happened at a device's door, as far as it was not told before.
    pub(super) fn take_door_events(
        &mut self,
        now: Timestamp,
        bridge: BridgeId,
        seen: &DoorEvents,
    ) -> Result<(), StoreError> {
        let DoorEvents { system, device, lost, events } = seen;
        if *lost > 0 {
            tracing::warn!(%bridge, %system, %device, lost, "events of a door are lost");
        }
        let Some(workspace) = self.workspace_of(bridge)? else { return Ok(()) };
        let known = self.one(
            "SELECT d.device_id, d.acs_system_id FROM device d JOIN acs_system s USING(acs_system_id)
             WHERE s.workspace_id = ?1 AND s.bridge_id = ?2 AND s.name = ?3 AND d.name = ?4",
            params![workspace.to_string(), bridge.to_string(), system.as_str(), device.as_str()],
            |row| Ok(Subject::Device(id(row, "device_id")?, id(row, "acs_system_id")?)),
        )?;
        let Some(at) = known else { return Ok(()) };
        let oldest = now.saturating_sub(self.retention.events).unwrap_or(Timestamp::MIN);
        for event in events.iter().filter(|event| oldest <= event.at) {
            self.tenant(workspace).tell_of_door(now, at, event)?;
        }
        Ok(())
    }

    /// Forgets some of what was told before an instant. Gives how much.
    pub(super) fn forget_door_events(&self, before: i64, most: u32) -> Result<usize, StoreError> {
        self.execute(
            "DELETE FROM told_door_event WHERE (workspace_id, door_event_id) IN (
               SELECT workspace_id, door_event_id FROM told_door_event WHERE at < ?1 LIMIT ?2)",
            params![before, most],
        )
    }
}

impl Tenant<'_> {
    fn tell_of_door(&mut self, now: Timestamp, at: Subject, event: &DoorEvent) -> Result<(), StoreError> {
        let is_new = self.db.execute(
            "INSERT OR IGNORE INTO told_door_event VALUES(?1, ?2, ?3)",
            params![self.workspace, event.door_event_id.to_string(), ms(event.at)],
        )?;
        if is_new == 0 {
            return Ok(());
        }
        let Subject::Device(device, _) = at else { return Ok(()) };
        let kind = match event.what {
            DoorAct::Locked => "lock.locked",
            DoorAct::Unlocked => "lock.unlocked",
            DoorAct::AccessDenied => "lock.access_denied",
        };
        // A device's clock may be ahead.
        let mut more = json!({"occurred_at": time_text(event.at.min(now))});
        if event.what != DoorAct::AccessDenied {
            more["method"] = json!(event.by.map_or("unknown", DoorMeans::as_str));
        }
        let user = match &event.slot {
            Some(slot) => self.user_of_slot(slot)?,
            None => None,
        };
        if let Some(user) = &user {
            more["user_identity_id"] = json!(user.identity);
            if event.by == Some(DoorMeans::Keycode)
                && let Some(pin) = self.readable_pin_of(user.method)?
            {
                more["code"] = json!(pin.expose());
            }
        }
        if let Some(job) = event.job_id
            && let Some(attempt) = self.unlock_attempt_of(job, device)?
        {
            more["action_attempt_id"] = json!(attempt);
        }
        let whose = user.map(|user| (user.method, user.grant));
        self.tell_at_door(now, &Event::new(kind, at), whose, more)
    }

    /// A slot's key is the id of the method whose code is in it, be it gone by now.
    fn user_of_slot(&self, slot: &str) -> Result<Option<User>, StoreError> {
        let Ok(method) = slot.parse::<AccessMethodId>() else { return Ok(None) };
        self.db.one(
            "SELECT m.access_grant_id, coalesce(g.user_identity_id, p.user_identity_id) AS user_identity_id
             FROM (SELECT access_grant_id FROM access_method WHERE access_method_id = ?1 AND workspace_id = ?2
                   UNION ALL
                   SELECT access_grant_id FROM past_method WHERE access_method_id = ?1 AND workspace_id = ?2) m
             LEFT JOIN access_grant g USING(access_grant_id) LEFT JOIN past_grant p USING(access_grant_id)
             WHERE coalesce(g.user_identity_id, p.user_identity_id) IS NOT NULL",
            params![method.to_string(), self.workspace],
            |row| Ok(User { grant: id(row, "access_grant_id")?, method, identity: id(row, "user_identity_id")? }),
        )
    }

    fn unlock_attempt_of(&self, job: JobId, device: DeviceId) -> Result<Option<ActionAttemptId>, StoreError> {
        self.db.one(
            "SELECT action_attempt_id FROM unlock_attempt
             WHERE job_id = ?1 AND device_id = ?2 AND workspace_id = ?3",
            params![job.to_string(), device.to_string(), self.workspace],
            |row| id(row, "action_attempt_id"),
        )
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        cloud::store::{EventFilter, Retention, TimedEvent},
        model::{
            Capabilities, Device, DeviceName, Inventory, SystemInventory, SystemKind, SystemName, WorkspaceId,
        },
        seal::SealKey,
        seams::{Random, Storage},
    };

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    struct Property {
        db: Db,
        workspace: WorkspaceId,
        bridge: BridgeId,
        now: Timestamp,
        _folder: tempfile::TempDir,
    }

    impl Property {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let random = Random::seeded(1);
            let key = SealKey::new([7; 32], random.clone());
            let mut db = Db::open(&Storage::folder(folder.path()), key, random).unwrap();
            let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
            let workspace = db.found(now, "Home", [1; 32]).unwrap();
            let bridge = db.the_bridge(now, workspace).unwrap();
            let system = SystemInventory {
                name: SystemName::new("keypads").unwrap(),
                kind: SystemKind::SimLock,
                time_zone: "Europe/Oslo".into(),
                capabilities: Capabilities {
                    r#override: None,
                    join: None,
                    future_start: None,
                    checkout: None,
                    modify_stay: None,
                    read_card: None,
                    open_end: None,
                    slots: None,
                    unlock: None,
                    chip_numbers: None,
                    max_rooms: 0,
                    max_common: 0,
                    answer_means_written: true,
                    parallel_encoders: false,
                },
                checkout_on_last_grant: false,
                override_after_deleted_card: false,
                doors: Vec::new(),
                encoders: Vec::new(),
                devices: vec![Device {
                    name: DeviceName::new("101").unwrap(),
                    display_name: None,
                    slots: 100,
                    pins: None,
                    device_type: None,
                    manufacturer: None,
                    model: None,
                    lead_seconds: None,
                    remote_unlock: None,
                    card_numbers: false,
                }],
            };
            db.apply_inventory(now, bridge, &Inventory { systems: vec![system] }).unwrap();
            Self { db, workspace, bridge, now, _folder: folder }
        }

        fn hears(&mut self, device: &str, events: &[DoorEvent]) {
            let seen = DoorEvents {
                system: SystemName::new("keypads").unwrap(),
                device: DeviceName::new(device).unwrap(),
                lost: 0,
                events: events.to_vec(),
            };
            self.db.take_door_events(self.now, self.bridge, &seen).unwrap();
        }

        fn told(&mut self) -> Vec<TimedEvent> {
            let filter = EventFilter { limit: 1_000, ..EventFilter::default() };
            let events = self.db.tenant(self.workspace).events(&filter).unwrap();
            events.into_iter().filter(|event| event.kind.starts_with("lock.")).collect()
        }
    }

    fn event(number: u128, at: Timestamp) -> DoorEvent {
        DoorEvent {
            door_event_id: uuid::Uuid::from_u128(number),
            at,
            what: DoorAct::Unlocked,
            by: None,
            slot: Some("nobody's".into()),
            job_id: None,
        }
    }

    #[test]
    fn what_is_heard_twice_is_told_once_and_in_the_order_in_which_it_was_heard() {
        let mut property = Property::new();
        let at = property.now - DAY;
        property.hears("101", &[event(1, at), event(2, at)]);
        property.hears("101", &[event(1, at), event(2, at), event(3, at)]);
        property.hears("102", &[event(4, at)]);
        let told = property.told();
        assert_eq!(told.len(), 3, "and nothing of a device that is not there");
        assert!(told.iter().all(|event| event.fields["method"] == "unknown"));
        assert!(told.iter().all(|event| event.occurred_at == property.now), "the feed only grows at its end");
        assert!(told.iter().all(|event| event.fields["occurred_at"] == time_text(at)));
    }

    #[test]
    fn a_clock_that_is_ahead_makes_no_event_of_tomorrow() {
        let mut property = Property::new();
        property.hears("101", &[event(1, property.now + DAY)]);
        assert_eq!(property.told()[0].fields["occurred_at"], time_text(property.now));
    }

    #[test]
    fn what_is_forgotten_is_not_told_again() {
        let mut property = Property::new();
        property.db.keep_for(Retention { events: DAY * 30, ..Retention::default() });
        let at = property.now;
        property.hears("101", &[event(1, at)]);
        property.now += DAY * 31;
        while property.db.forget(property.now).unwrap() {}
        assert_eq!(property.told().len(), 0);
        let kept =
            property.db.one("SELECT count(*) AS n FROM told_door_event", [], |row| row.get::<_, i64>("n"));
        assert_eq!(kept.unwrap(), Some(0));
        property.hears("101", &[event(1, at)]);
        assert_eq!(property.told().len(), 0);
    }
}
