//! The next certificate.

use std::collections::VecDeque;

use jiff::SignedDuration;
use latchd::protocol::PublicKey;

use super::{
    cloud::{Cloud, Oddity, PATIENCE, Reply, until},
    site::Site,
};

const RENEW: &str = "/bridge/v1/renew";

/// A paired site whose first certificate counts for so long, with a cloud whose later ones count for months.
fn site(cloud: &Cloud, backdated: i64, seconds: i64) -> Site {
    let site = Site::new();
    let life = |state: &mut super::cloud::State, backdated, life| {
        (state.backdated, state.life) = (SignedDuration::from_secs(backdated), life);
    };
    cloud.change(|state| life(state, backdated, SignedDuration::from_secs(seconds)));
    site.paired(cloud);
    cloud.change(|state| life(state, 0, SignedDuration::from_hours(24 * 90)));
    site
}

fn hello(cloud: &Cloud) -> PublicKey {
    cloud.hellos.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn a_certificate_is_renewed_after_a_third_of_its_life_and_the_link_goes_on_with_it() {
    let cloud = Cloud::start(Oddity::None);
    let site = site(&cloud, 0, 30);
    let before = site.pairing();
    let _agent = site.run();
    let (first, second) = (hello(&cloud), hello(&cloud));
    assert_ne!(first, second);
    let [request] = &cloud.heard(RENEW)[..] else { panic!("one request: {:?}", cloud.heard(RENEW)) };
    assert_eq!(request["bridge_id"], cloud.bridge.to_string());
    assert_eq!(request["old_key_id"], first.id().as_str());
    assert_eq!(request["signing_key"], serde_json::to_value(second).unwrap());
    let after = site.pairing();
    assert!(after["certificate"] != before["certificate"] && after["url"] == before["url"]);
    assert_eq!(site.files(), ["pairing.json"]);
    let status =
        until("the link is up", || Some(site.status()).filter(|status| status["link"]["state"] == "up"));
    assert_eq!(status["link"]["certificate_until"], after["expires_at"]);
}

#[test]
fn a_site_that_was_away_past_the_end_comes_back_by_its_old_key() {
    let cloud = Cloud::start(Oddity::None);
    let site = site(&cloud, 1000, 900);
    let _agent = site.run();
    let key = hello(&cloud);
    let heard = cloud.heard(RENEW);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0]["signing_key"], serde_json::to_value(key).unwrap());
    assert!(site.log().contains("link_certificate_expired"), "{}", site.log());
}

#[test]
fn a_cloud_that_ends_a_connection_with_its_certificate_is_asked_for_the_next_one_at_once() {
    let cloud = Cloud::start(Oddity::EndsTheFirst);
    // By its own reckoning it would ask in a month.
    let site = site(&cloud, 0, 24 * 3600 * 90);
    let before = site.pairing();
    let _agent = site.run();
    let first = hello(&cloud);
    let next = until("it comes with another key", || Some(hello(&cloud)).filter(|key| *key != first));
    let [request] = &cloud.heard(RENEW)[..] else { panic!("one request: {:?}", cloud.heard(RENEW)) };
    assert_eq!(request["old_key_id"], first.id().as_str());
    assert_eq!(request["signing_key"], serde_json::to_value(next).unwrap());
    assert_ne!(site.pairing()["certificate"], before["certificate"]);
    assert!(site.log().contains("link_certificate_expired"), "{}", site.log());
    until("the link is up", || Some(site.status()).filter(|status| status["link"]["state"] == "up"));
}

#[test]
fn a_cloud_that_does_not_renew_is_told_of_once_half_of_the_life_is_over() {
    let cloud = Cloud::start(Oddity::None);
    let site = site(&cloud, 0, 24);
    cloud.change(|state| state.always = Reply::No(503, "unavailable", Some(1)));
    let _agent = site.run();
    hello(&cloud);
    let condition = until("it is serious", || site.condition("pairing_not_renewed"));
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("in the cloud's own words"), "{message}");
    assert!(message.contains(site.pairing()["expires_at"].as_str().unwrap()), "{message}");
    cloud.change(|state| state.always = Reply::Yes);
    hello(&cloud);
    until("it is over", || site.condition("pairing_not_renewed").is_none().then_some(()));
    let heard = cloud.heard(RENEW);
    assert!(heard.len() > 1 && heard.iter().all(|request| *request == heard[0]), "the same keys each time");
}

#[test]
fn an_answer_to_a_renewal_that_is_not_believed_changes_nothing_and_is_asked_for_again() {
    let cloud = Cloud::start(Oddity::None);
    let site = site(&cloud, 1000, 100);
    let before = site.pairing();
    cloud.change(|state| {
        state.renew = VecDeque::from([Reply::Altered, Reply::Foreign, Reply::OtherKeys, Reply::Hold]);
    });
    let mut agent = site.run();
    until("four were asked", || (cloud.heard(RENEW).len() == 4).then_some(()));
    assert_eq!(site.pairing(), before);
    agent.0.kill().unwrap();
    agent.0.wait().unwrap();
    assert_eq!(site.files(), ["pairing.json", "renewal.draft.json"]);
    // Whether the answer was lost or this process died: the next one asks with the same keys, before it is told to.
    let _agent = site.run();
    hello(&cloud);
    let heard = cloud.heard(RENEW);
    assert!(heard.iter().all(|request| *request == heard[0]), "{heard:?}");
    assert_eq!(site.files(), ["pairing.json"]);
}

#[test]
fn keys_that_the_cloud_will_not_certify_are_not_asked_for_again() {
    let cloud = Cloud::start(Oddity::None);
    let site = site(&cloud, 1000, 100);
    cloud.change(|state| state.renew = VecDeque::from([Reply::No(409, "keys_known", None)]));
    let _agent = site.run();
    hello(&cloud);
    let heard = cloud.heard(RENEW);
    assert_eq!(heard.len(), 2);
    assert_ne!(heard[0]["signing_key"], heard[1]["signing_key"]);
    assert_eq!(heard[0]["old_key_id"], heard[1]["old_key_id"]);
}

#[test]
fn a_welcome_that_names_no_key_of_the_cloud_takes_none_away() {
    let cloud = Cloud::start(Oddity::Nameless);
    let site = site(&cloud, 0, 24 * 3600);
    let before = site.pairing();
    let agent = site.run();
    hello(&cloud);
    until("the agent has read it", || site.log().contains("names no key of its own").then_some(()));
    drop(agent);
    assert_eq!(site.pairing(), before);
    let _again = site.run();
    hello(&cloud);
    until("the link is up", || Some(site.status()).filter(|status| status["link"]["state"] == "up"));
}
