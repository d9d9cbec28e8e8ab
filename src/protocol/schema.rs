//! This language as a JSON Schema (draft 2020-12), made from its types.
//!
//! It says what a receiver takes: a field that may be left out is not required, one that is not named is allowed and
//! ignored. What it cannot say is in the documentation of the types: signatures, sessions, positions and limits.
//!
//! A text that holds JSON says of what form by `contentSchema`; validators take that for a note, so whoever validates
//! reads the text and validates what is in it for itself.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{DESIRED_SINCE, Frame, Message, enrol, signing};
use crate::model::SystemKind;

/// Lists to which a later peer may add a name; what a receiver does not know, it reads as `other`. `SystemKind` is one
/// since version 2.
const OPEN: [&str; 4] = ["Code", "PinConstraint", "RefusedCode", "Stage"];

/// Frames that are not signed.
const BARE: [&str; 3] = ["ping", "pong", "refused"];

/// The schema of everything that is said in a version, always the same to the byte.
///
/// The root is one websocket message. Under `$defs` are, by the names of their types, what is signed and the requests
/// and answers of enrolment.
#[must_use]
pub fn schema(version: u16) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    generator.subschema_for::<signing::Packet>();
    generator.subschema_for::<signing::Statement>();
    generator.subschema_for::<Frame>();
    generator.subschema_for::<Message>();
    generator.subschema_for::<enrol::CloudCard>();
    generator.subschema_for::<enrol::PairRequest>();
    generator.subschema_for::<enrol::Waiting>();
    generator.subschema_for::<enrol::RenewRequest>();
    generator.subschema_for::<enrol::Answer>();
    generator.subschema_for::<enrol::Admission>();
    let mut types = definitions(&mut generator);
    for name in OPEN {
        open(&mut types[name]);
    }
    part_frames(&mut types);
    types.insert("HttpRefusal".into(), http_refusal());
    match version < DESIRED_SINCE {
        true => take_second_out(&mut types),
        false => open(&mut types["SystemKind"]),
    }
    sorted(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("latchd: bridge and cloud, version {version}"),
        "description": "One text message of the websocket. Requests and answers of enrolment are among the definitions: \
            CloudCard, PairRequest, Waiting, RenewRequest, Answer (which holds an Admission) and HttpRefusal.",
        "$ref": "#/$defs/WebsocketMessage",
        "$defs": types,
    }))
}

/// A text that holds the JSON of a `T`.
pub(super) fn text_of<T: JsonSchema>(schema: &mut Schema) {
    schema.insert("contentMediaType".into(), "application/json".into());
    schema.insert("contentSchema".into(), reference(&T::schema_name()));
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn definitions(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut types = generator.take_definitions(true);
    types.values_mut().for_each(unlink);
    types
}

/// Makes documentation of types readable where its links lead nowhere.
fn unlink(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
                    }
                    member => unlink(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unlink),
        _ => {}
    }
}

/// Lets any other name into a list of names.
fn open(list: &mut Value) {
    let members = list.as_object_mut().expect("a list of names is an object");
    let Some(Value::Array(mut names)) = members.remove("oneOf") else {
        unreachable!("every name of an open list is explained")
    };
    names.retain(|name| name["const"] != "other");
    names.push(json!({"type": "string", "description": "A name of a later peer."}));
    members.insert("anyOf".into(), names.into());
}

/// Parts the frames that are signed from those that are not.
fn part_frames(types: &mut Map<String, Value>) {
    let Value::Array(frames) = types["Frame"]["oneOf"].take() else {
        unreachable!("a frame is one of several")
    };
    let is_bare = |frame: &Value| BARE.iter().any(|name| frame["properties"]["type"]["const"] == *name);
    let (mut bare, signed): (Vec<_>, Vec<_>) = frames.into_iter().partition(is_bare);
    types["Frame"] = json!({"description": "What is signed.", "oneOf": signed});
    let mut packet = reference("Packet");
    packet["description"] = "A signed frame.".into();
    packet["properties"] = json!({"type": {"type": "string", "const": "signed"}});
    packet["required"] = json!(["type"]);
    bare.insert(0, packet);
    types.insert(
        "WebsocketMessage".into(),
        json!({"description": "One text message of the websocket.", "oneOf": bare}),
    );
}

/// Leaves version 1: what version 2 has beside it is said nowhere.
fn take_second_out(types: &mut Map<String, Value>) {
    let is_of_it = |one: &Value| {
        one["properties"]["type"]["const"] == "desired"
            || one["const"] == "desired"
            || one["properties"]["message"]["const"]
                .as_str()
                .is_some_and(|name| name.starts_with("grant_") || name == "door_events")
    };
    for list in ["Frame", "Message", "StreamName"] {
        let Some(Value::Array(ones)) = types[list].get_mut("oneOf") else {
            unreachable!("a frame and a stream is one of several")
        };
        ones.retain(|one| !is_of_it(one));
    }
    let Some(Value::Array(makes)) = types["SystemKind"].get_mut("oneOf") else {
        unreachable!("every make is explained")
    };
    makes.retain(|make| serde_json::from_value(make["const"].clone()).is_ok_and(SystemKind::is_of_version_1));
    // Of a make that is not of version 1.
    if let Some(Value::Array(constraints)) = types["PinConstraint"].get_mut("anyOf") {
        constraints.retain(|one| one["const"] != "computed_by_maker");
    }
    for (name, member) in [("LocalJob", "card"), ("Device", "card_numbers"), ("Capabilities", "chip_numbers")]
    {
        if let Some(Value::Object(members)) = types[name].get_mut("properties") {
            members.remove(member);
        }
    }
    let is_second = |name: &str| {
        const OTHERS: [&str; 7] =
            ["AccessGrantId", "DoorAct", "DoorEvent", "DoorEvents", "DoorMeans", "GrantMade", "GrantRevoked"];
        name.starts_with("Desired") || name == "LocalCard" || OTHERS.contains(&name)
    };
    types.retain(|name, _| !is_second(name));
}

fn http_refusal() -> Value {
    json!({
        "description": "The answer to an HTTP request that is refused.",
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "description": "The stable name of the reason."},
                    "message": {"type": "string", "description": "For a person."},
                },
                "required": ["type", "message"],
            },
        },
        "required": ["error"],
    })
}

/// The same with the members of every object in the order of their names, whatever kind of map the build has.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            members.into_iter().map(|(name, member)| (name, sorted(member))).collect()
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Code, PinConstraint, SystemKind},
        protocol::{RefusedCode, Stage, VERSIONS},
    };

    #[test]
    fn open_lists_are_those_that_read_what_they_do_not_know() {
        let types = schema(DESIRED_SINCE)["$defs"].take();
        let newer = "\"of_a_later_peer\"";
        assert_eq!(serde_json::from_str::<Code>(newer).unwrap(), Code::Other);
        assert_eq!(serde_json::from_str::<PinConstraint>(newer).unwrap(), PinConstraint::Other);
        assert_eq!(serde_json::from_str::<RefusedCode>(newer).unwrap(), RefusedCode::Other);
        assert_eq!(serde_json::from_str::<Stage>(newer).unwrap(), Stage::Other);
        assert_eq!(serde_json::from_str::<SystemKind>(newer).unwrap(), SystemKind::Other);
        let open = || OPEN.into_iter().chain(["SystemKind"]);
        for name in open() {
            let names = types[name]["anyOf"].as_array().unwrap();
            assert!(names.iter().any(|one| one.get("const").is_none()), "{name}");
        }
        // A list that is closed does not speak of others.
        let closed = types.as_object().unwrap().iter().filter(|(name, _)| !open().any(|it| it == *name));
        for (name, list) in closed {
            let names = list["oneOf"].as_array().into_iter().flatten();
            assert!(names.into_iter().all(|one| one["const"] != "other"), "{name}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_nothing_is_left_over() {
        VERSIONS.iter().for_each(|version| check_references(&schema(*version)));
    }

    fn check_references(schema: &Value) {
        let text = schema.to_string();
        let types = schema["$defs"].as_object().unwrap();
        let references = text.split("#/$defs/").skip(1).map(|rest| rest.split('"').next().unwrap());
        let mut used: Vec<_> = references.collect();
        for name in &used {
            assert!(types.contains_key(*name), "{name}");
        }
        used.extend(["CloudCard", "PairRequest", "Waiting", "RenewRequest", "Answer", "HttpRefusal"]);
        for name in types.keys() {
            assert!(used.contains(&name.as_str()), "{name} is used nowhere");
        }
    }
}
