//! A grant is taken back, as far as that is possible from afar.

use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{
        AccessGrantId, AccessMethodId, AcsEntranceId, AcsSystemId, ActionAttemptId, Job, JobId, Order,
        Priority, ReservationKey,
    },
    seams::Random,
};

use super::{Event, Targets};

/// How long a bridge may take to come back and free a room.
const CHECKOUT_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// A job of a method that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingJob {
    /// Which.
    pub job: JobId,
    /// The attempt that waits for it.
    pub attempt: ActionAttemptId,
    /// Whether the bridge may know of it.
    pub handed: bool,
}

/// What is known of one method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodFacts {
    /// Which.
    pub id: AccessMethodId,
    /// Its system.
    pub system: AcsSystemId,
    /// What became of it so far.
    pub card: CardFate,
    /// Its job under way.
    pub pending: Option<PendingJob>,
}

/// What became of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardFate {
    /// Nothing was ever written.
    Never,
    /// It was written, or may have been.
    MayExist {
        /// Until when it opens; without an end, until it is taken back.
        opens_until: Option<Timestamp>,
    },
}

impl CardFate {
    /// Whether a card may still open a door.
    #[must_use]
    pub fn may_open(self, now: Timestamp) -> bool {
        match self {
            Self::Never => false,
            Self::MayExist { opens_until } => opens_until.is_none_or(|end| end > now),
        }
    }
}

/// What is known of the grant that goes.
#[derive(Debug, Clone)]
pub struct DeleteFacts<'a> {
    /// Which.
    pub grant: AccessGrantId,
    /// Its methods.
    pub methods: &'a [MethodFacts],
    /// Its reservation, when no other live grant has it.
    pub last_of: Option<&'a ReservationKey>,
    /// The rooms of that reservation.
    pub rooms: &'a Targets,
    /// Systems where an earlier grant of that reservation left cards that still open.
    pub earlier_cards: &'a [AcsSystemId],
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Methods that are gone at once.
    pub gone: Vec<AccessMethodId>,
    /// Methods that stay to be seen, because a card opens or is being written.
    pub kept: Vec<AccessMethodId>,
    /// Jobs to take back, if nothing was sent yet.
    pub cancel: Vec<JobId>,
    /// Attempts that end now, because their job never left.
    pub ended: Vec<ActionAttemptId>,
    /// Rooms to free.
    pub checkouts: Vec<Checkout>,
    /// What the feed tells.
    pub events: Vec<Event>,
}

/// A room to free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// Its system.
    pub system: AcsSystemId,
    /// The room.
    pub room: AcsEntranceId,
    /// The job for the bridge.
    pub job: Job,
}

/// Plans the end of a grant. A card that a lock believes cannot be unwritten: its method stays to be seen until its
/// printed end. A room is freed only for the reservation's last grant, and only where the site allows it.
#[must_use]
pub fn plan_delete(facts: &DeleteFacts<'_>, now: Timestamp, random: &Random) -> Deleted {
    let mut plan = Deleted {
        gone: Vec::new(),
        kept: Vec::new(),
        cancel: Vec::new(),
        ended: Vec::new(),
        checkouts: Vec::new(),
        events: vec![Event::grant("access_grant.deleted", facts.grant)],
    };
    let mut systems = facts.earlier_cards.to_vec();
    for method in facts.methods {
        let told = Event::method("access_method.deleted", method.id, facts.grant);
        plan.events.push(told);
        if let Some(pending) = method.pending {
            plan.cancel.push(pending.job);
            if !pending.handed {
                plan.ended.push(pending.attempt);
            }
        }
        // A card that is being written may open as well. Its bridge frees nothing that another stay holds, so that
        // a room for which no card comes of it is safe.
        if method.card.may_open(now) || method.pending.is_some_and(|pending| pending.handed) {
            systems.push(method.system);
            plan.kept.push(method.id);
        } else {
            plan.gone.push(method.id);
        }
    }
    if let Some(key) = facts.last_of {
        plan.checkouts = plan_checkouts(key, facts.rooms, &systems, now, random);
    }
    plan
}

/// Plans to free the rooms that a stay has left altogether, in those systems where it may have left cards, and only
/// where the site allows it.
#[must_use]
pub fn plan_checkouts(
    key: &ReservationKey,
    left: &Targets,
    systems: &[AcsSystemId],
    now: Timestamp,
    random: &Random,
) -> Vec<Checkout> {
    left.rooms()
        .filter(|room| systems.contains(&room.system))
        .filter_map(|room| {
            let system = left.systems.iter().find(|system| system.id == room.system)?;
            let allowed = system.checkout_on_last_grant && system.capabilities.checkout.is_some();
            allowed.then(|| Checkout {
                system: system.id,
                room: room.id,
                job: Job {
                    job_id: JobId(random.uuid_at(now)),
                    system: system.name.clone(),
                    priority: Priority::Background,
                    created_at: now,
                    expires_at: now + CHECKOUT_WITHIN,
                    order: Order::StayCheckout { room: room.name.clone(), reservation_key: key.clone() },
                },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::target::tests::{at, property};
    use uuid::Uuid;

    fn method(rooms: &Targets, card: CardFate, pending: Option<bool>) -> MethodFacts {
        MethodFacts {
            id: AccessMethodId(Uuid::nil()),
            system: rooms.systems[0].id,
            card,
            pending: pending.map(|handed| PendingJob {
                job: JobId(Uuid::nil()),
                attempt: ActionAttemptId(Uuid::nil()),
                handed,
            }),
        }
    }

    fn plan(rooms: &Targets, method: MethodFacts, last: bool) -> Deleted {
        let key = ReservationKey::new("stay-1").unwrap();
        let facts = DeleteFacts {
            grant: AccessGrantId(Uuid::nil()),
            methods: &[method],
            last_of: last.then_some(&key),
            rooms,
            earlier_cards: &[],
        };
        plan_delete(&facts, at(0), &Random::seeded(1))
    }

    const OPENS: CardFate = CardFate::MayExist { opens_until: None };

    #[test]
    fn what_was_never_written_vanishes_and_its_unsent_job_is_taken_back() {
        let rooms = property(&["101"]);
        let plan = plan(&rooms, method(&rooms, CardFate::Never, Some(false)), true);
        assert_eq!((plan.gone.len(), plan.kept.len()), (1, 0));
        assert_eq!((plan.cancel.len(), plan.ended.len()), (1, 1));
        assert!(plan.checkouts.is_empty(), "no card, no stay to free");
    }

    #[test]
    fn a_card_being_written_or_written_stays_to_be_seen_and_an_ended_one_does_not() {
        let rooms = property(&["101"]);
        let kept = |card, pending| plan(&rooms, method(&rooms, card, pending), false).kept.len();
        assert_eq!(kept(CardFate::Never, Some(true)), 1);
        assert_eq!(kept(OPENS, None), 1);
        let opens_until = Some(at(0));
        assert_eq!(kept(CardFate::MayExist { opens_until }, None), 0);
    }

    #[test]
    fn a_room_is_freed_also_for_a_card_that_is_being_written() {
        let rooms = property(&["101"]);
        let checkouts = |handed| plan(&rooms, method(&rooms, CardFate::Never, handed), true).checkouts.len();
        assert_eq!((checkouts(Some(true)), checkouts(Some(false)), checkouts(None)), (1, 0, 0));
    }

    #[test]
    fn a_room_is_freed_for_the_last_grant_only_and_only_where_the_site_allows_it() {
        let rooms = property(&["101", "102"]);
        assert_eq!(plan(&rooms, method(&rooms, OPENS, None), true).checkouts.len(), 2);
        assert!(plan(&rooms, method(&rooms, OPENS, None), false).checkouts.is_empty());
        let rooms = property(&["other/7"]);
        assert!(plan(&rooms, method(&rooms, OPENS, None), true).checkouts.is_empty());
    }
}
