//! The API over real sockets, with a plain client and a bridge that says what the test tells it to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use latchd::{
    cloud::{self, Signals, store::Db},
    config::{
        ApiConfig, BridgesConfig, CloudConfig, RetentionConfig, SimulatorConfig, StorageConfig,
        WebhooksConfig, WorkspaceConfig,
    },
    model::{
        BridgeId, Capabilities, CardFacts, Code, Device, DeviceName, Door, DoorKind, DoorName, Encoder,
        EncoderName, Inventory, JobId, Outcome, PinRules, ProofLevel, Report, RoomState, Success,
        SystemInventory, SystemKind, SystemName, Written,
    },
    protocol::{Memory, Position},
    seams::{Clock, Random, Storage, SystemNet},
    store::{StoreError, WriterHandle, open_reader},
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

#[path = "cloud_api/erasure.rs"]
mod erasure;
#[path = "cloud_api/locks.rs"]
mod locks;
#[path = "cloud_api/people.rs"]
mod people;
#[path = "cloud_api/scans.rs"]
mod scans;
#[path = "cloud_api/simulate.rs"]
mod simulate;
#[path = "cloud_api/stays.rs"]
mod stays;
#[path = "cloud_api/table.rs"]
mod table;

/// A cloud on a thread of its own.
struct Cloud {
    folder: tempfile::TempDir,
    url: String,
    key: String,
    agent: ureq::Agent,
    signals: Signals,
    bridge: BridgeId,
    db: Option<WriterHandle<Db>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Cloud {
    fn start(plain: bool) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), plain)
    }

    fn start_in(folder: tempfile::TempDir, plain: bool) -> Self {
        let config = config(&folder, plain);
        Self::start_with(folder, config)
    }

    fn start_with(folder: tempfile::TempDir, config: CloudConfig) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let running = cloud::start(&config, &SystemNet, Clock::system(), Random::system()).await;
                let running = running.unwrap();
                let files = (running.ca_file.clone(), running.api_key_file.clone());
                let shared = (running.db.clone(), running.signals.clone());
                tell.send((running.api.clone(), files, shared)).unwrap();
                let _ = stopped.await;
                running.stop().await;
            });
        });
        let (url, (ca, key_file), (db, signals)) = told.recv_timeout(Duration::from_secs(30)).unwrap();
        let key = std::fs::read_to_string(key_file).unwrap().trim().to_owned();
        let reader = open_reader(&Storage::folder(folder.path()), "cloud.db").unwrap();
        let bridge: String = reader.query_row("SELECT bridge_id FROM site", [], |row| row.get(0)).unwrap();
        Self {
            folder,
            url,
            key,
            agent: agent(ca.as_deref()),
            signals,
            bridge: bridge.parse().unwrap(),
            db: Some(db),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// A cloud whose bridge is connected and has told what the site has.
    fn with_property() -> Self {
        let cloud = Self::start(true);
        cloud.furnish();
        cloud
    }

    /// The same where the operator names a pretend access system; nobody answers for it.
    fn with_pretend_property() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder, true);
        let control = folder.path().join("nobody.ctl");
        config.simulators.push(SimulatorConfig { system: SystemName::new("salto").unwrap(), control });
        let cloud = Self::start_with(folder, config);
        cloud.furnish();
        cloud
    }

    fn furnish(&self) {
        self.furnish_bridge(self.bridge);
    }

    fn furnish_bridge(&self, bridge: BridgeId) {
        self.furnish_with(bridge, inventory());
    }

    fn furnish_with(&self, bridge: BridgeId, inventory: Inventory) {
        self.apply(move |db| {
            let now = Timestamp::now();
            db.meet(now, bridge, 1, &memory())?;
            db.apply_inventory(now, bridge, &inventory)
        });
    }

    /// Another workspace: its API key and its bridge.
    fn second_workspace(&self) -> (String, BridgeId) {
        let key = "seam_0second".to_owned();
        let digest = cloud::keys::digest(&key);
        self.apply(move |db| {
            let now = Timestamp::now();
            let workspace = db.add_workspace(now, "Next Door")?;
            db.add_api_key(now, workspace, Some("tests"), digest)?;
            Ok(())
        });
        let reader = open_reader(&Storage::folder(self.folder.path()), "cloud.db").unwrap();
        let bridge: String = reader
            .query_row("SELECT bridge_id FROM site ORDER BY rowid DESC LIMIT 1", [], |row| row.get(0))
            .unwrap();
        (key, bridge.parse().unwrap())
    }

    fn apply(&self, operation: impl FnOnce(&mut Db) -> Result<(), StoreError> + Send + 'static) {
        let db = self.db.as_ref().unwrap();
        db.submit(operation).blocking_recv().unwrap().unwrap();
        self.signals.state_changed();
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.agent.post(format!("{}{path}", self.url));
        let (status, answer) = read(request.header("authorization", self.bearer()).send_json(body));
        if table::document()["paths"][path].is_object() {
            table::check_answer(path, status, &answer);
        }
        (status, answer)
    }

    fn get(&self, path_and_query: &str) -> (u16, Value) {
        let request = self.agent.get(format!("{}{path_and_query}", self.url));
        let (status, answer) = read(request.header("authorization", self.bearer()).call());
        let path = path_and_query.split('?').next().unwrap();
        if table::document()["paths"][path].is_object() {
            table::check_answer(path, status, &answer);
        }
        (status, answer)
    }

    /// A call that must succeed.
    fn ok(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        assert_eq!(answer["ok"], true);
        answer
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.key)
    }

    fn entrance(&self, name: &str) -> String {
        let listed = self.ok("/acs/entrances/list", &json!({"search": name}));
        text(&listed["acs_entrances"][0]["acs_entrance_id"])
    }

    fn encoder(&self) -> String {
        let listed = self.ok("/acs/encoders/list", &json!({}));
        text(&listed["acs_encoders"][0]["acs_encoder_id"])
    }

    /// A grant with one card for a stay in 101.
    fn grant(&self, stay: &str) -> Value {
        let body = json!({
            "user_identity": {"user_identity_key": stay, "full_name": "Jane Doe"},
            "acs_entrance_ids": [self.entrance("101"), self.entrance("lobby")],
            "requested_access_methods": [{"mode": "card"}],
            "reservation_key": stay,
            "ends_at": in_hours(24),
        });
        self.ok("/access_grants/create", &body)["access_grant"].clone()
    }

    fn encode(&self, grant: &Value) -> Value {
        let body = json!({
            "access_method_id": grant["access_method_ids"][0],
            "acs_encoder_id": self.encoder(),
        });
        self.ok("/access_methods/encode", &body)["action_attempt"].clone()
    }

    fn report(&self, attempt: &Value, outcome: Outcome) {
        let job: String = self
            .reader()
            .query_row(
                "SELECT job_id FROM action_attempt WHERE action_attempt_id = ?1
                 UNION ALL SELECT job_id FROM scan_attempt WHERE action_attempt_id = ?1
                 UNION ALL SELECT job_id FROM unlock_attempt WHERE action_attempt_id = ?1",
                [text(&attempt["action_attempt_id"])],
                |row| row.get(0),
            )
            .unwrap();
        self.report_job(job.parse().unwrap(), outcome, Vec::new());
    }

    fn report_job(&self, job_id: JobId, outcome: Outcome, rooms: Vec<RoomState>) {
        let bridge = self.bridge;
        self.apply(move |db| {
            let at = Timestamp::now();
            let report = Report { job_id, revision: 1, at, outcome, resolution: None, rooms, local: None };
            db.apply_report(at, bridge, &report)
        });
    }

    fn reader(&self) -> rusqlite::Connection {
        open_reader(&Storage::folder(self.folder.path()), "cloud.db").unwrap()
    }

    fn attempt(&self, attempt: &Value) -> Value {
        let id = text(&attempt["action_attempt_id"]);
        let (status, answer) = self.get(&format!("/action_attempts/get?action_attempt_id={id}&_strict=true"));
        assert_eq!(status, 200, "{answer}");
        answer["action_attempt"].clone()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // The database closes when its last handle is gone.
        self.db = None;
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

fn config(folder: &tempfile::TempDir, plain: bool) -> CloudConfig {
    let listen = "127.0.0.1:0".parse().unwrap();
    CloudConfig {
        storage: StorageConfig { folder: folder.path().into(), key_file: None, reserve: 0 },
        workspace: WorkspaceConfig { name: "Home".into() },
        api: ApiConfig {
            listen,
            plain,
            tls: None,
            names: Vec::new(),
            hold: Duration::from_secs(20),
            hold_orders: false,
            instant_key_url: None,
        },
        bridges: BridgesConfig {
            listen,
            tls: None,
            names: Vec::new(),
            certificate_lifetime: BridgesConfig::CERTIFICATE_LIFETIME,
            renewal_grace: BridgesConfig::RENEWAL_GRACE,
        },
        retention: RetentionConfig::default(),
        webhooks: WebhooksConfig::default(),
        simulators: Vec::new(),
    }
}

fn agent(ca: Option<&Path>) -> ureq::Agent {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ureq::tls::TlsConfig::builder().unversioned_rustls_crypto_provider(ring);
    if let Some(ca) = ca {
        let certificate = ureq::tls::Certificate::from_pem(&std::fs::read(ca).unwrap()).unwrap();
        tls = tls.root_certs(ureq::tls::RootCerts::new_with_certs(&[certificate]));
    }
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .tls_config(tls.build())
        .build()
        .into()
}

fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut response = response.unwrap();
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("application/json"), "{kind}");
    assert!(response.headers().contains_key("seam-request-id"));
    (status, response.body_mut().read_json().unwrap())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn in_hours(hours: i64) -> String {
    (Timestamp::now() + SignedDuration::from_hours(hours)).to_string()
}

/// A bridge without a memory that takes no orders.
fn memory() -> Memory {
    Memory {
        orders_received: Position::default(),
        reports_sent: Position::default(),
        reports_acknowledged: Position::default(),
        orders_limit: 0,
    }
}

fn inventory() -> Inventory {
    let proven = Some(ProofLevel::Vector);
    let door = |name: &str, kind| Door { name: DoorName::new(name).unwrap(), display_name: None, kind };
    let encoder = |name: &str, display_name: &str| Encoder {
        name: EncoderName::new(name).unwrap(),
        display_name: Some(display_name.into()),
    };
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
                max_rooms: 2,
                max_common: 62,
                answer_means_written: true,
                parallel_encoders: true,
            },
            checkout_on_last_grant: false,
            override_after_deleted_card: false,
            doors: vec![
                door("101", DoorKind::Room),
                door("102", DoorKind::Room),
                door("103", DoorKind::Room),
                door("lobby", DoorKind::Common),
            ],
            encoders: vec![encoder("1", "Front Desk"), encoder("2", "Back Office")],
            devices: Vec::new(),
        }],
    }
}

/// The same property with a keypad lock.
fn inventory_with_a_lock() -> Inventory {
    let mut inventory = inventory();
    let mut locks = inventory.systems[0].clone();
    locks.name = SystemName::new("locks").unwrap();
    locks.kind = SystemKind::SimLock;
    locks.capabilities.slots = Some(ProofLevel::Simulator);
    locks.doors = Vec::new();
    locks.encoders = Vec::new();
    locks.devices = vec![Device {
        name: DeviceName::new("front").unwrap(),
        display_name: Some("Front Door".into()),
        slots: 20,
        pins: Some(PinRules { lengths: vec![4, 6], constraints: Vec::new() }),
        device_type: None,
        manufacturer: None,
        model: None,
        lead_seconds: None,
        remote_unlock: None,
        card_numbers: false,
    }];
    inventory.systems.push(locks);
    inventory
}

/// The same outcome of a card with another serial number.
fn with_serial(mut outcome: Outcome, serial: &str) -> Outcome {
    if let Outcome::Succeeded(Success { card: Some(card), .. }) = &mut outcome {
        card.serial = Some(serial.into());
    }
    outcome
}

fn written(how: Written) -> Outcome {
    Outcome::Succeeded(Success {
        written: Some(how),
        card: Some(CardFacts { serial: Some("04A1B2C3".into()), ..CardFacts::default() }),
        ..Success::default()
    })
}

#[test]
fn a_client_that_trusts_our_authority_is_served_over_tls_and_no_other() {
    let cloud = Cloud::start(false);
    assert!(cloud.url.starts_with("https://"));
    assert!(cloud.key.starts_with("seam_"));
    assert!(!["seam_cst", "seam_at", "seam_pk"].iter().any(|other| cloud.key.starts_with(other)));
    let jane = json!({"full_name": "Jane Doe", "email_address": "jane@example.com"});
    let answer = cloud.ok("/user_identities/create", &jane);
    assert_eq!(answer["user_identity"]["display_name"], "Jane Doe");
    let other = Cloud::start(false);
    let untrusting = other.agent.get(format!("{}/devices/list", cloud.url)).call();
    assert!(untrusting.is_err(), "an authority of the same name is not the same authority");
}

#[test]
fn a_grant_becomes_a_card_and_the_waiting_client_hears_of_it() {
    let cloud = Cloud::with_property();
    let grant = cloud.grant("stay-1");
    assert_eq!(grant["display_name"], "My Access Grant");
    assert_eq!(grant["reservation_key"], "stay-1");
    assert_eq!(grant["requested_access_methods"][0]["created_access_method_ids"], grant["access_method_ids"]);
    for list in ["errors", "warnings", "pending_mutations", "space_ids", "location_ids"] {
        assert_eq!(grant[list], json!([]), "{list}");
    }
    let ends_at = text(&grant["ends_at"]);
    assert_eq!((ends_at.len(), ends_at.ends_with('Z')), (24, true), "{ends_at}");
    let by_id = json!({"access_grant_id": grant["access_grant_id"]});
    assert_eq!(cloud.ok("/access_grants/get", &by_id)["access_grant"], grant);

    let wanted = json!({"access_method_id": grant["access_method_ids"][0]});
    let before = cloud.ok("/access_methods/get", &wanted)["access_method"].clone();
    assert_eq!(before["is_encoding_required"], true);
    assert_eq!(before["is_ready_for_encoding"], true);
    assert_eq!(before["issued_at"], Value::Null);

    let attempt = cloud.encode(&grant);
    assert_eq!(attempt["status"], "pending");
    assert_eq!(cloud.encode(&grant)["action_attempt_id"], attempt["action_attempt_id"]);
    let ended = thread::scope(|scope| {
        let waiting = scope.spawn(|| cloud.attempt(&attempt));
        cloud.report(&attempt, written(Written::Proven));
        waiting.join().unwrap()
    });
    assert_eq!(ended["status"], "success");
    let card = &ended["result"];
    assert_eq!(card["access_method"], "card");
    assert_eq!(card["card_number"], "04A1B2C3");
    assert_eq!(card["warnings"], json!([]));
    assert_eq!(cloud.attempt(&attempt), ended, "a finished attempt stays readable");

    let after = cloud.ok("/access_methods/get", &wanted)["access_method"].clone();
    assert_eq!(after["is_issued"], true);
    assert_eq!(after["is_encoding_required"], false);
    assert_eq!(after["is_ready_for_encoding"], false);
    let grant_id = text(&grant["access_grant_id"]);
    let (_, events) = cloud.get(&format!(
        "/events/list?access_grant_id={grant_id}&since=2020-01-01T00%3A00%3A00.000Z&_strict=true"
    ));
    let events = events["events"].as_array().unwrap();
    assert_eq!(events.len(), 7, "{events:?}");
    assert_eq!(events[0]["event_type"], "access_grant.created");
    assert_eq!(events[6]["event_type"], "access_grant.access_granted_to_all_doors");
    assert_eq!(events[6]["access_grant_id"], grant["access_grant_id"]);
}

#[test]
fn a_question_about_a_pending_attempt_is_held_no_longer_than_configured() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, true);
    config.api.hold = Duration::from_millis(50);
    let cloud = Cloud::start_with(folder, config);
    cloud.furnish();
    let attempt = cloud.encode(&cloud.grant("stay-1"));
    assert_eq!(cloud.attempt(&attempt), attempt);
    assert_eq!(attempt["status"], "pending");
}

#[test]
fn a_card_that_was_accepted_but_not_proven_written_says_so() {
    let cloud = Cloud::with_property();
    let attempt = cloud.encode(&cloud.grant("stay-1"));
    cloud.report(&attempt, written(Written::Accepted));
    let warnings = &cloud.attempt(&attempt)["result"]["warnings"];
    assert_eq!(warnings[0]["warning_code"], "unknown_issue_with_acs_credential");
}

#[test]
fn a_refusal_of_the_site_is_told_with_its_reason() {
    let cloud = Cloud::with_property();
    let attempt = cloud.encode(&cloud.grant("stay-1"));
    let reason = "stay-0 holds room 101";
    cloud.report(&attempt, Outcome::failed(Code::RoomHeldByOtherReservation, reason));
    let error = cloud.attempt(&attempt)["error"].clone();
    assert_eq!(error["type"], "uncategorized_error");
    let message = text(&error["message"]);
    assert!(message.contains("room_held_by_other_reservation") && message.contains(reason), "{message}");
}

#[test]
fn a_deleted_grant_is_gone_or_says_until_when_its_card_opens() {
    let cloud = Cloud::with_property();
    let (never, opens) = (cloud.grant("stay-1"), cloud.grant("stay-2"));
    cloud.report(&cloud.encode(&opens), written(Written::Proven));
    for grant in [&never, &opens] {
        let id = text(&grant["access_grant_id"]);
        let url = format!("{}/access_grants/delete?access_grant_id={id}&_strict=true", cloud.url);
        let deleted = cloud.agent.delete(url).header("authorization", cloud.bearer()).call();
        assert_eq!(read(deleted), (200, json!({"ok": true})));
    }
    let get = |grant: &Value| {
        cloud.post("/access_grants/get", &json!({"access_grant_id": grant["access_grant_id"]}))
    };
    let (status, gone) = get(&never);
    assert_eq!((status, &gone["error"]["type"]), (404, &json!("access_grant_not_found")));
    let (_, kept) = get(&opens);
    let warnings = &kept["access_grant"]["warnings"];
    assert_eq!(warnings[0]["warning_code"], "being_deleted");
    assert_eq!(warnings[1]["warning_code"], "overprovisioned_access");
    assert!(text(&warnings[1]["message"]).contains(&text(&opens["ends_at"])));
}

#[test]
fn both_generations_of_verbs_are_the_same_call() {
    let cloud = Cloud::with_property();
    let (_, posted) = cloud.post("/acs/systems/list", &json!({}));
    let (_, got) = cloud.get("/acs/systems/list");
    assert_eq!(posted, got);
    let system = &got["acs_systems"][0];
    assert_eq!(system["location"]["time_zone"], "Europe/Oslo");
    assert_eq!(system["errors"], json!([]));

    let system = text(&system["acs_system_id"]);
    let (_, by_query) = cloud.get(&format!("/acs/encoders/list?acs_system_ids={system}&_strict=true"));
    let (_, by_body) = cloud.post("/acs/encoders/list", &json!({"acs_system_ids": [system]}));
    assert_eq!(by_query, by_body);
    assert_eq!(by_query["acs_encoders"][0]["display_name"], "Front Desk");

    // An old client sends calls without parameters as an empty form.
    let form = cloud
        .agent
        .post(format!("{}/devices/list", cloud.url))
        .header("authorization", cloud.bearer())
        .header("content-type", "application/x-www-form-urlencoded");
    let (status, devices) = read(form.send_empty());
    assert_eq!((status, &devices["devices"]), (200, &json!([])));
    assert_eq!(devices["pagination"]["has_next_page"], false);
}

#[test]
fn a_list_in_pages_is_the_whole_list_and_a_cursor_belongs_to_its_filter() {
    let cloud = Cloud::with_property();
    let mut seen = Vec::new();
    let mut next = Some(format!("{}/acs/entrances/list?limit=3&_strict=true", cloud.url));
    while let Some(url) = next {
        let (status, page) = read(cloud.agent.get(&url).header("authorization", cloud.bearer()).call());
        assert_eq!(status, 200, "{page}");
        let names = page["acs_entrances"].as_array().unwrap().iter();
        seen.extend(names.map(|entrance| text(&entrance["display_name"])));
        assert!(seen.len() <= 4, "a page came twice");
        let pagination = &page["pagination"];
        next = pagination["next_page_url"].as_str().map(str::to_owned);
        if next.is_some() {
            let other = json!({"search": "1", "limit": 3, "page_cursor": pagination["next_page_cursor"]});
            let (status, refused) = cloud.post("/acs/entrances/list", &other);
            assert_eq!(status, 400);
            assert_eq!(refused["error"]["type"], "mismatched_page_parameters");
        }
    }
    assert_eq!(seen, ["101", "102", "103", "lobby"]);
}

#[test]
fn spaces_carry_their_doors_into_a_grant() {
    let cloud = Cloud::with_property();
    let space = json!({
        "name": "Unit 101",
        "space_key": "unit-101",
        "acs_entrance_ids": [cloud.entrance("101"), cloud.entrance("lobby")],
    });
    let made = cloud.ok("/spaces/create", &space)["space"].clone();
    assert_eq!(made["acs_entrance_count"], 2);
    assert_eq!(cloud.post("/spaces/create", &space).0, 409);
    let body = json!({
        "user_identity": {"email_address": "jane@example.com"},
        "space_keys": ["unit-101"],
        "requested_access_methods": [{"mode": "card"}, {"mode": "code"}],
        "access_grant_key": "booking-7",
        "reservation_key": "stay-1",
        "ends_at": in_hours(24),
    });
    let grant = cloud.ok("/access_grants/create", &body)["access_grant"].clone();
    assert_eq!(grant["space_ids"], json!([made["space_id"]]));
    assert_eq!(grant["access_method_ids"].as_array().unwrap().len(), 1);
    assert_eq!(grant["errors"][0]["error_code"], "cannot_create_requested_access_methods");
    let by_key = cloud.ok("/access_grants/get", &json!({"access_grant_key": "booking-7"}));
    assert_eq!(by_key["access_grant"], grant);
    let mut again = body.clone();
    again["user_identity"] = json!({"user_identity_key": "john"});
    let (status, refused) = cloud.post("/access_grants/create", &again);
    assert_eq!(status, 409);
    assert_eq!(refused["error"]["type"], "access_grant_key_already_exists");
    let of_method = json!({"access_method_id": grant["access_method_ids"][0]});
    let doors = cloud.ok("/acs/entrances/list", &of_method);
    assert_eq!(doors["acs_entrances"].as_array().unwrap().len(), 2);
}

#[test]
fn a_filter_that_fits_nothing_gives_nothing_and_never_everything() {
    let cloud = Cloud::with_property();
    let body = json!({"name": "A", "customer_key": "ours", "acs_entrance_ids": [cloud.entrance("101")]});
    cloud.ok("/spaces/create", &body);
    cloud.grant("stay-1");
    let count =
        |path: &str, key: &str, filter: Value| cloud.ok(path, &filter)[key].as_array().map(Vec::len).unwrap();
    for (path, key) in [("/acs/systems/list", "acs_systems"), ("/acs/entrances/list", "acs_entrances")] {
        assert_eq!(count(path, key, json!({"customer_key": "ours"})), 1, "{path}");
        assert_eq!(count(path, key, json!({"customer_key": "theirs"})), 0, "{path}");
    }
    let events = |name: &str, value: Value| {
        let mut filter = json!({"since": "2020-01-01T00:00:00Z"});
        filter[name] = value;
        count("/events/list", "events", filter)
    };
    let other = "5b1ed5a0-7a30-4d6f-9d0e-000000000001";
    for name in ["device_id", "space_id", "user_identity_id", "acs_credential_id", "connected_account_id"] {
        assert_eq!(events(name, json!(other)), 0, "{name}");
    }
    assert_eq!(events("device_ids", json!([other])), 0);
    assert_eq!(events("customer_key", json!("ours")), 0);
    let systems = cloud.ok("/acs/systems/list", &json!({}));
    let account = systems["acs_systems"][0]["connected_account_id"].clone();
    assert!(events("connected_account_id", account) > 0);
}

#[test]
fn what_cannot_be_right_is_refused_by_name_and_place() {
    let cloud = Cloud::with_property();
    let (room, lobby) = (cloud.entrance("101"), cloud.entrance("lobby"));
    let rooms = [&room, &cloud.entrance("102"), &cloud.entrance("103")];
    let nobody = "5b1ed5a0-7a30-4d6f-9d0e-000000000001";
    let jane = cloud.ok("/user_identities/create", &json!({"email_address": "jane@example.com"}));
    let good = json!({
        "user_identity_id": jane["user_identity"]["user_identity_id"],
        "acs_entrance_ids": [room],
        "requested_access_methods": [{"mode": "card"}],
        "reservation_key": "stay-1",
        "ends_at": in_hours(24),
    });
    // The body is `good` with these fields changed (null is as good as absent).
    let check = |change: Value, status: u16, kind: &str, parameter: &str| {
        let mut body = good.clone();
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (found, answer) = cloud.post("/access_grants/create", &body);
        assert_eq!((found, &answer["error"]["type"]), (status, &json!(kind)), "{change}: {answer}");
        let blamed = &answer["error"]["validation_errors"][parameter];
        assert!(parameter.is_empty() || blamed.is_object(), "{change}: {answer}");
    };
    let invalid = |change: Value, parameter: &str| check(change, 400, "invalid_input", parameter);
    invalid(json!({"user_identity_id": null}), "user_identity_id");
    invalid(json!({"user_identity": {"email_address": "a@b.co"}}), "user_identity_id");
    invalid(json!({"user_identity_id": "jane"}), "user_identity_id");
    invalid(json!({"acs_entrance_ids": []}), "acs_entrance_ids");
    invalid(json!({"acs_entrance_ids": room}), "acs_entrance_ids");
    invalid(json!({"acs_entrance_ids": rooms}), "acs_entrance_ids");
    invalid(json!({"ends_at": "2025-07-16T00:00:00Z"}), "ends_at");
    invalid(json!({"ends_at": null}), "ends_at");
    invalid(json!({"ends_at": "tomorrow"}), "ends_at");
    invalid(json!({"starts_at": in_hours(48)}), "ends_at");
    invalid(json!({"reservation_key": ""}), "reservation_key");
    let modes = "requested_access_methods";
    invalid(json!({modes: null}), modes);
    invalid(json!({modes: []}), modes);
    invalid(json!({modes: [{"mode": "retina"}]}), modes);
    invalid(json!({modes: [{"mode": "code", "code": "12"}]}), modes);
    check(json!({"user_identity_id": nobody}), 404, "user_identity_not_found", "");
    check(json!({"acs_entrance_ids": [nobody]}), 404, "acs_entrance_not_found", "");
    check(json!({"device_ids": [nobody]}), 404, "device_not_found", "");
    check(json!({"space_ids": [nobody]}), 404, "space_not_found", "");
    check(json!({"space_keys": ["attic"]}), 404, "space_not_found", "");
    check(json!({"reservation_key": null}), 400, "reservation_key_required", "");
    check(json!({"acs_entrance_ids": [lobby]}), 400, "reservation_key_not_supported", "");
    cloud.ok("/access_grants/create", &good);
    let elsewhere = json!({"acs_entrance_ids": [cloud.entrance("102")]});
    check(elsewhere, 409, "reservation_entrance_change_requires_cleanup", "");

    let body = json!({"access_method_id": nobody, "acs_encoder_id": cloud.encoder()});
    let (status, answer) = cloud.post("/access_methods/encode", &body);
    assert_eq!((status, &answer["error"]["type"]), (404, &json!("access_method_not_found")));
    let (status, answer) =
        cloud.post("/user_identities/create", &json!({"email_address": "JANE@example.com"}));
    assert_eq!((status, &answer["error"]["type"]), (409, &json!("user_identity_already_exists")));
}

#[test]
fn malformed_http_gets_a_json_error() {
    let cloud = Cloud::start(true);
    let url = |path: &str| format!("{}{path}", cloud.url);
    let kind = |(status, answer): (u16, Value)| {
        assert_eq!(answer["ok"], false);
        (status, text(&answer["error"]["type"]))
    };
    let send = |path: &str, body: &str| {
        let request = cloud.agent.post(url(path)).header("authorization", cloud.bearer());
        kind(read(request.header("content-type", "application/json").send(body)))
    };
    let invalid = (400, "invalid_input".to_owned());
    assert_eq!(send("/spaces/create", "{"), invalid);
    assert_eq!(send("/spaces/create", "[]"), invalid);
    assert_eq!(send("/spaces/create", ""), invalid, "an empty object lacks the name");
    let large = " ".repeat(300 * 1024);
    assert_eq!(send("/spaces/create", &large), (413, "payload_too_large".into()));
    let form = cloud.agent.post(url("/spaces/create")).header("authorization", cloud.bearer());
    let form = form.header("content-type", "application/x-www-form-urlencoded").send("name=Unit");
    assert_eq!(kind(read(form)), (400, "invalid_content_type".into()));
    assert_eq!(send("/thermostats/list", "{}"), (404, "not_found".into()));
    assert_eq!(kind(cloud.get("/events/list")), invalid);
    assert_eq!(kind(cloud.get("/acs/encoders/list?limit=nan")), invalid);
    let put = cloud.agent.put(url("/devices/list")).header("authorization", cloud.bearer());
    assert_eq!(kind(read(put.send("{}"))), (405, "method_not_allowed".into()));
    let nobody = cloud.agent.get(url("/devices/list"));
    assert_eq!(kind(read(nobody.call())), (401, "unauthorized".into()));
    for header in ["Bearer seam_0guess", "Basic x", "Bearer"] {
        let guess = cloud.agent.get(url("/devices/list")).header("authorization", header);
        assert_eq!(kind(read(guess.call())), (401, "unauthorized".into()), "{header}");
    }
}

/// Sends bytes as they are and reads until the other side closes: status, headers in small letters, body.
fn raw(cloud: &Cloud, request: &str) -> (u16, String, String) {
    let address = cloud.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn what_no_handler_sees_is_answered_in_json_too() {
    let cloud = Cloud::start(true);
    let many: String = (0..150).map(|n| format!("x{n}: 1\r\n")).collect();
    let long = "x".repeat(70_000);
    let cases = [
        ("hello\r\n\r\n".to_owned(), 400, "invalid_http"),
        (format!("GET /devices/list HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431, "headers_too_large"),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414, "invalid_query_params"),
    ];
    for (request, status, kind) in cases {
        let (found, head, body) = raw(&cloud, &request);
        assert_eq!(found, status, "{head}");
        assert!(
            head.contains("content-type: application/json") && head.contains("seam-request-id: "),
            "{head}"
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["error"]["type"], &body["ok"]), (&json!(kind), &json!(false)));
    }
}

#[test]
fn a_body_that_nobody_wanted_does_not_cost_the_connection() {
    let cloud = Cloud::start(true);
    let mut stream = TcpStream::connect(cloud.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let bearer = cloud.bearer();
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: {bearer}\r\ncontent-length: 2\r\n\r\n")
    };
    for path in ["/nothing/here", "/devices/list", "/nothing/here"] {
        stream.write_all(head(path).as_bytes()).unwrap();
        // By the time this one is answered, the head of the other has long been read.
        cloud.ok("/devices/list", &json!({}));
        stream.write_all(b"{}").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(!head.contains("connection: close"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        stream.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
    }
}

#[test]
fn the_other_verbs_of_http_say_what_a_call_takes() {
    let cloud = Cloud::start(true);
    let ask = |verb: &str, path: &str| {
        let bearer = cloud.bearer();
        raw(
            &cloud,
            &format!(
                "{verb} {path} HTTP/1.1\r\nhost: a\r\nauthorization: {bearer}\r\nconnection: close\r\n\r\n"
            ),
        )
    };
    let (status, head, body) = ask("OPTIONS", "/access_grants/create");
    assert_eq!((status, body.as_str()), (200, r#"{"ok":true}"#));
    assert!(head.contains("allow: post, options"), "{head}");
    assert_eq!(ask("OPTIONS", "/nothing").0, 404);
    let (status, head, body) = ask("HEAD", "/devices/list");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-type: application/json"), "{head}");
    let (status, head, _) = ask("PATCH", "/devices/list");
    assert_eq!(status, 405);
    assert!(head.contains("allow: get, head, post, options"), "{head}");
}

#[test]
fn the_second_start_keeps_key_workspace_and_authority() {
    use std::os::unix::fs::PermissionsExt;
    let mut first = Cloud::start(false);
    let path = first.folder.path().to_owned();
    let kept = || {
        ["api-key", "bridges-ca.pem", "bridges-ca.key", "ca.pem", "ca.key", "seal.key"]
            .map(|name| std::fs::read(path.join(name)).unwrap())
    };
    let before = kept();
    for secret in ["api-key", "bridges-ca.key", "ca.key", "seal.key"] {
        let mode = std::fs::metadata(path.join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let agent = first.agent.clone();
    let folder = std::mem::replace(&mut first.folder, tempfile::tempdir().unwrap());
    drop(first);
    let mut second = Cloud::start_in(folder, false);
    assert_eq!(kept(), before);
    second.agent = agent;
    second.ok("/devices/list", &json!({}));
}

#[tokio::test]
async fn an_api_in_the_clear_is_refused_where_others_can_listen() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, true);
    config.api.listen = "0.0.0.0:0".parse().unwrap();
    let started = cloud::start(&config, &SystemNet, Clock::system(), Random::system()).await;
    let error = started.unwrap_err().to_string();
    assert!(error.contains("needs a loopback address"), "{error}");
}

#[test]
fn a_second_start_by_mistake_does_not_tell_that_the_bridges_of_the_first_are_away() {
    let cloud = Cloud::with_property();
    let mut again = config(&cloud.folder, true);
    again.api.listen = cloud.url.trim_start_matches("http://").parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let started = runtime.block_on(cloud::start(&again, &SystemNet, Clock::system(), Random::system()));
    assert!(matches!(started, Err(cloud::CloudError::Store(StoreError::InUse { .. }))));
    assert_eq!(cloud.ok("/acs/systems/list", &json!({}))["acs_systems"][0]["errors"], json!([]));
}
