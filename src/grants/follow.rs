//! A grant leads elsewhere: it was changed, or one of its spaces was, or its site has what it had not.

use jiff::Timestamp;

use crate::{
    model::{AccessGrantId, AccessMethodId, AcsSystemId, ReservationKey, Window},
    seams::Random,
};

use super::{
    Event, GrantProblem, Means, Mode, NewMethod, TargetDoor, Targets,
    create::{MoreMethods, methods, problem, unsupported},
    target::in_card_order,
};

/// A means that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its place among everything that the grant asks for.
    pub place: u32,
    /// Which.
    pub mode: Mode,
    /// Whether every method of it was taken back by name: nothing is made for it any more.
    pub is_declined: bool,
    /// Systems whose method of it was taken back by name: nothing is made for it there any more.
    pub declined: Vec<AcsSystemId>,
}

/// A method that a grant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldMethod {
    /// Which.
    pub id: AccessMethodId,
    /// Which request it answers.
    pub place: u32,
    /// How.
    pub mode: Mode,
    /// In which system.
    pub system: AcsSystemId,
    /// Whether it may be used as it is.
    pub is_issued: bool,
}

/// What is known of a grant that leads elsewhere.
#[derive(Debug, Clone)]
pub struct FollowFacts<'a> {
    /// Which.
    pub grant: AccessGrantId,
    /// When it held before.
    pub window_before: Window,
    /// When it holds now.
    pub window: Window,
    /// Its stay.
    pub reservation_key: Option<&'a ReservationKey>,
    /// The doors that it named before, whether their sites have them or not.
    pub before: &'a [TargetDoor],
    /// The doors that it names now, likewise.
    pub after: &'a [TargetDoor],
    /// Of those, the ones that their sites have.
    pub targets: &'a Targets,
    /// What there is for means other than cards.
    pub means: &'a Means,
    /// What was asked for.
    pub requests: &'a [Request],
    /// Its methods, without those that are being deleted.
    pub methods: &'a [HeldMethod],
    /// It lacked something before, and the feed was told.
    pub had_problem: bool,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Followed {
    /// Cards of systems that the grant leads to no more.
    pub gone: Vec<AccessMethodId>,
    /// Cards that were written for something else, and have to be written again.
    pub outdated: Vec<AccessMethodId>,
    /// Methods that can be had by now.
    pub new: Vec<NewMethod>,
    /// Cards stay as they are until one can be what the grant says.
    pub cards_wait: bool,
    /// What is wrong with the grant now; nothing means that it is fine.
    pub problem: Option<GrantProblem>,
    /// What the feed tells.
    pub events: Vec<Event>,
}

impl FollowFacts<'_> {
    fn has(&self, mode: Mode) -> bool {
        self.methods.iter().any(|method| method.mode == mode)
    }
}

/// The modes of what was asked for and not taken back by name.
#[must_use]
pub fn wanted_modes(requests: &[Request]) -> Vec<Mode> {
    requests.iter().filter(|request| !request.is_declined).map(|request| request.mode).collect()
}

/// Plans what follows for the cards and cloud keys of a grant. Where one card of a system cannot be what the grant says
/// any more, all of them stay as they are until it can.
#[must_use]
pub fn plan_follow(facts: &FollowFacts<'_>, now: Timestamp, random: &Random) -> Followed {
    let mut plan = Followed::default();
    let wanted: Vec<_> = facts.requests.iter().filter(|request| !request.is_declined).collect();
    let modes = wanted_modes(facts.requests);
    let card = |system| facts.targets.check_card(system, &facts.window, facts.reservation_key).err();
    let refused = match modes.contains(&Mode::Card) {
        true => facts.targets.systems.iter().find_map(card),
        false => None,
    };
    match refused {
        Some(refused) => {
            plan.cards_wait = true;
            plan.problem = Some(problem(refused.to_string()));
        }
        None => {
            follow_cards(facts, &mut plan);
            for request in wanted {
                plan.add(missing(facts, request, now, random));
            }
            let lacks = |mode: &Mode| *mode != Mode::CloudKey || !facts.has(*mode);
            let modes: Vec<_> = modes.into_iter().filter(lacks).collect();
            plan.problem = unsupported(&modes, facts.targets, facts.means);
        }
    }
    if let Some(problem) = plan.problem.as_ref().filter(|_| !facts.had_problem) {
        plan.events.push(Event::could_not_create(facts.grant, problem.message.clone()));
    }
    plan
}

/// Cards cannot be told from afar: one whose times or doors changed asks to be written again.
fn follow_cards(facts: &FollowFacts<'_>, plan: &mut Followed) {
    for card in facts.methods.iter().filter(|method| method.mode == Mode::Card) {
        let (was, is) = (in_card_order(facts.before, card.system), in_card_order(facts.after, card.system));
        if is.is_empty() {
            plan.gone.push(card.id);
        } else if card.is_issued && (facts.window != facts.window_before || !opens_the_same(&was, &is)) {
            plan.outdated.push(card.id);
            plan.events.push(Event::method("access_method.revoked", card.id, facts.grant));
            plan.events.push(Event::method("access_method.card_encoding_required", card.id, facts.grant));
        }
    }
}

/// Whether cards for these doors are alike: the same main one, and the others in any order.
fn opens_the_same(was: &[&TargetDoor], is: &[&TargetDoor]) -> bool {
    let ids = |doors: &[&TargetDoor]| {
        let mut ids: Vec<_> = doors.iter().map(|door| door.id).collect();
        ids.sort_unstable();
        ids
    };
    was.first().map(|door| door.id) == is.first().map(|door| door.id) && ids(was) == ids(is)
}

/// The methods that a request has not, and can have.
fn missing(facts: &FollowFacts<'_>, request: &Request, now: Timestamp, random: &Random) -> MoreMethods {
    let of_request = |method: &&HeldMethod| method.place == request.place && method.mode == request.mode;
    let mut held = facts.methods.iter().filter(of_request);
    let make = |targets: &Targets| {
        methods(facts.grant, request.place, &[request.mode], targets, facts.means, now, random)
    };
    match request.mode {
        Mode::Card => {
            let held: Vec<_> = held.map(|method| method.system).collect();
            let mut systems = facts.targets.systems.clone();
            systems.retain(|system| !held.contains(&system.id) && !request.declined.contains(&system.id));
            match systems.is_empty() {
                true => MoreMethods::default(),
                false => make(&Targets { systems, doors: facts.targets.doors.clone() }),
            }
        }
        Mode::CloudKey if facts.means.cloud_keys && held.next().is_none() => make(facts.targets),
        // Codes have a book of their own, and a mobile key that cannot be handed out is a method that says so.
        Mode::CloudKey | Mode::Code | Mode::MobileKey => MoreMethods::default(),
    }
}

impl Followed {
    fn add(&mut self, more: MoreMethods) {
        self.new.extend(more.methods);
        self.events.extend(more.events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::target::tests::{at, property};
    use uuid::Uuid;

    /// A stay with one card request, followed from doors to doors.
    struct Stay {
        request: Request,
        methods: Vec<HeldMethod>,
        had_problem: bool,
        means: Means,
    }

    impl Stay {
        fn new(mode: Mode) -> Self {
            let request = Request { place: 0, mode, is_declined: false, declined: Vec::new() };
            Self { request, methods: Vec::new(), had_problem: false, means: Means::default() }
        }

        /// With an issued card of `salto`.
        fn with_a_card() -> Self {
            let mut stay = Self::new(Mode::Card);
            stay.methods.push(HeldMethod {
                id: AccessMethodId(Uuid::from_u128(1)),
                place: 0,
                mode: Mode::Card,
                system: property(&["101"]).systems[0].id,
                is_issued: true,
            });
            stay
        }

        fn follows(&self, before: &[&str], after: &[&str]) -> Followed {
            let key = ReservationKey::new("stay-1").unwrap();
            let window = Window::new(at(0), Some(at(100))).unwrap();
            let (was, is) = (property(before), property(after));
            let facts = FollowFacts {
                grant: AccessGrantId(Uuid::nil()),
                window_before: window,
                window,
                reservation_key: Some(&key),
                before: &was.doors,
                after: &is.doors,
                targets: &is,
                means: &self.means,
                requests: std::slice::from_ref(&self.request),
                methods: &self.methods,
                had_problem: self.had_problem,
            };
            plan_follow(&facts, at(0), &Random::seeded(1))
        }
    }

    fn counts(followed: &Followed) -> (usize, usize, usize, bool) {
        let (gone, outdated) = (followed.gone.len(), followed.outdated.len());
        (gone, outdated, followed.new.len(), followed.problem.is_some())
    }

    #[test]
    fn a_card_asks_to_be_written_again_when_its_doors_or_its_main_door_change() {
        let stay = Stay::with_a_card();
        let check = |before: &[&str], after: &[&str], outdated: usize| {
            let followed = stay.follows(before, after);
            assert_eq!(counts(&followed), (0, outdated, 0, false), "{before:?} {after:?}");
            assert_eq!(followed.events.len(), outdated * 2);
        };
        check(&["101", "+a", "+b"], &["101", "+b", "+a"], 0);
        check(&["101", "+a"], &["101"], 1);
        check(&["101"], &["102"], 1);
        check(&["101", "102"], &["102", "101"], 1);
    }

    #[test]
    fn a_card_goes_with_the_last_door_of_its_system_and_comes_back_with_the_first() {
        let stay = Stay::with_a_card();
        let followed = stay.follows(&["101", "other/7"], &["other/7"]);
        assert_eq!(counts(&followed), (1, 0, 1, false));
        let bare = Stay::new(Mode::Card).follows(&[], &["101"]);
        assert_eq!(counts(&bare), (0, 0, 1, false));
        let told: Vec<_> = bare.events.iter().map(|event| event.kind).collect();
        assert_eq!(told, ["access_method.created", "access_method.card_encoding_required"]);
    }

    #[test]
    fn what_was_taken_back_by_name_is_not_made_again() {
        let mut stay = Stay::new(Mode::Card);
        stay.request.declined.push(property(&["101"]).systems[0].id);
        assert_eq!(counts(&stay.follows(&[], &["101"])), (0, 0, 0, false));
        assert_eq!(counts(&stay.follows(&[], &["101", "other/7"])), (0, 0, 1, false));
        stay.request.is_declined = true;
        assert_eq!(counts(&stay.follows(&[], &["101", "other/7"])), (0, 0, 0, false));
        assert_eq!(counts(&stay.follows(&["101"], &[])), (0, 0, 0, false), "nor is it missing");
    }

    #[test]
    fn what_cannot_be_had_is_told_once_and_is_fine_when_it_can_be() {
        let mut stay = Stay::with_a_card();
        let grown = stay.follows(&["101"], &["101", "102", "103"]);
        assert_eq!((counts(&grown), grown.events.len()), ((0, 0, 0, true), 1));
        stay.had_problem = true;
        assert!(stay.follows(&["101"], &["101", "102", "103"]).events.is_empty());
        assert_eq!(counts(&stay.follows(&["101", "102", "103"], &["101", "102"])), (0, 1, 0, false));

        let mut stay = Stay::new(Mode::CloudKey);
        assert_eq!(counts(&stay.follows(&["101"], &["101"])), (0, 0, 0, true));
        stay.means.cloud_keys = true;
        assert_eq!(counts(&stay.follows(&["101"], &["101"])), (0, 0, 1, false));
    }
}
