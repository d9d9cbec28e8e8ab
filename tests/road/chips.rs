//! Cards that boards know by the numbers of their chips, on the whole road: a card is laid on the desk's reader once, and
//! opens the doors of two boards.

use jiff::{SignedDuration, Timestamp};
use latchd::sim::control::BlockingClient;
use serde_json::{Value, json};

use crate::site::{Process, Site, latchd, until};

const CHIP: &str = "DEADBEEF";
const OTHER_CHIP: &str = "04A1B2C3D4E580";
/// How boards know them: the first four bytes.
const NUMBER: u32 = 0xDEAD_BEEF;
const OTHER_NUMBER: u32 = 0x04A1_B2C3;

/// A house with two boards and a reader on its desk.
struct House {
    site: Site,
    boards: BlockingClient,
    reader: BlockingClient,
    _processes: [Process; 2],
}

/// A pretend thing, where it says it is, and its control socket.
fn pretend(site: &Site, name: &str, options: &[&str]) -> (Process, Value, BlockingClient) {
    let folder = site.folder.path().join(name);
    let mut command = latchd();
    command.args(["sim", name]).args(options).arg("--dir").arg(&folder);
    let process = Process::start(site.folder.path(), name, &mut command);
    let socket = folder.join(format!("{name}.ctl"));
    let control = until("it is up", || BlockingClient::connect(&socket).ok());
    let told = until("it says where it is", || {
        serde_json::from_str(&std::fs::read_to_string(&process.stdout).ok()?).ok()
    });
    (process, told, control)
}

impl House {
    fn new() -> Self {
        let mut site = Site::without_agent();
        let serials = ["--serial", "405419896", "--serial", "303986753"];
        let (board_process, told, boards) = pretend(&site, "uhppote", &serials);
        let address = told["address"].as_str().unwrap().to_owned();
        let (reader_process, told, reader) = pretend(&site, "pn532", &["--pty"]);
        let tty = told["tty"].as_str().unwrap();
        site.configure(&format!(
            r#"
[[system]]
name = "boards"
kind = "uhppote"
lead = "1h"
broadcast = "{address}"
boards = [
    {{ serial = 405419896, doors = [{{ name = "front", door = 1 }}, {{ name = "cellar", door = 2 }}] }},
    {{ serial = 303986753, doors = [{{ name = "flat", door = 1 }}] }},
]
[[system]]
name = "reader"
kind = "card_reader"
encoders = [{{ name = "desk", line = {{ serial = "{tty}" }} }}]
"#
        ));
        site.start_agent();
        site.healthy();
        Self { site, boards, reader, _processes: [board_process, reader_process] }
    }

    fn listed(&self, path: &str, what: &str, name: &str) -> Option<Value> {
        let (_, answer) = self.site.try_call(path, &json!({}))?;
        answer[what].as_array()?.iter().find(|one| one["display_name"] == name).cloned()
    }

    fn device(&self, name: &str) -> Value {
        until("the door is there", || self.listed("/devices/list", "devices", name))["device_id"].clone()
    }

    fn desk(&self) -> Value {
        until("the reader is there", || self.listed("/acs/encoders/list", "acs_encoders", "desk"))
            ["acs_encoder_id"]
            .clone()
    }

    fn grant(&self, doors: &[&str]) -> Value {
        let now = Timestamp::now();
        let devices: Vec<_> = doors.iter().map(|door| self.device(door)).collect();
        let body = json!({
            "user_identity": { "full_name": "Jane Doe" }, "device_ids": devices,
            "requested_access_methods": [{ "mode": "card" }],
            "starts_at": now - SignedDuration::from_hours(1), "ends_at": now + SignedDuration::from_hours(48),
        });
        self.site.ok("/access_grants/create", body, "access_grant")
    }

    fn method(&self, id: &Value) -> Value {
        self.site.ok("/access_methods/get", json!({ "access_method_id": id }), "access_method")
    }

    /// Asks for a card at the desk; the attempt.
    fn asks(&self, method: &Value) -> Value {
        let body = json!({ "access_method_id": method, "acs_encoder_id": self.desk() });
        self.site.ok("/access_methods/encode", body, "action_attempt")["action_attempt_id"].clone()
    }

    fn place(&mut self, chip: &str) {
        self.reader.send(&format!("place {chip}")).unwrap();
    }

    fn lift(&mut self) {
        self.reader.send("lift").unwrap();
    }

    fn opens(&mut self, board: u32, number: u32, door: u8) -> bool {
        let said = self.boards.send(&format!("at {board} swipe {number} {door}")).unwrap();
        said["granted"].as_bool().unwrap_or_else(|| panic!("neither granted nor refused: {said}"))
    }

    fn is_issued(&self, method: &Value) {
        until("the card is issued", || (self.method(method)["is_issued"] == true).then_some(()));
    }
}

const FRONT: u32 = 405_419_896;
const FLAT: u32 = 303_986_753;

#[test]
fn a_card_that_was_laid_down_once_opens_the_doors_of_two_boards_and_is_replaced_when_it_is_lost() {
    let mut house = House::new();
    let grant = house.grant(&["front", "flat"]);
    let method = grant["access_method_ids"][0].clone();
    let shown = house.method(&method);
    assert_eq!((&shown["mode"], &shown["is_encoding_required"]), (&json!("card"), &json!(true)), "{shown}");

    let attempt = house.asks(&method);
    let waits = || house.site.call("/action_attempts/get", json!({ "action_attempt_id": attempt })).1;
    until("it waits for a card", || (waits()["action_attempt"]["stage"] == "waiting_for_card").then_some(()));
    house.place(CHIP);
    let ended = house.site.ended(&attempt);
    assert_eq!(
        (&ended["status"], &ended["result"]["card_number"]),
        (&json!("success"), &json!(CHIP)),
        "{ended}"
    );
    house.is_issued(&method);
    assert!(house.opens(FRONT, NUMBER, 1) && house.opens(FLAT, NUMBER, 1));
    assert!(!house.opens(FRONT, NUMBER, 2), "a door that the grant does not lead to");

    // Another door needs no card any more.
    let devices = ["cellar", "flat"].map(|door| house.device(door));
    house.site.ok(
        "/access_grants/update",
        json!({ "access_grant_id": grant["access_grant_id"], "device_ids": devices }),
        "",
    );
    until("it opens the other door and not the former", || {
        (house.opens(FRONT, NUMBER, 2) && !house.opens(FRONT, NUMBER, 1)).then_some(())
    });
    house.is_issued(&method);

    // It is lost. The next guest's card may lie on the reader still: it is not taken for the new one.
    let asked = json!({ "access_method_id": method });
    assert_eq!(house.site.call("/access_methods/delete", asked).0, 200);
    until("it opens nothing", || {
        (!house.opens(FRONT, NUMBER, 2) && !house.opens(FLAT, NUMBER, 1)).then_some(())
    });
    let body = json!({
        "access_grant_id": grant["access_grant_id"], "requested_access_methods": [{ "mode": "card" }],
    });
    house.site.ok("/access_grants/request_access_methods", body, "access_grant");
    let new = until("another card is asked for", || {
        let grant = json!({ "access_grant_id": grant["access_grant_id"] });
        let (_, answer) = house.site.try_call("/access_methods/list", &grant)?;
        let methods = answer["access_methods"].as_array()?.clone();
        methods.into_iter().map(|one| one["access_method_id"].clone()).find(|id| *id != method)
    });
    let attempt = house.asks(&new);
    house.reader.send("wait requests 52 4").unwrap();
    let pending = house.site.call("/action_attempts/get", json!({ "action_attempt_id": attempt })).1;
    assert_eq!(pending["action_attempt"]["status"], "pending", "the lost card lies there: {pending}");
    house.lift();
    house.place(OTHER_CHIP);
    let ended = house.site.ended(&attempt);
    assert_eq!(ended["result"]["card_number"], OTHER_CHIP, "{ended}");
    house.is_issued(&new);
    assert!(house.opens(FRONT, OTHER_NUMBER, 2) && house.opens(FLAT, OTHER_NUMBER, 1));
    for process in [house.site.agent().errors(), house.site.cloud().errors()] {
        assert!(
            !process.contains(CHIP) && !process.contains(OTHER_CHIP),
            "a card's number is told to nobody"
        );
    }
}

#[test]
fn a_card_that_is_scanned_is_known_and_a_reader_that_is_unplugged_says_so_and_is_found_again() {
    let mut house = House::new();
    let grant = house.grant(&["front"]);
    let method = grant["access_method_ids"][0].clone();
    house.reader.send("unplug").unwrap();
    until("it is said", || {
        let conditions = house.site.status()["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["code"] == "encoder_offline")
    });
    let attempt = house.asks(&method);
    assert_eq!(house.site.ended(&attempt)["error"]["type"], "encoder_not_online");
    house.reader.send("plug").unwrap();
    house.place(CHIP);
    until("it is there again", || {
        let conditions = house.site.status()["conditions"].as_array()?.clone();
        conditions.into_iter().all(|condition| condition["code"] != "encoder_offline").then_some(())
    });
    let attempt = house.asks(&method);
    assert_eq!(house.site.ended(&attempt)["status"], "success");
    house.is_issued(&method);

    let scan = house.site.ok(
        "/acs/encoders/scan_credential",
        json!({ "acs_encoder_id": house.desk() }),
        "action_attempt",
    );
    let seen = house.site.ended(&scan["action_attempt_id"])["result"].clone();
    assert_eq!(seen["acs_credential_on_encoder"]["card_number"], CHIP, "{seen}");
    assert_eq!(seen["acs_credential_on_seam"]["card_number"], CHIP, "{seen}");
    assert_eq!(seen["warnings"], json!([]), "{seen}");
}
