//! Another configuration by SIGHUP, in a real process under a service manager's eyes.

use std::{fs, os::unix::net::UnixDatagram};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    keypads::Keypads,
    site::{PATIENCE, Site, until},
};

fn condition(status: &Value, code: &str) -> Option<Value> {
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["code"] == code).cloned()
}

/// Everything said up to the first message that begins so.
fn heard(manager: &UnixDatagram, beginning: &str) -> Vec<String> {
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard: Vec<String> = Vec::new();
    let mut buffer = [0; 4096];
    while heard.last().is_none_or(|last| !last.starts_with(beginning)) {
        let length = manager.recv(&mut buffer).unwrap();
        heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    heard
}

#[test]
fn a_right_configuration_is_taken_over_while_a_job_is_at_work_and_a_wrong_one_changes_nothing() {
    let mut site = Site::without_agent();
    let socket = site.folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    site.start_agent_with(|command| command.env("NOTIFY_SOCKET", &socket));
    site.healthy();
    heard(&manager, "READY=1");
    let link_since = site.status()["link"]["since"].clone();
    let file = site.folder.path().join("agent.toml");
    let before = fs::read_to_string(&file).unwrap();

    // A wrong file: named with its place, and nothing else changes.
    fs::write(&file, before.replace("settle = \"1s\"", "setle = \"1s\"")).unwrap();
    site.agent().signal(Signal::HUP);
    let said = heard(&manager, "READY=1");
    assert!(said.iter().any(|said| said.starts_with("RELOADING=1\nMONOTONIC_USEC=")), "{said:?}");
    let wrong = condition(&site.status(), "config_invalid").unwrap();
    let message = wrong["message"].as_str().unwrap();
    assert!(message.contains("agent.toml:") && message.contains("did you mean `settle`?"), "{message}");

    // A right one, with a job at work on a system that stays as it is.
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    let elsewhere = before.replace("agent.sock", "other.sock");
    let more = format!(
        "{elsewhere}\n[limits]\nforbidden_kinds = [\"card.read\"]\n[[system]]\nname = \"annex\"\nkind = \"salto_is\"\n\
         exclusive = true\nline = {{ tcp = \"127.0.0.1:9\" }}\nencoders = [\"7\"]\nrooms = [\"901\"]\n"
    );
    fs::write(&file, more).unwrap();
    site.agent().signal(Signal::HUP);
    heard(&manager, "READY=1");
    let status = site.status();
    assert_eq!(condition(&status, "config_invalid"), None, "{status}");
    let restart = condition(&status, "restart_needed").unwrap();
    assert!(restart["message"].as_str().unwrap().ends_with("admin.socket"), "{restart}");
    let names: Vec<_> = status["systems"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["house", "annex"], "{status}");
    assert_eq!(status["link"]["since"], link_since, "the link stays as it is");
    until("the cloud has the new room", || {
        let (_, list) = site.try_call("/acs/entrances/list", &json!({}))?;
        list["acs_entrances"].as_array()?.iter().any(|door| door["display_name"] == "901").then_some(())
    });
    site.control("place jane on 1");
    assert_eq!(site.ended(&attempt)["status"], "success");
    site.control("remove 1");

    // Back again: the system goes, with its conditions, and so does what took a restart.
    fs::write(&file, &before).unwrap();
    site.agent().signal(Signal::HUP);
    heard(&manager, "READY=1");
    let status = site.status();
    assert_eq!(status["systems"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(status["conditions"], json!([]), "{status}");
    site.card("john", "stay-1", &["101"]);
    assert_eq!(site.writing_frames(), 2);
}

#[test]
fn a_pin_that_was_taken_back_and_that_nothing_may_take_out_is_told_and_goes_with_the_next_configuration() {
    let mut site = Site::without_agent();
    let keypads = Keypads::start(site.folder.path(), 1);
    site.configure(&keypads.section("24h"));
    let socket = site.folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    site.start_agent_with(|command| command.env("NOTIFY_SOCKET", &socket));
    site.healthy();
    heard(&manager, "READY=1");
    site.grant("Ada", "stay-1", &["101"]);
    site.knows_its_grants();
    // The desk is alone: nobody else sees to the lock.
    site.cloud().kill();
    let to = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48)).to_string();
    let words =
        ["grant", "create", "--name", "Ida", "--door", "lock-1", "--key", "ida", "--to", &to, "--code"];
    let made = site.told_json(&[&words[..], &["--by", "Kari"]].concat());
    let pin = made["codes"][0]["code"].as_str().unwrap().to_owned();
    assert!(keypads.opens("lock-1", &pin));

    let file = site.folder.path().join("agent.toml");
    let before = fs::read_to_string(&file).unwrap();
    let configure = |site: &mut Site, text: &str| {
        fs::write(&file, text).unwrap();
        site.agent().signal(Signal::HUP);
        heard(&manager, "READY=1");
    };
    configure(&mut site, &format!("{before}\n[limits]\nforbidden_kinds = [\"slot.remove\"]\n"));
    site.told(&["grant", "revoke", "ida", "--by", "Kari"]);
    let told = |site: &Site, words: &str| {
        let condition = until("the site complains", || condition(&site.status(), "removal_barred"));
        let message = condition["message"].as_str().unwrap();
        message.contains("annex/lock-1").then_some(())?;
        message.contains(words).then_some(())
    };
    until("it is told why", || told(&site, "limits.forbidden_kinds"));
    // Another start of the agent knows of it, too.
    site.restart_agent();
    until("it is told again", || told(&site, "limits.forbidden_kinds"));
    assert!(keypads.opens("lock-1", &pin));
    fs::write(&file, &before).unwrap();
    site.agent().signal(Signal::HUP);
    until("the PIN is gone", || (!keypads.opens("lock-1", &pin)).then_some(()));
    until("nobody complains", || condition(&site.status(), "removal_barred").is_none().then_some(()));
}
