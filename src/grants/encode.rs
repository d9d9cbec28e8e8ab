//! A card is to be written.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{
        AccessMethodId, AcsEncoderId, AcsEntranceId, AcsSystemId, ActionAttemptId, CardEncode, DoorName,
        EncoderName, Job, JobId, Order, Priority, Private, ReservationKey, Window,
    },
    seams::Random,
};

use super::{Mode, Refused, TargetSystem, Targets};

/// How long a person may take to lay a card down.
pub const CARD_WAIT: Duration = Duration::from_secs(60);
/// A card job that has not begun by then is not begun: the person has gone.
pub(super) const START_WITHIN: SignedDuration = SignedDuration::from_secs(75);
/// A little later the cloud ends the attempt of a job that never reached its bridge.
pub(super) const UNSENT_AFTER: SignedDuration = SignedDuration::from_secs(80);
/// A job that began at the last moment, waited for the whole card wait and was answered late is over by then.
pub(super) const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(75 + 60 + 30);

/// What is known of the card that is to be written.
#[derive(Debug, Clone)]
pub struct EncodeFacts<'a> {
    /// Which method.
    pub method: AccessMethodId,
    /// What it is.
    pub mode: Mode,
    /// Its system.
    pub system: &'a TargetSystem,
    /// The doors of its grant.
    pub targets: &'a Targets,
    /// A room of its grant that the system no longer has.
    pub lost_room: Option<DoorName>,
    /// The stay of its grant.
    pub reservation_key: Option<&'a ReservationKey>,
    /// The window of its grant.
    pub window: Window,
    /// Its grant is deleted, and shown only because a card still opens.
    pub deleted: bool,
    /// It is written already.
    pub is_issued: bool,
    /// It may have been written.
    pub in_doubt: bool,
    /// A deleted card of the stay still opens one of the rooms, and no card was written or ordered since that begins the
    /// stay anew.
    pub after_deleted_card: bool,
    /// The attempt that is under way.
    pub pending: Option<(ActionAttemptId, AcsEncoderId)>,
    /// For the lock system's own lists.
    pub guest_name: Option<Private>,
    /// Which encoder.
    pub encoder: AcsEncoderId,
    /// Its name in its system.
    pub encoder_name: &'a EncoderName,
    /// Its system.
    pub encoder_system: AcsSystemId,
}

/// What an encode call leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encode {
    /// The attempt that is under way already.
    Same(ActionAttemptId),
    /// A new attempt.
    New {
        /// Its id.
        attempt: ActionAttemptId,
        /// The job for the bridge.
        job: Box<Job>,
        /// The doors on the card.
        doors: Vec<AcsEntranceId>,
        /// Ended then if the job was never handed to the bridge.
        unsent_at: Timestamp,
        /// Ended then in any case.
        silent_at: Timestamp,
    },
}

/// Plans the writing of a card. Override or join is not decided here: the agent's door ledger does, at the moment of
/// writing.
///
/// # Errors
/// When it cannot be written, or is being written elsewhere.
pub fn plan_encode(facts: EncodeFacts<'_>, now: Timestamp, random: &Random) -> Result<Encode, Refused> {
    if facts.mode != Mode::Card {
        return Err(Refused::NotACard { mode: facts.mode.as_str() });
    }
    if facts.encoder_system != facts.system.id {
        return Err(Refused::EncoderElsewhere);
    }
    match facts.pending {
        Some((attempt, encoder)) if encoder == facts.encoder => return Ok(Encode::Same(attempt)),
        Some(_) => return Err(Refused::AlreadyEncoding),
        None => {}
    }
    let doors = facts.targets.doors_of(facts.system.id);
    let not_ready = |why: &str| Err(Refused::NotReady { why: why.to_owned() });
    if facts.deleted {
        return not_ready("The access grant of this card is deleted");
    }
    if facts.in_doubt {
        return not_ready(
            "This card may have been written already: read it on an encoder, or say at the desk what became of it",
        );
    }
    if facts.is_issued {
        return not_ready("This card is written; ask for another access method for a second card");
    }
    if facts.window.is_over(now) {
        return not_ready("The access grant of this card has ended");
    }
    if let Some(room) = facts.lost_room {
        return not_ready(&format!(
            "The access system no longer has room {room}: a card written now would not open it"
        ));
    }
    if doors.is_empty() {
        return not_ready("No door of the access grant is left in the access system of this card");
    }
    facts.targets.check_card(facts.system, &facts.window, facts.reservation_key)?;

    let follows_reservations = |kind| kind == crate::model::DoorKind::Room;
    let reservation_key = doors
        .iter()
        .any(|door| follows_reservations(door.kind))
        .then(|| facts.reservation_key.cloned())
        .flatten();
    let order = Order::CardEncode(CardEncode {
        encoder: facts.encoder_name.clone(),
        doors: doors.iter().map(|door| door.name.clone()).collect(),
        reservation_key,
        window: facts.window,
        access_method_id: facts.method,
        guest_name: facts.guest_name,
        card_wait_seconds: u16::try_from(CARD_WAIT.as_secs()).unwrap_or(u16::MAX),
        begin_again: facts.after_deleted_card && facts.system.override_after_deleted_card,
    });
    Ok(Encode::New {
        attempt: ActionAttemptId(random.uuid_at(now)),
        job: Box::new(Job {
            job_id: JobId(random.uuid_at(now)),
            system: facts.system.name.clone(),
            priority: Priority::Desk,
            created_at: now,
            expires_at: now + START_WITHIN,
            order,
        }),
        doors: doors.iter().map(|door| door.id).collect(),
        unsent_at: now + UNSENT_AFTER,
        silent_at: now + SILENT_AFTER,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::target::tests::{at, door, property};

    /// Plans for a card of `101` and `+lobby`, with the facts changed as the case says.
    fn plan(change: impl FnOnce(&mut EncodeFacts<'_>)) -> Result<Encode, Refused> {
        plan_at(&property(&["+lobby", "101"]), change)
    }

    fn plan_at(targets: &Targets, change: impl FnOnce(&mut EncodeFacts<'_>)) -> Result<Encode, Refused> {
        let key = ReservationKey::new("stay-1").unwrap();
        let desk = EncoderName::new("1").unwrap();
        let mut facts = EncodeFacts {
            method: AccessMethodId(uuid::Uuid::nil()),
            mode: Mode::Card,
            system: &targets.systems[0],
            targets,
            lost_room: None,
            reservation_key: Some(&key),
            window: Window::new(at(0), Some(at(100))).unwrap(),
            deleted: false,
            is_issued: false,
            in_doubt: false,
            after_deleted_card: false,
            pending: None,
            guest_name: None,
            encoder: AcsEncoderId(uuid::Uuid::nil()),
            encoder_name: &desk,
            encoder_system: targets.systems[0].id,
        };
        change(&mut facts);
        plan_encode(facts, at(0), &Random::seeded(1))
    }

    #[test]
    fn a_card_job_names_its_rooms_first_and_waits_no_longer_than_a_person_does() {
        let Encode::New { job, doors, unsent_at, silent_at, .. } = plan(|_| ()).unwrap() else {
            panic!("a new attempt")
        };
        assert_eq!(doors, [door("101"), door("+lobby")]);
        assert!(job.expires_at < unsent_at && unsent_at < silent_at);
        let Order::CardEncode(card) = job.order else { panic!("a card") };
        assert_eq!(card.doors[0].as_str(), "101");
        assert_eq!(card.card_wait_seconds, 60);
        assert_eq!(card.reservation_key.unwrap().as_str(), "stay-1");
    }

    #[test]
    fn after_a_deleted_card_the_stay_begins_anew_where_the_site_says_so() {
        let mut targets = property(&["101"]);
        let mut check = |site_says_so, after_deleted_card, begin_again| {
            targets.systems[0].override_after_deleted_card = site_says_so;
            let planned = plan_at(&targets, |facts| facts.after_deleted_card = after_deleted_card);
            let Ok(Encode::New { job, .. }) = planned else { panic!("{planned:?}") };
            let Order::CardEncode(card) = job.order else { panic!("a card") };
            assert_eq!(card.begin_again, begin_again);
        };
        check(true, true, true);
        check(true, false, false);
        check(false, true, false);
    }

    #[test]
    fn a_second_click_is_the_same_attempt_and_on_another_encoder_a_conflict() {
        let pending = ActionAttemptId(uuid::Uuid::nil());
        let here = AcsEncoderId(uuid::Uuid::nil());
        assert_eq!(plan(|facts| facts.pending = Some((pending, here))), Ok(Encode::Same(pending)));
        let elsewhere = AcsEncoderId(uuid::Uuid::max());
        assert_eq!(plan(|facts| facts.pending = Some((pending, elsewhere))), Err(Refused::AlreadyEncoding));
    }

    #[test]
    fn what_cannot_be_written_is_refused_by_name() {
        fn check(name: &str, change: impl FnOnce(&mut EncodeFacts<'_>)) {
            assert_eq!(plan(change).unwrap_err().name(), name);
        }
        let not_ready = "access_method_not_ready_for_encoding";
        check("access_method_not_a_card", |facts| facts.mode = Mode::Code);
        check("acs_encoder_of_another_system", |facts| {
            facts.encoder_system = AcsSystemId(uuid::Uuid::max());
        });
        check(not_ready, |facts| facts.in_doubt = true);
        check(not_ready, |facts| facts.is_issued = true);
        check(not_ready, |facts| facts.deleted = true);
        check(not_ready, |facts| facts.lost_room = DoorName::new("102").ok());
        check(not_ready, |facts| {
            facts.window = Window::new(at(-100), Some(at(0))).unwrap();
        });
        check("reservation_key_required", |facts| facts.reservation_key = None);
    }
}
