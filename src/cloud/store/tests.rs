//! The store's rules, with a bridge that says what the test tells it to.

mod desired;
mod follow;
mod stays;

use jiff::{SignedDuration, Timestamp};

use super::{rows::ms, *};
use crate::{
    grants::Mode,
    model::{
        AccessMethodId, AcsEncoderId, AcsEntranceId, ActionAttemptId, BridgeId, Capabilities, CardFacts,
        CardSeen, Code, Condition, Door, DoorKind, DoorName, EncoderName, Inventory, JobId, KeyTemplate,
        Kind, LocalJob, Origin, Outcome, ProofLevel, Report, ReservationKey, Resolution, RoomState, Severity,
        Success, SystemInventory, SystemKind, SystemName, Verdict, Written,
    },
    protocol::{Memory, Position},
};

/// A property with rooms 101 to 103, a lobby and two encoders; the wall clock stands at noon until it is moved.
struct Property {
    db: Db,
    workspace: WorkspaceId,
    bridge: BridgeId,
    now: Timestamp,
    folder: tempfile::TempDir,
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

impl Property {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let random = Random::seeded(1);
        let seal = SealKey::new([7; 32], random.clone());
        let mut db = Db::open(&Storage::folder(folder.path()), seal, random).unwrap();
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let workspace = db.found(now, "Home", [1; 32]).unwrap();
        let bridge = db.the_bridge(now, workspace).unwrap();
        meet(&mut db, now, bridge, 1);
        db.apply_inventory(now, bridge, &inventory(&["101", "102", "103"])).unwrap();
        Self { db, workspace, bridge, now, folder }
    }

    fn tenant(&mut self) -> Tenant<'_> {
        self.db.tenant(self.workspace)
    }

    fn entrances(&mut self) -> Vec<Entrance> {
        let page = Page { limit: 100, after: 0 };
        self.tenant().entrances(&EntranceFilter::default(), page).unwrap().rows
    }

    fn door(&mut self, name: &str) -> AcsEntranceId {
        self.entrances().into_iter().find(|door| door.name == name).unwrap().id
    }

    fn encoder(&mut self, index: usize) -> AcsEncoderId {
        let page = Page { limit: 100, after: 0 };
        self.tenant().encoders(None, None, page).unwrap().rows[index].id
    }

    fn grant(&mut self, stay: &str, doors: &[&str], hours: i64) -> Grant {
        let command = self.command(stay, doors, hours);
        let now = self.now;
        self.tenant().create_grant(now, &command).unwrap().unwrap()
    }

    fn command(&mut self, stay: &str, doors: &[&str], hours: i64) -> GrantCommand {
        GrantCommand {
            identity: IdentityRef::New(Person {
                full_name: Some("Jane Quicksilver".into()),
                user_identity_key: Some(self.db.random.uuid().to_string()),
                ..Person::default()
            }),
            key: None,
            reservation_key: Some(ReservationKey::new(stay).unwrap()),
            name: None,
            starts_at: None,
            ends_at: Some(self.now + SignedDuration::from_hours(hours)),
            entrances: doors.iter().map(|door| self.door(door)).collect(),
            devices: Vec::new(),
            spaces: Vec::new(),
            space_keys: Vec::new(),
            requested: vec![Requested { mode: Mode::Card, code: None }],
        }
    }

    /// Orders the card, and hands the job to the bridge.
    fn encode(&mut self, method: AccessMethodId) -> (ActionAttemptId, JobId) {
        let (attempt, job) = self.order(method);
        self.hand(job);
        (attempt, job)
    }

    fn order(&mut self, method: AccessMethodId) -> (ActionAttemptId, JobId) {
        let (now, encoder) = (self.now, self.encoder(0));
        let attempt = self.tenant().encode(now, method, encoder).unwrap().unwrap().id;
        let job = self
            .db
            .one(
                "SELECT job_id FROM action_attempt WHERE action_attempt_id = ?1",
                [attempt.to_string()],
                |row| rows::id(row, "job_id"),
            )
            .unwrap();
        (attempt, job.unwrap())
    }

    fn hand(&mut self, job: JobId) {
        let sql = "UPDATE bridge_order SET handed = 1 WHERE job_id = ?1";
        assert_eq!(self.db.execute(sql, [job.to_string()]).unwrap(), 1);
    }

    fn report(&mut self, job: JobId, outcome: Outcome) {
        let report = report(self.now, job, outcome);
        self.db.apply_report(self.now, self.bridge, &report).unwrap();
    }

    fn resolve(&mut self, job: JobId, verdict: Verdict) {
        let mut report = report(self.now, job, Outcome::unknown(Code::NoAnswer, "silence"));
        report.revision = 2;
        report.resolution = Some(Resolution { verdict, by: "the desk".into() });
        self.db.apply_report(self.now, self.bridge, &report).unwrap();
    }

    fn method(&mut self, method: AccessMethodId) -> Option<Method> {
        self.tenant().method(method).unwrap()
    }

    /// How an attempt stands: `pending`, `success` or the error's type.
    fn attempt(&mut self, attempt: ActionAttemptId) -> String {
        match self.tenant().attempt(attempt).unwrap().unwrap().state {
            AttemptState::Pending => "pending".into(),
            AttemptState::Success(_) | AttemptState::Unlocked => "success".into(),
            AttemptState::Error { kind, .. } => kind,
        }
    }

    fn told(&mut self) -> Vec<String> {
        let filter = EventFilter { limit: 1_000, ..EventFilter::default() };
        let events = self.tenant().events(&filter).unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }

    fn delete(&mut self, grant: &Grant) {
        let now = self.now;
        self.tenant().delete_grant(now, grant.id).unwrap().unwrap();
    }

    fn checkouts(&self) -> Vec<JobId> {
        let all = "SELECT job_id FROM ordered_checkout ORDER BY rowid";
        self.db.all(all, [], |row| rows::id(row, "job_id")).unwrap()
    }

    fn still_there(&mut self, grant: &Grant) -> bool {
        self.tenant().grant(&GrantName::Id(grant.id)).unwrap().is_some()
    }

    fn later(&mut self, by: SignedDuration) -> Overdue {
        self.now += by;
        self.db.end_overdue(self.now).unwrap()
    }
}

/// A bridge says hello, and takes no orders yet.
fn meet(db: &mut Db, now: Timestamp, bridge: BridgeId, connection: u64) {
    let memory = Memory {
        orders_received: Position::default(),
        reports_sent: Position::default(),
        reports_acknowledged: Position::default(),
        orders_limit: 0,
    };
    db.meet(now, bridge, connection, &memory).unwrap();
}

fn inventory(rooms: &[&str]) -> Inventory {
    let proven = Some(ProofLevel::Vector);
    let door = |name: &str, kind| Door { name: DoorName::new(name).unwrap(), display_name: None, kind };
    let encoder =
        |name: &str| crate::model::Encoder { name: EncoderName::new(name).unwrap(), display_name: None };
    Inventory {
        systems: vec![SystemInventory {
            name: SystemName::new("salto").unwrap(),
            kind: SystemKind::SaltoIs,
            time_zone: "Europe/Oslo".into(),
            capabilities: Capabilities {
                r#override: proven,
                join: proven,
                future_start: proven,
                checkout: proven,
                modify_stay: None,
                read_card: proven,
                open_end: None,
                slots: None,
                unlock: None,
                chip_numbers: None,
                max_rooms: 4,
                max_common: 62,
                answer_means_written: true,
                parallel_encoders: true,
            },
            checkout_on_last_grant: true,
            override_after_deleted_card: false,
            doors: rooms
                .iter()
                .map(|room| door(room, DoorKind::Room))
                .chain([door("lobby", DoorKind::Common)])
                .collect(),
            encoders: vec![encoder("1"), encoder("2")],
            devices: Vec::new(),
        }],
    }
}

fn written() -> Outcome {
    Outcome::Succeeded(Success {
        written: Some(Written::Proven),
        card: Some(CardFacts { serial: Some("04A1B2C3".into()), ..CardFacts::default() }),
        ..Success::default()
    })
}

fn report(at: Timestamp, job_id: JobId, outcome: Outcome) -> Report {
    Report { job_id, revision: 1, at, outcome, resolution: None, rooms: Vec::new(), local: None }
}

#[test]
fn a_written_card_ends_its_attempt_and_opens_its_doors_in_the_feed() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101", "lobby"], 24);
    let method = grant.methods[0].id;
    let (attempt, job) = property.encode(method);
    assert_eq!(property.attempt(attempt), "pending");
    property.report(job, written());
    assert_eq!(property.attempt(attempt), "success");
    assert!(property.method(method).unwrap().is_issued);
    let told = property.told();
    let tail: Vec<_> =
        told.iter().map(String::as_str).skip_while(|kind| *kind != "access_grant.created").collect();
    assert_eq!(
        tail,
        [
            "access_grant.created",
            "access_method.created",
            "access_method.card_encoding_required",
            "acs_credential.issued",
            "access_method.issued",
            "access_grant.access_granted_to_door",
            "access_grant.access_granted_to_door",
            "access_grant.access_granted_to_all_doors",
        ]
    );
    property.report(job, Outcome::failed(Code::NoCard, "the same report, garbled"));
    assert_eq!(property.attempt(attempt), "success");
    assert_eq!(property.told(), told, "a report that was taken in before changes nothing");
}

#[test]
fn what_becomes_of_a_card_is_told_by_its_credential() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let method = grant.methods[0].id;
    let never_written = property.grant("stay-1", &["101"], 24);
    for _ in 0..2 {
        let (_, job) = property.encode(method);
        property.report(job, written());
        let (now, name) = (property.now, GrantName::Id(grant.id));
        let change = GrantChange { ends_at: Some(Some(now + HOUR * 30)), ..GrantChange::default() };
        property.tenant().update_grant(now, &name, &change).unwrap().unwrap();
    }
    let now = property.now;
    for grant in [grant.id, never_written.id] {
        property.tenant().delete_grant(now, grant).unwrap().unwrap();
    }
    let card = property.tenant().card_of_method(method).unwrap().unwrap().id;
    let told = |filter: EventFilter, property: &mut Property| {
        let events = property.tenant().events(&EventFilter { limit: 100, ..filter }).unwrap();
        events
            .into_iter()
            .map(|event| (event.kind, event.fields["acs_credential_id"].clone()))
            .collect::<Vec<_>>()
    };
    let of_the_card = told(EventFilter { credential: Some(card), ..EventFilter::default() }, &mut property);
    let kinds = ["acs_credential.issued", "acs_credential.reissued", "acs_credential.deleted"];
    assert_eq!(of_the_card, kinds.map(|kind| (kind.to_owned(), serde_json::json!(card))));
    let of_any = EventFilter { kinds: Some(kinds.map(str::to_owned).to_vec()), ..EventFilter::default() };
    assert_eq!(told(of_any, &mut property), of_the_card, "a card that was never written was never there");
}

#[test]
fn a_refused_card_may_be_tried_again_and_a_pending_one_is_the_same_attempt() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101"], 24).methods[0].id;
    let (attempt, job) = property.encode(method);
    assert_eq!(property.order(method).0, attempt);
    let (now, other) = (property.now, property.encoder(1));
    let refused = property.tenant().encode(now, method, other).unwrap().unwrap_err();
    assert_eq!(refused.name(), "access_method_already_encoding");
    property.report(job, Outcome::failed(Code::NoCard, "nobody laid a card down"));
    assert_eq!(property.attempt(attempt), "no_credential_on_encoder");
    assert_ne!(property.order(method).0, attempt);
}

#[test]
fn a_doubt_blocks_the_method_until_it_is_settled_and_the_attempt_stays_as_it_ended() {
    for (verdict, issued) in [(Verdict::Done, true), (Verdict::NotDone, false)] {
        let mut property = Property::new();
        let method = property.grant("stay-1", &["101"], 24).methods[0].id;
        let (attempt, job) = property.encode(method);
        property.report(job, Outcome::unknown(Code::NoAnswer, "silence"));
        assert_eq!(property.attempt(attempt), "encoding_interrupted");
        let (now, encoder) = (property.now, property.encoder(0));
        let refused = property.tenant().encode(now, method, encoder).unwrap().unwrap_err();
        assert_eq!(refused.name(), "access_method_not_ready_for_encoding");

        property.resolve(job, verdict);
        assert_eq!(property.attempt(attempt), "encoding_interrupted");
        let method = property.method(method).unwrap();
        assert_eq!((method.is_issued, method.in_doubt), (issued, false));
    }
}

#[test]
fn a_job_that_never_left_ends_for_want_of_a_bridge_and_may_be_tried_again() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101"], 24).methods[0].id;
    let (attempt, _) = property.order(method);
    let overdue = property.later(SignedDuration::from_secs(60));
    assert_eq!((overdue.changed, property.attempt(attempt).as_str()), (false, "pending"));
    property.now = overdue.next.unwrap();
    assert!(property.later(SignedDuration::ZERO).changed);
    assert_eq!(property.attempt(attempt), "bridge_disconnected");
    assert!(!property.method(method).unwrap().in_doubt);
    assert_ne!(property.order(method).0, attempt);
}

#[test]
fn what_settles_a_doubt_about_an_earlier_card_leaves_the_one_about_a_later_card() {
    for settled in [Outcome::failed(Code::NoCard, "nobody laid a card down"), written()] {
        let mut property = Property::new();
        let method = property.grant("stay-1", &["101"], 24).methods[0].id;
        // The cloud takes the first order back, which may have been on its way after all.
        let (_, first) = property.order(method);
        property.now = property.later(SignedDuration::ZERO).next.unwrap();
        property.later(SignedDuration::ZERO);
        let (_, second) = property.encode(method);
        let (now, bridge) = (property.now, property.bridge);
        property.db.orders_lost(now, bridge, &[second]).unwrap();
        assert!(property.method(method).unwrap().in_doubt);
        property.report(first, settled.clone());
        let shown = property.method(method).unwrap();
        assert!(shown.in_doubt && !shown.is_issued, "after {settled:?}");
        property.report(second, Outcome::failed(Code::NoCard, "it was found in a log"));
        assert!(!property.method(method).unwrap().in_doubt);
    }
}

#[test]
fn a_sent_job_that_falls_silent_is_a_doubt_and_its_late_outcome_moves_only_the_method() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101"], 24).methods[0].id;
    let (attempt, job) = property.encode(method);
    property.later(SignedDuration::from_secs(120));
    assert_eq!(property.attempt(attempt), "pending", "a person may still be laying the card down");
    property.later(SignedDuration::from_secs(120));
    assert_eq!(property.attempt(attempt), "encoding_interrupted");
    assert!(property.method(method).unwrap().in_doubt);
    property.report(job, written());
    assert_eq!(property.attempt(attempt), "encoding_interrupted");
    assert!(property.method(method).unwrap().is_issued);
}

#[test]
fn what_a_bridge_forgot_ends_in_doubt_unless_it_was_reported_before() {
    let mut property = Property::new();
    let first = property.grant("stay-1", &["101"], 24).methods[0].id;
    let second = property.grant("stay-2", &["102"], 24).methods[0].id;
    let (reported, first_job) = property.encode(first);
    let (lost, second_job) = property.encode(second);
    property.report(first_job, written());
    let (now, bridge) = (property.now, property.bridge);
    property.db.orders_lost(now, bridge, &[first_job, second_job]).unwrap();
    assert_eq!(property.attempt(reported), "success");
    assert_eq!(property.attempt(lost), "encoding_interrupted");
    assert!(property.method(second).unwrap().in_doubt);
}

#[test]
fn a_grant_without_a_card_vanishes_and_its_key_and_room_are_free() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let (attempt, _) = property.order(grant.methods[0].id);
    property.delete(&grant);
    assert!(!property.still_there(&grant));
    assert!(property.method(grant.methods[0].id).is_none());
    assert_eq!(property.attempt(attempt), "credential_deleted");
    property.grant("stay-1", &["103"], 24);
    let now = property.now;
    let again = property.tenant().delete_grant(now, grant.id).unwrap().unwrap_err();
    assert_eq!(again.name(), "access_grant_not_found");
}

#[test]
fn a_grant_with_a_card_is_shown_until_the_card_opens_no_longer() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let other = property.grant("stay-1", &["101"], 24);
    let (_, job) = property.encode(grant.methods[0].id);
    property.report(job, written());
    property.delete(&grant);
    assert!(property.still_there(&grant));
    assert!(property.still_there(&other), "another grant of the stay is not touched");
    property.later(HOUR * 23);
    assert!(property.still_there(&grant));
    property.later(HOUR);
    assert!(!property.still_there(&grant));
}

#[test]
fn a_card_written_while_its_grant_was_deleted_is_shown_and_one_not_written_is_gone() {
    for (outcome, there) in [(written(), true), (Outcome::Cancelled, false)] {
        let mut property = Property::new();
        let grant = property.grant("stay-1", &["101"], 24);
        let (attempt, job) = property.encode(grant.methods[0].id);
        property.delete(&grant);
        assert!(property.still_there(&grant), "the encoder may be writing");
        assert_eq!(property.attempt(attempt), "pending");
        property.report(job, outcome);
        assert_eq!(property.still_there(&grant), there);
    }
}

#[test]
fn the_last_grant_of_a_stay_frees_the_room_and_then_the_cards_are_forgotten() {
    let mut property = Property::new();
    let first = property.grant("stay-1", &["101"], 24);
    let second = property.grant("stay-1", &["101"], 24);
    let (_, job) = property.encode(first.methods[0].id);
    property.report(job, written());
    property.delete(&first);
    assert!(property.checkouts().is_empty(), "the second grant still lives");
    property.delete(&second);
    let [job] = property.checkouts()[..] else { panic!("one room, one check-out") };
    assert!(property.still_there(&first));
    property.report(job, Outcome::Succeeded(Success::default()));
    assert!(!property.still_there(&first));
}

#[test]
fn a_stay_that_lives_again_keeps_the_rooms_that_were_to_be_freed() {
    let mut property = Property::new();
    let first = property.grant("stay-1", &["101"], 24);
    let (_, job) = property.encode(first.methods[0].id);
    property.report(job, written());
    property.delete(&first);
    let [waiting] = property.checkouts()[..] else { panic!("one room, one check-out") };
    let again = property.grant("stay-1", &["101"], 24);
    assert_eq!(property.db.standing(waiting).unwrap(), Some(Standing::Over), "it never left");
    assert!(property.checkouts().is_empty());

    property.delete(&again);
    assert!(property.still_there(&first));
    let [handed] = property.checkouts()[..] else { panic!("the earlier card is left to be freed") };
    property.hand(handed);
    let again = property.grant("stay-1", &["101"], 24);
    let cancels = "SELECT job_id FROM bridge_order WHERE what = 'cancel'";
    let cancelled = property.db.all(cancels, [], |row| rows::id::<JobId>(row, "job_id")).unwrap();
    assert_eq!(cancelled, [handed]);
    property.report(handed, Outcome::Cancelled);

    property.delete(&again);
    let [last] = property.checkouts()[..] else { panic!("what became of the earlier ones is forgotten") };
    property.report(last, Outcome::Succeeded(Success::default()));
    assert!(!property.still_there(&first));
}

#[test]
fn a_room_that_is_freed_takes_no_card_along_that_is_still_being_written() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let (attempt, job) = property.encode(grant.methods[0].id);
    property.delete(&grant);
    let [checkout] = property.checkouts()[..] else { panic!("one room, one check-out") };
    property.report(checkout, Outcome::Succeeded(Success::default()));
    property.report(job, written());
    assert_eq!(property.attempt(attempt), "success");
    assert!(property.still_there(&grant));
}

#[test]
fn a_bridges_word_counts_more_than_the_belief_that_it_never_heard_of_a_job() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101"], 24).methods[0].id;
    let (attempt, job) = property.order(method);
    property.later(HOUR);
    assert_eq!(property.attempt(attempt), "bridge_disconnected");
    // The database was a restored one: before it was set back, the job had been handed out.
    property.report(job, written());
    assert_eq!(property.attempt(attempt), "bridge_disconnected");
    assert!(property.method(method).unwrap().is_issued);
}

#[test]
fn a_door_that_disappears_comes_back_as_itself() {
    let mut property = Property::new();
    let before = property.door("102");
    let (now, bridge) = (property.now, property.bridge);
    property.db.apply_inventory(now, bridge, &inventory(&["101", "103"])).unwrap();
    let gone = |property: &mut Property| {
        let doors = property.entrances();
        doors.iter().find(|door| door.name == "102").unwrap().removed_at.is_some()
    };
    assert!(gone(&mut property));
    property.db.apply_inventory(now, bridge, &inventory(&["101", "102", "103"])).unwrap();
    assert!(!gone(&mut property));
    assert_eq!(property.door("102"), before);
    let told = property.told();
    assert_eq!(told.iter().filter(|kind| *kind == "acs_entrance.removed").count(), 1);
    assert_eq!(told.iter().filter(|kind| *kind == "acs_entrance.added").count(), 5);
}

#[test]
fn a_card_is_not_written_without_a_room_that_its_guest_was_promised() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101", "102", "lobby"], 24).methods[0].id;
    let (now, bridge, encoder) = (property.now, property.bridge, property.encoder(0));
    property.db.apply_inventory(now, bridge, &inventory(&["101", "103"])).unwrap();
    let refused = property.tenant().encode(now, method, encoder).unwrap().unwrap_err();
    assert_eq!(refused.name(), "access_method_not_ready_for_encoding");
    assert!(refused.to_string().contains("102"), "{refused}");
    property.db.apply_inventory(now, bridge, &inventory(&["101", "102"])).unwrap();
    property.order(method);
}

#[test]
fn a_door_that_a_lock_system_lists_twice_is_one_door() {
    let mut property = Property::new();
    let (now, bridge) = (property.now, property.bridge);
    property.db.apply_inventory(now, bridge, &inventory(&["101", "104", "104"])).unwrap();
    assert_eq!(property.entrances().iter().filter(|door| door.name == "104").count(), 1);
}

#[test]
fn the_feed_is_read_from_an_instant_on_without_looking_at_what_came_before() {
    let property = Property::new();
    let filter = EventFilter { since: Some(property.now), limit: 500, ..EventFilter::default() };
    let plan = |filter: &EventFilter| {
        let (sql, values) = filter.question().in_order("home", "e.occurred_at, e.n", 500);
        let values = rusqlite::params_from_iter(values);
        let details = property
            .db
            .all(&format!("EXPLAIN QUERY PLAN {sql}"), values, |row| row.get::<_, String>("detail"));
        details.unwrap().join("\n")
    };
    let by_time = plan(&filter);
    assert!(by_time.contains("event_by_time") && !by_time.contains("B-TREE"), "{by_time}");
    let of_type = plan(&EventFilter { kinds: Some(vec!["lock.unlocked".into()]), ..filter });
    assert!(of_type.contains("event_by_time") && !of_type.contains("B-TREE"), "{of_type}");
}

#[test]
fn a_bridge_or_a_line_that_is_down_is_an_error_of_the_system_and_told_once() {
    let mut property = Property::new();
    let (now, bridge) = (property.now, property.bridge);
    let troubles = |property: &mut Property| -> Vec<&'static str> {
        let systems = property.tenant().systems(None, None, None).unwrap();
        systems[0].troubles.iter().map(|trouble| trouble.code).collect()
    };
    assert!(troubles(&mut property).is_empty());
    let down = Condition {
        code: "line_down".into(),
        severity: Severity::Error,
        subject: "salto".into(),
        message: "The line is not open".into(),
        since: now,
    };
    property.db.apply_status(now, bridge, std::slice::from_ref(&down)).unwrap();
    property.db.apply_status(now, bridge, &[down]).unwrap();
    assert_eq!(troubles(&mut property), ["acs_system_disconnected"]);
    property.db.part(now, bridge, 1).unwrap();
    assert_eq!(troubles(&mut property)[0], "bridge_disconnected");
    meet(&mut property.db, now, bridge, 2);
    property.db.apply_status(now, bridge, &[]).unwrap();
    assert!(troubles(&mut property).is_empty());
    let told = property.told();
    let of = |wanted: &str| told.iter().filter(|kind| *kind == wanted).count();
    assert_eq!(of("acs_system.disconnected"), 1);
    assert_eq!(of("acs_system.connected"), 2);
}

#[test]
fn a_bridge_for_which_nobody_speaks_is_not_taken_for_connected() {
    let mut property = Property::new();
    let (now, bridge) = (property.now, property.bridge);
    assert!(!property.later(HOUR).changed);
    // It parted, and that could not be stored.
    property.db.part(now, bridge, 1).unwrap();
    property.db.execute("UPDATE site SET up = 1", []).unwrap();
    property.db.execute("UPDATE acs_system SET connected = 1", []).unwrap();
    assert!(property.later(HOUR).changed);
    let systems = property.tenant().systems(None, None, None).unwrap();
    assert_eq!(systems[0].troubles[0].code, "bridge_disconnected");
    assert_eq!(property.told().last().unwrap(), "acs_system.disconnected");
}

#[test]
fn the_copy_of_the_door_ledger_keeps_the_newer_word() {
    let mut property = Property::new();
    let mut tell = |job: u128, hours: i64, stay: &str| {
        let mut report = report(property.now, JobId(uuid::Uuid::from_u128(job)), written());
        report.rooms = vec![RoomState {
            system: SystemName::new("salto").unwrap(),
            room: DoorName::new("101").unwrap(),
            reservation_key: Some(ReservationKey::new(stay).unwrap()),
            certain: true,
            since: property.now + SignedDuration::from_hours(hours),
            cards: 1,
            printed_ends: Vec::new(),
        }];
        property.db.apply_report(property.now, property.bridge, &report).unwrap();
        let key = "SELECT reservation_key FROM door_ledger";
        property.db.one(key, [], |row| row.get::<_, String>(0)).unwrap().unwrap()
    };
    assert_eq!(tell(1, 0, "stay-1"), "stay-1");
    assert_eq!(tell(2, 2, "stay-3"), "stay-3");
    assert_eq!(tell(3, 1, "stay-2"), "stay-3");
}

#[test]
fn the_copy_of_the_door_ledger_follows_a_beginning_that_proves_not_to_have_been() {
    let mut property = Property::new();
    let holds = |hours: i64, stay: &str, certain: bool| RoomState {
        system: SystemName::new("salto").unwrap(),
        room: DoorName::new("101").unwrap(),
        reservation_key: Some(ReservationKey::new(stay).unwrap()),
        certain,
        since: property.now + SignedDuration::from_hours(hours),
        cards: 1,
        printed_ends: Vec::new(),
    };
    let unknown = Outcome::unknown(Code::NoAnswer, "silence");
    let said = [
        (0, written(), holds(0, "stay-1", true)),
        (1, unknown, holds(1, "stay-2", false)),
        // A person says that the second was not done.
        (2, Outcome::failed(Code::NoAnswer, "it was not done"), holds(0, "stay-1", true)),
    ];
    let mut tell = |(hours, outcome, room): (i32, Outcome, RoomState)| {
        let at = property.now + HOUR * hours;
        let mut report = report(at, JobId(uuid::Uuid::from_u128(7)), outcome);
        report.revision = u8::try_from(hours + 1).unwrap();
        report.rooms = vec![room];
        property.db.apply_report(at, property.bridge, &report).unwrap();
        let row = "SELECT reservation_key, certain FROM door_ledger";
        let held = property.db.one(row, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)));
        held.unwrap().unwrap()
    };
    let [first, doubtful, settled] = said;
    assert_eq!(tell(first.clone()), ("stay-1".into(), true));
    assert_eq!(tell(doubtful.clone()), ("stay-2".into(), false));
    assert_eq!(tell(settled), ("stay-1".into(), true));
    // What a bridge that was set back tells again is older.
    assert_eq!(tell(doubtful), ("stay-1".into(), true));
}

#[test]
fn what_is_long_over_is_forgotten_in_slices_and_what_still_matters_is_not() {
    let mut property = Property::new();
    let done = property.grant("stay-1", &["101"], 24);
    let doubtful = property.grant("stay-2", &["102"], 24);
    let (ended, job) = property.encode(done.methods[0].id);
    property.report(job, written());
    let (in_doubt, open) = property.encode(doubtful.methods[0].id);
    property.report(open, Outcome::unknown(Code::NoAnswer, "silence"));
    property.delete(&done);
    let [checkout] = property.checkouts()[..] else { panic!("one room, one check-out") };
    property.report(checkout, Outcome::Succeeded(Success::default()));
    // A property that comes and goes fills the feed.
    let (now, bridge) = (property.now, property.bridge);
    property.db.execute("BEGIN", []).unwrap();
    for connection in 2..400 {
        property.db.part(now, bridge, connection - 1).unwrap();
        meet(&mut property.db, now, bridge, connection);
    }
    property.db.execute("COMMIT", []).unwrap();
    property.db.execute("UPDATE bridge_order SET over_at = ?1 WHERE over_at IS NULL", [ms(now)]).unwrap();
    let count = |property: &Property, table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        property.db.one(&sql, [], |row| row.get(0)).unwrap().unwrap()
    };

    let days = |days: i64| now + HOUR * 24 * i32::try_from(days).unwrap();
    assert!(!property.db.forget(days(7)).unwrap());
    assert_eq!(count(&property, "bridge_order"), 3);
    assert!(!property.db.forget(days(8)).unwrap());
    assert_eq!((count(&property, "bridge_order"), count(&property, "ordered_checkout")), (0, 0));
    assert_eq!(property.attempt(ended), "success");

    let events = count(&property, "event");
    assert!(property.db.forget(days(91)).unwrap(), "there is more");
    assert_eq!(count(&property, "event"), events - 500);
    assert!(!property.db.forget(days(91)).unwrap());
    assert_eq!(count(&property, "event"), 0);
    assert!(property.tenant().attempt(ended).unwrap().is_none());
    assert_eq!((count(&property, "ordered_card"), count(&property, "acs_credential")), (1, 0));
    assert_eq!(property.attempt(in_doubt), "encoding_interrupted");
    property.resolve(open, Verdict::Done);
    assert!(property.method(doubtful.methods[0].id).unwrap().is_issued, "a doubt is settled however late");
}

#[test]
fn what_says_which_doors_a_card_opens_is_kept_as_long_as_it_may_open_them() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let (attempt, job) = property.encode(grant.methods[0].id);
    property.report(job, written());
    let later = property.now + HOUR * 24 * 91;
    for (opens_until, is_kept) in [(None, true), (Some(ms(later) + 1), true), (Some(ms(later)), false)] {
        property.db.execute("UPDATE card_state SET opens_until = ?1", [opens_until]).unwrap();
        property.db.forget(later).unwrap();
        assert_eq!(property.tenant().attempt(attempt).unwrap().is_some(), is_kept, "{opens_until:?}");
        let ordered = property.db.one("SELECT 1 FROM ordered_card", [], |_| Ok(())).unwrap();
        assert_eq!(ordered.is_some(), is_kept);
    }
}

#[test]
fn links_of_grants_that_are_over_go_first_and_then_the_grants_unless_something_of_them_is_left() {
    let mut property = Property::new();
    let template = KeyTemplate::new("https://keys.example/{token}").unwrap();
    property.db.hand_out_keys_at(Some(template));
    let [done, doubtful, deleted] =
        [("stay-1", "101"), ("stay-2", "102"), ("stay-3", "103")].map(|(stay, room)| {
            let grant = property.grant(stay, &[room], 24);
            let more = [Requested { mode: Mode::MobileKey, code: None }];
            let now = property.now;
            property.tenant().request_methods(now, grant.id, &more).unwrap().unwrap()
        });
    let (_, open) = property.encode(doubtful.methods[0].id);
    property.report(open, Outcome::unknown(Code::NoAnswer, "silence"));
    property.delete(&deleted);
    let links = |property: &mut Property| -> Vec<bool> {
        let grants =
            [&done, &doubtful].map(|grant| property.tenant().grant(&GrantName::Id(grant.id)).unwrap());
        let methods = grants.into_iter().flatten().flat_map(|grant| grant.methods);
        methods.filter_map(|method| method.key).map(|key| key.url.is_some()).collect()
    };
    assert_eq!(links(&mut property), [true, true]);
    let now = property.now;
    let days = |days: i32| now + HOUR * 24 * days;
    let count = |property: &Property, table: &str| -> i64 {
        property.db.one(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap().unwrap()
    };
    assert_eq!((count(&property, "past_grant"), count(&property, "past_method")), (1, 2));

    assert!(!property.db.forget(days(30)).unwrap());
    assert_eq!(links(&mut property), [true, true], "they ended less than that ago");
    assert!(!property.db.forget(days(32)).unwrap());
    assert_eq!(links(&mut property), [false, false]);
    property.db.forget(days(91)).unwrap();
    assert_eq!((count(&property, "past_grant"), count(&property, "past_method")), (0, 0));

    property.db.forget(days(365)).unwrap();
    assert!(property.still_there(&done));
    property.db.forget(days(367)).unwrap();
    assert!(!property.still_there(&done));
    assert_eq!(property.told().last().unwrap(), "access_grant.deleted");
    assert!(property.still_there(&doubtful), "nobody knows what became of its card");
}

#[test]
fn another_workspace_sees_and_touches_nothing() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let (door, encoder, now) = (property.door("101"), property.encoder(0), property.now);
    let stranger = property.db.found(now, "Elsewhere", [3; 32]).unwrap();
    let mut theirs = property.db.tenant(stranger);
    let page = Page { limit: 10, after: 0 };
    assert!(theirs.grant(&GrantName::Id(grant.id)).unwrap().is_none());
    assert!(theirs.method(grant.methods[0].id).unwrap().is_none());
    assert!(theirs.systems(None, None, None).unwrap().is_empty());
    assert!(theirs.entrances(&EntranceFilter::default(), page).unwrap().rows.is_empty());
    assert!(theirs.encode(now, grant.methods[0].id, encoder).unwrap().is_err());
    assert!(theirs.delete_grant(now, grant.id).unwrap().is_err());
    assert!(matches!(theirs.targets(&[door]), Err(Fault::Refused(_))));
}

#[test]
fn names_of_guests_and_card_numbers_are_not_in_the_file() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101"], 24).methods[0].id;
    let (_, job) = property.encode(method);
    property.report(job, written());
    let folder = property.folder;
    drop(property.db);
    let mut read = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        read += bytes.len();
        for secret in ["Quicksilver", "04A1B2C3"] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret}");
        }
    }
    assert!(read > 0);
}

/// A report of a job that a person made at the site.
fn local(property: &Property, number: u128, retries: Option<JobId>, outcome: Outcome) -> Report {
    Report {
        local: Some(LocalJob {
            origin: Origin::Person,
            system: SystemName::new("salto").unwrap(),
            kind: Kind::CardEncode,
            device: Some("1".into()),
            slot: None,
            created_at: property.now,
            retries,
            card: None,
        }),
        ..report(property.now, JobId(uuid::Uuid::from_u128(number)), outcome)
    }
}

fn local_events(property: &mut Property) -> Vec<TimedEvent> {
    let kinds = Some(vec!["latchd.local_job.ended".into(), "latchd.local_job.resolved".into()]);
    let filter = EventFilter { limit: 100, kinds, ..EventFilter::default() };
    property.tenant().events(&filter).unwrap()
}

#[test]
fn a_job_of_the_sites_own_is_shown_once_with_the_sites_word() {
    let mut property = Property::new();
    let report = local(&property, 7, None, Outcome::failed(Code::NoCard, "nobody laid a card down"));
    for _ in 0..2 {
        property.db.apply_report(property.now, property.bridge, &report).unwrap();
    }
    let events = local_events(&mut property);
    assert_eq!(events.len(), 1, "{events:?}");
    let fields = &events[0].fields;
    assert_eq!((&fields["state"], &fields["code"]), (&"failed".into(), &"no_card".into()));
    assert_eq!((&fields["origin"], &fields["kind"]), (&"person".into(), &"card.encode".into()));
    assert_eq!(fields["message"], "nobody laid a card down");
    assert!(fields.contains_key("acs_system_id") && !fields.contains_key("retries"), "{fields:?}");
}

#[test]
fn a_retry_at_the_site_moves_the_method_and_never_the_finished_attempt() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 48);
    let method = grant.methods[0].id;
    let (attempt, job) = property.encode(method);
    property.report(job, Outcome::unknown(Code::NoAnswer, "silence"));
    assert_eq!(property.attempt(attempt), "encoding_interrupted");
    property.resolve(job, Verdict::NotDone);
    assert!(!property.method(method).unwrap().is_issued);

    // The first retry is in doubt, and so is the method; the second one takes the first one's place.
    let doubt = local(&property, 8, Some(job), Outcome::unknown(Code::LineLost, "cut"));
    property.db.apply_report(property.now, property.bridge, &doubt).unwrap();
    assert!(property.method(method).unwrap().in_doubt);
    let settled = Report {
        revision: 2,
        resolution: Some(Resolution { verdict: Verdict::NotDone, by: "Kari".into() }),
        ..doubt.clone()
    };
    property.db.apply_report(property.now, property.bridge, &settled).unwrap();
    let after = property.method(method).unwrap();
    assert!(!after.in_doubt && !after.is_issued);
    let done = local(&property, 9, Some(doubt.job_id), Outcome::Succeeded(Success::default()));
    property.db.apply_report(property.now, property.bridge, &done).unwrap();

    let after = property.method(method).unwrap();
    assert!(after.is_issued && !after.in_doubt);
    assert_eq!(property.attempt(attempt), "encoding_interrupted", "a finished attempt never changes");
    assert!(property.told().contains(&"access_method.issued".into()));
}

#[test]
fn a_retry_of_another_bridges_job_moves_nothing() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 48);
    let method = grant.methods[0].id;
    let (_, job) = property.encode(method);
    let stranger = BridgeId(uuid::Uuid::from_u128(77));
    let report = local(&property, 8, Some(job), Outcome::Succeeded(Success::default()));
    property.db.apply_report(property.now, stranger, &report).unwrap();
    assert!(!property.method(method).unwrap().is_issued);
}

#[test]
fn a_card_whose_times_changed_asks_to_be_written_again_also_where_it_was_being_written() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let method = grant.methods[0].id;
    let (_, job) = property.encode(method);
    property.report(job, written());
    let longer = |property: &Property, hours| GrantChange {
        ends_at: Some(Some(property.now + SignedDuration::from_hours(hours))),
        ..GrantChange::default()
    };
    let (now, name, change) = (property.now, GrantName::Id(grant.id), longer(&property, 48));
    property.tenant().update_grant(now, &name, &change).unwrap().unwrap();
    let asks = property.method(method).unwrap();
    assert!(!asks.is_issued && asks.issued_at.is_some());
    assert_eq!(asks.written_for.unwrap().0, grant.window, "what is on the card in the guest's pocket");

    // The end changes once more while the card lies on the encoder: what is written is out of date at once.
    let (attempt, job) = property.encode(method);
    let change = longer(&property, 72);
    property.tenant().update_grant(now, &name, &change).unwrap().unwrap();
    property.report(job, written());
    assert_eq!(property.attempt(attempt), "success");
    assert!(!property.method(method).unwrap().is_issued);
    let (_, job) = property.encode(method);
    property.report(job, written());
    let now_it_is = property.method(method).unwrap();
    assert!(now_it_is.is_issued && now_it_is.written_for.is_none());
    let told = property.told();
    let told = told.iter().filter_map(|kind| kind.strip_prefix("access_method."));
    let told: Vec<_> = told.filter(|kind| kind.contains("issued") || *kind == "revoked").collect();
    assert_eq!(told, ["issued", "revoked", "reissued"]);
}

#[test]
fn a_card_that_was_written_for_doors_which_the_grant_left_meanwhile_asks_to_be_written_again() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let method = grant.methods[0].id;
    let (attempt, job) = property.encode(method);
    let (now, to) = (property.now, property.door("102"));
    let change = GrantChange { entrances: Some(vec![to]), ..GrantChange::default() };
    property.tenant().update_grant(now, &GrantName::Id(grant.id), &change).unwrap().unwrap();
    property.report(job, written());
    assert_eq!(property.attempt(attempt), "success");
    assert!(!property.method(method).unwrap().is_issued, "it opens 101 only");
    let (_, job) = property.encode(method);
    property.report(job, written());
    assert!(property.method(method).unwrap().is_issued);
}

#[test]
fn one_of_two_cards_is_taken_back_and_shown_until_it_opens_no_longer() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let requested = [Requested { mode: Mode::Card, code: None }];
    let now = property.now;
    let more = property.tenant().request_methods(now, grant.id, &requested).unwrap().unwrap();
    let [first, second] = [more.methods[0].id, more.methods[1].id];
    let (_, job) = property.encode(first);
    property.report(job, written());
    for method in [first, second] {
        property.tenant().delete_method(now, method).unwrap().unwrap();
    }
    assert!(property.method(second).is_none(), "it was never written");
    assert!(property.method(first).unwrap().deleted.is_some());
    assert!(property.still_there(&grant));
    property.later(SignedDuration::from_hours(25));
    assert!(property.method(first).is_none() && property.still_there(&grant));
}

#[test]
fn people_without_access_are_erased_when_the_operator_says_so_and_what_is_over_keeps_an_id_alone() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let (_, job) = property.encode(grant.methods[0].id);
    property.report(job, written());
    let jane = grant.user_identity;
    let known = |property: &mut Property| property.tenant().identity(jane).unwrap().is_some();
    let forget = |property: &mut Property, idle: Option<SignedDuration>| {
        let now = property.now;
        assert!(!property.db.forget_people(now, idle.map(|idle| now - idle)).unwrap());
    };
    let idle = Some(12 * HOUR);
    property.now += 30 * HOUR;
    forget(&mut property, idle);
    assert!(known(&mut property), "her access ended less than that ago");
    property.now += 30 * HOUR;
    forget(&mut property, None);
    assert!(known(&mut property), "nobody said that people go by themselves");
    forget(&mut property, idle);
    assert!(!known(&mut property));
    let kept = property.tenant().grant(&GrantName::Id(grant.id)).unwrap().unwrap();
    assert_eq!(kept.user_identity, jane);
    let person: Vec<u8> =
        property.db.one("SELECT person FROM user_identity", [], |row| row.get(0)).unwrap().unwrap();
    assert!(person.is_empty());

    // An id that nothing speaks of is forgotten altogether.
    let john = Person { full_name: Some("John".into()), ..Person::default() };
    let now = property.now;
    let john = property.tenant().create_identity(now, &john, None, &[]).unwrap().unwrap().id;
    property.tenant().delete_identity(now, john).unwrap().unwrap();
    forget(&mut property, None);
    let rows: i64 =
        property.db.one("SELECT count(*) FROM user_identity", [], |row| row.get(0)).unwrap().unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn a_reading_that_nobody_answers_ends_and_says_why() {
    let mut property = Property::new();
    let state =
        |property: &mut Property, attempt| match property.tenant().scanned(attempt).unwrap().unwrap().state {
            ScanState::Pending => "pending".to_owned(),
            ScanState::Seen(_) => "success".to_owned(),
            ScanState::Error { kind, .. } => kind,
        };
    let scan = |property: &mut Property| {
        let (now, encoder) = (property.now, property.encoder(0));
        let attempt = property.tenant().scan(now, encoder).unwrap().unwrap();
        (attempt, property.tenant().scanned(attempt).unwrap().unwrap().job)
    };
    let (unsent, _) = scan(&mut property);
    assert!(property.later(SignedDuration::from_secs(79)).next.is_some());
    assert_eq!(state(&mut property, unsent), "pending");
    assert!(property.later(SignedDuration::from_secs(1)).changed);
    assert_eq!(state(&mut property, unsent), "bridge_disconnected");

    let (silent, job) = scan(&mut property);
    property.hand(job);
    property.later(SignedDuration::from_secs(100));
    assert_eq!(state(&mut property, silent), "pending");
    property.later(SignedDuration::from_secs(100));
    assert_eq!(state(&mut property, silent), "encoder_communication_timeout");
    property.report(job, Outcome::failed(Code::NoCard, "late"));
    assert_eq!(state(&mut property, silent), "encoder_communication_timeout", "an end is an end");

    let (lost, job) = scan(&mut property);
    property.hand(job);
    property.db.orders_lost(property.now, property.bridge, &[job]).unwrap();
    assert_eq!(state(&mut property, lost), "bridge_disconnected");
}

impl Property {
    /// Moves a grant to these doors.
    fn moves(&mut self, grant: &Grant, doors: &[&str]) {
        let (now, to) = (self.now, doors.iter().map(|door| self.door(door)).collect());
        let change = GrantChange { entrances: Some(to), ..GrantChange::default() };
        self.tenant().update_grant(now, &GrantName::Id(grant.id), &change).unwrap().unwrap();
    }

    /// The rooms that a check-out is ordered for.
    fn leaving(&mut self) -> Vec<String> {
        let all =
            "SELECT e.name FROM ordered_checkout JOIN acs_entrance e USING(acs_entrance_id) ORDER BY e.name";
        self.db.all(all, [], |row| row.get("name")).unwrap()
    }
}

#[test]
fn a_stay_that_moves_frees_its_room_and_shows_the_old_card_until_then() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101", "lobby"], 24);
    let method = grant.methods[0].id;
    let (_, job) = property.encode(method);
    property.report(job, written());
    assert!(property.method(method).unwrap().left_doors.is_empty());
    property.moves(&grant, &["102", "lobby"]);
    let moved = property.method(method).unwrap();
    assert_eq!((moved.is_issued, moved.left_doors), (false, vec!["101".to_owned()]));
    let [freeing] = property.checkouts()[..] else { panic!("one room, one check-out") };
    property.report(freeing, Outcome::Succeeded(Success::default()));
    assert!(property.method(method).unwrap().left_doors.is_empty(), "it opens 101 no more");
    let (_, job) = property.encode(method);
    property.report(job, written());
    assert!(property.method(method).unwrap().is_issued);
}

#[test]
fn a_stay_that_moves_on_frees_every_room_it_left_and_none_that_it_came_back_to() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let (_, job) = property.encode(grant.methods[0].id);
    property.report(job, written());
    property.moves(&grant, &["102"]);
    property.moves(&grant, &["103"]);
    assert_eq!(property.leaving(), ["101", "102"]);
    property.moves(&grant, &["101"]);
    assert_eq!(property.leaving(), ["102", "103"]);
    // Where another grant of the stay lives on, nothing is left.
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101", "102"], 24);
    property.grant("stay-1", &["101"], 24);
    let (_, job) = property.encode(grant.methods[0].id);
    property.report(job, written());
    property.moves(&grant, &["101"]);
    assert!(property.leaving().is_empty());
}

/// The bridge is away: it makes the card for the old room before it frees that room.
#[test]
fn a_stay_that_moves_also_frees_the_room_for_which_a_first_card_is_on_its_way() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    property.order(grant.methods[0].id);
    property.moves(&grant, &["102"]);
    assert_eq!(property.leaving(), ["101"]);
}

#[test]
fn what_is_told_of_a_card_after_its_owner_was_erased_says_nothing_of_the_owner() {
    for outcome in [written(), Outcome::failed(Code::Rejected, "the card of Jane Quicksilver is worn")] {
        let mut property = Property::new();
        let grant = property.grant("stay-1", &["101"], 24);
        let (_, job) = property.encode(grant.methods[0].id);
        let now = property.now;
        property.tenant().delete_grant(now, grant.id).unwrap().unwrap();
        property.tenant().delete_identity(now, grant.user_identity).unwrap().unwrap();
        property.report(job, outcome);
        let left = "SELECT (SELECT COUNT(*) FROM acs_credential WHERE card_number IS NOT NULL) +
                      (SELECT COUNT(*) FROM action_attempt WHERE error_sealed IS NOT NULL) AS n";
        assert_eq!(property.db.one(left, [], |row| row.get::<_, i64>("n")).unwrap(), Some(0));
    }
}

#[test]
fn a_freed_room_takes_no_card_along_that_opens_another_one() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let method = grant.methods[0].id;
    let (_, job) = property.encode(method);
    property.report(job, written());
    property.moves(&grant, &["102"]);
    let [freeing] = property.checkouts()[..] else { panic!("one room, one check-out") };
    let (_, job) = property.encode(method);
    property.report(job, written());
    // The site stops allowing it.
    let mut inventory = inventory(&["101", "102", "103"]);
    inventory.systems[0].checkout_on_last_grant = false;
    property.db.apply_inventory(property.now, property.bridge, &inventory).unwrap();
    property.delete(&grant);
    assert_eq!(property.leaving(), ["101"]);
    property.report(freeing, Outcome::Succeeded(Success::default()));
    assert!(property.still_there(&grant), "its card opens 102");
}

#[test]
fn a_card_that_the_site_made_itself_is_not_taken_for_ours() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let (_, job) = property.encode(grant.methods[0].id);
    property.report(job, written());
    let end = grant.window.ends_at();
    let known = |property: &mut Property, end: Option<Timestamp>| {
        let (now, encoder) = (property.now, property.encoder(0));
        let attempt = property.tenant().scan(now, encoder).unwrap().unwrap();
        let job = property.tenant().scanned(attempt).unwrap().unwrap().job;
        let seen = CardSeen::Guest {
            rooms: vec!["101".into()],
            valid: true,
            original: true,
            common: Vec::new(),
            starts_at: None,
            ends_at: end,
            made_here: None,
        };
        property.report(job, Outcome::Succeeded(Success { seen: Some(seen), ..Success::default() }));
        match property.tenant().scanned(attempt).unwrap().unwrap().state {
            ScanState::Seen(seen) => (seen.known.is_some(), seen.card.one_of_several),
            state => panic!("{state:?}"),
        }
    };
    assert_eq!(known(&mut property, end), (true, false));
    // Somebody else's, with an end that ours never had.
    let other = end.map(|end| end + HOUR);
    assert_eq!(known(&mut property, other), (false, false));
    let mut report = local(&property, 77, None, written());
    report.rooms = vec![RoomState {
        system: SystemName::new("salto").unwrap(),
        room: DoorName::new("101").unwrap(),
        reservation_key: Some(ReservationKey::new("stay-1").unwrap()),
        certain: true,
        since: property.now,
        cards: 2,
        printed_ends: vec![end.unwrap(); 2],
    }];
    property.db.apply_report(property.now, property.bridge, &report).unwrap();
    assert_eq!(known(&mut property, end), (false, true), "the desk made one that looks the same");
}
