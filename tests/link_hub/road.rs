//! Link and hub against each other.

use std::time::Duration;

use latchd::{
    cloud::store::Standing,
    link::Event,
    protocol::{Envelope, Frame, Message, Progress, Stage, StreamName},
};

use super::world::{World, at, job, job_id, memory, report};

fn acknowledge(epoch: u64, n: u64) -> Frame {
    Frame::Envelope(Envelope::loose(&Message::Acknowledgement {
        stream: StreamName::Orders,
        position: at(epoch, n),
    }))
}

fn outcome(epoch: u64, n: u64, number: u128) -> Frame {
    Frame::Envelope(Envelope::at(at(epoch, n), &Message::Outcome(report(number))))
}

async fn a_job_goes_out_and_its_report_comes_back(world: World) {
    let cloud = world.cloud().await;
    let mut link = world.link(cloud.port);
    let (connection, welcome) = world.up(&mut link, &memory(at(0, 0), 100)).await;
    assert_eq!((connection, welcome.version), (1, 2));
    assert_eq!(welcome.bridge_id, cloud.bridge);

    let mut changes = cloud.signals.changes();
    cloud.order(&world, [7]).await;
    let Frame::Envelope(envelope) = world.frame(&mut link).await else { panic!("an order was due") };
    assert_eq!(envelope.position, Some(at(1, 1)));
    assert_eq!(envelope.message().unwrap(), Message::Job(job(7)));
    link.frames.send((connection, acknowledge(1, 1))).await.unwrap();
    cloud.until(&world, 7, Standing::Acknowledged).await;

    let stage = Progress { job_id: job_id(7), stage: Stage::WaitingForCard };
    link.frames.send((connection, Frame::Progress(stage))).await.unwrap();
    changes.mark_unchanged();
    link.frames.send((connection, outcome(1, 1, 7))).await.unwrap();
    let Frame::Envelope(envelope) = world.frame(&mut link).await else {
        panic!("an acknowledgement was due")
    };
    let acknowledged = Message::Acknowledgement { stream: StreamName::Reports, position: at(1, 1) };
    assert_eq!(envelope.message().unwrap(), acknowledged);
    cloud.until(&world, 7, Standing::Over).await;
    world.soon(changes.changed()).await.unwrap();
    assert_eq!(cloud.signals.stage(job_id(7)), Some(Stage::WaitingForCard));

    // The same report again is acknowledged again.
    link.frames.send((connection, outcome(1, 1, 7))).await.unwrap();
    let Frame::Envelope(envelope) = world.frame(&mut link).await else {
        panic!("an acknowledgement was due")
    };
    assert_eq!(envelope.message().unwrap(), acknowledged);
    drop(link);
    cloud.stop(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_out_and_its_report_comes_back_in_simulated_time() {
    a_job_goes_out_and_its_report_comes_back(World::simulated()).await;
}

#[tokio::test]
async fn a_job_goes_out_and_its_report_comes_back_over_tcp() {
    a_job_goes_out_and_its_report_comes_back(World::real()).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_cut_what_was_not_acknowledged_comes_again_and_nothing_comes_twice() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut link = world.link(cloud.port);
    world.up(&mut link, &memory(at(0, 0), 100)).await;
    cloud.order(&world, [1, 2, 3]).await;
    for _ in 0..3 {
        world.frame(&mut link).await;
    }
    world.cut();
    assert_eq!(world.trouble(&mut link).await.code, "link_closed");
    assert_eq!(world.trouble(&mut link).await.code, "link_unreachable");
    cloud.order(&world, [4]).await;
    world.mend();
    // Two of the three had become durable before the cut.
    let (connection, welcome) = world.up(&mut link, &memory(at(1, 2), 100)).await;
    assert_eq!(welcome.orders_resume_after, at(1, 2));
    assert_eq!(connection, 2);
    for (n, number) in [(3, 3), (4, 4)] {
        let Frame::Envelope(envelope) = world.frame(&mut link).await else { panic!("an order was due") };
        assert_eq!(envelope.position, Some(at(1, n)));
        assert_eq!(envelope.message().unwrap(), Message::Job(job(number)));
    }
    assert!(world.within(Duration::from_secs(10), link.events.recv()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dead_wire_is_noticed_by_both_ends_within_forty_five_seconds() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut link = world.link(cloud.port);
    world.up(&mut link, &memory(at(0, 0), 100)).await;
    // An idle connection is alive for as long as it likes.
    world.pass(Duration::from_secs(300)).await;
    cloud.order(&world, [1]).await;
    world.frame(&mut link).await;

    world.swallow();
    cloud.order(&world, [2]).await;
    cloud.until(&world, 2, Standing::Handed).await;
    let told = world.within(Duration::from_secs(45), link.events.recv()).await;
    match told.unwrap().unwrap() {
        Event::Down(trouble) => assert_eq!(trouble.code, "link_silent"),
        other => panic!("{other:?}"),
    }
    world.pass(Duration::from_secs(3)).await;
    // The hub has let go of the bridge as well: a new order is not handed to it.
    cloud.order(&world, [3]).await;
    assert_eq!(cloud.standing(&world, 3).await, Some(Standing::Waiting));
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_stops_says_so_and_the_link_comes_back_to_its_next_life() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut link = world.link(cloud.port);
    world.up(&mut link, &memory(at(0, 0), 100)).await;
    let cloud = cloud.restart(&world).await;
    assert_eq!(world.trouble(&mut link).await.code, "link_cloud_restarting");
    cloud.order(&world, [1]).await;
    world.up(&mut link, &memory(at(0, 0), 100)).await;
    world.frame(&mut link).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_agent_with_the_same_keys_fences_the_first() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut first = world.link(cloud.port);
    world.up(&mut first, &memory(at(0, 0), 100)).await;
    let mut second = world.link(cloud.port);
    world.up(&mut second, &memory(at(0, 0), 100)).await;
    assert_eq!(world.trouble(&mut first).await.code, "link_fenced");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_reports_in_flight_are_all_acknowledged_in_order() {
    let world = World::simulated();
    let cloud = world.cloud().await;
    let mut link = world.link(cloud.port);
    let (connection, welcome) = world.up(&mut link, &memory(at(0, 0), 100)).await;
    let frames = link.frames.clone();
    let limit = welcome.reports_limit;
    let sender = tokio::spawn(async move {
        for n in 1..=limit {
            frames.send((connection, outcome(1, n, u128::from(n)))).await.unwrap();
        }
    });
    let (mut acknowledged, mut allowed) = (at(0, 0), limit);
    while acknowledged != at(1, limit) || allowed < limit + limit / 2 {
        match world.frame(&mut link).await {
            Frame::Envelope(envelope) => {
                let Message::Acknowledgement { position, .. } = envelope.message().unwrap() else {
                    panic!("{envelope:?}")
                };
                assert!(position >= acknowledged);
                acknowledged = position;
            }
            Frame::Limit(grown) => allowed = grown.up_to,
            other => panic!("{other:?}"),
        }
    }
    sender.await.unwrap();
}
