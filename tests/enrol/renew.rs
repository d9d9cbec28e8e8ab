//! Renewal.

use std::time::Duration;

use super::world::{Site, World, days, replacing};

const PATH: &str = "/bridge/v1/renew";

#[tokio::test]
async fn a_bridge_goes_on_with_new_keys_while_the_old_ones_still_count() {
    let world = World::start().await;
    let (old, paired) = world.paired().await;
    world.pass(days(20));
    let next = Site::new();
    let renewed = next.admission(&world.post(PATH, &old.renew(paired.bridge, &next)).await);
    assert_eq!(renewed.bridge, paired.bridge);
    assert_eq!(renewed.expires_at.duration_since(paired.expires_at).as_hours(), 20 * 24);
    world.welcomed(&next, &renewed).await;
    world.welcomed(&old, &paired).await;
    world.pass(days(11));
    world.welcomed(&next, &renewed).await;
    assert!(world.knock(&old, &paired).await.is_err(), "the old certificate has ended");
    world.stop().await;
}

#[tokio::test]
async fn a_renewal_that_is_sent_again_by_whomever_prolongs_nothing() {
    let world = World::start().await;
    let (old, paired) = world.paired().await;
    let next = Site::new();
    let request = old.renew(paired.bridge, &next);
    let first = next.admission(&world.post(PATH, &request).await);
    world.pass(days(5));
    let again = next.admission(&world.post(PATH, &request).await);
    assert_eq!(again.expires_at, first.expires_at);
    world.welcomed(&next, &again).await;
    // When they have ended, they cannot be had again.
    world.pass(days(26));
    assert_eq!(world.post(PATH, &request).await.refusal(), (403, "keys_known".into()));
    world.stop().await;
}

#[tokio::test]
async fn a_bridge_that_was_away_renews_within_the_grace_and_not_after_it() {
    let world = World::start().await;
    let (old, paired) = world.paired().await;
    world.pass(days(39));
    assert!(world.knock(&old, &paired).await.is_err(), "the certificate has ended");
    let next = Site::new();
    let renewed = next.admission(&world.post(PATH, &old.renew(paired.bridge, &next)).await);
    world.welcomed(&next, &renewed).await;
    world.pass(days(2));
    let late = old.renew(paired.bridge, &Site::new());
    assert_eq!(world.post(PATH, &late).await.refusal(), (403, "renewal_too_late".into()));
    world.stop().await;
}

#[tokio::test]
async fn who_has_not_the_old_key_learns_nothing_and_gets_nothing() {
    let world = World::start().await;
    let (old, paired) = world.paired().await;
    let (stranger, next) = (Site::new(), Site::new());
    let unknown_key = stranger.renew(paired.bridge, &next);
    let unknown_bridge = old.renew("00000000-0000-4000-8000-000000000001".parse().unwrap(), &next);
    let mut forged = stranger.renew(paired.bridge, &next);
    forged["old_key_id"] = old.renew(paired.bridge, &next)["old_key_id"].clone();
    let mut of_others = old.renew(paired.bridge, &Site::new());
    for field in ["csr", "signing_key", "proof"] {
        of_others[field] = old.renew(paired.bridge, &next)[field].clone();
    }
    let mut answers = Vec::new();
    for request in [unknown_key, unknown_bridge, forged, of_others] {
        let reply = world.post(PATH, &request).await;
        assert_eq!(reply.refusal(), (403, "not_paired".into()));
        answers.push(reply.body);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let mut unproven = old.renew(paired.bridge, &next);
    unproven["proof"] = unproven["old_proof"].clone();
    assert_eq!(world.post(PATH, &unproven).await.refusal(), (400, "proof_invalid".into()));
    world.stop().await;
}

#[tokio::test]
async fn keys_are_never_given_twice_and_those_of_another_bridge_not_at_all() {
    let world = World::start().await;
    let (old, paired) = world.paired().await;
    let (other, _) = world.paired().await;
    for taken in [&old, &other] {
        let again = old.renew(paired.bridge, taken);
        let reply = world.post(PATH, &again).await;
        let is_its_own = std::ptr::eq(taken, &old);
        match is_its_own {
            // The present keys are its own: it gets their certificate once more.
            true => assert_eq!(old.admission(&reply).expires_at, paired.expires_at),
            false => assert_eq!(reply.refusal(), (403, "keys_known".into())),
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn of_three_pairs_of_keys_the_unused_ones_make_room() {
    let world = World::start().await;
    let (old, paired) = world.paired().await;
    world.welcomed(&old, &paired).await;
    let mut made = Vec::new();
    for _ in 0..4 {
        world.pass(Duration::from_secs(60));
        let next = Site::new();
        let admission = next.admission(&world.post(PATH, &old.renew(paired.bridge, &next)).await);
        made.push((next, admission));
    }
    world.welcomed(&old, &paired).await;
    for (number, (site, admission)) in made.iter().enumerate() {
        let counts = number >= 2;
        assert_eq!(world.knock(site, admission).await.is_ok(), counts, "the {number}th");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_bridge_that_was_revoked_or_replaced_cannot_renew() {
    let world = World::start().await;
    let (old, paired) = world.paired().await;
    let invited = world.invite(replacing(paired.bridge, false)).await;
    let new = Site::new();
    new.admission(&world.post("/bridge/v1/pair", &new.pair(&invited.code)).await);
    let reply = world.post(PATH, &old.renew(paired.bridge, &Site::new())).await;
    assert_eq!(reply.refusal(), (403, "revoked".into()));
    world.stop().await;
}
