//! Jobs of one lock that come together share one connection.

use serde_json::Value;

use crate::{radio_house::House, site::until};

const LOCKS: [(&str, &str, &str); 2] = [("doors", "101", "ttlock-1"), ("flats", "201", "august-1")];

/// Orders codes for one lock while it is out of range, so that they are there together once it is back.
fn ordered(house: &House, (system, lock, label): (&str, &str, &str), pins: &[&str]) -> Vec<Value> {
    house.sim(&format!("range {label} off"));
    let put =
        |(number, pin): (usize, &&str)| house.put(system, lock, &format!("stay-{number}"), pin, (-60, 3600));
    let jobs = pins.iter().enumerate().map(put).collect();
    house.sim(&format!("range {label} on"));
    jobs
}

#[test]
fn codes_for_one_lock_that_come_together_take_one_connection_which_ends_behind_them() {
    let Some(mut house) = House::start(&[]) else { return };
    for at in LOCKS {
        let (system, lock, label) = at;
        let pins = ["471108", "250912", "738291"];
        let before = house.count(&format!("Device1.Connect {label}"));
        let jobs = ordered(&house, at, &pins);
        for job in &jobs {
            house.reaches(job, "succeeded");
        }
        assert!(pins.iter().all(|pin| house.opens(label, pin)), "{label}");
        assert_eq!(house.count(&format!("Device1.Connect {label}")) - before, 1, "{label}");
        until("the link is let go of", || (house.sim("connected")["answer"] == "").then_some(()));
        // Whoever comes later has a connection of his own.
        house.reaches(&house.remove(system, lock, "stay-1"), "succeeded");
        assert!(!house.opens(label, "250912") && house.opens(label, "738291"), "{label}");
        assert_eq!(house.count(&format!("Device1.Connect {label}")) - before, 2, "{label}");
    }
    house.is_discreet(&["471108", "250912", "738291"]);
}

#[test]
fn a_link_that_goes_between_two_codes_is_made_anew() {
    let Some(mut house) = House::start(&[]) else { return };
    for at @ (_, _, label) in LOCKS {
        let before = house.count(&format!("Device1.Connect {label}"));
        let jobs = ordered(&house, at, &["471108", "250912", "738291"]);
        house.reaches(&jobs[0], "succeeded");
        house.sim(&format!("drop {label}"));
        for (job, pin) in jobs.iter().zip(["471108", "250912", "738291"]) {
            house.reaches(job, "succeeded");
            assert!(house.opens(label, pin), "{label}");
        }
        assert!(1 < house.count(&format!("Device1.Connect {label}")) - before, "{label}");
    }
    house.is_discreet(&["471108", "250912", "738291"]);
}
