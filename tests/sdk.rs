//! Public client libraries, unmodified, take the whole road: grant, encode, wait, and the door opens.
//!
//! Their versions, a current and an older line for each language, are pinned in `tests/sdk`, whose two scripts go
//! through whole flows. Every answer is read on its way and held against the schemas that the libraries are made
//! from. Where they are not installed, the tests say so and are skipped; `LATCHD_SDKS` names the folder they were
//! installed to. Schemathesis makes up requests beside them.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::print_stdout, reason = "a skipped test says what is missing, and a flow what it checked")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

#[path = "road/keypads.rs"]
#[expect(dead_code, reason = "the road's tests need more of it")]
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod keypads;
#[path = "road/radio_house.rs"]
#[expect(dead_code, reason = "the road's tests need more of it")]
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod radio_house;
#[path = "road/site.rs"]
#[expect(dead_code, reason = "the road's tests need more of it")]
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod site;
#[path = "sdk/tap.rs"]
#[expect(unreachable_pub, reason = "a module of a test has no public face")]
mod tap;

use keypads::Keypads;
use site::{Site, latchd, until};
use tap::{Exchange, Tap};

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

/// A property with a lock server and three keypad locks, whose cloud hands out mobile keys and may tell the simulator
/// what happens next, as a sandbox does.
struct House {
    site: Site,
    keypads: Keypads,
}

impl House {
    fn start() -> Self {
        let mut site = Site::without_agent();
        let keypads = Keypads::start(site.folder.path(), 3);
        let config = site.folder.path().join("cloud.toml");
        let text = fs::read_to_string(&config).unwrap();
        let keys = "instant_key_url = \"https://keys.example/{token}\"";
        let control = site.folder.path().join("property/salto-is.ctl");
        assert!(control.exists(), "the simulator listens elsewhere");
        let text = format!(
            "{}\n[webhooks]\nloopback = true\n[[simulator]]\nsystem = \"house\"\ncontrol = \"{}\"\n",
            text.replace("hold = \"1s\"", keys),
            control.display()
        );
        assert!(text.contains(keys));
        fs::write(&config, text).unwrap();
        site.restart_cloud();
        let mut locks = keypads.section("24h");
        for (lock, name) in [("lock-1", "Front Door"), ("lock-2", "Back Door"), ("lock-3", "Garage")] {
            locks = locks.replace(
                &format!("name = \"{lock}\""),
                &format!("name = \"{lock}\", display_name = \"{name}\""),
            );
        }
        site.configure(&format!("{locks}[limits]\nremote_unlock = true\n"));
        site.start_agent();
        site.healthy();
        until("the devices are online", || {
            let (_, answer) = site.try_call("/devices/list", &json!({}))?;
            let devices = answer["devices"].as_array()?.iter();
            (devices.filter(|device| device["properties"]["online"] == true).count() == 3).then_some(())
        });
        Self { site, keypads }
    }

    /// The house on the hill, alone with its lock system, and an annex that shares it with a desk of its own.
    fn with_an_annex() -> Self {
        let mut site = Site::without_agent_at(&["--tcp", "127.0.0.1:0"]);
        let keypads = Keypads::start(site.folder.path(), 1);
        let locks = keypads.section("24h").replace("name = \"annex\"", "name = \"keypads\"");
        let annex = format!(
            "checkout = \"last_grant\"\nafter_deleted_card = \"override\"\n{locks}
             [[system]]\nname = \"annex\"\nkind = \"salto_is\"\nexclusive = false\nline = {{ tcp = \"{}\" }}\n\
             encoders = [\"Online Encoder 1\"]\nrooms = [\"201\", \"202\", \"203\"]\n\
             [limits]\nlongest_validity = \"30d\"\nrooms_never_issued = [\"annex/203\"]\n",
            site.tcp.as_ref().unwrap()
        );
        site.configure(&annex);
        site.start_agent();
        site.healthy();
        Self { site, keypads }
    }

    fn jobs(&self, state: &str) -> Vec<Value> {
        let listed = self.site.told_json(&["jobs", "list", "--state", state]);
        listed.as_array().unwrap().clone()
    }

    /// The one job of the site that stands so.
    fn only_job(&self, state: &str) -> String {
        let jobs = until("the job is there", || {
            let jobs = self.jobs(state);
            (!jobs.is_empty()).then_some(jobs)
        });
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs[0]["job_id"].as_str().unwrap().to_owned()
    }

    /// What a script asks the people of the house for, since software alone cannot do it.
    fn does(&mut self, asked: &Value) -> Value {
        let word = |key: &str| asked[key].as_str().unwrap_or_else(|| panic!("no {key} in {asked}"));
        match word("please") {
            "lay the card down when it is asked for" => {
                self.site.waits_for_card(word("encoder"));
                self.site.control(&format!("place {} on {}", word("card"), word("encoder")))
            }
            "lay the card down" => {
                self.site.control(&format!("place {} on {}", word("card"), word("encoder")))
            }
            "take the card" => self.site.control(&format!("remove {}", word("encoder"))),
            "lay a card of a kind down when it is asked for" => {
                self.site.waits_for_card(word("encoder"));
                self.site.control(&format!("place {} {} on {}", word("card"), word("kind"), word("encoder")))
            }
            "have the power fail when the card is asked for, and lay it down" => {
                self.site.waits_for_card(word("encoder"));
                self.site.agent().kill();
                self.site.control(&format!("place {} on {}", word("card"), word("encoder")));
                self.site.restart_agent();
                Value::Null
            }
            "cancel the card that waits at the desk" => {
                self.site.waits_for_card("1");
                json!(self.site.told(&["jobs", "cancel", &self.only_job("waiting"), "--by", "Kari"]))
            }
            "say of the doubt" => {
                let job = self.only_job("unknown");
                json!(self.site.told(&["jobs", "resolve", &job, word("verdict"), "--by", "Kari"]))
            }
            "look for a complaint" => until("the site complains of it", || {
                let status = self.site.status();
                let mut conditions = status["conditions"].as_array().unwrap().iter();
                conditions.find(|condition| condition["code"] == word("code")).cloned()
            }),
            "look what failed" => json!(self.jobs("failed")),
            "tell the property" => self.site.control(word("line")),
            "try the card" => json!(self.site.opens(word("card"), word("door"))),
            "type the code" => json!(self.keypads.opens(word("lock"), word("code"))),
            "count how often the lock was opened from afar" => {
                json!(self.keypads.done(word("lock"), "unlocked").len())
            }
            "look what the lock holds" => json!(self.keypads.keys(word("lock"))),
            "unplug the lock" => self.keypads.at(word("lock"), "unplug"),
            "plug the lock in" => self.keypads.at(word("lock"), "replug"),
            "restart the cloud" => {
                self.site.restart_cloud();
                Value::Null
            }
            "have the cloud go away" => {
                self.site.knows_its_grants();
                self.site.cloud().kill();
                Value::Null
            }
            "have the cloud come back" => {
                self.site.restart_cloud();
                self.site.healthy();
                Value::Null
            }
            "make a grant at the desk" => self.site.told_json(&[
                "grant",
                "create",
                "--name",
                word("name"),
                "--door",
                word("door"),
                "--reservation",
                word("stay"),
                "--key",
                word("key"),
                "--to",
                word("to"),
                "--card",
                "--by",
                "Kari",
            ]),
            "give a PIN out at the desk" => self.site.told_json(&[
                "grant",
                "create",
                "--name",
                word("name"),
                "--door",
                word("lock"),
                "--key",
                word("key"),
                "--to",
                word("to"),
                "--code",
                "--by",
                "Kari",
            ]),
            "take a grant back at the desk" => {
                json!(self.site.told(&["grant", "revoke", word("grant"), "--by", "Kari"]))
            }
            "write its card at the desk" => {
                let encoder = word("encoder");
                let mut command = latchd();
                command.args(["encode", word("grant"), "--encoder", encoder, "--by", "Kari"]);
                self.site.at(&mut command).stdin(Stdio::null()).stdout(Stdio::piped());
                let encode = command.spawn().unwrap();
                self.site.waits_for_card(encoder);
                self.site.control(&format!("place {} on {encoder}", word("card")));
                let output = encode.wait_with_output().unwrap();
                assert!(output.status.success(), "{output:?}");
                self.site.control(&format!("remove {encoder}"))
            }
            "switch the bridge off" => {
                self.site.agent().kill();
                Value::Null
            }
            "wall room 105 up, and switch the bridge on" => {
                let config = self.site.folder.path().join("agent.toml");
                let text = fs::read_to_string(&config).unwrap();
                assert!(text.contains(", \"105\"]"), "{text}");
                fs::write(&config, text.replace(", \"105\"]", "]")).unwrap();
                self.site.restart_agent();
                Value::Null
            }
            other => panic!("nobody in the house can {other}"),
        }
    }
}

/// Lets a script go through its flows, does by hand what it asks for, and checks every answer that it got.
fn goes_through_its_flows(line: &str, is_current: bool, mut house: House, client: &mut Command) {
    let (said, folder) = (house.site.said.clone(), house.site.folder.path().to_owned());
    talks(line, is_current, (&said, &folder), client, |asked| house.does(asked));
}

/// The same with whoever does what it asks for; `site` is what its cloud said of itself, and its folder.
fn talks(
    line: &str,
    is_current: bool,
    site: (&Value, &Path),
    client: &mut Command,
    mut does: impl FnMut(&Value) -> Value,
) {
    let document = published();
    let (said, folder) = site;
    let said = |key: &str| said[key].as_str().unwrap();
    let tap = Tap::before(said("api"), &folder.join("cloud"));
    let trouble = folder.join("client.err");
    let client = client
        .env("API", &tap.url)
        .env("API_KEY", fs::read_to_string(said("api_key_file")).unwrap().trim())
        // Each has its own way to trust a certificate authority.
        .env("SSL_CERT_FILE", said("ca_file"))
        .env("REQUESTS_CA_BUNDLE", said("ca_file"))
        .env("NODE_EXTRA_CA_CERTS", said("ca_file"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&trouble).unwrap());
    let mut client = client.spawn().unwrap();
    let mut answers = client.stdin.take().unwrap();
    let (mut skipped, mut flows) = (Vec::new(), Vec::new());
    for line in BufReader::new(client.stdout.take().unwrap()).lines() {
        let told: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if told["please"].is_string() {
            // A script that has failed meanwhile does not listen any more.
            let _ = writeln!(answers, "{}", does(&told));
        } else if let Some(call) = told["skipped"].as_str() {
            skipped.push(call.to_owned());
        } else {
            flows.push(told["flow"].as_str().unwrap().to_owned());
        }
    }
    let ended = client.wait().unwrap();
    assert!(
        ended.success(),
        "{line}, in the flow after {flows:?}: {}",
        fs::read_to_string(&trouble).unwrap()
    );
    println!("{line}: {} flows; not known to it: {skipped:?}", flows.len());
    assert!(!flows.is_empty(), "{line} did nothing");
    assert!(!is_current || skipped.is_empty(), "{line} knows all calls: {skipped:?}");
    let Some(document) = document else { return };
    let exchanges = tap.exchanges();
    let checked = document.check(&exchanges, is_current);
    println!("{line}: {checked} answers of {} calls are what the published schemas say", exchanges.len());
    assert!(checked > 0, "{line} was answered nothing");
}

fn python(line: &str) -> PathBuf {
    installed().map_or_else(|| "python3".into(), |folder| folder.join(format!("python{line}/bin/python3")))
}

fn python_goes_through_its_flows(line: &str, is_current: bool) {
    let python = python(line);
    if is_there("python3 with seam", Command::new(&python).args(["-c", "import seam"])) {
        let mut client = Command::new(&python);
        client.arg(sources().join("flow.py"));
        goes_through_its_flows(&format!("python{line}"), is_current, House::start(), &mut client);
    }
}

#[test]
fn the_current_python_client_goes_through_whole_flows() {
    python_goes_through_its_flows("", true);
}

#[test]
fn an_older_python_client_goes_through_whole_flows() {
    python_goes_through_its_flows("-older", false);
}

#[test]
fn the_stories_of_stays_are_true_at_the_doors() {
    let python = python("");
    if is_there("python3 with seam", Command::new(&python).args(["-c", "import seam"])) {
        let mut client = Command::new(&python);
        client.arg(sources().join("stays.py"));
        goes_through_its_flows("stays", false, House::with_an_annex(), &mut client);
    }
}

/// A lock of each of three kinds, two of them by Bluetooth; the third one's codes are its maker's.
fn locks_of_three_kinds() -> Option<radio_house::House> {
    let with_keys = |lock: &Value| format!(", keys_file = {}", lock["keys_file"]);
    let mut house = radio_house::House::prepare(&[], with_keys)?;
    let config = house.site.folder.path().join("agent.toml");
    let text = fs::read_to_string(&config).unwrap().replace("lead = \"2s\"", "lead = \"72h\"");
    let more = "[[system]]\nname = \"gate\"\nkind = \"igloohome\"\nlocks = [{ name = \"301\" }]\n";
    fs::write(&config, text + more).unwrap();
    house.start_agent();
    house.site.healthy();
    until("the devices are online", || {
        let (_, answer) = house.site.try_call("/devices/list", &json!({}))?;
        let devices = answer["devices"].as_array()?.iter();
        (devices.filter(|device| device["properties"]["online"] == true).count() == 4).then_some(())
    });
    Some(house)
}

#[test]
fn a_client_sees_codes_in_locks_by_bluetooth_and_what_cannot_be_taken_away() {
    let python = python("");
    if !is_there("python3 with seam", Command::new(&python).args(["-c", "import seam"])) {
        return;
    }
    let Some(house) = locks_of_three_kinds() else { return };
    let mut client = Command::new(&python);
    client.arg(sources().join("radio.py"));
    let site = (&house.site.said, house.site.folder.path());
    talks("radio", false, site, &mut client, |asked| {
        let word = |key: &str| asked[key].as_str().unwrap_or_else(|| panic!("no {key} in {asked}"));
        match word("please") {
            "tell the radio" => house.sim(word("line"))["answer"].clone(),
            "try the code" => house.sim(&format!("lock {} try {}", word("lock"), word("try"))),
            other => panic!("nobody in the house can {other}"),
        }
    });
}

/// The Node that was installed with the clients, in the folder where their packages are found.
fn node() -> Command {
    let folder = installed().unwrap_or_else(sources);
    let own = folder.join("node/node_modules/.bin/node");
    let mut node = if own.exists() { Command::new(own) } else { Command::new("node") };
    node.arg("--input-type=module").current_dir(folder);
    node
}

fn javascript_goes_through_its_flows(package: &str, is_current: bool) {
    if is_there("node with seam", node().args(["-e", &format!("import '{package}'")])) {
        let mut client = node();
        client.arg("-e").arg(fs::read_to_string(sources().join("flow.mjs")).unwrap()).env("PACKAGE", package);
        goes_through_its_flows(package, is_current, House::start(), &mut client);
    }
}

#[test]
fn the_current_javascript_client_goes_through_whole_flows() {
    javascript_goes_through_its_flows("seam", true);
}

#[test]
fn an_older_javascript_client_goes_through_whole_flows() {
    javascript_goes_through_its_flows("seam-older", false);
}

/// Requests as the API's own description allows and forbids them, thousands of them: none fails the cloud, and none is
/// answered otherwise than described.
#[test]
fn generated_requests_are_answered_as_the_description_says() {
    let python = python("");
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

/// The schemas that clients are made from, as a JSON Schema understands them.
struct Published {
    document: Value,
    /// What only newer clients know.
    patch: Vec<Addition>,
}

/// One thing that the schemas lack.
#[derive(Debug, serde::Deserialize)]
struct Addition {
    /// Where, as a JSON pointer; `-` is behind the last element of an array.
    add: String,
    value: Value,
    /// Which clients know it.
    #[expect(dead_code, reason = "said for readers")]
    why: String,
}

/// Nothing, where there is no Node with the schemas.
fn published() -> Option<Published> {
    let script = "import {openapi} from '@seamapi/types/connect'; console.log(JSON.stringify(openapi))";
    if !is_there("node with @seamapi/types", node().args(["-e", script])) {
        return None;
    }
    let told = node().args(["-e", script]).stdin(Stdio::null()).output().unwrap();
    let document = plain(&serde_json::from_slice(&told.stdout).unwrap());
    let patch = fs::read_to_string(sources().join("schema-patch.json")).unwrap();
    Some(Published { document, patch: serde_json::from_str(&patch).unwrap() })
}

/// OpenAPI 3.0 has words of its own for null and for open bounds.
fn plain(schema: &Value) -> Value {
    match schema {
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(fields) => {
            let own = |(name, value): &(&String, &Value)| {
                let is_word = ["nullable", "discriminator"].contains(&name.as_str());
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

impl Published {
    /// Checks every answer of a call that succeeded, and says how many there were. A client that knows every call
    /// needs every addition.
    fn check(&self, exchanges: &[Exchange], is_current: bool) -> usize {
        let good: Vec<_> = exchanges.iter().filter(|exchange| exchange.status / 100 == 2).collect();
        // Polls are answered alike.
        let mut answers: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for exchange in &good {
            answers.entry(&exchange.path).or_default().insert(exchange.answer.to_string());
        }
        let patched = self.with_all_but(None);
        let odd: Vec<_> =
            answers.iter().flat_map(|(path, answers)| unlike(&patched, path, answers)).collect();
        assert!(odd.is_empty(), "{}", odd.join("\n"));
        for (number, addition) in self.patch.iter().enumerate().filter(|_| is_current) {
            let without = self.with_all_but(Some(number));
            let is_needed = answers.iter().any(|(path, answers)| !unlike(&without, path, answers).is_empty());
            assert!(is_needed, "no answer needs what the patch adds at {}: {}", addition.add, addition.value);
        }
        good.len()
    }

    fn with_all_but(&self, left_out: Option<usize>) -> Value {
        let mut document = self.document.clone();
        for (_, addition) in self.patch.iter().enumerate().filter(|(number, _)| Some(*number) != left_out) {
            let (within, name) = addition.add.rsplit_once('/').unwrap();
            match document.pointer_mut(within).unwrap_or_else(|| panic!("there is no {within}")) {
                Value::Array(items) => items.push(addition.value.clone()),
                Value::Object(fields) => {
                    let name = name.replace("~1", "/").replace("~0", "~");
                    let before = fields.insert(name, addition.value.clone());
                    assert_eq!(before, None, "{} is there already", addition.add);
                }
                other => panic!("nothing can be added to {other} at {within}"),
            }
        }
        document
    }
}

/// Why answers are not what a published schema says, if they are not.
fn unlike(document: &Value, path: &str, answers: &BTreeSet<String>) -> Vec<String> {
    let content = &document["paths"][path]["post"]["responses"]["200"]["content"];
    let mut schema = content["application/json"]["schema"].clone();
    if !schema.is_object() {
        return vec![format!("{path} is not among the published calls")];
    }
    schema["components"] = document["components"].clone();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let why = |answer: &String| {
        let told = serde_json::from_str(answer).unwrap();
        let error = validator.iter_errors(&told).next()?;
        Some(format!("{path}: {error} at {}\n{answer}", error.instance_path()))
    };
    answers.iter().filter_map(why).collect()
}

#[test]
fn an_answer_that_is_not_what_the_published_schemas_say_is_found() {
    let Some(document) = published() else { return };
    let answers = |answer: Value| BTreeSet::from([answer.to_string()]);
    let odd = answers(json!({"ok": true, "space": {"space_id": "unit"}}));
    assert_eq!(unlike(&document.document, "/spaces/get", &odd).len(), 1);
    let unknown = answers(json!({"ok": true}));
    assert_eq!(
        unlike(&document.document, "/spaces/paint", &unknown),
        ["/spaces/paint is not among the published calls"]
    );
    assert!(unlike(&document.document, "/spaces/delete", &unknown).is_empty());
}
