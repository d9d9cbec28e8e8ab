//! Versions 1 and 2 of the language as they are on the wire, in files: what another cloud or another agent can be tried against.
//!
//! They are never edited, and nothing here writes one of them: where one of these tests fails, the change is wrong. What
//! version 1 may still come to hold (a field that may be left out, a name in an open list) is shown by further files, and
//! by `schema.json`, which grows with it, by hand. `v1.sha256` has the sums of all others, as `sha256sum` writes them.
//!
//! For a version that is not frozen, `LATCHD_WRITE_GOLDEN=1 cargo test --test golden` writes the files that are missing,
//! and fails so that nobody takes that for a pass.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::print_stdout, reason = "a skipped test says what is missing")]

mod conversation;
mod schema;
mod second;
#[expect(dead_code, unreachable_pub, reason = "another test's module, of which this one needs a part")]
#[path = "../road/site.rs"]
mod site;
mod stranger;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    path::PathBuf,
};

use latchd::{
    model::Order,
    protocol::{Frame, Message},
};
use ring::digest::{SHA256, digest};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// Whose files these tests are about.
const VERSION: u16 = 1;
/// Versions whose files nobody writes any more.
const FROZEN: [u16; 1] = [1];
/// Versions whose files have sums.
const SUMMED: [u16; 2] = [1, 2];

pub(crate) fn folder() -> PathBuf {
    folder_of(VERSION)
}

pub(crate) fn folder_of(version: u16) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

/// [`golden_of`] the version that these tests are about.
pub(crate) fn golden(name: &str, text: &str) -> String {
    golden_of(VERSION, name, text)
}

/// What a file holds; where it is missing, of a version that is not frozen, and to be written, it is written first.
pub(crate) fn golden_of(version: u16, name: &str, text: &str) -> String {
    let file = folder_of(version).join(name);
    let may_write = !FROZEN.contains(&version) && std::env::var_os("LATCHD_WRITE_GOLDEN").is_some();
    if may_write && !file.exists() {
        fs::write(&file, text).unwrap();
        panic!("{name} was written: look at it, and run again");
    }
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// The file holds these values, they are read from it, and written again they are the same bytes.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, values: &[T]) {
    check_of(VERSION, name, values);
}

fn check_of<T: Serialize + DeserializeOwned + PartialEq + Debug>(version: u16, name: &str, values: &[T]) {
    let text = golden_of(version, name, &pretty(&values));
    let read: Vec<T> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read, values, "{name}");
    assert_eq!(pretty(&read), text, "{name}");
}

/// The file of a frame's kind. A new kind of frame does not compile until it has one.
fn file_of_frame(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello(_) => "frame-hello.json",
        Frame::Welcome(_) => "frame-welcome.json",
        Frame::Refused(_) => "frame-refused.json",
        Frame::Envelope(_) => "frame-envelope.json",
        Frame::Inventory(_) => "frame-inventory.json",
        Frame::Status(_) => "frame-status.json",
        Frame::Progress(_) => "frame-progress.json",
        Frame::Limit(_) => "frame-limit.json",
        Frame::Desired(_) => "frame-desired.json",
        Frame::Ping { .. } => "frame-ping.json",
        Frame::Beacon => "frame-beacon.json",
        Frame::Pong { .. } => "frame-pong.json",
    }
}

/// The same of a message, and of what it orders.
fn file_of_message(message: &Message) -> &'static str {
    match message {
        Message::Job(job) => match job.order {
            Order::CardEncode(_) => "message-job-card.encode.json",
            Order::CardRead(_) => "message-job-card.read.json",
            Order::StayModify(_) => "message-job-stay.modify.json",
            Order::StayCheckout { .. } => "message-job-stay.checkout.json",
            Order::SlotPut(_) => "message-job-slot.put.json",
            Order::SlotRemove { .. } => "message-job-slot.remove.json",
            Order::DeviceUnlock { .. } => "message-job-device.unlock.json",
            Order::DeviceRead { .. } => "message-job-device.read.json",
            Order::InventoryRefresh => "message-job-inventory.refresh.json",
        },
        Message::Cancel { .. } => "message-cancel.json",
        Message::Outcome(_) => "message-outcome.json",
        Message::Resolution(_) => "message-resolution.json",
        Message::GrantMade(_) => "message-grant_made.json",
        Message::GrantRevoked(_) => "message-grant_revoked.json",
        Message::DoorEvents(_) => "message-door_events.json",
        Message::Acknowledgement { .. } => "message-acknowledgement.json",
    }
}

/// What version 1 has come to hold since its first files were written.
const LATER_MESSAGES: &str = "message-job-card.encode-begin-again.json";
const LATER_CANCELS: &str = "message-cancel-ordered.json";
const LATER_OUTCOMES: &str = "message-outcome-card-made-here.json";
const OUTCOMES_TO_COME: &str = "message-outcome-printed-start.json";
const LATER_FRAMES: &str = "frame-inventory-override-after-deleted-card.json";

fn by_file<T>(values: Vec<T>, file: impl Fn(&T) -> &'static str) -> BTreeMap<&'static str, Vec<T>> {
    let mut files = BTreeMap::<_, Vec<T>>::new();
    for value in values {
        files.entry(file(&value)).or_default().push(value);
    }
    files
}

#[test]
fn frames_are_read_as_they_were_and_written_as_they_are() {
    for (file, frames) in by_file(values::frames(), file_of_frame) {
        check(file, &frames);
    }
    check(LATER_FRAMES, &values::later_frames());
}

#[test]
fn messages_are_read_as_they_were_and_written_as_they_are() {
    for (file, messages) in by_file(values::messages(), file_of_message) {
        check(file, &messages);
    }
    check(LATER_MESSAGES, &values::later_messages());
    check(LATER_CANCELS, &values::later_cancels());
    check(LATER_OUTCOMES, &values::later_outcomes());
    check(OUTCOMES_TO_COME, &values::outcomes_to_come());
}

#[test]
fn enrolment_is_read_as_it_was_and_written_as_it_is() {
    check("enrol-cloud.json", &values::cloud_cards());
    check("enrol-pair.json", &values::pair_requests());
    check("enrol-waiting.json", &values::waitings());
    check("enrol-renew.json", &values::renew_requests());
    check("enrol-admission.json", &values::admissions());
    check("enrol-answer.json", &values::answers());
}

/// The same with a field that no version knows in every object, at any depth.
fn of_a_later_peer(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            // The one object that is a choice: its only member says which.
            let is_choice = members.contains_key("pin") || members.contains_key("card_number");
            let mut members: Map<_, _> =
                members.into_iter().map(|(name, member)| (name, of_a_later_peer(member))).collect();
            if !is_choice {
                members.insert("of_a_later_peer".into(), json!({"at": [1, null, "noon"]}));
            }
            members.into()
        }
        Value::Array(items) => items.into_iter().map(of_a_later_peer).collect(),
        value => value,
    }
}

#[test]
fn fields_of_a_later_peer_are_ignored_wherever_they_stand() {
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(values: Vec<T>) {
        for value in values {
            let later = of_a_later_peer(serde_json::to_value(&value).unwrap()).to_string();
            assert!(later.contains("of_a_later_peer"), "{later}");
            assert_eq!(serde_json::from_str::<T>(&later).unwrap(), value);
        }
    }
    check(values::frames());
    check(values::later_frames());
    check(values::messages());
    check(values::later_messages());
    check(values::later_cancels());
    check(values::later_outcomes());
    check(values::cloud_cards());
    check(values::pair_requests());
    check(values::waitings());
    check(values::renew_requests());
    check(values::admissions());
    check(values::answers());
}

#[test]
fn what_may_be_left_out_may_also_be_null() {
    let text = r#"{"message":"outcome","job_id":"0192f0c1-2f4e-7a31-9c55-3d1f6a7b0010","revision":1,
        "at":"2026-11-22T12:00:00Z","outcome":{"state":"succeeded","written":null},"resolution":null,"local":null}"#;
    let Message::Outcome(report) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
    assert_eq!((report.resolution, report.local), (None, None));
}

#[test]
fn an_envelope_carries_any_message_unchanged() {
    for message in values::messages() {
        let envelope = latchd::protocol::Envelope::loose(&message);
        assert_eq!(envelope.message().unwrap(), message);
    }
}

#[test]
fn no_file_of_a_version_was_edited() {
    for version in SUMMED {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let sums = fs::read_to_string(folder.join(format!("v{version}.sha256"))).unwrap();
        let sums: BTreeMap<_, _> = sums
            .lines()
            .map(|line| {
                let (sum, file) = line.split_once("  ").unwrap();
                (file.to_owned(), sum.to_owned())
            })
            .collect();
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder.join(format!("v{version}"))).unwrap() {
            let entry = entry.unwrap();
            let sum = digest(&SHA256, &fs::read(entry.path()).unwrap());
            let sum = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            found.insert(entry.file_name().into_string().unwrap(), sum);
        }
        found.remove("schema.json");
        assert_eq!(found, sums);
    }
}

#[test]
fn no_file_is_left_over() {
    let mut known: BTreeSet<_> = [
        "conversation.json",
        "enrol-admission.json",
        "enrol-answer.json",
        "enrol-cloud.json",
        "enrol-pair.json",
        "enrol-renew.json",
        "enrol-waiting.json",
        "fingerprints.json",
        "keys.json",
        "schema.json",
        LATER_FRAMES,
        LATER_MESSAGES,
        LATER_CANCELS,
        LATER_OUTCOMES,
        OUTCOMES_TO_COME,
    ]
    .into();
    known.extend(values::frames().iter().map(file_of_frame));
    known.extend(values::messages().iter().map(file_of_message));
    let found: BTreeSet<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, known.iter().map(|name| (*name).to_owned()).collect());
}
