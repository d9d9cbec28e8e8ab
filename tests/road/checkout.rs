//! Freeing a room: only for the last grant of a stay, only where the site says so, and once.

use serde_json::{Value, json};

use crate::site::{Site, until};

fn delete(site: &Site, grant: &Value) {
    let (status, answer) = site.call("/access_grants/delete", json!({ "access_grant_id": grant }));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn the_last_grant_of_a_stay_frees_its_room_once_where_the_site_allows_it() {
    let mut site = Site::without_agent();
    site.configure("checkout = \"last_grant\"");
    site.start_agent();
    site.healthy();
    let (first, _) = site.card("jane", "stay-1", &["101"]);
    let (second, _) = site.card("john", "stay-1", &["101"]);
    let (other, _) = site.card("ada", "stay-2", &["102"]);
    delete(&site, &first);
    // Another stay's card, ordered and written after it, shows that nothing was on its way for the first one.
    site.card("max", "stay-3", &["103"]);
    assert_eq!(site.frames("CO"), 0, "a grant of the stay is still alive");

    delete(&site, &second);
    until("the room is free", || (site.frames("CO") == 1).then_some(()));
    until("the job has ended", || (site.jobs("succeeded") == Some(5)).then_some(()));
    // Neither a second end nor a new start of both processes frees anything again.
    let (status, _) = site.call("/access_grants/delete", json!({ "access_grant_id": second }));
    assert_eq!(status, 404);
    site.restart_agent();
    site.restart_cloud();
    site.healthy();
    site.card("eve", "stay-4", &["101"]);
    assert_eq!(site.frames("CO"), 1);
    assert!(site.opens("eve", "101") && site.opens("ada", "102"));
    let wire = site.control("wire");
    let freed = wire["wire"].as_array().unwrap().iter();
    let freed = freed.filter(|entry| entry["kind"] == "CO" && entry["direction"] == "received");
    let hex: Vec<_> = freed.map(|entry| entry["hex"].as_str().unwrap().to_lowercase()).collect();
    assert!(hex.len() == 1 && hex[0].contains("313031"), "room 101 and no other: {hex:?}");
    delete(&site, &other);
    until("the other room is free", || (site.frames("CO") == 2).then_some(()));
}

#[test]
fn by_default_no_end_of_a_grant_ever_frees_a_room() {
    let site = Site::start();
    let (first, _) = site.card("jane", "stay-1", &["101"]);
    let (second, _) = site.card("john", "stay-1", &["101"]);
    delete(&site, &first);
    delete(&site, &second);
    site.card("ada", "stay-2", &["102"]);
    assert_eq!(site.frames("CO"), 0);
    assert!(site.opens("john", "101"), "the card opens until its printed end");
}
