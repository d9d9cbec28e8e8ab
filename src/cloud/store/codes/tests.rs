//! Codes in the store, with a bridge that says what the test tells it to.

use jiff::SignedDuration;

use super::*;
use crate::{
    cloud::store::{
        AttemptState, DeviceFilter, EventFilter, Grant, GrantChange, GrantCommand, GrantName, IdentityRef,
        Page, Person, Requested,
    },
    grants::Mode,
    model::{
        Capabilities, DeviceName, Inventory, KeyTemplate, PinRules, ProofLevel, Success, SystemInventory,
        SystemKind, SystemName,
    },
    protocol::{Memory, Position},
    seal::SealKey,
    seams::{Random, Storage},
};

/// A property with two keypad locks; noon until it is moved.
struct Property {
    db: Db,
    workspace: WorkspaceId,
    bridge: BridgeId,
    now: Timestamp,
    folder: tempfile::TempDir,
    /// Jobs that were looked at.
    seen: BTreeSet<JobId>,
}

impl Property {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let random = Random::seeded(1);
        let mut db =
            Db::open(&Storage::folder(folder.path()), SealKey::new([7; 32], random.clone()), random).unwrap();
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let workspace = db.found(now, "Home", [1; 32]).unwrap();
        let bridge = db.the_bridge(now, workspace).unwrap();
        let mut property = Self { db, workspace, bridge, now, folder, seen: BTreeSet::new() };
        property.meet(1);
        property.shows(&["lock-1", "lock-2"]);
        property
    }

    fn meet(&mut self, connection: u64) {
        let memory = Memory {
            orders_received: Position::default(),
            reports_sent: Position::default(),
            reports_acknowledged: Position::default(),
            orders_limit: 1_000,
        };
        self.db.meet(self.now, self.bridge, connection, &memory).unwrap();
    }

    fn shows(&mut self, locks: &[&str]) {
        let inventory = inventory(locks);
        self.db.apply_inventory(self.now, self.bridge, &inventory).unwrap();
        self.db.end_overdue(self.now).unwrap();
    }

    fn device(&mut self, name: &str) -> DeviceId {
        let page = Page { limit: 100, after: 0 };
        let devices = self.db.tenant(self.workspace).devices(&DeviceFilter::default(), page).unwrap().rows;
        devices.into_iter().find(|device| device.declared.name.as_str() == name).unwrap().id
    }

    fn grant(&mut self, locks: &[&str], modes: &[Mode]) -> Grant {
        let command = GrantCommand {
            identity: IdentityRef::New(Person {
                full_name: Some("Jane Quicksilver".into()),
                user_identity_key: Some(self.db.random.uuid().to_string()),
                ..Person::default()
            }),
            key: None,
            reservation_key: None,
            name: None,
            starts_at: None,
            ends_at: Some(self.now + SignedDuration::from_hours(24)),
            entrances: Vec::new(),
            devices: locks.iter().map(|lock| self.device(lock)).collect(),
            spaces: Vec::new(),
            space_keys: Vec::new(),
            requested: modes.iter().map(|mode| Requested { mode: *mode, code: None }).collect(),
        };
        let now = self.now;
        self.db.tenant(self.workspace).create_grant(now, &command).unwrap().unwrap()
    }

    /// Orders that were made since the last look, as they stand for the bridge: (job, what).
    fn ordered(&mut self) -> Vec<(JobId, Order)> {
        let rows = self.db.all(
            "SELECT job_id, body FROM bridge_order WHERE what = 'job' AND over_at IS NULL ORDER BY id",
            [],
            |row| Ok((id::<JobId>(row, "job_id")?, row.get::<_, Vec<u8>>("body")?)),
        );
        let mut orders = Vec::new();
        for (job, body) in rows.unwrap() {
            if self.seen.insert(job) {
                let place = crate::cloud::store::bridges::body_place(&job.to_string(), "job");
                let text = String::from_utf8(self.db.seal.open(&place, &body).unwrap()).unwrap();
                let message: crate::protocol::Message = serde_json::from_str(&text).unwrap();
                let crate::protocol::Message::Job(order) = message else { panic!("{text}") };
                orders.push((job, order.order));
            }
        }
        orders
    }

    fn report(&mut self, job: JobId, outcome: Outcome) {
        let report = Report {
            job_id: job,
            revision: 1,
            at: self.now,
            outcome,
            resolution: None,
            rooms: Vec::new(),
            local: None,
        };
        self.db.apply_report(self.now, self.bridge, &report).unwrap();
        self.db.end_overdue(self.now).unwrap();
    }

    fn done(&mut self, job: JobId) {
        self.report(job, Outcome::Succeeded(Success::default()));
    }

    fn the_grant(&mut self, grant: &Grant) -> Option<Grant> {
        self.db.tenant(self.workspace).grant(&GrantName::Id(grant.id)).unwrap()
    }

    fn is_issued(&mut self, grant: &Grant) -> bool {
        self.the_grant(grant).unwrap().methods[0].is_issued
    }

    fn told(&mut self, grant: &Grant) -> Vec<String> {
        let filter = EventFilter { limit: 1_000, grants: Some(vec![grant.id]), ..EventFilter::default() };
        let events = self.db.tenant(self.workspace).events(&filter).unwrap();
        events.into_iter().map(|event| event.kind.split_once('.').unwrap().1.to_owned()).collect()
    }
}

fn inventory(locks: &[&str]) -> Inventory {
    let device = |name: &&str| Device {
        name: DeviceName::new(*name).unwrap(),
        display_name: None,
        slots: 20,
        pins: Some(PinRules { lengths: vec![6], constraints: Vec::new() }),
        device_type: Some("august_lock".into()),
        manufacturer: None,
        model: None,
        lead_seconds: Some(900),
        remote_unlock: Some(true),
    };
    let simulated = Some(ProofLevel::Simulator);
    Inventory {
        systems: vec![SystemInventory {
            name: SystemName::new("annex").unwrap(),
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
                slots: simulated,
                unlock: simulated,
                max_rooms: 0,
                max_common: 0,
                answer_means_written: true,
                parallel_encoders: false,
            },
            checkout_on_last_grant: false,
            doors: Vec::new(),
            encoders: Vec::new(),
            devices: locks.iter().map(device).collect(),
        }],
    }
}

fn put(order: &Order) -> &SlotPut {
    let Order::SlotPut(put) = order else { panic!("{order:?}") };
    put
}

#[test]
fn a_code_is_issued_only_when_every_device_was_read_back() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1", "lock-2"], &[Mode::Code]);
    assert_eq!(grant.methods.len(), 1, "one PIN for both");
    let orders = property.ordered();
    let [(one, first), (other, second)] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!(put(first).content, put(second).content);
    assert_eq!(put(first).slot, grant.methods[0].id.to_string());
    property.done(*one);
    assert!(!property.is_issued(&grant));
    property.done(*other);
    assert!(property.is_issued(&grant));
    property.done(*other);
    assert_eq!(
        property.told(&grant),
        ["created", "created", "issued", "access_granted_to_all_doors"],
        "a report that was taken in before changes nothing"
    );
}

#[test]
fn a_refused_code_is_ordered_again_after_a_pause_and_says_why() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1"], &[Mode::Code]);
    let (job, _) = property.ordered().remove(0);
    property.report(job, Outcome::failed(Code::SlotsFull, "no room"));
    assert_eq!(property.ordered(), []);
    let view = property.the_grant(&grant).unwrap().methods[0].code.clone().unwrap();
    assert_eq!(view.trouble.unwrap().code, Code::SlotsFull);
    property.now += SignedDuration::from_secs(31);
    let overdue = property.db.end_overdue(property.now).unwrap();
    assert!(overdue.changed);
    let (job, _) = property.ordered().remove(0);
    property.done(job);
    assert!(property.is_issued(&grant));
}

#[test]
fn what_never_left_is_taken_back_and_what_may_have_left_is_removed_and_listed() {
    let mut property = Property::new();
    property.db.part(property.now, property.bridge, 1).unwrap();
    let never = property.grant(&["lock-1"], &[Mode::Code]);
    let now = property.now;
    property.db.tenant(property.workspace).delete_grant(now, never.id).unwrap().unwrap();
    assert_eq!(property.ordered(), []);
    assert!(property.the_grant(&never).is_none());
    assert_eq!(property.told(&never), ["created", "created", "deleted", "deleted"]);

    property.meet(2);
    property.shows(&["lock-1", "lock-2"]);
    let grant = property.grant(&["lock-1"], &[Mode::Code]);
    let (job, _) = property.ordered().remove(0);
    property.done(job);
    property.db.tenant(property.workspace).delete_grant(now, grant.id).unwrap().unwrap();
    let orders = property.ordered();
    let [(remove, Order::SlotRemove { .. })] = orders.as_slice() else { panic!("{orders:?}") };
    let listed = property.the_grant(&grant).unwrap();
    assert!(listed.deleted_at.is_some());
    let leaving = &listed.methods[0].code.as_ref().unwrap().leaving;
    assert_eq!(leaving.as_slice(), [(property.device("lock-1"), Some(now))]);
    assert!(!property.told(&grant).contains(&"deleted".to_owned()));
    property.done(*remove);
    assert!(property.the_grant(&grant).is_none());
    let told = property.told(&grant);
    assert_eq!(told.iter().filter(|kind| *kind == "deleted").count(), 2, "{told:?}");
}

#[test]
fn a_lock_that_lost_its_memory_is_found_out_and_gets_its_code_again() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1"], &[Mode::Code]);
    let (job, order) = property.ordered().remove(0);
    property.done(job);
    property.now += READ_EVERY;
    // Its window must not be over by then.
    let later = GrantChange { ends_at: Some(None), ..GrantChange::default() };
    let (now, name) = (property.now - SignedDuration::from_hours(1), GrantName::Id(grant.id));
    property.db.tenant(property.workspace).update_grant(now, &name, &later).unwrap().unwrap();
    let (again, update) = property.ordered().remove(0);
    assert!(put(&update).generation > put(&order).generation);
    assert_eq!(put(&update).content, put(&order).content, "the PIN stays");
    property.done(again);
    assert!(property.is_issued(&grant));
    // It was due for a reading by then.
    property.ordered();

    property.now += READ_EVERY;
    property.db.end_overdue(property.now).unwrap();
    let orders = property.ordered();
    let [(read, Order::DeviceRead { .. })] = orders.as_slice() else { panic!("{orders:?}") };
    let stray = uuid::Uuid::from_u128(9).to_string();
    let slots = Some(vec![
        SlotSeen { slot: "by hand".into(), generation: 1 },
        SlotSeen { slot: stray.clone(), generation: 4 },
    ]);
    property.report(*read, Outcome::Succeeded(Success { slots, ..Success::default() }));
    assert!(!property.is_issued(&grant));
    let orders = property.ordered();
    assert_eq!(orders.len(), 2, "{orders:?}");
    for (job, order) in orders {
        match &order {
            Order::SlotRemove { slot, .. } => {
                assert_eq!(*slot, stray, "what is ours and nobody's any more goes");
            }
            order => assert_eq!(put(order).content, put(&update).content),
        }
        property.done(job);
    }
    assert!(property.is_issued(&grant));
    let told = property.told(&grant);
    assert_eq!(told[told.len() - 2..], ["revoked", "reissued"]);
}

#[test]
fn a_bridge_that_forgot_what_it_was_handed_is_told_again() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1"], &[Mode::Code]);
    let (job, _) = property.ordered().remove(0);
    let now = property.now;
    property.db.orders_lost(now, property.bridge, &[job]).unwrap();
    let (again, _) = property.ordered().remove(0);
    assert_ne!(again, job);
    property.done(again);
    assert!(property.is_issued(&grant));
}

#[test]
fn what_a_revoked_bridge_never_heard_of_waits_for_the_one_that_comes_in_its_place() {
    let mut property = Property::new();
    let gone = property.grant(&["lock-1"], &[Mode::Code]);
    let (put, _) = property.ordered().remove(0);
    property.done(put);
    property.db.part(property.now, property.bridge, 1).unwrap();
    let (now, kept) = (property.now, property.grant(&["lock-2"], &[Mode::Code]));
    property.db.tenant(property.workspace).delete_grant(now, gone.id).unwrap().unwrap();
    let never: Vec<_> = property.ordered().into_iter().map(|(job, _)| job).collect();
    assert_eq!(never.len(), 2);
    property.db.revoke_bridge(now, property.workspace, property.bridge).unwrap().unwrap();
    let again = property.ordered();
    assert!(again.len() == 2 && again.iter().all(|(job, _)| !never.contains(job)), "{again:?}");
    for (job, _) in again {
        property.done(job);
    }
    assert!(property.is_issued(&kept));
    assert!(property.the_grant(&gone).is_none(), "its code was removed");
}

#[test]
fn the_agents_own_removal_at_the_end_leaves_the_method_as_it_was() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1"], &[Mode::Code]);
    let (job, _) = property.ordered().remove(0);
    property.done(job);
    property.now += SignedDuration::from_hours(24) - SignedDuration::from_millis(200);
    let report = Report {
        job_id: JobId(uuid::Uuid::from_u128(5)),
        revision: 1,
        at: property.now,
        outcome: Outcome::Succeeded(Success::default()),
        resolution: None,
        rooms: Vec::new(),
        local: Some(LocalJob {
            origin: crate::model::Origin::Timer,
            system: SystemName::new("annex").unwrap(),
            kind: Kind::SlotRemove,
            device: Some("lock-1".into()),
            slot: Some(grant.methods[0].id.to_string()),
            created_at: property.now,
            retries: None,
        }),
    };
    property.db.apply_report(property.now, property.bridge, &report).unwrap();
    property.now += SignedDuration::from_hours(1);
    property.db.end_overdue(property.now).unwrap();
    let orders = property.ordered();
    assert!(orders.iter().all(|(_, order)| matches!(order, Order::DeviceRead { .. })), "{orders:?}");
    let method = property.the_grant(&grant).unwrap().methods.remove(0);
    assert!(method.is_issued && method.code.unwrap().code.has_ended);
    assert!(!property.told(&grant).contains(&"revoked".to_owned()));
}

#[test]
fn without_the_agents_word_an_ended_code_is_removed_from_here() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1"], &[Mode::Code]);
    let (job, _) = property.ordered().remove(0);
    property.done(job);
    property.now += SignedDuration::from_hours(24);
    property.db.end_overdue(property.now).unwrap();
    let of_slots = |orders: Vec<(JobId, Order)>| -> Vec<(JobId, Order)> {
        orders.into_iter().filter(|(_, order)| !matches!(order, Order::DeviceRead { .. })).collect()
    };
    let orders = property.ordered();
    assert_eq!(of_slots(orders), []);
    let leaving = property.the_grant(&grant).unwrap().methods[0].code.as_ref().unwrap().leaving.len();
    assert_eq!(leaving, 1);
    property.now += SignedDuration::from_mins(3);
    property.db.end_overdue(property.now).unwrap();
    let orders = of_slots(property.ordered());
    let [(remove, Order::SlotRemove { .. })] = orders.as_slice() else { panic!("{orders:?}") };
    property.done(*remove);
    assert!(property.the_grant(&grant).unwrap().methods[0].code.as_ref().unwrap().leaving.is_empty());
}

#[test]
fn a_device_that_leaves_its_site_takes_its_codes_issue_with_it_and_brings_it_back() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1", "lock-2"], &[Mode::Code]);
    for (job, _) in property.ordered() {
        property.done(job);
    }
    property.shows(&["lock-1"]);
    let view = property.the_grant(&grant).unwrap().methods[0].code.clone().unwrap();
    assert_eq!((view.code.devices.len(), view.leaving.len()), (1, 1));
    assert!(property.is_issued(&grant), "the other device has it");
    property.shows(&["lock-1", "lock-2"]);
    assert!(!property.is_issued(&grant));
    let puts: Vec<_> =
        property.ordered().into_iter().filter(|(_, order)| matches!(order, Order::SlotPut(_))).collect();
    let [(job, _)] = puts.as_slice() else { panic!("{puts:?}") };
    property.done(*job);
    assert!(property.is_issued(&grant));
}

#[test]
fn keys_are_issued_at_once_or_say_why_not() {
    let mut property = Property::new();
    let without = property.grant(&["lock-1"], &[Mode::MobileKey, Mode::CloudKey]);
    let [mobile, cloud] = without.methods.as_slice() else { panic!("{without:?}") };
    assert!(!mobile.is_issued && mobile.key.as_ref().unwrap().problem.is_some());
    assert!(cloud.is_issued);
    property.db.hand_out_keys_at(Some(KeyTemplate::new("https://keys.example/{token}").unwrap()));
    let with = property.grant(&["lock-1"], &[Mode::MobileKey]);
    let url = with.methods[0].key.as_ref().unwrap().url.clone().unwrap();
    assert!(with.methods[0].is_issued && url.expose().len() == "https://keys.example/".len() + 32);
    let now = property.now;
    let door = property.device("lock-1");
    let attempt = property.db.tenant(property.workspace).unlock_door(now, cloud.id, door.0).unwrap().unwrap();
    let same = property.db.tenant(property.workspace).unlock_door(now, cloud.id, door.0).unwrap().unwrap();
    assert_eq!(attempt.id, same.id);
    let orders = property.ordered();
    let [(job, Order::DeviceUnlock { .. })] = orders.as_slice() else { panic!("{orders:?}") };
    property.report(*job, Outcome::failed(Code::SiteForbidsKind, "not from afar"));
    let ended = property.db.tenant(property.workspace).attempt(attempt.id).unwrap().unwrap();
    assert!(matches!(ended.state, AttemptState::Error { kind, .. } if kind == "site_forbids_kind"));
}

#[test]
fn no_pin_and_no_link_is_readable_on_the_disk() {
    let mut property = Property::new();
    property.db.hand_out_keys_at(Some(KeyTemplate::new("https://quicksilver.example/{token}").unwrap()));
    let grant = property.grant(&["lock-1"], &[Mode::Code, Mode::MobileKey]);
    let (job, order) = property.ordered().remove(0);
    property.done(job);
    let SlotContent::Pin(pin) = put(&order).content.clone() else { panic!("{order:?}") };
    assert!(property.is_issued(&grant));
    let folder = property.folder;
    drop(property.db);
    let mut read = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        read += bytes.len();
        for secret in [pin.expose(), "quicksilver.example"] {
            assert!(
                !bytes.windows(secret.len()).any(|part| part == secret.as_bytes()),
                "a secret is readable"
            );
        }
    }
    assert!(read > 0);
}
