//! SIGTERM: nothing new begins, what runs ends or is parked honestly; a second signal leaves at once.

use rustix::process::Signal;

use crate::site::{Site, until};

#[test]
fn an_idle_agent_and_cloud_stop_cleanly_on_sigterm() {
    let mut site = Site::start();
    site.agent().signal(Signal::TERM);
    assert_eq!(site.agent().ended(), Some(0));
    site.cloud().signal(Signal::TERM);
    assert_eq!(site.cloud().ended(), Some(0));
}

#[test]
fn a_card_that_is_laid_down_before_the_deadline_is_still_reported() {
    let mut site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    site.agent().signal(Signal::TERM);
    site.control("place jane on 1");
    assert_eq!(site.agent().ended(), Some(0));
    assert_eq!(site.ended(&attempt)["status"], "success");
}

#[test]
fn a_card_that_never_comes_is_parked_at_the_deadline_and_settled_at_the_next_start() {
    let mut site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    let attempt = site.encode(&method, "1");
    site.waits_for_card("1");
    site.agent().signal(Signal::TERM);
    assert_eq!(site.agent().ended(), Some(0));
    site.restart_agent();
    assert_eq!(site.ended(&attempt)["error"]["type"], "encoding_interrupted");
    assert_eq!(site.writing_frames(), 1);
}

#[test]
fn a_second_signal_leaves_at_once() {
    let mut site = Site::start();
    let (_, method) = site.grant("Jane Doe", "stay-1", &["101"]);
    site.encode(&method, "1");
    site.waits_for_card("1");
    site.agent().signal(Signal::TERM);
    until("the first signal is seen", || site.agent().errors().contains("stopping").then_some(()));
    assert!(site.agent().is_running());
    let asked = std::time::Instant::now();
    site.agent().signal(Signal::TERM);
    site.agent().ended();
    // The deadline of these tests is four seconds; leaving at once is well below it.
    assert!(asked.elapsed() < std::time::Duration::from_secs(3), "{:?}", asked.elapsed());
}
