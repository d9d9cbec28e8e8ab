//! The cable is pulled and comes back.

use std::{fs, thread, time::Duration};

use serde_json::{Value, json};

use crate::site::{Site, until};

fn errors(site: &Site) -> Vec<Value> {
    let systems = site.ok("/acs/systems/list", json!({}), "acs_systems");
    systems[0]["errors"].as_array().unwrap().clone()
}

/// Processor time of a process, in clock ticks of a hundredth of a second.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn an_unplugged_line_is_a_condition_that_costs_no_processor_and_ends_by_itself() {
    let mut site = Site::start();
    site.control("unplug serial");
    let seen = until("the cloud shows the broken line", || errors(&site).first().cloned());
    assert_eq!(seen["error_code"], "acs_system_disconnected", "{seen}");
    let conditions = site.status()["conditions"].clone();
    let down = conditions.as_array().unwrap().iter().find(|condition| condition["subject"] == "house");
    assert_eq!(down.unwrap()["severity"], "error", "{conditions}");

    let pid = site.agent().pid();
    let before = ticks(pid);
    thread::sleep(Duration::from_secs(3));
    let spent = ticks(pid) - before;
    assert!(spent < 60, "{spent} hundredths of a second of processor in three idle seconds");

    // What is ordered meanwhile waits, and is done when the line is back.
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    until("the job waits", || (site.jobs("waiting") == Some(1)).then_some(()));
    site.control("replug serial");
    site.waits_for_card("1");
    site.control("place jane on 1");
    assert_eq!(site.ended(&attempt)["status"], "success");
    until("the condition ends", || errors(&site).is_empty().then_some(()));
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn a_line_cut_while_the_card_is_awaited_is_unknown_and_the_next_job_works() {
    let site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    site.control("unplug serial");
    let ended = site.ended(&attempt);
    assert_eq!(ended["error"]["type"], "encoding_interrupted", "{ended}");
    site.control("replug serial");
    site.healthy();
    site.control("fault clear");
    let (_, other) = site.grant("Ada Moe", "stay-2", &["102"]);
    let attempt = site.encode(&other, "2");
    site.waits_for_card("2");
    site.control("place ada on 2");
    assert_eq!(site.ended(&attempt)["status"], "success");
    assert_eq!(site.writing_frames(), 2);
}
