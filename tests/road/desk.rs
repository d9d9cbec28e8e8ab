//! `latchd status` and `latchd jobs` as a person at the site reads them.

use std::process::Output;

use serde_json::Value;

use crate::site::{Site, latchd, until};

fn ask(site: &Site, words: &[&str]) -> Output {
    latchd().args(words).arg("--socket").arg(site.folder.path().join("agent.sock")).output().unwrap()
}

fn told(site: &Site, words: &[&str]) -> String {
    let output = ask(site, words);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    for name in ["Secretsson", "Jane", "stay-"] {
        assert!(!text.contains(name), "{words:?} shows {name:?}: {text}");
    }
    text
}

/// The id of the only job in a state.
fn only(site: &Site, state: &str) -> String {
    let jobs: Value =
        serde_json::from_str(&told(site, &["jobs", "list", "--json", "--state", state])).unwrap();
    assert_eq!(jobs.as_array().unwrap().len(), 1, "{jobs}");
    jobs[0]["job_id"].as_str().unwrap().to_owned()
}

/// The words of the line that begins so.
fn line<'a>(text: &'a str, beginning: &str) -> Vec<&'a str> {
    let found = text.lines().find(|line| line.trim_start().starts_with(beginning));
    found.unwrap_or_else(|| panic!("no line {beginning:?} in\n{text}")).split_whitespace().collect()
}

#[test]
fn a_person_sees_what_was_done_what_was_not_and_what_is_in_doubt_and_no_name() {
    let mut site = Site::start();
    site.card("jane", "stay-1", &["101", "pool"]);
    let (_, method) = site.grant("Jane Secretsson", "stay-2", &["102"]);
    site.control("fault error TD 1");
    assert_eq!(site.ended(&site.encode(&method, "1"))["status"], "error");
    let (_, method) = site.grant("Jane Secretsson", "stay-3", &["103"]);
    let attempt = site.encode(&method, "2");
    site.waits_for_card("2");
    site.agent().kill();
    site.restart_agent();
    assert_eq!(site.ended(&attempt)["error"]["type"], "encoding_interrupted");
    site.healthy();
    until("every report is acknowledged", || (site.status()["unacknowledged"] == 0).then_some(()));

    let status = told(&site, &["status"]);
    assert!(
        status.starts_with("latchd ") && status.contains(" at Test House (Europe/Oslo), up for "),
        "{status}"
    );
    assert_eq!(line(&status, "Link")[1..3], ["up", "since"], "{status}");
    assert_eq!(line(&status, "Jobs").join(" "), "Jobs 1 succeeded, 1 failed, 1 unknown", "{status}");
    assert_eq!(line(&status, "house ")[..5], ["house", "salto_is", "ready", "7", "2"], "{status}");

    let list = told(&site, &["jobs", "list"]);
    let rows: Vec<Vec<&str>> = list.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
    let states: Vec<String> = rows.iter().map(|row| row[4..].join(" ")).collect();
    assert_eq!(states, ["unknown: agent_stopped", "failed: room_unknown", "succeeded"], "{list}");
    assert!(rows.iter().all(|row| row[3] == "card.encode"), "{list}");

    let done = told(&site, &["jobs", "show", &only(&site, "succeeded")]);
    assert_eq!(line(&done, "State"), ["State", "succeeded"], "{done}");
    assert_eq!(line(&done, "Doors"), ["Doors", "101,", "pool"], "{done}");
    assert_eq!(line(&done, "Sent"), ["Sent", "once"], "{done}");
    assert!(done.contains("begins a stay"), "{done}");

    let failed = told(&site, &["jobs", "show", &only(&site, "failed")]);
    assert_eq!(line(&failed, "Outcome:"), ["Outcome:", "failed"], "{failed}");
    let words = failed.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.ends_with("(room_unknown, the device says TD)"), "{failed}");

    let doubt = told(&site, &["jobs", "show", &only(&site, "unknown")]);
    assert_eq!(line(&doubt, "Encoder"), ["Encoder", "2"], "{doubt}");
    assert_eq!(line(&doubt, "Outcome:"), ["Outcome:", "unknown"], "{doubt}");
    assert!(doubt.contains("agent_stopped"), "{doubt}");

    let none = ask(&site, &["jobs", "show", "00000000-0000-4000-8000-000000000000"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8(none.stderr).unwrap().contains("there is no job"));
}
