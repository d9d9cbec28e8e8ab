//! A grant is asked for.

use jiff::Timestamp;

use crate::{
    model::{AccessGrantId, AccessMethodId, AcsEntranceId, AcsSystemId, ReservationKey, Window},
    seams::Random,
};

use super::{Event, GrantProblem, Mode, Refused, Targets};

/// What decides about a new grant, beside its doors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrantRequest {
    /// The stay, if it is one.
    pub reservation_key: Option<ReservationKey>,
    /// Start; without one it is the moment of the call.
    pub starts_at: Option<Timestamp>,
    /// End; without one it holds until it is taken back.
    pub ends_at: Option<Timestamp>,
    /// The means asked for, in order.
    pub modes: Vec<Mode>,
    /// What is there for them beside the doors.
    pub means: Means,
}

/// What there is for means other than cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Means {
    /// It leads to a device.
    pub devices: bool,
    /// One of the devices knows cards by their numbers.
    pub card_numbers: bool,
    /// Mobile keys can be handed out.
    pub mobile_keys: bool,
    /// One of the devices can be opened from afar.
    pub cloud_keys: bool,
    /// The system of the first device.
    pub system: Option<AcsSystemId>,
}

/// What is known of the reservation that a grant names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReservationFacts {
    /// Its rooms, as its first grant named them; empty where it has no live grant.
    pub rooms: Vec<AcsEntranceId>,
    /// The windows of its live grants.
    pub windows: Vec<Window>,
}

/// A grant as it is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: AccessGrantId,
    /// When it holds.
    pub window: Window,
    /// Its methods.
    pub methods: Vec<NewMethod>,
    /// The rooms to remember for a reservation that begins with this grant.
    pub reservation_rooms: Vec<AcsEntranceId>,
    /// What is wrong with it from the start.
    pub problems: Vec<GrantProblem>,
    /// What the feed tells.
    pub events: Vec<Event>,
}

/// A method as it is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMethod {
    /// Its id.
    pub id: AccessMethodId,
    /// Which of the requested modes it answers.
    pub place: u32,
    /// How.
    pub mode: Mode,
    /// In which system.
    pub system: AcsSystemId,
}

/// Plans a new grant: one card for each access system it leads to.
///
/// A means that no door supports does not refuse the grant; the grant says so.
///
/// # Errors
/// When the grant cannot be right.
pub fn plan_create(
    request: &GrantRequest,
    targets: &Targets,
    reservation: &ReservationFacts,
    now: Timestamp,
    random: &Random,
) -> Result<Created, Refused> {
    let window = window(request, now)?;
    if targets.doors.is_empty() && !request.means.devices {
        return Err(Refused::NothingTargeted);
    }
    let key = request.reservation_key.as_ref();
    if request.modes.contains(&Mode::Card) {
        for system in &targets.systems {
            targets.check_card(system, &window, key)?;
        }
    }
    let reservation_rooms = match key {
        Some(_) => join_reservation(targets, reservation, &window)?,
        None => Vec::new(),
    };

    let id = AccessGrantId(random.uuid_at(now));
    let MoreMethods { methods, problems, events: told } =
        methods(id, 0, &request.modes, targets, &request.means, now, random);
    let events = [vec![Event::grant("access_grant.created", id)], told].concat();
    Ok(Created { id, window, methods, reservation_rooms, problems, events })
}

/// Methods to be stored beside others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MoreMethods {
    /// The methods; those of codes are a [`Book`](super::codes::Book)'s.
    pub methods: Vec<NewMethod>,
    /// What is wrong from the start.
    pub problems: Vec<GrantProblem>,
    /// What the feed tells.
    pub events: Vec<Event>,
}

/// Plans more methods for a grant that is there, behind the `first_place` means that were asked for before.
///
/// # Errors
/// When a card cannot be what the grant says.
#[expect(clippy::too_many_arguments, reason = "each is a fact of its own")]
pub fn plan_more_methods(
    grant: AccessGrantId,
    window: &Window,
    key: Option<&ReservationKey>,
    first_place: u32,
    modes: &[Mode],
    targets: &Targets,
    means: &Means,
    now: Timestamp,
    random: &Random,
) -> Result<MoreMethods, Refused> {
    if modes.contains(&Mode::Card) {
        for system in &targets.systems {
            targets.check_card(system, window, key)?;
        }
    }
    Ok(methods(grant, first_place, modes, targets, means, now, random))
}

pub(super) fn methods(
    grant: AccessGrantId,
    first_place: u32,
    modes: &[Mode],
    targets: &Targets,
    means: &Means,
    now: Timestamp,
    random: &Random,
) -> MoreMethods {
    let mut more = MoreMethods::default();
    let first_system = targets.systems.first().map(|system| system.id).or(means.system);
    for (place, &mode) in (first_place..).zip(modes) {
        let (systems, then): (Vec<_>, _) = match mode {
            Mode::Code => continue,
            Mode::Card => (
                targets.systems.iter().map(|system| system.id).collect(),
                "access_method.card_encoding_required",
            ),
            Mode::MobileKey if means.mobile_keys => {
                (first_system.into_iter().collect(), "access_method.issued")
            }
            Mode::MobileKey => (first_system.into_iter().collect(), "access_method.failed_to_issue"),
            Mode::CloudKey if means.cloud_keys => {
                (first_system.into_iter().collect(), "access_method.issued")
            }
            Mode::CloudKey => continue,
        };
        for system in systems {
            let id = AccessMethodId(random.uuid_at(now));
            more.events.push(Event::method("access_method.created", id, grant));
            more.events.push(Event::method(then, id, grant));
            more.methods.push(NewMethod { id, place, mode, system });
        }
    }
    more.problems.extend(unsupported(modes, targets, means));
    for problem in &more.problems {
        more.events.push(Event::could_not_create(grant, problem.message.clone()));
    }
    more
}

fn window(request: &GrantRequest, now: Timestamp) -> Result<Window, Refused> {
    let starts_at = request.starts_at.unwrap_or(now);
    if request.ends_at.is_some_and(|end| end <= now) {
        return Err(Refused::EndsInPast);
    }
    Window::new(starts_at, request.ends_at).map_err(|_| Refused::EndsBeforeStart)
}

pub(super) fn join_reservation(
    targets: &Targets,
    reservation: &ReservationFacts,
    window: &Window,
) -> Result<Vec<AcsEntranceId>, Refused> {
    let asked: Vec<_> = targets.rooms().map(|room| room.id).collect();
    if asked.is_empty() {
        return Err(Refused::ReservationKeyNotSupported);
    }
    if reservation.windows.is_empty() {
        return Ok(asked);
    }
    let held = |room: &&AcsEntranceId| reservation.rooms.contains(room);
    match asked.iter().filter(held).count() {
        0 => Err(Refused::ReservationElsewhere),
        held if held < asked.len() => Err(Refused::ReservationRoomsConflict),
        _ if !reservation.windows.iter().all(|other| other.overlaps(window)) => {
            Err(Refused::ReservationTimesApart)
        }
        _ => Ok(Vec::new()),
    }
}

/// What no door and no device supports, so far as nothing else says so.
pub(super) fn unsupported(modes: &[Mode], targets: &Targets, means: &Means) -> Option<GrantProblem> {
    let is_missing = |mode: &&Mode| match mode {
        Mode::Card => targets.systems.is_empty() && !means.card_numbers,
        // Its book says so, and no more once a device takes it.
        Mode::Code => false,
        // One that cannot be handed out says so itself.
        Mode::MobileKey => false,
        Mode::CloudKey => !means.cloud_keys,
    };
    let missing: Vec<_> = modes.iter().filter(is_missing).map(|mode| mode.as_str()).collect();
    (!missing.is_empty()).then(|| problem(format!("No targeted door supports: {}", missing.join(", "))))
}

pub(super) fn problem(message: String) -> GrantProblem {
    GrantProblem { code: GrantProblem::CANNOT_CREATE, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::target::tests::{at, door, property};

    fn plan(request: &GrantRequest, targets: &Targets) -> Result<Created, Refused> {
        plan_beside(request, targets, &ReservationFacts::default())
    }

    fn plan_beside(
        request: &GrantRequest,
        targets: &Targets,
        reservation: &ReservationFacts,
    ) -> Result<Created, Refused> {
        plan_create(request, targets, reservation, at(0), &Random::seeded(1))
    }

    fn stay(from: i64, to: i64) -> GrantRequest {
        GrantRequest {
            reservation_key: Some(ReservationKey::new("stay-1").unwrap()),
            starts_at: Some(at(from)),
            ends_at: Some(at(to)),
            modes: vec![Mode::Card],
            means: Means::default(),
        }
    }

    #[test]
    fn a_card_is_made_for_each_system_and_asks_to_be_encoded() {
        let created = plan(&stay(0, 100), &property(&["101", "+lobby", "other/7"])).unwrap();
        assert_eq!(created.methods.len(), 2);
        let told: Vec<_> = created.events.iter().map(|event| event.kind).collect();
        assert_eq!(
            told,
            [
                "access_grant.created",
                "access_method.created",
                "access_method.card_encoding_required",
                "access_method.created",
                "access_method.card_encoding_required",
            ]
        );
        assert_eq!(created.reservation_rooms, [door("101"), door("other/7")]);
    }

    #[test]
    fn windows_that_cannot_be_are_refused_and_a_missing_start_is_now() {
        let doors = property(&["101"]);
        assert_eq!(plan(&stay(50, 50), &doors), Err(Refused::EndsBeforeStart));
        assert_eq!(plan(&stay(-50, 0), &doors), Err(Refused::EndsInPast));
        let mut request = stay(0, 100);
        request.starts_at = None;
        assert_eq!(plan(&request, &doors).unwrap().window.starts_at(), at(0));
        request.ends_at = None;
        assert_eq!(plan(&request, &doors).unwrap_err().parameter(), Some("ends_at"));
    }

    #[test]
    fn rooms_and_reservation_keys_need_each_other() {
        let mut request = stay(0, 100);
        assert_eq!(plan(&request, &property(&["+lobby"])), Err(Refused::ReservationKeyNotSupported));
        request.reservation_key = None;
        assert!(plan(&request, &property(&["+lobby"])).is_ok());
        assert_eq!(plan(&request, &property(&["+lobby", "101"])), Err(Refused::ReservationKeyRequired));
        request.modes = vec![Mode::Code];
        assert!(plan(&request, &property(&["101"])).is_ok());
        assert_eq!(plan(&request, &Targets::default()), Err(Refused::NothingTargeted));
    }

    #[test]
    fn more_doors_than_a_card_carries_are_refused_by_name() {
        let check = |doors: &[&str], words: &str| {
            let refused = plan(&stay(0, 100), &property(doors)).unwrap_err();
            assert_eq!(refused.parameter(), Some("acs_entrance_ids"));
            assert!(refused.to_string().contains(words), "{refused}");
        };
        check(&["101", "102", "103"], "at most 2 rooms; 3");
        check(&["101", "+a", "+b", "+c"], "at most 2 common doors; 3");
    }

    #[test]
    fn a_joiner_has_the_rooms_of_the_stay_and_overlaps_all_of_it() {
        let live = ReservationFacts {
            rooms: vec![door("101"), door("102")],
            windows: vec![*Window::new(at(0), Some(at(100))).as_ref().unwrap()],
        };
        let check = |request: GrantRequest, doors: &[&str], expected: Option<Refused>| {
            assert_eq!(plan_beside(&request, &property(doors), &live).err(), expected);
        };
        check(stay(50, 80), &["101", "+lobby"], None);
        check(stay(50, 80), &["101", "102"], None);
        check(stay(50, 80), &["101", "103"], Some(Refused::ReservationRoomsConflict));
        check(stay(50, 80), &["103"], Some(Refused::ReservationElsewhere));
        check(stay(100, 200), &["101"], Some(Refused::ReservationTimesApart));
    }

    #[test]
    fn means_that_no_door_supports_are_told_and_do_not_refuse_the_grant() {
        let mut request = stay(0, 100);
        request.modes = vec![Mode::Code, Mode::Card, Mode::CloudKey];
        let created = plan(&request, &property(&["101"])).unwrap();
        assert_eq!(created.methods.len(), 1);
        assert_eq!(created.methods[0].place, 1);
        assert_eq!(created.problems[0].code, "cannot_create_requested_access_methods");
        let told = created.events.last().unwrap();
        assert_eq!(told.kind, "access_grant.could_not_create_requested_access_methods");
        assert!(told.message.as_ref().unwrap().ends_with("supports: cloud_key"));
    }

    #[test]
    fn devices_alone_are_targets_and_their_keys_are_issued_at_once() {
        let mut request = stay(0, 100);
        request.reservation_key = None;
        request.modes = vec![Mode::Code, Mode::CloudKey, Mode::MobileKey, Mode::Card];
        let system = property(&["101"]).systems[0].id;
        request.means = Means { devices: true, cloud_keys: true, system: Some(system), ..Means::default() };
        let created = plan(&request, &Targets::default()).unwrap();
        let told: Vec<_> = created.events.iter().map(|event| event.kind).collect();
        assert_eq!(
            told,
            [
                "access_grant.created",
                "access_method.created",
                "access_method.issued",
                "access_method.created",
                "access_method.failed_to_issue",
                "access_grant.could_not_create_requested_access_methods",
            ]
        );
        assert_eq!(created.methods.iter().map(|method| method.place).collect::<Vec<_>>(), [1, 2]);
        assert!(created.problems[0].message.ends_with("card"), "{:?}", created.problems);
    }
}
