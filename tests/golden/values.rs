//! What the golden messages say, as values of the types: of each kind a full one first, then lesser ones.

use jiff::Timestamp;
use latchd::{
    model::*,
    protocol::{
        Envelope, EpochReason, Frame, Hello, Limit, Memory, Message, Ordered, Position, Progress, PublicKey,
        Refused, RefusedCode, Session, SigningKey, Stage, Status, StreamName, Welcome,
        enrol::{Admission, Answer, CloudCard, Keys, LedgerCopy, PairRequest, RenewRequest, Waiting},
    },
};

pub(crate) const BRIDGE_SEED: [u8; 32] = [1; 32];
pub(crate) const CLOUD_SEED: [u8; 32] = [2; 32];
/// Of the key that comes after the bridge's present one.
pub(crate) const NEXT_SEED: [u8; 32] = [3; 32];
/// Of a key that speaks for the cloud beside the one that signs.
pub(crate) const OLDER_SEED: [u8; 32] = [4; 32];

/// A request for a certificate of a key of P-256: PKCS #10, DER, base64.
const CSR: &str = "\
    MIG7MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGjt5g7/WZGP6c9JFL2OKjxCWNtcTtFniQJZztyXOA3MFqhY\
    HnSHxjLUOuhsKE2Nkvu7yivlG+wvFgR+D5LIr+6gADAKBggqhkjOPQQDAgNJADBGAiEAggwqrhuTQ46mpF+8tuDu5CywBAas\
    Ivrxla4VBbg7fOMCIQCkGWW++N+l6xyVAVybKJLQeOF/lkzZPVoOlcX60ClQjw==";
/// Who vouches for it, PEM.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBRDCB6qADAgECAgEBMAoGCCqGSM49BAMCMBkxFzAVBgNVBAMMDlNlYXZpZXcg
SG90ZWxzMB4XDTI2MTEyMDEyMDAwMFoXDTQ2MTExNTEyMDAwMFowGTEXMBUGA1UE
AwwOU2VhdmlldyBIb3RlbHMwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATDVnmM
6ZF6YmOUTUWvQjkbsQCVBBVSFDLQtMT34/uEQaX8fFNxDlfJRGI2DCo9g5CScERo
ZSG9IrDwYWH41b+NoyMwITAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIC
BDAKBggqhkjOPQQDAgNJADBGAiEArE5BS17Fyb9OTcFC1iOOhV8tjohVuKsKx8Mw
wh+E7ysCIQDlBh+cO5PawR+sLpg7qwIMA9vtJJKpJYmcCE9BGwSHZA==
-----END CERTIFICATE-----
";
/// What was issued for the key of the request, PEM.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBXjCCAQSgAwIBAgIBAjAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA5TZWF2aWV3
IEhvdGVsczAeFw0yNjExMjAxMjAwMDBaFw0yNzAyMjAxMjAwMDBaMC8xLTArBgNV
BAMMJDAxOTJmMGMxLTJmNGUtN2EzMS05YzU1LTNkMWY2YTdiMDAwMTBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABGjt5g7/WZGP6c9JFL2OKjxCWNtcTtFniQJZztyX
OA3MFqhYHnSHxjLUOuhsKE2Nkvu7yivlG+wvFgR+D5LIr+6jJzAlMA4GA1UdDwEB
/wQEAwIHgDATBgNVHSUEDDAKBggrBgEFBQcDAjAKBggqhkjOPQQDAgNIADBFAiBQ
m9tQHykayIy8wBybjcPFnLszM794tkAxps6m+h2jFAIhAP07O0EAWhy6fa7h9Wfq
egViuG8ZDplEbRJ04M7LAcAn
-----END CERTIFICATE-----
";

pub(crate) fn bridge_key() -> SigningKey {
    SigningKey::from_seed(&BRIDGE_SEED)
}

pub(crate) fn cloud_key() -> SigningKey {
    SigningKey::from_seed(&CLOUD_SEED)
}

fn cloud_keys() -> Vec<PublicKey> {
    vec![cloud_key().public(), SigningKey::from_seed(&OLDER_SEED).public()]
}

fn id(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(0x0192_f0c1_2f4e_7a31_9c55_3d1f_6a7b_0000 + n)
}

pub(crate) fn bridge() -> BridgeId {
    id(1).into()
}

/// The bridge's own, in its hello.
fn nonce() -> Session {
    Session::read("AAECAwQFBgcICQoLDA0ODw==").unwrap()
}

/// The cloud's, in the header of its answer to the websocket request.
pub(crate) fn cloud_nonce() -> Session {
    Session::read("EBESExQVFhcYGRobHB0eHw==").unwrap()
}

fn at(text: &str) -> Timestamp {
    format!("2026-11-22T{text}Z").parse().unwrap()
}

pub(crate) fn noon() -> Timestamp {
    at("12:00:00")
}

fn place(epoch: u64, n: u64) -> Position {
    Position { epoch, n }
}

fn system(name: &str) -> SystemName {
    SystemName::new(name).unwrap()
}

fn door(name: &str) -> DoorName {
    DoorName::new(name).unwrap()
}

fn encoder() -> EncoderName {
    EncoderName::new("1").unwrap()
}

fn device() -> DeviceName {
    DeviceName::new("annex").unwrap()
}

fn stay() -> ReservationKey {
    ReservationKey::new("R-2026-0815").unwrap()
}

fn window(ends_at: Option<Timestamp>) -> Window {
    Window::new(noon(), ends_at).unwrap()
}

/// Every kind of frame.
pub(crate) fn frames() -> Vec<Frame> {
    let mut frames = vec![
        Frame::Hello(Hello {
            versions: vec![2, 1],
            agent: "latchd 1.0.0".into(),
            memory: Memory {
                orders_received: place(3, 14),
                reports_sent: place(2, 9),
                reports_acknowledged: place(2, 7),
                orders_limit: 78,
            },
            nonce: nonce(),
            cloud_keys: cloud_keys().iter().map(PublicKey::id).collect(),
        }),
        Frame::Hello(Hello {
            versions: vec![1],
            agent: String::new(),
            memory: Memory {
                orders_received: Position::default(),
                reports_sent: place(1, 0),
                reports_acknowledged: place(1, 0),
                orders_limit: 0,
            },
            nonce: nonce(),
            cloud_keys: Vec::new(),
        }),
        // A bridge whose memory was set back.
        Frame::Hello(Hello {
            versions: vec![1],
            agent: "latchd 1.0.0".into(),
            memory: Memory {
                orders_received: Position::LOST,
                reports_sent: place(2, 5),
                reports_acknowledged: place(2, 5),
                orders_limit: 64,
            },
            nonce: nonce(),
            cloud_keys: vec![cloud_key().public().id()],
        }),
    ];
    let welcome = Welcome {
        version: 1,
        bridge_id: bridge(),
        workspace: "Seaview Hotels".into(),
        time: at("12:00:00.123456789"),
        orders_resume_after: place(4, 0),
        reports_received: place(2, 8),
        reports_limit: 72,
        orders_epoch_reason: Some(EpochReason::ReceiverBehind),
        cloud_keys: cloud_keys(),
    };
    frames.extend([
        Frame::Welcome(welcome.clone()),
        Frame::Welcome(Welcome { orders_epoch_reason: Some(EpochReason::SenderBehind), ..welcome.clone() }),
        Frame::Welcome(Welcome {
            workspace: String::new(),
            time: noon(),
            orders_resume_after: place(1, 0),
            reports_received: Position::default(),
            reports_limit: 0,
            orders_epoch_reason: None,
            cloud_keys: vec![cloud_key().public()],
            ..welcome
        }),
    ]);
    let refused = |code, retry_after_ms| {
        Frame::Refused(Refused { code, message: "what a person should know of it".into(), retry_after_ms })
    };
    frames.push(refused(RefusedCode::Restarting, Some(2_750)));
    frames.extend(refused_codes().map(|code| refused(code, None)));
    frames.extend([
        Frame::Envelope(Envelope::at(
            place(3, 15),
            &Message::Cancel { job_id: id(16).into(), ordered: None },
        )),
        Frame::Envelope(Envelope::loose(&Message::Acknowledgement {
            stream: StreamName::Reports,
            position: place(2, 8),
        })),
    ]);
    frames.extend(inventories().map(Frame::Inventory));
    let condition = |severity, code: &str| Condition {
        code: code.into(),
        severity,
        subject: "salto".into(),
        message: "the line is down: is the server switched on?".into(),
        since: at("11:58:20.5"),
    };
    frames.extend([
        Frame::Status(Status {
            conditions: vec![
                condition(Severity::Error, "line_down"),
                condition(Severity::Warning, "clock_wrong"),
                condition(Severity::Notice, "lane_paused"),
            ],
        }),
        Frame::Status(Status { conditions: Vec::new() }),
    ]);
    frames.extend(
        [Stage::Queued, Stage::Sent, Stage::WaitingForCard, Stage::WaitingForConfirmation]
            .map(|stage| Frame::Progress(Progress { job_id: id(16).into(), stage })),
    );
    frames.extend([
        Frame::Limit(Limit { stream: StreamName::Orders, up_to: 78 }),
        Frame::Limit(Limit { stream: StreamName::Reports, up_to: 0 }),
        Frame::Ping { nonce: 7 },
        Frame::Ping { nonce: 0 },
        Frame::Beacon,
        Frame::Pong { nonce: 7 },
    ]);
    frames
}

fn refused_codes() -> impl Iterator<Item = RefusedCode> {
    [
        RefusedCode::VersionUnknown,
        RefusedCode::FrameMalformed,
        RefusedCode::FrameTooLarge,
        RefusedCode::FrameUnexpected,
        RefusedCode::StreamGap,
        RefusedCode::LimitExceeded,
        RefusedCode::Fenced,
        RefusedCode::Restarting,
        RefusedCode::SignatureMissing,
        RefusedCode::SignatureInvalid,
        RefusedCode::KeyUnknown,
        RefusedCode::MessageReplayed,
        RefusedCode::MessageMissing,
        RefusedCode::MessageExpired,
        RefusedCode::MessagesWithheld,
        RefusedCode::Revoked,
        RefusedCode::CertificateEnded,
        RefusedCode::StandingUnknown,
    ]
    .into_iter()
}

pub(crate) fn inventories() -> impl Iterator<Item = Inventory> {
    let salto = SystemInventory {
        name: system("salto"),
        kind: SystemKind::SaltoIs,
        time_zone: "Europe/Lisbon".into(),
        capabilities: Capabilities {
            r#override: Some(ProofLevel::Site),
            join: Some(ProofLevel::Peer),
            future_start: Some(ProofLevel::Vector),
            checkout: Some(ProofLevel::Simulator),
            modify_stay: None,
            read_card: Some(ProofLevel::Vector),
            open_end: None,
            slots: None,
            unlock: Some(ProofLevel::Vector),
            chip_numbers: None,
            max_rooms: 5,
            max_common: 62,
            answer_means_written: true,
            parallel_encoders: false,
        },
        checkout_on_last_grant: true,
        override_after_deleted_card: false,
        doors: vec![
            Door { name: door("101"), display_name: Some("Room 101".into()), kind: DoorKind::Room },
            Door { name: door("Garage"), display_name: None, kind: DoorKind::Common },
        ],
        encoders: vec![
            Encoder { name: encoder(), display_name: Some("Front desk".into()) },
            Encoder { name: EncoderName::new("2").unwrap(), display_name: None },
        ],
        devices: Vec::new(),
    };
    let keypads = SystemInventory {
        name: system("keypads"),
        kind: SystemKind::SimLock,
        time_zone: "UTC".into(),
        capabilities: Capabilities {
            r#override: None,
            join: None,
            future_start: None,
            checkout: None,
            read_card: None,
            slots: Some(ProofLevel::Simulator),
            unlock: None,
            chip_numbers: None,
            max_rooms: 0,
            max_common: 0,
            answer_means_written: false,
            ..salto.capabilities.clone()
        },
        checkout_on_last_grant: false,
        override_after_deleted_card: false,
        doors: Vec::new(),
        encoders: Vec::new(),
        devices: vec![
            Device {
                name: device(),
                display_name: Some("Annex".into()),
                slots: 50,
                pins: Some(PinRules { lengths: vec![4, 6], constraints: known_constraints() }),
                device_type: Some("august_lock".into()),
                manufacturer: Some("Example".into()),
                model: Some("Keypad 3".into()),
                lead_seconds: Some(900),
                remote_unlock: Some(true),
                card_numbers: false,
            },
            Device {
                name: DeviceName::new("shed").unwrap(),
                display_name: None,
                slots: 8,
                pins: Some(PinRules { lengths: vec![5], constraints: Vec::new() }),
                device_type: None,
                manufacturer: None,
                model: None,
                lead_seconds: None,
                remote_unlock: None,
                card_numbers: false,
            },
        ],
    };
    [Inventory { systems: vec![keypads, salto] }, Inventory::default()].into_iter()
}

fn known_constraints() -> Vec<PinConstraint> {
    let others = [PinConstraint::ComputedByMaker, PinConstraint::Other];
    PinConstraint::ALL.into_iter().filter(|constraint| !others.contains(constraint)).collect()
}

fn job(n: u128, system_name: &str, priority: Priority, order: Order) -> Message {
    Message::Job(Job {
        job_id: id(n).into(),
        system: system(system_name),
        priority,
        created_at: noon(),
        expires_at: at("12:05:00"),
        order,
    })
}

/// Every kind of message.
pub(crate) fn messages() -> Vec<Message> {
    let encode = CardEncode {
        encoder: encoder(),
        doors: vec![door("101"), door("Garage")],
        reservation_key: Some(stay()),
        window: window(Some(at("20:00:00"))),
        access_method_id: id(32).into(),
        guest_name: Some(Private::new("Zoë O'Hara")),
        card_wait_seconds: 60,
        begin_again: false,
    };
    let least = CardEncode {
        doors: vec![door("Garage")],
        reservation_key: None,
        window: window(None),
        guest_name: None,
        card_wait_seconds: 0,
        ..encode.clone()
    };
    let modify = |to_room| {
        Order::StayModify(StayModify {
            room: door("101"),
            to_room,
            reservation_key: stay(),
            ends_at: at("18:00:00"),
        })
    };
    let put = |content, ends_at, generation| {
        let window = window(ends_at);
        Order::SlotPut(SlotPut { device: device(), slot: "guest-7".into(), content, window, generation })
    };
    let pin = SlotContent::Pin(Private::new("004711"));
    let card = SlotContent::CardNumber(Private::new("04A1B2C3D4E5F6"));
    let orders = [
        ("salto", Order::CardEncode(encode)),
        ("salto", Order::CardEncode(least)),
        ("salto", Order::CardRead(CardRead { encoder: encoder(), card_wait_seconds: 60 })),
        ("salto", modify(Some(door("102")))),
        ("salto", modify(None)),
        ("salto", Order::StayCheckout { room: door("101"), reservation_key: stay() }),
        ("keypads", put(pin, Some(at("20:00:00")), 3)),
        ("keypads", put(card, None, 1)),
        ("keypads", Order::SlotRemove { device: device(), slot: "guest-7".into() }),
        ("keypads", Order::DeviceUnlock { device: device() }),
        ("keypads", Order::DeviceRead { device: device() }),
        ("salto", Order::InventoryRefresh),
    ];
    let mut messages: Vec<_> = (16..)
        .zip(orders)
        .map(|(n, (system_name, order))| {
            let waits = matches!(order.kind(), Kind::CardEncode | Kind::CardRead);
            job(n, system_name, if waits { Priority::Desk } else { Priority::Background }, order)
        })
        .collect();
    messages.push(Message::Cancel { job_id: id(16).into(), ordered: None });
    messages.extend(outcomes().map(Message::Outcome));
    messages.extend(resolutions().map(Message::Resolution));
    messages.extend(
        [(StreamName::Orders, place(3, 15)), (StreamName::Reports, place(2, 9))]
            .map(|(stream, position)| Message::Acknowledgement { stream, position }),
    );
    messages
}

/// Messages with what version 1 has come to hold since its files were written: fields that may be left out.
pub(crate) fn later_messages() -> Vec<Message> {
    let first = messages().into_iter().next();
    let Some(Message::Job(Job { order: Order::CardEncode(card), .. })) = first else { unreachable!() };
    vec![job(16, "salto", Priority::Desk, Order::CardEncode(CardEncode { begin_again: true, ..card }))]
}

/// The same of what is taken back.
pub(crate) fn later_cancels() -> Vec<Message> {
    let Some(Message::Job(job)) = messages().into_iter().next() else { unreachable!() };
    vec![Message::Cancel { job_id: job.job_id, ordered: Some(Ordered::of(&job)) }]
}

/// The same of outcomes.
pub(crate) fn later_outcomes() -> Vec<Message> {
    let seen = |made_here| CardSeen::Guest {
        rooms: vec!["101".into()],
        valid: true,
        original: true,
        common: Vec::new(),
        starts_at: None,
        ends_at: Some(at("20:00:00")),
        made_here: Some(made_here),
    };
    let read = |card| Outcome::Succeeded(Success { seen: Some(card), ..Success::default() });
    [true, false].map(|made_here| Message::Outcome(report(read(seen(made_here))))).to_vec()
}

/// The same of cards whose time is to come, as a lock system prints it that writes whole hours.
pub(crate) fn outcomes_to_come() -> Vec<Message> {
    let card = CardFacts {
        printed_end: Some(at("20:00:00")),
        printed_start: Some(at("14:00:00")),
        ..CardFacts::default()
    };
    let written = Success { written: Some(Written::Proven), card: Some(card), ..Success::default() };
    vec![Message::Outcome(report(Outcome::Succeeded(written)))]
}

/// The same of frames.
pub(crate) fn later_frames() -> Vec<Frame> {
    let mut inventory = inventories().next().unwrap();
    for system in &mut inventory.systems {
        system.override_after_deleted_card = system.kind == SystemKind::SaltoIs;
    }
    vec![Frame::Inventory(inventory)]
}

fn report(outcome: Outcome) -> Report {
    Report {
        job_id: id(16).into(),
        revision: 1,
        at: at("12:00:07.25"),
        outcome,
        resolution: None,
        rooms: Vec::new(),
        local: None,
    }
}

fn rooms() -> Vec<RoomState> {
    let room = |name, reservation_key, certain, cards| RoomState {
        system: system("salto"),
        room: door(name),
        reservation_key,
        certain,
        since: at("12:00:07.25"),
        cards,
        printed_ends: (0..cards).map(|_| at("20:00:00")).collect(),
    };
    vec![room("101", Some(stay()), true, 1), room("102", None, false, 0)]
}

fn outcomes() -> impl Iterator<Item = Report> {
    let written = Success {
        written: Some(Written::Proven),
        card: Some(CardFacts {
            serial: Some("04A1B2C3D4E5F6".into()),
            overrode: Some(true),
            printed_end: Some(at("20:00:00")),
            printed_start: None,
        }),
        ..Success::default()
    };
    let accepted =
        Success { written: Some(Written::Accepted), card: Some(CardFacts::default()), ..Success::default() };
    let guest = CardSeen::Guest {
        rooms: vec!["101".into()],
        valid: true,
        original: false,
        common: vec!["Garage".into()],
        starts_at: Some(noon()),
        ends_at: Some(at("20:00:00")),
        made_here: None,
    };
    let vague = CardSeen::Guest {
        rooms: Vec::new(),
        valid: false,
        original: true,
        common: Vec::new(),
        starts_at: None,
        ends_at: None,
        made_here: None,
    };
    let local = |origin, kind, device: Option<&str>, retries| LocalJob {
        origin,
        system: system("salto"),
        kind,
        device: device.map(Into::into),
        slot: (kind == Kind::SlotRemove).then(|| id(33).to_string()),
        created_at: noon(),
        retries,
        card: None,
    };
    let refusal = Refusal::by_device(Code::NoAnswer, "ES", "the encoder did not answer: read the card");
    let mut reports = vec![
        Report {
            rooms: rooms(),
            local: Some(local(Origin::Person, Kind::CardEncode, Some("1"), Some(id(15).into()))),
            ..report(Outcome::Succeeded(written))
        },
        report(Outcome::Succeeded(Success::default())),
        report(Outcome::Succeeded(accepted)),
        Report {
            local: Some(local(Origin::Timer, Kind::SlotRemove, None, None)),
            ..report(Outcome::Succeeded(Success::default()))
        },
        Report {
            local: Some(local(Origin::Cloud, Kind::CardRead, None, None)),
            ..report(Outcome::Unknown(refusal))
        },
        report(Outcome::Cancelled),
        report(Outcome::Expired(Refusal::new(Code::Expired, "nothing was sent before its deadline"))),
        report(Outcome::Superseded),
    ];
    let seen = [guest, vague, CardSeen::Staff, CardSeen::Invalid, CardSeen::Other { what: "SPARE".into() }];
    reports.extend(
        seen.map(|seen| report(Outcome::Succeeded(Success { seen: Some(seen), ..Success::default() }))),
    );
    let held = |slots: Vec<SlotSeen>| {
        report(Outcome::Succeeded(Success { slots: Some(slots), ..Success::default() }))
    };
    reports.push(held(vec![SlotSeen { slot: id(33).to_string(), generation: 7 }]));
    reports.push(held(Vec::new()));
    let codes = Code::ALL.iter().filter(|code| **code != Code::Other);
    reports.extend(codes.map(|code| report(Outcome::failed(*code, "what to do"))));
    let kinds = Kind::ALL.map(|kind| Report {
        local: Some(local(Origin::Person, kind, None, None)),
        ..report(Outcome::Cancelled)
    });
    reports.extend(kinds);
    reports.into_iter()
}

fn resolutions() -> impl Iterator<Item = Report> {
    let settled = |verdict, outcome| Report {
        revision: 2,
        resolution: Some(Resolution { verdict, by: "Maria, front desk".into() }),
        ..report(outcome)
    };
    [
        Report { rooms: rooms(), ..settled(Verdict::Done, Outcome::Succeeded(Success::default())) },
        settled(Verdict::NotDone, Outcome::failed(Code::NoAnswer, "a person says that nothing was written")),
    ]
    .into_iter()
}

fn next_keys() -> Keys {
    Keys { csr: CSR.into(), signing_key: SigningKey::from_seed(&NEXT_SEED).public() }
}

pub(crate) fn cloud_cards() -> Vec<CloudCard> {
    let card = CloudCard { cloud_keys: cloud_keys(), authority: Some(AUTHORITY.into()), time: noon() };
    let least = CloudCard { cloud_keys: vec![cloud_key().public()], authority: None, ..card.clone() };
    vec![card, least]
}

pub(crate) fn pair_requests() -> Vec<PairRequest> {
    let keys = next_keys();
    let proof = keys.proof(&SigningKey::from_seed(&NEXT_SEED));
    vec![PairRequest { code: "ABCDEF".into(), keys, proof, agent: "latchd 1.0.0".into() }]
}

pub(crate) fn renew_requests() -> Vec<RenewRequest> {
    let keys = next_keys();
    vec![RenewRequest {
        bridge_id: bridge(),
        proof: keys.proof(&SigningKey::from_seed(&NEXT_SEED)),
        old_key_id: bridge_key().public().id(),
        old_proof: keys.renewal_proof(&bridge_key()),
        keys,
    }]
}

pub(crate) fn waitings() -> Vec<Waiting> {
    vec![Waiting { expires_in: 540 }]
}

pub(crate) fn admissions() -> Vec<Admission> {
    let admission = Admission {
        keys: next_keys().digest(),
        bridge_id: bridge(),
        workspace: "Seaview Hotels".into(),
        cloud_keys: cloud_keys(),
        authority: cloud_cards()[0].authority.clone(),
        certificate: CERTIFICATE.into(),
        issued_at: noon(),
        expires_at: "2027-02-20T12:00:00Z".parse().unwrap(),
        ledger: Some(LedgerCopy { is_current: true, rooms: rooms() }),
    };
    let least = Admission {
        cloud_keys: vec![cloud_key().public()],
        authority: None,
        ledger: None,
        ..admission.clone()
    };
    vec![admission, least]
}

pub(crate) fn answers() -> Vec<Answer> {
    admissions().iter().map(|admission| Answer::new(admission, &cloud_key())).collect()
}
