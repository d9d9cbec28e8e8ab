//! Codes that a desk gave out while it was cut off.

use super::*;
use crate::model::{DesiredCode, DesiredDevice, DesiredGrant, GrantMade, GrantRevoked, Window};

/// What a desk made at some locks of the annex: a grant of so many hours, with this PIN.
pub(super) fn made(property: &Property, number: u128, pin: &str, locks: &[&str], hours: i64) -> GrantMade {
    let device = |lock: &&str| DesiredDevice {
        system: SystemName::new("annex").unwrap(),
        device: DeviceName::new(*lock).unwrap(),
    };
    let until = property.now + SignedDuration::from_hours(hours);
    let code = DesiredCode {
        access_method_id: AccessMethodId(uuid::Uuid::from_u128(number + 1_000_000)),
        devices: locks.iter().map(device).collect(),
        pin: Some(Private::new(pin)),
    };
    let grant = DesiredGrant {
        access_grant_id: AccessGrantId(uuid::Uuid::from_u128(number)),
        access_grant_key: None,
        reservation_key: None,
        guest_name: Some(Private::new("Jane Quicksilver")),
        window: Window::new(property.now, Some(until)).unwrap(),
        doors: Vec::new(),
        cards: Vec::new(),
        codes: vec![code],
    };
    GrantMade { at: property.now, by: "Kari".into(), grant }
}

impl Property {
    /// Takes a fact over; gives its grant.
    pub(super) fn adopts(&mut self, made: &GrantMade) -> Grant {
        self.db.adopt_made(self.now, self.bridge, made).unwrap();
        let name = GrantName::Id(made.grant.access_grant_id);
        self.db.tenant(self.workspace).grant(&name).unwrap().unwrap()
    }

    pub(super) fn desk_revokes(&mut self, grant: AccessGrantId) {
        let revoked = GrantRevoked { at: self.now, by: "Kari".into(), access_grant_id: grant };
        self.db.adopt_revoked(self.now, self.bridge, &revoked).unwrap();
    }

    /// What the bridge would be told of its grants by a picture.
    fn told_to_site(&mut self, connection: u64, held: Position) -> (Vec<DesiredGrant>, Vec<AccessGrantId>) {
        self.meet(connection);
        assert!(self.db.desired_acknowledged(self.bridge, connection, held).unwrap());
        let (mut grants, mut gone) = (Vec::new(), Vec::new());
        loop {
            let turn = self.db.desired_to_send(self.bridge, connection).unwrap();
            let Some(frame) = turn.frame else {
                if turn.more {
                    continue;
                }
                return (grants, gone);
            };
            grants.extend(frame.grants);
            gone.extend(frame.gone);
            assert!(self.db.desired_acknowledged(self.bridge, connection, frame.up_to).unwrap());
        }
    }
}

#[test]
fn a_code_of_the_desks_is_taken_over_with_its_pin_and_issued_once_it_is_read_back() {
    let mut property = Property::new();
    let fact = made(&property, 7, "482913", &["lock-1", "lock-2"], 24);
    let grant = property.adopts(&fact);
    let code = &fact.grant.codes[0];
    assert_eq!((grant.methods.len(), grant.methods[0].id), (1, code.access_method_id));
    assert_eq!((&grant.errors[..], grant.requested.len()), (&[][..], 1));
    let orders = property.ordered();
    assert_eq!(orders.len(), 2);
    let made_at = u64::try_from(fact.at.as_millisecond()).unwrap();
    for (job, order) in orders {
        let put = put(&order);
        assert_eq!(put.slot, code.access_method_id.to_string());
        assert_eq!(put.content, SlotContent::Pin(Private::new("482913")));
        assert!(put.generation > made_at, "what the desk put comes before it");
        assert!(!property.is_issued(&grant));
        property.done(job);
    }
    let issued = property.the_grant(&grant).unwrap();
    let view = issued.methods[0].code.as_ref().unwrap();
    assert!(issued.methods[0].is_issued);
    assert_eq!(view.code.pin, Private::new("482913"));
    assert_eq!(property.told(&grant), ["created", "created", "issued", "access_granted_to_all_doors"]);
    // Twice is once.
    property.adopts(&fact);
    assert_eq!(property.ordered(), []);
    property.desk_revokes(grant.id);
    let removals = property.ordered();
    assert!(removals.iter().all(|(_, order)| matches!(order, Order::SlotRemove { .. })), "{removals:?}");
    assert_eq!(removals.len(), 2);
    removals.into_iter().for_each(|(job, _)| property.done(job));
    assert!(property.the_grant(&grant).is_none());
}

#[test]
fn the_site_is_told_which_codes_a_grant_has_and_not_their_pins() {
    let mut property = Property::new();
    let own = property.grant(&["lock-2"], &[Mode::Code]);
    let fact = made(&property, 7, "482913", &["lock-1"], 24);
    property.adopts(&fact);
    let (grants, gone) = property.told_to_site(2, Position::default());
    assert_eq!((grants.len(), gone.len()), (2, 0));
    let of_desk = grants.iter().find(|told| told.access_grant_id == fact.grant.access_grant_id).unwrap();
    let unsaid = DesiredCode { pin: None, ..fact.grant.codes[0].clone() };
    assert_eq!(of_desk.codes, [unsaid]);
    let of_cloud = grants.iter().find(|told| told.access_grant_id == own.id).unwrap();
    assert_eq!(of_cloud.codes[0].access_method_id, own.methods[0].id);
    // A code that is taken back is none any more.
    let now = property.now;
    property.db.tenant(property.workspace).delete_grant(now, own.id).unwrap().unwrap();
    let (_, gone) = property.told_to_site(3, Position { epoch: 1, n: 2 });
    assert_eq!(gone, [own.id]);
}

#[test]
fn whom_a_lock_refuses_a_pin_that_the_desk_gave_out_gets_another() {
    let mut property = Property::new();
    let own = property.grant(&["lock-1"], &[Mode::Code]);
    let (job, order) = property.ordered().remove(0);
    let SlotContent::Pin(pin) = put(&order).content.clone() else { panic!("{order:?}") };
    // It is on its way, and the desk chooses the same one.
    let fact = made(&property, 7, pin.expose(), &["lock-1", "cellar"], 24);
    let of_desk = property.adopts(&fact);
    let (code, message, _) = &of_desk.errors[0];
    assert_eq!((of_desk.errors.len(), code.as_str()), (1, "made_at_site"));
    assert!(message.contains("no device cellar") && message.contains("promised to another"), "{message}");
    let (again, _) = property.ordered().remove(0);
    property.done(again);
    property.report(job, Outcome::failed(Code::ContentTaken, "taken"));
    property.later(SignedDuration::from_mins(1));
    let (other, order) = property.ordered().remove(0);
    assert_ne!(put(&order).content, SlotContent::Pin(pin.clone()));
    property.done(other);
    assert!(property.is_issued(&own) && property.is_issued(&of_desk));
    let view = property.the_grant(&of_desk).unwrap().methods[0].code.clone().unwrap();
    assert_eq!(view.code.pin, pin, "its guest knows it");
}

#[test]
fn of_a_grant_that_was_over_before_the_cloud_heard_of_it_nothing_stays_in_a_lock() {
    let mut property = Property::new();
    let fact = made(&property, 7, "482913", &["lock-1"], 2);
    property.now += SignedDuration::from_hours(3);
    let grant = property.adopts(&fact);
    let orders = property.ordered();
    let [(job, Order::SlotRemove { .. })] = orders.as_slice() else { panic!("{orders:?}") };
    property.done(*job);
    assert!(!property.is_issued(&grant));
    assert_eq!(property.rows("desired_slot"), 0);
}

#[test]
fn a_grant_of_the_desks_that_leads_nowhere_the_cloud_knows_is_gone_to_its_site() {
    let mut property = Property::new();
    let fact = made(&property, 7, "482913", &["cellar"], 24);
    let grant = property.adopts(&fact);
    assert_eq!((grant.methods.len(), grant.errors.len()), (0, 1));
    let (grants, gone) = property.told_to_site(2, Position::default());
    assert_eq!((grants, gone), (Vec::new(), vec![grant.id]));
    // A site that has it still asks again, and is told again.
    property.adopts(&fact);
    let (_, gone) = property.told_to_site(3, Position { epoch: 1, n: 1 });
    assert_eq!(gone, [grant.id]);
}
