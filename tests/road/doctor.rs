//! `latchd doctor` at a property that is well, and at one whose agent is away.

use serde_json::Value;

use crate::site::{Site, latchd};

fn doctor(site: &Site) -> (Option<i32>, Vec<Value>) {
    let mut command = latchd();
    command.args(["doctor", "--json", "--config"]).arg(site.folder.path().join("agent.toml"));
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
}

fn verdict<'a>(found: &'a [Value], subject: &str) -> &'a str {
    let finding = found.iter().find(|finding| finding["subject"] == subject);
    finding.unwrap_or_else(|| panic!("nothing of {subject} in {found:?}"))["verdict"].as_str().unwrap()
}

#[test]
fn a_property_that_is_well_is_found_well_with_and_without_its_agent_and_nothing_is_touched() {
    let mut site = Site::without_agent_at(&["--tcp", "127.0.0.1:0"]);
    let tcp = site.tcp.clone().unwrap();
    site.configure_line(&format!("tcp = \"{tcp}\""), "");
    site.start_agent();
    site.healthy();
    site.card("jane", "stay-1", &["101"]);
    let (code, found) = doctor(&site);
    assert_eq!(code, Some(0), "{found:?}");
    for subject in
        ["config", "agent", "pairing", "key", "storage", "disk", "database", "cloud", "system house", "clock"]
    {
        assert_eq!(verdict(&found, subject), "ok", "{subject}: {found:?}");
    }

    site.agent().signal(rustix::process::Signal::TERM);
    assert_eq!(site.agent().ended(), Some(0));
    let folder = site.folder.path().join("agent");
    let files = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let before = files();
    let (code, found) = doctor(&site);
    assert_eq!(code, Some(1), "no agent runs: {found:?}");
    assert_eq!(verdict(&found, "agent"), "warn", "{found:?}");
    for subject in ["pairing", "key", "storage", "database", "cloud", "system house"] {
        assert_eq!(verdict(&found, subject), "ok", "{subject}: {found:?}");
    }
    assert_eq!(files(), before, "nothing was made or removed");

    // A serial port that another program has open: here it is the pretend lock server's own.
    site.configure("");
    let (_, found) = doctor(&site);
    let held = found.iter().find(|finding| finding["subject"] == "system house").unwrap();
    assert!(held["message"].as_str().unwrap().contains("is held by latchd (pid "), "{held}");
    site.configure_line(&format!("tcp = \"{tcp}\""), "");

    // A cloud that is away, and a lock server that is, are told with the next step.
    site.cloud().kill();
    site.kill_sim();
    let (code, found) = doctor(&site);
    assert_eq!(code, Some(2), "{found:?}");
    for subject in ["cloud", "system house"] {
        assert_eq!(verdict(&found, subject), "fail", "{found:?}");
    }
    assert!(found.iter().all(|one| one["verdict"] == "ok" || one["next"].is_string()), "{found:?}");
}
