//! `kill -9` at every place that matters, judged by what the lock server received.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::site::{Gate, Site, latchd, until};

fn unknown_jobs(site: &Site) -> u64 {
    until("the agent answers", || site.jobs("unknown"))
}

fn issued_events(site: &Site, method: &Value) -> usize {
    let ask = json!({ "since": "2020-01-01T00:00:00Z", "access_method_id": method });
    let events = site.ok("/events/list", ask, "events");
    events.as_array().unwrap().iter().filter(|event| event["event_type"] == "access_method.issued").count()
}

/// Lays a card down, waits for success and checks that one check-in frame went out in all.
fn done_once(site: &Site, attempt: &Value, method: &Value) {
    site.waits_for_card("1");
    site.control("place jane on 1");
    let ended = site.ended(attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(site.writing_frames(), 1);
    assert_eq!(issued_events(site, method), 1);
    assert!(site.opens("jane", "101"));
}

#[test]
fn a_job_that_arrived_and_was_not_committed_is_sent_again_and_done_once() {
    let mut site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    site.agent().signal(Signal::STOP);
    let attempt = site.encode(&method, "1");
    site.agent().kill();
    assert_eq!(site.writing_frames(), 0);
    site.restart_agent();
    done_once(&site, &attempt, &method);
}

#[test]
fn a_job_that_waited_in_its_lane_is_done_once() {
    let mut site = Site::start();
    // The lock server takes no further order on its line while one of its encoders waits.
    site.control("set card-wait 5000");
    // The first job holds the line, so the second one waits behind it.
    let (_, holder) = site.grant("Holder", "stay-9", &["105"]);
    let held = site.encode(&holder, "2");
    site.waits_for_card("2");
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    until("the second job waits", || (site.jobs("waiting") == Some(1)).then_some(()));
    site.agent().kill();
    assert_eq!(site.writing_frames(), 1);
    site.restart_agent();
    let held = site.ended(&held);
    assert_eq!(held["error"]["type"], "encoding_interrupted", "{held}");
    site.control("place jane on 1");
    let ended = site.ended(&attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(site.writing_frames(), 2);
    assert_eq!(issued_events(&site, &method), 1);
}

#[test]
fn a_job_whose_mark_is_durable_and_of_which_no_byte_left_is_unknown_and_never_repeated() {
    let mut site = Site::without_agent();
    let gate = Gate::new(&site, "gate");
    site.start_agent_with(|command| gate.on(command));
    site.healthy();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    site.knows_its_grants();
    gate.close();
    let attempt = site.encode(&method, "1");
    gate.hit();
    site.agent().kill();
    gate.open();
    site.restart_agent();
    let ended = site.ended(&attempt);
    assert_eq!(ended["error"]["type"], "encoding_interrupted", "{ended}");
    assert_eq!(unknown_jobs(&site), 1);
    assert_eq!(site.writing_frames(), 0, "no byte had left, and none may leave now");
    let method = site.ok("/access_methods/get", json!({ "access_method_id": method }), "access_method");
    assert_eq!(method["is_encoding_required"], true, "{method}");
    assert_eq!(method["is_ready_for_encoding"], false, "{method}");
}

#[test]
fn a_command_that_left_without_an_answer_is_unknown_exactly_once_with_no_second_frame() {
    let mut site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    site.agent().kill();
    site.restart_agent();
    let ended = site.ended(&attempt);
    assert_eq!(ended["error"]["type"], "encoding_interrupted", "{ended}");
    site.restart_agent();
    site.healthy();
    assert_eq!(unknown_jobs(&site), 1);
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn an_outcome_that_was_committed_and_not_acknowledged_is_delivered_once() {
    let mut site = Site::without_agent();
    let gate = Gate::new(&site, "gate");
    site.start_agent_with(|command| gate.on(command));
    site.healthy();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    site.knows_its_grants();
    gate.close();
    site.control("place jane on 1");
    gate.hit();
    site.agent().kill();
    gate.open();
    site.restart_agent();
    let ended = site.ended(&attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    site.restart_agent();
    site.healthy();
    assert_eq!(site.writing_frames(), 1);
    assert_eq!(issued_events(&site, &method), 1);
    assert_eq!(unknown_jobs(&site), 0);
}

#[test]
fn a_cloud_killed_before_the_order_left_sends_it_after_its_return() {
    let mut site = Site::start();
    let gate = Gate::new(&site, "cloud-gate");
    site.restart_cloud_with(|command| gate.on(command));
    site.healthy();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let encoder = site.encoder("1");
    site.knows_its_grants();
    gate.close();
    let body = json!({ "access_method_id": method, "acs_encoder_id": encoder });
    std::thread::scope(|scope| {
        // The caller hears nothing: its connection dies with the cloud.
        let caller = scope.spawn(|| site.try_call("/access_methods/encode", &body));
        gate.hit();
        assert_eq!(site.writing_frames(), 0);
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(i32::try_from(site.cloud.as_ref().unwrap().pid()).unwrap())
                .unwrap(),
            Signal::KILL,
        )
        .unwrap();
        assert!(caller.join().unwrap().is_none());
    });
    gate.open();
    site.restart_cloud();
    // The order was durable, so the click was not lost: clicking again finds the same attempt.
    let attempt = site.encode(&method, "1");
    done_once(&site, &attempt, &method);
}

#[test]
fn a_cloud_killed_while_the_encoder_waits_hears_of_the_success_after_its_return() {
    let mut site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    site.cloud().kill();
    site.control("place jane on 1");
    site.restart_cloud();
    let ended = site.ended(&attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(site.writing_frames(), 1);
    assert_eq!(issued_events(&site, &method), 1);
}

#[test]
fn an_outcome_that_reached_a_cloud_and_was_not_committed_is_sent_again() {
    let mut site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    site.cloud().signal(Signal::STOP);
    site.control("place jane on 1");
    until("the agent has the outcome", || (site.jobs("succeeded") == Some(1)).then_some(()));
    site.cloud().kill();
    site.restart_cloud();
    let ended = site.ended(&attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(issued_events(&site, &method), 1);
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn an_outcome_that_a_cloud_committed_and_did_not_acknowledge_changes_nothing_the_second_time() {
    let mut site = Site::start();
    let gate = Gate::new(&site, "cloud-gate");
    site.restart_cloud_with(|command| gate.on(command));
    site.healthy();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    site.knows_its_grants();
    gate.close();
    site.control("place jane on 1");
    gate.hit();
    site.cloud().kill();
    gate.open();
    site.restart_cloud();
    site.healthy();
    let ended = site.ended(&attempt);
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(issued_events(&site, &method), 1);
    assert_eq!(site.writing_frames(), 1);
}

/// `latchd jobs resolve` of the one job in doubt; what it printed, and its exit code.
fn resolve(site: &Site, verdict: &str) -> (Option<i32>, String) {
    let socket = site.folder.path().join("agent.sock");
    let listed =
        latchd().args(["jobs", "list", "--json", "--state", "unknown", "--socket"]).arg(&socket).output();
    let jobs: Value = serde_json::from_slice(&listed.unwrap().stdout).unwrap();
    let job = jobs[0]["job_id"].as_str().unwrap_or("00000000-0000-4000-8000-000000000000");
    let output = latchd()
        .args(["jobs", "resolve", job, verdict, "--by", "Ada", "--socket"])
        .arg(&socket)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn a_doubt_that_a_person_settles_moves_the_method_and_the_room_and_is_settled_once() {
    for (verdict, issued) in [("--not-done", false), ("--done", true)] {
        let mut site = Site::start();
        let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
        let attempt = site.encode(&method, "2");
        site.waits_for_card("2");
        site.agent().kill();
        site.control("set card-wait 1000");
        site.control("place jane on 2");
        site.control("wait idle 2");
        site.restart_agent();
        assert_eq!(site.ended(&attempt)["error"]["type"], "encoding_interrupted");
        site.healthy();
        let (code, told) = resolve(&site, verdict);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.starts_with("Settled: job "), "{told}");
        until("the method has moved", || {
            let ask = json!({ "access_method_id": method });
            let method = site.ok("/access_methods/get", ask, "access_method");
            (method["is_issued"] == issued && method["is_ready_for_encoding"] == !issued).then_some(())
        });
        assert_eq!(resolve(&site, verdict).0, Some(1), "a doubt is settled once");
        // The finished attempt stays as it ended, and the room takes the stay's next card: as its first, or as one
        // that joins.
        assert_eq!(site.ended(&attempt)["error"]["type"], "encoding_interrupted");
        let before = (site.frames("CN"), site.frames("CC"));
        site.card("john", "stay-1", &["101"]);
        let joined = u64::from(issued);
        assert_eq!((site.frames("CN"), site.frames("CC")), (before.0 + 1 - joined, before.1 + joined));
    }
}
