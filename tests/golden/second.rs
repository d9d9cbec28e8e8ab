//! What version 2 has beside version 1: its files hold only that, and all files of version 1 are of version 2 as well.

use std::process::Command;

use latchd::{
    model::{
        DesiredCard, DesiredCardState, DesiredCode, DesiredDevice, DesiredDoors, DesiredGrant, DeviceName,
        DoorAct, DoorEvent, DoorEvents, DoorMeans, DoorName, GrantMade, GrantRevoked, Kind, LocalCard,
        LocalJob, Origin, Outcome, PinConstraint, Private, ProofLevel, Report, ReservationKey, Success,
        SystemKind, SystemName, Window, Written,
    },
    protocol::{Desired, Envelope, Frame, Message, Position, StreamName},
};
use serde_json::{Value, json};

use super::{
    check_of, folder_of, golden_of, of_a_later_peer,
    schema::{check, shows_all_of, validator_in, values_of},
    values,
};

fn schema() -> Value {
    latchd::protocol::schema::schema(2)
}

fn id<T: From<uuid::Uuid>>(n: u128) -> T {
    uuid::Uuid::from_u128(0x0192_f0c1_2f4e_7a31_9c55_3d1f_6a7b_0000 + n).into()
}

fn place(epoch: u64, n: u64) -> Position {
    Position { epoch, n }
}

/// Grants of a family and of a member of the staff, and the end of another one.
fn desired() -> Vec<Frame> {
    let (salto, vostio) = (SystemName::new("salto").unwrap(), SystemName::new("vostio").unwrap());
    let doors = |system: &SystemName, doors: &[&str]| DesiredDoors {
        system: system.clone(),
        doors: doors.iter().map(|door| DoorName::new(*door).unwrap()).collect(),
    };
    let card = |n, system: &SystemName, state, why: Option<&str>| DesiredCard {
        access_method_id: id(n),
        system: system.clone(),
        state,
        why: why.map(Into::into),
    };
    let until = values::noon() + jiff::SignedDuration::from_hours(48);
    let family = DesiredGrant {
        access_grant_id: id(64),
        access_grant_key: Some("booking-815/1".into()),
        reservation_key: Some(ReservationKey::new("R-2026-0815").unwrap()),
        guest_name: Some(Private::new("Zoë O'Hara")),
        window: Window::new(values::noon(), Some(until)).unwrap(),
        doors: vec![doors(&salto, &["101", "Garage"]), doors(&vostio, &["Spa"])],
        cards: vec![
            card(80, &salto, DesiredCardState::EncodingRequired, None),
            card(81, &salto, DesiredCardState::BeingEncoded, None),
            card(82, &salto, DesiredCardState::Issued, None),
            card(83, &salto, DesiredCardState::InDoubt, None),
            card(84, &vostio, DesiredCardState::NotReady, Some("the access system no longer has room 7")),
        ],
        codes: Vec::new(),
    };
    let least = DesiredGrant {
        access_grant_id: id(65),
        access_grant_key: None,
        reservation_key: None,
        guest_name: None,
        window: Window::new(values::noon(), None).unwrap(),
        doors: Vec::new(),
        cards: Vec::new(),
        codes: Vec::new(),
    };
    [
        Desired { up_to: place(4, 16), grants: vec![family, least], gone: Vec::new(), complete: false },
        Desired { up_to: place(4, 17), grants: Vec::new(), gone: vec![id(66), id(67)], complete: true },
        Desired { up_to: place(1, 0), grants: Vec::new(), gone: Vec::new(), complete: true },
    ]
    .map(Frame::Desired)
    .into()
}

/// Makes that a cloud of version 1 does not know.
fn inventories() -> Vec<Frame> {
    let of_kind = |kind: SystemKind| {
        let mut inventory = values::inventories().next().unwrap();
        inventory.systems.truncate(1);
        for system in &mut inventory.systems {
            system.name = SystemName::new(kind.as_str()).unwrap();
            system.kind = kind;
            if let (SystemKind::Igloohome, Some(pins)) = (kind, &mut system.devices[0].pins) {
                pins.constraints = vec![PinConstraint::ComputedByMaker];
            }
            match kind {
                SystemKind::Uhppote => system.devices[0].card_numbers = true,
                SystemKind::CardReader => system.capabilities.chip_numbers = Some(ProofLevel::Vector),
                _ => {}
            }
        }
        Frame::Inventory(inventory)
    };
    [
        SystemKind::Visionline,
        SystemKind::KabaMessenger,
        SystemKind::TtLock,
        SystemKind::AugustYale,
        SystemKind::Igloohome,
        SystemKind::Uhppote,
        SystemKind::CardReader,
    ]
    .map(of_kind)
    .into()
}

fn acknowledgements() -> Vec<Message> {
    [place(4, 17), Position::default(), Position::LOST]
        .map(|position| Message::Acknowledgement { stream: StreamName::Desired, position })
        .into()
}

/// A card that the desk had written.
fn outcomes() -> Vec<Message> {
    let card = LocalCard {
        access_method_id: id(80),
        doors: vec![DoorName::new("101").unwrap(), DoorName::new("Garage").unwrap()],
        window: Window::new(values::noon(), None).unwrap(),
    };
    let local = LocalJob {
        origin: Origin::Person,
        system: SystemName::new("salto").unwrap(),
        kind: Kind::CardEncode,
        device: Some("1".into()),
        slot: None,
        created_at: values::noon(),
        retries: None,
        card: Some(card),
    };
    let written = Success { written: Some(Written::Proven), ..Success::default() };
    vec![Message::Outcome(Report {
        job_id: id(17),
        revision: 1,
        at: values::noon(),
        outcome: Outcome::Succeeded(written),
        resolution: None,
        rooms: Vec::new(),
        local: Some(local),
    })]
}

/// What a desk did while the cloud was away.
fn made() -> Vec<Message> {
    let Some(Frame::Desired(desired)) = desired().into_iter().next() else { panic!("a frame") };
    let made = |grant| GrantMade { at: values::noon(), by: "Maria, front desk".into(), grant };
    desired.grants.into_iter().map(made).map(Message::GrantMade).collect()
}

/// What version 2 has come to hold since its first files were written.
const LATER_MADE: &str = "message-grant_made-codes.json";

/// A grant with codes, whose PIN a desk gave out.
fn made_with_codes() -> Vec<Message> {
    let device = |name: &str| DesiredDevice {
        system: SystemName::new("keypads").unwrap(),
        device: DeviceName::new(name).unwrap(),
    };
    let codes = vec![DesiredCode {
        access_method_id: id(85),
        devices: vec![device("101"), device("back door")],
        pin: Some(Private::new("482913")),
    }];
    let grant = DesiredGrant {
        access_grant_id: id(68),
        access_grant_key: None,
        reservation_key: None,
        guest_name: None,
        window: Window::new(values::noon(), None).unwrap(),
        doors: Vec::new(),
        cards: Vec::new(),
        codes,
    };
    vec![Message::GrantMade(GrantMade { at: values::noon(), by: "Maria, front desk".into(), grant })]
}

fn revoked() -> Vec<Message> {
    let by = "Maria, front desk".into();
    vec![Message::GrantRevoked(GrantRevoked { at: values::noon(), by, access_grant_id: id(64) })]
}

fn door_events() -> Vec<Message> {
    let event = |n, what, by| DoorEvent {
        door_event_id: id(n),
        at: values::noon(),
        what,
        by,
        slot: None,
        job_id: None,
    };
    let slot = Some("stay-7".into());
    let events = vec![
        DoorEvent { slot: slot.clone(), ..event(96, DoorAct::Unlocked, Some(DoorMeans::Keycode)) },
        DoorEvent { slot, ..event(97, DoorAct::Unlocked, Some(DoorMeans::Card)) },
        DoorEvent { job_id: Some(id(18)), ..event(98, DoorAct::Unlocked, Some(DoorMeans::Remote)) },
        event(99, DoorAct::Locked, Some(DoorMeans::Manual)),
        event(100, DoorAct::Locked, Some(DoorMeans::Automatic)),
        event(101, DoorAct::AccessDenied, None),
    ];
    let (system, device) = (SystemName::new("keypads").unwrap(), DeviceName::new("101").unwrap());
    let none = DoorEvents { system: system.clone(), device: device.clone(), lost: 12, events: Vec::new() };
    vec![Message::DoorEvents(DoorEvents { system, device, lost: 0, events }), Message::DoorEvents(none)]
}

#[test]
fn frames_and_messages_are_read_as_they_were_and_written_as_they_are() {
    check_of(2, "frame-desired.json", &desired());
    check_of(2, "frame-inventory.json", &inventories());
    check_of(2, "message-acknowledgement.json", &acknowledgements());
    check_of(2, "message-outcome.json", &outcomes());
    check_of(2, "message-grant_made.json", &made());
    check_of(2, LATER_MADE, &made_with_codes());
    check_of(2, "message-grant_revoked.json", &revoked());
    check_of(2, "message-door_events.json", &door_events());
}

#[test]
fn fields_of_a_later_peer_are_ignored_here_as_well() {
    for frame in [desired(), inventories()].concat() {
        let later = of_a_later_peer(serde_json::to_value(&frame).unwrap());
        assert_eq!(serde_json::from_value::<Frame>(later).unwrap(), frame);
    }
}

#[test]
fn the_program_prints_the_published_schema_of_the_newest_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_latchd")).arg("schema").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed, golden_of(2, "schema.json", &printed));
}

#[test]
fn what_is_of_version_1_is_valid_in_version_2_and_together_they_show_all_of_it() {
    let all = [values_of(folder_of(1)), values_of(folder_of(2))].concat();
    assert!(all.len() > 100, "{}", all.len());
    for (of, value) in &all {
        check(&validator_in(schema(), of), value);
    }
    shows_all_of(&schema(), all);
}

#[test]
fn what_is_new_in_version_2_is_not_of_version_1() {
    let first = |of| validator_in(latchd::protocol::schema::schema(1), of);
    for frame in [desired(), inventories()].concat() {
        assert!(!first("Frame").is_valid(&serde_json::to_value(frame).unwrap()));
    }
    for message in [acknowledgements(), made(), revoked()].concat() {
        assert_eq!(message.since(), 2);
        assert!(!first("Message").is_valid(&serde_json::to_value(message).unwrap()));
    }
    let text = Envelope::loose(&acknowledgements()[0]).body;
    check(&validator_in(schema(), "Message"), &serde_json::from_str(&text).unwrap());
    assert!(
        !validator_in(schema(), "Frame").is_valid(&json!({"type": "desired", "up_to": {"epoch": 1, "n": 1}}))
    );
}
