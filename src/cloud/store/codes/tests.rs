//! Codes in the store, with a bridge that says what the test tells it to.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::{
    cloud::store::{
        AttemptState, DeviceFilter, EventFilter, Grant, GrantChange, GrantCommand, GrantName, IdentityRef,
        Page, Person, Requested,
    },
    grants::Mode,
    model::{
        BridgeId, Capabilities, Code, DeviceName, Inventory, JobId, KeyTemplate, Kind, LocalJob, Order,
        Outcome, PinRules, Private, ProofLevel, Report, Resolution, SlotContent, SlotPut, SlotSeen, Success,
        SystemInventory, SystemKind, SystemName, Verdict,
    },
    protocol::{Memory, Position},
    seal::SealKey,
    seams::{Random, Storage},
};

mod cards;
mod desk;
mod house;

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
        self.shows_all(&inventory(locks));
    }

    fn shows_all(&mut self, inventory: &Inventory) {
        self.db.apply_inventory(self.now, self.bridge, inventory).unwrap();
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

    fn later(&mut self, by: SignedDuration) {
        self.now += by;
        self.db.end_overdue(self.now).unwrap();
    }

    fn resolve(&mut self, job: JobId, verdict: Verdict) {
        let report = Report {
            job_id: job,
            revision: 2,
            at: self.now,
            outcome: Outcome::unknown(Code::NoAnswer, "silence"),
            resolution: Some(Resolution { verdict, by: "the desk".into() }),
            rooms: Vec::new(),
            local: None,
        };
        self.db.apply_report(self.now, self.bridge, &report).unwrap();
    }

    /// The agent says that it took a grant's code out of the first lock by itself.
    fn emptied_at_its_end(&mut self, grant: &Grant) {
        let report = Report {
            job_id: JobId(uuid::Uuid::from_u128(5)),
            revision: 1,
            at: self.now,
            outcome: Outcome::Succeeded(Success::default()),
            resolution: None,
            rooms: Vec::new(),
            local: Some(LocalJob {
                origin: crate::model::Origin::Timer,
                system: SystemName::new("annex").unwrap(),
                kind: Kind::SlotRemove,
                device: Some("lock-1".into()),
                slot: Some(grant.methods[0].id.to_string()),
                created_at: self.now,
                retries: None,
                card: None,
            }),
        };
        self.db.apply_report(self.now, self.bridge, &report).unwrap();
    }

    fn rows(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.db.one(&sql, [], |row| row.get(0)).unwrap().unwrap()
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
        card_numbers: false,
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
    property.now += crate::cloud::store::devices::READ_EVERY;
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

    property.now += crate::cloud::store::devices::READ_EVERY;
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
    property.emptied_at_its_end(&grant);
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
    assert!(property.is_issued(&grant), "it goes on opening the other device");
    let coming = property.the_grant(&grant).unwrap().methods[0].code.clone().unwrap().coming;
    assert_eq!(coming, [property.device("lock-2")]);
    let puts: Vec<_> =
        property.ordered().into_iter().filter(|(_, order)| matches!(order, Order::SlotPut(_))).collect();
    let [(job, _)] = puts.as_slice() else { panic!("{puts:?}") };
    property.done(*job);
    assert!(property.is_issued(&grant));
    assert!(!property.told(&grant).contains(&"revoked".to_owned()));
    assert_eq!(property.the_grant(&grant).unwrap().methods[0].code.clone().unwrap().coming, []);
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

/// An inventory whose locks take no PIN.
fn without_pins(locks: &[&str]) -> Inventory {
    let mut inventory = inventory(locks);
    for device in &mut inventory.systems[0].devices {
        device.pins = None;
    }
    inventory
}

#[test]
fn a_code_that_no_device_takes_is_an_error_of_the_grant_until_one_does() {
    let mut property = Property::new();
    property.shows_all(&without_pins(&["lock-1", "lock-2"]));
    let grant = property.grant(&["lock-1"], &[Mode::Code, Mode::Code]);
    assert_eq!((grant.methods.len(), grant.lacks.len(), grant.errors.len()), (0, 2, 0));
    let told = |property: &mut Property| {
        let told = property.told(&grant);
        told.into_iter().filter(|kind| kind == "could_not_create_requested_access_methods").count()
    };
    assert_eq!(told(&mut property), 2);
    property.later(SignedDuration::from_hours(2));
    assert_eq!(told(&mut property), 2, "each request is told of once");
    property.shows(&["lock-1", "lock-2"]);
    let (made, orders) = (property.the_grant(&grant).unwrap(), property.ordered());
    assert_eq!((made.methods.len(), made.lacks.len(), orders.len()), (2, 0, 2));
    assert_ne!(put(&orders[0].1).content, put(&orders[1].1).content, "no code twice on a lock");
    for (job, _) in orders {
        property.done(job);
    }
    assert!(property.is_issued(&grant));

    // What is taken back by name is wanted no more.
    let (now, gone) = (property.now, made.methods[0].id);
    property.db.tenant(property.workspace).delete_method(now, gone).unwrap().unwrap();
    for (job, _) in property.ordered() {
        property.done(job);
    }
    property.shows_all(&without_pins(&["lock-1", "lock-2"]));
    property.shows(&["lock-1", "lock-2"]);
    let left = property.the_grant(&grant).unwrap();
    assert_eq!((left.methods.len(), left.lacks.len()), (1, 0));
}

#[test]
fn a_means_that_cannot_be_made_at_once_is_refused_and_nothing_is_kept_of_it() {
    let mut property = Property::new();
    property.shows_all(&without_pins(&["lock-1", "lock-2"]));
    let grant = property.grant(&["lock-1"], &[Mode::CloudKey]);
    let before = (property.told(&grant), property.rows("code_request"), property.rows("requested_method"));
    let wanted = [Requested { mode: Mode::Code, code: None }];
    let now = property.now;
    let refused = property.db.tenant(property.workspace).create_method(now, grant.id, &wanted).unwrap();
    assert_eq!(refused.unwrap_err().name(), "cannot_create_requested_access_methods");
    assert_eq!(
        before,
        (property.told(&grant), property.rows("code_request"), property.rows("requested_method"))
    );
    property.shows(&["lock-1", "lock-2"]);
    assert_eq!(property.the_grant(&grant).unwrap().methods.len(), 1);
    let made = property.db.tenant(property.workspace).create_method(now, grant.id, &wanted).unwrap().unwrap();
    assert_eq!(made.mode, Mode::Code);
    assert_eq!(property.rows("requested_method"), 2);
}

#[test]
fn what_is_over_leaves_no_rows_behind() {
    let mut property = Property::new();
    for _ in 0..20 {
        let grant = property.grant(&["lock-1", "lock-2"], &[Mode::Code]);
        for (job, _) in property.ordered() {
            property.done(job);
        }
        assert!(property.is_issued(&grant));
        property.later(SignedDuration::from_hours(24));
        property.later(SignedDuration::from_mins(3));
        for (job, _) in property.ordered() {
            property.done(job);
        }
        assert!(property.the_grant(&grant).unwrap().methods[0].code.clone().unwrap().code.has_ended);
        let rows = ["desired_slot", "observed_slot", "slot_work"].map(|table| property.rows(table));
        assert_eq!(rows, [0; 3]);
    }
    // A lock's history is no part of what a device that came or went sets in motion.
    let due = "code_grant WHERE due_at IS NOT NULL";
    assert_eq!(property.rows(due), 0);
    let inventory = without_pins(&["lock-1", "lock-2"]);
    property.db.apply_inventory(property.now, property.bridge, &inventory).unwrap();
    assert_eq!(property.rows(due), 0);
}

#[test]
fn one_grant_that_cannot_be_read_keeps_nobody_waiting() {
    let mut property = Property::new();
    let broken = property.grant(&["lock-1"], &[Mode::Code]);
    let sound = property.grant(&["lock-2"], &[Mode::Code]);
    let orders = property.ordered();
    let spoil = "UPDATE code_method SET pin = x'00' WHERE access_method_id = ?1";
    property.db.execute(spoil, [broken.methods[0].id.to_string()]).unwrap();
    property.db.execute("UPDATE code_grant SET due_at = ?1", [ms(property.now)]).unwrap();
    let overdue = property.db.end_overdue(property.now).unwrap();
    assert!(overdue.next.unwrap() > property.now, "{overdue:?}");
    let put_off = "code_grant WHERE due_at = ?1";
    let put_off: i64 = property
        .db
        .one(&format!("SELECT count(*) FROM {put_off}"), [ms(property.now + PUT_OFF)], |row| row.get(0))
        .unwrap()
        .unwrap();
    assert_eq!(put_off, 1);
    // Its report is taken in, so that others are, and its device is read.
    for (job, _) in orders {
        property.done(job);
    }
    assert!(property.is_issued(&sound));
    let is_read = |order: &Order| matches!(order, Order::DeviceRead { .. });
    assert!(property.ordered().iter().any(|(_, order)| is_read(order)));
}

#[test]
fn what_was_said_of_a_slot_that_could_not_be_read_is_in_doubt_until_it_can_and_is_ordered_again() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1"], &[Mode::Code]);
    let (put, _) = property.ordered().remove(0);
    property.done(put);
    let (now, method) = (property.now, grant.methods[0].id.to_string());
    property.db.tenant(property.workspace).delete_grant(now, grant.id).unwrap().unwrap();
    let (remove, _) = property.ordered().remove(0);
    let sound: Option<Vec<u8>> =
        property.db.one("SELECT pin FROM code_method", [], |row| row.get(0)).unwrap();
    let pin = "UPDATE code_method SET pin = ?2 WHERE access_method_id = ?1";
    property.db.execute(pin, params![method, [0_u8]]).unwrap();
    property.report(remove, Outcome::failed(Code::NoAnswer, "nobody answers"));
    assert_eq!(property.rows("slot_work WHERE job_id IS NULL"), 1);
    let doubt = format!("observed_slot WHERE doubt_job_ids = '[\"{remove}\"]'");
    assert_eq!(property.rows(&doubt), 1);
    let removes = |property: &mut Property| -> Vec<JobId> {
        let orders = property.ordered().into_iter();
        orders.filter(|(_, order)| matches!(order, Order::SlotRemove { .. })).map(|(job, _)| job).collect()
    };
    property.later(SignedDuration::from_hours(1));
    assert_eq!(removes(&mut property), []);
    property.db.execute(pin, params![method, sound]).unwrap();
    property.later(PUT_OFF);
    let again = removes(&mut property);
    assert_eq!(again.len(), 1);
    // So it is where the bridge forgets it: nothing else would ever end it.
    property.db.execute(pin, params![method, [0_u8]]).unwrap();
    property.db.orders_lost(property.now, property.bridge, &again).unwrap();
    property.db.execute(pin, params![method, sound]).unwrap();
    property.later(PUT_OFF);
    let again = removes(&mut property);
    assert_eq!(again.len(), 1);
    property.done(again[0]);
    assert!(property.the_grant(&grant).is_none());
    assert_eq!(property.rows("observed_slot"), 0);
}

/// The agent emptied a slot at its end, and says it once.
#[test]
fn what_a_site_did_to_a_slot_that_cannot_be_read_is_read_from_the_device() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1"], &[Mode::Code]);
    let (put, _) = property.ordered().remove(0);
    property.done(put);
    let sound: Option<Vec<u8>> =
        property.db.one("SELECT pin FROM code_method", [], |row| row.get(0)).unwrap();
    property.db.execute("UPDATE code_method SET pin = x'00'", []).unwrap();
    property.emptied_at_its_end(&grant);
    property.db.execute("UPDATE code_method SET pin = ?1", [sound]).unwrap();
    property.later(SignedDuration::ZERO);
    let orders = property.ordered();
    let [(read, Order::DeviceRead { .. })] = orders.as_slice() else { panic!("{orders:?}") };
    let nothing = Success { slots: Some(Vec::new()), ..Success::default() };
    property.report(*read, Outcome::Succeeded(nothing));
    assert!(!property.is_issued(&grant), "it is known to be empty");
}

#[test]
fn a_report_that_cannot_be_stored_is_taken_in_and_its_slot_is_seen_to_after_a_pause() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1"], &[Mode::Code]);
    let (put, _) = property.ordered().remove(0);
    let refuse =
        "CREATE TEMP TRIGGER refuse BEFORE INSERT ON event WHEN new.event_type = 'access_method.issued'
                  BEGIN SELECT raise(ABORT, 'no'); END";
    property.db.connection.execute_batch(refuse).unwrap();
    property.done(put);
    assert!(!property.is_issued(&grant));
    let puts = |property: &mut Property| -> Vec<JobId> {
        let orders = property.ordered().into_iter();
        orders.filter(|(_, order)| matches!(order, Order::SlotPut(_))).map(|(job, _)| job).collect()
    };
    assert_eq!(puts(&mut property), []);
    property.db.connection.execute_batch("DROP TRIGGER refuse").unwrap();
    property.later(SignedDuration::from_mins(1));
    let again = puts(&mut property);
    assert_eq!(again.len(), 1);
    property.done(again[0]);
    assert!(property.is_issued(&grant));
}

#[test]
fn a_persons_pin_that_cannot_be_read_stands_in_no_other_grants_way() {
    let mut property = Property::new();
    let [first, second, third] = [(); 3].map(|()| property.grant(&["lock-1"], &[Mode::Code]));
    let same = "UPDATE access_grant SET user_identity_id = (SELECT min(user_identity_id) FROM access_grant)";
    property.db.execute(same, []).unwrap();
    let mut habits = |spoilt: &Grant, pin: &[u8]| {
        let spoil = "UPDATE code_method SET pin = ?2 WHERE access_method_id = ?1";
        property.db.execute(spoil, params![spoilt.methods[0].id.to_string(), pin]).unwrap();
        let now = property.now;
        let book = property.db.tenant(property.workspace).load_book(now, third.id, Known::Pins).unwrap();
        book.unwrap().grants[&third.id].habits.len()
    };
    assert_eq!(habits(&first, &[0]), 1);
    assert_eq!(habits(&second, &[]), 0);
}

#[test]
fn only_so_many_grants_are_looked_at_at_once_and_the_rest_at_once_after() {
    let mut property = Property::new();
    property.shows_all(&without_pins(&["lock-1", "lock-2"]));
    let most = i64::from(DUE_AT_ONCE);
    for _ in 0..=most {
        property.grant(&["lock-1"], &[Mode::Code]);
    }
    property.db.execute("UPDATE code_grant SET due_at = ?1", [ms(property.now)]).unwrap();
    let left = format!("code_grant WHERE due_at <= {}", ms(property.now));
    let first = property.db.end_overdue(property.now).unwrap();
    assert_eq!((property.rows(&left), first.next), (1, Some(property.now)));
    property.db.end_overdue(property.now).unwrap();
    assert_eq!(property.rows(&left), 0);
}

#[test]
fn a_doubt_that_is_settled_late_changes_nothing_that_was_done_since() {
    let mut property = Property::new();
    let grant = property.grant(&["lock-1"], &[Mode::Code]);
    let (old, _) = property.ordered().remove(0);
    property.report(old, Outcome::unknown(Code::NoAnswer, "silence"));
    property.later(SignedDuration::from_mins(1));
    let (again, _) = property.ordered().remove(0);
    property.report(again, Outcome::unknown(Code::NoAnswer, "silence"));
    // Both are in doubt: that one was not done says nothing of the other.
    property.resolve(again, Verdict::NotDone);
    assert!(!property.is_issued(&grant));
    property.db.execute("DELETE FROM bridge_order", []).unwrap();
    assert_eq!(
        property.db.forget_ordered_slots(i64::MAX, 10).unwrap(),
        1,
        "the other is still to be settled"
    );
    let (now, name) = (property.now, GrantName::Id(grant.id));
    let later = GrantChange { ends_at: Some(None), ..GrantChange::default() };
    property.db.tenant(property.workspace).update_grant(now, &name, &later).unwrap().unwrap();
    let (newest, _) = property.ordered().remove(0);
    property.done(newest);
    assert!(property.is_issued(&grant));
    property.resolve(old, Verdict::Done);
    assert!(property.is_issued(&grant));
    assert_eq!(property.ordered(), []);
}

#[test]
fn a_stray_that_refuses_to_go_is_tried_again() {
    let mut property = Property::new();
    let read_due = "UPDATE device SET read_due = ?1 WHERE name = 'lock-1'";
    property.db.execute(read_due, [ms(property.now)]).unwrap();
    property.later(SignedDuration::ZERO);
    let (read, _) = property.ordered().remove(0);
    let stray = uuid::Uuid::from_u128(9).to_string();
    let slots = Some(vec![SlotSeen { slot: stray.clone(), generation: 4 }]);
    property.report(read, Outcome::Succeeded(Success { slots, ..Success::default() }));
    for _ in 0..3 {
        let (job, order) = property.ordered().remove(0);
        assert!(matches!(&order, Order::SlotRemove { slot, .. } if *slot == stray), "{order:?}");
        property.report(job, Outcome::failed(Code::NoAnswer, "nobody answers"));
        assert_eq!(property.ordered(), []);
        property.later(SignedDuration::from_mins(31));
    }
    let (job, _) = property.ordered().remove(0);
    property.done(job);
    assert_eq!((property.rows("desired_slot"), property.rows("stray_slot")), (0, 0));
}
