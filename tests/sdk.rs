//! Public client libraries, unmodified, take the whole road: grant, encode, wait, and the door opens.
//!
//! Their versions are pinned in `tests/sdk`. Where they are not installed, the tests say so and are skipped;
//! `LATCHD_SDKS` names the folder they were installed to. Schemathesis makes up requests beside them.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::print_stdout, reason = "a skipped test says what is missing")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

#[path = "road/site.rs"]
#[expect(dead_code, reason = "the road's tests need more of it")]
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod site;

use site::{Site, until};

fn installed() -> Option<PathBuf> {
    env::var_os("LATCHD_SDKS").map(PathBuf::from)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// Says whether a library can be loaded.
fn is_there(what: &str, check: &mut Command) -> bool {
    let there = check.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = there.is_ok_and(|status| status.success());
    if !there {
        assert!(env::var_os("LATCHD_NO_SKIPS").is_none(), "missing: {what}");
        println!("missing: {what}");
    }
    there
}

/// Lets a client make a card for room 101, lays the card down for it, and looks at what came of it.
fn takes_the_road(client: &mut Command, script: &str) {
    let site = Site::start();
    let said = |key: &str| site.said[key].as_str().unwrap();
    let (told, trouble) = (site.folder.path().join("client.out"), site.folder.path().join("client.err"));
    let client = client
        .env("API", said("api"))
        .env("API_KEY", fs::read_to_string(said("api_key_file")).unwrap().trim())
        // Each has its own way to trust a certificate authority.
        .env("SSL_CERT_FILE", said("ca_file"))
        .env("NODE_EXTRA_CA_CERTS", said("ca_file"))
        .stdin(fs::File::open(sources().join(script)).unwrap())
        .stdout(fs::File::create(&told).unwrap())
        .stderr(fs::File::create(&trouble).unwrap());
    let mut client = client.spawn().unwrap();
    until("the encoder waits for a card", || {
        let ended = client.try_wait().unwrap();
        assert!(ended.is_none(), "{script}: {}", fs::read_to_string(&trouble).unwrap());
        (site.frames("CN") == 1).then_some(())
    });
    site.waits_for_card("1");
    site.control("place jane on 1");
    let ended = until("the client ends", || client.try_wait().unwrap());
    assert!(ended.success(), "{script}: {}", fs::read_to_string(&trouble).unwrap());
    let told: Value = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
    assert_eq!(told["status"], "success", "{told}");
    assert_eq!(told["credential"], "salto_space_key", "{told}");
    assert_eq!(told["is_issued"], true, "{told}");
    let events = told["events"].as_array().unwrap();
    for event in ["access_grant.created", "access_method.issued"] {
        assert!(events.contains(&json!(event)), "{event}: {told}");
    }
    site.control("remove 1");
    assert!(site.opens("jane", "101"));
    assert!(!site.opens("jane", "102"));
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn the_python_sdk_makes_a_card() {
    let python = installed().map_or_else(|| "python3".into(), |folder| folder.join("python/bin/python3"));
    if is_there("python3 with seam", Command::new(&python).args(["-c", "import seam"])) {
        takes_the_road(Command::new(&python).arg("-"), "flow.py");
    }
}

/// Requests as the API's own description allows and forbids them, thousands of them: none fails the cloud, and none is
/// answered otherwise than described.
#[test]
fn generated_requests_are_answered_as_the_description_says() {
    let python = installed().map_or_else(|| "python3".into(), |folder| folder.join("python/bin/python3"));
    if !is_there("python3 with schemathesis", Command::new(&python).args(["-c", "import schemathesis"])) {
        return;
    }
    let site = Site::start();
    let said = |key: &str| site.said[key].as_str().unwrap();
    let described =
        Command::new(env!("CARGO_BIN_EXE_latchd")).args(["schema", "--openapi"]).output().unwrap();
    let description = site.folder.path().join("openapi.json");
    fs::write(&description, described.stdout).unwrap();
    let key = fs::read_to_string(said("api_key_file")).unwrap();
    let tried = Command::new(&python)
        .current_dir(site.folder.path())
        .args([
            "-m",
            "schemathesis.cli",
            "run",
            "openapi.json",
            "--url",
            said("api"),
            "--tls-verify",
            said("ca_file"),
        ])
        .arg("--header")
        .arg(format!("Authorization: Bearer {}", key.trim()))
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "10",
            "--seed",
            "7",
            "--workers",
            "1",
        ])
        .args(["--continue-on-failure", "--no-color"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&tried.stdout);
    assert!(tried.status.success(), "{told}{}", String::from_utf8_lossy(&tried.stderr));
    assert!(told.contains("Tested: "), "nothing was tried: {told}");
}

/// The schemas that clients are made from, as a JSON Schema understands them, with our patch for what only newer
/// clients know.
fn published() -> Option<Value> {
    let folder = installed().unwrap_or_else(sources);
    let script = "import {openapi} from '@seamapi/types/connect'; console.log(JSON.stringify(openapi))";
    let mut node = Command::new("node");
    node.args(["--input-type=module", "-e", script]).current_dir(&folder);
    if !is_there("node with @seamapi/types", &mut node) {
        return None;
    }
    let told = node.stdin(Stdio::null()).stdout(Stdio::piped()).output().unwrap();
    let mut document = plain(&serde_json::from_slice(&told.stdout).unwrap());
    let patch = fs::read_to_string(sources().join("schema-patch.json")).unwrap();
    merge(&mut document, &serde_json::from_str(&patch).unwrap());
    Some(document)
}

/// OpenAPI 3.0 has words of its own for null and for open bounds.
fn plain(schema: &Value) -> Value {
    match schema {
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(fields) => {
            let own = |(name, value): &(&String, &Value)| {
                let is_word = ["nullable", "discriminator", "format"].contains(&name.as_str());
                let is_open_bound = name.starts_with("exclusive") && value.is_boolean();
                !(is_word || is_open_bound)
            };
            let kept: Value =
                fields.iter().filter(own).map(|(name, value)| (name.clone(), plain(value))).collect();
            match fields.get("nullable") {
                Some(Value::Bool(true)) => json!({"anyOf": [kept, {"type": "null"}]}),
                _ => kept,
            }
        }
        other => other.clone(),
    }
}

/// A JSON merge patch.
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// Why an answer is not what a published schema says, if it is not.
fn unlike(document: &Value, path: &str, answer: &Value) -> Option<String> {
    let mut schema =
        document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"].clone();
    assert!(schema.is_object(), "{path} is not among the published calls");
    schema["components"] = document["components"].clone();
    let validator = jsonschema::options().build(&schema).unwrap();
    validator
        .iter_errors(answer)
        .next()
        .map(|error| format!("{path}: {error} at {}\n{answer}", error.instance_path()))
}

#[test]
fn answers_are_what_the_published_schemas_say() {
    let Some(document) = published() else { return };
    let site = Site::start();
    let check = |path: &str, body: Value| {
        let (status, answer) = site.call(path, body);
        assert_eq!(status, 200, "{path}: {answer}");
        assert_eq!(unlike(&document, path, &answer), None);
        answer
    };
    for group in ["systems", "entrances", "encoders"] {
        check(&format!("/acs/{group}/list"), json!({}));
    }
    let doors = check("/acs/entrances/list", json!({"search": "101"}));
    let (door, encoder) =
        (&doors["acs_entrances"][0], &check("/acs/encoders/list", json!({}))["acs_encoders"][0]);
    check("/acs/systems/get", json!({"acs_system_id": door["acs_system_id"]}));
    check("/acs/entrances/get", json!({"acs_entrance_id": door["acs_entrance_id"]}));
    check("/acs/encoders/get", json!({"acs_encoder_id": encoder["acs_encoder_id"]}));
    check("/devices/list", json!({}));
    check("/workspaces/get", json!({}));

    let jane =
        check("/user_identities/create", json!({"full_name": "Jane Doe", "phone_number": "+4712345678"}));
    let jane = &jane["user_identity"]["user_identity_id"];
    check("/user_identities/get", json!({"user_identity_id": jane}));
    check("/user_identities/update", json!({"user_identity_id": jane, "full_name": "Jane Roe"}));
    check("/user_identities/list", json!({"search": "roe"}));
    let space = json!({"name": "Unit", "space_key": "unit", "acs_entrance_ids": [door["acs_entrance_id"]]});
    check("/spaces/create", space);
    check("/spaces/get", json!({"space_key": "unit"}));
    check("/spaces/update", json!({"space_key": "unit", "name": "Unit 101"}));
    check("/spaces/list", json!({}));
    let grant = json!({
        "user_identity_id": jane, "space_keys": ["unit"], "requested_access_methods": [{"mode": "card"}],
        "reservation_key": "stay-1", "ends_at": (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).to_string(),
    });
    let grant = check("/access_grants/create", grant)["access_grant"].clone();
    let (id, method) = (&grant["access_grant_id"], &grant["access_method_ids"][0]);
    check("/access_grants/get", json!({"access_grant_id": id}));
    check("/access_methods/get", json!({"access_method_id": method}));
    check("/access_grants/get_related", json!({"access_grant_ids": [id]}));
    check("/spaces/get_related", json!({"space_keys": ["unit"]}));

    site.control("place jane on 1");
    let order = json!({"access_method_id": method, "acs_encoder_id": encoder["acs_encoder_id"]});
    let ended = |attempt: &Value| {
        let attempt = json!({"action_attempt_id": attempt["action_attempt"]["action_attempt_id"]});
        until("the attempt ends", || {
            let answer = check("/action_attempts/get", attempt.clone())["action_attempt"].clone();
            (answer["status"] != "pending").then_some(answer)
        })
    };
    assert_eq!(ended(&check("/access_methods/encode", order))["status"], "success");
    let scan = json!({"acs_encoder_id": encoder["acs_encoder_id"]});
    let seen = ended(&check("/acs/encoders/scan_credential", scan));
    assert_eq!(seen["status"], "success", "{seen}");
    assert_eq!(seen["result"]["acs_credential_on_seam"]["external_type"], "salto_space_key", "{seen}");
    check("/action_attempts/list", json!({"limit": 10}));
    check("/access_methods/get_related", json!({"access_method_ids": [method]}));
    let events = check("/events/list", json!({"since": "2020-01-01T00:00:00Z"}));
    check("/events/get", json!({"event_id": events["events"][0]["event_id"]}));
    check("/access_grants/delete", json!({"access_grant_id": id}));
    check("/user_identities/delete", json!({"user_identity_id": jane}));

    let odd = json!({"ok": true, "space": {"space_id": "unit"}});
    assert!(unlike(&document, "/spaces/get", &odd).is_some(), "the schemas refuse nothing");
}

#[test]
fn the_javascript_sdk_makes_a_card() {
    // A module that is read from standard input finds its packages from the working directory on.
    let folder = installed().unwrap_or_else(sources);
    let node = || {
        let mut node = Command::new("node");
        node.arg("--input-type=module").current_dir(&folder);
        node
    };
    if is_there("node with @seamapi/http", node().args(["-e", "import '@seamapi/http'"])) {
        takes_the_road(node().arg("-"), "flow.mjs");
    }
}
