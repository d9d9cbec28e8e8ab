//! Instants as the property's clocks show them, for wires that carry local time in minutes without a zone.
//!
//! An end is rounded up to the minute, a start down. One night a year an hour comes twice, and nobody knows which of the
//! two a lock takes such a time for. An end there may hold until the later of the two, and that is what is reported. A
//! start there is written as the last minute before that hour, which comes once: the card opens early, and never late.
//! In whole hours nothing is printed that the clocks leave out, and an end that is to hold for all of the time is printed
//! behind the hour that comes twice.

use jiff::{
    RoundMode, Timestamp, TimestampRound, ToSpan, Unit,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

use crate::config::HourRounding;

/// The property's clocks.
#[derive(Debug, Clone)]
pub(super) struct Wall(TimeZone);

impl Wall {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self(zone)
    }

    /// The zone's name.
    pub(super) fn zone_name(&self) -> &str {
        self.0.iana_name().unwrap_or("Etc/Unknown")
    }

    /// What they show, to the minute.
    pub(super) fn now(&self, at: Timestamp) -> DateTime {
        self.minute(at, RoundMode::Floor)
    }

    /// From when a card opens that is to open from an instant on.
    pub(super) fn start(&self, at: Timestamp) -> DateTime {
        let mut start = self.minute(at, RoundMode::Floor);
        while self.comes_twice(start) {
            start = start.saturating_sub(1.minute());
        }
        start
    }

    /// Until when a card opens that is to open until an instant.
    pub(super) fn end(&self, at: Timestamp) -> DateTime {
        self.minute(at, RoundMode::Ceil)
    }

    /// From when a card opens that is to open from an instant on, where times have no minutes.
    pub(super) fn start_in_hours(&self, at: Timestamp, rounding: HourRounding) -> DateTime {
        let mut start = hour(self.0.to_datetime(at));
        match rounding {
            HourRounding::Inside => {
                while self.is_left_out(start) || self.start_of(start).is_some_and(|opens| opens < at) {
                    start = start.saturating_add(1.hour());
                }
            }
            HourRounding::Outside => {
                while self.is_left_out(start) || self.comes_twice(start) {
                    start = start.saturating_sub(1.hour());
                }
            }
        }
        start
    }

    /// Until when a card opens that is to open until an instant, where times have no minutes.
    pub(super) fn end_in_hours(&self, at: Timestamp, rounding: HourRounding) -> DateTime {
        let mut end = hour(self.0.to_datetime(at));
        match rounding {
            HourRounding::Inside => {
                while self.is_left_out(end) || self.end_of(end).is_some_and(|ends| at < ends) {
                    end = end.saturating_sub(1.hour());
                }
            }
            HourRounding::Outside => {
                // Of an hour that comes twice, the first may be meant.
                while self.is_left_out(end) || self.start_of(end).is_some_and(|ends| ends < at) {
                    end = end.saturating_add(1.hour());
                }
            }
        }
        end
    }

    /// The instant of a printed start, as early as it may be meant.
    pub(super) fn start_of(&self, printed: DateTime) -> Option<Timestamp> {
        Some(self.0.to_ambiguous_zoned(printed).compatible().ok()?.timestamp())
    }

    /// The instant of a printed end: of a repeated hour the later one; of a skipped one, as far after the change.
    pub(super) fn end_of(&self, printed: DateTime) -> Option<Timestamp> {
        Some(self.0.to_ambiguous_zoned(printed).later().ok()?.timestamp())
    }

    fn is_left_out(&self, at: DateTime) -> bool {
        matches!(self.0.to_ambiguous_zoned(at).offset(), AmbiguousOffset::Gap { .. })
    }

    fn comes_twice(&self, at: DateTime) -> bool {
        matches!(self.0.to_ambiguous_zoned(at).offset(), AmbiguousOffset::Fold { .. })
    }

    fn minute(&self, at: Timestamp, mode: RoundMode) -> DateTime {
        let round = TimestampRound::new().smallest(Unit::Minute).mode(mode);
        self.0.to_datetime(at.round(round).unwrap_or(at))
    }
}

/// The whole hour that a time lies in.
fn hour(at: DateTime) -> DateTime {
    at.date().at(at.hour(), 0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_whole_hours_a_card_opens_within_what_was_granted_or_in_all_of_it_as_the_site_chose() {
        let check = |zone: &str, at: &str, inside: [&str; 2], outside: [&str; 2]| {
            let wall = Wall::new(TimeZone::get(zone).unwrap());
            let at: Timestamp = at.parse().unwrap();
            for (rounding, expected) in [(HourRounding::Inside, inside), (HourRounding::Outside, outside)] {
                let (start, end) = (wall.start_in_hours(at, rounding), wall.end_in_hours(at, rounding));
                let printed = [start, end].map(|it| it.strftime("%d %H:%M").to_string());
                assert_eq!(printed, expected, "{zone} {at} {rounding:?}");
                // Of an hour that comes twice, the first or the second.
                for meant in [Wall::start_of, Wall::end_of] {
                    let [opens, ends] = [start, end].map(|printed| meant(&wall, printed).unwrap());
                    match rounding {
                        HourRounding::Inside => assert!(at <= opens && ends <= at, "{at}: {opens} to {ends}"),
                        HourRounding::Outside => {
                            assert!(opens <= at && at <= ends, "{at}: {opens} to {ends}");
                        }
                    }
                }
            }
        };
        check("Europe/Oslo", "2026-11-24T10:00:00Z", ["24 11:00", "24 11:00"], ["24 11:00", "24 11:00"]);
        check("Europe/Oslo", "2026-11-24T10:30:00Z", ["24 12:00", "24 11:00"], ["24 11:00", "24 12:00"]);
        check("Europe/Oslo", "2026-11-24T10:00:01Z", ["24 12:00", "24 11:00"], ["24 11:00", "24 12:00"]);
        check("Europe/Oslo", "2026-11-24T22:30:00Z", ["25 00:00", "24 23:00"], ["24 23:00", "25 00:00"]);
        check("Asia/Kolkata", "2026-11-24T10:00:00Z", ["24 16:00", "24 15:00"], ["24 15:00", "24 16:00"]);
        // The hour from two to three comes twice: nobody knows which of the two is meant.
        check("Europe/Oslo", "2026-10-25T00:00:00Z", ["25 02:00", "25 01:00"], ["25 01:00", "25 02:00"]);
        check("Europe/Oslo", "2026-10-25T00:30:00Z", ["25 03:00", "25 01:00"], ["25 01:00", "25 03:00"]);
        check("Europe/Oslo", "2026-10-25T01:00:00Z", ["25 03:00", "25 02:00"], ["25 01:00", "25 03:00"]);
        check("Europe/Oslo", "2026-10-25T01:30:00Z", ["25 03:00", "25 02:00"], ["25 01:00", "25 03:00"]);
        // The hour from two to three is left out.
        check("Europe/Oslo", "2027-03-28T00:30:00Z", ["28 03:00", "28 01:00"], ["28 01:00", "28 03:00"]);
        // Half an hour is left out, from two on.
        check(
            "Australia/Lord_Howe",
            "2026-10-03T15:40:00Z",
            ["04 03:00", "04 01:00"],
            ["04 01:00", "04 03:00"],
        );
    }

    #[test]
    fn a_start_in_the_hour_that_comes_twice_is_written_as_the_minute_before_it() {
        let check = |zone: &str, at: &str, expected: &str| {
            let wall = Wall::new(TimeZone::get(zone).unwrap());
            assert_eq!(wall.start(at.parse().unwrap()).to_string(), expected, "{zone} {at}");
        };
        check("Europe/Oslo", "2026-10-24T23:59:59Z", "2026-10-25T01:59:00");
        for at in
            ["2026-10-25T00:00:00Z", "2026-10-25T00:30:59Z", "2026-10-25T01:00:00Z", "2026-10-25T01:59:00Z"]
        {
            check("Europe/Oslo", at, "2026-10-25T01:59:00");
        }
        check("Europe/Oslo", "2026-10-25T02:00:00Z", "2026-10-25T03:00:00");
        // Half an hour comes twice there.
        check("Australia/Lord_Howe", "2026-04-04T14:45:00Z", "2026-04-05T01:29:00");
        check("Australia/Lord_Howe", "2026-04-04T15:30:00Z", "2026-04-05T02:00:00");
        // An hour is left out.
        check("Europe/Oslo", "2027-03-28T01:00:00Z", "2027-03-28T03:00:00");
    }

    #[test]
    fn an_end_is_rounded_up_and_may_hold_until_the_later_of_two() {
        let wall = Wall::new(TimeZone::get("Europe/Oslo").unwrap());
        let end = wall.end("2026-10-25T00:29:01Z".parse().unwrap());
        assert_eq!(end.to_string(), "2026-10-25T02:30:00");
        assert_eq!(wall.end_of(end), Some("2026-10-25T01:30:00Z".parse().unwrap()));
        assert_eq!(wall.start_of(end), Some("2026-10-25T00:30:00Z".parse().unwrap()));
    }
}
