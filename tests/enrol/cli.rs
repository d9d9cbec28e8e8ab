//! The command line against a running cloud.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

struct Cloud {
    process: Child,
    folder: tempfile::TempDir,
    first_line: Value,
}

fn latchd(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchd"));
    command
        .arg("cloud")
        .args(args)
        .arg("--config")
        .arg(folder.join("cloud.toml"))
        .env("USER", "night porter");
    command.stdin(Stdio::null());
    command
}

fn configure(folder: &Path) {
    let config = "[storage]\nfolder = \"store\"\n[api]\nlisten = \"127.0.0.1:0\"\nplain = true\n[bridges]\n\
                  listen = \"127.0.0.1:0\"\ncertificate_lifetime = \"60s\"\nrenewal_grace = \"0s\"\n";
    fs::write(folder.join("cloud.toml"), config).unwrap();
}

impl Cloud {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        configure(folder.path());
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut process = latchd(folder.path(), &[]).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let first_line = serde_json::from_str(&line).unwrap();
        Self { process, folder, first_line }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn run(&self, args: &[&str]) -> Output {
        latchd(self.folder.path(), args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn without_a_running_cloud_it_is_said_that_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let output = latchd(folder.path(), &["bridges", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no cloud runs on") && said.contains("start it"), "{said}");
}

#[test]
fn an_invitation_says_what_to_type_and_how_to_answer_and_the_lists_show_it() {
    let cloud = Cloud::start();
    let socket = Path::new(cloud.first_line["admin_socket"].as_str().unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    let mut pair = latchd(cloud.folder.path(), &["bridges", "pair", "--name", "Fjord", "--json"]);
    let mut pair = pair.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(pair.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let invited: Value = serde_json::from_str(&line).unwrap();
    let (code, command) = (invited["code"].as_str().unwrap(), invited["command"].as_str().unwrap());
    assert_eq!(code.len(), 9);
    assert!(command.starts_with("latchd pair https://127.0.0.1:") && command.contains(code), "{command}");
    assert!(command.contains(invited["cloud_fingerprint"].as_str().unwrap()));
    let listed = cloud.json(&["bridges", "list", "--json"]);
    assert_eq!(listed["bridges"][0]["state"], "not_paired");
    assert_eq!(listed["pairings"][0]["state"], "open");
    assert!(!listed.to_string().contains(code), "the code is told once");
    pair.kill().unwrap();
    pair.wait().unwrap();

    let bridge = listed["bridges"][0]["bridge_id"].as_str().unwrap();
    assert!(cloud.run(&["bridges", "rename", bridge, "Fjord"]).status.success());
    let table = String::from_utf8(cloud.run(&["bridges", "list"]).stdout).unwrap();
    assert!(table.contains("Fjord") && table.contains("not paired") && table.contains("open"), "{table}");
    assert!(cloud.run(&["bridges", "revoke", bridge, "--why", "stolen"]).status.success());
    let refused = cloud.run(&["bridges", "revoke", bridge]);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("revoked already"));

    assert!(cloud.run(&["signing-keys", "add"]).status.success());
    let keys = cloud.json(&["signing-keys", "list", "--json"]);
    assert_eq!(keys.as_array().unwrap().len(), 2);
    let old = keys[1]["key_id"].as_str().unwrap();
    assert!(cloud.run(&["signing-keys", "retire", old]).status.success());
    let keys = cloud.json(&["signing-keys", "list", "--json"]);
    assert!(keys[1]["retired_at"].is_string());

    let log = cloud.log();
    for (what, who) in [
        ("a bridge was invited", "night porter"),
        ("a bridge was renamed", "Fjord"),
        ("a bridge was revoked", "stolen"),
        ("the cloud has a new signing key", keys[0]["key_id"].as_str().unwrap()),
        ("a signing key of the cloud was retired", old),
    ] {
        let told = log.lines().any(|line| line.contains(what) && line.contains(who));
        assert!(told, "{what} by or of {who}: {log}");
    }
    assert!(!log.contains(code) && !log.contains(&code.replace('-', "")), "the log holds the code");
}

#[test]
fn an_api_key_is_told_once_counts_for_its_workspace_and_no_more_when_it_is_revoked() {
    let cloud = Cloud::start();
    let path = |name: &str| cloud.folder.path().join(name);
    let create = |args: &[&str], to: &str| {
        let to = path(to);
        let mut all = vec!["keys", "create", "--to", to.to_str().unwrap()];
        all.extend(args);
        cloud.run(&all)
    };
    assert!(cloud.run(&["workspaces", "create", "Annex"]).status.success());
    let again = cloud.run(&["workspaces", "create", "Annex"]);
    assert!(String::from_utf8(again.stderr).unwrap().contains("workspace_exists"));
    assert!(create(&["--name", "kiosk"], "home.key").status.success());
    assert!(create(&["--workspace", "Annex"], "annex.key").status.success());
    let unknown = create(&["--workspace", "Attic"], "attic.key");
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("workspace_unknown"));
    assert!(!path("attic.key").exists(), "a key that does not count is kept nowhere");
    let piped = cloud.run(&["keys", "create"]);
    assert!(String::from_utf8(piped.stderr).unwrap().contains("--to"), "a pipe is no person");

    let key = |name: &str| fs::read_to_string(path(name)).unwrap().trim().to_owned();
    let mode = fs::metadata(path("home.key")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let api = cloud.first_line["api"].as_str().unwrap();
    let ask = |key: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request =
            agent.get(format!("{api}/workspaces/get")).header("authorization", format!("Bearer {key}"));
        let mut answer = request.call().unwrap();
        let body: Value = answer.body_mut().read_json().unwrap();
        (answer.status().as_u16(), body["workspace"]["name"].as_str().map(str::to_owned))
    };
    assert_eq!(ask(&key("home.key")), (200, Some("Home".into())));
    assert_eq!(ask(&key("annex.key")), (200, Some("Annex".into())));

    let listed = cloud.json(&["keys", "list", "--json"]);
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|key| key["name"].as_str()).collect();
    assert_eq!(names, [None, Some("kiosk"), None]);
    let id = listed[1]["key_id"].as_str().unwrap();
    assert!(cloud.run(&["keys", "revoke", id]).status.success());
    let again = cloud.run(&["keys", "revoke", id]);
    assert!(String::from_utf8(again.stderr).unwrap().contains("revoked already"));
    assert_eq!(ask(&key("home.key")), (401, None));
    assert_eq!(ask(&key("annex.key")).0, 200);
    let table = String::from_utf8(cloud.run(&["keys", "list"]).stdout).unwrap();
    assert!(table.contains("Annex") && table.contains("REVOKED"), "{table}");
    for file in ["home.key", "annex.key"] {
        let secret = key(file);
        assert!(
            !cloud.log().contains(&secret)
                && !table.contains(&secret)
                && !listed.to_string().contains(&secret)
        );
    }
}
