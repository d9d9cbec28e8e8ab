//! What a bridge is told of what is desired of its site.

use std::collections::BTreeSet;

use super::*;
use crate::{
    grants::CardFate,
    model::{
        AccessGrantId, DesiredCard, DesiredCardState, DesiredDoors, DesiredGrant, GrantMade, GrantRevoked,
        LocalCard, UserIdentityId, Window,
    },
    protocol::{DESIRED_AHEAD, Desired},
};

/// A bridge that takes whatever it is told, or nothing.
#[derive(Default)]
struct Site {
    held: Position,
    is_whole: bool,
    grants: BTreeMap<AccessGrantId, (u64, DesiredGrant)>,
}

impl Site {
    fn take(&mut self, frame: Desired) {
        let Desired { up_to, grants, gone, complete } = frame;
        assert!(self.held <= up_to, "{:?} then {up_to:?}", self.held);
        for grant in gone {
            self.grants.remove(&grant);
        }
        for grant in grants {
            self.grants.insert(grant.access_grant_id, (up_to.epoch, grant));
        }
        if complete {
            self.grants.retain(|_, (epoch, _)| *epoch == up_to.epoch);
        }
        (self.held, self.is_whole) = (up_to, complete);
    }

    fn cards(&self) -> Vec<DesiredCardState> {
        let grants = self.grants.values().flat_map(|(_, grant)| &grant.cards);
        grants.map(|card| card.state).collect()
    }
}

impl Property {
    /// The next frame for a connection.
    fn desired(&mut self, connection: u64) -> Option<Desired> {
        loop {
            let turn = self.db.desired_to_send(self.bridge, connection).unwrap();
            if turn.frame.is_some() || !turn.more {
                return turn.frame;
            }
        }
    }

    fn bridge_holds(&mut self, connection: u64, position: Position) -> bool {
        self.db.desired_acknowledged(self.bridge, connection, position).unwrap()
    }

    /// Tells a site all that it lacks; gives how many frames that took.
    fn tell_site(&mut self, site: &mut Site, connection: u64) -> usize {
        let mut frames = 0;
        while let Some(frame) = self.desired(connection) {
            site.take(frame);
            assert!(self.bridge_holds(connection, site.held));
            frames += 1;
        }
        assert!(site.is_whole);
        frames
    }

    /// The bridge connects anew, and says what it holds.
    fn connects(&mut self, site: &Site, connection: u64) {
        meet(&mut self.db, self.now, self.bridge, connection);
        assert!(self.bridge_holds(connection, site.held));
    }

    fn epoch(&self) -> u64 {
        let sql = "SELECT desired_epoch AS epoch FROM bridge";
        self.db.one(sql, [], |row| row.get::<_, i64>("epoch")).unwrap().unwrap().cast_unsigned()
    }

    fn desired_rows(&self) -> i64 {
        self.db.one("SELECT count(*) AS rows FROM desired", [], |row| row.get("rows")).unwrap().unwrap()
    }
}

fn at(epoch: u64, n: u64) -> Position {
    Position { epoch, n }
}

#[test]
fn a_site_is_told_each_grant_with_its_doors_its_guest_and_where_its_card_stands() {
    let mut property = Property::new();
    let mut site = Site::default();
    let grant = property.grant("stay-1", &["lobby", "101"], 24);
    assert_eq!(property.desired(1), None, "nothing before the bridge has said what it holds");
    property.connects(&site, 2);
    assert_eq!(property.tell_site(&mut site, 2), 1);
    let (_, told) = &site.grants[&grant.id];
    let doors: Vec<_> = told.doors[0].doors.iter().map(DoorName::as_str).collect();
    assert_eq!((doors, told.window), (vec!["101", "lobby"], grant.window));
    assert_eq!(told.guest_name.as_ref().unwrap().expose(), "Jane Quicksilver");
    assert_eq!(told.reservation_key, grant.reservation_key);
    assert_eq!(told.cards[0].access_method_id, grant.methods[0].id);

    let required = [DesiredCardState::EncodingRequired];
    assert_eq!(site.cards(), required);
    let (_, job) = property.encode(grant.methods[0].id);
    property.tell_site(&mut site, 2);
    assert_eq!(site.cards(), [DesiredCardState::BeingEncoded]);
    property.report(job, Outcome::unknown(Code::NoAnswer, "silence"));
    property.tell_site(&mut site, 2);
    assert_eq!(site.cards(), [DesiredCardState::InDoubt]);
    property.resolve(job, Verdict::Done);
    property.tell_site(&mut site, 2);
    assert_eq!(site.cards(), [DesiredCardState::Issued]);
    let (now, longer) = (property.now, property.now + HOUR * 48);
    let change = GrantChange { ends_at: Some(Some(longer)), ..GrantChange::default() };
    property.tenant().update_grant(now, &GrantName::Id(grant.id), &change).unwrap().unwrap();
    property.tell_site(&mut site, 2);
    assert_eq!(site.cards(), required);
    assert_eq!(site.grants[&grant.id].1.window.ends_at(), Some(longer));

    let bridge = property.bridge;
    property.db.apply_inventory(now, bridge, &inventory(&["102", "103"])).unwrap();
    property.tell_site(&mut site, 2);
    assert_eq!(site.cards(), [DesiredCardState::NotReady]);
    assert!(site.grants[&grant.id].1.cards[0].why.as_ref().unwrap().contains("101"));
}

#[test]
fn a_grant_that_is_deleted_is_gone_from_the_site_and_its_row_with_the_acknowledgement() {
    let mut property = Property::new();
    let mut site = Site::default();
    let grants: Vec<_> = (1..=3).map(|n| property.grant(&format!("stay-{n}"), &["101"], 24)).collect();
    property.connects(&site, 2);
    property.tell_site(&mut site, 2);
    assert_eq!((site.grants.len(), property.desired_rows()), (3, 3));
    property.delete(&grants[1]);
    let frame = property.desired(2).unwrap();
    assert_eq!((frame.gone.as_slice(), frame.grants.len()), (&[grants[1].id][..], 0));
    assert_eq!(property.desired_rows(), 3, "the bridge may never have heard it");
    site.take(frame);
    assert!(property.bridge_holds(2, site.held));
    assert_eq!((site.grants.len(), property.desired_rows()), (2, 2));
}

#[test]
fn what_changed_often_while_the_bridge_was_away_is_told_once_and_what_it_holds_is_not() {
    let mut property = Property::new();
    let mut site = Site::default();
    let changed = property.grant("stay-1", &["101"], 24);
    let kept = property.grant("stay-2", &["102"], 24);
    property.connects(&site, 2);
    property.tell_site(&mut site, 2);
    let deleted = property.grant("stay-3", &["103"], 24);
    property.delete(&deleted);
    let now = property.now;
    for hours in 1..=100 {
        let ends_at = Some(Some(now + HOUR * (24 + hours)));
        let change = GrantChange { ends_at, ..GrantChange::default() };
        property.tenant().update_grant(now, &GrantName::Id(changed.id), &change).unwrap().unwrap();
        property.later(SignedDuration::ZERO);
    }
    property.connects(&site, 3);
    let frame = property.desired(3).unwrap();
    let told: Vec<_> = frame.grants.iter().map(|grant| grant.access_grant_id).collect();
    assert_eq!((told, frame.complete), (vec![changed.id], true));
    site.take(frame);
    assert_eq!(site.grants.keys().copied().collect::<BTreeSet<_>>(), [changed.id, kept.id].into());
    assert_eq!(site.held.epoch, 1);
}

#[test]
fn no_more_is_under_way_than_the_language_allows_and_a_cut_loses_nothing() {
    let mut property = Property::new();
    for n in 0..150 {
        property.grant(&format!("stay-{n}"), &["101"], 24);
    }
    let mut site = Site::default();
    property.connects(&site, 2);
    let mut sent = 0;
    while let Some(frame) = property.desired(2) {
        sent += frame.grants.len() as u64;
        assert!(frame.grants.len() <= 16 && !frame.complete);
        if sent == 16 {
            // Only the first of them becomes durable before the cut.
            site.take(frame);
        }
    }
    assert_eq!(sent, DESIRED_AHEAD);
    property.connects(&site, 3);
    property.tell_site(&mut site, 3);
    assert_eq!(site.grants.len(), 150);
    assert_eq!(site.held, at(1, 150));
}

#[test]
fn a_change_while_all_is_told_is_told_behind_it() {
    let mut property = Property::new();
    let grants: Vec<_> = (0..40).map(|n| property.grant(&format!("stay-{n}"), &["101"], 24)).collect();
    let mut site = Site::default();
    property.connects(&site, 2);
    site.take(property.desired(2).unwrap());
    property.bridge_holds(2, site.held);
    let first = site.grants.keys().next().copied().unwrap();
    let first = grants.iter().find(|grant| grant.id == first).unwrap();
    property.delete(first);
    property.tell_site(&mut site, 2);
    assert_eq!(site.grants.len(), 39);
    assert!(!site.grants.contains_key(&first.id));
}

#[test]
fn a_bridge_that_lost_its_memory_is_told_everything_in_a_new_epoch() {
    let mut property = Property::new();
    let kept = property.grant("stay-1", &["101"], 24);
    let gone = property.grant("stay-2", &["102"], 24);
    let mut site = Site::default();
    property.connects(&site, 2);
    property.tell_site(&mut site, 2);
    property.delete(&gone);
    property.tell_site(&mut site, 2);
    for held in [at(1, 1), Position::LOST, Position::default()] {
        let before = property.epoch();
        // Whatever was restored has the grant that is gone.
        site.grants.insert(gone.id, (site.held.epoch, site.grants[&kept.id].1.clone()));
        site.held = held;
        let connection = 10 + before;
        property.connects(&site, connection);
        property.tell_site(&mut site, connection);
        assert_eq!(property.epoch(), before + 1);
        assert_eq!(site.grants.keys().copied().collect::<Vec<_>>(), [kept.id]);
    }
}

#[test]
fn a_cloud_that_was_set_back_tells_everything_in_an_epoch_above_both() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let mut site = Site::default();
    property.connects(&site, 2);
    property.tell_site(&mut site, 2);
    site.held = at(7, 3);
    property.db.restored().unwrap();
    property.connects(&site, 3);
    property.tell_site(&mut site, 3);
    assert_eq!((property.epoch(), site.held), (8, at(8, 1)));
    assert!(site.grants.contains_key(&grant.id));
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged_and_a_fenced_connection_changes_nothing() {
    let mut property = Property::new();
    property.grant("stay-1", &["101"], 24);
    let mut site = Site::default();
    property.connects(&site, 2);
    property.tell_site(&mut site, 2);
    assert!(!property.bridge_holds(2, at(1, 2)));
    property.connects(&site, 3);
    assert!(property.bridge_holds(2, at(1, 2)));
    assert_eq!(property.desired(2), None);
    assert!(property.desired(3).is_some_and(|frame| frame.complete && frame.up_to == at(1, 1)));
    assert_eq!(property.desired(3), None);
}

#[test]
fn whoever_is_erased_is_nobody_to_the_site_and_a_new_name_is_told() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let mut site = Site::default();
    property.connects(&site, 2);
    property.tell_site(&mut site, 2);
    let person: UserIdentityId = grant.user_identity;
    let rename = PersonChange { full_name: Some(Some("Jane Doe".into())), ..PersonChange::default() };
    property.tenant().change_identity(person, rename).unwrap().unwrap();
    property.tell_site(&mut site, 2);
    assert_eq!(site.grants[&grant.id].1.guest_name.as_ref().unwrap().expose(), "Jane Doe");
    let erase = "UPDATE user_identity SET person = x'', erased_at = 1 WHERE user_identity_id = ?1";
    property.db.execute(erase, [person.to_string()]).unwrap();
    property.tell_site(&mut site, 2);
    assert_eq!(site.grants[&grant.id].1.guest_name, None);
}

/// A desk had this card written, or tried to.
fn of_desk(property: &Property, number: u128, method: AccessMethodId, outcome: Outcome) -> Report {
    let mut report = local(property, number, None, outcome);
    let window = Window::new(property.now, Some(property.now + HOUR * 24)).unwrap();
    let doors = ["101", "lobby"].map(|door| DoorName::new(door).unwrap()).into();
    report.local.as_mut().unwrap().card = Some(LocalCard { access_method_id: method, doors, window });
    report
}

#[test]
fn a_card_that_a_desk_wrote_issues_its_method_once_as_one_from_here_does() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101", "lobby"], 24).methods[0].id;
    let before = property.told().len();
    let report = of_desk(&property, 7, method, written());
    for _ in 0..2 {
        property.db.apply_report(property.now, property.bridge, &report).unwrap();
    }
    let shown = property.method(method).unwrap();
    assert!(shown.is_issued && shown.issued_at.is_some());
    assert_eq!(shown.card, CardFate::MayExist { opens_until: Some(property.now + HOUR * 24) });
    assert_eq!(
        property.told()[before..],
        [
            "acs_credential.issued",
            "access_method.issued",
            "access_grant.access_granted_to_door",
            "access_grant.access_granted_to_door",
            "access_grant.access_granted_to_all_doors",
            "latchd.local_job.ended",
        ]
    );
    let (now, encoder) = (property.now, property.encoder(0));
    let refused = property.tenant().encode(now, method, encoder).unwrap().unwrap_err();
    assert_eq!(refused.name(), "access_method_not_ready_for_encoding");
}

/// Nobody else would ever settle what a bridge has forgotten.
#[test]
fn a_card_that_a_desk_wrote_makes_an_older_doubt_good_and_one_that_it_did_not_write_leaves_it() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101", "lobby"], 24).methods[0].id;
    let (_, job) = property.encode(method);
    let (now, bridge) = (property.now, property.bridge);
    property.db.orders_lost(now, bridge, &[job]).unwrap();
    for (number, outcome) in [(7, Outcome::failed(Code::NoCard, "nobody laid a card down")), (8, written())] {
        assert!(property.method(method).unwrap().in_doubt);
        let report = of_desk(&property, number, method, outcome);
        property.db.apply_report(now, bridge, &report).unwrap();
    }
    let shown = property.method(method).unwrap();
    assert!(shown.is_issued && !shown.in_doubt);
    // Nor does it come back with what settles another one, when all else is forgotten.
    property.db.execute("DELETE FROM job_end", []).unwrap();
    let mut report = of_desk(&property, 9, method, Outcome::unknown(Code::NoAnswer, "silence"));
    property.db.apply_report(now, bridge, &report).unwrap();
    assert!(property.method(method).unwrap().in_doubt);
    report.revision = 2;
    report.resolution = Some(Resolution { verdict: Verdict::NotDone, by: "the desk".into() });
    property.db.apply_report(now, bridge, &report).unwrap();
    assert!(!property.method(method).unwrap().in_doubt);
}

#[test]
fn a_doubt_about_a_desks_card_is_its_methods_and_what_settles_it_is_told() {
    for (verdict, issued) in [(Verdict::Done, true), (Verdict::NotDone, false)] {
        let mut property = Property::new();
        let method = property.grant("stay-1", &["101", "lobby"], 24).methods[0].id;
        let mut report = of_desk(&property, 7, method, Outcome::unknown(Code::NoAnswer, "silence"));
        property.db.apply_report(property.now, property.bridge, &report).unwrap();
        assert!(property.method(method).unwrap().in_doubt);
        report.revision = 2;
        report.resolution = Some(Resolution { verdict, by: "the desk".into() });
        for _ in 0..2 {
            property.db.apply_report(property.now, property.bridge, &report).unwrap();
        }
        let shown = property.method(method).unwrap();
        assert_eq!((shown.is_issued, shown.in_doubt), (issued, false));
        let events = local_events(&mut property);
        assert_eq!(events.len(), 2, "{events:?}");
    }
}

#[test]
fn a_desks_card_of_a_method_that_is_not_there_or_of_another_site_moves_nothing() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101"], 24).methods[0].id;
    let mut other = of_desk(&property, 7, method, written());
    other.local.as_mut().unwrap().system = SystemName::new("annex").unwrap();
    let nobody = of_desk(&property, 8, AccessMethodId(uuid::Uuid::nil()), written());
    for report in [other, nobody] {
        property.db.apply_report(property.now, property.bridge, &report).unwrap();
    }
    assert!(!property.method(method).unwrap().is_issued);
}

#[test]
fn a_desks_card_of_a_grant_that_was_deleted_meanwhile_is_shown_for_as_long_as_it_opens() {
    for outcome in [written(), Outcome::unknown(Code::NoAnswer, "silence")] {
        let mut property = Property::new();
        let other = property.grant("stay-1", &["101", "lobby"], 24);
        let grant = property.grant("stay-1", &["101", "lobby"], 24);
        property.delete(&grant);
        assert!(!property.still_there(&grant));
        let mut report = of_desk(&property, 7, grant.methods[0].id, outcome);
        report.rooms = vec![RoomState {
            system: SystemName::new("salto").unwrap(),
            room: DoorName::new("101").unwrap(),
            reservation_key: ReservationKey::new("stay-1").ok(),
            certain: true,
            since: property.now,
            cards: 1,
            printed_ends: Vec::new(),
        }];
        for _ in 0..2 {
            property.db.apply_report(property.now, property.bridge, &report).unwrap();
        }
        let opens = CardFate::MayExist { opens_until: Some(property.now + HOUR * 24) };
        let shown = property.tenant().grant(&GrantName::Id(grant.id)).unwrap().unwrap();
        assert!(shown.deleted_at.is_some());
        assert_eq!(shown.user_identity, grant.user_identity);
        assert!(shown.methods[0].deleted.is_some());
        assert_eq!(shown.methods[0].card, opens);
        // Whoever looks after the stay sees it as well.
        let stay = property.tenant().grant(&GrantName::Id(other.id)).unwrap().unwrap();
        assert_eq!(stay.deleted_cards.len(), 1);
        assert_eq!((stay.deleted_cards[0].card, stay.deleted_cards[0].doors.len()), (opens, 2));
        property.later(SignedDuration::from_hours(25));
        assert!(!property.still_there(&grant));
    }
}

#[test]
fn a_desks_card_that_was_taken_back_by_name_meanwhile_is_shown_on_its_grant() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101", "lobby"], 24);
    let (now, method) = (property.now, grant.methods[0].id);
    property.tenant().delete_method(now, method).unwrap().unwrap();
    let tried = of_desk(&property, 6, method, Outcome::failed(Code::NoCard, "nobody laid a card down"));
    property.db.apply_report(property.now, property.bridge, &tried).unwrap();
    assert!(property.method(method).is_none());
    let report = of_desk(&property, 7, method, written());
    property.db.apply_report(property.now, property.bridge, &report).unwrap();
    let shown = property.method(method).unwrap();
    assert!(shown.deleted.is_some() && shown.card.may_open(now));
    assert_eq!(property.tenant().grant(&GrantName::Id(grant.id)).unwrap().unwrap().deleted_at, None);
}

#[test]
fn what_says_which_doors_a_desks_card_opens_goes_when_it_opens_none() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101", "lobby"], 24).methods[0].id;
    let report = of_desk(&property, 7, method, written());
    property.db.apply_report(property.now, property.bridge, &report).unwrap();
    let later = property.now + HOUR * 24 * 91;
    for (opens_until, in_doubt, rows) in [
        (None, false, 1),
        (Some(ms(later) + 1), false, 1),
        (Some(ms(later)), true, 1),
        (Some(ms(later)), false, 0),
    ] {
        let sql = "UPDATE card_state SET opens_until = ?1, in_doubt = ?2";
        property.db.execute(sql, rusqlite::params![opens_until, in_doubt]).unwrap();
        property.db.forget(later).unwrap();
        for table in ["local_job", "ordered_card"] {
            let count = format!("SELECT count(*) FROM {table}");
            let left: i64 = property.db.one(&count, [], |row| row.get(0)).unwrap().unwrap();
            assert_eq!(left, rows, "{table} {opens_until:?}");
        }
    }
}

#[test]
fn a_card_that_was_ordered_here_as_well_and_not_made_ends_its_attempt_and_is_issued_by_the_desks() {
    let mut property = Property::new();
    let method = property.grant("stay-1", &["101", "lobby"], 24).methods[0].id;
    let (attempt, job) = property.encode(method);
    let report = of_desk(&property, 7, method, written());
    property.db.apply_report(property.now, property.bridge, &report).unwrap();
    assert!(property.method(method).unwrap().is_issued);
    assert_eq!(property.attempt(attempt), "pending");
    property.report(job, Outcome::Superseded);
    assert_eq!(property.attempt(attempt), "uncategorized_error");
    assert!(property.method(method).unwrap().is_issued);
}

/// What a desk made: a card for these doors.
fn made(
    property: &Property,
    number: u128,
    stay: &str,
    doors: &[&str],
    hours: std::ops::Range<i64>,
) -> GrantMade {
    let salto = SystemName::new("salto").unwrap();
    let (from, to) = (property.now + HOUR * hours.start as i32, property.now + HOUR * hours.end as i32);
    let doors = doors.iter().map(|door| DoorName::new(*door).unwrap()).collect();
    let grant = DesiredGrant {
        access_grant_id: AccessGrantId(uuid::Uuid::from_u128(number)),
        access_grant_key: Some(format!("desk-{number}")),
        reservation_key: ReservationKey::new(stay).ok(),
        guest_name: Some(crate::model::Private::new("Jane Quicksilver")),
        window: Window::new(from, Some(to)).unwrap(),
        doors: vec![DesiredDoors { system: salto.clone(), doors }],
        cards: vec![DesiredCard {
            access_method_id: AccessMethodId(uuid::Uuid::from_u128(number + 1_000)),
            system: salto,
            state: DesiredCardState::EncodingRequired,
            why: None,
        }],
        codes: Vec::new(),
    };
    GrantMade { at: property.now, by: "Kari".into(), grant }
}

impl Property {
    fn adopts(&mut self, made: &GrantMade) -> Grant {
        let (now, bridge) = (self.now, self.bridge);
        self.db.adopt_made(now, bridge, made).unwrap();
        self.tenant().grant(&GrantName::Id(made.grant.access_grant_id)).unwrap().unwrap()
    }
}

#[test]
fn a_grant_that_a_desk_made_is_taken_over_once_with_its_ids_and_told_as_one_from_here() {
    let mut property = Property::new();
    let fact = made(&property, 7, "stay-1", &["101", "lobby"], 0..24);
    let before = property.told().len();
    for _ in 0..2 {
        let grant = property.adopts(&fact);
        assert_eq!((grant.window, grant.key.as_deref()), (fact.grant.window, Some("desk-7")));
        assert_eq!(grant.methods[0].id, fact.grant.cards[0].access_method_id);
        assert_eq!(grant.errors, []);
        let person = property.tenant().identity(grant.user_identity).unwrap().unwrap().person;
        assert_eq!(person.full_name.as_deref(), Some("Jane Quicksilver"));
    }
    assert_eq!(
        property.told()[before..],
        ["access_grant.created", "access_method.created", "access_method.card_encoding_required"]
    );
    // The site is told the same picture, and a further grant joins the stay.
    let mut site = Site::default();
    property.connects(&site, 2);
    property.tell_site(&mut site, 2);
    assert_eq!(site.grants[&fact.grant.access_grant_id].1, fact.grant);
    property.grant("stay-1", &["101"], 24);
    let report = of_desk(&property, 9, fact.grant.cards[0].access_method_id, written());
    property.db.apply_report(property.now, property.bridge, &report).unwrap();
    assert!(property.method(fact.grant.cards[0].access_method_id).unwrap().is_issued);
}

#[test]
fn a_grant_of_the_desks_that_is_deleted_at_once_is_gone_to_its_site_too() {
    let mut property = Property::new();
    let mut site = Site::default();
    property.connects(&site, 2);
    property.tell_site(&mut site, 2);
    let fact = made(&property, 7, "stay-1", &["101"], 0..24);
    let grant = property.adopts(&fact);
    property.delete(&grant);
    let told = property.desired(2).expect("it is told");
    assert_eq!(told.gone, [grant.id]);
}

#[test]
fn what_a_desk_made_and_does_not_fit_is_taken_over_and_says_so() {
    for (stay, doors, hours, words) in [
        ("stay-1", &["102"][..], 0..24, "entrance change"),
        ("stay-1", &["101", "102"], 0..24, "entrance set conflict"),
        ("stay-1", &["101"], 24..48, "must overlap"),
        ("stay-2", &["101", "cellar"], 0..24, "no door cellar"),
    ] {
        let mut property = Property::new();
        property.grant("stay-1", &["101"], 24);
        let fact = made(&property, 7, stay, doors, hours);
        let grant = property.adopts(&fact);
        let (code, message, _) = &grant.errors[0];
        assert_eq!(code, "made_at_site");
        assert!(message.contains(words) && message.contains("could not reach this cloud"), "{message}");
        assert_eq!(grant.methods.len(), 1);
        let told = property.told();
        let kind = "access_grant.could_not_create_requested_access_methods";
        assert_eq!(told.iter().filter(|told| *told == kind).count(), 1, "{told:?}");
    }
}

#[test]
fn a_key_that_is_taken_stays_with_whom_it_belongs_to() {
    let mut property = Property::new();
    let first = made(&property, 7, "stay-1", &["101"], 0..24);
    property.adopts(&first);
    let mut second = made(&property, 8, "stay-2", &["102"], 0..24);
    second.grant.access_grant_key = Some("desk-7".into());
    let grant = property.adopts(&second);
    assert_eq!((grant.key, grant.errors.len()), (None, 1));
}

#[test]
fn a_grant_that_a_desk_took_back_is_gone_and_one_of_another_site_is_not() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let (now, bridge) = (property.now, property.bridge);
    let revoked = GrantRevoked { at: now, by: "Kari".into(), access_grant_id: grant.id };
    let other = BridgeId(uuid::Uuid::from_u128(99));
    property.db.adopt_revoked(now, other, &revoked).unwrap();
    assert!(property.still_there(&grant));
    for _ in 0..2 {
        property.db.adopt_revoked(now, bridge, &revoked).unwrap();
        assert!(!property.still_there(&grant));
    }
    assert_eq!(property.told().iter().filter(|kind| *kind == "access_grant.deleted").count(), 1);
    // What was taken back is not made again by a fact that comes late.
    let fact = made(&property, 7, "stay-2", &["102"], 0..24);
    property.adopts(&fact);
    let access_grant_id = fact.grant.access_grant_id;
    property.db.adopt_revoked(now, bridge, &GrantRevoked { access_grant_id, ..revoked }).unwrap();
    property.db.adopt_made(now, bridge, &fact).unwrap();
    assert!(property.tenant().grant(&GrantName::Id(access_grant_id)).unwrap().is_none());
    // And the site hears that it is gone, whatever it holds.
    let mut site = Site::default();
    site.grants.insert(access_grant_id, (1, fact.grant));
    property.connects(&site, 2);
    let frame = property.desired(2).unwrap();
    assert!(frame.gone.contains(&access_grant_id), "{frame:?}");
}

#[test]
fn a_desk_cannot_take_the_card_of_another_grant() {
    let mut property = Property::new();
    let grant = property.grant("stay-1", &["101"], 24);
    let mut fact = made(&property, 7, "stay-2", &["102"], 0..24);
    fact.grant.cards[0].access_method_id = grant.methods[0].id;
    let adopted = property.adopts(&fact);
    assert_eq!((adopted.methods.len(), adopted.errors.len()), (0, 1));
    assert_eq!(property.method(grant.methods[0].id).unwrap().grant, grant.id);
}
