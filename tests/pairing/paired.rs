//! `latchd pair`.

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use serde_json::json;

use super::{
    cloud::{Cloud, Oddity, Reply, until},
    site::{CODE, Site, Terminal, said},
};

const PAIR: &str = "/bridge/v1/pair";

fn scripted(replies: &[Reply]) -> Cloud {
    let cloud = Cloud::start(Oddity::None);
    cloud.change(|state| state.pair = VecDeque::from(replies.to_vec()));
    cloud
}

#[test]
fn a_site_is_paired_and_its_keys_never_leave_it() {
    let (site, cloud) = (Site::new(), Cloud::start(Oddity::None));
    let told = site.paired(&cloud);
    assert!(told.contains(&format!("bridge {} of Home", cloud.bridge)), "{told}");
    assert!(told.contains("systemctl restart latchd"), "{told}");
    assert_eq!(site.files(), ["pairing.json"]);
    assert_eq!(site.pairing()["url"], format!("wss://127.0.0.1:{}", cloud.port));
    let [request] = &cloud.heard(PAIR)[..] else { panic!("one request") };
    let mut names: Vec<_> = request.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["agent", "code", "csr", "proof", "signing_key"]);
    assert_eq!(request["code"], CODE);
    let _agent = site.run();
    let key = cloud.hellos.recv_timeout(super::cloud::PATIENCE).unwrap();
    let asked = serde_json::to_value(key).unwrap();
    assert_eq!(asked, request["signing_key"]);
    let status =
        until("the link is up", || Some(site.status()).filter(|status| status["link"]["state"] == "up"));
    assert_eq!(status["link"]["bridge_id"], cloud.bridge.to_string());
    assert_eq!(status["link"]["certificate_until"], site.pairing()["expires_at"]);
    let output = site.command(&["doctor"]).output().unwrap();
    let doctor = String::from_utf8(output.stdout).unwrap();
    assert!(doctor.contains(&format!("pairing: bridge {} of Home, until", cloud.bridge)), "{doctor}");
}

#[test]
fn a_person_at_the_terminal_compares() {
    let (site, cloud) = (Site::new(), Cloud::start(Oddity::None));
    let (mut terminal, mut process) = Terminal::start(&mut site.pair_command(&cloud.url(), &[]));
    let shown = terminal.read("[y/N]");
    assert!(shown.contains(&cloud.fingerprint()), "{shown}");
    assert_eq!(cloud.heard(PAIR), Vec::<serde_json::Value>::new());
    terminal.write("y\n");
    let shown = terminal.read("renewed by itself");
    assert!(shown.contains("of Home"), "{shown}");
    assert!(process.0.wait().unwrap().success());
    assert_eq!(site.files(), ["pairing.json"]);
}

#[test]
fn a_person_who_sees_another_fingerprint_sends_nothing() {
    let (site, cloud) = (Site::new(), Cloud::start(Oddity::None));
    let (mut terminal, mut process) = Terminal::start(&mut site.pair_command(&cloud.url(), &[]));
    terminal.read("[y/N]");
    terminal.write("\n");
    assert!(terminal.read("nothing was sent").contains("nothing was sent"));
    assert!(!process.0.wait().unwrap().success());
    assert!(cloud.heard(PAIR).is_empty() && site.files().is_empty());
}

#[test]
fn without_a_terminal_and_without_a_fingerprint_nothing_is_sent_and_it_is_said_what_to_do() {
    let (site, cloud) = (Site::new(), Cloud::start(Oddity::None));
    let told = said(site.pair_command(&cloud.url(), &[]).output().unwrap(), false);
    assert!(told.contains(&format!("--fingerprint {}", cloud.fingerprint())), "{told}");
    assert!(cloud.heard(PAIR).is_empty() && site.files().is_empty());
}

#[test]
fn a_wrong_fingerprint_sends_no_code() {
    let (site, cloud) = (Site::new(), Cloud::start(Oddity::None));
    for wrong in ["AAAA-BBBB-CCCC-DDDD", ""] {
        let told = said(site.pair_command(&cloud.url(), &["--fingerprint", wrong]).output().unwrap(), false);
        assert!(told.contains("another fingerprint") && told.contains("nothing was sent"), "{told}");
    }
    assert!(cloud.heard(PAIR).is_empty() && site.files().is_empty());
    let sloppy = cloud.fingerprint().to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
    said(site.pair_command(&cloud.url(), &["--fingerprint", &sloppy]).output().unwrap(), true);
}

#[test]
fn somebody_in_between_with_a_certificate_of_his_own_is_named_and_told_nothing() {
    let (site, cloud) = (Site::new(), Cloud::start(Oddity::Inspected));
    let told = site.refused(&cloud);
    assert!(told.contains("inspects TLS"), "{told}");
    assert!(cloud.heard(PAIR).is_empty() && site.files().is_empty());
}

#[test]
fn a_cloud_with_its_operators_certificate_is_believed_by_whom_the_site_names() {
    let (site, cloud) = (Site::new(), Cloud::start(Oddity::Operators));
    let told = site.refused(&cloud);
    assert!(told.contains("not issued by a certificate authority that is trusted here"), "{told}");
    assert!(cloud.heard(PAIR).is_empty() && site.files().is_empty());
    let file = site.folder.path().join("theirs.pem");
    fs::write(&file, cloud.authority()).unwrap();
    said(site.pair(&cloud, &["--ca-file", file.to_str().unwrap()]), true);
    // The link needs it no more: what vouched for the cloud stays in the pairing.
    fs::remove_file(&file).unwrap();
    let _agent = site.run();
    cloud.hellos.recv_timeout(super::cloud::PATIENCE).unwrap();
}

#[test]
fn what_pairing_leaves_belongs_to_whom_the_folder_belongs_to() {
    let (site, cloud) = (Site::new(), Cloud::start(Oddity::None));
    let folder = site.folder.path().join("state");
    fs::create_dir(&folder).unwrap();
    // Only the system's administrator can give it to somebody else.
    let _ = std::os::unix::fs::chown(&folder, Some(65_534), Some(65_534));
    let owner = fs::metadata(&folder).unwrap().uid();
    site.paired(&cloud);
    for name in ["pairing.json", "seal.key"] {
        assert_eq!(fs::metadata(site.file(name)).unwrap().uid(), owner, "{name}");
    }
}

#[test]
fn an_agent_that_is_not_paired_says_how_that_is_done() {
    let (site, cloud) = (Site::new(), scripted(&[Reply::Lose]));
    let told = said(site.command(&["run"]).output().unwrap(), false);
    assert!(told.contains("not paired with a cloud") && told.contains("latchd pair URL"), "{told}");
    site.refused(&cloud);
    let output = site.command(&["doctor"]).output().unwrap();
    let doctor = String::from_utf8(output.stdout).unwrap();
    assert!(doctor.contains("repeat it with the same code"), "{doctor}");
}

#[test]
fn a_wrong_clock_is_named_as_such() {
    let (site, cloud) = (Site::new(), Cloud::start(Oddity::Ahead));
    let told = site.refused(&cloud);
    assert!(told.contains("this machine's clock is wrong"), "{told}");
    assert!(cloud.heard(PAIR).is_empty() && site.files().is_empty());
}

#[test]
fn what_is_not_there_or_too_old_is_named_at_once() {
    let (site, old) = (Site::new(), Cloud::start(Oddity::Old));
    let told = site.refused(&old);
    assert!(told.contains("update it"), "{told}");
    for (url, wanted) in [
        ("https://127.0.0.1:1", "nobody takes connections at 127.0.0.1:1"),
        ("https://cloud.invalid", "DNS"),
        ("http://cloud.example", "scheme"),
    ] {
        let told = said(site.pair_command(url, &[]).output().unwrap(), false);
        assert!(told.contains(wanted), "{told}");
    }
    assert!(site.files().is_empty());
}

#[test]
fn a_refusal_is_told_in_the_clouds_words_and_leaves_nothing_behind() {
    let (site, cloud) = (Site::new(), scripted(&[Reply::No(403, "code_unknown", None)]));
    let told = site.refused(&cloud);
    assert!(told.contains("code_unknown") && told.contains("in the cloud's own words"), "{told}");
    assert!(site.files().is_empty(), "{:?}", site.files());
}

#[test]
fn a_cloud_that_has_had_too_much_says_when() {
    let (site, cloud) = (Site::new(), scripted(&[Reply::No(429, "rate_limited", Some(77))]));
    let told = site.refused(&cloud);
    assert!(told.contains("try again in 77 s"), "{told}");
    assert!(!site.file("pairing.json").exists());
}

#[test]
fn an_answer_that_is_not_the_compared_keys_own_is_not_believed() {
    for (reply, oddity, wanted) in [
        (Reply::Altered, Oddity::None, "altered on the way"),
        (Reply::Foreign, Oddity::None, "not the cloud's"),
        // The fingerprint that people compare covers the first key of the card alone.
        (Reply::Foreign, Oddity::TwoKeys, "not the cloud's"),
        (Reply::OtherKeys, Oddity::None, "other keys than ours"),
    ] {
        let (site, cloud) = (Site::new(), Cloud::start(oddity));
        cloud.change(|state| state.pair = VecDeque::from([reply.clone()]));
        let told = site.refused(&cloud);
        assert!(told.contains(wanted), "{reply:?}: {told}");
        assert!(!site.file("pairing.json").exists());
        // The true answer can still be had, with the same keys.
        site.paired(&cloud);
        let heard = cloud.heard(PAIR);
        assert_eq!(heard[0], heard[1]);
    }
}

#[test]
fn while_a_person_makes_up_their_mind_the_same_is_asked_again() {
    let (site, cloud) = (Site::new(), scripted(&[Reply::Wait, Reply::Lose, Reply::Wait]));
    let told = site.paired(&cloud);
    assert_eq!(told.matches("Waiting for a person at the cloud").count(), 1, "{told}");
    let heard = cloud.heard(PAIR);
    assert_eq!(heard.len(), 4);
    assert!(heard.iter().all(|request| *request == heard[0]));
}

#[test]
fn an_answer_that_was_lost_is_asked_for_again_with_the_same_keys() {
    let (site, cloud) = (Site::new(), scripted(&[Reply::Lose]));
    let told = site.refused(&cloud);
    assert!(told.contains("the same command asks again"), "{told}");
    site.paired(&cloud);
    let heard = cloud.heard(PAIR);
    assert_eq!((heard.len(), &heard[0]), (2, &heard[1]));
    assert_eq!(site.files(), ["pairing.json"]);
}

#[test]
fn what_a_kill_leaves_is_sealed_and_goes_on_with_the_same_keys() {
    let (site, cloud) = (Site::new(), scripted(&[Reply::Hold]));
    let fingerprint = cloud.fingerprint();
    let mut command = site.pair_command(&cloud.url(), &["--fingerprint", &fingerprint]);
    let mut process = super::site::Process(command.spawn().unwrap());
    until("the cloud was asked", || (!cloud.heard(PAIR).is_empty()).then_some(()));
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    assert_eq!(site.files(), ["pairing.draft.json"]);
    let draft = site.file("pairing.draft.json");
    assert_eq!(fs::metadata(&draft).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&draft).unwrap().contains(CODE));
    site.paired(&cloud);
    let heard = cloud.heard(PAIR);
    assert_eq!((heard.len(), &heard[0]), (2, &heard[1]));
    assert_eq!(site.files(), ["pairing.json"]);
}

#[test]
fn another_code_is_asked_with_other_keys() {
    let (site, cloud) = (Site::new(), scripted(&[Reply::Lose]));
    site.refused(&cloud);
    let fingerprint = cloud.fingerprint();
    let url = cloud.url();
    let arguments = ["pair", url.as_str(), "--code", "WXYZ-2345", "--fingerprint", &fingerprint];
    said(site.command(&arguments).output().unwrap(), true);
    let heard = cloud.heard(PAIR);
    assert_ne!(heard[0]["signing_key"], heard[1]["signing_key"]);
    assert_ne!(heard[0]["csr"], heard[1]["csr"]);
}

#[test]
fn a_pairing_is_replaced_only_when_asked_and_only_by_an_answer() {
    let (site, cloud) = (Site::new(), Cloud::start(Oddity::None));
    site.paired(&cloud);
    let before = site.pairing();
    let told = site.refused(&cloud);
    assert!(told.contains("paired already") && told.contains("--replace"), "{told}");
    cloud.change(|state| state.pair = VecDeque::from([Reply::No(410, "code_expired", None)]));
    said(site.pair(&cloud, &["--replace"]), false);
    assert_eq!(site.pairing(), before);
    let _agent = site.run();
    let first = cloud.hellos.recv_timeout(super::cloud::PATIENCE).unwrap();
    let told = said(site.pair(&cloud, &["--replace"]), true);
    assert!(told.contains("systemctl reload latchd"), "{told}");
    assert_ne!(site.pairing()["certificate"], before["certificate"]);
    let pid = rustix::process::Pid::from_child(&_agent.0);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let second = cloud.hellos.recv_timeout(super::cloud::PATIENCE).unwrap();
    assert_ne!(first, second);
}

#[test]
fn new_hardware_takes_over_what_the_cloud_knows_of_the_doors_once() {
    for is_current in [true, false] {
        let (site, cloud) = (Site::new(), Cloud::start(Oddity::None));
        let room = |name: &str, certain: bool| {
            json!({
                "system": "salto", "room": name, "reservation_key": "guest-4711", "certain": certain,
                "since": "2026-11-22T12:00:00Z", "cards": 2
            })
        };
        let rooms = [room("101", true), room("102", false)];
        cloud.change(|state| state.ledger = Some(json!({"is_current": is_current, "rooms": rooms})));
        assert!(site.paired(&cloud).contains("2 rooms came along"));
        assert!(!site.pairing().to_string().contains("guest-4711"), "a reservation is not to be read there");
        let _agent = site.run();
        let condition = until("the ledger was taken over", || site.condition("ledger_imported"));
        assert_eq!(condition["severity"], "warning");
        let message = condition["message"].as_str().unwrap();
        let uncertain = if is_current { "for 1 of them" } else { "for 2 of them" };
        assert!(message.contains("2 rooms") && message.contains(uncertain), "{message}");
        assert_eq!(site.pairing()["ledger"], serde_json::Value::Null);
    }
}
