//! Who belongs to the cloud: a bridge that is revoked, one whose certificate is renewed or has ended, one that takes
//! another one's place.

use std::{fs, path::Path};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::site::{PATIENCE, Process, Site, latchd, until, until_within};

/// The shortest that there is.
const SHORT: &str = "certificate_lifetime = \"60s\"\n";

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value} is no time")).parse().unwrap()
}

fn state(site: &Site) -> String {
    site.bridge()["state"].as_str().unwrap().to_owned()
}

/// When a process told of something, by the time of its log.
fn told_at(process: &Process, what: &str) -> Timestamp {
    let line = until(what, || process.errors().lines().find(|line| line.contains(what)).map(str::to_owned));
    line.split_whitespace().next().unwrap().parse().unwrap_or_else(|_| panic!("no time in {line}"))
}

fn trouble(site: &Site, code: &str) {
    until(code, || (site.status()["link"]["trouble"]["code"] == code).then_some(()));
}

#[test]
fn a_revoked_bridge_is_gone_within_a_second_does_nothing_more_and_comes_back_by_a_new_pairing_only() {
    let mut site = Site::start();
    site.card("jane", "stay-1", &["101"]);
    let (adas, late) = site.grant("Ada Moe", "stay-2", &["102"]);
    let bridge = site.paired.bridge.clone();
    assert_eq!(state(&site), "connected");
    let revoked = site.at_cloud(&["bridges", "revoke", &bridge, "--why", "the box was stolen"]);
    assert!(revoked.status.success(), "{revoked:?}");
    trouble(&site, "link_not_paired");
    let (cloud, agent) = (site.cloud.as_ref().unwrap(), site.agent.as_ref().unwrap());
    let gone = told_at(agent, "link_not_paired").duration_since(told_at(cloud, "a bridge was revoked"));
    assert!(gone.as_millis() < 1000, "gone after {gone:#}");
    assert_eq!(state(&site), "revoked");

    // Neither new connections nor new processes at either end let it in again, and no order reaches it.
    let body = json!({ "access_method_id": late, "acs_encoder_id": site.encoder("1") });
    let (_, answer) = site.call("/access_methods/encode", body);
    site.restart_agent();
    trouble(&site, "link_not_paired");
    site.restart_cloud();
    site.restart_agent();
    trouble(&site, "link_not_paired");
    assert_eq!(state(&site), "revoked");
    assert_eq!(site.writing_frames(), 1, "{answer}");

    // Whoever comes back would still make her card, and await it before any other.
    assert_eq!(site.call("/access_grants/delete", json!({ "access_grant_id": adas })).0, 200);
    site.agent = None;
    let again = site.pair_with(&["--replace", &bridge], &["--replace"]);
    assert_eq!(again.bridge, bridge, "it keeps its name");
    site.start_agent();
    site.healthy();
    assert_eq!(state(&site), "connected");
    site.card("eve", "stay-9", &["105"]);
}

#[test]
fn a_certificate_is_renewed_while_cards_are_made_and_each_is_made_once() {
    let mut site = Site::without_agent_and(&[], SHORT);
    site.configure("[limits]\ncards_per_hour = 100000\n");
    site.start_agent();
    site.healthy();
    let (first, ends) = (site.certificate(), time(&site.bridge()["certificate_ends"]));
    // From the first card on until two more were made behind the renewal, in whatever moment it came.
    let (mut cards, mut behind) = (0, 0);
    while behind < 2 {
        assert!(Timestamp::now() < ends, "it was not renewed: {}", site.agent().errors());
        cards += 1;
        site.card(&format!("card{cards}"), &format!("stay-{cards}"), &[["101", "102", "103"][cards % 3]]);
        behind += usize::from(site.certificate() != first);
    }
    let seen = until("the cloud has met the new certificate", || {
        let bridge = site.bridge();
        (bridge["state"] == "connected" && ends < time(&bridge["certificate_ends"])).then_some(bridge)
    });
    assert_eq!(seen["bridge_id"], *site.paired.bridge);
    let cards = u64::try_from(cards).unwrap();
    assert_eq!((site.jobs("succeeded"), site.jobs("unknown")), (Some(cards), Some(0)));
    assert_eq!(site.writing_frames(), cards, "each card was written once");
    until("every report is acknowledged", || (site.status()["unacknowledged"] == 0).then_some(()));
}

#[test]
fn a_site_that_was_away_past_the_end_of_its_certificate_comes_back_by_its_old_key_and_finishes_its_work() {
    let mut site = Site::without_agent_and(&[], SHORT);
    site.start_agent();
    site.healthy();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    let ends = time(&site.bridge()["certificate_ends"]);
    site.cloud().kill();
    site.control("place jane on 1");
    until("the card is made", || (site.jobs("succeeded") == Some(1)).then_some(()));
    site.control("remove 1");
    // The agent goes on meanwhile, and knows that its time is over.
    until_within(2 * PATIENCE, "the certificate ends", || (ends < Timestamp::now()).then_some(()));
    let old = site.certificate();
    site.restart_cloud();
    site.healthy();
    assert_ne!(site.certificate(), old);
    assert!(ends < time(&site.bridge()["certificate_ends"]));
    assert_eq!(site.ended(&attempt)["status"], "success");
    site.card("ada", "stay-2", &["102"]);
    assert_eq!(site.writing_frames(), 2);
}

/// Moves the agent's folder away, as hardware that is replaced takes it along, and gives a configuration for it.
fn old_hardware(site: &Site) -> std::path::PathBuf {
    let folder = site.folder.path();
    let text = fs::read_to_string(folder.join("agent.toml")).unwrap();
    let moved = |name: &str| folder.join(name).display().to_string();
    fs::rename(moved("agent"), moved("old-agent")).unwrap();
    let text = text
        .replace(&format!("\"{}\"", moved("agent")), &format!("\"{}\"", moved("old-agent")))
        .replace(&moved("agent.sock"), &moved("old.sock"));
    let config = folder.join("old.toml");
    fs::write(&config, text).unwrap();
    config
}

fn status_of(config: &Path) -> Option<Value> {
    let output = latchd().args(["status", "--json", "--config"]).arg(config).output().unwrap();
    serde_json::from_slice(&output.stdout).ok()
}

#[test]
fn new_hardware_goes_on_with_the_ledger_where_the_old_one_was_and_the_old_one_is_turned_away() {
    let mut site = Site::start();
    site.card("jane", "stay-1", &["101"]);
    until("every report is acknowledged", || (site.status()["unacknowledged"] == 0).then_some(()));
    site.agent().signal(rustix::process::Signal::TERM);
    site.agent().ended();
    let old = old_hardware(&site);
    let entrances = site.entrances(&["101", "102"]);
    let replaced = ["--replace", &site.paired.bridge.clone(), "--ledger-is-current"];
    let paired = site.pair_with(&replaced, &[]);
    assert_eq!(paired.bridge, site.paired.bridge);
    site.start_agent();
    site.healthy();
    assert_eq!(site.entrances(&["101", "102"]), entrances, "what the cloud calls the doors is kept");

    // It knows whose stay the room follows: a further card joins it, and the first one stays alive.
    site.card("john", "stay-1", &["101"]);
    assert_eq!((site.frames("CN"), site.frames("CC")), (1, 1));
    assert!(site.opens("john", "101") && site.opens("jane", "101"));

    let mut command = latchd();
    command.arg("run").arg("--config").arg(&old);
    let _old_one = Process::start(site.folder.path(), "old", &mut command);
    until("the old one is turned away", || {
        (status_of(&old)?["link"]["trouble"]["code"] == "link_not_paired").then_some(())
    });
    assert_eq!(state(&site), "connected");
    site.card("eve", "stay-9", &["105"]);
}

#[test]
fn new_hardware_that_may_have_missed_something_joins_no_stay_before_somebody_has_looked() {
    let mut site = Site::start();
    site.card("jane", "stay-1", &["101"]);
    until("every report is acknowledged", || (site.status()["unacknowledged"] == 0).then_some(()));
    site.agent().kill();
    old_hardware(&site);
    site.pair_with(&["--replace", &site.paired.bridge.clone()], &[]);
    site.start_agent();
    site.healthy();
    let (_, further) = site.grant("John Doe", "stay-1", &["101"]);
    let ended = site.ended(&site.encode(&further, "1"));
    assert!(ended["error"]["message"].as_str().unwrap().contains("room_state_unknown"), "{ended}");
    assert_eq!(site.writing_frames(), 1, "before any byte");
    site.card("ada", "stay-2", &["101"]);
}

#[test]
fn a_cloud_put_back_to_before_a_revocation_keeps_the_bridge_out_and_asks_a_person_where_it_cannot_know() {
    let mut site = Site::start();
    site.card("jane", "stay-1", &["101"]);
    until("every report is acknowledged", || (site.status()["unacknowledged"] == 0).then_some(()));
    let bridge = site.paired.bridge.clone();
    let copy = site.folder.path().join("cloud.copy");
    let copy = copy.to_str().unwrap();
    assert!(site.at_cloud(&["backup", "--to", copy]).status.success());
    assert!(site.at_cloud(&["bridges", "revoke", &bridge, "--why", "the box was stolen"]).status.success());
    trouble(&site, "link_not_paired");

    let restored = |site: &mut Site| {
        let restored = site.at_cloud(&["restore", copy]);
        assert!(restored.status.success(), "{restored:?}");
        site.restart_cloud();
        site.restart_agent();
        String::from_utf8(restored.stdout).unwrap()
    };
    site.cloud().kill();
    let told = restored(&mut site);
    assert!(told.contains("what was revoked stays revoked"), "{told}");
    trouble(&site, "link_not_paired");
    assert_eq!(state(&site), "revoked");

    // The disk that knew is gone.
    site.cloud().kill();
    for entry in fs::read_dir(site.folder.path().join("cloud")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("cloud.db") {
            fs::remove_file(path).unwrap();
        }
    }
    let told = restored(&mut site);
    assert!(told.contains(&format!("latchd cloud bridges vouch {bridge}")), "{told}");
    trouble(&site, "link_standing_unknown");
    assert_eq!(state(&site), "unvouched");
    assert!(site.opens("jane", "101"), "a card that is out opens meanwhile");

    assert!(site.at_cloud(&["bridges", "vouch", &bridge]).status.success());
    site.restart_agent();
    site.healthy();
    assert_eq!(state(&site), "connected");
    site.card("john", "stay-1", &["101"]);
    assert_eq!((site.frames("CN"), site.frames("CC")), (1, 1));
}
