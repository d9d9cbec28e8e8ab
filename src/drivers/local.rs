//! Windows for devices that keep local time without an offset.
//!
//! A start is rounded down, an end up. Where a change of clocks repeats an hour, a start in it is that hour's beginning and
//! an end in it that hour's end: access is never cut short.

use jiff::{
    RoundMode, Timestamp, TimestampRound, Unit,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

use crate::model::Window;

/// A window as a device keeps it that knows nothing finer than `unit`.
pub(super) fn window(window: Window, unit: Unit, zone: &TimeZone) -> (DateTime, Option<DateTime>) {
    let starts_at = local(window.starts_at(), unit, RoundMode::Floor, zone);
    (starts_at, window.ends_at().map(|end| local(end, unit, RoundMode::Ceil, zone)))
}

fn local(at: Timestamp, unit: Unit, mode: RoundMode, zone: &TimeZone) -> DateTime {
    let at = at.round(TimestampRound::new().smallest(unit).mode(mode)).unwrap_or(at);
    let shown = zone.to_datetime(at);
    let AmbiguousOffset::Fold { before, after } = zone.to_ambiguous_timestamp(shown).offset() else {
        return shown;
    };
    let change = before.to_timestamp(shown).ok().and_then(|first| zone.following(first).next());
    let Some(change) = change.map(|change| change.timestamp()) else {
        return shown;
    };
    let (begins, ends) = (after.to_datetime(change), before.to_datetime(change));
    match mode {
        RoundMode::Floor => begins,
        // The first time that the clock shows it, nothing was repeated yet.
        _ if shown == begins && at < change => shown,
        _ => ends,
    }
}
