//! UHPPOTE boards on the whole road, over real sockets: a number comes, opens its door alone, and goes again.

use jiff::{SignedDuration, Timestamp};
use latchd::sim::control::BlockingClient;
use serde_json::{Value, json};

use crate::site::{Process, Site, latchd, until};

const SYSTEM: &str = "boards";
const PIN: &str = "471108";

/// A site whose agent speaks to a pretend board by this protocol, and the board's control socket.
fn with_board(protocol: &str) -> (Site, Process, BlockingClient) {
    let mut site = Site::without_agent();
    let folder = site.folder.path().join("boards");
    let mut command = latchd();
    command.args(["sim", "uhppote", "--dir"]).arg(&folder);
    let process = Process::start(site.folder.path(), "boards", &mut command);
    let control = until("the board is up", || BlockingClient::connect(folder.join("uhppote.ctl")).ok());
    let told: Value = until("the board says where it is", || {
        serde_json::from_str(&std::fs::read_to_string(&process.stdout).ok()?).ok()
    });
    let address = told["address"].as_str().unwrap();
    site.configure(&format!(
        r#"
[limits]
remote_unlock = true
[[system]]
name = "{SYSTEM}"
kind = "uhppote"
lead = "1h"
read_events_every = "1s"
[[system.boards]]
serial = 405419896
address = "{address}"
protocol = "{protocol}"
doors = [
    {{ name = "front", door = 1, keypad = true, pin_lengths = [6] }},
    {{ name = "flat", door = 2, keypad = true, pin_lengths = [6] }},
]
"#
    ));
    site.start_agent();
    site.healthy();
    (site, process, control)
}

fn added(site: &Site, order: &Value) -> String {
    site.added(&json!({ "system": SYSTEM, "order": order }))["job_id"].as_str().unwrap().to_owned()
}

fn reaches(site: &Site, job: &str, wanted: &str) {
    until(&format!("the job is {wanted}"), || {
        let shown = site.told_json(&["jobs", "show", job]);
        (shown["job"]["state"] == wanted).then_some(())
    });
}

fn opens(control: &mut BlockingClient, door: u8) -> bool {
    let said = control.send(&format!("swipe {PIN} {door}")).unwrap();
    said["granted"].as_bool().unwrap_or_else(|| panic!("neither granted nor refused: {said}"))
}

fn a_pin_comes_opens_its_door_alone_and_goes(protocol: &str) {
    let (site, _process, mut control) = with_board(protocol);
    let now = Timestamp::now();
    let put = added(
        &site,
        &json!({
            "kind": "slot.put", "device": "front", "slot": "stay-1", "content": { "pin": PIN }, "generation": 1,
            "window": {
                "starts_at": now - SignedDuration::from_hours(1), "ends_at": now + SignedDuration::from_hours(30),
            },
        }),
    );
    reaches(&site, &put, "succeeded");
    assert!(opens(&mut control, 1), "its own door");
    assert!(!opens(&mut control, 2), "a door that it was not put into");

    let unlock = added(&site, &json!({ "kind": "device.unlock", "device": "flat" }));
    reaches(&site, &unlock, "succeeded");
    let asked = control.send("requests").unwrap();
    assert_eq!(asked["requests"]["40"], 1, "opened once: {asked}");

    let remove = added(&site, &json!({ "kind": "slot.remove", "device": "front", "slot": "stay-1" }));
    reaches(&site, &remove, "succeeded");
    assert!(!opens(&mut control, 1), "after it was taken out");
    assert_eq!(control.send("cards").unwrap()["cards"], json!([]));
}

#[test]
fn by_datagrams_a_pin_comes_opens_its_door_alone_and_goes() {
    a_pin_comes_opens_its_door_alone_and_goes("udp");
}

#[test]
fn by_connections_a_pin_comes_opens_its_door_alone_and_goes() {
    a_pin_comes_opens_its_door_alone_and_goes("tcp");
}
