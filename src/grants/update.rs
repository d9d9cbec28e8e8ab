//! A grant is to hold at another time, or to lead elsewhere.

use jiff::Timestamp;

use crate::model::{AcsEntranceId, ReservationKey, Window};

use super::{Mode, Refused, ReservationFacts, Targets, create::join_reservation};

/// What is known of the grant that is to change.
#[derive(Debug, Clone)]
pub struct UpdateFacts<'a> {
    /// When it holds now.
    pub window: Window,
    /// Its stay.
    pub reservation_key: Option<&'a ReservationKey>,
    /// The stay's other grants.
    pub others: &'a ReservationFacts,
    /// The doors it is to lead to.
    pub targets: &'a Targets,
    /// Whether it leads to a device as well.
    pub has_devices: bool,
    /// The means that were asked for.
    pub modes: &'a [Mode],
}

/// A grant as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated {
    /// When it holds.
    pub window: Window,
    /// The rooms to remember for its stay, where it alone decides about them.
    pub reservation_rooms: Option<Vec<AcsEntranceId>>,
}

/// Plans a change of times or doors; what is absent stays.
///
/// # Errors
/// When the grant could not be right as it would be.
pub fn plan_update(
    facts: &UpdateFacts<'_>,
    starts_at: Option<Timestamp>,
    ends_at: Option<Option<Timestamp>>,
    now: Timestamp,
) -> Result<Updated, Refused> {
    if ends_at.flatten().is_some_and(|end| end <= now) {
        return Err(Refused::EndsInPast);
    }
    let window =
        Window::new(starts_at.unwrap_or(facts.window.starts_at()), ends_at.unwrap_or(facts.window.ends_at()))
            .map_err(|_| Refused::EndsBeforeStart)?;
    if facts.targets.doors.is_empty() && !facts.has_devices {
        return Err(Refused::NothingTargeted);
    }
    if facts.modes.contains(&Mode::Card) {
        for system in &facts.targets.systems {
            facts.targets.check_card(system, &window, facts.reservation_key)?;
        }
    }
    let reservation_rooms = match facts.reservation_key {
        Some(_) => {
            let rooms = join_reservation(facts.targets, facts.others, &window)?;
            facts.others.windows.is_empty().then_some(rooms)
        }
        None => None,
    };
    Ok(Updated { window, reservation_rooms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::target::tests::{at, door, property};

    fn window(from: i64, to: i64) -> Window {
        Window::new(at(from), Some(at(to))).unwrap()
    }

    #[test]
    fn what_is_not_named_stays_and_the_rules_of_a_new_grant_hold() {
        let key = ReservationKey::new("stay-1").unwrap();
        let (targets, alone) = (property(&["101"]), ReservationFacts::default());
        let facts = UpdateFacts {
            window: window(0, 100),
            reservation_key: Some(&key),
            others: &alone,
            targets: &targets,
            has_devices: false,
            modes: &[Mode::Card],
        };
        let plan = |starts, ends| plan_update(&facts, starts, ends, at(10));
        assert_eq!(plan(None, Some(Some(at(200)))).unwrap().window, window(0, 200));
        assert_eq!(plan(Some(at(50)), None).unwrap().window, window(50, 100));
        assert_eq!(plan(None, None).unwrap().reservation_rooms, Some(vec![door("101")]));
        assert_eq!(plan(None, Some(Some(at(10)))), Err(Refused::EndsInPast));
        assert_eq!(plan(Some(at(100)), None), Err(Refused::EndsBeforeStart));
        assert_eq!(
            plan(None, Some(None)).unwrap_err().parameter(),
            Some("ends_at"),
            "cards need an end here"
        );
        let nowhere = UpdateFacts { targets: &Targets::default(), reservation_key: None, ..facts.clone() };
        assert_eq!(plan_update(&nowhere, None, None, at(10)), Err(Refused::NothingTargeted));
    }

    #[test]
    fn a_change_keeps_a_stay_together() {
        let key = ReservationKey::new("stay-1").unwrap();
        let others = ReservationFacts { rooms: vec![door("101")], windows: vec![window(0, 100)] };
        let check = |doors: &[&str], ends: i64, expected: Option<Refused>| {
            let targets = property(doors);
            let facts = UpdateFacts {
                window: window(0, 100),
                reservation_key: Some(&key),
                others: &others,
                targets: &targets,
                has_devices: false,
                modes: &[Mode::Card],
            };
            let planned = plan_update(&facts, Some(at(ends - 10)), Some(Some(at(ends))), at(0));
            assert_eq!(planned.as_ref().err(), expected.as_ref());
            assert!(planned.is_ok_and(|planned| planned.reservation_rooms.is_none()) == expected.is_none());
        };
        check(&["101", "+lobby"], 50, None);
        check(&["102"], 50, Some(Refused::ReservationElsewhere));
        check(&["101"], 200, Some(Refused::ReservationTimesApart));
    }
}
