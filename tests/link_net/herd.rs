//! A thousand bridges, and a cloud that restarts.

use std::time::Duration;

use latchd::link::Route;

use super::{
    net::Host,
    peers::{Cloud, Manner},
    world::{BOUND, CLOUD_URL, World, tell},
};

const BRIDGES: u64 = 1000;

#[test]
fn a_thousand_bridges_come_back_to_a_restarted_cloud_evenly_over_one_second() {
    let told = tell(7, async |world: World| {
        let _cloud = Cloud::start(&world, Manner::Welcomes).await;
        let agents: Vec<_> = (0..BRIDGES)
            .map(|number| {
                let mut agent = world.link_with(Route::to(CLOUD_URL).unwrap(), None, 1000 + number);
                tokio::spawn(async move {
                    agent.up(BOUND).await;
                    agent
                })
            })
            .collect();
        let mut up = Vec::new();
        for agent in agents {
            up.push(agent.await.unwrap());
        }
        tokio::time::sleep(Duration::from_secs(100)).await;
        world.note("the cloud restarts");
        world.network.reset(Host::Agent, Host::Cloud);
        for agent in &mut up {
            agent.up(BOUND).await;
        }
    });
    let at = |line: &String| line.split(' ').next().unwrap().parse::<u64>().unwrap();
    let restart = told.iter().position(|line| line.ends_with("the cloud restarts")).unwrap();
    let began = at(&told[restart]);
    let mut tenths = [0_u32; 10];
    for line in told[restart..].iter().filter(|line| line.ends_with("is called")) {
        // The way there takes a few milliseconds.
        let after = (at(line) - began) / 100_000;
        tenths[usize::try_from(after).unwrap().min(9)] += 1;
        assert!(at(line) - began < 1_010_000, "{line}");
    }
    assert_eq!(u64::from(tenths.iter().sum::<u32>()), BRIDGES, "one attempt each");
    // Chi-square with nine degrees of freedom: above 27.9 once in a thousand.
    let chi: f64 = tenths.iter().map(|&count| (f64::from(count) - 100.0).powi(2) / 100.0).sum();
    assert!(chi < 27.9, "{tenths:?}");
}
