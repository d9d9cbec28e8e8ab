//! What the site allows, whoever asks. Pure: no SQL, no clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    config::Limits,
    model::{Code, DoorName, Job, Kind, Order, Refusal, Window},
};

/// The span that [`Limits::cards_per_hour`] counts over.
pub(super) const CARD_SPAN: SignedDuration = SignedDuration::from_hours(1);

/// Judges an order by the limits that do not depend on what was done before. `rooms` are its doors that follow
/// reservations, as its driver names them.
pub(super) fn standing(
    limits: &Limits,
    now: Timestamp,
    job: &Job,
    rooms: &[DoorName],
) -> Result<(), Refusal> {
    let kind = job.order.kind();
    if limits.forbidden_kinds.contains(&kind) {
        return Err(Refusal::new(
            Code::SiteForbidsKind,
            format!("this site refuses {} jobs (limits.forbidden_kinds)", kind.as_str()),
        ));
    }
    if kind == Kind::DeviceUnlock && !limits.remote_unlock {
        return Err(Refusal::new(
            Code::SiteForbidsKind,
            "this site lets nobody open a door from afar (limits.remote_unlock)",
        ));
    }
    let mut places = places(&job.order).chain(rooms.iter().map(DoorName::as_str));
    if let Some(place) = places.find(|place| is_never_issued(limits, job, place)) {
        return Err(Refusal::new(
            Code::SiteForbidsRoom,
            format!("this site never issues {}/{place} from afar (limits.rooms_never_issued)", job.system),
        ));
    }
    validity(limits, now, &job.order)
}

/// Judges one more card after `issued` of them within the last hour.
pub(super) fn one_more_card(limits: &Limits, issued: u32) -> Result<(), Refusal> {
    if issued < limits.cards_per_hour {
        return Ok(());
    }
    Err(Refusal::new(
        Code::SiteCardLimit,
        format!("this site makes at most {} cards an hour (limits.cards_per_hour)", limits.cards_per_hour),
    ))
}

/// Judges one more job whose time has not come beside `scheduled` others. It costs its row and no lane's time, and many of
/// them must not keep the desk from its work, so there may be ten times as many as may wait otherwise.
pub(super) fn one_more_scheduled(limits: &Limits, scheduled: u64) -> Result<(), Refusal> {
    if scheduled < 10 * u64::from(limits.waiting_jobs) {
        return Ok(());
    }
    let message = format!("{scheduled} jobs wait for their time already (ten times limits.waiting_jobs)");
    Err(Refusal::new(Code::QueueFull, message))
}

/// Judges one more waiting job beside `waiting` others, without those whose time has not come.
pub(super) fn one_more_waiting(limits: &Limits, waiting: u64) -> Result<(), Refusal> {
    if waiting < u64::from(limits.waiting_jobs) {
        return Ok(());
    }
    Err(Refusal::new(Code::QueueFull, format!("{waiting} jobs wait already (limits.waiting_jobs)")))
}

/// The places to which an order gives access.
fn places(order: &Order) -> Box<dyn Iterator<Item = &str> + '_> {
    match order {
        Order::CardEncode(card) => Box::new(card.doors.iter().map(DoorName::as_str)),
        Order::StayModify(stay) => {
            Box::new([&stay.room].into_iter().chain(&stay.to_room).map(DoorName::as_str))
        }
        Order::SlotPut(slot) => Box::new([slot.device.as_str()].into_iter()),
        Order::DeviceUnlock { device } => Box::new([device.as_str()].into_iter()),
        Order::CardRead(_)
        | Order::StayCheckout { .. }
        | Order::SlotRemove { .. }
        | Order::DeviceRead { .. }
        | Order::InventoryRefresh => Box::new(std::iter::empty()),
    }
}

fn is_never_issued(limits: &Limits, job: &Job, place: &str) -> bool {
    limits.rooms_never_issued.iter().any(|never| {
        never.strip_prefix(job.system.as_str()).and_then(|rest| rest.strip_prefix('/')) == Some(place)
    })
}

fn validity(limits: &Limits, now: Timestamp, order: &Order) -> Result<(), Refusal> {
    let (from, until) = match order {
        Order::CardEncode(card) => ends_of(&card.window),
        Order::SlotPut(slot) => ends_of(&slot.window),
        Order::StayModify(stay) => (now, Some(stay.ends_at)),
        Order::CardRead(_)
        | Order::StayCheckout { .. }
        | Order::SlotRemove { .. }
        | Order::DeviceUnlock { .. }
        | Order::DeviceRead { .. }
        | Order::InventoryRefresh => return Ok(()),
    };
    let longest = limits.longest_validity;
    if until.is_some_and(|until| span(from, until) <= longest) {
        return Ok(());
    }
    let longest = SignedDuration::try_from(longest).unwrap_or(SignedDuration::MAX);
    Err(Refusal::new(
        Code::SiteValidityLimit,
        format!("this site issues nothing that is valid for more than {longest:#} (limits.longest_validity)"),
    ))
}

fn ends_of(window: &Window) -> (Timestamp, Option<Timestamp>) {
    (window.starts_at(), window.ends_at())
}

fn span(from: Timestamp, until: Timestamp) -> Duration {
    // An end before the start is no time at all.
    Duration::try_from(until.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::testing::*;

    fn code(limits: &Limits, job: &Job) -> Option<Code> {
        standing(limits, at(0), job, &[]).err().map(|refusal| refusal.code)
    }

    #[test]
    fn a_door_is_opened_from_afar_only_where_the_site_says_so() {
        let job = job(1, unlock("lobby"));
        let mut limits = Limits::default();
        assert_eq!(code(&limits, &job), Some(Code::SiteForbidsKind));
        limits.remote_unlock = true;
        assert_eq!(code(&limits, &job), None);
        limits.forbidden_kinds = vec![Kind::DeviceUnlock];
        assert_eq!(code(&limits, &job), Some(Code::SiteForbidsKind));
    }

    #[test]
    fn a_room_never_issued_is_refused_wherever_it_stands_on_the_card_and_by_its_whole_name_only() {
        let limits =
            Limits { rooms_never_issued: vec!["salto/101".into(), "onity/102".into()], ..Limits::default() };
        assert_eq!(code(&limits, &job(1, card(&["102", "101"], "a"))), Some(Code::SiteForbidsRoom));
        assert_eq!(code(&limits, &job(1, card(&["1010", "102"], "a"))), None);
    }

    #[test]
    fn a_window_that_is_too_long_or_has_no_end_is_refused() {
        let limits = Limits { longest_validity: Duration::from_secs(100), ..Limits::default() };
        let with = |until: Option<i64>| {
            let mut order = card(&["101"], "a");
            let Order::CardEncode(encode) = &mut order else { unreachable!() };
            encode.window = Window::new(at(50), until.map(at)).unwrap();
            code(&limits, &job(1, order))
        };
        assert_eq!(with(Some(150)), None);
        assert_eq!(with(Some(151)), Some(Code::SiteValidityLimit));
        assert_eq!(with(None), Some(Code::SiteValidityLimit));
    }
}
