//! Lock servers over TCP: one connection only, and two lines in one agent.

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::site::{Site, latchd, until};

/// The cloud's errors of a system.
fn errors(site: &Site, name: &str) -> Value {
    let systems = site.ok("/acs/systems/list", json!({}), "acs_systems");
    let system = systems.as_array().unwrap().iter().find(|system| system["name"] == name);
    system.map_or(Value::Null, |system| system["errors"].clone())
}

fn condition(site: &Site, code: &str) -> Option<Value> {
    let conditions = site.status()["conditions"].clone();
    conditions.as_array().unwrap().iter().find(|condition| condition["code"] == code).cloned()
}

#[test]
fn a_second_client_is_refused_by_name_until_the_first_one_leaves() {
    let mut site = Site::without_agent_at(&["--tcp", "127.0.0.1:0", "--max-clients", "1"]);
    let tcp = site.tcp.clone().unwrap();
    let other = TcpStream::connect(&tcp).unwrap();
    until("the other program is served", || {
        let shown = site.control("wire").to_string();
        shown.contains("tcp#").then_some(())
    });
    site.configure_line(&format!("tcp = \"{tcp}\""), "");
    site.start_agent();

    let held = until("the condition has its name", || condition(&site, "second_client_refused"));
    assert_eq!((&held["subject"], &held["severity"]), (&json!("house"), &json!("error")), "{held}");
    let message = held["message"].as_str().unwrap();
    assert!(message.contains(&tcp) && message.contains("another program"), "{message}");
    let seen = until("the cloud shows it", || {
        let errors = errors(&site, "house");
        errors.as_array()?.iter().find(|error| error.to_string().contains("one PMS connection")).cloned()
    });
    assert_eq!(seen["error_code"], "acs_system_disconnected", "{seen}");
    let told =
        latchd().args(["status", "--socket"]).arg(site.folder.path().join("agent.sock")).output().unwrap();
    assert_eq!(told.status.code(), Some(3));
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("second_client_refused") && told.contains("DOWN"), "{told}");

    // What is ordered meanwhile waits; nothing is written by accident.
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    until("the job waits", || (site.jobs("waiting") == Some(1)).then_some(()));
    assert_eq!(site.writing_frames(), 0);

    drop(other);
    site.waits_for_card("1");
    site.control("place jane on 1");
    assert_eq!(site.ended(&attempt)["status"], "success");
    site.healthy();
    assert_eq!(condition(&site, "second_client_refused"), None);
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn two_lines_of_one_agent_come_back_by_themselves_after_the_lock_server_died() {
    let mut site = Site::without_agent_at(&["--tcp", "127.0.0.1:0"]);
    let annex = format!(
        r#"
        [[system]]
        name = "annex"
        kind = "salto_is"
        exclusive = true
        line = {{ tcp = "{}" }}
        encoders = ["2"]
        rooms = ["201", "202"]
        "#,
        site.tcp.as_ref().unwrap()
    );
    site.configure(&annex);
    let text = std::fs::read_to_string(site.folder.path().join("agent.toml")).unwrap();
    std::fs::write(
        site.folder.path().join("agent.toml"),
        text.replacen("encoders = [\"1\", \"2\"]", "encoders = [\"1\"]", 1),
    )
    .unwrap();
    site.start_agent();
    let lines = |site: &Site, wanted: &str| {
        until("both lines are as they should", || {
            let systems = site.status()["systems"].clone();
            let systems = systems.as_array().unwrap();
            (systems.len() == 2 && systems.iter().all(|system| system["line"] == wanted)).then_some(())
        });
    };
    lines(&site, "ready");
    let well = |site: &Site| {
        until("the cloud shows both without errors", || {
            ["house", "annex"].iter().all(|name| errors(site, name) == json!([])).then_some(())
        });
    };
    well(&site);

    site.kill_sim();
    lines(&site, "down");
    until("the cloud shows both broken", || {
        let broken = |name: &&str| errors(&site, name)[0]["error_code"] == "acs_system_disconnected";
        ["house", "annex"].iter().all(broken).then_some(())
    });
    let order = |guest, stay, door, encoder| {
        let (_, method) = site.grant(guest, stay, &[door]);
        site.encode(&method, encoder)
    };
    let (first, second) = (order("Jane Doe", "stay-1", "101", "1"), order("Kim Roe", "stay-2", "201", "2"));
    until("both jobs wait", || (site.jobs("waiting") == Some(2)).then_some(()));

    site.restart_sim();
    for (attempt, card, encoder) in [(first, "jane", "1"), (second, "kim", "2")] {
        site.waits_for_card(encoder);
        site.control(&format!("place {card} on {encoder}"));
        let ended = site.ended(&attempt);
        assert_eq!(ended["status"], "success", "{ended}");
    }
    lines(&site, "ready");
    well(&site);
    assert!(site.opens("jane", "101") && site.opens("kim", "201"));
    assert_eq!(site.writing_frames(), 2);
}
