//! Grants that a desk makes and takes back itself: durable here first, and told to the cloud as facts, which takes them
//! over when it hears of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    DeskCode, LocalOrder, Queue,
    codes::{Keypad, takes_codes},
};
use crate::{
    grants::{
        Created, GrantRequest, Means, Mode, Refused, ReservationFacts, TargetDoor, TargetSystem, Targets,
        plan_create,
    },
    model::{
        AcsEntranceId, AcsSystemId, DesiredCard, DesiredCardState, DesiredDoors, DesiredGrant, DoorKind,
        DoorName, GrantMade, GrantRevoked, JobId, Private, Refusal, ReservationKey, SystemInventory,
        SystemName, on_the_wire,
    },
    store::StoreError,
};

/// What a person at the desk wants granted: a card, a code or both, for these doors and locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeskGrant {
    /// The caller's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_grant_key: Option<String>,
    /// The stay, for rooms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation_key: Option<ReservationKey>,
    /// Whose it is.
    #[serde(serialize_with = "on_the_wire")]
    pub guest_name: Private,
    /// From when; absent means now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// The doors and locks, each by its name, or by its system's and its own: `101` or `salto/101`.
    pub doors: Vec<String>,
    /// Whether a card is wanted, for the doors that cards open.
    #[serde(default = "yes")]
    pub card: bool,
    /// The code that is wanted, for the locks that take codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<DeskCode>,
}

fn yes() -> bool {
    true
}

/// A grant that a desk makes or takes back, and the jobs that follow from it: to be handed to [`Queue::accept_local`] in the
/// same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The grant.
    pub grant: DesiredGrant,
    /// What its devices are to hold from now on.
    pub orders: Vec<LocalOrder>,
}

/// Why a grant is not made, or not taken back, at the desk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefused {
    /// No cloud has told this site what it wants there, so none would take the grant over.
    #[error(
        "the cloud of this site has not told it any grants yet, and may be too old to: make the grant there"
    )]
    NeverTold,
    /// No system here has such a door.
    #[error("no access system here has a door {0}")]
    NoSuchDoor(String),
    /// It is there, and cannot be opened by what was asked for.
    #[error("{door} takes no {means}")]
    TakesNone {
        /// As it was named.
        door: String,
        /// A card or a code.
        means: &'static str,
    },
    /// The PIN that was chosen is another's there, or may be, or the locks' rules forbid it.
    #[error("this PIN cannot be had at {}: another has it there, or the lock takes no such PIN", .0.join(", "))]
    PinNotToBeHad(Vec<String>),
    /// No PIN is left there.
    #[error("no PIN is left that could be given out at {}", .0.join(", "))]
    NoPinLeft(Vec<String>),
    /// The lock's system does not take the order.
    #[error("{0}")]
    NotTaken(Refusal),
    /// Several systems have such a door.
    #[error("several access systems have a door {door}: name one of {}", choices.join(", "))]
    DoorUnclear {
        /// As it was named.
        door: String,
        /// How it can be.
        choices: Vec<String>,
    },
    /// Another grant has this key.
    #[error("another access grant has this key")]
    KeyTaken,
    /// A rule of grants and stays.
    #[error("{0}")]
    ByRule(#[from] Refused),
    /// No such grant.
    #[error("no grant of this site has that name")]
    NotKnown,
    /// Several have it.
    #[error("this means {0} grants: name one of them by its key or id")]
    Several(usize),
    /// A card of it is being written.
    #[error("a card of this grant is being written by job {0}: wait for its end, or cancel it")]
    CardAtWork(JobId),
}

impl GrantRefused {
    /// The stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NeverTold => "never_told",
            Self::NoSuchDoor(_) => "entrance_unknown",
            Self::DoorUnclear { .. } => "entrance_unclear",
            Self::TakesNone { .. } => "means_not_supported",
            Self::PinNotToBeHad(_) => "requested_code_unavailable",
            Self::NoPinLeft(_) => "no_code_left",
            Self::NotTaken(refusal) => refusal.code.as_str(),
            Self::KeyTaken => "access_grant_key_already_exists",
            Self::ByRule(refused) => refused.name(),
            Self::NotKnown => "no_such_grant",
            Self::Several(_) => "grant_unclear",
            Self::CardAtWork(_) => "card_being_encoded",
        }
    }
}

impl Queue {
    /// A grant that a person wishes, by the rules that the cloud has for it, applied to what this site knows. Nothing is kept
    /// of it yet.
    ///
    /// # Errors
    /// Those of the database; a refusal is the inner result.
    pub fn plan_grant(
        &self,
        now: Timestamp,
        wish: &DeskGrant,
        systems: &[SystemInventory],
    ) -> Result<Result<Changed, GrantRefused>, StoreError> {
        if self.disk_is_full {
            return Err(StoreError::DiskFull);
        }
        if self.desired_held()?.was_never_told() && !self.knows_a_grant()? {
            return Ok(Err(GrantRefused::NeverTold));
        }
        if let Some(key) = &wish.access_grant_key
            && !self.desired_by_key(key)?.is_empty()
        {
            return Ok(Err(GrantRefused::KeyTaken));
        }
        let property = Property::new(systems);
        let of_stay = match &wish.reservation_key {
            Some(stay) => self.desired_of_stay(stay)?,
            None => Vec::new(),
        };
        let (mut grant, keypads) = match property.plan(now, wish, &of_stay, &self.random) {
            Ok(planned) => planned,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Some(code) = &wish.code {
            grant.codes = match self.plan_codes(now, grant.access_grant_id, grant.window, &keypads, code)? {
                Ok(codes) => codes,
                Err(refused) => return Ok(Err(refused)),
            };
        }
        let orders = self.code_puts(now, &grant);
        Ok(Ok(Changed { grant, orders }))
    }

    /// Makes a planned grant by a person's word: it is there, and in the outbox, with the same commit.
    ///
    /// # Errors
    /// Those of the database.
    pub fn make_grant(&mut self, now: Timestamp, grant: &DesiredGrant, by: &str) -> Result<(), StoreError> {
        self.put_made(grant)?;
        self.report_made(&GrantMade { at: now, by: by.to_owned(), grant: grant.clone() })?;
        let id = grant.access_grant_id;
        self.audit_line(now, "granted_here", None, &format!("access grant {id} made at the site by {by}"))
    }

    /// Takes a grant back by a person's word. Its codes go out of their devices; cards that were written open until their
    /// printed end.
    ///
    /// # Errors
    /// Those of the database; a refusal is the inner result.
    pub fn revoke_grant(
        &mut self,
        now: Timestamp,
        name: &str,
        by: &str,
    ) -> Result<Result<Changed, GrantRefused>, StoreError> {
        if self.disk_is_full {
            return Err(StoreError::DiskFull);
        }
        let mut named = self.desired_named(name)?;
        let grant = match (named.pop(), named.len()) {
            (Some(grant), 0) => grant,
            (None, _) => return Ok(Err(GrantRefused::NotKnown)),
            (Some(_), others) => return Ok(Err(GrantRefused::Several(others + 1))),
        };
        for card in &grant.cards {
            if let Some(job_id) = self.card_job_at_work(card.access_method_id)? {
                return Ok(Err(GrantRefused::CardAtWork(job_id)));
            }
        }
        let access_grant_id = grant.access_grant_id;
        self.forget_desired(access_grant_id)?;
        let revoked = GrantRevoked { at: now, by: by.to_owned(), access_grant_id };
        self.report_revoked(&revoked, grant.window.ends_at())?;
        let detail = format!("access grant {access_grant_id} taken back at the site by {by}");
        self.audit_line(now, "revoked_here", None, &detail)?;
        let orders = self.code_removals(now, &grant);
        Ok(Ok(Changed { grant, orders }))
    }
}

/// The site's doors under ids for the planner. They mean nothing outside of one plan.
struct Property<'a> {
    systems: &'a [SystemInventory],
    doors: BTreeMap<AcsEntranceId, (&'a SystemInventory, &'a DoorName, DoorKind)>,
}

impl<'a> Property<'a> {
    fn new(systems: &'a [SystemInventory]) -> Self {
        let all = systems.iter().flat_map(|system| system.doors.iter().map(move |door| (system, door)));
        let id = |number: u128| AcsEntranceId(uuid::Uuid::from_u128(number));
        let doors = (1..).map(id).zip(all.map(|(system, door)| (system, &door.name, door.kind))).collect();
        Self { systems, doors }
    }

    fn system_id(&self, name: &SystemName) -> AcsSystemId {
        let place = self.systems.iter().position(|system| system.name == *name).unwrap_or_default();
        AcsSystemId(uuid::Uuid::from_u128(place as u128 + 1))
    }

    /// The grant with its cards, and the devices that its codes are for.
    fn plan(
        &self,
        now: Timestamp,
        wish: &DeskGrant,
        of_stay: &[DesiredGrant],
        random: &crate::seams::Random,
    ) -> Result<(DesiredGrant, Vec<Keypad<'a>>), GrantRefused> {
        let (targets, keypads) = self.targets(wish)?;
        let card = wish.card.then_some(Mode::Card);
        let code = wish.code.as_ref().map(|_| Mode::Code);
        let request = GrantRequest {
            reservation_key: wish.reservation_key.clone(),
            starts_at: wish.starts_at,
            ends_at: wish.ends_at,
            modes: card.into_iter().chain(code).collect(),
            means: Means { devices: !keypads.is_empty(), ..Means::default() },
        };
        let stay = ReservationFacts {
            rooms: self.rooms_of(of_stay),
            windows: of_stay.iter().map(|grant| grant.window).collect(),
        };
        let plan = plan_create(&request, &targets, &stay, now, random)?;
        Ok((grant_of(wish, &plan, &targets), keypads))
    }

    /// What each name means: a door that cards open, a device that takes codes, or both where both are wanted.
    fn targets(&self, wish: &DeskGrant) -> Result<(Targets, Vec<Keypad<'a>>), GrantRefused> {
        let (mut targets, mut keypads) = (Targets::default(), Vec::new());
        for name in &wish.doors {
            let door = if wish.card { self.door(name)? } else { None };
            let keypad = if wish.code.is_some() { self.keypad(name)? } else { None };
            if door.is_none() && keypad.is_none() {
                return Err(self.not_for(name, wish));
            }
            if let Some((id, system, door, kind)) = door {
                self.add_door(&mut targets, id, system, door, kind);
            }
            let is_new = |keypad: &Keypad<'_>| {
                let same = |known: &Keypad<'_>| std::ptr::eq(known.device, keypad.device);
                !keypads.iter().any(same)
            };
            let keypad = keypad.filter(is_new);
            keypads.extend(keypad);
        }
        let (no_door, no_keypad) = (targets.doors.is_empty(), keypads.is_empty());
        let takes_none = |means| GrantRefused::TakesNone { door: wish.doors.join(", "), means };
        match (wish.card && no_door, wish.code.is_some() && no_keypad) {
            (true, _) => Err(takes_none("card")),
            (_, true) => Err(takes_none("code")),
            _ => Ok((targets, keypads)),
        }
    }

    /// Why a name means nothing that was asked for.
    fn not_for(&self, name: &str, wish: &DeskGrant) -> GrantRefused {
        let is_there = matches!(self.door(name), Ok(Some(_)) | Err(_)) || self.has_device(name);
        let means = if wish.code.is_some() { "code" } else { "card" };
        match is_there {
            true => GrantRefused::TakesNone { door: name.to_owned(), means },
            false => GrantRefused::NoSuchDoor(name.to_owned()),
        }
    }

    fn add_door(
        &self,
        targets: &mut Targets,
        id: AcsEntranceId,
        system: &SystemInventory,
        door: &DoorName,
        kind: DoorKind,
    ) {
        let system_id = self.system_id(&system.name);
        if !targets.systems.iter().any(|known| known.id == system_id) {
            targets.systems.push(TargetSystem {
                id: system_id,
                name: system.name.clone(),
                capabilities: system.capabilities.clone(),
                checkout_on_last_grant: system.checkout_on_last_grant,
                override_after_deleted_card: system.override_after_deleted_card,
            });
        }
        if !targets.doors.iter().any(|known| known.id == id) {
            targets.doors.push(TargetDoor { id, system: system_id, name: door.clone(), kind });
        }
    }

    /// The door that a name means.
    fn door(
        &self,
        name: &str,
    ) -> Result<Option<(AcsEntranceId, &'a SystemInventory, &'a DoorName, DoorKind)>, GrantRefused> {
        let whole = |system: &SystemInventory, door: &DoorName| format!("{}/{door}", system.name);
        let found = self
            .doors
            .iter()
            .filter(|(_, (system, door, _))| door.as_str() == name || whole(system, door) == name)
            .map(|(id, &(system, door, kind))| ((*id, system, door, kind), whole(system, door)));
        only_one(name, found.collect())
    }

    /// The device for codes that a name means.
    fn keypad(&self, name: &str) -> Result<Option<Keypad<'a>>, GrantRefused> {
        let found = devices(self.systems)
            .filter(|keypad| is_named(keypad, name) && takes_codes(keypad.system, keypad.device))
            .map(|keypad| (keypad, keypad.name()));
        only_one(name, found.collect())
    }

    fn has_device(&self, name: &str) -> bool {
        devices(self.systems).any(|keypad| is_named(&keypad, name))
    }

    /// The rooms that these grants lead to.
    fn rooms_of(&self, grants: &[DesiredGrant]) -> Vec<AcsEntranceId> {
        let is_of = |system: &SystemName, door: &DoorName| {
            grants.iter().any(|grant| grant.doors_in(system).contains(door))
        };
        let rooms = self
            .doors
            .iter()
            .filter(|(_, (system, door, kind))| *kind == DoorKind::Room && is_of(&system.name, door));
        rooms.map(|(id, _)| *id).collect()
    }
}

fn devices(systems: &[SystemInventory]) -> impl Iterator<Item = Keypad<'_>> {
    systems.iter().flat_map(|system| system.devices.iter().map(move |device| Keypad { system, device }))
}

fn is_named(keypad: &Keypad<'_>, name: &str) -> bool {
    keypad.device.name.as_str() == name || keypad.name() == name
}

/// What a name means, of what it may mean, each with the name that leaves no doubt.
fn only_one<T>(name: &str, mut found: Vec<(T, String)>) -> Result<Option<T>, GrantRefused> {
    if found.len() > 1 {
        let choices = found.into_iter().map(|(_, whole)| whole).collect();
        return Err(GrantRefused::DoorUnclear { door: name.to_owned(), choices });
    }
    Ok(found.pop().map(|(one, _)| one))
}

/// A planned grant as the cloud will be told of it; its codes are not planned yet.
fn grant_of(wish: &DeskGrant, plan: &Created, targets: &Targets) -> DesiredGrant {
    let name_of = |id: AcsSystemId| {
        let found = targets.systems.iter().find(|system| system.id == id);
        found.map_or_else(|| targets.systems[0].name.clone(), |system| system.name.clone())
    };
    let doors_of = |system: &TargetSystem| DesiredDoors {
        system: system.name.clone(),
        doors: targets.doors_of(system.id).into_iter().map(|door| door.name.clone()).collect(),
    };
    let card = |method: &crate::grants::NewMethod| DesiredCard {
        access_method_id: method.id,
        system: name_of(method.system),
        state: DesiredCardState::EncodingRequired,
        why: None,
    };
    DesiredGrant {
        access_grant_id: plan.id,
        access_grant_key: wish.access_grant_key.clone(),
        reservation_key: wish.reservation_key.clone(),
        guest_name: Some(wish.guest_name.clone()),
        window: plan.window,
        doors: targets.systems.iter().map(doors_of).collect(),
        cards: plan.methods.iter().map(card).collect(),
        codes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            Admission, Capabilities, Code, Door, LaneName, Order, Origin, Outcome, ProofLevel, Refusal,
            SystemKind, Window,
        },
        protocol::{Desired, Message, Position},
        queue::{
            Accepted, LocalOrder, Rules,
            testing::{at, job, key, opened, unlock},
        },
    };

    fn system(name: &str, doors: &[(&str, DoorKind)]) -> SystemInventory {
        let proven = Some(ProofLevel::Vector);
        let door = |&(name, kind): &(&str, DoorKind)| Door {
            name: DoorName::new(name).unwrap(),
            display_name: None,
            kind,
        };
        SystemInventory {
            name: SystemName::new(name).unwrap(),
            kind: SystemKind::SaltoIs,
            time_zone: "UTC".into(),
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
                max_common: 2,
                answer_means_written: true,
                parallel_encoders: true,
            },
            override_after_deleted_card: false,
            checkout_on_last_grant: false,
            doors: doors.iter().map(door).collect(),
            encoders: Vec::new(),
            devices: Vec::new(),
        }
    }

    fn property() -> Vec<SystemInventory> {
        use DoorKind::{Common, Room};
        vec![
            system("annex", &[("101", Room), ("shed", Common)]),
            system("salto", &[("101", Room), ("102", Room), ("103", Room), ("pool", Common)]),
        ]
    }

    struct Desk {
        queue: Queue,
        _folder: tempfile::TempDir,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { queue: opened(&folder, Rules::default()), _folder: folder }
        }

        fn is_told(&mut self, epoch: u64, n: u64, grants: Vec<DesiredGrant>) {
            let up_to = Position { epoch, n };
            let told = Desired { up_to, grants, gone: Vec::new(), complete: true };
            self.queue.take_desired(&told).unwrap();
        }

        fn make(
            &mut self,
            stay: &str,
            doors: &[&str],
            hours: std::ops::Range<i64>,
        ) -> Result<DesiredGrant, GrantRefused> {
            let wish = DeskGrant {
                access_grant_key: Some(format!("{stay}/{}", doors.join("+"))),
                reservation_key: (!stay.is_empty()).then(|| key(stay)),
                guest_name: Private::new("Jane Secretsson"),
                starts_at: Some(at(hours.start * 3_600)),
                ends_at: Some(at(hours.end * 3_600)),
                doors: doors.iter().map(ToString::to_string).collect(),
                card: true,
                code: None,
            };
            let Changed { grant, orders } = self.queue.plan_grant(at(0), &wish, &property()).unwrap()?;
            assert_eq!(orders, []);
            self.queue.make_grant(at(0), &grant, "Kari").unwrap();
            Ok(grant)
        }

        fn outbox(&self) -> Vec<Message> {
            let reports = self.queue.reports_after(Position { epoch: 1, n: 0 }, 100).unwrap();
            reports.into_iter().map(|(_, message)| message).collect()
        }

        /// The cloud holds all reports.
        fn is_heard(&mut self) {
            let last = self.queue.memory().unwrap().reports.last;
            self.queue.hand_out_reports(Position { n: 0, ..last }, 100).unwrap();
            self.queue.acknowledge_reports(last);
        }

        /// The cloud was set back to before it held any report.
        fn meets_one_set_back(&mut self) {
            let epoch = self.queue.memory().unwrap().reports.last.epoch;
            self.queue.resume(at(7), 1, None, Position { epoch, n: 0 }).unwrap();
        }
    }

    fn told() -> Desk {
        let mut desk = Desk::new();
        desk.is_told(1, 0, Vec::new());
        desk
    }

    #[test]
    fn a_grant_is_there_and_in_the_outbox_at_once_and_stays_until_the_cloud_tells_it() {
        let mut desk = told();
        let grant = desk.make("stay-1", &["salto/101", "pool"], 0..24).unwrap();
        assert_eq!(grant.window, Window::new(at(0), Some(at(24 * 3_600))).unwrap());
        let doors = grant.doors_in(&SystemName::new("salto").unwrap());
        assert_eq!(doors.iter().map(DoorName::as_str).collect::<Vec<_>>(), ["101", "pool"]);
        assert_eq!(grant.cards.len(), 1);
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), std::slice::from_ref(&grant));
        let made = GrantMade { at: at(0), by: "Kari".into(), grant: grant.clone() };
        assert_eq!(desk.outbox(), [Message::GrantMade(made)]);
        // The cloud tells everything anew, and does not know of it yet.
        desk.is_told(2, 0, Vec::new());
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), std::slice::from_ref(&grant));
        desk.is_told(2, 1, vec![grant.clone()]);
        desk.is_told(3, 0, Vec::new());
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), []);
    }

    #[test]
    fn the_rules_of_stays_hold_by_what_the_site_was_told_and_what_it_made() {
        let mut desk = told();
        let first = desk.make("stay-1", &["salto/101", "102"], 0..24).unwrap();
        let mut check = |stay: &str, doors: &[&str], hours, name: Option<&str>| {
            let made = desk.make(stay, doors, hours);
            assert_eq!(made.as_ref().err().map(GrantRefused::code), name, "{stay} {doors:?}: {made:?}");
        };
        check("stay-1", &["103"], 0..24, Some("reservation_entrance_change_requires_cleanup"));
        check("stay-1", &["102", "103"], 0..24, Some("reservation_joiner_entrance_set_conflict"));
        check("stay-1", &["102"], 24..48, Some("reservation_time_frames_must_overlap"));
        check("stay-1", &["102"], 12..48, None);
        check("stay-1", &["102"], 12..48, Some("access_grant_key_already_exists"));
        check("stay-2", &["102"], 24..48, None);
        check("stay-3", &["pool"], 0..24, Some("reservation_key_not_supported"));
        check("", &["102"], 0..24, Some("reservation_key_required"));
        check("", &["pool"], 0..24, None);
        check("stay-4", &["102"], -2..0, Some("invalid_input"));
        check("stay-4", &["101"], 0..24, Some("entrance_unclear"));
        check("stay-4", &["999"], 0..24, Some("entrance_unknown"));
        check("stay-4", &["annex/101"], 0..24, None);
        assert_eq!(first.cards.len(), 1);
    }

    #[test]
    fn a_memory_that_was_set_back_asks_again_about_grants_that_the_cloud_never_told() {
        let mut desk = told();
        let grant = desk.make("stay-1", &["102"], 0..24).unwrap();
        desk.is_heard();
        let job = LocalOrder { job: job(9, unlock("gate")), origin: Origin::Person, retries: None };
        desk.queue.accept_local(at(1), job, Err(Refusal::new(Code::DeviceUnknown, "")), false).unwrap();
        desk.queue.restored(at(5)).unwrap();
        let made = GrantMade { at: at(0), by: "Kari".into(), grant: grant.clone() };
        let epoch = desk.queue.memory().unwrap().reports.last.epoch;
        let first = desk.queue.reports_after(Position { epoch, n: 0 }, 100).unwrap();
        assert_eq!(first.len(), 2);
        assert_eq!(
            first[0],
            (Position { epoch, n: 1 }, Message::GrantMade(made)),
            "before all that was not heard"
        );
        // The cloud had deleted it long ago, and says so now.
        let up_to = Position { epoch: 2, n: 1 };
        let gone = Desired { up_to, grants: Vec::new(), gone: vec![grant.access_grant_id], complete: true };
        desk.queue.take_desired(&gone).unwrap();
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), []);
    }

    #[test]
    fn a_cloud_that_heard_of_a_grant_and_never_told_it_is_asked_until_it_says_how_it_is() {
        let mut desk = told();
        let grant = desk.make("stay-1", &["102"], 0..24).unwrap();
        desk.queue.ask_about_untold().unwrap();
        assert_eq!(desk.outbox().len(), 1, "it is not heard yet");
        desk.is_heard();
        // A file from before the desk's words were kept has nothing but the grant.
        for forgets in [false, true] {
            if forgets {
                desk.queue.connection.execute("DELETE FROM desk_fact", []).unwrap();
            }
            // What was acknowledged goes along with what comes.
            desk.queue.connection.execute("DELETE FROM report", []).unwrap();
            let before = desk.queue.memory().unwrap().reports.last;
            desk.queue.ask_about_untold().unwrap();
            desk.queue.ask_about_untold().unwrap();
            let asked = desk.queue.reports_after(before, 100).unwrap();
            let [(_, Message::GrantMade(made))] = asked.as_slice() else { panic!("{asked:?}") };
            assert_eq!(made.grant, grant);
        }
        desk.queue.connection.execute("DELETE FROM report", []).unwrap();
        desk.is_told(1, 1, vec![grant]);
        let before = desk.queue.memory().unwrap().reports.last;
        desk.queue.ask_about_untold().unwrap();
        assert_eq!(desk.queue.reports_after(before, 100).unwrap(), []);
    }

    #[test]
    fn a_grant_that_is_taken_back_is_gone_and_in_the_outbox_behind_its_making() {
        let mut desk = told();
        let grant = desk.make("stay-1", &["102"], 0..24).unwrap();
        let gone = desk.queue.revoke_grant(at(5), "stay-1", "Kari").unwrap().unwrap();
        assert_eq!((gone.grant, gone.orders), (grant.clone(), Vec::new()));
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), []);
        let access_grant_id = grant.access_grant_id;
        let revoked = Message::GrantRevoked(GrantRevoked { at: at(5), by: "Kari".into(), access_grant_id });
        assert_eq!(desk.outbox()[1], revoked);
        assert_eq!(desk.queue.revoke_grant(at(5), "stay-1", "Kari").unwrap(), Err(GrantRefused::NotKnown));
        desk.make("stay-2", &["102"], 0..24).unwrap();
        desk.make("stay-2", &["102", "pool"], 0..24).unwrap();
        assert_eq!(desk.queue.revoke_grant(at(5), "stay-2", "Kari").unwrap(), Err(GrantRefused::Several(2)));
    }

    #[test]
    fn a_cloud_that_was_set_back_hears_again_what_the_desk_did_and_before_what_came_of_it() {
        let mut desk = told();
        let kept = desk.make("stay-1", &["102"], 0..24).unwrap();
        desk.make("stay-2", &["103"], 0..24).unwrap();
        desk.queue.revoke_grant(at(5), "stay-2", "Kari").unwrap().unwrap();
        let told = desk.outbox();
        desk.is_heard();
        desk.is_told(1, 1, vec![kept.clone()]);
        let order = LocalOrder { job: job(9, unlock("gate")), origin: Origin::Person, retries: None };
        let refused = Err(Refusal::new(Code::Other, "no such device"));
        desk.queue.accept_local(at(6), order, refused, false).unwrap();
        assert_eq!(told.len(), 3);
        desk.meets_one_set_back();
        let again = desk.outbox();
        assert_eq!(again[..3], told);
        assert!(
            matches!(&again[3..], [Message::Outcome(report)] if report.job_id == job(9, unlock("gate")).job_id)
        );
        // It does not know of either yet, whatever it tells of all others.
        desk.is_told(2, 1, Vec::new());
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), [kept]);
        // What is on its way is not told twice.
        desk.meets_one_set_back();
        assert_eq!(desk.outbox(), again);
    }

    #[test]
    fn a_fact_that_cannot_be_read_any_more_holds_up_nothing() {
        let mut desk = told();
        let lost = desk.make("stay-1", &["102"], 0..24).unwrap();
        let kept = desk.make("stay-2", &["103"], 0..24).unwrap();
        desk.is_heard();
        let flip = "UPDATE desk_fact SET body = zeroblob(64) WHERE grant_id = ?1";
        let flipped = desk.queue.connection.execute(flip, [lost.access_grant_id.0.as_bytes()]).unwrap();
        assert_eq!(flipped, 1);
        desk.meets_one_set_back();
        let made = GrantMade { at: at(0), by: "Kari".into(), grant: kept.clone() };
        assert_eq!(desk.outbox(), [Message::GrantMade(made)]);
        desk.is_told(2, 1, vec![lost, kept]);
    }

    #[test]
    fn a_grant_of_the_desks_is_told_again_as_its_cloud_told_it_last_and_not_once_that_is_gone() {
        let mut desk = told();
        let grant = desk.make("stay-1", &["102"], 0..24).unwrap();
        desk.is_heard();
        let longer = Window::new(at(0), Some(at(48 * 3_600))).unwrap();
        let changed = DesiredGrant { window: longer, guest_name: None, ..grant };
        desk.is_told(1, 1, vec![changed.clone()]);
        desk.meets_one_set_back();
        let made = GrantMade { at: at(0), by: "Kari".into(), grant: changed.clone() };
        assert_eq!(desk.outbox(), [Message::GrantMade(made)]);
        desk.is_heard();
        let up_to = Position { epoch: 1, n: 2 };
        let gone = vec![changed.access_grant_id];
        desk.queue.take_desired(&Desired { up_to, grants: Vec::new(), gone, complete: true }).unwrap();
        desk.meets_one_set_back();
        assert_eq!(desk.outbox(), []);
    }

    #[test]
    fn what_the_desk_did_to_a_grant_is_kept_until_the_grant_is_long_over() {
        let mut desk = told();
        desk.make("stay-1", &["102"], 0..24).unwrap();
        desk.queue.revoke_grant(at(5), "stay-1", "Kari").unwrap().unwrap();
        desk.is_heard();
        desk.queue.purge(at(24 * 3_600)).unwrap();
        desk.meets_one_set_back();
        assert_eq!(desk.outbox().len(), 2);
        desk.is_heard();
        assert!(desk.queue.purge(at(24 * 3_600 + 1)).unwrap() > 0);
        desk.meets_one_set_back();
        assert_eq!(desk.outbox(), []);
    }

    #[test]
    fn a_picture_from_before_its_cloud_heard_of_a_revocation_does_not_bring_a_grant_back() {
        let mut desk = told();
        let grant = desk.make("stay-1", &["102"], 0..24).unwrap();
        desk.is_told(1, 1, vec![grant.clone()]);
        desk.queue.revoke_grant(at(5), "stay-1", "Kari").unwrap().unwrap();
        desk.is_told(1, 2, vec![grant.clone()]);
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), []);
        desk.is_told(2, 1, vec![grant.clone()]);
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), []);
        desk.is_heard();
        desk.meets_one_set_back();
        desk.is_told(3, 1, vec![grant.clone()]);
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), [], "it is told of the revocation again");
        // It has heard of it and tells the grant all the same: it has the last word.
        desk.is_heard();
        desk.is_told(3, 2, vec![grant.clone()]);
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), [grant]);
    }

    #[test]
    fn a_picture_that_waited_while_its_cloud_heard_of_a_revocation_is_as_old_as_when_it_came() {
        let mut desk = told();
        let grant = desk.make("stay-1", &["102"], 0..24).unwrap();
        desk.queue.revoke_grant(at(5), "stay-1", "Kari").unwrap().unwrap();
        let told = |n| {
            let up_to = Position { epoch: 1, n };
            Desired { up_to, grants: vec![grant.clone()], gone: Vec::new(), complete: true }
        };
        desk.is_heard();
        desk.queue.take_desired_after(&told(1), Position { epoch: 1, n: 1 }).unwrap();
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), []);
        desk.queue.take_desired_after(&told(2), Position { epoch: 1, n: 2 }).unwrap();
        assert_eq!(desk.queue.desired_named("stay-1").unwrap(), [grant]);
    }

    #[test]
    fn a_check_out_that_was_ordered_without_knowing_of_the_desks_guest_frees_nothing() {
        let mut desk = told();
        desk.make("stay-1", &["salto/101"], 0..24).unwrap();
        let outcome = |desk: &mut Desk, n: u64, stay: &str| {
            let order =
                Order::StayCheckout { room: DoorName::new("101").unwrap(), reservation_key: key(stay) };
            let admission =
                Admission::to(LaneName::new("salto").unwrap(), vec![DoorName::new("101").unwrap()]);
            let position = Some(Position { epoch: 1, n });
            desk.queue.accept(at(1), position, job(n.into(), order), Ok(admission), false).unwrap()
        };
        assert_eq!(outcome(&mut desk, 1, "stay-1"), Accepted::Ended(Outcome::Superseded));
        assert_eq!(outcome(&mut desk, 2, "stay-2"), Accepted::Waiting);
        // Once the cloud tells the grant itself, it knew what it ordered.
        let grants = desk.queue.desired_named("stay-1").unwrap();
        desk.is_told(1, 1, grants);
        assert_eq!(outcome(&mut desk, 3, "stay-1"), Accepted::Waiting);
    }

    #[test]
    fn a_site_that_no_cloud_told_anything_makes_no_grants() {
        let mut desk = Desk::new();
        assert_eq!(desk.make("stay-1", &["102"], 0..24), Err(GrantRefused::NeverTold));
        assert_eq!(desk.outbox(), []);
    }
}
