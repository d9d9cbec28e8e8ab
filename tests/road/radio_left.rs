//! Links that are left behind: a lock that stays connected to nobody is out of everybody's reach.

use crate::{radio_house::House, site::until};

/// A lock that answers nothing more holds its link: the conversation is under way.
fn in_a_conversation(house: &House) -> serde_json::Value {
    // Logged in, features, clock: the fifth frame is the code.
    house.sim("lock ttlock-1 fault mute 5");
    let put = house.put("doors", "101", "guest", "135724", (-60, 3600));
    until("the lock is connected", || (house.sim("connected")["answer"] != "").then_some(()));
    put
}

fn ends_as_ordered(house: &House, put: &serde_json::Value) {
    house.reaches(put, "succeeded");
    assert!(house.opens("ttlock-1", "135724"));
    until("no link is held", || (house.sim("connected")["answer"] == "").then_some(()));
}

#[test]
fn an_agent_that_is_killed_in_a_conversation_finds_its_lock_again_though_the_link_stayed() {
    let Some(mut house) = House::start(&[]) else { return };
    let put = in_a_conversation(&house);
    house.site.agent().kill();
    assert_ne!(house.sim("connected")["answer"], "", "the daemon keeps the link of whoever is gone");
    house.start_agent();
    house.site.healthy();
    ends_as_ordered(&house, &put);
}

#[test]
fn an_agent_that_is_stopped_leaves_no_lock_connected() {
    let Some(mut house) = House::start(&[]) else { return };
    let put = in_a_conversation(&house);
    house.site.agent().signal(rustix::process::Signal::TERM);
    house.site.agent().ended();
    assert_eq!(house.sim("connected")["answer"], "");
    house.start_agent();
    house.site.healthy();
    ends_as_ordered(&house, &put);
}
