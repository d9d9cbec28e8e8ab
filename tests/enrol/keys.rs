//! The cloud's own keys.

use std::time::Duration;

use latchd::cloud::admin::{Request, Response, SigningKeyLine};
use serde_json::json;

use super::world::{Site, World, key_id, verify};

impl World {
    async fn add_key(&self) -> Vec<SigningKeyLine> {
        match self.ask(Request::AddSigningKey { by: "night porter".into() }).await.unwrap() {
            Response::SigningKeys { keys } => keys,
            other => panic!("{other:?}"),
        }
    }

    fn retire(key_id: &str, force: bool) -> Request {
        Request::RetireSigningKey { key_id: key_id.into(), force, by: "night porter".into() }
    }
}

#[tokio::test]
async fn a_bridge_that_knows_only_the_old_key_hears_it_and_learns_the_new_one() {
    let world = World::start().await;
    let (site, paired) = world.paired().await;
    let old = key_id(&paired.cloud_keys[0]);
    let keys = world.add_key().await;
    let new = keys[0].key_id.clone();
    assert_eq!((keys.len(), keys[1].key_id.as_str(), keys[1].bridges), (2, old.as_str(), 1));
    assert_eq!(world.refused(World::retire(&new, false)).await.0, "key_newest");
    assert_eq!(world.refused(World::retire("0000", false)).await.0, "key_unknown");
    let (code, message) = world.refused(World::retire(&old, false)).await;
    assert_eq!(code, "key_needed");
    assert!(message.contains(&paired.bridge.to_string()), "{message}");

    let (mut peer, welcome) = world.welcomed(&site, &paired).await;
    assert_eq!(welcome.key_id.as_deref(), Some(old.as_str()), "it knows no other");
    let named: Vec<String> = serde_json::from_value(welcome.frame["cloud_keys"].clone()).unwrap();
    let names: Vec<_> = named.iter().map(|key| key_id(key)).collect();
    assert_eq!(names, [new.clone(), old.clone()]);
    assert_eq!(
        world.refused(World::retire(&old, false)).await.0,
        "key_needed",
        "that a welcome was sent does not mean that it was heard"
    );
    let until = world.clock.now() + jiff::SignedDuration::from_secs(60);
    peer.say(json!({"type": "status", "conditions": []}), Some(until)).await;
    loop {
        match world.ask(World::retire(&old, false)).await {
            Ok(_) => break,
            Err(_) => tokio::task::yield_now().await,
        }
    }
    let mut peer = world.knock(&site, &paired).await.unwrap();
    peer.hello(&[old]).await;
    assert_eq!(peer.refused().await["code"], "key_unknown");
    let mut peer = world.knock(&site, &paired).await.unwrap();
    peer.hello(std::slice::from_ref(&new)).await;
    assert_eq!(peer.hear().await.unwrap().key_id, Some(new));
    world.stop().await;
}

#[tokio::test]
async fn a_key_that_bridges_need_is_retired_only_by_force() {
    let world = World::start().await;
    let (_, paired) = world.paired().await;
    world.add_key().await;
    let old = key_id(&paired.cloud_keys[0]);
    assert_eq!(world.refused(World::retire(&old, false)).await.0, "key_needed");
    world.ask(World::retire(&old, true)).await.unwrap();
    let Response::SigningKeys { keys } = world.ask(Request::SigningKeys).await.unwrap() else { panic!() };
    assert!(keys[0].retired_at.is_none() && keys[1].retired_at.is_some());
    world.stop().await;
}

#[tokio::test]
async fn a_renewal_is_answered_with_a_key_that_the_bridge_knows() {
    let world = World::start().await;
    let (site, paired) = world.paired().await;
    world.pass(Duration::from_secs(60));
    world.add_key().await;
    let next = Site::new();
    let reply = world.post("/bridge/v1/renew", &site.renew(paired.bridge, &next)).await;
    let renewed = next.admission(&reply);
    assert_eq!(renewed.signed_by, key_id(&paired.cloud_keys[0]));
    assert_eq!(renewed.cloud_keys.len(), 2);
    let answer = reply.json();
    let body = answer["body"].as_str().unwrap();
    verify(&paired.cloud_keys[0], b"latchd v1 admission\0", body, answer["signature"].as_str().unwrap());
    // A new site reads the card first, and is answered with the newest.
    let (_, fresh) = world.paired().await;
    assert_eq!(fresh.signed_by, key_id(&fresh.cloud_keys[0]));
    assert_ne!(fresh.cloud_keys[0], paired.cloud_keys[0]);
    world.stop().await;
}

#[tokio::test]
async fn a_site_that_read_the_card_before_a_key_was_added_is_answered_with_one_that_it_knows() {
    let world = World::start().await;
    let invited = world.invite(super::world::accepting()).await;
    let card = world.get("/bridge/v1/cloud").await.json();
    world.pass(Duration::from_secs(1));
    world.add_key().await;
    let site = Site::new();
    let admission = site.admission(&world.post("/bridge/v1/pair", &site.pair(&invited.code)).await);
    assert_eq!(admission.signed_by, key_id(card["cloud_keys"][0].as_str().unwrap()));
    assert_eq!(admission.cloud_keys.len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn connected_bridges_come_again_to_learn_a_new_key() {
    let world = World::start().await;
    let (site, paired) = world.paired().await;
    let (mut peer, _) = world.welcomed(&site, &paired).await;
    world.add_key().await;
    let come = async {
        let refused = peer.refused().await;
        assert_eq!(refused["code"], "restarting");
        assert_eq!(refused.get("retry_after_ms"), None, "at once");
    };
    let time = async {
        // The connection looks at the keys before the time for which it may still stand begins.
        for _ in 0..100 {
            world.running.db.run(|_| Ok(())).await.unwrap();
            tokio::task::yield_now().await;
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(29)).await;
        tokio::time::advance(Duration::from_millis(1001)).await;
        tokio::time::resume();
    };
    tokio::join!(come, time);
    world.stop().await;
}
