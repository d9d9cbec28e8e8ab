//! Grants follow their spaces and their sites.

use crate::{
    grants::TargetDoor,
    model::{AccessGrantId, AcsSystemId, SpaceId},
};

use super::*;

impl Property {
    fn space(&mut self, doors: &[&str]) -> SpaceId {
        let new = NewSpace {
            name: "Unit".into(),
            space_key: None,
            customer_key: None,
            customer_data: None,
            entrances: doors.iter().map(|door| self.door(door)).collect(),
            devices: Vec::new(),
        };
        let now = self.now;
        self.tenant().create_space(now, new).unwrap().unwrap().id
    }

    fn becomes(&mut self, space: SpaceId, doors: &[&str]) {
        let entrances = Some(doors.iter().map(|door| self.door(door)).collect());
        let (now, change) = (self.now, SpaceChange { entrances, ..SpaceChange::default() });
        self.tenant().change_space(now, &SpaceName::Id(space), change).unwrap().unwrap();
    }

    /// A grant of a stay for everything in a space.
    fn guest(&mut self, stay: &str, space: SpaceId) -> Grant {
        let command = GrantCommand { spaces: vec![space], ..self.command(stay, &[], 24) };
        let now = self.now;
        self.tenant().create_grant(now, &command).unwrap().unwrap()
    }

    fn write_card(&mut self, grant: &Grant) {
        let (_, job) = self.encode(grant.methods[0].id);
        self.report(job, written());
    }

    fn again(&mut self, grant: &Grant) -> Grant {
        self.tenant().grant(&GrantName::Id(grant.id)).unwrap().unwrap()
    }

    /// The cards of a grant that are not being deleted.
    fn cards(&mut self, grant: &Grant) -> usize {
        self.again(grant).methods.iter().filter(|method| method.deleted.is_none()).count()
    }

    fn names(&mut self, doors: &[AcsEntranceId]) -> Vec<String> {
        let all = self.entrances();
        let name = |id| all.iter().find(|door| door.id == id).unwrap().name.clone();
        let mut names: Vec<_> = doors.iter().map(|id| name(*id)).collect();
        names.sort_unstable();
        names
    }

    fn rooms_of(&mut self, stay: &str) -> Vec<String> {
        let key = ReservationKey::new(stay).unwrap();
        let rooms = self.tenant().reservation_rooms(&key).unwrap();
        self.names(&rooms)
    }

    /// The rooms that are to be freed.
    fn freed(&mut self) -> Vec<String> {
        let sql = "SELECT acs_entrance_id FROM ordered_checkout";
        let rooms = self.db.all(sql, [], |row| rows::id(row, "acs_entrance_id")).unwrap();
        self.names(&rooms)
    }

    fn rows(&self, table: &str) -> u32 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.db.one(&sql, [], |row| row.get(0)).unwrap().unwrap()
    }

    fn shows(&mut self, inventory: &Inventory) {
        self.db.apply_inventory(self.now, self.bridge, inventory).unwrap();
        self.later(SignedDuration::ZERO);
    }

    fn delete_by_name(&mut self, method: AccessMethodId) {
        let now = self.now;
        self.tenant().delete_method(now, method).unwrap().unwrap();
    }

    fn extend(&mut self, grant: &Grant) {
        let ends_at = Some(grant.window.ends_at().map(|end| end + HOUR));
        let (now, change) = (self.now, GrantChange { ends_at, ..GrantChange::default() });
        self.tenant().update_grant(now, &GrantName::Id(grant.id), &change).unwrap().unwrap();
    }
}

/// The property with a second system, which has room 201.
fn with_an_annex(rooms: &[&str]) -> Inventory {
    let mut all = inventory(rooms);
    let mut annex = inventory(&["201"]).systems.remove(0);
    annex.name = SystemName::new("annex").unwrap();
    annex.doors.truncate(1);
    annex.encoders.clear();
    all.systems.push(annex);
    all
}

const ROOMS: [&str; 3] = ["101", "102", "103"];

#[test]
fn a_stay_moves_with_its_space_and_frees_the_room_that_it_leaves() {
    let mut property = Property::new();
    let space = property.space(&["101", "lobby"]);
    let grant = property.guest("stay-1", space);
    property.write_card(&grant);
    property.becomes(space, &["102", "lobby"]);
    assert_eq!(property.rooms_of("stay-1"), ["102"]);
    assert_eq!(property.freed(), ["101"]);
    assert!(!property.again(&grant).methods[0].is_issued, "it opens another room");

    // Whoever joins the stay is judged by the room that it is in.
    let now = property.now;
    let command = property.command("stay-1", &["101"], 24);
    let refused = property.tenant().create_grant(now, &command).unwrap().unwrap_err();
    assert_eq!(refused, Refused::ReservationElsewhere);
    let joiner = property.grant("stay-1", &["102"], 24);
    property.delete(&joiner);
    property.delete(&grant);
    assert_eq!(property.freed(), ["101", "102"]);
}

#[test]
fn a_door_that_opened_and_that_its_grant_has_left_is_told_once_and_so_is_its_return() {
    let mut property = Property::new();
    let space = property.space(&["101", "lobby"]);
    let grant = property.guest("stay-1", space);
    property.write_card(&grant);
    let to_doors = |property: &mut Property| {
        let told = property.told();
        let kinds = told.iter().filter_map(|kind| kind.strip_prefix("access_grant."));
        kinds
            .filter(|kind| kind.ends_with("_door") || kind.ends_with("_lost"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    property.becomes(space, &["102", "lobby"]);
    property.extend(&grant);
    let (granted, lost) = ("access_granted_to_door", "access_to_door_lost");
    assert_eq!(to_doors(&mut property), [granted, granted, lost]);
    property.becomes(space, &["101", "lobby"]);
    property.write_card(&grant);
    assert_eq!(
        to_doors(&mut property),
        [granted, granted, lost, granted],
        "102 was never opened, and 101 is again"
    );
}

#[test]
fn a_room_is_not_freed_while_another_grant_of_the_stay_leads_there_nor_without_a_card() {
    let mut property = Property::new();
    let space = property.space(&["101"]);
    let (moves, stays) = (property.guest("stay-1", space), property.grant("stay-1", &["101"], 24));
    property.write_card(&moves);
    property.becomes(space, &["102"]);
    assert_eq!(property.rooms_of("stay-1"), ["101", "102"]);
    assert!(property.freed().is_empty());
    property.delete(&moves);
    property.delete(&stays);
    assert_eq!(property.freed(), ["101", "102"]);

    let mut property = Property::new();
    let space = property.space(&["101"]);
    property.guest("stay-1", space);
    property.becomes(space, &["102"]);
    assert_eq!((property.rooms_of("stay-1"), property.freed().len()), (vec!["102".to_owned()], 0));
}

#[test]
fn a_room_that_the_site_does_not_let_us_free_is_left_all_the_same() {
    let mut property = Property::new();
    let mut never = inventory(&ROOMS);
    never.systems[0].checkout_on_last_grant = false;
    property.shows(&never);
    let space = property.space(&["101"]);
    let grant = property.guest("stay-1", space);
    property.write_card(&grant);
    property.becomes(space, &["102"]);
    assert_eq!((property.rooms_of("stay-1"), property.freed().len()), (vec!["102".to_owned()], 0));
}

#[test]
fn a_stay_that_comes_back_to_its_room_keeps_it() {
    let mut property = Property::new();
    let space = property.space(&["101"]);
    let grant = property.guest("stay-1", space);
    property.write_card(&grant);
    property.becomes(space, &[]);
    assert_eq!(property.freed(), ["101"]);
    property.becomes(space, &["101"]);
    assert_eq!((property.rooms_of("stay-1"), property.freed().len()), (vec!["101".to_owned()], 0));
}

#[test]
fn a_card_goes_with_the_last_door_of_its_system_and_comes_back_with_the_first() {
    let mut property = Property::new();
    let space = property.space(&["101"]);
    let grant = property.guest("stay-1", space);
    let before = property.again(&grant).methods[0].id;
    property.becomes(space, &[]);
    assert_eq!(property.cards(&grant), 0);
    assert_eq!(property.again(&grant).errors.len(), 1, "no door takes it");
    property.becomes(space, &["101"]);
    let again = property.again(&grant);
    assert_eq!((again.methods.len(), again.errors.len()), (1, 0));
    assert_ne!(again.methods[0].id, before);
    property.write_card(&again);
}

#[test]
fn a_card_that_was_taken_back_by_name_is_not_made_again() {
    let mut property = Property::new();
    property.shows(&with_an_annex(&ROOMS));
    let space = property.space(&["101", "201"]);
    let (both, one) = (property.guest("stay-1", space), property.guest("stay-2", space));
    assert_eq!(property.cards(&both), 2);
    property.delete_by_name(one.methods[0].id);
    for method in &both.methods {
        property.delete_by_name(method.id);
    }
    let doors: [&[&str]; 4] = [&["101", "201", "lobby"], &["201"], &[], &["101", "201"]];
    for doors in doors {
        property.becomes(space, doors);
        if !doors.is_empty() {
            property.extend(&both);
        }
        let (none, left) = (property.again(&both), property.again(&one));
        assert_eq!((none.methods.len(), none.errors.len()), (0, 0), "{doors:?}");
        assert!(left.methods.iter().all(|method| method.system == one.methods[1].system), "{doors:?}");
    }
    assert_eq!(property.cards(&one), 1, "the other system's was never taken back");
    let card = Requested { mode: Mode::Card, code: None };
    let now = property.now;
    property.tenant().request_methods(now, both.id, &[card]).unwrap().unwrap();
    assert_eq!(property.cards(&both), 2, "it may be asked for anew");
}

#[test]
fn an_error_of_a_grant_goes_when_its_cards_can_be_made_again() {
    let mut property = Property::new();
    let many = ["101", "102", "103", "104", "105"];
    property.shows(&with_an_annex(&many));
    let space = property.space(&many[..4]);
    let grant = property.guest("stay-1", space);
    property.write_card(&grant);
    let problems_of = |property: &mut Property, grant: &Grant| property.again(grant).errors.len();
    let problems = |property: &mut Property| problems_of(property, &grant);
    property.becomes(space, &many);
    assert_eq!(problems(&mut property), 1);
    property.becomes(space, &many[..4]);
    assert_eq!(problems(&mut property), 0);
    assert!(property.again(&grant).methods[0].is_issued, "it opens what it was written for");

    // The system learns to carry more.
    property.becomes(space, &many);
    let mut better = with_an_annex(&many);
    better.systems[0].capabilities.max_rooms = 5;
    property.shows(&better);
    assert_eq!(problems(&mut property), 0);
    assert!(!property.again(&grant).methods[0].is_issued, "it has a fifth room to carry");

    // Its system is away, and comes back.
    let wing = property.space(&["201"]);
    let guest = property.guest("stay-2", wing);
    property.shows(&inventory(&many));
    let (now, lobby) = (property.now, property.door("lobby"));
    for members in [Members::Add(vec![lobby]), Members::Remove(vec![lobby])] {
        property.tenant().change_members(now, wing, &members).unwrap().unwrap();
    }
    assert_eq!((property.cards(&guest), problems_of(&mut property, &guest)), (1, 1));
    property.shows(&with_an_annex(&many));
    assert_eq!((property.cards(&guest), problems_of(&mut property, &guest)), (1, 0));
}

#[test]
fn what_is_wrong_with_a_card_goes_with_the_card() {
    let mut property = Property::new();
    let many = ["101", "102", "103", "104", "105"];
    property.shows(&inventory(&many));
    let space = property.space(&many[..4]);
    let grant = property.guest("stay-1", space);
    property.becomes(space, &many);
    assert_eq!(property.again(&grant).errors.len(), 1);
    property.delete_by_name(grant.methods[0].id);
    property.later(SignedDuration::ZERO);
    let again = property.again(&grant);
    assert_eq!((again.methods.len(), again.errors.len()), (0, 0));
}

#[test]
fn a_card_that_no_system_carried_comes_with_the_system_that_does() {
    let mut property = Property::new();
    property.shows(&with_an_annex(&ROOMS));
    let space = property.space(&["201", "lobby"]);
    property.shows(&inventory(&ROOMS));
    let command =
        GrantCommand { spaces: vec![space], reservation_key: None, ..property.command("x", &[], 24) };
    let now = property.now;
    let grant = property.tenant().create_grant(now, &command).unwrap().unwrap();
    assert_eq!(grant.methods.len(), 1);
    property.extend(&grant);
    assert_eq!(property.cards(&grant), 1, "nobody can write the other one");
    let mut back = with_an_annex(&ROOMS);
    back.systems[1].doors[0].kind = DoorKind::Common;
    property.shows(&back);
    assert_eq!(property.cards(&grant), 2);
}

#[test]
fn a_space_with_many_grants_is_followed_a_slice_at_a_time_and_also_after_a_crash() {
    let mut property = Property::new();
    let space = property.space(&["101"]);
    let slice = super::super::follow::AT_ONCE;
    let grants: Vec<_> = (0..2 * slice + 1).map(|n| property.guest(&format!("stay-{n}"), space)).collect();
    property.db.execute("INSERT INTO card_state SELECT access_method_id, workspace_id, 1, 1, 0, 1, NULL FROM access_method", []).unwrap();
    property.becomes(space, &["102"]);
    assert_eq!(property.rows("grant_due"), slice + 1);
    assert_eq!(property.rows("card_state WHERE is_issued = 1"), slice + 1);
    assert_eq!(property.rows("ordered_checkout"), slice);

    // Whoever is asked for meanwhile is there already.
    let (last, now) = (&grants[2 * slice as usize], property.now);
    property.delete(last);
    assert_eq!(property.rows("ordered_checkout"), slice + 2, "both rooms of it");
    let before_last = &grants[2 * slice as usize - 1];
    property.grant(&format!("stay-{}", 2 * slice - 1), &["102"], 24);
    assert!(!property.again(before_last).methods[0].is_issued);

    let Property { db, folder, .. } = property;
    drop(db);
    let random = Random::seeded(2);
    let seal = SealKey::new([7; 32], random.clone());
    let mut db = Db::open(&Storage::folder(folder.path()), seal, random).unwrap();
    while db.end_overdue(now).unwrap().next.is_some_and(|next| next <= now) {}
    let rows = |sql: &str| db.one(sql, [], |row| row.get::<_, u32>(0)).unwrap().unwrap();
    assert_eq!(rows("SELECT count(*) FROM grant_due"), 0);
    assert_eq!(rows("SELECT count(*) FROM ordered_checkout"), 2 * slice + 2);
    assert_eq!(rows("SELECT count(*) FROM card_state WHERE is_issued = 1"), 0);
}

#[test]
fn a_grant_that_cannot_be_read_keeps_nobody_else_from_following() {
    let mut property = Property::new();
    let space = property.space(&["101"]);
    let (broken, sound) = (property.guest("stay-1", space), property.guest("stay-2", space));
    let garble = "UPDATE access_grant SET name = x'00' WHERE access_grant_id = ?1";
    property.db.execute(garble, [broken.id.to_string()]).unwrap();
    property.becomes(space, &["102"]);
    assert_eq!(property.rooms_of("stay-1"), ["101"]);
    assert_eq!(property.rooms_of("stay-2"), ["102"]);
    assert!(property.still_there(&sound));
    let mend = "UPDATE access_grant SET name = NULL WHERE access_grant_id = ?1";
    property.db.execute(mend, [broken.id.to_string()]).unwrap();
    property.later(HOUR);
    assert_eq!(property.rooms_of("stay-1"), ["102"]);
}

#[test]
fn a_door_that_its_site_no_longer_has_is_remembered_as_a_door() {
    let mut property = Property::new();
    let space = property.space(&["101"]);
    let grant = property.guest("stay-1", space);
    property.shows(&inventory(&["102", "103"]));
    let doors: Vec<TargetDoor> = property.tenant().doors_before(grant.id).unwrap();
    assert_eq!(doors.iter().map(|door| door.name.as_str()).collect::<Vec<_>>(), ["101"]);
    assert_eq!(property.cards(&grant), 1, "its card waits for the room");
}

#[test]
fn a_card_that_was_being_written_for_a_door_which_left_meanwhile_asks_to_be_written_again() {
    let mut property = Property::new();
    let space = property.space(&["101", "lobby"]);
    let grant = property.guest("stay-1", space);
    let (attempt, job) = property.encode(grant.methods[0].id);
    property.becomes(space, &["101"]);
    property.report(job, written());
    assert_eq!(property.attempt(attempt), "success");
    let card = property.again(&grant).methods.remove(0);
    assert_eq!((card.is_issued, card.left_doors), (false, vec!["lobby".to_owned()]));
    // A door that only its site lost is none that it has left.
    property.write_card(&grant);
    assert!(property.again(&grant).methods[0].is_issued);
    property.becomes(space, &["101", "lobby"]);
    let (_, job) = property.encode(grant.methods[0].id);
    let mut without = inventory(&ROOMS);
    without.systems[0].doors.retain(|door| door.name.as_str() != "lobby");
    property.shows(&without);
    property.report(job, written());
    assert!(property.again(&grant).methods[0].is_issued);
}

/// Before it was noted, what was taken back by name could be told only by its absence.
#[test]
fn an_older_database_knows_what_was_taken_back_by_what_is_missing_without_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::folder(folder.path());
    let step = MIGRATIONS.iter().position(|sql| sql.contains("CREATE TABLE declined_method")).unwrap();
    let old = crate::store::open(&storage, FILE, &MIGRATIONS[..step]).unwrap();
    let mut rows = String::from(
        "INSERT INTO workspace VALUES('w', 'Home', 0);
         INSERT INTO site VALUES('b', 'w', 0, 0);
         INSERT INTO acs_system VALUES('s', 'w', 'b', 'a', 'salto', 'salto_is', 'UTC', '{}', 0, 0, 0, NULL);
         INSERT INTO user_identity(user_identity_id, workspace_id, person, created_at) VALUES('u', 'w', x'', 0);",
    );
    for grant in ["whole", "bare", "lacking", "going"] {
        rows += &format!(
            "INSERT INTO access_grant VALUES('{grant}', 'w', 'u', NULL, NULL, NULL, 0, NULL, 0, NULL);
             INSERT INTO requested_method VALUES('w', '{grant}', 0, 'card', NULL, 0);"
        );
    }
    rows += "INSERT INTO access_method VALUES('m1', 'w', 'whole', 0, 's', 'card', 0);
             INSERT INTO access_method VALUES('m2', 'w', 'going', 0, 's', 'card', 0);
             INSERT INTO method_end VALUES('m2', 'w', 0);
             INSERT INTO grant_error VALUES('w', 'lacking', 'e', 'No targeted door supports: card', 0);";
    old.execute_batch(&rows).unwrap();
    drop(old);
    let new = crate::store::open(&storage, FILE, MIGRATIONS).unwrap();
    let mut declined = new.prepare("SELECT access_grant_id FROM declined_method ORDER BY rowid").unwrap();
    let declined = declined.query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<String>, _>>();
    assert_eq!(declined.unwrap(), ["bare", "going"]);
}

/// What was asked for, in plain words.
struct Guest {
    grant: Grant,
    key: String,
    space: Option<SpaceId>,
    own: Vec<AcsEntranceId>,
    /// Systems whose card was taken back by name.
    declined: Vec<AcsSystemId>,
    is_declined: bool,
}

/// A house in which spaces, sites and grants change as they please.
struct House {
    property: Property,
    random: Random,
    spaces: Vec<(SpaceId, Vec<&'static str>)>,
    guests: Vec<Guest>,
    /// Grants of these stays were never deleted.
    whole: std::collections::BTreeSet<String>,
    is_annexed: bool,
}

impl House {
    const DOORS: [&'static str; 5] = ["101", "102", "103", "lobby", "201"];

    fn new(seed: u64) -> Self {
        let mut property = Property::new();
        property.db.connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
        property.shows(&with_an_annex(&ROOMS));
        let spaces = [vec!["101", "lobby"], vec!["102", "201"]];
        let spaces = spaces.map(|doors| (property.space(&doors), doors)).to_vec();
        let random = Random::seeded(seed);
        let whole = (0..3).map(|n| format!("stay-{n}")).collect();
        Self { property, random, spaces, guests: Vec::new(), whole, is_annexed: true }
    }

    fn below(&self, n: usize) -> usize {
        usize::try_from(self.random.below(n as u64)).unwrap()
    }

    fn some_doors(&self) -> Vec<&'static str> {
        let chosen = self.below(1 << Self::DOORS.len());
        let is_chosen = |n: &usize| chosen & (1 << n) != 0;
        let doors = (0..Self::DOORS.len()).filter(is_chosen).map(|n| Self::DOORS[n]);
        doors.filter(|door| self.is_annexed || *door != "201").collect()
    }

    fn step(&mut self) {
        match self.below(10) {
            0..2 => self.somebody_comes(),
            2..5 => {
                let (which, doors) = (self.below(2), self.some_doors());
                self.property.becomes(self.spaces[which].0, &doors);
                self.spaces[which].1 = doors;
            }
            5 => {
                self.is_annexed = !self.is_annexed;
                self.site();
            }
            6 if !self.guests.is_empty() => {
                let guest = self.guests.swap_remove(self.below(self.guests.len()));
                self.property.delete(&guest.grant);
                self.whole.remove(&guest.key);
            }
            7 if !self.guests.is_empty() => self.somebody_takes_a_card_back(),
            8 if !self.guests.is_empty() => self.somebody_writes_a_card(),
            _ => drop(self.property.later(SignedDuration::from_secs(1))),
        }
    }

    fn site(&mut self) {
        let inventory = if self.is_annexed { with_an_annex(&ROOMS) } else { inventory(&ROOMS) };
        self.property.db.apply_inventory(self.property.now, self.property.bridge, &inventory).unwrap();
    }

    fn somebody_comes(&mut self) {
        let key = format!("stay-{}", self.below(3));
        let space = (self.below(3) > 0).then(|| self.spaces[self.below(2)].0);
        let own = if space.is_none() { self.some_doors() } else { Vec::new() };
        let mut command = self.property.command(&key, &own, 24 * 30);
        command.spaces = space.into_iter().collect();
        let (now, own) = (self.property.now, command.entrances.clone());
        // Nobody who leads nowhere, or elsewhere than the stay, is let in.
        let Ok(grant) = self.property.tenant().create_grant(now, &command).unwrap() else { return };
        self.guests.push(Guest { grant, key, space, own, declined: Vec::new(), is_declined: false });
    }

    fn somebody_takes_a_card_back(&mut self) {
        let which = self.below(self.guests.len());
        let grant = self.guests[which].grant.id;
        let cards = self.live_cards(grant);
        if cards.is_empty() {
            return;
        }
        let card = &cards[self.below(cards.len())];
        self.property.delete_by_name(card.id);
        let guest = &mut self.guests[which];
        guest.declined.push(card.system);
        guest.is_declined |= cards.len() == 1;
    }

    fn somebody_writes_a_card(&mut self) {
        let grant = self.guests[self.below(self.guests.len())].grant.id;
        let Some(card) = self.live_cards(grant).into_iter().find(|card| !card.is_issued) else { return };
        let (now, encoder) = (self.property.now, self.property.encoder(0));
        // A card of another system, or one that cannot be what the grant says, is refused.
        let Ok(attempt) = self.property.tenant().encode(now, card.id, encoder).unwrap() else { return };
        self.property.hand(attempt.job);
        if self.below(2) == 0 {
            self.step();
        }
        self.property.report(attempt.job, written());
    }

    fn live_cards(&mut self, grant: AccessGrantId) -> Vec<Method> {
        let methods = self.property.tenant().methods_of(grant).unwrap();
        methods.into_iter().filter(|method| method.deleted.is_none()).collect()
    }

    /// The doors that a guest is led to by now.
    fn led_to(&mut self, which: usize) -> Vec<(AcsEntranceId, AcsSystemId, bool)> {
        let guest = &self.guests[which];
        let mut doors = guest.own.clone();
        if let Some((_, members)) = self.spaces.iter().find(|(space, _)| Some(*space) == guest.space) {
            let members = members.clone();
            doors.extend(members.into_iter().map(|name| self.property.door(name)));
        }
        let all = self.property.entrances();
        let known = |id: &AcsEntranceId| all.iter().find(|door| door.id == *id).unwrap();
        doors.iter().map(known).map(|door| (door.id, door.system, door.kind == DoorKind::Room)).collect()
    }

    /// Everything is mended, and nothing is left to be done.
    fn quiet(&mut self) {
        self.is_annexed = true;
        self.site();
        while self.property.later(SignedDuration::ZERO).next.is_some_and(|next| next <= self.property.now) {}
        assert_eq!(self.property.rows("grant_due"), 0);
        let mut rooms: BTreeMap<String, Vec<AcsEntranceId>> = BTreeMap::new();
        for which in 0..self.guests.len() {
            let doors = self.led_to(which);
            let cards = self.live_cards(self.guests[which].grant.id);
            let again = self.property.tenant().grant(&GrantName::Id(self.guests[which].grant.id));
            let guest = &self.guests[which];
            let mut wanted: Vec<_> = doors.iter().map(|(_, system, _)| *system).collect();
            wanted.retain(|system| !guest.is_declined && !guest.declined.contains(system));
            wanted.sort_unstable();
            wanted.dedup();
            let mut held: Vec<_> = cards.iter().map(|card| card.system).collect();
            held.sort_unstable();
            assert_eq!(held, wanted, "one card for each system");
            assert_eq!(
                again.unwrap().unwrap().errors.len(),
                usize::from(doors.is_empty() && !guest.is_declined)
            );
            let own = rooms.entry(guest.key.clone()).or_default();
            own.extend(doors.iter().filter(|(.., is_room)| *is_room).map(|(id, ..)| *id));
            for card in cards.iter().filter(|card| card.is_issued) {
                let mut written = self.written(card.id);
                let mut now: Vec<_> = doors
                    .iter()
                    .filter(|(_, system, _)| *system == card.system)
                    .map(|(id, ..)| *id)
                    .collect();
                written.sort_unstable();
                now.sort_unstable();
                assert_eq!(written, now, "a card that counts opens what its grant leads to");
            }
        }
        for (key, mut rooms) in rooms {
            rooms.sort_unstable();
            rooms.dedup();
            let known =
                self.property.tenant().reservation_rooms(&ReservationKey::new(&key).unwrap()).unwrap();
            assert!(rooms.iter().all(|room| known.contains(room)), "{key} is where its grants lead");
            assert!(!self.whole.contains(&key) || known.len() == rooms.len(), "{key} is nowhere else");
        }
    }

    /// The doors that a card was last written for.
    fn written(&self, card: AccessMethodId) -> Vec<AcsEntranceId> {
        let sql = "SELECT acs_entrance_ids FROM ordered_card WHERE access_method_id = ?1 AND revision > 0
                   ORDER BY rowid DESC LIMIT 1";
        self.property
            .db
            .one(sql, [card.to_string()], |row| rows::json(row, "acs_entrance_ids"))
            .unwrap()
            .unwrap()
    }
}

#[test]
fn whatever_changes_cards_and_stays_end_where_their_grants_lead() {
    let cases = std::env::var("LATCHD_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    for seed in 0..cases {
        let mut house = House::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..60 {
                house.step();
            }
            house.quiet();
        }));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
