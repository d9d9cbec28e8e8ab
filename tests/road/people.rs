//! What people at the site follow and do, with a real agent: live steps, jobs of their own, doing again, pausing.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Stdio},
    time::Instant,
};

use serde_json::{Value, json};

use crate::site::{Site, latchd, until};

/// `latchd jobs watch --json`, killed when it is done with.
struct Watcher {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watcher {
    fn start(site: &Site, words: &[&str]) -> Self {
        let mut command = latchd();
        site.at(command.args(["jobs", "watch", "--json"]).args(words));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }

    /// Every step up to the first that is named so.
    fn until(&mut self, step: &str) -> Vec<Value> {
        let mut heard: Vec<Value> = Vec::new();
        while heard.last().is_none_or(|last| last["step"] != step) {
            heard.push(self.next());
        }
        heard
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn card(room: &str, stay: &str) -> Value {
    let now = jiff::Timestamp::now();
    json!({
        "system": "house",
        "order": {
            "kind": "card.encode", "encoder": "2", "doors": [room], "reservation_key": stay,
            "window": { "starts_at": now, "ends_at": now + jiff::SignedDuration::from_hours(24) },
        },
    })
}

fn steps(heard: &[Value]) -> Vec<&str> {
    heard.iter().map(|step| step["step"].as_str().unwrap()).collect()
}

#[test]
fn every_step_of_a_cloud_job_reaches_who_watches_and_the_clouds_client_in_order() {
    let site = Site::start();
    let (_, method) = site.grant("Jane Secretsson", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    let ask = json!({ "action_attempt_id": attempt, "stage": "sent" });
    until("the cloud's client sees that a card is waited for", || {
        let pending = site.ok("/action_attempts/get", ask.clone(), "action_attempt");
        assert_eq!(pending["status"], "pending", "{pending}");
        (pending["stage"] == "waiting_for_card").then_some(())
    });
    // Whoever begins in the middle is told where it stands, and how long is left. The encoder may wait before the agent has
    // heard that it does; what the cloud's client sees, the agent has told.
    let mut late = Watcher::start(&site, &[]);
    let stands = late.next();
    assert_eq!((&stands["step"], &stands["encoder"]), (&"waiting_for_card".into(), &"1".into()), "{stands}");
    assert!(stands["within_seconds"].as_u64().unwrap() > 0, "{stands}");
    site.control("place jane on 1");
    let laid = Instant::now();
    assert_eq!(late.until("ended").last().unwrap()["state"], "succeeded");
    println!("the end was told {:?} after the card was laid down", laid.elapsed());
    assert!(site.ended(&attempt).get("stage").is_none());
    site.control("remove 1");

    let (_, method) = site.grant("Jane Secretsson", "stay-2", &["102"]);
    let ordered = Instant::now();
    let attempt = site.encode(&method, "1");
    let heard = late.until("waiting_for_card");
    println!("the card was asked for {:?} after its order", ordered.elapsed());
    assert_eq!(steps(&heard), ["sent", "waiting_for_card"], "{heard:?}");
    assert_eq!(heard[1]["doors"], json!(["102"]), "{heard:?}");
    assert!(!format!("{heard:?}").contains("Secretsson"), "{heard:?}");
    site.control("fault error ED 1");
    site.control("place john on 1");
    let end = late.until("ended").pop().unwrap();
    assert_eq!(site.ended(&attempt)["status"] == "success", end["state"] == "succeeded", "{end}");
}

#[test]
fn a_job_of_the_sites_own_is_done_once_and_the_cloud_is_told() {
    let site = Site::start();
    let mut job = card("103", "walk-in");
    job["job_id"] = json!("11111111-2222-4333-8444-555555555555");
    assert_eq!(site.added(&job), json!({ "job_id": job["job_id"], "known": false }));
    let mut watcher = Watcher::start(&site, &[job["job_id"].as_str().unwrap()]);
    site.waits_for_card("2");
    site.control("place walk-in on 2");
    assert_eq!(watcher.until("ended").last().unwrap()["state"], "succeeded");
    assert_eq!(watcher.child.wait().unwrap().code(), Some(0));
    assert_eq!(site.added(&job)["known"], true);
    assert_eq!(site.writing_frames(), 1);
    let shown = site.told(&["jobs", "show", job["job_id"].as_str().unwrap()]);
    assert!(shown.contains("by a person at the site"), "{shown}");

    let event = until("the cloud shows it", || {
        let ask = json!({ "since": "2020-01-01T00:00:00Z", "event_type": "latchd.local_job.ended" });
        site.ok("/events/list", ask, "events").get(0).cloned()
    });
    assert_eq!((&event["job_id"], &event["state"]), (&job["job_id"], &"succeeded".into()), "{event}");
    assert_eq!((&event["origin"], &event["kind"]), (&"person".into(), &"card.encode".into()), "{event}");

    let wrong = site.add(&json!({ "system": "house", "order": { "kind": "card.read" } }));
    assert_eq!(wrong.status.code(), Some(1));
    let wrong = String::from_utf8(wrong.stderr).unwrap();
    assert!(wrong.contains("order.encoder: missing"), "{wrong}");
    let nobodys = site.add(&json!({ "system": "annex", "order": { "kind": "inventory.refresh" } }));
    let nobodys = String::from_utf8(nobodys.stderr).unwrap();
    assert!(nobodys.contains("(system_unknown)"), "{nobodys}");
}

#[test]
fn a_paused_lane_waits_also_after_a_restart_and_its_jobs_can_be_taken_back() {
    let mut site = Site::start();
    let status = site.status();
    let lane = status["lanes"][0]["lane"].as_str().unwrap().to_owned();
    assert!(site.refused(&["lanes", "pause", "elsewhere", "--by", "Kari"]).contains(&lane));
    assert!(site.told(&["lanes", "pause", &lane, "--by", "Kari"]).contains("paused by Kari since 20"));
    site.restart_agent();
    site.healthy();
    let lanes: Value = serde_json::from_str(&site.told(&["lanes", "list", "--json"])).unwrap();
    assert_eq!(lanes[0]["state"], "paused", "{lanes}");
    assert_eq!(lanes[0]["paused"]["by"], "Kari", "{lanes}");

    let mut watcher = Watcher::start(&site, &[]);
    let first = site.added(&card("101", "a"))["job_id"].as_str().unwrap().to_owned();
    let second = site.added(&card("102", "b"))["job_id"].as_str().unwrap().to_owned();
    assert_eq!(steps(&[watcher.next(), watcher.next()]), ["queued", "queued"]);
    assert!(site.told(&["jobs", "cancel", &first, "--by", "Kari"]).starts_with("Cancelled: nothing of job"));
    assert_eq!(watcher.until("ended").last().unwrap()["state"], "cancelled");
    let late = site.refused(&["jobs", "cancel", &first, "--by", "Kari"]);
    assert!(late.contains("too late: it was over at 20") && late.contains("(too_late)"), "{late}");

    let resumed = site.told(&["lanes", "resume", &lane, "--by", "Kari"]);
    assert!(!resumed.contains("PAUSED"), "{resumed}");
    assert_eq!(steps(&watcher.until("waiting_for_card")), ["sent", "waiting_for_card"]);
    let late = site.refused(&["jobs", "cancel", &second, "--by", "Kari"]);
    assert!(late.contains("too late: it was sent at 20"), "{late}");
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn a_failed_card_is_done_again_at_the_site_and_the_clouds_method_follows() {
    let site = Site::start();
    let (_, method) = site.grant("Jane Secretsson", "stay-1", &["101"]);
    site.control("fault error EF 1");
    let attempt = site.encode(&method, "1");
    assert_eq!(site.ended(&attempt)["status"], "error");
    let failed: Value =
        serde_json::from_str(&site.told(&["jobs", "list", "--json", "--state", "failed"])).unwrap();
    let old = failed[0]["job_id"].as_str().unwrap();
    let doubt = site.refused(&["jobs", "resolve", old, "--retry", "--by", "Kari"]);
    assert!(doubt.contains("(not_retriable)"), "{doubt}");
    let text = site.told(&["jobs", "retry", old, "--by", "Kari"]);
    let new = text.split_whitespace().nth(1).unwrap().to_owned();
    let again = site.refused(&["jobs", "retry", &new, "--by", "Kari"]);
    assert!(again.contains("not over yet"), "{again}");
    site.waits_for_card("1");
    site.control("place jane on 1");
    until("the method is issued", || {
        let ask = json!({ "access_method_id": method });
        let shown = site.ok("/access_methods/get", ask, "access_method");
        (shown["is_issued"] == true).then_some(())
    });
    assert_eq!(site.ended(&attempt)["status"], "error", "a finished attempt never changes");
    assert!(site.opens("jane", "101"));
    let shown = site.told(&["jobs", "show", &new]);
    assert!(shown.contains(old), "{shown}");
}
