//! The published schema: the same as the program prints, it takes every golden message, and every golden message shows
//! all of it.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use jsonschema::Validator;
use latchd::model::{DoorName, ReservationKey};
use serde_json::{Value, json};

use super::{folder, golden};

fn schema() -> Value {
    latchd::protocol::schema::schema(1)
}

fn validator(of: &str) -> Validator {
    validator_in(schema(), of)
}

pub(crate) fn validator_in(mut schema: Value, of: &str) -> Validator {
    schema["$ref"] = format!("#/$defs/{of}").into();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

pub(crate) fn check(validator: &Validator, value: &Value) {
    let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {value:#}");
}

/// Which definition a golden file's values are of.
fn definition(file: &str) -> Option<&'static str> {
    Some(match file {
        "frame-ping.json" | "frame-pong.json" | "frame-refused.json" => "WebsocketMessage",
        "enrol-cloud.json" => "CloudCard",
        "enrol-pair.json" => "PairRequest",
        "enrol-waiting.json" => "Waiting",
        "enrol-renew.json" => "RenewRequest",
        "enrol-admission.json" => "Admission",
        "enrol-answer.json" => "Answer",
        file if file.starts_with("frame-") => "Frame",
        file if file.starts_with("message-") => "Message",
        _ => return None,
    })
}

/// The values of every file that holds some, with their definition.
fn values() -> Vec<(&'static str, Value)> {
    let values = values_of(folder());
    assert!(values.len() > 100, "{}", values.len());
    values
}

pub(crate) fn values_of(folder: PathBuf) -> Vec<(&'static str, Value)> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut values = Vec::new();
    for file in files {
        if let Some(of) = definition(file.file_name().unwrap().to_str().unwrap()) {
            let read: Vec<Value> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
            values.extend(read.into_iter().map(|value| (of, value)));
        }
    }
    values
}

#[test]
fn the_program_prints_the_published_schema() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_latchd")).args(["schema", "--protocol", "1"]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed, golden("schema.json", &printed));
}

#[test]
fn the_schema_is_one() {
    assert!(jsonschema::meta::is_valid(&schema()));
}

#[test]
fn every_golden_message_is_valid() {
    for (of, value) in values() {
        check(&validator(of), &value);
        // What is inside a text.
        match (of, value["body"].as_str()) {
            ("Answer", Some(body)) => check(&validator("Admission"), &serde_json::from_str(body).unwrap()),
            ("Frame", Some(body)) => check(&validator("Message"), &serde_json::from_str(body).unwrap()),
            _ => {}
        }
    }
}

#[test]
fn everything_that_is_said_in_a_conversation_is_valid() {
    let (message, statement, inner) =
        (validator("WebsocketMessage"), validator("Statement"), validator("Message"));
    for text in super::conversation::texts() {
        let said: Value = serde_json::from_str(&text).unwrap();
        check(&message, &said);
        let Some(body) = said["body"].as_str() else { continue };
        let body: Value = serde_json::from_str(body).unwrap();
        check(&statement, &body);
        if let Some(body) = body["frame"]["body"].as_str() {
            check(&inner, &serde_json::from_str(body).unwrap());
        }
    }
}

#[test]
fn every_name_and_every_word_of_the_schema_is_in_a_golden_message() {
    shows_all_of(&schema(), values());
}

/// Every name and every word of a schema is in one of these values, or in what is said in the conversation.
pub(crate) fn shows_all_of(schema: &Value, values: Vec<(&'static str, Value)>) {
    let mut seen = BTreeSet::new();
    for (_, value) in values {
        gather(&value, &mut seen);
    }
    for text in super::conversation::texts() {
        let said: Value = serde_json::from_str(&text).unwrap();
        gather(&said, &mut seen);
        if let Some(body) = said["body"].as_str() {
            gather(&serde_json::from_str(body).unwrap(), &mut seen);
        }
    }
    let mut wanted = BTreeSet::new();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        if name != "HttpRefusal" {
            promised(definition, &mut wanted);
        }
    }
    assert!(wanted.len() > 150, "{wanted:?}");
    let missing: Vec<_> = wanted.difference(&seen).collect();
    assert!(missing.is_empty(), "no golden message shows {missing:?}");
}

/// Names of members, and texts.
fn gather(value: &Value, seen: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                seen.insert(name.clone());
                gather(member, seen);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, seen)),
        Value::String(text) => {
            seen.insert(text.clone());
        }
        _ => {}
    }
}

/// Names of members, and words of lists, that a schema speaks of.
fn promised(schema: &Value, wanted: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("properties", Value::Object(properties)) => {
                        wanted.extend(properties.keys().cloned());
                        properties.values().for_each(|property| promised(property, wanted));
                    }
                    ("const", Value::String(word)) => {
                        wanted.insert(word.clone());
                    }
                    ("enum", Value::Array(words)) => {
                        wanted.extend(words.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    (_, member) => promised(member, wanted),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| promised(item, wanted)),
        _ => {}
    }
}

#[test]
fn what_a_receiver_refuses_is_not_valid_either() {
    let key = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";
    for (of, value) in [
        ("WebsocketMessage", json!({"type": "beacon"})),
        ("WebsocketMessage", json!({"type": "open_sesame"})),
        ("WebsocketMessage", json!({"type": "ping"})),
        ("WebsocketMessage", json!({"type": "ping", "nonce": -1})),
        (
            "WebsocketMessage",
            json!({"type": "signed", "key_id": "21fe31dfa154a261", "signature": "", "body": ""}),
        ),
        ("Frame", json!({"type": "ping", "nonce": 1})),
        ("Frame", json!({"type": "limit", "stream": "desires", "up_to": 1})),
        ("Message", json!({"message": "erase"})),
        ("Message", json!({"message": "cancel", "job_id": "17"})),
        (
            "Message",
            json!({"message": "acknowledgement", "stream": "orders", "position": {"epoch": 1, "n": 9_007_199_254_740_992_u64}}),
        ),
        ("Position", json!({"epoch": 1})),
        ("DoorName", json!("")),
        ("DoorName", json!(" ")),
        ("DoorName", json!("10\u{1}1")),
        ("DoorName", json!("1".repeat(65))),
        ("ReservationKey", json!("1".repeat(256))),
        ("KeyId", json!("21FE31DFA154A261")),
        ("PublicKey", json!(&key[..43])),
        ("PublicKey", json!(key.replace("w=", "x="))),
        ("Session", json!(key)),
        ("Waiting", json!({"expires_in": "soon"})),
        ("CloudCard", json!({"cloud_keys": [key]})),
        ("Window", json!({"starts_at": "noon", "ends_at": null})),
    ] {
        assert!(!validator(of).is_valid(&value), "{of}: {value}");
    }
    check(&validator("PublicKey"), &json!(key));
    check(&validator("DoorName"), &json!(" 101\u{e9} "));
    check(
        &validator("WebsocketMessage"),
        &json!({"type": "refused", "code": "of_a_later_peer", "message": ""}),
    );
    check(&validator("WebsocketMessage"), &json!({"type": "pong", "nonce": 1, "later": true}));
}

#[test]
fn a_name_is_valid_exactly_where_it_is_taken() {
    let (door, stay) = (validator("DoorName"), validator("ReservationKey"));
    let long = |letters| "é".repeat(letters);
    for text in [
        "101",
        "0",
        " 101 ",
        "Zimmer 1/2",
        "部屋",
        "a\u{301}",
        "",
        " ",
        "\u{3000}",
        "\t",
        "a\tb",
        "a\n",
        "\n",
        "\u{7f}",
        "a\u{85}",
        "\u{0}",
        "a\u{a0}b",
        &long(64),
        &long(65),
        &long(255),
        &long(256),
    ] {
        let value = json!(text);
        assert_eq!(door.is_valid(&value), DoorName::new(text).is_ok(), "{text:?}");
        assert_eq!(stay.is_valid(&value), ReservationKey::new(text).is_ok(), "{text:?}");
    }
}
