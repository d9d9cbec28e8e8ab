//! Keypad locks on the whole road: entries that come and go by themselves, locks that are away, doors opened once.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    keypads::{Keypads, SYSTEM},
    site::{Site, latchd, until},
};

/// A site with three locks, ready to work.
fn with_locks(lead: &str, limits: &str) -> (Site, Keypads) {
    let mut site = Site::without_agent();
    let keypads = Keypads::start(site.folder.path(), 3);
    site.configure(&format!("{}{limits}", keypads.section(lead)));
    site.start_agent();
    site.healthy();
    (site, keypads)
}

const UNLOCK: &str = "[limits]\nremote_unlock = true\n";

fn job(order: &Value) -> Value {
    json!({ "system": SYSTEM, "order": order })
}

fn put(lock: &str, pin: &str, starts_at: Timestamp, ends_at: Timestamp) -> Value {
    job(&json!({
        "kind": "slot.put", "device": lock, "slot": "stay-1", "content": { "pin": pin }, "generation": 1,
        "window": { "starts_at": starts_at, "ends_at": ends_at },
    }))
}

fn unlock(lock: &str) -> Value {
    job(&json!({ "kind": "device.unlock", "device": lock }))
}

/// In so many seconds; whole milliseconds, as they are kept.
fn after(seconds: i64) -> Timestamp {
    let now = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
    now + SignedDuration::from_secs(seconds)
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// Adds a job and gives its id.
fn added(site: &Site, job: &Value) -> Value {
    site.added(job)["job_id"].clone()
}

fn shown(site: &Site, job: &Value) -> Value {
    site.told_json(&["jobs", "show", job.as_str().unwrap()])
}

fn state(site: &Site, job: &Value) -> String {
    shown(site, job)["job"]["state"].as_str().unwrap().to_owned()
}

fn reaches(site: &Site, job: &Value, wanted: &str) {
    until(&format!("the job is {wanted}"), || (state(site, job) == wanted).then_some(()));
}

fn lane(site: &Site, lock: &str) -> Value {
    let lanes = site.told_json(&["lanes", "list"]);
    let name = format!("{SYSTEM}/{lock}");
    let lane = lanes.as_array().unwrap().iter().find(|lane| lane["lane"] == *name);
    lane.unwrap_or_else(|| panic!("no lane {name} in {lanes}")).clone()
}

/// The only slot of the site.
fn slot(site: &Site) -> Value {
    let slots = site.told_json(&["slots", "list", "--system", SYSTEM]);
    assert_eq!(slots.as_array().unwrap().len(), 1, "{slots}");
    slots[0].clone()
}

fn condition(site: &Site, lock: &str) -> Option<Value> {
    let status = site.status();
    let subject = format!("{SYSTEM}/{lock}");
    status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|condition| condition["subject"] == *subject)
        .cloned()
}

/// What the cloud was told of a job that it never ordered.
fn told_to_the_cloud(site: &Site, job: &Value) -> Value {
    until("the cloud was told of the job", || {
        let ask = json!({ "since": "2020-01-01T00:00:00Z", "event_type": "latchd.local_job.ended" });
        let (_, answer) = site.try_call("/events/list", &ask)?;
        answer["events"].as_array()?.iter().find(|event| event["job_id"] == *job).cloned()
    })
}

/// `latchd doctor`: its exit code and each verdict.
fn doctor(site: &Site) -> (Option<i32>, Vec<(String, String)>) {
    let mut command = latchd();
    command.args(["doctor", "--json", "--config"]).arg(site.folder.path().join("agent.toml"));
    let output = command.output().unwrap();
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let verdicts = found.iter().map(|one| (text(&one["subject"]), text(&one["verdict"])));
    (output.status.code(), verdicts.collect())
}

#[test]
fn a_pin_comes_when_its_lead_begins_opens_and_goes_at_its_end_through_a_kill_while_the_cloud_is_away() {
    let (mut site, keypads) = with_locks("2s", "");
    let (starts_at, ends_at) = (after(4), after(14));
    let due_at = starts_at - SignedDuration::from_secs(2);
    let put = added(&site, &put("lock-1", "47110815", starts_at, ends_at));
    let waiting = &shown(&site, &put)["job"];
    assert_eq!((&waiting["state"], time(&waiting["due_at"])), (&"waiting".into(), due_at), "{waiting}");
    assert_eq!(slot(&site)["state"], "empty");
    assert_eq!(lane(&site, "lock-1")["waiting"], 1);
    assert!(keypads.keys("lock-1").is_empty());

    keypads.at("lock-1", "wait slot stay-1 within 120000");
    let came = &keypads.done("lock-1", "put")[0];
    assert!(due_at <= time(&came["at"]), "{came}: before its lead began");
    assert_eq!(came["job"], put);
    until("the PIN opens", || keypads.opens("lock-1", "47110815").then_some(()));
    let opened = time(&keypads.done("lock-1", "opened")[0]["at"]);
    assert!(starts_at.as_second() <= opened.as_second(), "opened at {opened}, before {starts_at}");
    assert!(!keypads.opens("lock-2", "47110815") && !keypads.opens("lock-1", "47110816"));
    reaches(&site, &put, "succeeded");
    let filled = slot(&site);
    assert_eq!((&filled["state"], time(&filled["ends_at"])), (&"filled".into(), ends_at), "{filled}");
    assert_eq!(filled["device"], "lock-1");
    let event = told_to_the_cloud(&site, &put);
    assert_eq!((&event["origin"], &event["kind"]), (&"person".into(), &"slot.put".into()), "{event}");
    assert_eq!((&event["state"], &event["device"]), (&"succeeded".into(), &"lock-1".into()), "{event}");

    site.cloud().kill();
    site.agent().kill();
    site.restart_agent();
    site.status();
    let timers = site.told_json(&["jobs", "list", "--state", "waiting"]);
    let timer = &timers[0];
    assert_eq!((&timer["kind"], &timer["origin"]), (&"slot.remove".into(), &"timer".into()), "{timers}");
    assert_eq!(time(&timer["due_at"]), ends_at, "{timers}");
    assert_eq!(slot(&site)["state"], "filled");
    let (code, found) = doctor(&site);
    let verdict = |subject: &str| found.iter().find(|found| found.0 == subject).map(|found| found.1.as_str());
    assert_eq!((code, verdict("cloud")), (Some(2), Some("fail")), "{found:?}");
    // A look of its own would end the agent's conversation with a lock: it is told how the agent finds them.
    assert_eq!(verdict(&format!("system {SYSTEM}")), Some("ok"), "{found:?}");

    keypads.at("lock-1", "wait no-slot stay-1 within 120000");
    assert!(!keypads.opens("lock-1", "47110815"));
    let removal = timer["job_id"].clone();
    reaches(&site, &removal, "succeeded");
    let gone = &keypads.done("lock-1", "removed")[0];
    assert!(gone["job"] == removal && ends_at <= time(&gone["at"]), "{gone}");
    assert_eq!(slot(&site)["state"], "empty");
    let story = site.told(&["jobs", "show", removal.as_str().unwrap()]);
    assert!(story.contains("by the agent: what a slot holds has come to its end"), "{story}");

    site.restart_cloud();
    let event = told_to_the_cloud(&site, &removal);
    assert_eq!((&event["origin"], &event["kind"]), (&"timer".into(), &"slot.remove".into()), "{event}");
    assert_eq!(event["state"], "succeeded", "{event}");
    assert_eq!(keypads.done_for("lock-1", "put", &put), 1);
    for process in [site.agent().errors(), site.cloud().errors(), story] {
        let told = process.lines().find(|line| line.contains("47110815"));
        assert_eq!(told, None, "a PIN is told to nobody");
    }
}

#[test]
fn a_lock_that_is_away_stops_nobody_else_and_gets_its_entry_once_when_it_is_back() {
    let (site, keypads) = with_locks("2s", "");
    keypads.at("lock-2", "unplug");
    let late = added(&site, &put("lock-2", "2222", after(-1), after(600)));
    let other = added(&site, &put("lock-1", "1111", after(-1), after(600)));
    reaches(&site, &other, "succeeded");
    assert!(keypads.opens("lock-1", "1111"));

    until("the lane of the lock rests", || (lane(&site, "lock-2")["state"] == "resting").then_some(()));
    let resting = lane(&site, "lock-2");
    assert!(resting["rest"]["why"].as_str().unwrap().contains("lock"), "{resting}");
    assert_eq!(lane(&site, "lock-1")["state"], "idle");
    // Nothing has left: it waits.
    assert_eq!(state(&site, &late), "waiting");
    let condition_of = || condition(&site, "lock-2");
    let away = until("a condition tells of it", condition_of);
    assert_eq!((&away["code"], &away["severity"]), (&"lane_resting".into(), &"warning".into()), "{away}");
    assert!(doctor(&site).1.contains(&(format!("{SYSTEM}/lock-2"), "warn".to_owned())));
    assert_eq!(condition(&site, "lock-1"), None);

    keypads.at("lock-2", "replug");
    keypads.at("lock-2", "wait slot stay-1 within 120000");
    reaches(&site, &late, "succeeded");
    until("the condition is over", || condition_of().is_none().then_some(()));
    assert_eq!(keypads.done_for("lock-2", "put", &late), 1);
    assert!(keypads.opens("lock-2", "2222"));
}

#[test]
fn a_put_whose_answer_is_lost_stays_sent_through_a_kill_and_is_proven_once_the_lock_is_back() {
    let (mut site, keypads) = with_locks("2s", "");
    keypads.at("lock-1", "fault silent on PUT");
    let put = added(&site, &put("lock-1", "4711", after(-1), after(600)));
    keypads.at("lock-1", "wait requests PUT 1 within 120000");
    keypads.at("lock-1", "wait count put 1 within 120000");
    keypads.at("lock-1", "unplug");
    assert_eq!(slot(&site)["state"], "uncertain", "it may be there");
    let away = |site: &Site| {
        assert_eq!(state(site, &put), "sent");
        (lane(site, "lock-1")["state"] == "resting").then_some(())
    };
    until("the lane of the lock rests", || away(&site));
    assert_eq!(slot(&site)["state"], "uncertain");

    site.agent().kill();
    site.restart_agent();
    site.status();
    until("the lane of the lock rests again", || away(&site));
    keypads.at("lock-1", "replug");
    reaches(&site, &put, "succeeded");
    assert_eq!(slot(&site)["state"], "filled");
    assert_eq!(keypads.keys("lock-1"), ["stay-1"]);
    assert_eq!(told_to_the_cloud(&site, &put)["state"], "succeeded");
}

#[test]
fn a_paused_lane_keeps_its_put_back_and_a_later_removal_takes_its_place() {
    let (site, keypads) = with_locks("2s", "");
    let paused = site.told(&["lanes", "pause", &format!("{SYSTEM}/lock-1"), "--by", "Kari"]);
    assert!(paused.contains("annex/lock-1: paused by Kari"), "{paused}");
    let put = added(&site, &put("lock-1", "4711", after(-1), after(600)));
    // The others are not paused: what they are given is done, and nothing happens at this one.
    let other = added(&site, &job(&json!({ "kind": "device.read", "device": "lock-2" })));
    reaches(&site, &other, "succeeded");
    assert_eq!(
        (state(&site, &put).as_str(), lane(&site, "lock-1")["waiting"].as_u64()),
        ("waiting", Some(1))
    );
    let remove = job(&json!({ "kind": "slot.remove", "device": "lock-1", "slot": "stay-1" }));
    let remove = added(&site, &remove);
    reaches(&site, &put, "superseded");
    assert!(keypads.at("lock-1", "requests")["requests"].as_object().unwrap().is_empty());

    site.told(&["lanes", "resume", &format!("{SYSTEM}/lock-1"), "--by", "Kari"]);
    reaches(&site, &remove, "succeeded");
    assert!(keypads.done("lock-1", "put").is_empty() && keypads.keys("lock-1").is_empty());
    assert_eq!(told_to_the_cloud(&site, &put)["state"], "superseded");
}

#[test]
fn a_door_is_opened_from_afar_only_where_the_site_allows_it() {
    let (site, keypads) = with_locks("2s", "");
    let refused = site.add(&unlock("lock-1"));
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("limits.remote_unlock") && why.contains("(site_forbids_kind)"), "{why}");
    assert!(keypads.at("lock-1", "requests")["requests"].as_object().unwrap().is_empty());
}

#[test]
fn a_door_whose_answer_is_lost_was_opened_once_and_the_locks_ledger_says_so() {
    let (site, keypads) = with_locks("2s", UNLOCK);
    for (number, (fault, times)) in
        [("cut-after", 1), ("silent", 1), ("damaged", 1), ("deaf", 2)].into_iter().enumerate()
    {
        keypads.at("lock-1", &format!("fault {fault} on OPEN"));
        let job = added(&site, &unlock("lock-1"));
        reaches(&site, &job, "succeeded");
        assert_eq!(keypads.done_for("lock-1", "unlocked", &job), 1, "{fault}");
        // What the lock never did is done again, and only that.
        assert_eq!(shown(&site, &job)["attempts"], times, "{fault}");
        assert_eq!(keypads.done("lock-1", "unlocked").len(), number + 1, "{fault}");
        assert_eq!(told_to_the_cloud(&site, &job)["state"], "succeeded");
    }
}

#[test]
fn an_agent_killed_while_a_door_opens_finds_out_whether_it_did() {
    let (mut site, keypads) = with_locks("2s", UNLOCK);
    for (number, (fault, times)) in [("slow 700", 1), ("deaf", 2)].into_iter().enumerate() {
        let asked = keypads.at("lock-3", "requests")["requests"]["OPEN"].as_u64().unwrap_or(0);
        keypads.at("lock-3", &format!("fault {fault} on OPEN"));
        let job = added(&site, &unlock("lock-3"));
        keypads.at("lock-3", &format!("wait requests OPEN {} within 120000", asked + 1));
        site.agent().kill();
        site.restart_agent();
        site.status();
        reaches(&site, &job, "succeeded");
        assert_eq!(keypads.done_for("lock-3", "unlocked", &job), 1, "{fault}");
        assert_eq!(shown(&site, &job)["attempts"], times, "{fault}");
        assert_eq!(keypads.done("lock-3", "unlocked").len(), number + 1, "{fault}");
        assert_eq!(told_to_the_cloud(&site, &job)["state"], "succeeded");
    }
}

#[test]
fn a_door_that_was_opened_or_not_at_a_lock_that_is_gone_is_in_doubt_until_a_person_says() {
    let (site, keypads) = with_locks("2s", UNLOCK);
    keypads.at("lock-1", "fault silent on OPEN");
    let job = added(&site, &unlock("lock-1"));
    keypads.at("lock-1", "wait count unlocked 1 within 120000");
    keypads.at("lock-1", "unplug");
    reaches(&site, &job, "unknown");
    assert_eq!(told_to_the_cloud(&site, &job)["state"], "unknown");
    keypads.at("lock-1", "replug");
    let id = job.as_str().unwrap();
    site.told(&["jobs", "resolve", id, "--done", "--by", "Kari"]);
    assert_eq!(state(&site, &job), "succeeded");
    assert_eq!(keypads.done("lock-1", "unlocked").len(), 1, "it is not opened again");
}

#[test]
fn a_desk_makes_no_grant_whose_code_the_site_itself_forbids() {
    let (mut site, keypads) =
        with_locks("24h", "[limits]\nforbidden_kinds = [\"device.unlock\"]\nlongest_validity = \"30d\"\n");
    site.grant("Ada", "stay-1", &["101"]);
    site.knows_its_grants();
    site.cloud().kill();
    let words =
        ["grant", "create", "--name", "Ida", "--door", "lock-1", "--key", "ida", "--code", "--by", "Kari"];
    // Without an end, and with one that is too far away.
    let far = after(40 * 24 * 3600).to_string();
    for more in [&[][..], &["--to", &far]] {
        let told = site.refused(&[&words[..], more].concat());
        assert!(told.contains("site_validity_limit"), "{told}");
        let there = site.told_json(&["grant", "list"]).to_string();
        assert!(!there.contains("ida"), "{there}");
    }
    assert!(keypads.keys("lock-1").is_empty());
    let near = after(24 * 3600).to_string();
    let made = site.told_json(&[&words[..], &["--to", &near]].concat());
    let pin = made["codes"][0]["code"].as_str().unwrap();
    assert!(keypads.opens("lock-1", pin));
}
