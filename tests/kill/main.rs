//! `kill -9` of agent and cloud at random moments while people at the desk make cards, keypad locks are given PINs and
//! doors are opened: whatever the moment, a job is not lost, not done twice, and not told to have ended otherwise than
//! it did. The judge is what the simulated lock server and the simulated locks did.
//!
//! `LATCHD_KILLS` is how often something is killed, over all houses; `LATCHD_KILL_SEED` chooses the moments.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::print_stdout, reason = "a long run says what it saw")]

mod desk;
mod judge;
mod keypad;
#[expect(dead_code, unreachable_pub, reason = "another test's module, of which this one needs a part")]
#[path = "../road/keypads.rs"]
mod keypads;
mod killer;
#[expect(dead_code, unreachable_pub, reason = "another test's module, of which this one needs a part")]
#[path = "../road/site.rs"]
mod site;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use latchd::seams::Random;
use site::Site;

/// Several properties at once, because each of them mostly waits.
const HOUSES: u64 = 4;

#[test]
fn nothing_is_lost_done_twice_or_mistold_however_often_agent_and_cloud_are_killed() {
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |text| text.parse::<u64>().unwrap());
    let (kills, seed) = (number("LATCHD_KILLS", 100), number("LATCHD_KILL_SEED", 1));
    let houses: Vec<_> = (0..HOUSES)
        .map(|house| thread::spawn(move || in_a_house(house, kills.div_ceil(HOUSES), seed * 1000 + house)))
        .collect();
    // All first: a house whose test is over in the middle leaves its processes behind.
    let told: Vec<_> = houses.into_iter().map(thread::JoinHandle::join).collect();
    let told: Vec<judge::Verdict> = told.into_iter().map(Result::unwrap).collect();
    let mut all = judge::Verdict::default();
    for house in &told {
        all.add(house);
    }
    println!("{all}");
    for house in &told {
        assert!(house.wrongs.is_empty(), "seed {seed}, files in {}:\n{:#?}", house.folder, house.wrongs);
    }
    // The kills hit what they should: work was done between them, and some of it was cut off at the wire.
    assert!(kills <= all.kills && kills / 4 <= all.succeeded, "{all}");
    assert!(kills < 100 || (1 <= all.unknown && 1 <= all.resolved && 1 <= all.freed), "{all}");
    let doors = &all.doors;
    let least = doors.puts.min(doors.unlocks).min(doors.timers);
    assert!(kills / 10 <= least, "{all}");
    assert!(kills < 100 || (1 <= doors.superseded && 1 <= doors.again), "{all}");
}

/// Kills in one house, and judges it.
fn in_a_house(house: u64, kills: u64, seed: u64) -> judge::Verdict {
    // Every other one has its lock server at a network address.
    let by_tcp = house % 2 == 1;
    let options: &[&str] = if by_tcp { &["--tcp", "127.0.0.1:0"] } else { &[] };
    let mut site = Site::without_agent_at(options);
    site.folder.disable_cleanup(true);
    let keypads = keypads::Keypads::start(site.folder.path(), keypad::locks());
    let extra = format!(
        "checkout = \"last_grant\"\n{}[limits]\ncards_per_hour = 100000\nremote_unlock = true\n",
        keypads.section(keypad::LEAD)
    );
    match site.tcp.clone() {
        Some(tcp) => site.configure_line(&format!("tcp = \"{tcp}\""), &extra),
        None => site.configure(&extra),
    }
    site.start_agent();
    site.healthy();
    let folder = site.folder.path().display().to_string();
    let random = Random::seeded(seed);
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let house = desk::House::new(&site);
        let doors = keypad::Doors::new(keypads);
        let mut killer = killer::Killer::new(&mut site, random.clone());
        let killed = thread::scope(|scope| {
            for encoder in ["1", "2"] {
                let (house, site) = (&house, &site);
                let own = || Random::seeded(random.below(u64::MAX));
                let (of_hands, of_desk) = (own(), own());
                scope.spawn(move || desk::hands(house, site, encoder, &of_hands));
                scope.spawn(move || desk::desk(house, site, encoder, &of_desk));
            }
            let of_porter = Random::seeded(random.below(u64::MAX));
            let (at_home, at_doors, on_site) = (&house, &doors, &site);
            scope.spawn(move || keypad::porter(at_home, at_doors, on_site, &of_porter));
            // However this ends, the desks go home.
            let _home = house.open();
            killer.kill(kills, &house, &doors, &site)
        });
        judge::judge(&house, &doors, &site, killer, killed)
    }));
    match judged {
        Ok(verdict) => {
            if verdict.wrongs.is_empty() {
                site.folder.disable_cleanup(false);
            }
            judge::Verdict { folder, ..verdict }
        }
        Err(panic) => {
            println!("house {house}, seed {seed}: panicked; its files are in {folder}");
            std::panic::resume_unwind(panic)
        }
    }
}
