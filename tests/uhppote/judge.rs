//! An independent client against the pretend boards, and its encoder against ours. It is Python's.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use jiff::civil::{Time, date, time};
use latchd::drivers::uhppote::{
    request::Request,
    values::{
        AntiPassback, Card, CardNumber, DoorControl, DoorMode, FirstCard, FirstCardMode, Interlock, Listener,
        Pin, Task, TimeProfile,
    },
};
use serde_json::Value;

use super::pump::{BOARD, OTHER};

/// The Python that has the client; none where nobody installed it.
fn python() -> Option<PathBuf> {
    let python = env::var_os("LATCHD_SDKS").map(|sdks| PathBuf::from(sdks).join("python-uhppote/bin/python"));
    let python = python.filter(|python| python.exists());
    assert!(
        python.is_some() || env::var_os("LATCHD_NO_SKIPS").is_none(),
        "missing: the client of UHPPOTE boards"
    );
    python
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/uhppote/client").join(name)
}

/// `latchd sim uhppote`; killed with this.
struct Boards {
    process: Child,
    said: Value,
    _folder: tempfile::TempDir,
}

impl Boards {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchd"));
        command.args(["sim", "uhppote", "--dir"]).arg(folder.path());
        command.args(["--serial", &BOARD.to_string(), "--serial", &OTHER.to_string()]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, said: serde_json::from_str(&line).unwrap(), _folder: folder }
    }
}

impl Drop for Boards {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_client_drives_the_pretend_boards_over_udp_and_tcp() {
    let Some(python) = python() else { return };
    let boards = Boards::start();
    let word = |key: &str| boards.said[key].as_str().unwrap().to_owned();
    let output = Command::new(python)
        .arg(script("drive.py"))
        .args([word("control"), word("address")])
        .output()
        .unwrap();
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("held"), "{told}{error}");
}

#[test]
fn a_client_spells_every_request_as_we_do() {
    let Some(python) = python() else { return };
    let output = Command::new(python).arg(script("encode.py")).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let theirs: BTreeMap<String, String> = serde_json::from_slice(&output.stdout).expect(&error);
    let ours: BTreeMap<String, String> = requests()
        .into_iter()
        .map(|(name, board, request)| {
            let hex = request.encode(board).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
            (name.to_owned(), hex)
        })
        .collect();
    assert_eq!(ours, theirs);
}

fn requests() -> Vec<(&'static str, u32, Request)> {
    let (from, to) = (date(2026, 11, 21), date(2026, 11, 24));
    let days = [true, false, true, false, true, false, true];
    let number = CardNumber::new(10_058_400);
    let pin = |pin| Pin::new(pin).unwrap();
    let half = time(8, 30, 0, 0);
    let card = Card { number, from, to, doors: [1, 0, 29, 254], pin: pin(999_999), first_card: 0 };
    let profile = TimeProfile {
        id: 29,
        from,
        to,
        days,
        segments: [
            (half, time(11, 45, 0, 0)),
            (time(13, 15, 0, 0), time(17, 30, 0, 0)),
            (Time::midnight(), Time::midnight()),
        ],
        linked: 30,
    };
    let address = Request::SetAddress {
        address: [192, 168, 1, 125].into(),
        mask: [255, 255, 255, 0].into(),
        gateway: [192, 168, 1, 1].into(),
    };
    let first = FirstCard {
        door: 3,
        start: half,
        active: FirstCardMode::NormallyOpen,
        end: time(17, 45, 0, 0),
        inactive: FirstCardMode::FirstCardOnly,
        days: [true, true, false, true, true, false, true],
    };
    let control = DoorControl { door: 4, mode: DoorMode::NormallyClosed, delay: 17 };
    let codes = [pin(12_345), pin(999_999), Pin::NONE, pin(54_321)];
    let listener = Listener { address: [192, 168, 1, 2].into(), port: 60_001, every: 15 };
    vec![
        ("discover", 0, Request::GetDevice),
        ("get_device", BOARD, Request::GetDevice),
        ("set_address", BOARD, address),
        ("get_time", BOARD, Request::GetTime),
        ("set_time", BOARD, Request::SetTime(from.at(23, 30, 5, 0))),
        ("get_status", BOARD, Request::GetStatus),
        ("get_listener", BOARD, Request::GetListener),
        ("set_listener", BOARD, Request::SetListener(listener)),
        ("get_door_control", BOARD, Request::GetDoorControl(3)),
        ("set_door_control", BOARD, Request::SetDoorControl(control)),
        ("open_door", BOARD, Request::OpenDoor(4)),
        ("count_cards", BOARD, Request::CountCards),
        ("get_card", BOARD, Request::GetCard(number)),
        ("get_card_by_index", BOARD, Request::GetCardByIndex(70_000)),
        ("put_card", BOARD, Request::PutCard(card)),
        ("delete_card", BOARD, Request::DeleteCard(number)),
        ("delete_all_cards", BOARD, Request::DeleteAllCards),
        ("get_event", BOARD, Request::GetEvent(u32::MAX)),
        ("get_event_index", BOARD, Request::GetEventIndex),
        ("set_event_index", BOARD, Request::SetEventIndex(98_765)),
        ("record_special_events", BOARD, Request::RecordSpecialEvents(true)),
        ("get_time_profile", BOARD, Request::GetTimeProfile(254)),
        ("set_time_profile", BOARD, Request::SetTimeProfile(profile)),
        ("clear_time_profiles", BOARD, Request::ClearTimeProfiles),
        (
            "add_task",
            BOARD,
            Request::AddTask(Task { from, to, days, start: half, door: 3, task: 2, more_cards: 7 }),
        ),
        ("refresh_tasks", BOARD, Request::RefreshTasks),
        ("clear_tasks", BOARD, Request::ClearTasks),
        ("set_pc_control", BOARD, Request::SetPcControl(true)),
        ("set_interlock", BOARD, Request::SetInterlock(Interlock::All)),
        ("activate_keypads", BOARD, Request::ActivateKeypads([true, false, false, true])),
        ("set_door_passcodes", BOARD, Request::SetDoorPasscodes { door: 2, codes }),
        ("get_anti_passback", BOARD, Request::GetAntiPassback),
        ("set_anti_passback", BOARD, Request::SetAntiPassback(AntiPassback::OneAgainstThree)),
        ("set_first_card", BOARD, Request::SetFirstCard(first)),
        ("restore_defaults", BOARD, Request::RestoreDefaults),
    ]
}
