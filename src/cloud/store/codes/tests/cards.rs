//! Cards that devices know by the numbers of their chips.

use crate::{
    grants::Refused,
    model::{AccessMethodId, AcsEncoderId, ActionAttemptId, CardFacts, Encoder, EncoderName},
};

use super::*;

const CHIP: &str = "04A1B2C3D4E580";
const OTHER_CHIP: &str = "04A1B2C3D4E581";

/// Two boards' doors, and a reader on the desk.
fn boards() -> Inventory {
    let mut inventory = inventory(&["front", "flat"]);
    for device in &mut inventory.systems[0].devices {
        device.card_numbers = true;
        device.pins = None;
    }
    let mut reader = inventory.systems[0].clone();
    reader.name = SystemName::new("reader").unwrap();
    reader.devices.clear();
    reader.capabilities.slots = None;
    reader.capabilities.unlock = None;
    reader.capabilities.chip_numbers = Some(ProofLevel::Simulator);
    reader.capabilities.read_card = Some(ProofLevel::Simulator);
    reader.encoders = vec![Encoder { name: EncoderName::new("desk").unwrap(), display_name: None }];
    inventory.systems.push(reader);
    inventory
}

fn property() -> Property {
    let mut property = Property::new();
    property.shows_all(&boards());
    property
}

fn encoder(property: &Property) -> AcsEncoderId {
    let found =
        property.db.one("SELECT acs_encoder_id FROM acs_encoder", [], |row| id(row, "acs_encoder_id"));
    found.unwrap().unwrap()
}

impl Property {
    fn encode(&mut self, method: AccessMethodId) -> Result<ActionAttemptId, Refused> {
        let (now, desk) = (self.now, encoder(self));
        let attempt = self.db.tenant(self.workspace).encode(now, method, desk).unwrap()?;
        self.db.end_overdue(now).unwrap();
        Ok(attempt.id)
    }

    /// Somebody is asked for a card, and lays this one down.
    fn lays_down(&mut self, method: AccessMethodId, chip: &str) -> ActionAttemptId {
        let attempt = self.encode(method).unwrap();
        let orders = self.ordered();
        let [(job, Order::CardEncode(card))] = orders.as_slice() else { panic!("{orders:?}") };
        assert_eq!((card.doors.len(), card.access_method_id), (0, method));
        self.report(*job, read(chip));
        attempt
    }

    /// How an attempt ended: the number of the card, or the kind of error.
    fn end_of(&mut self, attempt: ActionAttemptId) -> Result<Option<String>, String> {
        match self.db.tenant(self.workspace).attempt(attempt).unwrap().unwrap().state {
            AttemptState::Success(card) => Ok(card.card_number),
            AttemptState::Error { kind, .. } => Err(kind),
            state => panic!("{state:?}"),
        }
    }

    /// Every order that is outstanding is done.
    fn all_done(&mut self) -> usize {
        let orders = self.ordered();
        for (job, _) in &orders {
            self.done(*job);
        }
        orders.len()
    }

    fn delete(&mut self, method: AccessMethodId) {
        let now = self.now;
        self.db.tenant(self.workspace).delete_method(now, method).unwrap().unwrap();
        self.db.end_overdue(now).unwrap();
    }

    fn change(&mut self, grant: &Grant, change: &GrantChange) {
        let now = self.now;
        self.db.tenant(self.workspace).update_grant(now, &GrantName::Id(grant.id), change).unwrap().unwrap();
        self.db.end_overdue(now).unwrap();
    }

    fn methods(&mut self, grant: &Grant) -> Vec<AccessMethodId> {
        self.the_grant(grant)
            .map(|grant| grant.methods.iter().map(|method| method.id).collect())
            .unwrap_or_default()
    }
}

fn read(chip: &str) -> Outcome {
    let card = CardFacts { serial: Some(chip.to_owned()), ..CardFacts::default() };
    Outcome::Succeeded(Success { card: Some(card), ..Success::default() })
}

fn card_of(order: &Order) -> &str {
    match &put(order).content {
        SlotContent::CardNumber(number) => number.expose(),
        SlotContent::Pin(_) => panic!("a PIN"),
    }
}

#[test]
fn the_attempt_ends_with_the_number_and_the_card_is_issued_when_every_door_was_read_back() {
    let mut property = property();
    let grant = property.grant(&["front", "flat"], &[Mode::Card]);
    assert_eq!((grant.methods.len(), grant.errors.len(), grant.lacks.len()), (1, 0, 0));
    let method = grant.methods[0].id;
    assert_eq!(property.ordered(), [], "nobody has laid a card down");
    let attempt = property.lays_down(method, CHIP);
    assert_eq!(property.end_of(attempt), Ok(Some(CHIP.into())));
    let orders = property.ordered();
    let [(one, first), (other, second)] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!((card_of(first), card_of(second)), (CHIP, CHIP));
    property.done(*one);
    assert!(!property.is_issued(&grant));
    property.done(*other);
    assert!(property.is_issued(&grant));
    assert_eq!(
        property.told(&grant),
        ["created", "created", "card_encoding_required", "issued", "access_granted_to_all_doors"]
    );
    let refused = property.encode(method).unwrap_err();
    assert_eq!(refused.name(), "access_method_not_ready_for_encoding");
}

#[test]
fn other_times_and_doors_need_no_card_any_more() {
    let mut property = property();
    let grant = property.grant(&["front"], &[Mode::Card]);
    property.lays_down(grant.methods[0].id, CHIP);
    assert_eq!(property.all_done(), 1);
    let ends_at = property.now + SignedDuration::from_hours(48);
    property.change(&grant, &GrantChange { ends_at: Some(Some(ends_at)), ..GrantChange::default() });
    assert!(!property.is_issued(&grant));
    let (job, order) = property.ordered().remove(0);
    assert_eq!((card_of(&order), put(&order).window.ends_at()), (CHIP, Some(ends_at)));
    property.done(job);
    assert!(property.is_issued(&grant));
    let (front, flat) = (property.device("front"), property.device("flat"));
    property.change(&grant, &GrantChange { devices: Some(vec![front, flat]), ..GrantChange::default() });
    let (job, order) = property.ordered().remove(0);
    assert_eq!((card_of(&order), put(&order).device.as_str()), (CHIP, "flat"));
    property.done(job);
    property.change(&grant, &GrantChange { devices: Some(vec![flat]), ..GrantChange::default() });
    let orders = property.ordered();
    let [(_, Order::SlotRemove { device, .. })] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!(device.as_str(), "front");
    assert_eq!(property.methods(&grant), [grant.methods[0].id]);
}

#[test]
fn a_lost_card_goes_from_its_doors_and_another_takes_its_place() {
    let mut property = property();
    let grant = property.grant(&["front", "flat"], &[Mode::Card]);
    let lost = grant.methods[0].id;
    property.lays_down(lost, CHIP);
    assert_eq!(property.all_done(), 2);
    property.delete(lost);
    let orders = property.ordered();
    assert!(orders.iter().all(|(_, order)| matches!(order, Order::SlotRemove { .. })), "{orders:?}");
    assert_eq!(orders.len(), 2);
    assert_eq!(property.methods(&grant), [lost], "until it is gone it is told of");
    for (job, _) in orders {
        property.done(job);
    }
    assert_eq!(property.methods(&grant), [], "and the grant makes no other one by itself");
    let now = property.now;
    let wanted = [Requested { mode: Mode::Card, code: None }];
    property.db.tenant(property.workspace).request_methods(now, grant.id, &wanted).unwrap().unwrap();
    let [new] = property.methods(&grant)[..] else { panic!("one") };
    let attempt = property.lays_down(new, OTHER_CHIP);
    assert_eq!(property.end_of(attempt), Ok(Some(OTHER_CHIP.into())));
    assert_eq!(property.all_done(), 2);
    assert!(property.is_issued(&grant));
}

#[test]
fn a_card_that_is_somebody_elses_there_is_refused_and_a_second_one_is_not_taken_for_the_first() {
    let mut property = property();
    let (one, other) = (property.grant(&["front"], &[Mode::Card]), property.grant(&["front"], &[Mode::Card]));
    property.lays_down(one.methods[0].id, CHIP);
    assert_eq!(property.all_done(), 1);
    let attempt = property.lays_down(other.methods[0].id, CHIP);
    assert_eq!(property.end_of(attempt), Err("credential_cannot_be_reissued".into()));
    assert_eq!(property.all_done(), 0);
    let attempt = property.lays_down(other.methods[0].id, OTHER_CHIP);
    assert_eq!(property.end_of(attempt), Ok(Some(OTHER_CHIP.into())));
    assert_eq!(property.all_done(), 1);
    // Once the first is gone the card is free.
    property.delete(one.methods[0].id);
    assert_eq!(property.all_done(), 1);
    let third = property.grant(&["front"], &[Mode::Card]);
    let attempt = property.lays_down(third.methods[0].id, CHIP);
    assert_eq!(property.end_of(attempt), Ok(Some(CHIP.into())));
}

#[test]
fn no_card_an_unreadable_one_and_silence_change_nothing_and_it_can_be_laid_down_again() {
    let mut property = property();
    let grant = property.grant(&["front"], &[Mode::Card]);
    let method = grant.methods[0].id;
    let ends = [
        (Outcome::failed(Code::NoCard, "nobody came"), "no_credential_on_encoder"),
        (read("not a number"), "incompatible_card_format"),
        (Outcome::Succeeded(Success::default()), "incompatible_card_format"),
        (Outcome::unknown(Code::LineLost, "cut"), "encoder_communication_timeout"),
        (Outcome::Cancelled, "credential_deleted"),
    ];
    for (end, kind) in ends {
        let attempt = property.encode(method).unwrap();
        assert_eq!(property.encode(method), Ok(attempt), "a second click is the same attempt");
        let (job, _) = property.ordered().remove(0);
        property.report(job, end);
        assert_eq!(property.end_of(attempt), Err(kind.into()));
        assert_eq!(property.ordered(), []);
    }
    let attempt = property.encode(method).unwrap();
    let (job, _) = property.ordered().remove(0);
    property.db.orders_lost(property.now, property.bridge, &[job]).unwrap();
    assert_eq!(property.end_of(attempt), Err("encoder_communication_timeout".into()));
    property.lays_down(method, CHIP);
    assert_eq!(property.all_done(), 1);
    assert!(property.is_issued(&grant));
}

#[test]
fn what_is_taken_back_while_somebody_looks_for_a_card_waits_for_none() {
    let mut property = property();
    property.db.part(property.now, property.bridge, 1).unwrap();
    let grant = property.grant(&["front"], &[Mode::Card]);
    let attempt = property.encode(grant.methods[0].id).unwrap();
    property.delete(grant.methods[0].id);
    assert_eq!(property.end_of(attempt), Err("credential_deleted".into()));
    assert_eq!((property.ordered(), property.methods(&grant)), (Vec::new(), Vec::new()));

    property.meet(2);
    property.shows_all(&boards());
    let grant = property.grant(&["front"], &[Mode::Card]);
    let attempt = property.encode(grant.methods[0].id).unwrap();
    let (job, _) = property.ordered().remove(0);
    let now = property.now;
    property.db.tenant(property.workspace).delete_grant(now, grant.id).unwrap().unwrap();
    // The bridge had begun, and somebody laid a card down.
    property.report(job, read(CHIP));
    assert_eq!(property.end_of(attempt), Err("credential_deleted".into()));
    assert_eq!(property.ordered(), []);
    assert!(property.the_grant(&grant).is_none());
}

#[test]
fn doors_that_come_later_ask_for_a_card_and_an_encoder_that_reads_no_numbers_is_refused() {
    let mut property = property();
    let mut inventory = boards();
    inventory.systems[0].devices[0].card_numbers = false;
    inventory.systems[1].capabilities.chip_numbers = None;
    property.shows_all(&inventory);
    let grant = property.grant(&["front"], &[Mode::Card]);
    assert_eq!((grant.methods.len(), grant.errors.len()), (0, 1), "{:?}", grant.errors);
    let flat = property.device("flat");
    property.change(&grant, &GrantChange { devices: Some(vec![flat]), ..GrantChange::default() });
    let shown = property.the_grant(&grant).unwrap();
    assert_eq!((shown.methods.len(), shown.errors.len()), (1, 0), "{:?}", shown.errors);
    let refused = property.encode(shown.methods[0].id).unwrap_err();
    assert_eq!(refused.name(), "acs_encoder_reads_no_card_numbers");
}

#[test]
fn the_number_lies_sealed() {
    let mut property = property();
    let grant = property.grant(&["front"], &[Mode::Card]);
    property.lays_down(grant.methods[0].id, CHIP);
    property.all_done();
    for file in std::fs::read_dir(property.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!holds(CHIP.as_bytes()) && !holds(CHIP.to_lowercase().as_bytes()));
    }
}
