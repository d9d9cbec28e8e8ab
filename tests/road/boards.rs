//! UHPPOTE boards on the whole road, over real sockets: a number comes, opens its door alone, and goes again.

use std::net::{SocketAddr, UdpSocket};

use jiff::{SignedDuration, Timestamp};
use latchd::sim::control::BlockingClient;
use serde_json::{Value, json};

use crate::site::{Process, Site, latchd, until};

const SYSTEM: &str = "boards";
const PIN: &str = "471108";

/// A site whose agent speaks to a pretend board by this protocol, and the board's control socket.
fn with_board(protocol: &str) -> (Site, Process, BlockingClient) {
    with_board_and(protocol, "read_events_every = \"1s\"")
}

/// The same with further settings.
fn with_board_and(protocol: &str, more: &str) -> (Site, Process, BlockingClient) {
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
{more}
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

/// A port of this machine, held by this program.
fn held_port() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

/// Who was not let in, as the feed tells it: whose number is not known is refused at its first swipe.
fn denials(site: &Site) -> Option<usize> {
    let ask = json!({ "since": "2020-01-01T00:00:00Z", "event_types": ["lock.access_denied"] });
    let (_, answer) = site.try_call("/events/list", &ask)?;
    answer["events"].as_array().map(Vec::len)
}

#[test]
fn what_a_board_tells_by_itself_is_read_at_once() {
    let (socket, at) = held_port();
    drop(socket);
    let more = format!("read_events_every = \"1d\"\nlistener = \"{at}\"");
    let (site, _process, mut control) = with_board_and("udp", &more);
    // The board is told where to send, and its log was read once.
    control.send("wait requests 90 1").unwrap();
    control.send("wait requests B0 1").unwrap();
    for refused in 1..=3 {
        assert!(!opens(&mut control, 2));
        until("it is in the feed", || denials(&site).filter(|count| *count == refused));
    }
}

#[test]
fn a_taken_port_is_named_and_costs_no_event() {
    let (_socket, at) = held_port();
    let more = format!("read_events_every = \"1s\"\nlistener = \"{at}\"");
    let (site, _process, mut control) = with_board_and("udp", &more);
    let said = until("it is said", || {
        let conditions = site.status()["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["code"] == "listener_deaf")
    });
    let message = said["message"].as_str().unwrap();
    assert!(
        message.contains(&at.to_string()) && message.contains("another program has this port"),
        "{message}"
    );
    assert!(!opens(&mut control, 1));
    until("it is in the feed", || denials(&site).filter(|count| *count == 1));
}
