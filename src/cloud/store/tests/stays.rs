//! What a stay's lock system is told of it, and what becomes of its other cards.

use super::*;

impl Property {
    /// Another configuration of the site's one system.
    fn configured(change: impl FnOnce(&mut SystemInventory)) -> Self {
        let mut property = Self::new();
        let mut inventory = inventory(&["101", "102", "103"]);
        change(&mut inventory.systems[0]);
        property.db.apply_inventory(property.now, property.bridge, &inventory).unwrap();
        property
    }

    /// Orders the card of a method, and has it written by a system whose ledger then says that `room` follows the stay.
    fn write(&mut self, method: AccessMethodId, stay: &str, room: &str, overrode: bool) {
        let (_, job) = self.encode(method);
        self.written_in(job, stay, room, overrode);
    }

    fn written_in(&mut self, job: JobId, stay: &str, room: &str, overrode: bool) {
        let card = CardFacts { overrode: Some(overrode), ..CardFacts::default() };
        let outcome = Success { written: Some(Written::Proven), card: Some(card), ..Success::default() };
        let mut report = report(self.now, job, Outcome::Succeeded(outcome));
        report.rooms = vec![self.holds(stay, room)];
        self.db.apply_report(self.now, self.bridge, &report).unwrap();
    }

    fn holds(&self, stay: &str, room: &str) -> RoomState {
        RoomState {
            system: SystemName::new("salto").unwrap(),
            room: DoorName::new(room).unwrap(),
            reservation_key: Some(ReservationKey::new(stay).unwrap()),
            certain: true,
            since: self.now,
            cards: 1,
            printed_ends: Vec::new(),
        }
    }

    fn ends_in(&mut self, grant: &Grant, hours: i64) {
        let ends_at = Some(Some(self.now + HOUR * i32::try_from(hours).unwrap()));
        let (now, change) = (self.now, GrantChange { ends_at, ..GrantChange::default() });
        self.tenant().update_grant(now, &GrantName::Id(grant.id), &change).unwrap().unwrap();
    }

    /// The ends that lock systems are to be told: room, in how many hours, and how that ended.
    fn stay_ends(&self) -> Vec<(String, i64, Option<String>)> {
        let sql =
            "SELECT e.name, x.ends_at, x.state FROM stay_end x JOIN acs_entrance e USING(acs_entrance_id)";
        let all = self.db.all(sql, [], |row| {
            let ends_at = rows::time(row, "ends_at")?;
            Ok((row.get("name")?, ends_at.duration_since(self.now).as_hours(), row.get("state")?))
        });
        all.unwrap()
    }

    fn stay_end_job(&self) -> JobId {
        self.db.one("SELECT job_id FROM stay_end", [], |row| rows::id(row, "job_id")).unwrap().unwrap()
    }

    fn look(&mut self, grant: &Grant) -> Grant {
        self.tenant().grant(&GrantName::Id(grant.id)).unwrap().unwrap()
    }

    /// Whether the card that was ordered last was to begin its stay anew.
    fn begins_again(&self) -> bool {
        let sql = "SELECT begin_again FROM ordered_card ORDER BY rowid DESC LIMIT 1";
        self.db.one(sql, [], |row| row.get("begin_again")).unwrap().unwrap()
    }
}

fn told_ends(system: &mut SystemInventory) {
    system.capabilities.modify_stay = Some(ProofLevel::Vector);
}

fn overriding(system: &mut SystemInventory) {
    system.override_after_deleted_card = true;
}

#[test]
fn a_moved_end_is_told_to_the_lock_system_that_holds_the_stay_and_to_no_other() {
    let mut property = Property::configured(told_ends);
    let jane = property.grant("stay-1", &["101", "lobby"], 24);
    property.ends_in(&jane, 30);
    assert_eq!(property.stay_ends(), [], "no card is out: the room has not heard of the stay");
    property.write(jane.methods[0].id, "stay-1", "101", true);
    property.ends_in(&jane, 48);
    assert_eq!(property.stay_ends(), [("101".into(), 48, None)]);
    // The stay goes on as long as its last grant does.
    let john = property.grant("stay-1", &["101"], 40);
    property.ends_in(&john, 36);
    assert_eq!(property.stay_ends(), [("101".into(), 48, None)]);
    property.ends_in(&jane, 30);
    assert_eq!(property.stay_ends(), [("101".into(), 36, None)]);
    let job = property.stay_end_job();
    property.report(job, Outcome::Succeeded(Success::default()));
    assert_eq!(property.stay_ends(), [("101".into(), 36, Some("succeeded".into()))]);
    property.ends_in(&jane, 31);
    assert_eq!(property.stay_end_job(), job, "nothing new to tell");
    for (days, is_kept) in [(90, true), (93, false)] {
        property.db.forget(property.now + HOUR * 24 * days).unwrap();
        assert_eq!(property.stay_ends().is_empty(), !is_kept);
    }

    let mut property = Property::new();
    let jane = property.grant("stay-1", &["101"], 24);
    property.write(jane.methods[0].id, "stay-1", "101", true);
    property.ends_in(&jane, 48);
    assert_eq!(property.stay_ends(), [], "a system that takes no such word");
}

#[test]
fn a_stay_that_is_shorter_without_one_of_its_grants_is_told_so_and_not_to_a_room_that_it_left() {
    let mut property = Property::configured(told_ends);
    let jane = property.grant("stay-1", &["101"], 24);
    let john = property.grant("stay-1", &["101"], 48);
    property.write(jane.methods[0].id, "stay-1", "101", true);
    property.ends_in(&john, 60);
    assert_eq!(property.stay_ends(), [("101".into(), 60, None)]);
    property.delete(&john);
    assert_eq!(property.stay_ends(), [("101".into(), 24, None)]);
    // The ledger is all that still says 101.
    let now = property.now;
    let move_to = GrantChange { entrances: Some(vec![property.door("102")]), ..GrantChange::default() };
    property.tenant().update_grant(now, &GrantName::Id(jane.id), &move_to).unwrap().unwrap();
    property.ends_in(&jane, 30);
    assert_eq!(property.stay_ends(), [("101".into(), 24, None)]);
}

#[test]
fn a_stay_that_goes_on_with_another_grant_when_its_last_one_is_gone_is_told_its_end() {
    let mut property = Property::configured(told_ends);
    let jane = property.grant("stay-1", &["101"], 24);
    property.write(jane.methods[0].id, "stay-1", "101", true);
    property.ends_in(&jane, 48);
    let job = property.stay_end_job();
    property.report(job, Outcome::Succeeded(Success::default()));
    property.delete(&jane);
    property.grant("stay-1", &["101"], 36);
    assert_eq!(property.stay_ends(), [("101".into(), 36, None)], "the lock system takes it to be 48");
}

#[test]
fn a_stay_whose_last_grant_is_replaced_while_its_end_is_taken_back_is_told_it_anew() {
    for is_done in [false, true] {
        let mut property = Property::configured(told_ends);
        let jane = property.grant("stay-1", &["101"], 24);
        property.write(jane.methods[0].id, "stay-1", "101", true);
        property.ends_in(&jane, 48);
        let taken_back = property.stay_end_job();
        property.hand(taken_back);
        property.delete(&jane);
        let john = property.grant("stay-1", &["101"], 48);
        let anew = property.stay_end_job();
        assert_ne!(anew, taken_back);
        assert_eq!(property.stay_ends(), [("101".into(), 48, None)]);
        let end = if is_done { Outcome::Succeeded(Success::default()) } else { Outcome::Cancelled };
        property.report(taken_back, end);
        assert_eq!(property.stay_ends(), [("101".into(), 48, None)], "that was the end of the former one");
        property.report(anew, Outcome::Succeeded(Success::default()));
        assert_eq!(property.stay_ends(), [("101".into(), 48, Some("succeeded".into()))]);
        assert!(property.look(&john).stay_end_troubles.is_empty());
    }
}

#[test]
fn what_a_lock_system_was_told_before_an_end_that_never_left_is_not_forgotten() {
    for is_handed in [false, true] {
        let mut property = Property::configured(told_ends);
        let jane = property.grant("stay-1", &["101"], 24);
        property.write(jane.methods[0].id, "stay-1", "101", true);
        property.ends_in(&jane, 48);
        let job = property.stay_end_job();
        property.report(job, Outcome::Succeeded(Success::default()));
        property.ends_in(&jane, 60);
        let job = property.stay_end_job();
        if is_handed {
            property.hand(job);
            property.report(job, Outcome::failed(Code::RoomBlocked, "out of service"));
        }
        property.delete(&jane);
        property.grant("stay-1", &["101"], 36);
        assert_eq!(property.stay_ends(), [("101".into(), 36, None)], "the lock system takes it to be 48");
    }
}

#[test]
fn a_stay_whose_end_moved_while_its_room_was_in_doubt_is_told_it_once_that_is_settled() {
    for is_still_its_own in [true, false] {
        let mut property = Property::configured(told_ends);
        let jane = property.grant("stay-1", &["101"], 24);
        property.write(jane.methods[0].id, "stay-1", "101", true);
        property.ends_in(&jane, 48);
        let job = property.stay_end_job();
        property.report(job, Outcome::Succeeded(Success::default()));
        // Another stay's card may have been written for the room.
        let kai = property.grant("stay-2", &["101"], 60);
        let (_, card) = property.encode(kai.methods[0].id);
        let mut doubt = report(property.now, card, Outcome::unknown(Code::NoAnswer, "silence"));
        doubt.rooms = vec![RoomState { certain: false, ..property.holds("stay-1", "101") }];
        property.db.apply_report(property.now, property.bridge, &doubt).unwrap();
        property.ends_in(&jane, 36);
        assert_eq!(property.stay_ends(), [("101".into(), 48, Some("succeeded".into()))]);
        let mut settled = report(property.now, card, Outcome::failed(Code::NoCard, "it is blank"));
        settled.revision = 2;
        settled.rooms = vec![property.holds(if is_still_its_own { "stay-1" } else { "stay-2" }, "101")];
        property.db.apply_report(property.now, property.bridge, &settled).unwrap();
        let told = match is_still_its_own {
            true => ("101".into(), 36, None),
            false => ("101".into(), 48, Some("succeeded".into())),
        };
        assert_eq!(property.stay_ends(), [told]);
    }
}

#[test]
fn a_deleted_card_opens_what_was_written_on_it_and_not_what_was_ordered_in_vain() {
    let mut property = Property::new();
    let [jane, john] = ["stay-1"; 2].map(|stay| property.grant(stay, &["101", "lobby"], 24));
    property.write(jane.methods[0].id, "stay-1", "101", true);
    let (now, change) =
        (property.now, GrantChange { entrances: Some(vec![property.door("101")]), ..GrantChange::default() });
    property.tenant().update_grant(now, &GrantName::Id(jane.id), &change).unwrap().unwrap();
    let (_, job) = property.encode(jane.methods[0].id);
    property.report(job, Outcome::failed(Code::NoCard, "nobody laid a card down"));
    property.delete(&jane);
    let [lost] = &property.look(&john).deleted_cards[..] else { panic!("one card") };
    assert_eq!(lost.doors, ["101", "lobby"]);
}

#[test]
fn a_lock_system_that_was_not_told_is_shown_and_asked_again_with_the_next_change() {
    for (outcome, refused) in [
        (Outcome::failed(Code::NoStayToJoin, "checked out"), Some("no_stay_to_join")),
        (Outcome::unknown(Code::NoAnswer, "silence"), None),
        (Outcome::Expired(crate::model::Refusal::new(Code::Expired, "late")), Some("expired")),
    ] {
        let mut property = Property::configured(told_ends);
        let jane = property.grant("stay-1", &["101"], 24);
        property.write(jane.methods[0].id, "stay-1", "101", true);
        property.ends_in(&jane, 48);
        assert!(property.look(&jane).stay_end_troubles.is_empty());
        let job = property.stay_end_job();
        property.report(job, outcome);
        let shown = property.look(&jane).stay_end_troubles;
        assert_eq!((shown.len(), shown[0].room.as_str()), (1, "101"));
        assert_eq!(shown[0].refused.as_deref(), refused);
        property.ends_in(&jane, 49);
        assert_ne!(property.stay_end_job(), job);
        assert!(property.look(&jane).stay_end_troubles.is_empty());
        // Of a stay that is gone, nothing is told any more; that something may have been told is not forgotten.
        property.delete(&jane);
        let kept = refused.is_none().then(|| ("101".into(), 49, Some("cancelled".into())));
        assert_eq!(property.stay_ends(), Vec::from_iter(kept));
    }
}

#[test]
fn an_end_that_moved_while_the_first_card_was_being_written_is_told_once_it_is() {
    let mut property = Property::configured(told_ends);
    let jane = property.grant("stay-1", &["101"], 24);
    let (_, job) = property.encode(jane.methods[0].id);
    property.ends_in(&jane, 48);
    assert_eq!(property.stay_ends(), []);
    property.written_in(job, "stay-1", "101", true);
    assert_eq!(property.stay_ends(), [("101".into(), 48, None)]);
    assert!(property.later(SignedDuration::ZERO).changed, "the bridge is told that there is an order for it");
}

#[test]
fn by_default_the_next_card_joins_and_the_stay_shows_what_the_deleted_one_still_opens() {
    let mut property = Property::new();
    let [jane, john] = ["stay-1"; 2].map(|stay| property.grant(stay, &["101", "lobby"], 24));
    property.write(jane.methods[0].id, "stay-1", "101", true);
    property.delete(&jane);
    let [lost] = &property.look(&john).deleted_cards[..] else { panic!("one card") };
    assert_eq!((&lost.doors[..], lost.is_overridden), (&["101".to_owned(), "lobby".to_owned()][..], false));
    assert!(lost.card.may_open(property.now));
    property.write(john.methods[0].id, "stay-1", "101", false);
    assert!(!property.begins_again());
    let [lost] = &property.look(&john).deleted_cards[..] else { panic!("one card") };
    assert!(!lost.is_overridden, "a join throws nobody out");
}

#[test]
fn where_the_site_says_so_the_next_card_after_a_deleted_one_begins_the_stay_anew() {
    let mut property = Property::configured(overriding);
    let [jane, john, joe] = ["stay-1"; 3].map(|stay| property.grant(stay, &["101", "lobby"], 24));
    let next_door = property.grant("stay-2", &["102"], 24);
    let [of_jane, of_john, of_joe, of_next_door] =
        [&jane, &john, &joe, &next_door].map(|grant| grant.methods[0].id);
    property.write(of_jane, "stay-1", "101", true);
    property.write(of_john, "stay-1", "101", false);
    property.write(of_next_door, "stay-2", "102", true);
    property.delete(&next_door);
    let before = property.told().len();
    let now = property.now;
    property.tenant().delete_method(now, of_jane).unwrap().unwrap();
    // Another stay's deleted card is none of this one's.
    let (_, job) = property.encode(of_joe);
    assert!(property.begins_again());
    property.written_in(job, "stay-1", "101", true);

    let john_is = property.method(of_john).unwrap();
    assert!(!john_is.is_issued && john_is.issued_at.is_some() && john_is.written_for.is_none());
    assert!(property.method(of_joe).unwrap().is_issued);
    let told = property.told()[before..].to_vec();
    let told: Vec<_> = told.iter().filter(|kind| kind.starts_with("access_method.")).collect();
    let expected = ["deleted", "issued", "revoked", "card_encoding_required"];
    assert_eq!(told, expected.map(|kind| format!("access_method.{kind}")).iter().collect::<Vec<_>>());
    let [lost] = &property.look(&john).deleted_cards[..] else { panic!("one card") };
    assert!(lost.is_overridden);

    // The others join again, and nothing begins a third time.
    let (_, job) = property.encode(of_john);
    assert!(!property.begins_again());
    property.written_in(job, "stay-1", "101", false);
    assert!(property.method(of_john).unwrap().is_issued && property.method(of_joe).unwrap().is_issued);
}

#[test]
fn while_one_card_is_to_begin_the_stay_anew_no_second_one_is() {
    let mut property = Property::configured(overriding);
    let [jane, john, joe] = ["stay-1"; 3].map(|stay| property.grant(stay, &["101"], 24));
    property.write(jane.methods[0].id, "stay-1", "101", true);
    property.delete(&jane);
    let (_, first) = property.encode(john.methods[0].id);
    assert!(property.begins_again());
    property.encode(joe.methods[0].id);
    assert!(!property.begins_again());
    // It came to nothing: the next one is.
    property.report(first, Outcome::failed(Code::NoCard, "nobody came"));
    property.encode(john.methods[0].id);
    assert!(property.begins_again());
}

#[test]
fn a_card_in_doubt_that_proves_written_after_its_stay_began_anew_asks_to_be_written_again() {
    let mut property = Property::new();
    let [jane, john] = ["stay-1"; 2].map(|stay| property.grant(stay, &["101"], 24));
    let of_john = john.methods[0].id;
    let (_, doubtful) = property.encode(of_john);
    property.report(doubtful, Outcome::unknown(Code::NoAnswer, "silence"));
    property.write(jane.methods[0].id, "stay-1", "101", true);
    property.resolve(doubtful, Verdict::Done);
    let john_is = property.method(of_john).unwrap();
    assert!(!john_is.is_issued && !john_is.in_doubt, "it is dead once the other one is used");
    property.write(of_john, "stay-1", "101", false);
    assert!(property.method(of_john).unwrap().is_issued);
}

#[test]
fn a_doubt_that_is_settled_late_throws_out_no_card_that_was_ordered_after_it() {
    for at_site in [false, true] {
        let mut property = Property::new();
        let [jane, john, joe] = ["stay-1"; 3].map(|stay| property.grant(stay, &["101"], 24));
        let [of_jane, of_john, of_joe] = [&jane, &john, &joe].map(|grant| grant.methods[0].id);
        property.write(of_joe, "stay-1", "101", true);
        property.now += HOUR;
        let mut late = if at_site {
            local(&property, 7, None, Outcome::unknown(Code::NoAnswer, "silence"))
        } else {
            let (_, doubtful) = property.encode(of_jane);
            report(property.now, doubtful, Outcome::unknown(Code::NoAnswer, "silence"))
        };
        property.db.apply_report(property.now, property.bridge, &late).unwrap();
        property.now += HOUR;
        property.write(of_john, "stay-1", "101", true);
        property.write(of_joe, "stay-1", "101", false);
        let card = CardFacts { overrode: Some(true), ..CardFacts::default() };
        late.outcome = Outcome::Succeeded(Success { card: Some(card), ..Success::default() });
        late.revision = 2;
        late.resolution = Some(Resolution { verdict: Verdict::Done, by: "the desk".into() });
        late.rooms = vec![property.holds("stay-1", "101")];
        property.db.apply_report(property.now, property.bridge, &late).unwrap();
        assert!(property.method(of_john).unwrap().is_issued && property.method(of_joe).unwrap().is_issued);
        assert!(!property.method(of_jane).unwrap().is_issued);
    }
}

#[test]
fn a_stay_that_the_desk_began_anew_asks_for_its_other_cards_too() {
    let mut property = Property::new();
    let jane = property.grant("stay-1", &["101"], 24);
    let of_jane = jane.methods[0].id;
    property.write(of_jane, "stay-1", "101", true);
    let card = CardFacts { overrode: Some(true), ..CardFacts::default() };
    let outcome = Outcome::Succeeded(Success { card: Some(card), ..Success::default() });
    let mut report = local(&property, 7, None, outcome);
    report.rooms = vec![property.holds("stay-1", "101"), property.holds("stay-9", "102")];
    property.db.apply_report(property.now, property.bridge, &report).unwrap();
    assert!(!property.method(of_jane).unwrap().is_issued);
    assert_eq!(property.told().last().unwrap(), "latchd.local_job.ended");
}

#[test]
fn a_stay_that_moves_house_shows_what_the_old_card_opens_on_its_new_grant() {
    let mut property = Property::new();
    let jane = property.grant("stay-1", &["101"], 24);
    property.write(jane.methods[0].id, "stay-1", "101", true);
    property.delete(&jane);
    let moved = property.grant("stay-1", &["102"], 24);
    let [old] = &moved.deleted_cards[..] else { panic!("one card") };
    assert_eq!((old.grant, &old.doors[..]), (jane.id, &["101".to_owned()][..]));
    let [freeing] = property.checkouts()[..] else { panic!("one check-out") };
    property.report(freeing, Outcome::Succeeded(Success::default()));
    assert!(property.look(&moved).deleted_cards.is_empty(), "the room it opens is free");
}

#[test]
fn a_card_that_a_later_one_throws_out_of_its_room_is_invalid_once_until_it_is_written_again() {
    let mut property = Property::new();
    let [jane, john] = ["stay-1"; 2].map(|stay| property.grant(stay, &["101", "lobby"], 24));
    let next = property.grant("stay-2", &["101"], 48);
    let elsewhere = property.grant("stay-3", &["102"], 48);
    let [of_jane, of_john, of_next, of_elsewhere] =
        [&jane, &john, &next, &elsewhere].map(|grant| grant.methods[0].id);
    property.write(of_jane, "stay-1", "101", true);
    property.write(of_john, "stay-1", "101", false);
    property.write(of_elsewhere, "stay-3", "102", true);
    let invalid = |property: &mut Property, method| {
        property.tenant().card_of_method(method).unwrap().unwrap().invalid_since.is_some()
    };
    let told = |property: &mut Property| {
        property.told().iter().filter(|kind| *kind == "acs_credential.invalidated").count()
    };
    assert_eq!(told(&mut property), 0, "a join throws nobody out");

    // The next stay's first card, while the former one's still run.
    property.write(of_next, "stay-2", "101", true);
    assert_eq!(told(&mut property), 2);
    assert!(invalid(&mut property, of_jane) && invalid(&mut property, of_john));
    assert!(!invalid(&mut property, of_next) && !invalid(&mut property, of_elsewhere));

    // Once per cause: they are invalid already.
    let joe = property.grant("stay-2", &["101"], 48);
    property.write(joe.methods[0].id, "stay-2", "101", true);
    assert!(invalid(&mut property, of_next));
    assert_eq!(told(&mut property), 3);
    property.write(of_next, "stay-2", "101", false);
    assert!(!invalid(&mut property, of_next) && invalid(&mut property, of_jane));
    assert_eq!(told(&mut property), 3);
}

#[test]
fn a_card_that_another_was_written_over_is_invalid() {
    let mut property = Property::new();
    let [jane, john] = ["stay-1", "stay-2"].map(|stay| property.grant(stay, &[stay_room(stay)], 24));
    let [of_jane, of_john] = [&jane, &john].map(|grant| grant.methods[0].id);
    let write = |property: &mut Property, method, serial: &str| {
        let (_, job) = property.encode(method);
        let card = CardFacts { serial: Some(serial.into()), ..CardFacts::default() };
        let success = Success { card: Some(card), written: Some(Written::Proven), ..Success::default() };
        property.report(job, Outcome::Succeeded(success));
    };
    let invalid = |property: &mut Property, method| {
        property.tenant().card_of_method(method).unwrap().unwrap().invalid_since.is_some()
    };
    write(&mut property, of_jane, "04A1");
    assert!(!invalid(&mut property, of_jane));
    write(&mut property, of_john, "04A1");
    assert!(!property.method(of_jane).unwrap().is_issued, "her card is his now");
    assert!(invalid(&mut property, of_jane) && !invalid(&mut property, of_john));
    assert_eq!(property.told().iter().filter(|kind| *kind == "acs_credential.invalidated").count(), 1);
    write(&mut property, of_jane, "04A3");
    assert!(!invalid(&mut property, of_jane) && !invalid(&mut property, of_john));

    // Nobody knows on which card hers is now: no more on the one from before.
    let extended = |property: &mut Property| {
        let unissued = "UPDATE card_state SET is_issued = 0 WHERE access_method_id = ?1";
        property.db.execute(unissued, [of_jane.to_string()]).unwrap();
    };
    extended(&mut property);
    let (_, job) = property.encode(of_jane);
    property.report(job, written());
    let joe = property.grant("stay-1", &["101"], 24).methods[0].id;
    write(&mut property, joe, "04A3");
    assert!(property.method(of_jane).unwrap().is_issued && !invalid(&mut property, of_jane));

    // A card that another stay made invalid in one of its rooms is gone altogether once it is written over.
    extended(&mut property);
    write(&mut property, of_jane, "04A4");
    let now = property.now;
    assert!(property.tenant().invalidate_card(now, of_jane).unwrap());
    assert!(property.method(of_jane).unwrap().is_issued);
    let jim = property.grant("stay-1", &["101"], 24).methods[0].id;
    write(&mut property, jim, "04A4");
    assert!(!property.method(of_jane).unwrap().is_issued);
}

fn stay_room(stay: &str) -> &'static str {
    if stay == "stay-1" { "101" } else { "102" }
}
