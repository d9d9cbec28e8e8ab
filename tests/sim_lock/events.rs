//! What happened at a door, as the driver reads it out of the lock's memory.

use latchd::{
    drivers::{Driver, Observed, sim_lock::sim::Settings},
    model::{DoorAct, DoorEvent, DoorMeans, JobId},
};

use crate::house::{House, JOB, NOW, front, put, stay, unlock};

impl House {
    async fn seen(&self, after: Option<&str>) -> Observed {
        self.driver.observe(&front(), after).await.unwrap()
    }

    async fn use_content(&self, content: &str) {
        self.tell(&format!("use {content}")).await;
    }
}

fn told(events: &[DoorEvent]) -> Vec<(DoorAct, Option<DoorMeans>)> {
    events.iter().map(|event| (event.what, event.by)).collect()
}

#[tokio::test(start_paused = true)]
async fn each_thing_at_the_door_is_read_once_with_who_and_how() {
    let house = House::open().await;
    let begun = house.seen(None).await;
    assert_eq!((begun.events.len(), begun.lost, begun.more), (0, 0, false));
    house.succeeded(&house.perform(&put(stay())).await);
    house.use_content("4711").await;
    house.tell("clock set 2026-11-22T08:00:00Z").await;
    house.use_content("4711").await;
    house.succeeded(&house.perform(&unlock()).await);
    house.tell("turn locked").await;
    house.tell("turn unlocked").await;
    let seen = house.seen(Some(&begun.mark)).await;
    assert_eq!(
        told(&seen.events),
        [
            (DoorAct::AccessDenied, None),
            (DoorAct::Unlocked, Some(DoorMeans::Keycode)),
            (DoorAct::Unlocked, Some(DoorMeans::Remote)),
            (DoorAct::Locked, Some(DoorMeans::Manual)),
            (DoorAct::Unlocked, Some(DoorMeans::Manual)),
        ]
    );
    assert_eq!(seen.events[1].slot.as_deref(), Some("stay 7"));
    assert_eq!(seen.events[1].at, "2026-11-22T08:00:00Z".parse().unwrap(), "by the lock's own clock");
    assert_eq!(seen.events[2].job_id, Some(JobId(JOB.parse().unwrap())));
    let again = house.seen(Some(&seen.mark)).await;
    assert_eq!((again.events.len(), again.lost, &again.mark), (0, 0, &seen.mark));
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_it_again_from_the_beginning_sees_the_same_ids() {
    let house = House::open().await;
    for _ in 0..40 {
        house.use_content("0000").await;
    }
    let (once, again) = (house.seen(None).await, house.seen(None).await);
    assert_eq!(once, again);
    let mut ids: Vec<_> = once.events.iter().map(|event| event.door_event_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40, "several pages, and no id twice");
}

#[tokio::test(start_paused = true)]
async fn what_the_lock_has_forgotten_is_counted() {
    let house = House::open_with(NOW, Settings { ledger: 10, ..Settings::default() }).await;
    let begun = house.seen(None).await;
    for _ in 0..25 {
        house.use_content("0000").await;
    }
    let seen = house.seen(Some(&begun.mark)).await;
    assert_eq!((seen.events.len(), seen.lost), (10, 15));
    house.use_content("0000").await;
    let later = house.seen(Some(&seen.mark)).await;
    assert_eq!((later.events.len(), later.lost), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_memory_that_was_cleared_is_read_from_its_beginning() {
    let house = House::open().await;
    house.use_content("0000").await;
    house.use_content("0000").await;
    let seen = house.seen(None).await;
    house.tell("clock advance 1h").await;
    house.tell("clear").await;
    house.use_content("0000").await;
    house.use_content("0000").await;
    house.use_content("0000").await;
    let anew = house.seen(Some(&seen.mark)).await;
    assert_eq!(
        (anew.events.len(), anew.lost),
        (3, 1),
        "nobody knows how many went with the memory; at least one may have"
    );
    let later = house.seen(Some(&anew.mark)).await;
    assert_eq!((later.events.len(), later.lost), (0, 0), "it is said once");
    let old = |event: &DoorEvent| seen.events.iter().any(|old| old.door_event_id == event.door_event_id);
    assert!(!anew.events.iter().any(old), "other events, though at the same places");
}

#[tokio::test(start_paused = true)]
async fn a_long_memory_is_read_in_parts_and_a_cut_reading_is_begun_again_at_the_same_mark() {
    let house = House::open().await;
    for _ in 0..1_500 {
        house.use_content("0000").await;
    }
    house.tell("fault cut-after on LEDGER").await;
    assert!(house.driver.observe(&front(), None).await.is_err());
    let mut seen = house.seen(None).await;
    assert!(seen.more && seen.events.len() < 200, "the lock is free for others in between");
    let mut count = seen.events.len();
    while seen.more {
        seen = house.seen(Some(&seen.mark)).await;
        count += seen.events.len();
    }
    assert_eq!(count, 1_500);
}
