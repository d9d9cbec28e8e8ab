//! Revocation, replacing, and what connections have to do with each other.

use std::time::{Duration, Instant};

use latchd::{
    cloud::{
        admin::{BridgeState, Request, Response},
        store::{Db, Standing},
    },
    model::{BridgeId, Job, JobId, Order, Outcome, Priority, Report, RoomState, SystemName},
};
use serde_json::{Value, json};

use super::world::{Site, World, accepting, replacing};

fn job(number: u128) -> Job {
    Job {
        job_id: JobId(uuid::Uuid::from_u128(number)),
        system: SystemName::new("salto").unwrap(),
        priority: Priority::Desk,
        created_at: "2026-11-22T12:00:00Z".parse().unwrap(),
        expires_at: "2026-11-22T13:00:00Z".parse().unwrap(),
        order: Order::InventoryRefresh,
    }
}

impl World {
    async fn order(&self, bridge: BridgeId, number: u128) {
        let (now, job) = (self.clock.now(), job(number));
        self.running.db.run(move |db| db.enqueue_job(now, bridge, &job)).await.unwrap();
        self.running.signals.orders_queued();
    }

    async fn standing(&self, number: u128) -> Option<Standing> {
        let job = job(number).job_id;
        self.running.db.run(move |db| db.standing(job)).await.unwrap()
    }

    async fn revoke(&self, bridge: BridgeId) -> (u32, u32) {
        let request =
            Request::Revoke { bridge_id: bridge, why: Some("stolen".into()), by: "night porter".into() };
        match self.ask(request).await.unwrap() {
            Response::Revoked { withdrawn, open } => (withdrawn, open),
            other => panic!("{other:?}"),
        }
    }

    async fn state(&self, bridge: BridgeId) -> BridgeState {
        let Response::Bridges { bridges, .. } = self.ask(Request::Bridges { workspace: None }).await.unwrap()
        else {
            panic!()
        };
        bridges.iter().find(|line| line.bridge_id == bridge).unwrap().state
    }
}

#[tokio::test]
async fn a_revoked_bridge_is_gone_within_a_second_and_cannot_come_back() {
    let world = World::start().await;
    let (site, paired) = world.paired().await;
    let (other, others) = world.paired().await;
    let (mut peer, _) = world.welcomed(&site, &paired).await;
    let (mut bystander, _) = world.welcomed(&other, &others).await;
    assert_eq!(world.state(paired.bridge).await, BridgeState::Connected);
    let begun = Instant::now();
    world.revoke(paired.bridge).await;
    let refused = peer.refused().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(refused["code"], "revoked");
    assert_eq!(world.knock(&site, &paired).await.err().as_deref(), Some("401"));
    let renewal = world.post("/bridge/v1/renew", &site.renew(paired.bridge, &Site::new())).await;
    assert_eq!(renewal.refusal(), (403, "revoked".into()));
    assert_eq!(world.state(paired.bridge).await, BridgeState::Revoked);
    let again = Request::Revoke { bridge_id: paired.bridge, why: None, by: "night porter".into() };
    assert_eq!(world.refused(again).await.0, "bridge_unknown");
    // Nobody else noticed.
    world.order(others.bridge, 1).await;
    assert_eq!(bystander.hear().await.unwrap().frame["type"], "envelope");
    let folder = world.stop_and_keep().await;
    let world = World::start_in(folder).await;
    assert_eq!(world.knock(&site, &paired).await.err().as_deref(), Some("401"), "it is durable");
    world.stop().await;
}

#[tokio::test]
async fn what_a_revoked_bridge_never_heard_of_is_withdrawn_and_the_rest_waits_for_its_report() {
    let world = World::start().await;
    let (site, paired) = world.paired().await;
    let (mut peer, _) = world.welcomed(&site, &paired).await;
    world.order(paired.bridge, 1).await;
    assert_eq!(peer.hear().await.unwrap().frame["type"], "envelope");
    drop(peer);
    while world.state(paired.bridge).await == BridgeState::Connected {
        tokio::task::yield_now().await;
    }
    world.order(paired.bridge, 2).await;
    assert_eq!(world.revoke(paired.bridge).await, (1, 1));
    assert_eq!(world.standing(2).await, Some(Standing::Over));
    assert_eq!(world.standing(1).await, Some(Standing::Handed));
    // The same machine, paired again, has it in its memory and reports.
    let invited = world.invite(replacing(paired.bridge, false)).await;
    let again = Site::new();
    let admission = again.admission(&world.post("/bridge/v1/pair", &again.pair(&invited.code)).await);
    assert_eq!(admission.bridge, paired.bridge);
    let report = Report {
        job_id: job(1).job_id,
        revision: 1,
        at: world.clock.now(),
        outcome: Outcome::Cancelled,
        resolution: None,
        rooms: Vec::new(),
        local: None,
    };
    let mut peer = world.knock(&again, &admission).await.unwrap();
    let known: Vec<_> = admission.cloud_keys.iter().map(|key| super::world::key_id(key)).collect();
    peer.hello_remembering(&known, 1).await;
    assert_eq!(peer.hear().await.unwrap().frame["type"], "welcome");
    let body = json!({"message": "outcome"});
    let mut body = body.as_object().unwrap().clone();
    body.extend(serde_json::to_value(&report).unwrap().as_object().unwrap().clone());
    let body = Value::from(body).to_string();
    let envelope = json!({"type": "envelope", "position": {"epoch": 1, "n": 1}, "body": body});
    peer.say(envelope, Some(world.clock.now() + jiff::SignedDuration::from_secs(60))).await;
    let acknowledged = peer.hear().await.unwrap().frame;
    assert!(acknowledged["body"].as_str().unwrap().contains("acknowledgement"), "{acknowledged}");
    assert_eq!(world.standing(1).await, Some(Standing::Over));
    world.stop().await;
}

#[tokio::test]
async fn what_a_revoked_bridge_was_told_is_not_told_again() {
    let world = World::start().await;
    let invited = world.invite(accepting()).await;
    let site = Site::new();
    let request = site.pair(&invited.code);
    let paired = site.admission(&world.post("/bridge/v1/pair", &request).await);
    world.revoke(paired.bridge).await;
    let again = world.post("/bridge/v1/pair", &request).await;
    assert_eq!(again.refusal(), (403, "code_invalid".into()));
    world.stop().await;
}

#[tokio::test]
async fn new_hardware_takes_the_old_ones_place_with_its_name_and_the_ledger() {
    let world = World::start().await;
    let (site, paired) = world.paired().await;
    let (mut peer, _) = world.welcomed(&site, &paired).await;
    let room = |room: &str| RoomState {
        system: SystemName::new("salto").unwrap(),
        room: latchd::model::DoorName::new(room).unwrap(),
        reservation_key: Some(latchd::model::ReservationKey::new("stay-1").unwrap()),
        certain: true,
        since: world.clock.now(),
        cards: 2,
        printed_ends: vec![world.clock.now() + jiff::SignedDuration::from_hours(24)],
    };
    let (now, bridge, rooms) = (world.clock.now(), paired.bridge, vec![room("101"), room("102")]);
    let report = Report {
        job_id: job(9).job_id,
        revision: 1,
        at: now,
        outcome: Outcome::Cancelled,
        resolution: None,
        rooms,
        local: None,
    };
    world.running.db.run(move |db| db.apply_report(now, bridge, &report)).await.unwrap();
    for (vouched, unfinished, current) in [(false, false, false), (true, false, true), (true, true, false)] {
        if unfinished {
            world.order(paired.bridge, 1).await;
            let after = world.running.db.run(Db::restored).await.unwrap();
            assert_eq!(after, 1, "as one that the old bridge may know of");
        }
        let invited = world.invite(replacing(paired.bridge, vouched)).await;
        let new = Site::new();
        let admission = new.admission(&world.post("/bridge/v1/pair", &new.pair(&invited.code)).await);
        assert_eq!(admission.bridge, paired.bridge);
        let ledger = &admission.value["ledger"];
        assert_eq!(ledger["is_current"], current, "{vouched} {unfinished}");
        let rooms = ledger["rooms"].as_array().unwrap();
        let names: Vec<_> = rooms.iter().map(|room| room["room"].as_str().unwrap()).collect();
        assert_eq!(names, ["101", "102"]);
        assert!(rooms.iter().all(|room| room["certain"] == current && room["reservation_key"] == "stay-1"));
        if !vouched {
            assert_eq!(peer.refused().await["code"], "revoked", "the old hardware is cut off");
            world.welcomed(&new, &admission).await;
        }
    }
    let unknown = replacing("00000000-0000-4000-8000-000000000001".parse().unwrap(), false);
    assert_eq!(world.refused(unknown).await.0, "bridge_unknown");
    world.stop().await;
}

#[tokio::test]
async fn a_cloud_that_stops_tells_bridges_when_to_come_again_each_at_its_own_time() {
    let world = World::start().await;
    let mut peers = Vec::new();
    for _ in 0..8 {
        let (site, paired) = world.paired().await;
        peers.push(world.welcomed(&site, &paired).await.0);
    }
    let stopping = tokio::spawn(world.stop());
    let mut times = Vec::new();
    for peer in &mut peers {
        let refused = peer.refused().await;
        assert_eq!(refused["code"], "restarting");
        times.push(refused["retry_after_ms"].as_u64().unwrap());
    }
    assert!(times.iter().all(|time| *time < 30_000), "{times:?}");
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 4, "{times:?}");
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_bridge_that_does_not_read_costs_another_nothing() {
    let world = World::start().await;
    let (site, paired) = world.paired().await;
    let (other, others) = world.paired().await;
    let (_deaf, _) = world.welcomed(&site, &paired).await;
    let (mut bystander, _) = world.welcomed(&other, &others).await;
    // Far more than the connection holds.
    let (now, bridge) = (world.clock.now(), paired.bridge);
    world
        .running
        .db
        .run(move |db| (1000..1900).try_for_each(|number| db.enqueue_job(now, bridge, &job(number))))
        .await
        .unwrap();
    world.running.signals.orders_queued();
    for number in 1..=20 {
        world.order(others.bridge, number).await;
        let begun = Instant::now();
        assert_eq!(bystander.hear().await.unwrap().frame["type"], "envelope");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    world.stop().await;
}

#[tokio::test]
async fn a_connection_counts_no_longer_than_the_certificate_with_which_it_was_made() {
    let world = World::start().await;
    let (site, paired) = world.paired().await;
    let ends = paired.expires_at;
    // As long as coming in takes longer than is left, the clock is put back.
    let mut peer = loop {
        world.clock.jump_to(ends - jiff::SignedDuration::from_secs(1));
        if let Ok(peer) = world.knock(&site, &paired).await {
            break peer;
        }
    };
    let known: Vec<_> = paired.cloud_keys.iter().map(|key| super::world::key_id(key)).collect();
    peer.hello(&known).await;
    let mut heard = peer.hear().await.unwrap().frame;
    if heard["type"] == "welcome" {
        heard = peer.refused().await;
    }
    assert_eq!((&heard["type"], &heard["code"]), (&"refused".into(), &"certificate_ended".into()), "{heard}");
    assert!(ends <= world.clock.now());
    assert!(world.knock(&site, &paired).await.is_err());

    // It renews by its old key, and is let in again.
    let next = Site::new();
    let renewed = next.admission(&world.post("/bridge/v1/renew", &site.renew(paired.bridge, &next)).await);
    world.welcomed(&next, &renewed).await;
    world.stop().await;
}

#[tokio::test]
async fn the_ledger_of_ten_thousand_rooms_travels_to_new_hardware() {
    const ROOMS: u32 = 10_000;
    let world = World::start().await;
    let (_, paired) = world.paired().await;
    let (now, bridge) = (world.clock.now(), paired.bridge);
    let stay = "a-reservation-key-as-long-as-a-uuid-is";
    let room = |number: u32| RoomState {
        system: SystemName::new("salto").unwrap(),
        room: latchd::model::DoorName::new(format!("tower-{number}")).unwrap(),
        reservation_key: Some(latchd::model::ReservationKey::new(stay).unwrap()),
        certain: true,
        since: now,
        cards: 16,
        printed_ends: (0..16).map(|day| now + jiff::SignedDuration::from_hours(24 * day)).collect(),
    };
    let report = Report {
        job_id: job(1).job_id,
        revision: 1,
        at: now,
        outcome: Outcome::Cancelled,
        resolution: None,
        rooms: (0..ROOMS).map(room).collect(),
        local: None,
    };
    world.running.db.run(move |db| db.apply_report(now, bridge, &report)).await.unwrap();
    let invited = world.invite(replacing(bridge, true)).await;
    let new = Site::new();
    let reply = world.post("/bridge/v1/pair", &new.pair(&invited.code)).await;
    assert!(reply.body.len() <= latchd::protocol::enrol::MAX_ANSWER, "{} bytes", reply.body.len());
    let rooms = new.admission(&reply).value["ledger"]["rooms"].as_array().unwrap().clone();
    assert_eq!(rooms.len(), ROOMS as usize);
    assert!(rooms.iter().all(|room| room["printed_ends"].as_array().unwrap().len() == 16));
    world.stop().await;
}
