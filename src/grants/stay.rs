//! A stay ends at another time than its lock system was told.

use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{AcsEntranceId, AcsSystemId, Job, JobId, Order, Priority, ReservationKey, StayModify, Window},
    seams::Random,
};

use super::Targets;

/// How long a bridge may take to come back and pass it on.
const MODIFY_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// A room whose stay is to end at another time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StayEnd {
    /// Its system.
    pub system: AcsSystemId,
    /// The room.
    pub room: AcsEntranceId,
    /// When the stay ends now.
    pub ends_at: Timestamp,
    /// The job for the bridge.
    pub job: Job,
}

/// Plans to tell lock systems until when a stay is: to the latest end of its live grants, `windows`, in the rooms that it
/// `holds`, where the system takes such a word and was not `told` this end already.
///
/// Cards do not follow: an offline lock goes by the end printed on a card, until the card is encoded again.
#[must_use]
pub fn plan_stay_ends(
    key: &ReservationKey,
    windows: &[Window],
    holds: &Targets,
    told: &[(AcsEntranceId, Timestamp)],
    now: Timestamp,
    random: &Random,
) -> Vec<StayEnd> {
    let ends: Option<Vec<_>> = windows.iter().map(Window::ends_at).collect();
    let Some(ends_at) = ends.and_then(|ends| ends.into_iter().max()).filter(|end| *end > now) else {
        return Vec::new();
    };
    let is_news = |room: &AcsEntranceId| !told.contains(&(*room, ends_at));
    holds
        .rooms()
        .filter(|room| is_news(&room.id))
        .filter_map(|room| {
            let system = holds.systems.iter().find(|system| system.id == room.system)?;
            system.capabilities.modify_stay?;
            let order = Order::StayModify(StayModify {
                room: room.name.clone(),
                to_room: None,
                reservation_key: key.clone(),
                ends_at,
            });
            let job = Job {
                job_id: JobId(random.uuid()),
                system: system.name.clone(),
                priority: Priority::Background,
                created_at: now,
                expires_at: ends_at.min(now + MODIFY_WITHIN),
                order,
            };
            Some(StayEnd { system: system.id, room: room.id, ends_at, job })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        grants::target::tests::{at, door, property},
        model::ProofLevel,
    };

    fn window(to: i64) -> Window {
        Window::new(at(-100), Some(at(to))).unwrap()
    }

    /// Rooms and ends of what is planned for `101` and `102`, and for `other/7`, whose system takes no such word.
    fn planned(windows: &[Window], told: &[(AcsEntranceId, Timestamp)]) -> Vec<(AcsEntranceId, Timestamp)> {
        let mut holds = property(&["101", "102", "other/7", "+lobby"]);
        holds.systems[0].capabilities.modify_stay = Some(ProofLevel::Vector);
        let key = ReservationKey::new("stay-1").unwrap();
        let plan = plan_stay_ends(&key, windows, &holds, told, at(0), &Random::seeded(1));
        for end in &plan {
            assert!(end.job.expires_at <= end.ends_at, "nobody is told of an end that has passed");
        }
        plan.into_iter().map(|end| (end.room, end.ends_at)).collect()
    }

    #[test]
    fn a_stay_lasts_as_long_as_the_last_of_its_grants() {
        let both = |to| vec![(door("101"), at(to)), (door("102"), at(to))];
        assert_eq!(planned(&[window(100), window(300), window(200)], &[]), both(300));
        assert_eq!(planned(&[window(200)], &[]), both(200));
        assert_eq!(planned(&[], &[]), []);
        assert_eq!(planned(&[window(-10)], &[]), [], "it is over");
        let open = Window::new(at(0), None).unwrap();
        assert_eq!(planned(&[window(100), open], &[]), [], "there is no end to tell");
    }

    #[test]
    fn a_room_is_told_an_end_once() {
        let told = [(door("101"), at(200)), (door("102"), at(100))];
        assert_eq!(planned(&[window(200)], &told), [(door("102"), at(200))]);
    }
}
