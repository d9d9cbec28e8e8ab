//! Every call, by each of its methods, with each of its parameters as it must not be. The cells come from the API's own
//! description: a call or a parameter that is new is in the table at once, and one of a new kind fails it.

use std::{collections::BTreeMap, sync::OnceLock};

use latchd::cloud::api::openapi;
use serde_json::{Map, Value, json};

use super::{Cloud, in_hours, inventory_with_a_lock, read, text};

const FOREIGN: &str = "5b1ed5a0-7a30-4d6f-9d0e-0000000000ff";

pub(super) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(openapi)
}

/// Holds an answer against the description.
pub(super) fn check_answer(path: &str, status: u16, answer: &Value) {
    static VALIDATORS: OnceLock<BTreeMap<String, jsonschema::Validator>> = OnceLock::new();
    let validators = VALIDATORS.get_or_init(|| {
        let paths = document()["paths"].as_object().unwrap();
        let all = paths.iter().flat_map(|(path, operations)| {
            let responses = operations["post"]["responses"].as_object().unwrap();
            responses.iter().filter(|(status, _)| ["200", "400"].contains(&status.as_str())).map(
                move |(status, response)| {
                    let mut schema = response["content"]["application/json"]["schema"].clone();
                    schema["components"] = document()["components"].clone();
                    let validator = jsonschema::options().should_validate_formats(true).build(&schema);
                    (format!("{path} {status}"), validator.unwrap())
                },
            )
        });
        all.collect()
    });
    let documented = &document()["paths"][path]["post"]["responses"][status.to_string()];
    assert!(documented.is_object(), "{path} answers {status}, which is not documented: {answer}");
    let kind = if status == 200 { 200 } else { 400 };
    let validator = &validators[&format!("{path} {kind}")];
    let wrong: Vec<_> = validator.iter_errors(answer).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{path} answers {status} as is not documented: {wrong:?}\n{answer}");
}

/// One parameter of one call by one method.
struct Cell<'a> {
    path: &'a str,
    method: &'a str,
    name: &'a str,
    schema: &'a Value,
}

fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, operations)| {
        let operations = operations.as_object().unwrap();
        operations.iter().map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

fn cells() -> Vec<Cell<'static>> {
    let mut cells = Vec::new();
    for (path, method, operation) in operations() {
        if let Some(parameters) = operation["parameters"].as_array() {
            for parameter in parameters {
                let name = parameter["name"].as_str().unwrap();
                cells.push(Cell { path, method, name, schema: &parameter["schema"] });
            }
        } else {
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            for (name, schema) in body["properties"].as_object().unwrap() {
                // What need not be given may be null as well.
                let schema = schema["anyOf"].get(0).unwrap_or(schema);
                cells.push(Cell { path, method, name, schema });
            }
        }
    }
    cells
}

/// Values that a parameter must not have, as JSON.
fn wrong_values(schema: &Value) -> Vec<Value> {
    let text_instead = json!("no");
    match (schema["type"].as_str(), schema["format"].as_str(), &schema["enum"]) {
        (Some("string"), None, Value::Array(_)) => vec![json!("neither"), json!(""), json!(1), json!([])],
        (Some("string"), Some("uuid"), _) => {
            let braced = format!("{{{FOREIGN}}}");
            vec![json!("x"), json!(FOREIGN.replace('-', "")), json!(braced), json!(7), json!({}), json!(true)]
        }
        (Some("string"), Some("date-time"), _) => {
            let odd = [
                "yesterday",
                "2026-02-30T00:00:00Z",
                "2026-11-22",
                "2026-11-22T10:00:00",
                "+012026-01-01T00:00:00Z",
            ];
            let outside = ["1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z"];
            let texts = odd.into_iter().chain(outside).map(|text| json!(text));
            texts.chain([json!(1_795_262_400), json!([])]).collect()
        }
        (Some("string"), Some("email"), _) => {
            vec![
                json!("jane"),
                json!("a@b"),
                json!("a b@c.de"),
                json!(format!("{}@c.de", "x".repeat(260))),
                json!(1),
            ]
        }
        (Some("string"), None, _) => {
            let mut wrong = vec![json!(1), json!(false), json!({}), json!(["a"])];
            let pattern = schema["pattern"].as_str().unwrap_or_default();
            match schema["maxLength"].as_u64() {
                Some(longest) => wrong.push(json!("x".repeat(usize::try_from(longest).unwrap() + 1))),
                None => wrong.push(json!("neither a code nor a time of day")),
            }
            if pattern.contains("u0000") {
                wrong.extend([json!(""), json!("a\u{0}b"), json!("line\nbreak")]);
            } else {
                wrong.extend([json!("99:99"), json!("123")]);
            }
            wrong
        }
        (Some("integer"), ..) => {
            let most = schema["maximum"].as_u64().unwrap();
            vec![json!(0), json!(-1), json!(1.5), json!(most + 1), json!(1e300), text_instead, json!([1])]
        }
        (Some("boolean"), ..) => vec![json!("maybe"), json!(2), json!([])],
        (Some("array"), ..) => {
            let most = schema["maxItems"].as_u64().unwrap();
            let mut wrong =
                vec![json!({}), json!("a"), json!(1), json!(vec!["a"; usize::try_from(most).unwrap() + 1])];
            wrong.extend(wrong_values(&schema["items"]).into_iter().map(|item| json!([item])));
            wrong
        }
        (Some("object"), ..) => {
            let mut wrong = vec![json!([]), json!("a"), json!(1)];
            for (name, schema) in schema["properties"].as_object().unwrap() {
                let schema = schema["anyOf"].get(0).unwrap_or(schema);
                let inner = wrong_values(schema).into_iter();
                wrong.extend(inner.map(|value| json!({name.as_str(): value})));
            }
            wrong
        }
        // Anything goes where nothing is looked at.
        (None, None, Value::Null) if schema == &json!({}) => Vec::new(),
        _ => panic!("a parameter of a new kind has no case yet: {schema}"),
    }
}

/// The same as texts of a query string, percent-encoded; those that are malformed only as JSON are left out.
fn wrong_texts(schema: &Value) -> Vec<String> {
    let is_number = schema["type"] == "integer";
    if schema["type"] == "array" {
        return wrong_texts(&schema["items"]);
    }
    let mut texts: Vec<_> = wrong_values(schema)
        .into_iter()
        .filter_map(|value| match value {
            Value::String(text) if !text.is_empty() => Some(percent(&text)),
            Value::Number(number) if is_number => Some(percent(&number.to_string())),
            _ => None,
        })
        .collect();
    texts.push("%ff".into());
    texts.push("%2".into());
    texts
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn send(cloud: &Cloud, method: &str, path: &str, query: &str, body: Option<&Value>) -> (u16, Value) {
    let mut request = ureq::http::Request::builder()
        .method(method.to_ascii_uppercase().as_str())
        .uri(format!("{}{path}{query}", cloud.url))
        .header("authorization", cloud.bearer());
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let (status, answer) = read(cloud.agent.run(request.body(body).unwrap()));
    check_answer(path, status, &answer);
    (status, answer)
}

#[test]
fn every_parameter_of_every_call_is_refused_as_it_must_not_be() {
    let cloud = Cloud::with_pretend_property();
    for Cell { path, method, name, schema } in cells() {
        let refused = |(status, answer): (u16, Value), sent: &str| {
            let error = &answer["error"];
            assert_eq!(
                (status, &error["type"]),
                (400, &json!("invalid_input")),
                "{method} {path} {name}={sent}: {answer}"
            );
            let tree = &error["validation_errors"];
            let first = name.split('.').next().unwrap();
            let named =
                tree[first].is_object() || tree["_errors"].as_array().is_some_and(|all| !all.is_empty());
            assert!(named, "{method} {path} {name}={sent}: {answer}");
        };
        match method {
            "get" | "delete" => {
                for wrong in wrong_texts(schema) {
                    let query = format!("?{name}={wrong}&_strict=true");
                    refused(send(&cloud, method, path, &query, None), &wrong);
                }
                if schema["type"] != "array" {
                    let query = format!("?{name}=a&{name}=b");
                    refused(send(&cloud, method, path, &query, None), "twice");
                }
            }
            _ => {
                for wrong in wrong_values(schema) {
                    let body = json!({name: wrong});
                    refused(send(&cloud, method, path, "", Some(&body)), &body.to_string());
                }
            }
        }
    }
}

#[test]
fn every_call_names_what_it_cannot_do_without() {
    let cloud = Cloud::with_pretend_property();
    for (path, method, operation) in operations() {
        let body = &operation["requestBody"]["content"]["application/json"]["schema"]["required"];
        let names: Vec<_> = match operation["parameters"].as_array() {
            Some(parameters) => {
                let required = parameters.iter().filter(|parameter| parameter["required"] == true);
                required.map(|parameter| parameter["name"].as_str().unwrap()).collect()
            }
            None => body.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect(),
        };
        for given in ["", "null"] {
            let (status, answer) = match method {
                "get" | "delete" => {
                    let given = names.iter().map(|name| format!("{name}=")).collect::<Vec<_>>().join("&");
                    let query =
                        if given.is_empty() { String::new() } else { format!("?{given}&_strict=true") };
                    if operation["parameters"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|one| one["required"] == true && one["schema"]["type"] == "array")
                    {
                        // An empty list is not nothing.
                        continue;
                    }
                    send(&cloud, method, path, &query, None)
                }
                _ => {
                    let body: Map<_, _> = match given {
                        "" => Map::new(),
                        _ => names.iter().map(|name| ((*name).to_owned(), Value::Null)).collect(),
                    };
                    send(&cloud, method, path, "", Some(&Value::Object(body)))
                }
            };
            if names.is_empty() {
                assert!([200, 400, 404].contains(&status), "{method} {path}: {status} {answer}");
                continue;
            }
            assert_eq!(status, 400, "{method} {path}: {answer}");
            for name in &names {
                let errors = &answer["error"]["validation_errors"][name]["_errors"];
                assert_eq!(errors, &json!(["Required"]), "{method} {path}: {answer}");
            }
        }
        let nobody = cloud.agent.get(format!("{}{path}", cloud.url)).call();
        assert!([401, 405].contains(&read(nobody).0), "{path}");
    }
}

/// A workspace with one of everything, and the ids of it all by the names that parameters have.
pub(super) struct Furnished {
    key: String,
    ids: BTreeMap<&'static str, String>,
}

impl Furnished {
    pub(super) fn new(cloud: &Cloud, key: &str) -> Self {
        let post = |path: &str, body: Value| {
            let request = cloud.agent.post(format!("{}{path}", cloud.url));
            let (status, answer) =
                read(request.header("authorization", format!("Bearer {key}")).send_json(body));
            assert_eq!(status, 200, "{path}: {answer}");
            check_answer(path, status, &answer);
            answer
        };
        let doors = post("/acs/entrances/list", json!({"search": "101"}))["acs_entrances"][0].clone();
        let encoder = post("/acs/encoders/list", json!({}))["acs_encoders"][0].clone();
        let door = doors["acs_entrance_id"].clone();
        let space =
            post("/spaces/create", json!({"name": "Unit", "space_key": "unit", "acs_entrance_ids": [door]}));
        let grant = post(
            "/access_grants/create",
            json!({
                "user_identity": {"user_identity_key": "jane", "email_address": "jane@example.com"},
                "acs_entrance_ids": [door],
                "requested_access_methods": [{"mode": "card"}],
                "reservation_key": "stay-1",
                "access_grant_key": "booking-1",
                "ends_at": in_hours(24),
            }),
        )["access_grant"]
            .clone();
        let device = post("/devices/list", json!({}))["devices"][0]["device_id"].clone();
        let member = json!({"space_id": space["space"]["space_id"], "device_ids": [device]});
        post("/spaces/add_devices", member);
        let method = grant["access_method_ids"][0].clone();
        let order = json!({"access_method_id": method, "acs_encoder_id": encoder["acs_encoder_id"]});
        let attempt = post("/access_methods/encode", order)["action_attempt"].clone();
        // Of what never happens: nothing leaves for anywhere.
        let hook = json!({"url": "https://receiver.invalid/events", "event_types": ["never.told"]});
        let webhook = post("/webhooks/create", hook)["webhook"].clone();
        let events = post("/events/list", json!({"since": "2020-01-01T00:00:00Z"}))["events"].clone();
        let ids = [
            ("acs_entrance_id", &door),
            ("device_id", &device),
            ("acs_encoder_id", &encoder["acs_encoder_id"]),
            ("acs_system_id", &doors["acs_system_id"]),
            ("connected_account_id", &doors["connected_account_id"]),
            ("space_id", &space["space"]["space_id"]),
            ("access_grant_id", &grant["access_grant_id"]),
            ("access_method_id", &method),
            ("user_identity_id", &grant["user_identity_id"]),
            ("action_attempt_id", &attempt["action_attempt_id"]),
            ("event_id", &events[0]["event_id"]),
            ("webhook_id", &webhook["webhook_id"]),
        ];
        let ids = ids.into_iter().map(|(name, id)| (name, text(id))).collect();
        Self { key: key.to_owned(), ids }
    }

    /// An id for a parameter, whichever of the names for one thing it has.
    pub(super) fn id(&self, parameter: &str) -> Option<&str> {
        let one = parameter.strip_suffix('s').unwrap_or(parameter);
        let one = match one {
            "location_id" | "parent_space_id" => "space_id",
            "merged_user_identity_id" => "user_identity_id",
            "credential_manager_acs_system_id" => "acs_system_id",
            one => one,
        };
        self.ids.get(one).map(String::as_str)
    }

    /// Everything there is, as its own key shows it.
    fn everything(&self, cloud: &Cloud) -> Vec<Value> {
        let paths = [
            "/user_identities/list",
            "/spaces/list",
            "/acs/systems/list",
            "/acs/entrances/list",
            "/acs/encoders/list",
            "/access_grants/list",
            "/devices/list",
            "/action_attempts/list",
            "/workspaces/get",
        ];
        let ask = |path: &str, body: Value| {
            let request = cloud.agent.post(format!("{}{path}", cloud.url));
            read(request.header("authorization", format!("Bearer {}", self.key)).send_json(body)).1
        };
        let mut all: Vec<_> = paths.iter().map(|path| ask(path, json!({}))).collect();
        all.push(ask("/events/list", json!({"since": "2020-01-01T00:00:00Z", "limit": 1000})));
        all.push(ask("/access_grants/get", json!({"access_grant_id": self.ids["access_grant_id"]})));
        for listed in &mut all {
            // Each workspace has its own address of the next page, and there is none.
            assert_ne!(listed["pagination"]["has_next_page"], json!(true));
        }
        all
    }
}

/// A body that a call takes, but for the parameter that is tried.
pub(super) fn required(own: &Furnished, path: &str) -> Map<String, Value> {
    let schema = &document()["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
    let mut body = Map::new();
    for name in schema["required"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        let value = match (name, own.id(name)) {
            (_, Some(id)) if name.ends_with('s') => json!([id]),
            (_, Some(id)) => json!(id),
            ("name", _) => json!("Name"),
            ("is_managed", _) => json!(true),
            ("card_number", _) => json!("04A1B2C3"),
            ("mode", _) => json!("card"),
            ("url", _) => json!("https://receiver.invalid/events"),
            ("event_types", _) => json!(["*"]),
            // No card was written yet.
            ("acs_credential_id", _) => json!(FOREIGN.replace("ff", "cc")),
            ("requested_access_methods", _) => json!([{"mode": "card"}]),
            _ => panic!("{path} needs {name}: say here what that may be"),
        };
        body.insert(name.to_owned(), value);
    }
    match path {
        "/access_grants/create" => {
            body.insert("user_identity_id".into(), json!(own.ids["user_identity_id"]));
            body.insert("acs_entrance_ids".into(), json!([own.ids["acs_entrance_id"]]));
            body.insert("reservation_key".into(), json!("stay-1"));
            body.insert("ends_at".into(), json!(in_hours(24)));
        }
        "/events/list" => {
            body.insert("since".into(), json!("2020-01-01T00:00:00Z"));
        }
        _ => {}
    }
    body
}

#[test]
fn an_id_of_another_workspace_is_answered_like_one_that_was_never_given_out() {
    let cloud = Cloud::with_pretend_property();
    let (their_key, their_bridge) = cloud.second_workspace();
    cloud.furnish_with(cloud.bridge, inventory_with_a_lock());
    cloud.furnish_with(their_bridge, inventory_with_a_lock());
    let own = Furnished::new(&cloud, &cloud.key);
    let theirs = Furnished::new(&cloud, &their_key);
    let before = theirs.everything(&cloud);
    let mut tried = 0;
    let is_id = |schema: &Value| schema["format"] == "uuid" || schema["items"]["format"] == "uuid";
    for Cell { path, method, name, schema } in cells() {
        if method != "post" || !is_id(schema) {
            continue;
        }
        let Some(foreign) = theirs.id(name) else { continue };
        let ask = |id: &str| {
            let mut body = required(&own, path);
            // Names of one thing exclude each other.
            if name == "user_identity_id" || name == "acs_entrance_ids" {
                body.remove(name);
            }
            body.insert(name.to_owned(), if schema["type"] == "array" { json!([id]) } else { json!(id) });
            send(&cloud, "post", path, "", Some(&Value::Object(body)))
        };
        let (status, answer) = ask(foreign);
        let shown = answer.to_string();
        let never = ask(FOREIGN);
        let anonymous = |answer: &Value, id: &str| {
            let text = answer.to_string().replace(id, "ID");
            text.replace(&own.ids["acs_entrance_id"], "DOOR")
        };
        if status == 200 {
            for (kind, id) in &theirs.ids {
                assert!(!shown.contains(id.as_str()), "{path} {name}: shows {kind} of another: {shown}");
            }
        }
        assert_eq!(
            (status, &answer["error"]["type"]),
            (never.0, &never.1["error"]["type"]),
            "{path} {name}: {shown}"
        );
        if status != 200 {
            assert_eq!(anonymous(&answer, foreign), anonymous(&never.1, FOREIGN), "{path} {name}");
        }
        tried += 1;
    }
    assert!(tried > 40, "{tried}");
    assert_eq!(theirs.everything(&cloud), before, "another workspace was changed");
    // Without any filter, nothing of it is shown either.
    for (path, ..) in operations().filter(|(path, method, _)| path.ends_with("/list") && *method == "post") {
        let body = Value::Object(required(&own, path));
        let (_, answer) = send(&cloud, "post", path, "", Some(&body));
        for (kind, id) in &theirs.ids {
            assert!(!answer.to_string().contains(id.as_str()), "{path} shows {kind} of another");
        }
    }
}
