//! A lock by Bluetooth keeps local time and no zone: where the clocks are changed it is told at once.

use std::{fs, path::Path};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::Value;

use crate::{radio_house::House, site::until};

/// A zone that is UTC until an instant, and an hour ahead from then on for a month: in the format of RFC 9636, by a rule alone.
fn zone_that_changes_at(change: Timestamp) -> Vec<u8> {
    let at = change.to_zoned(TimeZone::UTC);
    let day = |days: i32| {
        let date = at.date().saturating_add(jiff::Span::new().days(days));
        date.day_of_year_no_leap().unwrap_or(59)
    };
    let mut file = Vec::new();
    // Once for readers of 32 bits, once for the others.
    for _ in 0..2 {
        file.extend(b"TZif2");
        file.extend([0; 15]);
        for count in [0_u32, 0, 0, 0, 1, 4] {
            file.extend(count.to_be_bytes());
        }
        file.extend([0; 6]);
        file.extend(b"STD\0");
    }
    let rule = format!("\nSTD0DST,J{}/{},J{}/0\n", day(0), at.time(), day(30));
    file.extend(rule.as_bytes());
    file
}

fn put_zone(folder: &Path, name: &str, zone: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, zone).unwrap();
}

#[test]
fn a_lock_is_told_the_time_as_soon_as_its_clocks_are_changed() {
    let more = |lock: &Value| format!(", keys_file = {}, time_zone = \"Test/Soon\"", lock["keys_file"]);
    let Some(mut house) = House::prepare(&[], more) else { return };
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let change = now + SignedDuration::from_secs(25);
    let zones = house.site.folder.path().join("zones");
    let zone = zone_that_changes_at(change);
    put_zone(&zones, "Test/Soon", &zone);
    put_zone(&zones, "Europe/Oslo", &zone);
    let bus = house.bus.clone();
    house.site.start_agent_with(|command| command.env("DBUS_SYSTEM_BUS_ADDRESS", bus).env("TZDIR", &zones));
    house.site.healthy();
    house.reaches(&house.put("doors", "101", "stay-1", "471108", (-60, 3600)), "succeeded");
    let ahead = || {
        let shown = house.sim("lock ttlock-1 clock")["answer"].as_str().unwrap().to_owned();
        let shown: jiff::civil::DateTime = shown.parse().unwrap();
        let shown = shown.to_zoned(TimeZone::UTC).unwrap().timestamp();
        shown.duration_since(Timestamp::now()).as_secs()
    };
    let first = ahead();
    let was_early = Timestamp::now() < change;
    assert!(!was_early || first.abs() < 10, "{first} s ahead");
    until("it is an hour ahead", || ((ahead() - 3600).abs() < 10).then_some(()));
    assert!(change <= Timestamp::now());
    assert!(house.opens("ttlock-1", "471108"));
}
