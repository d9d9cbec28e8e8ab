//! Radio at the pace that the product sets by itself, and a daemon that ends links as slowly as the real one: what hangs is
//! waited for as long as at a site.

use jiff::Timestamp;
use serde_json::Value;

use crate::{radio_house::House, site::until};

fn house() -> Option<House> {
    let with_keys = |lock: &Value| format!(", keys_file = {}", lock["keys_file"]);
    let mut house = House::prepare_with(&["--hang-up-ms", "2000"], with_keys, "")?;
    house.start_agent();
    house.site.healthy();
    Some(house)
}

/// How long a job took from its order to its end, in seconds.
fn seconds(shown: &Value) -> i64 {
    let at = |field: &Value| field.as_str().unwrap().parse::<Timestamp>().unwrap();
    at(&shown["job"]["changed_at"]).as_second() - at(&shown["job"]["created_at"]).as_second()
}

#[test]
fn a_connection_that_hangs_is_called_off_in_the_end_and_makes_no_other_lock_count_as_absent() {
    let Some(house) = house() else { return };
    house.sim("range ttlock-2 off");
    let other = house.put("doors", "102", "stay-1", "250912", (-60, 3600));
    house.reaches(&other, "sent");
    until("it is listened for", || (0 < house.count("Adapter1.StartDiscovery")).then_some(()));
    house.sim("fault ttlock-1 connect hang");
    let hung = house.put("doors", "101", "stay-1", "471108", (-60, 3600));
    until("it is being connected", || (house.count("Device1.Connect ttlock-1") == 1).then_some(()));
    house.sim("range ttlock-2 on");
    // Nobody could hear it for as long as the other connection was tried.
    let shown = house.reaches(&other, "succeeded");
    assert_eq!(shown["attempts"], 1, "{shown}");
    assert!(20 <= seconds(&shown), "{shown}");
    assert!(house.opens("ttlock-2", "250912"));
    let shown = house.reaches(&hung, "succeeded");
    assert!(20 <= seconds(&shown), "{shown}");
    assert!(house.opens("ttlock-1", "471108"));
    until("no link is held", || (house.sim("connected")["answer"] == "").then_some(()));
    assert_eq!(house.count("Device1.Connect ttlock-1"), 2);
    assert_eq!(house.count("Device1.Disconnect ttlock-1"), 2, "what hung, and what was done");
}

#[test]
fn a_table_that_never_appears_is_given_up_and_the_lock_is_let_go_of() {
    let Some(house) = house() else { return };
    house.sim("resolve august-1 never");
    let put = house.put("flats", "201", "stay-1", "471108", (-60, 3600));
    until("it is connected", || (house.sim("connected")["answer"] == "august-1").then_some(()));
    house.sim("resolve august-1 whole");
    let shown = house.reaches(&put, "succeeded");
    assert!(20 <= seconds(&shown), "{shown}");
    assert!(house.opens("august-1", "471108"));
    until("no link is held", || (house.sim("connected")["answer"] == "").then_some(()));
    assert_eq!(house.count("Device1.Connect august-1"), 2);
    assert_eq!(house.count("Device1.Disconnect august-1"), 2);
}

#[test]
fn an_answer_that_never_comes_is_waited_for_and_what_was_done_meanwhile_is_found() {
    let Some(house) = house() else { return };
    // The frame with the code is done and not answered.
    house.sim("lock ttlock-1 fault mute 5");
    // The daemon never tells what became of a write.
    house.sim("fault august-1 write pass");
    house.sim("fault august-1 write hang");
    let unanswered = house.put("doors", "101", "stay-1", "471108", (-60, 3600));
    let unacknowledged = house.put("flats", "201", "stay-1", "250912", (-60, 3600));
    let shown = house.reaches(&unanswered, "succeeded");
    assert!(10 <= seconds(&shown), "{shown}");
    assert_eq!(house.table("ttlock-1").split(';').count(), 1);
    assert!(house.opens("ttlock-1", "471108"));
    let shown = house.reaches(&unacknowledged, "succeeded");
    assert!(5 <= seconds(&shown), "{shown}");
    assert!(house.opens("august-1", "250912"));
    until("no link is held", || (house.sim("connected")["answer"] == "").then_some(()));
}
