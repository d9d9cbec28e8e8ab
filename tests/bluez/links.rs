//! Connections: made, refused, hung, called off, ended, lost.

use std::time::{Duration, Instant};

use crate::{
    client::{Heard, changed, refused},
    probe::{ONE, ONE_TOLD, ONE_WRITTEN, TWO, World},
};

#[test]
fn a_connection_is_made_once_and_then_is_there() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    let first = client.start(ONE, "Connect", ());
    let second = client.start(ONE, "Connect", ());
    refused(client.answer(second), "InProgress", "Operation already in progress");
    assert!(!client.is_answered(first));
    client.answer(first).unwrap();
    client.until("its table is there", |client| {
        client.heard.contains(&changed(ONE, "ServicesResolved", "true"))
    });
    // Its objects come before that is said.
    let is_table = |heard: &Heard| matches!(heard, Heard::Added { path, .. } if path == ONE_TOLD);
    let table = client.heard.iter().position(is_table).unwrap();
    assert!(table < client.place(&changed(ONE, "ServicesResolved", "true")));
    let heard = client.heard.len();
    client.call(ONE, "Connect", ()).unwrap();
    assert_eq!(client.heard.len(), heard + 1, "nothing happened but the answer");
    assert_eq!(world.tell("connected"), "one");
}

#[test]
fn a_connection_that_fails_says_how_and_the_next_may_be_made() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    for why in ["le-connection-abort-by-local", "le-connection-timeout", "le-connection-refused"] {
        world.tell(&format!("fault one connect error Failed {why}"));
        refused(client.call(ONE, "Connect", ()), "Failed", why);
    }
    client.connect();
}

#[test]
fn a_lock_out_of_range_is_waited_for_without_an_answer_until_it_comes_or_is_called_off() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    world.tell("range one off");
    let waiting = client.start(ONE, "Connect", ());
    let next = client.start(ONE, "Connect", ());
    refused(client.answer(next), "InProgress", "Operation already in progress");
    assert!(!client.is_answered(waiting));
    client.call(ONE, "Disconnect", ()).unwrap();
    refused(client.answer(waiting), "Failed", "br-connection-canceled");
    let again = client.start(ONE, "Connect", ());
    client.round_trip();
    assert!(!client.is_answered(again));
    world.tell("range one on");
    client.answer(again).unwrap();
    assert_eq!(world.tell("connected"), "one");
}

#[test]
fn a_connection_that_takes_long_is_not_hurried_by_an_advertisement() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    world.tell("fault one connect delay 400");
    let start = Instant::now();
    client.call(ONE, "Connect", ()).unwrap();
    assert!(Duration::from_millis(400) <= start.elapsed());
}

#[test]
fn a_connection_that_hangs_hangs_until_it_is_called_off() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    world.tell("fault one connect hang");
    let hung = client.start(ONE, "Connect", ());
    client.connect_to_the_other();
    assert!(!client.is_answered(hung));
    client.call(ONE, "Disconnect", ()).unwrap();
    refused(client.answer(hung), "Failed", "br-connection-canceled");
    client.connect();
}

impl crate::client::Client {
    fn connect_to_the_other(&mut self) {
        self.call(TWO, "Connect", ()).unwrap();
    }
}

#[test]
fn the_end_of_a_link_takes_its_two_seconds_and_calling_a_connection_off_takes_none() {
    let Some((world, mut client)) = World::met() else { return };
    world.tell("timing disconnect 2000");
    client.find();
    client.connect();
    client.heard.clear();
    let start = Instant::now();
    let ends = client.start(ONE, "Disconnect", ());
    // Meanwhile somebody else's connection is called off.
    world.tell("range two off");
    let waiting = client.start(TWO, "Connect", ());
    client.call(TWO, "Disconnect", ()).unwrap();
    refused(client.answer(waiting), "Failed", "br-connection-canceled");
    assert!(!client.is_answered(ends));
    assert_eq!(client.property(ONE, "org.bluez.Device1", "Connected").unwrap(), "true");
    client.answer(ends).unwrap();
    let took = start.elapsed();
    assert!(Duration::from_secs(2) <= took && took < Duration::from_secs(10), "{took:?}");
    let order = [
        client.place(&changed(ONE, "ServicesResolved", "false")),
        client.place(&changed(ONE, "Connected", "false")),
        client.place(&Heard::Answered(ends)),
    ];
    assert!(order.is_sorted(), "{order:?} {:#?}", client.heard);
    // What is not connected is disconnected at once.
    client.heard.clear();
    let again = client.start(ONE, "Disconnect", ());
    client.answer(again).unwrap();
    assert_eq!(client.heard, [Heard::Answered(again)]);
}

#[test]
fn a_table_stays_on_the_bus_behind_the_end_of_its_link() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    client.connect();
    world.tell("drop one");
    client.until("the link is gone", |client| client.heard.contains(&changed(ONE, "Connected", "false")));
    refused(client.read(ONE_WRITTEN), "Failed", "Not connected");
    assert_eq!(client.property(ONE_TOLD, "org.bluez.GattCharacteristic1", "MTU").unwrap(), "247");
}

#[test]
fn a_table_is_late_or_never_comes_or_the_link_goes_before() {
    let Some((world, mut client)) = World::met() else { return };
    client.find();
    world.tell("resolve one late 200");
    client.connect();
    let introspected = client.call(ONE, "Introspect", ()).unwrap().read1::<String>().unwrap();
    assert!(!introspected.contains("service"), "{introspected}");
    let is_table = |heard: &Heard| matches!(heard, Heard::Added { path, .. } if path == ONE_TOLD);
    client.until("its objects are there", |client| client.heard.iter().any(is_table));
    client.call(ONE, "Disconnect", ()).unwrap();

    world.tell("resolve one drop 50");
    client.heard.clear();
    client.call(ONE, "Connect", ()).unwrap();
    client.until("the link is gone", |client| client.heard.contains(&changed(ONE, "Connected", "false")));
    assert!(!client.heard.contains(&changed(ONE, "ServicesResolved", "true")));

    world.tell("resolve one never");
    client.heard.clear();
    client.call(ONE, "Connect", ()).unwrap();
    // The other one has come further meanwhile.
    client.connect_to_the_other();
    client.until("the other's is there", |client| {
        client.heard.contains(&changed(TWO, "ServicesResolved", "true"))
    });
    assert!(!client.heard.contains(&changed(ONE, "ServicesResolved", "true")));
    assert_eq!(client.property(ONE, "org.bluez.Device1", "Connected").unwrap(), "true");
}
