//! Three locks of two makes at once, each with troubles of its own; their tables and the agent's own records judge.

use std::{collections::BTreeSet, thread};

use serde_json::Value;

use crate::{radio_house::House, site::until};

/// System, name and label of each lock.
const LOCKS: [(&str, &str, &str); 3] =
    [("doors", "101", "ttlock-1"), ("doors", "102", "ttlock-2"), ("flats", "201", "august-1")];

/// A slot, and the PIN that it is to have; none where it is to be emptied.
type Wish = (&'static str, Option<&'static str>);

impl House {
    /// The PINs in a lock's table.
    fn pins(&self, label: &str) -> BTreeSet<String> {
        let table = self.sim(&format!("lock {label} slots"));
        match table["slots"].as_array() {
            Some(slots) => slots.iter().map(|slot| slot["pin"].as_str().unwrap().to_owned()).collect(),
            None => {
                let entries = table["answer"].as_str().unwrap().split("; ").filter(|entry| !entry.is_empty());
                entries.map(|entry| entry.split(' ').next().unwrap().to_owned()).collect()
            }
        }
    }

    /// Waits until every trouble that was asked for has come: the last may be that of a link's end.
    fn has_had_its_troubles(&self) {
        let is_to_come = |label: &str| {
            let of_lock = self.sim(&format!("lock {label} fault show"));
            let of_lock = match of_lock.get("answer") {
                Some(answer) => *answer != "0 to come",
                None => ["cut_before", "cut_after", "cut_answer", "lose", "duplicate"]
                    .iter()
                    .any(|fault| !of_lock["faults"].as_object().unwrap()[*fault].is_null()),
            };
            of_lock || self.sim(&format!("faults {label}"))["answer"] != "0"
        };
        for (_, _, label) in LOCKS {
            until(&format!("every trouble at {label} has come"), || (!is_to_come(label)).then_some(()));
        }
    }

    /// Orders all of it at all three locks at once, and waits until each has succeeded. The jobs.
    fn all_at_once(&self, wishes: [&[Wish]; 3]) -> Vec<Value> {
        let order = |(system, lock): (&str, &str), (slot, pin): &Wish| match pin {
            Some(pin) => self.put(system, lock, slot, pin, (-60, 3600)),
            None => self.remove(system, lock, slot),
        };
        let ordered: Vec<Value> = thread::scope(|scope| {
            let at_work = LOCKS.iter().zip(wishes).map(|((system, lock, _), wishes)| {
                scope.spawn(move || wishes.iter().map(|wish| order((system, lock), wish)).collect::<Vec<_>>())
            });
            let at_work: Vec<_> = at_work.collect();
            at_work.into_iter().flat_map(|orders| orders.join().unwrap()).collect()
        });
        for job in &ordered {
            self.reaches(job, "succeeded");
        }
        ordered
    }
}

#[test]
fn three_locks_at_once_with_troubles_at_each_get_exactly_what_was_ordered() {
    let Some(mut house) = House::start(&["--neighbours", "3"]) else { return };
    let troubles = [
        // A connection that hangs, a link lost in a write, a value twice, an answer lost, another link lost.
        "fault ttlock-1 connect hang",
        "fault ttlock-1 write pass",
        "fault ttlock-1 write pass",
        "fault ttlock-1 write drop",
        "lock ttlock-1 fault double 6",
        "lock ttlock-1 fault mute 11",
        "lock ttlock-1 fault drop_after 15",
        // One that is refused for as long as one goes on trying, a table that is late, a subscription refused, a value cut
        // short, a frame without an answer, a write that is done and costs the link.
        "fault ttlock-2 connect error Failed le-connection-abort-by-local",
        "fault ttlock-2 connect error Failed le-connection-timeout",
        "fault ttlock-2 connect drop",
        "resolve ttlock-2 late 600",
        "fault ttlock-2 notify error Failed Operation failed with ATT error: 0x0e",
        "fault ttlock-2 value pass",
        "fault ttlock-2 value truncate",
        "lock ttlock-2 fault mute 9",
        "lock ttlock-2 fault drop_before 14",
        // A link lost in the middle, a value twice, one lost, one damaged, a connection that hangs, an end that does.
        "fault august-1 write pass",
        "fault august-1 write drop",
        "fault august-1 connect pass",
        "fault august-1 connect hang",
        "lock august-1 fault duplicate 3",
        "lock august-1 fault cut-after 9",
        "lock august-1 fault lose 14",
        "fault august-1 disconnect hang",
    ];
    for trouble in troubles {
        house.sim(trouble);
    }
    let mut jobs = house.all_at_once([
        &[("stay-1", Some("110001")), ("stay-2", Some("110002")), ("stay-3", Some("110003"))],
        &[("stay-1", Some("220001")), ("stay-2", Some("220002")), ("stay-3", Some("220003"))],
        &[("stay-1", Some("330001")), ("stay-2", Some("330002")), ("stay-3", Some("330003"))],
    ]);
    house.has_had_its_troubles();
    for trouble in [
        "resolve ttlock-2 whole",
        "resolve ttlock-1 drop 5",
        "fault ttlock-1 connect pass",
        "lock ttlock-1 fault drop_after 7",
        "fault ttlock-2 connect hang",
        "lock ttlock-2 fault double 4",
        "fault ttlock-2 write pass",
        "fault ttlock-2 write reply_drop",
        "lock august-1 fault cut-answer 6",
        "fault august-1 connect error Failed le-connection-abort-by-local",
    ] {
        house.sim(trouble);
    }
    let before = house.count("Device1.Connect ttlock-1");
    let second = thread::scope(|scope| {
        let house = &house;
        // Nothing comes about at the first lock until its table appears.
        scope.spawn(move || {
            until("it was tried", || (before < house.count("Device1.Connect ttlock-1")).then_some(()));
            house.sim("resolve ttlock-1 whole");
        });
        house.all_at_once([
            &[("stay-1", Some("110004")), ("stay-2", None), ("stay-4", Some("110005"))],
            &[("stay-1", Some("220004")), ("stay-2", None), ("stay-4", Some("220005"))],
            &[("stay-1", Some("330004")), ("stay-2", None), ("stay-4", Some("330005"))],
        ])
    });
    jobs.extend(second);
    house.has_had_its_troubles();
    // Links lost where the code is told, which is not done then.
    for trouble in [
        "lock ttlock-1 fault drop_before 4",
        "lock ttlock-2 fault drop_before 5",
        "lock august-1 fault cut-before 6",
    ] {
        house.sim(trouble);
    }
    jobs.extend(house.all_at_once([
        &[("stay-5", Some("110006"))],
        &[("stay-5", Some("220006"))],
        &[("stay-5", Some("330006"))],
    ]));
    house.has_had_its_troubles();

    for ((_, _, label), wanted) in LOCKS.iter().zip([
        ["110003", "110004", "110005", "110006"],
        ["220003", "220004", "220005", "220006"],
        ["330003", "330004", "330005", "330006"],
    ]) {
        assert_eq!(house.pins(label), wanted.map(String::from).into(), "{label}");
        assert!(wanted.iter().all(|pin| house.opens(label, pin)), "{label}");
    }
    for job in &jobs {
        let shown = house.shown(job);
        assert_eq!(shown["reports"].as_array().unwrap().len(), 1, "{shown}");
        assert_eq!(shown["reports"][0]["outcome"]["state"], "succeeded", "{shown}");
    }
    assert_eq!(house.site.jobs("succeeded"), Some(21));
    // The codes' own ends, an hour ahead; and those of the six codes that are no more.
    assert_eq!(house.site.jobs("waiting"), Some(12));
    assert_eq!(house.site.jobs("superseded"), Some(6));
    for state in ["received", "sent", "unknown", "failed", "expired", "cancelled"] {
        assert_eq!(house.site.jobs(state), Some(0), "{state}");
    }
    until("no link is held", || (house.sim("connected")["answer"] == "").then_some(()));
    let scans = ["Adapter1.StartDiscovery", "Adapter1.StopDiscovery"].map(|call| house.count(call));
    assert_eq!(scans[0], scans[1], "every scan was ended");
    house.is_discreet(&["11000", "22000", "33000"]);
}
