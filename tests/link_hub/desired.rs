//! What a bridge is told of what is desired of its site: a bridge of version 2, once it has said what it holds, and never
//! before an order.

use latchd::{
    link::{Event, Link},
    protocol::{DESIRED_AHEAD, Desired, Envelope, Frame, Message, Position, StreamName},
    store::Store,
};
use serde_json::json;

use super::{
    peers::{hello, welcomed},
    world::{Cloud, World, at, memory},
};

impl Cloud {
    /// Grants with these numbers that lead to a door of the bridge's site, and that are nobody's:
    /// whose they were is erased.
    async fn grants(&self, world: &World, numbers: std::ops::RangeInclusive<u32>) {
        let bridge = self.bridge.to_string();
        let (first, last) = numbers.into_inner();
        let sql = format!(
            "INSERT OR IGNORE INTO workspace(workspace_id, name, created_at)
               VALUES('00000000-0000-0000-0000-000000000001', 'Home', 0);
             INSERT OR IGNORE INTO site(bridge_id, workspace_id, up, since)
               VALUES('{bridge}', '00000000-0000-0000-0000-000000000001', 1, 0);
             INSERT OR IGNORE INTO acs_system VALUES(
               'a0000000-0000-4000-8000-000000000001', '00000000-0000-0000-0000-000000000001', '{bridge}',
               'a0000000-0000-4000-8000-000000000002', 'salto', 'salto_is', 'UTC', '{{}}', 0, 1, 0, NULL, 0);
             INSERT OR IGNORE INTO acs_entrance VALUES(
               'a0000000-0000-4000-8000-000000000003', '00000000-0000-0000-0000-000000000001',
               'a0000000-0000-4000-8000-000000000001', '101', NULL, 'room', 0, NULL);
             INSERT OR IGNORE INTO user_identity(user_identity_id, workspace_id, person, created_at, erased_at) VALUES(
               'a0000000-0000-4000-8000-000000000004', '00000000-0000-0000-0000-000000000001', x'', 0, 1);
             CREATE TEMP TABLE number AS WITH RECURSIVE number(n) AS (
               SELECT {first} UNION ALL SELECT n + 1 FROM number WHERE n < {last})
               SELECT printf('00000000-0000-4000-8000-%012x', n) AS id FROM number;
             INSERT INTO access_grant SELECT id, '00000000-0000-0000-0000-000000000001',
               'a0000000-0000-4000-8000-000000000004', NULL, NULL, NULL, 0, 1000, 0, NULL FROM number;
             INSERT INTO grant_entrance SELECT '00000000-0000-0000-0000-000000000001', id, 0,
               'a0000000-0000-4000-8000-000000000003' FROM number;
             DROP TABLE number;"
        );
        self.run(world, move |db| Ok(db.connection().execute_batch(&sql)?)).await;
        self.signals.orders_queued();
    }
}

fn holds(position: Position) -> Frame {
    Frame::Envelope(Envelope::loose(&Message::Acknowledgement { stream: StreamName::Desired, position }))
}

async fn told(world: &World, link: &mut Link) -> Desired {
    match world.frame(link).await {
        Frame::Desired(desired) => desired,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_bridge_is_told_after_its_word_and_goes_on_where_it_was_cut_off() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut link = world.link(cloud.port);
    let (connection, _) = world.up(&mut link, &memory(at(0, 0), 100)).await;
    cloud.grants(&world, 1..=40).await;
    // An order shows that nothing of it was said before.
    cloud.order(&world, [1]).await;
    assert!(matches!(world.frame(&mut link).await, Frame::Envelope(_)));
    link.frames.send((connection, holds(at(0, 0)))).await.unwrap();
    let mut grants = Vec::new();
    for n in [16, 32] {
        let frame = told(&world, &mut link).await;
        assert_eq!((frame.up_to, frame.complete), (at(1, n), false));
        grants.extend(frame.grants);
    }
    let third = told(&world, &mut link).await;
    assert_eq!((third.up_to, third.complete), (at(1, 40), true));

    world.cut();
    world.trouble(&mut link).await;
    world.mend();
    let (connection, _) = world.up(&mut link, &memory(at(1, 1), 100)).await;
    link.frames.send((connection, holds(at(1, 32)))).await.unwrap();
    let again = told(&world, &mut link).await;
    assert_eq!(again, third);
    grants.extend(again.grants);
    let numbers: Vec<_> = grants.iter().map(|grant| grant.access_grant_id.0.as_u128() & 0xffff).collect();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    link.frames.send((connection, holds(at(1, 40)))).await.unwrap();
    cloud.grants(&world, 41..=41).await;
    assert_eq!(told(&world, &mut link).await.up_to, at(1, 41));
    cloud.stop(&world).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_waits_for_no_more_than_what_is_under_way_already() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut link = world.link(cloud.port);
    let (connection, _) = world.up(&mut link, &memory(at(0, 0), 100)).await;
    cloud.grants(&world, 1..=1_000).await;
    link.frames.send((connection, holds(at(0, 0)))).await.unwrap();
    let mut pictures = told(&world, &mut link).await.grants.len() as u64;
    cloud.order(&world, [1]).await;
    loop {
        match world.frame(&mut link).await {
            Frame::Desired(desired) => pictures += desired.grants.len() as u64,
            Frame::Envelope(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(pictures <= DESIRED_AHEAD, "{pictures} pictures went before an order");
    cloud.stop(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_forgot_what_it_held_is_told_all_of_it_in_a_new_epoch() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut link = world.link(cloud.port);
    for (held, up_to) in [(at(0, 0), at(1, 3)), (Position::LOST, at(2, 3)), (at(9, 9), at(10, 3))] {
        let (connection, _) = world.up(&mut link, &memory(at(0, 0), 100)).await;
        if held == at(0, 0) {
            cloud.grants(&world, 1..=3).await;
        }
        link.frames.send((connection, holds(held))).await.unwrap();
        let frame = told(&world, &mut link).await;
        assert_eq!((frame.up_to, frame.grants.len(), frame.complete), (up_to, 3, true));
        link.frames.send((connection, holds(up_to))).await.unwrap();
        world.cut();
        world.trouble(&mut link).await;
        world.mend();
    }
    cloud.stop(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_bridge_of_version_1_is_told_nothing_of_it_and_may_not_ask() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let (mut peer, welcome) = welcomed(&world, cloud.port, (0, 0), 100).await;
    assert_eq!(welcome["version"], 1);
    cloud.grants(&world, 1..=3).await;
    cloud.order(&world, [1]).await;
    assert_eq!(peer.hear(&world).await["type"], "envelope");
    let held = json!({"message": "acknowledgement", "stream": "desired", "position": {"epoch": 0, "n": 0}});
    let envelope = json!({"type": "envelope", "body": held.to_string()});
    peer.say(&world, envelope.clone()).await;
    assert_eq!(peer.refused(&world).await, "frame_unexpected");

    // The same words of a bridge that speaks version 2 as well.
    let mut peer = super::peers::bridge(&world, cloud.port).await;
    let mut second = hello(&world, (0, 0), 100);
    second["versions"] = json!([3, 2, 1]);
    peer.say(&world, second).await;
    assert_eq!(peer.hear(&world).await["version"], 2);
    peer.say(&world, envelope).await;
    let mut desired = peer.hear(&world).await;
    if desired["type"] == "envelope" {
        desired = peer.hear(&world).await;
    }
    assert_eq!((&desired["type"], &desired["complete"]), (&json!("desired"), &json!(true)));
    let first = &desired["grants"][0];
    assert_eq!(first["doors"], json!([{"system": "salto", "doors": ["101"]}]));
    assert!(first.get("guest_name").is_none(), "{first}");
    let beyond = json!({"message": "acknowledgement", "stream": "desired", "position": {"epoch": 1, "n": 4}});
    peer.say(&world, json!({"type": "envelope", "body": beyond.to_string()})).await;
    assert_eq!(peer.refused(&world).await, "frame_unexpected");
    cloud.stop(&world).await;
}

#[tokio::test(start_paused = true)]
async fn two_connections_of_one_bridge_do_not_share_what_was_said() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut first = world.link(cloud.port);
    let (connection, _) = world.up(&mut first, &memory(at(0, 0), 100)).await;
    cloud.grants(&world, 1..=3).await;
    first.frames.send((connection, holds(at(0, 0)))).await.unwrap();
    assert_eq!(told(&world, &mut first).await.up_to, at(1, 3));
    let mut second = world.link(cloud.port);
    let (connection, _) = world.up(&mut second, &memory(at(0, 0), 100)).await;
    second.frames.send((connection, holds(at(0, 0)))).await.unwrap();
    assert_eq!(told(&world, &mut second).await.grants.len(), 3);
    assert!(matches!(world.event(&mut first).await, Event::Down(_)));
}
